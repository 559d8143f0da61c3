"""The one setting of a source that gives a mission the most key over all of its passes.

A satellite cannot know what its light will lose on the next pass, so it is not allowed to choose per pass,
let alone per second: one setting is chosen for all passes of a time, and what is climbed is the key of all
their blocks together. A setting chosen for each block by someone who knew its losses would give more
(:func:`clairvoyant_bits`); nobody can have that key.

>>> from openqci.links.missions import mission
>>> from openqci.links.ground import ground_station
>>> from openqci.links.survey import survey
>>> from openqci.space import utc_seconds
>>> start = utc_seconds("2027-03-20")
>>> design, ground = mission("microsat-pilot").design(), [ground_station("ogs-helmos")]
>>> best = best_settings(design, ground, start, start + 5 * 86_400.0)
>>> chosen = survey(design, ground, start, start + 5 * 86_400.0, settings=best)
>>> as_set = survey(design, ground, start, start + 5 * 86_400.0)
>>> bool(chosen.key_bits.sum() > 1.2 * as_set.key_bits.sum())
True

Method. Of the blocks that the time holds, a sample is taken that stands for all: evenly in the order of how
much light they bring. The places of :mod:`openqci.links.optimise` are asked first, then a simplex walks up
from the best of them and from what the mission has set. While no block has key, the block that lacks least
leads the way, so that a mission at its limit is not lost on the plateau of zero.

Left out: what a modulator can do (intensities are free up to 1.5, the faintest stays what the mission says).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize

from openqci.links.budget import SpaceLink
from openqci.links.ground import GroundStation
from openqci.links.missions.model import Design
from openqci.links.optimise import settings_of, start_places
from openqci.links.pass_keys import (
    PassYields,
    PulseSettings,
    block_keys,
    block_of_passes,
    counts_in_arrays,
    counts_in_kernel,
    credited,
    detected,
)
from openqci.links.survey import SatelliteTask, check_survey, seen_of_satellite
from openqci.space.pass_finding import Indices, Passes, use_kernels
from openqci.space.pass_samples import STEP_S, Almanac, PassSamples
from openqci.space.ranges import Floats

BLOCKS_MAX = 64
"""Of a sample; twice as many move the key of a year by less than 0.1 %."""

SATELLITES_MAX = 4
"""Whose passes are looked at: those of one design over the same stations are alike."""

FAINTEST_MAX = 0.01
"""Above this the third intensity is no longer near to nothing, and the search leaves it alone."""

STARTS, ASKED_MAX = 3, 160

Place = np.ndarray[tuple[int], np.dtype[np.float64]]


@dataclass(frozen=True)
class Sampled:
    """Moments of a sample of B blocks, N in all, in the order of their blocks.

    Attributes
    ----------
    link : SpaceLink
        Whose design they are of; over which station does not matter any more.
    efficiency, dark, weights_s : ndarray, shape (N,)
        See :func:`openqci.links.pass_keys.detected`.
    block : ndarray of int, shape (N,)
    blocks : int
    """

    link: SpaceLink
    efficiency: Floats
    dark: Floats
    weights_s: Floats
    block: Indices
    blocks: int

    def only(self, kept: Indices) -> "Sampled":
        """Return some of the blocks."""
        number = np.full(self.blocks, -1)
        number[kept] = np.arange(len(kept))
        rows = np.flatnonzero(number[self.block] >= 0)
        rows = rows[np.argsort(number[self.block[rows]], kind="stable")]
        return replace(
            self,
            efficiency=self.efficiency[rows],
            dark=self.dark[rows],
            weights_s=self.weights_s[rows],
            block=number[self.block[rows]],
            blocks=len(kept),
        )

    def thinned(self, blocks_max: int) -> "Sampled":
        """Return so many blocks at most, evenly in the order of the light they bring."""
        light = np.bincount(self.block, self.efficiency * self.weights_s, self.blocks)
        return self.only(np.argsort(light)[evenly(self.blocks, blocks_max)])

    def unclipped_bits(self, settings: PulseSettings) -> Floats:
        """Return what each block would give, shape (B,); below zero where it lacks bits."""
        count = counts_in_kernel if use_kernels(None) else counts_in_arrays
        moments = self.efficiency, self.dark, self.weights_s, self.block, self.blocks
        counts, errors = count(self.link, settings, *moments)
        durations_s = np.bincount(self.block, self.weights_s, self.blocks).astype(np.float64)
        yields = PassYields(settings, counts, errors, durations_s)
        return block_keys(yields, self.link.design.operation).unclipped_bits

    def height(self, settings: PulseSettings) -> float:
        """Return the key of all blocks, or below zero what the best of them lacks."""
        bits = self.unclipped_bits(settings)
        kept = float(bits[bits > 0].sum())
        return kept if kept > 0 else float(bits.max(initial=-np.inf))


def best_settings(
    design: Design,
    ground: Sequence[GroundStation],
    start_utc_s: float,
    stop_utc_s: float,
    *,
    passes_per_block: int | None = None,
    blocks_max: int = BLOCKS_MAX,
) -> PulseSettings:
    """Return the setting for all passes of a time; the mission's own where no better one is found.

    Parameters
    ----------
    design : Design
        With a decoy-state source.
    ground : sequence of GroundStation
    start_utc_s, stop_utc_s : float
    passes_per_block : int, optional
        The operation's when not given: a block of many passes wants other settings than one of a single one.
    blocks_max : int
        How many blocks are looked at.

    Raises
    ------
    ConfigurationError, OutsideModel
        As :func:`openqci.links.survey.survey`.
    """
    sample = sampled(design, ground, start_utc_s, stop_utc_s, passes_per_block)
    as_set = PulseSettings.of(sample.link)
    fixed = len(as_set.intensities) == 3 and as_set.intensities[-1] > FAINTEST_MAX
    return as_set if fixed or not sample.blocks else highest(sample.thinned(blocks_max), as_set)


def highest(sample: Sampled, as_set: PulseSettings, starts: int = STARTS) -> PulseSettings:
    """Return the best setting that walks over the sample find, ``as_set`` if that is better."""
    variables = 5 if len(as_set.intensities) == 3 else 4
    faintest = float(as_set.intensities[-1]) if variables == 5 else 0.0

    def settings_at(place: Floats) -> PulseSettings:
        intensities, probabilities, bias = settings_of(place, faintest)
        return PulseSettings(intensities, probabilities, float(bias))

    def depth(place: Floats) -> float:
        return -sample.height(settings_at(place))

    places = start_places(variables)
    best = places[np.argsort([depth(each) for each in places])[:starts]]
    found = [settings_at(walked(depth, each)) for each in best]
    return max([as_set, *found], key=sample.height)


def walked(depth: Callable[[Floats], float], start: Floats) -> Floats:
    """Return where a simplex comes to from a place."""
    scale = max(abs(depth(start)), 1.0)

    def scaled(place: Place) -> float:
        return depth(place) / scale

    found = minimize(
        scaled,
        np.ravel(start),
        method="Nelder-Mead",
        options={"maxfev": ASKED_MAX, "xatol": 1e-3, "fatol": 1e-5},
    )
    return np.asarray(found.x, dtype=np.float64)


def clairvoyant_bits(sample: Sampled) -> tuple[float, float]:
    """Return the key of blocks under one setting for all of them, and under one for each.

    The second is what no satellite can have: its settings know the losses of each block beforehand.
    """
    as_set = PulseSettings.of(sample.link)
    best = highest(sample, as_set)
    alone = 0.0
    for number in range(sample.blocks):
        one = sample.only(np.array([number]))
        alone += max(0.0, one.height(highest(one, best)))
    return max(0.0, sample.height(best)), alone


def sampled(
    design: Design,
    ground: Sequence[GroundStation],
    start_utc_s: float,
    stop_utc_s: float,
    passes_per_block: int | None = None,
) -> Sampled:
    """Return all blocks of some of a design's satellites in a time."""
    orbits = check_survey(design, ground, start_utc_s, stop_utc_s)
    links = [SpaceLink(design, station) for station in ground]
    almanac = Almanac.of(start_utc_s, stop_utc_s)
    size = design.operation.passes_per_block if passes_per_block is None else passes_per_block
    moments, number = [], 0
    for place in evenly(len(orbits), SATELLITES_MAX).tolist():
        task = SatelliteTask(
            design, orbits[place], tuple(ground), start_utc_s, stop_utc_s, STEP_S, None, None
        )
        found, blocks = moments_of(task, links, almanac, size)
        found[3] += number
        number += blocks
        moments.append(found)
    efficiency, dark, weights_s, block = (np.concatenate(each) for each in zip(*moments, strict=True))
    whole = Sampled(links[0], efficiency, dark, weights_s, block.astype(np.int64), number)
    return whole.only(np.arange(number))


