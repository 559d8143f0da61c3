"""What should happen now: which route a relay takes, which pair needs key, which hop makes key next.

Pure decisions on figures that are handed in; the controller's shell acts on them.
:mod:`openqci.control.routing` finds routes on the live network, :mod:`openqci.control.demand` turns stocks
and waiting applications into work.
"""

from openqci.control.demand import HopStock, PairDemand, affordable_bytes, batch_bytes, hop_to_work_on
from openqci.control.routing import Route, Router

__all__ = [
    "HopStock",
    "PairDemand",
    "Route",
    "Router",
    "affordable_bytes",
    "batch_bytes",
    "hop_to_work_on",
]
