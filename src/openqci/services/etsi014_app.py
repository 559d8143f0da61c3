"""The three methods of ETSI GS QKD 014 as an ASGI application: from a request to a call of the rules.

Beside them, where the profile offers them, the leases of OpenQCI (:mod:`openqci.delivery.etsi014_leases`).

Written without a framework's routing, because every key passes here: a path has four parts, and the parts are
compared. The caller's identity and the KME that was called stand in ``scope["state"]``, put there by
:class:`openqci.services.kme_server.PeerProtocol`. Every answer but a 200 is the standard's Error document.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from openqci.core.errors import RequestRefused
from openqci.core.identifiers import KmeId, SaeId
from openqci.delivery.directory import PeerIdentity
from openqci.delivery.etsi014 import Delivery
from openqci.delivery.etsi014_model import (
    error_body,
    key_ids_from_body,
    key_ids_from_query,
    key_request_from_body,
    key_request_from_query,
    lease_request_from_body,
)
from openqci.services.kme import INTERFACE, KmeService

log = logging.getLogger(__name__)

BODY_BYTES_MAX = 64 * 1024
PREFIX = ["", "api", "v1", "keys"]


class ClientGone(Exception):
    """The client closed the connection before its request was whole: there is nobody to answer."""


class Call:
    """One request to one method. ``created`` is the path of what it has made, relative to its own."""

    def __init__(self, service: KmeService, scope: Scope, receive: Receive, other: str, name: str) -> None:
        self.service, self.receive = service, receive
        self.verb: str = scope["method"]
        self.is_get = self.verb == "GET"
        self.name, self.created = name, ""
        self.query: str = scope["query_string"].decode("ascii", errors="replace")
        self.headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.kme: KmeId = scope["state"]["kme"]
        self.peer: PeerIdentity | None = scope["state"]["peer"]
        self._other = other

    @property
    def other(self) -> SaeId:
        """The SAE of the path, decoded exactly once; 400 if it is not text."""
        try:
            return SaeId(unquote_to_bytes(self._other).decode("utf-8"))
        except UnicodeDecodeError:
            raise RequestRefused(400, "the SAE ID in the path is not UTF-8") from None

    async def status(self) -> bytes:
        """*Get status* (5.1)."""
        return msgspec.json.encode(await self.service.status(self.kme, self.peer, self.other))

    async def enc_keys(self) -> bytearray:
        """*Get key* (5.2)."""
        other, profile = self.other, self.service.profile
        if self.is_get:
            wanted = key_request_from_query(self.query, profile)
        else:
            wanted = key_request_from_body(await self.body(), profile)
        return _container(await self.service.get_key(self.kme, self.peer, other, wanted))

    async def dec_keys(self) -> bytearray:
        """*Get key with key IDs* (5.3)."""
        other, profile = self.other, self.service.profile
        if self.is_get:
            wanted = key_ids_from_query(self.query, profile)
        else:
            wanted = key_ids_from_body(await self.body(), profile)
        return _container(await self.service.get_key_with_key_ids(self.kme, self.peer, other, wanted))

    async def leases(self) -> bytes:
        """Grant a lease, or list those that the caller holds."""
        if self.is_get:
            return msgspec.json.encode(await self.service.leases(self.kme, self.peer, self.other))
        wanted = lease_request_from_body(await self.body(), self.service.profile)
        lease = await self.service.grant_lease(self.kme, self.peer, self.other, wanted)
        self.created = f"{LEASES}/{lease.lease_id}"
        return msgspec.json.encode(lease)

    async def lease(self) -> bytes:
        """Show a lease, or give it back."""
        act = self.service.lease if self.is_get else self.service.release_lease
        return msgspec.json.encode(await act(self.kme, self.peer, self.other, self.name.lower()))

    async def body(self) -> bytes:
        """Read the body up to the limit; whoever sends more is told so and cut off."""
        body = bytearray()
        declared = self._header(b"content-length", b"0")
        oversize = not declared.isdigit() or int(declared[:12]) > BODY_BYTES_MAX
        more = not oversize
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            body += message.get("body", b"")
            oversize = len(body) > BODY_BYTES_MAX
            more = message.get("more_body", False) and not oversize
        if oversize:
            raise RequestRefused(
                413, f"the body is longer than {BODY_BYTES_MAX} bytes", headers={"Connection": "close"}
            )
        content_type = self._header(b"content-type", b"application/json")
        if body and content_type.partition(b";")[0].strip().lower() != b"application/json":
            raise RequestRefused(400, "Content-Type shall be application/json")
        return bytes(body)

    def _header(self, name: bytes, default: bytes) -> bytes:
        return next((value for key, value in self.headers if key == name), default)


METHODS: dict[str, tuple[tuple[str, ...], Callable[[Call], Awaitable[bytes | bytearray]]]] = {
    "status": (("GET",), Call.status),
    "enc_keys": (("GET", "POST"), Call.enc_keys),
    "dec_keys": (("GET", "POST"), Call.dec_keys),
}
"""The verbs of each method. HEAD is none of them: one of enc_keys would spend keys that nobody sees."""

LEASES = "openqci_leases"
LEASE_METHODS: dict[int, tuple[tuple[str, ...], Callable[[Call], Awaitable[bytes | bytearray]]]] = {
    6: (("GET", "POST"), Call.leases),
    7: (("GET", "DELETE"), Call.lease),
}
"""The verbs of leases and of one lease, by the parts of the path."""


def application(service: KmeService) -> ASGIApp:
    """Return the application of a service."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        # The path as it was sent: decoded, "a%2Fb" would be two parts.
        parts = scope["raw_path"].decode("ascii").split("/")
        method = parts[5] if len(parts) in (6, 7) and parts[:4] == PREFIX and parts[4] else ""
        if len(parts) == 6 and method in METHODS:
            verbs, act = METHODS[method]
        elif method == LEASES and parts[-1] and service.profile.leases_per_sae_max:
            verbs, act = LEASE_METHODS[len(parts)]
        else:
            return await _refuse(send, RequestRefused(404, "not found"))
        if scope["method"] not in verbs:
            allowed = {"Allow": ", ".join(verbs)}
            return await _refuse(send, RequestRefused(405, "method not allowed", headers=allowed))
        began_s = time.perf_counter()
        call = Call(service, scope, receive, parts[4], parts[-1])
        status = 200
        try:
            answer = await act(call)
        except RequestRefused as refused:
            caller = call.peer.sae_id if call.peer is not None else ""
            service.observer.refused(INTERFACE, method, caller, parts[4], refused)
            status = refused.status
            await _refuse(send, refused)
        except ClientGone:
            status = 400
        except Exception:
            # The last resort of a server: log the fault and answer in the standard's form all the same.
            log.exception("a request to %s failed", method)
            status = 503
            await _refuse(send, RequestRefused(503, "server side error"))
        else:
            if call.created:
                status = 201
                await _answer(send, 201, answer, [(b"location", call.created.encode())])
            else:
                await _answer(send, 200, answer, [])
        service.observer.answered(INTERFACE, method, status, time.perf_counter() - began_s)

    return application


