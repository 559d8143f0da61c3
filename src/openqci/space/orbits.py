"""Orbits: where satellites are against time, from published elements or as a designer draws them.

Two kinds, one verb. :class:`ElementOrbit` propagates published mean elements with SGP4. :class:`ModelOrbit`
is an orbit kept as designed: an ellipse that the flattening of the Earth (J2) turns at a steady rate, with
neither drag nor the Moon, because a satellite on station makes up for them. Design orbits come from
:func:`sun_synchronous`, :func:`circular`, :func:`geostationary` and :func:`walker`.

>>> orbit = sun_synchronous("model", altitude_km=500.0, local_time_h=22.5, epoch_utc_s=1_774_008_000.0)
>>> round(orbit.inclination_deg, 2), round(orbit.period_s / 60, 1)
(97.4, 94.7)
>>> position_km, velocity_km_s = orbit.states(orbit.epoch_utc_s + np.arange(3) * 60.0)
>>> position_km.shape
(3, 3)

Positions are in TEME, the frame of SGP4. Left out of a model orbit: short-period terms of J2 (below 10 km in
height and along the track), all higher terms, manoeuvres. Read :mod:`openqci.space.tracks` next.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike
from sgp4.api import SGP4_ERRORS, WGS72, Satrec

from openqci.core.errors import ConfigurationError, OutsideModel
from openqci.space.elements import MeanElements, days_since_1950
from openqci.space.frames import EQUATOR_RADIUS_KM, ROTATION_RAD_S
from openqci.space.geometry import EARTH_GRAVITY_KM3_S2
from openqci.space.ranges import Floats, check_range
from openqci.space.time_scales import DAY_S, centuries_tt, check_utc, julian_day, sidereal_angle_rad, utc_text

J2 = 1.08262668e-3
"""Flattening of the field of the Earth (EGM96)."""

TROPICAL_YEAR_DAYS = 365.24219
SUN_RATE_RAD_S = 2 * math.pi / (TROPICAL_YEAR_DAYS * DAY_S)
"""Of the mean Sun along the equator, and so of the node of a sun-synchronous orbit."""

DECAYED_ALTITUDE_KM = 80.0
"""Below this height nothing stays in orbit for another turn."""

SATELLITES_MAX = 10_000
WalkerKind = Literal["delta", "star"]


class Orbit(Protocol):
    """Where one satellite is against time."""

    @property
    def name(self) -> str: ...

    @property
    def perigee_radius_km(self) -> float:
        """Least distance from the centre of the Earth."""

    @property
    def apogee_radius_km(self) -> float:
        """Greatest distance from the centre of the Earth."""

    def states(self, utc_s: ArrayLike) -> tuple[Floats, Floats]:
        """Return positions in km and velocities in km/s in TEME, both of shape (T, 3)."""


@dataclass(frozen=True)
class ElementOrbit:
    """An orbit of published elements, propagated by SGP4 with the constants of WGS 72."""

    elements: MeanElements

    @property
    def name(self) -> str:
        return self.elements.name

    @property
    def perigee_radius_km(self) -> float:
        return self.elements.semi_major_axis_km * (1 - self.elements.eccentricity)

    @property
    def apogee_radius_km(self) -> float:
        return self.elements.semi_major_axis_km * (1 + self.elements.eccentricity)

    @cached_property
    def record(self) -> Any:
        """The compiled propagator; two lines go in as they are."""
        if self.elements.lines is not None:
            return Satrec.twoline2rv(*self.elements.lines)
        made = Satrec()
        made.sgp4init(
            WGS72,
            "i",
            self.elements.catalogue_number,
            days_since_1950(self.elements.epoch_utc_s),
            self.elements.drag_per_earth_radius,
            0.0,
            0.0,
            self.elements.eccentricity,
            math.radians(self.elements.argument_of_perigee_deg),
            math.radians(self.elements.inclination_deg),
            math.radians(self.elements.mean_anomaly_deg),
            self.elements.mean_motion_rev_per_day * 2 * math.pi / 1440,
            math.radians(self.elements.raan_deg),
        )
        return made

    def states(self, utc_s: ArrayLike) -> tuple[Floats, Floats]:
        """Return positions and velocities in TEME, shape (T, 3).

        Raises
        ------
        ConfigurationError
            Where SGP4 fails, or the satellite is below 80 km: it has decayed, or the elements are wrong.
        """
        moments = np.atleast_1d(np.asarray(utc_s, dtype=np.float64))
        errors, position, velocity = self.record.sgp4_array(*julian_day(moments))
        refuse_failures(self.elements, moments, errors, position)
        return position, velocity


def refuse_failures(elements: MeanElements, utc_s: Floats, errors: Any, position_km: Floats) -> None:
    """Raise ConfigurationError with the first moment at which a satellite is nowhere."""
    lowest_km = EQUATOR_RADIUS_KM + DECAYED_ALTITUDE_KM
    low = np.einsum("ti,ti->t", position_km, position_km) < lowest_km**2
    failed = np.flatnonzero((errors != 0) | low)
    if not failed.size:
        return
    first = int(failed[0])
    code = int(errors[first])
    if code == 0:
        why = f"it is below {DECAYED_ALTITUDE_KM:g} km, so it has decayed"
    else:
        why = f"SGP4 fails with error {code}: {SGP4_ERRORS.get(code, 'unknown')}"
    raise ConfigurationError(
        f"{elements.name} cannot be propagated to {utc_text(float(utc_s[first]))} from its elements of "
        f"{utc_text(elements.epoch_utc_s)}: {why}; expected newer elements, or an earlier time"
    )


@dataclass(frozen=True)
class ModelOrbit:
    """An orbit as designed: an ellipse whose node, perigee and anomaly turn steadily.

    Parameters
    ----------
    name : str
    epoch_utc_s : float
    semi_major_axis_km : float
        Mean; 6478 to 60 000.
    inclination_deg, raan_deg, argument_of_perigee_deg, mean_anomaly_deg : float
        At the epoch, in TEME.
    eccentricity : float
        0 to 0.9; the perigee must be above 100 km.
    """

    name: str
    epoch_utc_s: float
    semi_major_axis_km: float
    inclination_deg: float
    raan_deg: float
    mean_anomaly_deg: float = 0.0
    eccentricity: float = 0.0
    argument_of_perigee_deg: float = 0.0

    def __post_init__(self) -> None:
        check_utc(self.epoch_utc_s)
        check_range("semi_major_axis_km", self.semi_major_axis_km, EQUATOR_RADIUS_KM + 100, 60_000.0)
        check_range("inclination_deg", self.inclination_deg, 0.0, 180.0)
        check_range("raan_deg", self.raan_deg, -360.0, 720.0)
        check_range("mean_anomaly_deg", self.mean_anomaly_deg, -360.0, 720.0)
        check_range("argument_of_perigee_deg", self.argument_of_perigee_deg, -360.0, 720.0)
        check_range("eccentricity", self.eccentricity, 0.0, 0.9)
        check_range("perigee_radius_km", self.perigee_radius_km, EQUATOR_RADIUS_KM + 100, 60_000.0)

    @property
    def perigee_radius_km(self) -> float:
        return self.semi_major_axis_km * (1 - self.eccentricity)

    @property
    def apogee_radius_km(self) -> float:
        return self.semi_major_axis_km * (1 + self.eccentricity)

    @property
    def period_s(self) -> float:
        """From perigee to perigee."""
        return 2 * math.pi / self.rates_rad_s[2]

    @cached_property
    def rates_rad_s(self) -> tuple[float, float, float]:
        """Of the node, of the perigee, and of the mean anomaly, by J2 to first order.

        References
        ----------
        W. M. Kaula, "Theory of Satellite Geodesy" (1966), eqs. (3.74); from memory, checked here against the
        secular rates of SGP4.
        """
        return secular_rates_rad_s(
            self.semi_major_axis_km, self.eccentricity, math.radians(self.inclination_deg)
        )

    def states(self, utc_s: ArrayLike) -> tuple[Floats, Floats]:
        """Return positions and velocities in TEME, shape (T, 3)."""
        since_s = np.atleast_1d(check_utc(utc_s)) - self.epoch_utc_s
        node_rate, perigee_rate, anomaly_rate = self.rates_rad_s
        anomaly = eccentric_anomaly(
            math.radians(self.mean_anomaly_deg) + anomaly_rate * since_s, self.eccentricity
        )
        e, a = self.eccentricity, self.semi_major_axis_km
        root = math.sqrt(1 - e * e)
        sine, cosine = np.sin(anomaly), np.cos(anomaly)
        radius = a * (1 - e * cosine)
        # In the plane of the orbit, x to the perigee.
        x, y = a * (cosine - e), a * root * sine
        speed = anomaly_rate * a * a / radius
        x_rate, y_rate = -speed * sine, speed * root * cosine
        perigee = math.radians(self.argument_of_perigee_deg) + perigee_rate * since_s
        node = math.radians(self.raan_deg) + node_rate * since_s
        in_plane, in_plane_rate = turned(x, y, perigee), turned(x_rate, y_rate, perigee)
        # The plane itself turns: small beside the motion in it, and more than the range rate may be wrong by.
        along = in_plane_rate[0] - perigee_rate * in_plane[1], in_plane_rate[1] + perigee_rate * in_plane[0]
        position = self._out_of_plane(*in_plane, node)
        velocity = self._out_of_plane(*along, node)
        velocity[:, 0] -= node_rate * position[:, 1]
        velocity[:, 1] += node_rate * position[:, 0]
        return position, velocity

    def _out_of_plane(self, x: Floats, y: Floats, node: Floats) -> Floats:
        """Return vectors of the orbit's plane, x to the node, in TEME."""
        inclination = math.radians(self.inclination_deg)
        east, north = turned(x, y * math.cos(inclination), node)
        return np.stack([east, north, y * math.sin(inclination)], axis=-1)


