"""The legs of a share's way: what lies between two borders, each a relay inside one domain.

At a border key passes between two KMEs in one protected site (ETSI GS QKD 020), so that the way of a share
is cut there: a relay ends at one KME of the border, and a *carried* one begins at the other. All legs have
the relay ID and the purpose of the whole; each is what its own nodes see under their MACs, and no more.

>>> relay = RelayOrder("", ("a", "b.x", "b", "c"), ("a--b", "b.x|b", "b--c"), 32)
>>> [(leg.route, leg.links, leg.carried) for leg in legs_of(relay)]
[(('a', 'b.x'), ('a--b',), False), (('b', 'c'), ('b--c',), True)]
"""

from collections.abc import Iterator

import msgspec

from openqci.core.errors import PeerMisbehaved
from openqci.core.identifiers import is_border
from openqci.relay import RelayForm, RelayOrder


def legs_of(relay: RelayOrder) -> tuple[RelayOrder, ...]:
    """Return the legs of a share's whole way, in order; one has no link where two borders meet in a site.

    The first leg that has links is the relay's own: what it brings is link key unless the whole is carried.
    Every leg behind it carries what came over the border.
    """
    return tuple(_legs(relay))


def leg_at(relay: RelayOrder, site: str) -> RelayOrder:
    """Return the leg that begins at a site; PeerMisbehaved if none does."""
    for leg in legs_of(relay):
        if leg.route[0] == site:
            return leg
    raise PeerMisbehaved(f"relay {relay.relay_id}: no leg of its way begins at {site}")


def _legs(relay: RelayOrder) -> Iterator[RelayOrder]:
    starts = [0, *(at + 1 for at, link in enumerate(relay.links) if is_border(link))]
    ends = [*(start - 1 for start in starts[1:]), len(relay.links)]
    carried = relay.carried
    for start, end in zip(starts, ends, strict=True):
        bridged = tuple(at - start for at in relay.bridged if start <= at < end)
        yield msgspec.structs.replace(
            relay,
            route=relay.route[start : end + 1],
            links=relay.links[start:end],
            form=RelayForm.HOP if relay.bridged and not bridged else relay.form,
            carried=carried,
            bridged=bridged,
        )
        carried = carried or end > start
