"""From the inertial frame of SGP4 to what a station sees: elevation, azimuth, range and range rate.

SGP4 gives positions in TEME (true equator, mean equinox). Turned by Greenwich mean sidereal time they are
fixed to the Earth. Stations stand on the ellipsoid of WGS 84.

>>> stations = Stations.of(["teide"], [28.3009], [-16.5118], [2393.0])
>>> overhead = stations.positions_km + 500.0 * stations.up
>>> seen = topocentric(stations, overhead, np.zeros((1, 3)))
>>> seen.elevations_deg.round(6).tolist(), seen.ranges_km.round(6).tolist()
([90.0], [500.0])

Left out: polar motion (up to 15 m on the ground), UT1 - UTC unless the caller gives it (0.46 km per second of
it), refraction (0.1 deg at 10 deg elevation, less above), the time that light takes (2 ms, 15 m along the
track). Together they are below the error of the elements, a kilometre at their epoch and more each day.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from openqci.core.errors import OutsideModel
from openqci.space.ranges import Floats, check_range
from openqci.space.time_scales import sidereal_angle_rad

EQUATOR_RADIUS_KM = 6378.137
FLATTENING = 1 / 298.257223563
"""WGS 84."""

ROTATION_RAD_S = 7.292115855e-5
"""Of the Earth against the mean equinox: sidereal time per second of UT1."""

SITE_ALTITUDE_M_MIN, SITE_ALTITUDE_M_MAX = -500.0, 9000.0


@dataclass(frozen=True)
class Stations:
    """Places on the ground, G of them.

    Attributes
    ----------
    names : tuple of str
    latitudes_deg, longitudes_deg : ndarray, shape (G,)
        Geodetic, WGS 84; north and east positive.
    altitudes_m : ndarray, shape (G,)
        Above the ellipsoid.
    positions_km : ndarray, shape (G, 3)
        Fixed to the Earth.
    axes : ndarray, shape (G, 3, 3)
        Unit vectors to the east, the north and up.
    """

    names: tuple[str, ...]
    latitudes_deg: Floats
    longitudes_deg: Floats
    altitudes_m: Floats
    positions_km: Floats
    axes: Floats

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        latitudes_deg: ArrayLike,
        longitudes_deg: ArrayLike,
        altitudes_m: ArrayLike = 0.0,
    ) -> "Stations":
        """Return stations from their geodetic coordinates.

        Raises
        ------
        OutsideModel
            For a coordinate outside its range, or not one per name.
        """
        shape = (len(names),)
        columns = {"latitudes_deg": latitudes_deg, "longitudes_deg": longitudes_deg}
        for name, values in columns.items():
            if np.shape(values) != shape:
                raise OutsideModel(name, np.shape(values), f"one value per station, shape {shape}")
        latitudes = check_range("latitude_deg", latitudes_deg, -90.0, 90.0)
        longitudes = check_range("longitude_deg", longitudes_deg, -180.0, 360.0)
        altitudes = np.broadcast_to(
            check_range("altitude_m", altitudes_m, SITE_ALTITUDE_M_MIN, SITE_ALTITUDE_M_MAX), shape
        )
        axes = local_axes(latitudes, longitudes)
        positions = geodetic_position_km(latitudes, longitudes, altitudes)
        return cls(tuple(names), latitudes, longitudes, altitudes, positions, axes)

    @property
    def up(self) -> Floats:
        """Unit vectors away from the ellipsoid, shape (G, 3)."""
        return self.axes[:, 2]

    def __len__(self) -> int:
        return len(self.names)

    def part(self, chosen: Sequence[int]) -> "Stations":
        """Return some of them, by their places."""
        rows = list(chosen)
        return Stations(
            tuple(self.names[row] for row in rows),
            self.latitudes_deg[rows],
            self.longitudes_deg[rows],
            self.altitudes_m[rows],
            self.positions_km[rows],
            self.axes[rows],
        )


@dataclass(frozen=True)
class Topocentric:
    """What a station sees of a satellite; arrays of one shape.

    Attributes
    ----------
    elevations_deg : ndarray
        Above the horizontal plane of the ellipsoid, -90 to 90; without refraction.
    azimuths_deg : ndarray
        From north over east, 0 to 360.
    ranges_km : ndarray
    range_rates_km_s : ndarray
        Negative while the satellite comes nearer.
    """

    elevations_deg: Floats
    azimuths_deg: Floats
    ranges_km: Floats
    range_rates_km_s: Floats


def geodetic_position_km(latitude_deg: ArrayLike, longitude_deg: ArrayLike, altitude_m: ArrayLike) -> Floats:
    """Return positions fixed to the Earth, shape S + (3,), of geodetic coordinates of shape S."""
    latitude, longitude = np.radians(latitude_deg), np.radians(longitude_deg)
    altitude_km = np.asarray(altitude_m, dtype=np.float64) / 1000
    squared = FLATTENING * (2 - FLATTENING)
    normal_km = EQUATOR_RADIUS_KM / np.sqrt(1 - squared * np.sin(latitude) ** 2)
    across_km = (normal_km + altitude_km) * np.cos(latitude)
    along_km = (normal_km * (1 - squared) + altitude_km) * np.sin(latitude)
    return np.stack(
        np.broadcast_arrays(across_km * np.cos(longitude), across_km * np.sin(longitude), along_km), axis=-1
    )


def geodetic_point(position_km: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Return latitude and longitude in degrees and height in km of positions fixed to the Earth.

    Parameters
    ----------
    position_km : array_like, shape S + (3,)
        Above the ground, or not far below: 6300 km from the centre or more.

    Returns
    -------
    latitude_deg, longitude_deg, altitude_km : ndarray, shape S
        Of the point of the ellipsoid below, to a millimetre.
    """
    x, y, z = np.moveaxis(np.asarray(position_km, dtype=np.float64), -1, 0)
    across = np.hypot(x, y)
    squared = FLATTENING * (2 - FLATTENING)
    latitude = np.arctan2(z, across * (1 - squared))
    for _ in range(6):  # contracts by the flattening, a factor of 300, each time
        sine = np.sin(latitude)
        normal_km = EQUATOR_RADIUS_KM / np.sqrt(1 - squared * sine**2)
        latitude = np.arctan2(z + squared * normal_km * sine, across)
    sine, cosine = np.sin(latitude), np.cos(latitude)
    normal_km = EQUATOR_RADIUS_KM / np.sqrt(1 - squared * sine**2)
    altitude_km = across * cosine + z * sine - EQUATOR_RADIUS_KM**2 / normal_km
    return np.degrees(latitude), np.degrees(np.arctan2(y, x)), altitude_km