def secular_rates_rad_s(
    semi_major_axis_km: float, eccentricity: float, inclination_rad: float
) -> tuple[float, float, float]:
    """Return how fast J2 turns the node and the perigee, and the mean anomaly runs."""
    motion = math.sqrt(EARTH_GRAVITY_KM3_S2 / semi_major_axis_km**3)
    squared = 1 - eccentricity**2
    pull = 0.75 * J2 * (EQUATOR_RADIUS_KM / (semi_major_axis_km * squared)) ** 2 * motion
    cosine = math.cos(inclination_rad)
    node = -2 * pull * cosine
    perigee = pull * (5 * cosine**2 - 1)
    anomaly = motion + pull * math.sqrt(squared) * (3 * cosine**2 - 1)
    return node, perigee, anomaly


def turned(x: Floats, y: Floats, angle: Floats) -> tuple[Floats, Floats]:
    """Return a vector of a plane turned by an angle."""
    sine, cosine = np.sin(angle), np.cos(angle)
    return x * cosine - y * sine, x * sine + y * cosine


def eccentric_anomaly(mean_anomaly_rad: Floats, eccentricity: float) -> Floats:
    """Return E of Kepler's equation ``M = E - e sin E``, by Newton's method."""
    anomaly = mean_anomaly_rad + eccentricity * np.sin(mean_anomaly_rad)
    if eccentricity < 1e-12:
        return anomaly
    for _ in range(50):
        step = (anomaly - eccentricity * np.sin(anomaly) - mean_anomaly_rad) / (
            1 - eccentricity * np.cos(anomaly)
        )
        anomaly = anomaly - np.clip(step, -1.0, 1.0)
        if np.abs(step).max(initial=0.0) < 1e-13:
            break
    return anomaly


