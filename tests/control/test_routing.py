"""Routes on the live network: against brute force and Floyd-Warshall on small ones, and on Europe's."""

from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import pairwise
from math import inf, isclose
from time import perf_counter

from hypothesis import given
from hypothesis import strategies as st

from openqci.control import Route, Router
from openqci.core.identifiers import LinkId, SiteId, is_border
from openqci.network import load_scenario

Hops = list[tuple[LinkId, SiteId, SiteId]]


def hops(*pairs: str) -> Hops:
    """Return hops from texts like ``ab``; a second link of the same ends is written ``ab2``."""
    return [(LinkId(text), SiteId(text[0]), SiteId(text[1])) for text in pairs]


def even(link_id: LinkId, sender: SiteId) -> float:
    return 1.0


def route(router: Router, way: str, cost: object = even) -> str | None:
    found = router.route(SiteId(way[0]), SiteId(way[1]), cost)  # type: ignore[arg-type]
    return None if found is None else " ".join(found.links)


def test_the_shortest_way_with_its_sites_and_links() -> None:
    router = Router(hops("ab", "bc", "cd", "da", "de"))
    assert router.route(SiteId("a"), SiteId("e"), even) == Route(
        (SiteId("a"), SiteId("d"), SiteId("e")), (LinkId("da"), LinkId("de"))
    )


def test_no_way() -> None:
    router = Router(hops("ab", "cd"), [SiteId("z")])
    assert route(router, "ac") is route(router, "az") is route(router, "ax") is route(router, "aa") is None


def test_an_empty_hop_is_gone_round_if_that_is_not_far_and_used_if_it_is() -> None:
    def cost(link_id: LinkId, sender: SiteId) -> float:
        return 3.5 if link_id == "ab" else 1.0

    assert route(Router(hops("ab", "ac", "cb")), "ab", cost) == "ac cb"
    assert route(Router(hops("ab", "ac", "cd", "de", "eb")), "ab", cost) == "ab"


def test_a_route_is_found_though_all_hops_are_empty() -> None:
    assert route(Router(hops("ab", "bc")), "ac", lambda link_id, sender: 8.0) == "ab bc"


def test_a_hop_that_is_down_is_never_used() -> None:
    def cost(link_id: LinkId, sender: SiteId) -> float:
        return inf if link_id == "ab" else 100.0

    assert route(Router(hops("ab", "ac", "cb")), "ab", cost) == "ac cb"
    assert route(Router(hops("ab")), "ab", cost) is None


def test_cost_is_that_of_the_sender_s_direction() -> None:
    def cost(link_id: LinkId, sender: SiteId) -> float:
        return inf if (link_id, sender) == ("ab", "a") else 1.0

    router = Router(hops("ab", "ac", "cb"))
    assert route(router, "ab", cost) == "ac cb"
    assert route(router, "ba", cost) == "ab"


def test_of_parallel_links_the_cheaper_one_and_then_the_first_by_name() -> None:
    router = Router(hops("ab2", "ab1", "ab3"))
    assert route(router, "ab") == "ab1"
    assert route(router, "ab", lambda link_id, sender: 0.5 if link_id == "ab3" else 1.0) == "ab3"


def test_ties_fall_the_same_way_each_time() -> None:
    square = hops("ab", "bd", "ac", "cd", "de", "ef", "df")
    assert len({route(Router(square), "ae") for _ in range(20)}) == 1


def test_what_cannot_be_reached() -> None:
    router = Router(hops("ab", "bc", "de"), [SiteId("z"), SiteId("a")])
    assert router.unreachable_from(SiteId("a")) == {"d", "e", "z"}
    assert router.unreachable_from(SiteId("z")) == {"a", "b", "c", "d", "e"}
    assert router.unreachable_from(SiteId("?")) == {"a", "b", "c", "d", "e", "z"}
    down = {("bc", "b")}
    assert router.unreachable_from(SiteId("a"), lambda *edge: inf if edge in down else 1.0) == {
        "c",
        "d",
        "e",
        "z",
    }
    assert router.connected(SiteId("a"), SiteId("c")) and not router.connected(SiteId("a"), SiteId("d"))


@st.composite
def networks(draw: st.DrawFn) -> tuple[Hops, dict[tuple[str, str], float]]:
    pairs = draw(st.lists(st.sampled_from([a + b for a in "abcdef" for b in "abcdef" if a < b]), unique=True))
    costs = {(pair, end): draw(st.sampled_from([1.0, 1.5, 2.0, 8.0, inf])) for pair in pairs for end in pair}
    return hops(*pairs), costs


def simple_ways(
    graph: Hops, start: str, end: str, been: tuple[str, ...] = ()
) -> Iterator[list[tuple[str, str]]]:
    if start == end:
        yield []
        return
    for link, a, b in graph:
        if start in (a, b):
            other = b if start == a else a
            if other not in been:
                for rest in simple_ways(graph, other, end, (*been, start)):
                    yield [(link, start), *rest]


@given(networks())
def test_no_way_is_cheaper_than_the_route(network: tuple[Hops, dict[tuple[str, str], float]]) -> None:
    graph, costs = network
    best = min((sum(costs[edge] for edge in way) for way in simple_ways(graph, "a", "f")), default=inf)
    router = Router(graph)
    found = router.route(SiteId("a"), SiteId("f"), lambda *edge: costs[edge])
    assert (found is None) == (best == inf)
    if found is not None:
        assert isclose(sum(costs[edge] for edge in zip(found.links, found.sites, strict=False)), best)
        ends = {link: {a, b} for link, a, b in graph}
        assert [ends[link] for link in found.links] == [{a, b} for a, b in pairwise(found.sites)]
        assert (found.sites[0], found.sites[-1]) == ("a", "f")
        assert len(set(found.sites)) == len(found.sites)
    known = {site for _, *both in graph for site in both}
    reached = known - router.unreachable_from(SiteId("a"), lambda *edge: costs[edge])
    assert ("f" in reached) == (best < inf)


