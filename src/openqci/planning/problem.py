"""A plan as a linear program: one number per contact (served or not), and a utility for each state.

What is maximised is a sum over states of a concave utility of their expected key, made of straight pieces:

=================  =========================================================================================
fairness           utility
=================  =========================================================================================
``proportional``   w log(1 + y/(0.02 a)) of the key y, where a is what the state would get if all its contacts
                   were served and w its weight: a per cent more for one is worth a per cent less for another
``max-min``        the smallest share y/a of any state first, then the above
``total``          the key itself, whoever gets it
=================  =========================================================================================

In each, key beyond what a state wants is worth nothing, and what it has in stock counts as key already. With
weather as scenarios (``clear`` of several rows) the utility is the mean over them: a second station under
another sky is then worth more than a second one under the same.

Limits are rows: of contacts of one satellite (with its slewing) or one station that overlap, one is served;
the time of links within a day; and the level of each store from one radio contact to the next. Rows of
overlapping intervals leave little to round: the bound of the relaxation is near.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from openqci.core.errors import OutsideModel
from openqci.planning.contacts import Contacts
from openqci.planning.limits import Limits
from openqci.space.pass_finding import Indices
from openqci.space.ranges import Floats
from openqci.space.time_scales import DAY_S

FAIRNESS = ("proportional", "max-min", "total")

NODES = np.array([0.0, 0.01, 0.02, 0.04, 0.07, 0.11, 0.17, 0.25, 0.36, 0.5, 0.7, 1.0])
"""Where pieces of the utility begin, as shares of what a state could get."""

FAIR_SHARE = 0.02
"""Below this share of what it could get, more key for a state is worth in proportion."""

AFTER_THE_SMALLEST = 1e-3
"""What the sum of utilities weighs beside the smallest share."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Store:
    """One satellite's store over the intervals between its radio contacts in which it is filled.

    ``interval`` says in which of them each of its contacts is; ``drained_bits`` is what radio takes out
    between one and the next, shape (intervals,), the last without meaning.
    """

    contacts: Indices
    interval: Indices
    drained_bits: Floats

    def levels(self, filled_bits: Floats) -> Floats:
        """Return the highest level in each interval, of what each contact leaves in the store."""
        filled = np.bincount(self.interval, filled_bits, len(self.drained_bits))
        levels, level = np.empty(len(filled)), 0.0
        for number, more in enumerate(filled):
            level += more
            levels[number] = level
            level = max(0.0, level - self.drained_bits[number])
        return levels


