"""A KME node as a process: its state folder, store, interfaces and signals.

The composition of ``openqci kme run``. What a node does is in :mod:`openqci.services.kme_node`; what it says
to applications in :mod:`openqci.services.kme`. Stopping lets requests in hand end; ``kill -9`` is as good.

With ``[node] workers`` above 1 this process is the coordinator: processes that it starts and replaces
(:mod:`openqci.services.worker_pool`) serve ETSI GS QKD 014 and SKIP, on the same store and the same sockets.
Everything that must exist once stays here: the lines to the peers, the links' fillers, the keeper of stocks,
the sweeper, keys of the store and their renewal, anchor, audit log, metrics, the operator's interface. So do
key streams (ETSI GS QKD 004), whose pace is one process's to keep.
"""

import asyncio
import base64
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

from openqci import __version__
from openqci.control.configuration import DomainConfiguration
from openqci.core.errors import ConfigurationError, OpenQCIError, invariant
from openqci.core.identifiers import KmeId, SaeId, SiteId
from openqci.delivery.admission import Quota
from openqci.delivery.directory import SaeDirectory, SaeRecord
from openqci.delivery.etsi020_rules import KeysReleased
from openqci.delivery.leases import LeaseEnded
from openqci.delivery.pair_stock import KeyBatch
from openqci.keystore.ports import StoreTransaction
from openqci.keystore.supply import Source
from openqci.services.accept import FILES_PER_ADDRESS, Crowd
from openqci.services.application_interfaces import (
    INTERFACES_MAX,
    ApplicationInterfaces,
    bind_interfaces,
    mapped_roles,
    rest_rule,
)
from openqci.services.audit import AuditEvent, AuditLog
from openqci.services.border_origin import either
from openqci.services.borders import Borders
from openqci.services.controller_line import ControllerLine
from openqci.services.domain import BY_CONFIGURATION, DomainDesk, describe
from openqci.services.etsi004_server import Etsi004Server, StreamService
from openqci.services.etsi015_agent import Agent
from openqci.services.etsi015_app import etsi015_application
from openqci.services.https import HttpsListener
from openqci.services.kem_keys import kem_key
from openqci.services.keyring import Keyring
from openqci.services.kme import KmeService, OwnQuotas
from openqci.services.kme_config import LinkSection, LoadedConfig, host_and_port
from openqci.services.kme_node import KmeNode
from openqci.services.kme_server import OTHER_FILES, allow_open_files
from openqci.services.module_app import module_application
from openqci.services.operator_app import operator_application
from openqci.services.peer_app import peer_application
from openqci.services.peer_line import HttpsTransport
from openqci.services.pki import peer_identity, read_certificate
from openqci.services.roles import Holder, Role
from openqci.services.source_push import KeyStore, SourcePush
from openqci.services.state_folder import AUDIT, StateFolder, counted_on, opened_for_running, store_identity
from openqci.services.telemetry import Telemetry
from openqci.services.watch import Watch
from openqci.services.worker_channel import Act
from openqci.services.worker_pool import WorkerPool

log = logging.getLogger(__name__)

CERTIFICATE_WARN_DAYS = 30
ANCHOR_EVERY_S = 60.0
"""How old a copy of the store, taken from a node that was killed later, may be without being noticed."""

RENEWAL_LOOK_S = 60.0
RESEAL_REST_S = 0.005
"""Pause between the steps of a renewal, so that requests come in between."""

SourceMaker = Callable[[LoadedConfig, LinkSection, KeyStore], Source]


