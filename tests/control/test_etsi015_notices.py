"""Notifications of ETSI GS QKD 015: each of the 11 can be brought about, and each change is told once."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from openqci.control.etsi015 import LinkFacts, NodeFacts, PairFacts
from openqci.control.etsi015.notices import Herald, Memory, Notice, StandingAlarm
from openqci.core.identifiers import KmeId, LinkId, SaeId

LINK = LinkFacts(LinkId("a--b"), 1, KmeId("kme-b"), "BB84", True, 5_000, 1_000.0)
PAIR = PairFacts(SaeId("bank.a"), (SaeId("bank.b"),), KmeId("kme-b"), (LinkId("a--b"),), 3, 500, 0, 60.0)
FACTS = NodeFacts(KmeId("kme-a"), "", "1", False, (LINK,), (PAIR,))
KNOWN = Memory({LINK.link_id: 1}, (PAIR,))
STOCK = StandingAlarm("stock", "bank.a > bank.b", "3 keys left", True)


def with_link(**changes: object) -> NodeFacts:
    return msgspec.structs.replace(FACTS, links=(msgspec.structs.replace(LINK, **changes),))


def with_pair(**changes: object) -> NodeFacts:
    return msgspec.structs.replace(FACTS, pairs=(msgspec.structs.replace(PAIR, **changes),))


def after(facts: NodeFacts, *alarms: StandingAlarm) -> list[Notice]:
    """Return what is told when the usual facts have become others, and see that it is told once."""
    herald = Herald(KNOWN)
    assert herald.look(FACTS, ()) == []
    told = herald.look(facts, alarms)
    assert herald.look(facts, alarms) == []
    return told


def names(notices: list[Notice]) -> list[str]:
    return [notice.name for notice in notices]


def test_applications_come_change_and_go() -> None:
    other = msgspec.structs.replace(PAIR, slaves=(SaeId("bank.c"),))
    (new,) = after(msgspec.structs.replace(FACTS, pairs=(PAIR, other)))
    assert new.name == "sdqkdn_application_new"
    assert new.content["qkd_application"]["client_app_id"] == ["urn:openqci:sae:bank.c"]
    (changed,) = after(with_pair(ttl_s=30.0))
    assert changed.name == "sdqkdn_application_qos_update"
    assert changed.content["qkd_application"]["app_qos"] == {"max_bandwidth": 500, "ttl": 30}
    assert names(after(msgspec.structs.replace(FACTS, pairs=()))) == ["sdqkdn_application_disconnected"]


def test_modules_come_and_go_over_a_restart() -> None:
    assert names(Herald(Memory()).look(FACTS, ())) == ["sdqkdn_interface_new"]
    (out,) = Herald(Memory({LINK.link_id: 1, LinkId("gone"): 2})).look(FACTS, ())
    assert (out.name, out.content) == ("sdqkdn_interface_out", {"qkd_interface": {"qkdi_id": 2}})


def test_what_was_promised_otherwise_before_a_restart_is_told() -> None:
    (changed,) = Herald(KNOWN).look(with_pair(priority=5), ())
    assert changed.name == "sdqkdn_application_qos_update"
    assert Herald(Memory({LINK.link_id: 1})).look(FACTS, ()) == [], "nothing is known of pairs before"


def test_a_link_that_loses_its_module_is_down_until_it_comes_back() -> None:
    down = after(with_link(trouble="no light"))
    assert names(down) == ["sdqkdn_interface_down", "sdqkdn_link_down"]
    assert [each["reason"] for notice in down for each in notice.content.values()] == 2 * ["no light"]
    assert names(after(with_link(trouble="no light", enabled=False))) == ["event"]


def test_a_rate_is_told_when_it_has_moved_by_more_than_a_quarter() -> None:
    assert after(with_link(rate_bps=1_200.0)) == []
    assert names(after(with_link(rate_bps=1_300.0))) == ["sdqkdn_link_perf_update"]


def test_a_link_that_brings_less_than_is_expected_of_it_is_overloaded() -> None:
    told = after(with_pair(max_bps=1_001))
    assert names(told) == ["sdqkdn_link_overloaded", "sdqkdn_application_qos_update"][::-1]
    assert told[1].content["qkd_link"]["performance"] == {
        "expected_consumption": 1_001,
        "skr": 1_000,
        "eskr": 1_000,
    }


def test_alarms_are_told_with_what_they_are_about_and_as_events_when_they_are_over() -> None:
    (stock,) = after(FACTS, STOCK)
    assert stock.name == "alarm" and stock.content["application"]["message"] == "3 keys left"
    assert stock.content["application"]["severity"] == "etsi-qkd-node-types:MAJOR"
    (link,) = after(FACTS, StandingAlarm("over-committed", "a--b", "too much", False))
    assert link.content["link"]["qkdl_status"] == "etsi-qkd-node-types:ACTIVE"
    (module,) = after(FACTS, StandingAlarm("source", "a--b", "off", True))
    assert module.content["interface"]["qkdi_id"] == 1
    assert after(FACTS, StandingAlarm("clock", "kme-b", "late", False)) == []
    herald = Herald(KNOWN)
    herald.look(FACTS, (STOCK,))
    assert names(herald.look(FACTS, ())) == ["event"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=12))
def test_downs_and_switches_are_told_as_often_as_they_happen(steps: list[tuple[bool, bool, bool]]) -> None:
    herald, told = Herald(KNOWN), list[Notice]()
    enabled, down, switches, downs = True, False, 0, 0
    herald.look(FACTS, ())
    for now_enabled, now_down, again in steps:
        switches += now_enabled != enabled
        downs += now_enabled and now_down and not down
        enabled, down = now_enabled, now_down
        facts = with_link(enabled=enabled, trouble="cut" if down else "")
        for _ in range(1 + again):
            told += herald.look(facts, ())
    assert names(told).count("event") == switches
    assert names(told).count("sdqkdn_link_down") == names(told).count("sdqkdn_interface_down") == downs
