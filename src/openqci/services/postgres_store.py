"""The key store on PostgreSQL, for sites that run one already, and for several processes on one store.

The rules are the ledger's, the groups those of :mod:`openqci.services.group_commit`; the rows are in a schema
of their own. A group holds one advisory lock for the length of its transaction, so that processes which share
a store take turns by groups and cannot deadlock. What is cached of streams is forgotten when another process
has committed since.

``synchronous_commit`` is on: a result leaves when PostgreSQL has the group on its disk, and on that of its
synchronous standbys if it has any. If the connection breaks during the commit nobody knows whether the group
happened; the error says so. Spent bytes leave their row in the transaction that hands them out; PostgreSQL
keeps old versions of rows until a vacuum, and its own log longer: sealed, and open only with the node's
key-encryption key. It needs the extra ``postgres`` (asyncpg).
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Coroutine, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

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
from openqci.services.sqlite_store import after_prefix

if TYPE_CHECKING:
    import asyncpg

log = logging.getLogger(__name__)

Result = TypeVar("Result")

SCHEMA_VERSION = 1
DEFAULT_SCHEMA = "openqci"
CONNECT_S_MAX = 10.0
COMMAND_S_MAX = 30.0
RECONNECT_S = 1.0
IDLE_IN_GROUP_S_MAX = 10.0
"""How long PostgreSQL waits for the next statement of a group, which comes within milliseconds. A process
that hangs inside of one holds the lock for which all others wait: its session is ended, its group undone."""

STREAMS_CACHED_MAX = 65_536
SEGMENTS_READ_AT_ONCE = 16

TABLES = """
CREATE TABLE IF NOT EXISTS meta (
    version integer NOT NULL, commits bigint NOT NULL, kek_check bytea NOT NULL
);
CREATE TABLE IF NOT EXISTS stream (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kme text COLLATE "C" NOT NULL,
    name bytea NOT NULL, "end" bigint NOT NULL, stock bigint NOT NULL, UNIQUE (kme, name)
);
CREATE TABLE IF NOT EXISTS segment (
    stream bigint NOT NULL, start bigint NOT NULL, length integer NOT NULL, sealed bytea NOT NULL,
    PRIMARY KEY (stream, start)
);
CREATE TABLE IF NOT EXISTS record (
    kme text COLLATE "C" NOT NULL, kind text COLLATE "C" NOT NULL, key bytea NOT NULL,
    body bytea NOT NULL, PRIMARY KEY (kme, kind, key)
);
"""


class Line:
    """The writer thread's connection, on an event loop of its own; every verb waits for its answer."""

    def __init__(self, url: str, schema: str) -> None:
        self._url, self.schema = url, schema
        self._loop = asyncio.new_event_loop()
        self._connection: asyncpg.Connection[Any] | None = None
        # One lock per store: a schema is a store.
        self.lock_number = int.from_bytes(hashlib.sha256(schema.encode()).digest()[:8], "big", signed=True)

    def connect(self) -> None:
        """Connect anew; OSError or asyncpg's errors if that fails."""
        import asyncpg

        self.drop()
        settings = {
            "search_path": self.schema,
            "synchronous_commit": "on",
            "application_name": "openqci",
            "idle_in_transaction_session_timeout": str(round(1000 * IDLE_IN_GROUP_S_MAX)),
        }
        self._connection = self._wait(
            asyncpg.connect(
                self._url, timeout=CONNECT_S_MAX, command_timeout=COMMAND_S_MAX, server_settings=settings
            )
        )

    @property
    def is_open(self) -> bool:
        return self._connection is not None and not self._connection.is_closed()

    def execute(self, statement: str, *values: object) -> str:
        """Run a statement; return PostgreSQL's word for it, such as ``DELETE 1``."""
        return self._wait(self._open.execute(statement, *values))

    def script(self, statements: str) -> None:
        """Run several statements that take no values, in one turn."""
        self._wait(self._open.execute(statements))

    def rows(self, statement: str, *values: object) -> "list[asyncpg.Record]":
        return self._wait(self._open.fetch(statement, *values))

    def row(self, statement: str, *values: object) -> "asyncpg.Record | None":
        return self._wait(self._open.fetchrow(statement, *values))

    def drop(self) -> None:
        """Cut the connection, whatever it is in the middle of; PostgreSQL undoes that."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    def close(self) -> None:
        """Cut the connection and end the loop."""
        self.drop()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    @property
    def _open(self) -> "asyncpg.Connection[Any]":
        if self._connection is None:
            raise ConnectionError("not connected to PostgreSQL")
        return self._connection

    def _wait(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self._loop.run_until_complete(work)


class PostgresRows:
    """Rows of the ledger in PostgreSQL. Stream rows are cached, and what a work changed can be undone."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._cache: dict[tuple[KmeId, StreamId], StreamRow] = {}
        self._before: dict[tuple[KmeId, StreamId], StreamRow | None] = {}
        self.changed = False

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
        """Keep the cache within its bound."""
        if len(self._cache) > STREAMS_CACHED_MAX:
            self._cache.clear()

    def stream(self, kme: KmeId, stream: StreamId) -> StreamRow | None:
        row = self._cache.get((kme, stream))
        if row is None:
            found = self._line.row(
                'SELECT number, "end", stock FROM stream WHERE kme = $1 AND name = $2', kme, stream.encode()
            )
            if found is None:
                return None
            row = self._cache[kme, stream] = StreamRow(*found)
        return row

    def put_stream(self, kme: KmeId, stream: StreamId, end: int, stock: int) -> StreamRow:
        old = self.stream(kme, stream)
        self.changed = True
        if old is None:
            made = self._line.row(
                'INSERT INTO stream (kme, name, "end", stock) VALUES ($1, $2, $3, $4) RETURNING number',
                kme,
                stream.encode(),
                end,
                stock,
            )
            row = StreamRow(int(made["number"]) if made else 0, end, stock)
        else:
            invariant(end >= old.end, "the end of a stream never goes back")
            row = StreamRow(old.number, end, stock)
            self._line.execute(
                'UPDATE stream SET "end" = $1, stock = $2 WHERE number = $3', end, stock, old.number
            )
        self._before.setdefault((kme, stream), old)
        self._cache[kme, stream] = row
        return row

    def overlapping(self, number: int, start: int, end: int) -> Generator[Segment]:
        after = start - SEGMENT_BYTES
        while True:
            found = self._line.rows(
                "SELECT start, length, sealed FROM segment WHERE stream = $1 AND start > $2 AND start < $3 "
                "ORDER BY start LIMIT $4",
                number,
                after,
                end,
                SEGMENTS_READ_AT_ONCE,
            )
            for place, length, sealed in found:
                if place + length > start:
                    yield Segment(place, length, sealed)
            if len(found) < SEGMENTS_READ_AT_ONCE:
                return
            after = found[-1]["start"]

    def extents(self, number: int) -> Iterator[tuple[int, int]]:
        rows = self._line.rows("SELECT start, length FROM segment WHERE stream = $1 ORDER BY start", number)
        return iter([(row["start"], row["length"]) for row in rows])

    def add(self, number: int, segment: Segment) -> None:
        self.changed = True
        self._line.execute(
            "INSERT INTO segment (stream, start, length, sealed) VALUES ($1, $2, $3, $4)", number, *segment
        )

    def remove(self, number: int, start: int) -> None:
        self.changed = True
        self._line.execute("DELETE FROM segment WHERE stream = $1 AND start = $2", number, start)

    def remove_all(self, number: int) -> None:
        self.changed = True
        self._line.execute("DELETE FROM segment WHERE stream = $1", number)

    def streams(self, kme: KmeId, prefix: str) -> Iterator[tuple[StreamId, int]]:
        rows = self._line.rows(
            "SELECT name, stock FROM stream WHERE kme = $1 AND name >= $2 AND ($3 = ''::bytea OR name < $3) "
            "ORDER BY name",
            kme,
            *prefix_bounds(prefix),
        )
        return iter([(StreamId(bytes(row["name"]).decode()), row["stock"]) for row in rows])

    def segments_after(self, number: int, start: int, limit: int) -> list[PlacedSegment]:
        rows = self._line.rows(
            "SELECT s.kme, s.name, s.number, g.start, g.length, g.sealed FROM segment g "
            "JOIN stream s ON s.number = g.stream WHERE (g.stream, g.start) > ($1, $2) "
            "ORDER BY g.stream, g.start LIMIT $3",
            number,
            start,
            limit,
        )
        return [
            PlacedSegment(
                KmeId(row["kme"]),
                StreamId(bytes(row["name"]).decode()),
                row["number"],
                Segment(row["start"], row["length"], bytes(row["sealed"])),
            )
            for row in rows
        ]

    def put_check(self, sealed: bytes) -> None:
        self.changed = True
        self._line.execute("UPDATE meta SET kek_check = $1", sealed)


