"""A quantum link as a whole, and what it does on average, in closed form.

The statistics are those of one detection at a time: which intensity, which bases, which bits, one detector
or both. :func:`class_probabilities` is the one table behind both the closed form here and the Monte Carlo of
:mod:`openqci.quantum.exchange`, so that the two can only differ by chance. ``tests/quantum`` hold the table
itself against a third form, pulse by pulse with times of arrival.

Left out: what one detection says about the next. Afterpulses, leaked light of neighbours and saturation
enter as their averages, spread over all live gates alike.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from openqci.core.detections import Z_BASIS
from openqci.core.errors import OutsideModel
from openqci.quantum.clicks import backgrounds, click_probability
from openqci.quantum.elements import DecoySource, FibreChannel, Floats, Receiver, transmittance


@dataclass(frozen=True)
class QuantumLink:
    """One hop of decoy-state BB84: source, channel, receiver."""

    source: DecoySource
    channel: FibreChannel
    receiver: Receiver

    @cached_property
    def detectable_photons(self) -> Floats:
        """Mean photons per pulse that the detectors of the key basis would count, shape (K,)."""
        return self.receiver(self.channel(self.source.mean_photons())) * self.relative_efficiency

    @cached_property
    def background(self) -> float:
        """Chance of one detector to click in a gate without light of its pulse, in the key basis.

        Dark counts, afterpulses, background light and light of other pulses; mean of both detectors.
        """
        return float(detector_backgrounds(self, self.relative_efficiency)[Z_BASIS].mean())

    @cached_property
    def relative_efficiency(self) -> float:
        """What saturation leaves of the detectors' efficiency at the count rate of this link, 0 to 1."""
        return saturated_efficiency(self)

    @property
    def dead_slots(self) -> int:
        """Gates that are lost after a click: the dead time in whole gates, rounded up."""
        gates = self.receiver.dead_time_s * self.source.clock_rate_hz
        # 10 ns at 1 GHz are ten gates, not eleven because 1e-8 * 1e9 is 10.000000000000002.
        return math.ceil(gates - 1e-6)


@dataclass(frozen=True)
class ExpectedStatistics:
    """What a link does on average.

    Attributes
    ----------
    gains : ndarray, shape (K,)
        Probability that a pulse of intensity k is seen by a live receiver, all bases together. Where the
        receiver is equal in both bases, it is the same in each.
    detection_fractions : ndarray, shape (2, K)
        Fraction of all detections in which both ends chose basis b (0 = Z, 1 = X) and Alice intensity k.
        What is missing to one is lost in sifting.
    error_rates : ndarray, shape (2, K)
        Error rate among these, double clicks with their random bit included; 0 where nothing is detected.
    double_click_fraction : float
        Fraction of all detections in which both detectors fired.
    click_probability : float
        Probability that a pulse is seen by a live receiver, all intensities together.
    detection_rate_hz : float
        Detections per second with dead time; with the default model ``r / (1 + r tau)``.
    sifted_rate_hz : float
        Sifted bits per second in the key basis Z, all intensities together.
    qber : float
        Error rate of these bits; 0 where there are none.
    """

    gains: Floats
    detection_fractions: Floats
    error_rates: Floats
    double_click_fraction: float
    click_probability: float
    detection_rate_hz: float
    sifted_rate_hz: float
    qber: float


def expected_statistics(link: QuantumLink) -> ExpectedStatistics:
    """Return the expected statistics of a link.

    Parameters
    ----------
    link : QuantumLink

    Returns
    -------
    ExpectedStatistics

    References
    ----------
    C. C. W. Lim et al., PRA 89, 022307 (2014), section IV (channel model); see ``clicks`` for what is
    refined. Dead time: common to all detectors, nonparalysable unless the receiver says otherwise.
    """
    table = class_probabilities(link)
    # Axes of the table: intensity, double, Bob's basis, Alice's basis, Bob's bit, Alice's bit.
    per_class = table.sum(axis=1)
    matched = np.stack([per_class[:, b, b] for b in (0, 1)])
    wrong = matched[..., 0, 1] + matched[..., 1, 0]
    seen = matched.sum(axis=(-2, -1))
    total = float(table.sum())
    rate_hz = detection_rate_hz(link, total)
    fractions = seen / (total or 1.0)
    return ExpectedStatistics(
        gains=table.sum(axis=(1, 2, 3, 4, 5)) / np.array(link.source.probabilities),
        detection_fractions=fractions,
        error_rates=wrong / np.where(seen > 0, seen, 1.0),
        double_click_fraction=float(table[:, 1].sum()) / (total or 1.0),
        click_probability=total,
        detection_rate_hz=rate_hz,
        sifted_rate_hz=rate_hz * float(fractions[Z_BASIS].sum()),
        qber=float(wrong[Z_BASIS].sum() / (seen[Z_BASIS].sum() or 1.0)),
    )