@dataclass(frozen=True)
class PlanProblem:
    """Contacts, limits, and what a plan is good for.

    Attributes
    ----------
    contacts : Contacts
    limits : Limits
    fairness : str
        One of FAIRNESS.
    weights : dict of str to float
        By state; one where none is given.
    wanted_bits : dict of str to float
        Beyond which key of a state is worth nothing; without end where none is given.
    stock_bits : dict of str to float
        What a state has already.
    clear : ndarray, shape (K, N), optional
        Chance of a clear sky, or weather drawn K times; the contacts' chances when not given.
    forced : ndarray of bool, shape (N,), optional
        What is served already, and takes its share of the limits.
    """

    contacts: Contacts
    limits: Limits
    fairness: str = "proportional"
    weights: dict[str, float] = field(default_factory=dict)
    wanted_bits: dict[str, float] = field(default_factory=dict)
    stock_bits: dict[str, float] = field(default_factory=dict)
    clear: Floats | None = None
    forced: Mask | None = None

    def __post_init__(self) -> None:
        if self.fairness not in FAIRNESS:
            raise OutsideModel("fairness", self.fairness, f"one of {', '.join(FAIRNESS)}")
        if self.clear is not None and self.clear.shape[1:] != (len(self.contacts),):
            raise OutsideModel("clear", self.clear.shape, f"shape (K, {len(self.contacts)})")

    @cached_property
    def begun(self) -> Mask:
        """What is served already."""
        return np.zeros(len(self.contacts), dtype=bool) if self.forced is None else self.forced

    # What it is good for

    @cached_property
    def key_bits(self) -> Floats:
        """What each contact gives in each scenario, shape (K, N); nothing if it does not fit the limits."""
        clear = self.contacts.clear_chance[None] if self.clear is None else self.clear
        return np.asarray(clear * self.contacts.key_bits * self.fits)

    @cached_property
    def alone_bits(self) -> Floats:
        """What each state would get, on average, if all its contacts were served."""
        return self.gathered(self.key_bits.mean(axis=0))

    @cached_property
    def widths_bits(self) -> Floats:
        """What key of each state is worth anything."""
        wanted = np.array([self.wanted_bits.get(each, np.inf) for each in self.contacts.state_names])
        return np.clip(wanted - self.stocks_bits, 0.0, self.key_bits_max)

    @cached_property
    def key_bits_max(self) -> Floats:
        """The most that a state may get in any scenario."""
        return np.asarray(np.max([self.gathered(row) for row in self.key_bits], axis=0))

    @cached_property
    def stocks_bits(self) -> Floats:
        return np.array([self.stock_bits.get(each, 0.0) for each in self.contacts.state_names])

    @cached_property
    def state_weights(self) -> Floats:
        return np.array([self.weights.get(each, 1.0) for each in self.contacts.state_names])

    def gathered(self, values: Floats) -> Floats:
        """Return values of contacts added up over states."""
        states = len(self.contacts.state_names)
        return np.bincount(self.contacts.state, values, minlength=states).astype(np.float64)

    @cached_property
    def nodes_bits(self) -> Floats:
        """Where pieces of the utility begin and end, shape (states, P + 1)."""
        return np.asarray(self.widths_bits[:, None] * NODES)

    @cached_property
    def heights(self) -> Floats:
        """The utility at the nodes, shape (states, P + 1)."""
        if self.fairness == "total":
            total = max(float(self.alone_bits.sum()), 1.0)
            return np.asarray(self.nodes_bits / total)
        scale = FAIR_SHARE * np.maximum(self.alone_bits, 1.0)[:, None]
        stock = self.stocks_bits[:, None]
        grown = np.log((scale + stock + self.nodes_bits) / (scale + stock))
        return np.asarray(self.state_weights[:, None] * grown / np.log1p(1 / FAIR_SHARE))

    @cached_property
    def smallest_weight(self) -> tuple[float, float]:
        """What the smallest share and the sum of utilities weigh."""
        if self.fairness != "max-min":
            return 0.0, 1.0
        return 1.0, AFTER_THE_SMALLEST / max(float(self.state_weights.sum()), 1e-12)

    @cached_property
    def reachable(self) -> Mask:
        """Which states can get anything that they want."""
        return np.asarray((self.alone_bits > 0) & (self.widths_bits > 0))

    def value(self, served: Mask) -> float:
        """Return what a plan is worth: the mean over the scenarios."""
        first, rest = self.smallest_weight
        worth = []
        for row in self.key_bits:
            got = self.gathered(row * served)
            utility = sum(
                float(np.interp(bits, nodes, heights))
                for bits, nodes, heights in zip(got, self.nodes_bits, self.heights, strict=True)
            )
            shares = (got / np.maximum(self.alone_bits, 1e-300))[self.reachable]
            worth.append(rest * utility + first * float(shares.min(initial=1.0)))
        return float(np.mean(worth))

    # Limits

    @cached_property
    def fits(self) -> Mask:
        """Which contacts fit the limits alone; others are never served."""
        short = self.contacts.durations_s <= self.limits.link_s_per_day
        return np.asarray(short & (self.contacts.stored_bits <= self.limits.store_bits))

    @cached_property
    def exclusive(self) -> sparse.csr_array:
        """Rows of contacts of which one at most is served: largest sets that overlap at one moment."""
        of = self.contacts
        rows = cliques(of.satellite, of.start_utc_s, of.stop_utc_s + self.limits.slew_s)
        rows += cliques(of.station, of.start_utc_s, of.stop_utc_s + self.limits.turn_s)
        return incidence(rows, len(of))

    @cached_property
    def duty(self) -> sparse.csr_array:
        """Rows of seconds of links, one per satellite and day on which the limit could be reached."""
        of = self.contacts
        day = np.floor(of.start_utc_s / DAY_S).astype(np.int64)
        _, group = np.unique(np.column_stack([of.satellite, day]), axis=0, return_inverse=True)
        group = group.reshape(-1)
        total = np.bincount(group, of.durations_s)
        tight = np.flatnonzero(total > self.limits.link_s_per_day)
        rows = np.flatnonzero(np.isin(group, tight))
        place = np.searchsorted(tight, group[rows])
        return sparse.csr_array((of.durations_s[rows], (place, rows)), shape=(len(tight), len(of)))

    @cached_property
    def stores(self) -> list[Store]:
        """The stores that could run full, one per satellite."""
        found = []
        for satellite in np.unique(self.contacts.satellite):
            store = self.store_of(int(satellite))
            if store.levels(self.contacts.stored_bits[store.contacts]).max() > self.limits.store_bits:
                found.append(store)
        return found

    def store_of(self, satellite: int) -> Store:
        """Return the store of a satellite; a radio contact during a link empties it only afterwards."""
        of, radio = self.contacts, self.contacts.radio
        mine = np.flatnonzero(of.satellite == satellite)
        mine = mine[np.argsort(of.start_utc_s[mine], kind="stable")]
        calls = np.flatnonzero(radio.satellite == satellite)
        before = np.searchsorted(radio.stop_utc_s[calls], of.start_utc_s[mine], side="right")
        used, interval = np.unique(before, return_inverse=True)
        bits = (radio.stop_utc_s - radio.start_utc_s)[calls] * self.limits.radio_bps
        sums = np.concatenate([[0.0], np.cumsum(bits)])
        edges = np.append(used, len(calls))
        return Store(mine, interval.reshape(-1), sums[edges[1:]] - sums[edges[:-1]])

    def violations(self, served: Mask) -> list[str]:
        """Return which limits a plan breaks; empty for a good one."""
        found = []
        if (self.exclusive @ served > 1 + 1e-9).any():
            found.append("two contacts at once of a satellite or a station")
        day = np.floor(self.contacts.start_utc_s / DAY_S)
        for satellite in np.unique(self.contacts.satellite):
            rows = served & (self.contacts.satellite == satellite)
            for each in np.unique(day[rows]):
                if self.contacts.durations_s[rows & (day == each)].sum() > self.limits.link_s_per_day + 1e-6:
                    found.append(f"more link time in a day of {self.contacts.satellites[satellite]}")
            store = self.store_of(int(satellite))
            filled = (self.contacts.stored_bits * served)[store.contacts]
            if store.levels(filled).max(initial=0.0) > self.limits.store_bits * (1 + 1e-9):
                found.append(f"more than the store of {self.contacts.satellites[satellite]} holds")
        return found


def cliques(owner: Indices, start: Floats, stop: Floats) -> list[Indices]:
    """Return the largest sets of intervals of one owner that have a moment in common, of two or more.

    An interval may begin when another ends.
    """
    found = []
    for each in np.unique(owner):
        mine = np.flatnonzero(owner == each)
        mine = mine[np.argsort(start[mine], kind="stable")]
        active: list[int] = []
        grown = False
        for place in mine.tolist():
            still = [other for other in active if stop[other] > start[place]]
            if len(still) < len(active) and grown:
                # One has ended since the last began: that set was as large as it gets.
                if len(active) > 1:
                    found.append(np.array(active))
                grown = False
            active = [*still, place]
            grown = True
        if len(active) > 1:
            found.append(np.array(active))
    return found


def incidence(rows: list[Indices], columns: int) -> sparse.csr_array:
    """Return a matrix with a one for each member of each set."""
    sizes = [len(row) for row in rows]
    members = np.concatenate(rows) if rows else np.zeros(0, np.int64)
    place = np.repeat(np.arange(len(rows)), sizes)
    return sparse.csr_array((np.ones(len(members)), (place, members)), shape=(len(rows), columns))
