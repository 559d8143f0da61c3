"""One key management entity of a real network: its tasks and interfaces around one store.

What runs here, each a small task of its own: a line to every peer (:mod:`openqci.services.peer_line`), a
filler for every link that this node leads, the keeper of the pairs' stocks, and the sweeper of what has
expired. What they do is decided in ``openqci.keystore`` and ``openqci.delivery``, inside transactions of the
store; so a node that is killed at any moment goes on from its store alone.

The node serves from its stocks when peers, links or modules are gone (invariant I8), and takes no key of
simulated sources in production (I7).
"""

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import msgspec

from openqci.core.errors import KeyUnavailable, OpenQCIError, PeerMisbehaved
from openqci.core.identifiers import KmeId, LinkId, SaeId
from openqci.crypto.hybrid import KemPrivateKey
from openqci.delivery import agreement, end_to_end, etsi004, leases, peers, supply
from openqci.delivery.admission import GuaranteedShare, ShortSupply, too_much_reserved
from openqci.delivery.agreement import BatchAgreed, BatchFailed, BatchWanted
from openqci.delivery.far_ends import FarEnds, FarEvent
from openqci.delivery.key_ids import BATCH_TAG_BITS
from openqci.delivery.leases import LeaseEnded
from openqci.delivery.pair_stock import KeyBatch, destroy_expired, stock_keys
from openqci.delivery.peers import DepositSettled, Event, LinkRole, Meeting, OwnStore, PeerRules, Standing
from openqci.delivery.relay_rooms import EpochRooms
from openqci.delivery.supply import BATCH_KEY_BYTES_MIN, KEY_UNIT_BYTES, PairDemand
from openqci.keystore import deposits
from openqci.keystore.deposits import DEPOSIT_BYTES_MIN, Verdict
from openqci.keystore.ports import KmeView
from openqci.keystore.supply import JoinedSource, KeptSource, Source, SourceReport, SuppliedKey
from openqci.relay.carriage import LANE as RELAY_LANE
from openqci.relay.carriage import Carriage
from openqci.services.kme_config import LinkSection, LoadedConfig
from openqci.services.logs import about
from openqci.services.peer_line import KeyStore, PeerDesk, PeerEndpoint, PeerLine, PeerTransport
from openqci.services.relay_keeper import NO_LINK, RelayKeeper

log = logging.getLogger(__name__)

Result = TypeVar("Result")

DRAW_BYTES_MAX = 128 * 1024
"""Most key of one deposit: half a second of a very fast link, and little to lose with it."""

FILL_WAIT_S_MIN, FILL_WAIT_S_MAX = 0.05, 5.0
LOOK_EVERY_S = 1.0
LOOK_AGAIN_S = 2.0
SWEEP_EVERY_S = 5.0
CLOCK_JUMP_S = 5.0

Troubles = dict[str, str]
"""What is wrong now: subject to reason. The shell makes alarms of it."""


@dataclass
class LinkFigures:
    """What a link has brought since the start; ``made``, how its latest key was, or else is stated to be."""

    deposited_bytes: int = 0
    refused_deposits: int = 0
    last_trouble: str | None = None
    made: SourceReport | None = None


@dataclass
class NodeFigures:
    """What the node has done since the start, for metrics and status."""

    links: dict[str, LinkFigures] = field(default_factory=dict)
    batches_agreed: int = 0
    batches_failed: int = 0
    expired_bytes: int = 0
    destroyed_bytes: int = 0


