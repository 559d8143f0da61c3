"""Contact plans: the best of all where they can be enumerated, within their limits, below their bound."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqci.core.errors import ConfigurationError, OutsideModel
from openqci.planning import FAIRNESS, Contacts, Limits, PlanProblem, best_plan
from openqci.planning.problem import cliques
from openqci.planning.solving import Program, rounded
from tests.planning.make import LIMITS, contacts, radio


def broken(problem: PlanProblem, served: np.ndarray) -> list[str]:
    """Return broken limits, looked at contact by contact, without any of the planner's matrices."""
    of, limits, found = problem.contacts, problem.limits, []
    places = np.flatnonzero(served)
    for a, b in itertools.combinations(places.tolist(), 2):
        first, second = sorted((a, b), key=lambda place: of.start_utc_s[place])
        for owner, rest_s in ((of.satellite, limits.slew_s), (of.station, limits.turn_s)):
            if owner[a] == owner[b] and of.start_utc_s[second] < of.stop_utc_s[first] + rest_s:
                found.append("two at once")
    for satellite in set(of.satellite.tolist()):
        mine = [place for place in places if of.satellite[place] == satellite]
        if sum(of.durations_s[place] for place in mine) > limits.link_s_per_day + 1e-6:
            found.append("too long a day")
        level, last_s = 0.0, -1.0
        for place in sorted(mine, key=lambda place: of.start_utc_s[place]):
            calls = (
                (of.radio.satellite == satellite)
                & (of.radio.stop_utc_s > last_s)
                & (of.radio.stop_utc_s <= of.start_utc_s[place])
            )
            seconds = (of.radio.stop_utc_s - of.radio.start_utc_s)[calls].sum()
            level = max(0.0, level - seconds * limits.radio_bps) + of.stored_bits[place]
            last_s = of.start_utc_s[place]
            if level > limits.store_bits * (1 + 1e-9):
                found.append("store full")
    return found


def exhaustive(problem: PlanProblem) -> float:
    """Return the value of the best of all plans."""
    number = len(problem.contacts)
    return max(
        problem.value(np.array(served))
        for served in itertools.product([False, True], repeat=number)
        if not broken(problem, np.array(served))
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(FAIRNESS), st.integers(1, 9), st.integers(0, 6))
def test_small_plans_are_the_best_of_all(seed, fairness, number, calls):
    of = contacts(seed, number, radio=radio(seed, calls))
    problem = PlanProblem(of, LIMITS, fairness, weights={"IE": 0.3}, wanted_bits={"CY": 4e5})
    plan = best_plan(problem)
    assert plan.value == pytest.approx(exhaustive(problem), rel=1e-6, abs=1e-12)
    assert broken(problem, plan.chosen) == [] and plan.value <= plan.bound * (1 + 1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(FAIRNESS), st.integers(10, 60), st.integers(0, 12))
def test_rounded_plans_keep_all_limits_and_stay_below_their_bound(seed, fairness, number, calls):
    of = contacts(seed, number, satellites=3, stations=4, radio=radio(seed, calls, 3))
    problem = PlanProblem(of, LIMITS, fairness)
    plan = best_plan(problem, exact_contacts_max=0, gap_max=1.0)
    assert broken(problem, plan.chosen) == problem.violations(plan.chosen) == []
    assert 0 <= plan.value <= plan.bound * (1 + 1e-9) and 0 <= plan.gap <= 1
    # The proved optimum lies between.
    exact = best_plan(problem)
    assert plan.value - 1e-9 <= exact.value <= plan.bound * (1 + 1e-6) + 1e-9


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 9))
def test_more_limits_never_give_more(seed, number):
    of = contacts(seed, number, radio=radio(seed, 3))
    free = best_plan(PlanProblem(of, Limits(), "total")).value
    assert best_plan(PlanProblem(of, LIMITS, "total")).value <= free * (1 + 1e-9)


def test_violations_are_found():
    of = contacts(3, 12)
    problem = PlanProblem(of, LIMITS)
    said = " ".join(problem.violations(np.ones(12, dtype=bool)))
    assert (
        "two contacts at once" in said and "more than the store of" in said and "link time in a day" in said
    )


