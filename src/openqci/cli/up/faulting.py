"""Brings faults to life on the network of this machine, and ends them cleanly.

=========  ===============================================================================================
fault      what is done
=========  ===============================================================================================
cut        both ends of the hops lose touch: their blocks under way come to nothing, the reaction closes them
stop       the same for all hops and borders of a node, and its KME answers nothing
isolate    the same for every hop and border that joins a domain with another
qber       an eavesdropper measures photons of the hop; all that follows, the distillation finds by itself
flood      a process asks a KME for keys as fast as it is answered, with the certificate of an application
=========  ===============================================================================================

What ends is put back in order before it is used: what both ends of a hop have in stock is compared, and only
then may relays use it. Faults are not kept over a restart of the network.
"""

import asyncio
import json
import logging
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from openqci.cli.up.chronicle import Chronicle, Tone
from openqci.cli.up.clock import SimulatedClock
from openqci.cli.up.commission import reconcile_ends, share_again, stocks_of_hops
from openqci.cli.up.fault_orders import (
    LOOK_EVERY_S,
    Answer,
    Clear,
    Inject,
    Wish,
    answer,
    forget_all,
    orders_of,
)
from openqci.cli.up.production import NO_AUTHENTICATION_KEY
from openqci.cli.up.reacting import Reacting
from openqci.control.reaction import LinkBack, LinkLost
from openqci.core.errors import ConfigurationError, OpenQCIError
from openqci.core.identifiers import KmeId, LinkId, SaeId, SiteId, is_border, kme_of_site
from openqci.keystore.ports import StoreTransaction
from openqci.network import Network
from openqci.services.audit import AuditEvent
from openqci.services.sqlite_store import SqliteKeyStore
from openqci.twin.block import QBER_MAX
from openqci.twin.faults import Fault, FaultBook, FaultKind, FaultOrder, is_noticed
from openqci.twin.hops import HopBook

log = logging.getLogger(__name__)

FLOOD_STOP_S = 5.0
"""A flood that has not ended by then is killed."""


class Silenceable(Protocol):
    """Interfaces of KMEs that can be made to answer nothing."""

    def silence(self, kme: KmeId) -> None: ...

    def answer_again(self, kme: KmeId) -> None: ...


