"""Many KMEs of the real code, their network, modules and applications, in one seeded run.

Each KME is the real :class:`~openqci.services.kme_node.KmeNode` with the real delivery service and rules;
simulated are what is around it: disk, clock, network, QKD modules, and the applications that ask.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from openqci.control import configuration
from openqci.control.configuration import DomainConfiguration, Link, Node, Pair
from openqci.core.errors import IntegrityError, KeyUnavailable, OpenQCIError, RequestRefused
from openqci.core.identifiers import KmeId, SaeId
from openqci.core.keys import DeliveredKey, SecretBytes
from openqci.crypto.hybrid import KemAlgorithm, KemPrivateKey
from openqci.delivery import agreement, end_to_end, etsi014
from openqci.delivery.directory import PeerIdentity
from openqci.delivery.etsi004 import StreamLimits
from openqci.delivery.etsi014_model import KeyIdsRequest, KeyRequest, Profile
from openqci.delivery.pair_stock import KeyBatch, RestRule, TakenKey
from openqci.keystore import deposits
from openqci.keystore.ports import KmeView
from openqci.keystore.supply import SourceReport, SuppliedKey
from openqci.services import kme_node
from openqci.services.domain import enter_applications as enter_domain
from openqci.services.etsi004_server import StreamService
from openqci.services.kme import KmeService
from openqci.services.kme_app import enter_applications
from openqci.services.kme_config import LoadedConfig
from openqci.services.kme_config_file import checked_config
from openqci.services.kme_node import KmeNode
from openqci.services.peer_line import PeerEndpoint
from openqci.services.source_004 import Source004
from openqci.services.source_push import SourcePush
from openqci.services.state_folder import opened_for_running
from tests.simulation.checker import Book
from tests.simulation.leases import LeaseHolder
from tests.simulation.loop import (
    NONE,
    START_S,
    CrashingStore,
    Disk,
    DiskFault,
    Faults,
    JumpingLoop,
    simulated_world,
    skew_s,
)
from tests.simulation.modules import Fibre, pushing
from tests.simulation.streams import StreamReaders

KEY_BYTES = 1024
REQUEST_S_MAX = 8.0
SKEW_S_MAX = 2.0
REPORT = SourceReport("simulated", "simulated", 1e-10, True)
REST_S_MAX = 120.0
PAUSE_S = 0.02
NUMBERS = (1, 1, 1, 2, 8, 30, 100)


class Network:
    """Carries requests between KMEs: late, lost, doubled, or not at all while two are parted."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.parted: set[frozenset[KmeId]] = set()

    async def request(self, sender: KmeId, receiver: KmeId, path: str, body: bytes) -> bytes:
        """Deliver a request and bring its answer, or fail as a network does."""
        chance, faults = self.world.chance, self.world.faults
        await asyncio.sleep(chance.random() * faults.delay_s)
        self._pass(sender, receiver)
        if chance.random() < faults.doubled:
            again = self.world.spawn(self._again(sender, receiver, path, body))
            self.world.background.add(again)
        answer = await self._answer(sender, receiver, path, body)
        await asyncio.sleep(chance.random() * faults.delay_s)
        self._pass(sender, receiver)
        return answer

    def _pass(self, sender: KmeId, receiver: KmeId) -> None:
        if frozenset((sender, receiver)) in self.parted:
            raise ConnectionError("no route")
        if self.world.chance.random() < self.world.faults.lost:
            raise TimeoutError("no answer")

    async def _answer(self, sender: KmeId, receiver: KmeId, path: str, body: bytes) -> bytes:
        target = self.world.kmes[receiver]
        life = target.life
        if life is None:
            raise ConnectionError("connection refused")
        return await life.guarded(life.node.desk.answer(sender, path, body))

    async def _again(self, sender: KmeId, receiver: KmeId, path: str, body: bytes) -> None:
        await asyncio.sleep(self.world.chance.random() * 4 * self.world.faults.delay_s)
        try:
            await self._answer(sender, receiver, path, body)
        except (OSError, OpenQCIError):
            return


class LineTransport:
    """One KME's way to a peer over the simulated network."""

    def __init__(self, network: Network, sender: KmeId, receiver: KmeId) -> None:
        self.network, self.sender, self.receiver = network, sender, receiver

    async def request(self, path: str, body: bytes) -> bytes:
        async with asyncio.timeout(REQUEST_S_MAX):
            return await self.network.request(self.sender, self.receiver, path, body)

    async def close(self) -> None:
        """Nothing to close."""


