"""The settings of a decoy source that give the most key, for one link or for ten thousand at once.

What is chosen: intensities (the faintest of three is fixed), how often each is sent, and how often both ends
choose the key basis. What is climbed is the *unclipped* length, so that a link at its limit is not lost on
the plateau of zero. One setting is chosen per block, as a source that cannot know its loss in advance must.

Method. Settings are written in variables without bounds. A fixed set of points that covers them evenly is
asked first; from the best few, Newton's method climbs with derivatives from a stencil of 15 (21 for five
variables) points, all of one call, and takes the best of several damped steps, again of one call. Where a
bound on few counts is cut off at zero there may be a second hill, so the search goes on from places around
the top. A block that is hardly large enough for a key lies on a plateau but for a small place; where none or
a far-fetched one was found, the search goes from larger blocks down. Links that are optimised together are
independent of each other.

>>> from openqci.quantum.decoy_statistics import DecoyPlant
>>> plant = DecoyPlant(efficiency=0.5 * 10**-3.0, dark_count_probability=5e-7, misalignment_error=0.01)
>>> best = optimise_decoy(plant, KeyBlock(pulses=2e10), "lim-2014-chernoff")
>>> best.intensities.shape, best.length_bits.tolist()
((1, 3), [869168.0])
"""

import itertools
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from openqci.core.errors import ConfigurationError, OutsideModel
from openqci.proofs import proof
from openqci.proofs.bounds import entropies
from openqci.proofs.counts import CountArrays, FiniteKeyProof, KeyLengths
from openqci.quantum.decoy_statistics import DecoyPlant, check_all, decoy_statistics
from openqci.quantum.elements import Floats

FAINTEST_INTENSITY = 2e-4
"""Of the third intensity: what a modulator leaves of a pulse that it should block."""

INTENSITY_MAX = 1.5
START_POINTS = 192
STARTS = 3
ITERATIONS = 12
ASIDE = 0.8
"""How far from a top, along each variable, the search for a higher one begins."""

STARTS_ASIDE, ITERATIONS_ASIDE, ITERATIONS_LAST = 5, 5, 4
LARGER_BLOCKS = (100.0, 10.0)
STENCIL_STEP = 3e-3
DAMPINGS = np.array([0.0, 1e-3, 1e-2, 0.1, 0.5, 2.0, 10.0])
STEP_MAX = 1.5
GAIN_RELATIVE_MIN = 1e-7
PLACE_MAX = 14.0
"""Where the variables are cut off: probabilities of one in a million."""

STARTS_TWO_DECOYS = ((-1.9, 0.6), (-1.6, 0.6), (-1.0, 3.5), (-1.0, 2.5), (0.0, 3.6))
STARTS_ONE_DECOY = ((-1.9, 0.6), (-2.0, 0.6), (-2.0, 2.5), (0.0, 3.6))
"""Where to start: signal, decoy over signal, probabilities, basis bias, each as its variable."""

Indices = NDArray[np.int64]

Z_COLUMN, LENGTH_COLUMN, RATE_COLUMN = 2, 4, 5
"""Of what :meth:`Climb.highest` returns."""

Z_PROBABILITY_ASTRAY = 0.1
"""Below this a fixed number of key bits takes ever more pulses: a climb that ended there has lost its way."""

LINKS_AT_ONCE = 256
"""So that the arrays of a stencil stay in the processor's cache."""


