"""What two KMEs say to each other: who they are, and the turns of their outboxes.

A KME speaks with a peer in two requests. *Hello* says which store is there; the two store identities
together are an *epoch*, and all that the two hold in common (link key, deposits, batches, messages) belongs
to it. When one end has a new store, because the old one was zeroised, lost or restored without its key, the
epoch changes and both ends destroy what they held under the old one: offsets and names of a lost store are
never met again. A store that comes back with a lower generation than its peer has seen, or after another had
taken its place, is an old copy, in which spent key would live again; it is refused until the security officer
has zeroised it (invariant I1).

A *turn* carries messages of one lane (:mod:`openqci.keystore.outbox`). Everything here happens inside one
transaction of the KME's own store; the shell has verified the certificates before.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from openqci.core.errors import PeerMisbehaved, RequestRefused
from openqci.core.identifiers import KmeId, LinkId
from openqci.core.keys import SecretBytes
from openqci.delivery import agreement, etsi004
from openqci.delivery.agreement import BatchAgreed, BatchFailed
from openqci.delivery.pair_stock import BATCH_KIND, KeyBatch, destroy_batch
from openqci.keystore import deposits, outbox, pushed
from openqci.keystore.deposits import DepositNotice, Introduction, Verdict
from openqci.keystore.ports import KmeView
from openqci.keystore.supply import SourceReport

PROTOCOL_VERSION = 3
"""What both ends must have alike: messages, and the way of naming keys (:mod:`openqci.delivery.key_ids`)."""

PEER_KIND = "peer"
EPOCH_HEX_DIGITS = 16
LINKS_MAX = 64
RETIRED_STORES_MAX = 256
CLOCK_DIFFERENCE_S_MAX = 5.0
"""Clocks that differ by more make keys expire at one end while the other still gives them out: an alarm."""


class LinkRole(msgspec.Struct, frozen=True):
    """One link between the two KMEs, and whether the speaker leads it."""

    link: str
    leads: bool


@dataclass(frozen=True)
class OwnStore:
    """Which store this KME has: its identity and how often it was opened."""

    store_id: str
    generation: int


class PeerHello(msgspec.Struct, frozen=True):
    """Who speaks, with which store, over which links, at what time by its clock."""

    version: int
    kme_id: str
    store_id: str
    generation: int
    links: tuple[LinkRole, ...]
    clock_s: float


class PeerState(msgspec.Struct, frozen=True):
    """What a KME remembers of a peer; ``retired`` are the stores that it had before, the latest last."""

    store_id: str
    generation: int
    epoch: str
    retired: tuple[str, ...] = ()


class PeerTurn(msgspec.Struct, frozen=True):
    """A turn with the epoch that it belongs to."""

    epoch: str
    turn: outbox.Turn


class Standing(StrEnum):
    """How a peer's store stands to what we remember of it."""

    KNOWN = "known"
    NEW = "new"
    ROLLED_BACK = "rolled back"


@dataclass(frozen=True)
class Meeting:
    """What came of a hello."""

    standing: Standing
    epoch: str
    clock_difference_s: float
    destroyed_bytes: int = 0


@dataclass(frozen=True)
class DepositSettled:
    """A deposit that we lead was judged by the other end."""

    notice: DepositNotice
    verdict: Verdict


Drawn = tuple[SecretBytes, SourceReport] | Verdict
"""Key that the shell drew from its own module for a deposit, or why there is none."""

Event = BatchAgreed | BatchFailed | DepositSettled


@dataclass(frozen=True)
class PeerRules:
    """What a KME does with messages of each kind beyond deposits and batches, and which deposits it takes.

    ``lost`` hears of the messages that a peer with a new store will never answer.
    """

    handlers: Mapping[str, outbox.Handler] = field(default_factory=dict)
    settlers: Mapping[str, outbox.Settler] = field(default_factory=dict)
    lost: Callable[[KmeView, KmeId, outbox.Message], None] = lambda view, peer, message: None
    simulated_allowed: bool = False


def epoch_of(one_store_id: str, other_store_id: str) -> str:
    """Return the epoch of two stores; it does not matter who asks.

    >>> epoch_of("a", "b") == epoch_of("b", "a") != epoch_of("a", "c")
    True
    """
    text = "|".join(sorted((one_store_id, other_store_id)))
    return hashlib.sha256(f"openqci epoch v1|{text}".encode()).hexdigest()[:EPOCH_HEX_DIGITS]


def link_in_epoch(link: str, epoch: str) -> LinkId:
    """Return the name under which a link's key is kept while the epoch lasts."""
    return LinkId(f"{link}.{epoch}")


def peer_state(view: KmeView, peer: KmeId) -> PeerState | None:
    """Return what is remembered of a peer, or None before the first hello."""
    body = view.record(PEER_KIND, peer)
    return msgspec.json.decode(body, type=PeerState) if body is not None else None


