"""Faults on a live network: what breaks, what goes on another way, what is told, and how it is mended."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from openqci.cli.up import fault_orders
from openqci.cli.up.chronicle import Chronicle
from openqci.cli.up.commission import is_silent, share_all
from openqci.cli.up.fault_orders import Answer, Clear, Inject
from openqci.cli.up.faulting import Faulting, Floods
from openqci.cli.up.production import NO_AUTHENTICATION_KEY
from openqci.cli.up.reacting import Reacting
from openqci.cli.up.relaying import EndToEnd
from openqci.cli.up.telling import Telling
from openqci.control.reaction import LINK_LOST, BlockRefused, Ruling
from openqci.core.errors import ConfigurationError
from openqci.core.identifiers import KmeId, LinkId, authentication_stream, kme_of_site, link_stream
from openqci.services.audit import AuditEvent, AuditLog, entries, verify
from openqci.services.sqlite_store import SqliteKeyStore
from openqci.twin.faults import FaultKind, FaultOrder
from openqci.twin.hops import HopState
from tests.cli.test_reacting import fill, one_relay
from tests.cli.test_relaying import (
    FAR,
    MASTER,
    METRO,
    in_book,
    in_store,
    put,
    running,
    until,
)

WAIT_S = 2.0
"""After a cut stocks flow again within this."""


@dataclass
class Interfaces:
    """Remembers which KMEs were silenced."""

    silent: set[KmeId] = field(default_factory=set)

    def silence(self, kme: KmeId) -> None:
        self.silent.add(kme)

    def answer_again(self, kme: KmeId) -> None:
        self.silent.remove(kme)


@dataclass
class Breakable:
    """A network with relays, reaction and faults, whose hops were filled."""

    end_to_end: EndToEnd
    reacting: Reacting
    faulting: Faulting
    chronicle: Chronicle
    interfaces: Interfaces

    async def do(self, kind: str, target: str, **more: float) -> Answer:
        return await self.faulting.do(Inject(FaultOrder(FaultKind(kind), target, "ana", **more)))

    def told(self) -> list[tuple[str, str]]:
        return [(event["kind"], event["text"]) for event in self.chronicle.latest()]

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.told()]


@asynccontextmanager
async def breakable(store: SqliteKeyStore, audit: AuditLog | None = None) -> AsyncIterator[Breakable]:
    chronicle, notes = Chronicle(METRO, audit), set[asyncio.Task[None]]()
    async with running(store) as end_to_end:
        telling = Telling(chronicle, end_to_end.next_way)
        book, clock = end_to_end.book, end_to_end.clock
        reacting = Reacting(store, METRO, book, clock, [], end_to_end.leave, telling)
        end_to_end.relayed = lambda done: notes.add(asyncio.create_task(reacting.relayed(done.order)))
        floods = Floods(METRO, {}, Path())
        faulting = Faulting(store, METRO, book, clock, reacting, chronicle, floods, end_to_end.is_under_way)
        faulting.interfaces = interfaces = Interfaces()
        try:
            yield Breakable(end_to_end, reacting, faulting, chronicle, interfaces)
        finally:
            await asyncio.gather(*notes)


def live(store: SqliteKeyStore, story: Callable[[Breakable], Any], audit: AuditLog | None = None) -> None:
    async def play() -> None:
        async with breakable(store, audit) as network:
            await story(network)

    fill(store)
    store.submit(lambda tx: share_all(tx, list(METRO.hops.values()))).result()
    asyncio.run(play())


def test_after_a_cut_keys_flow_another_way_at_once_and_the_way_back_is_open(store: SqliteKeyStore) -> None:
    async def story(network: Breakable) -> None:
        links = await keys_to_far(network)
        began_s = time.monotonic()
        answer = await network.do("cut", links[0])
        await keys_to_far(network)
        assert time.monotonic() - began_s < WAIT_S
        await until(lambda: "rerouted" in network.kinds())
        book = network.end_to_end.book
        assert book.state(links[0]) is HopState.DOWN
        assert [alarm["code"] for alarm in network.reacting.figures()] == [LINK_LOST]
        assert links[0] not in network.end_to_end.recent[-1]["links"]
        assert [fault["fault_id"] for fault in network.faulting.figures()] == list(answer.fault_ids)
        await network.faulting.do(Clear("ana", *answer.fault_ids))
        assert not book.lines[links[0]].trouble and not network.reacting.figures()
        assert in_book(book) == in_store(store)
        assert network.kinds() == [
            "fault",
            "way",
            "rerouted",
            "fault over",
            "opened",
            "alarm over",
            "reconciled",
        ]

    live(store, story)


def test_a_pair_that_no_other_way_joins_is_told_so(store: SqliteKeyStore) -> None:
    async def story(network: Breakable) -> None:
        await one_relay(network.end_to_end)
        await network.do("isolate", "SK")
        await until(lambda: "no way" in network.kinds())
        assert "No other way joins Schwechat and Trnava" in dict(network.told())["no way"]

    live(store, story)


def test_a_stopped_node_answers_nothing_and_is_gone_round(store: SqliteKeyStore) -> None:
    async def story(network: Breakable) -> None:
        await keys_to_far(network)
        through = next(site for site in network.end_to_end.recent[-1]["sites"][1:-1] if "." not in site)
        answer = await network.do("stop", through)
        assert network.interfaces.silent == {f"kme-{through}"}
        await keys_to_far(network)
        assert through not in network.end_to_end.recent[-1]["sites"]
        down = [network.end_to_end.book.state(each) for each in METRO.hops if through in ends_of(each)]
        assert down and set(down) == {HopState.DOWN}
        await network.faulting.do(Clear("ana", *answer.fault_ids))
        assert network.interfaces.silent == set()

    live(store, story)


async def keys_to_far(network: Breakable) -> tuple[LinkId, ...]:
    """Have key made for a pair that two ways join; return the links that it came over."""
    end_to_end = network.end_to_end
    before = end_to_end.relays
    assert end_to_end.demand(MASTER, FAR, 32) is None
    await until(lambda: end_to_end.relays > before)
    await until(lambda: not any(pair.relaying for pair in end_to_end.pairs.values()))
    return tuple(end_to_end.recent[-1]["links"])


def ends_of(link: LinkId) -> set[str]:
    hop = METRO.hops[link]
    return {hop.a, hop.b}


def test_what_one_end_has_lost_meanwhile_is_destroyed_before_the_hop_is_used(store: SqliteKeyStore) -> None:
    link = next(iter(METRO.hops))
    hop = METRO.hops[link]

    async def story(network: Breakable) -> None:
        answer = await network.do("cut", link)
        put(store, link, hop.a, bytes(100), hop.a)
        await network.faulting.do(Clear("ana", *answer.fault_ids))
        ((_, text),) = [each for each in network.told() if each[0] == "reconciled"]
        assert "100 bytes that one end had lost are destroyed" in text
        assert in_book(network.end_to_end.book) == in_store(store)
        stream = link_stream(link, hop.a)
        held = [
            store.submit(lambda tx, site=site: tx.ranges(kme_of_site(site), stream)).result()
            for site in (hop.a, hop.b)
        ]
        assert held[0] == held[1]

    live(store, story)


def test_two_faults_on_a_hop_and_only_the_end_of_the_last_opens_it(store: SqliteKeyStore) -> None:
    link = LinkId("at-schwechat--sk-bratislava")

    async def story(network: Breakable) -> None:
        await network.do("cut", link)
        await network.do("stop", "at-schwechat")
        await network.faulting.do(Clear("ana", "f1"))
        assert network.end_to_end.book.state(link) is HopState.DOWN
        await network.faulting.do(Clear("ana"))
        assert not network.end_to_end.book.lines[link].trouble
        assert network.faulting.figures() == []

    live(store, story)


def test_an_eavesdropper_changes_the_channel_and_nothing_else(store: SqliteKeyStore) -> None:
    link = next(iter(METRO.hops))

    async def story(network: Breakable) -> None:
        low = await network.do("qber", link, added_qber=0.04)
        assert "below the bound of 9%: keys get shorter or none is left" in low.notes[0]
        line = network.end_to_end.book.lines[link]
        assert line.intercepted == pytest.approx(0.04 / 0.24, rel=0.01)
        assert not line.trouble and not network.reacting.figures()
        await network.faulting.do(Clear("ana"))
        high = await network.do("qber", link, added_qber=0.15)
        assert "above the bound of 9%: blocks abort" in high.notes[0]

    live(store, story)


def test_an_attack_that_has_used_up_the_authentication_key_leaves_no_dead_hop(store: SqliteKeyStore) -> None:
    link = next(iter(METRO.hops))

    async def story(network: Breakable) -> None:
        await network.do("qber", link, added_qber=0.05)
        hop = METRO.hops[link]
        for site in (hop.a, hop.b):
            await store.run(lambda tx, site=site: tx.destroy(kme_of_site(site), authentication_stream(link)))
        network.end_to_end.book.lines[link].standing_still = NO_AUTHENTICATION_KEY
        await network.faulting.do(Clear("ana"))
        assert not network.end_to_end.book.lines[link].trouble
        assert not store.submit(lambda tx: is_silent(tx, METRO.hops[link])).result()
        assert network.kinds()[-1] == "authenticated"

    live(store, story)


def test_an_order_that_cannot_be_is_refused_and_changes_nothing(store: SqliteKeyStore) -> None:
    async def story(network: Breakable) -> None:
        assert "no node 'mars'" in (await network.do("stop", "mars")).refused
        assert "no fault 'f7' stands" in (await network.faulting.do(Clear("ana", "f7"))).refused
        assert network.told() == [] and await network.faulting.do(Clear("ana")) == Answer()

    live(store, story)


def test_orders_reach_the_network_through_its_store_and_their_time_ends_them(store: SqliteKeyStore) -> None:
    link = next(iter(METRO.hops))
    stale = json.dumps({"type": "clear", "by": "of an earlier run"}).encode()
    store.submit(lambda tx: tx.put_record("*", fault_orders.ORDERS, "stale", stale)).result()

    def said(name: str) -> bytes | None:
        return store.submit(lambda tx: tx.record("*", fault_orders.ANSWERS, name)).result()

    async def story(network: Breakable) -> None:
        serving = asyncio.create_task(network.faulting.run())
        await until(lambda: not store.submit(fault_orders.orders_of).result())
        order = FaultOrder(FaultKind.CUT, link, "ana", for_s=1.0)
        answer = await fault_orders.ask(store, Inject(order))
        assert answer.fault_ids == ("f1",)
        with pytest.raises(ConfigurationError, match="stands already as f1"):
            await fault_orders.ask(store, Inject(order))
        strange = b'{"type": "burn"}'
        await store.run(lambda tx: tx.put_record("*", fault_orders.ORDERS, "strange", strange))
        await until(lambda: b"cannot be read" in (said("strange") or b""))
        await store.run(lambda tx: fault_orders.forget(tx, ["strange"]))
        await until(lambda: not network.faulting.figures())
        assert "its time is over" in dict(network.told())["fault over"]
        left = [
            store.submit(lambda tx, kind=kind: list(tx.records("*", kind))).result()
            for kind in (fault_orders.ORDERS, fault_orders.ANSWERS)
        ]
        assert left == [[], []]
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)

    live(store, story)


def test_the_story_of_an_attack_is_told_in_order_and_audited(store: SqliteKeyStore, tmp_path: Path) -> None:
    audit = AuditLog(tmp_path / "audit")

    async def story(network: Breakable) -> None:
        links = await one_relay(network.end_to_end)
        await network.do("qber", links[0], added_qber=0.15)
        seen = BlockRefused(links[0], 0.17, "QBER too high 0.17 in the test basis, limit 0.09", 1.0)
        network.reacting._tell_measured(seen)
        await network.reacting.see(seen)
        await until(lambda: "rerouted" in network.kinds())
        await network.faulting.do(Clear("ana"))
        await network.reacting.see(Ruling(links[0], "Ada", "destroy", 2.0))
        kinds = ["fault", "qber", "closed", "alarm", "way", "rerouted", "fault over", "ruled", "opened"]
        assert network.kinds() == kinds
        words = dict(network.told())
        assert words["qber"].startswith("QBER 17.0% measured on ")
        assert "1 batch relayed over it since its last good block held" in words["alarm"]
        assert "its stock, and a batch that went over it, is destroyed at both ends" in words["ruled"]
        numbers = [event["number"] for event in network.chronicle.latest()]
        assert numbers == sorted(numbers)

    live(store, story, audit)
    audit.close()
    written = [(entry.event, entry.actor) for entry in entries(tmp_path / "audit")]
    assert written == [
        (AuditEvent.FAULT_INJECTED, "ana"),
        (AuditEvent.ALARM_RAISED, ""),
        (AuditEvent.FAULT_ENDED, ""),
        (AuditEvent.SUSPICION_RULED, "Ada"),
        (AuditEvent.ALARM_CLEARED, ""),
    ]
    assert not verify(tmp_path / "audit").fault
