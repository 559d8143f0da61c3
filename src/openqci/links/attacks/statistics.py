"""What the honest parties see of a link, split by what Eve knows of it.

:class:`LinkStatistics` is the table of class probabilities of
:func:`openqci.quantum.link.class_probabilities` with one axis more: Eve's classical view of the detection.
Honest parties see the sum over views; Eve's share of the key follows from the parts. An attack takes such
statistics and returns others.

The photon number is not in that table. Where Eve acts on it, :func:`resolved_classes` gives the class
probabilities for n photons at Alice's output; mixed with the Poisson distribution of an intensity they are
the table again, exactly (a coherent pulse is a mixture of photon numbers once its phase is random).

Left out: quantum memories other than for photons split off (their bits count as known), and any attack on
several detections at once. Read next :mod:`openqci.links.attacks.assessment`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq, linprog
from scipy.special import gammaln

from openqci.core.errors import OutsideModel
from openqci.links.attacks.monitors import LAGS, REDUCED_EFFICIENCY, Instruments, Readings
from openqci.proofs.bounds import binary_entropy
from openqci.quantum import QuantumLink
from openqci.quantum.clicks import click_probability
from openqci.quantum.elements import Floats, transmittance
from openqci.quantum.link import (
    choice_probabilities,
    class_probabilities,
    detection_rate_hz,
    detector_backgrounds,
    detector_photons,
)

AVALANCHE_CHARGE_C = 1.6e-12
"""Charge of one avalanche, 1e7 electrons, and the leakage current of the diode: orders of magnitude of a
gated InGaAs diode, assumed, not measured; monitors use ratios of currents."""

LEAKAGE_CURRENT_A = 1e-9

TINY = 1e-150
"""A probability below which nothing is ever seen; its square is still a normal floating-point number."""


@dataclass(frozen=True)
class LinkStatistics:
    """A link as it is seen, and what Eve knows.

    Attributes
    ----------
    link : QuantumLink
        As the honest parties believe it to be.
    views : ndarray, shape (V, K, 2, 2, 2, 2, 2)
        Probability per live gate of each class of detection, per view of Eve; axes after the first as in
        ``class_probabilities``. Given her view (and the intensity, which is announced) she knows no more.
    instruments : Instruments
    live : float, optional
        Fraction of gates that are live, where it is not that of a dead time common to both detectors.
    """

    link: QuantumLink
    views: Floats
    instruments: Instruments
    live: float | None = None

    @property
    def table(self) -> Floats:
        """What the honest parties see, shape (K, 2, 2, 2, 2, 2)."""
        table: Floats = self.views.sum(axis=0)
        return table

    @property
    def gains(self) -> Floats:
        """Click probability per live pulse of each intensity, shape (K,)."""
        gains: Floats = self.table.sum(axis=(1, 2, 3, 4, 5)) / np.array(self.link.source.probabilities)
        return gains

    @property
    def live_fraction(self) -> float:
        """Fraction of gates in which the receiver is not dead, ``1 / (1 + Q d)`` by default."""
        return live_fraction(self.link, float(self.views.sum())) if self.live is None else self.live


def honest_statistics(link: QuantumLink) -> LinkStatistics:
    """Return what is seen of a link that nobody attacks."""
    table = class_probabilities(link)
    rate_hz = detection_rate_hz(link, float(table.sum()))
    instruments = Instruments(
        detector_current_a=LEAKAGE_CURRENT_A + AVALANCHE_CHARGE_C * rate_hz,
        efficiency_scaling=honest_scaling(link),
    )
    return LinkStatistics(link, table[None], instruments)


def live_fraction(link: QuantumLink, click_probability: float) -> float:
    """Return the fraction of gates in which a receiver with common dead time is live."""
    if not click_probability > 0:
        return 1.0
    return detection_rate_hz(link, click_probability) / (link.source.clock_rate_hz * click_probability)


def honest_scaling(link: QuantumLink) -> float:
    """Return clicks at reduced efficiency over clicks at full efficiency, all intensities together.

    Dark counts do not follow the efficiency here, which makes the honest ratio larger than a real one.
    """
    even = np.ones(len(link.source.intensities))
    full = float(relit_table(link, even).sum())
    return (
        float(relit_table(link, REDUCED_EFFICIENCY * even).sum()) / full if full > 0 else REDUCED_EFFICIENCY
    )


def readings(statistics: LinkStatistics, live_pulses: float) -> Readings:
    """Return the expected log of a block of so many live pulses."""
    table = statistics.table * live_pulses
    per_class = table.sum(axis=1)
    matched = np.stack([per_class[:, b, b] for b in (0, 1)])
    seen = table.sum(axis=(1, 2, 3, 4, 5))
    detections = float(seen.sum())
    return Readings(
        live_pulses=live_pulses,
        seen=seen,
        sifted=matched.sum(axis=(-2, -1)),
        errors=matched[..., 0, 1] + matched[..., 1, 0],
        double_clicks=float(table[:, 1].sum()),
        ones=float(table[..., 1, :].sum()),
        ljung_box=LAGS + detections * statistics.instruments.autocorrelation_power,
        instruments=statistics.instruments,
    )


def safe_key_per_pulse(statistics: LinkStatistics) -> float:
    """Return an upper bound on the secret bits per emitted pulse: what Eve's view leaves.

    ``sum over views v and intensities k of p(v, k) I(A; B | v, k)`` over detections in which both chose the
    key basis: no protocol makes more key than this from these data, as Eve may simply use this view.

    References
    ----------
    U. M. Maurer, S. Wolf, IEEE Trans. Inf. Theory 45, 499 (1999) (intrinsic information).
    """
    joint = statistics.views[:, :, :, 0, 0].sum(axis=2)
    return float(mutual_information(joint).sum()) * statistics.live_fraction


def mutual_information(joint: Floats) -> Floats:
    """Return ``p I(A; B)`` in bits of unnormalised 2 x 2 tables, shape (..., 2, 2) -> (...)."""
    total = joint.sum(axis=(-2, -1))
    normal = joint / np.where(total > TINY, total, 1.0)[..., None, None]
    product = normal.sum(axis=-1, keepdims=True) * normal.sum(axis=-2, keepdims=True)
    use = (normal > TINY) & (product > TINY)
    ratio = np.where(use, normal, 1.0) / np.where(use, product, 1.0)
    information = np.sum(np.where(use, normal * np.log2(ratio), 0.0), axis=(-2, -1))
    bits: Floats = np.where(total > TINY, total * np.maximum(information, 0.0), 0.0)
    return bits


def known(views: Floats) -> Floats:
    """Return views in which Eve also knows Alice's bit, shape (2 V, ...)."""
    split = np.concatenate([views, views])
    split[: len(views), ..., 1] = 0.0
    split[len(views) :, ..., 0] = 0.0
    return split


