"""Runs one batch of end-to-end key over the live network: shares from node to node, each step durable.

The rules are in ``openqci.relay`` and ``openqci.delivery.end_to_end``; this shell does the steps, each in the
rooms of its own node, and hands the messages on. All nodes lie in one store here, so several steps share a
transaction: a batch over 35 hops waits for three flushes of the disk and not for 37. Between two transactions
everything is as durable as between two machines, and what a stop cuts off is settled at the next start.
"""

import logging
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial

import msgspec

from openqci.cli.up.kem_ring import KemRing
from openqci.core.errors import KeyUnavailable, OpenQCIError
from openqci.core.identifiers import KmeId, LinkId, SiteId, is_border, kme_of_site
from openqci.core.keys import SecretBytes
from openqci.delivery import BATCH_TAG_BITS, SaeDirectory
from openqci.delivery.border_account import count_crossed
from openqci.delivery.end_to_end import (
    BatchGivenUp,
    BatchReady,
    EndToEndOrder,
    KeyWanted,
    ShareDeclined,
    begin,
    decode_order,
    due_keys,
    give_up,
    leg_at,
    legs_of,
    open_orders,
    relay_of,
    release,
    settle_due,
    share_arrived,
    share_confirmed,
    share_failed,
)
from openqci.delivery.pair_stock import tag_was_used
from openqci.keystore.ports import KmeView, StoreTransaction
from openqci.relay import (
    RelayArrival,
    RelayOrder,
    RelayRefused,
    forward,
    hop_bytes,
    next_site,
    terminate,
)
from openqci.relay import begin as begin_relay
from openqci.relay.messages import decode_frame
from openqci.services.sqlite_store import SqliteKeyStore

log = logging.getLogger(__name__)

STEPS_PER_TRANSACTION = 16
"""Steps of one batch that share a transaction: 2 to 4 ms, for which no other work of the store must wait
longer."""

RELAY_RECORD = "relay"
RELAY_ACCOUNTS_KEPT = 20
"""How many of its last batches an origin keeps the account of: who got key, and which ranges were spent."""

Spend = tuple[LinkId, SiteId, int, int]
"""What a relay used of a hop: (link, initiator, offset, bytes)."""


class RelayFailed(Exception):
    """A batch did not come about; the pads in ``spends`` stay spent.

    ``forged_on`` is the hop on which a MAC was wrong: its ends do not hold the same key.
    """

    def __init__(self, reason: str, spends: Iterable[Spend] = (), forged_on: LinkId | None = None) -> None:
        super().__init__(reason)
        self.spends, self.forged_on = tuple(spends), forged_on


@dataclass(frozen=True)
class RelayDone:
    """What has come about: its order, and what it spent of each hop."""

    order: EndToEndOrder
    spends: tuple[Spend, ...]
    took_s: float


@dataclass(frozen=True)
class Journey:
    """A batch on its way: what travels now, and how it ended. Each step makes a new one, so that a
    transaction that was not durable has changed nothing."""

    wanted: KeyWanted
    batch_tag: int
    order: EndToEndOrder | None = None
    frames: tuple[bytes, ...] = ()
    words: tuple[tuple[RelayOrder, bytes], ...] = field(default=(), repr=False)
    outcome: BatchReady | BatchGivenUp | None = None
    spends: tuple[Spend, ...] = ()
    forged_on: LinkId | None = None
    over: bool = False


async def run_relay(store: SqliteKeyStore, wanted: KeyWanted, ring: KemRing) -> RelayDone:
    """Carry one batch of key from the origin's KME to the target's, and make it available at both.

    Raises RelayFailed if a node refuses, has not enough key or cannot store. No key comes of it then; the
    pads that were spent are gone.
    """
    began_s = time.monotonic()
    journey = Journey(wanted, secrets.randbits(BATCH_TAG_BITS))
    try:
        await ring.know([site_of(wanted.target_kme), *bridged_to(wanted)])
        while not journey.over:
            journey = await store.run(partial(advance, journey=journey, ring=ring))
    except OpenQCIError as error:
        if not isinstance(journey.outcome, BatchReady):
            await abandon(store, journey)
            raise RelayFailed(str(error), journey.spends) from error
        # Both ends have it; that the target has not heard so is settled at the next start.
        log.error("the end of batch %010x cannot be told: %s", journey.outcome.order.batch_tag, error)
    if isinstance(journey.outcome, BatchReady):
        return RelayDone(journey.outcome.order, journey.spends, time.monotonic() - began_s)
    reason = journey.outcome.reason if journey.outcome else "the target's word did not come"
    raise RelayFailed(reason, journey.spends, journey.forged_on)


