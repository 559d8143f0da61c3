"""Decoy-state counts of satellite passes, sample after sample, summed over each pass in registers.

The model is that of :func:`openqci.quantum.decoy_statistics.decoy_statistics` (threshold detectors, active
choice of basis, equal bases), where it is explained; equal to it to rounding.
"""

import math
from typing import Any

import numpy as np

from openqci.kernels.compiling import kernel


@kernel
def pass_counts(
    efficiency: Any,
    dark: Any,
    weights_s: Any,
    owner: Any,
    relative: Any,
    shares: Any,
    intensities: Any,
    probabilities: Any,
    z_basis_probability: float,
    misalignment_error: float,
    afterpulse_probability: float,
    dead_slots: float,
    clock_rate_hz: float,
    counts: Any,
    errors: Any,
) -> None:
    """Add sifted bits and errors of N samples to those of their passes.

    Parameters
    ----------
    efficiency, dark, weights_s, owner : ndarray, shape (N,)
        Chance of a photon to be counted on average, of a detector to click without one, seconds, the pass.
    relative, shares : ndarray, shape (F,)
        Fading: transmittances over their mean, and how often each is met.
    counts, errors : ndarray, shape (P, 2, K)
        To which it is added.
    """
    kinds = intensities.size
    half = afterpulse_probability / 2
    chosen = z_basis_probability * z_basis_probability, (1 - z_basis_probability) ** 2
    gains, wrongs = np.empty(kinds), np.empty(kinds)
    for place in range(efficiency.size):
        gains[:] = 0.0
        wrongs[:] = 0.0
        for node in range(relative.size):
            seen = min(efficiency[place] * relative[node], 1.0)
            silence = 0.0
            for kind in range(kinds):
                silence += probabilities[kind] * math.exp(-seen * intensities[kind])
            left = 1 - dark[place] - half
            quiet = 2 * left / (1 + math.sqrt(1 - 4 * half * silence * left))
            background = max(0.0, 1 - quiet)
            live = shares[node] / (1 + dead_slots * (1 - quiet * quiet * silence))
            silent = math.log1p(-background)
            for kind in range(kinds):
                photons = seen * intensities[kind]
                right = -math.expm1(silent - photons * (1 - misalignment_error))
                wrong = -math.expm1(silent - photons * misalignment_error)
                gains[kind] += live * (right + wrong - right * wrong)
                wrongs[kind] += live * (wrong - right * wrong / 2)
        pulses = weights_s[place] * clock_rate_hz
        row = owner[place]
        for basis in range(2):
            for kind in range(kinds):
                sent = pulses * chosen[basis] * probabilities[kind]
                counts[row, basis, kind] += sent * gains[kind]
                errors[row, basis, kind] += sent * wrongs[kind]
