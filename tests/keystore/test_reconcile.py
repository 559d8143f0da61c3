"""After an outage each end destroys what its peer no longer has, and what both have stays."""

from hypothesis import given
from hypothesis import strategies as st

from openqci.core.identifiers import KmeId, StreamId
from openqci.core.keys import SecretBytes
from openqci.keystore.ledger import joined
from openqci.keystore.memory import MemoryKeyStore
from openqci.keystore.ports import KmeView, StoreTransaction
from openqci.keystore.reconcile import destroy_surplus, surplus

STREAM = StreamId("link/a--b/a")
LENGTH = 64


def as_ranges(there: set[int]) -> list[tuple[int, int]]:
    return joined([(offset, 1) for offset in sorted(there)])


def offsets(ranges: list[tuple[int, int]]) -> set[int]:
    return {offset + step for offset, length in ranges for step in range(length)}


sets_of_offsets = st.sets(st.integers(0, LENGTH - 1))


@given(sets_of_offsets, sets_of_offsets)
def test_surplus_is_the_difference_of_the_two_ends(mine: set[int], theirs: set[int]) -> None:
    assert offsets(surplus(as_ranges(mine), as_ranges(theirs))) == mine - theirs


@given(sets_of_offsets, sets_of_offsets)
def test_both_ends_hold_the_same_bytes_afterwards(spent_at_a: set[int], spent_at_b: set[int]) -> None:
    key = bytes(range(LENGTH))

    def work(transaction: StoreTransaction) -> None:
        ends = [KmeView(transaction, KmeId(name)) for name in ("kme-a", "kme-b")]
        for end, spent in zip(ends, (spent_at_a, spent_at_b), strict=True):
            end.append(STREAM, SecretBytes(key))
            for offset in spent:
                end.take(STREAM, offset, 1)
        before = [end.ranges(STREAM) for end in ends]
        destroy_surplus(ends[0], STREAM, before[1])
        destroy_surplus(ends[1], STREAM, before[0])
        both = set(range(LENGTH)) - spent_at_a - spent_at_b
        assert [offsets(end.ranges(STREAM)) for end in ends] == [both, both]
        for offset in both:
            assert ends[0].take(STREAM, offset, 1).reveal() == ends[1].take(STREAM, offset, 1).reveal()

    MemoryKeyStore().submit(work).result()
