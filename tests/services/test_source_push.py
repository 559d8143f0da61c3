"""Modules that push their key: two devices that speak the JSON form of ETSI GS QKD 004, and two nodes."""

import asyncio
import json
import logging
import os
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Coroutine, Iterator
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from openqci.core.errors import IntegrityError, KeyUnavailable, PeerMisbehaved, RequestRefused
from openqci.core.identifiers import KmeId
from openqci.delivery import peers
from openqci.delivery.peers import LinkRole
from openqci.keystore import pushed
from openqci.keystore.memory import MemoryKeyStore
from openqci.keystore.ports import KmeView
from openqci.keystore.pushed import PushedStream
from openqci.keystore.supply import KeptSource, SourceReport, SuppliedKey
from openqci.services import source_push
from openqci.services.https import HttpsListener
from openqci.services.kme_check import check_neighbours
from openqci.services.kme_config_file import load_config
from openqci.services.module_app import BODY_BYTES_MAX, PUSH_PATH
from openqci.services.pki import CertificateAuthority, write_credentials
from openqci.services.roles import Role
from openqci.services.source_004 import parse_name
from openqci.services.source_push import KeyMetadata, PushedKey, PushRoom, SourcePush, SourcePushSettings
from openqci.services.tls import TlsFiles
from tests.services.link_nodes import PORTS_PER_NODE, Nodes
from tests.system.make import free_port_base

CHUNK_BYTES = 32
STATED = SourceReport("BB84", "stated", 1e-9, False)


class Fibre:
    """What the two devices of a link have in common: the chunks of each stream."""

    def __init__(self) -> None:
        self._chunks: dict[tuple[str, int], bytes] = {}

    def chunk(self, ksid: str, index: int) -> bytes:
        return self._chunks.setdefault((ksid, index), os.urandom(CHUNK_BYTES))


class Device:
    """One module: opens streams for its node, and pushes chunks to it."""

    def __init__(self, name: str, fibre: Fibre, folder: Path, push_url: str) -> None:
        self.name, self._fibre, self._folder, self._push_url = name, fibre, folder, push_url
        self.open: set[str] = set()
        self.pushed = 0
        self.refused: list[int] = []
        self.paused = False
        self._tasks: dict[str, asyncio.Task[None]] = {}
        routes = [
            Route("/api/v1/kms/etsi004/open-connect", self._open_connect, methods=["POST"]),
            Route("/api/v1/kms/etsi004/get-key", self._get_key, methods=["GET"]),
            Route("/api/v1/kms/etsi004/close", self._close, methods=["PUT"]),
        ]
        files = TlsFiles(folder / "cert.pem", folder / "key.pem", folder / "ca.pem")
        self._tls = files.client_context()
        self.listener = HttpsListener(Starlette(routes=routes), "127.0.0.1", 0, files.server_context())

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.listener.port}/api/v1/kms/etsi004"

    async def stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self.listener.stop()

    async def _open_connect(self, request: Request) -> Response:
        asked = await request.json()
        ksid = asked.get("key_stream_id") or str(uuid4())
        if ksid in self.open:
            return JSONResponse({"status": 5}, 400)
        if asked["qos"].get("key_chunk_size") != CHUNK_BYTES:
            return JSONResponse({"status": 7, "qos": {"key_chunk_size": CHUNK_BYTES}}, 500)
        self.open.add(ksid)
        return JSONResponse({**asked, "key_stream_id": ksid, "status": 0}, 201)

    async def _get_key(self, request: Request) -> Response:
        ksid = (await request.json())["key_stream_id"]
        if ksid not in self.open:
            return JSONResponse({"status": 4}, 400)
        if ksid not in self._tasks:
            self._tasks[ksid] = asyncio.create_task(self._push(ksid))
        return JSONResponse({"status": 0}, 205)

    async def _close(self, request: Request) -> Response:
        ksid = (await request.json())["key_stream_id"]
        if ksid not in self.open:
            return JSONResponse({"status": 5}, 400)
        self.open.discard(ksid)
        if (task := self._tasks.pop(ksid, None)) is not None:
            task.cancel()
        return Response(status_code=204)

    async def _push(self, ksid: str) -> None:
        """Push chunk after chunk; one for which the node has no room is offered again."""
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._tls)) as session:
            index = 0
            while True:
                await asyncio.sleep(0.05 if self.paused else 0)
                if self.paused:
                    continue
                body = push_of(ksid, index, self._fibre.chunk(ksid, index))
                try:
                    async with session.post(self._push_url, json=body) as answer:
                        code = answer.status
                except aiohttp.ClientError:
                    code = 0
                if code == 201:
                    index, self.pushed = index + 1, self.pushed + 1
                else:
                    self.refused.append(code)
                    await asyncio.sleep(0.02)


