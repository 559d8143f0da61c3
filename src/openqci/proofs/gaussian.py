"""GG02 to secret bits: Gaussian-modulated coherent states with homodyne or heterodyne detection.

Quadratures are in shot-noise units (SNU), the excess noise ``xi`` is at the *input of the channel*, and
reconciliation is reverse (Alice corrects to Bob). Collective attacks. What Eve holds follows from the
covariance matrix of Alice, Bob and, where it is trusted, Bob's detector:

- **trusted**: loss and electronic noise of the detector are Bob's own and Eve has no part in them;
- **calibrated**: the noise ``v_el`` is known and cannot be used by Eve, but the light that the detector loses is
  given to her. (The spirit of arXiv:2505.20441, of which only the abstract was read; the model is ours.)
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
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from openqci.core.errors import OutsideModel

Floats = NDArray[np.float64]
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
        return share * self.total_transmittance * np.asarray(self.modulation_variance_snu)

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
        enter as ``A - 2`` and ``B - A + 1``, ``C - 2`` and ``D - C + 1``.
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
