"""Keys over borders: released only when the last KME has them, voided everywhere or nowhere."""

import json
from base64 import b64decode, b64encode
from typing import Any

import msgspec
import pytest

from openqci.core.errors import KeyUnavailable, RequestRefused
from openqci.core.identifiers import KeyId, KmeId, SaeId
from openqci.core.keys import SecretBytes
from openqci.delivery import border_account, named_keys, transfers
from openqci.delivery import etsi020_model as model
from openqci.delivery.etsi014_model import KEYS_NOT_FOUND
from openqci.delivery.etsi020_model import AckStatus, ExtKeyContainer, TransferKey, VoidContainer
from openqci.delivery.etsi020_rules import BorderTrouble, KeysReleased, Terms
from openqci.delivery.transfers import HERE, State
from tests.delivery.borders import ALICE, BOB, CAROL, Kme, Networks, chain, here, new_id, partner, two, url
from tests.delivery.make import key_bytes

DAY_S = 86_400.0


def revealed(delivery: Any) -> list[bytes]:
    return [bytes(each.key.reveal()) for each in delivery.keys]


def container(
    key_id: KeyId | None = None,
    value: bytes = bytes(32),
    initiator: SaeId = ALICE,
    targets: tuple[SaeId, ...] = (BOB,),
    **more: Any,
) -> ExtKeyContainer:
    key = TransferKey(key_id or new_id(), SecretBytes(value))
    return ExtKeyContainer((key,), initiator, targets, more.pop("callback_url", url("pt")), **more)


def ask(found: Networks, request: ExtKeyContainer, sender: str = "pt", receiver: str = "es") -> int:
    """Send a request as it is; return the status."""
    try:
        found[receiver].border(lambda border: border.receive(KmeId(sender), request), found.now_s)
    except RequestRefused as refused:
        return refused.status
    return 202


def void(found: Networks, *key_ids: KeyId, sender: str = "pt", receiver: str = "es", **more: Any) -> None:
    request = VoidContainer(key_ids, more.pop("initiator", ALICE), more.pop("targets", (BOB,)), url(sender))
    found[receiver].border(lambda border: border.void(KmeId(sender), request), found.now_s)


def acks_in(found: Networks, receiver: str) -> list[tuple[str, str]]:
    """Return (key ID, status) of every acknowledgement that was sent to a KME."""
    return [
        (key.key_id, each.status.value)
        for kind, _, to, body in found.bodies
        if kind == "acks" and to == receiver
        for each in model.acks_from_body(body)
        for key in each.keys
    ]


def state(found: Networks, kme: str, key_id: KeyId) -> State | None:
    transfer = found[kme].view(lambda view: transfers.find(view, key_id))
    return transfer.state if transfer is not None else None


def not_there(found: Networks, *key_ids: KeyId) -> bool:
    try:
        found["es"].dec_keys(BOB, ALICE, *key_ids)
    except RequestRefused as refused:
        return (refused.status, refused.message) == (400, KEYS_NOT_FOUND)
    return False


def nothing_left(found: Networks) -> None:
    """No byte of a transfer lies in any store."""
    for kme in found.kmes.values():
        for stream in (transfers.VALUE_STREAM, transfers.CHECK_STREAM):
            assert kme.view(lambda view, stream=stream: view.stock_bytes(stream)) == 0, (kme.name, stream)


# The way of a key


def test_a_key_crosses_a_border_and_is_the_same_at_both_ends() -> None:
    found = two()
    key_id, value = found.originate("pt", ALICE, BOB)
    with pytest.raises(KeyUnavailable):
        found["pt"].enc_keys(ALICE, BOB)
    found.run()
    assert acks_in(found, "pt") == [(key_id, "relayed")]
    master = found["pt"].enc_keys(ALICE, BOB)
    assert revealed(master) == [value] and master.keys[0].key_id == key_id
    slave = found["es"].dec_keys(BOB, ALICE, key_id)
    assert revealed(slave) == [value] and slave.provenances == master.provenances
    assert not_there(found, key_id)
    found.run(2)
    found.now_s += DAY_S
    found.run()
    nothing_left(found)
    assert state(found, "pt", key_id) is None and state(found, "es", key_id) is None


