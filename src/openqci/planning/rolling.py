"""Planning again as the weather turns: each plan knows what the sky is like now, and what was received.

At every step the next days are planned, and only what begins before the next step is done. The chance of a
clear sky is that of the climate, given what is seen at the station now: a cloudy evening makes an early pass
unlikely and says little of the next night. What has been done stays, and takes its share of the limits.
"""

from dataclasses import dataclass, replace

import numpy as np

from openqci.planning.contacts import Contacts
from openqci.planning.problem import Mask, PlanProblem
from openqci.planning.solving import best_plan
from openqci.space.pass_finding import Indices
from openqci.space.ranges import Floats, check_range
from openqci.space.time_scales import DAY_S
from openqci.space.weather import CloudClimate, Clouds

STEP_DAYS, HORIZON_DAYS = 1.0, 3.0

MEMORY_DAYS = 3.0
"""How long what was done is looked back at: it may still be in a store."""

SEARCH_S = 5.0


@dataclass(frozen=True)
class Done:
    """What was done, and what came of it; arrays of shape (N,).

    Attributes
    ----------
    contacts : Contacts
    served : ndarray of bool
    received_bits : ndarray
        Key of the contacts that were served under a clear sky, zero elsewhere.
    """

    contacts: Contacts
    served: Mask
    received_bits: Floats


def clear_skies(contacts: Contacts, clouds: Clouds) -> Mask:
    """Return under which contacts the sky was clear in the middle."""
    middle = (contacts.start_utc_s + contacts.stop_utc_s) / 2
    return ~clouds.at(contacts.station, middle)


def as_planned(problem: PlanProblem, served: Mask, clouds: Clouds) -> Done:
    """Return what comes of a plan that is kept whatever the weather."""
    clear = clear_skies(problem.contacts, clouds)
    return Done(problem.contacts, served, problem.contacts.key_bits * (served & clear))


def replanned(
    problem: PlanProblem,
    clouds: Clouds,
    climate: CloudClimate,
    start_utc_s: float,
    stop_utc_s: float,
    *,
    step_days: float = STEP_DAYS,
    horizon_days: float = HORIZON_DAYS,
) -> Done:
    """Return what comes of planning again and again.

    Parameters
    ----------
    problem : PlanProblem
        Of the whole time, its chances those of the climate.
    clouds : Clouds
        What the weather turns out to be; a plan sees it at its own moment and not beyond.
    climate : CloudClimate
    start_utc_s, stop_utc_s : float
    step_days, horizon_days : float
        Between plans, and how far each looks; the second no shorter than the first.
    """
    check_range("step_days", step_days, 0.01, 366.0)
    check_range("horizon_days", horizon_days, step_days, 366.0)
    contacts = problem.contacts
    clear = clear_skies(contacts, clouds)
    done = Done(contacts, np.zeros(len(contacts), dtype=bool), np.zeros(len(contacts)))
    for now_s in np.arange(start_utc_s, stop_utc_s, step_days * DAY_S).tolist():
        ahead = (contacts.start_utc_s >= now_s) & (contacts.start_utc_s < now_s + horizon_days * DAY_S)
        if not ahead.any():
            continue
        window, rows = window_of(problem, done, ahead, now_s, clouds, climate)
        chosen = rows[best_plan(window, search_s=SEARCH_S).chosen]
        done.served[chosen[contacts.start_utc_s[chosen] < now_s + step_days * DAY_S]] = True
        done.received_bits[:] = contacts.key_bits * (done.served & clear)
    return done


def window_of(
    problem: PlanProblem, done: Done, ahead: Mask, now_s: float, clouds: Clouds, climate: CloudClimate
) -> tuple[PlanProblem, Indices]:
    """Return the problem of the next days, and which contacts it is of."""
    contacts = problem.contacts
    before = done.served & (contacts.start_utc_s < now_s)
    recent = before & (contacts.start_utc_s >= now_s - MEMORY_DAYS * DAY_S)
    rows = np.flatnonzero(ahead | recent)
    part = contacts.part(rows)
    seen = clouds.at(part.station, np.full(len(rows), now_s))
    later = np.maximum((part.start_utc_s + part.stop_utc_s) / 2, now_s)
    chance = 1 - climate.chance_after(part.station, later, now_s, seen)
    # Of what is over, it is known whether it was received; that is in the stock.
    chance[recent[rows]] = 0.0
    states = contacts.state_names
    received = dict(zip(states, problem.gathered(done.received_bits * before).tolist(), strict=True))
    stock = {each: problem.stock_bits.get(each, 0.0) + received[each] for each in states}
    window = replace(
        problem, contacts=replace(part, clear_chance=chance), stock_bits=stock, forced=recent[rows]
    )
    return window, rows
