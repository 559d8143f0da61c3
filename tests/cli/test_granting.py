"""What flows of a live network get: all demand stretched to a machine, whose measure are real blocks."""

import asyncio

import pytest

from openqci.cli.up.granting import PADS_AT_ONCE, as_listed, distilled_bps, granted
from openqci.cli.up.workers import BlockWorkers
from openqci.control import service_classes
from openqci.network import Network, load_scenario


@pytest.fixture(scope="module")
def europe() -> Network:
    return load_scenario("eu27", whole_demand=True)


def test_a_machine_that_distils_a_megabit_serves_every_flow_that_has_a_route(europe: Network) -> None:
    found = granted(europe, 1e6)
    assert len(found.flows) + len(found.refused) == len(europe.flows) == 3241
    assert all(reason.startswith("no route leads") for reason in found.refused.values())
    assert 0 < found.granted_bps < found.wanted_bps
    classes = service_classes()
    for each in found.flows:
        service, bps = classes[each.flow.use_case], each.flow.keys_per_s * each.flow.key_size_bits
        assert bps >= 0.999 * service.least_bps
        assert each.keys_at_once == (PADS_AT_ONCE if service.one_time_pad else 1)
        assert each.interval_s == pytest.approx(each.keys_at_once * each.flow.key_size_bits / bps)


def test_a_slower_machine_refuses_the_last_levels_and_says_why(europe: Network) -> None:
    found = granted(europe, 2e5)
    assert "all hops together bring 2e+05 bit/s; the least is more" in found.refused.values()
    classes = service_classes()
    levels = {classes[each.flow.use_case].level for each in found.flows}
    assert 1 in levels and 4 not in levels


def test_the_flows_that_a_scenario_lists_stay_as_they_are() -> None:
    metro = load_scenario("metro")
    assert [each.flow for each in as_listed(metro.flows)] == [f for f in metro.flows if f.keys_per_s > 0]


def test_what_a_machine_distils_is_measured_with_real_blocks() -> None:
    workers = BlockWorkers(1)
    try:
        assert asyncio.run(distilled_bps(workers, load_scenario("metro"))) > 1_000
    finally:
        workers.close()