class Faulting:
    """Takes orders, does what they say, and ends what is over."""

    def __init__(
        self,
        store: SqliteKeyStore,
        network: Network,
        book: HopBook,
        clock: SimulatedClock,
        reacting: Reacting,
        chronicle: Chronicle,
        floods: "Floods",
        under_way: Callable[[LinkId], bool] = lambda link: False,
    ) -> None:
        self.store, self.network, self.book, self.clock = store, network, book, clock
        self.reacting, self.chronicle, self.floods, self._under_way = reacting, chronicle, floods, under_way
        self.interfaces: Silenceable | None = None
        self.faults = FaultBook(network, {link: line.forecast for link, line in book.lines.items()})
        self._broken: dict[LinkId, str] = {}
        self._stopped: set[SiteId] = set()

    async def run(self) -> None:
        """Serve orders until cancelled."""
        await self.store.run(forget_all)
        while True:
            try:
                for name, wish in await self.store.read(orders_of):
                    what = await self.do(wish)
                    await self.store.run(partial(answer, name=name, what=what))
                for fault in self.faults.due(self.clock.now_s()):
                    await self.end(fault.fault_id, "its time is over")
            except OpenQCIError as error:
                log.error("orders for faults cannot be taken now: %s", error)
            await asyncio.sleep(LOOK_EVERY_S)

    async def close(self) -> None:
        """End the floods; everything else ends with the process."""
        await self.floods.close()

    async def do(self, wish: Wish | None) -> Answer:
        """Do what somebody wants, and say what has come of it."""
        try:
            match wish:
                case None:
                    return Answer(
                        refused="the order cannot be read: is this command of the network's version?"
                    )
                case Inject(order=order):
                    fault = await self.begin(order)
                    return Answer((fault.fault_id,), tuple(self._notes(fault)))
                case Clear(fault_id=fault_id, by=by):
                    names = [fault_id] if fault_id else [each.fault_id for each in self.faults.standing()]
                    for name in names:
                        await self.end(name, f"cleared by {by}")
                    return Answer(tuple(names))
        except ConfigurationError as error:
            return Answer(refused=str(error))

    async def begin(self, order: FaultOrder) -> Fault:
        """Let a fault begin; ConfigurationError if it cannot be."""
        now_s = self.clock.now_s()
        fault = self.faults.inject(order, now_s)
        if fault.kind is FaultKind.FLOOD:
            try:
                await self.floods.begin(fault.fault_id, SaeId(fault.target))
            except OSError as error:
                self.faults.clear(fault.fault_id)
                raise ConfigurationError(f"the flood cannot be let loose ({error})") from None
        text = f"Fault {fault.fault_id}: {self._words(fault)}"
        log.warning("%s, by %s", text, order.by)
        self.chronicle.note("fault", Tone.BAD, text, now_s, links=fault.links, sites=fault.sites)
        self.chronicle.record(
            AuditEvent.FAULT_INJECTED,
            order.by,
            "operator",
            fault=fault.fault_id,
            kind=fault.kind,
            target=fault.target,
            for_s=order.for_s,
            added_qber=order.added_qber,
        )
        await self._follow()
        return fault

    async def end(self, fault_id: str, how: str) -> None:
        """End a fault and put in order what it had broken; ConfigurationError if it does not stand."""
        fault, now_s = self.faults.clear(fault_id), self.clock.now_s()
        text = f"Fault {fault_id} is over ({self._words(fault)}): {how}"
        log.warning("%s", text)
        self.chronicle.note("fault over", Tone.NOTE, text, now_s, links=fault.links, sites=fault.sites)
        self.chronicle.record(AuditEvent.FAULT_ENDED, fault=fault_id, how=how)
        if fault.kind is FaultKind.FLOOD:
            await self.floods.end(fault_id)
        await self._follow()

    def figures(self) -> list[dict[str, Any]]:
        """Return the faults that stand, for the console and ``openqci status``."""
        return [self._figures(fault) for fault in self.faults.standing()]

    # What follows

    async def _follow(self) -> None:
        """Bring the network to what the faults that stand say."""
        broken = self.faults.broken()
        lost = [link for link in broken if link not in self._broken]
        back = [link for link in self._broken if link not in broken]
        self._broken = broken
        intercepted = self.faults.intercepted()
        calm = [
            link for link, line in self.book.lines.items() if line.intercepted and link not in intercepted
        ]
        for link in self.book.lines:
            self.book.intercept(link, intercepted.get(link, 0.0))
        self._silence(self.faults.stopped())
        # Every link is closed in memory before the first of them is written down.
        await asyncio.gather(*(self._lose(link, broken[link]) for link in lost))
        if back:
            await self._mend(back)
        if back or calm:
            await self._authenticate([*back, *calm])

    def _silence(self, stopped: set[SiteId]) -> None:
        before, self._stopped = self._stopped, stopped
        if self.interfaces is None:
            return
        for site in stopped - before:
            self.interfaces.silence(kme_of_site(site))
        for site in before - stopped:
            self.interfaces.answer_again(kme_of_site(site))

    async def _lose(self, link: LinkId, reason: str) -> None:
        if not is_border(link):
            self.book.break_off(link)
        await self.reacting.see(LinkLost(link, reason, self.clock.now_s(), reaches_peer=False))

    async def _mend(self, links: list[LinkId]) -> None:
        """Compare what both ends of hops have, then let hops and borders be used again."""
        hops = [self.network.hops[link] for link in links if not is_border(link)]
        while not all(self._at_rest(hop.link_id) for hop in hops):
            await asyncio.sleep(LOOK_EVERY_S)  # what was under way when they broke ends within moments

        def work(transaction: StoreTransaction) -> tuple[int, dict[tuple[LinkId, SiteId], int]]:
            destroyed = reconcile_ends(transaction, hops)
            return destroyed, stocks_of_hops(transaction, hops)

        destroyed, stocks = await self.store.run(work)
        for hop in hops:
            self.book.mend(hop.link_id, {site: stocks[hop.link_id, site] for site in (hop.a, hop.b)})
        for link in links:
            await self.reacting.see(LinkBack(link, self.clock.now_s()))
        if hops:
            self._tell_mended([hop.link_id for hop in hops], destroyed)

    def _tell_mended(self, links: list[LinkId], destroyed: int) -> None:
        found = (
            f"{destroyed} bytes that one end had lost are destroyed" if destroyed else "they hold the same"
        )
        text = f"Both ends of {self._hop_words(links)} have compared their stocks: {found}"
        self.chronicle.note("reconciled", Tone.GOOD, text, self.clock.now_s(), links=links)

    async def _authenticate(self, links: list[LinkId]) -> None:
        """Blocks that came to nothing may have used up the authentication key: people carry new one there."""
        hops = [self.network.hops[link] for link in links if not is_border(link)]
        for link in await self.store.run(lambda transaction: share_again(transaction, hops)):
            if self.book.lines[link].standing_still == NO_AUTHENTICATION_KEY:
                self.book.lines[link].standing_still = ""
            text = f"{self.chronicle.hop_name(link)} has new pre-shared key to authenticate with"
            self.chronicle.note("authenticated", Tone.NOTE, text, self.clock.now_s(), links=[link])

    def _at_rest(self, link: LinkId) -> bool:
        """Tell whether nothing changes a hop's stock now."""
        return not self._under_way(link) and not self.book.lines[link].storing

    # Words

    def _words(self, fault: Fault) -> str:
        match fault.kind:
            case FaultKind.CUT:
                return f"the fibre {self._hop_words(fault.links)} is cut"
            case FaultKind.STOP:
                return f"node {self.chronicle.site_name(fault.sites[0])} is stopped"
            case FaultKind.ISOLATE:
                return f"domain {fault.target} is cut off from all others, at {_count(fault.links, 'place')}"
            case FaultKind.FLOOD:
                return f"{fault.target} floods the KME of {self.chronicle.site_name(fault.sites[0])}"
            case FaultKind.QBER:
                share = f"{fault.intercepted:.0%} of the photons"
                return f"an eavesdropper on {self._hop_words(fault.links)} measures {share}"

    def _hop_words(self, links: Iterable[LinkId]) -> str:
        names = [self.chronicle.hop_name(link) for link in links]
        return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"

    def _notes(self, fault: Fault) -> list[str]:
        """Return what whoever injects a fault should know of it."""
        if fault.kind is not FaultKind.QBER or fault.expected_qber is None:
            return []
        bound = "above" if is_noticed(fault) else "below"
        shorter = "keys get shorter or none is left, and nobody is suspected"
        then = "blocks abort and the reaction follows" if is_noticed(fault) else shorter
        return [f"expected QBER {fault.expected_qber:.1%}, {bound} the bound of {QBER_MAX:.0%}: {then}"]

    def _figures(self, fault: Fault) -> dict[str, Any]:
        return {
            "fault_id": fault.fault_id,
            "kind": str(fault.kind),
            "target": fault.target,
            "words": self._words(fault),
            "by": fault.by,
            "since_s": fault.since_s,
            "until_s": fault.until_s,
            "links": list(fault.links),
            "sites": list(fault.sites),
            "expected_qber": fault.expected_qber,
            "counts": self.floods.counts(fault.fault_id),
        }


