"""ETSI GS QKD 014 V1.1.1: status, keys for the master, the same keys for the slave, errors.

Names are those of the conformance statements in docs (014-10 to 014-43).
"""

import json
import logging
import socket
import subprocess
import uuid
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor

import pytest
from etsi_qkd_014_client import QKD014Client

from openqci.core.identifiers import SaeId
from tests.conformance.etsi014.make import (
    ALICE,
    BOB,
    CAROL,
    EVE,
    LISBON,
    NEVER,
    PERCENT,
    SLASH,
    WARSAW,
    Raw,
    RunningKmes,
)

ENC, DEC = f"/api/v1/keys/{BOB}/enc_keys", f"/api/v1/keys/{ALICE}/dec_keys"
STATUS = f"/api/v1/keys/{BOB}/status"
NOT_FOUND = "one or more keys specified are not found on KME"


def stored(kmes: RunningKmes) -> int:
    return int(kmes.raw(ALICE, "GET", STATUS).json["stored_key_count"])


def new_key_ids(kmes: RunningKmes, number: int = 1) -> list[str]:
    kmes.stock(number)
    with kmes.client(ALICE) as alice:
        return alice.enc_keys(BOB, number).key_ids


def assert_error(answer: Raw, status: int, message: str | None = None) -> None:
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert isinstance(answer.json["message"], str)
    assert message is None or answer.json["message"] == message
    assert all(isinstance(part, dict) for part in answer.json.get("details", []))


def test_014_10_11_12_status_has_every_member(kmes: RunningKmes) -> None:
    kmes.stock(3)
    answer = kmes.raw(ALICE, "GET", STATUS)
    assert answer.status == 200 and answer.headers["content-type"] == "application/json"
    said = answer.json
    assert (said["source_KME_ID"], said["target_KME_ID"]) == (LISBON, WARSAW)
    assert (said["master_SAE_ID"], said["slave_SAE_ID"]) == (ALICE, BOB)
    numbers = ["key_size", "stored_key_count", "max_key_count", "max_key_per_request"]
    numbers += ["max_key_size", "min_key_size", "max_SAE_ID_count"]
    assert all(type(said[name]) is int for name in numbers) and len(said) == 11
    assert said["min_key_size"] <= said["key_size"] <= said["max_key_size"]
    assert 0 <= said["stored_key_count"] <= said["max_key_count"]


def test_014_13_the_count_falls_by_what_was_taken(kmes: RunningKmes) -> None:
    kmes.stock(5)
    before = stored(kmes)
    with kmes.client(ALICE) as alice:
        assert alice.enc_keys(BOB, 4).status == 200
    assert stored(kmes) == before - 4


def test_014_14_unknown_slave_and_other_verbs(kmes: RunningKmes) -> None:
    assert_error(kmes.raw(ALICE, "GET", "/api/v1/keys/nobody/status"), 400)
    for verb in ("POST", "HEAD", "DELETE", "PUT"):
        answer = kmes.raw(ALICE, verb, STATUS)
        assert answer.status == 405 and answer.headers["content-type"] == "application/json"


def test_an_sae_at_the_same_kme_or_itself_is_no_slave(kmes: RunningKmes) -> None:
    for slave in (CAROL, ALICE):
        assert_error(kmes.raw(ALICE, "GET", f"/api/v1/keys/{slave}/enc_keys"), 400)


@pytest.mark.parametrize(("verb", "body"), [("GET", None), ("POST", b""), ("POST", b"{}"), ("POST", b" {} ")])
def test_014_20_the_simple_forms_give_one_key(kmes: RunningKmes, verb: str, body: bytes | None) -> None:
    kmes.stock(1)
    answer = kmes.raw(ALICE, verb, ENC, body)
    assert answer.status == 200 and answer.headers["cache-control"] == "no-store"
    (key,) = answer.json["keys"]
    assert set(answer.json) == {"keys"} and set(key) == {"key_ID", "key"}
    assert len(b64decode(key["key"], validate=True)) == 32


