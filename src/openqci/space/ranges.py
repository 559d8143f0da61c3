"""The one range check of this package; everything that enters the model passes it."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from openqci.core.errors import OutsideModel

Floats = NDArray[np.float64]


def check_range(parameter: str, values: ArrayLike, low: float, high: float) -> Floats:
    """Return the values as floats, shape kept.

    Raises
    ------
    OutsideModel
        Unless every one is finite and from ``low`` to ``high``; names the parameter, the first value that
        is not, and how many are not. NaN is never inside.
    """
    array = np.asarray(values, dtype=np.float64)
    outside = ~((array >= low) & (array <= high) & np.isfinite(array))
    if outside.any():
        first = float(array[outside].flat[0])
        many = f" ({int(outside.sum())} of {array.size} values are not)" if array.size > 1 else ""
        raise OutsideModel(parameter, first, f"a finite number from {low:g} to {high:g}{many}")
    return array
