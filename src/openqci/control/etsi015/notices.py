"""What a node notifies controllers of: the 11 notifications of ETSI GS QKD 015, from what has changed.

A :class:`Herald` is shown the node's facts and its standing alarms again and again, and returns what is new,
each once. Protocol core without I/O.

>>> from openqci.core.identifiers import KmeId
>>> herald = Herald(Memory())
>>> link = LinkFacts(LinkId("a--b"), 1, KmeId("kme-b"), "BB84", True, 0, 0.0)
>>> facts = NodeFacts(KmeId("kme-a"), "", "1", False, (link,))
>>> [notice.name for notice in herald.look(facts, ())]
['sdqkdn_interface_new']
>>> cut = msgspec.structs.replace(facts, links=(msgspec.structs.replace(link, trouble="no light"),))
>>> [notice.name for notice in herald.look(cut, ())], herald.look(cut, ())
(['sdqkdn_interface_down', 'sdqkdn_link_down'], [])
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from openqci.control.etsi015.model import identity
from openqci.control.etsi015.node import (
    LinkFacts,
    NodeFacts,
    PairFacts,
    application_document,
    application_uuid,
    interface_document,
    interface_status,
    link_status,
    link_uuid,
    performance_document,
)
from openqci.core.identifiers import LinkId

NAMES = (
    "sdqkdn_application_new",
    "sdqkdn_application_qos_update",
    "sdqkdn_application_disconnected",
    "sdqkdn_interface_new",
    "sdqkdn_interface_down",
    "sdqkdn_interface_out",
    "sdqkdn_link_down",
    "sdqkdn_link_perf_update",
    "sdqkdn_link_overloaded",
    "alarm",
    "event",
)
RATE_CHANGE = 0.25
"""A change of a link's rate by a smaller part is not told: rates are means of half a minute, and waver."""

OF_LINKS = frozenset({"mismatch", "over-committed"})
OF_INTERFACES = frozenset({"source"})
OF_APPLICATIONS = frozenset({"stock"})


class Notice(msgspec.Struct, frozen=True):
    """One notification: its name in ``etsi-qkd-sdn-node``, and what it says."""

    name: str
    content: dict[str, Any]


class StandingAlarm(msgspec.Struct, frozen=True):
    """One alarm of the node: what, of which link or pair, why, and whether it is major."""

    code: str
    subject: str
    reason: str
    major: bool


class Memory(msgspec.Struct, frozen=True):
    """What outlives the node's process: QKD modules by their links, with their numbers, and the pairs.

    An operator changes these in the node's file, and starts the node again.
    """

    interfaces: dict[LinkId, int] = {}
    pairs: tuple[PairFacts, ...] | None = None


