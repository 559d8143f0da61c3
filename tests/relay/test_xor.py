"""XOR relays: statements of nodes between two ends, in any order of arrival, make a link that is none."""

from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Any

import msgspec
import pytest

from openqci.core.errors import KeyUnavailable, PeerMisbehaved
from openqci.core.identifiers import LinkId, SiteId, link_stream
from openqci.core.keys import StoredRange
from openqci.relay import RelayArrival, RelayRefused, begin, forward, hop_bytes, terminate
from openqci.relay.accounts import overlaps, spent_ranges
from openqci.relay.xor import (
    Statements,
    VirtualRooms,
    XorOrder,
    decode,
    encode,
    hold_first,
    hold_last,
    range_bytes,
    state,
    virtual_stream,
)
from tests.relay.make import Net, chain, order, revealed

KEY_BYTES = 200


def xor_order(route: Sequence[str], links: Sequence[str], *, number: int = 1) -> XorOrder:
    return XorOrder(f"{number:032x}", tuple(route), tuple(links), KEY_BYTES, route[0])


def stated(net: Net, joins: XorOrder) -> bytes:
    """Let all nodes between the ends publish; return what is public then."""
    data = encode(Statements(joins))
    for site in joins.route[1:-1]:
        answer = net.at(site, partial(state, data=data))
        assert isinstance(answer, bytes)
        data = answer
    return data


def held(net: Net, site: str, joins: XorOrder) -> bytes:
    """Return the key of the virtual link as one end has it."""
    stream = virtual_stream(joins.virtual_link, joins.initiator)
    return net.at(site, lambda view: revealed(view.take(stream, 0, KEY_BYTES)))


@pytest.mark.parametrize("hops", [2, 3, 4, 7])
def test_both_ends_come_to_the_same_key_whichever_comes_first(hops: int) -> None:
    for last_first in (False, True):
        net, sites, links = chain(hops)
        joins = xor_order(sites, links)
        data = stated(net, joins)
        steps = [(sites[0], hold_first), (sites[-1], hold_last)]
        for site, step in reversed(steps) if last_first else steps:
            assert isinstance(net.at(site, partial(step, data=data)), StoredRange)
        assert held(net, sites[0], joins) == held(net, sites[-1], joins)


def test_the_key_is_link_key_of_the_first_link_and_what_is_public_tells_it_to_nobody() -> None:
    net, sites, links = chain(3)
    joins = xor_order(sites, links)
    data = stated(net, joins)
    said = decode(data)
    net.at(sites[0], partial(hold_first, data=data))
    first = net.truth[link_stream(LinkId(links[0]), SiteId(sites[1]))]
    key = bytes(first[said.statements[0].left_offset_bytes :][:KEY_BYTES])
    assert held(net, sites[0], joins) == key
    assert all(key[at : at + 8] not in data for at in range(KEY_BYTES - 8))
    for each, link, initiator in zip(said.statements, links[1:], sites[1:], strict=False):
        own = bytes(
            net.truth[link_stream(LinkId(link), SiteId(initiator))][each.right_offset_bytes :][:KEY_BYTES]
        )
        if each is said.statements[0]:
            assert each.mixed == bytes(a ^ b for a, b in zip(key, own, strict=True))


def test_a_satellite_publishes_before_the_stations_know_of_it() -> None:
    """The node in the middle starts alone: both its ranges come from streams that it begins to spend."""
    net, (ground, satellite, far), links = chain(2)
    joins = xor_order((ground, satellite, far), links)
    published = stated(net, joins)
    for station in (ground, far):
        for link in links:
            if net.links[link].count(station):
                assert net.stock(station, link, satellite) == 2048, "nothing is spent at the stations yet"
    net.at(far, partial(hold_last, data=published))
    net.at(ground, partial(hold_first, data=published))
    assert held(net, ground, joins) == held(net, far, joins)


def test_relays_go_over_a_virtual_link_as_over_any_other() -> None:
    net, sites, links = chain(3)
    joins = xor_order(sites[:3], links[:2])
    data = stated(net, joins)
    net.at(sites[0], partial(hold_first, data=data))
    net.at(sites[2], partial(hold_last, data=data))
    rooms = VirtualRooms()
    way = (sites[0], sites[2], sites[3]), (joins.virtual_link, links[2])
    relay = order(*way, key_bytes=32)
    wire, payload = net.at(sites[0], partial(begin, order=relay, rooms=rooms))
    wire = net.at(sites[2], partial(forward, data=wire, rooms=rooms))
    arrival = net.at(sites[3], partial(terminate, data=wire, rooms=rooms))
    assert isinstance(arrival, RelayArrival) and revealed(arrival.payload) == revealed(payload)
    for site in (sites[0], sites[2]):
        left = net.at(site, lambda v: v.stock_bytes(virtual_stream(joins.virtual_link, sites[0])))
        assert left == KEY_BYTES - hop_bytes(32)
    with pytest.raises(KeyUnavailable):
        net.at(sites[0], partial(begin, order=order(*way, number=2), rooms=rooms))


