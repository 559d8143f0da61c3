"""All passes of a design over stations for a time, and their keys: the road from an orbit to bits per day.

Satellites are independent of each other, so they may be divided over the processes of an executor; what comes
back is one row per pass, not the samples.

>>> from openqci.links.missions import mission
>>> from openqci.links.ground import ground_station
>>> from openqci.space import utc_seconds
>>> start = utc_seconds("2027-03-20")
>>> found = survey(mission("eagle-1").design(), [ground_station("ogs-helmos")], start, start + 5 * 86_400.0)
>>> len(found.passes), int((found.key_bits > 0).sum())
(10, 5)
>>> found.by_day().key_bits.round(-6).tolist()
[6000000.0, 4000000.0, 1000000.0, 1000000.0, 3000000.0]

Read :mod:`openqci.links.pass_keys` for how a key comes about, and what a block of several passes means.
"""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from openqci.core.errors import ConfigurationError, OutsideModel
from openqci.links.budget import SpaceLink, month_of
from openqci.links.ground import GroundStation, stations_of
from openqci.links.missions.model import Design
from openqci.links.pass_keys import (
    BlockKeys,
    PassYields,
    PulseSettings,
    block_keys,
    block_of_passes,
    joined_yields,
    pass_yields,
    shared_out,
    tracked,
)
from openqci.space.elements import age_warning
from openqci.space.orbits import ElementOrbit, Orbit, check_distinct
from openqci.space.pass_finding import Indices, Passes, find_passes, joined
from openqci.space.pass_samples import STEP_S, Almanac, PassSamples, sample_passes
from openqci.space.ranges import Floats
from openqci.space.time_scales import DAY_S
from openqci.space.tracks import track_of

DAYS_MAX = 3660.0

SEASONS = ("winter", "spring", "summer", "autumn")
"""Of the north: December to February, and so on."""


@dataclass(frozen=True)
class Sums:
    """Key and credited time of passes gathered by day, month or season; arrays of one shape.

    ``labels`` are days (numpy.datetime64) or words.
    """

    labels: NDArray[np.generic]
    key_bits: Floats
    passes: Indices
    passes_with_key: Indices
    duration_s: Floats


class Yields(Protocol):
    """What passes yield, whatever the protocol; arrays of shape (P,)."""

    @property
    def sifted_bits(self) -> Floats: ...

    @property
    def key_basis_bits(self) -> Floats: ...

    @property
    def durations_s(self) -> Floats: ...

    def summed(self, block: Indices, blocks: int) -> "Yields": ...