def moments_of(
    task: SatelliteTask, links: Sequence[SpaceLink], almanac: Almanac, passes_per_block: int
) -> tuple[list[Floats], int]:
    """Return efficiency, dark counts, time and block of all moments in which one satellite gives key."""
    passes, seen = seen_of_satellite(task, almanac)
    return moments_of_passes(passes, seen, links, passes_per_block)


def moments_of_passes(
    passes: Passes, seen: PassSamples, links: Sequence[SpaceLink], passes_per_block: int
) -> tuple[list[Floats], int]:
    """Return the same of passes that have been sampled already."""
    chosen = np.flatnonzero(credited(seen, links[0].design.operation) & (seen.weights_s > 0))
    usable = np.bincount(seen.owner[chosen], minlength=len(passes)) > 0
    block, blocks = block_of_passes(passes, usable, passes_per_block)
    station = passes.station[seen.owner[chosen]]
    efficiency, dark = np.empty(len(chosen)), np.empty(len(chosen))
    for place, link in enumerate(links):
        rows = np.flatnonzero(station == place)
        efficiency[rows], dark[rows] = detected(link, *link.light(seen, chosen[rows]))
    owner = block[seen.owner[chosen]].astype(np.float64)
    return [efficiency, dark, seen.weights_s[chosen], owner], blocks


def evenly(size: int, number: int) -> Indices:
    """Return so many places at most, evenly from the first to the last of ``size``."""
    if size <= number:
        return np.arange(size)
    return np.unique(np.linspace(0, size - 1, number).round().astype(np.int64))
