"""Decoy-state BB84 in closed form over arrays: a hundred thousand links or settings in one call.

The same model as :func:`openqci.quantum.expected_statistics`, to the last digits, for receivers with an
active choice of basis, two equal detectors and nonparalysable dead time: what an optimiser and a planner ask
a thousand times. One link of any other kind is asked there. The simpler form of the finite-key papers is here
too, because published figures use it.

>>> plant = DecoyPlant(efficiency=[0.01, 0.001], dark_count_probability=1e-6, misalignment_error=0.01)
>>> seen = decoy_statistics(plant, np.array([0.5, 0.1]), np.array([0.7, 0.3]), np.array(0.9))
>>> seen.z_gains.shape, (seen.z_error_gains / seen.z_gains).round(3).tolist()
((2, 2), [[0.01, 0.011], [0.012, 0.02]])
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from openqci.core.errors import OutsideModel
from openqci.quantum.elements import Floats
from openqci.quantum.link import QuantumLink, basis_shares, foreign_photons, misalignment_errors

ClickForm = Literal["threshold", "lim-2014"]


@dataclass(frozen=True)
class DecoyPlant:
    """All of a link but the settings of its source; every field broadcasts to a shape S.

    Parameters
    ----------
    efficiency : array_like
        Chance of a photon at Alice's output to be counted in the key basis: channel, optics, detector. Above
        0 and at most 1.
    dark_count_probability : array_like
        Per gate and detector, 0 to 0.1.
    misalignment_error : array_like
        In the key basis, 0 to 0.5.
    afterpulse_probability : array_like
        Per click, 0 to 0.3.
    dead_slots : array_like
        Gates lost after a click.
    x_efficiency_ratio : array_like
        Of the path of the test basis over that of the key basis, above 0 and at most 1.
    x_misalignment_error : array_like or None
        In the test basis; as in the key basis when None.
    form : {"threshold", "lim-2014"}
        Two detectors that may both fire, or the form of Lim et al. 2014, section IV.

    Raises
    ------
    OutsideModel
        Names the field and its range.
    """

    efficiency: ArrayLike
    dark_count_probability: ArrayLike
    misalignment_error: ArrayLike
    afterpulse_probability: ArrayLike = 0.0
    dead_slots: ArrayLike = 0.0
    x_efficiency_ratio: ArrayLike = 1.0
    x_misalignment_error: ArrayLike | None = None
    form: ClickForm = "threshold"

    def __post_init__(self) -> None:
        for name, low, high in (
            ("efficiency", 1e-25, 1.0),
            ("dark_count_probability", 0.0, 0.1),
            ("misalignment_error", 0.0, 0.5),
            ("afterpulse_probability", 0.0, 0.3),
            ("dead_slots", 0.0, 1e12),
            ("x_efficiency_ratio", 1e-10, 1.0),
            ("x_misalignment_error", 0.0, 0.5),
        ):
            values = getattr(self, name)
            if values is not None:
                check_all(name, values, low, high)
        if self.form not in ("threshold", "lim-2014"):
            raise OutsideModel("form", self.form, "threshold or lim-2014")

    def part(self, chosen: slice | NDArray[np.int64], shape: tuple[int, ...]) -> "DecoyPlant":
        """Return the plant of a part of the links, with one axis more at the end, for settings to vary on."""

        def cut(values: ArrayLike) -> Floats:
            return np.broadcast_to(np.asarray(values, dtype=np.float64), shape)[chosen][:, None]

        return DecoyPlant(
            cut(self.efficiency),
            cut(self.dark_count_probability),
            cut(self.misalignment_error),
            cut(self.afterpulse_probability),
            cut(self.dead_slots),
            cut(self.x_efficiency_ratio),
            None if self.x_misalignment_error is None else cut(self.x_misalignment_error),
            self.form,
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """S, the shape to which all fields broadcast."""
        fields = [np.shape(value) for value in vars(self).values() if value is not None]
        return np.broadcast_shapes(*[shape for shape in fields if shape], (1,))


@dataclass(frozen=True)
class DecoyStatistics:
    """What is seen per emitted pulse, dead time included.

    Attributes
    ----------
    z_gains, z_error_gains, x_gains, x_error_gains : ndarray, shape S + (K,)
        Sifted detections and errors per emitted pulse of any kind: both ends in that basis, intensity k
        sent. Their ratio is an error rate; the sum over k is the sifted bits per pulse.
    click_probability : ndarray, shape S
        Of a live receiver, all bases and intensities.
    detections_per_pulse : ndarray, shape S
        With dead time.
    """

    z_gains: Floats
    z_error_gains: Floats
    x_gains: Floats
    x_error_gains: Floats
    click_probability: Floats
    detections_per_pulse: Floats


def plant_of(link: QuantumLink) -> DecoyPlant:
    """Return the plant of a link; background light counts as dark counts.

    Of two bases whose paths lose differently, the background is that of the key basis; the test basis, which
    loses more of it as of all light, is then taken to be a little worse than it is.

    Raises
    ------
    OutsideModel
        For a receiver of which this model does not hold: passive choice, unequal detectors, saturation,
        paralysable dead time, light of other pulses in its gates.
    """
    receiver = link.receiver
    plain = (
        receiver.basis_choice == "active"
        and receiver.efficiency_ratio == 1
        and receiver.detector_count_rate_max_hz is None
        and receiver.dead_time_model == "nonparalysable"
        and receiver.leaked_fraction == 0
    )
    if not plain:
        raise OutsideModel("receiver", "of this kind", "active choice, equal detectors, no saturation")
    dark, light = receiver.dark_count_probability, float(foreign_photons(link, 1.0)[0, 0])
    z_error, x_error = misalignment_errors(link)
    one = np.ones(1)
    return DecoyPlant(
        efficiency=float(receiver(link.channel(one))[0]),
        dark_count_probability=dark - (1 - dark) * math.expm1(-light),
        misalignment_error=z_error,
        afterpulse_probability=receiver.afterpulse_probability,
        dead_slots=float(link.dead_slots),
        x_efficiency_ratio=float(basis_shares(receiver)[1]),
        x_misalignment_error=x_error,
    )


def decoy_statistics(
    plant: DecoyPlant, intensities: Floats, probabilities: Floats, z_basis_probability: Floats
) -> DecoyStatistics:
    """Return what is seen per pulse; both ends choose the key basis with ``z_basis_probability``.

    Parameters
    ----------
    plant : DecoyPlant
        Fields of shape S.
    intensities, probabilities : ndarray, shape S + (K,)
        Mean photons per pulse, and how often each is sent; or shapes that broadcast.
    z_basis_probability : ndarray, shape S
    """
    efficiency = np.asarray(plant.efficiency, dtype=np.float64)[..., None]
    ratio = np.asarray(plant.x_efficiency_ratio, dtype=np.float64)
    z_error = np.asarray(plant.misalignment_error, dtype=np.float64)[..., None]
    given = plant.x_misalignment_error
    x_error = z_error if given is None else np.asarray(given, dtype=np.float64)[..., None]
    photons = efficiency * intensities
    chosen = np.asarray(z_basis_probability)[..., None]
    z_sent, x_sent = chosen**2 * probabilities, (1 - chosen) ** 2 * probabilities
    # Where the test basis is like the key basis in all respects, it is not computed twice.
    same = given is None and bool((ratio == 1).all())
    if plant.form == "lim-2014":
        z_gain, z_wrong, click = lim_clicks(plant, photons, z_error, probabilities)
        x_gain, x_wrong = z_gain, z_wrong
    else:
        background, click = live_background(plant, photons, probabilities, chosen)
        z_gain, z_wrong = matched_clicks(photons, background, z_error)
        x_gain, x_wrong = (
            (z_gain, z_wrong) if same else matched_clicks(photons * ratio[..., None], background, x_error)
        )
    live = 1 / (1 + np.asarray(plant.dead_slots) * click)
    seen = live[..., None]
    return DecoyStatistics(
        z_sent * z_gain * seen,
        z_sent * z_wrong * seen,
        x_sent * x_gain * seen,
        x_sent * x_wrong * seen,
        click,
        click * live,
    )


def live_background(
    plant: DecoyPlant, photons: Floats, probabilities: Floats, z_basis_probability: Floats
) -> tuple[Floats, Floats]:
    """Return the chance of a detector to click without light, shape S + (1,), and of any click, shape S."""
    ratio = np.asarray(plant.x_efficiency_ratio, dtype=np.float64)
    silence = (probabilities * np.exp(-photons)).sum(axis=-1)
    if not (ratio == 1).all():
        in_x = (probabilities * np.exp(-photons * ratio[..., None])).sum(axis=-1)
        z = z_basis_probability[..., 0]
        silence = z * silence + (1 - z) * in_x
    half = np.asarray(plant.afterpulse_probability, dtype=np.float64) / 2
    left = 1 - np.asarray(plant.dark_count_probability, dtype=np.float64) - half
    # y = p_dark + p_ap Q/2 with Q = 1 - (1 - y)^2 S: the root that stays exact without afterpulses.
    quiet = 2 * left / (1 + np.sqrt(1 - 4 * half * silence * left))
    return np.maximum(0.0, 1 - quiet)[..., None], 1 - quiet**2 * silence


def matched_clicks(photons: Floats, background: Floats, wrong_fraction: Floats) -> tuple[Floats, Floats]:
    """Return gain and error gain with matching bases, a double click being half an error."""
    quiet = np.log1p(-background)
    right = -np.expm1(quiet - photons * (1 - wrong_fraction))
    wrong = -np.expm1(quiet - photons * wrong_fraction)
    return right + wrong - right * wrong, wrong - right * wrong / 2


def lim_clicks(
    plant: DecoyPlant, photons: Floats, wrong_fraction: Floats, probabilities: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return gain, error gain and mean gain in the form of Lim et al. 2014, section IV.

    ``D = 1 - (1 - 2 p_dc) exp(-n)``, gain ``D (1 + p_ap)``, errors ``p_dc + e (1 - exp(-n)) + p_ap D/2``.
    """
    dark = np.asarray(plant.dark_count_probability, dtype=np.float64)[..., None]
    after = np.asarray(plant.afterpulse_probability, dtype=np.float64)[..., None]
    lit = -np.expm1(-photons)
    seen = lit + 2 * dark * (1 - lit)
    gain = seen * (1 + after)
    return gain, dark + wrong_fraction * lit + after * seen / 2, (probabilities * gain).sum(axis=-1)


def check_all(parameter: str, values: ArrayLike, low: float, high: float) -> None:
    """Raise OutsideModel, with the first offending value, unless all are finite and from low to high."""
    array = np.asarray(values, dtype=np.float64)
    outside = ~((array >= low) & (array <= high))
    if outside.any():
        first = float(array[outside].ravel()[0])
        raise OutsideModel(parameter, first, f"a finite number from {low:g} to {high:g}")
