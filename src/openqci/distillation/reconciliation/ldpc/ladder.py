"""Our own quasi-cyclic codes: a ladder of fourteen rates, and the steps between two rungs.

``codes/*.txt`` are tables of circulants, made by ``tools/make_ldpc_codes.py``: 256 columns, 15 to 140 rows.
A table becomes a code by a *lift* Z of 128, 256, 512 or 1024: each column then stands for Z bits, each row
for Z checks, and an edge (row, column, shift) joins check i of the row with bit (i + shift) mod Z of the
column. Every code has girth 6 or more at all four lifts, and full rank.

*Between two rungs*: the edges of a row are in two halves. Where the parity of the front half is disclosed
as well, one check becomes two, each with its own neighbours; the number of such checks is free. The same
step, taken later, discloses more of a frame that would not decode.

References: Gallager 1963; Richardson, Shokrollahi and Urbanke, IEEE Trans. Inf. Theory 47 (2001) 619
(irregular codes); Hu, Eleftheriou and Arnold, IEEE Trans. Inf. Theory 51 (2005) 386 (progressive edge
growth); Elkouss et al., arXiv:0901.2140 (degrees for QKD); Martinez-Mateo et al., arXiv:1204.0214 (blind
reconciliation, there by puncturing and shortening).
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from openqci.core.errors import invariant

Words = NDArray[np.uint64]
Indices = NDArray[np.int64]

COLUMNS = 256
LIFTS = (1024, 512, 256, 128)
SHIFT_MAX = 1023
WORD_BITS = 64

RUNGS = {
    15: 1.155,
    21: 1.117,
    28: 1.105,
    32: 1.090,
    37: 1.090,
    43: 1.075,
    50: 1.075,
    57: 1.073,
    66: 1.078,
    76: 1.095,
    88: 1.088,
    100: 1.088,
    116: 1.089,
    140: 1.080,
}
"""Rows of each code, and its threshold: what it must disclose over the Shannon limit so that every second
frame of 2^18 bits decodes in 80 iterations (measured; 0.02 to 0.04 above density evolution)."""

SPLIT_COST = 0.1
"""By how much the threshold rises when all checks are split (measured up to a fifth of them)."""


@dataclass(frozen=True, eq=False)
class Code:
    """A table of circulants. Edges are row by row, the front half of a row before its back half."""

    columns: Indices
    """Column of each edge, shape (edges,)."""
    shifts: Indices
    """Shift of each edge, 0 to 1023, shape (edges,)."""
    starts: Indices
    """Where each row begins among the edges, and where the last ends, shape (rows + 1,)."""
    middles: Indices
    """Where the back half of each row begins, shape (rows,)."""

    @property
    def rows(self) -> int:
        return self.middles.size

    def check_words(self, lift: int) -> int:
        """Return how many words of 64 checks the code has at this lift."""
        return self.rows * lift // WORD_BITS

    def split_lanes(self, lift: int, split_words: int) -> Indices:
        """Return on how many lanes of each row the front half is disclosed, shape (rows,).

        Splitting goes row by row from the first, in words of 64 checks.
        """
        before = np.arange(self.rows, dtype=np.int64) * lift
        return np.clip(split_words * WORD_BITS - before, 0, lift)


@cache
def code(rows: int) -> Code:
    """Return the code with so many rows; it must be one of ``RUNGS``."""
    invariant(rows in RUNGS, "a code is asked for by the rows of a rung")
    text = (files(__package__) / "codes" / f"{rows}.txt").read_text(encoding="ascii")
    return parsed(text)


def parsed(text: str) -> Code:
    """Return the code of a text as the tool writes it."""
    edges: list[tuple[int, int]] = []
    starts, middles = [0], []
    for line in text.splitlines()[1:]:
        front, back = (
            [tuple(map(int, edge.split(":"))) for edge in half.split()] for half in line.split("|")
        )
        edges += [(column, shift) for column, shift in front + back]
        middles.append(starts[-1] + len(front))
        starts.append(len(edges))
    columns, shifts = np.array(edges, dtype=np.int64).T.copy()
    arrays = (columns, shifts, np.array(starts, dtype=np.int64), np.array(middles, dtype=np.int64))
    for array in arrays:
        array.flags.writeable = False
    return Code(*arrays)
