"""The statements on ETSI GS QKD 020 V1.1.1, each held against a real node over real mutual TLS.

The numbers are those of ``tests/conformance/statements.toml``: ``make conformance ARGS=etsi020``.
"""

import json
import socket
import ssl
import threading
import time
from base64 import b64decode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from openqci.core.identifiers import KmeId
from openqci.delivery.etsi014_model import KEYS_NOT_FOUND
from openqci.services.pki import write_credentials
from tests.conformance.etsi020.make import (
    ACK,
    BOB,
    CAROL,
    DOWN_SAE,
    KEYS,
    UP_SAE,
    VERSIONS,
    VOID,
    WAIT_S,
    Border,
    Heard,
    TestKme,
    assert_problem,
    new_id,
)

REFUSED = (OSError, HTTPException)

PROBLEM_SCHEMA = {
    "type": "object",
    "required": ["type"],
    "properties": {
        "type": {"type": "string", "format": "uri", "maxLength": 1024},
        "status": {"type": "integer", "minimum": 100, "maximum": 599},
        "title": {"type": "string", "maxLength": 1024},
        "details": {
            "type": "object",
            "minProperties": 1,
            "maxProperties": 1024,
            "additionalProperties": {"type": "string"},
        },
    },
}
"""``problem_details`` of the OpenAPI description of V1.1.1."""

ACKS_SCHEMA = {
    "type": "array",
    "maxItems": 1024,
    "items": {
        "type": "object",
        "required": ["key_id_container", "ack_status", "initiator_sae_id", "target_sae_ids"],
        "properties": {
            "key_id_container": {
                "type": "array",
                "maxItems": 1024,
                "items": {
                    "type": "object",
                    "required": ["key_id"],
                    "properties": {"extension": {"type": "object", "minProperties": 1}},
                },
            },
            "ack_status": {"enum": ["relayed", "failed", "voided", "failed to void", "key not present"]},
            "initiator_sae_id": {"type": "string", "minLength": 1, "maxLength": 64},
            "target_sae_ids": {"type": "array", "items": {"type": "string"}},
            "message": {"type": "string", "maxLength": 4096},
            "extension": {"type": "object", "minProperties": 1, "maxProperties": 1024},
        },
    },
}
"""``ack_containers``, with the items of ``key_id_container`` as they are meant (the published schema puts
their properties on the array)."""


@pytest.fixture(autouse=True)
def fresh(border: Border, other: Border) -> Iterator[None]:
    """Every test begins with partners that take everything."""
    for kme in (border.up, border.down, other.up, other.down):
        kme.heard.clear()
        kme.answer = lambda heard: (200 if heard.path == ACK else 202, None)
    yield


def fetch(border: Border, key_id: str, sae: str = BOB, master: str = UP_SAE) -> tuple[int, str, list[bytes]]:
    with border.client(sae) as client:
        answer = client.dec_keys(master, [key_id])
        return answer.status, answer.message, answer.keys


def not_found(border: Border, key_id: str, sae: str = BOB) -> bool:
    return fetch(border, key_id, sae)[:2] == (400, KEYS_NOT_FOUND)


# Transport and identity


