"""Photons of the sky in a gate, skies and their sources, and when key may be credited."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import OutsideModel
from openqci.space.diffraction import Telescope
from openqci.space.sky import (
    SKIES,
    CreditRule,
    city_light_radiance,
    magnitude_of_radiance,
    photon_energy_j,
    radiance_of_magnitude,
    satellite_sunlit,
    single_mode_sky_photons_hz,
    sky,
    sky_photons_hz,
)

GATE_S = 1e-9
AREA_M2 = Telescope(0.8).area_m2


def per_gate(radiance, wavelength_nm=850.0, field_of_view_urad=100.0, filter_nm=1.0):
    return GATE_S * sky_photons_hz(
        radiance,
        wavelength_nm,
        field_of_view_urad=field_of_view_urad,
        aperture_area_m2=AREA_M2,
        filter_nm=filter_nm,
    )


@pytest.mark.parametrize(
    ("name", "photons"),
    [
        ("dark-site-full-moon", 5.4e-7),
        ("literature-full-moon", 2.5e-5),
        ("literature-new-moon", 2.5e-6),
        ("clear-day", 2.5e-2),
        ("hazy-day", 0.25),
    ],
)
def test_trap_12_the_table_of_skies(name, photons):
    # Physics sheet, 1.14: 1 ns, 0.8 m, 100 urad, 1 nm at 850 nm.
    assert per_gate(sky(name, 850.0).radiance) == pytest.approx(photons, rel=0.02)


def test_trap_12_the_literature_is_fifty_times_a_dark_site():
    ratio = sky("literature-full-moon", 850.0).radiance / sky("dark-site-full-moon", 850.0).radiance
    assert 40 < ratio < 60


def test_trap_12_one_mode_is_not_many():
    # Day at 1550 nm, 5 urad and 0.8 nm: 9e-5 per ns; the field of 100 urad sees 400 times as much.
    narrow = per_gate(1.5e-3, 1550.0, field_of_view_urad=5.0, filter_nm=0.8)
    assert narrow == pytest.approx(9e-5, rel=0.03)
    assert per_gate(1.5e-3, 1550.0, filter_nm=0.8) == pytest.approx(400 * narrow)
    # A fibre accepts one mode, A Omega = lambda^2, whatever is before it.
    fibre = GATE_S * single_mode_sky_photons_hz(1.5e-3, 1550.0, 0.8)
    modes = AREA_M2 * math.pi * 2.5e-6**2 / 1550e-9**2
    assert narrow / fibre == pytest.approx(modes)
    assert 3 < modes < 5


def test_magnitudes_of_the_dark_site():
    assert radiance_of_magnitude(17.95, "I") == pytest.approx(3.2e-8, rel=0.02)
    for radiance, band, magnitude in ((9.7e-8, "V", 18.0), (8.4e-8, "H", 14.4)):
        assert magnitude_of_radiance(radiance, band) == pytest.approx(magnitude, abs=0.05)


@given(st.floats(5.0, 25.0), st.sampled_from(["V", "R", "I", "J", "H"]))
def test_magnitudes_and_radiances_are_each_others_inverse(magnitude, band):
    assert magnitude_of_radiance(radiance_of_magnitude(magnitude, band), band) == pytest.approx(magnitude)


def test_five_magnitudes_are_a_factor_of_a_hundred():
    assert radiance_of_magnitude(15.0, "V") / radiance_of_magnitude(20.0, "V") == pytest.approx(100.0)


def test_a_city_adds_radiance():
    city = city_light_radiance(18.0, 21.5, "V")
    assert city + radiance_of_magnitude(21.5, "V") == pytest.approx(float(radiance_of_magnitude(18.0, "V")))
    assert city_light_radiance(20.0, 20.0, "V") == 0.0


def test_a_photon_at_1550_nm_has_eight_tenths_of_an_electronvolt():
    assert photon_energy_j(1550.0) == pytest.approx(0.7999 * 1.602176634e-19, rel=1e-4)


def test_every_sky_has_a_source_and_says_how_far_it_is_known():
    assert all(each.source and each.radiance > 0 for each in SKIES)
    assert {each.verified for each in SKIES} == {True, False}
    assert all(each.verified or "unverified" in each.source for each in SKIES)


@given(st.floats(1e-10, 1e-2), st.floats(1.0, 500.0))
def test_photons_follow_radiance_and_the_square_of_the_field(radiance, view):
    twice = per_gate(2 * radiance, field_of_view_urad=view)
    assert twice == pytest.approx(2 * per_gate(radiance, field_of_view_urad=view))
    assert per_gate(radiance, field_of_view_urad=2 * view) == pytest.approx(2 * float(twice))


def test_no_sky_no_photons():
    assert per_gate(0.0) == 0.0
    assert single_mode_sky_photons_hz(0.0, 1550.0, 1.0) == 0.0


def test_trap_21_no_key_in_twilight_in_sunlight_or_through_cloud():
    night = CreditRule(sun_elevation_max_deg=-12.0)
    sun = np.array([-20.0, -12.0, -8.0, -20.0, -20.0, 30.0])
    sunlit = np.array([False, False, False, True, False, False])
    clear = np.array([True, True, True, True, False, True])
    assert night.allows(sun, sunlit, clear).tolist() == [True, True, False, False, False, False]
    # Civil twilight is a property of a site and its receiver, not of the code.
    assert CreditRule(-6.0).allows(sun, sunlit, clear).tolist() == [True, True, True, False, False, False]


def test_trap_21_a_receiver_for_the_day_needs_no_eclipse_but_a_clear_sky():
    day = CreditRule(sun_elevation_max_deg=90.0, eclipse_needed=False)
    assert day.allows([50.0, 50.0], True, [True, False]).tolist() == [True, False]


def test_trap_21_it_may_be_night_below_a_satellite_in_sunlight():
    # At 500 km the shadow begins 22 deg below the horizon, long after astronomical twilight.
    edge = math.degrees(math.acos(6371 / 6871))
    assert edge == pytest.approx(22.0, abs=0.1)
    sun = [10.0, -12.0, -edge + 0.01, -edge - 0.01, -60.0, -90.0]
    assert satellite_sunlit(sun, 500.0).tolist() == [True, True, True, False, False, False]


@given(st.floats(-90.0, 90.0), st.floats(150.0, 40_000.0), st.floats(150.0, 40_000.0))
def test_a_higher_satellite_is_longer_in_sunlight(sun, one, other):
    low, high = sorted((one, other))
    assert satellite_sunlit(sun, high) or not satellite_sunlit(sun, low)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: per_gate(-1e-9), "radiance"),
        (lambda: per_gate(math.nan), "radiance"),
        (lambda: per_gate(1e-6, field_of_view_urad=0.0), "field_of_view_urad"),
        (lambda: per_gate(1e-6, filter_nm=-1.0), "filter_nm"),
        (lambda: per_gate(1e-6, wavelength_nm=1.55), "wavelength_nm"),
        (lambda: single_mode_sky_photons_hz(1e-6, 1550.0, 0.0), "filter_nm"),
        (lambda: radiance_of_magnitude(math.inf, "V"), "magnitude_arcsec2"),
        (lambda: radiance_of_magnitude(20.0, "K"), "band"),
        (lambda: city_light_radiance(22.0, 21.0, "V"), "seen_arcsec2"),
        (lambda: city_light_radiance(math.nan, 21.0, "V"), "seen_arcsec2"),
        (lambda: sky("aurora", 850.0), "name"),
        (lambda: sky("clear-day", 1550.0), "wavelength_nm"),
        (lambda: CreditRule(-100.0), "sun_elevation_max_deg"),
        (lambda: CreditRule().allows(math.nan, False), "sun_elevation_deg"),
        (lambda: satellite_sunlit(0.0, 10.0), "altitude_km"),
    ],
)
def test_what_is_outside_is_named_with_its_range(call, field):
    with pytest.raises(OutsideModel, match=rf"{field} = .* expected "):
        call()
