"""Monte Carlo and closed form are one model: they may differ by chance only."""

import numpy as np
import pytest
from scipy.stats import chisquare

from openqci.quantum import exchange, expected_statistics
from openqci.quantum.link import class_probabilities

DETECTIONS = 200_000
LENGTHS_KM = [0, 20, 40, 60, 80, 100, 120, 140]


@pytest.mark.parametrize("length_km", LENGTHS_KM)
def test_rates_and_errors_agree_within_five_sigma(link, rng, length_km):
    one = link(float(length_km))
    expected, got = expected_statistics(one), exchange(one, DETECTIONS, rng)
    alice, bob = got.emissions, got.detections
    live_pulses = alice.pulses - one.dead_slots * (DETECTIONS - 1)
    for k, probability in enumerate(one.source.probabilities):
        of_k = alice.intensities == k
        assert_binomial(of_k.sum(), live_pulses * probability, expected.gains[k])
        for basis in (0, 1):
            sifted = of_k & (alice.bases == basis) & (bob.bases == basis)
            assert_binomial(sifted.sum(), DETECTIONS, expected.detection_fractions[basis, k])
            errors = (alice.bits != bob.bits)[sifted].sum()
            assert_binomial(errors, sifted.sum(), expected.error_rates[basis, k])
    assert_binomial(bob.double_clicks, DETECTIONS, expected.double_click_fraction)


@pytest.mark.parametrize("length_km", LENGTHS_KM)
@pytest.mark.parametrize("dead_time_s", [0.0, 1e-8, 1e-6])
def test_the_detection_rate_agrees_with_the_dead_time_formula(link, rng, length_km, dead_time_s):
    one = link(float(length_km), dead_time_s=dead_time_s)
    rate_hz = DETECTIONS / exchange(one, DETECTIONS, rng).duration_s
    assert rate_hz == pytest.approx(expected_statistics(one).detection_rate_hz, rel=5 / DETECTIONS**0.5)


@pytest.mark.parametrize("length_km", LENGTHS_KM)
def test_every_class_of_detection_comes_as_often_as_it_should(link, rng, length_km):
    one = link(float(length_km))
    expected = class_probabilities(one).sum(axis=1).ravel()
    got = exchange(one, DETECTIONS, rng)
    alice, bob = got.emissions, got.detections
    index = (((alice.intensities * 2 + bob.bases) * 2 + alice.bases) * 2 + bob.bits) * 2 + alice.bits
    observed = np.bincount(index, minlength=len(expected))
    likely = expected / expected.sum() * DETECTIONS
    rare = likely < 10
    observed = np.append(observed[~rare], observed[rare].sum())
    likely = np.append(likely[~rare], likely[rare].sum())
    keep = likely > 0
    assert chisquare(observed[keep], likely[keep] * observed[keep].sum() / likely[keep].sum()).pvalue > 1e-4


def test_three_intensities_with_vacuum(link, rng):
    one = link(60.0, intensities=(0.5, 0.1, 0.0), probabilities=(0.4, 0.3, 0.3), dark_count_probability=1e-4)
    expected, got = expected_statistics(one), exchange(one, DETECTIONS, rng)
    vacuum = got.emissions.intensities == 2
    seen = expected.gains[2] * 0.3 / expected.click_probability
    assert_binomial(vacuum.sum(), DETECTIONS, seen)
    assert expected.error_rates[0, 2] == pytest.approx(0.5)


def assert_binomial(successes, trials, probability):
    spread = max(1.0, (trials * probability * (1 - probability)) ** 0.5)
    assert abs(successes - trials * probability) < 5 * spread
