"""A distribution of transmittances as a few of them with weights: what to average a gain over.

A click probability bends with the transmittance, so its mean over fading is not that of the mean
transmittance. A :class:`Fading` holds the nodes and weights of a quadrature (Gauss, exact for polynomials),
so that ``fading.mean_of(f)`` is the mean of f.

>>> fading = pointing_fading(2.0)
>>> round(fading.mean, 6), round(float((fading.transmittances**2 @ fading.weights)), 6)
(0.666667, 0.5)

Left out: how fast it fades. Each step of a pass sees all of the distribution, which holds for fading of
milliseconds and for counts over seconds. Sources of the shapes: :mod:`openqci.space.pointing`,
:mod:`openqci.space.turbulence`.
"""

import math
from dataclasses import dataclass

import numpy as np

from openqci.core.errors import OutsideModel
from openqci.space.pointing import check_exponent
from openqci.space.ranges import Floats, check_range
from openqci.space.turbulence import log_normal_variance

NODES = 12
"""Enough for gains that are polynomials of degree 23 in the transmittance, to the last digit."""


@dataclass(frozen=True)
class Fading:
    """Relative transmittances and how often each is met; both of shape (F,).

    The mean need not be one: what jitter takes on average is in here. Relative transmittances above one
    are what scintillation focuses.
    """

    transmittances: Floats
    weights: Floats

    def __post_init__(self) -> None:
        transmittances = check_range("transmittances", self.transmittances, 0.0, 1e6)
        weights = check_range("weights", self.weights, 0.0, 1.0)
        if transmittances.ndim != 1 or transmittances.shape != weights.shape or not len(weights):
            raise OutsideModel("weights", weights.shape, "one weight per transmittance, in one dimension")
        if abs(float(weights.sum()) - 1) > 1e-9:
            raise OutsideModel("weights", float(weights.sum()), "a sum of 1")

    @property
    def mean(self) -> float:
        """The mean relative transmittance."""
        return float(self.transmittances @ self.weights)

    def and_also(self, other: "Fading") -> "Fading":
        """Return the fading of both when they are independent; F grows to the product."""
        return Fading(
            np.outer(self.transmittances, other.transmittances).ravel(),
            np.outer(self.weights, other.weights).ravel(),
        )


STEADY = Fading(np.ones(1), np.ones(1))
"""No fading."""


def pointing_fading(exponent: float, nodes: int = NODES) -> Fading:
    """Return the fading of a jittering Gaussian beam, density ``b t^(b - 1)``."""
    beta = float(check_exponent(exponent)) - 1
    k = np.arange(check_nodes(nodes), dtype=np.float64)
    # Jacobi polynomials of weight (1 + x)^beta; the first line of the general recurrence is 0/0 at beta = 0.
    diagonal = np.empty(nodes)
    diagonal[0] = beta / (beta + 2)
    diagonal[1:] = beta**2 / ((2 * k[1:] + beta) * (2 * k[1:] + beta + 2))
    k = k[1:]
    beside = 4 * k**2 * (k + beta) ** 2 / ((2 * k + beta) ** 2 * ((2 * k + beta) ** 2 - 1))
    x, weights = gauss_nodes(diagonal, beside)
    return Fading(np.clip((1 + x) / 2, 0.0, 1.0), weights)


def log_normal_fading(scintillation_index: float, nodes: int = NODES) -> Fading:
    """Return the fading of weak turbulence: log-normal, mean one, variance the scintillation index."""
    spread = float(log_normal_variance(scintillation_index))
    x, weights = gauss_nodes(np.zeros(check_nodes(nodes)), np.arange(1, nodes, dtype=np.float64))
    return Fading(np.exp(math.sqrt(spread) * x - spread / 2), weights)


def gamma_gamma_fading(a: float, b: float, nodes: int = NODES) -> Fading:
    """Return the fading of strong turbulence at a point: the product of two gamma variates, mean one."""
    return gamma_fading(a, nodes).and_also(gamma_fading(b, nodes))


def gamma_fading(shape: float, nodes: int = NODES) -> Fading:
    """Return the fading of a gamma variate of mean one and variance ``1 / shape``."""
    check_range("shape", shape, 0.1, 1e12)
    k = np.arange(check_nodes(nodes), dtype=np.float64)
    x, weights = gauss_nodes(2 * k + shape, k[1:] * (k[1:] + shape - 1))
    return Fading(x / shape, weights)


def gauss_nodes(diagonal: Floats, beside_squared: Floats) -> tuple[Floats, Floats]:
    """Return nodes and weights of a Gauss quadrature from its recurrence (Golub and Welsch, 1969).

    The weights sum to one, whatever the norm of the weight function: nothing overflows for extreme shapes.
    """
    beside = np.sqrt(beside_squared)
    jacobi = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
    nodes, vectors = np.linalg.eigh(jacobi)
    weights = vectors[0] ** 2
    return nodes, weights / weights.sum()


def check_nodes(nodes: int) -> int:
    if nodes != int(check_range("nodes", nodes, 1, 200)):
        raise OutsideModel("nodes", nodes, "a whole number")
    return nodes
