"""Secret bytes at rest: sealed with AES-256-GCM under a key of their KME (invariant I6).

The key-encryption key (KEK) of a store never seals anything itself: each KME has a data key derived from it
with HKDF-SHA-256 (RFC 5869), so that a row moved from one KME's rooms into another's does not open. Where a
segment lies is authenticated with it, so that a row moved inside one KME's rooms does not open either.

Nonces are 96 random bits. NIST SP 800-38D, 8.3 allows at most 2**32 seals under one key with them: the chance
that any nonce came twice is then 2**-33. Two segments under one nonce would show their XOR, and the means to
forge, to whoever holds both ciphertexts. A KME that seals 100 segments a second reaches 2**32 in 16 months.
A :class:`Sealer` refuses to seal beyond the bound; it counts from when it was made, so a network that is
restarted must change its KEK by the calendar (a new data directory; re-sealing in place is not built yet).

What sealing does not give: freshness. Whoever can put back an old copy of the whole store file brings spent
key back with it, so a store is never restored from a backup.
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
SEAL_TAG_BYTES = 16

SEALS_PER_KEY_MAX = 2**32
"""Seals under one data key with random nonces, NIST SP 800-38D, 8.3."""


class Sealer:
    """Seals and opens segments of key streams for all KMEs that share a store."""

    def __init__(self, kek: bytes) -> None:
        invariant(len(kek) == KEK_BYTES, "a key-encryption key has 32 bytes")
        self._kek = kek
        self._ciphers: dict[KmeId, AESGCM] = {}
        self._seals: dict[KmeId, int] = {}

    def seal(self, kme: KmeId, stream: StreamId, start: int, secret: SecretBytes | memoryview) -> bytes:
        """Return nonce, ciphertext and tag of bytes that lie at ``start`` of a stream."""
        clear = secret.reveal() if isinstance(secret, SecretBytes) else secret
        cipher = self._cipher(kme)
        seals = self._seals[kme] = self._seals[kme] + 1
        invariant(seals <= SEALS_PER_KEY_MAX, "no data key seals more often than NIST SP 800-38D allows")
        nonce = os.urandom(NONCE_BYTES)
        return nonce + cipher.encrypt(nonce, clear, place(kme, stream, start, len(clear)))

    def open(self, kme: KmeId, stream: StreamId, start: int, length: int, sealed: bytes) -> SecretBytes:
        """Return the bytes; IntegrityError if they were changed, moved or sealed under another key."""
        opened = SecretBytes(bytes(length if len(sealed) == NONCE_BYTES + length + SEAL_TAG_BYTES else 0))
        try:
            if len(opened) != length:
                raise InvalidTag
            # Decrypted into the buffer that is wiped later: no copy stays behind in an immutable object.
            self._cipher(kme).decrypt_into(
                sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place(kme, stream, start, length), opened.reveal()
            )
        except InvalidTag:
            raise IntegrityError(
                f"stored key of {kme}, stream {stream}, offset {start} does not open: it was changed, "
                "moved, or sealed under another key-encryption key"
            ) from None
        return opened

    def _cipher(self, kme: KmeId) -> AESGCM:
        cipher = self._ciphers.get(kme)
        if cipher is None:
            derived = HKDF(SHA256(), 32, salt=None, info=f"openqci store v1 {kme}".encode()).derive(self._kek)
            cipher = self._ciphers[kme] = AESGCM(derived)
            self._seals[kme] = 0
        return cipher


def place(kme: KmeId, stream: StreamId, start: int, length: int) -> bytes:
    """Return what is authenticated beside the bytes: where they lie.

    Names are framed by their length in bytes, so that no two places share an encoding.
    """
    kme_bytes, stream_bytes = kme.encode(), stream.encode()
    return b"%d:%b%d:%b%d:%d" % (len(kme_bytes), kme_bytes, len(stream_bytes), stream_bytes, start, length)
