"""``openqci alarm``: the alarms of a network, and the security officer's word on a link under suspicion."""

import argparse
import json
from pathlib import Path
from typing import Any

from openqci.cli.status import running_status
from openqci.core.errors import ConfigurationError


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register ``openqci alarm`` with its verbs."""
    parser = subparsers.add_parser("alarm", help="show alarms of a network, and lift a suspicion")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    listing = verbs.add_parser("list", help="show the alarms that stand")
    listing.add_argument("--data-dir", type=Path, required=True, help="the network's data directory")
    listing.add_argument("--json", action="store_true", help="print one JSON document")
    listing.set_defaults(run=list_alarms)
    lift = verbs.add_parser("lift", help="rule on a link under suspicion")
    lift.add_argument("--data-dir", type=Path, required=True, help="the network's data directory")
    lift.add_argument("--link", required=True, help="the link under suspicion")
    lift.add_argument("--officer", required=True, metavar="NAME", help="who rules; goes into the log")
    verdict = lift.add_mutually_exclusive_group(required=True)
    verdict.add_argument(
        "--release", dest="verdict", action="store_const", const="release", help="what is held may be used"
    )
    verdict.add_argument(
        "--destroy", dest="verdict", action="store_const", const="destroy", help="destroy what is held"
    )
    lift.set_defaults(run=lift_suspicion)


def list_alarms(args: argparse.Namespace) -> int:
    """Print the alarms; 1 if one stands."""
    report = running_status(args.data_dir)
    alarms = report["alarms"] if report is not None else alarms_at_rest(args.data_dir)
    print(json.dumps(alarms, indent=2) if args.json else as_text(alarms))
    return 1 if alarms else 0


def lift_suspicion(args: argparse.Namespace) -> int:
    """Leave a ruling for the network, and say what will come of it."""
    batches = rule(args.data_dir, args.link, args.officer, args.verdict)
    running = running_status(args.data_dir) is not None
    when = "within seconds" if running else "at the next start"
    print(f"{args.link}: {args.verdict} its stock and {batches} batches, by {args.officer}; done {when}")
    return 0


def rule(data_dir: Path, link: str, officer: str, verdict: str) -> int:
    """Leave a ruling for the network, which takes it within seconds, or at its next start.

    Return how many batches it is about; ConfigurationError if the link is under no suspicion.
    """
    from openqci.cli.up.commission import open_store
    from openqci.cli.up.reacting import leave_ruling, suspicions_of
    from openqci.control.reaction import Ruling
    from openqci.core.identifiers import LinkId
    from openqci.services.data_directory import DataDirectory

    store = open_store(DataDirectory.open_existing(data_dir))
    try:
        held = {each.link_id: each for each in store.submit(suspicions_of).result()}
        if link not in held:
            named = f"; under suspicion: {', '.join(sorted(held))}" if held else "; no link is"
            raise ConfigurationError(f"link {link!r} is under no suspicion{named}")
        ruling = Ruling(LinkId(link), officer, verdict, 0.0)
        store.submit(lambda transaction: leave_ruling(transaction, ruling)).result()
    finally:
        store.close()
    return len(held[LinkId(link)].batches)


def alarms_at_rest(data_dir: Path) -> list[dict[str, Any]]:
    """Return the suspicions that a network at rest has in its store: other alarms begin anew with a start."""
    from openqci.cli.up.commission import open_store
    from openqci.cli.up.reacting import suspicions_of
    from openqci.control.reaction import EAVESDROPPING
    from openqci.services.data_directory import DataDirectory

    store = open_store(DataDirectory.open_existing(data_dir))
    try:
        held = store.submit(suspicions_of).result()
    finally:
        store.close()
    return [
        {
            "code": EAVESDROPPING,
            "severity": "critical",
            "link_id": each.link_id,
            "reason": each.reason,
            "since_s": each.since_s,
        }
        for each in held
    ]


def as_text(alarms: list[dict[str, Any]]) -> str:
    """Return one line for each alarm."""
    if not alarms:
        return "no alarm stands"
    return "\n".join(
        f"{alarm['severity']:9}{alarm['code']:15}{alarm['link_id']}: {alarm['reason']} "
        f"(since second {alarm['since_s']:.0f} of the network)"
        for alarm in alarms
    )
