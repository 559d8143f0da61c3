"""Where the satellite is as seen from the station: range, elevation and one pass of a circular orbit.

The Earth is a sphere that stands still while the satellite passes, the orbit a circle. Left out: the
Earth's rotation (it changes the length of a low pass by up to some 7 %), its oblateness, refraction (0.1 deg
at 10 deg elevation), eccentric orbits, and where in the world the station is. Distances and angles in km and
degrees; every function takes arrays and broadcasts.

>>> slant_range_km([90.0, 20.0], 500.0).round(1).tolist()
[500.0, 1192.8]

Read next :mod:`openqci.space.diffraction`, what the beam does over such a range.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from openqci.space.ranges import Floats, check_range

EARTH_RADIUS_KM = 6371.0
"""Mean radius."""

EARTH_GRAVITY_KM3_S2 = 398_600.4418
"""Geocentric gravitational constant (WGS 84)."""

LIGHT_SPEED_KM_S = 299_792.458

ALTITUDE_KM_MIN, ALTITUDE_KM_MAX = 100.0, 50_000.0
"""From where there is no orbit below to beyond the geostationary one."""

PASS_STEPS_MAX = 1_000_000


def slant_range_km(elevation_deg: ArrayLike, altitude_km: ArrayLike) -> Floats:
    """Return the distance from a station to a satellite.

    Parameters
    ----------
    elevation_deg : array_like, shape S
        Above the horizon, 0 to 90.
    altitude_km : array_like, broadcastable with S
        Of the satellite above the station, 100 to 50 000.

    Returns
    -------
    ndarray, shape S

    Raises
    ------
    OutsideModel
        Names the parameter and its range.
    """
    sine = np.sin(np.radians(check_range("elevation_deg", elevation_deg, 0.0, 90.0)))
    altitude = check_altitude(altitude_km)
    vertical = EARTH_RADIUS_KM * sine
    # Written as a quotient: the difference of two large roots would lose the digits of a near satellite.
    product = altitude * (2 * EARTH_RADIUS_KM + altitude)
    distance: Floats = product / (np.sqrt(vertical**2 + product) + vertical)
    return distance


def elevation_deg(slant_range_km: ArrayLike, altitude_km: ArrayLike) -> Floats:
    """Return the elevation at which a satellite stands at a distance; the inverse of ``slant_range_km``.

    Raises
    ------
    OutsideModel
        If the distance is shorter than the altitude or beyond the horizon.
    """
    altitude = check_altitude(altitude_km)
    distance = np.asarray(slant_range_km, dtype=np.float64)
    orbit = EARTH_RADIUS_KM + altitude
    sine = (orbit**2 - EARTH_RADIUS_KM**2 - distance**2) / (2 * EARTH_RADIUS_KM * distance)
    # A zenith distance of 1e-8 deg may round to a sine above one; a range that is wrong by a metre may not.
    rounded = np.where((sine > 1) & (sine < 1 + 1e-6), 1.0, np.where((sine < 0) & (sine > -1e-9), 0.0, sine))
    if not ((rounded >= 0) & (rounded <= 1)).all():
        horizon_km = float(np.max(np.sqrt(orbit**2 - EARTH_RADIUS_KM**2)))
        check_range("slant_range_km", distance, float(np.min(altitude)), horizon_km)
    return np.degrees(np.arcsin(rounded))


def central_angle_rad(elevation_deg: ArrayLike, altitude_km: ArrayLike) -> Floats:
    """Return the angle at the Earth's centre between the station and the point below the satellite."""
    elevation = np.radians(check_range("elevation_deg", elevation_deg, 0.0, 90.0))
    orbit = EARTH_RADIUS_KM + check_altitude(altitude_km)
    angle: Floats = np.arccos(EARTH_RADIUS_KM * np.cos(elevation) / orbit) - elevation
    return np.maximum(angle, 0.0)


def orbital_period_s(altitude_km: ArrayLike) -> Floats:
    """Return the period of a circular orbit (Kepler's third law)."""
    orbit = EARTH_RADIUS_KM + check_altitude(altitude_km)
    period: Floats = 2 * math.pi * np.sqrt(orbit**3 / EARTH_GRAVITY_KM3_S2)
    return period


def orbital_velocity_km_s(altitude_km: ArrayLike) -> Floats:
    """Return the velocity on a circular orbit."""
    orbit = EARTH_RADIUS_KM + check_altitude(altitude_km)
    velocity: Floats = np.sqrt(EARTH_GRAVITY_KM3_S2 / orbit)
    return velocity


