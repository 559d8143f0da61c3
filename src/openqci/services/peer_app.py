"""The peer interface of a node as an HTTP application: two paths, msgpack both ways, refusals as JSON.

Only a certificate that names a configured peer KME gets further than 401.
"""

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from openqci.core.errors import OpenQCIError, RequestRefused
from openqci.core.identifiers import KmeId
from openqci.delivery.etsi014_model import error_body
from openqci.services.peer_line import HELLO_PATH, MEDIA_TYPE, TURN_BYTES_MAX, TURN_PATH, PeerDesk
from openqci.services.pki import kme_identity

NAMES_TOLD_MAX = 4


def peer_application(desk: PeerDesk, peers: frozenset[KmeId]) -> Starlette:
    """Return the application that answers the peers of a node."""

    async def endpoint(request: Request) -> Response:
        try:
            peer = _peer(request, peers)
            answer = await desk.answer(peer, request.url.path, await _body(request))
        except RequestRefused as refused:
            return Response(error_body(refused), refused.status, refused.headers, "application/json")
        except ClientDisconnect:
            return Response(status_code=400)
        except OpenQCIError:
            # The store cannot commit, say: the peer sends its turn again.
            later = RequestRefused(503, "the KME cannot act on this now", headers={"Retry-After": "1"})
            return Response(error_body(later), later.status, later.headers, "application/json")
        return Response(answer, media_type=MEDIA_TYPE)

    return Starlette(routes=[Route(path, endpoint, methods=["POST"]) for path in (HELLO_PATH, TURN_PATH)])


def _peer(request: Request, peers: frozenset[KmeId]) -> KmeId:
    certificate = request.state.certificate
    says = kme_identity(certificate) if certificate else frozenset()
    named = says & peers
    if len(named) != 1:
        names = f"it names {', '.join(sorted(says)[:NAMES_TOLD_MAX])}" if says else "it names no KME at all"
        raise RequestRefused(
            401,
            f"the caller's certificate names no peer KME of this node ([[peer]] kme_id): {names}; expected "
            "the URI urn:openqci:kme:ID, or the ID as a DNS name or common name",
        )
    (peer,) = named
    return peer


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > TURN_BYTES_MAX:
            raise RequestRefused(
                413, f"the body is longer than {TURN_BYTES_MAX} bytes", headers={"Connection": "close"}
            )
    return bytes(body)
