"""Leases over the wire: granted, shown, drawn, given back; refusals; quotas; a restart in between."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openqci.delivery import leases
from openqci.delivery.admission import Quota
from openqci.delivery.etsi014_model import Profile
from openqci.keystore.ports import KmeView
from openqci.services.kme import OwnQuotas
from tests.conformance.etsi014.make import ALICE, BOB, CAROL, EVE, RunningKmes
from tests.delivery.make import LISBON

PROFILE = Profile(leases_per_sae_max=4, lease_keys_max=200, lease_ttl_s_max=100, additional_slaves_max=2)
LEASES = "/api/v1/keys/bob/openqci_leases"
ENC, DEC = "/api/v1/keys/bob/enc_keys", "/api/v1/keys/alice/dec_keys"


@pytest.fixture
def kmes(tmp_path: Path) -> Iterator[RunningKmes]:
    running = RunningKmes(tmp_path, profile=PROFILE, wait_s=0.2)
    running.stock(20)
    yield running
    running.close()


def ask(kmes: RunningKmes, method: str, path: str, body: Any = None, sae: Any = ALICE) -> tuple[int, Any]:
    answer = kmes.raw(sae, method, path, json.dumps(body) if body is not None else None)
    return answer.status, answer.json


def grant(kmes: RunningKmes, **members: Any) -> Any:
    status, lease = ask(kmes, "POST", LEASES, members)
    assert status == 201, lease
    return lease


def draw(kmes: RunningKmes, lease_id: str, number: int, sae: Any = ALICE) -> tuple[int, Any]:
    body = {"number": number, "extension_mandatory": [{"openqci_lease": lease_id}]}
    return ask(kmes, "POST", ENC, body, sae)


def stored(kmes: RunningKmes) -> int:
    return int(ask(kmes, "GET", "/api/v1/keys/bob/status")[1]["stored_key_count"])


def test_from_grant_to_release(kmes: RunningKmes) -> None:
    answer = kmes.raw(ALICE, "POST", LEASES, json.dumps({"number": 12, "ttl_s": 90}))
    lease = answer.json
    assert answer.status == 201 and answer.headers["location"] == f"openqci_leases/{lease['lease_id']}"
    assert lease == {
        "lease_id": lease["lease_id"],
        "slave_SAE_ID": BOB,
        "additional_slave_SAE_IDs": [],
        "size": 256,
        "number": 12,
        "keys_left": 12,
        "expires_at_s": lease["expires_at_s"],
    }
    assert 80 < lease["expires_at_s"] - time.time() <= 90 and stored(kmes) == 8
    one = f"{LEASES}/{lease['lease_id']}"
    status, drawn = draw(kmes, lease["lease_id"], 5)
    assert status == 200 and len(drawn["keys"]) == 5
    wanted = {"key_IDs": [{"key_ID": key["key_ID"]} for key in drawn["keys"]]}
    assert ask(kmes, "POST", DEC, wanted, BOB) == (200, drawn)
    assert ask(kmes, "GET", one) == (200, {**lease, "keys_left": 7})
    assert ask(kmes, "GET", LEASES) == (200, {"leases": [{**lease, "keys_left": 7}]})
    assert ask(kmes, "GET", LEASES.replace("bob", "eve")) == (200, {"leases": []})
    assert ask(kmes, "DELETE", one) == (200, {"lease_id": lease["lease_id"], "keys_returned": 7})
    assert ask(kmes, "DELETE", one)[0] == ask(kmes, "GET", one)[0] == 404 and stored(kmes) == 15


def test_a_lease_survives_a_restart_and_ends_at_its_time(kmes: RunningKmes) -> None:
    lease = grant(kmes, number=10, ttl_s=50)
    kmes.restart()
    assert ask(kmes, "GET", f"{LEASES}/{lease['lease_id']}") == (200, lease) and stored(kmes) == 10
    assert draw(kmes, lease["lease_id"], 4)[0] == 200
    ended = kmes.store.submit(lambda tx: leases.sweep(KmeView(tx, LISBON), time.time() + 51)).result()
    assert [each.returned_bytes for each in ended] == [6 * 32]
    assert stored(kmes) == 16 and draw(kmes, lease["lease_id"], 1)[0] == 400


def test_requests_without_the_lease_do_not_get_its_keys(kmes: RunningKmes) -> None:
    lease = grant(kmes, number=18)
    assert ask(kmes, "POST", ENC, {"number": 3})[0] == 503
    assert ask(kmes, "POST", ENC, {"number": 2})[0] == 200
    assert draw(kmes, lease["lease_id"], 18)[0] == 200


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"number": 201}, "200"),
        ({"number": 0}, "number"),
        ({"ttl_s": 101}, "ttl_s"),
        ({"ttl_s": -1}, "ttl_s"),
        ({"ttl_s": "60"}, "ttl_s"),
        ({"size": 100}, "multiple of 8"),
        ({"additional_slave_SAE_IDs": ["bob"]}, "path"),
        ({"extension_mandatory": [{"openqci_lease": "x"}]}, "supported"),
        ({"extension_mandatory": [{"openqci_max_hops": 1}]}, "met"),
        ([], "object"),
    ],
)
def test_what_is_no_request_for_a_lease_is_refused(kmes: RunningKmes, body: Any, expected: str) -> None:
    status, error = ask(kmes, "POST", LEASES, body)
    assert status == 400 and expected in error["message"]
    assert stored(kmes) == 20


def test_only_who_may_ask_for_keys_may_ask_for_leases(kmes: RunningKmes) -> None:
    lease = grant(kmes, number=3)
    one = f"{LEASES}/{lease['lease_id']}"
    assert ask(kmes, "GET", one, sae=CAROL)[0] == ask(kmes, "DELETE", one, sae=CAROL)[0] == 404
    assert draw(kmes, lease["lease_id"], 1, CAROL)[0] == 400
    assert kmes.raw(EVE, "GET", one, kme=LISBON).status == 401
    assert ask(kmes, "POST", "/api/v1/keys/nobody/openqci_leases", {})[0] == 400
    for method, path, status in (
        ("PUT", LEASES, 405),
        ("POST", one, 405),
        ("HEAD", LEASES, 405),
        ("GET", f"{one}/more", 404),
        ("GET", f"{LEASES}/", 404),
        ("GET", f"{LEASES}/%00", 404),
    ):
        assert kmes.raw(ALICE, method, path).status == status, path


def test_a_short_stock_and_too_many_leases_are_told_with_when_to_come_back(kmes: RunningKmes) -> None:
    answer = kmes.raw(ALICE, "POST", LEASES, json.dumps({"number": 21}))
    assert answer.status == 503 and answer.headers["retry-after"]
    assert answer.json["details"] == [{"requested_bits": 21 * 256}, {"available_bits": 20 * 256}]
    for _ in range(4):
        grant(kmes, ttl_s=30)
    answer = kmes.raw(ALICE, "POST", LEASES, b"{}")
    assert answer.status == 503 and 25 <= int(answer.headers["retry-after"]) <= 31


def test_a_lease_takes_quota_when_it_is_granted_and_gives_back_what_is_released(kmes: RunningKmes) -> None:
    kmes.service.quotas = OwnQuotas({ALICE: Quota(rate_bps=1e-3, burst_bits=10 * 256)})
    assert ask(kmes, "POST", LEASES, {"number": 11})[0] == 400
    lease = grant(kmes, number=8)
    assert draw(kmes, lease["lease_id"], 3)[0] == 200
    assert ask(kmes, "POST", ENC, {"number": 3})[0] == 503
    assert ask(kmes, "DELETE", f"{LEASES}/{lease['lease_id']}")[1]["keys_returned"] == 5
    assert ask(kmes, "POST", ENC, {"number": 7})[0] == 200
    assert ask(kmes, "POST", LEASES, {"number": 1})[0] == 503


def test_a_kme_that_offers_none_has_no_such_path(tmp_path: Path) -> None:
    running = RunningKmes(tmp_path)
    try:
        running.stock(2)
        assert ask(running, "POST", LEASES, {})[0] == 404
        status, error = draw(running, "00000000-0000-4000-8000-000000000000", 1)
        assert (status, error["message"]) == (400, "not all extension_mandatory parameters are supported")
    finally:
        running.close()


def test_multicast_keys_can_be_leased(kmes: RunningKmes) -> None:
    kmes.stock_group(6, ALICE, (BOB, EVE))
    lease = grant(kmes, number=4, additional_slave_SAE_IDs=["eve"])
    assert draw(kmes, lease["lease_id"], 1)[0] == 400, "the group is another one"
    body = {
        "number": 4,
        "additional_slave_SAE_IDs": ["eve"],
        "extension_mandatory": [{"openqci_lease": lease["lease_id"]}],
    }
    status, drawn = ask(kmes, "POST", ENC, body)
    wanted = {"key_IDs": [{"key_ID": key["key_ID"]} for key in drawn["keys"]]}
    assert status == 200
    assert ask(kmes, "POST", DEC, wanted, BOB) == ask(kmes, "POST", DEC, wanted, EVE) == (200, drawn)
