"""An HTTPS listener with mutual certificates for one ASGI application, on the loop that runs already.

For the interfaces of a node beside key delivery: peers, operators, QKD modules. The application finds the
caller's certificate (DER) in ``scope["state"]["certificate"]``.
"""

import asyncio
import functools
import ssl

import uvicorn
from starlette.types import ASGIApp

from openqci.services.kme_server import (
    BACKLOG,
    HANDSHAKE_S_MAX,
    KEEP_ALIVE_S,
    PROTECTED_HEADERS,
    STOP_S_MAX,
    TLS_SHUTDOWN_S_MAX,
    Binding,
    ConnectionsState,
    PeerProtocol,
    bind_all,
)


class CertificateProtocol(PeerProtocol):
    """Puts the caller's whole certificate into the scope's state, for those who need more than an SAE ID."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(True) if tls is not None else None
        self.app_state = {**self.app_state, "certificate": certificate}


class HttpsListener:
    """Serves ``application`` at one address."""

    def __init__(self, application: ASGIApp, host: str, port: int, context: ssl.SSLContext) -> None:
        self._application, self._host, self.port, self._context = application, host, port, context
        self._state = ConnectionsState()
        self._state.default_headers = list(PROTECTED_HEADERS)
        self._server: Binding | None = None

    async def start(self) -> None:
        """Listen, or raise ConfigurationError if the address cannot be used."""
        (bound,) = bind_all(self._host, [self.port])
        self.port = bound.getsockname()[1]
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
            CertificateProtocol, config=config, server_state=self._state, app_state={"peer": None}
        )
        self._server = await asyncio.get_running_loop().create_server(
            protocol,
            sock=bound,
            ssl=self._context,
            backlog=BACKLOG,
            ssl_handshake_timeout=HANDSHAKE_S_MAX,
            ssl_shutdown_timeout=TLS_SHUTDOWN_S_MAX,
        )

    async def stop(self) -> None:
        """Listen no longer, let requests in hand end, close every connection."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        deadline_s = asyncio.get_running_loop().time() + STOP_S_MAX
        while self._state.connections and asyncio.get_running_loop().time() < deadline_s:
            await asyncio.sleep(0.02)
        for connection in list(self._state.connections):
            if isinstance(connection, PeerProtocol):
                connection.transport.abort()
