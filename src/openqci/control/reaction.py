"""What to do when a link is lost, a stock dies, or somebody seems to listen.

A protocol core without I/O: :meth:`Reaction.receive` takes what was seen, in the order in which it was
seen, and returns what is to be done about it. The shell does it durably before it goes on; the core
remembers, and :meth:`Reaction.suspicions` is what must survive a restart.

=================  =======================================================  ===============================
what was seen      what is done at once                                     until
=================  =======================================================  ===============================
QBER above bound   the link is closed; its stock, and what was relayed      the security officer rules:
                   over it since its last good block, are held; its         released, or destroyed at both
                   flows go another way; alarm                              ends
link lost, ends    alarm; what is in stock goes on being spent              a good block
still in touch
link lost, ends    the link is closed, its flows go another way; alarm      it is back
out of touch
stock dying        its flows go another way while some is left; alarm       a good block
=================  =======================================================  ===============================

Why hold key that was distilled *before* the alarm: each block's proof stands by itself, and blocks above
the bound gave no key. But proofs hold for devices as modelled, and whoever is caught now may have begun
earlier by means that the model does not know. Since the last good block nothing has vouched for the link;
what moved over it in that time is not given out until a person has looked. What was given out before
cannot be taken back: the alarm names the pairs.

>>> reaction = Reaction()
>>> _ = reaction.receive(RouteTaken("a > c", (LinkId("a--b"), LinkId("b--c"))))
>>> seen = BlockRefused(LinkId("a--b"), 0.13, "QBER 13 % is above 11 %", now_s=60.0)
>>> [type(effect).__name__ for effect in reaction.receive(seen)]
['CloseLink', 'HoldLink', 'Reroute', 'RaiseAlarm']
>>> ruling = Ruling(LinkId("a--b"), "officer", RELEASE, now_s=900.0)
>>> [type(effect).__name__ for effect in reaction.receive(ruling)]
['ReleaseLink', 'OpenLink', 'ClearAlarm']
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from openqci.core.errors import ConfigurationError
from openqci.core.identifiers import LinkId, SiteId

QBER_BOUND = 0.11
"""Above this, no proof in use gives key from one-way reconciliation of BB84 (Shor and Preskill 2000)."""

REFUSALS_MAX = 3
"""Blocks in a row that end without key, whatever the reason, until a link counts as lost."""

DRAIN_WINDOW_S = 10.0
"""Over so long the fall of a stock is measured."""

DYING_S = 60.0
"""A stock that no block refills and that lasts no longer than this is dying."""

BATCHES_MAX = 4096
"""Batches that are remembered of one link between two good blocks; an older one is then given up to trust."""

RELEASE, DESTROY = "release", "destroy"

EAVESDROPPING, LINK_LOST, STOCK_DYING = "eavesdropping", "link lost", "stock dying"

# What is seen


class BlockKept(msgspec.Struct, frozen=True):
    """A block gave key."""

    link_id: LinkId
    qber: float
    now_s: float


class BlockRefused(msgspec.Struct, frozen=True):
    """A block gave no key; ``qber`` is None where it came to no estimate."""

    link_id: LinkId
    qber: float | None
    reason: str
    now_s: float


class LinkLost(msgspec.Struct, frozen=True):
    """A link makes no key. ``reaches_peer`` says whether its two ends still hear each other, by any way."""

    link_id: LinkId
    reason: str
    now_s: float
    reaches_peer: bool = True


class LinkBack(msgspec.Struct, frozen=True):
    """The two ends hear each other again and make key."""

    link_id: LinkId
    now_s: float


class StockSeen(msgspec.Struct, frozen=True):
    """What one end may begin to spend of a link."""

    link_id: LinkId
    initiator: SiteId
    stock_bytes: int
    now_s: float


class Batch(msgspec.Struct, frozen=True):
    """A batch of end-to-end key as both its ends know it."""

    batch_tag: int
    origin: SiteId
    target: SiteId
    master_sae: str
    slave_sae: str


class BatchRelayed(msgspec.Struct, frozen=True):
    """A batch has reached both its ends over these links."""

    batch: Batch
    links: tuple[LinkId, ...]
    now_s: float


class RouteTaken(msgspec.Struct, frozen=True):
    """A flow uses these links from now on; none says that it has left its route."""

    flow_id: str
    links: tuple[LinkId, ...]


class Ruling(msgspec.Struct, frozen=True):
    """The security officer's word on a link under suspicion: :data:`RELEASE` or :data:`DESTROY`."""

    link_id: LinkId
    officer: str
    verdict: str
    now_s: float


