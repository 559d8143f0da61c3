"""End-to-end keys, step by step: equal at both ends, of all their parts, or at neither."""

import dataclasses
from functools import partial
from itertools import combinations
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqci.core.errors import KeyUnavailable, PeerMisbehaved
from openqci.core.identifiers import LinkId, SiteId, link_stream
from openqci.core.keys import SecretBytes
from openqci.core.provenance import KeyPath
from openqci.crypto.hybrid import KemAlgorithm, KemPrivateKey, KemPublicKey
from openqci.crypto.sharing import value_at
from openqci.delivery.end_to_end import (
    BatchGivenUp,
    BatchReady,
    EndToEndOrder,
    HybridPolicy,
    KemPart,
    KeyBegun,
    ShareDeclined,
    ShareKept,
    begin,
    decode_order,
    encode_order,
    forget_overdue,
    give_up,
    open_orders,
    provenance_of,
    range_bytes,
    release,
    share_arrived,
    share_confirmed,
    share_failed,
    withdraw,
)
from openqci.delivery.end_to_end.order import CONTROL_BYTES, DEADLINE_S_MAX, purpose
from openqci.delivery.end_to_end.target import CONFIRMED_KEPT_S, LATE_S
from openqci.delivery.pair_stock import batch_of
from openqci.keystore.ports import KmeView
from openqci.relay import RelayArrival, RelayOrder, forward, terminate
from openqci.relay.messages import decode_frame
from openqci.relay.node import receive, send
from openqci.relay.xor import Statements, VirtualRooms, XorOrder, encode, hold_first, hold_last, state
from tests.delivery.make_end_to_end import (
    KEM,
    KEY_BYTES,
    ORIGIN,
    TARGET,
    WAYS,
    batch_bytes,
    begun,
    carried,
    confirmed,
    kem_keys,
    landed,
    left_over,
    network,
    pair_streams,
    path,
    wanted,
)
from tests.relay.make import Net

SCHEMES = [(1, 1), (2, 2), (3, 3), (2, 3)]


def whole(net: Net, what: Any, *, kem: Any = None, tag: int = 1) -> tuple[KeyBegun, BatchReady]:
    """Carry all shares and confirm; return what was begun and what came of it."""
    key = begun(net, what, tag=tag, kem=kem)
    kept = [carried(net, frame) for _, frame in key.relays]
    words = [pair for each in kept if isinstance(each, ShareKept) for pair in each.words]
    ready = [each for relay, word in words if (each := confirmed(net, relay, word)) is not None]
    assert len(ready) == 1 and isinstance(ready[0], BatchReady)
    return key, ready[0]


def shares_of(net: Net, key: KeyBegun) -> dict[int, bytes]:
    """Return what an eavesdropper on all nodes would know: each share, from the truth of the first hops."""
    found = {}
    for number, (relay, wire) in enumerate(key.relays, start=1):
        frame = decode_frame(wire)
        stream = net.truth[link_stream(LinkId(relay.links[0]), SiteId(ORIGIN))]
        pad = bytes(stream[frame.offset_bytes : frame.offset_bytes + relay.payload_bytes])
        found[number] = xor(frame.ciphertext, pad) if frame.ciphertext else pad
    return found


def xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(("threshold", "count"), SCHEMES)
@pytest.mark.parametrize("hybrid", [False, True])
def test_both_ends_hold_the_same_batch_and_the_shell_is_told(
    threshold: int, count: int, hybrid: bool
) -> None:
    net = network()
    key, ready = whole(net, wanted(WAYS[:count], threshold), kem=KEM.public if hybrid else None)
    tag = key.order.batch_tag
    assert batch_bytes(net, tag, "master") == batch_bytes(net, tag, "slave") is not None
    assert ready.order == key.order and ready.batch.length_bytes == KEY_BYTES
    slave = net.at(TARGET, lambda view: batch_of(view, tag, "slave"))
    assert slave is not None and slave.id_seed == ready.batch.id_seed
    assert slave.provenance == ready.batch.provenance == provenance_of(key.order)
    assert net.at(TARGET, partial(release, origin_kme=key.order.origin_kme, batch_tag=tag))
    assert left_over(net) == {}


