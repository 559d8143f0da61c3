"""Routes put together by domains that see their own interior alone, against one router that sees all."""

from functools import lru_cache
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqci.cli.domains import interiors_of, offer_of
from openqci.control import LinkFacts, NodeFacts, RoutePolicy, Router
from openqci.control.composed_routes import NO_GATEWAYS, Composer, Interior
from openqci.control.gateways import Gateways
from openqci.control.offers import Gate
from openqci.control.routing import Cost, Route
from openqci.core.identifiers import DomainId, LinkId, SiteId, border_link, is_border
from openqci.network import load_scenario

EUROPE = load_scenario("eu27")
WHOLE = Router(EUROPE.edges(), EUROPE.sites)
FACTOR_MAX = 1.5
"""How much more two routes may cost together than the cheapest two that one who sees all would take."""


def in_hops(link: LinkId, _: SiteId) -> float:
    return float(not is_border(link))


def composer_of(interiors: dict[str, Interior], cost: Cost) -> Composer:
    for each in interiors.values():
        each.price(cost, lambda link: 1e-9)
    gateways = Gateways(
        {name: offer_of(each, 1, 0.0, 1e9, lambda link: 1e5) for name, each in interiors.items()}
    )
    return Composer(interiors, lambda: gateways)


@lru_cache
def europe() -> Composer:
    return composer_of(interiors_of(EUROPE), in_hops)


def capitals() -> list[SiteId]:
    named = [site.site_id for site in EUROPE.sites.values() if site.kind == "capital_node"]
    return [site for site in named if WHOLE.connected(site, SiteId("pl-warsaw"))]


def check_routes(
    routes: tuple[Route, ...], edges: dict[LinkId, set[SiteId]], source: str, target: str
) -> None:
    between = [site for route in routes for site in route.sites[1:-1]]
    assert len(between) == len(set(between)), "no node lies on two routes, or twice on one"
    for route in routes:
        assert (route.sites[0], route.sites[-1]) == (source, target)
        for link, *ends in zip(route.links, route.sites, route.sites[1:], strict=False):
            assert edges[link] == set(ends)


def hops(routes: tuple[Route, ...]) -> int:
    return sum(route.hops for route in routes)


@pytest.mark.parametrize("number", range(0, 300, 12))
def test_two_routes_between_capitals_where_there_are_two(number: int) -> None:
    source, target = list(combinations(capitals(), 2))[number]
    edges = {link: set(ends) for link, *ends in EUROPE.edges()}
    for paths in (1, 2):
        best = WHOLE.disjoint_routes(source, target, paths, in_hops)
        found = europe().routes(source, target, paths)
        assert bool(found.routes) == (len(best) == paths) and bool(found.reason) != bool(found.routes)
        if found.routes:
            check_routes(found.routes, edges, source, target)
            assert hops(best) <= hops(found.routes) <= (FACTOR_MAX if paths > 1 else 1) * hops(best)
            for way, route in zip(found.ways, found.routes, strict=False):
                assert way.domains[0] != way.domains[-1] and route.hops


# Small networks of three domains, drawn at random


def network_of(roads: set[tuple[int, int]], domains: list[int]) -> tuple[dict[str, Interior], Router]:
    """Return the domains of a network of towns, and one router over the towns as if there were no borders."""
    names = [f"{'ABC'[domain]}{number}" for number, domain in enumerate(domains)]
    nodes: dict[str, list[NodeFacts]] = {name: [] for name in "ABC"}
    inner: dict[str, list[tuple[LinkId, SiteId, SiteId]]] = {name: [] for name in "ABC"}
    gates: dict[str, list[Gate]] = {name: [] for name in "ABC"}
    guests: dict[str, list[SiteId]] = {name: [] for name in "ABC"}
    plain = []
    for name in names:
        nodes[name[0]].append(NodeFacts(SiteId(name), domain=DomainId(name[0])))
    for one, other in sorted(roads):
        a, b = SiteId(names[one]), SiteId(names[other])
        link = LinkId(f"{a}--{b}")
        end = b
        if a[0] != b[0]:
            end = SiteId(f"{b}.{a[0].lower()}")
            if end in guests[a[0]]:
                continue
            guests[a[0]].append(end)
            nodes[a[0]].append(NodeFacts(end, domain=DomainId(a[0])))
            gates[a[0]].append(Gate(border_link(end, b), end, b, b[0]))
            gates[b[0]].append(Gate(border_link(end, b), b, end, a[0]))
        inner[a[0]].append((link, a, end))
        plain.append((link, a, b))
    interiors = {
        name: Interior(
            name,
            inner[name],
            nodes[name],
            [LinkFacts(link) for link, *_ in inner[name]],
            gates[name],
            guests[name],
        )
        for name in "ABC"
    }
    return interiors, Router(plain, map(SiteId, names))


