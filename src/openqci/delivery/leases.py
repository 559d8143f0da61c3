"""Leases: keys of a stock that are kept for one application until it draws them, or for a time.

A lease is made at the master's KME, out of the pair's stock: its keys are *set apart* there as pieces of
their batches (:mod:`openqci.delivery.pair_stock`). The slaves' KMEs hold the whole batches all the time and
know of no lease. So a lease is exclusive, since its bytes are in no stock; durable, since pieces and record
are written in one transaction; and when it ends what is left of it goes back into the stock, with the same
IDs as before.

No lease lasts longer than its keys: only batches that live as long are taken.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

import msgspec

from openqci.core.errors import KeyUnavailable
from openqci.core.identifiers import SaeId
from openqci.delivery.pair_stock import (
    KeyBatch,
    RestRule,
    TakenKey,
    batches_in_stock,
    pieces_apart,
    put_back,
    set_apart,
    take_runs,
)
from openqci.keystore.ports import KmeView

KIND, ENDS_KIND = "lease", "lease-ends"
ENDED_MAX = 256
"""Leases that one sweep ends: the others at the next."""


class Lease(msgspec.Struct, frozen=True):
    """Keys that are kept for a master: ``number`` of them were granted, ``key_bytes`` is the size of each."""

    lease_id: str
    master_sae: SaeId
    slave_sae: SaeId
    additional_slaves: tuple[SaeId, ...]
    key_bytes: int
    number: int
    created_s: float
    ends_s: float

    @property
    def name(self) -> str:
        """Under which it is kept: no other application can say it."""
        return f"{_prefix(self.master_sae)}{self.lease_id}"


@dataclass(frozen=True)
class LeaseEnded:
    """A lease is over; ``returned_bytes`` went back into the stock of its pair."""

    lease: Lease
    returned_bytes: int


class KeysEndSooner(Exception):
    """No key of the pair lives as long as a lease is wanted; ``life_s`` is how long they do."""

    def __init__(self, life_s: float) -> None:
        super().__init__(f"keys of this pair live {life_s:.0f} s")
        self.life_s = life_s


def grant(
    view: KmeView, lease: Lease, will_do: Callable[[KeyBatch], bool], rests: RestRule | None = None
) -> Lease:
    """Set the keys of a lease apart and write it down. Keys come from batches that ``will_do``.

    Raises KeyUnavailable if there are too few now, KeysEndSooner if there can be none.
    """

    def lasts(batch: KeyBatch) -> bool:
        return will_do(batch) and (not batch.expires_s or batch.expires_s >= lease.ends_s)

    pair = lease.master_sae, lease.slave_sae, lease.additional_slaves
    batches = filter(lasts, batches_in_stock(view, *pair))
    try:
        runs = take_runs(view, batches, lease.number, lease.key_bytes, rests)
    except KeyUnavailable:
        lives_s = [batch.expires_s - batch.created_s for batch in batches_in_stock(view, *pair)]
        if lives_s and 0 < lives_s[-1] < lease.ends_s - lease.created_s:
            raise KeysEndSooner(lives_s[-1]) from None
        raise
    for run in runs:
        set_apart(view, run, lease.name)
    view.put_record(KIND, lease.name, msgspec.msgpack.encode(lease))
    view.put_record(ENDS_KIND, _ends_key(lease), b"")
    return lease


def lease_of(view: KmeView, master: SaeId, lease_id: str, now_s: float) -> Lease | None:
    """Return a lease of a master, or None if it has no such lease, or its time is over."""
    body = view.record(KIND, f"{_prefix(master)}{lease_id}")
    lease = msgspec.msgpack.decode(body, type=Lease) if body is not None else None
    return lease if lease is not None and lease.ends_s > now_s else None


def leases_of(view: KmeView, master: SaeId, now_s: float) -> list[Lease]:
    """Return the leases that a master holds."""
    return [lease for lease in _all(view, _prefix(master)) if lease.ends_s > now_s]


def leased_bytes(view: KmeView) -> dict[tuple[SaeId, ...], int]:
    """Return how much key is set apart for leases, by master and slaves in order of their IDs."""
    found: dict[tuple[SaeId, ...], int] = {}
    for lease in _all(view, ""):
        group = lease.master_sae, *sorted((lease.slave_sae, *lease.additional_slaves))
        found[group] = found.get(group, 0) + _left_bytes(view, lease)
    return found


def keys_left(view: KmeView, lease: Lease) -> int:
    """Return how many keys of a lease have not been drawn."""
    return _left_bytes(view, lease) // lease.key_bytes


def draw(
    view: KmeView, lease: Lease, count: int, will_do: Callable[[KeyBatch], bool] = lambda batch: True
) -> list[TakenKey]:
    """Take keys of a lease; they are erased here. The last ones end it.

    Raises KeyUnavailable, before anything is taken, if fewer are left.
    """
    runs = take_runs(view, filter(will_do, pieces_apart(view, lease.name)), count, lease.key_bytes)
    if not _left_bytes(view, lease):
        _forget(view, lease)
    return runs


def release(view: KmeView, lease: Lease) -> LeaseEnded:
    """Put what is left of a lease back into the stock of its pair."""
    returned = 0
    for piece in pieces_apart(view, lease.name):
        returned += view.stock_bytes(piece.stream)
        put_back(view, piece)
    _forget(view, lease)
    return LeaseEnded(lease, returned)


def sweep(view: KmeView, now_s: float) -> list[LeaseEnded]:
    """End the leases whose time is over."""
    ended: list[LeaseEnded] = []
    for key, _ in list(view.records(ENDS_KIND, "", ENDED_MAX)):
        end_us, _, name = key.partition("/")
        if int(end_us) > int(now_s * 1e6):
            break
        body = view.record(KIND, name)
        if body is not None:
            ended.append(release(view, msgspec.msgpack.decode(body, type=Lease)))
    return ended


def _all(view: KmeView, prefix: str) -> Iterator[Lease]:
    for _, body in view.records(KIND, prefix):
        yield msgspec.msgpack.decode(body, type=Lease)


def _left_bytes(view: KmeView, lease: Lease) -> int:
    return sum(view.stock_bytes(piece.stream) for piece in pieces_apart(view, lease.name))


def _forget(view: KmeView, lease: Lease) -> None:
    view.drop_record(KIND, lease.name)
    view.drop_record(ENDS_KIND, _ends_key(lease))


def _ends_key(lease: Lease) -> str:
    return f"{int(lease.ends_s * 1e6):020d}/{lease.name}"


def _prefix(master: SaeId) -> str:
    return f"{quote(master, safe='')}/"
