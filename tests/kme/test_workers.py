"""Nodes whose applications are served by several worker processes on one PostgreSQL."""

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from openqci.core.identifiers import SaeId
from openqci.crypto.sealing import number_of
from openqci.services.audit import AuditEvent, Entry, entries, verify
from openqci.services.pki import CertificateAuthority, write_credentials
from openqci.services.roles import Role
from openqci.services.sae_client import Answer
from tests.keystore.postgres import server_url
from tests.kme.make import keys_in_time, openqci, sae
from tests.kme.test_node import ask
from tests.kme.torture import Applications, Book, TwoSites, wait_until_quiet
from tests.system.make import free_port_base

WORKERS = 2
QUOTA_KEYS_PER_S, QUOTA_BURST_KEYS = 10, 40
LOAD_S = 3.0
GONE_S_MAX = 3.0


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoSites]:
    folder = tmp_path_factory.mktemp("sites")
    sites = TwoSites(folder, free_port_base(40, 15800), server_url(), dict.fromkeys("ab", WORKERS))
    authority = CertificateAuthority.open_or_create(folder / "pki")
    for role, name in ((Role.SECURITY_OFFICER, "ana"), (Role.OPERATOR, "oleg")):
        write_credentials(folder / name, authority.issue_holder(role, name), authority)
    for name in ("app-q", "app-r", "app-b2", "app-b3"):
        write_credentials(folder / name, authority.issue_sae(SaeId(name)), authority)
    openqci(folder, "pki", "revoke", "pki")
    quota = f"quota_bps = {256 * QUOTA_KEYS_PER_S}\nquota_burst_bytes = {32 * QUOTA_BURST_KEYS}"
    change(
        folder / "a" / "kme.toml",
        ('id = "app-a"', f'id = "app-a"\n\n[[sae]]\nid = "app-r"\n\n[[sae]]\nid = "app-q"\n{quota}'),
        ('saes = ["app-b"]', 'saes = ["app-b", "app-b2", "app-b3"]'),
        (
            "[listen]",
            f'revocation_lists = ["../pki/crl.pem"]\n\n[listen]\nskip = "127.0.0.1:{sites.base + 3}"',
        ),
        ("[node]", "[demand]\npairs_max = 4\n\n[node]"),
    )
    change(
        folder / "b" / "kme.toml",
        ('id = "app-b"', 'id = "app-b"\n\n[[sae]]\nid = "app-b2"\n\n[[sae]]\nid = "app-b3"'),
        ('saes = ["app-a"]', 'saes = ["app-a", "app-q", "app-r"]'),
    )
    processes = [sites.modules, *sites.kmes.values()]
    try:
        for process in processes:
            process.start()
        with closing(sites.client("a")) as at_a, closing(sites.client("b")) as at_b:
            assert keys_in_time(at_a, "app-b").status == keys_in_time(at_b, "app-a").status == 200
        yield sites
    finally:
        for process in processes:
            process.kill()


def change(config: Path, *texts: tuple[str, str]) -> None:
    content = config.read_text()
    for old, new in texts:
        assert old in content, old
        content = content.replace(old, new, 1)
    config.write_text(content)


def until(holds: Callable[[], Any], within_s: float = 30.0) -> Any:
    """Return what is true in the end."""
    deadline_s = time.monotonic() + within_s
    while not (found := holds()):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    return found


def status_at(sites: TwoSites, end: str) -> dict[str, Any]:
    status, content = ask(sites, sites.base + (2 if end == "a" else 12), "oleg", "GET", "/status")
    assert status == 200
    document: dict[str, Any] = json.loads(content)
    return document


def workers(sites: TwoSites, end: str) -> list[dict[str, Any]]:
    return list(status_at(sites, end)["workers"])


def all_serve(sites: TwoSites, end: str) -> bool:
    return all(worker["serving"] for worker in workers(sites, end))


