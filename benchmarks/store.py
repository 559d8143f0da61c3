"""The key store: streams of ranges (ours) beside one row per key, the same SQLite, the same sealing.

Both seal with AES-256-GCM, commit with ``synchronous=FULL`` and group as many works per commit. A round
stores a batch of end-to-end key and takes all of it again in requests of one key, then in large requests.
"""

import sqlite3
import tempfile
import uuid
from pathlib import Path

from _measure import medians_s, tell

from openqci.core.identifiers import KmeId, StreamId
from openqci.core.keys import SecretBytes
from openqci.crypto.sealing import Sealer
from openqci.keystore.ports import StoreTransaction
from openqci.services.sqlite_store import SqliteKeyStore

KEK = bytes(range(32))
KEY_BYTES = 32
BATCH_KEYS = 256
BATCHES = 4
REQUESTS_PER_COMMIT = 32
KME, STREAM = KmeId("kme-a"), StreamId("pair/0000000001/master")
BATCH = bytes(KEY_BYTES * BATCH_KEYS)


class Ranges:
    """Our store."""

    def __init__(self, file: Path) -> None:
        self.store = SqliteKeyStore.open(file, KEK)

    def fill(self) -> None:
        for _ in range(BATCHES):
            self.store.submit(put).result()

    def empty(self, keys_per_request: int) -> None:
        length = keys_per_request * KEY_BYTES
        requests = BATCHES * BATCH_KEYS // keys_per_request
        for start in range(0, requests, REQUESTS_PER_COMMIT):
            count = min(REQUESTS_PER_COMMIT, requests - start)
            futures = [self.store.submit(lambda tx: take(tx, length)) for _ in range(count)]
            for future in futures:
                future.result()


def put(transaction: StoreTransaction) -> None:
    with SecretBytes(BATCH) as key:
        transaction.append(KME, STREAM, key)


def take(transaction: StoreTransaction, length_bytes: int) -> None:
    transaction.take_next(KME, STREAM, length_bytes)[1].wipe()


class RowPerKey:
    """The plain way: a table of keys with IDs."""

    def __init__(self, file: Path) -> None:
        self.sealer = Sealer(KEK)
        self.connection = sqlite3.connect(file, isolation_level=None)
        for pragma in ("secure_delete = ON", "journal_mode = WAL", "synchronous = FULL"):
            self.connection.execute(f"PRAGMA {pragma}")
        self.connection.execute(
            "CREATE TABLE key (id TEXT PRIMARY KEY, pair TEXT, made INTEGER, sealed BLOB) WITHOUT ROWID"
        )
        self.connection.execute("CREATE INDEX oldest ON key (pair, made)")
        self.made = 0

    def fill(self) -> None:
        for _ in range(BATCHES):
            self.connection.execute("BEGIN IMMEDIATE")
            for _ in range(BATCH_KEYS):
                self.made += 1
                with SecretBytes(bytes(KEY_BYTES)) as key:
                    row = str(uuid.uuid4()), "a/b", self.made, self.sealer.seal(KME, STREAM, self.made, key)
                self.connection.execute("INSERT INTO key VALUES (?, ?, ?, ?)", row)
            self.connection.execute("COMMIT")

    def empty(self, keys_per_request: int) -> None:
        requests = BATCHES * BATCH_KEYS // keys_per_request
        for start in range(0, requests, REQUESTS_PER_COMMIT):
            self.connection.execute("BEGIN IMMEDIATE")
            for _ in range(min(REQUESTS_PER_COMMIT, requests - start)):
                self.connection.execute("SAVEPOINT work")
                self.take(keys_per_request)
                self.connection.execute("RELEASE work")
            self.connection.execute("COMMIT")

    def take(self, count: int) -> None:
        rows = self.connection.execute(
            "SELECT id, made, sealed FROM key WHERE pair = ? ORDER BY made LIMIT ?", ("a/b", count)
        ).fetchall()
        for key_id, made, sealed in rows:
            self.sealer.open(KME, STREAM, made, KEY_BYTES, sealed).wipe()
            self.connection.execute("DELETE FROM key WHERE id = ?", (key_id,))


def rates(keys_per_request: int, ours: Ranges, plain: RowPerKey) -> dict[str, float]:
    """Fill and empty both; return keys/s through the store and the ratio."""
    taken = medians_s(
        {
            "ours": lambda: (ours.fill(), ours.empty(keys_per_request)),
            "plain": lambda: (plain.fill(), plain.empty(keys_per_request)),
        }
    )
    keys = BATCHES * BATCH_KEYS
    what = f"{keys_per_request} per request"
    return {
        f"{what}: keys/s stored and taken, ranges": keys / taken["ours"],
        f"{what}: keys/s stored and taken, row per key": keys / taken["plain"],
        f"{what}: ratio": taken["plain"] / taken["ours"],
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        ours, plain = Ranges(Path(folder) / "ranges.sqlite"), RowPerKey(Path(folder) / "rows.sqlite")
        figures = rates(1, ours, plain) | rates(128, ours, plain)
        ours.fill()
        plain.fill()
        ours.store.close()
        plain.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        plain.connection.close()
        for name in ("ranges", "rows"):
            figures[f"{name}: bytes of file"] = (Path(folder) / f"{name}.sqlite").stat().st_size
    tell(f"store: {BATCHES} batches of {BATCH_KEYS} keys of 256 bits, one KME", figures)
