"""What ``openqci kme check`` looks at: each certificate, the state folder, each peer and module.

A check that fails names what is wrong and what was expected; nothing is changed, and no key is drawn.
"""

import asyncio
import ssl
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from openqci.core.errors import ConfigurationError, OpenQCIError, RequestRefused
from openqci.core.identifiers import KmeId
from openqci.delivery.etsi020_model import (
    DRAFT_VERSIONS_PATH,
    VERSION,
    VERSIONS_PATH,
    problem_in,
    versions_from_body,
)
from openqci.keystore.memory import MemoryKeyStore
from openqci.services.border_config import partner_files
from openqci.services.etsi020_client import PartnerClient
from openqci.services.kme_config import (
    AnySource,
    LoadedConfig,
    PartnerSection,
    Source004Section,
    Source014Section,
)
from openqci.services.pki import kme_identity, read_certificate, read_certificates
from openqci.services.sources import make_source, module_tls
from openqci.services.state_folder import StateFolder, store_identity
from openqci.services.tls import read_revocation_list

CONNECT_S_MAX = 5.0
WARN_DAYS = 30


@dataclass(frozen=True)
class Result:
    """One check: what was looked at, and what is wrong with it (empty: nothing)."""

    subject: str
    fault: str
    note: str = ""

    @property
    def good(self) -> bool:
        return not self.fault

    def document(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"good": self.good, **asdict(self)}

    def __str__(self) -> str:
        text = self.fault or self.note
        return f"{'ok   ' if self.good else 'FAULT'} {self.subject}{': ' if text else ''}{text}"


def check(loaded: LoadedConfig) -> list[Result]:
    """Check what lies on this machine."""
    tls = loaded.config.tls
    files = [("node certificate", tls.certificate, tls.key, tls.authority)]
    files += [
        (f"link {link.id}: certificate for the module", at.certificate, at.key, at.authority)
        for link in loaded.config.link
        for at in link.sources.values()
    ]
    results = [
        _certificate(subject, *(loaded.path(name) for name in (certificate, key, authority)))
        for subject, certificate, key, authority in files
    ]
    if results[0].good:
        results.append(_node_names(loaded))
    for file in loaded.tls_files().revocation_lists:
        results.append(_revocation_list(file))
    for partner in loaded.config.partner:
        results.append(_authority(f"partner {partner.kme_id}: authority", loaded.path(partner.authority)))
        results += [_revocation_list(loaded.path(file)) for file in partner.revocation_lists]
    return [*results, _state(loaded)]


async def check_neighbours(loaded: LoadedConfig) -> list[Result]:
    """Ask each peer and module who it is."""
    results = []
    for peer in loaded.config.peer:
        subject = f"peer {peer.kme_id} at {peer.url}"
        try:
            context = loaded.tls_files().client_context()
        except ConfigurationError as error:
            results.append(Result(subject, str(error)))
            continue
        results.append(await _reached(subject, peer.url, context, peer.kme_id))
    for link in loaded.config.link:
        for section in link.sources.values():
            url, name = _address_of(section)
            subject = f"link {link.id}: module at {url}"
            try:
                context = module_tls(loaded, section)
            except ConfigurationError as error:
                results.append(Result(subject, str(error)))
                continue
            reached = await _reached(subject, url, context, name)
            results.append(await _module_answers(loaded, link.id, subject) if reached.good else reached)
    return results + [await _partner(loaded, partner) for partner in loaded.config.partner]


async def _partner(loaded: LoadedConfig, section: PartnerSection) -> Result:
    """Ask a partner which versions it speaks."""
    subject = f"partner {section.kme_id} at {section.url}"
    path = DRAFT_VERSIONS_PATH if section.draft else VERSIONS_PATH
    client = PartnerClient(
        section.url,
        section.server_name or section.kme_id,
        partner_files(loaded, section).client_context,
        CONNECT_S_MAX,
    )
    try:
        answer = await client.versions(path)
        if answer.status != 200:
            return Result(subject, answer.reason or f"answers {answer.status}: {problem_in(answer.body)}")
        versions, capabilities = versions_from_body(answer.body)
    except (ConfigurationError, RequestRefused) as error:
        return Result(subject, str(error))
    finally:
        await client.close()
    if VERSION not in versions and not section.draft:
        return Result(subject, f"speaks {', '.join(sorted(versions)) or 'no version'}; expected {VERSION}")
    return Result(subject, "", ", ".join([*sorted(versions), *sorted(capabilities)]))


def _address_of(section: AnySource) -> tuple[str, str | None]:
    """Return where a module is, and the name that its certificate must bear, if it is not the host."""
    if isinstance(section, Source014Section):
        return section.url, section.kme_id
    if isinstance(section, Source004Section):
        return f"tls://{section.address}", section.server_name
    return section.url, section.server_name


