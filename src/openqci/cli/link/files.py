"""Files that commands read and write: clear reasons when they cannot be read, written whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from openqci.core.errors import ConfigurationError


def why_unreadable(error: OSError | UnicodeDecodeError) -> str:
    """Return why a file cannot be read, without its name, which the message has already."""
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 text (byte {error.start})"
    return error.strerror or str(error)


@contextmanager
def written_whole(file: Path, mode: int | None = None) -> Iterator[BinaryIO]:
    """Yield a file beside ``file`` that takes its name once it is complete.

    ``mode`` is who may read and write it; as of any other new file when not given.

    What goes wrong on the way, a full disk or an interruption, leaves the old file, or none.

    Raises
    ------
    ConfigurationError
        If it cannot be written; known before anything is written.
    """
    file = file.resolve()  # a link to a file stays one
    try:
        if file.is_dir():
            raise IsADirectoryError(None, "Is a directory")
        handle, name = tempfile.mkstemp(prefix=f".{file.name[:40]}.", dir=file.parent)
    except OSError as error:
        raise unwritable(file, error) from error
    try:
        with os.fdopen(handle, "wb") as beside:
            yield beside
        if mode is None:
            mask = os.umask(0)
            os.umask(mask)
            mode = 0o666 & ~mask  # as a file that was simply opened would have it
        os.chmod(name, mode)
        os.replace(name, file)
    except OSError as error:
        raise unwritable(file, error) from error
    finally:
        Path(name).unlink(missing_ok=True)


def unwritable(file: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"{file}: cannot be written: {error.strerror or error}")
