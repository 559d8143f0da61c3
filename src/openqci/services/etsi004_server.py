"""ETSI GS QKD 004 over TLS with mutual certificates: key streams for applications.

Rules are in :mod:`openqci.delivery.etsi004`, the encoding in :mod:`openqci.delivery.etsi004_model`. Here are
the connections, and what takes time: a GET_KEY waits, up to the timeout of its stream, until its chunk has
come and until the stream's rate allows it; it holds no transaction meanwhile. A connection whose bytes are no
frame is closed without an answer (004-13); so is one that is slow to send or to read.
"""

import asyncio
import logging
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable
from typing import TypeVar
from uuid import UUID, uuid4

from openqci.core.errors import KeyUnavailable, OpenQCIError, RequestRefused, invariant
from openqci.core.identifiers import KeyId, KmeId, SaeId
from openqci.core.keys import DeliveredKey
from openqci.delivery import etsi004, etsi004_model
from openqci.delivery.directory import PeerIdentity, SaeDirectory
from openqci.delivery.etsi004 import Stream, StreamKey, StreamLimits, StreamRefused
from openqci.delivery.etsi004_model import (
    HEADER_BYTES,
    NIL,
    Close,
    FrameError,
    GetKey,
    OpenConnect,
    Opened,
    Request,
    Status,
)
from openqci.keystore.ports import KmeView, StoreTransaction
from openqci.services.accept import BODY, CROWDED, Crowd, Listening, TlsAcceptor
from openqci.services.kme import KeyStore, Observer
from openqci.services.kme_server import STOP_S_MAX, bind_all
from openqci.services.logs import about
from openqci.services.pki import peer_identity

log = logging.getLogger(__name__)

Result = TypeVar("Result")

INTERFACE = "etsi004"
IDLE_S_MAX = 900.0
"""How long a connection may say nothing between two calls; its streams stay open without it."""

FRAME_S_MAX = 10.0
"""How long the rest of a frame may take, and a client to take an answer."""

CONNECTIONS_PER_SAE_MAX = 64
PACES_MAX = 10_000
LOOK_S_MIN, LOOK_S_MAX = 0.005, 0.1
"""How often a waiting GET_KEY looks, at first and later."""

CONNECT_S_MAX = 1.0
"""How long a call waits for news of the other application before it says that there is none: the news travels
between the KMEs while the applications talk to each other."""


