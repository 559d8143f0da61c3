"""The small network as a newcomer uses it: start, enrol, fetch keys with any client, look, restart."""

import json
import os
import sqlite3
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from etsi_qkd_014_client import QKD014Client

from openqci.network import load_scenario
from tests.system.make import RunningNetwork, keys_in_time, run


@pytest.fixture(scope="module")
def metro(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNetwork]:
    with RunningNetwork("metro", tmp_path_factory.mktemp("live") / "metro") as network:
        network.start()
        yield network


@pytest.fixture(scope="module")
def pair(metro: RunningNetwork) -> dict[str, Path]:
    """Two SAEs in different domains, enrolled while the network runs."""
    first, last = metro.ready["kmes"][0], metro.ready["kmes"][-1]
    other = last if last["domain"] != first["domain"] else metro.ready["kmes"][1]
    folders = {
        "alice-app": metro.enrol(first["site_id"], "alice-app"),
        "bob-app": metro.enrol(other["site_id"], "bob-app"),
        "sites": Path(first["site_id"]) / other["site_id"],
    }
    run("key", "--data-dir", metro.data_dir, "--from", "alice-app", "--to", "bob-app")
    return folders


def sites_of(pair: dict[str, Path]) -> tuple[str, str]:
    first, second = pair["sites"].parts
    return first, second


def test_the_ready_file_names_console_authority_and_every_kme(metro: RunningNetwork) -> None:
    ready = metro.ready
    network = load_scenario("metro")
    assert {kme["site_id"] for kme in ready["kmes"]} == set(network.sites)
    assert len({kme["url"] for kme in ready["kmes"]}) == len(network.sites)
    assert Path(ready["ca"]).read_text().startswith("-----BEGIN CERTIFICATE-----")
    assert metro.console("/healthz")


def test_a_key_comes_with_its_route(metro: RunningNetwork, pair: dict[str, Path]) -> None:
    command = ["key", "--data-dir", metro.data_dir, "--from", "alice-app", "--to", "bob-app", "--json"]
    report = json.loads(run(*command, "--number", 2).stdout)
    assert report["equal"] is True and len(report["key_ids"]) == 2 and "keys" not in report
    network = load_scenario("metro")
    start, end = sites_of(pair)
    assert report["route"][0] == start and report["route"][-1] == end
    neighbours = {frozenset(ends) for _, *ends in network.edges()}
    steps = pairwise(report["route"])
    assert all(frozenset(step) in neighbours for step in steps)
    borders = {frozenset((border.node, border.partner)) for border in network.borders}
    assert report["hops"] == sum(frozenset(step) not in borders for step in pairwise(report["route"]))
    assert report["simulated"] is True and 0 < report["epsilon"] < 1e-6


def test_the_unmodified_public_client_gets_the_same_key(metro: RunningNetwork, pair: dict[str, Path]) -> None:
    clients = []
    for site, sae in zip(sites_of(pair), ("alice-app", "bob-app"), strict=True):
        folder = pair[sae]
        host = metro.kme_url(site).removeprefix("https://").rstrip("/")
        paths = [str(folder / name) for name in ("cert.pem", "key.pem", "ca.pem")]
        clients.append(QKD014Client(host, *paths))
    code, at_master = clients[0].get_key("bob-app", number=1)
    assert code == 200
    key = at_master.keys[0]
    code, at_slave = clients[1].get_key_with_key_IDs("alice-app", [key.key_id])
    assert code == 200
    assert at_slave.keys[0].key == key.key and len(b64decode(key.key)) == 32


def test_curl_gets_the_same_key(metro: RunningNetwork, pair: dict[str, Path]) -> None:
    def curl(site: str, sae: str, path: str) -> dict[str, list[dict[str, str]]]:
        folder = pair[sae]
        options = ["--cacert", folder / "ca.pem", "--cert", folder / "cert.pem", "--key", folder / "key.pem"]
        url = metro.kme_url(site).rstrip("/") + path
        done = subprocess.run(["curl", "-fsS", "--tlsv1.3", *options, url], capture_output=True, check=True)
        answer: dict[str, list[dict[str, str]]] = json.loads(done.stdout)
        return answer

    start, end = sites_of(pair)
    at_master = curl(start, "alice-app", "/api/v1/keys/bob-app/enc_keys")["keys"][0]
    at_slave = curl(end, "bob-app", f"/api/v1/keys/alice-app/dec_keys?key_ID={at_master['key_ID']}")["keys"][
        0
    ]
    assert at_slave == at_master


def test_a_third_application_and_a_wrong_certificate_get_nothing(
    metro: RunningNetwork, pair: dict[str, Path]
) -> None:
    start, end = sites_of(pair)
    third = metro.enrol(end, "third-app")
    with (
        closing(metro.client(start, pair["alice-app"])) as master,
        closing(metro.client(end, third)) as stranger,
        closing(metro.client(start, pair["bob-app"])) as at_wrong_kme,
    ):
        key_ids = master.enc_keys("bob-app", number=1).key_ids
        assert stranger.dec_keys("alice-app", key_ids).status == 401
        assert at_wrong_kme.status("alice-app").status == 401
        assert master.enc_keys("nobody", number=1).status == 400
        assert master.enc_keys("bob-app", number=1, size=7).status == 400
        assert master.enc_keys("bob-app", number=0).status == 400
        assert master.dec_keys("bob-app", ["11111111-2222-4333-8444-555555555555"]).status == 400
    anonymous = subprocess.run(
        ["curl", "-sS", "--cacert", third / "ca.pem", metro.kme_url(start) + "/api/v1/keys/bob-app/status"],
        capture_output=True,
    )
    assert anonymous.returncode != 0, "a caller without a certificate got an answer"


