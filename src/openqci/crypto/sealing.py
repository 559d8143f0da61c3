"""Secret bytes at rest: sealed with AES-256-GCM under a key of their KME (invariant I6).

A store seals under *root keys* with numbers, of which the latest seals what is new. No root key seals
anything itself: each KME has a data key derived from it with HKDF-SHA-256 (RFC 5869), so that a row moved
from one KME's rooms into another's does not open. Where a segment lies is authenticated with it, so that a
row moved inside one KME's rooms does not open either. What is sealed says the number of its root key in four
bytes before the rest; number 0, which says nothing, is that of a store with one root key for its life.

Nonces are 96 random bits. NIST SP 800-38D, 8.3 allows at most 2**32 seals under one key with them: the chance
that any nonce came twice is then 2**-33. Two segments under one nonce would show their XOR, and the means to
forge, to whoever holds both ciphertexts. A KME that seals 100 segments a second reaches 2**32 in 16 months.
A :class:`Sealer` refuses to seal beyond the bound; it counts from when it was made. A node renews its root
keys by the calendar (:mod:`openqci.services.keyring`); a network of ``openqci up`` keeps one.

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
NUMBER_BYTES = 4
NONCE_BYTES = 12
SEAL_TAG_BYTES = 16

SEALS_PER_KEY_MAX = 2**32
"""Seals under one data key with random nonces, NIST SP 800-38D, 8.3."""


class Sealer:
    """Seals and opens segments of key streams for all KMEs that share a store."""

    def __init__(self, root: bytes, number: int = 0) -> None:
        self._roots: dict[int, bytes] = {}
        self._ciphers: dict[tuple[int, KmeId], AESGCM] = {}
        self._seals: dict[tuple[int, KmeId], int] = {}
        self._seals_max = SEALS_PER_KEY_MAX
        self.add(number, root)
        self.current = number

    def add(self, number: int, root: bytes) -> None:
        """Open what is sealed under this root key, too."""
        invariant(len(root) == KEK_BYTES, "a root key has 32 bytes")
        invariant(0 <= number < 1 << 8 * NUMBER_BYTES, "a root key's number has four bytes")
        self._roots[number] = root

    def use(self, number: int) -> None:
        """Seal under this root key from now on."""
        invariant(number in self._roots, "only a root key that is known can be used")
        self.current = number

    def share_between(self, processes: int) -> None:
        """Seal no more than this process's part of the bound: so many processes seal under the same keys."""
        invariant(processes >= 1, "a store is sealed by one process at least")
        self._seals_max = SEALS_PER_KEY_MAX // processes

    def drop(self, number: int) -> None:
        """Forget a root key: what is still sealed under it never opens again here."""
        invariant(number != self.current, "the root key in use is not dropped")
        self._roots.pop(number, None)
        # Taken at once: the store's thread may make a cipher meanwhile.
        for place_of in list(self._ciphers):
            if place_of[0] == number:
                del self._ciphers[place_of]

    def seal(self, kme: KmeId, stream: StreamId, start: int, secret: SecretBytes | memoryview) -> bytes:
        """Return nonce, ciphertext and tag of bytes that lie at ``start`` of a stream."""
        clear = secret.reveal() if isinstance(secret, SecretBytes) else secret
        number = self.current
        cipher = self._cipher(number, kme)
        seals = self._seals[number, kme] = self._seals[number, kme] + 1
        invariant(seals <= self._seals_max, "no data key seals more often than NIST SP 800-38D allows")
        nonce = os.urandom(NONCE_BYTES)
        prefix = number.to_bytes(NUMBER_BYTES, "big") if number else b""
        return prefix + nonce + cipher.encrypt(nonce, clear, place(kme, stream, start, len(clear)))

    def open(self, kme: KmeId, stream: StreamId, start: int, length: int, sealed: bytes) -> SecretBytes:
        """Return the bytes; IntegrityError if they were changed, moved or sealed under another key."""
        number = number_of(sealed, length)
        opened = SecretBytes(bytes(length if number in self._roots else 0))
        try:
            if number is None or len(opened) != length:
                raise InvalidTag
            body = memoryview(sealed)[NUMBER_BYTES if number else 0 :]
            # Decrypted into the buffer that is wiped later: no copy stays behind in an immutable object.
            self._cipher(number, kme).decrypt_into(
                body[:NONCE_BYTES], body[NONCE_BYTES:], place(kme, stream, start, length), opened.reveal()
            )
        except InvalidTag:
            raise IntegrityError(
                f"stored key of {kme}, stream {stream}, offset {start} does not open: it was changed, "
                "moved, or sealed under another key-encryption key"
            ) from None
        return opened

    def _cipher(self, number: int, kme: KmeId) -> AESGCM:
        cipher = self._ciphers.get((number, kme))
        if cipher is None:
            info = f"openqci store v1 {kme}".encode()
            derived = HKDF(SHA256(), 32, salt=None, info=info).derive(self._roots[number])
            cipher = self._ciphers[number, kme] = AESGCM(derived)
            self._seals.setdefault((number, kme), 0)
        return cipher


def number_of(sealed: bytes, length: int) -> int | None:
    """Return the number of the root key that ``length`` bytes are sealed under; None if this is no seal.

    >>> number_of(bytes(28), 0), number_of((7).to_bytes(4, "big") + bytes(28), 0), number_of(b"", 0)
    (0, 7, None)
    """
    rest = len(sealed) - NONCE_BYTES - length - SEAL_TAG_BYTES
    if rest == NUMBER_BYTES:
        return int.from_bytes(sealed[:NUMBER_BYTES], "big") or None
    return 0 if rest == 0 else None


def place(kme: KmeId, stream: StreamId, start: int, length: int) -> bytes:
    """Return what is authenticated beside the bytes: where they lie.

    Names are framed by their length in bytes, so that no two places share an encoding.
    """
    kme_bytes, stream_bytes = kme.encode(), stream.encode()
    return b"%d:%b%d:%b%d:%d" % (len(kme_bytes), kme_bytes, len(stream_bytes), stream_bytes, start, length)
