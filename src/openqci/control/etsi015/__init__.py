"""ETSI GS QKD 015 V2.1.1: a node as the controller of a software-defined network sees it, by RESTCONF.

The agent's part without I/O. :mod:`~openqci.control.etsi015.model` is the data tree that we serve: the
published module ``etsi-qkd-sdn-node`` less what our deviation module takes out of it.
:mod:`~openqci.control.etsi015.node` makes the tree of what a node knows of itself,
:mod:`~openqci.control.etsi015.tree` reads a resource out of it and says which leaf an edit is for, and
:mod:`~openqci.control.etsi015.library` tells which modules the tree keeps to. All of it is told in rates,
states and names: there is no key material and no key ID in it.

The interface itself is :mod:`openqci.services.etsi015_app`.
"""

from openqci.control.etsi015.node import LinkFacts, NodeFacts, PairFacts, link_uuid, node_document, node_uuid
from openqci.control.etsi015.tree import Query, RestconfError, edits, parse_query, read

__all__ = [
    "LinkFacts",
    "NodeFacts",
    "PairFacts",
    "Query",
    "RestconfError",
    "edits",
    "link_uuid",
    "node_document",
    "node_uuid",
    "parse_query",
    "read",
]
