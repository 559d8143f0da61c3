"""Tells people what a reaction has done, in the order in which they would ask: what, where, who, what now.

It looks on and changes nothing. Loss of many links at once, say of a whole domain, is told once for each pair
of applications: the ways are looked for when all of them are known to be lost.
"""

import asyncio
from collections.abc import Callable, Iterable

import msgspec

from openqci.cli.up.chronicle import Chronicle, Tone
from openqci.control.reaction import (
    DESTROY,
    EAVESDROPPING,
    BlockKept,
    BlockRefused,
    ClearAlarm,
    CloseLink,
    DestroyBatch,
    Effect,
    HoldLink,
    LinkLost,
    OpenLink,
    RaiseAlarm,
    ReleaseBatch,
    Ruling,
    Seen,
)
from openqci.control.routing import Route
from openqci.core.identifiers import LinkId, SaeId, SiteId, is_border
from openqci.delivery.end_to_end import EndToEndOrder
from openqci.services.audit import AuditEvent
from openqci.twin.block import QBER_MAX

PAIRS_TOLD_MAX = 8
"""Of a loss that concerns more pairs, the others are counted."""

PairOfSaes = tuple[SaeId, SaeId]


class Way(msgspec.Struct, frozen=True):
    """How keys of a pair go: the first of its routes, and all links and borders of all of them."""

    sites: tuple[SiteId, ...]
    hops: int
    links: tuple[LinkId, ...]


