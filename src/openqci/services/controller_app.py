"""The controller of a domain as a process: hears its nodes, signs what they go by, answers its operator.

The decisions are in :mod:`openqci.control.controller`. Nodes call, so a controller needs no way to them: each
posts its report every second and gets the configuration back if it has not the latest. What must outlive the
process is two small files: the last signed configuration, so that versions never go back, and the links that
an operator has closed. Without a controller the nodes go on (invariant I8).
"""

import asyncio
import json
import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from openqci.control import configuration
from openqci.control.configuration import DomainConfiguration, SignedConfiguration
from openqci.control.controller import Controller, NodeReport
from openqci.control.orchestrator import reaches_of
from openqci.control.topology import NETWORKS, networks_document
from openqci.core.errors import ConfigurationError, Fault, PeerMisbehaved, RequestRefused
from openqci.core.identifiers import KmeId, LinkId
from openqci.crypto.signatures import SigningKey, VerifyingKey
from openqci.services.data_directory import write_durably
from openqci.services.https import HttpsListener
from openqci.services.keyless_app import body_of, guarded, json_answer, keyless_application, read_named
from openqci.services.kme_config import Address, PathText, Section, TlsSection, Url, host_and_port
from openqci.services.orchestrator_line import OrchestratorLine
from openqci.services.pki import kme_identity
from openqci.services.roles import MAY_LOOK, Holder, Role, allowed
from openqci.services.tls import TlsFiles
from openqci.services.toml_config import faults_against, read_toml, schema_of

log = logging.getLogger(__name__)

REPORT_PATH, CONFIGURATION_PATH, STATUS_PATH = (
    "/domain/v1/report",
    "/domain/v1/configuration",
    "/domain/v1/status",
)
TOPOLOGY_PATH = f"/restconf/data/{NETWORKS}"
YANG_JSON = "application/yang-data+json"
SIGNED, CLOSED = "configuration.json", "closed-links.json"
REPORT_BYTES_MAX = 4 * 1024 * 1024
LOOK_EVERY_S = 0.25
REASON_CHARACTERS_MAX = 200
MAY_CLOSE = frozenset({Role.OPERATOR, Role.SECURITY_OFFICER})
MAY_EXPORT = MAY_LOOK | {Role.ORCHESTRATOR}


class ControllerSection(Section, frozen=True, kw_only=True):
    """``[controller]``: its name in certificates, the file that its operator writes, and its folder."""

    name: str
    domain_file: PathText
    state_dir: PathText


class ControllerListenSection(Section, frozen=True, kw_only=True):
    """``[listen]``: where nodes and operators call."""

    nodes: Address


class OrchestratorLineSection(Section, frozen=True, kw_only=True):
    """``[orchestrator]``: the European orchestrator that this domain takes part in.

    ``name`` is in its certificate, which ``authority`` has issued; ``signer`` is that certificate, whose key
    signs tables of ways. ``offer_file`` is what the domain offers.
    """

    url: Url
    name: str
    authority: PathText
    signer: PathText
    offer_file: PathText


class ControllerConfig(Section, frozen=True, kw_only=True):
    """The whole of ``control.toml``."""

    version: int
    controller: ControllerSection
    tls: TlsSection
    listen: ControllerListenSection
    orchestrator: OrchestratorLineSection | None = None


@dataclass(frozen=True)
class LoadedController:
    """A checked configuration and the folder against which its paths are read."""

    file: Path
    config: ControllerConfig

    def path(self, text: str) -> Path:
        return (self.file.parent / text).absolute()

    @property
    def state_dir(self) -> Path:
        return self.path(self.config.controller.state_dir)

    def tls_files(self) -> TlsFiles:
        tls = self.config.tls
        lists = tuple(map(self.path, tls.revocation_lists))
        return TlsFiles(
            self.path(tls.certificate), self.path(tls.key), self.path(tls.authority), lists, "1.3"
        )

    def domain(self) -> DomainConfiguration:
        """Read the domain file; ConfigurationError names what is wrong with it."""
        return read_domain(self.path(self.config.controller.domain_file))


def load_controller(file: Path) -> LoadedController:
    """Read and check ``control.toml``."""
    document = read_toml(file)
    faults = faults_against(schema_of(ControllerConfig, "OpenQCI controller"), str(file), document)
    if faults:
        raise ConfigurationError(*faults)
    return LoadedController(file.absolute(), msgspec.convert(document, ControllerConfig))


