"""What a listener does with callers that are slow, too many or too loud; its times are short here."""

import asyncio
import gc
import os
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import uvloop
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from openqci.core.identifiers import KmeId, SaeId
from openqci.services import accept, https, kme_server
from openqci.services.accept import Crowd
from openqci.services.https import HttpsListener
from openqci.services.operator_app import operator_application
from openqci.services.pki import CertificateAuthority, write_credentials
from openqci.services.roles import Role
from openqci.services.tls import TlsFiles

BIG_BYTES = 32 << 20
"""More than all buffers between a server and a client that does not read."""

Run = Callable[[Coroutine[Any, Any, None]], None]
OPENED: list[asyncio.StreamWriter] = []
LOOPS = (uvloop.new_event_loop, asyncio.new_event_loop)


class Home:
    """A listener on a loop of its own, and certificates."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = CertificateAuthority.open_or_create(folder / "pki")
        self.issue("kme", self.authority.issue_kme(KmeId("kme"), ["localhost"]))
        for sae in ("app", "other"):
            self.issue(sae, self.authority.issue_sae(SaeId(sae)))
        self.gone = 0
        self.listeners: list[HttpsListener] = []

    def issue(self, name: str, issued: Any) -> None:
        write_credentials(self.folder / name, issued, self.authority)

    def application(self) -> Starlette:
        async def big(_: Request) -> Response:
            return Response(bytes(BIG_BYTES))

        async def read(request: Request) -> Response:
            try:
                return Response(str(len(await request.body())))
            except ClientDisconnect:
                self.gone += 1
                return Response(status_code=400)

        return Starlette(routes=[Route("/big", big), Route("/read", read, methods=["POST"])])

    def listener(self, application: Starlette | None = None) -> HttpsListener:
        listener = HttpsListener(application or self.application(), "127.0.0.1", 0, self.rules())
        self.listeners.append(listener)
        return listener

    async def stopped(self, scenario: Coroutine[Any, Any, None]) -> None:
        """Do something, and stop all listeners whatever becomes of it."""
        try:
            await scenario
        finally:
            while OPENED:
                OPENED[-1].close()
                OPENED.pop().transport.abort()
            while self.listeners:
                await self.listeners.pop().stop()

    def rules(self) -> ssl.SSLContext:
        files = [self.folder / "kme" / name for name in ("cert.pem", "key.pem", "ca.pem")]
        return TlsFiles(*files).server_context()

    def caller(self, name: str = "app") -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.folder / "pki" / "ca.pem"))
        context.load_cert_chain(self.folder / name / "cert.pem", self.folder / name / "key.pem")
        return context


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture(params=LOOPS, ids=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest, home: Home) -> Iterator[Run]:
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield lambda scenario: runner.run(home.stopped(scenario))


async def opened(
    listener: HttpsListener, context: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect, with TLS or without; what is open in the end is closed with the listener."""
    host = "localhost" if context is not None else "127.0.0.1"
    reader, writer = await asyncio.open_connection(host, listener.port, ssl=context)
    OPENED.append(writer)
    return reader, writer


async def said(reader: asyncio.StreamReader, within_s: float) -> bytes:
    """Return all that the server says until it closes; TimeoutError if it does not."""
    try:
        return await asyncio.wait_for(reader.read(), within_s)
    except (ConnectionError, ssl.SSLError):
        return b""


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("HEAD_S_MAX", 0.4), ("REQUEST_S_MAX", 0.8), ("ANSWER_S_MAX", 0.4)):
        monkeypatch.setattr(kme_server, name, value)
    for module in (kme_server, https):
        monkeypatch.setattr(module, "KEEP_ALIVE_S", 1)
    monkeypatch.setattr(kme_server, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(accept, "HANDSHAKE_S_MAX", 0.5)
    monkeypatch.setattr(accept, "TLS_SHUTDOWN_S_MAX", 0.3)


@pytest.mark.parametrize(
    ("text", "least_s", "answer", "reason"),
    [
        (b"GET / HT", 0.4, b"HTTP/1.1 408 Request Timeout", "head"),
        (
            b"POST /read HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc",
            0.8,
            b"HTTP/1.1 408 Request Timeout",
            "body",
        ),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000, 0.0, b"HTTP/1.1 431 Request Header Fields", "head"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 4_000, 0.0, b"HTTP/1.1 431 Request Header Fields", "head"),
        (b"\0\0\0\0", 0.0, b"HTTP/1.1 400 Bad Request", None),
        (b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\nPRI", 0.0, b"HTTP/1.1 404", None),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\nabc", 0.0, b"HTTP/1.1 400 Bad Request", None),
        (b"", 1.0, b"", None),
    ],
    ids=["head", "body", "one header", "headers", "no HTTP", "upgrade", "tunnel", "nothing"],
)
def test_a_request_has_its_time_and_its_size(
    home: Home, run: Run, text: bytes, least_s: float, answer: bytes, reason: str | None
) -> None:
    async def scenario() -> None:
        listener, began_s = home.listener(), time.monotonic()
        await listener.start()
        reader, writer = await opened(listener, home.caller())
        writer.write(text)
        said_then = await said(reader, 5)
        assert said_then.startswith(answer)
        assert b"HTTP/1.1" not in said_then[8:], "one answer and no more"
        assert least_s <= time.monotonic() - began_s
        assert listener.crowd.closed == (Counter({reason: 1}) if reason else Counter())
        writer.close()
        await listener.stop()
        assert len(listener.crowd) == 0

    run(scenario())


