"""Sifting: Alice finds Bob's detections in her record and keeps those with matching bases.

Z bits become key, X bits are disclosed for the test and never become key. What is *not* here: any use of
bit values to decide what is kept.

Each end has two routes that do the same: one pass in compiled code where kernels are installed, a dozen in
NumPy where they are not.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openqci.core.detections import X_BASIS, Z_BASIS, Bits, DetectionRecord, EmissionRecord, Slots
from openqci.core.errors import PeerMisbehaved
from openqci.distillation.messages import (
    SLOT_MAX,
    Announcement,
    Sifting,
    announced_deltas,
    announced_slots,
    check_packed,
    packed,
    packed_intensities,
    unpacked,
    unpacked_intensities,
)
from openqci.distillation.settings import INTENSITIES_MAX
from openqci.kernels import kernels_available

Counts = tuple[int, ...]

NOT_SENT = "detections announced in slots in which nothing was sent"


@dataclass
class SiftedBits:
    """What one end keeps of a block: bits and intensities of the key basis and of the test basis."""

    z_bits: Bits
    x_bits: Bits
    z_intensities: Bits
    x_intensities: Bits
    z_counts: Counts
    x_counts: Counts
    """By intensity, ``INTENSITIES_MAX`` entries."""

    def wipe(self) -> None:
        self.z_bits[:] = 0
        self.x_bits[:] = 0


def sift_at_alice(
    record: EmissionRecord, message: Announcement, *, compiled: bool | None = None
) -> tuple[Sifting, SiftedBits]:
    """Return what Alice answers to an announcement, and what she keeps.

    Raises PeerMisbehaved for slots that do not rise or in which she sent nothing.
    """
    if kernels_available() if compiled is None else compiled:
        return _sift_at_alice_compiled(record, message)
    bob_bases = unpacked(message.bases, message.detections)
    sent = emitted_at(record, announced_slots(message))
    same = (record.bases if sent is None else record.bases[sent]) == bob_bases
    kept = np.flatnonzero(same)
    kept_sent = kept if sent is None else sent[kept]
    intensities = record.intensities[kept_sent]
    sifted = split_by_basis(bob_bases[kept], record.bits[kept_sent], intensities)
    return Sifting(packed(same.view(np.uint8)), kept.size, packed_intensities(intensities)), sifted


def sift_at_bob(
    record: DetectionRecord, message: Sifting, intensities: int, *, compiled: bool | None = None
) -> SiftedBits:
    """Return what Bob keeps; PeerMisbehaved if Alice's message does not fit his detections."""
    if kernels_available() if compiled is None else compiled:
        sifted = _sift_at_bob_compiled(record, message)
    else:
        kept = np.flatnonzero(unpacked(message.keep, record.bases.size))
        _check_kept(kept.size, message.kept)
        kept_intensities = unpacked_intensities(message.intensities, message.kept)
        sifted = split_by_basis(record.bases[kept], record.bits[kept], kept_intensities)
    if any(sifted.z_counts[intensities:]) or any(sifted.x_counts[intensities:]):
        sifted.wipe()
        raise PeerMisbehaved(f"intensity index beyond the {intensities} agreed")
    return sifted


