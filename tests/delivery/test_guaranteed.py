"""Guaranteed shares of link key: what is due comes first, and is held back while it is too little."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqci.core.errors import KeyUnavailable
from openqci.core.identifiers import LinkId, SaeId
from openqci.core.keys import SecretBytes
from openqci.delivery import agreement, etsi004, supply
from openqci.delivery.admission import GuaranteedShare, ShortSupply, too_much_reserved
from openqci.delivery.agreement import CONTROL_BYTES
from openqci.delivery.etsi004_model import QoS
from openqci.delivery.supply import BATCH_KEY_BYTES_MIN, Need, PairDemand
from openqci.keystore.deposits import link_key_stream
from openqci.keystore.memory import MemoryKeyStore
from openqci.keystore.ports import KmeView
from tests.delivery.make import ALICE, BOB, LISBON, WARSAW

LINK = LinkId("lw.e")
EPOCHS = {WARSAW: "e"}
EMMA = SaeId("emma")
POOR = PairDemand(ALICE, ((BOB, WARSAW, "lw"),), low_bytes=1 << 20, high_bytes=1 << 21, priority=0)
GREEDY = PairDemand(EMMA, ((BOB, WARSAW, "lw"),), low_bytes=1 << 20, high_bytes=1 << 21, priority=7)


class Link:
    """Lisbon's half of a link, from which plans are paid."""

    def __init__(self, length_bytes: int = 0) -> None:
        self.store = MemoryKeyStore()
        self.view = self.store.submit(lambda tx: KmeView(tx, LISBON)).result()
        self.bring(length_bytes)

    def bring(self, length_bytes: int) -> None:
        if length_bytes:
            self.view.append(link_key_stream(LINK, LISBON), SecretBytes(bytes(length_bytes)))

    def plan(self, *demands: PairDemand) -> supply.Plan:
        """Plan, and pay for what is planned; batches are there at once, and used up at once."""
        found = [Need(demand, (LINK,), demand.high_bytes) for demand in demands]
        plan = supply.plan(self.view, found, 0.0)
        for wanted in plan.wanted:
            self.view.take_next(link_key_stream(LINK, LISBON), agreement.range_bytes(wanted.key_bytes))
        return plan


def got(plan: supply.Plan) -> dict[str, int]:
    found = {ALICE: 0, EMMA: 0}
    for wanted in plan.wanted:
        found[wanted.master_sae] += wanted.key_bytes
    return {str(sae): length for sae, length in found.items()}


def test_without_a_guarantee_the_higher_priority_takes_all() -> None:
    assert got(Link(10_000).plan(POOR, GREEDY))[ALICE] == 0


def test_what_is_due_comes_before_priority_and_no_more_than_that() -> None:
    plan = Link(10_000).plan(replace(POOR, due_bytes=2048), GREEDY)
    assert got(plan)[ALICE] == 2048 and got(plan)[EMMA] > 7_000
    assert plan.held_back == {}


def test_what_is_due_and_too_little_for_a_batch_is_held_back() -> None:
    link = Link(1_300)
    plan = link.plan(replace(POOR, due_bytes=500), GREEDY)
    assert got(plan) == {ALICE: 0, EMMA: 0}, "what is not held back is no batch"
    assert plan.held_back == {LINK: 500 + CONTROL_BYTES}
    link.bring(600)
    assert got(link.plan(replace(POOR, due_bytes=500), GREEDY))[EMMA] == 1216
    link.bring(800)
    assert got(link.plan(replace(POOR, due_bytes=1024), GREEDY))[ALICE] == 1024


def test_two_with_a_guarantee_share_what_is_too_little_for_both() -> None:
    one, other = replace(POOR, due_bytes=4096), replace(GREEDY, priority=0, due_bytes=4096)
    plan = Link(2 * (2048 + CONTROL_BYTES)).plan(one, other)
    assert got(plan) == {ALICE: 2048, EMMA: 2048}
    assert plan.held_back == {LINK: 2 * (2048 + CONTROL_BYTES)}


