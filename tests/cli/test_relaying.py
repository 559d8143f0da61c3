"""Stocks of pairs on a live network: the book of hops says what the store holds, also beside failures."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf

import pytest

from openqci.cli.up.clock import SimulatedClock
from openqci.cli.up.commission import hop_stocks
from openqci.cli.up.relaying import REFILL_BYTES_MIN, EndToEnd, Pair
from openqci.control import Route, Router
from openqci.core.identifiers import LinkId, SaeId, SiteId, is_border, kme_of_site, link_stream
from openqci.core.keys import SecretBytes
from openqci.delivery import KeyBatch, stock_bytes
from openqci.delivery.end_to_end import HybridPolicy
from openqci.delivery.etsi014_model import KeyDemands
from openqci.delivery.pair_stock import TakenKey, take_keys
from openqci.keystore.ports import KmeView, StoreTransaction
from openqci.links import forecast
from openqci.network import Network, load_scenario
from openqci.services.sqlite_store import SqliteKeyStore
from openqci.twin.hops import HopBook, HopState

METRO = load_scenario("metro")
FORECASTS = {link: forecast(METRO.devices[hop.device], hop) for link, hop in METRO.hops.items()}
MASTER, SLAVE, FAR = SaeId("test-master"), SaeId("test-slave"), SaeId("test-far")
STOCK_BYTES = 20_000


def without_flows(network: Network) -> Network:
    return Network(**{name: getattr(network, name) for name in network.__struct_fields__} | {"flows": ()})


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
        return inf if not is_border(link) and end_to_end.book.state(link) is HopState.DOWN else 1.0

    return Router(METRO.edges()).route(pair.start, pair.end, cost)


@asynccontextmanager
async def running(store: SqliteKeyStore, policy: HybridPolicy = HybridPolicy.BOTH) -> AsyncIterator[EndToEnd]:
    """Look after the stocks of a network whose hops have what the store holds now."""
    book = HopBook(METRO, FORECASTS, {}, in_store(store))
    clock = SimulatedClock(0.0, 1.0)
    end_to_end = EndToEnd(store, without_flows(METRO), book, clock, lambda *_: None, lambda: None, policy)
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
            assert pair.routes and list(end_to_end.recent[-1]["sites"]) == list(pair.routes[0].sites)

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


def test_a_special_demand_is_met_by_a_batch_of_its_own(store: SqliteKeyStore) -> None:
    """Two disjoint ways and ML-KEM, beside the pair's usual stock of one way."""
    for link, hop in METRO.hops.items():
        for site in (hop.a, hop.b):
            put(store, link, site, link.encode() * (STOCK_BYTES // len(link)))
    demands = KeyDemands(min_paths=2, hybrid=True, no_computational=True)

    async def serve() -> None:
        async with running(store) as end_to_end:
            end_to_end.demand(MASTER, FAR, 32)
            await until(lambda: end_to_end.relays)
            assert end_to_end.demand_special(MASTER, FAR, 64, demands) is None
            await until(lambda: len(end_to_end.recent[-1]["paths"]) == 2)
            last = end_to_end.recent[-1]
            one, two = (set(path["sites"][1:-1]) for path in last["paths"])
            assert one and two and not one & two and last["hybrid"] == ["ML-KEM-768"]
            assert in_book(end_to_end.book) == in_store(store)

    asyncio.run(serve())
    start = next(iter(METRO.hops.values())).a
    taken = store.submit(lambda tx: taken_as(KmeView(tx, kme_of_site(start)), demands)).result()
    assert sum(len(run.key) for run in taken) == 2 * 32


def taken_as(view: KmeView, demands: KeyDemands) -> list[TakenKey]:
    def will_do(batch: KeyBatch) -> bool:
        return demands.met_by(batch.provenance, batch.created_s, batch.created_s)

    return take_keys(view, MASTER, FAR, 2, 32, (), will_do)


@pytest.mark.parametrize(
    ("demands", "reason"),
    [
        (KeyDemands(not_simulated=True), "simulated"),
        (KeyDemands(min_paths=9), "routes"),
        (KeyDemands(max_hops=1), "routes"),
        (KeyDemands(avoid=frozenset({next(iter(METRO.hops.values())).a})), "routes"),
    ],
)
def test_a_demand_that_can_never_be_met_is_told_at_once(
    store: SqliteKeyStore, demands: KeyDemands, reason: str
) -> None:
    async def ask() -> str | None:
        async with running(store) as end_to_end:
            end_to_end.demand(MASTER, SLAVE, 0)
            await until(lambda: end_to_end.pairs)
            return end_to_end.demand_special(MASTER, SLAVE, 32, demands)

    answer = asyncio.run(ask())
    assert answer is not None and reason in answer


def test_hops_without_key_are_bridged_by_one_policy_alone_and_the_key_says_so(store: SqliteKeyStore) -> None:
    for site in ("at-schwechat", "sk-bratislava"):
        put(store, LinkId("at-schwechat--sk-bratislava"), SiteId(site), bytes(STOCK_BYTES))

    async def serve(policy: HybridPolicy) -> list[tuple[int, bool]]:
        async with running(store, policy) as end_to_end:
            end_to_end.demand(MASTER, SLAVE, 32)
            await until(lambda: end_to_end.shortage.waited_for or end_to_end.relays)
            assert in_book(end_to_end.book) == in_store(store)
            return [(batch["hops"], batch["computational"]) for batch in end_to_end.recent]

    assert asyncio.run(serve(HybridPolicy.BOTH)) == []
    assert asyncio.run(serve(HybridPolicy.EITHER)) == [(2, True)]
