"""Bringing a network into being: what a start finds in its directory, and what it mends."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from openqci.cli.up.commission import share_authentication_keys
from openqci.cli.up.production import spend_authentication
from openqci.core.errors import KeyUnavailable
from openqci.core.identifiers import KmeId, StreamId, authentication_stream, kme_of_site
from openqci.distillation import AUTHENTICATION_KEY_BYTES
from openqci.keystore.ports import StoreTransaction
from openqci.network import load_scenario
from openqci.services.sqlite_store import SqliteKeyStore
from openqci.twin.hops import AUTHENTICATION_STOCK_BYTES

METRO = load_scenario("metro")
HOP = next(iter(METRO.hops.values()))
KMES = [kme_of_site(site) for site in (HOP.a, HOP.b)]
AUTHENTICATION = authentication_stream(HOP.link_id)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteKeyStore]:
    opened = SqliteKeyStore.open(tmp_path / "store.sqlite", bytes(32))
    yield opened
    opened.close()


def start(store: SqliteKeyStore) -> list[str]:
    """Do what a start does about authentication key; return what it says."""
    said: list[str] = []
    share_authentication_keys(store, METRO, said.append)
    return said


def begin_block(store: SqliteKeyStore) -> tuple[bytes, bytes]:
    at_a, at_b = store.submit(lambda transaction: spend_authentication(transaction, HOP)).result()
    return bytes(at_a.reveal()), bytes(at_b.reveal())


def ranges(store: SqliteKeyStore) -> list[list[tuple[int, int]]]:
    def work(transaction: StoreTransaction) -> list[list[tuple[int, int]]]:
        return [transaction.ranges(kme, AUTHENTICATION) for kme in KMES]

    return store.submit(work).result()


def test_every_hop_gets_authentication_key_once(store: SqliteKeyStore) -> None:
    assert start(store) == [f"pre-shared authentication key at both ends of {len(METRO.hops)} hops"]
    at_a, at_b = begin_block(store)
    assert at_a == at_b and len(set(at_a)) > 100
    before = ranges(store)
    assert start(store) == [] and ranges(store) == before


def test_a_hop_whose_blocks_were_all_cut_off_speaks_again_after_a_start(store: SqliteKeyStore) -> None:
    """A dozen stops in the middle of a hop's first block must not silence it for ever."""
    start(store)
    spent = {begin_block(store) for _ in range(AUTHENTICATION_STOCK_BYTES // AUTHENTICATION_KEY_BYTES)}
    with pytest.raises(KeyUnavailable):
        begin_block(store)
    assert start(store) == ["pre-shared authentication key at both ends of 1 hops"]
    at_a, at_b = begin_block(store)
    assert at_a == at_b and (at_a, at_b) not in spent
    left, right = ranges(store)
    assert left == right
    assert left[0][0] >= AUTHENTICATION_STOCK_BYTES, "no offset means two bytes"


def test_ends_that_lost_each_other_get_new_key(store: SqliteKeyStore) -> None:
    start(store)
    take(store, KMES[1], AUTHENTICATION, AUTHENTICATION_STOCK_BYTES - AUTHENTICATION_KEY_BYTES + 1)
    start(store)
    at_a, at_b = begin_block(store)
    assert at_a == at_b


def take(store: SqliteKeyStore, kme: KmeId, stream: StreamId, length_bytes: int) -> None:
    store.submit(lambda transaction: transaction.take_next(kme, stream, length_bytes)[1].wipe()).result()
