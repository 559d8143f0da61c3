"""Compiled kernels: the few loops that decide how fast a link is distilled, in machine code.

They need the extra ``kernels`` (numba, which brings LLVM). Nothing here is imported on the way of a key
management entity, and every caller has a portable route for a machine without them:

- :func:`kernels_available` says whether numba is installed, :func:`require_kernels` says what to install;
- :mod:`openqci.kernels.compiling` is the one decorator, ``kernel``: compiled on first use, kept on disk, run
  without Python's interpreter lock.

A kernel takes and gives NumPy arrays and plain numbers. It checks nothing: its caller does.
"""

from importlib.util import find_spec

from openqci.core.errors import ConfigurationError

INSTALL_HINT = "pip install 'openqci[kernels]'"


def kernels_available() -> bool:
    """Return whether compiled kernels can be used; cheap, imports nothing."""
    return find_spec("numba") is not None


def require_kernels(what: str) -> None:
    """Raise ConfigurationError, with what to install, if ``what`` cannot run for want of kernels."""
    if not kernels_available():
        raise ConfigurationError(f"{what} needs compiled kernels: {INSTALL_HINT}")


__all__ = ["INSTALL_HINT", "kernels_available", "require_kernels"]
