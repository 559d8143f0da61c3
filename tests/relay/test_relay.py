"""A relay that goes well: equal keys at both ends, made of link key, and pads gone at both ends."""

from functools import partial

import msgspec
import pytest

from openqci.core.errors import KeyUnavailable, PeerMisbehaved
from openqci.core.identifiers import LinkId, SiteId, StreamId, link_stream
from openqci.core.keys import SecretBytes
from openqci.keystore.ports import KmeView
from openqci.relay import CONTROL_BYTES, RelayArrival, RelayRefused, hop_bytes, next_site
from openqci.relay.messages import RelayFrame, decode_frame
from tests.relay.make import KEY_BYTES, Origin, chain, order, revealed


def take(view: KmeView, stream: StreamId, offset: int, length: int) -> SecretBytes:
    return view.take(stream, offset, length)


def append(view: KmeView, stream: StreamId, key: bytes) -> None:
    view.append(stream, SecretBytes(key))


@pytest.mark.parametrize("hops", [1, 2, 3, 7, 60])
def test_both_ends_have_the_same_key_and_it_is_link_key_of_the_first_hop(hops: int) -> None:
    net, sites, links = chain(hops, stock_bytes=512)
    relay = order(sites, links)
    origin, frames, arrival = net.run(relay)
    payload = revealed(origin.payload)
    assert payload == revealed(arrival.payload) and arrival.order == relay
    first = link_stream(LinkId(links[0]), SiteId(sites[0]))
    offset = origin.offset_bytes
    assert payload == bytes(net.truth[first][offset : offset + KEY_BYTES + CONTROL_BYTES])
    assert [next_site(frame) for frame in frames] == sites[1:]


def test_pads_are_gone_at_both_ends_of_every_hop() -> None:
    net, sites, links = chain(4)
    _, frames, _ = net.run(order(sites, links))
    spent = hop_bytes(KEY_BYTES)
    for i, frame in enumerate(map(decode_frame, frames)):
        stream = link_stream(LinkId(links[i]), SiteId(sites[i]))
        for site in sites[i : i + 2]:
            assert net.stock(site, links[i], sites[i]) == 2048 - spent
            for first in range(frame.offset_bytes, frame.offset_bytes + spent, 16):
                with pytest.raises(KeyUnavailable):
                    net.at(site, partial(take, stream=stream, offset=first, length=1))


def test_the_other_direction_is_not_touched() -> None:
    net, sites, links = chain(3)
    net.run(order(sites, links))
    for i, link in enumerate(links):
        assert net.stock(sites[i], link, sites[i + 1]) == net.stock(sites[i + 1], link, sites[i + 1]) == 2048


def test_a_hop_spends_what_the_account_says() -> None:
    assert hop_bytes(1000) == 1000 + CONTROL_BYTES + 32


def test_no_frame_carries_the_key_or_the_control_bytes() -> None:
    net, sites, links = chain(5)
    origin, frames, arrival = net.run(order(sites, links))
    first = net.truth[link_stream(LinkId(links[0]), SiteId(sites[0]))]
    payload = bytes(first[origin.offset_bytes : origin.offset_bytes + KEY_BYTES + CONTROL_BYTES])
    assert payload == revealed(arrival.payload)
    for wire in frames:
        for start in range(len(payload) - 8):
            assert payload[start : start + 8] not in wire


def test_every_ciphertext_is_the_payload_under_the_pad_of_its_own_hop() -> None:
    net, sites, links = chain(4)
    origin, wires, _ = net.run(order(sites, links))
    frames = [decode_frame(wire) for wire in wires]
    assert frames[0].ciphertext == b""
    length = KEY_BYTES + CONTROL_BYTES
    first = net.truth[link_stream(LinkId(links[0]), SiteId(sites[0]))]
    payload = first[origin.offset_bytes : origin.offset_bytes + length]
    for i, frame in enumerate(frames[1:], start=1):
        stream = net.truth[link_stream(LinkId(links[i]), SiteId(sites[i]))]
        pad = stream[frame.offset_bytes : frame.offset_bytes + length]
        assert frame.ciphertext == bytes(a ^ b for a, b in zip(payload, pad, strict=True))