def test_fairness_gives_the_poor_what_the_rich_would_take():
    """One satellite over two states at a time; one of them gives ten times the key."""
    passes = 10
    start = np.repeat(np.arange(passes) * 1000.0, 2)
    of = Contacts.of(
        satellite=np.zeros(2 * passes, int),
        station=np.tile([0, 1], passes),
        start_utc_s=start,
        stop_utc_s=start + 300.0,
        key_bits=np.tile([1e6, 1e5], passes),
        clear_chance=0.5,
        states=["GR", "FI"],
    )
    served = {each: best_plan(PlanProblem(of, Limits(), each)).expected_bits for each in FAIRNESS}
    assert served["total"]["FI"] == 0.0
    for each in ("proportional", "max-min"):
        assert served[each]["FI"] == pytest.approx(5 * 0.5e5) and served[each]["GR"] == pytest.approx(
            5 * 0.5e6
        )
    # A state with a stock of its own waits.
    stocked = PlanProblem(of, Limits(), "proportional", stock_bits={"FI": 1e9})
    assert best_plan(stocked).expected_bits["FI"] == 0.0
    # One that wants no more gets no more.
    modest = PlanProblem(of, Limits(), "proportional", wanted_bits={"GR": 1e6})
    assert best_plan(modest).expected_bits["GR"] == pytest.approx(1e6)
    # One that counts for less gets less.
    light = PlanProblem(of, Limits(), "proportional", weights={"FI": 0.1})
    assert best_plan(light).expected_bits["FI"] < 5 * 0.5e5


def test_a_second_station_under_another_sky_is_worth_more_than_under_the_same():
    """Weather as scenarios sees site diversity, which expected key alone cannot."""
    of = Contacts.of(
        satellite=[0, 1, 2],
        station=[0, 1, 2],
        start_utc_s=[0.0, 0.0, 0.0],
        stop_utc_s=[300.0, 300.0, 300.0],
        key_bits=[1e6, 1e6, 1e6],
        clear_chance=0.5,
        states=["GR", "GR", "GR"],
    )
    same = np.array([1.0, 0.0, 1.0, 0.0])
    other = np.array([1.0, 0.0, 0.0, 1.0])
    clear = np.column_stack([same, same, other])
    problem = PlanProblem(of, Limits(), clear=clear)
    together, apart = np.array([True, True, False]), np.array([True, False, True])
    assert problem.value(apart) > problem.value(together)
    assert problem.key_bits[:, together].sum() == problem.key_bits[:, apart].sum()


def test_what_does_not_fit_is_never_served():
    of = replace(contacts(5, 6), stored_bits=np.array([1.0, 1e9, 1.0, 1e9, 1.0, 1.0]))
    plan = best_plan(PlanProblem(of, LIMITS, "total"))
    assert not plan.chosen[[1, 3]].any() and plan.chosen.any()


def test_what_is_served_already_stays_and_takes_its_share():
    of = contacts(11, 8)
    begun = np.zeros(8, dtype=bool)
    begun[4] = True
    plan = best_plan(PlanProblem(of, LIMITS, "total", forced=begun))
    assert plan.chosen[4] and broken(plan.problem, plan.chosen) == []


@given(st.integers(0, 10_000), st.integers(1, 14))
def test_cliques_are_the_pairs_that_overlap(seed, number):
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 100, number)
    stop, owner = start + rng.uniform(1, 40, number), rng.integers(0, 2, number)
    found = {
        pair
        for each in cliques(owner, start, stop)
        for pair in itertools.combinations(sorted(each.tolist()), 2)
    }
    wanted = {
        (a, b)
        for a, b in itertools.combinations(range(number), 2)
        if owner[a] == owner[b] and start[a] < stop[b] and start[b] < stop[a]
    }
    assert found == wanted


def test_the_relaxation_is_a_bound_and_rounding_is_near_it():
    of = contacts(1, 300, satellites=4, stations=4)
    problem = PlanProblem(of, Limits(), "total")
    relaxed, _, bound = Program.of(problem).relaxation()
    value = problem.value(rounded(problem, relaxed))
    assert 0.97 * bound <= value <= bound * (1 + 1e-9)


def test_what_is_refused():
    none = contacts(1, 3).part(np.zeros(3, dtype=bool))
    with pytest.raises(ConfigurationError, match="no possible contact"):
        best_plan(PlanProblem(none, LIMITS))
    with pytest.raises(OutsideModel, match="fairness"):
        PlanProblem(contacts(1, 3), LIMITS, "luck")
    with pytest.raises(OutsideModel, match="clear"):
        PlanProblem(contacts(1, 3), LIMITS, clear=np.ones((2, 4)))
    with pytest.raises(OutsideModel, match="slew_s"):
        Limits(slew_s=-1.0)
    with pytest.raises(OutsideModel, match="states"):
        replace(contacts(1, 3), states=("IE",))