@pytest.mark.parametrize(("threshold", "count"), SCHEMES)
def test_the_key_is_what_its_shares_make_and_link_key_of_the_first_hops(threshold: int, count: int) -> None:
    net = network()
    key, _ = whole(net, wanted(WAYS[:count], threshold))
    shares = shares_of(net, key)
    made = batch_bytes(net, 1, "master")
    for chosen in combinations(shares, threshold):
        parts = [shares[number] for number in chosen]
        if threshold == count:
            total = parts[0]
            for part in parts[1:]:
                total = xor(total, part)
        else:
            total = bytes(value_at(0, {n: SecretBytes(shares[n]) for n in chosen}).reveal())
        assert total[:KEY_BYTES] == made
    for fewer in combinations(shares, threshold - 1):
        for number in fewer:
            assert shares[number][:KEY_BYTES] != made


def test_a_hybrid_key_needs_both_parts() -> None:
    net = network()
    key, _ = whole(net, wanted(policy=HybridPolicy.BOTH), kem=KEM.public)
    quantum = shares_of(net, key)[1][:KEY_BYTES]
    made = batch_bytes(net, 1, "master")
    assert made is not None and sum(a != b for a, b in zip(made, quantum, strict=True)) > 30
    assert key.order.kem is not None and key.order.kem.algorithm == "ML-KEM-768"


def test_policies() -> None:
    net = network()
    with pytest.raises(KeyUnavailable, match="ML-KEM"):
        begun(net, wanted(policy=HybridPolicy.BOTH))
    assert begun(net, wanted(policy=HybridPolicy.QUANTUM), tag=2, kem=KEM.public).order.kem is None
    assert begun(net, wanted(policy=HybridPolicy.EITHER), tag=3, kem=KEM.public).order.kem is not None
    assert begun(net, wanted(policy=HybridPolicy.EITHER), tag=4).order.kem is None


def test_every_hop_of_every_share_spends_what_the_account_says() -> None:
    net = network()
    key, _ = whole(net, wanted(WAYS, 2))
    for relay, _ in key.relays:
        for link, sender, receiver in zip(relay.links, relay.route, relay.route[1:], strict=False):
            spent = {4096 - net.stock(site, link, sender) for site in (sender, receiver)}
            assert spent == {range_bytes(KEY_BYTES)} == {KEY_BYTES + CONTROL_BYTES + 32}


def test_one_first_hop_without_key_costs_nothing_on_the_others() -> None:
    net = network(0)
    net.distil("o--a", "o", 4096)
    net.distil("o--b", "o", range_bytes(KEY_BYTES) - 1)
    before = net.stocks()
    with pytest.raises(KeyUnavailable):
        begun(net, wanted(WAYS[:2]))
    assert net.stocks() == before and left_over(net) == {}


def test_a_share_that_fails_ends_a_key_that_needs_it_and_no_other() -> None:
    net = network()
    key = begun(net, wanted(WAYS[:2]))
    carried(net, key.relays[0][1])
    over = net.at(ORIGIN, lambda v: share_failed(v, key.relays[1][0].relay_id, "b is dry", forged=False))
    assert isinstance(over, BatchGivenUp) and over.reason == "b is dry" and not over.forged
    assert [relay for relay, _ in key.relays] == list(over.voids)
    for relay in over.voids:
        net.at(TARGET, partial(withdraw, relay_id=relay.relay_id, now_s=0.0))
    assert pair_streams(net, ORIGIN) == pair_streams(net, TARGET) == []
    net.at(TARGET, lambda view: forget_overdue(view, 1e6))
    assert left_over(net) == {}

    key = begun(net, wanted(WAYS, 2), tag=2)
    assert net.at(ORIGIN, lambda v: share_failed(v, key.relays[0][0].relay_id, "dry", forged=False)) is None
    carried(net, key.relays[1][1])
    last = carried(net, key.relays[2][1])
    assert isinstance(last, ShareKept) and len(last.words) == 2
    assert isinstance(confirmed(net, *last.words[0]), BatchReady)
    assert confirmed(net, *last.words[1]) is None
    assert batch_bytes(net, 2, "master") == batch_bytes(net, 2, "slave") is not None


