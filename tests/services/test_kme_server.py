"""The server around the rules: waiting for stock, many listeners, stopping, and what it needs of uvicorn."""

import asyncio
import inspect
import socket
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast

import pytest
import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from openqci.core.errors import ConfigurationError, RequestRefused
from openqci.core.identifiers import KmeId
from openqci.delivery.etsi014 import Delivery
from openqci.delivery.etsi014_model import KeyRequest
from openqci.keystore.memory import MemoryKeyStore
from openqci.services.kme import WAITING_PER_PAIR_MAX, KmeService
from openqci.services.kme_server import KMEEndpoint, KMEServer, WholeAnswers
from openqci.services.pki import CertificateAuthority, write_credentials
from openqci.services.tls import TlsFiles
from tests.conformance.etsi014.make import RunningKmes, free_ports
from tests.delivery.make import ALICE, BOB, LISBON, identity, key_bytes, network, stock_pair


def run(scenario: Callable[[], object]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())  # type: ignore[arg-type]


async def ask(service: KmeService, number: int = 1) -> Delivery:
    return await service.get_key(LISBON, identity(ALICE), BOB, KeyRequest(number=number))


def test_a_request_waits_for_the_stock_that_it_demands() -> None:
    store, demands = network(), list[tuple[object, ...]]()
    service = KmeService(store, on_demand=lambda *demand: demands.append(demand))

    async def scenario() -> None:
        waiting = asyncio.create_task(ask(service, 2))
        await asyncio.sleep(0.01)
        assert demands == [(ALICE, BOB, 64, (), 32)] and not waiting.done()
        await store.run(lambda tx: stock_pair(tx, key_bytes(32)))
        service.stock_arrived(ALICE, BOB)
        await asyncio.sleep(0.01)
        assert len(demands) == 2 and not waiting.done(), "too little came: it asks again and waits on"
        await store.run(lambda tx: stock_pair(tx, key_bytes(64)))
        service.stock_arrived(ALICE, BOB)
        assert len((await waiting).keys) == 2
        assert service.waiting() == {}

    run(scenario)


def test_a_request_is_refused_when_no_stock_comes() -> None:
    service = KmeService(network(), wait_s=0.05)

    async def scenario() -> None:
        began_s = time.monotonic()
        with pytest.raises(RequestRefused) as refused:
            await ask(service)
        assert 0.04 < time.monotonic() - began_s < 1, "timers have a grain of a millisecond"
        assert refused.value.status == 503 and refused.value.headers["Retry-After"]
        assert service.waiting() == {}

    run(scenario)


def test_no_more_than_a_bounded_number_waits_for_a_pair() -> None:
    service = KmeService(network(), wait_s=1.0)

    async def scenario() -> None:
        waiting = [asyncio.create_task(ask(service)) for _ in range(WAITING_PER_PAIR_MAX)]
        await asyncio.sleep(0.02)
        began_s = time.monotonic()
        with pytest.raises(RequestRefused):
            await ask(service)
        assert time.monotonic() - began_s < 0.5, "refused at once, not after the wait"
        refused = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(one, RequestRefused) for one in refused)

    run(scenario)


def test_a_stop_ends_the_waiting() -> None:
    service = KmeService(network(), wait_s=30)

    async def scenario() -> None:
        waiting = asyncio.create_task(ask(service))
        await asyncio.sleep(0.01)
        service.stop_waiting()
        with pytest.raises(RequestRefused):
            await asyncio.wait_for(waiting, 1)

    run(scenario)


def test_many_kmes_listen_in_one_process(tmp_path: Path) -> None:
    authority = CertificateAuthority.open_or_create(tmp_path)
    ports = free_ports(100)
    files = authority.issue_kmes([KmeId(f"kme-{port}") for port in ports])
    endpoints = [
        KMEEndpoint(kme, port, file, file) for port, (kme, file) in zip(ports, files.items(), strict=True)
    ]
    server = KMEServer(endpoints, KmeService(MemoryKeyStore()), authority.certificate_file)

    async def scenario() -> None:
        await server.start()
        for port in (ports[0], ports[-1]):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
        await server.stop()
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", ports[0])

    run(scenario)


def test_a_silenced_kme_answers_nothing_keeps_its_port_and_answers_again(tmp_path: Path) -> None:
    authority = CertificateAuthority.open_or_create(tmp_path)
    ports, kmes = free_ports(2), [KmeId("kme-a"), KmeId("kme-b")]
    files = authority.issue_kmes(kmes)
    endpoints = [
        KMEEndpoint(kme, port, files[kme], files[kme]) for kme, port in zip(kmes, ports, strict=True)
    ]
    server = KMEServer(endpoints, KmeService(MemoryKeyStore()), authority.certificate_file)

    async def scenario() -> None:
        await server.start()
        server.silence(kmes[0])
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", ports[0])
        _, writer = await asyncio.open_connection("127.0.0.1", ports[1])
        writer.close()
        with socket.socket() as other, pytest.raises(OSError):
            other.bind(("127.0.0.1", ports[0]))
        server.answer_again(kmes[0])
        _, writer = await asyncio.open_connection("127.0.0.1", ports[0])
        writer.close()
        await server.stop()

    run(scenario)


