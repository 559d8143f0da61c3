"""``openqci pki``: a small certificate authority for networks on one machine and for first steps."""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

ROLES = ("kme", "sae", "module", "operator", "security-officer", "auditor", "controller", "orchestrator")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register ``openqci pki``."""
    parser = subparsers.add_parser("pki", help="a small certificate authority for tests")
    commands = parser.add_subparsers(dest="pki_command", metavar="COMMAND", required=True)
    show = commands.add_parser("show", help="who signs this network's certificates, until when, how many")
    show.add_argument("--data-dir", type=Path, required=True, help="the network's data directory")
    show.add_argument("--json", action="store_true", help="print one JSON document")
    show.set_defaults(run=show_authority)
    create = commands.add_parser("create", help="make a certificate authority")
    create.add_argument("folder", metavar="FOLDER", type=Path, help="where it keeps its key and certificate")
    create.set_defaults(run=create_authority)
    issue = commands.add_parser("issue", help="give out a certificate that names its holder and role")
    issue.add_argument("folder", metavar="FOLDER", type=Path, help="the authority's folder")
    issue.add_argument("--role", choices=ROLES, required=True, help="what the holder may do")
    issue.add_argument("--name", metavar="ID", required=True, help="the holder: KME ID, SAE ID or a name")
    issue.add_argument(
        "--host",
        metavar="HOST",
        action="append",
        default=[],
        help="name or address of who is called; repeatable",
    )
    issue.add_argument("--out", metavar="DIR", type=Path, required=True, help="for cert.pem, key.pem, ca.pem")
    issue.set_defaults(run=issue_certificate)
    revoke = commands.add_parser("revoke", help="write the revocation list, crl.pem, with one more on it")
    revoke.add_argument("folder", metavar="FOLDER", type=Path, help="the authority's folder")
    revoke.add_argument(
        "--certificate", metavar="FILE", type=Path, help="certificate to revoke; none: only renew the list"
    )
    revoke.set_defaults(run=revoke_certificate)


def create_authority(args: argparse.Namespace) -> int:
    """Make a certificate authority; an existing one stays as it is."""
    from openqci.services.data_directory import unusable_named
    from openqci.services.pki import CertificateAuthority

    with unusable_named(args.folder):
        authority = CertificateAuthority.open_or_create(args.folder)
    print(authority.certificate_file)
    return 0


def issue_certificate(args: argparse.Namespace) -> int:
    """Issue a certificate with its key into a folder."""
    from openqci.core.errors import ConfigurationError, Fault
    from openqci.core.identifiers import KmeId
    from openqci.delivery.directory import parse_sae_id
    from openqci.services.pki import CertificateAuthority, write_credentials
    from openqci.services.roles import SERVERS, Role

    authority = CertificateAuthority.open(args.folder)
    if (args.out / "key.pem").exists():
        raise ConfigurationError(Fault(str(args.out), "", "holds credentials already; choose another --out"))
    role = Role(args.role)
    if args.host and role is not Role.KME and role not in SERVERS:
        raise ConfigurationError("--host is for --role kme, controller and orchestrator; nobody calls others")
    if role is Role.KME:
        issued = authority.issue_kme(KmeId(args.name), args.host or ["localhost"])
    elif role in SERVERS:
        issued = authority.issue_server(role, args.name, args.host or ["localhost", "127.0.0.1"])
    elif role is Role.SAE:
        issued = authority.issue_sae(parse_sae_id(args.name))
    else:
        issued = authority.issue_holder(role, args.name)
    write_credentials(args.out, issued, authority)
    print(f"{args.out / 'cert.pem'} {issued.sha256}")
    return 0


def revoke_certificate(args: argparse.Namespace) -> int:
    """Write the revocation list."""
    from openqci.services.pki import CertificateAuthority, read_certificate

    authority = CertificateAuthority.open(args.folder)
    count = authority.revoke(*([read_certificate(args.certificate)] if args.certificate else []))
    print(f"{authority.revocation_file} ({count} revoked)")
    return 0


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
