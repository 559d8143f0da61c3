"""Quadratures of fading: moments, and gains averaged over them against drawn transmittances."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import OutsideModel
from openqci.space.fading import (
    STEADY,
    Fading,
    gamma_fading,
    gamma_gamma_fading,
    log_normal_fading,
    pointing_fading,
)
from openqci.space.pointing import draw_pointing
from openqci.space.turbulence import gamma_gamma_shapes, scintillation_index


def moment(fading, power):
    return float(fading.transmittances**power @ fading.weights)


@given(st.floats(1e-6, 1.0))
def test_log_normal_moments(index):
    fading = log_normal_fading(index, nodes=24)
    assert fading.mean == pytest.approx(1.0, rel=1e-9)
    assert moment(fading, 2) == pytest.approx(1 + index, rel=1e-6)


@given(st.floats(1e-9, 20.0))
def test_gamma_gamma_moments(variance):
    a, b = map(float, gamma_gamma_shapes(variance))
    fading = gamma_gamma_fading(a, b)
    assert fading.mean == pytest.approx(1.0, rel=1e-9)
    assert moment(fading, 2) == pytest.approx(1 + float(scintillation_index(variance)), rel=1e-6)


@given(st.floats(0.2, 1e6))
def test_gamma_moments(shape):
    assert moment(gamma_fading(shape), 2) == pytest.approx(1 + 1 / shape, rel=1e-8)


def test_independent_fadings_multiply():
    jitter, air = pointing_fading(3.0), log_normal_fading(0.1)
    both = jitter.and_also(air)
    assert both.mean == pytest.approx(jitter.mean * air.mean)
    assert moment(both, 2) == pytest.approx(moment(jitter, 2) * moment(air, 2))
    assert both.and_also(STEADY).mean == pytest.approx(both.mean)


def test_a_gain_over_the_quadrature_is_the_gain_over_drawn_errors():
    # A gain that bends: a bright pulse, one photon or more seen.
    def gain(t):
        return -np.expm1(-1.5 * t)

    rng, draws = np.random.Generator(np.random.SFC64(3)), 200_000
    fading = pointing_fading(2.0).and_also(log_normal_fading(0.15))
    spread = math.log1p(0.15)
    air = np.exp(math.sqrt(spread) * rng.standard_normal(draws) - spread / 2)
    drawn = gain(draw_pointing(2.0, draws, rng) * air)
    averaged = float(gain(fading.transmittances) @ fading.weights)
    assert averaged == pytest.approx(drawn.mean(), abs=4 * drawn.std() / math.sqrt(draws))
    # Jensen: less than the gain of the mean, by far more than the error of the drawing.
    assert averaged < float(gain(fading.mean)) - 20 * drawn.std() / math.sqrt(draws)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: Fading(np.array([1.0, -0.1]), np.array([0.5, 0.5])), "transmittances"),
        (lambda: Fading(np.array([1.0, math.nan]), np.array([0.5, 0.5])), "transmittances"),
        (lambda: Fading(np.array([1.0]), np.array([0.5])), "weights"),
        (lambda: Fading(np.array([1.0]), np.array([0.5, 0.5])), "weights"),
        (lambda: Fading(np.array([]), np.array([])), "weights"),
        (lambda: pointing_fading(0.0), "exponent"),
        (lambda: pointing_fading(2.0, nodes=0), "nodes"),
        (lambda: log_normal_fading(-0.1), "scintillation_index"),
        (lambda: gamma_fading(0.0), "shape"),
    ],
)
def test_what_is_outside_is_named_with_its_range(call, field):
    with pytest.raises(OutsideModel, match=rf"{field} = .* expected "):
        call()
