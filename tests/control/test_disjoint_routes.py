"""Routes that share nothing: on traps, against networkx's minimum-cost flow, on Europe, under policies."""

from collections.abc import Callable, Iterable
from itertools import combinations, pairwise
from math import inf
from time import process_time
from timeit import repeat

import networkx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.control import LinkFacts, NodeFacts, Prices, Route, RoutePolicy, Router
from openqci.control.routing import COST_MAX, PATHS_MAX
from openqci.core.identifiers import DomainId, LinkId, SiteId, is_border
from openqci.network import load_scenario

Hops = list[tuple[LinkId, SiteId, SiteId]]
A, F, S, T = (SiteId(name) for name in "afst")
LINKS_ONLY = RoutePolicy(node_disjoint=False)


def weighted(*weights: tuple[str, float]) -> tuple[Hops, dict[str, float]]:
    """Return hops and costs from texts like ``("ab", 1.0)``."""
    return [(LinkId(text), SiteId(text[0]), SiteId(text[1])) for text, _ in weights], dict(weights)


def ways(
    graph: tuple[Hops, dict[str, float]],
    source: SiteId,
    target: SiteId,
    k: int,
    policy: RoutePolicy = RoutePolicy(),  # noqa: B008
) -> list[str]:
    hops, costs = graph
    routes = Router(hops).disjoint_routes(source, target, k, lambda link, _: costs[link], policy)
    return ["".join(route.sites) for route in routes]


TRAPS = {
    # The cheapest route s-a-b-t takes a node of each of the only two that are disjoint.
    "the trap of Suurballe": (
        weighted(("sa", 1), ("ab", 1), ("bt", 1), ("sc", 2), ("cb", 2), ("ad", 2), ("dt", 2)),
        ["sadt", "scbt"],
    ),
    # Two detours at once must be undone.
    "the cheapest way crosses three others": (
        weighted(
            *(("sa", 1), ("ab", 1), ("bc", 1), ("ct", 1)),
            *(("sd", 3), ("db", 3), ("ae", 3), ("ec", 3), ("bf", 3), ("ft", 3)),
        ),
        ["saect", "sdbft"],
    ),
    "a ladder whose rungs are free of charge": (
        weighted(("sa", 1), ("ab", 0.1), ("bt", 1), ("sb", 5), ("at", 5)),
        ["sat", "sbt"],
    ),
}


@pytest.mark.parametrize("name", TRAPS)
def test_two_routes_where_removing_the_cheapest_leaves_none(name: str) -> None:
    graph, expected = TRAPS[name]
    (first,) = ways(graph, S, T, 1)
    spoilt = [hop for hop in graph[0] if not set(hop[1:]) & set(first[1:-1])]
    assert not ways((spoilt, graph[1]), S, T, 1)
    assert ways(graph, S, T, 2) == expected


def test_fewer_than_asked_for_are_returned_where_there_are_no_more() -> None:
    chain = weighted(("sa", 1), ("at", 1), ("sb", 1), ("ba", 1))
    assert ways(chain, S, T, 3) == ["sat"]
    assert ways(chain, S, SiteId("z"), 2) == ways(chain, S, S, 2) == []
    ring = weighted(("sa", 1), ("at", 1), ("sb", 1), ("bt", 2))
    assert ways(ring, S, T, 5) == ["sat", "sbt"]


def test_parallel_links_of_the_two_ends_are_routes_of_their_own() -> None:
    graph = [(LinkId(name), S, T) for name in ("two", "one", "three")]
    routes = Router(graph).disjoint_routes(S, T, 3, lambda link, _: 2.0 if link == "one" else 1.0)
    assert [route.links for route in routes] == [("three",), ("two",), ("one",)]


def test_with_disjoint_links_alone_a_node_may_be_shared_but_no_link() -> None:
    bow = weighted(("sa", 1), ("sb", 1), ("am", 1), ("bm", 2), ("mc", 1), ("md", 1), ("ct", 1), ("dt", 3))
    assert ways(bow, S, T, 2) == ["samct"]
    assert ways(bow, S, T, 2, LINKS_ONLY) == ["samct", "sbmdt"]


def test_costs_are_those_of_the_direction_and_infinity_closes_a_hop() -> None:
    hops, _ = weighted(("sa", 1), ("at", 1), ("sb", 1), ("bt", 1))
    router = Router(hops)
    down = {("bt", "b")}
    routes = router.disjoint_routes(S, T, 2, lambda *edge: inf if edge in down else 1.0)
    assert [route.sites for route in routes] == [("s", "a", "t")]
    assert len(router.disjoint_routes(T, S, 2, lambda *edge: inf if edge in down else 1.0)) == 2


