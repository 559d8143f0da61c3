"""Who may have how much, and when there will be more: quotas and forecasts (invariant I9).

A quota is a token bucket: a steady rate and a burst. A guaranteed share is one the other way round: what a
pair is due, filled by its rate and emptied by what it gets. A forecast knows how fast key has come and gone
lately, as rates that fade with time, and says how long a stock lasts and when a request could be met. It says
None where it has seen too little to know.
"""

import math
from dataclasses import dataclass, field

HALF_LIFE_S = 60.0
"""What was this long ago counts half in a rate."""

KNOWN_AFTER_S = 5.0
"""A rate is told only when it has been watched for this long."""

RETRY_AFTER_S_MAX = 60


@dataclass
class Quota:
    """A token bucket in bits. ``rate_bps`` flows in, up to ``burst_bits``; it begins full."""

    rate_bps: float
    burst_bits: float
    _tokens: float = field(init=False)
    _at_s: float = field(init=False, default=-math.inf)

    def __post_init__(self) -> None:
        self._tokens = self.burst_bits

    def take(self, bits: int, now_s: float) -> float:
        """Take tokens if there are enough: 0. Else take none, and return how long to wait, in seconds.

        What is larger than the burst is never met: infinity.

        >>> quota = Quota(rate_bps=256.0, burst_bits=512.0)
        >>> [quota.take(256, 0.0), quota.take(256, 0.0), quota.take(256, 0.5), quota.take(256, 1.0)]
        [0.0, 0.0, 0.5, 0.0]
        """
        if self._at_s > -math.inf:
            self._tokens = min(self.burst_bits, self._tokens + self.rate_bps * max(0.0, now_s - self._at_s))
        self._at_s = max(self._at_s, now_s)
        if bits > self.burst_bits:
            return math.inf
        if bits <= self._tokens:
            self._tokens -= bits
            return 0.0
        return (bits - self._tokens) / self.rate_bps

    def give_back(self, bits: int) -> None:
        """Return the tokens of a request that got no key."""
        self._tokens = min(self.burst_bits, self._tokens + bits)


GUARANTEED_S_MAX = 60.0
"""What was due to a pair and not asked for adds up for so long."""


@dataclass
class GuaranteedShare:
    """What of a link's key is due to a pair: ``rate_bps`` flows in, what the pair gets flows out.

    What it gets beyond is its luck, and costs it nothing later. It begins full, with ``least_bytes`` or more.

    >>> share = GuaranteedShare(rate_bps=800.0, least_bytes=1000)
    >>> share.got(5500, 0.0)
    >>> share.due_bytes(0.0), share.due_bytes(2.0), share.due_bytes(1000.0)
    (500, 700, 6000)
    """

    rate_bps: float
    least_bytes: int
    _due_bytes: float = field(init=False)
    _at_s: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._due_bytes = self._most_bytes

    @property
    def _most_bytes(self) -> float:
        return max(self.least_bytes, self.rate_bps / 8 * GUARANTEED_S_MAX)

    def due_bytes(self, now_s: float) -> int:
        """Return what the pair is due now."""
        since_s = max(0.0, now_s - self._at_s) if self._at_s is not None else 0.0
        self._due_bytes = min(self._most_bytes, self._due_bytes + self.rate_bps / 8 * since_s)
        self._at_s = max(now_s, self._at_s if self._at_s is not None else now_s)
        return int(self._due_bytes)

    def got(self, length_bytes: int, now_s: float) -> None:
        """Note what the pair has got."""
        self._due_bytes = max(0.0, self.due_bytes(now_s) - length_bytes)


SHORT_KNOWN_S, SHORT_KEPT_S = 30.0, 120.0
"""A link's rate is told when it has been short for so long; after the second time old amounts fade."""


@dataclass
class ShortSupply:
    """What a link brings to this end while it is short there: then it gives all that it has."""

    _bytes: float = 0.0
    _seconds: float = 0.0
    _last: tuple[int, float] | None = None

    def note(self, ever_bytes: int, short: bool, now_s: float) -> None:
        """Note how much the link has brought to this end ever, and whether it is short now."""
        if not short:
            self._bytes, self._seconds, self._last = 0.0, 0.0, None
            return
        if self._last is not None:
            self._bytes += max(0, ever_bytes - self._last[0])
            self._seconds += max(0.0, now_s - self._last[1])
        self._last = ever_bytes, now_s
        if self._seconds > SHORT_KEPT_S:
            self._bytes, self._seconds = self._bytes / 2, self._seconds / 2

    def bps(self) -> float | None:
        """Return the rate, or None while the link is not short or has not been for long enough."""
        return 8 * self._bytes / self._seconds if self._seconds >= SHORT_KNOWN_S else None


def too_much_reserved(reserved_bps: float, rate_bps: float, what: str) -> str | None:
    """Say by how much reservations go beyond what there is; None if they do not.

    >>> too_much_reserved(12_000, 8_000, "this end's half of the link's rate")
    "12000 bit/s are reserved, 4000 more than this end's half of the link's rate, 8000 bit/s"
    """
    if reserved_bps <= rate_bps:
        return None
    over_bps = reserved_bps - rate_bps
    return f"{reserved_bps:.0f} bit/s are reserved, {over_bps:.0f} more than {what}, {rate_bps:.0f} bit/s"


@dataclass
class FadingRate:
    """How much there was per second lately; old amounts fade."""

    _weighted: float = 0.0
    _at_s: float | None = None
    _since_s: float | None = None

    def add(self, amount: float, now_s: float) -> None:
        """Note an amount."""
        self._fade(now_s)
        self._weighted += amount
        if self._since_s is None:
            self._since_s = now_s

    def per_second(self, now_s: float) -> float | None:
        """Return the rate, or None while it has not been watched for long enough."""
        if self._since_s is None or now_s - self._since_s < KNOWN_AFTER_S:
            return None
        self._fade(now_s)
        # The weights of a steady rate add up to this many seconds, fewer while the watch is young.
        window_s: float = HALF_LIFE_S / math.log(2) * (1 - 0.5 ** ((now_s - self._since_s) / HALF_LIFE_S))
        return self._weighted / window_s

    def _fade(self, now_s: float) -> None:
        if self._at_s is not None and now_s > self._at_s:
            self._weighted *= 0.5 ** ((now_s - self._at_s) / HALF_LIFE_S)
        self._at_s = max(now_s, self._at_s or now_s)


@dataclass
class Forecast:
    """What has come into a stock and what has left it, in bytes."""

    produced: FadingRate = field(default_factory=FadingRate)
    consumed: FadingRate = field(default_factory=FadingRate)

    def time_to_empty_s(self, stock_bytes: int, now_s: float) -> float | None:
        """Return how long the stock lasts if all goes on like that; infinity if it grows, None if unknown."""
        out, into = self.consumed.per_second(now_s), self.produced.per_second(now_s)
        if out is None:
            return None
        falling = out - (into or 0.0)
        return stock_bytes / falling if falling > 0 else math.inf

    def time_to_fill_s(self, lacking_bytes: int, now_s: float) -> float | None:
        """Return when so many bytes more will have come; None if that is not known."""
        into = self.produced.per_second(now_s)
        return lacking_bytes / into if into else None

    def retry_after_s(self, lacking_bytes: int, now_s: float) -> int:
        """Return what to say to who asked for too much: whole seconds, 1 if nothing is known."""
        wait_s = self.time_to_fill_s(lacking_bytes, now_s)
        return 1 if wait_s is None else max(1, min(RETRY_AFTER_S_MAX, math.ceil(wait_s)))
