"""Which routes are taken, and why not others: the answer that an operator can check.

A :class:`RouteAdvisor` is made of the nodes and hops of one network as they stand at one moment. Its answer
names each hop of the chosen routes with rate, stock, epsilon and cost, and routes that one would have
expected with what speaks against them: a hop in trouble, a place that the policy avoids, too many hops, a
node shared with a chosen route, or a higher cost and where it comes from.

>>> hops = [HopReading(LinkId(a + b), SiteId(a), SiteId(b)) for a, b in ("ab", "bc", "ac")]
>>> down = msgspec.structs.replace(hops[2], trouble="cut")
>>> advisor = RouteAdvisor([NodeFacts(SiteId(name)) for name in "abc"], [*hops[:2], down], CostRule(2048))
>>> answer = advisor.answer(RouteQuestion(SiteId("a"), SiteId("c")))
>>> answer.paths[0].sites, answer.refused[0].sites, answer.refused[0].reasons
(('a', 'b', 'c'), ('a', 'c'), ('link ac: cut',))
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice, pairwise
from math import inf

import msgspec

from openqci.control.composed_routes import Composer
from openqci.control.cost import EMPTY_HOP_COST, CostRule, HopReading, slowness_cost
from openqci.control.policy import ANY_ROUTE, LinkFacts, NodeFacts, RoutePolicy
from openqci.control.routing import Prices, Route, Router
from openqci.core.identifiers import LinkId, SiteId

ALTERNATIVES = 3
"""How many dearer routes are told; more would be read by nobody."""

LOOKED_AT_MAX = 24
"""Routes in order of cost that are looked at for these: many differ from a chosen one by one town."""

REASONS_MAX = 8
"""Reasons told for one route; the rest is counted."""

NAMES_TOLD = 3

NOTABLE_COST = 0.5
"""A hop that is dearer by less than this for want of key or rate is no reason."""

CLOSED_COST = 10_000.0
"""Cost of a closed hop or node in the search for the route that has the fewest of them."""


class RouteQuestion(msgspec.Struct, frozen=True):
    """From where to where, by how many routes, under which policy."""

    source: SiteId
    target: SiteId
    paths: int = 1
    policy: RoutePolicy = ANY_ROUTE


class HopAnswer(msgspec.Struct, frozen=True):
    """A hop of a route, from sender to receiver; stock is what the sender may begin to spend."""

    link_id: LinkId
    sender: SiteId
    receiver: SiteId
    rate_bps: float | None
    stock_bytes: int | None
    epsilon: float
    cost: float


class PathAnswer(msgspec.Struct, frozen=True):
    """A route with what it can do: its weakest rate, its poorest stock, the sum of its epsilons.

    ``domains`` are those that it leads over, in order.
    """

    sites: tuple[SiteId, ...]
    domains: tuple[str, ...]
    hops: tuple[HopAnswer, ...]
    cost: float
    rate_bps: float | None
    stock_bytes: int | None
    epsilon: float


class RefusedRoute(msgspec.Struct, frozen=True):
    """A route that was not taken, and why."""

    sites: tuple[SiteId, ...]
    links: tuple[LinkId, ...]
    cost: float | None
    reasons: tuple[str, ...]


class Closed(msgspec.Struct, frozen=True):
    """How many nodes or links no route may use for one reason; ``names`` are the first of them."""

    kind: str
    reason: str
    count: int
    names: tuple[str, ...]


class RouteAnswer(msgspec.Struct, frozen=True):
    """The whole answer. ``verdict`` is one sentence, ``complete`` says whether all routes were found."""

    question: RouteQuestion
    complete: bool
    verdict: str
    paths: tuple[PathAnswer, ...]
    refused: tuple[RefusedRoute, ...]
    closed: tuple[Closed, ...]


class RouteAdvisor:
    """Answers questions about the routes of one network at one moment.

    ``composer`` puts the routes together where the network has several domains, each with a controller of
    its own. What is told of other routes is told by one who sees all of them.
    """

    def __init__(
        self,
        nodes: Iterable[NodeFacts],
        hops: Iterable[HopReading],
        rule: CostRule,
        composer: Composer | None = None,
    ) -> None:
        self._composer = composer
        self._nodes = {node.site_id: node for node in nodes}
        self._hops = {hop.link_id: hop for hop in hops}
        self._rule = rule
        self.router = Router(
            ((hop.link_id, hop.a, hop.b) for hop in self._hops.values()),
            self._nodes,
            nodes=self._nodes.values(),
            links=(LinkFacts(hop.link_id, hop.parent_link, hop.computational) for hop in self._hops.values()),
        )

    def answer(self, question: RouteQuestion) -> RouteAnswer:
        """Choose the routes, and say why others were not chosen."""
        prices = self._prices(question.policy)
        chosen = self._chosen(question, prices)
        refused = self._refused(question, chosen, prices)
        return RouteAnswer(
            question=question,
            complete=len(chosen) == question.paths,
            verdict=self._verdict(question, chosen, prices),
            paths=tuple(map(self._path, chosen)),
            refused=tuple(refused),
            closed=tuple(self._closed(question.policy)),
        )

    def _chosen(self, question: RouteQuestion, prices: Prices) -> tuple[Route, ...]:
        """Return the routes asked for, or as many as there are."""
        ends, composer = (question.source, question.target), self._composer
        if composer is None:
            return self.router.disjoint_routes(*ends, question.paths, prices, question.policy)
        fewer = range(question.paths, 0, -1) if not question.policy.bounded else [question.paths]
        found = (composer.routes(*ends, k, question.policy).routes for k in fewer)
        cost = self._route_cost
        return tuple(sorted(next(filter(None, found), ()), key=lambda route: (cost(route), route)))

    def _domains_of(self, route: Route) -> tuple[str, ...]:
        named = [self.router.node_facts(site).domain for site in route.sites]
        return tuple(domain for domain, _ in groupby(named) if domain)

    def _prices(self, policy: RoutePolicy) -> Prices:
        hops = self._hops
        return self.router.price(
            lambda link, sender: self._rule.cost(hops[link], sender), lambda link: hops[link].epsilon
        )

    def _path(self, route: Route) -> PathAnswer:
        hops = tuple(
            self._hop(link, *ends) for link, ends in zip(route.links, pairwise(route.sites), strict=True)
        )
        rates = [hop.rate_bps for hop in hops if hop.rate_bps is not None]
        stocks = [hop.stock_bytes for hop in hops if hop.stock_bytes is not None]
        return PathAnswer(
            sites=route.sites,
            domains=self._domains_of(route),
            hops=hops,
            cost=sum(hop.cost for hop in hops),
            rate_bps=min(rates, default=None),
            stock_bytes=min(stocks, default=None),
            epsilon=sum(hop.epsilon for hop in hops),
        )

    def _hop(self, link: LinkId, sender: SiteId, receiver: SiteId) -> HopAnswer:
        hop = self._hops[link]
        cost = self._rule.cost(hop, sender)
        return HopAnswer(link, sender, receiver, hop.rate_bps, hop.stock_of(sender), hop.epsilon, cost)

    # Why not others

    def _refused(
        self, question: RouteQuestion, chosen: Sequence[Route], prices: Prices
    ) -> list[RefusedRoute]:
        refused = [self._refusal(route, question, chosen) for route in self._wished_for(question, chosen)]
        told = {*chosen, *(Route(each.sites, each.links) for each in refused)}
        in_order = self.router.in_order(question.source, question.target, prices, question.policy)
        others = (route for route in islice(in_order, LOOKED_AT_MAX) if route not in told)
        for route in others:
            if len(refused) >= ALTERNATIVES + question.paths:
                break
            refused.append(self._refusal(route, question, chosen))
        return refused

    def _wished_for(self, question: RouteQuestion, chosen: Sequence[Route]) -> list[Route]:
        """Return the routes that would be taken were nothing closed, or the least closed."""
        ends = question.source, question.target
        everything = RoutePolicy(node_disjoint=question.policy.node_disjoint, computational=True)
        ideal = self.router.disjoint_routes(
            *ends, question.paths, lambda link, _: self._ideal_cost(link), everything
        )
        if not chosen:
            least = self.router.route(
                *ends, lambda link, sender: self._cost_of_closure(link, sender, question), everything
            )
            ideal = (*ideal, *([least] if least is not None and least not in ideal else []))
        return [route for route in ideal if route not in chosen and any(self._objections(route, question))]

    def _ideal_cost(self, link: LinkId) -> float:
        hop = self._hops[link]
        return self._rule.cost_without_trouble(msgspec.structs.replace(hop, stock_bytes=None), hop.a)

    def _cost_of_closure(self, link: LinkId, sender: SiteId, question: RouteQuestion) -> float:
        """Return a cost that makes the cheapest route the one with the fewest closed hops and nodes."""
        hop = self._hops[link]
        receiver = hop.b if sender == hop.a else hop.a
        closed = int(self._link_objection(hop, question.policy) is not None)
        if receiver != question.target:
            closed += question.policy.refuses_node(self.router.node_facts(receiver)) is not None
        return self._rule.cost_without_trouble(hop, sender) + CLOSED_COST * closed

    def _refusal(self, route: Route, question: RouteQuestion, chosen: Sequence[Route]) -> RefusedRoute:
        reasons = list(self._objections(route, question)) or list(self._comparison(route, question, chosen))
        if len(reasons) > REASONS_MAX:
            reasons = [*reasons[:REASONS_MAX], f"and {len(reasons) - REASONS_MAX} more"]
        cost = self._route_cost(route)
        return RefusedRoute(route.sites, route.links, None if cost == inf else cost, tuple(reasons))

    def _objections(self, route: Route, question: RouteQuestion) -> Iterator[str]:
        """Yield what rules a route out by itself."""
        policy = question.policy
        yield from _each_reason(
            "link",
            ((link, self._link_objection(self._hops[link], policy)) for link in route.links),
        )
        yield from _each_reason(
            "site",
            ((site, policy.refuses_node(self.router.node_facts(site))) for site in route.sites[1:-1]),
        )
        if policy.hops_max is not None and route.hops > policy.hops_max:
            yield f"{route.hops} hops, at most {policy.hops_max} are allowed"
        epsilon = sum(self._hops[link].epsilon for link in route.links)
        if policy.epsilon_max is not None and epsilon > policy.epsilon_max:
            yield f"epsilon {epsilon:.2g}, at most {policy.epsilon_max:.2g} is allowed"

    def _link_objection(self, hop: HopReading, policy: RoutePolicy) -> str | None:
        facts = LinkFacts(hop.link_id, hop.parent_link, hop.computational)
        return hop.trouble or policy.refuses_link(facts)

    def _comparison(self, route: Route, question: RouteQuestion, chosen: Sequence[Route]) -> Iterator[str]:
        """Yield why the chosen routes go before one that is open."""
        for number, taken in enumerate(chosen, start=1):
            shared = [site for site in route.sites[1:-1] if site in set(taken.sites[1:-1])]
            if shared and question.policy.node_disjoint and question.paths > 1:
                yield f"shares {_some(shared)} with path {number}"
        cost = self._route_cost(route)
        if not chosen:
            yield f"with it there are not the {question.paths} routes within the bounds that are asked for"
        else:
            dearest = max(map(self._route_cost, chosen))
            cheapest = min(map(self._route_cost, chosen))
            domains = {domain for taken in chosen for domain in self._domains_of(taken)}
            if len(domains) == 1 and len(self._domains_of(route)) > 1:
                yield f"leaves {min(domains)}, which has routes of its own"
            if cost >= dearest:
                yield f"costs {cost:.2f}, {cost - cheapest:.2f} more than path 1"
            else:
                yield f"costs {cost:.2f}, but with it {question.paths} cost more together, or are not offered"
        for link, sender in zip(route.links, route.sites, strict=False):
            yield from self._dearness(self._hops[link], sender)

    def _dearness(self, hop: HopReading, sender: SiteId) -> Iterator[str]:
        scarcity, slowness = self._rule.scarcity_cost(hop, sender), slowness_cost(hop.rate_bps)
        if scarcity >= EMPTY_HOP_COST:
            yield f"link {hop.link_id} is empty from {sender}"
        elif scarcity >= NOTABLE_COST:
            yield f"link {hop.link_id} has {hop.stock_of(sender)} bytes left from {sender}"
        if slowness >= NOTABLE_COST:
            yield f"link {hop.link_id} is slow: {hop.rate_bps or 0:.0f} bit/s"
        if hop.risk >= NOTABLE_COST:
            yield f"link {hop.link_id} is held for risky, by {hop.risk:g} hops"

    def _route_cost(self, route: Route) -> float:
        ends = zip(route.links, route.sites, strict=False)
        return sum(self._rule.cost(self._hops[link], sender) for link, sender in ends)

    def _closed(self, policy: RoutePolicy) -> Iterator[Closed]:
        """Count what no route may use, by reason."""
        sites: dict[str, list[str]] = {}
        for site, node in self._nodes.items():
            if (reason := policy.refuses_node(node)) is not None:
                sites.setdefault(reason, []).append(site)
        links: dict[str, list[str]] = {}
        for link, hop in self._hops.items():
            if (reason := self._link_objection(hop, policy)) is not None:
                links.setdefault(reason, []).append(link)
        yield from _grouped("site", sites)
        yield from _grouped("link", links)

    # In one sentence

    def _verdict(self, question: RouteQuestion, chosen: Sequence[Route], prices: Prices) -> str:
        source, target, wanted = question.source, question.target, question.paths
        for end in (source, target):
            if end not in self._nodes:
                return f"{end} is not a site of this network"
        if source == target:
            return f"{source} is both ends: nothing to relay"
        if not self.router.connected(source, target):
            return f"no chain of QKD links joins {source} and {target}"
        if len(chosen) == wanted:
            return "1 route" if wanted == 1 else f"{wanted} routes that share no {self._unit(question)}"
        found = self.router.disjoint_routes(source, target, wanted, prices, _unbounded(question.policy))
        if len(found) == wanted:
            return (
                f"no {'route' if wanted == 1 else f'{wanted} routes'} within the bounds: {_bounds(question)}"
            )
        if not found:
            return "no route: what is closed cuts the network between the two"
        through = self._through(question, prices)
        how = f"; every route passes {_some(through)}" if through else ""
        return f"{len(found)} of {wanted} routes that share no {self._unit(question)}{how}"

    def _unit(self, question: RouteQuestion) -> str:
        return "node" if question.policy.node_disjoint else "link"

    def _through(self, question: RouteQuestion, prices: Prices) -> list[SiteId]:
        """Return the nodes that every open route passes."""
        policy = _unbounded(question.policy)
        ends = question.source, question.target
        route = self.router.route(*ends, prices, policy)
        if route is None:
            return []

        def passable_without(site: SiteId) -> bool:
            without = msgspec.structs.replace(policy, avoid_sites=policy.avoid_sites | {site})
            return self.router.route(*ends, prices, without) is not None

        return [site for site in route.sites[1:-1] if not passable_without(site)]


def _unbounded(policy: RoutePolicy) -> RoutePolicy:
    return msgspec.structs.replace(policy, hops_max=None, epsilon_max=None)


def _bounds(question: RouteQuestion) -> str:
    policy = question.policy
    hops = [] if policy.hops_max is None else [f"{policy.hops_max} hops"]
    epsilon = [] if policy.epsilon_max is None else [f"epsilon {policy.epsilon_max:g}"]
    return " and ".join(hops + epsilon)


def _some(names: Sequence[str]) -> str:
    """Return the first names of several, and how many more there are.

    >>> _some("abcde")
    'a, b, c and 2 more'
    """
    named = ", ".join(names[:NAMES_TOLD])
    return named if len(names) <= NAMES_TOLD else f"{named} and {len(names) - NAMES_TOLD} more"


def _each_reason(kind: str, told: Iterable[tuple[str, str | None]]) -> Iterator[str]:
    """Yield one line for each reason, with whom it is about."""
    of_reason: dict[str, list[str]] = {}
    for name, reason in told:
        if reason is not None:
            of_reason.setdefault(reason, []).append(name)
    for reason, names in of_reason.items():
        yield f"{kind if len(names) == 1 else f'{kind}s'} {_some(names)}: {reason}"


def _grouped(kind: str, of_reason: Mapping[str, list[str]]) -> Iterator[Closed]:
    for reason, names in sorted(of_reason.items()):
        yield Closed(kind, reason, len(names), tuple(sorted(names)[:REASONS_MAX]))
