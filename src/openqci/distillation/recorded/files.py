"""Recordings as files: NumPy archives without pickle, format 1, described in docs/reference/recordings.md.

Both kinds hold raw key. They are written for their owner alone (mode 0600), under another name until they are
whole, and nothing here says a value of theirs.
"""

import dataclasses
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openqci.core.errors import ConfigurationError, Fault
from openqci.distillation.recorded.recordings import (
    DetectorChannel,
    RecordedEmissions,
    RecordedTags,
    SyncChannel,
)

FILE_BYTES_MAX = 16 << 30
"""Of all fields of a file together, unpacked: room for what the limits of a recording allow."""

SPOILED = (
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy and zipfile raise for a file with wrong bytes, before they look at its checksums."""

Field = tuple[type, tuple[int, ...]]
"""A type, and how many axes there may be."""

FORMATS: dict[str, dict[str, Field]] = {
    "openqci-emissions-1": {
        "clock_rate_hz": (np.float64, (0,)),
        "pulses": (np.int64, (0,)),
        "source_intensities": (np.float64, (1,)),
        "source_probabilities": (np.float64, (1,)),
        "z_basis_probability": (np.float64, (0,)),
        "packed": (np.bool_, (0,)),
        "bases": (np.uint8, (1,)),
        "bits": (np.uint8, (1,)),
        "intensities": (np.uint8, (1, 2)),
        "slots": (np.int64, (1,)),
    },
    "openqci-tags-1": {
        "clock_rate_hz": (np.float64, (0,)),
        "pulses": (np.int64, (0,)),
        "start_ps": (np.int64, (0,)),
        "times_ps": (np.int64, (1,)),
        "channels": (np.uint8, (1,)),
        "detector_channels": (np.uint8, (1,)),
        "detector_bases": (np.uint8, (1,)),
        "detector_bits": (np.uint8, (1,)),
        "detector_delays_ps": (np.int64, (1,)),
        "sync_channel": (np.uint8, (0,)),
        "sync_period_slots": (np.int64, (0,)),
        "sync_first_slot": (np.int64, (0,)),
        "sync_delay_ps": (np.int64, (0,)),
        "gate_width_ps": (np.int64, (0,)),
        "dead_time_ps": (np.int64, (0,)),
    },
}
EMISSIONS_FORMAT, TAGS_FORMAT = FORMATS
OPTIONAL = {"slots"}


def write_emissions(path: Path, emissions: RecordedEmissions) -> None:
    """Write Alice's recording, readable by its owner alone."""
    values = {name: getattr(emissions, name) for name in FORMATS[EMISSIONS_FORMAT]}
    if emissions.slots is None:
        del values["slots"]
    write_archive(path, EMISSIONS_FORMAT, values)


def write_tags(path: Path, tags: RecordedTags) -> None:
    """Write Bob's recording, readable by its owner alone."""
    names = ("clock_rate_hz", "pulses", "start_ps", "times_ps", "channels", "gate_width_ps", "dead_time_ps")
    values = {name: getattr(tags, name) for name in names}
    values |= {
        "detector_channels": [detector.number for detector in tags.detectors],
        "detector_bases": [detector.basis for detector in tags.detectors],
        "detector_bits": [detector.bit for detector in tags.detectors],
        "detector_delays_ps": [detector.delay_ps for detector in tags.detectors],
        "sync_channel": tags.sync.number,
        "sync_period_slots": tags.sync.period_slots,
        "sync_first_slot": tags.sync.first_slot,
        "sync_delay_ps": tags.sync.delay_ps,
    }
    write_archive(path, TAGS_FORMAT, values)


def read_emissions(path: Path) -> RecordedEmissions:
    """Read Alice's recording.

    Raises
    ------
    ConfigurationError
        Names the file and every field that is missing or not as docs/reference/recordings.md has it.
    """
    found = read_archive(path, EMISSIONS_FORMAT)
    with named(path):
        return RecordedEmissions(
            clock_rate_hz=found["clock_rate_hz"].item(),
            pulses=found["pulses"].item(),
            source_intensities=tuple(found["source_intensities"].tolist()),
            source_probabilities=tuple(found["source_probabilities"].tolist()),
            z_basis_probability=found["z_basis_probability"].item(),
            bases=found["bases"],
            bits=found["bits"],
            intensities=found["intensities"],
            packed=found["packed"].item(),
            slots=found.get("slots"),
        )


def read_tags(path: Path) -> RecordedTags:
    """Read Bob's recording.

    Raises
    ------
    ConfigurationError
        Names the file and every field that is missing or not as docs/reference/recordings.md has it.
    """
    found = read_archive(path, TAGS_FORMAT)
    with named(path):
        return RecordedTags(
            clock_rate_hz=found["clock_rate_hz"].item(),
            pulses=found["pulses"].item(),
            start_ps=found["start_ps"].item(),
            times_ps=found["times_ps"],
            channels=found["channels"],
            detectors=tuple(detectors_of(found)),
            sync=SyncChannel(
                found["sync_channel"].item(),
                found["sync_period_slots"].item(),
                found["sync_first_slot"].item(),
                found["sync_delay_ps"].item(),
            ),
            gate_width_ps=found["gate_width_ps"].item(),
            dead_time_ps=found["dead_time_ps"].item(),
        )


def detectors_of(found: Mapping[str, NDArray[Any]]) -> Iterator[DetectorChannel]:
    names = ("detector_channels", "detector_bases", "detector_bits", "detector_delays_ps")
    columns = [found[name].tolist() for name in names]
    lengths = [len(column) for column in columns]
    if len(set(lengths)) > 1:
        raise ConfigurationError(Fault("", ", ".join(names), f"expected equal lengths, got {lengths}"))
    return (DetectorChannel(*row) for row in zip(*columns, strict=True))


def write_archive(path: Path, name: str, values: Mapping[str, Any]) -> None:
    """Write an archive of a format under another name, for the owner alone, and move it into place."""
    fields = FORMATS[name]
    arrays: dict[str, Any] = {key: np.asarray(value, dtype=fields[key][0]) for key, value in values.items()}
    part = path.with_name(f".{path.name}.part")
    try:
        part.unlink(missing_ok=True)  # what an interrupted writing left may be open to others
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as writing:
            np.savez(writing, format=np.array(name), **arrays)
            writing.flush()
            os.fsync(writing.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ConfigurationError(Fault(str(path), "", f"cannot be written: {error.strerror}")) from error


def read_archive(path: Path, name: str) -> dict[str, NDArray[Any]]:
    """Return the fields of an archive of a format, each of its type and axes; unknown fields are refused."""
    try:
        # Opened here: NumPy would leave a file open that it cannot read.
        with open(path, "rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ConfigurationError(Fault(str(path), "", "expected an .npz archive, got one array"))
            refuse_size(path, archive.zip.infolist() if archive.zip else [])
            refuse_format(path, name, archive)
            arrays = {key: np.asarray(archive[key]) for key in archive.files if key != "format"}
    except SPOILED as error:
        raise ConfigurationError(Fault(str(path), "", unreadable(error))) from error
    faults = list(field_faults(FORMATS[name], arrays))
    if faults:
        raise ConfigurationError(*(Fault(str(path), key, message) for key, message in faults))
    return arrays


def unreadable(error: Exception) -> str:
    """Say what is wrong with a file in words that hold none of its content."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return "is no whole NumPy .npz archive (truncated, of another kind, or with pickled objects)"


def refuse_size(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    size = sum(entry.file_size for entry in entries)
    if size > FILE_BYTES_MAX:
        message = f"expected at most {FILE_BYTES_MAX} bytes of fields, got {size}"
        raise ConfigurationError(Fault(str(path), "", message))


def refuse_format(path: Path, name: str, archive: Mapping[str, NDArray[Any]]) -> None:
    """Raise ConfigurationError unless the archive says that it is of this format and version."""
    if "format" not in archive:
        raise ConfigurationError(Fault(str(path), "format", f"is missing; expected {name}"))
    told = np.asarray(archive["format"])
    found = str(told)[:40] if told.shape == () and told.dtype.kind == "U" else f"{told.dtype} {told.shape}"
    if found == name:
        return
    other = found.rpartition("-")[0] == name.rpartition("-")[0]
    hint = "another version of OpenQCI wrote this file" if other else "is this the file of the other end?"
    raise ConfigurationError(Fault(str(path), "format", f"expected {name}, got {found}; {hint}"))


def field_faults(
    fields: Mapping[str, Field], arrays: Mapping[str, NDArray[Any]]
) -> Iterator[tuple[str, str]]:
    for key, (kind, axes) in fields.items():
        found = arrays.get(key)
        if found is None:
            if key not in OPTIONAL:
                yield key, "is missing"
        elif found.dtype != kind:
            yield key, f"expected {np.dtype(kind)}, got {found.dtype}"
        elif found.ndim not in axes:
            yield key, f"expected {' or '.join(map(str, axes))} axes, got shape {found.shape}"
    for key in arrays:
        if key not in fields:
            yield key, "is no field of this format"


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Give the file's name to the faults of what is made from it."""
    try:
        yield
    except ConfigurationError as error:
        faults = (each if isinstance(each, Fault) else Fault("", "", each) for each in error.faults)
        raise ConfigurationError(*(dataclasses.replace(each, file=str(path)) for each in faults)) from None
