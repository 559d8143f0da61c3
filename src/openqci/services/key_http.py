"""A client of HTTP/1.1 over TLS whose answers hold key: they lie in buffers that are wiped.

What a common client reads goes through immutable ``bytes`` of the transport, of its parser and of its reader.
Freed, each stays in memory until something else happens to need the place: keys that their applications had
got half a minute before were found in the memory of a node in this way (``tests/kme/test_canary.py``). Here
TLS writes what it has decrypted into one buffer (:class:`asyncio.BufferedProtocol`), the answer is made out
in it, and what leaves it is a :class:`bytearray` that the caller wipes.

It is no client for everything: one connection, one request at a time, no redirects, no proxies, no cookies.
"""

import asyncio
import re
import ssl
from collections.abc import Callable
from typing import NamedTuple, cast
from urllib.parse import urlsplit

from openqci.core.errors import PeerMisbehaved

CONNECT_S_MAX = 5.0
HEAD_BYTES_MAX = 16 * 1024
ROOM_BYTES = 64 * 1024
"""The buffer at first; it doubles, and the smaller one is wiped."""

LINE_BYTES_MAX = 1024
"""Of a chunk's length with its extensions."""

BEFORE_CHUNK = -1
"""What is left of a chunk whose length has not come yet."""

STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)(?: [^\r\n]*)?")
LINE_END, HEAD_END = b"\r\n", b"\r\n\r\n"
INFORMATIONAL, NO_CONTENT, NOT_MODIFIED = range(100, 200), 204, 304


class Answer(NamedTuple):
    """Status, headers by name in lower case, and the body, which the caller wipes."""

    status: int
    headers: dict[str, str]
    body: bytearray

    def __repr__(self) -> str:
        return f"Answer({self.status}, {len(self.body)} bytes)"


