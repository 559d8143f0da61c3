"""The domains of a network as their controllers see them, each its own interior alone; what they offer."""

from collections.abc import Callable, Iterable
from math import inf

from openqci.control import CostRule, HopReading
from openqci.control.composed_routes import Composer, Interior
from openqci.control.gateways import Gateways
from openqci.control.offers import BorderOffer, DomainOffer, Gate
from openqci.control.policy import LinkFacts, NodeFacts
from openqci.core.identifiers import DomainId, LinkId
from openqci.network import Network, Site


def interiors_of(network: Network) -> dict[str, Interior]:
    """Return the interior of every domain of a network."""
    gates: dict[DomainId, list[Gate]] = {domain: [] for domain in network.domains}
    for border in network.borders:
        for here, there in ((border.node, border.partner), (border.partner, border.node)):
            domains = [network.sites[site].domain for site in (here, there)]
            gates[domains[0]].append(Gate(border.link_id, here, there, domains[1]))
    return {domain: _interior(network, domain, gates[domain]) for domain in network.domains}


def composer_of(network: Network, hops: Iterable[HopReading], rule: CostRule) -> Composer:
    """Return what puts routes together over the domains of a network whose hops stand as they are read."""
    interiors, readings = interiors_of(network), {hop.link_id: hop for hop in hops}
    for each in interiors.values():
        each.price(
            lambda link, sender: rule.cost(readings[link], sender), lambda link: readings[link].epsilon
        )
    gateways = Gateways(
        {
            name: offer_of(each, 1, 0.0, inf, lambda link: readings[link].rate_bps or 0.0)
            for name, each in interiors.items()
        }
    )
    return Composer(interiors, lambda: gateways)


def node_facts(site: Site) -> NodeFacts:
    """Return a site as routes see it; where no operator is named, the domain is run as a whole."""
    return NodeFacts(site.site_id, site.country, site.domain, site.operator or site.domain, site.trust)


def _interior(network: Network, domain: DomainId, gates: list[Gate]) -> Interior:
    hops = [hop for hop in network.hops.values() if network.sites[hop.a].domain == domain]
    return Interior(
        domain,
        [(hop.link_id, hop.a, hop.b) for hop in hops],
        [node_facts(site) for site in network.sites.values() if site.domain == domain],
        [LinkFacts(hop.link_id, hop.parent_link) for hop in hops],
        gates,
        [border.node for border in network.borders if network.sites[border.node].domain == domain],
    )


def offer_of(
    interior: Interior, version: int, now_s: float, keep_s: float, rate_bps: Callable[[LinkId], float]
) -> DomainOffer:
    """Return what a domain offers now: its gates and the crossings between them, and nothing of its interior.

    ``rate_bps`` says what a hop of the domain can bring.
    """
    rates = [rate_bps(link) for link, *_ in interior.router.hops]
    best_bps = max(rates, default=0.0)
    neighbours = sorted({gate.domain for gate in interior.gates})
    facts = [interior.router.node_facts(site) for site in interior.nodes]
    return DomainOffer(
        interior.domain,
        version,
        now_s,
        now_s + keep_s,
        countries=tuple(sorted({node.country for node in facts})),
        operator=interior.domain,
        trust=min((node.trust for node in facts), default=0),
        borders=tuple(BorderOffer(domain, best_bps) for domain in neighbours),
        transit_bps=best_bps,
        gates=interior.gates,
        crossings=interior.offered(),
    )
