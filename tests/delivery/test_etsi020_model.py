"""What is a request of ETSI GS QKD 020 and what is none; extensions keep their bytes."""

import json
from base64 import b64encode
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import RequestRefused
from openqci.core.identifiers import KeyId, SaeId
from openqci.core.keys import SecretBytes
from openqci.delivery import etsi020_model as model
from openqci.delivery.etsi020_model import AckContainer, AckKey, AckStatus, ExtKeyContainer, TransferKey

KEY_ID = "550e8400-e29b-41d4-a716-446655440000"

STANDARD_EXAMPLE = rb"""{
  "keys": [{"key_id": "550e8400-e29b-41d4-a716-446655440000",
            "value": "wHHVxRwDJs3/bXd38GHP3oe4svTuRpZS0yCC7x4Ly\u002Bs=",
            "extension": {"E32473_extension1": "Some string applicable to a particular key"}}],
  "initiator_sae_id": "encryptor1",
  "target_sae_ids": ["encryptor2"],
  "ack_callback_url": "https://kme1/kmapi/v1/ext_keys/ack",
  "extension_optional": {"E32473_module_type": {"vendor":  "Company ABC", "min_version": 2.50}}
}"""
"""After the example of ext_key_container in the OpenAPI description of V1.1.1, with its escaped plus sign."""


def request(**members: Any) -> bytes:
    document: dict[str, Any] = {
        "keys": [{"key_id": KEY_ID, "value": "AAAA"}],
        "initiator_sae_id": "a",
        "target_sae_ids": ["b"],
    }
    return json.dumps({name: value for name, value in (document | members).items() if value != "-"}).encode()


def details(body: bytes, read: Any = model.ext_keys_from_body) -> tuple[str, dict[str, object]]:
    with pytest.raises(RequestRefused) as refusal:
        read(body)
    assert refusal.value.status == 400
    problem = json.loads(model.problem_body(refusal.value))
    assert problem["type"].startswith("https://qkd.etsi.org/gs020-interop-kms/") and problem["status"] == 400
    assert problem["details"] and all(isinstance(text, str) for text in problem["details"].values())
    return problem["title"], problem["details"]


def test_the_standards_example_is_read() -> None:
    found = model.ext_keys_from_body(STANDARD_EXAMPLE)
    (key,) = found.keys
    assert len(key.value) == 32
    assert b64encode(bytes(key.value.reveal())) == b"wHHVxRwDJs3/bXd38GHP3oe4svTuRpZS0yCC7x4Ly+s="
    assert key.extension == b'{"E32473_extension1": "Some string applicable to a particular key"}'
    assert found.optional == b'{"E32473_module_type": {"vendor":  "Company ABC", "min_version": 2.50}}'
    assert (found.initiator, found.targets) == ("encryptor1", ("encryptor2",))


@pytest.mark.parametrize("name", ["keys", "initiator_sae_id", "target_sae_ids"])
def test_what_is_missing_is_named(name: str) -> None:
    title, found = details(request(**{name: "-"}))
    assert title == "missing parameters" and name in str(found["missing_parameters"])


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({"keys": []}, "keys"),
        ({"keys": {}}, "keys"),
        ({"keys": [7]}, "keys"),
        ({"keys": [{"key_id": KEY_ID}]}, "missing_parameters"),
        ({"keys": [{"key_id": "x", "value": "AAAA"}]}, "keys"),
        ({"keys": [{"key_id": KEY_ID, "value": "AAAA"}] * 2}, "keys"),
        ({"keys": [{"key_id": KEY_ID, "value": "AAA"}]}, "value"),
        ({"keys": [{"key_id": KEY_ID, "value": ""}]}, "value"),
        ({"keys": [{"key_id": KEY_ID, "value": "AB=="}]}, "value"),  # padding bits that are not zero
        ({"keys": [{"key_id": KEY_ID, "value": "AAB="}]}, "value"),
        ({"keys": [{"key_id": KEY_ID, "value": "A-_A"}]}, "value"),
        ({"keys": [{"key_id": KEY_ID, "value": 7}]}, "value"),
        ({"keys": [{"key_id": KEY_ID, "value": "AAAA" * 30_000}]}, "value"),
        ({"keys": [{"key_id": KEY_ID, "value": "AAAA", "extension": {}}]}, "extension"),
        ({"keys": [{"key_id": KEY_ID, "value": "AAAA", "extension": {"plain": 1}}]}, "extension"),
        ({"initiator_sae_id": "x" * 65}, "initiator_sae_id"),
        ({"initiator_sae_id": ""}, "initiator_sae_id"),
        ({"initiator_sae_id": "a b"}, "initiator_sae_id"),
        ({"target_sae_ids": []}, "target_sae_ids"),
        ({"target_sae_ids": "b"}, "target_sae_ids"),
        ({"target_sae_ids": ["b", "b"]}, "target_sae_ids"),
        ({"target_sae_ids": ["a"]}, "target_sae_ids"),
        ({"target_sae_ids": ["ä"]}, "target_sae_ids"),
        ({"ack_callback_url": "http://kme1/"}, "ack_callback_url"),
        ({"ack_callback_url": "https://u:p@kme1/"}, "ack_callback_url"),
        ({"ack_callback_url": "https://kme1/" + "x" * 1024}, "ack_callback_url"),
        ({"ack_callback_url": "https://kme1:x/"}, "ack_callback_url"),
        ({"ack_callback_url": 7}, "ack_callback_url"),
        ({"extension_optional": {}}, "extension_optional"),
        ({"extension_optional": {"32473_x": 1}}, "extension_optional"),
        ({"extension_mandatory": []}, "extension_mandatory"),
    ],
)
def test_bad_members_are_named(members: dict[str, Any], named: str) -> None:
    _, found = details(request(**members))
    assert set(found) == {named}


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"{} {}", b'{"a":1,"a":1}', b"\xff", b"[" * 60_000, b"NaN"]
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    for read in (model.ext_keys_from_body, model.acks_from_body, model.void_from_body):
        if body != b"[]" or read is not model.acks_from_body:
            details(body, read)
    assert model.acks_from_body(b"[]") == ()