def pass_duration_s(
    altitude_km: ArrayLike, elevation_min_deg: ArrayLike, culmination_deg: ArrayLike = 90.0
) -> Floats:
    """Return how long a satellite stays above an elevation during one pass.

    Parameters
    ----------
    altitude_km, elevation_min_deg : array_like
    culmination_deg : array_like
        Highest elevation of the pass; below ``elevation_min_deg`` the duration is zero.

    Returns
    -------
    ndarray
        Of the common shape.
    """
    lowest = np.cos(central_angle_rad(elevation_min_deg, altitude_km))
    nearest = np.cos(central_angle_rad(culmination_deg, altitude_km))
    half_angle = np.arccos(np.minimum(lowest / nearest, 1.0))
    duration: Floats = half_angle / math.pi * orbital_period_s(altitude_km)
    return duration


@dataclass(frozen=True)
class StationPass:
    """One pass of a satellite over a station, sampled in time; every array has shape (T,).

    Attributes
    ----------
    times_s : ndarray
        Zero at culmination, rising.
    slant_ranges_km, elevations_deg : ndarray
    range_rates_km_s : ndarray
        Negative while the satellite comes nearer.
    velocity_km_s : float
        On its orbit.
    """

    times_s: Floats
    slant_ranges_km: Floats
    elevations_deg: Floats
    range_rates_km_s: Floats
    velocity_km_s: float

    @property
    def point_ahead_urad(self) -> Floats:
        """How far ahead of the light that comes down an uplink must aim: ``2 v / c``, v across the line."""
        across = np.sqrt(np.maximum(self.velocity_km_s**2 - self.range_rates_km_s**2, 0.0))
        angle: Floats = 2e6 * across / LIGHT_SPEED_KM_S
        return angle

    @property
    def doppler_ppm(self) -> Floats:
        """Relative shift of the frequency that the station sees, to first order; positive on approach."""
        shift: Floats = -1e6 * self.range_rates_km_s / LIGHT_SPEED_KM_S
        return shift


def circular_pass(
    altitude_km: float, elevation_min_deg: float, culmination_deg: float = 90.0, step_s: float = 1.0
) -> StationPass:
    """Return one pass of a circular orbit over a station.

    Parameters
    ----------
    altitude_km : float
    elevation_min_deg : float
        The pass begins and ends exactly here.
    culmination_deg : float
        Highest elevation; 90 is a pass through the zenith.
    step_s : float
        Longest time between samples, 1e-3 to 3600.

    Returns
    -------
    StationPass

    Raises
    ------
    OutsideModel
        If the pass stays below ``elevation_min_deg``, or would take more than a million samples.

    Examples
    --------
    >>> overhead = circular_pass(500.0, 10.0)
    >>> round(float(overhead.times_s[-1] - overhead.times_s[0])), round(overhead.slant_ranges_km.min())
    (443, 500)
    """
    check_range("step_s", step_s, 1e-3, 3600.0)
    check_range("elevation_min_deg", elevation_min_deg, 0.0, 90.0)
    check_range("culmination_deg", culmination_deg, max(elevation_min_deg, 1e-3), 90.0)
    duration_s = float(pass_duration_s(altitude_km, elevation_min_deg, culmination_deg))
    steps = check_range("pass_steps", duration_s / step_s, 0.0, PASS_STEPS_MAX)
    # An even number of steps, so that culmination is a sample.
    times_s = np.linspace(-duration_s / 2, duration_s / 2, 2 * math.ceil(float(steps) / 2) + 1)
    orbit = EARTH_RADIUS_KM + altitude_km
    turn_per_s = 2 * math.pi / float(orbital_period_s(altitude_km))
    off_track = math.cos(float(central_angle_rad(culmination_deg, altitude_km)))
    cosine = off_track * np.cos(turn_per_s * times_s)
    distance_km = np.sqrt(EARTH_RADIUS_KM**2 + orbit**2 - 2 * EARTH_RADIUS_KM * orbit * cosine)
    sine = (orbit * cosine - EARTH_RADIUS_KM) / distance_km
    turned = EARTH_RADIUS_KM * orbit * turn_per_s * off_track * np.sin(turn_per_s * times_s)
    return StationPass(
        times_s=times_s,
        slant_ranges_km=distance_km,
        # Rounding must not put the ends of the pass below the elevation for which a caller's model holds.
        elevations_deg=np.clip(
            np.degrees(np.arcsin(np.clip(sine, 0.0, 1.0))), elevation_min_deg, culmination_deg
        ),
        range_rates_km_s=turned / distance_km,
        velocity_km_s=float(orbital_velocity_km_s(altitude_km)),
    )


def check_altitude(altitude_km: ArrayLike) -> Floats:
    return check_range("altitude_km", altitude_km, ALTITUDE_KM_MIN, ALTITUDE_KM_MAX)
