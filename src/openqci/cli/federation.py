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
    account = verbs.add_parser(
        "account", help="what crossed the borders of a node, or of a whole network here"
    )
    account.add_argument(
        "--data-dir",
        metavar="DIR",
        type=Path,
        help="a network of openqci up, running or not, in place of a node",
    )
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
    if args.data_dir is not None:
        return show_crossings(args.data_dir, as_json=args.json)
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


def show_crossings(data_dir: Path, *, as_json: bool) -> int:
    """Print what crossed the borders of a network on this machine, by both sides; 1 if they differ."""
    rows = crossings_of(data_dir)
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        for row in rows:
            differs = "  THE OTHER SIDE HAS COUNTED OTHERWISE" if row["differs"] else ""
            way = f"{row['from_domain']} > {row['to_domain']}"
            crossed = f"{row['shares']:>9,} shares {row['key_bytes']:>14,} bytes"
            print(f"{way:10} {row['border']:60} {crossed}{differs}")
        print(f"{sum(row['shares'] for row in rows):,} shares of keys have crossed borders")
    return 1 if any(row["differs"] for row in rows) else 0


def crossings_of(data_dir: Path) -> list[dict[str, Any]]:
    """Return a row for each border and direction, with what either side has counted."""
    from openqci.cli.up.commission import open_store
    from openqci.core.identifiers import kme_of_site
    from openqci.delivery.border_account import crossed
    from openqci.keystore.ports import KmeView, StoreTransaction
    from openqci.network import load_scenario
    from openqci.services.data_directory import DataDirectory
    from openqci.twin.flights import flown

    directory = DataDirectory.open_existing(data_dir)
    network, _ = flown(load_scenario(directory.scenario))
    nodes = sorted({site for border in network.borders for site in (border.node, border.partner)})

    def work(transaction: StoreTransaction) -> dict[tuple[str, str, str], tuple[int, int]]:
        return {
            (kme, each.partner, each.direction): (each.shares, each.key_bytes)
            for kme in map(kme_of_site, nodes)
            for each in crossed(KmeView(transaction, kme))
        }

    store = open_store(directory)
    try:
        counted = store.submit(work).result()
    finally:
        store.close()
    rows = []
    for border in network.borders:
        for near, far in ((border.node, border.partner), (border.partner, border.node)):
            here, there = kme_of_site(near), kme_of_site(far)
            out = counted.get((here, there, "out"), (0, 0))
            into = counted.get((there, here, "in"), (0, 0))
            rows.append(
                {
                    "border": border.link_id,
                    "from_domain": network.sites[near].domain,
                    "to_domain": network.sites[far].domain,
                    "shares": out[0],
                    "key_bytes": out[1],
                    "shares_counted_there": into[0],
                    "key_bytes_counted_there": into[1],
                    "differs": out != into,
                }
            )
    return rows


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
