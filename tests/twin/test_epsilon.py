"""A relay's range may come from several blocks of a hop: their epsilons are all summed, never one too few."""

from hypothesis import given
from hypothesis import strategies as st

from openqci.core.identifiers import LinkId, SiteId
from openqci.links import forecast
from openqci.network import load_scenario
from openqci.twin.hops import HopBook, HopFigures

METRO = load_scenario("metro")
HOP = next(iter(METRO.hops.values()))
FORECASTS = {link: forecast(METRO.devices[hop.device], hop) for link, hop in METRO.hops.items()}
EPSILON = 1e-9


def book(shares: list[int], spent: int) -> HopBook:
    """A hop whose initiator ``a`` has had blocks of these shares and has spent the first bytes of them."""
    ends = [sum(shares[: index + 1]) for index in range(len(shares))]
    figures = HopFigures(blocks=len(shares), epsilon=EPSILON, block_ends={HOP.a: ends})
    return HopBook(METRO, FORECASTS, {HOP.link_id: figures}, {(HOP.link_id, HOP.a): sum(shares) - spent})


def blocks_touched(shares: list[int], start: int, length: int) -> int:
    """The definition: count the blocks that own a byte of [start, start + length)."""
    owners = [block for block, share in enumerate(shares) for _ in range(share)]
    return len(set(owners[start : start + length]))


@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.data())
def test_every_block_of_the_range_counts(shares: list[int], data: st.DataObject) -> None:
    spent = data.draw(st.integers(0, sum(shares) - 1))
    length = data.draw(st.integers(1, sum(shares) - spent))
    summed = book(shares, spent).epsilon_of_next(LinkId(HOP.link_id), SiteId(HOP.a), length)
    assert round(summed / EPSILON) == blocks_touched(shares, spent, length)


def test_a_hop_without_a_record_of_blocks_counts_at_least_one() -> None:
    empty = HopBook(METRO, FORECASTS, {HOP.link_id: HopFigures(epsilon=EPSILON)}, {})
    assert empty.epsilon_of_next(HOP.link_id, HOP.a, 100) == EPSILON
