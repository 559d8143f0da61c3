"""``openqci pki``: look at the test certificate authority of a network."""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register ``openqci pki``."""
    parser = subparsers.add_parser("pki", help="look at the test certificate authority")
    commands = parser.add_subparsers(dest="pki_command", metavar="COMMAND", required=True)
    show = commands.add_parser("show", help="who signs this network's certificates, until when, how many")
    show.add_argument("--data-dir", type=Path, required=True, help="the network's data directory")
    show.add_argument("--json", action="store_true", help="print one JSON document")
    show.set_defaults(run=show_authority)


def show_authority(args: argparse.Namespace) -> int:
    """Print what the authority's certificate says and how many certificates it has given out."""
    from openqci.cli.sae import enrolled_saes
    from openqci.services.data_directory import DataDirectory
    from openqci.services.pki import CertificateAuthority, fingerprint

    directory = DataDirectory.open_existing(args.data_dir)
    authority = CertificateAuthority.open(directory.pki_dir)
    certificate = authority.certificate
    report = {
        "subject": certificate.subject.rfc4514_string(),
        "certificate": str(authority.certificate_file),
        "sha256": fingerprint(certificate),
        "not_valid_after": certificate.not_valid_after_utc.isoformat(),
        "days_left": (certificate.not_valid_after_utc - datetime.now(UTC)).days,
        "kme_certificates": sum(1 for _ in authority.kmes_folder.glob("[!.]*.pem")),
        "sae_certificates": len(enrolled_saes(directory)),
    }
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        print("\n".join(f"{name.replace('_', ' '):18}{value}" for name, value in report.items()))
    return 0