@pytest.mark.parametrize("size", [64, 72, 128, 256, 512, 4096])
def test_014_21_number_and_size(kmes: RunningKmes, size: int) -> None:
    kmes.stock(60)
    for answer in (
        kmes.raw(ALICE, "POST", ENC, json.dumps({"number": 3, "size": size})),
        kmes.raw(ALICE, "GET", f"{ENC}?number=3&size={size}"),
    ):
        keys = answer.json["keys"]
        assert len({uuid.UUID(key["key_ID"]) for key in keys}) == 3
        assert {len(b64decode(key["key"], validate=True)) for key in keys} == {size // 8}
        fetched = kmes.raw(BOB, "POST", DEC, json.dumps({"key_IDs": [{"key_ID": k["key_ID"]} for k in keys]}))
        assert fetched.json["keys"] == keys


@pytest.mark.parametrize(
    "body",
    [{name: value} for name in ("number", "size") for value in (0, -8, 10**9, 1.0, "8", True, None, [], 8e0)],
    ids=str,
)
def test_014_22_bad_numbers_and_sizes(kmes: RunningKmes, body: dict[str, object]) -> None:
    assert_error(kmes.raw(ALICE, "POST", ENC, json.dumps(body)), 400)


@pytest.mark.parametrize(
    "query",
    [
        "number=0",
        "number=129",
        "number=x",
        "number=1.0",
        "number=",
        "number=1&number=2",
        "number=-1",
        "number=+1",
        "number=1_0",
        "number=%31%30%30%30",
        "size=56",
        "size=4104",
        "extension_mandatory=x",
        "&".join(["a=1"] * 40),
    ],
)
def test_014_22_bad_queries(kmes: RunningKmes, query: str) -> None:
    assert_error(kmes.raw(ALICE, "GET", f"{ENC}?{query}"), 400)


@pytest.mark.parametrize("size", [7, 65, 255, 4095])
def test_014_23_size_shall_be_a_multiple_of_8(kmes: RunningKmes, size: int) -> None:
    assert_error(
        kmes.raw(ALICE, "POST", ENC, json.dumps({"size": size})), 400, "size shall be a multiple of 8"
    )
    assert_error(kmes.raw(ALICE, "GET", f"{ENC}?size={size}"), 400, "size shall be a multiple of 8")


@pytest.mark.parametrize("slaves", [["eve"], ["bob"], [""], ["eve", "eve"], "eve", [1], None])
def test_014_24_no_multicast(kmes: RunningKmes, slaves: object) -> None:
    assert_error(kmes.raw(ALICE, "POST", ENC, json.dumps({"additional_slave_SAE_IDs": slaves})), 400)


def test_014_24_an_empty_list_of_additional_slaves_is_none(kmes: RunningKmes) -> None:
    kmes.stock(1)
    assert kmes.raw(ALICE, "POST", ENC, '{"additional_slave_SAE_IDs": []}').status == 200


def test_014_26_mandatory_extensions(kmes: RunningKmes) -> None:
    def ask(value: object) -> Raw:
        return kmes.raw(ALICE, "POST", ENC, json.dumps({"extension_mandatory": value}))

    unknown = "not all extension_mandatory parameters are supported"
    assert_error(ask([{"acme_colour": "red"}]), 400, unknown)
    assert_error(ask([{"openqci_provenance": True}, {"acme_colour": 1}]), 400, unknown)
    unmet = "not all extension_mandatory request options could be met"
    assert_error(ask([{"openqci_provenance": {"disjoint_paths": 2}}]), 400, unmet)
    for wrong in ({}, "x", [1], [[]], None):
        assert_error(ask(wrong), 400)


def test_014_27_unknown_optional_extensions_are_ignored(kmes: RunningKmes) -> None:
    kmes.stock(1)
    answer = kmes.raw(ALICE, "POST", ENC, '{"extension_optional": [{"acme_colour": "red"}]}')
    assert answer.status == 200 and set(answer.json) == {"keys"}


def test_the_provenance_extension_answers_both_ends(kmes: RunningKmes) -> None:
    kmes.stock(1)
    body = json.dumps({"number": 1, "extension_mandatory": [{"openqci_provenance": True}]})
    answer = kmes.raw(ALICE, "POST", ENC, body).json
    made = answer["key_container_extension"]["openqci_provenance"]
    assert made["route"] == ["lisbon", "madrid", "warsaw"] and made["hops"] == 2
    assert made["epsilon"] == 2e-10 and made["simulated"] is True
    wanted = {"key_IDs": [{"key_ID": answer["keys"][0]["key_ID"]}]}
    wanted["key_IDs_extension"] = {"openqci_provenance": {}}  # type: ignore[assignment]
    assert kmes.raw(BOB, "POST", DEC, json.dumps(wanted)).json == answer


def test_014_28_30_every_key_once_and_alike_at_both_ends(kmes: RunningKmes) -> None:
    kmes.stock(60)
    with kmes.client(ALICE) as alice, kmes.client(BOB) as bob:
        answers = [alice.enc_keys(BOB, number) for number in (1, 7, 20)]
        key_ids = [key_id for answer in answers for key_id in answer.key_ids]
        keys = [key for answer in answers for key in answer.keys]
        assert len(set(key_ids)) == len(set(keys)) == 28
        order = [17, 3, 27, 0, 4]
        assert bob.dec_keys(ALICE, [key_ids[i] for i in order]).keys == [keys[i] for i in order]
    got = kmes.raw(BOB, "GET", f"{DEC}?key_ID={key_ids[1]}")
    assert got.json == {"keys": [answers[1].body["keys"][0]]}


def test_014_29_an_empty_stock_consumes_nothing(kmes: RunningKmes) -> None:
    path = f"/api/v1/keys/{NEVER}/enc_keys"
    assert_error(kmes.raw(ALICE, "GET", path), 503, "insufficient key material")
    kmes.stock(2, slave=NEVER)
    refused = kmes.raw(ALICE, "POST", path, '{"number": 3}')
    assert_error(refused, 503)
    assert int(refused.headers["retry-after"]) >= 1 and refused.json["details"]
    assert kmes.raw(ALICE, "GET", f"/api/v1/keys/{NEVER}/status").json["stored_key_count"] == 2
    assert len(kmes.raw(ALICE, "POST", path, '{"number": 2}').json["keys"]) == 2


def test_014_31_one_unknown_id_consumes_nothing(kmes: RunningKmes) -> None:
    key_ids = new_key_ids(kmes, 3)
    for unknown in (str(uuid.uuid4()), key_ids[0][:-1] + ("0" if key_ids[0][-1] != "0" else "1")):
        body = json.dumps({"key_IDs": [{"key_ID": key_id} for key_id in [*key_ids, unknown]]})
        assert_error(kmes.raw(BOB, "POST", DEC, body), 400, NOT_FOUND)
    with kmes.client(BOB) as bob:
        assert len(bob.dec_keys(ALICE, key_ids).keys) == 3


def test_014_31_one_delivered_id_consumes_nothing(kmes: RunningKmes) -> None:
    key_ids = new_key_ids(kmes, 3)
    with kmes.client(BOB) as bob:
        assert bob.dec_keys(ALICE, key_ids[1:2]).status == 200
        refused = bob.dec_keys(ALICE, key_ids)
        assert (refused.status, refused.message) == (400, NOT_FOUND)
        assert bob.dec_keys(ALICE, [key_ids[2], key_ids[0]]).status == 200


def test_014_32_a_third_sae_and_the_master_itself_get_401(kmes: RunningKmes) -> None:
    key_ids = new_key_ids(kmes, 2)
    with kmes.client(EVE) as eve, kmes.client(ALICE) as alice, kmes.client(BOB) as bob:
        refusals = [
            eve.dec_keys(ALICE, key_ids),
            alice.dec_keys(BOB, key_ids),
            alice.dec_keys(ALICE, key_ids),
        ]
        stranger = kmes.raw(EVE, "GET", STATUS, kme=LISBON)
        assert [answer.status for answer in refusals] == [401] * 3 and stranger.status == 401
        assert {answer.message for answer in refusals} == {stranger.json["message"]}
        assert bob.dec_keys(ALICE, key_ids).status == 200


def test_014_33_a_wrong_master_in_the_path_gets_no_key(kmes: RunningKmes) -> None:
    (key_id,) = new_key_ids(kmes)
    with kmes.client(BOB) as bob:
        for master in (CAROL, EVE, BOB, "nobody"):
            assert bob.dec_keys(master, [key_id]).status in (400, 401)
        assert bob.dec_keys(ALICE, [key_id]).status == 200


def test_014_34_the_second_retrieval_fails_also_after_a_restart(kmes: RunningKmes) -> None:
    key_ids = new_key_ids(kmes, 2)
    with kmes.client(BOB) as bob:
        assert bob.dec_keys(ALICE, key_ids[:1]).status == 200
    kmes.restart()
    with kmes.client(BOB) as bob:
        again = bob.dec_keys(ALICE, key_ids[:1])
        assert (again.status, again.message) == (400, NOT_FOUND)
        assert bob.dec_keys(ALICE, key_ids[1:]).status == 200


def test_014_34_of_100_at_once_exactly_one_succeeds(kmes: RunningKmes) -> None:
    key_ids = new_key_ids(kmes, 1)
    clients = [kmes.client(BOB) for _ in range(10)]
    with ThreadPoolExecutor(10) as pool:
        answers = list(
            pool.map(
                lambda client: [client.dec_keys(ALICE, key_ids).status for _ in range(10)],
                clients,
            )
        )
    for client in clients:
        client.close()
    assert sorted(status for few in answers for status in few) == [200] + [400] * 99


def test_014_35_malformed_ids(kmes: RunningKmes) -> None:
    (key_id,) = new_key_ids(kmes)
    bad_lists = [
        [],
        None,
        {},
        [key_id],
        [{}],
        [{"key_ID": 7}],
        [{"key_ID": "x"}],
        [{"key_ID": f"{{{key_id}}}"}],
    ]
    bad_lists += [[{"key_ID": key_id}] * 2, [{"key_ID": str(uuid.uuid4())} for _ in range(129)]]
    for entries in bad_lists:
        assert_error(kmes.raw(BOB, "POST", DEC, json.dumps({"key_IDs": entries})), 400)
    for body in (b"", b"{}", b"[]"):
        assert_error(kmes.raw(BOB, "POST", DEC, body), 400)
    for query in ("", "?key_ID=", f"?key_ID={key_id}&key_ID={uuid.uuid4()}", f"?key_id={key_id}"):
        assert_error(kmes.raw(BOB, "GET", DEC + query), 400)
    assert kmes.raw(BOB, "GET", f"{DEC}?key_ID={key_id.upper()}").json["keys"][0]["key_ID"] == key_id


@pytest.mark.parametrize(
    ("verb", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/api/v1/keys/bob", 404),
        ("GET", "/api/v1/keys/bob/status/", 404),
        ("GET", "/api/v1/keys//status", 404),
        ("DELETE", ENC, 405),
        ("HEAD", ENC, 405),
        ("GET", "/api/v1/keys/%FF/status", 400),
    ],
)
def test_014_40_every_error_is_an_error_document(
    kmes: RunningKmes, verb: str, path: str, status: int
) -> None:
    answer = kmes.raw(ALICE, verb, path)
    assert answer.status == status and answer.headers["content-type"] == "application/json"
    if verb != "HEAD":
        assert_error(answer, status)


def test_014_40_what_is_no_http_gets_an_error_document(kmes: RunningKmes) -> None:
    with (
        socket.create_connection(("127.0.0.1", kmes.ports[LISBON]), timeout=5) as plain,
        kmes.tls(ALICE).wrap_socket(plain, server_hostname="127.0.0.1") as stream,
    ):
        stream.sendall(b"what is this\r\n\r\n")
        head, _, body = stream.recv(4096).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400") and b"application/json" in head
    assert json.loads(body)["message"]


def test_014_41_no_key_in_any_log(kmes: RunningKmes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    kmes.stock(3)
    with kmes.client(ALICE) as alice, kmes.client(BOB) as bob:
        answer = alice.enc_keys(BOB, 3, provenance=True)
        bob.dec_keys(ALICE, answer.key_ids)
        bob.dec_keys(ALICE, answer.key_ids)
        assert repr(answer).count("key") == 0
    written = caplog.text.encode()
    for entry in answer.body["keys"]:
        assert entry["key"].encode() not in written and b64decode(entry["key"]).hex().encode() not in written
    files = b"".join(file.read_bytes() for file in kmes.folder.rglob("store*"))
    assert not any(key in files for key in answer.keys)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"{} {}",
        b'{"number": 1, "number": 1}',
        b"[]",
        b'"x"',
        b"1",
        b"\xff",
        b'{"number": NaN}',
        b" ",
        b"[" * 60_000,
        b'{"number": ' + b"9" * 5_000 + b"}",
        b"\xef\xbb\xbf{}",
        b'{"a": {"b": 1, "b": 2}}',
    ],
)
def test_014_42_malformed_bodies_change_nothing(kmes: RunningKmes, body: bytes) -> None:
    kmes.stock(1)
    before = stored(kmes)
    assert_error(kmes.raw(ALICE, "POST", ENC, body), 400)
    assert stored(kmes) == before