class StreamService:
    """The calls of ETSI GS QKD 004 at one KME. ``look`` is called when a stream wants key, ``carry``
    when there is news for the other KME.
    """

    def __init__(
        self,
        kme: KmeId,
        store: KeyStore,
        limits: StreamLimits,
        linked: Callable[[KmeId], bool],
        *,
        look: Callable[[], None] = lambda: None,
        carry: Callable[[], None] = lambda: None,
        observer: Observer | None = None,
    ) -> None:
        self._kme, self._store, self._limits, self._linked = kme, store, limits, linked
        self._look, self._carry, self._observer = look, carry, observer or Observer()
        self._next_s: dict[str, float] = {}

    async def answer(self, caller: SaeId, request: Request) -> bytearray:
        """Return the frame that answers a request; it may hold key, so the caller wipes it."""
        began_s = time.perf_counter()
        if isinstance(request, OpenConnect):
            method, (status, frame) = "open_connect", await self._opened(caller, request)
        elif isinstance(request, GetKey):
            method, (status, frame) = "get_key", await self._key(caller, request)
        else:
            method, (status, frame) = "close", await self._closed(caller, request)
        self._observer.answered(INTERFACE, method, status, time.perf_counter() - began_s)
        return frame

    async def _opened(self, caller: SaeId, request: OpenConnect) -> tuple[Status, bytearray]:
        try:
            opened = await self._run(
                lambda tx: etsi004.open_connect(
                    KmeView(tx, self._kme),
                    SaeDirectory(tx),
                    caller,
                    request,
                    uuid4(),
                    self._limits,
                    self._linked,
                    time.time(),
                )
            )
            self._carry()
            if opened.status is Status.PEER_NOT_CONNECTED and request.ksid != NIL:
                opened = await self._met(caller, opened)
        except StreamRefused as refused:
            if refused.status is Status.NO_CONNECTION:
                why = RequestRefused(401, "no right to this stream, or no QKD link for it")
                self._observer.refused(INTERFACE, "open_connect", caller, request.destination, why)
            opened = Opened(refused.status)
        return opened.status, etsi004_model.encode_opened(opened)

    async def _met(self, caller: SaeId, opened: Opened) -> Opened:
        """Wait a moment for the news that the other application has opened the stream, too."""
        give_up_s = time.monotonic() + CONNECT_S_MAX
        ksid = opened.ksid
        while ksid is not None and time.monotonic() < give_up_s:
            if (await self._stream(caller, ksid)).connected:
                return Opened(Status.SUCCESS, opened.qos, ksid)
            await asyncio.sleep(LOOK_S_MIN)
        return opened

    async def _key(self, caller: SaeId, request: GetKey) -> tuple[Status, bytearray]:
        try:
            chunk = await self._chunk(caller, request)
        except StreamRefused as refused:
            return refused.status, etsi004_model.encode_no_key(refused.status, refused.metadata_size)
        with chunk.key:
            name = DeliveredKey(KeyId(f"{request.ksid}:{chunk.index}"), chunk.key)
            self._observer.delivered(INTERFACE, "stream", caller, (SaeId(chunk.stream.peer_sae),), (name,))
            return Status.SUCCESS, etsi004_model.encode_key(chunk.index, chunk.key.reveal(), chunk.metadata)

    async def _chunk(self, caller: SaeId, request: GetKey) -> StreamKey:
        """Wait for a chunk within its stream's timeout and rate."""
        stream = await self._stream(caller, request.ksid)
        now_s = time.monotonic()
        give_up_s = now_s + stream.qos.timeout_ms / 1000
        peer_gives_up_s = now_s + min(CONNECT_S_MAX, stream.qos.timeout_ms / 1000)
        await self._pace(stream, give_up_s)
        look_s = LOOK_S_MIN
        while True:
            try:
                chunk = await self._run(
                    lambda tx: etsi004.get_key(
                        KmeView(tx, self._kme),
                        caller,
                        request.ksid,
                        request.index,
                        request.metadata_size,
                        time.time(),
                    )
                )
            except KeyUnavailable:
                if time.monotonic() >= give_up_s:
                    raise StreamRefused(Status.TIMEOUT) from None
                self._look()
            except StreamRefused as refused:
                if refused.status is not Status.NO_PEER or time.monotonic() >= peer_gives_up_s:
                    raise
            else:
                self._paced(stream)
                return chunk
            await asyncio.sleep(min(look_s, max(0.0, give_up_s - time.monotonic())))
            look_s = min(2 * look_s, LOOK_S_MAX)

    async def _closed(self, caller: SaeId, request: Close) -> tuple[Status, bytearray]:
        try:
            await self._run(lambda tx: etsi004.close(KmeView(tx, self._kme), caller, request.ksid))
        except StreamRefused as refused:
            return refused.status, etsi004_model.encode_closed(refused.status)
        self._next_s.pop(str(request.ksid), None)
        self._carry()
        return Status.SUCCESS, etsi004_model.encode_closed(Status.SUCCESS)

    async def _stream(self, caller: SaeId, ksid: UUID) -> Stream:
        return await self._run(lambda tx: etsi004.opened_stream(KmeView(tx, self._kme), caller, ksid))

    async def _pace(self, stream: Stream, give_up_s: float) -> None:
        """Wait until the stream's highest rate allows its next chunk; status 6 if that is too late."""
        wait_s = self._next_s.get(stream.ksid, 0.0) - time.monotonic()
        while wait_s > 0:
            if time.monotonic() + wait_s > give_up_s:
                await asyncio.sleep(max(0.0, give_up_s - time.monotonic()))
                raise StreamRefused(Status.TIMEOUT)
            await asyncio.sleep(wait_s)
            wait_s = self._next_s.get(stream.ksid, 0.0) - time.monotonic()

    def _paced(self, stream: Stream) -> None:
        if stream.qos.max_bps:
            if len(self._next_s) >= PACES_MAX:
                self._next_s.clear()
            after_s = 8 * stream.qos.chunk_bytes / stream.qos.max_bps
            self._next_s[stream.ksid] = max(self._next_s.get(stream.ksid, 0.0), time.monotonic()) + after_s

    async def _run(self, work: Callable[[StoreTransaction], Result]) -> Result:
        try:
            return await self._store.run(work)
        except (StreamRefused, KeyUnavailable):
            raise
        except OpenQCIError as error:
            log.error("a call of a key stream failed: %s", error)
            raise StreamRefused(Status.NO_CONNECTION) from None


