"""Recorded passes: what a station counted, interval by interval, as a JSON file with a published schema.

``recorded-pass.schema.json`` beside this module says what a file holds. A shipped example was drawn from a
model, and says so (``simulated``).
"""

import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
import numpy as np

from openqci.core.errors import ConfigurationError, Fault
from openqci.network.documents import path_text
from openqci.network.validation import finite_validator
from openqci.space.time_scales import utc_seconds

FILE_BYTES_MAX = 2**20
FAULTS_MAX, MESSAGE_MAX = 20, 200
"""Of one file; a column of a thousand wrong values is one mistake."""

EXAMPLE = "recorded-pass-example.json"

COLUMNS = ("elevation_deg", "range_km", "sifted_bits", "errors")


class Settings(msgspec.Struct, frozen=True):
    """Of the source during a pass."""

    intensities: tuple[float, ...]
    probabilities: tuple[float, ...]
    z_basis_probability: float


class RecordedPass(msgspec.Struct, frozen=True):
    """One pass as recorded; see the schema for every field. Sequences have one entry per interval."""

    version: int
    simulated: bool
    mission: str
    site: str
    interval_s: float
    utc: tuple[str, ...]
    elevation_deg: tuple[float, ...]
    range_km: tuple[float, ...]
    sifted_bits: tuple[int, ...]
    errors: tuple[int, ...]
    sunlit: tuple[bool, ...] = ()
    settings: Settings | None = None
    note: str = ""

    @property
    def utc_s(self) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
        """Middles of the intervals."""
        return np.array([utc_seconds(each) for each in self.utc])


def recorded_pass_schema() -> dict[str, object]:
    """Return the JSON Schema (draft 2020-12) of a recorded pass."""
    schema: dict[str, object] = json.loads(_beside("recorded-pass.schema.json"))
    return schema


def example_text() -> str:
    """Return the shipped example, which is simulated."""
    return _beside(EXAMPLE)


def read_recorded_pass(text: str, file: str) -> RecordedPass:
    """Return the recorded pass of a JSON text.

    Raises
    ------
    ConfigurationError
        Lists every fault with file, field and what was expected.
    """
    if len(text.encode()) > FILE_BYTES_MAX:
        raise ConfigurationError(f"{file}: larger than {FILE_BYTES_MAX} bytes; this is no recorded pass")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{file}: is no JSON: {error}; expected one object") from error
    errors = sorted(
        _validator().iter_errors(content), key=lambda each: [str(step) for step in each.absolute_path]
    )
    faults = [
        Fault(file, path_text(tuple(each.absolute_path)), each.message[:MESSAGE_MAX])
        for each in errors[:FAULTS_MAX]
    ]
    faults = faults or list(_inconsistencies(content, file))
    if faults:
        raise ConfigurationError(*faults)
    return msgspec.convert(content, RecordedPass)


def _inconsistencies(content: dict[str, Any], file: str) -> Iterator[Fault]:
    """Yield what the schema cannot say: equal lengths, rising times, errors among bits, settings that fit."""
    count = len(content["utc"])
    for name in (*COLUMNS, "sunlit"):
        if name in content and len(content[name]) != count:
            yield Fault(
                file, name, f"{len(content[name])} entries; expected {count}, one per interval of utc"
            )
    last = -np.inf
    for place, moment in enumerate(content["utc"]):
        try:
            now = utc_seconds(moment)
        except ConfigurationError as error:
            yield Fault(file, f"utc[{place}]", str(error))
            return
        if not now > last:
            yield Fault(file, f"utc[{place}]", f"{moment} is not after the one before; expected rising times")
        last = now
    for place, (bits, wrong) in enumerate(zip(content["sifted_bits"], content["errors"], strict=False)):
        if wrong > bits:
            yield Fault(
                file, f"errors[{place}]", f"{wrong} of {bits} sifted bits; expected no more than those"
            )
    settings = content.get("settings")
    if settings is not None:
        sizes = len(settings["intensities"]), len(settings["probabilities"])
        if sizes[0] != sizes[1] or abs(sum(settings["probabilities"]) - 1) > 1e-6:
            yield Fault(file, "settings.probabilities", "expected one per intensity, that sum to 1")


@cache
def _validator() -> Any:
    return finite_validator(recorded_pass_schema())


def _beside(name: str) -> str:
    return files("openqci.planning").joinpath(name).read_text("utf-8")