def push_of(ksid: str, index: int, key: bytes, **more: object) -> dict[str, Any]:
    buffer = {"key_stream_id": ksid, **more}
    return {
        "status": 0,
        "index": index,
        "key_buffer": b64encode(key).decode(),
        "metadata": {"size": len(json.dumps(buffer)), "buffer": buffer},
    }


class Site:
    """A loop in a thread, an authority, two devices; nodes are started when a test wants them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.authority = CertificateAuthority.open_or_create(folder / "pki")
        fibre, self.base = Fibre(), free_port_base(2 * PORTS_PER_NODE, 19700)
        self.devices: dict[str, Device] = {}
        for number, end in enumerate("pq"):
            name = f"module-{end}"
            self.issue(name, Role.QKD_MODULE)
            served = self.authority.issue_kme(name, ["127.0.0.1"])  # type: ignore[arg-type]
            write_credentials(folder / f"{name}-server", served, self.authority)
            push_url = f"https://127.0.0.1:{self.base + number * PORTS_PER_NODE + 3}{PUSH_PATH}"
            self.devices[end] = self.on_loop(self._device(name, fibre, push_url))
        self.nodes = Nodes(folder, self.authority, self.on_loop, self._link, base=self.base)

    async def _device(self, name: str, fibre: Fibre, push_url: str) -> Device:
        device = Device(name, fibre, self.folder / f"{name}-server", push_url)
        files = TlsFiles(*(self.folder / name / file for file in ("cert.pem", "key.pem", "ca.pem")))
        device._tls = files.client_context()
        await device.listener.start()
        return device

    def _link(self, end: str) -> str:
        return f"""[link.etsi004_push]
