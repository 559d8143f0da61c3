"""Twin field in the form "sending or not sending": single photons interfere at a station in the middle.

In a Z window each end sends a phase-randomised pulse with a small probability, else nothing; exactly one
click at the station makes a bit (Alice: sent is 1; Bob: not sent is 1). Windows in which one end alone sent
are right, those of both or none are wrong, so the bit error rate is high by design. In an X window both
send weak pulses of known phase, and the wrong click counts. What arrives is one photon over *half* the
way: rates fall with the square root of the loss, and beat the repeaterless bound far away.

>>> arm = TwinArm(loss_db=30.0)
>>> station = PhaseStation(0.8, dark_count_probability=1e-9, visibility=0.98, phase_sd_rad=0.2)
>>> link = TwinFieldLink(arm, arm, station, clock_rate_hz=1e9, sending_probability=0.1, intensity=0.2,
...                      x_intensity=0.02)
>>> found = twin_field_statistics(link)
>>> round(found.z_qber, 3), round(found.x_qber, 3)
(0.1, 0.02)

Left out: pairing of bits after the exchange (active odd-parity pairing), post-selection of phases, and how
the two lasers are kept in phase; ``phase_sd_rad`` is what is left. Read :mod:`openqci.proofs.twin_field`.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.special import i0e

from openqci.core.detections import Bits, Slots
from openqci.core.errors import OutsideModel
from openqci.quantum.elements import Floats, check_range, transmittance
from openqci.quantum.exchange import draw_slots

PHASES = 256
HERMITE_POINTS = 80
SENT_NONE, SENT_ALICE, SENT_BOB, SENT_BOTH = range(4)


@dataclass(frozen=True)
class TwinArm:
    """The fibre from one end to the station, 0 to 200 dB."""

    loss_db: float

    def __post_init__(self) -> None:
        check_range("loss_db", self.loss_db, 0.0, 200.0)


@dataclass(frozen=True)
class PhaseStation:
    """The station: a beam splitter, two detectors, and what is left of the phase between the ends.

    Parameters
    ----------
    detector_efficiency : float
        Above 0 and at most 1, with the station's own optics.
    dark_count_probability : float
        Per gate and detector, 0 to 0.1.
    visibility : float
        Of the interference at rest, 0 to 1.
    phase_sd_rad : float
        Standard deviation of the phase that is left: lasers ``sqrt(2 pi linewidth time)`` and drift of the
        fibre, of the order of 1 to 10 rad/ms over hundreds of km (unverified) times the time between two
        corrections.
    """

    detector_efficiency: float
    dark_count_probability: float
    visibility: float
    phase_sd_rad: float

    def __post_init__(self) -> None:
        check_range("detector_efficiency", self.detector_efficiency, 1e-6, 1.0)
        check_range("dark_count_probability", self.dark_count_probability, 0.0, 0.1)
        check_range("visibility", self.visibility, 0.0, 1.0)
        check_range("phase_sd_rad", self.phase_sd_rad, 0.0, 10.0)

    @property
    def phase_error(self) -> float:
        """e_X of a single photon: ``(1 - V exp(-var/2))/2``."""
        return (1 - self.visibility * math.exp(-(self.phase_sd_rad**2) / 2)) / 2


@dataclass(frozen=True)
class TwinFieldLink:
    """Two arms and a station, and the settings of both ends.

    Parameters
    ----------
    alice, bob : TwinArm
        With equal losses; unequal arms need unequal settings for the proof to hold.
    station : PhaseStation
    clock_rate_hz : float
    sending_probability : float
        In a Z window, of each end, above 0 and below 1.
    intensity : float
        Mean photons of a Z pulse, above 0 and at most 10.
    x_intensity : float
        Of an X pulse.
    z_window_probability : float
        How often both ends choose a Z window; the rest are X windows.

    Raises
    ------
    OutsideModel
        For a value outside its range, and for arms of unequal loss.
    """

    alice: TwinArm
    bob: TwinArm
    station: PhaseStation
    clock_rate_hz: float
    sending_probability: float
    intensity: float
    x_intensity: float
    z_window_probability: float = 0.9

    def __post_init__(self) -> None:
        check_range("clock_rate_hz", self.clock_rate_hz, 1.0, 1e12)
        check_range("sending_probability", self.sending_probability, 1e-9, 1 - 1e-9)
        check_range("intensity", self.intensity, 1e-12, 10.0)
        check_range("x_intensity", self.x_intensity, 1e-12, 10.0)
        check_range("z_window_probability", self.z_window_probability, 1e-6, 1 - 1e-6)
        if abs(self.alice.loss_db - self.bob.loss_db) > 1e-9:
            raise OutsideModel("loss_db", (self.alice.loss_db, self.bob.loss_db), "equal losses of both arms")

    @property
    def arm_efficiency(self) -> float:
        """Chance of one photon of an end to be counted at the station."""
        return transmittance(self.alice.loss_db) * self.station.detector_efficiency


@dataclass(frozen=True)
class TwinFieldStatistics:
    """Per window of its kind: chance of exactly one click, error rate; and what single photons do.

    ``sent_gains`` has the Z chances when none, Alice, Bob, both sent. ``single_yield`` and
    ``single_phase_error`` are those of a window in which one end alone sent one photon.
    """

    z_gain: float
    z_qber: float
    x_gain: float
    x_qber: float
    sent_gains: tuple[float, float, float, float]
    single_yield: float
    single_phase_error: float


@dataclass(frozen=True)
class TwinFieldRecord:
    """Windows with exactly one click, arrays of shape (n,).

    Attributes
    ----------
    slots : ndarray of int64
    windows : ndarray of uint8
        0 for Z, 1 for X.
    alice_bits, bob_bits : ndarray of uint8
        Z: the bits as said above. X: phase 0 or pi of each end, Bob's flipped by the announced detector, so
        that equal bits are right.
    detectors : ndarray of uint8
        Which one clicked.
    """

    slots: Slots
    windows: Bits
    alice_bits: Bits
    bob_bits: Bits
    detectors: Bits


def twin_field_statistics(link: TwinFieldLink) -> TwinFieldStatistics:
    """Return gains and error rates in closed form.

    References
    ----------
    X.-B. Wang, Z.-W. Yu, X.-L. Hu, PRA 98, 062323 (2018), arXiv:1805.09222, as remembered; each line is held
    against drawn windows in the tests.
    """
    dark = link.station.dark_count_probability
    live, mean = 1 - dark, link.arm_efficiency * link.intensity
    one_side = 2 * (1 - live * math.exp(-mean / 2)) * live * math.exp(-mean / 2)
    none = 2 * dark * live
    # Both: intensities m (1 +- cos phi) on the two detectors, averaged over phi by I0(m) = exp(m) i0e(m).
    both = 2 * live * (float(i0e(mean)) - live * math.exp(-2 * mean))
    sends = link.sending_probability
    wrong = sends**2 * both + (1 - sends) ** 2 * none
    z_gain = 2 * sends * (1 - sends) * one_side + wrong
    right_x, wrong_x = x_click_chances(link)
    single = link.arm_efficiency * live + (1 - link.arm_efficiency) * 2 * dark * live
    single_errors = link.arm_efficiency * live * link.station.phase_error
    single_errors += (1 - link.arm_efficiency) * dark * live
    x_gain = right_x + wrong_x
    return TwinFieldStatistics(
        z_gain=z_gain,
        z_qber=wrong / z_gain if z_gain > 0 else 0.5,
        x_gain=x_gain,
        x_qber=wrong_x / x_gain if x_gain > 0 else 0.5,
        sent_gains=(none, one_side, one_side, both),
        single_yield=single,
        single_phase_error=single_errors / single if single > 0 else 0.5,
    )


def x_click_chances(link: TwinFieldLink) -> tuple[float, float]:
    """Return the chances of the right and of the wrong click alone in an X window.

    The average over a normal phase error by Gauss and Hermite's rule, which is exact here to ten digits up
    to a spread of 1 rad.
    """
    nodes, weights = normal_average()
    right, wrong = x_fires(link, nodes * link.station.phase_sd_rad)
    return float(weights @ (right * (1 - wrong))), float(weights @ (wrong * (1 - right)))


@cache
def normal_average() -> tuple[Floats, Floats]:
    """Return places and weights of an average over a normal distribution."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(HERMITE_POINTS)
    return nodes, weights / weights.sum()