class Telling:
    """Writes into the chronicle what was seen on links and done about it.

    ``next_way`` returns the way that the next keys of a pair will go, None if there is none.
    """

    def __init__(self, chronicle: Chronicle, next_way: Callable[[SaeId, SaeId], Route | None]) -> None:
        self._chronicle, self._next_way = chronicle, next_way
        self._ways: dict[PairOfSaes, Way] = {}
        self._left: dict[PairOfSaes, float] = {}
        self._untold: list[PairOfSaes] = []

    def block(self, seen: BlockKept | BlockRefused, qber: float, *, attacked: bool) -> None:
        """An error rate was measured that people should hear of."""
        if isinstance(seen, BlockRefused):
            tone, what = Tone.BAD, f"above the bound of {QBER_MAX:.0%}: the block gives no key"
        elif attacked:
            tone, what = Tone.NOTE, f"below the bound of {QBER_MAX:.0%}: its keys are shorter"
        else:
            tone, what = Tone.GOOD, "nobody listens any more"
        text = f"QBER {qber:.1%} measured on {self._chronicle.hop_name(seen.link_id)}, {what}"
        self._chronicle.note("qber", tone, text, seen.now_s, links=[seen.link_id])

    def reaction(self, seen: Seen, effects: Iterable[Effect], now_s: float) -> None:
        """Something was seen, and this follows from it."""
        done = list(effects)
        if isinstance(seen, Ruling):
            self._ruling(seen, done, now_s)
        for effect in done:
            match effect:
                case CloseLink(link_id=link):
                    self._lost(link, now_s)
                case HoldLink(link_id=link):
                    place = self._chronicle.hop_name(link)
                    text = f"{place} is closed; what both ends have in stock of it is held"
                    self._chronicle.note("closed", Tone.BAD, text, now_s, links=[link])
                case OpenLink(link_id=link):
                    text = f"{self._chronicle.hop_name(link)} is open again"
                    self._chronicle.note("opened", Tone.GOOD, text, now_s, links=[link])
                case RaiseAlarm(alarm=alarm):
                    facts = {"code": alarm.code, "subject": alarm.link_id, "reason": alarm.reason}
                    self._chronicle.record(AuditEvent.ALARM_RAISED, **facts)
                    # That its ends are out of touch was told with what has parted them.
                    if not isinstance(seen, LinkLost):
                        text = f"Alarm, {alarm.code} on {self._chronicle.hop_name(alarm.link_id)}: "
                        text += _plain(seen, alarm.reason)
                        self._chronicle.note("alarm", Tone.BAD, text, now_s, links=[alarm.link_id])
                case ClearAlarm(code=code, link_id=link, reason=reason):
                    self._chronicle.record(AuditEvent.ALARM_CLEARED, code=code, subject=link, reason=reason)
                    if code != EAVESDROPPING:
                        text = f"Alarm over, {code} on {self._chronicle.hop_name(link)}: {reason}"
                        self._chronicle.note("alarm over", Tone.GOOD, text, now_s, links=[link])
                case _:
                    pass

    def relayed(self, order: EndToEndOrder, now_s: float) -> None:
        """A batch has come about; if its pair had lost its way, its keys flow again."""
        pair = (SaeId(order.master_sae), SaeId(order.slave_sae))
        first = order.paths[0]
        links = tuple(LinkId(link) for path in order.paths for link in path.links)
        way = Way(tuple(SiteId(site) for site in first.route), len(first.qkd_links), links)
        before = self._ways.get(pair)
        self._ways[pair] = way
        left_s = self._left.pop(pair, None)
        if left_s is None or before is None or before.sites == way.sites:
            return
        text = (
            f"Keys of {self._ends(way)} flow again, {now_s - left_s:.1f} s after: "
            f"{self._chronicle.way_name(way.sites)}, {_hops(way.hops, before)}"
        )
        self._chronicle.note("rerouted", Tone.GOOD, text, now_s, route=way.sites)

    def _ruling(self, ruling: Ruling, effects: list[Effect], now_s: float) -> None:
        batches = sum(isinstance(each, DestroyBatch | ReleaseBatch) for each in effects)
        what = "is destroyed at both ends" if ruling.verdict == DESTROY else "may be used"
        place = self._chronicle.hop_name(ruling.link_id)
        count = "a batch" if batches == 1 else f"{batches} batches"
        held = f", and {count} that went over it," if batches else ""
        text = f"{ruling.officer} ruled on {place}: its stock{held} {what}"
        self._chronicle.note("ruled", Tone.NOTE, text, now_s, links=[ruling.link_id])
        facts = {"subject": ruling.link_id, "verdict": ruling.verdict, "batches": batches}
        self._chronicle.record(AuditEvent.SUSPICION_RULED, ruling.officer, "security-officer", **facts)

    def _lost(self, link: LinkId, now_s: float) -> None:
        """Note which pairs have lost their way; their new ones are told when all that is lost is known."""
        concerned = [pair for pair, way in self._ways.items() if link in way.links]
        for pair in concerned:
            if pair not in self._left:
                self._left[pair] = now_s
                if not self._untold:
                    asyncio.get_running_loop().call_soon(self._tell_ways, now_s)
                self._untold.append(pair)

    def _tell_ways(self, now_s: float) -> None:
        untold, self._untold = self._untold, []
        for pair in untold[:PAIRS_TOLD_MAX]:
            self._tell_way(pair, now_s)
        if len(untold) > PAIRS_TOLD_MAX:
            text = f"{len(untold) - PAIRS_TOLD_MAX} more pairs have lost their way"
            self._chronicle.note("way", Tone.NOTE, text, now_s)

    def _tell_way(self, pair: PairOfSaes, now_s: float) -> None:
        before, way = self._ways[pair], self._next_way(*pair)
        ends = self._ends(before)
        if way is None:
            text = f"No other way joins {ends}: they have what is in stock, and wait"
            self._chronicle.note("no way", Tone.BAD, text, now_s, route=before.sites)
            return
        hops = sum(not is_border(link) for link in way.links)
        text = f"Next keys of {ends} go {self._chronicle.way_name(way.sites)}, {_hops(hops, before)}"
        self._chronicle.note("way", Tone.NOTE, text, now_s, route=way.sites)

    def _ends(self, way: Way) -> str:
        first, last = way.sites[0], way.sites[-1]
        return f"{self._chronicle.site_name(first)} and {self._chronicle.site_name(last)}"


def _plain(seen: Seen, reason: str) -> str:
    """Return an alarm's reason without what the distillation said in its own words."""
    said = seen.reason if isinstance(seen, BlockRefused) else ""
    if not said or not reason.startswith(said):
        return reason
    rest = reason.removeprefix(said).removeprefix("; ")
    return rest or "nothing was relayed over it since its last good block"


def _hops(hops: int, before: Way) -> str:
    return f"{hops} hops as before" if hops == before.hops else f"{hops} hops instead of {before.hops}"
