"""Which pair gets key, how much of it, and which hop makes key next."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.control import HopStock, PairDemand, affordable_bytes, batch_bytes, hop_to_work_on
from openqci.control.demand import BATCH_BYTES_MAX, BATCH_GRAIN_BYTES
from openqci.core.identifiers import LinkId, SaeId

LOW, HIGH, BLOCK = 1000, 3000, 700


def pair(stock: int, waiting: int = 0, low: int = 320, high: int = 1024) -> PairDemand:
    return PairDemand(SaeId("m"), SaeId("s"), stock, low, high, waiting)


def hop(name: str, stock: int = 0, *, filling: bool = False, free: bool = True) -> HopStock:
    return HopStock(LinkId(name), stock, LOW, HIGH, filling or stock < LOW, free)


@pytest.mark.parametrize(
    ("stock", "waiting", "expected"),
    [
        (0, 0, 1024),
        (319, 0, 736),
        (320, 0, 0),
        (5000, 0, 0),
        (320, 32, 704),
        (1024, 32, 32),
        (5000, 33, 64),
        (0, 5000, 5024),
        (0, 1_000_000, BATCH_BYTES_MAX),
    ],
)
def test_a_pair_is_filled_to_its_high_mark_once_it_is_below_the_low_one(
    stock: int, waiting: int, expected: int
) -> None:
    assert batch_bytes(pair(stock, waiting)) == expected


@given(
    stock=st.integers(0, 20_000),
    waiting=st.integers(0, 20_000),
    low=st.integers(0, 5000),
    more=st.integers(0, 20_000),
)
def test_a_batch_is_whole_keys_of_bounded_length_and_serves_who_waits(
    stock: int, waiting: int, low: int, more: int
) -> None:
    wanted = batch_bytes(pair(stock, waiting, low, low + more))
    assert wanted % BATCH_GRAIN_BYTES == 0 and 0 <= wanted <= BATCH_BYTES_MAX
    if waiting:
        assert wanted >= min(waiting, BATCH_BYTES_MAX)
    elif stock >= low:
        assert wanted == 0
    else:
        assert wanted > 0


@given(
    wanted=st.integers(0, BATCH_BYTES_MAX // 32).map(lambda keys: 32 * keys),
    waiting=st.integers(0, 10_000),
    stocks=st.lists(st.integers(0, 10_000), min_size=1, max_size=5),
    overhead=st.integers(0, 100),
)
def test_a_relay_is_never_longer_than_its_poorest_hop_can_pay(
    wanted: int, waiting: int, stocks: list[int], overhead: int
) -> None:
    carried = affordable_bytes(wanted, waiting, stocks, overhead)
    assert carried % BATCH_GRAIN_BYTES == 0 and 0 <= carried <= wanted
    if carried:
        assert carried + overhead <= min(stocks)
        assert carried >= min(waiting, wanted)
    elif wanted and not waiting:
        assert min(stocks) < overhead + BATCH_GRAIN_BYTES


def test_a_route_without_a_hop_carries_nothing() -> None:
    assert affordable_bytes(64, 0, [], 80) == 0


def test_waiting_beats_low_stocks_beats_background_and_the_emptiest_goes_first() -> None:
    hops = [hop("background"), hop("short", 900), hop("waited", 2900), hop("waited-too", 2000)]
    waited, short = {LinkId("waited"), LinkId("waited-too")}, {LinkId("short")}
    order = []
    while (chosen := hop_to_work_on(hops, waited, short)) is not None:
        order.append(chosen)
        hops = [each for each in hops if each.link_id != chosen]
    assert order == ["waited-too", "waited", "short", "background"]


def test_a_hop_at_rest_or_at_work_is_not_chosen() -> None:
    assert hop_to_work_on([hop("full", HIGH), hop("between", LOW)], (), ()) is None
    assert hop_to_work_on([hop("busy", free=False)], {LinkId("busy")}, {LinkId("busy")}) is None
    assert hop_to_work_on([hop("rising", LOW, filling=True)], (), ()) == "rising"
    assert hop_to_work_on([], {LinkId("gone")}, ()) is None


NAMES = "abcdef"
some_hops = st.lists(
    st.builds(hop, st.sampled_from(NAMES), st.integers(0, 4000), filling=st.booleans(), free=st.booleans()),
    unique_by=lambda each: each.link_id,
)
some_links = st.sets(st.sampled_from(NAMES).map(LinkId))


@given(hops=some_hops, waited=some_links, short=some_links)
def test_what_is_chosen_is_free_needed_and_the_most_urgent(
    hops: list[HopStock], waited: set[LinkId], short: set[LinkId]
) -> None:
    chosen = hop_to_work_on(hops, waited, short)
    free = {each.link_id: each for each in hops if each.free}
    assert chosen == hop_to_work_on(list(reversed(hops)), waited, short)
    if waited & free.keys():
        assert chosen in waited and chosen in free
    elif short & free.keys():
        assert chosen in short and chosen in free
    elif chosen is None:
        assert not any(each.filling for each in free.values())
    else:
        assert free[chosen].filling
        assert free[chosen].stock_bytes == min(each.stock_bytes for each in free.values() if each.filling)


@given(
    stocks=st.lists(st.integers(0, HIGH), min_size=2, max_size=6),
    drains=st.lists(st.integers(0, 60), min_size=6, max_size=6),
    waited=st.sets(st.sampled_from(NAMES).map(LinkId), max_size=2),
)
def test_no_hop_starves_while_there_is_capacity(
    stocks: list[int], drains: list[int], waited: set[LinkId]
) -> None:
    """A block brings 700 bytes, all flows together drain at most 360 a turn: every low hop gets its block."""
    hops = {name: hop(name, stock) for name, stock in zip(NAMES, stocks, strict=False)}
    below_since: dict[str, int] = {}
    for turn in range(200):
        wanted = {link for link in waited if link in hops and hops[link].stock_bytes < LOW}
        chosen = hop_to_work_on(hops.values(), wanted, ())
        for i, (name, each) in enumerate(hops.items()):
            stock = max(0, each.stock_bytes + (BLOCK if name == chosen else 0) - drains[i])
            filling = stock < (HIGH if each.filling else LOW)
            hops[name] = replace(each, stock_bytes=stock, filling=filling)
            if stock >= LOW or name == chosen:
                below_since.pop(name, None)
            if stock < LOW:
                assert turn - below_since.setdefault(name, turn) <= 40
