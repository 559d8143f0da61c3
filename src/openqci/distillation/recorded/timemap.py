"""From the time of a tag to the slot of a pulse: a line in pieces, exact over a run of any length."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openqci.core.detections import Slots

Floats = NDArray[np.float64]
Times = NDArray[np.int64]

RATE_MAX = 2.0
"""Of a piece, in nominal slots, and its inverse: a line that is steeper or flatter follows noise."""


@dataclass(frozen=True)
class TimeMap:
    """Slot against time, linear between knots; the first and last piece reach beyond.

    All arrays have shape (m,). At ``times_ps[j]`` the slot is ``slots[j] + fractions[j]``, and it grows by
    ``rates[j]`` per ps up to the next knot. Whole numbers and small fractions are kept apart: 10^15 slots and
    their thousandth parts do not fit into one floating-point number.
    """

    times_ps: Times
    slots: Slots
    fractions: Floats
    rates: Floats

    def pieces_of(self, times_ps: Times) -> NDArray[np.intp]:
        """Return the piece that each time belongs to."""
        pieces = np.searchsorted(self.times_ps, times_ps, side="right") - 1
        return np.maximum(pieces, 0, out=pieces)

    def is_even(self, slot_ps: float) -> bool:
        """Return whether no piece is more than ``RATE_MAX`` steeper or flatter than the clocks."""
        rates = self.rates * slot_ps
        return bool(np.all(rates <= RATE_MAX) and np.all(rates >= 1 / RATE_MAX))

    def __call__(self, times_ps: Times) -> tuple[Slots, Floats]:
        """Return the nearest slot of each time, and how far from its middle that is, in slots."""
        pieces = self.pieces_of(times_ps)
        since = (times_ps - self.times_ps[pieces]).astype(np.float64)
        places = since * self.rates[pieces] + self.fractions[pieces]
        whole = np.floor(places + 0.5)
        return self.slots[pieces] + whole.astype(np.int64), places - whole


def map_through(times_ps: Times, slots: Slots, fractions: Floats, rate: float) -> TimeMap:
    """Return the map through these knots (rising times); ``rate`` serves if there is but one."""
    whole = np.floor(fractions)
    slots, fractions = slots + whole.astype(np.int64), fractions - whole
    rates = np.full(times_ps.size, rate)
    if times_ps.size > 1:
        passed = np.diff(slots).astype(np.float64) + np.diff(fractions)
        rates[:-1] = passed / np.diff(times_ps).astype(np.float64)
        rates[-1] = rates[-2]
    return TimeMap(times_ps, slots, fractions, rates)
