"""When a photon is counted: jitter, pulse width, dispersion and the window that decides the slot.

Arrival times are Gaussian about the centre of their slot; independent spreads add in squares. A window
about the centre collects part of the light of its own slot, part of the noise, and the tails of the
neighbours' light, which carries somebody else's bit and is right half of the time.

Left out: the slow exponential tail of silicon and InGaAs diodes, time walk at high count rates (give the
jitter at the rate in use), drift of the clocks. Read next :mod:`openqci.quantum.detectors`.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from openqci.core.errors import OutsideModel
from openqci.quantum.elements import Floats, check_range

NEIGHBOURS = 32
"""Slots on either side whose tails are summed; a spread of ten slots still reaches no further."""

erf = np.vectorize(math.erf, otypes=[np.float64])


def joint_fwhm_s(*fwhm_s: float) -> float:
    """Return the full width at half maximum of a sum of independent Gaussian delays.

    Parameters
    ----------
    *fwhm_s : float
        Detector jitter, optical pulse, dispersion, clock; each zero or more.
    """
    for width_s in fwhm_s:
        check_range("fwhm_s", width_s, 0.0, 1.0)
    return math.hypot(*fwhm_s)


def captured_fraction(window_s: ArrayLike, fwhm_s: ArrayLike) -> Floats:
    """Return the fraction of counts that fall into a window about the centre of their slot.

    Parameters
    ----------
    window_s, fwhm_s : array_like, shape S (broadcast)
        Full width of the window, above zero; full width at half maximum of the arrival times.

    Returns
    -------
    ndarray, shape S
        ``erf(sqrt(ln 2) window / fwhm)``, 1 without spread.

    References
    ----------
    S. P. Neumann et al., PRA 104, 022406 (2021), the window of a coincidence (form unverified against the
    paper; it is the integral of a Gaussian).
    """
    return probability_within(np.multiply(window_s, 0.5), fwhm_s)


def leaked_fraction(window_s: float, period_s: float, fwhm_s: float) -> float:
    """Return the light of all other slots that one window collects, in units of one slot's light.

    Parameters
    ----------
    window_s : float
        Full width of the window, at most the period.
    period_s : float
        From one slot to the next.
    fwhm_s : float
        Full width at half maximum of the arrival times, at most ten periods.

    Returns
    -------
    float
        The sum over the neighbours; ``1 - captured_fraction`` when windows leave no time between them.

    Raises
    ------
    OutsideModel
        Names the width that is too large.
    """
    check_range("period_s", period_s, 1e-12, 1.0)
    check_range("window_s", window_s, 1e-15, period_s * (1 + 1e-9))
    check_range("fwhm_s", fwhm_s, 0.0, 10 * period_s)
    centres = period_s * np.arange(1, NEIGHBOURS + 1)
    upper = probability_within(centres + window_s / 2, fwhm_s)
    lower = probability_within(centres - window_s / 2, fwhm_s)
    # Both sides: the probability within +-t already counts either tail once.
    return float((upper - lower).sum())


def probability_within(half_width_s: ArrayLike, fwhm_s: ArrayLike) -> Floats:
    """Return the probability that a Gaussian delay is at most ``half_width_s`` either way."""
    half, fwhm = np.broadcast_arrays(np.asarray(half_width_s, float), np.asarray(fwhm_s, float))
    if not (np.all(half >= 0) and np.all(np.isfinite(half))):
        raise OutsideModel("window_s", half_width_s, "finite widths, zero or more")
    if not (np.all(fwhm >= 0) and np.all(np.isfinite(fwhm))):
        raise OutsideModel("fwhm_s", fwhm_s, "finite widths, zero or more")
    sharp = fwhm <= half * 1e-3  # also no spread at all; far inside the flat end of the integral
    within: Floats = erf(2 * math.sqrt(math.log(2)) * half / np.where(sharp, 1.0, fwhm))
    return np.where(sharp, 1.0, within)
