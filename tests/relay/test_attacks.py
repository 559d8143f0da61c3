"""A relay under attack or failure: refused or lost, never a key, never the same bytes twice."""

from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import msgspec
import pytest

from openqci.core.errors import KeyUnavailable, OpenQCIError, PeerMisbehaved
from openqci.core.identifiers import LinkId, SiteId, kme_of_site, link_stream
from openqci.keystore.memory import MemoryKeyStore
from openqci.keystore.ports import KmeView
from openqci.relay import (
    RelayArrival,
    RelayFrame,
    RelayRefused,
    forward,
    hop_bytes,
    next_site,
    terminate,
)
from openqci.relay.messages import FRAME_BYTES_MAX, STREAM_BYTES_MAX, decode_frame
from tests.relay.make import KEY_BYTES, Crash, Net, Origin, chain, order, revealed

SPENT = hop_bytes(KEY_BYTES)


def encode(frame: RelayFrame, **change: object) -> bytes:
    return msgspec.msgpack.encode(msgspec.structs.replace(frame, **change))


def outcome(net: Net, site: str, wire: bytes) -> str:
    """Hand a frame to a node in both of its possible parts; say what became of it."""
    answers = []
    for part in (net.forward, net.terminate):
        try:
            answers.append(part(site, wire))
        except OpenQCIError as error:
            answers.append(error)  # type: ignore[arg-type]
    if any(isinstance(answer, bytes | RelayArrival) for answer in answers):
        return "accepted"
    return "refused" if any(isinstance(answer, RelayRefused) for answer in answers) else "rejected"


def byte_changes(wire: bytes) -> Iterator[bytes]:
    for place in range(len(wire)):
        for flip in (0x01, 0x80, 0xFF):
            changed = bytearray(wire)
            changed[place] ^= flip
            yield bytes(changed)


class EndlessStock(MemoryKeyStore):
    """A store whose transactions are all undone, so that each of many tries meets the same stock."""

    def at(self, site: str, step: object, wire: bytes) -> object:
        answers: list[object] = []

        def work(transaction: object) -> None:
            answers.append(step(KmeView(transaction, kme_of_site(SiteId(site))), wire))  # type: ignore
            raise Crash

        future = self.submit(work)
        error = future.exception()
        return answers[0] if isinstance(error, Crash) else error


@pytest.mark.parametrize("hop", [0, 1, 2])
def test_a_frame_changed_in_any_byte_yields_no_key(hop: int) -> None:
    store = EndlessStock()
    net, sites, links = chain(3, stock_bytes=SPENT, store=store)
    relay = order(sites, links)
    wire = net.begin(Origin(relay))
    for site in sites[1 : hop + 1]:
        answer = net.forward(site, wire)
        assert isinstance(answer, bytes)
        wire = answer
    step = terminate if hop == 2 else forward
    assert isinstance(store.at(sites[hop + 1], step, wire), bytes | RelayArrival)
    refused = 0
    for changed in byte_changes(wire):
        answer = store.at(sites[hop + 1], step, changed)
        assert isinstance(answer, RelayRefused | PeerMisbehaved | KeyUnavailable), (answer, changed)
        refused += isinstance(answer, RelayRefused)
    frame = decode_frame(wire)
    assert refused >= 3 * len(frame.ciphertext + frame.tag), "these reach the MAC, and it finds them all"


def test_a_frame_with_bytes_added_or_cut_off_is_no_frame() -> None:
    net, sites, links = chain(2)
    wire = net.begin(Origin(order(sites, links)))
    before = net.stocks()
    for changed in (wire + b"\x00", wire[:-1], b"", b"\xc1", wire[1:], bytes(FRAME_BYTES_MAX + 1)):
        assert outcome(net, sites[1], changed) == "rejected"
    assert net.stocks() == before
    assert outcome(net, sites[1], wire) == "accepted"


def test_a_frame_that_is_nested_too_deep_or_no_text_is_no_frame() -> None:
    net, sites, links = chain(2)
    frame = msgspec.to_builtins(decode_frame(net.begin(Origin(order(sites, links)))))
    frame["order"]["more"] = 0
    wire = msgspec.msgpack.encode(frame)
    place = wire.index(b"more") + 4
    for inside in (b"\x91" * 100_000 + b"\x00", b"\xa1\xff"):
        assert outcome(net, sites[1], wire[:place] + inside + wire[place + 1 :]) == "rejected"


