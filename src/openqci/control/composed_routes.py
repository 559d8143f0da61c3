"""Routes over several domains, each of which sees its own interior alone.

The orchestrator finds ways from border to border (:mod:`openqci.control.gateways`); each domain on them then
chooses its *segments*, from where its keys come in to where they leave. Segments of one question share no
node inside a domain, and no two ways share a gate, so that the whole routes share no node. A domain that has
no room for all segments asked of it says so; then the routes are grown one by one, each domain saying what
one more would cost it, given those that it carries already (:class:`_Growing`).

A question between two nodes of one domain is that domain's own, and its routes stay inside as long as there
are enough: so loss of the orchestrator, or of a neighbour, takes nothing from it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import msgspec
import numpy as np

from openqci.control.gateways import DIRECT_MAX, Border, Crossings, Gateways, Way, WayQuestion
from openqci.control.offers import Crossing, Gate
from openqci.control.policy import ANY_ROUTE, LinkFacts, NodeFacts, RoutePolicy
from openqci.control.routing import COST_GRAIN, NO_BOUNDS, Cost, Epsilon, Flow, Port, Prices, Route, Router
from openqci.core.errors import invariant
from openqci.core.identifiers import LinkId, SiteId

LENGTH_PRICES = (0.0, 32.0, 1024.0, 32768.0)
"""What the whole of a bound on length costs, tried in turn until the routes keep the policy's bounds."""

GATE_COST_MAX = 1e5
"""A crossing that costs more is none: no gate of a domain is so far from another."""


