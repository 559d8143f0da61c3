"""The key store on SQLite: one writer thread, group commit, durable before any answer (invariant I3).

One thread owns the connection and commits works in groups (:mod:`openqci.services.group_commit`), with
``synchronous=FULL``.

Another process (``openqci sae enrol``) may open the same file and write *records*: the write-ahead log, a
busy timeout and ``BEGIN IMMEDIATE`` keep the two apart. Streams have one writing process, the one that holds
the data directory's lock; should another have written, what is cached here is forgotten.

What erasing means here: spent bytes leave their row in the transaction that hands them out;
``secure_delete`` overwrites what is freed inside the file with zeros; the write-ahead log, which still holds
the old sealed pages, is truncated at checkpoints (every half minute and at close). File systems and disks
may keep older copies of either file: they are sealed, and open to whoever holds them and their root key too.
A node renews its root keys and destroys the old ones (:mod:`openqci.services.keyring`), after which such
copies open to nobody. What is not promised: that one spent key is unreadable in a copy before that. Stream
names, offsets, lengths and records are not secret and not sealed.

If a commit fails (full disk, I/O error) every work of the group fails with :class:`StoreUnavailable`, and
this process goes on as if it had not run. After a failed *flush* a crash may yet bring the group back, as in
every database: then key was spent, or appended, that nobody was told of.

Rules of the ledger: ``openqci.keystore.ledger``. Why ranges and not rows:
``docs/decisions/0001-key-streams-not-key-rows.md``
"""

import asyncio
import logging
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, TypeVar

from openqci.core.errors import ConfigurationError, Fault, invariant
from openqci.core.identifiers import KmeId, StreamId
from openqci.crypto.sealing import Sealer
from openqci.keystore.ledger import (
    SEGMENT_BYTES,
    KeyLedger,
    PlacedSegment,
    Segment,
    StreamRow,
    check_opens,
    sealed_check,
)
from openqci.services.group_commit import GroupCommitStore, StoreUnavailable

log = logging.getLogger(__name__)

Result = TypeVar("Result")

SCHEMA_VERSION = 2
APPLICATION_ID = 0x4F514349  # "OQCI"

BUSY_TIMEOUT_S = 10.0
"""Longest wait for another process that writes."""

BUSY_LOOK_S = 0.002
"""How often the writer looks whether the other process is done. SQLite's own waiting looks ten times a second
in the end, which may miss every gap between the groups of a busy network."""

CHECKPOINT_BUSY_MS = 100
"""A checkpoint that would have to wait longer for another process's reading is left to the next time."""

LOG_PAGES_MAX = 4000
"""Pages of 4 KiB in the write-ahead log before a commit copies them into the file."""

CACHE_KIB = 4_096
"""Pages that SQLite keeps in memory beside those of the system: more only makes a process grow for longer."""
STREAMS_CACHED_MAX = 65_536
"""Stream rows kept in memory; the streams of spent batches pile up and must not."""

START_BITS = 38
"""A segment's row number is the stream's number and the start in one integer: ranges are row ranges.

So a stream ends at 256 GiB (25 days at 1 Mbit/s, 70 years at 1 kbit/s), and a store holds 33 million streams.
"""

NUMBER_BITS = 63 - START_BITS

SCHEMA = """
CREATE TABLE stream (
    number INTEGER PRIMARY KEY, kme TEXT NOT NULL, name TEXT NOT NULL, end INTEGER NOT NULL,
    stock INTEGER NOT NULL, UNIQUE (kme, name)
);
CREATE TABLE segment (place INTEGER PRIMARY KEY, length INTEGER NOT NULL, sealed BLOB NOT NULL);
CREATE TABLE record (
    kme TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (kme, kind, key)
) WITHOUT ROWID;
CREATE TABLE kek_check (sealed BLOB NOT NULL);
"""


