"""Relays between nodes with stores of their own: messages late, lost, doubled, processes that crash.

Every node has its own store and outbox. A random schedule moves one turn or answer at a time; then the
network heals and everything must come to rest: the key at both ends or at none, and no pad left at one end.
"""

from dataclasses import dataclass, field
from hashlib import sha256
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqci.core.errors import PeerMisbehaved
from openqci.core.identifiers import KmeId, LinkId, StreamId
from openqci.core.keys import SecretBytes
from openqci.keystore import outbox
from openqci.keystore.memory import MemoryKeyStore, MemoryTransaction
from openqci.keystore.ports import KmeView
from openqci.relay import RelayArrival, RelayOrder, begin, carriage, hop_bytes
from openqci.relay.carriage import LANE, Carriage, RelayResult
from openqci.relay.messages import RelayFrame

KEY_BYTES = 64


class Rooms:
    """Routes name KMEs; a link's stream bears its name and who begins to spend it."""

    def is_here(self, view: KmeView, name: str) -> bool:
        return view.kme == name

    def stream(self, view: KmeView, link_id: LinkId, sender: str, receiver: str) -> StreamId:
        return StreamId(f"link/{link_id}/{sender}")

    def too_early(self, view: KmeView, frame: RelayFrame) -> bool:
        return False


def word_about(payload: SecretBytes) -> bytes:
    """Stands for the end-to-end confirmation, which has tests of its own."""
    return sha256(payload.reveal()).digest()


class Ends:
    """Keeps what arrives in a stream, and what waits for its confirmation in another."""

    def arrived(self, view: KmeView, arrival: RelayArrival) -> None:
        if view.record("full", "disk") is not None:
            carriage.decline(view, arrival.order, "no room")
            return
        view.append(StreamId(f"got/{arrival.order.relay_id}"), arrival.payload)
        carriage.confirm(view, arrival.order, word_about(arrival.payload))

    def ended(self, view: KmeView, result: RelayResult) -> None:
        aside = StreamId(f"aside/{result.relay_id}")
        if not view.stock_bytes(aside):
            return
        order = msgspec.msgpack.decode(view.record("order", result.relay_id) or b"", type=RelayOrder)
        with view.take(aside, 0, order.payload_bytes) as payload:
            if result.confirmation == word_about(payload):
                view.append(StreamId(f"have/{result.relay_id}"), payload)
        view.put_record("ended", result.relay_id, result.reason.encode())

    def withdrawn(self, view: KmeView, relay_id: str) -> None:
        view.destroy(StreamId(f"got/{relay_id}"))

    def released(self, view: KmeView, relay_id: str) -> None:
        view.put_record("released", relay_id, b"")


