"""A quantum link as a whole, and what it does on average, in closed form.

The statistics are those of one detection at a time: which intensity, which bases, which bits, one detector
or both. :func:`class_probabilities` is the one table behind both the closed form here and the Monte Carlo of
:mod:`openqci.quantum.exchange`, so that the two can only differ by chance.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from openqci.core.detections import Z_BASIS
from openqci.quantum.clicks import background_probability, clicks
from openqci.quantum.elements import DecoySource, FibreChannel, Floats, Receiver


@dataclass(frozen=True)
class QuantumLink:
    """One hop of decoy-state BB84: source, channel, receiver."""

    source: DecoySource
    channel: FibreChannel
    receiver: Receiver

    @cached_property
    def detectable_photons(self) -> Floats:
        """Mean photons per pulse that the detectors would count, shape (K,)."""
        return self.receiver(self.channel(self.source.mean_photons()))

    @cached_property
    def background(self) -> float:
        """Chance of one detector to click in a gate without light: dark counts and afterpulses."""
        return background_probability(
            self.detectable_photons,
            np.array(self.source.probabilities),
            self.receiver.dark_count_probability,
            self.receiver.afterpulse_probability,
        )

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
        Probability that a pulse of intensity k is seen by a live receiver; the same in every basis.
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
        Detections per second with dead time: ``r / (1 + r tau)``.
    sifted_rate_hz : float
        Sifted bits per second in the key basis Z, all intensities together.
    qber : float
        Error rate of these bits.
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
    refined. Dead time: nonparalysable, common to both detectors.
    """
    table = class_probabilities(link)
    # Axes of the table: intensity, double, Bob's basis, Alice's basis, Bob's bit, Alice's bit.
    per_class = table.sum(axis=1)
    matched = np.stack([per_class[:, b, b] for b in (0, 1)])
    wrong = matched[..., 0, 1] + matched[..., 1, 0]
    seen = matched.sum(axis=(-2, -1))
    click_probability = float(table.sum())
    detection_rate_hz = link.source.clock_rate_hz / (1 / click_probability + link.dead_slots)
    fractions = seen / click_probability
    return ExpectedStatistics(
        gains=table.sum(axis=(1, 2, 3, 4, 5)) / np.array(link.source.probabilities),
        detection_fractions=fractions,
        error_rates=wrong / np.where(seen > 0, seen, 1.0),
        double_click_fraction=float(table[:, 1].sum()) / click_probability,
        click_probability=click_probability,
        detection_rate_hz=detection_rate_hz,
        sifted_rate_hz=detection_rate_hz * float(fractions[Z_BASIS].sum()),
        qber=float(wrong[Z_BASIS].sum() / seen[Z_BASIS].sum()),
    )


def class_probabilities(link: QuantumLink) -> Floats:
    """Return the probability per gate of every kind of detection.

    Returns
    -------
    ndarray, shape (K, 2, 2, 2, 2, 2)
        Axes: intensity, double click (0 no, 1 yes), Bob's basis, Alice's basis, Bob's bit, Alice's bit.
        A double click has its random bit already. The sum is the click probability of a gate.
    """
    photons, background = link.detectable_photons, link.background
    matched = clicks(photons, background, link.receiver.misalignment_error)
    unmatched = clicks(photons, background, 0.5)
    equal_bits = np.eye(2)
    table = np.empty((len(photons), 2, 2, 2, 2, 2))
    for bob in (0, 1):
        for alice in (0, 1):
            seen = matched if alice == bob else unmatched
            table[:, 0, bob, alice] = (
                seen.right[:, None, None] * equal_bits + seen.wrong[:, None, None] * (1 - equal_bits)
            ) / 2
            table[:, 1, bob, alice] = seen.double[:, None, None] / 4
    return table * choice_probabilities(link)[:, None, :, :, None, None]


def choice_probabilities(link: QuantumLink) -> Floats:
    """Return how often (intensity, Bob's basis, Alice's basis) are chosen, shape (K, 2, 2)."""
    z_alice, z_bob = link.source.z_basis_probability, link.receiver.z_basis_probability
    alice, bob = np.array([z_alice, 1 - z_alice]), np.array([z_bob, 1 - z_bob])
    intensity: Floats = np.array(link.source.probabilities)
    choices: Floats = intensity[:, None, None] * bob[:, None] * alice
    return choices
