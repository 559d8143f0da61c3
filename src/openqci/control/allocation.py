"""All demand over all hops: routes for every flow, and how much each gets.

First every flow takes its cheapest routes; then admission decides. Flows that get less than they want there
look once more, round the hops that are full, and keep the new routes if the whole is better for it: level
by level, fewer refused, then more granted. So an empty detour is used before anybody is stretched, and
nobody of a higher level pays for it.

>>> hops = [(LinkId(ends), SiteId(ends[0]), SiteId(ends[1])) for ends in ("ab", "ac", "cb")]
>>> bulk = ServiceClass("bulk", "copies", 4, wanted_bps=60.0, least_fraction=0.1)
>>> flows = [RoutedDemand(name, SiteId("a"), SiteId("b"), bulk) for name in ("first", "second")]
>>> found = allocate(Router(hops), flows, lambda link, _: 1.0, {LinkId(ends): 100.0 for ends, _, _ in hops})
>>> [found.routes[name][0].links for name in ("first", "second")]
[('ab',), ('ac', 'cb')]
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

import msgspec

from openqci.control.admission import PAD_PART, Admission, FlowWish, Grant, admit
from openqci.control.classes import ServiceClass
from openqci.control.policy import ANY_ROUTE, RoutePolicy
from openqci.control.routing import Cost, Prices, Route, Router, RouteTree
from openqci.core.identifiers import LinkId, SiteId, is_border

NEAR_WHOLE = 0.999
"""A flow that gets this part of what it wants has what it wants."""


class RoutedDemand(msgspec.Struct, frozen=True):
    """A flow before it has a route: its ends, its class, and as how many tunnels of it.

    ``spends`` is what one hop spends for a bit of end-to-end key. Shares over several ``paths`` are each as
    long as the key.
    """

    flow_id: str
    source: SiteId
    target: SiteId
    service: ServiceClass
    tunnels: float = 1.0
    paths: int = 1
    policy: RoutePolicy = ANY_ROUTE
    spends: float = 1.0
    emergency: bool = False

    @property
    def wanted_bps(self) -> float:
        return self.service.wanted_bps * self.tunnels

    def wish(self, routes: Sequence[Route]) -> FlowWish:
        """Return what the flow asks for over given routes."""
        return FlowWish(
            flow_id=self.flow_id,
            class_level=self.service.level,
            wanted_bps=self.wanted_bps,
            least_bps=self.service.least_bps * self.tunnels,
            links=tuple(link for route in routes for link in route.links if not is_border(link)),
            spends=self.spends,
            pad=self.service.one_time_pad,
            emergency=self.emergency,
        )


@dataclass(frozen=True)
class Allocation:
    """What every flow gets, and over which routes; flows without routes are refused, too."""

    routes: Mapping[str, tuple[Route, ...]]
    admission: Admission

    def grant(self, flow_id: str) -> Grant:
        return self.admission.grants[flow_id]


def allocate(
    router: Router, flows: Iterable[RoutedDemand], cost: Cost | Prices, budget_bps: Mapping[LinkId, float]
) -> Allocation:
    """Find routes for all flows and decide how much each gets."""
    asked = {flow.flow_id: flow for flow in flows}
    prices = cost if isinstance(cost, Prices) else router.price(cost)
    routes = _Routes(router, prices).of(asked.values())
    decided = _decide(asked, routes, budget_bps)
    if any(decided.grants[name].granted_bps < NEAR_WHOLE * flow.wanted_bps for name, flow in asked.items()):
        others = _Room(router, prices, budget_bps).rehomed(asked, routes)
        again = _decide(asked, others, budget_bps)
        if _worth(asked, again) > _worth(asked, decided):
            return Allocation(others, again)
    return Allocation(routes, decided)


def within(found: Allocation, flows: Iterable[RoutedDemand], total_bps: float) -> Allocation:
    """Bring an allocation down to what all hops can bring together, in bit/s of link key.

    That is not a hop's scarcity, which levels are for, but that of what all hops depend on: a twin's
    processors, say. So all flows give way alike, each towards the least that its class can do with. Only
    where even that is too much are flows refused, the last level first, of a level who came last.
    """
    asked = sorted(flows, key=lambda flow: flow.wish(()).level)
    served = [_Spending(flow, found) for flow in asked if found.grant(flow.flow_id).admitted]
    if sum(each.cost * each.granted_bps for each in served) <= total_bps:
        return found
    kept, left_bps = [], total_bps
    for each in served:
        if each.cost * each.least_bps <= left_bps:
            left_bps -= each.cost * each.least_bps
            kept.append(each)
    more_bps = sum(each.cost * (each.granted_bps - each.least_bps) for each in kept)
    part = min(1.0, left_bps / more_bps) if more_bps else 0.0
    reason = f"all hops together bring {total_bps:.3g} bit/s"
    grants = dict(found.admission.grants)
    grants |= {each.name: Grant(each.name, 0.0, inf, None, f"{reason}; the least is more") for each in served}
    grants |= {each.name: each.at(part, f"{reason}; all share it") for each in kept}
    return Allocation(found.routes, _after(found, served, grants))


class _Spending:
    """What a flow that was granted something spends of all hops together."""

    def __init__(self, flow: RoutedDemand, found: Allocation) -> None:
        self.name, self.wanted_bps = flow.flow_id, flow.wanted_bps
        self.links = flow.wish(found.routes[flow.flow_id]).links
        self.spends, self.cost = flow.spends, flow.spends * len(self.links)
        self.granted_bps = found.grant(flow.flow_id).granted_bps
        self.least_bps = min(self.granted_bps, flow.wish(()).least_bps)

    def at(self, part: float, reason: str) -> Grant:
        """Return the grant at a part of the way from the least to what was granted."""
        bps = self.least_bps + part * (self.granted_bps - self.least_bps)
        return Grant(self.name, bps, self.wanted_bps / bps, None, reason)


def _after(found: Allocation, served: Iterable[_Spending], grants: Mapping[str, Grant]) -> Admission:
    """Return an admission with these grants, and what they leave of each hop."""
    left_bps = dict(found.admission.left_bps)
    for each in served:
        less_bps = each.granted_bps - grants[each.name].granted_bps
        for link in each.links:
            left_bps[link] += each.spends * less_bps
    return Admission(grants, left_bps)


@dataclass
class _Routes:
    """Cheapest routes for many flows; flows of one source and no wishes share one search."""

    router: Router
    prices: Prices
    _trees: dict[SiteId, RouteTree] = field(default_factory=dict)

    def of(self, flows: Iterable[RoutedDemand]) -> dict[str, tuple[Route, ...]]:
        return {flow.flow_id: self._of(flow) for flow in flows}

    def _of(self, flow: RoutedDemand) -> tuple[Route, ...]:
        if flow.paths > 1 or flow.policy != ANY_ROUTE:
            found = self.router.disjoint_routes(
                flow.source, flow.target, flow.paths, self.prices, flow.policy
            )
            return found if len(found) == flow.paths else ()
        if not self.router.connected(flow.source, flow.target):
            return ()
        if flow.source not in self._trees:
            self._trees[flow.source] = self.router.tree(flow.source, self.prices)
        route = self._trees[flow.source].route_to(flow.target)
        return () if route is None else (route,)


def _decide(
    asked: Mapping[str, RoutedDemand],
    routes: Mapping[str, tuple[Route, ...]],
    budget_bps: Mapping[LinkId, float],
) -> Admission:
    wishes = [flow.wish(routes[name]) for name, flow in asked.items() if routes[name]]
    decided = admit(wishes, budget_bps)
    without = {name: _no_route(flow) for name, flow in asked.items() if not routes[name]}
    return Admission({name: without.get(name) or decided.grants[name] for name in asked}, decided.left_bps)


def _no_route(flow: RoutedDemand) -> Grant:
    what = "no route leads" if flow.paths == 1 else f"no {flow.paths} disjoint routes lead"
    return Grant(flow.flow_id, 0.0, inf, None, f"{what} from {flow.source} to {flow.target}")


class _Room:
    """Goes through flows one by one and keeps account of the room that is left on each hop."""

    def __init__(self, router: Router, prices: Prices, budget_bps: Mapping[LinkId, float]) -> None:
        self._router, self._prices, self._budget_bps = router, prices, budget_bps
        self._left = {False: dict(budget_bps), True: {k: PAD_PART * v for k, v in budget_bps.items()}}
        self._full: set[LinkId] = set()
        self._open = _Routes(router, prices)

    def rehomed(
        self, asked: Mapping[str, RoutedDemand], routes: Mapping[str, tuple[Route, ...]]
    ) -> dict[str, tuple[Route, ...]]:
        """Return routes for all flows: their own where there is room, else a way round what is full."""
        found = dict(routes)
        for name, flow in sorted(asked.items(), key=lambda item: item[1].wish(()).level):
            found[name] = self._place(flow, routes[name])
        return found

    def _place(self, flow: RoutedDemand, routes: tuple[Route, ...]) -> tuple[Route, ...]:
        without_room = self._without_room(flow, routes)
        if without_room:
            self._close(without_room)
            detour = self._open.of([flow])[flow.flow_id]
            if detour and not self._without_room(flow, detour):
                routes = detour
        wish = flow.wish(routes)
        for link in wish.links:
            for pad in {False, self._is_bounded_pad(wish)}:
                self._left[pad][link] = self._left[pad].get(link, 0.0) - wish.spends * wish.wanted_bps
        return routes

    def _without_room(self, flow: RoutedDemand, routes: tuple[Route, ...]) -> set[LinkId]:
        wish = flow.wish(routes)
        left = self._left[self._is_bounded_pad(wish)]
        return {link for link in wish.links if left.get(link, 0.0) < wish.spends * wish.wanted_bps}

    def _close(self, links: set[LinkId]) -> None:
        """Search round these hops from now on; a search serves all flows until more are closed."""
        if not links <= self._full:
            self._full |= links
            self._open = _Routes(self._router, self._router.without(self._prices, self._full))

    def _is_bounded_pad(self, wish: FlowWish) -> bool:
        return wish.pad and not wish.emergency


def _worth(asked: Mapping[str, RoutedDemand], decided: Admission) -> list[tuple[int, float]]:
    """Return what counts of an outcome, the highest level first: how many are served, and how much of it."""
    levels: dict[int, list[float]] = {}
    for name, flow in asked.items():
        level = flow.wish(()).level
        levels.setdefault(level, []).append(decided.grants[name].granted_bps / flow.wanted_bps)
    return [(sum(part > 0 for part in levels[level]), sum(levels[level])) for level in sorted(levels)]
