"""What a group of works sees and changes of the rows in PostgreSQL: read when asked for, written at its end.

Each statement is a round trip, while every other process waits for the store's lock. So a group reads a row
once, keeps all that its works change in memory, where a work that raises is undone, and writes what is left
of the changes in one statement before the commit. What is read is merged with what is changed and not yet
written: a work sees the works before it.

Between groups stream rows and records stay cached. Of what other processes have written since, the database
tells which kinds of rows it were; those are read anew. Segments are not kept.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, Protocol

from openqci.core.errors import invariant
from openqci.core.identifiers import KmeId, StreamId
from openqci.keystore.ledger import SEGMENT_BYTES, PlacedSegment, Segment, StreamRow
from openqci.services.sqlite_store import after_prefix

if TYPE_CHECKING:
    import asyncpg

STREAMS_CACHED_MAX = 65_536
RECORDS_CACHED_MAX = 8_192
LISTS_CACHED_MAX = 1_024
LIST_LENGTH_CACHED_MAX = 64
SEGMENTS_READ_FIRST, SEGMENTS_READ_MAX = 4, 64
"""Segments read at once: few at first, since most who ask need one or two, more for who goes on."""

UNWRITTEN_BYTES_MAX = 8 << 20
"""What a group keeps in memory; beyond, it is written between two works."""

STREAMS: Final = "stream"
"""What kind of rows stream rows are; kinds of records have a mark before their names."""

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
CREATE TABLE IF NOT EXISTS touched (
    kind text COLLATE "C" PRIMARY KEY, commits bigint NOT NULL
);
"""
"""``touched`` says of each kind of rows with which commit it was written last."""

STREAMS_FROM = "SELECT name, stock FROM stream WHERE kme = $1 AND name >= $2 ORDER BY name"
STREAMS_BETWEEN = "SELECT name, stock FROM stream WHERE kme = $1 AND name >= $2 AND name < $3 ORDER BY name"
RECORDS_FROM = """
SELECT key, body FROM record WHERE kme = $1 AND kind = $2 AND key >= $4 ORDER BY key LIMIT $3
"""
RECORDS_BETWEEN = """
SELECT key, body FROM record WHERE kme = $1 AND kind = $2 AND key >= $4 AND key < $5 ORDER BY key LIMIT $3
"""
"""Statements are planned once, so a bound that is not there is a statement of its own."""

MAKE_STREAMS = """
INSERT INTO stream (kme, name, "end", stock)
SELECT * FROM unnest($1::text[], $2::bytea[], $3::bigint[], $4::bigint[]) RETURNING kme, name, number
"""

WRITE = """
WITH streams AS (
    UPDATE stream SET "end" = new."end", stock = new.stock
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS new (number, "end", stock)
    WHERE stream.number = new.number
), cleared AS (
    DELETE FROM segment WHERE stream = ANY ($4::bigint[])
), removed AS (
    DELETE FROM segment USING unnest($5::bigint[], $6::bigint[]) AS old (stream, start)
    WHERE segment.stream = old.stream AND segment.start = old.start
), added AS (
    INSERT INTO segment (stream, start, length, sealed)
    SELECT * FROM unnest($7::bigint[], $8::bigint[], $9::integer[], $10::bytea[])
    ON CONFLICT (stream, start) DO UPDATE SET length = excluded.length, sealed = excluded.sealed
), dropped AS (
    DELETE FROM record USING unnest($11::text[], $12::text[], $13::bytea[]) AS old (kme, kind, key)
    WHERE record.kme = old.kme AND record.kind = old.kind AND record.key = old.key
), put AS (
    INSERT INTO record (kme, kind, key, body)
    SELECT * FROM unnest($14::text[], $15::text[], $16::bytea[], $17::bytea[])
    ON CONFLICT (kme, kind, key) DO UPDATE SET body = excluded.body
), counted AS (
    UPDATE meta SET commits = commits + 1, kek_check = coalesce($19, kek_check) RETURNING commits
), touches AS (
    INSERT INTO touched (kind, commits) SELECT kind, commits FROM counted, unnest($18::text[]) AS new (kind)
    ON CONFLICT (kind) DO UPDATE SET commits = excluded.commits
)
SELECT commits FROM counted
"""
"""All that a group has changed. No row stands in two of its parts, since these have no order."""

ENDLESS = 1 << 63

Journal = list[Callable[[], None]]
"""How to undo what a work has done, the latest last."""

