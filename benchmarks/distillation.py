"""One block of distillation with both ends, and its Toeplitz hash beside the definition of the hash.

The whole block is what a worker of the live network does after the photons: two sessions, all messages, all
tags, on one core. The hash is compared where the definition can still be computed row by row.
"""

import secrets

import numpy as np
from _measure import medians_s, tell
from numpy.typing import NDArray

from openqci.core.identifiers import LinkId
from openqci.core.keys import SecretBytes
from openqci.crypto.toeplitz import toeplitz_hash, toeplitz_seed_bits
from openqci.distillation import (
    AUTHENTICATION_KEY_BYTES,
    AliceDistillation,
    BlockName,
    BobDistillation,
    KeyDistilled,
    converse,
)
from openqci.links import forecast, quantum_link
from openqci.network import load_scenario
from openqci.quantum import Exchange, exchange
from openqci.twin.block import distillation_settings

HASH_BITS = 1 << 13
Bits = NDArray[np.uint8]


def by_definition(key: Bits, seed: Bits, length: int) -> Bits:
    """Return ``y[i] = x[i] + sum over j of s[i - j + m - 1] x[l + j]`` modulo 2, row by row."""
    tail, m = key[length:].astype(np.int64), key.size - length
    backwards = seed[::-1]
    rows = (backwards[seed.size - m - i : seed.size - i] @ tail for i in range(length))
    return np.array([key[i] ^ (int(row) & 1) for i, row in enumerate(rows)], dtype=np.uint8)


def distil(photons: Exchange, name: BlockName) -> KeyDistilled:
    """Run both ends of one block; return Alice's ending."""
    shared = secrets.token_bytes(AUTHENTICATION_KEY_BYTES)
    ends = (SecretBytes(shared), SecretBytes(shared))
    alice = AliceDistillation(photons.emissions, SETTINGS, name, ends[0], secrets.token_bytes)
    bob = BobDistillation(photons.detections, SETTINGS, name, ends[1], secrets.token_bytes)
    at_alice, at_bob = converse(alice, bob)
    assert isinstance(at_alice, KeyDistilled) and isinstance(at_bob, KeyDistilled)
    assert at_alice.key.key.reveal() == at_bob.key.key.reveal()
    return at_alice


NETWORK = load_scenario("metro")
HOP = NETWORK.hops[LinkId("hu-mosonmagyarovar--sk-bratislava")]
DEVICE = NETWORK.devices[HOP.device]
SETTINGS = distillation_settings(DEVICE)

if __name__ == "__main__":
    rng = np.random.Generator(np.random.SFC64(1))
    photons = exchange(quantum_link(DEVICE, HOP), forecast(DEVICE, HOP).block_detections, rng)
    ending = distil(photons, BlockName(HOP.link_id, 0))
    report = ending.report
    key = rng.integers(0, 2, HASH_BITS, dtype=np.uint8)
    seed = rng.integers(0, 2, toeplitz_seed_bits(HASH_BITS), dtype=np.uint8)
    block_bits, half = report.sifted_bits, HASH_BITS // 2
    block, block_seed = (
        secrets.token_bytes(-(-block_bits // 8)),
        secrets.token_bytes(-(-(block_bits - 1) // 8)),
    )
    packed, packed_seed = np.packbits(key).data, np.packbits(seed).data
    found = toeplitz_hash(packed, HASH_BITS, packed_seed, half)
    assert np.array_equal(np.unpackbits(found), by_definition(key, seed, half))
    taken = medians_s(
        {
            "block": lambda: distil(photons, BlockName(HOP.link_id, 1)),
            "block_hash": lambda: toeplitz_hash(block, block_bits, block_seed, report.secret_bits),
            "hash": lambda: toeplitz_hash(packed, HASH_BITS, packed_seed, half),
            "definition": lambda: by_definition(key, seed, half),
        }
    )
    tell(
        f"distillation: one block, both ends, hop of {HOP.length_km:g} km",
        {
            "detections": report.detections,
            "sifted key bits": report.sifted_bits,
            "secret bits": report.secret_bits,
            "disclosed bits over the Shannon limit": report.leak_bits["alice_parities"]
            / (report.sifted_bits * -(np.log2(q := report.qber) * q + np.log2(1 - q) * (1 - q))),
            "whole block, both ends: ms": 1e3 * taken["block"],
            "whole block, both ends: sifted bits/s": report.sifted_bits / taken["block"],
            "Toeplitz hash of this block, one end: ms": 1e3 * taken["block_hash"],
            f"Toeplitz hash of {HASH_BITS} bits: ms": 1e3 * taken["hash"],
            f"Toeplitz hash of {HASH_BITS} bits by definition: ms": 1e3 * taken["definition"],
            "ratio": taken["definition"] / taken["hash"],
        },
    )