def check_hello(peer: KmeId, hello: PeerHello, own_links: Sequence[LinkRole]) -> None:
    """Refuse a hello of somebody else, of another protocol, or of other links than ours."""
    theirs = {(role.link, role.leads) for role in hello.links}
    for sound, fault in (
        (hello.version == PROTOCOL_VERSION, f"speaks version {hello.version}, not {PROTOCOL_VERSION}"),
        (hello.kme_id == peer, f"calls itself {hello.kme_id}"),
        (hello.generation > 0, "has a store without a generation"),
        (
            theirs == {(role.link, not role.leads) for role in own_links},
            "has other links to us than we to it, or leads the same ones: compare [[link]] at both ends; "
            f"here: {_named(own_links)}; there: {_named(hello.links)}",
        ),
    ):
        if not sound:
            raise PeerMisbehaved(f"{peer} {fault}")


def meet(
    view: KmeView,
    peer: KmeId,
    own_store_id: str,
    own_links: Sequence[LinkRole],
    hello: PeerHello,
    now_s: float,
    rules: PeerRules | None = None,
) -> Meeting:
    """Act on a peer's hello: begin a new epoch if its store or ours is new."""
    check_hello(peer, hello, own_links)
    known = peer_state(view, peer)
    epoch = epoch_of(own_store_id, hello.store_id)
    difference_s = hello.clock_s - now_s
    if known is not None and _is_old(known, hello):
        return Meeting(Standing.ROLLED_BACK, known.epoch, difference_s)
    destroyed, standing = 0, Standing.KNOWN
    if known is None or known.epoch != epoch:
        standing = Standing.NEW
        destroyed = start_over(view, peer, known.epoch if known else None, own_links, rules)
    if known is None or known.epoch != epoch or known.generation != hello.generation:
        retired = known.retired if known is not None else ()
        if known is not None and known.store_id != hello.store_id:
            retired = (*retired, known.store_id)[-RETIRED_STORES_MAX:]
        state = PeerState(hello.store_id, hello.generation, epoch, retired)
        view.put_record(PEER_KIND, peer, msgspec.json.encode(state))
    return Meeting(standing, epoch, difference_s, destroyed)


def _is_old(known: PeerState, hello: PeerHello) -> bool:
    if hello.store_id == known.store_id:
        return hello.generation < known.generation
    return hello.store_id in known.retired


def start_over(
    view: KmeView,
    peer: KmeId,
    epoch: str | None,
    own_links: Sequence[LinkRole],
    rules: PeerRules | None = None,
) -> int:
    """Destroy all that was held in common with a peer; return how many bytes of key that was."""
    lost = outbox.forget_peer(view, peer)
    for message in lost:
        (rules or PeerRules()).lost(view, peer, message)
    etsi004.forget_peer(view, peer)
    # Of what modules pushed for the old epoch the two ends may hold different parts: another stream begins.
    destroyed = sum(pushed.forget(view, role.link) for role in own_links)
    for order in agreement.open_offers(view):
        theirs = [number for number, leg in enumerate(order.legs) if leg.kme_id == peer]
        if theirs:
            agreement.give_up(view, order, spared=theirs)
            destroyed += order.key_bytes
    if epoch is not None:
        for role in own_links:
            destroyed += deposits.destroy_link(view, link_in_epoch(role.link, epoch))
    for _, body in list(view.records(BATCH_KIND)):
        batch = msgspec.json.decode(body, type=KeyBatch)
        origin, *others = batch.provenance.route
        # A slave's copy hangs on the master's KME alone, not on those of the other slaves.
        if peer == origin:
            destroyed += view.stock_bytes(batch.stream)
            destroy_batch(view, batch)
        elif batch.role == "master" and peer in (batch.legs or others[-1:]):
            # Not on the nodes that a relay went by in between.
            destroyed += view.stock_bytes(batch.stream)
            agreement.withdraw(view, batch, peer)
    return destroyed


def deposits_to_draw(view: KmeView, peer: KmeId, turn: outbox.Turn) -> list[tuple[int, DepositNotice]]:
    """Return (number, notice) of the deposits in a turn for which the shell has to draw key first."""
    return [
        (message.number, read_notice(peer, message))
        for message in outbox.unanswered(view, peer, turn)
        if message.kind == deposits.DEPOSIT_KIND
    ]


def introductions(view: KmeView, peer: KmeId, turn: outbox.Turn) -> list[Introduction]:
    """Return what the peer's sources tell ours in a turn; the shell has them join before it draws key."""
    return [
        read_introduction(peer, message)
        for message in outbox.unanswered(view, peer, turn)
        if message.kind == deposits.INTRODUCTION_KIND
    ]