class Interior:
    """One domain as its controller routes over it: its own nodes and hops, and its gates.

    ``gates`` name its borders. Nodes of its own that stand in a partner's site are passed by no route of
    the interior: who sits in that site would see two routes.
    """

    def __init__(
        self,
        domain: str,
        hops: Iterable[tuple[LinkId, SiteId, SiteId]],
        nodes: Sequence[NodeFacts],
        links: Iterable[LinkFacts],
        gates: Sequence[Gate],
        guests: Iterable[SiteId] = (),
    ) -> None:
        self.domain, self.gates = domain, tuple(gates)
        self.router = Router(hops, nodes=nodes, links=links)
        self.nodes = frozenset(node.site_id for node in nodes)
        self._gate_nodes = sorted({SiteId(gate.node) for gate in gates})
        self.guests = frozenset(guests)
        self._prices: Prices | None = None
        self._known: dict[object, object] = {}

    def price(self, cost: Cost, epsilon: Epsilon | None = None) -> None:
        """Take what each hop costs from now on."""
        self._prices = self.router.price(cost, epsilon)
        self.forget()

    def forget(self) -> None:
        """Drop what was found at the prices that stand; it is found anew when it is asked for."""
        self._known.clear()

    def crossings(self, policy: RoutePolicy = ANY_ROUTE, length_price: float = 0.0) -> Crossings:
        """Return what it costs from gate to gate, where there is a way."""
        gates = self._gate_nodes
        if not gates:
            return {}
        costs = self._costs(gates, gates, policy, length_price)
        return {
            (one, other): float(costs[row, column])
            for row, one in enumerate(gates)
            for column, other in enumerate(gates)
            if one != other and costs[row, column] < GATE_COST_MAX
        }

    def offered(self) -> tuple[Crossing, ...]:
        """Return the crossings as an offer has them."""
        return tuple(Crossing(one, other, cost) for (one, other), cost in self.crossings().items())

    def departures(self, site: SiteId, policy: RoutePolicy, length_price: float) -> dict[SiteId, float]:
        """Return what it costs from a node to each gate."""
        if not self._gate_nodes:
            return {}
        costs = self._costs([site], self._gate_nodes, policy, length_price)[0]
        return dict(zip(self._gate_nodes, costs.tolist(), strict=True))

    def arrivals(self, site: SiteId, policy: RoutePolicy, length_price: float) -> dict[SiteId, float]:
        """Return what it costs from each gate to a node."""
        if not self._gate_nodes:
            return {}
        costs = self._costs(self._gate_nodes, [site], policy, length_price)[:, 0]
        return dict(zip(self._gate_nodes, costs.tolist(), strict=True))

    def shut_gates(self, policy: RoutePolicy) -> frozenset[SiteId]:
        """Return the gates that a policy lets no route pass."""
        if not policy.names_places:
            return frozenset()
        facts = map(self.router.node_facts, self._gate_nodes)
        return frozenset(node.site_id for node in facts if policy.refuses_node(node) is not None)

    def alone(self, source: SiteId, target: SiteId, k: int, policy: RoutePolicy) -> tuple[Route, ...]:
        """Return up to k routes that do not leave the domain and keep the policy's bounds."""
        avoided = policy.avoid_sites | (self.guests - {source, target})
        within = msgspec.structs.replace(policy, avoid_sites=avoided)
        return self.router.disjoint_routes(source, target, k, self._priced(0.0, policy), within)

    def segments(
        self,
        starts: Sequence[SiteId],
        ends: Sequence[SiteId],
        policy: RoutePolicy,
        length_price: float,
        source: SiteId,
        target: SiteId,
    ) -> tuple[Route, ...] | None:
        """Return a segment for every start, or None if there is no room for all."""
        key = (tuple(sorted(starts)), tuple(sorted(ends)), policy, length_price, source, target)
        if key not in self._known:
            within = self._within(policy, (*starts, *ends))
            prices = self._priced(length_price, policy)
            found = self.router.segments(starts, ends, prices, within, source, target)
            self._known[key] = found if len(found) == len(starts) else None
        known = self._known[key]
        return known if isinstance(known, tuple) else None

    def flow(
        self,
        ports: Sequence[Port],
        policy: RoutePolicy,
        length_price: float,
        source: SiteId,
        target: SiteId,
    ) -> Flow:
        """Return what this domain carries of a question, nothing yet."""
        unpassed = (self.guests | {source, target}) & self.nodes
        unbounded = msgspec.structs.replace(policy, **NO_BOUNDS)
        key = ("flow", tuple(ports), policy, length_price, unpassed)
        known = self._known.get(key)
        like = known if isinstance(known, Flow) else None
        made = self.router.flow(ports, self._priced(length_price, policy), unbounded, unpassed, like)
        if like is None:
            self._known[key] = self.router.flow(
                ports, self._priced(length_price, policy), unbounded, unpassed, made
            )
        return made

    def cost_of(self, route: Route) -> float:
        """Return what a route over this interior costs now."""
        prices = self._priced(0.0, ANY_ROUTE)
        return COST_GRAIN * sum(float(prices.grains[self.router.place(edge)]) for edge in route.edges)

    def epsilon_of(self, route: Route) -> float:
        """Return the epsilon that a route over this interior adds."""
        epsilons = self._priced(0.0, ANY_ROUTE).epsilons
        if epsilons is None:
            return 0.0
        return sum(float(epsilons[self.router.place(edge)]) for edge in route.edges)

    def _costs(
        self, sources: Sequence[SiteId], targets: Sequence[SiteId], policy: RoutePolicy, length_price: float
    ) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
        key = ("costs", tuple(sources), tuple(targets), policy, length_price)
        if key not in self._known:
            within = self._within(policy, ())
            prices = self._priced(length_price, policy)
            self._known[key] = self.router.costs_between(sources, targets, prices, within)
        return np.asarray(self._known[key])

    def _within(self, policy: RoutePolicy, ends: Iterable[SiteId]) -> RoutePolicy:
        """Return a policy whose bounds are for the whole route to keep, with the guests' sites closed."""
        avoided = policy.avoid_sites | (self.guests - set(ends))
        return msgspec.structs.replace(policy, avoid_sites=avoided, **NO_BOUNDS)

    def _priced(self, length_price: float, policy: RoutePolicy) -> Prices:
        prices = self._prices
        if prices is None:
            prices = self._prices = self.router.price(lambda link, sender: 1.0)
        if not length_price:
            return prices
        length = self.router.length(prices, policy)
        return Prices(np.round(prices.grains + length_price / COST_GRAIN * length), prices.epsilons)


@dataclass(frozen=True)
class Composed:
    """Routes with the ways that they take, and why there are no more, if there are fewer than asked for."""

    routes: tuple[Route, ...] = ()
    ways: tuple[Way, ...] = ()
    reason: str = ""


NO_GATEWAYS = "the orchestrator does not answer, and the routes leave their domain"