def _sift_at_alice_compiled(record: EmissionRecord, message: Announcement) -> tuple[Sifting, SiftedBits]:
    from openqci.kernels import sifting as kernels

    number = message.detections
    check_packed(message.bases, number)
    deltas = announced_deltas(message)
    room = _Room(number)
    keep, planes = (np.zeros((rows, -(-number // 8)), dtype=np.uint8) for rows in (1, 2))
    if number:
        kernels.sift_at_alice(
            message.first_slot,
            deltas,
            SLOT_MAX,
            np.frombuffer(message.bases, dtype=np.uint8),
            record.slots,
            record.bases,
            record.bits,
            record.intensities,
            keep[0],
            planes,
            room.z_bits,
            room.z_intensities,
            room.x_bits,
            room.x_intensities,
            room.counts,
            room.totals,
        )
    fault = int(room.totals[kernels.FAULT])
    if fault != kernels.FAULT_NONE:
        room.z_bits[:] = room.x_bits[:] = 0
        raise PeerMisbehaved(
            {
                kernels.FAULT_ORDER: "announced slots do not rise strictly",
                kernels.FAULT_RANGE: "announced slots are out of range",
                kernels.FAULT_UNKNOWN: NOT_SENT,
            }[fault]
        )
    kept = int(room.totals[kernels.KEPT])
    plane_bytes = -(-kept // 8)
    low, high = (plane[:plane_bytes].tobytes() for plane in planes)
    return Sifting(keep.tobytes(), kept, (low, high)), room.sifted()


def _sift_at_bob_compiled(record: DetectionRecord, message: Sifting) -> SiftedBits:
    from openqci.kernels import sifting as kernels

    number = record.bases.size
    check_packed(message.keep, number)
    for plane in message.intensities:
        check_packed(plane, message.kept)
    room = _Room(number)
    kernels.sift_at_bob(
        record.bases,
        record.bits,
        np.frombuffer(message.keep, dtype=np.uint8),
        np.stack([np.frombuffer(plane, dtype=np.uint8) for plane in message.intensities]),
        message.kept,
        room.z_bits,
        room.z_intensities,
        room.x_bits,
        room.x_intensities,
        room.counts,
        room.totals,
    )
    sifted = room.sifted()
    try:
        _check_kept(int(room.totals[kernels.KEPT]), message.kept)
    except PeerMisbehaved:
        sifted.wipe()
        raise
    return sifted


class _Room:
    """Where a kernel writes what it keeps: at most every detection, and one place more."""

    def __init__(self, detections: int) -> None:
        self.z_bits, self.z_intensities, self.x_bits, self.x_intensities = (
            np.zeros(detections + 1, dtype=np.uint8) for _ in range(4)
        )
        self.counts = np.zeros((2, INTENSITIES_MAX), dtype=np.int64)
        self.totals = np.zeros(4, dtype=np.int64)

    def sifted(self) -> SiftedBits:
        from openqci.kernels.sifting import X, Z

        z, x = int(self.totals[Z]), int(self.totals[X])
        return SiftedBits(
            self.z_bits[:z],
            self.x_bits[:x],
            self.z_intensities[:z],
            self.x_intensities[:x],
            *(tuple(row) for row in self.counts.tolist()),
        )


def _check_kept(kept: int, announced: int) -> None:
    if kept != announced:
        raise PeerMisbehaved(f"keep mask does not have the {announced} bits set that were announced")


def emitted_at(record: EmissionRecord, slots: Slots) -> NDArray[np.int64] | None:
    """Return the indices of the announced slots in Alice's record; None if they are all of it, in order.

    Raises PeerMisbehaved for a slot in which she sent nothing.
    """
    if slots.size == record.slots.size and np.array_equal(slots, record.slots):
        return None
    if slots.size and not record.slots.size:
        raise PeerMisbehaved(NOT_SENT)
    places = np.searchsorted(record.slots, slots)
    np.minimum(places, max(0, record.slots.size - 1), out=places)
    if np.any(record.slots[places] != slots):
        raise PeerMisbehaved(NOT_SENT)
    return places


def split_by_basis(bases: Bits, bits: Bits, intensities: Bits) -> SiftedBits:
    """Return bits and intensities of each basis, in the order of detection; arrays of shape (n,)."""
    z, x = np.flatnonzero(bases == Z_BASIS), np.flatnonzero(bases == X_BASIS)
    z_intensities, x_intensities = intensities[z], intensities[x]
    counts = (np.bincount(each, minlength=INTENSITIES_MAX) for each in (z_intensities, x_intensities))
    return SiftedBits(
        bits[z], bits[x], z_intensities, x_intensities, *(tuple(each.tolist()) for each in counts)
    )


def count_by_intensity(intensities: Bits, number: int, of: Bits) -> Counts:
    """Return how many of the entries that are 1 in ``of`` each intensity has."""
    return tuple(np.bincount(intensities[np.flatnonzero(of)], minlength=number).tolist())
