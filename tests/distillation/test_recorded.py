"""Recorded time tags: files and their faults, synchronisation, slots, and key from both ends' files."""

import dataclasses
import os
import stat
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqci.core.errors import ConfigurationError, OutsideModel
from openqci.distillation import (
    AbortReason,
    DistillationAborted,
    DistillationSettings,
    KeyDistilled,
    converse,
)
from openqci.distillation.recorded import (
    DetectorChannel,
    RecordedEmissions,
    RecordedTags,
    SyncChannel,
    SynchronisationReport,
    check_same_run,
    detections_of,
    read_emissions,
    read_tags,
    write_emissions,
    write_tags,
)
from openqci.distillation.recorded.phase import PhaseTrack, corrected
from openqci.distillation.recorded.timemap import map_through
from openqci.links.recording import TimeTagger, record
from openqci.quantum.elements import DecoySource, FibreChannel, Receiver
from openqci.quantum.link import QuantumLink, expected_statistics
from tests.distillation.make import SETTINGS, ends, entropy, same_key_or_none

ROUTES = pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "portable"])
DETECTORS = tuple(DetectorChannel(1 + each, each >> 1, each & 1) for each in range(4))
LINK = QuantumLink(
    DecoySource(1e9, (0.4, 0.1), (0.3, 0.7), z_basis_probability=0.7),
    FibreChannel(5.0),
    Receiver(1.0, 0.8, 1e-7, dead_time_s=1e-8, misalignment_error=0.01, z_basis_probability=0.7),
)
TAGGER = TimeTagger(
    clock_ppm=31.0,
    clock_drift_ppm_per_s=20.0,
    start_ps=10**12,
    path_offset_ps=-200.0,
    path_drift_ps_per_s=3e5,
    jitter_ps=50.0,
    sync_jitter_ps=40.0,
    sync_period_slots=1000,
    sync_missing=0.1,
    sync_spurious=0.1,
    delays_ps=(0, 1_300, -2_200, 700),
)


def generator(seed: int = 1) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(seed))


def recorded(detections: int = 4000, seed: int = 1, **changes: Any) -> tuple[RecordedEmissions, RecordedTags]:
    return record(LINK, detections, generator(seed), dataclasses.replace(TAGGER, **changes), every_pulse=True)


def tags_at(
    slots: Any,
    channels: Any,
    off_ps: Any = 0,
    *,
    pulses: int = 100_000,
    gate_width_ps: int = 800,
    dead_time_ps: int = 0,
    **changes: Any,
) -> RecordedTags:
    """Return tags by hand: clicks in slots of 1 ns, sync in every 1000th, plain light to hold the phase."""
    sync = np.arange(0, pulses, 1000)
    light = np.arange(50_013, pulses, 100)
    every = [
        np.asarray(slots, np.int64) * 1000 + np.asarray(off_ps, np.int64),
        sync * 1000,
        light * 1000,
    ]
    which = [np.asarray(channels, np.uint8), np.zeros(sync.size, np.uint8), np.ones(light.size, np.uint8)]
    times = np.concatenate(every)
    order = np.argsort(times, kind="stable")
    fields: dict[str, Any] = {
        "clock_rate_hz": 1e9,
        "pulses": pulses,
        "start_ps": 0,
        "times_ps": times[order],
        "channels": np.concatenate(which)[order],
        "detectors": DETECTORS,
        "sync": SyncChannel(0, 1000),
        "gate_width_ps": gate_width_ps,
        "dead_time_ps": dead_time_ps,
    }
    return RecordedTags(**fields | changes)


def seen_before(tags: RecordedTags, end_slot: int = 50_000) -> tuple[list[int], SynchronisationReport]:
    detections, report = detections_of(tags, entropy("tags"))
    return [int(slot) for slot in detections.slots if slot < end_slot], report


# Files


