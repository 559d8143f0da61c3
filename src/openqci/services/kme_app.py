"""A KME node as a process: its state folder, store, interfaces and signals.

The composition of ``openqci kme run``. What a node does is in :mod:`openqci.services.kme_node`; what it says
to applications in :mod:`openqci.services.kme`. Stopping lets requests in hand end; ``kill -9`` is as good.
"""

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from openqci.core.errors import ConfigurationError, Fault
from openqci.core.identifiers import KmeId, SaeId, SiteId
from openqci.crypto.sealing import KEK_BYTES
from openqci.delivery.directory import SaeDirectory, SaeRecord
from openqci.delivery.pair_stock import KeyBatch
from openqci.keystore.ports import KmeView, StoreTransaction
from openqci.keystore.supply import KeySource
from openqci.services.data_directory import KEK, lock_directory, read_kek, unusable_named, write_durably
from openqci.services.https import HttpsListener
from openqci.services.kme import KmeService
from openqci.services.kme_config import LinkSection, LoadedConfig, host_and_port
from openqci.services.kme_node import KmeNode
from openqci.services.kme_server import KMEEndpoint, KMEServer, tls_context
from openqci.services.peer_app import peer_application
from openqci.services.peer_line import OwnStore, client_context
from openqci.services.sqlite_store import SqliteKeyStore

log = logging.getLogger(__name__)

NODE_FILE, STORE_FILE = "node.json", "store.sqlite"
STATE_VERSION = 1
IDENTITY_KIND = "store-identity"

SourceMaker = Callable[[LoadedConfig, LinkSection], KeySource]


class NodeDescription(msgspec.Struct, frozen=True):
    """What ``node.json`` in the state folder says."""

    format_version: int
    kme_id: str
    made_at_s: float


class StateFolder:
    """A node's state folder, locked: one process runs it."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path, self._lock = path, lock

    @classmethod
    def make(cls, path: Path, kme_id: KmeId) -> None:
        """Make the folder of a new node, with its key-encryption key and an empty store."""
        with unusable_named(path):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.chmod(0o700)
            if (path / NODE_FILE).exists():
                raise ConfigurationError(Fault(str(path), "", "is the state folder of a node already"))
            lock = lock_directory(path)
            try:
                write_durably(path / KEK, secrets.token_bytes(KEK_BYTES))
                SqliteKeyStore.open(path / STORE_FILE, read_kek(path / KEK)).close()
                # The description comes last: it says that the folder is whole.
                description = NodeDescription(STATE_VERSION, kme_id, time.time())
                write_durably(path / NODE_FILE, msgspec.json.format(msgspec.json.encode(description)))
            finally:
                os.close(lock)

    @classmethod
    def open(cls, path: Path, kme_id: KmeId) -> "StateFolder":
        """Lock the folder of a node; ConfigurationError if it is none, another's, or in use."""
        file = path / NODE_FILE
        with unusable_named(path):
            if not file.exists():
                raise ConfigurationError(
                    Fault(str(path), "", "is no state folder of a node; make one with `openqci kme init`")
                )
            try:
                description = msgspec.json.decode(file.read_bytes(), type=NodeDescription)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise ConfigurationError(Fault(str(file), "", f"is damaged ({error})")) from None
            if (description.format_version, description.kme_id) != (STATE_VERSION, kme_id):
                raise ConfigurationError(
                    Fault(
                        str(file),
                        "kme_id",
                        f"is {description.kme_id!r} (version {description.format_version}), expected "
                        f"{kme_id!r} (version {STATE_VERSION})",
                    )
                )
            return cls(path, lock_directory(path))

    def open_store(self) -> SqliteKeyStore:
        """Open the node's store."""
        return SqliteKeyStore.open(self.path / STORE_FILE, read_kek(self.path / KEK))

    def close(self) -> None:
        """Let another process run the node."""
        os.close(self._lock)


