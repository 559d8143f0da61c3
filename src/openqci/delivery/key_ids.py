"""Key IDs that carry, for the two KMEs of a pair alone, the place of the key in their batch.

A key ID is a UUID of version 8 (RFC 9562, 5.8: 122 bits of one's own). From the left::

    40 bits   tag of the batch, in clear
    36 bits   offset (24 bits) and length (12 bits) of the key in bytes, masked
    46 bits   check = HMAC-SHA-256(id_seed, "check", batch tag, offset, length), cut

The mask is HMAC-SHA-256(id_seed, "mask", check), cut: the synthetic-IV construction (Rogaway and Shrimpton,
EUROCRYPT 2006), deterministic, so that both ends compute the same ID without a message. Distinct ranges of
a batch have distinct IDs by construction. Who does not know ``id_seed`` learns nothing of offset and
length, and makes an ID that a KME accepts with probability 2**-46 per try.

``id_seed`` is no key material: it protects the names of keys, never their bytes.
"""

import hashlib
import hmac
import re
from typing import NamedTuple

from openqci.core.errors import invariant
from openqci.core.identifiers import KeyId

BATCH_TAG_BITS = 40
OFFSET_BITS = 24
LENGTH_BITS = 12
PLACE_BITS = OFFSET_BITS + LENGTH_BITS
CHECK_BITS = 46
ID_SEED_BYTES = 16

BATCH_BYTES_MAX = 1 << OFFSET_BITS
KEY_BYTES_MAX = (1 << LENGTH_BITS) - 1

UUID_TEXT = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)


class KeyPlace(NamedTuple):
    """Where a key lies in its batch."""

    offset_bytes: int
    length_bytes: int


def encode_key_id(id_seed: bytes, batch_tag: int, offset_bytes: int, length_bytes: int) -> KeyId:
    """Return the ID of the key at this place of a batch.

    >>> encode_key_id(bytes(16), 1, 64, 32) == encode_key_id(bytes(16), 1, 64, 32)
    True
    """
    invariant(0 <= batch_tag < 1 << BATCH_TAG_BITS, "a batch tag has 40 bits")
    invariant(0 <= offset_bytes < BATCH_BYTES_MAX, "an offset in a batch has 24 bits")
    invariant(0 < length_bytes <= KEY_BYTES_MAX, "a key's length in bytes has 12 bits")
    place = offset_bytes << LENGTH_BITS | length_bytes
    check = _check(id_seed, batch_tag, place)
    masked = place ^ _mask(id_seed, check)
    return _as_uuid(batch_tag << PLACE_BITS + CHECK_BITS | masked << CHECK_BITS | check)


def decode_key_id(id_seed: bytes, key_id: KeyId) -> KeyPlace | None:
    """Return the place that an ID names, or None if it was not made with this seed.

    The time taken does not depend on how much of the ID is right.
    """
    value = _as_value(key_id)
    batch_tag = value >> PLACE_BITS + CHECK_BITS
    check = value & (1 << CHECK_BITS) - 1
    place = (value >> CHECK_BITS & (1 << PLACE_BITS) - 1) ^ _mask(id_seed, check)
    expected = _check(id_seed, batch_tag, place)
    genuine = hmac.compare_digest(expected.to_bytes(8, "big"), check.to_bytes(8, "big"))
    length_bytes = place & KEY_BYTES_MAX
    if not genuine or length_bytes == 0 or _as_uuid(value) != key_id:
        return None
    return KeyPlace(place >> LENGTH_BITS, length_bytes)


def batch_tag_of(key_id: KeyId) -> int:
    """Return the tag of the batch that an ID points to, genuine or not."""
    return _as_value(key_id) >> PLACE_BITS + CHECK_BITS


def parse_key_id(text: str) -> KeyId | None:
    """Return a UUID in lower case, or None if the text is none; upper case means the same (RFC 9562, 4)."""
    lowered = text.lower()
    return KeyId(lowered) if UUID_TEXT.fullmatch(lowered) else None


def _check(id_seed: bytes, batch_tag: int, place: int) -> int:
    return _hmac_bits(id_seed, b"check" + batch_tag.to_bytes(5, "big") + place.to_bytes(5, "big"), CHECK_BITS)


def _mask(id_seed: bytes, check: int) -> int:
    return _hmac_bits(id_seed, b"mask" + check.to_bytes(6, "big"), PLACE_BITS)


def _hmac_bits(key: bytes, message: bytes, bits: int) -> int:
    return int.from_bytes(hmac.digest(key, message, hashlib.sha256)[:8], "big") >> 64 - bits


def _as_uuid(value: int) -> KeyId:
    """Put 122 bits around the version (8) and variant (binary 10) fields of a UUID."""
    high, middle, low = value >> 74, value >> 62 & 0xFFF, value & (1 << 62) - 1
    text = f"{high << 80 | 0x8 << 76 | middle << 64 | 0b10 << 62 | low:032x}"
    return KeyId("-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:])))


def _as_value(key_id: KeyId) -> int:
    """Take the 122 bits out of a UUID, whatever its version and variant."""
    whole = int(key_id.replace("-", ""), 16)
    return whole >> 80 << 74 | (whole >> 64 & 0xFFF) << 62 | whole & (1 << 62) - 1
