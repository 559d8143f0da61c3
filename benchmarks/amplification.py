"""Privacy amplification: the Toeplitz hash n to n/2 by transforms over GF(2^128), beside SciPy's FFT.

One core, packed bits in and out. The two routes hash the same key in turn and must agree; the floating-point
route is left out above ``--portable-bits`` (it takes 40 bytes a bit). Sizes: those of a block of the network,
of the default block of ``openqci distil``, of a long-range block (62.9 Mbit), and the longest.

What bounds it: the issue of carry-less multiplications and what is done around them. A block of 62.9 Mbit
takes 63 transforms of 2^16 points and 256 products of spectra: four levels of butterflies are one pass over
the cache, 32 butterflies of five multiplications on vectors of four elements. By their number alone, one
512-bit multiplication a cycle, that is 0.05 s at 3 GHz.
"""

import argparse
import json
import secrets
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from _measure import machine

from openqci.crypto.toeplitz import compiled_route_available, portable_hash, toeplitz_hash, toeplitz_seed_bits

SIZES = (1 << 18, 1 << 20, 1 << 22, 1 << 23, 62_914_560, 1 << 27)


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(bits: int, rounds: int, portable_bits: int) -> dict[str, float]:
    """Return medians in Mbit/s of key, the routes in turn."""
    key, seed = (secrets.token_bytes(-(-each // 8)) for each in (bits, toeplitz_seed_bits(bits)))
    length = bits // 2
    arrays = [np.frombuffer(each, np.uint8) for each in (key, seed)]
    ours, portable = [], []
    toeplitz_hash(key, bits, seed, length)
    for _ in range(rounds):
        ours.append(timed(lambda: toeplitz_hash(key, bits, seed, length)))
        if bits <= portable_bits:
            portable.append(timed(lambda: portable_hash(arrays[0], bits, arrays[1], length)))
    row = {"key_bits": bits, "mbps": round(bits / statistics.median(ours) / 1e6, 1)}
    if portable:
        found = toeplitz_hash(key, bits, seed, length)
        assert np.array_equal(found, portable_hash(arrays[0], bits, arrays[1], length))
        row["portable_mbps"] = round(bits / statistics.median(portable) / 1e6, 1)
        row["ratio"] = round(statistics.median(portable) / statistics.median(ours), 1)
    return row


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Toeplitz hash, n to n/2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--portable-bits", type=int, default=1 << 23)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = [measure(bits, args.rounds, args.portable_bits) for bits in SIZES]
    if args.json:
        told = {"benchmark": "amplification", "machine": machine(), "figures": rows}
        json.dump(told | {"compiled": compiled_route_available()}, sys.stdout, indent=2)
        print()
    else:
        print(f"\nToeplitz hash, n to n/2, one core; compiled route: {compiled_route_available()}")
        print(f"{'key bits':>12} {'Mbit/s':>9} {'SciPy':>8} {'ratio':>7}")
        for row in rows:
            print(
                f"{row['key_bits']:12,} {row['mbps']:9,.0f} {row.get('portable_mbps', float('nan')):8,.1f} "
                f"{row.get('ratio', float('nan')):7,.1f}"
            )