class AnswerReader:
    """Makes out one answer after the other (RFC 9112) in bytes that come in pieces of any length.

    Write into :meth:`room`, then call :meth:`filled`. PeerMisbehaved if the bytes are no answer or more than
    ``body_bytes_max``.

    >>> reader = AnswerReader(100)
    >>> text = b"HTTP/1.1 200 OK\\r\\nContent-Length: 3\\r\\n\\r\\nabc"
    >>> reader.room()[:len(text)] = text
    >>> reader.filled(len(text)).body
    bytearray(b'abc')
    """

    def __init__(self, body_bytes_max: int) -> None:
        self._body_bytes_max = body_bytes_max
        # With its head, and with what stands between its chunks.
        self._bytes_max = 2 * (HEAD_BYTES_MAX + body_bytes_max)
        self._buffer = bytearray(ROOM_BYTES)
        self._end = self._at = self._body_start = self._body_end = 0
        self._head: tuple[int, dict[str, str]] | None = None
        self._length: int | None = None
        self._chunked = self._in_trailer = False
        self._chunk_left = BEFORE_CHUNK

    def room(self) -> memoryview:
        """Return where the next bytes go; never empty."""
        if self._end == len(self._buffer):
            larger = bytearray(2 * len(self._buffer))
            larger[: self._end] = self._buffer
            self._buffer[:] = bytes(len(self._buffer))
            self._buffer = larger
        return memoryview(self._buffer)[self._end :]

    def filled(self, count: int) -> Answer | None:
        """Look at so many bytes more; return the answer if they complete it."""
        self._end += count
        if self._head is None and not self._read_head():
            return None
        if self._chunked:
            whole = self._read_chunks()
        elif self._length is not None:
            whole = self._end - self._at >= self._length
            self._body_end = self._at + min(self._length, self._end - self._at)
        else:
            whole, self._body_end = False, self._end
        if self._body_end - self._body_start > self._body_bytes_max or self._end > self._bytes_max:
            raise PeerMisbehaved(f"an answer has more than {self._body_bytes_max} bytes")
        return self._answer() if whole else None

    def ended(self) -> Answer | None:
        """The other side has closed: return the answer that this completes, if there is one."""
        if self._head is None or self._chunked or self._length is not None:
            return None
        return self._answer()

    def wipe(self) -> None:
        """Overwrite what has come."""
        self._buffer[: self._end] = bytes(self._end)
        self._end = self._at = self._body_start = self._body_end = 0
        self._head = self._length = None
        self._chunked = self._in_trailer = False
        self._chunk_left = BEFORE_CHUNK

    def _answer(self) -> Answer:
        """Give the body out, and wipe what lay here. Bytes beyond it nobody has asked for."""
        if self._head is None:
            raise PeerMisbehaved("an answer has no head")
        status, headers = self._head
        with memoryview(self._buffer) as all_bytes:
            body = bytearray(all_bytes[self._body_start : self._body_end])
        self.wipe()
        return Answer(status, headers, body)

    def _read_head(self) -> bool:
        """Read the head, if it is all here; one of an interim answer (RFC 9110, 15.2) is passed over."""
        while (end := self._buffer.find(HEAD_END, self._at, self._end)) >= 0:
            status, headers = read_head(bytes(self._buffer[self._at : end]))
            self._at = self._body_start = self._body_end = end + len(HEAD_END)
            if status in INFORMATIONAL:
                continue
            self._head = status, headers
            self._length = length_of(status, headers)
            self._chunked = "transfer-encoding" in headers
            return True
        if self._end - self._at > HEAD_BYTES_MAX:
            raise PeerMisbehaved(f"the head of an answer has more than {HEAD_BYTES_MAX} bytes")
        return False

    def _read_chunks(self) -> bool:
        """Move the content of chunks together behind the head; return whether the last one is here."""
        while True:
            if self._chunk_left > 0:
                count = min(self._chunk_left, self._end - self._at)
                with memoryview(self._buffer) as all_bytes:
                    all_bytes[self._body_end : self._body_end + count] = all_bytes[
                        self._at : self._at + count
                    ]
                self._body_end += count
                self._at += count
                self._chunk_left -= count
                if self._chunk_left:
                    return False
            line = self._line()
            if line is None:
                return False
            if self._in_trailer:
                if not line:
                    return True
            elif self._chunk_left == 0 and not line:
                self._chunk_left = BEFORE_CHUNK  # the end of the line after a chunk's content
            else:
                self._chunk_left = self._chunk_length(line)
                self._in_trailer = not self._chunk_left

    def _line(self) -> bytes | None:
        end = self._buffer.find(LINE_END, self._at, self._end)
        if end < 0 and self._end - self._at < LINE_BYTES_MAX:
            return None
        if not 0 <= end - self._at < LINE_BYTES_MAX:
            raise PeerMisbehaved(f"a line between chunks has more than {LINE_BYTES_MAX} bytes")
        line = bytes(self._buffer[self._at : end])
        self._at = end + len(LINE_END)
        return line

    def _chunk_length(self, line: bytes) -> int:
        digits = line.partition(b";")[0].strip()
        if self._chunk_left == 0 or not re.fullmatch(rb"[0-9A-Fa-f]{1,8}", digits):
            raise PeerMisbehaved("a chunk of an answer has no length")  # what stands there may be key
        return int(digits, 16)


def read_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Return status and headers, each with its values joined by commas (RFC 9110, 5.3)."""
    first, *lines = head.split(LINE_END)
    found = STATUS_LINE.fullmatch(first)
    if found is None:
        raise PeerMisbehaved("what answers does not speak HTTP/1.1")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or not name or name != name.strip():
            raise PeerMisbehaved("a header of an answer is none (RFC 9112, 5)")
        key, value = name.lower(), value.strip()
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    return int(found[1]), headers


def length_of(status: int, headers: dict[str, str]) -> int | None:
    """Return the length of a body, or None if chunks or the connection's end tell it (RFC 9112, 6.3)."""
    if status in (NO_CONTENT, NOT_MODIFIED):
        return 0
    if "transfer-encoding" in headers:
        if headers["transfer-encoding"].lower() != "chunked" or "content-length" in headers:
            raise PeerMisbehaved("an answer says its length in two ways, or in one that is not known")
        return None
    if (told := headers.get("content-length")) is None:
        return None
    if not re.fullmatch(r"\d{1,12}", told):
        raise PeerMisbehaved(f"the length of an answer is {told[:40]!r}")
    return int(told)


