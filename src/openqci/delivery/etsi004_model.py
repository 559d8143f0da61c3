"""ETSI GS QKD 004 V2.1.1 on the wire: calls, answers and QoS in the binary encoding of ETSI's sample code.

The standard's calls are abstract (clause 6); this is the encoding that applications over TLS on port 25575
speak. All integers are big-endian. A frame is a header of 8 bytes and a payload::

    version 1.0.1 (3 bytes) | service type (1) | length of the payload (4)

    OPEN_CONNECT   source NUL destination NUL QoS(284) KSID(16)
             reply   status(4) [ QoS(284) KSID(16) ]          where there is a stream or a counter-proposal
    GET_KEY        KSID(16) index(4) metadata size(4)
             reply   status(4) [ index(4) length(4) key metadata size(4) metadata ]   with status 0
                     status(4) metadata size(4)                                       with status 8
    CLOSE          KSID(16)
             reply   status(4)

A QoS is seven integers (chunk in **bytes**, rates in bit/s, timeout in ms, TTL in s) and a MIME type in 256
bytes, padded with NUL. Reading is strict: what is not exactly one of these forms is a FrameError.
"""

import struct
from enum import IntEnum
from uuid import UUID

import msgspec

from openqci.core.errors import OpenQCIError, invariant

VERSION = bytes((1, 0, 1))
HEADER_BYTES = 8
MIME_BYTES = 256
URI_BYTES_MAX = 1024
UINT32_MAX = 0xFFFFFFFF
NIL = UUID(int=0)
JSON_MIME = "application/json"

QOS = struct.Struct(f">7I{MIME_BYTES}s")
HEAD = struct.Struct(">3sBI")
GET_KEY = struct.Struct(">16sII")
REQUEST_BYTES_MAX = 2 * (URI_BYTES_MAX + 1) + QOS.size + 16
"""The longest request that makes sense; nothing longer is read."""


class Service(IntEnum):
    """Service types of the header."""

    OPEN_CONNECT = 0x02
    OPEN_CONNECT_REPLY = 0x03
    GET_KEY = 0x04
    GET_KEY_REPLY = 0x05
    CLOSE = 0x08
    CLOSE_REPLY = 0x09


class Status(IntEnum):
    """The standard's status codes."""

    SUCCESS = 0
    PEER_NOT_CONNECTED = 1
    """Of OPEN_CONNECT, which has succeeded: the other application has not opened the stream yet."""
    INSUFFICIENT_KEY = 2
    NO_PEER = 3
    """Of GET_KEY: the other application has not opened the stream, or has closed it."""
    NO_CONNECTION = 4
    KSID_IN_USE = 5
    TIMEOUT = 6
    QOS_NOT_MET = 7
    METADATA_TOO_SMALL = 8


class FrameError(OpenQCIError):
    """What came is no frame, or no such call: the connection is closed without effect."""


class QoS(msgspec.Struct, frozen=True):
    """What an application asks of a stream. ``jitter`` and ``priority`` are kept and not acted on."""

    chunk_bytes: int = 32
    max_bps: int = 0
    min_bps: int = 0
    jitter: int = 0
    priority: int = 0
    timeout_ms: int = 0
    ttl_s: int = 0
    metadata_mimetype: str = ""


class OpenConnect(msgspec.Struct, frozen=True):
    """A request for a stream between two applications; the nil KSID asks for a new one."""

    source: str
    destination: str
    qos: QoS
    ksid: UUID = NIL


class GetKey(msgspec.Struct, frozen=True):
    """A request for the chunk at ``index`` of a stream, with room for so much metadata."""

    ksid: UUID
    index: int
    metadata_size: int


class Close(msgspec.Struct, frozen=True):
    """A request to give a stream up."""

    ksid: UUID


Request = OpenConnect | GetKey | Close


class Opened(msgspec.Struct, frozen=True):
    """The answer to OPEN_CONNECT."""

    status: Status
    qos: QoS | None = None
    ksid: UUID | None = None


