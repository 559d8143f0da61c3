"""What travels between the nodes of a relay. Nothing here is secret but the ciphertext's clear text."""

import msgspec

from openqci.core.errors import PeerMisbehaved
from openqci.core.identifiers import LinkId, SiteId
from openqci.core.provenance import Provenance
from openqci.crypto import ONE_TIME_MAC_KEY_BYTES

ID_SEED_BYTES = 16
CONFIRMATION_KEY_BYTES = ONE_TIME_MAC_KEY_BYTES
CONTROL_BYTES = ID_SEED_BYTES + CONFIRMATION_KEY_BYTES
"""Link key that a relay carries beside the end-to-end key: the seed of its key IDs and the key that
authenticates the destination's confirmation."""

HOPS_MAX = 256
KEY_BYTES_MAX = 64 * 1024
FRAME_BYTES_MAX = KEY_BYTES_MAX + 64 * 1024


class RelayOrder(msgspec.Struct, frozen=True):
    """What is to be relayed, by which way: the same at every node, covered by every MAC."""

    relay_id: str
    batch_tag: int
    master_sae: str
    slave_sae: str
    route: tuple[str, ...]
    links: tuple[str, ...]
    key_bytes: int
    provenance: Provenance

    @property
    def payload_bytes(self) -> int:
        """Length of what every hop carries."""
        return self.key_bytes + CONTROL_BYTES

    def hop(self, index: int) -> tuple[LinkId, SiteId, SiteId]:
        """Return (link, sender, receiver) of a hop."""
        return LinkId(self.links[index]), SiteId(self.route[index]), SiteId(self.route[index + 1])


class RelayFrame(msgspec.Struct, frozen=True):
    """One hop's message. On the first hop the ciphertext is empty: the key is the link key itself."""

    order: RelayOrder
    hop_index: int
    offset_bytes: int
    ciphertext: bytes
    tag: bytes


class RelayConfirmation(msgspec.Struct, frozen=True):
    """The destination's word that it holds the key durably."""

    relay_id: str
    tag: bytes


def hop_bytes(key_bytes: int) -> int:
    """Return how much link key one hop spends to relay ``key_bytes`` of end-to-end key."""
    return key_bytes + CONTROL_BYTES + ONE_TIME_MAC_KEY_BYTES


def authenticated_text(order: RelayOrder, hop_index: int, offset_bytes: int, ciphertext: bytes) -> bytes:
    """Return what a hop's MAC covers: the order, who speaks to whom, where the pad lies, and the ciphertext.

    Naming sender and receiver keeps a frame from being reflected; the offset keeps it from being moved to
    another pad (arXiv:2608.07626 finds MACs without role binding in published key management protocols).
    """
    link_id, sender, receiver = order.hop(hop_index)
    return msgspec.msgpack.encode(
        ("openqci relay v1", order, hop_index, link_id, sender, receiver, offset_bytes, ciphertext)
    )


def decode_frame(data: bytes) -> RelayFrame:
    """Read a frame; PeerMisbehaved if it is not one."""
    if len(data) > FRAME_BYTES_MAX:
        raise PeerMisbehaved(f"a relay frame has {len(data)} bytes, at most {FRAME_BYTES_MAX} are allowed")
    try:
        frame = msgspec.msgpack.decode(data, type=RelayFrame)
    except msgspec.DecodeError as error:
        raise PeerMisbehaved(f"a relay frame cannot be read: {error}") from error
    check_order(frame.order)
    if not 0 <= frame.hop_index < len(frame.order.links) or frame.offset_bytes < 0:
        raise PeerMisbehaved(f"relay {frame.order.relay_id}: hop {frame.hop_index} is not on its route")
    return frame


def check_order(order: RelayOrder) -> None:
    """Refuse an order that no node may act on."""
    if not 1 <= len(order.links) <= HOPS_MAX or len(order.route) != len(order.links) + 1:
        raise PeerMisbehaved(
            f"relay {order.relay_id}: {len(order.route)} nodes do not fit {len(order.links)} links"
        )
    if len(set(order.route)) != len(order.route):
        raise PeerMisbehaved(f"relay {order.relay_id}: its route visits a node twice")
    if not 1 <= order.key_bytes <= KEY_BYTES_MAX:
        raise PeerMisbehaved(
            f"relay {order.relay_id}: {order.key_bytes} key bytes, expected 1 to {KEY_BYTES_MAX}"
        )
