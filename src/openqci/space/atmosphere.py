"""How much of the light the clear or hazy air lets through on a slanted path.

Clear air: the transmittance at the zenith, measured or computed once per wavelength, to the power of the
airmass. That is Beer and Lambert's law, and it holds for aerosols and Rayleigh scattering; it fails inside a
band of water vapour, where the strong lines saturate first, so such wavelengths carry a table instead.

>>> clear_sky_transmittance([90.0, 20.0], 850.0).round(3).tolist()
[0.895, 0.725]

Left out: clouds (all or nothing, a matter of weather), refraction, the colour of the source line within a
band, seasons. The zenith figures are for one standard clear sky at sea level.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from openqci.core.errors import OutsideModel
from openqci.space.ranges import Floats, check_range

ELEVATION_DEG_MIN = 5.0
"""Lower, neither the airmass nor the table is believed (within 0.13 dB at 5 deg, 0.05 dB from 10 deg)."""

RAYLEIGH_HEIGHT_KM = 8.0
AEROSOL_HEIGHT_KM = 1.5
"""Scale heights of molecules and of haze; the latter is between 1 and 2 km in the literature."""

SITE_ALTITUDE_KM_MAX = 6.0

VisibilityModel = Literal["kim", "kruse"]

SOURCE = "MODTRAN 500 km path from sea level, as tabulated in SatQuMA 2.0.0 (cnqo-qcomms, MIT licence)"


@dataclass(frozen=True)
class ClearSky:
    """The clear standard sky at one wavelength.

    ``elevations_deg`` and ``transmittances`` are given where Beer and Lambert's law does not hold (water
    vapour); they are empty elsewhere.
    """

    wavelength_nm: float
    zenith_transmittance: float
    elevations_deg: tuple[float, ...] = ()
    transmittances: tuple[float, ...] = ()
    source: str = SOURCE


CLEAR_SKIES = (
    ClearSky(785.0, 0.8760),
    ClearSky(
        810.0,
        0.8136,
        (5, 6, 7, 8, 9, 10, 12, 15, 18, 20, 25, 30, 40, 50, 60, 75, 90),
        (
            *(0.1882, 0.2369, 0.2814, 0.3217, 0.3580, 0.3907, 0.4469, 0.5133, 0.5644),
            *(0.5922, 0.6466, 0.6860, 0.7386, 0.7710, 0.7916, 0.8085, 0.8136),
        ),
    ),
    ClearSky(850.0, 0.8952),
    ClearSky(1550.0, 0.9604),
)

WAVELENGTH_TOLERANCE_NM = 2.0
"""How far from a tabulated wavelength its figure is used."""


def airmass(elevation_deg: ArrayLike) -> Floats:
    """Return the air on a slanted path in units of that to the zenith; 1 at 90 deg, 38 at the horizon.

    References
    ----------
    F. Kasten, A. T. Young, "Revised optical air mass tables and approximation formula", Appl. Opt. 28, 4735
    (1989).
    """
    elevation = check_range("elevation_deg", elevation_deg, 0.0, 90.0)
    sine = np.sin(np.radians(elevation))
    # The formula gives 0.9997 at the zenith; no path is shorter than that.
    return np.maximum(1 / (sine + 0.50572 * (elevation + 6.07995) ** -1.6364), 1.0)


def clear_sky_transmittance(
    elevation_deg: ArrayLike,
    wavelength_nm: float,
    site_altitude_km: float = 0.0,
    aerosol_height_km: float = AEROSOL_HEIGHT_KM,
) -> Floats:
    """Return the transmittance of the clear standard sky from space to a station.

    Parameters
    ----------
    elevation_deg : array_like, shape S
        5 to 90.
    wavelength_nm : float
        One of the tabulated, 785, 810, 850 or 1550, within 2 nm.
    site_altitude_km : float
        Of the station above the sea, 0 to 6; takes away the air below it, molecules with a scale height of
        8 km, all else with that of haze.
    aerosol_height_km : float
        Scale height of haze, 0.5 to 5.

    Returns
    -------
    ndarray, shape S

    Raises
    ------
    OutsideModel
        For another wavelength, or an elevation below 5 deg.
    """
    elevation = check_range("elevation_deg", elevation_deg, ELEVATION_DEG_MIN, 90.0)
    sky = clear_sky(wavelength_nm)
    if sky.elevations_deg:
        depth = banded_depth(sky, elevation)
    else:
        depth = -math.log(sky.zenith_transmittance) * airmass(elevation)
    through: Floats = np.exp(-depth * share_above(sky, site_altitude_km, aerosol_height_km))
    return through


def clear_sky(wavelength_nm: float) -> ClearSky:
    """Return the tabulated clear sky of a wavelength; OutsideModel names those that there are."""
    nearest = min(CLEAR_SKIES, key=lambda sky: abs(sky.wavelength_nm - wavelength_nm))
    if not abs(nearest.wavelength_nm - wavelength_nm) <= WAVELENGTH_TOLERANCE_NM:
        known = ", ".join(f"{sky.wavelength_nm:g}" for sky in CLEAR_SKIES)
        raise OutsideModel("wavelength_nm", wavelength_nm, f"one of {known}, within 2 nm")
    return nearest


def banded_depth(sky: ClearSky, elevation_deg: Floats) -> Floats:
    """Return the optical depth of a path from the table: straight lines between logarithms.

    Depth grows as a power of the airmass within a band (0.88 at 810 nm), so the logarithms are all but a
    straight line.
    """
    table = np.log(airmass(np.array(sky.elevations_deg)))[::-1]
    depths = np.log(-np.log(np.array(sky.transmittances)))[::-1]
    depth: Floats = np.exp(np.interp(np.log(airmass(elevation_deg)), table, depths))
    return depth


def share_above(sky: ClearSky, site_altitude_km: float, aerosol_height_km: float) -> float:
    """Return which part of the sea-level optical depth is above a station."""
    check_range("site_altitude_km", site_altitude_km, 0.0, SITE_ALTITUDE_KM_MAX)
    check_range("aerosol_height_km", aerosol_height_km, 0.5, 5.0)
    whole = -math.log(sky.zenith_transmittance)
    molecules = min(float(rayleigh_depth(sky.wavelength_nm)), whole)
    haze = whole - molecules
    above = molecules * math.exp(-site_altitude_km / RAYLEIGH_HEIGHT_KM)
    return (above + haze * math.exp(-site_altitude_km / aerosol_height_km)) / whole


def rayleigh_depth(wavelength_nm: ArrayLike) -> Floats:
    """Return the optical depth of the molecules of the whole atmosphere at the zenith, at sea level.

    References
    ----------
    J. E. Hansen, L. D. Travis, Space Sci. Rev. 16, 527 (1974), eq. (2.30); from memory, unverified against
    the paper.
    """
    inverse = (check_range("wavelength_nm", wavelength_nm, 300.0, 5000.0) * 1e-3) ** -2
    depth: Floats = 0.008569 * inverse**2 * (1 + 0.0113 * inverse + 0.00013 * inverse**2)
    return depth


def visibility_attenuation_per_km(
    visibility_km: ArrayLike, wavelength_nm: ArrayLike, model: VisibilityModel = "kim"
) -> Floats:
    """Return the extinction of haze or fog near the ground from the meteorological visibility.

    Parameters
    ----------
    visibility_km : array_like
        Where contrast falls to 2 %, 0.05 to 300 km.
    wavelength_nm : array_like
    model : {"kim", "kruse"}
        They differ below 6 km: Kim's extinction is the same at all wavelengths in fog (below 0.5 km), as
        measurements say; Kruse's falls with wavelength even there.

    Returns
    -------
    ndarray
        ``3.912 / V (lambda / 550 nm)^(-q)`` per km, as a natural exponent. q is 1.6 above 50 km, 1.3 above
        6 km, and below ``0.585 V^(1/3)`` (Kruse) or 0.16 V + 0.34, V - 0.5 and 0 (Kim, above 1, above 0.5
        and below). It jumps at these borders, in the papers too.

    References
    ----------
    P. W. Kruse et al., "Elements of Infrared Technology" (1962); I. I. Kim, B. McArthur, E. Korevaar, Proc.
    SPIE 4214, 26 (2001). From memory, unverified against them.
    """
    if model not in get_args(VisibilityModel):
        raise OutsideModel("model", model, f"one of {', '.join(get_args(VisibilityModel))}")
    v = check_range("visibility_km", visibility_km, 0.05, 300.0)
    ratio = check_range("wavelength_nm", wavelength_nm, 400.0, 2500.0) / 550.0
    hazy = (
        0.585 * np.cbrt(v) if model == "kruse" else np.select([v > 1, v > 0.5], [0.16 * v + 0.34, v - 0.5], 0)
    )
    exponent = np.select([v > 50, v > 6], [1.6, 1.3], hazy)
    extinction: Floats = 3.912 / v * ratio**-exponent
    return extinction


def hazy_sky_transmittance(
    elevation_deg: ArrayLike,
    visibility_km: ArrayLike,
    wavelength_nm: ArrayLike,
    site_altitude_km: float = 0.0,
    aerosol_height_km: float = AEROSOL_HEIGHT_KM,
    model: VisibilityModel = "kim",
) -> Floats:
    """Return the transmittance of haze of a given visibility at sea level, thinning with height.

    The extinction near the ground times the scale height of haze, times the airmass; molecules and water
    vapour are not in it. For conditions other than those of :func:`clear_sky_transmittance`.
    """
    check_range("aerosol_height_km", aerosol_height_km, 0.5, 5.0)
    check_range("site_altitude_km", site_altitude_km, 0.0, SITE_ALTITUDE_KM_MAX)
    air = airmass(check_range("elevation_deg", elevation_deg, ELEVATION_DEG_MIN, 90.0))
    above = aerosol_height_km * math.exp(-site_altitude_km / aerosol_height_km)
    through: Floats = np.exp(
        -visibility_attenuation_per_km(visibility_km, wavelength_nm, model) * above * air
    )
    return through


STANDARD_AEROSOL_DEPTH = 0.17
"""Optical depth of the haze in the clear standard sky at 550 nm, at sea level: what its depths at 785, 850
and 1550 nm leave beyond the molecules, carried over with Angstrom's exponent."""

