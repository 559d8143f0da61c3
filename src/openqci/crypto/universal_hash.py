"""Universal hashing: the Toeplitz hash of privacy amplification and the tag of verification.

Not imported by ``openqci.crypto`` itself, since it needs NumPy and SciPy, which a key management entity
without QKD modules does without.

**Index convention (wire format v1).** For n key bits x, an output of l bits and a seed s of n - 1 bits, let
m = n - l. The hash is the modified Toeplitz matrix [I | T]::

    y[i] = x[i] XOR ( sum over j < m of  s[i - j + m - 1] * x[l + j]  mod 2 ),     i = 0 .. l - 1

It is universal-2: two keys that differ in the tail collide with probability 2**-l over the seed, two that
differ only in the head never (Hayashi, IEEE Trans. Inf. Theory 57, 3989 (2011), section II;
Krawczyk, CRYPTO '94 for the Toeplitz part). Packed, bit i is bit 7 - i % 8 of byte i // 8 (the order of
``numpy.packbits``); test vectors are in ``tests/crypto/toeplitz_vectors.json``.
"""

import math

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from openqci.core.errors import invariant
from openqci.crypto.one_time import ONE_TIME_MAC_KEY_BYTES, TAG_BYTES, Buffer, one_time_mac

Bits = NDArray[np.uint8]

TOEPLITZ_BITS_MAX = 1 << 26
"""Longest key for which the floating-point product is exact beyond doubt.

The sums are whole numbers up to n = 2**26; the error of a double-precision FFT product stays below
about 2**-52 * log2(n) * n = 4e-7, a millionth of the 0.5 that would turn a bit. The margin that was met
is asserted on every call all the same.
"""

ROUNDING_ERROR_MAX = 0.125


def toeplitz_seed_bits(key_bits: int) -> int:
    """Return how many seed bits the modified Toeplitz hash takes, whatever the output length."""
    return max(0, key_bits - 1)


def toeplitz_hash(key: Bits, seed: Bits, length_bits: int) -> Bits:
    """Return the modified Toeplitz hash of ``key``; see the module for the index convention.

    Parameters
    ----------
    key : ndarray of uint8, shape (n,)
        Bits as 0 and 1, n up to ``TOEPLITZ_BITS_MAX``.
    seed : ndarray of uint8, shape (n - 1,)
        Uniform bits, made after the key was fixed and used for this key alone.
    length_bits : int
        From 0 to n.

    Returns
    -------
    ndarray of uint8, shape (length_bits,)
    """
    invariant(0 <= length_bits <= key.size, "a hash is not longer than the key")
    invariant(key.size <= TOEPLITZ_BITS_MAX, "a key is hashed only where the product is exact")
    invariant(seed.size == toeplitz_seed_bits(key.size), "the seed has one bit less than the key")
    tail = key[length_bits:]
    if not length_bits or not tail.size:
        return key[:length_bits].copy()
    sums = _valid_convolution(seed, tail)
    whole = np.rint(sums)
    invariant(float(np.abs(sums - whole).max()) < ROUNDING_ERROR_MAX, "the Toeplitz product is exact")
    return key[:length_bits] ^ (whole.astype(np.int64) & 1).astype(np.uint8)


def _valid_convolution(seed: Bits, tail: Bits) -> NDArray[np.float64]:
    """Return sum over j of seed[i - j + m - 1] * tail[j] for i = 0 .. len(seed) - m, m = len(tail).

    A cyclic product of the seed's length is enough: what wraps around lands below index m - 1.
    """
    size = scipy.fft.next_fast_len(seed.size, real=True)
    spectrum = scipy.fft.rfft(seed.astype(np.float64), size)
    spectrum *= scipy.fft.rfft(tail.astype(np.float64), size)
    product: NDArray[np.float64] = scipy.fft.irfft(spectrum, size, overwrite_x=True)
    return product[tail.size - 1 : seed.size]


VERIFICATION_KEY_BYTES = ONE_TIME_MAC_KEY_BYTES
VERIFICATION_TAG_BITS = 8 * TAG_BYTES


def verification_tag(public_key: Buffer, packed_key: Buffer) -> bytes:
    """Return the 16-byte tag by which two ends see whether their keys are equal.

    Poly1305 is eps-almost-universal in its polynomial part; here its 32-byte key is public, and only has
    to be drawn after both keys are fixed. The tag discloses 128 bits.
    """
    return one_time_mac(public_key, packed_key)


def polynomial_hash_bound(length_bytes: int) -> float:
    """Return the probability that two messages of this length collide, or that a tag is forged.

    8 * ceil(L / 16) / 2**106: Bernstein, "The Poly1305-AES message-authentication code", FSE 2005, thm 3.3.
    """
    return 8 * max(1, math.ceil(length_bytes / 16)) / 2**106
