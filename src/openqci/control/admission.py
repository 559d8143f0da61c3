"""Who gets how much of which hop: budgets, classes, stretch, and why somebody gets less or nothing.

Every hop has a budget, the secret key that it can be counted on to bring. Every flow wants a rate over all
hops of its routes and can do with less, down to a least rate of its class. Levels are served
one after the other, so that nobody is ever worse off for a flow of a lower level. Within a level:

1. The least rates are granted in the order in which flows came, to each that fits on all its hops. One that
   does not fit is refused, with the hop that lacks most; an emergency comes before all levels and so takes
   what lower ones had: they are stretched, or suspended, and told so.
2. What is left raises all granted flows together, as equal parts of what they want, until a hop is full;
   flows over that hop stay there, the others go on (max-min fairness, D. Bertsekas and R. Gallager, *Data
   Networks*, 2nd ed., 6.5.2).

One-time pads are served first, but of each hop they get no more than a part, :data:`PAD_PART`: what is left
changes the keys of AES everywhere. An emergency goes beyond that part.

Pure: wishes and budgets in, grants out; it remembers nothing. It is quick enough to be asked anew whenever
something changes: three thousand flows take a fraction of a second.

>>> def wish(name, level, wanted_bps, least_bps):
...     return FlowWish(name, level, wanted_bps, least_bps, (LinkId("a--b"),))
>>> asked = [wish("voice", 1, 600.0, 60.0), wish("tunnel", 3, 800.0, 100.0), wish("bulk", 4, 900.0, 500.0)]
>>> decided = admit(asked, {LinkId("a--b"): 1000.0})
>>> [round(decided.grants[name].granted_bps) for name in ("voice", "tunnel", "bulk")]
[600, 400, 0]
>>> decided.grants["bulk"].reason
'hop a--b lacks 500 of the 500 bit/s that are the least'
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import msgspec
import numpy as np
import numpy.typing as npt

from openqci.control.classes import EMERGENCY
from openqci.core.forecasts import RateForecast
from openqci.core.identifiers import LinkId

BUDGET_PART = 0.9
"""Part of a forecast that flows may count on; the rest refills what faults have emptied."""

RAISES_PER_FULL_HOP = 48
"""Halvings in the search for the level at which the next hop is full: to one part in 10^14."""

PAD_PART = 0.75
"""Part of a hop that one-time pads may take: they come first and would take all, where AES needs little."""

Floats = npt.NDArray[np.float64]


class FlowWish(msgspec.Struct, frozen=True):
    """What a flow asks for.

    ``links`` are the hops of all its routes together; a hop that stands there twice pays twice. ``spends``
    is the link key that one hop spends for a bit of end-to-end key: the key and the relay's own share.
    ``pad`` marks a one-time pad, ``emergency`` puts a flow before all levels. Of the wishes of one level
    those that stand first came first.
    """

    flow_id: str
    class_level: int
    wanted_bps: float
    least_bps: float
    links: tuple[LinkId, ...]
    spends: float = 1.0
    pad: bool = False
    emergency: bool = False

    @property
    def level(self) -> int:
        return EMERGENCY if self.emergency else self.class_level


class Grant(msgspec.Struct, frozen=True):
    """What a flow gets. ``link_id`` is the hop that keeps it from more, if one does; ``reason`` says why."""

    flow_id: str
    granted_bps: float
    stretch: float = 1.0
    link_id: LinkId | None = None
    reason: str = ""

    @property
    def admitted(self) -> bool:
        return self.granted_bps > 0

    @property
    def stretched(self) -> bool:
        return self.admitted and self.stretch > 1.0


@dataclass(frozen=True)
class Admission:
    """All grants by flow, and what is left of each hop's budget, in bit/s."""

    grants: Mapping[str, Grant]
    left_bps: Mapping[LinkId, float]

    @property
    def refused(self) -> list[Grant]:
        """Flows that get nothing."""
        return [grant for grant in self.grants.values() if not grant.admitted]

    @property
    def stretched(self) -> list[Grant]:
        """Flows that get less than they want."""
        return [grant for grant in self.grants.values() if grant.stretched]


class Notice(msgspec.Struct, frozen=True):
    """What has changed for a flow, for whoever runs its application.

    ``what`` is "stretched", "suspended", "refused", "eased" (it gets more than before) or "restored".
    """

    flow_id: str
    what: str
    granted_bps: float
    reason: str


def budgets(forecasts: Iterable[RateForecast], part: float = BUDGET_PART) -> dict[LinkId, float]:
    """Return the budget of each hop, in bit/s."""
    return {each.link_id: part * each.secret_key_rate_bps for each in forecasts}


