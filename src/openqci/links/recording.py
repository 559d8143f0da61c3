"""Recordings as a link would leave them, drawn from its model: for tests, tutorials and benchmarks.

The detections are those of :func:`openqci.quantum.exchange.exchange` with the same generator; here they get
times. Bob's clock is off and drifts, the path of the photons changes its length, tags jitter, sync pulses are
missed or invented, detectors count where no pulse is. What the receiver makes of that is
:func:`openqci.distillation.recorded.detections_of`.

>>> import numpy as np
>>> from openqci.links import profile
>>> from openqci.quantum.link import QuantumLink
>>> from openqci.quantum.elements import DecoySource, FibreChannel, Receiver
>>> source = DecoySource(1e9, (0.5, 0.1), (0.7, 0.3), z_basis_probability=0.9)
>>> link = QuantumLink(source, FibreChannel(10.0), Receiver(1.0, 0.8, 1e-7))
>>> emissions, tags = record(link, 1000, np.random.default_rng(1), TimeTagger(clock_ppm=12.0))
>>> emissions.pulses == tags.pulses, tags.sync.period_slots
(True, 10000)

Left out: jitter that the link's ``captured_fraction`` already took (the exchange holds what its gate holds;
what jitter here carries out of the gate is lost besides), double clicks in two bases (of a passive receiver
they are shown in one), afterpulses that follow one click, tags that a full buffer drops.
"""

from dataclasses import dataclass

import numpy as np

from openqci.core.detections import Bits, EmissionRecord, Slots
from openqci.core.errors import OutsideModel
from openqci.distillation.recorded import DetectorChannel, RecordedEmissions, RecordedTags, SyncChannel
from openqci.quantum.elements import Floats, check_optional, check_range
from openqci.quantum.exchange import (
    bit_of,
    draw_kinds,
    draw_paralysed_slots,
    draw_slots,
    emissions_of,
)
from openqci.quantum.link import QuantumLink, class_probabilities, expected_statistics

PULSES_MAX = 10**8
"""Of a recording that tells of every pulse; they take some 2 GB while they are drawn."""

DETECTIONS_MAX = 10**8

SYNC_CHANNEL = 0
FIRST_DETECTOR = 1
"""Channels 1 to 4 are Z0, Z1, X0, X1."""


@dataclass(frozen=True)
class TimeTagger:
    """What lies between the slots of a link and Bob's time tags. Spreads are standard deviations.

    Parameters
    ----------
    clock_ppm, clock_drift_ppm_per_s : float
        By how much Bob's clock is faster than Alice's at the start, up to 1000 either way, and its change.
    start_ps : int
        Slot 0 by Bob's clock.
    path_offset_ps, path_drift_ps_per_s : float
        By how much photons come later than the sync pulses say at the start, and its change.
    jitter_ps, sync_jitter_ps : float
        Of clicks and of sync tags.
    sync_period_slots, sync_first_slot : int
    sync_missing : float
        Fraction of the sync pulses that leave no tag, 0 to 0.9.
    sync_spurious : float
        Tags of nothing on the sync channel for each pulse, 0 to 1.
    stray_clicks_hz : float
        Clicks of all detectors together that the link does not have, evenly over time and channels. Those
        near a detection or in a dead time are left out, so that they take no detection away.
    delays_ps : tuple of int
        Of the channels of Z0, Z1, X0, X1; the recording tells them.
    gate_width_ps : int, optional
        The receiver's when not given, or one slot.
    """

    clock_ppm: float = 0.0
    clock_drift_ppm_per_s: float = 0.0
    start_ps: int = 0
    path_offset_ps: float = 0.0
    path_drift_ps_per_s: float = 0.0
    jitter_ps: float = 0.0
    sync_jitter_ps: float = 0.0
    sync_period_slots: int = 10_000
    sync_first_slot: int = 0
    sync_missing: float = 0.0
    sync_spurious: float = 0.0
    stray_clicks_hz: float = 0.0
    delays_ps: tuple[int, int, int, int] = (0, 0, 0, 0)
    gate_width_ps: int | None = None

    def __post_init__(self) -> None:
        check_range("clock_ppm", self.clock_ppm, -1000.0, 1000.0)
        check_range("clock_drift_ppm_per_s", self.clock_drift_ppm_per_s, -1000.0, 1000.0)
        check_range("start_ps", self.start_ps, -1e18, 1e18)
        check_range("path_offset_ps", self.path_offset_ps, -1e9, 1e9)
        check_range("path_drift_ps_per_s", self.path_drift_ps_per_s, -1e9, 1e9)
        check_range("jitter_ps", self.jitter_ps, 0.0, 1e6)
        check_range("sync_jitter_ps", self.sync_jitter_ps, 0.0, 1e6)
        check_range("sync_period_slots", self.sync_period_slots, 1, 1e15)
        check_range("sync_first_slot", self.sync_first_slot, 0, 1e15)
        check_range("sync_missing", self.sync_missing, 0.0, 0.9)
        check_range("sync_spurious", self.sync_spurious, 0.0, 1.0)
        check_range("stray_clicks_hz", self.stray_clicks_hz, 0.0, 1e9)
        check_optional("gate_width_ps", self.gate_width_ps, 1, 1e12)


