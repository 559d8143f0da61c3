"""BBM92 with a continuous pump: pairs at random times, found again as coincidences in a window.

There are no pulses. What limits key is the window: too narrow it loses true pairs to timing jitter, too
wide it collects accidentals of photons that never belonged together. More brightness brings more of both;
:func:`best_brightness_and_window` finds the pair of settings with the most key.

>>> end = TimedReceiver(loss_db=10.0, detector_efficiency=0.8, dark_count_rate_hz=100.0)
>>> link = TimedPairLink(1e7, end, end, window_s=1e-10, timing_fwhm_s=6e-11, polarisation_error=0.01)
>>> statistics = cw_statistics(link)
>>> round(statistics.coincidence_rate_hz), round(statistics.qber, 3)
(60882, 0.011)

Left out: jitter that is not Gaussian, drift of the clocks, the spectrum of the pairs. Read
:mod:`openqci.proofs.entanglement` next.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import erf

from openqci.core.detections import Bits
from openqci.core.errors import OutsideModel
from openqci.quantum.elements import Floats, check_range, transmittance

Indices = NDArray[np.int64]

FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))


@dataclass(frozen=True)
class TimedReceiver:
    """One arm and its end, with the clicks that no pair made.

    Parameters
    ----------
    loss_db : float
        Everything between source and detectors, 0 to 200 dB.
    detector_efficiency : float
        Above 0 and at most 1.
    dark_count_rate_hz : float
        Of **all** detectors of this end together, with background light.
    dead_time_s : float
        Common to all detectors of this end, nonparalysable.
    """

    loss_db: float
    detector_efficiency: float
    dark_count_rate_hz: float
    dead_time_s: float = 0.0

    def __post_init__(self) -> None:
        check_range("loss_db", self.loss_db, 0.0, 200.0)
        check_range("detector_efficiency", self.detector_efficiency, 1e-6, 1.0)
        check_range("dark_count_rate_hz", self.dark_count_rate_hz, 0.0, 1e10)
        check_range("dead_time_s", self.dead_time_s, 0.0, 1.0)

    @property
    def efficiency(self) -> float:
        """Chance of a photon that leaves the source to be counted by a live detector."""
        return transmittance(self.loss_db) * self.detector_efficiency


@dataclass(frozen=True)
class TimedPairLink:
    """A continuously pumped source between two ends.

    Parameters
    ----------
    brightness_hz : float
        Pairs per second that leave the source, 0 to 1e12.
    alice, bob : TimedReceiver
    window_s : float
        Full width: two clicks no more than half of it apart are a coincidence.
    timing_fwhm_s : float
        Of the difference of the two times of a true pair: jitter of both ends and dispersion together.
    polarisation_error : float
        Of true pairs, 0 to 0.5; ``(1 - V)/2`` of a visibility V.
    """

    brightness_hz: float
    alice: TimedReceiver
    bob: TimedReceiver
    window_s: float
    timing_fwhm_s: float
    polarisation_error: float

    def __post_init__(self) -> None:
        check_range("brightness_hz", self.brightness_hz, 0.0, 1e12)
        check_range("window_s", self.window_s, 1e-13, 1e-3)
        check_range("timing_fwhm_s", self.timing_fwhm_s, 1e-14, 1e-3)
        check_range("polarisation_error", self.polarisation_error, 0.0, 0.5)


@dataclass(frozen=True)
class TimedStatistics:
    """What a link does on average; rates per second, error rate with equal bases, arrays or numbers."""

    singles_a_hz: float
    singles_b_hz: float
    true_rate_hz: float
    accidental_rate_hz: float
    coincidence_rate_hz: float
    qber: float


@dataclass(frozen=True)
class TimedRecord:
    """Both ends' record of the coincidences, arrays of shape (n,); bases 0 and 1, chosen at random."""

    alice_times_s: Floats
    bob_times_s: Floats
    alice_bases: Bits
    alice_bits: Bits
    bob_bases: Bits
    bob_bits: Bits
    duration_s: float


