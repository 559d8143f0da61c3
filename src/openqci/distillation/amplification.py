"""Privacy amplification: a reconciled key, a fresh public seed, and a shorter secret key.

The hash is :func:`openqci.crypto.universal_hash.toeplitz_hash`; a faster one of the same definition fits
behind :class:`PrivacyAmplification`. The seed comes from the operating system, once for each block, and
leaves Alice only after both ends have verified and accepted: a seed known before the key is fixed, or used
twice, breaks the leftover-hash argument.
"""

from typing import Protocol

import numpy as np

from openqci.core.detections import Bits
from openqci.core.keys import SecretBytes
from openqci.crypto.universal_hash import toeplitz_hash, toeplitz_seed_bits


class PrivacyAmplification(Protocol):
    """A universal-2 hash by name; both ends must use the same definition."""

    @property
    def name(self) -> str:
        """Name and version of the definition (not of the algorithm), checked by the peer."""

    def seed_bits(self, key_bits: int) -> int:
        """Return how many uniform seed bits a key of this length takes."""

    def amplify(self, key: Bits, seed: Bits, length_bits: int) -> SecretBytes:
        """Return ``length_bits`` secret bits, a multiple of 8, packed as ``numpy.packbits`` does."""


class ToeplitzByFFT:
    """The modified Toeplitz hash by a double-precision FFT, exact by rounding."""

    name = "toeplitz-identity-1"

    def seed_bits(self, key_bits: int) -> int:
        return toeplitz_seed_bits(key_bits)

    def amplify(self, key: Bits, seed: Bits, length_bits: int) -> SecretBytes:
        bits = toeplitz_hash(key, seed, length_bits)
        packed = np.packbits(bits)
        secret = SecretBytes(packed.data)
        bits[:] = 0
        packed[:] = 0
        return secret
