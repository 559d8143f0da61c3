"""GG02 to secret bits: Gaussian-modulated coherent states with homodyne or heterodyne detection.

Quadratures are in shot-noise units (SNU), the excess noise ``xi`` is at the *input of the channel*, and
reconciliation is reverse (Alice corrects to Bob). Collective attacks. What Eve holds follows from the
covariance matrix of Alice, Bob and, where it is trusted, Bob's detector:

- **trusted**: loss and electronic noise of the detector are Bob's own and Eve has no part in them;
- **calibrated**: the noise ``v_el`` is known and Eve has no part in it, but the light that the detector loses
  is given to her (in the spirit of arXiv:2505.20441, of which only the abstract was read; the model is ours);
- **untrusted**: loss and noise are both counted as the channel's.

=========================  ==========================================================================
id                         source
=========================  ==========================================================================
``gg02-asymptotic``        J. Lodewyck et al., PRA 76, 042305 (2007); S. Fossier et al., J. Phys. B 42,
                           114014 (2009): ``K = beta I_AB - chi_BE``
``gg02-leverrier-2010``    A. Leverrier, F. Grosshans, P. Grangier, PRA 81, 062343 (2010), constants not
                           checked against the paper
``gg02-composable``        S. Pirandola, PR Research 3, 043279 (2021) as public code states it, not checked
                           against the paper
=========================  ==========================================================================

All functions take arrays and broadcast. Rates are bits per symbol. Left out: discrete modulation, coherent
attacks beyond what the composable form allows, imperfect modulation. Read :mod:`openqci.quantum.gg02` next.
"""

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from openqci.core.errors import ConfigurationError, OutsideModel

Floats = NDArray[np.float64]

AMPLITUDE_MIN = 1e-9
"""A channel that could not be estimated at all: Eve has everything, and nothing is divided by zero."""

EXCESS_NOISE_SNU_MAX = 1e6

ENDLESS_GIVES_NONE = "the noise: Eve may know more than reconciliation gets, even in an endless block"
ESTIMATION_TOOK_IT = "estimation: the worst channel that so few symbols allow"
TOO_SMALL = "finite-size terms: the block is too small"

Detection = Literal["homodyne", "heterodyne"]
DetectorTrust = Literal["trusted", "calibrated", "untrusted"]


