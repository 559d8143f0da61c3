"""XOR relay: nodes between two ends publish XORs of neighbouring link keys, and so join the ends by a link.

A node that has key with both its neighbours publishes the XOR of a range of each: it tells nothing of either,
since each is uniform and used for nothing else. Whoever holds the one range computes the other. Along a row
v0, v1, ... vn, the nodes v1 to vn-1 publish; then both ends hold the range of the first link, v0 because it
is its own, vn by all XORs and its own. Both put it into the stream of a *virtual link*, whose key serves as
any link's does: relays go over it with pads and MACs (:mod:`openqci.relay.node`), stocks are made of it.

What this is for: the first node takes both its ranges from streams that *it* begins to spend. So it needs
nobody to start: a satellite publishes when it has passed the second of two stations, whether anybody waits
there or not; XORs lie at a central node, which can read nothing in them, until they are asked for; and the
ends come when they come. Every node of the row could compute the key: it is a trusted node as in any form,
and the provenance of the key names it (``KeyPath.via``).

===========  ===========================================  ====================================================
node         takes                                        gives
===========  ===========================================  ====================================================
v1           of both links, from streams it initiates     its statement, for v0 and v2 (:func:`state`)
v2 to vn-1   the range that the statement before names,   all statements with its own, for the next
             and one of the next link                     (:func:`state`)
v0           the range that the first statement names     virtual link key (:func:`hold_first`)
vn           the range that the last statement names      virtual link key (:func:`hold_last`)
===========  ===========================================  ====================================================

Each range ends with the key of a one-time MAC for the node at the other end of its link; it covers all
statements so far and the range itself. So a node vouches for what it has checked, as in a relay from hop to
hop, and an outsider can change nothing. A wrong MAC destroys the range that was named.

Form: "case 2" of the relay methods of ITU-T Y.3803, and with a node that collects, its centralised form.
"""

import msgspec

from openqci.core.errors import PeerMisbehaved, invariant
from openqci.core.identifiers import LinkId, StreamId
from openqci.core.keys import SecretBytes, StoredRange
from openqci.crypto import ONE_TIME_MAC_KEY_BYTES, equal, one_time_mac, one_time_pad
from openqci.keystore.ports import KmeView
from openqci.relay.accounts import SpentRange, note_spent
from openqci.relay.messages import HOPS_MAX, KEY_BYTES_MAX, RELAY_ID, STREAM_BYTES_MAX
from openqci.relay.node import DESTROYED, SITE_ROOMS, HopRooms, RelayRefused

XOR = "xor"
VIRTUAL_PREFIX = "xor-"
STATEMENTS_BYTES_MAX = 1 << 20


class XorOrder(msgspec.Struct, frozen=True):
    """Which nodes join which two ends: ``route`` is n + 1 nodes, ``links`` the n links between them.

    ``initiator`` is the end that may begin to spend what comes of it.
    """

    xor_id: str
    route: tuple[str, ...]
    links: tuple[str, ...]
    key_bytes: int
    initiator: str

    @property
    def virtual_link(self) -> LinkId:
        """Return the name of the link between the two ends that exists in keys only."""
        return LinkId(f"{VIRTUAL_PREFIX}{self.xor_id}")


class Statement(msgspec.Struct, frozen=True):
    """What one node publishes: where its two ranges lie, and their XOR.

    ``left_tag`` is for the first node of the row, and empty in all but the first statement.
    """

    left_offset_bytes: int
    right_offset_bytes: int
    mixed: bytes
    left_tag: bytes
    right_tag: bytes


class Statements(msgspec.Struct, frozen=True):
    """An order with what the nodes v1, v2, ... have published so far. Public."""

    order: XorOrder
    statements: tuple[Statement, ...] = ()


class VirtualRooms:
    """Rooms whose routes may go over virtual links, beside those of a node's own links."""

    def __init__(self, rooms: HopRooms = SITE_ROOMS) -> None:
        self._rooms = rooms

    def is_here(self, view: KmeView, name: str) -> bool:
        """Tell whether a name of a route is that of the node whose rooms these are."""
        return self._rooms.is_here(view, name)

    def stream(self, view: KmeView, link_id: LinkId, sender: str, receiver: str) -> StreamId:
        """Return the stream that ``sender`` begins to spend."""
        if link_id.startswith(VIRTUAL_PREFIX):
            return virtual_stream(link_id, sender)
        return self._rooms.stream(view, link_id, sender, receiver)


def virtual_stream(link_id: LinkId, initiator: str) -> StreamId:
    """Return the stream of a virtual link."""
    return StreamId(f"link/{link_id}/{initiator}")