Room = tuple[KmeId, str]
"""The records of one kind in a KME's rooms."""


class Reader(Protocol):
    """Runs one statement in the group's transaction."""

    def rows(self, statement: str, *values: object) -> "list[asyncpg.Record]":
        """Return its rows."""

    def row(self, statement: str, *values: object) -> "asyncpg.Record | None":
        """Return its first row."""


class StreamSegments:
    """What a group knows of one stream's segments, and what it has changed of them.

    ``whole`` if there are none in the database.
    """

    def __init__(self, *, whole: bool = False) -> None:
        self.changed: dict[int, Segment | None] = {}
        self.cleared = False
        self._held: dict[int, Segment] = {}
        self._starts: list[int] = []
        # Spans of offsets, in order and apart: every segment that begins in one of them is held.
        self._known: list[tuple[int, int]] = [(0, ENDLESS)] if whole else []

    def known_until(self, offset: int) -> int:
        """Return up to where all segments are known that begin at an offset or later; the offset if none."""
        at = bisect_right(self._known, (offset, ENDLESS)) - 1
        return max(offset, self._known[at][1]) if at >= 0 else offset

    def known_from(self, offset: int) -> int:
        """Return where the next segments behind an offset are known."""
        at = bisect_right(self._known, (offset, ENDLESS))
        return self._known[at][0] if at < len(self._known) else ENDLESS

    def learn(self, first: int, end: int, segments: Iterable[Segment]) -> None:
        """Hold the segments that begin in a span: those that are given, and no others."""
        for segment in segments:
            self._hold(segment)
        before = [span for span in self._known if span[1] < first]
        behind = [span for span in self._known if span[0] > end]
        for span in self._known[len(before) : len(self._known) - len(behind)]:
            first, end = min(first, span[0]), max(end, span[1])
        self._known = [*before, (first, end), *behind]

    def between(self, first: int, end: int) -> list[Segment]:
        """Return the segments that begin in a span that is known, in order."""
        starts = self._starts[bisect_left(self._starts, first) : bisect_left(self._starts, end)]
        return [self._held[start] for start in starts]

    def at(self, start: int) -> Segment | None:
        """Return the segment that begins there, if it is known."""
        return self._held.get(start)

    def put(self, segment: Segment, journal: Journal) -> None:
        """Add a segment where none is."""
        self.learn(segment.start, segment.end, [segment])
        self._change(segment.start, segment, journal)
        journal.append(lambda: self._let_go(segment.start))

    def remove(self, start: int, journal: Journal) -> None:
        """Remove the segment that begins there."""
        segment = self._held[start]
        self._let_go(start)
        self._change(start, None, journal)
        journal.append(lambda: self._hold(segment))

    def clear(self, journal: Journal) -> None:
        """Remove all segments."""
        old = self._held, self._starts, self._known, self.changed, self.cleared

        def bring_back() -> None:
            self._held, self._starts, self._known, self.changed, self.cleared = old

        journal.append(bring_back)
        self._held, self._starts, self._known = {}, [], [(0, ENDLESS)]
        self.changed, self.cleared = {}, True

    def written(self) -> None:
        """What was changed is in the database."""
        self.changed, self.cleared = {}, False

    def _change(self, start: int, segment: Segment | None, journal: Journal) -> None:
        changed = self.changed
        if start in changed:
            old = changed[start]
            journal.append(lambda: changed.__setitem__(start, old))
        else:
            journal.append(lambda: changed.__delitem__(start))
        changed[start] = segment

    def _hold(self, segment: Segment) -> None:
        if segment.start not in self._held:
            insort(self._starts, segment.start)
        self._held[segment.start] = segment

    def _let_go(self, start: int) -> None:
        del self._held[start]
        del self._starts[bisect_left(self._starts, start)]