def test_a_batch_crosses_three_networks_and_gives_keys_of_any_size() -> None:
    found = chain()
    value = key_bytes(1024 + 48)
    found.originate("pt-a", ALICE, BOB, value=value, batch_tag=7, expires_s=found.now_s + 3_600)
    found.run()
    first = found["pt-a"].enc_keys(ALICE, BOB, 2)
    second = found["pt-a"].enc_keys(ALICE, BOB, 1, 512)
    keys = [*first.keys, *second.keys]
    got = found["fr"].dec_keys(BOB, ALICE, *(each.key_id for each in keys))
    assert revealed(got) == [*revealed(first), *revealed(second)]
    assert b"".join(revealed(got)) == value[:128]
    (made,) = {*first.provenances, *got.provenances}
    assert (made.route, made.hops) == (("PT", "ES", "FR"), 4)
    assert made.epsilon == pytest.approx(4e-10) and made.simulated
    found.run(5)
    found.now_s += DAY_S
    found.run()
    nothing_left(found)


def test_a_value_that_was_changed_on_the_way_is_never_released() -> None:
    found = chain()
    spoiled: list[bytes] = []
    post = found.post

    def in_between(sender: KmeId, receiver: KmeId, kind: str, body: bytes) -> tuple[int, str]:
        if kind == "keys" and receiver == "fr":
            document = json.loads(body)
            value = bytearray(b64decode(document["keys"][0]["value"]))
            value[17] ^= 1
            document["keys"][0]["value"] = b64encode(value).decode()
            spoiled.append(body)
            body = json.dumps(document).encode()
        return post(sender, receiver, kind, body)

    found.post = in_between  # type: ignore[method-assign]
    key_id, _ = found.originate("pt-a", ALICE, BOB, value=key_bytes(1072), batch_tag=7)
    found.run(3)
    assert spoiled and state(found, "pt-a", key_id) is State.FAILED
    troubles = [event for event in found["pt-a"].events if isinstance(event, BorderTrouble)]
    assert troubles[0].forged and "confirmed other bytes" in troubles[0].reason
    assert not [event for event in found["pt-a"].events if isinstance(event, KeysReleased)]
    found.run(3)
    assert [state(found, kme, key_id) for kme in ("pt-b", "es-a", "es-b", "fr")] == [State.VOIDED] * 4


def test_a_batch_whose_target_does_not_confirm_it_is_not_released() -> None:
    """A network that knows no such batches takes the value for one key."""
    found = two()
    heard = found["pt"].border
    key_id, _ = found.originate("pt", ALICE, BOB, value=key_bytes(1072), batch_tag=7)
    (work,) = found.work_of(found["pt"])
    found.loses = lambda kind, *_: kind == "acks"
    found.do(found["pt"], work)
    plain = model.AckContainer((model.AckKey(key_id),), AckStatus.RELAYED, ALICE, (BOB,))
    heard(lambda border: border.acknowledge(KmeId("es"), [plain]), found.now_s)
    assert state(found, "pt", key_id) is State.FAILED
    found.loses = lambda *_: False
    found.run(3)
    assert state(found, "es", key_id) is State.VOIDED


def test_several_targets_of_one_network_have_one_key() -> None:
    found = two()
    for name in ("pt", "es"):
        found[name].ways[CAROL] = found[name].ways[BOB]
        found[name].enrol(CAROL, KmeId("es"))
    key_id, value = found.originate("pt", ALICE, BOB, CAROL)
    found.run()
    assert found["pt"].view(lambda view: named_keys.stock_keys(view, ALICE, BOB, 32, (CAROL,))) == 1
    with pytest.raises(RequestRefused) as refused:
        found["es"].dec_keys(SaeId("eve"), ALICE, key_id)
    assert refused.value.status == 401
    for target in (BOB, CAROL):
        assert revealed(found["es"].dec_keys(target, ALICE, key_id)) == [value]


