"""The book of all hops: what each has made, holds, could make, and what it does now.

Pure state on simulated time. It is told what was stored and spent *after* the store made it durable, so it
never promises more than the store holds. Photons and sessions are in :mod:`openqci.twin.block`.
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import msgspec

from openqci.control import HopStock, hop_to_work_on
from openqci.core.identifiers import LinkId, SiteId
from openqci.links import LinkForecast
from openqci.network import Device, Hop, Network
from openqci.twin.block import BlockOutcome

SATELLITE = "satellite"
"""Kind of a site in orbit, and type of its hops."""

RATE_WINDOW_S = 30.0
"""Rates shown are means over this much simulated time; shorter windows flicker between blocks."""

AUTHENTICATION_STOCK_BYTES = 4096
"""Authentication key that a link's channel keeps ready; refilled from each distilled block first."""


class HopState(IntEnum):
    """What a hop does now, as the console and ``openqci status`` show it."""

    EMPTY = 0
    DISTILLING = 1
    RESTING = 2
    WAITING = 3
    DOWN = 4


class HopFigures(msgspec.Struct):
    """What a hop has made since it was commissioned; kept in the store, without any key material.

    ``block_ends`` says, per initiator, at which offset of the stream each block in stock ends, and of a
    satellite's link ``pass_ends_s`` when the pass ended that each of them is from. ``epsilon`` is the largest
    of any block: the authentication's part of it differs a little from one to the next.
    """

    blocks: int = 0
    blocks_aborted: int = 0
    detections_total: int = 0
    sifted_bits_total: int = 0
    leak_bits_total: int = 0
    secret_bits_total: int = 0
    qber: float | None = None
    epsilon: float = 0.0
    proof_id: str = ""
    last_block: dict[str, float | int | str] = {}
    last_aborted: str = ""
    block_ends: dict[SiteId, list[int]] = {}
    pass_ends_s: dict[SiteId, list[float]] = {}


class RecentBits:
    """Bits over the last :data:`RATE_WINDOW_S`; what is older goes when something is added or asked for."""

    def __init__(self) -> None:
        self._counts: deque[tuple[float, int]] = deque()

    def add(self, now_s: float, bits: int) -> None:
        self._counts.append((now_s, bits))
        self._forget_before(now_s - RATE_WINDOW_S)

    def total(self, now_s: float) -> int:
        self._forget_before(now_s - RATE_WINDOW_S)
        return sum(bits for _, bits in self._counts)

    def _forget_before(self, time_s: float) -> None:
        while self._counts and self._counts[0][0] <= time_s:
            self._counts.popleft()

    def __len__(self) -> int:
        return len(self._counts)


@dataclass
class HopLine:
    """One line of the book.

    ``breaks`` counts how often its two ends have lost touch: what was under way then comes to nothing.
    ``intercepted`` is the fraction of its pulses that an eavesdropper measures. While a block is ``storing``,
    the store may know more of the stock than this line.
    """

    hop: Hop
    forecast: LinkForecast
    figures: HopFigures
    stock_bytes: dict[SiteId, int]
    distilling_since_s: float | None = None
    not_before_s: float = 0.0
    standing_still: str = ""
    closed: str = ""
    away: str = ""
    filling: bool = False
    breaks: int = 0
    storing: bool = False
    intercepted: float = 0.0
    recent: RecentBits = field(default_factory=RecentBits)
    epsilon_expected: float = 0.0

    @property
    def stock_bits(self) -> int:
        return 8 * sum(self.stock_bytes.values())

    @property
    def can_make_key(self) -> bool:
        return self.forecast.secret_key_rate_bps > 0

    @property
    def trouble(self) -> str:
        """What is wrong with the hop, empty if nothing is."""
        if not self.can_make_key:
            return "its devices yield no key at this loss"
        return self.closed or self.standing_still

    @property
    def epsilon(self) -> float:
        """Return the security parameter of a block: of the worst so far, or what the device is set to."""
        return self.figures.epsilon or self.epsilon_expected

    @property
    def by_pass(self) -> bool:
        """Whether one end is a satellite, so that key is made in passes only, when they come."""
        return self.hop.link_type == SATELLITE

    @property
    def unusable(self) -> str:
        """Why no relay may begin to go over the hop now: a trouble, or a satellite out of radio contact."""
        return self.trouble or self.away

    def distilled_bps(self, now_s: float) -> float:
        """Return the mean secret rate over the last :data:`RATE_WINDOW_S`."""
        return self.recent.total(now_s) / min(RATE_WINDOW_S, max(now_s, 1.0))