def test_a_share_that_is_not_needed_any_more_is_answered_and_not_kept() -> None:
    net = network()
    key = begun(net, wanted(WAYS, 2))
    carried(net, key.relays[2][1])
    word = carried(net, key.relays[0][1])
    late = carried(net, key.relays[1][1])
    assert isinstance(word, ShareKept) and isinstance(late, ShareKept)
    assert [w for _, w in late.words] == [word.words[0][1]] and late.words[0][0] == key.relays[1][0]
    assert isinstance(confirmed(net, *late.words[0]), BatchReady)


def test_a_wrong_word_gives_the_batch_up_and_is_forgery() -> None:
    for wrong in ("flip", "other", "cut", "empty"):
        net = network()
        key, other = begun(net, wanted()), begun(net, wanted(), tag=2)
        kept, kept_other = carried(net, key.relays[0][1]), carried(net, other.relays[0][1])
        assert isinstance(kept, ShareKept) and isinstance(kept_other, ShareKept)
        (relay, right), (_, elsewhere) = kept.words[0], kept_other.words[0]
        word = {
            "flip": right[:-1] + bytes([right[-1] ^ 1]),
            "other": elsewhere,
            "cut": right[:-1],
            "empty": b"",
        }[wrong]
        over = confirmed(net, relay, word)
        assert isinstance(over, BatchGivenUp) and over.forged
        assert confirmed(net, relay, right) is None, "the origin has decided"
        assert batch_bytes(net, 1, "master") is None
        assert net.at(TARGET, partial(withdraw, relay_id=relay.relay_id, now_s=0.0))
        assert batch_bytes(net, 1, "slave") is None


def evil_forward(view: KmeView, data: bytes, difference: bytes) -> bytes:
    """A trusted node that is none: it takes the payload out, adds a difference, and sends it on in order."""
    frame = decode_frame(data)
    payload = receive(view, frame)
    assert not hasattr(payload, "reason")
    for at, byte in enumerate(difference):
        payload.reveal()[at] ^= byte  # type: ignore[union-attr]
    sent, _ = send(view, frame.order, frame.hop_index + 1, payload, frame.cargo)  # type: ignore[arg-type]
    return msgspec.msgpack.encode(sent)


@pytest.mark.parametrize("at", [0, KEY_BYTES, KEY_BYTES + 16, KEY_BYTES + 32, KEY_BYTES + 48, KEY_BYTES + 63])
@pytest.mark.parametrize(("threshold", "count"), [(2, 2), (2, 3)])
def test_a_node_that_alters_its_share_makes_no_key(at: int, threshold: int, count: int) -> None:
    """Key, ID seed, or any part of the word's own MAC key: the node of one path adds what it likes."""
    net = network()
    key = begun(net, wanted(WAYS[:count], threshold), kem=KEM.public)
    difference = bytes(at) + b"\x21"
    wire = net.at("a", partial(evil_forward, data=key.relays[0][1], difference=difference))
    assert net.at(TARGET, partial(landed, frame=wire)) == ShareKept()
    kept = carried(net, key.relays[1][1])
    assert isinstance(kept, ShareKept) and len(kept.words) == 2
    over = confirmed(net, *kept.words[0])
    assert isinstance(over, BatchGivenUp) and over.forged


def test_a_target_with_another_kem_key_declines_at_once() -> None:
    net = network()
    stranger = KemPrivateKey.generate()
    key = begun(net, wanted(), kem=stranger.public)
    answer = carried(net, key.relays[0][1])
    assert isinstance(answer, ShareDeclined) and "ML-KEM key" in answer.reason and not answer.forged
    assert left_over(net).keys() == {ORIGIN} and pair_streams(net, TARGET) == []


