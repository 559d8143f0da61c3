"""Proofs for one decoy (signal and weak decoy): the default of our devices.

One decoy needs no vacuum pulses, which a modulator makes badly, and for blocks of the size that we use it
gives more key than two. Vacuum events are bounded from above by errors: half of them are errors.
"""

import math
from dataclasses import dataclass

import numpy as np

from openqci.proofs.bounds import (
    hoeffding_deviation,
    key_length,
    phase_error_bound,
    photon_number_probability,
    scaled,
)
from openqci.proofs.counts import BasisCounts, DecoyCounts, KeyLength, check_budget


@dataclass(frozen=True)
class OneDecoyProof:
    """Finite-key decoy-state BB84 with two intensities and Hoeffding tails.

    Papers share the bounds below and differ in how they spend epsilon: ``failure_terms`` is the number of
    equal parts, ``amplification_bits`` what privacy amplification and smoothing cost.
    """

    proof_id: str
    reference: str
    failure_terms: int
    amplification_factor: float
    amplification_scale: float
    intensities: int = 2

    def secret_length_bits(
        self, counts: DecoyCounts, leak_bits: float, epsilon_sec: float, epsilon_cor: float
    ) -> KeyLength:
        """Return the key length; see :class:`~openqci.proofs.FiniteKeyProof`."""
        check_budget(counts, self.intensities, leak_bits, epsilon_sec, epsilon_cor)
        epsilon = epsilon_sec / self.failure_terms
        vacuum = vacuum_events_low(counts.z, epsilon)
        single = min(single_photon_events(counts.z, epsilon), float(counts.z.counts.sum()) - vacuum)
        sample = single_photon_events(counts.x, epsilon)
        phase_error = phase_error_bound(single_photon_errors(counts.x, epsilon), sample, single, epsilon)
        spent_bits = leak_bits + self.amplification_bits(epsilon) + math.log2(2 / epsilon_cor)
        return key_length(vacuum, single, phase_error, spent_bits, epsilon_sec, epsilon_cor, self.proof_id)

    def amplification_bits(self, epsilon: float) -> float:
        """Return what privacy amplification and smoothing cost, in bits."""
        return self.amplification_factor * math.log2(self.amplification_scale / epsilon)


RUSCA_2018 = OneDecoyProof(
    proof_id="rusca-2018",
    reference="D. Rusca et al., Appl. Phys. Lett. 112, 171104 (2018), arXiv:1801.03443",
    failure_terms=19,
    amplification_factor=6.0,
    amplification_scale=1.0,
)
"""l = s_0 + s_1 (1 - h(phi)) - leak - 6 log2(19/eps_sec) - log2(2/eps_cor)."""

WIESEMANN_2024 = OneDecoyProof(
    proof_id="wiesemann-2024",
    reference="J. Wiesemann et al., arXiv:2405.16578 (2024)",
    failure_terms=15,
    amplification_factor=4.0,
    amplification_scale=2.0**-0.25,
)
"""l = s_0 + s_1 (1 - h(phi)) - leak - 4 log2(15/(2^(1/4) eps_sec)) - log2(2/eps_cor); Hoeffding variant,
which holds when Eve treats the rounds independently."""


def vacuum_events_low(basis: BasisCounts, epsilon: float) -> float:
    """Return a lower bound on detections of vacuum pulses, Rusca et al. 2018."""
    mu1, mu2 = basis.intensities.tolist()
    total = float(basis.counts.sum())
    delta = hoeffding_deviation(total, epsilon)
    low, high = scaled(basis, basis.counts, -delta), scaled(basis, basis.counts, delta)
    events = photon_number_probability(basis, 0) * (mu1 * low[1] - mu2 * high[0]) / (mu1 - mu2)
    return min(max(float(events), 0.0), total)


def vacuum_events_high(basis: BasisCounts, epsilon: float) -> float:
    """Return an upper bound on detections of vacuum pulses from the errors of the same basis.

    ``2 [tau_0 exp(k)/p_k (m_k + delta(m)) + delta(n)]``, the smaller one of both intensities: a vacuum
    pulse gives a random bit, so half of the vacuum events are errors.
    """
    total = float(basis.counts.sum())
    errors = scaled(basis, basis.errors, hoeffding_deviation(float(basis.errors.sum()), epsilon))
    return 2 * (
        photon_number_probability(basis, 0) * float(np.min(errors)) + hoeffding_deviation(total, epsilon)
    )


def single_photon_events(basis: BasisCounts, epsilon: float) -> float:
    """Return a lower bound on detections of single-photon pulses, Rusca et al. 2018."""
    mu1, mu2 = basis.intensities.tolist()
    total = float(basis.counts.sum())
    delta = hoeffding_deviation(total, epsilon)
    low, high = scaled(basis, basis.counts, -delta), scaled(basis, basis.counts, delta)
    tau_0, tau_1 = photon_number_probability(basis, 0), photon_number_probability(basis, 1)
    vacuum = (mu1**2 - mu2**2) / mu1**2 * vacuum_events_high(basis, epsilon) / tau_0
    multi = (mu2 / mu1) ** 2 * high[0]
    if not mu2 > 0:
        return 0.0
    events = tau_1 * mu1 / (mu2 * (mu1 - mu2)) * (low[1] - multi - vacuum)
    return min(max(float(events), 0.0), total)


def single_photon_errors(basis: BasisCounts, epsilon: float) -> float:
    """Return an upper bound on errors of single-photon pulses: tau_1 (m_1^+ - m_2^-)/(mu1 - mu2).

    An expected number of errors is never negative, so ``m_2^-`` is cut at zero: with the few errors of a
    test basis Hoeffding's lower tail often falls below.
    """
    mu1, mu2 = basis.intensities.tolist()
    delta = hoeffding_deviation(float(basis.errors.sum()), epsilon)
    low, high = scaled(basis, basis.errors, -delta), scaled(basis, basis.errors, delta)
    tau_1 = photon_number_probability(basis, 1)
    return max(0.0, float(tau_1 * (high[0] - max(low[1], 0.0)) / (mu1 - mu2)))
