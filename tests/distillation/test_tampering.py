"""Every message of a block once flipped, dropped, doubled, cut, held back, replaced: equal keys or none."""

from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqci.distillation import (
    AbortReason,
    Direction,
    DistillationAborted,
    KeyDistilled,
    converse,
)
from openqci.distillation.messages import Envelope, decode_envelope, encode
from tests.distillation.make import ends, records

PHOTONS = records(20_000, 0.0005, seed=2)
Tampering = Callable[[bytes, list[bytes]], list[bytes]]


class TamperedLine:
    """Does something to message ``at`` (and only to that one); keeps what went by."""

    def __init__(self, at: int, tampering: Tampering) -> None:
        self.at, self.tampering = at, tampering
        self.seen: list[bytes] = []
        self.changed = False

    def __call__(self, direction: Direction, message: bytes) -> Iterable[bytes]:
        arriving = [message]
        if len(self.seen) == self.at:
            arriving = self.tampering(message, self.seen)
            self.changed = arriving != [message]
        self.seen.append(message)
        return arriving


def flip(message: bytes, seen: list[bytes]) -> list[bytes]:
    middle = len(message) // 2
    return [message[:middle] + bytes([message[middle] ^ 0x10]) + message[middle + 1 :]]


def flip_last(message: bytes, seen: list[bytes]) -> list[bytes]:
    return [message[:-1] + bytes([message[-1] ^ 1])]


def flip_body(message: bytes, seen: list[bytes]) -> list[bytes]:
    """Change the last byte of the body alone: still a well-formed envelope."""
    envelope = decode_envelope(message)
    body = envelope.body[:-1] + bytes([envelope.body[-1] ^ 1])
    return [encode(Envelope(envelope.version, envelope.sequence, body, envelope.tag))]


def strip_tag(message: bytes, seen: list[bytes]) -> list[bytes]:
    envelope = decode_envelope(message)
    return [encode(Envelope(envelope.version, envelope.sequence, envelope.body, b""))]


TAMPERINGS: dict[str, Tampering] = {
    "flip": flip,
    "flip last": flip_last,
    "flip body": flip_body,
    "drop": lambda message, seen: [],
    "double": lambda message, seen: [message, message],
    "cut": lambda message, seen: [message[:-1]],
    "empty": lambda message, seen: [b""],
    "strip tag": strip_tag,
    "reflect": lambda message, seen: seen[-1:],
    "replay": lambda message, seen: seen[-2:-1],
    "swap": lambda message, seen: [*seen[-2:-1], message],
}


def outcome(at: int, tampering: Tampering) -> tuple[bool, TamperedLine]:
    """Run a tampered block; return whether there was a key, and the line."""
    line = TamperedLine(at, tampering)
    a, b = converse(*ends(*PHOTONS), line=line)
    assert type(a) is type(b), (at, a, b)
    for event in (a, b):
        assert event.report.balances()
        assert not isinstance(event, DistillationAborted) or not event.peer_may_have_key
    if isinstance(a, KeyDistilled) and isinstance(b, KeyDistilled):
        assert a.key.key.reveal() == b.key.key.reveal()
    return isinstance(a, KeyDistilled), line


TOTAL = len(outcome(-1, flip)[1].seen)
"""Messages of the block when nobody interferes."""


@pytest.mark.parametrize("name", TAMPERINGS)
def test_every_message_once(name: str) -> None:
    """Only at the confirmations may a key be left: a lost one is said again, a second one is passed over."""
    first_confirmation = TOTAL - 2
    for at in range(TOTAL):
        kept, line = outcome(at, TAMPERINGS[name])
        in_doubt = at >= first_confirmation or (at == first_confirmation - 1 and name == "double")
        if line.changed and not in_doubt:
            assert not kept, (name, at)
        if at == TOTAL - 1:
            assert kept, "the last confirmation is asked for again"


@settings(max_examples=40, deadline=None)
@given(at=st.integers(0, TOTAL - 1), where=st.floats(0, 0.999), change=st.integers(1, 255))
def test_any_byte_of_any_message(at: int, where: float, change: int) -> None:
    def tampering(message: bytes, seen: list[bytes]) -> list[bytes]:
        place = int(where * len(message))
        return [message[:place] + bytes([message[place] ^ change]) + message[place + 1 :]]

    outcome(at, tampering)


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=5))
def test_strangers_cannot_start_anything(messages: list[bytes]) -> None:
    alice, _ = ends(*PHOTONS)
    alice.start(0.0)
    for message in messages:
        alice.receive(message, 0.0)
    event = alice.next_event()
    assert isinstance(event, DistillationAborted) and event.reason is AbortReason.PEER_MISBEHAVED


def cut_from(last: int) -> Callable[[Direction, bytes], Iterable[bytes]]:
    """Return a line that goes dead, both ways, after ``last`` messages."""
    count = 0

    def line(direction: Direction, message: bytes) -> Iterable[bytes]:
        nonlocal count
        count += 1
        return (message,) if count <= last else ()

    return line


def test_a_line_cut_for_good_leaves_one_known_doubt() -> None:
    """The last-message problem: no protocol avoids it, this one says when it has happened."""
    for last in [0, 1, 2, TOTAL // 2, TOTAL - 4, TOTAL - 3, TOTAL - 2]:
        a, b = converse(*ends(*PHOTONS), line=cut_from(last))
        assert isinstance(a, DistillationAborted) and isinstance(b, DistillationAborted), last
        assert b.peer_may_have_key is (last == TOTAL - 2), last
    a, b = converse(*ends(*PHOTONS), line=cut_from(TOTAL - 1))
    assert isinstance(a, KeyDistilled)
    assert isinstance(b, DistillationAborted) and b.peer_may_have_key


def test_forged_messages_do_not_talk_bob_out_of_a_confirmed_key() -> None:
    """In doubt, an abort without Alice's tag is passed over."""
    alice, bob = ends(*PHOTONS)
    count = 0

    def line(direction: Direction, message: bytes) -> Iterable[bytes]:
        nonlocal count
        count += 1
        forged = encode(Envelope(1, 0xFFFF_FFFF, b"\x93\xa5abort\xa1x\xa1y", bytes(16)))
        return (forged, message) if count == TOTAL else (message,)

    a, b = converse(alice, bob, line=line)
    assert isinstance(a, KeyDistilled) and isinstance(b, KeyDistilled)
