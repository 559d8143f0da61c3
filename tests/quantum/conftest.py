from collections.abc import Callable

import pytest

from openqci.quantum import DecoySource, FibreChannel, QuantumLink, Receiver


@pytest.fixture
def link() -> Callable[..., QuantumLink]:
    """The smallest true link; tests change what they are about."""

    def make(length_km: float = 50.0, **changes: float | tuple[float, ...]) -> QuantumLink:
        source: dict = {
            "clock_rate_hz": 1e9,
            "intensities": (0.5, 0.15),
            "probabilities": (0.7, 0.3),
            "z_basis_probability": 0.8,
        }
        receiver: dict = {
            "loss_db": 3.0,
            "detector_efficiency": 0.2,
            "dark_count_probability": 1e-6,
            "dead_time_s": 1e-8,
            "afterpulse_probability": 0.02,
            "misalignment_error": 0.01,
            "z_basis_probability": 0.8,
        }
        source.update({name: changes.pop(name) for name in list(changes) if name in source})
        receiver.update(changes)
        return QuantumLink(DecoySource(**source), FibreChannel.of_length(length_km), Receiver(**receiver))

    return make


@pytest.fixture
def rng():
    import numpy as np

    return np.random.Generator(np.random.SFC64(20261123))
