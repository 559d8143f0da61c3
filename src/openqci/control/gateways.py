"""Ways from border to border, from what domains offer and nothing else: the orchestrator's map of gates.

A *gate* is a node of a domain that stands at a border; the other domain's node stands in the same site. The
map has gates and nothing of what lies between: a domain says what a *crossing* from one of its gates to
another costs now. For a question the two end domains say what it costs from the source to each gate, and from
each gate to the target. Several ways have no gate in common; that their interiors have no node in common is
for each domain to see to, and one that cannot says so (:mod:`openqci.control.composed_routes`).
"""

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from itertools import pairwise
from math import inf

import numpy as np

from openqci.control.offers import DomainOffer, Gate
from openqci.control.policy import RoutePolicy
from openqci.control.routing import PATHS_MAX, Prices, Route, Router, in_grains
from openqci.core.identifiers import LinkId, SiteId

DIRECT_MAX = 4
"""Ways that lead from source to target inside one domain, beside others that leave it."""

Crossings = Mapping[tuple[SiteId, SiteId], float]
"""The cost from a gate to another of the same domain."""


@dataclass(frozen=True)
class Border:
    """A border as it is crossed: from the node that a key leaves to the one that it comes to."""

    link_id: LinkId
    near: SiteId
    far: SiteId


@dataclass(frozen=True)
class Way:
    """One way over domains, by the borders between them."""

    domains: tuple[str, ...]
    borders: tuple[Border, ...]


@dataclass(frozen=True)
class WayQuestion:
    """What the two end domains ask together.

    ``departures`` and ``arrivals`` are costs by gate. Where an end stands at a border itself it is in
    ``ends_at_borders``, and is left or reached over any of its borders. ``direct`` are the ways that the
    domain of both ends has by itself, at ``direct_cost`` each.
    """

    source_domain: str
    target_domain: str
    paths: int
    departures: Mapping[SiteId, float]
    arrivals: Mapping[SiteId, float]
    source: SiteId
    target: SiteId
    direct: int = 0
    direct_cost: float = 0.0
    shut: frozenset[SiteId] = frozenset()
    """Gates that no way may pass."""
    crossings: Crossings | None = None
    """Costs that hold for this question alone, by the wishes of a policy; else those that are offered."""
    node_disjoint: bool = True