def test_020_01_only_tls_1_3_is_spoken(border: Border) -> None:
    tls = border.up.folder / "tls"
    with (
        pytest.raises(ssl.SSLError),
        socket.create_connection(("127.0.0.1", border.port), timeout=5) as plain,
        border.tls(tls, ssl.TLSVersion.TLSv1_2).wrap_socket(plain, server_hostname="127.0.0.1") as stream,
    ):
        stream.sendall(b"GET /kmapi/versions HTTP/1.1\r\nHost: x\r\n\r\n")
        stream.recv(100)
    with (
        socket.create_connection(("127.0.0.1", border.port), timeout=5) as plain,
        border.tls(tls).wrap_socket(plain, server_hostname="127.0.0.1") as stream,
    ):
        assert stream.version() == "TLSv1.3"
        names = stream.getpeercert()["subjectAltName"]  # type: ignore[index]
        assert ("URI", "urn:openqci:kme:kme-es") in names
    with socket.create_connection(("127.0.0.1", border.port), timeout=5) as plain:
        plain.sendall(b"GET /kmapi/versions HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"versions" not in plain.recv(200)


def test_020_02_who_is_no_partner_is_refused(border: Border) -> None:
    assert_problem(border.ask(VERSIONS, method="GET", folder=border.up.folder / "sae"), 401, "unauthorized")
    for path in (KEYS, ACK, VOID):
        assert_problem(border.ask(path, {}, folder=border.up.folder / "sae"), 401, "unauthorized")
    for folder in (None, border.folder / BOB, border.node_folder / "tls"):
        with pytest.raises(REFUSED):
            answer = border.ask(VERSIONS, method="GET", folder=folder or Path("/nonexistent"))
            assert answer.status == 401  # pragma: no cover


def test_020_02_one_partners_authority_makes_no_certificate_of_another(
    border: Border, tmp_path: Path
) -> None:

    forged = border.down.authority.issue_kme(KmeId("kme-up"), ["127.0.0.1"])
    write_credentials(tmp_path, forged, border.down.authority)
    assert_problem(border.ask(VERSIONS, method="GET", folder=tmp_path), 401, "unauthorized")


def test_020_02_a_kme_certificate_gets_no_key_by_014(border: Border) -> None:
    path = f"/api/v1/keys/{UP_SAE}/status"
    answer = border.ask(path, method="GET", folder=border.node_folder / "tls", port=border.sae_port)
    assert answer.status == 401 and "message" in answer.json
    with pytest.raises(REFUSED):
        border.ask(path, method="GET", port=border.sae_port)  # another authority's


def test_020_03_versions_and_capabilities(border: Border) -> None:
    answer = border.ask(VERSIONS, method="GET")
    assert answer.status == 200 and answer.headers["content-type"].startswith("application/json")
    assert answer.json["versions"] == ["v1"]
    assert "synchronous_mode" not in answer.json.get("capabilities", [])
    assert_problem(border.ask(VERSIONS, method="DELETE"), 405, "invalid-parameter")
    assert_problem(border.ask("/kmapi/v2/ext_keys", {}), 404, "invalid-parameter")


# The way of a key


def test_020_04_a_request_is_accepted_while_the_relay_still_runs(border: Border) -> None:
    released = threading.Event()

    def slow(heard: Heard) -> tuple[int, Any]:
        released.wait(WAIT_S)
        return 202, None

    border.down.answer = slow
    key_id = new_id()
    began_s = time.monotonic()
    answer = border.send(key_id, target_sae_ids=[DOWN_SAE])
    took_s = time.monotonic() - began_s
    assert (answer.status, answer.body) == (202, b"") and took_s < 0.5
    border.down.wait_for(lambda kme: kme.of(KEYS))
    assert not border.up.statuses(key_id)
    released.set()
    assert border.ack("relayed", key_id).status == 200
    border.up.wait_for_status(key_id, "relayed")


def test_020_05_one_final_acknowledgement_for_each_key(border: Border) -> None:
    ids = [new_id() for _ in range(5)]
    assert border.send(*ids[:3]).status == 202
    assert border.send(*ids[3:], target_sae_ids=[CAROL]).status == 202
    for key_id in ids:
        border.up.wait_for_status(key_id, "relayed")
    time.sleep(1.5)
    assert [border.up.statuses(key_id) for key_id in ids] == [["relayed"]] * 5
    for heard in border.up.of(ACK):
        assert heard.peer == "kme-es"
        jsonschema.validate(heard.document, ACKS_SCHEMA)
    targets = {
        key["key_id"]: each["target_sae_ids"]
        for heard in border.up.of(ACK)
        for each in heard.document
        for key in each["key_id_container"]
    }
    assert targets == {key_id: [BOB] if key_id in ids[:3] else [CAROL] for key_id in ids}


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1:1/kmapi/v1/ext_keys/ack",
        "https://localhost:{up}/kmapi/v1/ext_keys/ack",
        "https://127.0.0.1:{up}/elsewhere",
        "https://127.0.0.1:{down}/kmapi/v1/ext_keys/ack",
        "https://user@127.0.0.1:{up}/kmapi/v1/ext_keys/ack",
        "https://127.0.0.1:{up}/kmapi/v1/ext_keys/ack?x=1",
        "http://127.0.0.1:{up}/kmapi/v1/ext_keys/ack",
        "file:///etc/passwd",
        7,
    ],
)
def test_020_05_acknowledgements_go_only_where_they_may(border: Border, url: Any) -> None:
    wanted = url.format(up=border.up.port, down=border.down.port) if isinstance(url, str) else url
    key_id = new_id()
    assert_problem(border.send(key_id, ack_callback_url=wanted), 400, "invalid-parameter", "ack_callback_url")
    assert_problem(border.void(key_id, ack_callback_url=wanted), 400, "invalid-parameter", "ack_callback_url")
    assert not_found(border, key_id)


