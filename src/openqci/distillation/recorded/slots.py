"""Tags to detections: the slot of each, what the gate and the dead time leave of them, and who clicked.

Two passes, each with a compiled and a portable route that give the same bit for bit. Between them the tags
are put in the order of slots, which delays between channels may have upset.

*Gate.* A click counts if it is within half a gate of the middle of its slot, by one rule for all channels.

*Dead time.* A slot counts only if every detector could click in it: after any click, counted or not, the
slots of a dead time are removed for all detectors. A click that was itself removed removes others too, since
its detector was dead when the rest were not. Else which detectors are alive would tell the bit.

*Double clicks.* Two detectors of one basis in one slot give a random bit; detectors of both give a random
basis and bit. Both are drawn from ``entropy``, by the caller.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openqci.core.detections import Bits, Slots
from openqci.distillation.recorded.recordings import RecordedTags
from openqci.distillation.recorded.timemap import Floats, TimeMap
from openqci.kernels import kernels_available

INSIDE, EARLY, NO_CLICK = 4, 8, 128
"""What a state holds besides basis (2) and bit (1): inside the gate; before it, in its slot; a sync tag."""

CHANNELS = 256
BEFORE_ALL = -(1 << 62)
MOVES_PER_TAG_MAX = 16
"""Of putting tags in order by exchanging neighbours; beyond, a general sort is quicker."""

OUTSIDE_RUN, OUTSIDE_GATE, BLOCKED, DETECTIONS = range(4)
"""Places in the counts of :class:`Settled`: clicks of the first three kinds, and detections."""


@dataclass(frozen=True)
class Assigned:
    """Slot and state of every tag, sync tags included; both of shape (n,)."""

    slots: Slots
    states: Bits


@dataclass(frozen=True)
class Settled:
    """Detections, rising slots of shape (d,): ``clicked`` has bit ``2 basis + bit`` set for who clicked."""

    slots: Slots
    clicked: Bits
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class ChannelTables:
    """Delay and state of each channel number, shape (256,)."""

    delays_ps: NDArray[np.int64]
    codes: Bits


def channel_tables(tags: RecordedTags) -> ChannelTables:
    delays_ps = np.zeros(CHANNELS, dtype=np.int64)
    codes = np.full(CHANNELS, NO_CLICK, dtype=np.uint8)
    delays_ps[tags.sync.number] = tags.sync.delay_ps
    for detector in tags.detectors:
        delays_ps[detector.number] = detector.delay_ps
        codes[detector.number] = detector.basis << 1 | detector.bit
    return ChannelTables(delays_ps, codes)


def assign_slots(tags: RecordedTags, line: TimeMap, *, compiled: bool | None = None) -> Assigned:
    """Return the slot of every tag and whether it is inside the gate."""
    tables = channel_tables(tags)
    # By the time as recorded: a piece more or less for a delay makes no difference, the line has no steps.
    edges = np.concatenate([[0], np.searchsorted(tags.times_ps, line.times_ps[1:]), [tags.times_ps.size]])
    assigned = Assigned(np.empty(tags.times_ps.size, np.int64), np.empty(tags.times_ps.size, np.uint8))
    half_gate = tags.gate_width_ps / tags.slot_ps / 2
    arguments = (
        tags.times_ps,
        tags.channels,
        edges.astype(np.int64),
        line.times_ps,
        line.slots,
        line.fractions,
        line.rates,
        tables.delays_ps,
        tables.codes,
        half_gate,
        assigned.slots,
        assigned.states,
    )
    if kernels_available() if compiled is None else compiled:
        from openqci.kernels import time_tags

        time_tags.assign_slots(*arguments)
    else:
        _assign_portable(*arguments)
    return assigned


def settle(assigned: Assigned, dead_slots: int, pulses: int, *, compiled: bool | None = None) -> Settled:
    """Return the detections of a run of ``pulses`` slots; may put the tags in order of slots, in place."""
    if kernels_available() if compiled is None else compiled:
        return _settle_compiled(assigned, dead_slots, pulses)
    return _settle_portable(assigned, dead_slots, pulses)


def _assign_portable(
    times_ps: NDArray[np.int64],
    channels: Bits,
    edges: NDArray[np.int64],
    knots_ps: NDArray[np.int64],
    knot_slots: Slots,
    fractions: Floats,
    rates: Floats,
    delays_ps: NDArray[np.int64],
    codes: Bits,
    half_gate: float,
    slots: Slots,
    states: Bits,
) -> None:
    for piece in range(knots_ps.size):
        part = slice(edges[piece], edges[piece + 1])
        since = times_ps[part] - delays_ps[channels[part]] - knots_ps[piece]
        places = since.astype(np.float64) * rates[piece] + fractions[piece]
        whole = np.floor(places + 0.5)
        off = places - whole
        slots[part] = knot_slots[piece] + whole.astype(np.int64)
        early = off < -half_gate
        inside = ~early & (off <= half_gate)
        states[part] = codes[channels[part]] | inside * np.uint8(INSIDE) | early * np.uint8(EARLY)


def _settle_compiled(assigned: Assigned, dead_slots: int, pulses: int) -> Settled:
    from openqci.kernels import time_tags

    slots, states = assigned.slots, assigned.states
    if not time_tags.put_in_order(slots, states, MOVES_PER_TAG_MAX * slots.size):
        order = np.argsort(slots, kind="stable")
        slots, states = slots[order], states[order]
    settled = Settled(np.empty_like(slots), np.empty_like(states), np.zeros(4, dtype=np.int64))
    time_tags.settle(slots, states, dead_slots, pulses, settled.slots, settled.clicked, settled.counts)
    number = int(settled.counts[DETECTIONS])
    states[:] = 0
    return Settled(settled.slots[:number].copy(), settled.clicked[:number].copy(), settled.counts)


def _settle_portable(assigned: Assigned, dead_slots: int, pulses: int) -> Settled:
    clicks = np.flatnonzero(assigned.states < NO_CLICK)
    slots, states = assigned.slots[clicks], assigned.states[clicks]
    if np.any(slots[1:] < slots[:-1]):
        order = np.argsort(slots, kind="stable")
        slots, states = slots[order], states[order]
    counts = np.zeros(4, dtype=np.int64)
    if not slots.size:
        return Settled(slots, states, counts)
    first = np.flatnonzero(np.concatenate([[True], slots[1:] != slots[:-1]]))
    within = np.bitwise_and(states, INSIDE) != 0
    clicked = np.bitwise_or.reduceat(np.where(within, 1 << (states & 3), 0).astype(np.uint8), first)
    early = np.bitwise_or.reduceat(states & EARLY, first) != 0
    inside = np.add.reduceat(within.astype(np.int64), first)
    together = np.diff(np.append(first, slots.size))
    here = slots[first]
    blocked = np.diff(here, prepend=BEFORE_ALL) <= dead_slots
    if dead_slots:
        blocked |= early
    sent = (here >= 0) & (here < pulses)
    counts[OUTSIDE_RUN] = together[~sent].sum()
    counts[OUTSIDE_GATE] = (together - inside)[sent].sum()
    counts[BLOCKED] = inside[sent & blocked].sum()
    seen = np.flatnonzero(sent & ~blocked & (inside > 0))
    counts[DETECTIONS] = seen.size
    return Settled(here[seen], clicked[seen], counts)