@dataclass
class Chain:
    """Nodes n0 - n1 - ... with link key; every node has its own store."""

    nodes: int
    stock_bytes: int = 4 * hop_bytes(KEY_BYTES)
    stores: dict[KmeId, MemoryKeyStore] = field(default_factory=dict)
    carriage: Carriage = field(default_factory=lambda: Carriage(Ends(), Rooms()))

    def __post_init__(self) -> None:
        self.route = tuple(KmeId(f"n{number}") for number in range(self.nodes))
        self.links = tuple(f"{number}--{number + 1}" for number in range(self.nodes - 1))
        self.stores = {kme: MemoryKeyStore() for kme in self.route}
        chance = Random(1)
        for link, a, b in zip(self.links, self.route, self.route[1:], strict=False):
            for initiator in (a, b):
                secret = chance.randbytes(self.stock_bytes)
                for kme in (a, b):
                    self.at(kme, lambda view, s=secret, n=f"link/{link}/{initiator}": fill(view, n, s))

    def at(self, kme: KmeId, work):  # type: ignore[no-untyped-def]
        return self.stores[kme].submit(lambda tx: work(KmeView(tx, kme))).result()

    def order(self, number: int) -> RelayOrder:
        return RelayOrder(
            f"{number:032x}",
            route=self.route,
            links=self.links,
            key_bytes=KEY_BYTES,
        )

    def begin(self, number: int) -> None:
        order = self.order(number)

        def work(view: KmeView) -> None:
            frame, payload = begin(view, order, rooms=Rooms())
            with payload:
                view.append(StreamId(f"aside/{order.relay_id}"), payload)
            view.put_record("order", order.relay_id, msgspec.msgpack.encode(order))
            carriage.start(view, order, frame)

        self.at(self.route[0], work)

    def give_up(self, number: int) -> None:
        order = self.order(number)

        def work(view: KmeView) -> None:
            view.destroy(StreamId(f"aside/{order.relay_id}"))
            view.destroy(StreamId(f"have/{order.relay_id}"))
            carriage.void(view, order)

        self.at(self.route[0], work)

    def move(self, sender: KmeId, receiver: KmeId, fate: str = "") -> bool:
        """Carry one turn and its answers, or lose one of them, or let an end die before its commit."""
        turn = self.at(sender, lambda view: outbox.next_turn(view, receiver, LANE))
        if turn is None or fate == "turn lost":
            return False

        def handle(view: KmeView, peer: KmeId, message: outbox.Message) -> bytes:
            return self.carriage.handlers[message.kind](view, peer, message)

        def receive(view: KmeView) -> outbox.Answers:
            answers = outbox.receive(view, sender, turn, handle)
            if fate == "receiver dies":
                raise Crash
            return answers

        def settle(view: KmeView, answers: outbox.Answers) -> None:
            outbox.settle(
                view, receiver, answers, lambda v, p, m, a: self.carriage.settlers[m.kind](v, p, m, a)
            )
            if fate == "sender dies":
                raise Crash

        try:
            answers = self.at(receiver, receive)
            if fate == "doubled":
                answers = self.at(receiver, receive)
            if fate != "answer lost":
                self.at(sender, lambda view: settle(view, answers))
        except Crash:
            return False
        return True

    def neighbours(self) -> list[tuple[KmeId, KmeId]]:
        hops = list(zip(self.route, self.route[1:], strict=False))
        return [*hops, *((b, a) for a, b in hops)]

    def rest(self) -> None:
        """Carry everything until nothing waits."""
        while sum(self.move(*ends) for ends in self.neighbours()):
            continue

    def key(self, kme: KmeId, kind: str, number: int) -> bytes:
        """Return what a node has of a relay; it stays there."""
        stream = StreamId(f"{kind}/{number:032x}")

        def work(view: KmeView) -> bytes:
            if not view.stock_bytes(stream):
                return b""
            with view.take(stream, 0, KEY_BYTES) as key:
                view.put_record("looked", stream, b"")
                return bytes(key.reveal())

        return self.at(kme, work)

    def link_stocks(self) -> list[tuple[int, int]]:
        """Return what each end has of every stream of every link."""
        found = []
        for link, a, b in zip(self.links, self.route, self.route[1:], strict=False):
            for initiator in (a, b):
                stream = StreamId(f"link/{link}/{initiator}")
                found.append(
                    (
                        self.at(a, lambda view, s=stream: view.stock_bytes(s)),
                        self.at(b, lambda view, s=stream: view.stock_bytes(s)),
                    )
                )
        return found


class Crash(Exception):
    """A node dies before its transaction is durable."""


def fill(view: KmeView, stream: str, secret: bytes) -> None:
    with SecretBytes(secret) as key:
        view.append(StreamId(stream), key)


FATES = ("", "", "", "turn lost", "answer lost", "doubled", "receiver dies", "sender dies")


def test_a_relay_over_four_nodes_brings_both_ends_the_same_key() -> None:
    chain = Chain(4)
    chain.begin(1)
    chain.rest()
    at_origin, at_destination = chain.key(KmeId("n0"), "have", 1), chain.key(KmeId("n3"), "got", 1)
    assert at_origin == at_destination and len(at_origin) == KEY_BYTES
    assert all(a == b for a, b in chain.link_stocks())


def test_the_destination_hears_that_the_origin_has_it() -> None:
    chain = Chain(4)
    chain.begin(1)
    chain.rest()
    chain.at(KmeId("n0"), lambda view: carriage.release(view, chain.order(1)))
    chain.rest()
    assert chain.at(KmeId("n3"), lambda view: view.record("released", f"{1:032x}")) is not None
    assert chain.key(KmeId("n3"), "got", 1)


