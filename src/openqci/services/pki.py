"""The built-in test certificate authority: certificates for KMEs and for applications (SAEs).

One P-256 key signs all. It serves a network on one machine and the first steps of an integrator; an operator
brings its own authority, and this one is not meant for more than tests: its key lies in a file.

What tells who somebody is: a KME has ``URI:urn:openqci:kme:<KME ID>`` and serverAuth alone, an SAE has
``URI:urn:openqci:sae:<SAE ID, percent-encoded>``, the ID as common name, and clientAuth alone; so neither
passes as the other. Read next: :mod:`openqci.services.kme_server`, which asks for these certificates.
"""

import ipaddress
import os
import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, Self
from urllib.parse import quote, unquote

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from openqci.core.errors import ConfigurationError, Fault
from openqci.core.identifiers import KmeId, SaeId
from openqci.delivery.directory import PeerIdentity, parse_sae_id
from openqci.services.roles import URN_PREFIX, Role

AUTHORITY_YEARS = 10
CERTIFICATE_DAYS = 730
RENEW_BEFORE_DAYS = 60
"""A KME's certificate with less time left than this is issued anew when the network starts."""

CLOCK_SKEW = timedelta(hours=1)

REVOCATION_DAYS = 30
"""How long a revocation list says it holds; a new one is written with every revocation, or on demand."""

KEY_PEM_END = b"-----END PRIVATE KEY-----\n"

KME_URN = "urn:openqci:kme:"
SAE_URN = "urn:openqci:sae:"


@dataclass(frozen=True)
class IssuedCertificate:
    """A certificate with its private key, both PEM, and the SHA-256 of its DER form in hex."""

    certificate_pem: bytes
    key_pem: bytes
    sha256: str

    def __repr__(self) -> str:
        return f"IssuedCertificate({self.sha256})"


