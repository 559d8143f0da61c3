"""The Monte Carlo of a link: draw detections, not pulses.

Clicks of a live receiver are a Bernoulli process, so the number of silent gates before a click is
geometric; what kind of click it is does not depend on when it came. Both are drawn for many detections at
once. A block that takes a minute of a long link, 6e10 pulses, so costs what its few million detections cost.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openqci.core.detections import Bits, DetectionRecord, EmissionRecord, Slots
from openqci.core.errors import OutsideModel
from openqci.quantum.elements import Floats
from openqci.quantum.link import QuantumLink, class_probabilities

CHUNK = 1 << 14
"""Detections drawn at once: their arrays stay in the processor's cache."""

CELLS = 1 << 16
"""Cells of the table that turns a uniform number into a class of detection."""

UNDECIDED = 0x80
"""Marks a cell that holds the border of two classes; a class has seven bits and never this one."""


ALIVE_MIN = 1e-3
"""Clicks of a paralysable detector that are seen; drawing costs this much more for each."""

PULSES_MAX = 1e15
"""Eleven days at 1 GHz; slots then stay exact in the floating-point numbers they are drawn from."""


@dataclass(frozen=True)
class Exchange:
    """What a session over the quantum link leaves: one record at each end, and how long it took.

    ``emissions`` is for Alice alone and ``detections`` for Bob alone. Alice's record has the pulses that Bob
    saw and no others, in the same slots: he may not ask for a pulse that he did not see.
    """

    emissions: EmissionRecord
    detections: DetectionRecord
    duration_s: float


def exchange(link: QuantumLink, detections: int, rng: np.random.Generator) -> Exchange:
    """Run the link until Bob has a given number of detections.

    Parameters
    ----------
    link : QuantumLink
    detections : int
        Zero or more; double clicks count as one.
    rng : numpy.random.Generator
        SFC64 or PCG64DXSM. Equal states give equal records, byte for byte.

    Returns
    -------
    Exchange
        Arrays of shape (detections,).

    Raises
    ------
    OutsideModel
        If ``detections`` is negative, or more than the link gives in ``PULSES_MAX`` pulses.
    """
    table = class_probabilities(link)
    click_probability = float(table.sum())
    if not 0 <= detections <= PULSES_MAX * click_probability:
        raise OutsideModel("detections", detections, f"zero or more, from at most {PULSES_MAX:g} pulses")
    draw = draw_paralysed_slots if link.receiver.dead_time_model == "paralysable" else draw_slots
    slots = draw(click_probability, link.dead_slots, detections, rng)
    kinds = draw_kinds(table.ravel(), detections, rng)
    pulses = int(slots[-1]) + 1 if detections else 0
    return Exchange(
        emissions_of(slots, kinds, pulses),
        detections_of(slots, kinds),
        duration_s=pulses / link.source.clock_rate_hz,
    )


def draw_slots(click_probability: float, dead_slots: int, count: int, rng: np.random.Generator) -> Slots:
    """Return the slots of ``count`` clicks, strictly rising, more than ``dead_slots`` apart.

    An exponential number divided by ``-ln(1 - p)`` and rounded down is geometric exactly.
    """
    slots = np.empty(count, dtype=np.int64)
    scale = -1 / math.log1p(-click_probability)
    step = dead_slots + 1
    before = -step
    for start in range(0, count, CHUNK):
        part = slots[start : start + CHUNK]
        silence = rng.standard_exponential(len(part))
        silence *= scale
        part[:] = silence  # rounds down
        part += step
        np.cumsum(part, out=part)
        part += before
        before = int(part[-1])
    return slots


def draw_paralysed_slots(
    click_probability: float, dead_slots: int, count: int, rng: np.random.Generator
) -> Slots:
    """Return the slots of ``count`` clicks of a detector whose dead time every click starts anew.

    Draws what a detector without dead time would see and keeps the clicks after ``dead_slots`` of silence.

    Raises
    ------
    OutsideModel
        If the detector is so paralysed that fewer than ``ALIVE_MIN`` of these clicks are seen.
    """
    alive = math.exp(dead_slots * math.log1p(-click_probability)) if click_probability < 1 else 0.0
    if dead_slots and alive < ALIVE_MIN:
        expected = f"a dead time that at least {ALIVE_MIN:g} of the clicks outlive"
        raise OutsideModel("dead_time_s", f"{dead_slots} gates", expected)
    parts: list[Slots] = [np.empty(0, dtype=np.int64)]
    before, missing = -dead_slots - 1, count  # live at the start
    while missing > 0:
        candidates = draw_slots(click_probability, 0, min(CHUNK, int(missing / alive) + 64), rng)
        candidates += before + 1 if before >= 0 else 0
        silences = np.diff(candidates, prepend=before)
        parts.append(candidates[silences > dead_slots][:missing])
        missing -= len(parts[-1])
        before = int(candidates[-1])
    return np.concatenate(parts)


def draw_kinds(probabilities: Floats, count: int, rng: np.random.Generator) -> Bits:
    """Return ``count`` independent indices into ``probabilities`` (any positive sum), as uint8.

    Inversion of the cumulative distribution: a table answers at once for all uniform numbers but those in
    a cell with a border inside, about one in a thousand, for which the search is done. Nothing is rounded.
    """
    cumulative = np.cumsum(probabilities)
    cumulative /= cumulative[-1]
    cumulative[np.flatnonzero(probabilities)[-1] :] = 1.0
    cells = cell_kinds(cumulative)
    kinds = np.empty(count, dtype=np.uint8)
    for start in range(0, count, CHUNK):
        part = kinds[start : start + CHUNK]
        uniform = rng.random(len(part))
        np.take(cells, (uniform * CELLS).astype(np.intp), out=part, mode="clip")
        undecided = np.flatnonzero(part == UNDECIDED)
        part[undecided] = np.searchsorted(cumulative, uniform[undecided], side="right")
    return kinds


def cell_kinds(cumulative: Floats) -> Bits:
    """Return, for each of CELLS equal parts of [0, 1), the index it stands for, or UNDECIDED."""
    edges = np.arange(CELLS + 1) / CELLS
    first = np.searchsorted(cumulative, edges[:-1], side="right")
    last = np.searchsorted(cumulative, np.nextafter(edges[1:], 0.0), side="right")
    return np.where(first == last, first, UNDECIDED).astype(np.uint8)


def emissions_of(slots: Slots, kinds: Bits, pulses: int) -> EmissionRecord:
    """Return Alice's part of the detections: her basis, bit and intensity."""
    return EmissionRecord(
        slots=slots,
        bases=bit_of(kinds, 2),
        bits=bit_of(kinds, 0),
        intensities=kinds >> np.uint8(5),
        pulses=pulses,
    )


def detections_of(slots: Slots, kinds: Bits) -> DetectionRecord:
    """Return Bob's part of the detections: his basis and bit, and how many were double clicks."""
    return DetectionRecord(
        slots=slots.copy(),
        bases=bit_of(kinds, 3),
        bits=bit_of(kinds, 1),
        double_clicks=int(np.count_nonzero(bit_of(kinds, 4))),
    )


def bit_of(kinds: NDArray[np.uint8], place: int) -> Bits:
    """Return one binary digit of the index into the table of ``class_probabilities``."""
    return (kinds >> np.uint8(place)) & np.uint8(1)