Seen = BlockKept | BlockRefused | LinkLost | LinkBack | StockSeen | BatchRelayed | RouteTaken | Ruling

# What is to be done


class CloseLink(msgspec.Struct, frozen=True):
    """No relay may use the link from now on."""

    link_id: LinkId
    reason: str


class OpenLink(msgspec.Struct, frozen=True):
    """Relays may use the link again."""

    link_id: LinkId


class HoldLink(msgspec.Struct, frozen=True):
    """What both ends have in stock of the link must not be spent; blocks of it are made, but not kept."""

    link_id: LinkId


class ReleaseLink(msgspec.Struct, frozen=True):
    """What is held of the link may be spent."""

    link_id: LinkId


class DestroyLink(msgspec.Struct, frozen=True):
    """What both ends have in stock of the link is to be destroyed."""

    link_id: LinkId


class HoldBatch(msgspec.Struct, frozen=True):
    """No key of the batch may be given out at either end."""

    batch: Batch


class ReleaseBatch(msgspec.Struct, frozen=True):
    """Keys of the batch may be given out again."""

    batch: Batch


class DestroyBatch(msgspec.Struct, frozen=True):
    """What is left of the batch is to be destroyed at both ends."""

    batch: Batch


class Reroute(msgspec.Struct, frozen=True):
    """A flow should look for another route, without this link if it can."""

    flow_id: str
    link_id: LinkId


class Alarm(msgspec.Struct, frozen=True):
    """What a person must know. ``severity`` as in the KME's alarms: critical, major or minor."""

    code: str
    severity: str
    link_id: LinkId
    reason: str
    since_s: float


class RaiseAlarm(msgspec.Struct, frozen=True):
    """The alarm stands until it is cleared; a later one of the same code and link takes its place."""

    alarm: Alarm


class ClearAlarm(msgspec.Struct, frozen=True):
    """What caused the alarm is over; ``reason`` says how."""

    code: str
    link_id: LinkId
    reason: str


Effect = (
    CloseLink
    | OpenLink
    | HoldLink
    | ReleaseLink
    | DestroyLink
    | HoldBatch
    | ReleaseBatch
    | DestroyBatch
    | Reroute
    | RaiseAlarm
    | ClearAlarm
)


class Suspicion(msgspec.Struct, frozen=True):
    """A link under suspicion, with all that is held for it: what a restart must not forget."""

    link_id: LinkId
    reason: str
    since_s: float
    last_good_s: float | None = None
    batches: tuple[Batch, ...] = ()


@dataclass
class _Line:
    """What is remembered of one link."""

    last_good_s: float | None = None
    refusals: int = 0
    lost: str = ""
    unreachable: bool = False
    suspicion: Suspicion | None = None
    dying: bool = False
    recent: deque[tuple[float, Batch]] = field(default_factory=lambda: deque(maxlen=BATCHES_MAX))
    drains: dict[SiteId, deque[tuple[float, int]]] = field(default_factory=dict)

    @property
    def closed(self) -> bool:
        return self.unreachable or self.suspicion is not None