@dataclass(frozen=True)
class KeyBlock:
    """What one block is made of: a number of pulses (a pass, a time) or a number of key-basis bits.

    Parameters
    ----------
    pulses : array_like or None
        Emitted pulses, shape S; the key of them all is maximised.
    key_bits : array_like or None
        Key-basis bits, shape S; the key per emitted pulse is maximised. Exactly one of the two is given.
    error_correction_efficiency : float
        f of the leak ``f n h(E)``, 1 or more.
    epsilon_sec, epsilon_cor : float
        Above 0 and below 1.
    """

    pulses: ArrayLike | None = None
    key_bits: ArrayLike | None = None
    error_correction_efficiency: float = 1.16
    epsilon_sec: float = 1e-10
    epsilon_cor: float = 1e-15

    def __post_init__(self) -> None:
        if (self.pulses is None) == (self.key_bits is None):
            raise ConfigurationError("a block has either pulses or key_bits; expected exactly one of the two")
        if self.pulses is not None:
            check_all("pulses", self.pulses, 1.0, 1e30)
        if self.key_bits is not None:
            check_all("key_bits", self.key_bits, 1.0, 1e30)
        check_all("error_correction_efficiency", self.error_correction_efficiency, 1.0, 10.0)
        check_all("epsilon_sec", self.epsilon_sec, 1e-300, 1 - 1e-16)
        check_all("epsilon_cor", self.epsilon_cor, 1e-300, 1 - 1e-16)

    @property
    def shape(self) -> tuple[int, ...]:
        """S, the shape of the block's size; a single number counts as one link."""
        size = self.pulses if self.key_bits is None else self.key_bits
        return np.asarray(size, dtype=np.float64).shape or (1,)

    def larger(self, factor: float) -> "KeyBlock":
        """Return a block so many times as large."""
        pulses, key_bits = (
            None if size is None else factor * np.asarray(size, dtype=np.float64)
            for size in (self.pulses, self.key_bits)
        )
        return KeyBlock(
            pulses, key_bits, self.error_correction_efficiency, self.epsilon_sec, self.epsilon_cor
        )

    def part(self, chosen: "slice | Indices", shape: tuple[int, ...]) -> "KeyBlock":
        """Return the block of a part of the links, with one axis more at the end."""
        sizes = [
            None if size is None else np.broadcast_to(np.asarray(size, dtype=np.float64), shape)
            for size in (self.pulses, self.key_bits)
        ]
        pulses, key_bits = (None if size is None else size[chosen][:, None] for size in sizes)
        return KeyBlock(
            pulses, key_bits, self.error_correction_efficiency, self.epsilon_sec, self.epsilon_cor
        )


@dataclass(frozen=True)
class DecoySettings:
    """Settings and what they give, one per link.

    Attributes
    ----------
    proof_id : str
    intensities, probabilities : ndarray, shape S + (K,)
    z_basis_probability : ndarray, shape S
    unclipped_bits, length_bits : ndarray, shape S
        Of one block.
    bits_per_pulse : ndarray, shape S
        Whole bits over emitted pulses.
    """

    proof_id: str
    intensities: Floats
    probabilities: Floats
    z_basis_probability: Floats
    unclipped_bits: Floats
    length_bits: Floats
    bits_per_pulse: Floats


def expected_lengths(
    plant: DecoyPlant,
    block: KeyBlock,
    chosen: FiniteKeyProof,
    intensities: Floats,
    probabilities: Floats,
    z_basis_probability: Floats,
) -> tuple[KeyLengths, Floats]:
    """Return the lengths of expected blocks, shape S, and the pulses that each takes.

    Parameters
    ----------
    plant, block : DecoyPlant, KeyBlock
        Fields of shape S.
    intensities, probabilities : ndarray, shape S + (K,)
    z_basis_probability : ndarray, shape S
    """
    seen = decoy_statistics(plant, intensities, probabilities, z_basis_probability)
    z_per_pulse, wrong_per_pulse = seen.z_gains.sum(axis=-1), seen.z_error_gains.sum(axis=-1)
    if block.key_bits is None:
        pulses = np.asarray(block.pulses, dtype=np.float64)
    else:
        pulses = np.asarray(block.key_bits, dtype=np.float64) / np.maximum(z_per_pulse, 1e-300)
    sent = pulses[..., None]
    counts = CountArrays(
        sent * seen.z_gains,
        sent * seen.z_error_gains,
        sent * seen.x_gains,
        sent * seen.x_error_gains,
        intensities,
        probabilities,
    )
    qber = wrong_per_pulse / np.maximum(z_per_pulse, 1e-300)
    leak_bits = block.error_correction_efficiency * pulses * z_per_pulse * entropies(qber)
    return chosen.secret_lengths(counts, leak_bits, block.epsilon_sec, block.epsilon_cor), pulses


