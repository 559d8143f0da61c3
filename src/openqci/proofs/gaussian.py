"""GG02 to secret bits: Gaussian-modulated coherent states with homodyne or heterodyne detection.

Quadratures are in shot-noise units (SNU), the excess noise ``xi`` is at the *input of the channel*, and
reconciliation is reverse (Alice corrects to Bob). Collective attacks. What Eve holds follows from the
covariance matrix of Alice, Bob and, where it is trusted, Bob's detector:

- **trusted**: loss and electronic noise of the detector are Bob's own and Eve has no part in them;
- **calibrated**: Eve cannot touch the detector, but she knows its electronic noise of every symbol. So much
  says the abstract of arXiv:2505.20441; the paper's formula was not seen, ours follows from the assumption;
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
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from openqci.core.errors import ConfigurationError, OutsideModel
from openqci.proofs.gaussian_entropy import channel_holevo_bits

Floats = NDArray[np.float64]

AMPLITUDE_MIN = 1e-9
"""A channel that could not be estimated at all: Eve has everything, and nothing is divided by zero."""

EXCESS_NOISE_SNU_MAX = 1e30
"""The worst noise that an estimate allows, divided by the least light: far from physical, never cut off."""

INTERVAL_POINTS = 9
"""Transmittances of a confidence interval at which Eve's share is taken."""

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
        check_array("excess_noise_snu", self.excess_noise_snu, 0.0, EXCESS_NOISE_SNU_MAX)
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

        ``S(AB) - S(AB | b)`` by the symplectic eigenvalues of the two states, to eleven digits from no loss
        to 200 dB.

        *Trusted*: efficiency eta and noise v_el measure, but for the scale, what a noiseless detector of
        efficiency ``eta/(1 + v_el)`` measures (arXiv:2305.17684). *Untrusted*: T becomes ``eta T`` and v_el
        noise of the channel. *Calibrated*: Bob has ``b = m + n``, Eve holds n, and
        ``chi(b : E n) = I(b : n) + chi(m : E)`` with the noiseless detector in the last term. To leave
        ``I(b : n)`` out would promise key where Bob's values are mostly noise that Eve knows.
        """
        v = np.asarray(self.modulation_variance_snu, dtype=np.float64)
        t = np.asarray(self.transmittance, dtype=np.float64)
        eta = np.asarray(self.detector_efficiency, dtype=np.float64)
        v_el = np.asarray(self.electronic_noise_snu, dtype=np.float64)
        noise = t * np.asarray(self.excess_noise_snu, dtype=np.float64)
        # Heterodyne halves the light before the noise is added: referred to the input it weighs twice.
        quadratures = 1 if self.detection == "homodyne" else 2
        if self.detector_trust == "trusted":
            return channel_holevo_bits(v, t, noise, eta / (1 + v_el), quadratures)
        if self.detector_trust == "untrusted":
            arriving = eta * noise + quadratures * v_el
            return channel_holevo_bits(v, eta * t, arriving, np.ones_like(v), quadratures)
        clean = quadratures + eta * (t * v + noise)
        known = quadratures / 2 / math.log(2) * np.log1p(quadratures * v_el / clean)
        return np.asarray(known + channel_holevo_bits(v, t, noise, eta, quadratures))

    def asymptotic_bits(self, reconciliation_efficiency: ArrayLike) -> Floats:
        """Return ``beta I_AB - chi_BE`` in bits per symbol, not cut off at zero."""
        check_array("reconciliation_efficiency", reconciliation_efficiency, 1e-6, 1.0)
        return np.asarray(
            np.multiply(reconciliation_efficiency, self.mutual_information_bits()) - self.holevo_bits()
        )


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
        """Return the channel of least light and most noise that the estimate allows, but for ``epsilon``.

        ``t - z sqrt(s2/(m V_A))`` with ``t = sqrt(eta T)``, and the noise ``s2 (1 + z sqrt(2/m))``; z is the
        two-sided normal quantile. Heterodyne detection gives two values per symbol, of half the signal.
        """
        quantile = -NormalDist().inv_cdf(epsilon / 2)
        return self._channel_at(self._amplitude(-quantile), quantile)

    def worst_holevo_bits(self, epsilon: float) -> Floats:
        """Return the largest chi_BE between the least and the most light that the estimate allows.

        Eve's share is not always largest for the least light: on long links it grows with what arrives. Three
        estimates may fail, each with a third of ``epsilon``.
        """
        quantile = -NormalDist().inv_cdf(epsilon / 3)
        low, high = self._amplitude(-quantile), self._amplitude(quantile)
        steps = np.linspace(0.0, 1.0, INTERVAL_POINTS).reshape((-1,) + (1,) * np.ndim(low))
        return np.asarray(self._channel_at(low + steps * (high - low), quantile).holevo_bits().max(axis=0))

    @property
    def _share(self) -> float:
        return 1.0 if self.channel.detection == "homodyne" else 0.5

    @property
    def _values(self) -> Floats:
        return self.disclosed / self._share

    def _amplitude(self, deviations: float) -> Floats:
        """Return ``sqrt(eta T)`` so many standard deviations off the estimate, T from above 0 to 1."""
        seen = self.channel
        variance, light = seen.symbol_variance_snu, np.asarray(seen.modulation_variance_snu)
        amplitude = np.sqrt(self._share * seen.total_transmittance)
        most = np.sqrt(self._share * np.asarray(seen.detector_efficiency))
        moved = amplitude + deviations * np.sqrt(variance / (self._values * light))
        return np.asarray(np.minimum(np.maximum(moved, AMPLITUDE_MIN), most))

    def _channel_at(self, amplitude: Floats, deviations: float) -> GaussianChannel:
        """Return the channel of this amplitude, with noise so many standard deviations above the estimate."""
        seen = self.channel
        variance = seen.symbol_variance_snu * (1 + deviations * np.sqrt(2 / self._values))
        noise = np.maximum(variance - 1 - np.asarray(seen.electronic_noise_snu), 0.0)
        light = np.asarray(self._share * np.asarray(seen.detector_efficiency))
        return replace(
            seen,
            # Rounding must not lift T above one.
            transmittance=np.minimum(amplitude**2 / light, 1.0),
            excess_noise_snu=noise / amplitude**2,
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
        return _key(block, block.channel.holevo_bits(), kept, np.zeros_like(kept))


@dataclass(frozen=True)
class Leverrier2010:
    """Worst-case channel parameters and the smoothing term of Leverrier, Grosshans and Grangier.

    ``epsilon_sec`` is spent in three equal parts: estimation, smoothing, privacy amplification. The length is
    ``(1 - FER) n [beta I - chi_worst - Delta(n)]`` with ``Delta = 7 sqrt(log2(2/e)/n) + (2/n) log2(1/e)``,
    less ``log2(2/epsilon_cor)`` for verification. Not checked against the paper: the constants, and that the
    reconciled information is taken at the estimate and not at its lower limit.

    Eve's share is taken at the least light, as this form has it. On all but short links it is
    *larger* for more light, so that the corner is not the worst: at 100 km and 1e10 symbols by some 7 % of
    the key. ``gg02-composable`` takes the largest share of the whole interval.
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
        holevo = block.worst_channel(epsilon).holevo_bits()
        return _key(block, holevo, kept, spent + math.log2(2 / epsilon_cor))


