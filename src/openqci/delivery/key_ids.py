"""Key IDs that carry, for the two KMEs of a pair alone, the place of the key in their batch.

A key ID is a UUID of version 8 (RFC 9562, 5.8: 122 bits of one's own). From the left::

    40 bits   tag of the batch, in clear
    36 bits   offset (24 bits) and length (12 bits) of the key in bytes, masked
    46 bits   check = AES-128(id_seed, 1 | batch tag | offset, length), cut

The mask is AES-128(id_seed, 2 | batch tag | check), cut: the synthetic-IV construction (Rogaway and
Shrimpton, EUROCRYPT 2006), deterministic, so that both ends compute the same ID without a message. In a block
of the cipher the 1 or 2 has 24 bits, the tag 40, and what follows 64. Distinct ranges of a batch have
distinct IDs by construction. Who does not know ``id_seed`` learns nothing of offset and length, and makes an
ID that a KME accepts with probability 2**-46 per try.

The IDs of a request are made, or read, together, with two calls of the cipher: one by one they were a third
of the work of an answer with a hundred keys. ``id_seed`` is no key material: it protects the names of keys,
never their bytes.
"""

import operator
import re
import struct
from collections.abc import Sequence
from typing import NamedTuple

from openqci.core.errors import invariant
from openqci.core.identifiers import KeyId
from openqci.crypto.block_cipher import encrypt_blocks

BATCH_TAG_BITS = 40
OFFSET_BITS = 24
LENGTH_BITS = 12
PLACE_BITS = OFFSET_BITS + LENGTH_BITS
CHECK_BITS = 46
ID_SEED_BYTES = 16

BATCH_BYTES_MAX = 1 << OFFSET_BITS
KEY_BYTES_MAX = (1 << LENGTH_BITS) - 1

CHECK_MASK = (1 << CHECK_BITS) - 1

# The halves of a UUID. High: tag (40 bits), masked place (its first 8), version (4), masked place (12 more).
# Low: variant (2), masked place (its last 16), check (46).
HALVES = struct.Struct(">QQ")
VERSION_FIELD, VERSION_8 = 0xF000, 0x8000
VARIANT_FIELD, VARIANT = 0b11 << 62, 0b10 << 62

UUID_TEXT = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)


class KeyPlace(NamedTuple):
    """Where a key lies in its batch."""

    offset_bytes: int
    length_bytes: int


def encode_key_ids(id_seed: bytes, batch_tag: int, places: Sequence[KeyPlace]) -> list[KeyId]:
    """Return the IDs of the keys at these places of a batch, in their order.

    >>> encode_key_ids(bytes(16), 1, [KeyPlace(64, 32)]) == [encode_key_id(bytes(16), 1, 64, 32)]
    True
    """
    invariant(0 <= batch_tag < 1 << BATCH_TAG_BITS, "a batch tag has 40 bits")
    invariant(all(0 <= offset < BATCH_BYTES_MAX for offset, _ in places), "an offset in a batch has 24 bits")
    invariant(all(0 < length <= KEY_BYTES_MAX for _, length in places), "a key's length in bytes has 12 bits")
    packed = [offset << LENGTH_BITS | length for offset, length in places]
    checks = _checks(id_seed, batch_tag, packed)
    masks = _masks(id_seed, batch_tag, checks)
    halves: list[int] = []
    for place, mask, check in zip(packed, masks, checks, strict=True):
        masked = place ^ mask
        halves.append(batch_tag << 24 | masked >> 28 << 16 | masked >> 16 & 0xFFF | VERSION_8)
        halves.append((masked & 0xFFFF) << CHECK_BITS | check | VARIANT)
    return _as_uuids(struct.pack(f">{len(halves)}Q", *halves))


def encode_key_id(id_seed: bytes, batch_tag: int, offset_bytes: int, length_bytes: int) -> KeyId:
    """Return the ID of the key at this place of a batch."""
    return encode_key_ids(id_seed, batch_tag, [KeyPlace(offset_bytes, length_bytes)])[0]


def decode_key_ids(id_seed: bytes, batch_tag: int, key_ids: Sequence[KeyId]) -> list[KeyPlace | None]:
    """Return the place that each ID with this tag names, or None if it was not made with this seed.

    The time taken does not depend on how much of an ID is right.
    """
    halves = list(HALVES.iter_unpack(bytes.fromhex("".join(key_ids).replace("-", ""))))
    invariant(all(high >> 24 == batch_tag for high, _ in halves), "IDs are read with the batch they name")
    checks = [low & CHECK_MASK for _, low in halves]
    masked = [
        (high >> 16 & 0xFF) << 28 | (high & 0xFFF) << 16 | low >> CHECK_BITS & 0xFFFF for high, low in halves
    ]
    packed = list(map(operator.xor, masked, _masks(id_seed, batch_tag, checks)))
    # Where nothing differs the XOR is zero; no part of an ID is looked at before another.
    differences = [
        (check ^ expected) | (high & VERSION_FIELD ^ VERSION_8) | (low & VARIANT_FIELD ^ VARIANT)
        for (high, low), check, expected in zip(
            halves, checks, _checks(id_seed, batch_tag, packed), strict=True
        )
    ]
    return [
        None if difference or not place & KEY_BYTES_MAX else _unpacked(place)
        for place, difference in zip(packed, differences, strict=True)
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


def _checks(id_seed: bytes, batch_tag: int, packed: Sequence[int]) -> list[int]:
    return [bits >> 64 - CHECK_BITS for bits in _pseudorandom(id_seed, 1, batch_tag, packed)]


def _masks(id_seed: bytes, batch_tag: int, checks: Sequence[int]) -> list[int]:
    return [bits >> 64 - PLACE_BITS for bits in _pseudorandom(id_seed, 2, batch_tag, checks)]


def _pseudorandom(id_seed: bytes, purpose: int, batch_tag: int, inputs: Sequence[int]) -> list[int]:
    """Return 64 bits for each input, as nobody without the seed can tell from random ones."""
    head = (purpose << BATCH_TAG_BITS | batch_tag).to_bytes(8, "big")
    blocks = b"".join([head + each.to_bytes(8, "big") for each in inputs])
    return [first for first, _ in HALVES.iter_unpack(encrypt_blocks(id_seed, blocks))]


def _as_uuids(sixteens: bytes) -> list[KeyId]:
    """Return the text of UUIDs that lie one behind the other."""
    text = sixteens.hex()
    return [
        KeyId(
            f"{text[at : at + 8]}-{text[at + 8 : at + 12]}-{text[at + 12 : at + 16]}-"
            f"{text[at + 16 : at + 20]}-{text[at + 20 : at + 32]}"
        )
        for at in range(0, len(text), 32)
    ]


def _unpacked(place: int) -> KeyPlace:
    return KeyPlace(place >> LENGTH_BITS, place & KEY_BYTES_MAX)
