"""What an end-to-end key knows about its own making, without any key material (invariant I7)."""

import msgspec

from openqci.core.identifiers import is_border


class LinkPass(msgspec.Struct, frozen=True):
    """A pass in which link key of a path was made: which satellite over which station, and how long ago.

    ``ended_utc`` is ISO 8601; ``age_s`` is the age of the link key when the end-to-end key was made of it.
    """

    satellite: str
    station: str
    ended_utc: str
    age_s: float


class KeyPath(msgspec.Struct, frozen=True, omit_defaults=True):
    """One way that a share of a key came by.

    ``via`` are nodes that knew the share beside those of the route: those behind a link that was made by XOR.
    ``bridged`` are the links that it crossed under ML-KEM and AES instead of a one-time pad. Among ``links``
    are the borders between domains, where the nodes before and behind stand in one protected site.
    ``passes`` are those of satellites that its link key is from.
    """

    route: tuple[str, ...]
    links: tuple[str, ...]
    form: str
    epsilon: float
    via: tuple[str, ...] = ()
    bridged: tuple[str, ...] = ()
    passes: tuple[LinkPass, ...] = ()

    @property
    def qkd_links(self) -> tuple[str, ...]:
        """The QKD links of it: all but the borders, at which key passes inside a site."""
        return tuple(link for link in self.links if not is_border(link))

    @property
    def borders(self) -> tuple[str, ...]:
        """The borders that it crossed, in order."""
        return tuple(link for link in self.links if is_border(link))

    @property
    def interior(self) -> frozenset[str]:
        """The nodes beside the two ends that knew the share."""
        return frozenset(self.route[1:-1] + self.via)


class Provenance(msgspec.Struct, frozen=True):
    """Where an end-to-end key came from.

    ``route`` and ``links`` are those of the first way, or of the only one, ``hops`` its QKD links.
    ``epsilon`` is the sum of the composable security parameters of all link keys spent: the union bound over
    hops and ways.
    ``form`` is the relay form of ITU-T Y.3803 that was used, of several ways the weakest.

    A key of several ways has them in ``paths``, no node between the ends in two of them. Of these shares
    ``threshold`` make the key, and fewer tell nothing of it. ``hybrid`` are the algorithms that the key
    rests on beside quantum links, either being enough. ``computational`` says that some hop was crossed
    without a one-time pad. ``domains`` are the domains crossed.
    """

    route: tuple[str, ...]
    links: tuple[str, ...]
    hops: int
    protocols: tuple[str, ...]
    proofs: tuple[str, ...]
    epsilon: float
    form: str
    simulated: bool
    made_at_s: float
    paths: tuple[KeyPath, ...] = ()
    threshold: int = 1
    hybrid: tuple[str, ...] = ()
    computational: bool = False
    domains: tuple[str, ...] = ()

    @property
    def ways(self) -> tuple[KeyPath, ...]:
        """All ways, also if there was one only."""
        return self.paths or (KeyPath(self.route, self.links, self.form, self.epsilon),)

    @property
    def touched(self) -> frozenset[str]:
        """Every site, link and domain that had to do with the key."""
        names = [name for way in self.ways for name in (*way.route, *way.links, *way.via)]
        return frozenset([*names, *self.domains])

    @property
    def hops_max(self) -> int:
        """Number of hops of the longest way."""
        return max(len(way.qkd_links) for way in self.ways)
