"""What a domain's controller tells its nodes: signed, versioned, and enough to go on without it (I8).

A *domain configuration* is one document for all KMEs of a domain: who is there and serves which applications,
which QKD links join them and what these are good for, which pairs are admitted to how much, where the domain
ends and what lies beyond. A node checks the controller's signature, takes no version older than the one it
has, and keeps the document in its store; from then on it finds routes and keeps stocks from that alone, for
as long as it takes. It holds no key and no key IDs.

>>> configuration = DomainConfiguration("AT", 1, 0.0, nodes=(Node("kme-a"), Node("kme-b")),
...                                     links=(Link("a--b", "kme-a", "kme-b"),))
>>> configuration.faults()
()
"""

from collections.abc import Iterable, Iterator

import msgspec

from openqci.core.errors import ConfigurationError, PeerMisbehaved
from openqci.core.identifiers import KmeId, SaeId
from openqci.crypto.signatures import SigningKey, VerifyingKey
from openqci.keystore.ports import KmeView

LABEL = "openqci domain configuration v1"
KIND, NAME = "domain-configuration", "current"
DOCUMENT_BYTES_MAX = 16 * 1024 * 1024
"""Some ten thousand nodes: the largest national network has a few hundred."""


class Node(msgspec.Struct, frozen=True, omit_defaults=True):
    """One KME of the domain.

    ``trust`` is how well its site is protected, as the operator judges it: 0 is the least. ``kem_public_key``
    is the key that end-to-end hybrid keys are encapsulated to, if the node has told it to the controller.
    """

    kme_id: str
    site: str = ""
    country: str = ""
    operator: str = ""
    trust: int = 1
    saes: tuple[str, ...] = ()
    kem_key_id: str = ""
    kem_public_key: bytes = b""


class Link(msgspec.Struct, frozen=True, omit_defaults=True):
    """One QKD link between two KMEs. ``rate_bps`` is what it brings of secret key, both directions together.

    ``usable`` is False for a link that no relay may use now: cut, resting, or under suspicion. ``protocol``,
    ``proof``, ``epsilon`` and ``simulated`` go into the provenance of keys that are relayed over it: a link
    counts as simulated until somebody says that it is not (invariant I7).
    """

    link_id: str
    a: str
    b: str
    rate_bps: float = 0.0
    epsilon: float = 1e-9
    usable: bool = True
    protocol: str = "unknown"
    proof: str = "not told"
    simulated: bool = True


