"""Detections of a quantum link: drawn one by one (``openqci.quantum.exchange``), and pulse by pulse.

The pulse-by-pulse form is the same model, vectorised over pulses: it draws intensity, bases, bit and both
detectors of every pulse, silent or not. Both forms must see the same gain, or the comparison is void.
"""

import numpy as np
from _measure import medians_s, tell

from openqci.links import quantum_link
from openqci.network import Device, load_scenario
from openqci.quantum import QuantumLink, exchange, expected_statistics
from openqci.quantum.clicks import click_probability

LENGTHS_KM = (10, 40, 80)
DETECTIONS = 500_000
PULSES = 500_000


class Span:
    """A hop of the scenario's fibre: 0.2 dB/km and 1 dB for connectors."""

    def __init__(self, length_km: float) -> None:
        self.loss_db = 0.2 * length_km + 1.0


def pulse_by_pulse(link: QuantumLink, pulses: int, rng: np.random.Generator) -> int:
    """Draw every pulse; return how many detections there were (dead time apart)."""
    source, receiver = link.source, link.receiver
    intensity = rng.choice(len(source.intensities), size=pulses, p=source.probabilities)
    alice_basis = rng.random(pulses) >= source.z_basis_probability
    bob_basis = rng.random(pulses) >= receiver.z_basis_probability
    bit = rng.integers(0, 2, pulses, dtype=np.uint8)
    wrong_fraction = np.where(alice_basis == bob_basis, receiver.misalignment_error, 0.5)
    photons = link.detectable_photons[intensity]
    right = rng.random(pulses) < click_probability(photons * (1 - wrong_fraction), link.background)
    wrong = rng.random(pulses) < click_probability(photons * wrong_fraction, link.background)
    bob_bit = np.where(right & wrong, rng.integers(0, 2, pulses, dtype=np.uint8), bit ^ wrong)
    seen = np.flatnonzero(right | wrong)
    return int(bob_bit[seen].size)


def figures_at(device: Device, length_km: int) -> dict[str, float]:
    """Compare both forms at one length."""
    link = quantum_link(device, Span(length_km))
    gain = expected_statistics(link).click_probability
    rng = np.random.Generator(np.random.SFC64(1))
    check = sum(pulse_by_pulse(link, PULSES, rng) for _ in range(4))
    assert abs(check - 4 * PULSES * gain) < 6 * (4 * PULSES * gain) ** 0.5, "both forms see the same gain"
    taken = medians_s(
        {
            "exchange": lambda: exchange(link, DETECTIONS, rng),
            "pulses": lambda: pulse_by_pulse(link, PULSES, rng),
        }
    )
    ours, plain = DETECTIONS / taken["exchange"], PULSES * gain / taken["pulses"]
    return {
        f"{length_km} km: detections/s, drawn one by one": ours,
        f"{length_km} km: detections/s, pulse by pulse": plain,
        f"{length_km} km: ratio": ours / plain,
        f"{length_km} km: pulses/s that this stands for": ours / gain,
    }


if __name__ == "__main__":
    metro = load_scenario("metro").devices["dv-metro"]
    figures: dict[str, float] = {}
    for length_km in LENGTHS_KM:
        figures |= figures_at(metro, length_km)
    tell("sampling: detections of a decoy-state BB84 link", figures)
