"""The target's steps of an end-to-end key: it keeps shares until they are enough, and says so."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from openqci.core.errors import PeerMisbehaved
from openqci.core.identifiers import KmeId, StreamId
from openqci.core.keys import wiped
from openqci.core.provenance import KeyPath
from openqci.crypto.hybrid import KemPrivateKey
from openqci.crypto.sharing import joined
from openqci.delivery.end_to_end.order import DEADLINE_S_MAX, EndToEndOrder, decode_order, purpose
from openqci.delivery.end_to_end.payload import batch_by, masked, opened, tag_text, word_of
from openqci.delivery.pair_stock import batch_of, destroy_batch, store_batch, tag_was_used
from openqci.keystore.ports import KmeView
from openqci.relay import RelayArrival, RelayOrder

DUE_KIND, DUE_RELAY_KIND = "end-to-end-due", "end-to-end-due-relay"
VOIDED_KIND = "end-to-end-voided"

LATE_S = 600.0
"""How long behind an order's deadline a target still waits for the void of what never became whole."""

CONFIRMED_KEPT_S = 30 * 86400.0
"""How long a target remembers a batch of which it has heard neither that it was released nor withdrawn."""

DUE_MAX = 4096
"""Batches that one origin may have under way to one target: a peer cannot fill our store with shares (I9)."""

KemKeys = Callable[[bytes], KemPrivateKey | None]
"""Gives the private key of a name, or None if this KME has none of it (any more)."""


class ArrivedShare(msgspec.Struct, frozen=True):
    """A share at the target: the relay that brought it, and where its bytes lie in its stream."""

    number: int
    relay: RelayOrder
    offset_bytes: int


class DueKey(msgspec.Struct, frozen=True):
    """A batch that waits for shares, or for its origin, at the target.

    ``word`` is what the origin was told, once there were shares enough. A batch that was ``withdrawn`` stays
    known, so that no late share begins it anew.
    """

    order_sha256: bytes
    batch_tag: int
    origin_kme: str
    target_kme: str
    deadline_s: float
    shares: tuple[ArrivedShare, ...] = ()
    word: bytes = b""
    withdrawn: bool = False


@dataclass(frozen=True)
class ShareKept:
    """A share has arrived. ``words`` go back to the origin, each by the relay that it is beside."""

    words: tuple[tuple[RelayOrder, bytes], ...] = ()


@dataclass(frozen=True)
class ShareDeclined:
    """A share has arrived that the target can do nothing with; it is wiped. The origin must hear why.

    ``forged`` tells what no honest way brings from what is too late or not known here.
    """

    reason: str
    forged: bool = False


def share_arrived(
    view: KmeView, arrival: RelayArrival, kem_keys: KemKeys, now_s: float
) -> ShareKept | ShareDeclined:
    """Keep a share, at the target; with the last that is needed store the batch. Wipes the payload.

    Whatever is wrong with it is a value, not an exception: its pads are spent, and that must be kept.
    """
    with arrival.payload:
        try:
            order = decode_order(arrival.cargo)
            number = _number_of(view, arrival, order)
            due = _due_for(view, order, arrival, now_s)
        except PeerMisbehaved as error:
            return ShareDeclined(str(error), forged=True)
        if isinstance(due, ShareDeclined):
            return due
        if any(share.number == number for share in due.shares):
            return ShareKept(((arrival.order, due.word),) if due.word else ())
        if due.word:
            # The batch was joined without this share.
            _put_share(view, due, ArrivedShare(number, arrival.order, 0))
            return ShareKept(((arrival.order, due.word),))
        kem = kem_keys(order.kem.key_id) if order.kem else None
        if order.kem and kem is None:
            return ShareDeclined(f"{view.kme} has no ML-KEM key {order.kem.key_id.hex()[:16]}")
        offset = view.append(_share_stream(due, number), arrival.payload).offset_bytes
    due = _put_share(view, due, ArrivedShare(number, arrival.order, offset))
    if len(due.shares) < order.threshold:
        return ShareKept()
    word = _complete(view, order, arrival.cargo, due, kem)
    _put_due(view, msgspec.structs.replace(due, word=word))
    return ShareKept(tuple((share.relay, word) for share in due.shares))