def test_a_hop_without_key_fails_the_relay_and_leaves_no_key() -> None:
    chain = Chain(4)
    chain.at(KmeId("n1"), lambda view: view.destroy(StreamId("link/1--2/n1")))
    chain.begin(1)
    chain.rest()
    assert b"not enough contiguous key" in chain.at(
        KmeId("n0"), lambda view: view.record("ended", f"{1:032x}")
    )
    assert not chain.key(KmeId("n0"), "have", 1) and not chain.key(KmeId("n3"), "got", 1)
    assert not chain.at(KmeId("n0"), lambda view: view.stock_bytes(StreamId(f"aside/{1:032x}")))


def test_a_destination_that_cannot_keep_it_fails_the_relay() -> None:
    chain = Chain(3)
    chain.at(KmeId("n2"), lambda view: view.put_record("full", "disk", b""))
    chain.begin(1)
    chain.rest()
    assert b"no room" in chain.at(KmeId("n0"), lambda view: view.record("ended", f"{1:032x}"))


def test_a_void_destroys_what_has_arrived_however_far_it_is() -> None:
    for moves in range(4):
        chain = Chain(4)
        chain.begin(1)
        for ends in chain.neighbours()[:moves]:
            chain.move(*ends)
        chain.give_up(1)
        chain.rest()
        assert not chain.key(KmeId("n0"), "have", 1) and not chain.key(KmeId("n3"), "got", 1)


@settings(max_examples=60)
@given(
    st.integers(2, 5),
    st.lists(st.tuples(st.integers(0, 7), st.sampled_from(FATES)), max_size=60),
    st.sets(st.integers(0, 3)),
)
def test_whatever_happens_on_the_way_both_ends_agree(
    nodes: int, schedule: list[tuple[int, str]], given_up: set[int]
) -> None:
    chain = Chain(nodes)
    for number in range(4):
        chain.begin(number)
    hops = chain.neighbours()
    for place, fate in schedule:
        chain.move(*hops[place % len(hops)], fate)
    for number in given_up:
        chain.give_up(number)
    chain.rest()
    first, last = chain.route[0], chain.route[-1]
    keys = []
    for number in range(4):
        at_origin, at_destination = chain.key(first, "have", number), chain.key(last, "got", number)
        assert at_origin == at_destination
        assert bool(at_origin) == (number not in given_up)
        keys.append(at_origin)
    held = [key for key in keys if key]
    assert len(set(held)) == len(held)
    assert all(a == b for a, b in chain.link_stocks())


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("relay-frame", b"\xc1"),
        ("relay-result", b"\xc1"),
        ("relay-void", b"\xff"),
        ("relay-void", msgspec.msgpack.encode({"relay_id": "x", "route": ["n0", "n1"], "at": 1})),
        ("relay-void", msgspec.msgpack.encode({"relay_id": "0" * 32, "route": ["n0", "n1"], "at": 9})),
        ("relay-void", msgspec.msgpack.encode({"relay_id": "0" * 32, "route": ["n0"], "at": 0})),
        ("relay-void", msgspec.msgpack.encode({"relay_id": "0" * 32, "route": ["n2", "n1"], "at": 1})),
        ("relay-result", msgspec.msgpack.encode({"relay_id": "0" * 32, "route": ["n1", "n2"], "at": 0})),
    ],
)
def test_a_message_that_makes_no_sense_is_refused_and_changes_nothing(kind: str, body: bytes) -> None:
    chain = Chain(3)
    before = chain.link_stocks()

    def work(transaction: MemoryTransaction) -> bytes:
        view = KmeView(transaction, KmeId("n1"))
        return chain.carriage.handlers[kind](view, KmeId("n0"), outbox.Message(0, kind, body))

    with pytest.raises(PeerMisbehaved):
        chain.stores[KmeId("n1")].submit(work).result()
    assert chain.link_stocks() == before


def test_a_frame_for_another_hop_is_refused() -> None:
    chain = Chain(3)
    chain.begin(1)
    turn = chain.at(KmeId("n0"), lambda view: outbox.next_turn(view, KmeId("n1"), LANE))
    with pytest.raises(PeerMisbehaved, match="a frame of the hop n0 to n1"):
        chain.at(
            KmeId("n2"),
            lambda view: chain.carriage.handlers["relay-frame"](view, KmeId("n0"), turn.messages[0]),
        )
