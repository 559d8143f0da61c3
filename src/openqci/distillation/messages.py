"""Wire format v1 of a distillation: what the two ends say to each other, in order.

==================  =========  ======  ================================================================
message             from       tag     content
==================  =========  ======  ================================================================
Announcement        Bob        yes     slots of all detections and the basis of each
Sifting             Alice      yes     which detections have matching bases; then the intensity of those
TestBits            Bob                Bob's bits in the test basis
ReconciliationPlan  Alice              test errors for each intensity, public parameters
Question, Answer    Bob, Alice         error correction, opaque to the session, many rounds
Corrected           Bob        yes     "done", and a fresh public key of the verification hash
Verification        Alice      yes     tag of her key under it
Verified            Bob        yes     errors corrected for each intensity, the bits disclosed, the key length
Acceptance          Alice      yes     the same length, and only now the seed of privacy amplification
Confirmation        Bob        yes     "I hold the key"
Confirmation        Alice      yes     "I hold the key"; it may be used
Abort               either     own     the reason
==================  =========  ======  ================================================================

A message travels in an :class:`Envelope`: msgpack array ``[version, sequence, body, tag]``; the body is a
msgpack array whose first entry names the message. ``tag`` is empty, or 16 bytes that cover all messages of
this direction since its last tag (:mod:`openqci.distillation.channel`).

Arrays of bits are packed by ``numpy.packbits``: entry i is bit 7 - i % 8 of byte i // 8, zeros behind.
Slots are the first slot and then differences, unsigned little-endian, all of the smallest width of 1, 2, 4
or 8 bytes that holds them. Intensity indices are one bit plane for each of two bits, low bit first.
"""

from typing import ClassVar, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from openqci.core.detections import Bits, Slots
from openqci.core.errors import PeerMisbehaved
from openqci.kernels import kernels_available

WIRE_VERSION = 1
ABORT_SEQUENCE = 0xFFFF_FFFF
INTENSITY_PLANES = 2
DETAIL_CHARACTERS_MAX = 200
SLOT_MAX = 1 << 62