def record(
    link: QuantumLink,
    detections: int,
    rng: np.random.Generator,
    tagger: TimeTagger | None = None,
    *,
    every_pulse: bool = False,
) -> tuple[RecordedEmissions, RecordedTags]:
    """Run a link until Bob has a number of detections, and return what both ends would have recorded.

    Parameters
    ----------
    link : QuantumLink
    detections : int
        1 to 1e8. A double click makes two tags.
    rng : numpy.random.Generator
        Equal states give equal recordings; the detections are those of ``exchange`` with this state.
    tagger : TimeTagger, optional
        An ideal one when not given.
    every_pulse : bool
        Alice's recording tells of every pulse, as that of a real source, instead of those in whose slots or
        beside which Bob has clicks. Needed where slots are to be mistaken.

    Raises
    ------
    OutsideModel
        Too many detections, or pulses with ``every_pulse``; a gate wider than a slot.
    """
    tagger = tagger or TimeTagger()
    if not 1 <= detections <= DETECTIONS_MAX:
        raise OutsideModel("detections", detections, f"1 to {DETECTIONS_MAX}")
    table = class_probabilities(link)
    draw = draw_paralysed_slots if link.receiver.dead_time_model == "paralysable" else draw_slots
    slots = draw(float(table.sum()), link.dead_slots, detections, rng)
    kinds = draw_kinds(table.ravel(), detections, rng)
    pulses = int(slots[-1]) + 1
    if every_pulse and pulses > PULSES_MAX:
        raise OutsideModel("pulses", pulses, f"at most {PULSES_MAX} of a recording with every pulse")
    places, channels = clicks(link, tagger, slots, kinds, pulses, rng)
    times_ps = bob_times(link, tagger, places, rng)
    tags = tags_of(link, tagger, times_ps, channels, pulses, rng)
    near = np.rint(places[:, None] + [-1, 0, 1]).astype(np.int64)
    told = None if every_pulse else near[(near >= 0) & (near < pulses)]
    return emissions_told(link, emissions_of(slots, kinds, pulses), told, rng), tags


def clicks(
    link: QuantumLink, tagger: TimeTagger, slots: Slots, kinds: Bits, pulses: int, rng: np.random.Generator
) -> tuple[Floats, Bits]:
    """Return when detectors click, in slots with jitter, and the channel; stray clicks among them."""
    slot_ps = 1e12 / link.source.clock_rate_hz
    double = bit_of(kinds, 4).astype(bool)
    detectors = bit_of(kinds, 3) << np.uint8(1) | bit_of(kinds, 1)
    at = np.concatenate([slots, slots[double]]).astype(np.float64)
    which = np.concatenate([detectors, detectors[double] ^ np.uint8(1)])
    at += rng.normal(0.0, tagger.jitter_ps / slot_ps, at.size)
    number = rng.poisson(tagger.stray_clicks_hz * pulses / link.source.clock_rate_hz)
    stray = np.sort(rng.uniform(-0.5, pulses - 0.5, number))
    apart = link.dead_slots + 2
    after = np.searchsorted(slots, stray)
    fences = np.concatenate([[-np.inf], slots.astype(np.float64), [np.inf]])
    alone = (stray - fences[after] > apart) & (fences[after + 1] - stray > apart)
    stray = stray[alone]
    stray = stray[np.diff(stray, prepend=-np.inf) > apart]
    which_stray = rng.integers(0, 4, stray.size, dtype=np.uint8)
    return np.concatenate([at, stray]), np.concatenate([which, which_stray]) + np.uint8(FIRST_DETECTOR)


def bob_times(link: QuantumLink, tagger: TimeTagger, places: Floats, rng: np.random.Generator) -> Floats:
    """Return by Bob's clock, in ps since slot 0, when the photons of these places arrive."""
    slot_ps = 1e12 / link.source.clock_rate_hz
    sent_ps = places * slot_ps
    path_ps = tagger.path_offset_ps + tagger.path_drift_ps_per_s * sent_ps * 1e-12
    return by_bobs_clock(tagger, sent_ps + path_ps)


