"""Keeps the hops making key: chooses a hop, spends its authentication key, has a block made, stores it.

The order of the steps is what makes it safe: authentication key leaves the stores of both ends durably
before a block uses it; a block's key enters both stores in one transaction; the book of hops learns of
either only afterwards. A crash between two steps loses a block, never a promise.
"""

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Awaitable, Callable
from concurrent.futures.process import BrokenProcessPool

import msgspec

from openqci.cli.up.clock import SimulatedClock
from openqci.cli.up.workers import BlockWorkers
from openqci.core.errors import KeyUnavailable, OpenQCIError
from openqci.core.identifiers import (
    KmeId,
    LinkId,
    SiteId,
    StreamId,
    authentication_stream,
    kme_of_site,
    link_stream,
)
from openqci.core.keys import SecretBytes, wiped
from openqci.distillation import AUTHENTICATION_KEY_BYTES
from openqci.keystore.ports import KmeView, StoreTransaction
from openqci.network import Hop
from openqci.services.sqlite_store import SqliteKeyStore
from openqci.twin.block import BlockOrder, BlockOutcome
from openqci.twin.hops import AUTHENTICATION_STOCK_BYTES, HopBook, HopFigures, split_by_initiator

log = logging.getLogger(__name__)

NETWORK = KmeId("*")
"""Rooms of the store for figures that belong to no KME; they hold documents, never key."""

HOP_FIGURES = "hop"
PHOTON_SEED_BITS = 256
IDLE_WAIT_S = 0.25
NO_AUTHENTICATION_KEY = "no authentication key left"
RETRY_AFTER_ABORT_S = 5.0
"""A hop whose block aborted lets others go first for this long."""


async def ignore_block(outcome: BlockOutcome) -> None:
    """Take no notice of how a block has ended."""


class Production:
    """Makes blocks of key, the most wanted hop first, as many at once as there are workers."""

    def __init__(
        self,
        store: SqliteKeyStore,
        book: HopBook,
        workers: BlockWorkers,
        clock: SimulatedClock,
        seed: int | None,
        next_hop: Callable[[], LinkId | None],
        stored: Callable[[], None],
        block_made: Callable[[BlockOutcome], Awaitable[None]] = ignore_block,
    ) -> None:
        self.block_made = block_made
        self.store, self.book, self.workers, self.clock = store, book, workers, clock
        self.seed, self.next_hop, self.stored = seed, next_hop, stored
        self._blocks: set[asyncio.Task[None]] = set()
        self._at_work = asyncio.Semaphore(workers.workers + 1)
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look at once for a hop to work on, because demand has changed."""
        self._wake.set()

    async def run(self) -> None:
        """Make key until cancelled."""
        while True:
            await self._at_work.acquire()
            link_id = self.next_hop()
            if link_id is None:
                self._at_work.release()
                self._wake.clear()
                await wait_at_most(self._wake, IDLE_WAIT_S)
                continue
            number = self.book.begin_block(link_id, self.clock.now_s())
            task = asyncio.create_task(self._make_block(link_id, number))
            self._blocks.add(task)
            task.add_done_callback(self._block_done)

    def _block_done(self, task: asyncio.Task[None]) -> None:
        self._blocks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a block ended with an error", exc_info=error)

    async def close(self) -> None:
        """Give up the blocks under way."""
        for task in list(self._blocks):
            task.cancel()
        await asyncio.gather(*self._blocks, return_exceptions=True)

    async def _make_block(self, link_id: LinkId, number: int) -> None:
        began_s, line = self.clock.now_s(), self.book.lines[link_id]
        kept, breaks = False, line.breaks
        try:
            outcome = await self._distil(link_id, number)
            # Light takes its time: the block's detections are complete only when the exchange has lasted
            # as long as the physics says, however fast the computation was.
            await self.clock.wait_until(began_s + outcome.duration_s)
            if line.breaks == breaks:
                await self._keep(outcome)
                kept = True
        except KeyUnavailable:
            log.error("link %s has no authentication key left and stands still", link_id)
            line.standing_still = NO_AUTHENTICATION_KEY
        except (BrokenProcessPool, OpenQCIError) as error:
            log.warning("link %s lost a block: %s", link_id, error)
        finally:
            if not kept:
                self.book.give_up_block(link_id, self.clock.now_s() + RETRY_AFTER_ABORT_S)

    async def _distil(self, link_id: LinkId, number: int) -> BlockOutcome:
        try:
            return await self.workers.distil(await self._order(link_id, number))
        finally:
            self._at_work.release()

    async def _order(self, link_id: LinkId, number: int) -> BlockOrder:
        """Spend the block's authentication key at both ends and write the order."""
        line = self.book.lines[link_id]
        key_a, key_b = await self.store.run(lambda transaction: spend_authentication(transaction, line.hop))
        with wiped(key_a, key_b):
            return BlockOrder(
                hop=line.hop,
                device=self.book.network.devices[line.hop.device],
                number=number,
                detections=line.forecast.block_detections,
                photon_seed=photon_seed(self.seed, link_id, number),
                authentication_key_a=bytes(key_a.reveal()),
                authentication_key_b=bytes(key_b.reveal()),
                intercepted=line.intercepted,
            )

    async def _keep(self, outcome: BlockOutcome) -> None:
        line = self.book.lines[LinkId(outcome.link_id)]
        figures = self.book.figures_after(outcome)
        line.storing = True
        try:
            stored = await self.store.run(
                lambda transaction: keep_block(transaction, line.hop, outcome, figures)
            )
            self.book.end_block(outcome, figures, stored, self.clock.now_s())
        finally:
            line.storing = False
        if outcome.aborted:
            line.not_before_s = self.clock.now_s() + RETRY_AFTER_ABORT_S
            log.warning("link %s: block %d aborted: %s", outcome.link_id, outcome.number, outcome.aborted)
        await self.block_made(outcome)
        self.stored()


