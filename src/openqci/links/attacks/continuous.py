"""Attacks on links of quadratures (GG02): what both ends see, what they would believe, what is safe.

An attack is a frozen dataclass, as those on discrete-variable links. :meth:`ContinuousAttack.transform`
changes the moments of Bob's quadratures in closed form; :meth:`ContinuousAttack.draw` acts on the field of
every single symbol and is an independent mechanism; :meth:`ContinuousAttack.outcome` holds the believed key
against the safe one and asks the monitors.

>>> from openqci.quantum.gg02 import CoherentDetector, GaussianLoss, GaussianSource
>>> link = GaussianLink(GaussianSource(1e8, 4.0), GaussianLoss(5.0, 0.01), CoherentDetector(0.6, 0.1))
>>> continuous_attack("cv-calibration").outcome(link).verdict
'detected'
>>> continuous_attack("cv-calibration").outcome(link, defended=False).verdict
'undetected-insecure'
>>> continuous_attack("cv-intercept-resend").outcome(link).verdict
'key-zero'

The two attacks that matter do not touch the proof but its units: one makes the shot noise look larger than
it is, the other pushes the quadratures out of the receiver's linear range, where they vary less. Both hide
the two units of noise that intercept-resend adds.

Left out: attacks on the wavelength dependence of the receiver, on the reference of a local local oscillator,
laser seeding of Alice, and any combination. Believed figures are expected values. A partly intercepted
signal is taken for normal in the moments of a clipped receiver.
"""

import math
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom, norm

from openqci.core.errors import OutsideModel
from openqci.links.attacks.model import GG02, AttackOutcome, Observable, check_link, made, verdict
from openqci.proofs.gaussian import DetectorTrust, GaussianBlock, GaussianChannel, gaussian_proof
from openqci.quantum.elements import Floats, check_range
from openqci.quantum.gaussian import ClippedMoments, clipped_moments
from openqci.quantum.gg02 import GaussianLink, QuadratureRecord, received, split

MONITORS = 6
"""Tests of one block, each with an equal share of the false alarms."""

RESENT_NOISE_SNU = 2.0
"""What intercept-resend adds at the input of the channel: one unit of measuring both quadratures at once, one
of preparing them anew."""

GAIN_MAX = 1e6


@dataclass(frozen=True)
class QuadratureWatch:
    """How the monitors of a coherent receiver are set.

    Parameters
    ----------
    false_alarm_probability : float
        Of all monitors of one block together, at most; above 0 (1e-30), at most 0.5.
    tested_symbols : float
        Symbols whose values are tested for shape and gain, 1e4 to 1e15.
    vacuum_samples : float
        Samples per block of the vacuum with the signal shut off, 1e4 to 1e15.
    vacuum_drift, power_drift, transmittance_drift : float
        Relative drift of shot noise, local oscillator and channel that is no alarm, 0 to below 1.
    power_noise : float
        Relative standard deviation of one reading of the local oscillator, 0 to 1.
    shape_drift : float
        Absolute drift of skewness and excess kurtosis that is no alarm, 0 to 10.
    clipped_drift : float
        Fraction of clipped values that is no alarm, 0 to 1.
    """

    false_alarm_probability: float = 1e-6
    tested_symbols: float = 1e6
    vacuum_samples: float = 1e6
    vacuum_drift: float = 0.01
    power_drift: float = 0.02
    power_noise: float = 0.001
    transmittance_drift: float = 0.1
    shape_drift: float = 0.01
    clipped_drift: float = 1e-4

    def __post_init__(self) -> None:
        check_range("false_alarm_probability", self.false_alarm_probability, 1e-30, 0.5)
        check_range("tested_symbols", self.tested_symbols, 1e4, 1e15)
        check_range("vacuum_samples", self.vacuum_samples, 1e4, 1e15)
        for name in ("vacuum_drift", "power_drift", "transmittance_drift"):
            check_range(name, getattr(self, name), 0.0, 1 - 1e-9)
        check_range("power_noise", self.power_noise, 0.0, 1.0)
        check_range("shape_drift", self.shape_drift, 0.0, 10.0)
        check_range("clipped_drift", self.clipped_drift, 0.0, 1.0)