class Reaction:
    """The reaction of one network: its links, what is wrong with them, and whom it concerns."""

    def __init__(self, suspicions: Iterable[Suspicion] = (), qber_bound: float = QBER_BOUND) -> None:
        self._qber_bound = qber_bound
        self._lines: dict[LinkId, _Line] = {}
        self._routes: dict[str, tuple[LinkId, ...]] = {}
        for each in suspicions:
            self._line(each.link_id).suspicion = each
            self._line(each.link_id).last_good_s = each.last_good_s

    def receive(self, seen: Seen) -> list[Effect]:
        """Take what was seen; return what is to be done, in order.

        ConfigurationError for a ruling on a link that is under no suspicion, or with an unknown verdict.
        """
        match seen:
            case BlockKept():
                return list(self._block_kept(seen))
            case BlockRefused():
                return list(self._block_refused(seen))
            case LinkLost():
                return list(self._link_lost(seen))
            case LinkBack():
                return list(self._link_back(seen))
            case StockSeen():
                return list(self._stock_seen(seen))
            case BatchRelayed():
                return list(self._batch_relayed(seen))
            case RouteTaken():
                self._routes[seen.flow_id] = seen.links
                if not seen.links:
                    del self._routes[seen.flow_id]
                return []
            case Ruling():
                return list(self._ruled(seen))

    def suspicions(self) -> list[Suspicion]:
        """Return all that is held, to be kept durably after each effect on it."""
        return [line.suspicion for line in self._lines.values() if line.suspicion is not None]

    def suspicion(self, link_id: LinkId) -> Suspicion | None:
        """Return what is held for a link, None if it is under no suspicion."""
        return self._line(link_id).suspicion

    def closed(self, link_id: LinkId) -> bool:
        """Tell whether no relay may use a link now."""
        return self._line(link_id).closed

    def _line(self, link_id: LinkId) -> _Line:
        return self._lines.setdefault(link_id, _Line())

    # Blocks

    def _block_kept(self, seen: BlockKept) -> Iterator[Effect]:
        line = self._line(seen.link_id)
        line.refusals = 0
        if line.suspicion is not None:
            # It speaks for the line as it is now; what is held waits for a person all the same.
            return
        line.last_good_s = seen.now_s
        line.recent.clear()
        yield from self._recovered(seen.link_id, line, "a block gave key again")

    def _block_refused(self, seen: BlockRefused) -> Iterator[Effect]:
        line = self._line(seen.link_id)
        line.refusals += 1
        if seen.qber is not None and seen.qber > self._qber_bound:
            yield from self._suspect(seen, line)
        elif line.refusals >= REFUSALS_MAX and not line.lost:
            line.lost = f"{line.refusals} blocks in a row gave no key: {seen.reason}"
            yield RaiseAlarm(Alarm(LINK_LOST, "major", seen.link_id, line.lost, seen.now_s))

    def _suspect(self, seen: BlockRefused, line: _Line) -> Iterator[Effect]:
        if line.suspicion is not None:
            return
        batches = tuple(batch for _, batch in line.recent)
        was_closed = line.closed
        line.suspicion = Suspicion(seen.link_id, seen.reason, seen.now_s, line.last_good_s, batches)
        line.recent.clear()
        if not was_closed:
            yield CloseLink(seen.link_id, f"under suspicion: {seen.reason}")
        yield HoldLink(seen.link_id)
        yield from (HoldBatch(batch) for batch in batches)
        if not was_closed:
            yield from self._rerouted(seen.link_id)
        reason = seen.reason + _told(batches)
        yield RaiseAlarm(Alarm(EAVESDROPPING, "critical", seen.link_id, reason, seen.now_s))

    def _ruled(self, seen: Ruling) -> Iterator[Effect]:
        line = self._line(seen.link_id)
        suspicion = line.suspicion
        if suspicion is None:
            raise ConfigurationError(
                f"link {seen.link_id} is under no suspicion; there is nothing to rule on"
            )
        if seen.verdict not in (RELEASE, DESTROY):
            raise ConfigurationError(f"verdict {seen.verdict!r}; expected {RELEASE} or {DESTROY}")
        line.suspicion = None
        line.refusals = 0
        if seen.verdict == RELEASE:
            still_held = self._held()
            yield from (ReleaseBatch(batch) for batch in suspicion.batches if batch not in still_held)
            yield ReleaseLink(seen.link_id)
        else:
            self._forget(suspicion.batches)
            yield from (DestroyBatch(batch) for batch in suspicion.batches)
            yield DestroyLink(seen.link_id)
        if not line.closed:
            yield OpenLink(seen.link_id)
        yield ClearAlarm(EAVESDROPPING, seen.link_id, f"{seen.officer} ruled: {seen.verdict}")

    def _held(self) -> set[Batch]:
        """Return the batches that some suspicion holds."""
        return {batch for each in self.suspicions() for batch in each.batches}

    def _forget(self, gone: Iterable[Batch]) -> None:
        """Strike batches that are destroyed from all other suspicions."""
        struck = set(gone)
        for line in self._lines.values():
            if line.suspicion is not None and struck & set(line.suspicion.batches):
                kept = tuple(batch for batch in line.suspicion.batches if batch not in struck)
                line.suspicion = msgspec.structs.replace(line.suspicion, batches=kept)

    # Links that are lost and come back

    def _link_lost(self, seen: LinkLost) -> Iterator[Effect]:
        line = self._line(seen.link_id)
        news = line.lost != seen.reason or line.unreachable == seen.reaches_peer
        was_closed = line.closed
        line.lost, line.unreachable = seen.reason, not seen.reaches_peer
        if line.closed and not was_closed:
            yield CloseLink(seen.link_id, seen.reason)
            yield from self._rerouted(seen.link_id)
        elif was_closed and not line.closed:
            yield OpenLink(seen.link_id)
        if news:
            yield RaiseAlarm(Alarm(LINK_LOST, "major", seen.link_id, seen.reason, seen.now_s))

    def _link_back(self, seen: LinkBack) -> Iterator[Effect]:
        yield from self._recovered(seen.link_id, self._line(seen.link_id), "it is back")

    def _recovered(self, link_id: LinkId, line: _Line, reason: str) -> Iterator[Effect]:
        was_closed = line.closed
        was_lost, line.lost, line.unreachable = line.lost, "", False
        line.drains.clear()
        if was_closed and not line.closed:
            yield OpenLink(link_id)
        if was_lost:
            yield ClearAlarm(LINK_LOST, link_id, reason)
        if line.dying:
            line.dying = False
            yield ClearAlarm(STOCK_DYING, link_id, reason)

    # Stocks

    def _stock_seen(self, seen: StockSeen) -> Iterator[Effect]:
        line = self._line(seen.link_id)
        if not line.lost or line.closed:
            return
        points = line.drains.setdefault(seen.initiator, deque())
        points.append((seen.now_s, seen.stock_bytes))
        while len(points) > 2 and points[1][0] <= seen.now_s - DRAIN_WINDOW_S:
            points.popleft()
        left_s = _seconds_left(points)
        if left_s <= DYING_S and not line.dying:
            line.dying = True
            reason = f"{seen.stock_bytes} bytes left from {seen.initiator}, for {left_s:.0f} s; {line.lost}"
            yield from self._rerouted(seen.link_id)
            yield RaiseAlarm(Alarm(STOCK_DYING, "major", seen.link_id, reason, seen.now_s))

    # Batches and flows

    def _batch_relayed(self, seen: BatchRelayed) -> Iterator[Effect]:
        held = False
        for link_id in seen.links:
            line = self._line(link_id)
            if line.suspicion is None:
                line.recent.append((seen.now_s, seen.batch))
                continue
            # It was under way when the alarm came.
            batches = (*line.suspicion.batches, seen.batch)
            line.suspicion = msgspec.structs.replace(line.suspicion, batches=batches)
            if not held:
                yield HoldBatch(seen.batch)
            held = True

    def _rerouted(self, link_id: LinkId) -> Iterator[Effect]:
        for flow_id, links in self._routes.items():
            if link_id in links:
                yield Reroute(flow_id, link_id)


PAIRS_NAMED = 3


def _told(batches: tuple[Batch, ...]) -> str:
    """Say what is held and whom it concerns."""
    if not batches:
        return ""
    pairs = sorted({f"{batch.master_sae} and {batch.slave_sae}" for batch in batches})
    more = f" and {len(pairs) - PAIRS_NAMED} more pairs" if len(pairs) > PAIRS_NAMED else ""
    named = ", ".join(pairs[:PAIRS_NAMED])
    count = "1 batch" if len(batches) == 1 else f"{len(batches)} batches"
    return f"; {count} relayed over it since its last good block held, of {named}{more}"


def _seconds_left(points: "deque[tuple[float, int]]") -> float:
    """Return for how long a stock lasts if it goes on falling as it has; ``inf`` if it does not fall."""
    (began_s, first), (now_s, last) = points[0], points[-1]
    if last == 0:
        return 0.0
    if now_s <= began_s or last >= first:
        return float("inf")
    return last * (now_s - began_s) / (first - last)