def test_a_key_waits_for_a_link_that_is_empty_and_for_a_carriage_that_failed() -> None:
    found = chain()
    found["es-a"].carrier.empty = True
    key_id, value = found.originate("pt-a", ALICE, BOB)
    found.run(5)
    assert state(found, "es-a", key_id) is State.WAITING
    found["es-a"].carrier.empty = False
    found.loses = lambda kind, sender, _: kind == "inside" and sender == "es-a"
    found.run(9)
    assert state(found, "es-a", key_id) is State.SENT
    found["es-a"].border(lambda border: border.carriage_failed(key_id, "a hop was cut"), found.now_s)
    assert state(found, "es-a", key_id) is State.WAITING
    found.loses = lambda *_: False
    found.run(9)
    assert revealed(found["fr"].dec_keys(BOB, ALICE, key_id)) == [value]


# Refusals


def test_what_is_refused_with_400_leaves_no_trace() -> None:
    found = two()
    found.takes_all.add("pt")
    request = container(callback_url="https://elsewhere/ack")
    assert ask(found, request) == 400
    assert ask(found, container(targets=(SaeId("nobody"),))) == 400
    assert ask(found, container(), sender="stranger") == 401
    assert ask(found, container(callback_url="")) == 400
    assert not found["es"].view(lambda view: list(transfers.all_transfers(view)))
    assert not_there(found, request.keys[0].key_id)
    good = msgspec.structs.replace(request, callback_url=url("pt"))
    assert ask(found, good) == 202


def test_ways_that_lead_nowhere() -> None:
    found = chain()
    back = container(initiator=BOB, targets=(ALICE,), callback_url=url("pt-b"))
    with pytest.raises(RequestRefused) as refused:
        found["es-a"].border(lambda border: border.receive(KmeId("pt-b"), back), found.now_s)
    assert (refused.value.status, set(refused.value.details[0])) == (400, {"invalid_routing"})
    found["es-a"].ways[BOB] = []
    with pytest.raises(RequestRefused) as refused:
        found["es-a"].border(
            lambda border: border.receive(KmeId("pt-b"), container(callback_url=url("pt-b"))), found.now_s
        )
    assert (refused.value.status, set(refused.value.details[0])) == (503, {"no_known_route"})


def test_a_key_that_goes_in_a_circle_is_stopped() -> None:
    found = chain()
    key_id, _ = found.originate("pt-a", ALICE, BOB)
    found["es-b"].ways[BOB] = [partner("fr")]
    found["fr"].ways[BOB] = [partner("pt-b")]
    found.join("fr", "pt-b")
    found.run(3)
    assert state(found, "pt-a", key_id) is State.FAILED
    message = found["pt-a"].view(lambda view: transfers.find(view, key_id))
    assert message is not None and "circle" in message.message


def test_too_many_targets_are_503() -> None:
    found = two()
    many = tuple(SaeId(f"sae-{number}") for number in range(17))
    for sae in many:
        found["es"].ways[sae] = [here()]
    assert ask(found, container(targets=many)) == 503
    assert ask(found, container(targets=many[:16])) == 202
    found["es"].ways[many[0]] = [partner("pt")]
    assert ask(found, container(targets=many[:2])) == 503


def test_a_mandatory_extension_that_is_not_known_is_503_and_leaves_nothing() -> None:
    found = two()
    request = container(mandatory=("E32473_colour", "E32473_openqci_key"))
    with pytest.raises(RequestRefused) as refused:
        found["es"].border(lambda border: border.receive(KmeId("pt"), request), found.now_s)
    (details,) = refused.value.details
    assert refused.value.status == 503 and "E32473_colour" in str(details["unsupported_mandatory_extension"])
    assert "openqci" not in str(details)
    assert not found["es"].view(lambda view: list(transfers.all_transfers(view)))
    assert ask(found, container(mandatory=("E32473_openqci_key",))) == 202