@settings(max_examples=150)
@given(st.data())
def test_as_many_routes_as_there_are_and_one_at_the_least_cost(data: st.DataObject) -> None:
    count = data.draw(st.integers(4, 11))
    domains = data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    pairs = list(combinations(range(count), 2))
    roads = data.draw(st.sets(st.sampled_from(pairs), min_size=count, max_size=3 * count))
    interiors, whole = network_of(roads, domains)
    weights = {
        link: float(data.draw(st.integers(1, 9)))
        for each in interiors.values()
        for link, *_ in each.router.hops
    }
    composer = composer_of(interiors, lambda link, _: weights[link])
    source, target = SiteId(f"{'ABC'[domains[0]]}0"), SiteId(f"{'ABC'[domains[1]]}1")
    borders = {
        LinkId(gate.border): {SiteId(gate.node), SiteId(gate.partner)}
        for each in interiors.values()
        for gate in each.gates
    }
    edges = {link: set(ends) for each in interiors.values() for link, *ends in each.router.hops} | borders
    for paths in (1, 2, 3):
        best = whole.disjoint_routes(source, target, paths, lambda link, _: weights[link])
        found = composer.routes(source, target, paths)
        assert len(found.routes) == (paths if len(best) == paths else 0), found.reason
        check_routes(found.routes, edges, source, target)
        if found.routes and paths == 1 and domains[0] != domains[1]:
            cost, least = (
                sum(weights[link] for link, _ in each.edges) for each in (found.routes[0], best[0])
            )
            assert cost == least


# What is refused, and what goes on without the orchestrator


VIENNA, ROME, PARIS = SiteId("at-vienna"), SiteId("it-rome"), SiteId("fr-paris")


def test_a_policy_holds_in_every_domain() -> None:
    free = europe().routes(PARIS, ROME)
    inside = next(site for site in free.routes[0].sites[1:-1] if EUROPE.sites[site].domain == "IT")
    avoided = europe().routes(PARIS, ROME, 1, RoutePolicy(avoid_sites=frozenset({inside})))
    assert avoided.routes and inside not in avoided.routes[0].sites
    round_it = europe().routes(VIENNA, PARIS, 1, RoutePolicy(avoid_domains=frozenset({"DE"})))
    assert round_it.routes and "DE" not in round_it.ways[0].domains
    assert not {EUROPE.sites[site].domain for site in round_it.routes[0].sites[1:-1]} & {"DE"}


def test_bounds_hold_for_the_whole_routes() -> None:
    best = WHOLE.route(VIENNA, PARIS, in_hops)
    assert best is not None
    kept = europe().routes(VIENNA, PARIS, 1, RoutePolicy(hops_max=best.hops))
    assert kept.routes and kept.routes[0].hops == best.hops
    refused = europe().routes(VIENNA, PARIS, 1, RoutePolicy(hops_max=best.hops - 1))
    assert not refused.routes and f"at most {best.hops - 1} are allowed" in refused.reason
    dear = europe().routes(VIENNA, PARIS, 1, RoutePolicy(epsilon_max=(best.hops - 0.5) * 1e-9))
    assert not dear.routes and "epsilon" in dear.reason


def test_bounds_hold_inside_one_domain() -> None:
    graz = SiteId("at-graz")
    best = europe().routes(VIENNA, graz).routes[0].hops
    kept = europe().routes(VIENNA, graz, 1, RoutePolicy(hops_max=best))
    assert kept.routes and kept.routes[0].hops == best
    assert not europe().routes(VIENNA, graz, 1, RoutePolicy(hops_max=best - 1)).routes


def test_without_the_orchestrator_known_ways_and_a_domains_own_routes_go_on() -> None:
    interiors = interiors_of(EUROPE)
    known = composer_of(interiors, in_hops).routes(VIENNA, PARIS, 2)
    alone = Composer(interiors, lambda: None)
    assert alone.routes(VIENNA, PARIS, 2).reason == NO_GATEWAYS
    assert alone.routes(VIENNA, SiteId("at-graz")).routes
    assert alone.along(known.ways, VIENNA, PARIS) == known.routes
    lost = known.routes[0].links[len(known.routes[0].links) // 2 - 1]
    for each in interiors.values():
        each.price(lambda link, sender: float("inf") if link == lost else 1.0)
    again = alone.along(known.ways, VIENNA, PARIS)
    assert all(lost not in route.links for route in again)
