"""Calls a partner by ETSI GS QKD 020: HTTPS with TLS 1.3 and both certificates.

Thin: what is said and what an answer means is in :mod:`openqci.delivery.etsi020`. An answer that does not
come in time is no answer, and what was sent may have arrived all the same.
"""

import ssl
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp

from openqci.core.errors import ConfigurationError
from openqci.delivery.etsi020_model import BODY_BYTES_MAX

JSON = "application/json"
CONNECT_S_MAX = 5.0


@dataclass(frozen=True)
class PartnerAnswer:
    """What a partner answered; status 0 means that nothing came, and why."""

    status: int
    body: bytes = b""
    reason: str = ""


class PartnerClient:
    """One partner; ``name`` is what its certificate must bear, ``tls`` is asked for at every new session."""

    def __init__(self, url: str, name: str, tls: Callable[[], ssl.SSLContext], timeout_s: float) -> None:
        self._url, self._name, self._tls = url.rstrip("/"), name, tls
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, connect=CONNECT_S_MAX)
        self._session: aiohttp.ClientSession | None = None

    async def post(self, path: str, body: bytes) -> PartnerAnswer:
        """Send a request to the partner itself."""
        return await self.post_to(self._url + path, body)

    async def post_to(self, url: str, body: bytes) -> PartnerAnswer:
        """Send a request to a whole URL, an allowed callback."""
        return await self._ask("POST", url, body)

    async def versions(self, path: str) -> PartnerAnswer:
        """Ask which versions the partner speaks."""
        return await self._ask("GET", self._url + path, None)

    async def close(self) -> None:
        """Close the connections; the next request opens others, by the files as they are then."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _ask(self, method: str, url: str, body: bytes | None) -> PartnerAnswer:
        headers = {"Content-Type": JSON} if body is not None else {}
        try:
            async with self._open().request(
                method, url, data=body, headers=headers, server_hostname=self._name, allow_redirects=False
            ) as answer:
                content = await answer.content.read(BODY_BYTES_MAX + 1)
        except (aiohttp.ClientError, OSError, ConfigurationError) as error:
            return PartnerAnswer(0, reason=_reason(error))
        except TimeoutError:
            return PartnerAnswer(0, reason="no answer in time")
        return PartnerAnswer(answer.status, content[:BODY_BYTES_MAX])

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._tls(), limit=8)
            self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout)
        return self._session


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not accepted: {error.certificate_error}"
    return str(error) or type(error).__name__
