"""Drawn recordings: they hold the detections of the exchange, and what a tagger does to them."""

import dataclasses
import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqci.core.errors import OutsideModel
from openqci.distillation.recorded import detections_of
from openqci.links.recording import TimeTagger, record
from openqci.quantum.elements import DecoySource, FibreChannel, Receiver
from openqci.quantum.exchange import exchange
from openqci.quantum.link import QuantumLink

SOURCE = DecoySource(1e9, (0.5, 0.1), (0.7, 0.3), z_basis_probability=0.8)


def link(loss_db: float = 8.0, **receiver: Any) -> QuantumLink:
    made = {"dead_time_s": 1e-8, "misalignment_error": 0.02, "z_basis_probability": 0.8} | receiver
    return QuantumLink(SOURCE, FibreChannel(loss_db), Receiver(1.0, 0.8, 1e-6, **made))


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(seed))


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32),
    clock_ppm=st.floats(-190, 190),
    drift_ppm_per_s=st.floats(-100, 100),
    offset_ps=st.floats(-350, 350),
    path_drift_ps_per_s=st.floats(-5e5, 5e5),
    jitter_ps=st.floats(0, 120),
    delays_ps=st.tuples(*[st.integers(-20_000, 20_000)] * 4),
    stray_clicks_hz=st.sampled_from([0.0, 1e6]),
    basis_choice=st.sampled_from(["active", "passive"]),
    gate_width_ps=st.sampled_from([500, 1000]),
)
def test_detections_come_back_but_for_what_the_gate_lost(
    seed: int,
    clock_ppm: float,
    drift_ppm_per_s: float,
    offset_ps: float,
    path_drift_ps_per_s: float,
    jitter_ps: float,
    delays_ps: tuple[int, int, int, int],
    stray_clicks_hz: float,
    basis_choice: str,
    gate_width_ps: int,
) -> None:
    quantum = link(basis_choice=basis_choice)
    tagger = TimeTagger(
        clock_ppm=clock_ppm,
        clock_drift_ppm_per_s=drift_ppm_per_s,
        path_offset_ps=offset_ps,
        path_drift_ps_per_s=path_drift_ps_per_s,
        jitter_ps=jitter_ps,
        sync_jitter_ps=jitter_ps,
        sync_period_slots=1000,
        sync_missing=0.1,
        sync_spurious=0.1,
        stray_clicks_hz=stray_clicks_hz,
        delays_ps=delays_ps,
        gate_width_ps=gate_width_ps,
    )
    truth = exchange(quantum, 4000, generator(seed))
    emissions, tags = record(quantum, 4000, generator(seed), tagger)
    found, report = detections_of(tags, os.urandom)
    _, ours, theirs = np.intersect1d(
        truth.detections.slots, found.slots, assume_unique=True, return_indices=True
    )
    lost = truth.detections.slots.size - ours.size
    strays = found.slots.size - theirs.size
    # A click that jitter carries into the next slot is lost to its own, and with it what its dead time hides.
    assert lost <= 2 * report.outside_gate + strays + report.blocked_by_dead_time + report.outside_run
    if jitter_ps < 20 and gate_width_ps == 1000:
        assert lost <= 1
    single = (truth.detections.bits[ours] != found.bits[theirs]) | (
        truth.detections.bases[ours] != found.bases[theirs]
    )
    # Double clicks have another random bit; strays near a click cannot be, so nothing else may differ.
    assert np.count_nonzero(single) <= report.double_clicks
    assert np.all(np.isin(found.slots, emissions.record().slots))
    sent = emissions.record()
    seen = np.isin(sent.slots, truth.emissions.slots)
    for name in ("slots", "bases", "bits", "intensities"):
        np.testing.assert_array_equal(getattr(sent, name)[seen], getattr(truth.emissions, name))


def test_an_ideal_tagger_loses_nothing() -> None:
    truth = exchange(link(), 5000, generator(3))
    _, tags = record(link(), 5000, generator(3), TimeTagger(sync_period_slots=1000))
    found, report = detections_of(tags, os.urandom)
    np.testing.assert_array_equal(found.slots, truth.detections.slots)
    np.testing.assert_array_equal(found.bases, truth.detections.bases)
    assert report.double_clicks == truth.detections.double_clicks > 0
    assert report.detections == 5000 and report.sync_missing == report.sync_spurious == 0


def test_equal_generators_give_equal_recordings() -> None:
    tagger = TimeTagger(jitter_ps=50.0, stray_clicks_hz=1e6, sync_missing=0.2)
    (one, tags), (other, again) = (record(link(), 1000, generator(4), tagger) for _ in range(2))
    assert tags.times_ps.tobytes() == again.times_ps.tobytes() and one.bits.tobytes() == other.bits.tobytes()
    assert record(link(), 1000, generator(5), tagger)[1].times_ps.tobytes() != tags.times_ps.tobytes()


def test_a_recording_of_every_pulse_tells_of_those_nobody_saw_as_the_source_sends_them() -> None:
    emissions, _ = record(link(), 20_000, generator(6), every_pulse=True)
    sent = emissions.record()
    assert sent.slots.size == emissions.pulses == sent.pulses
    assert np.mean(sent.bases == 0) == pytest.approx(0.8, abs=0.005)
    assert np.mean(sent.bits) == pytest.approx(0.5, abs=0.005)
    assert np.mean(sent.intensities == 0) == pytest.approx(0.7, abs=0.005)


def test_dead_time_gate_and_channels_are_those_of_the_receiver() -> None:
    tags = record(link(gate_width_s=6e-10), 500, generator(7))[1]
    assert (tags.dead_time_ps, tags.gate_width_ps, tags.clock_rate_hz) == (10_000, 600, 1e9)
    assert [(each.number, each.basis, each.bit) for each in tags.detectors] == [
        (1, 0, 0),
        (2, 0, 1),
        (3, 1, 0),
        (4, 1, 1),
    ]
    assert record(link(), 500, generator(7))[1].gate_width_ps == 1000


def test_a_paralysable_receiver_is_drawn_as_such() -> None:
    quantum = link(dead_time_model="paralysable")
    truth = exchange(quantum, 2000, generator(8))
    _, tags = record(quantum, 2000, generator(8), TimeTagger(sync_period_slots=100))
    np.testing.assert_array_equal(detections_of(tags, os.urandom)[0].slots, truth.detections.slots)


@pytest.mark.parametrize(
    "change",
    [
        {"clock_ppm": 2000.0},
        {"clock_drift_ppm_per_s": float("nan")},
        {"jitter_ps": -1.0},
        {"sync_missing": 1.0},
        {"sync_spurious": 2.0},
        {"sync_period_slots": 0},
        {"stray_clicks_hz": 1e10},
        {"gate_width_ps": 0},
    ],
)
def test_taggers_outside_the_model_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(OutsideModel, match=next(iter(change))):
        dataclasses.replace(TimeTagger(), **change)


def test_too_many_detections_or_pulses_are_refused() -> None:
    for number in (0, 10**8 + 1):
        with pytest.raises(OutsideModel, match="detections"):
            record(link(), number, generator(1))
    with pytest.raises(OutsideModel, match="pulses"):
        record(link(loss_db=60.0), 1000, generator(1), every_pulse=True)
