"""Routes on the live network: against brute force on small ones, and at the size of Europe."""

from collections.abc import Iterator
from itertools import pairwise
from math import inf, isclose
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.control import Route, Router
from openqci.core.identifiers import LinkId, SiteId

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


def ladder(rungs: int) -> Hops:
    """Return a network of Europe's size and shape: long lines with a bridge every twelve hops."""
    lines: Hops = []
    for i in range(rungs):
        for line in "pqr":
            ends = SiteId(f"{line}{i}"), SiteId(f"{line}{i + 1}")
            lines.append((LinkId(f"{line}.{i}"), *ends))
        if i % 12 == 0:
            for a, b in pairwise("pqr"):
                lines.append((LinkId(f"{a}{b}.{i}"), SiteId(f"{a}{i}"), SiteId(f"{b}{i}")))
    return lines


@pytest.mark.parametrize("rungs", [420])
def test_a_route_across_europe_takes_milliseconds(rungs: int) -> None:
    """1,263 nodes and 1,330 hops; measured 1 ms on a quiet core, with room here for a busy machine."""
    router = Router(ladder(rungs))
    took_s = []
    for _ in range(5):
        began_s = perf_counter()
        found = router.route(SiteId("p0"), SiteId(f"r{rungs}"), lambda link_id, sender: 1.0 + len(link_id))
        took_s.append(perf_counter() - began_s)
        assert found is not None and len(found.links) >= rungs
    assert min(took_s) < 0.05
