"""Which batches a KME agrees on next: what counts as stock, and what does not."""

from dataclasses import replace

from openqci.core.identifiers import LinkId
from openqci.core.keys import SecretBytes
from openqci.delivery import agreement, supply
from openqci.delivery.agreement import BatchWanted
from openqci.delivery.pair_stock import stock_bytes
from openqci.delivery.supply import PairDemand
from openqci.keystore.deposits import link_key_stream
from openqci.keystore.memory import MemoryKeyStore
from openqci.keystore.ports import KmeView
from tests.delivery.make import ALICE, BOB, LISBON, WARSAW, key_bytes, stock_pair

EPOCHS = {WARSAW: "e"}
LINK = LinkId("lw.e")
DEMAND = PairDemand(ALICE, ((BOB, WARSAW, "lw"),), low_bytes=512, high_bytes=1024)


def lacking(store: MemoryKeyStore, waiting_bytes: int) -> list[int]:
    demand = PairDemand(
        DEMAND.master, DEMAND.legs, DEMAND.low_bytes, DEMAND.high_bytes, waiting_bytes=waiting_bytes
    )
    found = store.submit(lambda tx: supply.needs(KmeView(tx, LISBON), [demand], EPOCHS)).result()
    return [need.lacking_bytes for need in found]


def offer(store: MemoryKeyStore, key_bytes: int, stream_id: str = "") -> None:
    wanted = BatchWanted(ALICE, ((BOB, WARSAW, LINK),), key_bytes, stream_id=stream_id)

    def work(view: KmeView) -> None:
        view.append(link_key_stream(LINK, LISBON), SecretBytes(bytes(agreement.range_bytes(key_bytes))))
        agreement.offer(view, wanted, 7, 1.0)

    store.submit(lambda tx: work(KmeView(tx, LISBON))).result()


def test_a_pair_above_its_low_watermark_needs_nothing() -> None:
    store = MemoryKeyStore()
    assert lacking(store, 0) == [1024]
    store.submit(lambda tx: stock_pair(tx, key_bytes(600))).result()
    assert lacking(store, 0) == []


def test_rests_too_short_for_a_key_do_not_leave_a_request_waiting_for_ever() -> None:
    store = MemoryKeyStore()
    for _ in range(20):
        store.submit(lambda tx: stock_pair(tx, key_bytes(100))).result()
    held = store.submit(lambda tx: stock_bytes(KmeView(tx, LISBON), ALICE, BOB)).result()
    assert held == 2000
    assert lacking(store, 512) == [512]


def test_what_is_coming_is_not_ordered_again() -> None:
    store = MemoryKeyStore()
    offer(store, 1024)
    assert lacking(store, 512) == []
    assert lacking(store, 1500) == [1500 - 1024]


def test_key_for_a_stream_is_no_stock_of_its_pair() -> None:
    store = MemoryKeyStore()
    offer(store, 1024, stream_id="a stream")
    assert lacking(store, 0) == [1024]


def test_a_stock_is_kept_in_keys_of_the_size_that_is_asked_for() -> None:
    store = MemoryKeyStore()
    for _ in range(4):
        store.submit(lambda tx: stock_pair(tx, key_bytes(400))).result()
    demand = replace(DEMAND, key_bytes=512)
    (need,) = store.submit(lambda tx: supply.needs(KmeView(tx, LISBON), [demand], EPOCHS)).result()
    assert need.lacking_bytes == 1024, "1600 bytes, and no key of 512 among them"
    assert supply.batch_lengths(need, 100_000) == [1024]
    assert supply.batch_lengths(replace(need, lacking_bytes=1500), 100_000) == [1536]
    assert supply.batch_lengths(replace(need, lacking_bytes=4000), 2_000) == [1536], "whole keys alone"