def test_020_06_a_400_or_401_leaves_no_trace(border: Border) -> None:
    key_id, other = new_id(), new_id()
    good = border.request(key_id, other)
    broken: list[Any] = [
        good | {"target_sae_ids": []},
        good | {"keys": [*good["keys"], {"key_id": "x", "value": "AAAA"}]},
        good | {"keys": [*good["keys"], {"key_id": new_id(), "value": "A"}]},
        good | {"target_sae_ids": [BOB, "nobody"]},
        good | {"extension_optional": {"no_prefix": 1}},
    ]
    for document in broken:
        assert border.ask(KEYS, document).status == 400
    assert border.ask(KEYS, good, folder=border.up.folder / "sae").status == 401
    assert not_found(border, key_id) and not_found(border, other)
    assert border.ask(KEYS, good).status == 202
    border.up.wait_for_status(other, "relayed")
    assert fetch(border, key_id)[::2] == (200, [bytes(32)])


def test_020_07_a_request_that_comes_again_is_as_one(border: Border) -> None:
    key_id = new_id()
    for count in (1, 2, 3):
        assert border.send(key_id, value=b"k" * 32).status == 202
        border.up.wait_for(lambda kme, n=count: len(kme.statuses(key_id)) == n)
    assert border.up.statuses(key_id) == ["relayed"] * 3
    refusals = [
        border.send(key_id, value=b"x" * 32),
        border.send(key_id, value=b"k" * 31),
        border.send(key_id, value=b"k" * 32, target_sae_ids=[CAROL]),
        border.send(key_id, value=b"k" * 32, target_sae_ids=[BOB, CAROL]),
        border.send(key_id, value=b"k" * 32, initiator_sae_id="app-other"),
        border.ask(
            KEYS,
            border.request(key_id, value=b"k" * 32, ack_callback_url=border.down.callback),
            folder=border.down.folder / "tls",
        ),
    ]
    for refusal in refusals:
        assert_problem(refusal, 503, "server-side-general-error", "key_id_in_use")
    assert fetch(border, key_id)[::2] == (200, [b"k" * 32])
    assert border.send(key_id, value=b"k" * 32).status == 202
    assert not_found(border, key_id)


def test_020_08_different_outcomes_come_in_different_containers(border: Border) -> None:
    good, bad = new_id(), new_id()
    assert border.send(good, bad, target_sae_ids=[DOWN_SAE]).status == 202
    border.down.wait_for(lambda kme: kme.of(KEYS))
    container = {"initiator_sae_id": UP_SAE, "target_sae_ids": [DOWN_SAE]}
    both = [
        container | {"key_id_container": [{"key_id": good}], "ack_status": "relayed"},
        container
        | {"key_id_container": [{"key_id": bad}], "ack_status": "failed", "message": "no key on a link"},
    ]
    assert border.ask(ACK, both, folder=border.down.folder / "tls").status == 200
    border.up.wait_for_status(good, "relayed")
    border.up.wait_for_status(bad, "failed")
    for heard in border.up.of(ACK):
        for each in heard.document:
            assert len(each["key_id_container"]) == 1
            if each["ack_status"] == "failed":
                assert "no key on a link" in each["message"]