@dataclass(frozen=True)
class QuadratureBlock:
    """The block of which a key is made, under which proof, and how it is watched.

    Parameters
    ----------
    symbols, estimation_fraction, reconciliation_efficiency, frame_error_rate
        As in :class:`~openqci.proofs.gaussian.GaussianBlock`, which checks them.
    epsilon_sec, epsilon_cor : float
    proof_id : str
        Of :func:`~openqci.proofs.gaussian.gaussian_proof`.
    detector_trust : {"trusted", "calibrated", "untrusted"}
    watch : QuadratureWatch
    """

    symbols: float = 1e9
    estimation_fraction: float = 0.5
    reconciliation_efficiency: float = 0.95
    frame_error_rate: float = 0.0
    epsilon_sec: float = 1e-10
    epsilon_cor: float = 1e-10
    proof_id: str = "gg02-composable"
    detector_trust: DetectorTrust = "trusted"
    watch: QuadratureWatch = field(default_factory=QuadratureWatch)

    def bits_per_symbol(self, channel: GaussianChannel) -> float:
        """Return the key of a block, per symbol sent, that the proof gives for an estimated channel."""
        block = GaussianBlock(
            replace(channel, detector_trust=self.detector_trust),
            self.symbols,
            self.estimation_fraction,
            self.reconciliation_efficiency,
            self.frame_error_rate,
        )
        found = gaussian_proof(self.proof_id).secret_length(block, self.epsilon_sec, self.epsilon_cor)
        return float(found.bits_per_symbol)


STANDARD_QUADRATURES = QuadratureBlock()


@dataclass(frozen=True)
class QuadratureStatistics:
    """The moments of one of Bob's quadratures, and the units in which both ends take them.

    Attributes
    ----------
    link : GaussianLink
        As commissioned.
    covariance_snu, mean, variance_snu : float
        Of Bob's value at the photocurrent **before** it is clipped, in true shot-noise units; the covariance
        with Alice's quadrature.
    calibrated_unit : float
        Shot noise as calibrated over the true one.
    power_ratio : float
        Reading of the local oscillator's power over the commissioned one.
    """

    link: GaussianLink
    covariance_snu: float
    variance_snu: float
    mean: float = 0.0
    calibrated_unit: float = 1.0
    power_ratio: float = 1.0

    @property
    def seen(self) -> ClippedMoments:
        """Moments of what comes out of the receiver, in true shot-noise units."""
        limit = self.link.detector.linear_range_snu
        return clipped_moments(self.mean, self.variance_snu, math.inf if limit is None else limit)

    @property
    def transmittance(self) -> float:
        """T of the channel as both ends estimate it.

        Alice's variance, too, is told in the calibrated unit, as Bob's receiver measured it; so the unit
        drops out here.
        """
        kept = float(self.seen.gain) * self.covariance_snu
        return (kept / self.link.source.modulation_variance_snu) ** 2 / light_share(self.link)

    @property
    def excess_noise_snu(self) -> float:
        """xi at the input of the channel as both ends estimate it, in what they take for shot noise.

        Not cut off: hidden noise can make it negative. Electronic noise was measured without the local
        oscillator, in volts, and shrinks with the unit.
        """
        noise = float(self.seen.variance) - self.calibrated_unit - self.link.detector.electronic_noise_snu
        arriving = light_share(self.link) * self.transmittance
        if not arriving > 0:
            return math.inf
        return (noise / arriving - self.link.source.modulation_variance_snu) / self.calibrated_unit

    def believed(self) -> GaussianChannel:
        """Return the channel that both ends hand to the proof; a negative excess noise counts as none."""
        source, detector = self.link.source, self.link.detector
        return GaussianChannel(
            source.modulation_variance_snu / self.calibrated_unit,
            min(1.0, max(1e-20, self.transmittance)),
            min(1e6, max(0.0, self.excess_noise_snu)),
            detector.efficiency,
            detector.electronic_noise_snu / self.calibrated_unit,
            detector.detection,
        )


def honest_quadratures(link: GaussianLink) -> QuadratureStatistics:
    """Return the statistics of a link without an attack."""
    channel = link.gaussian_channel
    return QuadratureStatistics(
        link,
        covariance_snu=link.amplitude * link.source.modulation_variance_snu,
        variance_snu=float(channel.signal_variance_snu + channel.symbol_variance_snu),
    )


