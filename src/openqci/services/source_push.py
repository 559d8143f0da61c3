"""QKD modules that push their key: the JSON form of ETSI GS QKD 004 between a module and its key manager.

Published as "ETSI GS QKD 004 push mode" by the Austrian Institute of Technology (1.0.1). The node opens a
stream at its module by HTTPS (``open-connect``) and says that it may begin (``get-key``); from then on the
module posts each chunk, as it is made, to the node's own listener (:mod:`openqci.services.module_app`). As
with :mod:`openqci.services.source_004` the end that leads opens the stream, the other end is told its KSID
and opens it at its own module, and a chunk's name is ``KSID:index``.

What was pushed waits in memory, in a buffer of bounded size; when it is full a chunk is refused, and the
module offers it again later. Both ends use the chunks of a stream in rising order of index: what one end
never got is passed over by both. A node that starts again has lost what was waiting, and the end that leads
opens a new stream.
"""

import binascii
import ssl
import time
from base64 import b64decode
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import reduce
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import msgspec

from openqci.core.errors import IntegrityError, KeyUnavailable, PeerMisbehaved, RequestRefused
from openqci.core.keys import SecretBytes
from openqci.crypto import equal
from openqci.delivery.etsi004_model import JSON_MIME, UINT32_MAX, Status
from openqci.keystore.deposits import DEPOSIT_BYTES_MAX, DEPOSIT_BYTES_MIN, KEY_IDS_MAX, worse
from openqci.keystore.supply import SourceReport, SuppliedKey
from openqci.services.source_004 import parse_name, report_in

BUFFER_BYTES_MAX = 1 << 20
"""Key of one link that may wait; some seconds of a very fast one."""

CHUNKS_MAX = 16_384
CHUNK_BYTES_MAX = 64 * 1024
STREAMS_KEPT = 2
"""Streams of a link whose chunks are kept: the present one, and the one before."""

STRAYS_MAX = 16
"""Streams that nobody reads any more and that wait for being closed."""

STILL_S_MAX = 300.0
"""A stream of which nothing came for so long, though there was need, is given up, and another opened."""

NAMED_S_MAX = 60.0
"""Chunks that the leading end has got and that do not come here for so long are taken for lost."""

SKIPPED_S_MAX = 5.0
"""The same where the module has pushed later chunks already: it pushes in rising order."""

REQUEST_S_MAX = 10.0
ANSWER_BYTES_MAX = 64 * 1024
RETRY_AFTER_S = 1


class SourcePushSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach a module, and what its operator knows of its key.

    ``module`` is the name in the certificate with which the module pushes. ``url`` is everything before
    ``/open-connect``. ``source``, ``destination`` and ``chunk_bytes`` are the same at both ends.
    """

    module: str
    url: str
    source: str
    destination: str
    chunk_bytes: int
    server_name: str | None = None
    report: SourceReport


class KeyMetadata(msgspec.Struct, frozen=True):
    """Metadata of a pushed chunk; ``buffer`` names the stream, ``key_stream_id``, if there are several."""

    buffer: dict[str, Any] | str | None = None


class PushedKey(msgspec.Struct, frozen=True):
    """The body of a push. ``key_buffer`` is base64."""

    status: int
    index: int
    key_buffer: str
    metadata: KeyMetadata | None = None

    def __repr__(self) -> str:
        return f"PushedKey(index={self.index})"


class SourcePush:
    """One end of a link whose module pushes its key."""

    def __init__(self, settings: SourcePushSettings, tls: Callable[[], ssl.SSLContext]) -> None:
        self.module = settings.module
        self.chunks_refused = 0
        self._settings, self._tls = settings, tls
        self._session: aiohttp.ClientSession | None = None
        self._led: UUID | None = None
        self._begun = False
        self._streams: dict[UUID, _Stream] = {}
        self._joined: set[UUID] = set()
        self._strays: set[UUID] = set()
        self._still_since_s: float | None = None
        self._late: tuple[str, float] | None = None

    async def prepare(self) -> str | None:
        """Open a stream if there is none, at the leading end; return what to tell the other end of it."""
        await self._close_strays()
        if self._led is not None:
            return None
        ksid, chunk_bytes = await self._open(None, self._settings.chunk_bytes)
        self._stream(ksid).chunk_bytes = chunk_bytes
        self._led, self._begun, self._still_since_s = ksid, False, None
        return f"{ksid}:{chunk_bytes}"

    async def join(self, text: str) -> None:
        """Open the stream that the leading end tells of, at the other end, and let the module begin."""
        ksid, chunk_bytes = parse_name(text)
        await self._close_strays()
        await self._join(ksid, chunk_bytes)

    def take_in(self, pushed: PushedKey) -> None:
        """Put a pushed chunk into the buffer; the same one twice is as good as once.

        RequestRefused 503 if the buffer is full, 400 for what is no chunk, or another one of its index.
        """
        if pushed.status != Status.SUCCESS:
            return  # the module tells that it has no key now
        document = _document(pushed.metadata)
        stream = self._pushed_stream(self._ksid_of(document))
        with _key_of(pushed) as key:
            if pushed.index < stream.next_index:
                return  # it was passed over, or used: the module has not heard our answer
            waiting = stream.waiting.get(pushed.index)
            if waiting is not None and equal(waiting.key.reveal(), key.reveal()):
                return
            if waiting is not None or stream.chunk_bytes not in (0, len(key)):
                raise RequestRefused(400, "the chunk is not the one that was agreed on, or pushed before")
            self._make_room(len(key))
            report = report_in(self._settings.report, document)
            stream.put(pushed.index, _Waiting(SecretBytes(key.reveal()), report))

    async def draw(self, length_bytes_max: int) -> SuppliedKey:
        """Take what was pushed, in order of index, up to ``length_bytes_max``."""
        stream = self._streams.get(self._led) if self._led is not None else None
        if stream is None or self._led is None:
            raise KeyUnavailable("no stream is open at the module", wanted_bytes=1, available_bytes=0)
        if not self._begun:
            await self._begin(self._led)
            self._begun = True
        indices, length_bytes = stream.first(length_bytes_max)
        if length_bytes <= DEPOSIT_BYTES_MIN:
            await self._stand_still()
            raise KeyUnavailable(
                "the module has pushed too little key yet",
                wanted_bytes=DEPOSIT_BYTES_MIN + 1,
                available_bytes=length_bytes,
            )
        self._still_since_s = None
        key, report = stream.taken(indices)
        names = tuple(f"{self._led}:{index}" for index in indices)
        if indices[-1] == UINT32_MAX:
            await self._end_led()  # the index has 32 bits: another stream follows
        return SuppliedKey(names, key, report)

    async def draw_named(self, key_ids: Sequence[str], length_bytes: int) -> tuple[SecretBytes, SourceReport]:
        """Take the chunks of these names, at the other end; all of them, or none yet."""
        ksid, indices = _names_of(key_ids, length_bytes)
        chunk_bytes = length_bytes // len(indices)
        await self._join(ksid, chunk_bytes)
        stream = self._stream(ksid)
        stream.pass_over(indices[0])
        missing = [index for index in indices if index not in stream.waiting]
        if missing:
            skipped = any(index > missing[-1] for index in stream.waiting)
            self._check_late(key_ids[0], SKIPPED_S_MAX if skipped else NAMED_S_MAX)
            raise KeyUnavailable(
                "the module has not pushed the peer's chunks yet",
                wanted_bytes=length_bytes,
                available_bytes=0,
            )
        self._late = None
        key, report = stream.taken(indices)
        if len(key) != length_bytes:
            have = len(key)
            key.wipe()
            raise PeerMisbehaved(f"the module's chunks have {have} bytes, the peer's {length_bytes}")
        return key, report

    async def describe(self) -> str:
        """Make sure that the module answers; opens no stream and draws no key."""
        code, _ = await self._ask("PUT", "close", {"key_stream_id": str(uuid4())})
        if code in (401, 403, 404):
            raise PeerMisbehaved(f"{self._module} answers {code}: expected the push form of ETSI GS QKD 004")
        return "answers calls of ETSI GS QKD 004, push form"

    async def close(self) -> None:
        """Give the stream up, close the connection, wipe what waits."""
        if self._session is not None and self._led is not None:
            await self._end_led()
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        for stream in self._streams.values():
            stream.wipe()
        self._streams.clear()

    @property
    def _module(self) -> str:
        return f"the module {self.module} at {self._settings.url}"

    def _ksid_of(self, document: object) -> UUID:
        """Return the stream of a push: the one that it names, or the only one."""
        named = document.get("key_stream_id") if isinstance(document, dict) else None
        if named is None and self._led is not None:
            return self._led
        if named is None and len(self._streams) == 1:
            return next(iter(self._streams))
        try:
            return UUID(named) if isinstance(named, str) else UUID("")
        except ValueError:
            raise RequestRefused(400, "metadata.buffer.key_stream_id shall name the key stream") from None

    def _pushed_stream(self, ksid: UUID) -> "_Stream":
        """Return the buffer for a push; RequestRefused 400 for a stream that nobody will name chunks of.

        Such a one was open before this node started again, or before the present ones; it is closed. While
        no stream is open yet, what is pushed is kept: the other end may be about to name it.
        """
        wanted = ksid == self._led if self._led is not None else ksid in self._streams or not self._joined
        if not wanted:
            if len(self._strays) < STRAYS_MAX:
                self._strays.add(ksid)
            raise RequestRefused(400, "the key stream is not open")
        return self._stream(ksid)

    def _make_room(self, length_bytes: int) -> None:
        """Refuse a chunk for which there is no room: the module offers it again later."""
        held_bytes = sum(stream.held_bytes for stream in self._streams.values())
        chunks = sum(len(stream.waiting) for stream in self._streams.values())
        if held_bytes + length_bytes > BUFFER_BYTES_MAX or chunks >= CHUNKS_MAX:
            self.chunks_refused += 1
            headers = {"Retry-After": str(RETRY_AFTER_S)}
            raise RequestRefused(503, "no room for more key now", headers=headers)

    async def _close_strays(self) -> None:
        while self._strays:
            await self._give_up(self._strays.pop())

    def _stream(self, ksid: UUID) -> "_Stream":
        """Return a stream's buffer; making a new one drops the oldest."""
        stream = self._streams.get(ksid)
        if stream is None:
            while len(self._streams) >= STREAMS_KEPT:
                oldest = next(iter(self._streams))
                self._streams.pop(oldest).wipe()
                if oldest in self._joined:
                    self._joined.discard(oldest)
                    self._strays.add(oldest)
            stream = self._streams[ksid] = _Stream()
        return stream

    async def _stand_still(self) -> None:
        """Give a stream up of which nothing has come for long."""
        if self._led is None:
            return
        if self._still_since_s is None:
            self._still_since_s = time.monotonic()
        if time.monotonic() - self._still_since_s > STILL_S_MAX:
            await self._end_led()

    async def _end_led(self) -> None:
        led, self._led = self._led, None
        if led is not None:
            self._streams.pop(led, _Stream()).wipe()
            await self._give_up(led)

    async def _give_up(self, ksid: UUID) -> None:
        """``close``; if that fails, the module goes on pushing, and is told again."""
        with suppress(OSError, PeerMisbehaved):
            await self._ask("PUT", "close", {"key_stream_id": str(ksid)})

    async def _join(self, ksid: UUID, chunk_bytes: int) -> None:
        """Open a stream of the leading end at our module; one that we had open before is in use, by us."""
        if ksid in self._joined:
            return
        self._stream(ksid).chunk_bytes = chunk_bytes
        await self._open(ksid, chunk_bytes)
        self._joined.add(ksid)
        try:
            await self._begin(ksid)
        except BaseException:
            self._joined.discard(ksid)
            raise

    async def _open(self, ksid: UUID | None, chunk_bytes: int) -> tuple[UUID, int]:
        """``open-connect``; takes a counter-proposal, unless it changes the chunks of a stream that is there.

        Returns KSID and length of chunks.
        """
        wanted: dict[str, Any] = {"key_chunk_size": chunk_bytes, "metadata_mimetype": JSON_MIME}
        opened = await self._opened(ksid, wanted)
        proposed = opened.qos
        if opened.status == Status.QOS_NOT_MET and proposed is not None:
            asked = chunk_bytes if ksid is not None else proposed.key_chunk_size or chunk_bytes
            opened = await self._opened(ksid, {**_stated(proposed), "key_chunk_size": asked})
        if ksid is not None and opened.status == Status.KSID_IN_USE:
            return ksid, chunk_bytes
        if opened.status not in (Status.SUCCESS, Status.PEER_NOT_CONNECTED):
            raise KeyUnavailable(
                f"{self._module} opens no stream (status {opened.status})", wanted_bytes=1, available_bytes=0
            )
        given = opened.qos.key_chunk_size if opened.qos is not None else None
        try:
            named = UUID(opened.key_stream_id) if opened.key_stream_id is not None else ksid
        except ValueError:
            named = None
        if named is None or (ksid is not None and named != ksid):
            raise PeerMisbehaved(f"{self._module} opens a stream without the right key_stream_id")
        if not 1 <= (given or chunk_bytes) <= CHUNK_BYTES_MAX or (
            ksid is not None and given not in (None, chunk_bytes)
        ):
            raise PeerMisbehaved(f"{self._module} gives chunks of {given} bytes, expected {chunk_bytes}")
        return named, given or chunk_bytes

    async def _opened(self, ksid: UUID | None, qos: dict[str, Any]) -> "_Opened":
        body: dict[str, Any] = {
            "source": self._settings.source,
            "destination": self._settings.destination,
            "qos": qos,
        }
        if ksid is not None:
            body["key_stream_id"] = str(ksid)
        code, content = await self._ask("POST", "open-connect", body)
        try:
            opened = msgspec.json.decode(content, type=_Opened)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise PeerMisbehaved(
                f"{self._module} answers open-connect with {code} and what cannot be read: {error}"
            ) from None
        if code >= 300 and opened.status in (Status.SUCCESS, Status.PEER_NOT_CONNECTED):
            raise PeerMisbehaved(f"{self._module} answers open-connect with {code}")
        return opened

    async def _begin(self, ksid: UUID) -> None:
        """``get-key``: the module may push from now on."""
        code, _ = await self._ask("GET", "get-key", {"key_stream_id": str(ksid), "index": 0})
        if code >= 300:
            raise KeyUnavailable(
                f"{self._module} answers get-key with {code}", wanted_bytes=1, available_bytes=0
            )

    async def _ask(self, method: str, call: str, body: dict[str, Any]) -> tuple[int, bytes]:
        """Send one request; return the code and the body of the answer. No answer ever holds key."""
        session = self._session
        if session is None:
            session = self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._tls(), limit=2),
                timeout=aiohttp.ClientTimeout(total=REQUEST_S_MAX, connect=5.0),
            )
        url = f"{self._settings.url.rstrip('/')}/{call}"
        try:
            async with session.request(
                method, url, json=body, server_hostname=self._settings.server_name
            ) as answer:
                content = bytearray()
                async for part in answer.content.iter_any():
                    content += part
                    if len(content) > ANSWER_BYTES_MAX:
                        raise PeerMisbehaved(
                            f"{self._module} answers with more than {ANSWER_BYTES_MAX} bytes"
                        )
                return answer.status, bytes(content)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ConnectionError(f"{self._module} cannot be reached: {error}") from None

    def _check_late(self, first_name: str, late_s_max: float) -> None:
        """Give a deposit up whose chunks do not come: the line between the KMEs must not stand still."""
        if self._late is None or self._late[0] != first_name:
            self._late = first_name, time.monotonic()
        if time.monotonic() - self._late[1] > late_s_max:
            self._late = None
            raise IntegrityError(f"{self._module} has not pushed the peer's chunks for {late_s_max:.0f} s")


