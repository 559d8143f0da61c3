from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest


@dataclass(frozen=True)
class Device:
    """The metropolitan device of the shipped scenarios, with the names of ``openqci.network.Device``."""

    clock_rate_hz: float = 1e9
    signal_intensity: float = 0.33
    decoy_intensity: float = 0.095
    signal_probability: float = 0.25
    z_basis_probability: float = 0.73
    receiver_loss_db: float = 3.0
    detector_efficiency: float = 0.2
    dark_count_probability: float = 1e-6
    dead_time_s: float = 1e-8
    afterpulse_probability: float = 0.02
    misalignment_error: float = 0.01
    block_sifted_bits: int = 262_144
    epsilon_sec: float = 1e-9
    epsilon_cor: float = 1e-15


@dataclass(frozen=True)
class Hop:
    loss_db: float


@pytest.fixture
def device() -> Callable[..., Device]:
    return lambda **changes: replace(Device(), **changes)


@pytest.fixture
def hop() -> Callable[[float], Hop]:
    return Hop