def advance(transaction: StoreTransaction, journey: Journey, ring: KemRing) -> Journey:
    """Do the next steps of a batch in one transaction."""
    for _ in range(STEPS_PER_TRANSACTION):
        if journey.over:
            break
        journey = one_step(transaction, journey, ring)
    return journey


def one_step(transaction: StoreTransaction, journey: Journey, ring: KemRing) -> Journey:
    """Do the next step: whoever has something to do does it, in its own rooms."""
    if journey.order is None:
        return depart(transaction, journey, ring)
    if journey.outcome is not None:
        return end(transaction, journey, journey.outcome)
    if journey.words:
        return confirm(transaction, journey)
    if journey.frames:
        return carry_on(transaction, journey, ring)
    return replace(journey, over=True)


def depart(transaction: StoreTransaction, journey: Journey, ring: KemRing) -> Journey:
    """Begin at the origin."""
    wanted = journey.wanted
    view = KmeView(transaction, wanted.origin_kme)
    public = ring.public_key(site_of(wanted.target_kme))
    depart = partial(set_out, transaction)
    begun = begin(view, wanted, journey.batch_tag, public, time.time(), depart=depart)
    sent = replace(journey, order=begun.order)
    for _, frame in begun.relays:
        sent = with_frame(sent, frame)
    return sent


def set_out(
    transaction: StoreTransaction, relay: RelayOrder, payload: SecretBytes | None, cargo: bytes
) -> tuple[bytes, SecretBytes]:
    """Begin a share's way with its first leg that has a link.

    Where the way begins with a border, that is at the other KME of the site: the share is link key of its
    hop, and it hands a copy of it to the origin.
    """
    leg = next(leg for leg in legs_of(relay) if leg.links)
    view = KmeView(transaction, kme_of_site(SiteId(leg.route[0])))
    return begin_relay(view, leg, payload, cargo)


def carry_on(transaction: StoreTransaction, journey: Journey, ring: KemRing) -> Journey:
    """Bring the first share that is on its way one hop on, over a border, or to its end."""
    wire, *others = journey.frames
    site, frame = next_site(wire), decode_frame(wire)
    relay, rest = frame.order, replace(journey, frames=tuple(others))
    view = KmeView(transaction, kme_of_site(site))
    bridges = Bridging(ring, view.kme)
    if frame.hop_index + 1 < len(relay.links):
        sent = forward(view, wire, bridges=bridges)
        if isinstance(sent, RelayRefused):
            return refused(transaction, rest, relay, sent, relay.links[frame.hop_index])
        return with_frame(rest, sent)
    arrival = terminate(view, wire, bridges=bridges)
    if isinstance(arrival, RelayRefused):
        return refused(transaction, rest, relay, arrival, relay.links[frame.hop_index])
    return cross_borders(transaction, rest, arrival, ring)


def cross_borders(
    transaction: StoreTransaction, journey: Journey, arrival: RelayArrival, ring: KemRing
) -> Journey:
    """Hand a share over at the borders where it stands, and begin its next leg; or keep it at its target."""
    whole = relay_of(decode_order(arrival.cargo), arrival.cargo, arrival.order.relay_id)
    while arrival.order.route[-1] != whole.route[-1]:
        behind = whole.route[whole.route.index(arrival.order.route[-1]) + 1]
        leg = leg_at(whole, behind)
        if leg.links:
            return next_leg(transaction, journey, RelayArrival(leg, arrival.payload, arrival.cargo), ring)
        arrival = RelayArrival(leg, arrival.payload, arrival.cargo)
    return keep(transaction, journey, arrival, ring)