def test_020_09_targets_that_nobody_serves_and_ways_that_lead_back(border: Border) -> None:
    unknown = border.send(new_id(), target_sae_ids=["nobody-knows"])
    assert_problem(unknown, 400, "key-routing-error", "target_sae_id_not_recognized")
    back = border.send(new_id(), initiator_sae_id=DOWN_SAE, target_sae_ids=[UP_SAE])
    assert_problem(back, 400, "key-routing-error", "invalid_routing")


def test_020_10_too_many_targets_are_503(border: Border) -> None:
    many = [BOB, CAROL, DOWN_SAE, "a1", "a2"]
    assert_problem(
        border.send(new_id(), target_sae_ids=many), 503, "key-routing-error", "no_route_multiple_targets"
    )
    apart = border.send(new_id(), target_sae_ids=[BOB, DOWN_SAE])
    assert_problem(apart, 503, "key-routing-error", "no_route_multiple_targets")
    together = new_id()
    assert border.send(together, target_sae_ids=[BOB, CAROL]).status == 202
    border.up.wait_for_status(together, "relayed")
    assert fetch(border, together, BOB)[::2] == fetch(border, together, CAROL)[::2] == (200, [bytes(32)])


def test_020_11_mandatory_extensions_that_are_not_known(border: Border) -> None:
    key_id = new_id()
    said = {"E32473_route_type": "direct", "E32473_method": {"hybrid_keys": True}}
    details = assert_problem(
        border.send(key_id, extension_mandatory=said),
        503,
        "unsupported-mandatory-extension",
        "unsupported_mandatory_extension",
    )
    assert all(name in details["unsupported_mandatory_extension"] for name in said)
    assert not_found(border, key_id)
    assert border.send(key_id).status == 202
    border.up.wait_for_status(key_id, "relayed")


def test_020_12_optional_extensions_go_on_and_come_back_unchanged(border: Border) -> None:
    key_id = new_id()
    strange = b'{"n":  1.0, "big": 12345678901234567890.5, "u":"\xc3\xa4\\u00e4"}'
    optional = b'{"E32473_extension1": "Some string","E1_x" : %s}' % strange
    per_key = b'{"E32473_protocol": [ "BB84" , null ]}'
    document = border.request(key_id, target_sae_ids=[DOWN_SAE])
    document["keys"][0]["extension"] = "?key?"
    document["extension_optional"] = "?all?"
    body = json.dumps(document).encode().replace(b'"?key?"', per_key).replace(b'"?all?"', optional)
    assert border.ask(KEYS, body=body).status == 202
    (sent,) = border.down.wait_for(lambda kme: kme.of(KEYS))
    wanted = json.loads(optional)
    assert {name: sent.document["extension_optional"][name] for name in wanted} == wanted
    assert strange in sent.body
    assert sent.document["keys"][0]["extension"] == json.loads(per_key) and per_key in sent.body
    assert border.ack("relayed", key_id).status == 200
    border.up.wait_for_status(key_id, "relayed")
    (heard,) = border.up.of(ACK)
    (container,) = heard.document
    assert {name: container["extension"][name] for name in wanted} == wanted
    assert container["key_id_container"][0]["extension"] == json.loads(per_key)


# Voids


def test_020_13_a_key_that_is_voided_is_given_to_nobody(border: Border) -> None:
    here, on_its_way = new_id(), new_id()
    assert border.send(here).status == 202
    border.up.wait_for_status(here, "relayed")
    assert border.void(here).status == 202
    border.up.wait_for_status(here, "voided")
    assert not_found(border, here)
    border.down.answer = lambda heard: (202, None) if heard.path == KEYS else voided_at_once(border, heard)
    assert border.send(on_its_way, target_sae_ids=[DOWN_SAE]).status == 202
    border.down.wait_for(lambda kme: kme.of(KEYS))
    assert border.void(on_its_way, target_sae_ids=[DOWN_SAE]).status == 202
    border.up.wait_for_status(on_its_way, "voided")
    (passed_on,) = border.down.of(VOID)
    assert passed_on.document["key_ids"] == [on_its_way]
    assert border.up.statuses(on_its_way) == ["voided"]


def voided_at_once(border: Border, heard: Heard) -> tuple[int, Any]:
    """Accept a void, and acknowledge it in the background."""
    if heard.path == VOID:
        threading.Thread(target=border.ack, args=("voided", *heard.document["key_ids"]), daemon=True).start()
        return 202, None
    return 200, None


