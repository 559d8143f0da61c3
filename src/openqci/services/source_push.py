"""QKD modules that push their key: the JSON form of ETSI GS QKD 004 between a module and its key manager.

Published as "ETSI GS QKD 004 push mode" by the Austrian Institute of Technology (1.0.1). The node opens a
stream at its module by HTTPS (``open-connect``) and says that it may begin (``get-key``); from then on the
module posts each chunk, as it is made, to the node's own listener (:mod:`openqci.services.module_app`). As
with :mod:`openqci.services.source_004` the end that leads opens the stream, the other end is told its KSID
and opens it at its own module, and a chunk's name is ``KSID:index``.

What was pushed is in the store before the module hears that it is there (:mod:`openqci.keystore.pushed`), and
leaves it in the transaction that makes a deposit of it: a crash at either end loses nothing. Room is bounded;
when there is none a chunk is refused, and the module offers it again later. Both ends use the chunks of a
stream in rising order of index: what one end never got is passed over by both. A node that starts again goes
on with its stream.
"""

import binascii
import ssl
import time
from base64 import b64decode
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar
from uuid import UUID, uuid4

import aiohttp
import msgspec

from openqci.core.errors import IntegrityError, KeyUnavailable, PeerMisbehaved, RequestRefused
from openqci.core.identifiers import KmeId
from openqci.core.keys import SecretBytes
from openqci.delivery.etsi004_model import JSON_MIME, UINT32_MAX, Status
from openqci.keystore import pushed
from openqci.keystore.deposits import DEPOSIT_BYTES_MAX, DEPOSIT_BYTES_MIN, KEY_IDS_MAX
from openqci.keystore.ports import KmeView, StoreTransaction
from openqci.keystore.pushed import PushedStream
from openqci.keystore.supply import SourceReport, SuppliedKey
from openqci.services.source_004 import parse_name, report_in

Result = TypeVar("Result")

CHUNK_BYTES_MAX = 64 * 1024
NOT_OPEN = "the key stream is not open"
STRAYS_MAX = 16
"""Streams that nobody reads any more and that wait for being closed."""

STILL_S_MAX = 300.0
"""A stream of which nothing came for so long, though there was need, is given up, and another opened."""

GONE_MAX = 2
"""When the other end had not the chunks of so many deposits, one after the other, what waits here is of no
use either: another stream is opened."""

NAMED_S_MAX = 60.0
"""Chunks that the leading end has got and that do not come here for so long are taken for lost."""

SKIPPED_S_MAX = 5.0
"""The same where the module has pushed later chunks already: it pushes in rising order."""

REQUEST_S_MAX = 10.0
ANSWER_BYTES_MAX = 64 * 1024


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


class ModuleLine(Protocol):
    """Brings one call to a module, and its answer back."""

    async def request(self, method: str, call: str, body: dict[str, Any]) -> tuple[int, bytes]:
        """Return code and body of the answer; OSError if there is none. No answer ever holds key."""

    async def close(self) -> None:
        """Close connections; the next request opens others."""


class KeyStore(Protocol):
    """The part of a key store that a source needs."""

    async def run(self, work: Callable[[StoreTransaction], Result]) -> Result:
        """Run ``work`` in one transaction; return when what it did is durable."""


@dataclass(frozen=True)
class PushRoom:
    """Where the chunks of one link are kept."""

    store: KeyStore
    kme: KmeId
    link: str

    async def run(self, work: Callable[[KmeView, str], Result]) -> Result:
        """Do a work over the KME's rooms and the link in one transaction."""
        return await self.store.run(lambda tx: work(KmeView(tx, self.kme), self.link))


