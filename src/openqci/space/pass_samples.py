"""What is seen during passes, sampled in time: geometry, Sun, Moon, and whether the satellite is lit.

The samples of all passes stand one after another in flat arrays; ``offsets`` says where each pass begins. A
pass is divided evenly, so that its first sample is the rise and its last the set.

>>> from openqci.space.orbits import sun_synchronous
>>> from openqci.space.tracks import track_of
>>> from openqci.space.pass_finding import find_passes
>>> orbit = sun_synchronous("model", altitude_km=500.0, local_time_h=22.5, epoch_utc_s=1_774_008_000.0)
>>> stations = Stations.of(["teide"], [28.3009], [-16.5118], [2393.0])
>>> track = track_of(orbit, 1_774_008_000.0, 1_774_008_000.0 + 86_400.0)
>>> seen = sample_passes(track, stations, find_passes(track, stations, 20.0), step_s=60.0)
>>> seen.elevations_deg.round().tolist(), seen.ranges_km.round().tolist()
([20.0, 34.0, 57.0, 56.0, 33.0, 20.0], [1192.0, 840.0, 592.0, 597.0, 850.0, 1204.0])
>>> seen.sun_elevations_deg.round().tolist()[0], seen.sunlit.tolist()[0]
(-49.0, False)

Read :mod:`openqci.links.pass_keys` for what such passes yield.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from openqci.core.errors import OutsideModel
from openqci.space.frames import Stations, angle_deg
from openqci.space.pass_finding import Indices, Passes, use_kernels
from openqci.space.ranges import Floats, check_range
from openqci.space.sun_moon import (
    SHADOW_RADIUS_KM,
    SUN_RADIUS_KM,
    is_sunlit,
    moon_position_km,
    sun_position_km,
)
from openqci.space.time_scales import check_utc
from openqci.space.tracks import Track

STEP_S = 10.0
SAMPLES_MAX = 50_000_000
"""Of one call; they take some 4 GB."""

SAMPLES_AT_ONCE = 1 << 14
"""So that the arrays of a block stay in the processor's cache."""

ALMANAC_STEP_S = 240.0


@dataclass(frozen=True)
class Almanac:
    """Sun and Moon fixed to the Earth on a grid of time, straight lines in between.

    In 240 s the Earth turns by a degree; the straight line between is off by 5e-4 deg in direction.
    """

    start_utc_s: float
    step_s: float
    sun_km: Floats
    moon_km: Floats

    @classmethod
    def of(cls, start_utc_s: float, stop_utc_s: float) -> "Almanac":
        """Return the almanac of a time; it takes a tenth of a second for a year."""
        check_utc([start_utc_s, stop_utc_s])
        nodes = max(2, int(np.ceil((stop_utc_s - start_utc_s) / ALMANAC_STEP_S)) + 2)
        moments = start_utc_s + ALMANAC_STEP_S * np.arange(nodes)
        return cls(start_utc_s, ALMANAC_STEP_S, sun_position_km(moments), moon_position_km(moments))

    def at(self, utc_s: Floats) -> tuple[Floats, Floats]:
        """Return where Sun and Moon are, shapes S + (3,)."""
        steps = (utc_s - self.start_utc_s) / self.step_s
        if steps.size and not (steps.min() >= -1e-6 and steps.max() <= len(self.sun_km) - 1 + 1e-6):
            raise OutsideModel("utc_s", float(utc_s.flat[0]), "moments within the almanac")
        first = np.clip(steps.astype(np.int64), 0, len(self.sun_km) - 2)
        along = (steps - first)[..., None]
        sun, moon = (
            table[first] + along * (table[first + 1] - table[first]) for table in (self.sun_km, self.moon_km)
        )
        return sun, moon


