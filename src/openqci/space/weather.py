"""Clouds over stations: sampled with persistence and with correlation over distance, and what to expect.

A station is cloudy or it is not, by the hour. Under that lies one Gaussian number per station and hour; below
a threshold it means clouds, and the threshold makes the share of cloudy hours that of the month. The numbers
of two hours and two stations are correlated as

    exp(-|t - t'|/persistence) exp(-d/distance)

which is a Gaussian copula with exponential kernels: it leaves the share of cloudy hours at each station as it
is and decides only what happens together.

>>> climate = CloudClimate.of(
...     ["munich", "augsburg", "crete"], [48.1, 48.4, 35.2], [11.6, 10.9, 24.9], [0.5, 0.5, 0.2])
>>> clouds = sample_clouds(climate, 1_774_000_000.0, hours=20_000, rng=np.random.default_rng(1))
>>> clouds.cloudy.mean(axis=0).round(1).tolist()
[0.5, 0.5, 0.2]
>>> together = (clouds.cloudy[:, 0] == clouds.cloudy[:, 1]).mean()
>>> bool(together > 0.8)
True

Left out: thin cirrus, through which some light comes; fog; what depends on the hour of the day; fronts, which
move. A forecast knows more than :meth:`CloudClimate.chance_after`, which goes by what is seen now alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.signal import lfilter
from scipy.special import ndtr, ndtri

from openqci.core.errors import OutsideModel
from openqci.space.ranges import Floats, check_range
from openqci.space.time_scales import check_utc

Indices = NDArray[np.int64]

HOUR_S = 3600.0
MONTHS = 12
EARTH_RADIUS_KM = 6371.0

PERSISTENCE_H, DISTANCE_KM = 12.0, 600.0

PROBABILITY_MIN = 1e-6
"""So that a threshold is a number."""

CELLS_MAX = 200_000_000
"""Hours times stations of one sample: one byte each, and eight while it is drawn."""

NUGGET = 1e-9
"""Two stations at one place would leave a matrix without a root."""

NODES, WEIGHTS = np.polynomial.legendre.leggauss(24)


@dataclass(frozen=True)
class CloudClimate:
    """How often stations are cloudy, and how that hangs together.

    Attributes
    ----------
    stations : tuple of str
        S of them.
    latitudes_deg, longitudes_deg : ndarray, shape (S,)
    probability_by_month : ndarray, shape (S, 12)
        Share of hours with cloud on the path, January first.
    persistence_h, distance_km : float
        Over which the correlation of the Gaussian numbers falls to 1/e.
    """

    stations: tuple[str, ...]
    latitudes_deg: Floats
    longitudes_deg: Floats
    probability_by_month: Floats
    persistence_h: float = PERSISTENCE_H
    distance_km: float = DISTANCE_KM

    def __post_init__(self) -> None:
        check_range("latitudes_deg", self.latitudes_deg, -90.0, 90.0)
        check_range("longitudes_deg", self.longitudes_deg, -180.0, 360.0)
        check_range("probability_by_month", self.probability_by_month, 0.0, 1.0)
        check_range("persistence_h", self.persistence_h, 0.01, 1e4)
        check_range("distance_km", self.distance_km, 0.01, 1e5)
        if np.shape(self.probability_by_month) != (len(self.stations), MONTHS):
            shape = np.shape(self.probability_by_month)
            raise OutsideModel("probability_by_month", shape, f"shape ({len(self.stations)}, 12)")

    @classmethod
    def of(
        cls,
        stations: Sequence[str],
        latitudes_deg: ArrayLike,
        longitudes_deg: ArrayLike,
        probability: ArrayLike,
        persistence_h: float = PERSISTENCE_H,
        distance_km: float = DISTANCE_KM,
    ) -> "CloudClimate":
        """Return a climate; ``probability`` has one value per station, or one per station and month."""
        values = np.asarray(probability, dtype=np.float64)
        by_month = np.repeat(values[:, None], MONTHS, axis=1) if values.ndim == 1 else values
        latitudes, longitudes = (
            np.asarray(each, dtype=np.float64) for each in (latitudes_deg, longitudes_deg)
        )
        return cls(tuple(stations), latitudes, longitudes, by_month, persistence_h, distance_km)

    def part(self, chosen: Sequence[int]) -> "CloudClimate":
        """Return the climate of some of the stations."""
        rows = list(chosen)
        return replace(
            self,
            stations=tuple(self.stations[row] for row in rows),
            latitudes_deg=self.latitudes_deg[rows],
            longitudes_deg=self.longitudes_deg[rows],
            probability_by_month=self.probability_by_month[rows],
        )

    @cached_property
    def correlation(self) -> Floats:
        """Correlation of the Gaussian numbers of one hour, shape (S, S)."""
        return np.exp(-distances_km(self.latitudes_deg, self.longitudes_deg) / self.distance_km)

    @cached_property
    def thresholds(self) -> Floats:
        """Below which there are clouds, shape (S, 12)."""
        inside = np.clip(self.probability_by_month, PROBABILITY_MIN, 1 - PROBABILITY_MIN)
        return np.asarray(ndtri(inside), dtype=np.float64)

    def chance(self, station: Indices, utc_s: Floats) -> Floats:
        """Return the chance of cloud by the climate alone."""
        return np.asarray(self.probability_by_month[station, months_of(utc_s)])

    def chance_after(
        self, station: Indices, utc_s: Floats, seen_utc_s: ArrayLike, seen_cloudy: NDArray[np.bool_]
    ) -> Floats:
        """Return the chance of cloud at moments, knowing whether it was cloudy at an earlier one.

        Parameters
        ----------
        station : ndarray of int, shape N
        utc_s : ndarray, shape N
        seen_utc_s : array_like, shape N or broadcast to it
            No later than ``utc_s``.
        seen_cloudy : ndarray of bool, shape N
            At the same station.
        """
        seen_s = np.broadcast_to(np.asarray(seen_utc_s, dtype=np.float64), np.shape(utc_s))
        ahead_h = check_range("ahead_h", (utc_s - seen_s) / HOUR_S, 0.0, 1e6)
        kept = np.minimum(np.exp(-ahead_h / self.persistence_h), 1 - 1e-12)
        now = self.thresholds[station, months_of(seen_s)]
        then = self.thresholds[station, months_of(utc_s)]
        both = below_both(now, then, kept)
        cloudy_now = ndtr(now)
        return np.asarray(
            np.clip(
                np.where(seen_cloudy, both / cloudy_now, (ndtr(then) - both) / (1 - cloudy_now)), 0.0, 1.0
            )
        )


@dataclass(frozen=True)
class Clouds:
    """Whether stations are cloudy, by the hour.

    Attributes
    ----------
    start_utc_s : float
    cloudy : ndarray of bool, shape (T, S)
    """

    start_utc_s: float
    cloudy: NDArray[np.bool_]

    def at(self, station: Indices, utc_s: Floats) -> NDArray[np.bool_]:
        """Return whether stations are cloudy at moments within the time sampled.

        Raises
        ------
        OutsideModel
            For a moment outside it.
        """
        hour = np.floor((np.asarray(utc_s) - self.start_utc_s) / HOUR_S)
        check_range("hour", hour, 0.0, float(len(self.cloudy) - 1))
        return np.asarray(self.cloudy[hour.astype(np.int64), station])


def sample_clouds(climate: CloudClimate, start_utc_s: float, hours: int, rng: np.random.Generator) -> Clouds:
    """Return the clouds of so many hours, drawn from a climate.

    Raises
    ------
    OutsideModel
        For no hour, or more than two hundred million hours of all stations together.
    """
    stations = len(climate.stations)
    check_range("hours", hours, 1, max(1, CELLS_MAX // max(stations, 1)))
    check_utc([start_utc_s, start_utc_s + hours * HOUR_S])
    # Spread over the stations first, then drawn out in time: the kernel is a product of the two.
    root = np.linalg.cholesky(climate.correlation + NUGGET * np.eye(stations))
    fresh = rng.standard_normal((hours, stations)) @ root.T
    kept = np.exp(-1 / climate.persistence_h)
    fresh[1:] *= np.sqrt(1 - kept**2)
    numbers = lfilter([1.0], [1.0, -kept], fresh, axis=0)
    month = months_of(start_utc_s + HOUR_S * np.arange(hours))
    return Clouds(start_utc_s, np.asarray(numbers < climate.thresholds.T[month]))


def seasonal(mean: float, shifts: Floats) -> Floats:
    """Return monthly chances whose odds are shifted by so much (natural logarithm) and whose mean is kept.

    Parameters
    ----------
    mean : float
        Of the twelve months, 0 to 1.
    shifts : ndarray, shape (12,)
    """
    check_range("mean", mean, 0.0, 1.0)
    if mean in (0.0, 1.0):
        return np.full(MONTHS, mean)
    low, high = -40.0, 40.0
    for _ in range(80):
        middle = (low + high) / 2
        if float(np.mean(1 / (1 + np.exp(-(middle + shifts))))) < mean:
            low = middle
        else:
            high = middle
    return np.asarray(1 / (1 + np.exp(-(high + shifts))))


def distances_km(latitudes_deg: Floats, longitudes_deg: Floats) -> Floats:
    """Return the distances of places along the ground, shape (S, S)."""
    latitude, longitude = np.radians(latitudes_deg), np.radians(longitudes_deg)
    across = np.cos(latitude)
    places = np.column_stack([across * np.cos(longitude), across * np.sin(longitude), np.sin(latitude)])
    chords = np.linalg.norm(places[:, None] - places, axis=-1)
    return np.asarray(2 * EARTH_RADIUS_KM * np.arcsin(np.minimum(chords / 2, 1.0)))


def months_of(utc_s: ArrayLike) -> Indices:
    """Return the month of moments, 0 for January."""
    months = np.asarray(utc_s).astype("datetime64[s]").astype("datetime64[M]").astype(np.int64)
    return np.asarray(months % MONTHS)


def below_both(a: ArrayLike, b: ArrayLike, correlation: ArrayLike) -> Floats:
    """Return the chance that two standard normal numbers are below a and below b.

    ``Phi(a) Phi(b) + int_0^rho exp(-(a^2 - 2 a b r + b^2)/(2 (1 - r^2)))/(2 pi sqrt(1 - r^2)) dr``, with
    r = sin(angle) so that the end at one is smooth.

    References
    ----------
    Z. Drezner, G. O. Wesolowsky, J. Stat. Comput. Simul. 35, 101 (1990).
    """
    first, second, rho = np.broadcast_arrays(
        *(np.asarray(each, dtype=np.float64) for each in (a, b, correlation))
    )
    end = np.arcsin(rho)[..., None]
    angle = end / 2 * (NODES + 1)
    sine, cosine = np.sin(angle), np.cos(angle)
    x, y = first[..., None], second[..., None]
    inside = np.exp(-(x**2 - 2 * x * y * sine + y**2) / (2 * cosine**2))
    area = (inside * WEIGHTS).sum(axis=-1) * end[..., 0] / 2
    return np.asarray(ndtr(first) * ndtr(second) + area / (2 * np.pi))
