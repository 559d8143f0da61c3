"""Airmass, clear and hazy air, held against MODTRAN figures and the physics sheet (1.14)."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import OutsideModel
from openqci.space.atmosphere import (
    CLEAR_SKIES,
    STANDARD_AEROSOL_DEPTH,
    aerosol_depth_550,
    airmass,
    clear_sky_transmittance,
    hazy_sky_transmittance,
    rayleigh_depth,
    turbid_sky_transmittance,
    visibility_attenuation_per_km,
)

ELEVATIONS = st.floats(5.0, 90.0)
WAVELENGTHS = st.sampled_from([785.0, 810.0, 850.0, 1550.0])

# MODTRAN, 500 km to sea level, as tabulated in SatQuMA 2.0.0: transmittance at 10, 20, 45 and 90 deg.
MODTRAN = {
    785.0: (0.482591, 0.684172, 0.827295, 0.876040),
    810.0: (0.3907, 0.5922, None, 0.8136),
    850.0: (None, 0.726, None, 0.895),
    1550.0: (None, 0.891, None, 0.960),
}


def decibels(ratio):
    return 10 * math.log10(ratio)


def test_trap_13_airmass_is_not_one_over_the_sine():
    assert airmass([90.0, 30.0, 10.0, 5.0, 0.0]) == pytest.approx([1.0, 1.995, 5.60, 10.3, 38.0], rel=5e-3)
    # One over the sine is 10 % too much at 5 deg and infinite at the horizon.
    assert float(airmass(5.0)) < 0.91 / math.sin(math.radians(5))


@pytest.mark.parametrize("wavelength_nm", MODTRAN)
def test_trap_13_clear_sky_against_modtran(wavelength_nm):
    for elevation_deg, published in zip((10.0, 20.0, 45.0, 90.0), MODTRAN[wavelength_nm], strict=True):
        if published is not None:
            ours = float(clear_sky_transmittance(elevation_deg, wavelength_nm))
            assert decibels(ours / published) == pytest.approx(0.0, abs=0.055)


def test_trap_13_a_water_band_does_not_follow_beer_and_lambert():
    zenith = float(clear_sky_transmittance(90.0, 810.0))
    beer_lambert = zenith ** float(airmass(10.0))
    assert decibels(float(clear_sky_transmittance(10.0, 810.0)) / beer_lambert) == pytest.approx(
        0.9, abs=0.03
    )
    # At 850 nm there is no band, and the law holds.
    clear = float(clear_sky_transmittance(10.0, 850.0))
    assert clear == pytest.approx(float(clear_sky_transmittance(90.0, 850.0)) ** float(airmass(10.0)))


def test_the_table_at_810_nm_is_met_at_its_points_and_rises_between():
    banded = next(sky for sky in CLEAR_SKIES if sky.elevations_deg)
    assert clear_sky_transmittance(banded.elevations_deg, 810.0) == pytest.approx(
        banded.transmittances, rel=1e-6
    )
    fine = clear_sky_transmittance(np.linspace(5, 90, 500), 810.0)
    # Within 1 deg of the zenith the airmass is one.
    steps = np.diff(fine)
    assert (steps >= 0).all()
    assert steps.max() < 0.01


@given(ELEVATIONS, ELEVATIONS, WAVELENGTHS)
def test_higher_is_clearer(one, other, wavelength_nm):
    low, high = clear_sky_transmittance(sorted((one, other)), wavelength_nm)
    assert 0 < low <= high * (1 + 1e-12) < 1


@given(ELEVATIONS, WAVELENGTHS, st.floats(0.0, 6.0), st.floats(0.0, 6.0))
def test_a_higher_site_has_less_air_above(elevation, wavelength_nm, one, other):
    low, high = sorted((one, other))
    assert clear_sky_transmittance(elevation, wavelength_nm, low) <= clear_sky_transmittance(
        elevation, wavelength_nm, high
    ) * (1 + 1e-12)


def test_a_site_at_2400_m_keeps_the_molecules_and_loses_most_of_the_haze():
    depth = -math.log(float(clear_sky_transmittance(90.0, 850.0, site_altitude_km=2.4)))
    molecules = float(rayleigh_depth(850.0))
    haze = -math.log(0.8952) - molecules
    assert depth == pytest.approx(molecules * math.exp(-2.4 / 8) + haze * math.exp(-2.4 / 1.5))
    assert molecules == pytest.approx(0.0167, rel=0.01)


def test_kim_and_kruse_differ_in_fog_alone():
    for visibility_km in (6.5, 23.0, 60.0):
        kim, kruse = (visibility_attenuation_per_km(visibility_km, 1550.0, m) for m in ("kim", "kruse"))
        assert kim == kruse
    fog = visibility_attenuation_per_km(0.3, [550.0, 850.0, 1550.0], "kim")
    assert fog == pytest.approx(3.912 / 0.3)
    assert visibility_attenuation_per_km(0.3, 1550.0, "kruse") < fog[2]


def test_visibility_is_where_contrast_falls_to_two_per_cent():
    assert math.exp(-float(visibility_attenuation_per_km(10.0, 550.0)) * 10.0) == pytest.approx(
        0.02, rel=1e-3
    )
    # V = 23 km at 850 nm: 3.912/23 (850/550)^-1.3.
    assert visibility_attenuation_per_km(23.0, 850.0) == pytest.approx(0.0966, rel=2e-3)


def test_kruse_and_kim_at_the_wavelengths_that_the_exponent_bends():
    # V, model and the exponent of lambda / 550 nm.
    for visibility_km, model, q in (
        (60.0, "kim", 1.6),
        (20.0, "kim", 1.3),
        (3.0, "kim", 0.82),
        (0.8, "kim", 0.3),
        (3.0, "kruse", 0.585 * 3 ** (1 / 3)),
    ):
        ratio = visibility_attenuation_per_km(visibility_km, 1100.0, model) / visibility_attenuation_per_km(
            visibility_km, 550.0, model
        )
        assert ratio == pytest.approx(2**-q)


def test_haze_thins_with_the_height_of_the_site():
    depths = [
        -math.log(
            float(hazy_sky_transmittance(90.0, 10.0, 850.0, site_altitude_km=height, aerosol_height_km=1.2))
        )
        for height in (0.0, 1.2)
    ]
    assert depths[0] == pytest.approx(1.2 * float(visibility_attenuation_per_km(10.0, 850.0)))
    assert depths[1] == pytest.approx(depths[0] / math.e)


def test_haze_of_23_km_is_near_the_clear_sky():
    # The standard sky is one of 23 km; its haze alone is most of the depth at 850 nm.
    haze = -math.log(float(hazy_sky_transmittance(90.0, 23.0, 850.0, aerosol_height_km=1.0)))
    assert haze == pytest.approx(-math.log(0.8952) - float(rayleigh_depth(850.0)), rel=0.1)


@given(st.floats(0.05, 300.0), st.floats(0.05, 300.0))
def test_a_better_visibility_never_dims(one, other):
    poor, good = sorted((one, other))
    assert hazy_sky_transmittance(45.0, poor, 850.0) <= hazy_sky_transmittance(45.0, good, 850.0) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: airmass(-1.0), "elevation_deg"),
        (lambda: clear_sky_transmittance(4.0, 850.0), "elevation_deg"),
        (lambda: clear_sky_transmittance([20.0, math.nan], 850.0), "elevation_deg"),
        (lambda: clear_sky_transmittance(45.0, 633.0), "wavelength_nm"),
        (lambda: clear_sky_transmittance(45.0, math.nan), "wavelength_nm"),
        (lambda: clear_sky_transmittance(45.0, 850.0, site_altitude_km=9.0), "site_altitude_km"),
        (lambda: clear_sky_transmittance(45.0, 850.0, aerosol_height_km=0.0), "aerosol_height_km"),
        (lambda: visibility_attenuation_per_km(0.0, 850.0), "visibility_km"),
        (lambda: visibility_attenuation_per_km(10.0, 850.0, "cloud"), "model"),
        (lambda: hazy_sky_transmittance(45.0, 10.0, 100.0), "wavelength_nm"),
    ],
)
def test_what_is_outside_is_named_with_its_range(call, field):
    with pytest.raises(OutsideModel, match=rf"{field} = .* expected "):
        call()


def test_the_standard_haze_gives_the_standard_sky():
    for wavelength_nm in (785.0, 810.0, 850.0, 1550.0):
        elevations = np.array([10.0, 30.0, 90.0])
        turbid = turbid_sky_transmittance(elevations, wavelength_nm, STANDARD_AEROSOL_DEPTH)
        assert turbid == pytest.approx(clear_sky_transmittance(elevations, wavelength_nm))


def test_haze_of_a_turbidity_by_ineichen():
    # Ineichen 2008 at sea level: T = 3.91 exp(0.689) a + 0.376 ln w + 2.2; T 3.5 with 2 cm of water: a 0.133.
    by_hand = (3.5 - 2.2 - 0.376 * math.log(2)) / (3.91 * 1.9917)
    assert aerosol_depth_550(3.5) == pytest.approx(by_hand, rel=1e-3)
    assert aerosol_depth_550(1.5) == pytest.approx(0.01), "cleaner than clean air"
    assert aerosol_depth_550(3.0, 2.0) < aerosol_depth_550(4.0, 2.0)


def test_more_haze_lets_less_through_and_hurts_red_light_more():
    clear, hazy = (turbid_sky_transmittance(20.0, 850.0, depth) for depth in (0.05, 0.4))
    assert hazy < clear
    red = turbid_sky_transmittance(20.0, 1550.0, 0.4) / turbid_sky_transmittance(20.0, 1550.0, 0.05)
    assert red > hazy / clear
    # Without any haze the molecules are left.
    cleanest = turbid_sky_transmittance(90.0, 1550.0, 0.0)
    assert cleanest == pytest.approx(math.exp(-float(rayleigh_depth(1550.0))))