def with_known_share(statistics: LinkStatistics, known_share: Floats | float) -> LinkStatistics:
    """Return the same link when Eve knows the bits of a share of the detections, per intensity or of all.

    What is seen does not change: this is the mark of every passive attack.
    """
    weight = np.broadcast_to(np.asarray(known_share, dtype=np.float64), statistics.gains.shape)
    weight = weight[:, None, None, None, None, None]
    views = np.concatenate([statistics.views * (1 - weight), known(statistics.views * weight)])
    return replace(statistics, views=views)


def mixture(calm: LinkStatistics, attacked: LinkStatistics, fraction: float) -> LinkStatistics:
    """Return a link that is attacked during a fraction of the time; every reading is the mean."""
    if fraction <= 0:
        return calm
    views = np.concatenate([(1 - fraction) * calm.views, fraction * attacked.views])
    quiet, loud = calm.instruments, attacked.instruments
    mixed = {
        name: (1 - fraction) * getattr(quiet, name) + fraction * getattr(loud, name)
        for name in quiet.__dataclass_fields__
    }
    return LinkStatistics(calm.link, views, Instruments(**mixed))


def relit_table(link: QuantumLink, scales: Floats, noise_photons: float = 0.0) -> Floats:
    """Return the class probabilities of a link with its light scaled per intensity, shape (K,).

    ``noise_photons`` are mean unpolarised photons per gate that arrive at Bob's door besides.
    """
    light = detector_photons(link, link.relative_efficiency)
    noise = noise_photons * receiver_photons(link).mean(axis=2, keepdims=True)
    return table_of_means(light * scales[:, None, None, None, None] + noise, link)


