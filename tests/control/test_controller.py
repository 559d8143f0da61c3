"""The controller's core: what it learns, when it speaks, and that it never takes a word back."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.control.configuration import DomainConfiguration, Link, Node
from openqci.control.controller import (
    RATE_WINDOW_S,
    SILENT_S,
    VERSION_S_MIN,
    Controller,
    LinkReport,
    NodeReport,
    PairReport,
)
from openqci.core.errors import PeerMisbehaved
from openqci.core.identifiers import LinkId

LAID_DOWN = DomainConfiguration(
    "XX",
    1,
    0.0,
    nodes=(Node("kme-a"), Node("kme-b"), Node("kme-c")),
    links=(Link("a--b", "kme-a", "kme-b", 1_000.0), Link("b--c", "kme-b", "kme-c", 1_000.0)),
)


def link(configuration: DomainConfiguration | None, link_id: str) -> Link:
    assert configuration is not None
    return next(each for each in configuration.links if each.link_id == link_id)


def report(kme: str, **links: LinkReport) -> NodeReport:
    return NodeReport(kme, links=tuple(links.values()))


def test_the_first_version_is_what_was_laid_down() -> None:
    first = Controller(LAID_DOWN).next_configuration(10.0)
    assert first is not None
    assert msgspec.structs.replace(first, issued_s=0.0) == LAID_DOWN


def test_versions_go_on_where_an_earlier_life_ended() -> None:
    again = Controller(LAID_DOWN, version=41).next_configuration(10.0)
    assert again is not None and again.version == 42


def test_nothing_new_is_no_new_version() -> None:
    controller = Controller(LAID_DOWN)
    controller.next_configuration(0.0)
    controller.receive_report(NodeReport("kme-a", links=(LinkReport("a--b", 10, 10),)), 1.0)
    assert controller.next_configuration(2.0) is None


def test_a_link_in_trouble_is_taken_out_and_comes_back() -> None:
    controller = Controller(LAID_DOWN)
    controller.next_configuration(0.0)
    controller.receive_report(NodeReport("kme-a", links=(LinkReport("a--b", trouble="module is off"),)), 1.0)
    assert not link(controller.next_configuration(1.0), "a--b").usable
    assert [alarm.reason for alarm in controller.alarms(1.0)] == ["kme-a: module is off"]
    controller.receive_report(NodeReport("kme-a", links=(LinkReport("a--b", 100, 100),)), 2.0)
    assert link(controller.next_configuration(2.0), "a--b").usable
    assert controller.alarms(2.0) == []


def test_a_link_with_stock_serves_on_though_its_module_rests() -> None:
    controller = Controller(LAID_DOWN)
    controller.next_configuration(0.0)
    resting = LinkReport("a--b", 5_000, 5_000, trouble="has no key now")
    controller.receive_report(NodeReport("kme-a", links=(resting,)), 1.0)
    assert controller.next_configuration(1.0) is None


def test_a_neighbour_that_is_not_met_takes_the_link_out() -> None:
    controller = Controller(LAID_DOWN)
    controller.receive_report(NodeReport("kme-b", unmet=("kme-c",)), 1.0)
    made = controller.next_configuration(1.0)
    assert link(made, "a--b").usable and not link(made, "b--c").usable


def test_a_closed_link_stays_closed_until_it_is_opened() -> None:
    controller = Controller(LAID_DOWN)
    controller.close_link(LinkId("a--b"), "closed by operator ana")
    assert not link(controller.next_configuration(0.0), "a--b").usable
    controller.receive_report(NodeReport("kme-a", links=(LinkReport("a--b", 100, 100),)), 1.0)
    assert controller.next_configuration(1.0) is None
    assert controller.open_link(LinkId("a--b")) and not controller.open_link(LinkId("a--b"))
    assert link(controller.next_configuration(2.0), "a--b").usable


def test_the_rate_of_a_link_is_measured() -> None:
    controller = Controller(LAID_DOWN)
    for second in range(int(RATE_WINDOW_S) + 1):
        seen = LinkReport("a--b", deposited_bytes=1_000 * second)
        controller.receive_report(NodeReport("kme-a", links=(seen,)), float(second))
    assert link(controller.next_configuration(RATE_WINDOW_S), "a--b").rate_bps == pytest.approx(8_000.0)


def test_a_link_that_rests_at_its_high_mark_keeps_its_rate() -> None:
    controller = Controller(LAID_DOWN)
    for second in range(int(RATE_WINDOW_S) + 1):
        full = LinkReport("a--b", own_bytes=9_999, peer_bytes=9_999, deposited_bytes=50)
        controller.receive_report(NodeReport("kme-a", links=(full,)), float(second))
    assert link(controller.next_configuration(RATE_WINDOW_S), "a--b").rate_bps == 1_000.0


def test_a_link_is_simulated_until_an_end_says_that_it_is_not_and_none_says_that_it_is() -> None:
    controller = Controller(LAID_DOWN)
    assert link(controller.next_configuration(0.0), "a--b").simulated
    real = LinkReport("a--b", deposited_bytes=7, epsilon=1e-10, protocol="BB84", proof="decoy")
    controller.receive_report(NodeReport("kme-b", links=(real,)), 1.0)
    stated = msgspec.structs.replace(real, deposited_bytes=0, epsilon=1e-9)
    controller.receive_report(NodeReport("kme-a", links=(stated,)), 1.0)
    told = link(controller.next_configuration(1.0), "a--b")
    assert (told.simulated, told.epsilon, told.protocol) == (False, 1e-10, "BB84")
    controller.receive_report(
        NodeReport("kme-a", links=(msgspec.structs.replace(stated, simulated=True),)), 2.0
    )
    assert link(controller.next_configuration(2.0), "a--b").simulated


def test_silent_nodes_and_low_stocks_are_alarms() -> None:
    controller = Controller(LAID_DOWN)
    low = PairReport("bank.a", "bank.c", stock_bytes=10, low_bytes=100)
    controller.receive_report(NodeReport("kme-a", pairs=(low,)), 0.0)
    assert [alarm.code for alarm in controller.alarms(1.0)] == ["stock"]
    assert [alarm.code for alarm in controller.alarms(SILENT_S + 1)] == ["node silent", "stock"]


def test_strangers_are_not_heard() -> None:
    with pytest.raises(PeerMisbehaved, match="no node of domain XX"):
        Controller(LAID_DOWN).receive_report(NodeReport("kme-z"), 0.0)


steps = st.tuples(
    st.sampled_from(["kme-a", "kme-b", "kme-c"]),
    st.sampled_from(["", "off"]),
    st.integers(0, 10_000),
    st.floats(0.0, 5.0),
)


@given(st.lists(steps, max_size=30))
def test_versions_only_grow_each_differs_and_none_comes_too_soon(
    told: list[tuple[str, str, int, float]],
) -> None:
    controller, now_s, last_s = Controller(LAID_DOWN), 0.0, -VERSION_S_MIN
    before = None
    for kme, trouble, deposited, wait_s in told:
        now_s += wait_s
        seen = LinkReport("a--b", deposited_bytes=deposited, trouble=trouble)
        controller.receive_report(NodeReport(kme, links=(seen,)), now_s)
        made = controller.next_configuration(now_s)
        if made is None:
            continue
        assert made.faults() == ()
        assert now_s - last_s >= VERSION_S_MIN
        if before is not None:
            assert made.version == before.version + 1
            assert msgspec.structs.replace(made, version=0, issued_s=0.0) != msgspec.structs.replace(
                before, version=0, issued_s=0.0
            )
        before, last_s = made, now_s