class SourcePush:
    """One end of a link whose module pushes its key."""

    def __init__(self, settings: SourcePushSettings, line: ModuleLine, room: PushRoom) -> None:
        self.module = settings.module
        self.chunks_refused = 0
        self._settings, self._line, self._room = settings, line, room
        self._told = self._begun = self._joined = ""
        """The streams of which, in this life, the other end was told, and our module to begin; at the other
        end the one that was opened."""
        self._strays: set[UUID] = set()
        self._still_since_s: float | None = None
        self._late: tuple[str, float] | None = None
        self._gone_in_a_row = 0

    async def prepare(self) -> str | None:
        """Open a stream if there is none, at the leading end; return what to tell the other end of it."""
        await self._close_strays()
        stream = await self._room.run(pushed.current)
        last = stream is not None and stream.next_index > UINT32_MAX  # the index has 32 bits
        if stream is not None and (last or self._gone_in_a_row >= GONE_MAX):
            await self._end(stream)
            stream = None
        if stream is None:
            ksid, chunk_bytes = await self._open(None, self._settings.chunk_bytes)
            await self._room.run(partial(pushed.begin, ksid=str(ksid), chunk_bytes=chunk_bytes))
            self._still_since_s = None
            return f"{ksid}:{chunk_bytes}"
        if self._told != stream.ksid:
            return f"{stream.ksid}:{stream.chunk_bytes}"
        await self._go_on(stream)
        return None

    async def join(self, text: str) -> None:
        """Open the stream that the leading end tells of, at the other end, and let the module begin."""
        ksid, chunk_bytes = parse_name(text)
        await self._close_strays()
        await self._join(ksid, chunk_bytes)

    async def take_in(self, chunk: PushedKey) -> None:
        """Keep a pushed chunk, durably when this returns; the same one twice is as good as once.

        RequestRefused 503 if there is no room, 400 for what is no chunk, or another one of its index, or of a
        stream that nobody will name chunks of: that is closed.
        """
        if chunk.status != Status.SUCCESS:
            return  # the module tells that it has no key now
        document = _document(chunk.metadata)
        named = _ksid_of(document)
        report = report_in(self._settings.report, document)
        with _key_of(chunk) as key:
            refused = await self._room.run(
                partial(_kept, named=named, index=chunk.index, key=key, report=report)
            )
        if refused is None:
            return
        self.chunks_refused += refused.status == 503
        if named is not None and refused.message == NOT_OPEN and len(self._strays) < STRAYS_MAX:
            self._strays.add(named)
        raise refused

    def draw_kept(self, view: KmeView, length_bytes_max: int) -> SuppliedKey:
        """Take what was pushed, in order of index, up to ``length_bytes_max``."""
        link = self._room.link
        stream = pushed.current(view, link)
        if stream is None:
            raise KeyUnavailable("no stream is open at the module", wanted_bytes=1, available_bytes=0)
        self._told = stream.ksid
        indices, length_bytes = pushed.first(view, link, length_bytes_max)
        if length_bytes <= DEPOSIT_BYTES_MIN:
            raise KeyUnavailable(
                "the module has pushed too little key yet",
                wanted_bytes=DEPOSIT_BYTES_MIN + 1,
                available_bytes=length_bytes,
            )
        key, report = pushed.take(view, link, indices)
        return SuppliedKey(tuple(f"{stream.ksid}:{index}" for index in indices), key, report)

    async def expect(self, key_ids: Sequence[str], length_bytes: int) -> None:
        """Look whether the chunks of these names are all there, at the other end."""
        ksid, indices = _names_of(key_ids, length_bytes)
        await self._close_strays()
        await self._join(ksid, length_bytes // len(indices))
        absent, skipped = await self._room.run(partial(_looked_for, indices=indices))
        if not absent:
            self._late = None
            return
        self._check_late(key_ids[0], SKIPPED_S_MAX if skipped else NAMED_S_MAX)
        raise KeyUnavailable(
            "the module has not pushed the peer's chunks yet", wanted_bytes=length_bytes, available_bytes=0
        )

    def draw_named_kept(
        self, view: KmeView, key_ids: Sequence[str], length_bytes: int
    ) -> tuple[SecretBytes, SourceReport]:
        """Take the chunks of these names, at the other end; all of them, or KeyUnavailable."""
        ksid, indices = _names_of(key_ids, length_bytes)
        stream = pushed.current(view, self._room.link)
        if stream is None or stream.ksid != str(ksid):
            raise KeyUnavailable("the stream is not open", wanted_bytes=length_bytes, available_bytes=0)
        if stream.chunk_bytes * len(indices) != length_bytes:
            have = stream.chunk_bytes * len(indices)
            raise PeerMisbehaved(f"the module's chunks have {have} bytes, the peer's {length_bytes}")
        return pushed.take(view, self._room.link, indices)

    def judged(self, accepted: bool) -> None:
        """Hear whether the other end had the chunks of a deposit."""
        self._gone_in_a_row = 0 if accepted else self._gone_in_a_row + 1

    async def describe(self) -> str:
        """Make sure that the module answers; opens no stream and draws no key."""
        code, _ = await self._line.request("PUT", "close", {"key_stream_id": str(uuid4())})
        if code in (401, 403, 404):
            raise PeerMisbehaved(f"{self._module} answers {code}: expected the push form of ETSI GS QKD 004")
        return "answers calls of ETSI GS QKD 004, push form"

    async def close(self) -> None:
        """Close the connection. The stream stays: what is pushed meanwhile is offered again."""
        await self._line.close()

    @property
    def _module(self) -> str:
        return f"the module {self.module} at {self._settings.url}"

    async def _go_on(self, stream: PushedStream) -> None:
        """Have the module begin, once in a life; give up a stream of which nothing comes though it should."""
        _, length_bytes = await self._room.run(partial(pushed.first, length_bytes_max=DEPOSIT_BYTES_MAX))
        waits = length_bytes > DEPOSIT_BYTES_MIN
        if self._begun != stream.ksid:
            try:
                await self._begin(UUID(stream.ksid))
            except KeyUnavailable:
                if not waits:
                    await self._end(stream)  # the module does not know it any more
                    raise
            else:
                self._begun = stream.ksid
        if waits:
            self._still_since_s = None
        elif self._still_since_s is None:
            self._still_since_s = time.monotonic()
        elif time.monotonic() - self._still_since_s > STILL_S_MAX:
            await self._end(stream)

    async def _close_strays(self) -> None:
        while self._strays:
            await self._give_up(self._strays.pop())

    async def _end(self, stream: PushedStream) -> None:
        """Give up the stream of the link, at the leading end."""
        await self._room.run(partial(_ended, ksid=stream.ksid))
        self._still_since_s, self._gone_in_a_row = None, 0
        await self._give_up(UUID(stream.ksid))

    async def _give_up(self, ksid: UUID) -> None:
        """``close``; if that fails, the module goes on pushing, and is told again."""
        with suppress(OSError, PeerMisbehaved):
            await self._line.request("PUT", "close", {"key_stream_id": str(ksid)})

    async def _join(self, ksid: UUID, chunk_bytes: int) -> None:
        """Open a stream of the leading end at our module; one that we had open before is in use, by us.

        What waits of another stream is destroyed: the leading end names no chunks of it any more.
        """
        known = await self._room.run(pushed.current)
        if known is None or known.ksid != str(ksid):
            await self._room.run(partial(pushed.begin, ksid=str(ksid), chunk_bytes=chunk_bytes))
            if known is not None:
                self._strays.add(UUID(known.ksid))
        if self._joined != str(ksid):
            await self._open(ksid, chunk_bytes)
            await self._begin(ksid)
            self._joined = str(ksid)

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
        code, content = await self._line.request("POST", "open-connect", body)
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
        code, _ = await self._line.request("GET", "get-key", {"key_stream_id": str(ksid), "index": 0})
        if code >= 300:
            raise KeyUnavailable(
                f"{self._module} answers get-key with {code}", wanted_bytes=1, available_bytes=0
            )

    def _check_late(self, first_name: str, late_s_max: float) -> None:
        """Give a deposit up whose chunks do not come: the line between the KMEs must not stand still."""
        if self._late is None or self._late[0] != first_name:
            self._late = first_name, time.monotonic()
        if time.monotonic() - self._late[1] > late_s_max:
            # Perhaps it has forgotten the stream: it is opened anew with the next deposit.
            self._late, self._joined = None, ""
            raise IntegrityError(f"{self._module} has not pushed the peer's chunks for {late_s_max:.0f} s")


class HttpsModuleLine:
    """HTTPS with both certificates; ``tls`` is asked for the rules at every new connection."""

    def __init__(self, settings: SourcePushSettings, tls: Callable[[], ssl.SSLContext]) -> None:
        self._settings, self._tls = settings, tls
        self._session: aiohttp.ClientSession | None = None

    async def request(self, method: str, call: str, body: dict[str, Any]) -> tuple[int, bytes]:
        """Send one request; return the code and the body of the answer."""
        session = self._session
        if session is None:
            session = self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._tls(), limit=2),
                timeout=aiohttp.ClientTimeout(total=REQUEST_S_MAX, connect=5.0),
            )
        settings = self._settings
        url = f"{settings.url.rstrip('/')}/{call}"
        try:
            async with session.request(
                method, url, json=body, server_hostname=settings.server_name
            ) as answer:
                content = bytearray()
                async for part in answer.content.iter_any():
                    content += part
                    if len(content) > ANSWER_BYTES_MAX:
                        raise PeerMisbehaved(
                            f"the module {settings.module} answers with more than {ANSWER_BYTES_MAX} bytes"
                        )
                return answer.status, bytes(content)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ConnectionError(
                f"the module {settings.module} at {settings.url} cannot be reached: {error}"
            ) from None

    async def close(self) -> None:
        """Close the connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


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


def _kept(
    view: KmeView, link: str, *, named: UUID | None, index: int, key: SecretBytes, report: SourceReport
) -> RequestRefused | None:
    """Keep a chunk of the stream that it names, or of the only one; return why not."""
    stream = pushed.current(view, link)
    if stream is None or named not in (None, UUID(stream.ksid)):
        return RequestRefused(400, NOT_OPEN)
    try:
        pushed.keep(view, link, stream.ksid, index, key, report)
    except RequestRefused as refused:
        return refused
    return None


def _looked_for(view: KmeView, link: str, *, indices: list[int]) -> tuple[bool, bool]:
    """Pass over what the leading end has; return whether chunks are missing, and whether later ones wait."""
    pushed.pass_over(view, link, indices[0])
    absent = pushed.missing(view, link, indices)
    return bool(absent), bool(absent) and pushed.waits_beyond(view, link, absent[-1])


def _ended(view: KmeView, link: str, *, ksid: str) -> None:
    """Forget a stream, unless another has taken its place."""
    stream = pushed.current(view, link)
    if stream is not None and stream.ksid == ksid:
        pushed.forget(view, link)


def _ksid_of(document: object) -> UUID | None:
    """Return the stream that the metadata of a push name, or None if they name none."""
    named = document.get("key_stream_id") if isinstance(document, dict) else None
    if named is None:
        return None
    try:
        return UUID(named) if isinstance(named, str) else UUID("")
    except ValueError:
        raise RequestRefused(400, "metadata.buffer.key_stream_id shall name the key stream") from None


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


def _key_of(chunk: PushedKey) -> SecretBytes:
    """Return the key of a push; the caller wipes it."""
    if not 0 <= chunk.index <= UINT32_MAX:
        raise RequestRefused(400, "index shall be a number of 32 bits")
    try:
        key = SecretBytes(b64decode(chunk.key_buffer, validate=True))
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
