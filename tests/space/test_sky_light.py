"""The sky of a moment: its limits are the measured skies, and it grows with all that shines."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import OutsideModel
from openqci.space.sky import photon_energy_j, radiance_of_magnitude, sky
from openqci.space.sky_light import (
    TOWNS,
    moon_radiance,
    sky_radiance,
    sun_radiance,
    sunlit_satellite_photons_hz,
)

NIGHT = -40.0


def test_the_dark_sky_is_that_of_paranal():
    # F. Patat, A&A 400, 1183 (2003): I 19.7 mag per square arcsecond.
    assert sky_radiance(850.0, NIGHT) == pytest.approx(float(radiance_of_magnitude(19.7, "I")))
    assert sky_radiance(1550.0, NIGHT) == pytest.approx(float(radiance_of_magnitude(14.4, "H")))


def test_a_full_moon_at_45_deg_is_the_tabulated_one():
    bright = sky_radiance(850.0, NIGHT, 45.0, 0.0, 45.0, 90.0)
    assert bright == pytest.approx(sky("dark-site-full-moon", 850.0).radiance, rel=0.02)


def test_the_moon_by_phase():
    # Krisciunas and Schaefer: a Moon at first quarter gives some 9 % of the light of a full one.
    full, quarter, new = (moon_radiance(850.0, 45.0, phase, 45.0, 90.0) for phase in (0.0, 90.0, 180.0))
    assert 0.07 < quarter / full < 0.11 and new < 1e-3 * full
    assert moon_radiance(850.0, -1.0, 0.0, 45.0, 90.0) == 0.0


def test_a_city_without_a_moon_is_the_sky_of_the_literature():
    literature = sky("literature-new-moon", 850.0).radiance
    assert sky_radiance(850.0, NIGHT, town_ratio=TOWNS["city"]) == pytest.approx(literature, rel=0.3)


def test_day_is_the_tabulated_day():
    assert sky_radiance(850.0, 30.0) == pytest.approx(sky("clear-day", 850.0).radiance, rel=0.01)
    assert sky_radiance(1550.0, 30.0) == pytest.approx(sky("lidar-day", 1550.0).radiance, rel=0.01)


@pytest.mark.parametrize("wavelength_nm", [785.0, 850.0, 1550.0])
def test_twilight_falls_without_steps(wavelength_nm):
    sun = np.arange(-20.0, 20.0, 0.05)
    light = sun_radiance(wavelength_nm, sun)
    assert (np.diff(light) >= -1e-12).all() and light[0] == 0.0
    lit = light[light > 1e-12]
    assert (lit[1:] / lit[:-1]).max() < 1.6, "no step"
    # Nautical twilight begins some 3 magnitudes above night: a factor of 16 to 25 in the visible.
    brighter = 1 + sun_radiance(850.0, -12.0) / 0.1 / float(radiance_of_magnitude(21.6, "V"))
    assert 14 < brighter < 25


@given(st.floats(-90, 90), st.floats(-90, 90), st.floats(0, 180), st.floats(0, 180), st.floats(0, 90))
def test_more_light_is_never_darker(sun, moon, phase, aside, sight):
    here = sky_radiance(850.0, sun, moon, phase, aside, sight)
    assert here >= sky_radiance(850.0, -90.0) * (1 - 1e-12)
    assert sky_radiance(850.0, sun, moon, phase, aside, sight, 10.0) > here
    assert sky_radiance(850.0, sun, moon, phase * 0.9, aside, sight) >= here * (1 - 1e-12)


def test_a_satellite_in_sunlight_by_hand():
    # Magnitude 6 in H at 1000 km: 1.138e-12 * 10^-2.4 W/(m2 nm).
    by_hand = 1.138e-12 * 10**-2.4 * 0.5 * 0.3 / float(photon_energy_j(1550.0))
    found = sunlit_satellite_photons_hz(6.0, [1000.0, 500.0], 1550.0, aperture_area_m2=0.5, filter_nm=0.3)
    assert found == pytest.approx([by_hand, 4 * by_hand])


def test_a_wavelength_without_a_sky_is_refused():
    with pytest.raises(OutsideModel, match="wavelength_nm"):
        sky_radiance(1064.0, NIGHT)