def test_a_ciphertext_that_was_changed_on_every_path_makes_no_key() -> None:
    """Only nodes of all paths together could do it; even they cannot make two different keys pass."""
    net = network()
    key = begun(net, wanted(), kem=KEM.public)
    frame = decode_frame(net.at("a", partial(forward, data=key.relays[0][1])))
    order = decode_order(frame.cargo)
    assert order.kem is not None
    changed = bytearray(order.kem.ciphertext)
    changed[7] ^= 1
    kem = msgspec.structs.replace(order.kem, ciphertext=bytes(changed))
    cargo = encode_order(msgspec.structs.replace(order, kem=kem))
    net = network()
    key = begun(net, wanted(), kem=KEM.public)

    def forge(view: KmeView) -> bytes:
        received = decode_frame(key.relays[0][1])
        payload = receive(view, received)
        forged = msgspec.structs.replace(received.order, purpose=purpose(cargo, 1))
        return msgspec.msgpack.encode(send(view, forged, 1, payload, cargo)[0])  # type: ignore[arg-type]

    kept = net.at(TARGET, partial(landed, frame=net.at("a", forge)))
    assert isinstance(kept, ShareKept) and kept.words
    over = net.at(ORIGIN, lambda view: share_confirmed(view, key.relays[0][0].relay_id, kept.words[0][1]))
    assert isinstance(over, BatchGivenUp) and over.forged


def test_giving_up_and_the_word_cross_and_the_origin_has_decided() -> None:
    net = network()
    key = begun(net, wanted())
    kept = carried(net, key.relays[0][1])
    assert isinstance(kept, ShareKept)
    over = net.at(ORIGIN, lambda view: give_up(view, 1, "the deadline is over"))
    assert over is not None and not over.forged
    assert confirmed(net, *kept.words[0]) is None
    assert net.at(ORIGIN, lambda view: give_up(view, 1, "again")) is None
    assert net.at(TARGET, partial(withdraw, relay_id=over.voids[0].relay_id, now_s=0.0))
    assert not net.at(TARGET, partial(withdraw, relay_id=over.voids[0].relay_id, now_s=0.0)), "once"
    assert pair_streams(net, ORIGIN) == pair_streams(net, TARGET) == []


def test_what_comes_behind_a_void_is_declined_whichever_share_it_is() -> None:
    net = network()
    key = begun(net, wanted(WAYS, 2))
    carried(net, key.relays[0][1])
    net.at(TARGET, partial(withdraw, relay_id=key.relays[0][0].relay_id, now_s=0.0))
    answer = carried(net, key.relays[1][1])
    assert isinstance(answer, ShareDeclined) and "given the batch up" in answer.reason
    other = begun(net, wanted(WAYS, 2), tag=2)
    for relay, _ in other.relays:
        assert not net.at(TARGET, partial(withdraw, relay_id=relay.relay_id, now_s=0.0))
    for _, frame in other.relays:
        assert isinstance(carried(net, frame), ShareDeclined), "the voids overtook the frames"
    net.at(TARGET, lambda view: forget_overdue(view, 60 + DEADLINE_S_MAX + 2 * LATE_S))
    assert left_over(net).keys() == {ORIGIN}


def test_a_batch_tag_that_was_used_is_passed_over_at_the_origin_and_declined_at_the_target() -> None:
    net = network()
    key, _ = whole(net, wanted())
    assert begun(net, wanted()).order.batch_tag == 2
    forgetful = network()  # the same origin with a new store
    what = arrival(forgetful, begun(forgetful, wanted(key_bytes=41)))
    for reason in ("another order", "used before"):
        copy = RelayArrival(what.order, SecretBytes(what.payload.reveal()), what.cargo)
        answer = net.at(TARGET, lambda view, c=copy: share_arrived(view, c, lambda _: None, 0.0))
        assert isinstance(answer, ShareDeclined) and reason in answer.reason
        net.at(TARGET, partial(release, origin_kme=key.order.origin_kme, batch_tag=1))
    assert batch_bytes(net, 1, "slave") == batch_bytes(net, 1, "master") is not None


