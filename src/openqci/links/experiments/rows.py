"""The rows of an experiment table, read from YAML with every fault named."""

import json
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from openqci.core.errors import ConfigurationError
from openqci.network.documents import parse_document
from openqci.network.validation import faults_against, finite_validator

FILE_BYTES_MAX = 4 * 2**20
"""The shipped table takes 25 kB."""


class Check(msgspec.Struct, frozen=True):
    """How a row is compared: kind, model, metric and tolerance."""

    kind: str
    model: str = ""
    metric: str | list[str] = ""
    tol: float | list[float] = 0.0
    tol_abs: float = 0.0
    tol_n1e5: float = 0.0
    expect: list[float] = []
    expect_worst_xi: list[float] = []
    note: str = ""

    @property
    def relative(self) -> float:
        """The relative tolerance where there is one for all metrics; zero if there is none."""
        return 0.0 if isinstance(self.tol, list) else self.tol


class Experiment(msgspec.Struct, frozen=True):
    """One published experiment: inputs and results by name, in the units of the table's head.

    ``memory`` names the figures that were remembered and not read.
    """

    experiment_id: str = msgspec.field(name="id")
    reference: str = msgspec.field(name="ref")
    source: str
    mark: str
    protocol: str
    inputs: dict[str, Any]
    results: dict[str, Any]
    check: Check = msgspec.field(name="test")
    memory: list[str] = []

    def figure(self, name: str) -> float:
        """Return an input that is one number; ConfigurationError if it is missing or none."""
        return self._number("inputs", self.inputs.get(name), name)

    def figures(self, name: str) -> list[float]:
        """Return an input that is a list of numbers."""
        return self._numbers("inputs", self.inputs.get(name), name)

    def result(self, name: str) -> float:
        """Return a result that is one number."""
        return self._number("results", self.results.get(name), name)

    def results_of(self, name: str) -> list[float]:
        """Return a result that is a list of numbers."""
        return self._numbers("results", self.results.get(name), name)

    def _number(self, part: str, value: object, name: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigurationError(
                f"{self.experiment_id}: {part}.{name}: expected a number, found {value!r}"
            )
        return float(value)

    def _numbers(self, part: str, value: object, name: str) -> list[float]:
        if not isinstance(value, list) or not value:
            raise ConfigurationError(
                f"{self.experiment_id}: {part}.{name}: expected a list of numbers, found {value!r}"
            )
        return [self._number(part, each, name) for each in value]


def read_experiments(text: str, file: str) -> tuple[Experiment, ...]:
    """Return the rows of a table; ConfigurationError lists all its faults with file, line and field."""
    if len(text.encode()) > FILE_BYTES_MAX:
        raise ConfigurationError(f"{file}: larger than {FILE_BYTES_MAX} bytes; this is no experiment table")
    document = parse_document(text, file)
    faults = faults_against(document, _validator())
    if faults:
        raise ConfigurationError(*faults)
    try:
        return tuple(msgspec.convert(row, Experiment) for row in document.records("rows"))
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{file}: {error}") from error


def shipped_experiments() -> tuple[Experiment, ...]:
    """Return the table that OpenQCI ships."""
    return read_experiments(_beside("experiments.yaml"), "experiments.yaml")


def experiments_schema() -> dict[str, object]:
    """Return the JSON Schema (draft 2020-12) of an experiment table."""
    schema: dict[str, object] = json.loads(_beside("experiments.schema.json"))
    return schema


@cache
def _validator() -> Any:
    return finite_validator(experiments_schema())


def _beside(name: str) -> str:
    return files("openqci.links.experiments").joinpath(name).read_text("utf-8")
