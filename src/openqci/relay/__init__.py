"""Stored link keys to one end-to-end key over trusted nodes.

The payload *is* link key of the first hop: both its ends hold it already. Every further hop carries it under
a one-time pad of its own link key, with an information-theoretic MAC. A *carried* relay brings a payload of
its caller (from another domain, say), padded on the first hop too. Each node acts inside one durable
transaction of its own store and sees only its own rooms; the shell sends a message only after the transaction
that spent its pads is durable.

Three forms, which a key's provenance names: from hop to hop (:mod:`openqci.relay.node`); by XORs that nodes
publish (:mod:`openqci.relay.xor`), which joins two ends by a virtual link; and, where an order allows it,
hops crossed under ML-KEM and AES-256-GCM instead of a pad. What was spent for which relay stands in an
account at both ends of each hop (:mod:`openqci.relay.accounts`).

Read :mod:`openqci.relay.messages` for what travels.
"""

from openqci.relay.messages import CONTROL_BYTES, RelayForm, RelayFrame, RelayOrder, hop_bytes, next_site
from openqci.relay.node import (
    SITE_ROOMS,
    HopRooms,
    RelayArrival,
    RelayRefused,
    begin,
    forward,
    terminate,
)

__all__ = [
    "CONTROL_BYTES",
    "SITE_ROOMS",
    "HopRooms",
    "RelayArrival",
    "RelayForm",
    "RelayFrame",
    "RelayOrder",
    "RelayRefused",
    "begin",
    "forward",
    "hop_bytes",
    "next_site",
    "terminate",
]
