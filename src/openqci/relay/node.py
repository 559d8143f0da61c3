"""What each node of a relay does, inside one transaction of its own store.

==============  ==========================================================  ==========================
node            takes from its store                                        gives
==============  ==========================================================  ==========================
origin          payload and MAC key of the first hop (:func:`begin`)        frame for the second node
intermediate    the same range; pad and MAC key of the next hop             frame for the next node
                (:func:`forward`)
destination     the last hop's range (:func:`terminate`)                    payload
==============  ==========================================================  ==========================

Nothing is decrypted or sent on before the MAC is found right. A frame whose MAC is wrong, or whose next hop
is empty, is *refused*: the range that it names is destroyed at this end, and the refusal is a value, not an
exception, so that the transaction that destroyed the range commits. So a range is gone at both ends once a
frame has named it, its MAC key judges one message only, and a replay finds nothing.
What raises an exception (a frame for another node, a range that is not there) has touched no key.

Every node of the route knows the end-to-end key: that is what "trusted node" means. Why the first hop's
link key is the key itself is in ``docs/decisions/0002-the-end-to-end-key-is-link-key.md``.
"""

from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from openqci.core.errors import KeyUnavailable, PeerMisbehaved, invariant
from openqci.core.identifiers import LinkId, SiteId, StreamId, kme_of_site, link_stream
from openqci.core.keys import SecretBytes, StoredRange
from openqci.crypto import equal, one_time_mac, one_time_pad
from openqci.crypto.bridging import key_id_of, open_sealed, seal_for
from openqci.crypto.hybrid import KemPrivateKey, KemPublicKey
from openqci.keystore.ports import KmeView
from openqci.relay.accounts import SpentRange, note_spent
from openqci.relay.messages import (
    CARGO_BYTES_MAX,
    RelayFrame,
    RelayOrder,
    authenticated_text,
    check_order,
    decode_frame,
    hop_bytes,
)

PAYLOAD, PAD, DESTROYED = "payload", "pad", "destroyed"
"""What a range of link key was used for, in the account of its stream."""


class HopRooms(Protocol):
    """By which name routes know a node, and in which stream it keeps the key of a hop."""

    def is_here(self, view: KmeView, name: str) -> bool:
        """Tell whether a name of a route is that of the node whose rooms these are."""

    def stream(self, view: KmeView, link_id: LinkId, sender: str, receiver: str) -> StreamId:
        """Return the stream that ``sender`` begins to spend; KeyUnavailable if the two share none now."""


class SiteRooms:
    """Routes name sites, each with one KME, and a link's streams bear its name alone."""

    def is_here(self, view: KmeView, name: str) -> bool:
        """Tell whether a name of a route is that of the node whose rooms these are."""
        return view.kme == kme_of_site(SiteId(name))

    def stream(self, view: KmeView, link_id: LinkId, sender: str, receiver: str) -> StreamId:
        """Return the stream that ``sender`` begins to spend."""
        return link_stream(link_id, SiteId(sender))


SITE_ROOMS = SiteRooms()


class Bridges(Protocol):
    """The ML-KEM keys by which a node crosses hops that have no pad."""

    def public_key(self, name: str) -> KemPublicKey | None:
        """Return the encapsulation key of the next node, or None if none is known."""

    def private_key(self, key_id: bytes) -> KemPrivateKey | None:
        """Return this node's own key of a name, or None."""


class NoBridges:
    """A node that crosses no hop without a pad."""

    def public_key(self, name: str) -> KemPublicKey | None:
        """Return None."""
        return None

    def private_key(self, key_id: bytes) -> KemPrivateKey | None:
        """Return None."""
        return None


NO_BRIDGES = NoBridges()


@dataclass(frozen=True)
class RelayRefused:
    """A node would not carry a frame on. What the frame named is destroyed; no key comes of the relay.

    ``forged`` tells a wrong MAC, which the security officer must see, from a next hop without key, which is
    the scheduler's business.
    """

    relay_id: str
    site: str
    reason: str
    destroyed: StoredRange
    forged: bool


@dataclass(frozen=True)
class RelayArrival:
    """What a relay has brought to its destination: the secret payload and the public cargo."""

    order: RelayOrder
    payload: SecretBytes
    cargo: bytes = field(repr=False)


