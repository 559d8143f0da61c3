"""Stocks that carry key over the time in which there is none, such as a Nordic summer without darkness.

Key comes in by the day, in winter much and around midsummer none. A steady demand can then be met only from a
stock: how large it has to be is the deepest valley of what has come in less what has gone out, looked at over
a year that repeats itself.

>>> import numpy as np
>>> half_a_year = np.repeat([2.0, 0.0], 180)
>>> found = seasonal_stock(half_a_year)
>>> found.rate_per_day, found.stock, found.fullest_day, found.emptiest_day
(1.0, 180.0, 180, 0)

Left out: key that grows too old to be used; a rule of age makes the steady rate smaller.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from openqci.core.errors import OutsideModel
from openqci.space.ranges import Floats, check_range


@dataclass(frozen=True)
class SeasonalStock:
    """What a steady demand needs over a year that repeats itself.

    Attributes
    ----------
    rate_per_day : float
        The demand, in the unit of what comes in.
    stock : float
        How much must lie in store on the fullest day for the demand to be met on all others.
    fullest_day, emptiest_day : int
        At the beginning of which the stock is largest, and smallest.
    """

    rate_per_day: float
    stock: float
    fullest_day: int
    emptiest_day: int


def seasonal_stock(received_per_day: ArrayLike, rate_per_day: float | None = None) -> SeasonalStock:
    """Return the stock that a steady demand needs.

    Parameters
    ----------
    received_per_day : array_like, shape (D,)
        Of a whole year.
    rate_per_day : float, optional
        The mean of what comes in when not given: no steady demand can be larger.

    Raises
    ------
    OutsideModel
        For no day, or a rate above the mean.
    """
    received = check_range("received_per_day", received_per_day, 0.0, 1e30)
    if received.ndim != 1 or not received.size:
        raise OutsideModel("received_per_day", received.shape, "one value for each of one day or more")
    mean = float(received.mean())
    rate = mean if rate_per_day is None else rate_per_day
    if not 0 <= rate <= mean * (1 + 1e-12):
        raise OutsideModel("rate_per_day", rate, f"zero or more, at most the mean of {mean:g}")
    days = len(received)
    # Two years: a valley may reach over the end of the first.
    heights = np.concatenate([[0.0], np.cumsum(np.tile(received, 2) - rate)])
    peaks = np.maximum.accumulate(heights)
    depths = peaks - heights
    bottom = int(np.argmax(depths))
    top = int(np.argmax(heights[: bottom + 1]))
    return SeasonalStock(float(rate), float(depths[bottom]), top % days, bottom % days)


@dataclass(frozen=True)
class StockCourse:
    """A stock day by day; arrays of shape (D,).

    Attributes
    ----------
    used : ndarray
        What the demand got.
    left : ndarray
        In store at the end of each day.
    """

    used: Floats
    left: Floats


def stock_course(received_per_day: ArrayLike, demand_per_day: float, stock: float = 0.0) -> StockCourse:
    """Return how a stock fares that a steady demand draws on."""
    received = check_range("received_per_day", received_per_day, 0.0, 1e30)
    check_range("demand_per_day", demand_per_day, 0.0, 1e30)
    used, left = np.empty(len(received)), np.empty(len(received))
    level = float(check_range("stock", stock, 0.0, 1e30))
    for day, more in enumerate(received.tolist()):
        used[day] = min(level + more, demand_per_day)
        level = max(0.0, level + more - float(used[day]))
        left[day] = level
    return StockCourse(used, left)