def by_bobs_clock(tagger: TimeTagger, times_ps: Floats) -> Floats:
    """Return what Bob's clock shows at times by Alice's, both in ps since slot 0."""
    drifted_ppm = tagger.clock_ppm + tagger.clock_drift_ppm_per_s * times_ps * 1e-12 / 2
    shown: Floats = times_ps + times_ps * drifted_ppm * 1e-6
    return shown


def tags_of(
    link: QuantumLink,
    tagger: TimeTagger,
    times_ps: Floats,
    channels: Bits,
    pulses: int,
    rng: np.random.Generator,
) -> RecordedTags:
    """Return the recording of clicks and sync pulses, in the order of time."""
    slot_ps = 1e12 / link.source.clock_rate_hz
    delays_ps = np.array([0, *tagger.delays_ps], dtype=np.int64)
    sync_ps = sync_times(link, tagger, pulses, rng)
    every_ps = np.concatenate([times_ps, sync_ps])
    every_channel = np.concatenate([channels, np.full(sync_ps.size, SYNC_CHANNEL, dtype=np.uint8)])
    shown = tagger.start_ps + np.rint(every_ps).astype(np.int64) + delays_ps[every_channel]
    order = np.argsort(shown, kind="stable")
    receiver = link.receiver
    gate_ps = slot_ps if receiver.gate_width_s is None else 1e12 * receiver.gate_width_s
    return RecordedTags(
        clock_rate_hz=link.source.clock_rate_hz,
        pulses=pulses,
        start_ps=tagger.start_ps,
        times_ps=shown[order],
        channels=every_channel[order],
        detectors=tuple(
            DetectorChannel(FIRST_DETECTOR + each, each >> 1, each & 1, tagger.delays_ps[each])
            for each in range(4)
        ),
        sync=SyncChannel(SYNC_CHANNEL, tagger.sync_period_slots, tagger.sync_first_slot),
        gate_width_ps=round(gate_ps) if tagger.gate_width_ps is None else tagger.gate_width_ps,
        dead_time_ps=round(1e12 * receiver.dead_time_s),
    )


def sync_times(link: QuantumLink, tagger: TimeTagger, pulses: int, rng: np.random.Generator) -> Floats:
    """Return by Bob's clock, in ps since slot 0, the tags of his sync channel."""
    slot_ps = 1e12 / link.source.clock_rate_hz
    sent = np.arange(tagger.sync_first_slot, pulses, tagger.sync_period_slots).astype(np.float64)
    seen = sent[rng.random(sent.size) >= tagger.sync_missing] * slot_ps
    seen += rng.normal(0.0, tagger.sync_jitter_ps, seen.size)
    spurious = rng.uniform(0.0, pulses * slot_ps, rng.poisson(tagger.sync_spurious * sent.size))
    return by_bobs_clock(tagger, np.concatenate([seen, spurious]))


def emissions_told(
    link: QuantumLink, seen: EmissionRecord, told: Slots | None, rng: np.random.Generator
) -> RecordedEmissions:
    """Return Alice's recording: of the pulses that Bob saw, and of others drawn as those that nobody saw."""
    slots = np.arange(seen.pulses) if told is None else np.union1d(seen.slots, told)
    source = link.source
    unseen = np.array(source.probabilities) * (1 - expected_statistics(link).gains)
    above = np.cumsum(unseen / unseen.sum())[:-1]
    columns = [
        (rng.random(slots.size) >= source.z_basis_probability).astype(np.uint8),
        rng.integers(0, 2, slots.size, dtype=np.uint8),
        np.searchsorted(above, rng.random(slots.size), side="right").astype(np.uint8),
    ]
    places = np.searchsorted(slots, seen.slots)
    for column, known in zip(columns, (seen.bases, seen.bits, seen.intensities), strict=True):
        column[places] = known
    bases, bits, intensities = columns
    if told is None:
        bases, bits = np.packbits(bases), np.packbits(bits)
        intensities = np.stack([np.packbits(intensities & 1), np.packbits(intensities >> 1)])
    return RecordedEmissions(
        clock_rate_hz=source.clock_rate_hz,
        pulses=seen.pulses,
        source_intensities=source.intensities,
        source_probabilities=source.probabilities,
        z_basis_probability=source.z_basis_probability,
        bases=bases,
        bits=bits,
        intensities=intensities,
        packed=told is None,
        slots=None if told is None else slots,
    )
