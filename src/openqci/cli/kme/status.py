"""``openqci kme status``, ``renew`` and ``zeroise``: a running node through its operator interface."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

SHOWN_PAIRS = 20


def add_parsers(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the verbs."""
    status = verbs.add_parser("status", help="peers, links, stocks and alarms of a running node")
    _add_common(status)
    status.add_argument("--json", action="store_true", help="print one JSON document")
    status.set_defaults(run=show_status)
    renew = verbs.add_parser("renew", help="renew the keys that the store is sealed under")
    _add_common(renew)
    renew.set_defaults(run=renew_keys)
    zeroise = verbs.add_parser("zeroise", help="destroy all key of a node, for good")
    _add_common(zeroise)
    zeroise.add_argument("--yes", action="store_true", help="do not ask")
    zeroise.set_defaults(run=zeroise_node)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", type=Path, default=Path("kme.toml"), help="its kme.toml")
    parser.add_argument(
        "--certificate", metavar="FILE", type=Path, help="the caller's certificate (default: the node's own)"
    )
    parser.add_argument("--key", metavar="FILE", type=Path, help="the key of --certificate")


def show_status(args: argparse.Namespace) -> int:
    """Print the status of a running node."""
    from openqci.services.kme_config_file import load_config
    from openqci.services.operator_client import OperatorClient

    status = OperatorClient(load_config(args.config), args.certificate, args.key).get("/status")
    print(json.dumps(status, indent=2) if args.json else "\n".join(status_lines(status)))
    return 0


def status_lines(status: dict[str, Any]) -> list[str]:
    """Return a node's status as a page of text."""
    lines = [
        f"{status['kme_id']}  {status['mode']}  up {status['uptime_s']:.0f} s  "
        f"{status['keys_delivered']} keys delivered  version {status['version']}"
    ]
    lines += [f"ALARM  {alarm['code']} {alarm['subject']}: {alarm['reason']}" for alarm in status["alarms"]]
    lines += [
        f"worker {worker['worker']:<20} "
        + (f"process {worker['pid']}, {worker['answers']} answers" if worker["serving"] else "does not serve")
        for worker in status["workers"]
    ]
    lines += [f"peer   {peer['kme_id']:20} {'met' if peer['met'] else 'not met'}" for peer in status["peers"]]
    lines += [
        f"link   {link['link']:20} {link['own_bytes']:>12} bytes to lead, {link['peer_bytes']} to follow"
        for link in status["links"]
    ]
    pairs = sorted(status["pairs"], key=lambda pair: pair["stock_bytes"] / max(1, pair["low_bytes"]))
    lines += [
        f"pair   {pair['master']} > {'+'.join(pair['slaves'])}: {pair['stock_bytes'] // 32} keys of 256 bits"
        for pair in pairs[:SHOWN_PAIRS]
    ]
    if len(pairs) > SHOWN_PAIRS:
        lines.append(f"       and {len(pairs) - SHOWN_PAIRS} pairs with more")
    borders = status["borders"] or {"partners": [], "remote_pairs": []}
    lines += [
        f"border {partner['partner']:20} {partner['domain']}: {partner['pending_in']} keys on their way in, "
        f"{partner['due']} things to tell"
        for partner in borders["partners"]
    ]
    lines += [
        f"far    {pair['master']} > {'+'.join(pair['slaves'])} in {pair['domain']}: "
        f"{pair['stock_bytes'] // 32} keys of 256 bits, {pair['coming_bytes'] // 32} on their way"
        for pair in borders["remote_pairs"][:SHOWN_PAIRS]
    ]
    return lines


def renew_keys(args: argparse.Namespace) -> int:
    """Have a running node renew its root keys and its key-encryption key."""
    from openqci.services.kme_config_file import load_config
    from openqci.services.operator_client import OperatorClient

    loaded = load_config(args.config)
    number = OperatorClient(loaded, args.certificate, args.key).renew()
    print(f"{loaded.kme_id}: root key {number} is in use; what was spent before opens to nobody")
    return 0


def zeroise_node(args: argparse.Namespace) -> int:
    """Destroy all key: through the running node, or in the state folder of one that rests."""
    from openqci.core.errors import ConfigurationError
    from openqci.services.kme_config_file import load_config
    from openqci.services.operator_client import NodeUnreachable, OperatorClient
    from openqci.services.state_folder import StateFolder

    loaded = load_config(args.config)
    if not args.yes and not _confirmed(loaded.kme_id):
        print("openqci: nothing was destroyed", file=sys.stderr)
        return 1
    try:
        OperatorClient(loaded, args.certificate, args.key).zeroise()
    except (NodeUnreachable, ConfigurationError):
        # Nobody answers, or cannot be asked: the state folder's lock tells whether the node truly rests.
        folder = StateFolder.open(loaded)
        try:
            folder.zeroise()
        finally:
            folder.close()
    print(f"{loaded.kme_id}: all key is destroyed")
    return 0


def _confirmed(kme_id: str) -> bool:
    if not sys.stdin.isatty():
        return False
    return input(f"Destroys all key of {kme_id}, for good. Type its KME ID to go on: ").strip() == kme_id