class KmeNode:
    """The tasks of a node. ``stock_arrived(master, slave)`` is called when a pair's stock has grown.

    Call :meth:`run` once; it ends when it is cancelled. ``desk`` answers the peers. Links that are in
    ``switched_off`` draw no key from their modules, at neither end.
    """

    def __init__(
        self,
        loaded: LoadedConfig,
        own: OwnStore,
        store: KeyStore,
        sources: Mapping[str, Source],
        transport: Callable[[PeerEndpoint], PeerTransport],
        *,
        rules: PeerRules | None = None,
        kem: KemPrivateKey | None = None,
    ) -> None:
        self.kme = loaded.kme_id
        self.figures = NodeFigures(
            links={link.id: LinkFigures(made=_stated(link)) for link in loaded.config.link}
        )
        self.stock_arrived: Callable[[KeyBatch], None] = lambda batch: None
        self.happened: Callable[[KmeId, Event | Meeting], None] = lambda peer, event: None
        self.expired: Callable[[KeyBatch, int], None] = lambda batch, left: None
        self.lease_expired: Callable[[LeaseEnded], None] = lambda ended: None
        self.trouble: Callable[[str, str, str | None], None] = lambda kind, subject, reason: None
        self._loaded, self._store, self._sources = loaded, store, dict(sources)
        simulated_allowed = loaded.config.node.mode == "laboratory"
        self._far_events: deque[FarEvent] = deque()
        links = {link.id: KmeId(link.peer) for link in loaded.config.link}
        rooms = EpochRooms(links)
        ends = FarEnds(
            lambda key_id: kem if kem is not None and kem.public.key_id == key_id else None,
            lambda: time.time(),
            self._far_events.append,
            simulated_allowed=simulated_allowed,
        )
        carried = Carriage(ends, rooms)
        self._rules = replace(
            rules or PeerRules(),
            simulated_allowed=simulated_allowed,
            handlers=carried.handlers,
            settlers=carried.settlers,
            lost=carried.lost,
        )
        self.far = RelayKeeper(
            self.kme,
            links,
            self.read,
            ends,
            rooms,
            collect_s=loaded.config.demand.collect_s,
            forget_after_s=loaded.config.demand.forget_after_s,
            simulated_allowed=simulated_allowed,
            met=lambda: self.epochs().keys(),
            carry=self.carry,
            arrived=lambda batch: self.stock_arrived(batch),
            forged=lambda subject, reason: self.trouble("forged", subject, reason),
        )
        endpoints = {
            KmeId(peer.kme_id): PeerEndpoint(
                KmeId(peer.kme_id),
                peer.url,
                tuple(LinkRole(link.id, link.leads) for link in loaded.links_to(KmeId(peer.kme_id))),
            )
            for peer in loaded.config.peer
        }
        self.desk = PeerDesk(
            self.kme, own, store, endpoints, self._sources, self._rules, self._met, self._acted
        )
        self._lines = {
            peer: PeerLine(
                self.desk,
                self.kme,
                endpoint,
                store,
                self._rules,
                transport(endpoint),
                self._act_on,
                self._stands,
                self._acted,
            )
            for peer, endpoint in endpoints.items()
        }
        self.demands = Demands(loaded)
        self.switched_off = self.desk.switched_off
        self._short: dict[str, ShortSupply] = {}
        self._look = asyncio.Event()

    async def run(self) -> None:
        """Do everything until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for line in self._lines.values():
                tasks.create_task(line.run())
            for link in self._loaded.config.link:
                if link.leads:
                    tasks.create_task(self._fill(link))
            tasks.create_task(self._keep_stocks())
            tasks.create_task(self._sweep())

    async def close(self) -> None:
        """Close the sources; call it when :meth:`run` has ended."""
        for source in self._sources.values():
            await source.close()

    def epochs(self) -> dict[KmeId, str]:
        """Return the peers that were met, with the epoch of each."""
        return {peer: line.epoch for peer, line in self._lines.items() if line.epoch is not None}

    def demand(
        self,
        master: SaeId,
        slave: SaeId,
        wanted_bytes: int,
        additional: tuple[SaeId, ...] = (),
        key_bytes: int = KEY_UNIT_BYTES,
    ) -> str | None:
        """Note that a request waits for keys of ``key_bytes``; return why none can ever come, or None."""
        now_s = time.monotonic()
        reason = self.demands.wait(master, (slave, *additional), wanted_bytes, key_bytes, now_s)
        if reason == NO_LINK and not additional:
            reason = self.far.wait(master, slave, wanted_bytes, key_bytes, now_s)
        if reason is None:
            self._look.set()
        return reason

    async def status(self) -> dict[str, Any]:
        """Return peers, links and pairs as they are now."""
        epochs, demands = self.epochs(), self.demands.live(time.monotonic(), look_only=True)
        far = self.far.demands(time.monotonic())
        links = self._loaded.config.link

        def work(view: KmeView) -> dict[str, Any]:
            leased = leases.leased_bytes(view)
            return {
                "links": [self._link_status(view, link, epochs.get(KmeId(link.peer))) for link in links],
                "pairs": [
                    {**pair, "leased_bytes": leased.get((pair["master"], *sorted(pair["slaves"])), 0)}
                    for pair in (
                        *(self._pair_status(view, demand) for demand in demands),
                        *(self.far.pair_status(view, demand) for demand in far),
                    )
                ],
                "batches_under_way": len(agreement.open_offers(view)) + len(end_to_end.open_orders(view)),
            }

        document = await self.read(work)
        document["relays"] = {**vars(self.far.figures), "recent": list(self.far.recent)}
        document["peers"] = [
            {"kme_id": peer, "met": line.epoch is not None, "trouble": line.trouble}
            for peer, line in self._lines.items()
        ]
        return document

    def _link_status(self, view: KmeView, link: LinkSection, epoch: str | None) -> dict[str, Any]:
        known = peers.peer_state(view, KmeId(link.peer))
        epoch = epoch or (known.epoch if known is not None else None)
        figures = self.figures.links[link.id]
        stocks = (0, 0)
        if epoch is not None:
            name = peers.link_in_epoch(link.id, epoch)
            stocks = _link_state(view, name, KmeId(link.peer))[1:]
        return {
            "link": link.id,
            "peer": link.peer,
            "leads": link.leads,
            "enabled": link.id not in self.switched_off,
            "own_bytes": stocks[0],
            "peer_bytes": stocks[1],
            "deposited_bytes": figures.deposited_bytes,
            "refused_deposits": figures.refused_deposits,
            "trouble": figures.last_trouble,
            "made": msgspec.structs.asdict(figures.made) if figures.made is not None else None,
        }

    def _pair_status(self, view: KmeView, demand: PairDemand) -> dict[str, Any]:
        """Return the stock of a pair: what can be delivered in keys of the default size."""
        key_bytes = self._loaded.key_bytes
        keys = stock_keys(view, demand.master, demand.slave, key_bytes, demand.additional)
        return {
            "master": demand.master,
            "slaves": [slave for slave, _, _ in demand.legs],
            "stock_bytes": keys * key_bytes,
            "low_bytes": demand.low_bytes,
            "high_bytes": demand.high_bytes,
            "priority": demand.priority,
        }

    def carry(self) -> None:
        """Send what has been put into the outboxes, and look after the stocks, at once."""
        for line in self._lines.values():
            line.wake()
        self._look.set()

    def look(self) -> None:
        """Look after the stocks at once."""
        self._look.set()

    async def read(self, work: Callable[[KmeView], Result]) -> Result:
        """Run a work over this KME's rooms in one transaction."""
        return await self._store.run(lambda tx: work(KmeView(tx, self.kme)))

    def _acted(self, lane: str) -> None:
        """Send on what relays have put into the outboxes, and act on what they brought about."""
        if lane != RELAY_LANE:
            return
        while self._far_events:
            self.far.happened(self._far_events.popleft())
        self.carry()

    def _met(self, peer: KmeId, meeting: Meeting) -> None:
        if meeting.standing is Standing.NEW:
            self.figures.destroyed_bytes += meeting.destroyed_bytes
            log.warning(
                "%s has a store that is new to us: epoch %s begins, %d bytes of key held in common before "
                "are destroyed",
                peer,
                meeting.epoch,
                meeting.destroyed_bytes,
                extra=about(peer=peer),
            )
        late = abs(meeting.clock_difference_s) > peers.CLOCK_DIFFERENCE_S_MAX
        self.trouble("clock", peer, f"differs by {meeting.clock_difference_s:.1f} s" if late else None)
        self.happened(peer, meeting)

    def _stands(self, peer: KmeId, reason: str | None, rolled_back: bool) -> None:
        self.trouble("peer", peer, reason)
        if rolled_back:
            self.happened(peer, Meeting(Standing.ROLLED_BACK, "", 0.0))
        if rolled_back or reason is None:
            self.trouble("rolled back", peer, reason)
        if reason is None:
            self._look.set()

    async def _act_on(self, peer: KmeId, event: Event) -> None:
        """Act on what a peer's answers brought about; the store has done its part."""
        if isinstance(event, BatchAgreed):
            self.figures.batches_agreed += 1
            self.stock_arrived(event.batch)
            self._look.set()
        elif isinstance(event, BatchFailed):
            self.figures.batches_failed += 1
            log.error("a batch with %s failed: %s", peer, event.reason, extra=about(peer=peer))
            if event.forged:
                self.trouble("forged", peer, event.reason)
        elif isinstance(event, DepositSettled):
            self._judged(event)
        self.happened(peer, event)

    def _judged(self, event: DepositSettled) -> None:
        link = event.notice.link.rpartition(".")[0]
        figures = self.figures.links.setdefault(link, LinkFigures())
        if isinstance(source := self._sources.get(link), KeptSource):
            source.judged(event.verdict is Verdict.ACCEPTED)
        if event.verdict is Verdict.ACCEPTED:
            figures.deposited_bytes += event.notice.length_bytes
            figures.made = event.notice.report
            self._look.set()
        else:
            figures.refused_deposits += 1
            verdict = event.verdict.value
            log.error("link %s: a deposit was not accepted: %s", link, verdict, extra=about(link=link))
        different = event.verdict is Verdict.DIFFERENT
        self.trouble("mismatch", link, "the two modules gave different key" if different else None)

    async def _fill(self, link: LinkSection) -> None:
        """Draw key from a link's module while either end's half is below its share of the high watermark."""
        peer, source = KmeId(link.peer), self._sources[link.id]
        wait_s = FILL_WAIT_S_MIN
        filling = True
        while True:
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, FILL_WAIT_S_MAX)
            epoch = self.epochs().get(peer)
            if epoch is None or link.id in self.switched_off:
                continue
            name = peers.link_in_epoch(link.id, epoch)
            try:
                busy, mine, theirs = await self.read(partial(_link_state, link=name, peer=peer))
                # The end that spends alone uses up its own half: what the other leaves is no stock for it.
                filling = 2 * min(mine, theirs) < (link.high_bytes if filling else link.low_bytes)
                if busy or not filling:
                    wait_s = FILL_WAIT_S_MIN if busy else LOOK_EVERY_S
                    continue
                if isinstance(source, JoinedSource | KeptSource):
                    await self._introduce(peer, name, await source.prepare())
                initiator = self.kme if mine <= theirs else peer
                if isinstance(source, KeptSource):
                    await self._deposit_kept(peer, name, initiator, source)
                else:
                    await self._deposit(peer, name, initiator, await source.draw(DRAW_BYTES_MAX))
            except KeyUnavailable as shortage:
                self._link_trouble(link.id, None if shortage.available_bytes else "has no key now")
            except (OpenQCIError, OSError, TimeoutError) as error:
                why = str(error) or type(error).__name__
                log.warning("link %s: its module gives no key: %s", link.id, why, extra=about(link=link.id))
                self._link_trouble(link.id, why)
            else:
                self._link_trouble(link.id, None)
                wait_s = FILL_WAIT_S_MIN

    def _link_trouble(self, link: str, reason: str | None) -> None:
        self.figures.links[link].last_trouble = reason
        self.trouble("source", link, reason)

    async def _introduce(self, peer: KmeId, link: LinkId, text: str | None) -> None:
        """Tell the other end's source what ours has made ready, if that is new."""
        if text is not None:
            await self.read(partial(_introduced, peer=peer, link=link, text=text))
            self._lines[peer].wake()

    async def _deposit(self, peer: KmeId, link: LinkId, initiator: KmeId, supplied: SuppliedKey) -> None:
        with supplied.key:
            self._check_simulated(supplied)
            if len(supplied.key) <= DEPOSIT_BYTES_MIN:
                raise PeerMisbehaved(f"the module gave {len(supplied.key)} bytes, too few for a deposit")
            await self.read(partial(_deposited, peer=peer, link=link, initiator=initiator, supplied=supplied))
        self._lines[peer].wake()

    async def _deposit_kept(self, peer: KmeId, link: LinkId, initiator: KmeId, source: KeptSource) -> None:
        """Make a deposit of what waits in the store, in one transaction: a crash loses none of it."""

        def work(view: KmeView) -> SuppliedKey | None:
            if not _is_of_epoch(view, peer, link):
                return None
            supplied = source.draw_kept(view, DRAW_BYTES_MAX)
            with supplied.key:
                if self._rules.simulated_allowed or not supplied.report.simulated:
                    deposits.offer(view, peer, link, initiator, supplied)
            return supplied

        supplied = await self.read(work)
        if supplied is not None:
            self._check_simulated(supplied)
        self._lines[peer].wake()

    def _check_simulated(self, supplied: SuppliedKey) -> None:
        if supplied.report.simulated and not self._rules.simulated_allowed:
            raise PeerMisbehaved("the module says that its key is simulated; a production node refuses it")

    async def _keep_stocks(self) -> None:
        """Agree on batches for the pairs in need, whenever something may have changed."""
        while True:
            self._look.clear()
            try:
                await self._agree()
            except OpenQCIError as error:
                log.error("stocks cannot be looked after now: %s", error)
                await asyncio.sleep(LOOK_AGAIN_S)
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._look.wait()
            except TimeoutError:
                continue

    async def _agree(self) -> None:
        demands = self.demands.live(time.monotonic())
        epochs = self.epochs()
        now_s = time.time()

        def planned(view: KmeView) -> supply.Plan:
            return supply.plan(view, supply.needs(view, demands, epochs), now_s)

        plan = await self.read(planned)
        for wanted in plan.wanted:
            try:
                await self.offer(wanted)
            except KeyUnavailable:
                continue  # a gap in the stream: what is behind it comes at the next look
            self.demands.got(wanted, time.monotonic())
        await self._feed_streams(epochs, plan.held_back)
        held_back = {link.rpartition(".")[0]: length for link, length in plan.held_back.items()}
        await self.far.look(time.monotonic(), held_back)

    async def _feed_streams(self, epochs: dict[KmeId, str], held_back: Mapping[LinkId, int]) -> None:
        """Give the streams of ETSI GS QKD 004 that this node feeds what they lack."""
        for stream in await self.read(etsi004.hungry):
            peer = KmeId(stream.peer_kme)
            links = self._loaded.links_to(peer)
            if peer not in epochs or not links:
                continue
            link, tag = peers.link_in_epoch(links[0].id, epochs[peer]), secrets.randbits(BATCH_TAG_BITS)
            feed = partial(
                etsi004.feed,
                ksid=stream.ksid,
                link=link,
                batch_tag=tag,
                now_s=time.time(),
                held_back_bytes=held_back.get(link, 0),
            )
            try:
                if await self.read(feed) is not None:
                    self._lines[peer].wake()
            except KeyUnavailable:
                continue  # the link has none now: at the next look

    async def offer(self, wanted: BatchWanted) -> None:
        """Agree on one batch. KeyUnavailable if a link has not enough."""
        tag = secrets.randbits(BATCH_TAG_BITS)
        now_s = time.time()
        await self.read(lambda view: agreement.offer(view, wanted, tag, now_s))
        for _, kme, _ in wanted.legs:
            self._lines[kme].wake()

    async def _sweep(self) -> None:
        """Destroy what has expired; notice a clock that jumps."""
        last_wall_s, last_monotonic_s = time.time(), time.monotonic()
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            wall_s, monotonic_s = time.time(), time.monotonic()
            jump_s = (wall_s - last_wall_s) - (monotonic_s - last_monotonic_s)
            if abs(jump_s) > CLOCK_JUMP_S:
                self.trouble("clock jump", self.kme, f"by {jump_s:.0f} s")
            last_wall_s, last_monotonic_s = wall_s, monotonic_s
            try:
                await self._look_at_stocks()
                await self._look_at_reservations(monotonic_s)
                for ended in await self.read(partial(leases.sweep, now_s=wall_s)):
                    self.lease_expired(ended)
                for batch, left in await self.read(partial(_swept, now_s=wall_s)):
                    self.figures.expired_bytes += left
                    self.expired(batch, left)
            except OpenQCIError as error:
                log.error("what has expired cannot be destroyed now: %s", error)

    async def _look_at_stocks(self) -> None:
        """Raise an alarm for each pair that runs dry, in spite of all filling."""
        demands = self.demands.live(time.monotonic(), look_only=True)
        for pair in await self.read(lambda view: [self._pair_status(view, demand) for demand in demands]):
            name = f"{pair['master']} > {'+'.join(pair['slaves'])}"
            dry = pair["stock_bytes"] < pair["low_bytes"] // 2
            reason = f"{pair['stock_bytes'] // 32} keys of 256 bits left" if dry else None
            self.trouble("stock", name, reason)

    async def _look_at_reservations(self, now_s: float) -> None:
        """Raise an alarm for each link of which more is reserved than it brings while it is short."""
        epochs = self.epochs()
        for link in self._loaded.config.link:
            reserved_bps = self._loaded.reserved_bps(link)
            epoch = epochs.get(KmeId(link.peer))
            if not reserved_bps or epoch is None:
                continue
            own = partial(_own_supply, link=peers.link_in_epoch(link.id, epoch), peer=KmeId(link.peer))
            stock_bytes, ever_bytes, streams_bps = await self.read(own)
            supplied = self._short.setdefault(link.id, ShortSupply())
            supplied.note(ever_bytes, 2 * stock_bytes < link.low_bytes, now_s)
            brings_bps, reason = supplied.bps(), None
            if brings_bps is not None:
                what = "what this link brings to this end while it is short"
                reason = too_much_reserved(reserved_bps + streams_bps, brings_bps, what)
            self.trouble("over-committed", link.id, reason)


