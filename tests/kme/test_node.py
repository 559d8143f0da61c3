"""A node among others: roles, alarms, metrics, files that change, multicast, no key where none belongs."""

import base64
import json
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from openqci.services.audit import entries, verify
from openqci.services.telemetry import Telemetry
from openqci.services.watch import SEVERITY
from tests.kme.make import Process, keys_in_time, openqci, status_of
from tests.kme.torture import TwoSites
from tests.system.make import free_port_base

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
REFUSED = (OSError, HTTPException)


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoSites]:
    folder = tmp_path_factory.mktemp("sites")
    sites = TwoSites(folder, free_port_base(40, 17800))
    for role in ("security-officer", "auditor", "operator"):
        openqci(folder, "pki", "issue", "pki", "--role", role, "--name", role, "--out", role)
    for sae in ("app-b2", "app-x"):
        openqci(folder, "pki", "issue", "pki", "--role", "sae", "--name", sae, "--out", sae)
    # A second application at B, which A knows, too.
    for end, text, instead in (
        ("b", 'id = "app-b"', 'id = "app-b"\n\n[[sae]]\nid = "app-b2"'),
        ("a", 'saes = ["app-b"]', 'saes = ["app-b", "app-b2"]'),
    ):
        config = folder / end / "kme.toml"
        config.write_text(config.read_text().replace(text, instead, 1))
    openqci(folder, "pki", "revoke", "pki")
    config = folder / "a" / "kme.toml"
    config.write_text(
        config.read_text().replace("[listen]", 'revocation_lists = ["../pki/crl.pem"]\n\n[listen]')
    )
    psk = folder / "psk"
    psk.write_text("2a" * 32)
    psk.chmod(0o600)
    text = config.read_text().replace(
        'id = "app-a"', 'id = "app-a"\npsk_identity = "router"\npsk_file = "../psk"', 1
    )
    listen = f'[listen]\nskip = "127.0.0.1:{sites.base + 3}"\nskip_psk = "127.0.0.1:{sites.base + 4}"'
    config.write_text(text.replace("[listen]", listen, 1))
    processes = [sites.modules, *sites.kmes.values()]
    try:
        for process in processes:
            process.start()
        yield sites
    finally:
        for process in processes:
            process.kill()


def ask(
    sites: TwoSites, port: int, folder: str, method: str, path: str, body: bytes | None = None
) -> tuple[int, bytes]:
    """Send one request with the certificate in a folder."""
    tls = ssl.create_default_context(cafile=str(sites.folder / "pki" / "ca.pem"))
    tls.load_cert_chain(sites.folder / folder / "cert.pem", sites.folder / folder / "key.pem")
    with closing(HTTPSConnection("localhost", port, context=tls, timeout=10)) as connection:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = connection.getresponse()
        return answer.status, answer.read()


def operator_port(sites: TwoSites) -> int:
    return sites.base + 2


@pytest.mark.parametrize(
    ("folder", "path", "expected"),
    [
        ("operator", "/status", 200),
        ("auditor", "/metrics", 200),
        ("security-officer", "/status", 200),
        ("a/tls", "/status", 200),
        ("b/tls", "/status", 401),
        ("app-a", "/status", 401),
        ("app-a", "/metrics", 401),
        ("app-a", "/health/live", 200),
        ("app-a", "/health/ready", 200),
        ("operator", "/nothing", 404),
    ],
)
def test_who_may_look(sites: TwoSites, folder: str, path: str, expected: int) -> None:
    assert ask(sites, operator_port(sites), folder, "GET", path)[0] == expected


@pytest.mark.parametrize("folder", ["operator", "auditor", "app-a", "a/tls"])
def test_who_may_not_zeroise(sites: TwoSites, folder: str) -> None:
    assert ask(sites, operator_port(sites), folder, "POST", "/zeroise", b"zeroise")[0] == 401


def test_zeroising_asks_for_the_word(sites: TwoSites) -> None:
    assert ask(sites, operator_port(sites), "security-officer", "POST", "/zeroise", b"yes")[0] == 400


@pytest.mark.parametrize("folder", ["operator", "security-officer", "app-x", "b/tls"])
def test_other_roles_are_no_application(sites: TwoSites, folder: str) -> None:
    assert ask(sites, sites.base, folder, "GET", "/api/v1/keys/app-b/status")[0] == 401


@pytest.mark.parametrize("folder", ["operator", "app-a"])
def test_other_roles_are_no_peer(sites: TwoSites, folder: str) -> None:
    for path in ("/peer/v1/hello", "/peer/v1/turn"):
        status, _ = ask(sites, sites.base + 1, folder, "POST", path, b"{}")
        assert status in (401, 404)