class Envelope(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What one end sends as one datagram."""

    version: int
    sequence: int
    body: bytes
    tag: bytes


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True, forbid_unknown_fields=True):
    """Base of all bodies; ``tagged`` says whether the message ends a phase and carries its tag."""

    tagged: ClassVar[bool] = False


class Announcement(Message, frozen=True, tag="announcement"):
    tagged: ClassVar[bool] = True
    detections: int
    first_slot: int
    delta_width_bytes: int
    deltas: bytes
    bases: bytes
    double_clicks: int


class Sifting(Message, frozen=True, tag="sifting"):
    tagged: ClassVar[bool] = True
    keep: bytes
    kept: int
    intensities: tuple[bytes, bytes]


class TestBits(Message, frozen=True, tag="test-bits"):
    __test__: ClassVar[bool] = False
    bits: bytes
    count: int


class ReconciliationPlan(Message, frozen=True, tag="reconciliation-plan"):
    method: str
    x_errors: tuple[int, ...]
    plan: bytes


class Question(Message, frozen=True, tag="question"):
    content: bytes


class Answer(Message, frozen=True, tag="answer"):
    content: bytes


class Corrected(Message, frozen=True, tag="corrected"):
    tagged: ClassVar[bool] = True
    verification_key: bytes


class Verification(Message, frozen=True, tag="verification"):
    tagged: ClassVar[bool] = True
    verification_tag: bytes


class Verified(Message, frozen=True, tag="verified"):
    tagged: ClassVar[bool] = True
    z_errors: tuple[int, ...]
    leak_bits: int
    secret_bits: int


class Acceptance(Message, frozen=True, tag="acceptance"):
    tagged: ClassVar[bool] = True
    secret_bits: int
    amplification: str
    seed: bytes


class Confirmation(Message, frozen=True, tag="confirmation"):
    tagged: ClassVar[bool] = True
    secret_bits: int


class Abort(Message, frozen=True, tag="abort"):
    reason: str
    detail: str


AnyMessage = (
    Announcement
    | Sifting
    | TestBits
    | ReconciliationPlan
    | Question
    | Answer
    | Corrected
    | Verification
    | Verified
    | Acceptance
    | Confirmation
    | Abort
)

encode = msgspec.msgpack.Encoder().encode
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_body_decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)
_envelope_decoder = msgspec.msgpack.Decoder(Envelope)


def decode_envelope(data: bytes) -> Envelope:
    """Return the envelope; PeerMisbehaved for anything else or another version."""
    try:
        envelope = _envelope_decoder.decode(data)
    except UNREADABLE as error:
        raise PeerMisbehaved(f"envelope cannot be read: {error}") from error
    if envelope.version != WIRE_VERSION:
        raise PeerMisbehaved(f"wire version {WIRE_VERSION} expected, {envelope.version} came")
    return envelope


def decode_body(body: bytes) -> AnyMessage:
    """Return the message in an envelope; PeerMisbehaved if it is none."""
    try:
        return _body_decoder.decode(body)
    except UNREADABLE as error:
        raise PeerMisbehaved(f"message cannot be read: {error}") from error


def is_abort(data: bytes) -> bool:
    """Return whether a datagram says that it is an abort (or cannot be read), unchecked."""
    try:
        return decode_envelope(data).sequence == ABORT_SEQUENCE
    except PeerMisbehaved:
        return True


def packed(bits: Bits) -> bytes:
    return np.packbits(bits).tobytes()


def unpacked(data: bytes, count: int) -> Bits:
    """Return ``count`` bits; PeerMisbehaved unless the bytes hold exactly so many, zeros behind."""
    check_packed(data, count)
    return np.unpackbits(np.frombuffer(data, dtype=np.uint8), count=count)


def without_the_rest(data: bytes, count: int) -> bytes:
    """Return packed bits with zeros behind the first ``count``, which end in the last byte."""
    if not count % 8:
        return data
    return data[:-1] + bytes([data[-1] & ~(0xFF >> count % 8) & 0xFF])


def check_packed(data: bytes, count: int) -> None:
    """Raise PeerMisbehaved unless the bytes hold exactly ``count`` bits, zeros behind."""
    if count < 0 or len(data) != -(-count // 8):
        raise PeerMisbehaved(f"{len(data)} bytes cannot hold exactly {count} bits")
    if count % 8 and data[-1] & (0xFF >> count % 8):
        raise PeerMisbehaved("bits behind the last one are not zero")


def packed_intensities(intensities: Bits) -> tuple[bytes, bytes]:
    low, high = np.uint8(1), np.uint8(2)
    return packed(intensities & low), packed(intensities & high)


def unpacked_intensities(planes: tuple[bytes, bytes], count: int) -> Bits:
    return unpacked(planes[0], count) + np.uint8(2) * unpacked(planes[1], count)


def announced(slots: Slots, bases: Bits, double_clicks: int) -> Announcement:
    """Return Bob's announcement of his detections, shape (n,), slots strictly rising."""
    deltas = _differences(slots)
    return Announcement(
        detections=slots.size,
        first_slot=int(slots[0]) if slots.size else 0,
        delta_width_bytes=deltas.itemsize,
        deltas=cast(bytes, deltas.data.cast("B")),  # the encoder takes it as it is, without a copy
        bases=packed(bases),
        double_clicks=double_clicks,
    )


def announced_deltas(message: Announcement) -> NDArray[np.unsignedinteger]:
    """Return the differences of an announcement's slots, shape (detections - 1,), not yet checked."""
    width = message.delta_width_bytes
    if width not in (1, 2, 4, 8) or len(message.deltas) != width * max(0, message.detections - 1):
        raise PeerMisbehaved("slot differences do not match the number of detections")
    if not 0 <= message.first_slot < SLOT_MAX:
        raise PeerMisbehaved("announced slots are out of range")
    return np.frombuffer(message.deltas, dtype=f"<u{width}")


def announced_slots(message: Announcement) -> Slots:
    """Return the slots of an announcement; PeerMisbehaved unless they rise strictly and fit 62 bits."""
    deltas = announced_deltas(message)
    if deltas.size and int(deltas.min()) < 1:
        raise PeerMisbehaved("announced slots do not rise strictly")
    if message.first_slot + float(deltas.sum(dtype=np.float64)) >= SLOT_MAX:
        raise PeerMisbehaved("announced slots are out of range")
    slots = np.empty(message.detections, dtype=np.int64)
    slots[:1] = message.first_slot
    np.cumsum(deltas, dtype=np.int64, out=slots[1:])
    slots[1:] += message.first_slot
    return slots


def _differences(slots: Slots) -> NDArray[np.unsignedinteger]:
    """Return the differences of slots in the smallest width that holds them; compiled where that can be."""
    if kernels_available():
        from openqci.kernels.sifting import largest_difference, write_differences

        width = _width_bytes(int(largest_difference(slots)))
        narrow = np.empty(max(0, slots.size - 1), dtype=f"<u{width}")
        write_differences(slots, narrow)
        return narrow
    deltas = np.diff(slots)
    return deltas.astype(f"<u{_width_bytes(int(deltas.max(initial=0)))}")


def _width_bytes(largest: int) -> int:
    return next(width for width in (1, 2, 4, 8) if largest < 1 << (8 * width))