def range_bytes(key_bytes: int) -> int:
    """Return how much link key each hop spends."""
    return key_bytes + ONE_TIME_MAC_KEY_BYTES


def state(view: KmeView, data: bytes, rooms: HopRooms = SITE_ROOMS) -> bytes | RelayRefused:
    """Publish the XOR of a range of each of this node's two links; return all statements with its own.

    Raises PeerMisbehaved if it is not this node's turn, KeyUnavailable if there is not key enough, or the
    range that is named is gone. No key was touched then; the transaction undoes what was taken.
    """
    said = decode(data)
    order, at = said.order, len(said.statements) + 1
    if at >= len(order.links):
        raise PeerMisbehaved(f"XOR relay {order.xor_id} has all its statements")
    check_here(view, order, at, rooms)
    length_bytes = range_bytes(order.key_bytes)
    if at == 1:
        stream = rooms.stream(view, LinkId(order.links[0]), order.route[1], order.route[0])
        left_offset, left = view.take_next(stream, length_bytes)
        note_spent(view, stream, SpentRange(order.xor_id, XOR, left_offset, order.key_bytes))
    else:
        left_offset = said.statements[-1].right_offset_bytes
        checked = take_named(view, said, at, rooms)
        if isinstance(checked, RelayRefused):
            return checked
        left = checked
    stream = rooms.stream(view, LinkId(order.links[at]), order.route[at], order.route[at + 1])
    right_offset, right = view.take_next(stream, length_bytes)
    note_spent(view, stream, SpentRange(order.xor_id, XOR, right_offset, order.key_bytes))
    with left, right, left.take(order.key_bytes) as one, right.take(order.key_bytes) as other:
        mixed = bytes(one_time_pad(one.reveal(), other.reveal()))
        bare = Statement(left_offset, right_offset, mixed, b"", b"")
        if at == 1:
            bare = msgspec.structs.replace(bare, left_tag=tag_of(left, said, bare, order.route[0], one))
        full = msgspec.structs.replace(bare, right_tag=tag_of(right, said, bare, order.route[at + 1], other))
    return encode(Statements(order, (*said.statements, full)))


def hold_first(view: KmeView, data: bytes, rooms: HopRooms = SITE_ROOMS) -> StoredRange | RelayRefused:
    """Put the first link's range into the virtual link's stream, at the first node of the row.

    Any statements that begin with the first will do. Raises as :func:`state` does.
    """
    said = decode(data)
    order = said.order
    if not said.statements:
        raise PeerMisbehaved(f"XOR relay {order.xor_id} has no statement yet")
    check_here(view, order, 0, rooms)
    first = said.statements[0]
    stream = rooms.stream(view, LinkId(order.links[0]), order.route[1], order.route[0])
    secret = view.take(stream, first.left_offset_bytes, range_bytes(order.key_bytes))
    with secret, secret.take(order.key_bytes) as key:
        bare = msgspec.structs.replace(first, left_tag=b"", right_tag=b"")
        right = tag_of(secret, Statements(order), bare, order.route[0], key)
        if not equal(right, first.left_tag):
            return refused(view, order, 0, stream, first.left_offset_bytes)
        note_spent(view, stream, SpentRange(order.xor_id, XOR, first.left_offset_bytes, order.key_bytes))
        return put(view, order, key)


def hold_last(view: KmeView, data: bytes, rooms: HopRooms = SITE_ROOMS) -> StoredRange | RelayRefused:
    """Put what the statements and the last link's range make into the virtual link's stream, at the last.

    Raises as :func:`state` does.
    """
    said = decode(data)
    order, at = said.order, len(said.statements) + 1
    if at != len(order.links):
        raise PeerMisbehaved(f"XOR relay {order.xor_id} has {at - 1} of {len(order.links) - 1} statements")
    check_here(view, order, at, rooms)
    secret = take_named(view, said, at, rooms)
    if isinstance(secret, RelayRefused):
        return secret
    with secret:
        key = secret.take(order.key_bytes)
        for statement in said.statements:
            with key as before:
                key = SecretBytes(one_time_pad(before.reveal(), statement.mixed))
        with key:
            return put(view, order, key)