@st.composite
def parallel_networks(draw: st.DrawFn) -> tuple[Hops, dict[tuple[str, str], float]]:
    """Networks in which several links may join the same two nodes, each direction with its own cost."""
    ends = st.sampled_from([a + b for a in "abcde" for b in "abcde" if a < b])
    pairs = draw(st.lists(ends, max_size=14))
    graph = [(LinkId(f"{n:02}{pair}"), SiteId(pair[0]), SiteId(pair[1])) for n, pair in enumerate(pairs)]
    costs = {
        (link, end): draw(st.sampled_from([1.0, 2.0, 3.5, inf])) for link, *ends in graph for end in ends
    }
    return graph, costs


def least_costs(graph: Hops, costs: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    """Return the least cost between all nodes by Floyd and Warshall's algorithm."""
    sites = sorted({site for _, *ends in graph for site in ends})
    least = {(a, b): 0.0 if a == b else inf for a in sites for b in sites}
    for link, a, b in graph:
        for sender, receiver in ((a, b), (b, a)):
            least[sender, receiver] = min(least[sender, receiver], costs[link, sender])
    for via in sites:
        for a in sites:
            for b in sites:
                least[a, b] = min(least[a, b], least[a, via] + least[via, b])
    return least


@given(parallel_networks())
def test_all_routes_among_parallel_links_cost_the_least(
    network: tuple[Hops, dict[tuple[str, str], float]],
) -> None:
    graph, costs = network
    router = Router(graph)
    ends = {link: (a, b) for link, a, b in graph}
    for (a, b), least in least_costs(graph, costs).items():
        found = router.route(SiteId(a), SiteId(b), lambda *edge: costs[edge]) if a != b else None
        assert a == b or (found is None) == (least == inf)
        if found is not None:
            assert isclose(sum(costs[edge] for edge in zip(found.links, found.sites, strict=False)), least)
            for link, (sender, receiver) in zip(found.links, pairwise(found.sites), strict=True):
                rivals = [
                    each
                    for each, both in ends.items()
                    if set(both) == {sender, receiver} and costs[each, sender] == costs[link, sender]
                ]
                assert link == min(rivals), "of parallel links of equal cost the first by name"
            assert found == Router(graph).route(SiteId(a), SiteId(b), lambda *edge: costs[edge])


# Europe


EUROPE = load_scenario("eu27")
LISBON, WARSAW = SiteId("pt-lisbon"), SiteId("pl-warsaw")


def fibre_km(link_id: LinkId, sender: SiteId) -> float:
    """Return the length of a hop; both sides of a border stand in one site."""
    return 0.0 if is_border(link_id) else EUROPE.hops[link_id].length_km


def shortest_km(source: SiteId, target: SiteId) -> float:
    """Return the length of the shortest way by Dijkstra's algorithm, written down once more as the oracle."""
    neighbours: dict[SiteId, list[tuple[SiteId, float]]] = {}
    for link, a, b in EUROPE.edges():
        neighbours.setdefault(a, []).append((b, fibre_km(link, a)))
        neighbours.setdefault(b, []).append((a, fibre_km(link, b)))
    reached: set[SiteId] = set()
    heap = [(0.0, source)]
    while heap:
        length_km, site = heappop(heap)
        if site == target:
            return length_km
        if site not in reached:
            reached.add(site)
            for other, more_km in neighbours[site]:
                heappush(heap, (length_km + more_km, other))
    return inf


def test_lisbon_to_warsaw() -> None:
    router = Router(EUROPE.edges())
    took_s = []
    for _ in range(5):
        began_s = perf_counter()
        found = router.route(LISBON, WARSAW, fibre_km)
        took_s.append(perf_counter() - began_s)
    assert found is not None and (found.sites[0], found.sites[-1]) == (LISBON, WARSAW)
    ends_of = {link: {*ends} for link, *ends in EUROPE.edges()}
    for link, ends in zip(found.links, pairwise(found.sites), strict=True):
        assert ends_of[link] == set(ends)
    length_km = sum(fibre_km(link, site) for link, site in zip(found.links, found.sites, strict=False))
    # Costs are whole grains of at least one, so that a border costs a millionth of a kilometre.
    assert isclose(length_km, shortest_km(LISBON, WARSAW))
    back = router.route(WARSAW, LISBON, fibre_km)
    assert back is not None
    assert isclose(length_km, sum(EUROPE.hops[link].length_km for link, _ in back.edges))
    print(f"Lisbon to Warsaw: {found.hops} hops, {length_km:.0f} km, {1e3 * min(took_s):.2f} ms")


def test_a_hop_that_falls_out_is_gone_round_and_islands_are_out_of_reach() -> None:
    router = Router(EUROPE.edges(), EUROPE.sites)
    first = router.route(LISBON, WARSAW, even)
    assert first is not None
    lost = first.links[len(first.links) // 2]
    second = router.route(LISBON, WARSAW, lambda link, sender: inf if link == lost else 1.0)
    assert second is not None and lost not in second.links and len(second.links) >= len(first.links)
    assert router.unreachable_from(LISBON) >= set(EUROPE.unreached)