class _Stream:
    """The chunks of a stream that wait, by index; those below ``next_index`` are used or passed over."""

    def __init__(self) -> None:
        self.waiting: dict[int, _Waiting] = {}
        self.held_bytes = 0
        self.next_index = 0
        self.chunk_bytes = 0
        """Length of every chunk; 0 while it is not known."""

    def put(self, index: int, chunk: "_Waiting") -> None:
        """Let a chunk wait."""
        self.waiting[index] = chunk
        self.held_bytes += len(chunk.key)

    def first(self, length_bytes_max: int) -> tuple[list[int], int]:
        """Return the first indices that wait, and how many bytes they have together."""
        indices: list[int] = []
        length_bytes = 0
        for index in sorted(self.waiting)[:KEY_IDS_MAX]:
            chunk_bytes = len(self.waiting[index].key)
            if length_bytes + chunk_bytes > length_bytes_max:
                break
            indices.append(index)
            length_bytes += chunk_bytes
        return indices, length_bytes

    def pass_over(self, index: int) -> None:
        """Wipe what lies before an index: the leading end uses chunks in rising order."""
        for before in [each for each in self.waiting if each < index]:
            with self.waiting.pop(before).key as key:
                self.held_bytes -= len(key)
        self.next_index = max(self.next_index, index)

    def taken(self, indices: Sequence[int]) -> tuple[SecretBytes, SourceReport]:
        """Join chunks, in rising order, into one key; they and what lies before them wait no longer."""
        chunks = [self.waiting.pop(index) for index in indices]
        self.pass_over(indices[-1] + 1)
        key = SecretBytes(b"")
        for chunk in chunks:
            with chunk.key:
                self.held_bytes -= len(chunk.key)
                key.reveal().extend(chunk.key.reveal())
        return key, reduce(worse, (chunk.report for chunk in chunks))

    def wipe(self) -> None:
        """Forget everything."""
        for chunk in self.waiting.values():
            chunk.key.wipe()
        self.waiting.clear()
        self.held_bytes = 0