class Chunk(msgspec.Struct, frozen=True):
    """The answer to GET_KEY, as a client reads it. ``key`` is the caller's to wipe."""

    status: Status
    index: int = 0
    key: bytearray = bytearray()
    metadata: bytes = b""
    metadata_size: int = 0

    def __repr__(self) -> str:
        return f"Chunk(status={self.status!r}, index={self.index}, {len(self.key)} bytes)"


def frame(service: Service, payload: bytes | bytearray) -> bytearray:
    """Return a whole frame. The caller wipes it, and the payload, if they hold key.

    >>> frame(Service.CLOSE_REPLY, bytes(4)).hex()
    '010001090000000400000000'
    """
    whole = bytearray(HEAD.pack(VERSION, service, len(payload)))
    whole += payload
    return whole


def read_header(header: bytes) -> tuple[Service, int]:
    """Return service type and payload length; FrameError for another version or type."""
    version, service, length = HEAD.unpack(header)
    if version != VERSION:
        raise FrameError(f"version {'.'.join(map(str, version))}, expected 1.0.1")
    try:
        return Service(service), length
    except ValueError:
        raise FrameError(f"unknown service type {service:#04x}") from None


def read_request_header(header: bytes) -> tuple[Service, int]:
    """Return service type and payload length of a request; FrameError for what no request can be."""
    service, length = read_header(header)
    if service not in (Service.OPEN_CONNECT, Service.GET_KEY, Service.CLOSE):
        raise FrameError(f"{service.name} is no request")
    if length > REQUEST_BYTES_MAX:
        raise FrameError(f"{length} bytes of payload, expected at most {REQUEST_BYTES_MAX}")
    return service, length


def decode_request(service: Service, payload: bytes) -> Request:
    """Read a request's payload; FrameError if it is not exactly one."""
    if service is Service.OPEN_CONNECT:
        return _decode_open(payload)
    if service is Service.GET_KEY:
        _expect(payload, GET_KEY.size)
        ksid, index, metadata_size = GET_KEY.unpack(payload)
        return GetKey(UUID(bytes=ksid), index, metadata_size)
    if service is Service.CLOSE:
        _expect(payload, 16)
        return Close(UUID(bytes=payload))
    raise FrameError(f"{service.name} is no request")


def encode_request(request: Request) -> bytearray:
    """Return the frame of a request."""
    if isinstance(request, OpenConnect):
        texts = b"".join(text.encode("utf-8") + b"\0" for text in (request.source, request.destination))
        return frame(Service.OPEN_CONNECT, texts + encode_qos(request.qos) + request.ksid.bytes)
    if isinstance(request, GetKey):
        payload = GET_KEY.pack(request.ksid.bytes, request.index, request.metadata_size)
        return frame(Service.GET_KEY, payload)
    return frame(Service.CLOSE, request.ksid.bytes)


def encode_opened(opened: Opened) -> bytearray:
    """Return the frame of an answer to OPEN_CONNECT."""
    payload = struct.pack(">I", opened.status)
    if opened.qos is not None:
        payload += encode_qos(opened.qos) + (opened.ksid or NIL).bytes
    return frame(Service.OPEN_CONNECT_REPLY, payload)


def decode_opened(payload: bytes | bytearray) -> Opened:
    """Read an answer to OPEN_CONNECT."""
    status = _status(payload)
    if len(payload) == 4:
        return Opened(status)
    _expect(payload, 4 + QOS.size + 16)
    return Opened(status, decode_qos(payload[4:-16]), UUID(bytes=bytes(payload[-16:])))


def encode_key(index: int, key: bytes | bytearray, metadata: bytes) -> bytearray:
    """Return the frame of a key that is delivered. The caller wipes it once it is sent."""
    length = 4 + 4 + 4 + len(key) + 4 + len(metadata)
    whole = bytearray(HEAD.pack(VERSION, Service.GET_KEY_REPLY, length))
    whole += struct.pack(">III", Status.SUCCESS, index, len(key))
    whole += key
    whole += struct.pack(">I", len(metadata)) + metadata
    return whole


