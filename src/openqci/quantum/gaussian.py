"""Normal variables behind a receiver that clips: the moments that are left of them.

What a receiver outside of its linear range does to quadratures, in closed form; drawing them is one
``np.clip``. Both ends still take what they see for normal, which is what the saturation attack lives on.
Read :mod:`openqci.quantum.gg02` for the receiver and :mod:`openqci.links.attacks.continuous` for the attack.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from openqci.core.errors import OutsideModel
from openqci.quantum.elements import Floats

SECOND_MOMENT_MIN = 1e-6
"""Of the variance before clipping; below it the differences that make up the shape hold no digits."""


@dataclass(frozen=True)
class ClippedMoments:
    """Moments of a normal variable that was clipped; ``gain`` is the probability that it was not.

    Every field has the common shape of the arguments. For a second variable that is jointly normal with the
    first, ``gain`` is also what is left of the covariance (Bussgang's theorem).
    """

    mean: Floats
    variance: Floats
    skewness: Floats
    excess_kurtosis: Floats
    gain: Floats


def clipped_moments(mean: ArrayLike, variance: ArrayLike, limit: ArrayLike) -> ClippedMoments:
    """Return the moments of ``clip(X, -limit, limit)`` for X normal.

    Parameters
    ----------
    mean : array_like
        Of X, finite.
    variance : array_like
        Of X, above zero.
    limit : array_like
        Above zero; infinite for no clipping. All three broadcast.

    Raises
    ------
    OutsideModel
        Names the argument.

    Examples
    --------
    >>> clipped = clipped_moments(0.0, 1.0, [1.0, np.inf])
    >>> clipped.gain.round(4).tolist(), clipped.variance.round(4).tolist()
    ([0.6827, 1.0], [0.5161, 1.0])

    Notes
    -----
    Exact, from the incomplete moments of the normal distribution. J. Bussgang, MIT Research Laboratory of
    Electronics, Technical Report 216 (1952), for ``gain``.
    """
    _check("mean", mean, -1e9, 1e9)
    _check("variance", variance, 1e-30, 1e18)
    _check("limit", limit, 1e-9, math.inf)
    centre, spread, edge = np.broadcast_arrays(
        np.asarray(mean, dtype=np.float64),
        np.sqrt(np.asarray(variance, dtype=np.float64)),
        np.asarray(limit, dtype=np.float64),
    )
    low, high = (-edge - centre) / spread, (edge - centre) / spread
    below, above = ndtr(low), ndtr(-high)
    inside = np.maximum(1 - below - above, 0.0)
    # In units of the spread and about the centre: moments of the part inside, then of the two atoms.
    partial = [inside, _density(low) - _density(high)]
    for order in (2, 3, 4):
        edges = _edge(low, order - 1) - _edge(high, order - 1)
        partial.append(edges + (order - 1) * partial[order - 2])
    shift, *higher = (
        partial[order] + _atom(low, below, order) + _atom(high, above, order) for order in (1, 2, 3, 4)
    )
    # Where everything is clipped nothing varies; the shape is then that of no variable, and zero.
    second = np.maximum(higher[0] - shift**2, 0.0)
    third = higher[1] - 3 * shift * higher[0] + 2 * shift**3
    fourth = higher[2] - 4 * shift * higher[1] + 6 * shift**2 * higher[0] - 3 * shift**4
    varies = second > SECOND_MOMENT_MIN
    safe = np.where(varies, second, 1.0)
    return ClippedMoments(
        mean=centre + spread * shift,
        variance=spread**2 * second,
        skewness=np.where(varies, third / safe**1.5, 0.0),
        excess_kurtosis=np.where(varies, fourth / safe**2 - 3, 0.0),
        gain=inside,
    )


def _density(x: Floats) -> Floats:
    return np.asarray(np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi))


def _edge(x: Floats, power: int) -> Floats:
    """Return ``x^power`` times the normal density; zero at infinity."""
    finite = np.where(np.isfinite(x), x, 0.0)
    return np.asarray(np.where(np.isfinite(x), finite**power * _density(finite), 0.0))


def _atom(x: Floats, probability: Floats, power: int) -> Floats:
    """Return what the values clipped to x add to a moment; nothing at infinity."""
    return np.asarray(np.where(np.isfinite(x), np.where(np.isfinite(x), x, 0.0) ** power * probability, 0.0))


def _check(name: str, values: ArrayLike, low: float, high: float) -> None:
    array = np.asarray(values, dtype=np.float64)
    if not ((array >= low) & (array <= high)).all():
        raise OutsideModel(name, values, f"from {low:g} to {high:g}")
