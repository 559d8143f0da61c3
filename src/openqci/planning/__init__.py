"""What to do with satellites: which station is served in which pass, and what a year of that gives.

================  ============================================================================================
module            answers
================  ============================================================================================
``demand``        how much key each state asks of the space segment, class by class
``contacts``      which passes could give key, how much, and how likely the sky is clear
``limits``        what a satellite and a station can do: one link at a time, slewing, power, store
``problem``       the plan as a linear program with whole numbers
``solving``       the best plan, or one within a stated gap of a bound
``rolling``       planning again as the weather turns, against clouds that come as they come
``stocks``        how much key has to be carried over the summer, and what steady demand a year carries
``year``          a year in fast-forward: passes, weather, contacts, key in and key out
``payloads``      payloads side by side: mass and power against key per day and site
``validation``    whether a payload in orbit does what its model says (``recordings``: its files)
================  ============================================================================================

>>> from openqci.planning import Limits, PlanProblem, best_plan
>>> from openqci.planning.contacts import Contacts
>>> passes = Contacts.of(
...     satellite=[0, 0], station=[0, 1], start_utc_s=[0.0, 100.0], stop_utc_s=[300.0, 400.0],
...     key_bits=[1e6, 2e6], clear_chance=[0.5, 0.5], states=["IE", "CY"])
>>> plan = best_plan(PlanProblem(passes, Limits(), fairness="total"))
>>> plan.served.tolist(), plan.gap
([1], 0.0)

Planning is never imported by what is deployed. It knows expected keys and no key.
"""

from openqci.planning.contacts import Contacts, contacts_of
from openqci.planning.demand import StateDemand, state_demands
from openqci.planning.limits import Limits
from openqci.planning.problem import FAIRNESS, PlanProblem
from openqci.planning.solving import Plan, best_plan

__all__ = [
    "FAIRNESS",
    "Contacts",
    "Limits",
    "Plan",
    "PlanProblem",
    "StateDemand",
    "best_plan",
    "contacts_of",
    "state_demands",
]
