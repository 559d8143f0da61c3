"""The integer arithmetic of sum-product decoding, as tables that every route shares bit for bit.

Log-likelihood ratios are counted in eighths of a nat. ``phi(x) = -ln tanh(x / 2)``, its own inverse, turns
the sum-product rule of a check into a sum (Gallager 1963). It is held in units of 1/1024:

* ``PHI`` maps a magnitude, 0 to 127, to phi, 0 to ``PHI_MAX`` (where the magnitude counts as 0);
* ``NEAR`` maps a sum of phi below 127 to a magnitude, ``FAR`` the same sum shifted right by ``FAR_SHIFT`` and
  cut off at 127; the larger of the two counts.

A sum of 0 means that every other message is past doubt. It counts as ``MESSAGE_MAX``, more than the 66 of the
smallest other sum: chains of errors in columns of degree 2 are undone from their ends by messages that must
outweigh several bits' own (66 leaves an error floor of 4 frames in 1000, 110 lets wrong decisions feed
themselves). Sums saturate at 32767, which still means 0 after any one message was taken off.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

LLR_UNITS_PER_NAT = 8
PHI_UNITS = 1024
FAR_SHIFT = 5
TABLE_SIZE = 128
PHI_MAX = (TABLE_SIZE - 1) << FAR_SHIFT
MESSAGE_MAX = 90

SUM_MAX = 32767
KNOWN = 16000
"""Posterior of a bit that cannot be wrong: past 127 whatever 20 messages take from it."""

Reals = NDArray[np.floating[Any]]


def phi(values: Reals) -> Reals:
    """Return -ln tanh(x / 2), same shape; its own inverse."""
    result: Reals = -np.log(np.tanh(values / 2))
    return result


def _phi_of_magnitudes() -> NDArray[np.int16]:
    magnitudes = np.arange(1, TABLE_SIZE) / LLR_UNITS_PER_NAT
    units = np.minimum(np.rint(PHI_UNITS * phi(magnitudes)), PHI_MAX)
    return np.concatenate([[PHI_MAX], units]).astype(np.int16)


def _magnitudes_of(sums: Reals) -> NDArray[np.int8]:
    return np.rint(LLR_UNITS_PER_NAT * phi(sums / PHI_UNITS)).astype(np.int8)


PHI = _phi_of_magnitudes()

NEAR = _magnitudes_of(np.maximum(np.arange(TABLE_SIZE), 1))
NEAR[0], NEAR[-1] = MESSAGE_MAX, 0

FAR = _magnitudes_of((np.arange(TABLE_SIZE) + 0.5) * (1 << FAR_SHIFT))
FAR[: TABLE_SIZE >> FAR_SHIFT] = 0
FAR[-1] = 0

for _table in (PHI, NEAR, FAR):
    _table.flags.writeable = False
