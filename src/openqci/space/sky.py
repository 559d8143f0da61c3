"""Light that is not the signal's: how many photons of the sky a gate sees, and when key may be credited.

A telescope that sees a wide field collects sky by its area and field; a single-mode fibre collects what fits
in one mode, ``A Omega = lambda^2``, however large the telescope. The two differ a
thousandfold. Published sky brightnesses differ as well: the full moon of the literature is fifty times that
of a dark observatory. So brightness is a property of the site, given as radiance or as magnitudes.

>>> night = radiance_of_magnitude(17.95, "I")
>>> receiver = dict(field_of_view_urad=100.0, aperture_area_m2=0.5027, filter_nm=1.0)
>>> f"{sky_photons_hz(night, 850.0, **receiver) * 1e-9:.1e} photons in a gate of 1 ns"
'5.3e-07 photons in a gate of 1 ns'

Left out: straylight of a sunlit satellite and of the Moon near the line of sight (which is why key is not
credited then, :class:`CreditRule`), airglow lines, detector dark counts.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from openqci.core.errors import OutsideModel
from openqci.space.geometry import EARTH_RADIUS_KM, check_altitude
from openqci.space.ranges import Floats, check_range

PLANCK_J_S = 6.62607015e-34
LIGHT_SPEED_M_S = 299_792_458.0

RADIANCE_MAX = 1e3
"""W/(m2 sr nm); the disc of the Sun has some 2e4, a bright day some 0.1."""

ARCSEC2_SR = math.radians(1 / 3600) ** 2

Band = Literal["V", "R", "I", "J", "H"]

MAGNITUDE_ZERO_W_M2_NM: dict[Band, float] = {
    "V": 3.631e-11,
    "R": 2.177e-11,
    "I": 1.126e-11,
    "J": 3.147e-12,
    "H": 1.138e-12,
}
"""Flux of magnitude zero per nm: M. S. Bessell et al., Astron. Astrophys. 333, 231 (1998); from memory,
unverified against the paper. Centres near 545, 641, 798, 1220 and 1630 nm."""


@dataclass(frozen=True)
class Sky:
    """A sky of a known kind.

    ``radiance`` in W/(m2 sr nm) near ``wavelength_nm``; ``verified`` says whether the figure was read in or
    computed from its source, or only remembered.
    """

    name: str
    wavelength_nm: float
    radiance: float
    source: str
    verified: bool


_ESO = "ESO SkyCalc, magnitude per square arcsecond"
_ERLONG = "M. Er-long et al., New J. Phys. 7, 215 (2005), as quoted; unverified against the paper"

SKIES = (
    Sky("dark-site-full-moon", 850.0, 3.2e-8, f"{_ESO}, I 17.95 with the Moon at 45 deg", True),
    Sky("dark-site-full-moon", 550.0, 9.7e-8, f"{_ESO}, V band", True),
    Sky("dark-site-full-moon", 1630.0, 8.4e-8, f"{_ESO}, H band", True),
    Sky("literature-full-moon", 850.0, 1.5e-6, _ERLONG, False),
    Sky("literature-new-moon", 850.0, 1.5e-7, _ERLONG, False),
    Sky("clear-day", 850.0, 1.5e-3, _ERLONG, False),
    Sky("hazy-day", 850.0, 1.5e-2, _ERLONG, False),
    Sky("lidar-day", 1550.0, 1e-3, "lidar literature, as quoted", True),
    Sky("lidar-day", 1064.0, 5e-2, "lidar literature, as quoted", True),
    Sky("lidar-day", 532.0, 0.12, "lidar literature, as quoted", True),
)


def sky(name: str, wavelength_nm: float) -> Sky:
    """Return the tabulated sky of this name nearest in wavelength, within a tenth of it.

    Raises
    ------
    OutsideModel
        Names the skies, or the wavelengths of this one.
    """
    named = [each for each in SKIES if each.name == name]
    if not named:
        raise OutsideModel("name", name, f"one of {', '.join(dict.fromkeys(each.name for each in SKIES))}")
    nearest = min(named, key=lambda each: abs(each.wavelength_nm - wavelength_nm))
    if not abs(nearest.wavelength_nm - wavelength_nm) <= wavelength_nm / 10:
        known = ", ".join(f"{each.wavelength_nm:g}" for each in named)
        raise OutsideModel("wavelength_nm", wavelength_nm, f"within 10 % of {known} for {name}")
    return nearest


def photon_energy_j(wavelength_nm: ArrayLike) -> Floats:
    """Return ``h c / lambda``."""
    wavelength = check_range("wavelength_nm", wavelength_nm, 200.0, 20_000.0)
    energy: Floats = PLANCK_J_S * LIGHT_SPEED_M_S / (wavelength * 1e-9)
    return energy


def sky_photons_hz(
    radiance: ArrayLike,
    wavelength_nm: ArrayLike,
    *,
    field_of_view_urad: ArrayLike,
    aperture_area_m2: ArrayLike,
    filter_nm: ArrayLike,
) -> Floats:
    """Return the photons of the sky per second that enter a receiver that sees many modes.

    Parameters
    ----------
    radiance : array_like
        H in W/(m2 sr nm), zero or more.
    wavelength_nm : array_like
    field_of_view_urad : array_like
        **Full** angle of a round field, 0.1 to 1e5.
    aperture_area_m2 : array_like
        See :attr:`openqci.space.diffraction.Telescope.area_m2`.
    filter_nm : array_like
        Width of the filter.

    Returns
    -------
    ndarray
        ``H Omega A dl lambda / (h c)`` with ``Omega = pi (FOV/2)^2``, before optics and detector. Times the
        width of a gate it is the photons of a gate.

    References
    ----------
    M. T. Gruneisen et al., as in R. N. Lanning et al., "Quantum communication over atmospheric channels"
    (2021); the formula is plain radiometry.
    """
    h = check_radiance(radiance)
    view = check_range("field_of_view_urad", field_of_view_urad, 0.1, 1e5) * 1e-6
    area = check_range("aperture_area_m2", aperture_area_m2, 1e-6, 1e4)
    width = check_range("filter_nm", filter_nm, 1e-6, 1e3)
    photons: Floats = h * math.pi * (view / 2) ** 2 * area * width / photon_energy_j(wavelength_nm)
    return photons


def single_mode_sky_photons_hz(radiance: ArrayLike, wavelength_nm: ArrayLike, filter_nm: ArrayLike) -> Floats:
    """Return the photons of the sky per second in one spatial mode, both polarisations.

    Etendue ``lambda^2``, whatever the telescope and its correction: what a single-mode fibre accepts.
    """
    h = check_radiance(radiance)
    width = check_range("filter_nm", filter_nm, 1e-6, 1e3)
    etendue = (check_range("wavelength_nm", wavelength_nm, 200.0, 20_000.0) * 1e-9) ** 2
    photons: Floats = h * etendue * width / photon_energy_j(wavelength_nm)
    return photons


def radiance_of_magnitude(magnitude_arcsec2: ArrayLike, band: Band) -> Floats:
    """Return the radiance, W/(m2 sr nm), of a sky of so many magnitudes per square arcsecond."""
    magnitude = check_range("magnitude_arcsec2", magnitude_arcsec2, -10.0, 40.0)
    radiance: Floats = zero_point(band) * 10 ** (-0.4 * magnitude) / ARCSEC2_SR
    return radiance


def magnitude_of_radiance(radiance: ArrayLike, band: Band) -> Floats:
    """Return the magnitudes per square arcsecond of a radiance; the inverse of the above."""
    h = check_range("radiance", radiance, 1e-20, RADIANCE_MAX)
    magnitude: Floats = -2.5 * np.log10(h * ARCSEC2_SR / zero_point(band))
    return magnitude


def city_light_radiance(seen_arcsec2: ArrayLike, natural_arcsec2: ArrayLike, band: Band) -> Floats:
    """Return what a city adds to the sky: the radiance seen less the natural one, both as magnitudes.

    Radiances add, magnitudes do not; a sky of the site under another Moon is this plus the other natural
    radiance.

    Raises
    ------
    OutsideModel
        If the sky seen is darker than the natural one.
    """
    seen, natural = np.asarray(seen_arcsec2, float), np.asarray(natural_arcsec2, float)
    if not (seen <= natural).all():
        raise OutsideModel("seen_arcsec2", seen_arcsec2, "at most natural_arcsec2 (smaller is brighter)")
    return radiance_of_magnitude(seen, band) - radiance_of_magnitude(natural, band)


@dataclass(frozen=True)
class CreditRule:
    """When key of a pass may be counted, as a property of a site and a receiver.

    Parameters
    ----------
    sun_elevation_max_deg : float
        At the station; -6 ends civil, -12 nautical, -18 astronomical twilight. +90 is a receiver made for
        the day.
    eclipse_needed : bool
        Whether the satellite must be in the Earth's shadow, where it throws no sunlight down.
    """

    sun_elevation_max_deg: float = -12.0
    eclipse_needed: bool = True

    def __post_init__(self) -> None:
        check_range("sun_elevation_max_deg", self.sun_elevation_max_deg, -90.0, 90.0)

    def allows(
        self, sun_elevation_deg: ArrayLike, satellite_sunlit: ArrayLike, sky_clear: ArrayLike = True
    ) -> NDArray[np.bool_]:
        """Return where key may be credited.

        Parameters
        ----------
        sun_elevation_deg : array_like, shape S
            At the station, -90 to 90.
        satellite_sunlit, sky_clear : array_like of bool, broadcastable with S
        """
        sun = check_range("sun_elevation_deg", sun_elevation_deg, -90.0, 90.0)
        dark: NDArray[np.bool_] = sun <= self.sun_elevation_max_deg
        shaded = ~np.asarray(satellite_sunlit, dtype=np.bool_) | (not self.eclipse_needed)
        return dark & shaded & np.asarray(sky_clear, dtype=np.bool_)


def satellite_sunlit(sun_elevation_below_deg: ArrayLike, altitude_km: ArrayLike) -> NDArray[np.bool_]:
    """Return whether a satellite is in sunlight.

    Parameters
    ----------
    sun_elevation_below_deg : array_like
        Elevation of the Sun at the point of the Earth **below the satellite**, -90 to 90.
    altitude_km : array_like

    Returns
    -------
    ndarray of bool
        The Earth's shadow as a cylinder; penumbra and refraction are left out (a degree of elevation).
    """
    sun = np.radians(check_range("sun_elevation_below_deg", sun_elevation_below_deg, -90.0, 90.0))
    orbit = EARTH_RADIUS_KM + check_altitude(altitude_km)
    # Distance of the satellite from the axis of the shadow, and on which side of the Earth it is.
    sunlit: NDArray[np.bool_] = (sun >= 0) | (orbit * np.cos(sun) > EARTH_RADIUS_KM)
    return sunlit


def zero_point(band: Band) -> float:
    if band not in get_args(Band):
        raise OutsideModel("band", band, f"one of {', '.join(get_args(Band))}")
    return MAGNITUDE_ZERO_W_M2_NM[band]


def check_radiance(radiance: ArrayLike) -> Floats:
    return check_range("radiance", radiance, 0.0, RADIANCE_MAX)
