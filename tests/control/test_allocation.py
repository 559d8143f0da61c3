"""Routes and admission together: detours before stretch, no flow lost, all Europe's demand at once."""

from collections import defaultdict
from time import process_time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.control import (
    Allocation,
    RoutedDemand,
    RoutePolicy,
    Router,
    ServiceClass,
    allocate,
    budgets,
    service_classes,
    within,
)
from openqci.core.forecasts import RateForecast
from openqci.core.identifiers import LinkId, SiteId, is_border
from openqci.links import forecast
from openqci.network import load_scenario

BULK = ServiceClass("bulk", "copies", 4, 60.0, 0.1, 1.0)
S, T = SiteId("s"), SiteId("t")


def hops(*ends: str) -> list[tuple[LinkId, SiteId, SiteId]]:
    return [(LinkId(each), SiteId(each[0]), SiteId(each[1])) for each in ends]


def flow(name: str, way: str = "st", service: ServiceClass = BULK, **more: object) -> RoutedDemand:
    plain = RoutedDemand(name, SiteId(way[0]), SiteId(way[1]), service)
    return msgspec.structs.replace(plain, **more)


def given_out(
    ends: str, flows: list[RoutedDemand], budget_bps: float = 100.0
) -> tuple[Allocation, dict[str, str]]:
    net = hops(*ends.split())
    found = allocate(
        Router(net), flows, lambda *edge: 1.0, dict.fromkeys((link for link, *_ in net), budget_bps)
    )
    return found, {name: " ".join("".join(r.sites) for r in routes) for name, routes in found.routes.items()}


def test_a_detour_is_used_before_anybody_is_stretched() -> None:
    found, ways = given_out("st sa at", [flow("one"), flow("two"), flow("three")])
    assert sorted(ways.values()) == ["sat", "st", "st"]
    shares = sorted(round(found.grant(name).granted_bps) for name in ways)
    assert shares == [50, 50, 60]


def test_all_give_way_alike_where_all_hops_together_bring_too_little() -> None:
    net = hops("st", "tu", "ux")
    urgent = msgspec.structs.replace(BULK, level=1)
    asked = [flow("bulk", "sx"), flow("urgent", "st", urgent)]
    found = allocate(Router(net), asked, lambda *_: 1.0, dict.fromkeys((link for link, *_ in net), 1000.0))
    assert within(found, asked, 240.0) is found, "60 bit/s over four hops are 240"
    less = within(found, asked, 132.0)
    assert [round(less.grant(name).granted_bps, 6) for name in ("bulk", "urgent")] == [33.0, 33.0]
    assert less.grant("bulk").reason == "all hops together bring 132 bit/s; all share it"
    assert less.admission.left_bps[LinkId("st")] == pytest.approx(1000 - 66)
    least = within(found, asked, 10.0)
    assert [least.grant(name).granted_bps for name in ("bulk", "urgent")] == [0.0, pytest.approx(10.0)]
    assert least.grant("bulk").reason == "all hops together bring 10 bit/s; the least is more"


@given(st.floats(1.0, 1e4), st.lists(st.tuples(st.sampled_from(["st", "su", "sx", "tx"]), st.integers(1, 4))))
def test_what_is_left_of_a_total_is_never_overspent_and_nobody_gets_more(
    total_bps: float, rows: list[tuple[str, int]]
) -> None:
    net = hops("st", "tu", "ux")
    asked = [
        flow(str(number), way, msgspec.structs.replace(BULK, level=level))
        for number, (way, level) in enumerate(rows)
    ]
    found = allocate(Router(net), asked, lambda *_: 1.0, dict.fromkeys((link for link, *_ in net), 300.0))
    less = within(found, asked, total_bps)
    spent_bps = 0.0
    for each in asked:
        was, now = found.grant(each.flow_id), less.grant(each.flow_id)
        assert now.granted_bps <= was.granted_bps
        least_bps = min(was.granted_bps, each.service.least_bps)
        assert now.granted_bps == 0 or now.granted_bps >= least_bps * (1 - 1e-9)
        spent_bps += now.granted_bps * len(found.routes[each.flow_id][0].links)
    assert spent_bps <= total_bps * (1 + 1e-9)


def test_where_all_ways_are_full_all_are_stretched_alike() -> None:
    found, _ = given_out("st", [flow("one"), flow("two")])
    assert [round(found.grant(name).granted_bps) for name in ("one", "two")] == [50, 50]


def test_a_higher_level_keeps_the_short_way() -> None:
    urgent = msgspec.structs.replace(BULK, level=1)
    _, ways = given_out("st sa at", [flow("low"), flow("high", service=urgent)])
    assert ways == {"low": "sat", "high": "st"}