class SqliteRows:
    """Rows of the ledger in SQLite. Stream rows are cached, and what a work changed of them can be undone."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._cache: dict[tuple[KmeId, StreamId], StreamRow] = {}
        self._before: dict[tuple[KmeId, StreamId], StreamRow | None] = {}

    def keep(self) -> None:
        """A work ended well: what it changed in the cache stays."""
        self._before.clear()

    def undo(self) -> None:
        """A work was rolled back: bring back what was cached before it."""
        for place, row in self._before.items():
            if row is None:
                self._cache.pop(place, None)
            else:
                self._cache[place] = row
        self._before.clear()

    def forget(self) -> None:
        """Drop the cache: a group was rolled back, or another process has written."""
        self._cache.clear()
        self._before.clear()

    def shrink(self) -> None:
        """Keep the cache within its bound; called between groups."""
        if len(self._cache) > STREAMS_CACHED_MAX:
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
            number = int(cursor.lastrowid or 0)
            invariant(0 < number < 1 << NUMBER_BITS, "a stream's number fits its segments' row numbers")
            row = StreamRow(number, end, stock)
        else:
            invariant(end >= old.end, "the end of a stream never goes back")
            row = StreamRow(old.number, end, stock)
            self._connection.execute(
                "UPDATE stream SET end = ?, stock = ? WHERE number = ?", (end, stock, old.number)
            )
        self._before.setdefault((kme, stream), old)
        self._cache[kme, stream] = row
        return row

    def overlapping(self, number: int, start: int, end: int) -> Generator[Segment]:
        base = number << START_BITS
        cursor = self._connection.execute(
            # CAST, so that a row of another type, which SQLite allows, fails to open like any tampered one.
            "SELECT place, CAST(length AS INTEGER), CAST(sealed AS BLOB) FROM segment "
            "WHERE place > ? AND place < ? ORDER BY place",
            (base + max(-1, start - SEGMENT_BYTES), base + end),
        )
        try:
            for place, length, sealed in cursor:
                if place - base + length > start:
                    yield Segment(place - base, length, sealed)
        finally:
            cursor.close()

    def extents(self, number: int) -> Iterator[tuple[int, int]]:
        base = number << START_BITS
        rows = self._connection.execute(
            "SELECT place - ?, length FROM segment WHERE place >= ? AND place < ? ORDER BY place",
            (base, base, base + (1 << START_BITS)),
        )
        return iter(rows.fetchall())

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

    def segments_after(self, number: int, start: int, limit: int) -> list[PlacedSegment]:
        rows = self._connection.execute(
            "SELECT s.kme, s.name, s.number, g.place, g.length, g.sealed FROM segment g "
            "JOIN stream s ON s.number = g.place >> ? WHERE g.place > ? ORDER BY g.place LIMIT ?",
            (START_BITS, (number << START_BITS) + start, limit),
        )
        return [
            PlacedSegment(KmeId(kme), StreamId(name), at, Segment(place - (at << START_BITS), length, sealed))
            for kme, name, at, place, length, sealed in rows.fetchall()
        ]

    def put_check(self, sealed: bytes) -> None:
        self._connection.execute("UPDATE kek_check SET sealed = ?", (sealed,))


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

    def records(
        self, kme: KmeId, kind: str, prefix: str = "", limit: int | None = None
    ) -> Iterator[tuple[str, bytes]]:
        rows = self._connection.execute(
            "SELECT key, body FROM record WHERE kme = ? AND kind = ? AND key >= ? AND key < ? ORDER BY key "
            "LIMIT ?",
            (kme, kind, prefix, after_prefix(prefix), -1 if limit is None else limit),
        )
        return iter(rows.fetchall())

    def drop_record(self, kme: KmeId, kind: str, key: str) -> bool:
        cursor = self._connection.execute(
            "DELETE FROM record WHERE kme = ? AND kind = ? AND key = ?", (kme, kind, key)
        )
        return cursor.rowcount > 0


class SqliteKeyStore(GroupCommitStore[SqliteTransaction]):
    """A durable key store. Make one with :meth:`open`."""

    def __init__(self, connection: sqlite3.Connection, sealer: Sealer, path: Path) -> None:
        self._connection, self._path, self._sealer = connection, path, sealer
        self._reader: sqlite3.Connection | None = None
        self._readers = ThreadPoolExecutor(1, "key-store-reader")
        self._rows = SqliteRows(connection)
        self._version_seen = -1
        super().__init__(SqliteTransaction(self._rows, sealer, connection))

    @classmethod
    def open(cls, path: Path, kek: bytes | Sealer) -> Self:
        """Open the store at ``path``, making it if it is not there, with one root key or a sealer of several.

        Raises ConfigurationError for a file that is no store, of another version, or sealed under another
        KEK.
        """
        sealer = kek if isinstance(kek, Sealer) else Sealer(kek)
        return cls(connect(path, sealer), sealer, path)

    def _begin(self) -> None:
        """Begin the group's transaction, waiting for another process that writes."""
        give_up_s = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                break
            except sqlite3.OperationalError as error:
                busy = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > give_up_s:
                    raise
                time.sleep(BUSY_LOOK_S)
        # Changes only when another connection has committed (sqlite.org/pragma.html#pragma_data_version).
        version = self._connection.execute("PRAGMA data_version").fetchone()[0]
        if version != self._version_seen:
            self._rows.forget()
            self._version_seen = version

    def _commit(self) -> None:
        self._connection.execute("COMMIT")

    def _begin_work(self) -> None:
        self._connection.execute("SAVEPOINT work")

    def _undo_work(self) -> None:
        self._connection.execute("ROLLBACK TO work")
        self._rows.undo()

    def _end_work(self) -> None:
        self._connection.execute("RELEASE work")
        self._rows.keep()

    def _ends_group(self, error: BaseException) -> bool:
        return isinstance(error, sqlite3.Error) and not isinstance(error, FAULTS_OF_ONE_WORK)

    def _roll_back(self) -> None:
        self._rows.forget()
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as second:
            log.error("the key store could not roll back: %s", second)

    def _group_over(self) -> None:
        self._rows.shrink()

    def _rest(self) -> None:
        """Move the log into the file and truncate it, unless another process reads just now."""
        try:
            self._connection.execute(f"PRAGMA busy_timeout = {CHECKPOINT_BUSY_MS}")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._connection.execute("PRAGMA busy_timeout = 0")
        except sqlite3.Error as error:
            log.warning("the key store's log could not be truncated now: %s", error)

    def _disconnect(self) -> None:
        self._connection.close()

    async def read(self, work: Callable[[SqliteTransaction], Result]) -> Result:
        """Look at what is durable now, on a connection and a thread for reading: it waits for no commit."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._readers, self._read_now, work)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the key store could not be read ({error})") from None
        except RuntimeError:  # of the executor, which was shut down
            raise StoreUnavailable("the key store is closed") from None

    def close(self) -> None:
        """Do what is queued, then let the file go."""
        self._readers.shutdown()
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        super().close()

    def _read_now(self, work: Callable[[SqliteTransaction], Result]) -> Result:
        if self._reader is None:
            self._reader = sqlite3.connect(
                self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            self._reader.execute("PRAGMA query_only = ON")
        # Rows are cached for one look alone: between two the writer has gone on.
        transaction = SqliteTransaction(SqliteRows(self._reader), self._sealer, self._reader)
        self._reader.execute("BEGIN")
        try:
            return work(transaction)
        finally:
            self._reader.execute("ROLLBACK")


FAULTS_OF_ONE_WORK = (
    sqlite3.ProgrammingError,
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
)
"""SQLite errors that a work brings on itself, such as a value that cannot be stored. All others are the
disk's or the file's, and end the group."""


BUSY_CODES = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_BUSY_RECOVERY,
    sqlite3.SQLITE_BUSY_SNAPSHOT,
    sqlite3.SQLITE_LOCKED,
)


def connect(path: Path, sealer: Sealer) -> sqlite3.Connection:
    """Return a connection to the store at ``path``, made if it is not there, checked if it is."""
    connection = None
    try:
        # Made by us and not by SQLite, so that it is its owner's alone; -wal and -shm take its mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(
            path,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=64,
        )
        set_up_in_turn(connection, path, sealer)
    except (OSError, sqlite3.Error) as error:
        if connection is not None:
            connection.close()
        raise ConfigurationError(
            Fault(str(path), "", f"cannot be opened as a key store ({error}); choose another --data-dir")
        ) from error
    except ConfigurationError:
        if connection is not None:
            connection.close()
        raise
    return connection


def set_up_in_turn(connection: sqlite3.Connection, path: Path, sealer: Sealer) -> None:
    """Set the connection up; again for a while if another process is doing the same to a new file.

    SQLite's own waiting does not cover the change to the write-ahead log.
    """
    give_up_s = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            return set_up(connection, path, sealer)
        except sqlite3.OperationalError as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if error.sqlite_errorcode not in BUSY_CODES or time.monotonic() > give_up_s:
                raise
            time.sleep(BUSY_LOOK_S)


def set_up(connection: sqlite3.Connection, path: Path, sealer: Sealer) -> None:
    """Check or make the tables, then set how the connection writes."""
    connection.execute("PRAGMA secure_delete = ON")
    # One snapshot for the whole look: another process may be making the tables at this moment.
    connection.execute("BEGIN")
    check_schema(connection, path)
    connection.execute("COMMIT")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    if is_empty(connection):
        make_schema(connection, sealer)
    connection.execute("COMMIT")
    check_schema(connection, path)
    check_kek(connection, path, sealer)
    connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES_MAX}")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute("PRAGMA busy_timeout = 0")  # the writer waits by itself


def is_empty(connection: sqlite3.Connection) -> bool:
    """Return whether the file has no tables yet."""
    return bool(connection.execute("SELECT count(*) = 0 FROM sqlite_master").fetchone()[0])


def make_schema(connection: sqlite3.Connection, sealer: Sealer) -> None:
    """Make the tables of a new store, inside the caller's transaction."""
    for statement in SCHEMA.split(";"):
        connection.execute(statement)
    connection.execute("INSERT INTO kek_check VALUES (?)", (sealed_check(sealer),))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def check_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file that is not ours or of another version; an empty one may become ours."""
    application, version = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    if application == 0 and is_empty(connection):
        return
    if application != APPLICATION_ID:
        raise ConfigurationError(
            Fault(str(path), "", "is an SQLite file, but no key store of OpenQCI; choose another --data-dir")
        )
    if version != SCHEMA_VERSION:
        raise ConfigurationError(
            Fault(
                str(path),
                "",
                f"has store version {version}, this program expects {SCHEMA_VERSION}: "
                "use the program that made it, or another --data-dir",
            )
        )


def check_kek(connection: sqlite3.Connection, path: Path, sealer: Sealer) -> None:
    """Refuse a store that was sealed under another key-encryption key, before any key is missed."""
    row = connection.execute("SELECT sealed FROM kek_check").fetchone()
    if not check_opens(sealer, row[0] if row else b""):
        raise ConfigurationError(
            Fault(
                str(path),
                "",
                "was sealed under another key-encryption key: put back the kek file that belongs to it, "
                "or choose another --data-dir",
            )
        )


def after_prefix(prefix: str) -> str | bytes:
    """Return a bound above every text that starts with ``prefix``, and below every other above it.

    It is the prefix with its last character made the next one. Where there is none it is an empty blob:
    SQLite sorts every blob above every text.

    >>> after_prefix("ab"), after_prefix("")
    ('ac', b'')
    """
    stem = prefix.rstrip(chr(sys.maxunicode))
    if not stem:
        return b""
    following = ord(stem[-1]) + 1
    return stem[:-1] + chr(FIRST_AFTER_SURROGATES if following == FIRST_SURROGATE else following)


FIRST_SURROGATE, FIRST_AFTER_SURROGATES = 0xD800, 0xE000
"""Code points between these are no characters, and have no UTF-8 form."""