def read_domain(file: Path) -> DomainConfiguration:
    """Read what an operator lays down for a domain, YAML or JSON."""
    try:
        content = yaml.safe_load(file.read_text("utf-8"))
        laid_down = msgspec.convert(
            {"version": 1, "issued_s": 0.0} | dict(content or {}), DomainConfiguration
        )
    except OSError as error:
        raise ConfigurationError(Fault(str(file), "", f"cannot be read ({error.strerror})")) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(Fault(str(file), "", f"is neither YAML nor JSON: {error}")) from None
    except (TypeError, ValueError) as error:
        raise ConfigurationError(Fault(str(file), "", str(error))) from None
    faults = laid_down.faults()
    if faults:
        raise ConfigurationError(*(Fault(str(file), "", fault) for fault in faults))
    return laid_down


class ControllerApp:
    """A running controller."""

    def __init__(self, loaded: LoadedController) -> None:
        self.loaded = loaded
        self.stop = asyncio.Event()
        self._files = loaded.tls_files()
        self._folder = loaded.state_dir
        key = loaded.path(loaded.config.tls.key)
        self._signer = SigningKey.from_pem(read_named(key), str(key))
        self._started_s = time.monotonic()
        laid_down = loaded.domain()
        self._signed = self._last_signed(laid_down)
        self.controller = Controller(laid_down, self._version_of(self._signed))
        self._orchestrator = self._make_line(laid_down.domain)
        self._closed = self._closed_links()
        for link, reason in self._closed.items():
            self.controller.close_link(LinkId(link), reason)
        address = host_and_port(loaded.config.listen.nodes)
        self.listener = HttpsListener(self._application(), *address, self._files.server_context())

    async def start(self) -> None:
        """Sign the first configuration of this life and listen."""
        await self._look()
        await self.listener.start()

    async def run(self) -> None:
        """Look for what has changed until ``stop`` is set."""
        offers = asyncio.create_task(self._orchestrator.run()) if self._orchestrator is not None else None
        try:
            while not self.stop.is_set():
                await self._look()
                try:
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await self.stop.wait()
                except TimeoutError:
                    continue
        finally:
            if offers is not None:
                offers.cancel()
                await asyncio.gather(offers, return_exceptions=True)

    def _make_line(self, domain: str) -> OrchestratorLine | None:
        """Return the line to the orchestrator, with the last table taken up, if the domain takes part."""
        section, loaded = self.loaded.config.orchestrator, self.loaded
        if section is None:
            return None
        signer = loaded.path(section.signer)
        files = replace(loaded.tls_files(), authority=loaded.path(section.authority), revocation_lists=())
        line = OrchestratorLine(
            section.url,
            section.name,
            files.client_context,
            self._signer,
            VerifyingKey.from_certificate_pem(read_named(signer), str(signer)),
            loaded.path(section.offer_file),
            self._folder,
            lambda: self.controller.current,
            lambda table: self.controller.learn_reaches(reaches_of(table)),
        )
        line.take_up(domain)
        return line

    async def close(self) -> None:
        """Listen no longer."""
        await self.listener.stop()

    async def reload(self) -> None:
        """Read the domain file, certificates and revocation lists again; on a fault go on with what was."""
        try:
            self.controller.lay_down(self.loaded.domain())
            await self.listener.reload(self._files.server_context(), self._files.is_revoked)
        except ConfigurationError as error:
            log.error("not taken: %s", error)

    async def _look(self) -> None:
        """Sign and keep a new version if there is one: durable before any node hears of it."""
        made = self.controller.next_configuration(time.time())
        if made is None:
            return
        signed = configuration.sign(made, self._signer)
        await asyncio.to_thread(write_durably, self._folder / SIGNED, signed)
        self._signed = signed
        log.info("domain %s: version %d", made.domain, made.version)

    def _application(self) -> Starlette:
        return keyless_application(
            [
                Route(REPORT_PATH, guarded(self._report), methods=["POST"]),
                Route(CONFIGURATION_PATH, self._configuration),
                Route(STATUS_PATH, self._status),
                Route(TOPOLOGY_PATH, self._topology),
                Route("/domain/v1/links/{link}/close", guarded(self._close), methods=["POST"]),
                Route("/domain/v1/links/{link}/open", self._open, methods=["POST"]),
            ]
        )

    async def _report(self, request: Request) -> Response:
        callers = kme_identity(request.state.certificate) if request.state.certificate else frozenset()
        if not callers:
            raise RequestRefused(401, "only a KME reports: the caller's certificate names none")
        try:
            report = msgspec.json.decode(await body_of(request, REPORT_BYTES_MAX), type=NodeReport)
            if KmeId(report.kme_id) not in callers:
                raise RequestRefused(401, "a KME reports for itself alone: the certificate names another")
            self.controller.receive_report(report, time.time())
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RequestRefused(400, f"the report cannot be read: {error}") from None
        except PeerMisbehaved as error:
            raise RequestRefused(403, str(error)) from None
        if report.version >= self.controller.version:
            return Response(status_code=204)
        return Response(self._signed, media_type="application/json")

    async def _configuration(self, request: Request) -> Response:
        if not kme_identity(request.state.certificate):
            self._holder(request, MAY_LOOK)
        return Response(self._signed, media_type="application/json")

    async def _status(self, request: Request) -> Response:
        self._holder(request, MAY_LOOK)
        return json_answer(self.status())

    async def _topology(self, request: Request) -> Response:
        """Answer with the topology of the domain as it was signed last (RFC 8345)."""
        self._holder(request, MAY_EXPORT)
        made = networks_document(_content(self._signed, self._folder / SIGNED))
        return Response(msgspec.json.encode(made), media_type=YANG_JSON)

    def status(self) -> dict[str, Any]:
        """Return the state of the domain as its controller sees it; it holds no key and no key IDs."""
        controller, now_s = self.controller, time.time()
        current = controller.current
        return {
            "name": self.loaded.config.controller.name,
            "uptime_s": round(time.monotonic() - self._started_s, 3),
            "domain": current.domain if current is not None else None,
            "version": controller.version,
            "nodes": [
                {
                    "kme_id": kme,
                    "version": report.version,
                    "heard_s_ago": round(now_s - controller.heard_s[kme], 1),
                    "unmet": list(report.unmet),
                }
                for kme, report in sorted(controller.reports.items())
            ],
            "links": [
                {"link_id": link.link_id, "rate_bps": round(link.rate_bps, 1), "usable": link.usable}
                for link in (current.links if current is not None else ())
            ],
            "closed": dict(self._closed),
            "orchestrator": None
            if self._orchestrator is None
            else {
                "trouble": self._orchestrator.trouble,
                "table": self._orchestrator.table.version if self._orchestrator.table is not None else 0,
            },
            "alarms": [vars(alarm) for alarm in controller.alarms(now_s)],
        }

    async def _close(self, request: Request) -> Response:
        holder, link = self._holder(request, MAY_CLOSE), self._link(request)
        said = (await body_of(request, REPORT_BYTES_MAX)).decode("utf-8", "replace")[:REASON_CHARACTERS_MAX]
        reason = f"closed by {holder.role.value} {holder.name}" + (f": {said}" if said else "")
        self.controller.close_link(link, reason)
        self._closed[link] = reason
        await self._keep_closed()
        log.warning("link %s %s", link, reason)
        return json_answer({"link_id": link, "closed": reason})

    async def _open(self, request: Request) -> Response:
        holder, link = self._holder(request, MAY_CLOSE), self._link(request)
        if not self.controller.open_link(link):
            raise RequestRefused(409, f"link {link} is not closed")
        del self._closed[link]
        await self._keep_closed()
        log.warning("link %s opened by %s %s", link, holder.role.value, holder.name)
        return json_answer({"link_id": link, "closed": None})

    async def _keep_closed(self) -> None:
        await asyncio.to_thread(write_durably, self._folder / CLOSED, json.dumps(self._closed).encode())
        await self._look()

    def _link(self, request: Request) -> LinkId:
        link = LinkId(request.path_params["link"])
        current = self.controller.current
        if current is None or all(each.link_id != link for each in current.links):
            raise RequestRefused(404, f"there is no link {link[:64]}")
        return link

    def _holder(self, request: Request, roles: frozenset[Role]) -> Holder:
        return allowed(request.state.certificate, roles)

    def _last_signed(self, laid_down: DomainConfiguration) -> bytes:
        """Return what was signed last, by whatever key; ConfigurationError if it is of another domain."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = self._folder / SIGNED
        if not file.exists():
            return b""
        text = read_named(file)
        domain = _content(text, file).domain
        if domain != laid_down.domain:
            raise ConfigurationError(Fault(str(file), "", f"is of domain {domain}, not {laid_down.domain}"))
        return text

    def _version_of(self, signed: bytes) -> int:
        return _content(signed, self._folder / SIGNED).version if signed else 0

    def _closed_links(self) -> dict[str, str]:
        file = self._folder / CLOSED
        try:
            return dict(msgspec.json.decode(file.read_bytes(), type=dict[str, str])) if file.exists() else {}
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigurationError(Fault(str(file), "", f"cannot be read ({error})")) from None


def _content(signed: bytes, file: Path) -> DomainConfiguration:
    try:
        document = msgspec.json.decode(signed, type=SignedConfiguration).document
        return msgspec.json.decode(document, type=DomainConfiguration)
    except msgspec.DecodeError as error:
        raise ConfigurationError(
            Fault(str(file), "", f"is damaged ({error}); put it back from a backup, or versions would repeat")
        ) from None
