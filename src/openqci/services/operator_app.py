"""The operator interface of a node: health, status, and the security officer's last resort.

Mutual TLS like every interface; what a caller may do follows from the role in its certificate
(:mod:`openqci.services.roles`). ``/health/live`` and ``/health/ready`` answer every certificate of the
authority, so that a probe needs no role.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from openqci.core.errors import RequestRefused
from openqci.delivery.etsi014_model import error_body
from openqci.services.roles import MAY_DESTROY, MAY_LOOK, Holder, Role, allowed

ZEROISE_WORD = "zeroise"
ACCOUNT_LINES_MAX = 10_000
"""Lines of an account in one answer; who wants more asks for those after the last."""
WORD_BYTES_MAX = 64

Document = dict[str, Any]


def operator_application(
    status: Callable[[], Awaitable[Document]],
    ready: Callable[[], Awaitable[list[str]]],
    metrics: Callable[[], Awaitable[bytes]],
    zeroise: Callable[[Holder], Awaitable[None]],
    mapped: Mapping[str, tuple[Role, str]],
    *,
    renew: Callable[[], Awaitable[int]] | None = None,
    account: Callable[[int, int], Awaitable[Document]] | None = None,
) -> Starlette:
    """Return the application.

    Parameters
    ----------
    status
        The whole state of the node as one JSON document.
    ready
        Why the node is not ready, in words; an empty list if it is.
    metrics
        The Prometheus text.
    zeroise
        Destroys all key; called for a security officer who has sent the word.
    mapped
        Role and name by certificate SHA-256, for certificates of other authorities.
    renew
        Renews the keys that the store is sealed under; returns the number of the root key in use then.
    account
        The account of what crossed the node's borders: lines after a number, at most so many, and sums.
    """

    async def live(_: Request) -> Response:
        return _json({"status": "live"})

    async def readiness(_: Request) -> Response:
        reasons = await ready()
        return _json(
            {"status": "not ready" if reasons else "ready", "reasons": reasons}, 503 if reasons else 200
        )

    async def whole_status(request: Request) -> Response:
        _allowed(request, MAY_LOOK)
        return _json(await status())

    async def all_metrics(request: Request) -> Response:
        _allowed(request, MAY_LOOK)
        return Response(await metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def destroy(request: Request) -> Response:
        officer = _allowed(request, MAY_DESTROY)
        if await _word(request) != ZEROISE_WORD.encode():
            raise RequestRefused(400, f"send the word {ZEROISE_WORD!r} to destroy all key of this node")
        await zeroise(officer)
        return _json({"status": "zeroised"})

    async def new_keys(request: Request) -> Response:
        _allowed(request, MAY_DESTROY)
        if renew is None:
            raise RequestRefused(404, "this node has no keys to renew")
        return _json({"status": "renewed", "root_key": await renew()})

    async def border_account(request: Request) -> Response:
        _allowed(request, MAY_LOOK)
        if account is None:
            raise RequestRefused(404, "this node stands at no border")
        after = request.query_params.get("after", "0")
        if not (after.isascii() and after.isdigit() and len(after) < 16):
            raise RequestRefused(400, "after shall be the number of a line")
        return _json(await account(int(after), ACCOUNT_LINES_MAX))

    def _allowed(request: Request, roles: frozenset[Role]) -> Holder:
        return allowed(request.state.certificate, roles, dict(mapped))

    async def gone(_: Request, error: Exception) -> Response:
        return Response(status_code=400)  # there is nobody who would read it

    async def refused(_: Request, error: Exception) -> Response:
        if not isinstance(error, RequestRefused):
            raise error
        return Response(error_body(error), error.status, error.headers, "application/json")

    return Starlette(
        routes=[
            Route("/health/live", live),
            Route("/health/ready", readiness),
            Route("/status", whole_status),
            Route("/metrics", all_metrics),
            Route("/zeroise", destroy, methods=["POST"]),
            Route("/renew", new_keys, methods=["POST"]),
            Route("/account", border_account),
        ],
        exception_handlers={RequestRefused: refused, ClientDisconnect: gone},
    )


async def _word(request: Request) -> bytes:
    """Return the body of a request for a word, or so much of it that it is none."""
    body = b""
    async for part in request.stream():
        body += part[: WORD_BYTES_MAX + 1]
        if len(body) > WORD_BYTES_MAX:
            break
    return body


def _json(document: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(document), status, media_type="application/json")
