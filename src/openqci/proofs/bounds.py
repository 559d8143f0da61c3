"""The arithmetic that the finite-key proofs share: tails, photon statistics, entropy, the last step.

Private to this package in spirit; a proof reads as its paper does when these have their names.
"""

import math

import numpy as np

from openqci.proofs.counts import BasisCounts, Floats, KeyLength


def binary_entropy(x: float) -> float:
    """Return h(x) in bits; h(0) = h(1) = 0."""
    if not 0 < x < 1:
        return 0.0
    return -x * math.log2(x) - (1 - x) * math.log2(1 - x)


def photon_number_probability(basis: BasisCounts, photons: int) -> float:
    """Return tau_n, the probability that a pulse of the source, of any intensity, has n photons."""
    k = basis.intensities
    return float(np.dot(basis.probabilities, np.exp(-k) * k**photons)) / math.factorial(photons)


def hoeffding_deviation(total: float, epsilon: float) -> float:
    """Return delta(n, e) = sqrt(n/2 ln(1/e)), Lim et al. 2014, below eq. (3)."""
    return math.sqrt(total / 2 * math.log(1 / epsilon))


def scaled(basis: BasisCounts, observed: Floats, deviation: float) -> Floats:
    """Return n_k^(+-) = exp(k)/p_k (n_k + deviation), shape (K,); may be below zero, as in the papers."""
    scaled_counts: Floats = np.exp(basis.intensities) / basis.probabilities * (observed + deviation)
    return scaled_counts


def phase_error_bound(errors: float, sample: float, key: float, epsilon: float) -> float:
    """Return an upper bound on the phase error rate of single-photon events of the key basis.

    Parameters
    ----------
    errors : float
        Upper bound on errors of single-photon events in the test basis.
    sample, key : float
        Lower bounds on single-photon events in the test and in the key basis.
    epsilon : float
        The one failure term of this estimate.

    Returns
    -------
    float
        ``v/s + gamma``, at most one half; one half when there is nothing to estimate from.

    References
    ----------
    C. C. W. Lim et al., PRA 89, 022307 (2014), eq. (5) with the gamma below it; its ``21^2/a^2`` is
    ``1/epsilon^2`` here. C.-H. F. Fung, X. Ma, H. F. Chau, PRA 81, 012318 (2010).
    """
    if sample <= 1 or key <= 1:
        return 0.5
    # Without an observed error gamma would degenerate: one error is assumed then.
    rate = max(errors, 1.0) / sample
    if rate >= 0.5:
        return 0.5
    spread = (sample + key) / (sample * key * (1 - rate) * rate)
    gamma = math.sqrt(
        (sample + key) * (1 - rate) * rate / (sample * key * math.log(2)) * math.log2(spread / epsilon**2)
        if spread > epsilon**2
        else 0.0
    )
    return min(0.5, rate + gamma)


def key_length(
    vacuum_bits: float,
    single_photon_bits: float,
    phase_error: float,
    spent_bits: float,
    epsilon_sec: float,
    epsilon_cor: float,
    proof_id: str,
) -> KeyLength:
    """Return s_0 + s_1 (1 - h(phi)) less all that is spent, as a length that is never negative."""
    unclipped_bits = vacuum_bits + single_photon_bits * (1 - binary_entropy(phase_error)) - spent_bits
    return KeyLength(
        length_bits=max(0, math.floor(unclipped_bits)),
        unclipped_bits=unclipped_bits,
        phase_error=phase_error,
        single_photon_bits=single_photon_bits,
        vacuum_bits=vacuum_bits,
        epsilon_sec=epsilon_sec,
        epsilon_cor=epsilon_cor,
        proof_id=proof_id,
    )
