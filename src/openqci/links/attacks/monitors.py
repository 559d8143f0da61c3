"""What the honest parties log of a block, and the tests that raise alarms from it.

A test compares a count with what the link gave when it was commissioned. Tests of counts are exact in their
tails (binomial; for CUSUM a bound that holds for every distribution); the two chi-square tests are asymptotic
and used only above ``CHI_SQUARE_COUNTS_MIN`` detections. A *drift allowance* widens the honest figure before
the test, so that a line that loses a tenth more light on a warm day is no alarm. The false alarms of all
tests of a block add up to no more than ``false_alarms_per_day`` grants it; without drift fewer come.

What it is not: a proof. A monitor that stays silent says nothing about Eve; the key rests on the proof, and
monitors guard what the proof assumes of the devices. Instruments (tap, watchdog, current) are taken as
honest themselves. Read next :mod:`openqci.links.attacks.assessment`.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, chi2, norm, poisson

from openqci.core.detections import Bits, Slots
from openqci.core.errors import OutsideModel
from openqci.links.attacks.model import Observable
from openqci.quantum import Exchange, QuantumLink
from openqci.quantum.elements import Floats, check_range

LAGS = 50
"""Bit autocorrelation is logged at lags 1 to 50."""

REDUCED_EFFICIENCY, REDUCED_SHARE = 0.5, 0.01
"""Random-efficiency test: in one gate of a hundred, at random, the detectors have half their efficiency."""

SECONDS_PER_DAY = 86_400.0

CHI_SQUARE_COUNTS_MIN = 10_000
"""Detections from which a chi-square is trusted at tails of 1e-6: the Poisson tail at five sigma is then
within a fifth of the normal one, and half of the test's share of false alarms is kept back for that."""


@dataclass(frozen=True)
class Instruments:
    """Figures that devices measure beside the clicks. The defaults are those of an honest link.

    Parameters
    ----------
    source_power_ratio : float
        Source tap over its calibrated value.
    source_autocorrelation : float
        Correlation of the tap's readings of neighbouring pulses.
    injected_power_w : float
        Light that the watchdog at Alice's output sees coming in.
    detector_current_a : float
        Mean bias current of the detectors.
    efficiency_scaling : float
        Click probability at reduced over that at full efficiency.
    autocorrelation_power : float
        Sum over lags 1 to 50 of the squared autocorrelation of Bob's bits.
    dead_clicks : float
        Fraction of accepted clicks that came while any detector was dead.
    arrival_shift : float
        Mean arrival time of ones less that of zeros, in standard deviations of the arrival time.
    """

    source_power_ratio: float = 1.0
    source_autocorrelation: float = 0.0
    injected_power_w: float = 0.0
    detector_current_a: float = 1e-9
    efficiency_scaling: float = REDUCED_EFFICIENCY
    autocorrelation_power: float = 0.0
    dead_clicks: float = 0.0
    arrival_shift: float = 0.0


@dataclass(frozen=True)
class Readings:
    """The log of one block: counts (expected ones are fractions) and instruments.

    Attributes
    ----------
    live_pulses : float
        Pulses that met a live receiver.
    seen : ndarray, shape (K,)
        Detections per intensity, all bases.
    sifted, errors : ndarray, shape (2, K)
        Per basis (0 = Z, 1 = X) and intensity.
    double_clicks, ones : float
        Double clicks; detections that gave bit 1.
    ljung_box : float
        Portmanteau statistic of Bob's bits over lags 1 to 50; 50 on average without correlation.
    """

    live_pulses: float
    seen: Floats
    sifted: Floats
    errors: Floats
    double_clicks: float
    ones: float
    ljung_box: float
    instruments: Instruments

    @property
    def detections(self) -> float:
        return float(self.seen.sum())