@pytest.mark.parametrize("every_pulse", [True, False])
def test_recordings_come_back_from_their_files(tmp_path: Path, every_pulse: bool) -> None:
    emissions, tags = record(LINK, 500, generator(), TAGGER, every_pulse=every_pulse)
    write_emissions(tmp_path / "alice.npz", emissions)
    write_tags(tmp_path / "bob.npz", tags)
    for written, again in (
        (emissions, read_emissions(tmp_path / "alice.npz")),
        (tags, read_tags(tmp_path / "bob.npz")),
    ):
        for field in dataclasses.fields(written):
            np.testing.assert_array_equal(getattr(written, field.name), getattr(again, field.name))
    check_same_run(emissions, tags)


def test_files_hold_key_and_are_for_their_owner_alone(tmp_path: Path) -> None:
    emissions, tags = recorded(500)
    file = tmp_path / "bob.npz"
    (tmp_path / ".bob.npz.part").write_bytes(b"left by an interrupted writing, open to all")
    file.write_bytes(b"old")
    file.chmod(0o644)
    write_tags(file, tags)
    write_emissions(tmp_path / "alice.npz", emissions)
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alice.npz", "bob.npz"]
    assert "array" not in repr(emissions) + repr(tags)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere/bob.npz: cannot be written: No such file"):
        write_tags(tmp_path / "nowhere" / "bob.npz", recorded(500)[1])


def spoiled(tmp_path: Path, source: str, **changes: Any) -> Path:
    """Return a file as written but for some fields; None leaves a field out."""
    emissions, tags = recorded(500)
    path = tmp_path / f"{source}.npz"
    write_tags(path, tags) if source == "bob" else write_emissions(path, emissions)
    with np.load(path) as archive:
        fields = dict(archive) | changes
    np.savez(path, **{name: value for name, value in fields.items() if value is not None})
    return path


@pytest.mark.parametrize(
    ("source", "changes", "told"),
    [
        ("bob", {"times_ps": None}, "times_ps: is missing"),
        ("bob", {"gate_width_ps": None}, "gate_width_ps: is missing"),
        ("bob", {"times_ps": np.zeros(3)}, "times_ps: expected int64, got float64"),
        ("bob", {"times_ps": np.zeros((2, 2), np.int64)}, "times_ps: expected 1 axes"),
        ("bob", {"channels": np.zeros(3, np.uint8)}, r"channels: expected shape \(\d+,\), got \(3,\)"),
        (
            "bob",
            {"times_ps": np.array([3, 1]), "channels": np.zeros(2, np.uint8)},
            "tag 1 is before the last",
        ),
        ("bob", {"times_ps": np.array([1]), "channels": np.array([9], np.uint8)}, "tag 0 is on channel 9"),
        (
            "bob",
            {"format": np.array("openqci-tags-2")},
            "format: expected openqci-tags-1, got openqci-tags-2; ",
        ),
        ("bob", {"format": np.array("openqci-emissions-1")}, "is this the file of the other end"),
        ("bob", {"format": None}, "format: is missing; expected openqci-tags-1"),
        ("bob", {"format": np.array(1.0)}, "format: expected openqci-tags-1, got float64"),
        ("bob", {"notes": np.array(1.0)}, "notes: is no field of this format"),
        ("bob", {"detector_bits": np.array([0, 1], np.uint8)}, "expected equal lengths"),
        ("bob", {"detector_bits": np.zeros(4, np.uint8)}, "detector_bases: expected basis 0 and 1"),
        ("bob", {"sync_channel": np.uint8(1)}, "none that is the sync channel"),
        ("bob", {"sync_period_slots": np.int64(0)}, "sync_period_slots: expected 1 to"),
        ("bob", {"gate_width_ps": np.int64(1001)}, "gate_width_ps: expected 1 to 1000, one slot, got 1001"),
        ("bob", {"clock_rate_hz": np.float64(np.nan)}, "clock_rate_hz: expected 1 to"),
        ("bob", {"dead_time_ps": np.int64(-1)}, "dead_time_ps: expected 0 to"),
        ("bob", {"start_ps": np.int64(2**62)}, "start_ps: expected at most"),
        ("bob", {"pulses": np.int64(0)}, "pulses: expected 1 to"),
        ("bob", {"times_ps": np.array([{}])}, "with pickled objects"),
        ("alice", {"bits": None}, "bits: is missing"),
        ("alice", {"bits": np.zeros(3, np.uint8)}, "bits: expected shape"),
        ("alice", {"bases": np.zeros(3, np.int64)}, "bases: expected uint8, got int64"),
        (
            "alice",
            {"source_intensities": np.array([0.1, 0.4])},
            "source_intensities: expected 2 to 4, falling",
        ),
        (
            "alice",
            {"source_probabilities": np.array([0.5])},
            "source_probabilities: expected 2, one for each",
        ),
        ("alice", {"source_probabilities": np.array([0.5, 0.4])}, "that sum to 1"),
        (
            "alice",
            {"z_basis_probability": np.float64(1.0)},
            "z_basis_probability: expected above 0 and below 1",
        ),
        ("alice", {"format": np.array("openqci-emissions-9")}, "another version"),
        ("alice", {"slots": np.array([5, 4])}, "slots: expected rising numbers; entry 1"),
        ("alice", {"slots": np.array([5, 2**50])}, "slots: expected 0 to"),
    ],
)
def test_a_bad_field_is_named_with_its_file(
    tmp_path: Path, source: str, changes: dict[str, Any], told: str
) -> None:
    path = spoiled(tmp_path, source, **changes)
    read = read_tags if source == "bob" else read_emissions
    with pytest.raises(ConfigurationError, match=told) as caught:
        read(path)
    assert all(line.startswith(str(path)) for line in str(caught.value).splitlines())


