"""How the KMEs of a master and of its slaves come to hold the same batch of key, before anybody may have it.

The master's KME takes a range of link key for each slave (a *leg*), keeps the batch to be aside, and puts a
*frame* for each leg into the outbox. On the first leg the range is the key itself; on each further leg it is
the one-time pad of the key. The slave's KME takes the same range, checks the frame's MAC, which covers the
key, stores the batch and answers with a one-time MAC of its own over the same. Only when all legs have
answered does the batch enter the master's stock. So:

* a key that a master can have lies at every slave's KME already, durable and identical (I2, I3, 014-36);
* a multicast batch has all legs or none (014-25);
* no two KMEs ever choose the same link key, since each takes from the stream that it initiates (I1);
* whatever a crash leaves is found in the outboxes: a frame that is sent again gets its first answer again.

A batch that does not come about is destroyed here and *voided* at the legs: a void names the range, so that a
frame still on its way finds nothing to open it with (I4).

What is left of a batch in the end may be too short for a key. The master's KME, which alone knows what was
given out, destroys such a *rest* and tells the legs to do the same: a message that cannot be lost, about
bytes that nobody has or will have.

Layout of a leg's range of n + 80 bytes for a batch of n: ``key or pad (n) | seed of key IDs or pad (16) |
MAC key (32) | confirmation key (32)``.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from openqci.core.errors import KeyUnavailable, PeerMisbehaved, invariant
from openqci.core.identifiers import KmeId, LinkId, SaeId, StreamId
from openqci.core.keys import SecretBytes
from openqci.core.provenance import Provenance
from openqci.crypto import ONE_TIME_MAC_KEY_BYTES, equal, one_time_mac, one_time_pad
from openqci.delivery.key_ids import BATCH_TAG_BITS, ID_SEED_BYTES
from openqci.delivery.pair_stock import (
    KeyBatch,
    aside_stream,
    batch_stream,
    destroy_batch,
    slave_copies,
    store_batch,
    tag_was_drawn,
    tag_was_used,
    take_range,
)
from openqci.keystore import outbox
from openqci.keystore.deposits import link_key_stream, reports_of, stream_end, under_way
from openqci.keystore.ports import KmeView

FRAME_KIND, VOID_KIND, REST_KIND = "batch-frame", "batch-void", "batch-rest"
BATCH_LANE = "batch"
OFFER_KIND = "batch-offer"

CONTROL_BYTES = ID_SEED_BYTES + 2 * ONE_TIME_MAC_KEY_BYTES
"""Link key that a leg spends beside the key: the seed of the key IDs and two MAC keys."""

BATCH_KEY_BYTES_MAX = 128 * 1024
LEGS_MAX = 16

VOIDED, NO_KEY, FORGED, GIVEN_UP = b"voided", b"no such key", b"forged", b"given up"
"""Answers to a frame, void or rest that are no confirmation."""

AGREED_FORM = "direct: link key of one hop"


class Leg(msgspec.Struct, frozen=True):
    """One slave of a batch: its KME and the link key that it gets its copy with."""

    slave_sae: str
    kme_id: str
    link: str
    offset_bytes: int


class BatchOrder(msgspec.Struct, frozen=True):
    """What is agreed: the same at every KME, covered by every MAC."""

    batch_tag: int
    origin_kme: str
    master_sae: str
    legs: tuple[Leg, ...]
    key_bytes: int
    created_s: float
    expires_s: float
    stream_id: str
    first_byte: int
    provenance: Provenance


class BatchFrame(msgspec.Struct, frozen=True):
    """One leg's message. On the first leg the ciphertext is empty: the key is the link key itself."""

    order: BatchOrder
    leg: int
    ciphertext: bytes
    tag: bytes


class BatchVoid(msgspec.Struct, frozen=True):
    """The order that a batch is not to be, for one leg."""

    batch_tag: int
    slave_sae: str
    link: str
    offset_bytes: int
    length_bytes: int


class BatchRest(msgspec.Struct, frozen=True):
    """The order to destroy a range of a batch that is too short for a key, in all copies at one KME."""

    batch_tag: int
    offset_bytes: int
    length_bytes: int


