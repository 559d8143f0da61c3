"""A wandering angle: closed forms against drawn paths, and what it does to a link."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import OutsideModel
from openqci.quantum import FibreSpan, QuantumLink, exchange, expected_statistics, fibre_kind
from openqci.quantum.drift import AngleDrift, drawn_angles, drawn_errors

WIND = AngleDrift(sigma_rad=0.25, correlation_time_s=0.2)


def test_limits_of_the_mean_error():
    assert AngleDrift(0.0, 1.0).mean_error() == 0.0
    assert AngleDrift(10.0, 1.0).mean_error() == pytest.approx(0.5, abs=1e-12)
    assert AngleDrift(1e-3, 1.0).mean_error() == pytest.approx(1e-6, rel=1e-5)  # sigma^2


def test_the_mean_over_a_drawn_path_is_that_of_the_closed_form(rng):
    # 200 correlation times per draw, 400 independent draws: five standard errors.
    times_s = np.arange(0, 200 * WIND.correlation_time_s, WIND.correlation_time_s / 4)
    means = [drawn_errors(WIND, times_s, rng).mean() for _ in range(400)]
    assert abs(np.mean(means) - WIND.mean_error()) < 5 * np.std(means) / 20


def test_angles_have_the_spread_and_the_memory_of_the_process(rng):
    angles = drawn_angles(WIND, np.arange(400_000) * 0.1, rng)
    assert angles.std() == pytest.approx(WIND.sigma_rad, rel=0.02)
    for lag in (1, 2, 5):
        correlation = np.corrcoef(angles[:-lag], angles[lag:])[0, 1]
        assert correlation == pytest.approx(math.exp(-lag * 0.1 / 0.2), abs=0.02)


def test_the_spacing_of_the_times_does_not_matter(rng):
    # A draw at two far times through many between, and without them, is equally spread.
    dense = np.array([drawn_angles(WIND, np.linspace(0, 0.3, 31), rng)[[0, -1]] for _ in range(4000)])
    sparse = np.array([drawn_angles(WIND, [0.0, 0.3], rng) for _ in range(4000)])
    for drawn in (dense, sparse):
        assert np.corrcoef(drawn.T)[0, 1] == pytest.approx(math.exp(-1.5), abs=5 / 4000**0.5)
        assert drawn[:, 1].std() == pytest.approx(WIND.sigma_rad, rel=5 / 8000**0.5)


def test_after_an_alignment_the_error_grows_to_its_mean():
    errors = WIND.mean_error_after([0.0, 0.01, 0.1, 100.0])
    assert errors[0] == 0.0 and (np.diff(errors) > 0).all()
    assert errors[-1] == pytest.approx(WIND.mean_error(), rel=1e-12)
    assert WIND.mean_error_after(0.0, 0.3) == pytest.approx(math.sin(0.3) ** 2)


@pytest.mark.parametrize("time_s", [0.02, 0.2, 1.0])
def test_what_follows_a_known_angle_averages_to_the_mean_over_all_angles(time_s):
    # Nodes of Gauss-Hermite quadrature over the long-term distribution of the angle.
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    errors = WIND.mean_error_after(time_s, WIND.sigma_rad * nodes)
    assert weights @ errors / weights.sum() == pytest.approx(WIND.mean_error(), rel=1e-9)


@given(st.floats(1e-3, 3), st.floats(1e-3, 1e3), st.floats(0, 1e4))
def test_aligning_more_often_never_hurts(sigma_rad, correlation_time_s, interval_s):
    drift = AngleDrift(sigma_rad, correlation_time_s)
    often, seldom = (drift.mean_error_between_alignments(each) for each in (interval_s / 2, interval_s))
    assert 0 <= often <= seldom * (1 + 1e-6) + 1e-12
    assert seldom <= drift.mean_error() * (1 + 1e-9)


def test_the_mean_between_alignments_is_the_integral():
    times_s = (np.arange(100_000) + 0.5) / 100_000 * 0.7
    mean = WIND.mean_error_after(times_s).mean()
    assert WIND.mean_error_between_alignments(0.7) == pytest.approx(mean, rel=1e-6)


def with_channel(link, error):
    return QuantumLink(
        link.source,
        FibreSpan(fibre_kind("g652d-aerial-1550"), 50.0).channel(misalignment_error=error),
        link.receiver,
    )


def test_trap_19_drift_changes_the_error_rate_and_not_the_gain(link):
    calm, windy = (
        expected_statistics(link(50.0)),
        expected_statistics(with_channel(link(50.0), WIND.mean_error())),
    )
    assert windy.gains == pytest.approx(calm.gains, rel=1e-12)
    assert windy.detection_rate_hz == pytest.approx(calm.detection_rate_hz, rel=1e-12)
    # Independent turns: e + d - 2 e d of the light.
    assert windy.qber == pytest.approx(calm.qber + WIND.mean_error() * (1 - 2 * calm.qber), rel=1e-3)
    assert windy.qber > calm.qber + 0.04


def test_trap_19_less_loss_on_poles_can_be_worse_than_more_in_the_ground(link):
    # arXiv:2608.18869: 13.3 % at 17 dB mostly aerial, 6.1 % at 21 dB mostly buried.
    aerial = AngleDrift(sigma_rad=0.37, correlation_time_s=0.1)
    short, long = link(85.0), link(105.0)
    assert expected_statistics(short).qber < expected_statistics(long).qber
    poles = QuantumLink(
        short.source,
        FibreSpan(fibre_kind("g652d-aerial-1550"), 85.0).channel(misalignment_error=aerial.mean_error()),
        short.receiver,
    )
    assert expected_statistics(poles).qber > 0.1 > expected_statistics(long).qber


def test_the_mean_of_a_link_followed_in_time_is_the_link_of_the_mean(link, rng):
    # 60 blocks with the angle of their time against one block with the mean angle; z-test at five sigma.
    base = link(50.0)
    errors = drawn_errors(WIND, np.arange(60) * 2.0, rng)
    wrong = seen = 0
    for error in errors:
        got = exchange(with_channel(base, float(error)), 20_000, rng)
        sifted = (got.emissions.bases == 0) & (got.detections.bases == 0)
        wrong += int((got.emissions.bits != got.detections.bits)[sifted].sum())
        seen += int(sifted.sum())
    expected = expected_statistics(with_channel(base, float(errors.mean()))).qber
    assert abs(wrong - seen * expected) < 5 * math.sqrt(seen * expected)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("sigma_rad", -0.1),
        ("sigma_rad", math.nan),
        ("correlation_time_s", 0.0),
        ("correlation_time_s", math.inf),
    ],
)
def test_a_drift_outside_the_model_is_refused_by_name(parameter, value):
    with pytest.raises(OutsideModel, match=parameter):
        AngleDrift(**({"sigma_rad": 0.1, "correlation_time_s": 1.0} | {parameter: value}))


@pytest.mark.parametrize("times_s", [[1.0, 0.5], [0.0, math.nan], [[0.0, 1.0]]])
def test_times_that_fall_are_refused(times_s, rng):
    with pytest.raises(OutsideModel, match="times_s"):
        drawn_angles(WIND, times_s, rng)


def test_a_negative_time_or_interval_is_refused():
    with pytest.raises(OutsideModel, match="time_s"):
        WIND.mean_error_after(-1.0)
    with pytest.raises(OutsideModel, match="interval_s"):
        WIND.mean_error_between_alignments(-1.0)


def test_no_times_give_no_angles(rng):
    assert drawn_angles(WIND, [], rng).shape == (0,)
