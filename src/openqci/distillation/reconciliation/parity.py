"""Prefix parities and public permutations: the two tools that make Cascade a few array operations.

The parity of the first m bits of a key, for every m at once, costs some forty operations on 64-bit words
per thousand bits; after that the parity of any block is two look-ups.

Permutations and subsets are drawn from a public seed by SHAKE-128 and integer arithmetic alone, so that
another implementation can draw the same (wire format v1). They need no secrecy: the seed is made after
the photons, which is all Cascade asks for.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from openqci.distillation.reconciliation import Bits

Words = NDArray[np.uint64]
Positions = NDArray[np.int64]

_MIXING_ROUNDS = 3


class PrefixParity:
    """Parity of the first m bits, for any m from 0 to n, of n bits packed by :func:`pack`."""

    def __init__(self, packed: Bits) -> None:
        self._words = _prefix_parity(packed)

    def of_first(self, lengths_bits: Positions) -> Bits:
        """Return the parities of the first ``lengths_bits`` bits, same shape; each from 0 to n."""
        words = self._words[lengths_bits >> 6]
        parities: Bits = ((words >> (lengths_bits & 63).view(np.uint64)) & np.uint64(1)).astype(np.uint8)
        return parities

    def wipe(self) -> None:
        self._words[:] = 0


def pack(bits: Bits) -> Bits:
    """Return bits, shape (n,), as bytes, shape (ceil(n / 8),): bit i is bit i % 8 of byte i // 8."""
    return np.packbits(bits, bitorder="little")


def _prefix_parity(packed: Bits) -> Words:
    """Return words whose bit m is the parity of the first m bits (bit 0 is 0); one bit more than given."""
    words = np.zeros(packed.size // 8 + 1, dtype="<u8")
    words.view(np.uint8)[: packed.size] = packed
    for shift in (1, 2, 4, 8, 16, 32):
        words ^= words << np.uint64(shift)
    carries = np.bitwise_xor.accumulate(words >> np.uint64(63))
    words[1:] ^= np.uint64(0) - carries[:-1]
    # So far bit m is the parity of bits 0..m; shift all by one so that it is that of the first m bits.
    top = words >> np.uint64(63)
    words <<= np.uint64(1)
    words[1:] |= top[:-1]
    return words


def public_permutation(length: int, public_seed: bytes, index: int) -> Positions:
    """Return a permutation of range(length), the same for everybody who knows the seed.

    A bijection of the next power of two (odd multiplication, addition and xor-shift modulo that
    power, each invertible, ``_MIXING_ROUNDS`` times, with 32-bit constants
    from SHAKE-128), with the values beyond ``length`` left out; ``length`` up to 2**32.

    >>> sorted(public_permutation(10, b"seed", 1).tolist()) == list(range(10))
    True
    """
    width = max(2, (length - 1).bit_length())
    mask, shift = np.uint32((1 << width) - 1), np.uint32((width + 1) // 2)
    constants = np.frombuffer(_expand(public_seed, b"permutation", index, 8 * _MIXING_ROUNDS), dtype="<u4")
    image = np.arange(1 << width, dtype=np.uint32)
    for multiplier, offset in constants.reshape(-1, 2):
        image *= multiplier | np.uint32(1)
        image += offset
        image &= mask
        image ^= image >> shift
    permutation = image if length == image.size else image[image < length]
    return permutation.astype(np.int64)


def public_subset(length: int, public_seed: bytes, index: int) -> Bits:
    """Return a random subset of range(length), packed as by :func:`pack`; bits behind the last are random."""
    return np.frombuffer(_expand(public_seed, b"subset", index, -(-length // 8)), dtype=np.uint8)


def _expand(public_seed: bytes, purpose: bytes, index: int, length_bytes: int) -> bytes:
    domain = b"OpenQCI cascade v1 " + purpose + index.to_bytes(4, "big")
    return hashlib.shake_128(domain + public_seed).digest(length_bytes)
