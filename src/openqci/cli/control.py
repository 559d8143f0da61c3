"""``openqci control``: the controller of a domain, and what it signs."""

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import yaml

from openqci.cli.keyless import add_caller, add_run, named_client, run_daemon
from openqci.core.errors import ConfigurationError, Fault

if TYPE_CHECKING:
    from openqci.services.operator_client import NamedClient

FILE = "control.toml"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register ``openqci control``."""
    parser = subparsers.add_parser("control", help="run the controller of a domain")
    commands = parser.add_subparsers(dest="control_command", metavar="COMMAND", required=True)
    init = commands.add_parser("init", help="make the folder of a new controller")
    init.add_argument("folder", metavar="FOLDER", type=Path, help="for control.toml, domain.yaml, tls, state")
    init.add_argument("--domain", metavar="ID", required=True, help="name of the domain")
    init.add_argument(
        "--authority", metavar="DIR", type=Path, required=True, help="who issues its certificate"
    )
    init.add_argument(
        "--host", metavar="HOST", action="append", default=[], help="name or address of it; repeatable"
    )
    init.add_argument("--listen", metavar="HOST:PORT", default="0.0.0.0:8643", help="where nodes call it")
    init.set_defaults(run=init_controller)
    run = commands.add_parser("run", help="run a controller until SIGTERM or Ctrl-C")
    add_run(run, FILE)
    run.set_defaults(run=run_controller)
    status = commands.add_parser("status", help="nodes, links and alarms as a running controller sees them")
    add_caller(status, FILE)
    status.add_argument("--json", action="store_true", help="print one JSON document")
    status.set_defaults(run=show_status)
    topology = commands.add_parser("topology", help="a domain's nodes and links, by RFC 8345")
    add_caller(topology, FILE)
    topology.set_defaults(run=show_topology)
    for verb, purpose in (("close", "take a link out of use"), ("open", "let a closed link be used again")):
        act = commands.add_parser(verb, help=f"{purpose}, in the whole domain")
        act.add_argument("link", metavar="LINK", help="ID of the link")
        add_caller(act, FILE)
        if verb == "close":
            act.add_argument("--reason", metavar="TEXT", default="", help="why, for the alarm")
        act.set_defaults(run=change_link)
    sign = commands.add_parser("sign", help="sign a domain's configuration for its nodes")
    sign.add_argument("file", metavar="FILE", type=Path, help="the configuration, YAML or JSON")
    sign.add_argument("--key", metavar="FILE", type=Path, required=True, help="the controller's key (PEM)")
    sign.add_argument("--out", metavar="FILE", type=Path, required=True, help="for the signed document")
    sign.set_defaults(run=sign_configuration)
    show = commands.add_parser("show", help="check a signed configuration and print it as JSON")
    show.add_argument("file", metavar="FILE", type=Path, help="the signed document")
    show.add_argument(
        "--signer", metavar="FILE", type=Path, required=True, help="the controller's certificate"
    )
    show.set_defaults(run=show_configuration)


def init_controller(args: argparse.Namespace) -> int:
    """Write configuration, an empty domain file and credentials; nothing that is there is overwritten."""
    from openqci.services.controller_app import load_controller
    from openqci.services.data_directory import unusable_named
    from openqci.services.pki import CertificateAuthority, write_credentials
    from openqci.services.roles import Role

    file = args.folder / "control.toml"
    if file.exists():
        raise ConfigurationError(Fault(str(file), "", "is there already; edit it, or choose another folder"))
    name = f"control-{args.domain.lower()}"
    authority = CertificateAuthority.open(args.authority)
    with unusable_named(args.folder):
        args.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        hosts = [name, *(args.host or ["localhost", "127.0.0.1"])]
        write_credentials(
            args.folder / "tls", authority.issue_server(Role.CONTROLLER, name, hosts), authority
        )
        if not (args.folder / "domain.yaml").exists():
            (args.folder / "domain.yaml").write_text(
                f"domain: {args.domain}\nnodes: []\nlinks: []\npairs: []\n"
            )
        file.write_text(
            f"""version = 1

[controller]
name = {json.dumps(name)}
domain_file = "domain.yaml"
state_dir = "state"

[tls]
certificate = "tls/cert.pem"
key = "tls/key.pem"
authority = "tls/ca.pem"

