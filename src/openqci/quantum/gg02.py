"""GG02, the CV protocol: Gaussian-modulated coherent states through a noisy channel to a coherent receiver.

Alice draws two quadratures per symbol from a normal distribution of variance V_A and prepares the coherent
state there. The channel passes a fraction T and adds excess noise; Bob measures one quadrature, chosen at
random (homodyne), or both of half the light (heterodyne). Variances are in shot-noise units (SNU), in which
the vacuum has 1; the excess noise is at the channel's input, wherever it came from.

>>> import numpy as np
>>> link = GaussianLink(GaussianSource(1e8, 4.0), GaussianLoss(5.0, 0.01), CoherentDetector(0.6, 0.1))
>>> statistics = gg02_statistics(link)
>>> round(statistics.signal_to_noise, 2)
0.69
>>> gg02_exchange(link, 1000, np.random.default_rng(1)).bob.shape
(1000,)

Left out: discrete modulation, imperfect modulators, correlated symbols, the recovery of phase and clock
(their residue is :func:`phase_noise_snu`). What the figures are worth in key:
:mod:`openqci.proofs.gaussian`.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from openqci.core.errors import OutsideModel
from openqci.proofs.gaussian import Detection, GaussianChannel
from openqci.quantum.elements import Floats, check_range, transmittance


@dataclass(frozen=True)
class GaussianSource:
    """Alice's modulator: ``symbol_rate_hz`` symbols a second, each quadrature of variance V_A in SNU."""

    symbol_rate_hz: float
    modulation_variance_snu: float

    def __post_init__(self) -> None:
        check_range("symbol_rate_hz", self.symbol_rate_hz, 1.0, 1e12)
        check_range("modulation_variance_snu", self.modulation_variance_snu, 1e-9, 1e6)


@dataclass(frozen=True)
class GaussianLoss:
    """A channel with a loss of 0 to 200 dB and an excess noise in SNU at its input; no detector in it."""

    loss_db: float
    excess_noise_snu: float

    def __post_init__(self) -> None:
        check_range("loss_db", self.loss_db, 0.0, 200.0)
        check_range("excess_noise_snu", self.excess_noise_snu, 0.0, 1e6)


@dataclass(frozen=True)
class CoherentDetector:
    """Bob's receiver.

    Parameters
    ----------
    efficiency : float
        Of all of it, above 0 and at most 1.
    electronic_noise_snu : float
        Variance v_el at the photocurrent of one quadrature.
    detection : {"homodyne", "heterodyne"}
    linear_range_snu : float, optional
        Values beyond plus or minus this come out as this, in square roots of SNU; no limit when not given.
    """

    efficiency: float
    electronic_noise_snu: float
    detection: Detection = "homodyne"
    linear_range_snu: float | None = None

    def __post_init__(self) -> None:
        check_range("efficiency", self.efficiency, 1e-6, 1.0)
        check_range("electronic_noise_snu", self.electronic_noise_snu, 0.0, 1e3)
        if self.detection not in ("homodyne", "heterodyne"):
            raise OutsideModel("detection", self.detection, "homodyne or heterodyne")
        if self.linear_range_snu is not None:
            check_range("linear_range_snu", self.linear_range_snu, 1e-3, 1e9)


@dataclass(frozen=True)
class GaussianLink:
    """One link of GG02: source, channel, receiver."""

    source: GaussianSource
    channel: GaussianLoss
    detector: CoherentDetector

    @property
    def gaussian_channel(self) -> GaussianChannel:
        """The link as a security proof sees it, with a trusted detector."""
        return GaussianChannel(
            self.source.modulation_variance_snu,
            transmittance(self.channel.loss_db),
            self.channel.excess_noise_snu,
            self.detector.efficiency,
            self.detector.electronic_noise_snu,
            self.detector.detection,
        )

    @property
    def amplitude(self) -> float:
        """Factor from Alice's quadrature to Bob's value: ``sqrt(eta T)``, heterodyne ``sqrt(eta T / 2)``."""
        share = 1.0 if self.detector.detection == "homodyne" else 0.5
        return math.sqrt(share * self.detector.efficiency * transmittance(self.channel.loss_db))


@dataclass(frozen=True)
class GaussianStatistics:
    """What a link does on average, per quadrature of Bob's.

    Attributes
    ----------
    bob_variance_snu : float
        Of his values.
    covariance_snu : float
        Of Alice's quadrature and his value.
    symbol_variance_snu : float
        Of his values given Alice's, by the best line through them.
    signal_to_noise : float
    mutual_information_bits : float
        Per symbol; ``log2(1 + SNR)``, half of it for homodyne.
    clipped_fraction : float
        Of the values that leave the linear range.
    """

    bob_variance_snu: float
    covariance_snu: float
    symbol_variance_snu: float
    signal_to_noise: float
    mutual_information_bits: float
    clipped_fraction: float


@dataclass(frozen=True)
class QuadratureRecord:
    """What both ends hold after an exchange.

    Attributes
    ----------
    alice : ndarray, shape (n, 2)
        Her two quadratures of each symbol, in square roots of SNU.
    measured : ndarray of uint8, shape (n,)
        Which quadrature Bob measured: 0 or 1, and 2 for both.
    bob : ndarray, shape (n,) for homodyne and (n, 2) for heterodyne
        His values, normalised so that the vacuum with a silent amplifier has variance 1.
    """

    alice: Floats
    measured: NDArray[np.uint8]
    bob: Floats

    def paired(self) -> tuple[Floats, Floats]:
        """Return Alice's quadratures and Bob's values that belong together, flat and of equal length."""
        if self.bob.ndim == 2:
            return self.alice.ravel(), self.bob.ravel()
        return self.alice[np.arange(len(self.bob)), self.measured], self.bob


