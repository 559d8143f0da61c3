"""Keys of many passes at once: counts of every pass in closed form, one bound over each block of passes.

The same arithmetic as :func:`openqci.links.passes.pass_counts` and ``pass_key``, for all passes of a station
in arrays: a year of a hundred satellites is seconds instead of days. The source has one setting, the counts
of a pass are added, and the proof is applied **once** to a block.

A block is one pass, or several passes of one satellite over one station (``passes_per_block``). Several give
more key, because finite-size terms are paid once; the price is that raw data of all of them must be stored at
both ends, that there is no key before the last of them, and that one failure of epsilon concerns them all.

>>> from openqci.links.missions import mission
>>> from openqci.links.ground import ground_station
>>> from openqci.links.budget import SpaceLink
>>> from openqci.space import Stations, find_passes, sample_passes, track_of, utc_seconds
>>> from openqci.links.ground import stations_of
>>> ground, design = ground_station("ogs-oberpfaffenhofen"), mission("eagle-1").design()
>>> start = utc_seconds("2027-03-20")
>>> track = track_of(design.orbits(start)[0], start, start + 3 * 86_400.0)
>>> passes = find_passes(track, stations_of([ground]), design.operation.elevation_min_deg)
>>> seen = sample_passes(track, stations_of([ground]), tracked(passes, design.operation.acquisition_s))
>>> yields = pass_yields(SpaceLink(design, ground), seen)
>>> keys = block_keys(yields, design.operation)
>>> int((keys.length_bits > 0).sum()), len(passes)
(4, 8)

Left out: scintillation, whose mean is one (where a click is rare, only the mean counts); it costs in
thresholds, not in gains. Jitter is averaged with two nodes, exact to the third power of the transmittance.
"""

import math
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from openqci.core.detections import X_BASIS, Z_BASIS
from openqci.core.errors import OutsideModel
from openqci.links.budget import SpaceLink
from openqci.links.missions.model import Operation
from openqci.proofs import proof
from openqci.proofs.bounds import entropies
from openqci.proofs.counts import CountArrays, KeyLengths
from openqci.quantum.decoy_statistics import DecoyPlant, decoy_statistics
from openqci.space.fading import Fading, pointing_fading
from openqci.space.pass_finding import Indices, Passes, use_kernels
from openqci.space.pass_samples import PassSamples
from openqci.space.ranges import Floats

SAMPLES_AT_ONCE = 1 << 14
"""So that the arrays of a block stay in the processor's cache."""

FADING_NODES = 2
DARK_MAX = 0.1
"""Dark counts and background of one gate, up to which the model of detectors holds."""

EFFICIENCY_MIN = 1e-25


@dataclass(frozen=True)
class PulseSettings:
    """What a decoy-state source is set to for all of its passes.

    Attributes
    ----------
    intensities, probabilities : ndarray, shape (K,)
    z_basis_probability : float
        Of both ends.
    """

    intensities: Floats
    probabilities: Floats
    z_basis_probability: float

    @classmethod
    def of(cls, link: SpaceLink) -> "PulseSettings":
        """Return the settings that the mission says."""
        payload = link.design.payload
        source = payload.source()  # which checks them
        return cls(np.array(source.intensities), np.array(source.probabilities), source.z_basis_probability)


@dataclass(frozen=True)
class PassYields:
    """What P passes yield on average.

    Attributes
    ----------
    settings : PulseSettings
    counts, errors : ndarray, shape (P, 2, K)
        Sifted bits and errors in basis b (0 = Z, 1 = X), sent at intensity k.
    durations_s : ndarray, shape (P,)
        Time in which key counts.
    """

    settings: PulseSettings
    counts: Floats
    errors: Floats
    durations_s: Floats

    def __len__(self) -> int:
        return len(self.durations_s)

    @property
    def sifted_bits(self) -> Floats:
        """All that was sifted, both bases together, shape (P,)."""
        return np.asarray(self.counts.sum(axis=(1, 2)))

    @property
    def key_basis_bits(self) -> Floats:
        """What was sifted in the key basis, shape (P,)."""
        return np.asarray(self.counts[:, Z_BASIS].sum(axis=-1))

    def summed(self, block: Indices, blocks: int) -> "PassYields":
        """Return the yields of blocks; ``block`` says to which each pass belongs, -1 to none."""
        return replace(
            self,
            counts=sums_of_blocks(self.counts, block, blocks),
            errors=sums_of_blocks(self.errors, block, blocks),
            durations_s=sums_of_blocks(self.durations_s, block, blocks),
        )


