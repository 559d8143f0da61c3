"""Runs one relay over the live network: node after node, each step durable before its message leaves.

The rules of the relay are in ``openqci.relay``; this shell opens one transaction per node and hands the
message on. Each node sees only its own rooms of the store.
"""

import logging
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import msgspec

from openqci.control import Route
from openqci.core.errors import OpenQCIError
from openqci.core.identifiers import LinkId, SaeId, SiteId, kme_of_site
from openqci.core.provenance import Provenance
from openqci.delivery import BATCH_TAG_BITS, KeyBatch, SaeDirectory, store_batch
from openqci.delivery.pair_stock import Role, batch_of, batch_stream, destroy_batch
from openqci.keystore.ports import KmeView, StoreTransaction
from openqci.relay import RelayOrder, RelayOrigin, RelayRefused, arrived_key, forward, hop_bytes, terminate
from openqci.relay.messages import decode_frame
from openqci.relay.node import provenance_of
from openqci.services.sqlite_store import SqliteKeyStore
from openqci.twin.hops import HopBook

log = logging.getLogger(__name__)

RELAY_RECORD = "relay"
PENDING_RECORD = "relay.pending"
RELAY_ACCOUNTS_KEPT = 20
"""How many of its last relays an origin keeps the account of: who got key, and which ranges were spent."""

Result = TypeVar("Result")


Spend = tuple[LinkId, SiteId, int, int]
"""What a relay used of a hop: (link, initiator, offset, bytes)."""


class RelayFailed(Exception):
    """A relay ended without a key; the pads in ``spends`` stay spent.

    ``forged`` says that the last of them met a wrong MAC: that hop's ends do not hold the same key.
    """

    def __init__(self, reason: str, spends: Iterable[Spend] = (), *, forged: bool = False) -> None:
        super().__init__(reason)
        self.spends, self.forged = tuple(spends), forged


@dataclass(frozen=True)
class RelayDone:
    """What a relay has brought: its order, and what it spent of each hop."""

    order: RelayOrder
    spends: tuple[Spend, ...]
    took_s: float


def new_order(
    book: HopBook,
    route: Route,
    master: SaeId,
    slave: SaeId,
    key_bytes: int,
    reserved: Callable[[LinkId, SiteId], int],
) -> RelayOrder:
    """Write the order of a relay along a route, with the provenance that its key will carry.

    ``reserved`` says how much of a hop's direction is spoken for, this relay included: its range lies
    somewhere in there, and the epsilons of all blocks in there are summed (never too small, invariant I7).
    """
    figures = [book.lines[link_id].figures for link_id in route.links]
    hops = list(zip(route.links, route.sites, strict=False))
    provenance = Provenance(
        route=tuple(route.sites),
        links=tuple(route.links),
        hops=len(route.links),
        protocols=("decoy-state BB84",),
        proofs=tuple(sorted({line.proof_id for line in figures})),
        epsilon=sum(book.epsilon_of_next(link, site, reserved(link, site)) for link, site in hops),
        form="hop-by-hop one-time pad",
        simulated=True,
        made_at_s=time.time(),
    )
    return RelayOrder(
        relay_id=secrets.token_hex(16),
        batch_tag=secrets.randbits(BATCH_TAG_BITS),
        master_sae=master,
        slave_sae=slave,
        route=tuple(route.sites),
        links=tuple(route.links),
        key_bytes=key_bytes,
        provenance=provenance,
    )


async def run_relay(store: SqliteKeyStore, order: RelayOrder) -> RelayDone:
    """Carry one batch of key from the master's KME to the slave's, and make it available at both.

    Raises RelayFailed if a node refuses, has not enough key or cannot store. No key comes of it then; the
    pads that were spent are gone.
    """
    began_s = time.monotonic()
    origin = RelayOrigin(order)
    spends: list[Spend] = []
    confirmation = b""
    try:
        frame = await at_node(store, order.route[0], origin.begin)
        note_spend(spends, order, frame)
        for site in order.route[1:-1]:
            frame = accepted(await at_node(store, site, partial(forward, data=frame)))
            note_spend(spends, order, frame)
        confirmation = accepted(await at_node(store, order.route[-1], partial(arrive, data=frame)))
        await at_node(
            store, order.route[0], partial(depart, origin=origin, confirmation=confirmation, spends=spends)
        )
    except (OpenQCIError, RelayFailed) as error:
        if confirmation:
            await settle(store, order, withdraw)
        forged = isinstance(error, RelayFailed) and error.forged
        raise RelayFailed(str(error), spends, forged=forged) from error
    finally:
        # However it ended, by a full disk or by being stopped: what was not confirmed is wiped.
        origin.abort()
    await settle(store, order, release)
    return RelayDone(order, tuple(spends), time.monotonic() - began_s)


async def settle(
    store: SqliteKeyStore, order: RelayOrder, step: Callable[[KmeView, RelayOrder], None]
) -> None:
    """Tell the destination how the relay ended. If that cannot be stored, the next start settles it."""
    try:
        await at_node(store, order.route[-1], lambda view: step(view, order))
    except OpenQCIError as error:
        log.error("relay %s stays pending at %s: %s", order.relay_id, order.route[-1], error)


