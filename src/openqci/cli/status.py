"""``openqci status``: every hop, domain and total, from the running network or, when it rests, its store."""

import argparse
import json
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

ROWS_SHOWN = 20
ANSWER_WAIT_S = 10


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register ``openqci status``."""
    parser = subparsers.add_parser("status", help="show every hop, domain and total of a network")
    parser.add_argument("--data-dir", type=Path, required=True, help="the network's data directory")
    parser.add_argument("--json", action="store_true", help="print everything as one JSON document")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the status; 0 whether the network runs or not."""
    report = running_status(args.data_dir) or resting_status(args.data_dir)
    print(json.dumps(report, indent=2) if args.json else as_text(report))
    return 0


def running_status(data_dir: Path) -> dict[str, Any] | None:
    """Ask the running network's console; None if there is none."""
    from openqci.services.data_directory import DataDirectory

    address_file = DataDirectory.open_existing(data_dir).kmes_file
    if not address_file.exists():
        return None
    console_url = json.loads(address_file.read_text())["console_url"]
    # The console is on this machine: no proxy of the environment stands between.
    direct = build_opener(ProxyHandler({}))
    try:
        with direct.open(f"{console_url.rstrip('/')}/api/status", timeout=ANSWER_WAIT_S) as answer:
            report: dict[str, Any] = json.load(answer)
    except (URLError, OSError, ValueError):
        return None
    # Another network may have taken the port since this one stopped.
    return report if report.get("data_dir") == str(data_dir.resolve()) else None


def resting_status(data_dir: Path) -> dict[str, Any]:
    """Read the figures of a network that does not run from its store."""
    from openqci.cli.up.resting import status_of_store

    return status_of_store(data_dir)


def as_text(report: dict[str, Any]) -> str:
    """Return the status as a page of text: totals, domains, and the hops with the least stock."""
    totals = report["totals"]
    lines = [
        f"{report['scenario']}: {'running' if report['running'] else 'not running'}, "
        f"{totals['nodes']} nodes, {totals['hops']} hops, {totals['hops_with_key']} with key in stock",
        f"secret bits distilled {totals['secret_bits_total']:,}, in stock {totals['stock_bits']:,}; "
        f"distilling {totals['distilled_bps']:,.0f} of {totals['possible_bps']:,.0f} possible bit/s",
        "",
        f"{'domain':8}{'nodes':>7}{'hops':>7}{'stock bits':>15}{'distilled bits':>17}",
    ]
    lines += [
        f"{row['domain']:8}{row['nodes']:7}{row['hops']:7}{row['stock_bits']:15,}{row['secret_bits_total']:17,}"
        for row in report["domains"]
    ]
    lines += ["", f"{'hops with the least stock':44}{'km':>7}{'dB':>6}{'QBER':>8}{'stock bits':>13}  state"]
    poorest = sorted(report["hops"], key=lambda hop: (hop["stock_bits"], hop["link_id"]))[:ROWS_SHOWN]
    return "\n".join(lines + [hop_line(hop) for hop in poorest])


def hop_line(hop: dict[str, Any]) -> str:
    """Return a hop's line of the page."""
    qber = "-" if hop["qber"] is None else f"{hop['qber']:.2%}"
    figures = f"{hop['length_km']:7.1f}{hop['loss_db']:6.1f}{qber:>8}{hop['stock_bits']:13,}"
    return f"{hop['link_id'][:43]:44}{figures}  {hop['state']}"
