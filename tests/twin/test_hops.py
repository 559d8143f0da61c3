"""The book of hops: it adds up, follows the store only, and steers by two watermarks."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.identifiers import LinkId, SiteId
from openqci.links import LinkForecast, forecast
from openqci.network import load_scenario
from openqci.twin.block import BlockOrder, BlockOutcome, distil_block
from openqci.twin.hops import RATE_WINDOW_S, HopBook, HopFigures, HopState, block_summary, split_by_initiator

METRO = load_scenario("metro")
LINKS = list(METRO.hops)
HOP = METRO.hops[LINKS[0]]
FORECASTS = {link: forecast(METRO.devices[hop.device], hop) for link, hop in METRO.hops.items()}
LOW, HIGH = METRO.stock.low_bits // 8, METRO.stock.high_bits // 8


def outcome(length_bytes: int, *, aborted: str = "", link: LinkId = HOP.link_id) -> BlockOutcome:
    key = bytes(length_bytes)
    return BlockOutcome(link, 0, key, key, 2.0, 1000, "rusca-2018", 1e-9 * bool(key), None, aborted)


def book(stock_a: int = 0, stock_b: int = 0, **forecasts: LinkForecast) -> HopBook:
    stocks = {(HOP.link_id, HOP.a): stock_a, (HOP.link_id, HOP.b): stock_b}
    return HopBook(METRO, FORECASTS | {LinkId(link): made for link, made in forecasts.items()}, {}, stocks)


def add(hops: HopBook, block: BlockOutcome, now_s: float = 1.0) -> None:
    shares = split_by_initiator(len(block.key_a), *hops.lines[HOP.link_id].stock_bytes.values())
    hops.begin_block(HOP.link_id, now_s)
    hops.end_block(block, hops.figures_after(block), dict(zip((HOP.a, HOP.b), shares, strict=True)), now_s)


@pytest.fixture(scope="module")
def real() -> BlockOutcome:
    order = BlockOrder(HOP, METRO.devices[HOP.device], 0, 491_920, 1, bytes(320), bytes(320))
    return distil_block(order)


def test_figures_are_sums_of_blocks(real: BlockOutcome) -> None:
    hops = book()
    report = real.report
    assert report is not None
    for _ in range(3):
        add(hops, real)
    figures = hops.lines[HOP.link_id].figures
    assert (figures.blocks, figures.blocks_aborted) == (3, 0)
    assert figures.detections_total == 3 * report.detections
    assert figures.sifted_bits_total == 3 * report.sifted_bits
    assert figures.leak_bits_total == 3 * report.disclosed_bits
    assert figures.secret_bits_total == 3 * 8 * len(real.key_a)
    assert (figures.qber, figures.epsilon, figures.proof_id) == (report.qber, real.epsilon, "rusca-2018")


def test_an_aborted_block_counts_and_changes_no_figure_of_the_key(real: BlockOutcome) -> None:
    hops = book()
    add(hops, real)
    before = hops.lines[HOP.link_id].figures
    failed = msgspec.structs.replace(real, key_a=b"", key_b=b"", aborted="QBER too high", epsilon=0.0)
    after = hops.figures_after(failed)
    assert hops.lines[HOP.link_id].figures is before and before.blocks_aborted == 0, "the book is not changed"
    assert (after.blocks, after.blocks_aborted, after.last_aborted) == (1, 1, "QBER too high")
    assert (after.secret_bits_total, after.qber, after.epsilon) == (
        before.secret_bits_total,
        before.qber,
        before.epsilon,
    )
    assert after.detections_total == 2 * before.detections_total
    assert hops.figures_after(real).last_aborted == "", "only what was stored is remembered"


def test_epsilon_is_that_of_the_worst_block() -> None:
    hops = book()
    for epsilon in (2e-9, 1e-9):
        add(hops, msgspec.structs.replace(outcome(10), epsilon=epsilon))
    assert hops.lines[HOP.link_id].figures.epsilon == 2e-9


def test_a_summary_of_a_block_holds_counts_and_no_key(real: BlockOutcome) -> None:
    summary = block_summary(real)
    assert summary["secret_bits"] == 8 * len(real.key_a) and "aborted" not in summary
    assert all(isinstance(value, int | float | str) for value in summary.values())
    shown = msgspec.json.encode(summary)
    assert real.key_a[:6].hex().encode() not in shown and real.key_a[:6] not in shown
    assert block_summary(outcome(0, aborted="why"))["aborted"] == "why"


def test_a_block_is_numbered_once_it_has_ended() -> None:
    hops = book()
    numbers = []
    for block in (outcome(10), outcome(0, aborted="x"), outcome(10)):
        numbers.append(hops.begin_block(HOP.link_id, 0.0))
        hops.end_block(block, hops.figures_after(block), {}, 0.0)
    assert numbers == [0, 1, 2]
    assert hops.begin_block(HOP.link_id, 0.0) == 3
    hops.give_up_block(HOP.link_id, 9.0)
    assert hops.begin_block(HOP.link_id, 0.0) == 3, "a block that was lost left no trace"


def test_what_is_stored_and_spent_is_booked_by_direction() -> None:
    hops = book(100, 50)
    block = outcome(60)
    hops.end_block(block, hops.figures_after(block), {HOP.a: 5, HOP.b: 55}, 0.0)
    hops.spent([(HOP.link_id, HOP.a, 30), (HOP.link_id, HOP.a, 1), (HOP.link_id, HOP.b, 7)])
    line = hops.lines[HOP.link_id]
    assert line.stock_bytes == {HOP.a: 74, HOP.b: 98} and line.stock_bits == 8 * 172


def test_rates_are_means_over_the_window() -> None:
    hops = book()
    line = hops.lines[HOP.link_id]
    assert line.distilled_bps(0.0) == 0.0
    add(hops, outcome(300), now_s=10.0)
    assert line.distilled_bps(10.0) == 240.0, "a young network is measured over its age"
    add(hops, outcome(300), now_s=35.0)
    assert line.distilled_bps(39.9) == pytest.approx(4800 / RATE_WINDOW_S)
    assert line.distilled_bps(40.1) == pytest.approx(2400 / RATE_WINDOW_S)
    assert line.distilled_bps(100.0) == 0.0
    assert book().possible_bps == pytest.approx(sum(each.secret_key_rate_bps for each in FORECASTS.values()))


# States and choice


def test_states() -> None:
    assert book().state(HOP.link_id) is HopState.EMPTY
    assert book(LOW, LOW - 1).state(HOP.link_id) is HopState.WAITING
    assert book(LOW, LOW).state(HOP.link_id) is HopState.RESTING
    hops = book(LOW, LOW)
    hops.begin_block(HOP.link_id, 1.0)
    assert hops.state(HOP.link_id) is HopState.DISTILLING
    hops.give_up_block(HOP.link_id, 2.0)
    assert hops.state(HOP.link_id) is HopState.RESTING
    hops.lines[HOP.link_id].standing_still = "no authentication key left"
    assert hops.state(HOP.link_id) is HopState.DOWN


def dead() -> LinkForecast:
    return msgspec.structs.replace(FORECASTS[HOP.link_id], secret_key_rate_bps=0.0)


def only(hops: HopBook) -> HopBook:
    """Fill all hops but the first, so that the choice is about that one."""
    for link, line in hops.lines.items():
        if link != HOP.link_id:
            line.stock_bytes = dict.fromkeys(line.stock_bytes, HIGH)
    return hops


def test_a_hop_that_starts_below_low_goes_on_until_high() -> None:
    hops = only(book(LOW, LOW))
    assert hops.next_hop((), (), 0.0) is None
    hops.spent([(HOP.link_id, HOP.b, 1)])
    for stock in (LOW - 1, LOW, HIGH - 1):
        hops.lines[HOP.link_id].stock_bytes[HOP.b] = stock
        hops.lines[HOP.link_id].stock_bytes[HOP.a] = HIGH
        assert hops.next_hop((), (), 0.0) == HOP.link_id
    hops.lines[HOP.link_id].stock_bytes[HOP.b] = HIGH
    assert hops.next_hop((), (), 0.0) is None
    hops.lines[HOP.link_id].stock_bytes[HOP.b] = LOW
    assert hops.next_hop((), (), 0.0) is None, "on its way down it rests until low"


def test_a_hop_that_cannot_make_key_or_is_busy_or_has_failed_is_not_chosen() -> None:
    assert only(book(**{HOP.link_id: dead()})).next_hop({HOP.link_id}, {HOP.link_id}, 0.0) is None
    hops = only(book())
    hops.begin_block(HOP.link_id, 0.0)
    assert hops.next_hop({HOP.link_id}, (), 0.0) is None
    hops.give_up_block(HOP.link_id, 5.0)
    assert hops.next_hop({HOP.link_id}, (), 4.9) is None
    assert hops.next_hop({HOP.link_id}, (), 5.0) == HOP.link_id
    hops.lines[HOP.link_id].standing_still = "why"
    assert hops.next_hop({HOP.link_id}, (), 9.0) is None


def test_a_full_hop_that_is_waited_for_is_chosen_before_empty_ones() -> None:
    hops = book(HIGH, HIGH)
    assert hops.next_hop({HOP.link_id}, (), 0.0) == HOP.link_id
    assert hops.next_hop((), {HOP.link_id}, 0.0) == HOP.link_id
    assert hops.next_hop((), (), 0.0) != HOP.link_id


def test_watermarks_of_zero_do_not_break_the_choice() -> None:
    rule = msgspec.structs.replace(METRO.stock, low_bits=0, high_bits=1)
    hops = HopBook(msgspec.structs.replace(METRO, stock=rule), FORECASTS, {}, {})
    assert hops.next_hop((), (), 0.0) is None
    assert hops.next_hop({HOP.link_id}, (), 0.0) == HOP.link_id


def test_a_book_takes_up_what_was_kept() -> None:
    figures = HopFigures(blocks=4, secret_bits_total=99)
    hops = HopBook(METRO, FORECASTS, {HOP.link_id: figures}, {(HOP.link_id, HOP.a): 7})
    assert hops.lines[HOP.link_id].figures is figures and hops.begin_block(HOP.link_id, 0.0) == 4
    assert hops.lines[HOP.link_id].stock_bytes == {HOP.a: 7, HOP.b: 0}
    assert list(hops.lines) == LINKS, "in the network's order"


# Splitting


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_block_is_split_whole_and_fills_the_emptier_direction(length: int, a: int, b: int) -> None:
    to_a, to_b = split_by_initiator(length, a, b)
    assert to_a >= 0 and to_b >= 0 and to_a + to_b == length
    after_a, after_b = a + to_a, b + to_b
    if abs(after_a - after_b) > 1:
        assert (to_a == 0) if a > b else (to_b == 0), "all of it goes where less was"
    assert abs(after_a - after_b) <= max(1, abs(a - b))


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("block"), st.integers(0, 3000)),
            st.tuples(st.just("abort"), st.just(0)),
            st.tuples(st.sampled_from([HOP.a, HOP.b]), st.integers(1, 1500)),
        ),
        max_size=30,
    )
)
def test_the_book_adds_up_after_any_history(history: list[tuple[SiteId | str, int]]) -> None:
    hops = book()
    line = hops.lines[HOP.link_id]
    made = used = 0
    for number, (what, amount) in enumerate(history):
        if what in ("block", "abort"):
            add(hops, outcome(amount, aborted="" if what == "block" else "why"), float(number))
            made += amount
        elif line.stock_bytes[SiteId(what)] >= amount:
            hops.spent([(HOP.link_id, SiteId(what), amount)])
            used += amount
        assert sum(line.stock_bytes.values()) == made - used and min(line.stock_bytes.values()) >= 0
        assert line.figures.secret_bits_total == 8 * made
    assert line.figures.blocks + line.figures.blocks_aborted == hops.begin_block(HOP.link_id, 0.0)
