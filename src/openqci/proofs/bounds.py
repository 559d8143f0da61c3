"""The arithmetic that the finite-key proofs share: photon statistics, entropy, phase error, the last step.

Private to this package in spirit; a proof reads as its paper does when these have their names. Everything
takes arrays; one block is an array without axes.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from openqci.core.errors import OutsideModel
from openqci.proofs.counts import BasisCounts, Floats, KeyLengths

LOWEST = 1e-300
"""Stands for zero where a logarithm is taken of what is multiplied with zero afterwards."""


def binary_entropy(x: float) -> float:
    """Return h(x) in bits; h(0) = h(1) = 0."""
    if not 0 < x < 1:
        return 0.0
    return -x * math.log2(x) - (1 - x) * math.log2(1 - x)


def entropies(x: Floats) -> Floats:
    """Return h(x) in bits of values from 0 to 1, elementwise."""
    inside = np.clip(x, LOWEST, 1 - 1e-16)
    return np.where((x > 0) & (x < 1), -inside * np.log2(inside) - (1 - inside) * np.log2(1 - inside), 0.0)


def photon_number_probability(basis: BasisCounts, photons: int) -> Floats:
    """Return tau_n, the probability that a pulse of the source, of any intensity, has n photons."""
    k = basis.intensities
    terms = basis.probabilities * basis.faintness
    return np.asarray((terms * k**photons if photons else terms).sum(axis=-1) / math.factorial(photons))


def scaled(basis: BasisCounts, means: Floats) -> Floats:
    """Return ``exp(k)/p_k n_k``, shape (..., K); may be below zero, as in the papers."""
    return np.asarray(means / (basis.faintness * basis.probabilities))


def phase_error_bound(errors: Floats, sample: Floats, key: Floats, epsilon: float) -> Floats:
    """Return an upper bound on the phase error rate of single-photon events of the key basis.

    Parameters
    ----------
    errors : ndarray, shape S
        Upper bound on errors of single-photon events in the test basis.
    sample, key : ndarray, shape S
        Lower bounds on single-photon events in the test and in the key basis.
    epsilon : float
        The one failure term of this estimate.

    Returns
    -------
    ndarray, shape S
        ``v/s + gamma``, at most one half; one half when there is nothing to estimate from.

    References
    ----------
    C. C. W. Lim et al., PRA 89, 022307 (2014), eq. (5) with the gamma below it; its ``21^2/a^2`` is
    ``1/epsilon^2`` here. C.-H. F. Fung, X. Ma, H. F. Chau, PRA 81, 012318 (2010).
    """
    enough = (sample > 1) & (key > 1)
    d, c = np.where(enough, sample, 2.0), np.where(enough, key, 2.0)
    # Without an observed error gamma would degenerate: one error is assumed then.
    rate = np.maximum(errors, 1.0) / d
    inside = np.minimum(rate, 0.5)
    both = (c + d) / (c * d)
    varied = (1 - inside) * inside
    excess_bits = np.maximum(0.0, np.log2(both / varied) - 2 * math.log2(epsilon))
    gamma = np.sqrt(both * varied * excess_bits / math.log(2))
    return np.where(enough & (rate < 0.5), np.minimum(0.5, inside + gamma), 0.5)


@dataclass(frozen=True)
class SinglePhotons:
    """What a proof knows of a block, arrays of shape S: bounds on events of the key and the test basis."""

    vacuum: Floats
    key: Floats
    sample: Floats
    phase_error: Floats


def key_lengths(
    known: SinglePhotons, leak_bits: ArrayLike, amplification_bits: float, epsilon_cor: float
) -> KeyLengths:
    """Return s_0 + s_1 (1 - h(phi)) less all that is spent, as lengths that are never negative."""
    private_bits = known.vacuum + known.key * (1 - entropies(known.phase_error))
    leak = np.asarray(leak_bits, dtype=np.float64)
    finite_bits = amplification_bits + math.log2(2 / epsilon_cor)
    return KeyLengths(
        unclipped_bits=np.asarray(private_bits - leak - finite_bits),
        phase_error=known.phase_error,
        single_photon_bits=known.key,
        vacuum_bits=known.vacuum,
        sample_bits=known.sample,
        private_bits=private_bits,
        leak_bits=leak,
    )


def checked(parameter: str, values: ArrayLike, low: float, high: float) -> Floats:
    """Return values as an array; raise OutsideModel unless all are from low to high, which NaN never is."""
    array = np.asarray(values, dtype=np.float64)
    if not ((array >= low) & (array <= high)).all():
        raise OutsideModel(parameter, values, f"finite numbers from {low:g} to {high:g}")
    return array