def test_orders_that_wait_can_be_listed_and_time_forgets_them_at_the_target() -> None:
    net = network()
    key = begun(net, wanted(WAYS[:2]))
    assert net.at(ORIGIN, open_orders) == [key.order]
    carried(net, key.relays[0][1])
    assert net.at(TARGET, lambda view: forget_overdue(view, 60 + LATE_S)) == []
    assert len(net.at(TARGET, lambda view: forget_overdue(view, 61 + LATE_S))) == 1
    assert left_over(net).keys() == {ORIGIN}
    frame = net.at("b", partial(forward, data=key.relays[1][1]))
    answer = net.at(TARGET, partial(landed, frame=frame, now_s=61 + LATE_S))
    assert isinstance(answer, ShareDeclined) and "deadline" in answer.reason


def test_a_confirmed_batch_is_never_destroyed_by_time_and_remembered_for_a_late_void() -> None:
    net = network()
    whole(net, wanted())
    net.at(TARGET, lambda view: forget_overdue(view, CONFIRMED_KEPT_S))
    assert left_over(net).keys() == {TARGET}
    net.at(TARGET, lambda view: forget_overdue(view, 61 + CONFIRMED_KEPT_S))
    assert left_over(net) == {}
    assert batch_bytes(net, 1, "slave") == batch_bytes(net, 1, "master") is not None
    late = begun(net, wanted(), tag=5)
    carried(net, late.relays[0][1])
    net.at(TARGET, lambda view: forget_overdue(view, 1000 + LATE_S))
    assert net.at(TARGET, partial(withdraw, relay_id=late.relays[0][0].relay_id, now_s=2000.0))
    assert batch_bytes(net, 5, "slave") is None


def test_a_release_of_what_was_not_confirmed_is_refused() -> None:
    net = network()
    key = begun(net, wanted(WAYS[:2]))
    carried(net, key.relays[0][1])
    with pytest.raises(PeerMisbehaved):
        net.at(TARGET, partial(release, origin_kme=key.order.origin_kme, batch_tag=1))
    assert not net.at(TARGET, partial(release, origin_kme=key.order.origin_kme, batch_tag=9))


def test_expiry_is_earlier_at_the_master() -> None:
    net = network()
    key, ready = whole(net, wanted(expires_s=100.0, collect_s=30.0))
    slave = net.at(TARGET, lambda view: batch_of(view, 1, "slave"))
    assert ready.batch.expires_s == 70.0 and slave is not None and slave.expires_s == 100.0
    assert key.order.expires_s == 100.0


def arrival(net: Net, key: KeyBegun, **change: Any) -> RelayArrival:
    """Return a genuine arrival with something changed."""
    wire = net.at("a", partial(forward, data=key.relays[0][1]))
    found = net.at(TARGET, partial(terminate, data=wire))
    assert isinstance(found, RelayArrival)
    relay = {name: change.pop(name) for name in list(change) if name in RelayOrder.__struct_fields__}
    order = msgspec.structs.replace(found.order, **relay)
    return RelayArrival(order, found.payload, change.get("cargo", found.cargo))


@pytest.mark.parametrize(
    "change",
    [
        {"cargo": b""},
        {"cargo": b"\x80"},
        {"purpose": b"another share"},
        {"route": ("o", "b", "t")},
        {"links": ("o--a", "b--t")},
        {"route": ("x", "a", "t")},
        {"key_bytes": KEY_BYTES + 1},
    ],
)
def test_a_share_that_is_not_what_its_order_says_is_declined_as_forged(change: dict[str, Any]) -> None:
    net = network()
    what = arrival(net, begun(net, wanted()), **change)
    answer = net.at(TARGET, lambda view: share_arrived(view, what, lambda _: None, 0.0))
    assert isinstance(answer, ShareDeclined) and answer.forged
    assert pair_streams(net, TARGET) == [] and left_over(net).keys() == {ORIGIN}


def test_a_share_for_another_kme_is_declined_as_forged() -> None:
    net = network()
    what = arrival(net, begun(net, wanted()))
    answer = net.at("b", lambda view: share_arrived(view, what, lambda _: None, 0.0))
    assert isinstance(answer, ShareDeclined) and answer.forged


