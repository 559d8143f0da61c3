"""Single-photon detectors as they are specified, and the receiver that optics and a clock make of one.

A datasheet speaks of one detector and of seconds; a link needs figures per gate and for all detectors
together. Here the two meet, once: a detector's dark counts are given *either* per second *or* per gate,
never both, always of one detector, and :func:`receiver_of` is the only way from one to the other.

>>> from openqci.quantum.encodings import phase_optics
>>> snspd = generic_detector("snspd")
>>> receiver = receiver_of(snspd, phase_optics(), clock_rate_hz=1e9, z_basis_probability=0.9)
>>> receiver.detector_efficiency, receiver.detectors
(0.8, 2)

Left out: dependence of efficiency on polarisation and wavelength, afterpulses that remember more than the
last click, latching, photon-number resolution. Detectors under attack: the evaluation laboratory.
Read next :mod:`openqci.quantum.timing` and :mod:`openqci.quantum.encodings`.
"""

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from openqci.core.errors import OutsideModel
from openqci.quantum.elements import (
    DeadTimeModel,
    Floats,
    Receiver,
    check_dead_time_model,
    check_optional,
    check_range,
)
from openqci.quantum.encodings import ReceiverOptics
from openqci.quantum.timing import captured_fraction, joint_fwhm_s, leaked_fraction

DetectorKind = Literal["ingaas-gated", "ingaas-free-running", "snspd", "si-apd"]


@dataclass(frozen=True)
class PhotonDetector:
    """One single-photon detector. All figures are of **one**, however many a receiver has.

    Parameters
    ----------
    kind : {"ingaas-gated", "ingaas-free-running", "snspd", "si-apd"}
    efficiency : float
        Photon detection efficiency, coupling included, above 0 and at most 1.
    dark_count_rate_hz : float, optional
        Counts per second of live time without light.
    dark_count_probability_per_gate : float, optional
        Counts per gate of ``gate_width_s`` without light. Exactly one of the two is given.
    gate_width_s : float, optional
        How long one gate is open; a detector that runs freely has none. Needed with counts per gate.
    dead_time_s : float
        After a click.
    dead_time_model : {"nonparalysable", "paralysable"}
        A paralysable detector starts its dead time anew when light comes during it.
    afterpulse_probability : float
        Per click, after the dead time, 0 to 0.3.
    jitter_fwhm_s : float
        Full width at half maximum of the timing error.
    efficiency_ratio : float
        Efficiency of the worse over the better of a receiver's two detectors, above 0 and at most 1.
    count_rate_max_hz : float, optional
        Rate at which the efficiency would have fallen to zero in a straight line: twice the rate at which
        it has halved; of N pixels with recovery time t, ``N / t``.
    """

    kind: DetectorKind
    efficiency: float
    dark_count_rate_hz: float | None = None
    dark_count_probability_per_gate: float | None = None
    gate_width_s: float | None = None
    dead_time_s: float = 0.0
    dead_time_model: DeadTimeModel = "nonparalysable"
    afterpulse_probability: float = 0.0
    jitter_fwhm_s: float = 0.0
    efficiency_ratio: float = 1.0
    count_rate_max_hz: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(DetectorKind):
            raise OutsideModel("kind", self.kind, f"one of {', '.join(get_args(DetectorKind))}")
        check_range("efficiency", self.efficiency, 1e-6, 1.0)
        check_optional("dark_count_rate_hz", self.dark_count_rate_hz, 0.0, 1e9)
        check_optional("dark_count_probability_per_gate", self.dark_count_probability_per_gate, 0.0, 0.1)
        check_optional("gate_width_s", self.gate_width_s, 1e-12, 1.0)
        check_range("dead_time_s", self.dead_time_s, 0.0, 1.0)
        check_dead_time_model(self.dead_time_model)
        check_range("afterpulse_probability", self.afterpulse_probability, 0.0, 0.3)
        check_range("jitter_fwhm_s", self.jitter_fwhm_s, 0.0, 1e-6)
        check_range("efficiency_ratio", self.efficiency_ratio, 1e-6, 1.0)
        check_optional("count_rate_max_hz", self.count_rate_max_hz, 1.0, 1e15)
        if (self.dark_count_rate_hz is None) == (self.dark_count_probability_per_gate is None):
            raise OutsideModel(
                "dark_count_rate_hz",
                self.dark_count_rate_hz,
                "exactly one of dark_count_rate_hz and dark_count_probability_per_gate",
            )
        if self.kind == "ingaas-gated" and self.gate_width_s is None:
            raise OutsideModel("gate_width_s", None, "the width of a gate, for a gated detector")
        if self.dark_count_probability_per_gate is not None and self.gate_width_s is None:
            raise OutsideModel("gate_width_s", None, "the gate that the dark counts are per")

    @property
    def live_dark_count_rate_hz(self) -> float:
        """Dark counts per second of **live** time of one detector, however they were given."""
        per_gate, gate_s = self.dark_count_probability_per_gate, self.gate_width_s
        if per_gate is None or gate_s is None:
            return self.dark_count_rate_hz or 0.0
        return -math.log1p(-per_gate) / gate_s

    def dark_count_probability(self, window_s: float) -> float:
        """Return the chance of one detector to count in a window without light.

        Parameters
        ----------
        window_s : float
            At most the gate, where the detector has one.
        """
        check_range("window_s", window_s, 0.0, self.gate_width_s or 1.0)
        if window_s == self.gate_width_s and self.dark_count_probability_per_gate is not None:
            return self.dark_count_probability_per_gate
        return -math.expm1(-self.live_dark_count_rate_hz * window_s)


