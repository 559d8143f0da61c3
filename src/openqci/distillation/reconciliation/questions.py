"""What Bob asks in a round of Cascade, as arrays and as bytes (wire format ``cascade-2``)."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from openqci.core.errors import PeerMisbehaved


class Question(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What Bob asks in one round: entries of frame, pass and count, frames rising; arrays little-endian, u2.

    Count 0 opens the pass: Alice answers the parities at all its block ends, or of all 16 halves of a batch
    (its first pass number). Otherwise the entry takes as many of ``positions``: m - 1 asks for the parity of
    the first m bits. Pass numbers are 0 to 2, then 3 + 16 * batch + subset. The answer has one bit for each
    parity in the order of the entries, lowest bit first.
    """

    frames: bytes
    passes: bytes
    counts: bytes
    positions: bytes


class Asked(msgspec.Struct, frozen=True):
    """A question as arrays: shapes (e,), (e,), (e,) and (a,)."""

    frames: NDArray[np.uint16]
    passes: NDArray[np.uint16]
    counts: NDArray[np.uint16]
    positions: NDArray[np.uint16]


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Question)


BEYOND = {
    -1: "cascade question names a frame or a pass that there is not",
    -2: "cascade position lies beyond the frame",
    -3: "cascade opens subsets by whole batches",
}
"""What is wrong with a question that has no price."""


def encoded_question(asked: Asked) -> bytes:
    parts = (asked.frames, asked.passes, asked.counts, asked.positions)
    return _encode(Question(*(part.tobytes() for part in parts)))


def decoded_question(question: bytes) -> Asked:
    """Return a question as arrays; PeerMisbehaved if it cannot be read or its lists do not fit."""
    try:
        decoded = _decoder.decode(question)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerMisbehaved(f"cascade question cannot be read: {error}") from error
    parts = (decoded.frames, decoded.passes, decoded.counts, decoded.positions)
    if any(len(part) % 2 for part in parts) or not parts[0]:
        raise PeerMisbehaved("cascade question asks for nothing, or has half a number")
    frames, passes, counts, positions = (np.frombuffer(part, dtype="<u2") for part in parts)
    if not frames.size == passes.size == counts.size or int(counts.sum(dtype=np.int64)) != positions.size:
        raise PeerMisbehaved("lists of a cascade question differ in length")
    return Asked(frames, passes, counts, positions)