def next_leg(
    transaction: StoreTransaction, journey: Journey, crossing: RelayArrival, ring: KemRing
) -> Journey:
    """Carry a share on behind a border."""
    leg = crossing.order
    view = KmeView(transaction, kme_of_site(SiteId(leg.route[0])))
    with crossing.payload:
        try:
            frame, copy = begin_relay(
                view, leg, crossing.payload, crossing.cargo, bridges=Bridging(ring, view.kme)
            )
        except KeyUnavailable as shortage:
            log.info("relay %s cannot go on behind the border at %s: %s", leg.relay_id, view.kme, shortage)
            return failed(transaction, journey, leg, str(shortage), forged=False)
        copy.wipe()
    return with_frame(journey, frame)


def keep(transaction: StoreTransaction, journey: Journey, arrival: RelayArrival, ring: KemRing) -> Journey:
    """Keep a share at the target."""
    relay, view = arrival.order, KmeView(transaction, kme_of_site(SiteId(arrival.order.route[-1])))
    kept = share_arrived(view, arrival, ring.own(view.kme), time.time())
    if isinstance(kept, ShareDeclined):
        return failed(transaction, journey, relay, kept.reason, forged=kept.forged)
    return replace(journey, words=kept.words[:1])


def confirm(transaction: StoreTransaction, journey: Journey) -> Journey:
    """Hear the target's word at the origin, and keep the account of what was spent."""
    relay, word = journey.words[0]
    view = KmeView(transaction, journey.wanted.origin_kme)
    outcome = share_confirmed(view, relay.relay_id, word)
    if isinstance(outcome, BatchReady):
        keep_account(view, outcome.order, journey.spends)
        count_at_borders(transaction, outcome.order)
    elif outcome is not None and outcome.forged:
        log.error("batch %010x: %s; a node of its way has altered it", journey.batch_tag, outcome.reason)
    return replace(journey, words=(), outcome=outcome)


def end(transaction: StoreTransaction, journey: Journey, outcome: BatchReady | BatchGivenUp) -> Journey:
    """Tell the target how it has ended; shares that are still on their way go no further."""
    order = outcome.order
    view = KmeView(transaction, KmeId(order.target_kme))
    if isinstance(outcome, BatchReady):
        release(view, KmeId(order.origin_kme), order.batch_tag)
    else:
        call_back(transaction, outcome)
    return replace(journey, frames=(), over=True)


def refused(
    transaction: StoreTransaction, journey: Journey, relay: RelayOrder, refusal: RelayRefused, link: str
) -> Journey:
    """Tell the origin that a node would not carry a share on."""
    # A forged frame is for the security officer; a hop that ran dry is for the next try.
    level = logging.ERROR if refusal.forged else logging.INFO
    log.log(level, "relay %s refused at %s: %s", refusal.relay_id, refusal.site, refusal.reason)
    if refusal.forged:
        journey = replace(journey, forged_on=LinkId(link))
    return failed(transaction, journey, relay, refusal.reason, forged=refusal.forged)


def failed(
    transaction: StoreTransaction, journey: Journey, relay: RelayOrder, reason: str, *, forged: bool
) -> Journey:
    view = KmeView(transaction, journey.wanted.origin_kme)
    return replace(journey, outcome=share_failed(view, relay.relay_id, reason, forged=forged))


def with_frame(journey: Journey, wire: bytes) -> Journey:
    """Put a frame on its way and write down which range of which hop it has spent."""
    frame = decode_frame(wire)
    spends = journey.spends
    if not frame.bridged:
        # By the frame's own order: that of the leg which it travels on.
        link, sender, _ = frame.order.hop(frame.hop_index)
        spends = (*spends, (link, sender, frame.offset_bytes, hop_bytes(frame.order.key_bytes)))
    return replace(journey, frames=(*journey.frames, wire), spends=spends)