@pytest.mark.parametrize("k", [0, -1, PATHS_MAX + 1])
def test_a_senseless_number_of_routes_is_a_mistake_of_the_caller(k: int) -> None:
    with pytest.raises(ValueError, match="expected 1 to"):
        Router([]).disjoint_routes(S, T, k, lambda *edge: 1.0)


def test_costs_beyond_the_greatest_count_as_the_greatest() -> None:
    hops, costs = weighted(("sa", 1e30), ("at", 1e30), ("sb", 1e-30), ("bt", 1.0))
    router = Router(hops)
    assert [
        "".join(route.sites) for route in router.disjoint_routes(S, T, 2, lambda link, _: costs[link])
    ] == ["sbt", "sat"]
    assert router.tree(S, lambda link, _: costs[link]).cost_to(SiteId("a")) == COST_MAX


# Properties


@st.composite
def networks(draw: st.DrawFn) -> tuple[Hops, dict[tuple[str, str], float]]:
    """Networks of up to eight nodes with parallel links, each direction with a cost of its own."""
    names = "abcdefgh"[: draw(st.integers(3, 8))]
    pairs = draw(st.lists(st.sampled_from(list(combinations(names, 2))), max_size=20))
    graph = [(LinkId(f"{n:02}"), SiteId(a), SiteId(b)) for n, (a, b) in enumerate(pairs)]
    some = st.sampled_from([0.5, 1.0, 1.0, 2.0, 3.5, 7.0, inf])
    return graph, {(link, end): draw(some) for link, *ends in graph for end in ends}


def least_cost(
    graph: Hops, costs: dict[tuple[str, str], float], k: int, node_disjoint: bool
) -> tuple[int, float]:
    """Return how many disjoint routes from "a" to "b" there are, at most k, and their least cost in sum.

    The oracle: networkx's network simplex on a graph of split nodes, in halves of the unit cost.
    """
    flow = networkx.MultiDiGraph()
    for node in {site for _, *ends in graph for site in ends} | {"a", "b"}:
        many = not node_disjoint or node in "ab"
        flow.add_edge(f"{node} in", f"{node} out", capacity=k if many else 1, weight=0)
    for link, *ends in graph:
        for sender, receiver in (ends, ends[::-1]):
            if costs[link, sender] < inf:
                flow.add_edge(
                    f"{sender} out", f"{receiver} in", capacity=1, weight=int(2 * costs[link, sender])
                )
    # A way of last resort makes every amount feasible; what goes over it is not there.
    dear = 1000
    flow.add_edge("a out", "b in", capacity=k, weight=dear)
    flow.add_node("a out", demand=-k)
    flow.add_node("b in", demand=k)
    cost, _ = networkx.network_simplex(flow)
    missing, real = divmod(cost, dear)
    return k - missing, real / 2


def cost_of(routes: Iterable[Route], costs: dict[tuple[str, str], float]) -> float:
    return sum(costs[edge] for route in routes for edge in zip(route.links, route.sites, strict=False))


@given(network=networks(), k=st.integers(1, 4), node_disjoint=st.booleans())
def test_routes_are_disjoint_and_no_others_cost_less(
    network: tuple[Hops, dict[tuple[str, str], float]], k: int, node_disjoint: bool
) -> None:
    graph, costs = network
    policy = RoutePolicy(node_disjoint=node_disjoint)
    routes = Router(graph).disjoint_routes(A, SiteId("b"), k, lambda *edge: costs[edge], policy)
    count, least = least_cost(graph, costs, k, node_disjoint)
    assert len(routes) == count
    assert cost_of(routes, costs) == least
    ends = {link: {a, b} for link, a, b in graph}
    for route in routes:
        assert (route.sites[0], route.sites[-1]) == ("a", "b")
        assert [ends[link] for link in route.links] == [{a, b} for a, b in pairwise(route.sites)]
        assert len(set(route.sites)) == len(route.sites)
    links = [link for route in routes for link in route.links]
    assert len(set(links)) == len(links)
    if node_disjoint:
        between = [site for route in routes for site in route.sites[1:-1]]
        assert len(set(between)) == len(between)
    each = [cost_of([route], costs) for route in routes]
    assert each == sorted(each)


