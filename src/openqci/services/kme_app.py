"""A KME node as a process: its state folder, store, interfaces and signals.

The composition of ``openqci kme run``. What a node does is in :mod:`openqci.services.kme_node`; what it says
to applications in :mod:`openqci.services.kme`. Stopping lets requests in hand end; ``kill -9`` is as good.
"""

import asyncio
import logging
import math
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec

from openqci import __version__
from openqci.core.errors import ConfigurationError, Fault, OpenQCIError
from openqci.core.identifiers import KmeId, SaeId, SiteId
from openqci.crypto.sealing import KEK_BYTES
from openqci.delivery.admission import Quota
from openqci.delivery.directory import SaeDirectory, SaeRecord
from openqci.delivery.pair_stock import KeyBatch
from openqci.delivery.skip import SkipRules
from openqci.keystore.ports import KmeView, StoreTransaction
from openqci.keystore.supply import KeySource
from openqci.services.audit import AuditEvent, AuditLog
from openqci.services.data_directory import KEK, lock_directory, read_kek, unusable_named, write_durably
from openqci.services.etsi004_server import Etsi004Server, StreamService
from openqci.services.https import HttpsListener
from openqci.services.kme import KmeService
from openqci.services.kme_config import LinkSection, LoadedConfig, host_and_port
from openqci.services.kme_node import KmeNode
from openqci.services.kme_server import KMEEndpoint, KMEServer
from openqci.services.operator_app import operator_application
from openqci.services.peer_app import peer_application
from openqci.services.peer_line import HttpsTransport, OwnStore
from openqci.services.pki import fingerprint, peer_identity, read_certificate
from openqci.services.postgres_store import PostgresKeyStore, erase, read_url
from openqci.services.psk_tls import PskContext, read_psk
from openqci.services.roles import Holder, Role
from openqci.services.skip_server import PskProtocol, SkipService, skip_application
from openqci.services.sqlite_store import SqliteKeyStore
from openqci.services.telemetry import Telemetry
from openqci.services.watch import Watch

log = logging.getLogger(__name__)

NODE_FILE, STORE_FILE, AUDIT = "node.json", "store.sqlite", "audit"
STATE_VERSION = 1
CERTIFICATE_WARN_DAYS = 30
IDENTITY_KIND = "store-identity"

SourceMaker = Callable[[LoadedConfig, LinkSection], KeySource]


class NodeDescription(msgspec.Struct, frozen=True):
    """What ``node.json`` in the state folder says."""

    format_version: int
    kme_id: str
    made_at_s: float


class StateFolder:
    """A node's state folder, locked: one process runs it."""

    def __init__(self, loaded: LoadedConfig, lock: int) -> None:
        self.path, self._loaded, self._lock = loaded.state_dir, loaded, lock

    @classmethod
    def make(cls, loaded: LoadedConfig) -> None:
        """Make the folder of a new node, with its key-encryption key and an empty store."""
        path, kme_id = loaded.state_dir, loaded.kme_id
        with unusable_named(path):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.chmod(0o700)
            if (path / NODE_FILE).exists():
                raise ConfigurationError(Fault(str(path), "", "is the state folder of a node already"))
            lock = lock_directory(path)
            try:
                write_durably(path / KEK, secrets.token_bytes(KEK_BYTES))
                cls(loaded, lock).open_store().close()
                # The description comes last: it says that the folder is whole.
                description = NodeDescription(STATE_VERSION, kme_id, time.time())
                write_durably(path / NODE_FILE, msgspec.json.format(msgspec.json.encode(description)))
            finally:
                os.close(lock)

    @classmethod
    def open(cls, loaded: LoadedConfig) -> "StateFolder":
        """Lock the folder of a node; ConfigurationError if it is none, another's, or in use."""
        path, kme_id = loaded.state_dir, loaded.kme_id
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
            return cls(loaded, lock_directory(path))

    def open_store(self) -> "SqliteKeyStore | PostgresKeyStore":
        """Open the node's store."""
        kek, database = read_kek(self.path / KEK), self._database()
        if database is None:
            return SqliteKeyStore.open(self.path / STORE_FILE, kek)
        return PostgresKeyStore.open(database[0], kek, database[1])

    def _database(self) -> tuple[str, str] | None:
        """Return address and schema of the PostgreSQL store, or None for SQLite."""
        store = self._loaded.config.store
        if store.kind != "postgresql" or store.url_file is None:
            return None
        return read_url(self._loaded.path(store.url_file)), store.schema_name

    def destroy_kek(self) -> None:
        """Overwrite and remove the key-encryption key: nothing in the store, or a copy of it, opens again."""
        file = self.path / KEK
        descriptor = os.open(file, os.O_WRONLY)
        try:
            os.write(descriptor, secrets.token_bytes(KEK_BYTES))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        file.unlink()

    def zeroise(self) -> None:
        """Remove key-encryption key, store and description: what stays is the audit log, and the lock."""
        if (self.path / KEK).exists():
            self.destroy_kek()
        database = self._database()
        if database is not None:
            erase(*database)
        for name in (STORE_FILE, f"{STORE_FILE}-wal", f"{STORE_FILE}-shm", NODE_FILE):
            (self.path / name).unlink(missing_ok=True)

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
    for sae_id, (kme_id, pinned) in wanted.items():
        record = known.get(sae_id)
        if record is None or (record.kme_id, record.certificate_sha256) != (kme_id, pinned):
            if record is not None:
                directory.remove(sae_id)
            directory.enrol(SaeRecord(sae_id, SiteId(kme_id), kme_id, pinned, "", time.time()))