module = "module-{end}"
url = "{self.devices[end].url}"
source = "https://site-p.example"
destination = "https://site-q.example"
certificate = "cert.pem"
key = "key.pem"
authority = "ca.pem"
"""

    def issue(self, name: str, role: Role) -> None:
        write_credentials(self.folder / name, self.authority.issue_holder(role, name), self.authority)

    def on_loop(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60.0)

    def post(self, folder: str | None, body: bytes, method: str = "POST", path: str = PUSH_PATH) -> int:
        """Send one request to the module listener of the node p."""
        tls = ssl.create_default_context(cafile=str(self.authority.certificate_file))
        if folder is not None:
            tls.load_cert_chain(self.folder / folder / "cert.pem", self.folder / folder / "key.pem")
        connection = HTTPSConnection("127.0.0.1", self.base + 3, context=tls, timeout=10)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            return connection.getresponse().status
        finally:
            connection.close()

    def close(self) -> None:
        self.nodes.close()
        for device in self.devices.values():
            self.on_loop(device.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    running = Site(tmp_path)
    yield running
    running.close()


def stream_at_p(site: Site) -> PushedStream | None:
    source = site.nodes.apps["p"].node._sources["pq"]
    assert isinstance(source, SourcePush)
    stream: PushedStream | None = site.on_loop(source._room.run(pushed.current))
    return stream


def led(site: Site) -> str:
    """Return the stream that the node p leads, once it has one."""
    until_s = time.monotonic() + 30
    while (stream := stream_at_p(site)) is None and time.monotonic() < until_s:
        time.sleep(0.02)
    assert stream is not None
    return stream.ksid


def waiting_at_p(site: Site) -> int:
    stream = stream_at_p(site)
    return stream.chunks if stream is not None else 0


def test_two_nodes_live_on_what_their_modules_push(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    site.nodes.start("p", "q")
    site.nodes.exchange()
    figures = site.nodes.apps["p"].node.figures.links["pq"]
    assert figures.deposited_bytes > 0 and figures.refused_deposits == 0
    for end in "pq":
        results = site.on_loop(check_neighbours(load_config(site.folder / end / "kme.toml")))
        assert [str(result) for result in results if not result.good] == []
        assert any("push form" in result.note for result in results)
    for end in "pq":
        for chunk in list(site.devices[end]._fibre._chunks.values())[:50]:
            assert b64encode(chunk).decode() not in caplog.text and chunk.hex() not in caplog.text


def wait_for_deposits(site: Site, length_bytes: int) -> None:
    """Wait until the link has got so much more key than it has now."""
    figures = site.nodes.apps["p"].node.figures.links["pq"]
    wanted, until_s = figures.deposited_bytes + length_bytes, time.monotonic() + 40
    while figures.deposited_bytes < wanted:
        assert time.monotonic() < until_s, f"{figures} after {site.devices['p'].pushed} pushes"
        time.sleep(0.05)


@pytest.mark.parametrize("ends", ["p", "q", "pq"])
def test_a_node_that_starts_again_goes_on(site: Site, ends: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_push, "SKIPPED_S_MAX", 0.2)
    site.nodes.start("p", "q")
    site.nodes.exchange()
    before = {end: set(device.open) for end, device in site.devices.items()}
    site.nodes.stop(*ends)
    site.nodes.start(*ends)
    wait_for_deposits(site, 8192)
    site.nodes.exchange(100)
    assert before["p"] & site.devices["p"].open, "the stream of the earlier life goes on"
    figures = site.nodes.apps["p"].node.figures.links["pq"]
    assert figures.refused_deposits == 0, "nothing that was acknowledged is missing at one end"


def test_when_the_buffer_is_full_the_module_waits_and_no_key_is_lost(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushed, "HELD_BYTES_MAX", 512)
    site.nodes.start("p", "q")
    for _ in range(5):
        site.nodes.exchange(100)
    assert set(site.devices["p"].refused) <= {0, 400, 503} and 503 in site.devices["p"].refused
    figures = site.nodes.apps["p"].node.figures.links["pq"]
    assert figures.deposited_bytes > 512 and figures.refused_deposits == 0


@pytest.mark.parametrize(
    ("folder", "expected"),
    [("app-p", 401), ("q", 401), ("module-q", 401), ("operator", 401), ("module-p", 201)],
)
def test_only_the_links_own_module_may_push(site: Site, folder: str, expected: int) -> None:
    site.issue("operator", Role.OPERATOR)
    site.devices["p"].paused = True
    site.nodes.start("p", "q")
    body = json.dumps(push_of(led(site), 5, bytes(CHUNK_BYTES))).encode()
    assert site.post(folder, body) == expected
    with pytest.raises((OSError, ssl.SSLError)):
        site.post(None, body)


def test_what_is_no_push_is_refused_and_changes_nothing(site: Site) -> None:
    site.devices["p"].paused = True
    site.nodes.start("p", "q")
    ksid = led(site)
    good = push_of(ksid, 0, bytes(CHUNK_BYTES))
    bad: list[tuple[object, int]] = [
        ({**good, "index": -1}, 400),
        ({**good, "index": 1 << 32}, 400),
        ({**good, "index": "0"}, 400),
        ({**good, "key_buffer": "!"}, 400),
        ({**good, "key_buffer": ""}, 400),
        ({**good, "key_buffer": b64encode(bytes(31)).decode()}, 400),
        ({**good, "metadata": {"buffer": {"key_stream_id": "x"}}}, 400),
        ({**good, "metadata": {"buffer": "{"}}, 400),
        ({**good, "metadata": {"buffer": {"key_stream_id": str(uuid4())}}}, 400),
        ({**good, "metadata": {"buffer": {"key_stream_id": ksid, "openqci_source": {"epsilon": "x"}}}}, 400),
        ({"index": 0}, 400),
        ([], 400),
        ({**good, "key_buffer": "A" * BODY_BYTES_MAX}, 413),
    ]
    for body, expected in bad:
        assert site.post("module-p", json.dumps(body).encode()) == expected, body
    assert site.post("module-p", b"\xff[") == 400
    assert site.post("module-p", b"[" * 100_000) == 400
    assert site.post("module-p", b"{}", method="GET") == 405
    assert site.post("module-p", b"{}", path="/") == 404
    assert waiting_at_p(site) == 0
    assert site.post("module-p", json.dumps({**good, "status": 2}).encode()) == 201
    assert waiting_at_p(site) == 0


# The source alone, without its module


class NoModule:
    """A module that opens every stream, begins each, and pushes nothing."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.knows = True

    async def request(self, method: str, call: str, body: dict[str, Any]) -> tuple[int, bytes]:
        self.calls.append(call)
        if call != "open-connect":
            return (204, b"") if self.knows else (400, b'{"status": 4}')
        ksid = body.get("key_stream_id") or str(uuid4())
        return 201, json.dumps({"status": 0, "key_stream_id": ksid}).encode()

    async def close(self) -> None:
        """Nothing to close."""


