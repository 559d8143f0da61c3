"""The published schemas are valid, complete, and say what the reader in the documentation reads."""

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from openqci.network import SCHEMA_NAMES, Device, scenario_schema, schema_text
from openqci.network.catalogue import catalogue_text
from openqci.network.documents import Loader, parse_document
from openqci.network.reading import Settings
from openqci.network.validation import schema_faults

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "scenario.md"
UNIT_SUFFIXES = {
    "_db_per_km": "dB/km",
    "_db": "dB",
    "_km": "km",
    "_km_max": "km",
    "_hz": "Hz",
    "_per_s": "keys/s",
    "_s": "s",
    "_bits": "bit",
    "_keys": "keys",
}


def fields(schema: dict[str, Any], prefix: str = "") -> list[tuple[str, dict[str, Any], bool]]:
    """Return (path, schema, required) of every field, in order."""
    found = []
    for name, inner in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        found.append((path, inner, name in schema.get("required", ())))
        found += fields(inner, f"{path}.")
        found += fields(inner.get("items", {}), f"{path}[].")
    return found


@pytest.mark.parametrize("name", SCHEMA_NAMES)
def test_a_schema_is_valid_versioned_and_strict(name):
    schema = scenario_schema(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"https://openqci.eu/schemas/scenario/1/{name}.schema.json"
    assert json.loads(schema_text(name)) == schema
    for _, inner, _ in [("", schema, True), *fields(schema)]:
        if inner.get("type") == "object":
            assert inner["additionalProperties"] is False and inner["required"]


@pytest.mark.parametrize("name", SCHEMA_NAMES)
def test_every_field_is_described_with_its_unit_and_its_bounds(name):
    for path, inner, _ in fields(scenario_schema(name)):
        assert inner["description"].endswith((".", "a--b.")), path
        if inner.get("type") in ("number", "integer"):
            assert {"minimum", "exclusiveMinimum"} & set(inner) and {"maximum", "exclusiveMaximum"} & set(
                inner
            ), path
        if "pattern" in inner:
            assert inner["expects"], path
        suffixes = [suffix for suffix in UNIT_SUFFIXES if path.endswith(suffix)]
        if suffixes:
            assert inner["unit"] == UNIT_SUFFIXES[max(suffixes, key=len)], path


def test_an_unknown_schema_is_a_key_error():
    with pytest.raises(KeyError):
        scenario_schema("../model.py")


def test_no_schema_file_is_left_over():
    folder = files("openqci.network").joinpath("schemas")
    assert {file.name for file in folder.iterdir()} == {f"{name}.schema.json" for name in SCHEMA_NAMES}


def shipped_files() -> list[tuple[str, str]]:
    scenarios = files("openqci.network").joinpath("scenarios")
    return [(folder.name, file.name) for folder in scenarios.iterdir() for file in folder.iterdir()]


@pytest.mark.parametrize(("scenario", "file"), shipped_files())
def test_shipped_files_pass_their_schema_in_the_plain_validator_too(scenario, file):
    text = files("openqci.network").joinpath("scenarios", scenario, file).read_text("utf-8")
    Draft202012Validator(scenario_schema(file.removesuffix(".yaml"))).validate(yaml.load(text, Loader=Loader))


def test_the_shipped_devices_pass_their_schema():
    assert schema_faults(parse_document(catalogue_text("devices.yaml"), "devices.yaml"), "devices") == []


def test_device_schema_and_struct_have_the_same_fields():
    named = set(scenario_schema("devices")["properties"]["devices"]["items"]["properties"])
    assert named - {"id"} == set(Device.__struct_fields__) - {"device_id"}


def test_settings_have_the_defaults_that_the_schema_states():
    properties = scenario_schema("scenario")["properties"]
    assert set(Settings.__struct_fields__) == set(properties) - {"version", "description"}
    for name, default in zip(
        reversed(Settings.__struct_fields__), reversed(Settings.__struct_defaults__), strict=False
    ):
        stated = re.search(r"Default ([\w.-]+)\.", properties[name]["description"])
        assert (stated and stated[1]) == (
            f"{default:g}" if isinstance(default, float) else default or None
        ), name


def reference_table(name: str) -> str:
    """Return the table of one file's fields as docs/reference/scenario.md has it."""
    rows = ["| field | unit | value | needed | meaning |", "|---|---|---|---|---|"]
    for path, inner, required in fields(scenario_schema(name)):
        allowed = (
            ", ".join(f"`{value}`" for value in inner.get("enum", ()))
            or inner.get("expects")
            or bounds(inner)
        )
        needed = "yes" if required else "no"
        rows.append(f"| `{path}` | {inner.get('unit', '')} | {allowed} | {needed} | {inner['description']} |")
    return "\n".join(rows)


def bounds(schema: dict[str, Any]) -> str:
    if "const" in schema:
        return f"`{schema['const']}`"
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = ", ".join(f"{sign} {schema[key]:g}" for key, sign in words.items() if key in schema)
    step = f", multiple of {schema['multipleOf']}" if "multipleOf" in schema else ""
    kind = {"integer": "whole, ", "array": "list", "object": "mapping", "string": "text"}.get(
        schema["type"], ""
    )
    return kind + limits + step


@pytest.mark.parametrize("name", SCHEMA_NAMES)
def test_the_reference_has_every_field_of_every_schema(name):
    assert reference_table(name) in REFERENCE.read_text("utf-8")
