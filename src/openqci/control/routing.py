"""Routes over the live network: the cheapest way, or the cheapest ways that share no node, at this moment.

Not a forecast and not a reservation: whoever asks says what each hop costs now, and counts what it has
promised to other relays. A hop that is down costs infinity. A hop that lacks key should cost more but not
infinity: then a route goes round it where that is not far, and where there is no other way the route still
says which hops must make key.

Several routes are found by successive shortest paths with potentials on the graph of split nodes (J. W.
Suurballe, Networks 4, 125 (1974); J. W. Suurballe and R. E. Tarjan, Networks 14, 325 (1984)): their *sum* is
the least of all, also where the cheapest route alone would leave no second one. Decision 0008 has the
measurements.

>>> ring = [("ab", "a", "b"), ("bc", "b", "c"), ("cd", "c", "d"), ("da", "d", "a")]
>>> router = Router([(LinkId(link), SiteId(a), SiteId(b)) for link, a, b in ring])
>>> router.route(SiteId("a"), SiteId("b"), lambda link_id, sender: 1.0).links
('ab',)
>>> [each.links for each in router.disjoint_routes(SiteId("a"), SiteId("c"), 2, lambda link_id, sender: 1.0)]
[('ab', 'bc'), ('da', 'cd')]
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

from openqci.control.policy import ANY_ROUTE, HOPS_BOUND_MAX, LinkFacts, NodeFacts, RoutePolicy
from openqci.core.identifiers import LinkId, SiteId, is_border

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Cost = Callable[[LinkId, SiteId], float]
"""Cost of one hop when ``SiteId`` sends over it: above zero; ``inf`` if it must not be used."""

Epsilon = Callable[[LinkId], float]
"""Security parameter that a relay over a hop adds to the key's."""

COST_MAX = 1e6
"""Costs above count as this much: with the grain below, sums over 8,000 hops stay exact."""

COST_GRAIN = 2.0**-20
"""Costs are rounded to multiples of this, at least one: sums in binary floating point are exact then, so that
equal costs are equal in every process, and potentials never leave a cost below zero."""

PATHS_MAX = 16
"""More shares than this, no network has ways for and no relay has use for."""

BOUND_STEPS = 12
"""Halvings in the search for the price of length under which routes keep a policy's bounds."""

NO_BOUNDS: dict[str, None] = {"hops_max": None, "epsilon_max": None}

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int32]


@dataclass(frozen=True, order=True)
class Route:
    """A way through the network: n + 1 nodes and the n links between them."""

    sites: tuple[SiteId, ...]
    links: tuple[LinkId, ...]

    @property
    def hops(self) -> int:
        """How many QKD hops it has; borders are none."""
        return sum(not is_border(link) for link in self.links)

    @property
    def edges(self) -> Iterator[tuple[LinkId, SiteId]]:
        """Each QKD hop with the site that sends over it."""
        return (edge for edge in zip(self.links, self.sites, strict=False) if not is_border(edge[0]))


@dataclass(frozen=True)
class Prices:
    """What all hops cost at one moment: made once by :meth:`Router.price`, used for many questions.

    ``grains`` has one cost per hop and sending end, in the router's order, in units of the grain;
    ``epsilons``, in the same order, is None where no question asks for it.
    """

    grains: Floats
    epsilons: Floats | None = None


