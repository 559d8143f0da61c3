"""The console's interface: static files, JSON figures and one event a second, all read-only.

========================  =============================================================================
route                     answer
========================  =============================================================================
``/``, ``/static/...``    the page and what it needs; nothing is fetched from any other host
``/api/network``          what does not change: nodes, hops, domains
``/api/live``             Server-Sent Events, one a second; with ``?once=1`` one JSON answer
``/api/nodes/{site_id}``  one node's figures, 404 if there is none
``/api/hops/{link_id}``   one hop's figures, 404 if there is none
``/api/status``           counts per hop, per domain and in total, as ``openqci status`` prints them
``/healthz``              200 as soon as the console answers
========================  =============================================================================

Not here: authentication. The console listens on loopback and shows no secrets; :mod:`.guard` refuses
requests whose Host header names anything else, which is what stops a web page elsewhere from reading it
by DNS rebinding.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from openqci.dashboard.guard import LoopbackGuard
from openqci.dashboard.live import LiveFeed

STATIC_FOLDER = Path(__file__).parent / "static"

Figures = dict[str, object]


class ConsoleSource(Protocol):
    """What the console shows. All methods are quick, answer from memory and carry no key material."""

    def network(self) -> Figures:
        """Return what does not change while the process runs: nodes, hops, domains."""
        ...

    def live(self) -> Figures:
        """Return the figures of this second; ``hops`` holds arrays in the order of the network's hops."""
        ...

    def node(self, site_id: str) -> Figures | None:
        """Return one node's figures, or None when there is no such node."""
        ...

    def hop(self, link_id: str) -> Figures | None:
        """Return one hop's figures, or None when there is no such hop."""
        ...

    def status(self) -> Figures:
        """Return the counts that ``openqci status`` prints."""
        ...


def console_app(source: ConsoleSource) -> Starlette:
    """Return the console as an ASGI application.

    ``app.state.live`` is the :class:`~openqci.dashboard.live.LiveFeed`; call its ``close()`` before the
    server stops, or open event streams keep the server waiting until its own shutdown limit.

    It is served like any ASGI application, on the loopback interface:
    ``uvicorn.Config(console_app(source), host="127.0.0.1", port=8080)``.
    """
    console = _Console(source)
    app = Starlette(routes=console.routes(), middleware=[Middleware(LoopbackGuard)])
    app.state.live = console.live_feed
    return app


class _Console:
    """The endpoints, bound to one source."""

    def __init__(self, source: ConsoleSource) -> None:
        self._source = source
        self.live_feed = LiveFeed(source.live)

    def routes(self) -> list[Route | Mount]:
        def get(path: str, endpoint: Callable[..., object]) -> Route:
            return Route(path, endpoint, methods=["GET"])

        return [
            get("/", self._index),
            get("/api/network", self._network),
            get("/api/live", self._live),
            get("/api/nodes/{site_id}", self._node),
            get("/api/hops/{link_id}", self._hop),
            get("/api/status", self._status),
            get("/healthz", self._health),
            Mount("/static", StaticFiles(directory=STATIC_FOLDER)),
        ]

    async def _index(self, request: Request) -> Response:
        return FileResponse(STATIC_FOLDER / "index.html")

    async def _network(self, request: Request) -> Response:
        return _json(self._source.network())

    async def _status(self, request: Request) -> Response:
        return _json(self._source.status())

    async def _node(self, request: Request) -> Response:
        return _json_or_404(self._source.node(request.path_params["site_id"]), "no such node")

    async def _hop(self, request: Request) -> Response:
        return _json_or_404(self._source.hop(request.path_params["link_id"]), "no such hop")

    async def _health(self, request: Request) -> Response:
        return _json({"status": "ok"})

    async def _live(self, request: Request) -> Response:
        if request.query_params.get("once"):
            return Response(self.live_feed.latest_json(), media_type="application/json")
        if self.live_feed.is_full():
            return _json({"message": "too many open consoles; ask with ?once=1"}, 503, {"Retry-After": "3"})
        return StreamingResponse(self.live_feed.events(), media_type="text/event-stream")


def _json(
    answer: Figures | dict[str, str], status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    return Response(msgspec.json.encode(answer), status, headers, "application/json")


def _json_or_404(figures: Figures | None, message: str) -> Response:
    return _json({"message": message}, 404) if figures is None else _json(figures)
