"""A node's agent for controllers of software-defined networks: what the node tells, and what it lets them do.

The tree is made anew from the node's state whenever somebody asks (:mod:`openqci.control.etsi015`). What a
controller may set is kept in the node's store before it is acknowledged, so it holds through restarts, with
or without the controller: a link that was switched off draws no key until it is switched on again.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID

import msgspec

from openqci import __version__
from openqci.control.controller import Deposits
from openqci.control.etsi015 import LinkFacts, NodeFacts, PairFacts, link_uuid, node_document
from openqci.control.etsi015.library import modules_state, restconf_state
from openqci.control.etsi015.model import MODULE
from openqci.control.etsi015.notices import Herald, Memory, StandingAlarm
from openqci.control.etsi015.tree import Edit
from openqci.core.errors import OpenQCIError, invariant
from openqci.core.identifiers import KmeId, LinkId, SaeId
from openqci.delivery import peers
from openqci.delivery.agreement import range_bytes
from openqci.delivery.supply import BATCH_KEY_BYTES_MIN
from openqci.keystore import deposits
from openqci.keystore.ports import KmeView
from openqci.services.etsi015_stream import NoticeLog
from openqci.services.kme_config import LinkSection, LoadedConfig

log = logging.getLogger(__name__)

SWITCHED_OFF, MEMORY = "etsi015-switched-off", "etsi015-memory"
ALL = "all"
SAMPLE_EVERY_S = 1.0
LOOK_PART = 10
"""A look takes at most this part of the time, however many pairs the node has."""

TROUBLE_S = 5.0
"""Modules hand out key in blocks: some seconds without any are their usual pace."""

STOCK_BYTES_MIN = range_bytes(BATCH_KEY_BYTES_MIN)
"""An end that has less of a link's key agrees on no batch ahead of demand: its stock counts as none."""


class Node(Protocol):
    """What the agent needs of its node."""

    switched_off: set[str]

    async def status(self) -> dict[str, Any]: ...

    async def read(self, work: Callable[[KmeView], Any]) -> Any: ...


class LinkWatch:
    """What a link brings, and why it brings nothing if that has gone on for a while.

    A link that rests because its stock is full keeps the rate that it had before. A module that has no key at
    the moment when it is asked is no trouble: one that has none for ``TROUBLE_S`` is.
    """

    def __init__(self, counted_on_bps: float) -> None:
        self.bps = counted_on_bps
        self.trouble = ""
        self._deposits = Deposits()
        self._brought_bytes = 0
        self._well_s: float | None = None

    def note(self, now_s: float, brought_bytes: int, *, low: bool, trouble: str) -> None:
        """Note how much the link has brought since ever, whether its ends want more, and what is wrong."""
        self._deposits.add(now_s, brought_bytes)
        measured = self._deposits.rate_bps()
        if measured is not None and (measured > self.bps or low):
            self.bps = measured
        if self._well_s is None or not trouble or brought_bytes != self._brought_bytes:
            self._well_s = now_s
        self._brought_bytes = brought_bytes
        self.trouble = trouble if now_s - self._well_s >= TROUBLE_S else ""