class CertificateAuthority:
    """The authority of one data directory. Files: ``ca.pem``, ``ca-key.pem`` and ``kmes/<KME ID>.pem``."""

    def __init__(
        self, folder: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, name: x509.Name
    ) -> None:
        self.folder, self.certificate = folder, certificate
        self._key, self._name = key, name
        self._authority_key_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())

    @classmethod
    def open_or_create(cls, folder: Path) -> Self:
        """Open the authority in a folder, making it if there is none.

        Raises ConfigurationError if one of its two files is missing or damaged. What a start leaves that was
        cut off between the two has certified nobody, and is made anew.
        """
        if not (folder / "ca.pem").exists() and not (folder / "kmes").exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _make_authority(folder)
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the authority in a folder; ConfigurationError if it is not there or does not fit together."""
        certificate = read_certificate(folder / "ca.pem")
        key_file = folder / "ca-key.pem"
        try:
            key = serialization.load_pem_private_key(key_file.read_bytes(), None)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigurationError(
                Fault(str(key_file), "", f"cannot be read ({_reason(error)}); restore it from a backup")
            ) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ConfigurationError(Fault(str(key_file), "", "is not the key of ca.pem beside it"))
        return cls(folder, certificate, key, certificate.subject)

    @property
    def certificate_file(self) -> Path:
        """The authority's certificate, which clients and servers trust."""
        return self.folder / "ca.pem"

    @property
    def kmes_folder(self) -> Path:
        return self.folder / "kmes"

    def issue_kme(self, kme_id: KmeId, hosts: Sequence[str] = ()) -> IssuedCertificate:
        """Issue a certificate for a KME on this machine, or reached under ``hosts`` (names and addresses).

        A KME that has peers calls them with it, too; so with ``hosts`` it is also for clients.
        """
        names: list[x509.GeneralName] = [
            x509.DNSName("localhost"),
            x509.DNSName(kme_id),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            x509.IPAddress(ipaddress.ip_address("::1")),
            x509.UniformResourceIdentifier(KME_URN + kme_id),
            *map(_host_name, hosts),
        ]
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return self._issue(kme_id[:64], names, *purposes[: 2 if hosts else 1])

    def issue_sae(self, sae_id: SaeId) -> IssuedCertificate:
        """Issue a client certificate for an application."""
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(SAE_URN + quote(sae_id, safe=""))]
        return self._issue(sae_id, names, ExtendedKeyUsageOID.CLIENT_AUTH)

    def issue_holder(self, role: Role, name: str) -> IssuedCertificate:
        """Issue a client certificate for a person or machine with a role at KMEs."""
        uri = f"{URN_PREFIX}{role.value}:{quote(name, safe='')}"
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)]
        return self._issue(name[:64], names, ExtendedKeyUsageOID.CLIENT_AUTH)

    def issue_server(self, role: Role, name: str, hosts: Sequence[str]) -> IssuedCertificate:
        """Issue a certificate for a controller or orchestrator, which others call under ``hosts``."""
        names: list[x509.GeneralName] = [
            x509.UniformResourceIdentifier(f"{URN_PREFIX}{role.value}:{quote(name, safe='')}"),
            *map(_host_name, hosts),
        ]
        return self._issue(name[:64], names, ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)

    @property
    def revocation_file(self) -> Path:
        return self.folder / "crl.pem"

    def revoke(self, *certificates: x509.Certificate) -> int:
        """Write the revocation list anew, with these certificates added; return how many it names.

        Raises ConfigurationError if the list cannot be read, or a certificate is another authority's.
        """
        revoked = {entry.serial_number: entry for entry in self._revoked()}
        now = datetime.now(UTC)
        for certificate in certificates:
            if certificate.issuer != self._name:
                raise ConfigurationError(
                    f"the certificate of {certificate.subject.rfc4514_string()} is of another authority, "
                    f"{certificate.issuer.rfc4514_string()}; expected {self._name.rfc4514_string()}"
                )
            entry = x509.RevokedCertificateBuilder(certificate.serial_number, now).build()
            revoked.setdefault(certificate.serial_number, entry)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(now - CLOCK_SKEW)
            .next_update(now + timedelta(days=REVOCATION_DAYS))
            .add_extension(self._authority_key_id, critical=False)
            .add_extension(x509.CRLNumber(int(now.timestamp())), critical=False)
        )
        for entry in revoked.values():
            builder = builder.add_revoked_certificate(entry)
        signed = builder.sign(self._key, hashes.SHA256())
        write_public(self.revocation_file, signed.public_bytes(serialization.Encoding.PEM))
        return len(revoked)

    def _revoked(self) -> list[x509.RevokedCertificate]:
        if not self.revocation_file.exists():
            return []
        try:
            return list(x509.load_pem_x509_crl(self.revocation_file.read_bytes()))
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                Fault(str(self.revocation_file), "", f"cannot be read ({_reason(error)})")
            ) from None

    def issue_kmes(self, kme_ids: Iterable[KmeId]) -> dict[KmeId, Path]:
        """Return a PEM file per KME with its certificate and its own key; only missing ones are issued.

        A network of 1,323 KMEs takes about a second; a later start only reads dates.
        """
        self.kmes_folder.mkdir(exist_ok=True, mode=0o700)
        files = {kme_id: self.kmes_folder / f"{kme_id}.pem" for kme_id in kme_ids}
        for kme_id, file in files.items():
            if not self._is_good(file):
                issued = self.issue_kme(kme_id)
                # Not flushed to the disk: over a thousand flushes take long, and what is lost is issued anew.
                _write(file, issued.certificate_pem + issued.key_pem, 0o600, durable=False)
        return files

    def _is_good(self, file: Path) -> bool:
        """Tell whether a KME's file holds, whole, a certificate of this authority with time left."""
        try:
            content = file.read_bytes()
            certificate = x509.load_pem_x509_certificate(content)
        except (OSError, ValueError):
            return False
        if not content.endswith(KEY_PEM_END):
            return False
        left = certificate.not_valid_after_utc - datetime.now(UTC)
        return certificate.issuer == self._name and left > timedelta(days=RENEW_BEFORE_DAYS)

    def _issue(
        self, common_name: str, names: list[x509.GeneralName], *purposes: x509.ObjectIdentifier
    ) -> IssuedCertificate:
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(now + timedelta(days=CERTIFICATE_DAYS))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(self._authority_key_id, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return IssuedCertificate(
            certificate.public_bytes(serialization.Encoding.PEM), _pem_of_key(key), fingerprint(certificate)
        )


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate's DER form in hex."""
    return certificate.fingerprint(hashes.SHA256()).hex()


IdentityRule = Literal["uri", "dns", "cn"]


def peer_identity(
    certificate_der: bytes, rule: IdentityRule = "uri", others: Collection[str] = ()
) -> PeerIdentity | None:
    """Return who a verified client certificate names, by the rule of this deployment.

    ``uri``: the URI of an SAE, else the common name. ``dns``: the one DNS name, which no URI and no common
    name may contradict. ``cn``: the common name, which no URI may contradict. None if it names nobody, if two
    names disagree, if the name is no SAE ID, or if the certificate has another role: by a URI of its own, or
    because its SHA-256 is among ``others``. An operator whose name is that of an application is not that one.
    """
    identity = _identity(x509.load_der_x509_certificate(certificate_der), rule)
    return identity if identity is None or identity.certificate_sha256 not in others else None


def kme_identity(certificate_der: bytes) -> frozenset[KmeId]:
    """Return the KMEs that a verified certificate names: by its URI, else by DNS names and common name.

    None, if it has another role by a URI.
    """
    certificate = x509.load_der_x509_certificate(certificate_der)
    if _has_other_role(certificate, KME_URN):
        return frozenset()
    uris = _uris(certificate, KME_URN)
    if uris:
        return frozenset(map(KmeId, uris))
    names = {str(one.value) for one in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)}
    return frozenset(map(KmeId, names | set(_dns_names(certificate))))


