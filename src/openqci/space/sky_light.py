"""How bright the sky is where the telescope looks: night, Moon, twilight, day and the light of towns.

The radiances of :mod:`openqci.space.sky` are those of named skies; this is the sky of a moment. Four parts
are added, because radiances add:

- the natural night sky, as measured at dark observatories;
- towns, as a multiple of that, a property of the site;
- the Moon by its phase, its height and its distance from the line of sight;
- the Sun below the horizon, and above it.

>>> dark = sky_radiance(850.0, sun_elevation_deg=-30.0)
>>> full_moon = sky_radiance(850.0, -30.0, moon_elevation_deg=45.0, moon_phase_deg=0.0,
...                          moon_separation_deg=45.0, elevation_deg=90.0)
>>> dusk = sky_radiance(850.0, sun_elevation_deg=-9.0)
>>> f"{dark:.1e} {full_moon:.1e} {dusk:.1e}"
'6.3e-09 3.2e-08 1.1e-07'

Good to a factor of two at night and of three in twilight, in clear air; figures marked below are assumptions
or from memory. Left out: direction other than the Moon's (the sky near the horizon is up to twice as bright),
airglow that doubles within hours, clouds, stars in the field, the Sun near the line of sight.
"""

import numpy as np
from numpy.typing import ArrayLike

from openqci.core.errors import OutsideModel
from openqci.space.atmosphere import clear_sky
from openqci.space.ranges import Floats, check_range
from openqci.space.sky import Band, photon_energy_j, radiance_of_magnitude, sky, zero_point

NATURAL_MAGNITUDES: dict[Band, float] = {"V": 21.6, "I": 19.7, "H": 14.4}
"""Dark sky without a Moon, per square arcsecond. V and I: F. Patat, Astron. Astrophys. 400, 1183 (2003); H:
ESO SkyCalc, most of it lines of OH, a narrow filter between which sees less."""

FULL_MOON_MAGNITUDES = {"V": 18.01, "I": 17.95}
"""The same at the zenith with a full Moon 45 deg from it: ESO SkyCalc."""

INFRARED_NM = 1200.0
"""From here on the sky is that of the H band, below that of the I band."""

INFRARED_MOON = 0.05
"""Scattered moonlight at 1550 nm over that at 850 nm: an assumption, far below the lines of OH."""

DAY_SUN_ELEVATION_DEG = 10.0
"""From here on it is day."""

SUNLIGHT_OVER_VISIBLE: dict[Band, float] = {"I": 0.1, "H": 0.008}
"""Scattered sunlight per nm over that at 550 nm: an assumption between molecules (fourth power) and haze."""

TOWN_OVER_VISIBLE: dict[Band, float] = {"I": 0.7, "H": 0.1}
"""Light of towns per nm over that at 550 nm: an assumption; lamps differ more than this."""

TOWNS = {"dark": 0.0, "rural": 1.0, "suburban": 10.0, "city": 50.0}
"""Light of towns over the natural sky in the visible, by kind of site: assumptions. At 50 the sky of a
moonless night is the one of the literature on satellite links."""


def sky_radiance(
    wavelength_nm: float,
    sun_elevation_deg: ArrayLike,
    moon_elevation_deg: ArrayLike = -90.0,
    moon_phase_deg: ArrayLike = 180.0,
    moon_separation_deg: ArrayLike = 90.0,
    elevation_deg: ArrayLike = 90.0,
    town_ratio: ArrayLike = 0.0,
) -> Floats:
    """Return the radiance of the sky, W/(m2 sr nm); arguments broadcast.

    Parameters
    ----------
    wavelength_nm : float
        One for which the clear sky is tabulated: 785, 810, 850, 1550.
    sun_elevation_deg, moon_elevation_deg : array_like
        At the station.
    moon_phase_deg : array_like
        Angle at the Moon between Sun and Earth: 0 is full, 180 is new.
    moon_separation_deg : array_like
        Of the Moon from the line of sight; below 10 counts as 10.
    elevation_deg : array_like
        Of the line of sight.
    town_ratio : array_like
        Light of towns over the natural sky in the visible; ``TOWNS`` has some.
    """
    moon = moon_radiance(
        wavelength_nm, moon_elevation_deg, moon_phase_deg, moon_separation_deg, elevation_deg
    )
    name = band(wavelength_nm)
    towns = check_range("town_ratio", town_ratio, 0.0, 1e4) * natural("V") * TOWN_OVER_VISIBLE[name]
    total: Floats = natural(name) + towns + moon + sun_radiance(wavelength_nm, sun_elevation_deg)
    return total


def band(wavelength_nm: float) -> Band:
    """Return the photometric band whose sky stands for a wavelength."""
    clear_sky(wavelength_nm)
    return "H" if wavelength_nm > INFRARED_NM else "I"


def natural(name: Band) -> float:
    """Return the radiance of the natural night sky in a band."""
    return float(radiance_of_magnitude(NATURAL_MAGNITUDES[name], name))