async def abandon(store: SqliteKeyStore, journey: Journey) -> None:
    """Give a batch up that cannot go on. If that cannot be stored either, the next start settles it."""
    order = journey.order
    if order is None:
        return

    def work(transaction: StoreTransaction) -> None:
        given_up = give_up(KmeView(transaction, KmeId(order.origin_kme)), order.batch_tag, "abandoned")
        if given_up is not None:
            call_back(transaction, given_up)

    try:
        await store.run(work)
    except OpenQCIError as error:
        log.error("batch %010x stays pending at %s: %s", order.batch_tag, order.origin_kme, error)


def call_back(transaction: StoreTransaction, given_up: BatchGivenUp) -> None:
    """Destroy at the target what has come of a batch that was given up. Nothing more of it will come."""
    order = given_up.order
    view = KmeView(transaction, KmeId(order.target_kme))
    for due in due_keys(view):
        if (due.origin_kme, due.batch_tag) == (order.origin_kme, order.batch_tag):
            settle_due(view, due, origin_has_it=False)


def settle_pending(transaction: StoreTransaction) -> int:
    """After a crash: give up and destroy all batches that a stop has cut off; return how many.

    Nothing travels any more. Where the origin had its batch already, both ends keep it: a store remembers
    every stream it ever had, also when all its bytes are spent. Else its key was never available, no ID of it
    was ever given out, and what lies at the target must not stay (invariant I4).
    """
    views = [
        KmeView(transaction, kme)
        for kme in sorted({each.kme_id for each in SaeDirectory(transaction).saes()})
    ]
    cut_off = [(view, order.batch_tag) for view in views for order in open_orders(view)]
    for view, batch_tag in cut_off:
        give_up(view, batch_tag, "cut off by a stop")
    for view in views:
        for due in due_keys(view):
            origin = KmeView(transaction, KmeId(due.origin_kme))
            settle_due(view, due, origin_has_it=tag_was_used(origin, due.batch_tag, "master"))
    return len(cut_off)


def keep_account(view: KmeView, order: EndToEndOrder, spends: Iterable[Spend]) -> None:
    """Write down at the origin who got key, and which ranges were spent for it."""
    account = {
        "batch_tag": f"{order.batch_tag:010x}",
        "master_sae": order.master_sae,
        "slave_sae": order.slave_sae,
        "hops": [len(path.qkd_links) for path in order.paths],
        "key_bytes": order.key_bytes,
        "spends": tuple(spends),
    }
    name = f"{order.created_s:018.6f} {order.batch_tag:010x}"
    view.put_record(RELAY_RECORD, name, msgspec.json.encode(account))
    for old, _ in list(view.records(RELAY_RECORD))[:-RELAY_ACCOUNTS_KEPT]:
        view.drop_record(RELAY_RECORD, old)


def count_at_borders(transaction: StoreTransaction, order: EndToEndOrder) -> None:
    """Count at both sides of each border what has crossed it, each side in its own rooms."""
    for path in order.paths:
        for link, near, far in zip(path.links, path.route, path.route[1:], strict=False):
            if is_border(link):
                here, there = kme_of_site(SiteId(near)), kme_of_site(SiteId(far))
                count_crossed(KmeView(transaction, here), there, "out", order.key_bytes)
                count_crossed(KmeView(transaction, there), here, "in", order.key_bytes)


class Bridging:
    """The ML-KEM keys by which one node crosses hops without a pad: all public ones, and its own."""

    def __init__(self, ring: KemRing, kme: KmeId) -> None:
        self.public_key = ring.public_key
        self.private_key = ring.own(kme)


def bridged_to(wanted: KeyWanted) -> list[SiteId]:
    """Return the sites that something is sealed for on its way."""
    return [
        SiteId(receiver)
        for path in wanted.paths
        for link, receiver in zip(path.links, path.route[1:], strict=True)
        if link in path.bridged
    ]


def site_of(kme: KmeId) -> SiteId:
    """Return the site that a KME serves."""
    return SiteId(kme.removeprefix("kme-"))
