"""The key store on SQLite: one writer thread, group commit, durable before any answer (invariant I3).

One thread owns the connection. It takes all works that are waiting, runs each inside a savepoint of one
transaction, commits with ``synchronous=FULL``, and only then lets their results go. A work that raises
undoes itself alone. Another process (``openqci sae enrol``) may write records to the same file.

What erasing means here: spent bytes leave their row in the transaction that hands them out;
``secure_delete`` overwrites the freed pages with zeros; the write-ahead log, which still holds the old
sealed pages, is truncated at checkpoints (when idle and at close). What remains in a file system's or a
disk's own copies is sealed under the key-encryption key: destroying the ``kek`` file destroys them all.
"""

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from openqci.core.errors import ConfigurationError, Fault, OpenQCIError, invariant
from openqci.core.identifiers import KmeId, StreamId
from openqci.crypto.sealing import Sealer
from openqci.keystore.ledger import SEGMENT_BYTES, KeyLedger, Segment, StreamRow

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
APPLICATION_ID = 0x4F514349  # "OQCI"

WORKS_QUEUED_MAX = 20_000
"""Works that may wait; a caller beyond that is told at once that the store is overloaded."""

WORKS_PER_COMMIT_MAX = 256
GROUP_TIME_S_MAX = 0.02
"""A group is committed after this long even if more works wait, so that the first need not wait for all."""

BUSY_TIMEOUT_S = 10.0
CHECKPOINT_EVERY_S = 30.0

START_BITS = 38
"""A segment's row number is the stream's number and the start in one integer: ranges are row ranges."""

SCHEMA = """
CREATE TABLE stream (
    number INTEGER PRIMARY KEY, kme TEXT NOT NULL, name TEXT NOT NULL, end INTEGER NOT NULL,
    stock INTEGER NOT NULL, UNIQUE (kme, name)
);
CREATE TABLE segment (place INTEGER PRIMARY KEY, length INTEGER NOT NULL, sealed BLOB NOT NULL);
CREATE TABLE record (
    kme TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (kme, kind, key)
) WITHOUT ROWID;
"""

Result = TypeVar("Result")


class StoreUnavailable(OpenQCIError):
    """The store could not make a work durable: full disk, I/O error, overload. Nothing of it happened."""


