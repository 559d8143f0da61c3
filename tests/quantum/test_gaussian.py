"""Clipped normal variables: moments against quadrature of the density, limits, bad input."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from openqci.core.errors import OutsideModel
from openqci.quantum.gaussian import clipped_moments


def integrated(power: int, mean: float, variance: float, limit: float, centre: float) -> float:
    """E[(clip(X) - centre)^power], piece by piece."""
    spread = math.sqrt(variance)
    inside = quad(lambda x: (x - centre) ** power * norm.pdf(x, mean, spread), -limit, limit, limit=200)[0]
    above, below = norm.sf(limit, mean, spread), norm.cdf(-limit, mean, spread)
    return inside + (limit - centre) ** power * above + (-limit - centre) ** power * below


@pytest.mark.parametrize("mean", [0.0, 0.7, 1.4, -2.0])
@pytest.mark.parametrize("variance", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("limit", [0.5, 1.5, 4.0])
def test_moments_are_those_of_the_density(mean, variance, limit):
    found = clipped_moments(mean, variance, limit)
    centre = integrated(1, mean, variance, limit, 0.0)
    second, third, fourth = (integrated(power, mean, variance, limit, centre) for power in (2, 3, 4))
    assert found.mean == pytest.approx(centre, abs=1e-9)
    assert found.variance == pytest.approx(second, rel=1e-7)
    assert found.skewness == pytest.approx(third / second**1.5, abs=1e-5)
    assert found.excess_kurtosis == pytest.approx(fourth / second**2 - 3, rel=1e-5, abs=1e-5)


def test_covariance_keeps_the_part_that_is_not_clipped():
    # Bussgang: drawn, at 5 sigma.
    rng = np.random.default_rng(11)
    other = rng.standard_normal(400_000)
    values = 0.6 * other + 0.8 * rng.standard_normal(400_000) + 1.0
    product = np.clip(values, -1.5, 1.5) * other
    expected = 0.6 * float(clipped_moments(1.0, 1.0, 1.5).gain)
    assert abs(product.mean() - expected) < 5 * product.std() / math.sqrt(len(product))


@given(st.floats(-5, 5), st.floats(0.01, 100), st.floats(0.1, 100))
def test_clipping_never_widens(mean, variance, limit):
    found = clipped_moments(mean, variance, limit)
    assert 0 <= found.variance <= variance * (1 + 1e-12) and 0 <= found.gain <= 1
    assert abs(found.mean) <= limit * (1 + 1e-12)


def test_without_a_limit_nothing_changes():
    found = clipped_moments(0.3, 2.0, math.inf)
    assert (found.mean, found.gain) == (0.3, 1.0) and found.variance == pytest.approx(2.0)
    assert abs(found.skewness) < 1e-12 and abs(found.excess_kurtosis) < 1e-12


def test_far_outside_nothing_is_left():
    found = clipped_moments(1e3, 1.0, 1.0)
    assert (found.mean, found.variance, found.gain) == (1.0, 0.0, 0.0)
    assert (found.skewness, found.excess_kurtosis) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("figures", "name"),
    [
        ((math.nan, 1, 1), "mean"),
        ((0, 0, 1), "variance"),
        ((0, 1, 0), "limit"),
        ((0, 1, [1, math.nan]), "limit"),
    ],
)
def test_bad_input_is_refused_by_name(figures, name):
    with pytest.raises(OutsideModel, match=name):
        clipped_moments(*figures)