def test_a_port_in_use_is_named_and_nothing_listens(tmp_path: Path) -> None:
    authority = CertificateAuthority.open_or_create(tmp_path)
    ports = free_ports(2)
    files = authority.issue_kmes([KmeId("kme-a"), KmeId("kme-b")])
    endpoints = [
        KMEEndpoint(kme, port, file, file) for port, (kme, file) in zip(ports, files.items(), strict=True)
    ]
    server = KMEServer(endpoints, KmeService(MemoryKeyStore()), authority.certificate_file)

    async def scenario() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", ports[1]))
            taken.listen()
            with pytest.raises(ConfigurationError, match=f"port {ports[1]} .*--port-base") as error:
                await server.start()
            assert "\n" not in str(error.value)
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", ports[0])

    run(scenario)


def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    authority = CertificateAuthority.open_or_create(tmp_path)
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    (port,) = free_ports(1)
    endpoint = KMEEndpoint(KmeId("kme-a"), port, broken, broken)
    server = KMEServer([endpoint], KmeService(MemoryKeyStore()), authority.certificate_file)
    with pytest.raises(ConfigurationError, match=r"broken\.pem: cannot be used"):
        run(server.start)


def test_a_stop_lets_a_request_in_hand_end(tmp_path: Path) -> None:
    running = RunningKmes(tmp_path, wait_s=20)
    answers = []
    with running.client(ALICE) as alice:
        alice.status(BOB)
        asking = threading.Thread(target=lambda: answers.append(alice.enc_keys(BOB)))
        asking.start()
        deadline_s = time.monotonic() + 5
        while not running.service.waiting() and time.monotonic() < deadline_s:
            time.sleep(0.005)
        began_s = time.monotonic()
        running.close()
        asking.join(timeout=5)
    assert [answer.status for answer in answers] == [503], "refused in words, not by a cut connection"
    assert time.monotonic() - began_s < 4


class Written(asyncio.Transport):
    """Remembers what was written into it together."""

    def __init__(self) -> None:
        super().__init__()
        self.packets: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.packets.append(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.packets.append(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return False


def test_head_and_body_of_an_answer_leave_together() -> None:
    written = Written()
    answer = WholeAnswers(written)
    for part in (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", bytearray(b"body"), b"more"):
        answer.write(part)
    assert written.packets == [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nbody", b"more"]
    assert "self.transport.write(" in inspect.getsource(RequestResponseCycle.send), "through what we give it"


def test_an_answer_without_a_body_leaves_when_it_is_complete() -> None:
    written = Written()
    answer = WholeAnswers(written)
    answer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert not written.packets
    answer.write(b"")
    assert written.packets == [b"HTTP/1.1 204 No Content\r\n\r\n"]


def test_uvicorn_still_has_what_the_peer_protocol_reaches_into() -> None:
    """The certificate goes through ``app_state``, which is no public API of uvicorn (0.54)."""
    assert list(inspect.signature(HttpToolsProtocol.__init__).parameters) == [
        "self",
        "config",
        "server_state",
        "app_state",
        "_loop",
    ]
    source = inspect.getsource(HttpToolsProtocol)
    assert '"state": self.app_state.copy()' in source
    assert "def send_400_response(self, msg: str)" in source
    assert 'self.scope["raw_path"] = full_raw_path' in source
    assert "connections" in vars(uvicorn.server.ServerState())


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_tls_takes_an_answer_at_once_so_that_it_can_be_wiped(
    loop: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path
) -> None:
    """What a connection was given to write is encrypted when that returns, however slowly it is read.

    The answers that hold keys are wiped in the same turn; a transport that kept them would send zeros.
    """
    authority = CertificateAuthority.open_or_create(tmp_path / "pki")
    write_credentials(tmp_path / "k", authority.issue_kme(KmeId("kme-a"), ["localhost"]), authority)
    write_credentials(tmp_path / "s", authority.issue_sae(ALICE), authority)
    files = {
        name: TlsFiles(tmp_path / name / "cert.pem", tmp_path / name / "key.pem", tmp_path / "pki" / "ca.pem")
        for name in "ks"
    }
    answers = [b"%08d" % number * (1 << 14) for number in range(40)]
    head = b"HTTP/1.1 200 OK\r\n\r\n"

    class Server(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            for answer in answers:
                body = bytearray(answer)
                whole = WholeAnswers(cast(asyncio.Transport, transport))
                whole.write(head)
                whole.write(body)
                body[:] = bytes(len(body))
            transport.close()

    async def run() -> None:
        running = asyncio.get_running_loop()
        server = await running.create_server(Server, "127.0.0.1", 0, ssl=files["k"].server_context())
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(
            "localhost", port, ssl=files["s"].client_context(), limit=1 << 12
        )
        await asyncio.sleep(0.2)  # the server's buffers are full by now
        assert await reader.read(-1) == b"".join(head + answer for answer in answers)
        writer.close()
        server.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())