class Agent:
    """The agent of one node. Call :meth:`open` before the node runs, :meth:`run` beside it."""

    def __init__(
        self,
        loaded: LoadedConfig,
        node: Node,
        relays: Callable[[], bool],
        alarms: Callable[[], list[dict[str, Any]]],
    ) -> None:
        self._loaded, self._node, self._relays, self._alarms = loaded, node, relays, alarms
        self.notices = NoticeLog()
        self._herald = Herald(Memory())
        self._links = {link.id: LinkWatch(link.rate_bps or 0.0) for link in loaded.config.link}
        self._by_uuid = {link_uuid(LinkId(link.id)): link.id for link in loaded.config.link}

    async def open(self) -> None:
        """Take up which links are switched off, and what was there when the node ran last."""
        known = set(self._by_uuid.values())
        found = await self._node.read(lambda view: [name for name, _ in view.records(SWITCHED_OFF)])
        self._node.switched_off.update(name for name in found if name in known)
        body = await self._node.read(lambda view: view.record(MEMORY, ALL))
        if body is not None:
            self._herald = Herald(msgspec.json.decode(body, type=Memory))

    async def run(self) -> None:
        """Measure the links' rates, and notify of what has changed, until cancelled."""
        while True:
            began_s = time.monotonic()
            try:
                await self._look()
            except OpenQCIError as error:
                log.error("the links cannot be looked after now: %s", error)
            await asyncio.sleep(max(SAMPLE_EVERY_S, LOOK_PART * (time.monotonic() - began_s)))

    async def close(self) -> None:
        """End all streams of notifications."""
        self.notices.close()

    async def _look(self) -> None:
        status = await self._node.status()
        brought = await self._node.read(self._brought)
        unmet = {peer["kme_id"] for peer in status["peers"] if not peer["met"]}
        for link in status["links"]:
            so_far, low = brought.get(link["link"], (0, True))
            trouble = f"{link['peer']} is not met" if link["peer"] in unmet else link["trouble"] or ""
            self._links[link["link"]].note(time.monotonic(), so_far, low=low, trouble=trouble)
        facts = self._facts(status)
        alarms = [
            StandingAlarm(each["code"], each["subject"], each["reason"], each["severity"] != "minor")
            for each in self._alarms()
        ]
        remembered = self._herald.memory
        self.notices.add(self._herald.look(facts, alarms))
        if self._herald.memory != remembered:
            body = msgspec.json.encode(self._herald.memory)
            await self._node.read(lambda view: view.put_record(MEMORY, ALL, body))

    def _brought(self, view: KmeView) -> dict[str, tuple[int, bool]]:
        """Return what each link has brought since its epoch began, and whether its ends want more."""
        found = {}
        for link in self._loaded.config.link:
            peer = KmeId(link.peer)
            state = peers.peer_state(view, peer)
            if state is None:
                continue
            name = peers.link_in_epoch(link.id, state.epoch)
            halves = [deposits.link_key_stream(name, end) for end in (self._loaded.kme_id, peer)]
            brought = sum(deposits.stream_end(view, half) for half in halves)
            low = 2 * min(map(view.stock_bytes, halves)) < link.low_bytes
            found[link.id] = (brought, low)
        return found

    async def data(self, base: str) -> dict[str, Any]:
        """Return the whole datastore as it is now, for one who has called the URL ``base``."""
        created = datetime.fromtimestamp(self.notices.created_s, UTC).isoformat(timespec="seconds")
        return {
            f"{MODULE}:qkd_node": node_document(self._facts(await self._node.status())),
            "ietf-yang-library:modules-state": modules_state(),
            "ietf-restconf-monitoring:restconf-state": restconf_state(base, created.replace("+00:00", "Z")),
        }

    async def apply(self, edits: Iterable[Edit]) -> None:
        """Set leaves that can be set: durable when this returns."""
        switches: dict[str, bool] = {}
        for steps, value in edits:
            invariant(steps[-1] == "qkdl_enable", "only links can be switched")
            switches[self._by_uuid[UUID(steps[-2].removeprefix("="))]] = value

        def keep(view: KmeView) -> None:
            for link, on in switches.items():
                if on:
                    view.drop_record(SWITCHED_OFF, link)
                else:
                    view.put_record(SWITCHED_OFF, link, b"1")

        await self._node.read(keep)
        self._node.switched_off.difference_update(link for link, on in switches.items() if on)
        self._node.switched_off.update(link for link, on in switches.items() if not on)

    def _facts(self, status: dict[str, Any]) -> NodeFacts:
        told = {link["link"]: link for link in status["links"]}
        links = [
            self._link_facts(number, link, told[link.id])
            for number, link in enumerate(self._loaded.config.link, 1)
        ]
        return NodeFacts(
            self._loaded.kme_id,
            self._loaded.config.etsi015.location,
            __version__,
            self._relays(),
            tuple(links),
            tuple(map(self._pair_facts, status["pairs"])),
        )

    def _link_facts(self, number: int, link: LinkSection, told: dict[str, Any]) -> LinkFacts:
        watched, made = self._links[link.id], told["made"]
        return LinkFacts(
            LinkId(link.id),
            number,
            KmeId(link.peer),
            made["protocol"] if made is not None else "",
            link.id not in self._node.switched_off,
            sum(half for half in (told["own_bytes"], told["peer_bytes"]) if half >= STOCK_BYTES_MIN),
            watched.bps if link.id not in self._node.switched_off else 0.0,
            watched.trouble,
        )

    def _pair_facts(self, pair: dict[str, Any]) -> PairFacts:
        master, slaves = SaeId(pair["master"]), tuple(map(SaeId, pair["slaves"]))
        config = self._loaded.config
        section = next(
            (each for each in config.pair if (each.master, *each.slaves) == (master, *slaves)), None
        )
        quota = next((each.quota_bps for each in config.sae if each.id == master), None)
        target = self._loaded.kme_of(slaves[0]) or KmeId(pair["target_kme"])
        return PairFacts(
            master,
            slaves,
            target,
            tuple(LinkId(link.id) for link in self._loaded.links_to(target)[:1]),
            pair["priority"],
            quota or 0,
            section.reserved_bps if section is not None else 0,
            section.ttl_s if section is not None else config.demand.ttl_s,
        )
