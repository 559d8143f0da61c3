"""Batches of the live network on a real store: at both ends or at none, whatever happens between."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from openqci.cli.up import relay_run
from openqci.cli.up.kem_ring import KemRing
from openqci.cli.up.relay_run import (
    RELAY_ACCOUNTS_KEPT,
    RELAY_RECORD,
    Journey,
    RelayDone,
    RelayFailed,
    one_step,
    run_relay,
    settle_pending,
)
from openqci.core.identifiers import KmeId, SaeId, link_stream
from openqci.delivery.end_to_end import (
    BatchReady,
    EndToEndOrder,
    HybridPolicy,
    KeyWanted,
    due_keys,
    open_orders,
)
from openqci.delivery.end_to_end.order import CONTROL_BYTES
from openqci.delivery.pair_stock import batch_of, take_keys, take_range
from openqci.keystore.ports import KmeView, StoreTransaction
from openqci.relay import hop_bytes
from openqci.relay.accounts import SpentRange, overlaps, spent_ranges
from openqci.services.group_commit import StoreUnavailable
from tests.cli.make import KMES, LINKS, SITES, STOCK_BYTES, Row, row, used, wanted

ENDS = ((SITES[0], "master"), (SITES[-1], "slave"))
STEPS = 6
"""Steps of a batch over three hops: begin, two nodes, the target, its word, the end."""


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Row]:
    with row(tmp_path) as made:
        yield made


def run(nodes: Row, what: KeyWanted) -> RelayDone:
    return asyncio.run(run_relay(nodes.store, what, KemRing(nodes.store)))


def failed(nodes: Row, what: KeyWanted) -> RelayFailed:
    with pytest.raises(RelayFailed) as caught:
        run(nodes, what)
    return caught.value


def carried(nodes: Row, what: KeyWanted, steps: int, *, tag: int = 7) -> Journey:
    """Do the first steps of a batch by hand, each in a transaction of its own."""
    ring = KemRing(nodes.store)
    asyncio.run(ring.know([SITES[-1]]))
    journey = Journey(what, tag)
    for _ in range(steps):
        journey = nodes.do(partial(one_step, journey=journey, ring=ring))
    return journey


def broken(step: Callable[..., object]) -> Callable[..., object]:
    """Return the step with a disk that fills up at its end."""

    def run(*args: object, **named: object) -> None:
        step(*args, **named)
        raise StoreUnavailable("disk full")

    return run


def pending(nodes: Row) -> int:
    """Return how many batches wait at either end."""
    return len(nodes.at(SITES[0], open_orders)) + len(nodes.at(SITES[-1], due_keys))


def test_a_batch_lies_alike_at_both_ends_and_nowhere_else(nodes: Row) -> None:
    done = run(nodes, wanted())
    order = done.order
    assert nodes.batch(order, "master") == nodes.batch(order, "slave") is not None
    records = [nodes.at(site, partial(batch_of, batch_tag=order.batch_tag, role=role)) for site, role in ENDS]
    assert None not in records
    assert len({record.id_seed for record in records if record}) == 1
    assert {record.provenance.hybrid for record in records if record} == {("ML-KEM-768",)}
    assert used(done.spends) == dict.fromkeys(LINKS, hop_bytes(256)) and pending(nodes) == 0
    assert nodes.pair_streams() == {KMES[0]: 256, KMES[-1]: 256}, "no node between keeps anything"


def test_by_the_quantum_policy_it_is_link_key_of_the_first_hop(nodes: Row) -> None:
    done = run(nodes, wanted(policy=HybridPolicy.QUANTUM))
    assert nodes.batch(done.order, "slave") == nodes.truth[LINKS[0]][:256]
    assert done.order.kem is None


def test_by_default_it_is_masked_by_ml_kem(nodes: Row) -> None:
    done = run(nodes, wanted())
    key = nodes.batch(done.order, "slave")
    assert key is not None
    assert sum(a != b for a, b in zip(key, nodes.truth[LINKS[0]], strict=False)) > 240


def test_pads_are_gone_and_accounted_for_at_both_ends_of_every_hop(nodes: Row) -> None:
    done = run(nodes, wanted())
    rest = (hop_bytes(256), STOCK_BYTES - hop_bytes(256))
    assert [nodes.ranges(link) for link in LINKS] == [[[rest], [rest]]] * 3
    assert [(link, at) for link, _, at, _ in done.spends] == [(link, 0) for link in LINKS]
    for at, link in enumerate(LINKS):
        accounts = [nodes.at(site, partial(account, link=at)) for site in SITES[at : at + 2]]
        assert accounts[0] == accounts[1] and not overlaps(accounts[0])
        assert [(each.use, each.payload_bytes) for each in accounts[0]] == [
            ("payload" if link == LINKS[0] else "pad", 256 + CONTROL_BYTES)
        ]


def account(view: KmeView, link: int) -> list[SpentRange]:
    return list(spent_ranges(view, link_stream(LINKS[link], SITES[link])))


def test_batches_at_once_never_share_a_byte(nodes: Row) -> None:
    async def all_at_once() -> list[RelayDone]:
        ring = KemRing(nodes.store)
        return await asyncio.gather(*(run_relay(nodes.store, wanted(key_bytes=64), ring) for _ in range(8)))

    done = asyncio.run(all_at_once())
    spends = [spend for each in done for spend in each.spends]
    for link in LINKS:
        places = [place for each, _, at, length in spends if each == link for place in range(at, at + length)]
        assert len(places) == len(set(places)) == 8 * hop_bytes(64)
    keys = {nodes.batch(each.order, "master") for each in done}
    assert len(keys) == 8 and keys == {nodes.batch(each.order, "slave") for each in done}


@pytest.mark.parametrize("dry", [0, 1, 2])
def test_a_hop_without_key_ends_the_batch_and_leaves_none(tmp_path: Path, dry: int) -> None:
    with row(tmp_path, stocked=False) as nodes:
        for link in LINKS:
            nodes.distil(link, 100 if link == LINKS[dry] else STOCK_BYTES)
        error = failed(nodes, wanted())
        assert error.forged_on is None
        assert nodes.spent() == used(error.spends), "the error tells what was used"
        assert [link for link, *_ in error.spends] == LINKS[:dry]
        for link in LINKS:
            left, right = nodes.ranges(link)
            assert left == right, "both ends of every hop still agree"
        assert nodes.pair_streams() == {} and pending(nodes) == 0


def test_ends_that_hold_different_key_leave_no_batch(tmp_path: Path) -> None:
    with row(tmp_path, stocked=False) as nodes:
        nodes.distil(LINKS[0])
        nodes.distil(LINKS[1])
        for site in SITES[2:]:
            nodes.append(site, link_stream(LINKS[2], SITES[2]), nodes.random.randbytes(STOCK_BYTES))
        error = failed(nodes, wanted())
        assert error.forged_on == LINKS[2] and "MAC" in str(error) and len(error.spends) == 3
        assert nodes.pair_streams() == {} and pending(nodes) == 0
        left, right = nodes.ranges(LINKS[2])
        assert left == right == [(hop_bytes(256), STOCK_BYTES - hop_bytes(256))], "destroyed at both ends"


def test_a_batch_tag_used_before_at_the_target(nodes: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(nodes, wanted())
    monkeypatch.setattr(relay_run.secrets, "randbits", lambda _: first.order.batch_tag)
    second = run(nodes, wanted())
    assert second.order.batch_tag == first.order.batch_tag + 1
    assert nodes.batch(first.order, "master") == nodes.batch(first.order, "slave") is not None


@pytest.mark.parametrize("step", ["confirm", "carry_on"])
def test_a_store_that_fails_in_between_leaves_nothing(
    nodes: Row, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """I4: without waiting for a restart, also where every step had a transaction of its own."""
    monkeypatch.setattr(relay_run, "STEPS_PER_TRANSACTION", 1)
    with monkeypatch.context() as patch:
        patch.setattr(relay_run, step, broken(getattr(relay_run, step)))
        error = failed(nodes, wanted())
    assert used(error.spends) == nodes.spent()
    assert nodes.pair_streams() == {} and pending(nodes) == 0 and nodes.records(SITES[0], RELAY_RECORD) == []
    done = run(nodes, wanted())
    assert nodes.batch(done.order, "slave") == nodes.batch(done.order, "master") is not None


def test_a_target_that_cannot_hear_the_end_keeps_its_key(nodes: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_run, "STEPS_PER_TRANSACTION", 1)
    with monkeypatch.context() as patch:
        patch.setattr(relay_run, "end", broken(relay_run.end))
        done = run(nodes, wanted())
    assert nodes.pair_streams() == {KMES[0]: 256, KMES[-1]: 256} and pending(nodes) == 1
    assert nodes.do(settle_pending) == 0 and pending(nodes) == 0
    assert nodes.batch(done.order, "slave") == nodes.batch(done.order, "master") is not None


def test_if_that_cannot_be_stored_either_the_next_start_does_it(
    nodes: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_run, "STEPS_PER_TRANSACTION", 1)
    with monkeypatch.context() as patch:
        patch.setattr(relay_run, "confirm", broken(relay_run.confirm))
        patch.setattr(relay_run, "call_back", broken(relay_run.call_back))
        failed(nodes, wanted())
    assert nodes.pair_streams() == {KMES[-1]: 256} and pending(nodes) == 2
    nodes.reopen()
    assert nodes.do(settle_pending) == 1 and nodes.pair_streams() == {} and pending(nodes) == 0


@pytest.mark.parametrize("steps", range(1, STEPS + 1))
def test_a_stop_between_any_two_steps_leaves_a_batch_at_both_ends_or_at_none(nodes: Row, steps: int) -> None:
    good = run(nodes, wanted()).order
    journey = carried(nodes, wanted(), steps)
    assert journey.over == (steps == STEPS)
    confirmed = isinstance(journey.outcome, BatchReady)
    nodes.reopen()
    assert nodes.do(settle_pending) == (not confirmed)
    assert nodes.do(settle_pending) == 0, "once and for all"
    assert journey.order is not None
    ends = [nodes.batch(journey.order, role) for role in ("master", "slave")]
    assert ends[0] == ends[1] and (ends[0] is not None) == confirmed
    assert nodes.batch(good, "slave") == nodes.batch(good, "master") is not None
    assert pending(nodes) == 0


def test_a_batch_stays_also_when_the_master_has_spent_its_end(nodes: Row) -> None:
    """A key that the master's application got must stay retrievable for the slave's, whatever came after."""
    journey = carried(nodes, wanted(key_bytes=64), STEPS - 1)
    assert isinstance(journey.outcome, BatchReady)
    order: EndToEndOrder = journey.outcome.order

    def spend(view: KmeView) -> list[bytes]:
        taken = take_keys(view, SaeId("sae-master"), SaeId("sae-slave"), 2, 32)
        return [bytes(each.key.reveal()) for each in taken]

    keys = nodes.at(SITES[0], spend)
    nodes.reopen()
    assert nodes.do(settle_pending) == 0

    def fetch(view: KmeView) -> bytes:
        batch = batch_of(view, order.batch_tag, "slave")
        assert batch is not None
        return bytes(take_range(view, batch, 0, 64).reveal())

    assert nodes.at(SITES[-1], fetch) == b"".join(keys)


def test_a_cancelled_run_is_settled_by_the_next_start(nodes: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_run, "STEPS_PER_TRANSACTION", 1)

    async def cut_off() -> None:
        task = asyncio.create_task(run_relay(nodes.store, wanted(), KemRing(nodes.store)))
        while not nodes.at(SITES[0], open_orders):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(cut_off())
    nodes.reopen()
    nodes.do(settle_pending)
    assert pending(nodes) == 0 and len(nodes.pair_streams()) in (0, 2)


def test_an_origin_keeps_the_accounts_of_its_last_batches_without_any_key(tmp_path: Path) -> None:
    with row(tmp_path, stocked=False) as nodes:
        nodes.distil(LINKS[0], 4 * 1024)
        for _ in range(RELAY_ACCOUNTS_KEPT + 3):
            run(nodes, wanted(hops=1, key_bytes=32))
        accounts = nodes.records(SITES[0], RELAY_RECORD)
        assert len(accounts) == RELAY_ACCOUNTS_KEPT
        assert {kme for kme in KMES if nodes.do(lambda tx, k=kme: has_records(tx, k))} == {KMES[0]}


def has_records(transaction: StoreTransaction, kme: KmeId) -> bool:
    return any(transaction.records(kme, RELAY_RECORD))
