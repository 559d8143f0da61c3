"""Admission: no hop is promised twice, nobody is worse off for a lower level, and all is said in words."""

from collections import defaultdict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.control import Admission, FlowWish, Notice, admit, budgets, notices, service_classes
from openqci.control.admission import BUDGET_PART, PAD_PART
from openqci.control.classes import EMERGENCY, class_of, plain_class
from openqci.core.errors import ConfigurationError
from openqci.core.forecasts import RateForecast
from openqci.core.identifiers import LinkId
from openqci.network.catalogue import UseCase, catalogue_demand

LINKS = [LinkId(name) for name in ("ab", "bc", "cd", "de")]


def wish(
    name: str, level: int = 3, wanted: float = 100.0, least: float = 10.0, links: str = "ab"
) -> FlowWish:
    return FlowWish(name, level, wanted, least, tuple(LinkId(each) for each in links.split()))


def granted(decided: Admission, *names: str) -> list[float]:
    return [round(decided.grants[name].granted_bps, 6) for name in names]


# Examples


def test_what_fits_is_granted_whole() -> None:
    decided = admit([wish("x"), wish("y", links="ab bc")], {LINKS[0]: 300.0, LINKS[1]: 100.0})
    assert granted(decided, "x", "y") == [100.0, 100.0]
    assert not decided.stretched and not decided.refused
    assert decided.left_bps == {"ab": 100.0, "bc": 0.0}
    assert decided.grants["x"].reason == "" and decided.grants["x"].stretch == 1.0


def test_flows_of_a_level_are_stretched_alike_until_one_hop_is_full_and_the_others_go_on() -> None:
    """The textbook case: x and y share ab; z shares bc with y and gets what y cannot use."""
    asked = [wish("x", links="ab"), wish("y", links="ab bc"), wish("z", links="bc")]
    decided = admit(asked, {LINKS[0]: 100.0, LINKS[1]: 130.0})
    assert granted(decided, "x", "y", "z") == [50.0, 50.0, 80.0]
    assert decided.grants["y"].link_id == "ab"
    assert decided.grants["z"].reason == "hop bc is full; level 3 shares it"


def test_equal_stretch_is_equal_parts_of_what_each_wants() -> None:
    decided = admit([wish("small", wanted=50, least=5), wish("large", wanted=200)], {LINKS[0]: 125.0})
    assert granted(decided, "small", "large") == [25.0, 100.0]


def test_a_flow_that_cannot_do_with_less_keeps_what_it_needs_and_the_others_share_the_rest() -> None:
    decided = admit([wish("stiff", least=90), wish("x"), wish("y")], {LINKS[0]: 150.0})
    assert granted(decided, "stiff", "x", "y") == [90.0, 30.0, 30.0]


def test_refusal_names_the_hop_that_lacks_most_and_how_much() -> None:
    asked = [
        wish("first", wanted=60, least=60, links="ab bc"),
        wish("second", wanted=60, least=50, links="ab bc"),
    ]
    decided = admit(asked, {LINKS[0]: 100.0, LINKS[1]: 70.0})
    refused = decided.grants["second"]
    assert not refused.admitted and refused.link_id == "bc"
    assert refused.reason == "hop bc lacks 40 of the 50 bit/s that are the least"


def test_of_one_level_who_came_first_is_kept() -> None:
    asked = [wish("old", wanted=60, least=60), wish("new", wanted=60, least=60)]
    assert granted(admit(asked, {LINKS[0]: 100.0}), "old", "new") == [60.0, 0.0]
    assert granted(admit(asked[::-1], {LINKS[0]: 100.0}), "old", "new") == [0.0, 60.0]


def test_higher_levels_are_served_before_lower_ones() -> None:
    asked = [wish("low", 4), wish("high", 1), wish("middle", 2)]
    assert granted(admit(asked, {LINKS[0]: 150.0}), "high", "middle", "low") == [100.0, 50.0, 0.0]


def test_an_emergency_suspends_and_stretches_lower_classes_and_they_are_told() -> None:
    asked = [wish("voice", 1, 100, 20), wish("tunnel", 3, 100, 60)]
    before = admit(asked, {LINKS[0]: 200.0})
    crisis = msgspec.structs.replace(wish("crisis", 9, 130, 130), emergency=True)
    after = admit([*asked, crisis], {LINKS[0]: 200.0})
    assert granted(after, "crisis", "voice", "tunnel") == [130.0, 70.0, 0.0]
    told = [
        msgspec.structs.replace(each, granted_bps=round(each.granted_bps)) for each in notices(before, after)
    ]
    taken = "; emergencies take 130 bit/s of it"
    assert told == [
        Notice("voice", "stretched", 70, "hop ab is full; level 1 shares it" + taken),
        Notice("tunnel", "suspended", 0, "hop ab lacks 60 of the 60 bit/s that are the least" + taken),
    ]
    over = list(notices(after, admit(asked, {LINKS[0]: 200.0})))
    assert [(each.flow_id, each.what) for each in over] == [("voice", "eased"), ("tunnel", "restored")]


