"""The controller of one domain: learns from its nodes, and says what they go by.

A node reports what its links bring, what they and the pairs' stocks hold, and which peers it meets. The
controller keeps what its operator has laid down (nodes, links, pairs, borders, as a configuration in a file),
adds what it has learned, and makes a new version when something has changed that a route would change for:
a link that came or went, a rate that moved by more than a quarter, a key of a node.

Protocol core without I/O: reports and times go in, configurations and alarms come out. It holds no key.

>>> laid_down = DomainConfiguration("XX", 1, 0.0, nodes=(Node("kme-a"), Node("kme-b")),
...                                 links=(Link("a--b", "kme-a", "kme-b"),))
>>> controller = Controller(laid_down)
>>> controller.next_configuration(now_s=1.0).version, controller.next_configuration(now_s=9.0)
(1, None)
>>> cut = NodeReport("kme-a", links=(LinkReport("a--b", trouble="QBER 12 % is above the bound"),))
>>> controller.receive_report(cut, now_s=10.0)
>>> controller.next_configuration(now_s=10.0).links[0].usable
False
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from openqci.control.configuration import DomainConfiguration, Link, Node, Reach
from openqci.core.errors import PeerMisbehaved
from openqci.core.identifiers import KmeId, LinkId

SILENT_S = 15.0
"""A node that has not reported for so long is silent: an alarm. Its links stay as they are (invariant I8)."""

VERSION_S_MIN = 0.5
"""Shortest time between two versions, so that a link that comes and goes does not flood the domain."""

RATE_WINDOW_S = 30.0
RATE_CHANGE = 0.25
"""A change of a rate by a smaller part is no reason for a new version."""

MADE = ("epsilon", "protocol", "proof", "simulated")
LINKS_MAX, PAIRS_MAX = 4_096, 10_000
TEXT_CHARACTERS_MAX = 300


class LinkReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one end of a link sees. ``deposited_bytes`` is all that has come since the node's start.

    ``trouble`` says why the link gives no key, or must not be used; empty if all is well. ``epsilon`` and
    what follows say how its latest key was made; an epsilon of 0 that the node does not know.
    """

    link_id: str
    own_bytes: int = 0
    peer_bytes: int = 0
    deposited_bytes: int = 0
    trouble: str = ""
    epsilon: float = 0.0
    protocol: str = ""
    proof: str = ""
    simulated: bool = False


class PairReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """The stock of a pair at its master's KME."""

    master: str
    slave: str
    stock_bytes: int = 0
    low_bytes: int = 0


class NodeReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a node tells its controller; ``version`` is that of the configuration it goes by."""

    kme_id: str
    version: int = 0
    links: tuple[LinkReport, ...] = ()
    pairs: tuple[PairReport, ...] = ()
    kem_key_id: str = ""
    kem_public_key: bytes = b""
    unmet: tuple[str, ...] = ()


@dataclass
class Deposits:
    """How much a link has brought, to tell its rate: (time, bytes since the start of the reporting node)."""

    points: list[tuple[float, int]] = field(default_factory=list)

    def add(self, now_s: float, total_bytes: int) -> None:
        if self.points and total_bytes < self.points[-1][1]:
            self.points.clear()  # the node was started anew
        self.points.append((now_s, total_bytes))
        while len(self.points) > 2 and self.points[1][0] <= now_s - RATE_WINDOW_S:
            self.points.pop(0)

    def rate_bps(self) -> float | None:
        """Return the mean rate over the window, None while it is too young to tell."""
        (began_s, first), (now_s, last) = self.points[0], self.points[-1]
        return 8 * (last - first) / (now_s - began_s) if now_s - began_s >= RATE_WINDOW_S / 2 else None


@dataclass(frozen=True)
class Alarm:
    """What the operator should know: a code, whom it is about, why."""

    code: str
    subject: str
    reason: str


class Controller:
    """The controller's whole state. ``laid_down`` is the operator's word; versions go on from ``version``."""

    def __init__(self, laid_down: DomainConfiguration, version: int = 0) -> None:
        self.version = max(version, laid_down.version - 1)
        self.current: DomainConfiguration | None = None
        self.reports: dict[KmeId, NodeReport] = {}
        self.heard_s: dict[KmeId, float] = {}
        self._laid_down = laid_down
        self._learned_reaches: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = ()
        self._closed: dict[LinkId, str] = {}
        self._deposits: dict[tuple[LinkId, KmeId], Deposits] = {}
        self._rates: dict[LinkId, float] = {}
        self._issued_s = float("-inf")

    def lay_down(self, laid_down: DomainConfiguration) -> None:
        """Take the operator's new word; what was learned stays."""
        self._laid_down = laid_down

    def learn_reaches(self, reaches: Sequence[tuple[str, Sequence[str], Sequence[str]]]) -> None:
        """Take from the orchestrator where other domains are: (domain, next domains, applications there)."""
        self._learned_reaches = tuple((domain, tuple(via), tuple(saes)) for domain, via, saes in reaches)

    def close_link(self, link_id: LinkId, reason: str) -> None:
        """Take a link out of use until :meth:`open_link`: an operator's or a security officer's act."""
        self._closed[link_id] = reason

    def open_link(self, link_id: LinkId) -> bool:
        """Let a closed link be used again; tell whether it was closed."""
        return self._closed.pop(link_id, None) is not None

    def receive_report(self, report: NodeReport, now_s: float) -> None:
        """Learn from a node's report. PeerMisbehaved if it is no node of the domain, or reports too much."""
        kme = KmeId(report.kme_id)
        if self._laid_down.node(kme) is None:
            raise PeerMisbehaved(f"{kme} is no node of domain {self._laid_down.domain}")
        if len(report.links) > LINKS_MAX or len(report.pairs) > PAIRS_MAX:
            raise PeerMisbehaved(f"{kme} reports on more than {LINKS_MAX} links or {PAIRS_MAX} pairs")
        self.reports[kme], self.heard_s[kme] = report, now_s
        for link in report.links:
            known = self._deposits.setdefault((LinkId(link.link_id), kme), Deposits())
            known.add(now_s, link.deposited_bytes)

    def next_configuration(self, now_s: float) -> DomainConfiguration | None:
        """Return a new version if something has changed that counts, else None."""
        if now_s - self._issued_s < VERSION_S_MIN:
            return None
        made = self._made(now_s)
        if self.current is not None and _same(made, self.current):
            return None
        self.version += 1
        self.current = msgspec.structs.replace(made, version=self.version)
        self._issued_s = now_s
        return self.current

    def alarms(self, now_s: float) -> list[Alarm]:
        """Return what is wrong now."""
        found = [
            Alarm("node silent", node.kme_id, f"has not reported for {now_s - heard_s:.0f} s")
            for node in self._laid_down.nodes
            if (heard_s := self.heard_s.get(KmeId(node.kme_id))) is not None and now_s - heard_s > SILENT_S
        ]
        found += [
            Alarm("link", link.link_id, reason)
            for link in self._laid_down.links
            if (reason := self._trouble(link)) is not None
        ]
        found += [
            Alarm("stock", f"{pair.master} > {pair.slave}", f"{pair.stock_bytes} bytes left at {kme}")
            for kme, report in self.reports.items()
            for pair in report.pairs
            if 2 * pair.stock_bytes < pair.low_bytes
        ]
        return found

    def _made(self, now_s: float) -> DomainConfiguration:
        return msgspec.structs.replace(
            self._laid_down,
            issued_s=now_s,
            version=self.version,
            nodes=tuple(map(self._learned_node, self._laid_down.nodes)),
            links=tuple(map(self._learned_link, self._laid_down.links)),
            reaches=(*self._laid_down.reaches, *self._reaches()),
        )

    def _reaches(self) -> Iterator[Reach]:
        """Yield what the orchestrator has told of domains for which the operator has laid down nothing.

        An application that the operator names itself is where the operator says.
        """
        laid_down = self._laid_down
        own = {sae for node in laid_down.nodes for sae in node.saes}
        own |= {sae for reach in laid_down.reaches for sae in reach.saes}
        told = {reach.domain for reach in laid_down.reaches}
        for domain, via, saes in self._learned_reaches:
            gates = tuple(
                dict.fromkeys(
                    border.kme_id
                    for following in via
                    for border in laid_down.borders
                    if border.partner_domain == following
                )
            )
            there = tuple(sae for sae in saes if sae not in own)
            if domain not in told and gates and there:
                own.update(there)
                yield Reach(domain, gates, there, via)

    def _learned_node(self, node: Node) -> Node:
        report = self.reports.get(KmeId(node.kme_id))
        if report is None or not report.kem_public_key:
            return node
        return msgspec.structs.replace(
            node, kem_key_id=report.kem_key_id, kem_public_key=report.kem_public_key
        )

    def _learned_link(self, link: Link) -> Link:
        """Return a link with what is known of it now; its rate is that of the end that draws its key.

        How its key is made is said by that end, too; that it is simulated, by either.
        """
        link_id = LinkId(link.link_id)
        rates = [
            rate
            for end in (link.a, link.b)
            if (seen := self._deposits.get((link_id, KmeId(end)))) and (rate := seen.rate_bps()) is not None
        ]
        stood = self._rates.get(link_id, link.rate_bps)
        if rates and abs(max(rates) - stood) > RATE_CHANGE * max(stood, 1.0):
            # A link at its high watermark rests: that it brings nothing does not say what it could bring.
            stood = max(rates) if max(rates) > stood or self._is_low(link) else stood
            self._rates[link_id] = stood
        told = [each for each in self._link_reports(link) if each.epsilon]
        drawn = max(told, key=lambda each: each.deposited_bytes, default=None)
        made = {} if drawn is None else {name: getattr(drawn, name) for name in MADE}
        if any(each.simulated for each in told):
            made["simulated"] = True
        return msgspec.structs.replace(
            link, rate_bps=stood, usable=link.usable and self._trouble(link) is None, **made
        )

    def _is_low(self, link: Link) -> bool:
        """Tell whether an end of a link wants key: then what comes is what the link can bring."""
        return any(min(report.own_bytes, report.peer_bytes) == 0 for report in self._link_reports(link))

    def _link_reports(self, link: Link) -> list[LinkReport]:
        found = [self._link_report(link, end) for end in (link.a, link.b)]
        return [report for report in found if report is not None]

    def _trouble(self, link: Link) -> str | None:
        """Return why a link must not be used, or None."""
        closed = self._closed.get(LinkId(link.link_id))
        if closed is not None:
            return closed
        for end, other in ((link.a, link.b), (link.b, link.a)):
            report = self.reports.get(KmeId(end))
            seen = self._link_report(link, end)
            if seen is not None and seen.trouble and not (seen.own_bytes and seen.peer_bytes):
                return f"{end}: {seen.trouble[:TEXT_CHARACTERS_MAX]}"
            if report is not None and other in report.unmet:
                return f"{end} does not reach {other}"
        return None

    def _link_report(self, link: Link, end: str) -> LinkReport | None:
        report = self.reports.get(KmeId(end))
        named = report.links if report is not None else ()
        return next((each for each in named if each.link_id == link.link_id), None)


def _same(one: DomainConfiguration, other: DomainConfiguration) -> bool:
    """Tell whether two configurations differ in nothing but their version and time."""
    return msgspec.structs.replace(one, version=other.version, issued_s=other.issued_s) == other
