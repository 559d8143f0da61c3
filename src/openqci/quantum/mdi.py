"""MDI-QKD: weak pulses from both ends meet at a station that may be anybody's, and it announces Bell results.

Alice and Bob each send a phase-randomised weak pulse in one of four polarisations. At the station they
interfere on a beam splitter, and behind each of its outputs polarising beam splitters lead to two
detectors. Exactly one click in H and one in V is a Bell result: in the same output psi+, in different
outputs psi-. Attacks on detectors are attacks on the station, which is not trusted in the first place.

>>> arm = MdiArm(intensity=0.3, loss_db=10.0)
>>> station = BellStation(detector_efficiency=0.145, dark_count_probability=6.02e-6, misalignment_error=0.015)
>>> found = mdi_statistics(MdiLink(arm, arm, station, clock_rate_hz=1e9))
>>> round(found.z_qber, 4), round(found.x_qber, 3)
(0.0203, 0.259)

Left out: visibility of the interference below one but for ``misalignment_error``, timing and spectrum of
the two lasers, dead time of the station. Read :mod:`openqci.proofs.mdi` next.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import i0

from openqci.core.detections import X_BASIS, Z_BASIS, Bits, Slots
from openqci.core.errors import OutsideModel
from openqci.quantum.elements import Floats, check_range, transmittance
from openqci.quantum.exchange import draw_slots

PHASES = 512
"""Points of the average over the phase between the two pulses; a smooth periodic function needs far fewer."""

BOUND_SLACK = 1.02
"""Above the largest weight on the grid, so that rejection never meets a larger one between two points."""


@dataclass(frozen=True)
class MdiArm:
    """One end: mean photons of its pulses (above 0, at most 10) and the loss to the station."""

    intensity: float
    loss_db: float

    def __post_init__(self) -> None:
        check_range("intensity", self.intensity, 1e-12, 10.0)
        check_range("loss_db", self.loss_db, 0.0, 200.0)


@dataclass(frozen=True)
class BellStation:
    """The station in the middle: four equal detectors, and how often a turn swaps the announced result.

    Parameters
    ----------
    detector_efficiency : float
        Above 0 and at most 1, with the station's own optics.
    dark_count_probability : float
        Per gate and detector, 0 to 0.1.
    misalignment_error : float
        Of both arms together, 0 to 0.5.
    """

    detector_efficiency: float
    dark_count_probability: float
    misalignment_error: float

    def __post_init__(self) -> None:
        check_range("detector_efficiency", self.detector_efficiency, 1e-6, 1.0)
        check_range("dark_count_probability", self.dark_count_probability, 0.0, 0.1)
        check_range("misalignment_error", self.misalignment_error, 0.0, 0.5)


@dataclass(frozen=True)
class MdiLink:
    """Two ends and the station between them; both ends send at ``clock_rate_hz``."""

    alice: MdiArm
    bob: MdiArm
    station: BellStation
    clock_rate_hz: float

    def __post_init__(self) -> None:
        check_range("clock_rate_hz", self.clock_rate_hz, 1.0, 1e12)

    @property
    def counted_photons(self) -> tuple[float, float]:
        """Mean photons of each end's pulse that the station's detectors would count."""
        efficiency = self.station.detector_efficiency
        a, b = (arm.intensity * transmittance(arm.loss_db) * efficiency for arm in (self.alice, self.bob))
        return a, b


@dataclass(frozen=True)
class MdiStatistics:
    """Per pair of pulses with equal bases: chance of a Bell result and its error rate, basis Z and X.

    ``single_yield`` and ``single_x_error`` are those of pairs of single photons.
    """

    z_gain: float
    z_qber: float
    x_gain: float
    x_qber: float
    single_yield: float
    single_x_error: float


@dataclass(frozen=True)
class MdiRecord:
    """Announced results and what both ends had sent, arrays of shape (n,); equal bases alone are drawn.

    ``bob_bits`` are already flipped where the announced result asks for it, so that equal bits are right.
    """

    slots: Slots
    bases: Bits
    alice_bits: Bits
    bob_bits: Bits
    results: Bits


def mdi_statistics(link: MdiLink) -> MdiStatistics:
    """Return gains and error rates in closed form.

    References
    ----------
    X. Ma, M. Razavi, PRA 86, 062319 (2012), arXiv:1204.4856, as remembered; each line is held against
    drawn pulses in the tests.
    """
    a, b = link.counted_photons
    dark, wrong = link.station.dark_count_probability, link.station.misalignment_error
    live, mean = 1 - dark, a + b
    # Intensities are at most 10, so that I0 stays far from overflow.
    twice_x = math.sqrt(a * b)
    faint = math.exp(-mean / 2)
    one_a, one_b = 1 - live * math.exp(-a / 2), 1 - live * math.exp(-b / 2)
    right = 2 * live**2 * faint * one_a * one_b
    random = 2 * dark * live**2 * faint * (float(i0(twice_x)) - live * faint)
    z_gain = right + random
    z_errors = wrong * right + (1 - wrong) * random
    y = live * math.exp(-mean / 4)
    bessel_x, bessel_2x = float(i0(twice_x / 2)), float(i0(twice_x))
    x_gain = 2 * y**2 * (1 + 2 * y**2 - 4 * y * bessel_x + bessel_2x)
    x_errors = x_gain / 2 - 2 * (0.5 - wrong) * y**2 * (bessel_2x - 1)
    single, single_errors = single_photon_pairs(link)
    return MdiStatistics(
        z_gain=z_gain,
        z_qber=z_errors / z_gain if z_gain > 0 else 0.5,
        x_gain=x_gain,
        x_qber=x_errors / x_gain if x_gain > 0 else 0.5,
        single_yield=single,
        single_x_error=single_errors / single if single > 0 else 0.5,
    )


def single_photon_pairs(link: MdiLink) -> tuple[float, float]:
    """Return Y11 and e11 Y11 in basis X: what one photon from each end gives."""
    a, b = (
        end / arm.intensity for end, arm in zip(link.counted_photons, (link.alice, link.bob), strict=True)
    )
    dark = link.station.dark_count_probability
    live = (1 - dark) ** 2
    seen = live * (a * b / 2 + (2 * a + 2 * b - 3 * a * b) * dark + 4 * (1 - a) * (1 - b) * dark**2)
    errors = seen / 2 - (0.5 - link.station.misalignment_error) * live * a * b / 2
    return seen, errors


def mdi_exchange(link: MdiLink, results: int, rng: np.random.Generator) -> MdiRecord:
    """Draw so many Bell results in equal bases, from phases and fields at the four detectors.

    For each the basis, both bits and the phase between the pulses are drawn with the weight that they give
    to a Bell result, then which of the four results it is.

    Raises
    ------
    OutsideModel
        For fewer than 1 result, or a link that has none in 1e15 pairs of pulses.
    """
    if results < 1:
        raise OutsideModel("results", results, "1 or more")
    grid = 2 * np.pi * (np.arange(PHASES) + 0.5) / PHASES
    # Axes: basis, Alice's bit, Bob's bit, phase; each combination is as likely as another.
    weights = np.array(
        [
            [[result_weights(link, basis, a, b, grid).sum(0) for b in (0, 1)] for a in (0, 1)]
            for basis in (0, 1)
        ]
    )
    gain = float(weights.mean())
    if not gain > 1e-15:
        raise OutsideModel("gain", gain, "above 1e-15 Bell results per pair of pulses")
    share = weights.mean(axis=3).ravel() / weights.mean(axis=3).sum()
    kinds = rng.choice(8, size=results, p=share)
    bases, alice, bob = (kinds >> 2).astype(np.uint8), (kinds >> 1 & 1).astype(np.uint8), kinds & 1
    phases, patterns = np.empty(results), np.empty(results, dtype=np.uint8)
    for kind in range(8):
        chosen = np.flatnonzero(kinds == kind)
        figures = (link, kind >> 2, kind >> 1 & 1, kind & 1)
        phases[chosen] = drawn_phases(*figures, len(chosen), grid, rng)
        each = np.cumsum(result_weights(*figures, phases[chosen]), axis=0)
        uniform = rng.random(len(chosen)) * each[-1]
        patterns[chosen] = (uniform >= each[:-1]).sum(axis=0)
    return MdiRecord(
        slots=draw_slots(gain, 0, results, rng),
        bases=bases,
        alice_bits=alice,
        bob_bits=corrected(bob.astype(np.uint8), bases, patterns, link, rng),
        results=(patterns >= 2).astype(np.uint8),
    )


def corrected(bob: Bits, bases: Bits, patterns: Bits, link: MdiLink, rng: np.random.Generator) -> Bits:
    """Return Bob's bits after the announcement: flipped for psi- in both bases, for psi+ in Z alone."""
    psi_minus = patterns >= 2
    flips = (bases == Z_BASIS) | psi_minus
    turned = rng.random(len(bob)) < link.station.misalignment_error
    right: Bits = (bob ^ flips ^ turned).astype(np.uint8)
    return right