def moon_radiance(
    wavelength_nm: float,
    moon_elevation_deg: ArrayLike,
    moon_phase_deg: ArrayLike,
    moon_separation_deg: ArrayLike,
    elevation_deg: ArrayLike,
) -> Floats:
    """Return the moonlight that the air scatters into the line of sight.

    The full Moon of the table, times how its light changes with phase, angle and air.

    References
    ----------
    K. Krisciunas, B. E. Schaefer, Publ. Astron. Soc. Pac. 103, 1033 (1991); from memory, used for ratios
    alone.
    """
    up = check_range("moon_elevation_deg", moon_elevation_deg, -90.0, 90.0)
    phase = check_range("moon_phase_deg", moon_phase_deg, 0.0, 180.0)
    aside = check_range("moon_separation_deg", moon_separation_deg, 0.0, 180.0)
    sight = check_range("elevation_deg", elevation_deg, 0.0, 90.0)
    full = float(radiance_of_magnitude(FULL_MOON_MAGNITUDES["I"], "I")) - natural("I")
    if band(wavelength_nm) == "H":
        full *= INFRARED_MOON
    depth = -np.log(clear_sky(wavelength_nm).zenith_transmittance)

    def scattered(up: ArrayLike, aside: ArrayLike, sight: ArrayLike) -> Floats:
        lit: Floats = (
            scattering(aside) * np.exp(-depth * thin_airmass(up)) * -np.expm1(-depth * thin_airmass(sight))
        )
        return lit

    fainter = 10 ** (-0.4 * (0.026 * phase + 4e-9 * phase**4))
    light = full * fainter * scattered(np.maximum(up, 0.0), aside, sight) / scattered(45.0, 45.0, 90.0)
    return np.where(up > 0, light, 0.0)


def scattering(separation_deg: ArrayLike) -> Floats:
    """Return how air and haze scatter by angle, in the units of Krisciunas and Schaefer."""
    angle = np.maximum(separation_deg, 10.0)
    scattered: Floats = 10**5.36 * (1.06 + np.cos(np.radians(angle)) ** 2) + 10 ** (6.15 - angle / 40)
    return scattered


def thin_airmass(elevation_deg: ArrayLike) -> Floats:
    """Return the air on a path as those authors have it; 5 at the horizon."""
    away = np.cos(np.radians(elevation_deg))
    mass: Floats = 1 / np.sqrt(1 - 0.96 * away**2)
    return mass


def sun_radiance(wavelength_nm: float, sun_elevation_deg: ArrayLike) -> Floats:
    """Return the sunlight in the sky at the zenith, by the elevation of the Sun.

    In twilight the brightening of the zenith in magnitudes, as a polynomial; by day the tabulated clear day;
    between sunset and 10 deg a straight line in the logarithm.

    References
    ----------
    J. R. Thorstensen, "skycalc": its polynomial, fitted to published measurements from 0 to -18 deg.
    """
    sun = check_range("sun_elevation_deg", sun_elevation_deg, -90.0, 90.0)
    of_visible = natural("V") * SUNLIGHT_OVER_VISIBLE[band(wavelength_nm)]
    y = (-np.clip(sun, -18.0, 0.0) - 9.0) / 9.0
    brighter = ((2.0635175 * y + 1.246602) * y - 9.4084495) * y + 6.132725
    dusk = of_visible * (10 ** (0.4 * brighter) - 1)
    day = sky("lidar-day", 1550.0) if band(wavelength_nm) == "H" else sky("clear-day", 850.0)
    sunset = of_visible * (10 ** (0.4 * SUNSET_BRIGHTER) - 1)
    risen = np.clip(sun / DAY_SUN_ELEVATION_DEG, 0.0, 1.0)
    light: Floats = np.where(sun > 0, sunset * (day.radiance / sunset) ** risen, dusk)
    # The polynomial is a hundredth of a magnitude off zero where night begins.
    return np.where(sun <= -18.0, 0.0, np.maximum(light, 0.0))


SUNSET_BRIGHTER = ((2.0635175 * -1 + 1.246602) * -1 - 9.4084495) * -1 + 6.132725
"""Magnitudes by which the zenith is brighter at sunset than at night."""


def sunlit_satellite_photons_hz(
    magnitude_1000_km: float,
    range_km: ArrayLike,
    wavelength_nm: float,
    *,
    aperture_area_m2: float,
    filter_nm: float,
) -> Floats:
    """Return the photons per second of a satellite in sunlight that enter a telescope.

    Parameters
    ----------
    magnitude_1000_km : float
        Of the whole satellite at 1000 km, half lit, in the band of the wavelength; 0 to 20.
    range_km : array_like
    wavelength_nm : float
    aperture_area_m2, filter_nm : float

    Notes
    -----
    Its phase is left out: half lit at all times. The air takes part of it as of the signal, which the caller
    sees to.
    """
    magnitude = check_range("magnitude_1000_km", magnitude_1000_km, -5.0, 25.0)
    distance = check_range("range_km", range_km, 1.0, 1e6)
    if not aperture_area_m2 > 0 or not filter_nm > 0:
        raise OutsideModel("aperture_area_m2", aperture_area_m2, "above zero, and so the filter")
    flux = zero_point(band(wavelength_nm)) * 10 ** (-0.4 * magnitude)
    watt = flux * (1000.0 / distance) ** 2 * aperture_area_m2 * filter_nm
    photons: Floats = watt / photon_energy_j(wavelength_nm)
    return photons
