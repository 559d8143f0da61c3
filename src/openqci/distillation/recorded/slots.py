"""Tags to detections: the slot of each, what the gate and the dead time leave of them, and who clicked.

A compiled and a portable route give the same bit for bit.

*Gate.* A click counts if it is within half a gate of the middle of its slot, by one rule for all channels.

*Dead time.* A slot counts only if every detector could click in it: after any click, counted or not, the
slots of a dead time are removed for all detectors. A click that was itself removed removes others too, since
its detector was dead when the rest were not. Else which detectors are alive would tell the bit.

*Double clicks.* Clicks for both bits of a basis, or in both bases, are marked; their outcome is drawn by the
caller.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openqci.core.detections import Bits, Slots
from openqci.distillation.recorded.recordings import RecordedTags
from openqci.distillation.recorded.timemap import RATE_MAX, TimeMap
from openqci.kernels import kernels_available

INSIDE, EARLY, NO_CLICK = 4, 8, 128
"""What a state holds besides basis (2) and bit (1): inside the gate; before it, in its slot; a sync tag."""

CHANNELS = 256
BEFORE_ALL = -(1 << 62)

OUTSIDE_RUN, OUTSIDE_GATE, BLOCKED = range(3)
"""Places in the counts of :class:`Settled`."""

IN_BOTH_BASES = 2

ROOM_TAGS = 1 << 12
"""Tags that the compiled route has in hand: they stay in the cache. Delays of a channel that reach over more
tags than this take the portable route, by a general sort."""

CLICKED = np.arange(16)
OUTCOMES = np.stack(
    [
        np.where(CLICKED < 4, 0, np.where(CLICKED % 4 == 0, 1, IN_BOTH_BASES)),
        np.isin(CLICKED, [0b0010, 0b1000]),
    ]
).astype(np.uint8)
"""Basis and bit by who clicked, a set in four binary digits: number ``2 basis + bit``."""


@dataclass(frozen=True)
class Settled:
    """Detections, shape (d,) by rising slots; which of them are double clicks; and counts of lost clicks.

    Basis and bit of a double click are not to be used: ``IN_BOTH_BASES`` is said instead of a basis.
    """

    slots: Slots
    bases: Bits
    bits: Bits
    doubles: NDArray[np.int64]
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


def settle(tags: RecordedTags, line: TimeMap, *, compiled: bool | None = None) -> Settled:
    """Return the detections of tags whose slots a line tells."""
    # By the time as recorded: a piece more or less for a delay makes no difference, the line has no steps.
    edges = np.concatenate([[0], np.searchsorted(tags.times_ps, line.times_ps[1:]), [tags.times_ps.size]])
    found = None
    if kernels_available() if compiled is None else compiled:
        found = _settle_compiled(tags, line, edges)
    return found or _settle_portable(tags, line, edges)


def dead_slots(tags: RecordedTags) -> int:
    """Return after a click in how many slots a detector may be dead for a part of the gate."""
    return math.ceil(tags.dead_time_ps / tags.slot_ps - 1e-6)


def half_gate(tags: RecordedTags) -> float:
    """Return half the gate in slots."""
    return tags.gate_width_ps / tags.slot_ps / 2


def _settle_compiled(tags: RecordedTags, line: TimeMap, edges: NDArray[np.int64]) -> Settled | None:
    """Return None where delays upset the order of tags too much."""
    from openqci.kernels import time_tags

    tables = channel_tables(tags)
    delays_ps = [tags.sync.delay_ps, *(detector.delay_ps for detector in tags.detectors)]
    margin_slots = math.ceil((max(delays_ps) - min(delays_ps)) / tags.slot_ps * RATE_MAX) + 2
    room = np.empty(ROOM_TAGS, dtype=np.int64), np.empty(ROOM_TAGS, dtype=np.uint8)
    # Memory that is not written to is not taken from the machine.
    size = tags.times_ps.size + 1
    slots, doubles = np.empty(size, dtype=np.int64), np.empty(size, dtype=np.int64)
    bases, bits = np.empty(size, dtype=np.uint8), np.empty(size, dtype=np.uint8)
    totals = np.zeros(6, dtype=np.int64)
    totals[time_tags.PREVIOUS] = BEFORE_ALL
    in_order = time_tags.detect(
        tags.times_ps,
        tags.channels,
        edges,
        line.times_ps,
        line.slots,
        line.fractions,
        line.rates,
        tables.delays_ps << time_tags.BASE_OF_CODE | tables.codes,
        half_gate(tags),
        margin_slots,
        dead_slots(tags),
        tags.pulses,
        OUTCOMES[0] << 1 | OUTCOMES[1],
        *room,
        slots,
        bases,
        bits,
        doubles,
        totals,
    )
    room[1][:] = 0
    number, drawn = int(totals[time_tags.DETECTIONS]), int(totals[time_tags.DOUBLES])
    if not in_order:
        bits[: number + 1] = 0
        return None
    bits[number] = 0
    return Settled(slots[:number], bases[:number], bits[:number], doubles[:drawn].copy(), totals[:3])


def _settle_portable(tags: RecordedTags, line: TimeMap, edges: NDArray[np.int64]) -> Settled:
    slots, states = _assigned(tags, line, edges)
    counts = np.zeros(3, dtype=np.int64)
    if not slots.size:
        return Settled(slots, states, states.copy(), slots.copy(), counts)
    first = np.flatnonzero(np.concatenate([[True], slots[1:] != slots[:-1]]))
    within = states & INSIDE != 0
    clicked = np.bitwise_or.reduceat(np.where(within, 1 << (states & 3), 0).astype(np.uint8), first)
    early = np.bitwise_or.reduceat(states & EARLY, first) != 0
    inside = np.add.reduceat(within.astype(np.int64), first)
    together = np.diff(np.append(first, slots.size))
    here = slots[first]
    dead = dead_slots(tags)
    blocked = np.diff(here, prepend=BEFORE_ALL) <= dead
    if dead:
        blocked |= early
    sent = (here >= 0) & (here < tags.pulses)
    counts[OUTSIDE_RUN] = together[~sent].sum()
    counts[OUTSIDE_GATE] = (together - inside)[sent].sum()
    counts[BLOCKED] = inside[sent & blocked].sum()
    seen = np.flatnonzero(sent & ~blocked & (clicked > 0))
    clicked = clicked[seen]
    doubles = np.flatnonzero(clicked & (clicked - np.uint8(1)))
    settled = Settled(here[seen], OUTCOMES[0][clicked], OUTCOMES[1][clicked], doubles, counts)
    states[:] = clicked[:] = 0
    return settled


def _assigned(tags: RecordedTags, line: TimeMap, edges: NDArray[np.int64]) -> tuple[Slots, Bits]:
    """Return slots and states of all clicks, in the order of slots."""
    tables, gate = channel_tables(tags), half_gate(tags)
    slots = np.empty(tags.times_ps.size, dtype=np.int64)
    states = np.empty(tags.times_ps.size, dtype=np.uint8)
    for piece in range(line.times_ps.size):
        part = slice(edges[piece], edges[piece + 1])
        channels = tags.channels[part]
        since = tags.times_ps[part] - tables.delays_ps[channels] - line.times_ps[piece]
        places = since.astype(np.float64) * line.rates[piece] + line.fractions[piece]
        whole = np.floor(places + 0.5)
        off = places - whole
        slots[part] = line.slots[piece] + whole.astype(np.int64)
        inside = (np.abs(off) <= gate) * np.uint8(INSIDE)
        states[part] = tables.codes[channels] | inside | (off < -gate) * np.uint8(EARLY)
    clicks = np.flatnonzero(states < NO_CLICK)
    slots, states = slots[clicks], states[clicks]
    if np.any(slots[1:] < slots[:-1]):
        order = np.argsort(slots, kind="stable")
        slots, states = slots[order], states[order]
    return slots, states
