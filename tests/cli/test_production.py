"""Blocks of key into the store: the same bytes at both ends in either direction, authentication key first."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.cli.up.clock import SimulatedClock
from openqci.cli.up.figures import decode_figures
from openqci.cli.up.production import (
    HOP_FIGURES,
    NETWORK,
    RETRY_AFTER_ABORT_S,
    Production,
    keep_block,
    photon_seed,
    spend_authentication,
)
from openqci.cli.up.workers import BlockWorkers
from openqci.core.errors import KeyUnavailable
from openqci.core.identifiers import LinkId, SiteId, StreamId, authentication_stream, kme_of_site, link_stream
from openqci.core.keys import SecretBytes
from openqci.distillation import AUTHENTICATION_KEY_BYTES
from openqci.keystore.memory import MemoryKeyStore
from openqci.links import forecast
from openqci.network import load_scenario
from openqci.services.group_commit import StoreUnavailable
from openqci.services.sqlite_store import SqliteKeyStore
from openqci.twin.block import BlockOrder, BlockOutcome
from openqci.twin.hops import AUTHENTICATION_STOCK_BYTES, HopBook, HopFigures, HopState

METRO = load_scenario("metro")
HOP = next(iter(METRO.hops.values()))
ENDS = (HOP.a, HOP.b)
FORECASTS = {link: forecast(METRO.devices[hop.device], hop) for link, hop in METRO.hops.items()}
AUTHENTICATION = authentication_stream(HOP.link_id)
DIRECTIONS = {site: link_stream(HOP.link_id, site) for site in ENDS}

Store = MemoryKeyStore | SqliteKeyStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteKeyStore]:
    opened = SqliteKeyStore.open(tmp_path / "store.sqlite", bytes(32))
    yield opened
    opened.close()


def outcome(key: bytes, *, number: int = 0, aborted: str = "") -> BlockOutcome:
    return BlockOutcome(HOP.link_id, number, key, key, 1.5, 1000, "rusca-2018", 1e-9, None, aborted)


def book() -> HopBook:
    return HopBook(METRO, FORECASTS, {}, {})


def keep(store: Store, block: BlockOutcome, figures: HopFigures | None = None) -> dict[SiteId, int]:
    figures = figures or book().figures_after(block)
    return cast(Any, store).submit(lambda tx: keep_block(tx, HOP, block, figures)).result()


def put(store: Store, stream: StreamId, key: bytes) -> None:
    for site in ENDS:
        with SecretBytes(key) as secret:
            cast(Any, store).submit(
                lambda tx, s=site, k=secret: tx.append(kme_of_site(s), stream, k)
            ).result()


def taken(store: Store, site: SiteId, stream: StreamId) -> dict[int, bytes]:
    """Take all of a stream at one end: offset -> bytes."""

    def work(tx: Any) -> dict[int, bytes]:
        kme = kme_of_site(site)
        return {at: bytes(tx.take(kme, stream, at, n).reveal()) for at, n in tx.ranges(kme, stream)}

    return cast(dict[int, bytes], cast(Any, store).submit(work).result())


def stock(store: Store, site: SiteId, stream: StreamId) -> int:
    return int(cast(Any, store).submit(lambda tx: tx.stock_bytes(kme_of_site(site), stream)).result())


def figures_in(store: Store) -> HopFigures | None:
    body = cast(Any, store).submit(lambda tx: tx.record(NETWORK, HOP_FIGURES, HOP.link_id)).result()
    return None if body is None else msgspec.json.decode(body, type=HopFigures)


def test_a_block_lies_alike_at_both_ends_and_every_byte_of_it_once(store: SqliteKeyStore) -> None:
    put(store, AUTHENTICATION, bytes(AUTHENTICATION_STOCK_BYTES))
    key = random.Random(1).randbytes(5001)
    added = keep(store, outcome(key))
    assert added == {HOP.a: 2500, HOP.b: 2501} or added == {HOP.a: 2501, HOP.b: 2500}
    held = [[taken(store, site, DIRECTIONS[initiator]) for initiator in ENDS] for site in ENDS]
    assert held[0] == held[1]
    assert b"".join(part for streams in held[0] for part in streams.values()) == key


def test_authentication_key_is_refilled_first_and_from_the_block(store: SqliteKeyStore) -> None:
    put(store, AUTHENTICATION, b"\x55" * (AUTHENTICATION_STOCK_BYTES - 300))
    key = random.Random(2).randbytes(1000)
    added = keep(store, outcome(key))
    assert sum(added.values()) == 700
    for site in ENDS:
        assert b"".join(taken(store, site, AUTHENTICATION).values()).endswith(b"\x55" + key[:300])


def test_a_block_shorter_than_what_is_lacking_becomes_authentication_key(store: SqliteKeyStore) -> None:
    key = random.Random(3).randbytes(1000)
    assert keep(store, outcome(key)) == {HOP.a: 0, HOP.b: 0}
    assert [stock(store, site, AUTHENTICATION) for site in ENDS] == [1000, 1000]
    assert [stock(store, site, stream) for site in ENDS for stream in DIRECTIONS.values()] == [0] * 4
    kept = figures_in(store)
    assert kept is not None and kept.block_ends == {}


def test_an_aborted_block_stores_its_figures_and_nothing_else(store: SqliteKeyStore) -> None:
    block = outcome(b"", aborted="QBER too high")
    assert keep(store, block) == {}
    assert [stock(store, site, AUTHENTICATION) for site in ENDS] == [0, 0]
    kept = figures_in(store)
    assert kept == book().figures_after(block)
    assert kept is not None and (kept.blocks, kept.blocks_aborted, kept.secret_bits_total) == (0, 1, 0)


def test_figures_that_are_kept_are_read_back_after_a_restart(store: SqliteKeyStore) -> None:
    put(store, AUTHENTICATION, bytes(AUTHENTICATION_STOCK_BYTES))
    figures = book().figures_after(outcome(bytes(640)))
    keep(store, outcome(bytes(640)), figures)
    found = store.submit(lambda tx: decode_figures(tx.records(NETWORK, HOP_FIGURES))).result()
    assert found == {HOP.link_id: figures} and figures.block_ends == {HOP.a: [320], HOP.b: [320]}


def test_the_same_authentication_key_is_spent_at_both_ends_and_once(store: SqliteKeyStore) -> None:
    key = random.Random(5).randbytes(2 * AUTHENTICATION_KEY_BYTES)
    put(store, AUTHENTICATION, key)
    spent = []
    for _ in range(2):
        pair = store.submit(lambda tx: spend_authentication(tx, HOP)).result()
        at_a, at_b = (bytes(end.reveal()) for end in pair)
        assert at_a == at_b
        spent.append(at_a)
    assert b"".join(spent) == key
    assert [stock(store, site, AUTHENTICATION) for site in ENDS] == [0, 0]


def test_authentication_key_that_one_end_lacks_is_not_spent_at_the_other(store: SqliteKeyStore) -> None:
    kme = kme_of_site(HOP.a)
    with SecretBytes(bytes(AUTHENTICATION_KEY_BYTES)) as key:
        store.submit(lambda tx: tx.append(kme, AUTHENTICATION, key)).result()
    with pytest.raises(KeyUnavailable):
        store.submit(lambda tx: spend_authentication(tx, HOP)).result()
    assert stock(store, HOP.a, AUTHENTICATION) == AUTHENTICATION_KEY_BYTES


@given(
    steps=st.lists(
        st.one_of(st.integers(1, 5000).map(lambda n: ("block", n)), st.just(("spend", 0))), max_size=12
    )
)
def test_both_ends_agree_after_any_blocks_and_the_emptier_direction_is_filled(
    steps: list[tuple[str, int]],
) -> None:
    store, hops, bits = MemoryKeyStore(), book(), random.Random(6)
    put(store, AUTHENTICATION, bits.randbytes(AUTHENTICATION_STOCK_BYTES))
    for step, length in steps:
        if step == "spend" and stock(store, HOP.a, AUTHENTICATION) >= AUTHENTICATION_KEY_BYTES:
            store.submit(lambda tx: spend_authentication(tx, HOP)).result()
        elif step == "block":
            block = outcome(bits.randbytes(length), number=hops.begin_block(HOP.link_id, 0.0))
            figures = hops.figures_after(block)
            hops.end_block(block, figures, keep(store, block, figures), 0.0)
    line = hops.lines[HOP.link_id]
    assert figures_in(store) == (line.figures if line.figures.blocks else None)
    assert abs(line.stock_bytes[HOP.a] - line.stock_bytes[HOP.b]) <= 1
    for initiator, stream in DIRECTIONS.items():
        assert stock(store, initiator, stream) == line.stock_bytes[initiator], "the book says what is there"
        ends = line.figures.block_ends.get(initiator, [])
        assert ends == sorted(set(ends)) and (ends[-1] if ends else 0) == line.stock_bytes[initiator]
    for stream in (AUTHENTICATION, *DIRECTIONS.values()):
        assert taken(store, HOP.a, stream) == taken(store, HOP.b, stream)


def test_photons_repeat_only_if_the_user_fixed_a_seed() -> None:
    assert photon_seed(None, HOP.link_id, 0) != photon_seed(None, HOP.link_id, 0)
    fixed = [photon_seed(1, HOP.link_id, n) for n in (0, 1)] + [photon_seed(1, LinkId("x"), 0)]
    fixed += [photon_seed(2, HOP.link_id, 0)]
    assert len(set(fixed)) == 4 and fixed[0] == photon_seed(1, HOP.link_id, 0)


class OneWorker:
    """Stands for the worker processes: gives what the test says, and remembers what it was asked."""

    workers = 1

    def __init__(self, store: SqliteKeyStore, answer: BlockOutcome | Exception) -> None:
        self.store, self.answer = store, answer
        self.orders: list[BlockOrder] = []
        self.authentication_left: list[int] = []

    async def distil(self, order: BlockOrder) -> BlockOutcome:
        self.orders.append(order)
        self.authentication_left += [stock(self.store, site, AUTHENTICATION) for site in ENDS]
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def one_block(store: SqliteKeyStore, hops: HopBook, worker: OneWorker) -> float:
    """Let production make one block of the hop; return the simulated time at its end."""
    clock = SimulatedClock(0.0, 1000.0)
    todo, ended = [HOP.link_id], asyncio.Event()
    workers = cast(BlockWorkers, worker)
    production = Production(
        store, hops, workers, clock, 1, lambda: todo.pop() if todo else None, lambda: ended.set()
    )
    running = asyncio.create_task(production.run())
    try:
        while todo or hops.lines[HOP.link_id].distilling_since_s is not None:
            await asyncio.sleep(0.005)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await production.close()
    return clock.now_s()


def made(store: SqliteKeyStore, answer: BlockOutcome | Exception) -> tuple[HopBook, OneWorker, float]:
    hops, worker = book(), OneWorker(store, answer)
    return hops, worker, asyncio.run(one_block(store, hops, worker))


def test_a_block_uses_key_that_has_left_both_stores_before(store: SqliteKeyStore) -> None:
    put(store, AUTHENTICATION, random.Random(8).randbytes(AUTHENTICATION_STOCK_BYTES))
    hops, worker, _ = made(store, outcome(bytes(2000)))
    order = worker.orders[0]
    assert order.authentication_key_a == order.authentication_key_b
    assert worker.authentication_left == [AUTHENTICATION_STOCK_BYTES - AUTHENTICATION_KEY_BYTES] * 2
    line = hops.lines[HOP.link_id]
    assert [stock(store, site, AUTHENTICATION) for site in ENDS] == [AUTHENTICATION_STOCK_BYTES] * 2
    assert sum(line.stock_bytes.values()) == 2000 - AUTHENTICATION_KEY_BYTES
    assert line.figures.blocks == 1 and order.number == 0
    shown = repr(order)
    assert order.authentication_key_a.hex() not in shown and repr(order.authentication_key_a) not in shown


def test_a_hop_without_authentication_key_stands_still_and_says_why(store: SqliteKeyStore) -> None:
    hops, worker, _ = made(store, outcome(bytes(2000)))
    assert worker.orders == [] and hops.state(HOP.link_id) is HopState.DOWN
    assert "authentication" in hops.lines[HOP.link_id].standing_still


def test_a_block_that_aborts_costs_its_authentication_key_and_lets_others_go_first(
    store: SqliteKeyStore,
) -> None:
    put(store, AUTHENTICATION, bytes(AUTHENTICATION_STOCK_BYTES))
    hops, _, now_s = made(store, outcome(b"", aborted="QBER too high"))
    line = hops.lines[HOP.link_id]
    assert line.figures.blocks_aborted == 1 and line.stock_bits == 0
    assert line.not_before_s > RETRY_AFTER_ABORT_S and line.not_before_s <= now_s + RETRY_AFTER_ABORT_S
    assert [stock(store, site, AUTHENTICATION) for site in ENDS] == [
        AUTHENTICATION_STOCK_BYTES - AUTHENTICATION_KEY_BYTES
    ] * 2


@pytest.mark.parametrize("fault", [StoreUnavailable("disk full"), ValueError("a fault of our own")])
def test_a_block_that_is_lost_leaves_the_hop_free_for_the_next(
    store: SqliteKeyStore, fault: Exception
) -> None:
    put(store, AUTHENTICATION, bytes(AUTHENTICATION_STOCK_BYTES))
    hops, _, _ = made(store, fault)
    line = hops.lines[HOP.link_id]
    assert line.distilling_since_s is None and line.not_before_s >= RETRY_AFTER_ABORT_S
    assert (line.figures.blocks, line.figures.blocks_aborted, line.stock_bits) == (0, 0, 0)
    assert figures_in(store) is None