def test_a_guarantee_that_is_not_needed_holds_nothing_back() -> None:
    full = replace(POOR, due_bytes=4096, low_bytes=0)
    link = Link(10_000)
    found = supply.needs(link.view, [full, GREEDY], EPOCHS)
    plan = supply.plan(link.view, found, 0.0)
    assert [need.demand.master for need in found] == [EMMA] and plan.held_back == {}


@settings(max_examples=25, deadline=None)
@given(
    reserved_bps=st.integers(500, 40_000),
    over=st.floats(1.1, 4.0),
    looks_per_s=st.sampled_from([1, 2, 5]),
    waiting=st.booleans(),
)
def test_over_time_a_pair_gets_its_share_of_whatever_a_link_brings(
    reserved_bps: int, over: float, looks_per_s: int, waiting: bool
) -> None:
    """Against one of the highest priority that never has enough, also where each look brings crumbs."""
    link, share = Link(), GuaranteedShare(reserved_bps, BATCH_KEY_BYTES_MIN)
    brings = int(reserved_bps * agreement.range_bytes(1024) / 1024 * over / 8 / looks_per_s) + 1
    greedy = replace(GREEDY, waiting_bytes=4096 if waiting else 0)
    total, seconds = 0, 60
    for look in range(seconds * looks_per_s):
        now_s = look / looks_per_s
        link.bring(brings)
        length = got(link.plan(replace(POOR, due_bytes=share.due_bytes(now_s)), greedy))[ALICE]
        share.got(length, now_s)
        total += length
    assert total >= reserved_bps / 8 * seconds - BATCH_KEY_BYTES_MIN - 32


def test_a_stream_leaves_what_is_held_back() -> None:
    link = Link(3_000)
    stream = etsi004.Stream(
        ksid="6b2f7a52-6f0c-4f4e-9d64-0f3b6f3e1c55",
        run="1",
        own_sae=ALICE,
        peer_sae=BOB,
        peer_kme=WARSAW,
        qos=QoS(chunk_bytes=32, ttl_s=60),
        opened_here=True,
        opened_there=True,
    )
    etsi004._keep(link.view, stream)
    with pytest.raises(KeyUnavailable):
        etsi004.feed(link.view, stream.ksid, LINK, 1, 0.0, held_back_bytes=2_800)
    order = etsi004.feed(link.view, stream.ksid, LINK, 1, 0.0, held_back_bytes=2_000)
    assert order is not None and 800 <= order.key_bytes <= 1_000 - CONTROL_BYTES
    assert link.view.stock_bytes(link_key_stream(LINK, LISBON)) >= 2_000


def test_a_share_is_due_for_a_minute_and_begins_full() -> None:
    share = GuaranteedShare(rate_bps=80.0, least_bytes=1024)
    assert share.due_bytes(5.0) == 1024
    share.got(5_000, 5.0)
    assert (share.due_bytes(5.0), share.due_bytes(15.0), share.due_bytes(14.0)) == (0, 100, 100)
    assert share.due_bytes(10_000.0) == 1024


def test_what_a_link_brings_is_measured_while_it_is_short() -> None:
    supplied = ShortSupply()
    for second in range(0, 31, 5):
        assert supplied.bps() is None
        supplied.note(1_000_000 + 100 * second, True, float(second))
    assert supplied.bps() == pytest.approx(800.0)
    supplied.note(2_000_000, False, 40.0)
    assert supplied.bps() is None
    for second in range(100, 400, 5):
        supplied.note(3_000_000 + 50 * second, True, float(second))
    assert supplied.bps() == pytest.approx(400.0)


def test_too_much_is_told_with_how_much() -> None:
    assert too_much_reserved(8_000, 8_000, "x") is None
    assert "4000 more than x" in (too_much_reserved(12_000, 8_000, "x") or "")
