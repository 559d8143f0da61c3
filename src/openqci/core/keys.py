"""One type per stage of a key's way, and the buffer that carries secret bytes.

==================  ==================================  =================================================
stage               type                                made by
==================  ==================================  =================================================
photon, detection   ``EmissionRecord``,                 ``openqci.quantum`` (see ``core.detections``)
                    ``DetectionRecord``
secret bits         :class:`SecretKey`                  ``openqci.distillation``
stored link key     :class:`StoredRange`                ``openqci.keystore``
end-to-end key      :class:`RelayedKey`                 ``openqci.relay``
delivered key       :class:`DeliveredKey`               ``openqci.delivery``
==================  ==================================  =================================================
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import msgspec

from openqci.core.errors import invariant
from openqci.core.identifiers import KeyId, StreamId
from openqci.core.provenance import Provenance


class SecretBytes:
    """A buffer of secret bytes that can be wiped and that never shows itself.

    ``repr``, ``str`` and ``format`` give the length only; pickling and hashing are refused. What Python
    cannot promise (copies made by the interpreter or by libraries) is stated in SECURITY.md.

    >>> key = SecretBytes(b"abc")
    >>> key
    SecretBytes(3 bytes)
    >>> key.wipe(); len(key)
    0
    """

    __slots__ = ("_buffer",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, secret: bytes | bytearray | memoryview) -> None:
        self._buffer = bytearray(secret)

    @classmethod
    def owning(cls, buffer: bytearray) -> Self:
        """Take a buffer over as it is: whoever had it keeps no reference to it."""
        made = cls(b"")
        made._buffer = buffer
        return made

    @classmethod
    def joined(cls, parts: "Iterable[SecretBytes]") -> Self:
        """Return copies of parts as one. A buffer that grew would leave its earlier selves behind."""
        parts = list(parts)
        whole = cls(bytes(sum(map(len, parts))))
        at = 0
        for part in parts:
            whole._buffer[at : at + len(part)] = part._buffer
            at += len(part)
        return whole

    def __len__(self) -> int:
        return len(self._buffer)

    def __repr__(self) -> str:
        return f"SecretBytes({len(self._buffer)} bytes)"

    def __eq__(self, other: object) -> bool:
        raise TypeError("compare secrets with openqci.crypto.equal, which takes constant time")

    def __reduce__(self) -> str:
        raise TypeError("secret bytes are not pickled; reveal them where they are sent")

    def reveal(self) -> bytearray:
        """Return the live buffer itself; do not keep it beyond the call that needs it."""
        return self._buffer

    def take(self, length_bytes: int) -> "SecretBytes":
        """Cut the first bytes off this buffer and return them; they are gone from here."""
        invariant(0 <= length_bytes <= len(self._buffer), "no more is taken from a secret than it holds")
        taken = SecretBytes(memoryview(self._buffer)[:length_bytes])
        rest = SecretBytes(memoryview(self._buffer)[length_bytes:])
        self.wipe()
        self._buffer = rest._buffer
        return taken

    def wipe(self) -> None:
        """Overwrite the bytes with zeros and forget them."""
        self._buffer[:] = bytes(len(self._buffer))
        self._buffer = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wipe()


@contextmanager
def wiped(*secrets: SecretBytes) -> Iterator[None]:
    """Wipe the given secrets when the block ends, however it ends."""
    try:
        yield
    finally:
        for secret in secrets:
            secret.wipe()


@dataclass(frozen=True)
class SecretKey:
    """Secret bits that one end of a link keeps after privacy amplification, with the proof behind them."""

    key: SecretBytes
    proof_id: str
    epsilon: float


@dataclass(frozen=True)
class StoredRange:
    """A range of a key stream: where secret bytes lie in a store."""

    stream: StreamId
    offset_bytes: int
    length_bytes: int


@dataclass(frozen=True)
class RelayedKey:
    """End-to-end key at one end of a route, before it is stored as a stock of an SAE pair."""

    relay_id: str
    key: SecretBytes
    provenance: Provenance


class DeliveredKey(msgspec.Struct, frozen=True):
    """A key on its way into an application's answer."""

    key_id: KeyId
    key: SecretBytes
