"""All of a node that has to do with borders, put together from its configuration.

A node without ``[etsi020]`` has none. The parts: what answers partners and sends what is due
(:mod:`openqci.services.border`), the listener with the partners' authorities
(:mod:`openqci.services.etsi020_app`), and the stocks of pairs in other networks
(:mod:`openqci.services.border_origin`).
"""

import os
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from openqci.control import agreements
from openqci.control.configuration import DomainConfiguration
from openqci.core.identifiers import KmeId
from openqci.delivery import border_account
from openqci.delivery.border_account import BorderEntry
from openqci.delivery.etsi020_rules import BorderEvent, Carrier, KeysReleased, Rules, TransferSettled
from openqci.delivery.named_keys import NamedKey
from openqci.delivery.transfers import State
from openqci.keystore.ports import KmeView
from openqci.services.border import BorderService
from openqci.services.border_config import (
    PartnerCertificates,
    Troubles,
    agreements_of,
    border_files,
    partner_files,
    partners_of,
    remote_of,
    timing_of,
    ways_of,
)
from openqci.services.border_origin import RemoteStocks
from openqci.services.etsi020_app import etsi020_application
from openqci.services.etsi020_client import PartnerClient
from openqci.services.https import HttpsListener
from openqci.services.kme import KeyStore, Observer
from openqci.services.kme_config import BorderSection, LoadedConfig, host_and_port

Document = dict[str, Any]


class Borders:
    """The borders of a node that has ``[etsi020]``. ``released`` hears of key that a master here can have."""

    def __init__(
        self,
        loaded: LoadedConfig,
        section: BorderSection,
        store: KeyStore,
        observer: Observer,
        domain: Callable[[], DomainConfiguration | None],
        carrier: Carrier | None = None,
    ) -> None:
        self.released: Callable[[KeysReleased], None] = lambda released: None
        self.happened: Callable[[BorderEvent], None] = lambda event: None
        self._loaded = loaded
        timing = timing_of(loaded)
        self._troubles = Troubles(ways_of(loaded, domain, inside=carrier is not None), time.monotonic)
        ways = self._troubles.ways
        rules = Rules(
            section.domain, partners_of(loaded), os.urandom, ways, carrier, section.synchronous, timing
        )
        clients = {
            KmeId(partner.kme_id): PartnerClient(
                partner.url,
                partner.server_name or partner.kme_id,
                partial(_client_context, loaded, partner.kme_id),
                timing.request_s_max,
            )
            for partner in loaded.config.partner
        }
        self.service = BorderService(loaded.kme_id, store, lambda: rules, clients, observer)
        self.stocks = RemoteStocks(
            loaded, self.service, ways, section.domain, lambda sae: remote_of(loaded, domain(), sae)
        )
        self.service.released = lambda released: self.released(released)
        self.service.happened = self._happened
        self._certificates = PartnerCertificates(loaded)
        self.listener = self._make_listener()

    def watch(
        self,
        trouble: Callable[[str, str, str | None], None],
        expired: Callable[[NamedKey], None],
    ) -> None:
        """Have troubles and expired keys told."""
        self.service.trouble, self.service.expired = trouble, expired

    def listeners(self) -> list[HttpsListener]:
        """Return the listener for partners, if there are any."""
        return [self.listener] if self.listener is not None else []

    def work(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """Return what has to run while the node runs."""
        return [self.service.run, self.stocks.run]

    async def reload(self) -> None:
        """Read certificates, authorities and revocation lists again; ConfigurationError names a fault."""
        self._certificates.read()
        if self.listener is not None:
            context = border_files(self._loaded).server_context()
            await self.listener.reload(context, self._certificates.refuses)
        await self.service.close()

    async def status(self) -> Document:
        """Return partners and far pairs as they are now."""
        return {"partners": await self.service.status(), "remote_pairs": await self.stocks.status()}

    async def account(self, after: int, entries_max: int) -> Document:
        """Return the lines of the account after a number, and the sums of all of it."""

        def work(view: KmeView) -> list[BorderEntry]:
            return list(border_account.entries(view))

        lines = await self.service.read(work)
        return {
            "kme_id": self._loaded.kme_id,
            "entries": [line for line in lines if line.number > after][:entries_max],
            "sums": agreements.sums(lines, agreements_of(self._loaded)),
            "head": {"number": lines[-1].number, "hash": lines[-1].hash} if lines else None,
        }

    def _happened(self, event: BorderEvent) -> None:
        if isinstance(event, TransferSettled) and event.transfer.state in (State.FAILED, State.RELAYED):
            self._troubles.note(event.transfer.downstream, failed=event.transfer.state is State.FAILED)
        self.stocks.happened(event)
        self.happened(event)

    def _make_listener(self) -> HttpsListener | None:
        address = self._loaded.config.listen.etsi020
        if address is None or not self._loaded.config.partner:
            return None
        application = etsi020_application(self.service, self._certificates.partner_of)
        context = border_files(self._loaded).server_context()
        return HttpsListener(application, *host_and_port(address), context)


def _client_context(loaded: LoadedConfig, kme_id: str) -> Any:
    section = next(each for each in loaded.config.partner if each.kme_id == kme_id)
    return partner_files(loaded, section).client_context()
