"""A controller and its nodes as processes: configurations reach nodes, nodes go on without the controller."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.etsi014.make import free_ports
from tests.kme.make import Process, openqci, running, status_of

WAIT_S = 30.0

DOMAIN = """
domain: XX
nodes:
  - {kme_id: kme-a, saes: [bank.a]}
  - {kme_id: kme-z, saes: [bank.z]}
links:
  - {link_id: a--z, a: kme-a, b: kme-z, rate_bps: 1000}
"""


class Domain:
    """One controller and one node of its domain."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        control, *ports = free_ports(4)
        openqci(folder, "pki", "create", "ca")
        address = f"127.0.0.1:{control}"
        openqci(
            folder, "control", "init", "control", "--domain", "XX", "--authority", "ca", "--listen", address
        )
        (folder / "control" / "domain.yaml").write_text(DOMAIN)
        words = ("--kme-id", "kme-a", "--authority", "ca", "--bind", "127.0.0.1", "--sae", "bank.a")
        openqci(folder, "kme", "init", "node", *words, "--port-base", ports[0], "--laboratory")
        with (folder / "node" / "kme.toml").open("a") as file:
            file.write(f'\n[domain]\nsigner = "../control/tls/cert.pem"\ncontroller = "https://{address}"\n')
        for role in ("operator", "security-officer"):
            openqci(folder, "pki", "issue", "ca", "--role", role, "--name", "ana", "--out", role)
        self.controller = Process(folder, "control-log", "control", "run", "--config", "control/control.toml")
        self.node = Process(folder, "node-log", "kme", "run", "--config", "node/kme.toml")

    def control(self, *words: str, role: str = "operator", expect: int = 0) -> str:
        caller = (
            "--config",
            "control/control.toml",
            "--certificate",
            f"{role}/cert.pem",
            "--key",
            f"{role}/key.pem",
        )
        done = openqci(self.folder, "control", *words, *caller, expect=expect)
        return done.stdout + done.stderr

    def node_status(self) -> dict[str, Any]:
        return status_of(self.folder, "node/kme.toml")

    def until(self, holds: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + WAIT_S
        while not holds():
            assert time.monotonic() < deadline_s, self.node.log.read_text()[-2000:]
            time.sleep(0.2)


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    made = Domain(tmp_path_factory.mktemp("domain"))
    with running(made.controller, made.node):
        made.until(lambda: made.node_status()["domain"] is not None)
        yield made


def test_a_node_goes_by_what_its_controller_signs(domain: Domain) -> None:
    told = domain.node_status()["domain"]
    assert (told["domain"], told["nodes"], told["links"]) == ("XX", 2, 1)
    status = json.loads(domain.control("status", "--json"))
    assert [node["kme_id"] for node in status["nodes"]] == ["kme-a"]
    kept = json.loads((domain.folder / "control" / "state" / "configuration.json").read_text())
    assert kept["signature"]


def test_the_controller_learns_the_key_that_hybrids_are_encapsulated_to(domain: Domain) -> None:
    def known() -> bool:
        words = ("control", "show", "control/state/configuration.json", "--signer", "control/tls/cert.pem")
        shown = json.loads(openqci(domain.folder, *words).stdout)
        return bool(shown["nodes"][0].get("kem_key_id"))

    domain.until(known)
    assert known(), "and keeps it"


def test_a_link_is_closed_and_opened_by_an_operator(domain: Domain) -> None:
    before = domain.node_status()["domain"]["version"]
    assert "closed by operator ana: digging" in domain.control("close", "a--z", "--reason", "digging")
    domain.until(lambda: domain.node_status()["domain"]["version"] > before)
    assert "a--z" in json.loads(domain.control("status", "--json"))["closed"]
    assert "closed" in domain.control("status")
    assert "a--z: open" in domain.control("open", "a--z", role="security-officer")
    assert "is not closed" in domain.control("open", "a--z", expect=1)
    assert "no link" in domain.control("close", "nowhere", expect=1)


def test_the_topology_is_that_of_the_configuration(domain: Domain) -> None:
    (network,) = json.loads(domain.control("topology"))["ietf-network:networks"]["network"]
    assert network["network-id"] == "XX"
    assert [node["node-id"] for node in network["node"]] == ["kme-a", "kme-z"]
    links = network["ietf-network-topology:link"]
    assert [link["link-id"] for link in links] == ["a--z:kme-a", "a--z:kme-z"]


def test_who_is_no_operator_closes_nothing(domain: Domain) -> None:
    openqci(domain.folder, "pki", "issue", "ca", "--role", "auditor", "--name", "eva", "--out", "auditor")
    assert "role operator or security-officer" in domain.control("close", "a--z", role="auditor", expect=1)
    assert "control-xx" in domain.control("status", role="auditor")


def test_a_node_goes_on_without_its_controller_and_versions_never_go_back(domain: Domain) -> None:
    domain.control("close", "a--z")
    domain.until(lambda: len(json.loads(domain.control("status", "--json"))["closed"]) == 1)
    domain.controller.kill()
    domain.until(lambda: any(alarm["code"] == "controller" for alarm in domain.node_status()["alarms"]))
    version = domain.node_status()["domain"]["version"]
    domain.node.stop()
    domain.node.start()
    assert domain.node_status()["domain"]["version"] == version
    domain.controller.start()
    domain.until(lambda: domain.node_status()["domain"]["version"] > version)
    assert "a--z" in json.loads(domain.control("status", "--json"))["closed"]
    domain.until(lambda: all(alarm["code"] != "controller" for alarm in domain.node_status()["alarms"]))


def test_a_second_init_overwrites_nothing(domain: Domain) -> None:
    words = ("control", "init", "control", "--domain", "XX", "--authority", "ca")
    assert "is there already" in openqci(domain.folder, *words, expect=2).stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("domain: XX\nnodes: 3", "Expected `array`"),
        ("- 1", "domain.yaml"),
        ("domain: YY", "is of domain XX, not YY"),
    ],
)
def test_a_domain_file_that_makes_no_sense_is_told(domain: Domain, text: str, said: str) -> None:
    file = domain.folder / "control" / "domain.yaml"
    before = file.read_text()
    file.write_text(text)
    try:
        done = openqci(domain.folder, "control", "run", "--config", "control/control.toml", expect=2)
    finally:
        file.write_text(before)
    assert said in done.stderr
