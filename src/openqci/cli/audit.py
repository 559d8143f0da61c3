"""``openqci audit``: whether a node's audit log is whole, and what it says."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openqci.services.audit import Entry


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register ``openqci audit``."""
    parser = subparsers.add_parser("audit", help="verify and read the audit log of a node")
    commands = parser.add_subparsers(dest="audit_command", metavar="COMMAND", required=True)
    verify = commands.add_parser("verify", help="follow the chain of hashes from the first line to the last")
    verify.add_argument(
        "folder", metavar="FOLDER", type=Path, help="the log's folder: audit in the state folder"
    )
    verify.add_argument("--head", metavar="HASH", help="a hash noted earlier, which must be in the log")
    verify.add_argument("--json", action="store_true", help="print one JSON document")
    verify.set_defaults(run=verify_log)
    show = commands.add_parser("show", help="print entries, one a line")
    show.add_argument("folder", metavar="FOLDER", type=Path, help="the log's folder")
    show.add_argument("--event", metavar="NAME", help="only this event, such as keys-delivered")
    show.add_argument("--actor", metavar="ID", help="only what this SAE, KME or officer caused")
    show.add_argument("--key-id", metavar="ID", help="only what names this key")
    show.add_argument("--since", metavar="TIME", help="only from this time on, such as 2026-11-23T10:00")
    show.add_argument("--json", action="store_true", help="print the entries as they stand in the log")
    show.set_defaults(run=show_entries)


def verify_log(args: argparse.Namespace) -> int:
    """Print whether the chain is whole; 1 if it is not."""
    from openqci.services.audit import verify

    verdict = verify(args.folder, args.head)
    if args.json:
        document = {
            "good": not verdict.fault,
            "lines": verdict.lines,
            "files": verdict.files,
            "head": {"number": verdict.head.number, "hash": verdict.head.hash},
            "fault": verdict.fault,
        }
        print(json.dumps(document, indent=2))
    elif verdict.fault:
        print(f"BROKEN after {verdict.lines} entries: {verdict.fault}")
    else:
        print(f"whole: {verdict.lines} entries in {verdict.files} files, head {verdict.head.hash}")
    return int(bool(verdict.fault))


def show_entries(args: argparse.Namespace) -> int:
    """Print the entries that the filters leave."""
    from openqci.services.audit import entries

    for entry in entries(args.folder):
        if _wanted(entry, args):
            print(_line(entry, args.json))
    return 0


def _wanted(entry: "Entry", args: argparse.Namespace) -> bool:
    return (
        args.event in (None, entry.event)
        and args.actor in (None, entry.actor)
        and (args.since is None or entry.at >= args.since)
        and (args.key_id is None or args.key_id.lower() in entry.facts.get("key_ids", ()))
    )


def _line(entry: "Entry", as_json: bool) -> str:
    if as_json:
        import msgspec

        return msgspec.json.encode(entry).decode()
    facts = " ".join(f"{name}={value}" for name, value in entry.facts.items())
    who = f" {entry.role} {entry.actor}" if entry.actor else ""
    return f"{entry.number} {entry.at} {entry.event}{who} {facts}".rstrip()
