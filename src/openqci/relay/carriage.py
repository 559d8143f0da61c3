"""Relays between KMEs that each have a store of their own: messages of the durable outbox.

================  ==========================  ====================================================
message           goes                        tells
================  ==========================  ====================================================
frame             from node to node           carry this on (:mod:`openqci.relay.messages`)
result            back, from node to node     what the destination says, or who could not carry on
void              forward, behind the frame   the origin has given the relay up
release           forward, behind the frame   the origin has what it relayed; nothing waits any more
================  ==========================  ====================================================

A node acts on each in one transaction and posts the next message in the same, so a crash between any two
steps loses nothing and does nothing twice (:mod:`openqci.keystore.outbox`). Messages to one neighbour keep
their order, so a void never overtakes its frame. Nodes between the ends remember nothing of a relay: results
and voids name the route, and pads are spent by the frame alone.

What the ends do with what arrives is behind :class:`RelayEnds`. A relay whose way is lost, because a node on
it has a new store, may never end by itself: its origin gives it up after a time, and voids it.
"""

from typing import Protocol, TypeVar

import msgspec

from openqci.core.errors import KeyUnavailable, PeerMisbehaved
from openqci.core.identifiers import KmeId
from openqci.keystore import outbox
from openqci.keystore.outbox import Message
from openqci.keystore.ports import KmeView
from openqci.relay.messages import HOPS_MAX, RELAY_ID, RelayFrame, RelayOrder, decode_frame
from openqci.relay.node import HopRooms, RelayArrival, RelayRefused, forward, terminate

LANE = "relay"
FRAME_KIND, RESULT_KIND, VOID_KIND = "relay-frame", "relay-result", "relay-void"
CARRIED, HEARD = b"carried", b"heard"
REASON_CHARACTERS_MAX = 300
CONFIRMATION_BYTES_MAX = 4096


class RelayResult(msgspec.Struct, frozen=True):
    """How a relay has ended, on its way back. ``at`` is the place on the route of the node that it is for.

    ``confirmation`` is the destination's word; it is empty if the relay has failed, at ``failed_at``.
    """

    relay_id: str
    route: tuple[str, ...]
    at: int
    confirmation: bytes = b""
    failed_at: str = ""
    reason: str = ""
    forged: bool = False


class RelayVoid(msgspec.Struct, frozen=True):
    """The origin's last word on a relay, on its way forward: forget it, or, if ``kept``, all is well."""

    relay_id: str
    route: tuple[str, ...]
    at: int
    kept: bool = False


Travelling = TypeVar("Travelling", RelayResult, RelayVoid)


class NotCarried(msgspec.Struct, frozen=True):
    """Answer to a frame that was not carried on."""

    failed_at: str
    reason: str
    forged: bool


class RelayEnds(Protocol):
    """What origin and destination do, each inside its own transaction."""

    def arrived(self, view: KmeView, arrival: RelayArrival) -> None:
        """Keep what a relay has brought, or not; :func:`confirm` or :func:`decline` tells its origin.

        That may be now or in a later transaction.
        """

    def ended(self, view: KmeView, result: RelayResult) -> None:
        """A relay that began here has ended; it may have been given up before."""

    def withdrawn(self, view: KmeView, relay_id: str) -> None:
        """The origin of a relay that ends here has given it up: destroy what it brought."""

    def released(self, view: KmeView, relay_id: str) -> None:
        """The origin has what it relayed here: nothing waits for it any more."""


class CarriageRooms(HopRooms, Protocol):
    """The rooms of a node whose link key comes in deposits."""

    def too_early(self, view: KmeView, frame: RelayFrame) -> bool:
        """Tell whether the range of a frame is still to come: its deposit is under way at this end."""


