"""A node's part in its domain: takes the controller's signed configuration, keeps it, and goes by it (I8).

The document comes from a file beside ``kme.toml`` (read at the start and on SIGHUP) or from the controller
itself; either way only the signature of the configured signer counts, and only a later version than the one
in the store. What is in the store is enough: a node starts and serves without file and controller.
"""

import logging
from collections.abc import Callable

from openqci.control import configuration
from openqci.control.configuration import DomainConfiguration
from openqci.core.errors import ConfigurationError, Fault, PeerMisbehaved
from openqci.core.identifiers import KmeId, SaeId, SiteId
from openqci.crypto.signatures import VerifyingKey
from openqci.delivery.directory import SaeDirectory, SaeRecord
from openqci.keystore.ports import KmeView, StoreTransaction
from openqci.services.kme_config import LoadedConfig
from openqci.services.peer_line import KeyStore

log = logging.getLogger(__name__)

BY_CONFIGURATION = "domain"
"""What stands in the directory as the place of credentials of an application that the domain has named."""


class DomainDesk:
    """Holds the configuration that the node goes by. ``changed`` is called with each new one."""

    def __init__(self, loaded: LoadedConfig, store: KeyStore) -> None:
        self.current: DomainConfiguration | None = None
        self.changed: Callable[[DomainConfiguration], None] = lambda configuration: None
        self._loaded, self._store = loaded, store
        self._signer: VerifyingKey | None = None

    async def open(self) -> None:
        """Read signer and file; ConfigurationError if one of them cannot be used."""
        section = self._loaded.config.domain
        if section is None:
            return
        signer = self._loaded.path(section.signer)
        try:
            self._signer = VerifyingKey.from_certificate_pem(signer.read_bytes(), str(signer))
        except OSError as error:
            raise ConfigurationError(
                Fault(
                    str(signer),
                    "",
                    f"cannot be read ({error.strerror}); expected the controller's certificate",
                )
            ) from None
        self.current = await self._store.run(
            lambda tx: configuration.current(KmeView(tx, self._loaded.kme_id))
        )
        if self.current is not None:
            await self._enter(self.current)
        if section.configuration is not None:
            await self.read_file()

    async def read_file(self) -> None:
        """Take the configuration out of the file that ``kme.toml`` names, if it is a new one."""
        section = self._loaded.config.domain
        if section is None or section.configuration is None:
            return
        file = self._loaded.path(section.configuration)
        try:
            await self.take(file.read_bytes())
        except OSError as error:
            raise ConfigurationError(Fault(str(file), "", f"cannot be read ({error.strerror})")) from None
        except PeerMisbehaved as error:
            raise ConfigurationError(Fault(str(file), "", str(error))) from None

    async def take(self, text: bytes) -> bool:
        """Take a signed configuration; tell whether it is a new one.

        PeerMisbehaved if it is not the controller's, or older than what the node has.
        """
        if self._signer is None:
            raise PeerMisbehaved("this node is of no domain: its kme.toml has no [domain]")
        document = configuration.verify(text, self._signer)

        def work(transaction: StoreTransaction) -> bool:
            return configuration.accept(KmeView(transaction, self._loaded.kme_id), document)

        if not await self._store.run(work):
            return False
        self.current = document
        await self._enter(document)
        log.info("domain %s: configuration %d", document.domain, document.version)
        self.changed(document)
        return True

    async def _enter(self, document: DomainConfiguration) -> None:
        await self._store.run(lambda tx: enter_applications(tx, self._loaded.kme_id, document))

    def kme_of(self, sae: SaeId) -> KmeId | None:
        """Return the KME of this domain at which an application is served, or None."""
        return self.current.kme_of(sae) if self.current is not None else None


def enter_applications(transaction: StoreTransaction, kme: KmeId, document: DomainConfiguration) -> None:
    """Have the directory know the domain's applications; what ``kme.toml`` says of one comes first."""
    directory = SaeDirectory(transaction)
    wanted = {SaeId(sae): KmeId(reach.domain) for reach in document.reaches for sae in reach.saes}
    wanted |= {SaeId(sae): KmeId(node.kme_id) for node in document.nodes for sae in node.saes}
    known = {record.sae_id: record for record in directory.saes()}
    for record in known.values():
        gone = wanted.get(record.sae_id) != record.kme_id
        if record.credentials_dir == BY_CONFIGURATION and gone:
            directory.remove(record.sae_id)
    for sae, home in wanted.items():
        if sae not in known and home != kme:
            directory.enrol(SaeRecord(sae, SiteId(home), home, "", BY_CONFIGURATION, document.issued_s))


def describe(document: DomainConfiguration | None) -> dict[str, object] | None:
    """Return what a status says of the configuration that a node goes by."""
    if document is None:
        return None
    return {
        "domain": document.domain,
        "version": document.version,
        "issued_s": document.issued_s,
        "nodes": len(document.nodes),
        "links": len(document.links),
        "pairs": len(document.pairs),
        "reaches": [reach.domain for reach in document.reaches],
    }