class Etsi004Server:
    """Listens at one address for applications of one KME."""

    def __init__(
        self,
        service: StreamService,
        host: str,
        port: int,
        context: ssl.SSLContext,
        *,
        identity: Callable[[bytes], PeerIdentity | None] = peer_identity,
        accepts: Callable[[PeerIdentity], bool] = lambda peer: True,
    ) -> None:
        self._service, self._host, self.port, self._context = service, host, port, context
        self._identity, self._accepts = identity, accepts
        self._bound: socket.socket | None = None
        self._server: Listening | None = None
        self.crowd = Crowd()
        self._connections: dict[asyncio.Task[None], bytes] = {}
        self._of_sae: Counter[str] = Counter()

    async def start(self) -> None:
        """Listen, or raise ConfigurationError if the address cannot be used."""
        (self._bound,) = bind_all(self._host, [self.port])
        self.port = self._bound.getsockname()[1]
        await self._listen()

    async def reload(self, context: ssl.SSLContext, refused: Callable[[bytes], bool]) -> None:
        """Use other TLS rules for new connections; close those whose certificate is now ``refused``."""
        self._context = context
        earlier = self._server
        await self._listen()
        if earlier is not None:
            earlier.close()
        for connection, certificate in list(self._connections.items()):
            if refused(certificate):
                connection.cancel()

    async def stop(self) -> None:
        """Listen no longer, end every connection."""
        if self._server is not None:
            self._server.close()
        if self._bound is not None:
            self._bound.close()
        for connection in list(self._connections):
            connection.cancel()
        if self._connections:
            await asyncio.wait(list(self._connections), timeout=STOP_S_MAX)

    async def _listen(self) -> None:
        invariant(self._bound is not None, "an address is bound before it is listened at")
        if self._bound is None:
            return
        self._server = TlsAcceptor(self._bound.dup(), self._context, self._reading, self.crowd)

    def _reading(self) -> asyncio.StreamReaderProtocol:
        reader = asyncio.StreamReader(limit=2 * etsi004_model.REQUEST_BYTES_MAX)
        return asyncio.StreamReaderProtocol(reader, self._accept)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end; whatever happens, it ends closed."""
        certificate = writer.get_extra_info("ssl_object").getpeercert(True) or b""
        peer = self._identity(certificate) if certificate else None
        task = asyncio.current_task()
        if peer is None or task is None or not self._accepts(peer):
            writer.close()
            return
        if self._of_sae[peer.sae_id] >= CONNECTIONS_PER_SAE_MAX:
            self.crowd.closed[CROWDED] += 1
            writer.close()
            return
        self._connections[task] = certificate
        self._of_sae[peer.sae_id] += 1
        address = self.crowd.enter(writer.transport)
        try:
            await self._serve(reader, writer, peer.sae_id)
        except TimeoutError:
            self.crowd.closed[BODY] += 1
        except (FrameError, OSError, asyncio.IncompleteReadError) as error:
            why = error or type(error).__name__
            log.info("a connection of %s was closed: %s", peer.sae_id, why, extra=about(sae=peer.sae_id))
        except asyncio.CancelledError:
            log.debug("a connection of %s ends with the listener", peer.sae_id)
        except Exception:
            # The last resort of a server: the fault is logged, the client sees its connection close.
            log.exception("a connection of %s failed", peer.sae_id, extra=about(sae=peer.sae_id))
        finally:
            del self._connections[task]
            self._of_sae[peer.sae_id] -= 1
            self.crowd.leave(address)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, caller: SaeId) -> None:
        while True:
            try:
                async with asyncio.timeout(IDLE_S_MAX):
                    header = await reader.read(HEADER_BYTES)
            except TimeoutError:
                return
            if not header:
                return
            async with asyncio.timeout(FRAME_S_MAX):
                header += await reader.readexactly(HEADER_BYTES - len(header))
                service, length = etsi004_model.read_request_header(header)
                payload = await reader.readexactly(length)
            frame = await self._service.answer(caller, etsi004_model.decode_request(service, payload))
            try:
                writer.write(frame)  # encrypted within the call, so that it can be wiped afterwards
                async with asyncio.timeout(FRAME_S_MAX):
                    await writer.drain()
            finally:
                frame[:] = bytes(len(frame))
