"""``openqci sae``: enrol secure application entities (SAEs), while the network runs or rests."""

import argparse
import difflib
import json
import time
from pathlib import Path
from typing import Any

import msgspec

from openqci.core.errors import ConfigurationError
from openqci.core.identifiers import KmeId, SaeId, SiteId
from openqci.delivery.directory import SaeDirectory, SaeRecord, parse_sae_id
from openqci.services.data_directory import DataDirectory
from openqci.services.pki import (
    CertificateAuthority,
    fingerprint,
    identity_in,
    read_certificate,
    write_credentials,
)
from openqci.services.sqlite_store import SqliteKeyStore


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register ``openqci sae``."""
    parser = subparsers.add_parser("sae", help="enrol secure application entities (SAEs)")
    commands = parser.add_subparsers(dest="sae_command", metavar="COMMAND", required=True)
    enrol = commands.add_parser("enrol", help="give an application an ID and a certificate at a site")
    enrol.add_argument("--data-dir", type=Path, required=True, help="the network's data directory")
    enrol.add_argument("--site", required=True, help="the site whose KME serves the application")
    enrol.add_argument("--id", required=True, dest="sae_id", help="its SAE ID, unique in the network")
    enrol.add_argument("--out", type=Path, required=True, help="folder for cert.pem, key.pem and ca.pem")
    enrol.set_defaults(run=enrol_one)
    saes = commands.add_parser("list", help="show the enrolled applications")
    saes.add_argument("--data-dir", type=Path, required=True, help="the network's data directory")
    saes.add_argument("--json", action="store_true", help="print one JSON document")
    saes.set_defaults(run=list_all)


def enrol_one(args: argparse.Namespace) -> int:
    """Write an application's credentials and enter it in the directory."""
    sae_id = parse_sae_id(args.sae_id)
    directory = DataDirectory.open_existing(args.data_dir)
    kme = kme_at(directory, args.site)
    authority = CertificateAuthority.open(directory.pki_dir)
    out = args.out.absolute()
    store = SqliteKeyStore.open(directory.store_path, directory.kek())
    try:
        enrol(store, authority, sae_id, SiteId(args.site), KmeId(kme["kme_id"]), out)
    finally:
        store.close()
    print(
        f"SAE {sae_id} is enrolled at {args.site}: {out}/cert.pem, key.pem, ca.pem; its KME is {kme['url']}"
    )
    return 0


def enrol(
    store: SqliteKeyStore,
    authority: CertificateAuthority,
    sae_id: SaeId,
    site_id: SiteId,
    kme_id: KmeId,
    out: Path,
) -> SaeRecord:
    """Enrol an application, or find it enrolled: the same ID, site and folder again change nothing.

    A folder that was moved is found by the certificate in it. Raises ConfigurationError if the ID is taken,
    or ``out`` holds what is another's or cannot be written. The record comes last, so that an interrupted
    enrolment leaves files that open nothing, and can be repeated.
    """
    known = store.submit(lambda tx: SaeDirectory(tx).sae(sae_id)).result()
    if known is not None and known.site_id == site_id and holds_credentials(out, known):
        if known.credentials_dir == str(out):
            return known
        record = msgspec.structs.replace(known, credentials_dir=str(out))
    else:
        if known is not None:
            refuse_other(known, site_id, out)
        refuse_foreign_credentials(out, sae_id)
        issued = authority.issue_sae(sae_id)
        write_credentials(out, issued, authority)
        record = SaeRecord(sae_id, site_id, kme_id, issued.sha256, str(out), time.time())
    store.submit(lambda tx: replace_record(SaeDirectory(tx), known, record)).result()
    return record


def replace_record(directory: SaeDirectory, known: SaeRecord | None, record: SaeRecord) -> None:
    """Enter an application, unless another enrolment has come between since ``known`` was read."""
    if directory.sae(record.sae_id) != known:
        raise ConfigurationError(
            f"SAE {record.sae_id!r} has just been enrolled by someone else; look with `openqci sae list`, "
            "then repeat this or choose another --id"
        )
    directory.enrol(record)


def enrolled_saes(directory: DataDirectory) -> list[SaeRecord]:
    """Return all applications of a network."""
    store = SqliteKeyStore.open(directory.store_path, directory.kek())
    try:
        return store.submit(lambda tx: list(SaeDirectory(tx).saes())).result()
    finally:
        store.close()


def list_all(args: argparse.Namespace) -> int:
    """Print the enrolled applications."""
    records = enrolled_saes(DataDirectory.open_existing(args.data_dir))
    if args.json:
        rows = [{name: getattr(record, name) for name in SaeRecord.__struct_fields__} for record in records]
        print(json.dumps(rows, indent=2))
    else:
        for record in records:
            print(f"{record.sae_id:32} {record.site_id:32} {record.credentials_dir}")
    return 0


def published_network(directory: DataDirectory) -> dict[str, Any]:
    """Read where each KME listens; ConfigurationError if the network was never started."""
    try:
        document: dict[str, Any] = json.loads(directory.kmes_file.read_text())
    except FileNotFoundError:
        raise ConfigurationError(
            f"{directory.kmes_file} is not there: start the network first, with "
            f"`openqci up --scenario {directory.scenario} --data-dir {directory.path}`"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{directory.kmes_file} cannot be read ({error})") from None
    return document


def kme_at(directory: DataDirectory, site: str) -> dict[str, str]:
    """Return the KME of a site; ConfigurationError names sites that look alike."""
    kmes: dict[str, dict[str, str]] = {kme["site_id"]: kme for kme in published_network(directory)["kmes"]}
    if site not in kmes:
        close = difflib.get_close_matches(site, kmes, n=3) or [name for name in kmes if site in name][:3]
        hint = f"; did you mean {' or '.join(close)}?" if close else f"; it has {len(kmes)} sites"
        raise ConfigurationError(f"site {site!r} is not in this network{hint}")
    return kmes[site]


def refuse_other(known: SaeRecord, site_id: SiteId, out: Path) -> None:
    """Refuse an ID that is in use; ConfigurationError says where."""
    if known.site_id != site_id or known.credentials_dir != str(out):
        raise ConfigurationError(
            f"SAE {known.sae_id!r} is already enrolled at {known.site_id}, with credentials in "
            f"{known.credentials_dir}; choose another --id"
        )


def holds_credentials(folder: Path, record: SaeRecord) -> bool:
    """Tell whether a folder holds, whole, what an application was given."""
    if not all((folder / name).is_file() for name in ("cert.pem", "key.pem", "ca.pem")):
        return False
    try:
        return fingerprint(read_certificate(folder / "cert.pem")) == record.certificate_sha256
    except ConfigurationError:
        return False


def refuse_foreign_credentials(out: Path, sae_id: SaeId) -> None:
    """Refuse a folder with the certificate of another application: its private key would be overwritten."""
    try:
        owner = identity_in(out / "cert.pem")
    except ConfigurationError:
        return
    if owner is None or owner.sae_id != sae_id:
        name = "another application" if owner is None else f"SAE {owner.sae_id!r}"
        raise ConfigurationError(f"{out} holds the credentials of {name}; choose another --out")
