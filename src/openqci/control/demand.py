"""From stocks and waiting applications to work: how much to relay, and which hop makes key next.

Two watermarks steer each hop, as in a water tower: below ``low`` it starts to make key and goes on until
``high``, then it rests. What an application waits for comes before everything else.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from openqci.core.identifiers import LinkId, SaeId

BATCH_BYTES_MAX = 8192
"""Longest batch that one relay carries, so that one pair cannot empty a route at once (invariant I9)."""

BATCH_GRAIN_BYTES = 32
"""Batches are whole 256-bit keys, the default key size of ETSI GS QKD 014 deliveries."""


@dataclass(frozen=True)
class PairDemand:
    """A pair of applications: what its stock is, where it should be, and what a caller waits for now."""

    master: SaeId
    slave: SaeId
    stock_bytes: int
    low_bytes: int
    high_bytes: int
    waiting_bytes: int = 0


@dataclass(frozen=True)
class HopStock:
    """A hop as the choice of the next block sees it; stock is that of its emptier direction."""

    link_id: LinkId
    stock_bytes: int
    low_bytes: int
    high_bytes: int
    filling: bool
    free: bool


def batch_bytes(pair: PairDemand) -> int:
    """Return how much end-to-end key the pair should get now; 0 if it has enough.

    >>> batch_bytes(PairDemand(SaeId("a"), SaeId("b"), stock_bytes=64, low_bytes=256, high_bytes=1024))
    960
    """
    if not pair.waiting_bytes and pair.stock_bytes >= pair.low_bytes:
        return 0
    wanted = max(pair.high_bytes - pair.stock_bytes, pair.waiting_bytes)
    return min(BATCH_BYTES_MAX, -(-wanted // BATCH_GRAIN_BYTES) * BATCH_GRAIN_BYTES)


def affordable_bytes(
    wanted_bytes: int, waiting_bytes: int, route_stock_bytes: Iterable[int], overhead_bytes: int
) -> int:
    """Return how much the poorest hop of a route can carry, at most what is wanted; 0 if it is too little.

    Something for a waiting application now is better than a full batch later, but never less than it waits
    for: a batch that does not hold its key would be spent in vain.
    """
    poorest = min(route_stock_bytes, default=0) - overhead_bytes
    carried = min(wanted_bytes, poorest // BATCH_GRAIN_BYTES * BATCH_GRAIN_BYTES)
    enough = max(BATCH_GRAIN_BYTES, min(waiting_bytes, wanted_bytes))
    return carried if carried >= enough else 0


def hop_to_work_on(
    hops: Iterable[HopStock], waited_for: Collection[LinkId], short: Collection[LinkId]
) -> LinkId | None:
    """Return the hop that should make a block next, or None if all rest or are busy.

    First the hops that a waiting application's route lacks, then those that keep a pair's stock from being
    refilled, then whatever is below its low mark or on its way up from there; the emptiest first in each.
    """
    best: tuple[int, float, LinkId] | None = None
    for hop in hops:
        if not hop.free:
            continue
        if hop.link_id in waited_for:
            urgency = 0
        elif hop.link_id in short:
            urgency = 1
        elif hop.filling or hop.stock_bytes < hop.low_bytes:
            urgency = 2
        else:
            continue
        rank = (urgency, hop.stock_bytes / hop.high_bytes, hop.link_id)
        if best is None or rank < best:
            best = rank
    return best[2] if best else None