def light_share(link: GaussianLink) -> float:
    """Return the fraction of the channel's light that one measured quadrature sees."""
    return link.detector.efficiency * (1.0 if link.detector.detection == "homodyne" else 0.5)


@dataclass(frozen=True)
class ContinuousAttack:
    """One attack: subclasses say how it transforms a link and what answers it.

    Class attributes
    ----------------
    attack_id, description, reference, countermeasure : str
    answered_by : tuple of str
        Names of the observables that are its answer; ``defended=False`` takes them away.
    """

    attack_id: ClassVar[str]
    description: ClassVar[str]
    reference: ClassVar[str]
    countermeasure: ClassVar[str]
    answered_by: ClassVar[tuple[str, ...]] = ()
    family: ClassVar[str] = GG02

    def transform(self, honest: QuadratureStatistics) -> QuadratureStatistics:
        """Return what is seen under the attack."""
        raise NotImplementedError

    def draw(self, link: GaussianLink, symbols: int, rng: np.random.Generator) -> QuadratureRecord:
        """Draw symbols under the attack, in true shot-noise units; costs per symbol."""
        raise NotImplementedError

    def safe_per_symbol(self, link: GaussianLink, block: QuadratureBlock) -> float:
        """Return an upper bound on the key that is truly secret, per symbol."""
        raise NotImplementedError

    def outcome(
        self, link: GaussianLink, block: QuadratureBlock = STANDARD_QUADRATURES, *, defended: bool = True
    ) -> AttackOutcome:
        """Return what the attack does to a link.

        Parameters
        ----------
        link : GaussianLink
        block : QuadratureBlock
        defended : bool
            False takes the monitors away that answer the attack.

        Raises
        ------
        ConfigurationError
            For a link that counts photons.
        """
        check_link(self.attack_id, self.family, link, GaussianLink)
        honest = honest_quadratures(link)
        seen = self.transform(honest)
        observables = watched_quadratures(honest, readings_of(seen), block.watch)
        if not defended:
            observables = tuple(each for each in observables if each.name not in self.answered_by)
        believed = block.bits_per_symbol(seen.believed())
        safe = self.safe_per_symbol(link, block)
        return AttackOutcome(
            attack=self.attack_id,
            reference=self.reference,
            parameters=self.parameters(link) | {"defended": float(defended)},
            observables=observables,
            key_believed_per_pulse=believed,
            key_safe_per_pulse=safe,
            false_alarm_probability=block.watch.false_alarm_probability,
            verdict=verdict(believed, safe, observables),
            countermeasure=self.countermeasure,
        )

    def parameters(self, link: GaussianLink) -> dict[str, float]:
        """Return the parameters as they act on this link."""
        return {each.name: float(getattr(self, each.name)) for each in fields(self)}


@dataclass(frozen=True)
class ContinuousInterceptResend(ContinuousAttack):
    """Eve measures both quadratures of a fraction of the symbols and prepares what she found anew.

    Parameters
    ----------
    intercepted_fraction : float
        0 to 1.
    """

    intercepted_fraction: float = 1.0

    attack_id: ClassVar[str] = "cv-intercept-resend"
    description: ClassVar[str] = "quadratures are measured and prepared anew"
    reference: ClassVar[str] = "F. Grosshans et al., Nature 421, 238 (2003)"
    countermeasure: ClassVar[str] = "the proof: two shot-noise units of excess noise leave no key"

    def __post_init__(self) -> None:
        check_range("intercepted_fraction", self.intercepted_fraction, 0.0, 1.0)

    def transform(self, honest: QuadratureStatistics) -> QuadratureStatistics:
        """Add two units at the input for every intercepted symbol."""
        return with_resent_noise(honest, self.intercepted_fraction)

    def draw(self, link: GaussianLink, symbols: int, rng: np.random.Generator) -> QuadratureRecord:
        """Draw symbols, measured by Eve and resent one by one."""
        alice, sent = prepared(link, symbols, rng)
        return received(link, alice, intercepted(sent, self.intercepted_fraction, rng), rng)

    def safe_per_symbol(self, link: GaussianLink, block: QuadratureBlock) -> float:
        """Return the asymptotic key of the symbols that she left alone; measured ones hold none."""
        return (1 - self.intercepted_fraction) * asymptotic_bits(link.gaussian_channel, block)


