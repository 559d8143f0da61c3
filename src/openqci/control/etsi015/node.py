"""What a node knows of itself, as the data tree of ETSI GS QKD 015.

The standard names nodes, links and applications by UUIDs; ours have names. A UUID here is the version 5 UUID
of the name, so that both ends of a link, and a controller that knows the names, come to the same.
"""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote
from uuid import NAMESPACE_URL, UUID, uuid5

import msgspec

from openqci.control.etsi015.model import identity
from openqci.core.identifiers import KmeId, LinkId, SaeId

NAMES = uuid5(NAMESPACE_URL, "urn:openqci")
UINT32_MAX = 2**32 - 1
"""Rates are uint32 in the standard: what is faster than 4.29 Gbit/s is told as that."""

TECHNOLOGIES = (
    ("COW", "DV-QKD-COW"),
    ("CV", "CV-QKD"),
    ("GG02", "CV-QKD"),
    ("BB84", "DV-QKD"),
    ("BBM92", "DV-QKD"),
    ("E91", "DV-QKD"),
    ("MDI", "DV-QKD"),
    ("T12", "DV-QKD"),
    ("SARG04", "DV-QKD"),
)
"""Words in the name of a protocol, and the technology of the standard; the first that fits counts."""


class LinkFacts(msgspec.Struct, frozen=True):
    """One QKD link as its node knows it. ``number`` is that of its ``[[link]]`` section, from 1.

    ``rate_bps`` is what it brings now, ``stock_bytes`` what either end may still begin to spend;
    ``trouble`` says why it brings nothing, empty if it does.
    """

    link_id: LinkId
    number: int
    peer: KmeId
    protocol: str
    enabled: bool
    stock_bytes: int
    rate_bps: float
    trouble: str = ""


class PairFacts(msgspec.Struct, frozen=True):
    """A master here and its slaves, at ``target``; ``links`` are those of its own that serve it.

    0 for a bandwidth is: none was said.
    """

    master: SaeId
    slaves: tuple[SaeId, ...]
    target: KmeId
    links: tuple[LinkId, ...]
    priority: int = 0
    max_bps: int = 0
    min_bps: int = 0
    ttl_s: float = 0.0


class NodeFacts(msgspec.Struct, frozen=True):
    """A node: who, where, what runs there, and whether it relays key for others."""

    kme: KmeId
    location: str
    version: str
    relays: bool
    links: tuple[LinkFacts, ...] = ()
    pairs: tuple[PairFacts, ...] = ()


def node_uuid(kme: KmeId) -> UUID:
    """Return a node's ``qkdn_id``."""
    return uuid5(NAMES, f"kme:{kme}")


def link_uuid(link: LinkId) -> UUID:
    """Return a link's ``qkdl_id``, the same at both ends."""
    return uuid5(NAMES, f"link:{link}")


def application_uuid(master: SaeId, slaves: Iterable[SaeId]) -> UUID:
    """Return the ``app_id`` of a master and its slaves."""
    return uuid5(NAMES, "application:" + ":".join(quote(sae, safe="") for sae in (master, *slaves)))


def sae_uri(sae: SaeId) -> str:
    """Return the URI of an application, as its certificate has it.

    >>> sae_uri(SaeId("bank a"))
    'urn:openqci:sae:bank%20a'
    """
    return f"urn:openqci:sae:{quote(sae, safe='')}"


def node_document(facts: NodeFacts) -> dict[str, Any]:
    """Return the content of ``qkd_node`` (RFC 7951)."""
    return {
        "qkdn_id": str(node_uuid(facts.kme)),
        "qkdn_status": identity("QKDN-STATUS-TYPES", "OPERATING"),
        "qkdn_version": facts.version,
        "qkdn_location_id": facts.location,
        "qkdn_capabilities": {
            "link_stats_support": True,
            "application_stats_support": False,
            "key_relay_mode_enable": facts.relays,
        },
        "qkd_applications": {"qkd_app": [application_document(pair, facts.kme) for pair in facts.pairs]},
        "qkd_interfaces": {"qkd_interface": [interface_document(link) for link in facts.links]},
        "qkd_links": {"qkd_link": [_link(link, facts) for link in facts.links]},
    }