class OpenOffer(msgspec.Struct, frozen=True):
    """A batch that waits for its legs, at the master's KME. The key lies aside in a stream.

    ``expected`` are the confirmations that the legs will give if they hold the same key, made when it was
    taken; a leg that has given its own is ``confirmed``.
    """

    order: BatchOrder
    id_seed: bytes
    expected: tuple[bytes, ...]
    confirmed: tuple[bool, ...]
    collect_s: float


@dataclass(frozen=True)
class BatchWanted:
    """What is to be agreed. ``legs`` names slave, KME and link; the offsets are found when key is taken.

    ``expires_s`` is when the slaves' copies are destroyed; the master's own is destroyed ``collect_s``
    earlier, so that a key that it gives out can still be collected. 0 means never.
    """

    master_sae: SaeId
    legs: tuple[tuple[SaeId, KmeId, LinkId], ...]
    key_bytes: int
    expires_s: float = 0.0
    collect_s: float = 0.0
    stream_id: str = ""
    first_byte: int = 0


@dataclass(frozen=True)
class BatchAgreed:
    """Every leg has the batch: it is in the master's stock now."""

    batch: KeyBatch


@dataclass(frozen=True)
class BatchFailed:
    """A leg has not the batch, which is destroyed here and will be at the other legs.

    ``forged`` tells a wrong MAC, which the security officer must see, from key that is missing.
    """

    order: BatchOrder
    peer: KmeId
    reason: str
    forged: bool


def range_bytes(key_bytes: int) -> int:
    """Return how much link key one leg spends on ``key_bytes``.

    >>> range_bytes(1000)
    1080
    """
    return key_bytes + CONTROL_BYTES


def offer(view: KmeView, wanted: BatchWanted, batch_tag: int, now_s: float) -> BatchOrder:
    """Take link key for every leg, keep the batch aside, put the frames into the outbox.

    ``batch_tag`` is drawn at random by the caller; if this KME has used it before, the next that is new is
    taken. Raises KeyUnavailable if a link has not enough; the transaction undoes what was taken then.
    """
    invariant(0 <= batch_tag < 1 << BATCH_TAG_BITS, "a batch tag has 40 bits")
    invariant(1 <= len(wanted.legs) <= LEGS_MAX, f"a batch has 1 to {LEGS_MAX} legs")
    invariant(0 < wanted.key_bytes <= BATCH_KEY_BYTES_MAX, "a batch has a sensible length")
    while tag_was_drawn(view, batch_tag):
        batch_tag = (batch_tag + 1) % (1 << BATCH_TAG_BITS)
    taken = [_take_leg(view, link, wanted.key_bytes) for _, _, link in wanted.legs]
    order = BatchOrder(
        batch_tag,
        view.kme,
        wanted.master_sae,
        tuple(
            Leg(slave, kme, link, offset)
            for (slave, kme, link), (offset, _) in zip(wanted.legs, taken, strict=True)
        ),
        wanted.key_bytes,
        now_s,
        wanted.expires_s,
        wanted.stream_id,
        wanted.first_byte,
        _provenance(view, wanted, [offset for offset, _ in taken], now_s),
    )
    _put_aside(view, order, wanted.collect_s, [secret for _, secret in taken])
    return order


def accept(view: KmeView, sender: KmeId, message: outbox.Message) -> bytes:
    """Act on a frame, at a slave's KME: store the batch; return the confirmation, or why not."""
    frame = decode_frame(message.body)
    leg = check_frame(view, sender, frame)
    order = frame.order
    link = LinkId(leg.link)
    stream = link_key_stream(link, sender)
    ends = leg.offset_bytes + range_bytes(order.key_bytes)
    if stream_end(view, stream) < ends and under_way(view, link):
        # Key that the sender has accepted, and whose acceptance we have not heard of yet, as its leader.
        raise outbox.NotYet
    try:
        secret = view.take(stream, leg.offset_bytes, range_bytes(order.key_bytes))
    except KeyUnavailable:
        return NO_KEY
    if tag_was_used(view, order.batch_tag, "slave", _copy_of(order, leg)):
        # The master's KME draws another; the range is destroyed all the same.
        secret.wipe()
        return NO_KEY
    with (
        secret,
        secret.take(order.key_bytes + ID_SEED_BYTES) as pad,
        secret.take(ONE_TIME_MAC_KEY_BYTES) as mac_key,
        secret.take(ONE_TIME_MAC_KEY_BYTES) as confirmation_key,
    ):
        payload = pad if not frame.leg else SecretBytes(one_time_pad(frame.ciphertext, pad.reveal()))
        with payload:
            if not equal(_tag(mac_key, "frame", order, frame.leg, frame.ciphertext, payload), frame.tag):
                return FORGED
            answer = _tag(confirmation_key, "confirmation", order, frame.leg, b"", payload)
            _store_copy(view, order, leg, payload)
    return answer


