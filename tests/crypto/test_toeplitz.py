"""The Toeplitz hash against its definition, on both routes."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import IntegrityError
from openqci.crypto.toeplitz import (
    TOEPLITZ_BITS_MAX,
    compiled_hash,
    compiled_route_available,
    portable_hash,
    toeplitz_hash,
    toeplitz_seed_bits,
)

VECTORS = json.loads((Path(__file__).parent / "toeplitz_vectors.json").read_text())
ROUTES = [portable_hash, compiled_hash] if compiled_route_available() else [portable_hash]

every_route = pytest.mark.parametrize("route", ROUTES)


def by_definition(key: list[int], seed: list[int], length: int) -> list[int]:
    """The formula of the module's docstring, term by term."""
    m = len(key) - length
    return [
        key[i] ^ (sum(seed[i - j + m - 1] & key[length + j] for j in range(m)) % 2) for i in range(length)
    ]


def drawn(rng: np.random.Generator, bits: int) -> np.ndarray:
    """Packed bits; what lies behind the last is not zero."""
    return rng.integers(0, 256, -(-bits // 8), dtype=np.uint8)


def unpacked(packed: np.ndarray, bits: int) -> list[int]:
    return np.unpackbits(packed, count=bits).tolist()


@every_route
@given(n=st.integers(1, 400), share=st.floats(0, 1), number=st.integers(0, 2**32))
def test_equals_the_definition(route, n, share, number):
    rng, length = np.random.Generator(np.random.SFC64(number)), round(n * share)
    key, seed = drawn(rng, n), drawn(rng, toeplitz_seed_bits(n))
    found = route(key, n, seed, length)
    assert found.size == -(-length // 8)
    assert unpacked(found, length) == by_definition(unpacked(key, n), unpacked(seed, n - 1), length)
    assert not any(np.unpackbits(found)[length:])


@every_route
@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["name"])
def test_published_vectors(route, vector):
    key, seed = (np.frombuffer(bytes.fromhex(vector[each]), np.uint8) for each in ("key", "seed"))
    found = route(key, vector["key_bits"], seed, vector["length_bits"])
    assert found.tobytes().hex() == vector["hash"]


@given(
    n=st.sampled_from([8_191, 16_257, 122_880, 245_761, 262_144, 1_000_003]),
    share=st.sampled_from([0.001, 0.1, 0.37, 0.5, 0.9, 0.999]),
    number=st.integers(0, 2**32),
)
def test_all_routes_of_this_machine_give_the_same_bits(n, share, number):
    rng, length = np.random.Generator(np.random.SFC64(number)), round(n * share)
    key, seed = drawn(rng, n), drawn(rng, n - 1)
    assert len({route(key, n, seed, length).tobytes() for route in ROUTES}) == 1


@pytest.mark.parametrize(
    ("n", "length"), [(600_011, 200_003), (5_000_000, 2_100_000), (TOEPLITZ_BITS_MAX, 40_000)]
)
def test_long_keys_agree_with_the_definition_at_sampled_bits(n, length):
    if n > 1 << 25 and not compiled_route_available():
        n = 1 << 22  # the portable route takes 40 bytes a bit
    rng = np.random.Generator(np.random.SFC64(3))
    key, seed = drawn(rng, n), drawn(rng, n - 1)
    found, m = toeplitz_hash(key, n, seed, length), n - length
    bits, tail = np.unpackbits(key, count=n), np.unpackbits(key, count=n)[length:]
    backwards, result = np.unpackbits(seed, count=n - 1)[::-1].copy(), np.unpackbits(found, count=length)
    for i in [0, 1, length // 2, length - 1, *rng.integers(0, length, 20).tolist()]:
        row = backwards[n - 1 - i - m : n - 1 - i]
        assert result[i] == bits[i] ^ (np.count_nonzero(row & tail) & 1)


@every_route
def test_all_ones_are_the_worst_case_for_rounding(route):
    n = 1 << 20
    ones = np.full(n // 8, 255, np.uint8)
    assert unpacked(route(ones, n, ones, 8), 8) == [1 ^ (n - 8) % 2] * 8


@every_route
def test_universal_2_by_exhaustion(route):
    """No two of all 6-bit keys collide under more than 2**-l of all seeds."""
    n, length = 6, 2
    seeds = [np.packbits(seed) for seed in itertools.product((0, 1), repeat=n - 1)]
    keys = [np.packbits(key) for key in itertools.product((0, 1), repeat=n)]
    # The hash is linear: two keys collide where the hash of their difference is zero.
    for difference in keys[1:]:
        collisions = sum(not route(difference, n, seed, length).any() for seed in seeds)
        assert collisions <= len(seeds) / 2**length


@pytest.mark.parametrize(
    ("key_bytes", "key_bits", "seed_bytes", "length"),
    [(2, 16, 3, 9), (2, 16, 2, 17), (2, 16, 2, -1), (3, 16, 2, 8), (0, TOEPLITZ_BITS_MAX + 1, 0, 8)],
)
def test_refuses_lengths_that_do_not_fit(key_bytes, key_bits, seed_bytes, length):
    with pytest.raises(IntegrityError):
        toeplitz_hash(bytes(key_bytes), key_bits, bytes(seed_bytes), length)
