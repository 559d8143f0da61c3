"""One application's demand takes nothing from another beyond its turn, and leaves no heap."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from openqci.cli.up.clock import SimulatedClock
from openqci.cli.up.commission import hop_stocks
from openqci.cli.up.relaying import RELAYS_AT_ONCE_MAX, EndToEnd
from openqci.core.errors import KeyUnavailable
from openqci.core.identifiers import SaeId, kme_of_site, link_stream
from openqci.core.keys import SecretBytes
from openqci.delivery import SaeDirectory, SaeRecord
from openqci.delivery.pair_stock import batches_in_stock, take_keys
from openqci.keystore.ports import KmeView, StoreTransaction
from openqci.links import forecast
from openqci.network import load_scenario
from openqci.services.sqlite_store import SqliteKeyStore
from openqci.twin.hops import RATE_WINDOW_S, HopBook, RecentBits
from tests.cli.test_relaying import without_flows

METRO = load_scenario("metro")
FORECASTS = {link: forecast(METRO.devices[hop.device], hop) for link, hop in METRO.hops.items()}
HOP = next(iter(METRO.hops.values()))
MASTER, SLAVE, GREEDY = SaeId("modest"), SaeId("slave"), SaeId("greedy")
STOCK_BYTES = 100_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteKeyStore]:
    opened = SqliteKeyStore.open(tmp_path / "store.sqlite", bytes(32))
    opened.submit(prepare).result()
    yield opened
    opened.close()


def prepare(transaction: StoreTransaction) -> None:
    slaves = [SaeId(f"slave{number}") for number in range(3 * RELAYS_AT_ONCE_MAX)]
    for sae, site in [(MASTER, HOP.a), (GREEDY, HOP.a), (SLAVE, HOP.b), *((name, HOP.b) for name in slaves)]:
        SaeDirectory(transaction).enrol(SaeRecord(sae, site, kme_of_site(site), sae, "", 0.0))
    for site in (HOP.a, HOP.b):
        with SecretBytes(bytes(range(250)) * (STOCK_BYTES // 250)) as key:
            transaction.append(kme_of_site(site), link_stream(HOP.link_id, HOP.a), key)


@asynccontextmanager
async def running(store: SqliteKeyStore) -> AsyncIterator[tuple[EndToEnd, asyncio.Event]]:
    book = HopBook(METRO, FORECASTS, {}, store.submit(lambda tx: hop_stocks(tx, METRO)).result())
    served = asyncio.Event()

    def arrived(master: SaeId, slave: SaeId) -> None:
        if master == GREEDY:
            end_to_end.demand(master, slave, 64)
        else:
            served.set()

    end_to_end = EndToEnd(store, without_flows(METRO), book, SimulatedClock(0, 1), arrived, lambda: None)
    task = asyncio.create_task(end_to_end.run())
    try:
        yield end_to_end, served
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await end_to_end.close()


def test_who_asks_for_more_and_more_often_does_not_go_first_for_ever(store: SqliteKeyStore) -> None:
    async def serve() -> int:
        async with running(store) as (end_to_end, served):
            for number in range(3 * RELAYS_AT_ONCE_MAX):
                end_to_end.demand(GREEDY, SaeId(f"slave{number}"), 64)
            async with asyncio.timeout(10):
                while end_to_end.relays < 2 * RELAYS_AT_ONCE_MAX:
                    await asyncio.sleep(0)
            end_to_end.demand(MASTER, SLAVE, 32)
            async with asyncio.timeout(10):
                await served.wait()
            return end_to_end.relays

    assert asyncio.run(serve()) < 8 * RELAYS_AT_ONCE_MAX


def test_keys_of_an_odd_size_leave_no_growing_heap_of_rests(store: SqliteKeyStore) -> None:
    """A key never spans two batches; each request read all rests again, in the store's only writer."""

    def take(transaction: StoreTransaction) -> int:
        view = KmeView(transaction, kme_of_site(HOP.a))
        for taken in take_keys(view, MASTER, SLAVE, 1, 257):
            taken.key.wipe()
        return len(list(batches_in_stock(view, MASTER, SLAVE)))

    async def serve() -> list[int]:
        batches: list[int] = []
        async with running(store) as (end_to_end, served), asyncio.timeout(20):
            while len(batches) < 150:
                served.clear()
                try:
                    batches.append(await store.run(take))
                except KeyUnavailable as shortage:
                    end_to_end.demand(MASTER, SLAVE, shortage.wanted_bytes)
                    await served.wait()
        return batches

    batches = asyncio.run(serve())
    assert max(batches[100:]) <= max(batches[50:100])


def test_rates_do_not_pile_up_when_nobody_looks() -> None:
    recent = RecentBits()
    for second in range(10_000):
        recent.add(float(second), 8)
    assert len(recent) <= RATE_WINDOW_S
    assert recent.total(9_999.0) == 8 * RATE_WINDOW_S
    assert recent.total(99_999.0) == 0
