"""Make the parity-check codes that reconciliation ships, from seeds: the same text on every machine.

    python tools/make_ldpc_codes.py src/openqci/distillation/reconciliation/ldpc/codes
    python tools/make_ldpc_codes.py --check src/openqci/distillation/reconciliation/ldpc/codes
    python tools/make_ldpc_codes.py --design 37

A code is a table of circulants: rows by 256 columns, each edge a shift below 1024. Lifted by Z = 128, 256,
512 or 1024 it has 256 Z bits and ``rows`` Z checks; a shift stands for its remainder by Z. In four steps:

1. *How many columns of each degree* (``DESIGNS``): density evolution on the binary symmetric channel, and a
   linear programme along its trajectory that lowers the disclosed share (Richardson, Shokrollahi and Urbanke
   2001). ``--design`` runs it anew and prints what it finds. Columns of degree 2 are fewer than rows.
2. *Which row, which shift*: progressive edge growth (Hu, Eleftheriou and Arnold 2005) on the lifted graph.
   Columns of low degree first; every edge goes to a check as far away as can be, in the row with most places
   left; a set of lanes is one integer of 1024 bits. Never two edges between a row and a column, and no cycle
   of length 4 modulo 128, hence none for any of the four Z: girth 6 or more.
3. *Rank*: the table, shifts left out, has full rank over GF(2). As Z is a power of two, circulants form a
   local ring whose residue field sees only that table, so the lifted matrix has full rank too.
4. *Halves*: the edges of a row, by column degree, go alternately to its front and its back half. Where more
   has to be disclosed, a check is split into these two.

Choices are drawn from SHAKE-256 of the code's name: no random generator whose stream may change.
"""

import argparse
import hashlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

COLUMNS = 256
LIFT = 1024
GIRTH_MODULUS = 128
MASK = (1 << LIFT) - 1
ATTEMPTS_MAX = 20

DESIGNS: dict[int, dict[int, int]] = {
    15: {2: 14, 3: 154, 9: 2, 10: 86},  # threshold at 1.133 of the Shannon limit
    21: {2: 20, 3: 150, 8: 9, 9: 57, 16: 2, 18: 18},  # threshold at 1.101 of the Shannon limit
    28: {2: 27, 3: 147, 8: 11, 9: 49, 10: 1, 16: 3, 18: 14, 20: 4},  # threshold at 1.088 of the Shannon limit
    32: {2: 31, 3: 142, 8: 25, 9: 32, 20: 26},  # threshold at 1.071 of the Shannon limit
    37: {2: 36, 3: 141, 8: 17, 9: 39, 20: 23},  # threshold at 1.072 of the Shannon limit
    43: {2: 42, 3: 134, 7: 17, 8: 32, 20: 31},  # threshold at 1.063 of the Shannon limit
    50: {2: 49, 3: 129, 7: 34, 8: 12, 20: 32},  # threshold at 1.057 of the Shannon limit
    57: {2: 56, 3: 124, 7: 24, 8: 23, 20: 29},  # threshold at 1.054 of the Shannon limit
    66: {2: 65, 3: 121, 8: 36, 9: 13, 20: 21},  # threshold at 1.055 of the Shannon limit
    76: {2: 60, 3: 129, 8: 47, 18: 13, 20: 7},  # threshold at 1.053 of the Shannon limit
    88: {2: 70, 3: 118, 7: 25, 8: 22, 20: 21},  # threshold at 1.045 of the Shannon limit
    100: {2: 80, 3: 106, 6: 6, 7: 39, 18: 16, 20: 9},  # threshold at 1.046 of the Shannon limit
    116: {2: 92, 3: 99, 4: 1, 6: 16, 7: 7, 8: 16, 20: 25},  # threshold at 1.044 of the Shannon limit
    140: {2: 112, 3: 85, 5: 4, 6: 19, 7: 6, 8: 8, 20: 22},  # threshold at 1.037 of the Shannon limit
}
"""Rows: how many columns have which degree."""

Edge = tuple[int, int]
"""Row or column, and shift."""


def draws(seed: str) -> Iterator[int]:
    """Yield 64-bit numbers drawn from a seed."""
    block = 0
    while True:
        stream = hashlib.shake_256(f"{seed} {block}".encode()).digest(4096)
        for start in range(0, len(stream), 8):
            yield int.from_bytes(stream[start : start + 8], "little")
        block += 1


