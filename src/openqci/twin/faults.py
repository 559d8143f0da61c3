"""The faults that a person has put into a running twin: what stands, and what follows for hops and nodes.

Pure state on simulated time. Two faults may break the same hop; it is whole again when the last of them is
over. What a fault means is computed from the network as it is: a link is all its hops, a stopped node takes
its hops and borders with it, an isolated domain loses every hop and border that joins it with another.

An eavesdropper intercepts and resends the photons of one hop (:mod:`openqci.quantum.interception`). She
measures a fraction ``p`` of all pulses, and the error rate rises from ``E`` to ``E + p (1/4 - E/2)``: nothing
is set to a figure, the distillation finds out.

Who brings a fault to life: ``openqci.cli.up.faulting``.
"""

import difflib
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TypedDict

import msgspec

from openqci.core.errors import ConfigurationError
from openqci.core.identifiers import LinkId, SaeId, SiteId
from openqci.links import LinkForecast
from openqci.network import Network
from openqci.twin.block import QBER_MAX

FAULTS_MAX = 64
"""Faults that may stand at once: more than a demonstration needs, and few enough for one screen."""

FOR_S_MAX = 7 * 86_400.0
NAMES_SHOWN = 3


class FaultKind(StrEnum):
    """What can be done to a network."""

    CUT = "cut"
    STOP = "stop"
    QBER = "qber"
    ISOLATE = "isolate"
    FLOOD = "flood"


class FaultOrder(msgspec.Struct, frozen=True, omit_defaults=True):
    """What somebody wants: ``added_qber`` goes with :attr:`FaultKind.QBER` alone."""

    kind: FaultKind
    target: str
    by: str
    for_s: float | None = None
    added_qber: float | None = None


class Fault(msgspec.Struct, frozen=True):
    """A fault that stands: the hops and borders that it breaks, or the hop that it listens in on, and where.

    ``intercepted`` is the fraction of pulses that an eavesdropper measures, ``expected_qber`` what will come
    of it.
    """

    fault_id: str
    kind: FaultKind
    target: str
    by: str
    since_s: float
    until_s: float | None
    links: tuple[LinkId, ...] = ()
    sites: tuple[SiteId, ...] = ()
    intercepted: float = 0.0
    expected_qber: float | None = None

    @property
    def breaks(self) -> bool:
        """Whether its hops are down."""
        return self.kind in (FaultKind.CUT, FaultKind.STOP, FaultKind.ISOLATE)

    @property
    def reason(self) -> str:
        """Why its hops are down, for alarms."""
        reasons = {
            FaultKind.CUT: f"the fibre of {self.target} is cut",
            FaultKind.STOP: f"node {self.target} is stopped",
            FaultKind.ISOLATE: f"domain {self.target} is cut off",
        }
        return reasons.get(self.kind, "")


class Reach(TypedDict, total=False):
    """What a fault gets hold of: the fields of :class:`Fault` that follow from its target."""

    links: tuple[LinkId, ...]
    sites: tuple[SiteId, ...]
    intercepted: float
    expected_qber: float