@dataclass(frozen=True)
class Watch:
    """How the monitors are set.

    Parameters
    ----------
    false_alarms_per_day : float
        Of all monitors of one link together, at most; above 0, at most 1000.
    gain_drift, double_click_drift, efficiency_drift : float
        Relative drift that is no alarm, 0 to below 1.
    yield_drift : float
        Relative spread (one sigma) of the gains of different intensities against each other, above 0.
    qber_drift, bias_drift : float
        Absolute drift of the error rate and of the share of ones.
    tap_tolerance : float
        Relative deviation of the source tap that is an alarm.
    tap_samples : float
        Pulses per block whose power the tap reads one by one.
    watchdog_threshold_w : float
        Injected light that is an alarm.
    current_noise : float
        Relative standard deviation of the current reading.
    """

    false_alarms_per_day: float = 0.01
    gain_drift: float = 0.1
    double_click_drift: float = 0.25
    efficiency_drift: float = 0.05
    yield_drift: float = 0.01
    qber_drift: float = 0.01
    bias_drift: float = 0.01
    tap_tolerance: float = 0.05
    tap_samples: float = 1e6
    watchdog_threshold_w: float = 1e-3
    current_noise: float = 0.02

    def __post_init__(self) -> None:
        check_range("false_alarms_per_day", self.false_alarms_per_day, 1e-12, 1e3)
        for name in ("gain_drift", "double_click_drift", "efficiency_drift"):
            check_range(name, getattr(self, name), 0.0, 0.99)
        check_range("yield_drift", self.yield_drift, 0.0, 0.99)
        check_range("qber_drift", self.qber_drift, 0.0, 0.5)
        check_range("bias_drift", self.bias_drift, 0.0, 0.5)
        check_range("tap_tolerance", self.tap_tolerance, 1e-6, 1.0)
        check_range("tap_samples", self.tap_samples, 10.0, 1e15)
        check_range("watchdog_threshold_w", self.watchdog_threshold_w, 1e-15, 1e3)
        check_range("current_noise", self.current_noise, 1e-6, 1.0)

    def without_drift(self) -> "Watch":
        """Return the same monitors with no allowance: what the false-alarm rate is checked against."""
        return replace(
            self,
            gain_drift=0.0,
            double_click_drift=0.0,
            efficiency_drift=0.0,
            yield_drift=0.0,
            qber_drift=0.0,
            bias_drift=0.0,
        )

    def block_false_alarms(self, duration_s: float) -> float:
        """Return the false-alarm probability that a block of this length may have, at most one half."""
        return min(0.5, self.false_alarms_per_day * duration_s / SECONDS_PER_DAY)


def watched(
    honest: Readings, seen: Readings, probabilities: Floats, watch: Watch, duration_s: float
) -> tuple[tuple[Observable, ...], float]:
    """Return all observables of a block and an upper bound on its false-alarm probability.

    Parameters
    ----------
    honest : Readings
        Expected on the commissioned link; only its rates are used, so its length does not matter.
    seen : Readings
        Expected under an attack, or counted in a real block.
    probabilities : ndarray, shape (K,)
        How often each intensity is sent.
    watch : Watch
    duration_s : float
        Length of the block; with ``false_alarms_per_day`` it says how rare an alarm has to be.

    Notes
    -----
    The budget is split equally among all tests that can raise a false alarm (union bound). The watchdog and
    the dead-time check are silent on an honest link by construction and take no part of it.
    """
    intensities = len(probabilities)
    tests = intensities + 2 * intensities + 1 + 2 + 3 + 1 + 1 + 1
    alpha = watch.block_false_alarms(duration_s) / tests
    found = [
        *gain_observables(honest, seen, probabilities, watch, alpha),
        *error_observables(honest, seen, watch, alpha),
        yield_observable(honest, seen, watch, alpha),
        double_click_observable(honest, seen, watch, alpha),
        bias_observable(honest, seen, watch, alpha),
        *instrument_observables(honest, seen, watch, alpha),
    ]
    return tuple(found), alpha * tests