def test_shares_behind_a_border_that_meet_in_a_node_are_declined() -> None:
    """The order names borders only; where the last domain brings two shares by one node, they are no two."""
    paths = tuple(
        KeyPath(("o", f"border{n}", "t"), (f"o--border{n}", f"border{n}--t"), "hop", 0.0) for n in (1, 2)
    )
    net = network()
    key = begun(net, wanted(WAYS[:2]))
    order = msgspec.structs.replace(key.order, paths=paths)
    cargo = encode_order(order)
    answers = []
    for number in (1, 2):
        relay = RelayOrder(
            f"{number:032x}",
            route=(f"border{number}", "same", "t"),
            links=(f"border{number}--same", f"same--t.{number}"),
            key_bytes=KEY_BYTES,
            purpose=purpose(cargo, number),
            carried=True,
        )
        share = RelayArrival(relay, SecretBytes(bytes(relay.payload_bytes)), cargo)
        answers.append(net.at(TARGET, lambda view, s=share: share_arrived(view, s, lambda _: None, 0.0)))
    assert answers[0] == ShareKept()
    assert isinstance(answers[1], ShareDeclined) and "in common" in answers[1].reason


GOOD = begun(network(), wanted(WAYS, 2), kem=KEM.public).order


@pytest.mark.parametrize(
    "change",
    [
        {"batch_tag": 1 << 40},
        {"key_bytes": 0},
        {"threshold": 0},
        {"threshold": 4},
        {"threshold": 1},
        {"paths": ()},
        {"paths": GOOD.paths[:1] * 2},
        {"target_kme": GOOD.origin_kme},
        {"origin_kme": "a/b"},
        {"policy": HybridPolicy.QUANTUM},
        {"policy": HybridPolicy.BOTH, "kem": None},
        {"deadline_s": DEADLINE_S_MAX + 1},
        {"deadline_s": -1.0},
        {"first_byte": -1},
        {"kem": msgspec.structs.replace(GOOD.kem, ciphertext=b"short")},
        {"kem": msgspec.structs.replace(GOOD.kem, algorithm=KemAlgorithm.ML_KEM_1024)},
        {"kem": msgspec.structs.replace(GOOD.kem, key_id=b"")},
    ],
    ids=lambda change: " ".join(change),
)
def test_an_order_that_no_end_may_act_on(change: dict[str, Any]) -> None:
    assert decode_order(encode_order(GOOD)) == GOOD
    with pytest.raises(PeerMisbehaved):
        decode_order(encode_order(msgspec.structs.replace(GOOD, **change)))


@pytest.mark.parametrize(
    "change",
    [
        {"route": ("o", "b", "t")},
        {"route": ("o", "t")},
        {"route": ()},
        {"route": ("o", "o", "t")},
        {"links": ()},
        {"form": "by hand"},
        {"form": "xor"},
        {"form": "computational"},
        {"via": ("b",)},
        {"via": ("x",)},
        {"bridged": ("o--a",)},
        {"epsilon": -1.0},
        {"links": ("o--b", "a--t")},
    ],
)
def test_paths_that_are_none_or_not_disjoint(change: dict[str, Any]) -> None:
    paths = (msgspec.structs.replace(GOOD.paths[0], **change), *GOOD.paths[1:])
    with pytest.raises(PeerMisbehaved):
        decode_order(encode_order(msgspec.structs.replace(GOOD, paths=paths)))


def test_an_order_in_another_encoding_is_none() -> None:
    fields: dict[str, Any] = msgspec.msgpack.decode(encode_order(GOOD))
    for other in (dict(reversed(fields.items())), fields | {"more": 1}):
        with pytest.raises(PeerMisbehaved):
            decode_order(msgspec.msgpack.encode(other))


def test_provenance_of_one_way_and_of_several() -> None:
    one = provenance_of(msgspec.structs.replace(GOOD, paths=GOOD.paths[:1], threshold=1))
    assert one.paths == () and one.ways[0].route == ("o", "a", "t") and one.hops_max == 2
    several = provenance_of(GOOD)
    assert several.paths == GOOD.paths and several.threshold == 2 and several.hybrid == ("ML-KEM-768",)
    assert several.epsilon == pytest.approx(3e-9) and several.hops_max == 3
    assert several.touched >= {"o", "a", "b", "c", "d", "t", "c--d"}
    bridged = KeyPath(("o", "e", "t"), ("o--e", "e--t"), "computational", 0.0, bridged=("e--t",))
    mixed: EndToEndOrder = msgspec.structs.replace(GOOD, paths=(*GOOD.paths[:1], bridged))
    made = provenance_of(mixed)
    assert made.computational and made.form.startswith("computational")