class _Waiting:
    """A chunk that was pushed, and what is known of it."""

    def __init__(self, key: SecretBytes, report: SourceReport) -> None:
        self.key, self.report = key, report


class _Qos(msgspec.Struct, frozen=True):
    key_chunk_size: int | None = None
    max_bps: int | None = None
    min_bps: int | None = None
    jitter: int | None = None
    priority: int | None = None
    timeout: int | None = None
    ttl: int | None = None
    metadata_mimetype: str | None = None


class _Opened(msgspec.Struct, frozen=True):
    status: int = 0
    key_stream_id: str | None = None
    qos: _Qos | None = None


def _stated(qos: _Qos) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(qos).items() if value is not None}


def _document(metadata: KeyMetadata | None) -> object:
    """Return the metadata of a push, which may be an object or its text."""
    buffer = metadata.buffer if metadata is not None else None
    if not isinstance(buffer, str):
        return buffer
    try:
        document: object = msgspec.json.decode(buffer) if buffer else None
    except (msgspec.DecodeError, RecursionError):
        raise RequestRefused(400, "metadata.buffer cannot be read") from None
    return document


def _key_of(pushed: PushedKey) -> SecretBytes:
    """Return the key of a push; the caller wipes it."""
    if not 0 <= pushed.index <= UINT32_MAX:
        raise RequestRefused(400, "index shall be a number of 32 bits")
    try:
        key = SecretBytes(b64decode(pushed.key_buffer, validate=True))
    except (binascii.Error, ValueError):
        raise RequestRefused(400, "key_buffer shall be base64") from None
    if not 1 <= len(key) <= CHUNK_BYTES_MAX:
        key.wipe()
        raise RequestRefused(400, f"key_buffer shall have 1 to {CHUNK_BYTES_MAX} bytes")
    return key


def _names_of(key_ids: Sequence[str], length_bytes: int) -> tuple[UUID, list[int]]:
    """Return stream and indices of the names of a deposit; PeerMisbehaved if they make no sense."""
    if not 1 <= len(key_ids) <= KEY_IDS_MAX or not 0 < length_bytes <= DEPOSIT_BYTES_MAX:
        raise PeerMisbehaved(f"the peer names {len(key_ids)} chunks with {length_bytes} bytes in all")
    names = [parse_name(name) for name in key_ids]
    indices = [index for _, index in names]
    if len({ksid for ksid, _ in names}) != 1 or indices != sorted(set(indices)):
        raise PeerMisbehaved("the peer names chunks of several streams, or not in order")
    if length_bytes % len(indices):
        raise PeerMisbehaved("the peer names chunks of different lengths")
    return names[0][0], indices
