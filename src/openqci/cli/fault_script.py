"""Scripts of timed faults: a YAML file, checked against its published schema, and those that are shipped."""

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from openqci.core.errors import ConfigurationError, Fault
from openqci.network.documents import parse_document
from openqci.network.validation import faults_against, finite_validator
from openqci.twin.faults import FaultKind

FILE_BYTES_MAX = 1 << 20
SUFFIX = ".yaml"


class Injection(msgspec.Struct, frozen=True):
    """A fault that a step lets begin; ``name`` is what a later step clears it by."""

    kind: FaultKind
    target: str
    name: str = ""
    for_s: float | None = None
    added_qber: float | None = None


class Wait(msgspec.Struct, frozen=True):
    """Until when a step waits: an alarm on a hop, or that it is open and has key in stock."""

    hop: str
    state: str
    within_s: float = 60.0


class Lift(msgspec.Struct, frozen=True):
    """The word of a security officer on a hop under suspicion."""

    hop: str
    officer: str
    verdict: str


class Step(msgspec.Struct, frozen=True):
    """What happens ``after_s`` seconds after the step before: something is said, and one thing done."""

    after_s: float = 0.0
    say: str = ""
    inject: Injection | None = None
    clear: str | None = None
    lift: Lift | None = None
    wait: Wait | None = None


class Script(msgspec.Struct, frozen=True):
    """A story of faults."""

    title: str
    steps: tuple[Step, ...]
    scenario: str = ""


def script_names() -> tuple[str, ...]:
    """Return the names of the shipped scripts."""
    folder = files("openqci.cli").joinpath("fault_scripts")
    return tuple(
        sorted(each.name.removesuffix(SUFFIX) for each in folder.iterdir() if each.name.endswith(SUFFIX))
    )


@cache
def script_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a script."""
    text = files("openqci.cli").joinpath("fault-script.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def read_script(name: str) -> Script:
    """Read a script from a file, or a shipped one by its name; ConfigurationError with every fault."""
    if name in script_names() and not Path(name).exists():
        text = files("openqci.cli").joinpath("fault_scripts", name + SUFFIX).read_text("utf-8")
        return script_of(text, name)
    try:
        with Path(name).open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
        text = content.decode()
    except OSError as error:
        shipped = ", ".join(script_names())
        reason = f"cannot be read ({error.strerror}); expected a file, or a shipped script: {shipped}"
        raise ConfigurationError(Fault(name, "", reason)) from None
    except UnicodeDecodeError:
        raise ConfigurationError(Fault(name, "", "is not UTF-8 text")) from None
    if len(content) > FILE_BYTES_MAX:
        raise ConfigurationError(Fault(name, "", f"is longer than {FILE_BYTES_MAX} bytes: no script is"))
    return script_of(text, name)


def script_of(text: str, file: str) -> Script:
    """Read a script from its text; ConfigurationError with every fault, by line."""
    document = parse_document(text, file)
    faults: list[Fault] = list(faults_against(document, finite_validator(script_schema())))
    if faults:
        raise ConfigurationError(*faults)
    script = msgspec.convert(document.content, Script)
    named: set[str] = set()
    for number, step in enumerate(script.steps):
        done = [each for each in (step.inject, step.clear, step.lift, step.wait) if each is not None]
        if len(done) > 1:
            message = "does several things; expected at most one of inject, clear, lift, wait"
            faults.append(document.fault(("steps", number), message))
        if step.inject is not None:
            faults += [document.fault(("steps", number, "inject"), why) for why in unfit(step.inject)]
            named.add(step.inject.name)
        if step.clear and step.clear not in named:
            faults.append(document.fault(("steps", number, "clear"), f"no step before names {step.clear!r}"))
    if faults:
        raise ConfigurationError(*faults)
    return script


def unfit(injection: Injection) -> list[str]:
    """Return what is wrong with an injection that the schema cannot see."""
    if (injection.kind is FaultKind.QBER) != (injection.added_qber is not None):
        return ["added_qber goes with the kind qber, and with no other"]
    return []