def kill(sites: TwoSites, end: str, which: int) -> None:
    """``kill -9`` of a worker; return when another serves in its place."""
    pid = workers(sites, end)[which]["pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: (pids := pids_serving(sites, end)) and pid not in pids and None not in pids)


def pids_serving(sites: TwoSites, end: str) -> list[int | None]:
    return [worker["pid"] for worker in workers(sites, end)]


def under_load(sites: TwoSites, act: Callable[[], None]) -> Book:
    """Have applications fetch keys in both directions while something happens; return what they were told."""
    book = Book()
    lines = [Applications(sites, book, end, f"{end}/{n}") for end in "ab" for n in range(4)]
    for line in lines:
        line.start()
    try:
        act()
    finally:
        for line in lines:
            line.halt.set()
        for line in lines:
            line.join(60)
    assert not any(line.is_alive() for line in lines)
    for line in lines:
        with closing(sites.client(line.ends[1])) as slave:
            for key_ids in line.later:
                line.collect(slave, key_ids)
    return book


def metric(sites: TwoSites, name: str, **labels: str) -> float:
    text = ask(sites, sites.base + 2, "oleg", "GET", "/metrics")[1].decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def audited(sites: TwoSites, end: str, event: AuditEvent) -> list[Entry]:
    time.sleep(0.3)  # the audit log writes in groups
    log = sites.folder / end / "state" / "audit"
    assert verify(log).fault == ""
    return [entry for entry in entries(log) if entry.event == event]


def delivered_ids(sites: TwoSites, end: str, role: str) -> Counter[str]:
    found = audited(sites, end, AuditEvent.KEYS_DELIVERED)
    return Counter(key_id for entry in found if entry.role == role for key_id in entry.facts["key_ids"])


def test_all_workers_serve_and_keys_agree(sites: TwoSites) -> None:
    before = {end: workers(sites, end) for end in "ab"}
    book = under_load(sites, lambda: time.sleep(LOAD_S))
    assert book.faults == [] and book.fetched == set(book.acknowledged) and len(book.fetched) > 50
    for end in "ab":
        took_part = [
            now["answers"] - then["answers"]
            for now, then in zip(workers(sites, end), before[end], strict=True)
        ]
        assert len(took_part) == WORKERS and min(took_part) > 10, took_part
    # One audit log and one table of metrics for all workers, and both are whole.
    ids = delivered_ids(sites, "a", "master")
    assert set(book.acknowledged) <= set(ids) | set(delivered_ids(sites, "b", "master"))
    assert max(ids.values()) == 1
    assert (
        metric(sites, "openqci_kme_keys_delivered_total", interface="etsi014", role="master") == ids.total()
    )
    assert status_at(sites, "a")["keys_delivered"] == ids.total()
    answers = sum(worker["answers"] for worker in workers(sites, "a"))
    assert metric(sites, "openqci_kme_requests_total", interface="etsi014") == answers
    assert metric(sites, "openqci_kme_request_seconds_count", interface="etsi014") == answers


def test_a_killed_worker_is_replaced_and_nothing_is_lost_or_doubled(sites: TwoSites) -> None:
    replaced = metric(sites, "openqci_kme_workers_replaced_total")

    def kill_one_after_the_other() -> None:
        for end, which in (("a", 0), ("b", 1), ("a", 1)):
            time.sleep(0.7)
            kill(sites, end, which)

    book = under_load(sites, kill_one_after_the_other)
    assert book.faults == [] and len(book.fetched) > 50
    assert metric(sites, "openqci_kme_workers_replaced_total") == replaced + 2
    # The coordinators lived: what was acknowledged is in their audit logs, by whichever worker.
    masters = {end: delivered_ids(sites, end, "master") for end in "ab"}
    slaves = {end: delivered_ids(sites, end, "slave") for end in "ab"}
    assert set(book.acknowledged) <= set(masters["a"]) | set(masters["b"])
    assert book.fetched <= set(slaves["a"]) | set(slaves["b"])
    assert max(max(ids.values()) for ids in (*masters.values(), *slaves.values())) == 1
    raised = [
        entry for entry in audited(sites, "a", AuditEvent.ALARM_RAISED) if entry.facts["code"] == "worker"
    ]
    assert [entry.facts["reason"] for entry in raised] == 2 * ["ended by SIGKILL"]
    assert not any(alarm["code"] == "worker" for alarm in status_at(sites, "a")["alarms"])


def test_a_quota_holds_over_all_workers_and_is_whole_for_one_connection(sites: TwoSites) -> None:
    with closing(sae(sites.folder, "app-q", sites.base)) as first:
        assert keys_in_time(first, "app-b").status == 200
    time.sleep(QUOTA_BURST_KEYS / QUOTA_KEYS_PER_S)  # the bucket is full
    before = {worker["worker"]: worker["answers"] for worker in workers(sites, "a")}
    began_s = time.monotonic()

    def hammer(number: int) -> list[Answer]:
        with closing(sae(sites.folder, "app-q", sites.base)) as client:
            answers = []
            while time.monotonic() - began_s < LOAD_S:
                answers.append(client.enc_keys("app-b", number))
            return answers

    with ThreadPoolExecutor(6) as clients:
        answers = [answer for found in clients.map(hammer, (1, 1, 1, 5, 5, 20)) for answer in found]
    elapsed_s = time.monotonic() - began_s
    keys = sum(len(answer.keys) for answer in answers)
    assert QUOTA_BURST_KEYS <= keys <= QUOTA_BURST_KEYS + QUOTA_KEYS_PER_S * elapsed_s
    refused = [answer for answer in answers if answer.status != 200]
    assert refused and {(answer.status, answer.message) for answer in refused} == {
        (503, "the quota of this SAE is used up")
    }
    assert all(answer.retry_after_s for answer in refused)
    assert min(worker["answers"] - before[worker["worker"]] for worker in workers(sites, "a")) > 10
    with closing(sae(sites.folder, "app-q", sites.base)) as client:
        assert client.enc_keys("app-b", QUOTA_BURST_KEYS + 1).status == 400


def test_requests_that_wait_in_any_worker_are_woken_when_key_comes(sites: TwoSites) -> None:
    def first_key(_: int) -> Answer:
        with closing(sae(sites.folder, "app-r", sites.base)) as client:
            return client.enc_keys("app-b2")

    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(first_key, range(8)))
    # A request whose stock has not come within its wait is refused without another look.
    assert [answer.status for answer in answers] == 8 * [200]
    with closing(sae(sites.folder, "app-b2", sites.base + 10)) as slave:
        for answer in answers:
            assert slave.dec_keys("app-r", answer.key_ids).keys == answer.keys


