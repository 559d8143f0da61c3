"""From inertial to topocentric: geodesy by closed forms, satellites against Skyfield."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skyfield.api import EarthSatellite, load, wgs84
from skyfield.framelib import itrs

from openqci.core.errors import OutsideModel
from openqci.space.frames import (
    Stations,
    angle_deg,
    earth_fixed,
    geodetic_point,
    geodetic_position_km,
    topocentric,
)
from tests.space.make import MICIUS_2016, MICIUS_2024, SITES, micius, times


def skyfield_times(moments):
    """The same moments in Skyfield, which counts leap seconds: from the midnight before."""
    scale = load.timescale(builtin=True)
    days, seconds = np.divmod(moments, 86_400)
    return scale, scale.utc(1970, 1, 1 + days, 0, 0, seconds)


@pytest.mark.parametrize("text", [MICIUS_2016, MICIUS_2024])
def test_what_stations_see_is_what_skyfield_says(text):
    orbit = micius(text)
    moments = times(orbit.elements.epoch_utc_s, 6, 30)
    position, velocity = earth_fixed(*orbit.states(moments), moments)
    seen = topocentric(SITES, position[:, None], velocity[:, None])
    scale, when = skyfield_times(moments)
    satellite = EarthSatellite(*text.splitlines()[1:], ts=scale)
    places = zip(SITES.latitudes_deg, SITES.longitudes_deg, SITES.altitudes_m, strict=True)
    for column, (latitude, longitude, altitude) in enumerate(places):
        site = wgs84.latlon(latitude, longitude, elevation_m=altitude)
        theirs = (satellite - site).at(when)
        elevation, azimuth, distance, _, _, rate = theirs.frame_latlon_and_rates(site)
        # UT1 - UTC, which Skyfield has from a table and we leave out, is up to 0.4 s here: 200 m.
        assert np.abs(seen.ranges_km[:, column] - distance.km).max() < 0.25
        assert np.abs(seen.range_rates_km_s[:, column] - rate.km_per_s).max() < 2e-3
        assert np.abs(seen.elevations_deg[:, column] - elevation.degrees).max() < 0.025
        low = elevation.degrees < 80
        off = (seen.azimuths_deg[low, column] - azimuth.degrees[low] + 180) % 360 - 180
        if abs(latitude) < 89:
            assert np.abs(off).max() < 0.06


def test_skyfield_agrees_to_metres_once_it_is_told_the_same_ut1():
    orbit = micius(MICIUS_2016)
    moments = times(orbit.elements.epoch_utc_s, 6, 30)
    scale, when = skyfield_times(moments)
    ahead_s = float(np.mean(when.dut1))
    assert 0.3 < abs(ahead_s) < 0.5
    position, _ = earth_fixed(*orbit.states(moments), moments, ahead_s)
    theirs = EarthSatellite(*MICIUS_2016.splitlines()[1:], ts=scale).at(when)
    assert np.abs(position - theirs.frame_xyz(itrs).km.T).max() < 0.005


@given(st.floats(-90, 90), st.floats(-180, 180), st.floats(-400, 40_000_000))
def test_geodetic_coordinates_and_back(latitude, longitude, altitude_m):
    position = geodetic_position_km(latitude, longitude, altitude_m)
    there_latitude, there_longitude, there_km = geodetic_point(position)
    assert there_km == pytest.approx(altitude_m / 1000, abs=1e-6)
    again = geodetic_position_km(there_latitude, there_longitude, 1000 * there_km)
    assert np.abs(again - position).max() < 1e-6


def test_the_ellipsoid_is_wgs_84():
    pole, equator = geodetic_position_km([90.0, 0.0], [0.0, 90.0], [0.0, 0.0])
    assert pole == pytest.approx([0.0, 0.0, 6356.7523142], abs=1e-6)
    assert equator == pytest.approx([0.0, 6378.137, 0.0], abs=1e-9)


def test_axes_are_right_handed_and_azimuths_go_over_east():
    east, north, up = (SITES.axes[:, axis] for axis in range(3))
    assert np.cross(east, north) == pytest.approx(up)
    seen = topocentric(SITES, SITES.positions_km + 10 * east + 10 * up, np.zeros(3))
    assert seen.azimuths_deg == pytest.approx(90.0)
    assert seen.elevations_deg == pytest.approx(45.0)
    north_of = topocentric(SITES, SITES.positions_km + 10 * north, np.zeros(3))
    assert (north_of.azimuths_deg % 360 == pytest.approx(0.0)) or north_of.azimuths_deg.max() < 360


def test_a_satellite_that_comes_has_a_negative_range_rate():
    up = SITES.axes[:, 2]
    seen = topocentric(SITES, SITES.positions_km + 500 * up, -7.0 * up)
    assert seen.range_rates_km_s == pytest.approx(-7.0)


def test_small_angles_are_exact():
    assert angle_deg(np.array([1.0, 0.0, 0.0]), np.array([1.0, 1e-9, 0.0])) == pytest.approx(
        np.degrees(1e-9), rel=1e-9
    )


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (([91.0], [0.0]), "latitude_deg = 91"),
        (([0.0], [-200.0]), "longitude_deg = -200"),
        (([0.0, 1.0], [0.0]), "latitudes_deg"),
        (([0.0], [0.0], [10_000.0]), "altitude_m = 10000"),
    ],
)
def test_places_that_are_not_on_the_earth(columns, said):
    with pytest.raises(OutsideModel, match=said):
        Stations.of(["x"], *columns)


def test_a_part_of_the_stations():
    part = SITES.part([3, 0])
    assert part.names == ("kiruna", "kourou") and len(part) == 2
    assert part.positions_km[1] == pytest.approx(SITES.positions_km[0])
