"""From Bob's tags to Bob's record of detections: clock, phase, slots, gate, dead time, double clicks."""

import math

import msgspec
import numpy as np

from openqci.core.detections import Bits, DetectionRecord
from openqci.core.errors import invariant
from openqci.distillation.end import Entropy
from openqci.distillation.recorded.clock import fit_clock
from openqci.distillation.recorded.phase import BINS_MAX, CLICKS_PER_BIN, corrected, track_phase
from openqci.distillation.recorded.recordings import RecordedTags
from openqci.distillation.recorded.slots import (
    BLOCKED,
    IN_BOTH_BASES,
    OUTSIDE_GATE,
    OUTSIDE_RUN,
    Settled,
    channel_tables,
    settle,
)
from openqci.distillation.recorded.timemap import TimeMap

SAMPLE_MAX = BINS_MAX * CLICKS_PER_BIN
"""Clicks by which the phase is tracked; of a longer recording every so many, evenly over the run."""

ARRIVALS_MAX = 1 << 16
"""Clicks by which jitter and channels are judged, for the report alone."""


class SynchronisationReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of every tag, and what was found of clocks and path. No key material.

    The account balances (:meth:`balances`): tags = sync tags found and spurious + clicks, and clicks = those
    outside the run, outside the gate and blocked + merged clicks + detections.

    Attributes
    ----------
    sync_expected, sync_found, sync_missing, sync_spurious : int
        Sync pulses sent in the run, tags taken for one, pulses without a tag, tags without a pulse.
    clock_offset_ppm : float
        Mean over the run; positive where Bob's clock is the faster one.
    sync_jitter_ps, arrival_jitter_ps : float
        Standard deviations of sync tags, and of clicks, about what was fitted to them. The second is that of
        a Gaussian with the same visibility in the slot, background light included.
    phase_ps, drift_ps : float
        By how much photons came later than their slots at the start of the run, and its change to the end.
    channel_offsets_ps : dict of int to float
        Mean arrival of each channel against all. A channel that is off by a good part of the gate is cut
        differently than the others: set its delay, or an attacker can steer which bit is seen.
    outside_run, outside_gate, blocked_by_dead_time : int
        Clicks, in the order in which they are looked for.
    merged_clicks : int
        Clicks beyond the first in the slot of a detection.
    double_clicks : int
        Detections with clicks for two bits or two bases.
    """

    tags: int
    sync_expected: int
    sync_found: int
    sync_missing: int
    sync_spurious: int
    clock_offset_ppm: float
    sync_jitter_ps: float
    phase_ps: float
    drift_ps: float
    arrival_jitter_ps: float
    channel_offsets_ps: dict[int, float]
    clicks: int
    outside_run: int
    outside_gate: int
    blocked_by_dead_time: int
    merged_clicks: int
    double_clicks: int
    detections: int

    def balances(self) -> bool:
        """Return whether every tag is accounted for."""
        lost = self.outside_run + self.outside_gate + self.blocked_by_dead_time
        return (
            self.tags == self.sync_found + self.sync_spurious + self.clicks
            and self.sync_expected == self.sync_found + self.sync_missing
            and self.clicks == lost + self.merged_clicks + self.detections
        )


def detections_of(
    tags: RecordedTags, entropy: Entropy, *, compiled: bool | None = None
) -> tuple[DetectionRecord, SynchronisationReport]:
    """Return what Bob has detected in a run, by his tags alone.

    Parameters
    ----------
    tags : RecordedTags
    entropy : callable
        Bits of double clicks; in operation ``secrets.token_bytes``.
    compiled : bool, optional
        Which of two routes with equal results; the compiled one where kernels are installed.

    Returns
    -------
    DetectionRecord
    SynchronisationReport

    Raises
    ------
    ConfigurationError
        No synchronisation, or a phase that cannot be tracked.
    OutsideModel
        Clocks too far apart.
    """
    is_sync = tags.channels == tags.sync.number
    clock = fit_clock(tags, tags.times_ps[is_sync] - tags.sync.delay_ps)
    times_ps, channels = sample_of_clicks(tags, is_sync)
    track = track_phase(clock.clock, times_ps)
    line = corrected(clock.clock, track, tags.slot_ps)
    settled = settle(tags, line, compiled=compiled)
    draw_doubles(settled, entropy)
    sync_tags = int(np.count_nonzero(is_sync))
    jitter_ps, offsets_ps = arrivals(tags, line, times_ps, channels)
    clicks, detections = tags.times_ps.size - sync_tags, settled.slots.size
    lost = [int(settled.counts[place]) for place in (OUTSIDE_RUN, OUTSIDE_GATE, BLOCKED)]
    report = SynchronisationReport(
        tags=tags.times_ps.size,
        sync_expected=clock.expected,
        sync_found=clock.found,
        sync_missing=clock.expected - clock.found,
        sync_spurious=clock.spurious,
        clock_offset_ppm=clock.offset_ppm,
        sync_jitter_ps=clock.jitter_ps,
        phase_ps=float(track.phases[0]) * tags.slot_ps,
        drift_ps=track.drift * tags.slot_ps,
        arrival_jitter_ps=jitter_ps,
        channel_offsets_ps=offsets_ps,
        clicks=clicks,
        outside_run=lost[0],
        outside_gate=lost[1],
        blocked_by_dead_time=lost[2],
        merged_clicks=clicks - sum(lost) - detections,
        double_clicks=settled.doubles.size,
        detections=detections,
    )
    invariant(report.balances(), "every tag is a sync tag, a lost click or part of a detection")
    return DetectionRecord(settled.slots, settled.bases, settled.bits, settled.doubles.size), report


def sample_of_clicks(tags: RecordedTags, is_sync: np.ndarray) -> tuple[np.ndarray, Bits]:
    """Return times, delays taken off, and channels of at most ``SAMPLE_MAX`` clicks, evenly over the run."""
    stride = -(-tags.times_ps.size // SAMPLE_MAX) or 1
    places = np.flatnonzero(~is_sync[::stride]) * stride
    channels = tags.channels[places]
    return tags.times_ps[places] - channel_tables(tags).delays_ps[channels], channels


def arrivals(
    tags: RecordedTags, line: TimeMap, times_ps: np.ndarray, channels: Bits
) -> tuple[float, dict[int, float]]:
    """Return the jitter of clicks about the middle of their slots, and the mean of each channel, in ps."""
    stride = -(-times_ps.size // ARRIVALS_MAX)
    times_ps, channels = times_ps[::stride], channels[::stride]
    turns = np.exp(2j * np.pi * line(times_ps)[1])
    visibility = min(1.0, abs(complex(turns.mean())))
    jitter_ps = math.sqrt(-2 * math.log(visibility)) * tags.slot_ps / (2 * math.pi)
    offsets_ps = {}
    for detector in tags.detectors:
        of_channel = turns[channels == detector.number]
        if of_channel.size:
            offsets_ps[detector.number] = float(np.angle(of_channel.sum())) * tags.slot_ps / (2 * math.pi)
    return jitter_ps, offsets_ps


def draw_doubles(settled: Settled, entropy: Entropy) -> None:
    """Draw what double clicks say, in place: two bits of entropy for each, basis and bit."""
    doubles = settled.doubles
    if not doubles.size:
        return
    length = -(-2 * doubles.size // 8)
    drawn = entropy(length)
    invariant(len(drawn) == length, "entropy gives as many bytes as asked for")
    pairs = np.unpackbits(np.frombuffer(drawn, dtype=np.uint8))[: 2 * doubles.size].reshape(-1, 2)
    bases = settled.bases[doubles]
    settled.bases[doubles] = np.where(bases == IN_BOTH_BASES, pairs[:, 0], bases)
    settled.bits[doubles] = pairs[:, 1]
