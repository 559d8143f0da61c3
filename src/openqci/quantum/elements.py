"""The elements of a quantum link: source, fibre, receiver. Each knows only itself.

Light is described by its mean photon number per pulse, one value per intensity; phase-randomised coherent
pulses stay Poissonian under loss, so nothing else has to travel along the chain. A parameter outside the
range in which the model holds raises :class:`~openqci.core.errors.OutsideModel` when the element is made.

Left out: intensity noise, pulse correlations, dispersion, jitter, polarisation drift, coexisting channels.
Read next :mod:`openqci.quantum.clicks`, where light becomes clicks.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openqci.core.errors import OutsideModel

Floats = NDArray[np.float64]

INTENSITIES_MAX = 4
"""Signal and up to three decoys: what two bits of a detection's class can name."""

INTENSITY_MAX = 10.0
"""Mean photons per pulse; far above any decoy-state source, and the click probability stays below one."""

LOSS_DB_MAX = 200.0


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
    """

    loss_db: float

    def __post_init__(self) -> None:
        check_range("loss_db", self.loss_db, 0.0, LOSS_DB_MAX)

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
    """Bob's receiver: an active choice of basis in front of two gated detectors.

    Parameters
    ----------
    loss_db : float
        Loss of the optics inside the receiver; the detector is not in it.
    detector_efficiency : float
        Photon detection efficiency of one detector, above 0 and at most 1.
    dark_count_probability : float
        Per gate **and detector**, 0 to 0.1; everything that clicks without a pulse of Alice's.
    dead_time_s : float
        Common to both detectors: after any click neither may click for this time. (Only so does a click
        say nothing about the next bit.)
    afterpulse_probability : float
        Chance that a click is followed by a spurious one after the dead time, 0 to 0.3.
    misalignment_error : float
        Fraction of the light that reaches the wrong detector when the bases match, 0 to 0.5.
    z_basis_probability : float
        How often Bob measures in the key basis Z.
    """

    loss_db: float
    detector_efficiency: float
    dark_count_probability: float
    dead_time_s: float = 0.0
    afterpulse_probability: float = 0.0
    misalignment_error: float = 0.0
    z_basis_probability: float = 0.5

    def __post_init__(self) -> None:
        check_range("loss_db", self.loss_db, 0.0, LOSS_DB_MAX)
        check_range("detector_efficiency", self.detector_efficiency, 1e-6, 1.0)
        check_range("dark_count_probability", self.dark_count_probability, 0.0, 0.1)
        check_range("dead_time_s", self.dead_time_s, 0.0, 1.0)
        check_range("afterpulse_probability", self.afterpulse_probability, 0.0, 0.3)
        check_range("misalignment_error", self.misalignment_error, 0.0, 0.5)
        check_range("z_basis_probability", self.z_basis_probability, 1e-6, 1 - 1e-6)

    def __call__(self, mean_photons: Floats) -> Floats:
        """Return the mean number of photons that would be detected, both detectors together."""
        return mean_photons * (transmittance(self.loss_db) * self.detector_efficiency)


def transmittance(loss_db: float) -> float:
    """Return the fraction of photons that pass a loss in dB."""
    return float(10.0 ** (-loss_db / 10))


def check_range(parameter: str, value: float, low: float, high: float) -> None:
    """Raise OutsideModel unless low <= value <= high and value is finite; NaN is never inside."""
    if not low <= value <= high or not math.isfinite(value):
        raise OutsideModel(parameter, value, f"a finite number from {low:g} to {high:g}")


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