def _count(things: Iterable[object], noun: str) -> str:
    number = len(list(things))
    return f"1 {noun}" if number == 1 else f"{number} {noun}s"


class Floods:
    """The flooding processes, by the fault that let them loose."""

    def __init__(self, network: Network, urls: dict[SiteId, str], saes_dir: Path) -> None:
        self._network, self._urls, self._saes_dir = network, urls, saes_dir
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._readers: dict[str, asyncio.Task[None]] = {}
        self._counts: dict[str, dict[str, int]] = {}

    async def begin(self, fault_id: str, sae: SaeId) -> None:
        """Start the flood of an application of the scenario."""
        url, folder = self._urls[self._network.saes[sae].site], self._saes_dir / sae
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "openqci.cli.up.flood", url, str(folder), self._slave_of(sae)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self._processes[fault_id] = process
        self._readers[fault_id] = asyncio.create_task(self._read(fault_id, process))

    async def end(self, fault_id: str) -> None:
        """Stop a flood."""
        process = self._processes.pop(fault_id)
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(FLOOD_STOP_S):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        await self._readers.pop(fault_id)
        self._counts.pop(fault_id, None)

    async def close(self) -> None:
        """Stop all floods."""
        for fault_id in list(self._processes):
            await self.end(fault_id)

    def counts(self, fault_id: str) -> dict[str, int]:
        """Return what a flood has asked for and got so far."""
        return self._counts.get(fault_id, {})

    def _slave_of(self, sae: SaeId) -> str:
        """Return with whom it shares keys by the scenario's demand, or else anybody."""
        flows = self._network.flows
        partners = [flow.slave for flow in flows if flow.master == sae]
        partners += [flow.master for flow in flows if flow.slave == sae]
        return next(iter(partners), next(other for other in self._network.saes if other != sae))

    async def _read(self, fault_id: str, process: asyncio.subprocess.Process) -> None:
        if process.stdout is not None:
            async for line in process.stdout:
                self._counts[fault_id] = json.loads(line)
