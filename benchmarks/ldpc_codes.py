"""LDPC codes: speed of either end, what they disclose, and how many frames fail, against the error rate.

``--frames 10000`` runs that many frames of 256 kbit at each error rate. Three amounts are disclosed beyond
the threshold of the codes: ``fast``, ``usual`` (what ``LDPC()`` does) and ``frugal``. ``f`` is the number of
bits disclosed over n h(q), with q the error rate of these very keys. ``asked_again`` are frames that the
first answer did not suffice for: more was asked for, in further rounds. ``undecoded`` are those left wrong at
last.

The peer is the belief propagation of ``ldpc`` (PyPI) on the *same* parity-check matrices, lifted by 128, and
the same errors, decoding alone, where it is installed::

    uv run --with ldpc python benchmarks/ldpc_codes.py

What bounds Bob: vector instructions, about 50 for 64 edges and an iteration, four of them look-ups and seven
stores. A bit has 5 to 6 edges, a frame takes 10 to 25 iterations. At three instructions a cycle and 2.6 GHz
that is 0.10 ns an edge and iteration on AVX-512; ``ns_edge`` says what was reached.
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

from openqci.distillation.reconciliation.ldpc import LDPC
from openqci.distillation.reconciliation.ldpc.compiled import CompiledDecoder
from openqci.distillation.reconciliation.ldpc.ladder import COLUMNS, WORD_BITS, Code, code
from openqci.distillation.reconciliation.ldpc.method import (
    ITERATIONS_MAX,
    OVERHEAD,
    PUBLIC_SEED_BYTES,
    binary_entropy,
    planned_code,
)
from openqci.distillation.reconciliation.ldpc.wire import decoded_question
from openqci.kernels.phi_tables import LLR_UNITS_PER_NAT

FRAME_BITS = COLUMNS * 1024
FRAMES_PER_KEY = 16
ERROR_RATES = (0.01, 0.02, 0.03, 0.04, 0.05, 0.08)
OVERHEADS = {"fast": 0.07, "usual": OVERHEAD, "frugal": -0.025}
PEER_LIFT = 128
PEER_FRAMES = 5
Bits = NDArray[np.uint8]


@dataclass
class Figures:
    """What was measured at one error rate and overhead."""

    frames: int = 0
    asked_again: int = 0
    undecoded: int = 0
    alice_s: list[float] = field(default_factory=list)
    bob_s: list[float] = field(default_factory=list)
    efficiency: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)

    def row(self) -> dict[str, float]:
        bits = FRAMES_PER_KEY * FRAME_BITS
        return {
            "frames": self.frames,
            "asked_again": self.asked_again,
            "undecoded": self.undecoded,
            "f": round(statistics.mean(self.efficiency), 4),
            "rounds": round(statistics.mean(self.rounds), 2),
            "bob_mbps": round(bits / statistics.median(self.bob_s) / 1e6, 1),
            "alice_mbps": round(bits / statistics.median(self.alice_s) / 1e6, 1),
        }


def run_key(method: LDPC, key: Bits, errors: Bits, qber: float, figures: Figures) -> None:
    """Correct one key and add what it took."""
    spent = {"alice": 0.0, "bob": 0.0}

    def timed(who: str, work, *arguments):  # type: ignore[no-untyped-def]
        began_s = time.perf_counter()
        result = work(*arguments)
        spent[who] += time.perf_counter() - began_s
        return result

    plan = method.plan(key.size, qber, 0.11, secrets.token_bytes(PUBLIC_SEED_BYTES))
    noisy = key ^ errors
    reference = timed("alice", method.reference, key, plan)
    corrector = timed("bob", method.corrector, noisy, plan)
    rounds = 0
    while (question := timed("bob", corrector.question)) is not None:
        figures.asked_again += decoded_question(question).frames.size if rounds == 1 else 0
        timed("bob", corrector.take, timed("alice", reference.answer, question))
        rounds += 1
    corrected = timed("bob", corrector.corrected_key)
    wrong = np.flatnonzero(corrected != key)
    figures.undecoded += -(-wrong.size // FRAME_BITS) if wrong.size else 0
    figures.frames += FRAMES_PER_KEY
    figures.efficiency.append(reference.disclosed_bits / (key.size * binary_entropy(float(errors.mean()))))
    figures.rounds.append(rounds)
    figures.alice_s.append(spent["alice"])
    figures.bob_s.append(spent["bob"])


def measured(qber: float, overhead: float, frames: int, rng: np.random.Generator) -> dict[str, float]:
    method, figures = LDPC(overhead=overhead), Figures()
    bits = FRAMES_PER_KEY * FRAME_BITS
    while figures.frames < frames:
        key = np.unpackbits(np.frombuffer(rng.bytes(bits // 8), dtype=np.uint8))
        errors = (rng.random(bits, dtype=np.float32) < qber).view(np.uint8)
        run_key(method, key, errors, qber, figures)
    return figures.row()


def ns_per_edge(qber: float, rng: np.random.Generator) -> float:
    """Return the time of decoding by edge and iteration, of iterations that find nothing."""
    rows, _ = planned_code(FRAME_BITS, 1024, qber)
    decoder, known = CompiledDecoder(code(rows), 1024), np.zeros((COLUMNS, 1024 // WORD_BITS), np.uint64)
    noise = np.frombuffer(rng.bytes(rows * 1024 // 8), np.uint64).reshape(rows, -1)
    times = []
    for _ in range(9):
        began_s = time.perf_counter()
        decoder.errors(noise, noise, 0, 30, known, 20)
        times.append(time.perf_counter() - began_s)
    return statistics.median(times) / 20 / (code(rows).columns.size * 1024) * 1e9


def peer_times(qber: float, rng: np.random.Generator) -> dict[str, float]:
    """Return how much faster we decode than ``ldpc``, same matrix and errors; empty if not installed."""
    try:
        from ldpc import BpDecoder
        from scipy.sparse import csr_matrix
    except ImportError:
        return {}
    rows, _ = planned_code(COLUMNS * PEER_LIFT, PEER_LIFT, 1.15 * qber, -0.02)
    of = code(rows)
    ours = CompiledDecoder(of, PEER_LIFT)
    checks, bits = lifted_edges(of)
    matrix = csr_matrix((np.ones(checks.size, np.uint8), (checks, bits)))
    theirs = BpDecoder(matrix, error_rate=qber, max_iter=ITERATIONS_MAX, bp_method="product_sum")
    known = np.zeros((COLUMNS, PEER_LIFT // WORD_BITS), np.uint64)
    prior = round(LLR_UNITS_PER_NAT * np.log((1 - qber) / qber))
    spent: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(PEER_FRAMES):
        errors = (rng.random((COLUMNS, PEER_LIFT)) < qber).astype(np.uint8)
        frame = np.packbits(errors, axis=1, bitorder="little").view(np.uint64)
        whole, front = ours.syndrome(frame)
        syndrome = np.unpackbits(whole.view(np.uint8), axis=1, bitorder="little").reshape(-1)
        began_s = time.perf_counter()
        found = ours.errors(whole, front, 0, prior, known, ITERATIONS_MAX)
        spent["ours"].append(time.perf_counter() - began_s)
        began_s = time.perf_counter()
        decoded = theirs.decode(syndrome)
        spent["theirs"].append(time.perf_counter() - began_s)
        assert found is not None and np.array_equal(decoded, errors.reshape(-1)), "both find the errors"
    speeds = {name: errors.size / statistics.median(each) / 1e6 for name, each in spent.items()}
    return {
        "same_ours_mbps": round(speeds["ours"], 1),
        "same_peer_mbps": round(speeds["theirs"], 3),
        "times_peer": round(speeds["ours"] / speeds["theirs"]),
    }


def lifted_edges(of: Code) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return check and bit of every edge of a code lifted by ``PEER_LIFT``."""
    lanes = np.arange(PEER_LIFT)
    row = np.repeat(np.arange(of.rows), np.diff(of.starts))
    checks = row[:, None] * PEER_LIFT + lanes
    bits = of.columns[:, None] * PEER_LIFT + (of.shifts[:, None] + lanes) % PEER_LIFT
    return checks.reshape(-1), bits.reshape(-1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--frames", type=int, default=64, help="frames at each error rate (64)")
    parser.add_argument("--only", choices=OVERHEADS, help="one overhead instead of all three")
    parser.add_argument("--json", action="store_true", help="one JSON document with the machine's facts")
    options = parser.parse_args()
    rng = np.random.Generator(np.random.SFC64(1))
    measured(0.02, OVERHEAD, FRAMES_PER_KEY, rng)
    rows: dict[str, dict[str, float]] = {}
    for name in [options.only] if options.only else OVERHEADS:
        for qber in ERROR_RATES:
            rows[f"{name} {qber:g}"] = measured(qber, OVERHEADS[name], options.frames, rng)
    bound = {"ns_edge": round(ns_per_edge(0.02, rng), 3)}
    peer = peer_times(0.02, rng)
    if options.json:
        figures = rows | {"arithmetic 0.02": bound} | ({"peer 0.02": peer} if peer else {})
        json.dump({"benchmark": "ldpc_codes", "machine": machine(), "figures": figures}, sys.stdout, indent=2)
        print()
    else:
        print(f"ldpc: frames of 256 kbit, {FRAMES_PER_KEY} to a key, one core")
        print(f"  {'QBER':>12}" + "".join(f"{name:>13}" for name in next(iter(rows.values()))))
        for name, row in rows.items():
            print(f"  {name:>12}" + "".join(f"{value:>13,}" for value in row.values()))
        print(f"  decoding at 2 %: {bound['ns_edge']} ns for an edge and iteration")
        if peer:
            print(f"  same matrix and errors, 32 kbit at 2 %: {peer}")
        else:
            print("  no peer: ldpc is not installed (uv run --with ldpc python benchmarks/ldpc_codes.py)")
