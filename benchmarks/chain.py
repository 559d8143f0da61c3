"""The chain of one block, from photons to secret bits, each stage beside the plain way of doing it.

``python benchmarks/chain.py [--json]``: medians of several runs in one process. Absolute times depend on the
machine; the ratios are what to look at.
"""

import argparse
import json
import secrets
import statistics
import time
from collections.abc import Callable

import numpy as np

from openqci.core.keys import SecretBytes
from openqci.crypto.toeplitz import toeplitz_hash
from openqci.distillation import (
    AUTHENTICATION_KEY_BYTES,
    AliceDistillation,
    BlockName,
    BobDistillation,
    KeyDistilled,
    converse,
)
from openqci.links import forecast, quantum_link
from openqci.network import Hop, load_scenario
from openqci.quantum import QuantumLink, exchange
from openqci.twin.block import distillation_settings

RUNS = 5
NAIVE_PULSES = 2_000_000
NAIVE_BITS = 4096


def median_s(work: Callable[[], object]) -> float:
    """Return the median time of a few runs, after one that does not count."""
    work()
    times = []
    for _ in range(RUNS):
        began_s = time.perf_counter()
        work()
        times.append(time.perf_counter() - began_s)
    return statistics.median(times)


def naive_pulses(link: QuantumLink, pulses: int, rng: np.random.Generator) -> int:
    """Draw pulse by pulse, all of them, as most simulators do; return the number of detections."""
    photons = rng.poisson(0.3, pulses)
    arrived = rng.binomial(photons, 10 ** (-link.channel.loss_db / 10) * link.receiver.detector_efficiency)
    return int(np.count_nonzero(arrived))


def naive_toeplitz(key: np.ndarray, seed: np.ndarray, length: int) -> np.ndarray:
    """Multiply by the Toeplitz matrix as it is defined, row by row."""
    n = len(key)
    return np.array([int(key @ seed[row : row + n][::-1]) & 1 for row in range(length)], dtype=np.uint8)


def run() -> dict[str, float]:
    """Measure; return figures by name."""
    network = load_scenario("eu27")
    device = network.devices["dv-metro"]
    hop: Hop = next(hop for hop in network.hops.values() if hop.device == "dv-metro" and hop.length_km > 79)
    link, expected = quantum_link(device, hop), forecast(device, hop)
    rng = np.random.default_rng(1)
    detections = expected.block_detections
    photons = exchange(link, detections, rng)
    settings = distillation_settings(device)

    def distil() -> None:
        keys = [SecretBytes(bytes(AUTHENTICATION_KEY_BYTES)) for _ in range(2)]
        name = BlockName(hop.link_id, 0)
        alice = AliceDistillation(photons.emissions, settings, name, keys[0], secrets.token_bytes)
        bob = BobDistillation(photons.detections, settings, name, keys[1], secrets.token_bytes)
        ended = converse(alice, bob)
        assert all(isinstance(end, KeyDistilled) for end in ended)

    exchange_s = median_s(lambda: exchange(link, detections, rng))
    naive_s = median_s(lambda: naive_pulses(link, NAIVE_PULSES, rng))
    distil_s = median_s(distil)
    bits = rng.integers(0, 2, NAIVE_BITS, dtype=np.uint8)
    seed = rng.integers(0, 2, 2 * NAIVE_BITS, dtype=np.uint8)
    half = NAIVE_BITS // 2
    packed, packed_seed = np.packbits(bits).data, np.packbits(seed[: NAIVE_BITS - 1]).data
    hash_s = median_s(lambda: toeplitz_hash(packed, NAIVE_BITS, packed_seed, half))
    plain_s = median_s(lambda: naive_toeplitz(bits, seed, half))
    pulses = photons.emissions.pulses
    return {
        "block_detections": detections,
        "block_pulses": pulses,
        "exchange_ms": 1e3 * exchange_s,
        "detections_per_s": detections / exchange_s,
        "pulses_per_s": pulses / exchange_s,
        "pulses_per_s_naive": NAIVE_PULSES / naive_s,
        "exchange_ratio_to_naive": (pulses / exchange_s) / (NAIVE_PULSES / naive_s),
        "distillation_both_ends_ms": 1e3 * distil_s,
        "sifted_bits_per_s_both_ends": device.block_sifted_bits / distil_s,
        "toeplitz_4096_ms": 1e3 * hash_s,
        "toeplitz_4096_ratio_to_definition": plain_s / hash_s,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    figures = run()
    if parser.parse_args().json:
        print(json.dumps(figures, indent=2))
    else:
        for name, value in figures.items():
            print(f"{name:36} {value:16,.2f}")
