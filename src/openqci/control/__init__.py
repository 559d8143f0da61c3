"""What should happen now: which route a relay takes, which pair needs key, which hop makes key next.

Pure decisions on figures that are handed in; the controller's shell acts on them. Every object is one
network's: nodes, hops and figures come with it, so that each domain has its own.
:mod:`openqci.control.routing` finds routes on the live network, :mod:`openqci.control.policy` says what
they must keep to, :mod:`openqci.control.cost` what a hop costs, :mod:`openqci.control.explanation` why a
route is taken and others are not, :mod:`openqci.control.admission` who gets how much of which hop and
:mod:`openqci.control.classes` how far whom can be stretched, :mod:`openqci.control.reaction` what to do
when a link is lost or somebody seems to listen, :mod:`openqci.control.demand` turns stocks and waiting
applications into work.
"""

from openqci.control.admission import Admission, FlowWish, Grant, Notice, admit, budgets, notices
from openqci.control.allocation import Allocation, RoutedDemand, allocate, within
from openqci.control.classes import ServiceClass, service_classes
from openqci.control.cost import CostRule, HopReading
from openqci.control.demand import HopStock, PairDemand, affordable_bytes, batch_bytes, hop_to_work_on
from openqci.control.explanation import RouteAdvisor, RouteAnswer, RouteQuestion
from openqci.control.policy import ANY_ROUTE, LinkFacts, NodeFacts, RoutePolicy
from openqci.control.routing import Prices, Route, Router, RouteTree

__all__ = [
    "ANY_ROUTE",
    "Admission",
    "Allocation",
    "CostRule",
    "FlowWish",
    "Grant",
    "HopReading",
    "HopStock",
    "LinkFacts",
    "NodeFacts",
    "Notice",
    "PairDemand",
    "Prices",
    "Route",
    "RouteAdvisor",
    "RouteAnswer",
    "RoutePolicy",
    "RouteQuestion",
    "RouteTree",
    "RoutedDemand",
    "Router",
    "ServiceClass",
    "admit",
    "affordable_bytes",
    "allocate",
    "batch_bytes",
    "budgets",
    "hop_to_work_on",
    "notices",
    "service_classes",
    "within",
]
