"""The key store on PostgreSQL, for sites that run one already, and for several processes on one store.

The rules are the ledger's, the groups those of :mod:`openqci.services.group_commit`; the rows are in a schema
of their own. A group holds one advisory lock for the length of its transaction, so that processes which share
a store take turns by groups and cannot deadlock. Works change memory, and what is left of the changes is
written in one statement at the group's end (:mod:`openqci.services.postgres_rows`): a round trip costs more
than most works.

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
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import uvloop

from openqci.core.errors import ConfigurationError, Fault, invariant
from openqci.core.identifiers import KmeId
from openqci.crypto.sealing import Sealer
from openqci.keystore.ledger import KeyLedger, check_opens, sealed_check
from openqci.services.group_commit import GroupCommitStore, StoreUnavailable
from openqci.services.postgres_rows import TABLES, PostgresRows

if TYPE_CHECKING:
    import asyncpg

log = logging.getLogger(__name__)

Result = TypeVar("Result")

SCHEMA_VERSION = 2
"""2 notes which kinds of rows each commit has touched; a store of version 1 is brought to it when opened."""

DEFAULT_SCHEMA = "openqci"
CONNECT_S_MAX = 10.0
COMMAND_S_MAX = 30.0
RECONNECT_S = 1.0
IDLE_IN_GROUP_S_MAX = 10.0
"""How long PostgreSQL waits for the next statement of a group, which comes within milliseconds. A process
that hangs inside of one holds the lock for which all others wait: its session is ended, its group undone."""

UNCHANGED = "SELECT 0"
"""What PostgreSQL says of a query without rows."""


class Line:
    """The writer thread's connection, on an event loop of its own; every verb waits for its answer."""

    def __init__(self, url: str, schema: str) -> None:
        self._url, self.schema = url, schema
        self._loop = uvloop.new_event_loop()
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
            # Every statement finds its rows by a primary key, also where a table was empty when the
            # statement was planned.
            "enable_seqscan": "off",
            "plan_cache_mode": "force_generic_plan",
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

    def script(self, statements: str) -> str:
        """Run several statements that take no values, in one round trip; return PostgreSQL's last word."""
        return self._wait(self._open.execute(statements))

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


class PostgresTransaction(KeyLedger):
    """The verbs of :class:`openqci.keystore.ports.StoreTransaction` over the rows of a group."""

    def __init__(self, rows: PostgresRows, sealer: Sealer) -> None:
        super().__init__(rows, sealer)
        self._postgres_rows = rows

    def put_record(self, kme: KmeId, kind: str, key: str, body: bytes) -> None:
        self._postgres_rows.put_record(kme, kind, key, body)

    def record(self, kme: KmeId, kind: str, key: str) -> bytes | None:
        return self._postgres_rows.record(kme, kind, key)

    def records(
        self, kme: KmeId, kind: str, prefix: str = "", limit: int | None = None
    ) -> Iterator[tuple[str, bytes]]:
        return self._postgres_rows.records(kme, kind, prefix, limit)

    def drop_record(self, kme: KmeId, kind: str, key: str) -> bool:
        return self._postgres_rows.drop_record(kme, kind, key)


class PostgresKeyStore(GroupCommitStore[PostgresTransaction]):
    """A durable key store in a schema of a PostgreSQL database. Make one with :meth:`open`."""

    def __init__(self, line: Line, sealer: Sealer) -> None:
        self._line = line
        self._rows = PostgresRows(line)
        self._commits_seen = -1
        self._connected_s = 0.0
        super().__init__(PostgresTransaction(self._rows, sealer))

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
        # One round trip. The last statement sees what was committed before the lock was ours, and its rows
        # are only counted.
        counted = self._line.script(
            f"BEGIN; SELECT pg_advisory_xact_lock({self._line.lock_number}); "
            f"SELECT FROM meta WHERE commits <> {self._commits_seen}"
        )
        if counted != UNCHANGED:
            self._catch_up()

    def _catch_up(self) -> None:
        """Forget what others have written since the last commit that was seen."""
        rows = self._line.rows("SELECT kind, commits FROM touched WHERE commits > $1", self._commits_seen)
        if self._commits_seen < 0:
            self._rows.forget()
        self._rows.forget_kinds(row["kind"] for row in rows)
        self._commits_seen = max((int(row["commits"]) for row in rows), default=0)

    def _commit(self) -> None:
        if self._rows.changed:
            self._rows.write()
        try:
            self._line.script("COMMIT")
        except Exception as error:
            self._line.drop()
            if self._rows.commit is None:
                raise
            raise StoreUnavailable(
                f"the connection to PostgreSQL broke during the commit ({type(error).__name__}): whether it "
                "happened is not known"
            ) from None
        if self._rows.commit is not None:
            self._commits_seen = self._rows.commit

    def _begin_work(self) -> None:
        """Nothing: until the group ends, works change memory alone."""

    def _undo_work(self) -> None:
        self._rows.undo()

    def _end_work(self) -> None:
        self._rows.keep()

    def _ends_group(self, error: BaseException) -> bool:
        import asyncpg

        if isinstance(error, asyncpg.DataError):
            return not self._still_goes()  # a value that never left this process ends its work alone
        return isinstance(error, (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError))

    def _still_goes(self) -> bool:
        """Tell whether PostgreSQL goes on with the group's transaction."""
        try:
            self._line.script("SELECT 1")
        except Exception:  # whatever it is, the transaction is no more
            return False
        return True

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
        self._rows.over()

    def _disconnect(self) -> None:
        self._line.close()


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
    elif found["version"] == 1:
        line.execute("UPDATE meta SET version = $1", SCHEMA_VERSION)
    line.script("COMMIT")
    if found is None:
        return
    if found["version"] not in (1, SCHEMA_VERSION):
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
