"""Random relays of all forms over one network: no byte of link key serves twice, as pad, payload or MAC key.

The oracle reads what travels: each frame and statement names ranges, and every byte of each may be named
once. The accounts at both ends of every hop must say the same.
"""

from functools import partial
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from openqci.core.errors import KeyUnavailable, PeerMisbehaved
from openqci.core.identifiers import LinkId, SiteId, StreamId, link_stream
from openqci.core.keys import SecretBytes
from openqci.keystore.ports import KmeView
from openqci.relay import RelayRefused, begin, forward, next_site, terminate
from openqci.relay.accounts import ACCOUNT_BYTES_KEPT, SpentRange, note_spent, overlaps, spent_ranges
from openqci.relay.messages import RelayOrder, decode_frame
from openqci.relay.xor import Statements, XorOrder, decode, encode, hold_first, hold_last, state
from tests.relay.make import Crash, Net, chain, order

LINKS = {f"{a}--{b}": (a, b) for a, b in ("ab", "bc", "cd", "de", "ae", "bd")}
WAYS = ["ab", "ba", "abc", "cba", "aedc", "dba", "cde", "ebcd", "eabc", "bdea", "abdc", "edcba", "edbc"]
WAYS = [way for way in WAYS if all("--".join(sorted(ends)) in LINKS for ends in pairwise(way))]
USES = {"payload", "pad", "xor", "destroyed"}

relays = st.tuples(st.sampled_from(WAYS), st.sampled_from([1, 33, 64]), st.booleans(), st.integers(0, 9))


class Wire:
    """All that travels, and which bytes of which stream it has used."""

    def __init__(self) -> None:
        self.net = Net(dict(LINKS))
        self.net.fill(600)
        self.used: dict[StreamId, dict[int, str]] = {}

    def use(self, stream: StreamId, offset: int, payload_bytes: int, user: str) -> None:
        spent = SpentRange(user, "", offset, payload_bytes)
        places = self.used.setdefault(stream, {})
        for kind, part in (("covers", spent.payload), ("authenticates", spent.mac_key)):
            for place in part:
                assert place not in places, f"{place} of {stream}: {places.get(place)}, then {user} {kind}"
                places[place] = f"{user} {kind}"

    def links_of(self, way: str) -> tuple[str, ...]:
        return tuple("--".join(sorted(ends)) for ends in pairwise(way))

    def relay(self, number: int, way: str, key_bytes: int, carried: bool, fate: int) -> None:
        """Carry a relay; ``fate`` says at which hop it is lost, forged or cut off by a crash, if at all."""
        what = order(way, self.links_of(way), number=number, key_bytes=key_bytes, carried=carried)
        payload = SecretBytes(bytes(what.payload_bytes)) if carried else None
        frame: Any = self.step(way[0], partial(begin, order=what, payload=payload), crash=fate == 1)
        wire = frame[0] if frame else None
        while wire is not None:
            self.sent(what, wire)
            site = next_site(wire)
            at = way.index(site)
            if fate == 2 and at > 1:
                return
            if fate == 3 and at == 1:
                wire = msgspec.msgpack.encode(msgspec.structs.replace(decode_frame(wire), tag=bytes(16)))
            step: Any = terminate if at + 1 == len(way) else forward
            answer = self.step(site, partial(step, data=wire), crash=fate == 4 and at == 2)
            wire = answer if isinstance(answer, bytes) else None

    def join(self, number: int, way: str, key_bytes: int, fate: int) -> None:
        """Join two ends by an XOR relay; ``fate`` as above."""
        joins = XorOrder(f"{number:032x}", tuple(way), self.links_of(way), key_bytes, way[0])
        data: Any = encode(Statements(joins))
        for at, site in enumerate(way[1:-1], start=1):
            data = self.step(site, partial(state, data=data), crash=fate == at)
            if not isinstance(data, bytes):
                return
            last = decode(data).statements[-1]
            if at == 1:
                first = link_stream(LinkId(joins.links[0]), SiteId(way[1]))
                self.use(first, last.left_offset_bytes, key_bytes, joins.xor_id)
            stream = link_stream(LinkId(joins.links[at]), SiteId(site))
            self.use(stream, last.right_offset_bytes, key_bytes, joins.xor_id)
        for site, step in ((way[0], hold_first), (way[-1], hold_last)):
            for _ in range(1 + fate % 2):
                self.step(site, partial(step, data=data))

    def step(self, site: str, work: Any, *, crash: bool = False) -> Any:
        try:
            return self.net.at(site, work, crash=crash)
        except (KeyUnavailable, Crash, PeerMisbehaved):
            return None

    def sent(self, what: RelayOrder, wire: bytes) -> None:
        frame = decode_frame(wire)
        link, sender, _ = what.hop(frame.hop_index)
        self.use(link_stream(link, sender), frame.offset_bytes, what.payload_bytes, what.relay_id)


