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
"""

import fcntl
import json
import os
import secrets
import time
from pathlib import Path
from typing import Self

import msgspec

from openqci.core.errors import ConfigurationError, Fault
from openqci.crypto.sealing import KEK_BYTES

FORMAT_VERSION = 1


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
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = lock_directory(path)
        except OSError as error:
            raise ConfigurationError(
                Fault(
                    str(path),
                    "",
                    f"cannot be used as a data directory ({error.strerror}); choose another --data-dir",
                )
            ) from error
        if (path / "openqci.json").exists():
            description = read_description(path)
            check_scenario(path, description, scenario, scenario_digest)
        else:
            refuse_foreign_files(path)
            description = Description(FORMAT_VERSION, scenario, scenario_digest, time.time())
            write_durably(path / "kek", secrets.token_bytes(KEK_BYTES))
            write_durably(path / "openqci.json", msgspec.json.format(msgspec.json.encode(description)))
        return cls(path, description, lock)

    @classmethod
    def open_existing(cls, path: Path) -> Self:
        """Open a directory beside the process that may run it, for enrolment, status and keys."""
        path = path.absolute()
        if not (path / "openqci.json").exists():
            raise ConfigurationError(
                Fault(str(path), "", "is no data directory; run `openqci up --data-dir DIR` first")
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
        try:
            kek = (self.path / "kek").read_bytes()
        except OSError as error:
            raise ConfigurationError(
                Fault(
                    str(self.path / "kek"),
                    "",
                    f"cannot be read ({error.strerror}); the store cannot be opened without it",
                )
            ) from error
        if len(kek) != KEK_BYTES:
            raise ConfigurationError(
                Fault(
                    str(self.path / "kek"), "", f"has {len(kek)} bytes, expected {KEK_BYTES}: it was damaged"
                )
            )
        return kek

    def close(self) -> None:
        """Let another process run the directory."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def lock_directory(path: Path) -> int:
    """Take the lock that the running process holds; it goes with the process, however that ends."""
    lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise ConfigurationError(
            Fault(str(path), "", f"is in use by process {holder}; stop it, or choose another --data-dir")
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def read_description(path: Path) -> Description:
    """Read ``openqci.json``; ConfigurationError if it is damaged or of another version."""
    file = path / "openqci.json"
    try:
        version = json.loads(file.read_text())["format_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            Fault(str(file), "", f"is damaged ({error}); restore it from a backup")
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
            Fault(str(file), "", f"is damaged ({error}); restore it from a backup")
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
    """A new data directory starts empty: whatever lies there belongs to somebody else."""
    foreign = sorted(entry.name for entry in path.iterdir() if entry.name not in {"lock", "kek"})
    if foreign:
        raise ConfigurationError(
            Fault(
                str(path),
                "",
                f"is not empty (it holds {foreign[0]!r}) and is no data directory; choose another",
            )
        )


def write_durably(file: Path, content: bytes) -> None:
    """Write a new file, readable by its owner alone, so that after a crash it is whole or absent."""
    part = file.with_name(f".{file.name}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    part.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