class Pair(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a master and a slave are admitted to. 0 ``rate_bps`` is: no more than the others leave.

    ``hybrid`` is "quantum", "both" or "either"; ``avoid`` names countries, operators and KMEs as
    ``country:XX``, ``operator:NAME``, ``kme:ID``.
    """

    master: str
    slave: str
    rate_bps: float = 0.0
    priority: int = 3
    low_keys: int = 64
    high_keys: int = 512
    ttl_s: float = 3_600.0
    paths: int = 1
    hybrid: str = "both"
    hops_max: int = 256
    avoid: tuple[str, ...] = ()


class Border(msgspec.Struct, frozen=True, omit_defaults=True):
    """A KME of this domain that hands key over to a KME of another in the same site (ETSI GS QKD 020)."""

    kme_id: str
    partner_domain: str
    partner_kme: str


class Reach(msgspec.Struct, frozen=True, omit_defaults=True):
    """Applications of another domain, and the borders that lead there, the preferred one first.

    ``via`` are the next domains on the way, the preferred one first; without it a border leads to wherever
    its partners are.
    """

    domain: str
    borders: tuple[str, ...]
    saes: tuple[str, ...] = ()
    via: tuple[str, ...] = ()


class DomainConfiguration(msgspec.Struct, frozen=True, omit_defaults=True):
    """The whole document. ``version`` grows by every change; times are Unix times in seconds."""

    domain: str
    version: int
    issued_s: float
    nodes: tuple[Node, ...] = ()
    links: tuple[Link, ...] = ()
    pairs: tuple[Pair, ...] = ()
    borders: tuple[Border, ...] = ()
    reaches: tuple[Reach, ...] = ()

    def faults(self) -> tuple[str, ...]:
        """Return what is wrong with the document, one sentence each; a sound one has none."""
        return tuple(_faults(self))

    def kme_of(self, sae: SaeId) -> KmeId | None:
        """Return the KME of this domain that serves an application, or None."""
        return next((KmeId(node.kme_id) for node in self.nodes if sae in node.saes), None)

    def reach_of(self, sae: SaeId) -> Reach | None:
        """Return how an application of another domain is reached, or None."""
        return next((reach for reach in self.reaches if sae in reach.saes), None)

    def node(self, kme: KmeId) -> Node | None:
        """Return what is known of a KME, or None."""
        return next((node for node in self.nodes if node.kme_id == kme), None)


class SignedConfiguration(msgspec.Struct, frozen=True):
    """A document as it was signed, byte for byte, with its signature."""

    document: bytes
    signature: bytes


def sign(configuration: DomainConfiguration, key: SigningKey) -> bytes:
    """Return the signed document, as JSON. ConfigurationError if it contradicts itself."""
    faults = configuration.faults()
    if faults:
        raise ConfigurationError(*faults)
    document = msgspec.json.encode(configuration)
    return msgspec.json.encode(SignedConfiguration(document, key.sign(LABEL, document)))


def verify(text: bytes, key: VerifyingKey) -> DomainConfiguration:
    """Return a signed document's content; PeerMisbehaved if it is not the controller's, or unsound."""
    if len(text) > DOCUMENT_BYTES_MAX:
        raise PeerMisbehaved(f"a domain configuration has {len(text)} bytes, at most {DOCUMENT_BYTES_MAX}")
    try:
        signed = msgspec.json.decode(text, type=SignedConfiguration)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerMisbehaved(f"a domain configuration cannot be read: {error}") from None
    if not key.is_genuine(LABEL, signed.document, signed.signature):
        raise PeerMisbehaved("a domain configuration is not signed by this domain's controller")
    try:
        configuration = msgspec.json.decode(signed.document, type=DomainConfiguration)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerMisbehaved(f"a domain configuration cannot be read: {error}") from None
    faults = configuration.faults()
    if faults:
        raise PeerMisbehaved("a domain configuration contradicts itself: " + "; ".join(faults[:5]))
    return configuration


def accept(view: KmeView, configuration: DomainConfiguration) -> bool:
    """Keep a verified document in the node's store; False if it is the one that is there already.

    PeerMisbehaved if it is older than what the node has, or another document of the same version: an old
    configuration that is played back would bring back links and partners that were taken away.
    """
    known = current(view)
    if known is not None and known.domain != configuration.domain:
        raise PeerMisbehaved(f"the configuration is of domain {configuration.domain}, not {known.domain}")
    if known is not None and configuration.version <= known.version:
        if configuration == known:
            return False
        raise PeerMisbehaved(
            f"the configuration has version {configuration.version}; this node has version {known.version} "
            "already, and takes only later ones"
        )
    if all(node.kme_id != view.kme for node in configuration.nodes):
        raise PeerMisbehaved(f"{view.kme} is no node of domain {configuration.domain}")
    view.put_record(KIND, NAME, msgspec.json.encode(configuration))
    return True


def current(view: KmeView) -> DomainConfiguration | None:
    """Return the configuration that the node goes by, or None if it has had none yet."""
    body = view.record(KIND, NAME)
    return msgspec.json.decode(body, type=DomainConfiguration) if body is not None else None


def _faults(configuration: DomainConfiguration) -> Iterator[str]:
    kmes = {node.kme_id for node in configuration.nodes}
    if configuration.version < 1:
        yield f"version: {configuration.version} is none; expected 1 or more"
    yield from _twice("nodes", (node.kme_id for node in configuration.nodes))
    yield from _twice("links", (link.link_id for link in configuration.links))
    served = [sae for node in configuration.nodes for sae in node.saes]
    yield from _twice("saes", (*served, *(sae for reach in configuration.reaches for sae in reach.saes)))
    for link in configuration.links:
        for end in (link.a, link.b):
            if end not in kmes:
                yield f"links: {link.link_id} ends at {end!r}, which is no node"
        if link.a == link.b:
            yield f"links: {link.link_id} joins {link.a!r} with itself"
        if "/" in link.link_id:
            yield f"links: {link.link_id!r} has a slash"
    for border in configuration.borders:
        if border.kme_id not in kmes:
            yield f"borders: {border.kme_id!r} is no node"
    gates = {border.kme_id for border in configuration.borders}
    for reach in configuration.reaches:
        for kme in reach.borders:
            if kme not in gates:
                yield f"reaches: {reach.domain} by {kme!r}, which is no border"
    for pair in configuration.pairs:
        name = f"pairs: {pair.master} to {pair.slave}"
        if pair.hybrid not in ("quantum", "both", "either"):
            yield f"{name}: hybrid {pair.hybrid!r}; expected quantum, both, either"
        if pair.low_keys > pair.high_keys or pair.low_keys < 1:
            yield f"{name}: low_keys above high_keys, or none"


def _twice(place: str, names: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            yield f"{place}: {name!r} occurs more than once"
        seen.add(name)