class PostgresTransaction(KeyLedger):
    """The verbs of :class:`openqci.keystore.ports.StoreTransaction` inside the writer's transaction."""

    def __init__(self, rows: PostgresRows, sealer: Sealer, line: Line) -> None:
        super().__init__(rows, sealer)
        self._postgres_rows, self._line = rows, line

    def put_record(self, kme: KmeId, kind: str, key: str, body: bytes) -> None:
        self._postgres_rows.changed = True
        self._line.execute(
            "INSERT INTO record (kme, kind, key, body) VALUES ($1, $2, $3, $4) "
            "ON CONFLICT (kme, kind, key) DO UPDATE SET body = excluded.body",
            kme,
            kind,
            key.encode(),
            body,
        )

    def record(self, kme: KmeId, kind: str, key: str) -> bytes | None:
        row = self._line.row(
            "SELECT body FROM record WHERE kme = $1 AND kind = $2 AND key = $3", kme, kind, key.encode()
        )
        return bytes(row["body"]) if row else None

    def records(
        self, kme: KmeId, kind: str, prefix: str = "", limit: int | None = None
    ) -> Iterator[tuple[str, bytes]]:
        rows = self._line.rows(
            "SELECT key, body FROM record WHERE kme = $1 AND kind = $2 AND key >= $3 "
            "AND ($4 = ''::bytea OR key < $4) ORDER BY key LIMIT $5",
            kme,
            kind,
            *prefix_bounds(prefix),
            limit,
        )
        return iter([(bytes(row["key"]).decode(), bytes(row["body"])) for row in rows])

    def drop_record(self, kme: KmeId, kind: str, key: str) -> bool:
        self._postgres_rows.changed = True
        done = self._line.execute(
            "DELETE FROM record WHERE kme = $1 AND kind = $2 AND key = $3", kme, kind, key.encode()
        )
        return done != "DELETE 0"


