"""What the battery needs of a store: one to run work in, and the same one opened again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from openqci.core.identifiers import KmeId, StreamId
from openqci.core.keys import SecretBytes
from openqci.keystore.memory import MemoryKeyStore
from openqci.keystore.ports import StoreTransaction
from openqci.services.postgres_store import PostgresKeyStore
from openqci.services.sqlite_store import SqliteKeyStore
from tests.keystore.postgres import new_schema, server_url

KEK = bytes(range(32))
LISBON, WARSAW = KmeId("kme-pt-lisbon"), KmeId("kme-pl-warsaw")
LINK = StreamId("link/a--b/a")

Result = TypeVar("Result")


class Store(Protocol):
    """What the battery uses of a key store."""

    def submit(self, work: Callable[[Any], Any]) -> Any: ...

    def close(self) -> None: ...


@contextmanager
def memory_store(folder: Path) -> Iterator[Store]:
    yield MemoryKeyStore(KEK)


@contextmanager
def sqlite_store(folder: Path) -> Iterator[Store]:
    store = SqliteKeyStore.open(folder / "store.sqlite", KEK)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def postgres_store(folder: Path) -> Iterator[Store]:
    store = PostgresKeyStore.open(server_url(), KEK, new_schema())
    try:
        yield store
    finally:
        store.close()


def do(store: Store, work: Callable[[StoreTransaction], Result]) -> Result:
    """Run a work and return its result, or raise what it raised."""
    result: Result = store.submit(work).result(timeout=20)
    return result


def append(store: Store, key: bytes, *, kme: KmeId = LISBON, stream: StreamId = LINK) -> int:
    return do(store, lambda tx: tx.append(kme, stream, SecretBytes(key))).offset_bytes


def take(store: Store, offset: int, length: int, *, kme: KmeId = LISBON, stream: StreamId = LINK) -> bytes:
    return bytes(do(store, lambda tx: tx.take(kme, stream, offset, length)).reveal())


def take_next(
    store: Store, length: int, *, kme: KmeId = LISBON, stream: StreamId = LINK
) -> tuple[int, bytes]:
    offset, key = do(store, lambda tx: tx.take_next(kme, stream, length))
    return offset, bytes(key.reveal())


def stock(store: Store, *, kme: KmeId = LISBON, stream: StreamId = LINK) -> int:
    return do(store, lambda tx: tx.stock_bytes(kme, stream))


def pattern(length: int, seed: int = 0) -> bytes:
    """Return bytes that show where they come from: any eight of them occur once."""
    return b"".join((index * 8 + (seed << 40)).to_bytes(8, "big") for index in range(length // 8 + 1))[
        :length
    ]
