from collections.abc import Callable

import numpy as np
import pytest

from openqci.proofs import DecoyCounts


@pytest.fixture
def counts() -> Callable[..., DecoyCounts]:
    """One good block of a one-decoy link; tests spoil what they are about."""

    def make(**changes: tuple[float, ...]) -> DecoyCounts:
        block: dict = {
            "z_counts": (180_000, 80_000),
            "z_errors": (3_600, 1_900),
            "x_counts": (26_000, 11_500),
            "x_errors": (520, 280),
            "intensities": (0.33, 0.1),
            "probabilities": (0.3, 0.7),
        }
        return DecoyCounts(**(block | changes))

    return make


@pytest.fixture
def numpy_rng() -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(20261123))
