"""End-to-end keys over three ways in any order of steps: messages lost, doubled, late; crashes; evil nodes.

The oracle looks at both ends' stocks and at nothing that the steps say of themselves. Never two different
keys under one tag (I2), none lost that was confirmed (I3), nothing left once all was given up or over (I4).
What tells an end how a batch has ended (voids, releases) is not lost, as the outbox has it; frames and words
may be.
"""

from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from openqci.core.errors import KeyUnavailable, PeerMisbehaved
from openqci.crypto.hybrid import KemPrivateKey
from openqci.delivery.end_to_end import (
    BatchGivenUp,
    BatchReady,
    HybridPolicy,
    ShareDeclined,
    ShareKept,
    begin,
    forget_overdue,
    give_up,
    open_orders,
    release,
    share_arrived,
    share_confirmed,
    share_failed,
    withdraw,
)
from openqci.delivery.end_to_end.order import DEADLINE_S_MAX
from openqci.delivery.end_to_end.target import LATE_S
from openqci.keystore.ports import KmeView
from openqci.relay import RelayOrder, RelayRefused, forward, terminate
from openqci.relay.messages import decode_frame
from openqci.relay.node import receive, send
from tests.delivery.make_end_to_end import (
    KEM,
    ORIGIN,
    TARGET,
    WAYS,
    batch_bytes,
    left_over,
    network,
    pair_streams,
    wanted,
)
from tests.relay.make import Crash

Message = tuple[str, Any]
"""What travels: a frame, a word or a failure with its relay, a relay to void, an order to release."""

DECISIONS = ("void", "release")
NEW_KEM = KemPrivateKey.generate()


