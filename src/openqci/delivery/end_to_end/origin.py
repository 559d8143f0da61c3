"""The origin's steps of an end-to-end key: it decides, for the whole batch, once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import msgspec

from openqci.core.errors import KeyUnavailable, invariant
from openqci.core.identifiers import KmeId, SaeId, StreamId
from openqci.core.keys import SecretBytes, wiped
from openqci.core.provenance import KeyPath
from openqci.crypto import equal
from openqci.crypto.hybrid import KemPublicKey, encapsulate
from openqci.crypto.sharing import further_shares, joined
from openqci.delivery.end_to_end.order import (
    EndToEndOrder,
    HybridPolicy,
    KemPart,
    check_order,
    encode_order,
    share_order,
)
from openqci.delivery.end_to_end.payload import batch_by, masked, opened, tag_text, word_of
from openqci.delivery.key_ids import BATCH_TAG_BITS
from openqci.delivery.pair_stock import KeyBatch, aside_stream, store_batch, tag_was_drawn
from openqci.keystore.ports import KmeView
from openqci.relay import RelayOrder
from openqci.relay import begin as begin_relay
from openqci.relay.node import NO_BRIDGES, SITE_ROOMS, Bridges, HopRooms

Depart = Callable[[RelayOrder, SecretBytes | None, bytes], tuple[bytes, SecretBytes]]
"""Begins the relay of a share, given its payload if it is a carried one, and its cargo: returns the first
frame and the payload, as :func:`openqci.relay.begin` does."""

OPEN_KIND, OPEN_RELAY_KIND = "end-to-end-open", "end-to-end-open-relay"


@dataclass(frozen=True)
class KeyWanted:
    """What is to be agreed, and by which paths. The first ``threshold`` paths are those with key to spend.

    The master's copy is destroyed ``collect_s`` before ``expires_s``, so that a key that it gives out can
    still be collected; 0 for ``expires_s`` means never.
    """

    origin_kme: KmeId
    target_kme: KmeId
    master_sae: SaeId
    slave_sae: SaeId
    key_bytes: int
    paths: tuple[KeyPath, ...]
    threshold: int
    policy: HybridPolicy
    deadline_s: float
    protocols: tuple[str, ...]
    proofs: tuple[str, ...]
    simulated: bool
    domains: tuple[str, ...] = ()
    expires_s: float = 0.0
    collect_s: float = 0.0
    stream_id: str = ""
    first_byte: int = 0


@dataclass(frozen=True)
class KeyBegun:
    """A batch under way: its order, and for each share the relay and the first frame to send."""

    order: EndToEndOrder
    relays: tuple[tuple[RelayOrder, bytes], ...]


class OpenKey(msgspec.Struct, frozen=True):
    """A batch that waits for its target's word, at the origin. The key lies aside in a stream."""

    order: EndToEndOrder
    id_seed: bytes
    expected: bytes
    collect_s: float
    failed: tuple[int, ...] = ()


@dataclass(frozen=True)
class BatchReady:
    """The target holds the batch, and so does the master's stock now: tell the target so."""

    order: EndToEndOrder
    batch: KeyBatch


@dataclass(frozen=True)
class BatchGivenUp:
    """No key comes of an order. What was aside is destroyed; ``voids`` are the relays to void.

    ``forged`` tells a wrong MAC, which the security officer must see, from key that is missing.
    """

    order: EndToEndOrder
    reason: str
    forged: bool
    voids: tuple[RelayOrder, ...]


def begin(
    view: KmeView,
    wanted: KeyWanted,
    batch_tag: int,
    kem: KemPublicKey | None,
    now_s: float,
    rooms: HopRooms = SITE_ROOMS,
    bridges: Bridges = NO_BRIDGES,
    depart: Depart | None = None,
) -> KeyBegun:
    """Spend link key for every share, keep the batch aside, return the relays to start.

    ``batch_tag`` is drawn at random by the caller; if this KME has used it before, the next that is new is
    taken. ``kem`` is the target's encapsulation key, if it has one. ``depart`` begins the relay of a share
    where its way has borders; without it every way is one relay from here. Raises KeyUnavailable if a first
    hop has not enough key, or the policy demands an encapsulation key: the transaction undoes what was taken
    then.
    """
    if wanted.policy is HybridPolicy.BOTH and kem is None:
        raise KeyUnavailable(
            f"no ML-KEM key of {wanted.target_kme} is known, and the policy demands both",
            wanted_bytes=wanted.key_bytes,
            available_bytes=0,
        )
    invariant(0 <= batch_tag < 1 << BATCH_TAG_BITS, "a batch tag has 40 bits")
    while tag_was_drawn(view, batch_tag):
        batch_tag = (batch_tag + 1) % (1 << BATCH_TAG_BITS)
    part, secret = None, None
    if kem is not None and wanted.policy is not HybridPolicy.QUANTUM:
        ciphertext, secret = encapsulate(kem)
        part = KemPart(kem.algorithm, kem.key_id, ciphertext)
    order = _order(wanted, batch_tag, part, now_s)
    check_order(order)
    cargo = encode_order(order)
    depart = depart or partial(begin_relay, view, rooms=rooms, bridges=bridges)
    relays, payload = _spend(order, cargo, depart)
    _put_aside(view, order, cargo, wanted.collect_s, masked(order, payload, secret))
    for relay, _ in relays:
        view.put_record(OPEN_RELAY_KIND, relay.relay_id, tag_text(batch_tag).encode())
    return KeyBegun(order, tuple(relays))


