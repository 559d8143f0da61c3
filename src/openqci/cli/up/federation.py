"""The domains of a live network, each with a controller of its own, and the orchestrator between them.

A controller routes over its own interior alone, by its own signed and versioned configuration, and tells the
orchestrator nothing but offers, signed too. All of it is one process here; the cores are those of real nodes
(``openqci.control``). What a controller and the orchestrator know of each other goes through documents.

Loss of the orchestrator stops only new routes between domains: pairs go on over the borders that they
have, and each domain still chooses anew inside. Others go round a domain whose borders are shut.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import inf

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from openqci.cli.domains import interiors_of, offer_of
from openqci.control import configuration as signed
from openqci.control.composed_routes import Composed, Composer, Interior
from openqci.control.configuration import Border, DomainConfiguration, Link, Node
from openqci.control.controller import Controller
from openqci.control.gateways import Gateways, Way
from openqci.control.offers import Crossing, DomainOffer, sign_offer
from openqci.control.orchestrator import Orchestrator
from openqci.control.policy import RoutePolicy
from openqci.control.routing import Cost, Epsilon, Route
from openqci.core.identifiers import DomainId, LinkId, SiteId, is_border, kme_of_site
from openqci.crypto.signatures import SigningKey, VerifyingKey
from openqci.network import Network

log = logging.getLogger(__name__)

OFFER_LOOKED_AT_S = 10.0
"""How often a domain looks whether its last offer is still true."""

OFFER_CHANGE = 0.25
"""A crossing whose cost moved by a smaller part is no reason for a new offer."""

OFFER_KEPT_S = 3600.0


@dataclass
class Domain:
    """One domain: its interior, its controller with the configuration that holds, and its last offer."""

    interior: Interior
    controller: Controller
    key: SigningKey
    verifying: VerifyingKey
    configuration: DomainConfiguration
    links: tuple[LinkId, ...]
    offer: DomainOffer | None = None
    looked_at_s: float = 0.0
    closed: dict[LinkId, str] = field(default_factory=dict)

    @property
    def usable(self) -> frozenset[LinkId]:
        """The hops that its nodes may use by the configuration that holds."""
        return frozenset(LinkId(link.link_id) for link in self.configuration.links if link.usable)


class Federation:
    """All domains of a network and the orchestrator, as :class:`~openqci.cli.up.relaying.EndToEnd` asks them.

    Parameters
    ----------
    cost, epsilon
        What a hop costs and adds now, as its own domain knows.
    rate_bps
        What a hop can bring.
    trouble
        Why a hop must not be used, empty if it may.
    shut_borders
        Borders that must not be crossed, as they are at each look.
    """

    def __init__(
        self,
        network: Network,
        cost: Cost,
        epsilon: Epsilon,
        rate_bps: Callable[[LinkId], float],
        trouble: Callable[[LinkId], str],
        shut_borders: Collection[LinkId],
        now_s: float,
    ) -> None:
        self.orchestrator_lost = False
        self._shut, self._seen_shut = shut_borders, frozenset(shut_borders)
        self._network, self._cost, self._epsilon = network, cost, epsilon
        self._rate_bps, self._trouble = rate_bps, trouble
        interiors = interiors_of(network)
        self.domains = {
            DomainId(name): self._domain(DomainId(name), each, now_s) for name, each in interiors.items()
        }
        self.orchestrator = Orchestrator({name: each.verifying for name, each in self.domains.items()})
        self._composer = Composer(interiors, self._gateways)
        self._now_s = now_s
        self._priced = False

    def look(self, now_s: float) -> None:
        """Let every controller see its hops as they are now, and lay down what has changed."""
        self._now_s, self._priced = now_s, False
        changed = self._seen_shut ^ frozenset(self._shut)
        self._seen_shut = frozenset(self._shut)
        for domain in self.domains.values():
            self._configure(domain)
            if any(gate.border in changed for gate in domain.interior.gates):
                domain.offer = None

    def connected(self, source: SiteId, target: SiteId) -> bool:
        """Tell whether any chain of hops and borders joins two nodes, whatever is closed now."""
        return self._composer.connected(source, target)

    def routes(self, source: SiteId, target: SiteId, k: int, policy: RoutePolicy) -> Composed:
        """Return k routes that share no node, or none and why."""
        self._price()
        return self._composer.routes(source, target, k, policy)

    def along(
        self, ways: tuple[Way, ...], source: SiteId, target: SiteId, policy: RoutePolicy
    ) -> tuple[Route, ...]:
        """Return routes over the borders of known ways, if these are open, chosen anew inside each domain."""
        if any(border.link_id in self._shut for way in ways for border in way.borders):
            return ()
        self._price()
        return self._composer.along(ways, source, target, policy)

    def _price(self) -> None:
        """Let each controller take its figures, once a look."""
        if self._priced:
            return
        self._priced = True
        for domain in self.domains.values():
            domain.interior.price(partial(self._cost_by, domain.usable), self._epsilon)

    def _cost_by(self, usable: frozenset[LinkId], link: LinkId, sender: SiteId) -> float:
        return self._cost(link, sender) if link in usable else inf

    def _configure(self, domain: Domain) -> None:
        """Give the nodes of a domain a new configuration if a link came or went."""
        closed = {link: reason for link in domain.links if (reason := self._trouble(link))}
        if closed == domain.closed:
            return
        for link in domain.closed.keys() - closed.keys():
            domain.controller.open_link(link)
        for link, reason in closed.items():
            domain.controller.close_link(link, reason)
        made = domain.controller.next_configuration(self._now_s)
        if made is not None:
            domain.configuration = signed.verify(signed.sign(made, domain.key), domain.verifying)
            # A controller that has just issued a version waits with the next: then it is asked again.
            domain.closed, domain.offer = closed, None

    def _gateways(self) -> Gateways | None:
        if self.orchestrator_lost:
            return None
        for domain in self.domains.values():
            self._renew_offer(domain)
        return self.orchestrator.gateways()

    def _renew_offer(self, domain: Domain) -> None:
        """Send the orchestrator a new offer where the last has gone out of date."""
        known, now_s = domain.offer, self._now_s
        if known is not None and now_s - domain.looked_at_s < OFFER_LOOKED_AT_S:
            return
        domain.looked_at_s = now_s
        last = self.orchestrator.offers.get(domain.interior.domain)
        version = last.version if last is not None else 0
        made = self._open(offer_of(domain.interior, version + 1, now_s, OFFER_KEPT_S, self._rate_bps))
        old = known is not None and known.expires_s - now_s < OFFER_KEPT_S / 2
        if known is None or old or not _alike(known.crossings, made.crossings):
            domain.offer = self.orchestrator.receive_offer(sign_offer(made, domain.key), now_s)

    def _open(self, offer: DomainOffer) -> DomainOffer:
        """Leave the gates at borders that are shut out of an offer."""
        gates = tuple(gate for gate in offer.gates if gate.border not in self._seen_shut)
        nodes = {gate.node for gate in gates}
        crossings = (each for each in offer.crossings if {each.entrance, each.exit} <= nodes)
        return msgspec.structs.replace(offer, gates=gates, crossings=tuple(crossings))

    def _domain(self, name: DomainId, interior: Interior, now_s: float) -> Domain:
        key, verifying = _key_pair()
        controller = Controller(self._laid_down(name, interior))
        made = controller.next_configuration(now_s)
        first = made if made is not None else self._laid_down(name, interior)
        configuration = signed.verify(signed.sign(first, key), verifying)
        links = tuple(link for link, *_ in interior.router.hops)
        return Domain(interior, controller, key, verifying, configuration, links)

    def _laid_down(self, name: DomainId, interior: Interior) -> DomainConfiguration:
        """Return what the operator of a domain lays down: its nodes, links and borders."""
        network = self._network
        applications: dict[SiteId, list[str]] = {}
        for sae in network.saes.values():
            applications.setdefault(sae.site, []).append(sae.sae_id)
        nodes = (interior.router.node_facts(site) for site in sorted(interior.nodes))
        return DomainConfiguration(
            name,
            1,
            0.0,
            nodes=tuple(
                Node(
                    kme_of_site(node.site_id),
                    node.site_id,
                    node.country,
                    node.operator,
                    node.trust,
                    tuple(applications.get(node.site_id, ())),
                )
                for node in nodes
            ),
            links=tuple(
                Link(
                    link,
                    kme_of_site(one),
                    kme_of_site(other),
                    self._rate_bps(link),
                    self._epsilon(link),
                    protocol="decoy-state BB84",
                    simulated=True,
                )
                for link, one, other in interior.router.hops
            ),
            borders=tuple(
                Border(kme_of_site(SiteId(gate.node)), gate.domain, kme_of_site(SiteId(gate.partner)))
                for gate in interior.gates
            ),
        )


def border_links(routes: Iterable[Route]) -> set[LinkId]:
    """Return the borders that routes cross."""
    return {link for route in routes for link in route.links if is_border(link)}


def _key_pair() -> tuple[SigningKey, VerifyingKey]:
    """Return a controller's key pair. It lives as long as the process, as do all who check it."""
    private = ec.generate_private_key(ec.SECP256R1())
    return SigningKey(private), VerifyingKey(private.public_key())


def _alike(known: Iterable[Crossing], made: Iterable[Crossing]) -> bool:
    """Tell whether two offers have the same crossings, at about the same costs."""
    before, now = (_costs(crossings) for crossings in (known, made))
    return before.keys() == now.keys() and all(
        abs(now[edge] - cost) <= OFFER_CHANGE * max(1.0, cost) for edge, cost in before.items()
    )


def _costs(crossings: Iterable[Crossing]) -> Mapping[tuple[str, str], float]:
    return {(each.entrance, each.exit): each.cost for each in crossings}
