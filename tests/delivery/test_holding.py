"""Held batches: nobody gets a key of them, none is lost or counted, and a release undoes it all."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import KeyUnavailable
from openqci.core.keys import SecretBytes
from openqci.delivery.holding import destroy_held, held_batches, hold_batch, release_batch
from openqci.delivery.pair_stock import (
    batch_of,
    batches_in_stock,
    destroy_batch,
    destroy_expired,
    stock_bytes,
    stock_keys,
    store_batch,
    take_keys,
    take_range,
)
from openqci.keystore.memory import MemoryKeyStore
from openqci.keystore.ports import KmeView, StoreTransaction
from tests.delivery.make import ALICE, BOB, LISBON, WARSAW, batch, key_bytes, stock_pair

KEY = 32


def views(transaction: StoreTransaction) -> tuple[KmeView, KmeView]:
    return KmeView(transaction, LISBON), KmeView(transaction, WARSAW)


def stocked(*lengths: int) -> MemoryKeyStore:
    store = MemoryKeyStore(bytes(32))
    for tag, length in enumerate(lengths, start=1):
        store.submit(lambda tx, tag=tag, n=length: stock_pair(tx, key_bytes(n), tag=tag)).result()
    return store


def test_no_key_of_a_held_batch_is_given_out_at_either_end_and_the_next_one_serves() -> None:
    store = stocked(2 * KEY, 3 * KEY)

    def work(tx: StoreTransaction) -> None:
        master, slave = views(tx)
        assert (hold_batch(master, 1), hold_batch(slave, 1)) == (2 * KEY, 2 * KEY)
        assert batch_of(slave, 1, "slave") is batch_of(master, 1, "master") is None
        assert stock_bytes(master, ALICE, BOB) == 3 * KEY and stock_keys(master, ALICE, BOB, KEY) == 3
        assert [each.batch_tag for each in batches_in_stock(master, ALICE, BOB)] == [2]
        with pytest.raises(KeyUnavailable):
            take_keys(master, ALICE, BOB, 4, KEY)
        assert {each.batch.batch_tag for each in take_keys(master, ALICE, BOB, 3, KEY)} == {2}
        assert [each.batch_tag for each in held_batches(slave)] == [1]

    store.submit(work).result()


@pytest.mark.parametrize("taken", [0, 1])
def test_a_released_batch_is_as_it_was(taken: int) -> None:
    store = stocked(3 * KEY)

    def work(tx: StoreTransaction) -> None:
        master, slave = views(tx)
        before = [take_keys(master, ALICE, BOB, taken, KEY)] if taken else []
        assert len(before) == taken
        for view in (master, slave):
            hold_batch(view, 1)
            release_batch(view, 1)
        assert not held_batches(master) and not held_batches(slave)
        assert stock_bytes(master, ALICE, BOB) == (3 - taken) * KEY
        keys = take_keys(master, ALICE, BOB, 3 - taken, KEY)
        at_slave = batch_of(slave, 1, "slave")
        assert at_slave is not None
        for each in keys:
            with take_range(slave, at_slave, each.offset_bytes, len(each.key)) as copy:
                assert copy.reveal() == each.key.reveal()
        assert stock_bytes(master, ALICE, BOB) == 0

    store.submit(work).result()


def test_a_destroyed_batch_leaves_no_byte_and_no_record() -> None:
    store = stocked(2 * KEY)

    def work(tx: StoreTransaction) -> None:
        for view, role in zip(views(tx), ("master", "slave"), strict=True):
            stream = batch(role, tag=1).stream  # type: ignore[arg-type]
            hold_batch(view, 1)
            assert destroy_held(view, 1) == 2 * KEY
            assert view.stock_bytes(stream) == 0 and not held_batches(view)
            assert hold_batch(view, 1) == release_batch(view, 1) == destroy_held(view, 1) == 0

    store.submit(work).result()


def test_a_batch_that_expires_while_it_is_held_goes_at_its_release() -> None:
    store = MemoryKeyStore(bytes(32))

    def work(tx: StoreTransaction) -> None:
        view = KmeView(tx, LISBON)
        with SecretBytes(key_bytes(KEY)) as key:
            store_batch(view, msgspec.structs.replace(batch("master", length_bytes=KEY), expires_s=10.0), key)
        hold_batch(view, 1)
        assert destroy_expired(view, 20.0) == []
        release_batch(view, 1)
        assert [left for _, left in destroy_expired(view, 20.0)] == [KEY]
        assert stock_bytes(view, ALICE, BOB) == 0

    store.submit(work).result()


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["hold", "release", "take", "destroy"]), st.integers(1, 3)), max_size=14
    )
)
def test_whatever_is_held_and_released_counts_stay_right(steps: list[tuple[str, int]]) -> None:
    store = stocked(2 * KEY, 3 * KEY, KEY)

    def work(tx: StoreTransaction) -> None:
        view = KmeView(tx, LISBON)
        for step, tag in steps:
            if step == "hold":
                hold_batch(view, tag)
            elif step == "release":
                release_batch(view, tag)
            elif step == "destroy":
                destroy_held(view, tag)
            elif stock_bytes(view, ALICE, BOB) >= KEY:
                take_keys(view, ALICE, BOB, 1, KEY)
            in_use = list(batches_in_stock(view, ALICE, BOB))
            held = {each.batch_tag for each in held_batches(view)}
            assert not held & {each.batch_tag for each in in_use}
            assert stock_bytes(view, ALICE, BOB) == sum(view.stock_bytes(each.stream) for each in in_use)
        for each in list(batches_in_stock(view, ALICE, BOB)):
            destroy_batch(view, each)
        assert stock_bytes(view, ALICE, BOB) == 0

    store.submit(work).result()
