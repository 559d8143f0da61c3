"""What a telescope catches of a beam, and that every divergence says what it means."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import j0, j1

from openqci.core.errors import OutsideModel
from openqci.space.diffraction import (
    GaussianBeam,
    Telescope,
    TruncatedBeam,
    UniformDisc,
    collected_fraction,
    loss_db,
)

ONE_METRE = Telescope(1.0)
ANGLES = st.floats(0.5, 5000.0)
DISTANCES = st.floats(1.0, 1e5)


def test_trap_05_divergence_convention():
    # Physics sheet, 1.14: 10 urad, 1 m, 1200 km.
    def caught_db(beam):
        return float(loss_db(collected_fraction(beam, ONE_METRE, 1200.0)))

    assert caught_db(GaussianBeam.of_full_angle_1e2(10.0)) == pytest.approx(18.6, abs=0.05)
    assert caught_db(UniformDisc(full_angle_urad=10.0)) == pytest.approx(21.6, abs=0.05)
    assert caught_db(GaussianBeam.of_full_width_half_maximum(10.0)) == pytest.approx(23.2, abs=0.05)


def test_trap_05_a_bare_angle_is_no_beam():
    with pytest.raises(AttributeError):
        collected_fraction(10.0, ONE_METRE, 1200.0)
    for kind in (GaussianBeam, UniformDisc):
        with pytest.raises(TypeError):
            kind(10.0)


def test_a_waist_of_36_mm_at_1550_nm():
    # Physics sheet, 1.14: 80 mm aperture, 0.8 m receiver, zenith; LEO, MEO and GEO.
    beam = GaussianBeam.of_waist(0.036, 1550.0)
    losses = loss_db(collected_fraction(beam, Telescope(0.8), [400, 500, 600, 1200, 8000, 35_786]))
    assert losses == pytest.approx([19.8, 21.7, 23.3, 29.3, 45.7, 58.8], abs=0.06)


@given(ANGLES)
def test_conventions_convert_and_come_back(angle):
    for make, read in (
        (GaussianBeam.of_half_angle_1e2, lambda beam: beam.half_angle_1e2_urad),
        (GaussianBeam.of_full_angle_1e2, lambda beam: beam.full_angle_1e2_urad),
        (GaussianBeam.of_full_width_half_maximum, lambda beam: beam.full_width_half_maximum_urad),
    ):
        assert read(make(angle)) == pytest.approx(angle)


def test_half_the_maximum_is_where_its_name_says():
    beam = GaussianBeam.of_full_width_half_maximum(20.0)
    radius = beam.radius_m(1000.0)
    # Intensity at 10 urad, 10 m at 1000 km, over that on the axis.
    assert math.exp(-2 * (10.0 / float(radius)) ** 2) == pytest.approx(0.5)


@given(ANGLES, st.floats(1000.0, 1e5))
def test_a_disc_and_its_gaussian_look_alike_to_a_small_telescope(angle, distance_km):
    disc, small = UniformDisc(full_angle_urad=angle), Telescope(0.01)
    assert collected_fraction(disc.gaussian_of_equal_axis(), small, distance_km) == pytest.approx(
        float(collected_fraction(disc, small, distance_km)), rel=1e-3
    )


@given(ANGLES, DISTANCES, DISTANCES)
def test_farther_catches_less_and_never_more_than_all(angle, one, other):
    near, far = sorted((one, other))
    for beam in (GaussianBeam.of_half_angle_1e2(angle), UniformDisc(full_angle_urad=angle)):
        # A clear aperture: a narrow beam nearby would fall on a central obstruction.
        caught = collected_fraction(beam, Telescope(2.0), np.array([near, far]))
        assert 0 <= caught[1] <= caught[0] * (1 + 1e-12)
        assert caught[0] <= 1


def test_close_to_the_transmitter_all_is_caught():
    assert collected_fraction(GaussianBeam.of_waist(0.03, 850.0), ONE_METRE, 0.0) == pytest.approx(1.0)


def test_an_obscuration_takes_its_area_from_a_wide_beam():
    beam = GaussianBeam.of_half_angle_1e2(100.0)
    ratio = collected_fraction(beam, Telescope(1.0, 0.3), 1000.0) / collected_fraction(
        beam, ONE_METRE, 1000.0
    )
    assert ratio == pytest.approx(1 - 0.3**2, rel=1e-4)
    assert Telescope(1.0, 0.3).area_m2 == pytest.approx(math.pi / 4 * 0.91)


def test_a_wide_transmitter_does_not_truncate():
    beam, wide = GaussianBeam.of_waist(0.036, 1550.0), TruncatedBeam(0.036, 0.3, 1550.0)
    ranges = np.array([500.0, 1200.0])
    assert collected_fraction(wide, Telescope(0.8), ranges) == pytest.approx(
        collected_fraction(beam, Telescope(0.8), ranges), rel=1e-4
    )
    assert wide.emitted_fraction == pytest.approx(1.0)


def test_the_best_truncation_is_at_089_of_the_radius_and_leaves_081():
    gains = {
        ratio: TruncatedBeam(ratio * 0.04, 0.08, 1550.0).axial_gain_ratio for ratio in (0.8, 0.89, 0.892, 1.0)
    }
    assert max(gains, key=gains.__getitem__) in (0.89, 0.892)
    assert gains[0.89] == pytest.approx(0.81, abs=0.01)


def test_an_evenly_lit_aperture_gives_the_airy_pattern():
    # A waist of 30 radii is flat within 0.2 %; enclosed energy of Airy: 1 - J0^2 - J1^2.
    aperture_m, wavelength_nm, distance_km, radius_m = 0.05, 850.0, 1000.0, 15.0
    flat = TruncatedBeam(30 * aperture_m / 2, aperture_m, wavelength_nm)
    x = 2 * math.pi / (wavelength_nm * 1e-9) * aperture_m / 2 * radius_m / (distance_km * 1e3)
    within = float(flat.enclosed_fraction(radius_m, distance_km)) / flat.emitted_fraction
    assert within == pytest.approx(1 - j0(x) ** 2 - j1(x) ** 2, rel=3e-3)


def test_nothing_is_gained_by_truncation():
    truncated = TruncatedBeam(0.036, 0.08, 1550.0, obscuration_ratio=0.2)
    radii = np.linspace(0.1, 40.0, 30)
    enclosed = truncated.enclosed_fraction(radii, 500.0)
    assert (np.diff(enclosed) >= -1e-9).all()
    assert enclosed[-1] <= truncated.emitted_fraction < 1


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: GaussianBeam.of_half_angle_1e2(0.0), "half_angle_1e2_urad"),
        (lambda: GaussianBeam.of_full_angle_1e2(-10.0), "full_angle_urad"),
        (lambda: GaussianBeam.of_full_width_half_maximum(math.nan), "full_width_urad"),
        (lambda: GaussianBeam.of_waist(0.0, 850.0), "waist_m"),
        (lambda: GaussianBeam.of_waist(0.03, 0.85), "wavelength_nm"),
        (lambda: UniformDisc(full_angle_urad=math.inf), "full_angle_urad"),
        (lambda: Telescope(0.0), "aperture_diameter_m"),
        (lambda: Telescope(1.0, 1.0), "obscuration_ratio"),
        (lambda: TruncatedBeam(0.036, 0.08, 1550.0, -0.1), "obscuration_ratio"),
        (lambda: TruncatedBeam(10.0, 0.08, 1550.0), "aperture_radius_over_waist"),
        (lambda: TruncatedBeam(0.036, 0.08, 1550.0).enclosed_fraction(1.0, 1.0), "distance_km"),
        (lambda: TruncatedBeam(0.036, 0.08, 1550.0).enclosed_fraction(500.0, 500.0), "radius_m"),
        (
            lambda: collected_fraction(GaussianBeam.of_half_angle_1e2(5.0), Telescope(1.0), -1.0),
            "distance_km",
        ),
        (
            lambda: collected_fraction(GaussianBeam.of_half_angle_1e2(5.0), Telescope(1.0), 0.0),
            "beam_radius_m",
        ),
        (lambda: loss_db(1.5), "transmittance"),
    ],
)
def test_what_is_outside_is_named_with_its_range(call, field):
    with pytest.raises(OutsideModel, match=rf"{field} = .* expected "):
        call()
