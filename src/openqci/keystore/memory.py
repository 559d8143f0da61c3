"""A store in memory: the reference for tests, with the same rules and the same all-or-nothing.

Nothing here survives the process; a network runs on ``openqci.services.sqlite_store``.
"""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

from openqci.core.identifiers import KmeId, StreamId
from openqci.crypto.sealing import Sealer
from openqci.keystore.ledger import KeyLedger, Segment, StreamRow

Result = TypeVar("Result")


@dataclass
class MemoryRows:
    """Rows in dictionaries."""

    named: dict[tuple[KmeId, StreamId], StreamRow] = field(default_factory=dict)
    segments: dict[int, dict[int, Segment]] = field(default_factory=dict)
    documents: dict[tuple[KmeId, str], dict[str, bytes]] = field(default_factory=dict)

    def stream(self, kme: KmeId, stream: StreamId) -> StreamRow | None:
        return self.named.get((kme, stream))

    def put_stream(self, kme: KmeId, stream: StreamId, end: int, stock: int) -> StreamRow:
        old = self.named.get((kme, stream))
        row = StreamRow(old.number if old else len(self.named) + 1, end, stock)
        self.named[kme, stream] = row
        return row

    def overlapping(self, number: int, start: int, end: int) -> Generator[Segment]:
        held = self.segments.get(number, {})
        for place in sorted(held):
            if held[place].start < end and held[place].end > start:
                yield held[place]

    def extents(self, number: int) -> Iterator[tuple[int, int]]:
        held = self.segments.get(number, {})
        return iter([(key, held[key].length) for key in sorted(held)])

    def add(self, number: int, segment: Segment) -> None:
        self.segments.setdefault(number, {})[segment.start] = segment

    def remove(self, number: int, start: int) -> None:
        del self.segments[number][start]

    def remove_all(self, number: int) -> None:
        self.segments.pop(number, None)

    def streams(self, kme: KmeId, prefix: str) -> Iterator[tuple[StreamId, int]]:
        mine = sorted(name for owner, name in self.named if owner == kme and name.startswith(prefix))
        return iter([(name, self.named[kme, name].stock) for name in mine])

    def copied(self) -> "MemoryRows":
        """Return the rows as they are now; rows themselves never change, only which there are."""
        return MemoryRows(
            dict(self.named),
            {number: dict(held) for number, held in self.segments.items()},
            {room: dict(held) for room, held in self.documents.items()},
        )


class MemoryTransaction(KeyLedger):
    """The verbs of a store transaction over rows in memory."""

    def __init__(self, rows: MemoryRows, sealer: Sealer) -> None:
        super().__init__(rows, sealer)
        self._documents = rows.documents

    def put_record(self, kme: KmeId, kind: str, key: str, body: bytes) -> None:
        self._documents.setdefault((kme, kind), {})[key] = body

    def record(self, kme: KmeId, kind: str, key: str) -> bytes | None:
        return self._documents.get((kme, kind), {}).get(key)

    def records(self, kme: KmeId, kind: str, prefix: str = "") -> Iterator[tuple[str, bytes]]:
        held = self._documents.get((kme, kind), {})
        return iter([(key, held[key]) for key in sorted(held) if key.startswith(prefix)])

    def drop_record(self, kme: KmeId, kind: str, key: str) -> bool:
        return self._documents.get((kme, kind), {}).pop(key, None) is not None


class MemoryKeyStore:
    """Runs each work at once; a work that raises leaves no trace."""

    def __init__(self, kek: bytes = bytes(32)) -> None:
        self._rows = MemoryRows()
        self._sealer = Sealer(kek)

    def submit(self, work: Callable[[MemoryTransaction], Result]) -> "Future[Result]":
        """Run ``work`` in a transaction of its own; its result or exception is in the future."""
        future: Future[Result] = Future()
        before = self._rows.copied()
        try:
            future.set_result(work(MemoryTransaction(self._rows, self._sealer)))
        except BaseException as error:
            self._rows = before
            future.set_exception(error)
        return future

    async def run(self, work: Callable[[MemoryTransaction], Result]) -> Result:
        """Run ``work`` in a transaction of its own."""
        return self.submit(work).result()

    def close(self) -> None:
        """Nothing to close."""