def optimise_decoy(
    plant: DecoyPlant,
    block: KeyBlock,
    proof_id: str,
    faintest_intensity: float = FAINTEST_INTENSITY,
) -> DecoySettings:
    """Return the settings that give the most key under a proof.

    Parameters
    ----------
    plant, block : DecoyPlant, KeyBlock
        Fields that broadcast to one axis, shape S = (links,).
    proof_id : str
        A proof for one or two decoys.
    faintest_intensity : float
        Of the third intensity, 0 to 0.01; without meaning for one decoy.

    Raises
    ------
    ConfigurationError
        Unknown proof.
    OutsideModel
        For an intensity outside its range, or more than one axis of links.
    """
    chosen = proof(proof_id)
    check_all("faintest_intensity", faintest_intensity, 0.0, 0.01)
    shape = np.broadcast_shapes(plant.shape, block.shape)
    if len(shape) != 1:
        raise OutsideModel("plant", shape, "fields that broadcast to one axis of links")

    def climb(rows: "slice | Indices") -> Climb:
        return Climb(plant.part(rows, shape), block.part(rows, shape), chosen, faintest_intensity)

    starts = range(0, shape[0], LINKS_AT_ONCE)
    found = [climb(slice(start, start + LINKS_AT_ONCE)).highest() for start in starts]
    columns = [np.concatenate(each) for each in zip(*found, strict=True)]
    astray = np.flatnonzero((columns[LENGTH_COLUMN] <= 0) | (columns[Z_COLUMN] < Z_PROBABILITY_ASTRAY))
    for start in range(0, astray.size, LINKS_AT_ONCE):
        rows = astray[start : start + LINKS_AT_ONCE]
        again = climb(rows).highest_from_larger_blocks()
        better = again[RATE_COLUMN] > columns[RATE_COLUMN][rows]
        for column, values in zip(columns, again, strict=True):
            column[rows[better]] = values[better]
    return DecoySettings(chosen.proof_id, *columns)


