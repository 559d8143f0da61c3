"""The closed form against published figures and against the simpler forms that it refines."""

import math

import numpy as np
import pytest

from openqci.quantum import expected_statistics
from openqci.quantum.clicks import background_probability, backgrounds, clicks
from openqci.quantum.link import class_probabilities


def test_background_of_a_self_differencing_detector():
    # M. Lucamarini et al. 2013 (T12), 50 km: measured Y0 2.9493e-4 per gate of two detectors, from 2.1e-5
    # dark counts, 5.25 % afterpulses and the measured gain 5.016e9 / (1e9 * 1200 s * 0.98828 * 0.9375^2).
    gain = 5.016e9 / (1.2e12 * 0.98828125 * 0.9375**2)
    photons = np.array([-math.log1p(-gain) + 2 * math.log1p(-2.9493e-4 / 2)])
    background = background_probability(photons, np.ones(1), 2.1e-5, 0.0525)
    assert 1 - (1 - background) ** 2 == pytest.approx(2.9493e-4, rel=0.01)


def test_background_solves_its_own_equation():
    photons, probabilities = np.array([0.3, 0.05]), np.array([0.8, 0.2])
    y = background_probability(photons, probabilities, 1e-5, 0.05)
    gain = 1 - (1 - y) ** 2 * float(probabilities @ np.exp(-photons))
    assert y == pytest.approx(1e-5 + 0.05 * gain / 2, rel=1e-12)


def test_backgrounds_of_unequal_detectors_solve_their_equation():
    silence, weights = np.array([0.8, 0.95]), np.array([0.7, 0.3])
    dark = np.array([[1e-3, 4e-2], [2e-2, 6e-2]])
    y = backgrounds(silence, weights, dark, 0.2)
    gain = 1 - float(weights @ (silence * (1 - y).prod(axis=1)))
    assert y == pytest.approx(dark + 0.2 * gain / 2, rel=1e-12)


def test_without_afterpulses_the_background_is_the_dark_count():
    y = background_probability(np.array([0.1]), np.ones(1), 3e-8, 0.0)
    assert y == pytest.approx(3e-8, rel=1e-7)


def test_weak_light_gives_the_gain_and_error_of_the_finite_key_papers(link):
    # C. C. W. Lim et al. 2014, section IV: D = 1 - (1 - 2 p_dc) exp(-n), e = p_dc + e_mis (1 - exp(-n)).
    weak = link(100.0, afterpulse_probability=0.0, misalignment_error=0.02)
    n, p_dc = weak.detectable_photons, 1e-6
    statistics = expected_statistics(weak)
    assert statistics.gains == pytest.approx(1 - (1 - 2 * p_dc) * np.exp(-n), rel=1e-6)
    error = (p_dc - 0.02 * np.expm1(-n)) / statistics.gains
    assert statistics.error_rates[0] == pytest.approx(error, rel=1e-3)
    assert statistics.error_rates[1] == pytest.approx(statistics.error_rates[0], rel=1e-12)


def test_every_pulse_is_seen_in_exactly_one_way():
    seen = clicks(np.array([0.0, 0.1, 5.0]), 1e-3, 0.1)
    silent = (1 - 1e-3) ** 2 * np.exp(-np.array([0.0, 0.1, 5.0]))
    assert seen.right + seen.wrong + seen.double + silent == pytest.approx(np.ones(3), abs=1e-15)


def test_no_light_gives_random_bits(link):
    assert expected_statistics(link(900.0, afterpulse_probability=0.0)).qber == pytest.approx(0.5, abs=1e-9)


def test_dead_time_of_10_us_at_a_million_counts(link):
    # Nonparalysable: 1e6 / (1 + 1e6 * 1e-5) = 9.09e4 per second (physics sheet, 1.1).
    free = link(80.0, dead_time_s=0.0, afterpulse_probability=0.0)
    per_second = expected_statistics(free).click_probability
    million = link(80.0, dead_time_s=1e-5, afterpulse_probability=0.0, clock_rate_hz=1e6 / per_second)
    assert expected_statistics(million).detection_rate_hz == pytest.approx(9.09e4, rel=1e-3)


@pytest.mark.parametrize(
    ("dead_time_s", "gates"), [(0.0, 0), (1e-8, 10), (1.01e-8, 11), (1e-10, 1), (3e-8, 30)]
)
def test_dead_time_is_rounded_up_to_whole_gates(link, dead_time_s, gates):
    assert link(dead_time_s=dead_time_s).dead_slots == gates


def test_the_classes_sum_to_the_mean_gain(link):
    statistics = expected_statistics(link())
    assert class_probabilities(link()).sum() == pytest.approx(statistics.gains @ np.array([0.7, 0.3]))
    assert statistics.click_probability == pytest.approx(statistics.gains @ np.array([0.7, 0.3]))


def test_sifting_keeps_the_square_of_the_basis_probability(link):
    fractions = expected_statistics(link()).detection_fractions.sum(axis=1)
    assert fractions == pytest.approx([0.8**2, 0.2**2], rel=1e-9)


def test_bits_are_unbiased_in_every_class(link):
    table = class_probabilities(link())
    assert table[..., 0].sum() == pytest.approx(table[..., 1].sum())
    assert table[..., 0, :].sum() == pytest.approx(table[..., 1, :].sum())


def test_more_loss_gives_fewer_detections_and_more_errors(link):
    statistics = [expected_statistics(link(km)) for km in range(0, 200, 10)]
    rates = [each.detection_rate_hz for each in statistics]
    assert rates == sorted(rates, reverse=True)
    qbers = [each.qber for each in expected_ordered(statistics)]
    assert qbers == sorted(qbers)


def expected_ordered(statistics):
    """Below some km, strong light makes double clicks, which weigh as errors: QBER is not monotone there."""
    return [each for each in statistics if each.double_click_fraction < 2e-3]


def test_gobby_122_km():
    # C. Gobby, Z. L. Yuan, A. J. Shields, APL 84, 3762 (2004): QBER 8.9 % at 122 km; mu 0.1, receiver 4.5 %,
    # error probability 8.5e-7 per clock (Y0 1.7e-6 of both detectors), 0.21 dB/km, misalignment 3.3 %.
    photons = np.array([0.1 * 0.045 * 10 ** (-0.021 * 122)])
    seen = clicks(photons, 8.5e-7, 0.033)
    qber = (seen.wrong + seen.double / 2) / (seen.right + seen.wrong + seen.double)
    assert qber == pytest.approx([0.089], abs=0.005)
