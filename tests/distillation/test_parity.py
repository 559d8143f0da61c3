"""Prefix parities, public permutations and subsets."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from openqci.distillation.reconciliation.parity import PrefixParity, pack, public_permutation, public_subset


@given(st.lists(st.integers(0, 1), min_size=1, max_size=300))
def test_prefix_parity_is_the_running_parity(bits: list[int]) -> None:
    expected = np.concatenate(([0], np.cumsum(bits) % 2))
    parity = PrefixParity(pack(np.array(bits, np.uint8)))
    assert parity.of_first(np.arange(len(bits) + 1)).tolist() == expected.tolist()


@given(st.integers(1, 3000), st.binary(min_size=16, max_size=16), st.integers(0, 5))
def test_permutation_is_one(length: int, seed: bytes, index: int) -> None:
    assert np.array_equal(np.sort(public_permutation(length, seed, index)), np.arange(length))


def test_permutation_separates_neighbours() -> None:
    """Errors that share a block of 64 before rarely share one of 256 after."""
    n = 1 << 16
    where = np.empty(n, np.int64)
    where[public_permutation(n, bytes(range(16)), 1)] = np.arange(n)
    for distance in (1, 2, 3, 17):
        together = np.mean(where[:-distance] // 256 == where[distance:] // 256)
        assert together < 0.02


def test_permutation_and_subset_are_pinned() -> None:
    """Part of wire format v1: another implementation draws the same from the same seed."""
    seed = bytes(range(16))
    assert public_permutation(10, seed, 1).tolist() == PINNED_PERMUTATION
    assert np.unpackbits(public_subset(24, seed, 3), bitorder="little").tolist() == PINNED_SUBSET


def test_seed_and_index_matter() -> None:
    drawn = [public_permutation(1000, bytes([a] * 16), b).tobytes() for a in (1, 2) for b in (1, 2)]
    assert len(set(drawn)) == 4
    assert 400 < np.unpackbits(public_subset(1000, bytes(16), 3)).sum() < 600


PINNED_PERMUTATION = [3, 4, 5, 6, 8, 9, 1, 0, 7, 2]
PINNED_SUBSET = [1, 0, 0, 1, 1, 1, 1, 0, 1, 0, 1, 1, 0, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 1]
