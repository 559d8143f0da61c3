"""MDI: closed forms against fields and phases at four detectors, published rates, laws."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from openqci.core.errors import OutsideModel
from openqci.proofs.asymptotic import plob_bound
from openqci.proofs.mdi import mdi_bits_per_pulse
from openqci.quantum.mdi import BellStation, MdiArm, MdiLink, mdi_exchange, mdi_statistics

LO_CURTY_QI = BellStation(0.145, 6.02e-6, 0.015)


def link(mu_a=0.3, mu_b=0.3, loss_a_db=5.0, loss_b_db=5.0, station=LO_CURTY_QI) -> MdiLink:
    return MdiLink(MdiArm(mu_a, loss_a_db), MdiArm(mu_b, loss_b_db), station, 1e9)


def bits_per_pulse(tried: MdiLink, efficiency: float = 1.16) -> float:
    a, b = tried.alice.intensity, tried.bob.intensity
    found = mdi_statistics(tried)
    pairs = a * b * math.exp(-a - b) * found.single_yield
    return mdi_bits_per_pulse(pairs, found.single_x_error, found.z_gain, found.z_qber, efficiency)


@pytest.mark.parametrize(
    ("length_km", "golden"), [(0, 5.71e-4), (50, 5.18e-5), (100, 4.57e-6), (150, 3.15e-7)]
)
def test_rates_of_the_set_of_lo_curty_and_qi(length_km, golden):
    # Detectors 14.5 %, 6.02e-6, error 1.5 %, f 1.16, 0.2 dB/km; intensities optimised, equal at both ends.
    half_db = 0.1 * length_km
    best = max(bits_per_pulse(link(mu, mu, half_db, half_db)) for mu in np.linspace(0.05, 1, 191))
    assert best == pytest.approx(golden, rel=3e-3)


GRID = [
    (mu_a, mu_b, loss_db, dark)
    for mu_a, mu_b in ((0.3, 0.3), (0.5, 0.1))
    for loss_db in (0.0, 8.0)
    for dark in (1e-6, 1e-3)
]


@pytest.mark.parametrize(("mu_a", "mu_b", "loss_db", "dark"), GRID)
def test_drawn_results_have_gains_and_errors_of_the_closed_form(mu_a, mu_b, loss_db, dark):
    # 8 settings, 4 exact tests each at 1e-5: one false alarm in 3,000 runs with other seeds.
    tried = link(mu_a, mu_b, loss_db, loss_db + 2, BellStation(0.5, dark, 0.02))
    drawn = mdi_exchange(tried, 60_000, np.random.default_rng(31))
    expected = mdi_statistics(tried)
    wrong = drawn.alice_bits != drawn.bob_bits
    for basis, qber in ((0, expected.z_qber), (1, expected.x_qber)):
        here = drawn.bases == basis
        assert stats.binomtest(int(wrong[here].sum()), int(here.sum()), qber).pvalue > 1e-5
    share = expected.z_gain / (expected.z_gain + expected.x_gain)
    assert stats.binomtest(int((drawn.bases == 0).sum()), 60_000, share).pvalue > 1e-5
    gain = (expected.z_gain + expected.x_gain) / 2
    assert stats.binomtest(60_000, int(drawn.slots[-1]) + 1, gain).pvalue > 1e-5


def test_single_photon_pairs_are_what_weak_pulses_tend_to():
    # For a -> 0 only pairs of single photons and dark counts are left; without dark counts Q -> P11 Y11,
    # and in Z two photons of one end cannot make a result, as H and V both must click.
    faint = link(1e-3, 1e-3, 3.0, 3.0, BellStation(0.5, 0.0, 0.0))
    found = mdi_statistics(faint)
    assert found.z_gain == pytest.approx(1e-6 * found.single_yield, rel=5e-3)


def test_errors_in_x_tend_to_a_quarter_for_weak_light():
    found = mdi_statistics(link(1e-3, 1e-3, station=BellStation(0.5, 0.0, 0.02)))
    assert found.x_qber == pytest.approx(0.25 + 0.02 / 2, abs=1e-3)


@settings(max_examples=40)
@given(st.floats(0.05, 1), st.floats(0, 30), st.floats(0, 10))
def test_more_loss_never_gives_more_key(mu, loss_db, more_db):
    near, far = (max(0.0, bits_per_pulse(link(mu, mu, each, each))) for each in (loss_db, loss_db + more_db))
    assert far <= near + 1e-15


@settings(max_examples=40)
@given(st.floats(0.05, 1), st.floats(0.1, 30), st.floats(0.1, 30))
def test_never_above_the_bound_of_the_whole_way(mu, loss_a_db, loss_b_db):
    perfect = BellStation(1.0, 0.0, 0.0)
    rate = bits_per_pulse(link(mu, mu, loss_a_db, loss_b_db, perfect), 1.0)
    assert rate <= plob_bound(loss_a_db + loss_b_db)


def test_no_light_gives_random_bits():
    found = mdi_statistics(link(1e-12, 1e-12, station=BellStation(0.5, 1e-3, 0.0)))
    assert found.z_qber == pytest.approx(0.5, abs=1e-6) and found.x_qber == pytest.approx(0.5, abs=1e-6)


def test_equal_seeds_give_equal_records():
    first, again = (mdi_exchange(link(), 100, np.random.default_rng(2)) for _ in range(2))
    assert all(np.array_equal(getattr(first, name), getattr(again, name)) for name in vars(first))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: MdiArm(0.0, 1.0), "intensity"),
        (lambda: MdiArm(0.3, -1.0), "loss_db"),
        (lambda: BellStation(1.1, 0.0, 0.0), "detector_efficiency"),
        (lambda: BellStation(0.5, math.nan, 0.0), "dark_count_probability"),
        (lambda: BellStation(0.5, 0.0, 0.6), "misalignment_error"),
        (lambda: replace(link(), clock_rate_hz=0.0), "clock_rate_hz"),
        (lambda: mdi_exchange(link(), 0, np.random.default_rng(1)), "results"),
        (
            lambda: mdi_exchange(
                link(1e-9, 1e-9, station=BellStation(0.1, 0.0, 0.0)), 1, np.random.default_rng(1)
            ),
            "gain",
        ),
        (lambda: mdi_bits_per_pulse(-0.1, 0.0, 0.1, 0.0, 1.1), "single_pairs"),
        (lambda: mdi_bits_per_pulse(0.1, 1.5, 0.1, 0.0, 1.1), "single_x_error"),
        (lambda: mdi_bits_per_pulse(0.1, 0.0, 0.1, math.nan, 1.1), "z_qber"),
        (lambda: mdi_bits_per_pulse(0.1, 0.0, 0.1, 0.0, 0.9), "error_correction_efficiency"),
    ],
)
def test_bad_input_is_refused_by_name(make, said):
    with pytest.raises(OutsideModel, match=said):
        make()
