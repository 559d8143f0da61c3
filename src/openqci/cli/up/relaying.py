"""Keeps the stocks of all SAE pairs filled: watches them, finds routes, runs relays, says what is missing."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from math import inf
from typing import Any

from openqci.cli.up.clock import SimulatedClock
from openqci.cli.up.relay_run import RelayDone, RelayFailed, Spend, new_order, run_relay
from openqci.control import PairDemand, Route, Router, affordable_bytes, batch_bytes
from openqci.core.errors import OpenQCIError
from openqci.core.identifiers import LinkId, SaeId, SiteId, kme_of_site
from openqci.delivery import SaeDirectory, stock_bytes
from openqci.keystore.ports import KmeView, StoreTransaction
from openqci.network import Network
from openqci.relay import hop_bytes
from openqci.services.sqlite_store import SqliteKeyStore
from openqci.twin.hops import RATE_WINDOW_S, HopBook, HopState, RecentBits

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.25
LOOK_AGAIN_S = 2.0
RELAYS_AT_ONCE_MAX = 8
ROUTE_KEPT_S = 5.0
"""A pair that waits for its route's hops keeps that route for so long, so that production can follow it."""

PAIRS_MAX = 5_000
ROUTES_SHOWN = 8
KEY_BYTES = 32
REFILL_BYTES_MIN = 256
"""A stock that nobody waits for is not refilled in smaller pieces: each relay costs work on every hop."""

EMPTY_HOP_COST = 8.0
"""What an empty hop costs beside a full one's 1: a detour of up to that many full hops is preferred."""


@dataclass
class Pair:
    """A pair of SAEs with demand, and what is being done for it."""

    master: SaeId
    slave: SaeId
    start: SiteId
    end: SiteId
    stock_bytes: int = 0
    waiting_bytes: int = 0
    relaying: bool = False
    route: Route | None = None
    routed_at_s: float = -inf
    served_at_s: float = -inf


@dataclass
class Shortage:
    """The hops that waiting applications and low stocks lack, for production to work on first."""

    waited_for: set[LinkId] = field(default_factory=set)
    short: set[LinkId] = field(default_factory=set)