@dataclass(frozen=True)
class GaussianChannel:
    """What a block of quadratures says of modulation, channel and detector; all fields broadcast to shape S.

    Parameters
    ----------
    modulation_variance_snu : array_like
        V_A, above 0.
    transmittance : array_like
        T of the channel without the detector, above 0 and at most 1.
    excess_noise_snu : array_like
        xi at the channel input, 0 or more.
    detector_efficiency : array_like
        eta, above 0 and at most 1.
    electronic_noise_snu : array_like
        v_el, 0 or more.
    detection : {"homodyne", "heterodyne"}
    detector_trust : {"trusted", "calibrated", "untrusted"}

    Raises
    ------
    OutsideModel
        Names the field and its range.
    """

    modulation_variance_snu: ArrayLike
    transmittance: ArrayLike
    excess_noise_snu: ArrayLike
    detector_efficiency: ArrayLike
    electronic_noise_snu: ArrayLike
    detection: Detection = "homodyne"
    detector_trust: DetectorTrust = "trusted"

    def __post_init__(self) -> None:
        check_array("modulation_variance_snu", self.modulation_variance_snu, 1e-9, 1e6)
        check_array("transmittance", self.transmittance, 1e-20, 1.0)
        check_array("excess_noise_snu", self.excess_noise_snu, 0.0, 1e6)
        check_array("detector_efficiency", self.detector_efficiency, 1e-6, 1.0)
        check_array("electronic_noise_snu", self.electronic_noise_snu, 0.0, 1e3)
        check_word("detection", self.detection, get_args(Detection))
        check_word("detector_trust", self.detector_trust, get_args(DetectorTrust))

    @property
    def total_transmittance(self) -> Floats:
        """``eta T``: from Alice's output to the photocurrent."""
        return np.multiply(self.detector_efficiency, self.transmittance).astype(np.float64)

    @property
    def symbol_variance_snu(self) -> Floats:
        """Variance of one of Bob's quadratures given Alice's symbol, at the photocurrent.

        ``1 + v_el + eta T xi`` for homodyne; for heterodyne the light is halved, ``1 + v_el + eta T xi / 2``.
        """
        share = 1.0 if self.detection == "homodyne" else 0.5
        noise = share * self.total_transmittance * np.asarray(self.excess_noise_snu)
        return np.asarray(1 + np.asarray(self.electronic_noise_snu) + noise, dtype=np.float64)

    @property
    def signal_variance_snu(self) -> Floats:
        """Variance of one of Bob's quadratures that Alice's symbol causes, at the photocurrent."""
        share = 1.0 if self.detection == "homodyne" else 0.5
        variance = np.asarray(self.modulation_variance_snu, dtype=np.float64)
        return np.asarray(share * self.total_transmittance * variance)

    def signal_to_noise(self) -> Floats:
        """Return signal over noise of one quadrature at the photocurrent."""
        return np.asarray(self.signal_variance_snu / self.symbol_variance_snu)

    def mutual_information_bits(self) -> Floats:
        """Return I_AB in bits per symbol: ``log2(1 + SNR)``, half of it for one quadrature."""
        quadratures = 1 if self.detection == "homodyne" else 2
        return np.asarray(quadratures / 2 * np.log1p(self.signal_to_noise()) / math.log(2))

    def holevo_bits(self) -> Floats:
        """Return chi_BE, what Eve may know of Bob's symbol, in bits per symbol.

        ``S(AB) - S(AB | b)`` by the symplectic eigenvalues of the two states; A, B, C and D of the papers
        enter as ``A - 2`` and ``B - A + 1``, ``C - 2`` and ``D - C + 1``. Exact to some 1e-14 bits, so
        that it means nothing beyond 100 dB.
        """
        m, t, xi, eta, v_el = self._as_seen_by_eve()
        bob = 1 + t * (m + xi)
        s = m * (1 - t) + t * xi * (1 + m)
        # For both states: the sum and the product of lambda^2 - 1, written without the differences of large
        # numbers that A^2 - 4B and lambda - 1 are made of at low T.
        sum_ab = 2 * m * (1 - t) + 2 * t * xi + (m * (1 - t)) ** 2 + t**2 * xi * (2 * m + xi)
        product_ab = m * (m + 2) * t * xi * (2 * (1 - t) + t * xi)
        alice = 2 * m * (1 - t) + t * xi * m + m * s
        if self.detection == "homodyne":
            added = (1 + v_el) / eta - 1
            sum_after = (alice + sum_ab * added) / (bob + added)
            product_after = product_ab * added / (bob + added)
        else:
            added = (1 + (1 - eta) + 2 * v_el) / eta
            rest = s**2 + 2 * bob * (m * (1 - t) - t * xi)
            sum_after = (sum_ab * added**2 + 2 * added * alice + rest) / (bob + added) ** 2
            product_after = product_ab * (added**2 - 1) / (bob + added) ** 2
        return np.maximum(0.0, _entropy_bits(sum_ab, product_ab) - _entropy_bits(sum_after, product_after))

    def asymptotic_bits(self, reconciliation_efficiency: ArrayLike) -> Floats:
        """Return ``beta I_AB - chi_BE`` in bits per symbol, not cut off at zero."""
        check_array("reconciliation_efficiency", reconciliation_efficiency, 1e-6, 1.0)
        return np.asarray(
            np.multiply(reconciliation_efficiency, self.mutual_information_bits()) - self.holevo_bits()
        )

    def _as_seen_by_eve(self) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """Return V_A, T, xi, eta, v_el with what is not trusted moved into the channel."""
        v = np.asarray(self.modulation_variance_snu, dtype=np.float64)
        t = np.asarray(self.transmittance, dtype=np.float64)
        xi = np.asarray(self.excess_noise_snu, dtype=np.float64)
        eta = np.asarray(self.detector_efficiency, dtype=np.float64)
        v_el = np.asarray(self.electronic_noise_snu, dtype=np.float64)
        if self.detector_trust == "trusted":
            return v, t, xi, eta, v_el
        if self.detector_trust == "calibrated":
            return v, eta * t, xi, np.ones_like(eta), v_el
        # Heterodyne halves the light before the noise is added: referred to the input it weighs twice.
        weight = 1.0 if self.detection == "homodyne" else 2.0
        return v, eta * t, xi + weight * v_el / (eta * t), np.ones_like(eta), np.zeros_like(v_el)