def turned(lanes: int, by: int) -> int:
    """Return a set of lanes turned towards higher numbers, 0 <= by < LIFT."""
    return ((lanes << by) | (lanes >> (LIFT - by))) & MASK


def folded(lanes: int) -> int:
    """Return a set of lanes and all lanes that are the same modulo GIRTH_MODULUS."""
    short = 0
    for start in range(0, LIFT, GIRTH_MODULUS):
        short |= lanes >> start
    short &= (1 << GIRTH_MODULUS) - 1
    return sum(short << start for start in range(0, LIFT, GIRTH_MODULUS))


def nth_lane(lanes: int, number: int) -> int:
    """Return the lane that has ``number`` others of the set below it."""
    for _ in range(number):
        lanes &= lanes - 1
    return (lanes & -lanes).bit_length() - 1


class NoEdge(Exception):
    """A column has no place left without a cycle of length 4."""


class Growing:
    """A graph that grows edge by edge: a column's lane l meets lane l - shift of a row's checks."""

    def __init__(self, row_degrees: list[int], seed: str) -> None:
        self.rows: list[list[Edge]] = [[] for _ in row_degrees]
        self.columns: list[list[Edge]] = [[] for _ in range(COLUMNS)]
        self._row_degrees = row_degrees
        self._draws = draws(seed)

    def _reached(self, column: int) -> Iterator[list[int]]:
        """Yield the checks within distance 1, 3, 5, ... of lane 0 of a column, as one set for each row."""
        seen_rows = [0] * len(self.rows)
        seen_columns = [0] * COLUMNS
        front_columns = {column: 1}
        seen_columns[column] = 1
        while front_columns:
            front_rows: dict[int, int] = {}
            for at, lanes in front_columns.items():
                for row, shift in self.columns[at]:
                    front_rows[row] = front_rows.get(row, 0) | turned(lanes, (LIFT - shift) % LIFT)
            for row, lanes in front_rows.items():
                front_rows[row] = lanes & ~seen_rows[row]
                seen_rows[row] |= lanes
            yield list(seen_rows)
            front_columns = {}
            for row, lanes in front_rows.items():
                if lanes:
                    for at, shift in self.rows[row]:
                        front_columns[at] = front_columns.get(at, 0) | turned(lanes, shift)
            for at, lanes in list(front_columns.items()):
                front_columns[at] = lanes & ~seen_columns[at]
                seen_columns[at] |= lanes
                if not front_columns[at]:
                    del front_columns[at]

    def _places(self, column: int) -> dict[int, int]:
        """Return the lanes of each row that an edge of this column may go to: the farthest."""
        taken = {row for row, _ in self.columns[column]}
        places = {
            row: MASK
            for row, edges in enumerate(self.rows)
            if row not in taken and len(edges) < self._row_degrees[row]
        }
        for distance, reached in enumerate(self._reached(column)):
            near = [folded(lanes) for lanes in reached] if distance <= 1 else reached
            fewer = {row: lanes & ~near[row] for row, lanes in places.items()}
            fewer = {row: lanes for row, lanes in fewer.items() if lanes}
            if not fewer and distance <= 1:
                raise NoEdge(f"column {column}")
            if not fewer or (fewer == places and distance > 1):
                break
            places = fewer
        return places

    def grow(self, column: int) -> None:
        """Add the edge of a column that closes the longest shortest cycle."""
        places = self._places(column)
        if not places:
            raise NoEdge(f"column {column}")
        free = {row: self._row_degrees[row] - len(self.rows[row]) for row in places}
        best = [row for row in places if free[row] == max(free.values())]
        row = best[next(self._draws) % len(best)]
        lane = nth_lane(places[row], next(self._draws) % places[row].bit_count())
        shift = (LIFT - lane) % LIFT
        self.rows[row].append((column, shift))
        self.columns[column].append((row, shift))

    def has_full_rank(self) -> bool:
        """Return whether the table without its shifts has independent rows over GF(2)."""
        pivots: dict[int, int] = {}
        for edges in self.rows:
            row = sum(1 << column for column, _ in edges)
            while row and (top := row.bit_length()) in pivots:
                row ^= pivots[top]
            if not row:
                return False
            pivots[top] = row
        return True


