"""Which batches a KME should agree on next, so that the stocks of its pairs stay between their watermarks.

A pair's stock counts the keys that its master can have now and what is being agreed on; the ends of batches
that are too short for a key are none. Below its low watermark, or when a request waits for more than is
coming, a pair is in need, up to its high watermark. What a link has is shared among the pairs in need: first
what is due to those with a guaranteed share, then to those with the higher priority, then equally (max-min),
so that no pair of the same priority starves another (invariant I9).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from openqci.core.identifiers import KmeId, LinkId, SaeId
from openqci.delivery.agreement import BATCH_KEY_BYTES_MAX, CONTROL_BYTES, BatchWanted, open_offers
from openqci.delivery.pair_stock import stock_keys
from openqci.keystore.deposits import link_stock_bytes
from openqci.keystore.ports import KmeView

BATCH_KEY_BYTES_MIN = 1024
"""A smaller batch is not worth its control bytes, unless a request waits and there is no more."""

KEY_UNIT_BYTES = 32
"""A key of 256 bits, in which stocks are configured."""

BATCHES_PER_TURN_MAX = 8
BATCHES_UNDER_WAY_MAX = 8
"""Per pair: what one turn asks for, and how many batches may wait for their legs at once."""


@dataclass(frozen=True)
class PairDemand:
    """A pair, or a master with several slaves, whose stock is to be kept filled.

    ``key_bytes`` is the size of the keys that it is kept for: batches are whole keys of that size.
    ``waiting_bytes`` is the largest request that waits now; ``ttl_s`` 0 means that its keys do not expire.
    ``due_bytes`` is what it has been guaranteed and has not got (:class:`GuaranteedShare` of
    :mod:`openqci.delivery.admission`).
    """

    master: SaeId
    legs: tuple[tuple[SaeId, KmeId, str], ...]
    low_bytes: int
    high_bytes: int
    priority: int = 0
    key_bytes: int = KEY_UNIT_BYTES
    waiting_bytes: int = 0
    ttl_s: float = 0.0
    collect_s: float = 0.0
    due_bytes: int = 0

    @property
    def slave(self) -> SaeId:
        return self.legs[0][0]

    @property
    def group(self) -> tuple[SaeId, ...]:
        """The master, and the slaves in order of their IDs."""
        return self.master, *sorted(slave for slave, _, _ in self.legs)

    @property
    def additional(self) -> tuple[SaeId, ...]:
        return tuple(slave for slave, _, _ in self.legs[1:])


@dataclass(frozen=True)
class Need:
    """What a pair lacks, in bytes, and over which links in their present epoch."""

    demand: PairDemand
    links: tuple[LinkId, ...]
    lacking_bytes: int


@dataclass(frozen=True)
class Plan:
    """The batches to agree on, and how much of each link's key nobody else shall take now."""

    wanted: list[BatchWanted]
    held_back: dict[LinkId, int]


def needs(view: KmeView, demands: Iterable[PairDemand], epochs: dict[KmeId, str]) -> list[Need]:
    """Return the pairs in need whose peers have been met."""
    under_way: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for order in open_offers(view):
        if order.stream_id:
            continue  # key of a stream of ETSI GS QKD 004 enters no pair's stock
        under_way[order.master_sae, *(leg.slave_sae for leg in order.legs)].append(order.key_bytes)
    found = []
    for demand in demands:
        if any(kme not in epochs for _, kme, _ in demand.legs):
            continue
        coming = under_way[demand.master, *(slave for slave, _, _ in demand.legs)]
        keys = stock_keys(view, demand.master, demand.slave, demand.key_bytes, demand.additional)
        stock = keys * demand.key_bytes + sum(coming)
        # A request waits though there are bytes enough, if they lie in batches too short for its keys.
        waiting = demand.waiting_bytes - sum(coming)
        if (stock < demand.low_bytes or waiting > 0) and len(coming) < BATCHES_UNDER_WAY_MAX:
            links = tuple(LinkId(f"{link}.{epochs[kme]}") for _, kme, link in demand.legs)
            found.append(Need(demand, links, max(demand.high_bytes - stock, waiting)))
    return found