@dataclass(frozen=True)
class GenericDetector:
    """A class of detectors: typical figures, where they were read, and which were not."""

    detector: PhotonDetector
    source: str
    unverified: tuple[str, ...]


GENERIC_DETECTORS = MappingProxyType(
    {
        "ingaas-gated-1ghz": GenericDetector(
            PhotonDetector(
                "ingaas-gated",
                0.205,
                dark_count_probability_per_gate=2.1e-5,
                gate_width_s=3e-10,
                afterpulse_probability=0.0525,
                jitter_fwhm_s=7.5e-11,
            ),
            "self-differencing diodes of M. Lucamarini et al., Opt. Express 21, 24550 (2013)",
            ("gate_width_s", "jitter_fwhm_s"),
        ),
        "ingaas-gated-appliance": GenericDetector(
            PhotonDetector(
                "ingaas-gated",
                0.15,
                dark_count_probability_per_gate=7e-7,
                gate_width_s=5e-10,
                dead_time_s=1.5e-5,
                jitter_fwhm_s=2e-10,
            ),
            "diodes inside an appliance; efficiency from an open DV/CV comparison study 2026",
            ("dark_count_probability_per_gate", "gate_width_s", "dead_time_s", "jitter_fwhm_s"),
        ),
        "ingaas-free-running": GenericDetector(
            PhotonDetector(
                "ingaas-free-running",
                0.20,
                dark_count_rate_hz=16.2,
                dead_time_s=4.23e-5,
                afterpulse_probability=0.005,
                jitter_fwhm_s=1.5e-10,
            ),
            "cooled negative-feedback diodes of B. Korzh et al., Nat. Photon. 9, 163 (2015), at 203 km",
            ("efficiency", "afterpulse_probability", "jitter_fwhm_s"),
        ),
        "snspd": GenericDetector(
            PhotonDetector(
                "snspd",
                0.80,
                dark_count_rate_hz=100.0,
                dead_time_s=3e-8,
                jitter_fwhm_s=4e-11,
            ),
            "nanowires in the field, 64 to 93 % and 1 to 100 Hz, open DV/CV comparison study 2026",
            ("dead_time_s", "jitter_fwhm_s"),
        ),
        "si-apd-thick": GenericDetector(
            PhotonDetector(
                "si-apd",
                0.50,
                dark_count_rate_hz=100.0,
                dead_time_s=4e-8,
                afterpulse_probability=0.0075,
                jitter_fwhm_s=4e-10,
            ),
            "thick-junction silicon diodes at 785 to 850 nm; efficiency as on Micius",
            ("dark_count_rate_hz", "dead_time_s", "afterpulse_probability", "jitter_fwhm_s"),
        ),
        "si-apd-thin": GenericDetector(
            PhotonDetector(
                "si-apd",
                0.50,
                dark_count_rate_hz=100.0,
                dead_time_s=4e-8,
                afterpulse_probability=0.0075,
                jitter_fwhm_s=5e-11,
            ),
            "thin-junction silicon diodes at 785 to 850 nm",
            ("efficiency", "dark_count_rate_hz", "dead_time_s", "afterpulse_probability", "jitter_fwhm_s"),
        ),
    }
)
"""By name. They are assumptions within published ranges, not products."""


