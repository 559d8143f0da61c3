"""A year in fast-forward: what is told adds up."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.planning.rolling import Done
from openqci.planning.year import SEASONS, longest_run, year_of
from openqci.space.time_scales import DAY_S, utc_seconds
from tests.planning.make import contacts

START = utc_seconds("2027-01-01")


def done_over(days: int, seed: int = 1) -> Done:
    """Return contacts spread over so many days, of which some were served and some of those clear."""
    from dataclasses import replace

    of = contacts(seed, 400)
    rng = np.random.default_rng(seed)
    begin = START + np.sort(rng.uniform(0, days * DAY_S - 600, len(of)))
    of = replace(of, start_utc_s=begin, stop_utc_s=begin + 300.0)
    served = rng.random(len(of)) < 0.5
    return Done(of, served, of.key_bits * (served & (rng.random(len(of)) < 0.6)))


@pytest.fixture(scope="module")
def year():
    done = done_over(365)
    return done, year_of(done, START, START + 365 * DAY_S, {"IE": 1e4, "CY": 1e9})


def test_sites_days_months_and_seasons_add_up(year):
    done, found = year
    total = done.received_bits.sum()
    assert found.received_bits == pytest.approx(total)
    assert sum(each.bits_by_month.sum() for each in found.sites) == pytest.approx(total)
    assert sum(sum(each.bits_by_season.values()) for each in found.sites) == pytest.approx(total)
    assert sum(each.received_per_day.sum() for each in found.states) == pytest.approx(total)
    assert sum(each.served for each in found.sites) == done.served.sum()
    assert sum(each.clear for each in found.sites) == (done.received_bits > 0).sum()
    assert tuple(found.sites[0].bits_by_season) == SEASONS
    # Winter is December to February.
    months = found.sites[0].bits_by_month
    assert found.sites[0].bits_by_season["winter"] == pytest.approx(months[[11, 0, 1]].sum())


def test_key_in_is_key_out_or_left(year):
    _, found = year
    ireland, cyprus, greece = (next(s for s in found.states if s.state == n) for n in ("IE", "CY", "GR"))
    for each in (ireland, cyprus):
        assert each.course.used.sum() + each.course.left[-1] == pytest.approx(each.received_per_day.sum())
    # A small demand is met most days once there is a stock; a huge one takes all there is.
    assert ireland.demand_met > 0.9 > cyprus.demand_met > 0 and cyprus.course.left[-1] == 0
    assert cyprus.days_unmet == 365 > ireland.days_unmet
    assert (greece.course, greece.demand_met, greece.days_unmet) == (None, None, None)


def test_the_steady_demand_is_the_mean_and_told_of_whole_years_alone(year):
    _, found = year
    for each in found.states:
        assert each.steady.rate_per_day == pytest.approx(each.received_per_day.mean())
        assert each.steady.stock > 0
    short = year_of(done_over(30), START, START + 30 * DAY_S, {})
    assert all(each.steady is None for each in short.states)


@given(st.lists(st.booleans(), max_size=40))
def test_longest_run(such):
    longest = max((len(run) for run in "".join("x" if each else " " for each in such).split()), default=0)
    assert longest_run(np.array(such, dtype=bool)) == longest