class PostgresRows:
    """Rows of the ledger and records, for the works of one group after the other."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._journal: Journal = []
        self._streams: dict[tuple[KmeId, StreamId], StreamRow | None] = {}
        self._streams_changed: dict[tuple[KmeId, StreamId], StreamRow] = {}
        self._streams_made = 0
        self._segments: dict[int, StreamSegments] = {}
        self._records: dict[Room, dict[str, bytes | None]] = {}
        self._records_changed: dict[Room, dict[str, bytes | None]] = {}
        self._lists: dict[Room, dict[tuple[str, int | None], list[tuple[str, bytes]]]] = {}
        self._check: bytes | None = None
        self._unwritten_bytes = 0
        self.commit: int | None = None
        """The number of the commit that the group's writes belong to, once there are any."""

    # What the group does

    @property
    def changed(self) -> bool:
        """Whether there is anything to write."""
        return bool(
            self._streams_changed
            or any(self._records_changed.values())
            or any(each.changed or each.cleared for each in self._segments.values())
            or self._check is not None
        )

    def keep(self) -> None:
        """A work ended well: what it has changed stays, whatever the next ones do."""
        self._journal.clear()
        if self._unwritten_bytes > UNWRITTEN_BYTES_MAX:
            self.write()

    def undo(self) -> None:
        """A work raised: undo what it has changed."""
        while self._journal:
            self._journal.pop()()

    def write(self) -> None:
        """Write all that has changed into the database."""
        invariant(not self._journal, "only what whole works have changed is written")
        self._make_streams()
        row = self._reader.row(WRITE, *self._values())
        for segments in self._segments.values():
            segments.written()
        self._streams_changed.clear()
        self._records_changed.clear()
        self._check, self._unwritten_bytes = None, 0
        invariant(row is not None, "a store counts its commits")
        self.commit = int(row["commits"]) if row is not None else None

    def over(self) -> None:
        """The group is over: forget its segments, and keep the caches within their bounds."""
        self.commit = None
        self._segments.clear()
        if len(self._streams) > STREAMS_CACHED_MAX:
            self._streams.clear()
        if sum(map(len, self._records.values())) > RECORDS_CACHED_MAX:
            self._records.clear()
        if sum(map(len, self._lists.values())) > LISTS_CACHED_MAX:
            self._lists.clear()

    def forget(self) -> None:
        """Forget everything: what was changed is undone in the database, what is cached may be wrong."""
        self._journal.clear()
        self._segments.clear()
        self._streams_changed.clear()
        self._records_changed.clear()
        self._check, self._unwritten_bytes = None, 0
        self._streams.clear()
        self._records.clear()
        self._lists.clear()

    def forget_kinds(self, kinds: Iterable[str]) -> None:
        """Forget what is cached of some kinds of rows: others have written such."""
        touched = frozenset(kinds)
        if STREAMS in touched:
            self._streams.clear()
        for room in [room for room in self._records if touched_kind(room[1]) in touched]:
            del self._records[room]
        for room in [room for room in self._lists if touched_kind(room[1]) in touched]:
            del self._lists[room]

    # Streams

    def stream(self, kme: KmeId, stream: StreamId) -> StreamRow | None:
        place = kme, stream
        if place not in self._streams:
            found = self._reader.row(
                'SELECT number, "end", stock FROM stream WHERE kme = $1 AND name = $2', kme, stream.encode()
            )
            self._streams[place] = StreamRow(*found) if found is not None else None
        return self._streams[place]

    def put_stream(self, kme: KmeId, stream: StreamId, end: int, stock: int) -> StreamRow:
        place, old = (kme, stream), self.stream(kme, stream)
        if old is None:
            # The database gives it a number when it is written; until then it has one below zero.
            self._streams_made += 1
            row = StreamRow(-self._streams_made, end, stock)
            self._segments[row.number] = StreamSegments(whole=True)
        else:
            invariant(end >= old.end, "the end of a stream never goes back")
            row = StreamRow(old.number, end, stock)
        before = self._streams_changed.get(place)

        def bring_back() -> None:
            self._streams[place] = old
            if before is not None:
                self._streams_changed[place] = before
            else:
                del self._streams_changed[place]

        self._journal.append(bring_back)
        self._streams[place] = self._streams_changed[place] = row
        return row

    def streams(self, kme: KmeId, prefix: str) -> Iterator[tuple[StreamId, int]]:
        bounds = prefix_bounds(prefix)
        rows = self._reader.rows(STREAMS_FROM if len(bounds) == 1 else STREAMS_BETWEEN, kme, *bounds)
        found = {StreamId(bytes(row["name"]).decode()): int(row["stock"]) for row in rows}
        changed = {
            stream: row.stock
            for (at, stream), row in self._streams_changed.items()
            if at == kme and stream.startswith(prefix)
        }
        return iter(sorted((found | changed).items()) if changed else found.items())

    # Segments

    def overlapping(self, number: int, start: int, end: int) -> Generator[Segment]:
        segments, at, page = self._of(number), max(0, start - SEGMENT_BYTES + 1), SEGMENTS_READ_FIRST
        while at < end:
            until = segments.known_until(at)
            if until == at:
                self._read(number, segments, at, min(end, segments.known_from(at)), page)
                page = min(4 * page, SEGMENTS_READ_MAX)
                continue
            yield from (each for each in segments.between(at, min(until, end)) if each.end > start)
            at = until

    def extents(self, number: int) -> Iterator[tuple[int, int]]:
        segments = self._of(number)
        if number < 0 or segments.cleared:
            return iter([(each.start, each.length) for each in segments.between(0, ENDLESS)])
        rows = self._reader.rows("SELECT start, length FROM segment WHERE stream = $1", number)
        found = {int(row["start"]): int(row["length"]) for row in rows}
        for start, segment in segments.changed.items():
            if segment is not None:
                found[start] = segment.length
            else:
                found.pop(start, None)
        return iter(sorted(found.items()))

    def add(self, number: int, segment: Segment) -> None:
        self._of(number).put(segment, self._journal)
        self._unwritten_bytes += len(segment.sealed)

    def remove(self, number: int, start: int) -> None:
        segments = self._of(number)
        if segments.at(start) is None:
            self._read(number, segments, start, start + 1, 1)
        segments.remove(start, self._journal)

    def remove_all(self, number: int) -> None:
        self._of(number).clear(self._journal)

    def segments_after(self, number: int, start: int, limit: int) -> list[PlacedSegment]:
        """Return segments of all streams behind a place; the first thing that its work does."""
        if self.changed:
            self.write()
        rows = self._reader.rows(
            "SELECT s.kme, s.name, s.number, g.start, g.length, g.sealed FROM segment g "
            "JOIN stream s ON s.number = g.stream WHERE (g.stream, g.start) > ($1, $2) "
            "ORDER BY g.stream, g.start LIMIT $3",
            number,
            start,
            limit,
        )
        placed = [
            PlacedSegment(
                KmeId(row["kme"]), StreamId(bytes(row["name"]).decode()), int(row["number"]), segment_of(row)
            )
            for row in rows
        ]
        for each in placed:
            self._of(each.number).learn(each.segment.start, each.segment.end, [each.segment])
        return placed

    def put_check(self, sealed: bytes) -> None:
        old = self._check
        self._journal.append(lambda: setattr(self, "_check", old))
        self._check = sealed

    # Records

    def record(self, kme: KmeId, kind: str, key: str) -> bytes | None:
        known = self._records.setdefault((kme, kind), {})
        if key not in known:
            row = self._reader.row(
                "SELECT body FROM record WHERE kme = $1 AND kind = $2 AND key = $3", kme, kind, key.encode()
            )
            known[key] = bytes(row["body"]) if row is not None else None
        return known[key]

    def records(self, kme: KmeId, kind: str, prefix: str, limit: int | None) -> Iterator[tuple[str, bytes]]:
        lists = self._lists.setdefault((kme, kind), {})
        if (prefix, limit) in lists:
            return iter(lists[prefix, limit])
        changed = self._records_changed.get((kme, kind), {})
        changed = {key: body for key, body in changed.items() if key.startswith(prefix)}
        bounds = prefix_bounds(prefix)
        rows = self._reader.rows(
            RECORDS_FROM if len(bounds) == 1 else RECORDS_BETWEEN,
            kme,
            kind,
            None if limit is None else limit + len(changed),
            *bounds,
        )
        found = [(bytes(row["key"]).decode(), bytes(row["body"])) for row in rows]
        if changed:
            merged: dict[str, bytes | None] = {**dict(found), **changed}
            found = sorted((key, body) for key, body in merged.items() if body is not None)[:limit]
        if len(found) <= LIST_LENGTH_CACHED_MAX:
            lists[prefix, limit] = found
        return iter(found)

    def put_record(self, kme: KmeId, kind: str, key: str, body: bytes) -> None:
        invariant("\0" not in kme and "\0" not in kind, "PostgreSQL's text has no zero character")
        self._change_record((kme, kind), key, bytes(body))
        self._unwritten_bytes += len(body)

    def drop_record(self, kme: KmeId, kind: str, key: str) -> bool:
        there = self.record(kme, kind, key) is not None
        if there:
            self._change_record((kme, kind), key, None)
        return there

    # Within

    def _of(self, number: int) -> StreamSegments:
        segments = self._segments.get(number)
        if segments is None:
            segments = self._segments[number] = StreamSegments()
        return segments

    def _read(self, number: int, segments: StreamSegments, first: int, end: int, page: int) -> None:
        """Read segments that begin in a span of which none is known: a page of them, from the first on."""
        rows = self._reader.rows(
            "SELECT start, length, sealed FROM segment WHERE stream = $1 AND start >= $2 AND start < $3 "
            "ORDER BY start LIMIT $4",
            number,
            first,
            end,
            page,
        )
        found = [segment_of(row) for row in rows]
        segments.learn(first, found[-1].start + 1 if len(found) == page else end, found)

    def _change_record(self, room: Room, key: str, body: bytes | None) -> None:
        known = self._records.setdefault(room, {})
        changed = self._records_changed.setdefault(room, {})
        for table in (known, changed):
            if key in table:
                self._journal.append(lambda table=table, old=table[key]: table.__setitem__(key, old))  # type: ignore[misc]
            else:
                self._journal.append(lambda table=table: table.pop(key, None))  # type: ignore[misc]
            table[key] = body
        # What was listed is no longer so; nor is what is listed from now on, if this is undone.
        self._forget_lists(room)
        self._journal.append(lambda: self._forget_lists(room))

    def _forget_lists(self, room: Room) -> None:
        self._lists.pop(room, None)

    def _make_streams(self) -> None:
        """Write the streams that are new, and take the numbers that the database gives them."""
        new = [(place, row) for place, row in self._streams_changed.items() if row.number < 0]
        if not new:
            return
        rows = self._reader.rows(
            MAKE_STREAMS,
            [kme for (kme, _), _ in new],
            [stream.encode() for (_, stream), _ in new],
            [row.end for _, row in new],
            [row.stock for _, row in new],
        )
        numbers = {(row["kme"], bytes(row["name"])): int(row["number"]) for row in rows}
        for place, row in new:
            number = numbers[place[0], place[1].encode()]
            self._streams[place] = self._streams_changed[place] = StreamRow(number, row.end, row.stock)
            self._segments[number] = self._segments.pop(row.number)

    def _values(self) -> list[object]:
        """Return the values of the statement that writes, in its order."""
        streams = list(self._streams_changed.values())
        removed: list[tuple[int, int]] = []
        added: list[tuple[int, Segment]] = []
        for number, segments in self._segments.items():
            for start, segment in segments.changed.items():
                if segment is not None:
                    added.append((number, segment))
                elif not segments.cleared:
                    removed.append((number, start))
        records = [
            (kme, kind, key.encode(), body)
            for (kme, kind), changed in self._records_changed.items()
            for key, body in changed.items()
        ]
        dropped = [record for record in records if record[3] is None]
        put = [record for record in records if record[3] is not None]
        kinds = {touched_kind(kind) for _, kind, _, _ in records} | ({STREAMS} if streams else set())
        return [
            *columns([(row.number, row.end, row.stock) for row in streams], 3),
            [number for number, segments in self._segments.items() if segments.cleared],
            *columns(removed, 2),
            *columns([(number, *segment) for number, segment in added], 4),
            *columns([record[:3] for record in dropped], 3),
            *columns(put, 4),
            sorted(kinds),
            self._check,
        ]


def columns(rows: list[Any], width: int) -> list[list[Any]]:
    """Return the columns of a table.

    >>> columns([(1, "a"), (2, "b")], 2), columns([], 2)
    ([[1, 2], ['a', 'b']], [[], []])
    """
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


def segment_of(row: "asyncpg.Record") -> Segment:
    """Return the segment of a row."""
    return Segment(int(row["start"]), int(row["length"]), bytes(row["sealed"]))


def touched_kind(kind: str) -> str:
    """Return the name under which a kind of records is noted as touched: never that of stream rows."""
    return f".{kind}"


def prefix_bounds(prefix: str) -> tuple[bytes, ...]:
    """Return the least name with a prefix and the bound above all, where there is one.

    Names are kept as the bytes of their UTF-8 form: PostgreSQL's text cannot hold a zero character.

    >>> prefix_bounds("ab"), prefix_bounds("")
    ((b'ab', b'ac'), (b'',))
    """
    above = after_prefix(prefix)
    return (prefix.encode(), above.encode()) if isinstance(above, str) else (prefix.encode(),)
