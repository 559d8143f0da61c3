"""Privacy amplification: a reconciled key, a fresh public seed, and a shorter secret key.

The hash is :func:`openqci.crypto.toeplitz.toeplitz_hash`; another fits behind :class:`PrivacyAmplification`.
The seed comes from the operating system, once for each block, and leaves Alice only after both ends have
verified and accepted: a seed known before the key is fixed, or used twice, breaks the leftover-hash argument.
"""

from typing import Protocol

import numpy as np

from openqci.core.detections import Bits
from openqci.core.keys import SecretBytes
from openqci.crypto.toeplitz import toeplitz_hash, toeplitz_seed_bits


class PrivacyAmplification(Protocol):
    """A universal-2 hash by name; both ends must use the same definition."""

    @property
    def name(self) -> str:
        """Name and version of the definition (not of the algorithm), checked by the peer."""

    def seed_bits(self, key_bits: int) -> int:
        """Return how many uniform seed bits a key of this length takes."""

    def amplify(self, key: Bits, seed: bytes, length_bits: int) -> SecretBytes:
        """Return ``length_bits`` secret bits, a multiple of 8, packed; packed is the seed too."""


class ToeplitzHash:
    """The modified Toeplitz hash, by the fastest route that this machine has."""

    name = "toeplitz-identity-1"

    def seed_bits(self, key_bits: int) -> int:
        return toeplitz_seed_bits(key_bits)

    def amplify(self, key: Bits, seed: bytes, length_bits: int) -> SecretBytes:
        packed = np.packbits(key)
        short = toeplitz_hash(packed.data, key.size, seed, length_bits)
        secret = SecretBytes(short.data)
        packed[:] = 0
        short[:] = 0
        return secret