def gain_observables(
    honest: Readings, seen: Readings, probabilities: Floats, watch: Watch, alpha: float
) -> list[Observable]:
    """Return the click probability per pulse of each intensity, tested on both sides."""
    found = []
    for k, probability in enumerate(probabilities):
        trials = seen.live_pulses * float(probability)
        expected = share(float(honest.seen[k]), honest.live_pulses * float(probability))
        limits = expected * (1 - watch.gain_drift), min(1.0, expected * (1 + watch.gain_drift))
        found.append(two_sided(f"gain {k}", expected, float(seen.seen[k]), trials, limits, alpha))
    return found


def error_observables(honest: Readings, seen: Readings, watch: Watch, alpha: float) -> list[Observable]:
    """Return the error rate per basis and intensity; only a rise is an alarm."""
    found = []
    for basis, name in enumerate("ZX"):
        for k in range(len(seen.seen)):
            trials = float(seen.sifted[basis, k])
            expected = share(float(honest.errors[basis, k]), float(honest.sifted[basis, k]))
            limit = min(1.0, expected + watch.qber_drift)
            found.append(
                upper(f"error rate {name}{k}", expected, float(seen.errors[basis, k]), trials, limit, alpha)
            )
    return found


def yield_observable(honest: Readings, seen: Readings, watch: Watch, alpha: float) -> Observable:
    """Return the chi-square of the gains of intensities against one common change of loss.

    Intensities with fewer than ``CHI_SQUARE_COUNTS_MIN`` detections, expected or seen, are left out; their
    gains are tested exactly by themselves.
    """
    expected = honest.seen * seen.live_pulses / honest.live_pulses
    enough = np.maximum(expected, seen.seen) >= CHI_SQUARE_COUNTS_MIN
    statistic = yields_chi_square(
        np.where(enough, seen.seen, 0.0), np.where(enough, expected, 0.0), watch.yield_drift
    )
    freedom = max(1, int(np.count_nonzero(enough)) - 1)
    threshold = float(chi2.isf(alpha / 2, freedom))
    return Observable("yield chi-square", "1", float(freedom), statistic, threshold, statistic > threshold)


def double_click_observable(honest: Readings, seen: Readings, watch: Watch, alpha: float) -> Observable:
    """Return double clicks per detection, tested on both sides: blinded detectors have none."""
    expected = share(honest.double_clicks, honest.detections)
    drift = watch.double_click_drift
    limits = expected * (1 - drift), min(1.0, expected * (1 + drift))
    return two_sided("double clicks", expected, seen.double_clicks, seen.detections, limits, alpha)


def bias_observable(honest: Readings, seen: Readings, watch: Watch, alpha: float) -> Observable:
    """Return the share of ones among Bob's bits: the two detectors against each other."""
    expected = share(honest.ones, honest.detections)
    limits = max(0.0, expected - watch.bias_drift), min(1.0, expected + watch.bias_drift)
    return two_sided("bit bias", expected, seen.ones, seen.detections, limits, alpha)