class End:
    """One end of a link over a store in memory, which outlives its source as a disk does."""

    def __init__(self) -> None:
        self.store, self.module = MemoryKeyStore(), NoModule()
        self.start()

    def start(self) -> None:
        """Begin another life of the process."""
        settings = SourcePushSettings(
            module="m",
            url="https://127.0.0.1:1",
            source="a",
            destination="b",
            chunk_bytes=CHUNK_BYTES,
            report=STATED,
        )
        self.source = SourcePush(settings, self.module, PushRoom(self.store, KmeId("k"), "l"))

    def view(self) -> KmeView:
        return self.store.submit(lambda tx: KmeView(tx, KmeId("k"))).result()

    def lead(self) -> UUID:
        """Open a stream and have the module begin, as the node does before it draws."""
        text = asyncio.run(self.source.prepare())
        assert text is not None and asyncio.run(self.source.prepare()) == text, "until the other end was told"
        with pytest.raises(KeyUnavailable):
            self.taken()
        assert asyncio.run(self.source.prepare()) is None and self.module.calls[-1] == "get-key"
        return parse_name(text)[0]

    def follow(self) -> UUID:
        ksid = uuid4()
        asyncio.run(self.source.join(f"{ksid}:{CHUNK_BYTES}"))
        return ksid

    def push(self, ksid: UUID | None, *indices: int) -> None:
        for index in indices:
            asyncio.run(self.source.take_in(pushed_key(ksid, index)))

    def taken(self, length_bytes_max: int = 4096) -> list[int]:
        def work(tx: Any) -> SuppliedKey:
            return self.source.draw_kept(KmeView(tx, KmeId("k")), length_bytes_max)

        supplied = self.store.submit(work).result()
        indices = [parse_name(name)[1] for name in supplied.key_ids]
        with supplied.key:
            assert supplied.key.reveal() == b"".join(bytes([each % 251]) * CHUNK_BYTES for each in indices)
        return indices

    def named(self, names: list[str]) -> bytes:
        length = CHUNK_BYTES * len(names)
        asyncio.run(self.source.expect(names, length))
        key, report = self.store.submit(
            lambda tx: self.source.draw_named_kept(KmeView(tx, KmeId("k")), names, length)
        ).result()
        assert report == STATED
        return bytes(key.reveal())

    def waiting(self) -> list[int]:
        return pushed.first(self.view(), "l", 1 << 20)[0]