def admit(wishes: Iterable[FlowWish], budget_bps: Mapping[LinkId, float]) -> Admission:
    """Decide on all flows at once; a hop without a budget has none.

    Raises ValueError for a flow that stands there twice, or asks for less than its least.
    """
    asked = list(wishes)
    _check(asked)
    rows = _Rows(sorted(set(budget_bps).union(*(wish.links for wish in asked))))
    left = rows.left(budget_bps)
    grants: dict[str, Grant] = {}
    for number, level in groupby(sorted(asked, key=lambda wish: wish.level), key=lambda wish: wish.level):
        grants |= _Level(list(level), rows, left).grants()
        if number == EMERGENCY:
            rows.note_emergencies(budget_bps, left)
    in_order = {wish.flow_id: grants[wish.flow_id] for wish in asked}
    return Admission(in_order, dict(zip(rows.links, left.tolist(), strict=False)))


def notices(before: Admission, after: Admission) -> Iterator[Notice]:
    """Yield what has changed from one admission to the next, for each flow that it changes something for."""
    for flow_id, now in after.grants.items():
        was = before.grants.get(flow_id)
        what = _change(was, now)
        if what:
            yield Notice(flow_id, what, now.granted_bps, now.reason)


CHANGE_PART = 0.01
"""Rates that differ by less are told as equal."""


def _change(was: Grant | None, now: Grant) -> str:
    if was is None or not was.admitted:
        if not now.admitted:
            return "refused" if was is None else ""
        if was is None:
            return "stretched" if now.stretched else ""
        return "restored"
    if not now.admitted:
        return "suspended"
    if now.granted_bps < (1 - CHANGE_PART) * was.granted_bps:
        return "stretched"
    return "eased" if now.granted_bps > (1 + CHANGE_PART) * was.granted_bps else ""


def _check(wishes: Sequence[FlowWish]) -> None:
    for flow_id, times in Counter(wish.flow_id for wish in wishes).items():
        if times > 1:
            raise ValueError(f"flow {flow_id} asks {times} times; expected once")
    for wish in wishes:
        if not 0 < wish.least_bps <= wish.wanted_bps < float("inf"):
            raise ValueError(
                f"flow {wish.flow_id} wants {wish.wanted_bps:g} bit/s and at the least {wish.least_bps:g}; "
                "expected a least above 0 and not above what it wants"
            )


class _Rows:
    """What is counted: a row for each hop, and after these one for each hop's part for one-time pads."""

    def __init__(self, links: Sequence[LinkId]) -> None:
        self.links = links
        self._number = {link: number for number, link in enumerate(links)}
        self._emergencies = np.zeros(len(links))

    def left(self, budget_bps: Mapping[LinkId, float]) -> Floats:
        """Return what there is at first, row by row."""
        whole = np.array([max(0.0, budget_bps.get(link, 0.0)) for link in self.links])
        return np.concatenate([whole, PAD_PART * whole])

    def of(self, wish: FlowWish) -> tuple[npt.NDArray[np.intp], Floats]:
        """Return the rows that a flow takes from, and how much for a bit of its key."""
        times = Counter(self._number[link] for link in wish.links)
        hops = np.fromiter(times.keys(), dtype=np.intp, count=len(times))
        per_bit = wish.spends * np.fromiter(times.values(), dtype=float, count=len(times))
        if wish.pad and not wish.emergency:
            return np.concatenate([hops, hops + len(self.links)]), np.concatenate([per_bit, per_bit])
        return hops, per_bit

    def hop(self, row: int) -> LinkId:
        return self.links[row % len(self.links)]

    def note_emergencies(self, budget_bps: Mapping[LinkId, float], left: Floats) -> None:
        """Remember what emergencies have taken of each hop, to tell the others."""
        self._emergencies = self.left(budget_bps)[: len(self.links)] - left[: len(self.links)]

    def name(self, row: int) -> str:
        part = ", of what it has for one-time pads," if row >= len(self.links) else ""
        return f"hop {self.hop(row)}{part}"

    def blame(self, row: int) -> str:
        taken_bps = float(self._emergencies[row % len(self.links)])
        return f"; emergencies take {taken_bps:.3g} bit/s of it" if taken_bps > 0 else ""


