"""A client of ETSI GS QKD 004 in the binary encoding over TLS."""

import asyncio
import ssl
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar
from uuid import UUID

from openqci.core.errors import PeerMisbehaved
from openqci.delivery import etsi004_model
from openqci.delivery.etsi004_model import (
    HEADER_BYTES,
    Chunk,
    Close,
    FrameError,
    GetKey,
    OpenConnect,
    Opened,
    Request,
    Service,
    Status,
)

Answer = TypeVar("Answer")

CONNECT_S_MAX = 5.0
ANSWER_BYTES_MAX = 1 << 20
ANSWER_S_MARGIN = 10.0
"""How much longer than the stream's own timeout an answer may take."""


class Client004:
    """One connection; calls go one after the other. Made by :meth:`connect`, closed by ``async with``.

    Every call raises OSError if the server cannot be reached or closes the connection, TimeoutError if it
    does not answer, PeerMisbehaved if what it answers is no answer to the call.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._turn = asyncio.Lock()

    @classmethod
    async def connect(
        cls, host: str, port: int, context: ssl.SSLContext, server_name: str | None = None
    ) -> Self:
        """Open a connection."""
        async with asyncio.timeout(CONNECT_S_MAX):
            reader, writer = await asyncio.open_connection(
                host, port, ssl=context, server_hostname=server_name or host
            )
        return cls(reader, writer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; streams stay open."""
        self._writer.transport.abort()

    async def open_connect(self, request: OpenConnect) -> Opened:
        """OPEN_CONNECT."""
        answer = await self._ask(request, Service.OPEN_CONNECT_REPLY, 0.0)
        return _read(etsi004_model.decode_opened, answer)

    async def get_key(self, ksid: UUID, index: int, metadata_size: int = 0, wait_s: float = 0.0) -> Chunk:
        """GET_KEY; ``wait_s`` is the timeout of the stream."""
        answer = await self._ask(GetKey(ksid, index, metadata_size), Service.GET_KEY_REPLY, wait_s)
        return _read(etsi004_model.decode_key, answer)

    async def close_stream(self, ksid: UUID) -> Status:
        """CLOSE."""
        return _read(etsi004_model.decode_closed, await self._ask(Close(ksid), Service.CLOSE_REPLY, 0.0))

    async def _ask(self, request: Request, expected: Service, wait_s: float) -> bytearray:
        async with self._turn, asyncio.timeout(wait_s + ANSWER_S_MARGIN):
            self._writer.write(bytes(etsi004_model.encode_request(request)))
            await self._writer.drain()
            try:
                service, length = etsi004_model.read_header(await self._reader.readexactly(HEADER_BYTES))
                if service is not expected or length > ANSWER_BYTES_MAX:
                    raise PeerMisbehaved(f"expected {expected.name}, got {service.name} with {length} bytes")
                return bytearray(await self._reader.readexactly(length))
            except asyncio.IncompleteReadError:
                raise ConnectionResetError("the server closed the connection") from None
            except FrameError as error:
                raise PeerMisbehaved(f"the server's answer is no frame: {error}") from None


def _read(decode: Callable[[bytearray], Answer], payload: bytearray) -> Answer:
    try:
        return decode(payload)
    except FrameError as error:
        raise PeerMisbehaved(f"the server's answer cannot be read: {error}") from None
