"""The line between two KMEs: hello and turns over HTTPS with mutual certificates.

Thin: what is said and what it does is in :mod:`openqci.delivery.peers`, each act inside one transaction of
the store. This side posts the turns of its own outbox; :class:`PeerDesk` answers those of the peers. The wire
format is one msgpack document each way; a refusal is an HTTP status with a line of text.

Nothing waits for ever: a request has a time limit, a peer that does not answer is tried again after a wait
that grows to ``RETRY_S_MAX``, and no transaction is held while a peer or a QKD module is waited for.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import aiohttp
import msgspec

from openqci.core.errors import (
    IntegrityError,
    KeyUnavailable,
    OpenQCIError,
    PeerMisbehaved,
    RequestRefused,
)
from openqci.core.identifiers import KmeId
from openqci.delivery import peers
from openqci.delivery.peers import (
    Drawn,
    Event,
    LinkRole,
    Meeting,
    OwnStore,
    PeerHello,
    PeerRules,
    PeerTurn,
    Standing,
)
from openqci.keystore import outbox
from openqci.keystore.deposits import DepositNotice, Introduction, Verdict
from openqci.keystore.ports import KmeView, StoreTransaction
from openqci.keystore.supply import JoinedSource, KeptSource, Source
from openqci.services.logs import about

log = logging.getLogger(__name__)

Result = TypeVar("Result")

HELLO_PATH, TURN_PATH = "/kme/v1/hello", "/kme/v1/turn"
MEDIA_TYPE = "application/msgpack"

REQUEST_S_MAX = 30.0
"""Longest wait for a peer's answer, of which its QKD module may take ``DRAW_S_MAX``."""

DRAW_S_MAX = 20.0
RETRY_S_MIN, RETRY_S_MAX = 0.1, 5.0
HELLO_EVERY_S = 10.0
"""How often a quiet line says hello, so that a peer that is gone, or whose store is new, is noticed."""

LATER_S = 0.2
"""Wait before a turn is sent again of which the peer could not do all yet."""

TURN_BYTES_MAX = outbox.MESSAGES_PER_TURN_MAX * outbox.MESSAGE_BYTES_MAX


class KeyStore(Protocol):
    """The part of a key store that the line needs."""

    async def run(self, work: Callable[[StoreTransaction], Result]) -> Result:
        """Run ``work`` in one transaction; return when what it did is durable."""

    async def read(self, work: Callable[[StoreTransaction], Result]) -> Result:
        """Run ``work``, which changes nothing, over what is durable now: it waits for no commit."""


@dataclass(frozen=True)
class PeerEndpoint:
    """One peer: where it is, and the links to it by ID, with what draws key from our end of each."""

    kme_id: KmeId
    url: str
    links: tuple[LinkRole, ...]


class RolledBackStore(OpenQCIError):
    """A store is an old copy: spent key would live again. The security officer must zeroise it."""


