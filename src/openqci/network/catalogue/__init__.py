"""What is publicly known of the EuroQCI: sites, fibre links, and the sources behind every line.

Facts, not code: the YAML files beside this module are the one truth and carry source and confidence per line;
``ATTRIBUTION.md`` states licences and what is estimated. ``devices.yaml`` holds the device profiles that
scenarios use by default. Nothing here knows about spans, hops or demand: see :mod:`openqci.network.scenario`.
"""

from functools import cache
from importlib.resources import files

import msgspec

MEMBER_STATES = frozenset(
    {"AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES"}
    | {"FI", "FR", "GR", "HR", "HU", "IE", "IT", "LT", "LU"}
    | {"LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK"}
)
"""The 27, ISO 3166-1 alpha-2; each is one domain."""


class CatalogueSite(msgspec.Struct, frozen=True):
    """A site as published or estimated; ``coord_accuracy_km`` says how far the true building may be."""

    id: str
    name: str
    country: str
    kind: str
    lat: float
    lon: float
    coord_source: str
    coord_accuracy_km: float
    source: str
    confidence: str
    member_state: str = ""
    category: str = ""
    town: str = ""
    territory: str = ""
    eu_status: str = ""
    qkd_project: str = ""
    status: str = ""
    role: str = ""
    alt_m: float | None = None
    aperture_m: float | None = None


class CatalogueLink(msgspec.Struct, frozen=True):
    """A fibre link as published, planned or estimated; ``qkd_feasible_fibre``: not a long sea cable."""

    id: str
    a: str
    b: str
    type: str
    medium: str
    gc_km: float
    fibre_km: float
    fibre_km_source: str
    loss_db: float
    qkd_feasible_fibre: bool
    basis: str
    status: str
    source: str
    confidence: str
    route_factor: float | None = None
    tn_span80: int | None = None
    tn_span100: int | None = None
    project: str = ""
    note: str = ""


class UseCase(msgspec.Struct, frozen=True):
    """A kind of application and how much key it asks for, as ``demand.yaml`` proposes.

    Either it changes keys (``rekey_s``, ``keys_per_rekey``, at the longest ``rekey_s_max``), or it is a
    one-time pad (``otp_bps`` while in use, for the part ``duty`` of the time, of use down to
    ``least_fraction`` of that). ``bits_per_s`` is the mean; ``level`` 1 is served first.
    """

    id: str
    sector: str
    application: str
    protocol: str
    security_class: str
    level: int
    bits_per_s: float
    stretch_source: str
    rekey_s: float | None = None
    keys_per_rekey: int | None = None
    rekey_s_max: float | None = None
    otp_bps: float | None = None
    duty: float | None = None
    least_fraction: float | None = None


class FlowRule(msgspec.Struct, frozen=True, rename={"start": "from", "end": "to"}):
    """From where to where flows of which use cases lead, and how many tunnels of each."""

    id: str
    start: str
    end: str
    use_cases: dict[str, int]


class DemandModel(msgspec.Struct, frozen=True):
    """The whole of ``demand.yaml``; site counts by member state and kind of site."""

    use_cases: tuple[UseCase, ...]
    flow_rules: tuple[FlowRule, ...]
    overseas_rule: FlowRule
    strategic_site_counts: dict[str, dict[str, float]]
    tso_adjacency: tuple[tuple[str, str], ...]


class Source(msgspec.Struct, frozen=True):
    """Where a fact was read. ``how``: read, measured, unverified or assumption."""

    id: str
    title: str
    ref: str
    licence: str
    how: str


class _Sites(msgspec.Struct):
    sites: tuple[CatalogueSite, ...]


class _Links(msgspec.Struct):
    links: tuple[CatalogueLink, ...]


class _Sources(msgspec.Struct):
    sources: tuple[Source, ...]


def catalogue_text(name: str) -> str:
    """Return one file of the catalogue as it is."""
    return files(__name__).joinpath(name).read_text("utf-8")


# msgspec reads YAML through libyaml where PyYAML has it, and checks every field's type on the way.


@cache
def catalogue_sites() -> tuple[CatalogueSite, ...]:
    """Return all sites of the catalogue."""
    return msgspec.yaml.decode(catalogue_text("sites.yaml"), type=_Sites).sites


@cache
def catalogue_links() -> tuple[CatalogueLink, ...]:
    """Return all links of the catalogue, also those that fibre cannot do."""
    return msgspec.yaml.decode(catalogue_text("links.yaml"), type=_Links).links


@cache
def catalogue_demand() -> DemandModel:
    """Return the model of demand."""
    return msgspec.yaml.decode(catalogue_text("demand.yaml"), type=DemandModel)


@cache
def catalogue_sources() -> dict[str, Source]:
    """Return all sources by the id that sites and links name."""
    return {
        source.id: source
        for source in msgspec.yaml.decode(catalogue_text("sources.yaml"), type=_Sources).sources
    }


def member_state_of(site: CatalogueSite) -> str:
    """Return the member state whose domain a site belongs to: its own, or that of the overseas territory.

    Overseas nodes name their member state; a ground station there takes it from a node of its territory.
    """
    if site.country in MEMBER_STATES:
        return site.country
    return site.member_state or _states_of_territories()[site.country]


@cache
def _states_of_territories() -> dict[str, str]:
    return {site.country: site.member_state for site in catalogue_sites() if site.member_state}
