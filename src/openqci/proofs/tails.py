"""How far an observed count may lie from its mean, but for a chance of epsilon.

A tail turns observed counts into bounds on their means. Which one may be used is part of a security proof:
Azuma's holds whatever an eavesdropper does from round to round, the others when rounds are independent.

Sources: W. Hoeffding, J. Am. Stat. Assoc. 58, 13 (1963), as used by C. C. W. Lim et al., PRA 89, 022307
(2014), below eq. (3); the form of Chernoff's bound in H.-L. Yin et al., Sci. Rep. 10, 14312 (2020), as public
code states it; K. Azuma, Tohoku Math. J. 19, 357 (1967), as in J. Wiesemann et al., arXiv:2405.16578.
"""

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Tail(Protocol):
    """Bounds on the means behind counts of shape (..., K); the last axis are parts of one total."""

    def below(self, observed: Floats, epsilon: float) -> Floats:
        """Return lower bounds on the means, of the shape of ``observed``; may be below zero."""

    def above(self, observed: Floats, epsilon: float) -> Floats:
        """Return upper bounds on the means."""

    def deviation(self, observed: Floats, epsilon: float) -> Floats:
        """Return how far a part of the total may lie from its mean, shape (...)."""


class Hoeffding:
    """``n_k -+ sqrt(n/2 ln(1/e))`` with the total n: cheap, and wasteful where one part is rare."""

    def below(self, observed: Floats, epsilon: float) -> Floats:
        """Return ``n_k - delta``."""
        return np.asarray(observed - self.deviation(observed, epsilon)[..., None])

    def above(self, observed: Floats, epsilon: float) -> Floats:
        """Return ``n_k + delta``."""
        return np.asarray(observed + self.deviation(observed, epsilon)[..., None])

    def deviation(self, observed: Floats, epsilon: float) -> Floats:
        """Return delta."""
        return np.asarray(np.sqrt(observed.sum(axis=-1) * (-math.log(epsilon) / 2)))


class Azuma(Hoeffding):
    """``n_k -+ sqrt(2 n ln(1/e))``: twice Hoeffding's deviation, for rounds that may depend on each other."""

    def deviation(self, observed: Floats, epsilon: float) -> Floats:
        """Return ``2 delta``."""
        return 2 * super().deviation(observed, epsilon)


class Chernoff:
    """Of each count by itself: ``x - b/2 - sqrt(2 b x + b^2/4)``, ``x + b + sqrt(2 b x + b^2)``, b = ln(1/e).

    For a part of a total that was not observed by itself there is only Hoeffding's deviation.
    """

    def below(self, observed: Floats, epsilon: float) -> Floats:
        """Return the lower bound; a mean is never negative."""
        b = -math.log(epsilon)
        return np.maximum(0.0, observed - b / 2 - np.sqrt(2 * b * observed + b**2 / 4))

    def above(self, observed: Floats, epsilon: float) -> Floats:
        """Return the upper bound."""
        b = -math.log(epsilon)
        return np.asarray(observed + b + np.sqrt(2 * b * observed + b**2))

    def deviation(self, observed: Floats, epsilon: float) -> Floats:
        """Return Hoeffding's delta."""
        return Hoeffding().deviation(observed, epsilon)
