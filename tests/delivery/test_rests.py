"""A batch leaves nothing behind at either end once no key fits into its rest."""

from functools import partial

import msgspec
import pytest

from openqci.core.errors import KeyUnavailable, PeerMisbehaved
from openqci.core.identifiers import KmeId
from openqci.delivery import agreement
from openqci.delivery.agreement import BATCH_LANE, REST_KIND, BatchRest
from openqci.delivery.pair_stock import (
    KEY_BYTES_MIN,
    QUEUE_PAGE,
    RestRule,
    batch_of,
    stock_bytes,
    stock_keys,
    take_keys,
    take_range,
)
from openqci.keystore import outbox
from openqci.keystore.memory import MemoryKeyStore, MemoryTransaction
from openqci.keystore.ports import KmeView
from tests.delivery.make import ALICE, BOB, LISBON, WARSAW, key_bytes, network, provenance, stock_pair

TAG = 77
RULE = RestRule(32, agreement.give_up_rest)
LEGS = (WARSAW,)
MADE = provenance((LISBON, WARSAW))


def collect(transaction: MemoryTransaction, key_size: int) -> None:
    """Take all keys of this size from the pair's batch at the master, and each of them at the slave."""
    lisbon, warsaw = KmeView(transaction, LISBON), KmeView(transaction, WARSAW)
    for taken in take_keys(lisbon, ALICE, BOB, 32 // key_size, key_size):
        batch = batch_of(warsaw, TAG, "slave")
        assert batch is not None
        key = take_range(warsaw, batch, taken.offset_bytes, len(taken.key))
        assert key.reveal() == taken.key.reveal()


@pytest.mark.parametrize("key_size", [9, 12, 27, 31, 32])
def test_a_rest_too_small_for_any_key_is_destroyed_at_both_ends(key_size: int) -> None:
    store = network()
    store.submit(lambda tx: stock_pair(tx, key_bytes(32), tag=TAG)).result()
    store.submit(lambda tx: collect(tx, key_size)).result()

    def left(kme: KmeId) -> tuple[int, int]:
        def look(transaction: MemoryTransaction) -> tuple[int, int]:
            view = KmeView(transaction, kme)
            return sum(stock for _, stock in view.streams()), len(list(view.records("pair-batch")))

        return store.submit(look).result()

    rest = 32 % key_size
    assert left(LISBON) == left(WARSAW) == ((rest, 1) if rest >= KEY_BYTES_MIN else (0, 0))


class Pair:
    """A pair whose batches have the given lengths; what the master's KME says is carried to the slave's."""

    def __init__(self, *lengths_bytes: int) -> None:
        self.store: MemoryKeyStore = network()
        for tag, length in enumerate(lengths_bytes, TAG):
            key = key_bytes(length)
            put = partial(stock_pair, key=key, tag=tag, made=MADE, legs=LEGS)
            self.store.submit(put).result()

    def view(self, kme: KmeId) -> KmeView:
        return self.store.submit(lambda tx: KmeView(tx, kme)).result()

    def take(self, count: int, size: int) -> list[int]:
        """Take keys, and carry what the master's KME has to say; return where they lay."""
        runs = take_keys(self.view(LISBON), ALICE, BOB, count, size, rests=RULE)
        self.carry()
        return [run.offset_bytes + at for run in runs for at in range(0, len(run.key), size)]

    def carry(self) -> None:
        turn = outbox.next_turn(self.view(LISBON), WARSAW, BATCH_LANE)
        if turn is not None:
            answers = outbox.receive(self.view(WARSAW), LISBON, turn, agreement.rest)
            outbox.settle(self.view(LISBON), WARSAW, answers, agreement.settle)

    def ranges(self, kme: KmeId, tag: int = TAG) -> list[tuple[int, int]]:
        batch = batch_of(self.view(kme), tag, "master" if kme == LISBON else "slave")
        return self.view(kme).ranges(batch.stream) if batch is not None else []


def test_a_rest_that_is_left_is_destroyed_at_both_ends() -> None:
    pair = Pair(100)
    assert pair.take(3, 32) == [0, 32, 64]
    assert pair.ranges(LISBON) == [], "four bytes hold no key"
    pair = Pair(112)
    pair.take(3, 32)
    assert pair.ranges(LISBON) == []
    assert pair.ranges(WARSAW) == [(0, 96)], "what was given out waits for its slave, the rest is gone"


def test_a_rest_that_is_passed_over_is_destroyed_at_both_ends() -> None:
    pair = Pair(48, 64)
    assert pair.take(2, 16) == [0, 16]
    assert pair.ranges(LISBON) == [(32, 16)], "another key of 128 bits may follow"
    assert pair.take(1, 32) == [0]
    assert pair.ranges(LISBON) == [] and pair.ranges(WARSAW) == [(0, 32)]
    assert pair.ranges(LISBON, TAG + 1) == [(32, 32)]


def test_what_holds_a_key_of_the_default_size_is_never_given_up() -> None:
    pair = Pair(96, 512)
    assert pair.take(1, 512) == [0]
    assert pair.ranges(LISBON) == pair.ranges(WARSAW) == [(0, 96)]
    assert pair.take(3, 32) == [0, 32, 64]


def test_a_rest_of_a_batch_whose_copies_cannot_be_told_stays() -> None:
    store = network()
    store.submit(lambda tx: stock_pair(tx, key_bytes(112), tag=TAG)).result()
    view = store.submit(lambda tx: KmeView(tx, LISBON)).result()
    take_keys(view, ALICE, BOB, 3, 32, rests=RULE)
    assert stock_bytes(view, ALICE, BOB) == 16 and stock_keys(view, ALICE, BOB, 32) == 0


def test_a_refused_request_gives_nothing_up() -> None:
    pair = Pair(48)
    pair.take(2, 16)

    def ask(transaction: MemoryTransaction) -> None:
        take_keys(KmeView(transaction, LISBON), ALICE, BOB, 1, 32, rests=RULE)

    with pytest.raises(KeyUnavailable):
        pair.store.submit(ask).result()
    assert pair.ranges(LISBON) == [(32, 16)]


def test_rests_are_no_keys_however_many_there_are() -> None:
    pair = Pair(*[48] * (2 * QUEUE_PAGE))
    for _ in range(2 * QUEUE_PAGE):
        take_keys(pair.view(LISBON), ALICE, BOB, 1, 32)  # without a rule the rests stay
    assert stock_bytes(pair.view(LISBON), ALICE, BOB) == 2 * QUEUE_PAGE * 16
    assert stock_keys(pair.view(LISBON), ALICE, BOB, 32) == 0
    assert stock_keys(pair.view(LISBON), ALICE, BOB, 16) == 2 * QUEUE_PAGE


def test_a_rest_is_ordered_by_the_origin_of_its_batch_alone_and_once() -> None:
    pair = Pair(112)
    order = msgspec.msgpack.encode(BatchRest(TAG, 96, 16))
    message = outbox.Message(0, REST_KIND, order)
    assert agreement.rest(pair.view(WARSAW), KmeId("kme-madrid"), message) == agreement.GIVEN_UP
    assert pair.ranges(WARSAW) == [(0, 112)]
    for _ in range(2):
        agreement.rest(pair.view(WARSAW), LISBON, message)
        assert pair.ranges(WARSAW) == [(0, 96)]


@pytest.mark.parametrize("body", [b"", b"\xc1", msgspec.msgpack.encode(BatchRest(TAG, -1, 5))])
def test_a_rest_that_makes_no_sense_is_refused(body: bytes) -> None:
    with pytest.raises(PeerMisbehaved):
        agreement.rest(Pair(64).view(WARSAW), LISBON, outbox.Message(0, REST_KIND, body))


def test_the_other_slaves_of_a_group_whose_one_kme_has_gone_give_their_copies_up() -> None:
    store = network()
    madrid = KmeId("kme-madrid")
    made, legs = provenance((LISBON, WARSAW, madrid)), (WARSAW, madrid)
    store.submit(lambda tx: stock_pair(tx, key_bytes(64), tag=TAG, made=made, legs=legs)).result()
    view = store.submit(lambda tx: KmeView(tx, LISBON)).result()
    batch = batch_of(view, TAG, "master")
    assert batch is not None
    agreement.withdraw(view, batch, madrid)
    assert outbox.next_turn(view, madrid, BATCH_LANE) is None
    turn = outbox.next_turn(view, WARSAW, BATCH_LANE)
    assert turn is not None
    warsaw = store.submit(lambda tx: KmeView(tx, WARSAW)).result()
    outbox.receive(warsaw, LISBON, turn, agreement.rest)
    assert batch_of(warsaw, TAG, "slave") is None and batch_of(view, TAG, "master") is None