def detection_rate_hz(link: QuantumLink, click_probability: float) -> float:
    """Return the detections per second when a live receiver clicks with this probability per gate.

    Nonparalysable: the mean gap is ``1/p + d`` gates. Paralysable: a click is seen when the d gates before
    it were silent, ``p (1 - p)^d`` per gate.
    """
    if click_probability == 0:
        return 0.0
    if link.receiver.dead_time_model == "paralysable":
        silent = math.exp(link.dead_slots * math.log1p(-min(click_probability, 1 - 1e-16)))
        return link.source.clock_rate_hz * click_probability * silent
    return link.source.clock_rate_hz / (1 / click_probability + link.dead_slots)


def class_probabilities(link: QuantumLink) -> Floats:
    """Return the probability per gate of every kind of detection.

    Returns
    -------
    ndarray, shape (K, 2, 2, 2, 2, 2)
        Axes: intensity, double click (0 no, 1 yes), Bob's basis, Alice's basis, Bob's bit, Alice's bit.
        A double click has its random bit already (with a passive choice, clicks in both bases have a random
        basis and bit). The sum is the click probability of a gate.
    """
    return classes_at(link, link.relative_efficiency)


def classes_at(link: QuantumLink, relative_efficiency: float) -> Floats:
    """Return the table of ``class_probabilities`` for detectors of a given relative efficiency."""
    light = detector_photons(link, relative_efficiency)
    fires = click_probability(light, detector_backgrounds(link, relative_efficiency)[:, None, None, :])
    table = np.zeros((len(light), 2, 2, 2, 2, 2))
    both = fires[..., 0] * fires[..., 1]  # intensity, Bob's basis, Alice's basis, Alice's bit
    table[:, 0, :, :, 0] = fires[..., 0] * (1 - fires[..., 1]) / 2
    table[:, 0, :, :, 1] = fires[..., 1] * (1 - fires[..., 0]) / 2
    table[:, 1] = both[:, :, :, None] / 4
    if link.receiver.basis_choice == "active":
        return table * choice_probabilities(link)[:, None, :, :, None, None]
    # Passive: what is seen in one basis alone, and what is seen in both, which says nothing.
    silent = (1 - fires).prod(axis=-1)
    table *= silent[:, None, ::-1, :, None, :]
    in_both_bases = (1 - silent).prod(axis=1)[:, None, :, None, :]  # intensity, -, Alice's basis, -, bit
    table[:, 1] += in_both_bases / 2 / 4
    alice = choice_probabilities(link).sum(axis=1)
    table *= alice[:, None, None, :, None, None]
    return table


def detector_photons(link: QuantumLink, relative_efficiency: float) -> Floats:
    """Return the mean photons of a pulse that each detector would count.

    Returns
    -------
    ndarray, shape (K, 2, 2, 2, 2)
        Axes: intensity, Bob's basis, Alice's basis, Alice's bit, detector.
    """
    receiver = link.receiver
    photons = receiver(link.channel(link.source.mean_photons())) * relative_efficiency
    wrong = wrong_fractions(link)
    share = np.empty((2, 2, 2, 2))  # Bob's basis, Alice's basis, Alice's bit, detector
    share[:, :, 0, 0] = share[:, :, 1, 1] = 1 - wrong
    share[:, :, 0, 1] = share[:, :, 1, 0] = wrong
    share[..., 1] *= receiver.efficiency_ratio
    light: Floats = photons[:, None, None, None, None] * basis_shares(receiver)[:, None, None, None] * share
    return light


def basis_shares(receiver: Receiver) -> Floats:
    """Return the fraction of the detectable light that the path of each basis gets, shape (2,)."""
    shares: Floats = np.array([1.0, transmittance(receiver.x_extra_loss_db)])
    if receiver.basis_choice == "passive":
        shares *= [receiver.z_basis_probability, 1 - receiver.z_basis_probability]
    return shares


def misalignment_errors(link: QuantumLink) -> tuple[float, float]:
    """Return the fraction of light at the wrong detector in Z and in X, channel and receiver together."""
    receiver, turned = link.receiver, link.channel.misalignment_error
    in_x = receiver.x_misalignment_error
    errors = (receiver.misalignment_error, receiver.misalignment_error if in_x is None else in_x)
    z, x = (error + turned - 2 * error * turned for error in errors)
    return z, x


def detector_backgrounds(link: QuantumLink, relative_efficiency: float) -> Floats:
    """Return the chance of each detector to click without light of its own pulse, shape (2, 2).

    Axes: basis, detector. With an active choice these are the same two detectors in both bases, and what
    clicked in one may be followed by an afterpulse in the other; with a passive choice they are four.
    """
    receiver = link.receiver
    light = foreign_photons(link, relative_efficiency)
    dark = receiver.dark_count_probability
    dark_and_light = dark + (1 - dark) * -np.expm1(-light)
    silence = silence_of_light(link, relative_efficiency)
    if receiver.basis_choice == "active":
        z = receiver.z_basis_probability
        weights = np.array([z, 1 - z])
        return backgrounds(silence, weights, dark_and_light, receiver.afterpulse_probability)
    one = np.ones(1)
    arms = [
        backgrounds(silence[b : b + 1], one, dark_and_light[b : b + 1], receiver.afterpulse_probability)
        for b in (0, 1)
    ]
    return np.concatenate(arms)


