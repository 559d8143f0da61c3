"""Stocks of pairs on a live network: the book of hops says what the store holds, also beside failures."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path

import pytest

from openqci.cli.up.clock import SimulatedClock
from openqci.cli.up.commission import hop_stocks
from openqci.cli.up.relaying import REFILL_BYTES_MIN, EndToEnd, Pair
from openqci.control import Route
from openqci.core.identifiers import LinkId, SaeId, SiteId, kme_of_site, link_stream
from openqci.core.keys import SecretBytes
from openqci.delivery import SaeDirectory, SaeRecord, stock_bytes
from openqci.keystore.ports import KmeView, StoreTransaction
from openqci.links import forecast
from openqci.network import Network, load_scenario
from openqci.services.sqlite_store import SqliteKeyStore
from openqci.twin.hops import HopBook, HopState

METRO = load_scenario("metro")
FORECASTS = {link: forecast(METRO.devices[hop.device], hop) for link, hop in METRO.hops.items()}
MASTER, SLAVE = SaeId("test-master"), SaeId("test-slave")
STOCK_BYTES = 20_000


def without_flows(network: Network) -> Network:
    return Network(**{name: getattr(network, name) for name in network.__struct_fields__} | {"flows": ()})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteKeyStore]:
    opened = SqliteKeyStore.open(tmp_path / "store.sqlite", bytes(32))
    ends = next(iter(METRO.hops.values())).a, list(METRO.hops.values())[-1].b
    for sae, site in zip((MASTER, SLAVE), ends, strict=True):
        record = SaeRecord(sae, site, kme_of_site(site), sae, "", 0.0)
        opened.submit(lambda tx, each=record: SaeDirectory(tx).enrol(each)).result()
    yield opened
    opened.close()


def put(store: SqliteKeyStore, link: LinkId, initiator: SiteId, key: bytes, *sites: SiteId) -> None:
    """Put link key of a direction at both ends of a hop, or at the named ones alone."""
    hop = METRO.hops[link]

    def work(transaction: StoreTransaction) -> None:
        for site in sites or (hop.a, hop.b):
            with SecretBytes(key) as secret:
                transaction.append(kme_of_site(site), link_stream(link, initiator), secret)

    store.submit(work).result()


def in_store(store: SqliteKeyStore) -> dict[tuple[LinkId, SiteId], int]:
    return store.submit(lambda tx: hop_stocks(tx, METRO)).result()


def in_book(book: HopBook) -> dict[tuple[LinkId, SiteId], int]:
    return {
        (link, site): each for link, line in book.lines.items() for site, each in line.stock_bytes.items()
    }


def pair_stock(store: SqliteKeyStore) -> int:
    site = next(iter(METRO.hops.values())).a
    view = kme_of_site(site)
    return store.submit(lambda tx: stock_bytes(KmeView(tx, view), MASTER, SLAVE)).result()


def way_left(end_to_end: EndToEnd, pair: Pair) -> Route | None:
    """Return a way for a pair over hops that are not down."""

    def cost(link: LinkId, sender: SiteId) -> float:
        return inf if end_to_end.book.state(link) is HopState.DOWN else 1.0

    return end_to_end.router.route(pair.start, pair.end, cost)


@asynccontextmanager
async def running(store: SqliteKeyStore) -> AsyncIterator[EndToEnd]:
    """Look after the stocks of a network whose hops have what the store holds now."""
    book = HopBook(METRO, FORECASTS, {}, in_store(store))
    clock = SimulatedClock(0.0, 1.0)
    end_to_end = EndToEnd(store, without_flows(METRO), book, clock, lambda *_: None, lambda: None)
    task = asyncio.create_task(end_to_end.run())
    try:
        yield end_to_end
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await end_to_end.close()


async def until(holds: object, limit_s: float = 10.0) -> None:
    async with asyncio.timeout(limit_s):
        while not holds():  # type: ignore[operator]
            await asyncio.sleep(0.01)


def test_a_waiting_pair_gets_key_and_the_book_follows_the_store(store: SqliteKeyStore) -> None:
    for link, hop in METRO.hops.items():
        for site in (hop.a, hop.b):
            put(store, link, site, link.encode() * (STOCK_BYTES // len(link)))

    async def serve() -> None:
        async with running(store) as end_to_end:
            assert end_to_end.demand(MASTER, SLAVE, 32) is None
            await until(lambda: end_to_end.relays)
            await until(lambda: not any(pair.relaying for pair in end_to_end.pairs.values()))
            assert in_book(end_to_end.book) == in_store(store)
            pair = end_to_end.pairs[MASTER, SLAVE]
            assert pair.route is not None and list(end_to_end.recent[-1]["sites"]) == list(pair.route.sites)

    asyncio.run(serve())
    assert pair_stock(store) >= 32


def test_a_failed_relay_books_what_it_used_and_not_what_others_do_meanwhile(store: SqliteKeyStore) -> None:
    """A block that is durable but not yet booked must not be counted twice: the book never over-promises."""
    for number, (link, hop) in enumerate(METRO.hops.items()):
        for site in (hop.a, hop.b):
            for end in (hop.a, hop.b):
                # The two ends of every hop hold different key: each relay is refused at its first node.
                put(store, link, site, bytes([number, end == hop.a]) * (STOCK_BYTES // 2), end)

    async def serve() -> None:
        async with running(store) as end_to_end:
            before = in_book(end_to_end.book)
            for link, hop in METRO.hops.items():
                put(store, link, hop.a, bytes(500))
                put(store, link, hop.b, bytes(500))
            end_to_end.demand(MASTER, SLAVE, REFILL_BYTES_MIN)
            await until(lambda: in_book(end_to_end.book) != before)
            pair = end_to_end.pairs[MASTER, SLAVE]
            book = end_to_end.book
            await until(lambda: way_left(end_to_end, pair) is None and not pair.relaying)
            stopped = [link for link, line in book.lines.items() if line.standing_still]
            assert {book.state(link) for link in stopped} == {HopState.DOWN}
            used = {place[0] for place, each in in_book(book).items() if each != before[place]}
            assert used == set(stopped), "a hop whose ends disagree is not used a second time"
        not_booked = {
            place: stock - in_book(end_to_end.book)[place] for place, stock in in_store(store).items()
        }
        assert set(not_booked.values()) == {500}

    asyncio.run(serve())
    assert pair_stock(store) == 0