class PostgresKeyStore(GroupCommitStore[PostgresTransaction]):
    """A durable key store in a schema of a PostgreSQL database. Make one with :meth:`open`."""

    def __init__(self, line: Line, sealer: Sealer) -> None:
        self._line = line
        self._rows = PostgresRows(line)
        self._commits_seen = -1
        self._connected_s = 0.0
        super().__init__(PostgresTransaction(self._rows, sealer, line))

    @classmethod
    def open(cls, url: str, kek: bytes | Sealer, schema: str = DEFAULT_SCHEMA) -> Self:
        """Open the store in ``schema`` of the database at ``url``, making it if it is not there.

        Raises ConfigurationError if the extra is missing, the database cannot be reached, or the store is of
        another version or sealed under another KEK. The message never holds the URL, which has a password.
        """
        try:
            import asyncpg
        except ImportError:
            raise ConfigurationError(
                "a store on PostgreSQL needs asyncpg: pip install 'openqci[postgres]'"
            ) from None
        sealer = kek if isinstance(kek, Sealer) else Sealer(kek)
        line = Line(url, schema)

        def connect_and_set_up() -> None:
            line.connect()
            set_up(line, sealer)

        try:
            off_loop(connect_and_set_up)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
            off_loop(line.close)
            raise ConfigurationError(
                Fault("PostgreSQL", "", f"cannot be used as a key store ({type(error).__name__}: {error})")
            ) from None
        except ConfigurationError:
            off_loop(line.close)
            raise
        return cls(line, sealer)

    def _begin(self) -> None:
        """Begin the group's transaction when it is this process's turn."""
        if not self._line.is_open:
            wait_s = self._connected_s + RECONNECT_S - time.monotonic()
            if wait_s > 0:
                raise ConnectionError("the connection to PostgreSQL is lost")
            self._connected_s = time.monotonic()
            self._line.connect()
            self._rows.forget()
        self._line.script(f"BEGIN; SELECT pg_advisory_xact_lock({self._line.lock_number})")
        row = self._line.row("SELECT commits FROM meta")
        commits = int(row["commits"]) if row else -1
        if commits != self._commits_seen:
            self._rows.forget()
            self._commits_seen = commits
        self._rows.changed = False

    def _commit(self) -> None:
        if self._rows.changed:
            self._line.execute("UPDATE meta SET commits = commits + 1")
        try:
            self._line.script("COMMIT")
        except Exception as error:
            self._line.drop()
            if not self._rows.changed:
                raise
            raise StoreUnavailable(
                f"the connection to PostgreSQL broke during the commit ({type(error).__name__}): whether it "
                "happened is not known"
            ) from None
        if self._rows.changed:
            self._commits_seen += 1

    def _begin_work(self) -> None:
        self._line.script("SAVEPOINT work")

    def _undo_work(self) -> None:
        self._line.script("ROLLBACK TO SAVEPOINT work")
        self._rows.undo()

    def _end_work(self) -> None:
        self._line.script("RELEASE SAVEPOINT work")
        self._rows.keep()

    def _ends_group(self, error: BaseException) -> bool:
        import asyncpg

        if isinstance(error, (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)):
            return False
        return isinstance(error, (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError))

    def _roll_back(self) -> None:
        self._rows.forget()
        self._commits_seen = -1
        try:
            if self._line.is_open:
                self._line.script("ROLLBACK")
        except Exception as second:  # a line that cannot undo is cut: PostgreSQL undoes then
            log.error("PostgreSQL could not roll back: %s", second)
            self._line.drop()

    def _group_over(self) -> None:
        self._rows.shrink()

    def _disconnect(self) -> None:
        self._line.close()