def cw_rates(
    link: TimedPairLink, brightness_hz: ArrayLike, window_s: ArrayLike
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return singles of both ends, true and accidental coincidences per second; arguments broadcast.

    True pairs ``B eta_A eta_B`` are captured as ``erf(sqrt(ln 2) w/t)``; accidentals come at
    ``(1 - exp(-S_A w))(1 - exp(-S_B w))/w``. Dead time takes its part of all clicks of an end.

    References
    ----------
    S. P. Neumann et al., PRA 104, 022406 (2021), arXiv:2103.14639.
    """
    return coincidence_rates(
        brightness_hz,
        (link.alice.efficiency, link.bob.efficiency),
        (link.alice.dark_count_rate_hz, link.bob.dark_count_rate_hz),
        (link.alice.dead_time_s, link.bob.dead_time_s),
        window_s,
        link.timing_fwhm_s,
    )


def coincidence_rates(
    brightness_hz: ArrayLike,
    efficiencies: tuple[ArrayLike, ArrayLike],
    noise_hz: tuple[ArrayLike, ArrayLike],
    dead_times_s: tuple[float, float],
    window_s: ArrayLike,
    timing_fwhm_s: float,
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the same for ends whose losses and light change, as on the way down from a satellite.

    Parameters
    ----------
    brightness_hz, window_s : array_like
    efficiencies, noise_hz : pairs of array_like
        Of both ends: chance of a photon to be counted by a live detector, and clicks that no pair made. All
        arrays broadcast.
    dead_times_s : pair of float
    timing_fwhm_s : float
    """
    brightness, window = np.asarray(brightness_hz, dtype=np.float64), np.asarray(window_s, dtype=np.float64)
    seen = [np.asarray(each, dtype=np.float64) for each in efficiencies]
    noises = [np.asarray(each, dtype=np.float64) for each in noise_hz]
    offered = [brightness * each + noise for each, noise in zip(seen, noises, strict=True)]
    live = [1 / (1 + s * dead_time_s) for s, dead_time_s in zip(offered, dead_times_s, strict=True)]
    singles_a, singles_b = offered[0] * live[0], offered[1] * live[1]
    both = brightness * seen[0] * seen[1] * live[0] * live[1]
    true = both * erf(math.sqrt(math.log(2)) * window / timing_fwhm_s)
    accidental = np.expm1(-singles_a * window) * np.expm1(-singles_b * window) / window
    return np.asarray(singles_a), np.asarray(singles_b), np.asarray(true), np.asarray(accidental)


def cw_statistics(link: TimedPairLink) -> TimedStatistics:
    """Return what a link does on average, in closed form."""
    singles_a, singles_b, true, accidental = (
        float(each) for each in cw_rates(link, link.brightness_hz, link.window_s)
    )
    total = true + accidental
    errors = true * link.polarisation_error + accidental / 2
    return TimedStatistics(
        singles_a, singles_b, true, accidental, total, errors / total if total > 0 else 0.5
    )


def best_brightness_and_window(
    link: TimedPairLink, error_correction_efficiency: float, brightness_hz_max: float = 1e11
) -> TimedPairLink:
    """Return the link with the brightness and the window that give the most asymptotic key.

    Both together: a grid of all pairs, and three times a finer one around the best.
    """
    check_range("error_correction_efficiency", error_correction_efficiency, 1.0, 3.0)
    check_range("brightness_hz_max", brightness_hz_max, 1e3, 1e12)
    brightness = np.geomspace(1e2, brightness_hz_max, 64)
    window = np.geomspace(link.timing_fwhm_s / 4, link.timing_fwhm_s * 4, 48)
    for _ in range(4):
        _, _, true, accidental = cw_rates(link, brightness[:, None], window)
        total = true + accidental
        error = (true * link.polarisation_error + accidental / 2) / total
        key = total * (1 - (1 + error_correction_efficiency) * entropy_bits(error))
        row, column = np.unravel_index(int(np.argmax(key)), key.shape)
        best = float(brightness[row]), float(window[column])
        brightness, window = finer(brightness, int(row)), finer(window, int(column))
    return replace(link, brightness_hz=best[0], window_s=best[1])


def finer(grid: Floats, best: int) -> Floats:
    return np.geomspace(grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)], len(grid))


def entropy_bits(error: Floats) -> Floats:
    """Return h(E) in bits for E above 0 and below 1, elementwise."""
    return np.asarray(-(error * np.log2(error) + (1 - error) * np.log2(1 - error)))


def timed_exchange(link: TimedPairLink, coincidences: int, rng: np.random.Generator) -> TimedRecord:
    """Draw so many coincidences from time tags of both ends.

    Only what is detected is drawn: pairs seen at both ends, photons and dark counts seen at one. Each click
    has its own time with jitter, dead time removes what comes too early, and clicks within the window are
    paired, each click once.

    Raises
    ------
    OutsideModel
        For fewer than 1 coincidence, or a link that has none.
    """
    if coincidences < 1:
        raise OutsideModel("coincidences", coincidences, "1 or more")
    rate_hz = cw_statistics(link).coincidence_rate_hz
    if not rate_hz > 1e-9:
        raise OutsideModel("coincidence_rate_hz", rate_hz, "above 1e-9")
    duration_s = (coincidences + 10 * math.sqrt(coincidences) + 20) / rate_hz
    while True:
        record = tagged(link, duration_s, rng)
        if len(record.alice_bits) >= coincidences:
            return shortened(record, coincidences)
        duration_s *= 1.5