def x_fires(link: TwinFieldLink, phase_errors_rad: Floats) -> tuple[Floats, Floats]:
    """Return the chances of the right and of the wrong detector to fire in an X window."""
    mean = link.arm_efficiency * link.x_intensity
    contrast = link.station.visibility * np.cos(phase_errors_rad)
    quiet = math.log1p(-link.station.dark_count_probability)
    return -np.expm1(quiet - mean * (1 + contrast)), -np.expm1(quiet - mean * (1 - contrast))


def twin_field_exchange(link: TwinFieldLink, clicks: int, rng: np.random.Generator) -> TwinFieldRecord:
    """Draw so many windows with exactly one click: who sent, at what phase, which detector.

    Raises
    ------
    OutsideModel
        For fewer than 1, or a link that has none in 1e15 windows.
    """
    if clicks < 1:
        raise OutsideModel("clicks", clicks, "1 or more")
    found = twin_field_statistics(link)
    gain = link.z_window_probability * found.z_gain + (1 - link.z_window_probability) * found.x_gain
    if not gain > 1e-15:
        raise OutsideModel("gain", gain, "above 1e-15 clicks per window")
    windows = (rng.random(clicks) * gain >= link.z_window_probability * found.z_gain).astype(np.uint8)
    alice, bob, detectors = (np.zeros(clicks, dtype=np.uint8) for _ in range(3))
    in_x = np.flatnonzero(windows)
    alice[in_x], bob[in_x], detectors[in_x] = drawn_x(link, len(in_x), rng)
    in_z = np.flatnonzero(windows == 0)
    alice[in_z], bob[in_z], detectors[in_z] = drawn_z(link, len(in_z), rng)
    return TwinFieldRecord(draw_slots(gain, 0, clicks, rng), windows, alice, bob, detectors)