class Demands:
    """Which pairs have demand: those of the configuration, and those that somebody has asked for lately."""

    def __init__(self, loaded: LoadedConfig) -> None:
        self._loaded = loaded
        self._asked_s: dict[tuple[SaeId, ...], float] = {}
        self._pairs: dict[tuple[SaeId, ...], PairDemand] = {}
        self._waiting: dict[tuple[SaeId, ...], int] = {}
        self._fixed: set[tuple[SaeId, ...]] = set()
        self._guaranteed: dict[tuple[SaeId, ...], GuaranteedShare] = {}
        for pair in loaded.config.pair:
            slaves = tuple(map(SaeId, pair.slaves))
            demand = loaded.demand_of(SaeId(pair.master), slaves, pair.low_keys, pair.high_keys, pair.ttl_s)
            if demand is not None:
                key = SaeId(pair.master), *slaves
                self._pairs[key] = demand
                self._fixed.add(key)
                if pair.reserved_bps:
                    self._guaranteed[key] = GuaranteedShare(pair.reserved_bps, BATCH_KEY_BYTES_MIN)

    def wait(
        self, master: SaeId, slaves: Sequence[SaeId], wanted_bytes: int, key_bytes: int, now_s: float
    ) -> str | None:
        """Note that a request waits for keys of a size; return why they can never come, or None."""
        key = master, *slaves
        settings = self._loaded.config.demand
        if key not in self._pairs:
            if len(self._pairs) >= settings.pairs_max:
                return f"this KME keeps stocks for {settings.pairs_max} pairs already"
            demand = self._loaded.demand_of(
                master, tuple(slaves), settings.low_keys, settings.high_keys, settings.ttl_s
            )
            if demand is None:
                return NO_LINK
            self._pairs[key] = demand
        self._asked_s[key] = now_s
        if key_bytes % self._loaded.key_bytes == 0:
            lately_bytes = self._pairs[key].key_bytes if key in self._waiting else 0
            self._pairs[key] = replace(self._pairs[key], key_bytes=max(lately_bytes, key_bytes))
        self._waiting[key] = max(self._waiting.get(key, 0), wanted_bytes)
        return None

    def live(self, now_s: float, *, look_only: bool = False) -> list[PairDemand]:
        """Return the pairs with demand, with what requests have waited for since the last call.

        ``look_only`` leaves that for the next call.
        """
        if look_only:
            return list(self._pairs.values())
        forget_s = self._loaded.config.demand.forget_after_s
        for key in [key for key in self._pairs if key not in self._fixed]:
            if now_s - self._asked_s.get(key, now_s) > forget_s:
                del self._pairs[key]
        for key, share in self._guaranteed.items():
            self._pairs[key] = replace(self._pairs[key], due_bytes=share.due_bytes(now_s))
        waiting, self._waiting = self._waiting, {}
        return [
            replace(pair, waiting_bytes=waiting.get(key, 0)) if key in waiting else pair
            for key, pair in self._pairs.items()
        ]

    def got(self, wanted: BatchWanted, now_s: float) -> None:
        """Note that a batch for a pair is on its way."""
        share = self._guaranteed.get((wanted.master_sae, *(slave for slave, _, _ in wanted.legs)))
        if share is not None:
            share.got(wanted.key_bytes, now_s)