def test_014_42_size_and_type_of_the_body(kmes: RunningKmes) -> None:
    kmes.stock(1)
    before = stored(kmes)
    assert_error(kmes.raw(ALICE, "POST", ENC, b" " * 70_000), 413)
    chunked = iter([b" " * 40_000] * 3)
    assert_error(kmes.raw(ALICE, "POST", ENC, chunked), 413)  # type: ignore[arg-type]
    assert_error(kmes.raw(ALICE, "POST", ENC, b"{}", headers={"Content-Type": "text/xml"}), 400)
    assert stored(kmes) == before
    spelled = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert kmes.raw(ALICE, "POST", ENC, b"{}", headers=spelled).status == 200


def test_014_43_unknown_members_are_ignored(kmes: RunningKmes) -> None:
    kmes.stock(2)
    assert kmes.raw(ALICE, "POST", ENC, '{"number": 1, "colour": {"x": [1]}}').status == 200
    assert kmes.raw(ALICE, "GET", f"{ENC}?colour=red").status == 200


def test_014_07_the_path_is_decoded_exactly_once(kmes: RunningKmes) -> None:
    for sae_id, segment in ((SLASH, "a%2Fb"), (PERCENT, "a%252Fb")):
        said = kmes.raw(ALICE, "GET", f"/api/v1/keys/{segment}/status").json
        assert said["slave_SAE_ID"] == sae_id
    for segment in ("a%252fb", "%25", "caf%C3%A9", "%2E%2E", "bob%00", "%zz"):
        assert_error(kmes.raw(ALICE, "GET", f"/api/v1/keys/{segment}/status"), 400)
    assert kmes.raw(ALICE, "GET", "/api/v1/keys/a/b/status").status == 404