@dataclass(frozen=True)
class ContinuousBeamSplitting(ContinuousAttack):
    """Eve collects what the fibre loses and taps a fraction of the light besides; she changes nothing else.

    Parameters
    ----------
    tapped_fraction : float
        At Alice's output, 0 to below 1.
    """

    tapped_fraction: float = 0.0

    attack_id: ClassVar[str] = "cv-beam-splitting"
    description: ClassVar[str] = "lost light is collected, and some is tapped"
    reference: ClassVar[str] = "F. Grosshans, P. Grangier, PRL 88, 057902 (2002)"
    countermeasure: ClassVar[str] = "the proof: all loss is counted as Eve's"

    def __post_init__(self) -> None:
        check_range("tapped_fraction", self.tapped_fraction, 0.0, 1 - 1e-9)

    def transform(self, honest: QuadratureStatistics) -> QuadratureStatistics:
        """Take the tapped light away; noise that arises in the channel stays."""
        passed = 1 - self.tapped_fraction
        lost = float(honest.link.gaussian_channel.signal_variance_snu) * self.tapped_fraction
        return replace(
            honest,
            covariance_snu=math.sqrt(passed) * honest.covariance_snu,
            variance_snu=honest.variance_snu - lost,
        )

    def draw(self, link: GaussianLink, symbols: int, rng: np.random.Generator) -> QuadratureRecord:
        """Draw symbols behind a beam splitter at Alice's output."""
        alice, sent = prepared(link, symbols, rng)
        return received(link, alice, split(sent, 1 - self.tapped_fraction, rng), rng)

    def safe_per_symbol(self, link: GaussianLink, block: QuadratureBlock) -> float:
        """Return the asymptotic key against all lost light and nothing more: the excess noise is not hers."""
        channel = link.gaussian_channel
        arriving = np.asarray(channel.transmittance) * (1 - self.tapped_fraction)
        return asymptotic_bits(replace(channel, transmittance=arriving, excess_noise_snu=0.0), block)


@dataclass(frozen=True)
class CalibrationAttack(ContinuousAttack):
    """Eve intercepts and resends, and makes Bob take the shot noise for larger than it is.

    She reshapes the transmitted local oscillator so that the receiver triggers late and responds less to
    the same power: the calibration of shot noise against power no longer holds.

    Parameters
    ----------
    unit_ratio : float, optional
        R, shot noise as calibrated over the true one, 1 to 100. When not given, the one that makes the excess
        noise look as it did before.
    intercepted_fraction : float
        0 to 1.
    dimmed_fraction : float
        Part of the change that comes from a dimmer local oscillator, which its power shows, 0 to 1.
    """

    unit_ratio: float | None = None
    intercepted_fraction: float = 1.0
    dimmed_fraction: float = 0.0

    attack_id: ClassVar[str] = "cv-calibration"
    description: ClassVar[str] = "shot noise is overestimated, so that resent noise disappears"
    reference: ClassVar[str] = "P. Jouguet et al., PRA 87, 062313 (2013), arXiv:1304.7024"
    countermeasure: ClassVar[str] = "shot noise measured while the link runs; a local oscillator of Bob's own"
    answered_by: ClassVar[tuple[str, ...]] = ("vacuum variance", "local oscillator power")

    def __post_init__(self) -> None:
        if self.unit_ratio is not None:
            check_range("unit_ratio", self.unit_ratio, 1.0, 100.0)
        check_range("intercepted_fraction", self.intercepted_fraction, 0.0, 1.0)
        check_range("dimmed_fraction", self.dimmed_fraction, 0.0, 1.0)

    def ratio(self, link: GaussianLink) -> float:
        """Return R; where none was given, that of ``xi = [xi + 2 p - (R - 1)/(eta T)]/R``."""
        if self.unit_ratio is not None:
            return self.unit_ratio
        hidden = RESENT_NOISE_SNU * self.intercepted_fraction
        return 1 + hidden / (link.channel.excess_noise_snu + 1 / link.amplitude**2)

    def transform(self, honest: QuadratureStatistics) -> QuadratureStatistics:
        """Add the resent noise and change the unit."""
        ratio = self.ratio(honest.link)
        return replace(
            with_resent_noise(honest, self.intercepted_fraction),
            calibrated_unit=ratio,
            power_ratio=1 - self.dimmed_fraction * (1 - 1 / ratio),
        )

    def draw(self, link: GaussianLink, symbols: int, rng: np.random.Generator) -> QuadratureRecord:
        """Draw symbols, measured and resent, in the unit that both ends take for shot noise."""
        drawn = ContinuousInterceptResend(self.intercepted_fraction).draw(link, symbols, rng)
        unit = math.sqrt(self.ratio(link))
        return replace(drawn, alice=drawn.alice / unit, bob=drawn.bob / unit)

    def safe_per_symbol(self, link: GaussianLink, block: QuadratureBlock) -> float:
        """Return the asymptotic key of the symbols that she left alone."""
        return ContinuousInterceptResend(self.intercepted_fraction).safe_per_symbol(link, block)

    def parameters(self, link: GaussianLink) -> dict[str, float]:
        """Return the parameters with the ratio that acts."""
        return {
            "unit_ratio": self.ratio(link),
            "intercepted_fraction": self.intercepted_fraction,
            "dimmed_fraction": self.dimmed_fraction,
        }


