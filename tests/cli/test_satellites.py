"""Satellites of a live network: key in passes, stored in radio contact, and what others are told of it."""

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from openqci.cli.up.clock import SimulatedClock
from openqci.cli.up.commission import hop_stocks, share
from openqci.cli.up.production import HOP_FIGURES, NETWORK, spend_authentication
from openqci.cli.up.relay_run import RelayDone
from openqci.cli.up.relaying import EndToEnd
from openqci.cli.up.satellites import Satellites
from openqci.cli.up.workers import BlockWorkers
from openqci.core.identifiers import LinkId, SaeId, SiteId, kme_of_site, link_stream
from openqci.core.keys import SecretBytes
from openqci.delivery import SaeDirectory, SaeRecord, stock_bytes
from openqci.delivery.end_to_end import provenance_of
from openqci.distillation import AUTHENTICATION_KEY_BYTES
from openqci.keystore.ports import KmeView, StoreTransaction
from openqci.network import load_scenario
from openqci.relay import hop_bytes
from openqci.services.sqlite_store import SqliteKeyStore
from openqci.space.time_scales import DAY_S
from openqci.twin.block import BlockOutcome
from openqci.twin.flights import Cloudy, Flight, flown, forecasts_of
from openqci.twin.hops import HopBook, HopFigures
from openqci.twin.pass_block import PassOrder
from openqci.twin.skies import clear

NETWORK_FLOWN, (EAGLE,) = flown(load_scenario("islands"))
FORECASTS = forecasts_of(NETWORK_FLOWN, [EAGLE])
IRELAND, LIMASSOL = SiteId("ogs-ireland"), SiteId("ogs-limassol")
KEY_BYTES = 50_000
DUBLIN = frozenset({SiteId("ie-dublin"), IRELAND})
NICOSIA = frozenset({SiteId("cy-nicosia"), LIMASSOL})


class SteppedClock:
    """Goes to the next moment that somebody waits for, once radio and flight both wait for one.

    Blocks wait for no moment: ``settled`` tells when they are where they can get for now.
    """

    speed = 1.0
    settle_s = 0.02
    parts = 2

    def __init__(self, settled: Callable[[], bool]) -> None:
        self.settled = settled
        self._now_s = 0.0
        self._numbers = itertools.count()
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []

    def now_s(self) -> float:
        return self._now_s

    async def wait_until(self, time_s: float) -> None:
        if time_s > self._now_s:
            waiter = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (time_s, next(self._numbers), waiter))
            await waiter

    async def run_until(self, stop_s: float) -> None:
        while True:
            await asyncio.sleep(self.settle_s)
            while len(self._waiting) < self.parts or not self.settled():
                await asyncio.sleep(0.005)
            if self._waiting and self._waiting[0][0] > stop_s:
                self._now_s = stop_s
                return
            if self._waiting:
                self._now_s, _, waiter = heapq.heappop(self._waiting)
                if not waiter.cancelled():
                    waiter.set_result(None)


class FakeWorkers:
    """Stands for the worker processes: key as long as the test says, or a fault; when ``ready`` is set."""

    def __init__(self, key: bytes = b"", fault: Exception | None = None) -> None:
        self.key, self.fault, self.orders = key, fault, list[PassOrder]()
        self.ready = asyncio.Event()
        self.ready.set()

    async def distil(self, order: PassOrder) -> BlockOutcome:
        self.orders.append(order)
        await self.ready.wait()
        if self.fault is not None:
            raise self.fault
        name = order.name
        aborted = "" if self.key else "QBER too high"
        return BlockOutcome(
            name.link_id, name.number, self.key, self.key, 200.0, 9, "rusca-2018", 1e-9, None, aborted
        )