def test_a_pair_for_which_no_key_can_come_is_refused_at_once(sites: TwoSites) -> None:
    # app-a > app-b, app-q > app-b, app-r > app-b2 and this one are all that this KME keeps stocks for.
    with closing(sae(sites.folder, "app-a", sites.base)) as client:
        assert keys_in_time(client, "app-b2").status == 200
        began_s = time.monotonic()
        for slave in ("app-b3", "app-b3"):
            refused = client.enc_keys(slave)
            assert (refused.status, refused.retry_after_s) == (503, None)
            assert {"reason": "this KME keeps stocks for 4 pairs already"} in refused.body["details"]
        assert time.monotonic() - began_s < 3.0


def test_encryptors_are_served_by_workers_too(sites: TwoSites) -> None:
    before = sum(worker["answers"] for worker in workers(sites, "a"))
    path = "/key?remoteSystemID=app-b"
    content = until(
        lambda: (found := ask(sites, sites.base + 3, "app-a", "GET", path))[0] == 200 and found[1]
    )
    key = json.loads(content)
    text = key["keyId"]
    uuid = f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
    with closing(sites.client("b")) as slave:
        assert slave.dec_keys("app-a", [uuid]).keys[0].hex() == key["key"]
    assert delivered_ids(sites, "a", "master")[uuid] == 1
    assert sum(worker["answers"] for worker in workers(sites, "a")) > before