class PeerDesk:
    """Answers the requests of peers. ``acted`` hears of each lane of which messages were acted on."""

    def __init__(
        self,
        kme: KmeId,
        own: OwnStore,
        store: KeyStore,
        endpoints: Mapping[KmeId, PeerEndpoint],
        sources: Mapping[str, Source],
        rules: PeerRules,
        met: Callable[[KmeId, Meeting], None],
        acted: Callable[[str], None] = lambda lane: None,
    ) -> None:
        self._kme, self._own, self._store = kme, own, store
        self._endpoints, self._sources, self._rules, self._met = endpoints, sources, rules, met
        self._acted = acted
        self._drawing: dict[tuple[KmeId, str], asyncio.Lock] = {}
        self.switched_off: set[str] = set()

    def hello(self, peer: KmeId) -> PeerHello:
        """Return what this KME says of itself to a peer."""
        return PeerHello(
            peers.PROTOCOL_VERSION,
            self._kme,
            self._own.store_id,
            self._own.generation,
            self._endpoints[peer].links,
            time.time(),
        )

    async def meet(self, peer: KmeId, hello: PeerHello) -> Meeting:
        """Act on a peer's hello. RolledBackStore if its store is older than the one that we knew."""
        links = self._endpoints[peer].links

        def work(transaction: StoreTransaction) -> Meeting:
            view = KmeView(transaction, self._kme)
            return peers.meet(view, peer, self._own.store_id, links, hello, time.time(), self._rules)

        meeting = await self._store.run(work)
        if meeting.standing is Standing.ROLLED_BACK:
            raise RolledBackStore(
                f"the store of {peer} was put back from an older copy (generation {hello.generation}): "
                "zeroise it there with `openqci kme zeroise`"
            )
        self._met(peer, meeting)
        return meeting

    async def answer(self, peer: KmeId, path: str, body: bytes) -> bytes:
        """Answer one request of a verified peer. Raises RequestRefused for everything that is not to be."""
        if peer not in self._endpoints:
            raise RequestRefused(403, f"{peer} is no peer of {self._kme}")
        try:
            if path == HELLO_PATH:
                return await self._answer_hello(peer, msgspec.msgpack.decode(body, type=PeerHello))
            return await self._answer_turn(peer, msgspec.msgpack.decode(body, type=PeerTurn))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RequestRefused(400, f"the request cannot be read: {error}") from None
        except PeerMisbehaved as error:
            log.error("a request of %s was refused: %s", peer, error, extra=about(peer=peer))
            raise RequestRefused(400, str(error)) from None
        except RolledBackStore as error:
            raise RequestRefused(410, str(error)) from None

    async def _answer_hello(self, peer: KmeId, hello: PeerHello) -> bytes:
        await self.meet(peer, hello)
        return msgspec.msgpack.encode(self.hello(peer))

    async def _answer_turn(self, peer: KmeId, received: PeerTurn) -> bytes:
        # One turn of a lane at a time: a turn that is sent again must not draw the same key twice.
        lock = self._drawing.setdefault((peer, received.turn.lane), asyncio.Lock())
        async with lock:
            return await self._act(peer, received)

    async def _act(self, peer: KmeId, received: PeerTurn) -> bytes:
        def looked(
            transaction: StoreTransaction,
        ) -> tuple[list[Introduction], list[tuple[int, DepositNotice]]]:
            view = KmeView(transaction, self._kme)
            peers.check_epoch(view, peer, received)
            return (
                peers.introductions(view, peer, received.turn),
                peers.deposits_to_draw(view, peer, received.turn),
            )

        introduced, due = await self._store.read(looked)
        for introduction in introduced:
            await self._join(introduction.link.rpartition(".")[0], introduction.text)
        drawn: dict[int, Drawn] = {}
        kept: dict[int, tuple[KeptSource, DepositNotice]] = {}
        for number, notice in due:
            found = await self._draw(notice.link.rpartition(".")[0], notice.key_ids, notice.length_bytes)
            if found is None:
                break
            if isinstance(found, KeptSource):
                kept[number] = found, notice
            else:
                drawn[number] = found

        def acted(transaction: StoreTransaction) -> outbox.Answers:
            view = KmeView(transaction, self._kme)
            for number, (source, notice) in kept.items():
                # Here and not before: what is drawn is link key when this is durable, or waits on.
                if (key := _drawn_kept(view, source, notice)) is None:
                    break
                drawn[number] = key
            return peers.receive_turn(view, peer, received, drawn, self._rules)

        try:
            answers = await self._store.run(acted)
        finally:
            for found in drawn.values():
                if not isinstance(found, Verdict):
                    found[0].wipe()
        self._acted(received.turn.lane)
        return msgspec.msgpack.encode(answers)

    async def _join(self, link: str, text: str) -> None:
        """Have our source join what the peer's has made ready; if it cannot, the peer's tries another."""
        source = self._sources.get(link)
        if not isinstance(source, JoinedSource | KeptSource):
            return
        try:
            async with asyncio.timeout(DRAW_S_MAX):
                await source.join(text)
        except (OpenQCIError, OSError, TimeoutError) as error:
            why = error or "no answer"
            log.warning(
                "link %s: the module does not join the peer's (%s)", link, why, extra=about(link=link)
            )

    async def _draw(
        self, link: str, key_ids: tuple[str, ...], length_bytes: int
    ) -> Drawn | KeptSource | None:
        """Draw a deposit's key from our own module; None if it may be there later.

        A source that keeps its key is returned itself, if it has what is named.
        """
        source = self._sources.get(link)
        if source is None:
            return Verdict.REFUSED
        if link in self.switched_off:
            return None
        try:
            async with asyncio.timeout(DRAW_S_MAX):
                if isinstance(source, KeptSource):
                    await source.expect(key_ids, length_bytes)
                    return source
                return await source.draw_named(key_ids, length_bytes)
        except (KeyUnavailable, OSError, TimeoutError) as error:
            why = error or "no answer"
            log.warning(
                "link %s: the module has not the peer's key yet (%s)", link, why, extra=about(link=link)
            )
            return None
        except (IntegrityError, PeerMisbehaved) as error:
            log.error(
                "link %s: the module does not give the peer's key: %s", link, error, extra=about(link=link)
            )
            return Verdict.GONE


