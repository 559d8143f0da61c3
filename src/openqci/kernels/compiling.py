"""The one way in which a function becomes machine code.

``cache=True`` keeps the code beside the source (or in the user's cache where that is not writable), keyed by
source, processor and numba version, so that only the first run after an installation compiles. ``nogil`` lets
two blocks run in two threads. Fast-math is off: a kernel computes what it says.
"""

from collections.abc import Callable
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])


def kernel(function: Function) -> Function:
    """Compile ``function`` on first use for the argument types it is called with."""
    return cast(Function, numba.njit(cache=True, nogil=True)(function))