def drawn_z(link: TwinFieldLink, count: int, rng: np.random.Generator) -> tuple[Bits, Bits, Bits]:
    """Return bits and detectors of Z windows, by rejection from who sends and at what phase."""
    sends = link.sending_probability
    chances = np.array([(1 - sends) ** 2, sends * (1 - sends), sends * (1 - sends), sends**2])
    grid = 2 * np.pi * np.arange(PHASES) / PHASES
    highest = np.array(
        [float(np.sum(z_alone(link, np.full(PHASES, sent), grid), axis=0).max()) for sent in range(4)]
    )
    proposal = chances * highest * 1.001
    sent = np.empty(count, dtype=np.int64)
    detectors = np.empty(count, dtype=np.uint8)
    open_places = np.arange(count)
    while len(open_places):
        tried = rng.choice(4, size=len(open_places), p=proposal / proposal.sum())
        first, second = z_alone(link, tried, rng.uniform(0, 2 * np.pi, len(tried)))
        uniform = rng.random(len(tried)) * (highest * 1.001)[tried]
        taken = uniform < first + second
        sent[open_places[taken]] = tried[taken]
        detectors[open_places[taken]] = (uniform >= first)[taken]
        open_places = open_places[~taken]
    alice = np.isin(sent, (SENT_ALICE, SENT_BOTH)).astype(np.uint8)
    bob = np.isin(sent, (SENT_NONE, SENT_ALICE)).astype(np.uint8)
    return alice, bob, detectors


def z_alone(link: TwinFieldLink, sent: Slots, phases: Floats) -> tuple[Floats, Floats]:
    """Return the chances of each detector to click alone, for who sent and the phase between two pulses."""
    mean = link.arm_efficiency * link.intensity
    field_a = np.sqrt(mean * np.isin(sent, (SENT_ALICE, SENT_BOTH)))
    field_b = np.sqrt(mean * np.isin(sent, (SENT_BOB, SENT_BOTH))) * np.exp(1j * phases)
    quiet = math.log1p(-link.station.dark_count_probability)
    first, second = (-np.expm1(quiet - np.abs(field_a + s * field_b) ** 2 / 2) for s in (1, -1))
    return first * (1 - second), second * (1 - first)


def drawn_x(link: TwinFieldLink, count: int, rng: np.random.Generator) -> tuple[Bits, Bits, Bits]:
    """Return bits and detectors of X windows, by rejection from the phase errors."""
    highest = 1.001 * float(np.sum(alone_of(x_fires(link, np.linspace(0, np.pi, PHASES))), axis=0).max())
    wrong = np.empty(count, dtype=np.uint8)
    open_places = np.arange(count)
    while len(open_places):
        errors_rad = rng.normal(scale=link.station.phase_sd_rad, size=len(open_places))
        right_alone, wrong_alone = alone_of(x_fires(link, errors_rad))
        uniform = rng.random(len(errors_rad)) * highest
        taken = uniform < right_alone + wrong_alone
        wrong[open_places[taken]] = (uniform >= right_alone)[taken]
        open_places = open_places[~taken]
    alice, bob = (rng.integers(0, 2, count, dtype=np.uint8) for _ in range(2))
    # Equal phases lead to the first detector, opposite ones to the second; an error leads to the other.
    detectors = alice ^ bob ^ wrong
    return alice, (bob ^ detectors).astype(np.uint8), detectors


def alone_of(fires: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    return fires[0] * (1 - fires[1]), fires[1] * (1 - fires[0])
