"""SKIP over TLS, with mutual certificates or with external pre-shared keys: an encryptor's key provider.

Two listeners with one application: who calls follows from the certificate, or from the identity of the
pre-shared key. Rules and shapes are in :mod:`openqci.delivery.skip`.
"""

import asyncio
import logging
import os
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from openqci.core.errors import KeyUnavailable, OpenQCIError, RequestRefused
from openqci.core.identifiers import KeyId, KmeId, SaeId
from openqci.core.keys import DeliveredKey
from openqci.delivery import skip
from openqci.delivery.directory import PeerIdentity, SaeDirectory
from openqci.delivery.etsi014_model import error_body
from openqci.delivery.pair_stock import RestRule
from openqci.delivery.skip import SkipKey, SkipRules
from openqci.keystore.ports import KmeView, StoreTransaction
from openqci.services.https import CertificateProtocol
from openqci.services.kme import Admission, Demand, KeyStore, Observer
from openqci.services.psk_tls import PskContext

log = logging.getLogger(__name__)

Result = TypeVar("Result")

INTERFACE = "skip"
WAIT_S = 5.0
LOOK_S = 0.1
"""How long a request waits for a stock to be filled, and how often it looks."""

Answer = Callable[[Request, PeerIdentity | None], Awaitable[Response]]