class Router:
    """Finds routes; the network's shape is given once, the costs with each question.

    Parameters
    ----------
    hops : iterable of (link, end, other end)
        Every QKD hop of the network, and its borders by their names, which bounds on hops do not count.
        Several links may join the same two nodes.
    sites : iterable of SiteId
        Further nodes to know of, with or without a hop; only :meth:`unreachable_from` speaks of them.
    nodes, links : iterable of NodeFacts, of LinkFacts
        What policies ask about. A node or link without facts has none of the good properties.

    Notes
    -----
    The graph has two vertices for each node, where routes come in and where they go out, joined by an arc of
    no cost. An arc for each hop and direction leads from "out" to "in". Every arc has a twin that leads back;
    it is open only while a route that was found before can be bent along it. Arcs are sorted by names, so
    that the order in which hops are given is of no consequence.
    """

    def __init__(
        self,
        hops: Iterable[tuple[LinkId, SiteId, SiteId]],
        sites: Iterable[SiteId] = (),
        *,
        nodes: Iterable[NodeFacts] = (),
        links: Iterable[LinkFacts] = (),
    ) -> None:
        each_way = sorted(
            (sender, receiver, link) for link, *ends in hops for sender, receiver in _ways(ends)
        )
        self._node_facts = {node.site_id: node for node in nodes}
        self._link_facts = {link.link_id: link for link in links}
        known = {sender for sender, _, _ in each_way} | set(sites) | self._node_facts.keys()
        self._sites = sorted(known)
        self._index = {site: number for number, site in enumerate(self._sites)}
        self._senders = [sender for sender, _, _ in each_way]
        self._links = [link for _, _, link in each_way]
        self._is_hop = np.array([not is_border(link) for link in self._links], dtype=float)
        count = len(self._sites)
        into = np.arange(count) * 2
        tails = np.concatenate([into, [2 * self._index[sender] + 1 for sender, _, _ in each_way]])
        heads = np.concatenate([into + 1, [2 * self._index[receiver] for _, receiver, _ in each_way]])
        self._hop_of = {edge: hop for hop, edge in enumerate(self.edges)}
        self._arcs = _Arcs.of(tails.astype(np.int32), heads.astype(np.int32), 2 * count)
        self._parts = self._arcs.parts()

    def price(self, cost: Cost, epsilon: Epsilon | None = None) -> Prices:
        """Ask what every hop costs, for several questions at one moment."""
        asked = np.array([cost(link, sender) for link, sender in self.edges], dtype=float)
        epsilons = None if epsilon is None else np.array([epsilon(link) for link in self._links])
        return Prices(in_grains(asked), epsilons)

    def without(self, prices: Prices, links: Collection[LinkId]) -> Prices:
        """Return the same prices with some links closed."""
        closed = [link in links for link in self._links]
        return Prices(np.where(closed, inf, prices.grains), prices.epsilons)

    @property
    def edges(self) -> Iterator[tuple[LinkId, SiteId]]:
        """Every (link, sender), in the order of the arrays of :class:`Prices`."""
        return zip(self._links, self._senders, strict=True)

    @property
    def hops(self) -> Iterator[tuple[LinkId, SiteId, SiteId]]:
        """Every hop once, with its ends."""
        for link, sender in self.edges:
            receiver = self._sites[self._arcs.ends[len(self._sites) + self._hop_of[link, sender]][1] // 2]
            if sender < receiver:
                yield link, sender, receiver

    def place(self, edge: tuple[LinkId, SiteId]) -> int:
        """Return the place of a (link, sender) in the arrays of :class:`Prices`."""
        return self._hop_of[edge]

    def length(self, prices: Prices, policy: RoutePolicy) -> Floats:
        """Return the part that each hop takes of a policy's bounds, in the order of the prices."""
        return self._length(prices, policy)[len(self._sites) :]

    def route(
        self, source: SiteId, target: SiteId, cost: Cost | Prices, policy: RoutePolicy = ANY_ROUTE
    ) -> Route | None:
        """Return the cheapest route, or None if there is none at finite cost or no way to go at all.

        Among routes of equal cost the choice is the same in every process; among parallel links of equal cost
        it is the first by name.
        """
        return next(iter(self.disjoint_routes(source, target, 1, cost, policy)), None)

    def disjoint_routes(
        self, source: SiteId, target: SiteId, k: int, cost: Cost | Prices, policy: RoutePolicy = ANY_ROUTE
    ) -> tuple[Route, ...]:
        """Return the k routes of least total cost that share nothing but their ends, cheapest first.

        Parameters
        ----------
        source, target : SiteId
        k : int
            How many, 1 to :data:`PATHS_MAX`.
        cost : Cost or Prices
            A function is asked once for every hop and direction; :meth:`price` saves that for the next time.
        policy : RoutePolicy
            With ``node_disjoint=False`` routes may share nodes, but no link.

        Returns
        -------
        tuple of Route
            As many as there are where there are fewer than k, so **count them**; none if an end is unknown or
            both ends are one. With ``hops_max`` or ``epsilon_max`` they keep the bound, but may cost more
            than the best that do (that problem is NP-hard for two routes; here length gets a price, which is
            raised until the bounds hold); where no price does, there are none.
        """
        if not 1 <= k <= PATHS_MAX:
            raise ValueError(f"{k} routes; expected 1 to {PATHS_MAX}")
        start, end = self._index.get(source), self._index.get(target)
        if start is None or end is None or start == end or self._parts[2 * start] != self._parts[2 * end]:
            return ()
        prices = cost if isinstance(cost, Prices) else self.price(cost)
        ends = (2 * start + 1,) * k, (2 * end,) * k
        search = _Search(self._arcs, self._open(prices, policy), *ends, policy.node_disjoint)
        if not policy.bounded:
            return self._routes(search.ways())
        return self._bounded_routes(search, k, prices, policy)

    def segments(
        self,
        starts: Sequence[SiteId],
        ends: Sequence[SiteId],
        cost: Cost | Prices,
        policy: RoutePolicy = ANY_ROUTE,
        source: SiteId | None = None,
        target: SiteId | None = None,
    ) -> tuple[Route, ...]:
        """Return routes of least total cost that share nothing, from the starts to the ends in any matching.

        For a network that is part of a larger one: each segment comes in at a start and leaves at an end, and
        may be one node alone. ``source`` and ``target`` are the ends of the whole, which several segments
        may begin or end at and none may pass; they are exempt from the policy. Fewer segments than
        starts if there is no room for all: **count them**. Bounds of the policy are not looked at.
        """
        prices = cost if isinstance(cost, Prices) else self.price(cost)
        costs = self._open(prices, policy)
        for end in (source, target):
            if end in self._index:
                costs[self._index[end]] = inf
        first = [2 * self._index[site] + (site == source) for site in starts]
        last = [2 * self._index[site] + (site != target) for site in ends]
        search = _Search(self._arcs, costs, first, last, policy.node_disjoint)
        return tuple(self._segment(way) for way in search.ways(keep_starts=True))

    def flow(
        self,
        ports: Sequence["Port"],
        cost: Cost | Prices,
        policy: RoutePolicy = ANY_ROUTE,
        passed_by_none: Collection[SiteId] = (),
        like: "Flow | None" = None,
    ) -> "Flow":
        """Return what the network carries of a question between ports, nothing yet; see :class:`Flow`.

        ``like`` is one that was made of the same before, so that not all is found anew.
        """
        prices = cost if isinstance(cost, Prices) else self.price(cost)
        costs = self._open(prices, policy)
        for site in passed_by_none:
            costs[self._index[site]] = inf
        return Flow(self, costs, ports, like)

    def costs_between(
        self,
        sources: Sequence[SiteId],
        targets: Sequence[SiteId],
        cost: Cost | Prices,
        policy: RoutePolicy = ANY_ROUTE,
    ) -> Floats:
        """Return the cost of the cheapest route from each source to each target, ``inf`` where there is none.

        Every source and target must be known; all are exempt from the policy, as ends are.
        """
        prices = cost if isinstance(cost, Prices) else self.price(cost)
        costs = self._arcs.forward(self._open(prices, policy))
        starts = [2 * self._index[site] + 1 for site in sources]
        grains = self._arcs.distances(costs, starts)[:, [2 * self._index[site] for site in targets]]
        same = [[source == target for target in targets] for source in sources]
        return np.where(same, 0.0, grains * COST_GRAIN)

    def in_order(
        self, source: SiteId, target: SiteId, cost: Cost | Prices, policy: RoutePolicy = ANY_ROUTE
    ) -> Iterator[Route]:
        """Yield all routes without circles, the cheapest first; bounds of the policy are not looked at.

        To say what else there is, one after the other: each costs a search from every node of the one before
        (J. Y. Yen, Management Science 17, 712 (1971)).
        """
        prices = cost if isinstance(cost, Prices) else self.price(cost)
        first = self.route(source, target, prices, msgspec.structs.replace(policy, **NO_BOUNDS))
        costs = self._open(prices, policy)
        seen: list[Route] = []
        waiting = [] if first is None else [(self._cost(first, costs), len(first.links), first)]
        known = {route for *_, route in waiting}
        while waiting:
            seen.append(route := heappop(waiting)[-1])
            yield route
            for branch in self._branches(route, seen, costs):
                if branch not in known:
                    known.add(branch)
                    heappush(waiting, (self._cost(branch, costs), len(branch.links), branch))

    def tree(self, source: SiteId, cost: Cost | Prices, policy: RoutePolicy = ANY_ROUTE) -> "RouteTree":
        """Return the cheapest routes from one node to all others; bounds of the policy are not looked at.

        KeyError if the node is unknown.
        """
        prices = cost if isinstance(cost, Prices) else self.price(cost)
        costs = self._open(prices, policy)
        grains, before = self._arcs.tree(self._arcs.forward(costs), 2 * self._index[source] + 1)
        return RouteTree(self, source, grains, before, costs)

    def unreachable_from(self, source: SiteId, cost: Cost = lambda link_id, sender: 1.0) -> frozenset[SiteId]:
        """Return the known nodes to which no route of finite cost leads: all, if ``source`` is not known."""
        if source not in self._index:
            return frozenset(self._index)
        tree = self.tree(source, cost)
        return frozenset(site for site in self._sites if site != source and tree.cost_to(site) == inf)

    def connected(self, source: SiteId, target: SiteId) -> bool:
        """Return whether any chain of hops joins the two nodes, whatever it costs."""
        start, end = self._index.get(source), self._index.get(target)
        return start is not None and end is not None and self._parts[2 * start] == self._parts[2 * end]

    def node_facts(self, site: SiteId) -> NodeFacts:
        """Return what is known of a node."""
        return self._node_facts.get(site) or NodeFacts(site)

    def link_facts(self, link: LinkId) -> LinkFacts:
        """Return what is known of a link."""
        return self._link_facts.get(link) or LinkFacts(link)

    def _open(self, prices: Prices, policy: RoutePolicy) -> Floats:
        """Return the costs of all forward arcs, infinite where the policy lets no route pass."""
        nodes = np.zeros(len(self._sites))
        grains = prices.grains
        nodes[[self._index[SiteId(site)] for site in policy.avoid_sites if site in self._index]] = inf
        if policy.names_more_than_sites:
            refused = [policy.refuses_node(self.node_facts(site)) is not None for site in self._sites]
            nodes[refused] = inf
        if policy.avoid_links or (self._link_facts and not policy.computational):
            barred = {link for link in set(self._links) if policy.refuses_link(self.link_facts(link))}
            if barred:
                grains = np.where([link in barred for link in self._links], inf, grains)
        return np.concatenate([nodes, grains])

    def _bounded_routes(
        self, search: "_Search", k: int, prices: Prices, policy: RoutePolicy
    ) -> tuple[Route, ...]:
        """Raise the price of length until the routes keep the policy's bounds; return the cheapest."""
        plain, length = search.costs, self._length(prices, policy)
        dearest = float(np.max(plain, initial=1.0, where=np.isfinite(plain)))

        def kept_at(price: float) -> tuple[Route, ...]:
            search.costs = _scaled(plain + price * length)
            routes = self._routes(search.ways())
            return routes if len(routes) == k and self._keeps(routes, prices, policy) else ()

        if best := kept_at(0.0):
            return best
        # At the highest price length alone counts, and costs break ties. Length is below one per hop and at
        # least 1/HOPS_BOUND_MAX of what is bounded.
        low, high = dearest / HOPS_BOUND_MAX, dearest * HOPS_BOUND_MAX**2
        best = kept_at(high)
        for _ in range(BOUND_STEPS if best else 0):
            middle = (low * high) ** 0.5
            if routes := kept_at(middle):
                best, high = routes, middle
            else:
                low = middle
        return best

    def _branches(self, route: Route, seen: Sequence[Route], costs: Floats) -> Iterator[Route]:
        """Yield the cheapest routes that leave this one at each of its nodes, by ways not seen yet."""
        end = 2 * self._index[route.sites[-1]]
        count = len(self._sites)
        costs = costs.copy()
        for place, site in enumerate(route.sites[:-1]):
            root, links = route.sites[: place + 1], route.links[:place]
            here = costs.copy()
            for other in seen:
                if (other.sites[: place + 1], other.links[:place]) == (root, links):
                    here[count + self._hop_of[other.links[place], site]] = inf
            ways = _Search(self._arcs, here, (2 * self._index[site] + 1,), (end,), True).ways()
            for rest in self._routes(ways):
                yield Route(root[:-1] + rest.sites, links + rest.links)
            # From here on no branch may come back to this node.
            costs[self._index[site]] = inf

    def _cost(self, route: Route, costs: Floats) -> float:
        hops = [self._hop_of[edge] for edge in zip(route.links, route.sites, strict=False)]
        return float(costs[len(self._sites) :][hops].sum())

    def _length(self, prices: Prices, policy: RoutePolicy) -> Floats:
        """Return the length of each forward arc: its part of the bound that the policy sets, or of both."""
        hops = len(self._links)
        length = np.zeros(hops)
        if policy.hops_max is not None:
            length += self._is_hop / max(1, policy.hops_max)
        if policy.epsilon_max is not None:
            length += _epsilons(prices) / max(policy.epsilon_max, 1e-300)
        return np.concatenate([np.zeros(len(self._sites)), length])

    def _keeps(self, routes: Sequence[Route], prices: Prices, policy: RoutePolicy) -> bool:
        if policy.hops_max is not None and max(route.hops for route in routes) > policy.hops_max:
            return False
        if policy.epsilon_max is None:
            return True
        of_link = dict(zip(self._links, _epsilons(prices).tolist(), strict=True))
        spent = sum(of_link[link] for route in routes for link in route.links)
        return bool(spent <= policy.epsilon_max)

    def _routes(self, ways: Iterable[Sequence[int]]) -> tuple[Route, ...]:
        """Return the routes whose ways are given as forward arcs."""
        return tuple(self._route(way) for way in ways)

    def _route(self, way: Iterable[int]) -> Route:
        """Return the route of a way, the forward arcs from source to target; arcs through nodes drop out."""
        count = len(self._sites)
        hops = [arc - count for arc in way if arc >= count]
        last = self._sites[self._arcs.ends[hops[-1] + count][1] // 2]
        sites = (*(self._senders[hop] for hop in hops), last)
        return Route(sites, tuple(self._links[hop] for hop in hops))

    def _segment(self, way: Sequence[int]) -> Route:
        """Return the route of a way that begins with its first vertex; it may have no hop."""
        start, *arcs = way
        hops = [arc for arc in arcs if arc >= len(self._sites)]
        return self._route(hops) if hops else Route((self._sites[start // 2],), ())

    def _cheapest_hop(self, sender: int, receiver: int, costs: Floats) -> int:
        """Return the number of the hop between two neighbours, given the costs of all forward arcs."""
        arc = self._arcs.cheapest(2 * sender + 1, 2 * receiver, costs.__getitem__)
        return arc - len(self._sites)


@dataclass(frozen=True, order=True)
class Port:
    """Where routes of a larger network come in or go out: before a node is passed, or behind it."""

    site: SiteId
    behind: bool


class Flow:
    """What one network carries of the routes of a larger one, and what it would cost to carry more.

    Routes that are carried already may be bent for it: the cost from port to port is that of all routes with
    one more, less that of all before, and may be below zero.
    """

    def __init__(self, router: Router, costs: Floats, ports: Sequence[Port], like: "Flow | None") -> None:
        self.ports = list(ports)
        self._router, self._arcs = router, router._arcs
        self._vertices = [2 * router._index[port.site] + port.behind for port in ports]
        self._search = _Search(self._arcs, costs, (), (), node_disjoint=True)
        self._residual = self._arcs.forward(costs)
        self._used: dict[int, int] = {}
        self._paths = like._found() if like is not None else None

    def table(self) -> Floats:
        """Return the cost of one more route from each port to each, ``inf`` where there is none."""
        return self._found()[0][:, self._vertices] * COST_GRAIN

    def push(self, entrance: Port, leave: Port) -> bool:
        """Carry one more route from port to port; False, and nothing is changed, if there is no way."""
        row, end = self.ports.index(entrance), self._vertices[self.ports.index(leave)]
        distances, before = self._found()
        if distances[row, end] == inf:
            return False
        steps = list(_steps(before[row].tolist(), end))
        self._search._augment(self._residual, self._residual, steps, self._used)
        self._paths = None
        return True

    def segments(self, entrances: Iterable[Port]) -> tuple[Route, ...]:
        """Return what is carried as routes, one from each port at which the larger network comes in."""
        leaving = self._search.leaving(self._used)
        return tuple(
            self._router._segment([start, *self._search._follow(start, leaving)])
            for start in (2 * self._router._index[port.site] + port.behind for port in entrances)
        )

    def _found(self) -> tuple[Floats, Indices]:
        if self._paths is None:
            self._paths = self._arcs.all_paths(self._residual, self._vertices)
        return self._paths


class RouteTree:
    """The cheapest routes from one node to all others, as :meth:`Router.tree` returns them."""

    def __init__(
        self, router: Router, source: SiteId, grains: Floats, before: Indices, costs: Floats
    ) -> None:
        self.router, self.source = router, source
        self._costs, self._before, self._prices = grains.tolist(), before.tolist(), costs
        # Each route goes on where another ends: what was walked once is kept.
        self._known: dict[int, tuple[tuple[SiteId, ...], tuple[LinkId, ...]]] = {
            router._index[source]: ((source,), ())
        }

    def cost_to(self, target: SiteId) -> float:
        """Return the cost of the cheapest route, ``inf`` where there is none or the node is unknown."""
        end = self.router._index.get(target)
        if end is None:
            return inf
        return 0.0 if target == self.source else self._costs[2 * end] * COST_GRAIN

    def route_to(self, target: SiteId) -> Route | None:
        """Return the cheapest route, None where there is none."""
        if target == self.source or self.cost_to(target) == inf:
            return None
        return Route(*self._way_to(self.router._index[target]))

    def _way_to(self, node: int) -> tuple[tuple[SiteId, ...], tuple[LinkId, ...]]:
        back = []
        while node not in self._known:
            back.append(node)
            node = self._before[2 * node] // 2
        sites, links = self._known[node]
        for number in reversed(back):
            hop = self.router._cheapest_hop(node, number, self._prices)
            sites, links = (*sites, self.router._sites[number]), (*links, self.router._links[hop])
            self._known[number] = sites, links
            node = number
        return sites, links


@dataclass(frozen=True)
class _Arcs:
    """The arcs of the split graph and their twins, in the order of a compressed sparse matrix.

    Arc ``i`` of ``n`` leads forward; its twin ``i + n`` leads back. The first arcs, one for each two
    vertices, lead through nodes.
    """

    tails: Indices
    heads: Indices
    vertices: int
    order: npt.NDArray[np.intp]
    starts: Indices
    columns: Indices
    ends: list[tuple[int, int]]
    between: dict[tuple[int, int], list[int]]

    @classmethod
    def of(cls, tails: Indices, heads: Indices, vertices: int) -> "_Arcs":
        all_tails, all_heads = np.concatenate([tails, heads]), np.concatenate([heads, tails])
        order = np.lexsort((all_heads, all_tails))
        starts = np.searchsorted(all_tails[order], np.arange(vertices + 1)).astype(np.int32)
        ends = list(zip(all_tails.tolist(), all_heads.tolist(), strict=True))
        between: dict[tuple[int, int], list[int]] = {}
        for arc, two in enumerate(ends):
            between.setdefault(two, []).append(arc)
        return cls(all_tails, all_heads, vertices, order, starts, all_heads[order], ends, between)

    def forward(self, costs: Floats) -> Floats:
        """Return the costs of all arcs while no route is found yet: all twins closed."""
        return np.concatenate([costs, np.full(len(costs), inf)])

    # SciPy is imported where it is used: a node that goes by its last configuration starts without it.

    def tree(self, costs: Floats, *starts: int) -> tuple[Floats, Indices]:
        """Return distances from the nearest start, and the vertex before each (below zero: none)."""
        from scipy.sparse.csgraph import dijkstra

        graph = self._graph(costs)
        distances, before, _ = dijkstra(graph, indices=starts, return_predecessors=True, min_only=True)
        return distances, before

    def distances(self, costs: Floats, starts: Sequence[int]) -> Floats:
        """Return distances from each start to each vertex."""
        from scipy.sparse.csgraph import dijkstra

        distances: Floats = dijkstra(self._graph(costs), indices=starts)
        return distances

    def all_paths(self, costs: Floats, starts: Sequence[int]) -> tuple[Floats, Indices]:
        """Return distances from each start, and the vertices before; costs may be below zero."""
        from scipy.sparse.csgraph import dijkstra, johnson

        find = johnson if (costs < 0).any() else dijkstra
        distances, before = find(self._graph(costs), indices=starts, return_predecessors=True)
        return distances, before

    def _graph(self, costs: Floats) -> "csr_array":
        from scipy.sparse import csr_array

        matrix = (costs[self.order], self.columns, self.starts)
        return csr_array(matrix, shape=(self.vertices, self.vertices))

    def parts(self) -> list[int]:
        """Return a number for each vertex, equal for those that arcs join."""
        part = list(range(self.vertices))

        def root(vertex: int) -> int:
            while part[vertex] != vertex:
                part[vertex] = part[part[vertex]]
                vertex = part[vertex]
            return vertex

        for tail, head in self.ends:
            part[root(tail)] = root(head)
        return [root(vertex) for vertex in range(self.vertices)]

    def cheapest(self, tail: int, head: int, cost: Callable[[int], float]) -> int:
        """Return the cheapest arc between two vertices, the first by name of several."""
        arcs = self.between[tail, head]
        return arcs[0] if len(arcs) == 1 else min(arcs, key=cost)


@dataclass
class _Search:
    """Ways from vertices to vertices, one after the other, each at the least more cost.

    A vertex that stands several times among the starts or the ends has so many ways begin or end there.
    """

    arcs: _Arcs
    costs: Floats
    """Of the forward arcs."""
    starts: Sequence[int]
    ends: Sequence[int]
    node_disjoint: bool

    def ways(self, *, keep_starts: bool = False) -> list[list[int]]:
        """Return up to as many ways as there are starts, as lists of forward arcs, cheapest first.

        With ``keep_starts`` each has its first vertex before its arcs.
        """
        residual = self.arcs.forward(self.costs)
        potentials = np.zeros(self.arcs.vertices)
        used: dict[int, int] = {}
        starts, ends = Counter(self.starts), Counter(self.ends)
        begun: list[int] = []
        while starts and ends:
            # With potentials no arc of the residual graph costs less than zero (Edmonds and Karp, 1972); the
            # starts that are left keep the potential 0, since they are at no distance from themselves.
            reduced = residual + potentials[self.arcs.tails] - potentials[self.arcs.heads]
            distances, before = self.arcs.tree(reduced, *sorted(starts))
            end = min(ends, key=lambda vertex: (float(distances[vertex] + potentials[vertex]), vertex))
            if distances[end] == inf:
                break
            steps = list(_steps(before.tolist(), end))
            self._augment(residual, reduced, steps, used)
            potentials += np.minimum(distances, distances[end])
            begun.append(steps[-1][0] if steps else end)
            starts, ends = starts - Counter(begun[-1:]), ends - Counter([end])
        leaving = self.leaving(used)
        ways = [(start, self._follow(start, leaving)) for start in begun]
        ways.sort(key=lambda way: (float(self.costs[way[1]].sum()), len(way[1]), way[1]))
        return [[start, *arcs] if keep_starts else arcs for start, arcs in ways]

    def leaving(self, used: Mapping[int, int]) -> dict[int, list[int]]:
        """Return the arcs that all ways use together, by the vertex that they leave."""
        leaving: dict[int, list[int]] = {}
        for arc in sorted(arc for arc, times in used.items() for _ in range(times)):
            leaving.setdefault(self.arcs.ends[arc][0], []).append(arc)
        return leaving

    def _augment(
        self, residual: Floats, reduced: Floats, steps: Iterable[tuple[int, int]], used: dict[int, int]
    ) -> None:
        """Send one more route along the path that was found; twins take back what earlier ones used.

        Of parallel arcs it takes the cheapest by the ``reduced`` costs.
        """
        count = len(self.costs)
        for tail, head in steps:
            arc = self.arcs.cheapest(tail, head, reduced.__getitem__)
            if arc < count:
                used[arc] = used.get(arc, 0) + 1
                residual[arc + count] = -self.costs[arc]
                if not self._many_may_use(arc):
                    residual[arc] = inf
            else:
                used[arc - count] -= 1
                residual[arc - count] = self.costs[arc - count]
                if not used[arc - count]:
                    residual[arc] = inf

    def _many_may_use(self, arc: int) -> bool:
        """Whether several routes may use a forward arc: one through a node, where only links must differ."""
        return not self.node_disjoint and arc < self.arcs.vertices // 2

    def _follow(self, start: int, leaving: dict[int, list[int]]) -> list[int]:
        """Take one way out of what all use together, the arcs that leave each vertex.

        There are no circles in it: they would cost. It ends where no arc is left: as many ways end at a
        vertex as come in and do not go on.
        """
        way: list[int] = []
        vertex = start
        while leaving.get(vertex):
            way.append(arc := leaving[vertex].pop(0))
            vertex = self.arcs.ends[arc][1]
        return way


def in_grains(costs: Floats) -> Floats:
    """Return costs as whole numbers of grains.

    >>> in_grains(np.array([1.0, 0.0, inf])).tolist()
    [1048576.0, 1.0, inf]
    """
    grains = np.round(np.minimum(costs, COST_MAX) / COST_GRAIN)
    return np.where(np.isinf(costs), inf, np.maximum(grains, 1.0))


def _scaled(grains: Floats) -> Floats:
    """Return costs as whole numbers again, none of them above what one hop may cost."""
    dearest = float(np.max(grains, initial=1.0, where=np.isfinite(grains)))
    return np.round(grains * min(1.0, COST_MAX / COST_GRAIN / dearest))


def _ways(ends: Sequence[SiteId]) -> tuple[tuple[SiteId, SiteId], tuple[SiteId, SiteId]]:
    a, b = ends
    return (a, b), (b, a)


def _steps(before: Sequence[int], end: int) -> Iterator[tuple[int, int]]:
    """Walk a tree from a vertex back to its root; yield each step as (vertex before, vertex)."""
    head = end
    while (tail := before[head]) >= 0:
        yield tail, head
        head = tail


def _epsilons(prices: Prices) -> Floats:
    if prices.epsilons is None:
        raise ValueError("the policy has epsilon_max: expected prices made with the hops' epsilons")
    return prices.epsilons