async def _module_answers(loaded: LoadedConfig, link_id: str, subject: str) -> Result:
    link = next(link for link in loaded.config.link if link.id == link_id)
    source = make_source(loaded, link, MemoryKeyStore())  # it is asked who it is, and keeps nothing
    try:
        return Result(subject, "", await source.describe())
    except (OpenQCIError, OSError) as error:
        return Result(subject, str(error))
    finally:
        await source.close()


async def _reached(subject: str, url: str, context: ssl.SSLContext, name: str | None) -> Result:
    """Connect with TLS and look at the certificate that answers."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    try:
        async with asyncio.timeout(CONNECT_S_MAX):
            _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=name or host)
            writer.close()
    except ssl.SSLCertVerificationError as error:
        return Result(subject, f"its certificate is refused: {error.verify_message}")
    except TimeoutError:
        return Result(subject, f"no answer within {CONNECT_S_MAX:.0f} s")
    except OSError as error:
        return Result(subject, f"cannot be reached ({error.strerror or error})")
    return Result(subject, "")


def _certificate(subject: str, certificate_file: Path, key_file: Path, authority_file: Path) -> Result:
    """Check that a certificate holds now, is its key's, and is signed by the authority beside it."""
    try:
        certificate = read_certificate(certificate_file)
        issuers = read_certificates(authority_file) + read_certificates(certificate_file)[1:]
    except ConfigurationError as error:
        return Result(subject, str(error))
    now = datetime.now(UTC)
    ends = certificate.not_valid_after_utc
    if now < certificate.not_valid_before_utc:
        return Result(subject, f"{certificate_file} holds only from {certificate.not_valid_before_utc}")
    if now > ends:
        return Result(subject, f"{certificate_file} ended at {ends}")
    try:
        key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        return Result(subject, f"{key_file} cannot be read as a private key ({type(error).__name__})")
    if key.public_key() != certificate.public_key():
        return Result(subject, f"{key_file} is not the key of {certificate_file}")
    if key_file.stat().st_mode & 0o077:
        return Result(subject, f"{key_file} can be read by others; expected mode 0600")
    if not any(_issued_by(certificate, issuer) for issuer in issuers):
        return Result(
            subject,
            f"{certificate_file} is issued by {certificate.issuer.rfc4514_string()}, which is not in "
            f"{authority_file}",
        )
    days = (ends - now).days
    return Result(subject, "", f"holds {days} days more" + ("; renew it" if days < WARN_DAYS else ""))


def _authority(subject: str, file: Path) -> Result:
    """Check that a file holds authorities that still hold."""
    try:
        found = read_certificates(file)
    except ConfigurationError as error:
        return Result(subject, str(error))
    ended = [each for each in found if datetime.now(UTC) > each.not_valid_after_utc]
    if ended:
        return Result(subject, f"{file}: {ended[0].subject.rfc4514_string()} has ended")
    return Result(subject, "", ", ".join(each.subject.rfc4514_string() for each in found))


def _revocation_list(file: Path) -> Result:
    subject = f"revocation list {file.name}"
    try:
        found = read_revocation_list(file)
    except ConfigurationError as error:
        return Result(subject, str(error))
    return Result(subject, "", f"{len(list(found))} revoked, holds until {found.next_update_utc}")


def _issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _node_names(loaded: LoadedConfig) -> Result:
    """Check that the node's certificate names its KME ID and is for servers and clients."""
    file = loaded.path(loaded.config.tls.certificate)
    certificate = read_certificate(file)
    named = kme_identity(certificate.public_bytes(serialization.Encoding.DER))
    if KmeId(loaded.kme_id) not in named:
        return Result(
            "node certificate: names",
            f"{file} names {', '.join(sorted(named)) or 'no KME'}; expected {loaded.kme_id}",
        )
    try:
        purposes = set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        purposes = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    wanted = {ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth", ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth"}
    missing = [text for purpose, text in wanted.items() if purpose not in purposes]
    if missing:
        return Result("node certificate: names", f"{file} is not for {' and '.join(missing)}")
    return Result("node certificate: names", "", loaded.kme_id)


def _state(loaded: LoadedConfig) -> Result:
    subject = f"state folder {loaded.config.node.state_dir}"
    try:
        folder = StateFolder.open(loaded)
    except ConfigurationError as error:
        text = str(error)
        return Result(subject, "", "in use by a running node") if "in use" in text else Result(subject, text)
    try:
        store = folder.open_store()
        try:
            folder.check_anchor(store.submit(store_identity).result())
        finally:
            store.close()
    except OpenQCIError as error:
        return Result(subject, str(error))
    finally:
        folder.close()
    return Result(subject, "", "can be opened")