def excess_noise_snu(
    source_noise_snu: ArrayLike, receiver_noise_snu: ArrayLike, total_transmittance: ArrayLike
) -> Floats:
    """Return ``xi = eps_a + eps_b/(eta T)`` at the channel input.

    Noise that arises at the receiver weighs more, referred to the input, the more light was lost: with a
    constant xi there would be no end to the reach. Broadcasts.

    References
    ----------
    The form and its deployed baseline eps_a = 0.005, eps_b = 0.0005 SNU: Wang et al. (2019) as quoted by an
    open DV/CV comparison study; 0.0133 SNU at 50 km with a receiver of 0.6.
    """
    return np.asarray(source_noise_snu + np.divide(receiver_noise_snu, total_transmittance), dtype=np.float64)


def phase_noise_snu(modulation_variance_snu: ArrayLike, phase_variance_rad2: ArrayLike) -> Floats:
    """Return the excess noise ``V_A (1 - exp(-v))`` of a phase that is known up to a variance v.

    7.6e-5 rad^2 is the best with a transmitted local oscillator, 7e-4 with a local one. Broadcasts.
    """
    return np.asarray(np.multiply(modulation_variance_snu, -np.expm1(-np.asarray(phase_variance_rad2))))


def gg02_statistics(link: GaussianLink) -> GaussianStatistics:
    """Return what a link does on average, in closed form, with the linear range of the receiver.

    A clipped normal value keeps of its covariance with anything Gaussian just the part of it that is not
    clipped (J. J. Bussgang, 1952).
    """
    seen = link.gaussian_channel
    variance = float(seen.signal_variance_snu + seen.symbol_variance_snu)
    covariance = link.amplitude * link.source.modulation_variance_snu
    inside = 1.0
    if link.detector.linear_range_snu is not None:
        limit = link.detector.linear_range_snu / math.sqrt(variance)
        inside = math.erf(limit / math.sqrt(2))
        density = math.sqrt(2 / math.pi) * limit * math.exp(-(limit**2) / 2)
        variance *= inside - density + limit**2 * math.erfc(limit / math.sqrt(2))
        covariance *= inside
    explained = covariance**2 / link.source.modulation_variance_snu
    ratio = explained / (variance - explained)
    quadratures = 1 if link.detector.detection == "homodyne" else 2
    return GaussianStatistics(
        bob_variance_snu=variance,
        covariance_snu=covariance,
        symbol_variance_snu=variance - explained,
        signal_to_noise=ratio,
        mutual_information_bits=quadratures / 2 * math.log1p(ratio) / math.log(2),
        clipped_fraction=1 - inside,
    )


def gg02_exchange(link: GaussianLink, symbols: int, rng: np.random.Generator) -> QuadratureRecord:
    """Draw an exchange of so many symbols, state by state: every symbol is detected.

    The mechanism is that of the optics: coherent state, beam splitter of the channel with its noise, beam
    splitter of the detector with vacuum, for heterodyne a further one with vacuum, then the amplifier.

    Raises
    ------
    OutsideModel
        For fewer than 1 symbol.
    """
    if symbols < 1:
        raise OutsideModel("symbols", symbols, "1 or more")
    alice = rng.normal(scale=math.sqrt(link.source.modulation_variance_snu), size=(symbols, 2))
    return received(link, alice, alice + rng.standard_normal((symbols, 2)), rng)


def received(
    link: GaussianLink, alice: Floats, field: Floats, rng: np.random.Generator, offset: float = 0.0
) -> QuadratureRecord:
    """Return what both ends hold when this field, vacuum included, enters the channel; both of shape (n, 2).

    ``offset`` is light of no signal that shifts every value before the receiver's range ends, in square roots
    of SNU at the photocurrent.
    """
    symbols, channel, detector = len(field), transmittance(link.channel.loss_db), link.detector
    field = field + rng.normal(scale=math.sqrt(link.channel.excess_noise_snu), size=(symbols, 2))
    field = split(field, channel, rng)
    field = split(field, detector.efficiency, rng)
    measured = np.full(symbols, 2, dtype=np.uint8)
    if detector.detection == "homodyne":
        measured = rng.integers(0, 2, symbols, dtype=np.uint8)
        seen = field[np.arange(symbols), measured]
    else:
        seen = split(field, 0.5, rng)
    seen = seen + rng.normal(scale=math.sqrt(detector.electronic_noise_snu), size=seen.shape) + offset
    if detector.linear_range_snu is not None:
        seen = np.clip(seen, -detector.linear_range_snu, detector.linear_range_snu)
    return QuadratureRecord(alice, measured, seen)


def split(field: Floats, passed: float, rng: np.random.Generator) -> Floats:
    """Return the quadratures behind a beam splitter whose other input is vacuum."""
    return math.sqrt(passed) * field + math.sqrt(1 - passed) * rng.standard_normal(field.shape)