def begin(
    view: KmeView,
    order: RelayOrder,
    payload: SecretBytes | None = None,
    cargo: bytes = b"",
    rooms: HopRooms = SITE_ROOMS,
    bridges: Bridges = NO_BRIDGES,
) -> tuple[bytes, SecretBytes]:
    """Spend the first hop's key at the origin; return the frame for the second node, and the payload.

    The payload is a copy of the caller's for a carried relay, else link key of the first hop. Raises
    KeyUnavailable, before anything is taken, if the hop has not enough.
    """
    check_order(order)
    invariant((payload is not None) == order.carried, "a carried relay has its payload from its caller")
    invariant(len(cargo) <= CARGO_BYTES_MAX, "a frame has room for its cargo")
    if payload is not None:
        invariant(len(payload) == order.payload_bytes, "a payload has the length that its order says")
    frame, taken = send(view, order, 0, payload, cargo, rooms, bridges)
    return msgspec.msgpack.encode(frame), SecretBytes(payload.reveal()) if payload is not None else taken


def forward(
    view: KmeView, data: bytes, rooms: HopRooms = SITE_ROOMS, bridges: Bridges = NO_BRIDGES
) -> bytes | RelayRefused:
    """Receive a frame at an intermediate node and return the frame for the next hop.

    Raises PeerMisbehaved for what is no frame for this node, and KeyUnavailable if the range that it names
    is not there (spent already: a replay). No key was touched then.
    """
    frame = decode_frame(data)
    if frame.hop_index + 1 >= len(frame.order.links):
        raise PeerMisbehaved(f"relay {frame.order.relay_id} ends at {view.kme}, there is no next hop")
    payload = receive(view, frame, rooms, bridges)
    if isinstance(payload, RelayRefused):
        return payload
    with payload:
        try:
            sent, _ = send(view, frame.order, frame.hop_index + 1, payload, frame.cargo, rooms, bridges)
        except KeyUnavailable as error:
            stream = StreamId("") if frame.bridged else spent_stream(view, frame, rooms)
            return refusal(frame, stream, str(error), forged=False)
    return msgspec.msgpack.encode(sent)


def terminate(
    view: KmeView, data: bytes, rooms: HopRooms = SITE_ROOMS, bridges: Bridges = NO_BRIDGES
) -> RelayArrival | RelayRefused:
    """Receive the last frame at the destination; the caller keeps the payload in the same transaction.

    Raises as :func:`forward` does.
    """
    frame = decode_frame(data)
    if frame.hop_index + 1 != len(frame.order.links):
        raise PeerMisbehaved(f"relay {frame.order.relay_id} does not end at {view.kme}")
    payload = receive(view, frame, rooms, bridges)
    if isinstance(payload, RelayRefused):
        return payload
    return RelayArrival(frame.order, payload, frame.cargo)


def send(
    view: KmeView,
    order: RelayOrder,
    hop_index: int,
    payload: SecretBytes | None,
    cargo: bytes,
    rooms: HopRooms = SITE_ROOMS,
    bridges: Bridges = NO_BRIDGES,
) -> tuple[RelayFrame, SecretBytes]:
    """Spend one hop's key as its initiator: as the pad of a payload, or as the payload itself."""
    link_id, sender, receiver = order.hop(hop_index)
    check_place(view, order, sender, rooms)
    if hop_index in order.bridged and payload is not None:
        return bridge(order, hop_index, payload, cargo, bridges), SecretBytes(b"")
    stream = rooms.stream(view, link_id, sender, receiver)
    offset, spent = view.take_next(stream, hop_bytes(order.key_bytes))
    pad = spent.take(order.payload_bytes)
    ciphertext = b"" if payload is None else bytes(one_time_pad(payload.reveal(), pad.reveal()))
    with spent as mac_key:
        tag = covering_tag(mac_key, authenticated_text(order, hop_index, offset, ciphertext, cargo), pad)
    use = PAYLOAD if payload is None else PAD
    note_spent(view, stream, SpentRange(order.relay_id, use, offset, order.payload_bytes))
    if payload is not None:
        pad.wipe()
    return RelayFrame(order, hop_index, offset, ciphertext, tag, cargo), pad


def bridge(
    order: RelayOrder, hop_index: int, payload: SecretBytes, cargo: bytes, bridges: Bridges
) -> RelayFrame:
    """Seal a payload for the next node, on a hop that the order allows to cross without a pad."""
    _, _, receiver = order.hop(hop_index)
    public = bridges.public_key(receiver)
    if public is None:
        raise KeyUnavailable(
            f"no ML-KEM key of {receiver} is known", wanted_bytes=order.payload_bytes, available_bytes=0
        )
    context = authenticated_text(order, hop_index, 0, b"", cargo)
    return RelayFrame(order, hop_index, 0, seal_for(public, context, payload), b"", cargo)


