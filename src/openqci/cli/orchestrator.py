"""``openqci orchestrator``: the European orchestrator, from the command line."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from openqci.cli.keyless import add_caller, add_run, named_client, run_daemon
from openqci.core.errors import ConfigurationError, Fault

if TYPE_CHECKING:
    from openqci.services.operator_client import NamedClient

FILE = "orchestrator.toml"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register ``openqci orchestrator``."""
    parser = subparsers.add_parser("orchestrator", help="ways over domains, from what the domains offer")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    init = verbs.add_parser("init", help="make the folder of a new orchestrator")
    init.add_argument("folder", metavar="FOLDER", type=Path, help="for orchestrator.toml, tls and state")
    init.add_argument(
        "--authority", metavar="DIR", type=Path, required=True, help="who issues its certificate"
    )
    init.add_argument("--name", metavar="NAME", default="orchestrator", help="its name in certificates")
    init.add_argument(
        "--host", metavar="HOST", action="append", default=[], help="name or address of it; repeatable"
    )
    init.add_argument("--listen", metavar="HOST:PORT", default="0.0.0.0:8743", help="where domains call it")
    init.add_argument(
        "--domain",
        metavar="ID=AUTHORITY,SIGNER",
        action="append",
        default=[],
        help="a domain that takes part: who issues its controller's certificate, and that certificate; "
        "repeatable",
    )
    init.set_defaults(run=init_orchestrator)
    run = verbs.add_parser("run", help="run an orchestrator until SIGTERM or Ctrl-C")
    add_run(run, FILE)
    run.set_defaults(run=run_orchestrator)
    status = verbs.add_parser("status", help="offers and borders as a running orchestrator has them")
    add_caller(status, FILE)
    status.add_argument("--json", action="store_true", help="print one JSON document")
    status.set_defaults(run=show_status)
    route = verbs.add_parser("route", help="ways between two domains, or the domains of two applications")
    add_caller(route, FILE)
    route.add_argument("--json", action="store_true", help="print one JSON document")
    route.add_argument("--from", dest="source", metavar="NAME", required=True, help="domain or application")
    route.add_argument("--to", dest="target", metavar="NAME", required=True, help="domain or application")
    route.add_argument(
        "--paths", metavar="K", type=int, default=1, help="ways that share no domain (default 1)"
    )
    route.add_argument(
        "--avoid",
        metavar="WISH",
        action="append",
        default=[],
        help="a domain, country:XX or operator:NAME; repeatable",
    )
    route.add_argument(
        "--trust", metavar="N", type=int, default=0, help="least trust class of what is crossed"
    )
    route.set_defaults(run=show_ways)


def init_orchestrator(args: argparse.Namespace) -> int:
    """Write configuration and credentials; nothing that is there is overwritten."""
    from openqci.services.data_directory import unusable_named
    from openqci.services.orchestrator_app import load_orchestrator
    from openqci.services.pki import CertificateAuthority, write_credentials
    from openqci.services.roles import Role

    file = args.folder / "orchestrator.toml"
    if file.exists():
        raise ConfigurationError(Fault(str(file), "", "is there already; edit it, or choose another folder"))
    authority = CertificateAuthority.open(args.authority)
    domains = "".join(map(_domain_text, args.domain))
    with unusable_named(args.folder):
        args.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        hosts = [args.name, *(args.host or ["localhost", "127.0.0.1"])]
        issued = authority.issue_server(Role.ORCHESTRATOR, args.name, hosts)
        write_credentials(args.folder / "tls", issued, authority)
        file.write_text(
            f"""version = 1

[orchestrator]
name = {json.dumps(args.name)}
state_dir = "state"

[tls]
certificate = "tls/cert.pem"
key = "tls/key.pem"
authority = "tls/ca.pem"

[listen]
domains = {json.dumps(args.listen)}
{domains}"""
        )
    load_orchestrator(file).keys()
    print(f"{file}\nnext: openqci orchestrator run --config {file}")
    return 0


def _domain_text(given: str) -> str:
    """Return the section of a domain; its files are named from where the command runs."""
    domain, _, files = given.partition("=")
    authority, comma, signer = files.partition(",")
    if not (domain and authority and comma and signer):
        raise ConfigurationError(f"--domain {given}: expected ID=AUTHORITY,SIGNER, both PEM files")
    paths = [json.dumps(str(Path(name).absolute())) for name in (authority, signer)]
    return f"\n[[domain]]\nid = {json.dumps(domain)}\nauthority = {paths[0]}\nsigner = {paths[1]}\n"


def run_orchestrator(args: argparse.Namespace) -> int:
    """Run the orchestrator that the configuration describes."""
    from openqci.services.orchestrator_app import OrchestratorApp, load_orchestrator

    loaded = load_orchestrator(args.config)
    return run_daemon(lambda: OrchestratorApp(loaded), args.verbose)


def show_status(args: argparse.Namespace) -> int:
    """Print what a running orchestrator knows."""
    from openqci.services.orchestrator_app import STATUS_PATH

    status = _client(args).get(STATUS_PATH)
    print(json.dumps(status, indent=2) if args.json else "\n".join(status_lines(status)))
    return 0


def status_lines(status: dict[str, Any]) -> list[str]:
    """Return an orchestrator's status as a page of text."""
    lines = [f"{status['name']}  version {status['version']}"]
    for domain in status["domains"]:
        offer = domain["offer"]
        said = (
            f"offers {offer.get('transit_bps', 0.0):,.0f} bit/s of transit, trust {offer.get('trust', 0)}, "
            f"{domain['saes']} applications, heard {domain['heard_s_ago']} s ago"
            if offer
            else "no offer that holds"
        )
        lines.append(f"domain {domain['domain']:12} {domain['refused'] or said}")
    lines += [
        f"border {' | '.join(border['domains']):12} {border['rate_bps']:>12,.0f} bit/s"
        for border in status["borders"]
    ]
    return lines


def show_ways(args: argparse.Namespace) -> int:
    """Print ways over domains, and why others are not crossed; 1 if there are fewer than were asked for."""
    from openqci.services.orchestrator_app import WAYS_PATH

    asked = [("from", args.source), ("to", args.target), ("paths", args.paths), ("trust", args.trust)]
    query = urlencode([*asked, *(("avoid", wish) for wish in args.avoid)])
    answer = _client(args).get(f"{WAYS_PATH}?{query}")
    print(json.dumps(answer, indent=2) if args.json else "\n".join(way_lines(answer)))
    return 0 if len(answer["ways"]) >= args.paths else 1


def way_lines(answer: dict[str, Any]) -> list[str]:
    """Return ways as a page of text."""
    lines = [
        f"{' > '.join(way['domains'])}  {way['rate_bps']:,.0f} bit/s  trust {way['trust']}  "
        f"epsilon {way['epsilon']:.1e}  {way['price_eur_per_mib']:.2f} EUR/MiB"
        for way in answer["ways"]
    ]
    if not lines:
        lines = [f"no way from {answer['from']} to {answer['to']}"]
    return lines + [f"not {domain}: {reason}" for domain, reason in answer["refused"].items()]


def _client(args: argparse.Namespace) -> "NamedClient":
    from openqci.services.orchestrator_app import load_orchestrator

    loaded = load_orchestrator(args.config)
    config = loaded.config
    return named_client(args, loaded.tls_files(), config.orchestrator.name, config.listen.domains)
