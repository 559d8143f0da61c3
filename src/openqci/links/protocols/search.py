"""The highest place of a function of one or two settings: a grid, and finer ones around its best."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np

POINTS = 12
ROUNDS = 5


def highest(function: Callable[..., float], ranges: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    """Return the settings, from within ranges above zero, for which a function is highest.

    Each round asks a grid of POINTS per setting, even in the logarithm, and narrows every range to the
    neighbours of the best.
    """
    grids = [np.geomspace(low, high, POINTS) for low, high in ranges]
    best: tuple[int, ...] = ()
    for _ in range(ROUNDS):
        if best:
            grids = [
                np.geomspace(grid[max(i - 1, 0)], grid[min(i + 1, POINTS - 1)], POINTS)
                for grid, i in zip(grids, best, strict=True)
            ]
        places = itertools.product(range(POINTS), repeat=len(grids))
        best = max(
            places, key=lambda place: function(*(float(g[i]) for g, i in zip(grids, place, strict=True)))
        )
    return tuple(float(grid[i]) for grid, i in zip(grids, best, strict=True))