[listen]
nodes = {json.dumps(args.listen)}
"""
        )
    load_controller(file)
    print(f"{file}\nnext: lay down nodes and links in {args.folder / 'domain.yaml'}")
    print(f"then: openqci control run --config {file}")
    return 0


def run_controller(args: argparse.Namespace) -> int:
    """Run the controller that the configuration describes."""
    from openqci.services.controller_app import ControllerApp, load_controller

    loaded = load_controller(args.config)
    return run_daemon(lambda: ControllerApp(loaded), args.verbose, reload=ControllerApp.reload)


def show_status(args: argparse.Namespace) -> int:
    """Print what a running controller knows."""
    from openqci.services.controller_app import STATUS_PATH

    status = _client(args).get(STATUS_PATH)
    print(json.dumps(status, indent=2) if args.json else "\n".join(status_lines(status)))
    return 0


def show_topology(args: argparse.Namespace) -> int:
    """Print the topology that a running controller has signed last."""
    from openqci.services.controller_app import TOPOLOGY_PATH

    print(json.dumps(_client(args).get(TOPOLOGY_PATH), indent=2))
    return 0


def status_lines(status: dict[str, Any]) -> list[str]:
    """Return a controller's status as a page of text."""
    lines = [f"{status['name']}  domain {status['domain']}  version {status['version']}"]
    lines += [f"ALARM  {alarm['code']} {alarm['subject']}: {alarm['reason']}" for alarm in status["alarms"]]
    lines += [
        f"node   {node['kme_id']:24} version {node['version']}, heard {node['heard_s_ago']} s ago"
        for node in status["nodes"]
    ]
    lines += [
        f"link   {link['link_id']:24} {link['rate_bps']:>12,.0f} bit/s{'' if link['usable'] else '  closed'}"
        for link in status["links"]
    ]
    return lines


def change_link(args: argparse.Namespace) -> int:
    """Close or open a link."""
    reason = getattr(args, "reason", "")
    path = f"/domain/v1/links/{args.link}/{args.control_command}"
    document = json.loads(_client(args).request("POST", path, reason.encode()))
    print(f"link {document['link_id']}: {document['closed'] or 'open'}")
    return 0


def _client(args: argparse.Namespace) -> "NamedClient":
    from openqci.services.controller_app import load_controller

    loaded = load_controller(args.config)
    config = loaded.config
    return named_client(args, loaded.tls_files(), config.controller.name, config.listen.nodes)


def sign_configuration(args: argparse.Namespace) -> int:
    """Sign a configuration. Its ``issued_s`` is now, whatever the file says."""
    from openqci.control.configuration import DomainConfiguration, sign
    from openqci.crypto.signatures import SigningKey
    from openqci.services.keyless_app import read_named

    try:
        content = yaml.safe_load(read_named(args.file))
    except yaml.YAMLError as error:
        raise ConfigurationError(Fault(str(args.file), "", f"is neither YAML nor JSON: {error}")) from None
    if not isinstance(content, dict):
        raise ConfigurationError(Fault(str(args.file), "", "expected a mapping of domain, version, nodes"))
    try:
        configuration = msgspec.convert({**content, "issued_s": time.time()}, DomainConfiguration)
        signed = sign(configuration, SigningKey.from_pem(read_named(args.key), str(args.key)))
    except msgspec.ValidationError as error:
        raise ConfigurationError(Fault(str(args.file), "", str(error))) from None
    args.out.write_bytes(signed)
    print(f"{args.out}: domain {configuration.domain}, version {configuration.version}")
    return 0


def show_configuration(args: argparse.Namespace) -> int:
    """Print a configuration that the signer signed; ConfigurationError for any other."""
    from openqci.control.configuration import verify
    from openqci.core.errors import PeerMisbehaved
    from openqci.crypto.signatures import VerifyingKey
    from openqci.services.keyless_app import read_named

    signer = VerifyingKey.from_certificate_pem(read_named(args.signer), str(args.signer))
    try:
        configuration = verify(read_named(args.file), signer)
    except PeerMisbehaved as error:
        raise ConfigurationError(Fault(str(args.file), "", str(error))) from None
    print(json.dumps(msgspec.to_builtins(configuration), indent=2))
    return 0
