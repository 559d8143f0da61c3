"""Proofs for one decoy (signal and weak decoy): the default of our devices.

One decoy needs no vacuum pulses, which a modulator makes badly, and for blocks of the size that we use it
gives more key than two. Vacuum events are bounded from above by errors: half of them are errors.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from openqci.proofs.bounds import (
    SinglePhotons,
    key_lengths,
    phase_error_bound,
    photon_number_probability,
    scaled,
)
from openqci.proofs.counts import (
    BasisCounts,
    CountArrays,
    DecoyCounts,
    Floats,
    KeyLength,
    KeyLengths,
    check_budget,
    check_epsilons,
    one_length,
)
from openqci.proofs.tails import Azuma, Chernoff, Hoeffding, Tail


@dataclass(frozen=True)
class OneDecoyProof:
    """Finite-key decoy-state BB84 with two intensities.

    Papers share the bounds below and differ in how they spend epsilon: ``failure_terms`` is the number of
    equal parts, ``amplification_factor * log2(amplification_scale / epsilon)`` what privacy amplification
    and smoothing cost; ``tail`` says how far counts may lie from their means.
    """

    proof_id: str
    reference: str
    failure_terms: int
    amplification_factor: float
    amplification_scale: float
    tail: Tail
    intensities: int = 2

    def secret_length_bits(
        self, counts: DecoyCounts, leak_bits: float, epsilon_sec: float, epsilon_cor: float
    ) -> KeyLength:
        """Return the key length; see :class:`~openqci.proofs.FiniteKeyProof`."""
        check_budget(counts, self.intensities, leak_bits, epsilon_sec, epsilon_cor)
        lengths = self.secret_lengths(counts.as_arrays(), leak_bits, epsilon_sec, epsilon_cor)
        return one_length(lengths, epsilon_sec, epsilon_cor, self.proof_id)

    def secret_lengths(
        self, counts: CountArrays, leak_bits: ArrayLike, epsilon_sec: float, epsilon_cor: float
    ) -> KeyLengths:
        """Return the lengths of many blocks at once."""
        check_epsilons(epsilon_sec, epsilon_cor)
        epsilon = epsilon_sec / self.failure_terms
        vacuum = vacuum_events_low(counts.z, self.tail, epsilon)
        total = counts.z.counts.sum(axis=-1)
        key = np.minimum(single_photon_events(counts.z, self.tail, epsilon), total - vacuum)
        sample = single_photon_events(counts.x, self.tail, epsilon)
        errors = single_photon_errors(counts.x, self.tail, epsilon)
        known = SinglePhotons(vacuum, key, sample, phase_error_bound(errors, sample, key, epsilon))
        return key_lengths(known, leak_bits, self.amplification_bits(epsilon), epsilon_cor)

    def amplification_bits(self, epsilon: float) -> float:
        """Return what privacy amplification and smoothing cost, in bits."""
        return self.amplification_factor * math.log2(self.amplification_scale / epsilon)


RUSCA_2018 = OneDecoyProof(
    proof_id="rusca-2018",
    reference="D. Rusca et al., Appl. Phys. Lett. 112, 171104 (2018), arXiv:1801.03443",
    failure_terms=19,
    amplification_factor=6.0,
    amplification_scale=1.0,
    tail=Hoeffding(),
)
"""l = s_0 + s_1 (1 - h(phi)) - leak - 6 log2(19/eps_sec) - log2(2/eps_cor)."""

RUSCA_2018_CHERNOFF = OneDecoyProof(
    proof_id="rusca-2018-chernoff",
    reference="D. Rusca et al., Appl. Phys. Lett. 112, 171104 (2018), with the tail of H.-L. Yin et al., "
    "Sci. Rep. 10, 14312 (2020), for each count",
    failure_terms=19,
    amplification_factor=6.0,
    amplification_scale=1.0,
    tail=Chernoff(),
)
"""The same argument with a tighter tail for each count. The step from vacuum errors to vacuum events keeps
Hoeffding's; the number of failure terms stays 19. Not published in this form that we know of."""

