"""The links that attacks are tried on, and how drawn detections are compared with a table."""

import numpy as np
from scipy.stats import chi2

from openqci.quantum import DecoySource, Exchange, FibreChannel, QuantumLink, Receiver
from openqci.quantum.elements import Floats

TWO, THREE = ((0.5, 0.15), (0.7, 0.3)), ((0.5, 0.15, 0.001), (0.7, 0.2, 0.1))


def link(
    length_km: float = 50.0, source: tuple[tuple[float, ...], ...] = TWO, **changes: float
) -> QuantumLink:
    """A metropolitan link with one decoy; tests change what they are about."""
    intensities, probabilities = source
    receiver = {
        "loss_db": 3.0,
        "detector_efficiency": 0.2,
        "dark_count_probability": 1e-6,
        "dead_time_s": 1e-8,
        "afterpulse_probability": 0.02,
        "misalignment_error": 0.01,
        "z_basis_probability": 0.8,
    }
    return QuantumLink(
        DecoySource(1e9, intensities, probabilities, 0.8),
        FibreChannel.of_length(length_km),
        Receiver(**(receiver | changes)),
    )


def rng(seed: int = 20261123) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(seed))


def class_counts(drawn: Exchange, intensities: int) -> np.ndarray:
    """Counts of all classes without the axis of double clicks, shape (K, 2, 2, 2, 2)."""
    alice, bob = drawn.emissions, drawn.detections
    index = np.ravel_multi_index(
        (alice.intensities, bob.bases, alice.bases, bob.bits, alice.bits), (intensities, 2, 2, 2, 2)
    )
    return np.bincount(index, minlength=16 * intensities).reshape(intensities, 2, 2, 2, 2)


def class_p_value(drawn: Exchange, table: Floats) -> float:
    """Chi-square of drawn classes against a table; classes with fewer than 10 are put together."""
    observed = class_counts(drawn, len(table)).ravel()
    expected = table.sum(axis=1).ravel()
    expected = expected / expected.sum() * observed.sum()
    rare = expected < 10
    observed = np.append(observed[~rare], observed[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    use = expected > 0
    assert observed[~use].sum() == 0
    statistic = ((observed[use] - expected[use]) ** 2 / expected[use]).sum()
    return float(chi2.sf(statistic, np.count_nonzero(use) - 1))
