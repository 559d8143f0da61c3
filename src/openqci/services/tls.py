"""The TLS rules of a node's interfaces: both certificates, 1.2 or later, revocation lists, files that change.

ETSI GS QKD 014 V1.1.1, 5.1, asks for TLS 1.2 or later with mutual authentication. Of 1.2 only suites with
forward secrecy and authenticated encryption are offered. A context is made anew from the files when the node
is told to look at them again, so that certificates and lists change without a restart.
"""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from openqci.core.errors import ConfigurationError, Fault

SUITES_OF_1_2 = "ECDHE+AESGCM:ECDHE+CHACHA20"
OP_CLEANSE_PLAINTEXT = 1 << 1
"""``SSL_OP_CLEANSE_PLAINTEXT`` of OpenSSL 3.0 and later, which :mod:`ssl` does not name: what was decrypted
is wiped from the library's buffer once it was read, and does not stay there until the next record (I5)."""

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True)
class TlsFiles:
    """What an interface is, whom it trusts, and who is revoked: all PEM files.

    ``more_authorities`` are trusted beside ``authority``, where callers of several come to one address.
    """

    certificate: Path
    key: Path
    authority: Path
    revocation_lists: tuple[Path, ...] = ()
    minimum_version: str = "1.2"
    more_authorities: tuple[Path, ...] = ()

    def server_context(self) -> ssl.SSLContext:
        """Return the rules for callers; ConfigurationError names the file that cannot be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = VERSIONS[self.minimum_version]
        context.set_ciphers(SUITES_OF_1_2)
        context.verify_mode = ssl.CERT_REQUIRED
        # A resumed session would carry an identity that was verified when the session began.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | OP_CLEANSE_PLAINTEXT
        load_own(context, self.certificate, self.key)
        self._load_trusted(context)
        return context

    def client_context(self) -> ssl.SSLContext:
        """Return the rules for calling others: their certificate and its name are checked."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = VERSIONS[self.minimum_version]
        context.set_ciphers(SUITES_OF_1_2)
        context.options |= OP_CLEANSE_PLAINTEXT
        load_own(context, self.certificate, self.key)
        self._load_trusted(context)
        return context

    def is_revoked(self, certificate_der: bytes) -> bool:
        """Tell whether a certificate is on one of the lists, or has ended."""
        certificate = x509.load_der_x509_certificate(certificate_der)
        if datetime.now(UTC) > certificate.not_valid_after_utc:
            return True
        lists = [read_revocation_list(file) for file in self.revocation_lists]
        return any(
            each.issuer == certificate.issuer
            and each.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
            for each in lists
        )

    def _load_trusted(self, context: ssl.SSLContext) -> None:
        for authority in (self.authority, *self.more_authorities):
            load_trusted(context, authority)
        for file in self.revocation_lists:
            read_revocation_list(file)
            load_trusted(context, file)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def load_own(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Load a certificate with its key; ConfigurationError says which file is at fault."""
    for file in (certificate, key):
        _readable(file)
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        reason = "is not the key of" if error.reason == "KEY_VALUES_MISMATCH" else "cannot be used with"
        raise ConfigurationError(Fault(str(key), "", f"{reason} {certificate}")) from None


def load_trusted(context: ssl.SSLContext, file: Path) -> None:
    """Load authorities or a revocation list."""
    _readable(file)
    try:
        context.load_verify_locations(file)
    except ssl.SSLError as error:
        raise ConfigurationError(
            Fault(str(file), "", f"holds no certificate or list that can be used ({error.reason or error})")
        ) from None


def read_revocation_list(file: Path) -> x509.CertificateRevocationList:
    """Read a list and check that it still holds: with an old one every caller would be refused."""
    _readable(file)
    try:
        found = x509.load_pem_x509_crl(file.read_bytes())
    except ValueError:
        raise ConfigurationError(Fault(str(file), "", "is no revocation list in PEM form")) from None
    if found.next_update_utc is not None and found.next_update_utc < datetime.now(UTC):
        raise ConfigurationError(
            Fault(str(file), "", f"held only until {found.next_update_utc}; fetch a new list")
        )
    return found


def _readable(file: Path) -> None:
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        raise ConfigurationError(Fault(str(file), "", f"cannot be read ({error.strerror})")) from None
