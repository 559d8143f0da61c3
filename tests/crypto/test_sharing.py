"""Shares: any k make the key, fewer than k are independent of it, exactly and not only on average."""

import json
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqci.core.errors import IntegrityError
from openqci.core.keys import SecretBytes
from openqci.crypto.sharing import (
    SHARES_MAX,
    further_shares,
    inverse,
    joined,
    lagrange_weight,
    multiplication_table,
    multiply,
    value_at,
    xor_of,
)

VECTORS = json.loads((Path(__file__).parent / "end_to_end_vectors.json").read_text())["sharing"]
SCHEMES = [(k, n) for n in range(1, 7) for k in range(1, n + 1)]


def numbered(shares: list[SecretBytes]) -> dict[int, SecretBytes]:
    return {number + 1: share for number, share in enumerate(shares)}


def all_shares(first: list[bytes], count: int) -> dict[int, SecretBytes]:
    given_ones = [SecretBytes(share) for share in first]
    return numbered(given_ones + further_shares(given_ones, count))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda each: f"{each['threshold']} of {each['count']}")
def test_vectors(vector: dict[str, Any]) -> None:
    k, n = vector["threshold"], vector["count"]
    shares = all_shares([bytes.fromhex(share) for share in vector["shares"][:k]], n)
    assert [share.reveal().hex() for share in shares.values()] == vector["shares"]
    for chosen in combinations(shares, k):
        assert joined({at: shares[at] for at in chosen}, k, n).reveal().hex() == vector["key"]


@settings(max_examples=60)
@given(st.sampled_from(SCHEMES), st.data(), st.integers(1, 40))
def test_any_k_shares_make_the_key_and_the_first_k_are_what_was_given(
    scheme: tuple[int, int], data: st.DataObject, length: int
) -> None:
    k, n = scheme
    first = [data.draw(st.binary(min_size=length, max_size=length)) for _ in range(k)]
    shares = all_shares(first, n)
    assert [bytes(shares[at].reveal()) for at in range(1, k + 1)] == first
    keys = {
        bytes(joined({at: shares[at] for at in chosen}, k, n).reveal()) for chosen in combinations(shares, k)
    }
    assert len(keys) == 1


def weights(k: int, n: int, place: int) -> list[int]:
    """Return what each of the first k shares counts for in the value at a place; 0 is the key."""
    if place == 0 and k == n:
        return [1] * k
    return [lagrange_weight(place, at, range(1, k + 1)) for at in range(1, k + 1)]


def rank(rows: list[list[int]]) -> int:
    """Return the rank of a matrix over GF(2^8)."""
    if not rows:
        return 0
    column = next((at for at in range(len(rows[0])) if any(row[at] for row in rows)), None)
    if column is None:
        return 0
    pivot = next(row for row in rows if row[column])
    rest = []
    for row in rows:
        if row is not pivot:
            factor = multiply(row[column], inverse(pivot[column]))
            rest.append([a ^ multiply(factor, b) for a, b in zip(row, pivot, strict=True)])
    return 1 + rank(rest)


@pytest.mark.parametrize(("k", "n"), [(k, n) for k, n in SCHEMES if k > 1] + [(2, SHARES_MAX), (8, 9)])
def test_the_key_and_any_k_minus_1_shares_are_jointly_uniform(k: int, n: int) -> None:
    """They are k linear functions of the k uniform given shares: of full rank, so one to one with them."""
    shares = [weights(k, n, place) for place in range(1, n + 1)]
    for chosen in combinations(shares, k - 1):
        assert rank([weights(k, n, 0), *chosen]) == k


@pytest.mark.parametrize(("k", "n"), [(2, 2), (2, 3), (2, 5), (3, 4)])
def test_every_byte_by_counting_all_cases(k: int, n: int) -> None:
    """All 256^k given bytes: each value of key and k - 1 shares occurs exactly once."""
    tables = {c: np.frombuffer(multiplication_table(c), np.uint8) for c in range(256)}
    given_bytes = np.meshgrid(*[np.arange(256, dtype=np.uint8)] * k, indexing="ij", sparse=True)

    def value(place: int) -> np.ndarray[Any, Any]:
        parts = [tables[w][each] for w, each in zip(weights(k, n, place), given_bytes, strict=True)]
        total = parts[0]
        for part in parts[1:]:
            total = total ^ part
        return np.broadcast_to(total, (256,) * k).ravel().astype(np.uint32)

    places = {place: value(place) for place in range(n + 1)}
    subsets = list(combinations(range(1, n + 1), k - 1))
    for known in subsets if k == 2 else subsets[-1:]:
        together = places[0]
        for place in known:
            together = together << 8 | places[place]
        assert (np.bincount(together, minlength=256**k) == 1).all()


def test_the_counted_weights_are_those_of_the_code() -> None:
    """What the two tests above reason about is what the functions compute."""
    for (k, n), byte in product([(2, 3), (3, 5), (4, 4)], (1, 2, 77)):
        for at in range(k):
            first = [bytes([byte if each == at else 0]) for each in range(k)]
            shares = all_shares(first, n)
            for place, share in shares.items():
                assert share.reveal()[0] == multiply(weights(k, n, place)[at], byte)
            key = joined({each: shares[each] for each in range(1, k + 1)}, k, n)
            assert key.reveal()[0] == multiply(weights(k, n, 0)[at], byte)


def test_the_field() -> None:
    for a in range(1, 256):
        assert multiply(a, inverse(a)) == 1
        assert sorted(multiplication_table(a)) == list(range(256))
    for a, b, c in ((3, 200, 91), (255, 254, 2), (0, 9, 17)):
        assert multiply(a, b ^ c) == multiply(a, b) ^ multiply(a, c)
        assert multiply(a, multiply(b, c)) == multiply(multiply(a, b), c)


def test_what_is_no_scheme_or_no_set_of_shares() -> None:
    one = SecretBytes(b"a")
    for k, n in ((0, 1), (2, 1), (1, SHARES_MAX + 1)):
        with pytest.raises(IntegrityError):
            joined({1: one}, k, n)
    for shares in ({}, {1: one}, {1: one, 2: one, 3: one}, {0: one, 1: one}, {1: one, 4: one}):
        with pytest.raises(IntegrityError):
            joined(shares, 2, 3)
    with pytest.raises(IntegrityError):
        value_at(0, {1: one, 2: SecretBytes(b"ab")})


def test_the_shares_are_not_changed() -> None:
    shares = [SecretBytes(b"one"), SecretBytes(b"two")]
    xor_of(shares)
    value_at(0, numbered(shares))
    assert [bytes(share.reveal()) for share in shares] == [b"one", b"two"]