@given(network=networks(), k=st.integers(1, 3), data=st.data())
def test_the_order_in_which_hops_are_given_is_of_no_consequence(
    network: tuple[Hops, dict[tuple[str, str], float]], k: int, data: st.DataObject
) -> None:
    graph, costs = network
    shuffled = [
        (link, b, a) if data.draw(st.booleans()) else (link, a, b)
        for link, a, b in data.draw(st.permutations(graph))
    ]
    found = [
        Router(hops).disjoint_routes(A, SiteId("b"), k, lambda *edge: costs[edge])
        for hops in (graph, shuffled)
    ]
    assert found[0] == found[1]


@given(network=networks(), hops_max=st.integers(1, 5), k=st.integers(1, 2))
def test_a_bound_on_hops_is_kept_and_met_where_one_route_can(
    network: tuple[Hops, dict[tuple[str, str], float]], hops_max: int, k: int
) -> None:
    graph, costs = network
    router, target = Router(graph), SiteId("b")
    policy = RoutePolicy(hops_max=hops_max)
    routes = router.disjoint_routes(A, target, k, lambda *edge: costs[edge], policy)
    free = router.disjoint_routes(A, target, k, lambda *edge: costs[edge])
    assert all(len(route.links) <= hops_max for route in routes)
    assert len(routes) in (0, k)
    if len(free) == k and all(len(route.links) <= hops_max for route in free):
        assert routes == free
    if k == 1:
        fewest = router.route(A, target, lambda *edge: 1.0 if costs[edge] < inf else inf)
        assert bool(routes) == (fewest is not None and len(fewest.links) <= hops_max)


@given(network=networks())
def test_a_tree_has_the_cheapest_route_to_every_node(
    network: tuple[Hops, dict[tuple[str, str], float]],
) -> None:
    graph, costs = network
    router = Router(graph, [A])
    prices = router.price(lambda *edge: costs[edge])
    tree = router.tree(A, prices)
    for target in (SiteId(name) for name in "bcdefgh"):
        route, alone = tree.route_to(target), router.route(A, target, prices)
        assert (route is None) == (alone is None) == (tree.cost_to(target) == inf)
        if route is not None and alone is not None:
            assert cost_of([route], costs) == cost_of([alone], costs) == tree.cost_to(target)
    assert tree.route_to(A) is None and tree.cost_to(A) == 0.0


# Policies


def policed() -> Router:
    """Return three ways from s to t: over Germany, over Poland, over Czechia with a computational hop."""
    hops, _ = weighted(("sg", 1), ("gt", 1), ("sp", 2), ("pt", 2), ("sc", 3), ("ct", 3))
    return Router(
        hops,
        nodes=[
            NodeFacts(SiteId("g"), "DE", DomainId("DE"), "telco", 2),
            NodeFacts(SiteId("p"), "PL", DomainId("PL"), "nren", 1),
            NodeFacts(SiteId("c"), "CZ", DomainId("CZ"), "telco", 3),
        ],
        links=[LinkFacts(LinkId("pt"), "p--t"), LinkFacts(LinkId("ct"), computational=True)],
    )


def vias(policy: RoutePolicy) -> str:
    costs = {"sg": 1.0, "gt": 1.0, "sp": 2.0, "pt": 2.0, "sc": 3.0, "ct": 3.0}
    return "".join(
        route.sites[1] for route in policed().disjoint_routes(S, T, 3, lambda link, _: costs[link], policy)
    )


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (RoutePolicy(), "gp"),
        (RoutePolicy(computational=True), "gpc"),
        (RoutePolicy(avoid_countries=frozenset({"DE"})), "p"),
        (RoutePolicy(avoid_domains=frozenset({"PL"}), computational=True), "gc"),
        (RoutePolicy(avoid_operators=frozenset({"telco"}), computational=True), "p"),
        (RoutePolicy(avoid_sites=frozenset({"g"})), "p"),
        (RoutePolicy(avoid_links=frozenset({"sg"})), "p"),
        (RoutePolicy(avoid_links=frozenset({"p--t"})), "g"),
        (RoutePolicy(trust_min=2, computational=True), "gc"),
        (RoutePolicy(trust_min=4), ""),
        (RoutePolicy(avoid_sites=frozenset({"s", "t"})), "gp"),
    ],
)
def test_what_a_policy_refuses_is_on_no_route(policy: RoutePolicy, expected: str) -> None:
    assert vias(policy) == expected