def test_two_shares_need_two_ways_and_pay_on_both() -> None:
    found, ways = given_out("st sa at", [flow("safe", paths=2)])
    assert ways == {"safe": "st sat"}
    assert set(found.admission.left_bps.values()) == {40.0}
    none, _ = given_out("st", [flow("safe", paths=2)])
    assert none.grant("safe").reason == "no 2 disjoint routes lead from s to t"


def test_a_flow_without_a_way_is_refused_and_says_so() -> None:
    found, _ = given_out("sa", [flow("lost"), flow("found", "sa")])
    assert not found.grant("lost").admitted
    assert found.grant("lost").reason == "no route leads from s to t"
    assert found.grant("found").admitted


def test_a_policy_is_kept_though_the_way_is_longer() -> None:
    found, ways = given_out(
        "sb bt sa ac ct", [flow("careful", policy=RoutePolicy(avoid_sites=frozenset({"b"})))]
    )
    assert ways == {"careful": "sact"} and found.grant("careful").admitted


@given(
    net=st.lists(st.sampled_from([a + b for a in "stabc" for b in "stabc" if a < b]), unique=True),
    flows=st.lists(
        st.tuples(
            st.sampled_from(["st", "ab", "sa", "tc"]),
            st.integers(1, 4),
            st.integers(1, 2),
            st.booleans(),
            st.booleans(),
        ),
        max_size=8,
    ),
    budget_bps=st.sampled_from([20.0, 70.0, 150.0]),
)
def test_every_flow_has_a_grant_and_no_hop_gives_more_than_it_has(
    net: list[str], flows: list[tuple[str, int, int, bool, bool]], budget_bps: float
) -> None:
    asked = [
        flow(
            f"f{number}",
            way,
            msgspec.structs.replace(BULK, level=level, rekey_s=None if pad else 1.0),
            paths=paths,
            emergency=emergency,
        )
        for number, (way, level, paths, pad, emergency) in enumerate(flows)
    ]
    found, _ = given_out(" ".join(net), asked, budget_bps)
    load: dict[LinkId, float] = defaultdict(float)
    for each in asked:
        grant = found.grant(each.flow_id)
        routes = found.routes[each.flow_id]
        assert grant.admitted <= (len(routes) == each.paths)
        assert grant.admitted or grant.reason
        for route in routes:
            assert (route.sites[0], route.sites[-1]) == (each.source, each.target)
            for link in route.links:
                load[link] += grant.granted_bps
    assert all(each <= budget_bps * (1 + 1e-9) for each in load.values())


# Europe


def test_all_demand_of_europe_at_once() -> None:
    """The 3,241 flows of the model: all that fibre reaches are admitted whole, the others say why not."""
    europe = load_scenario("eu27", whole_demand=True)
    rates = {link: forecast(europe.devices[hop.device], hop) for link, hop in europe.hops.items()}
    router = Router(europe.edges(), europe.sites)
    classes = service_classes()
    asked = [
        RoutedDemand(
            f"{each.master}>{each.slave}",
            europe.saes[each.master].site,
            europe.saes[each.slave].site,
            classes[each.use_case],
            each.keys_per_s * each.key_size_bits / classes[each.use_case].wanted_bps,
            spends=1.01,
        )
        for each in europe.flows
    ]
    budget = budgets(RateForecast(link, each.secret_key_rate_bps) for link, each in rates.items())

    def decide(part: float) -> Allocation:
        few = {link: part * each for link, each in budget.items()}
        return allocate(router, asked, lambda link, _: float(not is_border(link)), few)

    began_s = process_time()
    whole = decide(1.0)
    took_s = process_time() - began_s
    assert len(whole.admission.grants) == 3241
    beyond_fibre = {each.flow_id for each in asked if not router.connected(each.source, each.target)}
    assert {grant.flow_id for grant in whole.admission.refused} == beyond_fibre and len(beyond_fibre) == 226
    assert not whole.admission.stretched
    tenth = decide(0.1)
    assert len(tenth.admission.stretched) > 100
    for each in asked:
        before, after = whole.grant(each.flow_id), tenth.grant(each.flow_id)
        assert after.granted_bps <= before.granted_bps * (1 + 1e-9)
        assert not after.admitted or after.granted_bps >= each.service.least_bps * each.tunnels * (1 - 1e-9)
    print(
        f"3,241 flows: {took_s:.2f} s; with a tenth of the key {len(tenth.admission.stretched)} stretched, "
        f"{len(tenth.admission.refused) - len(beyond_fibre)} refused"
    )


@pytest.mark.parametrize("field", ["wanted_bps", "least_bps"])
def test_a_flow_of_many_tunnels_asks_for_as_many(field: str) -> None:
    one, six = flow("one").wish(()), flow("six", tunnels=6.0).wish(())
    assert getattr(six, field) == 6 * getattr(one, field)
