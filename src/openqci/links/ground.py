"""Ground stations: where they are, and what the air and the light over them are like.

From the catalogue of sites (ground stations and overseas towns), or from a mission that brings places of its
own. What a place does not say is assumed: a standard clear sky, and the light of towns of a rural site.

>>> station = ground_station("ogs-helmos")
>>> station.name, station.altitude_m, station.linke_turbidity(1), station.sky
('Helmos Observatory / ScyLight station', 2340.0, 4.1, 'dark')
"""

from collections.abc import Sequence
from functools import cache

import msgspec

from openqci.core.errors import ConfigurationError
from openqci.links.missions.model import Mission
from openqci.network.catalogue import catalogue_sites
from openqci.network.catalogue.climate import catalogue_climate
from openqci.space.frames import Stations

KINDS = ("ground_station", "overseas_node")
SKY_ASSUMED = "rural"


class GroundStation(msgspec.Struct, frozen=True):
    """One place with a telescope.

    Attributes
    ----------
    altitude_m : float
        Above the sea; 0 where the catalogue does not say.
    sky : str
        Light of towns, a name of :data:`openqci.space.sky_light.TOWNS`.
    turbidity_by_month : tuple of float
        Linke turbidity of clear skies from January on; empty for the standard clear sky.
    cloud_probability : float or None
    """

    site_id: str
    name: str
    country: str
    latitude_deg: float
    longitude_deg: float
    altitude_m: float
    sky: str = SKY_ASSUMED
    turbidity_by_month: tuple[float, ...] = ()
    cloud_probability: float | None = None

    def linke_turbidity(self, month: int) -> float | None:
        """Return the turbidity of a month, 1 to 12; None for the standard clear sky."""
        return self.turbidity_by_month[month - 1] if self.turbidity_by_month else None


@cache
def catalogue_stations() -> dict[str, GroundStation]:
    """Return the ground stations and overseas towns of the catalogue, by site."""
    climate = catalogue_climate()
    return {
        site.id: GroundStation(
            site.id,
            site.name,
            site.country,
            site.lat,
            site.lon,
            site.alt_m or 0.0,
            climate[site.id].sky,
            climate[site.id].linke_turbidity_month,
            climate[site.id].cloud_prob,
        )
        for site in catalogue_sites()
        if site.kind in KINDS
    }


def ground_station(site_id: str, of: Mission | None = None) -> GroundStation:
    """Return a station of the catalogue, or of the places of a mission.

    Raises
    ------
    ConfigurationError
        If there is none of this id.
    """
    if of is not None and site_id in of.places:
        place = of.places[site_id]
        return GroundStation(
            site_id, place.name, "", place.latitude_deg, place.longitude_deg, place.altitude_m
        )
    stations = catalogue_stations()
    if site_id not in stations:
        known = ", ".join([*(of.places if of is not None else ()), *sorted(stations)])
        raise ConfigurationError(f"no ground station {site_id!r}; expected one of {known}")
    return stations[site_id]


def stations_of(ground: Sequence[GroundStation]) -> Stations:
    """Return stations as arrays."""
    return Stations.of(
        [each.site_id for each in ground],
        [each.latitude_deg for each in ground],
        [each.longitude_deg for each in ground],
        [each.altitude_m for each in ground],
    )
