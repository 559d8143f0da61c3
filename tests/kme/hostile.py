"""Clients that mean harm: mutated handshakes, bytes that are no TLS, garbage behind a good handshake.

All of it is drawn from a seed, so that what was found is found again. A client here never closes its
connection: whether the server does, and how soon, is what is asked.
"""

import random
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass

READ_BYTES = 1 << 16
DRIP_EVERY_S = 0.2
HANDSHAKE_TYPE, ALERT_TYPE, CIPHER_TYPE, DATA_TYPE, HEARTBEAT_TYPE = 22, 21, 20, 23, 24
"""Types of TLS records (RFC 8446, B.1; RFC 6520)."""

HTTP = b"GET /api/v1/keys/app-b/status HTTP/1.1\r\nHost: kme\r\n\r\n"
LOOPBACK = "127.0.0.1"
FRAMES_004 = bytes.fromhex("0100000000000010") + bytes(16)


@dataclass(frozen=True)
class Outcome:
    """What became of one connection."""

    name: str
    closed: bool
    seconds: float
    answered: int


def record(kind: int, body: bytes, version: bytes = b"\x03\x03", length: int | None = None) -> bytes:
    """Return a TLS record; its length may lie."""
    said = len(body) if length is None else length
    return bytes([kind]) + version + said.to_bytes(2, "big") + body


def client_hello(name: str = "localhost") -> bytes:
    """Return a good ClientHello."""
    context = ssl.create_default_context()
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def mutated(chance: random.Random, text: bytes) -> bytes:
    """Return bytes that are a few changes away from ``text``."""
    changed = bytearray(text)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(6):
            case 0:
                changed[at : at + 1] = chance.randbytes(1)
            case 1:
                del changed[at : at + chance.randrange(1, 64)]
            case 2:
                changed[at:at] = chance.randbytes(chance.randrange(1, 64))
            case 3:
                changed[at:at] = changed[at : at + chance.randrange(1, 256)]
            case 4:
                changed[at : at + 2] = chance.choice((b"\x00\x00", b"\xff\xff", b"\x40\x00", b"\x7f\xff"))
            case 5:
                changed[at : at + 1] = (
                    bytes([changed[at] ^ 1 << chance.randrange(8)]) if at < len(changed) else b""
                )
    return bytes(changed)


def before_the_handshake(seed: int, count: int) -> Iterator[tuple[str, list[bytes]]]:
    """Yield what to send in place of a handshake, in pieces, each with a name."""
    chance, hello = random.Random(seed), client_hello()
    yield "nothing", []
    yield "plain HTTP", [HTTP]
    yield "an SSH banner", [b"SSH-2.0-OpenSSH_9.6\r\n"]
    yield "a hello of SSL 2.0", [b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + chance.randbytes(37)]
    yield "a record of 64 KiB", [record(HANDSHAKE_TYPE, chance.randbytes(1 << 16), length=0xFFFF)]
    yield "many empty records", [record(HANDSHAKE_TYPE, b"") * 500]
    yield "an alert", [record(ALERT_TYPE, b"\x02\x28")]
    yield "a heartbeat that claims more than it has", [hello, record(HEARTBEAT_TYPE, b"\x01\x40\x00")]
    yield "data before a handshake", [record(DATA_TYPE, HTTP)]
    yield "the same hello many times", [hello] * 8
    yield "a hello, then plain HTTP", [hello, HTTP]
    for number in range(count):
        match number % 5:
            case 0:
                yield f"random bytes {number}", [chance.randbytes(chance.randrange(1, 2048))]
            case 1:
                kind, version = chance.randrange(18, 26), bytes([3, chance.randrange(5)])
                body = chance.randbytes(chance.randrange(0, 512))
                length = chance.choice((None, chance.randrange(1 << 16)))
                yield f"a random record {number}", [record(kind, body, version, length)]
            case 2:
                yield f"a hello cut off {number}", [hello[: chance.randrange(1, len(hello))]]
            case 3:
                cut = chance.randrange(1, len(hello))
                yield f"a hello, then noise {number}", [hello[:cut], hello[cut:], chance.randbytes(200)]
            case _:
                yield f"a mutated hello {number}", [mutated(chance, hello)]


