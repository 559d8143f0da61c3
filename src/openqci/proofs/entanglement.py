"""BBM92 to secret bits: entangled pairs, no trust in the source, detectors trusted.

Both error rates are observed, so nothing has to be said of photon numbers: a double click that was given a
random bit is an error like another. Key bits are Z and test bits X, as everywhere in OpenQCI.

====================  =======================================================================
id                    source
====================  =======================================================================
``bbm92-finite``      the entropic argument of M. Tomamichel et al., Nat. Commun. 3, 634 (2012)
                      with the sampling bound of C.-H. F. Fung et al., PRA 81, 012318 (2010)
``bbm92-asymptotic``  X. Ma, C.-H. F. Fung, H.-K. Lo, PRA 76, 012307 (2007)
====================  =======================================================================
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from openqci.core.errors import OutsideModel

Floats = NDArray[np.float64]

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
    """``l = n_Z [1 - h(e_X + gamma)] - leak - 2 log2(1/(2 e)) - log2(2/epsilon_cor)``.

    ``epsilon_sec`` is spent in two equal parts e: the sampling bound gamma, and smoothing with privacy
    amplification. The deviation gamma is that of a sample without replacement, the same as in the decoy
    proofs, without their photon-number terms. No error in the sample counts as one.
    """

    proof_id: str = "bbm92-finite"
    reference: str = "M. Tomamichel et al., Nat. Commun. 3, 634 (2012); C.-H. F. Fung et al., PRA 81, 012318"
    failure_terms: int = 2

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
        phase_error = sampled_error(np.asarray(counts.x_errors, dtype=np.float64), sample, key, epsilon)
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


def sampled_error(errors: Floats, sample: Floats, key: Floats, epsilon: float) -> Floats:
    """Return an upper bound on the error rate of ``key`` bits, of which ``sample`` others showed ``errors``.

    ``v + gamma``, ``gamma^2 = (c + d)(1 - v) v/(c d ln 2) log2[(c + d)/(c d (1 - v) v e^2)]``, at most one
    half; one half where there is nothing to estimate from. Arrays broadcast.

    References
    ----------
    C.-H. F. Fung, X. Ma, H. F. Chau, PRA 81, 012318 (2010); C. C. W. Lim et al., PRA 89, 022307, eq. (5).
    """
    enough = (sample > 1) & (key > 1)
    d, c = np.where(enough, sample, 2.0), np.where(enough, key, 2.0)
    rate = np.maximum(errors, 1.0) / d
    inside = np.clip(rate, 1e-300, 0.5)
    spread = (c + d) / (c * d * (1 - inside) * inside)
    log_term = np.maximum(np.log2(spread) - 2 * math.log2(epsilon), 0.0)
    gamma = np.sqrt((c + d) * (1 - inside) * inside / (c * d * math.log(2)) * log_term)
    return np.where(enough & (rate < 0.5), np.minimum(0.5, inside + gamma), 0.5)


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
