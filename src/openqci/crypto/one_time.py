"""One-time pad and one-time message authentication: both information-theoretic, both with keys used once.

The MAC is Poly1305 with a fresh 32-byte key per message: the key is (r, s), r a point of the polynomial
hash, s a one-time pad of its value. A forger without the key succeeds with probability at most
8 * ceil(L / 16) / 2**106 for messages of L bytes (Bernstein, "The Poly1305-AES message-authentication
code", FSE 2005, theorem 3.3, with s uniform instead of an AES output). It is the reviewed
implementation of OpenSSL; nothing here computes it again.
"""

import hmac

from cryptography.hazmat.primitives.poly1305 import Poly1305

from openqci.core.errors import invariant

ONE_TIME_MAC_KEY_BYTES = 32
TAG_BYTES = 16

Buffer = bytes | bytearray | memoryview


def one_time_pad(message: Buffer, pad: Buffer) -> bytearray:
    """Return message XOR pad; the pad is as long as the message and is never used again.

    >>> bytes(one_time_pad(b"key", one_time_pad(b"key", b"pad")))
    b'pad'
    """
    invariant(len(message) == len(pad), "a one-time pad is exactly as long as its message")
    mixed = int.from_bytes(message, "little") ^ int.from_bytes(pad, "little")
    return bytearray(mixed.to_bytes(len(message), "little"))


def one_time_mac(key: Buffer, *message: Buffer) -> bytes:
    """Return the 16-byte tag of a message under a 32-byte key that is used for this message alone.

    The message may come in parts, which are one behind the other and not copied.
    """
    invariant(len(key) == ONE_TIME_MAC_KEY_BYTES, "a one-time MAC key has 32 bytes")
    mac = Poly1305(bytes(key))
    for part in message:
        mac.update(part)
    return mac.finalize()


def equal(a: Buffer, b: Buffer) -> bool:
    """Compare two byte strings in a time that does not depend on where they differ."""
    return hmac.compare_digest(a, b)
