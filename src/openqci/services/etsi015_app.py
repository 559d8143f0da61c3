"""The RESTCONF interface of a node (RFC 8040) for controllers of software-defined networks: ETSI GS QKD 015.

Who calls is read from the certificate: a controller may read and write, operators, security officers and
auditors may read. ``/.well-known/host-meta`` leads to ``/restconf``; everything below is JSON
(``application/yang-data+json``). What it tells and does is in :mod:`openqci.services.etsi015_agent`.
"""

import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from openqci.control.etsi015 import Query, RestconfError, edits, parse_query, read
from openqci.control.etsi015.library import LIBRARY_REVISION, STREAM_PATH
from openqci.control.etsi015.model import MODULE
from openqci.control.etsi015.teraflow import without_modules
from openqci.control.etsi015.tree import Edit, place_of
from openqci.core.errors import OpenQCIError, RequestRefused
from openqci.services.etsi015_stream import NoticeLog
from openqci.services.keyless_app import body_of
from openqci.services.roles import MAY_LOOK, Holder, Role, allowed

YANG_JSON = "application/yang-data+json"
EVENTS = "text/event-stream"
ROOT = "/restconf"
BODY_BYTES_MAX = 64 * 1024
MAY_READ = MAY_LOOK | {Role.CONTROLLER}
MAY_WRITE = frozenset({Role.CONTROLLER})
READ_METHODS, ALL_METHODS = ("GET", "HEAD", "OPTIONS"), "GET, HEAD, OPTIONS, PUT, PATCH"

HOST_META = (
    "<?xml version='1.0' encoding='UTF-8'?>\n"
    "<XRD xmlns='http://docs.oasis-open.org/ns/xri/xrd-1.0'>\n"
    f"  <Link rel='restconf' href='{ROOT}'/>\n"
    "</XRD>\n"
)


class Agent(Protocol):
    """What is behind the interface."""

    notices: NoticeLog

    async def data(self, base: str) -> dict[str, Any]: ...

    async def apply(self, edits: list[Edit]) -> None: ...


class Heard(Protocol):
    """Hears of an edit that was made: by whom, in which role, and where."""

    def __call__(self, actor: str, role: str, *, path: str) -> object: ...


def etsi015_application(
    agent: Agent,
    mapped: Mapping[str, tuple[Role, str]],
    *,
    teraflow: bool = False,
    edited: Heard = lambda actor, role, path: None,
) -> Starlette:
    """Return the application.

    Parameters
    ----------
    agent
        The node's agent.
    mapped
        Role and name by certificate SHA-256, for certificates of other authorities.
    teraflow
        Answer callers that do not ask for ``application/yang-data+json`` as TeraFlowSDN's driver expects.
    edited
        Hears of each edit that was made.
    """
    answers = Answers(agent, dict(mapped), teraflow, edited)
    return Starlette(
        routes=[
            Route("/.well-known/host-meta", answers.guarded(answers.host_meta), methods=["GET"]),
            Route(ROOT, answers.guarded(answers.api), methods=["GET"]),
            Route(f"{ROOT}/operations", answers.guarded(answers.operations), methods=["GET"]),
            Route(f"{ROOT}/yang-library-version", answers.guarded(answers.library), methods=["GET"]),
            Route(STREAM_PATH, answers.guarded(answers.stream), methods=["GET"]),
            Route(f"{ROOT}/data{{path:path}}", answers.guarded(answers.resource), methods=EVERY_METHOD),
        ]
    )


EVERY_METHOD = ["GET", "HEAD", "OPTIONS", "PUT", "PATCH", "POST", "DELETE"]


