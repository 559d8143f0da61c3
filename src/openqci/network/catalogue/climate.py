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
