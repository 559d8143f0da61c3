"""Missions as data: who flies what, where, over which stations, and how sure each figure is.

A mission is a YAML file beside this module, checked against ``mission.schema.json``. It lists orbits,
payloads, kinds of station and operations, and *designs* that combine one of each. Every figure is ``{value,
source, confidence}``: its source is one that the file names, or ``assumed``. Six are shipped.

>>> flown = mission("micius").design("decoy-2017")
>>> flown.payload.intensities, flown.station.detector_efficiency
((0.8, 0.1, 0.0), 0.5)
>>> round(mission("eagle-1").assumed_share, 1)
0.9

Read :mod:`openqci.links.missions.model` next; what a design loses is :mod:`openqci.links.budget`.
"""

from openqci.links.missions.model import (
    ASSUMED,
    Design,
    Mission,
    Operation,
    OrbitDesign,
    Payload,
    Place,
    Provenance,
    StationDesign,
)
from openqci.links.missions.reading import mission, mission_ids, mission_schema, proofs_for, read_mission

__all__ = [
    "ASSUMED",
    "Design",
    "Mission",
    "Operation",
    "OrbitDesign",
    "Payload",
    "Place",
    "Provenance",
    "StationDesign",
    "mission",
    "mission_ids",
    "mission_schema",
    "proofs_for",
    "read_mission",
]
