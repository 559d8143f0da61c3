"""Drift of polarisation or phase: a fibre that turns the light, and what that does to the error rate.

The angle between the light and the axes of the receiver wanders as an Ornstein-Uhlenbeck process about the
point that the receiver tracks. A wrong click needs light at the wrong detector, and its share is
``sin^2(angle)``: drift changes the error rate and takes nothing from the gain, which is how an aerial span
can be worse than a buried one with more loss (arXiv:2608.18869: 13.3 % at 17 dB, 6.1 % at 21 dB).

>>> wind = AngleDrift(sigma_rad=0.2, correlation_time_s=0.5)
>>> round(wind.mean_error(), 4)
0.0384

The mean enters a link as the channel's ``misalignment_error``; :func:`drawn_errors` gives it over time, for
links that are followed block by block. Left out: jumps, periodic sway, depolarisation within a pulse, and
the tracker itself, of which only the residual spread is known here.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from openqci.core.errors import OutsideModel
from openqci.quantum.elements import Floats, check_range

NODES, WEIGHTS = np.polynomial.legendre.leggauss(48)


@dataclass(frozen=True)
class AngleDrift:
    """A wandering angle: of polarisation on the Poincare sphere's half scale, or half of a phase.

    Parameters
    ----------
    sigma_rad : float
        Standard deviation of the angle when it has wandered for long, 0 to 10. For a phase, half of its own.
    correlation_time_s : float
        After which the angle has forgotten: minutes to hours of a buried fibre, milliseconds to seconds of
        an aerial one in wind (unverified).
    """

    sigma_rad: float
    correlation_time_s: float

    def __post_init__(self) -> None:
        check_range("sigma_rad", self.sigma_rad, 0.0, 10.0)
        check_range("correlation_time_s", self.correlation_time_s, 1e-9, 1e9)

    def mean_error(self) -> float:
        """Return the long-term mean of ``sin^2``, ``(1 - exp(-2 sigma^2)) / 2``."""
        return -math.expm1(-2 * self.sigma_rad**2) / 2

    def mean_error_after(self, time_s: ArrayLike, angle_rad: ArrayLike = 0.0) -> Floats:
        """Return the mean of ``sin^2`` a time after the angle was known.

        Parameters
        ----------
        time_s : array_like, shape S (broadcast)
            Zero or more.
        angle_rad : array_like
            What it then was; zero just after an alignment.

        Returns
        -------
        ndarray, shape S
            ``(1 - cos(2 m) exp(-2 v)) / 2`` with mean ``m = angle exp(-t/T)`` and variance
            ``v = sigma^2 (1 - exp(-2 t/T))`` of the angle at that time.
        """
        time = np.asarray(time_s, dtype=np.float64)
        if not (np.all(time >= 0) and np.all(np.isfinite(time))):
            raise OutsideModel("time_s", time_s, "finite times, zero or more")
        mean = np.asarray(angle_rad, float) * np.exp(-time / self.correlation_time_s)
        variance = -(self.sigma_rad**2) * np.expm1(-2 * time / self.correlation_time_s)
        error: Floats = (1 - np.cos(2 * mean) * np.exp(-2 * variance)) / 2
        return error

    def mean_error_between_alignments(self, interval_s: float) -> float:
        """Return the mean of ``sin^2`` when the receiver aligns itself to zero every ``interval_s``."""
        check_range("interval_s", interval_s, 0.0, 1e12)
        # Nodes crowd at the start (t = interval u^4), where most happens when the interval is long.
        u = (NODES + 1) / 2
        errors = self.mean_error_after(interval_s * u**4)
        return float(np.dot(WEIGHTS / 2, errors * 4 * u**3))


def drawn_angles(drift: AngleDrift, times_s: ArrayLike, rng: np.random.Generator) -> Floats:
    """Return the angle at given times, exactly distributed whatever their spacing.

    Parameters
    ----------
    drift : AngleDrift
    times_s : array_like, shape (n,)
        Not falling.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (n,)
        In rad. The first is drawn from the long-term distribution.
    """
    times = np.asarray(times_s, dtype=np.float64)
    steps_s = np.diff(times)
    if times.ndim != 1 or not (np.all(np.isfinite(times)) and np.all(steps_s >= 0)):
        raise OutsideModel("times_s", times_s, "finite times in one row that do not fall")
    kept = np.exp(-steps_s / drift.correlation_time_s)
    added = np.sqrt(-np.expm1(-2 * steps_s / drift.correlation_time_s))
    normal = rng.standard_normal(len(times)) * drift.sigma_rad
    normal[1:] *= added
    return linear_recurrence(np.concatenate([[0.0], kept])[: len(times)], normal)


def drawn_errors(drift: AngleDrift, times_s: ArrayLike, rng: np.random.Generator) -> Floats:
    """Return the fraction of light at the wrong detector, ``sin^2`` of the drawn angle, at given times."""
    errors: Floats = np.sin(drawn_angles(drift, times_s, rng)) ** 2
    return errors


def linear_recurrence(factors: Floats, terms: Floats) -> Floats:
    """Return x with ``x[i] = factors[i] x[i-1] + terms[i]`` (zero before the first), in log2(n) passes."""
    factor, x = factors.copy(), terms.copy()
    reach = 1
    while reach < len(x):
        # Each place takes in what the one `reach` before it has gathered; factors stay at most one.
        x[reach:] = factor[reach:] * x[:-reach] + x[reach:]
        factor[reach:] = factor[reach:] * factor[:-reach]
        reach *= 2
    return x
