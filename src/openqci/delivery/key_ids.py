"""Key IDs that carry, for the two KMEs of a pair alone, the place of the key in their batch.

A key ID is a UUID of version 8 (RFC 9562, 5.8: 122 bits of one's own). From the left::

    40 bits   tag of the batch, in clear
     8 bits   check
     4 bits   version, 8
    12 bits   check
     2 bits   variant, binary 10
    26 bits   check
    36 bits   place: offset (24 bits) and length (12 bits) of the key in bytes, masked

The *check* is AES-128 under ``id_seed`` of the block that has tag and place where the ID has them, and zeros
elsewhere; the *mask* of the place is AES-128 of the ID with zeros for the place. Of both, the bits that stand
where the ID needs them are used. The two kinds of blocks differ in the version. This is the synthetic-IV
construction (Rogaway and Shrimpton, EUROCRYPT 2006): deterministic, so that both ends compute the same ID
without a message; distinct ranges of a batch have distinct IDs. Who does not know ``id_seed`` learns nothing
of offset and length, and makes an ID that a KME accepts with probability 2**-46 per try.

The IDs of a request are made, or read, together: two calls of the cipher, and a few operations on integers in
which each ID is a *lane* of 128 bits. One by one they were a third of the work of an answer with a hundred
keys. ``id_seed`` is no key material: it protects the names of keys, never their bytes.
"""

import re
import struct
from collections.abc import Sequence
from typing import NamedTuple

from openqci.core.errors import invariant
from openqci.core.identifiers import KeyId
from openqci.crypto.block_cipher import BLOCK_BYTES, BlockCipher

BATCH_TAG_BITS = 40
OFFSET_BITS = 24
LENGTH_BITS = 12
ID_SEED_BYTES = 16

BATCH_BYTES_MAX = 1 << OFFSET_BITS
KEY_BYTES_MAX = (1 << LENGTH_BITS) - 1

# The fields of an ID as a number of 128 bits.
TAG_SHIFT = 88
TAG = (1 << BATCH_TAG_BITS) - 1 << TAG_SHIFT
FIELDS, VERSION_8 = 0xF << 76 | 0b11 << 62, 0x8 << 76 | 0b10 << 62
PLACE = (1 << OFFSET_BITS + LENGTH_BITS) - 1
CHECK = (1 << 128) - 1 ^ TAG ^ FIELDS ^ PLACE

HALVES = struct.Struct(">QQ")
UUID_TEXT = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)


class KeyPlace(NamedTuple):
    """Where a key lies in its batch."""

    offset_bytes: int
    length_bytes: int


def encode_key_ids(
    id_seed: bytes, batch_tag: int, offset_bytes: int, key_bytes: int, count: int
) -> list[KeyId]:
    """Return the IDs of keys of one length that lie one right after the other in a batch.

    >>> encode_key_ids(bytes(16), 1, 64, 32, 2)[1] == encode_key_id(bytes(16), 1, 96, 32)
    True
    """
    invariant(0 <= batch_tag < 1 << BATCH_TAG_BITS, "a batch tag has 40 bits")
    invariant(0 < key_bytes <= KEY_BYTES_MAX, "a key's length in bytes has 12 bits")
    offsets = range(offset_bytes, offset_bytes + key_bytes * count, key_bytes)
    invariant(offsets[0] >= 0 and offsets[-1] < BATCH_BYTES_MAX, "an offset in a batch has 24 bits")
    lanes = _Lanes(id_seed, count)
    places = b"".join([(each << LENGTH_BITS | key_bytes).to_bytes(BLOCK_BYTES, "big") for each in offsets])
    place, tag = lanes.read(places), lanes.each(batch_tag << TAG_SHIFT)
    check = lanes.encrypted(tag | place) & lanes.each(CHECK)
    placeless = tag | check | lanes.each(VERSION_8)
    mask = lanes.encrypted(placeless) & lanes.each(PLACE)
    text = lanes.written(placeless | place ^ mask).hex()
    return [_as_uuid(text[at : at + 2 * BLOCK_BYTES]) for at in range(0, len(text), 2 * BLOCK_BYTES)]


def encode_key_id(id_seed: bytes, batch_tag: int, offset_bytes: int, length_bytes: int) -> KeyId:
    """Return the ID of the key at this place of a batch."""
    return encode_key_ids(id_seed, batch_tag, offset_bytes, length_bytes, 1)[0]


def decode_key_ids(id_seed: bytes, batch_tag: int, key_ids: Sequence[KeyId]) -> list[KeyPlace | None]:
    """Return the place that each ID names in a batch, or None if it was not made with its seed and tag.

    The time taken does not depend on how much of an ID is right.
    """
    lanes = _Lanes(id_seed, len(key_ids))
    named = lanes.read(bytes.fromhex("".join(key_ids).replace("-", "")))
    placeless = named & lanes.each(~PLACE & (1 << 128) - 1)
    place = (named ^ lanes.encrypted(placeless)) & lanes.each(PLACE)
    tag = lanes.each(batch_tag << TAG_SHIFT)
    check = lanes.encrypted(tag | place) & lanes.each(CHECK)
    difference = placeless ^ (tag | check | lanes.each(VERSION_8))
    return [
        None if high or low else _genuine(packed)
        for (high, low), (_, packed) in zip(
            HALVES.iter_unpack(lanes.written(difference)),
            HALVES.iter_unpack(lanes.written(place)),
            strict=True,
        )
    ]


def decode_key_id(id_seed: bytes, key_id: KeyId) -> KeyPlace | None:
    """Return the place that an ID names, or None if it was not made with this seed."""
    return decode_key_ids(id_seed, batch_tag_of(key_id), [key_id])[0]


def batch_tag_of(key_id: KeyId) -> int:
    """Return the tag of the batch that an ID points to, genuine or not: its first 40 bits."""
    return int(key_id[:8] + key_id[9:11], 16)


def parse_key_id(text: str) -> KeyId | None:
    """Return a UUID in lower case, or None if the text is none; upper case means the same (RFC 9562, 4)."""
    lowered = text.lower()
    return KeyId(lowered) if UUID_TEXT.fullmatch(lowered) else None


class _Lanes:
    """Integers of ``count`` lanes of 128 bits, and a cipher that encrypts each lane."""

    def __init__(self, id_seed: bytes, count: int) -> None:
        self._cipher, self._count = BlockCipher(id_seed), count

    def each(self, value: int) -> int:
        """Return the integer that has this value in every lane."""
        return self.read(value.to_bytes(BLOCK_BYTES, "big") * self._count)

    def encrypted(self, lanes: int) -> int:
        return self.read(self._cipher.encrypt(self.written(lanes)))

    def read(self, blocks: bytes) -> int:
        return int.from_bytes(blocks, "big")

    def written(self, lanes: int) -> bytes:
        return lanes.to_bytes(BLOCK_BYTES * self._count, "big")


def _genuine(packed: int) -> KeyPlace | None:
    length_bytes = packed & KEY_BYTES_MAX
    return KeyPlace(packed >> LENGTH_BITS, length_bytes) if length_bytes else None


def _as_uuid(text: str) -> KeyId:
    return KeyId(f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}")