class EndToEnd:
    """All pairs with demand, and the relays that serve them."""

    def __init__(
        self,
        store: SqliteKeyStore,
        network: Network,
        book: HopBook,
        clock: SimulatedClock,
        arrived: Callable[[SaeId, SaeId], None],
        shortage_changed: Callable[[], None],
    ) -> None:
        self.relayed: Callable[[RelayDone], None] = lambda done: None
        self.store, self.network, self.book, self.clock = store, network, book, clock
        self.arrived, self.shortage_changed = arrived, shortage_changed
        self.router = Router((hop.link_id, hop.a, hop.b) for hop in network.hops.values())
        self.pairs: dict[tuple[SaeId, SaeId], Pair] = {}
        self.shortage = Shortage()
        self.relays = 0
        self.recent: deque[dict[str, Any]] = deque(maxlen=ROUTES_SHOWN)
        self._reserved: dict[tuple[LinkId, SiteId], int] = {}
        self._consumed = RecentBits()
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._sites = {sae.sae_id: sae.site for sae in network.saes.values()}
        for flow in network.flows:
            self.demand(flow.master, flow.slave, 0)

    def demand(self, master: SaeId, slave: SaeId, wanted_bytes: int) -> str | None:
        """Note that an application waits for key; return why it can never come, or None.

        Called by the KME service on its event loop, after it has found both SAEs enrolled.
        """
        pair = self.pairs.get((master, slave))
        if pair is None:
            ends = self._sites.get(master), self._sites.get(slave)
            if ends[0] is None or ends[1] is None:
                self._tasks.add(task := asyncio.create_task(self._find_sites(master, slave, wanted_bytes)))
                task.add_done_callback(self._tasks.discard)
                return None
            if not self.router.connected(ends[0], ends[1]):
                return f"no chain of QKD links joins {ends[0]} and {ends[1]}; they wait for the space segment"
            if len(self.pairs) >= PAIRS_MAX:
                return f"this network serves {PAIRS_MAX} pairs of SAEs already"
            pair = self.pairs[master, slave] = Pair(master, slave, ends[0], ends[1])
        pair.waiting_bytes = max(pair.waiting_bytes, wanted_bytes)
        self._wake.set()
        return None

    def wake(self) -> None:
        """Look at once, because hops have got key."""
        self._wake.set()

    def leave(self, link_id: LinkId) -> None:
        """Look at once for other routes than those over a link, which must not be used any more."""
        for pair in self.pairs.values():
            if pair.route is not None and link_id in pair.route.links:
                pair.route = None
        self._wake.set()

    async def run(self) -> None:
        """Serve demand until cancelled."""
        while True:
            try:
                await self._look()
            except OpenQCIError as error:
                # A full disk, say: what is there is still served, and the next look may succeed.
                log.error("stocks cannot be looked after now: %s", error)
                await asyncio.sleep(LOOK_AGAIN_S)
            self._wake.clear()
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def close(self) -> None:
        """Give up the relays under way."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def consumed_bps(self, now_s: float) -> float:
        """Return the mean rate at which relays have spent link key, over all hops."""
        return self._consumed.total(now_s) / RATE_WINDOW_S

    async def _find_sites(self, master: SaeId, slave: SaeId, wanted_bytes: int) -> None:
        def work(transaction: StoreTransaction) -> dict[SaeId, SiteId]:
            found = (SaeDirectory(transaction).sae(sae) for sae in (master, slave))
            return {record.sae_id: record.site_id for record in found if record}

        self._sites |= await self.store.run(work)
        known = master in self._sites and slave in self._sites
        if known and self.demand(master, slave, wanted_bytes) is not None:
            # No key will come: wake the request that waits, so that it asks again and learns why.
            self.arrived(master, slave)

    async def _look(self) -> None:
        """Read all stocks, start the relays that can be paid for, note which hops are short."""
        await self._read_stocks()
        shortage = Shortage()
        # Waiting pairs first, in turn: how much one asks for buys it no place before the others (I9).
        for pair in sorted(self.pairs.values(), key=lambda pair: (not pair.waiting_bytes, pair.served_at_s)):
            if not pair.relaying:
                self._serve(pair, shortage)
        if shortage != self.shortage:
            self.shortage = shortage
            self.shortage_changed()

    async def _read_stocks(self) -> None:
        pairs = list(self.pairs.values())

        def work(transaction: StoreTransaction) -> list[int]:
            return [
                stock_bytes(KmeView(transaction, kme_of_site(pair.start)), pair.master, pair.slave)
                for pair in pairs
            ]

        # A waiting application is served by a relay even if the stock looks large enough: a key never spans
        # two batches, so many small rests may not make the key that it wants.
        for pair, stock in zip(pairs, await self.store.run(work), strict=True):
            pair.stock_bytes = stock

    def _serve(self, pair: Pair, shortage: Shortage) -> None:
        rule = self.network.stock
        wanted = batch_bytes(
            PairDemand(
                pair.master,
                pair.slave,
                pair.stock_bytes,
                KEY_BYTES * rule.pair_low_keys,
                KEY_BYTES * rule.pair_high_keys,
                pair.waiting_bytes,
            )
        )
        if pair.waiting_bytes and pair.stock_bytes >= KEY_BYTES * rule.pair_high_keys:
            # The stock is all rests too small for this key: exactly what is wanted, not one more rest.
            wanted = min(wanted, pair.waiting_bytes)
        route = self._route(pair) if wanted else None
        if route is None:
            return
        stocks = [self._available(link, site) for link, site in zip(route.links, route.sites, strict=False)]
        least = min(wanted, pair.waiting_bytes or REFILL_BYTES_MIN)
        key_bytes = affordable_bytes(wanted, least, stocks, hop_bytes(0))
        if key_bytes and len(self._tasks) < RELAYS_AT_ONCE_MAX:
            pair.relaying, pair.served_at_s = True, self.clock.now_s()
            self._reserve(route, hop_bytes(key_bytes))
            self._tasks.add(task := asyncio.create_task(self._relay(pair, route, key_bytes)))
            task.add_done_callback(self._tasks.discard)
        elif not key_bytes:
            # What would do now; a full batch is for the time when the hops are full.
            poor = [link for link, stock in zip(route.links, stocks, strict=True) if stock < hop_bytes(least)]
            (shortage.waited_for if pair.waiting_bytes else shortage.short).update(poor)

    def _route(self, pair: Pair) -> Route | None:
        now_s = self.clock.now_s()
        if pair.route is None or now_s - pair.routed_at_s > ROUTE_KEPT_S * self.clock.speed:
            pair.route = self.router.route(pair.start, pair.end, self._cost)
            pair.routed_at_s = now_s
        return pair.route

    def _cost(self, link_id: LinkId, sender: SiteId) -> float:
        if self.book.state(link_id) is HopState.DOWN:
            return inf
        full = max(1.0, self.network.stock.low_bits / 8)
        scarcity = 1 - min(1.0, max(0, self._available(link_id, sender)) / full)
        return 1 + (EMPTY_HOP_COST - 1) * scarcity

    def _available(self, link_id: LinkId, sender: SiteId) -> int:
        stock = self.book.lines[link_id].stock_bytes[sender]
        return stock - self._reserved_bytes(link_id, sender)

    def _reserved_bytes(self, link_id: LinkId, sender: SiteId) -> int:
        return self._reserved.get((link_id, sender), 0)

    def _reserve(self, route: Route, amount_bytes: int) -> None:
        for link, site in zip(route.links, route.sites, strict=False):
            self._reserved[link, site] = self._reserved_bytes(link, site) + amount_bytes

    async def _relay(self, pair: Pair, route: Route, key_bytes: int) -> None:
        order = new_order(self.book, route, pair.master, pair.slave, key_bytes, self._reserved_bytes)
        spent_bytes = hop_bytes(key_bytes)
        try:
            done = await run_relay(self.store, order)
        except RelayFailed as error:
            log.warning("relay from %s to %s failed: %s", pair.start, pair.end, error)
            pair.route = None
            self._book_spends(error.spends)
            if error.forged:
                # Each further try would burn good key on the hops before it.
                self.book.lines[error.spends[-1][0]].standing_still = "a relay met a wrong MAC on it"
                self.leave(error.spends[-1][0])
        else:
            self._book_relay(done)
            self.relayed(done)
            pair.waiting_bytes = 0
            self.arrived(pair.master, pair.slave)
        finally:
            self._reserve(route, -spent_bytes)
            pair.relaying = False
            self._wake.set()

    def _book_spends(self, spends: Collection[Spend]) -> None:
        """Subtract what a relay has used, whether a key came of it or not.

        Not read from the store: other relays and blocks are under way there that the book learns of later,
        and would then count a second time.
        """
        self.book.spent((link, site, length) for link, site, _, length in spends)
        self._consumed.add(self.clock.now_s(), 8 * sum(length for *_, length in spends))

    def _book_relay(self, done: RelayDone) -> None:
        self._book_spends(done.spends)
        self.relays += 1
        order = done.order
        self.recent.append(
            {
                "relay_id": order.relay_id,
                "master_sae": order.master_sae,
                "slave_sae": order.slave_sae,
                "sites": list(order.route),
                "links": list(order.links),
                "hops": len(order.links),
                "at_s": self.clock.now_s(),
                "took_s": done.took_s,
            }
        )