def table_of_means(means: Floats, link: QuantumLink) -> Floats:
    """Return class probabilities when each detector's mean light is given for every choice.

    Parameters
    ----------
    means : ndarray, shape (..., K or 1, 2, 2, 2, 2)
        Mean detectable photons; last axes: Bob's basis, Alice's basis, Alice's bit, detector (= Bob's bit).
    link : QuantumLink
        For backgrounds, and for how intensities and bases are chosen.

    Returns
    -------
    ndarray, shape (..., K, 2, 2, 2, 2, 2)
        Axes as of ``class_probabilities``.
    """
    fires = click_probability(means, link_backgrounds(link))
    both = fires[..., 0] * fires[..., 1]
    zero, one = fires[..., 0] - both, fires[..., 1] - both
    if link.receiver.basis_choice == "active":
        return combined(zero, one, both, link)
    silent = (1 - fires).prod(axis=-1)
    other = silent[..., ::-1, :, :]
    in_both = (1 - silent).prod(axis=-3)
    return combined(zero * other, one * other, both * other + in_both[..., None, :, :] / 2, link)


def combined(
    zero: Floats, one: Floats, both: Floats, link: QuantumLink, *, of_intensities: bool = True
) -> Floats:
    """Return class probabilities from those to fire alone or both, shape (..., 2, 2, 2) each.

    Last axes: Bob's basis, Alice's basis, Alice's bit. Behind a passive choice, Bob's choice is in them.
    """
    choices = choice_probabilities(link)
    if not of_intensities:
        choices = choices.sum(axis=0)
    if link.receiver.basis_choice == "passive":
        choices = choices.sum(axis=-2, keepdims=True)
    single = np.stack([zero, one], axis=-2)
    double = np.stack([both, both], axis=-2) / 2
    weighted: Floats = np.stack([single, double], axis=-5) * (choices[..., None, :, :, None, None] / 2)
    return weighted


def link_backgrounds(link: QuantumLink) -> Floats:
    """Return each detector's chance to click without light of its pulse, shape (2, 1, 1, 2)."""
    backgrounds: Floats = detector_backgrounds(link, link.relative_efficiency)[:, None, None, :]
    return backgrounds


def line_photons(link: QuantumLink) -> Floats:
    """Return the chance of a photon that leaves Alice to be counted by each detector, shape (2, 2, 2, 2).

    Axes: Bob's basis, Alice's basis, Alice's bit, detector.
    """
    photons: Floats = detector_photons(link, link.relative_efficiency)[0] / link.source.intensities[0]
    return photons


def receiver_photons(link: QuantumLink) -> Floats:
    """Return the chance of a photon that reaches Bob's door to be counted, axes as of ``line_photons``."""
    return line_photons(link) / transmittance(link.channel.loss_db)


def check_active(link: QuantumLink) -> None:
    """Raise OutsideModel unless Bob chooses his basis actively."""
    if link.receiver.basis_choice != "active":
        raise OutsideModel("basis_choice", link.receiver.basis_choice, "active, for this attack")


def photons_max(mean_photons: float) -> int:
    """Return a photon number above which a Poisson distribution has less than 1e-13."""
    return math.ceil(mean_photons + 9 * math.sqrt(mean_photons) + 14)


