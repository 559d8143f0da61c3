"""The interface of ETSI GS QKD 020 as an HTTP application: from a partner's request to the border's rules.

A listener of its own, with TLS 1.3 alone and the partners' authorities; only a certificate of a configured
partner gets further than 401. Every answer but 200 and 202 is the standard's problem document, in the words
of a draft for a partner that runs one.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from openqci.core.errors import OpenQCIError, RequestRefused
from openqci.core.identifiers import KmeId
from openqci.delivery.etsi020_model import (
    ACK_PATH,
    BODY_BYTES_MAX,
    DRAFT_VERSIONS_PATH,
    INVALID,
    KEYS_PATH,
    SERVER_SIDE,
    TIMEOUT,
    UNAUTHORISED,
    VERSIONS_PATH,
    VOID_PATH,
    problem_body,
    refused,
)

log = logging.getLogger(__name__)

INTERFACE = "etsi020"
JSON = "application/json"
BODY_S_MAX = 5.0
"""A request that is not whole by then is answered with 408."""

Answer = tuple[int, bytes]
PartnerOf = Callable[[bytes], KmeId | None]
Endpoint = Callable[[Request], Awaitable[Response]]


class BorderDesk(Protocol):
    """What answers partners; each call raises RequestRefused for what is not to be."""

    def is_draft(self, partner: KmeId) -> bool:
        """Tell whether a partner runs a draft."""

    async def versions(self, partner: KmeId) -> Answer:
        """*versions*."""

    async def ext_keys(self, partner: KmeId, body: bytes) -> Answer:
        """*ext_keys*."""

    async def ack(self, partner: KmeId, body: bytes) -> Answer:
        """*ext_keys/ack*."""

    async def void(self, partner: KmeId, body: bytes) -> Answer:
        """*ext_keys/void*."""

    def answered(self, method: str, partner: str, status: int, seconds: float, why: str) -> None:
        """A request was answered."""


def etsi020_application(desk: BorderDesk, partner_of: PartnerOf) -> Starlette:
    """Return the application."""

    async def act(request: Request, method: str, what: Callable[[KmeId], Awaitable[Answer]]) -> Response:
        began_s = time.perf_counter()
        partner: KmeId | None = None
        why = ""
        try:
            partner = _partner(request, partner_of)
            status, body = await what(partner)
            response = Response(body, status, media_type=JSON if body else None)
        except RequestRefused as fault:
            why = str(fault)
            response = _refusal(fault, partner is not None and desk.is_draft(partner))
        except ClientDisconnect:
            response = Response(status_code=400)
        except OpenQCIError as error:
            # The store cannot commit, say: the partner must assume that the key may have been kept.
            log.error("a request of %s to %s failed: %s", partner, method, error)
            response = _refusal(_cannot(), False)
        except Exception:
            log.exception("a request of %s to %s failed", partner, method)
            response = _refusal(_cannot(), False)
        seconds = time.perf_counter() - began_s
        desk.answered(method, partner or "", response.status_code, seconds, why)
        return response

    async def versions(request: Request) -> Response:
        return await act(request, "versions", desk.versions)

    def posted(
        method: str, what: Callable[[KmeId, bytes], Awaitable[Answer]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            async def whole(partner: KmeId) -> Answer:
                return await what(partner, await _body(request))

            return await act(request, method, whole)

        return endpoint

    async def unknown(request: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 404)
        text = "no such path" if status == 404 else "no such method for this path"
        return _refusal(refused(status, INVALID, "request", text), False)

    return Starlette(
        routes=[
            Route(VERSIONS_PATH, versions, methods=["GET"]),
            Route(DRAFT_VERSIONS_PATH, versions, methods=["GET"]),
            Route(KEYS_PATH, posted("ext_keys", desk.ext_keys), methods=["POST"]),
            Route(ACK_PATH, posted("ack", desk.ack), methods=["POST"]),
            Route(VOID_PATH, posted("void", desk.void), methods=["POST"]),
        ],
        exception_handlers={404: unknown, 405: unknown},
    )


def _partner(request: Request, partner_of: PartnerOf) -> KmeId:
    certificate = request.state.certificate
    partner = partner_of(certificate) if certificate else None
    if partner is None:
        text = "the caller's certificate is not that of a partner of this KME"
        raise refused(401, UNAUTHORISED, "unauthorized", text)
    return partner


def _cannot() -> RequestRefused:
    return refused(503, SERVER_SIDE, "server_side_general_error", "the KME cannot act on this now")


def _refusal(fault: RequestRefused, draft: bool) -> Response:
    return Response(problem_body(fault, draft=draft), fault.status, fault.headers, JSON)


async def _body(request: Request) -> bytes:
    """Read the body up to the limit and in time, and of the right type."""
    kind = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if kind != JSON:
        raise refused(400, INVALID, "content_type", f"shall be {JSON}")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S_MAX):
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY_BYTES_MAX:
                    fault = refused(400, INVALID, "body", f"shall have at most {BODY_BYTES_MAX} bytes here")
                    fault.headers["Connection"] = "close"
                    raise fault
    except TimeoutError:
        raise refused(408, TIMEOUT, "timeout", "a complete request was not received in time") from None
    return bytes(body)
