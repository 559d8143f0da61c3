"""Time tags to detections: what a receiver does with every click, in one pass.

Tags go through a room that stays in the processor's cache: slots are assigned, put in order, and what no
later tag can change is settled. The arithmetic of :func:`assign` is done in the order in which it stands,
product before sum, so that NumPy gives the same floating-point numbers. What the states mean, and the
portable route with the same results, is in :mod:`openqci.distillation.recorded.slots`.
"""

from typing import Any

import numpy as np

from openqci.kernels.compiling import kernel

NO_CLICK = np.uint64(128)
OUTSIDE_RUN, OUTSIDE_GATE, BLOCKED, DETECTIONS, DOUBLES, PREVIOUS = 0, 1, 2, 3, 4, 5
"""Places in ``totals``; the last is the slot of the click before, at first far below all."""

MOVES_PER_TAG_MAX = 64
BASE_OF_CODE = 8
"""An entry of the table of channels: the delay in ps above these binary digits, the code in them."""


@kernel
def assign(
    times_ps: Any,
    channels: Any,
    knot_ps: Any,
    knot_slot: Any,
    fraction: Any,
    rate: Any,
    table: Any,
    half_gate: Any,
    slots: Any,
    states: Any,
) -> None:
    """Write slot and state of n tags that belong to one piece of the line; arrays of shape (n,).

    Index and shapes are such that this loop becomes vector code.
    """
    for index in range(np.uint64(times_ps.size)):
        entry = table[channels[index]]
        place = np.float64(times_ps[index] - (entry >> BASE_OF_CODE) - knot_ps) * rate + fraction
        whole = np.floor(place + 0.5)
        off = place - whole
        slots[index] = knot_slot + np.int64(whole)
        inside = np.uint8(np.uint8(abs(off) <= half_gate) << np.uint8(2))
        early = np.uint8(np.uint8(off < -half_gate) << np.uint8(3))
        states[index] = np.uint8(entry) | inside | early


@kernel
def put_in_order(slots: Any, states: Any, size: int) -> bool:
    """Sort the first tags by slot by exchanging neighbours; False if that takes too long.

    Tags are as good as sorted, but for delays.
    """
    moves = 0
    for index in range(1, size):
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
    return moves <= MOVES_PER_TAG_MAX * size


@kernel
def settle(
    slots: Any,
    states: Any,
    size: int,
    end_slot: Any,
    dead_slots: int,
    pulses: int,
    outcomes: Any,
    out_slots: Any,
    out_bases: Any,
    out_bits: Any,
    out_doubles: Any,
    totals: Any,
) -> Any:
    """Append the detections of ordered tags in slots below ``end_slot``; return how many tags that were.

    ``outcomes`` (16,) is twice the basis and the bit by who clicked, basis 2 where that was in both. Places
    are numbers without sign: a negative one would be looked at as from the end, at a cost for each.
    """
    one = np.uint64(1)
    previous = totals[PREVIOUS]
    detections, doubles = np.uint64(totals[DETECTIONS]), np.uint64(totals[DOUBLES])
    outside_run = outside_gate = blocked = np.int64(0)
    stop = np.uint64(np.searchsorted(slots[:size], end_slot))
    index = np.uint64(0)
    while index < stop:
        slot, state = slots[index], np.uint64(states[index])
        index += one
        if state >= NO_CLICK:
            continue
        inside = (state >> np.uint64(2)) & one
        clicked = inside << (state & np.uint64(3))
        early = (state >> np.uint64(3)) & one
        together = one
        while index < stop and slots[index] == slot:
            state = np.uint64(states[index])
            index += one
            if state < NO_CLICK:
                within = (state >> np.uint64(2)) & one
                clicked |= within << (state & np.uint64(3))
                early |= (state >> np.uint64(3)) & one
                inside += within
                together += one
        since = slot - previous
        previous = slot
        if slot < 0 or slot >= pulses:
            outside_run += np.int64(together)
            continue
        outside_gate += np.int64(together - inside)
        if since <= dead_slots or (dead_slots > 0 and early != 0):
            blocked += np.int64(inside)
            continue
        # Written to the next place in any case, which moves on only for a detection.
        outcome = outcomes[clicked]
        out_slots[detections] = slot
        out_bases[detections] = outcome >> np.uint8(1)
        out_bits[detections] = outcome & np.uint8(1)
        if clicked & (clicked - one):
            out_doubles[doubles] = detections
            doubles += one
        detections += np.uint64(clicked != 0)
    totals[PREVIOUS] = previous
    totals[DETECTIONS], totals[DOUBLES] = detections, doubles
    totals[OUTSIDE_RUN] += outside_run
    totals[OUTSIDE_GATE] += outside_gate
    totals[BLOCKED] += blocked
    return stop


@kernel
def detect(
    times_ps: Any,
    channels: Any,
    edges: Any,
    knots_ps: Any,
    knot_slots: Any,
    fractions: Any,
    rates: Any,
    table: Any,
    half_gate: float,
    margin_slots: int,
    dead_slots: int,
    pulses: int,
    outcomes: Any,
    slots: Any,
    states: Any,
    out_slots: Any,
    out_bases: Any,
    out_bits: Any,
    out_doubles: Any,
    totals: Any,
) -> bool:
    """Write the detections of n tags; False, and nothing of use, if delays upset their order too much.

    Piece j of the line serves the tags from ``edges[j]`` on. ``slots`` and ``states`` are the room; no tag
    comes in a slot more than ``margin_slots`` below that of one recorded before. ``totals`` (6,) is zero
    before but for the last; ``out_`` have room for n + 1.
    """
    held: Any = 0
    position, piece = 0, 0
    tags = times_ps.size
    while position < tags:
        filled, last = held, position
        while filled < slots.size and position < tags:
            while edges[piece + 1] <= position:
                piece += 1
            number = min(slots.size - filled, edges[piece + 1] - position)
            assign(
                times_ps[position : position + number],
                channels[position : position + number],
                knots_ps[piece],
                knot_slots[piece],
                fractions[piece],
                rates[piece],
                table,
                half_gate,
                slots[filled : filled + number],
                states[filled : filled + number],
            )
            filled += number
            position += number
        if position == last:
            return False
        end_slot = np.int64(1 << 62)
        if position < tags:
            end_slot = slots[filled - 1] - margin_slots
        if not put_in_order(slots, states, filled):
            return False
        done = settle(
            slots,
            states,
            filled,
            end_slot,
            dead_slots,
            pulses,
            outcomes,
            out_slots,
            out_bases,
            out_bits,
            out_doubles,
            totals,
        )
        held = filled - np.int64(done)
        for index in range(held):
            slots[index] = slots[done + index]
            states[index] = states[done + index]
    return True