def local_axes(latitude_deg: Floats, longitude_deg: Floats) -> Floats:
    """Return unit vectors to the east, the north and up, shape S + (3, 3)."""
    sin_lat, cos_lat = np.sin(np.radians(latitude_deg)), np.cos(np.radians(latitude_deg))
    sin_lon, cos_lon = np.sin(np.radians(longitude_deg)), np.cos(np.radians(longitude_deg))
    east = np.stack([-sin_lon, cos_lon, np.zeros_like(sin_lon)], axis=-1)
    north = np.stack([-sin_lat * cos_lon, -sin_lat * sin_lon, cos_lat], axis=-1)
    up = np.stack([cos_lat * cos_lon, cos_lat * sin_lon, sin_lat], axis=-1)
    return np.stack([east, north, up], axis=-2)


def turned_to_earth(vectors: Floats, utc_s: ArrayLike, ut1_minus_utc_s: float = 0.0) -> Floats:
    """Return vectors of the frame of the mean equinox in that of the Earth.

    Parameters
    ----------
    vectors : ndarray, shape S + (3,)
    utc_s : array_like, broadcastable with S
    ut1_minus_utc_s : float
    """
    angle = sidereal_angle_rad(utc_s, ut1_minus_utc_s)
    sine, cosine = np.sin(angle), np.cos(angle)
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    return np.stack(np.broadcast_arrays(cosine * x + sine * y, cosine * y - sine * x, z), axis=-1)


def earth_fixed(
    position_teme_km: Floats, velocity_teme_km_s: Floats, utc_s: ArrayLike, ut1_minus_utc_s: float = 0.0
) -> tuple[Floats, Floats]:
    """Return positions and velocities of TEME in the turning frame of the Earth, shape S + (3,)."""
    position = turned_to_earth(position_teme_km, utc_s, ut1_minus_utc_s)
    velocity = turned_to_earth(velocity_teme_km_s, utc_s, ut1_minus_utc_s)
    velocity[..., 0] += ROTATION_RAD_S * position[..., 1]
    velocity[..., 1] -= ROTATION_RAD_S * position[..., 0]
    return position, velocity


def topocentric(stations: Stations, position_km: Floats, velocity_km_s: Floats) -> Topocentric:
    """Return what each station sees of satellites.

    Parameters
    ----------
    stations : Stations
        G of them.
    position_km, velocity_km_s : ndarray
        Fixed to the Earth, of a shape that broadcasts with (..., G, 3): for all stations and all of T times
        give ``position[:, None, :]``, shape (T, 1, 3).

    Returns
    -------
    Topocentric
        Arrays of shape (..., G).
    """
    away = position_km - stations.positions_km
    ranges = np.sqrt((away**2).sum(axis=-1))
    east, north, up = (np.einsum("...gi,gi->...g", away, stations.axes[:, axis]) for axis in range(3))
    rates = (away * velocity_km_s).sum(axis=-1) / ranges
    return Topocentric(
        np.degrees(np.arcsin(np.clip(up / ranges, -1.0, 1.0))),
        np.degrees(np.arctan2(east, north)) % 360.0,
        ranges,
        rates,
    )


def angle_deg(one: Floats, other: Floats) -> Floats:
    """Return the angle between vectors of shape S + (3,); exact for small angles too."""
    across = np.linalg.norm(np.cross(one, other), axis=-1)
    angle: Floats = np.degrees(np.arctan2(across, (one * other).sum(axis=-1)))
    return angle