def instrument_observables(honest: Readings, seen: Readings, watch: Watch, alpha: float) -> list[Observable]:
    """Return what instruments say; each alarm is rarer than ``alpha`` on an honest link."""
    calm, now = honest.instruments, seen.instruments
    sigmas = float(norm.isf(alpha))
    current = calm.detector_current_a * (1 + sigmas * watch.current_noise)
    tap_limit = 1 + math.copysign(watch.tap_tolerance, now.source_power_ratio - 1)
    correlated = float(norm.isf(alpha / 2)) / math.sqrt(watch.tap_samples)
    portmanteau = float(chi2.isf(alpha / 2, LAGS))
    enough = seen.detections >= CHI_SQUARE_COUNTS_MIN
    shift = float(norm.isf(alpha / 2)) * 2 / math.sqrt(max(seen.detections, 1.0))
    return [
        scaling_observable(honest, seen, watch, alpha),
        above("detector current", "A", calm.detector_current_a, now.detector_current_a, current),
        Observable(
            "source tap",
            "1",
            calm.source_power_ratio,
            now.source_power_ratio,
            tap_limit,
            abs(now.source_power_ratio - 1) > watch.tap_tolerance,
        ),
        above(
            "source autocorrelation",
            "1",
            calm.source_autocorrelation,
            abs(now.source_autocorrelation),
            correlated,
        ),
        above("injected power", "W", calm.injected_power_w, now.injected_power_w, watch.watchdog_threshold_w),
        Observable(
            "bit autocorrelation",
            "1",
            float(LAGS),
            seen.ljung_box,
            portmanteau,
            enough and seen.ljung_box > portmanteau,
        ),
        above("clicks while dead", "1", calm.dead_clicks, now.dead_clicks, 0.0),
        above("arrival shift", "sigma", calm.arrival_shift, abs(now.arrival_shift), shift),
    ]


def scaling_observable(honest: Readings, seen: Readings, watch: Watch, alpha: float) -> Observable:
    """Return the random-efficiency test: clicks at reduced efficiency over those at full efficiency."""
    calm, now = honest.instruments.efficiency_scaling, seen.instruments.efficiency_scaling
    limits = calm * (1 - watch.efficiency_drift), calm * (1 + watch.efficiency_drift)
    trials = seen.detections
    tested = two_sided(
        "efficiency scaling",
        reduced_share(calm),
        trials * reduced_share(now),
        trials,
        (reduced_share(limits[0]), reduced_share(limits[1])),
        alpha,
    )
    threshold = tested.threshold * (1 - REDUCED_SHARE) / (REDUCED_SHARE * max(1 - tested.threshold, 1e-12))
    return Observable(tested.name, "1", calm, now, threshold, tested.trips)


def reduced_share(scaling: float) -> float:
    """Return the share of clicks that fall into gates of reduced efficiency."""
    return REDUCED_SHARE * scaling / (REDUCED_SHARE * scaling + 1 - REDUCED_SHARE)


def binomial_limits(trials: float, low: float, high: float, alpha: float) -> tuple[float, float]:
    """Return counts ``(a, b)`` such that a count below a or above b is an alarm.

    For every probability from ``low`` to ``high`` each side alarms with at most ``alpha / 2``: the exact
    tails of the binomial distribution, no normal approximation.
    """
    # Expected trials are fractions; rounded outwards they raise no alarm that whole trials would not.
    below = float(binom.ppf(alpha / 2, math.floor(trials), low)) if trials >= 1 else 0.0
    above = float(binom.isf(alpha / 2, math.ceil(trials), high)) if trials > 0 else 0.0
    return below, above


def binomial_p_value(successes: int, trials: int, probability: float) -> float:
    """Return the two-sided p-value, twice the smaller exact tail and at most 1."""
    check_range("trials", trials, 1, 1e18)
    check_range("successes", successes, 0, trials)
    check_range("probability", probability, 0.0, 1.0)
    tails = binom.cdf(successes, trials, probability), binom.sf(successes - 1, trials, probability)
    return min(1.0, 2 * float(min(tails)))


def poisson_limit(mean: float, alpha: float) -> float:
    """Return the largest count that is no alarm: ``P(N > limit) <= alpha`` for a Poisson mean."""
    check_range("mean", mean, 0.0, 1e18)
    check_range("alpha", alpha, 1e-300, 1.0)
    return float(poisson.isf(alpha, mean))


