"""Checks one file of a scenario against its JSON Schema, and says what is wrong in plain words.

The schemas (draft 2020-12, folder ``schemas``) are the published description of the format: each field has a
description, a unit where it has one, and where a pattern decides, what the pattern ``expects``. What one file
alone cannot show, such as a link to a site that does not exist, is in :mod:`openqci.network.consistency`.
"""

import difflib
import json
import math
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from openqci.network.documents import Document, LocatedFault, Path

SCHEMA_NAMES = ("scenario", "sites", "links", "devices", "demand")
"""One schema per file of a scenario folder, in the order in which a reader opens them."""

SHOWN_CHARACTERS_MAX = 60

KINDS = {
    "object": "a mapping (name: value)",
    "array": "a list",
    "string": "text",
    "number": "a finite number",
    "integer": "a whole number",
}

EXPONENT = re.compile(r"([-+]?)(\d+)\.?(\d*)[eE]([-+]?)(\d+)")
"""A number in which YAML 1.1 sees text, for want of a dot or of the exponent's sign."""


@cache
def schema_text(name: str) -> str:
    """Return the published text of one schema; KeyError for a name that is not in ``SCHEMA_NAMES``."""
    if name not in SCHEMA_NAMES:
        raise KeyError(name)
    return files("openqci.network").joinpath("schemas", f"{name}.schema.json").read_text("utf-8")


def scenario_schema(name: str = "scenario") -> dict[str, object]:
    """Return the JSON Schema (draft 2020-12) of one file of a scenario; KeyError for an unknown name."""
    schema: dict[str, object] = json.loads(schema_text(name))
    return schema


def schema_faults(document: Document, name: str) -> list[LocatedFault]:
    """Return every fault of a file of a scenario against its schema, in the order of the file."""
    return faults_against(document, _validator(name))


def faults_against(document: Document, validator: Any) -> list[LocatedFault]:
    """Return every fault of a file against the schema of a ``finite_validator``, in the order of the file."""
    found = [
        fault for error in validator.iter_errors(document.content) for fault in _explain(document, error)
    ]
    # jsonschema reports each missing field on its own, and each is explained as all of them: keep one.
    return sorted(dict.fromkeys(found), key=lambda fault: fault.line)


@cache
def _validator(name: str) -> Any:
    return finite_validator(scenario_schema(name))


def finite_validator(schema: Mapping[str, object]) -> Any:
    """Return a validator for which NaN, infinity, true and false are no numbers."""
    checker = Draft202012Validator.TYPE_CHECKER.redefine_many({"number": _is_number, "integer": _is_integer})
    finite = extend(Draft202012Validator, type_checker=checker)  # type: ignore[no-untyped-call]
    return finite(schema)


def _is_number(_: object, value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_integer(_: object, value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _explain(document: Document, error: ValidationError) -> Iterator[LocatedFault]:
    path: Path = tuple(error.absolute_path)
    schema: Mapping[str, Any] = error.schema  # type: ignore[assignment]  # true and false are not used as schemas
    value: Any = error.instance
    match error.validator:
        case "required":
            for name in [name for name in schema["required"] if name not in value]:
                yield document.fault(
                    (*path, name), f"missing; expected {_wanted(schema['properties'][name])}"
                )
        case "additionalProperties":
            known = list(schema["properties"])
            for name in [name for name in value if name not in known]:
                yield document.fault(
                    (*path, str(name)), f"unknown field; expected {_nearest(str(name), known)}"
                )
        case _:
            yield document.fault(
                path, f"expected {_wanted(schema)}, found {_shown(value)}{_hint(schema, value)}"
            )


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"{close[0]} (a slip of the pen?)" if close else f"one of {', '.join(known)}"


def _wanted(schema: Mapping[str, Any]) -> str:
    """Say in words what a schema allows.

    >>> _wanted({"type": "number", "exclusiveMinimum": 0, "maximum": 400, "unit": "km"})
    'a finite number above 0, at most 400 km'
    """
    if "const" in schema:
        return f"{schema['const']!r}, the only one that this OpenQCI reads"
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if "expects" in schema:
        return str(schema["expects"])
    words = KINDS[schema["type"]]
    limits = [
        f"{phrase} {_figure(schema[keyword])}"
        for keyword, phrase in (
            ("minimum", "at least"),
            ("exclusiveMinimum", "above"),
            ("maximum", "at most"),
            ("exclusiveMaximum", "below"),
            ("multipleOf", "a multiple of"),
            ("minItems", "with at least"),
            ("maxItems", "with at most"),
        )
        if keyword in schema
    ]
    unit = f" {schema['unit']}" if "unit" in schema else ""
    return f"{words} {', '.join(limits)}".rstrip() + unit


def _figure(number: float) -> str:
    return f"{number:g}" if abs(number) < 1e6 else f"{number:.12g}"


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else f"a list of {len(value)}"
    if value is None:
        return "nothing"
    kind = "text " if isinstance(value, str) else ""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return kind + (text if len(text) <= SHOWN_CHARACTERS_MAX else text[: SHOWN_CHARACTERS_MAX - 3] + "...")


def _hint(schema: Mapping[str, Any], value: object) -> str:
    """Explain what YAML 1.1 makes of innocent looking text."""
    wanted = schema.get("type")
    if wanted in ("number", "integer") and isinstance(value, str):
        parts = EXPONENT.fullmatch(value)
        if parts:
            sign, whole, fraction, exponent_sign, exponent = parts.groups()
            number = f"{sign}{whole}.{fraction or 0}e{exponent_sign or '+'}{exponent}"
            return f"; write {number}, in which YAML sees a number"
    if isinstance(value, bool) and (wanted == "string" or "enum" in schema):
        return "; YAML reads yes, no, on and off as true and false: write it in quotes"
    if wanted == "string" and value is not None and not isinstance(value, str | dict | list):
        return "; write it in quotes"
    return ""
