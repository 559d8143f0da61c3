"""Where in their slots the photons arrive, and how that drifts: from the times of arrival alone.

The quantum channel and the sync pulses go different ways, whose lengths differ and change. The sync pulses
give slots up to a phase, and the photons give the phase: the mean direction of their times on a circle of one
slot, all channels together. Nothing here sees a bit, so what the gate lets pass cannot depend on one by this.

The phase of the first clicks is taken as less than half a slot either way; from there on it is followed, over
as many slots as it may wander. A path that begins more than half a slot off is a slot off from then on, which
the error rate shows.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openqci.core.errors import ConfigurationError, Fault
from openqci.distillation.recorded.timemap import Floats, TimeMap, Times, map_through

CLICKS_MIN = 32
CLICKS_PER_BIN = 1024
BINS_MAX = 1024

SIGNIFICANCE = 16.0
"""Of the clicks of a bin times the square of their visibility: evenly spread clicks reach it once in 10^7."""

STEP_MAX = 0.25
"""Slots by which the phase may change from bin to bin; at half a slot its direction would be a guess."""


@dataclass(frozen=True)
class PhaseTrack:
    """The phase in slots at rising times, both of shape (b,): positive where photons come late."""

    times_ps: Times
    phases: Floats

    def at(self, times_ps: Times) -> Floats:
        """Return the phase at times; beyond the first and last it stays what it was."""
        since = (times_ps - self.times_ps[0]).astype(np.float64)
        knots = (self.times_ps - self.times_ps[0]).astype(np.float64)
        phases: Floats = np.interp(since, knots, self.phases)
        return phases

    @property
    def drift(self) -> float:
        """From the first to the last, in slots."""
        return float(self.phases[-1] - self.phases[0])


def track_phase(clock: TimeMap, times_ps: Times) -> PhaseTrack:
    """Return the phase of clicks at ``times_ps``, shape (n,), in order but for delays.

    Raises
    ------
    ConfigurationError
        Too few clicks; clicks in most bins that prefer no part of the slot; a phase that jumps.
    """
    if times_ps.size < CLICKS_MIN:
        raise no_phase(f"{times_ps.size} clicks were given; expected at least {CLICKS_MIN}")
    turns = np.exp(2j * np.pi * clock(times_ps)[1])
    bins = max(1, times_ps.size // CLICKS_PER_BIN)
    edges = np.linspace(0, times_ps.size, bins + 1).astype(np.intp)
    starts, sizes = edges[:-1], np.diff(edges)
    sums = np.add.reduceat(turns, starts)
    visibilities = np.abs(sums) / sizes
    clear = np.flatnonzero(sizes * visibilities**2 >= SIGNIFICANCE)
    if 2 * clear.size < bins:
        worst = float(visibilities.min())
        raise no_phase(
            f"in {bins - clear.size} of {bins} parts of the run clicks come evenly over the slot (visibility "
            f"down to {worst:.3f}); check the light, clock_rate_hz and jitter"
        )
    phases = np.angle(sums[clear]) / (2 * np.pi)
    steps = np.diff(phases)
    steps -= np.rint(steps)
    middles = mean_times(times_ps, starts, sizes)[clear]
    if np.any(np.abs(steps) > STEP_MAX):
        worst_step = int(np.argmax(np.abs(steps)))
        raise no_phase(
            f"it jumps by {steps[worst_step]:+.2f} slots about {middles[worst_step]} ps; expected at most "
            f"{STEP_MAX:g} from one part of the run to the next"
        )
    phases = np.concatenate([phases[:1], phases[0] + np.cumsum(steps)])
    rising = np.flatnonzero(np.diff(middles, prepend=middles[0] - 1))  # clicks may pile up in one picosecond
    return with_ends(PhaseTrack(middles[rising], phases[rising]), int(times_ps[0]), int(times_ps[-1]))


def corrected(clock: TimeMap, track: PhaseTrack, slot_ps: float) -> TimeMap:
    """Return the map from times to slots with the phase taken off: knots where either has one.

    Raises
    ------
    ConfigurationError
        If slots would go by much faster or slower than the clocks.
    """
    times_ps = np.unique(np.concatenate([clock.times_ps, track.times_ps]))
    slots, fractions = clock(times_ps)
    line = map_through(times_ps, slots, fractions - track.at(times_ps), float(clock.rates[0]))
    if not line.is_even(slot_ps):
        raise no_phase("with it the clocks would not go evenly; check jitter of sync pulses and light")
    return line


def mean_times(times_ps: Times, starts: NDArray[np.intp], sizes: NDArray[np.intp]) -> Times:
    """Return the mean time of each bin, rounded; made not to fall where long delays have mixed bins."""
    since = (times_ps - np.repeat(times_ps[starts], sizes)).astype(np.float64)
    means = times_ps[starts] + np.rint(np.add.reduceat(since, starts) / sizes).astype(np.int64)
    return np.maximum.accumulate(means)


def with_ends(track: PhaseTrack, first_ps: int, last_ps: int) -> PhaseTrack:
    """Return the track led on to the first and the last click, along its first and last piece."""
    times, phases = track.times_ps, track.phases
    if times.size < 2 or not first_ps < times[0] or not times[-1] < last_ps:
        return track
    head, tail = (
        phases[at] + (phases[by] - phases[at]) * (end - float(times[at])) / float(times[by] - times[at])
        for end, at, by in ((float(first_ps), 0, 1), (float(last_ps), -1, -2))
    )
    return PhaseTrack(
        np.concatenate([[first_ps], times, [last_ps]]).astype(np.int64),
        np.concatenate([[head], phases, [tail]]),
    )


def no_phase(message: str) -> ConfigurationError:
    return ConfigurationError(
        Fault("tags", "times_ps", f"the phase of arrivals cannot be tracked: {message}")
    )
