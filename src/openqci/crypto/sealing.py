"""Secret bytes at rest: sealed with AES-256-GCM under a key of their KME (invariant I6).

The key-encryption key (KEK) of a store never seals anything itself: each KME has a data key derived from it
with HKDF-SHA-256, so that a row moved from one KME's rooms into another's does not open. Where a segment
lies is part of what is authenticated, so that a row moved inside one KME's rooms does not open either.

Nonces are 96 random bits. NIST SP 800-38D, 8.3 allows at most 2**32 seals under one key; a KME that seals
100 segments a second for a year makes 3.2e9, and reaches it in 16 months: change the KEK yearly.
"""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from openqci.core.errors import IntegrityError, invariant
from openqci.core.identifiers import KmeId, StreamId
from openqci.core.keys import SecretBytes

KEK_BYTES = 32
NONCE_BYTES = 12


class Sealer:
    """Seals and opens segments of key streams for all KMEs that share a store."""

    def __init__(self, kek: bytes) -> None:
        invariant(len(kek) == KEK_BYTES, "a key-encryption key has 32 bytes")
        self._kek = kek
        self._ciphers: dict[KmeId, AESGCM] = {}

    def seal(self, kme: KmeId, stream: StreamId, start: int, secret: SecretBytes | memoryview) -> bytes:
        """Return the sealed form of bytes that lie at ``start`` of a stream."""
        clear = secret.reveal() if isinstance(secret, SecretBytes) else secret
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher(kme).encrypt(nonce, clear, place(kme, stream, start, len(clear)))

    def open(self, kme: KmeId, stream: StreamId, start: int, length: int, sealed: bytes) -> SecretBytes:
        """Return the bytes; IntegrityError if they were changed, moved or sealed under another key."""
        associated = place(kme, stream, start, length)
        try:
            return SecretBytes(
                self._cipher(kme).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], associated)
            )
        except InvalidTag:
            raise IntegrityError(
                f"stored key of {kme}, stream {stream}, offset {start} does not open: it was changed, "
                "moved, or sealed under another key-encryption key"
            ) from None

    def _cipher(self, kme: KmeId) -> AESGCM:
        cipher = self._ciphers.get(kme)
        if cipher is None:
            derived = HKDF(SHA256(), 32, salt=None, info=f"openqci store v1 {kme}".encode()).derive(self._kek)
            cipher = self._ciphers[kme] = AESGCM(derived)
        return cipher


def place(kme: KmeId, stream: StreamId, start: int, length: int) -> bytes:
    """Return what is authenticated beside the bytes: where they lie."""
    return f"{kme}\n{stream}\n{start}\n{length}".encode()
