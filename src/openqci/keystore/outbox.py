"""Messages between two KMEs that survive any crash at either end: each takes effect exactly once, in order.

A message is put into the outbox in the transaction that makes it necessary, and leaves it in the transaction
that acts on its answer. The receiver acts on a message and keeps its answer in one transaction. So whatever
is lost, doubled, late or cut off between the two is made good by sending again: a message that was acted on
before gets the answer that it got then. There is no other state of a conversation to lose.

Messages to one peer go in *lanes*; a lane keeps their order, and lanes do not wait for each other. Nothing
here is secret: a message never holds key in clear. Who is at the other end, and whether its store is still
the one that we spoke with, is known before any message is acted on (``openqci.delivery.peers``).
"""

from collections.abc import Callable, Sequence

import msgspec

from openqci.core.errors import PeerMisbehaved
from openqci.core.identifiers import KmeId
from openqci.keystore.ports import KmeView

OUT_KIND, OUT_NEXT = "outbox", "outbox-next"
IN_KIND, IN_NEXT = "inbox", "inbox-next"

MESSAGES_PER_TURN_MAX = 64
"""Messages that travel together; the receiver acts on each in one transaction of all."""

MESSAGE_BYTES_MAX = 256 * 1024


class Message(msgspec.Struct, frozen=True):
    """One message: its number in its lane, what it is, and its content."""

    number: int
    kind: str
    body: bytes


class Turn(msgspec.Struct, frozen=True):
    """What travels to a peer: the next messages of a lane. All with a number below ``settled`` are done."""

    lane: str
    settled: int
    messages: tuple[Message, ...]


class Answers(msgspec.Struct, frozen=True):
    """What travels back: answers by number. What is not answered is sent again later."""

    lane: str
    answers: tuple[tuple[int, bytes], ...]


Handler = Callable[[KmeView, KmeId, Message], bytes]
"""Acts on a message of a peer, inside the receiver's transaction, and returns the answer. Raises NotYet,
before it has changed anything, if the message comes too early."""


class NotYet(Exception):
    """A message cannot be acted on before something else has happened here: it is left for a later turn."""


Settler = Callable[[KmeView, KmeId, Message, bytes], None]
"""Acts on the answer to one's own message, inside the sender's transaction."""


def post(view: KmeView, peer: KmeId, lane: str, kind: str, body: bytes) -> int:
    """Put a message for a peer into the outbox and return its number."""
    number = _counter(view, OUT_NEXT, _lane_key(peer, lane))
    view.put_record(OUT_NEXT, _lane_key(peer, lane), str(number + 1).encode())
    message = Message(number, kind, body)
    view.put_record(OUT_KIND, _message_key(peer, lane, number), msgspec.msgpack.encode(message))
    return number


def lanes(view: KmeView, peer: KmeId) -> list[str]:
    """Return the lanes to a peer in which messages wait, in order of name."""
    prefix = f"{peer}|"
    found = {key[len(prefix) :].rpartition("|")[0] for key, _ in view.records(OUT_KIND, prefix)}
    return sorted(found)


def next_turn(view: KmeView, peer: KmeId, lane: str) -> Turn | None:
    """Return what to send to a peer in a lane now, or None if nothing waits."""
    waiting = []
    for _, body in view.records(OUT_KIND, f"{_lane_key(peer, lane)}|"):
        waiting.append(msgspec.msgpack.decode(body, type=Message))
        if len(waiting) == MESSAGES_PER_TURN_MAX:
            break
    return Turn(lane, waiting[0].number, tuple(waiting)) if waiting else None


def unanswered(view: KmeView, peer: KmeId, turn: Turn) -> list[Message]:
    """Return the messages of a peer's turn that were not acted on yet, at the receiver."""
    due = _counter(view, IN_NEXT, _lane_key(peer, turn.lane))
    return [message for message in turn.messages if message.number >= due]


def receive(view: KmeView, peer: KmeId, turn: Turn, handle: Handler, upto: int | None = None) -> Answers:
    """Act on a peer's turn, each message once, and return the answers to all that were ever acted on.

    ``upto`` leaves the messages from that number on for later. PeerMisbehaved if messages are missing in
    between: the sender numbers them without gaps, so one end has lost its store.
    """
    lane_key = _lane_key(peer, turn.lane)
    due = _counter(view, IN_NEXT, lane_key)
    if turn.messages and not turn.settled <= turn.messages[0].number <= due:
        raise PeerMisbehaved(f"{peer} sent message {turn.messages[0].number} of {turn.lane}, expected {due}")
    answers: list[tuple[int, bytes]] = []
    for message in turn.messages:
        if message.number < due:
            kept = view.record(IN_KIND, _message_key(peer, turn.lane, message.number))
            if kept is not None:
                answers.append((message.number, kept))
            continue
        if message.number != due:
            raise PeerMisbehaved(f"{peer} sent message {message.number} of {turn.lane}, expected {due}")
        if upto is not None and message.number >= upto:
            break
        try:
            answer = handle(view, peer, message)
        except NotYet:
            break
        view.put_record(IN_KIND, _message_key(peer, turn.lane, message.number), answer)
        answers.append((message.number, answer))
        due += 1
        view.put_record(IN_NEXT, lane_key, str(due).encode())
    _forget_settled(view, peer, turn)
    return Answers(turn.lane, tuple(answers))


def settle(view: KmeView, peer: KmeId, answers: Answers, act: Settler) -> int:
    """Act on a peer's answers, each once and in order; return how many messages that settled."""
    settled = 0
    for number, answer in sorted(answers.answers):
        key = _message_key(peer, answers.lane, number)
        body = view.record(OUT_KIND, key)
        if body is None:
            continue
        act(view, peer, msgspec.msgpack.decode(body, type=Message), answer)
        view.drop_record(OUT_KIND, key)
        settled += 1
    return settled


def forget_peer(view: KmeView, peer: KmeId) -> Sequence[Message]:
    """Drop every message from and to a peer, whose store is no longer the one we spoke with.

    Returns what was never answered: the caller gives up what it was for.
    """
    lost = [msgspec.msgpack.decode(body, type=Message) for _, body in view.records(OUT_KIND, f"{peer}|")]
    for kind in (OUT_KIND, OUT_NEXT, IN_KIND, IN_NEXT):
        for key, _ in list(view.records(kind, f"{peer}|")):
            view.drop_record(kind, key)
    return lost


def _forget_settled(view: KmeView, peer: KmeId, turn: Turn) -> None:
    """Drop the answers that the sender has acted on: it will not ask again."""
    for key, _ in list(view.records(IN_KIND, f"{_lane_key(peer, turn.lane)}|")):
        if int(key.rpartition("|")[2], 16) >= turn.settled:
            break
        view.drop_record(IN_KIND, key)


def _counter(view: KmeView, kind: str, key: str) -> int:
    return int(view.record(kind, key) or b"0")


def _lane_key(peer: KmeId, lane: str) -> str:
    return f"{peer}|{lane}"


def _message_key(peer: KmeId, lane: str, number: int) -> str:
    return f"{_lane_key(peer, lane)}|{number:016x}"