def check_epoch(view: KmeView, peer: KmeId, received: PeerTurn) -> str:
    """Return the epoch of a peer's turn; RequestRefused 409 if it is not the present one.

    Asked before anything is drawn or joined for a turn: a late one would spend key of the modules in vain.
    """
    state = peer_state(view, peer)
    if state is None or state.epoch != received.epoch:
        raise RequestRefused(409, "this turn belongs to another epoch: say hello first")
    return state.epoch


def receive_turn(
    view: KmeView, peer: KmeId, received: PeerTurn, drawn: Mapping[int, Drawn], rules: PeerRules
) -> outbox.Answers:
    """Act on a peer's turn. Deposits for which nothing was drawn, and what follows them, are left for later.

    Raises RequestRefused 409 if the turn belongs to another epoch: the peer says hello again.
    """
    epoch = check_epoch(view, peer, received)
    missing = [number for number, _ in deposits_to_draw(view, peer, received.turn) if number not in drawn]

    def handle(view: KmeView, peer: KmeId, message: outbox.Message) -> bytes:
        if message.kind == deposits.DEPOSIT_KIND:
            return _accept_deposit(view, peer, message, epoch, drawn[message.number], rules)
        if message.kind == deposits.INTRODUCTION_KIND:
            return deposits.HEARD
        if message.kind == agreement.FRAME_KIND:
            return agreement.accept(view, peer, message)
        if message.kind == agreement.VOID_KIND:
            return agreement.void(view, peer, message)
        if message.kind == agreement.REST_KIND:
            return agreement.rest(view, peer, message)
        if message.kind in etsi004.HANDLERS:
            return etsi004.HANDLERS[message.kind](view, peer, message)
        if message.kind in rules.handlers:
            return rules.handlers[message.kind](view, peer, message)
        raise PeerMisbehaved(f"{peer} sent a message of the unknown kind {message.kind!r}")

    return outbox.receive(view, peer, received.turn, handle, min(missing, default=None))


def settle_answers(view: KmeView, peer: KmeId, answers: outbox.Answers, rules: PeerRules) -> list[Event]:
    """Act on a peer's answers to our turn; return what came of them."""
    events: list[Event] = []

    def act(view: KmeView, peer: KmeId, message: outbox.Message, answer: bytes) -> None:
        if message.kind == deposits.DEPOSIT_KIND:
            events.append(DepositSettled(*deposits.settle(view, message, answer)))
        elif message.kind in (agreement.FRAME_KIND, agreement.VOID_KIND, agreement.REST_KIND):
            event = agreement.settle(view, peer, message, answer)
            if event is not None:
                events.append(event)
            if isinstance(event, BatchFailed) and event.order.stream_id:
                etsi004.refeed(view, event.order)
        elif message.kind == deposits.INTRODUCTION_KIND:
            return  # if the other end could not join, the source gives it up by itself
        elif message.kind in etsi004.SETTLERS:
            etsi004.SETTLERS[message.kind](view, peer, message, answer)
        else:
            rules.settlers[message.kind](view, peer, message, answer)

    outbox.settle(view, peer, answers, act)
    return events


def read_notice(peer: KmeId, message: outbox.Message) -> DepositNotice:
    """Return a deposit's notice; PeerMisbehaved if it cannot be read."""
    try:
        return deposits.decode_notice(message.body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise PeerMisbehaved(f"{peer} sent a deposit that cannot be read: {error}") from None


def read_introduction(peer: KmeId, message: outbox.Message) -> Introduction:
    """Return what a peer's source tells ours; PeerMisbehaved if it cannot be read."""
    try:
        return deposits.decode_introduction(message.body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise PeerMisbehaved(f"{peer} sent an introduction that cannot be read: {error}") from None


def _accept_deposit(
    view: KmeView, peer: KmeId, message: outbox.Message, epoch: str, drawn: Drawn, rules: PeerRules
) -> bytes:
    notice = read_notice(peer, message)
    if (
        message.number < 0
        or not notice.link.endswith(f".{epoch}")
        or notice.initiator not in (peer, view.kme)
    ):
        # Not worth a broken line: whatever it is, this end has no such link.
        if not isinstance(drawn, Verdict):
            drawn[0].wipe()
        return Verdict.REFUSED.value.encode()
    if isinstance(drawn, Verdict):
        return drawn.value.encode()
    key, report = drawn
    if (report.simulated or notice.report.simulated) and not rules.simulated_allowed:
        key.wipe()
        return Verdict.REFUSED.value.encode()
    return deposits.accept(view, notice, key, report).value.encode()


def _named(links: Sequence[LinkRole]) -> str:
    return ", ".join(f"{role.link} ({'leads' if role.leads else 'follows'})" for role in links) or "none"
