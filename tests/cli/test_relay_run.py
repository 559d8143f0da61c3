"""Relays of the live network on a real store: a batch at both ends or at none, whatever happens between."""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest

from openqci.cli.up import relay_run
from openqci.cli.up.relay_run import (
    PENDING_RECORD,
    RELAY_ACCOUNTS_KEPT,
    RELAY_RECORD,
    RelayFailed,
    Spend,
    arrive,
    depart,
    release,
    run_relay,
    settle_pending,
)
from openqci.core.identifiers import KmeId, SaeId, link_stream
from openqci.delivery.pair_stock import batch_of, take_keys, take_range
from openqci.keystore.ports import KmeView, StoreTransaction
from openqci.relay import RelayOrder, RelayOrigin, forward, hop_bytes
from openqci.services.group_commit import StoreUnavailable
from tests.cli.make import KMES, LINKS, SITES, STOCK_BYTES, Row, relay_order, row, used

ENDS = ((SITES[0], "master"), (SITES[-1], "slave"))


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Row]:
    with row(tmp_path) as made:
        yield made


def failed(nodes: Row, relay: RelayOrder) -> RelayFailed:
    with pytest.raises(RelayFailed) as caught:
        asyncio.run(run_relay(nodes.store, relay))
    return caught.value


def carry(nodes: Row, relay: RelayOrder) -> tuple[RelayOrigin, bytes]:
    """Do a relay's steps by hand until the destination has stored its batch."""
    origin = RelayOrigin(relay)
    frame = nodes.at(SITES[0], origin.begin)
    for site in SITES[1:-1]:
        frame = nodes.at(site, partial(forward, data=frame))
        assert isinstance(frame, bytes)
    confirmation = nodes.at(SITES[-1], partial(arrive, data=frame))
    assert isinstance(confirmation, bytes)
    return origin, confirmation


def broken(step: Callable[..., object]) -> Callable[..., object]:
    """Return the step with a disk that fills up at its end."""

    def run(*args: object, **named: object) -> None:
        step(*args, **named)
        raise StoreUnavailable("disk full")

    return run


def test_a_relay_leaves_the_same_batch_at_both_ends(nodes: Row) -> None:
    relay = relay_order()
    done = asyncio.run(run_relay(nodes.store, relay))
    assert nodes.batch(relay, "master") == nodes.batch(relay, "slave") == nodes.truth[LINKS[0]][:256]
    records = [nodes.at(site, partial(batch_of, batch_tag=relay.batch_tag, role=role)) for site, role in ENDS]
    assert None not in records
    assert len({record.id_seed for record in records if record}) == 1
    assert [record.provenance for record in records if record] == [relay.provenance] * 2
    assert done.order == relay and used(done.spends) == dict.fromkeys(LINKS, hop_bytes(256))
    assert nodes.pair_streams() == {KMES[0]: 256, KMES[-1]: 256}, "no node between keeps anything"
    assert nodes.records(SITES[-1], PENDING_RECORD) == []


def test_pads_are_gone_at_both_ends_of_every_hop(nodes: Row) -> None:
    done = asyncio.run(run_relay(nodes.store, relay_order()))
    rest = (hop_bytes(256), STOCK_BYTES - hop_bytes(256))
    assert [nodes.ranges(link) for link in LINKS] == [[[rest], [rest]]] * 3
    assert [(link, at) for link, _, at, _ in done.spends] == [(link, 0) for link in LINKS]


def test_relays_at_once_never_share_a_byte(nodes: Row) -> None:
    relays = [relay_order(number, key_bytes=64) for number in range(1, 9)]

    async def all_at_once() -> list[tuple[Spend, ...]]:
        return [done.spends for done in await asyncio.gather(*(run_relay(nodes.store, r) for r in relays))]

    spends = [spend for relay in asyncio.run(all_at_once()) for spend in relay]
    for link in LINKS:
        places = [place for each, _, at, length in spends if each == link for place in range(at, at + length)]
        assert len(places) == len(set(places)) == 8 * hop_bytes(64)
    keys = {nodes.batch(relay, "master") for relay in relays}
    assert len(keys) == 8 and keys == {nodes.batch(relay, "slave") for relay in relays}


@pytest.mark.parametrize("dry", [0, 1, 2])
def test_a_hop_without_key_ends_the_relay_and_leaves_no_batch(tmp_path: Path, dry: int) -> None:
    with row(tmp_path, stocked=False) as nodes:
        for link in LINKS:
            nodes.distil(link, 100 if link == LINKS[dry] else STOCK_BYTES)
        error = failed(nodes, relay_order())
        assert nodes.spent() == used(error.spends), "the error tells what the relay has used"
        assert [link for link, *_ in error.spends] == LINKS[:dry]
        for link in LINKS:
            left, right = nodes.ranges(link)
            assert left == right, "both ends of every hop still agree"
        assert nodes.pair_streams() == {} and nodes.records(SITES[-1], PENDING_RECORD) == []


def test_ends_that_hold_different_key_leave_no_batch(tmp_path: Path) -> None:
    with row(tmp_path, stocked=False) as nodes:
        nodes.distil(LINKS[0])
        nodes.distil(LINKS[1])
        for site in SITES[2:]:
            nodes.append(site, link_stream(LINKS[2], SITES[2]), nodes.random.randbytes(STOCK_BYTES))
        error = failed(nodes, relay_order())
        assert "MAC" in str(error) and len(error.spends) == 3
        assert nodes.pair_streams() == {}
        left, right = nodes.ranges(LINKS[2])
        assert left == right == [(hop_bytes(256), STOCK_BYTES - hop_bytes(256))], "destroyed at both ends"