def withdraw(view: KmeView, relay_id: str, now_s: float) -> bool:
    """Destroy what has come of a batch whose origin has given it up, at the target; tell if there was any.

    That it was withdrawn stays known until the deadline is long over, also if the share is still on its way
    (:func:`forget_overdue`).
    """
    due = _due_of_relay(view, relay_id)
    if due is None:
        view.put_record(VOIDED_KIND, relay_id, repr(now_s).encode())
        return False
    if due.withdrawn:
        return False
    _destroy_due(view, due)
    _put_due(view, msgspec.structs.replace(due, withdrawn=True, word=b""))
    return True


def release(view: KmeView, origin_kme: KmeId, batch_tag: int) -> bool:
    """Forget what was due, at the target, now that the master's stock has the batch too."""
    body = view.record(DUE_KIND, f"{origin_kme}/{tag_text(batch_tag)}")
    if body is None:
        return False
    due = _decode_due(body)
    if not due.word:
        raise PeerMisbehaved(f"{origin_kme} released batch {tag_text(batch_tag)}, which was not confirmed")
    _forget_due(view, due)
    return True


def release_relay(view: KmeView, relay_id: str) -> bool:
    """Forget what was due by one of its relays, at the target; False if that was done before."""
    due = _due_of_relay(view, relay_id)
    if due is None or not due.word:
        return False
    _forget_due(view, due)
    return True


def settle_due(view: KmeView, due: DueKey, *, origin_has_it: bool) -> None:
    """End what is due here, by a caller who knows of both ends: nothing of it is on its way any more.

    Without the origin's batch, shares or batch are destroyed.
    """
    if not (origin_has_it and due.word):
        _destroy_due(view, due)
    _forget_due(view, due)


def due_keys(view: KmeView) -> list[DueKey]:
    """Return the batches that wait for shares or for their origins, at the target."""
    return [_decode_due(body) for _, body in view.records(DUE_KIND)]


def forget_overdue(view: KmeView, now_s: float) -> list[DueKey]:
    """Destroy what still waits for shares long after its deadline, and return it.

    An origin gives up at the deadline and voids; this is for voids that were lost with a node of the way.
    A batch that was confirmed stays in the slave's stock: its master may have it.
    """
    over = [due for due in due_keys(view) if now_s > due.deadline_s + LATE_S]
    for due in over:
        if not due.word:
            _destroy_due(view, due)
        if not due.word or now_s > due.deadline_s + CONFIRMED_KEPT_S:
            _forget_due(view, due)
    for relay_id, voided_s in list(view.records(VOIDED_KIND)):
        if now_s > float(voided_s) + DEADLINE_S_MAX + LATE_S:
            view.drop_record(VOIDED_KIND, relay_id)
    return [due for due in over if not due.word]


def _complete(
    view: KmeView, order: EndToEndOrder, cargo: bytes, due: DueKey, kem: KemPrivateKey | None
) -> bytes:
    """Make the batch of its shares and store it, at the target; return the word for the origin."""
    shares = {
        share.number: view.take(_share_stream(due, share.number), share.offset_bytes, order.payload_bytes)
        for share in due.shares
    }
    with wiped(*shares.values()):
        whole = joined(shares, order.threshold, len(order.paths))
    secret = kem.decapsulate(order.kem.ciphertext) if kem and order.kem else None
    key, id_seed, mac_key = opened(masked(order, whole, secret))
    with key, mac_key:
        word = word_of(order, cargo, key, id_seed, mac_key)
        store_batch(view, batch_by(order, "slave", id_seed, 0.0), key)
    return word


def _number_of(view: KmeView, arrival: RelayArrival, order: EndToEndOrder) -> int:
    """Return which share has arrived.

    PeerMisbehaved unless it is one of this order, for this KME, and came by the path that the order names:
    a node of one path must not be able to bring the share of another.
    """
    relay = arrival.order
    if order.target_kme != view.kme:
        raise PeerMisbehaved(f"relay {relay.relay_id} brought {view.kme} a share for {order.target_kme}")
    for number in order.numbers:
        if relay.purpose == purpose(arrival.cargo, number):
            if relay.payload_bytes != order.payload_bytes:
                raise PeerMisbehaved(f"relay {relay.relay_id} brought a share of {relay.payload_bytes} bytes")
            if not came_by(order.paths[number - 1], relay):
                raise PeerMisbehaved(f"relay {relay.relay_id} did not come by path {number} of its order")
            return number
    raise PeerMisbehaved(f"relay {relay.relay_id} brought an order that it was not for")


