"""What a trembling beam delivers: radial jitter of a Gaussian beam.

Two independent errors of equal standard deviation per axis make the radial error Rayleigh; a Gaussian beam
that misses by r delivers ``t = exp(-2 r^2 / w^2)`` of what it would. With ``b = (w / 2 sigma)^2``, the ratio
of divergence and jitter that does not change with distance, t has the density ``b t^(b - 1)``.

The mean of t, not of its decibels, is what photons follow:

>>> mean_loss_db([2.0, 5.0]).round(2).tolist(), mean_of_loss_db([2.0, 5.0]).round(2).tolist()
([1.76, 0.79], [2.17, 0.87])

Left out: correlation in time (tracking bandwidth), unequal axes, a receiver that is not small against the
beam. Read next :mod:`openqci.space.fading`, which puts such a density under a curve that is not straight.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from openqci.space.diffraction import GaussianBeam
from openqci.space.ranges import Floats, check_range

EXPONENT_MIN, EXPONENT_MAX = 1e-3, 1e9


def jitter_exponent(beam: GaussianBeam, jitter_urad: ArrayLike) -> Floats:
    """Return b, far from the transmitter.

    Parameters
    ----------
    beam : GaussianBeam
    jitter_urad : array_like, shape S
        Standard deviation of the pointing error **per axis**, above 0.

    Returns
    -------
    ndarray, shape S
        ``(half angle at 1/e^2 / (2 jitter))^2``.
    """
    jitter = check_range("jitter_urad", jitter_urad, 1e-6, 1e5)
    return check_exponent((beam.half_angle_1e2_urad / (2 * jitter)) ** 2)


def pointing_density(transmittance: ArrayLike, exponent: ArrayLike) -> Floats:
    """Return the probability density ``b t^(b - 1)`` of the relative transmittance t, 0 to 1."""
    t, b = check_relative(transmittance), check_exponent(exponent)
    density: Floats = b * np.power(t, b - 1)
    return density


def pointing_probability(transmittance: ArrayLike, exponent: ArrayLike) -> Floats:
    """Return the probability that the relative transmittance is below t, ``t^b``."""
    probability: Floats = np.power(check_relative(transmittance), check_exponent(exponent))
    return probability


def pointing_quantile(probability: ArrayLike, exponent: ArrayLike) -> Floats:
    """Return the relative transmittance that is undercut with this probability, ``p^(1/b)``."""
    p = check_range("probability", probability, 0.0, 1.0)
    quantile: Floats = np.power(p, 1 / check_exponent(exponent))
    return quantile


def mean_transmittance(exponent: ArrayLike, offset_over_radius: ArrayLike = 0.0) -> Floats:
    """Return the mean relative transmittance.

    Parameters
    ----------
    exponent : array_like, shape S
        b.
    offset_over_radius : array_like, broadcastable with S
        A constant pointing error (boresight) in units of the beam radius w at 1/e^2, zero or more.

    Returns
    -------
    ndarray, shape S
        ``b/(b+1) exp(-2 (offset/w)^2 b/(b+1))``.
    """
    b = check_exponent(exponent)
    offset = check_range("offset_over_radius", offset_over_radius, 0.0, 1e3)
    steady = b / (b + 1)
    mean: Floats = steady * np.exp(-2 * offset**2 * steady)
    return mean


def mean_loss_db(exponent: ArrayLike) -> Floats:
    """Return the loss of the mean transmittance: what a count of photons over many errors shows."""
    b = check_exponent(exponent)
    loss: Floats = 10 * np.log1p(1 / b) / math.log(10)
    return loss


def mean_of_loss_db(exponent: ArrayLike) -> Floats:
    """Return the mean of the loss in dB, ``10 / (b ln 10)``: larger than the loss of the mean.

    Not for link budgets; it is here because budgets that average decibels use it unknowingly.
    """
    loss: Floats = 10 / (check_exponent(exponent) * math.log(10))
    return loss


def draw_pointing(exponent: float, draws: int, rng: np.random.Generator) -> Floats:
    """Draw relative transmittances from two independent errors, shape (draws,)."""
    b = float(check_exponent(exponent))
    errors = rng.standard_normal((2, draws))
    # r^2 = sigma^2 (x^2 + y^2) and 2 sigma^2 / w^2 = 1 / (2 b).
    drawn: Floats = np.exp(-(errors**2).sum(axis=0) / (2 * b))
    return drawn


def check_exponent(exponent: ArrayLike) -> Floats:
    return check_range("exponent", exponent, EXPONENT_MIN, EXPONENT_MAX)


def check_relative(transmittance: ArrayLike) -> Floats:
    return check_range("transmittance", transmittance, 0.0, 1.0)
