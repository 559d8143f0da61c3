"""``openqci federation``: the account of what crossed a node's borders, and two accounts side by side."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openqci.delivery.border_account import BorderEntry


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register ``openqci federation`` with its verbs."""
    parser = subparsers.add_parser("federation", help="accounts of what crossed the borders of a network")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    account = verbs.add_parser("account", help="what crossed the borders of a running node")
    account.add_argument("--config", metavar="FILE", type=Path, default=Path("kme.toml"), help="its kme.toml")
    account.add_argument(
        "--certificate", metavar="FILE", type=Path, help="the caller's certificate (default: the node's own)"
    )
    account.add_argument("--key", metavar="FILE", type=Path, help="the key of --certificate")
    account.add_argument("--json", action="store_true", help="print every line, and the sums")
    account.set_defaults(run=show_account)
    reconcile = verbs.add_parser("reconcile", help="lay the accounts of two partners side by side")
    reconcile.add_argument("ours", metavar="OURS", type=Path, help="an account as --json prints it")
    reconcile.add_argument("theirs", metavar="THEIRS", type=Path, help="the partner's")
    reconcile.add_argument("--json", action="store_true", help="print one JSON document")
    reconcile.set_defaults(run=reconcile_accounts)


def show_account(args: argparse.Namespace) -> int:
    """Print the account of a running node, which is checked line by line on the way."""
    from openqci.services.kme_config_file import load_config
    from openqci.services.operator_client import OperatorClient

    client = OperatorClient(load_config(args.config), args.certificate, args.key)
    lines: list[dict[str, Any]] = []
    while True:
        after = lines[-1]["number"] if lines else 0
        document = client.get(f"/account?after={after}")
        lines += document["entries"]
        if not document["entries"] or document["entries"][-1]["number"] >= document["head"]["number"]:
            break
    document["entries"] = lines
    check(lines)
    print(json.dumps(document, indent=2) if args.json else "\n".join(sum_lines(document)))
    return 0


def sum_lines(document: dict[str, Any]) -> list[str]:
    """Return the sums of an account as a page of text."""
    head = document["head"]
    lines = [f"{document['kme_id']}  {head['number'] if head else 0} lines, chained"]
    for each in document["sums"]:
        way = "from" if each["direction"] == "in" else "to"
        price = f"  {each['price_eur']:.2f} EUR" if each["price_eur"] else ""
        lines.append(
            f"{way:4} {each['domain']:12} {each['partner']:20} {each['keys']:>9,} keys "
            f"{each['key_bytes']:>14,} bytes  {each['failed']} failed, {each['voided']} voided  "
            f"{each['agreement'] or 'no agreement'}{price}"
        )
    return lines


def reconcile_accounts(args: argparse.Namespace) -> int:
    """Print on which keys two accounts differ; 1 if there are any."""
    import msgspec

    from openqci.control.agreements import reconcile
    from openqci.core.identifiers import KmeId

    (here, ours), (there, theirs) = read(args.ours), read(args.theirs)
    found = reconcile(KmeId(here), ours, KmeId(there), theirs)
    if args.json:
        print(json.dumps([msgspec.to_builtins(each) for each in found], indent=2))
    else:
        for each in found:
            print(f"{each.key_id}  {each.cause}: {each.here or 'nothing'} | {each.there or 'nothing'}")
        print(f"{here} and {there}: {len(found)} differences")
    return 1 if found else 0


def read(file: Path) -> "tuple[str, list[BorderEntry]]":
    """Read an account that ``account --json`` has printed; its chain is checked."""
    from openqci.core.errors import ConfigurationError, Fault

    try:
        document = json.loads(file.read_text("utf-8"))
        kme, lines = str(document["kme_id"]), list(document["entries"])
    except OSError as error:
        raise ConfigurationError(Fault(str(file), "", f"cannot be read ({error.strerror})")) from None
    except (ValueError, KeyError, TypeError):
        text = "is no account; expected what `openqci federation account --json` prints"
        raise ConfigurationError(Fault(str(file), "", text)) from None
    return kme, check(lines, str(file))


def check(lines: list[dict[str, Any]], place: str = "account") -> "list[BorderEntry]":
    """Return the lines of an account; ConfigurationError if they are none or do not follow each other."""
    import msgspec

    from openqci.control.agreements import check_chain
    from openqci.core.errors import ConfigurationError, Fault, PeerMisbehaved
    from openqci.delivery.border_account import BorderEntry

    try:
        entries = msgspec.convert(lines, list[BorderEntry])
        check_chain(entries)
    except (msgspec.ValidationError, PeerMisbehaved) as error:
        raise ConfigurationError(Fault(place, "entries", str(error))) from None
    return entries
