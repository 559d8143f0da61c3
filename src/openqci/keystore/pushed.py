"""Chunks that a QKD module has pushed to this end of a link and that are not link key yet.

A module that has been told that a chunk is there forgets it. So a chunk is put into the store before that is
said, and leaves it only in the transaction that makes a deposit of it (invariant I3): at the leading end the
one that offers the deposit, at the other end the one that accepts it. A crash in between loses nothing at
one end alone.

Both ends use the chunks of a stream in rising order of index. What the leading end has passed over, because
it had not come when later ones were used, is destroyed at both ends. One stream of a link counts at a time.
"""

from collections.abc import Sequence
from functools import reduce
from itertools import takewhile

import msgspec

from openqci.core.errors import KeyUnavailable, RequestRefused, invariant
from openqci.core.identifiers import StreamId
from openqci.core.keys import SecretBytes
from openqci.crypto import equal
from openqci.keystore.deposits import worse
from openqci.keystore.ports import KmeView
from openqci.keystore.supply import SourceReport

KIND, CHUNK_KIND = "pushed-stream", "pushed-chunk"

HELD_BYTES_MAX = 1 << 20
"""Key of one link that may wait; some seconds of a very fast one."""

CHUNKS_MAX = 16_384
CHUNKS_PER_DRAW_MAX = 1024
"""Chunks that one deposit is made of: their records go in one transaction, for which others wait."""

RETRY_AFTER_S = 1


class PushedStream(msgspec.Struct, frozen=True):
    """The stream of a link whose chunks count. Those below ``next_index`` are used or passed over."""

    ksid: str
    chunk_bytes: int
    next_index: int = 0
    held_bytes: int = 0
    chunks: int = 0


class PushedChunk(msgspec.Struct, frozen=True):
    """Where a chunk lies in the key stream that holds all of them, and how it was made."""

    offset_bytes: int
    length_bytes: int
    report: SourceReport


def current(view: KmeView, link: str) -> PushedStream | None:
    """Return the stream of a link, or None."""
    body = view.record(KIND, link)
    return msgspec.msgpack.decode(body, type=PushedStream) if body is not None else None


def begin(view: KmeView, link: str, ksid: str, chunk_bytes: int) -> None:
    """Let a stream be the one of its link; what waits of another is of no use any more, and destroyed."""
    known = current(view, link)
    if known is None or known.ksid != ksid:
        forget(view, link)
        _put(view, link, PushedStream(ksid, chunk_bytes))


def forget(view: KmeView, link: str) -> int:
    """Destroy what waits of a link, and forget its stream; return how many bytes that was."""
    stream = current(view, link)
    if stream is None:
        return 0
    for name, _ in list(view.records(CHUNK_KIND, f"{link}/")):
        view.drop_record(CHUNK_KIND, name)
    view.drop_record(KIND, link)
    return view.destroy(_key_stream(link, stream.ksid))


def keep(view: KmeView, link: str, ksid: str, index: int, key: SecretBytes, report: SourceReport) -> bool:
    """Keep a chunk; tell whether it was new. The same one twice is as good as once. The caller wipes it.

    RequestRefused 503 if there is no room, 400 for another chunk of an index, or of another stream.
    """
    stream = current(view, link)
    if stream is None or stream.ksid != ksid:
        raise RequestRefused(400, "the key stream is not open")
    if index < stream.next_index:
        return False  # it was passed over, or used: the module has not heard our answer
    if not _is_new(view, link, stream, index, key):
        return False
    if len(key) != stream.chunk_bytes:
        raise RequestRefused(400, f"the chunk has {len(key)} bytes, agreed on were {stream.chunk_bytes}")
    if stream.held_bytes + len(key) > HELD_BYTES_MAX or stream.chunks >= CHUNKS_MAX:
        headers = {"Retry-After": str(RETRY_AFTER_S)}
        raise RequestRefused(503, "no room for more key now", headers=headers)
    stored = view.append(_key_stream(link, ksid), key)
    chunk = PushedChunk(stored.offset_bytes, len(key), report)
    view.put_record(CHUNK_KIND, _name(link, index), msgspec.msgpack.encode(chunk))
    _put(view, link, _held(stream, len(key), 1))
    return True


def first(view: KmeView, link: str, length_bytes_max: int) -> tuple[list[int], int]:
    """Return the first indices that wait, and how many bytes they have together."""
    indices: list[int] = []
    length_bytes = 0
    for name, body in view.records(CHUNK_KIND, f"{link}/", CHUNKS_PER_DRAW_MAX):
        chunk = msgspec.msgpack.decode(body, type=PushedChunk)
        if length_bytes + chunk.length_bytes > length_bytes_max:
            break
        indices.append(int(name.rpartition("/")[2], 16))
        length_bytes += chunk.length_bytes
    return indices, length_bytes


