"""What the interfaces of a controller and of the orchestrator have in common: they answer, and hold no key.

Both answer in JSON, refuse in the words of :class:`~openqci.core.errors.RequestRefused`, take bodies of a
bounded size, and read small files that their operator has named.
"""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from openqci.core.errors import ConfigurationError, Fault, RequestRefused
from openqci.delivery.etsi014_model import error_body

Answerer = Callable[[Request], Awaitable[Response]]


def keyless_application(routes: Sequence[BaseRoute]) -> Starlette:
    """Return the application of these routes: what they refuse is answered as an error document."""

    def refused(_: Request, error: Exception) -> Response:
        if not isinstance(error, RequestRefused):
            raise error
        return Response(error_body(error), error.status, error.headers, "application/json")

    return Starlette(routes=routes, exception_handlers={RequestRefused: refused})


def guarded(work: Answerer) -> Answerer:
    """Return ``work`` for requests with a body, whose caller may go away before it is whole."""

    async def answer(request: Request) -> Response:
        try:
            return await work(request)
        except ClientDisconnect:
            return Response(status_code=400)

    return answer


async def body_of(request: Request, bytes_max: int) -> bytes:
    """Return a request's body; RequestRefused as soon as it is longer than ``bytes_max``."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            headers = {"Connection": "close"}
            raise RequestRefused(413, f"the body is longer than {bytes_max} bytes", headers=headers)
    return bytes(body)


def json_answer(document: object) -> Response:
    """Return an answer 200 with a JSON document."""
    return Response(msgspec.json.encode(document), media_type="application/json")


def read_named(file: Path) -> bytes:
    """Return the bytes of a file that an operator has named; ConfigurationError if it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigurationError(Fault(str(file), "", f"cannot be read ({error.strerror})")) from None
