"""Prefix parities: what makes Cascade a few array operations.

The parity of the first m bits of a key, for every m at once, costs some forty operations on 64-bit words
per thousand bits; after that the parity of any block is two look-ups.
"""

import numpy as np
from numpy.typing import NDArray

from openqci.distillation.reconciliation import Bits

Words = NDArray[np.uint64]
Positions = NDArray[np.int64]


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