def test_020_13_an_initiators_key_that_the_next_kme_voids_is_not_given_out(border: Border) -> None:
    with ThreadPoolExecutor(1) as pool, border.client(CAROL) as carol:
        asked = pool.submit(carol.enc_keys, DOWN_SAE)
        (sent, *_) = border.down.wait_for(lambda kme: kme.of(KEYS))
        ids = [key["key_id"] for heard in border.down.of(KEYS) for key in heard.document["keys"]]
        association = {"initiator_sae_id": CAROL, "target_sae_ids": [DOWN_SAE]}
        assert sent.document["initiator_sae_id"] == CAROL
        border.void(*ids, by=border.down, **association)
        for key_id in ids:
            border.down.wait_for_status(key_id, "voided")
        answer = asked.result()
        assert answer.status == 503
        assert border.ack("relayed", *ids, initiator=CAROL).status == 200
        assert carol.status(DOWN_SAE).body["stored_key_count"] == 0


def test_020_14_a_key_that_was_delivered_cannot_be_voided(border: Border) -> None:
    key_id = new_id()
    assert border.send(key_id).status == 202
    border.up.wait_for_status(key_id, "relayed")
    assert fetch(border, key_id)[0] == 200
    assert border.void(key_id).status == 202
    border.up.wait_for_status(key_id, "failed to void")


def test_020_15_a_key_that_is_voided_before_it_comes(border: Border) -> None:
    key_id = new_id()
    assert border.void(key_id).status == 202
    border.up.wait_for_status(key_id, "key not present")
    assert_problem(border.send(key_id), 400, "invalid-parameter", "key_id")
    assert not_found(border, key_id)


def test_020_15_a_void_with_other_applications_is_about_no_key(border: Border) -> None:
    key_id = new_id()
    assert border.send(key_id).status == 202
    border.up.wait_for_status(key_id, "relayed")
    assert border.void(key_id, target_sae_ids=[CAROL]).status == 202
    border.up.wait_for_status(key_id, "key not present")
    assert fetch(border, key_id)[0] == 200


def test_020_16_a_void_of_everything_needs_its_confirmation(border: Border) -> None:
    mine, other = [new_id(), new_id()], new_id()
    assert border.send(*mine, initiator_sae_id="app-16").status == 202
    assert border.send(other, initiator_sae_id="app-16", target_sae_ids=[BOB, CAROL]).status == 202
    for key_id in (*mine, other):
        border.up.wait_for_status(key_id, "relayed")
    for confirmation in (None, False, "true"):
        refusal = border.void(initiator_sae_id="app-16", all_confirmation=confirmation)
        assert_problem(refusal, 400, "no-key-ids-or-confirmation", "no_all_confirmation")
    assert border.void(initiator_sae_id="app-16", all_confirmation=True).status == 202
    for key_id in mine:
        border.up.wait_for_status(key_id, "voided")
    assert fetch(border, other, master="app-16")[0] == 200
    assert [fetch(border, key_id, master="app-16")[0] for key_id in mine] == [400, 400]


# Faults


def test_020_17_an_acknowledgement_is_sent_after_a_crash(border: Border) -> None:
    key_id = new_id()
    border.up.answer = lambda heard: (503, None)
    assert border.send(key_id).status == 202
    border.process.kill()
    border.up.heard.clear()
    border.up.answer = lambda heard: (200, None)
    border.process.start()
    border.up.wait_for_status(key_id, "relayed")
    assert fetch(border, key_id)[::2] == (200, [bytes(32)])


def test_020_17_a_key_on_its_way_survives_a_crash(border: Border) -> None:
    key_id = new_id()
    border.down.deafen()
    assert border.send(key_id, value=b"z" * 32, target_sae_ids=[DOWN_SAE]).status == 202
    border.process.kill()
    border.process.start()
    border.down.listen(border.authority.certificate_file)
    (sent, *_) = border.down.wait_for(lambda kme: kme.of(KEYS), 40.0)
    assert sent.document["keys"][0]["key_id"] == key_id
    assert border.ack("relayed", key_id).status == 200
    border.up.wait_for_status(key_id, "relayed")