@pytest.mark.parametrize("hop", [0, 1])
@pytest.mark.parametrize("wrong_byte", [0, 1, 63, 64, 79, 80, 111, 112, 127, 128, 143])
def test_ends_that_disagree_in_one_byte_of_a_range_yield_no_key(hop: int, wrong_byte: int) -> None:
    """Pad, key, ID seed, confirmation key, MAC key: whichever byte differs, the hop's MAC is wrong."""
    net, sites, links = chain(2, stock_bytes=0)
    for i, link in enumerate(links):
        stream = link_stream(LinkId(link), SiteId(sites[i]))
        for site in sites[i : i + 2]:
            key = bytearray(range(hop_bytes(KEY_BYTES)))
            key[wrong_byte] ^= i == hop and site == sites[hop + 1]
            net.at(site, partial(append, stream=stream, key=bytes(key)))
    answer: bytes | RelayArrival | RelayRefused = net.begin(Origin(order(sites, links)))
    if hop == 1 and isinstance(answer, bytes):
        answer = net.forward(sites[1], answer)
    assert isinstance(answer, bytes)
    answer = net.forward(sites[1], answer) if hop == 0 else net.terminate(sites[2], answer)
    assert isinstance(answer, RelayRefused) and answer.forged and answer.site == sites[hop + 1]


def test_both_ends_of_a_hop_may_begin_at_once_and_never_choose_the_same_bytes() -> None:
    net, (a, b), [link] = chain(1)
    there, back = Origin(order((a, b), (link,))), Origin(order((b, a), (link,), number=2))
    frame_there, frame_back = net.begin(there), net.begin(back)
    arrival_there, arrival_back = net.arrive(b, frame_there), net.arrive(a, frame_back)
    assert revealed(there.payload) == revealed(arrival_there.payload)
    assert revealed(back.payload) == revealed(arrival_back.payload) != revealed(there.payload)


def test_many_relays_at_once_over_the_same_hops_keep_apart() -> None:
    net, sites, links = chain(3)
    relays = [Origin(order(sites, links, number=i)) for i in range(6)]
    frames = [net.begin(relay) for relay in relays]
    for site in sites[1:-1]:
        frames = [
            frame for frame in (net.forward(site, f) for f in reversed(frames)) if isinstance(frame, bytes)
        ]
    arrivals = {a.order.relay_id: a for a in (net.arrive(sites[-1], f) for f in frames)}
    keys = [revealed(relay.payload) for relay in relays]
    assert len(set(keys)) == 6
    assert keys == [revealed(arrivals[relay.order.relay_id].payload) for relay in relays]


def test_an_empty_first_hop_costs_nothing() -> None:
    net, sites, links = chain(2, stock_bytes=100)
    before = net.stocks()
    with pytest.raises(KeyUnavailable) as caught:
        net.begin(Origin(order(sites, links)))
    assert caught.value.wanted_bytes == hop_bytes(KEY_BYTES)
    assert net.stocks() == before


def test_secrets_do_not_show_themselves() -> None:
    net, sites, links = chain(2)
    origin, _, arrival = net.run(order(sites, links))
    secret = revealed(arrival.payload)
    shown = repr(arrival) + repr(origin.payload)
    assert repr(secret)[2:-1] not in shown and secret.hex() not in shown


def test_a_frame_is_read_back_as_it_was_written() -> None:
    net, sites, links = chain(2)
    _, frames, _ = net.run(order(sites, links))
    for wire in frames:
        assert msgspec.msgpack.encode(decode_frame(wire)) == wire
        assert isinstance(decode_frame(wire), RelayFrame)


@pytest.mark.parametrize(
    "change",
    [
        {"relay_id": "1"},
        {"relay_id": "G" * 32},
        {"purpose": bytes(65)},
        {"key_bytes": 0},
        {"key_bytes": 1 << 17},
        {"links": ()},
        {"links": ("site0--site1",)},
        {"links": ("site0--site1", "")},
        {"links": ("site0--site1", "a/b")},
        {"route": ("site0", "site1", "site0")},
        {"route": ("site0", "site1")},
    ],
)
def test_an_order_that_no_node_may_act_on(change: dict[str, object]) -> None:
    net, sites, links = chain(2, stock_bytes=1)
    with pytest.raises(PeerMisbehaved):
        net.begin(Origin(msgspec.structs.replace(order(sites, links), **change)))
