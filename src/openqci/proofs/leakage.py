"""How many bits error correction will disclose: for planning, where no block has been reconciled yet.

A running link books what it really disclosed; these figures never enter its keys. Importing this module
imports SciPy, which the workers of a key server do without; nothing else in this package needs it.

>>> planned_leak_bits(1e6, [0.01, 0.03], 1.16).round().tolist()
[93720.0, 225495.0]
>>> float(one_way_leak_bits(1e6, 0.03, 1e-10).round())
199815.0

Read :mod:`openqci.proofs.bounds` for the entropies.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtrik, betainc

from openqci.proofs.bounds import checked, entropies
from openqci.proofs.counts import Floats

SIFTED_BITS_MAX = 1e15
"""The quantile is exact to 1e9 bits and off by a few tens above, which is nothing beside its spread."""


def planned_leak_bits(sifted_bits: ArrayLike, qber: ArrayLike, efficiency: ArrayLike) -> Floats:
    """Return ``f n h(E)``.

    Parameters
    ----------
    sifted_bits : array_like, shape S (all broadcast)
        n, bits of the key basis, 0 to 1e15.
    qber : array_like
        E, 0 to 0.5.
    efficiency : array_like
        f, 1 or more; 1.16 is usual in finite-key papers, 1.05 to 1.1 what good codes reach in large blocks.

    Returns
    -------
    ndarray, shape S
        Bits, without the verification tag.
    """
    n = checked("sifted_bits", sifted_bits, 0.0, SIFTED_BITS_MAX)
    error = checked("qber", qber, 0.0, 0.5)
    return np.asarray(checked("efficiency", efficiency, 1.0, 100.0) * n * entropies(error))


def one_way_leak_bits(sifted_bits: ArrayLike, qber: ArrayLike, epsilon_cor: ArrayLike) -> Floats:
    """Return the fewest bits with which any one-way code corrects a block but for a chance of epsilon.

    ``n h(E) + [n (1 - E) - F(eps (1 + 1/sqrt n)) - 1] log2((1 - E)/E) - log2(n)/2 - log2(1/eps)``, with F the
    quantile of the binomial distribution of n trials that succeed with 1 - E. All logarithms are of base 2;
    a widely used program takes natural ones for the last three terms, which asks for too little.

    Parameters
    ----------
    sifted_bits : array_like, shape S (all broadcast)
        n, 0 to 1e15; parts of a bit are left away in the quantile.
    qber : array_like
        E, 0 to 0.5.
    epsilon_cor : array_like
        Chance of an uncorrected block, above 0 and below 1.

    Returns
    -------
    ndarray, shape S
        Bits, zero or more. A bound for codes with one message; Cascade talks both ways and may go below.

    References
    ----------
    M. Tomamichel, J. Martinez-Mateo, C. Pacher, D. Elkouss, Quantum Inf. Process. 16, 280 (2017),
    arXiv:1401.5194; the form as public code states it, unverified against the paper.
    """
    n = checked("sifted_bits", sifted_bits, 0.0, SIFTED_BITS_MAX)
    error = checked("qber", qber, 0.0, 0.5)
    epsilon = checked("epsilon_cor", epsilon_cor, 1e-300, 1 - 1e-16)
    n, error, epsilon = np.broadcast_arrays(n, error, epsilon)
    noisy = (n >= 1) & (error > 0)
    trials, wrong = np.where(noisy, n, 1.0), np.where(noisy, error, 0.5)
    chance = np.minimum(epsilon * (1 + 1 / np.sqrt(trials)), 1.0)
    excess = trials * (1 - wrong) - binomial_quantile(chance, trials, 1 - wrong) - 1
    leak = (
        trials * entropies(wrong)
        + excess * (np.log2(1 - wrong) - np.log2(wrong))
        - np.log2(trials) / 2
        + np.log2(epsilon)
    )
    return np.where(noisy, np.maximum(0.0, leak), 0.0)


def finite_size_leak_bits(
    sifted_bits: ArrayLike, qber: ArrayLike, efficiency: ArrayLike, epsilon_cor: ArrayLike
) -> Floats:
    """Return the leak of a code of efficiency f, or of the best one-way code where that discloses more."""
    planned = planned_leak_bits(sifted_bits, qber, efficiency)
    return np.maximum(planned, one_way_leak_bits(sifted_bits, qber, epsilon_cor))


def binomial_quantile(chance: Floats, trials: Floats, success: Floats) -> Floats:
    """Return the smallest k with P(successes <= k) of at least ``chance``; trials are rounded down."""
    whole = np.floor(trials)
    k = np.clip(np.ceil(bdtrik(chance, whole, success)), 0.0, whole)
    one_less = np.maximum(k - 1, 0.0)
    # P(successes <= k) as an incomplete beta function, which takes numbers of any size.
    reached = betainc(np.maximum(whole - one_less, 1e-9), one_less + 1, 1 - success)
    return np.where((reached >= chance) | (one_less >= whole), one_less, k)