def test_a_frame_in_another_encoding_of_the_same_meaning_is_no_frame() -> None:
    net, sites, links = chain(2)
    frame = decode_frame(net.begin(Origin(order(sites, links))))
    fields = {name: getattr(frame, name) for name in reversed(frame.__struct_fields__)}
    for other in (msgspec.msgpack.encode(fields), msgspec.msgpack.encode(fields | {"more": 1})):
        with pytest.raises(PeerMisbehaved, match="canonical"):
            net.forward(sites[1], other)


def test_a_refusal_destroys_the_range_for_good_and_says_which() -> None:
    net, sites, links = chain(2)
    wire = net.begin(Origin(order(sites, links)))
    frame = decode_frame(wire)
    refusal = net.forward(sites[1], encode(frame, tag=bytes(16)))
    assert isinstance(refusal, RelayRefused) and refusal.forged
    assert refusal.relay_id == frame.order.relay_id and refusal.site == sites[1]
    assert refusal.destroyed.stream == link_stream(LinkId(links[0]), SiteId(sites[0]))
    assert (refusal.destroyed.offset_bytes, refusal.destroyed.length_bytes) == (frame.offset_bytes, SPENT)
    assert net.stock(sites[1], links[0], sites[0]) == 2048 - SPENT
    with pytest.raises(KeyUnavailable):
        net.forward(sites[1], wire)


def test_a_forged_frame_cannot_spend_key_that_the_relay_does_not_name() -> None:
    """What a forger can reach at a node is what the named sender could have begun to spend."""
    net, sites, links = chain(2)
    before = net.stocks()
    frame = decode_frame(net.begin(Origin(order(sites, links))))
    refusal = net.forward(sites[1], encode(frame, offset_bytes=1000))
    assert isinstance(refusal, RelayRefused)
    changed = {place for place, stock in net.stocks().items() if stock != before[place]}
    assert changed == {(sites[0], links[0], sites[0]), (sites[1], links[0], sites[0])}


@pytest.mark.parametrize("offset", [-1, STREAM_BYTES_MAX - SPENT + 1, STREAM_BYTES_MAX, (1 << 64) - 1])
def test_an_offset_that_no_stream_has(offset: int) -> None:
    net, sites, links = chain(2)
    frame = decode_frame(net.begin(Origin(order(sites, links))))
    with pytest.raises(PeerMisbehaved):
        net.forward(sites[1], encode(frame, offset_bytes=offset))


def test_an_offset_beyond_the_end_finds_nothing() -> None:
    net, sites, links = chain(2)
    frame = decode_frame(net.begin(Origin(order(sites, links))))
    for offset in (2048 - SPENT + 1, 2048, STREAM_BYTES_MAX - SPENT):
        with pytest.raises(KeyUnavailable):
            net.forward(sites[1], encode(frame, offset_bytes=offset))


def test_a_replayed_frame_finds_nothing() -> None:
    net, sites, links = chain(3)
    _, frames, _ = net.run(order(sites, links))
    before = net.stocks()
    for frame in frames:
        for site in sites:
            assert outcome(net, site, frame) == "rejected"
    assert net.stocks() == before


def test_frames_swapped_between_two_relays_are_refused() -> None:
    net, sites, links = chain(2)
    one = decode_frame(net.begin(Origin(order(sites, links, number=1))))
    two = decode_frame(net.begin(Origin(order(sites, links, number=2))))
    assert outcome(net, sites[1], encode(one, order=two.order)) == "refused"
    assert outcome(net, sites[1], encode(two, order=one.order)) == "refused"


def test_ciphertexts_swapped_between_two_relays_are_refused() -> None:
    net, sites, links = chain(3)
    sent = []
    for number in (1, 2):
        answer = net.forward(sites[1], net.begin(Origin(order(sites, links, number=number))))
        assert isinstance(answer, bytes)
        sent.append(decode_frame(answer))
    one, two = sent
    assert outcome(net, sites[2], encode(one, ciphertext=two.ciphertext)) == "refused"
    assert outcome(net, sites[2], encode(two, ciphertext=one.ciphertext, tag=one.tag)) == "refused"


def test_a_reflected_frame_is_refused() -> None:
    """The neighbour sends a node's own frame back, as it came or turned round, also over its own stream."""
    net, (a, b), (link,) = chain(1)
    wire = net.begin(Origin(order((a, b), (link,))))
    frame = decode_frame(wire)
    assert outcome(net, a, wire) == "rejected"
    assert outcome(net, a, encode(frame, offset_bytes=SPENT)) == "rejected", (
        "a is the sender, not the receiver"
    )
    turned = order((b, a), (link,))
    assert outcome(net, a, encode(frame, order=turned)) == "refused"
    claimed = order((b, a), (f"{link}/{a}",))
    assert outcome(net, a, encode(frame, order=claimed)) == "rejected"
    assert net.stock(a, link, a) == 2048 - SPENT, "only the frame that a sent has spent of its own direction"