@dataclass(frozen=True)
class GaussianBlock:
    """A block of quadratures of which a part was disclosed to estimate the channel; broadcasts to shape S.

    Parameters
    ----------
    channel : GaussianChannel
        As estimated.
    symbols : array_like
        N, all of the block, 2 or more.
    estimation_fraction : float
        Part that was disclosed; the rest is ``n``.
    reconciliation_efficiency : array_like
        beta: of the mutual information, the part that reconciliation got, above 0 and at most 1.
    frame_error_rate : array_like
        Part of the frames that was thrown away because reconciliation failed, 0 to below 1.
    """

    channel: GaussianChannel
    symbols: ArrayLike
    estimation_fraction: float
    reconciliation_efficiency: ArrayLike
    frame_error_rate: ArrayLike = 0.0

    def __post_init__(self) -> None:
        check_array("symbols", self.symbols, 2.0, 1e30)
        check_array("estimation_fraction", self.estimation_fraction, 1e-9, 1 - 1e-9)
        check_array("reconciliation_efficiency", self.reconciliation_efficiency, 1e-6, 1.0)
        check_array("frame_error_rate", self.frame_error_rate, 0.0, 1 - 1e-9)

    @property
    def disclosed(self) -> Floats:
        """m, symbols that the channel is estimated from."""
        return np.asarray(np.multiply(self.symbols, self.estimation_fraction), dtype=np.float64)

    @property
    def kept(self) -> Floats:
        """n, symbols that key is made of."""
        return np.asarray(np.multiply(self.symbols, 1 - self.estimation_fraction), dtype=np.float64)

    def worst_channel(self, epsilon: float) -> GaussianChannel:
        """Return the worst channel that the estimate allows, but for a chance of ``epsilon``.

        ``t - z sqrt(s2/(m V_A))`` with ``t = sqrt(eta T)``, and the noise ``s2 (1 + z sqrt(2/m))``; z is the
        two-sided normal quantile. Heterodyne detection gives two values per symbol, of half the signal.
        """
        seen = self.channel
        quantile = -NormalDist().inv_cdf(epsilon / 2)
        values = self.disclosed * (1 if seen.detection == "homodyne" else 2)
        share = 1.0 if seen.detection == "homodyne" else 0.5
        variance = seen.symbol_variance_snu
        amplitude = np.sqrt(share * seen.total_transmittance)
        spread = quantile * np.sqrt(variance / (values * np.asarray(seen.modulation_variance_snu)))
        lowest = np.maximum(amplitude - spread, AMPLITUDE_MIN)
        noise = variance * (1 + quantile * np.sqrt(2 / values)) - 1 - np.asarray(seen.electronic_noise_snu)
        return replace(
            seen,
            transmittance=lowest**2 / (share * np.asarray(seen.detector_efficiency)),
            excess_noise_snu=np.minimum(np.maximum(noise, 0.0) / lowest**2, EXCESS_NOISE_SNU_MAX),
        )


@dataclass(frozen=True)
class GaussianKey:
    """What a block gives, arrays of shape S; ``limited_by`` names, where there is no key, what took it."""

    length_bits: Floats
    unclipped_bits: Floats
    bits_per_symbol: Floats
    mutual_information_bits: Floats
    holevo_bits: Floats
    limited_by: NDArray[np.str_]