@pytest.mark.parametrize("text", ['"\\ud800"', "[" * 65 + "]" * 65])
def test_extensions_that_no_reader_can_pass_on_are_refused(text: str) -> None:
    body = request(extension_optional={"E1_x": "?"}).replace(b'"?"', text.encode())
    _, found = details(body)
    assert set(found) <= {"extension", "extension_optional"}


@pytest.mark.parametrize(
    "entry",
    [
        7,
        {},
        {"ack_status": "delivered"},
        {"key_id_container": []},
        {"key_id_container": [KEY_ID]},
        {"key_id_container": [{"key_id": "x"}]},
        {"key_id_container": {"key_id": KEY_ID}},
        {"target_sae_ids": []},
        {"message": "x" * 4097},
        {"extension": {"x": 1}},
    ],
)
def test_acknowledgements_that_are_none(entry: Any) -> None:
    good: dict[str, Any] = {
        "key_id_container": [{"key_id": KEY_ID}],
        "ack_status": "relayed",
        "initiator_sae_id": "a",
        "target_sae_ids": ["b"],
    }
    assert model.acks_from_body(json.dumps([good]).encode())[0].status is AckStatus.RELAYED
    bad = good | entry if isinstance(entry, dict) and entry else entry
    title, found = details(json.dumps([bad]).encode(), model.acks_from_body)
    assert (title, set(found)) == ("ack not understood", {"ack_not_understood"})


def test_a_void_of_everything_needs_its_confirmation() -> None:
    void: dict[str, Any] = {"key_ids": [], "initiator_sae_id": "a", "target_sae_ids": ["b"]}
    for more in ({}, {"all_confirmation": False}, {"all_confirmation": "true"}, {"all_confirmation": 1}):
        title, found = details(json.dumps(void | more).encode(), model.void_from_body)
        assert title == "no key ids or confirmation"
        assert set(found) == {"no_all_confirmation", "no_key_ids_or_confirmation"}
    assert model.void_from_body(json.dumps(void | {"all_confirmation": True}).encode()).key_ids == ()


sae_ids = st.text("abcXYZ019-._~:/?#[]@!$&'()*+,;=", min_size=1, max_size=64).map(SaeId)
key_ids = st.uuids().map(lambda each: KeyId(str(each)))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
extensions = st.just(b"") | st.dictionaries(
    st.text(max_size=8).map(lambda name: f"E32473_{name}"), json_values, min_size=1, max_size=3
).map(lambda each: json.dumps(each, indent=1, ensure_ascii=False).encode("utf-8", "surrogatepass")).filter(
    lambda each: b"\xed" not in each
)


@given(
    st.dictionaries(
        key_ids, st.tuples(st.binary(min_size=1, max_size=100), extensions), min_size=1, max_size=4
    ),
    st.lists(sae_ids, min_size=2, max_size=5, unique=True),
    extensions,
)
def test_a_request_is_read_as_it_was_written(
    keys: dict[KeyId, tuple[bytes, bytes]], saes: list[SaeId], optional: bytes
) -> None:
    container = ExtKeyContainer(
        tuple(
            TransferKey(key_id, SecretBytes(value), extension) for key_id, (value, extension) in keys.items()
        ),
        saes[0],
        tuple(saes[1:]),
        "https://kme/ack",
        optional=optional,
    )
    found = model.ext_keys_from_body(model.ext_keys_body(container))
    assert [(key.key_id, bytes(key.value.reveal()), key.extension) for key in found.keys] == [
        (key_id, *parts) for key_id, parts in keys.items()
    ]
    assert (found.initiator, found.targets, found.optional) == (saes[0], tuple(saes[1:]), optional)