class World:
    """The satellites of ``islands`` over a store, on a clock that the test moves."""

    def __init__(
        self,
        store: SqliteKeyStore,
        workers: FakeWorkers,
        flight: Flight = EAGLE,
        book: HopBook | None = None,
        cloudy: Cloudy = clear,
    ) -> None:
        self.store, self.workers, self.clock = store, workers, SteppedClock(self.settled)
        self.book = book or HopBook(NETWORK_FLOWN, FORECASTS, {}, {})
        self.left: list[LinkId] = []
        self.satellites = Satellites(
            store,
            self.book,
            [flight],
            cast(BlockWorkers, workers),
            cast(SimulatedClock, self.clock),
            1,
            self._changed,
            cloudy=cloudy,
        )

    def settled(self) -> bool:
        """Whether every block under way waits for its worker, or with its key for the radio."""
        ordered = {order.name.link_id for order in self.workers.orders}
        for aboard in self.satellites.aboard.values():
            if any(each.link_id not in ordered for each in aboard.under_way):
                return False
            if aboard.under_way and aboard.in_contact.is_set() and self.workers.ready.is_set():
                return False
        return True

    def _changed(self, links: Iterable[LinkId]) -> None:
        self.left += links

    async def __aenter__(self) -> "World":
        self._running = asyncio.create_task(self.satellites.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        await self.satellites.close()

    def stock_bits(self) -> dict[SiteId, int]:
        return {station: self.book.lines[link].stock_bits for station, link in EAGLE.links.items()}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteKeyStore]:
    opened = SqliteKeyStore.open(tmp_path / "store.sqlite", bytes(32))

    def preshare(transaction: StoreTransaction) -> None:
        for link in EAGLE.links.values():
            share(transaction, NETWORK_FLOWN.hops[link])

    opened.submit(preshare).result()
    yield opened
    opened.close()


def in_store(store: SqliteKeyStore, link: LinkId) -> list[list[int]]:
    """Return what either end has of each direction of a link."""
    hop = NETWORK_FLOWN.hops[link]

    def work(transaction: StoreTransaction) -> list[list[int]]:
        return [
            [transaction.stock_bytes(kme_of_site(site), link_stream(link, first)) for site in (hop.a, hop.b)]
            for first in (hop.a, hop.b)
        ]

    return store.submit(work).result()


