"""Names of the things of a QKD network, each a type of its own so that they cannot be mixed up."""

from typing import NewType

BORDER_MARK = "|"

SiteId = NewType("SiteId", str)
"""A place on the map: ``pt-lisbon``, or ``es-madrid--pt-lisbon.tn3`` for a trusted node on a long link."""

KmeId = NewType("KmeId", str)
"""A key management entity; one per site: ``kme-pt-lisbon``."""

SaeId = NewType("SaeId", str)
"""A secure application entity: 1 to 64 characters of the RFC 3986 set (ETSI GS QKD 020 rule)."""

DomainId = NewType("DomainId", str)
"""One operator's network, here one per member state: ``PT``."""

LinkId = NewType("LinkId", str)
"""A QKD hop between two neighbouring nodes: ``ogs-alentejo--pt-evora`` or ``a--b.2`` for the second span."""

KeyId = NewType("KeyId", str)
"""The UUID under which an application knows a key (ETSI GS QKD 014)."""

StreamId = NewType("StreamId", str)
"""A key stream inside one KME's store, addressed by byte offset."""


def kme_of_site(site_id: SiteId) -> KmeId:
    """Return the KME that serves a site: there is exactly one."""
    return KmeId(f"kme-{site_id}")


def link_stream(link_id: LinkId, initiator: SiteId) -> StreamId:
    """Return the stream of link key that only ``initiator`` may begin to spend.

    Both ends hold the same bytes at the same offsets. Splitting a link's key by initiator is what keeps
    the two ends from choosing the same bytes at the same moment (invariant I1).
    """
    return StreamId(f"link/{link_id}/{initiator}")


def authentication_stream(link_id: LinkId) -> StreamId:
    """Return the stream that holds the authentication key of a link's classical channel."""
    return StreamId(f"auth/{link_id}")


def border_link(node: SiteId, partner: SiteId) -> LinkId:
    """Return the name under which routes know a border: two KMEs of two domains in one protected site.

    No QKD link has a bar in its name.

    >>> border_link(SiteId("sk-bratislava.at"), SiteId("sk-bratislava"))
    'sk-bratislava.at|sk-bratislava'
    """
    return LinkId(f"{node}{BORDER_MARK}{partner}")


def is_border(link_id: str) -> bool:
    """Tell whether a link of a route is a border, where key is handed over, and no QKD link."""
    return BORDER_MARK in link_id