def test_a_node_acts_only_as_the_node_that_is_named() -> None:
    net, sites, links = chain(3)
    wire = net.begin(Origin(order(sites, links)))
    before = net.stocks()
    for site in (sites[0], *sites[2:]):
        assert outcome(net, site, wire) == "rejected"
    assert net.stocks() == before
    with pytest.raises(PeerMisbehaved):
        net.at(sites[1], Origin(order(sites, links)).begin)


def test_the_last_node_does_not_forward_and_others_do_not_terminate() -> None:
    net, sites, links = chain(2)
    wire = net.begin(Origin(order(sites, links)))
    with pytest.raises(PeerMisbehaved):
        net.terminate(sites[1], wire)
    last = net.forward(sites[1], wire)
    assert isinstance(last, bytes) and next_site(last) == sites[2]
    with pytest.raises(PeerMisbehaved):
        net.forward(sites[2], last)


@pytest.mark.parametrize("change", [{"hop_index": -1}, {"hop_index": 2}, {"ciphertext": b"x"}])
def test_a_frame_that_does_not_fit_its_order(change: dict[str, object]) -> None:
    net, sites, links = chain(2)
    frame = decode_frame(net.begin(Origin(order(sites, links))))
    before = net.stocks()
    with pytest.raises(PeerMisbehaved):
        net.forward(sites[1], encode(frame, **change))
    assert net.stocks() == before


def test_a_starved_hop_ends_the_relay_and_destroys_what_had_come() -> None:
    net, sites, links = chain(2, stock_bytes=0)
    net.distil(links[0], sites[0], SPENT)
    net.distil(links[1], sites[1], SPENT - 1)
    origin = Origin(order(sites, links))
    wire = net.begin(origin)
    refusal = net.forward(sites[1], wire)
    assert isinstance(refusal, RelayRefused) and not refusal.forged
    assert net.stock(sites[1], links[0], sites[0]) == 0
    assert net.stock(sites[1], links[1], sites[1]) == SPENT - 1
    net.distil(links[1], sites[1], SPENT)
    assert outcome(net, sites[1], wire) == "rejected", "a late replay must not carry the dead relay on"


def test_a_crash_at_the_origin_spends_the_pads_and_gives_no_key() -> None:
    net, sites, links = chain(2)
    origin, frames, _ = net.run(order(sites, links))
    del origin  # the process is gone; what it held was in memory alone
    for i, frame in enumerate(map(decode_frame, frames)):
        stream = link_stream(LinkId(links[i]), SiteId(sites[i]))
        for site in sites[i : i + 2]:
            with pytest.raises(KeyUnavailable):
                net.at(site, lambda view, s=stream, f=frame: view.take(s, f.offset_bytes, SPENT))
    again, _, arrival = net.run(order(sites, links, number=2))
    assert again.offset_bytes >= SPENT
    assert revealed(again.payload) == revealed(arrival.payload)


def test_a_crash_before_the_transaction_is_durable_undoes_the_step() -> None:
    """Nothing has left the node, so its key is untouched and the message that came can be tried again."""
    net, sites, links = chain(2)
    before = net.stocks()
    with pytest.raises(Crash):
        net.at(sites[0], Origin(order(sites, links)).begin, crash=True)
    assert net.stocks() == before
    wire = net.begin(Origin(order(sites, links)))
    before = net.stocks()
    with pytest.raises(Crash):
        net.at(sites[1], partial(forward, data=wire), crash=True)
    assert net.stocks() == before
    wire = net.forward(sites[1], wire)
    assert isinstance(wire, bytes)
    with pytest.raises(Crash):
        net.at(sites[2], partial(terminate, data=wire), crash=True)
    assert isinstance(net.terminate(sites[2], wire), RelayArrival)


def test_a_lost_frame_costs_pads_and_nothing_else() -> None:
    net, sites, links = chain(2)
    net.begin(Origin(order(sites, links)))
    origin, _, arrival = net.run(order(sites, links, number=2))
    assert origin.offset_bytes == SPENT
    assert revealed(origin.payload) == revealed(arrival.payload)


def test_every_hop_uses_a_mac_key_of_its_own() -> None:
    net, sites, links = chain(5)
    _, frames, _ = net.run(order(sites, links))
    tags = [decode_frame(frame).tag for frame in frames]
    assert len(set(tags)) == len(tags)
    ranges = [(decode_frame(f).order.links[i], decode_frame(f).offset_bytes) for i, f in enumerate(frames)]
    assert len(set(ranges)) == len(list(pairwise(sites)))