def prefix_bounds(prefix: str) -> tuple[bytes, bytes]:
    """Return the least name with a prefix and a bound above all; an empty bound is none.

    Names are kept as the bytes of their UTF-8 form: PostgreSQL's text cannot hold a zero character.
    """
    above = after_prefix(prefix)
    return prefix.encode(), above.encode() if isinstance(above, str) else above


def set_up(line: Line, sealer: Sealer) -> None:
    """Make the schema of a new store, or check that it is ours and sealed under this KEK."""
    schema = line.schema
    invariant(schema.isidentifier() and schema.islower(), "a schema's name is a plain word")
    line.script(f"BEGIN; SELECT pg_advisory_xact_lock({line.lock_number})")
    line.script(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    line.script(TABLES)
    found = line.row("SELECT version, kek_check FROM meta")
    if found is None:
        line.execute("INSERT INTO meta VALUES ($1, 0, $2)", SCHEMA_VERSION, sealed_check(sealer))
    line.script("COMMIT")
    if found is None:
        return
    if found["version"] != SCHEMA_VERSION:
        raise ConfigurationError(
            Fault("PostgreSQL", schema, f"has store version {found['version']}, expected {SCHEMA_VERSION}")
        )
    if not check_opens(sealer, bytes(found["kek_check"])):
        raise ConfigurationError(
            Fault(
                "PostgreSQL",
                schema,
                "was sealed under another key-encryption key: put back the kek file that belongs to it, or "
                "drop the schema",
            )
        )


def read_url(file: Path) -> str:
    """Read a database's address from a file that its owner alone can read, because it holds a password."""
    try:
        if file.stat().st_mode & 0o077:
            raise ConfigurationError(Fault(str(file), "", "can be read by others; expected mode 0600"))
        url = file.read_text("utf-8").strip()
    except OSError as error:
        raise ConfigurationError(Fault(str(file), "", f"cannot be read ({error.strerror})")) from None
    if not url.startswith(("postgresql://", "postgres://")):
        raise ConfigurationError(Fault(str(file), "", "is no address postgresql://..."))
    return url


def erase(url: str, schema: str = DEFAULT_SCHEMA) -> None:
    """Drop a store's schema with all that is in it."""
    line = Line(url, schema)

    def drop() -> None:
        try:
            line.connect()
            line.script(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        finally:
            line.close()

    off_loop(drop)


def off_loop(work: Callable[[], None]) -> None:
    """Do a work in a thread of its own, and wait: the caller's may have a running event loop."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(work).result()