class KeyHTTPClient:
    """Sends requests to one origin, over one connection that stays open between them.

    ``tls`` is asked for the rules at each connection; ``server_name`` is whose certificate is expected, if
    not that of the URL's host. A request raises OSError if the server cannot be reached or closes the
    connection before it has answered, TimeoutError after ``timeout_s``, PeerMisbehaved for what is no answer.
    No request is sent twice.
    """

    def __init__(
        self,
        url: str,
        tls: Callable[[], ssl.SSLContext],
        *,
        server_name: str | None = None,
        timeout_s: float,
        body_bytes_max: int,
    ) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 443
        self._authority, self._tls = parts.netloc.rpartition("@")[2], tls
        self._server_name, self._timeout_s = server_name or self._host, timeout_s
        self._body_bytes_max = body_bytes_max
        self._connection: _Connection | None = None
        self._turn = asyncio.Lock()

    async def request(self, method: str, target: str, body: bytes | None = None) -> Answer:
        """Send one request and return its answer. ``body`` is JSON."""
        async with asyncio.timeout(self._timeout_s), self._turn:
            connection = self._connection
            if connection is None or connection.closed:
                connection = self._connection = await self._connect()
            try:
                answer = await connection.ask(self._text(method, target, body))
            except BaseException:
                self._drop()  # an answer that comes after all belongs to no later request
                raise
            if "close" in answer.headers.get("connection", "").lower():
                self._drop()
            return answer

    async def close(self) -> None:
        """Close the connection."""
        self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    async def _connect(self) -> "_Connection":
        async with asyncio.timeout(CONNECT_S_MAX):
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: _Connection(self._body_bytes_max),
                self._host,
                self._port,
                ssl=self._tls(),
                server_hostname=self._server_name,
            )
        return connection

    def _text(self, method: str, target: str, body: bytes | None) -> bytes:
        head = f"{method} {target} HTTP/1.1\r\nHost: {self._authority}\r\nAccept: application/json\r\n"
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return head.encode("ascii") + LINE_END + (body or b"")


class _Connection(asyncio.BufferedProtocol):
    """One connection: what TLS decrypts goes straight into the reader's buffer."""

    def __init__(self, body_bytes_max: int) -> None:
        self._reader = AnswerReader(body_bytes_max)
        self._waiting: asyncio.Future[Answer] | None = None
        self._transport: asyncio.Transport | None = None
        self.closed = False

    async def ask(self, text: bytes) -> Answer:
        """Send a request and wait for its answer."""
        if self._transport is None or self.closed:
            raise ConnectionResetError("the connection is closed")
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(text)
        try:
            return await self._waiting
        finally:
            self._waiting = None

    def abort(self) -> None:
        """Close at once."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no instances of it

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go (asyncio)."""
        return self._reader.room()

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes have come (asyncio)."""
        waiting = self._waiting
        try:
            answer = self._reader.filled(nbytes)
        except PeerMisbehaved as misbehaved:
            self._fail(misbehaved)
            return
        if waiting is None or waiting.done():
            # Nobody has asked, or whoever has gave up.
            if answer is not None:
                answer.body[:] = bytes(len(answer.body))
            self._fail(PeerMisbehaved("an answer came that nobody has asked for"))
        elif answer is not None:
            waiting.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """The other side has closed, or the line is broken (asyncio)."""
        answer = self._reader.ended() if exc is None else None
        if answer is not None and self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(answer)
        self._fail(ConnectionResetError("the server closed the connection"))

    def _fail(self, error: Exception) -> None:
        self.abort()
        self._reader.wipe()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)
