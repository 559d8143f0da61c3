"""The smallest true orbits and stations for tests."""

import numpy as np

from openqci.space.elements import MeanElements, read_elements
from openqci.space.frames import Stations
from openqci.space.orbits import ElementOrbit

# Published by CelesTrak, as kept in public code; see docs/reference/data.md.
MICIUS_2016 = """micius-2016-12-18
1 41731U 16051A   16353.90152003  .00000364  00000-0  17957-4 0  9993
2 41731  97.3699 267.4500 0013200 178.5836 246.0824 15.23915303 19063
"""
MICIUS_2024 = """micius-2024-01-16
1 41731U 16051A   24016.15735159  .00011450  00000-0  34540-3 0  9998
2 41731  97.3167 289.0989 0012522  59.2544 300.9930 15.34373256413200
"""
MICIUS_2025 = """micius-2025-09-22
1 41731U 16051A   25265.33409832  .00080539  00000-0  89175-3 0  9999
2 41731  97.2945 187.6583 0004596  12.3887 347.7483 15.62724089508176
"""

SITES = Stations.of(
    ["kourou", "teide", "oberpfaffenhofen", "kiruna", "noumea", "pole"],
    [5.1628, 28.3009, 48.0848, 67.86, -22.2741, 90.0],
    [-52.6427, -16.5118, 11.278, 20.96, 166.4488, 0.0],
    [15.0, 2393.0, 590.0, 400.0, 30.0, 0.0],
)


def elements(text: str = MICIUS_2024) -> MeanElements:
    return read_elements(text, "test.tle")[0]


def micius(text: str = MICIUS_2024) -> ElementOrbit:
    return ElementOrbit(elements(text))


def times(start_utc_s: float, hours: float, step_s: float) -> np.ndarray:
    return start_utc_s + np.arange(0.0, hours * 3600.0 + 1e-6, step_s)
