"""The European orchestrator as a process: takes domains' offers, hands out their tables of ways, explains.

The decisions are in :mod:`openqci.control.orchestrator`. Domains call, so the orchestrator needs no way to
them: each posts its offer every few seconds and gets its table back if that is a later one. A domain is known
by its controller's certificate: which authority issued it, and which key signs. What outlives the process is
the number of the last version and the offers that hold. Without an orchestrator no domain stands still.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from openqci.control.offers import OFFER_BYTES_MAX, sign_table
from openqci.control.orchestrator import PATHS_MAX, Orchestrator, WayPolicy
from openqci.core.errors import ConfigurationError, Fault, PeerMisbehaved, RequestRefused
from openqci.crypto.signatures import SigningKey, VerifyingKey
from openqci.services.data_directory import write_durably
from openqci.services.https import HttpsListener
from openqci.services.keyless_app import body_of, guarded, json_answer, keyless_application, read_named
from openqci.services.kme_config import Address, Name, PathText, Section, TlsSection, host_and_port
from openqci.services.pki import issued_by_one, read_certificates
from openqci.services.roles import MAY_LOOK, Role, holder_of
from openqci.services.tls import TlsFiles
from openqci.services.toml_config import faults_against, read_toml, schema_of

log = logging.getLogger(__name__)

OFFER_PATH, STATUS_PATH, WAYS_PATH = (
    "/orchestrator/v1/offer",
    "/orchestrator/v1/status",
    "/orchestrator/v1/ways",
)
VERSION_FILE = "version"
OFFERS = "offers"
LOOK_EVERY_S = 1.0
VERSIONS_AHEAD = 1_000
"""Versions that are written down as used before they are: a crash then costs numbers, and no order."""


class OrchestratorSection(Section, frozen=True, kw_only=True):
    """``[orchestrator]``: its name in certificates, and its folder."""

    name: str
    state_dir: PathText


class OrchestratorListenSection(Section, frozen=True, kw_only=True):
    """``[listen]``: where domains and operators call."""

    domains: Address


class DomainEntry(Section, frozen=True, kw_only=True):
    """``[[domain]]``: a domain that takes part: who issues its controller's certificate, and who signs."""

    id: Name
    authority: PathText
    signer: PathText


class OrchestratorConfig(Section, frozen=True, kw_only=True):
    """The whole of ``orchestrator.toml``."""

    version: int
    orchestrator: OrchestratorSection
    tls: TlsSection
    listen: OrchestratorListenSection
    domain: tuple[DomainEntry, ...] = ()


@dataclass(frozen=True)
class LoadedOrchestrator:
    """A checked configuration and the folder against which its paths are read."""

    file: Path
    config: OrchestratorConfig

    def path(self, text: str) -> Path:
        return (self.file.parent / text).absolute()

    @property
    def state_dir(self) -> Path:
        return self.path(self.config.orchestrator.state_dir)

    def tls_files(self) -> TlsFiles:
        """Return the TLS files: its own authority, for operators, and those of all domains."""
        tls = self.config.tls
        return TlsFiles(
            self.path(tls.certificate),
            self.path(tls.key),
            self.path(tls.authority),
            minimum_version="1.3",
            more_authorities=tuple(self.path(domain.authority) for domain in self.config.domain),
        )

    def keys(self) -> dict[str, VerifyingKey]:
        """Return the keys that sign the domains' offers."""
        found = {}
        for domain in self.config.domain:
            file = self.path(domain.signer)
            found[domain.id] = VerifyingKey.from_certificate_pem(read_named(file), str(file))
        return found


def load_orchestrator(file: Path) -> LoadedOrchestrator:
    """Read and check ``orchestrator.toml``."""
    document = read_toml(file)
    faults = faults_against(schema_of(OrchestratorConfig, "OpenQCI orchestrator"), str(file), document)
    if not faults:
        config = msgspec.convert(document, OrchestratorConfig)
        names = [domain.id for domain in config.domain]
        twice = sorted({name for name in names if names.count(name) > 1})
        faults = [Fault(str(file), "domain", f"{name!r} occurs more than once") for name in twice]
    if faults:
        raise ConfigurationError(*faults)
    return LoadedOrchestrator(file.absolute(), config)


