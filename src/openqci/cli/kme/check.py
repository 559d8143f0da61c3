"""``openqci kme check``: whether a node would run, part by part, before it does."""

import argparse
import json
from pathlib import Path


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register ``openqci kme check``."""
    parser = verbs.add_parser("check", help="check configuration, certificates, state, peers and modules")
    parser.add_argument("--config", metavar="FILE", type=Path, default=Path("kme.toml"), help="its kme.toml")
    parser.add_argument("--offline", action="store_true", help="ask no peer and no module")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=check_node)


def check_node(args: argparse.Namespace) -> int:
    """Print every check with its result; 0 if all are good."""
    import asyncio

    from openqci.services.kme_check import check, check_neighbours
    from openqci.services.kme_config_file import load_config

    loaded = load_config(args.config)
    results = check(loaded)
    if not args.offline:
        results += asyncio.run(check_neighbours(loaded))
    if args.json:
        print(json.dumps([result.document() for result in results], indent=2))
    else:
        print("\n".join(map(str, results)))
    return 0 if all(result.good for result in results) else 1