def take_named(view: KmeView, said: Statements, at: int, rooms: HopRooms) -> SecretBytes | RelayRefused:
    """Take the range that the last statement names, at its right neighbour, and check its MAC."""
    order, last = said.order, said.statements[-1]
    earlier = Statements(order, said.statements[:-1])
    stream = rooms.stream(view, LinkId(order.links[at - 1]), order.route[at - 1], order.route[at])
    secret = view.take(stream, last.right_offset_bytes, range_bytes(order.key_bytes))
    whole = SecretBytes(secret.reveal())
    with secret, secret.take(order.key_bytes) as key:
        genuine = tag_of(secret, earlier, msgspec.structs.replace(last, right_tag=b""), order.route[at], key)
    if not equal(genuine, last.right_tag):
        whole.wipe()
        return refused(view, order, at, stream, last.right_offset_bytes)
    note_spent(view, stream, SpentRange(order.xor_id, XOR, last.right_offset_bytes, order.key_bytes))
    return whole


def tag_of(
    mac_key: SecretBytes, earlier: Statements, bare: Statement, reader: str, secret: SecretBytes
) -> bytes:
    """Return the MAC of a statement for one of its two neighbours, over all that was said before it."""
    text = msgspec.msgpack.encode(("openqci xor relay v1", earlier, bare, reader))
    return one_time_mac(mac_key.reveal(), text, secret.reveal())


def refused(view: KmeView, order: XorOrder, at: int, stream: StreamId, offset_bytes: int) -> RelayRefused:
    """Return the refusal of a statement whose range has been taken, and so destroyed, at its reader."""
    note_spent(view, stream, SpentRange(order.xor_id, DESTROYED, offset_bytes, order.key_bytes))
    destroyed = StoredRange(stream, offset_bytes, range_bytes(order.key_bytes))
    reason = "the MAC of a statement is wrong: a forgery, or the two ends of the link hold different key"
    return RelayRefused(order.xor_id, order.route[at], reason, destroyed, forged=True)


def put(view: KmeView, order: XorOrder, key: SecretBytes) -> StoredRange:
    stored = view.append(virtual_stream(order.virtual_link, order.initiator), key)
    invariant(stored.offset_bytes == 0, "each XOR relay has a virtual link of its own")
    return stored


def encode(said: Statements) -> bytes:
    """Return the one encoding of statements."""
    return msgspec.msgpack.encode(said)


def decode(data: bytes) -> Statements:
    """Read statements; PeerMisbehaved if they are none, not in their one encoding, or make no sense."""
    if len(data) > STATEMENTS_BYTES_MAX:
        raise PeerMisbehaved(f"statements have {len(data)} bytes, at most {STATEMENTS_BYTES_MAX} are allowed")
    try:
        said = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerMisbehaved(f"statements of an XOR relay cannot be read: {error}") from None
    if encode(said) != data:
        raise PeerMisbehaved("statements are not in canonical form (fields, order or number widths)")
    check(said)
    return said


def check(said: Statements) -> None:
    """Refuse statements that no node may act on."""
    order = said.order
    names = (*order.route, *order.links)
    highest = STREAM_BYTES_MAX - range_bytes(order.key_bytes)
    for sound, expected in (
        (RELAY_ID.fullmatch(order.xor_id) is not None, "an ID of 32 hexadecimal digits"),
        (2 <= len(order.links) <= HOPS_MAX, f"2 to {HOPS_MAX} links"),
        (len(order.route) == len(order.links) + 1, "one node more than links"),
        (len(set(order.route)) == len(order.route), "a route that visits no node twice"),
        ("" not in names and "/" not in "".join(names), "names that are not empty, without a slash"),
        (1 <= order.key_bytes <= KEY_BYTES_MAX, f"1 to {KEY_BYTES_MAX} key bytes"),
        (order.initiator in (order.route[:1] + order.route[-1:]), "one of the two ends as initiator"),
        (len(said.statements) < len(order.links), "a statement for each node between the ends at most"),
        (all(len(each.mixed) == order.key_bytes for each in said.statements), "XORs of the key's length"),
        (
            all(
                0 <= offset <= highest
                for each in said.statements
                for offset in (each.left_offset_bytes, each.right_offset_bytes)
            ),
            "offsets that a stream has",
        ),
        (
            all(
                each.left_offset_bytes == before.right_offset_bytes and not each.left_tag
                for before, each in zip(said.statements, said.statements[1:], strict=False)
            ),
            "statements that follow on each other",
        ),
    ):
        if not sound:
            raise PeerMisbehaved(f"XOR relay {order.xor_id[:32]}: expected {expected}")


def check_here(view: KmeView, order: XorOrder, at: int, rooms: HopRooms) -> None:
    """Refuse to act for another node than the one whose rooms these are."""
    if not rooms.is_here(view, order.route[at]):
        raise PeerMisbehaved(f"XOR relay {order.xor_id}: this step is {order.route[at]}'s, not {view.kme}'s")


_DECODER = msgspec.msgpack.Decoder(Statements)
