"""Jitter: the mean transmittance, its distribution, and an independent drawing of errors."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from openqci.core.errors import OutsideModel
from openqci.space.diffraction import GaussianBeam
from openqci.space.fading import pointing_fading
from openqci.space.pointing import (
    draw_pointing,
    jitter_exponent,
    mean_loss_db,
    mean_of_loss_db,
    mean_transmittance,
    pointing_density,
    pointing_probability,
    pointing_quantile,
)

EXPONENTS = st.floats(0.05, 1000.0)


def rng(seed):
    return np.random.Generator(np.random.SFC64(seed))


def test_trap_04_mean_loss_is_not_the_loss_of_the_mean():
    # Physics sheet, 1.14.
    b = np.array([2.0, 5.0, 10.0, 20.0])
    assert mean_loss_db(b) == pytest.approx([1.76, 0.79, 0.41, 0.21], abs=0.005)
    assert mean_of_loss_db(b) == pytest.approx([2.17, 0.87, 0.43, 0.22], abs=0.005)
    # The mean over errors drawn one by one tells which of the two photons follow.
    drawn = draw_pointing(2.0, 400_000, rng(1))
    assert -10 * math.log10(drawn.mean()) == pytest.approx(1.761, abs=0.01)
    assert (-10 * np.log10(drawn)).mean() == pytest.approx(2.171, abs=0.02)


def test_the_exponent_from_beam_and_jitter():
    # 10 urad full angle at 1/e^2, 1 urad per axis: b = (5 / 2)^2.
    assert jitter_exponent(GaussianBeam.of_full_angle_1e2(10.0), 1.0) == pytest.approx(6.25)


@pytest.mark.parametrize("b", [0.3, 1.0, 2.0, 6.25, 40.0])
def test_drawn_errors_follow_the_distribution(b):
    # Kolmogorov-Smirnov over five settings: a false alarm in one of 2000 runs.
    drawn = draw_pointing(b, 20_000, rng(int(10 * b)))
    assert stats.kstest(drawn, lambda t: pointing_probability(t, b)).pvalue > 1e-4


@pytest.mark.parametrize("offset", [0.0, 0.2, 0.7])
def test_a_constant_offset_costs_what_drawn_errors_say(offset):
    b, draws = 4.0, 400_000
    # In units of the beam radius the error per axis is 1 / (2 sqrt b).
    x, y = rng(int(100 * offset)).standard_normal((2, draws)) / (2 * math.sqrt(b))
    drawn = np.exp(-2 * ((x + offset) ** 2 + y**2))
    spread = drawn.std() / math.sqrt(draws)
    assert float(mean_transmittance(b, offset)) == pytest.approx(drawn.mean(), abs=4 * spread)


@given(EXPONENTS, st.floats(1e-6, 1.0))
def test_probability_and_quantile_are_each_others_inverse(b, p):
    assert pointing_probability(pointing_quantile(p, b), b) == pytest.approx(p, rel=1e-9)


@pytest.mark.parametrize("b", [0.7, 2.0, 6.25])
def test_the_density_is_the_slope_of_the_probability(b):
    t, step = np.linspace(0.1, 0.95, 20), 1e-6
    slope = (pointing_probability(t + step, b) - pointing_probability(t - step, b)) / (2 * step)
    assert pointing_density(t, b) == pytest.approx(slope, rel=1e-6)


@given(EXPONENTS, EXPONENTS)
def test_less_jitter_never_costs_more(one, other):
    shaky, steady = sorted((one, other))
    assert mean_transmittance(steady) >= mean_transmittance(shaky)
    assert mean_of_loss_db(shaky) >= mean_loss_db(shaky)


def test_no_jitter_costs_nothing():
    assert mean_loss_db(1e9) == pytest.approx(0.0, abs=1e-8)
    assert pointing_fading(1e9).transmittances == pytest.approx(1.0, abs=1e-6)


@given(st.floats(0.05, 1e6))
def test_the_quadrature_has_the_moments_of_the_density(b):
    fading = pointing_fading(b)
    for power in (1, 2, 5, 11):
        assert fading.transmittances**power @ fading.weights == pytest.approx(b / (b + power), rel=1e-8)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: jitter_exponent(GaussianBeam.of_half_angle_1e2(5.0), 0.0), "jitter_urad"),
        (lambda: mean_loss_db(0.0), "exponent"),
        (lambda: mean_transmittance(2.0, -0.1), "offset_over_radius"),
        (lambda: pointing_density(1.1, 2.0), "transmittance"),
        (lambda: pointing_quantile(math.nan, 2.0), "probability"),
        (lambda: draw_pointing(-1.0, 10, rng(0)), "exponent"),
    ],
)
def test_what_is_outside_is_named_with_its_range(call, field):
    with pytest.raises(OutsideModel, match=rf"{field} = .* from .* to "):
        call()