def plan(view: KmeView, found: Sequence[Need], now_s: float) -> Plan:
    """Share the link key that is there among the pairs in need.

    First come those with a guaranteed share, up to what is due to them. Where that is too little for a batch
    yet, so much of the link's key is held back from all others until there is enough.
    """
    left: dict[LinkId, int] = {}
    for need in found:
        for link in need.links:
            left.setdefault(link, link_stock_bytes(view, link, view.kme))
    due = [
        replace(need, lacking_bytes=min(need.lacking_bytes, need.demand.due_bytes))
        for need in found
        if need.demand.due_bytes
    ]
    given = dict.fromkeys((need.demand.group for need in found), 0)
    held_back: dict[LinkId, int] = defaultdict(int)
    wanted: list[BatchWanted] = []
    worth_it = [need for need in due if _worth_a_batch(need, found)]
    for need, lengths in _shared(left, worth_it):
        given[need.demand.group] = sum(lengths)
        wanted += [_batch(need, length, now_s) for length in lengths]
    for need in due:
        if (missing := need.lacking_bytes - given[need.demand.group]) > 0:
            for link in need.links:
                held_back[link] += missing + CONTROL_BYTES
    spare = {link: max(0, length - held_back[link]) for link, length in left.items()}
    rest = [replace(need, lacking_bytes=need.lacking_bytes - given[need.demand.group]) for need in found]
    for need, lengths in _shared(spare, [need for need in rest if need.lacking_bytes > 0]):
        wanted += [_batch(need, length, now_s) for length in lengths]
    return Plan(wanted, {link: length for link, length in held_back.items() if length})


def _worth_a_batch(due: Need, found: Sequence[Need]) -> bool:
    """Tell whether what is due to a pair is a batch, or all that it lacks."""
    lacking = next(need.lacking_bytes for need in found if need.demand is due.demand)
    return due.lacking_bytes >= min(BATCH_KEY_BYTES_MIN, lacking)


def _shared(left: dict[LinkId, int], found: Sequence[Need]) -> Iterator[tuple[Need, list[int]]]:
    """Yield each pair in need with its batches: higher priorities first, alike among equals (max-min).

    What is given is taken off ``left``.
    """
    waiting = sorted(found, key=lambda need: (-need.demand.priority, need.lacking_bytes))
    for position, need in enumerate(waiting):
        rivals = [other for other in waiting[position:] if other.demand.priority == need.demand.priority]
        share = min(left[link] // sum(other.links.count(link) for other in rivals) for link in need.links)
        lengths = batch_lengths(need, share)
        for link in need.links:
            left[link] -= sum(lengths) + CONTROL_BYTES * len(lengths)
        yield need, lengths


def batch_lengths(need: Need, share_bytes: int) -> list[int]:
    """Cut what a pair lacks into batches that its share of the link key pays for."""
    lengths: list[int] = []
    lacking, share, unit = need.lacking_bytes, share_bytes, need.demand.key_bytes
    while lacking > 0 and len(lengths) < BATCHES_PER_TURN_MAX:
        length = min(lacking + -lacking % unit, BATCH_KEY_BYTES_MAX, share - CONTROL_BYTES)
        length -= length % unit
        enough = length >= min(BATCH_KEY_BYTES_MIN, lacking)
        if length < unit or not (enough or need.demand.waiting_bytes):
            break
        lengths.append(length)
        lacking -= length
        share -= length + CONTROL_BYTES
    return lengths


def _batch(need: Need, length_bytes: int, now_s: float) -> BatchWanted:
    demand = need.demand
    return BatchWanted(
        demand.master,
        tuple((slave, kme, link) for (slave, kme, _), link in zip(demand.legs, need.links, strict=True)),
        length_bytes,
        now_s + demand.ttl_s if demand.ttl_s else 0.0,
        demand.collect_s,
    )
