"""A batch leaves nothing behind at either end once no key fits into its rest."""

import pytest

from openqci.core.identifiers import KmeId
from openqci.delivery.pair_stock import KEY_BYTES_MIN, batch_of, take_keys, take_range
from openqci.keystore.memory import MemoryTransaction
from openqci.keystore.ports import KmeView
from tests.delivery.make import ALICE, BOB, LISBON, WARSAW, key_bytes, network, stock_pair

TAG = 77


def collect(transaction: MemoryTransaction, key_size: int) -> None:
    """Take all keys of this size from the pair's batch at the master, and each of them at the slave."""
    lisbon, warsaw = KmeView(transaction, LISBON), KmeView(transaction, WARSAW)
    for taken in take_keys(lisbon, ALICE, BOB, 32 // key_size, key_size):
        batch = batch_of(warsaw, TAG, "slave")
        assert batch is not None
        key = take_range(warsaw, batch, taken.offset_bytes, key_size)
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
