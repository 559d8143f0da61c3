"""Key IDs: both ends compute the same one, and nobody makes one that a KME takes for its own."""

import uuid

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import IntegrityError
from openqci.core.identifiers import KeyId
from openqci.delivery.key_ids import (
    BATCH_BYTES_MAX,
    KEY_BYTES_MAX,
    KeyPlace,
    batch_tag_of,
    decode_key_id,
    decode_key_ids,
    encode_key_id,
    encode_key_ids,
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

    def cut(block: str, bits: int) -> str:
        aes = Cipher(algorithms.AES(bytes(16)), modes.ECB()).encryptor()
        return f"{int.from_bytes(aes.update(int(block, 2).to_bytes(16, 'big')), 'big'):0128b}"[:bits]

    tag, place = f"{0x0123456789:040b}", f"{4096:024b}{32:012b}"
    check = cut(f"{1:024b}{tag}{place:0>64}", 46)
    mask = cut(f"{2:024b}{tag}{check:0>64}", 36)
    bits = tag + f"{int(place, 2) ^ int(mask, 2):036b}" + check
    expected = uuid.UUID(int=int(bits[:48] + "1000" + bits[48:60] + "10" + bits[60:], 2))
    assert encode_key_id(bytes(16), 0x0123456789, 4096, 32) == str(expected) == VECTOR


VECTOR = "01234567-8999-8513-90c1-a134e4c37ad0"


@pytest.mark.parametrize(("offset", "length"), [(-1, 32), (BATCH_BYTES_MAX, 32), (0, 0), (0, 4096)])
def test_a_place_that_has_no_id_is_our_own_fault(offset: int, length: int) -> None:
    with pytest.raises(IntegrityError):
        encode_key_id(bytes(16), 1, offset, length)


places = st.builds(KeyPlace, offsets, lengths)


@given(seeds, seeds, tags, st.lists(places, max_size=20), st.data())
def test_many_ids_are_made_and_read_as_one_by_one(
    seed: bytes, other: bytes, tag: int, named: list[KeyPlace], data: st.DataObject
) -> None:
    key_ids = encode_key_ids(seed, tag, named)
    assert key_ids == [encode_key_id(seed, tag, *place) for place in named]
    mixed = data.draw(st.permutations([*key_ids, *encode_key_ids(other, tag, named)]))
    assert decode_key_ids(seed, tag, mixed) == [decode_key_id(seed, key_id) for key_id in mixed]


def test_an_id_is_not_read_with_another_batch() -> None:
    with pytest.raises(IntegrityError):
        decode_key_ids(bytes(16), 2, [encode_key_id(bytes(16), 1, 0, 32)])


def test_upper_case_means_the_same_and_nothing_else_is_a_uuid() -> None:
    text = "550E8400-E29B-41D4-A716-446655440000"
    assert parse_key_id(text) == text.lower()
    for wrong in ("", "550e8400e29b41d4a716446655440000", f"{{{text}}}", f"{text}\n", "٥" + text[1:]):
        assert parse_key_id(wrong) is None
