"""The rules by which key bytes are stored and spent, over any database.

A key stream is a line of bytes addressed by offset. It is kept as sealed *segments*; a byte that is in no
segment is spent, and there is no other mark of it. So "spent" cannot disagree with "gone": taking a range
removes its bytes from every row in the same transaction that hands them out, and what remains of a segment
on either side is sealed anew. The end of a stream never goes back, so that an offset never means two bytes
(invariant I1). One mechanism serves link key, authentication key and the stocks of SAE pairs.
"""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from itertools import islice
from typing import NamedTuple, Protocol

from openqci.core.errors import IntegrityError, KeyUnavailable, invariant
from openqci.core.identifiers import KmeId, StreamId
from openqci.core.keys import SecretBytes, StoredRange
from openqci.crypto.sealing import KEK_BYTES, Sealer, number_of

SEGMENT_BYTES = 1984
"""Longest run of bytes sealed together: spending a few bytes seals at most this many again.

Two sealed segments fit a 4 KiB database page; with 2,048 bytes only one does, and the store and what each
commit writes grow by half (docs/decisions/0001-key-streams-not-key-rows.md).
"""

NO_KME, CHECK_STREAM = KmeId(""), StreamId("kek-check")
"""Where the sealed zeros lie whose opening shows that the root key is the one of this store."""

SEGMENTS_SEARCHED_MAX = 8192
"""How many segments ``take_next`` looks through for a contiguous run before it gives up: some 20 ms."""


class Segment(NamedTuple):
    """Sealed bytes ``[start, start + length)`` of a stream."""

    start: int
    length: int
    sealed: bytes

    @property
    def end(self) -> int:
        return self.start + self.length


class PlacedSegment(NamedTuple):
    """A segment and the stream that it lies in."""

    kme: KmeId
    stream: StreamId
    number: int
    segment: Segment


class StreamRow(NamedTuple):
    """A stream's row: its number, the offset after its last byte ever, and how many bytes are there."""

    number: int
    end: int
    stock: int


class LedgerRows(Protocol):
    """The database's part: rows, without rules."""

    def stream(self, kme: KmeId, stream: StreamId) -> StreamRow | None:
        """Return the stream's row."""

    def put_stream(self, kme: KmeId, stream: StreamId, end: int, stock: int) -> StreamRow:
        """Write the stream's row, making it if needed."""

    def overlapping(self, number: int, start: int, end: int) -> Generator[Segment]:
        """Yield the segments that share a byte with ``[start, end)``, in order; reads what is asked for."""

    def extents(self, number: int) -> Iterator[tuple[int, int]]:
        """Yield (start, length) of all segments, in order, without their bytes."""

    def add(self, number: int, segment: Segment) -> None:
        """Write a segment."""

    def remove(self, number: int, start: int) -> None:
        """Erase the segment that begins at ``start``."""

    def remove_all(self, number: int) -> None:
        """Erase all segments of a stream."""

    def streams(self, kme: KmeId, prefix: str) -> Iterator[tuple[StreamId, int]]:
        """Return (stream, stock) of the KME's streams with this prefix, in order of name."""

    def segments_after(self, number: int, start: int, limit: int) -> "list[PlacedSegment]":
        """Return segments of all streams behind a place, in order of stream number and start."""

    def put_check(self, sealed: bytes) -> None:
        """Write the sealed zeros that tell whether a store is opened with its own root key."""


RESEAL_SEGMENTS = 128
"""Segments looked at by one :meth:`KeyLedger.reseal`: a quarter of a megabyte, some milliseconds."""


