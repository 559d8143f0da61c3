"""The ETSI GS QKD 014 interface of many KMEs in one process, over mutual TLS.

Each KME has a listening socket and a TLS context with a certificate of its own; one application
(:mod:`openqci.services.etsi014_app`) serves them all and learns from the connection which KME was called and
who calls. A caller's identity comes from its certificate alone (:mod:`openqci.services.tls`).

uvicorn has no public way to show a client certificate to the application; :class:`PeerProtocol` reaches
into ``HttpToolsProtocol`` and ``tests/services/test_kme_server.py`` pins
what it relies on. Nothing is logged of requests; keys are in answers and nowhere else.
"""

import asyncio
import functools
import gc
import hashlib
import http
import logging
import resource
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from openqci.core.errors import ConfigurationError, RequestRefused
from openqci.core.identifiers import KmeId
from openqci.delivery.directory import PeerIdentity
from openqci.delivery.etsi014_model import error_body
from openqci.services.accept import ANSWER, BACKLOG, BODY, CROWDED, HEAD, Crowd, Listening, TlsAcceptor
from openqci.services.etsi014_app import application
from openqci.services.kme import KmeService
from openqci.services.pki import peer_identity
from openqci.services.tls import TlsFiles

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 75
"""How long a connection may say nothing between two requests, or before its first."""

HEAD_S_MAX = 10.0
HEAD_BYTES_MAX = 16 * 1024
"""What the head of a request may take from its first byte on. The parser has no limit of its own; a head that
comes whole in one read of the transport (256 KiB) is not counted."""

REQUEST_S_MAX = 30.0
"""How long a whole request may take from its first byte on: as long as a peer waits for the answer to a turn,
which is the largest of all."""

ANSWER_S_MAX = 10.0
UNREAD_BYTES_MAX = 128 * 1024
"""How long a caller may leave answers unread, once so much waits beside what the transport has taken: that is
one answer. A single one that is not read holds no task, only its connection, and for ``KEEP_ALIVE_S``."""

LOOK_EVERY_S = 1.0
"""How often the connections are looked through for those that take longer."""

STOP_S_MAX = 8.0
"""How long a stop waits for requests in hand before it cuts their connections."""

CONTEXTS_PER_TURN = 20
"""TLS contexts made before other tasks get their turn while many KMEs start."""

OTHER_FILES = 512
CONNECTIONS_PER_KME = 2
"""Open files that a process needs beside its listening sockets, for the limit that it asks for."""

CONNECTIONS_PER_SAE_MAX = 256
"""Connections that one application may hold open; one more is closed at once, so that no application can take
all the files of the process (invariant I9)."""

PROTECTED_HEADERS = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]


@dataclass(frozen=True)
class KMEEndpoint:
    """Where one KME listens, and the PEM files of its certificate and key (may be one file)."""

    kme_id: KmeId
    port: int
    certificate: Path
    key: Path