def missing(view: KmeView, link: str, indices: Sequence[int]) -> list[int]:
    """Return which of these chunks do not wait."""
    return [index for index in indices if view.record(CHUNK_KIND, _name(link, index)) is None]


def waits_beyond(view: KmeView, link: str, index: int) -> bool:
    """Tell whether a chunk waits that comes after an index."""
    return any(name > _name(link, index) for name, _ in view.records(CHUNK_KIND, f"{link}/"))


def pass_over(view: KmeView, link: str, index: int) -> None:
    """Destroy what waits before an index: the leading end has passed it over."""
    stream = current(view, link)
    invariant(stream is not None, "chunks are passed over in a stream")
    if stream is None or index <= stream.next_index:
        return
    before = takewhile(lambda each: each[0] < _name(link, index), view.records(CHUNK_KIND, f"{link}/"))
    for name, body in list(before):
        chunk = msgspec.msgpack.decode(body, type=PushedChunk)
        view.take(_key_stream(link, stream.ksid), chunk.offset_bytes, chunk.length_bytes).wipe()
        view.drop_record(CHUNK_KIND, name)
        stream = _held(stream, -chunk.length_bytes, -1)
    _put(view, link, msgspec.structs.replace(stream, next_index=index))


def take(view: KmeView, link: str, indices: Sequence[int]) -> tuple[SecretBytes, SourceReport]:
    """Take chunks in rising order of index, as one key; what lies before them is passed over.

    Raises KeyUnavailable, before anything is taken, if one of them does not wait.
    """
    stream = current(view, link)
    bodies = [view.record(CHUNK_KIND, _name(link, index)) for index in indices]
    if stream is None or not indices or None in bodies:
        raise KeyUnavailable("a chunk has not been pushed", wanted_bytes=1, available_bytes=0)
    chunks = [msgspec.msgpack.decode(body, type=PushedChunk) for body in bodies if body is not None]
    key = SecretBytes(b"")
    for offset_bytes, length_bytes in _runs(chunks):
        with view.take(_key_stream(link, stream.ksid), offset_bytes, length_bytes) as part:
            key.reveal().extend(part.reveal())
    for index in indices:
        view.drop_record(CHUNK_KIND, _name(link, index))
    _put(view, link, _held(stream, -len(key), -len(chunks)))
    pass_over(view, link, indices[-1] + 1)
    return key, reduce(worse, (chunk.report for chunk in chunks))


def _is_new(view: KmeView, link: str, stream: PushedStream, index: int, key: SecretBytes) -> bool:
    """Tell whether nothing waits at an index, or the same chunk does; 400 if it is another one."""
    body = view.record(CHUNK_KIND, _name(link, index))
    if body is None:
        return True
    chunk = msgspec.msgpack.decode(body, type=PushedChunk)
    held = _key_stream(link, stream.ksid)
    with view.take(held, chunk.offset_bytes, chunk.length_bytes) as waiting:
        # What was taken to be looked at goes back at the end: an offset is never used twice.
        stored = view.append(held, waiting)
        alike = equal(waiting.reveal(), key.reveal())
    moved = msgspec.structs.replace(chunk, offset_bytes=stored.offset_bytes)
    view.put_record(CHUNK_KIND, _name(link, index), msgspec.msgpack.encode(moved))
    if not alike:
        raise RequestRefused(400, "the chunk is not the one that was pushed before")
    return False


def _runs(chunks: Sequence[PushedChunk]) -> list[tuple[int, int]]:
    """Join chunks that lie one right after the other; the order stays."""
    runs: list[tuple[int, int]] = []
    for chunk in chunks:
        if runs and sum(runs[-1]) == chunk.offset_bytes:
            runs[-1] = runs[-1][0], runs[-1][1] + chunk.length_bytes
        else:
            runs.append((chunk.offset_bytes, chunk.length_bytes))
    return runs


def _held(stream: PushedStream, length_bytes: int, chunks: int) -> PushedStream:
    held_bytes, number = stream.held_bytes + length_bytes, stream.chunks + chunks
    invariant(held_bytes >= 0 and number >= 0, "no less than nothing waits")
    return msgspec.structs.replace(stream, held_bytes=held_bytes, chunks=number)


def _put(view: KmeView, link: str, stream: PushedStream) -> None:
    view.put_record(KIND, link, msgspec.msgpack.encode(stream))


def _name(link: str, index: int) -> str:
    return f"{link}/{index:010x}"


def _key_stream(link: str, ksid: str) -> StreamId:
    return StreamId(f"pushed/{link}/{ksid}")