class KmeApp:
    """A running node. ``make_source`` turns a link's section into its source."""

    def __init__(self, loaded: LoadedConfig, make_source: SourceMaker) -> None:
        self.loaded = loaded
        self._folder = StateFolder.open(loaded)
        self.store = self._folder.open_store()
        self._make_source = make_source
        self._started_s = time.monotonic()
        self._files = loaded.tls_files()
        self._own_certificate = read_certificate(self._files.certificate)
        self._zeroised = False
        self.stop = asyncio.Event()
        self._to_stop: list[Callable[[], Awaitable[None]]] = []
        self.telemetry = Telemetry()
        self.audit = AuditLog(
            self._folder.path / AUDIT, lambda why: self._trouble("audit", loaded.kme_id, why)
        )
        self.watch = Watch(self.audit, self.telemetry)

    async def start(self) -> None:
        """Open everything; ConfigurationError if an address, certificate or store cannot be used."""
        loaded, config = self.loaded, self.loaded.config
        self.own = await self.store.run(opened_for_running)
        await self.store.run(lambda tx: enter_applications(tx, loaded))
        sources: Mapping[str, KeySource] = {link.id: self._make_source(loaded, link) for link in config.link}
        files = self._files
        peer_tls = self._peer_files = replace(files, minimum_version="1.3")
        self.node = KmeNode(
            loaded,
            self.own,
            self.store,
            sources,
            lambda endpoint: HttpsTransport(endpoint, peer_tls.client_context),
        )
        self.service = KmeService(self.store, on_demand=self.node.demand, profile=config.etsi014.profile())
        self.node.stock_arrived = self._stock_arrived
        self.service.observer = self.watch
        self.service.quotas = {
            SaeId(sae.id): Quota(sae.quota_bps, 8 * (sae.quota_burst_bytes or sae.quota_bps))
            for sae in config.sae
            if sae.quota_bps is not None
        }
        self.node.trouble = self._trouble
        self.node.happened = self.watch.happened
        self.node.expired = self.watch.expired
        host, port = host_and_port(config.listen.sae)
        self.sae_server = KMEServer(
            [KMEEndpoint(loaded.kme_id, port, files.certificate, files.key)],
            self.service,
            files.authority,
            host=host,
            contexts=lambda _: files.server_context(),
            identity=partial(peer_identity, rule=config.etsi014.sae_id_from),
        )
        peer_host, peer_port = host_and_port(config.listen.peer)
        self.peer_listener = HttpsListener(
            peer_application(self.node.desk, frozenset(KmeId(peer.kme_id) for peer in config.peer)),
            peer_host,
            peer_port,
            peer_tls.server_context(),
        )
        operator_host, operator_port = host_and_port(config.listen.operator)
        self.operator_listener = HttpsListener(
            operator_application(
                self.status, self.reasons_not_ready, self.metrics, self.zeroise, self._mapped_roles()
            ),
            operator_host,
            operator_port,
            files.server_context(),
        )
        self._to_stop.append(self.node.close)
        self._skip_listeners = self._make_skip()
        self._stream_servers = self._make_etsi004()
        listeners: list[HttpsListener | KMEServer | Etsi004Server] = [
            *self._skip_listeners,
            *self._stream_servers,
            self.operator_listener,
        ]
        for listener in [*listeners, self.peer_listener, self.sae_server]:
            self._to_stop.append(listener.stop)
            await listener.start()
        self.audit.record(
            AuditEvent.STARTED,
            loaded.kme_id,
            "kme",
            version=__version__,
            mode=config.node.mode,
            store_id=self.own.store_id,
            generation=self.own.generation,
        )

    def _make_skip(self) -> list[HttpsListener]:
        """Return the listeners of SKIP that the configuration asks for: with certificates, with keys."""
        config = self.loaded.config
        rules = SkipRules(tuple(config.skip.remote_systems))
        service = SkipService(
            self.loaded.kme_id, self.store, rules, on_demand=self.node.demand, observer=self.watch
        )
        application, listeners = skip_application(service), []
        if config.listen.skip is not None:
            address = host_and_port(config.listen.skip)
            identity = partial(peer_identity, rule=config.etsi014.sae_id_from)
            context = self._files.server_context()
            listeners.append(HttpsListener(application, *address, context, identity=identity))
        if config.listen.skip_psk is not None:
            holders = {sae.psk_identity: sae for sae in config.sae if sae.psk_identity is not None}
            psk = PskContext(
                {name: read_psk(self.loaded.path(sae.psk_file or "")) for name, sae in holders.items()},
                without_forward_secrecy=config.skip.without_forward_secrecy,
            )
            applications = {name: SaeId(sae.id) for name, sae in holders.items()}
            protocol = partial(PskProtocol, psk=psk, applications=applications)
            address = host_and_port(config.listen.skip_psk)
            listeners.append(HttpsListener(application, *address, psk.context, protocol))
        return listeners

    def _make_etsi004(self) -> list[Etsi004Server]:
        """Return the listener for key streams, if the configuration asks for one."""
        config = self.loaded.config
        if config.listen.etsi004 is None:
            return []
        service = StreamService(
            self.loaded.kme_id,
            self.store,
            config.etsi004.limits(),
            lambda kme: bool(self.loaded.links_to(kme)),
            look=self.node.look,
            carry=self.node.carry,
            observer=self.watch,
        )
        pinned = {sae.id: sae.certificate_sha256 for sae in config.sae}
        return [
            Etsi004Server(
                service,
                *host_and_port(config.listen.etsi004),
                self._files.server_context(),
                identity=partial(peer_identity, rule=config.etsi014.sae_id_from),
                accepts=lambda peer: pinned.get(peer.sae_id, "") in (None, peer.certificate_sha256),
            )
        ]

    async def reload(self) -> None:
        """Read certificates and revocation lists again; on a fault go on with those in use."""
        try:
            contexts = self._peer_files.server_context(), self._files.server_context()
            self._own_certificate = read_certificate(self._files.certificate)
            await self.sae_server.reload(self._files.is_revoked)
            await self.peer_listener.reload(contexts[0], self._files.is_revoked)
            await self.operator_listener.reload(contexts[1], self._files.is_revoked)
            if self.loaded.config.listen.skip is not None:
                await self._skip_listeners[0].reload(self._files.server_context(), self._files.is_revoked)
            for server in self._stream_servers:
                await server.reload(self._files.server_context(), self._files.is_revoked)
        except ConfigurationError as error:
            self._trouble("certificates", self.loaded.kme_id, str(error))
        else:
            self._trouble("certificates", self.loaded.kme_id, None)
            log.info("certificates and revocation lists were read again")
            self.audit.record(AuditEvent.CERTIFICATES_READ, self.loaded.kme_id, "kme")

    async def run(self) -> None:
        """Run until ``stop`` is set."""
        running = asyncio.create_task(self.node.run())
        stopping = asyncio.create_task(self.stop.wait())
        try:
            done, _ = await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if running in done:
                running.result()
        finally:
            for task in (running, stopping):
                task.cancel()
            await asyncio.gather(running, stopping, return_exceptions=True)

    async def close(self) -> None:
        """Stop listening, let requests in hand end, close the store; also after a start that failed."""
        for stop in reversed(self._to_stop):
            await stop()
        self.store.close()
        self.audit.record(AuditEvent.STOPPED, self.loaded.kme_id, "kme")
        await asyncio.to_thread(self.audit.close)
        if self._zeroised:
            self._folder.zeroise()
        self._folder.close()

    async def status(self) -> dict[str, Any]:
        """Return the whole state of the node as one document; it holds no key and no key IDs."""
        self._look_at_certificate()
        return {
            "kme_id": self.loaded.kme_id,
            "version": __version__,
            "mode": self.loaded.config.node.mode,
            "uptime_s": round(time.monotonic() - self._started_s, 3),
            "store": {"store_id": self.own.store_id, "generation": self.own.generation},
            "keys_delivered": sum(self.service.keys_delivered.values()),
            "expired_bytes": self.node.figures.expired_bytes,
            "certificate_days_left": self._certificate_days_left(),
            "alarms": self.watch.alarms(),
            "audit_head": {"number": self.audit.head.number, "hash": self.audit.head.hash},
            **self._with_forecasts(await self.node.status()),
        }

    def _with_forecasts(self, status: dict[str, Any]) -> dict[str, Any]:
        """Add to each pair how long its stock lasts, in seconds; None where that is not known or not soon."""
        now_s = time.monotonic()
        for pair in status["pairs"]:
            first, *others = map(SaeId, pair["slaves"])
            forecast = self.service.forecasts.get((SaeId(pair["master"]), first, *sorted(others)))
            left_s = forecast.time_to_empty_s(pair["stock_bytes"], now_s) if forecast is not None else None
            pair["time_to_empty_s"] = (
                round(left_s, 1) if left_s is not None and math.isfinite(left_s) else None
            )
        return status

    async def metrics(self) -> bytes:
        """Return the Prometheus text of the node as it is now."""
        return self.telemetry.text(await self.status())

    async def zeroise(self, officer: Holder) -> None:
        """Destroy all key of this node, and stop.

        The key-encryption key goes first: without it no segment opens.
        """
        log.critical("zeroised by %s %s", officer.role.value, officer.name)
        self.audit.record(AuditEvent.ZEROISED, officer.name, officer.role.value)
        self._folder.destroy_kek()
        self._zeroised = True
        self.stop.set()

    async def reasons_not_ready(self) -> list[str]:
        """Return why the node cannot serve; a missing peer or module is no reason, since stocks serve on."""
        try:
            await self.store.run(lambda tx: None)
        except OpenQCIError as error:
            return [str(error)]
        return []

    def _trouble(self, code: str, subject: str, reason: str | None) -> None:
        self.watch.trouble(code, subject, reason)

    def _mapped_roles(self) -> dict[str, tuple[Role, str]]:
        """Return who the configuration gives a role by certificate. The node's own may look."""
        mapped = {
            fingerprint(read_certificate(self.loaded.path(each.certificate))): (Role(each.role), each.name)
            for each in self.loaded.config.role
        }
        return {fingerprint(self._own_certificate): (Role.OPERATOR, self.loaded.kme_id), **mapped}

    def _look_at_certificate(self) -> None:
        days = self._certificate_days_left()
        ends = f"in {days:.0f} days" if days < CERTIFICATE_WARN_DAYS else None
        self._trouble("certificate ends", self.loaded.kme_id, ends)

    def _certificate_days_left(self) -> float:
        left = self._own_certificate.not_valid_after_utc - datetime.now(UTC)
        return round(left.total_seconds() / 86400, 2)

    def _stock_arrived(self, batch: KeyBatch) -> None:
        self.service.stock_arrived(
            batch.master_sae, batch.slave_sae, batch.additional_slaves, batch.length_bytes
        )