class Herald:
    """Knows what was told, since :class:`Memory` of an earlier life."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self._links: tuple[LinkFacts, ...] = ()
        self._told_bps: dict[LinkId, float] = {}
        self._overloaded: set[LinkId] = set()
        self._alarms: dict[tuple[str, str], StandingAlarm] = {}

    def look(self, facts: NodeFacts, alarms: Iterable[StandingAlarm]) -> list[Notice]:
        """Return what has come about since the last look."""
        before, self.memory = self.memory, Memory(_numbers(facts.links), facts.pairs)
        links, self._links = self._links, facts.links
        standing = {(alarm.code, alarm.subject): alarm for alarm in alarms}
        earlier, self._alarms = self._alarms, standing
        return [
            *_of_interfaces(before.interfaces, facts.links),
            *_of_links(links, facts.links),
            *(_of_pairs(before.pairs, facts) if before.pairs is not None else ()),
            *self._of_rates(facts),
            *_of_alarms(earlier, standing, facts),
        ]

    def _of_rates(self, facts: NodeFacts) -> Iterator[Notice]:
        """Yield whose rate has changed by much, and who is expected to give more than that."""
        for link in facts.links:
            told_bps = self._told_bps.setdefault(link.link_id, link.rate_bps)
            expected = performance_document(link, facts)
            content = {"qkd_link": {"qkdl_id": str(link_uuid(link.link_id)), "performance": expected}}
            if abs(link.rate_bps - told_bps) > RATE_CHANGE * max(told_bps, 1.0):
                self._told_bps[link.link_id] = link.rate_bps
                yield Notice("sdqkdn_link_perf_update", content)
            # A link whose rate is not known yet is not overloaded.
            overloaded = 0 < link.rate_bps < expected["expected_consumption"]
            if overloaded and link.link_id not in self._overloaded:
                yield Notice("sdqkdn_link_overloaded", content)
            (self._overloaded.add if overloaded else self._overloaded.discard)(link.link_id)


def _numbers(links: Iterable[LinkFacts]) -> dict[LinkId, int]:
    return {link.link_id: link.number for link in links}


def _of_interfaces(before: Mapping[LinkId, int], links: Sequence[LinkFacts]) -> Iterator[Notice]:
    """Yield which QKD modules came and went."""
    for link in links:
        if link.link_id not in before:
            told = interface_document(link)
            del told["qkdi_status"]
            yield Notice("sdqkdn_interface_new", {"qkd_interface": told})
    for link_id in before.keys() - _numbers(links).keys():
        yield Notice("sdqkdn_interface_out", {"qkd_interface": {"qkdi_id": before[link_id]}})


def _of_links(before: Iterable[LinkFacts], after: Iterable[LinkFacts]) -> Iterator[Notice]:
    """Yield which links have lost their key or their module, and which were switched."""
    earlier = {link.link_id: link for link in before}
    for link in after:
        known = earlier.get(link.link_id)
        named = {"qkdl_id": str(link_uuid(link.link_id))}
        if known is not None and known.enabled != link.enabled:
            status = {"qkdl_status": identity("LINK-STATUS-TYPES", link_status(link))}
            message = f"switched {'on' if link.enabled else 'off'} by a controller"
            yield Notice("event", _said(("link", named | status), message, major=False))
        if known is not None and link.enabled and link.trouble and not known.trouble:
            why = {"reason": link.trouble}
            yield Notice("sdqkdn_interface_down", {"qkd_interface": {"qkdi_id": link.number} | why})
            yield Notice("sdqkdn_link_down", {"qkd_link": named | why})


def _of_pairs(before: Iterable[PairFacts], facts: NodeFacts) -> Iterator[Notice]:
    """Yield which applications are new, gone, or promised something else."""
    earlier = {(pair.master, pair.slaves): pair for pair in before}
    there = {(pair.master, pair.slaves) for pair in facts.pairs}
    for pair in facts.pairs:
        known = earlier.get((pair.master, pair.slaves))
        document = application_document(pair, facts.kme)
        if known is None:
            told = ("app_type", "server_app_id", "client_app_id", "app_priority", "local_qkdn_id", "app_qos")
            content = {"qkd_application": {name: document[name] for name in told}}
            yield Notice("sdqkdn_application_new", content)
        elif _promised(known) != _promised(pair):
            changed = {name: document[name] for name in ("app_id", "app_priority", "app_qos")}
            yield Notice("sdqkdn_application_qos_update", {"qkd_application": changed})
    for master, slaves in earlier.keys() - there:
        gone = {"app_id": str(application_uuid(master, slaves))}
        yield Notice("sdqkdn_application_disconnected", {"qkd_application": gone})


def _promised(pair: PairFacts) -> tuple[int, int, int, float]:
    return pair.priority, pair.max_bps, pair.min_bps, pair.ttl_s


def _of_alarms(
    before: Mapping[tuple[str, str], StandingAlarm],
    after: Mapping[tuple[str, str], StandingAlarm],
    facts: NodeFacts,
) -> Iterator[Notice]:
    """Yield alarms that were raised, and as events those that are over."""
    for key in after.keys() - before.keys():
        if (subject := _subject(after[key], facts)) is not None:
            yield Notice("alarm", _said(subject, after[key].reason, major=after[key].major))
    for key in before.keys() - after.keys():
        if (subject := _subject(before[key], facts)) is not None:
            yield Notice("event", _said(subject, f"over: {before[key].reason}", major=False))


def _subject(alarm: StandingAlarm, facts: NodeFacts) -> tuple[str, dict[str, Any]] | None:
    """Return what an alarm is about as the standard names it; None if it is about neither of its kinds."""
    for link in facts.links:
        if link.link_id == alarm.subject and alarm.code in OF_LINKS:
            status = identity("LINK-STATUS-TYPES", link_status(link))
            return "link", {"qkdl_id": str(link_uuid(link.link_id)), "qkdl_status": status}
        if link.link_id == alarm.subject and alarm.code in OF_INTERFACES:
            status = identity("IFACE-STATUS-TYPES", interface_status(link))
            return "interface", {"qkdi_id": link.number, "qkdi_status": status}
    for pair in facts.pairs:
        if f"{pair.master} > {'+'.join(pair.slaves)}" == alarm.subject and alarm.code in OF_APPLICATIONS:
            status = identity("APP-STATUS-TYPES", "ON")
            return "application", {
                "app_id": str(application_uuid(pair.master, pair.slaves)),
                "app_status": status,
            }
    return None


def _said(subject: tuple[str, dict[str, Any]], message: str, *, major: bool) -> dict[str, Any]:
    kind, named = subject
    severity = identity("SEVERITY-TYPES", "MAJOR" if major else "MINOR")
    return {kind: {**named, "message": message, "severity": severity}}
