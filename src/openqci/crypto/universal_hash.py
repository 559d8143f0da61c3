"""Universal hashing for verification: how two ends see whether their keys are equal.

The hash of privacy amplification is in :mod:`openqci.crypto.toeplitz`.
"""

import math

from openqci.crypto.one_time import ONE_TIME_MAC_KEY_BYTES, TAG_BYTES, Buffer, one_time_mac

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
