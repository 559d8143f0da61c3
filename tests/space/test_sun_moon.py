"""Sun and Moon against the ephemerides of ERFA, twilight, and the shadow of the Earth."""

import erfa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqci.space.frames import Stations, angle_deg
from openqci.space.sky import satellite_sunlit
from openqci.space.sun_moon import (
    ASTRONOMICAL_UNIT_KM,
    TWILIGHTS,
    is_sunlit,
    moon_elevation_deg,
    moon_illuminated_fraction,
    moon_position_km,
    sun_elevation_deg,
    sun_position_km,
    sunlit_fraction,
    twilight,
)
from openqci.space.time_scales import UTC_S_MAX, UTC_S_MIN, julian_day, utc_seconds

MOMENTS = np.random.Generator(np.random.SFC64(7)).uniform(UTC_S_MIN, UTC_S_MAX, 1500)
PLANK = 173.1446326846693
"""Speed of light, au per day."""


def fixed_to_earth(vectors):
    """Vectors of the celestial reference system in the frame of the Earth, by the models of 2006."""
    day, fraction = julian_day(MOMENTS)
    terrestrial = fraction + 69.184 / 86_400
    of_date = np.einsum("tij,tj->ti", erfa.pnm06a(day, terrestrial), vectors)
    angle = erfa.gst06a(day, fraction, day, terrestrial)
    cosine, sine = np.cos(angle), np.sin(angle)
    x, y, z = of_date.T
    return np.stack([cosine * x + sine * y, cosine * y - sine * x, z], axis=-1)


def test_the_sun_is_where_erfa_has_it():
    # erfa.epv00: the Earth's place by a fit to VSOP2000 and DE405, good to a few kilometres.
    day, fraction = julian_day(MOMENTS)
    from_sun, from_barycentre = erfa.epv00(day, fraction + 69.184 / 86_400)
    to_sun = -from_sun["p"]
    distance = np.linalg.norm(to_sun, axis=1)
    seen = to_sun / distance[:, None] + from_barycentre["v"] / PLANK
    off_deg = angle_deg(fixed_to_earth(seen), sun_position_km(MOMENTS))
    assert off_deg.max() < 0.013
    ours_au = np.linalg.norm(sun_position_km(MOMENTS), axis=1) / ASTRONOMICAL_UNIT_KM
    assert np.abs(ours_au - distance).max() < 2e-4


def test_the_moon_is_where_erfa_has_it():
    # erfa.moon98: Meeus 1998, within some ten arcseconds.
    day, fraction = julian_day(MOMENTS)
    place = erfa.moon98(day, fraction + 69.184 / 86_400)["p"]
    off_deg = angle_deg(fixed_to_earth(place), moon_position_km(MOMENTS))
    assert off_deg.max() < 0.1
    assert np.sqrt((off_deg**2).mean()) < 0.03
    ours, theirs = (np.linalg.norm(each, axis=1) for each in (moon_position_km(MOMENTS), place))
    assert np.abs(ours - theirs * ASTRONOMICAL_UNIT_KM).max() < 600.0


def test_published_moments():
    # Equinox and solstice of 2026 (USNO: 20 March 14:46 UT, 21 June 08:25 UT): declinations 0 and 23.44 deg.
    for text, declination_deg in (("2026-03-20T14:46:00Z", 0.0), ("2026-06-21T08:25:00Z", 23.436)):
        x, y, z = sun_position_km(utc_seconds(text))
        assert np.degrees(np.arctan2(z, np.hypot(x, y))) == pytest.approx(declination_deg, abs=0.013)
    # Moon of 2026 (USNO): full 3 March 11:38, new 18 January 19:52, last quarter 8 June 10:00.
    phases = moon_illuminated_fraction(
        [utc_seconds(f"2026-{text}Z") for text in ("03-03T11:38:00", "01-18T19:52:00", "06-08T10:00:00")]
    )
    assert phases == pytest.approx([1.0, 0.0, 0.5], abs=0.01)


def test_sunset_at_greenwich_ends_the_day():
    # Sunset at 51.48 N, 0 E on 2026-03-20: 18:13 UT (USNO), the Sun's centre at -0.833 deg.
    greenwich = Stations.of(["greenwich"], [51.48], [0.0])
    at = utc_seconds("2026-03-20T18:13:00Z") + 60 * np.array([-2.0, 0.0, 2.0])
    elevation = sun_elevation_deg(greenwich, at)[0]
    assert elevation[1] == pytest.approx(-0.833, abs=0.15)
    assert [TWILIGHTS[each] for each in twilight(elevation[[0, 2]])] == ["day", "civil"]


@pytest.mark.parametrize(
    ("elevation", "name"),
    [(-18.5, "night"), (-18.0, "astronomical"), (-11.9, "nautical"), (-6.0, "civil"), (-0.5, "day")],
)
def test_twilights(elevation, name):
    assert TWILIGHTS[twilight(elevation)] == name


def test_the_moon_has_a_parallax():
    at = utc_seconds("2026-03-03T11:38:00Z")
    moon = moon_position_km(at)
    x, y, z = moon / np.linalg.norm(moon)
    below = Stations.of(["below"], [np.degrees(np.arcsin(z))], [np.degrees(np.arctan2(y, x))])
    aside = Stations.of(["aside"], [np.degrees(np.arcsin(z)) - 60.0], [np.degrees(np.arctan2(y, x))])
    assert moon_elevation_deg(below, at)[0, 0] > 89.5
    # A degree lower than a Moon without end would stand, times the sine of 60 deg.
    assert moon_elevation_deg(aside, at)[0, 0] == pytest.approx(30.0 - 0.83, abs=0.15)


SUN = np.array([ASTRONOMICAL_UNIT_KM, 0.0, 0.0])


def at_altitude(altitude_km, angle_deg):
    """A satellite so far around the Earth from the point below the Sun."""
    angle = np.radians(angle_deg)
    return (6371.0 + altitude_km) * np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=-1)


def test_the_shadow_is_a_cone():
    around = np.linspace(90.0, 180.0, 9001)
    seen = sunlit_fraction(at_altitude(500.0, around), SUN)
    assert seen[0] == 1.0 and seen[-1] == 0.0 and (np.diff(seen) <= 1e-12).all()
    # Half of the disc is gone on the cylinder; the penumbra is as wide as the Sun, 0.53 deg.
    edge = np.degrees(np.pi - np.arcsin(6371.0 / 6871.0))
    assert np.interp(0.5, seen[::-1], around[::-1]) == pytest.approx(edge, abs=0.02)
    partly = around[(seen > 0) & (seen < 1)]
    assert np.ptp(partly) == pytest.approx(0.533, abs=0.03)


@settings(max_examples=60)
@given(st.floats(200.0, 36_000.0), st.floats(0.0, 360.0))
def test_lit_is_what_sees_any_of_the_sun(altitude_km, around_deg):
    satellite = at_altitude(altitude_km, np.array([around_deg]))
    fraction = sunlit_fraction(satellite, SUN)[0]
    if fraction > 1e-3 or fraction == 0.0:
        assert is_sunlit(satellite, SUN)[0] == (fraction > 1e-3)


def test_the_older_rule_by_the_sun_below_the_satellite_is_the_cylinder():
    around = np.arange(0.0, 180.0, 0.1)
    satellite = at_altitude(500.0, around)
    old = satellite_sunlit(90.0 - around, 500.0)
    # They differ in the penumbra alone.
    differ = old != is_sunlit(satellite, SUN)
    assert differ.sum() <= 4
    assert (np.abs(around[differ] - 112.0) < 1.0).all()