def test_a_body_that_never_comes_tells_the_application_that_its_caller_is_gone(home: Home, run: Run) -> None:
    async def scenario() -> None:
        listener, before = home.listener(), home.gone
        await listener.start()
        reader, _ = await opened(listener, home.caller())
        _.write(b"POST /read HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc")
        await said(reader, 5)
        await asyncio.sleep(0.1)
        assert home.gone == before + 1

    run(scenario())


@pytest.mark.parametrize(("requests", "reasons"), [(1, {}), (4, {"answer": 1})], ids=["one", "several"])
def test_who_does_not_read_answers_is_cut_off(
    home: Home, run: Run, requests: int, reasons: dict[str, int]
) -> None:
    async def scenario() -> None:
        listener = home.listener()
        await listener.start()
        connection = await asyncio.to_thread(ask_and_do_not_read, listener.port, home.caller(), requests)
        assert len(listener.crowd) == 1
        give_up_s = time.monotonic() + 6
        while len(listener.crowd) and time.monotonic() < give_up_s:
            await asyncio.sleep(0.05)
        assert len(listener.crowd) == 0
        assert listener.crowd.closed == Counter(reasons)
        connection.close()

    run(scenario())


def ask_and_do_not_read(port: int, context: ssl.SSLContext, requests: int) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", port), 5)
    connection = context.wrap_socket(plain, server_hostname="localhost")
    for _ in range(requests):
        connection.sendall(b"GET /big HTTP/1.1\r\nHost: k\r\n\r\n")
    return connection


def test_one_who_reads_in_time_gets_it_all(home: Home, run: Run) -> None:
    async def scenario() -> None:
        listener = home.listener()
        await listener.start()
        reader, writer = await opened(listener, home.caller())
        writer.write(b"GET /big HTTP/1.1\r\n\r\n")
        assert len(await asyncio.wait_for(reader.readexactly(BIG_BYTES), 30)) == BIG_BYTES
        assert not listener.crowd.closed

    run(scenario())