class _Level:
    """The flows of one level, and what earlier levels have left of the hops, which it takes from."""

    def __init__(self, wishes: Sequence[FlowWish], rows: _Rows, left: Floats) -> None:
        self._wishes, self._left, self._names = wishes, left, rows
        self._bottleneck: dict[int, tuple[int, str]] = {}
        self._hops = [rows.of(wish) for wish in wishes]
        self._least = np.array([wish.least_bps / wish.wanted_bps for wish in wishes])
        self._level_name = "an emergency" if wishes[0].level == EMERGENCY else f"level {wishes[0].level}"

    def grants(self) -> Iterator[tuple[str, Grant]]:
        admitted = [number for number in range(len(self._wishes)) if self._grant_least(number)]
        parts = np.zeros(len(self._wishes))
        parts[admitted] = self._raised(admitted)
        for wish, number, part in zip(self._wishes, range(len(parts)), parts.tolist(), strict=True):
            yield wish.flow_id, self._grant(wish, number, part)

    def _grant_least(self, number: int) -> bool:
        """Take the least that a flow needs from all its hops, if all have it."""
        hops, per_bit = self._hops[number]
        needed = per_bit * self._wishes[number].least_bps
        lacking = needed - self._left[hops]
        if lacking.size and lacking.max() > 0:
            worst = int(lacking.argmax())
            lack, need = float(lacking[worst]), float(needed[worst])
            name = self._names.name(int(hops[worst]))
            text = f"{name} lacks {lack:.3g} of the {need:.3g} bit/s that are the least"
            self._bottleneck[number] = int(hops[worst]), text + self._names.blame(int(hops[worst]))
            return False
        self._left[hops] -= needed
        return True

    def _raised(self, admitted: Sequence[int]) -> Floats:
        """Raise all admitted flows together; return which part each gets of what it wants."""
        least = self._least[admitted]
        parts = least.copy()
        if not admitted:
            return parts
        load = _Load.of([(*self._hops[number], self._wishes[number].wanted_bps) for number in admitted])
        start = self._left.copy()
        rising = least < 1.0

        def left_at(height: float) -> Floats:
            """Return what would be left of each hop if all rising flows stood at this height."""
            at = np.where(rising, np.maximum(least, height), parts)
            return start - load.of_parts(at - least, len(start))

        height = 0.0
        while rising.any() and (left_at(1.0) < 0).any():
            high = 1.0
            for _ in range(RAISES_PER_FULL_HOP):
                middle = (height + high) / 2
                height, high = (height, middle) if (left_at(middle) < 0).any() else (middle, high)
            full = left_at(high) < 0
            parts[rising] = np.maximum(least[rising], height)
            rising &= ~self._stopped(load, full, rising, admitted)
        parts[rising] = 1.0
        self._left[:] = np.maximum(0.0, start - load.of_parts(parts - least, len(start)))
        return parts

    def _stopped(
        self,
        load: "_Load",
        full: npt.NDArray[np.bool_],
        rising: npt.NDArray[np.bool_],
        admitted: Sequence[int],
    ) -> npt.NDArray[np.bool_]:
        """Return the rising flows that cross a full hop, and note which hop it is."""
        stopped = np.zeros(len(admitted), dtype=bool)
        over = full[load.hops] & rising[load.flows]
        for hop, flow in zip(load.hops[over].tolist(), load.flows[over].tolist(), strict=True):
            stopped[flow] = True
            text = f"{self._names.name(hop)} is full; {self._level_name} shares it{self._names.blame(hop)}"
            self._bottleneck.setdefault(admitted[flow], (hop, text))
        return stopped

    def _grant(self, wish: FlowWish, number: int, part: float) -> Grant:
        hop, reason = self._bottleneck.get(number, (-1, ""))
        link = None if hop < 0 else self._names.hop(hop)
        if part == 0.0:
            return Grant(wish.flow_id, 0.0, float("inf"), link, reason)
        return Grant(wish.flow_id, part * wish.wanted_bps, 1 / part, link, reason)


@dataclass(frozen=True)
class _Load:
    """What flows put on hops, one entry per flow and hop, in bit/s of link key where all is granted."""

    flows: npt.NDArray[np.intp]
    hops: npt.NDArray[np.intp]
    whole_bps: Floats

    @classmethod
    def of(cls, flows: Sequence[tuple[npt.NDArray[np.intp], Floats, float]]) -> "_Load":
        lengths = [len(hops) for hops, _, _ in flows]
        return cls(
            np.repeat(np.arange(len(flows)), lengths),
            np.concatenate([hops for hops, _, _ in flows]),
            np.concatenate([per_bit * wanted_bps for _, per_bit, wanted_bps in flows]),
        )

    def of_parts(self, parts: Floats, hops: int) -> Floats:
        """Return the load of each hop when flows are granted these parts."""
        load = np.bincount(self.hops, weights=self.whole_bps * parts[self.flows], minlength=hops)
        return load.astype(np.float64)
