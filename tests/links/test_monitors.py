"""The monitors: exact tails, false-alarm rates as stated, and alarms that do come."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, chi2, kstest, poisson

from openqci.core.errors import OutsideModel
from openqci.links.attacks import honest_statistics
from openqci.links.attacks.monitors import (
    LAGS,
    Instruments,
    Watch,
    arrival_histograms,
    arrival_p_value,
    autocorrelation,
    binomial_cusum,
    binomial_limits,
    binomial_p_value,
    clicks_while_dead,
    cusum_threshold,
    ljung_box,
    poisson_cusum,
    poisson_limit,
    readings_of_records,
    watched,
    yields_chi_square,
)
from openqci.links.attacks.statistics import readings
from openqci.quantum import exchange
from tests.links.attack_links import THREE, TWO, link, rng


@pytest.mark.parametrize("source", [TWO, THREE], ids=["one decoy", "two decoys"])
def test_false_alarms_of_drawn_honest_blocks_are_as_rare_as_stated(source):
    """150 honest blocks whose budget is 0.3 false alarms each: no more than that, at 1e-4."""
    one, blocks, budget = link(20.0, source), 150, 0.3
    honest = honest_statistics(one)
    watch = Watch(false_alarms_per_day=1000.0).without_drift()
    duration_s = budget * 86_400 / 1000
    generator, alarms = rng(), 0
    for _ in range(blocks):
        drawn = readings_of_records(exchange(one, 15_000, generator), one, honest.instruments)
        found, false_alarms = watched(
            readings(honest, 1e9), drawn, np.array(one.source.probabilities), watch, duration_s
        )
        assert false_alarms == pytest.approx(budget)
        alarms += any(each.trips for each in found)
    assert alarms <= binom.isf(1e-4, blocks, budget)
    # The budget is spent, not slept on: a union bound over correlated tests leaves at least a fifth of it.
    assert alarms >= binom.ppf(1e-4, blocks, budget / 5)


def test_expected_readings_agree_with_drawn_ones():
    one = link(20.0)
    drawn = readings_of_records(exchange(one, 200_000, rng()), one, Instruments())
    expected = readings(honest_statistics(one), drawn.live_pulses)
    for name in ("seen", "sifted", "errors", "double_clicks", "ones"):
        got, mean = np.asarray(getattr(drawn, name)), np.asarray(getattr(expected, name))
        assert (np.abs(got - mean) < 5 * np.sqrt(mean + 1)).all(), name
    assert drawn.ljung_box < chi2.isf(1e-6, LAGS)
    assert drawn.instruments.dead_clicks == 0


def test_a_drift_within_its_allowance_is_no_alarm_and_beyond_it_is():
    one = link()
    honest, pulses = honest_statistics(one), 1e11
    calm = readings(honest, pulses)
    probabilities = np.array(one.source.probabilities)
    for loss_km, alarm in ((50.0, False), (51.5, False), (54.0, True), (47.0, True)):
        found, _ = watched(
            calm, readings(honest_statistics(link(loss_km)), pulses), probabilities, Watch(), 100
        )
        assert any(each.trips for each in found if each.name.startswith("gain")) is alarm
        # A change of loss moves all intensities alike: the comparison of yields stays quiet.
        assert not any(each.trips for each in found if each.name.startswith("yield"))


@given(
    trials=st.integers(1, 10**6),
    low=st.floats(1e-6, 0.5),
    width=st.floats(0, 0.4),
    exponent=st.floats(-9, -1),
)
def test_binomial_limits_are_exact(trials, low, width, exponent):
    alpha, high = 10**exponent, low + width
    below, above = binomial_limits(trials, low, high, alpha)
    for probability in (low, high, (low + high) / 2):
        assert binom.sf(above, trials, probability) <= alpha / 2 * (1 + 1e-6)
        assert binom.cdf(below - 1, trials, probability) <= alpha / 2 * (1 + 1e-6)
    # The next limit inwards would alarm too often: nothing is given away.
    assert above == 0 or binom.sf(above - 1, trials, high) > alpha / 2 * (1 - 1e-6)


def test_limits_of_many_trials_keep_their_meaning():
    below, above = binomial_limits(1e11, 1e-3, 1e-3, 2.866515719e-7 * 2)
    assert (above - 1e8) / math.sqrt(1e8 * 0.999) == pytest.approx(5.0, abs=0.01)
    assert (1e8 - below) / math.sqrt(1e8 * 0.999) == pytest.approx(5.0, abs=0.01)


def test_p_values_and_poisson_limits():
    assert binomial_p_value(50, 100, 0.5) == 1.0
    assert binomial_p_value(8, 10, 0.5) == pytest.approx(2 * 56 / 1024)
    limit = poisson_limit(7.5, 1e-6)
    assert poisson.sf(limit, 7.5) <= 1e-6 < poisson.sf(limit - 1, 7.5)


def test_yields_chi_square_has_its_distribution_under_any_common_loss():
    """Kolmogorov-Smirnov at 1e-4: chi-square with K - 1 degrees of freedom, whatever the loss became."""
    generator, expected = rng(), np.array([4e5, 2e5, 3e4])
    statistics = [yields_chi_square(generator.poisson(expected * 0.7), expected) for _ in range(2000)]
    assert kstest(statistics, chi2(2).cdf).pvalue > 1e-4
    assert yields_chi_square(expected * [1.0, 0.9, 1.0], expected) > chi2.isf(5.7e-7, 2)
    assert yields_chi_square(expected * [1.0, 0.99, 1.0], expected, drift=0.01) < 3
    assert yields_chi_square(np.array([1e5, 0.0]), np.array([1e5, 0.0])) == 0.0


def test_the_chi_square_of_yields_alarms_as_rarely_as_stated_at_its_smallest_counts():
    """20,000 honest blocks with a tail of 1e-3 each, checked at 1e-4."""
    generator, expected = rng(), np.array([2e4, 1e4])
    limit, alarms = chi2.isf(1e-3, 1), 0
    for counts in generator.poisson(expected, (20_000, 2)):
        alarms += yields_chi_square(counts, expected) > limit
    assert alarms <= binom.isf(1e-4, 20_000, 1e-3)
    assert alarms > 0


def test_rare_intensities_are_left_to_their_exact_test():
    one = link(60.0, THREE)
    honest = honest_statistics(one)
    few = readings(honest, 3e5)
    dark = replace(few, seen=few.seen + np.array([0.0, 0.0, 40.0]))
    found, _ = watched(few, dark, np.array(one.source.probabilities), Watch(), 100.0)
    assert [each.name for each in found if each.trips] == ["gain 2"]


@given(st.floats(0, 11), st.floats(0, 120))
def test_the_mean_of_an_honest_block_of_any_size_is_no_alarm(exponent, length_km):
    one = link(length_km, THREE)
    log = readings(honest_statistics(one), 10**exponent)
    found, _ = watched(log, log, np.array(one.source.probabilities), Watch().without_drift(), 100.0)
    assert not any(each.trips for each in found)


def test_autocorrelation_of_random_and_of_sticky_bits():
    generator = rng()
    bits = generator.integers(0, 2, 100_000, dtype=np.uint8)
    assert np.abs(autocorrelation(bits)).max() < 5 / math.sqrt(1e5)
    assert ljung_box(bits) < chi2.isf(1e-6, LAGS)
    sticky = bits.copy()
    copied = generator.random(len(bits)) < 0.02
    copied[0] = False
    sticky[copied] = bits[np.flatnonzero(copied) - 1]
    assert autocorrelation(sticky, 1)[0] == pytest.approx(0.02, abs=5 / math.sqrt(1e5))
    assert ljung_box(sticky) > chi2.isf(1e-4, LAGS) - LAGS / 2
    assert autocorrelation(np.zeros(100, dtype=np.uint8), 3).tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(OutsideModel, match="lags = 50"):
        autocorrelation(bits[:50])


def test_ljung_box_has_its_distribution():
    generator = rng()
    statistics = [ljung_box(generator.integers(0, 2, 4000, dtype=np.uint8)) for _ in range(400)]
    assert kstest(statistics, chi2(LAGS).cdf).pvalue > 1e-4


def test_clicks_while_dead_are_counted():
    slots = np.array([0, 5, 16, 27, 30], dtype=np.int64)
    assert clicks_while_dead(slots, 10) == 2
    assert clicks_while_dead(slots, 0) == 0
    one = link(5.0, dead_time_s=1e-7)
    assert clicks_while_dead(exchange(one, 10_000, rng()).detections.slots, one.dead_slots) == 0


def test_arrival_times_show_a_shift_and_only_then_alarm():
    """Shift of a tenth of the jitter, 40,000 clicks; without it 300 blocks at 1 % alarm about 3 times."""
    generator = rng()
    bits = generator.integers(0, 2, 40_000, dtype=np.uint8)
    times = 1e-9 * np.arange(40_000) + 5e-10 + generator.normal(0, 5e-11, 40_000)
    assert arrival_p_value(arrival_histograms(times, bits, 1e-9)) > 1e-4
    shifted = times + 1e-11 * (bits - 0.5)
    assert arrival_p_value(arrival_histograms(shifted, bits, 1e-9)) < 1e-6
    alarms = 0
    for _ in range(300):
        few = generator.normal(5e-10, 5e-11, 2000)
        alarms += arrival_p_value(arrival_histograms(few, bits[:2000], 1e-9)) < 0.01
    assert alarms <= binom.isf(1e-4, 300, 0.01)


def test_cusum_false_alarms_come_no_more_often_than_stated():
    """Honest Poisson blocks, 1000 a day, one false alarm a day at most: 200 days, checked at 1e-4."""
    generator, days = rng(), 200
    threshold = cusum_threshold(1000.0, 1.0)
    counts = generator.poisson(200.0, 1000 * days).astype(float)
    alarms, start = 0, 0
    while start < len(counts):
        over = np.flatnonzero(poisson_cusum(counts[start : start + 5000], 200.0, 215.0) > threshold)
        alarms += len(over) > 0
        start += int(over[0]) + 1 if len(over) else 5000
    assert alarms <= poisson_limit(days * 1.0, 1e-4)
    assert alarms > 0


def test_cusum_finds_a_small_lasting_change_that_no_single_block_shows():
    generator = rng()
    counts = generator.poisson(215.0, 60).astype(float)
    assert (counts <= poisson_limit(200.0, 1e-6)).all()
    assert poisson_cusum(counts, 200.0, 215.0)[-1] > cusum_threshold(1000.0, 0.01)


def test_cusum_of_error_rates():
    generator, trials = rng(), np.full(50, 20_000.0)
    calm = generator.binomial(20_000, 0.02, 50).astype(float)
    worse = generator.binomial(20_000, 0.023, 50).astype(float)
    threshold = cusum_threshold(1000.0, 0.01)
    assert binomial_cusum(calm, trials, 0.02, 0.023).max() < threshold
    assert binomial_cusum(worse, trials, 0.02, 0.023)[-1] > threshold


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=40))
def test_cusum_is_the_recursion(counts):
    path, level = poisson_cusum(np.array(counts), 100.0, 120.0), 0.0
    for count, value in zip(counts, path, strict=True):
        level = max(0.0, level + count * math.log(1.2) - 20.0)
        assert value == pytest.approx(level, abs=1e-7)


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("false_alarms_per_day", 0.0),
        ("gain_drift", -0.1),
        ("double_click_drift", 1.0),
        ("efficiency_drift", math.nan),
        ("yield_drift", -1.0),
        ("qber_drift", 0.6),
        ("bias_drift", math.inf),
        ("tap_tolerance", 0.0),
        ("tap_samples", 1.0),
        ("watchdog_threshold_w", 0.0),
        ("current_noise", 0.0),
    ],
)
def test_bad_settings_name_field_and_range(field, bad):
    with pytest.raises(OutsideModel, match=rf"{field} = .*expected a finite number from"):
        Watch(**{field: bad})


def test_bad_arguments_name_field_and_range():
    with pytest.raises(OutsideModel, match="false_alarms_per_day"):
        cusum_threshold(10.0, 0.0)
    with pytest.raises(OutsideModel, match="honest_mean"):
        poisson_cusum(np.ones(3), 0.0, 1.0)
    with pytest.raises(OutsideModel, match="gate_s"):
        arrival_histograms(np.ones(2), np.ones(2, dtype=np.uint8), -1.0)
    with pytest.raises(OutsideModel, match="successes"):
        binomial_p_value(11, 10, 0.5)
