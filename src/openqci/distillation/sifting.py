"""Sifting: Alice finds Bob's detections in her record and keeps those with matching bases.

Z bits become key, X bits are disclosed for the test and never become key. What is *not* here: any use of
bit values to decide what is kept.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openqci.core.detections import X_BASIS, Z_BASIS, Bits, EmissionRecord, Slots
from openqci.core.errors import PeerMisbehaved

Counts = tuple[int, ...]


@dataclass
class SiftedBits:
    """What one end keeps of a block: bits and intensities of the key basis and of the test basis."""

    z_bits: Bits
    x_bits: Bits
    z_intensities: Bits
    x_intensities: Bits

    def wipe(self) -> None:
        self.z_bits[:] = 0
        self.x_bits[:] = 0


def emitted_at(record: EmissionRecord, slots: Slots) -> NDArray[np.int64] | None:
    """Return the indices of the announced slots in Alice's record; None if they are all of it, in order.

    Raises PeerMisbehaved for a slot in which she sent nothing.
    """
    if slots.size == record.slots.size and np.array_equal(slots, record.slots):
        return None
    if slots.size and not record.slots.size:
        raise PeerMisbehaved("detections announced in slots in which nothing was sent")
    places = np.searchsorted(record.slots, slots)
    np.minimum(places, max(0, record.slots.size - 1), out=places)
    unknown = int(np.count_nonzero(record.slots[places] != slots))
    if unknown:
        raise PeerMisbehaved(f"{unknown} detections announced in slots in which nothing was sent")
    return places


def split_by_basis(bases: Bits, bits: Bits, intensities: Bits) -> SiftedBits:
    """Return bits and intensities of each basis, in the order of detection; arrays of shape (n,)."""
    z, x = np.flatnonzero(bases == Z_BASIS), np.flatnonzero(bases == X_BASIS)
    return SiftedBits(bits[z], bits[x], intensities[z], intensities[x])


def count_by_intensity(intensities: Bits, number: int, of: Bits | None = None) -> Counts:
    """Return how many entries each intensity has; with ``of``, how many among those that are 1 there."""
    if of is not None:
        intensities = intensities[np.flatnonzero(of)]
    return tuple(int(np.count_nonzero(intensities == index)) for index in range(number))
