"""BBM92 with a continuous pump: rates in closed form against time tags, and the best settings."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from openqci.core.errors import OutsideModel
from openqci.quantum.bbm92_cw import (
    TimedPairLink,
    TimedReceiver,
    best_brightness_and_window,
    cw_statistics,
    entropy_bits,
    timed_exchange,
)


def link(brightness_hz=1e6, loss_db=10.0, dark_hz=1e3, dead_time_s=0.0, window_s=2e-9) -> TimedPairLink:
    end = TimedReceiver(loss_db, 0.8, dark_hz, dead_time_s)
    return TimedPairLink(brightness_hz, end, end, window_s, timing_fwhm_s=1e-9, polarisation_error=0.02)


GRID = [
    (brightness, loss_db, dead_time_s)
    for brightness in (1e5, 3e6)
    for loss_db in (3.0, 12.0)
    for dead_time_s in (0.0, 2e-7)
]


@pytest.mark.parametrize(("brightness_hz", "loss_db", "dead_time_s"), GRID)
def test_time_tags_have_rates_and_errors_of_the_closed_form(brightness_hz, loss_db, dead_time_s):
    # 16 tests at 1e-4 each: one false alarm in 600 runs with other seeds. The closed form takes dead time
    # per end as independent; the tags share their pairs, so light is weak enough for that to be the same.
    tried = link(brightness_hz, loss_db, dead_time_s=dead_time_s, window_s=1e-8)
    if dead_time_s:
        tried = replace(tried, brightness_hz=brightness_hz / 30)
    drawn = timed_exchange(tried, 8000, np.random.default_rng(21))
    expected = cw_statistics(tried)
    mean = expected.coincidence_rate_hz * drawn.duration_s
    assert stats.poisson.sf(7999, mean) > 5e-5 and stats.poisson.cdf(8000, mean) > 5e-5
    equal = drawn.alice_bases == drawn.bob_bases
    wrong = int((drawn.alice_bits != drawn.bob_bits)[equal].sum())
    assert stats.binomtest(wrong, int(equal.sum()), expected.qber).pvalue > 1e-4


def test_the_window_captures_the_error_function_of_the_jitter():
    narrow, wide = (cw_statistics(link(window_s=each)).true_rate_hz for each in (1e-9, 1e-7))
    assert narrow / wide == pytest.approx(stats.norm.cdf(0.5 * 2.3548) * 2 - 1, rel=1e-4)
    drawn = timed_exchange(link(1e4, window_s=1e-7, dark_hz=0.0), 20_000, np.random.default_rng(4))
    apart_s = drawn.alice_times_s - drawn.bob_times_s
    close = int((abs(apart_s) <= 0.5e-9).sum())
    assert close / 20_000 == pytest.approx(narrow / wide, abs=0.015)


def test_accidentals_are_wrong_half_of_the_time():
    noise = link(brightness_hz=0.0, dark_hz=1e6, window_s=1e-8)
    assert cw_statistics(noise).qber == pytest.approx(0.5)
    assert cw_statistics(noise).coincidence_rate_hz == pytest.approx(1e6 * 1e6 * 1e-8, rel=0.02)


def test_more_brightness_brings_more_errors():
    errors = [cw_statistics(link(brightness_hz=each)).qber for each in (1e4, 1e6, 1e8)]
    assert errors == sorted(errors)


def key_rate(tried: TimedPairLink) -> float:
    found = cw_statistics(tried)
    return found.coincidence_rate_hz * (1 - 2.1 * float(entropy_bits(np.float64(found.qber))))


def test_brightness_and_window_are_optimised_together():
    tried = link(loss_db=15.0)
    best = best_brightness_and_window(tried, 1.1)
    rate = key_rate(best)
    brightness = np.geomspace(1e4, 1e11, 300)
    windows = np.geomspace(3e-10, 4e-9, 60)
    tried_rates = [
        key_rate(replace(best, brightness_hz=float(b), window_s=float(w)))
        for b in brightness[::6]
        for w in windows[::3]
    ]
    assert rate >= max(tried_rates) * 0.999
    assert rate > key_rate(replace(best, brightness_hz=best.brightness_hz * 2))
    assert rate > key_rate(replace(best, window_s=best.window_s * 2))


def test_dead_time_limits_the_singles():
    found = cw_statistics(link(brightness_hz=1e11, loss_db=3.0, dead_time_s=1e-6))
    assert found.singles_a_hz == pytest.approx(1e6, rel=1e-3)


@settings(max_examples=30)
@given(st.floats(0, 40), st.floats(0, 10))
def test_more_loss_never_gives_more_true_pairs(loss_db, more_db):
    near, far = (cw_statistics(link(loss_db=each)).true_rate_hz for each in (loss_db, loss_db + more_db))
    assert far <= near


def test_equal_seeds_give_equal_records():
    first, again = (timed_exchange(link(), 50, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first.alice_times_s, again.alice_times_s)
    assert np.array_equal(first.bob_bits, again.bob_bits)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TimedReceiver(-1.0, 0.8, 0.0), "loss_db"),
        (lambda: TimedReceiver(1.0, 0.0, 0.0), "detector_efficiency"),
        (lambda: TimedReceiver(1.0, 0.8, -1.0), "dark_count_rate_hz"),
        (lambda: TimedReceiver(1.0, 0.8, 0.0, 2.0), "dead_time_s"),
        (lambda: link(brightness_hz=float("nan")), "brightness_hz"),
        (lambda: link(window_s=0.0), "window_s"),
        (lambda: replace(link(), timing_fwhm_s=0.0), "timing_fwhm_s"),
        (lambda: replace(link(), polarisation_error=0.7), "polarisation_error"),
        (lambda: timed_exchange(link(), 0, np.random.default_rng(1)), "coincidences"),
        (lambda: timed_exchange(link(0.0, dark_hz=0.0), 1, np.random.default_rng(1)), "coincidence_rate"),
        (lambda: best_brightness_and_window(link(), 0.9), "error_correction_efficiency"),
    ],
)
def test_bad_input_is_refused_by_name(make, said):
    with pytest.raises(OutsideModel, match=said):
        make()