def test_intensities_beyond_the_source_are_refused_in_both_forms() -> None:
    entries = np.zeros(10, np.uint8)
    common: dict[str, Any] = {
        "clock_rate_hz": 1e9,
        "pulses": 10,
        "source_intensities": (0.4, 0.1),
        "source_probabilities": (0.3, 0.7),
        "z_basis_probability": 0.5,
    }
    beyond = entries.copy()
    beyond[3] = 2
    with pytest.raises(ConfigurationError, match="intensities: expected values below 2, got 2"):
        RecordedEmissions(**common, bases=entries, bits=entries, intensities=beyond, packed=False)
    with pytest.raises(ConfigurationError, match="bits: expected values below 2, got 2"):
        RecordedEmissions(**common, bases=entries, bits=beyond, intensities=entries, packed=False)
    packed = np.packbits(entries)
    planes = np.stack([packed, np.packbits(beyond >> 1)])
    with pytest.raises(ConfigurationError, match="intensities: expected values below 2, the intensities"):
        RecordedEmissions(**common, bases=packed, bits=packed, intensities=planes, packed=True)


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.99, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: float) -> None:
    path = spoiled(tmp_path, "bob")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if 0 < kept < 1 else int(kept)])
    with pytest.raises(ConfigurationError, match=r"bob.npz: is no whole NumPy .npz archive"):
        read_tags(path)


@settings(max_examples=40)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_of_a_file_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, place: float, bit: int
) -> None:
    """Archives carry checksums of their fields: nothing comes back other than it was written."""
    path = tmp_path_factory.mktemp("flipped") / "bob.npz"
    tags = tags_at([5], [1])
    write_tags(path, tags)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    try:
        again = read_tags(path)
    except ConfigurationError as error:
        assert str(path) in str(error)
    else:
        assert again.times_ps.tobytes() == tags.times_ps.tobytes()
        assert again.channels.tobytes() == tags.channels.tobytes() and repr(again) == repr(tags)


def test_other_kinds_of_files_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("slots, bits\n1, 0\n")
    with zipfile.ZipFile(tmp_path / "zip.npz", "w") as archive:
        archive.writestr("format", "openqci-tags-1")
    for name, told in (
        ("one.npy", "expected an .npz archive, got one array"),
        ("text.npz", "is no whole NumPy"),
        ("zip.npz", "format: expected openqci-tags-1"),
        ("absent.npz", "there is no such file"),
        ("", "cannot be read: Is a directory"),
    ):
        with pytest.raises(ConfigurationError, match=told):
            read_tags(tmp_path / name)


