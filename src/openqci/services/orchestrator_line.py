"""A controller's line to the European orchestrator: the domain's offer goes there, its table comes back.

The offer is what the operator has laid down in a file, plus what the domain's configuration says anyway: its
applications and the domains that it borders on. The last table is kept in a file beside the controller's
other state: the domain goes by it when the orchestrator is gone (invariant I8).
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import msgspec
import yaml

from openqci.control.configuration import DomainConfiguration
from openqci.control.offers import (
    TABLE_BYTES_MAX,
    BorderOffer,
    DomainOffer,
    WayTable,
    sign_offer,
    verify_table,
)
from openqci.core.errors import ConfigurationError, Fault, OpenQCIError, PeerMisbehaved
from openqci.crypto.signatures import SigningKey, VerifyingKey
from openqci.services.data_directory import write_durably

log = logging.getLogger(__name__)

OFFER_PATH = "/orchestrator/v1/offer"
OFFER_EVERY_S = 2.0
OFFER_HOLDS_S = 60.0
"""An offer ends so long after it was made: a domain that falls silent is gone for others after a minute."""

RETRY_S_MAX = 30.0
ANSWER_S_MAX = 20.0
TABLE_FILE = "ways.json"


class LaidDownOffer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The operator's file: what the domain offers beside what its configuration says."""

    countries: tuple[str, ...] = ()
    operator: str = ""
    trust: int = 0
    transit_bps: float = 0.0
    epsilon: float = 0.0
    price_eur_per_mib: float = 0.0
    border_bps: dict[str, float] = {}


def read_laid_down(file: Path) -> LaidDownOffer:
    """Read the file, YAML or JSON; ConfigurationError names what is wrong with it."""
    try:
        return msgspec.convert(yaml.safe_load(file.read_text("utf-8")) or {}, LaidDownOffer)
    except OSError as error:
        raise ConfigurationError(Fault(str(file), "", f"cannot be read ({error.strerror})")) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(Fault(str(file), "", f"is neither YAML nor JSON: {error}")) from None
    except (TypeError, ValueError) as error:
        raise ConfigurationError(Fault(str(file), "", str(error))) from None


def offer_of(
    laid_down: LaidDownOffer, configuration: DomainConfiguration, version: int, now_s: float
) -> DomainOffer:
    """Return the domain's offer as it is now. A border without a rate of its own has that of transit."""
    neighbours = dict.fromkeys(border.partner_domain for border in configuration.borders)
    return DomainOffer(
        configuration.domain,
        version,
        now_s,
        now_s + OFFER_HOLDS_S,
        laid_down.countries,
        laid_down.operator,
        laid_down.trust,
        tuple(sae for node in configuration.nodes for sae in node.saes),
        tuple(
            BorderOffer(domain, laid_down.border_bps.get(domain, laid_down.transit_bps))
            for domain in neighbours
        ),
        laid_down.transit_bps,
        laid_down.epsilon,
        laid_down.price_eur_per_mib,
    )


class OrchestratorLine:
    """Offers every few seconds, until cancelled. ``told`` is called with each new table."""

    def __init__(
        self,
        url: str,
        name: str,
        tls: Callable[[], ssl.SSLContext],
        signer: SigningKey,
        orchestrator: VerifyingKey,
        offer_file: Path,
        folder: Path,
        configuration: Callable[[], DomainConfiguration | None],
        told: Callable[[WayTable], None],
    ) -> None:
        self.trouble: str | None = "not asked yet"
        self.table: WayTable | None = None
        self._url, self._name, self._tls = url.rstrip("/") + OFFER_PATH, name, tls
        self._signer, self._orchestrator = signer, orchestrator
        self._offer_file, self._file = offer_file, folder / TABLE_FILE
        self._configuration, self._told = configuration, told
        read_laid_down(offer_file)

    def take_up(self, domain: str) -> None:
        """Take up the last table of an earlier life, if there is one."""
        if not self._file.exists():
            return
        try:
            table = verify_table(self._file.read_bytes(), self._orchestrator, domain)
        except (OSError, PeerMisbehaved) as error:
            log.error("%s is not taken up: %s", self._file, error)
            return
        self.table = table
        self._told(table)

    async def run(self) -> None:
        """Offer, and take what comes back."""
        wait_s = OFFER_EVERY_S
        while True:
            try:
                async with self._session() as session:
                    while True:
                        await self._exchange(session)
                        self.trouble = None
                        wait_s = OFFER_EVERY_S
                        await asyncio.sleep(OFFER_EVERY_S)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                self.trouble = f"cannot be reached ({error or type(error).__name__})"
            except OpenQCIError as error:
                self.trouble = str(error)
            log.warning("the orchestrator %s: %s", self._name, self.trouble)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, RETRY_S_MAX)

    def _session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(ssl=self._tls(), limit=1)
        timeout = aiohttp.ClientTimeout(total=ANSWER_S_MAX, connect=5.0)
        return aiohttp.ClientSession(connector=connector, timeout=timeout)

    async def _exchange(self, session: aiohttp.ClientSession) -> None:
        configuration = self._configuration()
        if configuration is None:
            return
        # Milliseconds count as versions: they grow through restarts without being written down.
        now_s = time.time()
        offer = offer_of(read_laid_down(self._offer_file), configuration, int(now_s * 1000), now_s)
        text = sign_offer(offer, self._signer)
        version = self.table.version if self.table is not None else 0
        url = f"{self._url}?version={version}"
        async with session.post(url, data=text, server_hostname=self._name) as answer:
            if answer.status == 204:
                return
            if answer.status != 200:
                raise PeerMisbehaved(f"refuses ({answer.status}): {(await answer.text())[:200]}")
            signed = await answer.content.read(TABLE_BYTES_MAX + 1)
            while len(signed) <= TABLE_BYTES_MAX and (more := await answer.content.read(TABLE_BYTES_MAX)):
                signed += more
        table = verify_table(signed, self._orchestrator, configuration.domain)
        if table.version <= version:
            raise PeerMisbehaved(f"sent table {table.version}, older than {version}")
        await asyncio.to_thread(write_durably, self._file, signed)
        self.table = table
        log.info("table of ways %d: %d domains", table.version, len(table.destinations))
        self._told(table)