class Carriage:
    """One node's part in relays: what it does with each kind of message, and with each answer."""

    def __init__(self, ends: RelayEnds, rooms: CarriageRooms) -> None:
        self._ends, self._rooms = ends, rooms
        self.handlers: dict[str, outbox.Handler] = {
            FRAME_KIND: self._receive_frame,
            RESULT_KIND: self._receive_result,
            VOID_KIND: self._receive_void,
        }
        self.settlers: dict[str, outbox.Settler] = {
            FRAME_KIND: self._settle_frame,
            RESULT_KIND: lambda view, peer, message, answer: None,
            VOID_KIND: lambda view, peer, message, answer: None,
        }

    def lost(self, view: KmeView, peer: KmeId, message: Message) -> None:
        """A message to a peer that has a new store will never be answered: a frame's relay has failed."""
        if message.kind == FRAME_KIND:
            frame = decode_frame(message.body)
            self._fail(view, frame, NotCarried(peer, f"{peer} has a new store", False))

    def _receive_frame(self, view: KmeView, sender: KmeId, message: Message) -> bytes:
        frame = decode_frame(message.body)
        ends = frame.order.route[frame.hop_index : frame.hop_index + 2]
        if ends != (sender, view.kme):
            raise PeerMisbehaved(f"{sender} sent {view.kme} a frame of the hop {' to '.join(ends)}")
        if self._rooms.too_early(view, frame):
            raise outbox.NotYet
        try:
            refused = self._carry_on(view, frame, message.body)
        except KeyUnavailable as error:
            refused = NotCarried(view.kme, str(error)[:REASON_CHARACTERS_MAX], False)
        return CARRIED if refused is None else msgspec.msgpack.encode(refused)

    def _carry_on(self, view: KmeView, frame: RelayFrame, wire: bytes) -> NotCarried | None:
        """Bring a frame one hop on, or to its end here; return why not, or None."""
        order = frame.order
        if frame.hop_index + 1 < len(order.links):
            done = forward(view, wire, self._rooms)
            if isinstance(done, RelayRefused):
                return _not_carried(done)
            outbox.post(view, KmeId(order.route[frame.hop_index + 2]), LANE, FRAME_KIND, done)
            return None
        arrival = terminate(view, wire, self._rooms)
        if isinstance(arrival, RelayRefused):
            return _not_carried(arrival)
        with arrival.payload:
            self._ends.arrived(view, arrival)
        return None

    def _settle_frame(self, view: KmeView, peer: KmeId, message: Message, answer: bytes) -> None:
        if answer == CARRIED:
            return
        try:
            refused = msgspec.msgpack.decode(answer, type=NotCarried)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            refused = NotCarried(peer, f"{peer} gave an answer that cannot be read", False)
        self._fail(view, decode_frame(message.body), refused)

    def _fail(self, view: KmeView, frame: RelayFrame, refused: NotCarried) -> None:
        """Tell the origin that the frame which this node has sent was not carried on."""
        order, at = frame.order, frame.hop_index
        result = RelayResult(
            order.relay_id, order.route, at, b"", refused.failed_at, refused.reason, refused.forged
        )
        if at == 0:
            self._ends.ended(view, result)
        else:
            _pass_back(view, result)

    def _receive_result(self, view: KmeView, sender: KmeId, message: Message) -> bytes:
        result = _read(sender, message, RelayResult)
        _check_way(view, sender, result, coming_from=result.at + 1)
        if len(result.confirmation) > CONFIRMATION_BYTES_MAX:
            raise PeerMisbehaved(f"{sender} sent a confirmation of {len(result.confirmation)} bytes")
        if result.at == 0:
            self._ends.ended(view, result)
        else:
            _pass_back(view, result)
        return HEARD

    def _receive_void(self, view: KmeView, sender: KmeId, message: Message) -> bytes:
        void = _read(sender, message, RelayVoid)
        _check_way(view, sender, void, coming_from=void.at - 1)
        if void.at < len(void.route) - 1:
            _pass_on(view, void)
        elif void.kept:
            self._ends.released(view, void.relay_id)
        else:
            self._ends.withdrawn(view, void.relay_id)
        return HEARD


def start(view: KmeView, order: RelayOrder, frame: bytes) -> None:
    """Send the first frame of a relay, at its origin, in the transaction that spent its key."""
    outbox.post(view, KmeId(order.route[1]), LANE, FRAME_KIND, frame)


def confirm(view: KmeView, order: RelayOrder, word: bytes) -> None:
    """Send the destination's word back to the origin."""
    _pass_back(view, RelayResult(order.relay_id, order.route, len(order.route) - 1, word))


def decline(view: KmeView, order: RelayOrder, reason: str, *, forged: bool = False) -> None:
    """Tell the origin that the destination could not do with the payload what it was for."""
    at, said = len(order.route) - 1, reason[:REASON_CHARACTERS_MAX]
    _pass_back(view, RelayResult(order.relay_id, order.route, at, b"", view.kme, said, forged))


def void(view: KmeView, order: RelayOrder) -> None:
    """Give a relay up, at its origin: what has arrived is destroyed, wherever it is by then."""
    _pass_on(view, RelayVoid(order.relay_id, order.route, 0))


def release(view: KmeView, order: RelayOrder) -> None:
    """Tell the destination, at the origin, that what was relayed is there and nothing waits any more."""
    _pass_on(view, RelayVoid(order.relay_id, order.route, 0, kept=True))


def _pass_back(view: KmeView, result: RelayResult) -> None:
    earlier = msgspec.structs.replace(result, at=result.at - 1)
    peer = KmeId(result.route[earlier.at])
    outbox.post(view, peer, LANE, RESULT_KIND, msgspec.msgpack.encode(earlier))


def _pass_on(view: KmeView, relay_void: RelayVoid) -> None:
    later = msgspec.structs.replace(relay_void, at=relay_void.at + 1)
    peer = KmeId(relay_void.route[later.at])
    outbox.post(view, peer, LANE, VOID_KIND, msgspec.msgpack.encode(later))


def _not_carried(refused: RelayRefused) -> NotCarried:
    return NotCarried(refused.site, refused.reason[:REASON_CHARACTERS_MAX], refused.forged)


def _read(sender: KmeId, message: Message, kind: type[Travelling]) -> Travelling:
    try:
        return msgspec.msgpack.decode(message.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerMisbehaved(f"{sender} sent a {message.kind} that cannot be read: {error}") from None


def _check_way(view: KmeView, sender: KmeId, message: RelayResult | RelayVoid, coming_from: int) -> None:
    """Refuse a message that is not for this node, or did not come from its neighbour on the route."""
    route, at = message.route, message.at
    for sound, fault in (
        (RELAY_ID.fullmatch(message.relay_id) is not None, "without a relay ID"),
        (2 <= len(route) <= HOPS_MAX + 1, f"with a route of {len(route)} nodes"),
        (0 <= at < len(route) and 0 <= coming_from < len(route), "off its route"),
    ):
        if not sound:
            raise PeerMisbehaved(f"{sender} sent a message about a relay {fault}")
    if route[at] != view.kme or route[coming_from] != sender:
        named = f"{route[coming_from]} to {route[at]}"
        raise PeerMisbehaved(f"{sender} sent {view.kme} a message of relay {message.relay_id} from {named}")
