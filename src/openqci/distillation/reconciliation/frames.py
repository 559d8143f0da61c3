"""How a key is cut into frames, and the orders in which Cascade looks at them (wire format ``cascade-2``).

A key of n bits is cut into ceil(n / 65536) frames of equal length, a multiple of 4096 bits; behind the last
bit of the key there are zeros at both ends. A frame is a row of w words of 64 bits: bit i of the frame is bit
i % 64 of word i // 64, lowest first.

**Passes** 0, 1 and 2 take the frame in blocks. Pass 0 takes it as it lies. Pass p = 1, 2 takes it in another
order, the same for all frames of a key, made of whole words so that it costs a fifth of a nanosecond a bit:

1. word i becomes word ``take[p, 0, i]`` of the frame, turned by ``turns[p, 0, i]`` places to higher bits;
2. in each tile of 64 words, bit j of word i becomes bit i of word j;
3. word i becomes word ``take[p, 1, i]``, turned by ``turns[p, 1, i]``.

``take[p, s]`` sorts w numbers of 32 bits (little-endian, from SHAKE-128; equal ones keep their order), and
``turns`` are w bytes modulo 64. Two bits of one word always part in step 2, and any other two meet in a word
about as rarely as by chance.

**Subsets** s = 0, 1, ... are random halves of the frame, 16 to a batch: the bits set in a mask from
SHAKE-128.

SHAKE-128 is fed the domain, the purpose, the index and the public seed (:func:`expanded`). Nothing of this is
secret; it only may not be known before the photons (checklist line 17), so the seed is drawn afterwards.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openqci.distillation.reconciliation import Bits

Words = NDArray[np.uint64]
Indices = NDArray[np.int64]

FRAME_BITS_MAX = 1 << 16
TILE_BITS = 1 << 12
WORD_BITS = 64
BLOCK_PASSES = 3
SUBSETS_PER_BATCH = 16


@dataclass(frozen=True)
class Frames:
    """Into how many frames of which length a key is cut."""

    key_bits: int

    @property
    def count(self) -> int:
        return max(1, -(-self.key_bits // FRAME_BITS_MAX))

    @property
    def bits(self) -> int:
        """Length of every frame, a multiple of 4096."""
        return -(-self.key_bits // (self.count * TILE_BITS)) * TILE_BITS

    @property
    def words(self) -> int:
        return self.bits // WORD_BITS

    @property
    def lengths_bits(self) -> Indices:
        """Bits of the key in each frame, shape (count,): all full but perhaps the last ones."""
        ends = np.minimum(self.key_bits, np.arange(1, self.count + 1) * self.bits)
        lengths: Indices = np.diff(ends, prepend=0).astype(np.int64)
        return lengths

    def cut(self, key: Bits) -> Words:
        """Return the frames of a key, shape (count, words); ``key`` has shape (n,)."""
        frames = np.zeros((self.count, self.words), dtype="<u8")
        packed = np.packbits(key, bitorder="little")
        frames.reshape(-1).view(np.uint8)[: packed.size] = packed
        packed[:] = 0
        return frames

    def joined(self, frames: Words) -> Bits:
        """Return the key of shape (n,) from its frames."""
        flat = np.ascontiguousarray(frames).reshape(-1).view(np.uint8)
        return np.unpackbits(flat, count=self.key_bits, bitorder="little")


def opening_bits(frames: Frames, block_bits: tuple[int, int, int]) -> Indices:
    """Return how many parities open each block pass of each frame, shape (count, passes).

    The parity of the whole frame is known after pass 0 and not disclosed again.
    """
    bits = np.empty((frames.count, BLOCK_PASSES), dtype=np.int64)
    bits[:, 0] = -(-frames.lengths_bits // block_bits[0])
    bits[:, 1:] = [-(-frames.bits // size) - 1 for size in block_bits[1:]]
    return bits


@dataclass(frozen=True)
class Orders:
    """The orders of all block passes, shape (passes, 2, words); entry 0 is the identity and unused."""

    take: Indices
    place: Indices
    """Inverse of ``take``."""
    turns: Words

    @classmethod
    def drawn(cls, words: int, public_seed: bytes) -> "Orders":
        take = np.zeros((BLOCK_PASSES, 2, words), dtype=np.int64)
        turns = np.zeros((BLOCK_PASSES, 2, words), dtype=np.uint64)
        for index in range(1, BLOCK_PASSES):
            drawn = expanded(public_seed, b"order", index, 2 * 5 * words)
            for step in range(2):
                start = 5 * words * step
                keys = drawn[start : start + 4 * words].view("<u4")
                take[index, step] = np.argsort(keys, kind="stable")
                turns[index, step] = drawn[start + 4 * words : start + 5 * words] & 63
        return cls(take, np.argsort(take, axis=2, kind="stable").astype(np.int64), turns)

    def positions(self, index: int) -> Indices:
        """Return which bit of the frame stands at each place of a pass, shape (64 words,)."""
        places = np.arange(self.take.shape[2] * WORD_BITS)
        if index == 0:
            return places
        word = places // WORD_BITS
        bit = (places - self.turns[index, 1, word].astype(np.int64)) % WORD_BITS
        word = self.take[index, 1, word]
        word, bit = word // WORD_BITS * WORD_BITS + bit, word % WORD_BITS
        bit = (bit - self.turns[index, 0, word].astype(np.int64)) % WORD_BITS
        positions: Indices = self.take[index, 0, word] * WORD_BITS + bit
        return positions


def batch_masks(words: int, public_seed: bytes, batch: int) -> Words:
    """Return the 16 masks of a batch of subsets, shape (16, words)."""
    drawn = expanded(public_seed, b"subsets", batch, 8 * SUBSETS_PER_BATCH * words)
    return drawn.view("<u8").reshape(SUBSETS_PER_BATCH, words)


def expanded(public_seed: bytes, purpose: bytes, index: int, length_bytes: int) -> NDArray[np.uint8]:
    """Return bytes that everybody who knows the seed can draw."""
    domain = b"OpenQCI cascade v2 " + purpose + index.to_bytes(4, "big")
    return np.frombuffer(hashlib.shake_128(domain + public_seed).digest(length_bytes), dtype=np.uint8)
