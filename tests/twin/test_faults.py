"""The book of faults: what each gets hold of, what stands while several do, and what cannot be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import ConfigurationError
from openqci.core.identifiers import LinkId, SiteId
from openqci.links import forecast, quantum_link
from openqci.links.attacks.interception import InterceptResend
from openqci.network import load_scenario
from openqci.twin.block import QBER_MAX, BlockOrder, distil_block
from openqci.twin.faults import Fault, FaultBook, FaultKind, FaultOrder, is_noticed
from openqci.twin.hops import HopBook
from tests.twin.test_block import KEY

METRO = load_scenario("metro")
FORECASTS = {link: forecast(METRO.devices[hop.device], hop) for link, hop in METRO.hops.items()}
HOP = LinkId("at-schwechat--at-vienna")


def book() -> FaultBook:
    return FaultBook(METRO, FORECASTS)


def order(kind: str, target: str, **more: float) -> FaultOrder:
    return FaultOrder(FaultKind(kind), target, "ana", **more)


def test_a_link_is_cut_with_all_its_hops_and_a_hop_alone() -> None:
    faults = book()
    assert faults.inject(order("cut", "hu-gyor--hu-sopron"), 5.0).links == (
        "hu-gyor--hu-sopron.1",
        "hu-gyor--hu-sopron.2",
    )
    assert faults.inject(order("cut", HOP), 6.0).links == (HOP,)
    assert set(faults.broken()) == {"hu-gyor--hu-sopron.1", "hu-gyor--hu-sopron.2", HOP}


def test_a_border_is_cut_alone() -> None:
    border = "sk-bratislava.at|sk-bratislava"
    assert book().inject(order("cut", border), 0.0).links == (border,)


def test_a_stopped_node_takes_its_hops_and_borders_with_it() -> None:
    faults = book()
    fault = faults.inject(order("stop", "sk-bratislava"), 0.0)
    assert set(fault.links) == {
        "sk-bratislava--sk-trnava",
        "sk-bratislava.at|sk-bratislava",
        "sk-bratislava.hu|sk-bratislava",
    }
    assert faults.stopped() == {SiteId("sk-bratislava")}


def test_an_isolated_domain_loses_its_borders_with_others_and_nothing_else() -> None:
    fault = book().inject(order("isolate", "SK"), 0.0)
    assert set(fault.links) == {"sk-bratislava.at|sk-bratislava", "sk-bratislava.hu|sk-bratislava"}
    assert set(fault.sites) == {"sk-bratislava.at", "sk-bratislava.hu"}


def test_a_hop_is_whole_again_when_the_last_fault_on_it_is_over() -> None:
    faults = book()
    first = faults.inject(order("stop", "at-vienna"), 0.0)
    second = faults.inject(order("cut", HOP), 1.0)
    faults.clear(first.fault_id)
    assert faults.broken() == {HOP: f"the fibre of {HOP} is cut"}
    faults.clear(second.fault_id)
    assert faults.broken() == {} and faults.stopped() == set()


def test_a_fault_ends_when_its_time_is_over() -> None:
    faults = book()
    fault = faults.inject(order("cut", HOP, for_s=10.0), 5.0)
    assert faults.due(14.9) == [] and faults.due(15.0) == [fault]


@given(st.lists(st.tuples(st.sampled_from(sorted(METRO.hops)), st.booleans()), max_size=20))
def test_whatever_comes_and_goes_nothing_is_left_when_all_is_cleared(moves: list[tuple[str, bool]]) -> None:
    faults, standing = book(), dict[str, Fault]()
    for target, clears in moves:
        if clears and target in standing:
            faults.clear(standing.pop(target).fault_id)
        elif target not in standing:
            standing[target] = faults.inject(order("cut", target), 0.0)
        assert set(faults.broken()) == set(standing)
    for fault in standing.values():
        faults.clear(fault.fault_id)
    assert faults.standing() == [] and faults.broken() == {}


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (order("cut", "at-schwechat--at-viena"), "did you mean at-schwechat--at-vienna"),
        (order("stop", "mars"), "no node 'mars'"),
        (order("isolate", "DE"), "no domain 'DE'"),
        (order("flood", "sae-nobody"), "no SAE 'sae-nobody'"),
        (order("qber", "hu-gyor--hu-sopron", added_qber=0.1), "no hop 'hu-gyor--hu-sopron'; did you mean"),
        (order("qber", HOP, added_qber=0.3), "at most 0.240"),
        (order("qber", HOP), "belongs to the fault qber"),
        (order("cut", HOP, added_qber=0.1), "belongs to the fault qber"),
        (order("cut", HOP, for_s=0.0), "expected above 0"),
    ],
)
def test_what_cannot_be_is_said_with_what_could(wrong: FaultOrder, expected: str) -> None:
    faults = book()
    with pytest.raises(ConfigurationError, match=expected.replace("?", r"\?")):
        faults.inject(wrong, 0.0)
    assert faults.standing() == []


def test_the_same_fault_twice_is_refused_and_one_that_does_not_stand_is_not_cleared() -> None:
    faults = book()
    faults.inject(order("cut", HOP), 0.0)
    with pytest.raises(ConfigurationError, match="stands already as f1"):
        faults.inject(order("cut", HOP), 0.0)
    with pytest.raises(ConfigurationError, match="no fault 'f9' stands; those that do: f1"):
        faults.clear("f9")


def test_more_faults_than_there_is_room_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openqci.twin.faults.FAULTS_MAX", 2)
    faults = book()
    faults.inject(order("cut", HOP), 0.0)
    faults.inject(order("stop", "at-vienna"), 0.0)
    with pytest.raises(ConfigurationError, match="2 faults stand already"):
        faults.inject(order("isolate", "SK"), 0.0)


@pytest.mark.parametrize(("link", "added"), [(HOP, 0.01), ("at-schwechat--sk-bratislava", 0.1), (HOP, 0.23)])
def test_the_eavesdropper_measures_as_much_as_the_error_rate_is_to_rise(link: str, added: float) -> None:
    """Against the closed form of the attack on the same link, not against our own inverse of it."""
    fault = book().inject(order("qber", link, added_qber=added), 0.0)
    hop = METRO.hops[LinkId(link)]
    observed = InterceptResend(fault.intercepted).outcome(quantum_link(METRO.devices[hop.device], hop))
    (rate,) = [each for each in observed.observables if each.name == "error rate Z0"]
    assert rate.attacked - rate.honest == pytest.approx(added, rel=0.03)


@pytest.mark.parametrize(
    ("added", "aborts"), [(0.02, ""), (0.05, "no secret bits left"), (0.15, "QBER too high")]
)
def test_the_distillation_itself_finds_the_eavesdropper(added: float, aborts: str) -> None:
    hop = METRO.hops[HOP]
    device, expected = METRO.devices[hop.device], FORECASTS[HOP]
    fault = book().inject(order("qber", HOP, added_qber=added), 0.0)
    assert is_noticed(fault) is (expected.qber + added > QBER_MAX)
    attacked = BlockOrder(hop, device, 1, expected.block_detections, 5, KEY, KEY, fault.intercepted)
    block = distil_block(attacked)
    assert block.report is not None
    assert block.report.test_qber == pytest.approx(expected.qber + added, rel=0.1)
    if aborts:
        assert aborts in block.aborted and block.key_a == block.key_b == b""
    else:
        assert block.key_a == block.key_b and 0 < 8 * len(block.key_a) < 0.5 * expected.block_secret_bits


def test_a_hop_with_a_full_stock_makes_a_block_when_its_channel_is_another() -> None:
    full = {(link, site): 10**6 for link, hop in METRO.hops.items() for site in (hop.a, hop.b)}
    hops = HopBook(METRO, FORECASTS, {}, full)
    assert hops.next_hop((), (), 0.0) is None
    hops.intercept(HOP, 0.5)
    assert hops.next_hop((), (), 0.0) == HOP
    hops.begin_block(HOP, 0.0)
    hops.give_up_block(HOP, 0.0)
    hops.intercept(HOP, 0.5)
    assert hops.next_hop((), (), 1.0) is None, "one look is enough"
    hops.intercept(HOP, 0.0)
    assert hops.next_hop((), (), 1.0) == HOP, "and one when the eavesdropper is gone"