class HopBook:
    """All hops of a network, by link id, in the network's order."""

    def __init__(
        self,
        network: Network,
        forecasts: Mapping[LinkId, LinkForecast],
        figures: Mapping[LinkId, HopFigures],
        stock_bytes: Mapping[tuple[LinkId, SiteId], int],
    ) -> None:
        self.network = network
        self.lines = {
            link_id: HopLine(
                hop,
                forecasts[link_id],
                figures.get(link_id) or HopFigures(),
                {site: stock_bytes.get((link_id, site), 0) for site in (hop.a, hop.b)},
                epsilon_expected=epsilon_of(network.devices[hop.device]),
            )
            for link_id, hop in network.hops.items()
        }
        self.watched: set[LinkId] = set()
        self.shut_borders: dict[LinkId, str] = {}
        self.possible_bps = sum(line.forecast.secret_key_rate_bps for line in self.lines.values())

    def begin_block(self, link_id: LinkId, now_s: float) -> int:
        """Mark the hop as distilling; return the number of its next block."""
        line = self.lines[link_id]
        line.distilling_since_s = now_s
        self.watched.discard(link_id)
        return line.figures.blocks + line.figures.blocks_aborted

    def figures_after(self, outcome: BlockOutcome) -> HopFigures:
        """Return the hop's figures with this block added, without changing the book."""
        before = self.lines[outcome.link_id].figures
        report = outcome.report
        kept = not outcome.aborted
        return msgspec.structs.replace(
            before,
            blocks=before.blocks + kept,
            blocks_aborted=before.blocks_aborted + (not kept),
            detections_total=before.detections_total + outcome.detections,
            sifted_bits_total=before.sifted_bits_total + (report.sifted_bits if report else 0),
            leak_bits_total=before.leak_bits_total + (report.disclosed_bits if report else 0),
            secret_bits_total=before.secret_bits_total + 8 * len(outcome.key_a),
            qber=report.qber if report and kept else before.qber,
            epsilon=max(before.epsilon, outcome.epsilon),
            proof_id=outcome.proof_id,
            last_block=block_summary(outcome),
            last_aborted=outcome.aborted or before.last_aborted,
        )

    def end_block(
        self, outcome: BlockOutcome, figures: HopFigures, stored: Mapping[SiteId, int], now_s: float
    ) -> None:
        """Take over what the store has made durable: new figures, bytes added per initiator."""
        line = self.lines[outcome.link_id]
        line.distilling_since_s = None
        line.figures = figures
        line.recent.add(now_s, 8 * len(outcome.key_a))
        for site, added_bytes in stored.items():
            line.stock_bytes[site] += added_bytes

    def intercept(self, link_id: LinkId, fraction: float) -> None:
        """Let an eavesdropper measure a fraction of a hop's pulses from now on; 0 for none.

        A hop with a full stock rests here, while real modules go on measuring. The blocks left out would be
        as the last one was; as soon as the channel is another, the hop makes one, whatever it has in stock.
        """
        if self.lines[link_id].intercepted != fraction:
            self.lines[link_id].intercepted = fraction
            self.watched.add(link_id)

    def close(self, link_id: LinkId, reason: str) -> None:
        """No relay may use a hop or cross a border from now on."""
        if link_id in self.lines:
            self.lines[link_id].closed = reason
        else:
            self.shut_borders[link_id] = reason

    def open(self, link_id: LinkId) -> None:
        """Relays may use a hop or cross a border again."""
        if link_id in self.lines:
            self.lines[link_id].closed = ""
        else:
            self.shut_borders.pop(link_id, None)

    def break_off(self, link_id: LinkId) -> None:
        """The two ends of a hop have lost touch: its block under way comes to nothing."""
        self.lines[link_id].breaks += 1

    def mend(self, link_id: LinkId, stock_bytes: Mapping[SiteId, int]) -> None:
        """The ends have each other again and have this in stock; the hop may work at once."""
        line = self.lines[link_id]
        line.stock_bytes.update(stock_bytes)
        line.not_before_s = 0.0

    def give_up_block(self, link_id: LinkId, not_before_s: float) -> None:
        """Forget a block that gave nothing to store; the hop lets others go first until then."""
        line = self.lines[link_id]
        line.distilling_since_s, line.not_before_s = None, not_before_s

    def epsilon_of_next(self, link_id: LinkId, initiator: SiteId, length_bytes: int) -> float:
        """Return the summed epsilon of the blocks that the next bytes of a direction come from."""
        line = self.lines[link_id]
        if not line.figures.block_ends.get(initiator):
            return line.figures.epsilon
        first, last = self._blocks_of_next(link_id, initiator, length_bytes)
        return line.figures.epsilon * (last - first + 1)

    def passes_of_next(self, link_id: LinkId, initiator: SiteId, length_bytes: int) -> list[float]:
        """Return when the passes ended that the next bytes of a direction come from; none for fibre."""
        ends_s = self.lines[link_id].figures.pass_ends_s.get(initiator, [])
        if not ends_s:
            return []
        first, last = self._blocks_of_next(link_id, initiator, length_bytes)
        return ends_s[first : last + 1]

    def _blocks_of_next(self, link_id: LinkId, initiator: SiteId, length_bytes: int) -> tuple[int, int]:
        """Return the first and the last of the blocks in stock that the next bytes come from."""
        line = self.lines[link_id]
        ends = line.figures.block_ends[initiator]
        start = ends[-1] - line.stock_bytes[initiator]
        earlier = sum(end <= start for end in ends)
        before_last = sum(end < start + length_bytes for end in ends)
        return earlier, min(before_last, len(ends) - 1)

    def spent(self, spends: Iterable[tuple[LinkId, SiteId, int]]) -> None:
        """Subtract link key that relays have used up."""
        for link_id, initiator, used_bytes in spends:
            self.lines[link_id].stock_bytes[initiator] -= used_bytes

    def next_hop(
        self, waited_for: Collection[LinkId], short: Collection[LinkId], now_s: float
    ) -> LinkId | None:
        """Return the hop that should make a block next, or None if all rest or are at work."""
        wanted = {*waited_for, *self.watched}
        return hop_to_work_on((self._stock(line, now_s) for line in self.lines.values()), wanted, short)

    def _stock(self, line: HopLine, now_s: float) -> HopStock:
        """Return a hop as the choice sees it, with the watermarks' hysteresis brought up to date."""
        low_bytes, high_bytes = self.network.stock.low_bits // 8, -(-self.network.stock.high_bits // 8)
        emptier = min(line.stock_bytes.values())
        line.filling = emptier < (high_bytes if line.filling else low_bytes)
        idle = line.distilling_since_s is None and line.not_before_s <= now_s
        free = idle and not line.by_pass and not line.trouble
        return HopStock(line.hop.link_id, emptier, low_bytes, high_bytes, line.filling, free)

    def state(self, link_id: LinkId) -> HopState:
        """Return what the hop does now."""
        line = self.lines[link_id]
        if line.trouble:
            return HopState.DOWN
        if line.distilling_since_s is not None:
            return HopState.DISTILLING
        if not line.stock_bits:
            return HopState.EMPTY
        low_bytes = self.network.stock.low_bits // 8
        return HopState.WAITING if min(line.stock_bytes.values()) < low_bytes else HopState.RESTING