def grown(rows: int) -> Growing:
    """Return the finished graph of a design: the first attempt that finds all edges and full rank."""
    degrees = [degree for degree, count in sorted(DESIGNS[rows].items()) for _ in range(count)]
    edges = sum(degrees)
    row_degrees = [edges // rows + (row < edges % rows) for row in range(rows)]
    for attempt in range(ATTEMPTS_MAX):
        graph = Growing(row_degrees, f"openqci ldpc {rows} {attempt}")
        try:
            for column, degree in enumerate(degrees):
                for _ in range(degree):
                    graph.grow(column)
        except NoEdge:
            continue
        if graph.has_full_rank():
            return graph
    raise ArithmeticError(f"no code of {rows} rows in {ATTEMPTS_MAX} attempts")


def text_of(rows: int) -> str:
    """Return a code as text: a head, then a line for each row, front half | back half."""
    graph = grown(rows)
    lines = [f"columns {COLUMNS} rows {rows} lift {LIFT} girth-modulus {GIRTH_MODULUS}"]
    for row in graph.rows:
        ordered = sorted(row, key=lambda edge: (len(graph.columns[edge[0]]), edge[0]))
        front, back = sorted(ordered[0::2]), sorted(ordered[1::2])
        halves = (" ".join(f"{column}:{shift}" for column, shift in half) for half in (front, back))
        lines.append(" | ".join(halves))
    return "\n".join(lines) + "\n"


# Density evolution: distributions of a message's log-likelihood ratio on a grid, for the syndrome 0.

GRID_NAT = 0.1
LEVELS = 200
DEGREES = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20)
DESIGN_OVER_SHANNON = 1.065
"""The error rate of a design is where the code discloses so much more than the Shannon limit."""

ITERATIONS_MAX = 250
ERROR_MIN = 1e-6
STARTS = (
    {2: 0.025, 3: 0.294, 8: 0.317, 16: 0.364},
    {2: 0.036, 3: 0.298, 8: 0.040, 9: 0.351, 20: 0.275},
)
START_MIDDLE = {2: 0.08, 3: 0.27, 7: 0.056, 8: 0.195, 20: 0.399}
START_NOISY = {2: 0.158, 3: 0.220, 6: 0.083, 7: 0.049, 8: 0.103, 20: 0.387}

Density = NDArray[np.float64]
Shares = dict[int, float]
"""Degree: share of the edges."""


def binary_entropy(q: float) -> float:
    return -q * math.log2(q) - (1 - q) * math.log2(1 - q)


def qber_of_design(disclosed_share: float) -> float:
    """Return the error rate at which this share of the bits is DESIGN_OVER_SHANNON of the limit."""
    low, high = 1e-6, 0.5
    for _ in range(60):
        middle = (low + high) / 2
        below = binary_entropy(middle) * DESIGN_OVER_SHANNON < disclosed_share
        low, high = (middle, high) if below else (low, middle)
    return low


def _box_table() -> tuple[NDArray[np.int64], Density]:
    """Return where the magnitude that a check makes of two magnitudes lies on the grid, and how far on."""
    tangents = np.tanh(np.arange(LEVELS + 1) * GRID_NAT / 2)
    product = np.minimum(tangents[:, None] * tangents[None, :], 1 - 1e-15)
    place = 2 * np.arctanh(product) / GRID_NAT
    low = np.minimum(np.floor(place).astype(np.int64), LEVELS - 1)
    return low.ravel(), np.minimum(place - low, 1.0).ravel()


BOX_LOW, BOX_PART = _box_table()
Folded = tuple[Density, Density]
"""By magnitude: the probabilities of plus and minus, added and subtracted."""


def boxed(left: Folded, right: Folded) -> Folded:
    """Return the density of a check's message from those of two messages into it."""
    parts = []
    for a, b in zip(left, right, strict=True):
        product = np.outer(a, b).ravel()
        low = np.bincount(BOX_LOW, product * (1 - BOX_PART), LEVELS + 1)
        high = np.bincount(BOX_LOW + 1, product * BOX_PART, LEVELS + 1)
        parts.append(low + high)
    return parts[0], parts[1]


def check_density(density: Density, check_degrees: Shares) -> Density:
    """Return the density of the messages from checks to columns."""
    plus, minus = density[LEVELS:].copy(), density[LEVELS::-1].copy()
    plus[0] = minus[0] = density[LEVELS] / 2
    message: Folded = (plus + minus, plus - minus)
    powers = [message]
    while 1 << len(powers) <= max(check_degrees):
        powers.append(boxed(powers[-1], powers[-1]))
    total, difference = np.zeros(LEVELS + 1), np.zeros(LEVELS + 1)
    for degree, share in check_degrees.items():
        product: Folded | None = None
        for bit, power in enumerate(powers):
            if degree - 1 >> bit & 1:
                product = power if product is None else boxed(product, power)
        assert product is not None
        total, difference = total + share * product[0], difference + share * product[1]
    whole = np.zeros(2 * LEVELS + 1)
    whole[LEVELS:] = (total + difference) / 2
    whole[: LEVELS + 1] += ((total - difference) / 2)[::-1]
    whole = np.maximum(whole, 0)
    return whole / whole.sum()