@dataclass(frozen=True)
class Composable:
    """The composable length for collective attacks with quadratures read out in ``symbol_bits`` bits.

    ``(1 - FER) {n [beta I - chi_max] - sqrt(n) D + Theta}`` with chi_max the largest share of Eve's between
    the least and the most light that the estimate allows, at the highest noise,
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
        return _key(block, block.worst_holevo_bits(epsilon), kept, spent)


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


def optimal_modulation_variance_snu(
    rates: Callable[[Floats], Floats], low_snu: float = 0.05, high_snu: float = 100.0
) -> Floats:
    """Return the modulation variance with the highest rate, for an array of links at once.

    A grid finds the hill and a golden-section search, in the logarithm, its top. Give it *unclipped* rates: a
    link without key still has a best setting, and the plateau of zero has none.

    Parameters
    ----------
    rates : callable
        From variances to rates of shape ``(G, *S)``; variances come with shape ``(G, 1, ..., 1)`` or
        ``(1, *S)``. What depends on the variance besides, such as phase noise, is the caller's.
    low_snu, high_snu : float
        Where to look, above 0.

    Returns
    -------
    ndarray, shape S

    Examples
    --------
    >>> def rates(variance):
    ...     return GaussianChannel(variance, np.array([0.3, 0.1]), 0.01, 0.6, 0.1).asymptotic_bits(0.95)
    >>> optimal_modulation_variance_snu(rates).round(1).tolist()
    [8.0, 4.6]
    """
    check_array("low_snu", low_snu, 1e-9, 1e6)
    check_array("high_snu", high_snu, low_snu, 1e6)
    grid = np.linspace(math.log(low_snu), math.log(high_snu), 49)
    dimensions = rates(np.exp(grid[:1])[:, np.newaxis]).ndim
    found = rates(np.exp(grid).reshape((-1,) + (1,) * (dimensions - 1)))
    top = np.argmax(found, axis=0)
    left, right = grid[np.maximum(top - 1, 0)], grid[np.minimum(top + 1, len(grid) - 1)]
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(40):
        a, b = right - ratio * (right - left), left + ratio * (right - left)
        better = rates(np.exp(a)[np.newaxis])[0] > rates(np.exp(b)[np.newaxis])[0]
        left, right = np.where(better, left, a), np.where(better, b, right)
    return np.asarray(np.exp((left + right) / 2))


def _key(block: GaussianBlock, holevo: Floats, kept: Floats, spent_bits: Floats) -> GaussianKey:
    """Return ``(1 - FER) (kept [beta I - chi] - spent)`` and, where that is nothing, why."""
    information = block.channel.mutual_information_bits()
    reconciled = np.multiply(block.reconciliation_efficiency, information)
    estimated = block.channel.holevo_bits()
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
