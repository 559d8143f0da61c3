"""Long products over GF(2) by additive Fourier transforms over GF(2^128), for Toeplitz hashing.

A transform takes the values of a polynomial with coefficients in GF(2^128) at the ``2**k`` points of a
GF(2)-subspace. With Cantor's basis of that subspace the polynomial is first rewritten in products of subspace
polynomials, by exclusive-ors alone, then taken apart level by level as in a Fourier transform. Multiplying
values multiplies polynomials modulo the subspace polynomial ``s_k``, which is sparse: of a product that is
too long for the transform only a few coefficients are spoilt.

A long Toeplitz product is cut into square pieces, so that a transform stays in the processor's cache: the
spectra of p pieces of the key and of p + q - 1 windows of the seed give q pieces of the hash. Nothing is
rounded anywhere.

References
----------
D. G. Cantor, J. Comb. Theory A 50, 285 (1989); S. Gao, T. Mateer, IEEE Trans. Inf. Theory 56, 6265 (2010);
S.-J. Lin, W.-H. Chung, Y. S. Han, FOCS 2014, arXiv:1404.3458; S.-J. Lin, T. Y. Al-Naffouri, Y. S. Han,
IEEE Trans. Inf. Theory 62, 5343 (2016), arXiv:1503.05761.
"""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openqci.kernels.carryless import (
    backward_last,
    backward_levels,
    forward_last,
    forward_levels,
    rewrite_16,
    rewrite_16_back,
    rewrite_16_wide,
    rewrite_16_wide_back,
    sums_of_products,
    xor_run,
)
from openqci.kernels.compiling import kernel

Words = NDArray[np.uint64]

FIELD_POLYNOMIAL = (1 << 128) | 0x87
MASK_ELEMENT, MASK_WORD = (1 << 128) - 1, (1 << 64) - 1

TRANSFORM_LOGS = (8, 12, 16)
"""Lengths of transforms, as powers of two: those whose subspace polynomial spoils least, and fit a cache."""

WINDOW_WORDS = {8: 254, 12: 3840, 16: 65534}
"""How long an even window of the seed may be: what s_k spoils of a product must not reach what is kept.

``s_8 = y^256 + y``, ``s_12 = y^4096 + y^256 + y^16 + y``, ``s_16 = y^65536 + y``: the lowest coefficients of
a product that is too long by e are spoilt up to e plus the second highest power.
"""

PRODUCT_COST = 0.8
"""Of a product of two elements in sums, in units of a butterfly's; to choose how to cut."""

CHUNK_VECTORS = 64
"""Of all spectra at a time when products are summed: what stays in the level-2 cache."""

GAP_WORDS = 520
"""Between spectra, so that equal places of them do not compete for the same lines of a cache."""

LINE_WORDS = 8

SMALL = 16
"""Elements of the shortest polynomial that is rewritten in one go."""