def _drawn_kept(view: KmeView, source: KeptSource, notice: DepositNotice) -> Drawn | None:
    """Draw a deposit's key from what waits in our store; None if it may be there later."""
    try:
        return source.draw_named_kept(view, notice.key_ids, notice.length_bytes)
    except KeyUnavailable:
        return None
    except PeerMisbehaved as error:
        log.error("link %s: what the module pushed is not the peer's key: %s", notice.link, error)
        return Verdict.GONE


class PeerTransport(Protocol):
    """Brings one request to one peer and its answer back."""

    async def request(self, path: str, body: bytes) -> bytes:
        """Return the answer's body. RequestRefused for any other than 200; OSError, TimeoutError if none."""

    async def close(self) -> None:
        """Close connections; the next request opens others."""


class HttpsTransport:
    """HTTPS with both certificates; ``tls`` is asked for the rules at every new connection."""

    def __init__(self, endpoint: PeerEndpoint, tls: Callable[[], ssl.SSLContext]) -> None:
        self._endpoint, self._tls = endpoint, tls
        self._session: aiohttp.ClientSession | None = None

    async def request(self, path: str, body: bytes) -> bytes:
        """Send a request and read the answer."""
        session = self._session
        if session is None:
            connector = aiohttp.TCPConnector(ssl=self._tls(), limit=8)
            session = self._session = aiohttp.ClientSession(
                connector=connector, timeout=aiohttp.ClientTimeout(total=REQUEST_S_MAX, connect=5.0)
            )
        url = self._endpoint.url.rstrip("/") + path
        headers = {"Content-Type": MEDIA_TYPE}
        # The certificate must name the KME itself, whatever host it runs on.
        named = self._endpoint.kme_id
        try:
            async with session.post(url, data=body, headers=headers, server_hostname=named) as answer:
                if (answer.content_length or 0) > TURN_BYTES_MAX:
                    raise PeerMisbehaved(f"{named} sends {answer.content_length} bytes")
                content = await answer.read()
        except aiohttp.ClientError as error:
            raise ConnectionError(_reason(error)) from None
        if answer.status != 200:
            raise RequestRefused(answer.status, _message(content))
        return content

    async def close(self) -> None:
        """Close the connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


class PeerLine:
    """Carries this KME's outbox to one peer, until cancelled."""

    def __init__(
        self,
        desk: PeerDesk,
        kme: KmeId,
        endpoint: PeerEndpoint,
        store: KeyStore,
        rules: PeerRules,
        transport: PeerTransport,
        happened: Callable[[KmeId, Event], Awaitable[None]],
        standing: Callable[[KmeId, str | None, bool], None],
        acted: Callable[[str], None] = lambda lane: None,
    ) -> None:
        self.epoch: str | None = None
        self.trouble: str | None = "not met yet"
        self._desk, self._kme, self._endpoint, self._store, self._rules = desk, kme, endpoint, store, rules
        self._transport, self._happened, self._standing = transport, happened, standing
        self._acted = acted
        self._wake = asyncio.Event()
        self._old_stores = 0

    def wake(self) -> None:
        """There is something in the outbox."""
        self._wake.set()

    async def run(self) -> None:
        """Say hello, send what waits, and again."""
        wait_s = RETRY_S_MIN
        try:
            while True:
                try:
                    await self._say_hello()
                    self.trouble, self._old_stores = None, 0
                    self._standing(self._endpoint.kme_id, None, False)
                    wait_s = RETRY_S_MIN
                    await self._send_while_met()
                except RolledBackStore as error:
                    # Once may be a hello of the peer's last life that was long on its way; twice is not.
                    self._old_stores += 1
                    self._trouble(str(error), rolled_back=self._old_stores > 1)
                except RequestRefused as refused:
                    self._trouble(f"refused: {refused.message}")
                except (OSError, TimeoutError) as error:
                    self._trouble(f"cannot be reached ({_reason(error)})")
                except OpenQCIError as error:
                    self._trouble(str(error))
                await self._transport.close()
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, RETRY_S_MAX)
        finally:
            await self._transport.close()

    def _trouble(self, reason: str, *, rolled_back: bool = False) -> None:
        self.epoch, self.trouble = None, reason
        self._standing(self._endpoint.kme_id, reason, rolled_back)

    async def _say_hello(self) -> None:
        peer = self._endpoint.kme_id
        answer = await self._transport.request(HELLO_PATH, msgspec.msgpack.encode(self._desk.hello(peer)))
        try:
            hello = msgspec.msgpack.decode(answer, type=PeerHello)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise PeerMisbehaved(f"{peer} answered a hello with what cannot be read: {error}") from None
        self.epoch = (await self._desk.meet(peer, hello)).epoch

    async def _send_while_met(self) -> None:
        """Send the lanes side by side, none waiting for another; return when it is time for another hello."""
        hello_due_s = time.monotonic() + HELLO_EVERY_S
        sending: dict[str, asyncio.Task[bool]] = {}
        resting_until_s: dict[str, float] = {}
        try:
            while time.monotonic() < hello_due_s:
                self._wake.clear()
                await self._begin_lanes(sending, resting_until_s)
                await self._wait_for(sending, LATER_S if resting_until_s else HELLO_EVERY_S)
                # In order of the lanes, not of a set: a replay of the simulation depends on it.
                for lane in [lane for lane, task in sending.items() if task.done()]:
                    if not sending.pop(lane).result():
                        resting_until_s[lane] = time.monotonic() + LATER_S
            await asyncio.gather(*sending.values())
        finally:
            for task in sending.values():
                task.cancel()
            await asyncio.gather(*sending.values(), return_exceptions=True)

    async def _begin_lanes(
        self, sending: dict[str, "asyncio.Task[bool]"], resting_until_s: dict[str, float]
    ) -> None:
        """Begin a turn of each lane in which messages wait, unless one is under way or the lane rests."""
        lanes = await self._store.read(lambda tx: outbox.lanes(KmeView(tx, self._kme), self._endpoint.kme_id))
        now_s = time.monotonic()
        for lane in [lane for lane, until_s in resting_until_s.items() if until_s <= now_s]:
            del resting_until_s[lane]
        for lane in lanes:
            if lane not in sending and lane not in resting_until_s:
                sending[lane] = asyncio.create_task(self._send(lane))

    async def _wait_for(self, sending: dict[str, "asyncio.Task[bool]"], wait_s: float) -> None:
        """Wait until a turn ends, something is put into the outbox, or for so long."""
        woken = asyncio.create_task(self._wake.wait())
        try:
            await asyncio.wait([*sending.values(), woken], timeout=wait_s, return_when="FIRST_COMPLETED")
        finally:
            woken.cancel()

    async def _send(self, lane: str) -> bool:
        """Send one turn of a lane and act on the answers; False if the peer could not act on any yet."""
        peer, epoch = self._endpoint.kme_id, self.epoch
        turn = await self._store.read(lambda tx: outbox.next_turn(KmeView(tx, self._kme), peer, lane))
        if turn is None or epoch is None:
            return turn is None
        body = await self._transport.request(TURN_PATH, msgspec.msgpack.encode(PeerTurn(epoch, turn)))
        try:
            answers = msgspec.msgpack.decode(body, type=outbox.Answers)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise PeerMisbehaved(f"{peer} answered a turn with what cannot be read: {error}") from None
        if answers.lane != lane:
            raise PeerMisbehaved(f"{peer} answered lane {answers.lane!r}, asked was {lane!r}")
        events = await self._store.run(
            lambda tx: peers.settle_answers(KmeView(tx, self._kme), peer, answers, self._rules)
        )
        for event in events:
            await self._happened(peer, event)
        self._acted(lane)
        return bool(answers.answers)


def _message(content: bytes) -> str:
    try:
        document: Any = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "an answer that is no JSON"
    return str(document.get("message", ""))[:300] if isinstance(document, dict) else ""


def _reason(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not accepted: {error.certificate_error}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
