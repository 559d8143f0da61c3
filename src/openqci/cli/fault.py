"""``openqci fault``: breaks a running network on purpose, by hand or by a script, and mends it again.

Who may do that is who may open the network's store, as with ``openqci alarm lift``. Everything it does is
written into the audit log under the name of the account.
"""

import argparse
import getpass
import json
from pathlib import Path
from typing import Any

from openqci.cli.fault_desk import ask_network, running_report
from openqci.core.errors import ConfigurationError, Fault

TARGETS = {
    "cut": ("LINK|HOP", "cut the fibre of a hop, or of a link with all its hops; or a border"),
    "stop": ("NODE", "stop a node: its KME answers nothing, its hops make no key"),
    "qber": ("HOP", "put an eavesdropper on a hop, who measures photons and sends others"),
    "isolate": ("DOMAIN", "shut every border and hop that joins a domain with others"),
    "flood": ("SAE", "flood a KME with requests from an application's certificate"),
}
ADDED_QBER = 0.12


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register ``openqci fault`` with its verbs."""
    parser = subparsers.add_parser("fault", help="break a running network on purpose, and mend it")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for kind, (target, purpose) in TARGETS.items():
        verb = verbs.add_parser(kind, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.")
        verb.add_argument("target", metavar=target, help="what is concerned")
        verb.add_argument("--for", dest="for_s", type=float, metavar="SECONDS", help="end it by itself after")
        if kind == "qber":
            verb.add_argument(
                "--add",
                type=float,
                default=ADDED_QBER,
                metavar="RATE",
                help=f"how much the error rate rises (default: {ADDED_QBER:g})",
            )
        verb.set_defaults(run=inject)
        _common(verb)
    listing = verbs.add_parser("list", help="show the faults that stand")
    listing.set_defaults(run=list_faults)
    _common(listing)
    clear = verbs.add_parser("clear", help="end a fault, or all")
    clear.add_argument("fault_id", metavar="ID", nargs="?", default="", help="which (default: all)")
    clear.set_defaults(run=clear_faults)
    _common(clear)
    play = verbs.add_parser("play", help="play a script of timed faults")
    play.add_argument("script", metavar="FILE|NAME", help="a YAML file, or the name of a shipped script")
    play.set_defaults(run=play_script)
    _common(play)
    scripts = verbs.add_parser("scripts", help="list the scripts that are shipped")
    scripts.set_defaults(run=list_scripts)
    schema = verbs.add_parser("schema", help="print the JSON Schema of a script")
    schema.set_defaults(run=print_schema)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", type=Path, required=True, help="the network's data directory")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def inject(args: argparse.Namespace) -> int:
    """Let one fault begin; 2 if it cannot be."""
    from openqci.cli.up.fault_orders import Inject
    from openqci.twin.faults import FaultKind, FaultOrder

    kind = FaultKind(args.verb)
    added = args.add if kind is FaultKind.QBER else None
    order = FaultOrder(kind, args.target, account(), args.for_s, added)
    answer = ask_network(args.data_dir, Inject(order))
    (fault_id,) = answer.fault_ids
    if args.json:
        print(json.dumps({"fault_id": fault_id, "notes": answer.notes}, indent=2))
    else:
        end = f"openqci fault clear {fault_id} --data-dir {args.data_dir}"
        ends = f"; it ends by itself after {args.for_s:g} s" if args.for_s else f"; it stands until `{end}`"
        print(f"{fault_id}: {args.verb} {args.target}{ends}")
        for note in answer.notes:
            print(f"  {note}")
    return 0


def clear_faults(args: argparse.Namespace) -> int:
    """End one fault or all."""
    from openqci.cli.up.fault_orders import Clear

    answer = ask_network(args.data_dir, Clear(account(), args.fault_id))
    if args.json:
        print(json.dumps({"cleared": answer.fault_ids}, indent=2))
    else:
        print(f"cleared: {', '.join(answer.fault_ids)}" if answer.fault_ids else "no fault stands")
    return 0


def list_faults(args: argparse.Namespace) -> int:
    """Print the faults that stand; 0 whether there are any or not."""
    faults = running_report(args.data_dir)["faults"]
    print(json.dumps(faults, indent=2) if args.json else as_text(faults))
    return 0


def list_scripts(args: argparse.Namespace) -> int:
    """Print name, scenario and title of each shipped script."""
    from openqci.cli.fault_script import read_script, script_names

    for name in script_names():
        script = read_script(name)
        print(f"{name:12}{script.scenario:8}{script.title}")
    return 0


def print_schema(args: argparse.Namespace) -> int:
    """Print the published schema of scripts."""
    from openqci.cli.fault_script import script_schema

    print(json.dumps(script_schema(), indent=2, ensure_ascii=False))
    return 0


def play_script(args: argparse.Namespace) -> int:
    """Play a script to its end; 1 if something that it waits for did not come about."""
    from openqci.cli.fault_play import Player
    from openqci.cli.fault_script import read_script

    script = read_script(args.script)
    report = running_report(args.data_dir)
    if script.scenario and script.scenario != report["scenario"]:
        raise ConfigurationError(
            Fault(args.script, "scenario", f"is for {script.scenario}; this network is {report['scenario']}")
        )
    return Player(script, args.data_dir, account(), as_json=args.json).play()


def account() -> str:
    """Return the name of the account that this runs under, for the audit log."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def as_text(faults: list[dict[str, Any]]) -> str:
    """Return one line for each fault."""
    if not faults:
        return "no fault stands"
    return "\n".join(line(fault) for fault in faults)


def line(fault: dict[str, Any]) -> str:
    """Return the line of one fault."""
    until = f" until second {fault['until_s']:.0f}" if fault["until_s"] is not None else ""
    counts = ", ".join(f"{count} {name}" for name, count in fault["counts"].items())
    since = f"since second {fault['since_s']:.0f}{until} of the network, by {fault['by']}"
    return f"{fault['fault_id']:5}{fault['words']} ({since}{'; ' + counts if counts else ''})"
