"""What Eve holds of quadratures, in a form that keeps its digits from no loss to 200 dB.

The papers give Eve's share as ``G(l1) + G(l2) - G(l3) - G(l4)`` of symplectic eigenvalues: of Alice's and
Bob's modes before Bob measured, and of Alice's and the light that his detector lost afterwards. When little
light arrives the first and the third are nearly equal, and so are the others. Here everything is written in
``N = l - 1`` and in differences of N, none of which is made of two nearly equal numbers.

Private to the proofs; read :mod:`openqci.proofs.gaussian`.
"""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PHOTONS_MIN = 1e-290
"""Fewer are none; their inverse would not be a number any more."""


def channel_holevo_bits(
    variance: Floats, transmittance: Floats, noise: Floats, efficiency: Floats, quadratures: int
) -> Floats:
    """Return chi_BE in bits per symbol for a noiseless detector of whose loss Eve has no part.

    Parameters
    ----------
    variance : ndarray, shape S
        V_A in shot-noise units.
    transmittance : ndarray, shape S
        T of the channel, 0 to 1.
    noise : ndarray, shape S
        Excess noise at the *output* of the channel, ``T xi``, 0 or more.
    efficiency : ndarray, shape S
        Above 0 and at most 1.
    quadratures : int
        1 for homodyne, 2 for heterodyne detection.

    References
    ----------
    The eigenvalues that follow from A, B, C and D in J. Lodewyck et al., PRA 76, 042305 (2007) and
    S. Fossier et al., J. Phys. B 42, 114014 (2009), rearranged.
    """
    variance, transmittance, noise, efficiency = np.broadcast_arrays(
        variance, transmittance, noise, efficiency
    )
    # l1 - l2 = V - T V_A - T xi - 1 and l1 l2 = 1 + V_A (1 - T) + T xi (1 + V_A) make a quadratic equation.
    difference = variance * (1 - transmittance) - noise
    one = _positive_root(2 + difference, noise * (variance + 2))
    other = np.maximum(one + difference, 0.0)
    before = np.maximum(one, other), np.minimum(one, other)
    after = _after_homodyne if quadratures == 1 else _after_heterodyne
    falls = after(variance, transmittance, noise, efficiency, *before)
    bits = _entropy_fall_bits(before[0], falls[0]) + _entropy_fall_bits(before[1], falls[1])
    return np.asarray(np.maximum(bits, 0.0))


def _after_homodyne(
    variance: Floats, transmittance: Floats, noise: Floats, efficiency: Floats, large: Floats, small: Floats
) -> tuple[Floats, Floats]:
    """Return N1 - N3 and N2 - N4, large and small.

    With ``M = l^2 - 1`` and y for the light that arrives: ``M1 + M2 - M3 - M4 = A - C`` and
    ``M3 M4 = M1 M2 (1 - eta)/(1 + eta y)``.
    """
    arriving = transmittance * variance + noise
    seen = 1 + efficiency * arriving
    square, small_square = large * (large + 2), small * (small + 2)
    signal = (
        transmittance
        * variance
        * (variance * (1 - transmittance + variance * (1 - 2 * transmittance) - 2 * noise) - noise)
    )
    fall = efficiency / seen * (noise * (2 + 3 * arriving) + arriving**3 + signal)
    total = np.maximum(square + small_square - fall, 0.0)
    product = (1 - efficiency) / seen * square * small_square
    root = total + np.sqrt(np.maximum(total**2 - 4 * product, 0.0))
    small_after = np.divide(2 * product, root, out=np.zeros_like(root), where=root > 0)
    square_fall = fall - (small_square - small_after)
    square_after = np.maximum(square - square_fall, 0.0)
    return (
        square_fall / (1 + large + np.sqrt(1 + square_after)),
        small - small_after / (1 + np.sqrt(1 + small_after)),
    )


def _after_heterodyne(
    variance: Floats, transmittance: Floats, noise: Floats, efficiency: Floats, large: Floats, small: Floats
) -> tuple[Floats, Floats]:
    """Return N1 - N3 and N2 - N4; the state keeps its form, so N4 solves the same quadratic equation."""
    seen = 2 + efficiency * (transmittance * variance + noise)
    signal = transmittance * variance**2 * (1 - transmittance)
    fall = efficiency / seen * (signal - 2 * noise * (1 + transmittance * variance) - noise**2)
    difference = variance * (1 - transmittance) - noise
    one = _positive_root(2 + difference - fall, 2 * (1 - efficiency) / seen * noise * (variance + 2))
    other = np.maximum(one + difference - fall, 0.0)
    # Where noise outweighs the light both modes have changed places, before and after.
    swapped = difference < 0
    return (
        np.where(swapped, large - one, small - one + fall),
        np.where(swapped, small - other, small - one),
    )


def _positive_root(linear: Floats, constant: Floats) -> Floats:
    """Return the positive x of ``x^2 + linear x = constant``."""
    root = np.sqrt(linear**2 + 4 * constant)
    rising = linear > 0
    return np.where(rising, 2 * constant / np.where(rising, linear + root, 1.0), (root - linear) / 2)


def _entropy_fall_bits(before: Floats, fall: Floats) -> Floats:
    """Return ``g(n) - g(n - d)`` for ``n = before/2`` and ``d = fall/2``; never more than g(n).

    ``g(n) = (n + 1) log2(n + 1) - n log2 n``. For small d the sum of three logarithms of one and a bit.
    """
    photons = np.maximum(before, 0.0) / 2
    step = np.minimum(fall / 2, photons)
    after = photons - step
    near = (np.abs(step) < 0.5 * photons) & (photons > PHOTONS_MIN)
    base, move = np.where(near, after, 1.0), np.where(near, step, 0.0)
    stepwise = (
        move * np.log1p(1 / base)
        + (base + move + 1) * np.log1p(move / (base + 1))
        - (base + move) * np.log1p(move / base)
    )
    return np.where(near, stepwise, _thermal_entropy(photons) - _thermal_entropy(after)) / math.log(2)


def _thermal_entropy(photons: Floats) -> Floats:
    """Return g(n) in nats as ``n log(1 + 1/n) + log(1 + n)``."""
    some = photons > PHOTONS_MIN
    count = np.where(some, photons, 1.0)
    return np.where(some, count * np.log1p(1 / count) + np.log1p(count), 0.0)
