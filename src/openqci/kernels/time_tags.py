"""Time tags to slots, and slots to detections: what a receiver does with every click.

The arithmetic of :func:`assign_slots` is done in the order in which it stands, product before sum, so that
NumPy gives the same floating-point numbers. What it waits for is memory: nine bytes in and nine out for each
tag. What the states mean is in :mod:`openqci.distillation.recorded.slots`.
"""

from typing import Any

import numpy as np

from openqci.kernels.compiling import kernel

INSIDE, EARLY, NO_CLICK = np.uint8(4), np.uint8(8), np.uint8(128)
OUTSIDE_RUN, OUTSIDE_GATE, BLOCKED, DETECTIONS = 0, 1, 2, 3


@kernel
def assign_slots(
    times_ps: Any,
    channels: Any,
    edges: Any,
    knots_ps: Any,
    knot_slots: Any,
    fractions: Any,
    rates: Any,
    delays_ps: Any,
    codes: Any,
    half_gate: float,
    slots: Any,
    states: Any,
) -> None:
    """Write slot and state of n tags; piece j of the line serves the tags from ``edges[j]`` on.

    ``times_ps``, ``channels``, ``slots``, ``states`` have shape (n,), the line's arrays (m,), ``edges``
    (m + 1,), the tables of the channels (256,).
    """
    for piece in range(knots_ps.size):
        knot, first, fraction, rate = knots_ps[piece], knot_slots[piece], fractions[piece], rates[piece]
        for index in range(edges[piece], edges[piece + 1]):
            channel = channels[index]
            place = np.float64(times_ps[index] - delays_ps[channel] - knot) * rate + fraction
            whole = np.floor(place + 0.5)
            off = place - whole
            slots[index] = first + np.int64(whole)
            early = off < -half_gate
            inside = (not early) & (off <= half_gate)
            states[index] = codes[channel] | np.uint8(inside) * INSIDE | np.uint8(early) * EARLY


@kernel
def put_in_order(slots: Any, states: Any, moves_max: int) -> bool:
    """Sort tags by slot, equal ones as they came, by exchanging neighbours; False if that takes too long.

    Tags are then as good as sorted, but for delays; what is left half sorted still holds every tag once.
    """
    moves = 0
    for index in range(1, slots.size):
        slot = slots[index]
        if slot >= slots[index - 1]:
            continue
        state = states[index]
        place = index
        while place > 0 and slots[place - 1] > slot:
            slots[place] = slots[place - 1]
            states[place] = states[place - 1]
            place -= 1
        slots[place] = slot
        states[place] = state
        moves += index - place
        if moves > moves_max:
            return False
    return True


@kernel
def settle(
    slots: Any, states: Any, dead_slots: int, pulses: int, out_slots: Any, out_clicked: Any, counts: Any
) -> None:
    """Write the detections of n tags in order of slots; ``counts`` (4,) is zero before."""
    previous = np.int64(-(1 << 62))
    detections = 0
    index = 0
    while index < slots.size:
        if states[index] >= NO_CLICK:
            index += 1
            continue
        slot = slots[index]
        clicked, before = np.uint8(0), np.uint8(0)
        inside = together = 0
        while index < slots.size and slots[index] == slot:
            state = states[index]
            index += 1
            if state >= NO_CLICK:
                continue
            within = (state & INSIDE) >> np.uint8(2)
            clicked |= within << (state & np.uint8(3))
            before |= state & EARLY
            inside += within
            together += 1
        blocked = slot - previous <= dead_slots or (dead_slots > 0 and before != 0)
        previous = slot
        if slot < 0 or slot >= pulses:
            counts[OUTSIDE_RUN] += together
            continue
        counts[OUTSIDE_GATE] += together - inside
        if blocked:
            counts[BLOCKED] += inside
        elif inside:
            out_slots[detections] = slot
            out_clicked[detections] = clicked
            detections += 1
    counts[DETECTIONS] = detections
