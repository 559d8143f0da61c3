"""BBM92 with a source that is pumped in pulses: entangled photon pairs to both ends.

A pump pulse makes pairs in two orthogonal modes, each with the statistics of thermal light, so that
``P(n) = (n + 1) L^n / (1 + L)^(n + 2)`` pairs come with ``L`` per mode. Alice and Bob each hold two
threshold detectors; a coincidence is a pulse in which both ends saw something. A double click gets a
random bit.

>>> import numpy as np
>>> end = PairReceiver(loss_db=5.0, detector_efficiency=0.6, dark_count_probability=1e-6)
>>> link = PairLink(PulsedPairSource(1e8, mean_pairs=0.05), end, end, misalignment_error=0.015)
>>> statistics = bbm92_statistics(link)
>>> round(statistics.gain * 1e3, 2), round(statistics.qber, 4)
(1.88, 0.0337)
>>> pair_exchange(link, 1000, np.random.default_rng(2)).alice_bits.shape
(1000,)

Left out: dead time, afterpulses and timing (see :mod:`openqci.quantum.bbm92_cw` for these), multi-mode
sources, whose pairs are Poissonian. Read :mod:`openqci.proofs.entanglement` next.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from openqci.core.detections import Bits, Slots
from openqci.core.errors import OutsideModel
from openqci.quantum.elements import Floats, check_range, transmittance
from openqci.quantum.exchange import draw_slots

TAIL = 1e-16
"""Pulses with so many pairs that all of them together are rarer than this are left out of drawings."""

PAIRS_MAX = 2000

GAIN_MIN = 1e-15


@dataclass(frozen=True)
class PulsedPairSource:
    """Pump pulses per second, and the mean number of pairs of one, both modes together (2 L)."""

    clock_rate_hz: float
    mean_pairs: float

    def __post_init__(self) -> None:
        check_range("clock_rate_hz", self.clock_rate_hz, 1.0, 1e12)
        check_range("mean_pairs", self.mean_pairs, 0.0, 10.0)


@dataclass(frozen=True)
class PairReceiver:
    """One arm and its end: loss from the source to the detectors, and two detectors.

    Parameters
    ----------
    loss_db : float
        Everything between source and detectors, 0 to 200 dB.
    detector_efficiency : float
        Of one detector, above 0 and at most 1.
    dark_count_probability : float
        Per pulse and detector, 0 to 0.1.
    """

    loss_db: float
    detector_efficiency: float
    dark_count_probability: float

    def __post_init__(self) -> None:
        check_range("loss_db", self.loss_db, 0.0, 200.0)
        check_range("detector_efficiency", self.detector_efficiency, 1e-6, 1.0)
        check_range("dark_count_probability", self.dark_count_probability, 0.0, 0.1)

    @property
    def efficiency(self) -> float:
        """Chance of a photon that leaves the source to be counted."""
        return transmittance(self.loss_db) * self.detector_efficiency

    @property
    def background(self) -> float:
        """Y0: chance of the two detectors to see something without light."""
        return 1 - (1 - self.dark_count_probability) ** 2


@dataclass(frozen=True)
class PairLink:
    """A source of pairs between two ends; ``misalignment_error``: how often a turn swaps Bob's detectors."""

    source: PulsedPairSource
    alice: PairReceiver
    bob: PairReceiver
    misalignment_error: float

    def __post_init__(self) -> None:
        check_range("misalignment_error", self.misalignment_error, 0.0, 0.5)


@dataclass(frozen=True)
class PairStatistics:
    """Per pump pulse: chance of a coincidence, error rate with equal bases, coincidences per second."""

    gain: float
    qber: float
    coincidence_rate_hz: float


@dataclass(frozen=True)
class PairRecord:
    """Both ends' record of the coincidences, each array of shape (n,); bases 0 and 1, chosen at random."""

    slots: Slots
    alice_bases: Bits
    alice_bits: Bits
    bob_bases: Bits
    bob_bits: Bits
    double_clicks: int


def pair_gain(
    pairs_per_mode: ArrayLike,
    efficiency_a: ArrayLike,
    efficiency_b: ArrayLike,
    background_a: ArrayLike,
    background_b: ArrayLike,
) -> Floats:
    """Return Q, the chance of a coincidence per pump pulse; all arguments broadcast.

    References
    ----------
    X. Ma, C.-H. F. Fung, H.-K. Lo, PRA 76, 012307 (2007), quant-ph/0703122.
    """
    l, a, b = np.asarray(pairs_per_mode), np.asarray(efficiency_a), np.asarray(efficiency_b)  # noqa: E741
    y_a, y_b = np.asarray(background_a), np.asarray(background_b)
    seen_a, seen_b = 2 * a * l + (a * l) ** 2, 2 * b * l + (b * l) ** 2
    silent_a, silent_b = (1 - y_a) / (1 + seen_a), (1 - y_b) / (1 + seen_b)
    clicks_a, clicks_b = (seen_a + y_a) / (1 + seen_a), (seen_b + y_b) / (1 + seen_b)
    # Q = 1 - silent_a - silent_b + silent_both, with independent clicks apart: nothing cancels at high loss.
    # (1 + a l)(1 + b l) = (1 + s l) + a b l (1 + l), s = a + b - a b.
    either, shared = 1 + (a + b - a * b) * l, a * b * l * (1 + l)
    return np.asarray(clicks_a * clicks_b + silent_a * silent_b * shared * (2 * either + shared) / either**2)


