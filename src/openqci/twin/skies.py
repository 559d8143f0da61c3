"""Clouds over the stations of a network's satellites: drawn once for all time, hour by hour.

Drawn from the climate of the stations (:mod:`openqci.links.clouds`), so that clouds last and hang together
over distance; the same for the same seed, after a restart too. Stations of which no climate is known have
:data:`CLOUD_PROBABILITY_ASSUMED`. Nobody knows them beforehand: a satellite that has chosen a station finds
it clear or cloudy when the pass begins.

>>> from openqci.links.ground import ground_station
>>> sky = Skies([ground_station("ogs-helmos"), ground_station("ogs-metsahovi")], 1_805_558_400.0, seed=1)
>>> hours = [3600.0 * hour for hour in range(8766)]
>>> [round(sum(sky.cloudy(site, hour) for hour in hours) / 8766, 1) for site in sky.stations]
[0.3, 0.5]
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from openqci.links.clouds import cloud_climate, with_cloud_probability
from openqci.links.ground import GroundStation
from openqci.space.weather import Clouds, sample_clouds

CLOUD_PROBABILITY_ASSUMED = 0.45
"""About the mean of the stations of the catalogue."""

HOUR_S = 3600.0
HOURS_AT_ONCE = 1 << 13
"""Eleven months; between two lots the weather forgets what it was."""


class Skies:
    """Whether stations are cloudy, at any moment of a network's time.

    Parameters
    ----------
    ground : sequence of GroundStation
    start_utc_s : float
        Of the network's second zero.
    seed : int
    """

    def __init__(self, ground: Sequence[GroundStation], start_utc_s: float, seed: int) -> None:
        self.stations = tuple(each.site_id for each in ground)
        self._places = {station: place for place, station in enumerate(self.stations)}
        self._climate = cloud_climate(with_cloud_probability(ground, CLOUD_PROBABILITY_ASSUMED))
        self._start_utc_s, self._seed = start_utc_s, seed
        self._lot = lru_cache(maxsize=2)(self._drawn)

    def cloudy(self, station: str, now_s: float) -> bool:
        """Return whether the sky over a station is cloudy; KeyError for a station that is not among these."""
        hour = int(now_s // HOUR_S)
        clouds = self._lot(hour // HOURS_AT_ONCE)
        return bool(clouds.cloudy[hour % HOURS_AT_ONCE, self._places[station]])

    def _drawn(self, lot: int) -> Clouds:
        rng = np.random.default_rng((self._seed, lot))
        start_utc_s = self._start_utc_s + lot * HOURS_AT_ONCE * HOUR_S
        return sample_clouds(self._climate, start_utc_s, HOURS_AT_ONCE, rng)


def clear(station: str, now_s: float) -> bool:
    """The sky of a network without clouds: never cloudy."""
    return False
