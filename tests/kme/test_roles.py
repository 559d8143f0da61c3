"""Six roles and every interface of a real node: each opens its own and no other, and a refusal says why."""

import json
import ssl
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from http.client import HTTPConnection

import pytest

from openqci.core.identifiers import KmeId, SaeId
from openqci.delivery import etsi004_model
from openqci.delivery.etsi004_model import NIL, OpenConnect, QoS
from openqci.services import pki
from openqci.services.module_app import PUSH_PATH
from openqci.services.peer_line import HELLO_PATH, TURN_PATH
from openqci.services.pki import CertificateAuthority, IssuedCertificate, write_credentials
from openqci.services.roles import Role
from tests.kme.make import openqci
from tests.kme.whole import CREDENTIALS, LISTENERS, WholeSites
from tests.system.make import free_port_base

REFUSED = 401
SIX = (
    Role.SAE,
    Role.KME,
    Role.QKD_MODULE,
    Role.OPERATOR,
    Role.SECURITY_OFFICER,
    Role.AUDITOR,
)
LOOKS = {Role.OPERATOR, Role.SECURITY_OFFICER, Role.AUDITOR}

REQUESTS: dict[str, tuple[str, str, str, bytes, dict[Role, int]]] = {
    "status": ("sae", "GET", "/api/v1/keys/app-b/status", b"", {Role.SAE: 200}),
    "enc_keys": ("sae", "POST", "/api/v1/keys/nobody/enc_keys", b"{}", {Role.SAE: 400}),
    "hello": ("peer", "POST", HELLO_PATH, b"no hello", {Role.KME: 400}),
    "turn": ("peer", "POST", TURN_PATH, b"no turn", {Role.KME: 400}),
    "look": ("operator", "GET", "/status", b"", dict.fromkeys(LOOKS, 200)),
    "metrics": ("operator", "GET", "/metrics", b"", dict.fromkeys(LOOKS, 200)),
    "account": ("operator", "GET", "/account", b"", dict.fromkeys(LOOKS, 404)),
    "zeroise": ("operator", "POST", "/zeroise", b"not the word", {Role.SECURITY_OFFICER: 400}),
    "renew": ("operator", "POST", "/renew", b"", {Role.SECURITY_OFFICER: 200}),
    "push": ("module", "POST", PUSH_PATH, b"no key", {Role.QKD_MODULE: 400}),
    "capabilities": ("skip", "GET", "/capabilities", b"", {Role.SAE: 200}),
    "entropy": ("skip", "GET", "/entropy", b"", {Role.SAE: 200}),
}
"""What is asked of which interface, and who gets further than 401. Who does and sends nonsense gets 400."""


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeSites]:
    sites = WholeSites(tmp_path_factory.mktemp("roles"), free_port_base(40, 18900))
    authority = CertificateAuthority.open(sites.folder / "pki")
    # A name is not a role: each of these bears the name of somebody else.
    for role in (Role.OPERATOR, Role.QKD_MODULE):
        for name in ("app-a", "kme-b"):
            write_credentials(sites.folder / f"{role}-{name}", authority.issue_holder(role, name), authority)
    openqci(sites.folder, "pki", "revoke", "pki")
    config = sites.folder / "a" / "kme.toml"
    lists = 'revocation_lists = ["../pki/crl.pem"]\n\n[listen]'
    config.write_text(config.read_text().replace("[listen]", lists, 1))
    try:
        sites.kmes["a"].start()
        yield sites
    finally:
        sites.kmes["a"].kill()


def ask(sites: WholeSites, name: str, folder: str) -> tuple[int, str]:
    """Ask with the certificate in a folder; return the status and the message."""
    listener, method, path, body, _ = REQUESTS[name]
    connection = HTTPConnection("localhost", sites.port(listener), timeout=15)
    with sites.connected(listener, folder) as tls, closing(connection):
        connection.sock = tls
        connection.request(method, path, body)
        answer = connection.getresponse()
        content = answer.read().decode()
    return answer.status, json.loads(content).get("message", "") if answer.status >= 400 else ""


@pytest.mark.parametrize("role", SIX)
@pytest.mark.parametrize("name", REQUESTS)
def test_each_role_opens_its_own_interface_alone(sites: WholeSites, name: str, role: Role) -> None:
    *_, further = REQUESTS[name]
    status, message = ask(sites, name, CREDENTIALS[role])
    assert status == further.get(role, REFUSED), message


def test_every_interface_was_asked() -> None:
    assert {listener for listener, *_ in REQUESTS.values()} | {"etsi004", "skip_psk"} == set(LISTENERS)