@dataclass
class Composer:
    """Puts routes together from what the orchestrator and the domains say.

    ``gateways`` returns the orchestrator's map, or None while it does not answer.
    """

    interiors: Mapping[str, Interior]
    gateways: Callable[[], Gateways | None]
    _domain_of: dict[SiteId, str] = field(init=False)
    _whole: Router = field(init=False)

    def __post_init__(self) -> None:
        self._domain_of = {site: name for name, each in self.interiors.items() for site in each.nodes}
        hops = [hop for each in self.interiors.values() for hop in each.router.hops]
        borders = [
            (LinkId(gate.border), SiteId(gate.node), SiteId(gate.partner))
            for each in self.interiors.values()
            for gate in each.gates
            if gate.node in each.guests
        ]
        self._whole = Router([*hops, *borders], self._domain_of)

    def connected(self, source: SiteId, target: SiteId) -> bool:
        """Tell whether any chain of hops and borders joins two nodes, whatever is closed now."""
        return self._whole.connected(source, target)

    def domain_of(self, site: SiteId) -> str:
        """Return the domain that a node belongs to."""
        return self._domain_of[site]

    def routes(self, source: SiteId, target: SiteId, k: int = 1, policy: RoutePolicy = ANY_ROUTE) -> Composed:
        """Return k routes that share no node, or none and the reason."""
        ends = self._domain_of.get(source), self._domain_of.get(target)
        if ends[0] is None or ends[1] is None or source == target:
            return Composed(reason="the ends are not two nodes of this network")
        if ends[0] == ends[1]:
            own = self.interiors[ends[0]].alone(source, target, k, policy)
            if len(own) == k:
                return Composed(own, tuple(Way((ends[0],), ()) for _ in own))
        gateways = self.gateways()
        if gateways is None:
            return Composed(reason=NO_GATEWAYS)
        reason = ""
        for length_price in LENGTH_PRICES if policy.bounded else LENGTH_PRICES[:1]:
            question = self._question(source, target, k, policy, length_price)
            found = self._composed(gateways, question, policy, length_price)
            if len(found.routes) < k:
                return found
            reason = self._excess(found.routes, policy)
            if not reason:
                return found
        return Composed(reason=reason)

    def along(
        self, ways: Sequence[Way], source: SiteId, target: SiteId, policy: RoutePolicy = ANY_ROUTE
    ) -> tuple[Route, ...]:
        """Return routes over the borders of ways that were found before, without the orchestrator.

        None at all if a domain has no room for its segments any more, or the policy's bounds are not kept.
        """
        ends = (self._domain_of[source], self._domain_of[target])
        question = WayQuestion(*ends, len(ways), {}, {}, source, target)
        segments, full = self._segments(ways, question, policy, 0.0)
        routes = () if full is not None else _chained(ways, segments, question)
        return () if not routes or self._excess(routes, policy) else routes

    def _question(
        self, source: SiteId, target: SiteId, k: int, policy: RoutePolicy, length_price: float
    ) -> WayQuestion:
        one, other = (self.interiors[self._domain_of[end]] for end in (source, target))
        unbounded = msgspec.structs.replace(policy, **NO_BOUNDS)
        direct = one.alone(source, target, min(k, DIRECT_MAX), unbounded) if one is other else ()
        plain = unbounded == ANY_ROUTE and not length_price
        crossings: dict[tuple[SiteId, SiteId], float] = {}
        for interior in () if plain else self.interiors.values():
            crossings.update(interior.crossings(policy, length_price))
        return WayQuestion(
            one.domain,
            other.domain,
            k,
            one.departures(source, policy, length_price),
            other.arrivals(target, policy, length_price),
            source,
            target,
            direct=len(direct),
            direct_cost=min(map(one.cost_of, direct), default=0.0),
            shut=frozenset().union(*(each.shut_gates(policy) for each in self.interiors.values())),
            crossings=None if plain else crossings,
            node_disjoint=policy.node_disjoint,
        )

    def _composed(
        self, gateways: Gateways, question: WayQuestion, policy: RoutePolicy, length_price: float
    ) -> Composed:
        """Ask for ways, and the domains for their segments; where one has no room, let routes grow."""
        ways = gateways.ways(question)
        if len(ways) < question.paths:
            return Composed(reason=_why_not(question, len(ways)))
        segments, full = self._segments(ways, question, policy, length_price)
        if full is None:
            return Composed(_chained(ways, segments, question), ways)
        if not policy.node_disjoint:
            return Composed(reason=f"{full} has no room for all segments that the ways need there")
        return _Growing(self, gateways, question, policy, length_price).composed()

    def _segments(
        self, ways: Sequence[Way], question: WayQuestion, policy: RoutePolicy, length_price: float
    ) -> tuple[list[Route], str | None]:
        """Ask every domain for its segments; return them all, or the first domain that has no room."""
        asked: dict[str, list[tuple[SiteId, SiteId]]] = {}
        for way in ways:
            starts = [question.source, *(border.far for border in way.borders)]
            ends = [*(border.near for border in way.borders), question.target]
            for domain, start, end in zip(way.domains, starts, ends, strict=True):
                asked.setdefault(domain, []).append((start, end))
        found: list[Route] = []
        for domain, between in asked.items():
            places = [start for start, _ in between], [end for _, end in between]
            segments = self.interiors[domain].segments(
                *places, policy, length_price, question.source, question.target
            )
            if segments is None:
                return [], domain
            found += segments
        return found, None

    def _excess(self, routes: Sequence[Route], policy: RoutePolicy) -> str:
        """Return which bound of a policy the routes do not keep, empty if they keep all."""
        longest = max(route.hops for route in routes)
        if policy.hops_max is not None and longest > policy.hops_max:
            return f"{longest} hops, at most {policy.hops_max} are allowed"
        epsilon = sum(self.epsilon_of(route) for route in routes)
        if policy.epsilon_max is not None and epsilon > policy.epsilon_max:
            return f"epsilon {epsilon:.2g}, at most {policy.epsilon_max:.2g} is allowed"
        return ""

    def cost_of(self, route: Route) -> float:
        """Return what a whole route costs now."""
        return sum(self.interiors[domain].cost_of(part) for domain, part in self._parts_of(route))

    def epsilon_of(self, route: Route) -> float:
        """Return the epsilon that a whole route adds to a key's."""
        return sum(self.interiors[domain].epsilon_of(part) for domain, part in self._parts_of(route))

    def _parts_of(self, route: Route) -> Iterator[tuple[str, Route]]:
        """Yield each hop of a route with the domain that it lies in."""
        ends = dict(pairwise(route.sites))
        for link, sender in route.edges:
            yield self._domain_of[sender], Route((sender, ends[sender]), (link,))