@given(
    st.lists(
        st.builds(
            AckContainer,
            st.lists(st.builds(AckKey, key_ids, extensions), min_size=1, max_size=3).map(tuple),
            st.sampled_from(AckStatus),
            st.just(SaeId("a")),
            st.lists(sae_ids.filter(lambda sae: sae != "a"), min_size=1, max_size=3, unique=True).map(tuple),
            st.text("abc d", max_size=20),
            extensions,
        ),
        max_size=4,
    )
)
def test_acknowledgements_are_read_as_they_were_written(containers: list[AckContainer]) -> None:
    assert model.acks_from_body(model.acks_body(containers)) == tuple(containers)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_request_or_refused(body: bytes) -> None:
    for read in (model.ext_keys_from_body, model.acks_from_body, model.void_from_body):
        for draft in (False, True):
            try:
                read(body, draft=draft)
            except RequestRefused as refused:
                assert refused.status == 400
                msgspec.json.decode(model.problem_body(refused))


MEMBERS = (
    "keys",
    "initiator_sae_id",
    "target_sae_ids",
    "target_sae_id",
    "key_ids",
    "key_id_container",
    "ack_status",
    "ack_callback_url",
    "extension",
    "message",
    "all_confirmation",
)


@given(st.dictionaries(st.sampled_from(MEMBERS), json_values, max_size=6), st.booleans())
def test_any_members_are_a_request_or_refused(members: dict[str, Any], draft: bool) -> None:
    body = json.dumps(members).encode()
    for read, text in (
        (model.ext_keys_from_body, body),
        (model.acks_from_body, b"[" + body + b"]"),
        (model.void_from_body, body),
    ):
        try:
            read(text, draft=draft)  # type: ignore[operator]
        except RequestRefused as refused:
            assert refused.status == 400


def test_a_drafts_words_are_understood_and_spoken() -> None:
    said = {
        "key_ids": [{"key_id": KEY_ID}],
        "ack_status": "relayed",
        "initiator_sae_id": "a",
        "target_sae_id": "b",
    }
    (found,) = model.acks_from_body(json.dumps([said]).encode(), draft=True)
    assert (found.keys[0].key_id, found.targets) == (KEY_ID, ("b",))
    assert model.acks_from_body(json.dumps(said).encode(), draft=True) == (found,)
    plain = said | {"key_ids": [KEY_ID]}
    assert model.acks_from_body(json.dumps([plain]).encode(), draft=True) == (found,)
    with pytest.raises(RequestRefused):
        model.acks_from_body(json.dumps([said]).encode())
    missing = msgspec.structs.replace(found, status=AckStatus.NOT_PRESENT, targets=(SaeId("b"), SaeId("c")))
    spoken = json.loads(model.acks_body([missing], draft=True))
    assert [each["target_sae_id"] for each in spoken] == ["b", "c"]
    assert spoken[0]["ack_status"] == "failed" and spoken[0]["key_ids"] == [{"key_id": KEY_ID}]
    void = {"keys": [{"key_id": KEY_ID}], "initiator_sae_id": "a", "target_sae_ids": ["b"]}
    asked = model.void_from_body(json.dumps(void).encode(), draft=True)
    assert asked.key_ids == (KEY_ID,)
    assert json.loads(model.void_body(asked, draft=True)) == void


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://kme/ack", True),
        ("https://KME:443/ack", True),
        ("https://kme/below/this", True),
        ("https://kme/below/../ack2", False),
        ("https://kme/ack/more", False),
        ("https://kme:444/ack", False),
        ("https://other/ack", False),
        ("https://kme.evil/ack", False),
        ("https://kme@evil/ack", False),
        ("https://kme/ack?x=1", False),
        ("https://kme/ack#x", False),
        ("http://kme/ack", False),
        ("", False),
    ],
)
def test_acknowledgements_go_only_where_they_may(url: str, allowed: bool) -> None:
    assert model.is_allowed(url, ["https://kme/ack", "https://kme/below/"]) is allowed


def test_extensions_keep_their_bytes_beside_a_new_one() -> None:
    first = b'{"E1_a" : {"x":  1.0, "y": 1E2}}'
    more = model.with_extension(first, "E32473_b", {"z": 1})
    assert model.extension_member(more, "E1_a") == b'{"x":  1.0, "y": 1E2}'
    assert model.extension_names(more) == ("E1_a", "E32473_b")
    assert model.extension_member(b"", "E1_a") is None


def test_what_a_partner_says_of_a_problem_is_one_short_line() -> None:
    assert model.problem_in(b'{"type": "x", "title": "t", "details": {"a": "b"}}') == "t: {'a': 'b'}"
    assert model.problem_in(b"<html>") == "an answer that is no JSON"
    assert len(model.problem_in(json.dumps({"title": "x" * 5000}).encode())) == 300