class KeyLedger:
    """The key verbs of :class:`openqci.keystore.ports.StoreTransaction`."""

    def __init__(self, rows: LedgerRows, sealer: Sealer) -> None:
        self._rows, self._sealer = rows, sealer

    def append(self, kme: KmeId, stream: StreamId, key: SecretBytes) -> StoredRange:
        """Seal ``key`` and put it at the end of the stream."""
        row = self._rows.stream(kme, stream)
        start, stock = (row.end, row.stock) if row else (0, 0)
        row = self._rows.put_stream(kme, stream, start + len(key), stock + len(key))
        with memoryview(key.reveal()) as clear:
            for offset in range(0, len(key), SEGMENT_BYTES):
                with clear[offset : offset + SEGMENT_BYTES] as part:
                    self._add(kme, stream, row.number, start + offset, part)
        return StoredRange(stream, start, len(key))

    def take(self, kme: KmeId, stream: StreamId, offset_bytes: int, length_bytes: int) -> SecretBytes:
        """Remove exactly this range and return it; KeyUnavailable if any byte of it is not there."""
        invariant(offset_bytes >= 0 and length_bytes > 0, "a range of key has a place and a length")
        end = offset_bytes + length_bytes
        row = self._rows.stream(kme, stream)
        # Offsets may come from a peer: what lies beyond the end of the stream is never looked up.
        segments: list[Segment] = []
        if row is not None and offset_bytes < row.end:
            segments = list(self._rows.overlapping(row.number, offset_bytes, min(end, row.end)))
        there = sum(min(end, segment.end) - max(offset_bytes, segment.start) for segment in segments)
        if row is None or there != length_bytes:
            raise KeyUnavailable(
                f"{kme} does not hold all of stream {stream} from offset {offset_bytes}",
                wanted_bytes=length_bytes,
                available_bytes=there,
            )
        return self._spend(kme, stream, row, segments, offset_bytes, end)

    def take_next(self, kme: KmeId, stream: StreamId, length_bytes: int) -> tuple[int, SecretBytes]:
        """Remove the first contiguous ``length_bytes`` that are there; return their offset and bytes.

        KeyUnavailable if there are fewer, or no contiguous run as long within the first
        ``SEGMENTS_SEARCHED_MAX`` segments.
        """
        invariant(length_bytes > 0, "a range of key has a length")
        row = self._rows.stream(kme, stream)
        if row is not None and row.stock >= length_bytes:
            with closing(self._rows.overlapping(row.number, 0, row.end)) as held:
                run = first_run(islice(held, SEGMENTS_SEARCHED_MAX), length_bytes)
            if run:
                offset = run[0].start
                return offset, self._spend(kme, stream, row, run, offset, offset + length_bytes)
        raise KeyUnavailable(
            f"{kme} has not enough contiguous key in stream {stream}",
            wanted_bytes=length_bytes,
            available_bytes=row.stock if row else 0,
        )

    def stock_bytes(self, kme: KmeId, stream: StreamId) -> int:
        """Return how many bytes of the stream are there; 0 for an unknown stream."""
        row = self._rows.stream(kme, stream)
        return row.stock if row else 0

    def ranges(self, kme: KmeId, stream: StreamId) -> list[tuple[int, int]]:
        """Return (offset, length) in bytes of the runs of the stream that are there, in order."""
        row = self._rows.stream(kme, stream)
        return joined(self._rows.extents(row.number)) if row else []

    def streams(self, kme: KmeId, prefix: str = "") -> Iterator[tuple[StreamId, int]]:
        """Return (stream, stock in bytes) of the KME's streams whose name starts with ``prefix``."""
        return self._rows.streams(kme, prefix)

    def destroy(self, kme: KmeId, stream: StreamId) -> int:
        """Erase all that is left of a stream; its offsets are not used again."""
        row = self._rows.stream(kme, stream)
        if row is None:
            return 0
        self._rows.remove_all(row.number)
        self._rows.put_stream(kme, stream, row.end, 0)
        return row.stock

    def reseal(self, number: int = 0, start: int = -1) -> tuple[int, int] | None:
        """Seal anew, under the root key in use, what is sealed under others, from behind a place on.

        Returns where to go on (stream number, start), or None at the end: then nothing in the store is sealed
        under a root key that was not in use when the first call of the round was made.
        """
        placed = self._rows.segments_after(number, start, RESEAL_SEGMENTS)
        for kme, stream, at, segment in placed:
            if number_of(segment.sealed, segment.length) != self._sealer.current:
                with (
                    self._sealer.open(kme, stream, segment.start, segment.length, segment.sealed) as opened,
                    memoryview(opened.reveal()) as clear,
                ):
                    self._rows.remove(at, segment.start)
                    self._add(kme, stream, at, segment.start, clear)
        if len(placed) == RESEAL_SEGMENTS:
            return placed[-1].number, placed[-1].segment.start
        self._rows.put_check(sealed_check(self._sealer))
        return None

    def _add(self, kme: KmeId, stream: StreamId, number: int, start: int, clear: memoryview) -> None:
        self._rows.add(number, Segment(start, len(clear), self._sealer.seal(kme, stream, start, clear)))

    def _spend(
        self, kme: KmeId, stream: StreamId, row: StreamRow, segments: list[Segment], start: int, end: int
    ) -> SecretBytes:
        """Erase ``[start, end)``, which the segments cover, and return its bytes."""
        taken = SecretBytes(bytes(end - start))
        filled = 0
        with memoryview(taken.reveal()) as room:
            for segment in segments:
                filled += self._cut(kme, stream, row.number, segment, start, end, room[filled:])
        invariant(filled == end - start, "what is taken has the length that was asked for")
        invariant(row.stock >= filled, "no stream holds less than nothing")
        self._rows.put_stream(kme, stream, row.end, row.stock - filled)
        return taken

    def _cut(
        self,
        kme: KmeId,
        stream: StreamId,
        number: int,
        segment: Segment,
        start: int,
        end: int,
        room: memoryview,
    ) -> int:
        """Erase a segment, seal again what lies outside ``[start, end)``, put what lies inside into ``room``.

        Returns how many bytes that was.
        """
        cut_from, cut_to = max(0, start - segment.start), min(segment.length, end - segment.start)
        with (
            room,
            self._sealer.open(kme, stream, segment.start, segment.length, segment.sealed) as opened,
            memoryview(opened.reveal()) as clear,
        ):
            self._rows.remove(number, segment.start)
            if cut_from > 0:
                with clear[:cut_from] as left:
                    self._add(kme, stream, number, segment.start, left)
            if cut_to < segment.length:
                with clear[cut_to:] as right:
                    self._add(kme, stream, number, segment.start + cut_to, right)
            with clear[cut_from:cut_to] as inside:
                room[: cut_to - cut_from] = inside
        return cut_to - cut_from