def settle(
    view: KmeView, peer: KmeId, message: outbox.Message, answer: bytes
) -> BatchAgreed | BatchFailed | None:
    """Act on a leg's answer, at the master's KME; None while other legs have not answered."""
    if message.kind in (VOID_KIND, REST_KIND):
        return None
    frame = decode_frame(message.body)
    name = _tag_text(frame.order.batch_tag)
    body = view.record(OFFER_KIND, name)
    if body is None:
        return None  # given up meanwhile; the void is on its way
    open_offer = msgspec.msgpack.decode(body, type=OpenOffer)
    if not equal(answer, open_offer.expected[frame.leg]):
        give_up(view, frame.order, spared=(frame.leg,))
        reason = answer.decode() if answer in (NO_KEY, FORGED, VOIDED) else "a wrong confirmation"
        return BatchFailed(frame.order, peer, reason, forged=answer not in (NO_KEY, VOIDED))
    confirmed = tuple(done or at == frame.leg for at, done in enumerate(open_offer.confirmed))
    if all(confirmed):
        return BatchAgreed(_complete(view, open_offer))
    changed = msgspec.structs.replace(open_offer, confirmed=confirmed)
    view.put_record(OFFER_KIND, name, msgspec.msgpack.encode(changed))
    return None


def void(view: KmeView, sender: KmeId, message: outbox.Message) -> bytes:
    """Act on a void, at a slave's KME: destroy the copy, or the range that would open it."""
    order = msgspec.msgpack.decode(message.body, type=BatchVoid)
    for batch in slave_copies(view, order.batch_tag):
        # Tags stand in key IDs, and another peer may have come upon the same one: each voids its own.
        if batch.slave_sae == order.slave_sae and batch.provenance.route[0] == sender:
            destroy_batch(view, batch)
    _destroy_range(view, link_key_stream(LinkId(order.link), sender), order.offset_bytes, order.length_bytes)
    return VOIDED


def give_up(view: KmeView, order: BatchOrder, spared: Sequence[int] = ()) -> None:
    """Destroy a batch that waits for its legs, and order its legs but the spared ones to do so too."""
    if not view.drop_record(OFFER_KIND, _tag_text(order.batch_tag)):
        return
    view.destroy(_aside(order.batch_tag))
    for number, leg in enumerate(order.legs):
        if number in spared:
            continue
        wanted = BatchVoid(
            order.batch_tag, leg.slave_sae, leg.link, leg.offset_bytes, range_bytes(order.key_bytes)
        )
        outbox.post(view, KmeId(leg.kme_id), BATCH_LANE, VOID_KIND, msgspec.msgpack.encode(wanted))


def give_up_rest(view: KmeView, batch: KeyBatch, offset_bytes: int, length_bytes: int) -> None:
    """Destroy a range of a batch, or piece, in stock at the master's KME, and order its legs to do so too.

    A ``give_up`` of :class:`~openqci.delivery.pair_stock.RestRule`.
    """
    take_range(view, batch, offset_bytes, length_bytes).wipe()
    _tell_rest(view, batch, offset_bytes, length_bytes)


def withdraw(view: KmeView, batch: KeyBatch, gone: KmeId) -> None:
    """Destroy a batch in stock, at the master's KME, of which a leg has gone, and order the others to."""
    for offset, length in view.ranges(batch.stream):
        _tell_rest(view, batch, offset, length, gone)
    destroy_batch(view, batch)