@dataclass(frozen=True)
class Climb:
    """A part of the links, B of them, on their way up; fields of plant and block have shape (B, 1).

    A place is a row of d variables without bounds, see :func:`settings_of`.
    """

    plant: DecoyPlant
    block: KeyBlock
    proof: FiniteKeyProof
    faintest_intensity: float

    @property
    def variables(self) -> int:
        return 5 if self.proof.intensities == 3 else 4

    def highest(self) -> tuple[Floats, ...]:
        """Return settings, unclipped and whole bits and bits per pulse of the best places, B rows each."""
        return self.told(self.top(*self.best_starts()))

    def highest_from_larger_blocks(self) -> tuple[Floats, ...]:
        """Return the same, from the best settings of larger blocks down to this one."""
        largest, *others = (replace(self, block=self.block.larger(factor)) for factor in LARGER_BLOCKS)
        place = largest.top(*largest.best_starts())
        for each in (*others, self):
            place = each.top(place, each.heights_at(place))
        return self.told(place)

    def top(self, places: Floats, heights: Floats) -> Floats:
        """Return the highest place that is found from places of shape (B, P, d); shape (B, 1, d)."""
        place, height = highest_of(*self.climbed_on(places, heights, ITERATIONS))
        aside = np.concatenate([np.eye(self.variables), -np.eye(self.variables)]) * ASIDE
        around = place + aside
        starts = highest_of(around, self.heights_at(around), STARTS_ASIDE)
        beside, above = highest_of(*self.climbed_on(*starts, ITERATIONS_ASIDE))
        both = np.concatenate([place, beside], axis=1), np.concatenate([height, above], axis=1)
        return highest_of(*self.climbed_on(*highest_of(*both), ITERATIONS_LAST))[0]

    def climbed_on(self, places: Floats, heights: Floats, iterations: int) -> tuple[Floats, Floats]:
        """Return where places have come after so many steps, or once they stand still."""
        for _ in range(iterations):
            before = heights.max(axis=1)
            places, heights = self.climbed(places, heights)
            gain = heights.max(axis=1) - before
            if (gain <= GAIN_RELATIVE_MIN * np.abs(before)).all():
                break
        return places, heights

    def told(self, place: Floats) -> tuple[Floats, ...]:
        """Return settings and what they give at a place for each link."""
        settings = settings_of(place, self.faintest_intensity)
        lengths, pulses = expected_lengths(self.plant, self.block, self.proof, *settings)
        whole = lengths.length_bits
        rows = (*settings, lengths.unclipped_bits, whole, whole / pulses)
        return tuple(each[:, 0] for each in rows)

    def heights_at(self, places: Floats) -> Floats:
        """Return what is climbed, shape (B, P), at places of shape (B, P, d).

        The unclipped length of a fixed number of pulses; of a fixed number of bits the length per pulse, and
        below zero the length alone, since more pulses would else look like less loss.
        """
        lengths, pulses = expected_lengths(
            self.plant, self.block, self.proof, *settings_of(places, self.faintest_intensity)
        )
        if self.block.key_bits is None:
            return lengths.unclipped_bits
        scale = np.asarray(self.plant.efficiency) / np.asarray(self.block.key_bits)
        per_pulse = np.where(lengths.unclipped_bits > 0, 1 / pulses, scale)
        return np.asarray(lengths.unclipped_bits * per_pulse)

    def best_starts(self) -> tuple[Floats, Floats]:
        """Return the best of the fixed places to start from, shapes (B, STARTS, d) and (B, STARTS)."""
        fixed = start_places(self.variables)
        links = np.shape(self.plant.efficiency)[0]
        heights = self.heights_at(np.broadcast_to(fixed, (links, *fixed.shape)))
        return highest_of(np.broadcast_to(fixed, (links, *fixed.shape)), heights, STARTS)

    def climbed(self, places: Floats, heights: Floats) -> tuple[Floats, Floats]:
        """Return every place after one step of Newton's method, or where it was if none is higher."""
        links, starts, d = places.shape
        offsets = stencil(d)
        around = self.heights_at((places[:, :, None] + offsets).reshape(links, -1, d))
        around = around.reshape(links, starts, -1)
        slopes, curvature = derivatives(around, d)
        steps = newton_steps(slopes, curvature)
        tried = np.concatenate(
            [(places[:, :, None] + steps), places[:, :, None] + 4 * offsets[1 : 2 * d + 1]], axis=2
        )
        reached = self.heights_at(tried.reshape(links, -1, d)).reshape(links, starts, -1)
        best = reached.argmax(axis=2)[..., None]
        higher = np.take_along_axis(reached, best, axis=2)[..., 0]
        moved = np.take_along_axis(tried, best[..., None], axis=2)[:, :, 0]
        better = higher > heights
        return np.where(better[..., None], moved, places), np.where(better, higher, heights)


def highest_of(places: Floats, heights: Floats, number: int = 1) -> tuple[Floats, Floats]:
    """Return the highest so many of places (B, P, d) with heights (B, P)."""
    best = np.argpartition(-heights, min(number, heights.shape[1] - 1), axis=1)[:, :number]
    return np.take_along_axis(places, best[..., None], axis=1), np.take_along_axis(heights, best, axis=1)