def sealed_check(sealer: Sealer) -> bytes:
    """Return zeros sealed under the root key in use; their opening shows that a store has its own."""
    with SecretBytes(bytes(KEK_BYTES)) as zeros:
        return sealer.seal(NO_KME, CHECK_STREAM, 0, zeros)


def check_opens(sealer: Sealer, sealed: bytes) -> bool:
    """Tell whether a store's sealed zeros open."""
    try:
        sealer.open(NO_KME, CHECK_STREAM, 0, KEK_BYTES, sealed).wipe()
    except IntegrityError:
        return False
    return True


def joined(segments: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join neighbouring (start, length) segments into runs.

    >>> joined([(0, 10), (10, 5), (20, 10)])
    [(0, 15), (20, 10)]
    """
    runs: list[tuple[int, int]] = []
    for start, length in segments:
        if runs and sum(runs[-1]) == start:
            runs[-1] = (runs[-1][0], runs[-1][1] + length)
        else:
            runs.append((start, length))
    return runs


def first_run(segments: Iterable[Segment], length_bytes: int) -> list[Segment]:
    """Return the first neighbouring segments that hold ``length_bytes`` together, or none.

    >>> [segment.start for segment in first_run([Segment(0, 10, b""), Segment(20, 10, b""),
    ...                                          Segment(30, 10, b"")], 15)]
    [20, 30]
    """
    run: list[Segment] = []
    for segment in segments:
        if run and run[-1].end != segment.start:
            run.clear()
        run.append(segment)
        if segment.end - run[0].start >= length_bytes:
            return run
    return []