def key(seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(KEY_BYTES)


def test_a_night_of_passes_fills_the_stocks_at_both_ends(store: SqliteKeyStore) -> None:
    async def night() -> World:
        async with World(store, FakeWorkers(key())) as world:
            await world.clock.run_until(DAY_S)
            return world

    world = asyncio.run(night())
    served = [order.name.link_id for order in world.workers.orders]
    # Seven passes with key in the first night, of which three over western Europe at once.
    assert len(served) == len(set(served)) == 5
    assert {"eagle-1--ogs-maido", "eagle-1--ogs-limassol", "eagle-1--ogs-santamaria"} < set(served)
    for link in EAGLE.links.values():
        from_satellite, from_station = in_store(store, link)
        assert from_satellite[0] == from_satellite[1] and from_station[0] == from_station[1]
        assert (from_satellite[0] > 0) == (link in served)
        assert 8 * (from_satellite[0] + from_station[0]) == world.book.lines[link].stock_bits


def test_a_pass_under_cloud_is_lost_and_a_later_rival_is_taken_instead(store: SqliteKeyStore) -> None:
    asked: list[float] = []

    def over_alentejo(station: str, now_s: float) -> bool:
        asked.append(now_s)
        return station in ("ogs-alentejo", "ogs-maido")

    async def night() -> tuple[list[str], int]:
        async with World(store, FakeWorkers(key()), cloudy=over_alentejo) as world:
            await world.clock.run_until(0.3 * DAY_S)
            served = [order.name.link_id for order in world.workers.orders]
            return served, world.satellites.figures()[0]["passes_clouded"]

    served, clouded = asyncio.run(night())
    assert EAGLE.links[IRELAND] in served and clouded == 2
    assert not {"eagle-1--ogs-alentejo", "eagle-1--ogs-maido"} & set(served)
    begins = {each.begins_s for each in EAGLE.passes(0.0)}
    assert set(asked) <= begins  # nobody looks at the sky of tomorrow


def test_key_of_a_pass_waits_for_the_radio(store: SqliteKeyStore) -> None:
    first = EAGLE.passes(0.0)[0]
    contacts = EAGLE.contacts(0.0, DAY_S)
    ends_s = next(end for begin, end in contacts if begin < first.ends_s < end)
    again_s = next(begin for begin, _ in contacts if begin > ends_s)

    async def slow() -> list[int]:
        workers = FakeWorkers(key())
        workers.ready.clear()
        seen = []
        async with World(store, workers) as world:
            await world.clock.run_until(ends_s + 1)
            workers.ready.set()  # the computation is over, the satellite below the horizon
            for moment_s in (again_s - 1, again_s + 1):
                await world.clock.run_until(moment_s)
                seen.append(world.stock_bits()[first.station])
        return seen

    before, after = asyncio.run(slow())
    assert before == 0 and after > 0


def test_no_relay_begins_over_a_satellite_that_is_out_of_contact(store: SqliteKeyStore) -> None:
    (begin_s, end_s), *_ = [span for span in EAGLE.contacts(0.0, DAY_S) if span[0] > 100]

    async def day() -> list[str]:
        reasons = []
        async with World(store, FakeWorkers(key())) as world:
            for moment_s in (begin_s - 1, begin_s + 1, end_s - 1, end_s + 1):
                await world.clock.run_until(moment_s)
                line = world.book.lines[LinkId("eagle-1--ogs-paris")]
                reasons.append(line.unusable)
                assert line.trouble == ""
            assert set(world.left) == set(EAGLE.links.values())
        return reasons

    before, rising, setting, after = asyncio.run(day())
    assert rising == setting == ""
    assert before == after == "eagle-1 waits for its next radio contact"


def test_contacts_go_on_day_after_day(store: SqliteKeyStore) -> None:
    async def days() -> list[bool]:
        contact = []
        async with World(store, FakeWorkers()) as world:
            for begin_s, end_s in EAGLE.contacts(2.5 * DAY_S, 3.5 * DAY_S)[1:-1]:
                await world.clock.run_until((begin_s + end_s) / 2)
                contact.append(world.satellites.figures()[0]["in_contact"])
        return contact

    contact = asyncio.run(days())
    assert len(contact) > 6 and all(contact)


def test_provenance_names_the_pass_and_the_age_of_its_key(store: SqliteKeyStore) -> None:
    first = EAGLE.passes(0.0)[0]

    async def later() -> tuple[Any, Any]:
        async with World(store, FakeWorkers(key())) as world:
            await world.clock.run_until(first.ends_s + 3600)
            told = world.satellites.passes_of(first.link_id, EAGLE.satellite, hop_bytes(32))
            return told, world.satellites.passes_of(
                LinkId("ie-dublin--ogs-ireland.1"), SiteId("ie-dublin"), 9
            )

    (made,), of_fibre = asyncio.run(later())
    assert (made.satellite, made.station) == ("eagle-1", first.station) and of_fibre == ()
    assert made.ended_utc == "2027-03-20T19:06:17Z" and made.age_s == pytest.approx(3600)


def test_bytes_of_two_passes_name_both_and_spent_passes_are_forgotten(store: SqliteKeyStore) -> None:
    async def two() -> list[tuple[str, ...]]:
        async with World(store, FakeWorkers(key())) as world:
            await world.clock.run_until(1.3 * DAY_S)
            link, book = LinkId("eagle-1--ogs-maido"), world.book
            stock = book.lines[link].stock_bytes[EAGLE.satellite]
            days = []
            for spent, wanted in ((0, stock), (0, 100), (stock - 100, 100)):
                book.lines[link].stock_bytes[EAGLE.satellite] = stock - spent
                made = world.satellites.passes_of(link, EAGLE.satellite, wanted)
                days.append(tuple(each.ended_utc[:10] for each in made))
            return days

    assert asyncio.run(two()) == [("2027-03-20", "2027-03-21"), ("2027-03-20",), ("2027-03-21",)]


def test_what_is_known_of_passes_survives_a_restart(store: SqliteKeyStore) -> None:
    async def night() -> None:
        async with World(store, FakeWorkers(key())) as world:
            await world.clock.run_until(0.2 * DAY_S)

    asyncio.run(night())
    link = EAGLE.passes(0.0)[0].link_id
    body = store.submit(lambda tx: tx.record(NETWORK, HOP_FIGURES, link)).result()
    assert body is not None
    figures = msgspec.json.decode(body, type=HopFigures)
    ended_s = EAGLE.passes(0.0)[0].ends_s
    assert figures.pass_ends_s == {site: [ended_s] for site in figures.block_ends}
    assert figures.blocks == 1


def test_a_full_store_on_board_takes_no_more(store: SqliteKeyStore) -> None:
    async def night() -> int:
        async with World(store, FakeWorkers(key()), replace(EAGLE, store_bits=6_000_000)) as world:
            for line in (world.book.lines[link] for link in EAGLE.links.values()):
                line.stock_bytes[EAGLE.satellite] = 125_000  # a megabit each: nothing of a pass fits
            await world.clock.run_until(0.3 * DAY_S)
            return len(world.workers.orders)

    assert asyncio.run(night()) == 0


@pytest.mark.parametrize("fault", [ValueError("a fault of our own"), None])
def test_a_pass_that_leaves_no_key_changes_no_stock(store: SqliteKeyStore, fault: Exception | None) -> None:
    async def night() -> tuple[int, int, int]:
        async with World(store, FakeWorkers(fault=fault)) as world:
            await world.clock.run_until(0.2 * DAY_S)
            lines = [world.book.lines[link] for link in EAGLE.links.values()]
            assert all(line.distilling_since_s is None for line in lines)
            return (
                len(world.workers.orders),
                sum(world.stock_bits().values()),
                sum(line.figures.blocks_aborted for line in lines),
            )

    orders, stock, aborted = asyncio.run(night())
    assert orders == 2 and stock == 0 and aborted == (0 if fault else 2)


def test_a_link_without_authentication_key_stands_still(store: SqliteKeyStore) -> None:
    first = EAGLE.passes(0.0)[0]

    def spend(transaction: StoreTransaction) -> None:
        for _ in range(12):
            for each in spend_authentication(transaction, NETWORK_FLOWN.hops[first.link_id]):
                each.wipe()

    assert 13 * AUTHENTICATION_KEY_BYTES > 4096
    store.submit(spend).result()

    async def night() -> str:
        async with World(store, FakeWorkers(key())) as world:
            await world.clock.run_until(first.ends_s + 10)
            return world.book.lines[first.link_id].standing_still

    assert asyncio.run(night()) == "no authentication key left"


def test_a_pair_that_waits_is_told_the_pass_after_which_it_may_have_key(store: SqliteKeyStore) -> None:
    async def ask() -> list[Any]:
        async with World(store, FakeWorkers(key())) as world:
            await world.clock.run_until(1.0)
            first = world.satellites.outlook(DUBLIN, NICOSIA)
            # Once Limassol has key, Dublin's pass alone is waited for; nobody knows of a pair elsewhere.
            link = EAGLE.links[LIMASSOL]
            world.book.lines[link].stock_bytes = dict.fromkeys(world.book.lines[link].stock_bytes, 10_000)
            second = world.satellites.outlook(NICOSIA, DUBLIN)
            return [first, second, world.satellites.outlook(DUBLIN, frozenset({SiteId("fr-paris")}))]

    first, second, none = asyncio.run(ask())
    assert str(first) == "after the pass of eagle-1 over ogs-ireland at 2027-03-20T22:35:11Z"
    assert (second.station, second.expected_s, none) == (IRELAND, first.expected_s, None)


def test_the_figures_of_a_satellite_follow_it(store: SqliteKeyStore) -> None:
    first = EAGLE.passes(0.0)[0]

    async def two() -> list[dict[str, Any]]:
        async with World(store, FakeWorkers(key())) as world:
            shown = []
            for moment_s in (10.0, (first.begins_s + first.ends_s) / 2):
                await world.clock.run_until(moment_s)
                shown += world.satellites.figures()
            return shown

    before, during = asyncio.run(two())
    assert before["serving"] is None and before["next_station"] == first.station == during["serving"]
    assert before["next_pass_utc"] == "2027-03-20T19:01:45Z"
    assert abs(during["lat"] + 21) < 4 and abs(during["lon"] - 55) < 4 and during["in_contact"]


MASTER, SLAVE = SaeId("sae-dublin"), SaeId("sae-nicosia")


def fill_fibre(transaction: StoreTransaction) -> None:
    """Enrol the pair, and put plenty of link key at both ends of every hop of fibre."""
    for sae, site in ((MASTER, SiteId("ie-dublin")), (SLAVE, SiteId("cy-nicosia"))):
        SaeDirectory(transaction).enrol(SaeRecord(sae, site, kme_of_site(site), sae, "", 0.0))
    for link, hop in NETWORK_FLOWN.hops.items():
        if link not in EAGLE.links.values():
            for first, end in itertools.product((hop.a, hop.b), repeat=2):
                with SecretBytes(random.Random(f"{link} {first}").randbytes(20_000)) as secret:
                    transaction.append(kme_of_site(end), link_stream(link, first), secret)


def test_dublin_and_nicosia_get_key_by_store_and_forward_in_radio_contact_alone(
    store: SqliteKeyStore,
) -> None:
    store.submit(fill_fibre).result()
    stocks = store.submit(lambda tx: hop_stocks(tx, NETWORK_FLOWN)).result()
    done: list[tuple[RelayDone, bool]] = []
    refused: list[object] = []

    async def two_nights() -> None:
        world = World(store, FakeWorkers(key()), book=HopBook(NETWORK_FLOWN, FORECASTS, {}, stocks))
        network = msgspec.structs.replace(NETWORK_FLOWN, flows=())
        clock = cast(SimulatedClock, world.clock)
        end_to_end = EndToEnd(store, network, world.book, clock, lambda *_: None, lambda: None)
        aboard = world.satellites.aboard[EAGLE.satellite]
        end_to_end.relayed = lambda each: done.append((each, aboard.in_contact.is_set()))
        end_to_end.passes_of = world.satellites.passes_of
        world.satellites.changed = end_to_end.leave_all
        relaying = asyncio.create_task(end_to_end.run())
        async with world:
            refused.append(end_to_end.demand(MASTER, SLAVE, 32))
            await world.clock.run_until(10.0)
            outlook = end_to_end.outlook(world.satellites.outlook)(MASTER, SLAVE)
            refused.append(outlook)
            await world.clock.run_until(1.25 * DAY_S)
            world.clock.settle_s = 0.2  # relays take their time, too
            while not done and world.clock.now_s() < 2 * DAY_S:
                await world.clock.run_until(world.clock.now_s() + 1800)
        relaying.cancel()
        await asyncio.gather(relaying, return_exceptions=True)
        await end_to_end.close()

    asyncio.run(two_nights())
    never, outlook = refused
    assert never is None
    assert outlook == (
        "after the pass of eagle-1 over ogs-ireland at 2027-03-20T22:35:11Z",
        pytest.approx(23701),
    )
    relay, in_contact = done[0]
    made = provenance_of(relay.order)
    assert all(contact for _, contact in done) and in_contact
    assert "eagle-1" in made.route and made.form == "hop-by-hop one-time pad"
    assert [each.station for each in made.ways[0].passes] == [IRELAND, LIMASSOL]
    ages_h = [each.age_s / 3600 for each in made.ways[0].passes]
    # Dublin's pass has just ended; Nicosia's was a night before.
    assert 0 <= ages_h[0] < 3 and 26 < ages_h[1] < 30
    dublin = kme_of_site(SiteId("ie-dublin"))
    assert store.submit(lambda tx: stock_bytes(KmeView(tx, dublin), MASTER, SLAVE)).result() >= 32
    assert {LinkId(link) for path in relay.order.paths for link in path.qkd_links} >= {
        EAGLE.links[IRELAND],
        EAGLE.links[LIMASSOL],
    }