def enter_applications(transaction: StoreTransaction, loaded: LoadedConfig) -> None:
    """Make the directory of applications say what the configuration says."""
    directory = SaeDirectory(transaction)
    wanted = {SaeId(sae.id): (loaded.kme_id, sae.certificate_sha256 or "") for sae in loaded.config.sae} | {
        SaeId(sae): (KmeId(peer.kme_id), "") for peer in loaded.config.peer for sae in peer.saes
    }
    wanted |= {
        SaeId(sae): (KmeId(remote.kme_id or remote.domain), "")
        for remote in loaded.config.remote
        for sae in remote.saes
    }
    known = {record.sae_id: record for record in directory.saes()}
    for sae_id in known.keys() - wanted.keys():
        if known[sae_id].credentials_dir != BY_CONFIGURATION:
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
        self._renewing = asyncio.Lock()
        self.workers: WorkerPool | None = None
        self.agent: Agent | None = None
        self._kek_due = False
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
        self._folder.check_anchor(await self.store.run(store_identity))
        self.own = await self.store.run(opened_for_running)
        await self._count_on()
        await self._renew_kek()
        await self.store.run(lambda tx: enter_applications(tx, loaded))
        self._kem_key = await self.store.run(lambda tx: kem_key(tx, loaded.kme_id))
        self.domain = DomainDesk(loaded, self.store)
        await self.domain.open()
        sources: Mapping[str, Source] = {
            link.id: self._make_source(loaded, link, self.store) for link in config.link
        }
        files = self._files
        peer_tls = self._peer_files = replace(files, minimum_version="1.3")
        self.node = KmeNode(
            loaded,
            self.own,
            self.store,
            sources,
            lambda endpoint: HttpsTransport(endpoint, peer_tls.client_context),
            kem=self._kem_key,
        )
        self.domain.changed = self._domain_changed
        if self.domain.current is not None:
            self.node.far.take(self.domain.current)
        self.borders = self._make_borders()
        demand = self.node.demand if self.borders is None else either(self.borders.stocks, self.node.demand)
        self.service = KmeService(
            self.store, on_demand=demand, profile=config.etsi014.profile(), rests=rest_rule(loaded)
        )
        self.node.stock_arrived = self._stock_arrived
        self.service.observer = self.watch
        self.service.quotas = quotas = OwnQuotas(
            {
                SaeId(sae.id): Quota(sae.quota_bps, 8 * (sae.quota_burst_bytes or sae.quota_bps))
                for sae in config.sae
                if sae.quota_bps is not None
            }
        )
        self.node.trouble = self._trouble
        self.node.happened = self.watch.happened
        self.node.expired = self.watch.expired
        self.node.lease_expired = self._lease_expired
        if config.node.workers > 1:
            self.workers = WorkerPool(
                loaded, self._folder.lock, self._keyring(), demand, self.service, quotas, self.watch
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
                self.status,
                self.reasons_not_ready,
                self.metrics,
                self.zeroise,
                self._mapped_roles(),
                renew=self.renew,
                account=self.borders.account if self.borders is not None else None,
            ),
            operator_host,
            operator_port,
            files.server_context(),
        )
        self._to_stop.append(self.node.close)
        self._stream_servers = self._make_etsi004()
        self._module_listeners = self._make_module_listener(sources.values())
        self._agent_listeners = await self._make_agent()
        applications = self.applications = self.workers or ApplicationInterfaces(
            loaded, self.store, self.service, self.node.demand, self.watch, bind_interfaces(loaded)
        )
        listeners: list[HttpsListener | Etsi004Server | ApplicationInterfaces | WorkerPool] = [
            *self._stream_servers,
            *self._module_listeners,
            *self._agent_listeners,
            *(self.borders.listeners() if self.borders is not None else ()),
            self.operator_listener,
            self.peer_listener,
            applications,
        ]
        self._crowds = self._crowds_by_listener()
        allow_open_files(OTHER_FILES + (len(self._crowds) + INTERFACES_MAX) * FILES_PER_ADDRESS)
        for listener in listeners:
            self._to_stop.append(listener.stop)
            await listener.start()
        if self.agent is not None:
            self._to_stop.append(self.agent.close)
        self.audit.record(
            AuditEvent.STARTED,
            loaded.kme_id,
            "kme",
            version=__version__,
            mode=config.node.mode,
            store_id=self.own.store_id,
            generation=self.own.generation,
        )

    def _make_borders(self) -> Borders | None:
        """Return the borders of the node, if the configuration says that it has any."""
        section = self.loaded.config.etsi020
        if section is None:
            return None
        borders = Borders(self.loaded, section, self.store, self.watch, lambda: self.domain.current)
        borders.watch(self._trouble, self.watch.named_key_expired)
        borders.happened = self.watch.at_border
        borders.released = self._keys_released
        self._to_stop.append(borders.service.close)
        return borders

    def _crowds_by_listener(self) -> dict[str, Crowd]:
        """Return who is connected to each interface of this process, by its name in ``[listen]``.

        Those of applications tell it themselves.
        """
        listen = self.loaded.config.listen
        further: list[HttpsListener | Etsi004Server] = [
            *self._stream_servers,
            *self._module_listeners,
            *self._agent_listeners,
            *(self.borders.listeners() if self.borders is not None else ()),
        ]
        names = [name for name in ("etsi004", "module", "etsi015") if getattr(listen, name)]
        names += ["etsi020"] * (len(further) - len(names))
        return {
            "peer": self.peer_listener.crowd,
            "operator": self.operator_listener.crowd,
            **{name: listener.crowd for name, listener in zip(names, further, strict=True)},
        }

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
                identity=partial(peer_identity, rule=config.etsi014.sae_id_from, others=self._mapped_roles()),
                accepts=lambda peer: pinned.get(peer.sae_id, "") in (None, peer.certificate_sha256),
            )
        ]

    def _make_module_listener(self, sources: Iterable[Source]) -> list[HttpsListener]:
        """Return the listener to which QKD modules push, if the configuration asks for one."""
        address = self.loaded.config.listen.module
        if address is None:
            return []
        pushed = [source for source in sources if isinstance(source, SourcePush)]
        application = module_application(pushed, self._mapped_roles())
        return [HttpsListener(application, *host_and_port(address), self._files.server_context())]

    async def _make_agent(self) -> list[HttpsListener]:
        """Return the listener for controllers of a software-defined network, if the configuration has one."""
        address = self.loaded.config.listen.etsi015
        if address is None:
            return []
        self.agent = Agent(self.loaded, self.node, lambda: self.domain.current is not None, self.watch.alarms)
        await self.agent.open()
        application = etsi015_application(
            self.agent,
            self._mapped_roles(),
            teraflow=self.loaded.config.etsi015.teraflow,
            edited=partial(self.audit.record, AuditEvent.LINK_SWITCHED),
        )
        return [HttpsListener(application, *host_and_port(address), self._peer_files.server_context())]

    async def reload(self) -> None:
        """Read certificates and revocation lists again; on a fault go on with those in use."""
        try:
            contexts = self._peer_files.server_context(), self._files.server_context()
            self._own_certificate = read_certificate(self._files.certificate)
            await self.applications.reload()
            await self.peer_listener.reload(contexts[0], self._files.is_revoked)
            await self.operator_listener.reload(contexts[1], self._files.is_revoked)
            for listener in self._module_listeners:
                await listener.reload(self._files.server_context(), self._files.is_revoked)
            for listener in self._agent_listeners:
                await listener.reload(contexts[0], self._files.is_revoked)
            for server in self._stream_servers:
                await server.reload(self._files.server_context(), self._files.is_revoked)
            if self.borders is not None:
                await self.borders.reload()
        except ConfigurationError as error:
            self._trouble("certificates", self.loaded.kme_id, str(error))
        else:
            self._trouble("certificates", self.loaded.kme_id, None)
            log.info("certificates and revocation lists were read again")
            self.audit.record(AuditEvent.CERTIFICATES_READ, self.loaded.kme_id, "kme")
        try:
            await self.domain.read_file()
        except OpenQCIError as error:
            self._trouble("domain configuration", self.loaded.kme_id, str(error))
        else:
            self._trouble("domain configuration", self.loaded.kme_id, None)

    async def run(self) -> None:
        """Run until ``stop`` is set."""
        stopping: asyncio.Task[Any] = asyncio.create_task(self.stop.wait())
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(work())
            for work in (
                self.node.run,
                self._keep_anchor,
                self._keep_keyring,
                *self._controller_work(),
                *((self.agent.run,) if self.agent is not None else ()),
                *(self.borders.work() if self.borders is not None else ()),
            )
        ]
        try:
            await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in (*tasks, stopping):
                task.cancel()
            await asyncio.gather(*tasks, stopping, return_exceptions=True)

    def _domain_changed(self, document: DomainConfiguration) -> None:
        self.node.far.take(document)
        self.node.look()

    def _controller_work(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """Return the line to the controller, if the configuration names one."""
        section = self.loaded.config.domain
        if section is None or section.controller is None:
            return []
        public = self._kem_key.public
        line = ControllerLine(
            self.loaded.kme_id,
            section.controller,
            self._peer_files.client_context,
            self.domain,
            self.node.status,
            lambda: (public.key_id.hex(), public.key),
            lambda reason: self._trouble("controller", self.loaded.kme_id, reason),
        )
        return [line.run]

    async def _count_on(self) -> None:
        """Let the store and the folder's anchor go one further: first the store, then the anchor."""
        identity = await self.store.run(counted_on)
        await asyncio.to_thread(self._folder.set_anchor, identity)

    async def _keep_anchor(self) -> None:
        while True:
            await asyncio.sleep(ANCHOR_EVERY_S)
            try:
                await self._count_on()
            except (OpenQCIError, OSError) as error:
                log.error("the anchor of the store cannot be set now: %s", error)

    async def _keep_keyring(self) -> None:
        """Renew the root keys when it is time, and go on with a renewal that a stop has cut off."""
        period_s = 3600 * self.loaded.config.kek.renew_every_h
        while True:
            keyring = self._keyring()
            due = bool(period_s) and time.time() - keyring.made_at_s >= period_s
            if due or len(keyring.numbers) > 1:
                try:
                    await self.renew()
                except (OpenQCIError, OSError) as error:
                    self._kek_due = True  # so that a key that could not be destroyed is tried again
                    self._trouble("key renewal", self.loaded.kme_id, str(error))
            elif self._kek_due:
                await self._renew_kek()
            await asyncio.sleep(min(RENEWAL_LOOK_S, period_s or RENEWAL_LOOK_S))

    async def renew(self) -> int:
        """Renew root keys and key-encryption key: what was spent until now opens to nobody any more.

        Returns the number of the root key in use from now on.
        """
        async with self._renewing:
            keyring = self._keyring()
            async with self._workers_steady():
                if len(keyring.numbers) == 1:
                    await asyncio.to_thread(keyring.make_root)
                # Nobody seals under the new key until all open it; and before the pass below begins, nobody
                # seals under the old one any more.
                await self._order(Act.LEARN_ROOTS)
                keyring.use_newest()
                await self._order(Act.USE_NEWEST_ROOT)
            place: tuple[int, int] | None = (0, -1)
            while place is not None:
                place = await self.store.run(lambda tx, place=place: tx.reseal(*place))  # type: ignore[misc]
                await asyncio.sleep(RESEAL_REST_S)
            async with self._workers_steady():
                await asyncio.to_thread(keyring.end_renewal)
                await self._order(Act.FORGET_OLD_ROOTS)
        self._kek_due = False
        self._trouble("key renewal", self.loaded.kme_id, None)
        number = keyring.numbers[-1]
        self.audit.record(AuditEvent.KEYS_RENEWED, self.loaded.kme_id, "kme", root_key=number)
        return number

    async def _renew_kek(self) -> None:
        """Renew the key-encryption key alone, at start and stop: no earlier copy of the keyring opens."""
        try:
            async with self._workers_steady():
                await asyncio.to_thread(self._keyring().renew_kek)
        except (OpenQCIError, OSError) as error:
            self._kek_due = True
            self._trouble("key renewal", self.loaded.kme_id, str(error))
        else:
            self._kek_due = False
            self._trouble("key renewal", self.loaded.kme_id, None)

    def _workers_steady(self) -> AbstractAsyncContextManager[None]:
        """While this is held, no worker is about to read the keyring."""
        return self.workers.steady() if self.workers is not None else nullcontext()

    async def _order(self, act: Act) -> None:
        """Have all workers do something, if there are any."""
        if self.workers is not None:
            await self.workers.order(act)

    def _keyring(self) -> Keyring:
        keyring = self._folder.keyring
        invariant(keyring is not None, "a node that runs has opened its keyring")
        return cast(Keyring, keyring)

    async def close(self) -> None:
        """Stop listening, let requests in hand end, close the store; also after a start that failed."""
        for stop in reversed(self._to_stop):
            await stop()
        if self._to_stop and not self._zeroised:
            try:
                await self._count_on()  # a copy that was taken while the node ran is older than what stays
            except (OpenQCIError, OSError) as error:
                log.error("the anchor of the store cannot be set: %s", error)
            await self._renew_kek()
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
            "connections": {
                **self.applications.connections(),
                **{
                    name: {"open": len(crowd), "closed": dict(crowd.closed)}
                    for name, crowd in self._crowds.items()
                },
            },
            "domain": describe(self.domain.current),
            "kem": {
                "algorithm": self._kem_key.public.algorithm,
                "key_id": self._kem_key.public.key_id.hex(),
                "public_key": base64.b64encode(self._kem_key.public.key).decode(),
            },
            "workers": self.workers.status() if self.workers is not None else [],
            "audit_head": {"number": self.audit.head.number, "hash": self.audit.head.hash},
            "borders": await self.borders.status() if self.borders is not None else None,
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

        The key-encryption key goes first: without it no segment opens. Workers end at the same time: they
        have root keys in memory.
        """
        log.critical("zeroised by %s %s", officer.role.value, officer.name)
        self.audit.record(AuditEvent.ZEROISED, officer.name, officer.role.value)
        self._zeroised = True
        try:
            ending = self.workers.stop(drain=False) if self.workers is not None else asyncio.sleep(0)
            await asyncio.gather(asyncio.to_thread(self._folder.destroy_kek), ending)
        finally:
            self.stop.set()

    async def reasons_not_ready(self) -> list[str]:
        """Return why the node cannot serve; a missing peer or module is no reason, since stocks serve on."""
        try:
            await self.store.run(lambda tx: None)
        except OpenQCIError as error:
            return [str(error)]
        if self.workers is not None and not any(worker["serving"] for worker in self.workers.status()):
            return ["no worker serves"]
        return []

    def _trouble(self, code: str, subject: str, reason: str | None) -> None:
        self.watch.trouble(code, subject, reason)

    def _mapped_roles(self) -> dict[str, tuple[Role, str]]:
        return mapped_roles(self.loaded, self._own_certificate)

    def _look_at_certificate(self) -> None:
        days = self._certificate_days_left()
        ends = f"in {days:.0f} days" if days < CERTIFICATE_WARN_DAYS else None
        self._trouble("certificate ends", self.loaded.kme_id, ends)

    def _certificate_days_left(self) -> float:
        left = self._own_certificate.not_valid_after_utc - datetime.now(UTC)
        return round(left.total_seconds() / 86400, 2)

    def _keys_released(self, released: KeysReleased) -> None:
        self._wake(released.master, released.slave, released.additional, released.key_bytes)

    def _stock_arrived(self, batch: KeyBatch) -> None:
        self._wake(batch.master_sae, batch.slave_sae, batch.additional_slaves, batch.length_bytes)

    def _lease_expired(self, ended: LeaseEnded) -> None:
        """What a lease has put back is there for those who wait, here and in all workers."""
        lease = ended.lease
        self.watch.lease_ended(lease, ended.returned_bytes, "expired")
        self._wake(lease.master_sae, lease.slave_sae, lease.additional_slaves, ended.returned_bytes)

    def _wake(self, master: SaeId, slave: SaeId, additional: tuple[SaeId, ...], length_bytes: int) -> None:
        """Wake the requests that wait for key of a pair, here and in all workers."""
        self.service.stock_arrived(master, slave, additional, length_bytes)
        if self.workers is not None:
            self.workers.arrived(master, slave, additional, length_bytes)
