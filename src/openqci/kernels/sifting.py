"""Sifting in one pass over the detections, at either end.

Bits come packed as ``numpy.packbits`` packs them: entry i is bit 7 - i % 8 of byte i // 8. Every detection is
written to both bases' arrays and only the right place moves on: bases are random, and a processor that has to
guess them pays more than the idle write. Nothing depends on a bit's value but what is stored.
"""

from typing import Any

import numpy as np

from openqci.kernels.compiling import kernel

KEPT, Z, X, FAULT = 0, 1, 2, 3
"""Places in ``totals``: detections kept, key bits, test bits, and what was wrong with the slots."""

FAULT_NONE, FAULT_ORDER, FAULT_RANGE, FAULT_UNKNOWN = 0, 1, 2, 3


@kernel
def packed_bit(packed: Any, index: int) -> Any:
    return (packed[index >> 3] >> np.uint8(7 - (index & 7))) & np.uint8(1)


@kernel
def put_packed(packed: Any, index: int, bit: Any) -> None:
    packed[index >> 3] |= np.uint8(bit << np.uint8(7 - (index & 7)))


@kernel
def largest_difference(slots: Any) -> Any:
    """Return the largest difference of neighbours; 0 for fewer than two slots."""
    largest = np.int64(0)
    for index in range(1, slots.size):
        largest = max(largest, slots[index] - slots[index - 1])
    return largest


@kernel
def write_differences(slots: Any, deltas: Any) -> None:
    for index in range(1, slots.size):
        deltas[index - 1] = slots[index] - slots[index - 1]


@kernel
def index_of(slot: Any, slots: Any, start: int) -> Any:
    """Return the first index from ``start`` on whose slot is not below, by steps that double."""
    low, step = start, 1
    high = start
    while high < slots.size and slots[high] < slot:
        low = high + 1
        high += step
        step <<= 1
    high = min(high, slots.size)
    while low < high:
        middle = (low + high) >> 1
        if slots[middle] < slot:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def sift_at_alice(
    first_slot: int,
    deltas: Any,
    slot_max: int,
    bob_bases: Any,
    slots: Any,
    bases: Any,
    bits: Any,
    intensities: Any,
    keep: Any,
    planes: Any,
    z_bits: Any,
    z_intensities: Any,
    x_bits: Any,
    x_intensities: Any,
    counts: Any,
    totals: Any,
) -> None:
    """Find the announced slots in Alice's record and split what was kept by basis.

    ``deltas`` (d - 1,) and ``bob_bases`` (packed) tell d detections; the record's arrays have shape (n,).
    Written: ``keep`` and ``planes`` (2, ...) packed and zero before, the bits and intensities of either basis
    with room for d + 1, ``counts`` (2, 4) by basis and intensity, and ``totals`` (4,).
    """
    slot = np.int64(first_slot)
    place = 0
    kept = z = x = 0
    for index in range(deltas.size + 1):
        if index:
            delta = np.int64(deltas[index - 1])
            if delta < 1:
                totals[FAULT] = FAULT_ORDER
                return
            slot += delta
            if slot >= slot_max:
                totals[FAULT] = FAULT_RANGE
                return
        place = index_of(slot, slots, place)
        if place >= slots.size or slots[place] != slot:
            totals[FAULT] = FAULT_UNKNOWN
            return
        basis, bit, intensity = bases[place], bits[place], intensities[place] & np.uint8(3)
        same = np.uint8(1) ^ basis ^ packed_bit(bob_bases, index)
        put_packed(keep, index, same)
        put_packed(planes[0], kept, same & intensity)
        put_packed(planes[1], kept, same & (intensity >> np.uint8(1)))
        z_bits[z], z_intensities[z] = bit, intensity
        x_bits[x], x_intensities[x] = bit, intensity
        counts[basis, intensity] += same
        kept += same
        x += same & basis
        z += same & (basis ^ np.uint8(1))
        place += 1
    z_bits[z] = x_bits[x] = 0
    totals[KEPT], totals[Z], totals[X] = kept, z, x


@kernel
def sift_at_bob(
    bases: Any,
    bits: Any,
    keep: Any,
    planes: Any,
    kept_at_most: int,
    z_bits: Any,
    z_intensities: Any,
    x_bits: Any,
    x_intensities: Any,
    counts: Any,
    totals: Any,
) -> None:
    """Split what Alice keeps by basis; as :func:`sift_at_alice`. Keeps at most ``kept_at_most``."""
    kept = z = x = 0
    for index in range(bases.size):
        same = packed_bit(keep, index)
        if kept >= kept_at_most:
            kept += same
            continue
        intensity = packed_bit(planes[0], kept) | (packed_bit(planes[1], kept) << np.uint8(1))
        basis, bit = bases[index], bits[index]
        z_bits[z], z_intensities[z] = bit, intensity
        x_bits[x], x_intensities[x] = bit, intensity
        counts[basis, intensity] += same
        kept += same
        x += same & basis
        z += same & (basis ^ np.uint8(1))
    z_bits[z] = x_bits[x] = 0
    totals[KEPT], totals[Z], totals[X] = kept, z, x
