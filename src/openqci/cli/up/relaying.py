"""Keeps the stocks of all SAE pairs filled: watches them, finds routes, runs relays, says what is missing."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from heapq import nsmallest
from math import inf
from typing import Any, Protocol

from openqci.cli.up.clock import SimulatedClock
from openqci.cli.up.federation import Federation
from openqci.cli.up.kem_ring import KemRing
from openqci.cli.up.relay_run import RelayDone, RelayFailed, Spend, run_relay
from openqci.control import PairDemand, Route, RoutePolicy, affordable_bytes, batch_bytes
from openqci.control.gateways import Way
from openqci.control.routing import PATHS_MAX
from openqci.core.errors import OpenQCIError
from openqci.core.identifiers import LinkId, SaeId, SiteId, is_border, kme_of_site
from openqci.core.provenance import KeyPath, LinkPass
from openqci.delivery import SaeDirectory, stock_bytes
from openqci.delivery.end_to_end import HybridPolicy, KeyWanted, provenance_of
from openqci.delivery.etsi014_model import NO_DEMANDS, KeyDemands
from openqci.keystore.ports import KmeView, StoreTransaction
from openqci.network import Network
from openqci.network.model import connected_parts
from openqci.relay import RelayForm, hop_bytes
from openqci.services.sqlite_store import SqliteKeyStore
from openqci.twin.hops import RATE_WINDOW_S, HopBook, RecentBits

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.25
LOOK_AGAIN_S = 2.0
RELAYS_AT_ONCE_MAX = 8
ROUTE_KEPT_S = 5.0
"""A pair that waits for its route's hops keeps that route for so long, so that production can follow it."""

PAIRS_MAX = 5_000
PAIRS_PER_LOOK = 256
"""Pairs that one look considers: those that wait, then those that were not looked at for longest. Whoever
asks for a key meanwhile waits until the look is over."""

SEARCHES_PER_LOOK = 8
"""Searches for routes, in one look, of pairs for which nobody waits."""

ROUTES_SHOWN = 8
KEY_BYTES = 32
REFILL_BYTES_MIN = 256
"""A stock that nobody waits for is not refilled in smaller pieces: each relay costs work on every hop."""

EMPTY_HOP_COST = 8.0
"""What an empty hop costs beside a full one's 1: a detour of up to that many full hops is preferred."""


DEADLINE_S = 300.0
"""No batch of a live network is under way for so long: its steps follow each other at once."""

SPECIAL_PAIRS_MAX = 500
"""Pairs with demands of their own that are remembered; the oldest is forgotten first."""


class Expected(Protocol):
    """When key may be expected; its text says by which pass."""

    @property
    def expected_s(self) -> float:
        """In seconds of the network's time."""


OutlookOfParts = Callable[[frozenset[SiteId], frozenset[SiteId]], Expected | None]
PassesOf = Callable[[LinkId, SiteId, int], tuple[LinkPass, ...]]
"""Which passes of satellites the next bytes come from that a site sends over a link."""


