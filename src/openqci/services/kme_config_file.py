"""Reads ``kme.toml``: the file, then its schema, then what contradicts itself, before anything is opened."""

from pathlib import Path
from typing import Any

import msgspec

from openqci.core.errors import ConfigurationError, Fault
from openqci.services.kme_config import KmeConfig, LoadedConfig
from openqci.services.kme_config_faults import consistency_faults
from openqci.services.toml_config import faults_against, read_toml, schema_of


def load_config(file: Path) -> LoadedConfig:
    """Read and check a configuration; ConfigurationError lists everything that is wrong with it."""
    return checked_config(file, read_toml(file))


def checked_config(file: Path, document: dict[str, Any]) -> LoadedConfig:
    """Check a document against the schema and against itself."""
    faults = schema_faults(str(file), document)
    if faults:
        raise ConfigurationError(*faults)
    config = msgspec.convert(document, KmeConfig)
    loaded = LoadedConfig(file.absolute(), config)
    faults = consistency_faults(loaded)
    if faults:
        raise ConfigurationError(*faults)
    return loaded


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema of the configuration."""
    return schema_of(KmeConfig, "OpenQCI key management entity: kme.toml")


def schema_faults(file: str, document: dict[str, Any]) -> list[Fault]:
    """Return what the schema says against a document, in order of place."""
    return faults_against(config_schema(), file, document)