ANGSTROM_EXPONENT = 1.3
WATER_CM, WATER_HEIGHT_KM = 2.0, 2.0
"""Water vapour above the sea, and its scale height: an average of the middle latitudes."""

AEROSOL_DEPTH_MIN = 0.01


def aerosol_depth_550(linke_turbidity: ArrayLike, site_altitude_km: float = 0.0) -> Floats:
    """Return the optical depth of haze at 550 nm above a site from its Linke turbidity.

    Parameters
    ----------
    linke_turbidity : array_like
        Of the whole clear sky at the site, 1 to 12; clear air 2, hazy summers 5.
    site_altitude_km : float

    Returns
    -------
    ndarray
        At least 0.01: turbidities that clean air alone exceeds say that there is hardly any haze.

    References
    ----------
    P. Ineichen, Sol. Energy 82, 1095 (2008), solved for the aerosol; water vapour is taken as 2 cm at sea
    level with a scale height of 2 km.
    """
    turbidity = check_range("linke_turbidity", linke_turbidity, 1.0, 12.0)
    check_range("site_altitude_km", site_altitude_km, -0.5, SITE_ALTITUDE_KM_MAX)
    thinner = math.exp(site_altitude_km / 8.4345)
    water = 0.376 * math.log(max(0.2, WATER_CM * math.exp(-site_altitude_km / WATER_HEIGHT_KM)))
    clean = 2.0 + 0.54 * thinner - 0.5 * thinner**2 + 0.16 * thinner**3
    depth = (turbidity - water - clean) / (3.91 * math.exp(0.689 * thinner))
    return np.maximum(depth, AEROSOL_DEPTH_MIN)