def pushed_key(ksid: UUID | None, index: int, key: bytes | None = None) -> PushedKey:
    key = bytes([index % 251]) * CHUNK_BYTES if key is None else key
    metadata = KeyMetadata({"key_stream_id": str(ksid)}) if ksid is not None else None
    return PushedKey(0, index, b64encode(key).decode(), metadata)


def test_it_is_a_source_that_keeps_its_key() -> None:
    assert issubclass(SourcePush, KeptSource)


def test_chunks_are_used_in_rising_order_once() -> None:
    end = End()
    ksid = end.lead()
    end.push(ksid, 3, 0, 2, 7, 2)
    assert end.taken(3 * CHUNK_BYTES) == [0, 2, 3]
    end.push(ksid, 1, 2, 8, 9)  # 1 comes too late: the other end may have passed it over
    assert end.taken() == [7, 8, 9]
    with pytest.raises(KeyUnavailable):
        end.taken()
    assert end.view().stock_bytes(next(iter(end.view().streams("pushed/")))[0]) == 0


def test_what_was_acknowledged_survives_the_process_and_its_stream_goes_on() -> None:
    end = End()
    ksid = end.lead()
    end.push(ksid, 0, 1, 2)
    end.start()
    end.push(ksid, 1, 3)
    assert asyncio.run(end.source.prepare()) == f"{ksid}:{CHUNK_BYTES}", "the other end is told again"
    assert end.taken() == [0, 1, 2, 3]
    assert asyncio.run(end.source.prepare()) is None and end.module.calls[-1] == "get-key"
    end.push(ksid, 2, 4, 5, 6)
    assert end.taken() == [4, 5, 6]


def test_a_drawing_that_is_undone_leaves_everything_waiting() -> None:
    end = End()
    ksid = end.lead()
    end.push(ksid, 0, 1, 2, 3)

    def undone(tx: Any) -> None:
        end.source.draw_kept(KmeView(tx, KmeId("k")), 4096).key.wipe()
        raise OSError

    with pytest.raises(OSError):
        end.store.submit(undone).result()
    assert end.waiting() == [0, 1, 2, 3] and end.taken() == [0, 1, 2, 3]


def test_the_other_end_takes_the_same_and_passes_over_what_was_not_named() -> None:
    end = End()
    ksid = end.follow()
    end.push(ksid, *range(10))
    key = end.named([f"{ksid}:{index}" for index in (2, 3, 5)])
    assert key == b"".join(bytes([index]) * CHUNK_BYTES for index in (2, 3, 5))
    assert end.waiting() == [6, 7, 8, 9]
    stream = pushed.current(end.view(), "l")
    assert stream is not None and (stream.held_bytes, stream.chunks) == (4 * CHUNK_BYTES, 4)


def test_what_has_not_come_is_waited_for_and_then_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    end = End()
    ksid = end.follow()
    end.push(ksid, 0)
    names = [f"{ksid}:{index}" for index in (0, 1, 2)]
    with pytest.raises(KeyUnavailable):
        end.named(names)
    monkeypatch.setattr(source_push, "NAMED_S_MAX", 0.0)
    with pytest.raises(IntegrityError):
        end.named(names)
    end.push(ksid, 1, 2)
    opened = end.module.calls.count("open-connect")
    end.named(names)
    assert end.module.calls.count("open-connect") == opened + 1, "perhaps the module had forgotten it"


def test_a_full_room_refuses_and_takes_again_when_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushed, "HELD_BYTES_MAX", 4 * CHUNK_BYTES)
    end = End()
    ksid = end.lead()
    end.push(ksid, 0, 1, 2, 3)
    with pytest.raises(RequestRefused) as refused:
        end.push(ksid, 4)
    assert refused.value.status == 503 and refused.value.headers and refused.value.headers["Retry-After"]
    assert end.source.chunks_refused == 1
    assert end.taken() == [0, 1, 2, 3]
    end.push(ksid, 4)


