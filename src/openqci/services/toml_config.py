"""Configuration files in TOML: read, held against a schema made of structures, every fault with its place."""

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from openqci.core.errors import ConfigurationError, Fault

if TYPE_CHECKING:
    import jsonschema


def read_toml(file: Path) -> dict[str, Any]:
    """Read a TOML file; ConfigurationError if it cannot be read or is none."""
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(Fault(str(file), "", f"cannot be read ({error.strerror})")) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(Fault(str(file), "", f"is not TOML: {error}")) from None


def schema_of(structure: type[msgspec.Struct], title: str) -> dict[str, Any]:
    """Return the JSON Schema of a file whose content a structure describes."""
    schema = msgspec.json.schema(structure)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **schema}


def faults_against(schema: dict[str, Any], file: str, document: dict[str, Any]) -> list[Fault]:
    """Return what a schema says against a document, in order of place."""
    import jsonschema  # slow to load, and a worker of a node gets a configuration that was checked before

    validator = jsonschema.Draft202012Validator(schema)
    errors = sorted(validator.iter_errors(document), key=lambda error: [str(part) for part in error.path])
    return [Fault(file, _place(error), _said(error)) for error in errors]


def _place(error: "jsonschema.ValidationError") -> str:
    place = ""
    for part in error.absolute_path:
        place += f"[{part}]" if isinstance(part, int) else f".{part}"
    return place.lstrip(".")


def _said(error: "jsonschema.ValidationError") -> str:
    # The validator's text quotes the value, which is no secret: secrets are in files of their own.
    return error.message[:300]
