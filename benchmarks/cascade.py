"""Cascade: speed of either end, what it discloses, and how many frames stay wrong, against the error rate.

``--frames 10000`` runs that many frames of 64 kbit at each error rate, as the published table does.
``f`` is the number of bits disclosed over n h(q), with q the error rate of these very keys. The peer is the
Cascade of ``qkdpy`` (PyPI), both ends in one call, where it is installed::

    uv run --with qkdpy python benchmarks/cascade.py

What bounds Bob: four to five scattered reads in level-2 cache for each bit disclosed (known ends, marks and
the words of a piece, in three orders). At 2 % he discloses 0.15 bits a sifted bit; 5 reads of 4 ns each would
be 3 ns a bit, 330 Mbit/s.
"""

import argparse
import json
import secrets
import statistics
import sys
import time
from dataclasses import dataclass, field

import numpy as np
from _measure import machine
from numpy.typing import NDArray

from openqci.distillation.reconciliation.cascade import PUBLIC_SEED_BYTES, Cascade
from openqci.distillation.reconciliation.frames import FRAME_BITS_MAX
from openqci.proofs.bounds import binary_entropy

FRAMES_PER_KEY = 64
PEER_BITS = 10_000
ERROR_RATES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.08)
Bits = NDArray[np.uint8]


@dataclass
class Figures:
    """What was measured at one error rate."""

    frames: int = 0
    frames_wrong: int = 0
    alice_s: list[float] = field(default_factory=list)
    bob_s: list[float] = field(default_factory=list)
    efficiency: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)

    def row(self) -> dict[str, float]:
        bits = FRAMES_PER_KEY * FRAME_BITS_MAX
        return {
            "frames": self.frames,
            "frames_wrong": self.frames_wrong,
            "f": round(statistics.mean(self.efficiency), 4),
            "rounds": statistics.median(self.rounds),
            "bob_mbps": round(bits / statistics.median(self.bob_s) / 1e6, 1),
            "alice_mbps": round(bits / statistics.median(self.alice_s) / 1e6, 1),
        }


def run_key(method: Cascade, key: Bits, errors: Bits, qber: float, figures: Figures) -> None:
    """Correct one key and add what it took."""
    spent = {"alice": 0.0, "bob": 0.0}

    def timed(who: str, work, *arguments):  # type: ignore[no-untyped-def]
        began_s = time.perf_counter()
        result = work(*arguments)
        spent[who] += time.perf_counter() - began_s
        return result

    noisy = key ^ errors
    plan = method.plan(key.size, qber, 0.11, secrets.token_bytes(PUBLIC_SEED_BYTES))
    reference = timed("alice", method.reference, key, plan)
    corrector = timed("bob", method.corrector, noisy, plan)
    rounds = 0
    while (question := timed("bob", corrector.question)) is not None:
        timed("bob", corrector.take, timed("alice", reference.answer, question))
        rounds += 1
    corrected = timed("bob", corrector.corrected_key)
    wrong = (corrected != key).reshape(-1, FRAME_BITS_MAX).any(axis=1)
    figures.frames += wrong.size
    figures.frames_wrong += int(wrong.sum())
    figures.efficiency.append(reference.disclosed_bits / (key.size * binary_entropy(float(errors.mean()))))
    figures.rounds.append(rounds)
    figures.alice_s.append(spent["alice"])
    figures.bob_s.append(spent["bob"])


def measured(qber: float, frames: int, rng: np.random.Generator) -> dict[str, float]:
    method, figures = Cascade(), Figures()
    bits = FRAMES_PER_KEY * FRAME_BITS_MAX
    while figures.frames < frames:
        key = np.unpackbits(np.frombuffer(rng.bytes(bits // 8), dtype=np.uint8))
        errors = (rng.random(bits, dtype=np.float32) < qber).view(np.uint8)
        run_key(method, key, errors, qber, figures)
    return figures.row()


def peer_mbps(qber: float, rng: np.random.Generator) -> float | None:
    """Return the speed of ``qkdpy``, both ends; None where it is not installed."""
    try:
        from qkdpy.key_management import ErrorCorrection
    except ImportError:
        return None
    key = rng.integers(0, 2, PEER_BITS).tolist()
    noisy = [bit ^ int(rng.random() < qber) for bit in key]
    began_s = time.perf_counter()
    ErrorCorrection.cascade(key, noisy)
    return PEER_BITS / (time.perf_counter() - began_s) / 1e6


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--frames", type=int, default=320, help="frames at each error rate (320)")
    parser.add_argument("--json", action="store_true", help="one JSON document with the machine's facts")
    options = parser.parse_args()
    rng = np.random.Generator(np.random.SFC64(1))
    measured(0.02, FRAMES_PER_KEY, rng)
    rows = {}
    for qber in ERROR_RATES:
        rows[f"{qber:g}"] = measured(qber, options.frames, rng)
        peer = peer_mbps(qber, rng)
        if peer is not None:
            both = 1 / (1 / rows[f"{qber:g}"]["bob_mbps"] + 1 / rows[f"{qber:g}"]["alice_mbps"])
            rows[f"{qber:g}"] |= {"qkdpy_mbps": round(peer, 4), "times_qkdpy": round(both / peer)}
    if options.json:
        json.dump({"benchmark": "cascade", "machine": machine(), "figures": rows}, sys.stdout, indent=2)
        print()
    else:
        print("cascade: frames of 64 kbit, 64 to a key, one core")
        print(f"  {'QBER':>6}" + "".join(f"{name:>14}" for name in rows["0.02"]))
        for name, row in rows.items():
            print(f"  {name:>6}" + "".join(f"{value:>14,}" for value in row.values()))
        if "qkdpy_mbps" not in rows["0.02"]:
            print("  no peer: qkdpy is not installed (uv run --with qkdpy python benchmarks/cascade.py)")
