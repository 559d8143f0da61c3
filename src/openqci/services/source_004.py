"""QKD modules that speak ETSI GS QKD 004 (V2.1.1) as a source of link key.

The node is an application of its module's key stream server, in the encoding of
:mod:`openqci.delivery.etsi004_model`. The end that leads opens a stream without a KSID, so that its module
assigns one, and tells it to the other end over the line between the two KMEs, which opens the same stream at
its own module. Then the leading end draws chunks in order; a chunk's name is ``KSID:index``, and by these
names the other end draws the same.

An index is given once: a chunk whose answer was lost is lost, and the next one follows. A stream that gives
nothing for long, because the module has forgotten it or its chunks have expired, is given up, and another
opened; a node that starts again opens another, too. What a module tells of a chunk in its metadata
(``openqci_source``, or the ``openqci_provenance`` of another OpenQCI node) goes as in
:mod:`openqci.services.source_014`: key is simulated if either end, the module or the configuration says so
(invariant I7).
"""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import reduce
from typing import Protocol, TypeVar
from uuid import UUID, uuid4

import msgspec

from openqci.core.errors import IntegrityError, KeyUnavailable, PeerMisbehaved
from openqci.core.keys import SecretBytes
from openqci.delivery.etsi004_model import (
    JSON_MIME,
    NIL,
    UINT32_MAX,
    Chunk,
    OpenConnect,
    Opened,
    QoS,
    Status,
)
from openqci.keystore.deposits import DEPOSIT_BYTES_MAX, DEPOSIT_BYTES_MIN, KEY_IDS_MAX, worse
from openqci.keystore.supply import SourceReport, SuppliedKey
from openqci.services.client_004 import Client004
from openqci.services.source_014 import SOURCE_EXTENSION, said_report

Result = TypeVar("Result")

TIMEOUT_MS = 500
"""How long the module may hold a request for a chunk that it has not yet."""

TTL_S = 3600
"""How long the module should keep chunks for the other end, if it can."""

CHUNKS_PER_DRAW_MAX = 1024
DRAW_S_MAX = 3.0
"""A drawing ends after so many chunks, or so long, with what there is then."""

STILL_S_MAX = 30.0
"""A stream that has given nothing for so long, though it was asked, is given up, and another opened: the
other end has not joined it, or what it held has expired."""

NAMED_S_MAX = 60.0
"""Chunks that the leading end has drawn and that do not come here for so long are taken for lost."""

STREAMS_KEPT = 2
"""Streams that the following end keeps open: the present one, and the one before, whose last chunks may
still be asked for."""

IDLE_S_MAX = 60.0
"""A connection idle for longer is made anew: the module may be closing it, and a chunk that is asked for then
is lost."""

METADATA_ROOM_BYTES, METADATA_BYTES_MAX = 1024, 16 * 1024
CLOSE_S_MAX = 2.0

OPEN = (Status.SUCCESS, Status.PEER_NOT_CONNECTED)
NOT_NOW = (Status.INSUFFICIENT_KEY, Status.TIMEOUT, Status.NO_PEER)


class Source004Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach a module's stream server, and what its operator knows of its key.

    ``source``, ``destination`` and ``chunk_bytes`` are the same at both ends; one of the two URIs names this
    node, as its certificate for the module does. ``server_name`` is what the module's certificate must bear.
    """

    host: str
    port: int
    source: str
    destination: str
    chunk_bytes: int
    server_name: str | None = None
    report: SourceReport


class StreamClient(Protocol):
    """One connection to a module's stream server: what :class:`Client004` does, with its errors."""

    async def open_connect(self, request: OpenConnect) -> Opened:
        """OPEN_CONNECT."""

    async def get_key(self, ksid: UUID, index: int, metadata_size: int, wait_s: float) -> Chunk:
        """GET_KEY."""

    async def close_stream(self, ksid: UUID) -> Status:
        """CLOSE."""

    def close(self) -> None:
        """Close the connection; streams stay open."""


