"""Why a route is taken and others are not: every reason, and what an answer promises."""

from itertools import pairwise
from math import inf

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.control import (
    CostRule,
    HopReading,
    NodeFacts,
    RouteAdvisor,
    RouteAnswer,
    RoutePolicy,
    RouteQuestion,
)
from openqci.control.cost import EMPTY_HOP_COST, SLOW_HOP_COST
from openqci.control.explanation import ALTERNATIVES, NAMES_TOLD, REASONS_MAX
from openqci.core.identifiers import DomainId, LinkId, SiteId

FULL_BYTES = 1000
RULE = CostRule(FULL_BYTES)


def hop(ends: str, **figures: object) -> HopReading:
    usual = {"rate_bps": 1e9, "stock_bytes": (FULL_BYTES, FULL_BYTES), "epsilon": 1e-9}
    return msgspec.structs.replace(
        HopReading(LinkId(ends), SiteId(ends[0]), SiteId(ends[1])), **(usual | figures)
    )


def answer(hops: list[HopReading], way: str, paths: int = 1, **policy: object) -> RouteAnswer:
    countries = {"g": "DE", "p": "PL"}
    nodes = [
        NodeFacts(SiteId(site), countries.get(site, "XX"), DomainId(site))
        for site in sorted({end for each in hops for end in (each.a, each.b)})
    ]
    advisor = RouteAdvisor(nodes, hops, RULE)
    return advisor.answer(
        RouteQuestion(SiteId(way[0]), SiteId(way[1]), paths, RoutePolicy(**policy))  # type: ignore[arg-type]
    )


def reasons(given: RouteAnswer, way: str) -> tuple[str, ...]:
    """Return what speaks against a route, given by its sites."""
    (found,) = (each.reasons for each in given.refused if "".join(each.sites) == way)
    return found


TRIANGLE = [hop("st"), hop("sp"), hop("pt")]


def test_the_chosen_route_with_the_figures_of_each_hop() -> None:
    told = answer([hop("sg", rate_bps=4e4, epsilon=3e-9), hop("tg", stock_bytes=(900, 500))], "st")
    (path,) = told.paths
    assert told.complete and told.verdict == "1 route" and told.refused == ()
    assert [(each.sender, each.receiver, each.stock_bytes) for each in path.hops] == [
        ("s", "g", 1000),
        ("g", "t", 500),
    ]
    assert (path.rate_bps, path.stock_bytes) == (4e4, 500)
    assert path.epsilon == pytest.approx(4e-9)
    assert path.cost == pytest.approx(1 + SLOW_HOP_COST / 4 + 1 + EMPTY_HOP_COST / 2, abs=1e-3)


def test_of_a_scenario_alone_no_stock_is_known_and_none_counts() -> None:
    told = answer([hop("st", stock_bytes=None, rate_bps=None)], "st")
    assert told.paths[0].stock_bytes is told.paths[0].rate_bps is None
    assert told.paths[0].cost == 1.0


@pytest.mark.parametrize(
    ("changes", "policy", "reason"),
    [
        ({"trouble": "cut"}, {}, "link st: cut"),
        ({}, {"avoid_links": frozenset({"st"})}, "link st: avoided: link st"),
        (
            {"computational": True},
            {},
            "link st: its key is computational, and only quantum key is asked for",
        ),
        ({"epsilon": 1e-6}, {"epsilon_max": 1e-7}, "epsilon 1e-06, at most 1e-07 is allowed"),
        ({"stock_bytes": (0, 1000)}, {}, "link st is empty from s"),
        ({"stock_bytes": (700, 0)}, {}, "link st has 700 bytes left from s"),
        ({"rate_bps": 15_000.0}, {}, "link st is slow: 15000 bit/s"),
        ({"risk": 2.0}, {}, "link st is held for risky, by 2 hops"),
    ],
)
def test_a_direct_way_that_is_not_taken_says_why(
    changes: dict[str, object], policy: dict[str, object], reason: str
) -> None:
    told = answer([hop("st", **changes), *TRIANGLE[1:]], "st", **policy)
    assert "".join(told.paths[0].sites) == "spt"
    assert reason in reasons(told, "st")


def test_places_to_avoid_and_how_many_there_are() -> None:
    told = answer([hop("sg"), hop("gt"), hop("sa"), hop("ap"), hop("pt")], "st", avoid_countries={"DE"})
    assert "".join(told.paths[0].sites) == "sapt"
    assert reasons(told, "sgt") == ("site g: avoided: country DE",)
    (closed,) = told.closed
    assert (closed.kind, closed.reason, closed.count, closed.names) == (
        "site",
        "avoided: country DE",
        1,
        ("g",),
    )


