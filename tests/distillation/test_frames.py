"""Frames, orders and subsets: a key is cut and joined again, orders are permutations, all is pinned."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.distillation.reconciliation.frames import (
    BLOCK_PASSES,
    FRAME_BITS_MAX,
    TILE_BITS,
    Frames,
    Orders,
    batch_masks,
)

SEED = bytes(range(16))


@given(st.integers(1, 5 * FRAME_BITS_MAX))
def test_frames_hold_the_key_and_nothing_more_than_a_tile_each(key_bits: int) -> None:
    frames = Frames(key_bits)
    lengths = frames.lengths_bits
    assert lengths.sum() == key_bits and lengths.min() >= 1 and lengths.max() <= frames.bits
    assert frames.bits % TILE_BITS == 0 and frames.bits <= FRAME_BITS_MAX
    assert frames.bits * frames.count - key_bits < TILE_BITS * frames.count


@pytest.mark.parametrize("key_bits", [1, 64, 4097, 65_536, 200_001])
def test_what_is_cut_can_be_joined(key_bits: int) -> None:
    key = np.random.Generator(np.random.SFC64(key_bits)).integers(0, 2, key_bits, dtype=np.uint8)
    frames = Frames(key_bits)
    assert np.array_equal(frames.joined(frames.cut(key)), key)


@pytest.mark.parametrize("words", [64, 192, 1024])
def test_every_order_is_a_permutation_without_fixed_structure(words: int) -> None:
    orders = Orders.drawn(words, SEED)
    for index in range(BLOCK_PASSES):
        assert np.array_equal(np.sort(orders.positions(index)), np.arange(64 * words))
    assert not np.array_equal(orders.positions(1), orders.positions(2))


def test_bits_of_one_word_part_and_others_meet_no_more_than_by_chance() -> None:
    orders = Orders.drawn(1024, SEED)
    for index in (1, 2):
        where = np.empty(1 << 16, np.int64)
        where[orders.positions(index)] = np.arange(1 << 16)
        words = (where // 64).reshape(1024, 64)
        assert all(np.unique(row).size == 64 for row in words)
        pairs = np.random.Generator(np.random.SFC64(5)).integers(0, 1 << 16, (200_000, 2))
        apart = pairs[pairs[:, 0] // 64 != pairs[:, 1] // 64]
        met = np.count_nonzero(where[apart[:, 0]] // 256 == where[apart[:, 1]] // 256)
        assert abs(met - apart.shape[0] / 256) < 5 * (apart.shape[0] / 256) ** 0.5


def test_orders_and_subsets_are_pinned() -> None:
    """Part of wire format ``cascade-2``: another implementation draws the same from the same seed."""
    orders = Orders.drawn(64, SEED)
    drawn = hashlib.sha256(orders.positions(1).astype("<u2").tobytes()).hexdigest()
    assert orders.positions(1)[:8].tolist() == PINNED_PLACES
    assert drawn == PINNED_ORDER
    assert hashlib.sha256(batch_masks(64, SEED, 1).tobytes()).hexdigest() == PINNED_MASKS


def test_seed_and_index_matter() -> None:
    drawn = [
        Orders.drawn(64, bytes([seed] * 16)).positions(index).tobytes() for seed in (1, 2) for index in (1, 2)
    ]
    assert len(set(drawn)) == 4
    masks = [batch_masks(64, bytes([seed] * 16), batch).tobytes() for seed in (1, 2) for batch in (0, 1)]
    assert len(set(masks)) == 4


PINNED_PLACES = [2267, 725, 1335, 1021, 1522, 2676, 1093, 3565]
PINNED_ORDER = "cf53c2ef9fc1054090f7719b95f13ed1fd71c3882f9763ea9c99bf1f797d55fc"
PINNED_MASKS = "50f3b3eb90f6bb795ff6290b6ae2ffd7af0d0ec489d976f8b1e34c548b277957"