def test_a_share_over_a_virtual_link_and_one_over_a_bridged_hop() -> None:
    """All three relay forms in one key, each said in its provenance."""
    net = network()
    joins = XorOrder("a" * 32, ("o", "a", "t"), ("o--a", "a--t"), 500, "o")
    statements = net.at("a", partial(state, data=encode(Statements(joins))))
    assert isinstance(statements, bytes)
    for site, step in ((ORIGIN, hold_first), (TARGET, hold_last)):
        net.at(site, partial(step, data=statements))
    paths = (
        KeyPath(("o", "t"), (joins.virtual_link,), "xor", 2e-9, via=("a",)),
        KeyPath(("o", "b", "t"), ("o--b", "b--t"), "computational", 1e-9, bridged=("b--t",)),
        path("ocdt"),
    )
    what = dataclasses.replace(wanted(WAYS, 3), paths=paths)
    rooms, bridges = VirtualRooms(), Bridging()
    key = net.at(ORIGIN, lambda view: begin(view, what, 1, None, 0.0, rooms, bridges))
    words: list[tuple[RelayOrder, bytes]] = []
    for relay, frame in key.relays:
        wire: Any = frame
        for site in relay.route[1:-1]:
            wire = net.at(site, partial(forward, data=wire, rooms=rooms, bridges=bridges))
        last = partial(terminate, data=wire, rooms=rooms, bridges=bridges)
        arrived = net.at(TARGET, lambda v, s=last: share_arrived(v, s(v), kem_keys, 0.0))
        assert isinstance(arrived, ShareKept)
        words += arrived.words
    ready = confirmed(net, *words[0])
    assert isinstance(ready, BatchReady)
    assert batch_bytes(net, 1, "master") == batch_bytes(net, 1, "slave") is not None
    made = ready.batch.provenance
    assert made.computational and made.paths == paths and made.form.startswith("computational")
    assert made.touched >= {"a", "b", "c", "d"}


class Bridging:
    """Every node crosses hops by one and the same key."""

    def public_key(self, name: str) -> KemPublicKey | None:
        return KEM.public

    def private_key(self, key_id: bytes) -> KemPrivateKey | None:
        return kem_keys(key_id)


def test_a_bridged_hop_is_allowed_by_one_policy_alone() -> None:
    bridged = KeyPath(("o", "b", "t"), ("o--b", "b--t"), "computational", 1e-9, bridged=("b--t",))
    for policy, kem in ((HybridPolicy.QUANTUM, None), (HybridPolicy.BOTH, KEM.public)):
        what = dataclasses.replace(wanted(policy=policy), paths=(bridged,))
        with pytest.raises(PeerMisbehaved, match="pads on every hop"):
            begun(network(), what, kem=kem)
    first = KeyPath(("o", "b", "t"), ("o--b", "b--t"), "computational", 1e-9, bridged=("o--b",))
    with pytest.raises(PeerMisbehaved, match="first hop"):
        begun(network(), dataclasses.replace(wanted(), paths=(first,)))


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
places = st.sampled_from(
    [
        *[(name,) for name in EndToEndOrder.__struct_fields__],
        *[("kem", name) for name in KemPart.__struct_fields__],
        *[("paths", 1, name) for name in ("route", "links", "form", "epsilon", "via", "bridged")],
    ]
)


@settings(max_examples=300)
@given(place=places, value=values)
def test_an_order_with_any_other_value_in_one_place(place: tuple[Any, ...], value: Any) -> None:
    """Either no order, or one whose encoding is its own."""
    order = msgspec.msgpack.decode(encode_order(GOOD))
    inside = order
    for name in place[:-1]:
        inside = inside[name]
    inside[place[-1]] = value
    wire = msgspec.msgpack.encode(order)
    try:
        read = decode_order(wire)
    except PeerMisbehaved:
        return
    assert encode_order(read) == wire
    provenance_of(read)
