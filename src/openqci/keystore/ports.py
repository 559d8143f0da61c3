"""What the stages above the store may do with it, inside one durable transaction."""

from collections.abc import Iterator
from typing import Protocol

from openqci.core.identifiers import KmeId, StreamId
from openqci.core.keys import SecretBytes, StoredRange


class StoreTransaction(Protocol):
    """All or nothing: what is done through it is durable together, or did not happen (invariant I3).

    Every call names the KME whose rooms it enters; :func:`openqci.keystore.ports.KmeView` binds it.
    """

    def append(self, kme: KmeId, stream: StreamId, key: SecretBytes) -> StoredRange:
        """Seal ``key`` and put it at the end of the stream. The stream is made if there is none."""

    def take(self, kme: KmeId, stream: StreamId, offset_bytes: int, length_bytes: int) -> SecretBytes:
        """Remove exactly this range and return it; KeyUnavailable if any byte of it is not there."""

    def take_next(self, kme: KmeId, stream: StreamId, length_bytes: int) -> tuple[int, SecretBytes]:
        """Remove the first contiguous ``length_bytes`` that are there; return their offset and bytes."""

    def stock_bytes(self, kme: KmeId, stream: StreamId) -> int:
        """Return how many bytes of the stream are there; 0 for an unknown stream."""

    def ranges(self, kme: KmeId, stream: StreamId) -> list[tuple[int, int]]:
        """Return (offset, length) in bytes of the runs of the stream that are there, in order."""

    def streams(self, kme: KmeId, prefix: str = "") -> Iterator[tuple[StreamId, int]]:
        """Return (stream, stock in bytes) of the KME's streams whose name starts with ``prefix``."""

    def destroy(self, kme: KmeId, stream: StreamId) -> int:
        """Erase the whole stream; return how many bytes were left of it."""

    def reseal(self, number: int = 0, start: int = -1) -> tuple[int, int] | None:
        """Seal the next segments behind a place under the root key in use; return where to go on, or None."""

    def put_record(self, kme: KmeId, kind: str, key: str, body: bytes) -> None:
        """Write a small document; it replaces one of the same name. Never for key material."""

    def record(self, kme: KmeId, kind: str, key: str) -> bytes | None:
        """Return a document, or None."""

    def records(
        self, kme: KmeId, kind: str, prefix: str = "", limit: int | None = None
    ) -> Iterator[tuple[str, bytes]]:
        """Return (key, body) of the documents of a kind whose key starts with ``prefix``, in order.

        At most ``limit`` of them, the first.
        """

    def drop_record(self, kme: KmeId, kind: str, key: str) -> bool:
        """Remove a document; return whether there was one."""


class KmeView:
    """One KME's own rooms inside a transaction: through it no other KME's key can be named."""

    def __init__(self, transaction: StoreTransaction, kme: KmeId) -> None:
        self._transaction = transaction
        self.kme = kme

    def append(self, stream: StreamId, key: SecretBytes) -> StoredRange:
        return self._transaction.append(self.kme, stream, key)

    def take(self, stream: StreamId, offset_bytes: int, length_bytes: int) -> SecretBytes:
        return self._transaction.take(self.kme, stream, offset_bytes, length_bytes)

    def take_next(self, stream: StreamId, length_bytes: int) -> tuple[int, SecretBytes]:
        return self._transaction.take_next(self.kme, stream, length_bytes)

    def stock_bytes(self, stream: StreamId) -> int:
        return self._transaction.stock_bytes(self.kme, stream)

    def ranges(self, stream: StreamId) -> list[tuple[int, int]]:
        return self._transaction.ranges(self.kme, stream)

    def streams(self, prefix: str = "") -> Iterator[tuple[StreamId, int]]:
        return self._transaction.streams(self.kme, prefix)

    def destroy(self, stream: StreamId) -> int:
        return self._transaction.destroy(self.kme, stream)

    def put_record(self, kind: str, key: str, body: bytes) -> None:
        self._transaction.put_record(self.kme, kind, key, body)

    def record(self, kind: str, key: str) -> bytes | None:
        return self._transaction.record(self.kme, kind, key)

    def records(self, kind: str, prefix: str = "", limit: int | None = None) -> Iterator[tuple[str, bytes]]:
        return self._transaction.records(self.kme, kind, prefix, limit)

    def drop_record(self, kind: str, key: str) -> bool:
        return self._transaction.drop_record(self.kme, kind, key)
