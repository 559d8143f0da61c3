"""``openqci kme modules``: a pair of simulated QKD modules, for laboratories and first steps."""

import argparse
from pathlib import Path


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register ``openqci kme modules``."""
    parser = verbs.add_parser("modules", help="run a simulated pair of QKD modules, for a laboratory")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="where modules.toml and all else is")
    parser.add_argument("--init", action="store_true", help="make the folder, say what nodes need, and stop")
    parser.add_argument("--nodes", metavar="A,B", default="kme-a,kme-b", help="the two KMEs' SAE IDs")
    parser.add_argument(
        "--host", default="localhost", help="where the modules are reached (default localhost)"
    )
    parser.add_argument(
        "--bind", metavar="ADDRESS", default="127.0.0.1", help="address they listen on (default 127.0.0.1)"
    )
    parser.add_argument(
        "--port-base", metavar="N", type=int, default=9500, help="port of end a (default 9500)"
    )
    parser.add_argument("--length-km", metavar="KM", type=float, default=25.0, help="fibre (default 25)")
    parser.add_argument(
        "--device", metavar="ID", default="dv-metro", help="device profile (default dv-metro)"
    )
    parser.add_argument("--speed", metavar="X", type=float, default=1.0, help="simulated seconds per second")
    parser.add_argument(
        "--workers", metavar="N", type=int, default=1, help="processes that distil (default 1)"
    )
    parser.set_defaults(run=run_modules)


def run_modules(args: argparse.Namespace) -> int:
    """Make the folder, or run the pair until a signal."""
    from openqci.cli.kme import module_pair

    return module_pair.init_modules(args) if args.init else module_pair.run_pair(args.folder, args.workers)