def generic_detector(name: str) -> PhotonDetector:
    """Return a detector of ``GENERIC_DETECTORS``; an unknown name raises OutsideModel and lists them."""
    if name not in GENERIC_DETECTORS:
        raise OutsideModel("detector", name, f"one of {', '.join(GENERIC_DETECTORS)}")
    return GENERIC_DETECTORS[name].detector


def receiver_of(
    detector: PhotonDetector,
    optics: ReceiverOptics,
    *,
    clock_rate_hz: float,
    z_basis_probability: float,
    window_s: float | None = None,
    pulse_fwhm_s: float = 0.0,
    dispersion_fwhm_s: float = 0.0,
) -> Receiver:
    """Return the receiver that optics and a clock make of a detector.

    Parameters
    ----------
    detector : PhotonDetector
    optics : ReceiverOptics
        From :mod:`openqci.quantum.encodings`.
    clock_rate_hz : float
        Slots per second; the clock of the source.
    z_basis_probability : float
        Of Bob.
    window_s : float, optional
        Time per slot in which a click counts. When not given: the detector's gate, at most the slot.
    pulse_fwhm_s, dispersion_fwhm_s : float
        Width of the optical pulse as sent, and what the fibre adds
        (:meth:`openqci.quantum.fibre.FibreSpan.dispersion_broadening_s`).

    Returns
    -------
    Receiver
        A narrower window collects fewer dark counts, less background, fewer photons of the neighbours,
        and less of the pulse.

    Raises
    ------
    OutsideModel
        Names the parameter; ``window_s`` above the slot or the gate is one.
    """
    check_range("clock_rate_hz", clock_rate_hz, 1.0, 1e12)
    slot_s = 1 / clock_rate_hz
    widest_s = min(slot_s, detector.gate_width_s or slot_s)
    window = widest_s if window_s is None else window_s
    check_range("window_s", window, 1e-15, widest_s * (1 + 1e-9))
    window = min(window, widest_s)
    fwhm_s = joint_fwhm_s(detector.jitter_fwhm_s, pulse_fwhm_s, dispersion_fwhm_s)
    return Receiver(
        loss_db=optics.loss_db,
        detector_efficiency=detector.efficiency,
        dark_count_probability=detector.dark_count_probability(window),
        dead_time_s=detector.dead_time_s,
        afterpulse_probability=detector.afterpulse_probability,
        misalignment_error=optics.misalignment_error,
        z_basis_probability=z_basis_probability,
        basis_choice=optics.basis_choice,
        efficiency_ratio=detector.efficiency_ratio,
        gate_width_s=window,
        captured_fraction=float(captured_fraction(window, fwhm_s)),
        leaked_fraction=leaked_fraction(window, slot_s, fwhm_s),
        detector_count_rate_max_hz=detector.count_rate_max_hz,
        dead_time_model=detector.dead_time_model,
        x_extra_loss_db=optics.x_extra_loss_db,
        x_misalignment_error=optics.x_misalignment_error,
    )


def counted_rate_hz(
    rate_hz: ArrayLike, dead_time_s: ArrayLike, dead_time_model: DeadTimeModel = "nonparalysable"
) -> Floats:
    """Return the rate that a detector counts of a Poisson stream that would click at ``rate_hz``.

    Parameters
    ----------
    rate_hz, dead_time_s : array_like, shape S (broadcast)
        Of **one** detector, zero or more.
    dead_time_model : {"nonparalysable", "paralysable"}

    Returns
    -------
    ndarray, shape S
        ``r / (1 + r tau)`` or ``r exp(-r tau)``. The links of this package have slots; there the dead time
        is a whole number of them.

    Examples
    --------
    >>> round(float(counted_rate_hz(1e6, 1e-5)))
    90909
    """
    check_dead_time_model(dead_time_model)
    rate, dead_s = np.asarray(rate_hz, float), np.asarray(dead_time_s, float)
    for parameter, value in (("rate_hz", rate), ("dead_time_s", dead_s)):
        if not (np.all(value >= 0) and np.all(np.isfinite(value))):
            raise OutsideModel(parameter, value, "finite numbers, zero or more")
    busy = rate * dead_s
    counted: Floats = rate * np.exp(-busy) if dead_time_model == "paralysable" else rate / (1 + busy)
    return counted
