"""What is expected of a link, as data: the controller decides on it without knowing any physics.

In the twin it comes from ``openqci.links``, in operation from measured rates and the planner's files.
"""

import msgspec

from openqci.core.identifiers import LinkId


class RateForecast(msgspec.Struct, frozen=True):
    """Secret key that a link can bring, both directions together; ``qber`` where it is known."""

    link_id: LinkId
    secret_key_rate_bps: float
    qber: float | None = None
