"""A year in fast-forward: weather as it comes, contacts planned again and again, key in and key out.

Key of a pass that was served under a clear sky goes into the stock of the state that the station stands in,
and the state's flows draw on it by the day. What is told of a site is what it received; what is told of a
state is its stock: how much of its demand was met, its longest time without key, and which steady demand its
year could carry, with the stock that this takes over the season without darkness.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from openqci.planning.contacts import Contacts
from openqci.planning.rolling import Done
from openqci.planning.stocks import SeasonalStock, StockCourse, seasonal_stock, stock_course
from openqci.space.pass_finding import Indices
from openqci.space.ranges import Floats
from openqci.space.time_scales import DAY_S
from openqci.space.weather import MONTHS, months_of

SEASONS = ("winter", "spring", "summer", "autumn")
"""Of the north: December to February, and so on."""

WHOLE_YEAR_DAYS = 360
"""From so many days on, a time tells what the seasons of a year are like."""


@dataclass(frozen=True)
class SiteYear:
    """What one site received.

    Attributes
    ----------
    site, state : str
    possible, served, clear : int
        Contacts: those that would give key under a clear sky, those that were planned, those that were clear.
    bits_per_day : ndarray, shape (D,)
    bits_by_month : ndarray, shape (12,)
    days_without_key : int
    longest_gap_days : int
        Days in a row without key.
    """

    site: str
    state: str
    possible: int
    served: int
    clear: int
    bits_per_day: Floats
    bits_by_month: Floats

    @property
    def bits_by_season(self) -> dict[str, float]:
        """Key by season of the north."""
        season = (np.arange(MONTHS) + 1) % MONTHS // 3
        sums = np.bincount(season, self.bits_by_month, len(SEASONS))
        return dict(zip(SEASONS, sums.tolist(), strict=True))

    @property
    def days_without_key(self) -> int:
        return int((self.bits_per_day <= 0).sum())

    @property
    def longest_gap_days(self) -> int:
        return longest_run(self.bits_per_day <= 0)


@dataclass(frozen=True)
class StateYear:
    """The stock of one state.

    Attributes
    ----------
    state : str
    received_per_day : ndarray, shape (D,)
    demand_per_day : float or None
        None where nothing is asked for.
    """

    state: str
    received_per_day: Floats
    demand_per_day: float | None

    @cached_property
    def course(self) -> StockCourse | None:
        """The stock day by day, empty at the beginning."""
        if self.demand_per_day is None:
            return None
        return stock_course(self.received_per_day, self.demand_per_day)

    @property
    def demand_met(self) -> float | None:
        """Which share of the demand the stock met."""
        if self.course is None or not self.demand_per_day:
            return None
        return float(self.course.used.sum() / (self.demand_per_day * len(self.received_per_day)))

    @property
    def days_unmet(self) -> int | None:
        """Days on which the stock did not meet the whole demand."""
        if self.course is None or self.demand_per_day is None:
            return None
        return int((self.course.used < self.demand_per_day * (1 - 1e-9)).sum())

    @property
    def steady(self) -> SeasonalStock | None:
        """Which steady demand the year could carry, and with which stock; None for less than a year."""
        if len(self.received_per_day) < WHOLE_YEAR_DAYS:
            return None
        return seasonal_stock(self.received_per_day)


@dataclass(frozen=True)
class Year:
    """What a time in fast-forward gave, by site and by state."""

    days: int
    sites: tuple[SiteYear, ...]
    states: tuple[StateYear, ...]

    @property
    def received_bits(self) -> float:
        return float(sum(each.bits_per_day.sum() for each in self.sites))


def year_of(done: Done, start_utc_s: float, stop_utc_s: float, demand_per_day: dict[str, float]) -> Year:
    """Return what came of contacts that were planned and done.

    Parameters
    ----------
    done : Done
        See :func:`openqci.planning.rolling.replanned`.
    start_utc_s, stop_utc_s : float
    demand_per_day : dict of str to float
        By state; nothing is asked for where none is given.
    """
    days = int(np.ceil((stop_utc_s - start_utc_s) / DAY_S - 1e-9))
    contacts = done.contacts
    middle = (contacts.start_utc_s + contacts.stop_utc_s) / 2
    day = np.clip(((middle - start_utc_s) // DAY_S).astype(np.int64), 0, days - 1)
    month = months_of(middle)
    sites = tuple(
        site_year(done, place, contacts.station == place, day, month, days)
        for place in range(len(contacts.stations))
    )
    return Year(days, sites, tuple(states_of(contacts, sites, demand_per_day)))


def site_year(
    done: Done, place: int, here: NDArray[np.bool_], day: Indices, month: Indices, days: int
) -> SiteYear:
    """Return what one site received."""
    received = done.received_bits[here]
    return SiteYear(
        site=done.contacts.stations[place],
        state=done.contacts.states[place],
        possible=int(here.sum()),
        served=int(done.served[here].sum()),
        clear=int((received > 0).sum()),
        bits_per_day=np.bincount(day[here], received, days).astype(np.float64),
        bits_by_month=np.bincount(month[here], received, MONTHS).astype(np.float64),
    )


def states_of(
    contacts: Contacts, sites: tuple[SiteYear, ...], demand_per_day: dict[str, float]
) -> list[StateYear]:
    """Return the stocks of states, each with the key of all its sites."""
    return [
        StateYear(
            state,
            np.sum([each.bits_per_day for each in sites if each.state == state], axis=0),
            demand_per_day.get(state),
        )
        for state in contacts.state_names
    ]


def longest_run(such: NDArray[np.bool_]) -> int:
    """Return the length of the longest run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], such.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))