def link_status(link: LinkFacts) -> str:
    """Return the status of a link: it brings key, lives on its stock, waits, or rests.

    >>> [link_status(LinkFacts(LinkId("a"), 1, KmeId("z"), "", on, stock, 0.0, trouble))
    ...  for on, stock, trouble in ((True, 0, ""), (True, 9, "cut"), (True, 0, "cut"), (False, 0, ""))]
    ['ACTIVE', 'PASSIVE', 'PENDING', 'OFF']
    """
    if link.enabled and not link.trouble:
        return "ACTIVE"
    if link.stock_bytes:
        return "PASSIVE"
    return "PENDING" if link.enabled else "OFF"


def interface_status(link: LinkFacts) -> str:
    """Return the status of the QKD module behind a link."""
    if not link.enabled:
        return "DISABLED"
    return "FAILED" if link.trouble else "ENABLED"


def application_document(pair: PairFacts, local: KmeId) -> dict[str, Any]:
    """Return an entry of ``qkd_app``."""
    bounds = {"max_bandwidth": pair.max_bps, "min_bandwidth": pair.min_bps, "ttl": int(pair.ttl_s)}
    return {
        "app_id": str(application_uuid(pair.master, pair.slaves)),
        "app_status": identity("APP-STATUS-TYPES", "ON"),
        "app_type": identity("QKD-APP-TYPES", "CLIENT"),
        "server_app_id": sae_uri(pair.master),
        "client_app_id": [sae_uri(slave) for slave in pair.slaves],
        "app_priority": pair.priority,
        "app_qos": {name: min(value, UINT32_MAX) for name, value in bounds.items() if value},
        "backing_qkdl_id": [str(link_uuid(link)) for link in pair.links],
        "local_qkdn_id": str(node_uuid(local)),
        "remote_qkdn_id": str(node_uuid(pair.target)),
    }


def interface_document(link: LinkFacts) -> dict[str, Any]:
    """Return an entry of ``qkd_interface``."""
    technology = next((name for word, name in TECHNOLOGIES if word in link.protocol.upper()), None)
    told: Mapping[str, Any] = (
        {"qkdi_type": identity("QKD-TECHNOLOGY-TYPES", technology)} if technology is not None else {}
    )
    return {
        "qkdi_id": link.number,
        "qkdi_model": link.protocol,
        **told,
        "qkdi_status": identity("IFACE-STATUS-TYPES", interface_status(link)),
    }


def _link(link: LinkFacts, facts: NodeFacts) -> dict[str, Any]:
    applications = [str(application_uuid(pair.master, pair.slaves)) for pair in served(link, facts)]
    return {
        "qkdl_id": str(link_uuid(link.link_id)),
        "qkdl_status": identity("LINK-STATUS-TYPES", link_status(link)),
        "qkdl_enable": link.enabled,
        "qkdl_local": {"qkdn_id": str(node_uuid(facts.kme)), "qkdi_id": link.number},
        "qkdl_remote": {"qkdn_id": str(node_uuid(link.peer))},
        "qkdl_type": identity("QKD-LINK-TYPES", "PHYS"),
        "qkdl_applications": applications,
        "qkdl_performance": performance_document(link, facts),
    }


def performance_document(link: LinkFacts, facts: NodeFacts) -> dict[str, Any]:
    """Return what a link brings and is expected to give."""
    rate = min(round(link.rate_bps), UINT32_MAX)
    expected = min(expected_bps(served(link, facts)), UINT32_MAX)
    return {"expected_consumption": expected, "skr": rate, "eskr": rate}


def served(link: LinkFacts, facts: NodeFacts) -> list[PairFacts]:
    """Return the pairs that get their key from a link."""
    return [pair for pair in facts.pairs if link.link_id in pair.links]


def expected_bps(pairs: Iterable[PairFacts]) -> int:
    """Return what pairs are expected to take: what each may at most, or else what it is guaranteed."""
    return sum(pair.max_bps or pair.min_bps for pair in pairs)