def test_a_lease_of_one_worker_is_drawn_and_written_down_by_any(sites: TwoSites) -> None:
    path, body = "/api/v1/keys/app-b/openqci_leases", json.dumps({"number": 6, "duration_s": 60}).encode()
    granted = until(
        lambda: (found := ask(sites, sites.base, "app-a", "POST", path, body))[0] != 503 and found
    )
    assert granted[0] in (200, 201), granted
    lease = json.loads(granted[1])
    drawn = json.dumps({"number": 1, "extension_mandatory": [{"openqci_lease": lease["lease_id"]}]}).encode()
    key_ids = []
    for _ in range(4):  # each over a connection of its own, and so by either worker
        status, content = ask(sites, sites.base, "app-a", "POST", "/api/v1/keys/app-b/enc_keys", drawn)
        assert status == 200, content
        key_ids += [key["key_ID"] for key in json.loads(content)["keys"]]
    assert ask(sites, sites.base, "app-a", "DELETE", f"{path}/{lease['lease_id']}")[0] == 200
    assert len(set(key_ids)) == 4 and set(key_ids) <= set(delivered_ids(sites, "a", "master"))
    for event in (AuditEvent.KEYS_LEASED, AuditEvent.LEASE_ENDED):
        told = [entry.facts["lease_id"] for entry in audited(sites, "a", event)]
        assert told.count(lease["lease_id"]) == 1


def test_connections_of_all_workers_are_counted_together(sites: TwoSites) -> None:
    tls = tls_of(sites.folder / "app-a")
    connections = [HTTPSConnection("localhost", sites.base, context=tls, timeout=10) for _ in range(6)]
    for connection in connections:
        connection.connect()
    until(lambda: status_at(sites, "a")["connections"]["sae"]["open"] == 6)
    for connection in connections:
        connection.close()
    until(lambda: status_at(sites, "a")["connections"]["sae"]["open"] == 0)


def test_files_are_read_again_by_all_workers(sites: TwoSites) -> None:
    folder = sites.folder
    openqci(folder, "pki", "issue", "pki", "--role", "sae", "--name", "app-r", "--out", "lost")
    connections = [
        HTTPSConnection("localhost", sites.base, context=tls_of(folder / "lost"), timeout=10)
        for _ in range(6)
    ]

    def answers(connection: HTTPSConnection) -> bool:
        try:
            connection.request("GET", "/api/v1/keys/app-b/status")
            return connection.getresponse().read() != b""
        except (OSError, HTTPException):
            return False

    assert all(map(answers, connections))
    openqci(folder, "pki", "revoke", "pki", "--certificate", "lost/cert.pem")
    hang_up(sites, "a")
    # The connections that were open are cut, whichever worker has them, and no new one is let in.
    until(lambda: not any(connection.sock is not None and answers(connection) for connection in connections))
    for connection in connections:
        connection.close()
        assert not answers(connection)
        connection.close()
    with closing(sae(folder, "app-r", sites.base)) as client:
        assert client.status("app-b").status == 200


def test_files_that_workers_cannot_use_are_an_alarm_and_they_go_on(sites: TwoSites) -> None:
    certificate = sites.folder / "a" / "tls" / "cert.pem"
    good = certificate.read_bytes()

    def standing() -> set[str]:
        return {alarm["code"] for alarm in status_at(sites, "a")["alarms"]}

    try:
        certificate.write_bytes((sites.folder / "b" / "tls" / "cert.pem").read_bytes())
        hang_up(sites, "a")
        until(lambda: "certificates" in standing())
        with closing(sites.client("a")) as client:
            assert client.status("app-b").status == 200
    finally:
        certificate.write_bytes(good)
        hang_up(sites, "a")
    until(lambda: "certificates" not in standing())