def _stated(link: LinkSection) -> SourceReport | None:
    """Return what the operator states of a link's key."""
    return next((source.report() for source in link.sources.values()), None)


def _deposited(
    view: KmeView, peer: KmeId, link: LinkId, initiator: KmeId, supplied: SuppliedKey
) -> int | None:
    """Offer a deposit; the key is given up if an epoch has ended while it was drawn."""
    if not _is_of_epoch(view, peer, link):
        return None
    return deposits.offer(view, peer, link, initiator, supplied)


def _is_of_epoch(view: KmeView, peer: KmeId, link: LinkId) -> bool:
    """Tell whether a link's name is that of the present epoch with a peer."""
    known = peers.peer_state(view, peer)
    return known is not None and link.endswith(f".{known.epoch}")


def _introduced(view: KmeView, peer: KmeId, link: LinkId, text: str) -> None:
    """Tell the other end's source what ours has made ready, unless an epoch has ended meanwhile."""
    if _is_of_epoch(view, peer, link):
        deposits.introduce(view, peer, link, text)


def _link_state(view: KmeView, link: LinkId, peer: KmeId) -> tuple[bool, int, int]:
    """Return whether a deposit is under way, and what each end may still begin to spend."""
    return (
        deposits.under_way(view, link),
        deposits.link_stock_bytes(view, link, view.kme),
        deposits.link_stock_bytes(view, link, peer),
    )


def _own_supply(view: KmeView, link: LinkId, peer: KmeId) -> tuple[int, int, int]:
    """Return what this end may begin to spend of a link, what it ever could, and what its streams reserve."""
    stream = deposits.link_key_stream(link, view.kme)
    return view.stock_bytes(stream), deposits.stream_end(view, stream), etsi004.reserved_bps(view, peer)


def _swept(view: KmeView, now_s: float) -> list[tuple[KeyBatch, int]]:
    """Destroy expired batches, and give up batches that were not agreed on before their time was over."""
    for order in agreement.open_offers(view):
        if order.expires_s and order.expires_s < now_s:
            agreement.give_up(view, order)
            if order.stream_id:
                etsi004.refeed(view, order)
    etsi004.sweep(view, now_s)
    end_to_end.forget_overdue(view, now_s)
    return destroy_expired(view, now_s)
