"""A short run of the fault simulation; ``make simulate`` runs it as long as you like."""

import asyncio
import os
import re
import subprocess
import sys

from tests.simulation.loop import JumpingLoop
from tests.simulation.run import simulate

SEEDS = 40  # a number and no time: what the test meets is the same on every machine


def run(*words: object) -> subprocess.CompletedProcess[str]:
    """Run seeds in a process of their own, with the order of sets that a replay needs."""
    command = [sys.executable, "-m", "tests.simulation.run", *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": "0"}, timeout=600
    )


def test_no_fault_breaks_an_invariant() -> None:
    done = run("--seed", 1, "--runs", SEEDS, "--seconds", 4)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = {name.strip(): int(count) for name, count in re.findall(r"^(.*?)\s+(\d+)", done.stdout, re.M)}
    assert counts["key operations"] > 500_000
    for fault in ("crashes", "partitions begun or ended", "deposits with different key"):
        assert counts[fault] > 0, fault


def test_a_seed_replays() -> None:
    first, second = (run("--seed", 5, "--seconds", 3).stdout for _ in range(2))
    without_speed = [re.sub(r", \d+/s", "", text) for text in (first, second)]
    assert without_speed[0] == without_speed[1] and "key operations" in first


def test_a_quiet_world_delivers_everything() -> None:
    faults, counts = simulate(2, 3.0)
    assert faults == [] and counts["keys to slaves"] > 1_000


def test_simulated_time_costs_no_time() -> None:
    loop = JumpingLoop()
    before_s = loop.time()
    loop.run_until_complete(asyncio.sleep(1e6))
    assert loop.time() - before_s >= 1e6
    loop.close()
