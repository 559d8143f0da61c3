"""The tag whose key may have been tampered with: every difference that a forger may add is found out."""

import json
from collections import Counter
from itertools import product as pairs
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqci.core.errors import IntegrityError
from openqci.crypto.manipulation import detection_code, manipulation_tag, product
from openqci.crypto.sharing import multiplication_table, multiply

VECTORS = json.loads((Path(__file__).parent / "end_to_end_vectors.json").read_text())["tag"]

keys = st.binary(min_size=48, max_size=48)


def times(a: int, b: int) -> int:
    return multiplication_table(a)[b]


def xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda each: f"{len(each['message']) // 2} bytes")
def test_vectors(vector: dict[str, Any]) -> None:
    key, message = bytes.fromhex(vector["key"]), bytes.fromhex(vector["message"])
    assert manipulation_tag(key, message).hex() == vector["tag"]
    assert manipulation_tag(bytearray(key), message[:5], message[5:]).hex() == vector["tag"]


@pytest.mark.parametrize("seed", range(3))
def test_in_a_small_field_no_difference_survives_more_than_4_of_all_points(seed: int) -> None:
    """The bound of the theorem, (d + 1) / q with d = 3, by counting all points x of GF(2^8)."""
    random = Random(seed)
    r, u = random.randrange(256), random.randrange(256)
    honest = [detection_code(r, u, x, times) for x in range(256)]
    for e, (dr, du) in pairs(
        range(256), [(0, 0), (1, 0), (0, 1), (random.randrange(256), random.randrange(256))]
    ):
        if not (e or dr or du):
            continue
        moved = [detection_code(r ^ dr, u ^ du, x ^ e, multiply) for x in range(256)]
        differences = Counter(a ^ b for a, b in zip(honest, moved, strict=True))
        assert max(differences.values()) <= 4


def test_without_the_odd_power_the_bound_would_not_hold() -> None:
    """The counting above can fail: x^4 in place of x^5 lets a moved point through everywhere."""

    def even(x: int) -> int:
        square = multiply(x, x)
        return multiply(square, square)

    assert len({even(x) ^ even(x ^ 3) for x in range(256)}) == 1


differences = st.binary(min_size=48, max_size=48).filter(any)


@settings(max_examples=60)
@given(differences, st.binary(min_size=1, max_size=80), st.booleans(), st.booleans(), st.integers(0))
def test_differences_in_key_message_and_tag_are_found_out(
    in_key: bytes, in_message: bytes, key_stays: bool, pad_in_tag: bool, seed: int
) -> None:
    """The forger chooses differences and message; the key is uniform, as link key is."""
    random = Random(seed)
    key, message = random.randbytes(48), random.randbytes(len(in_message))
    if key_stays:
        in_key = bytes(48)
    moved = manipulation_tag(xor(key, in_key), xor(message, in_message))
    sent = xor(moved, in_key[32:] if pad_in_tag else bytes(16))
    untouched = not any(in_message) and not any(in_key[:32]) and (pad_in_tag or not any(in_key[32:]))
    assert (sent == manipulation_tag(key, message)) == untouched


@given(keys, st.binary(max_size=40))
def test_the_pad_hides_the_rest(key: bytes, message: bytes) -> None:
    bare = manipulation_tag(key[:32] + bytes(16), message)
    assert manipulation_tag(key, message) == xor(bare, key[32:])


@given(*[st.integers(0, (1 << 128) - 1)] * 3)
def test_the_product_is_that_of_a_field(a: int, b: int, c: int) -> None:
    assert product(a, b) == product(b, a) and product(a, 1) == a
    assert product(a, b ^ c) == product(a, b) ^ product(a, c)
    assert product(a, product(b, c)) == product(product(a, b), c)


def test_a_key_has_48_bytes() -> None:
    with pytest.raises(IntegrityError):
        manipulation_tag(bytes(32), b"")
