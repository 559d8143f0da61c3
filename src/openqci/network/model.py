"""The network as every other package sees it: sites, QKD hops, devices, applications, demand.

All types are frozen msgspec structs of plain values: cheap to build, to pickle and to send to a worker.
A :class:`Network` is made by :func:`openqci.network.load_scenario`; one that is put together by hand says
with :meth:`Network.consistency_check` what is wrong with it.
"""

import hashlib
from collections.abc import Iterable, Iterator

import msgspec

from openqci.core.identifiers import DomainId, LinkId, SaeId, SiteId, border_link


class Site(msgspec.Struct, frozen=True):
    """A place with one node. ``kind`` and ``source`` are those of the catalogue or of the scenario's file.

    Coordinates in degrees (WGS 84). ``generated`` marks a trusted node that the span rule has put on a long
    link: its place is a point on the great circle, not a known building.
    """

    site_id: SiteId
    name: str
    kind: str
    country: str
    domain: DomainId
    lat: float
    lon: float
    source: str
    generated: bool = False
    operator: str = ""
    trust: int = 1


class Hop(msgspec.Struct, frozen=True):
    """A QKD link between two neighbouring nodes, without a node between them.

    ``loss_db`` is fibre and connectors, all that lies between the two devices; the receiver's own loss and
    its detectors belong to the :class:`Device`. ``parent_link`` is the link that this is a span of.
    """

    link_id: LinkId
    a: SiteId
    b: SiteId
    length_km: float
    loss_db: float
    device: str
    link_type: str
    parent_link: str


class Border(msgspec.Struct, frozen=True):
    """Two nodes of two domains in one protected site, where key passes between them (ETSI GS QKD 020).

    ``node`` is the end of the hops that its domain has built across the border, and has that domain's own
    KME; ``partner`` is the node of the domain whose site it stands in.
    """

    node: SiteId
    partner: SiteId

    @property
    def link_id(self) -> LinkId:
        """The name under which routes cross it."""
        return border_link(self.node, self.partner)


class Device(msgspec.Struct, frozen=True):
    """A pair of QKD modules: decoy-state BB84 with a signal and one decoy intensity.

    Intensities are mean photon numbers per pulse; ``signal_probability`` is how often the signal is sent
    (else the decoy), ``z_basis_probability`` how often either end chooses the key basis. Dark counts are per
    gate and detector. ``block_sifted_bits`` key-basis bits make one block of distillation; ``epsilon_sec``
    and ``epsilon_cor`` are the security and correctness parameters of each block.
    """

    device_id: str
    clock_rate_hz: float
    signal_intensity: float
    decoy_intensity: float
    signal_probability: float
    z_basis_probability: float
    receiver_loss_db: float
    detector_efficiency: float
    dark_count_probability: float
    dead_time_s: float
    afterpulse_probability: float
    misalignment_error: float
    block_sifted_bits: int
    epsilon_sec: float
    epsilon_cor: float
    reference: str


class Sae(msgspec.Struct, frozen=True):
    """A secure application entity and the site whose KME serves it."""

    sae_id: SaeId
    site: SiteId


class Flow(msgspec.Struct, frozen=True):
    """A steady demand of one pair of SAEs: the master asks for ``keys_per_s`` keys of ``key_size_bits``."""

    master: SaeId
    slave: SaeId
    keys_per_s: float
    key_size_bits: int = 256
    use_case: str = ""


class StockRule(msgspec.Struct, frozen=True):
    """Watermarks: what falls below low is refilled to high.

    ``*_bits`` are link key per hop and direction, ``pair_*_keys`` end-to-end keys per SAE pair.
    """

    low_bits: int
    high_bits: int
    pair_low_keys: int
    pair_high_keys: int


class MissionUse(msgspec.Struct, frozen=True):
    """A mission that serves a network: its satellites are nodes, and ``stations`` those it makes key with.

    ``mission`` is an id of :mod:`openqci.links.missions`, with ``:design`` for another than its first. Each
    of its satellites holds at most ``store_bits`` of link key, all stations together.
    """

    mission: str
    stations: tuple[SiteId, ...]
    store_bits: int = 200_000_000


class SpaceSegment(msgspec.Struct, frozen=True):
    """Missions of a network; ``start_utc`` is the moment at which it is commissioned, its second zero.

    With a ``cloud_seed`` clouds are drawn from the climate of the stations; without, skies are clear.
    """

    start_utc: str
    missions: tuple[MissionUse, ...]
    cloud_seed: int | None = None