class GaussianProof(Protocol):
    """One security proof for quadratures: id, reference, one verb."""

    @property
    def proof_id(self) -> str: ...

    @property
    def reference(self) -> str: ...

    def secret_length(self, block: GaussianBlock, epsilon_sec: float, epsilon_cor: float) -> GaussianKey:
        """Return the key of a block for a secrecy and a correctness, each above 0 and below 1."""


@dataclass(frozen=True)
class Asymptotic:
    """``K = beta I_AB - chi_BE`` of an endless block, nothing disclosed. For curves, not for keys."""

    proof_id: str = "gg02-asymptotic"
    reference: str = "J. Lodewyck et al., Phys. Rev. A 76, 042305 (2007), arXiv:0706.4255"

    def secret_length(self, block: GaussianBlock, epsilon_sec: float, epsilon_cor: float) -> GaussianKey:
        """Return ``N (1 - FER) K``; see :class:`GaussianProof`. The epsilons are checked and do not enter."""
        check_epsilons(epsilon_sec, epsilon_cor)
        kept = np.asarray(block.symbols, dtype=np.float64)
        return _key(block, block.channel, kept, np.zeros_like(kept))


@dataclass(frozen=True)
class Leverrier2010:
    """Worst-case channel parameters and the smoothing term of Leverrier, Grosshans and Grangier.

    ``epsilon_sec`` is spent in three equal parts: estimation, smoothing, privacy amplification. The length is
    ``(1 - FER) n [beta I - chi_worst - Delta(n)]`` with ``Delta = 7 sqrt(log2(2/e)/n) + (2/n) log2(1/e)``,
    less ``log2(2/epsilon_cor)`` for verification. Not checked against the paper: the constants, and that the
    reconciled information is taken at the estimate and not at its lower limit.
    """

    proof_id: str = "gg02-leverrier-2010"
    reference: str = "A. Leverrier, F. Grosshans, P. Grangier, Phys. Rev. A 81, 062343 (2010)"
    failure_terms: int = 3

    def secret_length(self, block: GaussianBlock, epsilon_sec: float, epsilon_cor: float) -> GaussianKey:
        """Return the key of a block; see :class:`GaussianProof`."""
        check_epsilons(epsilon_sec, epsilon_cor)
        epsilon = epsilon_sec / self.failure_terms
        kept = block.kept
        spent = 7 * np.sqrt(kept * math.log2(2 / epsilon)) + 2 * math.log2(1 / epsilon)
        return _key(block, block.worst_channel(epsilon), kept, spent + math.log2(2 / epsilon_cor))


@dataclass(frozen=True)
class Composable:
    """The composable length for collective attacks with quadratures read out in ``symbol_bits`` bits.

    ``(1 - FER) {n [beta I - chi_worst] - sqrt(n) D + Theta}`` with
    ``D = 4 log2(2^(d/2) + 2) sqrt(log2(2/e_s^2))`` for d bits per symbol and
    ``Theta = log2(2 e_h^2 epsilon_cor)``; ``epsilon_sec`` is spent in three equal
    parts: estimation, smoothing, hashing. As public code states it; not checked against the paper.
    """

    proof_id: str = "gg02-composable"
    reference: str = "S. Pirandola, Phys. Rev. Research 3, 043279 (2021)"
    failure_terms: int = 3
    symbol_bits: int = 5

    def secret_length(self, block: GaussianBlock, epsilon_sec: float, epsilon_cor: float) -> GaussianKey:
        """Return the key of a block; see :class:`GaussianProof`."""
        check_epsilons(epsilon_sec, epsilon_cor)
        epsilon = epsilon_sec / self.failure_terms
        kept = block.kept
        smoothing = 4 * math.log2(2 ** (self.symbol_bits / 2) + 2) * math.sqrt(math.log2(2 / epsilon**2))
        spent = np.sqrt(kept) * smoothing - math.log2(2 * epsilon**2 * epsilon_cor)
        return _key(block, block.worst_channel(epsilon), kept, spent)


