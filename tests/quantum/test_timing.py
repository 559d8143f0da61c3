"""Windows and jitter: what is captured, what leaks, against drawn times of arrival."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import OutsideModel
from openqci.quantum.timing import captured_fraction, joint_fwhm_s, leaked_fraction

FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))


def test_a_window_of_one_width_holds_three_quarters():
    # The integral of a Gaussian over its full width at half maximum is erf(sqrt(ln 2)) = 0.7610.
    assert captured_fraction(1.0, 1.0) == pytest.approx(0.760968, abs=1e-6)


def test_without_spread_nothing_is_lost():
    assert captured_fraction([0.1, 1.0], 0.0).tolist() == [1.0, 1.0]
    assert leaked_fraction(1e-10, 1e-9, 0.0) == 0.0


@pytest.mark.parametrize("window_s", [1e-10, 4e-10, 1e-9])
@pytest.mark.parametrize("fwhm_s", [1e-10, 8e-10, 3e-9])
def test_captured_and_leaked_light_agree_with_drawn_arrivals(rng, window_s, fwhm_s):
    count = 400_000
    offset_s = rng.normal(0.0, fwhm_s / FWHM_PER_SIGMA, count)
    slot = np.rint(offset_s / 1e-9)
    in_a_window = np.abs(offset_s - slot * 1e-9) <= window_s / 2
    for got, expected in (
        ((in_a_window & (slot == 0)).sum(), float(captured_fraction(window_s, fwhm_s))),
        ((in_a_window & (slot != 0)).sum(), leaked_fraction(window_s, 1e-9, fwhm_s)),
    ):
        # Five standard deviations: false alarm 6e-7 each.
        assert abs(got - count * expected) <= 5 * math.sqrt(count * expected * (1 - expected)) + 1


@given(st.floats(1e-12, 1e-9), st.floats(0, 9e-9))
def test_windows_without_gaps_count_everything_once(period_s, fwhm_s):
    fwhm_s = min(fwhm_s, 10 * period_s)
    total = float(captured_fraction(period_s, fwhm_s)) + leaked_fraction(period_s, period_s, fwhm_s)
    assert total == pytest.approx(1.0, abs=1e-9)


@given(st.floats(1e-3, 1), st.floats(1e-3, 1), st.floats(0, 10))
def test_a_wider_window_captures_and_leaks_more(first, second, fwhm):
    narrow, wide = sorted((first, second))
    assert captured_fraction(narrow, fwhm) <= captured_fraction(wide, fwhm)
    assert leaked_fraction(narrow, 1.0, min(fwhm, 1.0)) <= leaked_fraction(wide, 1.0, min(fwhm, 1.0)) + 1e-15


def test_spreads_add_in_squares():
    assert joint_fwhm_s(3e-10, 4e-10) == pytest.approx(5e-10)
    with pytest.raises(OutsideModel, match="fwhm_s"):
        joint_fwhm_s(1e-10, -1e-10)


@pytest.mark.parametrize(
    ("parameter", "arguments"),
    [
        ("window_s", (2e-9, 1e-9, 1e-10)),
        ("window_s", (math.nan, 1e-9, 1e-10)),
        ("period_s", (1e-10, 0.0, 1e-10)),
        ("fwhm_s", (1e-10, 1e-9, 2e-8)),
        ("fwhm_s", (1e-10, 1e-9, -1e-12)),
    ],
)
def test_a_window_outside_the_model_is_refused_by_name(parameter, arguments):
    with pytest.raises(OutsideModel) as refusal:
        leaked_fraction(*arguments)
    assert refusal.value.parameter == parameter


@pytest.mark.parametrize(("window_s", "fwhm_s", "name"), [(-1.0, 1.0, "window_s"), (1.0, math.nan, "fwhm_s")])
def test_a_fraction_of_nonsense_is_refused(window_s, fwhm_s, name):
    with pytest.raises(OutsideModel) as refusal:
        captured_fraction(window_s, fwhm_s)
    assert refusal.value.parameter == name
