"""What has happened in a live network, in plain words and in order: for the console, status and auditors.

Events are for people: they name places, figures and reasons, and no key. The last :data:`EVENTS_KEPT` are in
memory; what an auditor needs is in the audit log as well.
"""

import time
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec

from openqci.core.identifiers import LinkId, SiteId
from openqci.network import Network, Site
from openqci.services.audit import AuditEvent, AuditLog

EVENTS_KEPT = 200
EVENTS_SHOWN = 40
"""Events in the console's figures of each second: 10 kB at most, and more than anybody reads."""


class Tone(StrEnum):
    """How an event is to be taken."""

    BAD = "bad"
    NOTE = "note"
    GOOD = "good"


class Event(msgspec.Struct, frozen=True):
    """One thing that has happened. ``links`` and ``sites`` say where, ``route`` which way keys go now."""

    number: int
    at: str
    at_s: float
    kind: str
    tone: Tone
    text: str
    links: tuple[LinkId, ...] = ()
    sites: tuple[SiteId, ...] = ()
    route: tuple[SiteId, ...] = ()


class Chronicle:
    """The events of one network since its start."""

    def __init__(self, network: Network, audit: AuditLog | None = None) -> None:
        self._network, self._audit = network, audit
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._borders = {border.link_id: border for border in network.borders}
        self._number = 0

    def note(
        self,
        kind: str,
        tone: Tone,
        text: str,
        now_s: float,
        *,
        links: Iterable[LinkId] = (),
        sites: Iterable[SiteId] = (),
        route: Iterable[SiteId] = (),
    ) -> None:
        """Add an event."""
        self._number += 1
        at = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")
        where = tuple(links), tuple(sites), tuple(route)
        self._events.append(Event(self._number, at, now_s, kind, tone, text, *where))

    def record(self, event: AuditEvent, actor: str = "", role: str = "", **facts: Any) -> None:
        """Write something down for the auditor, if this network has an audit log."""
        if self._audit is not None:
            self._audit.record(event, actor, role, **facts)

    def latest(self, count: int = EVENTS_SHOWN) -> list[dict[str, Any]]:
        """Return the last events, the newest last."""
        return [msgspec.to_builtins(event) for event in list(self._events)[-count:]]

    # Names

    def site_name(self, site_id: SiteId) -> str:
        """Return a site's name."""
        return self._network.sites[site_id].name

    def hop_name(self, link_id: LinkId) -> str:
        """Return how people call a hop: "Marijampolė – Suwałki, span 1 of 2" for a part of a long link."""
        if link_id in self._borders:
            border = self._borders[link_id]
            ends = [self._network.sites[site] for site in (border.node, border.partner)]
            return f"the border of {ends[0].domain} and {ends[1].domain} in {ends[1].name}"
        hop = self._network.hops[link_id]
        spans = [each for each in self._network.hops.values() if each.parent_link == hop.parent_link]
        met = [site for each in spans for site in (each.a, each.b)]
        # A node between two spans is an end of both.
        name = " – ".join(self._town(site) for site in met if met.count(site) == 1)
        if len(spans) == 1:
            return name
        return f"{name}, span {spans.index(hop) + 1} of {len(spans)}"

    def _town(self, site_id: SiteId) -> str:
        """Return a site's name; of a border node that of the site that it stands in."""
        homes = {border.node: border.partner for border in self._network.borders}
        return self.site_name(homes.get(site_id, site_id))

    def way_name(self, route: Iterable[SiteId]) -> str:
        """Return how people call a way: by its named nodes between the ends, a few of them."""
        sites = [self._network.sites[site] for site in route]
        return named_between(sites)


NODES_NAMED_MAX = 5


def named_between(sites: list[Site]) -> str:
    """Name the nodes of a way between its ends: generated ones stay out, of many the first and the last."""
    inner = [site.name for site in sites[1:-1] if not site.generated]
    if not inner:
        return "directly"
    if len(inner) > NODES_NAMED_MAX:
        left_out = len(inner) - NODES_NAMED_MAX
        inner = [*inner[:3], f"{left_out} more", *inner[-2:]]
    return "via " + ", ".join(inner)
