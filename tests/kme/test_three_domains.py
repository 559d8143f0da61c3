"""Keys from domain DE to domain IT through domain AT, and what still works when each part is gone."""

import json
from collections.abc import Iterator

import pytest

from tests.kme.make import openqci, running
from tests.kme.three_domains import ThreeDomains


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreeDomains]:
    made = ThreeDomains(tmp_path_factory.mktemp("three"))
    with running(*made.processes.values()):
        made.until(made.knows_ways)
        yield made


def test_keys_go_from_the_first_domain_to_the_third_both_ways(domains: ThreeDomains) -> None:
    there = domains.keys("de", "it", 5)
    back = domains.keys("it", "de", 5)
    assert len({*there, *back}) == 10 and {len(key) for key in there} == {32}


def test_the_domain_between_has_applications_of_its_own(domains: ThreeDomains) -> None:
    assert domains.keys("at", "it", 2) and domains.keys("de", "at", 2)


def test_provenance_names_the_domains_and_promises_no_secrecy_by_physics(domains: ThreeDomains) -> None:
    domains.keys("de", "it")
    with domains.client("de") as client:
        (told,) = client.enc_keys("bank.it", provenance=True).provenance
    assert told["domains"] == ["DE", "AT", "IT"] and told["computational"] is True


def test_the_orchestrator_explains_the_way(domains: ThreeDomains) -> None:
    words = ("--from", "bank.de", "--to", "bank.it")
    answer = domains.ask("orchestrator", "orchestrator", "route", *words, operator="operator")
    assert [way["domains"] for way in answer["ways"]] == [["DE", "AT", "IT"]]
    status = domains.ask("orchestrator", "orchestrator", "status", operator="operator")
    assert {tuple(border["domains"]) for border in status["borders"]} == {("AT", "DE"), ("AT", "IT")}


def test_partners_accounts_agree(domains: ThreeDomains) -> None:
    domains.keys("de", "it", 3)
    domains.until(lambda: not domains.ask_pending())
    one, other = domains.account_file("de"), domains.account_file("at")
    done = openqci(domains.folder, "federation", "reconcile", one, other, "--json")
    assert json.loads(done.stdout) == []
    (sums,) = json.loads(one.read_text())["sums"][:1]
    assert sums["keys"] > 0


def test_without_the_orchestrator_keys_go_on_and_so_they_do_after_restarts(domains: ThreeDomains) -> None:
    domains.processes["orchestrator"].kill()
    domains.keys("de", "it", 20)
    control = domains.processes["control-de"]
    control.kill()
    control.start()
    domains.until(
        lambda: domains.ask("control", "de/control", "status", operator="de/operator")["orchestrator"][
            "trouble"
        ]
    )
    node = domains.processes["kme-de"]
    assert node.stop() == 0
    node.start()
    domains.keys("de", "it", 20)
    domains.processes["orchestrator"].start()
    domains.until(
        lambda: (
            not domains.ask("control", "de/control", "status", operator="de/operator")["orchestrator"][
                "trouble"
            ]
        )
    )


def test_without_controllers_keys_go_on(domains: ThreeDomains) -> None:
    controllers = [each for name, each in domains.processes.items() if name.startswith("control-")]
    for controller in controllers:
        controller.kill()
    domains.keys("de", "it", 20)
    for controller in controllers:
        controller.start()


def test_without_the_kme_between_the_stock_is_served_and_keys_come_again_with_it(
    domains: ThreeDomains,
) -> None:
    domains.keys("de", "it", 1)
    between = domains.processes["kme-at"]
    between.kill()
    served = 0
    with domains.client("de") as one, domains.client("it") as other:
        while (drawn := one.enc_keys("bank.it")).status == 200:
            served += 1
            fetched = other.dec_keys("bank.de", drawn.key_ids)
            assert fetched.status == 200 and fetched.keys == drawn.keys
            assert served < 200
        assert drawn.status == 503 and served > 0
    between.start()
    assert domains.keys("de", "it", 5)
