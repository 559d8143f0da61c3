"""Sun and Moon over a station: how dark it is, what lights the satellite, how bright the Moon stands.

Short series that a planner can trust to a fraction of the Sun's disc: the Sun within 0.013 deg, the Moon
within 0.1 deg, from 1957 to 2100 (tests hold them against the ephemerides of ERFA).

>>> stations = Stations.of(["lisbon"], [38.7], [-9.1])
>>> noon = 1_774_008_000.0 + 3600 * np.array([0.5, 12.5])  # 2026-03-20, near noon and near midnight
>>> elevation = sun_elevation_deg(stations, noon)
>>> elevation.round(0).tolist(), [TWILIGHTS[each] for each in twilight(elevation)[0]]
([[51.0, -51.0]], ['day', 'night'])

Elevations are geometric, without refraction. Left out: nutation (below 0.005 deg), planets, eclipses of the
Moon. What a sky of that Sun and that Moon looks like is :mod:`openqci.space.sky`.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from openqci.space.frames import Stations, angle_deg, turned_to_earth
from openqci.space.ranges import Floats, check_range
from openqci.space.time_scales import centuries_tt

ASTRONOMICAL_UNIT_KM = 149_597_870.7
SUN_RADIUS_KM = 695_700.0
SHADOW_RADIUS_KM = 6371.0
"""Of the Earth as it throws its shadow: a sphere of the mean radius, without its air."""

TWILIGHTS = ("night", "astronomical", "nautical", "civil", "day")
TWILIGHT_EDGES_DEG = (-18.0, -12.0, -6.0, -0.833)
"""Elevations of the Sun's centre where twilights begin; the last is sunrise at sea level, with refraction."""


def sun_position_km(utc_s: ArrayLike) -> Floats:
    """Return the place of the Sun fixed to the Earth, shape S + (3,), for moments of shape S.

    References
    ----------
    The low-precision formulas of "The Astronomical Almanac", part C, from memory; aberration is in its
    constants, so that this is where the Sun is seen.
    """
    t = centuries_tt(utc_s)
    days = 36_525 * t
    anomaly = np.radians(357.529 + 0.985_600_28 * days)
    mean_longitude = 280.459 + 0.985_647_36 * days
    longitude = np.radians(mean_longitude + 1.915 * np.sin(anomaly) + 0.020 * np.sin(2 * anomaly))
    distance_km = ASTRONOMICAL_UNIT_KM * (1.00014 - 0.01671 * np.cos(anomaly) - 0.00014 * np.cos(2 * anomaly))
    return to_earth(longitude, np.zeros_like(longitude), distance_km, utc_s)


MOON_LONGITUDE = (
    (22640, 1, 0, 0, 0),
    (769, 2, 0, 0, 0),
    (-4586, 1, 0, 0, -2),
    (2370, 0, 0, 0, 2),
    (-668, 0, 1, 0, 0),
    (-412, 0, 0, 2, 0),
    (-212, 2, 0, 0, -2),
    (-206, 1, 1, 0, -2),
    (192, 1, 0, 0, 2),
    (-165, 0, 1, 0, -2),
    (148, 1, -1, 0, 0),
    (-125, 0, 0, 0, 1),
    (-110, 1, 1, 0, 0),
    (-55, 0, 0, 2, -2),
)
MOON_LATITUDE = (
    (-526, 0, 0, 1, -2),
    (44, 1, 0, 1, -2),
    (-31, -1, 0, 1, -2),
    (-25, -2, 0, 1, 0),
    (-23, 0, 1, 1, -2),
    (21, -1, 0, 1, 0),
    (11, 0, -1, 1, -2),
)
MOON_DISTANCE_KM = (
    (-20905, 1, 0, 0, 0),
    (-3699, -1, 0, 0, 2),
    (-2956, 0, 0, 0, 2),
    (-570, 2, 0, 0, 0),
    (246, 2, 0, 0, -2),
    (-205, 0, 1, 0, -2),
    (-171, 1, 0, 0, 2),
    (-152, 1, 1, 0, -2),
)
"""Amplitude (arcseconds, km) and multiples of the Moon's anomaly, the Sun's anomaly, the argument of latitude
and the elongation."""

ARCSECOND = math.radians(1 / 3600)


def moon_position_km(utc_s: ArrayLike) -> Floats:
    """Return the place of the Moon fixed to the Earth, shape S + (3,), for moments of shape S.

    References
    ----------
    The largest terms of Brown's theory as in O. Montenbruck, E. Gill, "Satellite Orbits" (2000), section
    3.3.2; from memory, checked here against ERFA.
    """
    t = centuries_tt(utc_s)
    mean_longitude = np.radians(218.31617 + 481_267.88088 * t)
    moon = np.radians(134.96292 + 477_198.86753 * t)
    sun = np.radians(357.52543 + 35_999.04944 * t)
    latitude_argument = np.radians(93.27283 + 483_202.01873 * t)
    elongation = np.radians(297.85027 + 445_267.11135 * t)
    arguments = moon, sun, latitude_argument, elongation

    off = ARCSECOND * series(np.sin, MOON_LONGITUDE, arguments)
    swing = off + ARCSECOND * (412 * np.sin(2 * latitude_argument) + 541 * np.sin(sun))
    latitude = ARCSECOND * (
        18_520 * np.sin(latitude_argument + swing) + series(np.sin, MOON_LATITUDE, arguments)
    )
    distance_km = 385_000 + series(np.cos, MOON_DISTANCE_KM, arguments)
    return to_earth(mean_longitude + off, latitude, distance_km, utc_s)


