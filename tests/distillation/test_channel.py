"""The authenticated channel: what is authenticated, with which key, and what a refusal leaves behind."""

import pytest

from openqci.core.errors import IntegrityError, PeerMisbehaved
from openqci.core.identifiers import LinkId
from openqci.core.keys import SecretBytes
from openqci.crypto import one_time_mac
from openqci.distillation.channel import (
    AUTHENTICATION_KEY_BYTES,
    FORGERY_TRIES_MAX,
    KEYS_PER_DIRECTION,
    PHASES_PER_DIRECTION,
    AuthenticatedChannel,
    Direction,
)
from openqci.distillation.messages import Envelope, decode_envelope, encode
from openqci.distillation.settings import BlockName
from tests.distillation.make import BLOCK, authentication_key


def channels(
    block: BlockName = BLOCK, other: BlockName = BLOCK, key: str = "key", other_key: str = "key"
) -> tuple[AuthenticatedChannel, AuthenticatedChannel]:
    return (
        AuthenticatedChannel(block, Direction.ALICE_TO_BOB, authentication_key(key)),
        AuthenticatedChannel(other, Direction.BOB_TO_ALICE, authentication_key(other_key)),
    )


def test_key_budget() -> None:
    assert AUTHENTICATION_KEY_BYTES == 320 <= 512


def test_a_phase_of_messages_arrives_and_is_authenticated_at_its_end() -> None:
    alice, bob = channels()
    sent = [(b"one", False), (b"two", False), (b"three", True), (b"four", True)]
    assert [bob.open(alice.seal(body, tagged=tagged)) for body, tagged in sent] == sent
    assert alice.key_bytes_used == bob.key_bytes_used == 64
    assert 0 < bob.epsilon < 1e-28


def test_tag_is_the_documented_text() -> None:
    alice, _ = channels()
    alice.seal(b"first", tagged=False)
    tag = decode_envelope(alice.seal(b"second", tagged=True)).tag
    number = lambda value: value.to_bytes(8, "big")  # noqa: E731
    text = b"OpenQCI distillation v1" + b"alice->bob" + number(0) + number(4) + b"a--b" + number(7)
    text += number(0) + number(5) + b"first" + number(1) + number(6) + b"second"
    assert tag == one_time_mac(authentication_key().reveal()[:32], text)


@pytest.mark.parametrize(
    "change",
    [
        {"other": BlockName(LinkId("a--b"), 8)},
        {"other": BlockName(LinkId("a--c"), 7)},
        {"other_key": "another"},
    ],
)
def test_another_block_link_or_key_is_refused(change: dict) -> None:
    alice, bob = channels(**change)
    with pytest.raises(PeerMisbehaved, match="authentication failed"):
        bob.open(alice.seal(b"hello", tagged=True))


def test_reflected_message_is_refused() -> None:
    alice, _ = channels()
    with pytest.raises(PeerMisbehaved):
        alice.open(alice.seal(b"hello", tagged=True))


def test_repeated_reordered_and_lost_messages_are_refused() -> None:
    alice, bob = channels()
    first, second, third = (alice.seal(bytes([i]), tagged=i == 2) for i in range(3))
    with pytest.raises(PeerMisbehaved, match=r"message 0 .* expected, 1 came"):
        bob.open(second)
    bob.open(first)
    with pytest.raises(PeerMisbehaved):
        bob.open(first)
    with pytest.raises(PeerMisbehaved):
        bob.open(third)
    bob.open(second)
    assert bob.open(third) == (b"\x02", True)


def test_a_changed_message_is_caught_by_the_tag_of_its_phase() -> None:
    alice, bob = channels()
    envelope = decode_envelope(alice.seal(b"parity 0", tagged=False))
    bob.open(encode(Envelope(envelope.version, envelope.sequence, b"parity 1", b"")))
    with pytest.raises(PeerMisbehaved, match="authentication failed"):
        bob.open(alice.seal(b"done", tagged=True))


def test_a_refused_message_changes_nothing() -> None:
    alice, bob = channels()
    good = alice.seal(b"key confirmed", tagged=True)
    for _ in range(FORGERY_TRIES_MAX):
        with pytest.raises(PeerMisbehaved):
            bob.open(encode(Envelope(1, 0, b"key confirmed", bytes(16))))
    assert bob.open(good) == (b"key confirmed", True)


def test_forgers_have_a_bounded_number_of_tries() -> None:
    _, bob = channels()
    for _ in range(KEYS_PER_DIRECTION + FORGERY_TRIES_MAX):
        with pytest.raises(PeerMisbehaved, match="authentication failed"):
            bob.open(encode(Envelope(1, 0, b"x", bytes(16))))
    with pytest.raises(PeerMisbehaved, match="too many"):
        bob.open(encode(Envelope(1, 0, b"x", bytes(16))))


def test_no_key_serves_two_texts() -> None:
    """All tags of both directions and both aborts: every 32 bytes of the key serve exactly one."""
    alice, bob = channels()
    tags = []
    for end in (alice, bob):
        tags += [decode_envelope(end.seal(b"same", tagged=True)).tag for _ in range(PHASES_PER_DIRECTION)]
        tags.append(decode_envelope(end.seal_abort(b"same")).tag)
        with pytest.raises(PeerMisbehaved):
            end.seal(b"same", tagged=True)
    assert len(set(tags)) == 2 * KEYS_PER_DIRECTION
    assert alice.key_bytes_used + bob.key_bytes_used == AUTHENTICATION_KEY_BYTES


def test_wrong_key_length_and_wiped_channel() -> None:
    with pytest.raises(IntegrityError):
        AuthenticatedChannel(BLOCK, Direction.ALICE_TO_BOB, SecretBytes(bytes(319)))
    alice, _ = channels()
    alice.wipe()
    with pytest.raises(IntegrityError):
        alice.seal(b"x", tagged=True)


def test_given_key_is_left_to_its_owner() -> None:
    key = authentication_key()
    AuthenticatedChannel(BLOCK, Direction.ALICE_TO_BOB, key).wipe()
    assert len(key) == AUTHENTICATION_KEY_BYTES and any(key.reveal())