CONTAINER_BYTES, KEY_ENTRY_BYTES = 4096, 128
"""Room in a *Key container* beside the keys, and for what each has beside its base64 text."""

ENCODER = msgspec.json.Encoder()


def _container(delivery: Delivery) -> bytearray:
    """Write the answer into a buffer that can be wiped, large enough not to grow and leave copies behind."""
    try:
        room = CONTAINER_BYTES + sum(2 * len(each.key) + KEY_ENTRY_BYTES for each in delivery.keys)
        body = bytearray(room)
        ENCODER.encode_into(delivery.container(), body)
        return body
    finally:
        delivery.wipe()


async def _refuse(send: Send, refused: RequestRefused) -> None:
    headers = [(name.lower().encode(), value.encode()) for name, value in (refused.headers or {}).items()]
    await _answer(send, refused.status, error_body(refused), headers)


async def _answer(
    send: Send, status: int, body: bytes | bytearray, headers: list[tuple[bytes, bytes]]
) -> None:
    length = (b"content-length", b"%d" % len(body))
    start: dict[str, Any] = {
        "type": "http.response.start",
        "status": status,
        "headers": [(b"content-type", b"application/json"), length, *headers],
    }
    await send(start)
    try:
        await send({"type": "http.response.body", "body": body})
    finally:
        if isinstance(body, bytearray):
            # TLS has encrypted it within the call: docs/explanation/security-model.md, "Keys in memory".
            body[:] = bytes(len(body))
