"""Key IDs that both ends compute alike, without a row per key and without a message between the KMEs.

A key is a range of the pair's batch. Its ID is a UUID of version 8 (RFC 9562, 5.8) with 122 free bits::

    40 bits  tag of the batch (random, public)
    36 bits  offset (24) and length in bytes (12), masked
    46 bits  HMAC-SHA-256(seed of the batch, offset and length), cut

The mask is an HMAC of those 46 bits (a synthetic initialisation vector, as in RFC 5297): only the two KMEs
that hold the batch can make or read an ID, and nobody can guess the ID of a key that was not yet delivered.
An ID says nothing of the key: seed and key are different bytes of the relayed material.
"""

import hmac
from uuid import UUID

from openqci.core.errors import invariant
from openqci.core.identifiers import KeyId

BATCH_TAG_BITS = 40
OFFSET_BITS, LENGTH_BITS, CHECK_BITS = 24, 12, 46
RANGE_BITS = OFFSET_BITS + LENGTH_BITS

UUID_VERSION = 8
UUID_VARIANT = 0b10


def encode_key_id(id_seed: bytes, batch_tag: int, offset_bytes: int, length_bytes: int) -> KeyId:
    """Return the ID of the key that is ``[offset, offset + length)`` of a batch."""
    invariant(0 <= batch_tag < 1 << BATCH_TAG_BITS, "a batch tag has 40 bits")
    invariant(0 <= offset_bytes < 1 << OFFSET_BITS, "an offset has 24 bits")
    invariant(0 < length_bytes < 1 << LENGTH_BITS, "a length has 12 bits")
    place = offset_bytes << LENGTH_BITS | length_bytes
    check = prf(id_seed, b"check", place, CHECK_BITS)
    masked = place ^ prf(id_seed, b"mask", check, RANGE_BITS)
    return KeyId(str(uuid_of(batch_tag << RANGE_BITS + CHECK_BITS | masked << CHECK_BITS | check)))


def batch_tag_of(key_id: str) -> int | None:
    """Return the tag of the batch that an ID names, or None if it is no ID of ours."""
    bits = bits_of(key_id)
    return None if bits is None else bits >> RANGE_BITS + CHECK_BITS


def decode_key_id(id_seed: bytes, key_id: str) -> tuple[int, int] | None:
    """Return (offset, length) of a key, or None if the ID was not made with this seed."""
    bits = bits_of(key_id)
    if bits is None:
        return None
    check = bits & (1 << CHECK_BITS) - 1
    masked = bits >> CHECK_BITS & (1 << RANGE_BITS) - 1
    place = masked ^ prf(id_seed, b"mask", check, RANGE_BITS)
    expected = prf(id_seed, b"check", place, CHECK_BITS)
    if not hmac.compare_digest(check.to_bytes(6, "big"), expected.to_bytes(6, "big")):
        return None
    return place >> LENGTH_BITS, place & (1 << LENGTH_BITS) - 1


def prf(id_seed: bytes, label: bytes, value: int, bits: int) -> int:
    """Return ``bits`` pseudo-random bits of a value."""
    digest = hmac.digest(id_seed, label + value.to_bytes(8, "big"), "sha256")
    return int.from_bytes(digest[:8], "big") >> 64 - bits


def uuid_of(bits: int) -> UUID:
    """Return the UUID that carries 122 bits beside version and variant."""
    high, middle, low = bits >> 74, bits >> 62 & 0xFFF, bits & (1 << 62) - 1
    return UUID(int=high << 80 | UUID_VERSION << 76 | middle << 64 | UUID_VARIANT << 62 | low)


def bits_of(key_id: str) -> int | None:
    """Return the 122 bits that a UUID of ours carries, or None if it is none."""
    try:
        number = UUID(key_id).int
    except ValueError:
        return None
    if number >> 76 & 0xF != UUID_VERSION or number >> 62 & 0b11 != UUID_VARIANT:
        return None
    return number >> 80 << 74 | (number >> 64 & 0xFFF) << 62 | number & (1 << 62) - 1
