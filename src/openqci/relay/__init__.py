"""Stored link keys to one end-to-end key over trusted nodes.

The end-to-end key *is* link key of the first hop: both its ends hold it already. Every further hop carries
it under a one-time pad of its own link key, with an information-theoretic MAC. Each node acts inside one
durable transaction of its own store and sees only its own rooms; the shell sends a message only after the
transaction that spent its pads is durable.

Read :mod:`openqci.relay.messages` for what travels, :mod:`openqci.relay.node` for what each node does.
"""

from openqci.relay.messages import CONTROL_BYTES, RelayFrame, RelayOrder, hop_bytes, next_site
from openqci.relay.node import RelayArrival, RelayOrigin, RelayRefused, forward, terminate

__all__ = [
    "CONTROL_BYTES",
    "RelayArrival",
    "RelayFrame",
    "RelayOrder",
    "RelayOrigin",
    "RelayRefused",
    "forward",
    "hop_bytes",
    "next_site",
    "terminate",
]
