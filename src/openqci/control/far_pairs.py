"""Pairs whose two KMEs are no neighbours: what their stocks lack, and by which routes it comes.

A node decides this by itself, from the configuration of its domain and from what it has met: a link on which
a relay has just failed costs more for a while, so that the next relay goes another way, if there is one. The
figures are handed in; who acts on them is ``openqci.services.relay_keeper``.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf

from openqci.control.configuration import DomainConfiguration, Link, Node, Pair
from openqci.control.policy import ANY_ROUTE, LinkFacts, NodeFacts, RoutePolicy
from openqci.control.routing import Route, Router
from openqci.core.identifiers import DomainId, KmeId, LinkId, SaeId, SiteId
from openqci.relay import hop_bytes

BATCH_BYTES_MAX = 8_192
"""Longest batch of one relay, so that one pair cannot empty a route at once (invariant I9)."""

KEY_UNIT_BYTES = 32
BATCHES_UNDER_WAY_MAX = 8
"""Per pair: batches whose relays have not ended."""

TROUBLE_S = 10.0
TROUBLE_COST = 32.0
"""What a link costs more for so long after a relay failed on it: a detour of as many links is preferred."""

PLAIN_RATE_BPS = 10_000.0
SLOW_COST_MAX = 8.0
"""A link of this rate costs twice as much as one without limit, a slower one more, up to the bound."""


@dataclass(frozen=True)
class FarDemand:
    """A pair whose slave is served beyond this node's neighbours, and how its stock is to be kept.

    ``waiting_bytes`` is the largest request that waits now, for keys of ``key_bytes``.
    """

    master: SaeId
    slave: SaeId
    target: KmeId
    low_bytes: int
    high_bytes: int
    priority: int = 3
    ttl_s: float = 0.0
    collect_s: float = 0.0
    paths: int = 1
    hybrid: str = "both"
    policy: RoutePolicy = ANY_ROUTE
    waiting_bytes: int = 0
    key_bytes: int = KEY_UNIT_BYTES


@dataclass(frozen=True)
class FarStock:
    """What a pair has, and what is on its way to it."""

    stock_bytes: int
    coming_bytes: Sequence[int] = ()


def batch_bytes(demand: FarDemand, stock: FarStock) -> int:
    """Return the length of the batch that the pair should get now; 0 if it has enough or enough is coming.

    >>> demand = FarDemand(SaeId("a"), SaeId("b"), KmeId("k"), low_bytes=320, high_bytes=960)
    >>> batch_bytes(demand, FarStock(64)), batch_bytes(demand, FarStock(64, (896,)))
    (896, 0)
    """
    coming = sum(stock.coming_bytes)
    waiting = demand.waiting_bytes - coming
    if len(stock.coming_bytes) >= BATCHES_UNDER_WAY_MAX:
        return 0
    if stock.stock_bytes + coming >= demand.low_bytes and waiting <= 0:
        return 0
    lacking = max(demand.high_bytes - stock.stock_bytes - coming, waiting)
    keys = min(-(-lacking // demand.key_bytes), BATCH_BYTES_MAX // demand.key_bytes)
    return keys * demand.key_bytes


class DomainRoutes:
    """Routes over a domain as one of its nodes sees it."""

    def __init__(self, configuration: DomainConfiguration, here: KmeId) -> None:
        self.configuration, self.here = configuration, here
        self._links = {LinkId(link.link_id): link for link in configuration.links}
        self._router = Router(
            ((LinkId(link.link_id), SiteId(link.a), SiteId(link.b)) for link in configuration.links),
            nodes=(_facts(configuration, node) for node in configuration.nodes),
            links=(LinkFacts(LinkId(link.link_id)) for link in configuration.links),
        )
        self._trouble_until_s: dict[LinkId, float] = {}

    def demand_of(
        self, master: SaeId, slave: SaeId, collect_s: float, pair: Pair | None = None
    ) -> FarDemand | None:
        """Return the demand of a pair; None if the domain serves its slave nowhere, or here."""
        target = self.configuration.kme_of(slave)
        if target is None or target == self.here:
            return None
        given = pair or next(
            (each for each in self.configuration.pairs if (each.master, each.slave) == (master, slave)),
            Pair(master, slave),
        )
        return FarDemand(
            master,
            slave,
            target,
            given.low_keys * KEY_UNIT_BYTES,
            given.high_keys * KEY_UNIT_BYTES,
            given.priority,
            given.ttl_s,
            min(collect_s, given.ttl_s / 2),
            given.paths,
            given.hybrid,
            policy_of(given),
        )

    def failed_at(self, route: Sequence[str], node: str, now_s: float) -> None:
        """Note that a relay was not carried on beyond a node of its route; blame the hop that it needed."""
        if node in route:
            place = min(route.index(node), len(route) - 2)
            self._blame(route[place], route[place + 1], now_s)

    def stuck_on(self, route: Sequence[str], now_s: float) -> None:
        """Note that nothing was heard of a relay in time: any hop of its route may be the one."""
        for sender, receiver in pairwise(route):
            self._blame(sender, receiver, now_s)

    def _blame(self, sender: str, receiver: str, now_s: float) -> None:
        for link_id, link in self._links.items():
            if {link.a, link.b} == {sender, receiver}:
                self._trouble_until_s[link_id] = now_s + TROUBLE_S

    def routes(
        self, demand: FarDemand, stock_of: Callable[[LinkId], int], length_bytes: int, now_s: float
    ) -> tuple[Route, ...]:
        """Return as many disjoint routes as the pair wants, or none if there are fewer.

        ``stock_of`` tells what this node may begin to spend of each of its own links.
        """

        def cost(link_id: LinkId, sender: SiteId) -> float:
            link = self._links[link_id]
            if not link.usable:
                return inf
            slow = min(PLAIN_RATE_BPS / link.rate_bps, SLOW_COST_MAX) if link.rate_bps > 0 else 0.0
            troubled = now_s < self._trouble_until_s.get(link_id, 0.0)
            empty = sender == SiteId(self.here) and stock_of(link_id) < hop_bytes(length_bytes)
            return 1.0 + slow + (TROUBLE_COST if troubled or empty else 0.0)

        ends = SiteId(self.here), SiteId(demand.target)
        found = self._router.disjoint_routes(*ends, demand.paths, cost, demand.policy)
        return found if len(found) == demand.paths else ()

    def unusable(self, links: Sequence[str]) -> bool:
        """Tell whether the configuration has taken any of these links out, or knows it no more."""
        known = [self._links.get(LinkId(link)) for link in links]
        return any(link is None or not link.usable for link in known)

    def made(self, route: Route) -> list[Link]:
        """Return what the configuration says of the links of a route."""
        return [self._links[link] for link in route.links]

    def joined(self, target: KmeId) -> bool:
        """Tell whether any chain of links joins this node and another."""
        return self._router.connected(SiteId(self.here), SiteId(target))


def _facts(configuration: DomainConfiguration, node: Node) -> NodeFacts:
    site, domain = SiteId(node.kme_id), DomainId(configuration.domain)
    return NodeFacts(site, node.country, domain, node.operator, node.trust)


def policy_of(pair: Pair) -> RoutePolicy:
    """Return what routes of a pair must keep to.

    >>> policy_of(Pair("a", "b", avoid=("country:HU", "kme:kme-x"))).avoid_countries
    frozenset({'HU'})
    """
    named = [wish.partition(":")[::2] for wish in pair.avoid]

    def avoided(kind: str) -> frozenset[str]:
        return frozenset(name for word, name in named if word == kind)

    return RoutePolicy(
        avoid_countries=avoided("country"),
        avoid_operators=avoided("operator"),
        avoid_sites=avoided("kme"),
        avoid_links=avoided("link"),
        hops_max=pair.hops_max if pair.hops_max < Pair("", "").hops_max else None,
    )


def with_waiting(
    demands: Iterable[FarDemand], waiting: Mapping[tuple[SaeId, SaeId], tuple[int, int]]
) -> list[FarDemand]:
    """Return the demands in the order in which they are served, with what requests wait for.

    ``waiting`` has the bytes of the largest request of a pair and the size of its keys.
    """
    named = []
    for each in demands:
        wanted_bytes, key_bytes = waiting.get((each.master, each.slave), (0, each.key_bytes))
        named.append(replace(each, waiting_bytes=wanted_bytes, key_bytes=key_bytes))
    return sorted(named, key=lambda each: (-each.priority, not each.waiting_bytes))
