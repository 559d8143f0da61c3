"""What domains tell the European orchestrator, and what it tells them: offers and tables, both signed.

An *offer* is all that a domain says of itself: which applications it serves, which domains it borders on,
what it would carry for others, how well, at what price. Nothing of its interior: no site, no link, no KME.
A *table* is what the orchestrator makes of the offers for one domain: for every other domain, up to a few
ways over domains that have nothing but their ends in common, and the applications that are there.

Both carry a version that only grows; an offer has an end, a table has none: a domain goes by its last one
when the orchestrator is gone (invariant I8).
"""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import msgspec

from openqci.core.errors import ConfigurationError, PeerMisbehaved
from openqci.crypto.signatures import SigningKey, VerifyingKey

OFFER_LABEL, TABLE_LABEL = "openqci domain offer v1", "openqci domain ways v1"
OFFER_BYTES_MAX = 4 * 1024 * 1024
TABLE_BYTES_MAX = 64 * 1024 * 1024
BORDERS_MAX, SAES_MAX = 256, 100_000
CROSSINGS_MAX = BORDERS_MAX * (BORDERS_MAX - 1)
PRICE_MAX = 1e6

Document = TypeVar("Document", bound=msgspec.Struct)


class BorderOffer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A domain that is bordered on, and how much key may be handed over there, in bit/s."""

    domain: str
    rate_bps: float


class Gate(msgspec.Struct, frozen=True):
    """A border and the two nodes that stand there in one site: this domain's, and that of the other."""

    border: str
    node: str
    partner: str
    domain: str


class Crossing(msgspec.Struct, frozen=True):
    """What it costs to carry key from one gate of the domain to another, in hops that are in good order."""

    entrance: str
    exit: str
    cost: float


class DomainOffer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one domain offers until ``expires_s``.

    ``transit_bps`` is what it carries from border to border for others, 0 for nothing; ``trust`` the class
    that its operator vouches for, ``epsilon`` what its way adds to a key's, ``price_eur_per_mib`` what it
    asks. ``countries`` are those in which its nodes stand. A domain that wants its borders to be told apart
    names them as ``gates``, with the ``crossings`` that it offers between them.
    """

    domain: str
    version: int
    issued_s: float
    expires_s: float
    countries: tuple[str, ...] = ()
    operator: str = ""
    trust: int = 0
    saes: tuple[str, ...] = ()
    borders: tuple[BorderOffer, ...] = ()
    transit_bps: float = 0.0
    epsilon: float = 0.0
    price_eur_per_mib: float = 0.0
    gates: tuple[Gate, ...] = ()
    crossings: tuple[Crossing, ...] = ()

    def faults(self) -> tuple[str, ...]:
        """Return what is wrong with the offer, one sentence each; a sound one has none."""
        return tuple(_offer_faults(self))


class DomainWay(msgspec.Struct, frozen=True, omit_defaults=True):
    """One way over domains, from the first to the last: what it brings, how well, and at what price."""

    domains: tuple[str, ...]
    rate_bps: float
    trust: int
    epsilon: float
    price_eur_per_mib: float


class Destination(msgspec.Struct, frozen=True, omit_defaults=True):
    """Another domain: the ways that lead there, the preferred one first, and its applications."""

    domain: str
    ways: tuple[DomainWay, ...]
    saes: tuple[str, ...] = ()


class WayTable(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the orchestrator tells one domain."""

    domain: str
    version: int
    issued_s: float
    destinations: tuple[Destination, ...] = ()


class _Signed(msgspec.Struct, frozen=True):
    """A document as it was signed, byte for byte, with its signature."""

    document: bytes
    signature: bytes


def sign_offer(offer: DomainOffer, key: SigningKey) -> bytes:
    """Return the signed offer, as JSON. ConfigurationError if it contradicts itself."""
    faults = offer.faults()
    if faults:
        raise ConfigurationError(*faults)
    return _signed(offer, key, OFFER_LABEL)


def verify_offer(text: bytes, keys: "dict[str, VerifyingKey]") -> DomainOffer:
    """Return an offer that its domain has signed; PeerMisbehaved for anything else."""
    signed = _read(text, _Signed, OFFER_BYTES_MAX)
    offer = _read(signed.document, DomainOffer, OFFER_BYTES_MAX)
    key = keys.get(offer.domain)
    if key is None or not key.is_genuine(OFFER_LABEL, signed.document, signed.signature):
        raise PeerMisbehaved(f"the offer is not signed by a domain {offer.domain[:64]!r} that takes part")
    faults = offer.faults()
    if faults:
        raise PeerMisbehaved(f"the offer of {offer.domain} is unsound: " + "; ".join(faults[:5]))
    return offer