def _why_not(question: WayQuestion, most: int) -> str:
    if not most:
        return "no way over the borders is open"
    return f"{most} of {question.paths} ways over the borders that share no gate"


@dataclass(frozen=True)
class _Arc:
    """A border in one direction as a growing flow crosses it."""

    border: Border
    leave: Port
    enter: Port


class _Growing:
    """Routes that grow one by one, each at the least more cost of all, where those before may be bent for it.

    Successive shortest paths as in one network (:mod:`openqci.control.routing`), with the residual graph cut
    up: each domain says what one more route from port to port of its own would cost, given what it carries of
    this question. So the routes are the cheapest there are, and exist if any do.
    """

    def __init__(
        self,
        composer: Composer,
        gateways: Gateways,
        question: WayQuestion,
        policy: RoutePolicy,
        length_price: float,
    ) -> None:
        self._question, self._composer = question, composer
        self._guests = frozenset().union(*(each.guests for each in composer.interiors.values()))
        self._crossed: list[_Arc] = []
        self._arcs = [self._arc(border) for border in gateways.open_borders(question.shut)]
        self._forward = {(arc.leave, arc.enter): arc for arc in self._arcs}
        self._flows = {
            name: composer.interiors[name].flow(ports, policy, length_price, question.source, question.target)
            for name, ports in self._ports().items()
        }
        self._index = {port: at for at, port in enumerate(p for f in self._flows.values() for p in f.ports)}

    def composed(self) -> Composed:
        """Grow as many routes as are asked for."""
        for number in range(self._question.paths):
            if not self._grow():
                wanted = f"{number} of {self._question.paths} routes that share no node"
                return Composed(reason=f"{wanted}, whatever way the domains choose inside")
        segments = [
            segment for name, flow in self._flows.items() for segment in flow.segments(self._entrances(name))
        ]
        borders = [arc.border for arc in self._crossed]
        routes = _joined(segments, borders, self._question)
        return Composed(routes, tuple(map(self._way, routes)))

    def _arc(self, border: Border) -> _Arc:
        near_guest, far_guest = border.near in self._guests, border.far in self._guests
        return _Arc(border, Port(border.near, not near_guest), Port(border.far, far_guest))

    def _ports(self) -> dict[str, list[Port]]:
        """Return where routes come into each domain or go out; a guest is not passed, only its border is."""
        ports = {Port(self._question.source, True), Port(self._question.target, False)}
        ports.update(port for arc in self._arcs for port in (arc.leave, arc.enter))
        grouped: dict[str, list[Port]] = {}
        for port in sorted(ports):
            grouped.setdefault(self._composer.domain_of(port.site), []).append(port)
        return grouped

    def _entrances(self, domain: str) -> list[Port]:
        nodes = self._composer.interiors[domain].nodes
        starts = [Port(self._question.source, True)] * self._question.paths
        return [port for port in (*starts, *(arc.enter for arc in self._crossed)) if port.site in nodes]

    def _grow(self) -> bool:
        """Add one route; False if there is none any more."""
        path = self._cheapest()
        for one, other in pairwise(path):
            forward = self._forward.get((one, other))
            back = next((arc for arc in self._crossed if (arc.enter, arc.leave) == (one, other)), None)
            domains = [self._composer.domain_of(port.site) for port in (one, other)]
            if domains[0] == domains[1]:
                if not self._flows[domains[0]].push(one, other):
                    return False
            elif back is not None:
                self._crossed.remove(back)
            elif forward is not None:
                self._crossed.append(forward)
        return bool(path)

    def _cheapest(self) -> list[Port]:
        """Return the ports of the cheapest further route; none if there is none.

        By the algorithm of R. Bellman and L. Ford, since bending a route back gives its cost back.
        """
        costs = self._costs()
        start = self._index[Port(self._question.source, True)]
        end = self._index[Port(self._question.target, False)]
        distances = np.full(len(costs), np.inf)
        distances[start] = 0.0
        before = np.full(len(costs), -1)
        changed = np.array([start])
        for _ in range(len(costs)):
            through = distances[changed, None] + costs[changed]
            nearest = through.argmin(axis=0)
            shorter = through[nearest, np.arange(len(costs))]
            better = shorter < distances - COST_GRAIN / 2
            if not better.any():
                break
            distances[better], before[better] = shorter[better], changed[nearest[better]]
            changed = np.flatnonzero(better)
        if np.isinf(distances[end]):
            return []
        ports = list(self._index)
        path = [end]
        while path[-1] != start:
            invariant(len(path) < len(costs), "a cheapest route has no circle: costs are whole grains")
            path.append(int(before[path[-1]]))
        return [ports[at] for at in reversed(path)]

    def _costs(self) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
        """Return what one more route costs from port to port, inside each domain and over the borders."""
        costs = np.full((len(self._index), len(self._index)), np.inf)
        for flow in self._flows.values():
            first = self._index[flow.ports[0]]
            costs[first : first + len(flow.ports), first : first + len(flow.ports)] = flow.table()
        used = {arc.border.link_id for arc in self._crossed}
        for arc in self._arcs:
            if arc.border.link_id not in used:
                costs[self._index[arc.leave], self._index[arc.enter]] = COST_GRAIN
        for arc in self._crossed:
            costs[self._index[arc.enter], self._index[arc.leave]] = -COST_GRAIN
        np.fill_diagonal(costs, np.inf)
        return costs

    def _way(self, route: Route) -> Way:
        crossed = {arc.border.link_id: arc.border for arc in self._crossed}
        borders = tuple(crossed[link] for link in route.links if link in crossed)
        sites = (route.sites[0], *(border.far for border in borders))
        return Way(tuple(map(self._composer.domain_of, sites)), borders)


def _chained(ways: Sequence[Way], segments: Iterable[Route], question: WayQuestion) -> tuple[Route, ...]:
    return _joined(segments, [border for way in ways for border in way.borders], question)


def _joined(segments: Iterable[Route], borders: Iterable[Border], question: WayQuestion) -> tuple[Route, ...]:
    """Put segments together at the borders. A domain may have matched them otherwise than was asked."""
    begins: dict[SiteId, list[Route]] = {}
    for segment in segments:
        begins.setdefault(segment.sites[0], []).append(segment)
    leaves: dict[SiteId, list[Border]] = {}
    for border in borders:
        leaves.setdefault(border.near, []).append(border)
    routes = []
    for _ in range(question.paths):
        route = begins[question.source].pop(0)
        while route.sites[-1] != question.target:
            border = leaves[route.sites[-1]].pop(0)
            segment = begins[border.far].pop(0)
            links = (*route.links, border.link_id, *segment.links)
            route = Route((*route.sites, *segment.sites), links)
        routes.append(route)
    return tuple(routes)
