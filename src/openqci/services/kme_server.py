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
import logging
import resource
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from openqci.core.errors import ConfigurationError, RequestRefused
from openqci.core.identifiers import KmeId
from openqci.delivery.directory import PeerIdentity
from openqci.delivery.etsi014_model import error_body
from openqci.services.etsi014_app import application
from openqci.services.kme import KmeService
from openqci.services.pki import peer_identity
from openqci.services.tls import TlsFiles

log = logging.getLogger(__name__)

HANDSHAKE_S_MAX = 10.0
TLS_SHUTDOWN_S_MAX = 2.0
KEEP_ALIVE_S = 75
STOP_S_MAX = 8.0
"""How long a stop waits for requests in hand before it cuts their connections."""

BACKLOG = 128
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


class Binding(Protocol):
    """A started server of asyncio or uvloop."""

    def close(self) -> None:
        """Listen no longer."""


class KMEServer:
    """Serves all ``endpoints`` from one event loop.

    ``ca`` is the PEM file of the authority whose client certificates are accepted.
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
    ) -> None:
        self._endpoints, self._service, self._host = tuple(endpoints), service, host
        self._contexts = contexts or functools.partial(tls_context, ca=ca)
        self._state = ConnectionsState(identity)
        self._state.default_headers = list(PROTECTED_HEADERS)
        self._bound: list[socket.socket] = []
        self._servers: list[Binding] = []

    @property
    def connections_made(self) -> int:
        """How many TLS connections have been accepted since the start."""
        return self._state.connections_made

    async def start(self) -> None:
        """Listen for all KMEs, or raise ConfigurationError and listen for none."""
        allow_open_files(len(self._endpoints) * (1 + CONNECTIONS_PER_KME) + OTHER_FILES)
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
        loop = asyncio.get_running_loop()
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
        for number, (endpoint, bound) in enumerate(zip(self._endpoints, self._bound, strict=True)):
            protocol = functools.partial(
                PeerProtocol,
                config=config,
                server_state=self._state,
                app_state={"kme": endpoint.kme_id, "peer": None},
            )
            context = self._contexts(endpoint)
            server = await loop.create_server(
                protocol,
                # A copy of the bound socket: a listener with another context takes its place without a gap.
                sock=bound.dup(),
                ssl=context,
                backlog=BACKLOG,
                ssl_handshake_timeout=HANDSHAKE_S_MAX,
                ssl_shutdown_timeout=TLS_SHUTDOWN_S_MAX,
            )
            self._servers.append(server)
            if number % CONTEXTS_PER_TURN == 0:
                await asyncio.sleep(0)

    def _close_listeners(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()
        for bound in self._bound:
            bound.close()
        self._bound.clear()


class ConnectionsState(ServerState):
    """What all connections share; ``identity`` reads from a certificate who calls."""

    def __init__(self, identity: Callable[[bytes], PeerIdentity | None] = peer_identity) -> None:
        super().__init__()
        self.identity = identity
        self.connections_made = 0
        self.connections_of: Counter[str] = Counter()

    def cut(self, refused: Callable[[bytes], bool]) -> None:
        """Close the connections whose certificate is refused."""
        for connection in list(self.connections):
            certificate = connection.certificate if isinstance(connection, PeerProtocol) else None
            if certificate is not None and refused(certificate):
                connection.transport.abort()


class PeerProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol that puts the caller's identity into ``scope["state"]["peer"]``."""

    certificate: bytes | None = None
    _caller = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        self.certificate = tls.getpeercert(True) if tls is not None else None
        self.app_state = {**self.app_state, "peer": None}
        if isinstance(self.server_state, ConnectionsState):
            identity = self.server_state.identity(self.certificate) if self.certificate else None
            self.app_state["peer"] = identity
            self.server_state.connections_made += 1
            self._caller = identity.sae_id if identity is not None else ""
            open_now = self.server_state.connections_of
            open_now[self._caller] += 1
            if open_now[self._caller] > CONNECTIONS_PER_SAE_MAX:
                transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if isinstance(self.server_state, ConnectionsState):
            open_now = self.server_state.connections_of
            open_now[self._caller] -= 1
            if not open_now[self._caller]:
                del open_now[self._caller]

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP with the standard's Error document."""
        body = error_body(RequestRefused(400, "this is not an HTTP request"))
        head = [b"HTTP/1.1 400 Bad Request", b"content-type: application/json", b"connection: close"]
        head += [name + b": " + value for name, value in self.server_state.default_headers]
        head += [b"content-length: %d" % len(body), b"", body]
        self.transport.write(b"\r\n".join(head))
        self.transport.close()


def tls_context(endpoint: KMEEndpoint, ca: Path) -> ssl.SSLContext:
    """Return the TLS rules of a KME: a client certificate of ``ca`` or no connection."""
    return TlsFiles(endpoint.certificate, endpoint.key, ca).server_context()


def bind_all(host: str, ports: Sequence[int]) -> list[socket.socket]:
    """Bind all ports or none; ConfigurationError names the first that is taken."""
    sockets: list[socket.socket] = []
    try:
        for port in ports:
            # IPPROTO_TCP in full: with protocol 0 stock asyncio does not set TCP_NODELAY.
            bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            sockets.append(bound)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((host, port))
            # Listening at once makes a second server on the same port fail here and not later.
            bound.listen(BACKLOG)
            bound.setblocking(False)
    except (OSError, OverflowError) as error:
        for bound in sockets:
            bound.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(
            f"port {port} on {host} cannot be used ({reason}); choose other ports with --port-base"
        ) from None
    return sockets


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