async def at_node(store: SqliteKeyStore, site: str, step: Callable[[KmeView], Result]) -> Result:
    """Do one node's step in one durable transaction of its own rooms."""

    def work(transaction: StoreTransaction) -> Result:
        return step(KmeView(transaction, kme_of_site(SiteId(site))))

    return await store.run(work)


def accepted(answer: bytes | RelayRefused) -> bytes:
    """Return a node's message; a refusal, which has been made durable, ends the relay."""
    if isinstance(answer, RelayRefused):
        # A forged frame is for the security officer; a hop that ran dry is for the next try.
        level = logging.ERROR if answer.forged else logging.INFO
        log.log(level, "relay %s refused at %s: %s", answer.relay_id, answer.site, answer.reason)
        raise RelayFailed(answer.reason, forged=answer.forged)
    return answer


def arrive(view: KmeView, data: bytes) -> bytes | RelayRefused:
    """Receive the key at the destination, store it as the slave's stock, confirm."""
    landed = terminate(view, data)
    if isinstance(landed, RelayRefused):
        return landed
    arrival = arrived_key(landed)
    order = arrival.order
    with arrival.key.key as key:
        store_batch(view, new_batch(order, "slave", arrival.id_seed), key)
    view.put_record(PENDING_RECORD, order.relay_id, msgspec.json.encode([order.route[0], order.batch_tag]))
    return arrival.confirmation


def depart(view: KmeView, origin: RelayOrigin, confirmation: bytes, spends: list[Spend]) -> None:
    """Make the key available at the origin, now that the destination holds it; keep the relay's account."""
    relayed, id_seed = origin.confirm(confirmation)
    order = origin.order
    with relayed.key as key:
        store_batch(view, new_batch(order, "master", id_seed), key)
    account = {
        "relay_id": order.relay_id,
        "master_sae": order.master_sae,
        "slave_sae": order.slave_sae,
        "hops": len(order.links),
        "key_bytes": order.key_bytes,
        "spends": spends,
    }
    view.put_record(
        RELAY_RECORD, f"{relayed.provenance.made_at_s:018.6f} {order.relay_id}", msgspec.json.encode(account)
    )
    for old, _ in list(view.records(RELAY_RECORD))[:-RELAY_ACCOUNTS_KEPT]:
        view.drop_record(RELAY_RECORD, old)


def release(view: KmeView, order: RelayOrder) -> None:
    """Note at the destination that the origin has its batch too: nothing is pending any more."""
    view.drop_record(PENDING_RECORD, order.relay_id)


def withdraw(view: KmeView, order: RelayOrder) -> None:
    """Destroy at the destination the batch of a relay whose origin could not keep its own (invariant I4)."""
    batch = batch_of(view, order.batch_tag, "slave")
    if batch is not None:
        destroy_batch(view, batch)
    view.drop_record(PENDING_RECORD, order.relay_id)


def settle_pending(transaction: StoreTransaction) -> int:
    """After a crash: destroy the batches whose relay never came back to its origin; return how many.

    The origin never had such a key, so no key ID of it was ever given out; what lies at the destination
    is of no use to anybody and must not stay (invariant I4). What tells is the stream of the origin's batch:
    a store remembers every stream it ever had, also when all its bytes are spent.
    """
    destroyed = 0
    for kme in {record.kme_id for record in SaeDirectory(transaction).saes()}:
        view = KmeView(transaction, kme)
        for relay_id, body in list(view.records(PENDING_RECORD)):
            origin, batch_tag = msgspec.json.decode(body, type=tuple[SiteId, int])
            at_origin = transaction.streams(kme_of_site(origin), batch_stream(batch_tag, "master"))
            batch = batch_of(view, batch_tag, "slave")
            if batch is not None and not any(at_origin):
                destroy_batch(view, batch)
                destroyed += 1
            view.drop_record(PENDING_RECORD, relay_id)
    return destroyed


def new_batch(order: RelayOrder, role: Role, id_seed: bytes) -> KeyBatch:
    """Return the batch that a relay leaves at one of its ends."""
    return KeyBatch(
        batch_tag=order.batch_tag,
        role=role,
        master_sae=SaeId(order.master_sae),
        slave_sae=SaeId(order.slave_sae),
        stream=batch_stream(order.batch_tag, role),
        length_bytes=order.key_bytes,
        id_seed=id_seed,
        provenance=provenance_of(order),
        created_s=provenance_of(order).made_at_s,
    )


def note_spend(spends: list[Spend], order: RelayOrder, frame: bytes) -> None:
    """Write down which range of which hop a frame has spent."""
    sent = decode_frame(frame)
    link_id, sender, _ = order.hop(sent.hop_index)
    spends.append((link_id, sender, sent.offset_bytes, hop_bytes(order.key_bytes)))
