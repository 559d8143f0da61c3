"""A store in memory: the reference for tests, with the same rules and the same all-or-nothing.

Every change is noted in a journal with what was there before, so that a work that raises is undone in the
time that it took. The fault simulation undoes whole groups of works by the same journal, as a crash does.
Nothing here survives the process; a network runs on ``openqci.services.sqlite_store``.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from itertools import islice
from typing import Generic, TypeVar

from openqci.core.identifiers import KmeId, StreamId
from openqci.crypto.sealing import Sealer
from openqci.keystore.ledger import KeyLedger, PlacedSegment, Segment, StreamRow

Key = TypeVar("Key", str, int)
Value = TypeVar("Value")
Result = TypeVar("Result")

Journal = list[Callable[[], None]]
"""How to undo what was done, the latest last."""


class SortedTable(Generic[Key, Value]):
    """Rows by key, in order of key; what is changed is noted in a journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._held: dict[Key, Value] = {}
        self._order: list[Key] = []

    def row(self, key: Key) -> Value | None:
        return self._held.get(key)

    def put(self, key: Key, value: Value) -> None:
        old = self._held.get(key)
        self._write(key, value)
        self._journal.append(lambda: self._erase(key) if old is None else self._write(key, old))

    def drop(self, key: Key) -> bool:
        old = self._held.get(key)
        if old is None:
            return False
        self._erase(key)
        self._journal.append(lambda: self._write(key, old))
        return True

    def rows_from(self, place: int) -> Iterator[tuple[Key, Value]]:
        """Yield rows in order; the table may be changed meanwhile."""
        while place < len(self._order):
            key = self._order[place]
            yield key, self._held[key]
            place = bisect_right(self._order, key)

    def place_of(self, key: Key) -> int:
        """Return the place of the first row at or after a key."""
        return bisect_left(self._order, key)

    def copied(self, journal: Journal) -> "SortedTable[Key, Value]":
        """Return the same rows in a table of its own."""
        copy: SortedTable[Key, Value] = SortedTable(journal)
        copy._held, copy._order = dict(self._held), list(self._order)
        return copy

    def _write(self, key: Key, value: Value) -> None:
        if key not in self._held:
            insort(self._order, key)
        self._held[key] = value

    def _erase(self, key: Key) -> None:
        del self._held[key]
        del self._order[bisect_left(self._order, key)]


