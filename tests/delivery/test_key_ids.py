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

    def aes(block: str) -> str:
        cipher = Cipher(algorithms.AES(bytes(16)), modes.ECB()).encryptor()
        return f"{int.from_bytes(cipher.update(int(block, 2).to_bytes(16, 'big')), 'big'):0128b}"

    tag, place = f"{0x0123456789:040b}", f"{4096:024b}{32:012b}"
    check = aes(f"{tag}{place:0>88}")
    placeless = f"{tag}{check[40:48]}1000{check[52:64]}10{check[66:92]}"
    mask = aes(f"{placeless:0<128}")
    masked = "".join(str(int(bit) ^ int(other)) for bit, other in zip(place, mask[92:], strict=True))
    expected = uuid.UUID(int=int(placeless + masked, 2))
    assert encode_key_id(bytes(16), 0x0123456789, 4096, 32) == str(expected) == VECTOR


VECTOR = "01234567-8988-8247-9201-e3ed4c35362a"


@pytest.mark.parametrize(("offset", "length"), [(-1, 32), (BATCH_BYTES_MAX, 32), (0, 0), (0, 4096)])
def test_a_place_that_has_no_id_is_our_own_fault(offset: int, length: int) -> None:
    with pytest.raises(IntegrityError):
        encode_key_id(bytes(16), 1, offset, length)


@given(seeds, seeds, tags, offsets, st.integers(1, 64), st.integers(1, 20), st.data())
def test_many_ids_are_made_and_read_as_one_by_one(
    seed: bytes, other: bytes, tag: int, offset: int, length: int, count: int, data: st.DataObject
) -> None:
    offset %= BATCH_BYTES_MAX - length * count
    key_ids = encode_key_ids(seed, tag, offset, length, count)
    places = [KeyPlace(offset + length * index, length) for index in range(count)]
    assert key_ids == [encode_key_id(seed, tag, *place) for place in places]
    mixed = data.draw(st.permutations([*key_ids, *encode_key_ids(other, tag, offset, length, count)]))
    assert decode_key_ids(seed, tag, mixed) == [decode_key_id(seed, key_id) for key_id in mixed]


@given(seeds, tags, tags, offsets)
def test_an_id_names_nothing_in_another_batch(seed: bytes, tag: int, other: int, offset: int) -> None:
    key_ids = [encode_key_id(seed, tag, offset, 32)]
    assert decode_key_ids(seed, other, key_ids) == ([(offset, 32)] if other == tag else [None])


def test_upper_case_means_the_same_and_nothing_else_is_a_uuid() -> None:
    text = "550E8400-E29B-41D4-A716-446655440000"
    assert parse_key_id(text) == text.lower()
    for wrong in ("", "550e8400e29b41d4a716446655440000", f"{{{text}}}", f"{text}\n", "٥" + text[1:]):
        assert parse_key_id(wrong) is None
