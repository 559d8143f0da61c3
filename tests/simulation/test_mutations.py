"""The checker finds each safety rule that is switched off, or its silence would prove nothing."""

import pytest

from tests.simulation.mutations import MUTATIONS
from tests.simulation.test_faults import run

FIRST_SEED = {
    "messages_act_twice": 4,
    "voids_are_ignored": 9,
    "chunks_are_drawn_before_their_deposit": 4,
}
"""Where a rule matters only in a rare world, the search begins there."""


@pytest.mark.parametrize("mutation", sorted(MUTATIONS))
def test_a_rule_that_is_switched_off_is_found(mutation: str) -> None:
    seed = FIRST_SEED.get(mutation, 1)
    done = run("--seed", seed, "--runs", 40, "--wall", 60, "--seconds", 20, "--mutation", mutation)
    assert done.returncode == 1, done.stdout[-2000:] + done.stderr[-2000:]
    assert "again: python -m tests.simulation.run --seed " in done.stdout