# Requests that come again


def test_a_request_that_comes_again_has_the_same_effect_and_one_more_acknowledgement() -> None:
    found = two()
    found.takes_all.add("pt")
    request = container()
    for _ in range(3):
        assert ask(found, request) == 202
        found.run()
    assert [status for _, status in acks_in(found, "pt")] == ["relayed"] * 3
    assert len(found["es"].view(lambda view: named_keys.copies(view, request.keys[0].key_id))) == 1
    assert revealed(found["es"].dec_keys(BOB, ALICE, request.keys[0].key_id)) == [bytes(32)]
    assert ask(found, request) == 202
    assert not_there(found, request.keys[0].key_id)


def test_the_same_id_with_other_bytes_or_applications_is_refused_and_changes_nothing() -> None:
    found = two()
    request = container()
    key_id = request.keys[0].key_id
    found["es"].ways[CAROL] = [here()]
    assert ask(found, request) == 202
    for other in (
        container(key_id, bytes(31) + b"x"),
        container(key_id, bytes(16)),
        container(key_id, targets=(CAROL,)),
        container(key_id, initiator=CAROL),
        container(key_id, targets=(BOB, CAROL)),
    ):
        assert ask(found, other) == 503
    two_keys = msgspec.structs.replace(
        container(),
        keys=(TransferKey(new_id(), SecretBytes(bytes(8))), TransferKey(key_id, SecretBytes(b"x"))),
    )
    assert ask(found, two_keys) == 503
    assert not_there(found, two_keys.keys[0].key_id)
    assert revealed(found["es"].dec_keys(BOB, ALICE, key_id)) == [bytes(32)]


def test_another_partner_cannot_touch_a_key() -> None:
    found = chain()
    key_id, _ = found.originate("pt-a", ALICE, BOB)
    found.run()
    found.join("fr", "pt-b")
    request = container(key_id, callback_url=url("pt-b"))
    with pytest.raises(RequestRefused) as refused:
        found["fr"].border(lambda border: border.receive(KmeId("pt-b"), request), found.now_s)
    assert refused.value.status == 503
    void(found, key_id, sender="pt-b", receiver="fr")
    found.run()
    assert (key_id, "key not present") in acks_in(found, "pt-b")
    assert found["fr"].dec_keys(BOB, ALICE, key_id).keys


# What is lost on the way


def test_lost_requests_and_answers_are_made_good_by_sending_again() -> None:
    found = two()
    lost = {"keys": 2, "answer to keys": 1, "acks": 2, "answer to acks": 2}

    def loses(kind: str, *_: KmeId) -> bool:
        lost[kind] = lost.get(kind, 0) - 1
        return lost[kind] >= 0

    found.loses = loses
    key_id, value = found.originate("pt", ALICE, BOB)
    found.run(30)
    assert revealed(found["pt"].enc_keys(ALICE, BOB)) == [value]
    assert revealed(found["es"].dec_keys(BOB, ALICE, key_id)) == [value]


def test_a_partner_that_never_answers_makes_the_key_fail_and_be_voided() -> None:
    found = two()
    found.loses = lambda kind, *_: kind in ("answer to keys", "acks")
    key_id, _ = found.originate("pt", ALICE, BOB)
    found.run(61)
    assert state(found, "pt", key_id) is State.FAILED
    found.run(5)
    assert state(found, "es", key_id) is State.VOIDED and not_there(found, key_id)
    with pytest.raises(KeyUnavailable):
        found["pt"].enc_keys(ALICE, BOB)


def test_an_acknowledgement_that_is_never_taken_voids_the_key_at_both_ends() -> None:
    found = two()
    found["pt"].timing = msgspec_free(found["pt"].timing, transfer_s_max=600.0, ack_wait_s=600.0)
    found.loses = lambda kind, *_: kind == "acks"
    key_id, _ = found.originate("pt", ALICE, BOB)
    found.run(75)
    assert not_there(found, key_id)
    assert state(found, "pt", key_id) is State.FAILED
    assert "voided further on" in str(found["pt"].view(lambda view: transfers.find(view, key_id)))