def series(
    of: np.ufunc, terms: tuple[tuple[int, int, int, int, int], ...], arguments: tuple[Floats, ...]
) -> Floats:
    """Return a sum of amplitudes times a sine or cosine of multiples of the arguments."""
    total = np.zeros_like(arguments[0])
    for amplitude, *multiples in terms:
        angle = sum(n * each for n, each in zip(multiples, arguments, strict=True) if n)
        total = total + amplitude * of(angle)
    return total


def to_earth(longitude: Floats, latitude: Floats, distance_km: Floats, utc_s: ArrayLike) -> Floats:
    """Return ecliptic coordinates of the date as vectors fixed to the Earth."""
    tilt = np.radians(23.439_291 - 0.013_004_2 * centuries_tt(utc_s))
    x = np.cos(latitude) * np.cos(longitude)
    across = np.cos(latitude) * np.sin(longitude)
    y = across * np.cos(tilt) - np.sin(latitude) * np.sin(tilt)
    z = across * np.sin(tilt) + np.sin(latitude) * np.cos(tilt)
    return turned_to_earth(np.stack([x, y, z], axis=-1) * distance_km[..., None], utc_s)


def elevation_of_body_deg(stations: Stations, body_km: Floats) -> Floats:
    """Return how high bodies stand over stations, parallax included.

    Parameters
    ----------
    stations : Stations
        G of them.
    body_km : ndarray, shape (T, 3)
        Fixed to the Earth.

    Returns
    -------
    ndarray, shape (G, T)
    """
    away = body_km[None] - stations.positions_km[:, None]
    distance = np.sqrt(np.einsum("gti,gti->gt", away, away))
    sine = np.einsum("gti,gi->gt", away, stations.up) / distance
    elevation: Floats = np.degrees(np.arcsin(np.clip(sine, -1.0, 1.0)))
    return elevation


def sun_elevation_deg(stations: Stations, utc_s: ArrayLike) -> Floats:
    """Return the geometric elevation of the Sun's centre, shape (G, T)."""
    return elevation_of_body_deg(stations, np.atleast_2d(sun_position_km(np.atleast_1d(utc_s))))


def moon_elevation_deg(stations: Stations, utc_s: ArrayLike) -> Floats:
    """Return the geometric elevation of the Moon's centre, shape (G, T)."""
    return elevation_of_body_deg(stations, np.atleast_2d(moon_position_km(np.atleast_1d(utc_s))))


def moon_illuminated_fraction(utc_s: ArrayLike) -> Floats:
    """Return which part of the Moon's disc the Sun lights, as seen from the centre of the Earth; 0 to 1."""
    fraction: Floats = (1 + np.cos(np.radians(moon_phase_deg(utc_s)))) / 2
    return fraction


def moon_phase_deg(utc_s: ArrayLike) -> Floats:
    """Return the angle at the Moon between Sun and Earth: 0 for a full Moon, 180 for a new one."""
    moon, sun = moon_position_km(utc_s), sun_position_km(utc_s)
    return angle_deg(sun - moon, -moon)


def twilight(sun_elevation_deg: ArrayLike) -> NDArray[np.int8]:
    """Return the class of the light as a place in ``TWILIGHTS``: 0 is night, 4 is day."""
    elevation = check_range("sun_elevation_deg", sun_elevation_deg, -90.0, 90.0)
    return np.digitize(elevation, TWILIGHT_EDGES_DEG).astype(np.int8)


def sunlit_fraction(satellite_km: Floats, sun_km: Floats) -> Floats:
    """Return which part of the Sun's disc a satellite sees past the Earth: 1 in sunlight, 0 in the umbra.

    Parameters
    ----------
    satellite_km, sun_km : ndarray, shape S + (3,)
        In one frame, broadcast together.

    Returns
    -------
    ndarray, shape S
        By the overlap of two discs in the sky; a straight line stands for the edge of the Earth.

    Notes
    -----
    Left out: the Earth's air, which bends and reddens light into the umbra, and its flattening. The edge of
    the shadow is right within some ten seconds of a low orbit.
    """
    to_sun = sun_km - satellite_km
    from_sun = np.sqrt((to_sun**2).sum(axis=-1))
    radius = np.sqrt((satellite_km**2).sum(axis=-1))
    along = (to_sun * satellite_km).sum(axis=-1) / (from_sun * radius)
    between = np.arccos(np.clip(-along, -1.0, 1.0))
    earth = np.arcsin(np.minimum(SHADOW_RADIUS_KM / radius, 1.0))
    disc = np.arcsin(np.minimum(SUN_RADIUS_KM / from_sun, 1.0))
    # Distance of the Sun's centre from the edge of the Earth, in radii of the Sun: -1 hidden, 1 free.
    free = np.clip((between - earth) / disc, -1.0, 1.0)
    seen: Floats = 0.5 + (free * np.sqrt(1 - free**2) + np.arcsin(free)) / math.pi
    return seen


def is_sunlit(satellite_km: Floats, sun_km: Floats) -> NDArray[np.bool_]:
    """Return whether any of the Sun's disc shines on a satellite; see :func:`sunlit_fraction`.

    Faster than that: the shadow is a cone behind the Earth, and no angle is taken.
    """
    sun_distance = np.sqrt(np.einsum("...i,...i->...", sun_km, sun_km))
    behind = -np.einsum("...i,...i->...", satellite_km, sun_km) / sun_distance
    off_axis = np.sqrt(np.maximum(np.einsum("...i,...i->...", satellite_km, satellite_km) - behind**2, 0.0))
    # The umbra narrows by the Sun's radius less the Earth's over their distance.
    umbra_km = SHADOW_RADIUS_KM - behind * (SUN_RADIUS_KM - SHADOW_RADIUS_KM) / sun_distance
    lit: NDArray[np.bool_] = (behind <= 0) | (off_axis > umbra_km)
    return lit
