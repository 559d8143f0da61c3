"""The contract of every key store, run over each of them: what a third party's store must pass too."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from openqci.core.errors import IntegrityError, KeyUnavailable
from openqci.core.identifiers import StreamId
from openqci.core.keys import SecretBytes, StoredRange
from openqci.keystore.ledger import SEGMENT_BYTES
from openqci.keystore.ports import KmeView, StoreTransaction
from tests.keystore.make import (
    LINK,
    LISBON,
    WARSAW,
    Store,
    append,
    do,
    memory_store,
    pattern,
    postgres_store,
    sqlite_store,
    stock,
    take,
    take_next,
)

LONG = 3 * SEGMENT_BYTES + 100


@pytest.fixture(params=[memory_store, sqlite_store, postgres_store])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    make: Callable[[Path], AbstractContextManager[Store]] = request.param
    with make(tmp_path) as made:
        yield made


# Appending and taking


def test_bytes_come_back_as_they_went_in(store: Store) -> None:
    key = pattern(LONG)
    assert append(store, key) == 0
    assert stock(store) == LONG
    assert take(store, 0, LONG) == key
    assert stock(store) == 0


def test_append_says_where_the_bytes_lie(store: Store) -> None:
    append(store, pattern(10))
    stored = do(store, lambda tx: tx.append(LISBON, LINK, SecretBytes(pattern(5))))
    assert stored == StoredRange(LINK, 10, 5)


@pytest.mark.parametrize("length", [1, SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 1, LONG])
def test_a_segment_boundary_is_not_felt(store: Store, length: int) -> None:
    key = pattern(length)
    append(store, key[:1])
    append(store, key[1:] + b"x")
    assert take(store, 0, length) == key


@pytest.mark.parametrize("offset", [0, 1, SEGMENT_BYTES - 1, SEGMENT_BYTES, 2 * SEGMENT_BYTES - 50])
@pytest.mark.parametrize("length", [1, 96, SEGMENT_BYTES, SEGMENT_BYTES + 2])
def test_taking_a_range_leaves_the_rest_and_only_the_rest(store: Store, offset: int, length: int) -> None:
    key = pattern(LONG)
    append(store, key)
    assert take(store, offset, length) == key[offset : offset + length]
    assert stock(store) == LONG - length
    if offset:
        assert take(store, 0, offset) == key[:offset]
    assert take(store, offset + length, LONG - offset - length) == key[offset + length :]
    assert stock(store) == 0


@pytest.mark.parametrize("again", [(0, 10), (5, 10), (9, 1), (0, 100), (5, 1)])
def test_no_byte_is_taken_twice(store: Store, again: tuple[int, int]) -> None:
    append(store, pattern(100))
    take(store, 0, 10)
    with pytest.raises(KeyUnavailable):
        take(store, *again)
    assert stock(store) == 90


def test_a_refused_take_says_how_much_there_is_and_takes_nothing(store: Store) -> None:
    append(store, pattern(100))
    take(store, 40, 20)
    with pytest.raises(KeyUnavailable) as refused:
        take(store, 30, 40)
    assert (refused.value.wanted_bytes, refused.value.available_bytes) == (40, 20)
    assert take(store, 0, 40) == pattern(100)[:40]


@pytest.mark.parametrize("offset", [0, 100, 99, 2**38, 2**63, 2**200])
def test_an_offset_beyond_the_end_is_refused_however_large(store: Store, offset: int) -> None:
    append(store, pattern(100))
    append(store, pattern(100), stream=StreamId("next"))
    with pytest.raises(KeyUnavailable):
        take(store, offset, 101)


@pytest.mark.parametrize(("offset", "length"), [(-1, 5), (0, 0), (0, -5)])
def test_a_range_that_is_none_breaks_an_invariant(store: Store, offset: int, length: int) -> None:
    append(store, pattern(100))
    with pytest.raises(IntegrityError):
        take(store, offset, length)
    with pytest.raises(IntegrityError):
        take_next(store, 0)


def test_the_caller_keeps_the_key_that_it_appends(store: Store) -> None:
    key = SecretBytes(pattern(20))
    do(store, lambda tx: tx.append(LISBON, LINK, key))
    assert key.reveal() == pattern(20)
    key.wipe()
    assert take(store, 0, 20) == pattern(20)


# The next bytes that are there


def test_take_next_goes_in_order_of_offset(store: Store) -> None:
    key = pattern(LONG)
    append(store, key)
    assert take_next(store, 96) == (0, key[:96])
    assert take_next(store, SEGMENT_BYTES) == (96, key[96 : 96 + SEGMENT_BYTES])


def test_take_next_passes_over_holes_that_are_too_small(store: Store) -> None:
    key = pattern(300)
    append(store, key)
    take(store, 50, 10)
    take(store, 100, 10)
    assert take_next(store, 60) == (110, key[110:170])
    assert take_next(store, 45) == (0, key[:45])
    assert take_next(store, 40) == (60, key[60:100])
    assert stock(store) == 300 - 20 - 60 - 45 - 40


def test_take_next_joins_neighbouring_appends(store: Store) -> None:
    key = pattern(90)
    for start in range(0, 90, 10):
        append(store, key[start : start + 10])
    assert take_next(store, 85) == (0, key[:85])


def test_take_next_without_a_long_enough_run_says_the_stock(store: Store) -> None:
    append(store, pattern(100))
    take(store, 50, 1)
    with pytest.raises(KeyUnavailable) as refused:
        take_next(store, 60)
    assert (refused.value.wanted_bytes, refused.value.available_bytes) == (60, 99)
    with pytest.raises(KeyUnavailable):
        take_next(store, 10, stream=StreamId("unknown"))
    assert stock(store) == 99


def test_take_next_finds_key_behind_thousands_of_crumbs(store: Store) -> None:
    crumbs = 1100

    def scatter(tx: StoreTransaction) -> None:
        tx.append(LISBON, LINK, SecretBytes(pattern(2 * crumbs + 50)))
        for place in range(crumbs):
            tx.take(LISBON, LINK, 2 * place + 1, 1).wipe()

    do(store, scatter)
    assert take_next(store, 40) == (2 * crumbs, pattern(2 * crumbs + 50)[2 * crumbs : 2 * crumbs + 40])


# Streams


def test_an_offset_never_means_two_bytes(store: Store) -> None:
    append(store, pattern(100))
    take(store, 0, 100)
    assert append(store, pattern(7, seed=1)) == 100
    assert do(store, lambda tx: tx.destroy(LISBON, LINK)) == 7
    assert append(store, pattern(7, seed=2)) == 107
    with pytest.raises(KeyUnavailable):
        take(store, 100, 7)


def test_a_destroyed_stream_holds_nothing(store: Store) -> None:
    append(store, pattern(LONG))
    assert do(store, lambda tx: tx.destroy(LISBON, LINK)) == LONG
    assert stock(store) == 0 and do(store, lambda tx: tx.ranges(LISBON, LINK)) == []
    assert do(store, lambda tx: tx.destroy(LISBON, StreamId("unknown"))) == 0


def test_ranges_are_the_runs_that_are_there(store: Store) -> None:
    append(store, pattern(LONG))
    take(store, 10, 5)
    take(store, LONG - 1, 1)
    assert do(store, lambda tx: tx.ranges(LISBON, LINK)) == [(0, 10), (15, LONG - 16)]


def test_an_empty_key_makes_an_empty_stream(store: Store) -> None:
    assert append(store, b"") == 0
    assert list(do(store, lambda tx: tx.streams(LISBON))) == [(LINK, 0)]
    assert append(store, pattern(3)) == 0


def test_streams_are_listed_by_prefix_in_order_with_their_stock(store: Store) -> None:
    for name in ("link/b", "link/a", "linkage", "auth/a", "link/"):
        append(store, pattern(len(name)), stream=StreamId(name))
    append(store, pattern(1), kme=WARSAW, stream=StreamId("link/c"))
    assert list(do(store, lambda tx: tx.streams(LISBON, "link/"))) == [
        ("link/", 5),
        ("link/a", 6),
        ("link/b", 6),
    ]
    assert len(list(do(store, lambda tx: tx.streams(LISBON)))) == 5


# Isolation of KMEs


def test_one_kme_sees_nothing_of_another(store: Store) -> None:
    def work(tx: StoreTransaction) -> None:
        mine, other = KmeView(tx, LISBON), KmeView(tx, WARSAW)
        mine.append(LINK, SecretBytes(pattern(50)))
        mine.put_record("sae", "a", b"mine")
        assert other.stock_bytes(LINK) == 0 and list(other.streams()) == []
        assert other.record("sae", "a") is None and list(other.records("sae")) == []
        assert other.drop_record("sae", "a") is False and other.destroy(LINK) == 0
        with pytest.raises(KeyUnavailable):
            other.take(LINK, 0, 1)
        with pytest.raises(KeyUnavailable):
            other.take_next(LINK, 1)
        assert mine.stock_bytes(LINK) == 50 and mine.record("sae", "a") == b"mine"

    do(store, work)


def test_both_ends_of_a_link_spend_the_same_bytes_each_once(store: Store) -> None:
    for kme in (LISBON, WARSAW):
        append(store, pattern(100), kme=kme)
    offset, ours = take_next(store, 32)
    assert take(store, offset, 32, kme=WARSAW) == ours
    assert stock(store) == stock(store, kme=WARSAW) == 68


# Records


def test_records_are_written_replaced_and_dropped(store: Store) -> None:
    def work(tx: StoreTransaction) -> None:
        assert tx.record(LISBON, "sae", "a") is None
        tx.put_record(LISBON, "sae", "a", b"1")
        tx.put_record(LISBON, "sae", "a", b"2")
        assert tx.record(LISBON, "sae", "a") == b"2"
        assert tx.record(LISBON, "other", "a") is None
        assert tx.drop_record(LISBON, "sae", "a") is True
        assert tx.drop_record(LISBON, "sae", "a") is False
        assert tx.record(LISBON, "sae", "a") is None

    do(store, work)


PREFIXES = ["", "a", "a/", "a\x00", "é", "a\U0010ffff", "\U0010ffff", "\ud7ff", "z"]
KEYS = [
    *("a", "a/", "a/1", "a/2", "a0", "aa", "b", "é", "éa", "a\x00b"),
    *("a\U0010ffff", "a\U0010ffffx", "\U0010ffff\U0010ffff", "\ud7ff!", "\ue000", "A"),
]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_records_come_by_prefix_in_order_of_key(store: Store, prefix: str) -> None:
    def work(tx: StoreTransaction) -> list[tuple[str, bytes]]:
        for key in reversed(KEYS):
            tx.put_record(LISBON, "kind", key, key.encode())
        return list(tx.records(LISBON, "kind", prefix))

    assert do(store, work) == [(key, key.encode()) for key in sorted(KEYS) if key.startswith(prefix)]


def test_records_may_be_dropped_while_they_are_listed(store: Store) -> None:
    def work(tx: StoreTransaction) -> int:
        for number in range(20):
            tx.put_record(LISBON, "kind", f"{number:02}", b"")
        for key, _ in tx.records(LISBON, "kind"):
            tx.drop_record(LISBON, "kind", key)
        return len(list(tx.records(LISBON, "kind")))

    assert do(store, work) == 0


# All or nothing


class Crash(Exception):
    """Raised by a work in the middle."""


def test_a_work_that_raises_leaves_no_trace(store: Store) -> None:
    append(store, pattern(100))
    other = StreamId("made in the work")

    def work(tx: StoreTransaction) -> None:
        tx.take(LISBON, LINK, 10, 20).wipe()
        tx.append(LISBON, LINK, SecretBytes(pattern(50)))
        tx.append(LISBON, other, SecretBytes(pattern(50)))
        tx.put_record(LISBON, "kind", "a", b"1")
        raise Crash

    with pytest.raises(Crash):
        do(store, work)
    assert stock(store) == 100 and stock(store, stream=other) == 0
    assert do(store, lambda tx: tx.record(LISBON, "kind", "a")) is None
    assert list(do(store, lambda tx: tx.streams(LISBON))) == [(LINK, 100)]
    assert append(store, b"x") == 100
    assert take(store, 0, 100) == pattern(100)
    assert append(store, b"y", stream=other) == 0


def test_a_work_may_go_on_after_a_refused_take(store: Store) -> None:
    append(store, pattern(100))

    def work(tx: StoreTransaction) -> bytes:
        with pytest.raises(KeyUnavailable):
            tx.take(LISBON, LINK, 90, 20)
        return bytes(tx.take(LISBON, LINK, 0, 5).reveal())

    assert do(store, work) == pattern(100)[:5]
    assert stock(store) == 95


@pytest.mark.parametrize("fault", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_nothing_that_a_work_raises_ends_the_store(store: Store, fault: type[BaseException]) -> None:
    def work(tx: StoreTransaction) -> None:
        tx.append(LISBON, LINK, SecretBytes(b"x"))
        raise fault

    with pytest.raises(fault):
        do(store, work)
    assert stock(store) == 0