def epsilon_of(device: Device) -> float:
    """Return the security parameter of a block as the device is set to it, authentication aside."""
    return device.epsilon_sec + device.epsilon_cor


def block_summary(outcome: BlockOutcome) -> dict[str, float | int | str]:
    """Return the counts of a block for people to read: never key material."""
    summary: dict[str, float | int | str] = {
        "number": outcome.number,
        "duration_s": outcome.duration_s,
        "detections": outcome.detections,
        "secret_bits": 8 * len(outcome.key_a),
    }
    if outcome.report:
        fields = msgspec.to_builtins(outcome.report)
        summary |= {name: value for name, value in fields.items() if isinstance(value, int | float | str)}
    if outcome.aborted:
        summary["aborted"] = outcome.aborted
    return summary


def split_by_initiator(length_bytes: int, stock_a_bytes: int, stock_b_bytes: int) -> tuple[int, int]:
    """Return how many bytes of a new block go to each direction, so that the emptier one is filled first.

    >>> split_by_initiator(100, 0, 0), split_by_initiator(100, 0, 500), split_by_initiator(100, 40, 0)
    ((50, 50), (100, 0), (30, 70))
    """
    to_a = (length_bytes + stock_b_bytes - stock_a_bytes) // 2
    to_a = min(length_bytes, max(0, to_a))
    return to_a, length_bytes - to_a