def msgspec_free(timing: Any, **changes: float) -> Any:
    from dataclasses import replace

    return replace(timing, **changes)


def test_a_400_after_an_answer_that_was_lost_is_not_taken_for_no_trace() -> None:
    found = two()
    found.loses = lambda kind, *_: kind in ("answer to keys", "acks")
    key_id, _ = found.originate("pt", ALICE, BOB)
    found.run()
    assert state(found, "es", key_id) is State.RELAYED
    found["es"].ways.pop(BOB)  # from now on es answers 400: it knows no such target
    found.loses = lambda kind, *_: kind == "acks"
    found.run(5)
    assert state(found, "pt", key_id) is State.FAILED
    found.run(3)
    assert state(found, "es", key_id) is State.VOIDED


# Voids


def test_a_void_of_a_key_on_its_way_voids_it_everywhere() -> None:
    found = chain()
    key_id, _ = found.originate("pt-a", ALICE, BOB)
    found.loses = lambda kind, sender, receiver: (kind, receiver) == ("keys", "fr")
    found.run(2)
    assert state(found, "es-b", key_id) is State.WAITING
    void(found, key_id, sender="pt-b", receiver="es-a")
    found.loses = lambda *_: False
    found.run(20)
    assert (key_id, "voided") in acks_in(found, "pt-b")
    assert [state(found, kme, key_id) for kme in ("es-a", "es-b")] == [State.VOIDED] * 2
    assert state(found, "pt-b", key_id) is State.FAILED and state(found, "pt-a", key_id) is State.FAILED
    with pytest.raises(RequestRefused):
        found["fr"].dec_keys(BOB, ALICE, key_id)


def test_a_void_of_a_key_that_lies_in_stock_takes_it_out_of_both_stocks() -> None:
    found = two()
    key_id, _ = found.originate("pt", ALICE, BOB)
    found.run()
    void(found, key_id, sender="es", receiver="pt")
    found.run()
    assert acks_in(found, "es") == [(key_id, "voided")]
    with pytest.raises(KeyUnavailable):
        found["pt"].enc_keys(ALICE, BOB)
    void(found, key_id)
    void(found, key_id)
    found.run()
    assert acks_in(found, "pt")[1:] == [(key_id, "voided")] * 2
    assert not_there(found, key_id)


@pytest.mark.parametrize("by", ["master", "slave"])
def test_a_void_of_a_key_that_was_delivered_fails(by: str) -> None:
    found = two()
    key_id, value = found.originate("pt", ALICE, BOB)
    found.run()
    if by == "slave":
        found["es"].dec_keys(BOB, ALICE, key_id)
        void(found, key_id)
        found.run()
        assert acks_in(found, "pt")[1:] == [(key_id, "failed to void")]
    else:
        found["pt"].enc_keys(ALICE, BOB)
        void(found, key_id, sender="es", receiver="pt")
        found.run()
        assert acks_in(found, "es") == [(key_id, "failed to void")]
        assert revealed(found["es"].dec_keys(BOB, ALICE, key_id)) == [value]


def test_a_void_in_a_chain_fails_if_the_end_has_delivered() -> None:
    found = chain()
    key_id, _ = found.originate("pt-a", ALICE, BOB)
    found.run()
    found["fr"].dec_keys(BOB, ALICE, key_id)
    void(found, key_id, sender="pt-b", receiver="es-a")
    found.run(3)
    assert acks_in(found, "pt-b")[-1] == (key_id, "failed to void")
    assert state(found, "es-a", key_id) is State.RELAYED