def test_an_sae_with_a_slash_in_its_id_gets_keys(kmes: RunningKmes) -> None:
    kmes.stock(1, slave=SLASH)
    with kmes.client(ALICE) as alice, kmes.client(SLASH) as slave:
        answer = alice.enc_keys(SLASH)
        assert slave.dec_keys(ALICE, answer.key_ids).keys == answer.keys


def test_the_unmodified_public_client_works(kmes: RunningKmes) -> None:
    def client(sae_id: SaeId, port: int) -> QKD014Client:
        folder = kmes.credentials(sae_id)
        paths = (str(folder / name) for name in ("cert.pem", "key.pem", "ca.pem"))
        return QKD014Client(f"127.0.0.1:{port}", *paths)

    kmes.stock(5)
    alice, bob = client(ALICE, kmes.ports[LISBON]), client(BOB, kmes.ports[WARSAW])
    code, status = alice.get_status(BOB)
    assert code == 200 and status.stored_key_count >= 5
    for code, made in (alice.get_key(BOB), alice.get_key(BOB, number=3, size=128)):
        assert code == 200
        code, fetched = bob.get_key_with_key_IDs(ALICE, [key.key_id for key in made.keys])
        assert code == 200
        assert [key.key for key in fetched.keys] == [key.key for key in made.keys]
    code, error = alice.get_key("nobody")
    assert code == 400 and error.message


def test_curl_works(kmes: RunningKmes) -> None:
    def curl(sae_id: SaeId, url: str) -> dict[str, list[dict[str, str]]]:
        folder = kmes.credentials(sae_id)
        command = ["curl", "-sS", "--fail", "--cacert", folder / "ca.pem"]
        command += ["--cert", folder / "cert.pem", "--key", folder / "key.pem", url]
        answer: dict[str, list[dict[str, str]]] = json.loads(subprocess.check_output(command, timeout=20))
        return answer

    kmes.stock(1)
    (made,) = curl(ALICE, kmes.url(LISBON) + ENC)["keys"]
    (fetched,) = curl(BOB, f"{kmes.url(WARSAW)}{DEC}?key_ID={made['key_ID']}")["keys"]
    assert fetched == made
