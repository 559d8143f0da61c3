"""What one application may hold of the KMEs that it shares with others: places in the line, connections."""

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator

import pytest

from openqci.core.errors import RequestRefused
from openqci.core.identifiers import SaeId
from openqci.delivery.etsi014_model import KeyRequest
from openqci.services import kme, kme_server
from openqci.services.kme import WAITING_PER_PAIR_MAX, KmeService
from tests.conformance.etsi014.make import RunningKmes
from tests.delivery.make import ALICE, BOB, LISBON, identity, network


@pytest.fixture(scope="module")
def kmes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningKmes]:
    running = RunningKmes(tmp_path_factory.mktemp("kmes"))
    yield running
    running.close()


def test_one_application_does_not_fill_the_line_with_many_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 64 places per pair, the applications of 31 peers would be all 2,000 places."""
    monkeypatch.setattr(kme, "WAITING_PER_MASTER_MAX", 3)
    slaves = [SaeId(f"slave{number}") for number in range(5)]
    greedy, modest = SaeId("greedy"), SaeId("modest")
    service = KmeService(network(), wait_s=0.2)

    async def place(master: SaeId, slave: SaeId) -> bool:
        """Ask for a place in the line; return whether there was one."""
        arrival = service._expect((master, slave))
        began_s = time.monotonic()
        await service._arrived((master, slave), arrival, asyncio.get_running_loop().time() + 0.2)
        service._forget((master, slave), arrival)
        return time.monotonic() - began_s > 0.1

    async def scenario() -> None:
        crowd = [place(greedy, slave) for slave in slaves]
        *got, last = await asyncio.gather(*crowd, place(modest, slaves[0]))
        assert sum(got) == 3 and last, "the line of another application is not touched"
        assert service.waiting() == {}

    asyncio.run(scenario())


def test_the_line_of_a_pair_is_still_bounded() -> None:
    service = KmeService(network(), wait_s=0.3)

    async def scenario() -> None:
        request = KeyRequest(number=1)
        asked = [service.get_key(LISBON, identity(ALICE), BOB, request) for _ in range(WAITING_PER_PAIR_MAX)]
        waiting = [asyncio.create_task(each) for each in asked]
        await asyncio.sleep(0.05)
        began_s = time.monotonic()
        with pytest.raises(RequestRefused, match="503"):
            await service.get_key(LISBON, identity(ALICE), BOB, request)
        assert time.monotonic() - began_s < 0.2
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(scenario())


def test_one_application_does_not_hold_all_connections(
    kmes: RunningKmes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kme_server, "CONNECTIONS_PER_SAE_MAX", 4)
    context = kmes.tls(ALICE)
    held = [connection(kmes, context) for _ in range(6)]
    try:
        assert [alive(one) for one in held] == [True] * 4 + [False] * 2
        with kmes.client(BOB) as other:
            assert other.status(ALICE).status == 200
        held[0].close()
        time.sleep(0.1)
        again = connection(kmes, context)
        held.append(again)
        assert alive(again), "a closed connection gives its place back"
    finally:
        for one in held:
            one.close()
    deadline_s = time.monotonic() + 5
    while kmes.server._state.connections_of and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert not kmes.server._state.connections_of, "nothing is remembered of who has gone"


def connection(kmes: RunningKmes, context: ssl.SSLContext) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", kmes.ports[LISBON]), timeout=5)
    return context.wrap_socket(plain, server_hostname="127.0.0.1")


def alive(held: ssl.SSLSocket) -> bool:
    """Ask for a status over a connection; False if it was closed."""
    try:
        held.sendall(b"GET /api/v1/keys/bob/status HTTP/1.1\r\nHost: x\r\n\r\n")
        return held.recv(12) == b"HTTP/1.1 200"
    except OSError:
        return False
