"""AES over many blocks at once: a keyed function whose values nobody without the key tells from random ones.

Each block is encrypted by itself. Of a message that would show which of its blocks are equal; it is here for
blocks that are all different, such as counters or the places that key IDs name.
"""

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

BLOCK_BYTES = 16


class BlockCipher:
    """AES under a key of 16, 24 or 32 bytes.

    FIPS 197, C.1:

    >>> aes = BlockCipher(bytes(range(16)))
    >>> aes.encrypt(bytes.fromhex("00112233445566778899aabbccddeeff")).hex()
    '69c4e0d86a7b0430d8cdb78070b4c55a'
    """

    def __init__(self, key: bytes) -> None:
        self._encryptor = Cipher(AES(key), ECB()).encryptor()

    def encrypt(self, blocks: bytes) -> bytes:
        """Return each block of 16 bytes encrypted by itself."""
        return self._encryptor.update(blocks)