@dataclass
class Pair:
    """A pair of SAEs with demand, and what is being done for it.

    With ``demands`` it is what an application asked for beside the pair's usual stock: nothing is kept ahead
    for it. ``watermarks``, in bytes, are in place of those of the network's rule.
    """

    master: SaeId
    slave: SaeId
    start: SiteId
    end: SiteId
    demands: KeyDemands = NO_DEMANDS
    stock_bytes: int = 0
    waiting_bytes: int = 0
    relaying: bool = False
    fill_up: bool = False
    routes: tuple[Route, ...] = ()
    ways: tuple[Way, ...] = ()
    why_not: str = ""
    routed_at_s: float = -inf
    served_at_s: float = -inf
    looked_at: int = 0
    lacks: tuple[LinkId, ...] = ()
    watermarks: tuple[int, int] | None = None

    @property
    def paths(self) -> int:
        """How many disjoint ways its keys take."""
        return self.demands.min_paths or 1

    @property
    def edges(self) -> list[tuple[LinkId, SiteId]]:
        """Each hop of its routes with the site that sends over it."""
        return [edge for route in self.routes for edge in route.edges]


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
        policy: HybridPolicy = HybridPolicy.BOTH,
    ) -> None:
        self.relayed: Callable[[RelayDone], None] = lambda done: None
        self.passes_of: PassesOf = lambda link, sender, length_bytes: ()
        self.policy, self.ring = policy, KemRing(store)
        self.store, self.network, self.book, self.clock = store, network, book, clock
        self.arrived, self.shortage_changed = arrived, shortage_changed
        self.federation = Federation(
            network,
            self._cost,
            lambda link: book.lines[link].epsilon,
            lambda link: book.lines[link].forecast.secret_key_rate_bps,
            lambda link: book.lines[link].trouble,
            book.shut_borders,
            clock.now_s(),
        )
        self.pairs: dict[tuple[SaeId, SaeId], Pair] = {}
        self.special: dict[tuple[SaeId, SaeId, KeyDemands], Pair] = {}
        self.shortage = Shortage()
        self.relays = 0
        self.recent: deque[dict[str, Any]] = deque(maxlen=ROUTES_SHOWN)
        self._reserved: dict[tuple[LinkId, SiteId], int] = {}
        self._consumed = RecentBits()
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._looks = self._searches = 0
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
            if not self.federation.connected(ends[0], ends[1]):
                return f"no chain of QKD links joins {ends[0]} and {ends[1]}; they wait for the space segment"
            if len(self.pairs) >= PAIRS_MAX:
                return f"this network serves {PAIRS_MAX} pairs of SAEs already"
            pair = self.pairs[master, slave] = Pair(master, slave, ends[0], ends[1])
        pair.waiting_bytes = max(pair.waiting_bytes, wanted_bytes)
        self._wake.set()
        return None

    def keep(self, master: SaeId, slave: SaeId, stock_keys: tuple[int, int] | None) -> None:
        """Keep key ahead for a pair, whether anybody asks for it or not: refilled at and up to so many keys.

        None is what the network's rule says.
        """
        self.demand(master, slave, 0)
        if stock_keys is not None and (pair := self.pairs.get((master, slave))) is not None:
            pair.watermarks = KEY_BYTES * stock_keys[0], KEY_BYTES * stock_keys[1]

    def demand_special(
        self, master: SaeId, slave: SaeId, wanted_bytes: int, demands: KeyDemands
    ) -> str | None:
        """Note that an application waits for key as it demands it; return why none can be made, or None."""
        pair = self.pairs.get((master, slave))
        if pair is None:
            return self.demand(master, slave, 0)
        if demands.not_simulated:
            return "all photons of this network are simulated"
        if demands.hybrid and self.policy is HybridPolicy.QUANTUM:
            return "this network adds no ML-KEM to its keys"
        special = self.special.get((master, slave, demands))
        if special is None:
            special = Pair(master, slave, pair.start, pair.end, demands)
            special.routes = self._routes(special)
            if not special.routes:
                return f"no routes are known that keep to these demands: {special.why_not}"
            if len(self.special) >= SPECIAL_PAIRS_MAX:
                idle = (key for key, each in self.special.items() if not each.relaying)
                del self.special[next(idle, next(iter(self.special)))]
            self.special[master, slave, demands] = special
        special.waiting_bytes = max(special.waiting_bytes, wanted_bytes)
        self._wake.set()
        return None

    def wake(self) -> None:
        """Look at once, because hops have got key."""
        self._wake.set()

    def leave(self, link_id: LinkId) -> None:
        """Look at once for other routes than those over a link, which must not be used any more."""
        for pair in (*self.pairs.values(), *self.special.values()):
            if any(link_id in route.links for route in pair.routes):
                # Filled up at once by another way: nobody knows how long that one lasts.
                pair.routes, pair.fill_up = (), True
        self._wake.set()

    def next_way(self, master: SaeId, slave: SaeId) -> Route | None:
        """Return the way that the next keys of a pair go as things are, or None if there is none."""
        pair = self.pairs.get((master, slave))
        self.federation.look(self.clock.now_s())
        routes = self._routes(pair) if pair is not None else ()
        return routes[0] if routes else None

    def is_under_way(self, link_id: LinkId) -> bool:
        """Tell whether a relay that has begun spends key of a hop."""
        hop = self.network.hops[link_id]
        return any(self._reserved_bytes(link_id, site) for site in (hop.a, hop.b))

    def leave_all(self, links: Iterable[LinkId]) -> None:
        """Leave the routes over some links, and look at once."""
        for link_id in links:
            self.leave(link_id)
        self._wake.set()

    def outlook(self, of_parts: OutlookOfParts) -> Callable[[SaeId, SaeId], tuple[str, float] | None]:
        """Return what tells a pair that waits when key may come, and in how many seconds.

        ``of_parts`` answers for two sets of sites, each joined by fibre. A pair inside one gets no answer.
        """
        parts = {site: part for part in self._fibre_parts() for site in part}

        def ask(master: SaeId, slave: SaeId) -> tuple[str, float] | None:
            pair = self.pairs.get((master, slave))
            if pair is None or parts[pair.start] is parts[pair.end]:
                return None
            found = of_parts(parts[pair.start], parts[pair.end])
            if found is None:
                return None
            return str(found), max(0.0, found.expected_s - self.clock.now_s()) / self.clock.speed

        return ask

    def _fibre_parts(self) -> tuple[frozenset[SiteId], ...]:
        """Return the sets of sites that fibre and borders join, satellites left out."""
        by_pass = {link for link, line in self.book.lines.items() if line.by_pass}
        joined = [(a, b) for link, a, b in self.network.edges() if link not in by_pass]
        return connected_parts(self.network.sites, joined)

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
        in_turn = self._in_turn()
        await self._read_stocks([pair for pair in in_turn if pair.demands == NO_DEMANDS])
        self._searches = 0
        self.federation.look(self.clock.now_s())
        # Waiting pairs first, in turn: how much one asks for buys it no place before the others (I9).
        for pair in sorted(in_turn, key=lambda pair: (not pair.waiting_bytes, pair.served_at_s)):
            self._serve(pair)
        shortage = self._lacking_now()
        if shortage != self.shortage:
            self.shortage = shortage
            self.shortage_changed()

    def _in_turn(self) -> list[Pair]:
        """Return the pairs to look at now."""
        self._looks += 1
        free = [pair for pair in (*self.pairs.values(), *self.special.values()) if not pair.relaying]
        if len(free) > PAIRS_PER_LOOK:
            free = nsmallest(PAIRS_PER_LOOK, free, key=lambda pair: (not pair.waiting_bytes, pair.looked_at))
        for pair in free:
            pair.looked_at = self._looks
        return free

    def _lacking_now(self) -> Shortage:
        """Return what all pairs lacked when they were last looked at."""
        shortage = Shortage()
        for pair in (*self.pairs.values(), *self.special.values()):
            if pair.lacks and not pair.relaying:
                (shortage.waited_for if pair.waiting_bytes else shortage.short).update(pair.lacks)
        return shortage

    async def _read_stocks(self, pairs: list[Pair]) -> None:
        def work(transaction: StoreTransaction) -> list[int]:
            return [
                stock_bytes(KmeView(transaction, kme_of_site(pair.start)), pair.master, pair.slave)
                for pair in pairs
            ]

        # A waiting application is served by a relay even if the stock looks large enough: a key never spans
        # two batches, so many small rests may not make the key that it wants.
        for pair, stock in zip(pairs, await self.store.run(work), strict=True):
            pair.stock_bytes = stock

    def _serve(self, pair: Pair) -> None:
        wanted, pair.lacks = self._lacking(pair), ()
        if not wanted or not self._look_for_routes(pair):
            return
        stocks = [self._available(link, site) for link, site in pair.edges]
        least = min(wanted, pair.waiting_bytes or REFILL_BYTES_MIN)
        key_bytes = affordable_bytes(wanted, least, stocks, hop_bytes(0))
        if not key_bytes and pair.waiting_bytes and self._may_bridge(pair):
            # The first hops give the key itself; others are crossed without a pad where they have none.
            firsts = [self._available(*next(route.edges)) for route in pair.routes]
            key_bytes = affordable_bytes(wanted, least, firsts, hop_bytes(0))
        if key_bytes and len(self._tasks) < RELAYS_AT_ONCE_MAX:
            pair.relaying, pair.served_at_s = True, self.clock.now_s()
            want = self._wanted(pair, key_bytes)
            spent = self._spent(want)
            self._reserve(spent, 1)
            self._tasks.add(task := asyncio.create_task(self._relay(pair, want, spent)))
            task.add_done_callback(self._tasks.discard)
        elif not key_bytes:
            # What would do now; a full batch is for the time when the hops are full.
            edges = zip(pair.edges, stocks, strict=True)
            pair.lacks = tuple(link for (link, _), stock in edges if stock < hop_bytes(least))

    def _lacking(self, pair: Pair) -> int:
        """Return how much key a pair should get now; 0 if it has enough."""
        rule = self.network.stock
        usual = KEY_BYTES * rule.pair_low_keys, KEY_BYTES * rule.pair_high_keys
        low_bytes, high_bytes = pair.watermarks or usual
        if pair.demands != NO_DEMANDS:
            low_bytes = high_bytes = 0
        if pair.fill_up:
            low_bytes = high_bytes
        demand = PairDemand(
            pair.master, pair.slave, pair.stock_bytes, low_bytes, high_bytes, pair.waiting_bytes
        )
        if pair.waiting_bytes and pair.stock_bytes >= high_bytes:
            # The stock is all rests too small for this key: exactly what is wanted, not one more rest.
            return min(batch_bytes(demand), pair.waiting_bytes)
        return batch_bytes(demand)

    def _look_for_routes(self, pair: Pair) -> bool:
        """Keep a pair's routes up to date; tell whether it has as many as it needs."""
        now_s = self.clock.now_s()
        old = len(pair.routes) < pair.paths or now_s - pair.routed_at_s > ROUTE_KEPT_S * self.clock.speed
        if old and (pair.waiting_bytes or self._searches < SEARCHES_PER_LOOK):
            self._searches += 1
            pair.routes, pair.routed_at_s = self._routes(pair), now_s
        return len(pair.routes) == pair.paths

    def _routes(self, pair: Pair) -> tuple[Route, ...]:
        """Return disjoint routes that keep to a pair's demands, or none if there are too few.

        Without the orchestrator a pair keeps to the borders of its last routes.
        """
        policy = self._policy(pair)
        if policy is None:
            return ()
        found = self.federation.routes(pair.start, pair.end, pair.paths, policy)
        routes, pair.why_not = found.routes, found.reason
        if routes:
            pair.ways = found.ways
        elif pair.ways and self.federation.orchestrator_lost:
            routes = self.federation.along(pair.ways, pair.start, pair.end, policy)
        # A way from one side of a border to the other has no QKD link, and so no key to give.
        return routes if len(routes) == pair.paths and all(route.hops for route in routes) else ()

    def _policy(self, pair: Pair) -> RoutePolicy | None:
        """Return what a pair's routes must keep to, or None if that cannot be."""
        demands = pair.demands
        avoid = frozenset(demands.avoid)
        if avoid & {pair.start, pair.end}:
            pair.why_not = "an end of the pair is to be avoided"
            return None
        if pair.paths > PATHS_MAX:
            pair.why_not = f"{pair.paths} ways; at most {PATHS_MAX} are looked for"
            return None
        return RoutePolicy(
            avoid_domains=avoid & frozenset(self.network.domains),
            avoid_sites=avoid,
            avoid_links=avoid,
            hops_max=demands.max_hops,
            epsilon_max=demands.max_epsilon,
        )

    def _may_bridge(self, pair: Pair) -> bool:
        return self.policy is HybridPolicy.EITHER and not pair.demands.no_computational

    def _wanted(self, pair: Pair, key_bytes: int) -> KeyWanted:
        """Write down what is to be agreed, with all that its provenance will say.

        The range that a hop will spend lies somewhere in what is spoken for, this batch included: the
        epsilons of all blocks in there are summed (never too small, invariant I7).
        """
        spent_bytes = hop_bytes(key_bytes)
        lines = [self.book.lines[link] for link, _ in pair.edges]
        now_s = time.time()
        return KeyWanted(
            origin_kme=kme_of_site(pair.start),
            target_kme=kme_of_site(pair.end),
            master_sae=pair.master,
            slave_sae=pair.slave,
            key_bytes=key_bytes,
            paths=tuple(self._path(route, spent_bytes) for route in pair.routes),
            threshold=len(pair.routes),
            policy=self.policy,
            deadline_s=now_s + DEADLINE_S,
            protocols=("decoy-state BB84",),
            proofs=tuple(sorted({line.figures.proof_id for line in lines})),
            simulated=True,
            domains=self._crossed(pair),
        )

    def _path(self, route: Route, spent_bytes: int) -> KeyPath:
        """Describe a way; hops that have not key enough for it are to be bridged (see :meth:`_serve`)."""
        edges = list(route.edges)
        dry: tuple[LinkId, ...] = ()
        if self.policy is HybridPolicy.EITHER:
            dry = tuple(link for link, site in edges if self._available(link, site) < spent_bytes)
        padded = [(link, site) for link, site in edges if link not in dry]
        epsilons = (
            self.book.epsilon_of_next(link, site, self._reserved_bytes(link, site) + spent_bytes)
            for link, site in padded
        )
        form = RelayForm.COMPUTATIONAL if dry else RelayForm.HOP
        passes = tuple(
            each
            for link, site in padded
            for each in self.passes_of(link, site, self._reserved_bytes(link, site) + spent_bytes)
        )
        return KeyPath(route.sites, route.links, form, sum(epsilons), bridged=dry, passes=passes)

    def _crossed(self, pair: Pair) -> tuple[str, ...]:
        """Return the domains of the nodes between the ends."""
        between = {site for route in pair.routes for site in route.sites[1:-1]}
        return tuple(sorted({self.network.sites[site].domain for site in between}))

    def _spent(self, want: KeyWanted) -> list[tuple[LinkId, SiteId, int]]:
        """Return what a batch will spend of each hop's direction."""
        return [
            (LinkId(link), SiteId(site), hop_bytes(want.key_bytes))
            for path in want.paths
            for link, site in zip(path.links, path.route, strict=False)
            if link not in path.bridged and not is_border(link)
        ]

    def _cost(self, link_id: LinkId, sender: SiteId) -> float:
        if self.book.lines[link_id].unusable:
            return inf
        full = max(1.0, self.network.stock.low_bits / 8)
        scarcity = 1 - min(1.0, max(0, self._available(link_id, sender)) / full)
        return 1 + (EMPTY_HOP_COST - 1) * scarcity

    def _available(self, link_id: LinkId, sender: SiteId) -> int:
        stock = self.book.lines[link_id].stock_bytes[sender]
        return stock - self._reserved_bytes(link_id, sender)

    def _reserved_bytes(self, link_id: LinkId, sender: SiteId) -> int:
        return self._reserved.get((link_id, sender), 0)

    def _reserve(self, spent: Collection[tuple[LinkId, SiteId, int]], sign: int) -> None:
        """Speak for what a batch will spend, or give it free again."""
        for link, site, length_bytes in spent:
            self._reserved[link, site] = self._reserved_bytes(link, site) + sign * length_bytes

    async def _relay(self, pair: Pair, want: KeyWanted, spent: list[tuple[LinkId, SiteId, int]]) -> None:
        try:
            done = await run_relay(self.store, want, self.ring)
        except RelayFailed as error:
            log.warning("relay from %s to %s failed: %s", pair.start, pair.end, error)
            pair.routes = ()
            self._book_spends(error.spends)
            if error.forged_on is not None:
                # Each further try would burn good key on the hops before it.
                self.book.lines[error.forged_on].standing_still = "a relay met a wrong MAC on it"
                self.leave(error.forged_on)
        else:
            self._book_relay(done)
            self.relayed(done)
            pair.waiting_bytes, pair.fill_up = 0, False
            self.arrived(pair.master, pair.slave)
        finally:
            self._reserve(spent, -1)
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
        first, made = order.paths[0], provenance_of(order)
        self.recent.append(
            {
                "batch_tag": f"{order.batch_tag:010x}",
                "master_sae": order.master_sae,
                "slave_sae": order.slave_sae,
                "sites": list(first.route),
                "links": list(first.links),
                "hops": len(first.qkd_links),
                "paths": [{"sites": list(path.route), "links": list(path.links)} for path in order.paths],
                "hybrid": list(made.hybrid),
                "computational": made.computational,
                "at_s": self.clock.now_s(),
                "took_s": done.took_s,
            }
        )
