"""The Toeplitz hash of privacy amplification, exact by construction.

**Index convention (wire format v1).** For n key bits x, an output of l bits and a seed s of n - 1 bits, let
m = n - l. The hash is the modified Toeplitz matrix [I | T]::

    y[i] = x[i] XOR ( sum over j < m of  s[i - j + m - 1] * x[l + j]  mod 2 ),     i = 0 .. l - 1

It is universal-2: two keys that differ in the tail collide with probability 2**-l over the seed, two that
differ only in the head never (Hayashi, IEEE Trans. Inf. Theory 57, 3989 (2011), section II;
Krawczyk, CRYPTO '94 for the Toeplitz part). Packed, bit i is bit 7 - i % 8 of byte i // 8 (the order of
``numpy.packbits``); test vectors are in ``tests/crypto/toeplitz_vectors.json``.

Two routes give the same bits. Where the extra ``kernels`` is installed and the processor multiplies without
carries, the product is one of polynomials over GF(2) (:mod:`openqci.kernels.binary_product`). Elsewhere it is
one of whole numbers by a floating-point transform, 20 to 50 times slower. :func:`toeplitz_hash` chooses.

Not imported by ``openqci.crypto`` itself, since it needs NumPy, and SciPy for the second route, which a key
management entity without QKD modules does without.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from openqci.core.errors import invariant
from openqci.crypto.one_time import Buffer
from openqci.kernels import kernels_available

Bits = NDArray[np.uint8]
Words = NDArray[np.uint64]

TOEPLITZ_BITS_MAX = 1 << 27
"""Longest key, on either route.

Sums of the portable route are whole numbers up to 2**27; the error of a double-precision FFT product stays
below about 2**-52 * log2(n) * n = 8e-7, a millionth of the 0.5 that would turn a bit. The margin that was met
is asserted on every call all the same.
"""

ROUNDING_ERROR_MAX = 0.125


def toeplitz_seed_bits(key_bits: int) -> int:
    """Return how many seed bits the modified Toeplitz hash takes, whatever the output length."""
    return max(0, key_bits - 1)


@cache
def compiled_route_available() -> bool:
    """Return whether the product over GF(2) runs here: kernels installed, and a processor for them."""
    if not kernels_available():
        return False
    from openqci.kernels.carryless import carryless_available

    return carryless_available()


def toeplitz_hash(key: Buffer, key_bits: int, seed: Buffer, length_bits: int) -> Bits:
    """Return the modified Toeplitz hash of a packed key; see the module for the index convention.

    Parameters
    ----------
    key : buffer of bytes
        ``key_bits`` bits, packed as ``numpy.packbits`` does; bits behind the last do not matter.
    key_bits : int
        n, up to ``TOEPLITZ_BITS_MAX``.
    seed : buffer of bytes
        n - 1 uniform bits, packed, made after the key was fixed and used for this key alone.
    length_bits : int
        From 0 to n.

    Returns
    -------
    ndarray of uint8, shape (ceil(length_bits / 8),)
        Packed; zeros behind the last bit.
    """
    invariant(0 <= length_bits <= key_bits, "a hash is not longer than the key")
    invariant(key_bits <= TOEPLITZ_BITS_MAX, "a key is hashed only where the product is exact")
    x, s = np.frombuffer(key, np.uint8), np.frombuffer(seed, np.uint8)
    invariant(x.size == -(-key_bits // 8), "the key has as many bits as it says")
    invariant(s.size == -(-toeplitz_seed_bits(key_bits) // 8), "the seed has one bit less than the key")
    route = compiled_hash if compiled_route_available() else portable_hash
    return route(x, key_bits, s, length_bits)


def compiled_hash(key: Bits, key_bits: int, seed: Bits, length_bits: int) -> Bits:
    """Return the hash by a product over GF(2); arguments as for :func:`toeplitz_hash`, checked."""
    from openqci.kernels.binary_product import cut, middle_product

    n, m = key_bits, key_bits - length_bits
    # In rows the order of all bits is turned round: the last bit of a key is the lowest coefficient.
    key_row, seed_row = turned_row(key), turned_row(seed)
    head = cut(key_row, 64 * key_row.size - length_bits, length_bits)
    if m and length_bits:
        tail = cut(key_row, 64 * key_row.size - n, m)
        product = middle_product(cut(seed_row, 64 * seed_row.size - (n - 1), n - 1), tail, m, length_bits)
        head ^= product[: head.size]
        product[:] = 0
        tail[:] = 0
    key_row[:] = 0
    behind = 64 * head.size - length_bits
    result = cut(head, -behind, 64 * head.size)
    head[:] = 0
    packed: Bits = result.view(np.uint8)[::-1][: -(-length_bits // 8)].copy()
    result[:] = 0
    return packed


def turned_row(packed: Bits) -> Words:
    """Return packed bits in words, the first bit at the highest place of the last word."""
    row = np.zeros(-(-packed.size // 8), np.uint64)
    row.view(np.uint8)[::-1][: packed.size] = packed
    return row if row.dtype.byteorder != ">" and np.little_endian else row.byteswap()


def portable_hash(key: Bits, key_bits: int, seed: Bits, length_bits: int) -> Bits:
    """Return the hash by a floating-point transform; arguments as for :func:`toeplitz_hash`, checked.

    Takes some 40 bytes for each bit of the key.
    """
    bits = np.unpackbits(key, count=key_bits)
    head, tail = bits[:length_bits].copy(), bits[length_bits:]
    if length_bits and tail.size:
        sums = _valid_convolution(np.unpackbits(seed, count=key_bits - 1), tail)
        whole = np.rint(sums)
        invariant(float(np.abs(sums - whole).max()) < ROUNDING_ERROR_MAX, "the Toeplitz product is exact")
        head ^= (whole.astype(np.int64) & 1).astype(np.uint8)
        sums[:] = whole[:] = 0
    packed = np.packbits(head)
    bits[:] = head[:] = 0
    return packed


def _valid_convolution(seed: Bits, tail: Bits) -> NDArray[np.float64]:
    """Return sum over j of seed[i - j + m - 1] * tail[j] for i = 0 .. len(seed) - m, m = len(tail).

    A cyclic product of the seed's length is enough: what wraps around lands below index m - 1.
    """
    import scipy.fft

    size = scipy.fft.next_fast_len(seed.size, real=True)
    spectrum = scipy.fft.rfft(seed.astype(np.float64), size)
    spectrum *= scipy.fft.rfft(tail.astype(np.float64), size)
    product: NDArray[np.float64] = scipy.fft.irfft(spectrum, size, overwrite_x=True)
    return product[tail.size - 1 : seed.size]
