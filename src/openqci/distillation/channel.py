"""One end of the authenticated classical channel: sequence numbers, phase tags, one key for each tag.

Authenticated text of a tag::

    "OpenQCI distillation v1" | direction | phase | length of link id | link id | block number
    | for every message of this direction since its last tag: sequence | length | body

with numbers of 8 bytes, big-endian. Sequence numbers run over the whole block. So a message that was forged,
dropped, repeated, reordered, reflected, or taken from another block or link makes the tag fail.

Tags are delayed: the messages of error correction share the tag that ends their phase. That is allowed
because nothing leaves the session as key before the last tag was checked; until then a message that was
tampered with can only waste the block.

Every tag has its own 32 bytes of key: a one-time MAC with no key bit used twice, so its security does not
wear off (Abidin and Larsson, arXiv:1109.5168). The key of a block is cut by direction first, then by phase,
the last place of each direction for Abort: the two ends never use the same bytes for different texts.
"""

import itertools
from enum import StrEnum

from openqci.core.errors import PeerMisbehaved, invariant
from openqci.core.keys import SecretBytes
from openqci.crypto import ONE_TIME_MAC_KEY_BYTES, TAG_BYTES, equal, one_time_mac
from openqci.crypto.universal_hash import polynomial_hash_bound
from openqci.distillation.messages import ABORT_SEQUENCE, WIRE_VERSION, Envelope, decode_envelope, encode
from openqci.distillation.settings import MESSAGE_BYTES_MAX, BlockName

PHASES_PER_DIRECTION = 4
KEYS_PER_DIRECTION = PHASES_PER_DIRECTION + 1

AUTHENTICATION_KEY_BYTES = 2 * KEYS_PER_DIRECTION * ONE_TIME_MAC_KEY_BYTES
"""Key of one block: the same 320 bytes at both ends, spent whether the block succeeds or not."""

MESSAGES_MAX = 20_000
FORGERY_TRIES_MAX = 16
"""How many texts one key may be checked against: each is a chance for a forger."""


class Direction(StrEnum):
    """Who speaks."""

    ALICE_TO_BOB = "alice->bob"
    BOB_TO_ALICE = "bob->alice"

    @property
    def other(self) -> "Direction":
        return Direction.BOB_TO_ALICE if self is Direction.ALICE_TO_BOB else Direction.ALICE_TO_BOB


class AuthenticatedChannel:
    """Seals what this end says and opens what the other end says; holds the block's authentication key."""

    def __init__(self, block: BlockName, says: Direction, authentication_key: SecretBytes) -> None:
        invariant(
            len(authentication_key) == AUTHENTICATION_KEY_BYTES,
            f"the authentication key of a block has {AUTHENTICATION_KEY_BYTES} bytes",
        )
        key = authentication_key.reveal()
        half = AUTHENTICATION_KEY_BYTES // 2
        halves = {Direction.ALICE_TO_BOB: key[:half], Direction.BOB_TO_ALICE: key[half:]}
        self._sent = _OneWay(block, says, halves[says])
        self._received = _OneWay(block, says.other, halves[says.other])
        for part in halves.values():
            part[:] = bytes(half)

    @property
    def epsilon(self) -> float:
        """Bound on the probability that a forged text was taken for genuine, over the tags so far."""
        return self._sent.epsilon + self._received.epsilon

    @property
    def key_bytes_used(self) -> int:
        return self._sent.key_bytes_used + self._received.key_bytes_used

    def seal(self, body: bytes, *, tagged: bool) -> bytes:
        """Return the datagram of the next message; ``tagged`` ends the phase."""
        sequence = self._sent.append(body)
        tag = self._sent.end_phase(self._sent.phase_tag()) if tagged else b""
        return encode(Envelope(WIRE_VERSION, sequence, body, tag))

    def seal_abort(self, body: bytes) -> bytes:
        """Return the datagram of an abort, which stands outside the sequence with a key of its own."""
        return encode(Envelope(WIRE_VERSION, ABORT_SEQUENCE, body, self._sent.abort_tag(body)))

    def open(self, data: bytes, *, tag_wanted: bool = False) -> tuple[bytes, bool]:
        """Return the body of the next message and whether it brought a good tag.

        With ``tag_wanted`` a message without one is refused, too.
        A refused datagram (PeerMisbehaved) leaves the channel as it was.
        """
        if len(data) > MESSAGE_BYTES_MAX:
            raise PeerMisbehaved(f"message has more than {MESSAGE_BYTES_MAX} bytes")
        envelope = decode_envelope(data)
        if envelope.sequence == ABORT_SEQUENCE:
            self._received.check(envelope.tag, self._received.abort_tag(envelope.body))
            return envelope.body, True
        if envelope.sequence != self._received.sequence:
            raise PeerMisbehaved(
                f"message {self._received.sequence} of {self._received.direction} expected, "
                f"{envelope.sequence} came"
            )
        if tag_wanted and not envelope.tag:
            raise PeerMisbehaved(f"message {envelope.sequence} of {self._received.direction} has no tag")
        self._received.append(envelope.body)
        if envelope.tag:
            tag = self._received.phase_tag()
            try:
                self._received.check(envelope.tag, tag)
            except PeerMisbehaved:
                self._received.take_back()
                raise
            self._received.end_phase(tag)
        return envelope.body, bool(envelope.tag)

    def wipe(self) -> None:
        """Forget the keys; the channel is of no more use, except to tell what it has used."""
        self._sent.wipe()
        self._received.wipe()