def test_too_many_hops() -> None:
    told = answer([hop("sa"), hop("ab"), hop("bt"), hop("st", stock_bytes=(0, 0))], "st", hops_max=2)
    assert "".join(told.paths[0].sites) == "st"
    assert reasons(told, "sabt") == ("3 hops, at most 2 are allowed",)


def test_a_node_shared_with_a_chosen_route_and_a_route_that_would_spoil_the_pair() -> None:
    trap = [hop("sa"), hop("ab"), hop("bt")]
    trap += [hop(ends, risk=1.0) for ends in ("sc", "cb", "ad", "dt")]
    told = answer(trap, "st", paths=2)
    assert ["".join(path.sites) for path in told.paths] == ["sadt", "scbt"]
    assert told.verdict == "2 routes that share no node"
    assert reasons(told, "sabt")[:2] == ("shares a with path 1", "shares b with path 2")
    assert "but with it 2 cost more together" in reasons(told, "sabt")[2]


def test_one_of_two_says_which_node_every_route_passes() -> None:
    told = answer([hop("sa"), hop("sb"), hop("am"), hop("bm"), hop("mt")], "st", paths=2)
    assert not told.complete and len(told.paths) == 1
    assert told.verdict == "1 of 2 routes that share no node; every route passes m"


@pytest.mark.parametrize(
    ("way", "policy", "verdict"),
    [
        ("sx", {}, "x is not a site of this network"),
        ("ss", {}, "s is both ends: nothing to relay"),
        ("sy", {}, "no chain of QKD links joins s and y"),
        ("st", {"hops_max": 0}, "no route within the bounds: 0 hops"),
        ("st", {"avoid_links": {"st", "sp"}}, "no route: what is closed cuts the network between the two"),
    ],
)
def test_no_route_in_one_sentence(way: str, policy: dict[str, object], verdict: str) -> None:
    told = answer([*TRIANGLE, hop("yz")], way, **policy)
    assert told.verdict == verdict and not told.paths and not told.complete


def test_where_all_is_closed_the_route_with_the_fewest_closures_is_told() -> None:
    chain = [hop("sa", trouble="cut"), hop("ab", trouble="cut"), hop("bt", trouble="cut")]
    told = answer([*chain, hop("sc"), hop("cd"), hop("de"), hop("et", trouble="dug up")], "st")
    assert reasons(told, "sabt") == ("links sa, ab, bt: cut",)
    assert reasons(told, "scdet") == ("link et: dug up",)


# Properties

figures = st.fixed_dictionaries(
    {
        "rate_bps": st.sampled_from([None, 0.0, 2e4, 1e6]),
        "stock_bytes": st.tuples(st.integers(0, 1200), st.integers(0, 1200)),
        "trouble": st.sampled_from(["", "", "", "cut"]),
        "epsilon": st.sampled_from([1e-9, 1e-8]),
    }
)


@given(
    hops=st.lists(st.sampled_from([a + b for a in "abcdefg" for b in "abcdefg" if a < b]), unique=True),
    data=st.data(),
    paths=st.integers(1, 3),
    policy=st.fixed_dictionaries(
        {},
        optional={
            "hops_max": st.integers(1, 4),
            "epsilon_max": st.sampled_from([3e-9, 2e-8]),
            "avoid_sites": st.frozensets(st.sampled_from("cdefg"), max_size=2),
            "node_disjoint": st.booleans(),
        },
    ),
)
def test_every_answer_keeps_the_policy_and_gives_every_refusal_a_reason(
    hops: list[str], data: st.DataObject, paths: int, policy: dict[str, object]
) -> None:
    readings = [hop(ends, **data.draw(figures)) for ends in hops]
    told = answer(readings, "ab", paths, **policy)
    of_link = {each.link_id: each for each in readings}
    asked = told.question.policy
    assert told.complete == (len(told.paths) == paths) and told.verdict
    for path in told.paths:
        assert [(each.sender, each.receiver) for each in path.hops] == list(pairwise(path.sites))
        assert all(not of_link[each.link_id].trouble and each.cost < inf for each in path.hops)
        assert not asked.avoid_sites & set(path.sites[1:-1])
        assert asked.hops_max is None or len(path.hops) <= asked.hops_max
    if asked.epsilon_max is not None and told.paths:
        assert sum(path.epsilon for path in told.paths) <= asked.epsilon_max * (1 + 1e-9)
    taken = {path.sites for path in told.paths}
    assert len(told.refused) <= ALTERNATIVES + 2 * paths + 1
    for refused in told.refused:
        assert refused.sites not in taken
        assert 1 <= len(refused.reasons) <= REASONS_MAX + 1 and all(refused.reasons)
    assert all(each.count >= len(each.names) >= min(each.count, NAMES_TOLD) for each in told.closed)
