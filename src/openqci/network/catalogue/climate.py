"""What the air and the light over ground stations are like, and which territories only space reaches."""

from functools import cache

import msgspec

from openqci.network.catalogue import catalogue_text


class OpticalClimate(msgspec.Struct, frozen=True):
    """What the air over a ground station is like.

    ``sky`` is the light of towns, assumed; ``cloud_prob`` the yearly share of time with liquid cloud on the
    path; the months run from January.
    """

    id: str
    sky: str
    cloud_prob: float
    monthly_rain_mm: tuple[float, ...]
    linke_turbidity_month: tuple[float, ...]


class OverseasTerritory(msgspec.Struct, frozen=True):
    """An outermost region (OR) or overseas country or territory (OCT), and what reaches it on the ground."""

    id: str
    territory: str
    eu_status: str
    member_state: str
    capital: str
    lat: float
    lon: float
    nearest_mainland_ogs: str
    distance_km: float
    nearest_candidate_ogs: str
    nearest_candidate_ogs_km: float
    terrestrial_reach: str
    cluster_links: tuple[str, ...]


class _Climate(msgspec.Struct):
    climate: tuple[OpticalClimate, ...]


class _Overseas(msgspec.Struct):
    overseas: tuple[OverseasTerritory, ...]


@cache
def catalogue_climate() -> dict[str, OpticalClimate]:
    """Return the optical climate of the ground stations and overseas nodes, by site."""
    read = msgspec.yaml.decode(catalogue_text("optical_climate.yaml"), type=_Climate).climate
    return {each.id: each for each in read}


@cache
def catalogue_overseas() -> tuple[OverseasTerritory, ...]:
    """Return the overseas regions, countries and territories."""
    return msgspec.yaml.decode(catalogue_text("overseas.yaml"), type=_Overseas).overseas


class Figure(msgspec.Struct, frozen=True):
    """One figure with where it comes from."""

    value: float
    source: str
    confidence: str
    note: str = ""


class Region(msgspec.Struct, frozen=True):
    """A part of the map between two latitudes and two longitudes."""

    latitude_deg_min: float
    latitude_deg_max: float
    longitude_deg_min: float
    longitude_deg_max: float

    def holds(self, latitude_deg: float, longitude_deg: float) -> bool:
        """Return whether a place is inside; the lower edges belong to it."""
        return (
            self.latitude_deg_min <= latitude_deg < self.latitude_deg_max
            and self.longitude_deg_min <= longitude_deg < self.longitude_deg_max
        )


class CloudPattern(msgspec.Struct, frozen=True):
    """How the odds of cloud move through the year in a region.

    ``rain_exponent``: they follow the month's rain with this power; ``winter_amplitude``: their logarithm is
    higher by so much in December, and lower in June.
    """

    id: str
    where: Region
    rain_exponent: Figure
    winter_amplitude: Figure


class CloudSeasons(msgspec.Struct, frozen=True):
    """How clouds move in time and over distance; the first pattern whose region holds a place is its own."""

    version: int
    persistence_h: Figure
    distance_km: Figure
    patterns: tuple[CloudPattern, ...]

    def pattern(self, latitude_deg: float, longitude_deg: float) -> CloudPattern:
        """Return the pattern of a place."""
        return next(each for each in self.patterns if each.where.holds(latitude_deg, longitude_deg))


@cache
def catalogue_cloud_seasons() -> CloudSeasons:
    """Return how clouds move around their yearly mean; all of it is assumed."""
    return msgspec.yaml.decode(catalogue_text("cloud_seasons.yaml"), type=CloudSeasons)