@pytest.mark.parametrize("role", SIX)
def test_only_an_application_reads_key_streams(sites: WholeSites, role: Role) -> None:
    wanted = OpenConnect("qkd://app-a", "qkd://app-b", QoS(chunk_bytes=32, timeout_ms=1, ttl_s=60), NIL)
    with sites.connected("etsi004", CREDENTIALS[role]) as tls:
        try:
            tls.sendall(etsi004_model.encode_request(wanted))
            answer = tls.recv(64)
        except OSError:
            answer = b""
    assert bool(answer) is (role is Role.SAE)


@pytest.mark.parametrize("role", SIX)
def test_no_certificate_opens_the_interface_for_pre_shared_keys(sites: WholeSites, role: Role) -> None:
    with pytest.raises(OSError), sites.connected("skip_psk", CREDENTIALS[role]):
        pass


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize(
    ("folder", "role"),
    [(f"{role}-{name}", role) for role in (Role.OPERATOR, Role.QKD_MODULE) for name in ("app-a", "kme-b")],
)
def test_a_name_is_not_a_role(sites: WholeSites, name: str, folder: str, role: Role) -> None:
    """An operator whose common name is that of an application, or of a KME, is neither."""
    *_, further = REQUESTS[name]
    expected = REFUSED if role is Role.QKD_MODULE else further.get(role, REFUSED)
    assert ask(sites, name, folder)[0] == expected


@pytest.mark.parametrize(
    ("name", "folder", "says"),
    [
        ("zeroise", "operator", "with the role security-officer; that of the caller is of operator"),
        ("look", "app-a", "role auditor or operator or security-officer; that of the caller is of sae app-a"),
        ("hello", "operator", "names no peer KME of this node ([[peer]] kme_id): it names no KME at all"),
        ("hello", "a/tls", "it names kme-a; expected the URI urn:openqci:kme:ID"),
        ("push", "app-a", "needs a certificate with the role module; that of the caller is of sae app-a"),
        ("push", "module-app-a", "no [link.etsi004_push] of this node has the module app-a"),
        ("status", "operator", "the caller is not authorised"),
    ],
)
def test_a_refusal_names_the_role_and_the_name(sites: WholeSites, name: str, folder: str, says: str) -> None:
    """Save at the application interface, where one text answers all, so that it tells nothing about keys."""
    status, message = ask(sites, name, folder)
    assert status == REFUSED and says in message, message


def late(sites: WholeSites, monkeypatch: pytest.MonkeyPatch) -> IssuedCertificate:
    monkeypatch.setattr(pki, "CERTIFICATE_DAYS", -1)
    monkeypatch.setattr(pki, "CLOCK_SKEW", timedelta(days=3))
    return CertificateAuthority.open(sites.folder / "pki").issue_sae(SaeId("app-a"))


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("date", "its certificate is refused: certificate has expired"),
        ("CA", "its certificate is refused: unable to get local issuer certificate"),
        ("revoked", "its certificate is refused: certificate revoked"),
        ("purpose", "its certificate is refused: unsuitable certificate purpose"),
        ("none", "it shows no certificate"),
    ],
)
def test_the_log_says_why_a_certificate_was_refused(
    sites: WholeSites, fault: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handshake ends, and the caller learns no more; the operator of the node finds the reason."""
    authority, folder = CertificateAuthority.open(sites.folder / "pki"), f"bad-{fault}"
    if fault == "date":
        issued = late(sites, monkeypatch)
    elif fault == "CA":
        other = CertificateAuthority.open_or_create(sites.folder / "other-pki")
        issued = other.issue_sae(SaeId("app-a"))
    elif fault == "purpose":
        issued = authority.issue_kme(KmeId("kme-x"))  # for servers alone
    else:
        issued = authority.issue_sae(SaeId("app-a"))
    write_credentials(sites.folder / folder, issued, authority)
    if fault == "revoked":
        openqci(sites.folder, "pki", "revoke", "pki", "--certificate", f"{folder}/cert.pem")
        process = sites.kmes["a"].process
        assert process is not None
        process.send_signal(1)
        wait_for(sites, "certificates and revocation lists were read again")
    refuse(sites, folder if fault != "none" else None)
    line = wait_for(sites, says)
    assert line["address"] == "127.0.0.1" and f"port {sites.port('sae')}" in line["message"]


def refuse(sites: WholeSites, folder: str | None) -> None:
    try:
        with sites.connected("sae", folder) as tls:
            tls.sendall(b"GET /api/v1/keys/app-b/status HTTP/1.1\r\n\r\n")
            assert tls.recv(100) == b""
    except (ssl.SSLError, ConnectionError):
        pass


def wait_for(sites: WholeSites, words: str) -> dict[str, str]:
    give_up_s = time.monotonic() + 15
    while time.monotonic() < give_up_s:
        for line in sites.log():
            if words in line["message"]:
                return line
        time.sleep(0.1)
    raise AssertionError(f"{words!r} is not in the log:\n{sites.log()}")
