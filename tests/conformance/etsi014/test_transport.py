"""ETSI GS QKD 014 V1.1.1, 5.1: mutual TLS and identity (statements 014-01 to 014-06)."""

import datetime
import socket
import ssl
import warnings
from http.client import HTTPException
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from openqci.core.errors import PeerMisbehaved
from openqci.core.identifiers import KmeId
from openqci.services.pki import CertificateAuthority, write_credentials
from openqci.services.sae_client import SAEClient
from tests.conformance.etsi014.make import ALICE, BOB, EVE, LISBON, WARSAW, RunningKmes

STATUS = f"/api/v1/keys/{BOB}/status"
REFUSED = (OSError, HTTPException)


def test_014_01_tls_1_3_is_spoken(kmes: RunningKmes) -> None:
    assert kmes.raw(ALICE, "GET", STATUS, context=kmes.tls(ALICE)).status == 200


def test_014_01_tls_1_2_is_spoken_with_forward_secrecy_alone(kmes: RunningKmes) -> None:
    context = kmes.tls(ALICE, ssl.TLSVersion.TLSv1_2)
    assert kmes.raw(ALICE, "GET", STATUS, context=context).status == 200
    context.set_ciphers("AES256-GCM-SHA384:AES128-SHA")  # key transport by RSA, CBC
    with pytest.raises(REFUSED):
        kmes.raw(ALICE, "GET", STATUS, context=context)


def test_014_01_older_tls_is_refused(kmes: RunningKmes) -> None:
    context = ssl.create_default_context(cafile=str(kmes.authority.certificate_file))
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.load_cert_chain(kmes.credentials(ALICE) / "cert.pem", kmes.credentials(ALICE) / "key.pem")
    with pytest.raises(REFUSED):
        kmes.raw(ALICE, "GET", STATUS, context=context)


def test_014_01_plain_http_is_not_answered(kmes: RunningKmes) -> None:
    with socket.create_connection(("127.0.0.1", kmes.ports[LISBON]), timeout=5) as plain:
        plain.sendall(f"GET {STATUS} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        try:
            answer = plain.recv(4096)
        except ConnectionResetError:
            answer = b""
    assert b"HTTP" not in answer


def test_014_02_no_certificate_no_answer(kmes: RunningKmes) -> None:
    with pytest.raises(REFUSED):
        kmes.raw(ALICE, "GET", STATUS, context=kmes.tls(None))


def test_014_03_a_certificate_of_another_authority_is_refused(kmes: RunningKmes, tmp_path: Path) -> None:
    foreign = CertificateAuthority.open_or_create(tmp_path / "foreign")
    write_credentials(tmp_path / "alice", foreign.issue_sae(ALICE), foreign)
    assert_refused(kmes, tmp_path / "alice" / "cert.pem", tmp_path / "alice" / "key.pem")


def test_014_03_a_kme_certificate_is_not_for_clients(kmes: RunningKmes) -> None:
    file = kmes.authority.kmes_folder / f"{WARSAW}.pem"
    assert_refused(kmes, file, file)


def test_014_03_an_expired_certificate_is_refused(kmes: RunningKmes, tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    ca_key = serialization.load_pem_private_key((kmes.folder / "pki" / "ca-key.pem").read_bytes(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    good = x509.load_pem_x509_certificate((kmes.credentials(ALICE) / "cert.pem").read_bytes())
    builder = x509.CertificateBuilder(
        good.issuer,
        good.subject,
        good.public_key(),
        good.serial_number,
        now - datetime.timedelta(days=2),
        now - datetime.timedelta(days=1),
        list(good.extensions),
    )
    expired = tmp_path / "expired.pem"
    expired.write_bytes(builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    assert_refused(kmes, expired, kmes.credentials(ALICE) / "key.pem")


def assert_refused(kmes: RunningKmes, certificate: Path, key: Path) -> None:
    context = kmes.tls(None)
    context.load_cert_chain(certificate, key)
    with pytest.raises(REFUSED):
        kmes.raw(ALICE, "GET", STATUS, context=context)


def test_014_04_a_certificate_that_is_not_enrolled_here_gets_401(kmes: RunningKmes, tmp_path: Path) -> None:
    write_credentials(tmp_path / "x", kmes.authority.issue_sae(ALICE), kmes.authority)
    paths = [tmp_path / "x" / name for name in ("cert.pem", "key.pem", "ca.pem")]
    with SAEClient(kmes.url(LISBON), *paths) as second_alice, kmes.client(BOB, LISBON) as bob_elsewhere:
        assert second_alice.status(BOB).status == 401, "the right name, but not the enrolled certificate"
        assert bob_elsewhere.status(EVE).status == 401, "enrolled, but at another KME"
        assert bob_elsewhere.enc_keys(EVE).status == 401


def test_014_05_no_header_and_no_body_changes_who_calls(kmes: RunningKmes) -> None:
    claims = {"X-SAE-ID": ALICE, "X-SSL-CN": ALICE, "X_SSL_CN": ALICE, "X-Forwarded-For": "10.0.0.1"}
    answer = kmes.raw(EVE, "GET", f"/api/v1/keys/{ALICE}/status", headers=claims)
    assert answer.json["master_SAE_ID"] == EVE
    body = b'{"master_SAE_ID": "alice", "caller": "alice"}'
    assert kmes.raw(EVE, "POST", f"/api/v1/keys/{BOB}/enc_keys", body, headers=claims).status == 400


def test_014_06_the_client_sees_which_kme_answers(kmes: RunningKmes) -> None:
    folder = kmes.credentials(ALICE)
    paths = [folder / name for name in ("cert.pem", "key.pem", "ca.pem")]
    with SAEClient(kmes.url(LISBON), *paths, kme_id=LISBON) as right:
        assert right.status(BOB).status == 200
    with (
        SAEClient(kmes.url(LISBON), *paths, kme_id=KmeId("kme-warsaw")) as wrong,
        pytest.raises(PeerMisbehaved, match="kme-warsaw"),
    ):
        wrong.status(BOB)


def test_one_connection_serves_many_requests(kmes: RunningKmes) -> None:
    with kmes.client(ALICE) as alice:
        assert alice.status(BOB).status == 200  # by now the server has counted what came before, too
        before = kmes.server.connections_made
        assert [alice.status(BOB).status for _ in range(5)] == [200] * 5
        assert kmes.server.connections_made == before