def test_an_earlier_stream_takes_no_room_from_the_present_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushed, "HELD_BYTES_MAX", 4 * CHUNK_BYTES)
    end = End()
    end.push(end.follow(), 0, 1, 2, 3)
    later = end.follow()
    end.push(later, 0, 1, 2, 3)
    assert end.waiting() == [0, 1, 2, 3] and len(end.named([f"{later}:{index}" for index in range(4)]))


def test_another_chunk_of_the_same_index_is_refused_and_the_first_stays() -> None:
    end = End()
    ksid = end.lead()
    end.push(ksid, 0, 0, 1)
    for key in (os.urandom(CHUNK_BYTES), bytes(31)):
        with pytest.raises(RequestRefused):
            asyncio.run(end.source.take_in(pushed_key(ksid, 0, key)))
    end.push(ksid, 2)
    assert end.taken() == [0, 1, 2]


def test_a_push_without_a_stream_is_for_the_only_one() -> None:
    end = End()
    end.lead()
    end.push(None, 0, 1, 2)
    assert end.waiting() == [0, 1, 2]
    with pytest.raises(RequestRefused):
        End().push(None, 0)


def test_a_push_to_a_stream_that_is_not_ours_is_refused_and_the_stream_closed() -> None:
    for role in (End.lead, End.follow):
        end = End()
        role(end)
        stray = uuid4()
        with pytest.raises(RequestRefused):
            end.push(stray, 0)
        assert end.source._strays == {stray}
        asyncio.run(end.source._close_strays())
        assert end.module.calls[-1] == "close"


def test_simulated_key_is_known_as_such() -> None:
    end = End()
    ksid = end.lead()
    for index in range(3):
        buffer = {"key_stream_id": str(ksid), "openqci_source": {"simulated": index == 1}}
        key = b64encode(os.urandom(CHUNK_BYTES)).decode()
        asyncio.run(end.source.take_in(PushedKey(0, index, key, KeyMetadata(json.dumps(buffer)))))
    assert end.source.draw_kept(end.view(), 4096).report.simulated


def test_a_stream_of_which_nothing_comes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_push, "STILL_S_MAX", 0.0)
    end = End()
    end.lead()
    asyncio.run(end.source.prepare())
    assert pushed.current(end.view(), "l") is None and end.module.calls[-1] == "close"


def test_a_stream_that_its_module_does_not_know_any_more_is_given_up_once_nothing_of_it_waits() -> None:
    end = End()
    ksid = end.lead()
    end.push(ksid, 0, 1, 2)
    end.start()
    asyncio.run(end.source.prepare())
    assert end.taken() == [0, 1, 2]
    end.module.knows = False
    with pytest.raises(KeyUnavailable):
        asyncio.run(end.source.prepare())
    assert pushed.current(end.view(), "l") is None


def test_names_that_are_none_are_refused() -> None:
    one, other = uuid4(), uuid4()
    for names in ([], ["x"], [f"{one}:1", f"{other}:2"], [f"{one}:2", f"{one}:1"], [f"{one}:1", f"{one}:1"]):
        with pytest.raises(PeerMisbehaved):
            asyncio.run(End().source.expect(names, CHUNK_BYTES * max(1, len(names))))


def test_chunks_of_another_length_are_not_taken() -> None:
    end = End()
    ksid = end.follow()
    end.push(ksid, 0, 1, 2)
    with pytest.raises(PeerMisbehaved):
        end.source.draw_named_kept(end.view(), [f"{ksid}:0", f"{ksid}:1"], 4 * CHUNK_BYTES)
    assert end.waiting() == [0, 1, 2]


def test_a_new_epoch_begins_without_what_was_pushed_before() -> None:
    end = End()
    end.push(end.lead(), 0, 1, 2)
    peers.start_over(end.view(), KmeId("peer"), "e", [LinkRole("l", True)])
    assert pushed.current(end.view(), "l") is None
    assert sum(stock for _, stock in end.view().streams("pushed/")) == 0


def test_a_push_shows_no_key() -> None:
    assert "AAAA" not in repr(pushed_key(uuid4(), 0, bytes(CHUNK_BYTES)))