class Network(msgspec.Struct, frozen=True):
    """Everything that exists, after long links got their trusted nodes. Read it, never change its dicts.

    ``digest`` (hex SHA-256, see :func:`network_digest`) names the set of nodes and hops: keys of one data
    directory make sense only on the network with the same digest. Titles, devices, demand and watermarks may
    change without it. Satellites of ``space`` are among neither before :func:`openqci.twin.flights.flown` has
    put them there: where they fly is physics.
    """

    name: str
    title: str
    sites: dict[SiteId, Site]
    hops: dict[LinkId, Hop]
    devices: dict[str, Device]
    saes: dict[SaeId, Sae]
    flows: tuple[Flow, ...]
    stock: StockRule
    digest: str
    borders: tuple[Border, ...] = ()
    space: SpaceSegment | None = None

    @property
    def domains(self) -> tuple[DomainId, ...]:
        """All domains that have a site, in order."""
        return tuple(sorted({site.domain for site in self.sites.values()}))

    @property
    def unreached(self) -> tuple[SiteId, ...]:
        """Sites without any hop: on the map, waiting for fibre or for the space segment."""
        reached = {end for hop in self.hops.values() for end in (hop.a, hop.b)}
        return tuple(site for site in self.sites if site not in reached)

    def islands(self) -> tuple[frozenset[SiteId], ...]:
        """Return the parts connected by hops and borders, largest first; a site without either is its own."""
        hops = ((hop.a, hop.b) for hop in self.hops.values())
        borders = ((border.node, border.partner) for border in self.borders)
        return connected_parts(self.sites, [*hops, *borders])

    def edges(self) -> Iterator[tuple[LinkId, SiteId, SiteId]]:
        """Yield all that routes go over: every QKD hop and every border, as (link, end, other end)."""
        yield from ((hop.link_id, hop.a, hop.b) for hop in self.hops.values())
        yield from ((border.link_id, border.node, border.partner) for border in self.borders)

    def consistency_check(self) -> tuple[str, ...]:
        """Return what is wrong, one sentence each; empty if all references hold and the digest is right."""
        return tuple(_inconsistencies(self))


def network_digest(name: str, sites: Iterable[Site], hops: Iterable[Hop]) -> str:
    """Return the SHA-256 (hex) over name, node ids with domains, and hop ids with ends, in sorted order.

    Lengths and coordinates stay out: they are computed in floating point, and a better survey of a cable does
    not make the keys of its two ends worthless.
    """
    nodes = sorted((site.site_id, site.domain) for site in sites)
    edges = sorted((hop.link_id, hop.a, hop.b) for hop in hops)
    return hashlib.sha256(msgspec.json.encode([name, nodes, edges])).hexdigest()


def connected_parts(
    nodes: Iterable[SiteId], edges: Iterable[tuple[SiteId, SiteId]]
) -> tuple[frozenset[SiteId], ...]:
    """Return the connected parts of a graph, largest first; every edge ends at one of ``nodes``."""
    neighbours: dict[SiteId, list[SiteId]] = {node: [] for node in nodes}
    for a, b in edges:
        neighbours[a].append(b)
        neighbours[b].append(a)
    seen: set[SiteId] = set()
    parts = [_reach(node, neighbours, seen) for node in neighbours if node not in seen]
    return tuple(sorted(parts, key=len, reverse=True))


def _reach(start: SiteId, neighbours: dict[SiteId, list[SiteId]], seen: set[SiteId]) -> frozenset[SiteId]:
    part, frontier = {start}, [start]
    while frontier:
        fresh = [node for node in neighbours[frontier.pop()] if node not in part]
        part.update(fresh)
        frontier.extend(fresh)
    seen |= part
    return frozenset(part)


def _inconsistencies(network: Network) -> Iterator[str]:
    for key, hop in network.hops.items():
        if key != hop.link_id:
            yield f"hop {hop.link_id} is filed under {key}"
        for end in (hop.a, hop.b):
            if end not in network.sites:
                yield f"hop {key} ends at {end}, which is not a site"
        if hop.device not in network.devices:
            yield f"hop {key} has device {hop.device}, which is not defined"
        elif all(end in network.sites for end in (hop.a, hop.b)):
            domains = {network.sites[end].domain for end in (hop.a, hop.b)}
            if len(domains) > 1:
                yield f"hop {key} joins the domains {' and '.join(sorted(domains))} without a border node"
    for border in network.borders:
        for end in (border.node, border.partner):
            if end not in network.sites:
                yield f"border {border.node} has {end}, which is not a site"
    for site_id, site in network.sites.items():
        if site_id != site.site_id:
            yield f"site {site.site_id} is filed under {site_id}"
    for sae_id, sae in network.saes.items():
        if sae.site not in network.sites:
            yield f"SAE {sae_id} is at {sae.site}, which is not a site"
    for flow in network.flows:
        for sae_id in (flow.master, flow.slave):
            if sae_id not in network.saes:
                yield f"flow {flow.master} to {flow.slave} names {sae_id}, which is not an SAE"
    if network.digest != network_digest(network.name, network.sites.values(), network.hops.values()):
        yield "the digest is not that of these sites and hops"