def identity_in(file: Path) -> PeerIdentity | None:
    """Return who the certificate in a PEM file names, or None; ConfigurationError if it cannot be read."""
    return _identity(read_certificate(file))


def _identity(certificate: x509.Certificate, rule: IdentityRule = "uri") -> PeerIdentity | None:
    if _has_other_role(certificate, SAE_URN):
        return None  # a KME, or an operator, is no application, whatever else its certificate says
    uris = set(_sae_uris(certificate))
    common = {str(one.value) for one in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)}
    names = {
        "uri": uris or common,
        "dns": uris | common | set(_dns_names(certificate)) if _dns_names(certificate) else set(),
        "cn": uris | common if common else set(),
    }[rule]
    if len(names) != 1:
        return None
    try:
        return PeerIdentity(parse_sae_id(names.pop()), fingerprint(certificate))
    except ConfigurationError:
        return None


def read_certificate(file: Path) -> x509.Certificate:
    """Read a PEM certificate, the first of a chain; ConfigurationError names the file."""
    return read_certificates(file)[0]


def read_certificates(file: Path) -> list[x509.Certificate]:
    """Read all certificates of a PEM file, at least one; ConfigurationError names the file."""
    try:
        return x509.load_pem_x509_certificates(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            Fault(str(file), "", f"cannot be read as a certificate ({_reason(error)})")
        ) from None


def issued_by_one(certificate: x509.Certificate, issuers: Sequence[x509.Certificate]) -> bool:
    """Tell whether one of the given authorities has itself issued a certificate."""
    for issuer in issuers:
        try:
            certificate.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return True
    return False


def write_credentials(folder: Path, issued: IssuedCertificate, authority: CertificateAuthority) -> None:
    """Write ``cert.pem``, ``key.pem`` (0600) and ``ca.pem`` into a folder, making it if needed."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(folder / "key.pem", issued.key_pem)
        write_public(folder / "cert.pem", issued.certificate_pem)
        write_public(folder / "ca.pem", authority.certificate_file.read_bytes())
    except OSError as error:
        raise ConfigurationError(
            Fault(str(folder), "", f"cannot be written ({_reason(error)}); choose another --out")
        ) from None


def write_private(file: Path, content: bytes) -> None:
    """Write a file that its owner alone can read; a reader sees all of it or none."""
    _write(file, content, 0o600)


def write_public(file: Path, content: bytes) -> None:
    """Write a file that everybody may read."""
    _write(file, content, 0o644)


def _write(file: Path, content: bytes, mode: int, *, durable: bool = True) -> None:
    part = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        if durable:
            # An enrolment that was reported must not come back from a power loss as an empty file.
            stream.flush()
            os.fsync(stream.fileno())
    part.replace(file)


def _make_authority(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "OpenQCI"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"OpenQCI test authority {secrets.token_hex(4)}"),
        ]
    )
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=365 * AUTHORITY_YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    # The certificate comes last: where it is, the key is, whenever the machine may have stopped.
    write_private(folder / "ca-key.pem", _pem_of_key(key))
    write_public(folder / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM))


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem_of_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _sae_uris(certificate: x509.Certificate) -> list[str]:
    return _uris(certificate, SAE_URN)


def _uris(certificate: x509.Certificate, prefix: str) -> list[str]:
    """Return what follows the prefix in the certificate's URIs, decoded."""
    names = _alternative_names(certificate)
    uris = names.get_values_for_type(x509.UniformResourceIdentifier) if names is not None else []
    return [unquote(uri.removeprefix(prefix)) for uri in uris if uri.startswith(prefix)]


def _has_other_role(certificate: x509.Certificate, own: str) -> bool:
    """Tell whether a certificate names a role by a URI of ours that does not begin with ``own``."""
    return any(not (URN_PREFIX + rest).startswith(own) for rest in _uris(certificate, URN_PREFIX))


def _dns_names(certificate: x509.Certificate) -> list[str]:
    names = _alternative_names(certificate)
    return names.get_values_for_type(x509.DNSName) if names is not None else []


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return None


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error).splitlines()[0]
