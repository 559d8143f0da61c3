"""From links to hops: a link longer than one span gets trusted nodes at equal distances.

A link is what an operator has between two towns; a hop is what one pair of QKD modules bridges. The nodes
made here lie on the great circle between the towns, the fibre does not: lengths come from the fibre,
places from the map. Submarine links stay whole, there is no place for a trusted node on the sea bed.
"""

import math
from collections.abc import Iterable

import msgspec

from openqci.core.identifiers import LinkId, SiteId
from openqci.network.model import Border, Hop, Site

COORDINATE_DECIMALS = 5
"""About one metre; also hides the last bits in which machines differ."""


class Link(msgspec.Struct, frozen=True):
    """A fibre between two sites, as a scenario or the catalogue names it.

    ``device`` and ``attenuation_db_per_km`` override the scenario's; ``medium`` is terrestrial or submarine.
    """

    link_id: LinkId
    a: SiteId
    b: SiteId
    link_type: str
    fibre_km: float
    medium: str = "terrestrial"
    device: str | None = None
    attenuation_db_per_km: float | None = None


class SpanRule(msgspec.Struct, frozen=True):
    """How links become hops: longest span, loss of a hop, and which device goes where."""

    span_km_max: float
    attenuation_db_per_km: float
    connector_loss_db: float
    device: str
    device_beyond_span: str


def spans(link: Link, rule: SpanRule) -> int:
    """Return how many hops a link needs.

    >>> rule = SpanRule(80.0, 0.2, 1.0, "dv-metro", "dv-snspd")
    >>> [spans(Link("l", "a", "b", "national", km), rule) for km in (80.0, 80.1, 240.0)]
    [1, 2, 3]
    >>> spans(Link("l", "a", "b", "national", 140.0, medium="submarine"), rule)
    1
    """
    return 1 if link.medium == "submarine" else max(1, math.ceil(link.fibre_km / rule.span_km_max))


def expand(link: Link, a: Site, b: Site, rule: SpanRule) -> tuple[list[Site], list[Hop]]:
    """Return the trusted nodes that a link needs, from ``a`` to ``b``, and its hops in the same order.

    Hop lengths are equal and sum to ``fibre_km``. A link of one span keeps its id for its hop; else nodes are
    ``<link>.tn1`` and on, hops ``<link>.1`` and on. Nodes up to the middle belong to the domain of ``a``.
    """
    count = spans(link, rule)
    nodes = [_trusted_node(link, a, b, number, count) for number in range(1, count)]
    ends = [a.site_id, *(node.site_id for node in nodes), b.site_id]
    hops = [_hop(link, ends[i], ends[i + 1], i + 1, count, rule) for i in range(count)]
    return nodes, hops


def border_nodes(
    sites: dict[SiteId, Site], hops: Iterable[Hop]
) -> tuple[list[Hop], list[Site], list[Border]]:
    """End every hop between two domains at a border node: return the hops, the new nodes and the borders.

    A hop across a border is built and run by the domain of its end ``a``: its other module, and a KME of that
    domain, stand in the site at ``b`` of the other, and key passes between the two KMEs there by ETSI GS QKD
    020, whose scope is two KMEs in one protected site. Hops of one domain into one site share its KME.
    """
    ended: list[Hop] = []
    nodes: dict[SiteId, Site] = {}
    borders: dict[SiteId, Border] = {}
    for hop in hops:
        a, b = sites[hop.a], sites[hop.b]
        if a.domain == b.domain:
            ended.append(hop)
            continue
        node = border_node(a, b)
        nodes[node.site_id] = node
        borders[node.site_id] = Border(node.site_id, b.site_id)
        ended.append(msgspec.structs.replace(hop, b=node.site_id))
    return ended, list(nodes.values()), list(borders.values())


def border_node(a: Site, b: Site) -> Site:
    """Return the node that the domain of ``a`` has in the site ``b`` of another."""
    return Site(
        site_id=SiteId(f"{b.site_id}.{a.domain.lower()}"),
        name=f"Border node of {a.domain} in {b.name}",
        kind="border_node",
        country=b.country,
        domain=a.domain,
        lat=b.lat,
        lon=b.lon,
        source="border rule",
        generated=True,
        operator=a.operator,
        trust=b.trust,
    )


def _trusted_node(link: Link, a: Site, b: Site, number: int, count: int) -> Site:
    lat, lon = point_between(a.lat, a.lon, b.lat, b.lon, number / count)
    side = a if 2 * number <= count else b
    return Site(
        site_id=SiteId(f"{link.link_id}.tn{number}"),
        name=f"Trusted node {number} of {count - 1}, {a.name} to {b.name}",
        kind="trusted_node",
        country=side.country,
        domain=side.domain,
        lat=lat,
        lon=lon,
        source="span rule",
        generated=True,
        operator=side.operator,
        trust=side.trust,
    )


def _hop(link: Link, a: SiteId, b: SiteId, number: int, count: int, rule: SpanRule) -> Hop:
    length_km = link.fibre_km / count
    attenuation = link.attenuation_db_per_km
    attenuation = rule.attenuation_db_per_km if attenuation is None else attenuation
    usual = rule.device if length_km <= rule.span_km_max else rule.device_beyond_span
    return Hop(
        link_id=link.link_id if count == 1 else LinkId(f"{link.link_id}.{number}"),
        a=a,
        b=b,
        length_km=length_km,
        loss_db=attenuation * length_km + rule.connector_loss_db,
        device=link.device or usual,
        link_type=link.link_type,
        parent_link=link.link_id,
    )


def point_between(lat_a: float, lon_a: float, lat_b: float, lon_b: float, part: float) -> tuple[float, float]:
    """Return latitude and longitude (degrees) of the point at ``part`` (0 to 1) of the great circle.

    Spherical linear interpolation of the two unit vectors (K. Shoemake, SIGGRAPH 1985). For equal points,
    and for antipodes, which no single great circle joins, the result is the first point.

    >>> point_between(0.0, 0.0, 0.0, 90.0, 0.5)
    (0.0, 45.0)
    >>> point_between(10.0, 170.0, 10.0, -170.0, 0.5)[1]
    180.0
    """
    va, vb = _unit_vector(lat_a, lon_a), _unit_vector(lat_b, lon_b)
    # |a - b| = 2 sin(angle/2) and |a + b| = 2 cos(angle/2): exact for close and for far points alike.
    angle = 2 * math.atan2(math.dist(va, vb), math.hypot(*(p + q for p, q in zip(va, vb, strict=True))))
    if math.sin(angle) < 1e-12:
        return round(lat_a, COORDINATE_DECIMALS), round(lon_a, COORDINATE_DECIMALS)
    weight_a, weight_b = math.sin((1 - part) * angle), math.sin(part * angle)
    x, y, z = (weight_a * p + weight_b * q for p, q in zip(va, vb, strict=True))
    lat, lon = math.degrees(math.atan2(z, math.hypot(x, y))), math.degrees(math.atan2(y, x))
    return round(lat, COORDINATE_DECIMALS), round(lon, COORDINATE_DECIMALS)


def _unit_vector(lat: float, lon: float) -> tuple[float, float, float]:
    phi, lam = math.radians(lat), math.radians(lon)
    return math.cos(phi) * math.cos(lam), math.cos(phi) * math.sin(lam), math.sin(phi)
