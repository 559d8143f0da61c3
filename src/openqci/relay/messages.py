"""What travels between the nodes of a relay. Nothing here is secret but the ciphertext's clear text.

A frame has one encoding only (msgpack as ``msgspec`` writes it): any other bytes are refused before a key
is touched, so that what the MAC covers and what travelled cannot differ.
"""

import re
from enum import StrEnum

import msgspec

from openqci.core.errors import PeerMisbehaved
from openqci.core.identifiers import LinkId, SiteId
from openqci.crypto import ONE_TIME_MAC_KEY_BYTES
from openqci.crypto.manipulation import MANIPULATION_KEY_BYTES

ID_SEED_BYTES = 16
CONFIRMATION_KEY_BYTES = MANIPULATION_KEY_BYTES
CONTROL_BYTES = ID_SEED_BYTES + CONFIRMATION_KEY_BYTES
"""Link key that a relay carries beside the end-to-end key: the seed of its key IDs and the key that
authenticates the destination's confirmation."""

HOPS_MAX = 256
KEY_BYTES_MAX = 64 * 1024
PURPOSE_BYTES_MAX = 64
CARGO_BYTES_MAX = 64 * 1024
"""Public bytes that travel with a payload to its destination: an end-to-end order of several long routes."""

FRAME_BYTES_MAX = KEY_BYTES_MAX + CARGO_BYTES_MAX + 64 * 1024
"""Room for the longest key and cargo, and for an order of 256 hops with names of 60 characters, twice."""

STREAM_BYTES_MAX = 1 << 38
"""No stream of link key grows longer (seven years of one direction at 10 kbit/s), so a frame that names a
place beyond is refused here, before any arithmetic on row numbers in a store."""

RELAY_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


class RelayForm(StrEnum):
    """How a relay protects what it carries; a key's provenance names it (invariant I7)."""

    HOP = "hop"
    XOR = "xor"
    COMPUTATIONAL = "computational"


class RelayOrder(msgspec.Struct, frozen=True):
    """What is to be relayed, by which way: the same at every node, covered by every MAC.

    ``relay_id`` is 32 hexadecimal digits, ``route`` is n + 1 sites, ``links`` the n links between them.
    ``purpose`` says what the payload is for: a digest of the end-to-end order and the share's number.
    A ``carried`` relay gets its payload from its caller, so that its first hop is padded too; any other
    takes link key of the first hop as payload. Hops in ``bridged`` have no pad: the payload crosses them
    sealed for the next node's ML-KEM key.
    """

    relay_id: str
    route: tuple[str, ...]
    links: tuple[str, ...]
    key_bytes: int
    form: RelayForm = RelayForm.HOP
    purpose: bytes = b""
    carried: bool = False
    bridged: tuple[int, ...] = ()

    @property
    def payload_bytes(self) -> int:
        """Length of what every hop carries."""
        return self.key_bytes + CONTROL_BYTES

    def hop(self, index: int) -> tuple[LinkId, SiteId, SiteId]:
        """Return (link, sender, receiver) of a hop."""
        return LinkId(self.links[index]), SiteId(self.route[index]), SiteId(self.route[index + 1])


class RelayFrame(msgspec.Struct, frozen=True):
    """One hop's message. On the first hop the ciphertext is empty, unless the relay is a carried one.

    On a bridged hop it is a sealed payload, and there is neither a range nor a tag.
    ``cargo`` is public and goes to the destination unchanged, covered by every MAC.
    """

    order: RelayOrder
    hop_index: int
    offset_bytes: int
    ciphertext: bytes
    tag: bytes
    cargo: bytes = b""

    @property
    def bridged(self) -> bool:
        """Whether this hop is crossed without a pad."""
        return self.hop_index in self.order.bridged

    @property
    def ciphertext_bytes(self) -> int:
        """Length that a padded ciphertext must have: nothing where the pad itself is the payload."""
        return self.order.payload_bytes if self.hop_index or self.order.carried else 0


def hop_bytes(key_bytes: int) -> int:
    """Return how much link key one hop spends to relay ``key_bytes`` of end-to-end key."""
    return key_bytes + CONTROL_BYTES + ONE_TIME_MAC_KEY_BYTES


