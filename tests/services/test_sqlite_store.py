"""The store on disk: durable before the answer, sealed at rest, one fault to one work, safe beside others."""

import asyncio
import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openqci.core.errors import ConfigurationError, IntegrityError, KeyUnavailable
from openqci.core.identifiers import KmeId, StreamId
from openqci.core.keys import SecretBytes
from openqci.keystore.ledger import SEGMENT_BYTES
from openqci.keystore.ports import StoreTransaction
from openqci.services import group_commit, sqlite_store
from openqci.services.group_commit import StoreUnavailable
from openqci.services.sqlite_store import SqliteKeyStore
from tests.keystore.make import KEK, LINK, LISBON, append, do, pattern, stock, take, take_next


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteKeyStore]:
    opened = SqliteKeyStore.open(path, KEK)
    yield opened
    opened.close()


def put(store: SqliteKeyStore, key: str, body: bytes = b"") -> None:
    do(store, lambda tx: tx.put_record(LISBON, "kind", key, body))


def keys_of(store: SqliteKeyStore) -> list[str]:
    return [key for key, _ in do(store, lambda tx: tx.records(LISBON, "kind"))]


class Held:
    """A work that holds the writer until it is let go, so that what comes after waits and forms a group."""

    def __init__(self, store: SqliteKeyStore) -> None:
        self._go, self._begun = threading.Event(), threading.Event()
        self.future = store.submit(self._work)
        assert self._begun.wait(10)

    def _work(self, _: StoreTransaction) -> None:
        self._begun.set()
        assert self._go.wait(10)

    def let_go(self) -> None:
        self._go.set()


# Opening


def test_the_file_is_its_owners_alone(store: SqliteKeyStore, path: Path) -> None:
    put(store, "a")
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert set(modes.values()) == {0o600} and f"{path.name}-wal" in modes


def test_it_writes_through_to_the_disk(store: SqliteKeyStore) -> None:
    def settings(_: StoreTransaction) -> list[object]:
        connection = store._connection
        names = ("journal_mode", "synchronous", "secure_delete")
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert do(store, settings) == ["wal", 2, 1]


def refusal(path: Path, kek: bytes = KEK) -> str:
    with pytest.raises(ConfigurationError) as refused:
        SqliteKeyStore.open(path, kek)
    assert str(refused.value).startswith(str(path)) and "\n" not in str(refused.value)
    return str(refused.value)


def test_another_schema_version_is_refused(path: Path) -> None:
    SqliteKeyStore.open(path, KEK).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    assert "has store version 1, this program expects 2: use the program that made it" in refusal(path)


def test_somebody_elses_database_is_refused_and_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE music (title TEXT)")
    connection.close()
    before = path.read_bytes()
    assert "is an SQLite file, but no key store of OpenQCI" in refusal(path)
    assert path.read_bytes() == before


def test_what_is_no_database_is_refused(path: Path, tmp_path: Path) -> None:
    path.write_bytes(b"no database at all, " * 500)
    assert "file is not a database" in refusal(path)
    assert "Is a directory" in refusal(tmp_path)
    assert "No such file or directory" in refusal(tmp_path / "none" / "store.sqlite")


def test_another_kek_is_refused_before_any_key_is_missed(path: Path) -> None:
    SqliteKeyStore.open(path, KEK).close()
    assert "sealed under another key-encryption key: put back the kek file" in refusal(path, bytes(32))
    SqliteKeyStore.open(path, KEK).close()


