"""Keys of entangled pairs that go down to two stations at once: BBM92 by double downlink.

A pair counts while one satellite is high over **both** stations and both are in the dark; so what is a pass
here is the time that two passes of one satellite have in common. Each moment has its own two losses and its
own light; coincidences and accidentals of all moments are summed, and the proof is applied once to a block.
The satellite learns nothing of the key: it need not be trusted.

>>> from openqci.links.missions import mission
>>> from openqci.links.ground import ground_station
>>> from openqci.space import utc_seconds
>>> micius = mission("micius")
>>> ground = [ground_station(each, micius) for each in ("delingha", "nanshan")]
>>> start = utc_seconds("2016-12-18")
>>> found = pair_survey(micius.design("pairs-2020"), ground, start, start + 5 * 86_400.0)
>>> found.passes.stations, len(found.passes), int((found.yields.durations_s > 0).sum())
(('delingha+nanshan',), 13, 6)

Left out: drift of the two clocks and the time of flight, which cost a search and no pairs; fading in time
(the two jitters are independent, so the mean of the product is the product of the means). Rates of one
moment are :func:`openqci.quantum.bbm92_cw.coincidence_rates`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from openqci.core.errors import ConfigurationError, OutsideModel
from openqci.links.budget import SpaceLink
from openqci.links.ground import GroundStation, stations_of
from openqci.links.missions.model import Design, Operation, StationDesign
from openqci.links.pass_keys import BlockKeys, block_of_passes, credited, sums_of_blocks, tracked
from openqci.links.survey import DAYS_MAX, Survey
from openqci.proofs.bounds import entropies
from openqci.proofs.entanglement import Bbm92Finite, PairCounts, PairKey
from openqci.quantum.bbm92_cw import coincidence_rates
from openqci.space.orbits import Orbit, check_distinct
from openqci.space.pass_finding import Indices, Passes, find_passes, joined
from openqci.space.pass_samples import STEP_S, Almanac, PassSamples, sample_passes
from openqci.space.ranges import Floats
from openqci.space.time_scales import DAY_S
from openqci.space.tracks import Track, track_of

DETECTORS = 4
"""Of a receiver that chooses its basis by a splitter; all of them are open at a time."""

JITTER_FWHM_S_MIN = 1e-12


@dataclass(frozen=True)
class PairYields:
    """What P common passes yield on average.

    Attributes
    ----------
    counts, errors : ndarray, shape (P, 2)
        Sifted coincidences and errors in basis b (0 = Z, 1 = X).
    durations_s : ndarray, shape (P,)
        Time in which key counts at both ends.
    losses_db : ndarray, shape (P, 2)
        Smallest and largest loss of a pair over that time, both ways together, without detectors; NaN where
        there is no such time.
    """

    counts: Floats
    errors: Floats
    durations_s: Floats
    losses_db: Floats

    def __len__(self) -> int:
        return len(self.durations_s)

    @property
    def sifted_bits(self) -> Floats:
        return np.asarray(self.counts.sum(axis=1))

    @property
    def key_basis_bits(self) -> Floats:
        return self.counts[:, 0]

    def summed(self, block: Indices, blocks: int) -> "PairYields":
        """Return the yields of blocks; ``block`` says to which each pass belongs, -1 to none."""
        lowest, highest = np.full(blocks, np.inf), np.full(blocks, -np.inf)
        used = block >= 0
        np.minimum.at(lowest, block[used], self.losses_db[used, 0])
        np.maximum.at(highest, block[used], self.losses_db[used, 1])
        return PairYields(
            counts=sums_of_blocks(self.counts, block, blocks),
            errors=sums_of_blocks(self.errors, block, blocks),
            durations_s=sums_of_blocks(self.durations_s, block, blocks),
            losses_db=np.column_stack([lowest, highest]),
        )


def pair_survey(
    design: Design,
    ground: Sequence[GroundStation],
    start_utc_s: float,
    stop_utc_s: float,
    *,
    step_s: float = STEP_S,
    passes_per_block: int | None = None,
) -> Survey:
    """Return the common passes of all pairs of stations, and their keys.

    The names of the stations of such a pass are those of both, ``delingha+nanshan``.

    Raises
    ------
    ConfigurationError
        For a design without entangled pairs, or fewer than two stations.
    OutsideModel
        For a time that is empty or too long, or a figure outside its model.
    """
    orbits = check_pairs(design, ground, start_utc_s, stop_utc_s)
    almanac = Almanac.of(start_utc_s, stop_utc_s)
    parts = [
        pairs_of_satellite(design, track_of(orbit, start_utc_s, stop_utc_s), ground, step_s, almanac)
        for orbit in orbits
    ]
    passes = joined([each for each, _ in parts])
    yields = PairYields(
        *(np.concatenate([getattr(each, name) for _, each in parts]) for name in PairYields.__annotations__)
    )
    size = design.operation.passes_per_block if passes_per_block is None else passes_per_block
    block, blocks = block_of_passes(passes, yields.durations_s > 0, size)
    keys = pair_block_keys(yields.summed(block, blocks), design.operation)
    return Survey(design, start_utc_s, stop_utc_s, passes, yields, block, keys)


def check_pairs(
    design: Design, ground: Sequence[GroundStation], start_utc_s: float, stop_utc_s: float
) -> list[Orbit]:
    """Return the orbits of a design, after everything that can be refused beforehand has been."""
    if not design.entangled:
        raise ConfigurationError(f"{design.name} sends no entangled pairs; expected openqci.links.survey")
    if len(ground) < 2:
        raise ConfigurationError(
            f"{len(ground)} ground station for {design.name}; expected two or more: pairs go down to two"
        )
    days = (stop_utc_s - start_utc_s) / DAY_S
    if not 0 < days <= DAYS_MAX:
        raise OutsideModel("days", days, f"above 0, at most {DAYS_MAX:g}")
    orbits = design.orbits(start_utc_s)
    check_distinct(orbits)
    return orbits


def pairs_of_satellite(
    design: Design, track: Track, ground: Sequence[GroundStation], step_s: float, almanac: Almanac
) -> tuple[Passes, PairYields]:
    """Return the common passes of one satellite over all pairs of stations, and what they yield."""
    operation, stations = design.operation, stations_of(ground)
    passes = tracked(find_passes(track, stations, operation.elevation_min_deg), operation.acquisition_s)
    pairs = list(combinations(range(len(ground)), 2))
    names = tuple(f"{ground[a].site_id}+{ground[b].site_id}" for a, b in pairs)
    found, yields = [], []
    for number, (a, b) in enumerate(pairs):
        at_a, at_b = common_passes(passes, a, b)
        seen = [sample_passes(track, stations, each, step_s, almanac) for each in (at_a, at_b)]
        yields.append(pair_yields(design, (ground[a], ground[b]), (seen[0], seen[1])))
        found.append(replace(at_a, stations=names, station=np.full(len(at_a), number)))
    columns = [np.concatenate([getattr(each, name) for each in found]) for name in PASS_COLUMNS]
    whole = Passes(passes.satellites, names, *columns)
    return whole, PairYields(
        *(np.concatenate([getattr(each, name) for each in yields]) for name in PairYields.__annotations__)
    )


PASS_COLUMNS = tuple(name for name in Passes.__annotations__ if name not in ("satellites", "stations"))


def common_passes(passes: Passes, a: int, b: int) -> tuple[Passes, Passes]:
    """Return the passes over two stations cut to the time they have in common, in the same order."""
    at_a, at_b = (passes.part(passes.station == station) for station in (a, b))
    rise = np.maximum(at_a.rise_utc_s[:, None], at_b.rise_utc_s)
    fall = np.minimum(at_a.set_utc_s[:, None], at_b.set_utc_s)
    first, second = np.nonzero(rise < fall)
    both = []
    for each, rows in ((at_a, first), (at_b, second)):
        cut = each.part(rows)
        begins, ends = rise[first, second], fall[first, second]
        top = np.clip(cut.culmination_utc_s, begins, ends)
        both.append(replace(cut, rise_utc_s=begins, set_utc_s=ends, culmination_utc_s=top))
    # How high it stands is told of the end that sees it lower.
    lower = np.minimum(both[0].culminations_deg, both[1].culminations_deg)
    return replace(both[0], culminations_deg=lower), replace(both[1], culminations_deg=lower)


def pair_yields(
    design: Design, ground: tuple[GroundStation, GroundStation], seen: tuple[PassSamples, PassSamples]
) -> PairYields:
    """Return what common passes yield, sampled at the same moments at both ends.

    Raises
    ------
    OutsideModel
        If they were not.
    """
    if not np.array_equal(seen[0].utc_s, seen[1].utc_s):
        raise OutsideModel("seen", "different moments", "the same moments at both stations")
    payload, station, operation = design.payload, design.station, design.operation
    allowed = credited(seen[0], operation) & credited(seen[1], operation) & (seen[0].weights_s > 0)
    chosen = np.flatnonzero(allowed)
    owner, weights_s, passes = seen[0].owner[chosen], seen[0].weights_s[chosen], seen[0].passes
    ends = [
        SpaceLink(design, each).light(moments, chosen) for each, moments in zip(ground, seen, strict=True)
    ]
    jitter_s = max(station.jitter_fwhm_s, JITTER_FWHM_S_MIN) * np.sqrt(2)
    dead = station.dead_time_s, station.dead_time_s
    noise = noise_hz(station, ends[0][1]), noise_hz(station, ends[1][1])
    _, _, true, accidental = coincidence_rates(
        payload.brightness_hz, (ends[0][0], ends[1][0]), noise, dead, payload.window_s, float(jitter_s)
    )
    wrong = true * payload.misalignment_error + accidental / 2
    shares = np.array([payload.z_basis_probability, 1 - payload.z_basis_probability]) ** 2

    def over_passes(rates: Floats) -> Floats:
        return np.asarray(np.bincount(owner, rates * weights_s, passes)[:, None] * shares)

    loss_db = -10 * np.log10(ends[0][0] * ends[1][0] / station.detector_efficiency**2)
    return PairYields(
        over_passes(true + accidental),
        over_passes(wrong),
        np.bincount(owner, weights_s, passes).astype(np.float64),
        extremes(loss_db, owner, passes),
    )


def extremes(values: Floats, owner: Indices, passes: int) -> Floats:
    """Return the smallest and the largest value of each pass, shape (P, 2); NaN for none."""
    found = np.full((passes, 2), np.nan)
    np.fmin.at(found[:, 0], owner, values)
    np.fmax.at(found[:, 1], owner, values)
    return found


def noise_hz(station: StationDesign, background_photons_hz: Floats) -> Floats:
    """Return the clicks per second of all detectors of a station that no pair made."""
    counted = 10 ** (-station.optics_loss_db / 10) * station.detector_efficiency
    dark_hz = DETECTORS * station.dark_count_probability / station.gate_width_s
    return np.asarray(background_photons_hz * counted + dark_hz)


# Keys


def pair_block_keys(yields: PairYields, operation: Operation) -> BlockKeys:
    """Return the keys of blocks of coincidences; one proof, once per block."""
    proof = Bbm92Finite()
    used = [0] if operation.key_bases == "z" else [0, 1]
    lengths = tuple(key_of_basis(yields, basis, operation, proof, len(used)) for basis in used)
    whole = np.sum([each.length_bits for each in lengths], axis=0)
    unclipped = np.sum([each.unclipped_bits for each in lengths], axis=0)
    sifted = yields.counts[:, used].sum(axis=1)
    return BlockKeys(
        length_bits=np.maximum(0.0, whole - operation.authentication_bits),
        unclipped_bits=unclipped - operation.authentication_bits,
        sifted_bits=sifted,
        qber=yields.errors[:, used].sum(axis=1) / np.maximum(sifted, 1e-300),
        phase_error=np.max([each.phase_error for each in lengths], axis=0),
        proof_id=proof.proof_id,
        reference=proof.reference,
        lengths=lengths,
    )


def key_of_basis(
    yields: PairYields, basis: int, operation: Operation, proof: Bbm92Finite, keys: int
) -> PairKey:
    """Return the keys of one basis, the other being its test, one of so many that share the epsilons."""
    counts, errors = yields.counts, yields.errors
    rate = errors[:, basis] / np.maximum(counts[:, basis], 1e-300)
    leak_bits = operation.error_correction_efficiency * counts[:, basis] * entropies(rate)
    return proof.secret_length(
        PairCounts(counts[:, basis], errors[:, basis], counts[:, 1 - basis], errors[:, 1 - basis]),
        leak_bits,
        operation.epsilon_sec / keys,
        operation.epsilon_cor / keys,
    )
