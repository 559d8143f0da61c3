"""The proof of Lim et al. for two decoys (signal, weak decoy, near-vacuum), with the tail of one's choice."""

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
from openqci.proofs.tails import Chernoff, Hoeffding, Tail


@dataclass(frozen=True)
class TwoDecoyProof:
    """Finite-key decoy-state BB84 with three intensities.

    Key bits are Z and test bits X here; the paper has them the other way round. Needs
    ``mu1 > mu2 + mu3``; otherwise nothing is known of single photons and the length is 0.

    References
    ----------
    C. C. W. Lim, M. Curty, N. Walenta, F. Xu, H. Zbinden, "Concise security bounds for practical decoy-state
    quantum key distribution", Phys. Rev. A 89, 022307 (2014), arXiv:1311.7129, eqs (1)-(5). The leakage is
    a number of bits, not a rate (a printing error in eq. (1)).
    """

    proof_id: str
    reference: str
    tail: Tail
    intensities: int = 3
    failure_terms: int = 21
    errors_capped: bool = False
    """Whether errors of single photons are at most all errors that were seen, which nobody can doubt."""

    def secret_length_bits(
        self, counts: DecoyCounts, leak_bits: float, epsilon_sec: float, epsilon_cor: float
    ) -> KeyLength:
        """Return the key length, eq. (1); see :class:`~openqci.proofs.FiniteKeyProof`."""
        check_budget(counts, self.intensities, leak_bits, epsilon_sec, epsilon_cor)
        lengths = self.secret_lengths(counts.as_arrays(), leak_bits, epsilon_sec, epsilon_cor)
        return one_length(lengths, epsilon_sec, epsilon_cor, self.proof_id)

    def secret_lengths(
        self, counts: CountArrays, leak_bits: ArrayLike, epsilon_sec: float, epsilon_cor: float
    ) -> KeyLengths:
        """Return the lengths of many blocks at once."""
        check_epsilons(epsilon_sec, epsilon_cor)
        epsilon = epsilon_sec / self.failure_terms
        vacuum, key = single_photon_events(counts.z, self.tail, epsilon)
        _, sample = single_photon_events(counts.x, self.tail, epsilon)
        errors = single_photon_errors(counts.x, self.tail, epsilon)
        if self.errors_capped:
            errors = np.minimum(errors, counts.x.errors.sum(axis=-1))
        known = SinglePhotons(vacuum, key, sample, phase_error_bound(errors, sample, key, epsilon))
        return key_lengths(known, leak_bits, 6 * math.log2(1 / epsilon), epsilon_cor)


LIM_2014 = TwoDecoyProof(
    proof_id="lim-2014",
    reference="C. C. W. Lim et al., Phys. Rev. A 89, 022307 (2014), arXiv:1311.7129",
    tail=Hoeffding(),
)

LIM_2014_CHERNOFF = TwoDecoyProof(
    proof_id="lim-2014-chernoff",
    reference="C. C. W. Lim et al., Phys. Rev. A 89, 022307 (2014), with the tail of H.-L. Yin et al., "
    "Sci. Rep. 10, 14312 (2020), for each count",
    tail=Chernoff(),
)
"""The same argument with a tighter tail for each count instead of the total. The number of failure terms
stays 21, as in the satellite toolkit SatQuMA; the constants of Yin et al. were not read."""

LIM_2014_CHERNOFF_CAPPED = TwoDecoyProof(
    proof_id="lim-2014-chernoff-capped",
    reference=f"{LIM_2014_CHERNOFF.reference}; errors of single photons capped by all that were seen, as in "
    "SatQuMA (D. McArthur, J. S. Sidhu et al.)",
    tail=Chernoff(),
    errors_capped=True,
)
"""The bound of eq. (4) grows without end as decoys get rare; the errors of single photons are among those
that were counted. The cap needs no epsilon. It is not in the paper, and so a proof of its own."""


def single_photon_events(basis: BasisCounts, tail: Tail, epsilon: float) -> tuple[Floats, Floats]:
    """Return lower bounds on detections of vacuum and of single-photon pulses, eqs (2) and (3)."""
    mu1, mu2, mu3 = (basis.intensities[..., k] for k in range(3))
    low = scaled(basis, tail.below(basis.counts, epsilon))
    high = scaled(basis, tail.above(basis.counts, epsilon))
    tau_0, tau_1 = photon_number_probability(basis, 0), photon_number_probability(basis, 1)
    total = basis.counts.sum(axis=-1)
    vacuum = tau_0 * (mu2 * low[..., 2] - mu3 * high[..., 1]) / (mu2 - mu3)
    vacuum = np.minimum(np.maximum(vacuum, 0.0), total)
    denominator = mu1 * (mu2 - mu3) - mu2**2 + mu3**2
    multi = (mu2**2 - mu3**2) / mu1**2 * (high[..., 0] - vacuum / tau_0)
    # Without mu1 > mu2 + mu3 the bound has no meaning; the quotient is then not used.
    events = tau_1 * mu1 * (low[..., 1] - high[..., 2] - multi) / np.where(denominator > 0, denominator, 1.0)
    single = np.minimum(np.maximum(events, 0.0), total - vacuum)
    return vacuum, np.where(denominator > 0, single, 0.0)


def single_photon_errors(basis: BasisCounts, tail: Tail, epsilon: float) -> Floats:
    """Return an upper bound on errors of single-photon pulses, eq. (4)."""
    mu2, mu3 = basis.intensities[..., 1], basis.intensities[..., 2]
    low = scaled(basis, tail.below(basis.errors, epsilon))
    high = scaled(basis, tail.above(basis.errors, epsilon))
    errors = photon_number_probability(basis, 1) * (high[..., 1] - low[..., 2]) / (mu2 - mu3)
    return np.maximum(0.0, errors)