def behind_the_handshake(seed: int, count: int) -> Iterator[tuple[str, bytes, bool]]:
    """Yield what to send on a good connection: its name, the bytes, and whether they bypass TLS."""
    chance = random.Random(seed)
    yield "plain HTTP over TLS records", HTTP, True
    yield "an alert in clear", record(ALERT_TYPE, b"\x01\x00"), True
    yield "a ClientHello in clear, as to renegotiate", client_hello(), True
    yield "a change of ciphers", record(CIPHER_TYPE, b"\x01"), True
    yield "no HTTP", b"\x00" * 64, False
    yield "a header without end", b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000, False
    yield "headers without end", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000, False
    yield "a path without end", b"GET /" + b"a" * 100_000, False
    yield (
        "a body that never comes",
        b"POST /x HTTP/1.1\r\nHost: k\r\nContent-Length: 99999999999\r\n\r\n",
        False,
    )
    yield "two lengths", b"POST /x HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", False
    yield (
        "length and chunks",
        (b"POST /x HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        False,
    )
    yield "chunks of no length", b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", False
    yield (
        "another protocol",
        (b"GET / HTTP/1.1\r\nHost: k\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n" + b"\x00" * 64),
        False,
    )
    yield "a tunnel", b"CONNECT 10.0.0.1:22 HTTP/1.1\r\nHost: k\r\n\r\nSSH-2.0-x\r\n", False
    yield "the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", False
    yield "a 004 frame of 4 GiB", b"\x01\x00\x00\x00\xff\xff\xff\xff", False
    for number in range(count):
        match number % 3:
            case 0:
                yield f"noise over TLS records {number}", chance.randbytes(chance.randrange(1, 600)), True
            case 1:
                yield f"a mutated request {number}", mutated(chance, HTTP), False
            case _:
                yield f"noise {number}", chance.randbytes(chance.randrange(1, 600)), False


def wait_for_end(connection: socket.socket, limit_s: float) -> tuple[bool, int]:
    """Read until the server closes; return whether it did in time, and how many bytes came before."""
    give_up_s, came = time.monotonic() + limit_s, 0
    while (left_s := give_up_s - time.monotonic()) > 0:
        connection.settimeout(left_s)
        try:
            part = connection.recv(READ_BYTES)
        except TimeoutError:
            break
        except OSError:  # reset, or an alert: it is over
            return True, came
        if not part:
            return True, came
        came += len(part)
    return False, came


def provoke(port: int, name: str, pieces: list[bytes], limit_s: float, host: str = LOOPBACK) -> Outcome:
    """Send pieces to a port and wait for the server to close."""
    began_s = time.monotonic()
    with socket.create_connection((host, port), limit_s) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
        except OSError:
            return Outcome(name, True, time.monotonic() - began_s, 0)
        closed, came = wait_for_end(connection, limit_s)
    return Outcome(name, closed, time.monotonic() - began_s, came)


def provoke_inside(
    port: int,
    context: ssl.SSLContext,
    name: str,
    text: bytes,
    below: bool,
    limit_s: float,
    host: str = LOOPBACK,
) -> Outcome:
    """The same behind a good handshake; ``below`` sends beside TLS, straight to the socket."""
    began_s = time.monotonic()
    with (
        socket.create_connection((host, port), limit_s) as plain,
        context.wrap_socket(plain, server_hostname=named(host)) as connection,
    ):
        try:
            if below:
                send_below(connection, text)
            else:
                connection.sendall(text)
        except OSError:
            return Outcome(name, True, time.monotonic() - began_s, 0)
        closed, came = wait_for_end(connection, limit_s)
    return Outcome(name, closed, time.monotonic() - began_s, came)


def named(host: str) -> str:
    """Return under what name the certificate of a server at an address is checked."""
    return "localhost" if host == LOOPBACK else host


def send_below(connection: ssl.SSLSocket, text: bytes) -> None:
    """Write to the socket under a TLS connection."""
    same = socket.socket(fileno=connection.fileno())
    try:
        same.sendall(text)
    finally:
        same.detach()


def all_at_once(acts: list[Callable[[], Outcome]], threads: int = 48) -> list[Outcome]:
    """Do acts side by side."""
    with ThreadPoolExecutor(threads) as pool:
        return [future.result() for future in [pool.submit(act) for act in acts]]


def drip(
    port: int, context: ssl.SSLContext | None, name: str, text: bytes, limit_s: float, host: str = LOOPBACK
) -> Outcome:
    """Send byte by byte, in the clear or behind a good handshake, and wait for the server to close."""
    began_s = time.monotonic()
    with ExitStack() as opened:
        connection = opened.enter_context(socket.create_connection((host, port), limit_s))
        if context is not None:
            connection = opened.enter_context(context.wrap_socket(connection, server_hostname=named(host)))
        for byte in text:
            try:
                connection.sendall(bytes([byte]))
                closed, came = wait_for_end(connection, DRIP_EVERY_S)
            except OSError:
                closed, came = True, 0
            if closed or time.monotonic() - began_s > limit_s:
                return Outcome(name, closed, time.monotonic() - began_s, came)
    return Outcome(name, False, time.monotonic() - began_s, 0)