def channel_density(qber: float) -> Density:
    place = math.log((1 - qber) / qber) / GRID_NAT
    low, part = int(place), place - int(place)
    density = np.zeros(2 * LEVELS + 1)
    for sign, probability in ((1, 1 - qber), (-1, qber)):
        density[LEVELS + sign * low] += probability * (1 - part)
        density[LEVELS + sign * (low + 1)] += probability * part
    return density


def added(left: Density, right: Density) -> Density:
    """Return the density of a sum, cut off at both ends of the grid."""
    whole = np.maximum(np.fft.irfft(np.fft.rfft(left, 1024) * np.fft.rfft(right, 1024), 1024), 0)
    density = whole[LEVELS : 3 * LEVELS + 1].copy()
    density[0] += whole[:LEVELS].sum()
    density[-1] += whole[3 * LEVELS + 1 : 4 * LEVELS + 1].sum()
    return density / density.sum()


def error_share(density: Density) -> float:
    return float(density[:LEVELS].sum() + density[LEVELS] / 2)


Trajectory = list[tuple[float, dict[int, float]]]
"""For each iteration the errors in the messages, and what columns of each degree make of them."""


def evolved(qber: float, shares: Shares, check_degrees: Shares, degrees: list[int]) -> Trajectory | None:
    """Return the trajectory of decoding, or None if errors remain."""
    channel = channel_density(qber)
    density, trajectory = channel, []
    for _ in range(ITERATIONS_MAX):
        before = error_share(density)
        if before < ERROR_MIN:
            return trajectory
        message = check_density(density, check_degrees)
        by_degree, total = {}, channel
        for degree in range(2, max(degrees) + 1):
            total = added(total, message)
            by_degree[degree] = total
        trajectory.append((before, {degree: error_share(by_degree[degree]) for degree in degrees}))
        density = sum((shares[degree] * by_degree[degree] for degree in degrees), np.zeros(channel.size))
        if error_share(density) > before * (1 - 3e-4):
            return None
    return None


def checks_of(mean_degree: float) -> Shares:
    """Return the shares of edges in checks of the two degrees around a mean."""
    low = int(mean_degree)
    fewer = low + 1 - mean_degree
    shares = {low: fewer * low / mean_degree, low + 1: (1 - fewer) * (low + 1) / mean_degree}
    return {degree: share for degree, share in shares.items() if share > 0}


def disclosed_share(shares: Shares, check_degree: float) -> float:
    return 1 / check_degree / sum(share / degree for degree, share in shares.items())


def started(
    start: Shares, degrees: list[int], qber: float, check_degree: float
) -> tuple[Shares, Trajectory] | None:
    """Return a distribution near ``start`` that decodes, made robuster until it does."""
    shares = dict.fromkeys(degrees, 0.0)
    for degree, share in start.items():
        shares[min(degrees, key=lambda known: abs(known - degree))] += share
    shares[2] = min(shares[2], 2 / check_degree)
    for _ in range(16):
        rest = 1 - sum(shares.values())
        shares[degrees[-1]] += rest / 2
        shares[8] += rest / 2
        trajectory = evolved(qber, shares, checks_of(check_degree), degrees)
        if trajectory is not None:
            return shares, trajectory
        for degree, part in ((2, 0.97), (3, 0.93), (4, 0.93)):
            shares[degree] *= part
    return None


