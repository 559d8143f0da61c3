"""How light becomes clicks: two threshold detectors that may both fire.

A matched measurement splits a coherent pulse of ``n`` detectable photons into two independent Poisson
beams, ``n (1 - e)`` to the right detector and ``n e`` to the wrong one; with unmatched bases each gets half.
A detector stays silent with probability ``(1 - y) exp(-its mean)``, where ``y`` is its chance to click
without light. So a pulse is seen with probability ``1 - (1 - y)^2 exp(-n)``, whatever the bases are.

To first order in ``n`` and ``y`` this is the exact form of the finite-key papers,
``D = 1 - (1 - 2 p_dc) exp(-n)`` and ``e = p_dc + e_mis (1 - exp(-n))`` (C. C. W. Lim et al., PRA 89,
022307 (2014), section IV); it differs in that double clicks are counted as events of their own.
Read next :mod:`openqci.quantum.link`.
"""

import math
from dataclasses import dataclass

import numpy as np

from openqci.core.errors import OutsideModel
from openqci.quantum.elements import Floats


@dataclass(frozen=True)
class Clicks:
    """Probabilities per pulse, each of shape (K,), of the three ways in which a pulse is seen."""

    right: Floats
    wrong: Floats
    double: Floats


def background_probability(
    detectable_photons: Floats,
    probabilities: Floats,
    dark_count_probability: float,
    afterpulse_probability: float,
) -> float:
    """Return the chance of one detector to click in a gate without light.

    Parameters
    ----------
    detectable_photons, probabilities : ndarray, shape (K,)
        Mean detectable photons per pulse of each intensity, and how often it is sent.
    dark_count_probability, afterpulse_probability : float
        Per gate and detector; per click.

    Returns
    -------
    float
        ``y = p_dark + p_ap Q / 2``, where ``Q = 1 - (1 - y)^2 S`` is the mean click probability of both
        detectors and ``S`` the mean of ``exp(-n)``. Afterpulses follow clicks of any intensity, so they are
        a background common to all; dead time does not enter, as both are meant per live gate.

    Raises
    ------
    OutsideModel
        If afterpulses feed themselves faster than they die (never below ``p_ap = 0.5``).

    References
    ----------
    M. Lucamarini et al., Opt. Express 21, 24550 (2013), arXiv:1310.0240: for its signal gain, dark count
    and afterpulse probability the measured background is 2.949e-4 per gate.
    """
    silent = float(np.dot(probabilities, np.exp(-detectable_photons)))
    a = afterpulse_probability * silent / 2
    c = 1 - dark_count_probability - afterpulse_probability / 2
    discriminant = 1 - 4 * a * c
    if discriminant < 0:
        raise OutsideModel("afterpulse_probability", afterpulse_probability, "afterpulses that die out")
    # The root of a x^2 - x + c = 0, x = 1 - y, in the form that stays exact without afterpulses.
    return max(0.0, 1 - 2 * c / (1 + math.sqrt(discriminant)))


def clicks(detectable_photons: Floats, background: float, wrong_fraction: float) -> Clicks:
    """Return how pulses are seen when ``wrong_fraction`` of their light goes to the wrong detector.

    Parameters
    ----------
    detectable_photons : ndarray, shape (K,)
        Mean detectable photons per pulse.
    background : float
        Chance of one detector to click in a gate without light.
    wrong_fraction : float
        The misalignment error for matched bases, one half for unmatched ones.
    """
    right_fires = click_probability(detectable_photons * (1 - wrong_fraction), background)
    wrong_fires = click_probability(detectable_photons * wrong_fraction, background)
    return Clicks(
        right=right_fires * (1 - wrong_fires),
        wrong=wrong_fires * (1 - right_fires),
        double=right_fires * wrong_fires,
    )


def click_probability(detectable_photons: Floats, background: float) -> Floats:
    """Return ``1 - (1 - y) exp(-n)`` without loss of digits for weak light."""
    return -np.expm1(-detectable_photons + math.log1p(-background))