@dataclass(frozen=True)
class Survey:
    """Passes of a design over stations, and their keys.

    Attributes
    ----------
    design : Design
    start_utc_s, stop_utc_s : float
    passes : Passes
        P of them, all that rise above the minimum elevation, from rise to set.
    yields : PassYields, or PairYields of :mod:`openqci.links.pair_passes`
        What each yields while it is tracked and key counts.
    block : ndarray, shape (P,)
        To which block each pass belongs, -1 for one without credited time.
    keys : BlockKeys
        Of the blocks.
    """

    design: Design
    start_utc_s: float
    stop_utc_s: float
    passes: Passes
    yields: Yields
    block: Indices
    keys: BlockKeys

    @cached_property
    def key_bits(self) -> Floats:
        """Key of each pass, shape (P,); of a block of several, shared out by sifted bits."""
        return shared_out(self.keys.length_bits, self.block, self.yields.sifted_bits)

    @property
    def days(self) -> float:
        return (self.stop_utc_s - self.start_utc_s) / DAY_S

    @property
    def key_bits_per_day(self) -> float:
        """All key over all days, all stations together."""
        return float(self.key_bits.sum()) / self.days

    def by_day(self) -> Sums:
        """Return sums by day of UTC, one for each day of the time."""
        first = np.datetime64(int(self.start_utc_s // DAY_S), "D")
        days = int(np.ceil(self.stop_utc_s / DAY_S) - self.start_utc_s // DAY_S)
        place = (self.passes.culmination_utc_s // DAY_S - self.start_utc_s // DAY_S).astype(np.int64)
        return self._sums(first + np.arange(days), np.clip(place, 0, days - 1))

    def by_season(self) -> Sums:
        """Return sums by season of the north."""
        months = month_of(self.passes.culmination_utc_s)
        return self._sums(np.array(SEASONS), months % 12 // 3)

    def by_station(self) -> Sums:
        """Return sums by station."""
        return self._sums(np.array(self.passes.stations), self.passes.station)

    def _sums(self, labels: NDArray[np.generic], place: Indices) -> Sums:
        size = len(labels)
        return Sums(
            labels,
            np.bincount(place, self.key_bits, minlength=size).astype(np.float64),
            np.bincount(place, minlength=size),
            np.bincount(place, self.key_bits > 0, minlength=size).astype(np.int64),
            np.bincount(place, self.yields.durations_s, minlength=size).astype(np.float64),
        )


@dataclass(frozen=True)
class SatelliteTask:
    """What one worker is given: one satellite over all stations."""

    design: Design
    orbit: Orbit
    ground: tuple[GroundStation, ...]
    start_utc_s: float
    stop_utc_s: float
    step_s: float
    settings: PulseSettings | None
    compiled: bool | None


def survey(
    design: Design,
    ground: Sequence[GroundStation],
    start_utc_s: float,
    stop_utc_s: float,
    *,
    settings: PulseSettings | None = None,
    step_s: float = STEP_S,
    passes_per_block: int | None = None,
    executor: Executor | None = None,
    compiled: bool | None = None,
) -> Survey:
    """Return all passes of a decoy-state design over stations, and their keys.

    Parameters
    ----------
    design : Design
    ground : sequence of GroundStation
    start_utc_s, stop_utc_s : float
        At most ten years.
    settings : PulseSettings, optional
        The mission's when not given.
    step_s : float
        Longest time between samples of a pass.
    passes_per_block : int, optional
        The operation's when not given.
    executor : Executor, optional
        Over whose workers the satellites are divided.
    compiled : bool, optional
        Whether compiled kernels are used; by default where they are installed.

    Raises
    ------
    ConfigurationError
        For no station, an orbit that cannot be propagated, or a design with entangled pairs.
    OutsideModel
        For a time that is empty or too long, or a figure outside its model.
    """
    orbits = check_survey(design, ground, start_utc_s, stop_utc_s)
    tasks = [
        SatelliteTask(design, orbit, tuple(ground), start_utc_s, stop_utc_s, step_s, settings, compiled)
        for orbit in orbits
    ]
    parts = list(map(of_satellite, tasks) if executor is None else executor.map(of_satellite, tasks))
    return gathered(design, start_utc_s, stop_utc_s, parts, passes_per_block)


def gathered(
    design: Design,
    start_utc_s: float,
    stop_utc_s: float,
    parts: Sequence[tuple[Passes, PassYields]],
    passes_per_block: int | None = None,
) -> Survey:
    """Return the survey of satellites whose passes have been judged."""
    passes = joined([each for each, _ in parts])
    yields = joined_yields([each for _, each in parts])
    size = design.operation.passes_per_block if passes_per_block is None else passes_per_block
    block, blocks = block_of_passes(passes, yields.durations_s > 0, size)
    keys = block_keys(yields.summed(block, blocks), design.operation)
    return Survey(design, start_utc_s, stop_utc_s, passes, yields, block, keys)


def check_survey(
    design: Design, ground: Sequence[GroundStation], start_utc_s: float, stop_utc_s: float
) -> list[Orbit]:
    """Return the orbits of a design, after everything that can be refused beforehand has been."""
    if design.entangled:
        raise ConfigurationError(
            f"{design.name} sends entangled pairs; expected a decoy-state design, or "
            "openqci.links.pair_passes"
        )
    if not ground:
        raise ConfigurationError("no ground station; expected one or more")
    days = (stop_utc_s - start_utc_s) / DAY_S
    if not 0 < days <= DAYS_MAX:
        raise OutsideModel("days", days, f"above 0, at most {DAYS_MAX:g}")
    orbits = design.orbits(start_utc_s)
    check_distinct(orbits)
    return orbits


def of_satellite(task: SatelliteTask) -> tuple[Passes, PassYields]:
    """Return the passes of one satellite and what they yield."""
    passes, seen = seen_of_satellite(task)
    return passes, yields_of_stations(task, passes, seen)


def seen_of_satellite(task: SatelliteTask, almanac: Almanac | None = None) -> tuple[Passes, PassSamples]:
    """Return the passes of one satellite, and their samples from when they are tracked."""
    stations = stations_of(task.ground)
    track = track_of(task.orbit, task.start_utc_s, task.stop_utc_s)
    operation = task.design.operation
    passes = find_passes(track, stations, operation.elevation_min_deg, compiled=task.compiled)
    almanac = almanac or Almanac.of(task.start_utc_s, task.stop_utc_s)
    seen = sample_passes(
        track,
        stations,
        tracked(passes, operation.acquisition_s),
        task.step_s,
        almanac,
        compiled=task.compiled,
    )
    return passes, seen


def yields_of_stations(task: SatelliteTask, passes: Passes, seen: PassSamples) -> PassYields:
    """Return what passes yield, station by station, in the order of the passes."""
    edges = np.searchsorted(passes.station, np.arange(len(task.ground) + 1))
    return joined_yields(
        [
            pass_yields(
                SpaceLink(task.design, ground),
                seen.among(int(first), int(last)),
                task.settings,
                compiled=task.compiled,
            )
            for ground, first, last in zip(task.ground, edges[:-1], edges[1:], strict=True)
        ]
    )


def warnings_of(design: Design, start_utc_s: float, stop_utc_s: float) -> list[str]:
    """Return what a reader of passes of this design should know: the age of its elements."""
    told = [
        age_warning(orbit.elements, start_utc_s, stop_utc_s)
        for orbit in design.orbits(start_utc_s)
        if isinstance(orbit, ElementOrbit)
    ]
    return [each for each in told if each]


def never_seen(passes: Passes) -> list[str]:
    """Return the stations over which no pass was found."""
    seen = set(passes.station.tolist())
    return [name for place, name in enumerate(passes.stations) if place not in seen]
