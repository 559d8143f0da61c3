"""Detectors as specified, and the receiver that a clock and optics make of one."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import OutsideModel
from openqci.quantum import PhotonDetector, generic_detector, receiver_of
from openqci.quantum.detectors import GENERIC_DETECTORS, counted_rate_hz
from openqci.quantum.encodings import ReceiverOptics, phase_optics


def free_running(**changes):
    figures = {"kind": "ingaas-free-running", "efficiency": 0.2, "dark_count_rate_hz": 100.0}
    return PhotonDetector(**(figures | changes))


def gated(**changes):
    figures = {
        "kind": "ingaas-gated",
        "efficiency": 0.2,
        "dark_count_probability_per_gate": 1e-5,
        "gate_width_s": 2e-10,
    }
    return PhotonDetector(**(figures | changes))


def receiver(detector, **changes):
    return receiver_of(
        detector, ReceiverOptics(2.0, 0.01), **({"clock_rate_hz": 1e9, "z_basis_probability": 0.9} | changes)
    )


def test_dark_counts_per_second_become_a_probability_per_gate():
    # 100 per second of live time, windows of 1 ns: 1e-7 each.
    assert receiver(free_running()).dark_count_probability == pytest.approx(1e-7, rel=1e-6)
    narrow = receiver(free_running(), window_s=1e-10)
    assert narrow.dark_count_probability == pytest.approx(1e-8, rel=1e-6)


def test_dark_counts_per_gate_stay_what_they_are_in_their_gate():
    assert receiver(gated()).dark_count_probability == 1e-5
    assert receiver(gated(), clock_rate_hz=1e6).dark_count_probability == 1e-5


def test_half_a_gate_has_half_of_the_dark_counts():
    assert receiver(gated(), window_s=1e-10).dark_count_probability == pytest.approx(0.5e-5, rel=1e-4)
    assert gated().live_dark_count_rate_hz == pytest.approx(1e-5 / 2e-10, rel=1e-4)


@pytest.mark.parametrize("both", [{}, {"dark_count_rate_hz": 1.0, "dark_count_probability_per_gate": 1e-6}])
def test_dark_counts_are_given_one_way_or_the_other(both):
    with pytest.raises(OutsideModel, match="exactly one"):
        PhotonDetector("snspd", 0.8, gate_width_s=1e-9, **both)


def test_the_window_is_never_wider_than_gate_and_slot():
    assert receiver(gated()).gate_width_s == 2e-10
    assert receiver(free_running()).gate_width_s == pytest.approx(1e-9)
    assert receiver(gated(), clock_rate_hz=1e10).gate_width_s == pytest.approx(1e-10)
    for detector, window_s in ((gated(), 3e-10), (free_running(), 1.1e-9)):
        with pytest.raises(OutsideModel, match="window_s"):
            receiver(detector, window_s=window_s)


def test_detector_and_optics_arrive_in_the_receiver_once():
    detector = free_running(
        dead_time_s=1e-5,
        afterpulse_probability=0.02,
        efficiency_ratio=0.9,
        count_rate_max_hz=1e6,
    )
    optics = ReceiverOptics(2.0, 0.01, 3.0, 0.02, "passive")
    made = receiver_of(detector, optics, clock_rate_hz=1e9, z_basis_probability=0.7)
    assert made.loss_db == 2.0 and made.detector_efficiency == 0.2
    assert (made.misalignment_error, made.x_misalignment_error, made.x_extra_loss_db) == (0.01, 0.02, 3.0)
    assert (made.dead_time_s, made.dead_time_model) == (1e-5, "nonparalysable")
    assert (made.efficiency_ratio, made.detector_count_rate_max_hz) == (0.9, 1e6)
    assert (made.afterpulse_probability, made.z_basis_probability, made.detectors) == (0.02, 0.7, 4)
    assert made.captured_fraction == 1.0 and made.leaked_fraction == 0.0


def test_the_dead_time_model_arrives_in_the_receiver():
    assert receiver(free_running(dead_time_model="paralysable")).dead_time_model == "paralysable"


def test_jitter_pulse_and_dispersion_add_in_squares():
    three = receiver(free_running(jitter_fwhm_s=3e-10), pulse_fwhm_s=4e-10, dispersion_fwhm_s=0.0)
    one = receiver(free_running(jitter_fwhm_s=5e-10))
    assert three.captured_fraction == pytest.approx(one.captured_fraction, rel=1e-12)
    assert 0 < three.leaked_fraction < 1 - three.captured_fraction + 1e-12


@pytest.mark.parametrize("name", sorted(GENERIC_DETECTORS))
def test_every_generic_detector_makes_a_receiver_and_names_its_source(name):
    generic = GENERIC_DETECTORS[name]
    made = receiver_of(generic_detector(name), phase_optics(), clock_rate_hz=1e8, z_basis_probability=0.5)
    assert made.detector_efficiency == generic.detector.efficiency
    assert generic.source
    assert all(hasattr(generic.detector, field) for field in generic.unverified)


def test_an_unknown_detector_is_refused_and_the_known_are_named():
    with pytest.raises(OutsideModel, match="snspd") as refusal:
        generic_detector("eye")
    assert refusal.value.parameter == "detector"


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("kind", "photomultiplier"),
        ("efficiency", 0.0),
        ("efficiency", 1.2),
        ("efficiency", math.nan),
        ("dark_count_rate_hz", -1.0),
        ("dark_count_rate_hz", math.nan),
        ("gate_width_s", 0.0),
        ("dead_time_s", -1e-9),
        ("dead_time_model", "parallel"),
        ("afterpulse_probability", 0.5),
        ("jitter_fwhm_s", -1e-12),
        ("efficiency_ratio", 0.0),
        ("efficiency_ratio", 1.1),
        ("count_rate_max_hz", 0.0),
        ("count_rate_max_hz", math.inf),
    ],
)
def test_a_detector_outside_the_model_is_refused_by_name(parameter, value):
    with pytest.raises(OutsideModel, match=parameter) as refusal:
        free_running(**{parameter: value})
    assert refusal.value.parameter == parameter


def test_a_gated_detector_has_a_gate():
    with pytest.raises(OutsideModel, match="gate_width_s"):
        gated(gate_width_s=None)


@pytest.mark.parametrize(
    ("model", "counted"), [("nonparalysable", 1e6 / 11), ("paralysable", 1e6 * math.exp(-10))]
)
def test_ten_microseconds_at_a_million_per_second(model, counted):
    assert counted_rate_hz(1e6, 1e-5, model) == pytest.approx(counted, rel=1e-12)


@given(st.floats(0, 1e9), st.floats(0, 1e-3))
def test_dead_time_only_takes_and_a_paralysable_detector_counts_less(rate_hz, dead_time_s):
    plain = counted_rate_hz(rate_hz, dead_time_s)
    paralysed = counted_rate_hz(rate_hz, dead_time_s, "paralysable")
    assert 0 <= paralysed <= plain * (1 + 1e-12) <= rate_hz * (1 + 1e-12)
    assert counted_rate_hz(rate_hz, 0.0) == rate_hz


@pytest.mark.parametrize("parameter", ["rate_hz", "dead_time_s"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_rate_outside_the_model_is_refused_by_name(parameter, value):
    with pytest.raises(OutsideModel, match=parameter):
        counted_rate_hz(**({"rate_hz": np.array([1.0]), "dead_time_s": 1e-6} | {parameter: value}))
