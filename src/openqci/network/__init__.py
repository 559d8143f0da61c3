"""What exists: sites, QKD hops, devices, domains, applications. The ground on which a key's way lies.

Not a stage of the way itself: every stage asks here where it is. :func:`load_scenario` reads a scenario, a
folder of YAML files with published JSON Schemas, and returns a :class:`Network` whose long links have their
trusted nodes; two scenarios are shipped, ``eu27`` (all Europe) and ``metro`` (ten towns around Vienna).

>>> from openqci.network import load_scenario
>>> network = load_scenario("metro")
>>> len(network.sites), network.domains
(13, ('AT', 'HU', 'SK'))

Promises: a network that was loaded is consistent; a scenario that is refused is refused with all its faults,
each with file, line, path and what was expected. What a hop can *yield* is not here but in
:mod:`openqci.links`; the facts behind ``eu27`` are in :mod:`openqci.network.catalogue`.
"""

from openqci.network.demand_model import modelled_demand
from openqci.network.documents import LocatedFault
from openqci.network.expansion import Link, SpanRule, border_nodes, expand
from openqci.network.model import (
    Border,
    Device,
    Flow,
    Hop,
    MissionUse,
    Network,
    Sae,
    Site,
    SpaceSegment,
    StockRule,
    network_digest,
)
from openqci.network.scenario import ScenarioNotFound, load_scenario, scenario_names, shipped_devices
from openqci.network.validation import SCHEMA_NAMES, scenario_schema, schema_text

__all__ = [
    "SCHEMA_NAMES",
    "Border",
    "Device",
    "Flow",
    "Hop",
    "Link",
    "LocatedFault",
    "MissionUse",
    "Network",
    "Sae",
    "ScenarioNotFound",
    "Site",
    "SpaceSegment",
    "SpanRule",
    "StockRule",
    "border_nodes",
    "expand",
    "load_scenario",
    "modelled_demand",
    "network_digest",
    "scenario_names",
    "scenario_schema",
    "schema_text",
    "shipped_devices",
]
