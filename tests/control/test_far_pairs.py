"""Pairs beyond a node's neighbours: what they lack, and how their routes avoid what has just failed."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.control.configuration import DomainConfiguration, Link, Node, Pair
from openqci.control.far_pairs import (
    BATCH_BYTES_MAX,
    BATCHES_UNDER_WAY_MAX,
    DomainRoutes,
    FarDemand,
    FarStock,
    batch_bytes,
    with_waiting,
)
from openqci.core.identifiers import KmeId, LinkId, SaeId

RING = DomainConfiguration(
    "XX",
    1,
    0.0,
    nodes=(
        Node("kme-a", country="AT", saes=("bank.a",)),
        Node("kme-b", country="HU", operator="north"),
        Node("kme-c", country="AT", saes=("bank.c",)),
        Node("kme-d", country="SK", operator="south"),
        Node("kme-e", saes=("bank.e",)),
    ),
    links=(
        Link("a--b", "kme-a", "kme-b", 1e4),
        Link("b--c", "kme-b", "kme-c", 1e4),
        Link("a--d", "kme-a", "kme-d", 5e3),
        Link("d--c", "kme-d", "kme-c", 5e3),
    ),
    pairs=(Pair("bank.a", "bank.c", low_keys=10, high_keys=20),),
)


def routes(configuration: DomainConfiguration = RING) -> DomainRoutes:
    return DomainRoutes(configuration, KmeId("kme-a"))


def demand(**changes: object) -> FarDemand:
    found = routes().demand_of(SaeId("bank.a"), SaeId("bank.c"), 300.0, Pair("bank.a", "bank.c", **changes))  # type: ignore[arg-type]
    assert found is not None
    return found


def ways(
    wanted: FarDemand, of: DomainRoutes | None = None, stock: int = 1 << 20, now_s: float = 0.0
) -> list[str]:
    found = (of or routes()).routes(wanted, lambda link: stock, 1024, now_s)
    return [" ".join(route.sites) for route in found]


def test_the_faster_links_are_taken_first_and_disjoint_routes_if_several_are_wanted() -> None:
    assert ways(demand()) == ["kme-a kme-b kme-c"]
    assert ways(demand(paths=2)) == ["kme-a kme-b kme-c", "kme-a kme-d kme-c"]
    assert ways(demand(paths=3)) == []


@pytest.mark.parametrize("wish", ["country:HU", "operator:north", "kme:kme-b", "link:b--c"])
def test_a_pair_may_avoid_places(wish: str) -> None:
    assert ways(demand(avoid=(wish,))) == ["kme-a kme-d kme-c"]


def test_a_link_that_is_not_usable_is_not_used() -> None:
    cut = msgspec.structs.replace(
        RING, links=tuple(msgspec.structs.replace(link, usable=link.link_id != "b--c") for link in RING.links)
    )
    assert ways(demand(), routes(cut)) == ["kme-a kme-d kme-c"]


def test_a_link_on_which_a_relay_failed_is_avoided_for_a_while() -> None:
    found = routes()
    found.failed_at(("kme-a", "kme-b", "kme-c"), "kme-b", now_s=100.0)
    assert ways(demand(), found, now_s=105.0) == ["kme-a kme-d kme-c"]
    assert ways(demand(), found, now_s=120.0) == ["kme-a kme-b kme-c"]


def test_a_relay_of_which_nothing_was_heard_makes_its_whole_route_dear() -> None:
    found = routes()
    found.stuck_on(("kme-a", "kme-b", "kme-c"), now_s=100.0)
    assert ways(demand(), found, now_s=105.0) == ["kme-a kme-d kme-c"]


def test_links_that_were_taken_out_are_known() -> None:
    found = routes()
    assert not found.unusable(("a--b", "b--c")) and found.unusable(("a--b", "gone"))


def test_an_own_link_without_key_is_avoided() -> None:
    found = routes().routes(demand(), lambda link: 0 if link == LinkId("a--b") else 1 << 20, 1024, 0.0)
    assert [route.links for route in found] == [("a--d", "d--c")]


def test_a_pair_of_the_configuration_has_its_watermarks_and_others_the_usual_ones() -> None:
    given = routes().demand_of(SaeId("bank.a"), SaeId("bank.c"), 300.0)
    usual = routes().demand_of(SaeId("bank.a"), SaeId("bank.e"), 300.0)
    assert given is not None and (given.target, given.low_bytes, given.high_bytes) == ("kme-c", 320, 640)
    assert usual is not None and usual.low_bytes == 64 * 32
    assert routes().demand_of(SaeId("bank.a"), SaeId("nobody"), 300.0) is None
    assert routes().demand_of(SaeId("bank.c"), SaeId("bank.a"), 300.0) is None  # both ends are here
    assert routes().joined(KmeId("kme-c")) and not routes().joined(KmeId("kme-e"))


@given(st.integers(0, 5_000), st.lists(st.integers(32, 8_192), max_size=9), st.integers(0, 10_000))
def test_no_pair_gets_more_than_it_lacks(stock: int, coming: list[int], waiting: int) -> None:
    each = FarDemand(SaeId("a"), SaeId("b"), KmeId("k"), 1_024, 4_096, waiting_bytes=waiting)
    length = batch_bytes(each, FarStock(stock, coming))
    assert 0 <= length <= BATCH_BYTES_MAX
    if len(coming) >= BATCHES_UNDER_WAY_MAX or (
        stock + sum(coming) >= each.low_bytes and waiting <= sum(coming)
    ):
        assert length == 0
    else:
        lacking = max(each.high_bytes - stock - sum(coming), waiting - sum(coming))
        assert length == min(BATCH_BYTES_MAX, lacking + -lacking % 32) and length > 0


def test_who_waits_is_served_before_who_does_not_and_after_higher_priority() -> None:
    def pair(name: str, priority: int) -> FarDemand:
        return FarDemand(SaeId(name), SaeId("z"), KmeId("k"), 1, 2, priority=priority)

    named = [pair("idle", 3), pair("waits", 3), pair("first", 5)]
    served = with_waiting(named, {(SaeId("waits"), SaeId("z")): (64, 16)})
    assert [each.master for each in served] == ["first", "waits", "idle"]
    assert (served[1].waiting_bytes, served[1].key_bytes) == (64, 16)
