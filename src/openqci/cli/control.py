"""``openqci control``: what a domain's controller does, from the command line."""

import argparse
import json
import time
from pathlib import Path

import msgspec
import yaml

from openqci.core.errors import ConfigurationError, Fault


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register ``openqci control``."""
    parser = subparsers.add_parser("control", help="sign and read the configuration of a domain")
    commands = parser.add_subparsers(dest="control_command", metavar="COMMAND", required=True)
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


def sign_configuration(args: argparse.Namespace) -> int:
    """Sign a configuration. Its ``issued_s`` is now, whatever the file says."""
    from openqci.control.configuration import DomainConfiguration, sign
    from openqci.crypto.signatures import SigningKey

    try:
        content = yaml.safe_load(read(args.file))
    except yaml.YAMLError as error:
        raise ConfigurationError(Fault(str(args.file), "", f"is neither YAML nor JSON: {error}")) from None
    if not isinstance(content, dict):
        raise ConfigurationError(Fault(str(args.file), "", "expected a mapping of domain, version, nodes"))
    try:
        configuration = msgspec.convert({**content, "issued_s": time.time()}, DomainConfiguration)
        signed = sign(configuration, SigningKey.from_pem(read(args.key), str(args.key)))
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

    signer = VerifyingKey.from_certificate_pem(read(args.signer), str(args.signer))
    try:
        configuration = verify(read(args.file), signer)
    except PeerMisbehaved as error:
        raise ConfigurationError(Fault(str(args.file), "", str(error))) from None
    print(json.dumps(msgspec.to_builtins(configuration), indent=2))
    return 0


def read(file: Path) -> bytes:
    """Return a file's bytes; ConfigurationError if it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigurationError(Fault(str(file), "", f"cannot be read ({error.strerror})")) from None