class SkipService:
    """Answers SKIP requests at one KME."""

    def __init__(
        self,
        kme: KmeId,
        store: KeyStore,
        rules: SkipRules,
        *,
        on_demand: Demand | None = None,
        observer: Observer | None = None,
        wait_s: float = WAIT_S,
        rests: RestRule | None = None,
        admission: Admission | None = None,
    ) -> None:
        self._kme, self._store, self._rules, self._wait_s = kme, store, rules, wait_s
        self._rests, self._admission = rests, admission
        self._on_demand, self._observer = on_demand, observer or Observer()

    async def capabilities(self, request: Request, peer: PeerIdentity | None) -> Response:
        found = await self._run(
            lambda tx: skip.capabilities(KmeView(tx, self._kme), SaeDirectory(tx), peer, self._rules)
        )
        return _json(msgspec.json.encode(found))

    async def new_key(self, request: Request, peer: PeerIdentity | None) -> Response:
        """A new key, if the caller's quota allows it; waits a moment for stock."""
        remote, size = request.query_params.get("remoteSystemID"), request.query_params.get("size")
        caller, bits = peer.sae_id if peer is not None else SaeId(""), skip.asked_bits(size)
        if self._admission is not None:
            await self._admission.admit(caller, bits)
        try:
            key = await self._with_stock(peer, remote, size)
        except RequestRefused:
            if self._admission is not None:
                self._admission.give_back(caller, bits)
            raise
        return self._delivered(key, "master", peer, remote)

    async def _with_stock(self, peer: PeerIdentity | None, remote: str | None, size: str | None) -> SkipKey:
        """Take a new key; wait a moment while the stock is short."""
        give_up_s = time.monotonic() + self._wait_s
        while True:
            try:
                return await self._run(
                    lambda tx: skip.get_key(
                        KmeView(tx, self._kme), SaeDirectory(tx), peer, remote, size, self._rules, self._rests
                    )
                )
            except KeyUnavailable as shortage:
                hopeless = self._demanded(peer, remote, shortage)
                if hopeless is not None or time.monotonic() > give_up_s:
                    raise RequestRefused(
                        503, hopeless or "insufficient key material", headers={"Retry-After": "1"}
                    ) from None
                await asyncio.sleep(LOOK_S)

    async def key_by_id(self, request: Request, peer: PeerIdentity | None) -> Response:
        remote, key_id = request.query_params.get("remoteSystemID"), request.path_params["key_id"]
        key = await self._run(
            lambda tx: skip.get_key_by_id(
                KmeView(tx, self._kme), SaeDirectory(tx), peer, key_id, remote, self._rules
            )
        )
        return self._delivered(key, "slave", peer, remote)

    async def entropy(self, request: Request, peer: PeerIdentity | None) -> Response:
        """Random bits of the operating system's generator, whose entropy is taken as full."""
        await self.capabilities(request, peer)  # only for who may ask at all
        bits = skip.bits_of(
            "minentropy", request.query_params.get("minentropy"), 256, 8, skip.ENTROPY_BITS_MAX
        )
        return _json(msgspec.json.encode(skip.Entropy(os.urandom(bits // 8).hex(), bits)))

    def observed(self, method: str, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        """Return the endpoint of a method: errors in JSON, the observer told."""

        async def endpoint(request: Request) -> Response:
            began_s = time.perf_counter()
            peer: PeerIdentity | None = request.state.peer
            try:
                response = await answer(request, peer)
            except RequestRefused as refused:
                caller = peer.sae_id if peer is not None else ""
                remote = request.query_params.get("remoteSystemID", "")
                self._observer.refused(INTERFACE, method, caller, remote, refused)
                response = _json(error_body(refused), refused.status, refused.headers)
            self._observer.answered(INTERFACE, method, response.status_code, time.perf_counter() - began_s)
            return response

        return endpoint

    async def _run(self, work: Callable[[StoreTransaction], Result]) -> Result:
        try:
            return await self._store.run(work)
        except (RequestRefused, KeyUnavailable):
            raise
        except OpenQCIError as error:
            log.error("a SKIP request failed: %s", error)
            raise RequestRefused(500, "the key provider cannot serve this request now") from None

    def _demanded(
        self, peer: PeerIdentity | None, remote: str | None, shortage: KeyUnavailable
    ) -> str | None:
        if self._on_demand is None or peer is None or remote is None:
            return None
        wanted_bytes = shortage.wanted_bytes  # one key
        return self._on_demand(peer.sae_id, SaeId(remote), wanted_bytes, (), wanted_bytes)

    def _delivered(self, key: SkipKey, role: str, peer: PeerIdentity | None, remote: str | None) -> Response:
        body = key.body()
        try:
            if peer is not None and remote is not None:
                text = key.key_id
                uuid = f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
                delivered = (DeliveredKey(KeyId(uuid), key.key),)
                self._observer.delivered(INTERFACE, role, peer.sae_id, (SaeId(remote),), delivered)
        finally:
            key.key.wipe()
        return WipedResponse(body)


def skip_application(service: SkipService) -> Starlette:
    """Return the application: GET alone, an Error document for everything that is refused."""
    methods: dict[str, tuple[str, Answer]] = {
        "capabilities": ("/capabilities", service.capabilities),
        "key": ("/key", service.new_key),
        "key_by_id": ("/key/{key_id}", service.key_by_id),
        "entropy": ("/entropy", service.entropy),
    }
    routes = []
    for name, (path, answer) in methods.items():
        route = Route(path, service.observed(name, answer), methods=["GET"])
        if route.methods is not None:
            route.methods.discard("HEAD")  # a HEAD would spend a key that nobody sees
        routes.append(route)
    app = Starlette(routes=routes, exception_handlers={HTTPException: _http_error})
    app.router.redirect_slashes = False
    return app


class PskProtocol(CertificateProtocol):
    """Learns who calls from the identity of the connection's pre-shared key."""

    def __init__(
        self, *args: object, psk: PskContext, applications: Mapping[str, SaeId], **kwargs: object
    ) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._psk, self._applications = psk, applications

    def identity(self, tls: ssl.SSLObject | None) -> PeerIdentity | None:
        """Return the application whose pre-shared key this is."""
        name = self._psk.identity_of(tls) if tls is not None else None
        sae = self._applications.get(name or "")
        return PeerIdentity(sae, "") if sae is not None else None


class WipedResponse(Response):
    """An answer whose body is wiped when it was sent, or could not be."""

    def __init__(self, body: bytearray) -> None:
        self._secret = body
        super().__init__(memoryview(body), media_type="application/json")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # TLS has encrypted it within the call that sent it.
            self._secret[:] = bytes(len(self._secret))


def _json(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(body, status, dict(headers or {}), "application/json")


async def _http_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    refused = RequestRefused(error.status_code, error.detail.lower(), headers=dict(error.headers or {}))
    return _json(error_body(refused), refused.status, refused.headers)
