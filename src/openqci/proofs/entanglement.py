"""BBM92 to secret bits: entangled pairs, no trust in the source, detectors trusted.

Both error rates are observed, so nothing has to be said of photon numbers: a double click that was given a
random bit is an error like another. Key bits are Z and test bits X, as everywhere in OpenQCI.

====================  =======================================================================
id                    source
====================  =======================================================================
``bbm92-finite``      the entropic argument of M. Tomamichel et al., Nat. Commun. 3, 634 (2012)
                      with the hypergeometric tail of a sample drawn without replacement
``bbm92-asymptotic``  X. Ma, C.-H. F. Fung, H.-K. Lo, PRA 76, 012307 (2007)
====================  =======================================================================
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from openqci.core.errors import OutsideModel

Floats = NDArray[np.float64]

BISECTIONS = 52
"""Until an interval below one half is as narrow as a double can tell."""

TEST_ERRORS = "the error rate of the test basis: nothing is left beside error correction"
SAMPLE_TOO_SMALL = "the test sample: it is too small to bound the phase error"
TOO_SMALL = "finite-size terms: the block is too small"


@dataclass(frozen=True)
class PairCounts:
    """Sifted coincidences of one block, or arrays of blocks that broadcast.

    Parameters
    ----------
    z_counts, z_errors : array_like
        In the key basis; errors are known once error correction is verified.
    x_counts, x_errors : array_like
        In the test basis, where both ends compared every bit.
    """

    z_counts: ArrayLike
    z_errors: ArrayLike
    x_counts: ArrayLike
    x_errors: ArrayLike

    def __post_init__(self) -> None:
        for basis, counts, errors in (
            ("z", self.z_counts, self.z_errors),
            ("x", self.x_counts, self.x_errors),
        ):
            n, m = np.asarray(counts, dtype=np.float64), np.asarray(errors, dtype=np.float64)
            if not (np.isfinite(n).all() and np.isfinite(m).all() and (n >= 0).all()):
                raise OutsideModel(f"{basis}_counts", counts, "finite numbers, zero or more")
            if not ((m >= 0) & (m <= n)).all():
                raise OutsideModel(f"{basis}_errors", errors, "from zero to the number of counts")


@dataclass(frozen=True)
class PairKey:
    """What a block gives, arrays of the shape of the counts; ``limited_by`` is empty where there is key."""

    length_bits: Floats
    unclipped_bits: Floats
    phase_error: Floats
    limited_by: NDArray[np.str_]


@dataclass(frozen=True)
class Bbm92Finite:
    """``l = n_Z [1 - h(phi)] - leak - 2 log2(1/(2 e)) - log2(2/epsilon_cor)``.

    ``epsilon_sec`` is three equal parts e: two for smoothing by the bound ``phi`` on the phase error, whose
    chance of failure is e squared, and one for privacy amplification. No error in the sample counts as one.
    """

    proof_id: str = "bbm92-finite"
    reference: str = "M. Tomamichel et al., Nat. Commun. 3, 634 (2012), with the hypergeometric tail"
    failure_terms: int = 3

    def secret_length(
        self, counts: PairCounts, leak_bits: ArrayLike, epsilon_sec: float, epsilon_cor: float
    ) -> PairKey:
        """Return the key of a block.

        Parameters
        ----------
        counts : PairCounts
        leak_bits : array_like
            What error correction disclosed; verification is paid for here.
        epsilon_sec, epsilon_cor : float
            Above 0 and below 1.
        """
        check_budget(leak_bits, epsilon_sec, epsilon_cor)
        epsilon = epsilon_sec / self.failure_terms
        key, sample = (np.asarray(each, dtype=np.float64) for each in (counts.z_counts, counts.x_counts))
        phase_error = sampled_error(np.asarray(counts.x_errors, dtype=np.float64), sample, key, epsilon**2)
        spent = np.asarray(leak_bits) + 2 * math.log2(1 / (2 * epsilon)) + math.log2(2 / epsilon_cor)
        unclipped = key * (1 - entropy_bits(phase_error)) - spent
        observed = np.asarray(counts.x_errors) / np.maximum(sample, 1.0)
        hopeless = key * (1 - entropy_bits(np.minimum(observed, 0.5))) <= np.asarray(leak_bits)
        return pair_key(unclipped, phase_error, hopeless)


@dataclass(frozen=True)
class Bbm92Asymptotic:
    """``n_Z [1 - h(e_X)] - leak`` for an endless block. For curves, not for keys."""

    proof_id: str = "bbm92-asymptotic"
    reference: str = "X. Ma, C.-H. F. Fung, H.-K. Lo, Phys. Rev. A 76, 012307 (2007), quant-ph/0703122"

    def secret_length(
        self, counts: PairCounts, leak_bits: ArrayLike, epsilon_sec: float, epsilon_cor: float
    ) -> PairKey:
        """Return the key of a block; the epsilons are checked and do not enter."""
        check_budget(leak_bits, epsilon_sec, epsilon_cor)
        sample = np.asarray(counts.x_counts, dtype=np.float64)
        errors = np.divide(counts.x_errors, sample, out=np.full(sample.shape, 0.5), where=sample > 0)
        phase_error = np.minimum(errors, 0.5)
        unclipped = np.asarray(counts.z_counts) * (1 - entropy_bits(phase_error)) - np.asarray(leak_bits)
        return pair_key(unclipped, phase_error, np.ones(np.shape(unclipped), dtype=bool))


def sampled_error(errors: Floats, sample: Floats, key: Floats, failure: float) -> Floats:
    """Return an upper bound on the error rate of ``key`` bits, of which ``sample`` others showed ``errors``.

    The largest rate that leaves a random sample at least ``failure`` of a chance to show no more errors than
    it did. At most one half; one half where there is nothing to estimate from. Arrays broadcast.

    Parameters
    ----------
    errors, sample, key : ndarray
    failure : float
        Chance that the bound is broken, above 0 and below 1.
    """
    enough = (sample > 1) & (key > 1)
    d, c = np.where(enough, sample, 2.0), np.where(enough, key, 2.0)
    seen = np.maximum(errors, 1.0) / d
    within = enough & (seen < 0.5)
    low = np.where(within, seen, 0.25) + 0 * c
    seen, high = low, np.full(np.shape(low), 0.5)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        possible = log_tail(seen, d, middle, c) > math.log(failure)
        low, high = np.where(possible, middle, low), np.where(possible, high, middle)
    return np.where(within, high, 0.5)


def log_tail(seen: Floats, sample: Floats, rest: Floats, key: Floats) -> Floats:
    """Return an upper bound on the logarithm of a hypergeometric tail.

    Of d + c bits, the d of a random sample hold a share v of errors or less, and so the other c a share w or
    more, where v < w. For k = d v and K = d v + c w errors in all,

        P(X <= k) <= P(X = k)/(1 - r),      r = P(X = k - 1)/P(X = k) = k (c - K + k)/[(d - k + 1)(K - k + 1)]

    as the terms of a hypergeometric sum fall at a growing pace, and with y = K/(c + d)

        P(X = k) <= sqrt{8 (c + d) y (1 - y)/[4 pi^2 d v (1 - v) c w (1 - w)]} exp[-d D(v||y) - c D(w||y)]

    from ``1/sqrt(8 n x (1 - x)) <= C(n, nx) exp(-n h(x)) <= 1/sqrt(2 pi n x (1 - x))``.

    References
    ----------
    F. J. MacWilliams, N. J. A. Sloane, The Theory of Error-Correcting Codes (1977), chapter 10, lemma 7.
    """
    v, d, w, c = seen, sample, rest, key
    y = (d * v + c * w) / (c + d)
    exponent = d * divergence(v, y) + c * divergence(w, y)
    spread = 2 * (c + d) * y * (1 - y) / (math.pi**2 * d * v * (1 - v) * c * w * (1 - w))
    pace = d * v * c * (1 - w) / ((d * (1 - v) + 1) * (c * w + 1))
    return np.asarray(0.5 * np.log(spread) - exponent - np.log1p(-pace))


def divergence(x: Floats, y: Floats) -> Floats:
    """Return the relative entropy D(x||y) of two coins in nats; both inside (0, 1)."""
    return np.asarray(x * np.log(x / y) + (1 - x) * np.log((1 - x) / (1 - y)))


def entropy_bits(x: Floats) -> Floats:
    """Return h(x) in bits, elementwise; h(0) = h(1) = 0."""
    inside = np.clip(x, 1e-300, 1 - 1e-16)
    return np.where((x > 0) & (x < 1), -inside * np.log2(inside) - (1 - inside) * np.log2(1 - inside), 0.0)


def pair_key(unclipped: Floats, phase_error: Floats, hopeless: NDArray[np.bool_]) -> PairKey:
    length = np.maximum(0.0, np.floor(unclipped))
    causes = np.select(
        [length > 0, hopeless, phase_error >= 0.5], ["", TEST_ERRORS, SAMPLE_TOO_SMALL], TOO_SMALL
    )
    return PairKey(length, np.asarray(unclipped), phase_error, causes)


def check_budget(leak_bits: ArrayLike, epsilon_sec: float, epsilon_cor: float) -> None:
    """Raise OutsideModel unless a leak is finite and not negative and both epsilons are inside (0, 1)."""
    leak = np.asarray(leak_bits, dtype=np.float64)
    if not (np.isfinite(leak).all() and (leak >= 0).all()):
        raise OutsideModel("leak_bits", leak_bits, "finite numbers, zero or more")
    for name, epsilon in (("epsilon_sec", epsilon_sec), ("epsilon_cor", epsilon_cor)):
        if not 0 < epsilon < 1:
            raise OutsideModel(name, epsilon, "above 0 and below 1")
