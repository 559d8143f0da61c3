"""Prefix parities."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from openqci.distillation.reconciliation.parity import PrefixParity, pack


@given(st.lists(st.integers(0, 1), min_size=1, max_size=300))
def test_prefix_parity_is_the_running_parity(bits: list[int]) -> None:
    expected = np.concatenate(([0], np.cumsum(bits) % 2))
    parity = PrefixParity(pack(np.array(bits, np.uint8)))
    assert parity.of_first(np.arange(len(bits) + 1)).tolist() == expected.tolist()