class Gateways:
    """All gates that both sides offer, and the ways between them."""

    def __init__(self, offers: Mapping[str, DomainOffer]) -> None:
        self.offers = dict(offers)
        self.domain_of = {SiteId(gate.node): name for name, gate in self._gates()}
        self._borders = dict(self._both_sides())
        self._router = Router([*self._inner_links(), *self._border_links(), *self._end_links()])
        self._place = {edge: at for at, edge in enumerate(self._router.edges)}
        self._offered_grains = self._grains(self._offered())

    def renewed(self, offers: Mapping[str, DomainOffer]) -> "Gateways":
        """Return the map of later offers; where the gates are the same, only costs are taken anew."""
        gates = {name: offer.gates for name, offer in offers.items()}
        if gates != {name: offer.gates for name, offer in self.offers.items()}:
            return Gateways(offers)
        later = copy(self)
        later.offers = dict(offers)
        later._offered_grains = later._grains(later._offered())
        return later

    def ways(self, question: WayQuestion) -> tuple[Way, ...]:
        """Return the ways of least total cost that share no gate: as many as there are, count them."""
        grains = self._offered_grains if question.crossings is None else self._grains(question.crossings)
        grains = grains.copy()
        for edge, cost in self._end_costs(question):
            if edge in self._place:
                grains[self._place[edge]] = in_grains(np.array(cost))
        passable = question.shut | {question.source, question.target}
        policy = RoutePolicy(avoid_sites=frozenset(passable), node_disjoint=question.node_disjoint)
        ends = _departure(question.source_domain), _arrival(question.target_domain)
        paths = min(question.paths, PATHS_MAX)
        found = self._router.disjoint_routes(*ends, paths, Prices(grains), policy)
        return tuple(self._way(route, question) for route in found)

    def open_borders(self, shut: frozenset[SiteId] = frozenset()) -> Iterator[Border]:
        """Yield the borders that may be crossed, in each direction by itself, but at gates that are shut."""
        for (near, far), link in sorted(self._borders.items()):
            if not shut & {near, far}:
                yield Border(link, near, far)

    def _gates(self) -> Iterator[tuple[str, Gate]]:
        return ((name, gate) for name, offer in sorted(self.offers.items()) for gate in offer.gates)

    def _both_sides(self) -> Iterator[tuple[tuple[SiteId, SiteId], LinkId]]:
        """Yield the borders that both domains offer, in both directions."""
        said = {(gate.border, gate.node, gate.partner) for _, gate in self._gates()}
        for border, node, partner in said:
            if (border, partner, node) in said:
                yield (SiteId(node), SiteId(partner)), LinkId(border)

    def _offered(self) -> Crossings:
        return {
            (SiteId(each.entrance), SiteId(each.exit)): each.cost
            for offer in self.offers.values()
            for each in offer.crossings
        }

    def _inner_links(self) -> Iterator[tuple[LinkId, SiteId, SiteId]]:
        """Yield a link for every two gates of a domain, whether it offers a crossing now or not."""
        for offer in self.offers.values():
            nodes = sorted({SiteId(gate.node) for gate in offer.gates})
            yield from ((_inner(one, other), one, other) for one in nodes for other in nodes if one < other)

    def _border_links(self) -> Iterator[tuple[LinkId, SiteId, SiteId]]:
        return ((link, node, far) for (node, far), link in self._borders.items() if node < far)

    def _end_links(self) -> Iterator[tuple[LinkId, SiteId, SiteId]]:
        """Yield links between each domain's places of departure and arrival, its gates, and those beyond."""
        for name in self.offers:
            start, end = _departure(name), _arrival(name)
            yield from ((_direct(name, number), start, end) for number in range(DIRECT_MAX))
            near = {node for node, domain in self.domain_of.items() if domain == name}
            for node in near | {far for (gate, far) in self._borders if gate in near}:
                yield _end(start, node), start, node
                yield _end(end, node), node, end

    def _grains(self, crossings: Crossings) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
        """Return the costs of all that is not an end's."""
        costs = np.full(len(self._place), inf)
        for (one, other), cost in crossings.items():
            if (place := self._place.get((_inner(one, other), one))) is not None:
                costs[place] = cost
        costs[[self._place[link, near] for (near, _), link in self._borders.items()]] = 0.0
        return in_grains(costs)

    def _end_costs(self, question: WayQuestion) -> Iterator[tuple[tuple[LinkId, SiteId], float]]:
        start, end = _departure(question.source_domain), _arrival(question.target_domain)
        if question.source_domain == question.target_domain:
            for number in range(min(question.direct, DIRECT_MAX)):
                yield (_direct(question.source_domain, number), start), question.direct_cost
        for gate, cost in question.departures.items():
            if gate != question.source:
                yield (_end(start, gate), start), cost
        for gate, cost in question.arrivals.items():
            if gate != question.target:
                yield (_end(end, gate), gate), cost
        for near, far in self._borders:
            if near == question.source and far != question.target:
                yield (_end(start, far), start), 0.0
            if near == question.target and far != question.source:
                yield (_end(end, far), far), 0.0

    def _way(self, route: Route, question: WayQuestion) -> Way:
        """Return a route over the map as the borders that it crosses."""
        nodes = list(route.sites[1:-1])
        if nodes and self._is_beyond(nodes[0], question.source, question.source_domain):
            nodes.insert(0, question.source)
        if nodes and self._is_beyond(nodes[-1], question.target, question.target_domain):
            nodes.append(question.target)
        borders = tuple(
            Border(self._borders[near, far], near, far)
            for near, far in pairwise(nodes)
            if (near, far) in self._borders and self.domain_of[near] != self.domain_of[far]
        )
        domains = (question.source_domain, *(self.domain_of[border.far] for border in borders))
        return Way(domains, borders)

    def _is_beyond(self, node: SiteId, end: SiteId, domain: str) -> bool:
        """Tell whether a way's first or last gate is beyond a border at which its end stands."""
        return self.domain_of[node] != domain and (end, node) in self._borders


def _departure(domain: str) -> SiteId:
    return SiteId(f"{domain}>")


def _arrival(domain: str) -> SiteId:
    return SiteId(f">{domain}")


def _inner(one: SiteId, other: SiteId) -> LinkId:
    return LinkId(" ".join(sorted((one, other))))


def _end(place: SiteId, node: SiteId) -> LinkId:
    return LinkId(f"{place} {node}")


def _direct(domain: str, number: int) -> LinkId:
    return LinkId(f"{domain}> >{domain} {number}")