def opened_for_running(transaction: StoreTransaction) -> OwnStore:
    """Return which store this is, counting this opening: peers notice a store that goes back."""
    view = KmeView(transaction, KmeId("*"))
    body = view.record(IDENTITY_KIND, "own")
    known = msgspec.json.decode(body, type=dict[str, str]) if body is not None else {}
    own = OwnStore(known.get("store_id") or secrets.token_hex(16), int(known.get("generation", "0")) + 1)
    view.put_record(
        IDENTITY_KIND,
        "own",
        msgspec.json.encode({"store_id": own.store_id, "generation": str(own.generation)}),
    )
    return own


def enter_applications(transaction: StoreTransaction, loaded: LoadedConfig) -> None:
    """Make the directory of applications say what the configuration says."""
    directory = SaeDirectory(transaction)
    wanted = {SaeId(sae.id): (loaded.kme_id, sae.certificate_sha256 or "") for sae in loaded.config.sae} | {
        SaeId(sae): (KmeId(peer.kme_id), "") for peer in loaded.config.peer for sae in peer.saes
    }
    known = {record.sae_id: record for record in directory.saes()}
    for sae_id in known.keys() - wanted.keys():
        directory.remove(sae_id)
    for sae_id, (kme_id, fingerprint) in wanted.items():
        record = known.get(sae_id)
        if record is None or (record.kme_id, record.certificate_sha256) != (kme_id, fingerprint):
            if record is not None:
                directory.remove(sae_id)
            directory.enrol(SaeRecord(sae_id, SiteId(kme_id), kme_id, fingerprint, "", time.time()))


class KmeApp:
    """A running node. ``make_source`` turns a link's section into its source."""

    def __init__(self, loaded: LoadedConfig, make_source: SourceMaker) -> None:
        self.loaded = loaded
        config = loaded.config
        self._folder = StateFolder.open(loaded.state_dir, loaded.kme_id)
        self.store = self._folder.open_store()
        self._tls = config.tls
        self._make_source = make_source
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Open everything; ConfigurationError if an address, certificate or store cannot be used."""
        loaded, config = self.loaded, self.loaded.config
        self.own = await self.store.run(opened_for_running)
        await self.store.run(lambda tx: enter_applications(tx, loaded))
        sources: Mapping[str, KeySource] = {link.id: self._make_source(loaded, link) for link in config.link}
        tls = loaded.path(self._tls.certificate), loaded.path(self._tls.key), loaded.path(self._tls.authority)
        self.node = KmeNode(loaded, self.own, self.store, sources, lambda: client_context(*map(str, tls)))
        self.service = KmeService(self.store, on_demand=self.node.demand)
        self.node.stock_arrived = self._stock_arrived
        certificate, key, authority = tls
        host, port = host_and_port(config.listen.sae)
        self.sae_server = KMEServer(
            [KMEEndpoint(loaded.kme_id, port, certificate, key)], self.service, authority, host=host
        )
        peer_host, peer_port = host_and_port(config.listen.peer)
        self.peer_listener = HttpsListener(
            peer_application(self.node.desk, frozenset(KmeId(peer.kme_id) for peer in config.peer)),
            peer_host,
            peer_port,
            tls_context(KMEEndpoint(loaded.kme_id, peer_port, certificate, key), authority),
        )
        await self.sae_server.start()
        await self.peer_listener.start()

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set."""
        running = asyncio.create_task(self.node.run())
        stopping = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if running in done:
                running.result()
        finally:
            for task in (running, stopping):
                task.cancel()
            await asyncio.gather(running, stopping, return_exceptions=True)

    async def close(self) -> None:
        """Stop listening, let requests in hand end, close the store."""
        await self.sae_server.stop()
        await self.peer_listener.stop()
        await self.node.close()
        self.store.close()
        self._folder.close()

    def _stock_arrived(self, batch: KeyBatch) -> None:
        self.service.stock_arrived(batch.master_sae, batch.slave_sae)