def test_two_processes_may_make_the_store_at_once(path: Path) -> None:
    opened: list[SqliteKeyStore] = []
    threads = [
        threading.Thread(target=lambda: opened.append(SqliteKeyStore.open(path, KEK))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 4
    for number, store in enumerate(opened):
        put(store, str(number))
    assert keys_of(opened[0]) == ["0", "1", "2", "3"]
    for store in opened:
        store.close()


# Groups


def test_works_that_wait_are_committed_together(store: SqliteKeyStore) -> None:
    statements: list[str] = []
    do(store, lambda _: store._connection.set_trace_callback(statements.append))
    held = Held(store)
    futures = [
        store.submit(lambda tx, n=n: tx.put_record(LISBON, "kind", f"{n}", b""))  # type: ignore[misc]
        for n in range(50)
    ]
    statements.clear()
    held.let_go()
    for future in futures:
        future.result(10)
    assert statements.count("COMMIT") == 1


def test_more_works_than_a_group_holds_are_all_done(store: SqliteKeyStore) -> None:
    held = Held(store)
    works = 2 * group_commit.WORKS_PER_COMMIT_MAX + 3
    futures = [
        store.submit(lambda tx, n=n: tx.put_record(LISBON, "kind", f"{n:04}", b""))  # type: ignore[misc]
        for n in range(works)
    ]
    held.let_go()
    for future in futures:
        future.result(10)
    assert len(keys_of(store)) == works


def test_no_result_before_its_commit(store: SqliteKeyStore, path: Path) -> None:
    """What a future answers, another connection to the file can already read."""
    reader = sqlite3.connect(path)
    for number in range(50):
        put(store, str(number))
        assert reader.execute("SELECT count(*) FROM record").fetchone()[0] == number + 1
    reader.close()


def test_a_fault_in_a_group_is_its_own_works_alone(store: SqliteKeyStore) -> None:
    append(store, pattern(100))
    held = Held(store)
    before = store.submit(lambda tx: tx.take_next(LISBON, LINK, 10)[0])
    refused = store.submit(lambda tx: (tx.take_next(LISBON, LINK, 50), tx.take(LISBON, LINK, 0, 10)))
    unstorable = store.submit(lambda tx: tx.put_record(LISBON, "kind", "a", object()))  # type: ignore[arg-type]
    after = store.submit(lambda tx: tx.take_next(LISBON, LINK, 10)[0])
    held.let_go()
    assert (before.result(10), after.result(10)) == (0, 10)
    assert isinstance(refused.exception(10), KeyUnavailable)
    assert isinstance(unstorable.exception(10), sqlite3.Error)
    assert stock(store) == 80


def test_a_cancelled_work_is_not_done(store: SqliteKeyStore) -> None:
    held = Held(store)
    future = store.submit(lambda tx: tx.put_record(LISBON, "kind", "cancelled", b""))
    assert future.cancel()
    held.let_go()
    put(store, "next")
    assert keys_of(store) == ["next"]


def test_a_coroutine_waits_without_stopping_the_others(store: SqliteKeyStore) -> None:
    async def many() -> list[int]:
        runs = (store.run(lambda tx: tx.append(LISBON, LINK, SecretBytes(b"12345"))) for _ in range(20))
        return [stored.offset_bytes for stored in await asyncio.gather(*runs)]

    assert sorted(asyncio.run(many())) == list(range(0, 100, 5))


def test_reading_waits_for_no_writer_and_changes_nothing(store: SqliteKeyStore) -> None:
    append(store, b"x" * 100)
    held = Held(store)  # the writer is in the middle of a work
    assert asyncio.run(store.read(lambda tx: tx.stock_bytes(LISBON, LINK))) == 100
    with pytest.raises(StoreUnavailable, match="readonly"):
        asyncio.run(store.read(lambda tx: tx.append(LISBON, LINK, SecretBytes(b"y"))))
    held.let_go()
    append(store, b"z")
    assert asyncio.run(store.read(lambda tx: tx.stock_bytes(LISBON, LINK))) == 101
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        asyncio.run(store.read(lambda tx: tx.stock_bytes(LISBON, LINK)))


def test_the_queue_is_bounded(store: SqliteKeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(store)
    monkeypatch.setattr(group_commit, "WORKS_QUEUED_MAX", 3)
    futures = [store.submit(lambda tx: None) for _ in range(3)]
    with pytest.raises(StoreUnavailable, match="overloaded"):
        store.submit(lambda tx: None)
    held.let_go()
    for future in futures:
        future.result(10)


def test_closing_does_what_is_queued_and_refuses_the_rest(path: Path) -> None:
    store = SqliteKeyStore.open(path, KEK)
    held = Held(store)
    futures = [store.submit(lambda tx: tx.append(LISBON, LINK, SecretBytes(b"x"))) for _ in range(1000)]
    held.let_go()
    store.close()
    assert sorted(future.result(0).offset_bytes for future in futures) == list(range(1000))
    with pytest.raises(StoreUnavailable, match="closed"):
        store.submit(lambda tx: None)
    store.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_nobody_waits_for_ever_on_a_writer_that_broke(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteKeyStore.open(path, KEK)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    held = Held(store)
    waiting = store.submit(lambda tx: None)
    monkeypatch.setattr(store._rows, "shrink", lambda: [][0])
    monkeypatch.setattr(group_commit, "WORKS_PER_COMMIT_MAX", 1)
    held.let_go()
    assert isinstance(waiting.exception(10), StoreUnavailable)
    with pytest.raises(StoreUnavailable):
        store.submit(lambda tx: None)
    store.close()


def test_the_cache_of_streams_is_bounded(store: SqliteKeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_store, "STREAMS_CACHED_MAX", 10)
    for number in range(100):
        append(store, b"x", stream=StreamId(f"pair/{number}"))
    assert len(store._rows._cache) <= 11
    assert append(store, b"x", stream=StreamId("pair/0")) == 1


# When the disk fails


class FaultyConnection(sqlite3.Connection):
    """A connection that fails one statement when told to."""

    failing: str | None = None

    def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:  # type: ignore[override]
        if sql == FaultyConnection.failing:
            FaultyConnection.failing = None
            raise sqlite3.OperationalError("disk I/O error")
        return super().execute(sql, *parameters)  # type: ignore[arg-type]


@pytest.fixture
def faulty(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteKeyStore]:
    real: Callable[..., sqlite3.Connection] = sqlite3.connect
    with monkeypatch.context() as patch:
        patch.setattr(
            sqlite3, "connect", lambda *args, **named: real(*args, **named, factory=FaultyConnection)
        )
        store = SqliteKeyStore.open(path, KEK)
    yield store
    FaultyConnection.failing = None
    store.close()


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "SAVEPOINT work", "RELEASE work", "COMMIT"])
def test_a_failed_commit_fails_its_whole_group_and_nothing_of_it_happened(
    faulty: SqliteKeyStore, statement: str
) -> None:
    append(faulty, pattern(100))
    held = Held(faulty)
    held.let_go()
    held.future.result(10)
    FaultyConnection.failing = statement

    def taking(tx: StoreTransaction) -> None:
        tx.take(LISBON, LINK, 0, 10).wipe()
        tx.append(LISBON, StreamId("new"), SecretBytes(b"new"))

    with pytest.raises(StoreUnavailable, match="could not commit"):
        do(faulty, taking)
    assert FaultyConnection.failing is None
    assert stock(faulty) == 100 and stock(faulty, stream=StreamId("new")) == 0
    assert append(faulty, b"x") == 100
    assert take(faulty, 0, 100) == pattern(100)


def test_every_work_of_a_failed_group_is_told_even_one_that_was_refused(faulty: SqliteKeyStore) -> None:
    append(faulty, pattern(100))
    held = Held(faulty)
    futures = [
        faulty.submit(lambda tx: tx.take(LISBON, LINK, 0, 60)),
        faulty.submit(lambda tx: tx.take(LISBON, LINK, 50, 50)),
    ]
    FaultyConnection.failing = "COMMIT"
    held.let_go()
    for future in [held.future, *futures]:
        assert isinstance(future.exception(10), StoreUnavailable)
    assert take(faulty, 50, 50) == pattern(100)[50:]


def test_a_full_disk_stops_nothing_but_the_works_it_meets(store: SqliteKeyStore, path: Path) -> None:
    """A true one, as the operating system reports it: no file may grow beyond what the log has now."""
    append(store, pattern(3000))
    log_bytes = path.with_name(path.name + "-wal").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log_bytes, hard))
    try:
        with pytest.raises(StoreUnavailable, match="could not commit"):
            take(store, 0, 1000)
        with pytest.raises(StoreUnavailable, match="could not commit"):
            append(store, pattern(500_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert stock(store) == 3000
    assert take(store, 0, 3000) == pattern(3000)
    assert append(store, b"x") == 3000


# Killed

KILLED = """
import os, sys
from pathlib import Path
from openqci.core.keys import SecretBytes
from openqci.services.sqlite_store import SqliteKeyStore
from tests.keystore.make import KEK, LINK, LISBON

store = SqliteKeyStore.open(Path(sys.argv[1]), KEK)

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def appended(future):
    say("appended", future.result().offset_bytes)

def taken(future):
    offset, key = future.result()
    say("taken", offset, key.reveal().hex())

while True:
    for _ in range(4):
        future = store.submit(lambda tx: tx.append(LISBON, LINK, SecretBytes(os.urandom(300))))
        future.add_done_callback(appended)
    futures = [store.submit(lambda tx: tx.take_next(LISBON, LINK, 100)) for _ in range(10)]
    for future in futures:
        future.add_done_callback(taken)
    futures[-1].result()
"""


def test_what_was_acknowledged_survives_a_kill_at_any_moment(path: Path) -> None:
    """Every acknowledged take stays taken, every acknowledged append is there; nothing is half-done."""
    said_taken: dict[int, str] = {}
    said_appended: set[int] = set()
    for delay_s in (0.0, 0.013, 0.031, 0.057, 0.11):
        said_before = len(said_taken)
        for words in killed_after(path, delay_s):
            if words[0] == "appended":
                said_appended.add(int(words[1]))
            else:
                assert int(words[1]) not in said_taken, "a key was delivered twice"
                said_taken[int(words[1])] = words[2]
        assert len(said_taken) > said_before
        check_against(path, said_taken, said_appended)


def killed_after(path: Path, delay_s: float) -> list[list[str]]:
    """Run the process, kill it some time after its first answer, return the lines it had said."""
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE, cwd=root, text=True
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline(), *(process.stdout.readline() for _ in range(9))]
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
    return [line.split() for line in lines if line.endswith("\n")]


def check_against(path: Path, taken: dict[int, str], appended: set[int]) -> None:
    store = SqliteKeyStore.open(path, KEK)
    try:
        held = do(store, lambda tx: tx.ranges(LISBON, LINK))
        assert sum(length for _, length in held) == stock(store)
        there = {offset + step for offset, length in held for step in range(length)}
        for offset in taken:
            assert there.isdisjoint(range(offset, offset + 100)), "an acknowledged take was undone"
        # Takes go in order of offset: what is there begins where takes ended, and reaches the end.
        end = append(store, b"")
        assert end % 300 == 0 and end >= max(appended, default=0) + 300, "an acknowledged append is lost"
        assert held == ([(end - stock(store), stock(store))] if held else [])
        do(store, lambda tx: [tx.take(LISBON, LINK, *run).wipe() for run in held and [held[0]]])
    finally:
        store.close()


# At rest


def on_disk(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(path.parent.iterdir()) if file.suffix != ".part")


def sealed_rows(path: Path) -> list[bytes]:
    connection = sqlite3.connect(path)
    rows = [bytes(row[0]) for row in connection.execute("SELECT sealed FROM segment")]
    connection.close()
    return rows


def test_no_secret_byte_reaches_the_disk(store: SqliteKeyStore, path: Path) -> None:
    canary = b"canary-of-thirty-two-bytes-long!"
    append(store, canary * 300)
    take(store, 32, 3200)
    assert len(on_disk(path)) > 9600 - 3232
    assert canary[:12] not in on_disk(path)
    store.close()
    assert canary[:12] not in on_disk(path)


@pytest.mark.parametrize("spend", ["take", "destroy", "cut"])
def test_spent_key_leaves_the_disk_even_sealed(store: SqliteKeyStore, path: Path, spend: str) -> None:
    append(store, pattern(20_000))
    append(store, pattern(20_000), stream=StreamId("other"))
    old = sealed_rows(path)[: 20_000 // SEGMENT_BYTES]
    assert all(seal in on_disk(path) for seal in old)
    if spend == "take":
        take(store, 0, 20_000)
    elif spend == "destroy":
        do(store, lambda tx: tx.destroy(LISBON, LINK))
    else:
        for place in range(0, 20_000, 1000):
            take(store, place, 8)
    store.close()
    rest = on_disk(path)
    for seal in old:
        assert seal[:64] not in rest and seal[-64:] not in rest and seal[900:964] not in rest


def test_the_log_is_truncated_while_the_store_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "REST_EVERY_S", 0.05)
    store = SqliteKeyStore.open(path, KEK)
    append(store, pattern(5000))
    take(store, 0, 5000)
    give_up_s = time.monotonic() + 10
    while path.with_name(path.name + "-wal").stat().st_size and time.monotonic() < give_up_s:
        time.sleep(0.02)
    assert path.with_name(path.name + "-wal").stat().st_size == 0
    put(store, "still works")
    store.close()


def test_a_reader_does_not_hold_up_the_writer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint that cannot finish is left to the next time."""
    monkeypatch.setattr(group_commit, "REST_EVERY_S", 0.0)
    store = SqliteKeyStore.open(path, KEK)
    put(store, "a")
    reader = sqlite3.connect(path)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM record").fetchall()
    begun_s = time.monotonic()
    for number in range(5):
        put(store, str(number))
    assert time.monotonic() - begun_s < 5
    reader.close()
    store.close()


# Tampered


def tampered(path: Path, statement: str) -> SqliteKeyStore:
    store = SqliteKeyStore.open(path, KEK)
    append(store, pattern(4000))
    append(store, pattern(4000, seed=1), stream=StreamId("other"))
    append(store, pattern(4000, seed=2), kme=KmeId("kme-other"))
    store.close()
    connection = sqlite3.connect(path)
    connection.executescript(statement)
    connection.close()
    return SqliteKeyStore.open(path, KEK)


FIRST = 1 << sqlite_store.START_BITS


def set_first(change: str) -> str:
    return f"UPDATE segment SET {change} WHERE place = {FIRST}"


def seal_at(place: int) -> str:
    return f"sealed = (SELECT sealed FROM segment WHERE place = {place})"


TAMPERINGS = {
    "a bit changed": set_first("sealed = zeroblob(12) || substr(sealed, 13)"),
    "made a text": set_first("sealed = 'abc', length = '1984'"),
    "cut": set_first("sealed = substr(sealed, 1, 500)"),
    "emptied": set_first("sealed = x''"),
    "of another offset": set_first(seal_at(FIRST + SEGMENT_BYTES)),
    "of another stream": set_first(seal_at(2 * FIRST)),
    "of another KME": set_first(seal_at(3 * FIRST)),
    "shorter than it says": set_first(f"length = {SEGMENT_BYTES - 1}"),
    "of another name": "UPDATE stream SET number = number + 10; UPDATE stream SET number = 13 - number",
}


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_tampered_rows_are_noticed(path: Path, tampering: str) -> None:
    store = tampered(path, TAMPERINGS[tampering])
    with pytest.raises(IntegrityError, match=r"stored key of kme-pt-lisbon.* does not open"):
        take_next(store, 96)
    assert stock(store) == 4000, "the evidence stays"
    store.close()


# Beside another process

WRITER = """
import sys
from pathlib import Path
from openqci.services.sqlite_store import SqliteKeyStore
from tests.keystore.make import KEK, LISBON

store = SqliteKeyStore.open(Path(sys.argv[1]), KEK)
for number in range(30):
    store.submit(lambda tx: tx.put_record(LISBON, "kind", f"{number:02}", b"theirs")).result(20)
    assert store.submit(lambda tx: tx.record(LISBON, "busy", "0")).result(20) is not None
store.close()
"""


# More than this process can take before a slow start of the other one is over.
KEY_BYTES = 4_000_000


def test_another_process_writes_records_while_the_network_runs(store: SqliteKeyStore, path: Path) -> None:
    append(store, pattern(KEY_BYTES))
    do(store, lambda tx: tx.put_record(LISBON, "busy", "0", b""))
    taken = 0
    with subprocess.Popen([sys.executable, "-c", WRITER, path], cwd=Path(__file__).parents[2]) as other:
        while other.poll() is None:
            futures = [store.submit(lambda tx: tx.take_next(LISBON, LINK, 8)[0]) for _ in range(20)]
            assert [future.result(20) for future in futures] == [8 * (taken + step) for step in range(20)]
            taken += 20
    assert other.returncode == 0
    assert keys_of(store) == [f"{number:02}" for number in range(30)]
    assert stock(store) == KEY_BYTES - 8 * taken


def test_what_another_process_did_to_a_stream_is_seen(store: SqliteKeyStore, path: Path) -> None:
    """Nobody else should, but a cache that went stale would hand a byte out twice."""
    append(store, pattern(100))
    other = SqliteKeyStore.open(path, KEK)
    assert take_next(other, 60)[0] == 0
    assert take_next(store, 30)[0] == 60
    with pytest.raises(KeyUnavailable):
        take_next(other, 11)
    assert append(other, b"x") == 100 and append(store, b"y") == 101
    other.close()


def test_a_process_that_never_ends_its_writing_costs_an_error_and_no_more(
    store: SqliteKeyStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_store, "BUSY_TIMEOUT_S", 0.1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"):
        put(store, "a")
    other.execute("ROLLBACK")
    other.close()
    put(store, "b")
    assert keys_of(store) == ["b"]


def test_the_owner_of_the_process_is_not_asked_for_more_than_a_file(path: Path) -> None:
    """The writer ends with its store: no thread and no file stays open."""
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    SqliteKeyStore.open(path, KEK).close()
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == files