def yields_chi_square(counts: Floats, expected: Floats, drift: float = 0.0) -> float:
    """Return the chi-square of counts per intensity against a common scale, K - 1 degrees of freedom.

    Parameters
    ----------
    counts, expected : ndarray, shape (K,)
        Detections per intensity, and what the commissioned link gives.
    drift : float
        Relative spread (one sigma) by which gains may drift against each other.

    Notes
    -----
    A change of loss scales all gains alike (to first order) and is no alarm; photon-number splitting does
    not, because decoys have fewer multi-photon pulses. The scale is the weighted mean of the ratios.
    """
    use = expected > 0
    if np.count_nonzero(use) < 2 or not counts.sum() > 0:
        return 0.0
    ratio = counts[use] / expected[use]
    common = float(counts[use].sum() / expected[use].sum())
    variance = common / expected[use] + (drift * common) ** 2
    mean = float(np.sum(ratio / variance) / np.sum(1 / variance))
    return float(np.sum((ratio - mean) ** 2 / variance))


def autocorrelation(bits: Bits, lags: int = LAGS) -> Floats:
    """Return the autocorrelation of a bit sequence at lags 1 to ``lags``, shape (lags,).

    Raises
    ------
    OutsideModel
        If the sequence is not longer than the largest lag.
    """
    if not 1 <= lags < len(bits):
        raise OutsideModel("lags", lags, f"1 to {len(bits) - 1}, less than the number of bits")
    centred = bits.astype(np.float64) - bits.mean()
    power = float(centred @ centred)
    if not power > 0:
        return np.ones(lags)
    return np.array([float(centred[:-lag] @ centred[lag:]) for lag in range(1, lags + 1)]) / power


def ljung_box(bits: Bits, lags: int = LAGS) -> float:
    """Return ``n (n + 2) sum r_l^2 / (n - l)``: chi-square with ``lags`` degrees of freedom for random bits.

    References
    ----------
    G. M. Ljung, G. E. P. Box, Biometrika 65, 297 (1978).
    """
    number = len(bits)
    correlations = autocorrelation(bits, lags)
    weights = number * (number + 2) / (number - np.arange(1, lags + 1))
    return float(weights @ correlations**2)


def clicks_while_dead(slots: Slots, dead_slots: int) -> int:
    """Return how many clicks came within ``dead_slots`` gates of the click before, of any detector."""
    return int(np.count_nonzero(np.diff(slots) <= dead_slots))


def arrival_histograms(times_s: Floats, bits: Bits, gate_s: float, bins: int = 32) -> NDArray[np.int64]:
    """Return arrival times modulo the gate as histograms per bit value, shape (2, bins)."""
    check_range("gate_s", gate_s, 1e-15, 1.0)
    cell = np.minimum((np.mod(times_s, gate_s) / gate_s * bins).astype(np.int64), bins - 1)
    return np.stack([np.bincount(cell[bits == bit], minlength=bins) for bit in (0, 1)])


def arrival_p_value(histograms: NDArray[np.int64]) -> float:
    """Return the p-value of equal arrival times for zeros and ones (chi-square of homogeneity).

    Cells with fewer than 20 clicks in all are put together, so that the chi-square holds.
    """
    total = histograms.sum(axis=0)
    full = total >= 20
    cells = np.column_stack([histograms[:, full], histograms[:, ~full].sum(axis=1)])
    cells = cells[:, cells.sum(axis=0) > 0]
    if cells.shape[1] < 2 or not cells.sum(axis=1).all():
        return 1.0
    expected = np.outer(cells.sum(axis=1), cells.sum(axis=0)) / cells.sum()
    statistic = float(((cells - expected) ** 2 / expected).sum())
    return float(chi2.sf(statistic, cells.shape[1] - 1))


def poisson_cusum(counts: Floats, honest_mean: float, alarm_mean: float) -> Floats:
    """Return Page's CUSUM of counts, shape (n,): evidence in nats that the mean has risen (or fallen).

    Parameters
    ----------
    counts : ndarray, shape (n,)
        One per block.
    honest_mean, alarm_mean : float
        Mean of an honest block, and the one to be found quickest; both above zero.
    """
    check_range("honest_mean", honest_mean, 1e-300, 1e18)
    check_range("alarm_mean", alarm_mean, 1e-300, 1e18)
    evidence = counts * math.log(alarm_mean / honest_mean) - (alarm_mean - honest_mean)
    return page(evidence)


