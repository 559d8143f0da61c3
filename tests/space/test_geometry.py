"""Ranges, elevations and passes of circular orbits, held against the physics sheet (1.14) and each other."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import OutsideModel
from openqci.space.geometry import (
    LIGHT_SPEED_KM_S,
    central_angle_rad,
    circular_pass,
    elevation_deg,
    orbital_period_s,
    orbital_velocity_km_s,
    pass_duration_s,
    slant_range_km,
)

ELEVATIONS = st.floats(0.0, 90.0)
ALTITUDES = st.floats(150.0, 40_000.0)


def test_the_range_at_20_deg_below_500_km():
    assert slant_range_km(20.0, 500.0) == pytest.approx(1193.0, abs=0.5)


def test_the_period_at_500_km_is_94_and_a_half_minutes():
    assert orbital_period_s(500.0) / 60 == pytest.approx(94.5, abs=0.05)


def test_a_geostationary_satellite_turns_once_a_sidereal_day():
    assert orbital_period_s(42_164.2 - 6371.0) == pytest.approx(86_164.1, rel=1e-4)


def test_an_overhead_pass_at_500_km():
    assert pass_duration_s(500.0, [10.0, 20.0, 30.0]) == pytest.approx([443.0, 296.0, 207.0], abs=0.5)


def test_point_ahead_and_doppler_at_500_km():
    overhead = circular_pass(500.0, 10.0)
    assert overhead.point_ahead_urad.max() == pytest.approx(51.0, abs=0.3)
    assert overhead.doppler_ppm.max() == pytest.approx(23.0, abs=0.3)
    # Odd in time: red when it leaves as much as blue when it comes.
    assert overhead.doppler_ppm == pytest.approx(-overhead.doppler_ppm[::-1], abs=1e-9)


def test_a_pass_begins_and_ends_at_its_lowest_elevation_and_culminates_in_the_middle():
    low = circular_pass(600.0, 15.0, culmination_deg=42.0, step_s=2.0)
    assert low.elevations_deg[[0, -1]] == pytest.approx([15.0, 15.0], abs=1e-6)
    assert low.elevations_deg.max() == pytest.approx(42.0, abs=1e-6)
    assert low.times_s[np.argmax(low.elevations_deg)] == 0.0
    assert low.times_s[-1] - low.times_s[0] == pytest.approx(pass_duration_s(600.0, 15.0, 42.0))
    assert np.diff(low.times_s).max() <= 2.0


@given(st.floats(0.0, 89.0), ALTITUDES)
def test_rounding_puts_no_end_of_a_pass_outside_its_elevations(elevation, altitude):
    seen = circular_pass(altitude, elevation, step_s=3600.0)
    assert elevation <= seen.elevations_deg.min() <= elevation * (1 + 1e-6) + 1e-3
    assert seen.elevations_deg.max() == pytest.approx(90.0, abs=1e-3)


def test_a_pass_agrees_with_range_against_elevation():
    seen = circular_pass(500.0, 5.0, culmination_deg=70.0)
    assert seen.slant_ranges_km == pytest.approx(slant_range_km(seen.elevations_deg, 500.0), rel=1e-9)


def test_the_range_rate_is_the_slope_of_the_range():
    seen = circular_pass(500.0, 10.0, culmination_deg=60.0, step_s=0.5)
    slope = np.gradient(seen.slant_ranges_km, seen.times_s)
    assert seen.range_rates_km_s[1:-1] == pytest.approx(slope[1:-1], abs=1e-3)


def test_the_satellite_moves_across_the_line_of_sight_in_the_zenith():
    overhead = circular_pass(500.0, 10.0)
    middle = len(overhead.times_s) // 2
    assert overhead.range_rates_km_s[middle] == pytest.approx(0.0, abs=1e-12)
    assert overhead.point_ahead_urad[middle] == pytest.approx(
        2e6 * float(orbital_velocity_km_s(500.0)) / LIGHT_SPEED_KM_S
    )


@given(ELEVATIONS, ALTITUDES)
def test_range_and_elevation_are_each_others_inverse(elevation, altitude):
    # Near the zenith the range hardly depends on the elevation: the angle is then known less well.
    assert float(elevation_deg(slant_range_km(elevation, altitude), altitude)) == pytest.approx(
        elevation, abs=1e-3
    )


@given(ELEVATIONS, ELEVATIONS, ALTITUDES)
def test_lower_is_farther(one, other, altitude):
    low, high = sorted((one, other))
    assert slant_range_km(low, altitude) >= slant_range_km(high, altitude) * (1 - 1e-12)
    assert central_angle_rad(low, altitude) >= central_angle_rad(high, altitude) - 1e-12


@given(ALTITUDES)
def test_the_zenith_is_at_the_altitude_and_the_horizon_at_a_tangent(altitude):
    assert slant_range_km(90.0, altitude) == pytest.approx(altitude)
    tangent = math.sqrt((6371.0 + altitude) ** 2 - 6371.0**2)
    assert slant_range_km(0.0, altitude) == pytest.approx(tangent)


@given(ELEVATIONS, ELEVATIONS, ALTITUDES)
def test_a_higher_pass_is_longer(one, other, altitude):
    low, high = sorted((one, other))
    assert pass_duration_s(altitude, 5.0, low) <= pass_duration_s(altitude, 5.0, high) + 1e-6


def test_a_pass_below_the_lowest_elevation_has_no_length():
    assert pass_duration_s(500.0, 20.0, 10.0) == 0.0


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: slant_range_km(-1.0, 500.0), "elevation_deg"),
        (lambda: slant_range_km([10.0, 91.0], 500.0), "elevation_deg"),
        (lambda: slant_range_km(math.nan, 500.0), "elevation_deg"),
        (lambda: slant_range_km(45.0, 50.0), "altitude_km"),
        (lambda: orbital_period_s(math.inf), "altitude_km"),
        (lambda: elevation_deg(499.0, 500.0), "slant_range_km"),
        (lambda: elevation_deg(5000.0, 500.0), "slant_range_km"),
        (lambda: elevation_deg(math.nan, 500.0), "slant_range_km"),
        (lambda: circular_pass(500.0, 20.0, culmination_deg=10.0), "culmination_deg"),
        (lambda: circular_pass(500.0, 10.0, step_s=0.0), "step_s"),
        (lambda: circular_pass(40_000.0, 10.0, step_s=1e-3), "pass_steps"),
    ],
)
def test_what_is_outside_is_named_with_its_range(call, field):
    with pytest.raises(OutsideModel, match=rf"{field} = .* outside the model; expected .*\d"):
        call()


def test_the_first_value_outside_is_told_and_how_many_there_are():
    with pytest.raises(
        OutsideModel, match=r"elevation_deg = 95\.0 .* from 0 to 90 \(2 of 4 values are not\)"
    ):
        slant_range_km([10.0, 95.0, 20.0, 99.0], 500.0)