@dataclass(frozen=True)
class PassSamples:
    """Samples of P passes, N in all; every array but ``offsets`` has shape (N,).

    Attributes
    ----------
    offsets : ndarray of int, shape (P + 1,)
        Samples ``offsets[p]`` to ``offsets[p + 1]`` are those of pass p.
    utc_s : ndarray
    weights_s : ndarray
        The time that each sample stands for (trapezoidal rule); those of a pass add up to its duration.
    elevations_deg, azimuths_deg, ranges_km, range_rates_km_s : ndarray
        As in :class:`~openqci.space.frames.Topocentric`.
    sun_elevations_deg, moon_elevations_deg : ndarray
        At the station.
    moon_separations_deg : ndarray
        Between the satellite and the Moon in the sky of the station.
    moon_phases_deg : ndarray
        Angle at the Moon between the Sun and the station: 0 is full, 180 is new.
    sunlit : ndarray of bool
        Whether the Sun, or a part of it, shines on the satellite.
    """

    offsets: Indices
    utc_s: Floats
    weights_s: Floats
    elevations_deg: Floats
    azimuths_deg: Floats
    ranges_km: Floats
    range_rates_km_s: Floats
    sun_elevations_deg: Floats
    moon_elevations_deg: Floats
    moon_separations_deg: Floats
    moon_phases_deg: Floats
    sunlit: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.utc_s)

    @property
    def passes(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def owner(self) -> Indices:
        """Which pass each sample belongs to, shape (N,)."""
        return np.repeat(np.arange(self.passes), np.diff(self.offsets))

    def one(self, index: int) -> "PassSamples":
        """Return the samples of one pass."""
        return self.among(index, index + 1)

    def among(self, first: int, last: int) -> "PassSamples":
        """Return the samples of the passes from ``first`` to before ``last``."""
        offsets = self.offsets[first : last + 1]
        arrays = [getattr(self, field.name)[offsets[0] : offsets[-1]] for field in fields(self)[1:]]
        return PassSamples(offsets - offsets[0], *arrays)

    def total(self, values: Floats) -> Floats:
        """Return the integral over each pass of rates of shape (N, ...), shape (P, ...)."""
        weighted = (values.T * self.weights_s).T
        if not self.passes:
            return np.zeros((0, *values.shape[1:]))
        return np.add.reduceat(weighted, self.offsets[:-1], axis=0)


def sample_passes(
    track: Track,
    stations: Stations,
    passes: Passes,
    step_s: float = STEP_S,
    almanac: Almanac | None = None,
    *,
    compiled: bool | None = None,
) -> PassSamples:
    """Return samples of passes of the satellite of a track.

    Parameters
    ----------
    track : Track
    stations : Stations
        Those over which the passes were found.
    passes : Passes
    step_s : float
        Longest time between samples, 0.01 to 3600.
    almanac : Almanac, optional
        Of the time of the track; made here when not given.
    compiled : bool, optional
        Whether compiled kernels do it; by default where they are installed.

    Raises
    ------
    OutsideModel
        If they are more than fifty million.
    """
    check_range("step_s", step_s, 0.01, 3600.0)
    intervals = np.maximum(np.ceil(passes.durations_s / step_s - 1e-9), 1.0).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(intervals + 1)])
    check_range("samples", float(offsets[-1]), 0.0, SAMPLES_MAX)
    almanac = almanac or Almanac.of(track.start_utc_s, track.stop_utc_s)
    arrays = {
        field.name: np.empty(offsets[-1], bool if field.name == "sunlit" else np.float64)
        for field in fields(PassSamples)[1:]
    }
    if use_kernels(compiled):
        write_samples(track, stations, passes, intervals, almanac, offsets, arrays)
        return PassSamples(offsets, **arrays)
    for block in blocks_of(offsets):
        rows = slice(int(offsets[block.start]), int(offsets[block.stop]))
        part = passes.part(block)
        for name, values in samples_of(track, stations, part, intervals[block], almanac).items():
            arrays[name][rows] = values
    return PassSamples(offsets, **arrays)


def write_samples(
    track: Track,
    stations: Stations,
    passes: Passes,
    intervals: Indices,
    almanac: Almanac,
    offsets: Indices,
    arrays: dict[str, NDArray[np.generic]],
) -> None:
    """Write the samples of all passes into the arrays, in machine code."""
    from openqci.kernels.passes import samples

    samples(
        track.positions_km,
        track.velocities_km_s,
        track.start_utc_s,
        track.step_s,
        stations.positions_km,
        stations.axes,
        passes.station,
        passes.rise_utc_s,
        passes.durations_s / intervals,
        offsets,
        almanac.sun_km,
        almanac.moon_km,
        almanac.start_utc_s,
        almanac.step_s,
        SHADOW_RADIUS_KM,
        SUN_RADIUS_KM,
        *arrays.values(),
    )


def blocks_of(offsets: Indices) -> Iterator[slice]:
    """Yield passes in groups of some sixteen thousand samples."""
    start, last = 0, len(offsets) - 1
    while start < last:
        stop = int(np.searchsorted(offsets, offsets[start] + SAMPLES_AT_ONCE))
        stop = min(max(stop, start + 1), last)
        yield slice(start, stop)
        start = stop


def samples_of(
    track: Track, stations: Stations, passes: Passes, intervals: Indices, almanac: Almanac
) -> dict[str, NDArray[np.generic]]:
    """Return the samples of some passes, each with so many intervals, by the names of the fields."""
    owner = np.repeat(np.arange(len(passes)), intervals + 1)
    ends = np.cumsum(intervals + 1)
    place = np.arange(int(ends[-1])) - np.repeat(ends - intervals - 1, intervals + 1)
    gap_s = (passes.durations_s / intervals)[owner]
    moments = passes.rise_utc_s[owner] + gap_s * place
    at_end = (place == 0) | (place == intervals[owner])
    station = passes.station[owner]
    position, velocity = track.between(*track.places(moments))
    sun, moon = almanac.at(moments)
    away = position - stations.positions_km[station]
    ranges = np.sqrt(np.einsum("ni,ni->n", away, away))
    axes = stations.axes[station]
    east, north, up = (np.einsum("ni,ni->n", away, axes[:, axis]) for axis in range(3))
    to_moon = moon - stations.positions_km[station]
    moon_range = np.sqrt(np.einsum("ni,ni->n", to_moon, to_moon))
    return {
        "utc_s": moments,
        "weights_s": np.where(at_end, gap_s / 2, gap_s),
        "elevations_deg": degrees_of_sine(up / ranges),
        "azimuths_deg": np.degrees(np.arctan2(east, north)) % 360.0,
        "ranges_km": ranges,
        "range_rates_km_s": np.einsum("ni,ni->n", away, velocity) / ranges,
        "sun_elevations_deg": degrees_of_sine(
            np.einsum("ni,ni->n", sun, axes[:, 2]) / np.sqrt(np.einsum("ni,ni->n", sun, sun))
        ),
        "moon_elevations_deg": degrees_of_sine(np.einsum("ni,ni->n", to_moon, axes[:, 2]) / moon_range),
        "moon_separations_deg": 90.0
        - degrees_of_sine(np.einsum("ni,ni->n", to_moon, away) / (moon_range * ranges)),
        "moon_phases_deg": angle_deg(sun - moon, -to_moon),
        "sunlit": is_sunlit(position, sun),
    }


def degrees_of_sine(sine: Floats) -> Floats:
    return np.degrees(np.arcsin(np.clip(sine, -1.0, 1.0)))
