"""BBM92, pulsed: the closed form against all four detectors counted out, and against drawn pairs."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from openqci.core.errors import OutsideModel
from openqci.quantum.bbm92 import (
    PairLink,
    PairReceiver,
    PulsedPairSource,
    bbm92_statistics,
    pair_error_gain,
    pair_exchange,
    pair_gain,
)

PAIRS = 60


def link(mean_pairs=0.1, loss_a_db=5.0, loss_b_db=7.0, dark=1e-5, misalignment=0.015) -> PairLink:
    ends = [PairReceiver(loss_db, 0.6, dark) for loss_db in (loss_a_db, loss_b_db)]
    return PairLink(PulsedPairSource(1e8, mean_pairs), *ends, misalignment)


def enumerated(tried: PairLink) -> tuple[float, float]:
    """Return gain and error rate by counting out the pairs in each mode and all four detectors."""
    per_mode = tried.source.mean_pairs / 2
    n0, n1 = np.meshgrid(np.arange(PAIRS), np.arange(PAIRS), indexing="ij")
    chance = (per_mode / (1 + per_mode)) ** (n0 + n1) / (1 + per_mode) ** 2

    def bits(end: PairReceiver, first, second):
        fires = [1 - (1 - end.dark_count_probability) * (1 - end.efficiency) ** n for n in (first, second)]
        both = fires[0] * fires[1]
        return fires[0] * (1 - fires[1]) + both / 2, fires[1] * (1 - fires[0]) + both / 2

    alice, straight, swapped = bits(tried.alice, n0, n1), bits(tried.bob, n0, n1), bits(tried.bob, n1, n0)
    turned = tried.misalignment_error
    bob = [(1 - turned) * a + turned * b for a, b in zip(straight, swapped, strict=True)]
    equal = float((chance * (alice[0] * bob[0] + alice[1] * bob[1])).sum())
    unequal = float((chance * (alice[0] * bob[1] + alice[1] * bob[0])).sum())
    return equal + unequal, unequal / (equal + unequal)


@settings(max_examples=40)
@given(st.floats(0.001, 0.5), st.floats(0, 20), st.floats(0, 20), st.floats(0, 1e-2), st.floats(0, 0.3))
def test_the_closed_form_is_the_enumeration(mean_pairs, loss_a_db, loss_b_db, dark, misalignment):
    tried = link(mean_pairs, loss_a_db, loss_b_db, dark, misalignment)
    closed = bbm92_statistics(tried)
    # The closed gain is a difference of numbers near one: exact to some 1e-15.
    assert (closed.gain, closed.qber) == pytest.approx(enumerated(tried), rel=1e-7, abs=1e-9)


def test_trap_15_pairs_are_thermal_and_the_bracket_is_not_squared():
    per_mode, a, b, wrong = 0.1, 0.3, 0.2, 0.015
    gain = float(pair_gain(per_mode, a, b, 0.0, 0.0))
    right = float(pair_error_gain(gain, per_mode, a, b, 0.0, 0.0, wrong)) / gain
    ends = [PairReceiver(0.0, each, 0.0) for each in (a, b)]
    counted = enumerated(PairLink(PulsedPairSource(1e8, 2 * per_mode), *ends, wrong))
    assert (gain, right) == pytest.approx(counted, rel=1e-10)
    last = 1 + (a + b - a * b) * per_mode
    correlated = 2 * a * b * per_mode * (1 + per_mode) / ((1 + a * per_mode) * (1 + b * per_mode) * last)
    squared = 0.5 - (0.5 - wrong) * correlated / last / gain
    assert squared > 1.2 * right
    # Poissonian pairs of the same mean give fewer double pairs, and so another error rate.
    n = np.arange(PAIRS)
    poisson = stats.poisson.pmf(n, 2 * per_mode)
    gain_poisson = float((poisson * (1 - (1 - a) ** n) * (1 - (1 - b) ** n)).sum())
    assert abs(gain_poisson / gain - 1) > 0.03


GRID = [
    (mean, loss_db, dark) for mean in (0.01, 0.1, 0.5) for loss_db in (0.0, 6.0, 15.0) for dark in (0.0, 1e-4)
]


@pytest.mark.parametrize(("mean_pairs", "loss_db", "dark"), GRID)
def test_drawn_pairs_have_the_error_rate_of_the_closed_form(mean_pairs, loss_db, dark):
    # 18 exact binomial tests at 1e-5 each and chi-squares of the bases at 1e-4: one false alarm in 500 runs.
    tried = link(mean_pairs, loss_db, loss_db + 2, dark)
    drawn = pair_exchange(tried, 40_000, np.random.default_rng(int(1e3 * mean_pairs + loss_db)))
    equal = drawn.alice_bases == drawn.bob_bases
    wrong = int((drawn.alice_bits != drawn.bob_bits)[equal].sum())
    assert stats.binomtest(wrong, int(equal.sum()), bbm92_statistics(tried).qber).pvalue > 1e-5
    unequal = drawn.alice_bits[~equal] != drawn.bob_bits[~equal]
    assert stats.binomtest(int(unequal.sum()), len(unequal)).pvalue > 1e-5
    table = np.bincount(2 * drawn.alice_bases + drawn.bob_bases, minlength=4)
    assert stats.chisquare(table).pvalue > 1e-4


@pytest.mark.parametrize("loss_db", [3.0, 20.0])
def test_drawn_slots_have_the_rate_of_the_closed_form(loss_db):
    tried = link(loss_a_db=loss_db)
    drawn = pair_exchange(tried, 20_000, np.random.default_rng(8))
    gain = bbm92_statistics(tried).gain
    pulses = int(drawn.slots[-1]) + 1
    # Coincidences in so many pulses: binomial, at a false-alarm rate of 1e-4.
    assert stats.binomtest(20_000, pulses, gain).pvalue > 1e-4
    assert (np.diff(drawn.slots) > 0).all()


def test_equal_seeds_give_equal_records():
    first, again = (pair_exchange(link(), 50, np.random.default_rng(3)) for _ in range(2))
    assert all(np.array_equal(getattr(first, name), getattr(again, name)) for name in vars(first))


def test_limits():
    dark = bbm92_statistics(link(mean_pairs=0.0, dark=1e-3))
    assert dark.gain == pytest.approx((1 - (1 - 1e-3) ** 2) ** 2) and dark.qber == pytest.approx(0.5)
    assert bbm92_statistics(link(mean_pairs=0.0, dark=0.0)).gain == 0
    pure = bbm92_statistics(link(mean_pairs=1e-6, dark=0.0))
    assert pure.qber == pytest.approx(0.015, abs=1e-5)


@settings(max_examples=30)
@given(st.floats(0.01, 0.5), st.floats(0, 30), st.floats(0, 10))
def test_more_loss_never_gives_more_coincidences(mean_pairs, loss_db, more_db):
    near, far = (bbm92_statistics(link(mean_pairs, each)).gain for each in (loss_db, loss_db + more_db))
    assert far <= near + 1e-15


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: PulsedPairSource(0.0, 0.1), "clock_rate_hz"),
        (lambda: PulsedPairSource(1e8, -0.1), "mean_pairs"),
        (lambda: PairReceiver(-1.0, 0.6, 0.0), "loss_db"),
        (lambda: PairReceiver(1.0, 1.6, 0.0), "detector_efficiency"),
        (lambda: PairReceiver(1.0, 0.6, float("nan")), "dark_count_probability"),
        (lambda: link(misalignment=0.6), "misalignment_error"),
        (lambda: pair_exchange(link(), 0, np.random.default_rng(1)), "coincidences"),
        (lambda: pair_exchange(link(0.0, dark=0.0), 1, np.random.default_rng(1)), "gain"),
    ],
)
def test_bad_input_is_refused_by_name(make, said):
    with pytest.raises(OutsideModel, match=said):
        make()


@pytest.mark.parametrize(
    "figures",
    [
        (0.1, 0.3, 0.2, 1e-6, 1e-6),
        (0.05, 1e-9, 1e-8, 1e-7, 1e-7),
        (0.05, 1e-9, 1e-10, 0, 0),
        (2, 1, 1, 0.1, 0.2),
    ],
)
def test_the_gain_is_exact_at_any_loss(figures):
    # Against the published form in rational numbers, in which nothing cancels.
    l, a, b, dark_a, dark_b = (Fraction(each) for each in figures)  # noqa: E741
    silent_a, silent_b = (1 - dark_a) / (1 + a * l) ** 2, (1 - dark_b) / (1 + b * l) ** 2
    silent = (1 - dark_a) * (1 - dark_b) / (1 + (a + b - a * b) * l) ** 2
    assert float(pair_gain(*figures)) == pytest.approx(float(1 - silent_a - silent_b + silent), rel=1e-14)
