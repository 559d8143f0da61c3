"""One pass a block or several: how much key each policy gives, and what it costs.

Several passes in one block pay finite-size terms once. For that there is no key before the last of them, what
was detected in all of them has to be kept at both ends until then, and one failure of epsilon concerns the
key of them all; on the other side there are fewer chances of such a failure.

>>> from openqci.links.missions import mission
>>> from openqci.links.ground import ground_station
>>> from openqci.links.survey import survey
>>> from openqci.space import utc_seconds
>>> start = utc_seconds("2027-03-20")
>>> design = mission("microsat-pilot").design()
>>> found = survey(design, [ground_station("ogs-helmos")], start, start + 10 * 86_400.0)
>>> for size in (1, 4):
...     policy = block_policy(regrouped(found, size))
...     print(size, policy.blocks, policy.blocks_with_key, policy.wait_days_max > 2.0)
1 10 4 False
4 3 2 True
"""

from dataclasses import dataclass, replace

import numpy as np

from openqci.links.pair_passes import PairYields, pair_block_keys
from openqci.links.pass_keys import PassYields, block_keys, block_of_passes
from openqci.links.survey import Survey
from openqci.space.time_scales import DAY_S

SIZES = (1, 2, 4, 8, 16)
YEAR_DAYS = 365.25


@dataclass(frozen=True)
class BlockPolicy:
    """What one policy gives and costs over the time looked at.

    Attributes
    ----------
    key_bits, key_bits_per_day : float
    blocks, blocks_with_key : int
    wait_days_mean, wait_days_max : float
        From the end of a pass to the end of its block, before which its key does not exist.
    held_bits_max : float
        Sifted bits of one block, which both ends keep until it is whole.
    epsilon_per_year : float
        Chance of any insecure or wrong key within a year, by adding up the blocks.
    """

    key_bits: float
    key_bits_per_day: float
    blocks: int
    blocks_with_key: int
    wait_days_mean: float
    wait_days_max: float
    held_bits_max: float
    epsilon_per_year: float


def regrouped(found: Survey, passes_per_block: int) -> Survey:
    """Return the same passes with the same settings, in blocks of another size."""
    block, blocks = block_of_passes(found.passes, found.yields.durations_s > 0, passes_per_block)
    summed, operation = found.yields.summed(block, blocks), found.design.operation
    if isinstance(summed, PairYields):
        return replace(found, block=block, keys=pair_block_keys(summed, operation))
    assert isinstance(summed, PassYields)  # there are two kinds
    return replace(found, block=block, keys=block_keys(summed, operation))


def block_policy(found: Survey) -> BlockPolicy:
    """Return what the blocks of a survey give and cost."""
    used = np.flatnonzero(found.block >= 0)
    blocks, block = len(found.keys.length_bits), found.block[used]
    ends = np.full(blocks, -np.inf)
    np.maximum.at(ends, block, found.passes.set_utc_s[used])
    waits_days = (ends[block] - found.passes.set_utc_s[used]) / DAY_S
    held = found.yields.summed(found.block, blocks).sifted_bits
    operation = found.design.operation
    with_key = int((found.keys.length_bits > 0).sum())
    return BlockPolicy(
        key_bits=float(found.keys.length_bits.sum()),
        key_bits_per_day=found.key_bits_per_day,
        blocks=blocks,
        blocks_with_key=with_key,
        wait_days_mean=float(waits_days.mean()) if len(used) else 0.0,
        wait_days_max=float(waits_days.max(initial=0.0)),
        held_bits_max=float(held.max(initial=0.0)),
        epsilon_per_year=with_key * (operation.epsilon_sec + operation.epsilon_cor) * YEAR_DAYS / found.days,
    )
