"""Whole blocks, from detections to stored key: each end's time, both ends with their photons, and start-up.

Bob's chain is what he computes from his detections to his key in a durable store: announcement, sifting,
Cascade, verification, estimation, amplification, commit. It runs on one core; Alice's part is timed apart.
"Both ends and photons" is one core that draws the detections as well, as the network twin does. Start-up is a
fresh process with its kernels compiled before, up to the end of its second block of a million sifted bits.

What bounds Bob: his sifting and Alice's (some 7 ns a detection: scattered writes of what is kept), then
Cascade (``cascade.py``). Memory is the largest resident set less that before the block.
"""

import argparse
import json
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _measure import machine

from openqci.cli.distil.stopwatch import Stopwatch
from openqci.core.identifiers import LinkId
from openqci.core.keys import SecretBytes
from openqci.distillation import (
    AUTHENTICATION_KEY_BYTES,
    AliceDistillation,
    BlockName,
    BobDistillation,
    DistillationSettings,
    KeyDistilled,
    converse,
)
from openqci.quantum import DecoySource, Exchange, FibreChannel, QuantumLink, Receiver, exchange
from openqci.services.link_stock import PRESHARED_BYTES, LinkDirectory

LINK_ID = LinkId("benchmark")
Z_PROBABILITY = 0.8
DETECTIONS_PER_SIFTED_BIT = 1.5625
LINK = QuantumLink(
    DecoySource(1e9, (0.45, 0.12), (0.6, 0.4), Z_PROBABILITY),
    FibreChannel(10.0),
    Receiver(
        loss_db=2.0,
        detector_efficiency=0.3,
        dark_count_probability=1e-7,
        dead_time_s=0.0,
        afterpulse_probability=0.0,
        misalignment_error=0.02,
        z_basis_probability=Z_PROBABILITY,
    ),
)
SETTINGS = DistillationSettings(
    proof_id="rusca-2018",
    intensities=(0.45, 0.12),
    intensity_probabilities=(0.6, 0.4),
    epsilon_sec=1e-9,
    epsilon_cor=1e-15,
)


def peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def distil(photons: Exchange, number: int, folder: LinkDirectory) -> dict[str, float]:
    """Distil one block; return what each end took, in seconds."""
    name, shared = BlockName(LINK_ID, number), secrets.token_bytes(AUTHENTICATION_KEY_BYTES)
    alice = Stopwatch(
        AliceDistillation(photons.emissions, SETTINGS, name, SecretBytes(shared), secrets.token_bytes)
    )
    bob = Stopwatch(
        BobDistillation(photons.detections, SETTINGS, name, SecretBytes(shared), secrets.token_bytes)
    )
    at_alice, at_bob = converse(alice, bob)
    assert isinstance(at_alice, KeyDistilled) and isinstance(at_bob, KeyDistilled)
    began = time.perf_counter()
    folder.stock.keep(number, at_bob.key)
    stored_s = time.perf_counter() - began
    report = at_bob.report
    return {
        "sifted_bits": report.sifted_bits,
        "qber": report.qber,
        "secret_bits": report.secret_bits,
        "alice_s": sum(alice.seconds.values()),
        "bob_s": sum(bob.seconds.values()) + stored_s,
        **{f"bob_{stage}_ms": 1e3 * taken for stage, taken in bob.seconds.items()},
        "bob_storing_ms": 1e3 * stored_s,
    }


def measure(sifted_bits: int, rounds: int) -> dict[str, float]:
    """Return medians over rounds."""
    rng = np.random.Generator(np.random.SFC64(1))
    detections = int(sifted_bits * DETECTIONS_PER_SIFTED_BIT)
    blocks, photons_s = [], []
    before = peak_bytes()
    with tempfile.TemporaryDirectory() as place:
        secret = SecretBytes(secrets.token_bytes(PRESHARED_BYTES))
        with LinkDirectory.make(Path(place) / "bob", LINK_ID, "bob", secret) as folder:
            for number in range(1, rounds + 2):
                began = time.perf_counter()
                photons = exchange(LINK, detections, rng)
                photons_s.append(time.perf_counter() - began)
                blocks.append(distil(photons, number, folder))
    medians = {name: statistics.median(block[name] for block in blocks[1:]) for name in blocks[0]}
    drawn_s = statistics.median(photons_s[1:])
    both_s = medians["alice_s"] + medians["bob_s"]
    return {
        "block, sifted bits": medians["sifted_bits"],
        "QBER, %": 100 * medians["qber"],
        "secret bits": medians["secret_bits"],
        "Bob, detections to stored key: Mbit/s sifted": medians["sifted_bits"] / medians["bob_s"] / 1e6,
        "Alice: Mbit/s sifted": medians["sifted_bits"] / medians["alice_s"] / 1e6,
        "both ends and photons: Mbit/s sifted": medians["sifted_bits"] / (both_s + drawn_s) / 1e6,
        "photons: detections/s": detections / drawn_s,
        **{name.replace("_", " "): value for name, value in medians.items() if name.endswith("_ms")},
        "memory of the largest block, both ends: bytes a sifted bit": (peak_bytes() - before)
        / medians["sifted_bits"],
    }


def start_up_s() -> float:
    """Return the seconds of a fresh process that distils one block; kernels are compiled already."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, __file__, "--sifted-bits", "1048576", "--rounds", "1", "--json"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - began


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="whole blocks of distillation")
    parser.add_argument("--sifted-bits", type=int, default=4_194_304)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--start-up", action="store_true", help="measure a fresh process as well")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    figures = measure(args.sifted_bits, args.rounds)
    if args.start_up:
        figures["fresh process, two blocks of a million sifted bits: s"] = start_up_s()
    if args.json:
        json.dump({"benchmark": "blocks", "machine": machine(), "figures": figures}, sys.stdout, indent=2)
        print()
    else:
        print("\nwhole blocks, one core")
        for title, value in figures.items():
            print(f"  {title:62}{value:14,.4g}" if abs(value) < 1e4 else f"  {title:62}{value:14,.0f}")
