"""The elements of a quantum link: source, fibre, receiver. Each knows only itself.

Light is described by its mean photon number per pulse, one value per intensity; phase-randomised coherent
pulses stay Poissonian under loss, so nothing else has to travel along the chain. A parameter outside the
range in which the model holds raises :class:`~openqci.core.errors.OutsideModel` when the element is made.

Jitter, drift and coexisting channels enter here as the few numbers that a pulse sees of them; the modules
that compute these are :mod:`~openqci.quantum.timing`, ``drift`` and ``coexistence``, and
:func:`openqci.quantum.detectors.receiver_of` makes a receiver from a detector and its optics.

Left out: intensity noise, pulse correlations. Read next :mod:`openqci.quantum.clicks`, where light becomes
clicks.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from openqci.core.errors import OutsideModel

Floats = NDArray[np.float64]

INTENSITIES_MAX = 4
"""Signal and up to three decoys: what two bits of a detection's class can name."""

INTENSITY_MAX = 10.0
"""Mean photons per pulse; far above any decoy-state source, and the click probability stays below one."""

LOSS_DB_MAX = 200.0

BACKGROUND_PHOTONS_HZ_MAX = 1e15
"""About 0.1 mW at 1550 nm: no quantum channel any more, but still a number."""

BasisChoice = Literal["active", "passive"]
DeadTimeModel = Literal["nonparalysable", "paralysable"]


@dataclass(frozen=True)
class DecoySource:
    """Alice's transmitter of phase-randomised weak coherent pulses.

    Parameters
    ----------
    clock_rate_hz : float
        Pulses per second.
    intensities : tuple of float
        Mean photon numbers per pulse at the output, strictly falling, brightest (signal) first; 2 to 4 of
        them, the last may be zero (vacuum).
    probabilities : tuple of float
        How often each intensity is sent; they sum to one.
    z_basis_probability : float
        How often Alice prepares in the key basis Z, above 0 and below 1.
    """

    clock_rate_hz: float
    intensities: tuple[float, ...]
    probabilities: tuple[float, ...]
    z_basis_probability: float

    def __post_init__(self) -> None:
        check_range("clock_rate_hz", self.clock_rate_hz, 1.0, 1e12)
        check_intensities(self.intensities)
        check_distribution(self.probabilities, len(self.intensities))
        check_range("z_basis_probability", self.z_basis_probability, 1e-6, 1 - 1e-6)

    def mean_photons(self) -> Floats:
        """Return the mean photon number per pulse of each intensity, shape (K,)."""
        return np.array(self.intensities, dtype=np.float64)


@dataclass(frozen=True)
class FibreChannel:
    """Everything between the two devices: fibre, splices, connectors; never the receiver or its detector.

    Parameters
    ----------
    loss_db : float
        Total loss, 0 to 200 dB.
    background_photons_hz : float
        Photons per second of other origin that leave the channel inside the receiver's filter, evenly over
        both detectors of a basis and all times.
    misalignment_error : float
        Fraction of the light that the channel turns to the wrong detector, on average, 0 to 0.5. It adds to
        the receiver's as independent turns do, ``e + e' - 2 e e'``, and takes nothing from the gain.
    """

    loss_db: float
    background_photons_hz: float = 0.0
    misalignment_error: float = 0.0

    def __post_init__(self) -> None:
        check_range("loss_db", self.loss_db, 0.0, LOSS_DB_MAX)
        check_range("background_photons_hz", self.background_photons_hz, 0.0, BACKGROUND_PHOTONS_HZ_MAX)
        check_range("misalignment_error", self.misalignment_error, 0.0, 0.5)

    @classmethod
    def of_length(
        cls, length_km: float, attenuation_db_per_km: float = 0.2, other_loss_db: float = 0.0
    ) -> "FibreChannel":
        """Return the channel of a fibre; ``other_loss_db`` is what splices and connectors add."""
        check_range("length_km", length_km, 0.0, math.inf)
        return cls(attenuation_db_per_km * length_km + other_loss_db)

    def __call__(self, mean_photons: Floats) -> Floats:
        """Return the mean photon numbers at the far end."""
        return mean_photons * transmittance(self.loss_db)


