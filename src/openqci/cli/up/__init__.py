"""``openqci up``: a whole network on this machine, live, until it is told to stop.

The composition root: here the simulation (``openqci.twin``) is plugged into the services that a real network
runs. :mod:`openqci.cli.up.live` puts the parts together; each part has a module of its own.
"""

import argparse
import logging
import sys
from pathlib import Path

PORT_BASE = 14000
DATA_ROOT = Path("openqci-data")
WORKERS = 2


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register ``openqci up``."""
    parser = subparsers.add_parser(
        "up",
        help="run a whole network on this machine, live",
        description="Run a whole network on this machine, live, until Ctrl-C or SIGTERM. All keys are kept.",
    )
    parser.add_argument(
        "--scenario", default="eu27", metavar="NAME|DIR", help="which network (default: eu27)"
    )
    parser.add_argument(
        "--data-dir", type=Path, help=f"where it keeps everything (default: {DATA_ROOT}/SCENARIO)"
    )
    parser.add_argument(
        "--port-base", type=port, default=PORT_BASE, metavar="N", help="console port; the KMEs follow it"
    )
    parser.add_argument(
        "--speed", type=positive, default=1.0, metavar="X", help="simulated seconds per second (default: 1)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="fix the photons, for repeatable runs; makes the keys predictable",
    )
    parser.add_argument(
        "--workers", type=at_least_one, default=WORKERS, metavar="N", help="processes that distil key"
    )
    parser.add_argument(
        "--ready-file", type=Path, metavar="FILE", help="write addresses here once all is ready"
    )
    parser.add_argument(
        "--policy",
        choices=("quantum", "both", "either"),
        default="both",
        help="what keys rest on: quantum links alone; ML-KEM beside them, either being enough (the default); "
        "or that where it can be had, and hops without key crossed under ML-KEM for applications that wait",
    )
    parser.add_argument("--until-ready", action="store_true", help="stop as soon as all is ready")
    demand = parser.add_mutually_exclusive_group()
    demand.add_argument("--no-load", action="store_true", help="leave out the scenario's own demand")
    demand.add_argument(
        "--whole-demand",
        action="store_true",
        help="serve the whole demand model, as far as admission grants it, not the flows that are listed",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the network until SIGINT or SIGTERM; 0 after a clean stop."""
    import uvloop

    from openqci.cli.up.live import serve

    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    return uvloop.run(serve(args))


def port(text: str) -> int:
    """Read a port number."""
    number = int(text)
    if not 1 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port; expected 1 to 65535")
    return number


def at_least_one(text: str) -> int:
    """Read a count of processes."""
    number = int(text)
    if not 1 <= number <= 256:
        raise argparse.ArgumentTypeError(f"{text} is out of range; expected 1 to 256")
    return number


def positive(text: str) -> float:
    """Read a number above zero."""
    number = float(text)
    if not 0 < number <= 1000:
        raise argparse.ArgumentTypeError(f"{text} is out of range; expected above 0, at most 1000")
    return number