# Orbits as designed


def circular(
    name: str,
    *,
    altitude_km: float,
    inclination_deg: float,
    epoch_utc_s: float,
    raan_deg: float = 0.0,
    anomaly_deg: float = 0.0,
) -> ModelOrbit:
    """Return a circular orbit; the altitude is above the radius of the equator, 6378.137 km."""
    check_range("altitude_km", altitude_km, 100.0, 50_000.0)
    return ModelOrbit(
        name, epoch_utc_s, EQUATOR_RADIUS_KM + altitude_km, inclination_deg, raan_deg, anomaly_deg
    )


def sun_synchronous(
    name: str,
    *,
    altitude_km: float,
    local_time_h: float,
    epoch_utc_s: float,
    anomaly_deg: float = 0.0,
) -> ModelOrbit:
    """Return a circular orbit whose plane follows the Sun.

    Parameters
    ----------
    name : str
    altitude_km : float
        Above the radius of the equator, 100 to 5900: higher, no inclination does it.
    local_time_h : float
        Mean local solar time of the ascending node, 0 to 24; the other node is twelve hours later.
    epoch_utc_s : float
    anomaly_deg : float
        Along the orbit at the epoch, from the ascending node.
    """
    check_range("altitude_km", altitude_km, 100.0, 5_900.0)
    check_range("local_time_h", local_time_h, 0.0, 24.0)
    axis = EQUATOR_RADIUS_KM + altitude_km
    inclination_deg = sun_synchronous_inclination_deg(axis)
    mean_sun_deg = math.degrees(float(mean_sun_longitude_rad(epoch_utc_s)))
    raan_deg = (mean_sun_deg + 15.0 * (local_time_h - 12.0)) % 360.0
    return ModelOrbit(name, epoch_utc_s, axis, inclination_deg, raan_deg, anomaly_deg)


