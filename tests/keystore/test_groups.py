"""Works in one group, and stores that take turns, against the store in memory: the same answers, whatever.

A store may run many works in one transaction, and keep in memory what they read and changed. Each work must
see all works before it and nothing of those that raised; another process's store must see it all after the
commit.
"""

import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openqci.core.identifiers import StreamId
from openqci.core.keys import SecretBytes
from openqci.keystore.memory import MemoryKeyStore
from openqci.keystore.ports import StoreTransaction
from openqci.services import postgres_rows
from openqci.services.postgres_store import PostgresKeyStore
from openqci.services.sqlite_store import SqliteKeyStore
from tests.keystore.make import KEK, LISBON, WARSAW, Store, pattern
from tests.keystore.postgres import new_schema, server_url

Work = Callable[[StoreTransaction], Any]

KMES = st.sampled_from([LISBON, WARSAW])
STREAMS = st.sampled_from([StreamId(name) for name in ("a", "a/1", "b", "\U0010ffff")])
KINDS = st.sampled_from(["x", "y"])
KEYS = st.sampled_from(["", "a", "a/1", "a/2", "ab", "b", "é", "\0", "\U0010ffff"])
PREFIXES = st.sampled_from(["", "a", "a/", "b", "\U0010ffff"])
LENGTHS = st.one_of(st.integers(1, 100), st.integers(1, 7000))


class Undone(Exception):
    """Raised at the end of a work that must leave no trace."""


def taken(key: SecretBytes) -> bytes:
    with key:
        return bytes(key.reveal())


@st.composite
def a_step(draw: st.DrawFn) -> Work:
    """Return one call of a store's transaction, whose result can be compared."""
    kme, stream, kind, key = draw(KMES), draw(STREAMS), draw(KINDS), draw(KEYS)
    length, offset, seed = draw(LENGTHS), draw(st.integers(0, 9000)), draw(st.integers(1, 1 << 20))
    prefix, limit = draw(PREFIXES), draw(st.sampled_from([None, 1, 2, 5]))
    steps: list[Work] = [
        lambda tx: tx.append(kme, stream, SecretBytes(pattern(length, seed))),
        lambda tx: tx.append(kme, stream, SecretBytes(pattern(length, seed))),
        lambda tx: taken(tx.take(kme, stream, offset, length)),
        lambda tx: (lambda at, found: (at, taken(found)))(*tx.take_next(kme, stream, length)),
        lambda tx: tx.stock_bytes(kme, stream),
        lambda tx: tx.ranges(kme, stream),
        lambda tx: list(tx.streams(kme, prefix)),
        lambda tx: tx.destroy(kme, stream),
        lambda tx: tx.put_record(kme, kind, key, pattern(length % 50, seed)),
        lambda tx: tx.put_record(kme, kind, key, pattern(length % 50, seed)),
        lambda tx: tx.record(kme, kind, key),
        lambda tx: list(tx.records(kme, kind, prefix, limit)),
        lambda tx: tx.drop_record(kme, kind, key),
    ]
    return draw(st.sampled_from(steps))


@st.composite
def a_work(draw: st.DrawFn) -> Work:
    """Return a work of several steps, which may raise at its end; or one that seals anew."""
    if draw(st.integers(0, 9)) == 0:
        return lambda tx: tx.reseal() and None
    steps, undone = draw(st.lists(a_step(), min_size=1, max_size=4)), draw(st.booleans())

    def work(tx: StoreTransaction) -> list[Any]:
        results = [step(tx) for step in steps]
        if undone:
            raise Undone(repr(results))
        return results

    return work


def outcome(future: "Future[Any]") -> Any:
    try:
        return future.result(30)
    except Exception as error:
        return type(error), str(error)


def in_one_group(store: Store, works: list[Work]) -> list[Any]:
    """Have works wait until all are there; return how each ended."""
    go_on = threading.Event()
    first = store.submit(lambda tx: go_on.wait(30))
    futures = [store.submit(work) for work in works]
    go_on.set()
    assert first.result(30)
    return [outcome(future) for future in futures]


@contextmanager
def two_on_postgres(stack: ExitStack) -> Iterator[list[Store]]:
    schema = new_schema()
    stores = [PostgresKeyStore.open(server_url(), KEK, schema) for _ in range(2)]
    yield list(stores)
    for store in stores:
        store.close()


@contextmanager
def one_on_sqlite(stack: ExitStack) -> Iterator[list[Store]]:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    store = SqliteKeyStore.open(Path(folder) / "store.sqlite", KEK)
    yield [store]
    store.close()


@pytest.mark.parametrize("stores_of", [one_on_sqlite, two_on_postgres])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(groups=st.lists(st.tuples(st.integers(0, 1), st.lists(a_work(), min_size=1, max_size=8)), max_size=6))
def test_works_in_groups_answer_like_works_in_memory(
    stores_of: Callable[[ExitStack], Any], groups: list[tuple[int, list[Work]]]
) -> None:
    memory = MemoryKeyStore(KEK)
    with ExitStack() as stack, stores_of(stack) as stores:
        for turn, works in groups:
            expected = [outcome(memory.submit(work)) for work in works]
            assert in_one_group(stores[turn % len(stores)], works) == expected


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(groups=st.lists(st.tuples(st.integers(0, 1), st.lists(a_work(), min_size=1, max_size=8)), max_size=4))
def test_a_large_group_is_written_between_its_works(
    groups: list[tuple[int, list[Work]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_rows, "UNWRITTEN_BYTES_MAX", 2_000)
    monkeypatch.setattr(postgres_rows, "SEGMENTS_READ_FIRST", 1)
    memory = MemoryKeyStore(KEK)
    with ExitStack() as stack, two_on_postgres(stack) as stores:
        for turn, works in groups:
            expected = [outcome(memory.submit(work)) for work in works]
            assert in_one_group(stores[turn], works) == expected
