"""Reads a scenario, a folder of YAML files, into a :class:`~openqci.network.model.Network`.

=================  ============================================================  ==========================
file               what it holds                                                 needed
=================  ============================================================  ==========================
``scenario.yaml``  name, title, span rule, losses, default devices, watermarks   always
``sites.yaml``     places with a node                                            without ``catalogue``
``links.yaml``     fibres between them                                           without ``catalogue``
``devices.yaml``   device profiles, besides those that OpenQCI ships             no
``demand.yaml``    applications (SAEs) and their flows                           no
=================  ============================================================  ==========================

All faults of all files are found before anything is refused. Example: ``load_scenario("metro").domains``.
"""

from collections.abc import Collection, Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import chain
from pathlib import Path

import msgspec

from openqci.core.errors import ConfigurationError, Fault, invariant
from openqci.core.identifiers import DomainId, LinkId, SiteId
from openqci.network import consistency
from openqci.network.catalogue import catalogue_links, catalogue_sites, catalogue_text, member_state_of
from openqci.network.demand_model import modelled_demand
from openqci.network.documents import Document, LocatedFault, parse_document
from openqci.network.expansion import Link, SpanRule, border_nodes, expand, spans
from openqci.network.model import Device, Hop, Network, Site, network_digest
from openqci.network.reading import Parts, Settings, device_of, read_parts

HOPS_MAX = 100_000
"""Seventy times Europe; more is a slip in ``span_km_max`` or ``fibre_km``."""


class ScenarioNotFound(ConfigurationError):
    """There is no scenario of that name, or no such folder: nothing was checked."""


def scenario_names() -> tuple[str, ...]:
    """Return the names of the scenarios that OpenQCI ships."""
    return tuple(
        sorted(folder.name for folder in _shipped().iterdir() if folder.joinpath("scenario.yaml").is_file())
    )


def load_scenario(path_or_name: str | Path, *, whole_demand: bool = False) -> Network:
    """Read, check and expand a scenario.

    Parameters
    ----------
    path_or_name : str or Path
        The name of a shipped scenario (:func:`scenario_names`), or a folder. A shipped name wins over a
        folder of that name in the working directory; ``./eu27`` or a ``Path`` is always the folder.
    whole_demand : bool
        Take the flows of the demand model that ``demand.yaml`` names in place of those that it lists. Where
        it names none, nothing changes.

    Raises
    ------
    ScenarioNotFound
        Neither a shipped name nor a folder.
    ConfigurationError
        Its ``faults`` are all that is wrong, each with file, line, path and what was expected.
    """
    parts = read_parts(_folder(path_or_name))
    _check(parts)
    if parts.faults or parts.settings is None:
        raise ConfigurationError(*parts.faults)
    network = _build(parts.settings, parts)
    return _with_whole_demand(network) if whole_demand and _names_model(parts) else network


def _shipped() -> Traversable:
    return files("openqci.network").joinpath("scenarios")


def _folder(path_or_name: str | Path) -> Traversable:
    if isinstance(path_or_name, str) and path_or_name in scenario_names():
        return _shipped().joinpath(path_or_name)
    folder = Path(path_or_name)
    # Path("") is the working directory, which nobody means who passes an empty variable.
    if path_or_name == "" or not folder.is_dir():
        what = "not a folder" if folder.is_file() else "no such scenario"
        names = ", ".join(scenario_names())
        raise ScenarioNotFound(Fault(str(path_or_name), "", f"{what}; expected a folder or one of {names}"))
    return folder


# Shipped facts.


def _catalogue_sites(settings: Settings) -> list[Site]:
    if not settings.catalogue:
        return []
    return [
        Site(
            site_id=SiteId(site.id),
            name=site.name,
            kind=site.kind,
            country=site.country,
            domain=DomainId(member_state_of(site)),
            lat=site.lat,
            lon=site.lon,
            source=site.source,
        )
        for site in catalogue_sites()
    ]


def _catalogue_links(settings: Settings) -> list[Link]:
    """Return the links that fibre can do: the others stay on the map as sites without hops."""
    if not settings.catalogue:
        return []
    return [
        Link(LinkId(link.id), SiteId(link.a), SiteId(link.b), link.type, link.fibre_km, link.medium)
        for link in catalogue_links()
        if link.qkd_feasible_fibre
        and (link.medium != "submarine" or link.fibre_km <= settings.submarine_km_max)
    ]


def shipped_devices() -> dict[str, Device]:
    """Return the devices that OpenQCI ships, by ID."""
    document = parse_document(catalogue_text("devices.yaml"), "devices.yaml")
    records = [record for record in document.records("devices") if isinstance(record, dict)]
    return {str(record["id"]): device_of(record) for record in records}


# Checking: do the parts fit together?


def _check(parts: Parts) -> None:
    settings = parts.settings
    if settings is None:
        # Nobody knows whether the catalogue's sites belong to it; what needs no sites is checked.
        parts.faults.extend(_faults_without_places(parts, (), ()))
        return
    known_sites = {site.site_id for site in _catalogue_sites(settings)}
    known_links = {link.link_id for link in _catalogue_links(settings)}
    sites = parts.ids("sites", "sites") | known_sites
    devices = parts.ids("devices", "devices") | set(shipped_devices())
    parts.faults.extend(
        chain(
            _settings_faults(settings, parts.documents["scenario"], devices),
            consistency.link_faults(parts.links, sites, devices, settings.submarine_km_max),
            consistency.sae_faults(parts.saes, sites),
            consistency.station_faults(settings.space, parts.documents["scenario"], sites),
            _model_faults(settings, parts),
            _faults_without_places(parts, known_sites, known_links),
        )
    )
    if not parts.faults:
        parts.faults.extend(_whole_faults(settings, parts))