def binomial_cusum(successes: Floats, trials: Floats, honest: float, alarm: float) -> Floats:
    """Return Page's CUSUM of counts with known trials, shape (n,), such as errors among sifted bits."""
    check_range("honest", honest, 1e-300, 1 - 1e-12)
    check_range("alarm", alarm, 1e-300, 1 - 1e-12)
    return page(
        successes * math.log(alarm / honest)
        + (trials - successes) * (math.log1p(-alarm) - math.log1p(-honest))
    )


def page(evidence: Floats) -> Floats:
    """Return ``S_i = max(0, S_(i-1) + evidence_i)``: how far the running sum is above its lowest point."""
    total = np.concatenate([[0.0], np.cumsum(evidence)])
    path: Floats = (total - np.minimum.accumulate(total))[1:]
    return path


def cusum_threshold(blocks_per_day: float, false_alarms_per_day: float) -> float:
    """Return the height at which a CUSUM of log-likelihood ratios alarms.

    ``h = ln(blocks between false alarms)``: the mean time to a false alarm is at least ``exp(h)`` blocks,
    whatever the distribution is (G. Lorden, Ann. Math. Stat. 42, 1897 (1971)), so false alarms come at most
    as often as stated.
    """
    check_range("blocks_per_day", blocks_per_day, 1e-6, 1e12)
    check_range("false_alarms_per_day", false_alarms_per_day, 1e-12, blocks_per_day)
    return math.log(blocks_per_day / false_alarms_per_day)


def readings_of_records(exchange: Exchange, link: QuantumLink, instruments: Instruments) -> Readings:
    """Return the log of a block that was drawn, or recorded; both ends' records are compared.

    ``instruments`` are taken as given but for the clicks nearer than the dead time, which are counted.
    """
    alice, bob = exchange.emissions, exchange.detections
    count = len(bob.slots)
    intensities = len(link.source.intensities)
    cells = np.ravel_multi_index(
        (bob.bases, alice.bases, (alice.bits != bob.bits).astype(np.uint8), alice.intensities),
        (2, 2, 2, intensities),
    )
    table = np.bincount(cells, minlength=8 * intensities).reshape(2, 2, 2, intensities).astype(np.float64)
    matched = np.stack([table[b, b] for b in (0, 1)])
    dead = clicks_while_dead(bob.slots, link.dead_slots)
    return Readings(
        live_pulses=float(alice.pulses - link.dead_slots * max(0, count - 1)),
        seen=table.sum(axis=(0, 1, 2)),
        sifted=matched.sum(axis=1),
        errors=matched[:, 1],
        double_clicks=float(bob.double_clicks),
        ones=float(np.count_nonzero(bob.bits)),
        ljung_box=ljung_box(bob.bits) if count > LAGS else float(LAGS),
        instruments=replace(instruments, dead_clicks=dead / max(count, 1)),
    )


def two_sided(
    name: str, expected: float, count: float, trials: float, limits: tuple[float, float], alpha: float
) -> Observable:
    """Return a rate as an observable, with the limit on the side to which it moved."""
    low, high = binomial_limits(trials, limits[0], limits[1], alpha)
    trips = count < low or count > high
    now = share(count, trials)
    threshold = share(low if now < expected else high, trials)
    return Observable(name, "1", expected, now, threshold, trips)


def upper(name: str, expected: float, count: float, trials: float, limit: float, alpha: float) -> Observable:
    """Return a rate as an observable of which only a rise is an alarm."""
    _, high = binomial_limits(trials, limit, limit, 2 * alpha)
    return Observable(name, "1", expected, share(count, trials), share(high, trials), count > high)


def above(name: str, unit: str, honest: float, attacked: float, threshold: float) -> Observable:
    return Observable(name, unit, honest, attacked, threshold, attacked > threshold)


def share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0