def encode_no_key(status: Status, metadata_size: int = 0) -> bytearray:
    """Return the frame of a GET_KEY without key; status 8 says how much room its metadata need."""
    invariant(status is not Status.SUCCESS, "a success brings a key")
    payload = struct.pack(">I", status)
    if status is Status.METADATA_TOO_SMALL:
        payload += struct.pack(">I", metadata_size)
    return frame(Service.GET_KEY_REPLY, payload)


def decode_key(payload: bytearray) -> Chunk:
    """Read an answer to GET_KEY, and wipe it."""
    status = _status(payload)
    try:
        if status is Status.METADATA_TOO_SMALL:
            _expect(payload, 8)
            return Chunk(status, metadata_size=int.from_bytes(payload[4:], "big"))
        if status is not Status.SUCCESS:
            return Chunk(status)
        if len(payload) < 16:
            raise FrameError(f"{len(payload)} bytes of payload, expected at least 16")
        index, length = struct.unpack_from(">II", payload, 4)
        _expect_least(payload, 16 + length)
        (metadata_size,) = struct.unpack_from(">I", payload, 12 + length)
        _expect(payload, 16 + length + metadata_size)
        return Chunk(status, index, payload[12 : 12 + length], bytes(payload[16 + length :]), metadata_size)
    finally:
        payload[:] = bytes(len(payload))


def encode_closed(status: Status) -> bytearray:
    """Return the frame of an answer to CLOSE."""
    return frame(Service.CLOSE_REPLY, struct.pack(">I", status))


def decode_closed(payload: bytes | bytearray) -> Status:
    """Read an answer to CLOSE."""
    _expect(payload, 4)
    return _status(payload)


def encode_qos(qos: QoS) -> bytes:
    """Return the 284 bytes of a QoS."""
    return QOS.pack(
        qos.chunk_bytes,
        qos.max_bps,
        qos.min_bps,
        qos.jitter,
        qos.priority,
        qos.timeout_ms,
        qos.ttl_s,
        qos.metadata_mimetype.encode("ascii"),
    )


def decode_qos(data: bytes | bytearray) -> QoS:
    """Read the 284 bytes of a QoS; FrameError if the MIME type is no text."""
    chunk_bytes, max_bps, min_bps, jitter, priority, timeout_ms, ttl_s, mime = QOS.unpack(data)
    try:
        text = mime.split(b"\0", 1)[0].decode("ascii")
    except UnicodeDecodeError:
        raise FrameError("the metadata MIME type is no ASCII text") from None
    return QoS(chunk_bytes, max_bps, min_bps, jitter, priority, timeout_ms, ttl_s, text)


def _decode_open(payload: bytes) -> OpenConnect:
    fixed = QOS.size + 16
    _expect_least(payload, fixed + 4)
    texts = payload[:-fixed].split(b"\0")
    if len(texts) != 3 or texts[2] or not all(1 <= len(text) <= URI_BYTES_MAX for text in texts[:2]):
        raise FrameError(f"source and destination shall be two texts of 1 to {URI_BYTES_MAX} bytes")
    try:
        source, destination = (text.decode("utf-8") for text in texts[:2])
    except UnicodeDecodeError:
        raise FrameError("source and destination shall be UTF-8") from None
    return OpenConnect(source, destination, decode_qos(payload[-fixed:-16]), UUID(bytes=payload[-16:]))


def _status(payload: bytes | bytearray) -> Status:
    _expect_least(payload, 4)
    try:
        return Status(int.from_bytes(payload[:4], "big"))
    except ValueError:
        raise FrameError(f"unknown status {int.from_bytes(payload[:4], 'big')}") from None


def _expect(payload: bytes | bytearray, length: int) -> None:
    if len(payload) != length:
        raise FrameError(f"{len(payload)} bytes of payload, expected {length}")


def _expect_least(payload: bytes | bytearray, length: int) -> None:
    if len(payload) < length:
        raise FrameError(f"{len(payload)} bytes of payload, expected at least {length}")