class OrchestratorApp:
    """A running orchestrator."""

    def __init__(self, loaded: LoadedOrchestrator) -> None:
        self.loaded = loaded
        self.stop = asyncio.Event()
        key = loaded.path(loaded.config.tls.key)
        self._signer = SigningKey.from_pem(read_named(key), str(key))
        self._folder = loaded.state_dir
        self._started_s = time.monotonic()
        (self._folder / OFFERS).mkdir(parents=True, exist_ok=True, mode=0o700)
        self.orchestrator = Orchestrator(loaded.keys(), self._last_version())
        self._written = self.orchestrator.version
        self._heard_s: dict[str, float] = {}
        self._refused: dict[str, str] = {}
        self._read_offers()
        self._issuers = self._read_issuers()
        address = host_and_port(loaded.config.listen.domains)
        self.listener = HttpsListener(self._application(), *address, loaded.tls_files().server_context())

    async def start(self) -> None:
        """Listen."""
        await self.listener.start()

    async def run(self) -> None:
        """Drop offers whose time is over, until ``stop`` is set."""
        while not self.stop.is_set():
            for domain in self.orchestrator.expire(time.time()):
                log.warning("the offer of %s has ended; no way leads over it any more", domain)
                (self._folder / OFFERS / f"{domain}.json").unlink(missing_ok=True)
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self.stop.wait()
            except TimeoutError:
                continue

    async def close(self) -> None:
        """Listen no longer."""
        await self.listener.stop()

    def status(self) -> dict[str, Any]:
        """Return offers and borders as they are now."""
        now_s = time.time()
        return {
            "name": self.loaded.config.orchestrator.name,
            "uptime_s": round(time.monotonic() - self._started_s, 3),
            "version": self.orchestrator.version,
            "domains": [
                {
                    "domain": domain.id,
                    "offer": msgspec.structs.replace(offer, saes=()) if offer is not None else None,
                    "saes": len(offer.saes) if offer is not None else 0,
                    "heard_s_ago": round(now_s - self._heard_s[domain.id], 1)
                    if domain.id in self._heard_s
                    else None,
                    "refused": self._refused.get(domain.id),
                }
                for domain in self.loaded.config.domain
                for offer in (self.orchestrator.offers.get(domain.id),)
            ],
            "borders": [
                {"domains": [one, other], "rate_bps": rate}
                for one, other, rate in self.orchestrator.neighbours()
            ],
        }

    def _application(self) -> Starlette:
        return keyless_application(
            [
                Route(OFFER_PATH, guarded(self._offer), methods=["POST"]),
                Route(STATUS_PATH, self._status),
                Route(WAYS_PATH, self._ways),
            ]
        )

    async def _offer(self, request: Request) -> Response:
        """Take an offer; answer with the domain's table if it has an older one, or none."""
        domain = self._domain_of(request)
        text = await body_of(request, OFFER_BYTES_MAX)
        known = request.query_params.get("version", "0")
        if not (known.isascii() and known.isdigit() and len(known) < 16):
            raise RequestRefused(400, "version shall be the number of a table")
        now_s = time.time()
        try:
            offer = self.orchestrator.receive_offer(text, now_s)
        except PeerMisbehaved as error:
            self._refused[domain] = str(error)
            raise RequestRefused(403, str(error)) from None
        if offer.domain != domain:
            raise RequestRefused(403, "a controller offers for its own domain alone")
        self._refused.pop(domain, None)
        self._heard_s[domain] = now_s
        await asyncio.to_thread(write_durably, self._folder / OFFERS / f"{domain}.json", text)
        table = self.orchestrator.table(domain, now_s)
        await self._keep_version()
        if table.version <= int(known):
            return Response(status_code=204)
        return Response(sign_table(table, self._signer), media_type="application/json")

    async def _status(self, request: Request) -> Response:
        self._may_look(request)
        return json_answer(self.status())

    async def _ways(self, request: Request) -> Response:
        """Explain the ways between two domains, or two applications."""
        self._may_look(request)
        asked = request.query_params
        source, target = self._place(asked.get("from", "")), self._place(asked.get("to", ""))
        policy = _policy(asked.getlist("avoid"), asked.get("trust", "0"))
        answer = self.orchestrator.ways(source, target, _paths(asked.get("paths", "1")), policy)
        return json_answer({"from": source, "to": target, "ways": answer.ways, "refused": answer.refused})

    def _place(self, name: str) -> str:
        """Return the domain of that name, or that offers an application of that name."""
        if name in self.orchestrator.offers:
            return name
        for offer in self.orchestrator.offers.values():
            if name in offer.saes:
                return offer.domain
        raise RequestRefused(404, f"no offer that holds is of, or names, {name[:64]!r}")

    def _domain_of(self, request: Request) -> str:
        """Return the domain whose controller calls: its certificate says so, and its authority issued it."""
        der = request.state.certificate
        holder = holder_of(der) if der else None
        if holder is not None and holder.role is Role.CONTROLLER:
            certificate = x509.load_der_x509_certificate(der)
            for domain, issuers in self._issuers.items():
                if issued_by_one(certificate, issuers):
                    return domain
        raise RequestRefused(401, "this needs the certificate of a controller of a domain that takes part")

    def _may_look(self, request: Request) -> None:
        """Let operators of the orchestrator look, whom its own authority has certified."""
        der = request.state.certificate
        holder = holder_of(der) if der else None
        own = read_certificates(self.loaded.path(self.loaded.config.tls.authority))
        certified = der and issued_by_one(x509.load_der_x509_certificate(der), tuple(own))
        if holder is None or holder.role not in MAY_LOOK or not certified:
            raise RequestRefused(401, "this needs a certificate of the orchestrator's authority with a role")

    async def _keep_version(self) -> None:
        """Write down that versions are used before anybody hears of them."""
        if self.orchestrator.version > self._written:
            self._written = self.orchestrator.version + VERSIONS_AHEAD
            await asyncio.to_thread(write_durably, self._folder / VERSION_FILE, str(self._written).encode())

    def _last_version(self) -> int:
        file = self._folder / VERSION_FILE
        if not file.exists():
            return 0
        text = read_named(file).strip()
        if not text.isdigit():
            raise ConfigurationError(Fault(str(file), "", "is damaged; put it back from a backup"))
        return int(text)

    def _read_offers(self) -> None:
        """Take up the offers that held when the process ended."""
        for file in sorted((self._folder / OFFERS).glob("*.json")):
            try:
                self.orchestrator.receive_offer(read_named(file), time.time())
            except PeerMisbehaved as error:
                log.info("%s: %s", file.name, error)

    def _read_issuers(self) -> dict[str, tuple[x509.Certificate, ...]]:
        return {
            domain.id: tuple(read_certificates(self.loaded.path(domain.authority)))
            for domain in self.loaded.config.domain
        }


def _policy(avoid: list[str], trust: str) -> WayPolicy:
    """Read what ways must keep to: ``country:XX``, ``operator:NAME``, ``domain:ID`` or a domain's name."""
    kinds: dict[str, set[str]] = {"country": set(), "operator": set(), "domain": set()}
    for wish in avoid:
        kind, colon, name = wish.partition(":")
        kinds[kind if colon and kind in kinds else "domain"].add(name if colon and kind in kinds else wish)
    if not trust.isdigit() or len(trust) > 3:
        raise RequestRefused(400, "trust shall be a class: 0, 1, 2, ...")
    return WayPolicy(
        avoid_domains=frozenset(kinds["domain"]),
        avoid_countries=frozenset(kinds["country"]),
        avoid_operators=frozenset(kinds["operator"]),
        trust_min=int(trust),
    )


def _paths(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:4]) <= PATHS_MAX):
        raise RequestRefused(400, f"paths shall be a number from 1 to {PATHS_MAX}")
    return int(text)
