"""The protocols of QKD on a link: each turns a :class:`LinkCase` into a rate and into drawn detections.

A protocol joins three things that know nothing of each other: hardware (a profile), the statistics of the
quantum layer, and a proof. :func:`openqci.links.link_rate` is the door; read ``case`` first, then
``decoy_bb84`` as the example.
"""

from openqci.links.protocols.case import LinkCase, LinkProtocol, LinkRate
from openqci.links.protocols.registry import protocol, protocol_ids

__all__ = ["LinkCase", "LinkProtocol", "LinkRate", "protocol", "protocol_ids"]