def settings_of(places: Floats, faintest_intensity: float) -> tuple[Floats, Floats, Floats]:
    """Return intensities and probabilities, shape (..., K), and the basis bias, shape (...), of places.

    Every place is a valid setting: intensities fall with ``mu1 > mu2 + mu3``, probabilities are positive and
    sum to one, the bias lies inside (0, 1).
    """
    bounded = np.clip(places, -PLACE_MAX, PLACE_MAX)
    if places.shape[-1] == 4:
        share = rising(bounded[..., :4])
        signal = INTENSITY_MAX * share[..., 0]
        intensities = np.stack([signal, signal * share[..., 1]], axis=-1)
        probabilities = np.stack([share[..., 2], 1 - share[..., 2]], axis=-1)
        return intensities, probabilities, share[..., 3]
    share = rising(bounded[..., [0, 1, 4]])
    signal = 3 * faintest_intensity + INTENSITY_MAX * share[..., 0]
    decoy = faintest_intensity + (signal - 2 * faintest_intensity) * share[..., 1]
    intensities = np.stack([signal, decoy, np.full_like(signal, faintest_intensity)], axis=-1)
    weights = np.exp(np.concatenate([bounded[..., 2:4], np.zeros_like(bounded[..., :1])], axis=-1))
    return intensities, weights / weights.sum(axis=-1, keepdims=True), share[..., 2]


def rising(values: Floats) -> Floats:
    """Return the logistic function, from 0 to 1."""
    return np.asarray(1 / (1 + np.exp(-values)))


@cache
def start_places(d: int) -> Floats:
    """Return places that cover plausible settings evenly, shape (START_POINTS, d).

    Points of the additive recurrence with the generalised golden ratio, in the box of what optima were
    seen to be, from satellites to short fibres.
    """
    ratio = 2.0
    for _ in range(60):
        ratio = (1 + ratio) ** (1 / (d + 1))
    even = (0.5 + np.outer(np.arange(1, START_POINTS + 1), ratio ** -np.arange(1.0, d + 1))) % 1
    box = STARTS_TWO_DECOYS if d == 5 else STARTS_ONE_DECOY
    low, high = np.array(box).T
    places: Floats = low + even * (high - low)
    return places


@cache
def stencil(d: int) -> Floats:
    """Return the offsets of a stencil: the place itself, both ways along each axis, and each pair of axes."""
    axes = np.eye(d)
    pairs = [axes[i] + axes[j] for i, j in itertools.combinations(range(d), 2)]
    return STENCIL_STEP * np.array([np.zeros(d), *axes, *-axes, *pairs])


def derivatives(around: Floats, d: int) -> tuple[Floats, Floats]:
    """Return slopes (..., d) and second derivatives (..., d, d) from the heights on a stencil (..., n)."""
    here, up, down = around[..., :1], around[..., 1 : d + 1], around[..., d + 1 : 2 * d + 1]
    slopes = (up - down) / (2 * STENCIL_STEP)
    curvature = np.empty((*around.shape[:-1], d, d))
    curvature[..., range(d), range(d)] = up + down - 2 * here
    for place, (i, j) in enumerate(itertools.combinations(range(d), 2)):
        mixed = around[..., 2 * d + 1 + place] - up[..., i] - up[..., j] + here[..., 0]
        curvature[..., i, j] = curvature[..., j, i] = mixed
    return slopes, curvature / STENCIL_STEP**2


def newton_steps(slopes: Floats, curvature: Floats) -> Floats:
    """Return one step uphill for each damping, shape (..., dampings, d), none longer than STEP_MAX.

    In the axes of the curvature each slope is divided by its size: uphill also where the curve bends up.
    """
    sizes, axes = np.linalg.eigh(curvature)
    sizes = np.abs(sizes)
    # On a flat place steps are long, and cut off below; they must not be too long for a number.
    flat = 1e-12 * np.abs(slopes).max(axis=-1, keepdims=True) + 1e-300
    largest = np.maximum(sizes.max(axis=-1, keepdims=True), flat)
    along = np.einsum("...ji,...j->...i", axes, slopes)
    damped = sizes[..., None, :] + (DAMPINGS[:, None] + 1e-9) * largest[..., None, :]
    steps = np.einsum("...ij,...mj->...mi", axes, along[..., None, :] / damped)
    long = np.linalg.norm(steps, axis=-1, keepdims=True)
    return np.asarray(steps * np.minimum(1.0, STEP_MAX / np.maximum(long, 1e-300)))
