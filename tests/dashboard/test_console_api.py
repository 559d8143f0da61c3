"""The console's interface, over a real loopback port: shapes, limits, headers, and who may ask."""

import asyncio
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from email.message import Message
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

import openqci.dashboard
from openqci.dashboard.guard import host_name
from openqci.dashboard.live import SUBSCRIBERS_MAX, LiveFeed
from tests.dashboard.make import MovingSource, made_up_network, served

STATIC = Path(openqci.dashboard.__file__).parent / "static"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served(MovingSource(made_up_network())) as url:
        yield url


class Answer(NamedTuple):
    status: int
    headers: Message
    body: bytes


@contextmanager
def asked(address: str, path: str, method: str = "GET", host: str | None = None) -> Iterator[HTTPResponse]:
    """Send one request and yield the answer still open, for streams."""
    with closing(HTTPConnection(urlsplit(address).netloc, timeout=5)) as connection:
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", urlsplit(address).netloc if host is None else host)
        connection.endheaders()
        with connection.getresponse() as response:
            yield response


def ask(address: str, path: str, method: str = "GET", host: str | None = None) -> Answer:
    with asked(address, path, method, host) as response:
        return Answer(response.status, response.headers, response.read())


def answer(address: str, path: str) -> Any:
    response = ask(address, path)
    assert (response.status, response.headers["Content-Type"]) == (200, "application/json")
    return json.loads(response.body)


def test_the_network_and_the_live_arrays_fit_each_other(address: str) -> None:
    network, live = answer(address, "/api/network"), answer(address, "/api/live?once=1")
    assert len(network["nodes"]) == 13 and len(network["hops"]) == 10
    for name in ("stock_bits", "state", "distilled_bps"):
        assert len(live["hops"][name]) == len(network["hops"])


def test_a_node_and_a_hop_whose_id_has_dots_and_dashes(address: str) -> None:
    assert answer(address, "/api/nodes/es-madrid--pt-evora.tn1")["generated"] is True
    assert answer(address, "/api/hops/es-madrid--pt-evora.2")["qber"] == 0.0153
    assert answer(address, "/api/status")["totals"]["hops"] == 10
    assert answer(address, "/healthz") == {"status": "ok"}


@pytest.mark.parametrize(
    "path",
    ["/api/nodes/nowhere", "/api/hops/no--where", "/api/hops/..%2f..%2fetc", "/static/../api.py", "/admin"],
)
def test_what_does_not_exist_is_404(address: str, path: str) -> None:
    assert ask(address, path).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/", "/api/network", "/api/live", "/static/main.js"])
def test_nothing_can_be_changed(address: str, method: str, path: str) -> None:
    assert ask(address, path, method).status == 405


@pytest.mark.parametrize("path", ["/", "/static/main.js", "/api/network", "/nowhere"])
def test_every_answer_carries_the_security_headers(address: str, path: str) -> None:
    headers = ask(address, path).headers
    assert headers["Content-Security-Policy"].startswith("default-src 'self';")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "192.0.2.1:80", "", "127.0.0.1.evil:80"]
)
def test_another_host_name_is_refused(address: str, host: str) -> None:
    """DNS rebinding: a page of evil.example whose name now points at this machine."""
    response = ask(address, "/api/network", host=host)
    assert response.status == 421
    assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080", "[::1]"])
def test_loopback_names_are_answered(address: str, host: str) -> None:
    assert ask(address, "/healthz", host=host).status == 200


def test_an_ipv6_host_keeps_its_brackets() -> None:
    assert [host_name(host) for host in ("[::1]:80", "[::1]", "a:b", "localhost")] == [
        "[::1]", "[::1]", "a:b", "localhost",
    ]  # fmt: skip


def test_the_stream_sends_an_event_at_once_and_moves_on(address: str) -> None:
    with asked(address, "/api/live") as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        first, blank, second = (stream.readline() for _ in range(3))
    assert blank == b"\n"
    moved = [json.loads(line.removeprefix(b"data: "))["time_s"] for line in (first, second)]
    assert moved[0] < moved[1]


def test_the_number_of_open_streams_is_bounded() -> None:
    with served(MovingSource(made_up_network())) as address, ExitStack() as open_streams:
        for _ in range(SUBSCRIBERS_MAX):
            stream = open_streams.enter_context(asked(address, "/api/live"))
            assert stream.readline().startswith(b"data: ")
        refused = ask(address, "/api/live")
        assert refused.status == 503 and refused.headers["Retry-After"] == "3"
        assert ask(address, "/api/live?once=1").status == 200


def test_closing_the_feed_ends_the_open_streams() -> None:
    async def read_until_closed() -> int:
        feed = LiveFeed(dict, period_s=30)
        events = feed.events()
        await anext(events)
        asyncio.get_running_loop().call_later(0.01, feed.close)
        assert [event async for event in events] == []
        return feed.subscribers

    assert asyncio.run(asyncio.wait_for(read_until_closed(), timeout=5)) == 0


def test_many_readers_cost_one_answer_of_the_source() -> None:
    asked = []
    feed = LiveFeed(lambda: {"asked": len(asked), **dict(asked.append(1) or {})}, period_s=30)
    assert len({feed.latest_json() for _ in range(50)}) == 1
    assert len(asked) == 1


def test_vendored_files_are_those_of_the_manifest() -> None:
    manifest = json.loads((STATIC / "vendor" / "VENDOR.json").read_text())
    for entry in manifest["files"]:
        found = hashlib.sha256((STATIC / "vendor" / entry["file"]).read_bytes()).hexdigest()
        assert found == entry["sha256"], entry["file"]
        assert (STATIC / "vendor" / entry["licence_file"]).stat().st_size > 300
    listed = {entry["file"] for entry in manifest["files"]} | {"VENDOR.json", "licences"}
    assert {path.name for path in (STATIC / "vendor").iterdir()} == listed


def test_the_page_names_no_other_host_and_has_no_inline_code() -> None:
    page = (STATIC / "index.html").read_text()
    assert "://" not in page
    assert "<style" not in page and " style=" not in page and " onclick=" not in page
    for module in STATIC.glob("*.js"):
        text = module.read_text()
        assert len(text.splitlines()) < 400, module
        assert ".innerHTML" not in text, module


def test_the_server_stops_while_streams_are_open() -> None:
    with ExitStack() as held:
        with served(MovingSource(made_up_network())) as address:
            held.enter_context(asked(address, "/api/live")).readline()
        assert not any(thread.is_alive() for thread in consoles(address))


def consoles(address: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == f"console {address}"]