def poisson_weights(mean_photons: Floats, largest: int) -> Floats:
    """Return P(n) for n = 0 to ``largest``, shape (K, largest + 1)."""
    n = np.arange(largest + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_power = np.where(n == 0, 0.0, n * np.log(mean_photons[:, None]))
    weights: Floats = np.exp(log_power - mean_photons[:, None] - gammaln(n + 1))
    return weights


def resolved_classes(link: QuantumLink, photons: Floats, per_photon: Floats) -> Floats:
    """Return class probabilities for given photon numbers, without the choice of the intensity.

    Parameters
    ----------
    link : QuantumLink
        For its backgrounds and how bases are chosen.
    photons : ndarray, shape (N,)
        Photons that start.
    per_photon : ndarray, shape (2, 2, 2, 2)
        Chance of each to be counted by each detector: :func:`line_photons` for an honest link,
        :func:`receiver_photons` when Eve hands them to Bob.

    Returns
    -------
    ndarray, shape (N, 2, 2, 2, 2, 2)
        Axes: photon number, then as the table of ``class_probabilities``.

    Notes
    -----
    A photon goes to one detector only, so detectors are not independent for given n; the chance of a set S of
    detectors to be silent is ``prod_S (1 - y_d) (1 - sum_S p_d)^n``, and the rest is inclusion and exclusion.
    """
    n = photons[:, None, None, None]
    dark = np.broadcast_to(link_backgrounds(link), per_photon.shape)

    def silent(*detectors: tuple[Floats, Floats]) -> Floats:
        reached = sum((p for p, _ in detectors), np.zeros(1))
        quiet = math.prod((1 - y for _, y in detectors), start=np.ones(1))
        chance: Floats = quiet * np.maximum(0.0, 1 - reached) ** n
        return chance

    own = [(per_photon[..., d], dark[..., d]) for d in (0, 1)]
    others: list[tuple[Floats, Floats]] = []
    if link.receiver.basis_choice == "passive":
        others = [(per_photon[::-1, ..., d], dark[::-1, ..., d]) for d in (0, 1)]
    none, not_zero, not_one = silent(*own, *others), silent(own[0], *others), silent(own[1], *others)
    zero, one = not_one - none, not_zero - none
    others_silent = silent(*others) if others else np.ones(1)
    both = np.maximum(others_silent - not_zero - not_one + none, 0.0)
    if others:
        both = both + np.maximum(1 - silent(*own) - others_silent + none, 0.0) / 2
    return combined(zero, one, both, link, of_intensities=False)


def matching(rate: Callable[[float], float], wanted: float, largest: float) -> float:
    """Return x in [0, largest] with ``rate(x) = wanted`` for a rising rate, or the nearer end."""
    if rate(0.0) >= wanted:
        return 0.0
    if rate(largest) <= wanted:
        return largest
    return float(brentq(lambda x: rate(x) - wanted, 0.0, largest, xtol=1e-15, rtol=1e-13))


@dataclass(frozen=True)
class PhotonNumberBounds:
    """What gains and error gains leave open about single photons, all of shape (K,).

    ``single`` is the single-photon yield and ``vacuum`` the empty-pulse yield where Eve makes the first as
    small as the gains allow; ``wrong`` is the largest probability of an erroneous single-photon detection.
    """

    single: Floats
    vacuum: Floats
    wrong: Floats


def photon_number_bounds(
    gains: Floats, error_gains: Floats, intensities: Floats, probabilities: Floats, distance: float = 0.0
) -> PhotonNumberBounds:
    """Return the least single-photon yields (and most errors) that fit what is seen.

    The linear program ``min sum_k p_k P(1|k) Y_1^k`` over all yields in [0, 1] with
    ``sum_n P(n|k) Y_n^k = Q_k``, ``P(0|k) Y_0^k / 2 <= E_k Q_k`` (empty pulses give random bits) and
    ``|Y_n^k - Y_n^j| <= distance``: what Eve can do to single photons while every gain stays as it is. With
    distance 0 (intensities alike to her) it is the decoy method without statistics.

    Parameters
    ----------
    gains, error_gains : ndarray, shape (K,)
        Q_k and E_k Q_k.
    intensities, probabilities : ndarray, shape (K,)
        Mean photon numbers as emitted; how often each is sent.
    distance : float
        Total variation distance between what Eve sees of two intensities at the same photon number.

    Raises
    ------
    OutsideModel
        If no yields give these gains.

    References
    ----------
    X. Ma, B. Qi, Y. Zhao, H.-K. Lo, PRA 72, 012326 (2005) (decoy method); the slack as stated in the
    project's attack table, unverified against a paper. The two bounds on yields ``Y^k = (1 - D) c + D a^k``
    (Eve sees the intensity with probability D) span the same set, so the slack is attainable.
    """
    largest = photons_max(float(intensities.max()))
    weights = poisson_weights(intensities, largest)
    # Yields of n photons are of the order of 1 - (1 - eta)^n: in these units the program is well scaled.
    efficiency = min(0.9, max(float(gains[0] / intensities[0]), 1e-12))
    unit = np.maximum(-np.expm1(np.arange(largest + 1) * math.log1p(-efficiency)), efficiency)
    single = np.zeros_like(weights)
    single[:, 1] = probabilities * weights[:, 1]
    vacuum_max = np.minimum(1.0, 2 * error_gains / weights[:, 0])
    low = solve_yields(single, gains, weights, unit, distance, vacuum_max)
    wrong = solve_yields(-single, error_gains, weights, unit, distance, np.ones(len(gains)))
    return PhotonNumberBounds(low[:, 1], low[:, 0], wrong[:, 1])


def solve_yields(
    objective: Floats, gains: Floats, weights: Floats, unit: Floats, distance: float, vacuum_max: Floats
) -> Floats:
    """Return the yields, shape (K, n), in [0, 1] that make ``sum objective * yields`` least."""
    number, photons = weights.shape
    use = gains > 0
    copies = number if distance > 0 else 1
    rows = np.zeros((number, copies, photons))
    for k in np.flatnonzero(use):
        rows[k, k if copies > 1 else 0] = weights[k] * unit / gains[k]
    cost = (objective if copies > 1 else objective.sum(axis=0)) * unit
    largest = np.ones((copies, photons))
    largest[:, 0] = vacuum_max if copies > 1 else vacuum_max.min()
    slack = slack_rows(number, photons) if copies > 1 else None
    found = linprog(
        cost.ravel() / float(np.abs(cost).max()),
        A_eq=rows.reshape(number, -1)[use],
        b_eq=np.ones(np.count_nonzero(use)),
        A_ub=slack,
        b_ub=None if slack is None else np.tile(distance / unit, len(slack) // photons),
        bounds=[(0.0, float(top)) for top in (largest / unit).ravel()],
        method="highs",
    )
    if found.x is None:
        raise OutsideModel("gains", gains.tolist(), "gains that some yields between 0 and 1 can give")
    yields: Floats = np.broadcast_to(found.x.reshape(copies, photons) * unit, (number, photons))
    return yields


def slack_rows(number: int, photons: int) -> Floats:
    """Return the matrix of ``Y_n^k - Y_n^j <= distance`` for all ordered pairs of intensities."""
    pairs = [(k, j) for k in range(number) for j in range(number) if k != j]
    rows = np.zeros((len(pairs), photons, number, photons))
    for index, (k, j) in enumerate(pairs):
        rows[index, :, k] = np.eye(photons)
        rows[index, :, j] = -np.eye(photons)
    return rows.reshape(len(pairs) * photons, number * photons)


def bounds_of(statistics: LinkStatistics, intensities: Floats, distance: float = 0.0) -> PhotonNumberBounds:
    """Return :func:`photon_number_bounds` of what is seen in the key basis."""
    error_gains = statistics.gains * z_error_rates(statistics.table)
    probabilities = np.array(statistics.link.source.probabilities)
    return photon_number_bounds(statistics.gains, error_gains, intensities, probabilities, distance)


def z_error_rates(table: Floats) -> Floats:
    """Return the error rate of the key basis per intensity, shape (K,); one half where nothing is seen."""
    sifted = table[:, :, 0, 0].sum(axis=1)
    seen = sifted.sum(axis=(1, 2))
    wrong = sifted[:, 0, 1] + sifted[:, 1, 0]
    return np.where(seen > 0, wrong / np.where(seen > 0, seen, 1.0), 0.5)


def safe_of_single_photons(statistics: LinkStatistics, intensities: Floats, distance: float = 0.0) -> float:
    """Return an upper bound on the key per emitted pulse when Eve chooses the yields behind what is seen.

    Eve knows the bits of all pulses with two or more photons, empty pulses give random bits, and what errors
    empty pulses leave are spread evenly over the others; she lets as few single photons pass as
    :func:`photon_number_bounds` allows.
    """
    bounds = bounds_of(statistics, intensities, distance)
    gains = np.maximum(statistics.gains, 1e-300)
    vacuum = np.minimum(np.exp(-intensities) * bounds.vacuum / gains, 1 - 1e-12)
    single = np.minimum(intensities * np.exp(-intensities) * bounds.single / gains, 1.0)
    error = np.clip((z_error_rates(statistics.table) - vacuum / 2) / (1 - vacuum), 0.0, 0.5)
    secret = np.array([1 - binary_entropy(float(each)) for each in error])
    sifted = statistics.table[:, :, 0, 0].sum(axis=(1, 2, 3))
    return float(np.sum(sifted * single * secret)) * statistics.live_fraction