def field_product(a: int, b: int) -> int:
    """Return a product in GF(2^128), of elements as whole numbers; for tables and tests."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        a <<= 1
        if a >> 128:
            a ^= FIELD_POLYNOMIAL
        b >>= 1
    return product


def field_square(a: int) -> int:
    """Return a square in GF(2^128): the bits of ``a`` spread over the even places, reduced."""
    square = int(f"{a:b}", 4)
    for _ in range(2):
        over = square >> 128
        square = square & MASK_ELEMENT ^ over ^ over << 1 ^ over << 2 ^ over << 7
    return square


@cache
def cantor_basis() -> tuple[int, ...]:
    """Return v_0 = 1 to v_127 with ``v_i^2 + v_i = v_(i-1)``."""
    for power in range(128):
        chain = [1 << power]
        while len(chain) < 128:
            chain.append(field_square(chain[-1]) ^ chain[-1])
        if chain[-1] == 1:  # the trace of the start
            return tuple(reversed(chain))
    raise AssertionError("the traces of a basis are not all zero")


def element(index: int) -> int:
    """Return the point with this number: the sum of the basis elements of its set bits."""
    total, basis = 0, cantor_basis()
    for place in range(index.bit_length()):
        if index >> place & 1:
            total ^= basis[place]
    return total


def as_words(value: int) -> list[int]:
    """Return t and t x^64 as four words."""
    shifted = field_product(value, 1 << 64)
    return [value & MASK_WORD, value >> 64, shifted & MASK_WORD, shifted >> 64]


@cache
def twiddle_bases() -> Words:
    """Return, for each block b of a pass, the first twiddle of its four levels.

    ``element(2 b)``, ``element(4 b)``, ``element(8 b)``, ``element(16 b)``, split over the low and the high
    six bits of b: shape (2, 64, 16), both parts to be added.
    """
    parts = [
        [
            [word for level in (1, 2, 3, 4) for word in as_words(element((b << 6 * part) << level))]
            for b in range(64)
        ]
        for part in (0, 1)
    ]
    return np.array(parts, dtype=np.uint64)


@cache
def twiddle_steps() -> tuple[Words, Words]:
    """Return what leads from the first twiddle of a level to the others: of wide passes, and of the last."""
    wide = np.array([as_words(element(2 * each)) for each in range(8)], dtype=np.uint64)
    lanes = [[2] * 4, [0, 2, 4, 6], [0, 4, 8, 12], [2, 6, 10, 14]]
    last = [
        [word for part in (0, 2) for lane in step for word in as_words(element(lane))[part : part + 2]]
        for step in lanes
    ]
    return wide.ravel(), np.array(last, dtype=np.uint64).ravel()


@cache
def rewriting_steps(log_length: int) -> NDArray[np.int64]:
    """Return the exclusive-ors that rewrite a polynomial of ``2**log_length`` coefficients, in order.

    Rows: half a block, the shift, the stride, all as powers of two. A polynomial is divided by powers of
    ``s_i = z^(2^i) + z``, i the largest power of two below the length, until it is a polynomial in s_i; then
    its coefficients (narrow) and what it is in s_i (wide) are rewritten alike. Blocks of 16 elements or fewer
    are left to ``rewrite_16``.
    """
    steps: list[tuple[int, int, int]] = []

    def rewrite(length: int, stride: int) -> None:
        if length <= 1 or (stride == 0 and length <= 4):
            return
        narrow = 1
        while 2 * narrow < length:
            narrow *= 2
        steps.extend((narrow + shift, shift, stride) for shift in reversed(range(length - narrow)))
        rewrite(length - narrow, stride + narrow)
        rewrite(narrow, stride)

    rewrite(log_length, 0)
    return np.array(steps, dtype=np.int64).reshape(-1, 3)


@kernel
def rewrite(x: Any, start: int, log_length: int, steps: Any, width: int) -> None:
    """Rewrite coefficients of ``width`` words (1 or 2) each, in place, for the transform."""
    length = width << log_length
    for row in range(steps.shape[0]):
        half = width << (steps[row, 0] + steps[row, 2])
        shift = width << (steps[row, 1] + steps[row, 2])
        for block in range(start, start + length, 2 * half):
            xor_run(x, block + half, block + 2 * half - shift, shift)
            xor_run(x, block + shift, block + half, half - shift)
    for block in range(start, start + length, SMALL * width):
        if width == 1:
            rewrite_16(x, block)
        else:
            rewrite_16_wide(x, block)


@kernel
def rewrite_back(x: Any, start: int, log_length: int, steps: Any, width: int) -> None:
    """Undo :func:`rewrite`."""
    length = width << log_length
    for block in range(start, start + length, SMALL * width):
        if width == 1:
            rewrite_16_back(x, block)
        else:
            rewrite_16_wide_back(x, block)
    for row in range(steps.shape[0] - 1, -1, -1):
        half = width << (steps[row, 0] + steps[row, 2])
        shift = width << (steps[row, 1] + steps[row, 2])
        for block in range(start, start + length, 2 * half):
            xor_run(x, block + shift, block + half, half - shift)
            xor_run(x, block + half, block + 2 * half - shift, shift)


@kernel
def write_bases(block: int, bases: Any, chosen: Any) -> None:
    low, high = bases[0, block & 63], bases[1, block >> 6]
    for word in range(16):
        chosen[word] = low[word] ^ high[word]


@kernel
def write_twiddles(chosen: Any, wide: Any, twiddles: Any) -> None:
    """Write the 15 twiddles of a block from the first of each level."""
    place = 0
    for level in range(4):
        for step in range(1 << level):
            for word in range(4):
                twiddles[place] = chosen[4 * level + word] ^ wide[4 * step + word]
                place += 1


@kernel
def transform(x: Any, start: int, log_length: int, bases: Any, wide: Any, last: Any) -> None:
    """Replace rewritten coefficients, two words each, by the values at all points."""
    chosen, twiddles = np.empty(16, np.uint64), np.empty(60, np.uint64)
    level = log_length - 4
    while level > 0:
        stride = 2 << level
        for block in range(1 << (log_length - 4 - level)):
            write_bases(block, bases, chosen)
            write_twiddles(chosen, wide, twiddles)
            forward_levels(x, twiddles, start + 16 * stride * block, stride)
        level -= 4
    for block in range(1 << (log_length - 4)):
        write_bases(block, bases, chosen)
        forward_last(x, chosen, last, start + 32 * block)


@kernel
def transform_back(x: Any, start: int, log_length: int, bases: Any, wide: Any, last: Any) -> None:
    """Undo :func:`transform`."""
    chosen, twiddles = np.empty(16, np.uint64), np.empty(60, np.uint64)
    for block in range(1 << (log_length - 4)):
        write_bases(block, bases, chosen)
        backward_last(x, chosen, last, start + 32 * block)
    for level in range(4, log_length, 4):
        stride = 2 << level
        for block in range(1 << (log_length - 4 - level)):
            write_bases(block, bases, chosen)
            write_twiddles(chosen, wide, twiddles)
            backward_levels(x, twiddles, start + 16 * stride * block, stride)


@kernel
def word_at(words: Any, bit: int) -> Any:
    """Return 64 bits of a row from any place on, zeros where there is none."""
    index, by = bit >> 6, np.uint64(bit & 63)
    low = words[index] if 0 <= index < words.size else np.uint64(0)
    if by == 0:
        return low
    high = words[index + 1] if 0 <= index + 1 < words.size else np.uint64(0)
    return (low >> by) | (high << (np.uint64(64) - by))


@kernel
def spectra_of(
    row: Any,
    bit: int,
    step_bits: int,
    filled: int,
    log_length: int,
    steps: Any,
    bases: Any,
    wide: Any,
    last: Any,
    spectra: Any,
    scratch: Any,
) -> None:
    """Write the spectra of pieces of a row of bits: ``filled`` words each, the next ``step_bits`` on."""
    length = 1 << log_length
    for piece in range(spectra.size // (2 * length + GAP_WORDS)):
        for index in range(length):
            scratch[index] = (
                word_at(row, bit + piece * step_bits + 64 * index) if index < filled else np.uint64(0)
            )
        rewrite(scratch, 0, log_length, steps, 1)
        start = (2 * length + GAP_WORDS) * piece
        for index in range(length):
            spectra[start + 2 * index] = scratch[index]
            spectra[start + 2 * index + 1] = np.uint64(0)
        transform(spectra, start, log_length, bases, wide, last)


@kernel
def windowed_sums(windows: Any, tails: Any, sums: Any, log_length: int) -> None:
    """Sum, for each piece of the result, the products of all tails with the window that lies between."""
    words = 2 << log_length
    step = words + GAP_WORDS
    p, q = tails.size // step, sums.size // step
    places = np.empty(7, np.uint64)
    vectors = min(CHUNK_VECTORS, words >> 3)
    for chunk in range(0, words, 8 * vectors):
        for piece in range(q):
            places[0], places[1] = (piece + p - 1) * step + chunk, -step
            places[2], places[3] = chunk, step
            places[4] = piece * step + chunk
            places[5], places[6] = p, vectors
            sums_of_products(windows, tails, sums, places)


@kernel
def products_back(
    sums: Any, log_length: int, half: int, steps: Any, bases: Any, wide: Any, last: Any, result: Any
) -> None:
    """Turn sums of spectra into bits: of each, ``half`` words of the product from word ``half`` on."""
    step = (2 << log_length) + GAP_WORDS
    for piece in range(sums.size // step):
        start = piece * step
        transform_back(sums, start, log_length, bases, wide, last)
        rewrite_back(sums, start, log_length, steps, 2)
        for index in range(half):
            here = start + 2 * (half + index)
            result[piece * half + index] = sums[here] ^ sums[here - 1]


@kernel
def cut(row: Any, bit: int, bits: int) -> Any:
    """Return ``bits`` bits of a row from ``bit`` on as words of their own, zeros above."""
    piece = np.empty((bits + 63) >> 6, np.uint64)
    for index in range(piece.size):
        piece[index] = word_at(row, bit + 64 * index)
    if bits & 63:
        piece[-1] &= (np.uint64(1) << np.uint64(bits & 63)) - np.uint64(1)
    return piece


def pieces_of(tail_bits: int, length_bits: int) -> tuple[int, int, int]:
    """Return the transform's length as a power of two, and into how many pieces tail and hash are cut."""

    def cost(log_length: int) -> float:
        p, q = pieces(log_length)
        butterflies = (2 * p + 2 * q - 1) * log_length << (log_length - 1)
        return butterflies + PRODUCT_COST * p * q * (1 << log_length)

    def pieces(log_length: int) -> tuple[int, int]:
        piece_bits = 32 * WINDOW_WORDS[log_length]
        return -(-tail_bits // piece_bits), -(-length_bits // piece_bits)

    best = min(TRANSFORM_LOGS, key=cost)
    return best, *pieces(best)


def in_lines(words: int) -> Words:
    """Return room for so many words that begins where a line of the cache does."""
    room = np.empty(words + LINE_WORDS - 1, np.uint64)
    first = -(room.ctypes.data // 8) % LINE_WORDS
    return room[first : first + words]


def middle_product(seed: Words, tail: Words, tail_bits: int, length_bits: int) -> Words:
    """Return ``length_bits`` coefficients of a product over GF(2), those from ``tail_bits - 1`` on.

    Parameters
    ----------
    seed, tail : ndarray of uint64
        Rows of ``tail_bits + length_bits - 1`` and ``tail_bits`` bits; bit i of word w is the coefficient
        64 w + i, bits behind the last are zero.
    tail_bits, length_bits : int
        1 or more.

    Returns
    -------
    ndarray of uint64
        At least the words that hold ``length_bits`` bits; what lies behind has no meaning.
    """
    log_length, p, q = pieces_of(tail_bits, length_bits)
    half = WINDOW_WORDS[log_length] // 2
    step, piece_bits = (2 << log_length) + GAP_WORDS, 64 * half
    steps, bases, (wide, last) = rewriting_steps(log_length), twiddle_bases(), twiddle_steps()
    scratch, sums = in_lines(1 << log_length), in_lines(q * step)
    tails, windows = in_lines(p * step), in_lines((p + q - 1) * step)
    tables = steps, bases, wide, last
    spectra_of(tail, 0, piece_bits, half, log_length, *tables, tails, scratch)
    first = tail_bits - 1 - p * piece_bits
    spectra_of(seed, first, piece_bits, 2 * half, log_length, *tables, windows, scratch)
    windowed_sums(windows, tails, sums, log_length)
    result = np.empty(q * half, np.uint64)
    products_back(sums, log_length, half, *tables, result)
    for used in (tails, scratch, sums):
        used[:] = 0
    return result
