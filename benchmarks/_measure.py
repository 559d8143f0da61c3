"""How the benchmarks measure: works side by side in one process, in turn, medians and ratios.

Works that are compared take turns, so that a machine that slows down meanwhile slows all of them. Every work
runs once before the clock starts. Absolute figures belong to the machine; ratios travel.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping

ROUNDS = 5


def medians_s(works: Mapping[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Return the median time of each work in seconds."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            began_s = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - began_s)
    return {name: statistics.median(each) for name, each in times.items()}


def tell(title: str, figures: Mapping[str, float]) -> None:
    """Print figures as a table, or as one JSON document with ``--json``."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--json", action="store_true", help="one JSON document with the machine's facts")
    if parser.parse_args().json:
        json.dump({"benchmark": title, "machine": machine(), "figures": dict(figures)}, sys.stdout, indent=2)
        print()
        return
    print(f"\n{title}")
    for name, value in figures.items():
        print(f"  {name:52}{value:16,.4g}" if abs(value) < 100 else f"  {name:52}{value:16,.0f}")


def machine() -> dict[str, object]:
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "processors": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
