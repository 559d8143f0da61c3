"""What a route must keep to: the wishes of an application, an operator or a ministry, as data.

A policy speaks of nodes and links *between* the two ends. The ends themselves are exempt: who asks for a key
from Berlin trusts Berlin. What is not known of a node counts against it, because a policy that cannot be
checked is not kept.

>>> policy = RoutePolicy(avoid_countries=frozenset({"DE"}))
>>> policy.refuses_node(NodeFacts(SiteId("de-berlin"), country="DE"))
'avoided: country DE'
>>> policy.refuses_node(NodeFacts(SiteId("x")))
'avoided: its country is not known'
"""

from collections.abc import Collection

import msgspec

from openqci.core.identifiers import DomainId, LinkId, SiteId

HOPS_BOUND_MAX = 256
"""No relay crosses more hops (``openqci.relay.messages.HOPS_MAX``)."""


class NodeFacts(msgspec.Struct, frozen=True):
    """What a controller knows of a node. ``trust`` is the class that its operator vouches for, 0 for none."""

    site_id: SiteId
    country: str = ""
    domain: DomainId = DomainId("")
    operator: str = ""
    trust: int = 0


class LinkFacts(msgspec.Struct, frozen=True):
    """What a controller knows of a hop beside its ends.

    ``parent_link`` is the link of the map that it is a span of. ``computational`` marks a hop whose key is
    not quantum key: agreed by ML-KEM alone, say.
    """

    link_id: LinkId
    parent_link: str = ""
    computational: bool = False


class RoutePolicy(msgspec.Struct, frozen=True):
    """Conditions on routes; the default lets everything pass but hops of computational key.

    ``avoid_links`` names hops or the links that they are spans of. ``node_disjoint`` says what several routes
    may share: nothing but the ends, or nodes but no link. ``hops_max`` holds for each route, ``epsilon_max``
    for the sum over all hops of all routes, since a key of several shares is as good as their union bound.
    """

    avoid_countries: frozenset[str] = frozenset()
    avoid_domains: frozenset[str] = frozenset()
    avoid_operators: frozenset[str] = frozenset()
    avoid_sites: frozenset[str] = frozenset()
    avoid_links: frozenset[str] = frozenset()
    node_disjoint: bool = True
    hops_max: int | None = None
    epsilon_max: float | None = None
    trust_min: int = 0
    computational: bool = False

    def refuses_node(self, node: NodeFacts) -> str | None:
        """Return why no route may pass through a node, None if it may."""
        if node.site_id in self.avoid_sites:
            return f"avoided: site {node.site_id}"
        for what, name, avoided in (
            ("country", node.country, self.avoid_countries),
            ("domain", node.domain, self.avoid_domains),
            ("operator", node.operator, self.avoid_operators),
        ):
            if avoided and (reason := _avoided(what, name, avoided)):
                return reason
        if node.trust < self.trust_min:
            return f"trust class {node.trust}, at least {self.trust_min} is asked for"
        return None

    def refuses_link(self, link: LinkFacts) -> str | None:
        """Return why no route may use a hop, None if it may."""
        if link.link_id in self.avoid_links:
            return f"avoided: link {link.link_id}"
        if link.parent_link and link.parent_link in self.avoid_links:
            return f"avoided: link {link.parent_link}"
        if link.computational and not self.computational:
            return "its key is computational, and only quantum key is asked for"
        return None

    @property
    def names_places(self) -> bool:
        """Whether any node or link can be refused at all; most policies name none."""
        return self.names_more_than_sites or any((self.avoid_sites, self.avoid_links))

    @property
    def names_more_than_sites(self) -> bool:
        """Whether a node can be refused for what is known of it, and not by its name alone."""
        avoids = self.avoid_countries, self.avoid_domains, self.avoid_operators
        return any(avoids) or self.trust_min > 0

    @property
    def bounded(self) -> bool:
        """Whether the length of routes is bounded, in hops or in epsilon."""
        return self.hops_max is not None or self.epsilon_max is not None


def _avoided(what: str, name: str, avoided: Collection[str]) -> str | None:
    if not name:
        return f"avoided: its {what} is not known"
    return f"avoided: {what} {name}" if name in avoided else None


ANY_ROUTE = RoutePolicy()
"""No condition but the safe defaults."""