def receive(
    view: KmeView, frame: RelayFrame, rooms: HopRooms = SITE_ROOMS, bridges: Bridges = NO_BRIDGES
) -> SecretBytes | RelayRefused:
    """Spend one hop's key as its receiver; return the payload once the MAC has been checked."""
    order = frame.order
    _, _, receiver = order.hop(frame.hop_index)
    check_place(view, order, receiver, rooms)
    if frame.bridged:
        return cross(view, frame, bridges)
    if len(frame.ciphertext) != frame.ciphertext_bytes:
        raise PeerMisbehaved(
            f"relay {order.relay_id}: {len(frame.ciphertext)} bytes of ciphertext, "
            f"expected {frame.ciphertext_bytes}"
        )
    stream = spent_stream(view, frame, rooms)
    spent = view.take(stream, frame.offset_bytes, hop_bytes(order.key_bytes))
    pad = spent.take(order.payload_bytes)
    text = authenticated_text(order, frame.hop_index, frame.offset_bytes, frame.ciphertext, frame.cargo)
    with spent as mac_key:
        genuine = equal(covering_tag(mac_key, text, pad), frame.tag)
    use = (PAD if frame.ciphertext else PAYLOAD) if genuine else DESTROYED
    note_spent(view, stream, SpentRange(order.relay_id, use, frame.offset_bytes, order.payload_bytes))
    if not genuine:
        pad.wipe()
        reason = f"the MAC of hop {frame.hop_index} is wrong: a forgery, or the two ends hold different key"
        return refusal(frame, stream, reason, forged=True)
    if not frame.ciphertext:
        return pad
    with pad:
        return SecretBytes(one_time_pad(frame.ciphertext, pad.reveal()))


def cross(view: KmeView, frame: RelayFrame, bridges: Bridges) -> SecretBytes | RelayRefused:
    """Open what was sealed for this node, on a hop without a pad.

    Nothing is spent by it. Who has sent it is what the connection says, and it may come again; what would
    forward it twice spends the next hop's key twice, as its neighbour could have ordered anyway.
    """
    order = frame.order
    private = bridges.private_key(key_id_of(frame.ciphertext))
    if private is None:
        return refusal(frame, StreamId(""), f"{view.kme} has not the ML-KEM key that it is for", forged=False)
    context = authenticated_text(order, frame.hop_index, 0, b"", frame.cargo)
    try:
        payload = open_sealed(private, context, frame.ciphertext)
    except PeerMisbehaved as error:
        return refusal(frame, StreamId(""), str(error), forged=True)
    if len(payload) != order.payload_bytes:
        return refusal(frame, StreamId(""), f"a sealed payload has {len(payload)} bytes", forged=True)
    return payload


def spent_stream(view: KmeView, frame: RelayFrame, rooms: HopRooms) -> StreamId:
    """Return the stream of which a frame names a range."""
    return rooms.stream(view, *frame.order.hop(frame.hop_index))


def refusal(frame: RelayFrame, stream: StreamId, reason: str, *, forged: bool) -> RelayRefused:
    """Return the refusal of a frame whose range has been taken, and so destroyed, at its receiver."""
    _, _, receiver = frame.order.hop(frame.hop_index)
    spent_bytes = 0 if frame.bridged else hop_bytes(frame.order.key_bytes)
    destroyed = StoredRange(stream, frame.offset_bytes, spent_bytes)
    return RelayRefused(frame.order.relay_id, receiver, reason, destroyed, forged)


def check_place(view: KmeView, order: RelayOrder, name: str, rooms: HopRooms) -> None:
    """Refuse to act for another node than the one whose rooms these are."""
    if not rooms.is_here(view, name):
        raise PeerMisbehaved(f"relay {order.relay_id}: this hop's node is {name}, not {view.kme}")


def covering_tag(mac_key: SecretBytes, text: bytes, secret: SecretBytes) -> bytes:
    """Return the one-time MAC over public text and a secret that both ends should hold alike.

    So two ends whose key differs in a single bit find out here, and no different keys are delivered (I2).
    The tag tells nothing about the secret: it is a polynomial's value plus 128 uniform bits of the MAC key
    that are used for nothing else (``openqci.crypto.one_time``). The text ends where msgpack says, and the
    secret's length follows from the order in it, so no two pairs of them look alike.
    """
    return one_time_mac(mac_key.reveal(), text + secret.reveal())
