"""What the two ends of ``ldpc-1`` say to each other: the plan, questions, and which bits an answer has."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from openqci.core.errors import PeerMisbehaved


class LDPCPlan(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Public parameters of one key: agreed in the clear after the photons.

    ``codes`` has for each frame the rows of its code, and how many words of 64 checks are split at once.
    ``qber`` is what the decoder starts from.
    """

    key_bits: int
    qber: float
    codes: tuple[tuple[int, int], ...]
    public_seed: bytes
    disclosed_bits_max: int


class Question(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Both empty: the syndromes of all frames. Else: so many words more of the front halves of these frames.

    ``frames`` rise; numbers of 2 bytes, little-endian.
    """

    frames: bytes
    words: bytes


class Asked(msgspec.Struct, frozen=True):
    """A question as arrays, both of shape (a,)."""

    frames: NDArray[np.uint16]
    words: NDArray[np.uint16]


_encode = msgspec.msgpack.Encoder().encode
_question_decoder = msgspec.msgpack.Decoder(Question)
_plan_decoder = msgspec.msgpack.Decoder(LDPCPlan)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def encoded_plan(plan: LDPCPlan) -> bytes:
    return _encode(plan)


def read_plan(plan: bytes) -> LDPCPlan:
    """Return a plan, unchecked; PeerMisbehaved if it cannot be read."""
    try:
        return _plan_decoder.decode(plan)
    except _UNREADABLE as error:
        raise PeerMisbehaved(f"ldpc plan cannot be read: {error}") from error


def encoded_question(asked: Asked) -> bytes:
    return _encode(Question(asked.frames.astype("<u2").tobytes(), asked.words.astype("<u2").tobytes()))


def decoded_question(question: bytes) -> Asked:
    """Return a question as arrays; PeerMisbehaved if it cannot be read or its lists do not fit."""
    try:
        decoded = _question_decoder.decode(question)
    except _UNREADABLE as error:
        raise PeerMisbehaved(f"ldpc question cannot be read: {error}") from error
    if len(decoded.frames) != len(decoded.words) or len(decoded.frames) % 2:
        raise PeerMisbehaved("lists of an ldpc question differ in length, or have half a number")
    frames, words = (np.frombuffer(part, dtype="<u2") for part in (decoded.frames, decoded.words))
    if np.any(np.diff(frames.astype(np.int64)) < 1) or np.any(words == 0):
        raise PeerMisbehaved("frames of an ldpc question do not rise, or one asks for nothing")
    return Asked(frames, words)
