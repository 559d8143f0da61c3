"""64-bit words as rows of bits: counting, finding, turning, transposing.

Bit i of word w is bit 64 w + i of the row (little-endian words and bits). These are the bricks of other
kernels; each is one machine instruction or a few.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from openqci.kernels.compiling import kernel

WORD_BITS = 64
TILE_WORDS = 64
"""A tile is a square of bits: 64 words of 64 bits."""


def _unary(instruction: str) -> Any:
    """Return an intrinsic that applies one LLVM instruction on 64-bit words to a word."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        if instruction == "ctpop":
            return builder.ctpop(arguments[0])
        return getattr(builder, instruction)(arguments[0], ir.Constant(ir.IntType(1), 0))

    def typing(typing_context: Any, word: Any) -> Any:
        return types.uint64(types.uint64), code

    return intrinsic(typing)


ones = _unary("ctpop")
"""Number of set bits of a word."""

zeros_below = _unary("cttz")
"""Number of zeros below the lowest set bit; 64 for 0."""

zeros_above = _unary("ctlz")
"""Number of zeros above the highest set bit; 64 for 0."""


@kernel
def turned(word: np.uint64, by: np.uint64) -> Any:
    """Return a word with its bits turned towards higher places by 0 to 63, in a circle."""
    return (word << by) | (word >> ((np.uint64(64) - by) & np.uint64(63)))


@kernel
def transpose_tile(tile: Any) -> None:
    """Transpose 64 words of 64 bits in place: bit j of word i becomes bit i of word j."""
    width = 32
    mask = np.uint64(0x00000000FFFFFFFF)
    while width:
        step = np.uint64(width)
        for start in range(0, TILE_WORDS, 2 * width):
            for low in range(start, start + width):
                swap = ((tile[low] >> step) ^ tile[low + width]) & mask
                tile[low] ^= swap << step
                tile[low + width] ^= swap
        width >>= 1
        mask ^= mask << np.uint64(width)


@kernel
def prefix_parity(words: Any, result: Any) -> None:
    """Write the parity of bits 0..i of the row, itself included, as bit i; arrays of shape (w,), uint64."""
    carry = np.uint64(0)
    for index in range(words.size):
        word = words[index]
        word ^= word << np.uint64(1)
        word ^= word << np.uint64(2)
        word ^= word << np.uint64(4)
        word ^= word << np.uint64(8)
        word ^= word << np.uint64(16)
        word ^= word << np.uint64(32)
        word ^= carry
        result[index] = word
        carry = np.uint64(0) - (word >> np.uint64(63))


@kernel
def parity_between(words: Any, begin: int, end: int) -> Any:
    """Return the parity of bits begin .. end - 1 of the row; begin < end."""
    first, last = begin >> 6, (end - 1) >> 6
    total = np.uint64(0)
    for index in range(first, last + 1):
        total ^= words[index]
    total ^= words[first] & ((np.uint64(1) << np.uint64(begin & 63)) - np.uint64(1))
    total ^= words[last] & ~(~np.uint64(0) >> np.uint64(63 - ((end - 1) & 63)))
    return ones(total) & np.uint64(1)


@kernel
def masked_parity_between(words: Any, mask: Any, begin: int, end: int) -> Any:
    """As :func:`parity_between`, of the bits that are set in ``mask``."""
    first, last = begin >> 6, (end - 1) >> 6
    total = np.uint64(0)
    for index in range(first, last + 1):
        total ^= words[index] & mask[index]
    total ^= words[first] & mask[first] & ((np.uint64(1) << np.uint64(begin & 63)) - np.uint64(1))
    total ^= words[last] & mask[last] & ~(~np.uint64(0) >> np.uint64(63 - ((end - 1) & 63)))
    return ones(total) & np.uint64(1)