def sign_table(table: WayTable, key: SigningKey) -> bytes:
    """Return the signed table, as JSON."""
    return _signed(table, key, TABLE_LABEL)


def verify_table(text: bytes, key: VerifyingKey, domain: str) -> WayTable:
    """Return a table that the orchestrator has signed for a domain; PeerMisbehaved for anything else."""
    signed = _read(text, _Signed, TABLE_BYTES_MAX)
    if not key.is_genuine(TABLE_LABEL, signed.document, signed.signature):
        raise PeerMisbehaved("the table of ways is not signed by the orchestrator")
    table = _read(signed.document, WayTable, TABLE_BYTES_MAX)
    if table.domain != domain:
        raise PeerMisbehaved(f"the table of ways is for domain {table.domain[:64]!r}, not {domain}")
    for destination in table.destinations:
        for way in destination.ways:
            if len(way.domains) < 2 or (way.domains[0], way.domains[-1]) != (domain, destination.domain):
                wrong = f"a way of the table does not lead from {domain} to {destination.domain}"
                raise PeerMisbehaved(wrong)
    return table


def _signed(document: msgspec.Struct, key: SigningKey, label: str) -> bytes:
    text = msgspec.json.encode(document)
    return msgspec.json.encode(_Signed(text, key.sign(label, text)))


def _read(text: bytes, kind: type[Document], bytes_max: int) -> Document:
    if len(text) > bytes_max:
        raise PeerMisbehaved(f"a document has {len(text)} bytes, at most {bytes_max} are allowed")
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerMisbehaved(f"a {kind.__name__.strip('_')} cannot be read: {error}") from None


def _offer_faults(offer: DomainOffer) -> Iterator[str]:
    if not offer.domain or "/" in offer.domain or len(offer.domain) > 64:
        yield "domain: expected a name of 1 to 64 characters without a slash"
    if offer.version < 1:
        yield f"version: {offer.version} is none; expected 1 or more"
    if not offer.issued_s < offer.expires_s:
        yield "expires_s: is not after issued_s"
    if len(offer.borders) > BORDERS_MAX or len(offer.saes) > SAES_MAX:
        yield f"borders, saes: expected at most {BORDERS_MAX} and {SAES_MAX}"
    yield from _twice("borders", (border.domain for border in offer.borders))
    yield from _twice("saes", offer.saes)
    if any(border.domain == offer.domain for border in offer.borders):
        yield "borders: a domain does not border on itself"
    yield from _gate_faults(offer)
    quantities = (offer.transit_bps, offer.epsilon, *(border.rate_bps for border in offer.borders))
    if not all(0 <= each < 1e18 for each in quantities) or not 0 <= offer.price_eur_per_mib <= PRICE_MAX:
        yield "rates, epsilon and price: expected numbers of zero or more"


def _gate_faults(offer: DomainOffer) -> Iterator[str]:
    if len(offer.gates) > BORDERS_MAX or len(offer.crossings) > CROSSINGS_MAX:
        yield f"gates, crossings: expected at most {BORDERS_MAX} and {CROSSINGS_MAX}"
    yield from _twice("gates", (gate.border for gate in offer.gates))
    neighbours = {border.domain for border in offer.borders}
    for gate in offer.gates:
        if gate.domain not in neighbours:
            yield f"gates: {gate.node} leads to {gate.domain!r}, which is none of the borders"
    nodes = {gate.node for gate in offer.gates}
    yield from _twice("crossings", (f"{each.entrance} to {each.exit}" for each in offer.crossings))
    for crossing in offer.crossings:
        if not {crossing.entrance, crossing.exit} <= nodes or crossing.entrance == crossing.exit:
            yield f"crossings: {crossing.entrance} to {crossing.exit} does not lead from gate to gate"
        if not 0 <= crossing.cost < 1e6:
            yield f"crossings: cost {crossing.cost}; expected 0 or more"


def _twice(place: str, names: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            yield f"{place}: {name!r} occurs more than once"
        seen.add(name)