class FaultBook:
    """All faults that stand in one network."""

    def __init__(self, network: Network, forecasts: Mapping[LinkId, LinkForecast]) -> None:
        self._network, self._forecasts = network, forecasts
        self._standing: dict[str, Fault] = {}
        self._number = 0

    def standing(self) -> list[Fault]:
        """Return the faults in the order in which they began."""
        return list(self._standing.values())

    def inject(self, order: FaultOrder, now_s: float) -> Fault:
        """Let a fault begin; ConfigurationError if it cannot be, or stands already."""
        if len(self._standing) >= FAULTS_MAX:
            raise ConfigurationError(f"{FAULTS_MAX} faults stand already; clear some first")
        if order.for_s is not None and not 0 < order.for_s <= FOR_S_MAX:
            raise ConfigurationError(f"for {order.for_s:g} s: expected above 0, at most {FOR_S_MAX:g}")
        if (order.added_qber is not None) != (order.kind is FaultKind.QBER):
            raise ConfigurationError("an added error rate belongs to the fault qber, which needs one")
        for each in self._standing.values():
            if (each.kind, each.target) == (order.kind, order.target):
                raise ConfigurationError(f"{order.kind} {order.target} stands already as {each.fault_id}")
        until_s = None if order.for_s is None else now_s + order.for_s
        name = f"f{self._number + 1}"
        fault = Fault(name, order.kind, order.target, order.by, now_s, until_s, **self._reach(order))
        self._number += 1
        self._standing[name] = fault
        return fault

    def clear(self, fault_id: str) -> Fault:
        """End a fault; ConfigurationError if none of this ID stands."""
        if fault_id not in self._standing:
            known = ", ".join(self._standing) or "none"
            raise ConfigurationError(f"no fault {fault_id!r} stands; those that do: {known}")
        return self._standing.pop(fault_id)

    def due(self, now_s: float) -> list[Fault]:
        """Return the faults whose time is over."""
        return [each for each in self.standing() if each.until_s is not None and each.until_s <= now_s]

    def broken(self) -> dict[LinkId, str]:
        """Return why hops and borders are down: the reason of the earliest fault on each."""
        reasons: dict[LinkId, str] = {}
        for fault in self.standing():
            if fault.breaks:
                for link in fault.links:
                    reasons.setdefault(link, fault.reason)
        return reasons

    def intercepted(self) -> dict[LinkId, float]:
        """Return the fraction of pulses that an eavesdropper measures, by hop."""
        return {
            link: fault.intercepted
            for fault in self.standing()
            if fault.kind is FaultKind.QBER
            for link in fault.links
        }

    def stopped(self) -> set[SiteId]:
        """Return the nodes that are stopped."""
        return {site for each in self.standing() if each.kind is FaultKind.STOP for site in each.sites}

    def _reach(self, order: FaultOrder) -> Reach:
        match order.kind:
            case FaultKind.CUT:
                return {"links": self._hops_of_link(order.target)}
            case FaultKind.STOP:
                site = SiteId(known(order.target, self._network.sites, "node"))
                links = tuple(link for link, *ends in self._network.edges() if site in ends)
                return {"sites": (site,), "links": links}
            case FaultKind.ISOLATE:
                return self._isolated(known(order.target, self._network.domains, "domain"))
            case FaultKind.FLOOD:
                sae = self._network.saes[SaeId(known(order.target, self._network.saes, "SAE"))]
                return {"sites": (sae.site,)}
            case FaultKind.QBER:
                return self._listened(order)

    def _listened(self, order: FaultOrder) -> Reach:
        link = LinkId(known(order.target, self._network.hops, "hop"))
        calm = self._forecasts[link].qber
        most = 0.25 - calm / 2
        added = order.added_qber or 0.0
        if not 0 < added <= most:
            raise ConfigurationError(
                f"an added error rate of {added:g} on {link}: expected above 0, at most {most:.3f}, which is "
                "what measuring every pulse adds"
            )
        return {"links": (link,), "intercepted": added / most, "expected_qber": calm + added}

    def _hops_of_link(self, name: str) -> tuple[LinkId, ...]:
        hops, borders = self._network.hops.values(), {border.link_id for border in self._network.borders}
        if name in borders:
            return (LinkId(name),)
        names = {name for hop in hops for name in (hop.link_id, hop.parent_link)}
        known(name, names | borders, "hop or link")
        return tuple(hop.link_id for hop in hops if name in (hop.link_id, hop.parent_link))

    def _isolated(self, domain: str) -> Reach:
        sites = self._network.sites
        joints = [
            (link, ends)
            for link, *ends in self._network.edges()
            if len({sites[end].domain == domain for end in ends}) > 1
        ]
        if not joints:
            raise ConfigurationError(f"nothing joins domain {domain} with another: it is isolated already")
        return {"links": tuple(link for link, _ in joints), "sites": tuple(ends[0] for _, ends in joints)}


def known(name: str, names: Iterable[str], kind: str) -> str:
    """Return a name that exists; else ConfigurationError with those that look like it."""
    every = list(names)
    if name in every:
        return name
    close = difflib.get_close_matches(name, every, n=NAMES_SHOWN, cutoff=0.5)
    hint = f"; did you mean {', '.join(close)}?" if close else ""
    raise ConfigurationError(f"this network has no {kind} {name!r}{hint}")


def is_noticed(fault: Fault) -> bool:
    """Tell whether an eavesdropper raises the error rate above the bound of the distillation."""
    return fault.expected_qber is not None and fault.expected_qber > QBER_MAX
