"""The test certificate authority: what its certificates say, and that nothing secret is shared or open."""

import os
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from openqci.core.errors import ConfigurationError
from openqci.core.identifiers import KmeId, SaeId
from openqci.services.pki import (
    CertificateAuthority,
    IssuedCertificate,
    fingerprint,
    peer_identity,
    write_credentials,
)

KME = KmeId("kme-es-madrid--pt-lisbon.tn3")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority.open_or_create(tmp_path_factory.mktemp("pki"))


def certificate_of(issued: IssuedCertificate) -> x509.Certificate:
    return x509.load_pem_x509_certificate(issued.certificate_pem)


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_a_kme_certificate_names_the_kme_and_this_machine(authority: CertificateAuthority) -> None:
    certificate = certificate_of(authority.issue_kme(KME))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"urn:openqci:kme:{KME}"]
    assert names.get_values_for_type(x509.DNSName) == ["localhost", KME]
    assert list(map(str, names.get_values_for_type(x509.IPAddress))) == ["127.0.0.1", "::1"]
    purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.SERVER_AUTH]
    certificate.verify_directly_issued_by(authority.certificate)


@pytest.mark.parametrize("sae_id", ["alice", "a/b", "a%2Fb", "urn:sae:1;x=(y)", "x" * 64])
def test_an_sae_is_who_its_certificate_says(authority: CertificateAuthority, sae_id: str) -> None:
    issued = authority.issue_sae(SaeId(sae_id))
    identity = peer_identity(certificate_of(issued).public_bytes(Encoding.DER))
    assert identity is not None
    assert (identity.sae_id, identity.certificate_sha256) == (sae_id, issued.sha256)


def test_every_certificate_has_a_key_of_its_own(authority: CertificateAuthority) -> None:
    issued = [authority.issue_kme(KME) for _ in range(3)]
    assert len({one.key_pem for one in issued}) == 3
    assert "PRIVATE" not in repr(issued)


def test_bulk_issue_is_repeatable_and_mends(authority: CertificateAuthority) -> None:
    kmes = [KmeId(f"kme-{number}") for number in range(5)]
    files = authority.issue_kmes(kmes)
    before = {kme: file.read_bytes() for kme, file in files.items()}
    files[kmes[0]].write_bytes(b"damaged")
    files[kmes[1]].unlink()
    again = {kme: file.read_bytes() for kme, file in authority.issue_kmes(kmes).items()}
    assert [kme for kme in kmes if again[kme] != before[kme]] == kmes[:2]
    assert {mode(file) for file in files.values()} == {0o600}


def test_the_authority_stays_the_same(authority: CertificateAuthority) -> None:
    again = CertificateAuthority.open_or_create(authority.folder)
    assert fingerprint(again.certificate) == fingerprint(authority.certificate)
    assert mode(authority.folder / "ca-key.pem") == 0o600


def test_a_missing_or_foreign_key_is_named(authority: CertificateAuthority, tmp_path: Path) -> None:
    other = CertificateAuthority.open_or_create(tmp_path / "other")
    (other.folder / "ca-key.pem").write_bytes((authority.folder / "ca-key.pem").read_bytes())
    with pytest.raises(ConfigurationError, match=r"ca-key\.pem: is not the key"):
        CertificateAuthority.open(other.folder)
    (other.folder / "ca-key.pem").unlink()
    with pytest.raises(ConfigurationError, match=r"ca-key\.pem: cannot be read"):
        CertificateAuthority.open(other.folder)
    with pytest.raises(ConfigurationError, match=r"ca\.pem: cannot be read"):
        CertificateAuthority.open(tmp_path / "nowhere")


def test_credentials_are_three_files(authority: CertificateAuthority, tmp_path: Path) -> None:
    write_credentials(tmp_path / "new" / "alice", authority.issue_sae(SaeId("alice")), authority)
    folder = tmp_path / "new" / "alice"
    assert sorted(os.listdir(folder)) == ["ca.pem", "cert.pem", "key.pem"]
    assert mode(folder / "key.pem") == 0o600
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigurationError, match="choose another --out"):
        write_credentials(tmp_path / "file" / "alice", authority.issue_sae(SaeId("alice")), authority)