def silence_of_light(link: QuantumLink, relative_efficiency: float) -> Floats:
    """Return the mean of ``exp(-n)`` over intensities and Alice's choices, for each of Bob's bases."""
    receiver, z = link.receiver, link.source.z_basis_probability
    photons = receiver(link.channel(link.source.mean_photons())) * relative_efficiency
    probabilities, shares = np.array(link.source.probabilities), basis_shares(receiver)
    if receiver.efficiency_ratio == 1:  # then it does not matter which detector the light goes to
        return np.array([np.dot(probabilities, np.exp(-photons * share)) for share in shares])
    at_worse = wrong_fractions(link)[:, :, None] * [1, -1] + [0, 1]  # Bob's basis, Alice's basis, bit
    seen = shares[:, None, None] * (1 - at_worse * (1 - receiver.efficiency_ratio))
    per_intensity = np.exp(-photons[:, None, None, None] * seen)
    per_choice = np.tensordot(probabilities, per_intensity, axes=1)
    silence: Floats = (per_choice * (np.array([[z], [1 - z]]) / 2)).sum(axis=(1, 2))
    return silence


def wrong_fractions(link: QuantumLink) -> Floats:
    """Return the fraction of light at the detector that is not of Alice's bit; axes Bob's, Alice's basis."""
    wrong = np.full((2, 2), 0.5)
    wrong[[0, 1], [0, 1]] = misalignment_errors(link)
    return wrong


def foreign_photons(link: QuantumLink, relative_efficiency: float) -> Floats:
    """Return the photons per gate that each detector would count of other light than its own pulse.

    Background light and what other pulses leak into the gate, half to either detector; shape (2, 2), axes
    basis and detector.
    """
    receiver, source = link.receiver, link.source
    gate_s = 1 / source.clock_rate_hz if receiver.gate_width_s is None else receiver.gate_width_s
    per_pulse = link.channel(source.mean_photons())
    arriving = link.channel.background_photons_hz * gate_s
    arriving += receiver.leaked_fraction * float(np.dot(source.probabilities, per_pulse))
    detected = arriving * transmittance(receiver.loss_db) * receiver.detector_efficiency * relative_efficiency
    per_detector = np.array([0.5, 0.5 * receiver.efficiency_ratio])
    photons: Floats = detected * basis_shares(receiver)[:, None] * per_detector
    return photons


def saturated_efficiency(link: QuantumLink) -> float:
    """Return the efficiency, in units of that of a slow detector, at which rate and efficiency agree.

    The efficiency of the busiest detector falls with its rate in a straight line,
    ``1 - rate / detector_count_rate_max_hz``, and is taken for all.

    Raises
    ------
    OutsideModel
        If dark counts alone exceed the maximum.
    """
    rate_max_hz = link.receiver.detector_count_rate_max_hz
    if rate_max_hz is None:
        return 1.0
    z = link.receiver.z_basis_probability
    busiest = 0.5 if link.receiver.basis_choice == "active" else max(z, 1 - z) / 2

    def excess(efficiency: float) -> float:
        clicks_per_gate = float(classes_at(link, efficiency).sum())
        return efficiency - 1 + busiest * detection_rate_hz(link, clicks_per_gate) / rate_max_hz

    low, high = 0.0, 1.0
    below, above = excess(low), excess(high)
    if below > 0:
        raise OutsideModel("detector_count_rate_max_hz", rate_max_hz, "more than the dark counts alone")
    # False position, an end that stays twice is halved (Illinois). The excess rises with the efficiency and
    # is nearly straight, so a few steps reach the last digits.
    stayed = 0
    for _ in range(100):
        between = high - above * (high - low) / (above - below)
        there = excess(between)
        if abs(there) < 1e-13:
            break
        if there > 0:
            high, above, below = between, there, below / 2 if stayed == -1 else below
            stayed = -1
        else:
            low, below, above = between, there, above / 2 if stayed == 1 else above
            stayed = 1
    return between


def choice_probabilities(link: QuantumLink) -> Floats:
    """Return how often (intensity, Bob's basis, Alice's basis) are chosen, shape (K, 2, 2)."""
    z_alice, z_bob = link.source.z_basis_probability, link.receiver.z_basis_probability
    alice, bob = np.array([z_alice, 1 - z_alice]), np.array([z_bob, 1 - z_bob])
    intensity: Floats = np.array(link.source.probabilities)
    choices: Floats = intensity[:, None, None] * bob[:, None] * alice
    return choices
