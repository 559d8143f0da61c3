"""Pulses with two or more photons: splitting them, with and without decoys, and tapping the line.

Eve counts photons without touching them, keeps one of several until the basis is announced, and brings the
others to Bob over a line without loss; his receiver's own efficiency is not hers. Read next ``source``.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from openqci.links.attacks.assessment import Attack, Block, finite_key
from openqci.links.attacks.statistics import (
    LinkStatistics,
    honest_statistics,
    known,
    mixture,
    photons_max,
    poisson_weights,
    readings,
    receiver_photons,
    resolved_classes,
    with_known_share,
)
from openqci.proofs.bounds import binary_entropy
from openqci.quantum import QuantumLink
from openqci.quantum.elements import Floats, check_range, transmittance


@dataclass(frozen=True)
class PhotonNumberSplitting(Attack):
    """Eve blocks single photons and splits the others, as far as the gain of the signal stays.

    ``fraction`` of the time, 0 to 1. Decoys have fewer multi-photon pulses: their gains fall against that of
    the signal, and the bound on single photons with them.
    """

    fraction: float = 1.0

    attack_id: ClassVar[str] = "photon-number-splitting"
    description: ClassVar[str] = "block single photons, keep one of several, bring the rest without loss"
    reference: ClassVar[str] = "G. Brassard, N. Lütkenhaus, T. Mor, B. C. Sanders, PRL 85, 1330 (2000)"
    countermeasure: ClassVar[str] = "decoys: single-photon bound of the proof, gains of intensities compared"
    answered_by: ClassVar[tuple[str, ...]] = ("gain", "yield", "error rate", "double clicks")

    def __post_init__(self) -> None:
        check_range("fraction", self.fraction, 0.0, 1.0)

    def transform(self, statistics: LinkStatistics) -> LinkStatistics:
        return mixture(statistics, split_photons(statistics), self.fraction)

    def believed_per_pulse(
        self, seen: LinkStatistics, honest: LinkStatistics, block: Block, defended: bool
    ) -> float:
        """Return the key; undefended, every detection is taken for a single photon."""
        if defended:
            return finite_key(seen, block).length_bits / block.pulses
        return single_photon_assumption(seen, block.reconciliation_efficiency)


@dataclass(frozen=True)
class SplittingWithoutDecoys(Attack):
    """The same attack when all pulses have the signal's intensity: it leaves no trace in gain or errors.

    Only the link's signal pulses are looked at; rates are asymptotic, per emitted pulse of any intensity.
    Insecure from the loss on at which multi-photon pulses alone make the gain, ``eta = -ln(1 - p_multi)/mu``
    (:func:`insecure_loss_db`, which grants Eve the receiver's efficiency as well). The answer without decoys
    is the GLLP rate, which counts every multi-photon pulse as detected and known.
    """

    fraction: float = 1.0

    attack_id: ClassVar[str] = "photon-number-splitting-no-decoys"
    description: ClassVar[str] = "photon-number splitting where there is one intensity only"
    reference: ClassVar[str] = "D. Gottesman, H.-K. Lo, N. Lütkenhaus, J. Preskill, QIC 4, 325 (2004)"
    countermeasure: ClassVar[str] = "GLLP: Q_1 >= Q - p_multi; better, decoys"
    answered_by: ClassVar[tuple[str, ...]] = ("double clicks",)

    def __post_init__(self) -> None:
        check_range("fraction", self.fraction, 0.0, 1.0)

    def commissioned(self, link: QuantumLink) -> LinkStatistics:
        return only_signal(honest_statistics(link))

    def transform(self, statistics: LinkStatistics) -> LinkStatistics:
        return mixture(statistics, only_signal(split_photons(statistics)), self.fraction)

    def believed_per_pulse(
        self, seen: LinkStatistics, honest: LinkStatistics, block: Block, defended: bool
    ) -> float:
        """Return the GLLP rate; undefended, every detection is taken for a single photon."""
        if defended:
            return gllp_without_decoys(seen, block.reconciliation_efficiency)
        return single_photon_assumption(seen, block.reconciliation_efficiency)


@dataclass(frozen=True)
class BeamSplitting(Attack):
    """Eve takes the light that the fibre would have lost, and leaves no trace at all.

    She replaces a share of the line by a beam splitter and a line without loss, and knows a bit if she has at
    least one photon of its pulse: coherent light splits independently, so with probability
    ``1 - exp(-mu (1 - t))``.

    Parameters
    ----------
    replaced_share : float
        Of the line's loss in dB, counted from Alice, 0 to 1.
    """

    replaced_share: float = 1.0

    attack_id: ClassVar[str] = "beam-splitting"
    description: ClassVar[str] = "tap the light that the line would have lost"
    reference: ClassVar[str] = "C. H. Bennett et al., J. Cryptology 5, 3 (1992)"
    countermeasure: ClassVar[str] = "the proof: multi-photon pulses give no key"

    def __post_init__(self) -> None:
        check_range("replaced_share", self.replaced_share, 0.0, 1.0)

    def transform(self, statistics: LinkStatistics) -> LinkStatistics:
        link = statistics.link
        tapped = 1 - transmittance(self.replaced_share * link.channel.loss_db)
        return with_known_share(statistics, -np.expm1(-tapped * link.source.mean_photons()))

    def believed_per_pulse(
        self, seen: LinkStatistics, honest: LinkStatistics, block: Block, defended: bool
    ) -> float:
        """Return the key; undefended, every detection is taken for a single photon."""
        if defended:
            return finite_key(seen, block).length_bits / block.pulses
        return single_photon_assumption(seen, block.reconciliation_efficiency)


def multi_photon_probability(mean_photons: float) -> float:
    """Return ``1 - (1 + mu) exp(-mu)``."""
    check_range("mean_photons", mean_photons, 0.0, 10.0)
    return -math.expm1(-mean_photons) - mean_photons * math.exp(-mean_photons)


def insecure_loss_db(mean_photons: float) -> float:
    """Return the loss, detector included, from which splitting without decoys leaves no key.

    ``eta = -ln(1 - p_multi)/mu``: the gain without background is then that of the multi-photon pulses alone.

    >>> [round(insecure_loss_db(mu), 1) for mu in (0.05, 0.1, 0.2, 0.5)]
    [16.2, 13.3, 10.5, 7.2]
    """
    check_range("mean_photons", mean_photons, 1e-6, 10.0)
    multi = multi_photon_probability(mean_photons)
    return -10 * math.log10(-math.log1p(-multi) / mean_photons)


def split_photons(statistics: LinkStatistics) -> LinkStatistics:
    """Return the link when Eve splits all that she can while the gain of the signal stays.

    First she delivers multi-photon pulses (all or a share), then, if that is not enough, single photons.
    """
    link = statistics.link
    largest = photons_max(float(link.source.mean_photons()[0]))
    n = np.arange(largest + 1.0)
    handed = resolved_classes(link, np.maximum(n - 1, 0.0), receiver_photons(link))
    single = resolved_classes(link, np.ones(1), receiver_photons(link))[0]
    dark = resolved_classes(link, np.zeros(1), receiver_photons(link))[0]
    weights = poisson_weights(link.source.mean_photons(), largest)
    pass_multi, pass_single = delivered(statistics, weights[0], handed, single, dark)
    multi = weights[:, 2:, None, None, None, None, None] * handed[2:]
    some = weights[:, 1, None, None, None, None, None]
    probabilities = np.array(link.source.probabilities)[:, None, None, None, None, None]
    split = known((pass_multi * multi.sum(axis=1) * probabilities)[None])
    lost = 1 - pass_multi * weights[:, 2:].sum(axis=1) - pass_single * weights[:, 1]
    views = [
        split,
        (pass_single * some * single * probabilities)[None],
        (lost[:, None, None, None, None, None] * dark * probabilities)[None],
    ]
    return replace(statistics, views=np.concatenate(views))


def delivered(
    statistics: LinkStatistics, weights: Floats, handed: Floats, single: Floats, dark: Floats
) -> tuple[float, float]:
    """Return which share of multi-photon and of single-photon pulses Eve lets pass, each 0 to 1."""
    none = float(dark.sum())
    from_multi = float(weights[2:] @ (handed[2:].sum(axis=(1, 2, 3, 4, 5)) - none))
    from_single = float(weights[1] * (single.sum() - none))
    missing = float(statistics.gains[0]) - none
    pass_multi = min(1.0, max(0.0, missing / from_multi)) if from_multi > 0 else 0.0
    rest = missing - pass_multi * from_multi
    return pass_multi, min(1.0, max(0.0, rest / from_single)) if from_single > 0 else 0.0


def only_signal(statistics: LinkStatistics) -> LinkStatistics:
    """Return the link without its decoys: only pulses of the signal are ever seen."""
    views = np.zeros_like(statistics.views)
    views[:, 0] = statistics.views[:, 0]
    return replace(statistics, views=views)


def single_photon_assumption(seen: LinkStatistics, efficiency: float) -> float:
    """Return ``Q [1 - h(E_X) - f h(E_Z)]``: the rate of those who take each detection for a single photon."""
    sifted, z_error, x_error = sifted_rates(seen)
    return max(0.0, sifted * (1 - binary_entropy(min(0.5, x_error)) - efficiency * binary_entropy(z_error)))


def gllp_without_decoys(seen: LinkStatistics, efficiency: float) -> float:
    """Return ``(Q - p_multi) [1 - h(e_1)] - f Q h(E)`` of the signal, per emitted pulse.

    ``e_1 = E Q / (Q - p_multi)``: every error may be one of a single photon.
    """
    sifted, z_error, x_error = sifted_rates(seen)
    gain = float(seen.gains[0])
    tagged = multi_photon_probability(seen.link.source.intensities[0]) / gain if gain > 0 else 1.0
    untagged = max(0.0, 1 - tagged)
    if untagged <= 0:
        return 0.0
    phase = binary_entropy(min(0.5, x_error / untagged))
    return max(0.0, sifted * (untagged * (1 - phase) - efficiency * binary_entropy(z_error)))


def sifted_rates(seen: LinkStatistics) -> tuple[float, float, float]:
    """Return key-basis bits per emitted pulse, and the error rates of both bases."""
    log = readings(seen, 1.0)
    counts, errors = log.sifted.sum(axis=1), log.errors.sum(axis=1)
    rates = errors / np.maximum(counts, 1e-300)
    return float(counts[0]) * seen.live_fraction, float(rates[0]), float(rates[1])