def test_metrics_are_told_with_units_and_without_key_ids(sites: TwoSites) -> None:
    with closing(sites.client("a")) as master:
        answer = keys_in_time(master, "app-b")
    text = ask(sites, operator_port(sites), "operator", "GET", "/metrics")[1].decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert answer.key_ids[0] not in text
    delivered = {
        sample.labels["role"]: sample.value
        for sample in families["openqci_kme_keys_delivered"].samples
        if sample.name.endswith("_total")
    }
    assert delivered["master"] >= 1
    assert families["openqci_kme_request_seconds"].samples
    stock = families["openqci_kme_pair_stock_bytes"].samples[0]
    assert (stock.labels["master"], stock.value > 0) == ("app-a", True)


def test_the_page_of_metrics_names_them_all() -> None:
    page = (REFERENCE / "metrics.md").read_text()
    registry = Telemetry().registry
    names = {metric.name + ("_total" if metric.type == "counter" else "") for metric in registry.collect()}
    told = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `openqci_kme_")}
    assert told == names


def test_the_page_of_alarms_names_them_all() -> None:
    page = (REFERENCE / "alarms.md").read_text()
    told = {
        tuple(cell.strip(" `") for cell in line.split("|")[1:3])
        for line in page.splitlines()
        if line.startswith("| `")
    }
    assert told == set(SEVERITY.items())


def test_multicast_gives_one_key_to_three(sites: TwoSites) -> None:
    body = json.dumps({"additional_slave_SAE_IDs": ["app-b2"]}).encode()
    deadline_s = time.monotonic() + 60
    while True:
        status, content = ask(sites, sites.base, "app-a", "POST", "/api/v1/keys/app-b/enc_keys", body)
        if status != 503 or time.monotonic() > deadline_s:
            break
    assert status == 200, content
    keys = json.loads(content)["keys"]
    for slave in ("app-b", "app-b2"):
        path = f"/api/v1/keys/app-a/dec_keys?key_ID={keys[0]['key_ID']}"
        assert json.loads(ask(sites, sites.base + 10, slave, "GET", path)[1])["keys"] == keys
        assert ask(sites, sites.base + 10, slave, "GET", path)[0] == 400