class SqliteRows:
    """Rows of the ledger in SQLite. Stream rows are cached: this process alone writes them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._cache: dict[tuple[KmeId, StreamId], StreamRow] = {}

    def forget_cache(self) -> None:
        """Drop what was cached, because a savepoint was rolled back."""
        self._cache.clear()

    def stream(self, kme: KmeId, stream: StreamId) -> StreamRow | None:
        row = self._cache.get((kme, stream))
        if row is None:
            found = self._connection.execute(
                "SELECT number, end, stock FROM stream WHERE kme = ? AND name = ?", (kme, stream)
            ).fetchone()
            if found is None:
                return None
            row = self._cache[kme, stream] = StreamRow(*found)
        return row

    def put_stream(self, kme: KmeId, stream: StreamId, end: int, stock: int) -> StreamRow:
        old = self.stream(kme, stream)
        if old is None:
            cursor = self._connection.execute(
                "INSERT INTO stream (kme, name, end, stock) VALUES (?, ?, ?, ?)", (kme, stream, end, stock)
            )
            number = cursor.lastrowid
            invariant(number is not None, "an inserted row has a number")
            row = StreamRow(int(number or 0), end, stock)
        else:
            invariant(end >= old.end, "the end of a stream never goes back")
            row = StreamRow(old.number, end, stock)
            self._connection.execute(
                "UPDATE stream SET end = ?, stock = ? WHERE number = ?", (end, stock, old.number)
            )
        self._cache[kme, stream] = row
        return row

    def overlapping(self, number: int, start: int, end: int) -> Sequence[Segment]:
        base = number << START_BITS
        rows = self._connection.execute(
            "SELECT place, length, sealed FROM segment WHERE place > ? AND place < ? ORDER BY place",
            (base + max(-1, start - SEGMENT_BYTES), base + end),
        )
        segments = (Segment(place - base, length, sealed) for place, length, sealed in rows)
        return [segment for segment in segments if segment.end > start]

    def first(self, number: int, limit: int) -> Sequence[tuple[int, int]]:
        base = number << START_BITS
        rows = self._connection.execute(
            "SELECT place - ?, length FROM segment WHERE place >= ? AND place < ? ORDER BY place LIMIT ?",
            (base, base, base + (1 << START_BITS), limit),
        )
        return rows.fetchall()

    def add(self, number: int, segment: Segment) -> None:
        invariant(segment.end < 1 << START_BITS, "a stream's offsets fit its row numbers")
        self._connection.execute(
            "INSERT INTO segment (place, length, sealed) VALUES (?, ?, ?)",
            ((number << START_BITS) + segment.start, segment.length, segment.sealed),
        )

    def remove(self, number: int, start: int) -> None:
        self._connection.execute("DELETE FROM segment WHERE place = ?", ((number << START_BITS) + start,))

    def remove_all(self, number: int) -> None:
        base = number << START_BITS
        self._connection.execute(
            "DELETE FROM segment WHERE place >= ? AND place < ?", (base, base + (1 << START_BITS))
        )

    def streams(self, kme: KmeId, prefix: str) -> Iterator[tuple[StreamId, int]]:
        rows = self._connection.execute(
            "SELECT name, stock FROM stream WHERE kme = ? AND name >= ? AND name < ? ORDER BY name",
            (kme, prefix, after_prefix(prefix)),
        )
        return iter([(StreamId(name), stock) for name, stock in rows])


class SqliteTransaction(KeyLedger):
    """The verbs of :class:`openqci.keystore.ports.StoreTransaction` inside the writer's transaction."""

    def __init__(self, rows: SqliteRows, sealer: Sealer, connection: sqlite3.Connection) -> None:
        super().__init__(rows, sealer)
        self._connection = connection

    def put_record(self, kme: KmeId, kind: str, key: str, body: bytes) -> None:
        self._connection.execute(
            "INSERT INTO record (kme, kind, key, body) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (kme, kind, key) DO UPDATE SET body = excluded.body",
            (kme, kind, key, body),
        )

    def record(self, kme: KmeId, kind: str, key: str) -> bytes | None:
        row = self._connection.execute(
            "SELECT body FROM record WHERE kme = ? AND kind = ? AND key = ?", (kme, kind, key)
        ).fetchone()
        return row[0] if row else None

    def records(self, kme: KmeId, kind: str, prefix: str = "") -> Iterator[tuple[str, bytes]]:
        rows = self._connection.execute(
            "SELECT key, body FROM record WHERE kme = ? AND kind = ? AND key >= ? AND key < ? ORDER BY key",
            (kme, kind, prefix, after_prefix(prefix)),
        )
        return iter(rows.fetchall())

    def drop_record(self, kme: KmeId, kind: str, key: str) -> bool:
        cursor = self._connection.execute(
            "DELETE FROM record WHERE kme = ? AND kind = ? AND key = ?", (kme, kind, key)
        )
        return cursor.rowcount > 0


@dataclass
class Work(Generic[Result]):
    """One caller's work and where its result goes."""

    run: Callable[[SqliteTransaction], Result]
    future: "Future[Result]"