def test_emissions_of_another_run_are_refused() -> None:
    emissions, tags = recorded(500)
    other = dataclasses.replace(tags, pulses=tags.pulses + 1, clock_rate_hz=1.25e9, gate_width_ps=500)
    with pytest.raises(ConfigurationError, match="pulses: expected") as caught:
        check_same_run(emissions, other)
    assert "clock_rate_hz: expected" in str(caught.value)


@settings(max_examples=30)
@given(first=st.integers(0, 60), length=st.integers(0, 60))
def test_a_block_of_emissions_is_cut_from_all(first: int, length: int) -> None:
    emissions, _ = record(LINK, 3, generator(8), every_pulse=True)
    whole, block = emissions.record(), emissions.record(first, first + length)
    part = slice(first, first + length)
    for name in ("slots", "bases", "bits", "intensities"):
        np.testing.assert_array_equal(getattr(whole, name)[part], getattr(block, name))
    assert block.pulses == emissions.pulses


# Synchronisation


@ROUTES
def test_slots_bases_and_bits_come_back(compiled: bool) -> None:
    emissions, tags = recorded(20_000, gate_width_ps=700)
    found, report = detections_of(tags, entropy("tags"), compiled=compiled)
    sent = emissions.record()
    same = sent.bases[found.slots] == found.bases
    wrong = sent.bits[found.slots][same] != found.bits[same]
    assert 0.005 < wrong.mean() < 0.03
    assert report.balances() and report.detections > 19_900
    assert report.outside_gate < 30 and report.blocked_by_dead_time == 0 and report.outside_run == 0
    assert report.sync_jitter_ps == pytest.approx(40, rel=0.1)
    assert report.arrival_jitter_ps == pytest.approx(50, rel=0.1)
    duration_s = tags.pulses / 1e9
    assert report.clock_offset_ppm == pytest.approx(31 + 10 * duration_s, abs=0.2)
    assert report.phase_ps == pytest.approx(-200, abs=15)
    assert report.drift_ps == pytest.approx(3e5 * duration_s, abs=25)
    assert report.sync_missing == report.sync_expected - report.sync_found
    assert report.sync_missing / report.sync_expected == pytest.approx(0.1, abs=0.03)
    assert all(abs(offset_ps) < 10 for offset_ps in report.channel_offsets_ps.values())


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32),
    clock_ppm=st.floats(-190, 190),
    path_offset_ps=st.floats(-300, 300),
    missing=st.floats(0, 0.3),
    spurious=st.floats(0, 0.3),
    period=st.sampled_from([100, 333, 1000]),
    start_ps=st.integers(-(10**17), 10**17),
)
def test_any_clock_within_reach_is_found_and_both_routes_agree(
    seed: int,
    clock_ppm: float,
    path_offset_ps: float,
    missing: float,
    spurious: float,
    period: int,
    start_ps: int,
) -> None:
    emissions, tags = recorded(
        3000,
        seed,
        clock_ppm=clock_ppm,
        path_offset_ps=path_offset_ps,
        sync_missing=missing,
        sync_spurious=spurious,
        sync_period_slots=period,
        start_ps=start_ps,
    )
    (one, told), (other, told_portable) = (
        detections_of(tags, entropy("tags"), compiled=compiled) for compiled in (True, False)
    )
    assert told == told_portable
    for name in ("slots", "bases", "bits"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes()
    sent = emissions.record()
    same = sent.bases[one.slots] == one.bases
    assert (sent.bits[one.slots][same] != one.bits[same]).mean() < 0.05
    assert told.clock_offset_ppm == pytest.approx(clock_ppm, abs=1)
    assert told.detections > 2900


def test_a_drift_of_many_slots_is_followed() -> None:
    """The path grows by nine slots during the run; each detection still finds its pulse."""
    emissions, tags = recorded(60_000, path_drift_ps_per_s=9e3 / 3e-3, clock_drift_ppm_per_s=0.0)
    found, report = detections_of(tags, entropy("tags"))
    assert report.drift_ps == pytest.approx(3e6 * tags.pulses / 1e9, abs=60) and report.drift_ps > 5000
    sent = emissions.record()
    same = sent.bases[found.slots] == found.bases
    assert (sent.bits[found.slots][same] != found.bits[same]).mean() < 0.03


def test_an_hour_at_a_gigahertz_keeps_every_slot() -> None:
    """4.5e12 pulses, a clock that wanders by 2 ppm, a path that swings by six slots either way."""
    rng, pulses = generator(9), 3600 * 1_250_000_000

    def shown_ps(slots: Any) -> Any:
        angle = 2 * np.pi * slots / (pulses / 6)
        return slots * 800.0 * (1 - 80e-6) + 2e-6 * 600e12 / (2 * np.pi) * np.sin(angle)

    slots = np.unique(rng.integers(0, pulses, 200_000))
    sync = np.arange(0, pulses, 25_000_000)
    swing_ps = 5000 * np.sin(2 * np.pi * slots / pulses)
    clicks_ps = shown_ps(slots) + swing_ps + rng.normal(0, 50, slots.size)
    times = np.concatenate([clicks_ps, shown_ps(sync) + rng.normal(0, 30, sync.size)])
    order = np.argsort(times)
    channels = np.concatenate([rng.integers(1, 5, slots.size), np.zeros(sync.size)]).astype(np.uint8)
    tags = RecordedTags(
        clock_rate_hz=1.25e9,
        pulses=pulses,
        start_ps=0,
        times_ps=np.rint(times[order]).astype(np.int64),
        channels=channels[order],
        detectors=DETECTORS,
        sync=SyncChannel(0, 25_000_000),
        gate_width_ps=800,
    )
    found, report = detections_of(tags, entropy("tags"))
    assert np.mean(np.isin(slots, found.slots)) > 0.999
    assert report.clock_offset_ppm == pytest.approx(-80, abs=0.1)


def test_a_long_gap_of_the_sync_pulses_is_bridged() -> None:
    tags = recorded(20_000)[1]
    middle = np.median(tags.times_ps)
    silent = (tags.channels == 0) & (np.abs(tags.times_ps - middle) < 1e8)
    gap = dataclasses.replace(tags, times_ps=tags.times_ps[~silent], channels=tags.channels[~silent])
    whole, cut = (detections_of(each, entropy("tags"))[0] for each in (tags, gap))
    assert np.mean(np.isin(cut.slots, whole.slots)) > 0.999


@pytest.mark.parametrize("clock_ppm", [-5000.0, -400.0, 230.0, 900.0])
def test_clocks_too_far_apart_are_refused(clock_ppm: float) -> None:
    tags = recorded(2000)[1]
    stretched = np.rint(tags.times_ps * (1 + 1e-6 * clock_ppm)).astype(np.int64)
    tags = dataclasses.replace(
        tags, times_ps=stretched, start_ps=round(tags.start_ps * (1 + 1e-6 * clock_ppm))
    )
    with pytest.raises(OutsideModel, match="clock offset in ppm") as caught:
        detections_of(tags, entropy("tags"))
    assert "200 ppm at most" in str(caught.value)


def test_without_synchronisation_there_is_an_error() -> None:
    tags = recorded(2000)[1]
    clicks = tags.channels != 0
    silent = dataclasses.replace(tags, times_ps=tags.times_ps[clicks], channels=tags.channels[clicks])
    with pytest.raises(
        ConfigurationError, match=r"sync_channel: the synchronisation cannot be found: 0 sync"
    ):
        detections_of(silent, entropy("tags"))
    base = tags_at([], [])
    noise = np.sort(generator(3).integers(0, 10**8, 200))
    alone = dataclasses.replace(base, times_ps=noise, channels=np.zeros(200, np.uint8))
    with pytest.raises(ConfigurationError, match=r"synchronisation (cannot be found|is lost)"):
        detections_of(alone, entropy("tags"))
    empty = dataclasses.replace(base, times_ps=np.zeros(0, np.int64), channels=np.zeros(0, np.uint8))
    with pytest.raises(ConfigurationError, match="0 sync tags"):
        detections_of(empty, entropy("tags"))


def test_a_phase_that_cannot_be_tracked_is_an_error() -> None:
    noise = np.sort(generator(4).integers(0, 10**8, 5000))
    sync = np.arange(0, 10**8, 10**6)
    channels = np.concatenate([np.ones(noise.size, np.uint8), np.zeros(sync.size, np.uint8)])
    times = np.concatenate([noise, sync])
    order = np.argsort(times)
    flat = dataclasses.replace(tags_at([], []), times_ps=times[order], channels=channels[order])
    with pytest.raises(ConfigurationError, match=r"phase of arrivals cannot be tracked: in . of . parts"):
        detections_of(flat, entropy("tags"))
    dark = dataclasses.replace(flat, times_ps=sync, channels=np.zeros(sync.size, np.uint8))
    with pytest.raises(ConfigurationError, match="cannot be tracked: 0 clicks were given"):
        detections_of(dark, entropy("tags"))
    early, late = np.arange(0, 40_000, 10), np.arange(40_000, 80_000, 10)
    jump = tags_at(np.concatenate([early, late]), np.ones(8000), np.repeat([0, 450], 4000), pulses=90_000)
    with pytest.raises(ConfigurationError, match=r"it jumps by \+0.4"):
        detections_of(jump, entropy("tags"))


def test_nothing_that_decides_what_is_kept_sees_a_bit() -> None:
    """Bits and their channels exchanged: the same slots, the same counts."""
    tags = recorded(8000, gate_width_ps=120, delays_ps=(0, 0, 0, 0), stray_clicks_hz=1e7)[1]
    flipped = tags.channels.copy()
    clicks = flipped > 0
    flipped[clicks] = ((flipped[clicks] - 1) ^ 1) + 1
    one, told = detections_of(tags, entropy("tags"))
    other, told_flipped = detections_of(dataclasses.replace(tags, channels=flipped), entropy("tags"))
    np.testing.assert_array_equal(one.slots, other.slots)
    np.testing.assert_array_equal(one.bases, other.bases)
    assert told.outside_gate > 1000 and told.outside_gate == told_flipped.outside_gate


def test_a_channel_with_a_wrong_delay_is_shown() -> None:
    tags = recorded(8000)[1]
    wrong = tuple(
        dataclasses.replace(each, delay_ps=each.delay_ps + 150 * (each.number == 2))
        for each in tags.detectors
    )
    offsets_ps = detections_of(dataclasses.replace(tags, detectors=wrong), entropy("tags"))[
        1
    ].channel_offsets_ps
    assert offsets_ps[1] - offsets_ps[2] == pytest.approx(150, abs=15)


# Gate, dead time, double clicks


@pytest.mark.parametrize(
    ("off_ps", "kept"), [(0, True), (399, True), (-399, True), (402, False), (-402, False)]
)
def test_the_gate_is_one_rule(off_ps: int, kept: bool) -> None:
    slots, report = seen_before(tags_at([7], [2], off_ps))
    assert slots == ([7] if kept else []) and report.outside_gate == (not kept)


def test_clicks_outside_the_run_are_counted() -> None:
    _, report = seen_before(tags_at([-5, 100_000, 100_007], [1, 1, 2]))
    assert report.outside_run == 3 and report.balances()


@pytest.mark.parametrize(
    ("slots", "off_ps", "kept", "blocked"),
    [
        ([10, 15, 21, 40], 0, [10, 40], 2),  # what was itself removed removes others: 21 is 6 after 15
        ([10, 20], 0, [10], 1),
        ([10, 21], 0, [10, 21], 0),
        ([10, 15], [450, 0], [], 1),  # a click outside the gate has made its detector dead, too
        ([10, 10], [-450, 0], [], 1),  # before the gate of the same slot
        ([10, 10], [0, 450], [10], 0),  # after it
        ([-3, 5], 0, [], 1),  # before the run
    ],
)
def test_slots_in_a_dead_time_are_removed_for_all_detectors(
    slots: list[int], off_ps: Any, kept: list[int], blocked: int
) -> None:
    channels = np.resize([1, 2], len(slots))
    found, report = seen_before(tags_at(slots, channels, off_ps, dead_time_ps=10_000))
    assert found == kept and report.blocked_by_dead_time == blocked and report.balances()


def test_without_dead_time_nothing_is_blocked() -> None:
    found, report = seen_before(tags_at([10, 10, 11, 12], [1, 2, 1, 2], [-450, 0, 0, 0]))
    assert found == [10, 11, 12] and report.blocked_by_dead_time == 0


def test_double_clicks_are_drawn_from_entropy() -> None:
    """In one basis a random bit; in both a random basis and bit; of one detector no double click."""
    slots = np.repeat(np.arange(100, 40_100, 100), 2)
    pairs = np.tile([1, 2, 3, 4, 1, 3, 2, 4, 1, 1], 80)
    asked = []

    def counted(length: int) -> bytes:
        asked.append(length)
        return entropy("double")(length)

    tags = tags_at(slots, pairs)
    one, report = detections_of(tags, counted)
    assert asked == [80] and report.double_clicks == 320 == one.double_clicks and report.merged_clicks == 400
    kinds = np.arange(400) % 5
    bases, bits = one.bases[:400], one.bits[:400]
    assert np.all(bases[kinds == 0] == 0) and np.all(bases[kinds == 1] == 1)
    assert np.all(bits[kinds == 4] == 0) and np.all(bases[kinds == 4] == 0)
    for kind in range(4):
        assert 20 < bits[kinds == kind].sum() < 60
    assert 50 < bases[(kinds == 2) | (kinds == 3)].sum() < 110
    other = detections_of(tags, entropy("another"))[0]
    assert not np.array_equal(one.bits, other.bits)
    portable = detections_of(tags, entropy("double"), compiled=False)[0]
    assert np.array_equal(portable.bits, detections_of(tags, entropy("double"))[0].bits)


@settings(max_examples=60)
@given(
    clicks=st.lists(
        st.tuples(st.integers(100, 130), st.integers(1, 4), st.sampled_from([0, 0, 0, -450, 450])),
        max_size=60,
    ),
    dead_slots=st.integers(0, 5),
    delays_ps=st.tuples(*[st.integers(-6_000, 6_000)] * 4),
)
def test_detections_by_the_definition(
    clicks: list[tuple[int, int, int]], dead_slots: int, delays_ps: tuple[int, int, int, int]
) -> None:
    kept = {}
    for slot in sorted({slot for slot, _, _ in clicks}):
        here = [(channel, off_ps) for at, channel, off_ps in clicks if at == slot]
        clicked = {channel for channel, off_ps in here if off_ps == 0}
        dead = any(0 < slot - at <= dead_slots for at, _, _ in clicks)
        dead |= dead_slots > 0 and any(off_ps < 0 for _, off_ps in here)
        if clicked and not dead:
            kept[slot] = clicked
    detectors = tuple(
        dataclasses.replace(each, delay_ps=delay_ps)
        for each, delay_ps in zip(DETECTORS, delays_ps, strict=True)
    )
    slots, channels, off_ps = (
        (np.array(column, np.int64) for column in zip(*clicks, strict=True)) if clicks else 3 * ([],)
    )
    plain = tags_at(slots, channels, off_ps, dead_time_ps=1000 * dead_slots)
    times = plain.times_ps + np.array([0, *delays_ps])[plain.channels]
    order = np.argsort(times, kind="stable")
    tags = dataclasses.replace(
        plain, times_ps=times[order], channels=plain.channels[order], detectors=detectors
    )
    (one, told), (other, told_portable) = (
        detections_of(tags, entropy("tags"), compiled=compiled) for compiled in (True, False)
    )
    assert told == told_portable and told.balances()
    for name in ("slots", "bases", "bits"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes()
    found = one.slots < 1000
    assert one.slots[found].tolist() == list(kept)
    assert told.double_clicks == sum(len(clicked) > 1 for clicked in kept.values())
    for clicked, basis, bit in zip(kept.values(), one.bases[found], one.bits[found], strict=True):
        assert len(clicked) > 1 or clicked == {1 + 2 * basis + bit}


def test_delays_that_upset_all_order_give_the_same_by_the_portable_route() -> None:
    """A channel that is late by more than what the compiled route has in hand: 70,000 detections of 20 ns."""
    delays_ps = (0, 0, 0, 500_000_000)
    emissions, tags = recorded(70_000, delays_ps=delays_ps, path_drift_ps_per_s=0.0)
    detections, report = detections_of(tags, entropy("tags"))
    sent = emissions.record()
    same = sent.bases[detections.slots] == detections.bases
    assert (sent.bits[detections.slots][same] != detections.bits[same]).mean() < 0.03
    assert report.detections > 69_000


def test_clicks_that_pile_up_are_one_time_of_the_phase() -> None:
    slots = np.concatenate([np.full(3000, 40_000), np.arange(100, 40_000, 13)])
    found, report = seen_before(tags_at(slots, np.ones(slots.size)))
    assert found == [*range(100, 40_000, 13), 40_000] and report.merged_clicks == 2999


def test_a_phase_that_runs_as_fast_as_the_clock_is_noise() -> None:
    clock = map_through(np.array([0, 10**9]), np.array([0, 10**6]), np.zeros(2), 1e-3)
    assert corrected(clock, PhaseTrack(np.array([5, 1005]), np.array([0.0, 0.4])), 1000.0).is_even(1000.0)
    with pytest.raises(ConfigurationError, match="the clocks would not go evenly"):
        corrected(clock, PhaseTrack(np.array([5, 505]), np.array([0.0, 0.4])), 1000.0)


# Key


def agreed(emissions: RecordedEmissions) -> DistillationSettings:
    return DistillationSettings(
        proof_id=SETTINGS.proof_id,
        intensities=emissions.source_intensities,
        intensity_probabilities=emissions.source_probabilities,
        epsilon_sec=SETTINGS.epsilon_sec,
        epsilon_cor=SETTINGS.epsilon_cor,
    )


def distilled(emissions: RecordedEmissions, tags: RecordedTags) -> tuple[Any, Any, SynchronisationReport]:
    check_same_run(emissions, tags)
    detections, report = detections_of(tags, os.urandom)
    alice, bob = ends(emissions.record(), detections, agreed(emissions))
    return *converse(alice, bob), report


@pytest.mark.parametrize("every_pulse", [True, False])
def test_two_files_give_equal_keys(tmp_path: Path, every_pulse: bool) -> None:
    emissions, tags = record(LINK, 60_000, generator(5), TAGGER, every_pulse=every_pulse)
    write_emissions(tmp_path / "alice.npz", emissions)
    write_tags(tmp_path / "bob.npz", tags)
    a, b, report = distilled(read_emissions(tmp_path / "alice.npz"), read_tags(tmp_path / "bob.npz"))
    assert same_key_or_none(a, b) and isinstance(a, KeyDistilled)
    assert a.report.qber == pytest.approx(expected_statistics(LINK).qber, abs=0.003)
    assert a.report.detections == report.detections and a.report.double_clicks == report.double_clicks > 0


@pytest.mark.parametrize("slip", [-1, 1, 2, 1000])
def test_checklist_18_a_slip_of_slots_by_a_wrong_sync_slot_aborts(slip: int) -> None:
    """All slots are off alike: half of the bits are wrong, and none is corrected."""
    emissions, tags = recorded(30_000, sync_first_slot=2000)
    slipped = dataclasses.replace(tags, sync=dataclasses.replace(tags.sync, first_slot=2000 + slip))
    if slip == 1000:  # the run is told to begin a period later: by its clock, too
        slipped = dataclasses.replace(slipped, start_ps=tags.start_ps - 1000 * 1000)
    a, b, _ = distilled(emissions, slipped)
    assert not same_key_or_none(a, b)
    assert isinstance(a, DistillationAborted) and a.reason is AbortReason.QBER_TOO_HIGH
    qber = a.report.test_qber if a.report.test_qber else a.report.qber
    assert 0.45 < qber < 0.55
    assert a.report.leak_bits["alice_parities"] == 0