def drawn_phases(
    link: MdiLink, basis: int, alice: int, bob: int, count: int, grid: Floats, rng: np.random.Generator
) -> Floats:
    """Return phases with the weight of all Bell results, by rejection."""
    highest = BOUND_SLACK * float(result_weights(link, basis, alice, bob, grid).sum(axis=0).max())
    phases = np.empty(count)
    open_places = np.arange(count)
    while len(open_places):
        tried = rng.uniform(0, 2 * np.pi, len(open_places))
        weight = result_weights(link, basis, alice, bob, tried).sum(axis=0)
        taken = rng.random(len(tried)) * highest < weight
        phases[open_places[taken]] = tried[taken]
        open_places = open_places[~taken]
    return phases


def result_weights(link: MdiLink, basis: int, alice: int, bob: int, phases: Floats) -> Floats:
    """Return the chances of the four Bell results for given phases, shape (4, n).

    psi+ in the first and in the second output, psi- in the two ways. Fields: each end's amplitude in H and
    V, added and subtracted by the beam splitter.
    """
    a, b = link.counted_photons
    turn = np.exp(1j * phases)
    h = math.sqrt(a) * component(basis, alice, 0), math.sqrt(b) * component(basis, bob, 0) * turn
    v = math.sqrt(a) * component(basis, alice, 1), math.sqrt(b) * component(basis, bob, 1) * turn
    photons = [np.abs(h[0] + h[1]) ** 2 / 2, np.abs(v[0] + v[1]) ** 2 / 2]
    photons += [np.abs(h[0] - h[1]) ** 2 / 2, np.abs(v[0] - v[1]) ** 2 / 2]
    silent = [(1 - link.station.dark_count_probability) * np.exp(-each) for each in photons]
    fires = [-np.expm1(np.log1p(-link.station.dark_count_probability) - each) for each in photons]
    first_h, first_v, second_h, second_v = range(4)
    pairs = ((first_h, first_v), (second_h, second_v), (first_h, second_v), (second_h, first_v))
    return np.array(
        [
            fires[i] * fires[j] * np.prod([silent[k] for k in range(4) if k not in (i, j)], axis=0)
            for i, j in pairs
        ]
    )


def component(basis: int, bit: int, polarisation: int) -> float:
    """Return the amplitude in H (0) or V (1) of a pulse: H or V in basis Z, their sum or difference in X."""
    if basis == X_BASIS:
        return math.sqrt(0.5) * (-1.0 if bit and polarisation else 1.0)
    return float(bit == polarisation)
