"""Relays in any order of steps, with losses, replays, forgeries and crashes: I1, I2 and I4 hold.

The oracle reads the wire and the truth of what was distilled; it does not ask the store. It marks every
byte of link key that a frame has used, as pad, key or MAC key, and finds none that was used twice.
"""

import contextlib
from functools import partial
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from openqci.core.errors import KeyUnavailable, PeerMisbehaved
from openqci.core.identifiers import StreamId, link_stream
from openqci.keystore.ports import KmeView
from openqci.relay import (
    RelayArrival,
    RelayOrder,
    RelayRefused,
    forward,
    hop_bytes,
    next_site,
    terminate,
)
from openqci.relay.messages import decode_frame
from tests.relay.make import Crash, Net, Origin, order, revealed

LINKS = {f"{a}--{b}": (a, b) for a, b in ("ab", "bc", "cd", "de", "ae", "bd")}
"""A ring of five nodes with a chord."""

SITES = "abcde"
ROUTES = [
    (tuple(way), tuple("--".join(sorted(ends)) for ends in pairwise(way)))
    for way in (
        "ab",
        "ba",
        "abc",
        "cba",
        "aedc",
        "dba",
        "cde",
        "ebcd",
        "eabc",
        "bdea",
        "abdc",
        "edcba",
        "edbc",
    )
    if all("--".join(sorted(ends)) in LINKS for ends in pairwise(way))
]


def ranges(view: KmeView, stream: StreamId) -> list[tuple[int, int]]:
    return view.ranges(stream)