@dataclass(frozen=True)
class SaturationAttack(ContinuousAttack):
    """Eve intercepts and resends everything, and shifts Bob's quadratures to the end of the linear range.

    Clipped values vary less, and the noise that she added disappears with the variance. So does a part of the
    correlation; a higher gain of the resent signal brings it back, and with it the transmittance.

    Parameters
    ----------
    displacement : float
        At the photocurrent, in square roots of SNU, 0 to 1e6.
    hold_transmittance : bool
        Choose the gain that leaves the estimated transmittance as it was; else the gain is 2, which is right
        without a displacement.
    """

    displacement: float = 19.5
    hold_transmittance: bool = True

    attack_id: ClassVar[str] = "cv-saturation"
    description: ClassVar[str] = "quadratures are pushed out of the receiver's linear range"
    reference: ClassVar[str] = "H. Qin, R. Kumar, R. Alleaume, PRA 94, 012325 (2016), arXiv:1511.01007"
    countermeasure: ClassVar[str] = "tests of linear range, skewness and kurtosis on the values of key"
    answered_by: ClassVar[tuple[str, ...]] = ("skewness", "excess kurtosis", "clipped fraction")

    def __post_init__(self) -> None:
        check_range("displacement", self.displacement, 0.0, 1e6)

    def transform(self, honest: QuadratureStatistics) -> QuadratureStatistics:
        """Add the resent noise, the gain and the displacement."""
        return self.resent(honest, self.gain(honest))

    def gain(self, honest: QuadratureStatistics) -> float:
        """Return G, the power gain from what Eve measured (of half the light) to what she sends.

        Raises
        ------
        OutsideModel
            If no gain leaves the transmittance as it was: the displacement is too far out.
        """
        if honest.link.detector.linear_range_snu is None:
            raise OutsideModel("linear_range_snu", None, "a finite range: without one nothing saturates")
        if not self.hold_transmittance:
            return 2.0
        before = honest.transmittance

        def excess(log_gain: float) -> float:
            return self.resent(honest, math.exp(log_gain)).transmittance / before - 1

        low, high = math.log(0.1), math.log(GAIN_MAX)
        if not excess(high) > 0:
            raise OutsideModel(
                "displacement", self.displacement, "small enough that some gain restores the transmittance"
            )
        return math.exp(brentq(excess, low, high, xtol=1e-13))

    def resent(self, honest: QuadratureStatistics, gain: float) -> QuadratureStatistics:
        """Return what arrives for a gain G: ``sqrt(G/2)`` times what she measured, and the displacement."""
        link = honest.link
        resent = gain / 2 * (link.source.modulation_variance_snu + RESENT_NOISE_SNU)
        added = resent - link.source.modulation_variance_snu
        return replace(
            honest,
            covariance_snu=math.sqrt(gain / 2) * honest.covariance_snu,
            variance_snu=honest.variance_snu + link.amplitude**2 * added,
            mean=self.displacement,
        )

    def draw(self, link: GaussianLink, symbols: int, rng: np.random.Generator) -> QuadratureRecord:
        """Draw symbols, measured, resent with the gain, displaced and clipped one by one."""
        alice, sent = prepared(link, symbols, rng)
        gain = self.gain(honest_quadratures(link))
        return received(link, alice, intercepted(sent, 1.0, rng, gain), rng, offset=self.displacement)

    def safe_per_symbol(self, link: GaussianLink, block: QuadratureBlock) -> float:
        """Return zero: Eve measured every symbol."""
        return 0.0

    def parameters(self, link: GaussianLink) -> dict[str, float]:
        """Return the parameters and the gain that acts."""
        return super().parameters(link) | {"gain": self.gain(honest_quadratures(link))}