def pair_error_gain(
    gain: ArrayLike,
    pairs_per_mode: ArrayLike,
    efficiency_a: ArrayLike,
    efficiency_b: ArrayLike,
    background_a: ArrayLike,
    background_b: ArrayLike,
    misalignment_error: ArrayLike,
) -> Floats:
    """Return E Q, the chance of a coincidence with unequal bits in equal bases; all arguments broadcast.

    The correlation ``2 a b L (1 + L) / [(1 + a L)(1 + b L)(1 + (a + b - a b) L)]`` has its last bracket not
    squared, as an enumeration of the four detectors shows. Dark counts enter it by ``1 - Y0`` of one
    detector at each end, which the published form leaves out.
    """
    l, a, b = np.asarray(pairs_per_mode), np.asarray(efficiency_a), np.asarray(efficiency_b)  # noqa: E741
    quiet = np.sqrt((1 - np.asarray(background_a)) * (1 - np.asarray(background_b)))
    correlated = 2 * a * b * l * (1 + l) / ((1 + a * l) * (1 + b * l) * (1 + (a + b - a * b) * l))
    return np.asarray(np.asarray(gain) / 2 - (0.5 - np.asarray(misalignment_error)) * quiet * correlated)


def bbm92_statistics(link: PairLink) -> PairStatistics:
    """Return what a link does on average, in closed form."""
    figures = (
        link.source.mean_pairs / 2,
        link.alice.efficiency,
        link.bob.efficiency,
        link.alice.background,
        link.bob.background,
    )
    gain = float(pair_gain(*figures))
    errors = float(pair_error_gain(gain, *figures, link.misalignment_error))
    return PairStatistics(
        gain=gain,
        qber=min(0.5, max(0.0, errors / gain)) if gain > GAIN_MIN else 0.5,
        coincidence_rate_hz=gain * link.source.clock_rate_hz,
    )


def pair_exchange(link: PairLink, coincidences: int, rng: np.random.Generator) -> PairRecord:
    """Draw so many coincidences, pair by pair, without drawing the pulses in between.

    The number of pairs of a pulse that gives a coincidence has the weights ``P(n) Y_n``; the pairs fall on
    the two modes with all divisions equally likely; then every detector clicks or not by what it got, on
    condition that both ends saw something.

    Raises
    ------
    OutsideModel
        For fewer than 1 coincidence, or a link that has none in 1e15 pulses.
    """
    if coincidences < 1:
        raise OutsideModel("coincidences", coincidences, "1 or more")
    weights = coincidence_weights(link)
    gain = float(weights.sum())
    if not gain > GAIN_MIN:
        raise OutsideModel("gain", gain, f"above {GAIN_MIN:g} coincidences per pulse")
    pairs = np.searchsorted(np.cumsum(weights / gain), rng.random(coincidences), side="right")
    pairs = np.minimum(pairs, len(weights) - 1)
    first = rng.integers(0, pairs, endpoint=True)
    second = pairs - first
    turned = rng.random(coincidences) < link.misalignment_error
    equal_bases = rng.integers(0, 2, coincidences, dtype=np.uint8)
    alice_bases = rng.integers(0, 2, coincidences, dtype=np.uint8)
    bob_bases = alice_bases ^ equal_bases
    # In unequal bases each photon at Bob's goes to either detector by chance.
    spread = rng.binomial(pairs, 0.5)
    at_bob = np.where(equal_bases == 1, spread, np.where(turned, second, first))
    alice_bits, alice_doubles = clicked_bits(first, second, link.alice, rng)
    bob_bits, bob_doubles = clicked_bits(at_bob, pairs - at_bob, link.bob, rng)
    return PairRecord(
        slots=draw_slots(gain, 0, coincidences, rng),
        alice_bases=alice_bases,
        alice_bits=alice_bits,
        bob_bases=bob_bases,
        bob_bits=bob_bits,
        double_clicks=alice_doubles + bob_doubles,
    )


def coincidence_weights(link: PairLink) -> Floats:
    """Return ``P(n) Y_n`` for n pairs from zero on, shape (n_max,)."""
    pairs_per_mode = link.source.mean_pairs / 2
    n = np.arange(PAIRS_MAX)
    ratio = pairs_per_mode / (1 + pairs_per_mode)
    chances = (n + 1) * ratio**n / (1 + pairs_per_mode) ** 2
    n = n[: max(2, int(np.searchsorted(-chances, -TAIL)))] if pairs_per_mode < 1 else n
    seen = [
        1 - (1 - end.background) * np.exp(n * np.log1p(-min(end.efficiency, 1 - 1e-16)))
        for end in (link.alice, link.bob)
    ]
    return np.asarray(chances[: len(n)] * seen[0] * seen[1])


def clicked_bits(
    photons_0: Slots, photons_1: Slots, end: PairReceiver, rng: np.random.Generator
) -> tuple[Bits, int]:
    """Return the bit of each pulse on condition that a detector clicked, and how many were double clicks."""
    quiet = np.log1p(-end.dark_count_probability)
    lost = np.log1p(-min(end.efficiency, 1 - 1e-16))
    fires_0, fires_1 = (-np.expm1(quiet + lost * photons) for photons in (photons_0, photons_1))
    only_0, only_1, both = fires_0 * (1 - fires_1), fires_1 * (1 - fires_0), fires_0 * fires_1
    chance = rng.random(len(fires_0)) * (only_0 + only_1 + both)
    doubles = chance >= only_0 + only_1
    bits = (chance >= only_0).astype(np.uint8)
    random_bits = rng.integers(0, 2, len(bits), dtype=np.uint8)
    return np.where(doubles, random_bits, bits), int(np.count_nonzero(doubles))
