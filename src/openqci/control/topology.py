"""A domain's topology and inventory for those above its controller, by RFC 8345 (``ietf-network-topology``).

Read-only, made from the signed configuration: nodes with place and trust, links with rate and provenance, and
no applications, keys or stocks. What is particular to QKD is in the module ``openqci-qkd-topology``, which
augments those of the RFC. Links of RFC 8345 have one direction, so that each QKD link is there twice.

ETSI GS QKD 018 has modules of its own for this interface; these here are not they
(``docs/reference/topology.md``).
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from openqci.control.configuration import DomainConfiguration, Link, Node
from openqci.control.etsi015.node import link_uuid, node_uuid
from openqci.core.identifiers import KmeId, LinkId

NETWORKS = "ietf-network:networks"
QKD = "openqci-qkd-topology"
EPSILON_DIGITS = 18
"""Fraction digits of a decimal64: a smaller epsilon is told as the smallest that is no zero."""


def networks_document(configuration: DomainConfiguration) -> dict[str, Any]:
    """Return the topology of a domain (RFC 7951).

    >>> document = networks_document(DomainConfiguration("AT", 7, 0.0, nodes=(Node("kme-a"),)))
    >>> document["ietf-network:networks"]["network"][0]["network-id"]
    'AT'
    """
    network = {
        "network-id": configuration.domain,
        "network-types": {f"{QKD}:qkd": {}},
        f"{QKD}:qkd": {"version": str(configuration.version)},
        "node": [_node(node, configuration) for node in configuration.nodes],
        "ietf-network-topology:link": [each for link in configuration.links for each in _links(link)],
    }
    return {NETWORKS: {"network": [network]}}


def _node(node: Node, configuration: DomainConfiguration) -> dict[str, Any]:
    ends = [link.link_id for link in configuration.links if node.kme_id in (link.a, link.b)]
    borders = [each.partner_domain for each in configuration.borders if each.kme_id == node.kme_id]
    return {
        "node-id": node.kme_id,
        "ietf-network-topology:termination-point": [{"tp-id": link_id} for link_id in ends],
        f"{QKD}:qkd": {
            "qkdn-id": str(node_uuid(KmeId(node.kme_id))),
            "site": node.site,
            "country": node.country,
            "operator": node.operator,
            "trust": node.trust,
            "border-to": sorted(set(borders)),
        },
    }


def _links(link: Link) -> Iterator[dict[str, Any]]:
    """Yield a link in both directions."""
    for source, target in ((link.a, link.b), (link.b, link.a)):
        yield {
            "link-id": f"{link.link_id}:{source}",
            "source": {"source-node": source, "source-tp": link.link_id},
            "destination": {"dest-node": target, "dest-tp": link.link_id},
            f"{QKD}:qkd": {
                "qkdl-id": str(link_uuid(LinkId(link.link_id))),
                "rate-bps": str(round(link.rate_bps)),
                "epsilon": decimal64(link.epsilon),
                "usable": link.usable,
                "protocol": link.protocol,
                "proof": link.proof,
                "simulated": link.simulated,
            },
        }


def decimal64(value: float) -> str:
    """Return a number from 0 to 1 with 18 fraction digits, rounded up: an epsilon is never told too small.

    >>> decimal64(1e-9), decimal64(1e-30), decimal64(0.0)
    ('0.000000001', '0.000000000000000001', '0.0')
    """
    grain = Decimal(1).scaleb(-EPSILON_DIGITS)
    exact = Decimal(repr(value))
    told = exact.quantize(grain, "ROUND_UP") if exact else Decimal("0.0")
    text = f"{told:f}".rstrip("0")
    return text + "0" if text.endswith(".") else text