def test_the_oldest_handshake_makes_room(home: Home, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "HANDSHAKE_S_MAX", 10.0)
    monkeypatch.setattr(accept, "HANDSHAKES_PER_ADDRESS_MAX", 4)

    async def scenario() -> None:
        listener = home.listener()
        await listener.start()
        silent = [await opened(listener, None) for _ in range(10)]
        await asyncio.sleep(0.1)
        assert listener.crowd.closed["evicted"] == 6
        for reader, _ in silent[:6]:
            assert await said(reader, 1) == b""
        for reader, _ in silent[6:]:
            with pytest.raises(TimeoutError):
                await said(reader, 0.02)
        reader, writer = await opened(listener, home.caller())
        writer.write(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert (await said(reader, 2)).startswith(b"HTTP/1.1 404")
        await listener.stop()
        for reader, writer in silent:
            assert await said(reader, 1) == b"", "a stop ends the handshakes"
            writer.close()

    run(scenario())


def test_no_more_connections_than_there_may_be(home: Home, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "CONNECTIONS_PER_ADDRESS_MAX", 3)

    async def scenario() -> None:
        listener = home.listener()
        await listener.start()
        inside = [await opened(listener, home.caller()) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert len(listener.crowd) == 3
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await opened(listener, home.caller())
        assert listener.crowd.closed == Counter({"crowded": 1})
        inside[0][1].close()
        await asyncio.sleep(0.2)
        reader, writer = await opened(listener, home.caller())
        writer.write(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert (await said(reader, 2)).startswith(b"HTTP/1.1 404")

    run(scenario())


def test_one_caller_takes_no_more_than_its_share(
    home: Home, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also callers that are no application are counted each by itself."""
    monkeypatch.setattr(kme_server, "CONNECTIONS_PER_SAE_MAX", 2)
    home.issue("oleg", home.authority.issue_holder(Role.OPERATOR, "oleg"))
    home.issue("olga", home.authority.issue_holder(Role.OPERATOR, "olga"))

    async def scenario() -> None:
        listener = home.listener()
        await listener.start()
        with ExitStack() as kept:
            for name in ("oleg", "olga", "app", "other"):
                for number in range(3):
                    reader, writer = await opened(listener, home.caller(name))
                    kept.callback(writer.close)
                    writer.write(b"GET / HTTP/1.1\r\n\r\n")
                    answer = await asyncio.wait_for(first(reader), 2)
                    assert answer.startswith(b"HTTP/1.1 404") is (number < 2), (name, number)
            assert listener.crowd.closed == Counter({"crowded": 4})

    run(scenario())


async def first(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(100)
    except (ConnectionError, ssl.SSLError):
        return b""


def test_new_rules_end_the_handshakes_under_the_old_ones(home: Home, run: Run) -> None:
    async def scenario() -> None:
        listener = home.listener()
        await listener.start()
        reader, writer = await opened(listener, None)
        await asyncio.sleep(0.05)
        await listener.reload(home.rules(), lambda certificate: False)
        assert await said(reader, 0.2) == b"", "well before its time is over"
        writer.close()

    run(scenario())


def test_without_files_nobody_is_let_in_for_a_moment(
    home: Home, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(accept, "NO_FILES_REST_S", 0.1)
    real, fail = socket.socket.accept, [True]

    def accept_or_fail(self: socket.socket) -> Any:
        if fail[0]:
            raise OSError(24, "Too many open files")
        return real(self)

    async def scenario() -> None:
        listener = home.listener()
        monkeypatch.setattr(socket.socket, "accept", accept_or_fail)
        await listener.start()
        task = asyncio.create_task(opened(listener, home.caller()))
        await asyncio.sleep(0.35)
        assert 1 <= sum("cannot be accepted" in each.message for each in caplog.records) <= 5
        fail[0] = False
        _, writer = await asyncio.wait_for(task, 3)
        writer.close()

    run(scenario())


def test_closed_connections_leave_nothing_in_memory(home: Home, run: Run) -> None:
    async def scenario() -> None:
        listener = home.listener()
        await listener.start()
        for number in range(20):
            reader, writer = await opened(listener, home.caller())
            writer.write(b"GET / HTTP/1.1\r\n\r\n" if number % 2 else os.urandom(50))
            await asyncio.wait_for(first(reader), 2)
            writer.close()
            writer.transport.abort()
            with ExitStack() as stack:
                plain = stack.enter_context(socket.create_connection(("127.0.0.1", listener.port)))
                plain.sendall(os.urandom(50))
        await asyncio.sleep(0.6)
        OPENED.clear()
        del reader, writer
        gc.collect()
        kinds = Counter(type(each).__name__ for each in gc.get_objects())
        for kind in ("SSLObject", "SSLProtocol", "CertificateProtocol", "RequestResponseCycle"):
            assert kinds[kind] == 0, kind

    run(scenario())


def test_an_endless_word_for_zeroising_is_none(home: Home, run: Run) -> None:
    home.issue("ana", home.authority.issue_holder(Role.SECURITY_OFFICER, "ana"))

    async def never(*_: object) -> Any:
        raise AssertionError("nobody has sent the word")

    async def scenario() -> None:
        listener = home.listener(operator_application(never, never, never, never, {}))
        await listener.start()
        reader, writer = await opened(listener, home.caller("ana"))
        writer.write(b"POST /zeroise HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n" + b"zeroise" * 100)
        assert (await asyncio.wait_for(first(reader), 2)).startswith(b"HTTP/1.1 400")
        reader, writer = await opened(listener, home.caller("ana"))
        writer.write(b"POST /zeroise HTTP/1.1\r\nContent-Length: 7\r\n\r\nzero")
        await said(reader, 3)

    run(scenario())


def test_a_crowd_counts_by_address() -> None:
    class Connection(asyncio.BaseTransport):
        def __init__(self, address: str) -> None:
            super().__init__({"peername": (address, 1)})

    crowd = Crowd()
    for number in range(accept.CONNECTIONS_PER_ADDRESS_MAX):
        assert not crowd.is_full("10.0.0.1"), number
        assert crowd.enter(Connection("10.0.0.1")) == "10.0.0.1"
    assert crowd.is_full("10.0.0.1") and not crowd.is_full("10.0.0.2")
    for _ in range(accept.CONNECTIONS_MAX - len(crowd)):
        crowd.enter(Connection("10.0.0.2"))
    assert crowd.is_full("10.0.0.3")
    crowd.leave("10.0.0.1")
    assert not crowd.is_full("10.0.0.3") and len(crowd) == accept.CONNECTIONS_MAX - 1
