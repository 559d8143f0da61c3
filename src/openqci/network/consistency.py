"""What one file of a scenario cannot show: whether its parts fit together.

Each check takes the parts that are in good form and reports where they do not fit. An id that is defined in a
record with another fault still counts as defined, so that one slip gives one fault and not ten.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from openqci.core.identifiers import SaeId, SiteId
from openqci.network.documents import Document, LocatedFault, Path
from openqci.network.expansion import Link
from openqci.network.model import Device, Flow, Sae, SpaceSegment, StockRule, connected_parts

Part = TypeVar("Part", covariant=True)


@dataclass(frozen=True)
class Entry(Generic[Part]):
    """A part of the scenario and the place in a file where it is written."""

    part: Part
    document: Document
    path: Path

    def fault(self, field: str, message: str) -> LocatedFault:
        return self.document.fault((*self.path, field), message)


@dataclass(frozen=True)
class Ids:
    """The ids that a reference may name. Not ``whole`` if some could not be read: then none is missed."""

    names: frozenset[str]
    whole: bool = True

    def lack(self, name: str) -> bool:
        return self.whole and name not in self.names

    def __or__(self, more: Collection[str]) -> "Ids":
        return Ids(self.names | frozenset(more), self.whole)


def repeated_ids(
    entries: Sequence[tuple[str, Entry[object]]], known: Collection[str]
) -> Iterator[LocatedFault]:
    """Find ids that an earlier record, or the catalogue (``known``), has already."""
    seen: dict[str, str] = {}
    for name, entry in entries:
        if name in known:
            yield entry.fault("id", f"{name} is in the catalogue already; expected a new id")
        elif name in seen:
            yield entry.fault("id", f"{name} is also the id of {seen[name]}; expected a new id")
        else:
            seen[name] = f"{entry.path[0]}[{entry.path[1]}]"


def link_faults(
    links: Sequence[Entry[Link]], sites: Ids, devices: Ids, submarine_km_max: float
) -> Iterator[LocatedFault]:
    """Find links with an unknown end or device, a link to itself, and sea cables that are too long."""
    pairs: dict[frozenset[str], str] = {}
    for entry in links:
        link = entry.part
        yield from (
            entry.fault(end, f"no site {site}; expected the id of a site")
            for end, site in (("a", link.a), ("b", link.b))
            if sites.lack(site)
        )
        if link.device is not None and devices.lack(link.device):
            yield entry.fault("device", unknown_device(link.device, devices))
        if link.a == link.b:
            yield entry.fault("b", f"the link ends where it begins, at {link.a}; expected another site")
        elif (earlier := pairs.get(frozenset((link.a, link.b)), link.link_id)) != link.link_id:
            yield entry.fault("b", f"{earlier} joins the same two sites; expected one link per pair of sites")
        pairs.setdefault(frozenset((link.a, link.b)), link.link_id)
        if link.medium == "submarine" and link.fibre_km > submarine_km_max:
            yield entry.fault(
                "fibre_km",
                f"expected at most submarine_km_max, {submarine_km_max:g} km, for a submarine link "
                f"(no trusted node on the sea bed), found {link.fibre_km:g}",
            )


def device_faults(devices: Sequence[Entry[Device]]) -> Iterator[LocatedFault]:
    """Find devices whose decoy is no weaker than their signal."""
    for entry in devices:
        device = entry.part
        if device.decoy_intensity >= device.signal_intensity:
            yield entry.fault(
                "decoy_intensity",
                f"expected less than signal_intensity, {device.signal_intensity:g}, "
                f"found {device.decoy_intensity:g}",
            )


def unknown_device(name: str, devices: Ids) -> str:
    """Return the message for a device that is not defined."""
    return f"no device {name}; expected one of {', '.join(sorted(devices.names))}"


def stock_faults(stock: StockRule, document: Document) -> Iterator[LocatedFault]:
    """Find watermarks of which the low one is not below the high one."""
    for low_name, low, high_name, high in (
        ("low_bits", stock.low_bits, "high_bits", stock.high_bits),
        ("pair_low_keys", stock.pair_low_keys, "pair_high_keys", stock.pair_high_keys),
    ):
        if low >= high:
            yield document.fault(("stock", low_name), f"expected less than {high_name}, {high}, found {low}")


def sae_faults(saes: Sequence[Entry[Sae]], sites: Ids) -> Iterator[LocatedFault]:
    """Find SAEs at unknown sites."""
    for entry in saes:
        if sites.lack(entry.part.site):
            yield entry.fault("site", f"no site {entry.part.site}; expected the id of a site")


def flow_faults(flows: Sequence[Entry[Flow]], saes: Ids) -> Iterator[LocatedFault]:
    """Find flows of unknown SAEs, of an SAE with itself, and the same pair twice."""
    seen: set[tuple[str, str]] = set()
    for entry in flows:
        flow = entry.part
        yield from (
            entry.fault(role, f"no SAE {sae}; expected an id from the list saes")
            for role, sae in (("master", flow.master), ("slave", flow.slave))
            if saes.lack(sae)
        )
        if flow.master == flow.slave:
            yield entry.fault("slave", f"{flow.slave} is also the master; expected another SAE")
        elif (flow.master, flow.slave) in seen:
            yield entry.fault("slave", "a flow of these two is above; expected one flow per pair")
        seen.add((flow.master, flow.slave))


def station_faults(space: SpaceSegment | None, document: Document, sites: Ids) -> Iterator[LocatedFault]:
    """Find missions over stations that are no sites."""
    for number, use in enumerate(space.missions if space else ()):
        for place, station in enumerate(use.stations):
            if sites.lack(station):
                at = ("space", "missions", number, "stations", place)
                yield document.fault(at, f"no site {station!r}; expected one of the scenario's sites")


def route_faults(
    flows: Sequence[Entry[Flow]],
    site_of_sae: Mapping[SaeId, SiteId],
    sites: Collection[SiteId],
    joined: Sequence[tuple[SiteId, SiteId]],
) -> Iterator[LocatedFault]:
    """Find flows between sites that no chain of links or satellites joins: they would wait for ever."""
    parts = connected_parts(sites, joined)
    part_of = {site: number for number, part in enumerate(parts) for site in part}
    for entry in flows:
        a, b = (site_of_sae[sae] for sae in (entry.part.master, entry.part.slave))
        if part_of[a] != part_of[b]:
            message = f"no links lead from {a} to {b}; expected sites that fibre or a satellite joins"
            yield entry.fault("slave", message)