def test_one_time_pads_leave_a_part_of_each_hop_but_an_emergency_does_not() -> None:
    pad = msgspec.structs.replace(wish("pad", 1, 1000, 10), pad=True)
    decided = admit([pad, wish("tunnel", 3, 200, 10)], {LINKS[0]: 400.0})
    assert granted(decided, "pad", "tunnel") == [400 * PAD_PART, 400 * (1 - PAD_PART)]
    assert decided.grants["pad"].reason == (
        "hop ab, of what it has for one-time pads, is full; level 1 shares it"
    )
    crisis = msgspec.structs.replace(pad, emergency=True)
    assert crisis.level == EMERGENCY
    assert granted(admit([crisis, wish("tunnel")], {LINKS[0]: 400.0}), "pad", "tunnel") == [400.0, 0.0]


def test_a_hop_on_two_routes_pays_twice_and_a_hop_without_budget_has_none() -> None:
    assert granted(admit([wish("x", links="ab ab")], {LINKS[0]: 100.0}), "x") == [50.0]
    assert granted(admit([wish("x", links="ab xx")], {LINKS[0]: 100.0}), "x") == [0.0]
    assert granted(admit([wish("x", links="")], {}), "x") == [100.0]
    assert admit([], {LINKS[0]: 5.0}).left_bps == {"ab": 5.0}


def test_what_the_relay_itself_spends_counts() -> None:
    costly = msgspec.structs.replace(wish("x"), spends=1.25)
    assert granted(admit([costly], {LINKS[0]: 100.0}), "x") == [80.0]


