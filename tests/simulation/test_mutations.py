"""The checker finds each safety rule that is switched off, or its silence would prove nothing."""

import pytest

from tests.simulation.mutations import MUTATIONS
from tests.simulation.test_faults import run

FIRST_SEED = {
    "any_word_confirms": 11,
    "chunks_are_drawn_before_their_deposit": 4,
    "different_key_counts": 5,
    "given_chunks_are_given_again": 2,
    "lost_answers_empty_the_hand": 2,
    "messages_act_twice": 4,
    "relay_voids_are_ignored": 2,
    "used_chunks_are_kept_again": 3,
    "voids_are_ignored": 10,
}
"""Where a rule matters only in a rare world, the search begins there."""


@pytest.mark.parametrize("mutation", sorted(MUTATIONS))
def test_a_rule_that_is_switched_off_is_found(mutation: str) -> None:
    seed = FIRST_SEED.get(mutation, 1)
    done = run("--seed", seed, "--runs", 40, "--wall", 120, "--seconds", 20, "--mutation", mutation)
    assert done.returncode == 1, done.stdout[-2000:] + done.stderr[-2000:]
    assert "again: python -m tests.simulation.run --seed " in done.stdout