def share_confirmed(view: KmeView, relay_id: str, word: bytes) -> BatchReady | BatchGivenUp | None:
    """Act on the target's word, at the origin; None if it is about nothing that waits."""
    found = _open_of_relay(view, relay_id)
    if found is None:
        return None
    if not equal(word, found.expected):
        return _give_up(view, found, "the confirmation is not the target's", forged=True)
    _forget_open(view, found)
    order = found.order
    batch = batch_by(order, "master", found.id_seed, found.collect_s)
    with view.take(_aside(order.batch_tag), 0, order.key_bytes) as key:
        store_batch(view, batch, key)
    return BatchReady(order, batch)


def share_failed(view: KmeView, relay_id: str, reason: str, *, forged: bool) -> BatchGivenUp | None:
    """Note that a share will not arrive, at the origin; the batch is given up if too few are left.

    None if it can still come about, or is none that waits.
    """
    found = _open_of_relay(view, relay_id)
    if found is None:
        return None
    cargo = encode_order(found.order)
    numbers = {share_order(found.order, cargo, number).relay_id: number for number in found.order.numbers}
    failed = tuple(sorted({*found.failed, numbers[relay_id]}))
    if len(found.order.paths) - len(failed) < found.order.threshold:
        return _give_up(view, found, reason, forged)
    changed = msgspec.structs.replace(found, failed=failed)
    view.put_record(OPEN_KIND, tag_text(found.order.batch_tag), msgspec.msgpack.encode(changed))
    return None


def give_up(view: KmeView, batch_tag: int, reason: str) -> BatchGivenUp | None:
    """Destroy a batch that waits for its target, at the origin; None if none of this tag waits."""
    body = view.record(OPEN_KIND, tag_text(batch_tag))
    return _give_up(view, _decode_open(body), reason, forged=False) if body is not None else None


def open_orders(view: KmeView) -> list[EndToEndOrder]:
    """Return the batches that wait for their targets, at the origin, in order of tag."""
    return [_decode_open(body).order for _, body in view.records(OPEN_KIND)]


def _order(wanted: KeyWanted, batch_tag: int, part: KemPart | None, now_s: float) -> EndToEndOrder:
    return EndToEndOrder(
        batch_tag,
        wanted.origin_kme,
        wanted.target_kme,
        wanted.master_sae,
        wanted.slave_sae,
        wanted.key_bytes,
        wanted.threshold,
        wanted.paths,
        wanted.policy,
        part,
        wanted.protocols,
        wanted.proofs,
        wanted.simulated,
        wanted.domains,
        now_s,
        wanted.deadline_s,
        wanted.expires_s,
        wanted.stream_id,
        wanted.first_byte,
    )


def _spend(
    order: EndToEndOrder, cargo: bytes, depart: Depart
) -> tuple[list[tuple[RelayOrder, bytes]], SecretBytes]:
    """Spend the first hop of every path; return relays with first frames, and what the shares make."""
    relays, shares = [], []
    for number in order.numbers[: order.threshold]:
        relay = share_order(order, cargo, number)
        frame, share = depart(relay, None, cargo)
        relays.append((relay, frame))
        shares.append(share)
    further = further_shares(shares, len(order.paths))
    with wiped(*shares, *further):
        for number, share in zip(order.numbers[order.threshold :], further, strict=True):
            relay = share_order(order, cargo, number)
            frame, copy = depart(relay, share, cargo)
            copy.wipe()
            relays.append((relay, frame))
        whole = joined(dict(zip(order.numbers, shares, strict=False)), order.threshold, len(order.paths))
    return relays, whole


def _put_aside(
    view: KmeView, order: EndToEndOrder, cargo: bytes, collect_s: float, payload: SecretBytes
) -> None:
    """Keep the batch aside until the target's word comes, and the word that it must be."""
    key, id_seed, mac_key = opened(payload)
    with key, mac_key:
        expected = word_of(order, cargo, key, id_seed, mac_key)
        stored = view.append(_aside(order.batch_tag), key)
    invariant(stored.offset_bytes == 0, "no tag is begun twice")
    body = msgspec.msgpack.encode(OpenKey(order, id_seed, expected, collect_s))
    view.put_record(OPEN_KIND, tag_text(order.batch_tag), body)


def _give_up(view: KmeView, found: OpenKey, reason: str, forged: bool) -> BatchGivenUp:
    order = found.order
    view.destroy(_aside(order.batch_tag))
    _forget_open(view, found)
    cargo = encode_order(order)
    voids = tuple(share_order(order, cargo, number) for number in order.numbers)
    return BatchGivenUp(order, reason, forged, voids)


def _forget_open(view: KmeView, found: OpenKey) -> None:
    cargo = encode_order(found.order)
    for number in found.order.numbers:
        view.drop_record(OPEN_RELAY_KIND, share_order(found.order, cargo, number).relay_id)
    view.drop_record(OPEN_KIND, tag_text(found.order.batch_tag))


def _open_of_relay(view: KmeView, relay_id: str) -> OpenKey | None:
    tag = view.record(OPEN_RELAY_KIND, relay_id)
    body = view.record(OPEN_KIND, tag.decode()) if tag is not None else None
    return _decode_open(body) if body is not None else None


def _decode_open(body: bytes) -> OpenKey:
    return msgspec.msgpack.decode(body, type=OpenKey)


def _aside(batch_tag: int) -> StreamId:
    return aside_stream("end-to-end", batch_tag)
