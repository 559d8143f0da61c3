"""An HTTPS listener with mutual certificates for one ASGI application, on the loop that runs already.

For the interfaces of a node beside key delivery: peers, operators, QKD modules. The application finds the
caller's certificate (DER) in ``scope["state"]["certificate"]``.
"""

import asyncio
import functools
import socket
import ssl
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from openqci.core.errors import invariant
from openqci.delivery.directory import PeerIdentity
from openqci.services.accept import Crowd, Listening, TlsAcceptor
from openqci.services.kme_server import (
    KEEP_ALIVE_S,
    PROTECTED_HEADERS,
    STOP_S_MAX,
    ConnectionsState,
    PeerProtocol,
    bind_all,
)
from openqci.services.pki import peer_identity


class CertificateProtocol(PeerProtocol):
    """Puts the caller's whole certificate into the scope's state, for those who need more than an SAE ID."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "certificate": self.certificate}


class HttpsListener:
    """Serves ``application`` at one address; ``protocol`` tells it who calls.

    ``bound`` is a socket that listens already, instead of one of its own.
    """

    def __init__(
        self,
        application: ASGIApp,
        host: str,
        port: int,
        context: ssl.SSLContext,
        protocol: Callable[..., CertificateProtocol] = CertificateProtocol,
        *,
        identity: Callable[[bytes], PeerIdentity | None] = peer_identity,
        bound: socket.socket | None = None,
    ) -> None:
        self._protocol = protocol
        self._application, self._host, self.port, self._context = application, host, port, context
        self._state = ConnectionsState(identity)
        self._state.default_headers = list(PROTECTED_HEADERS)
        self._bound = bound
        self._server: Listening | None = None
        self.crowd = Crowd()

    async def start(self) -> None:
        """Listen, or raise ConfigurationError if the address cannot be used."""
        if self._bound is None:
            (self._bound,) = bind_all(self._host, [self.port])
        self.port = self._bound.getsockname()[1]
        await self._listen()

    async def reload(self, context: ssl.SSLContext, refused: Callable[[bytes], bool]) -> None:
        """Use other TLS rules for new connections; close those whose certificate is now ``refused``."""
        self._context = context
        if self._server is not None:
            earlier = self._server
            await self._listen()
            earlier.close()
        self._state.cut(refused)

    async def stop(self) -> None:
        """Listen no longer, let requests in hand end, close every connection."""
        if self._server is not None:
            self._server.close()
        if self._bound is not None:
            self._bound.close()
        self._state.unwatch()
        for connection in list(self._state.connections):
            connection.shutdown()
        deadline_s = asyncio.get_running_loop().time() + STOP_S_MAX
        while self._state.connections and asyncio.get_running_loop().time() < deadline_s:
            await asyncio.sleep(0.02)
        for connection in list(self._state.connections):
            if isinstance(connection, PeerProtocol):
                connection.transport.abort()

    async def _listen(self) -> None:
        """Listen on a copy of the bound socket, so that another listener can take its place without a gap."""
        invariant(self._bound is not None, "an address is bound before it is listened at")
        if self._bound is None:
            return
        config = uvicorn.Config(
            self._application,
            loop="none",
            http=CertificateProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        config.load()
        protocol = functools.partial(
            self._protocol,
            config=config,
            server_state=self._state,
            app_state={"peer": None},
            crowd=self.crowd,
        )
        self._state.watch(asyncio.get_running_loop())
        self._server = TlsAcceptor(self._bound.dup(), self._context, protocol, self.crowd)