class Source004:
    """One end of a link whose module speaks ETSI GS QKD 004.

    ``connect`` opens a connection to it, by TLS if nothing else is given.
    """

    def __init__(
        self,
        settings: Source004Settings,
        tls: Callable[[], ssl.SSLContext],
        connect: Callable[[], Awaitable[StreamClient]] | None = None,
    ) -> None:
        self.answers_lost = 0
        self._settings, self._tls = settings, tls
        self._connect = connect or self._connect_by_tls
        self._connection: StreamClient | None = None
        self._used_s = 0.0
        self._led: _LedStream | None = None
        self._held: dict[str, _Drawn] = {}
        """Chunks that were drawn and not given out yet: at the leading end too few for a deposit, at the
        other those of a deposit whose last ones have not come. A module gives a chunk only once."""
        self._joined: deque[UUID] = deque()
        self._late: tuple[str, float] | None = None

    async def prepare(self) -> str | None:
        """Open a stream if there is none, at the leading end; return what to tell the other end of it."""
        if self._led is not None:
            return None
        opened = await self._open(NIL, self._settings.chunk_bytes)
        if opened.status not in OPEN or opened.ksid is None or opened.ksid == NIL or opened.qos is None:
            raise ConnectionError(f"{self._module} opens no stream: {opened.status.name}")
        self._led = _LedStream(opened.ksid, opened.qos.chunk_bytes)
        return f"{opened.ksid}:{opened.qos.chunk_bytes}"

    async def join(self, text: str) -> None:
        """Open the stream that the leading end tells of, at the other end."""
        ksid, chunk_bytes = parse_name(text)
        await self._join(ksid, chunk_bytes)

    async def draw(self, length_bytes_max: int) -> SuppliedKey:
        """Draw the next chunks, as many as there are now."""
        if self._led is None:
            raise KeyUnavailable("no stream is open at the module", wanted_bytes=1, available_bytes=0)
        await self._draw_chunks(self._led, length_bytes_max)
        held_bytes = sum(len(drawn.key) for drawn in self._held.values())
        if held_bytes <= DEPOSIT_BYTES_MIN:
            raise KeyUnavailable(
                "the module has too little key now",
                wanted_bytes=DEPOSIT_BYTES_MIN + 1,
                available_bytes=held_bytes,
            )
        names = tuple(self._held)
        key, report = self._given_out(names)
        return SuppliedKey(names, key, report)

    async def draw_named(self, key_ids: Sequence[str], length_bytes: int) -> tuple[SecretBytes, SourceReport]:
        """Draw the chunks of these names, at the other end."""
        if not 1 <= len(key_ids) <= KEY_IDS_MAX or not 0 < length_bytes <= DEPOSIT_BYTES_MAX:
            raise PeerMisbehaved(f"the peer names {len(key_ids)} chunks with {length_bytes} bytes in all")
        if len(set(key_ids)) != len(key_ids) or length_bytes % len(key_ids):
            raise PeerMisbehaved("the peer names one chunk twice, or chunks of different lengths")
        self._forget_others(key_ids)
        try:
            for name in key_ids:
                if name not in self._held:
                    self._held[name] = await self._named(name, length_bytes // len(key_ids))
        except KeyUnavailable:
            self._check_late(key_ids[0])
            raise
        self._late = None
        key, report = self._given_out(key_ids)
        if len(key) != length_bytes:
            key.wipe()
            raise PeerMisbehaved(f"the module's chunks have {len(key)} bytes, the peer's {length_bytes}")
        return key, report

    async def describe(self) -> str:
        """Make sure that the module answers calls of the standard; opens no stream and draws no key."""
        unknown = uuid4()
        status = await self._call(lambda client: client.close_stream(unknown))
        if status is Status.SUCCESS:
            raise PeerMisbehaved(f"{self._module} closes a stream that was never open (ETSI GS QKD 004)")
        return "answers calls of ETSI GS QKD 004"

    async def close(self) -> None:
        """Give the stream up and close the connection; what the other end has yet to draw stays there."""
        led, self._led = self._led, None
        if led is not None and self._connection is not None:
            await self._give_up(led.ksid)
        self._hang_up()
        for drawn in self._held.values():
            drawn.key.wipe()
        self._held.clear()

    @property
    def _module(self) -> str:
        return f"the module at {self._settings.host}:{self._settings.port}"

    async def _draw_chunks(self, led: "_LedStream", length_bytes_max: int) -> None:
        """Draw chunks of the stream that we lead, in order, until enough is held or none comes."""
        until_s = time.monotonic() + DRAW_S_MAX
        while time.monotonic() < until_s and len(self._held) < CHUNKS_PER_DRAW_MAX:
            if sum(len(drawn.key) for drawn in self._held.values()) + led.chunk_bytes > length_bytes_max:
                return
            if led.next_index > UINT32_MAX:
                await self._end_led(led)  # the index has 32 bits: another stream follows
                return
            chunk = await self._next_chunk(led)
            if chunk is None:
                return
            self._held[f"{led.ksid}:{led.next_index - 1}"] = chunk

    async def _next_chunk(self, led: "_LedStream") -> "_Drawn | None":
        """Ask for the next chunk of the stream that we lead; None if there is none now.

        A chunk that is not there yet is asked for again; one whose answer was lost is not.
        """
        index = led.next_index
        led.next_index = index + 1
        chunk = await self._chunk(led.ksid, index)
        if chunk.status is Status.SUCCESS:
            led.still_since_s = None
            return self._drawn(chunk, index, led.chunk_bytes)
        led.next_index = index
        if led.still_since_s is None:
            led.still_since_s = time.monotonic()
        still_s = time.monotonic() - led.still_since_s
        if chunk.status not in NOT_NOW or still_s > STILL_S_MAX:
            await self._end_led(led)
        return None

    async def _named(self, name: str, chunk_bytes: int) -> "_Drawn":
        """Ask for one chunk by its name; KeyUnavailable if it may come later, IntegrityError if not."""
        ksid, index = parse_name(name)
        await self._join(ksid, chunk_bytes)
        chunk = await self._chunk(ksid, index)
        if chunk.status is Status.SUCCESS:
            return self._drawn(chunk, index, chunk_bytes)
        if chunk.status in (Status.TIMEOUT, Status.NO_PEER):
            raise KeyUnavailable(
                f"chunk {index} has not come yet", wanted_bytes=chunk_bytes, available_bytes=0
            )
        raise IntegrityError(f"{self._module} does not give chunk {index}: {chunk.status.name}")

    async def _chunk(self, ksid: UUID, index: int) -> Chunk:
        """GET_KEY, with as much room for metadata as they turn out to need."""

        async def ask(client: StreamClient) -> Chunk:
            room, wait_s = METADATA_ROOM_BYTES, TIMEOUT_MS / 1000
            chunk = await client.get_key(ksid, index, room, wait_s)
            if chunk.status is Status.METADATA_TOO_SMALL and room < chunk.metadata_size <= METADATA_BYTES_MAX:
                chunk = await client.get_key(ksid, index, chunk.metadata_size, wait_s)
            return chunk

        try:
            return await self._call(ask)
        except (OSError, TimeoutError, PeerMisbehaved):
            self.answers_lost += 1
            raise

    def _drawn(self, chunk: Chunk, index: int, chunk_bytes: int) -> "_Drawn":
        """Take the key of an answer; PeerMisbehaved if it is not what was asked for."""
        key = SecretBytes(chunk.key)
        chunk.key[:] = bytes(len(chunk.key))
        if chunk.index != index or len(key) != chunk_bytes:
            key.wipe()
            raise PeerMisbehaved(
                f"asked for chunk {index} of {chunk_bytes} bytes, got chunk {chunk.index} of {len(key)} "
                "(ETSI GS QKD 004, GET_KEY)"
            )
        try:
            return _Drawn(key, report_of(self._settings.report, chunk.metadata))
        except PeerMisbehaved:
            key.wipe()
            raise

    async def _open(self, ksid: UUID, chunk_bytes: int) -> Opened:
        """OPEN_CONNECT; takes a counter-proposal, unless it changes the chunks of a stream that is there."""
        wanted = QoS(chunk_bytes, timeout_ms=TIMEOUT_MS, ttl_s=TTL_S, metadata_mimetype=JSON_MIME)
        source, destination = self._settings.source, self._settings.destination
        opened = await self._call(
            lambda client: client.open_connect(OpenConnect(source, destination, wanted, ksid))
        )
        proposed = opened.qos
        if opened.status is not Status.QOS_NOT_MET or proposed is None:
            return opened
        if not 8 <= proposed.chunk_bytes <= DEPOSIT_BYTES_MAX or (
            ksid != NIL and proposed.chunk_bytes != chunk_bytes
        ):
            return opened
        return await self._call(
            lambda client: client.open_connect(OpenConnect(source, destination, proposed, ksid))
        )

    async def _join(self, ksid: UUID, chunk_bytes: int) -> None:
        """Open a stream of the leading end, if it is not open; one that we had open before we started again
        is in use, by us.
        """
        if ksid in self._joined:
            return
        opened = await self._open(ksid, chunk_bytes)
        if opened.status not in (*OPEN, Status.KSID_IN_USE):
            raise KeyUnavailable(
                f"{self._module} does not join the stream ({opened.status.name})",
                wanted_bytes=chunk_bytes,
                available_bytes=0,
            )
        self._joined.append(ksid)
        while len(self._joined) > STREAMS_KEPT:
            await self._give_up(self._joined.popleft())

    async def _end_led(self, led: "_LedStream") -> None:
        self._led = None
        await self._give_up(led.ksid)

    async def _give_up(self, ksid: UUID) -> None:
        """CLOSE; if that fails, the module closes the stream when nobody has used it for long."""
        with suppress(OSError, TimeoutError, PeerMisbehaved):
            async with asyncio.timeout(CLOSE_S_MAX):
                await self._call(lambda client: client.close_stream(ksid))

    async def _connect_by_tls(self) -> StreamClient:
        settings = self._settings
        return await Client004.connect(settings.host, settings.port, self._tls(), settings.server_name)

    async def _call(self, ask: Callable[[StreamClient], Awaitable[Result]]) -> Result:
        """Make one call; a connection on which it failed is not used again, since it may be out of step."""
        if time.monotonic() - self._used_s > IDLE_S_MAX:
            self._hang_up()
        self._used_s = time.monotonic()
        try:
            if self._connection is None:
                self._connection = await self._connect()
            return await ask(self._connection)
        except (OSError, TimeoutError) as error:
            self._hang_up()
            raise ConnectionError(f"{self._module} cannot be reached ({_reason(error)})") from None
        except BaseException:
            self._hang_up()
            raise

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _given_out(self, names: Sequence[str]) -> tuple[SecretBytes, SourceReport]:
        """Join held chunks into one key; they are held no longer."""
        drawn = [self._held.pop(name) for name in names]
        key = SecretBytes.joined(each.key for each in drawn)
        for each in drawn:
            each.key.wipe()
        return key, reduce(worse, (each.report for each in drawn))

    def _forget_others(self, names: Iterable[str]) -> None:
        """Wipe chunks of a deposit that is not asked for any more: one of a link is under way at a time."""
        for name in self._held.keys() - set(names):
            self._held.pop(name).key.wipe()

    def _check_late(self, first_name: str) -> None:
        """Give a deposit up whose chunks do not come: the line between the KMEs must not stand still."""
        if self._late is None or self._late[0] != first_name:
            self._late = first_name, time.monotonic()
        if time.monotonic() - self._late[1] > NAMED_S_MAX:
            self._late = None
            raise IntegrityError(f"{self._module} has not given the peer's chunks for {NAMED_S_MAX:.0f} s")


class _LedStream:
    """The stream that the leading end draws from."""

    def __init__(self, ksid: UUID, chunk_bytes: int) -> None:
        self.ksid, self.chunk_bytes = ksid, chunk_bytes
        self.next_index = 0
        self.still_since_s: float | None = None


class _Drawn:
    """A chunk that the module has given, and what is known of it."""

    def __init__(self, key: SecretBytes, report: SourceReport) -> None:
        self.key, self.report = key, report


def parse_name(name: str) -> tuple[UUID, int]:
    """Return KSID and number of a name; PeerMisbehaved if it is none.

    >>> parse_name("6b2f7a52-6f0c-4f4e-9d64-0f3b6f3e1c55:7")[1]
    7
    """
    text, separator, number = name.partition(":")
    try:
        ksid = UUID(text)
        value = int(number) if number.isascii() and number.isdigit() and len(number) <= 10 else -1
    except ValueError:
        value = -1
    if not separator or value < 0 or value > UINT32_MAX or str(ksid) != text or ksid == NIL:
        raise PeerMisbehaved(f"{name[:80]!r} is no name of a chunk; expected KSID:index")
    return ksid, value


def report_of(configured: SourceReport, metadata: bytes) -> SourceReport:
    """Return what a module tells of a chunk where it tells it, else what is configured.

    >>> report_of(SourceReport("BB84", "stated", 1e-9, False), b'{"age":1,"hops":1}').protocol
    'BB84'
    """
    try:
        document = msgspec.json.decode(metadata)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return configured  # metadata are the module's own affair
    return report_in(configured, document)


def report_in(configured: SourceReport, document: object) -> SourceReport:
    """Return what the document of a chunk's metadata tells of it where it does, else what is configured."""
    if not isinstance(document, dict):
        return configured
    made = document.get("openqci_provenance")
    simulated = isinstance(made, dict) and made.get("simulated") is True
    return said_report(configured, [document.get(SOURCE_EXTENSION), {"simulated": simulated}])


def _reason(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