def test_status_counts_every_hop(metro: RunningNetwork, pair: dict[str, Path]) -> None:
    report = json.loads(run("status", "--data-dir", metro.data_dir, "--json").stdout)
    assert report["running"] is True
    assert {hop["link_id"] for hop in report["hops"]} == set(load_scenario("metro").hops)
    wanted = {"link_id", "a", "b", "length_km", "loss_db", "qber", "secret_bits_total", "stock_bits", "state"}
    assert all(wanted <= set(hop) for hop in report["hops"])
    assert report["totals"]["secret_bits_total"] == sum(hop["secret_bits_total"] for hop in report["hops"])
    assert "least stock" in run("status", "--data-dir", metro.data_dir).stdout


def test_a_route_of_the_running_network_tells_stocks(metro: RunningNetwork, pair: dict[str, Path]) -> None:
    start, end = sites_of(pair)
    command = ["route", "--data-dir", metro.data_dir, "--from", start, "--to", end, "--json"]
    report = json.loads(run(*command).stdout)
    (path,) = report["paths"]
    assert report["figures"] == "running" and (path["sites"][0], path["sites"][-1]) == (start, end)
    assert all(hop["stock_bytes"] >= 0 and hop["rate_bps"] > 0 and hop["epsilon"] > 0 for hop in path["hops"])
    assert path["stock_bytes"] == min(hop["stock_bytes"] for hop in path["hops"])


def test_a_second_start_on_the_same_directory_is_refused_in_one_line(metro: RunningNetwork) -> None:
    done = run("up", "--scenario", "metro", "--data-dir", metro.data_dir, "--port-base", 29000, expect=2)
    assert done.stderr.count("\n") == 1 and str(metro.data_dir) in done.stderr


def test_a_port_in_use_is_named_in_one_line(metro: RunningNetwork, tmp_path: Path) -> None:
    done = run(
        "up", "--scenario", "metro", "--data-dir", tmp_path / "x", "--port-base", metro.port_base, expect=2
    )
    assert "--port-base" in done.stderr and "Traceback" not in done.stderr


def test_another_scenario_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    with RunningNetwork("metro", tmp_path / "metro") as network:
        network.start()
        assert network.stop() == 0
    done = run("up", "--scenario", "eu27", "--data-dir", tmp_path / "metro", expect=2)
    assert "metro" in done.stderr and "Traceback" not in done.stderr


def test_a_stop_and_a_start_keep_all_keys(tmp_path: Path) -> None:
    with RunningNetwork("metro", tmp_path / "metro") as network:
        network.start()
        sites = [network.ready["kmes"][0]["site_id"], network.ready["kmes"][-1]["site_id"]]
        folders = [network.enrol(site, f"app-{site}") for site in sites]
        names = [f"app-{site}" for site in sites]
        with closing(network.client(sites[0], folders[0])) as master:
            answer = keys_in_time(master, names[1], 2)
        assert network.stop() == 0
        network.start()
        with closing(network.client(sites[1], folders[1])) as slave:
            assert slave.dec_keys(names[0], answer.key_ids).keys == answer.keys
            assert slave.dec_keys(names[0], answer.key_ids).status == 400
        assert network.stop() == 0
        resting = json.loads(run("status", "--data-dir", network.data_dir, "--json").stdout)
        assert resting["running"] is False and resting["totals"]["stock_bits"] > 0
        ends = ["--from", sites[0], "--to", sites[1]]
        route = json.loads(run("route", "--data-dir", network.data_dir, *ends, "--json").stdout)
        stocks = {hop["link_id"]: hop["stock_by_initiator"] for hop in resting["hops"]}
        assert route["figures"] == "at rest"
        for hop in route["paths"][0]["hops"]:
            assert 8 * hop["stock_bytes"] == stocks[hop["link_id"]][hop["sender"]]


def test_until_ready_stops_by_itself(tmp_path: Path) -> None:
    ready_file = tmp_path / "ready.json"
    arguments = ["--port-base", 28500 + os.getpid() % 300, "--ready-file", ready_file, "--until-ready"]
    run("up", "--scenario", "metro", "--data-dir", tmp_path / "metro", *arguments)
    assert json.loads(ready_file.read_text())["kmes"]


def test_no_key_lies_open_in_the_store(metro: RunningNetwork, pair: dict[str, Path]) -> None:
    start, _ = sites_of(pair)
    with closing(metro.client(start, pair["alice-app"])) as master:
        keys = master.enc_keys("bob-app", number=5).keys
    assert len(keys) == 5
    files = [path for path in metro.data_dir.rglob("*") if path.is_file()]
    contents = b"".join(path.read_bytes() for path in files) + metro.log.read_bytes()
    assert not any(key in contents for key in keys)


def test_the_store_is_an_ordinary_sqlite_file_in_wal_mode(metro: RunningNetwork) -> None:
    stores = list(metro.data_dir.glob("*.sqlite"))
    assert len(stores) == 1
    with closing(sqlite3.connect(f"file:{stores[0]}?mode=ro", uri=True)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