def test_what_is_not_known_of_a_node_counts_against_it() -> None:
    hops, _ = weighted(("sx", 1), ("xt", 1))
    for policy in (RoutePolicy(avoid_countries=frozenset({"DE"})), RoutePolicy(trust_min=1)):
        assert not Router(hops).disjoint_routes(S, T, 1, lambda *edge: 1.0, policy)


def test_the_sum_of_epsilons_over_all_routes_is_bounded() -> None:
    hops, costs = weighted(("sa", 1), ("at", 1), ("sb", 6), ("bt", 6), ("sc", 9), ("ct", 9))
    epsilons = {"sa": 5e-9, "at": 5e-9, "sb": 2e-9, "bt": 2e-9, "sc": 1e-9, "ct": 1e-9}
    router = Router(hops)
    prices = router.price(lambda link, _: costs[link], epsilons.__getitem__)

    def taken(k: int, epsilon_max: float) -> list[str]:
        routes = router.disjoint_routes(S, T, k, prices, RoutePolicy(epsilon_max=epsilon_max))
        return [route.sites[1] for route in routes]

    assert taken(1, 1.1e-8) == ["a"]
    assert taken(1, 4.1e-9) == ["b"]
    assert taken(2, 1.5e-8) == ["a", "b"]
    # "a" and "c" would keep this bound for less, but no price of length makes them the cheapest.
    assert taken(2, 1.3e-8) == ["b", "c"]
    assert taken(2, 6.1e-9) == ["b", "c"]
    assert taken(2, 5.9e-9) == []
    with pytest.raises(ValueError, match="epsilons"):
        router.disjoint_routes(S, T, 1, Prices(prices.grains), RoutePolicy(epsilon_max=1.0))


# Europe


EUROPE = load_scenario("eu27")
ROUTER = Router(EUROPE.edges(), EUROPE.sites)


def length_km(link: LinkId) -> float:
    return 0.0 if is_border(link) else EUROPE.hops[link].length_km


PRICES = ROUTER.price(lambda link, _: round(length_km(link)))


@pytest.mark.parametrize(
    ("source", "target", "k"),
    [("pt-lisbon", "pl-warsaw", 2), ("fr-paris", "it-rome", 3), ("se-stockholm", "gr-athens", 2)],
)
def test_across_europe_as_networkx_finds_them(source: str, target: str, k: int) -> None:
    flow = networkx.DiGraph()
    for site in EUROPE.sites:
        flow.add_edge(
            (site, "in"), (site, "out"), capacity=1 if site not in (source, target) else k, weight=0
        )
    for link, *ends in EUROPE.edges():
        for a, b in (ends, ends[::-1]):
            flow.add_edge((a, "out"), (b, "in"), capacity=1, weight=round(length_km(link)))
    amount = networkx.maximum_flow_value(flow, (source, "out"), (target, "in"))
    flow.add_node((source, "out"), demand=-min(k, amount))
    flow.add_node((target, "in"), demand=min(k, amount))
    least, _ = networkx.network_simplex(flow)
    routes = ROUTER.disjoint_routes(SiteId(source), SiteId(target), k, PRICES)
    assert len(routes) == min(k, amount)
    assert sum(round(length_km(link)) for route in routes for link in route.links) == least
    between = [site for route in routes for site in route.sites[1:-1]]
    assert len(set(between)) == len(between)


def test_a_second_route_costs_a_few_trees_of_cheapest_routes() -> None:
    """Speed as a ratio of processor times in one process: two disjoint routes against one tree."""
    lisbon, warsaw = SiteId("pt-lisbon"), SiteId("pl-warsaw")

    def least_s(work: Callable[[], object]) -> float:
        return min(repeat(work, timer=process_time, number=20, repeat=7))

    one = least_s(lambda: ROUTER.tree(lisbon, PRICES))
    assert least_s(lambda: ROUTER.disjoint_routes(lisbon, warsaw, 2, PRICES)) < 40 * one


def test_a_bound_on_hops_shortens_the_pair_of_routes() -> None:
    ends = SiteId("fr-paris"), SiteId("it-rome")
    prices = ROUTER.price(lambda link, _: length_km(link) ** 3)
    free = ROUTER.disjoint_routes(*ends, 2, prices)
    fewest = ROUTER.disjoint_routes(*ends, 2, lambda link, _: float(not is_border(link)))
    bound = max(route.hops for route in fewest)
    assert bound < max(route.hops for route in free)
    kept = ROUTER.disjoint_routes(*ends, 2, prices, RoutePolicy(hops_max=bound))
    assert len(kept) == 2 and max(route.hops for route in kept) <= bound
