"""Sampled clouds: their shares, their persistence and what happens together, against closed forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal, norm

from openqci.core.errors import OutsideModel
from openqci.space.time_scales import utc_seconds
from openqci.space.weather import (
    CloudClimate,
    below_both,
    distances_km,
    months_of,
    sample_clouds,
    seasonal,
)

START = utc_seconds("2027-01-01")
YEAR_H = 8760

MUNICH, GRAZ, CRETE, TEIDE = (48.1, 11.6), (47.1, 15.5), (35.2, 24.9), (28.3, -16.5)


def climate(probability=(0.5, 0.45, 0.2, 0.2), **options) -> CloudClimate:
    latitudes, longitudes = zip(MUNICH, GRAZ, CRETE, TEIDE, strict=True)
    return CloudClimate.of(
        ["munich", "graz", "crete", "teide"], latitudes, longitudes, probability, **options
    )


@pytest.fixture(scope="module")
def century():
    return sample_clouds(climate(), START, 20 * YEAR_H, np.random.default_rng(7))


def both_cloudy(p: float, q: float, correlation: float) -> float:
    """By SciPy: an implementation that is not ours."""
    joint = multivariate_normal(cov=[[1, correlation], [correlation, 1]])
    return float(joint.cdf([norm.ppf(p), norm.ppf(q)]))


def test_shares_are_those_of_the_climate(century):
    # 20 years with some 6000 independent half days: two standard errors are 0.012.
    assert century.cloudy.mean(axis=0) == pytest.approx([0.5, 0.45, 0.2, 0.2], abs=0.015)


@pytest.mark.parametrize("lag_h", [1, 6, 24])
def test_clouds_persist_as_the_kernel_says(century, lag_h):
    cloudy = century.cloudy[:, 0]
    again = (cloudy[:-lag_h] & cloudy[lag_h:]).mean()
    assert again == pytest.approx(both_cloudy(0.5, 0.5, np.exp(-lag_h / 12.0)), abs=0.015)


@pytest.mark.parametrize("pair", [(0, 1), (0, 2), (2, 3)])
def test_neighbours_are_cloudy_together_as_the_kernel_says(century, pair):
    a, b = pair
    kept = climate().correlation[a, b]
    together = (century.cloudy[:, a] & century.cloudy[:, b]).mean()
    shares = climate().probability_by_month[:, 0]
    assert together == pytest.approx(both_cloudy(shares[a], shares[b], kept), abs=0.015)


def test_the_nearer_the_more_alike(century):
    correlations = np.corrcoef(century.cloudy.T.astype(float))
    assert correlations[0, 1] > correlations[0, 2] > correlations[0, 3] - 0.02


def test_months_have_their_own_share():
    by_month = np.tile(np.linspace(0.1, 0.9, 12), (4, 1))
    clouds = sample_clouds(climate(by_month), START, 40 * YEAR_H, np.random.default_rng(1))
    month = months_of(START + 3600.0 * np.arange(len(clouds.cloudy)))
    shares = [clouds.cloudy[month == each].mean() for each in range(12)]
    assert shares == pytest.approx(by_month[0], abs=0.03)


def test_one_seed_one_weather():
    one, two, other = (
        sample_clouds(climate(), START, 500, np.random.default_rng(seed)).cloudy for seed in (3, 3, 4)
    )
    assert (one == two).all() and (one != other).any()


def test_two_stations_at_one_place_have_one_sky():
    twins = CloudClimate.of(["a", "b"], [48.0, 48.0], [11.0, 11.0], [0.5, 0.5])
    clouds = sample_clouds(twins, START, 5000, np.random.default_rng(5)).cloudy
    assert (clouds[:, 0] == clouds[:, 1]).mean() > 0.999


def test_what_is_seen_now_tells_the_next_hours_and_not_the_next_week(century):
    """The chance after an observation, against how often it was so in the sample."""
    of = climate()
    cloudy = century.cloudy[:, 0]
    for ahead_h in (2, 12):
        for seen in (True, False):
            rows = np.flatnonzero(cloudy[:-ahead_h] == seen)
            then = of.chance_after(
                np.zeros(1, int), np.array([START + ahead_h * 3600.0]), START, np.array([seen])
            )
            assert cloudy[rows + ahead_h].mean() == pytest.approx(then[0], abs=0.02)
    week = of.chance_after(np.zeros(2, int), np.full(2, START + 7 * 86_400.0), START, np.array([True, False]))
    assert week == pytest.approx([0.5, 0.5], abs=1e-4)
    now = of.chance_after(np.zeros(2, int), np.full(2, START), START, np.array([True, False]))
    assert now == pytest.approx([1.0, 0.0], abs=1e-4)


@given(
    st.floats(-3, 3),
    st.floats(-3, 3),
    st.floats(0, 0.999),
)
def test_below_both_against_scipy(a, b, correlation):
    ours = float(below_both(a, b, correlation))
    joint = multivariate_normal(cov=[[1, correlation], [correlation, 1]])
    assert ours == pytest.approx(float(joint.cdf([a, b])), abs=2e-5)
    assert max(0.0, norm.cdf(a) + norm.cdf(b) - 1) - 1e-9 <= ours <= min(norm.cdf(a), norm.cdf(b)) + 1e-5


@given(st.floats(0.01, 0.99), st.lists(st.floats(-3, 3), min_size=12, max_size=12))
def test_seasons_keep_the_mean_and_the_order(mean, shifts):
    found = seasonal(mean, np.array(shifts))
    assert found.mean() == pytest.approx(mean, abs=1e-9) and ((found > 0) & (found < 1)).all()
    order = np.argsort(shifts, kind="stable")
    assert (np.diff(found[order]) >= -1e-12).all()
    assert seasonal(0.0, np.array(shifts)).tolist() == [0.0] * 12


def test_distances():
    # Munich to Crete by the great circle, independent figure: 1 800 km within one per cent.
    found = distances_km(np.array([48.1, 35.2, 48.1]), np.array([11.6, 24.9, 11.6]))
    assert found[0, 1] == pytest.approx(1800.0, rel=0.01) and found[0, 2] == 0.0
    assert (found == found.T).all()


def test_what_is_refused():
    clouds = sample_clouds(climate(), START, 10, np.random.default_rng(1))
    with pytest.raises(OutsideModel, match="hour"):
        clouds.at(np.zeros(1, int), np.array([START + 36_001.0]))
    with pytest.raises(OutsideModel, match="hours"):
        sample_clouds(climate(), START, 0, np.random.default_rng(1))
    with pytest.raises(OutsideModel, match="probability_by_month"):
        climate((0.5, 0.5, 0.5, 1.2))
    with pytest.raises(OutsideModel, match="shape"):
        CloudClimate(("a",), np.zeros(1), np.zeros(1), np.zeros((2, 12)))
    with pytest.raises(OutsideModel, match="ahead_h"):
        climate().chance_after(np.zeros(1, int), np.array([START]), START + 60.0, np.array([True]))
