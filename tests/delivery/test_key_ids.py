"""Key IDs: both ends compute the same one, and nobody makes one that a KME takes for its own."""

import hmac
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import IntegrityError
from openqci.core.identifiers import KeyId
from openqci.delivery.key_ids import (
    BATCH_BYTES_MAX,
    KEY_BYTES_MAX,
    batch_tag_of,
    decode_key_id,
    encode_key_id,
    parse_key_id,
)

seeds = st.binary(min_size=16, max_size=16)
tags = st.integers(0, 2**40 - 1)
offsets = st.integers(0, BATCH_BYTES_MAX - 1)
lengths = st.integers(1, KEY_BYTES_MAX)


@given(seeds, tags, offsets, lengths)
def test_the_other_end_reads_the_place_out_of_the_id(seed: bytes, tag: int, offset: int, length: int) -> None:
    key_id = encode_key_id(seed, tag, offset, length)
    assert decode_key_id(seed, key_id) == (offset, length)
    assert batch_tag_of(key_id) == tag


@given(seeds, tags, offsets, lengths)
def test_an_id_is_a_uuid_of_version_8(seed: bytes, tag: int, offset: int, length: int) -> None:
    parsed = uuid.UUID(encode_key_id(seed, tag, offset, length))
    assert parsed.version == 8 and parsed.variant == uuid.RFC_4122


@given(seeds, tags, st.lists(st.tuples(offsets, lengths), min_size=2, max_size=20, unique=True))
def test_ranges_of_a_batch_have_ids_of_their_own(
    seed: bytes, tag: int, places: list[tuple[int, int]]
) -> None:
    assert len({encode_key_id(seed, tag, *place) for place in places}) == len(places)


@given(seeds, st.uuids())
def test_a_random_uuid_is_nobodys_key(seed: bytes, guess: uuid.UUID) -> None:
    assert decode_key_id(seed, KeyId(str(guess))) is None


@given(seeds, tags, offsets, lengths, st.integers(0, 127))
def test_an_id_with_one_bit_changed_is_refused(
    seed: bytes, tag: int, offset: int, length: int, bit: int
) -> None:
    key_id = encode_key_id(seed, tag, offset, length)
    changed = KeyId(str(uuid.UUID(int=uuid.UUID(key_id).int ^ 1 << bit)))
    assert decode_key_id(seed, changed) is None


@given(seeds, seeds, tags, offsets, lengths)
def test_another_seed_does_not_open_an_id(
    seed: bytes, other: bytes, tag: int, offset: int, length: int
) -> None:
    decoded = decode_key_id(other, encode_key_id(seed, tag, offset, length))
    assert decoded is None or other == seed


def test_ids_of_neighbouring_keys_tell_nothing_of_their_order() -> None:
    ids = [encode_key_id(b"s" * 16, 7, 32 * index, 32)[11:] for index in range(200)]
    assert sorted(ids) != ids and len({key_id[:4] for key_id in ids}) > 100


def test_a_key_id_follows_the_written_format() -> None:
    """Built here once more from the module's text, with strings of bits."""

    def cut(message: bytes, bits: int) -> str:
        return f"{int.from_bytes(hmac.new(bytes(16), message, 'sha256').digest(), 'big'):0256b}"[:bits]

    tag, place = f"{0x0123456789:040b}", f"{4096:024b}{32:012b}"
    check = cut(b"check" + bytes.fromhex("0123456789") + int(place, 2).to_bytes(5, "big"), 46)
    mask = cut(b"mask" + int(check, 2).to_bytes(6, "big"), 36)
    bits = tag + f"{int(place, 2) ^ int(mask, 2):036b}" + check
    expected = uuid.UUID(int=int(bits[:48] + "1000" + bits[48:60] + "10" + bits[60:], 2))
    assert encode_key_id(bytes(16), 0x0123456789, 4096, 32) == str(expected) == VECTOR


VECTOR = "01234567-89bd-8fd2-8021-82aaa70adfba"


@pytest.mark.parametrize(("offset", "length"), [(-1, 32), (BATCH_BYTES_MAX, 32), (0, 0), (0, 4096)])
def test_a_place_that_has_no_id_is_our_own_fault(offset: int, length: int) -> None:
    with pytest.raises(IntegrityError):
        encode_key_id(bytes(16), 1, offset, length)


def test_upper_case_means_the_same_and_nothing_else_is_a_uuid() -> None:
    text = "550E8400-E29B-41D4-A716-446655440000"
    assert parse_key_id(text) == text.lower()
    for wrong in ("", "550e8400e29b41d4a716446655440000", f"{{{text}}}", f"{text}\n", "٥" + text[1:]):
        assert parse_key_id(wrong) is None