ATTACKS: dict[str, type[ContinuousAttack]] = {
    each.attack_id: each
    for each in (ContinuousInterceptResend, ContinuousBeamSplitting, CalibrationAttack, SaturationAttack)
}


def continuous_attack(attack_id: str, **parameters: float) -> ContinuousAttack:
    """Return the attack of this id, with its default parameters but for those given.

    Raises
    ------
    ConfigurationError
        For an unknown id or parameter; names those that there are.
    OutsideModel
        For a parameter outside its range.
    """
    return made(ATTACKS, attack_id, parameters)


def continuous_attack_ids() -> tuple[str, ...]:
    """Return the ids of all attacks on links of quadratures."""
    return tuple(ATTACKS)


def prepared(link: GaussianLink, symbols: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Draw what Alice recorded and the field that leaves her, vacuum included; both of shape (symbols, 2)."""
    if symbols < 1:
        raise OutsideModel("symbols", symbols, "1 or more")
    alice = rng.normal(scale=math.sqrt(link.source.modulation_variance_snu), size=(symbols, 2))
    return alice, alice + rng.standard_normal((symbols, 2))


def intercepted(sent: Floats, fraction: float, rng: np.random.Generator, gain: float = 2.0) -> Floats:
    """Return the field, shape (n, 2), of which Eve measured a fraction of the symbols and sent them anew.

    She measures both quadratures, of half of the light each, and displaces the vacuum by ``sqrt(gain)`` times
    what she found.
    """
    found = split(sent, 0.5, rng)
    resent = math.sqrt(gain) * found + rng.standard_normal(sent.shape)
    caught = rng.random(len(sent)) < fraction
    return np.where(caught[:, None], resent, sent)


def with_resent_noise(honest: QuadratureStatistics, fraction: float) -> QuadratureStatistics:
    """Return the statistics with two units at the input for every resent symbol."""
    added = RESENT_NOISE_SNU * fraction * honest.link.amplitude**2
    return replace(honest, variance_snu=honest.variance_snu + added)


def asymptotic_bits(channel: GaussianChannel, block: QuadratureBlock) -> float:
    """Return the key of an endless block per symbol, zero or more."""
    trusted = replace(channel, detector_trust=block.detector_trust)
    return max(0.0, float(trusted.asymptotic_bits(block.reconciliation_efficiency)))


@dataclass(frozen=True)
class QuadratureReadings:
    """What the two ends log of one block.

    Attributes
    ----------
    vacuum_variance : float
        Of the receiver with the signal shut off and the electronic noise subtracted, in the calibrated unit.
    power_ratio : float
        Power of the local oscillator over the commissioned one.
    transmittance, skewness, excess_kurtosis, clipped_fraction : float
        Of the channel, and of Bob's values.
    """

    vacuum_variance: float
    power_ratio: float
    transmittance: float
    skewness: float
    excess_kurtosis: float
    clipped_fraction: float


def readings_of(seen: QuadratureStatistics) -> QuadratureReadings:
    """Return the expected readings."""
    moments = seen.seen
    return QuadratureReadings(
        vacuum_variance=1 / seen.calibrated_unit,
        power_ratio=seen.power_ratio,
        transmittance=seen.transmittance,
        skewness=float(moments.skewness),
        excess_kurtosis=float(moments.excess_kurtosis),
        clipped_fraction=max(0.0, 1 - float(moments.gain)),
    )


def readings_of_record(
    record: QuadratureRecord, link: GaussianLink, vacuum: Floats, power_ratio: float = 1.0
) -> QuadratureReadings:
    """Return the readings of drawn symbols.

    Parameters
    ----------
    record : QuadratureRecord
    link : GaussianLink
        As commissioned.
    vacuum : ndarray
        Values of the receiver with the signal shut off, in the unit of the record.
    power_ratio : float
    """
    alice, bob = record.paired()
    limit = link.detector.linear_range_snu
    centred = bob - bob.mean()
    second = float(np.mean(centred**2))
    slope = float(np.mean(alice * centred) / np.mean(alice**2))
    return QuadratureReadings(
        vacuum_variance=float(np.var(vacuum)) - link.detector.electronic_noise_snu,
        power_ratio=power_ratio,
        transmittance=slope**2 / light_share(link),
        skewness=float(np.mean(centred**3)) / second**1.5,
        excess_kurtosis=float(np.mean(centred**4)) / second**2 - 3,
        clipped_fraction=0.0 if limit is None else float(np.mean(np.abs(bob) >= limit)),
    )


def watched_quadratures(
    honest: QuadratureStatistics, now: QuadratureReadings, watch: QuadratureWatch
) -> tuple[Observable, ...]:
    """Return all that the two ends log of a block, tested on both sides of the honest figure.

    Each of the six tests has an equal share of the false alarms, half of it on each side. The clipped
    fraction is tested with the exact binomial tail; the others are estimates of at least ten thousand values,
    for which the normal tail is taken (skewness and kurtosis of normal values). Drift that is allowed widens
    the limits, so that fewer false alarms come.
    """
    share = watch.false_alarm_probability / MONITORS
    sigmas = float(norm.isf(share / 2))
    calm, link = readings_of(honest), honest.link
    values = watch.tested_symbols * (1 if link.detector.detection == "homodyne" else 2)
    # The electronic noise is subtracted, its fluctuation is not.
    vacuum_deviation = (1 + link.detector.electronic_noise_snu) * math.sqrt(2 / watch.vacuum_samples)
    allowed = {
        "vacuum variance": watch.vacuum_drift + sigmas * vacuum_deviation,
        "local oscillator power": watch.power_drift + sigmas * watch.power_noise,
        "transmittance": calm.transmittance * watch.transmittance_drift
        + sigmas * transmittance_deviation(honest, values),
        "skewness": watch.shape_drift + sigmas * math.sqrt(6 / values),
        "excess kurtosis": watch.shape_drift + sigmas * math.sqrt(24 / values),
    }
    pairs = {
        "vacuum variance": (calm.vacuum_variance, now.vacuum_variance),
        "local oscillator power": (calm.power_ratio, now.power_ratio),
        "transmittance": (calm.transmittance, now.transmittance),
        "skewness": (calm.skewness, now.skewness),
        "excess kurtosis": (calm.excess_kurtosis, now.excess_kurtosis),
    }
    units = {"vacuum variance": "SNU"}
    clipped = clipped_observable(calm.clipped_fraction, now.clipped_fraction, values, watch, share)
    return (
        *(two_sided(name, units.get(name, "1"), *pairs[name], allowed[name]) for name in allowed),
        clipped,
    )


def two_sided(name: str, unit: str, honest: float, attacked: float, allowed: float) -> Observable:
    """Return an observable that trips when it is off by more than is allowed, to either side."""
    threshold = honest + math.copysign(allowed, attacked - honest)
    return Observable(name, unit, honest, attacked, threshold, abs(attacked - honest) > allowed)


def clipped_observable(
    honest: float, attacked: float, values: float, watch: QuadratureWatch, share: float
) -> Observable:
    """Return the fraction of values at the end of the range, tested by the binomial tail."""
    expected = min(1.0, honest + watch.clipped_drift)
    threshold = float(binom.isf(share, math.floor(values), expected)) / values
    return Observable("clipped fraction", "1", honest, attacked, threshold, attacked > threshold)


def transmittance_deviation(honest: QuadratureStatistics, values: float) -> float:
    """Return the standard deviation of an estimate of T from so many values."""
    light = honest.link.source.modulation_variance_snu
    noise = max(float(honest.seen.variance) - light_share(honest.link) * honest.transmittance * light, 0.0)
    relative = (
        2
        * math.sqrt(noise / (values * light))
        / math.sqrt(max(light_share(honest.link) * honest.transmittance, 1e-300))
    )
    return honest.transmittance * relative
