"""LDPC codes: what the ladder promises of them, and what reconciliation by syndromes does with a key."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from openqci.distillation.reconciliation.ldpc.ladder import COLUMNS, LIFTS, RUNGS, SHIFT_MAX, Code, code

ROOT = Path(__file__).parents[2]
EVERY_CODE = pytest.mark.parametrize("rows", RUNGS)


def table(of: Code) -> np.ndarray:
    """Return the shift of each row and column, -1 where there is no edge."""
    shifts = np.full((of.rows, COLUMNS), -1)
    for row in range(of.rows):
        edges = slice(of.starts[row], of.starts[row + 1])
        shifts[row, of.columns[edges]] = of.shifts[edges]
    return shifts


def rank(rows: np.ndarray) -> int:
    """Return the rank of a 0/1 matrix over GF(2)."""
    pivots: dict[int, int] = {}
    for packed in np.packbits(rows.astype(np.uint8), axis=1):
        row = int.from_bytes(packed.tobytes(), "big")
        while row and row.bit_length() in pivots:
            row ^= pivots[row.bit_length()]
        if row:
            pivots[row.bit_length()] = row
    return len(pivots)


def lifted(of: Code, lift: int) -> np.ndarray:
    """Return the parity-check matrix, shape (rows * lift, 256 * lift)."""
    matrix = np.zeros((of.rows * lift, COLUMNS * lift), np.uint8)
    checks = np.arange(lift)
    for row in range(of.rows):
        for edge in range(of.starts[row], of.starts[row + 1]):
            bits = of.columns[edge] * lift + (checks + of.shifts[edge]) % lift
            matrix[row * lift + checks, bits] = 1
    return matrix


@EVERY_CODE
def test_a_code_is_a_table_of_circulants(rows: int) -> None:
    of = code(rows)
    assert of.rows == rows and of.starts[0] == 0 and of.starts[-1] == of.columns.size == of.shifts.size
    assert of.columns.min() == 0 and of.columns.max() == COLUMNS - 1
    assert of.shifts.min() >= 0 and of.shifts.max() <= SHIFT_MAX
    for row in range(rows):
        columns = of.columns[of.starts[row] : of.starts[row + 1]]
        assert np.unique(columns).size == columns.size, "two edges between a row and a column"
    degrees = np.bincount(of.columns)
    assert degrees.min() == 2 and np.count_nonzero(degrees == 2) < rows
    fronts, backs = of.middles - of.starts[:-1], of.starts[1:] - of.middles
    assert set(fronts - backs) <= {0, 1}, "halves"


@EVERY_CODE
@pytest.mark.parametrize("lift", LIFTS)
def test_girth_is_at_least_six(rows: int, lift: int) -> None:
    """No cycle of length 4 at any lift."""
    shifts = table(code(rows))
    for one, other in itertools.combinations(range(rows), 2):
        shared = (shifts[one] >= 0) & (shifts[other] >= 0)
        turns = (shifts[one] - shifts[other])[shared] % lift
        assert np.unique(turns).size == turns.size, (one, other)


@EVERY_CODE
def test_codes_have_full_rank(rows: int) -> None:
    """The table without shifts decides it: circulants of size 2^k are a local ring, residue field GF(2)."""
    of = code(rows)
    assert rank(table(of) >= 0) == rows
    assert rank(lifted(of, 8)) == 8 * rows, "and so it is when lifted, here by 8"


def test_the_codes_are_what_the_tool_makes() -> None:
    """One of them here; ``--check`` without ``--only`` compares all."""
    tool = [sys.executable, str(ROOT / "tools" / "make_ldpc_codes.py"), "--check", "--only", "37"]
    directory = "src/openqci/distillation/reconciliation/ldpc/codes"
    done = subprocess.run([*tool, directory], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(int(path.stem) for path in (ROOT / directory).glob("*.txt")) == sorted(RUNGS)