@dataclass(frozen=True)
class Receiver:
    """Bob's receiver: a choice of basis in front of threshold detectors, and what they add.

    Parameters
    ----------
    loss_db : float
        Loss of the optics inside the receiver, in the path of the key basis Z; neither the detector nor
        the division of a passive choice of basis is in it.
    detector_efficiency : float
        Photon detection efficiency of one detector, the better one, above 0 and at most 1.
    dark_count_probability : float
        Per gate **and detector**, 0 to 0.1; everything that clicks without light.
    dead_time_s : float
        Common to all detectors: after any click none may click for this time. (Only so does a click
        say nothing about the next bit.)
    afterpulse_probability : float
        Chance that a click is followed by a spurious one after the dead time, 0 to 0.3.
    misalignment_error : float
        Fraction of the light that reaches the wrong detector when the bases match, 0 to 0.5.
    z_basis_probability : float
        How often Bob measures in the key basis Z; with a passive choice, the fraction of the light that
        the splitter sends there.
    basis_choice : {"active", "passive"}
        Active: two detectors, a basis chosen for every gate. Passive: a splitter and four detectors, all
        of them live in every gate, so noise counts twice; clicks in both bases get a random basis and bit.
    efficiency_ratio : float
        Efficiency of the worse over that of the better detector of a basis, above 0 and at most 1. The
        better one stands for bit 0.
    gate_width_s : float, optional
        Time per slot in which a click counts, for background light; the whole slot when not given. (Dark
        counts are given per gate already.)
    captured_fraction : float
        Light of a pulse that is counted in its own gate, above 0 and at most 1; jitter takes the rest.
    leaked_fraction : float
        Light of all other pulses that a gate collects, in units of one pulse, 0 to 1.
    detector_count_rate_max_hz : float, optional
        Count rate of one detector at which its efficiency would be zero; it falls with the rate in a
        straight line, as that of many pixels with their own recovery does. No limit when not given.
    dead_time_model : {"nonparalysable", "paralysable"}
        Whether a click that comes during the dead time is lost only, or starts the dead time anew. The
        second excludes ``detector_count_rate_max_hz``.
    x_extra_loss_db : float
        Loss in the path of the test basis X besides ``loss_db``.
    x_misalignment_error : float, optional
        In the basis X; as in Z when not given.
    """

    loss_db: float
    detector_efficiency: float
    dark_count_probability: float
    dead_time_s: float = 0.0
    afterpulse_probability: float = 0.0
    misalignment_error: float = 0.0
    z_basis_probability: float = 0.5
    basis_choice: BasisChoice = "active"
    efficiency_ratio: float = 1.0
    gate_width_s: float | None = None
    captured_fraction: float = 1.0
    leaked_fraction: float = 0.0
    detector_count_rate_max_hz: float | None = None
    dead_time_model: DeadTimeModel = "nonparalysable"
    x_extra_loss_db: float = 0.0
    x_misalignment_error: float | None = None

    def __post_init__(self) -> None:
        check_range("loss_db", self.loss_db, 0.0, LOSS_DB_MAX)
        check_range("detector_efficiency", self.detector_efficiency, 1e-6, 1.0)
        check_range("dark_count_probability", self.dark_count_probability, 0.0, 0.1)
        check_range("dead_time_s", self.dead_time_s, 0.0, 1.0)
        check_range("afterpulse_probability", self.afterpulse_probability, 0.0, 0.3)
        check_range("misalignment_error", self.misalignment_error, 0.0, 0.5)
        check_range("z_basis_probability", self.z_basis_probability, 1e-6, 1 - 1e-6)
        check_basis_choice(self.basis_choice)
        check_range("efficiency_ratio", self.efficiency_ratio, 1e-6, 1.0)
        check_optional("gate_width_s", self.gate_width_s, 1e-15, 1.0)
        check_range("captured_fraction", self.captured_fraction, 1e-6, 1.0)
        check_range("leaked_fraction", self.leaked_fraction, 0.0, 1.0)
        check_optional("detector_count_rate_max_hz", self.detector_count_rate_max_hz, 1.0, 1e15)
        check_dead_time_model(self.dead_time_model)
        if self.dead_time_model == "paralysable" and self.detector_count_rate_max_hz is not None:
            # More light may then give fewer clicks, and rate and efficiency agree at more than one point.
            raise OutsideModel("dead_time_model", self.dead_time_model, "nonparalysable, with a maximum rate")
        check_range("x_extra_loss_db", self.x_extra_loss_db, 0.0, 100.0)
        check_optional("x_misalignment_error", self.x_misalignment_error, 0.0, 0.5)

    def __call__(self, mean_photons: Floats) -> Floats:
        """Return the mean number of photons that would be detected in the key basis, both detectors together.

        Of equally good detectors, at a rate far from saturation, without the division of a passive choice.
        """
        return mean_photons * (
            transmittance(self.loss_db) * self.detector_efficiency * self.captured_fraction
        )

    @property
    def detectors(self) -> int:
        """How many detectors are live at a time: two, or four behind a passive choice of basis."""
        return 4 if self.basis_choice == "passive" else 2


def transmittance(loss_db: float) -> float:
    """Return the fraction of photons that pass a loss in dB."""
    return float(10.0 ** (-loss_db / 10))


def check_range(parameter: str, value: float, low: float, high: float) -> None:
    """Raise OutsideModel unless low <= value <= high and value is finite; NaN is never inside."""
    if not low <= value <= high or not math.isfinite(value):
        raise OutsideModel(parameter, value, f"a finite number from {low:g} to {high:g}")


def check_optional(parameter: str, value: float | None, low: float, high: float) -> None:
    if value is not None:
        check_range(parameter, value, low, high)


def check_basis_choice(basis_choice: str) -> None:
    if basis_choice not in get_args(BasisChoice):
        raise OutsideModel("basis_choice", basis_choice, f"one of {', '.join(get_args(BasisChoice))}")


def check_dead_time_model(dead_time_model: str) -> None:
    if dead_time_model not in get_args(DeadTimeModel):
        raise OutsideModel("dead_time_model", dead_time_model, f"one of {', '.join(get_args(DeadTimeModel))}")


def check_intensities(intensities: tuple[float, ...]) -> None:
    if not 2 <= len(intensities) <= INTENSITIES_MAX:
        raise OutsideModel("intensities", intensities, f"2 to {INTENSITIES_MAX} values")
    for intensity in intensities:
        check_range("intensities", intensity, 0.0, INTENSITY_MAX)
    if any(a <= b for a, b in itertools.pairwise(intensities)):
        raise OutsideModel("intensities", intensities, "strictly falling values, brightest first")


def check_distribution(probabilities: tuple[float, ...], count: int) -> None:
    if len(probabilities) != count:
        raise OutsideModel("probabilities", probabilities, f"{count} values, one per intensity")
    for probability in probabilities:
        check_range("probabilities", probability, 1e-9, 1.0)
    if abs(math.fsum(probabilities) - 1.0) > 1e-9:
        raise OutsideModel("probabilities", probabilities, "values that sum to 1")