class Relays(RuleBasedStateMachine):
    """Five nodes, six links, an adversary on every wire, and power cuts."""

    @initialize()
    def commission(self) -> None:
        self.net = Net(dict(LINKS))
        self.net.fill(400)
        self.number = 0
        self.origins: dict[str, Origin] = {}
        self.orders: dict[str, RelayOrder] = {}
        self.under_way: list[bytes] = []
        self.seen: list[bytes] = []
        self.confirmations: list[str] = []
        self.arrived: dict[str, bytes] = {}
        self.available: dict[str, bytes] = {}
        self.dead: set[str] = set()
        self.used: dict[StreamId, dict[int, str]] = {}

    @rule(way=st.sampled_from(ROUTES), key_bytes=st.sampled_from([1, 32, 64]))
    def begin(self, way: tuple[tuple[str, ...], tuple[str, ...]], key_bytes: int) -> None:
        self.number += 1
        relay = order(*way, number=self.number, key_bytes=key_bytes)
        origin = Origin(relay)
        try:
            frame = self.net.begin(origin)
        except KeyUnavailable:
            return
        self.orders[relay.relay_id], self.origins[relay.relay_id] = relay, origin
        self._sent(frame)

    @rule(way=st.sampled_from(ROUTES))
    def carry_all_the_way(self, way: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
        sent_before = len(self.seen)
        self.begin(way, 32)
        while len(self.seen) > sent_before and self.under_way:
            sent_before = len(self.seen)
            self._receive(self.under_way.pop())
        if self.confirmations:
            self.confirm(-1, False)

    @rule(way=st.sampled_from(ROUTES))
    def begin_and_crash(self, way: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
        self.number += 1
        origin = Origin(order(*way, number=self.number))
        with contextlib.suppress(Crash, KeyUnavailable):
            self.net.at(way[0][0], origin.begin, crash=True)

    @rule(link=st.sampled_from(sorted(LINKS)), end=st.integers(0, 1), length=st.integers(1, 300))
    def distil(self, link: str, end: int, length: int) -> None:
        self.net.distil(link, LINKS[link][end], length)

    @precondition(lambda self: self.under_way)
    @rule(choice=st.integers(0, 99), crash=st.booleans())
    def deliver(self, choice: int, crash: bool) -> None:
        self._receive(self.under_way.pop(choice % len(self.under_way)), crash=crash)

    @precondition(lambda self: self.under_way)
    @rule(choice=st.integers(0, 99))
    def lose(self, choice: int) -> None:
        self.under_way.pop(choice % len(self.under_way))

    @precondition(lambda self: self.seen)
    @rule(choice=st.integers(0, 99))
    def replay(self, choice: int) -> None:
        self._receive(self.seen[choice % len(self.seen)])

    @precondition(lambda self: self.seen)
    @rule(choice=st.integers(0, 99), place=st.integers(0, 10_000), flip=st.integers(1, 255))
    def tamper(self, choice: int, place: int, flip: int) -> None:
        frame = bytearray(self.seen[choice % len(self.seen)])
        frame[place % len(frame)] ^= flip
        self._receive_forged(bytes(frame))

    @precondition(lambda self: self.seen)
    @rule(
        choice=st.integers(0, 99),
        other=st.integers(0, 99),
        parts=st.sets(
            st.sampled_from(["order", "hop_index", "offset_bytes", "ciphertext", "tag"]), max_size=4
        ),
    )
    def splice(self, choice: int, other: int, parts: set[str]) -> None:
        one, two = (decode_frame(self.seen[pick % len(self.seen)]) for pick in (choice, other))
        change = {part: getattr(two, part) for part in parts}
        wire = msgspec.msgpack.encode(msgspec.structs.replace(one, **change))
        if wire not in self.seen:
            self._receive_forged(wire)

    @precondition(lambda self: self.confirmations)
    @rule(choice=st.integers(0, 99), lost=st.sampled_from([False, False, True]))
    def confirm(self, choice: int, lost: bool) -> None:
        """The origin hears that its payload has arrived, or never does."""
        relay_id = self.confirmations.pop(choice % len(self.confirmations))
        origin = self.origins.pop(relay_id, None)
        if origin is None:
            return
        if lost:
            self.dead.add(relay_id)
        else:
            self.available[relay_id] = revealed(origin.payload)

    @rule()
    def restart(self) -> None:
        """All nodes lose their memory; what is on the wires may still arrive."""
        self.dead.update(self.origins)
        self.origins.clear()

    @invariant()
    def keys_at_both_ends_are_equal_and_true(self) -> None:
        """I2: what the origin has, the destination has, and it is link key of the first hop."""
        for relay_id, key in getattr(self, "available", {}).items():
            assert self.arrived[relay_id] == key

    @invariant()
    def no_key_of_a_dead_relay_is_available(self) -> None:
        """I4."""
        assert not getattr(self, "dead", set()) & getattr(self, "available", {}).keys()

    @invariant()
    def what_was_used_is_gone_where_it_was_used(self) -> None:
        """I1 at rest: no sender still holds a byte that a frame of its own has used."""
        for stream, used in getattr(self, "used", {}).items():
            for start, length in self.net.at(stream.rsplit("/")[-1], partial(ranges, stream=stream)):
                assert not used.keys() & range(start, start + length)

    def _receive(self, wire: bytes, *, crash: bool = False) -> None:
        frame = decode_frame(wire)
        last = frame.hop_index + 1 == len(frame.order.links)
        step: Any = partial(terminate if last else forward, data=wire)
        try:
            answer = self.net.at(next_site(wire), step, crash=crash)
        except Crash:
            return
        except KeyUnavailable:
            return
        if isinstance(answer, RelayArrival):
            self._arrived(answer)
        elif isinstance(answer, bytes):
            self._sent(answer)
        else:
            assert isinstance(answer, RelayRefused)
            assert not answer.forged, "a genuine frame is refused only if the next hop is empty"
            self.dead.add(answer.relay_id)

    def _receive_forged(self, wire: bytes) -> None:
        """No forged frame makes a node send or keep anything (I4)."""
        for site in SITES:
            for step in (forward, terminate):
                try:
                    answer: Any = self.net.at(site, partial(step, data=wire))
                except (PeerMisbehaved, KeyUnavailable):
                    continue
                assert isinstance(answer, RelayRefused)

    def _sent(self, wire: bytes) -> None:
        """I1: a frame on the wire means that its range was used; no byte is ever used twice."""
        frame = decode_frame(wire)
        link, sender, _ = frame.order.hop(frame.hop_index)
        used = self.used.setdefault(link_stream(link, sender), {})
        for place in range(frame.offset_bytes, frame.offset_bytes + hop_bytes(frame.order.key_bytes)):
            assert place not in used, f"byte {place} was used by {used.get(place)} and {frame.order.relay_id}"
            used[place] = frame.order.relay_id
        self.under_way.append(wire)
        self.seen.append(wire)

    def _arrived(self, arrival: RelayArrival) -> None:
        relay_id = arrival.order.relay_id
        assert relay_id not in self.arrived, "one relay arrived twice"
        hops = [arrival.order.hop(index) for index in range(len(arrival.order.links))]
        for link, sender, receiver in hops:
            stream = link_stream(link, sender)
            used = {place for place, user in self.used[stream].items() if user == relay_id}
            held = self.net.at(receiver, partial(ranges, stream=stream))
            assert used and not any(used & set(range(start, start + length)) for start, length in held)
        assert arrival.order == self.orders[relay_id]
        key = revealed(arrival.payload)
        first = link_stream(*arrival.order.hop(0)[:2])
        offset = min(place for place, user in self.used[first].items() if user == relay_id)
        assert key == bytes(self.net.truth[first][offset : offset + len(key)])
        self.arrived[relay_id] = key
        self.confirmations.append(relay_id)


TestRelayInvariants = Relays.TestCase
TestRelayInvariants.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