class SqliteKeyStore:
    """A durable key store. Make one with :meth:`open`."""

    def __init__(self, connection: sqlite3.Connection, kek: bytes) -> None:
        self._connection = connection
        self._rows = SqliteRows(connection)
        self._transaction = SqliteTransaction(self._rows, Sealer(kek), connection)
        self._works: queue.Queue[Work[Any] | None] = queue.Queue(WORKS_QUEUED_MAX)
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="key-store", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, path: Path, kek: bytes) -> Self:
        """Open the store at ``path``, making it if it is not there.

        Raises ConfigurationError for a file that is no store, or of another version.
        """
        try:
            connection = sqlite3.connect(
                path,
                timeout=BUSY_TIMEOUT_S,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=64,
            )
            connection.execute("PRAGMA secure_delete = ON")
            check_or_make_schema(connection, path)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA wal_autocheckpoint = 4000")
            connection.execute("PRAGMA cache_size = -65536")
        except sqlite3.Error as error:
            raise ConfigurationError(
                Fault(str(path), "", f"cannot be opened as a key store ({error}); is it another file?")
            ) from error
        return cls(connection, kek)

    def submit(self, work: Callable[[SqliteTransaction], Result]) -> "Future[Result]":
        """Queue ``work``; its future resolves when what it did is durable, or with what it raised."""
        future: Future[Result] = Future()
        if self._closing:
            raise StoreUnavailable("the key store is closed")
        try:
            self._works.put_nowait(Work(work, future))
        except queue.Full:
            raise StoreUnavailable(
                f"the key store is overloaded: {WORKS_QUEUED_MAX} works are waiting"
            ) from None
        return future

    async def run(self, work: Callable[[SqliteTransaction], Result]) -> Result:
        """Do ``work`` durably from a coroutine."""
        return await asyncio.wrap_future(self.submit(work))

    def close(self) -> None:
        """Do what is queued, truncate the log, close the file."""
        if not self._closing:
            self._closing = True
            self._works.put(None)
            self._thread.join()

    def _serve(self) -> None:
        last_checkpoint_s = time.monotonic()
        open_for_work = True
        while open_for_work:
            try:
                first = self._works.get(timeout=CHECKPOINT_EVERY_S)
            except queue.Empty:
                first = None
                last_checkpoint_s = -CHECKPOINT_EVERY_S
            else:
                open_for_work = first is not None
            if first is not None:
                open_for_work = self._commit_group(first)
            if time.monotonic() - last_checkpoint_s > CHECKPOINT_EVERY_S:
                self._checkpoint()
                last_checkpoint_s = time.monotonic()
        self._checkpoint()
        self._connection.close()

    def _commit_group(self, first: Work[Any]) -> bool:
        """Run the waiting works in one transaction and commit it; return False when told to close."""
        done: list[tuple[Work[Any], Any]] = []
        go_on = True
        work: Work[Any] | None = first
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            group_ends_s = time.monotonic() + GROUP_TIME_S_MAX
            while work is not None:
                self._run_one(work, done)
                if len(done) >= WORKS_PER_COMMIT_MAX or time.monotonic() > group_ends_s:
                    break
                try:
                    work = self._works.get_nowait()
                except queue.Empty:
                    break
                go_on = work is not None
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._undo_group([waiting for waiting, _ in done] + ([work] if work else []), error)
            return go_on
        for finished, result in done:
            finished.future.set_result(result)
        return go_on

    def _run_one(self, work: Work[Any], done: list[tuple[Work[Any], Any]]) -> None:
        """Run one work in a savepoint; what it raises goes to its caller and undoes it alone."""
        if not work.future.set_running_or_notify_cancel():
            return
        self._connection.execute("SAVEPOINT work")
        try:
            result = work.run(self._transaction)
        except sqlite3.Error:
            raise
        except Exception as error:
            self._connection.execute("ROLLBACK TO work")
            self._connection.execute("RELEASE work")
            self._rows.forget_cache()
            work.future.set_exception(error)
        else:
            self._connection.execute("RELEASE work")
            done.append((work, result))

    def _undo_group(self, works: list[Work[Any]], error: sqlite3.Error) -> None:
        log.error("the key store could not commit: %s", error)
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._rows.forget_cache()
        for work in works:
            if not work.future.done():
                work.future.set_exception(
                    StoreUnavailable(f"the key store could not commit ({error}); try again")
                )

    def _checkpoint(self) -> None:
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            log.warning("the key store's log could not be truncated now: %s", error)


def check_or_make_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables in a new file; refuse a file that is not ours or of another version."""
    application, version = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if tables == 0:
        connection.executescript(
            f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA application_id = {APPLICATION_ID}; "
            f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )
    elif application != APPLICATION_ID:
        raise ConfigurationError(Fault(str(path), "", "is an SQLite file, but not a key store of OpenQCI"))
    elif version != SCHEMA_VERSION:
        raise ConfigurationError(
            Fault(
                str(path),
                "",
                f"has store version {version}, this program expects {SCHEMA_VERSION}: "
                "use the program that made it, or another --data-dir",
            )
        )


def after_prefix(prefix: str) -> str:
    """Return a bound above every string that starts with ``prefix``."""
    return prefix + "\U0010ffff"