def authenticated_text(
    order: RelayOrder, hop_index: int, offset_bytes: int, ciphertext: bytes, cargo: bytes
) -> bytes:
    """Return the public part of what a hop's MAC covers; the range's own secret bytes come after it.

    Naming sender and receiver keeps a frame from being reflected; the offset keeps it from being moved to
    another pad (arXiv:2608.07626 finds MACs without role binding in published key management protocols).
    """
    link_id, sender, receiver = order.hop(hop_index)
    return msgspec.msgpack.encode(
        ("openqci relay v2", order, hop_index, link_id, sender, receiver, offset_bytes, ciphertext, cargo)
    )


def decode_frame(data: bytes) -> RelayFrame:
    """Read a frame; PeerMisbehaved if it is not one, or not in its one encoding."""
    if len(data) > FRAME_BYTES_MAX:
        raise PeerMisbehaved(f"a relay frame has {len(data)} bytes, at most {FRAME_BYTES_MAX} are allowed")
    try:
        frame = _FRAME_DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # The last two come through msgspec as they are: text that is no UTF-8, an unknown member too deep.
        raise PeerMisbehaved(f"a relay frame cannot be read: {error}") from error
    if msgspec.msgpack.encode(frame) != data:
        raise PeerMisbehaved("a relay frame is not in canonical form (fields, order or number widths)")
    check_order(frame.order)
    if not 0 <= frame.hop_index < len(frame.order.links):
        raise PeerMisbehaved(f"relay {frame.order.relay_id}: hop {frame.hop_index} is not on its route")
    if len(frame.cargo) > CARGO_BYTES_MAX:
        raise PeerMisbehaved(f"relay {frame.order.relay_id}: cargo of at most {CARGO_BYTES_MAX} bytes")
    if frame.bridged and (frame.offset_bytes or frame.tag):
        raise PeerMisbehaved(f"relay {frame.order.relay_id}: a bridged hop has no range and no tag")
    if not 0 <= frame.offset_bytes <= STREAM_BYTES_MAX - hop_bytes(frame.order.key_bytes):
        raise PeerMisbehaved(f"relay {frame.order.relay_id}: no stream has an offset {frame.offset_bytes}")
    return frame


def next_site(data: bytes) -> SiteId:
    """Return the site that a frame is for. PeerMisbehaved if it is no frame."""
    frame = decode_frame(data)
    return SiteId(frame.order.route[frame.hop_index + 1])


def check_order(order: RelayOrder) -> None:
    """Refuse an order that no node may act on.

    A name with a slash could make one link's stream look like another's (``core.identifiers.link_stream``).
    """
    if not RELAY_ID.fullmatch(order.relay_id):
        raise PeerMisbehaved("a relay ID has 32 hexadecimal digits in lower case")
    names = order.route + order.links
    for sound, expected in (
        (1 <= len(order.links) <= HOPS_MAX, f"1 to {HOPS_MAX} links, not {len(order.links)}"),
        (len(order.route) == len(order.links) + 1, f"one node more than links, not {len(order.route)}"),
        (len(set(order.route)) == len(order.route), "a route that visits no node twice"),
        ("" not in names, "names that are not empty"),
        ("/" not in "".join(names), "names without a slash"),
        (1 <= order.key_bytes <= KEY_BYTES_MAX, f"1 to {KEY_BYTES_MAX} key bytes, not {order.key_bytes}"),
        (len(order.purpose) <= PURPOSE_BYTES_MAX, f"a purpose of at most {PURPOSE_BYTES_MAX} bytes"),
        (order.bridged == tuple(sorted({*order.bridged})), "bridged hops in order, each once"),
        (all(0 <= at < len(order.links) for at in order.bridged), "bridged hops that are on the route"),
        (order.carried or 0 not in order.bridged, "link key on the first hop, which is the payload"),
        (bool(order.bridged) == (order.form is RelayForm.COMPUTATIONAL), "a form that says what is bridged"),
    ):
        if not sound:
            raise PeerMisbehaved(f"relay {order.relay_id}: expected {expected}")


_FRAME_DECODER = msgspec.msgpack.Decoder(RelayFrame)
