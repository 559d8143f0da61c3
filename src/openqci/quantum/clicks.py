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
from numpy.typing import ArrayLike

from openqci.core.errors import OutsideModel
from openqci.quantum.elements import Floats, check_range

log1p = np.vectorize(math.log1p, otypes=[np.float64])
"""The C library's, for single numbers: NumPy's own may round otherwise, depending on the processor."""


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
    dark = np.full((1, 2), dark_count_probability)
    return float(backgrounds(np.array([silent]), np.ones(1), dark, afterpulse_probability)[0, 0])


def backgrounds(
    silence: Floats, weights: Floats, dark_count_probabilities: Floats, afterpulse_probability: float
) -> Floats:
    """Return the chance of each detector to click without light of its own pulse, afterpulses included.

    Parameters
    ----------
    silence : ndarray, shape (J,)
        Probability that the light of a gate is not seen, in each of J settings (bases) of the detectors.
    weights : ndarray, shape (J,)
        How often each setting is used; they sum to one.
    dark_count_probabilities : ndarray, shape (J, 2)
        Of each detector in each setting, background light included.
    afterpulse_probability : float
        Per click.

    Returns
    -------
    ndarray, shape (J, 2)
        ``y = p_dark + p_ap Q / 2`` with ``Q = 1 - sum_j w_j s_j (1 - y_j0)(1 - y_j1)``: a quadratic
        equation, solved exactly.
    """
    # Unknown x = 1 - y of the first detector; the others differ from it by fixed amounts.
    above = dark_count_probabilities[0, 0] - dark_count_probabilities
    half = afterpulse_probability / 2
    weighted = weights * silence
    # As a sum of differences this stays exact when all settings are equal, as in most links.
    total_silence = float(silence[0] + np.dot(weights, silence - silence[0]))
    a = half * total_silence
    b = 1 - half * float(np.dot(weighted, above.sum(axis=1)))
    c = 1 - dark_count_probabilities[0, 0] - half * (1 - float(np.dot(weighted, above.prod(axis=1))))
    discriminant = b * b - 4 * a * c
    if discriminant < 0:
        raise OutsideModel("afterpulse_probability", afterpulse_probability, "afterpulses that die out")
    # The root of a x^2 - b x + c = 0 in the form that stays exact without afterpulses.
    x = 2 * c / (b + math.sqrt(discriminant))
    chances: Floats = np.maximum(0.0, 1 - (x + above))
    return chances


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


def gain_and_qber(
    detectable_photons: Floats, background: float, wrong_fraction: float
) -> tuple[Floats, Floats]:
    """Return the gain and error rate of matched pulses, double clicks with their random bit; shape (K,) each.

    Parameters as of :func:`clicks`. Nothing detected is an error rate of one half.
    """
    seen = clicks(detectable_photons, background, wrong_fraction)
    gain = seen.right + seen.wrong + seen.double
    errors = seen.wrong + seen.double / 2
    return gain, np.where(gain > 0, errors / np.where(gain > 0, gain, 1.0), 0.5)


def background_of_gain(dark_count_probability: float, afterpulse_probability: float, gain: float) -> float:
    """Return the background of a **receiver** of two gated detectors from its measured gain.

    Parameters
    ----------
    dark_count_probability : float
        Per gate and detector, 0 to 0.1.
    afterpulse_probability : float
        Per click, 0 to 0.3.
    gain : float
        Probability per gate that the receiver clicks, 0 to 1.

    Returns
    -------
    float
        ``Y0 = 1 - (1 - p_dark)^2 + p_ap Q``: per gate, both detectors together.

    Examples
    --------
    >>> # M. Lucamarini et al. 2013, 50 km: measured 2.949e-4.
    >>> round(background_of_gain(2.1e-5, 0.0525, 4.8126e-3), 7)
    0.0002947
    """
    check_range("dark_count_probability", dark_count_probability, 0.0, 0.1)
    check_range("afterpulse_probability", afterpulse_probability, 0.0, 0.3)
    check_range("gain", gain, 0.0, 1.0)
    return 1 - (1 - dark_count_probability) ** 2 + afterpulse_probability * gain


def free_running_qber(
    counted_rate_hz: ArrayLike,
    dark_count_rate_hz: ArrayLike,
    dead_time_s: ArrayLike,
    misalignment_error: ArrayLike,
    afterpulse_probability: ArrayLike = 0.0,
) -> Floats:
    """Return the error rate of a free-running detector from the rate that it counts.

    Parameters
    ----------
    counted_rate_hz : array_like, shape S (all broadcast)
        Counts per second of the detector, noise and dead time included, above zero.
    dark_count_rate_hz : array_like
        Per second of live time, of the same detector.
    dead_time_s : array_like
        Nonparalysable: the detector is live for ``1 - R tau`` of the time.
    misalignment_error : array_like
        Error rate of the light itself.
    afterpulse_probability : array_like
        Per count. It falls with the dead time; the figure is that at ``dead_time_s``.

    Returns
    -------
    ndarray, shape S
        ``s/2 + (1 - s) e``, with ``s = p_ap + d (1 - R tau) / R`` the share of noise among the counts, at
        most one.
    """
    names = ("counted_rate_hz", "dark_count_rate_hz", "dead_time_s", "misalignment_error")
    values = (counted_rate_hz, dark_count_rate_hz, dead_time_s, misalignment_error)
    for parameter, value in (
        *zip(names, values, strict=True),
        ("afterpulse_probability", afterpulse_probability),
    ):
        if not (np.all(np.asarray(value) >= 0) and np.all(np.isfinite(value))):
            raise OutsideModel(parameter, value, "finite numbers, zero or more")
    rate = np.asarray(counted_rate_hz, dtype=np.float64)
    live = 1 - rate * np.asarray(dead_time_s)
    if np.any(rate <= 0) or np.any(live <= 0):
        raise OutsideModel("counted_rate_hz", counted_rate_hz, "rates above 0 and below 1 / dead_time_s")
    noise = np.minimum(1.0, np.asarray(afterpulse_probability) + np.asarray(dark_count_rate_hz) * live / rate)
    qber: Floats = noise / 2 + (1 - noise) * np.asarray(misalignment_error)
    return qber


def click_probability(detectable_photons: Floats, background: float | Floats) -> Floats:
    """Return ``1 - (1 - y) exp(-n)`` without loss of digits for weak light."""
    probability: Floats = -np.expm1(-detectable_photons + log1p(-np.asarray(background)))
    return probability
