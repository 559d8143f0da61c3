"""A network's folder on disk: its store, its key-encryption key, its certificates, and who may open it.

::

    DIR/                0700
      openqci.json      format version, scenario, digest of the scenario, when it was made
      kek               0600, 32 bytes: without it nothing in the store opens
      store.sqlite      key and records (and -wal, -shm beside it while in use)
      lock              held by the process that runs the network
      pki/              the test certificate authority and the KMEs' certificates
      saes/             certificates of the scenario's own SAEs
      kmes.json         where each KME listens (written when the network is ready)
      audit/            alarms, rulings and injected faults, chained by hashes

It is one network's and stays here: a store copied back from a backup would bring back key that was spent
since, so there is no restore. What the store promises: :mod:`openqci.services.sqlite_store`.
"""

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import msgspec

from openqci.core.errors import ConfigurationError, Fault
from openqci.crypto.sealing import KEK_BYTES

FORMAT_VERSION = 1

DESCRIPTION, KEK, LOCK = "openqci.json", "kek", "lock"
LOOK_S = 0.02
"""How often somebody who waits for a lock looks."""


class Description(msgspec.Struct, frozen=True):
    """What ``openqci.json`` says."""

    format_version: int
    scenario: str
    scenario_digest: str
    made_at_s: float


class DataDirectory:
    """An opened data directory. Use :meth:`open_or_create` to run it, :meth:`open_existing` beside it."""

    def __init__(self, path: Path, description: Description, lock: int | None) -> None:
        self.path = path
        self.description = description
        self._lock = lock

    @classmethod
    def open_or_create(cls, path: Path, scenario: str, scenario_digest: str) -> Self:
        """Open a directory for running ``scenario``, making it if it is not there, and lock it.

        Raises ConfigurationError if another process runs it, if it belongs to another scenario or version,
        or if it cannot be used.
        """
        path = path.absolute()
        with unusable_named(path):
            if path.exists() and not path.is_dir():
                raise ConfigurationError(Fault(str(path), "", "is no directory; choose another --data-dir"))
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not (path / DESCRIPTION).exists():
                refuse_foreign_files(path)  # before the lock, so that nothing of ours is put beside them
            lock = lock_directory(path)
            try:
                return cls(path, describe_or_make(path, scenario, scenario_digest), lock)
            except BaseException:
                os.close(lock)
                raise

    @classmethod
    def open_existing(cls, path: Path) -> Self:
        """Open a directory beside the process that may run it, for enrolment, status and keys."""
        path = path.absolute()
        with unusable_named(path):
            if not (path / DESCRIPTION).exists():
                raise ConfigurationError(
                    Fault(
                        str(path),
                        "",
                        f"is no data directory; make one with `openqci up --data-dir {path}`",
                    )
                )
            return cls(path, read_description(path), None)

    @property
    def scenario(self) -> str:
        """The scenario's name, or the absolute path of its folder."""
        return self.description.scenario

    @property
    def store_path(self) -> Path:
        return self.path / "store.sqlite"

    @property
    def pki_dir(self) -> Path:
        return self.path / "pki"

    @property
    def saes_dir(self) -> Path:
        return self.path / "saes"

    @property
    def kmes_file(self) -> Path:
        return self.path / "kmes.json"

    def kek(self) -> bytes:
        """Return the key-encryption key; never makes a new one for a store that exists."""
        return read_kek(self.path / KEK)

    def close(self) -> None:
        """Let another process run the directory."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


@contextmanager
def unusable_named(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses into one clear line."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            Fault(
                str(path),
                "",
                f"cannot be used as a data directory ({error.strerror}); choose another --data-dir",
            )
        ) from error


def describe_or_make(path: Path, scenario: str, scenario_digest: str) -> Description:
    """Return the description of a directory, which must fit; an empty one gets its KEK and description."""
    if (path / DESCRIPTION).exists():
        description = read_description(path)
        check_scenario(path, description, scenario, scenario_digest)
        read_kek(path / KEK)
        return description
    refuse_foreign_files(path)
    path.chmod(0o700)
    description = Description(FORMAT_VERSION, scenario, scenario_digest, time.time())
    # The description comes last: it says that the directory is whole. No store can exist before it.
    write_durably(path / KEK, secrets.token_bytes(KEK_BYTES))
    write_durably(path / DESCRIPTION, msgspec.json.format(msgspec.json.encode(description)))
    return description


def read_kek(file: Path) -> bytes:
    """Read a key-encryption key; ConfigurationError if it is gone, damaged or open to others."""
    try:
        kek, mode = file.read_bytes(), file.stat().st_mode
    except OSError as error:
        raise ConfigurationError(
            Fault(
                str(file),
                "",
                f"cannot be read ({error.strerror}); nothing in the store opens without it: "
                "put it back, or choose another --data-dir",
            )
        ) from error
    if len(kek) != KEK_BYTES:
        raise ConfigurationError(
            Fault(
                str(file),
                "",
                f"has {len(kek)} bytes, expected {KEK_BYTES}: put back the right one, "
                "or choose another --data-dir",
            )
        )
    if mode & 0o077:
        raise ConfigurationError(
            Fault(str(file), "", f"can be read by others (mode {mode & 0o777:o}): chmod 600 {file}")
        )
    return kek


def lock_directory(path: Path, orphans_end_s: float = 0.0) -> int:
    """Take the lock that the running process holds; it goes with the process, however that ends.

    Processes that the holder has started may hold it, too. If the holder is dead and they are about to end,
    this waits for them, up to ``orphans_end_s``.
    """
    lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    give_up_s = time.monotonic() + orphans_end_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
            if not is_dead(holder) or time.monotonic() > give_up_s:
                os.close(lock)
                raise ConfigurationError(
                    Fault(
                        str(path),
                        "",
                        f"is in use by process {holder}; stop it, or choose another --data-dir",
                    )
                ) from None
            time.sleep(LOOK_S)
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def is_dead(process: str) -> bool:
    """Tell whether a process, named by its number, is no more; what is no number is not known to be."""
    if not process.isdigit():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def read_description(path: Path) -> Description:
    """Read ``openqci.json``; ConfigurationError if it is damaged or of another version."""
    file = path / DESCRIPTION
    try:
        version = json.loads(file.read_text())["format_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            Fault(str(file), "", f"is damaged ({error}); put back a whole one, or choose another --data-dir")
        ) from error
    if version != FORMAT_VERSION:
        raise ConfigurationError(
            Fault(
                str(file),
                "format_version",
                f"is {version!r}, this program expects {FORMAT_VERSION}: use the program that made "
                "the directory, or another --data-dir",
            )
        )
    try:
        return msgspec.json.decode(file.read_bytes(), type=Description)
    except msgspec.ValidationError as error:
        raise ConfigurationError(
            Fault(str(file), "", f"is damaged ({error}); put back a whole one, or choose another --data-dir")
        ) from error


def check_scenario(path: Path, description: Description, scenario: str, digest: str) -> None:
    """Refuse to run a directory with another network than the one it was made for."""
    if description.scenario != scenario:
        raise ConfigurationError(
            Fault(
                str(path),
                "",
                f"belongs to scenario {description.scenario!r}, not {scenario!r}; choose another --data-dir",
            )
        )
    if description.scenario_digest != digest:
        raise ConfigurationError(
            Fault(
                str(path),
                "",
                f"was made for another version of scenario {scenario!r}; choose another --data-dir",
            )
        )


def refuse_foreign_files(path: Path) -> None:
    """A new data directory starts empty: whatever lies there belongs to somebody else.

    What a start leaves that was cut off before the description was written is ours, and is written again.
    """
    ours = {LOCK, KEK, part_of(path / KEK).name, part_of(path / DESCRIPTION).name}
    foreign = sorted(entry.name for entry in path.iterdir() if entry.name not in ours)
    if foreign:
        raise ConfigurationError(
            Fault(
                str(path),
                "",
                f"holds {foreign[0]!r} but no {DESCRIPTION}, so it is no data directory; choose another",
            )
        )


def part_of(file: Path) -> Path:
    """Return where a file is written before it takes its name."""
    return file.with_name(f".{file.name}.part")


def write_durably(file: Path, content: bytes) -> None:
    """Write a new file, readable by its owner alone, so that after a crash it is whole or absent."""
    part = part_of(file)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as writing:
        writing.write(content)
        writing.flush()
        os.fsync(writing.fileno())
    part.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