def _faults_without_places(
    parts: Parts, known_sites: Collection[str], known_links: Collection[str]
) -> Iterator[LocatedFault]:
    yield from consistency.repeated_ids([(e.part.site_id, e) for e in parts.sites], known_sites)
    yield from consistency.repeated_ids([(e.part.link_id, e) for e in parts.links], known_links)
    yield from consistency.repeated_ids([(e.part.device_id, e) for e in parts.devices], ())
    yield from consistency.repeated_ids([(e.part.sae_id, e) for e in parts.saes], ())
    yield from consistency.device_faults(parts.devices)
    yield from consistency.flow_faults(parts.flows, parts.ids("demand", "saes"))


def _settings_faults(settings: Settings, document: Document, devices: consistency.Ids) -> list[LocatedFault]:
    named = (("device", settings.device), ("device_beyond_span", settings.device_beyond_span))
    unknown = [
        document.fault((key,), consistency.unknown_device(device, devices))
        for key, device in named
        if devices.lack(device)
    ]
    return [*consistency.stock_faults(settings.stock, document), *unknown]


def _names_model(parts: Parts) -> bool:
    document = parts.documents.get("demand")
    content = document.content if document is not None else None
    return isinstance(content, dict) and content.get("model") is not None


def _model_faults(settings: Settings, parts: Parts) -> list[LocatedFault]:
    if settings.catalogue or not _names_model(parts):
        return []
    message = "the model speaks of the catalogue's sites; expected catalogue: euroqci in scenario.yaml"
    return [parts.documents["demand"].fault(("model",), message)]


def _whole_faults(settings: Settings, parts: Parts) -> list[LocatedFault]:
    """Find what only shows when every part is in order: missing routes and networks beyond all measure."""
    links = _all_links(settings, parts)
    hops = sum(spans(link, _span_rule(settings)) for link in links)
    if hops > HOPS_MAX:
        message = f"the links need {hops} hops; expected at most {HOPS_MAX}: use longer spans or fewer links"
        return [parts.documents["scenario"].fault(("span_km_max",), message)]
    site_of_sae = {entry.part.sae_id: entry.part.site for entry in parts.saes}
    site_ids = [site.site_id for site in _all_sites(settings, parts)]
    joined = [(link.a, link.b) for link in links]
    for use in settings.space.missions if settings.space else ():
        # A satellite joins all its stations, whenever it passes.
        joined += [(use.stations[0], other) for other in use.stations[1:]]
    return list(consistency.route_faults(parts.flows, site_of_sae, site_ids, joined))


# Building: from parts that fit to the network.


def _all_sites(settings: Settings, parts: Parts) -> list[Site]:
    return [*_catalogue_sites(settings), *(entry.part for entry in parts.sites)]


def _all_links(settings: Settings, parts: Parts) -> list[Link]:
    return [*_catalogue_links(settings), *(entry.part for entry in parts.links)]


def _span_rule(settings: Settings) -> SpanRule:
    return SpanRule(
        span_km_max=settings.span_km_max,
        attenuation_db_per_km=settings.attenuation_db_per_km,
        connector_loss_db=settings.connector_loss_db,
        device=settings.device,
        device_beyond_span=settings.device_beyond_span,
    )


def _build(settings: Settings, parts: Parts) -> Network:
    sites = {site.site_id: site for site in _all_sites(settings, parts)}
    hops: dict[LinkId, Hop] = {}
    rule = _span_rule(settings)
    for link in _all_links(settings, parts):
        nodes, of_link = expand(link, sites[link.a], sites[link.b], rule)
        sites |= {node.site_id: node for node in nodes}
        hops |= {hop.link_id: hop for hop in of_link}
    ended, nodes, borders = border_nodes(sites, hops.values())
    sites |= {node.site_id: node for node in nodes}
    hops = {hop.link_id: hop for hop in ended}
    network = Network(
        name=settings.name,
        title=settings.title,
        sites=sites,
        hops=hops,
        devices=shipped_devices() | {entry.part.device_id: entry.part for entry in parts.devices},
        saes={entry.part.sae_id: entry.part for entry in parts.saes},
        flows=tuple(entry.part for entry in parts.flows),
        stock=settings.stock,
        digest=network_digest(settings.name, sites.values(), hops.values()),
        borders=tuple(borders),
        space=settings.space,
    )
    wrong = network.consistency_check()
    invariant(not wrong, "; ".join(wrong))
    return network


def _with_whole_demand(network: Network) -> Network:
    """Return the network with the model's flows in place of those that are listed; all SAEs stay."""
    saes, flows = modelled_demand(network.sites, network.hops.values())
    return msgspec.structs.replace(
        network, saes=network.saes | {sae.sae_id: sae for sae in saes}, flows=flows
    )