def test_a_void_of_a_batch_fails_once_a_key_of_it_was_delivered() -> None:
    for delivered in (False, True):
        found = two()
        key_id, _ = found.originate("pt", ALICE, BOB, value=key_bytes(1072), batch_tag=9)
        found.run()
        if delivered:
            keys = found["pt"].enc_keys(ALICE, BOB)
            found["es"].dec_keys(BOB, ALICE, keys.keys[0].key_id)
        void(found, key_id)
        found.run()
        assert acks_in(found, "pt")[-1] == (key_id, "failed to void" if delivered else "voided")


def test_a_key_that_was_voided_before_it_came_is_refused_when_it_comes() -> None:
    found = two()
    found.takes_all.add("pt")
    late = container()
    void(found, late.keys[0].key_id)
    found.run()
    assert acks_in(found, "pt") == [(late.keys[0].key_id, "key not present")]
    assert ask(found, late) == 400
    assert not_there(found, late.keys[0].key_id)
    found.now_s += found["es"].timing.retention_s + 1
    found.run()
    assert ask(found, late) == 202


def test_a_void_of_all_keys_is_of_that_association_alone() -> None:
    found = two()
    found.takes_all.add("pt")
    found["es"].ways[CAROL] = [here()]
    mine = [container() for _ in range(3)]
    others = [container(targets=(CAROL,)), container(targets=(BOB, CAROL)), container(initiator=CAROL)]
    for request in (*mine, *others):
        assert ask(found, request) == 202
    void(found)
    found.run()
    voided = [key_id for key_id, status in acks_in(found, "pt") if status == "voided"]
    assert sorted(voided) == sorted(request.keys[0].key_id for request in mine)
    for request in others:
        assert found["es"].view(lambda view, r=request: named_keys.copies(view, r.keys[0].key_id))


def test_a_partner_that_does_not_void_is_trouble_after_a_day() -> None:
    found = two()
    found.loses = lambda kind, *_: kind in ("answer to keys", "acks", "voids")
    key_id, _ = found.originate("pt", ALICE, BOB)
    found.run(61)
    found.now_s += found["pt"].timing.void_s_max
    found.run()
    (trouble,) = [event for event in found["pt"].events if isinstance(event, BorderTrouble)]
    assert key_id in trouble.reason and "could not be voided" in trouble.reason


# Agreements and accounts


def test_a_quota_holds_for_its_window_and_an_emergency_may_pass() -> None:
    found = two()
    found.takes_all.add("pt")
    terms = Terms(name="pt-es", quota_bytes=64, window_s=3_600.0, emergency=True)
    found.join("pt", "es", terms)
    assert [ask(found, container()) for _ in range(3)] == [202, 202, 503]
    urgent = b'{"E32473_openqci_key": {"created_s": 1, "emergency": true}}'
    assert ask(found, container(optional=urgent)) == 202
    found.join("pt", "es", msgspec.structs.replace(terms, emergency=False))
    assert ask(found, container(optional=urgent)) == 503
    found.now_s += 3_600
    assert ask(found, container()) == 202


def test_an_agreement_is_in_force_between_its_days() -> None:
    found = two()
    found.join("pt", "es", Terms(valid_from_s=found.now_s + 10, valid_until_s=found.now_s + 20))
    assert ask(found, container()) == 503
    found.now_s += 10
    assert ask(found, container()) == 202
    found.now_s += 10
    assert ask(found, container()) == 503


def test_a_flood_of_one_partner_is_bounded() -> None:
    found = chain()
    found["es-a"].partners[KmeId("pt-b")] = msgspec_free(found["es-a"].partners[KmeId("pt-b")], pending_max=3)
    asked = [
        ask(found, container(callback_url=url("pt-b")), sender="pt-b", receiver="es-a") for _ in range(5)
    ]
    assert asked == [202, 202, 202, 503, 503]
    found.run(3)
    assert ask(found, container(callback_url=url("pt-b")), sender="pt-b", receiver="es-a") == 202