def hang_up(sites: TwoSites, end: str) -> None:
    process = sites.kmes[end].process
    assert process is not None
    process.send_signal(signal.SIGHUP)


def tls_of(folder: Path) -> Any:
    import ssl

    tls = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    tls.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return tls


def test_root_keys_are_renewed_while_all_workers_serve(sites: TwoSites) -> None:
    words = (
        "kme",
        "renew",
        "--config",
        "a/kme.toml",
        "--certificate",
        "ana/cert.pem",
        "--key",
        "ana/key.pem",
    )

    def renew() -> None:
        time.sleep(0.5)
        for number in (2, 3):
            assert f"root key {number} is in use" in openqci(sites.folder, *words).stdout
            time.sleep(0.5)

    book = under_load(sites, renew)
    assert book.faults == [] and len(book.fetched) > 50
    # Nobody met key that was sealed under a root key that it did not have: no request failed.
    assert not [name for name in book.counts if name.startswith("dec_keys answered") or "lost" in name]
    # Whatever worker has sealed it: nothing is left under a root key that was renewed.
    assert asyncio.run(root_keys_in_use(schema_of(sites, "a"))) == {3}
    kill(sites, "a", 0)
    assert under_load(sites, lambda: time.sleep(1.0)).faults == []


def schema_of(sites: TwoSites, end: str) -> str:
    text = (sites.folder / end / "kme.toml").read_text()
    return text.split('schema_name = "')[1].split('"')[0]


async def root_keys_in_use(schema: str) -> set[int | None]:
    connection = await asyncpg.connect(server_url())
    try:
        rows = await connection.fetch(f"SELECT length, sealed FROM {schema}.segment")
    finally:
        await connection.close()
    return {number_of(bytes(row["sealed"]), row["length"]) for row in rows}


def test_workers_end_with_their_coordinator_and_a_new_one_starts_at_once(sites: TwoSites) -> None:
    before = sites.worker_pids("a")
    sites.kmes["a"].kill()
    until(lambda: not any(map(lives, before)), GONE_S_MAX)
    sites.kmes["a"].start()
    assert all_serve(sites, "a")
    with closing(sites.client("a")) as client:
        assert keys_in_time(client, "app-b").status == 200
    wait_until_quiet(sites, book := Book())
    assert book.faults == []


def test_a_stop_lets_requests_in_hand_end(sites: TwoSites) -> None:
    before = sites.worker_pids("a")
    sites.kmes["b"].kill()
    with ThreadPoolExecutor(1) as other, closing(sites.client("a")) as client:
        client.status("app-b2")
        # More than the stock holds, and no more can come: it waits in its worker until that one drains.
        waiting = other.submit(client.enc_keys, "app-b2", 128, 4096)
        time.sleep(1.0)
        assert not waiting.done()
        began_s = time.monotonic()
        assert sites.kmes["a"].stop() == 0
        assert waiting.result().status == 503 and time.monotonic() - began_s < 4.0
    assert not any(map(lives, before))
    last = list(entries(sites.folder / "a" / "state" / "audit"))[-1]
    assert last.event == AuditEvent.STOPPED
    sites.kmes["a"].start()


def test_zeroisation_ends_all_workers(sites: TwoSites) -> None:
    before, process = sites.worker_pids("a"), sites.kmes["a"].process
    words = (
        "kme",
        "zeroise",
        "--config",
        "a/kme.toml",
        "--certificate",
        "ana/cert.pem",
        "--key",
        "ana/key.pem",
    )
    openqci(sites.folder, *words, "--yes")
    assert not any(map(lives, before)), "when the officer is told, nobody has a root key in memory any more"
    assert process is not None and process.wait(30) == 0
    assert not (sites.folder / "a" / "state" / "keyring.json").exists()
    with pytest.raises(asyncpg.UndefinedTableError):
        asyncio.run(root_keys_in_use(schema_of(sites, "a")))
    assert verify(sites.folder / "a" / "state" / "audit").fault == ""


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
