"""What a hop costs now: from its rate, its stock and its risk, as figures that are handed in.

Every hop costs one, so that of equal hops the shorter route is taken: each is a trusted node more, and a pad
as long as the key. A hop that lacks key, is slow, or is held to be risky costs more, in units of hops: a
detour of that many good hops is preferred to it. A hop in trouble must not be used at all.

>>> hop = HopReading(LinkId("a--b"), SiteId("a"), SiteId("b"), rate_bps=1e6, stock_bytes=(2048, 0))
>>> rule = CostRule(full_bytes=2048)
>>> round(rule.cost(hop, SiteId("a")), 2), round(rule.cost(hop, SiteId("b")), 2)
(1.04, 8.04)
"""

from math import inf

import msgspec

from openqci.core.identifiers import LinkId, SiteId, is_border

EMPTY_HOP_COST = 7.0
"""What an empty hop costs more than a full one."""

SLOW_HOP_COST = 4.0
"""What a hop of the slow rate or less costs more than one without limit."""

SLOW_RATE_BPS = 10_000.0
"""A hop at this rate fills one 256-bit key of each of the 40 pairs that may cross it in a second."""


class HopReading(msgspec.Struct, frozen=True):
    """A hop as its figures stand at one moment.

    ``rate_bps`` is what it could bring of secret key, both directions together; None where nobody knows.
    ``stock_bytes`` is what ``a`` and what ``b`` may begin to spend, less what is promised; None where nothing
    is known of stocks, as in a scenario that does not run. ``trouble`` says why the hop must not be used now,
    empty if it may. ``risk`` is what the operator would go round it for, in hops.
    """

    link_id: LinkId
    a: SiteId
    b: SiteId
    rate_bps: float | None = None
    stock_bytes: tuple[int, int] | None = None
    epsilon: float = 0.0
    trouble: str = ""
    risk: float = 0.0
    parent_link: str = ""
    computational: bool = False

    def stock_of(self, sender: SiteId) -> int | None:
        """Return what a node may begin to spend over this hop, None where nobody knows."""
        return None if self.stock_bytes is None else self.stock_bytes[sender == self.b]


class CostRule(msgspec.Struct, frozen=True):
    """How figures become costs. ``full_bytes`` is the stock from which more makes a hop no cheaper."""

    full_bytes: int

    def cost(self, hop: HopReading, sender: SiteId) -> float:
        """Return the cost of a hop when ``sender`` sends over it; ``inf`` if it must not be used."""
        return inf if hop.trouble else self.cost_without_trouble(hop, sender)

    def cost_without_trouble(self, hop: HopReading, sender: SiteId) -> float:
        """Return what a hop would cost if it were in order."""
        if is_border(hop.link_id):
            # Both KMEs stand in one site: no fibre is crossed, and no trusted node is added.
            return 0.0
        return 1.0 + self.scarcity_cost(hop, sender) + slowness_cost(hop.rate_bps) + hop.risk

    def scarcity_cost(self, hop: HopReading, sender: SiteId) -> float:
        """Return what a hop costs more for want of key."""
        stock_bytes = hop.stock_of(sender)
        if stock_bytes is None:
            return 0.0
        return EMPTY_HOP_COST * (1 - min(1.0, max(0, stock_bytes) / max(1, self.full_bytes)))


def slowness_cost(rate_bps: float | None) -> float:
    """Return what a hop costs more for its rate.

    >>> [round(slowness_cost(rate), 2) for rate in (None, 1e6, 4e4, 1e4, 0.0)]
    [0.0, 0.04, 1.0, 4.0, 4.0]
    """
    if rate_bps is None:
        return 0.0
    return SLOW_HOP_COST * min(1.0, SLOW_RATE_BPS / max(rate_bps, 1e-9))