def test_020_17_a_callback_that_stays_down_makes_the_key_void(other: Border) -> None:
    other.up.answer = lambda heard: (503, None) if heard.path == ACK else (202, None)
    key_id = new_id()
    assert other.send(key_id).status == 202
    (void,) = other.up.wait_for(lambda kme: kme.of(VOID))[:1]
    assert len(other.up.of(ACK)) >= 3
    assert void.document["key_ids"] == [key_id]
    assert (void.document["initiator_sae_id"], void.document["target_sae_ids"]) == (UP_SAE, [BOB])
    assert not_found(other, key_id)
    silent = new_id()
    other.up.answer = lambda heard: (200 if heard.path == ACK else 202, None)
    assert other.send(silent, target_sae_ids=[DOWN_SAE]).status == 202
    other.up.wait_for_status(silent, "failed")
    assert len(other.down.of(KEYS)) >= 2
    other.down.wait_for(lambda kme: silent in str([each.document for each in kme.of(VOID)]))


# Modes


def test_020_18_a_synchronous_request_is_not_silently_accepted(border: Border) -> None:
    key_id = new_id()
    assert_problem(
        border.send(key_id, ack_callback_url=None), 400, "missing-parameters", "missing_parameters"
    )
    assert_problem(
        border.void(key_id, ack_callback_url=None), 400, "missing-parameters", "missing_parameters"
    )
    assert not_found(border, key_id)
    assert border.send(key_id).status == 202


def test_020_03_08_12_13_14_15_the_synchronous_mode(other: Border) -> None:
    assert other.ask(VERSIONS, method="GET").json["capabilities"] == ["synchronous_mode"]
    ids = [new_id(), new_id()]
    answer = other.send(*ids, ack_callback_url=None, extension_optional={"E1_a": [1.5]})
    assert answer.status == 200
    jsonschema.validate(answer.json, ACKS_SCHEMA)
    (container,) = answer.json
    assert container["ack_status"] == "relayed" and container["extension"]["E1_a"] == [1.5]
    assert [key["key_id"] for key in container["key_id_container"]] == ids
    assert fetch(other, ids[0])[0] == 200
    answer = other.void(*ids, new_id(), ack_callback_url=None)
    outcomes = {each["ack_status"]: each["key_id_container"] for each in answer.json}
    assert set(outcomes) == {"failed to void", "voided", "key not present"}
    assert [key["key_id"] for key in outcomes["voided"]] == ids[1:]
    waiting = new_id()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(other.send, waiting, ack_callback_url=None, target_sae_ids=[DOWN_SAE])
        other.down.wait_for(lambda kme: kme.of(KEYS))
        assert not asked.done()
        assert other.ack("relayed", waiting).status == 200
        assert asked.result().json[0]["ack_status"] == "relayed"
    assert not other.up.of(ACK)


def test_020_19_an_initiators_key_is_given_out_when_it_was_relayed_and_not_before(border: Border) -> None:
    with ThreadPoolExecutor(1) as pool, border.client(BOB) as bob:
        asked = pool.submit(bob.enc_keys, DOWN_SAE)
        (sent, *_) = border.down.wait_for(lambda kme: kme.of(KEYS))
        time.sleep(1.0)
        assert not asked.done()
        (key, *_) = sent.document["keys"]
        assert border.ack("relayed", key["key_id"], initiator=BOB).status == 200
        answer = asked.result()
        assert (answer.status, answer.key_ids) == (200, [key["key_id"]])
        assert answer.keys == [b64decode(key["value"])]


@pytest.mark.parametrize("path", [KEYS, ACK, VOID])
def test_020_20_every_problem_is_a_problem_document(border: Border, path: str) -> None:
    answers = [
        border.ask(path, body=body)
        for body in (b"", b"{", b"[]", b"7", b'{"a":1,"a":2}', b"\xff", b"[" * 9_000)
    ]
    answers += [
        border.ask(path, {}),
        border.ask(path, method="GET"),
        border.ask(path, body=b"{}", headers={"Content-Type": "text/xml"}),
        border.ask(path, body=b" " * (1024 * 1024 + 1)),
    ]
    for answer in answers:
        if path == ACK and answer.status == 200:
            continue  # an empty array acknowledges nothing
        assert answer.status in (400, 405)
        assert answer.headers["content-type"].partition(";")[0] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        jsonschema.validate(answer.json, PROBLEM_SCHEMA)


