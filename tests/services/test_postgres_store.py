"""What PostgreSQL brings along: other processes, lines that break, settings that are wrong."""

import asyncio
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from openqci.core.errors import ConfigurationError, KeyUnavailable
from openqci.core.identifiers import KmeId, StreamId
from openqci.core.keys import SecretBytes
from openqci.services import postgres_store
from openqci.services.group_commit import StoreUnavailable
from openqci.services.postgres_store import PostgresKeyStore, erase, read_url
from tests.keystore.postgres import new_schema, server_url

KEK = bytes(range(32))
KME, STREAM = KmeId("kme-a"), StreamId("link/a-b")
KEYS = 600

SPENDER = """
import sys
from openqci.core.errors import KeyUnavailable
from openqci.services.postgres_store import PostgresKeyStore
url, schema = sys.argv[1:]
store = PostgresKeyStore.open(url, bytes(range(32)), schema)
print("ready", flush=True)
sys.stdin.readline()
while True:
    works = [store.submit(lambda tx: tx.take_next("kme-a", "link/a-b", 32)) for _ in range(5)]
    for work in works:
        try:
            offset, key = work.result(30)
        except KeyUnavailable:
            store.close()
            sys.exit(0)
        print(offset, bytes(key.reveal()).hex(), flush=True)
"""


def filled(schema: str) -> tuple[PostgresKeyStore, bytes]:
    store = PostgresKeyStore.open(server_url(), KEK, schema)
    key = os.urandom(32 * KEYS)
    store.submit(lambda tx: tx.append(KME, STREAM, SecretBytes(key))).result(20)
    return store, key


def sql(statement: str) -> list[Any]:
    """Run a statement on a connection of its own."""

    async def run() -> list[Any]:
        connection = await asyncpg.connect(server_url())
        try:
            return list(await connection.fetch(statement))
        finally:
            await connection.close()

    return asyncio.run(run())


def test_several_processes_spend_one_stream_and_no_byte_twice() -> None:
    schema = new_schema()
    store, key = filled(schema)
    command = [sys.executable, "-c", SPENDER, server_url(), schema]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    spenders = [subprocess.Popen(command, **pipes) for _ in range(3)]
    try:
        for spender in spenders:
            assert spender.stdout is not None and spender.stdout.readline() == "ready\n"
        for spender in spenders:
            assert spender.stdin is not None
            spender.stdin.write("go\n")
            spender.stdin.flush()
        outputs = [spender.communicate(timeout=120)[0] for spender in spenders]
    finally:
        for spender in spenders:
            spender.kill()
            spender.wait()
    taken = [line.split() for output in outputs for line in output.splitlines()]
    assert max(Counter(offset for offset, _ in taken).values()) == 1
    assert sorted(int(offset) for offset, _ in taken) == list(range(0, 32 * KEYS, 32))
    assert all(key[int(offset) : int(offset) + 32].hex() == given for offset, given in taken)
    assert all(output.count("\n") > 10 for output in outputs), "all three had their turns"
    with pytest.raises(KeyUnavailable):
        store.submit(lambda tx: tx.take_next(KME, STREAM, 1)).result(20)
    store.close()


def test_a_line_that_breaks_fails_its_group_and_is_made_anew() -> None:
    schema = new_schema()
    store, key = filled(schema)
    assert store.submit(lambda tx: bytes(tx.take(KME, STREAM, 0, 32).reveal())).result(20) == key[:32]
    sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'openqci'")
    refused = 0
    for _ in range(100):
        try:
            taken = store.submit(lambda tx: bytes(tx.take(KME, STREAM, 32, 32).reveal())).result(20)
            break
        except StoreUnavailable:
            refused += 1
    assert refused >= 1 and taken == key[32:64]
    store.close()


def test_a_process_that_hangs_inside_a_group_does_not_hold_up_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(postgres_store, "IDLE_IN_GROUP_S_MAX", 1.0)
    schema = new_schema()
    store, key = filled(schema)
    other = PostgresKeyStore.open(server_url(), KEK, schema)
    began, go_on = threading.Event(), threading.Event()

    def hang(tx: Any) -> None:
        tx.take(KME, STREAM, 0, 32)
        began.set()
        go_on.wait(20)

    hung = store.submit(hang)
    assert began.wait(20)
    assert bytes(other.submit(lambda tx: tx.take(KME, STREAM, 0, 32)).result(20).reveal()) == key[:32]
    go_on.set()
    with pytest.raises(StoreUnavailable):
        hung.result(20)
    other.close()
    store.close()


def test_a_commit_whose_end_nobody_knows_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = filled(new_schema())
    script = store._line.script

    def break_at_commit(statements: str) -> str:
        if statements == "COMMIT":
            raise ConnectionResetError("reset by peer")
        return script(statements)

    monkeypatch.setattr(store._line, "script", break_at_commit)
    with pytest.raises(StoreUnavailable, match="whether it happened is not known"):
        store.submit(lambda tx: tx.take(KME, STREAM, 0, 32)).result(20)
    store.close()


def test_what_was_committed_is_there_after_a_restart_and_other_keks_are_refused() -> None:
    schema = new_schema()
    store, key = filled(schema)
    store.close()
    with pytest.raises(ConfigurationError, match="sealed under another key-encryption key"):
        PostgresKeyStore.open(server_url(), bytes(32), schema)
    again = PostgresKeyStore.open(server_url(), KEK, schema)
    assert bytes(again.submit(lambda tx: tx.take(KME, STREAM, 0, 64)).result(20).reveal()) == key[:64]
    again.close()


def test_a_store_can_be_erased() -> None:
    schema = new_schema()
    store, _ = filled(schema)
    store.close()
    erase(server_url(), schema)
    empty = PostgresKeyStore.open(server_url(), bytes(32), schema)
    assert empty.submit(lambda tx: tx.stock_bytes(KME, STREAM)).result(20) == 0
    empty.close()


def test_a_database_that_is_not_there_is_said_so_without_its_password() -> None:
    with pytest.raises(ConfigurationError, match="cannot be used as a key store") as raised:
        PostgresKeyStore.open("postgresql://user:secret-word@127.0.0.1:1/nothing", KEK)
    assert "secret-word" not in str(raised.value)


def test_the_address_is_read_from_a_private_file(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("postgresql://somewhere/db\n")
    file.chmod(0o644)
    with pytest.raises(ConfigurationError, match="can be read by others"):
        read_url(file)
    file.chmod(0o600)
    assert read_url(file) == "postgresql://somewhere/db"
    file.write_text("sqlite://x")
    with pytest.raises(ConfigurationError, match="is no address"):
        read_url(file)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_url(tmp_path / "none")


def test_sealed_bytes_are_all_that_postgresql_sees() -> None:
    schema = new_schema()
    store, key = filled(schema)
    everything = b"".join(bytes(row["sealed"]) for row in sql(f"SELECT sealed FROM {schema}.segment"))
    assert len(everything) > len(key)
    assert not any(key[at : at + 8] in everything for at in range(0, len(key), 8))
    store.close()
