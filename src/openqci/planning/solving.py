"""The best plan: exact for few contacts, within a stated gap of a bound for many.

The bound is that of the linear program in which a contact may be served in part. Small problems go to the
branch and bound of HiGHS and come back as the optimum. Large ones are rounded: contacts in the order of how
much of them the relaxation serves, as long as the limits allow, then everything else that still fits, in the
order of what it adds. Where that leaves more than the wanted gap, branch and bound goes on for a limited time
with what the relaxation has served at all, and what it came close to serving.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

from openqci.core.errors import ConfigurationError
from openqci.planning.problem import Mask, PlanProblem, Store
from openqci.space.pass_finding import Indices
from openqci.space.ranges import Floats

EXACT_CONTACTS_MAX = 400
"""Up to here branch and bound proves the optimum."""

GAP_MAX = 0.02
SEARCH_S = 20.0
"""Of branch and bound."""

SERVED_IN_PART = 1e-6


@dataclass(frozen=True)
class Plan:
    """A plan, and how far it can be from the best.

    Attributes
    ----------
    problem : PlanProblem
    chosen : ndarray of bool, shape (N,)
    value, bound : float
        No plan is worth more than the bound.
    """

    problem: PlanProblem
    chosen: Mask
    value: float
    bound: float

    @property
    def served(self) -> Indices:
        """The contacts that are served, in the order of time."""
        places = np.flatnonzero(self.chosen)
        return places[np.argsort(self.problem.contacts.start_utc_s[places], kind="stable")]

    @property
    def gap(self) -> float:
        """How much better a plan could be, as a share of the bound; zero for the optimum."""
        return max(0.0, (self.bound - self.value) / self.bound) if self.bound > 0 else 0.0

    @property
    def expected_bits(self) -> dict[str, float]:
        """The key of each state, on average."""
        names = self.problem.contacts.state_names
        sums = self.problem.gathered(self.problem.key_bits.mean(axis=0) * self.chosen)
        return dict(zip(names, sums.tolist(), strict=True))


def best_plan(
    problem: PlanProblem,
    *,
    exact_contacts_max: int = EXACT_CONTACTS_MAX,
    gap_max: float = GAP_MAX,
    search_s: float = SEARCH_S,
) -> Plan:
    """Return the best plan, or one within a gap of the bound.

    Parameters
    ----------
    problem : PlanProblem
    exact_contacts_max : int
        Up to how many contacts the optimum is proved.
    gap_max : float
        With which a plan of more contacts is good enough.
    search_s : float
        How long branch and bound may go on beyond it.

    Raises
    ------
    ConfigurationError
        If there is no contact to plan.
    """
    if not len(problem.contacts):
        raise ConfigurationError("no possible contact; expected a pass that gives key over some station")
    program = Program.of(problem)
    relaxed, cost, bound = program.relaxation()
    plan = judged(problem, rounded(problem, relaxed), bound)
    if len(problem.contacts) <= exact_contacts_max:
        return searched(program, plan, np.ones(len(relaxed), dtype=bool), 0.0, search_s)
    if plan.gap <= gap_max:
        return plan
    return searched(program, plan, promising(relaxed, cost) | plan.chosen, gap_max / 4, search_s)


def promising(relaxed: Floats, cost: Floats) -> Mask:
    """Return what the relaxation serves, and as many contacts again of which serving more costs least."""
    used = relaxed > SERVED_IN_PART
    more = min(int(used.sum()), int((~used).sum()))
    found = used.copy()
    others = np.flatnonzero(~used)
    found[others[np.argsort(cost[others], kind="stable")[:more]]] = True
    return found


def judged(problem: PlanProblem, chosen: Mask, bound: float) -> Plan:
    """Return a plan after its limits have been looked at once more."""
    broken = problem.violations(chosen)
    if broken:
        raise AssertionError(f"a plan breaks its limits: {'; '.join(broken)}")
    value = problem.value(chosen)
    return Plan(problem, chosen, value, max(bound, value))


# The linear program


@dataclass(frozen=True)
class Program:
    """Columns: contacts, pieces of utility per scenario and state, the smallest share, levels of stores.

    ``worth`` is maximised under ``rows @ columns <= limits``, columns between ``lowest`` and ``highest``.
    Key is in units of the largest that any contact gives, so that numbers are near one.
    """

    problem: PlanProblem
    rows: sparse.csr_array
    limits: Floats
    worth: Floats
    lowest: Floats
    highest: Floats

    @classmethod
    def of(cls, problem: PlanProblem) -> "Program":
        return Builder(problem).program()

    def relaxation(self) -> tuple[Floats, Floats, float]:
        """Return how much of each contact is served at best, what more of it would cost, and the bound."""
        found = linprog(  # type: ignore[call-overload]  # the stubs know no sparse matrix
            -self.worth,
            A_ub=self.rows,
            b_ub=self.limits,
            bounds=list(zip(self.lowest.tolist(), self.highest.tolist(), strict=True)),
            method="highs",
        )
        if found.status != 0:
            raise AssertionError(f"the relaxation of a plan was not solved: {found.message}")
        contacts = len(self.problem.contacts)
        prices = np.asarray(found.ineqlin.marginals)
        cost = np.asarray(-self.worth - self.rows.T @ prices)[:contacts]
        return np.asarray(found.x[:contacts]), cost, -float(found.fun)

    def search(self, free: Mask, gap: float, search_s: float) -> tuple[Mask | None, float]:
        """Return the best plan that serves none but some contacts, and a bound on all such plans."""
        contacts = len(self.problem.contacts)
        highest = self.highest.copy()
        highest[:contacts] *= free
        whole = np.zeros(len(highest), dtype=np.int64)
        whole[:contacts] = 1
        found = milp(
            -self.worth,
            integrality=whole,
            bounds=Bounds(self.lowest, highest),
            constraints=LinearConstraint(self.rows, -np.inf, self.limits),
            options={"mip_rel_gap": gap, "time_limit": search_s},
        )
        bound = np.inf if found.mip_dual_bound is None else -float(found.mip_dual_bound)
        return (None if found.x is None else found.x[:contacts] > 0.5), bound


def searched(program: Program, plan: Plan, free: Mask, gap: float, search_s: float) -> Plan:
    """Return the better of a plan and what branch and bound finds; its bound counts if all were free."""
    chosen, bound = program.search(free, gap, search_s)
    if free.all():
        plan = replace(plan, bound=max(plan.value, min(plan.bound, bound)))
    if chosen is None or program.problem.violations(chosen):
        return plan
    better = judged(program.problem, chosen, plan.bound)
    return better if better.value > plan.value else plan


@dataclass(frozen=True)
class Builder:
    """Puts the rows and columns of a program together."""

    problem: PlanProblem

    @cached_property
    def unit_bits(self) -> float:
        return max(float(self.problem.key_bits.max()), 1.0)

    def program(self) -> Program:
        problem, limits = self.problem, self.problem.limits
        contacts, scenarios = len(problem.contacts), len(problem.key_bits)
        exclusive, duty = problem.exclusive, problem.duty
        utility_rows, widths, slopes = self.utility()
        smallest_rows, smallest = self.smallest()
        levels, level_rows, level_limits, level_columns = self.levels()
        after = sparse.csr_array((exclusive.shape[0] + duty.shape[0], len(widths) + smallest + levels))
        limited = sparse.hstack([sparse.vstack([exclusive, duty]), after])
        rows = sparse.vstack(
            [
                limited,
                sparse.hstack([utility_rows, empty(utility_rows, smallest + levels)]),
                self.between(smallest_rows, contacts, len(widths), smallest, levels),
                sparse.hstack(
                    [level_rows, empty(level_rows, len(widths) + smallest), level_columns],
                ),
            ],
            format="csr",
        )
        first, rest = problem.smallest_weight
        return Program(
            problem,
            sparse.csr_array(rows),
            np.concatenate(
                [
                    np.ones(exclusive.shape[0]),
                    np.full(duty.shape[0], limits.link_s_per_day),
                    np.zeros(utility_rows.shape[0] + smallest_rows.shape[0]),
                    level_limits,
                ]
            ),
            np.concatenate(
                [
                    np.zeros(contacts),
                    slopes * rest / scenarios,
                    np.full(smallest, first / scenarios),
                    np.zeros(levels),
                ]
            ),
            np.concatenate([problem.begun, np.zeros(len(widths) + smallest + levels)]),
            np.concatenate([problem.fits, widths, np.ones(smallest), np.full(levels, np.inf)]),
        )

    def between(
        self, rows: sparse.csr_array, contacts: int, pieces: int, smallest: int, levels: int
    ) -> sparse.csr_array:
        """Return rows of contacts and smallest shares with columns of nothing between and after."""
        count = rows.shape[0]
        parts = [
            rows[:, :contacts],
            sparse.csr_array((count, pieces)),
            rows[:, contacts:],
            sparse.csr_array((count, levels)),
        ]
        return sparse.csr_array(sparse.hstack(parts))

    def gains(self) -> sparse.csr_array:
        """Return what contacts give to each scenario and state, in units, shape (K states, N)."""
        problem = self.problem
        states, contacts = len(problem.contacts.state_names), len(problem.contacts)
        scenario, contact = np.nonzero(problem.key_bits)
        place = scenario * states + problem.contacts.state[contact]
        values = problem.key_bits[scenario, contact] / self.unit_bits
        shape = (len(problem.key_bits) * states, contacts)
        return sparse.csr_array((values, (place, contact)), shape=shape)

    def utility(self) -> tuple[sparse.csr_array, Floats, Floats]:
        """Return rows ``pieces - gains <= 0``, the widths of the pieces and their slopes."""
        problem, scenarios = self.problem, len(self.problem.key_bits)
        widths = np.diff(problem.nodes_bits / self.unit_bits, axis=1)
        slopes = np.diff(problem.heights, axis=1) / np.maximum(widths, 1e-300)
        slopes[widths <= 0] = 0.0
        states, pieces = widths.shape
        spread = sparse.kron(sparse.eye_array(scenarios * states), np.ones((1, pieces)))
        rows = sparse.csr_array(sparse.hstack([-self.gains(), spread]))
        return rows, np.tile(widths.ravel(), scenarios), np.tile(slopes.ravel(), scenarios)

    def smallest(self) -> tuple[sparse.csr_array, int]:
        """Return rows ``share - gain/alone <= 0``, and how many smallest shares there are, one a scenario."""
        problem, scenarios = self.problem, len(self.problem.key_bits)
        contacts, states = len(problem.contacts), len(problem.contacts.state_names)
        if problem.fairness != "max-min":
            return sparse.csr_array((0, contacts)), 0
        chosen = np.flatnonzero(np.tile(problem.reachable, scenarios))
        alone = np.tile(problem.alone_bits / self.unit_bits, scenarios)[chosen]
        gains = sparse.diags_array(1 / alone) @ self.gains()[chosen]
        share = sparse.csr_array(
            (np.ones(len(chosen)), (np.arange(len(chosen)), chosen // states)),
            shape=(len(chosen), scenarios),
        )
        return sparse.csr_array(sparse.hstack([-gains, share])), scenarios

    def levels(self) -> tuple[int, sparse.csr_array, Floats, sparse.csr_array]:
        """Return the number of levels, and rows for them: of contacts, of limits, and of levels.

        In shares of the store. Each interval has two rows: ``level + filled <= 1``, and for the next
        ``level + filled - drained <= next level``.
        """
        contacts = len(self.problem.contacts)
        parts = [self.level_rows(store) for store in self.problem.stores]
        if not parts:
            return 0, sparse.csr_array((0, contacts)), np.zeros(0), sparse.csr_array((0, 0))
        levels = sum(each[2].shape[1] for each in parts)
        rows = sparse.csr_array(sparse.vstack([each[0] for each in parts]))
        limits = np.concatenate([each[1] for each in parts])
        return levels, rows, limits, sparse.csr_array(sparse.block_diag([each[2] for each in parts]))

    def level_rows(self, store: Store) -> tuple[sparse.csr_array, Floats, sparse.csr_array]:
        size = max(self.problem.limits.store_bits, 1.0)
        count = len(store.drained_bits)
        filled = self.problem.contacts.stored_bits[store.contacts] / size
        fills = sparse.csr_array(
            (filled, (store.interval, store.contacts)), shape=(count, len(self.problem.contacts))
        )
        here = sparse.eye_array(count)
        onward = sparse.eye_array(count) - sparse.eye_array(count, k=1)
        rows = sparse.csr_array(sparse.vstack([fills, fills[:-1]]))
        columns = sparse.csr_array(sparse.vstack([here, sparse.csr_array(onward)[:-1]]))
        full = 1.0 if self.problem.limits.store_bits > 0 else 0.0
        return rows, np.concatenate([np.full(count, full), store.drained_bits[:-1] / size]), columns


def empty(rows: sparse.csr_array, columns: int) -> sparse.csr_array:
    """Return columns of nothing beside rows."""
    return sparse.csr_array((rows.shape[0], columns))


# Rounding


def rounded(problem: PlanProblem, relaxed: NDArray[np.float64]) -> Mask:
    """Return a plan that the limits allow, from one that serves contacts in part."""
    room = Room(problem)
    for place in np.flatnonzero(problem.begun).tolist():
        room.add(place)
    mean_bits = problem.key_bits.mean(axis=0)
    in_part = np.flatnonzero((relaxed > SERVED_IN_PART) & ~problem.begun)
    for place in in_part[np.lexsort((-mean_bits[in_part], -relaxed[in_part].round(6)))].tolist():
        room.add(place)
    left = np.flatnonzero(~room.chosen & (mean_bits > 0))
    worth = mean_bits / np.maximum(problem.alone_bits, 1e-300)[problem.contacts.state]
    worth *= problem.state_weights[problem.contacts.state]
    for place in left[np.argsort(-worth[left], kind="stable")].tolist():
        room.add(place)
    return room.chosen


class Room:
    """What the limits still allow, as contacts are added one by one."""

    def __init__(self, problem: PlanProblem) -> None:
        self.problem = problem
        self.chosen: Mask = np.zeros(len(problem.contacts), dtype=bool)
        self._exclusive, self._duty = sparse.csc_array(problem.exclusive), sparse.csc_array(problem.duty)
        self._taken = np.zeros(problem.exclusive.shape[0], dtype=bool)
        self._left_s = np.full(problem.duty.shape[0], problem.limits.link_s_per_day)
        self._stores = {int(problem.contacts.satellite[each.contacts[0]]): each for each in problem.stores}

    def add(self, place: int) -> bool:
        """Serve a contact if the limits allow it; return whether they do."""
        rows = column(self._exclusive, place)
        days = column(self._duty, place)
        seconds = self.problem.contacts.durations_s[place]
        if self._taken[rows].any() or (self._left_s[days] < seconds).any() or not self._stores_hold(place):
            return False
        self._taken[rows] = True
        self._left_s[days] -= seconds
        self.chosen[place] = True
        return True

    def _stores_hold(self, place: int) -> bool:
        store = self._stores.get(int(self.problem.contacts.satellite[place]))
        if store is None:
            return True
        served = self.chosen[store.contacts] | (store.contacts == place)
        filled = self.problem.contacts.stored_bits[store.contacts] * served
        return bool(store.levels(filled).max() <= self.problem.limits.store_bits)


def column(matrix: sparse.csc_array, place: int) -> Indices:
    """Return the rows in which a column has anything."""
    return np.asarray(matrix.indices[matrix.indptr[place] : matrix.indptr[place + 1]])
