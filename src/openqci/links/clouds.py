"""The cloud climate of ground stations, from the catalogue: yearly means by ITU-R, seasons as assumed.

>>> from openqci.links.ground import ground_station
>>> climate = cloud_climate([ground_station("ogs-helmos"), ground_station("ogs-metsahovi")])
>>> climate.probability_by_month[:, [0, 6]].round(2).tolist()
[[0.37, 0.14], [0.62, 0.43]]

The yearly mean is the chance of liquid cloud on the path (ITU-R P.840-7): it knows no cirrus, so it is too
kind, and its map is coarse, so it is too harsh to mountains that stand above the clouds.
"""

from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace

from openqci.core.errors import ConfigurationError
from openqci.links.ground import GroundStation
from openqci.network.catalogue.climate import catalogue_climate, catalogue_cloud_seasons
from openqci.space.ranges import Floats
from openqci.space.weather import MONTHS, CloudClimate, seasonal

RAIN_MM_MIN = 1.0
"""A month without rain is not a month without cloud."""


def cloud_climate(ground: Sequence[GroundStation]) -> CloudClimate:
    """Return how often stations are cloudy, month by month.

    Raises
    ------
    ConfigurationError
        Names the stations of which nothing is known.
    """
    unknown = [each.site_id for each in ground if each.cloud_probability is None]
    if unknown:
        raise ConfigurationError(
            f"no cloud climate of {', '.join(unknown)}; expected stations of the catalogue, or a chance of "
            "cloud given for them"
        )
    seasons = catalogue_cloud_seasons()
    return CloudClimate.of(
        [each.site_id for each in ground],
        [each.latitude_deg for each in ground],
        [each.longitude_deg for each in ground],
        np.array([monthly_chances(each) for each in ground]).reshape(len(ground), MONTHS),
        seasons.persistence_h.value,
        seasons.distance_km.value,
    )


def with_cloud_probability(ground: Sequence[GroundStation], probability: float) -> list[GroundStation]:
    """Return stations, those without a climate with a yearly chance of cloud."""
    return [
        each if each.cloud_probability is not None else replace(each, cloud_probability=probability)
        for each in ground
    ]


def monthly_chances(station: GroundStation) -> Floats:
    """Return the chance of cloud in each month, January first."""
    pattern = catalogue_cloud_seasons().pattern(station.latitude_deg, station.longitude_deg)
    winter = np.cos(2 * np.pi * (np.arange(MONTHS) + 1) / MONTHS)
    shifts = pattern.winter_amplitude.value * winter
    known = catalogue_climate().get(station.site_id)
    if known is not None and pattern.rain_exponent.value:
        rain = np.maximum(known.monthly_rain_mm, RAIN_MM_MIN)
        shifts = shifts + pattern.rain_exponent.value * np.log(rain / rain.mean())
    return seasonal(station.cloud_probability or 0.0, shifts)