def tagged(link: TimedPairLink, duration_s: float, rng: np.random.Generator) -> TimedRecord:
    """Return the coincidences of so many seconds."""
    a, b = link.alice.efficiency, link.bob.efficiency
    pairs = rng.poisson(link.brightness_hz * a * b * duration_s)
    alone = [
        rng.poisson((link.brightness_hz * one * (1 - other) + end.dark_count_rate_hz) * duration_s)
        for one, other, end in ((a, b, link.alice), (b, a, link.bob))
    ]
    together_s = rng.uniform(0, duration_s, pairs)
    # Jitter of the difference is shared by both ends.
    spread_s = link.timing_fwhm_s / FWHM_PER_SIGMA / math.sqrt(2)
    bits = rng.integers(0, 2, (2, pairs), dtype=np.uint8)  # what a pair would give in either basis
    ends = []
    for count, end in zip(alone, (link.alice, link.bob), strict=True):
        times_s = np.concatenate(
            [together_s + rng.normal(scale=spread_s, size=pairs), rng.uniform(0, duration_s, count)]
        )
        pair = np.concatenate([np.arange(pairs), np.full(count, -1)])
        order = np.argsort(times_s, kind="stable")
        times_s, pair = times_s[order], pair[order]
        kept = after_dead_time(times_s, end.dead_time_s)
        ends.append((times_s[kept], pair[kept]))
    (alice_s, alice_pair), (bob_s, bob_pair) = ends
    first, second = matches(alice_s, bob_s, link.window_s)
    alice_bases, bob_bases = (rng.integers(0, 2, len(first), dtype=np.uint8) for _ in range(2))
    alice_bits = bits_of(bits, alice_pair[first], alice_bases, rng)
    bob_bits = bits_of(bits, bob_pair[second], bob_bases, rng)
    wrong = (bob_pair[second] >= 0) & (rng.random(len(first)) < link.polarisation_error)
    return TimedRecord(
        alice_s[first], bob_s[second], alice_bases, alice_bits, bob_bases, bob_bits ^ wrong, duration_s
    )


def bits_of(bits: Bits, pair: Indices, bases: Bits, rng: np.random.Generator) -> Bits:
    """Return the bit of each click: the pair's in the basis that was measured, or chance for a lone one."""
    alone = rng.integers(0, 2, len(pair), dtype=np.uint8)
    if not bits.shape[1]:
        return alone
    return np.where(pair >= 0, bits[bases, np.maximum(pair, 0).astype(np.int64)], alone).astype(np.uint8)


def after_dead_time(times_s: Floats, dead_time_s: float) -> Indices:
    """Return the indices of the clicks that find a live detector, times sorted."""
    if not dead_time_s > 0 or len(times_s) < 2:
        return np.arange(len(times_s))
    kept, last_s = [], -math.inf
    # One pass: whether a click is seen depends on the last one that was, not on the last one.
    for index, time_s in enumerate(times_s.tolist()):
        if time_s - last_s >= dead_time_s:
            kept.append(index)
            last_s = time_s
    return np.array(kept, dtype=np.int64)


def matches(alice_s: Floats, bob_s: Floats, window_s: float) -> tuple[Indices, Indices]:
    """Return the indices of clicks that are coincidences: nearest neighbours of each other in the window."""
    if not len(alice_s) or not len(bob_s):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    nearest = nearest_index(alice_s, bob_s)
    back = nearest_index(bob_s, alice_s)
    index = np.arange(len(alice_s))
    mutual = back[nearest] == index
    close = np.abs(alice_s - bob_s[nearest]) <= window_s / 2
    first = index[mutual & close]
    return first, nearest[first]


def nearest_index(times_s: Floats, among_s: Floats) -> Indices:
    """Return for each time the index of the nearest of sorted times."""
    after = np.clip(np.searchsorted(among_s, times_s), 1, max(1, len(among_s) - 1))
    if len(among_s) == 1:
        return np.zeros(len(times_s), dtype=np.int64)
    before = after - 1
    return np.where(times_s - among_s[before] <= among_s[after] - times_s, before, after)


def shortened(record: TimedRecord, coincidences: int) -> TimedRecord:
    """Return the first so many coincidences, and the time until the last of them."""
    return TimedRecord(
        record.alice_times_s[:coincidences],
        record.bob_times_s[:coincidences],
        record.alice_bases[:coincidences],
        record.alice_bits[:coincidences],
        record.bob_bases[:coincidences],
        record.bob_bits[:coincidences],
        float(record.alice_times_s[coincidences - 1]),
    )