class EndToEndKeys(RuleBasedStateMachine):
    """Two ends, three ways, an adversary on the wires and in one node at a time, and power cuts."""

    @initialize()
    def commission(self) -> None:
        self.net = network(1200)
        self.now_s = 0.0
        self.tags: set[int] = set()
        self.ready: dict[int, bytes] = {}
        self.given_up: set[int] = set()
        self.wires: list[Message] = []
        self.kem = {KEM.public.key_id: KEM, NEW_KEM.public.key_id: NEW_KEM}

    @rule(
        ways=st.sampled_from([WAYS[:1], WAYS[:2], WAYS, WAYS[1:], ("ot",), ("ot", "oat")]),
        all_needed=st.booleans(),
        kem=st.sampled_from([None, KEM, NEW_KEM]),
        tag=st.integers(1, 4),
        crash=st.booleans(),
    )
    def begin(
        self, ways: tuple[str, ...], all_needed: bool, kem: KemPrivateKey | None, tag: int, crash: bool
    ) -> None:
        threshold = len(ways) if all_needed or len(ways) < 3 else 2
        policy = HybridPolicy.BOTH if kem else HybridPolicy.QUANTUM
        what = wanted(ways, threshold, policy, deadline_s=self.now_s + 60)
        public = kem.public if kem else None
        try:
            key = self.net.at(ORIGIN, lambda view: begin(view, what, tag, public, self.now_s), crash=crash)
        except (Crash, KeyUnavailable):
            return
        assert key.order.batch_tag not in self.tags, "no tag is begun twice"
        self.tags.add(key.order.batch_tag)
        self.wires += [("frame", frame) for _, frame in key.relays]

    @precondition(lambda self: self.wires)
    @rule(choice=st.integers(0, 99), crash=st.booleans(), again=st.booleans())
    def deliver(self, choice: int, crash: bool, again: bool) -> None:
        """Any message may overtake any other, may come twice, and may meet a crash."""
        message = self.wires.pop(choice % len(self.wires))
        if again or crash:
            self.wires.append(message)
        self._deliver(message, crash)

    @precondition(lambda self: self.wires)
    @rule()
    def deliver_the_oldest_of_each(self) -> None:
        for message in [*self.wires[:6]]:
            self.wires.remove(message)
            self._deliver(message, crash=False)

    @precondition(lambda self: self.wires)
    @rule(choice=st.integers(0, 99))
    def lose(self, choice: int) -> None:
        """The origin hears of it, as the outbox of a node that has lost its neighbour tells it, or never."""
        kind, what = self.wires[choice % len(self.wires)]
        if kind not in DECISIONS:
            self.wires.remove((kind, what))
            if kind == "frame" and choice % 2:
                self.wires.append(("failed", (decode_frame(what).order, "lost")))

    @precondition(lambda self: any(kind == "frame" for kind, _ in self.wires))
    @rule(choice=st.integers(0, 99), place=st.integers(0, 150), flip=st.integers(1, 255))
    def alter_in_an_evil_node(self, choice: int, place: int, flip: int) -> None:
        """A node of one way opens its share, changes it, and sends it on with a genuine MAC."""
        frames = [what for kind, what in self.wires if kind == "frame"]
        wire = frames[choice % len(frames)]
        frame = decode_frame(wire)
        if frame.hop_index + 1 == len(frame.order.links):
            return

        def evil(view: KmeView) -> bytes:
            payload = receive(view, frame)
            assert not isinstance(payload, RelayRefused)
            payload.reveal()[place % len(payload)] ^= flip
            sent, _ = send(view, frame.order, frame.hop_index + 1, payload, frame.cargo)
            return msgspec.msgpack.encode(sent)

        try:
            changed = self.net.at(frame.order.route[frame.hop_index + 1], evil)
        except KeyUnavailable:
            return
        self.wires.remove(("frame", wire))
        self.wires.append(("frame", changed))

    @precondition(lambda self: any(kind == "word" for kind, _ in self.wires))
    @rule(choice=st.integers(0, 99), flip=st.integers(1, 255))
    def forge_a_word(self, choice: int, flip: int) -> None:
        words = [what for kind, what in self.wires if kind == "word"]
        relay, word = words[choice % len(words)]
        self._deliver(("word", (relay, word[:-1] + bytes([word[-1] ^ flip]))), crash=False)

    @rule(choice=st.integers(0, 99))
    def give_up(self, choice: int) -> None:
        orders = self.net.at(ORIGIN, open_orders)
        if orders:
            tag = orders[choice % len(orders)].batch_tag
            self._decided(self.net.at(ORIGIN, lambda view: give_up(view, tag, "enough")))

    @rule(passed_s=st.sampled_from([1.0, 30.0, 61.0, LATE_S]))
    def time_passes(self, passed_s: float) -> None:
        """An origin gives up at its deadline; a target cleans up long after it."""
        self.now_s += passed_s
        for order in self.net.at(ORIGIN, open_orders):
            if order.deadline_s < self.now_s:
                tag = order.batch_tag
                self._decided(self.net.at(ORIGIN, lambda view, t=tag: give_up(view, t, "deadline")))
        self.net.at(TARGET, partial(forget_overdue, now_s=self.now_s))

    @rule()
    def the_target_throws_a_kem_key_away(self) -> None:
        self.kem.pop(NEW_KEM.public.key_id, None)

    @rule()
    def distil(self) -> None:
        self.net.fill(400)

    @invariant()
    def what_was_confirmed_is_at_both_ends_and_the_same(self) -> None:
        for tag, key in getattr(self, "ready", {}).items():
            assert batch_bytes(self.net, tag, "master") == key == batch_bytes(self.net, tag, "slave")

    @invariant()
    def the_master_has_nothing_else(self) -> None:
        if hasattr(self, "net"):
            assert len(pair_streams(self.net, ORIGIN)) == len(self.ready)
            assert not self.given_up & self.ready.keys()

    def teardown(self) -> None:
        """All that is under way comes to its end; then both ends hold the same batches and nothing beside."""
        if not hasattr(self, "net"):
            return
        for order in self.net.at(ORIGIN, open_orders):
            tag = order.batch_tag
            self._decided(self.net.at(ORIGIN, lambda view, t=tag: give_up(view, t, "the end")))
        while self.wires:
            self._deliver(self.wires.pop(), crash=False)
        self.now_s += DEADLINE_S_MAX + 2 * LATE_S
        self.net.at(TARGET, partial(forget_overdue, now_s=self.now_s))
        assert left_over(self.net) == {}
        assert len(pair_streams(self.net, TARGET)) == len(pair_streams(self.net, ORIGIN)) == len(self.ready)
        self.what_was_confirmed_is_at_both_ends_and_the_same()

    def _deliver(self, message: Message, crash: bool) -> None:
        kind, what = message
        step = getattr(self, f"_{kind}")
        with suppress(Crash):
            step(what, crash)

    def _frame(self, wire: bytes, crash: bool) -> None:
        frame = decode_frame(wire)
        order, site = frame.order, frame.order.route[frame.hop_index + 1]
        try:
            if site != TARGET:
                answer = self.net.at(site, partial(forward, data=wire), crash=crash)
                if isinstance(answer, bytes):
                    self.wires.append(("frame", answer))
                else:
                    assert not answer.forged
                    self.wires.append(("failed", (order, answer.reason)))
                return
            outcome = self.net.at(TARGET, partial(self._land, wire=wire), crash=crash)
        except KeyUnavailable:
            return  # its pads are spent: it came a second time
        if isinstance(outcome, ShareDeclined):
            assert not outcome.forged
            self.wires.append(("failed", (order, outcome.reason)))
        else:
            self.wires += [("word", word) for word in outcome.words]

    def _land(self, view: KmeView, wire: bytes) -> ShareKept | ShareDeclined:
        arrival = terminate(view, wire)
        assert not isinstance(arrival, RelayRefused)
        return share_arrived(view, arrival, self.kem.get, self.now_s)

    def _word(self, what: tuple[RelayOrder, bytes], crash: bool) -> None:
        relay, word = what
        step = partial(share_confirmed, relay_id=relay.relay_id, word=word)
        self._decided(self.net.at(ORIGIN, step, crash=crash))

    def _failed(self, what: tuple[RelayOrder, str], crash: bool) -> None:
        relay, reason = what
        step = partial(share_failed, relay_id=relay.relay_id, reason=reason, forged=False)
        self._decided(self.net.at(ORIGIN, step, crash=crash))

    def _void(self, relay: RelayOrder, crash: bool) -> None:
        self.net.at(TARGET, partial(withdraw, relay_id=relay.relay_id, now_s=self.now_s), crash=crash)

    def _release(self, order: Any, crash: bool) -> None:
        step = partial(release, origin_kme=order.origin_kme, batch_tag=order.batch_tag)
        try:
            self.net.at(TARGET, step, crash=crash)
        except PeerMisbehaved as error:
            raise AssertionError("a release came for what was not confirmed") from error

    def _decided(self, outcome: BatchReady | BatchGivenUp | None) -> None:
        if isinstance(outcome, BatchReady):
            tag = outcome.order.batch_tag
            assert tag not in self.ready and tag not in self.given_up
            key = batch_bytes(self.net, tag, "master")
            assert key is not None
            self.ready[tag] = key
            self.wires.append(("release", outcome.order))
        elif isinstance(outcome, BatchGivenUp):
            assert outcome.order.batch_tag not in self.ready
            self.given_up.add(outcome.order.batch_tag)
            self.wires += [("void", relay) for relay in outcome.voids]


TestEndToEndInvariants = EndToEndKeys.TestCase
TestEndToEndInvariants.settings = settings(
    max_examples=80,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