WIESEMANN_2024 = OneDecoyProof(
    proof_id="wiesemann-2024",
    reference="J. Wiesemann et al., arXiv:2405.16578 (2024)",
    failure_terms=15,
    amplification_factor=4.0,
    amplification_scale=2.0**-0.25,
    tail=Hoeffding(),
)
"""l = s_0 + s_1 (1 - h(phi)) - leak - 4 log2(15/(2^(1/4) eps_sec)) - log2(2/eps_cor); Hoeffding variant,
which holds when Eve treats the rounds independently."""

WIESEMANN_2024_AZUMA = OneDecoyProof(
    proof_id="wiesemann-2024-azuma",
    reference="J. Wiesemann et al., arXiv:2405.16578 (2024), Azuma variant",
    failure_terms=15,
    amplification_factor=4.0,
    amplification_scale=2.0**-0.25,
    tail=Azuma(),
)
"""The variant that also holds when Eve correlates the rounds; it costs key."""


def vacuum_events_low(basis: BasisCounts, tail: Tail, epsilon: float) -> Floats:
    """Return a lower bound on detections of vacuum pulses, Rusca et al. 2018."""
    mu1, mu2 = basis.intensities[..., 0], basis.intensities[..., 1]
    low = scaled(basis, tail.below(basis.counts, epsilon))
    high = scaled(basis, tail.above(basis.counts, epsilon))
    events = photon_number_probability(basis, 0) * (mu1 * low[..., 1] - mu2 * high[..., 0]) / (mu1 - mu2)
    return np.asarray(np.minimum(np.maximum(events, 0.0), basis.counts.sum(axis=-1)))


def vacuum_events_high(basis: BasisCounts, tail: Tail, epsilon: float) -> Floats:
    """Return an upper bound on detections of vacuum pulses from the errors of the same basis.

    ``2 [tau_0 exp(k)/p_k (m_k + delta(m)) + delta(n)]``, the smaller one of both intensities: a vacuum
    pulse gives a random bit, so half of the vacuum events are errors.
    """
    errors = scaled(basis, tail.above(basis.errors, epsilon))
    seen = photon_number_probability(basis, 0) * errors.min(axis=-1)
    return np.asarray(2 * (seen + tail.deviation(basis.counts, epsilon)))


def single_photon_events(basis: BasisCounts, tail: Tail, epsilon: float) -> Floats:
    """Return a lower bound on detections of single-photon pulses, Rusca et al. 2018."""
    mu1, mu2 = basis.intensities[..., 0], basis.intensities[..., 1]
    low = scaled(basis, tail.below(basis.counts, epsilon))
    high = scaled(basis, tail.above(basis.counts, epsilon))
    tau_0, tau_1 = photon_number_probability(basis, 0), photon_number_probability(basis, 1)
    vacuum = (mu1**2 - mu2**2) / mu1**2 * vacuum_events_high(basis, tail, epsilon) / tau_0
    multi = (mu2 / mu1) ** 2 * high[..., 0]
    # A decoy of vacuum says nothing of single photons; the quotient is then not used.
    divisor = np.where(mu2 > 0, mu2, 1.0) * (mu1 - mu2)
    events = tau_1 * mu1 / divisor * (low[..., 1] - multi - vacuum)
    bounded = np.minimum(np.maximum(events, 0.0), basis.counts.sum(axis=-1))
    return np.where(mu2 > 0, bounded, 0.0)


def single_photon_errors(basis: BasisCounts, tail: Tail, epsilon: float) -> Floats:
    """Return an upper bound on errors of single-photon pulses: tau_1 (m_1^+ - m_2^-)/(mu1 - mu2).

    An expected number of errors is never negative, so ``m_2^-`` is cut at zero: with the few errors of a
    test basis Hoeffding's lower tail often falls below.
    """
    mu1, mu2 = basis.intensities[..., 0], basis.intensities[..., 1]
    low = np.maximum(scaled(basis, tail.below(basis.errors, epsilon)), 0.0)
    high = scaled(basis, tail.above(basis.errors, epsilon))
    errors = photon_number_probability(basis, 1) * (high[..., 0] - low[..., 1]) / (mu1 - mu2)
    return np.maximum(0.0, errors)
