"""Any history of appends, takes, failures and restarts against a dictionary that knows the truth (I1)."""

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from openqci.core.errors import KeyUnavailable
from openqci.core.identifiers import KmeId, StreamId
from openqci.core.keys import SecretBytes
from openqci.keystore.memory import MemoryKeyStore
from openqci.keystore.ports import StoreTransaction
from openqci.services.postgres_store import PostgresKeyStore
from openqci.services.sqlite_store import SqliteKeyStore
from tests.keystore.make import KEK, LISBON, WARSAW, Store, do, pattern
from tests.keystore.postgres import new_schema, server_url

Place = tuple[KmeId, StreamId]
places = st.tuples(st.sampled_from([LISBON, WARSAW]), st.sampled_from([StreamId("a"), StreamId("b")]))
lengths = st.one_of(st.integers(1, 200), st.integers(1, 6000))
fractions = st.floats(0, 1, exclude_max=True)


class Undone(Exception):
    """Raised at the end of a work that must leave no trace."""


class KeyStoreMachine(RuleBasedStateMachine):
    """The store, and what should be in it: for each stream its end and its bytes by offset."""

    store: Store

    @initialize()
    def begin(self) -> None:
        self.open()
        self.bytes_at: dict[Place, dict[int, int]] = {}
        self.ends: dict[Place, int] = {}
        self.seeds = 0

    def open(self) -> None:
        self.store = MemoryKeyStore(KEK)

    @rule(place=places, length=lengths, undone=st.booleans())
    def append(self, place: Place, length: int, undone: bool) -> None:
        self.seeds += 1
        key = pattern(length, self.seeds)
        offset = self.run(lambda tx: tx.append(*place, SecretBytes(key)).offset_bytes, undone)
        if offset is not None:
            assert offset == self.ends.get(place, 0)
            self.ends[place] = offset + length
            self.bytes_at.setdefault(place, {}).update(enumerate(key, offset))

    @rule(place=places, at=fractions, length=lengths, undone=st.booleans())
    def take(self, place: Place, at: float, length: int, undone: bool) -> None:
        held = self.bytes_at.get(place, {})
        offset = int(at * (self.ends.get(place, 0) + 10))
        whole = all(spot in held for spot in range(offset, offset + length))
        try:
            taken = self.run(lambda tx: bytes(tx.take(*place, offset, length).reveal()), undone)
        except KeyUnavailable as refused:
            assert not whole
            assert refused.available_bytes == sum(spot in held for spot in range(offset, offset + length))
        else:
            assert whole
            if taken is not None:
                assert taken == bytes(held.pop(spot) for spot in range(offset, offset + length))

    @rule(place=places, length=lengths)
    def take_next(self, place: Place, length: int) -> None:
        held = self.bytes_at.get(place, {})
        expected = next((offset for offset, run in runs(held) if run >= length), None)
        try:
            offset, key = do(self.store, lambda tx: tx.take_next(*place, length))
        except KeyUnavailable:
            assert expected is None
        else:
            assert offset == expected
            assert bytes(key.reveal()) == bytes(held.pop(spot) for spot in range(offset, offset + length))

    @rule(place=places)
    def destroy(self, place: Place) -> None:
        assert do(self.store, lambda tx: tx.destroy(*place)) == len(self.bytes_at.pop(place, {}))

    @invariant()
    def the_store_holds_what_it_should(self) -> None:
        for kme in (LISBON, WARSAW):
            listed = dict(do(self.store, lambda tx, kme=kme: tx.streams(kme)))  # type: ignore[misc]
            for stream in (StreamId("a"), StreamId("b")):
                held = self.bytes_at.get((kme, stream), {})
                assert listed.get(stream, 0) == len(held)
                found = do(self.store, lambda tx, at=(kme, stream): tx.ranges(*at))  # type: ignore[misc]
                assert found == runs(held)

    def run(self, work, undone):  # type: ignore[no-untyped-def]
        """Do a work; if it is to be undone let it raise at its end, and return None."""

        def raising(tx: StoreTransaction) -> object:
            result = work(tx)
            if undone:
                raise Undone
            return result

        try:
            return do(self.store, raising)
        except Undone:
            return None

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()


class SqliteKeyStoreMachine(KeyStoreMachine):
    """The same on disk, with restarts."""

    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.store = SqliteKeyStore.open(Path(self.folder.name) / "store.sqlite", KEK)

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = SqliteKeyStore.open(Path(self.folder.name) / "store.sqlite", KEK)

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "folder"):
            self.folder.cleanup()


class PostgresKeyStoreMachine(KeyStoreMachine):
    """The same in PostgreSQL, with restarts of the process that holds the store."""

    def open(self) -> None:
        self.schema = new_schema()
        self.store = PostgresKeyStore.open(server_url(), KEK, self.schema)

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = PostgresKeyStore.open(server_url(), KEK, self.schema)


def runs(held: dict[int, int]) -> list[tuple[int, int]]:
    """Return (offset, length) of the runs of offsets."""
    found: list[tuple[int, int]] = []
    for offset in sorted(held):
        if found and sum(found[-1]) == offset:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((offset, 1))
    return found


TestMemoryKeyStore = KeyStoreMachine.TestCase
TestMemoryKeyStore.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)

TestSqliteKeyStore = SqliteKeyStoreMachine.TestCase
TestSqliteKeyStore.settings = settings(max_examples=10, stateful_step_count=25, deadline=None)

TestPostgresKeyStore = PostgresKeyStoreMachine.TestCase
TestPostgresKeyStore.settings = settings(max_examples=8, stateful_step_count=25, deadline=None)
