"""Brings the reaction of ``openqci.control.reaction`` to life on the network of this machine.

What protects is done at once in memory, then durably, and only then is anything opened again: a crash in
between leaves a link closed or a batch held, never the other way round. Rulings of the security officer
come through the store, where ``openqci alarm lift`` leaves them.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial

import msgspec

from openqci.cli.up.clock import SimulatedClock
from openqci.cli.up.production import NETWORK
from openqci.cli.up.telling import Telling
from openqci.control.reaction import (
    EAVESDROPPING,
    Alarm,
    Batch,
    BatchRelayed,
    BlockKept,
    BlockRefused,
    ClearAlarm,
    CloseLink,
    DestroyBatch,
    DestroyLink,
    Effect,
    HoldBatch,
    OpenLink,
    RaiseAlarm,
    Reaction,
    ReleaseBatch,
    Reroute,
    Ruling,
    Seen,
    Suspicion,
)
from openqci.core.errors import ConfigurationError, OpenQCIError
from openqci.core.identifiers import LinkId, SiteId, kme_of_site, link_stream
from openqci.delivery.end_to_end import EndToEndOrder
from openqci.delivery.holding import destroy_held, hold_batch, release_batch
from openqci.distillation.events import AbortReason
from openqci.keystore.ports import KmeView, StoreTransaction
from openqci.network import Network
from openqci.services.sqlite_store import SqliteKeyStore
from openqci.twin.block import QBER_MAX, BlockOutcome
from openqci.twin.hops import HopBook

log = logging.getLogger(__name__)

SUSPICIONS, RULINGS = "suspicion", "ruling"


class Reacting:
    """Tells the core what is seen on this network, and does what it says."""

    def __init__(
        self,
        store: SqliteKeyStore,
        network: Network,
        book: HopBook,
        clock: SimulatedClock,
        suspicions: Iterable[Suspicion],
        leave: Callable[[LinkId], None],
        telling: Telling | None = None,
    ) -> None:
        self.telling = telling
        self._measured: dict[LinkId, float] = {}
        self.store, self.network, self.book, self.clock, self.leave = store, network, book, clock, leave
        known = list(suspicions)
        self.reaction = Reaction(known, qber_bound=QBER_MAX)
        self.alarms: dict[tuple[str, LinkId], Alarm] = {}
        self._undone: list[Effect] = []
        self._turn = asyncio.Lock()
        for each in known:
            self._protect(CloseLink(each.link_id, f"under suspicion: {each.reason}"))
            self._protect(
                RaiseAlarm(Alarm(EAVESDROPPING, "critical", each.link_id, each.reason, each.since_s))
            )

    async def block_made(self, outcome: BlockOutcome) -> None:
        """Note how a block has ended."""
        seen = seen_of_block(outcome, self.clock.now_s())
        self._tell_measured(seen)
        await self.see(seen)

    def _tell_measured(self, seen: BlockKept | BlockRefused) -> None:
        """Tell of an error rate above the bound, and of the first after an eavesdropper has come or gone."""
        refused = isinstance(seen, BlockRefused)
        intercepted = self.book.lines[seen.link_id].intercepted
        news = self._measured.get(seen.link_id, 0.0) != intercepted
        self._measured[seen.link_id] = intercepted
        if self.telling is None or seen.qber is None:
            return
        if seen.qber > QBER_MAX if refused else news:
            self.telling.block(seen, seen.qber, attacked=intercepted > 0)

    async def relayed(self, order: EndToEndOrder) -> None:
        """Note that a batch has reached both its ends, by all its ways."""
        route = order.paths[0].route
        ends = SiteId(route[0]), SiteId(route[-1])
        batch = Batch(order.batch_tag, *ends, order.master_sae, order.slave_sae)
        links = tuple(LinkId(link) for path in order.paths for link in path.qkd_links)
        now_s = self.clock.now_s()
        if self.telling is not None:
            self.telling.relayed(order, now_s)
        await self.see(BatchRelayed(batch, links, now_s))

    async def see(self, seen: Seen) -> None:
        """Do what follows from something that was seen; ConfigurationError for a ruling out of place."""
        effects = self.reaction.receive(seen)
        for effect in effects:
            self._protect(effect)
        if self.telling is not None:
            self.telling.reaction(seen, effects, self.clock.now_s())
        async with self._turn:
            self._undone += effects
            undone = list(self._undone)
            if undone:
                try:
                    await self.store.run(lambda transaction: self._make_durable(transaction, undone))
                except OpenQCIError as error:
                    # What must not be used is closed in memory; the rest is tried again with what comes next.
                    log.error("what a reaction holds or frees cannot be kept now: %s", error)
                    return
                self._undone.clear()
        for effect in undone:
            self._open(effect)

    async def take_rulings(self) -> None:
        """Do what the security officer has left in the store."""
        for ruling in await self.store.run(rulings_of):
            try:
                await self.see(msgspec.structs.replace(ruling, now_s=self.clock.now_s()))
            except ConfigurationError as error:
                log.warning("a ruling was not taken: %s", error)
            await self.store.run(partial(drop_ruling, link_id=ruling.link_id))

    def figures(self) -> list[dict[str, object]]:
        """Return the alarms that stand, for the console and ``openqci status``."""
        return [msgspec.to_builtins(alarm) for _, alarm in sorted(self.alarms.items())]

    def _protect(self, effect: Effect) -> None:
        """Do at once what keeps key from being used, and tell people."""
        match effect:
            case CloseLink(link_id=link, reason=reason):
                self.book.close(link, reason)
                self.leave(link)
            case Reroute(link_id=link):
                self.leave(link)
            case RaiseAlarm(alarm=alarm):
                self.alarms[alarm.code, alarm.link_id] = alarm
                level = logging.ERROR if alarm.severity == "critical" else logging.WARNING
                log.log(level, "alarm, %s: %s: %s", alarm.code, alarm.link_id, alarm.reason)
            case ClearAlarm(code=code, link_id=link, reason=reason):
                self.alarms.pop((code, link), None)
                log.warning("alarm over, %s: %s: %s", code, link, reason)
            case _:
                pass

    def _make_durable(self, transaction: StoreTransaction, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case HoldBatch(batch=batch):
                    for view in ends_of(transaction, batch):
                        hold_batch(view, batch.batch_tag)
                case ReleaseBatch(batch=batch):
                    for view in ends_of(transaction, batch):
                        release_batch(view, batch.batch_tag)
                case DestroyBatch(batch=batch):
                    for view in ends_of(transaction, batch):
                        destroy_held(view, batch.batch_tag)
                case DestroyLink(link_id=link):
                    self._destroy_link(transaction, link)
                case _:
                    pass
        keep_suspicions(transaction, self.reaction.suspicions())

    def _destroy_link(self, transaction: StoreTransaction, link: LinkId) -> None:
        hop = self.network.hops[link]
        for site in (hop.a, hop.b):
            for initiator in (hop.a, hop.b):
                transaction.destroy(kme_of_site(site), link_stream(link, initiator))

    def _open(self, effect: Effect) -> None:
        """Open again what may be used, now that it is durable."""
        match effect:
            case OpenLink(link_id=link):
                # Unless it was closed anew while this was made durable.
                if not self.reaction.closed(link):
                    self.book.open(link)
            case DestroyLink(link_id=link):
                stock_bytes = self.book.lines[link].stock_bytes
                stock_bytes.update(dict.fromkeys(stock_bytes, 0))
            case _:
                pass


def seen_of_block(outcome: BlockOutcome, now_s: float) -> BlockKept | BlockRefused:
    """Return what a block says of its link."""
    link = LinkId(outcome.link_id)
    qber = outcome.report.qber if outcome.report is not None else None
    if not outcome.aborted:
        return BlockKept(link, qber or 0.0, now_s)
    if AbortReason.QBER_TOO_HIGH in outcome.aborted:
        # The end that gave up first knows the figure; the other may have had none yet.
        qber = max(qber or 0.0, outcome.report.test_qber if outcome.report is not None else 0.0)
        qber = qber if qber > QBER_MAX else 1.0
    return BlockRefused(link, qber, outcome.aborted, now_s)


def ends_of(transaction: StoreTransaction, batch: Batch) -> tuple[KmeView, KmeView]:
    """Return the rooms of both KMEs that have a batch."""
    origin, target = (kme_of_site(SiteId(site)) for site in (batch.origin, batch.target))
    return KmeView(transaction, origin), KmeView(transaction, target)


def keep_suspicions(transaction: StoreTransaction, suspicions: Iterable[Suspicion]) -> None:
    """Write down what is held, in place of what was."""
    for link, _ in list(transaction.records(NETWORK, SUSPICIONS)):
        transaction.drop_record(NETWORK, SUSPICIONS, link)
    for each in suspicions:
        transaction.put_record(NETWORK, SUSPICIONS, each.link_id, msgspec.json.encode(each))


def suspicions_of(transaction: StoreTransaction) -> list[Suspicion]:
    """Return what was held when the network stopped."""
    records = transaction.records(NETWORK, SUSPICIONS)
    return [msgspec.json.decode(body, type=Suspicion) for _, body in records]


def rulings_of(transaction: StoreTransaction) -> list[Ruling]:
    """Return the rulings that wait to be taken."""
    return [msgspec.json.decode(body, type=Ruling) for _, body in transaction.records(NETWORK, RULINGS)]


def drop_ruling(transaction: StoreTransaction, link_id: LinkId) -> None:
    """Forget a ruling that was taken."""
    transaction.drop_record(NETWORK, RULINGS, link_id)


def leave_ruling(transaction: StoreTransaction, ruling: Ruling) -> None:
    """Leave a ruling for the running network, or for its next start."""
    transaction.put_record(NETWORK, RULINGS, ruling.link_id, msgspec.json.encode(ruling))
