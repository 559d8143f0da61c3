"""Where QKD modules push key (ETSI GS QKD 004 in its push form): one path, JSON, mutual certificates.

Only a certificate with the role ``module`` and the name that a link's ``[link.etsi004_push]`` gives gets
further than 401. Key is in the body of a push and nowhere else: no answer and no log line holds any. A chunk
is acknowledged when it is durable.
"""

import logging
from collections.abc import Iterable, Mapping

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from openqci.core.errors import OpenQCIError, PeerMisbehaved, RequestRefused
from openqci.delivery.etsi004_model import Status
from openqci.delivery.etsi014_model import error_body
from openqci.services.roles import Role, allowed
from openqci.services.source_push import PushedKey, SourcePush

log = logging.getLogger(__name__)

PUSH_PATH = "/api/v1/qkd/etsi004/key-material"
BODY_BYTES_MAX = 128 * 1024
"""A chunk of 64 KiB in base64, with room for its metadata."""


def module_application(sources: Iterable[SourcePush], mapped: Mapping[str, tuple[Role, str]]) -> Starlette:
    """Return the application. ``mapped`` gives role and name by certificate SHA-256, where one has no URI."""
    by_module = {source.module: source for source in sources}

    async def push(request: Request) -> Response:
        try:
            source = _source(request, by_module, mapped)
            body = await _body(request)
            try:
                await source.take_in(msgspec.json.decode(body, type=PushedKey))
            finally:
                body[:] = bytes(len(body))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return _refusal(RequestRefused(400, f"the body cannot be read: {error}"))
        except PeerMisbehaved as error:
            return _refusal(RequestRefused(400, str(error)))
        except RequestRefused as refused:
            return _refusal(refused)
        except OpenQCIError as error:
            # A full disk, an overloaded store: the chunk is not kept, and the module offers it again.
            log.error("a pushed chunk could not be kept: %s", error)
            return _refusal(RequestRefused(503, "the chunk cannot be kept now", headers={"Retry-After": "1"}))
        except ClientDisconnect:
            return Response(status_code=400)
        return Response(
            msgspec.json.encode({"status": int(Status.SUCCESS)}), 201, media_type="application/json"
        )

    return Starlette(routes=[Route(PUSH_PATH, push, methods=["POST"])])


def _source(
    request: Request, by_module: Mapping[str, SourcePush], mapped: Mapping[str, tuple[Role, str]]
) -> SourcePush:
    """Return the source whose module calls; 401 for everybody else."""
    holder = allowed(request.state.certificate, frozenset({Role.QKD_MODULE}), dict(mapped))
    if holder.name not in by_module:
        raise RequestRefused(
            401,
            f"no [link.etsi004_push] of this node has the module {holder.name}, whose certificate this is",
        )
    return by_module[holder.name]


async def _body(request: Request) -> bytearray:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > BODY_BYTES_MAX:
            raise RequestRefused(
                413, f"the body is longer than {BODY_BYTES_MAX} bytes", headers={"Connection": "close"}
            )
    return body


def _refusal(refused: RequestRefused) -> Response:
    return Response(error_body(refused), refused.status, refused.headers, "application/json")