def sums_of_blocks(values: Floats, block: Indices, blocks: int) -> Floats:
    """Return values of passes added up over their blocks, along the first axis."""
    used = block >= 0
    total = np.zeros((blocks, *values.shape[1:]))
    np.add.at(total, block[used], values[used])
    return total


def joined_yields(parts: "list[PassYields]") -> PassYields:
    """Return the yields of several lots of passes, made with the same settings."""
    return PassYields(
        parts[0].settings,
        np.concatenate([each.counts for each in parts]),
        np.concatenate([each.errors for each in parts]),
        np.concatenate([each.durations_s for each in parts]),
    )


def tracked(passes: Passes, acquisition_s: float) -> Passes:
    """Return passes from when both ends track each other; a shorter one begins and ends with its set."""
    late = np.minimum(passes.rise_utc_s + acquisition_s, passes.set_utc_s)
    return replace(passes, rise_utc_s=late, culmination_utc_s=np.maximum(passes.culmination_utc_s, late))


def credited(seen: PassSamples, operation: Operation) -> NDArray[np.bool_]:
    """Return in which samples key counts: Sun, eclipse and Moon as the operation has it."""
    allowed = operation.rule().allows(seen.sun_elevations_deg, seen.sunlit)
    moon_down = seen.moon_elevations_deg < 0
    clear_of_moon: NDArray[np.bool_] = moon_down | (
        seen.moon_separations_deg >= operation.moon_separation_min_deg
    )
    return allowed & clear_of_moon


def pass_yields(
    link: SpaceLink,
    seen: PassSamples,
    settings: PulseSettings | None = None,
    *,
    compiled: bool | None = None,
) -> PassYields:
    """Return what passes of one design over one station yield.

    Parameters
    ----------
    link : SpaceLink
    seen : PassSamples
        Of P passes, from when they are tracked.
    settings : PulseSettings, optional
        The mission's when not given.
    compiled : bool, optional
        Whether compiled kernels count; by default where they are installed.

    Raises
    ------
    OutsideModel
        For a background too bright for the detectors, 0.1 per gate.
    """
    settings = settings or PulseSettings.of(link)
    chosen = np.flatnonzero(credited(seen, link.design.operation) & (seen.weights_s > 0))
    owner, weights_s = seen.owner[chosen], seen.weights_s[chosen]
    through, background_hz = link.light(seen, chosen)
    efficiency, dark = detected(link, through, background_hz)
    count = counts_in_kernel if use_kernels(compiled) else counts_in_arrays
    counts, errors = count(link, settings, efficiency, dark, weights_s, owner, seen.passes)
    durations_s = np.bincount(owner, weights_s, minlength=seen.passes).astype(np.float64)
    return PassYields(settings, counts, errors, durations_s)


def detected(link: SpaceLink, through: Floats, background_photons_hz: Floats) -> tuple[Floats, Floats]:
    """Return the chance of a photon to be counted, and of a detector to click in a gate without one.

    Raises
    ------
    OutsideModel
        For a background of which a gate would count 0.1.
    """
    station = link.design.station
    # Half of the background goes to either detector, through the receiver's optics.
    per_photon = 10 ** (-station.optics_loss_db / 10) * station.detector_efficiency / 2
    light = background_photons_hz * (station.gate_width_s * per_photon)
    dark = station.dark_count_probability - (1 - station.dark_count_probability) * np.expm1(-light)
    if dark.size and not dark.max() <= DARK_MAX:
        brightest = float(background_photons_hz.max())
        raise OutsideModel("background_photons_hz", brightest, "less than gives 0.1 counts in a gate")
    return np.maximum(through, EFFICIENCY_MIN), dark