def came_by(path: KeyPath, relay: RelayOrder) -> bool:
    """Tell whether a relay is the named path, or its last part: behind a border, where nodes may be unnamed.

    >>> path = KeyPath(("a", "border", "z"), ("a--border", "border--z"), "hop", 0.0)
    >>> came_by(path, RelayOrder("", ("border", "x", "z"), ("border--x", "x--z"), 1))
    True
    >>> came_by(path, RelayOrder("", ("x", "z"), ("x--z",), 1))
    False
    """
    if relay.route[0] == path.route[0]:
        return (relay.route, relay.links) == (path.route, path.links)
    if relay.route[0] not in path.route or relay.route[-1] != path.route[-1]:
        return False
    named = path.route[path.route.index(relay.route[0]) :]
    return [node for node in relay.route if node in named] == list(named)


def _check_apart(due: DueKey, relay: RelayOrder) -> None:
    """Refuse a share that came by a node which brought another: whoever sits there would know both."""
    interior = set(relay.route[1:-1])
    for share in due.shares:
        if share.relay.purpose != relay.purpose and interior & set(share.relay.route[1:-1]):
            raise PeerMisbehaved(f"relay {relay.relay_id} has a node in common with share {share.number}")


def _due_for(
    view: KmeView, order: EndToEndOrder, arrival: RelayArrival, now_s: float
) -> DueKey | ShareDeclined:
    """Return what is due by an order, known or new; or why no share of it is kept."""
    digest = purpose(arrival.cargo, 0)
    body = view.record(DUE_KIND, f"{order.origin_kme}/{tag_text(order.batch_tag)}")
    known = _decode_due(body) if body is not None else None
    if known and known.order_sha256 != digest:
        return ShareDeclined("another order has the same batch tag")
    if (known and known.withdrawn) or view.record(VOIDED_KIND, arrival.order.relay_id) is not None:
        return ShareDeclined("the origin has given the batch up")
    if known:
        _check_apart(known, arrival.order)
    if known and known.word:
        return known
    if now_s > order.deadline_s + LATE_S:
        return ShareDeclined("the deadline of the order is long over")
    if tag_was_used(view, order.batch_tag, "slave"):
        return ShareDeclined("the batch tag was used before")
    if known:
        return known
    if len(list(view.records(DUE_KIND, f"{order.origin_kme}/", DUE_MAX))) == DUE_MAX:
        return ShareDeclined(f"{DUE_MAX} batches of this origin wait already")
    return DueKey(digest, order.batch_tag, order.origin_kme, order.target_kme, order.deadline_s)


def _put_due(view: KmeView, due: DueKey) -> None:
    view.put_record(DUE_KIND, _due_key(due), msgspec.msgpack.encode(due))


def _put_share(view: KmeView, due: DueKey, share: ArrivedShare) -> DueKey:
    """Note a share; return what is due with it."""
    changed = msgspec.structs.replace(due, shares=(*due.shares, share))
    _put_due(view, changed)
    view.put_record(DUE_RELAY_KIND, share.relay.relay_id, _due_key(due).encode())
    return changed


def _due_of_relay(view: KmeView, relay_id: str) -> DueKey | None:
    key = view.record(DUE_RELAY_KIND, relay_id)
    body = view.record(DUE_KIND, key.decode()) if key is not None else None
    return _decode_due(body) if body is not None else None


def _destroy_due(view: KmeView, due: DueKey) -> None:
    """Destroy shares that wait, or the batch that they made."""
    for share in due.shares:
        view.destroy(_share_stream(due, share.number))
    batch = batch_of(view, due.batch_tag, "slave") if due.word else None
    if batch is not None:
        destroy_batch(view, batch)


def _forget_due(view: KmeView, due: DueKey) -> None:
    for share in due.shares:
        view.drop_record(DUE_RELAY_KIND, share.relay.relay_id)
    view.drop_record(DUE_KIND, _due_key(due))


def _decode_due(body: bytes) -> DueKey:
    return msgspec.msgpack.decode(body, type=DueKey)


def _due_key(due: DueKey) -> str:
    return f"{due.origin_kme}/{tag_text(due.batch_tag)}"


def _share_stream(due: DueKey, number: int) -> StreamId:
    return StreamId(f"share/{due.origin_kme}/{tag_text(due.batch_tag)}/{number}")