def rest(view: KmeView, sender: KmeId, message: outbox.Message) -> bytes:
    """Act on the order to destroy a rest, at a slave's KME."""
    try:
        order = msgspec.msgpack.decode(message.body, type=BatchRest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerMisbehaved(f"a rest cannot be read: {error}") from None
    if not (order.offset_bytes >= 0 < order.length_bytes <= BATCH_KEY_BYTES_MAX):
        raise PeerMisbehaved("a rest is wrong: expected a range of a batch")
    for batch in slave_copies(view, order.batch_tag):
        if batch.provenance.route[0] == sender:
            with suppress(KeyUnavailable):  # an application here has fetched all else: it was spent
                take_range(view, batch, order.offset_bytes, order.length_bytes).wipe()
    return GIVEN_UP


def open_offers(view: KmeView) -> list[BatchOrder]:
    """Return the batches that wait for their legs."""
    bodies = [body for _, body in view.records(OFFER_KIND)]
    return [msgspec.msgpack.decode(body, type=OpenOffer).order for body in bodies]


def decode_frame(body: bytes) -> BatchFrame:
    """Read a frame; PeerMisbehaved if it is none or makes no sense."""
    try:
        frame = msgspec.msgpack.decode(body, type=BatchFrame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerMisbehaved(f"a batch frame cannot be read: {error}") from None
    order = frame.order
    for sound, expected in (
        (1 <= len(order.legs) <= LEGS_MAX, f"1 to {LEGS_MAX} legs"),
        (0 <= frame.leg < len(order.legs), "a leg of the order"),
        (0 <= order.batch_tag < 1 << BATCH_TAG_BITS, f"a batch tag of {BATCH_TAG_BITS} bits"),
        (0 < order.key_bytes <= BATCH_KEY_BYTES_MAX, f"1 to {BATCH_KEY_BYTES_MAX} key bytes"),
        (all(leg.offset_bytes >= 0 for leg in order.legs), "offsets of zero or more"),
        (len(frame.ciphertext) == (_payload_bytes(order) if frame.leg else 0), "a whole ciphertext"),
        (0 <= order.first_byte < 1 << 62, "a place in a stream"),
    ):
        if not sound:
            raise PeerMisbehaved(f"a batch frame is wrong: expected {expected}")
    return frame


def check_frame(view: KmeView, sender: KmeId, frame: BatchFrame) -> Leg:
    """Return the leg that a frame is for; PeerMisbehaved unless it is ours and from the order's origin."""
    leg = frame.order.legs[frame.leg]
    if leg.kme_id != view.kme:
        raise PeerMisbehaved(f"{sender} sent a batch frame for {leg.kme_id} to {view.kme}")
    if frame.order.origin_kme != sender:
        raise PeerMisbehaved(f"{sender} sent a batch frame of {frame.order.origin_kme}")
    return leg


def _tell_rest(
    view: KmeView, batch: KeyBatch, offset_bytes: int, length_bytes: int, gone: KmeId | None = None
) -> None:
    order = BatchRest(batch.batch_tag, batch.base_bytes + offset_bytes, length_bytes)
    for kme in batch.legs:
        if kme != gone:
            outbox.post(view, kme, BATCH_LANE, REST_KIND, msgspec.msgpack.encode(order))


def _take_leg(view: KmeView, link: LinkId, key_bytes: int) -> tuple[int, SecretBytes]:
    return view.take_next(link_key_stream(link, view.kme), range_bytes(key_bytes))


def _put_aside(view: KmeView, order: BatchOrder, collect_s: float, ranges: Sequence[SecretBytes]) -> None:
    """Keep the key aside and post a frame for each leg. Wipes the ranges."""
    expected: list[bytes] = []
    with ranges[0].take(order.key_bytes + ID_SEED_BYTES) as payload:
        for number, secret in enumerate(ranges):
            frame, confirmation = _frame_of(order, number, payload, secret)
            expected.append(confirmation)
            kme = KmeId(order.legs[number].kme_id)
            outbox.post(view, kme, BATCH_LANE, FRAME_KIND, msgspec.msgpack.encode(frame))
        with payload.take(order.key_bytes) as key, payload as id_seed:
            view.append(_aside(order.batch_tag), key)
            open_offer = OpenOffer(
                order, bytes(id_seed.reveal()), tuple(expected), (False,) * len(expected), collect_s
            )
    view.put_record(OFFER_KIND, _tag_text(order.batch_tag), msgspec.msgpack.encode(open_offer))


def _frame_of(
    order: BatchOrder, leg: int, payload: SecretBytes, secret: SecretBytes
) -> tuple[BatchFrame, bytes]:
    """Return a leg's frame and the confirmation that it must bring. Wipes the leg's range.

    The first leg's range has had its payload taken off, since it is the payload.
    """
    with secret:
        ciphertext = b""
        if leg:
            with secret.take(len(payload)) as pad:
                ciphertext = bytes(one_time_pad(payload.reveal(), pad.reveal()))
        with secret.take(ONE_TIME_MAC_KEY_BYTES) as mac_key:
            tag = _tag(mac_key, "frame", order, leg, ciphertext, payload)
        confirmation = _tag(secret, "confirmation", order, leg, b"", payload)
    return BatchFrame(order, leg, ciphertext, tag), confirmation


def _complete(view: KmeView, open_offer: OpenOffer) -> KeyBatch:
    """Move a batch that all legs have confirmed into the master's stock."""
    order = open_offer.order
    first, *others = (SaeId(leg.slave_sae) for leg in order.legs)
    batch = KeyBatch(
        order.batch_tag,
        "master",
        SaeId(order.master_sae),
        first,
        batch_stream(order.batch_tag, "master"),
        order.key_bytes,
        open_offer.id_seed,
        order.provenance,
        order.created_s,
        tuple(others),
        max(order.expires_s - open_offer.collect_s, order.created_s) if order.expires_s else 0.0,
        order.stream_id,
        order.first_byte,
        tuple(dict.fromkeys(KmeId(leg.kme_id) for leg in order.legs)),
    )
    with view.take(_aside(order.batch_tag), 0, order.key_bytes) as key:
        store_batch(view, batch, key)
    view.drop_record(OFFER_KIND, _tag_text(order.batch_tag))
    return batch


def _store_copy(view: KmeView, order: BatchOrder, leg: Leg, payload: SecretBytes) -> None:
    """Store a slave's copy of a batch."""
    slaves = [SaeId(each.slave_sae) for each in order.legs]
    slave = SaeId(leg.slave_sae)
    with payload.take(order.key_bytes) as key, payload as id_seed:
        batch = KeyBatch(
            order.batch_tag,
            "slave",
            SaeId(order.master_sae),
            slave,
            batch_stream(order.batch_tag, "slave", _copy_of(order, leg)),
            order.key_bytes,
            bytes(id_seed.reveal()),
            order.provenance,
            order.created_s,
            tuple(each for each in slaves if each != slave),
            order.expires_s,
            order.stream_id,
            order.first_byte,
        )
        store_batch(view, batch, key)


def _copy_of(order: BatchOrder, leg: Leg) -> SaeId | None:
    """Return whose copy a leg's stream is named after, if there are several."""
    return SaeId(leg.slave_sae) if len(order.legs) > 1 else None


def _provenance(view: KmeView, wanted: BatchWanted, offsets: Sequence[int], now_s: float) -> Provenance:
    """Return what is known of the making of a batch; epsilons add up over the deposits that it touches."""
    length_bytes = range_bytes(wanted.key_bytes)
    reports = [
        report
        for (_, _, link), offset in zip(wanted.legs, offsets, strict=True)
        for report in reports_of(view, link, view.kme, offset, length_bytes)
    ]
    return Provenance(
        route=(view.kme, *dict.fromkeys(kme for _, kme, _ in wanted.legs)),
        links=tuple(dict.fromkeys(link for _, _, link in wanted.legs)),
        hops=1,
        protocols=tuple(sorted({report.protocol for report in reports})),
        proofs=tuple(sorted({report.proof for report in reports})),
        epsilon=sum((report.epsilon for report in reports), 0.0),
        form=AGREED_FORM,
        simulated=any(report.simulated for report in reports),
        made_at_s=now_s,
    )


def _destroy_range(view: KmeView, stream: StreamId, offset_bytes: int, length_bytes: int) -> None:
    try:
        view.take(stream, offset_bytes, length_bytes).wipe()
    except KeyUnavailable:
        return  # spent with the copy that was stored, which is destroyed too


def _tag(
    key: SecretBytes, purpose: str, order: BatchOrder, leg: int, ciphertext: bytes, payload: SecretBytes
) -> bytes:
    """Return a one-time MAC over the whole order, both ends' roles, and the payload that both should hold."""
    text = msgspec.msgpack.encode((f"openqci batch {purpose} v1", order, leg, ciphertext))
    return one_time_mac(key.reveal(), text, payload.reveal())


def _payload_bytes(order: BatchOrder) -> int:
    return order.key_bytes + ID_SEED_BYTES


def _tag_text(batch_tag: int) -> str:
    return f"{batch_tag:010x}"


def _aside(batch_tag: int) -> StreamId:
    return aside_stream("offer", batch_tag)
