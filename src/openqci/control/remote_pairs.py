"""Pairs whose slave is in another network: how much key should set out for it now.

A pair's stock counts what its master can have and what is on its way over the borders. Keys set out in whole
batches where the KME at the far end takes such, else each by itself.

>>> demand = RemoteDemand(SaeId("a"), (SaeId("b"),), "FR", low_bytes=320, high_bytes=1024)
>>> to_set_out(demand, stock_bytes=64, coming_bytes=0), to_set_out(demand, stock_bytes=64, coming_bytes=960)
((960,), ())
"""

from dataclasses import dataclass

from openqci.core.identifiers import SaeId
from openqci.delivery.border_extensions import BATCH_KEY_BYTES_MAX

KEY_UNIT_BYTES = 32
BATCHES_PER_LOOK_MAX = 4
KEYS_PER_LOOK_MAX = 128

WAIT_S_MIN, WAIT_S_MAX = 1.0, 60.0
"""How long a pair whose key has failed waits before more sets out; it doubles with each failure."""


@dataclass(frozen=True)
class RemoteDemand:
    """A master here and its slaves in one other network, with the watermarks of their stock.

    ``key_bytes`` is the size of keys that are sent each by itself, if the far end takes no ``batches``.
    """

    master: SaeId
    slaves: tuple[SaeId, ...]
    domain: str
    low_bytes: int
    high_bytes: int
    ttl_s: float = 0.0
    batches: bool = True
    key_bytes: int = KEY_UNIT_BYTES
    waiting_bytes: int = 0


def to_set_out(demand: RemoteDemand, stock_bytes: int, coming_bytes: int) -> tuple[int, ...]:
    """Return the lengths of the batches, or of the keys, that should set out now."""
    there = stock_bytes + coming_bytes
    waiting = demand.waiting_bytes - coming_bytes
    if there >= demand.low_bytes and waiting <= 0:
        return ()
    lacking = max(demand.high_bytes - there, waiting)
    if demand.batches and len(demand.slaves) == 1:
        whole = lacking + -lacking % KEY_UNIT_BYTES
        lengths = [BATCH_KEY_BYTES_MAX] * (whole // BATCH_KEY_BYTES_MAX)
        rest = whole % BATCH_KEY_BYTES_MAX
        return tuple([*lengths, *([rest] if rest else [])][:BATCHES_PER_LOOK_MAX])
    return (demand.key_bytes,) * min(-(-lacking // demand.key_bytes), KEYS_PER_LOOK_MAX)


def wait_s(failures: int) -> float:
    """Return how long a pair waits after so many failures in a row.

    >>> [wait_s(failures) for failures in (0, 1, 2, 20)]
    [0.0, 1.0, 2.0, 60.0]
    """
    if not failures:
        return 0.0
    return min(WAIT_S_MAX, WAIT_S_MIN * 2.0 ** min(failures - 1, 30))