def counts_in_kernel(
    link: SpaceLink,
    settings: PulseSettings,
    efficiency: Floats,
    dark: Floats,
    weights_s: Floats,
    owner: Indices,
    passes: int,
) -> tuple[Floats, Floats]:
    """Return sifted bits and errors of passes, shapes (P, 2, K), in machine code."""
    from openqci.kernels.decoy_counts import pass_counts

    fading = pointing_fading(link.jitter_exponent, FADING_NODES)
    shape = (passes, 2, len(settings.intensities))
    counts, errors = np.zeros(shape), np.zeros(shape)
    pass_counts(
        efficiency,
        dark,
        weights_s,
        owner,
        fading.transmittances / fading.mean,
        fading.weights,
        settings.intensities,
        settings.probabilities,
        float(settings.z_basis_probability),
        link.design.payload.misalignment_error,
        link.design.station.afterpulse_probability,
        dead_slots(link),
        link.design.payload.clock_rate_hz,
        counts,
        errors,
    )
    return counts, errors


def counts_in_arrays(
    link: SpaceLink,
    settings: PulseSettings,
    efficiency: Floats,
    dark: Floats,
    weights_s: Floats,
    owner: Indices,
    passes: int,
) -> tuple[Floats, Floats]:
    """Return the same in NumPy."""
    fading = pointing_fading(link.jitter_exponent, FADING_NODES)
    columns = np.zeros((passes, 4 * len(settings.intensities)))
    for start in range(0, len(efficiency), SAMPLES_AT_ONCE):
        rows = slice(start, start + SAMPLES_AT_ONCE)
        plant = DecoyPlant(
            efficiency[rows],
            dark[rows],
            link.design.payload.misalignment_error,
            link.design.station.afterpulse_probability,
            dead_slots(link),
        )
        weighted = mean_gains(plant, settings, fading) * weights_s[rows, None]
        first = np.flatnonzero(np.diff(owner[rows], prepend=-1))
        columns[owner[rows][first]] += np.add.reduceat(weighted, first, axis=0)
    both = columns.reshape(passes, 2, 2, len(settings.intensities)) * link.design.payload.clock_rate_hz
    return both[:, 0], both[:, 1]


def dead_slots(link: SpaceLink) -> float:
    """Return the gates lost after a click, as :attr:`openqci.quantum.QuantumLink.dead_slots` counts them."""
    gates = link.design.station.dead_time_s * link.design.payload.clock_rate_hz
    return float(math.ceil(gates - 1e-6))


def mean_gains(plant: DecoyPlant, settings: PulseSettings, fading: Fading) -> Floats:
    """Return gains and error gains per pulse, averaged over fading; its mean is in the efficiency already."""
    total = np.zeros((plant.shape[0], 4 * len(settings.intensities)))
    chosen = np.array(settings.z_basis_probability)
    for relative, weight in zip(fading.transmittances, fading.weights, strict=True):
        faded = replace(plant, efficiency=np.minimum(plant.efficiency * (relative / fading.mean), 1.0))
        found = decoy_statistics(faded, settings.intensities, settings.probabilities, chosen)
        parts = found.z_gains, found.x_gains, found.z_error_gains, found.x_error_gains
        total += weight * np.concatenate(parts, axis=-1)
    return total


# Blocks and their keys


class Explained(Protocol):
    """Keys that say, where there is none, what took it."""

    @property
    def limited_by(self) -> NDArray[np.str_]: ...


@dataclass(frozen=True)
class BlockKeys:
    """Keys of B blocks; arrays of shape (B,).

    Attributes
    ----------
    length_bits : ndarray
        Whole bits, authentication subtracted; zero or more.
    unclipped_bits : ndarray
        Before all of that is cut off at zero.
    sifted_bits, qber : ndarray
        Of the bits that the key is made of.
    phase_error : ndarray
        The bound; the worse of two when both bases give key.
    proof_id, reference : str
    """

    length_bits: Floats
    unclipped_bits: Floats
    sifted_bits: Floats
    qber: Floats
    phase_error: Floats
    proof_id: str
    reference: str
    lengths: tuple["Explained", ...]

    def zero_because(self, durations_s: Floats) -> list[str]:
        """Return, for each block, what took the key where there is none; for few blocks."""
        why = self.lengths[0].limited_by
        return [
            ""
            if bits > 0
            else "no moment of the pass may be credited"
            if seconds <= 0
            else str(reason) or "authentication takes more than the key"
            for bits, seconds, reason in zip(self.length_bits, durations_s, why, strict=True)
        ]