def turbid_sky_transmittance(
    elevation_deg: ArrayLike,
    wavelength_nm: float,
    aerosol_depth_550: ArrayLike,
    site_altitude_km: float = 0.0,
) -> Floats:
    """Return the transmittance of the cloudless sky over a site with more or less haze than the standard.

    The clear standard sky with its haze exchanged for that of the site; equal to
    :func:`clear_sky_transmittance` where both are the same.

    Parameters
    ----------
    elevation_deg : array_like, shape S
        5 to 90.
    wavelength_nm : float
        One of the tabulated.
    aerosol_depth_550 : array_like, broadcastable with S
        Above the site, not above the sea.
    site_altitude_km : float
    """
    depth = check_range("aerosol_depth_550", aerosol_depth_550, 0.0, 5.0)
    standard = -np.log(clear_sky_transmittance(elevation_deg, wavelength_nm, site_altitude_km))
    usual = STANDARD_AEROSOL_DEPTH * math.exp(-site_altitude_km / AEROSOL_HEIGHT_KM)
    per_550 = (wavelength_nm / 550.0) ** -ANGSTROM_EXPONENT
    air = airmass(elevation_deg)
    molecules = float(rayleigh_depth(wavelength_nm)) * math.exp(-site_altitude_km / RAYLEIGH_HEIGHT_KM)
    through: Floats = np.exp(-np.maximum(standard + (depth - usual) * per_550 * air, molecules * air))
    return through