class Answers:
    """What is answered at each path."""

    def __init__(
        self, agent: Agent, mapped: dict[str, tuple[Role, str]], teraflow: bool, edited: Heard
    ) -> None:
        self._agent, self._mapped, self._teraflow, self._edited = agent, mapped, teraflow, edited

    def guarded(
        self, work: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return ``work`` for those who may look, with what is wrong as an answer."""

        async def answer(request: Request) -> Response:
            try:
                self._allowed(request, MAY_READ)
                return await work(request)
            except RestconfError as error:
                return self._refusal(request, error)
            except ClientDisconnect:
                return Response(status_code=400)
            except OpenQCIError:
                # The store cannot commit, say: nothing was set, and the caller may try again.
                return self._refusal(request, RestconfError(503, "operation-failed", "not now; try again"))

        return answer

    async def host_meta(self, request: Request) -> Response:
        return Response(HOST_META, media_type="application/xrd+xml")

    async def api(self, request: Request) -> Response:
        self._only_without_query(request)
        top = {"data": {}, "operations": {}, "yang-library-version": LIBRARY_REVISION}
        return self._answer(request, {"ietf-restconf:restconf": top})

    async def operations(self, request: Request) -> Response:
        self._only_without_query(request)
        return self._answer(request, {"ietf-restconf:operations": {}})

    async def library(self, request: Request) -> Response:
        self._only_without_query(request)
        return self._answer(request, {"ietf-restconf:yang-library-version": LIBRARY_REVISION})

    async def resource(self, request: Request) -> Response:
        """Answer for a resource of the datastore."""
        path = self._path(request)
        if request.method == "OPTIONS":
            place_of(path)
            return Response(headers={"Allow": ALL_METHODS, "Accept-Patch": YANG_JSON})
        if request.method in ("GET", "HEAD"):
            self._acceptable(request)
            data = await self._agent.data(_base(request))
            found = read(data, path, parse_query(request.query_params.multi_items()))
            return self._answer(request, found, {"ETag": etag(data)})
        return await self._edit(request, path)

    async def _edit(self, request: Request, path: str) -> Response:
        """Make an edit, or nothing of it."""
        holder = self._allowed(request, MAY_WRITE)
        self._only_without_query(request)
        text = await self._body(request)
        data = await self._agent.data(_base(request))
        if request.method in ("POST", "DELETE"):
            edits(data, request.method, path, None)
        document = self._parsed(request, text)
        expected = request.headers.get("if-match")
        if expected not in (None, "*", etag(data)):
            raise RestconfError(412, "operation-failed", "the configuration is another by now")
        await self._agent.apply(edits(data, request.method, path, document))
        self._edited(holder.name, holder.role.value, path=f"/{path}")
        return Response(status_code=204, headers={"ETag": etag(await self._agent.data(_base(request)))})

    async def stream(self, request: Request) -> Response:
        """Answer with notifications, as server-sent events."""
        accepted = request.headers.get("accept", "*/*")
        if EVENTS not in accepted and "*/*" not in accepted:
            raise RestconfError(406, "invalid-value", f"expected Accept: {EVENTS}")
        start_s, stop_s = _period(request.query_params.multi_items())
        notices = self._agent.notices
        if notices.is_full():
            raise RestconfError(503, "resource-denied", "too many listen already; try again later")
        return StreamingResponse(notices.stream(start_s, stop_s), media_type=EVENTS)

    def _allowed(self, request: Request, roles: frozenset[Role]) -> Holder:
        """Return who calls; RestconfError 401 for one without a role here, 403 if it is none of ``roles``."""
        try:
            holder = allowed(request.state.certificate, MAY_READ, self._mapped)
        except RequestRefused as refused:
            raise RestconfError(401, "access-denied", refused.message) from None
        if holder.role not in roles:
            wanted = " or ".join(sorted(role.value for role in roles))
            message = f"this needs the role {wanted}; the caller is {holder.role.value} {holder.name}"
            raise RestconfError(403, "access-denied", message)
        return holder

    def _path(self, request: Request) -> str:
        """Return the path below ``/restconf/data`` as it was sent, keys still encoded."""
        raw = request.scope["raw_path"].decode("ascii", "replace").partition("?")[0]
        path: str = raw.removeprefix(f"{ROOT}/data").removeprefix("/")
        return path.removesuffix("/") if self._teraflow else path

    def _wants_bare(self, request: Request) -> bool:
        return self._teraflow and YANG_JSON not in request.headers.get("accept", "")

    def _acceptable(self, request: Request) -> None:
        """Refuse a caller that takes none of what can be sent."""
        accepted = request.headers.get("accept", "*/*")
        kinds = [part.partition(";")[0].strip().lower() for part in accepted.split(",")]
        fine = {YANG_JSON, "*/*", "application/*", *(("application/json",) if self._teraflow else ())}
        if not fine.intersection(kinds):
            raise RestconfError(406, "invalid-value", f"expected Accept: {YANG_JSON}")

    def _only_without_query(self, request: Request) -> None:
        if request.url.query:
            raise RestconfError(400, "invalid-value", "expected no query here")

    async def _body(self, request: Request) -> bytes:
        try:
            return await body_of(request, BODY_BYTES_MAX)
        except RequestRefused as refused:
            raise RestconfError(413, "too-big", refused.message) from None

    def _parsed(self, request: Request, text: bytes) -> Any:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != YANG_JSON:
            raise RestconfError(415, "invalid-value", f"expected Content-Type: {YANG_JSON}")
        try:
            return msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RestconfError(400, "malformed-message", f"the body is no JSON: {error}") from None

    def _answer(
        self, request: Request, document: dict[str, Any], headers: Mapping[str, str] | None = None
    ) -> Response:
        if self._wants_bare(request):
            body = msgspec.json.encode(without_modules(document))
            return Response(body, headers=headers, media_type="application/json")
        return Response(msgspec.json.encode(document), headers=headers, media_type=YANG_JSON)

    def _refusal(self, request: Request, error: RestconfError) -> Response:
        headers = {"Allow": ", ".join(READ_METHODS)} if error.status == 405 else {}
        if error.status == 413:
            headers["Connection"] = "close"
        kind = "application/json" if self._wants_bare(request) else YANG_JSON
        return Response(msgspec.json.encode(error.document()), error.status, headers, kind)


def _base(request: Request) -> str:
    """Return the URL by which the agent was called, without a path."""
    return f"{request.url.scheme}://{request.url.netloc}"


def _period(parameters: list[tuple[str, str]]) -> tuple[float | None, float | None]:
    """Read from when to when notifications are asked for (RFC 8040, clauses 4.8.7 and 4.8.8)."""
    if [name for name, _ in parameters] not in ([], ["start-time"], ["start-time", "stop-time"]):
        raise RestconfError(400, "invalid-value", "expected start-time, or start-time and stop-time")
    times = [_time_s(text) for _, text in parameters]
    start_s, stop_s = (*times, None, None)[:2]
    if start_s is not None and (start_s > time.time() or (stop_s is not None and stop_s < start_s)):
        raise RestconfError(400, "invalid-value", "start-time is not over yet, or after stop-time")
    return start_s, stop_s


def _time_s(text: str) -> float:
    """Read a time of RFC 3339; a plus in a query is a space unless it is encoded."""
    try:
        return datetime.fromisoformat(text.replace(" ", "+")).astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        raise RestconfError(400, "invalid-value", f"{text[:40]!r} is no time of RFC 3339") from None


def etag(data: Mapping[str, Any]) -> str:
    """Return the entity tag of the configuration: what can be set, as it is."""
    top = f"{MODULE}:qkd_node"
    try:
        told = read(data, top, Query(content="config"))
    except RestconfError:
        told = {}  # a node without links has nothing to set
    return f'"{hashlib.sha256(msgspec.json.encode(told)).hexdigest()[:32]}"'
