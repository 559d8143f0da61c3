"""Moments in time: ISO 8601, Julian days, and sidereal time against ERFA."""

import erfa
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import ConfigurationError, OutsideModel
from openqci.space.time_scales import (
    UTC_S_MAX,
    UTC_S_MIN,
    centuries_tt,
    julian_day,
    sidereal_angle_rad,
    utc_seconds,
    utc_text,
)

MOMENTS = np.linspace(UTC_S_MIN, UTC_S_MAX, 20_001)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01", 0.0),
        ("2026-12-01T00:00:00Z", 1_796_083_200.0),
        ("2026-12-01T01:30:00+01:30", 1_796_083_200.0),
        ("2026-12-01 00:00", 1_796_083_200.0),
        ("1957-10-04T19:28:34Z", -386_310_686.0),
    ],
)
def test_a_moment_is_iso_8601(text, seconds):
    assert utc_seconds(text) == seconds


@given(st.integers(int(UTC_S_MIN), int(UTC_S_MAX) - 1))
def test_a_moment_is_told_as_it_is_read(seconds):
    assert utc_seconds(utc_text(float(seconds))) == seconds


@pytest.mark.parametrize("text", ["", "tomorrow", "2026-13-01", "1956-12-31", "2100-01-02", "20:00"])
def test_what_is_no_moment_is_refused(text):
    with pytest.raises(ConfigurationError, match="expected"):
        utc_seconds(text)


def test_a_moment_outside_the_formulas_is_refused():
    with pytest.raises(OutsideModel, match="utc_s"):
        sidereal_angle_rad([0.0, 1e11])


def test_julian_days_begin_at_midnight_and_keep_the_microsecond():
    whole, fraction = julian_day(1_796_083_200.0 + 1e-6)
    assert whole == 2_461_375.5
    assert fraction * 86_400 == pytest.approx(1e-6, rel=0.3)


def test_sidereal_time_is_that_of_1982():
    ours = sidereal_angle_rad(MOMENTS)
    theirs = erfa.gmst82(*julian_day(MOMENTS))
    assert np.abs((ours - theirs + np.pi) % (2 * np.pi) - np.pi).max() < 1e-10
    # A second of UT1 - UTC turns the Earth by fifteen arcseconds.
    assert sidereal_angle_rad(0.0, 0.5) - sidereal_angle_rad(0.0) == pytest.approx(0.5 * 7.2921e-5, rel=1e-4)


def test_terrestrial_time_is_a_minute_ahead():
    noon_of_2000 = utc_seconds("2000-01-01T12:00:00Z")
    assert centuries_tt(noon_of_2000) * 36_525 * 86_400 == pytest.approx(69.184)