_PROOFS: dict[str, GaussianProof] = {
    each.proof_id: each for each in (Leverrier2010(), Composable(), Asymptotic())
}


def gaussian_proof(proof_id: str) -> GaussianProof:
    """Return the proof of this id; ConfigurationError names those that there are."""
    if proof_id not in _PROOFS:
        raise ConfigurationError(f"unknown proof {proof_id!r}; expected one of {', '.join(_PROOFS)}")
    return _PROOFS[proof_id]


def gaussian_proof_ids() -> tuple[str, ...]:
    """Return the ids of all proofs for quadratures."""
    return tuple(_PROOFS)


def _key(block: GaussianBlock, worst: GaussianChannel, kept: Floats, spent_bits: Floats) -> GaussianKey:
    """Return ``(1 - FER) (kept [beta I - chi] - spent)`` and, where that is nothing, why."""
    information = block.channel.mutual_information_bits()
    reconciled = np.multiply(block.reconciliation_efficiency, information)
    holevo, estimated = worst.holevo_bits(), block.channel.holevo_bits()
    unclipped = (1 - np.asarray(block.frame_error_rate)) * (kept * (reconciled - holevo) - spent_bits)
    length = np.maximum(0.0, np.floor(unclipped))
    causes = np.select(
        [length > 0, reconciled <= estimated, reconciled <= holevo],
        ["", ENDLESS_GIVES_NONE, ESTIMATION_TOOK_IT],
        TOO_SMALL,
    )
    return GaussianKey(
        length_bits=length,
        unclipped_bits=unclipped,
        bits_per_symbol=np.maximum(0.0, unclipped) / np.asarray(block.symbols),
        mutual_information_bits=information,
        holevo_bits=holevo,
        limited_by=causes,
    )


def _entropy_bits(total: Floats, product: Floats) -> Floats:
    """Return ``G(l1) + G(l2)`` of the eigenvalues whose ``l^2 - 1`` have this sum and this product."""
    total = np.maximum(total, 0.0)
    root = np.sqrt(np.maximum(total**2 - 4 * product, 0.0))
    larger = (total + root) / 2
    smaller = np.divide(product, larger, out=np.zeros_like(larger), where=larger > 0)
    return _thermal_entropy_bits(larger) + _thermal_entropy_bits(smaller)


def _thermal_entropy_bits(excess: Floats) -> Floats:
    """Return ``g((l - 1)/2)`` with ``g(x) = (x + 1) log2(x + 1) - x log2 x``, for ``l^2 - 1 = excess``."""
    photons = excess / (2 * (1 + np.sqrt(1 + excess)))
    inside = np.log(photons, out=np.zeros_like(photons), where=photons > 0)
    return np.asarray(((photons + 1) * np.log1p(photons) - photons * inside) / math.log(2))


def check_array(parameter: str, values: ArrayLike, low: float, high: float) -> None:
    """Raise OutsideModel, with the first offending value, unless all are finite and from low to high."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    outside = ~((flat >= low) & (flat <= high))
    if outside.any():
        first = float(flat[outside][0])
        raise OutsideModel(parameter, first, f"a finite number from {low:g} to {high:g}")


def check_word(parameter: str, value: str, known: tuple[str, ...]) -> None:
    """Raise OutsideModel unless a word is one of those known."""
    if value not in known:
        raise OutsideModel(parameter, value, f"one of {', '.join(known)}")


def check_epsilons(epsilon_sec: float, epsilon_cor: float) -> None:
    """Raise OutsideModel unless both are above 0 and below 1."""
    for name, epsilon in (("epsilon_sec", epsilon_sec), ("epsilon_cor", epsilon_cor)):
        if not 0 < epsilon < 1:
            raise OutsideModel(name, epsilon, "above 0 and below 1")
