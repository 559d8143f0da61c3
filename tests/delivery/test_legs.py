"""A share's way is cut at its borders: whatever the way, its legs are its hops in order, and nothing else."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import PeerMisbehaved
from openqci.core.identifiers import is_border
from openqci.delivery.end_to_end import leg_at, legs_of
from openqci.relay import RelayForm, RelayOrder
from openqci.relay.messages import check_order


def way(borders: list[bool], carried: bool = False, bridged: tuple[int, ...] = ()) -> RelayOrder:
    route = tuple(f"n{number}" for number in range(len(borders) + 1))
    links = tuple(
        f"{a}{'|' if border else '--'}{b}" for border, (a, b) in zip(borders, pairwise(route), strict=True)
    )
    form = RelayForm.COMPUTATIONAL if bridged else RelayForm.HOP
    return RelayOrder("0" * 32, route, links, 32, form, b"why", carried, bridged)


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.booleans(), st.data())
def test_legs_are_the_hops_of_the_way_in_order(
    borders: list[bool], carried: bool, data: st.DataObject
) -> None:
    hops = [at for at, border in enumerate(borders) if not border]
    bridged = tuple(sorted(data.draw(st.sets(st.sampled_from(hops)) if hops else st.just(set()))))
    relay = way(borders, carried, bridged)
    legs = legs_of(relay)
    assert [site for leg in legs for site in leg.route] == list(relay.route)
    assert [link for leg in legs for link in leg.links] == [
        link for link in relay.links if not is_border(link)
    ]
    assert [leg.links[at] for leg in legs for at in leg.bridged] == [relay.links[at] for at in relay.bridged]
    with_links = [leg for leg in legs if leg.links]
    assert [leg.carried for leg in with_links] == [carried, True, *[True] * len(legs)][: len(with_links)]
    for leg in with_links:
        assert leg_at(relay, leg.route[0]) == leg
        if leg.carried or 0 not in leg.bridged:
            check_order(leg)


def test_no_leg_begins_inside_a_domain() -> None:
    with pytest.raises(PeerMisbehaved, match="no leg of its way begins at n1"):
        leg_at(way([False, False, True]), "n1")