def test_notices_of_new_flows() -> None:
    nobody = admit([], {LINKS[0]: 100.0})
    some = admit([wish("a"), wish("b"), wish("c", 4, 50, 50)], {LINKS[0]: 100.0})
    assert [(each.flow_id, each.what) for each in notices(nobody, some)] == [
        ("a", "stretched"),
        ("b", "stretched"),
        ("c", "refused"),
    ]
    assert list(notices(some, some)) == []


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ([wish("x"), wish("x")], "flow x asks 2 times"),
        ([wish("x", least=0.0)], "expected a least above 0"),
        ([wish("x", wanted=5.0)], "not above what it wants"),
        ([wish("x", wanted=float("inf"))], "expected a least"),
    ],
)
def test_senseless_wishes_are_a_mistake_of_the_caller(wishes: list[FlowWish], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        admit(wishes, {})


def test_budgets_leave_a_part_of_the_forecast() -> None:
    assert budgets([RateForecast(LINKS[0], 1000.0, 0.02)]) == {"ab": 1000.0 * BUDGET_PART}


# Properties


@st.composite
def demands(draw: st.DrawFn, smallest: int = 1) -> tuple[list[FlowWish], dict[LinkId, float]]:
    wishes = []
    for number in range(draw(st.integers(smallest, 12))):
        wanted = draw(st.sampled_from([1.0, 8.533, 100.0, 230.4]))
        links = draw(st.lists(st.sampled_from(LINKS), min_size=1, max_size=5))
        wishes.append(
            FlowWish(
                f"f{number}",
                draw(st.integers(1, 4)),
                wanted,
                wanted * draw(st.sampled_from([1.0, 0.5, 0.1, 0.01])),
                tuple(links),
                draw(st.sampled_from([1.0, 1.01, 3.0])),
                draw(st.booleans()),
                draw(st.sampled_from([False, False, False, True])),
            )
        )
    return wishes, {link: draw(st.sampled_from([0.0, 20.0, 100.0, 1000.0])) for link in LINKS}


def load_of(wishes: list[FlowWish], decided: Admission) -> dict[LinkId, float]:
    load: dict[LinkId, float] = defaultdict(float)
    for each in wishes:
        for link in each.links:
            load[link] += each.spends * decided.grants[each.flow_id].granted_bps
    return load


@given(demands())
def test_no_hop_is_ever_promised_more_than_it_has(asked: tuple[list[FlowWish], dict[LinkId, float]]) -> None:
    wishes, budget = asked
    decided = admit(wishes, budget)
    load = load_of(wishes, decided)
    pads = [each for each in wishes if each.pad and not each.emergency]
    for link, budget_bps in budget.items():
        assert load[link] <= budget_bps * (1 + 1e-9)
        assert decided.left_bps[link] == pytest.approx(budget_bps - load[link], abs=1e-6)
        assert load_of(pads, decided)[link] <= PAD_PART * budget_bps * (1 + 1e-9)


@given(demands())
def test_stretch_keeps_the_bound_of_the_class_and_whoever_gets_less_is_told_why(
    asked: tuple[list[FlowWish], dict[LinkId, float]],
) -> None:
    wishes, budget = asked
    decided = admit(wishes, budget)
    for each in wishes:
        grant = decided.grants[each.flow_id]
        if grant.admitted:
            assert each.least_bps * (1 - 1e-9) <= grant.granted_bps <= each.wanted_bps * (1 + 1e-9)
            assert grant.stretch == pytest.approx(each.wanted_bps / grant.granted_bps)
        if grant.granted_bps < each.wanted_bps * (1 - 1e-9):
            assert grant.link_id in each.links and f"hop {grant.link_id}" in grant.reason


@given(demands(), st.integers(1, 9))
def test_a_higher_class_is_never_worse_off_for_a_lower_one(
    asked: tuple[list[FlowWish], dict[LinkId, float]], level: int
) -> None:
    wishes, budget = asked
    newcomer = msgspec.structs.replace(wishes[-1], flow_id="new", class_level=level)
    without, with_it = admit(wishes, budget), admit([*wishes, newcomer], budget)
    for each in wishes:
        if each.level < newcomer.level:
            assert with_it.grants[each.flow_id] == without.grants[each.flow_id]
        elif each.level == newcomer.level and without.grants[each.flow_id].admitted:
            assert with_it.grants[each.flow_id].admitted, "who came first of a level stays"


@given(demands())
def test_within_a_level_nobody_can_get_more_without_someone_as_badly_off_getting_less(
    asked: tuple[list[FlowWish], dict[LinkId, float]],
) -> None:
    """Max-min: a stretched flow crosses a full hop where others of its level have no more, but by need."""
    wishes, budget = asked
    decided = admit(wishes, budget)
    part = {each.flow_id: decided.grants[each.flow_id].granted_bps / each.wanted_bps for each in wishes}
    for each in wishes:
        if not 0 < part[each.flow_id] < 1 - 1e-9:
            continue
        stops = decided.grants[each.flow_id].link_id
        sharers = [
            other
            for other in wishes
            if other.level == each.level and stops in other.links and part[other.flow_id] > 0
        ]
        for other in sharers:
            least = other.least_bps / other.wanted_bps
            of_pads_alone = "one-time pads" in decided.grants[each.flow_id].reason
            if not of_pads_alone or other.pad:
                assert part[other.flow_id] <= max(part[each.flow_id], least) + 1e-6


@given(demands(), st.data())
def test_more_budget_never_makes_a_level_refuse_more(
    asked: tuple[list[FlowWish], dict[LinkId, float]], data: st.DataObject
) -> None:
    """For the first level; lower ones may lose to what the first can then take."""
    wishes, budget = asked
    first = min(each.level for each in wishes)
    alone = [each for each in wishes if each.level == first and each.links == wishes[0].links]
    more = {link: each * data.draw(st.sampled_from([1.0, 2.0])) for link, each in budget.items()}
    before, after = admit(alone, budget), admit(alone, more)
    assert len(after.refused) <= len(before.refused)


# Classes


def test_every_class_of_the_catalogue_with_its_bound_and_source() -> None:
    classes = service_classes()
    assert len(classes) == len(catalogue_demand().use_cases) == 14
    pads = {name for name, each in classes.items() if each.one_time_pad}
    assert pads == {"gov-otp-voice", "gov-otp-text", "energy-otp-command"}
    for each in classes.values():
        assert each.source and 1 <= each.level <= 4 and 0 < each.least_bps <= each.wanted_bps
    tunnel = classes["gov-ipsec-std"]
    assert tunnel.rekey_s_at(tunnel.least_bps) == pytest.approx(28_800)
    assert classes["energy-otp-command"].least_bps == pytest.approx(23.04)
    with pytest.raises(TypeError):
        classes["x"] = tunnel  # type: ignore[index]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"rekey_s": None}, "expected rekey_s with keys_per_rekey, or otp_bps"),
        ({"rekey_s_max": 30.0}, "down to the part 2"),
        ({"level": 0}, "level 0; expected 1 to 9"),
        ({"bits_per_s": 1.0}, "bits_per_s 1 is not what its other figures give, 8.533"),
        ({"keys_per_rekey": 0}, "asks for 0 bit/s"),
    ],
)
def test_a_use_case_that_contradicts_itself_is_refused(changes: dict[str, object], fault: str) -> None:
    good = UseCase(
        "u", "s", "a", "p", "c", 2, 8.533, "test", rekey_s=60.0, keys_per_rekey=2, rekey_s_max=600.0
    )
    assert class_of(good).stretch_max == 10.0
    with pytest.raises(ConfigurationError, match=fault):
        class_of(msgspec.structs.replace(good, **changes))


def test_a_flow_without_a_class_comes_last() -> None:
    assert plain_class(25.6).level == max(each.level for each in [plain_class(1.0)]) == 9