class KMEServer:
    """Serves all ``endpoints`` from one event loop.

    ``ca`` is the PEM file of the authority whose client certificates are accepted. ``bound`` are sockets that
    listen already, one for each endpoint, instead of those of its own.
    """

    def __init__(
        self,
        endpoints: Sequence[KMEEndpoint],
        service: KmeService,
        ca: Path,
        *,
        host: str = "127.0.0.1",
        contexts: Callable[[KMEEndpoint], ssl.SSLContext] | None = None,
        identity: Callable[[bytes], PeerIdentity | None] = peer_identity,
        bound: Sequence[socket.socket] = (),
    ) -> None:
        self._endpoints, self._service, self._host = tuple(endpoints), service, host
        self._contexts = contexts or functools.partial(tls_context, ca=ca)
        self._state = ConnectionsState(identity)
        self._state.default_headers = list(PROTECTED_HEADERS)
        self._bound: list[socket.socket] = list(bound)
        self._crowds = [Crowd() for _ in self._endpoints]
        self._servers: list[Listening] = []

    @property
    def connections_made(self) -> int:
        """How many TLS connections have been accepted since the start."""
        return self._state.connections_made

    @property
    def crowd(self) -> Crowd:
        """Who is connected to the first of the endpoints: a node has no other."""
        return self._crowds[0]

    async def start(self) -> None:
        """Listen for all KMEs, or raise ConfigurationError and listen for none."""
        allow_open_files(len(self._endpoints) * (1 + CONNECTIONS_PER_KME) + OTHER_FILES)
        if not self._bound:
            self._bound = bind_all(self._host, [endpoint.port for endpoint in self._endpoints])
        try:
            await self._serve()
        except BaseException:
            self._close_listeners()
            raise

    async def reload(self, refused: Callable[[bytes], bool]) -> None:
        """Make the TLS contexts anew for new connections; close those whose certificate is ``refused`` now.

        Raises ConfigurationError, and goes on as before, if a file cannot be used.
        """
        earlier, self._servers = self._servers, []
        try:
            await self._serve()
        except BaseException:
            for server in self._servers:
                server.close()
            self._servers = earlier
            raise
        for server in earlier:
            server.close()
        self._state.cut(refused)

    def silence(self, kme: KmeId) -> None:
        """Have one KME answer nothing: its connections end at once, new ones are refused.

        Its port stays ours, bound and not listened at.
        """
        number = self._number_of(kme)
        self._servers[number].close()
        host, port = self._bound[number].getsockname()[:2]
        self._bound[number].close()
        self._bound[number] = bind_one(host, port)
        for connection in list(self._state.connections):
            if isinstance(connection, PeerProtocol) and connection.app_state["kme"] == kme:
                connection.transport.abort()

    def answer_again(self, kme: KmeId) -> None:
        """Have a KME that was silenced answer as before."""
        number = self._number_of(kme)
        self._bound[number].listen(BACKLOG)
        self._servers[number] = self._acceptor(number, self._protocol_config())

    def _number_of(self, kme: KmeId) -> int:
        return next(number for number, each in enumerate(self._endpoints) if each.kme_id == kme)

    async def stop(self) -> None:
        """Stop listening, let requests in hand end, close every connection."""
        self._service.stop_waiting()
        self._close_listeners()
        for connection in list(self._state.connections):
            connection.shutdown()
        deadline_s = asyncio.get_running_loop().time() + STOP_S_MAX
        while self._state.connections and asyncio.get_running_loop().time() < deadline_s:
            await asyncio.sleep(0.02)
        for connection in list(self._state.connections):
            if isinstance(connection, PeerProtocol):
                connection.transport.abort()

    async def _serve(self) -> None:
        config = self._protocol_config()
        self._state.watch(asyncio.get_running_loop())
        for number in range(len(self._endpoints)):
            self._servers.append(self._acceptor(number, config))
            if number % CONTEXTS_PER_TURN == 0:
                await asyncio.sleep(0)

    def _acceptor(self, number: int, config: uvicorn.Config) -> TlsAcceptor:
        endpoint, crowd = self._endpoints[number], self._crowds[number]
        protocol = functools.partial(
            PeerProtocol,
            config=config,
            server_state=self._state,
            app_state={"kme": endpoint.kme_id, "peer": None},
            crowd=crowd,
        )
        context = self._contexts(endpoint)
        # A copy of the bound socket: a listener with another context takes its place without a gap.
        return TlsAcceptor(self._bound[number].dup(), context, protocol, crowd)

    def _protocol_config(self) -> uvicorn.Config:
        config = uvicorn.Config(
            application(self._service),
            loop="none",
            http=PeerProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        config.load()
        return config

    def _close_listeners(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()
        for bound in self._bound:
            bound.close()
        self._bound.clear()
        self._state.unwatch()


class ConnectionsState(ServerState):
    """What all connections share; ``identity`` reads from a certificate who calls."""

    def __init__(self, identity: Callable[[bytes], PeerIdentity | None] = peer_identity) -> None:
        super().__init__()
        self.identity = identity
        self.connections_made = 0
        self.connections_of: Counter[str] = Counter()
        self._look: asyncio.TimerHandle | None = None

    def cut(self, refused: Callable[[bytes], bool]) -> None:
        """Close the connections whose certificate is refused."""
        for connection in list(self.connections):
            certificate = connection.certificate if isinstance(connection, PeerProtocol) else None
            if certificate is not None and refused(certificate):
                connection.transport.abort()

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close, from now on, connections that take too long; again and again, until :meth:`unwatch`.

        One look at all of them a second costs less than a timer for each request.
        """
        self.unwatch()
        for connection in list(self.connections):
            if isinstance(connection, PeerProtocol):
                connection.close_if_slow(loop.time())
        self._look = loop.call_later(LOOK_EVERY_S, self.watch, loop)

    def unwatch(self) -> None:
        """Look no more."""
        if self._look is not None:
            self._look.cancel()
            self._look = None


class PeerProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol that puts the caller's identity into ``scope["state"]["peer"]``.

    And that has limits: uvicorn knows none but for a connection between two requests.
    """

    certificate: bytes | None = None
    _answering: RequestResponseCycle | None = None
    _caller = _address = ""
    _unfinished = _in_body = False
    _head_bytes = 0
    _made_s = _request_since_s = _unread_since_s = 0.0

    def __init__(self, *args: object, crowd: Crowd, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._crowd = crowd

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._made_s, self._address = self.loop.time(), self._crowd.enter(transport)
        transport.set_write_buffer_limits(UNREAD_BYTES_MAX)
        tls = transport.get_extra_info("ssl_object")
        self.certificate = tls.getpeercert(True) if tls is not None else None
        identity = self.identity(tls)
        self.app_state = {**self.app_state, "peer": identity}
        if isinstance(self.server_state, ConnectionsState):
            self.server_state.connections_made += 1
            self._caller = identity.sae_id if identity is not None else _name_of(self.certificate)
            open_now = self.server_state.connections_of
            open_now[self._caller] += 1
            if open_now[self._caller] > CONNECTIONS_PER_SAE_MAX:
                self._crowd.closed[CROWDED] += 1
                transport.abort()

    def identity(self, tls: ssl.SSLObject | None) -> PeerIdentity | None:
        """Return who calls, if the connection says so."""
        if self.certificate is None or not isinstance(self.server_state, ConnectionsState):
            return None
        return self.server_state.identity(self.certificate)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._answering is not None:
            self._answering.disconnected = True  # uvicorn tells it to the request that came last
        self._unset_keepalive_if_required()  # or its timer would keep a broken connection in memory
        self._crowd.leave(self._address)
        if isinstance(self.server_state, ConnectionsState):
            open_now = self.server_state.connections_of
            open_now[self._caller] -= 1
            if not open_now[self._caller]:
                del open_now[self._caller]

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return  # what comes after a refusal
        all_head = not self._in_body
        super().data_received(data)
        if self._unfinished:
            self._request_since_s = self._request_since_s or self.loop.time()
            if all_head and not self._in_body:
                self._head_bytes += len(data)
                if self._head_bytes > HEAD_BYTES_MAX:
                    self._crowd.closed[HEAD] += 1
                    self.refuse(431, f"the head of the request is longer than {HEAD_BYTES_MAX} bytes")
        elif self._request_since_s:
            self._request_since_s, self._head_bytes = 0.0, 0

    def on_message_begin(self) -> None:
        self._unfinished, self._in_body = True, False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._unfinished = self._in_body = False
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread_since_s = self.loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread_since_s = 0.0

    def close_if_slow(self, now_s: float) -> None:
        """Close the connection if it has used up one of its times."""
        if self._unread_since_s and now_s - self._unread_since_s > ANSWER_S_MAX:
            self._crowd.closed[ANSWER] += 1
            self._unread_since_s = 0.0
            self.transport.abort()
        elif self.transport.is_closing():
            return  # by a limit of its own, TLS_SHUTDOWN_S_MAX
        elif self._request_since_s:
            limit_s = REQUEST_S_MAX if self._in_body else HEAD_S_MAX
            if now_s - self._request_since_s > limit_s:
                self._crowd.closed[BODY if self._in_body else HEAD] += 1
                self.refuse(408, f"the request was not whole after {limit_s:g} s")
        elif self.cycle is None and now_s - self._made_s > KEEP_ALIVE_S:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP with the standard's Error document."""
        self.refuse(400, "this is not an HTTP request")

    def refuse(self, status: int, message: str) -> None:
        """Answer what no application has seen with the standard's Error document, and close."""
        cycle = self.cycle
        if cycle is not None and cycle.response_started and (self._in_body or not cycle.response_complete):
            self.transport.abort()  # it has had an answer, or part of one: there is no place for another
            return
        body = error_body(RequestRefused(status, message))
        head = [b"HTTP/1.1 %d %b" % (status, http.HTTPStatus(status).phrase.encode())]
        head += [b"content-type: application/json", b"connection: close"]
        head += [name + b": " + value for name, value in self.server_state.default_headers]
        head += [b"content-length: %d" % len(body), b"", body]
        self.transport.write(b"\r\n".join(head))
        self.transport.close()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        if cycle.scope["method"] != "HEAD":  # which is answered with a head, and no part of a body
            cycle.transport = WholeAnswers(self.transport)  # type: ignore[assignment]  # all that a cycle uses
        super()._start_asgi_task(cycle, app)

    def _unsupported_upgrade_warning(self) -> None:
        """What wants to speak another protocol gets its answer in this one, and then no more."""
        self.cycle.keep_alive = False


class WholeAnswers:
    """What uvicorn writes an answer into: its head leaves together with the first part of its body.

    uvicorn writes the two one after the other, and each would be a packet of its own.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None
        self.close, self.is_closing = transport.close, transport.is_closing

    def write(self, part: bytes | bytearray) -> None:
        """Send a part of the answer; its head, which comes first, waits for what follows."""
        if self._head is not None:
            # Two records of TLS, but one packet. Joined here, the key in the body would have one more copy.
            self._transport.writelines((self._head, part) if self._head else (part,))
            self._head = b""
        elif part.startswith(INTERIM):
            self._transport.write(part)
        else:
            self._head = bytes(part)


INTERIM = b"HTTP/1.1 1"
"""How an answer begins that another follows: 100 (RFC 9110, 15.2)."""


def _name_of(certificate: bytes | None) -> str:
    """Return under what a caller is counted who is no application."""
    return hashlib.sha256(certificate).hexdigest() if certificate is not None else ""


def tls_context(endpoint: KMEEndpoint, ca: Path) -> ssl.SSLContext:
    """Return the TLS rules of a KME: a client certificate of ``ca`` or no connection."""
    return TlsFiles(endpoint.certificate, endpoint.key, ca).server_context()


def bind_all(host: str, ports: Sequence[int]) -> list[socket.socket]:
    """Bind all ports or none; ConfigurationError names the first that is taken."""
    sockets: list[socket.socket] = []
    try:
        for port in ports:
            sockets.append(bind_one(host, port))
            # Listening at once makes a second server on the same port fail here and not later.
            sockets[-1].listen(BACKLOG)
    except (OSError, OverflowError) as error:
        for bound in sockets:
            bound.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(
            f"port {port} on {host} cannot be used ({reason}); choose other ports with --port-base"
        ) from None
    return sockets


def bind_one(host: str, port: int) -> socket.socket:
    """Bind a port that nobody listens at yet: until then connections to it are refused."""
    # IPPROTO_TCP in full: with protocol 0 stock asyncio does not set TCP_NODELAY.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.setblocking(False)
    except BaseException:
        bound.close()
        raise
    return bound


def allow_open_files(wanted: int) -> None:
    """Raise this process's limit of open files to what the listeners and their connections need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise ConfigurationError(
            f"this process may open {hard} files and needs {wanted}; raise it with `ulimit -Hn {wanted}`"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def keep_what_is_there() -> None:
    """Spare the collector of cycles what the start of this process has made: it stays until the end.

    That is 70,000 objects, most of them code. To look through all of them stopped every request for 0.2 s on
    a busy machine, and was done again and again.
    """
    gc.collect()
    gc.freeze()
