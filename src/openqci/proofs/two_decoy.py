"""The proof of Lim et al. for two decoys (signal, weak decoy, near-vacuum)."""

import math
from dataclasses import dataclass

from openqci.proofs.bounds import (
    hoeffding_deviation,
    key_length,
    phase_error_bound,
    photon_number_probability,
    scaled,
)
from openqci.proofs.counts import BasisCounts, DecoyCounts, KeyLength, check_budget


@dataclass(frozen=True)
class Lim2014:
    """Finite-key decoy-state BB84 with three intensities and Hoeffding tails.

    Key bits are Z and test bits X here; the paper has them the other way round. Needs
    ``mu1 > mu2 + mu3``; otherwise nothing is known of single photons and the length is 0.

    References
    ----------
    C. C. W. Lim, M. Curty, N. Walenta, F. Xu, H. Zbinden, "Concise security bounds for practical decoy-state
    quantum key distribution", Phys. Rev. A 89, 022307 (2014), arXiv:1311.7129, eqs (1)-(5). The leakage is
    a number of bits, not a rate (a printing error in eq. (1)).
    """

    proof_id: str = "lim-2014"
    reference: str = "C. C. W. Lim et al., Phys. Rev. A 89, 022307 (2014), arXiv:1311.7129"
    intensities: int = 3
    failure_terms: int = 21

    def secret_length_bits(
        self, counts: DecoyCounts, leak_bits: float, epsilon_sec: float, epsilon_cor: float
    ) -> KeyLength:
        """Return the key length, eq. (1); see :class:`~openqci.proofs.FiniteKeyProof`."""
        check_budget(counts, self.intensities, leak_bits, epsilon_sec, epsilon_cor)
        epsilon = epsilon_sec / self.failure_terms
        vacuum = vacuum_events(counts.z, epsilon)
        single = single_photon_events(counts.z, vacuum, epsilon)
        sample = single_photon_events(counts.x, vacuum_events(counts.x, epsilon), epsilon)
        phase_error = phase_error_bound(single_photon_errors(counts.x, epsilon), sample, single, epsilon)
        spent_bits = leak_bits + 6 * math.log2(1 / epsilon) + math.log2(2 / epsilon_cor)
        return key_length(vacuum, single, phase_error, spent_bits, epsilon_sec, epsilon_cor, self.proof_id)


def vacuum_events(basis: BasisCounts, epsilon: float) -> float:
    """Return a lower bound on detections of vacuum pulses, eq. (2)."""
    _, mu2, mu3 = basis.intensities.tolist()
    total = float(basis.counts.sum())
    delta = hoeffding_deviation(total, epsilon)
    low, high = scaled(basis, basis.counts, -delta), scaled(basis, basis.counts, delta)
    events = photon_number_probability(basis, 0) * (mu2 * low[2] - mu3 * high[1]) / (mu2 - mu3)
    return min(max(float(events), 0.0), total)


def single_photon_events(basis: BasisCounts, vacuum: float, epsilon: float) -> float:
    """Return a lower bound on detections of single-photon pulses, eq. (3)."""
    mu1, mu2, mu3 = basis.intensities.tolist()
    denominator = mu1 * (mu2 - mu3) - mu2**2 + mu3**2
    if denominator <= 0:
        return 0.0
    total = float(basis.counts.sum())
    delta = hoeffding_deviation(total, epsilon)
    low, high = scaled(basis, basis.counts, -delta), scaled(basis, basis.counts, delta)
    tau_0, tau_1 = photon_number_probability(basis, 0), photon_number_probability(basis, 1)
    multi = (mu2**2 - mu3**2) / mu1**2 * (high[0] - vacuum / tau_0)
    events = tau_1 * mu1 * (low[1] - high[2] - multi) / denominator
    return min(max(float(events), 0.0), total - vacuum)


def single_photon_errors(basis: BasisCounts, epsilon: float) -> float:
    """Return an upper bound on errors of single-photon pulses, eq. (4)."""
    _, mu2, mu3 = basis.intensities.tolist()
    delta = hoeffding_deviation(float(basis.errors.sum()), epsilon)
    low, high = scaled(basis, basis.errors, -delta), scaled(basis, basis.errors, delta)
    return max(0.0, float(photon_number_probability(basis, 1) * (high[1] - low[2]) / (mu2 - mu3)))