def account(view: KmeView, stream: StreamId) -> list[SpentRange]:
    return list(spent_ranges(view, stream))


@settings(max_examples=60, deadline=None)
@given(st.lists(relays, min_size=1, max_size=14), st.lists(relays, max_size=6))
def test_no_byte_serves_twice_and_both_ends_account_for_it_alike(
    carried: list[tuple[str, int, bool, int]], joined: list[tuple[str, int, bool, int]]
) -> None:
    wire = Wire()
    works: list[Any] = [partial(wire.relay, 1 + n, *each) for n, each in enumerate(carried)]
    for number, (way, key_bytes, _, fate) in enumerate(joined):
        if len(way) > 2:
            works.insert(2 * number, partial(wire.join, 1000 + number, way, key_bytes, fate))
    for work in works:
        work()
    for link, ends in LINKS.items():
        for initiator in ends:
            check_accounts(wire, link_stream(LinkId(link), SiteId(initiator)), ends, initiator)


def check_accounts(wire: Wire, stream: StreamId, ends: tuple[str, str], initiator: str) -> None:
    own, other = (
        wire.net.at(end, partial(account, stream=stream)) for end in sorted(ends, key=initiator.__ne__)
    )
    assert not overlaps(own) and not overlaps(other)
    places = {place for spent in own for part in (spent.payload, spent.mac_key) for place in part}
    assert places == wire.used.get(stream, {}).keys()
    ranges = {(spent.relay_id, spent.offset_bytes, spent.payload_bytes) for spent in own}
    assert ranges >= {(spent.relay_id, spent.offset_bytes, spent.payload_bytes) for spent in other}
    assert {spent.use for spent in own + other} <= USES
    held = wire.net.at(initiator, lambda view: view.ranges(stream))
    assert not any(places & set(range(start, start + length)) for start, length in held)


def test_a_refusal_stands_in_the_account_as_what_it_is() -> None:
    net, sites, links = chain(1)
    wire, _ = net.at(sites[0], partial(begin, order=order(sites, links)))
    forged = msgspec.msgpack.encode(msgspec.structs.replace(decode_frame(wire), tag=bytes(16)))
    assert isinstance(net.terminate(sites[1], forged), RelayRefused)
    stream = link_stream(LinkId(links[0]), SiteId(sites[0]))
    uses = [[spent.use for spent in net.at(site, partial(account, stream=stream))] for site in sites]
    assert uses == [["payload"], ["destroyed"]]


def test_an_account_goes_back_a_megabyte() -> None:
    net, sites, _ = chain(1, stock_bytes=0)
    stream = StreamId("link/l/s")
    step = ACCOUNT_BYTES_KEPT // 10
    for number in range(40):
        spent = SpentRange(f"{number}", "pad", number * step, 32)
        net.at(sites[0], partial(note_spent, stream=stream, spent=spent))
    kept = net.at(sites[0], partial(account, stream=stream))
    assert [spent.relay_id for spent in kept] == [f"{number}" for number in range(29, 40)]