def test_020_20_a_request_that_is_never_whole_times_out(border: Border) -> None:
    tls = border.tls(border.up.folder / "tls")
    with (
        socket.create_connection(("127.0.0.1", border.port), timeout=30) as plain,
        tls.wrap_socket(plain, server_hostname="127.0.0.1") as stream,
    ):
        head = (
            f"POST {KEYS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n"
        )
        stream.sendall(head.encode() + b"{")
        answer = b""
        while b"}}" not in answer and (part := stream.recv(4096)):
            answer += part
    assert answer.startswith(b"HTTP/1.1 408")
    jsonschema.validate(json.loads(answer.partition(b"\r\n\r\n")[2]), PROBLEM_SCHEMA)


def test_020_20_acknowledgements_that_mean_no_key(border: Border) -> None:
    details = assert_problem(border.ack("relayed", new_id()), 400, "key-not-present", "key_not_present")
    assert "known" in details["key_not_present"]
    assert_problem(border.ack("delivered", new_id()), 400, "ack-not-understood", "ack_not_understood")


@pytest.mark.parametrize("name", ["initiator_sae_id", "target_sae_ids"])
@pytest.mark.parametrize("sae", ["x" * 65, "", "a b", "ä", "a%2", 'a"b', "a\\b", "a^b", "a{b}", None, 7])
def test_020_21_sae_ids_that_are_none(border: Border, name: str, sae: Any) -> None:
    document = border.request(new_id())
    document[name] = sae if name == "initiator_sae_id" else [sae]
    assert_problem(border.ask(KEYS, document), 400, "invalid-parameter", name)
    longest = border.send(new_id(), initiator_sae_id="-._~:/?#[]@!$&'()*+,;=%2F" + "x" * 39)
    assert longest.status == 202


# Partners that run a draft


def test_a_partner_that_runs_a_draft_is_understood_and_answered_in_its_words(other: Border) -> None:
    folder = other.down.folder / "tls"
    assert other.ask("/kmapi/v1/versions", method="GET", folder=folder).json["versions"] == ["v1"]
    key_id = new_id()
    association = {"initiator_sae_id": DOWN_SAE, "ack_callback_url": other.down.callback}
    assert other.ask(KEYS, other.request(key_id, **association), folder=folder).status == 202
    (heard,) = other.down.wait_for(lambda kme: kme.of(ACK))
    (container,) = heard.document
    assert container["key_ids"] == [{"key_id": key_id}]
    assert (container["ack_status"], container["target_sae_id"]) == ("relayed", BOB)
    void = association | {"keys": [{"key_id": key_id}], "target_sae_ids": [BOB]}
    assert other.ask(VOID, void, folder=folder).status == 202
    other.down.wait_for(lambda kme: len(kme.of(ACK)) == 2)
    assert other.down.of(ACK)[1].document[0]["ack_status"] == "voided"
    refusal = other.ask(KEYS, {}, folder=folder)
    assert refusal.status == 400 and set(refusal.json) == {"message", "details"}


def test_no_key_is_where_none_belongs(border: Border) -> None:
    value = bytes(range(200, 232))
    key_id = new_id()
    assert border.send(key_id, value=value, target_sae_ids=[DOWN_SAE]).status == 202
    border.down.wait_for(lambda kme: kme.of(KEYS))
    here = new_id()
    assert border.send(here, value=value[::-1]).status == 202
    border.up.wait_for_status(here, "relayed")
    time.sleep(0.3)
    files = [path for path in (border.node_folder / "state").rglob("*") if path.is_file()]
    everything = b"".join(path.read_bytes() for path in [*files, border.process.log])
    for secret in (value, value[::-1]):
        assert secret not in everything and secret.hex().encode() not in everything
    assert key_id.encode() in everything
    assert isinstance(border.down, TestKme)
