"""AES over many blocks at once: a keyed function whose values nobody without the key tells from random ones.

Each block is encrypted by itself. Of a message that would show which of its blocks are equal; it is here for
blocks that are all different, such as counters or the places that key IDs name.
"""

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

BLOCK_BYTES = 16


def encrypt_blocks(key: bytes, blocks: bytes) -> bytes:
    """Return AES of each block of 16 bytes under a key of 16, 24 or 32.

    FIPS 197, C.1:

    >>> encrypt_blocks(bytes(range(16)), bytes.fromhex("00112233445566778899aabbccddeeff")).hex()
    '69c4e0d86a7b0430d8cdb78070b4c55a'
    """
    return Cipher(AES(key), ECB()).encryptor().update(blocks)
