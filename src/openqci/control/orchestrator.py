"""The European orchestrator: ways over domains, from what the domains offer and nothing else.

It never sees an interior, holds no key, and stands in nobody's way: keys cross borders from KME to KME, and
without it every domain goes on by its last table (invariant I8). A border counts when both of its domains
offer it. A way costs for each domain that it crosses, more for a slow or dear one; alternatives have nothing
in common but their ends (:meth:`openqci.control.routing.Router.disjoint_routes`).

Protocol core without I/O: signed offers and times go in, tables and explanations come out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf

from openqci.control.gateways import Gateways
from openqci.control.offers import Destination, DomainOffer, DomainWay, WayTable, verify_offer
from openqci.control.routing import Route, Router
from openqci.core.errors import PeerMisbehaved
from openqci.core.identifiers import LinkId, SiteId
from openqci.crypto.signatures import VerifyingKey

ALTERNATIVES = 3
"""Ways to each domain in a table."""

PATHS_MAX = 16
PLAIN_RATE_BPS = 10_000.0
PLAIN_PRICE_EUR_PER_MIB = 1.0
SLOW_COST_MAX = 8.0
"""A domain that carries this rate at this price costs two more than one that is free and without limit."""

CLOCK_AHEAD_S_MAX = 60.0
"""An offer from further in the future was issued by a clock that is wrong."""


@dataclass(frozen=True)
class WayPolicy:
    """What ways between two domains must keep to; the ends are exempt."""

    avoid_domains: frozenset[str] = frozenset()
    avoid_countries: frozenset[str] = frozenset()
    avoid_operators: frozenset[str] = frozenset()
    trust_min: int = 0
    rate_bps_min: float = 0.0
    price_eur_per_mib_max: float = inf
    domains_max: int | None = None

    def refuses(self, offer: DomainOffer) -> str | None:
        """Return why a domain may not be crossed, None if it may."""
        avoided = self.avoid_countries & set(offer.countries)
        for wrong, reason in (
            (offer.domain in self.avoid_domains, f"avoided: domain {offer.domain}"),
            (bool(avoided), f"avoided: country {', '.join(sorted(avoided))}"),
            (bool(self.avoid_countries and not offer.countries), "avoided: its countries are not known"),
            (offer.operator in self.avoid_operators, f"avoided: operator {offer.operator}"),
            (offer.trust < self.trust_min, f"trust class {offer.trust}, at least {self.trust_min} asked for"),
            (not offer.transit_bps, "carries nothing for others"),
            (offer.transit_bps < self.rate_bps_min, f"carries {offer.transit_bps:.0f} bit/s, too little"),
        ):
            if wrong:
                return reason
        return None


ANY_WAY = WayPolicy()


@dataclass(frozen=True)
class WayAnswer:
    """Ways between two domains, and why other domains are not on any: by domain, in words."""

    ways: tuple[DomainWay, ...]
    refused: Mapping[str, str] = field(default_factory=dict)


class Orchestrator:
    """All offers that hold. ``keys`` verify the offers of the domains that take part."""

    def __init__(self, keys: Mapping[str, VerifyingKey], version: int = 0) -> None:
        self.version = version
        self.offers: dict[str, DomainOffer] = {}
        self._keys = dict(keys)
        self._tables: dict[str, WayTable] = {}
        self._stale: set[str] = set()
        self._gateways: Gateways | None = None
        self._drawn: tuple[dict[tuple[str, str], float], Router] | None = None

    def receive_offer(self, text: bytes, now_s: float) -> DomainOffer:
        """Take a domain's offer. PeerMisbehaved if it is not signed by it, older than its last, or over."""
        offer = verify_offer(text, self._keys)
        known = self.offers.get(offer.domain)
        if known is not None and offer.version < known.version:
            raise PeerMisbehaved(
                f"{offer.domain} sent offer {offer.version}; its offer {known.version} came before"
            )
        if known is not None and offer.version == known.version and offer != known:
            raise PeerMisbehaved(f"{offer.domain} sent two offers of version {offer.version}")
        if offer.expires_s <= now_s or offer.issued_s > now_s + CLOCK_AHEAD_S_MAX:
            raise PeerMisbehaved(f"the offer of {offer.domain} does not hold now: compare the clocks")
        self.expire(now_s)
        self._check_saes(offer)
        if offer != known:
            self.offers[offer.domain] = offer
            self._look_again()
        return offer

    def expire(self, now_s: float) -> list[str]:
        """Drop the offers whose time is over; return the domains."""
        gone = [domain for domain, offer in self.offers.items() if offer.expires_s <= now_s]
        for domain in gone:
            del self.offers[domain]
        if gone:
            self._look_again()
        return gone

    def table(self, domain: str, now_s: float) -> WayTable:
        """Return the table of a domain; its version grows when it changes."""
        known = self._tables.get(domain)
        if known is None or domain in self._stale:
            destinations = self._destinations(domain)
            if known is None or known.destinations != destinations:
                self.version += 1
                known = self._tables[domain] = WayTable(domain, self.version, now_s, destinations)
            self._stale.discard(domain)
        return known

    def ways(self, source: str, target: str, paths: int = 1, policy: WayPolicy = ANY_WAY) -> WayAnswer:
        """Return up to ``paths`` ways that share no domain but their ends, and what was refused why."""
        refused = {
            domain: reason
            for domain, offer in sorted(self.offers.items())
            if domain not in (source, target) and (reason := policy.refuses(offer)) is not None
        }
        routes = self._routes(source, target, min(paths, PATHS_MAX), policy, frozenset(refused))
        return WayAnswer(tuple(routes), refused)

    def neighbours(self) -> list[tuple[str, str, float]]:
        """Return the borders that both sides offer, with what may be handed over there in bit/s."""
        said = {
            (domain, border.domain): border.rate_bps
            for domain, offer in self.offers.items()
            for border in offer.borders
        }
        return [
            (one, other, min(rate, said[other, one]))
            for (one, other), rate in sorted(said.items())
            if one < other and (other, one) in said
        ]

    def _check_saes(self, offer: DomainOffer) -> None:
        """Refuse an application that another domain has offered: its keys would go to the wrong one.

        SAE IDs are unique over all connected networks (ETSI GS QKD 020 V1.1.1, SAE IDs).
        """
        named = set(offer.saes)
        for other in self.offers.values():
            if other.domain != offer.domain and (both := named.intersection(other.saes)):
                text = f"{offer.domain} offers {min(both)!r}, which is an application of {other.domain}"
                raise PeerMisbehaved(text)

    def gateways(self) -> Gateways:
        """Return the map of all gates, by the offers that name theirs."""
        if self._gateways is None:
            self._gateways = Gateways(self.offers)
        elif self._gateways.offers != self.offers:
            self._gateways = self._gateways.renewed(self.offers)
        return self._gateways

    def _look_again(self) -> None:
        """An offer has changed: every table is looked at again when it is asked for next."""
        self._drawn = None
        self._stale.update(self._tables)

    def _destinations(self, domain: str) -> tuple[Destination, ...]:
        return tuple(
            Destination(target, ways, offer.saes)
            for target, offer in sorted(self.offers.items())
            if target != domain and (ways := tuple(self._routes(domain, target, ALTERNATIVES)))
        )

    def _routes(
        self,
        source: str,
        target: str,
        paths: int,
        policy: WayPolicy = ANY_WAY,
        refused: frozenset[str] | None = None,
    ) -> list[DomainWay]:
        if refused is None:
            refused = frozenset(domain for domain, offer in self.offers.items() if policy.refuses(offer))
        rates, router = self._map()

        def cost(border: LinkId, sender: SiteId) -> float:
            """A hop costs what its receiver costs: every domain of a way is received in once."""
            one, other = border.split("|")
            receiver = other if sender == one else one
            last = receiver == target
            if (receiver in refused and not last) or rates[one, other] < policy.rate_bps_min:
                return inf
            offer = self.offers[receiver]
            carried = rates[one, other] if last else min(rates[one, other], offer.transit_bps)
            slow = min(PLAIN_RATE_BPS / carried, SLOW_COST_MAX) if carried > 0 else SLOW_COST_MAX
            dear = 0.0 if last else offer.price_eur_per_mib / PLAIN_PRICE_EUR_PER_MIB
            return 1.0 + slow + dear

        found = router.disjoint_routes(SiteId(source), SiteId(target), paths, cost)
        ways = [self._way(route, rates) for route in found]
        return [
            way
            for way in ways
            if way.price_eur_per_mib <= policy.price_eur_per_mib_max
            and (policy.domains_max is None or len(way.domains) <= policy.domains_max)
        ]

    def _map(self) -> tuple[dict[tuple[str, str], float], Router]:
        """Return the rates over borders in both directions, and a router over them, made once an offer."""
        if self._drawn is None:
            borders = [(one, other, rate) for one, other, rate in self.neighbours() if rate > 0]
            rates = {(one, other): rate for one, other, rate in borders}
            rates |= {(other, one): rate for one, other, rate in borders}
            router = Router((_border(one, other), SiteId(one), SiteId(other)) for one, other, _ in borders)
            self._drawn = rates, router
        return self._drawn

    def _way(self, route: Route, rates: Mapping[tuple[str, str], float]) -> DomainWay:
        domains: Sequence[str] = route.sites
        crossed = [self.offers[domain] for domain in domains[1:-1]]
        target = self.offers[domains[-1]]
        rate = min([rates[pair] for pair in pairwise(domains)] + [offer.transit_bps for offer in crossed])
        return DomainWay(
            tuple(domains),
            rate,
            min([target.trust, *(offer.trust for offer in crossed)]),
            sum((offer.epsilon for offer in crossed), target.epsilon),
            round(sum(offer.price_eur_per_mib for offer in crossed), 9),
        )


def _border(one: str, other: str) -> LinkId:
    return LinkId("|".join(sorted((one, other))))


def reaches_of(table: WayTable) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """Return (domain, next domains in order of preference, applications) of a table's destinations."""
    return [
        (
            destination.domain,
            tuple(dict.fromkeys(way.domains[1] for way in destination.ways)),
            destination.saes,
        )
        for destination in table.destinations
    ]
