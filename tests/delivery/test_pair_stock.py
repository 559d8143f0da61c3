"""Stocks of SAE pairs: oldest first, whole or nothing, gone when spent."""

import pytest

from openqci.core.errors import KeyUnavailable, PeerMisbehaved
from openqci.core.identifiers import SaeId
from openqci.core.keys import SecretBytes
from openqci.delivery.pair_stock import (
    BATCH_KIND,
    QUEUE_KIND,
    batch_of,
    batches_in_stock,
    cut,
    stock_bytes,
    stock_keys,
    store_batch,
    take_keys,
    take_range,
)
from openqci.keystore.memory import MemoryKeyStore
from openqci.keystore.ports import KmeView, StoreTransaction
from tests.delivery.make import ALICE, BOB, LISBON, WARSAW, batch, key_bytes, stock_pair


def lisbon(transaction: StoreTransaction) -> KmeView:
    return KmeView(transaction, LISBON)


def taken(store: MemoryKeyStore, count: int, size: int) -> list[bytes]:
    runs = store.submit(lambda tx: take_keys(lisbon(tx), ALICE, BOB, count, size)).result()
    keys = [key for run in runs for key in cut(run.key, [size] * (len(run.key) // size))]
    return [bytes(key.reveal()) for key in keys]


def stocked(*keys: bytes) -> MemoryKeyStore:
    store = MemoryKeyStore()
    for tag, key in enumerate(keys, start=1):
        store.submit(lambda tx, t=tag, k=key: stock_pair(tx, k, tag=t)).result()
    return store


def test_the_oldest_batch_goes_first_and_no_key_spans_two() -> None:
    old, new = key_bytes(80), key_bytes(64)
    store = stocked(old, new)
    assert store.submit(lambda tx: stock_bytes(lisbon(tx), ALICE, BOB)).result() == 144
    assert store.submit(lambda tx: stock_keys(lisbon(tx), ALICE, BOB, 32)).result() == 4
    assert taken(store, 3, 32) == [old[:32], old[32:64], new[:32]]
    assert taken(store, 1, 16) == [old[64:]], "what was too small before fits a smaller key"


def test_a_short_stock_gives_nothing() -> None:
    store = stocked(key_bytes(64), key_bytes(40))
    with pytest.raises(KeyUnavailable) as shortage:
        taken(store, 4, 32)
    assert (shortage.value.wanted_bytes, shortage.value.available_bytes) == (128, 96)
    assert len(taken(store, 3, 32)) == 3


def test_a_spent_batch_leaves_no_record() -> None:
    key = key_bytes(70)
    store = stocked(key)
    taken(store, 2, 32)
    work = lambda tx: [list(lisbon(tx).records(kind)) for kind in (BATCH_KIND, QUEUE_KIND)]  # noqa: E731
    assert store.submit(work).result() == [[], []]
    assert store.submit(lambda tx: list(lisbon(tx).streams("pair/"))).result() == [
        ("pair/0000000001/master", 0)
    ]
    store.submit(lambda tx: take_all_at_slave(tx, 70)).result()
    assert store.submit(lambda tx: batch_of(KmeView(tx, WARSAW), 1, "slave")).result() is None


def take_all_at_slave(transaction: StoreTransaction, length_bytes: int) -> None:
    view = KmeView(transaction, WARSAW)
    one = batch_of(view, 1, "slave")
    assert one is not None
    take_range(view, one, 0, length_bytes)


def test_pairs_and_directions_are_apart() -> None:
    store = stocked(key_bytes(64))
    for pair in (
        (BOB, ALICE),
        (ALICE, SaeId("bo")),
        (ALICE, SaeId("bob/x")),
        (SaeId("alice/bob"), SaeId("")),
    ):
        assert store.submit(lambda tx, p=pair: stock_bytes(lisbon(tx), *p)).result() == 0
    assert store.submit(lambda tx: stock_bytes(KmeView(tx, WARSAW), ALICE, BOB)).result() == 0


def test_a_batch_tag_is_used_once() -> None:
    store = stocked(key_bytes(64))
    for again in range(2):
        with pytest.raises(PeerMisbehaved, match="0000000001"):
            store.submit(lambda tx: stock_pair(tx, key_bytes(64), tag=1)).result()
        if not again:
            taken(store, 2, 32)


def test_records_hold_no_key() -> None:
    key = key_bytes(64)
    store = stocked(key)
    bodies = store.submit(lambda tx: [body for _, body in lisbon(tx).records(BATCH_KIND)]).result()
    assert len(bodies) == 1 and key[:8] not in bodies[0]


def test_batches_come_back_as_they_were_stored() -> None:
    store = MemoryKeyStore()
    one = batch("master", tag=9, length_bytes=64)
    with SecretBytes(key_bytes(64)) as key:
        store.submit(lambda tx: store_batch(lisbon(tx), one, key)).result()
    assert store.submit(lambda tx: list(batches_in_stock(lisbon(tx), ALICE, BOB))).result() == [one]