def test_every_range_is_gone_at_both_ends_and_in_both_accounts() -> None:
    net, sites, links = chain(4)
    data = stated(net, xor_order(sites, links))
    net.at(sites[0], partial(hold_first, data=data))
    net.at(sites[-1], partial(hold_last, data=data))
    initiators = [sites[1], *sites[1:-1]]
    for at, (link, initiator) in enumerate(zip(links, initiators, strict=True)):
        stream = link_stream(LinkId(link), SiteId(initiator))
        accounts = [net.at(end, lambda v, s=stream: list(spent_ranges(v, s))) for end in sites[at : at + 2]]
        assert accounts[0] == accounts[1] and [each.use for each in accounts[0]] == ["xor"]
        assert not overlaps(accounts[0])
        for end in sites[at : at + 2]:
            assert net.stock(end, link, initiator) == 2048 - range_bytes(KEY_BYTES)


def test_a_second_time_finds_nothing() -> None:
    net, sites, links = chain(3)
    joins = xor_order(sites, links)
    first = net.at(sites[1], partial(state, data=encode(Statements(joins))))
    assert isinstance(first, bytes)
    data = net.at(sites[2], partial(state, data=first))
    for site, step, said in (
        (sites[2], state, first),
        (sites[0], hold_first, data),
        (sites[3], hold_last, data),
    ):
        if site != sites[2]:
            net.at(site, partial(step, data=said))
        before = net.stocks()
        with pytest.raises(KeyUnavailable):
            net.at(site, partial(step, data=said))
        assert net.stocks() == before


def test_a_node_without_key_on_one_side_publishes_nothing_and_loses_nothing() -> None:
    net, sites, links = chain(2, stock_bytes=0)
    net.distil(links[0], sites[1], range_bytes(KEY_BYTES))
    net.distil(links[1], sites[1], range_bytes(KEY_BYTES) - 1)
    before = net.stocks()
    with pytest.raises(KeyUnavailable):
        stated(net, xor_order(sites, links))
    assert net.stocks() == before


@pytest.mark.parametrize("part", ["mixed", "right_tag", "left_tag"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_statement_that_was_changed_makes_no_key(part: str, which: int) -> None:
    net, sites, links = chain(3)
    said = decode(stated(net, xor_order(sites, links)))
    value = bytearray(getattr(said.statements[which], part)) or bytearray(16)
    value[-1] ^= 1
    changed = list(said.statements)
    changed[which] = msgspec.structs.replace(changed[which], **{part: bytes(value)})
    forged = encode(Statements(said.order, tuple(changed)))
    if part == "left_tag" and which:
        with pytest.raises(PeerMisbehaved):
            net.at(sites[3], partial(hold_last, data=forged))
        return
    answer = net.at(sites[3], partial(hold_last, data=forged))
    assert isinstance(answer, RelayRefused) and answer.forged and answer.site == sites[3]
    if not which and part != "right_tag":
        answer = net.at(sites[0], partial(hold_first, data=forged))
        assert isinstance(answer, RelayRefused) and answer.forged


def test_a_node_vouches_for_what_it_has_checked() -> None:
    """A forged first statement is found by the second node, before it publishes anything."""
    net, sites, links = chain(3)
    first = net.at(sites[1], partial(state, data=encode(Statements(xor_order(sites, links)))))
    said = decode(first)
    forged = msgspec.structs.replace(said.statements[0], mixed=bytes(KEY_BYTES))
    answer = net.at(sites[2], partial(state, data=encode(Statements(said.order, (forged,)))))
    assert isinstance(answer, RelayRefused) and answer.forged
    assert net.stock(sites[2], links[2], sites[2]) == 2048


def test_nobody_acts_in_another_s_place_or_turn() -> None:
    net, sites, links = chain(3)
    joins = xor_order(sites, links)
    bare, data = encode(Statements(joins)), stated(net, joins)
    before = net.stocks()
    right = {(hold_first, data, sites[0]), (hold_last, data, sites[3]), (state, bare, sites[1])}
    for step, said, site in product((state, hold_first, hold_last), (bare, data), sites):
        if (step, said, site) not in right:
            with pytest.raises(PeerMisbehaved):
                net.at(site, partial(step, data=said))
    assert net.stocks() == before


@pytest.mark.parametrize(
    "change",
    [
        {"xor_id": "1"},
        {"route": ("site0", "site1")},
        {"route": ("site0", "site1", "site0", "site2")},
        {"route": ("site0", "site1", "a/b", "site3")},
        {"links": ("site0--site1",)},
        {"key_bytes": 0},
        {"key_bytes": 1 << 20},
        {"initiator": "site1"},
    ],
)
def test_what_is_no_order(change: dict[str, Any]) -> None:
    _, sites, links = chain(3, stock_bytes=1)
    with pytest.raises(PeerMisbehaved):
        decode(encode(Statements(msgspec.structs.replace(xor_order(sites, links), **change))))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xc1", bytes((1 << 20) + 1)])
def test_what_are_no_statements(data: bytes) -> None:
    with pytest.raises(PeerMisbehaved):
        decode(data)


def test_statements_that_do_not_follow_on_each_other_or_name_no_place() -> None:
    net, sites, links = chain(3)
    said = decode(stated(net, xor_order(sites, links)))
    one, two = said.statements
    for statements in (
        (two, one),
        (one, msgspec.structs.replace(two, left_offset_bytes=7)),
        (msgspec.structs.replace(one, left_offset_bytes=-1), two),
        (one, msgspec.structs.replace(two, right_offset_bytes=1 << 40)),
        (one, msgspec.structs.replace(two, mixed=b"short")),
        (one, two, two),
    ):
        with pytest.raises(PeerMisbehaved):
            decode(encode(Statements(said.order, statements)))
