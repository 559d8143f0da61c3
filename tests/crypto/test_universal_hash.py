"""The Toeplitz hash against its definition, and the verification tag."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqci.core.errors import IntegrityError
from openqci.crypto.universal_hash import (
    VERIFICATION_KEY_BYTES,
    polynomial_hash_bound,
    toeplitz_hash,
    toeplitz_seed_bits,
    verification_tag,
)

VECTORS = json.loads((Path(__file__).parent / "toeplitz_vectors.json").read_text())


def by_definition(key: list[int], seed: list[int], length: int) -> list[int]:
    """The formula of the module's docstring, term by term."""
    m = len(key) - length
    return [
        key[i] ^ (sum(seed[i - j + m - 1] & key[length + j] for j in range(m)) % 2) for i in range(length)
    ]


def bits(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.integers(0, 2, count, dtype=np.uint8)


@given(n=st.integers(1, 90), share=st.floats(0, 1), number=st.integers(0, 2**32))
def test_equals_the_definition(n: int, share: float, number: int) -> None:
    rng, length = np.random.Generator(np.random.SFC64(number)), round(n * share)
    key, seed = bits(rng, n), bits(rng, toeplitz_seed_bits(n))
    assert toeplitz_hash(key, seed, length).tolist() == by_definition(key.tolist(), seed.tolist(), length)


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["name"])
def test_published_vectors(vector: dict) -> None:
    n, length = vector["key_bits"], vector["length_bits"]
    unpack = lambda text, count: np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8), count=count)  # noqa: E731
    out = toeplitz_hash(unpack(vector["key"], n), unpack(vector["seed"], n - 1), length)
    assert np.packbits(out).tobytes().hex() == vector["hash"]


def test_long_key_agrees_with_the_definition_at_sampled_bits() -> None:
    rng = np.random.Generator(np.random.SFC64(3))
    n, length = 600_011, 200_003
    key, seed = bits(rng, n), bits(rng, n - 1)
    out, m = toeplitz_hash(key, seed, length), n - length
    for i in [0, 1, length // 2, length - 1, *rng.integers(0, length, 20).tolist()]:
        row = seed[i : i + m][::-1]
        assert out[i] == key[i] ^ (np.count_nonzero(row & key[length:]) & 1)


def test_worst_case_for_rounding_is_exact() -> None:
    n = 1 << 20
    out = toeplitz_hash(np.ones(n, np.uint8), np.ones(n - 1, np.uint8), 8)
    assert out.tolist() == [1 ^ (n - 8) % 2] * 8


def test_universal_2_by_exhaustion() -> None:
    """No two of all 6-bit keys collide under more than 2**-l of all seeds."""
    n, length = 6, 2
    seeds = [np.array(seed, np.uint8) for seed in itertools.product((0, 1), repeat=n - 1)]
    keys = [np.array(key, np.uint8) for key in itertools.product((0, 1), repeat=n)]
    # The hash is linear: two keys collide where the hash of their difference is zero.
    for difference in keys[1:]:
        collisions = sum(not toeplitz_hash(difference, seed, length).any() for seed in seeds)
        assert collisions <= len(seeds) / 2**length


def test_refuses_a_seed_of_another_length() -> None:
    with pytest.raises(IntegrityError):
        toeplitz_hash(np.zeros(8, np.uint8), np.zeros(8, np.uint8), 4)
    with pytest.raises(IntegrityError):
        toeplitz_hash(np.zeros(8, np.uint8), np.zeros(7, np.uint8), 9)


@settings(max_examples=50)
@given(st.binary(min_size=VERIFICATION_KEY_BYTES, max_size=VERIFICATION_KEY_BYTES), st.binary(min_size=1))
def test_tag_tells_keys_apart(key: bytes, message: bytes) -> None:
    changed = bytes([message[0] ^ 1]) + message[1:]
    assert verification_tag(key, message) == verification_tag(key, message)
    if any(key[:16]):
        assert len(verification_tag(key, changed)) == 16


def test_tag_differs_for_a_key_with_one_wrong_bit() -> None:
    rng = np.random.Generator(np.random.SFC64(5))
    key, message = rng.bytes(VERIFICATION_KEY_BYTES), bytearray(rng.bytes(32_768))
    tag = verification_tag(key, message)
    for bit in rng.integers(0, 8 * len(message), 200).tolist():
        message[bit // 8] ^= 1 << bit % 8
        assert verification_tag(key, message) != tag
        message[bit // 8] ^= 1 << bit % 8


def test_collision_bound_of_a_block_is_far_below_any_epsilon() -> None:
    assert polynomial_hash_bound(32_768) == 8 * 2048 / 2**106 < 1e-27