def test_a_batch_tag_used_before_at_the_destination(nodes: Row) -> None:
    first, again = relay_order(1), relay_order(2)
    asyncio.run(run_relay(nodes.store, first))
    same_tag = msgspec.structs.replace(again, batch_tag=first.batch_tag)
    failed(nodes, same_tag)
    assert nodes.batch(first, "master") == nodes.batch(first, "slave") is not None, (
        "the good one is not touched"
    )


def test_an_origin_that_cannot_store_takes_the_batch_back_from_the_destination(
    nodes: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I4: after a failed relay nothing usable lies anywhere, without waiting for a restart."""
    with monkeypatch.context() as patch:
        patch.setattr(relay_run, "depart", broken(depart))
        error = failed(nodes, relay_order())
    assert used(error.spends) == nodes.spent()
    assert nodes.pair_streams() == {} and nodes.batch(relay_order(), "slave") is None
    assert nodes.records(SITES[-1], PENDING_RECORD) == [] == nodes.records(SITES[0], RELAY_RECORD)
    second = relay_order(2)
    asyncio.run(run_relay(nodes.store, second))
    assert nodes.batch(second, "slave") == nodes.truth[LINKS[0]][hop_bytes(256) :][:256]


def test_if_that_cannot_be_stored_either_the_next_start_does_it(
    nodes: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(relay_run, "depart", broken(depart))
        patch.setattr(relay_run, "withdraw", broken(relay_run.withdraw))
        failed(nodes, relay_order())
    assert nodes.pair_streams() == {KMES[-1]: 256}
    nodes.reopen()
    assert nodes.do(settle_pending) == 1 and nodes.pair_streams() == {}


def test_a_destination_that_cannot_note_the_end_keeps_its_key(
    nodes: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = relay_order()
    with monkeypatch.context() as patch:
        patch.setattr(relay_run, "release", broken(release))
        asyncio.run(run_relay(nodes.store, relay))
    assert len(nodes.records(SITES[-1], PENDING_RECORD)) == 1
    assert nodes.do(settle_pending) == 0
    assert nodes.batch(relay, "master") == nodes.batch(relay, "slave") is not None


def test_after_a_crash_before_the_origin_has_it_the_batch_is_destroyed_and_good_ones_stay(nodes: Row) -> None:
    good, cut_off = relay_order(1), relay_order(2)
    asyncio.run(run_relay(nodes.store, good))
    carry(nodes, cut_off)
    assert nodes.batch(cut_off, "slave") is not None
    nodes.reopen()
    assert nodes.do(settle_pending) == 1
    assert nodes.do(settle_pending) == 0, "once and for all"
    assert nodes.batch(cut_off, "slave") is None and nodes.batch(cut_off, "master") is None
    assert nodes.batch(good, "slave") == nodes.batch(good, "master") is not None
    assert nodes.pair_streams() == {KMES[0]: 256, KMES[-1]: 256}
    for link in LINKS:
        left, right = nodes.ranges(link)
        assert left == right


def test_after_a_crash_behind_the_origin_s_step_the_batch_stays(nodes: Row) -> None:
    relay = relay_order()
    origin, confirmation = carry(nodes, relay)
    nodes.at(SITES[0], partial(depart, origin=origin, confirmation=confirmation, spends=[]))
    nodes.reopen()
    assert nodes.do(settle_pending) == 0
    assert nodes.batch(relay, "slave") == nodes.batch(relay, "master") is not None
    assert nodes.records(SITES[-1], PENDING_RECORD) == []


def test_it_stays_also_when_the_master_has_spent_its_end_and_the_account_is_gone(nodes: Row) -> None:
    """A key that the master's application got must stay retrievable for the slave's, whatever came after."""
    relay = relay_order(key_bytes=64)
    origin, confirmation = carry(nodes, relay)
    nodes.at(SITES[0], partial(depart, origin=origin, confirmation=confirmation, spends=[]))

    def spend(view: KmeView) -> list[bytes]:
        taken = take_keys(view, SaeId("sae-master"), SaeId("sae-slave"), 2, 32)
        return [bytes(each.key.reveal()) for each in taken]

    keys = nodes.at(SITES[0], spend)

    def forget_accounts(view: KmeView) -> None:
        for name, _ in list(view.records(RELAY_RECORD)):
            view.drop_record(RELAY_RECORD, name)

    nodes.at(SITES[0], forget_accounts)
    nodes.reopen()
    assert nodes.do(settle_pending) == 0

    def fetch(view: KmeView) -> bytes:
        batch = batch_of(view, relay.batch_tag, "slave")
        assert batch is not None
        return bytes(take_range(view, batch, 0, 64).reveal())

    assert nodes.at(SITES[-1], fetch) == b"".join(keys)


def test_a_frame_that_was_lost_with_the_process_leaves_no_batch(nodes: Row) -> None:
    origin = RelayOrigin(relay_order())
    nodes.at(SITES[0], origin.begin)
    nodes.reopen()
    assert nodes.do(settle_pending) == 0 and nodes.pair_streams() == {}


def test_an_origin_keeps_the_accounts_of_its_last_relays_without_any_key(tmp_path: Path) -> None:
    with row(tmp_path, stocked=False) as nodes:
        nodes.distil(LINKS[0], 3 * 1024)
        for number in range(RELAY_ACCOUNTS_KEPT + 3):
            asyncio.run(run_relay(nodes.store, relay_order(number + 1, hops=1, key_bytes=32)))
        accounts = nodes.records(SITES[0], RELAY_RECORD)
        assert len(accounts) == RELAY_ACCOUNTS_KEPT
        assert {kme for kme in KMES if nodes.do(lambda tx, k=kme: has_records(tx, k))} == {KMES[0]}


def has_records(transaction: StoreTransaction, kme: KmeId) -> bool:
    return any(transaction.records(kme, RELAY_RECORD))