def test_an_encryptor_gets_keys_by_skip(sites: TwoSites) -> None:
    deadline_s = time.monotonic() + 60
    while True:
        status, content = ask(sites, sites.base + 3, "app-a", "GET", "/key?remoteSystemID=app-b")
        if status != 503 or time.monotonic() > deadline_s:
            break
    key = json.loads(content)
    text = key["keyId"]
    uuid = f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
    with closing(sites.client("b")) as slave:
        assert slave.dec_keys("app-a", [uuid]).keys[0].hex() == key["key"]
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{sites.base + 4}", "-psk", "2a" * 32]
    done = subprocess.run(
        [*command, "-psk_identity", "router", "-ign_eof"],
        input="GET /capabilities HTTP/1.1\r\nHost: kp\r\nConnection: close\r\n\r\n",
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert '"localSystemID":"app-a"' in done.stdout


def test_a_missing_peer_is_an_alarm_and_stocks_serve_on(sites: TwoSites) -> None:
    with closing(sites.client("a")) as master:
        keys_in_time(master, "app-b")
        sites.kmes["b"].kill()
        try:
            alarms = alarms_until(sites, lambda codes: "peer" in codes)
            assert next(alarm for alarm in alarms if alarm["code"] == "peer")["subject"] == "kme-b"
            assert master.enc_keys("app-b").status == 200
        finally:
            sites.kmes["b"].start()
    alarms_until(sites, lambda codes: "peer" not in codes)


def alarms_until(sites: TwoSites, good: Any) -> list[dict[str, Any]]:
    deadline_s = time.monotonic() + 30
    while True:
        alarms = list(status_of(sites.folder, "a/kme.toml")["alarms"])
        if good({alarm["code"] for alarm in alarms}):
            return alarms
        assert time.monotonic() < deadline_s, alarms
        time.sleep(0.2)


def test_a_certificate_is_revoked_while_the_node_runs(sites: TwoSites) -> None:
    openqci(sites.folder, "pki", "issue", "pki", "--role", "operator", "--name", "leaver", "--out", "leaver")
    assert ask(sites, operator_port(sites), "leaver", "GET", "/status")[0] == 200
    openqci(sites.folder, "pki", "revoke", "pki", "--certificate", "leaver/cert.pem")
    process = sites.kmes["a"].process
    assert process is not None
    process.send_signal(signal.SIGHUP)
    deadline_s = time.monotonic() + 20
    with pytest.raises(REFUSED):
        while time.monotonic() < deadline_s:
            ask(sites, operator_port(sites), "leaver", "GET", "/status")
            time.sleep(0.1)
    assert ask(sites, operator_port(sites), "operator", "GET", "/status")[0] == 200


def test_files_that_cannot_be_used_are_an_alarm_and_the_node_goes_on(sites: TwoSites) -> None:
    certificate = sites.folder / "a" / "tls" / "cert.pem"
    good = certificate.read_bytes()
    process = sites.kmes["a"].process
    assert process is not None
    try:
        certificate.write_bytes((sites.folder / "b" / "tls" / "cert.pem").read_bytes())
        process.send_signal(signal.SIGHUP)
        deadline_s = time.monotonic() + 20
        while time.monotonic() < deadline_s:
            status, content = ask(sites, operator_port(sites), "operator", "GET", "/status")
            found = [alarm for alarm in json.loads(content)["alarms"] if alarm["code"] == "certificates"]
            if found:
                break
            time.sleep(0.1)
        assert status == 200 and "is not the key of" in found[0]["reason"]
    finally:
        certificate.write_bytes(good)
        process.send_signal(signal.SIGHUP)
    alarms_until(sites, lambda codes: "certificates" not in codes)


def test_no_key_is_where_none_belongs(sites: TwoSites) -> None:
    """Delivered keys and stocked ones are in no log, audit entry, metric, status or database file (I6)."""
    with closing(sites.client("a")) as master, closing(sites.client("b")) as slave:
        answer = keys_in_time(master, "app-b", 20)
        assert slave.dec_keys("app-a", answer.key_ids).keys == answer.keys
    said = [ask(sites, operator_port(sites), "operator", "GET", path)[1] for path in ("/status", "/metrics")]
    time.sleep(0.3)  # the audit log writes in groups
    files = [
        path
        for folder in ("a", "b")
        for path in (sites.folder / folder).rglob("*")
        if path.is_file() and "tls" not in path.parts
    ]
    everything = b"".join([*said, *(path.read_bytes() for path in [*files, *sites.folder.glob("*.log")])])
    assert len(everything) > 100_000
    for key in answer.keys:
        forms = (
            key,
            key.hex().encode(),
            base64.b64encode(key),
            base64.urlsafe_b64encode(key),
            repr(key).encode(),
        )
        assert not any(form in everything for form in forms)
    assert all(key_id.encode() in everything for key_id in answer.key_ids), "the audit log names the keys"
    for folder in ("a", "b"):
        log = sites.folder / folder / "state" / "audit"
        assert verify(log).fault == ""
        roles = {entry.role for entry in entries(log) if answer.key_ids[0] in entry.facts.get("key_ids", ())}
        assert roles == {"master" if folder == "a" else "slave"}


def test_a_production_node_refuses_simulated_key(sites: TwoSites, tmp_path: Path) -> None:
    """Invariant I7: the module says itself that it is simulated, whatever the configuration says."""
    config = (sites.folder / "a" / "kme.toml").read_text()
    config = config.replace('mode = "laboratory"', 'mode = "production"').replace("simulated = true", "")
    for port in range(3):
        config = config.replace(f":{sites.base + port}", f":{sites.base + 30 + port}")
    folder = sites.folder / "p"
    folder.mkdir()
    (folder / "kme.toml").write_text(config)
    for name in ("tls",):
        (folder / name).symlink_to(sites.folder / "a" / name)
    from openqci.services.kme_config_file import load_config
    from openqci.services.state_folder import StateFolder

    StateFolder.make(load_config(folder / "kme.toml"))
    sites.kmes["a"].stop()
    node = Process(sites.folder, "p", "kme", "run", "--config", "p/kme.toml")
    peer = sites.folder / "b" / "kme.toml"
    text = peer.read_text()
    peer.write_text(text.replace(f"localhost:{sites.base + 1}", f"localhost:{sites.base + 31}"))
    sites.kmes["b"].stop()
    try:
        sites.kmes["b"].start()
        node.start()
        deadline_s = time.monotonic() + 30
        while True:
            status = status_of(sites.folder, "p/kme.toml")
            reasons = [alarm["reason"] for alarm in status["alarms"] if alarm["code"] == "source"]
            if any("simulated" in reason for reason in reasons) or time.monotonic() > deadline_s:
                break
            time.sleep(0.2)
        assert any("a production node refuses it" in reason for reason in reasons), status
        assert [link["own_bytes"] + link["peer_bytes"] for link in status["links"]] == [0]
    finally:
        node.kill()
        peer.write_text(text)
        sites.kmes["b"].stop()
        sites.kmes["b"].start()
        sites.kmes["a"].start()