def sun_synchronous_inclination_deg(semi_major_axis_km: float, eccentricity: float = 0.0) -> float:
    """Return the inclination at which J2 turns the node once a year.

    >>> round(sun_synchronous_inclination_deg(6378.137 + 500.0), 3)
    97.402
    """
    rate_at_pole_plane, _, _ = secular_rates_rad_s(semi_major_axis_km, eccentricity, 0.0)
    cosine = SUN_RATE_RAD_S / rate_at_pole_plane
    if not -1 <= cosine <= 1:
        raise OutsideModel("semi_major_axis_km", semi_major_axis_km, "an orbit low enough to follow the Sun")
    return math.degrees(math.acos(cosine))


def mean_sun_longitude_rad(utc_s: ArrayLike) -> Floats:
    """Return the right ascension of the mean Sun, which clocks follow."""
    t = centuries_tt(utc_s)
    angle: Floats = np.mod(np.radians(280.46646 + 36_000.76983 * t + 3.032e-4 * t**2), 2 * math.pi)
    return angle


def geostationary(name: str, *, longitude_deg: float, epoch_utc_s: float) -> ModelOrbit:
    """Return an orbit that stands still over a longitude of the equator."""
    check_range("longitude_deg", longitude_deg, -180.0, 360.0)
    axis = (EARTH_GRAVITY_KM3_S2 / ROTATION_RAD_S**2) ** (1 / 3)
    for _ in range(20):  # J2 makes the satellite a little faster than Kepler has it
        turning = sum(secular_rates_rad_s(axis, 0.0, 0.0))
        axis *= (turning / ROTATION_RAD_S) ** (2 / 3)
    greenwich_deg = math.degrees(float(sidereal_angle_rad(epoch_utc_s)))
    return ModelOrbit(name, epoch_utc_s, axis, 0.0, 0.0, (greenwich_deg + longitude_deg) % 360.0)


def walker(
    name: str,
    *,
    altitude_km: float,
    inclination_deg: float,
    satellites: int,
    planes: int,
    phasing: int,
    epoch_utc_s: float,
    kind: WalkerKind = "delta",
    raan_deg: float = 0.0,
) -> list[ModelOrbit]:
    """Return the orbits of a Walker constellation ``inclination: satellites / planes / phasing``.

    Parameters
    ----------
    name : str
        Satellites are named with plane and place, as ``name-2-1``.
    altitude_km, inclination_deg : float
    satellites, planes : int
        All satellites, a multiple of the planes.
    phasing : int
        0 to planes - 1; satellites of neighbouring planes are apart by phasing times 360/satellites.
    epoch_utc_s : float
    kind : {"delta", "star"}
        Nodes around the whole equator, or around half of it.
    raan_deg : float
        Node of the first plane.
    """
    if not (1 <= planes <= satellites <= SATELLITES_MAX and satellites % planes == 0):
        raise OutsideModel(
            "satellites", satellites, f"a multiple of planes ({planes}), at most {SATELLITES_MAX}"
        )
    if not 0 <= phasing < planes:
        raise OutsideModel("phasing", phasing, f"0 to planes - 1 ({planes - 1})")
    if kind not in ("delta", "star"):
        raise OutsideModel("kind", kind, "delta or star")
    around_deg = 360.0 if kind == "delta" else 180.0
    in_plane = satellites // planes
    return [
        circular(
            f"{name}-{plane + 1}-{place + 1}",
            altitude_km=altitude_km,
            inclination_deg=inclination_deg,
            epoch_utc_s=epoch_utc_s,
            raan_deg=(raan_deg + around_deg * plane / planes) % 360.0,
            anomaly_deg=(360.0 * place / in_plane + 360.0 * phasing * plane / satellites) % 360.0,
        )
        for plane in range(planes)
        for place in range(in_plane)
    ]


def check_distinct(orbits: Sequence[Orbit]) -> None:
    """Raise ConfigurationError unless there is an orbit and no two have one name."""
    names = [orbit.name for orbit in orbits]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigurationError(f"two satellites are named {twice[0]!r}; expected a name for each")
    if not names:
        raise ConfigurationError("no satellite; expected one or more")
