"""Makes the two ends of a key stream agree again after an outage.

A stop between the two halves of a spend leaves bytes at one end that the other has no longer. They are of no
use to anybody, since a key needs both ends, and must not stay (invariants I2 and I4): each end destroys what
its peer has not. Nothing is ever brought back.
"""

from collections.abc import Sequence

from openqci.core.identifiers import StreamId
from openqci.keystore.ports import KmeView

Ranges = Sequence[tuple[int, int]]
"""(offset, length) in bytes, in order, not overlapping."""


def surplus(mine: Ranges, theirs: Ranges) -> list[tuple[int, int]]:
    """Return the ranges that are in ``mine`` and not in ``theirs``.

    >>> surplus([(0, 100)], [(10, 20), (90, 50)])
    [(0, 10), (30, 60)]
    """
    rest: list[tuple[int, int]] = []
    for start, length in mine:
        at, end = start, start + length
        for other_start, other_length in theirs:
            other_end = other_start + other_length
            if other_end <= at or other_start >= end:
                continue
            if other_start > at:
                rest.append((at, other_start - at))
            at = max(at, other_end)
        if at < end:
            rest.append((at, end - at))
    return rest


def destroy_surplus(view: KmeView, stream: StreamId, theirs: Ranges) -> int:
    """Destroy at this end what the other end has not; return how many bytes that was."""
    destroyed = 0
    for offset, length in surplus(view.ranges(stream), theirs):
        view.take(stream, offset, length).wipe()
        destroyed += length
    return destroyed