def improved(start: Shares, degrees: list[int], qber: float, check_degree: float) -> Shares | None:
    """Return the shares that disclose least and still decode, by steps of a linear programme."""
    from scipy.optimize import linprog

    begun = started(start, degrees, qber, check_degree)
    if begun is None:
        return None
    shares, trajectory = begun
    step, slack = 0.05, 0.02
    while step > 1e-3:
        now = np.array([shares[degree] for degree in degrees])
        errors = np.array([[after[degree] / before for degree in degrees] for before, after in trajectory])
        limit = np.maximum(1 - slack, errors @ now)
        highest = [2 / check_degree if degree == 2 else 1.0 for degree in degrees]
        bounds = [(max(0.0, at - step), min(most, at + step)) for at, most in zip(now, highest, strict=True)]
        cost = [-1 / degree for degree in degrees]
        found = linprog(cost, errors, limit, [[1.0] * len(degrees)], [1.0], bounds)
        candidate = None
        if found.status == 0:
            candidate = dict(zip(degrees, np.maximum(found.x, 0).tolist(), strict=True))
            better = disclosed_share(candidate, check_degree) < disclosed_share(shares, check_degree) - 1e-6
            further = evolved(qber, candidate, checks_of(check_degree), degrees) if better else None
            candidate = candidate if further is not None else None
        if candidate is not None and further is not None:
            shares, trajectory = candidate, further
        else:
            step, slack = step / 2, slack * 0.7
    return shares


def trials(rows: int) -> list[tuple[float, Shares]]:
    """Return mean column degrees, more for high rates where checks are long, and starts to try."""
    if rows > 100:
        return [(4.7, START_NOISY), (4.9, START_NOISY)]
    if 40 < rows < 60:
        return [(5.6, START_MIDDLE), (5.8, START_MIDDLE)]
    means = (5.0, 5.2) if rows < 20 else (5.4, 6.0) if rows < 30 else (5.6, 5.8) if rows < 40 else (4.9, 5.2)
    return [(mean, start) for mean in means for start in STARTS]


def degree_2_columns_max(rows: int) -> int:
    """Return how many columns of degree 2 there may be: fewer than rows, so that they close no cycle.

    Of noisy codes less: chains of nearly all rows take a hundred iterations to settle (found by decoding).
    """
    return rows - 1 if rows < 70 else int(0.8 * rows)


def whole_columns(shares: Shares, rows: int) -> dict[int, int]:
    """Return shares of edges as numbers of columns, fewer of degree 2 than rows."""
    nodes = {degree: share / degree for degree, share in shares.items() if share > 5e-4}
    exact = {degree: COLUMNS * share / sum(nodes.values()) for degree, share in nodes.items()}
    counts = {degree: int(value) for degree, value in exact.items()}
    for degree in sorted(exact, key=lambda degree: counts[degree] - exact[degree]):
        counts[degree] += sum(counts.values()) < COLUMNS
    beyond = max(0, counts.get(2, 0) - degree_2_columns_max(rows))
    if beyond:
        counts[2] -= beyond
        counts[3] += beyond
    return {degree: count for degree, count in counts.items() if count}


def designed(rows: int) -> tuple[dict[int, int], float]:
    """Return the best distribution for so many rows, and what it discloses over the Shannon limit."""
    qber = qber_of_design(rows / COLUMNS)
    degrees = [degree for degree in DEGREES if degree < rows and (degree <= 10 or rows > 20)]
    found: list[tuple[float, Shares]] = []
    for mean_degree, start in trials(rows):
        check_degree = round(2 * mean_degree * COLUMNS / rows) / 2
        shares = improved(start, degrees, qber, check_degree)
        if shares is not None:
            found.append((disclosed_share(shares, check_degree), shares))
    if not found:
        raise ArithmeticError(f"no start decodes with {rows} rows")
    least, shares = min(found, key=lambda pair: pair[0])
    return whole_columns(shares, rows), least / binary_entropy(qber)


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the parity-check codes of openqci.")
    parser.add_argument("directory", type=Path, nargs="?", help="where the codes lie, one text each")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--only", type=int, choices=sorted(DESIGNS), action="append", help="only these rows")
    parser.add_argument("--design", type=int, metavar="ROWS", help="run density evolution and print a design")
    arguments = parser.parse_args()
    if arguments.design is not None:
        counts, over = designed(arguments.design)
        print(f"    {arguments.design}: {counts},  # threshold at {over:.3f} of the Shannon limit")
        return 0
    if arguments.directory is None:
        parser.error("a directory is needed")
    differing = []
    for rows in arguments.only or DESIGNS:
        path = arguments.directory / f"{rows}.txt"
        text = text_of(rows)
        if arguments.check:
            if not path.exists() or path.read_text() != text:
                differing.append(path.name)
        else:
            path.write_text(text)
            print(f"{path}: {len(text)} bytes")
    if differing:
        print("differ from their seeds:", ", ".join(differing), file=sys.stderr)
    return 1 if differing else 0


if __name__ == "__main__":
    raise SystemExit(main())