class MemoryRows:
    """Rows in dictionaries, with a journal of what the present transaction has changed."""

    def __init__(self) -> None:
        self._journal: Journal = []
        self._named: dict[KmeId, SortedTable[str, StreamRow]] = {}
        self._segments: dict[int, SortedTable[int, Segment]] = {}
        self._documents: dict[tuple[KmeId, str], SortedTable[str, bytes]] = {}
        self._streams_made = 0

    def mark(self) -> int:
        """Return a point to which :meth:`undo` can go back."""
        return len(self._journal)

    def undo(self, mark: int) -> None:
        """Undo what was changed since a mark."""
        while len(self._journal) > mark:
            self._journal.pop()()

    def keep(self) -> None:
        """What was changed stays."""
        self._journal.clear()

    def copied(self) -> "MemoryRows":
        """Return the rows as they are now; rows themselves never change, only which there are."""
        copy = MemoryRows()
        copy._named = {kme: table.copied(copy._journal) for kme, table in self._named.items()}
        copy._segments = {number: table.copied(copy._journal) for number, table in self._segments.items()}
        copy._documents = {room: table.copied(copy._journal) for room, table in self._documents.items()}
        copy._streams_made = self._streams_made
        return copy

    def documents(self, kme: KmeId, kind: str) -> SortedTable[str, bytes]:
        """Return the documents of a kind in a KME's rooms."""
        table = self._documents.get((kme, kind))
        if table is None:
            table = self._documents[kme, kind] = SortedTable(self._journal)
        return table

    def stream(self, kme: KmeId, stream: StreamId) -> StreamRow | None:
        return self._streams_of(kme).row(stream)

    def put_stream(self, kme: KmeId, stream: StreamId, end: int, stock: int) -> StreamRow:
        old = self._streams_of(kme).row(stream)
        if old is None:
            self._streams_made += 1  # a number that an undone work had is not used again
        row = StreamRow(old.number if old else self._streams_made, end, stock)
        self._streams_of(kme).put(stream, row)
        return row

    def overlapping(self, number: int, start: int, end: int) -> Generator[Segment]:
        held = self._segments_of(number)
        for _, segment in held.rows_from(max(0, held.place_of(start + 1) - 1)):
            if segment.start >= end:
                return
            if segment.end > start:
                yield segment

    def extents(self, number: int) -> Iterator[tuple[int, int]]:
        return ((start, segment.length) for start, segment in self._segments_of(number).rows_from(0))

    def add(self, number: int, segment: Segment) -> None:
        self._segments_of(number).put(segment.start, segment)

    def remove(self, number: int, start: int) -> None:
        self._segments_of(number).drop(start)

    def remove_all(self, number: int) -> None:
        table = self._segments.pop(number, None)
        if table is not None:
            self._journal.append(lambda: self._segments.__setitem__(number, table))

    def streams(self, kme: KmeId, prefix: str) -> Iterator[tuple[StreamId, int]]:
        table = self._streams_of(kme)
        for name, row in table.rows_from(table.place_of(prefix)):
            if not name.startswith(prefix):
                return
            yield StreamId(name), row.stock

    def segments_after(self, number: int, start: int, limit: int) -> list[PlacedSegment]:
        names = {
            row.number: (kme, StreamId(name))
            for kme, table in self._named.items()
            for name, row in table.rows_from(0)
        }
        found = (
            PlacedSegment(*names[at], at, segment)
            for at in sorted(self._segments)
            for _, segment in self._segments[at].rows_from(0)
            if (at, segment.start) > (number, start)
        )
        return list(islice(found, limit))

    def put_check(self, sealed: bytes) -> None:
        """Nothing here outlives its root key."""

    def _streams_of(self, kme: KmeId) -> SortedTable[str, StreamRow]:
        table = self._named.get(kme)
        if table is None:
            table = self._named[kme] = SortedTable(self._journal)
        return table

    def _segments_of(self, number: int) -> SortedTable[int, Segment]:
        table = self._segments.get(number)
        if table is None:
            table = self._segments[number] = SortedTable(self._journal)
        return table


class MemoryTransaction(KeyLedger):
    """The verbs of a store transaction over rows in memory."""

    def __init__(self, rows: MemoryRows, sealer: Sealer) -> None:
        super().__init__(rows, sealer)
        self._documents = rows.documents

    def put_record(self, kme: KmeId, kind: str, key: str, body: bytes) -> None:
        self._documents(kme, kind).put(key, body)

    def record(self, kme: KmeId, kind: str, key: str) -> bytes | None:
        return self._documents(kme, kind).row(key)

    def records(
        self, kme: KmeId, kind: str, prefix: str = "", limit: int | None = None
    ) -> Iterator[tuple[str, bytes]]:
        table = self._documents(kme, kind)
        for key, body in islice(table.rows_from(table.place_of(prefix)), limit):
            if not key.startswith(prefix):
                return
            yield key, body

    def drop_record(self, kme: KmeId, kind: str, key: str) -> bool:
        return self._documents(kme, kind).drop(key)


class MemoryKeyStore:
    """Runs each work at once; a work that raises leaves no trace."""

    def __init__(self, kek: bytes | Sealer = bytes(32)) -> None:
        self._rows = MemoryRows()
        self._sealer = kek if isinstance(kek, Sealer) else Sealer(kek)

    def submit(self, work: Callable[[MemoryTransaction], Result]) -> "Future[Result]":
        """Run ``work`` in a transaction of its own; its result or exception is in the future."""
        future: Future[Result] = Future()
        try:
            result = work(MemoryTransaction(self._rows, self._sealer))
        except BaseException as error:
            self._rows.undo(0)
            future.set_exception(error)
        else:
            self._rows.keep()
            future.set_result(result)
        return future

    async def read(self, work: Callable[[MemoryTransaction], Result]) -> Result:
        """Do a work that changes nothing."""
        return await self.run(work)

    async def run(self, work: Callable[[MemoryTransaction], Result]) -> Result:
        """Run ``work`` in a transaction of its own."""
        return self.submit(work).result()

    def close(self) -> None:
        """Nothing to close."""