def block_of_passes(passes: Passes, usable: NDArray[np.bool_], passes_per_block: int) -> tuple[Indices, int]:
    """Return to which block each pass belongs, -1 for none, and how many blocks there are.

    Usable passes of one satellite over one station are taken together in the order of time. What is left at
    the end of the time looked at is a block of its own, with fewer passes.
    """
    if passes_per_block < 1:
        raise OutsideModel("passes_per_block", passes_per_block, "1 or more")
    block = np.full(len(passes), -1, dtype=np.int64)
    rows = np.flatnonzero(usable)
    if not len(rows):
        return block, 0
    order = rows[np.lexsort((passes.rise_utc_s[rows], passes.station[rows], passes.satellite[rows]))]
    pair = passes.satellite[order] * len(passes.stations) + passes.station[order]
    first = np.flatnonzero(np.diff(pair, prepend=-1))
    place = np.arange(len(order)) - np.repeat(first, np.diff([*first, len(order)]))
    begins = place % passes_per_block == 0
    block[order] = np.cumsum(begins) - 1
    return block, int(begins.sum())


def block_keys(yields: PassYields, operation: Operation, *, proof_id: str = "") -> BlockKeys:
    """Return the keys of blocks under a finite-key proof, applied once to the counts of each.

    Parameters
    ----------
    yields : PassYields
        One entry per block (:meth:`PassYields.summed`).
    operation : Operation
    proof_id : str
        Another proof than the operation's, for as many intensities.
    """
    chosen = proof(proof_id or operation.proof)
    if chosen.intensities != len(yields.settings.intensities):
        raise OutsideModel(
            "intensities", len(yields.settings.intensities), f"{chosen.intensities} for {chosen.proof_id}"
        )
    used = [Z_BASIS] if operation.key_bases == "z" else [Z_BASIS, X_BASIS]
    lengths = tuple(lengths_of(yields, basis, operation, chosen.proof_id, len(used)) for basis in used)
    unclipped = np.sum([each.unclipped_bits for each in lengths], axis=0)
    whole = np.sum([each.length_bits for each in lengths], axis=0)
    sifted = yields.counts[:, used].sum(axis=(1, 2))
    wrong = yields.errors[:, used].sum(axis=(1, 2))
    return BlockKeys(
        length_bits=np.maximum(0.0, whole - operation.authentication_bits),
        unclipped_bits=unclipped - operation.authentication_bits,
        sifted_bits=sifted,
        qber=wrong / np.maximum(sifted, 1e-300),
        phase_error=np.max([each.phase_error for each in lengths], axis=0),
        proof_id=chosen.proof_id,
        reference=chosen.reference,
        lengths=lengths,
    )


def lengths_of(
    yields: PassYields, key_basis: int, operation: Operation, proof_id: str, keys: int
) -> KeyLengths:
    """Return the lengths of the keys of one basis, one of so many that share the epsilons."""
    test_basis = X_BASIS if key_basis == Z_BASIS else Z_BASIS
    settings = yields.settings
    counts = CountArrays(
        yields.counts[:, key_basis],
        yields.errors[:, key_basis],
        yields.counts[:, test_basis],
        yields.errors[:, test_basis],
        settings.intensities,
        settings.probabilities,
    )
    sifted = yields.counts[:, key_basis].sum(axis=1)
    rate = yields.errors[:, key_basis].sum(axis=1) / np.maximum(sifted, 1e-300)
    leak_bits = operation.error_correction_efficiency * sifted * entropies(rate)
    return proof(proof_id).secret_lengths(
        counts, leak_bits, operation.epsilon_sec / keys, operation.epsilon_cor / keys
    )


def shared_out(length_bits: Floats, block: Indices, weights: ArrayLike) -> Floats:
    """Return the key of blocks as shares of their passes, by weights such as sifted bits."""
    share = np.asarray(weights, dtype=np.float64).copy()
    share[block < 0] = 0.0
    used = block >= 0
    total = np.bincount(block[used], share[used], minlength=len(length_bits))
    part = np.zeros(len(block))
    part[used] = share[used] / np.maximum(total, 1e-300)[block[used]] * length_bits[block[used]]
    return part