class _OneWay:
    """One direction: its sequence, the messages since the last tag, and its keys."""

    def __init__(self, block: BlockName, direction: Direction, key: bytearray) -> None:
        self.direction = direction
        self.sequence = 0
        self.epsilon = 0.0
        self.key_bytes_used = 0
        self._key = SecretBytes(key)
        self._block = block
        self._phase = 0
        self._open: list[tuple[bytes, bytes]] = []
        self._checks = 0
        self._abort_key_used = False

    def append(self, body: bytes) -> int:
        if self.sequence >= MESSAGES_MAX:
            raise PeerMisbehaved(f"{self.direction} has more than {MESSAGES_MAX} messages in one block")
        self._open.append((_number(self.sequence) + _number(len(body)), body))
        self.sequence += 1
        return self.sequence - 1

    def take_back(self) -> None:
        self._open.pop()
        self.sequence -= 1

    def phase_tag(self) -> bytes:
        """Return the tag that the open messages should have."""
        if self._phase >= PHASES_PER_DIRECTION:
            raise PeerMisbehaved(f"{self.direction} has more than {PHASES_PER_DIRECTION} tags in one block")
        return self._tag(self._phase, *itertools.chain.from_iterable(self._open))

    def end_phase(self, tag: bytes) -> bytes:
        self._book(sum(len(head) + len(body) for head, body in self._open))
        self._open.clear()
        self._phase += 1
        return tag

    def abort_tag(self, body: bytes) -> bytes:
        if not self._abort_key_used:
            self._abort_key_used = True
            self._book(len(body))
        return self._tag(PHASES_PER_DIRECTION, body)

    def check(self, came: bytes, expected: bytes) -> None:
        self._checks += 1
        if self._checks > KEYS_PER_DIRECTION + FORGERY_TRIES_MAX:
            raise PeerMisbehaved(f"{self.direction}: too many forged messages")
        if not equal(came, expected):
            raise PeerMisbehaved(f"{self.direction}: authentication failed at message {self.sequence}")

    def wipe(self) -> None:
        self._key.wipe()
        self._open.clear()

    def _book(self, length_bytes: int) -> None:
        self.epsilon += polynomial_hash_bound(length_bytes + len(self._prefix(0)))
        self.key_bytes_used += ONE_TIME_MAC_KEY_BYTES

    def _tag(self, phase: int, *text: bytes) -> bytes:
        invariant(len(self._key) > 0, "a wiped channel seals and opens nothing")
        start = phase * ONE_TIME_MAC_KEY_BYTES
        one_time_key = memoryview(self._key.reveal())[start : start + ONE_TIME_MAC_KEY_BYTES]
        tag = one_time_mac(one_time_key, self._prefix(phase), *text)
        invariant(len(tag) == TAG_BYTES, "a tag has 16 bytes")
        return tag

    def _prefix(self, phase: int) -> bytes:
        link = self._block.link_id.encode()
        head = b"OpenQCI distillation v%d" % WIRE_VERSION + self.direction.encode() + _number(phase)
        return head + _number(len(link)) + link + _number(self._block.number)


def _number(value: int) -> bytes:
    return value.to_bytes(8, "big")
