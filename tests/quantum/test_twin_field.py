"""Twin field: closed forms against windows drawn one by one, scaling with half of the way, limits."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from openqci.core.errors import OutsideModel
from openqci.proofs.asymptotic import plob_bound
from openqci.proofs.twin_field import sns_bits_per_window
from openqci.quantum.twin_field import (
    PhaseStation,
    TwinArm,
    TwinFieldLink,
    twin_field_exchange,
    twin_field_statistics,
)


def link(loss_db=20.0, dark=1e-6, phase_sd_rad=0.2, sends=0.1, intensity=0.3) -> TwinFieldLink:
    arm, station = TwinArm(loss_db / 2), PhaseStation(0.8, dark, 0.98, phase_sd_rad)
    return TwinFieldLink(arm, arm, station, 1e9, sends, intensity, x_intensity=0.1)


def bits_per_window(tried: TwinFieldLink) -> float:
    s, mu = tried.sending_probability, tried.intensity
    found = twin_field_statistics(tried)
    single = 2 * s * (1 - s) * mu * math.exp(-mu) * found.single_yield
    return sns_bits_per_window(single, found.single_phase_error, found.z_gain, found.z_qber, 1.1)


def best_bits_per_window(loss_db: float, dark: float = 1e-9, phase_sd_rad: float = 0.2) -> float:
    return max(
        bits_per_window(link(loss_db, dark, phase_sd_rad, float(s), float(mu)))
        for s in np.geomspace(0.01, 0.3, 25)
        for mu in np.geomspace(0.05, 1.0, 20)
    )


GRID = [
    (loss_db, dark, sends, intensity)
    for loss_db in (3.0, 20.0)
    for dark in (1e-6, 1e-2)
    for sends, intensity in ((0.1, 0.3), (0.4, 1.0))
]


@pytest.mark.parametrize(("loss_db", "dark", "sends", "intensity"), GRID)
def test_drawn_windows_have_gains_and_errors_of_the_closed_form(loss_db, dark, sends, intensity):
    # 8 settings, 4 exact tests each at 1e-5: one false alarm in 3,000 runs with other seeds.
    tried = link(loss_db, dark, 0.4, sends, intensity)
    drawn = twin_field_exchange(tried, 60_000, np.random.default_rng(13))
    expected = twin_field_statistics(tried)
    wrong = drawn.alice_bits != drawn.bob_bits
    for window, qber in ((0, expected.z_qber), (1, expected.x_qber)):
        here = drawn.windows == window
        assert stats.binomtest(int(wrong[here].sum()), int(here.sum()), qber).pvalue > 1e-5
    z, x = 0.9 * expected.z_gain, 0.1 * expected.x_gain
    assert stats.binomtest(int((drawn.windows == 0).sum()), 60_000, z / (z + x)).pvalue > 1e-5
    assert stats.binomtest(int(drawn.detectors.sum()), 60_000).pvalue > 1e-5


def test_gains_by_who_sent_are_those_of_fields_window_by_window():
    # A mechanism of its own: 400,000 windows each, detectors fired one by one; 4 tests at 1e-5.
    tried, rng = link(3.0, 1e-2, intensity=1.0), np.random.default_rng(5)
    mean = tried.arm_efficiency * tried.intensity
    for sent, expected in enumerate(twin_field_statistics(tried).sent_gains):
        amplitude = math.sqrt(mean) * (sent in (1, 3)), math.sqrt(mean) * (sent in (2, 3))
        other = amplitude[1] * np.exp(1j * rng.uniform(0, 2 * np.pi, 400_000))
        photons = [rng.poisson(np.abs(amplitude[0] + sign * other) ** 2 / 2) for sign in (1, -1)]
        first, second = ((each > 0) | (rng.random(400_000) < 1e-2) for each in photons)
        assert stats.binomtest(int((first ^ second).sum()), 400_000, expected).pvalue > 1e-5


def test_phase_noise_gives_half_of_the_contrast_that_is_lost():
    station = PhaseStation(0.8, 0.0, 0.98, 0.5)
    assert station.phase_error == pytest.approx((1 - 0.98 * math.exp(-0.125)) / 2)
    faint = replace(link(30.0, 0.0, 0.5), x_intensity=1e-3)
    assert twin_field_statistics(faint).x_qber == pytest.approx(station.phase_error, abs=1e-4)


def test_rates_fall_with_the_square_root_of_the_loss():
    # Ten times less light at the far end costs a factor of sqrt(10), where dark counts do not matter yet.
    rates = [best_bits_per_window(loss_db, 1e-13) for loss_db in (60.0, 70.0, 80.0)]
    assert rates[0] / rates[1] == pytest.approx(math.sqrt(10), rel=0.02)
    assert rates[1] / rates[2] == pytest.approx(math.sqrt(10), rel=0.02)


def test_it_beats_the_repeaterless_bound_far_away_and_not_nearby():
    assert best_bits_per_window(20.0) < plob_bound(20.0)
    assert best_bits_per_window(80.0) > plob_bound(80.0)


def test_a_phase_that_is_not_kept_leaves_no_key():
    assert best_bits_per_window(60.0, phase_sd_rad=3.0) <= 0 < best_bits_per_window(60.0)


@settings(max_examples=40)
@given(st.floats(0, 100), st.floats(0, 20))
def test_more_loss_never_gives_more_key(loss_db, more_db):
    near, far = (max(0.0, bits_per_window(link(each))) for each in (loss_db, loss_db + more_db))
    assert far <= near + 1e-15


def test_equal_seeds_give_equal_records():
    first, again = (twin_field_exchange(link(), 100, np.random.default_rng(2)) for _ in range(2))
    assert all(np.array_equal(getattr(first, name), getattr(again, name)) for name in vars(first))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TwinArm(-1.0), "loss_db"),
        (lambda: PhaseStation(0.0, 0.0, 1.0, 0.0), "detector_efficiency"),
        (lambda: PhaseStation(0.5, 0.2, 1.0, 0.0), "dark_count_probability"),
        (lambda: PhaseStation(0.5, 0.0, 1.1, 0.0), "visibility"),
        (lambda: PhaseStation(0.5, 0.0, 1.0, math.nan), "phase_sd_rad"),
        (lambda: replace(link(), sending_probability=1.0), "sending_probability"),
        (lambda: replace(link(), intensity=0.0), "intensity"),
        (lambda: replace(link(), x_intensity=11.0), "x_intensity"),
        (lambda: replace(link(), z_window_probability=0.0), "z_window_probability"),
        (lambda: replace(link(), clock_rate_hz=-1.0), "clock_rate_hz"),
        (lambda: replace(link(), bob=TwinArm(3.0)), "equal losses of both arms"),
        (lambda: twin_field_exchange(link(), 0, np.random.default_rng(1)), "clicks"),
        (lambda: sns_bits_per_window(2.0, 0.0, 0.1, 0.0, 1.1), "single_clicks"),
        (lambda: sns_bits_per_window(0.1, 0.0, -0.1, 0.0, 1.1), "z_gain"),
        (lambda: sns_bits_per_window(0.1, 0.0, 0.1, 0.0, 0.5), "error_correction_efficiency"),
    ],
)
def test_bad_input_is_refused_by_name(make, said):
    with pytest.raises(OutsideModel, match=said):
        make()
