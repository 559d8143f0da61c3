"""Runs of the fault simulation by seed: ``python -m tests.simulation.run --seed 7``.

Each seed is a run of its own network with its own faults, and replays exactly. Exit code 1 if an invariant is
broken; the last line tells how to see it again.
"""

import argparse
import copy
import logging
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from tests.simulation.loop import SOME, Faults
from tests.simulation.mutations import MUTATIONS
from tests.simulation.world import World

KMES_MIN, KMES_MAX = 3, 6


@contextmanager
def quiet_logs() -> Iterator[None]:
    """Say nothing of the thousands of faults that are meant; what comes after logs as before."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def simulate(seed: int, seconds: float, mutation: str | None = None) -> tuple[list[str], Counter[str]]:
    """Run one seed; return the faults found and what was counted."""
    chance = random.Random(seed)
    faults: Faults = copy.copy(SOME)
    faults.module_differs = chance.choice((0.0, 0.01, 0.1))
    faults.replaced = chance.choice((0.0, 0.0, 0.2))
    if mutation is None and chance.random() < 0.2:
        faults = Faults()  # a quiet world must be good, too
    with quiet_logs(), MUTATIONS[mutation]() if mutation else nullcontext():
        world = World(seed, chance.randint(KMES_MIN, KMES_MAX), faults)
        book = world.run(seconds)
    world.counts["KMEs"] += len(world.kmes)
    world.counts["runs"] += 1
    return book.faults, world.counts


def main() -> int:
    parser = argparse.ArgumentParser(description="the fault simulation, seed by seed")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--runs", type=int, default=1, help="how many seeds")
    parser.add_argument("--seconds", type=float, default=40.0, help="simulated time of each run under faults")
    parser.add_argument("--wall", type=float, default=0.0, help="stop after this real time, in seconds")
    parser.add_argument("--mutation", choices=sorted(MUTATIONS), help="switch a safety rule off")
    args = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets depends on it, and a replay on the order of sets.
        return subprocess.call(
            [sys.executable, "-m", "tests.simulation.run", *sys.argv[1:]],
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
    began_s = time.monotonic()
    total: Counter[str] = Counter()
    for seed in range(args.seed, args.seed + args.runs):
        faults, counts = simulate(seed, args.seconds, args.mutation)
        total.update(counts)
        if faults:
            print("\n".join(faults))
            print(f"again: python -m tests.simulation.run --seed {seed} --seconds {args.seconds:g}")
            return 1
        if args.wall and time.monotonic() - began_s > args.wall:
            break
    for name, count in sorted(total.items()):
        print(f"{name:40} {count}")
    kinds = "keys to masters", "keys of leases", "keys to slaves", "chunks of streams"
    operations = sum(total[kind] for kind in kinds)
    print(f"{'key operations':40} {operations}, {operations / (time.monotonic() - began_s):.0f}/s, 0 faults")
    return 0


if __name__ == "__main__":
    sys.exit(main())