def test_both_partners_account_for_the_same_keys() -> None:
    found = two()
    ids = [found.originate("pt", ALICE, BOB)[0] for _ in range(3)]
    found.run()
    void(found, ids[0])
    found.run()
    lines = {name: found[name].view(lambda view: list(border_account.entries(view))) for name in ("pt", "es")}
    assert [(line.key_id, line.outcome, line.direction) for line in lines["pt"]] == [
        (key_id, "relayed", "out") for key_id in ids
    ]
    assert [(line.key_id, line.outcome, line.direction) for line in lines["es"]] == [
        *((key_id, "relayed", "in") for key_id in ids),
        (ids[0], "voided", "in"),
    ]
    for account in lines.values():
        previous = border_account.FIRST_HASH
        for number, line in enumerate(account, start=1):
            assert (line.number, line.previous, line.hash) == (number, previous, line.digest())
            previous = line.hash


# Ends of keys


def test_a_key_expires_at_its_origin_before_it_does_at_its_target() -> None:
    found = two()
    key_id, _ = found.originate("pt", ALICE, BOB, expires_s=found.now_s + 1_000)
    found.run()
    found.now_s += 701
    assert found["pt"].view(lambda view: named_keys.destroy_expired(view, found.now_s))
    assert not found["es"].view(lambda view: named_keys.destroy_expired(view, found.now_s))
    found.now_s += 300
    (gone,) = found["es"].view(lambda view: named_keys.destroy_expired(view, found.now_s))
    assert gone.key_id == key_id and not_there(found, key_id)
    void(found, key_id)
    found.run()
    assert acks_in(found, "pt")[-1] == (key_id, "voided")


def test_a_key_that_says_nothing_of_its_expiry_is_kept_for_a_day() -> None:
    found = two()
    request = container()
    ask(found, request)
    (copy,) = found["es"].view(lambda view: named_keys.copies(view, request.keys[0].key_id))
    assert copy.expires_s == found.now_s + found["es"].timing.keep_s
    assert copy.provenance.route == ("a network that says nothing of itself", "ES")


def test_a_key_that_expires_on_its_way_fails() -> None:
    found = chain()
    found["es-a"].carrier.empty = True
    key_id, _ = found.originate("pt-a", ALICE, BOB, expires_s=found.now_s + 10)
    found.run(20)
    assert state(found, "pt-a", key_id) is State.FAILED


def test_optional_extensions_of_others_go_on_byte_by_byte_and_come_back() -> None:
    found = chain()
    found.takes_all.add("pt-b")
    said = b'{"E1_colour": {"red":  1.0,"x": [1E2, "\xc3\xa4"]}}'
    request = container(optional=said, callback_url=url("pt-b"))
    key = msgspec.structs.replace(request.keys[0], extension=b'{"E1_key" :  [null]}')
    request = msgspec.structs.replace(request, keys=(key,))
    assert ask(found, request, sender="pt-b", receiver="es-a") == 202
    found.run()
    (sent,) = [body for kind, _, to, body in found.bodies if (kind, to) == ("keys", "fr")]
    assert said in sent and b'"extension":{"E1_key" :  [null]}' in sent
    (ack,) = [body for kind, _, to, body in found.bodies if (kind, to) == ("acks", "pt-b")]
    assert said in ack and b'"extension":{"E1_key" :  [null]}' in ack


def test_a_tag_that_is_taken_fails_the_batch_and_nothing_else() -> None:
    found = two()
    first, _ = found.originate("pt", ALICE, BOB, value=key_bytes(112), batch_tag=3)
    found.run()
    second, _ = found.originate("pt", ALICE, BOB, value=key_bytes(112), batch_tag=3)
    found.run()
    assert acks_in(found, "pt") == [(first, "relayed"), (second, "failed")]
    assert state(found, "pt", second) is State.FAILED


def test_a_kme_without_ways_refuses_to_originate() -> None:
    found = Networks(Kme(KmeId("pt"), "PT", {BOB: []}))
    with pytest.raises(RequestRefused) as refused:
        found.originate("pt", ALICE, BOB)
    assert refused.value.status == 503
    assert HERE.side.value == "here"