class Modules:
    """A pair of QKD modules: what one end drew, the other end draws by name."""

    def __init__(self, world: "World", link: str) -> None:
        self.world, self.link = world, link
        self.waiting: dict[str, bytes] = {}
        self.made = 0

    def make(self, length_bytes_max: int) -> tuple[tuple[str, ...], bytes]:
        names, whole = [], b""
        for _ in range(max(1, min(length_bytes_max, 64 * KEY_BYTES) // KEY_BYTES)):
            self.made += 1
            name = f"{self.link}-{self.made}"
            key = self.world.chance.randbytes(KEY_BYTES)
            self.waiting[name] = key
            names.append(name)
            whole += key
        self.world.counts["bytes made by modules"] += len(whole)
        return tuple(names), whole


class ModuleEnd:
    """One end's module, as a source."""

    def __init__(self, modules: Modules) -> None:
        self.modules = modules

    async def draw(self, length_bytes_max: int) -> SuppliedKey:
        world = self.modules.world
        await asyncio.sleep(world.chance.random() * 0.05)
        if world.chance.random() < world.faults.module_late:
            raise KeyUnavailable("none now", wanted_bytes=1, available_bytes=0)
        names, key = self.modules.make(length_bytes_max)
        if world.chance.random() < world.faults.module_lost:
            raise ConnectionError("the answer was lost")
        return SuppliedKey(names, SecretBytes(key), REPORT)

    async def draw_named(self, key_ids: Sequence[str], length_bytes: int) -> tuple[SecretBytes, SourceReport]:
        world = self.modules.world
        await asyncio.sleep(world.chance.random() * 0.05)
        fate = world.chance.random()
        if fate < world.faults.module_late:
            raise KeyUnavailable("not here yet", wanted_bytes=length_bytes, available_bytes=0)
        if any(name not in self.modules.waiting for name in key_ids) or fate > 1 - world.faults.module_gone:
            raise IntegrityError("gone")
        key = bytearray(b"".join(self.modules.waiting.pop(name) for name in key_ids))
        if world.chance.random() < world.faults.module_differs:
            key[world.chance.randrange(len(key))] ^= 1 << world.chance.randrange(8)
            world.counts["deposits with different key"] += 1
        if world.chance.random() < world.faults.module_lost:
            raise ConnectionError("the answer was lost")
        return SecretBytes(key), REPORT

    async def describe(self) -> str:
        return "simulated"

    async def close(self) -> None:
        """Nothing to close."""


class Life:
    """One life of a KME's process: from a start to a crash."""

    def __init__(self, kme: "SimulatedKme") -> None:
        world = kme.world
        self.kme = kme
        self.store = CrashingStore(kme.disk, world.chance, world.faults, self.crash, world.book)
        self.tasks: dict[asyncio.Task[Any], None] = {}  # in order: a replay depends on it
        self.node: KmeNode
        self.service: KmeService
        self.streams: StreamService
        self.sources: dict[str, ModuleEnd | Source004 | SourcePush] = {}

    async def begin(self) -> None:
        kme, world = self.kme, self.kme.world
        own = await self.store.run(opened_for_running)
        await self.store.run(lambda tx: enter_applications(tx, kme.loaded))
        document = world.configuration
        await self.store.run(lambda tx: configuration.accept(KmeView(tx, kme.kme_id), document))
        await self.store.run(lambda tx: enter_domain(tx, kme.kme_id, document))
        self.sources = sources = {link.id: self._source(link.id) for link in kme.loaded.config.link}

        def transport(endpoint: PeerEndpoint) -> LineTransport:
            return LineTransport(world.network, kme.kme_id, endpoint.kme_id)

        self.node = KmeNode(
            kme.loaded,
            own,
            self.store,  # type: ignore[arg-type]
            sources,
            transport,
            kem=world.kem_keys[kme.kme_id],
        )
        self.node.far.take(document)
        self.service = KmeService(
            self.store,  # type: ignore[arg-type]
            on_demand=self.node.demand,
            wait_s=1.0,
            profile=Profile(additional_slaves_max=4, leases_per_sae_max=8),
            rests=RestRule(kme.loaded.key_bytes, agreement.give_up_rest),
        )

        def arrived(batch: KeyBatch) -> None:
            self.service.stock_arrived(batch.master_sae, batch.slave_sae, batch.additional_slaves)

        self.streams = StreamService(
            kme.kme_id,
            self.store,  # type: ignore[arg-type]
            StreamLimits(),
            lambda peer: bool(kme.loaded.links_to(peer)),
            look=self.node.look,
            carry=self.node.carry,
        )
        self.node.stock_arrived = arrived
        self.node.lease_expired = lambda ended: self.service.lease_ended(ended, "expired")
        self.node.trouble = lambda code, subject, reason: world.alarm(kme.kme_id, code, reason)

    def _source(self, link: str) -> ModuleEnd | Source004 | SourcePush:
        """Return what draws key of a link: from a plain module, or a real source of one with key streams."""
        fibre = self.kme.world.fibres.get(link)
        return fibre.source(self) if fibre is not None else ModuleEnd(self.kme.world.modules[link])

    def crash(self) -> None:
        """Die: nothing of this life is durable from here on."""
        if self.store.dead:
            return
        self.store.dead = True
        self.kme.world.counts["crashes"] += 1
        self.kme.world.book.given.pop(self.kme.kme_id, None)
        if self.kme.life is self:
            self.kme.life = None
        current = asyncio.current_task()
        for task in list(self.tasks):
            if task is not current:
                task.cancel()

    async def guarded(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do what somebody else asked of this life; a crash cuts the connection."""
        task = self.kme.spawn(work)
        self.tasks[task] = None
        task.add_done_callback(lambda done: self.tasks.pop(done, None))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            # Whoever asks may be ended at the same moment: that is no broken connection.
            if self.store.dead and caller is not None and not caller.cancelling():
                raise ConnectionError("connection reset by peer") from None
            raise


class SimulatedKme:
    """A machine that runs a KME: its disk and clock outlive the process."""

    def __init__(self, world: "World", loaded: LoadedConfig) -> None:
        self.world, self.loaded, self.kme_id = world, loaded, loaded.kme_id
        self.disk = Disk()
        self.skew_s = world.chance.uniform(-SKEW_S_MAX, SKEW_S_MAX)
        self.life: Life | None = None
        self.down_s = 0.5

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run something on this machine, by its clock."""
        before = skew_s.set(self.skew_s)
        try:
            return asyncio.get_running_loop().create_task(work)
        finally:
            skew_s.reset(before)

    async def run(self) -> None:
        """Start, and start again after every crash."""
        while not self.world.over:
            life = Life(self)
            try:
                await self.spawn(life.begin())
                self.life = life
                running = self.spawn(life.node.run())
                life.tasks[running] = None
                await asyncio.gather(running, return_exceptions=True)
                if not running.cancelled() and running.exception() is not None and not life.store.dead:
                    self.world.book.fault(f"{self.kme_id} stopped by itself: {running.exception()!r}")
                    return
            except (asyncio.CancelledError, DiskFault):
                life.crash()
                if self.world.over:
                    return
            await asyncio.sleep(self.world.chance.random() * self.down_s)


class World:
    """Everything of one run. ``book`` knows what was promised to whom."""

    def __init__(self, seed: int, kmes: int, faults: Faults) -> None:
        self.seed, self.faults = seed, faults
        self.chance = random.Random(seed)
        self.loop = JumpingLoop()
        self.book = Book()
        self.counts: Counter[str] = Counter()
        self.background: set[asyncio.Task[Any]] = set()
        self.over = False
        self.network = Network(self)
        names = [KmeId(f"kme-{number}") for number in range(kmes)]
        # Some worlds have keys that do not keep for long: they expire while they are agreed on, or in stock.
        self.ttl_s = self.chance.choice((100_000.0, 100_000.0, 40.0))
        # In some worlds batch tags come twice all the time, as they do now and then after a million batches.
        self.tag_bits = random.Random(f"tags of {seed}").choice((40, 40, 10))
        self.book.promise_s = min(300.0, self.ttl_s / 2) - 2 * SKEW_S_MAX - 1.0
        self.book.collect_s = min(300.0, self.ttl_s / 2) + 2 * SKEW_S_MAX
        self.saes = {
            SaeId(f"app-{number}-{which}"): names[number] for number in range(kmes) for which in "xy"
        }
        self.links = self._links(names)
        self.modules = {link: Modules(self, link) for link in self.links}
        self.fibres = self._fibres()
        self.far_pairs = self._far_pairs()
        self.kem_keys = {
            name: KemPrivateKey(KemAlgorithm.ML_KEM_768, SecretBytes(self.chance.randbytes(64)))
            for name in names
        }
        self.configuration = self._domain(names)
        self.book.leads = {link: ends[0] for link, ends in self.links.items()}
        self.kmes = {name: SimulatedKme(self, self._config(name)) for name in names}

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        return self.loop.create_task(work)

    def alarm(self, kme: KmeId, code: str, reason: str | None) -> None:
        if reason is not None and code in ("forged", "rolled back"):
            self.book.fault(f"{kme} raises {code}: {reason}")

    def run(self, seconds: float, requests_max: int | None = None) -> Book:
        """Run for so long by the simulated clock, then let faults end and look whether all comes to rest."""
        with simulated_world(self.loop, self.chance, self.tag_bits), self._agreed_batches_noted():
            try:
                self.loop.run_until_complete(self._run(seconds))
            finally:
                for task in asyncio.all_tasks(self.loop):
                    task.cancel()
                self.loop.run_until_complete(asyncio.sleep(0))
                self.loop.close()
        return self.book

    async def _run(self, seconds: float) -> None:
        machines = [self.spawn(kme.run()) for kme in self.kmes.values()]
        applications = [
            self.spawn(self._application(master, slaves))
            for master, slaves in self._groups()
            for _ in range(2)
        ]
        applications += [self.spawn(self._application(master, (slave,))) for master, slave in self.far_pairs]
        applications += [
            self.spawn(LeaseHolder(self, master, slaves).run()) for master, slaves in self._groups_of_two()
        ]
        applications += [self.spawn(StreamReaders(self, *ends).run()) for ends in self._stream_ends()]
        for fibre in self.fibres.values():
            if fibre.kind == "push":
                self.background.update(self.spawn(work()) for work in pushing(fibre))
        chaos = self.spawn(self._chaos())
        await asyncio.sleep(seconds)
        chaos.cancel()
        for task in applications:
            task.cancel()
        await asyncio.gather(*applications, chaos, return_exceptions=True)
        self._heal()
        await self._come_to_rest()
        await self._collect_all()
        await self._pause()
        self.over = True
        self._look_for_waste()
        for kme in self.kmes.values():
            if kme.life is not None:
                kme.life.crash()
        for task in machines:
            task.cancel()
        await asyncio.gather(*machines, return_exceptions=True)
        self.counts["simulated seconds"] += int(self.loop.time())
        disks = {name: kme.disk for name, kme in self.kmes.items()}
        self.book.audit(disks, self.saes, self.loop.time(), START_S)

    @contextmanager
    def _agreed_batches_noted(self) -> Iterator[None]:
        """Have the book know which batches came into a master's stock, and which of their bytes left it.

        A work that was noted may be undone afterwards: the book knows what may have happened.
        """
        real_complete, real_delivered = agreement._complete, etsi014._delivered
        real_confirmed = end_to_end.share_confirmed
        real_offer, real_deposited = deposits.offer, kme_node._deposited

        def offer(view: KmeView, peer: KmeId, link: Any, initiator: KmeId, supplied: SuppliedKey) -> int:
            self.book.drafts.update((view.kme, name) for name in supplied.key_ids)
            return real_offer(view, peer, link, initiator, supplied)

        def deposited(view: KmeView, **named: Any) -> int | None:
            # Of what was drawn for an epoch that has ended no deposit is made.
            self.book.tried.update((view.kme, name) for name in named["supplied"].key_ids)
            return real_deposited(view, **named)

        def confirmed(view: KmeView, relay_id: str, word: bytes) -> Any:
            event = real_confirmed(view, relay_id, word)
            if isinstance(event, end_to_end.BatchReady):
                self.book.agreed.add(event.order.batch_tag)
                self.counts["batches relayed"] += 1
                self.counts["hops of relays"] += sum(len(path.links) for path in event.order.paths)
            return event

        def complete(view: KmeView, open_offer: agreement.OpenOffer) -> KeyBatch:
            self.book.agreed.add(open_offer.order.batch_tag)
            return real_complete(view, open_offer)

        def delivered(run: TakenKey, key_bytes: int) -> list[DeliveredKey]:
            self.book.handed_out(run.batch, run.offset_bytes, len(run.key))
            return real_delivered(run, key_bytes)

        with (
            patch.object(agreement, "_complete", complete),
            patch.object(deposits, "offer", offer),
            patch.object(kme_node, "_deposited", deposited),
            patch.object(etsi014, "_delivered", delivered),
            patch.object(end_to_end, "share_confirmed", confirmed),
        ):
            yield

    def _look_for_waste(self) -> None:
        for kme in self.kmes.values():
            if kme.life is not None:
                asked = [each for each in kme.life.sources.values() if isinstance(each, Source004)]
                held = {name for source in asked for name in source._held}
                self.book.nothing_given_is_wasted(kme.kme_id, held, self.loop.time())

    # Faults

    async def _chaos(self) -> None:
        """Part and join pairs of KMEs, and kill processes, at random moments."""
        names = list(self.kmes)
        while True:
            await asyncio.sleep(self.chance.uniform(0.1, 4.0))
            if self.faults.crash and self.chance.random() < 0.4:
                life = self.kmes[self.chance.choice(names)].life
                if life is not None:
                    life.crash()
            if self.fibres and self.chance.random() < self.faults.module_restarts:
                self.chance.choice(list(self.fibres.values())).restart()
            if self.chance.random() < self.faults.replaced:
                self._replace(self.kmes[self.chance.choice(names)])
            if self.faults.lost and self.chance.random() < 0.3:
                pair = frozenset(self.chance.sample(names, 2))
                self.network.parted.symmetric_difference_update({pair})
                self.counts["partitions begun or ended"] += 1

    def _replace(self, kme: SimulatedKme) -> None:
        """Zeroise a KME and make it anew: its keys are lost, for good and on purpose."""
        if kme.life is not None:
            kme.life.crash()
        kme.disk = Disk()
        self.counts["stores replaced"] += 1
        self.book.renewed.add(kme.kme_id)
        self.book.replaced.update(sae for sae, home in self.saes.items() if home == kme.kme_id)

    def _heal(self) -> None:
        self.network.parted.clear()
        healed = NONE
        for name, value in vars(healed).items():
            setattr(self.faults, name, value)

    async def _come_to_rest(self) -> None:
        """Without faults every outbox empties, every batch is agreed or void, every pair fills."""
        deadline_s = self.loop.time() + REST_S_MAX
        while self.loop.time() < deadline_s:
            await asyncio.sleep(1.0)
            busy = [kme.kme_id for kme in self.kmes.values() if self.book.busy(kme.disk, kme.kme_id)]
            alive = all(kme.life is not None for kme in self.kmes.values())
            if alive and not busy:
                await asyncio.sleep(12)  # every KME has swept what has expired
                return
        self.book.fault(
            f"not at rest {REST_S_MAX:.0f} s after the last fault: {busy or 'a KME does not start'}"
        )

    async def _pause(self) -> None:
        """Wait for a moment at which nothing is under way: keys expire and stocks are filled all the time."""
        deadline_s = self.loop.time() + REST_S_MAX
        while any(self.book.busy(kme.disk, kme.kme_id) for kme in self.kmes.values()):
            if self.loop.time() > deadline_s:
                self.book.fault(f"something was under way for {REST_S_MAX:.0f} s without a pause")
                return
            await asyncio.sleep(PAUSE_S)

    # Applications

    async def _application(self, master: SaeId, slaves: tuple[SaeId, ...]) -> None:
        """Ask for keys and have the slaves fetch them, as applications do, for ever."""
        home = self.saes[master]
        while True:
            await asyncio.sleep(self.chance.random() * 0.1)
            request = KeyRequest(
                self.chance.choice(NUMBERS), self.chance.choice((256, 256, 128, 512)), False, slaves[1:]
            )
            got = await self._ask(home, partial(_get_key, home, master, slaves[0], request))
            if got is None:
                continue
            self.book.master_got(master, slaves, got, self.loop.time())
            self.counts["keys to masters"] += len(got)
            if self.chance.random() < 0.1:
                continue  # nobody collects, until the end
            for slave in slaves:
                await self.collect(master, slave, [key_id for key_id, _ in got])

    async def collect(self, master: SaeId, slave: SaeId, key_ids: list[str], tries: int = 4) -> None:
        """Fetch keys at a slave, again while there is no answer; sometimes once more, which must fail."""
        for _ in range(tries):
            got = await self._fetch(master, slave, key_ids)
            if got is not None:
                break
        if self.chance.random() < 0.05:
            await self._fetch(master, slave, key_ids)
        if self.chance.random() < 0.02:
            other = self.chance.choice(list(self.saes))
            if other not in (slave, *self.book.slaves_of(key_ids[0])):
                await self._fetch(master, other, key_ids, stranger=True)

    async def _fetch(
        self, master: SaeId, slave: SaeId, key_ids: list[str], stranger: bool = False
    ) -> list[tuple[str, bytes]] | None:
        """Ask once; tell the book what came of it."""
        request = KeyIdsRequest(tuple(key_ids))  # type: ignore[arg-type]
        home = self.saes[slave]

        def ask(life: Life) -> Any:
            return life.service.get_key_with_key_ids(home, _identity(slave), master, request)

        try:
            got = await self._ask(home, ask, lost=lambda: self.book.doubt(slave, key_ids))
        except RequestRefused as refused:
            if not stranger:
                self.book.slave_refused(slave, key_ids, refused.status, self.loop.time())
            return []
        if got is not None:
            self.book.slave_got(slave, got, stranger)
            self.counts["keys to slaves"] += len(got)
        return got

    async def _ask(
        self, home: KmeId, request: Callable[[Life], Any], lost: Callable[[], None] = lambda: None
    ) -> list[tuple[str, bytes]] | None:
        """Send an application's request to its KME; None if there is no answer that helps."""
        life = self.kmes[home].life
        if life is None:
            return None
        await asyncio.sleep(self.chance.random() * 0.01)
        try:
            delivery = await life.guarded(request(life))
        except (OSError, DiskFault):
            lost()
            return None
        except asyncio.CancelledError:
            lost()  # the application itself ends while it waits
            raise
        except RequestRefused as refused:
            if refused.status == 503:
                self.counts["refused for want of key"] += 1
                lost()
                return None
            raise
        if self.chance.random() < self.faults.lost:
            lost()  # the keys were handed out; the application never sees them
            delivery.wipe()
            return None
        keys = [(each.key_id, bytes(each.key.reveal())) for each in delivery.keys]
        delivery.wipe()
        return keys

    async def _collect_all(self) -> None:
        """At the end everything that was acknowledged and not collected must be there for each slave."""
        for master, slave, key_ids in self.book.uncollected(self.loop.time()):
            for at in range(0, len(key_ids), 100):
                await self.collect(master, slave, key_ids[at : at + 100])

    # Making of the world

    def _links(self, names: list[KmeId]) -> dict[str, tuple[KmeId, KmeId]]:
        """Return a random connected network: a tree with some more links."""
        links = {}
        for number in range(1, len(names)):
            ends = names[self.chance.randrange(number)], names[number]
            links[f"link-{number}"] = ends
        for number in range(len(names) // 2):
            a, b = self.chance.sample(names, 2)
            if (a, b) not in links.values() and (b, a) not in links.values():
                links[f"more-{number}"] = (a, b)
        return links

    def _fibres(self) -> dict[str, Fibre]:
        """Return the links whose modules have key streams: one that is asked, and one that pushes.

        The others have plain modules, and so at least one has: key streams take a while to begin.
        """
        kinds = random.Random(f"sources of {self.seed}")
        kind_of = dict(enumerate(kinds.sample(("004", "push"), 2)))
        links = kinds.sample(list(self.links), min(len(kind_of), len(self.links) - 1))
        return {
            link: Fibre(self, link, kind_of[number], self.links[link]) for number, link in enumerate(links)
        }

    def _neighbours(self, name: KmeId) -> list[KmeId]:
        return [b if a == name else a for a, b in self.links.values() if name in (a, b)]

    def _groups(self) -> list[tuple[SaeId, tuple[SaeId, ...]]]:
        """Return who asks for keys with whom: pairs over a link, and groups over several."""
        groups: list[tuple[SaeId, tuple[SaeId, ...]]] = []
        for master, home in self.saes.items():
            near = [sae for sae, kme in self.saes.items() if kme in self._neighbours(home)]
            groups.append((master, (self.chance.choice(near),)))
            if len(near) > 1 and self.chance.random() < 0.5:
                groups.append((master, tuple(self.chance.sample(near, min(len(near), 2)))))
        return groups

    def _far_pairs(self) -> list[tuple[SaeId, SaeId]]:
        """Return who asks for keys with whom over other nodes: each application with one of another place."""
        pairs = []
        for master, home in self.saes.items():
            near = {home, *self._neighbours(home)}
            far = [sae for sae, kme in self.saes.items() if kme not in near]
            if far:
                pairs.append((master, self.chance.choice(far)))
        return pairs

    def _domain(self, names: list[KmeId]) -> DomainConfiguration:
        """Return the configuration of the domain that all KMEs are of."""
        return DomainConfiguration(
            "world",
            1,
            START_S,
            nodes=tuple(
                Node(
                    name,
                    saes=tuple(sae for sae, home in self.saes.items() if home == name),
                    kem_key_id=self.kem_keys[name].public.key_id.hex(),
                    kem_public_key=self.kem_keys[name].public.key,
                )
                for name in names
            ),
            links=tuple(Link(link, a, b, 1e5, simulated=True) for link, (a, b) in self.links.items()),
            pairs=tuple(
                Pair(
                    master,
                    slave,
                    low_keys=100,
                    high_keys=300,
                    ttl_s=self.ttl_s,
                    hybrid=self.chance.choice(("quantum", "both", "either")),
                    paths=self.chance.choice((1, 1, 2)),
                )
                for master, slave in self.far_pairs
            ),
        )

    def _groups_of_two(self) -> list[tuple[SaeId, tuple[SaeId, ...]]]:
        """Return who holds leases: one application of each KME, with one at a neighbour."""
        pairs = []
        for home in dict.fromkeys(self.saes.values()):
            master = next(sae for sae, kme in self.saes.items() if kme == home)
            near = [sae for sae, kme in self.saes.items() if kme in self._neighbours(home)]
            pairs.append((master, (self.chance.choice(near),)))
        return pairs

    def _stream_ends(self) -> list[tuple[SaeId, SaeId]]:
        """Return who reads key streams with whom: two applications over each link."""
        at = {kme: [sae for sae, home in self.saes.items() if home == kme] for kme in self.saes.values()}
        return [(at[a][0], at[b][0]) for a, b in self.links.values()]

    def _guaranteed_pair(self, name: KmeId) -> list[dict[str, Any]]:
        """Return the pair of a KME to which a share of link key is guaranteed."""
        master = next(sae for sae, kme in self.saes.items() if kme == name)
        slave = next(sae for sae, kme in self.saes.items() if kme == self._neighbours(name)[0])
        keys = {"low_keys": 200, "high_keys": 600, "ttl_s": self.ttl_s}
        return [{"master": master, "slaves": [slave], "reserved_bps": 20_000, **keys}]

    def _config(self, name: KmeId) -> LoadedConfig:
        links = [(link, ends) for link, ends in self.links.items() if name in ends]
        document: dict[str, Any] = {
            "version": 1,
            "node": {"kme_id": name, "state_dir": "s", "mode": "laboratory"},
            "tls": {"certificate": "c", "key": "k", "authority": "a"},
            "listen": {"sae": "h:1", "peer": "h:2"},
            "demand": {"low_keys": 200, "high_keys": 600, "ttl_s": self.ttl_s},
            "sae": [{"id": sae} for sae, kme in self.saes.items() if kme == name],
            "pair": self._guaranteed_pair(name),
            "peer": [
                {
                    "kme_id": peer,
                    "url": "https://h",
                    "saes": [sae for sae, kme in self.saes.items() if kme == peer],
                }
                for peer in dict.fromkeys(self._neighbours(name))
            ],
            "link": [
                {
                    "id": link,
                    "peer": b if name == a else a,
                    "leads": name == a,
                    "low_bytes": 48 * 1024,
                    "high_bytes": 128 * 1024,
                    "etsi014": {
                        "url": "https://m",
                        "peer_sae_id": "x",
                        "certificate": "c",
                        "key": "k",
                        "authority": "a",
                        "simulated": True,
                    },
                }
                for link, (a, b) in links
            ],
        }
        return checked_config(Path("kme.toml"), document)


def _identity(sae: SaeId) -> PeerIdentity:
    return PeerIdentity(sae, "")


def _get_key(home: KmeId, master: SaeId, slave: SaeId, request: KeyRequest, life: Life) -> Any:
    return life.service.get_key(home, _identity(master), slave, request)