def spend_authentication(transaction: StoreTransaction, hop: Hop) -> tuple[SecretBytes, SecretBytes]:
    """Take the same range of authentication key at both ends of a hop, for one block."""
    stream = authentication_stream(hop.link_id)
    at_a, at_b = KmeView(transaction, kme_of_site(hop.a)), KmeView(transaction, kme_of_site(hop.b))
    offset, key_a = at_a.take_next(stream, AUTHENTICATION_KEY_BYTES)
    return key_a, at_b.take(stream, offset, AUTHENTICATION_KEY_BYTES)


def keep_block(
    transaction: StoreTransaction, hop: Hop, outcome: BlockOutcome, figures: HopFigures
) -> dict[SiteId, int]:
    """Store a block's key at both ends and the hop's new figures; return the bytes added per initiator."""
    added: dict[SiteId, int] = {}
    if not outcome.aborted:
        ends = {site: KmeView(transaction, kme_of_site(site)) for site in (hop.a, hop.b)}
        authentication = authentication_stream(hop.link_id)
        lacking = max(0, AUTHENTICATION_STOCK_BYTES - ends[hop.a].stock_bytes(authentication))
        refill = min(len(outcome.key_a), lacking)
        stock = {site: ends[site].stock_bytes(link_stream(hop.link_id, site)) for site in ends}
        shares = split_by_initiator(len(outcome.key_a) - refill, stock[hop.a], stock[hop.b])
        added = dict(zip((hop.a, hop.b), shares, strict=True))
        for site, key_bytes in ((hop.a, outcome.key_a), (hop.b, outcome.key_b)):
            with SecretBytes(key_bytes) as key:
                append_part(ends[site], authentication, key, refill)
                for initiator, share in added.items():
                    end = append_part(ends[site], link_stream(hop.link_id, initiator), key, share)
                    if end is not None and site == initiator:
                        note_block_end(figures, initiator, end, stock[initiator] + share)
    transaction.put_record(NETWORK, HOP_FIGURES, hop.link_id, msgspec.json.encode(figures))
    return added


def note_block_end(figures: HopFigures, initiator: SiteId, end: int, stock_bytes: int) -> None:
    """Add where a block ends in a stream; forget the blocks that are spent."""
    kept = [earlier for earlier in figures.block_ends.get(initiator, []) if earlier > end - stock_bytes]
    figures.block_ends = {**figures.block_ends, initiator: [*kept, end]}


def append_part(view: KmeView, stream: StreamId, key: SecretBytes, length_bytes: int) -> int | None:
    """Move the first bytes of a key to the end of a stream; return where they end there, None for none."""
    if not length_bytes:
        return None
    with key.take(length_bytes) as part:
        stored = view.append(stream, part)
    return stored.offset_bytes + stored.length_bytes


def photon_seed(seed: int | None, link_id: LinkId, number: int) -> int:
    """Return the seed of a block's photons: fresh from the operating system unless the user fixed one."""
    if seed is None:
        return secrets.randbits(PHOTON_SEED_BITS)
    return int.from_bytes(hashlib.sha256(f"{seed}/{link_id}/{number}".encode()).digest(), "big")


async def wait_at_most(event: asyncio.Event, seconds: float) -> None:
    """Wait for the event, but no longer than this."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
