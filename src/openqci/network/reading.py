"""From the files of a scenario folder to parts in good form, with every fault of form on the way.

Files are read here and nowhere else in this package. Whether the parts fit together is asked later, in
:mod:`openqci.network.scenario`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable
from typing import TypeVar

import msgspec

from openqci.core.errors import ConfigurationError, Fault
from openqci.network.consistency import Entry, Ids
from openqci.network.documents import Document, parse_document
from openqci.network.expansion import Link
from openqci.network.model import Device, Flow, Sae, Site, SpaceSegment, StockRule
from openqci.network.validation import SCHEMA_NAMES, schema_faults

FILE_BYTES_MAX = 16 * 2**20
"""A scenario of all Europe takes 0.4 MB; what is forty times larger is not a scenario."""

Struct = TypeVar("Struct", bound=msgspec.Struct)


class Settings(msgspec.Struct, frozen=True):
    """The content of ``scenario.yaml``; fields and defaults as its schema describes them."""

    name: str
    title: str
    stock: StockRule
    catalogue: str = ""
    span_km_max: float = 80.0
    submarine_km_max: float = 150.0
    attenuation_db_per_km: float = 0.2
    connector_loss_db: float = 1.0
    device: str = "dv-metro"
    device_beyond_span: str = "dv-snspd"
    space: SpaceSegment | None = None


@dataclass
class Parts:
    """Everything that a scenario says, in good form, and every fault found on the way.

    ``documents`` are the files by name, ``unread`` the names of those that should be there and are not read.
    """

    settings: Settings | None = None
    sites: list[Entry[Site]] = field(default_factory=list)
    links: list[Entry[Link]] = field(default_factory=list)
    devices: list[Entry[Device]] = field(default_factory=list)
    saes: list[Entry[Sae]] = field(default_factory=list)
    flows: list[Entry[Flow]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    documents: dict[str, Document] = field(default_factory=dict)
    unread: set[str] = field(default_factory=set)

    def ids(self, file: str, key: str) -> Ids:
        """Return the ids that a list of a file defines, also in records with other faults."""
        document = self.documents.get(file)
        if document is None:
            return Ids(frozenset(), whole=file not in self.unread)
        faulty = {fault.path for fault in self.faults if fault.file == document.file}
        places = [f"{key}[{index}]" for index in range(len(document.records(key)))]
        unreadable = {"", key, *places, *(f"{place}.id" for place in places)} & faulty
        return Ids(frozenset(document.ids(key)), whole=not unreadable)


def read_parts(folder: Traversable) -> Parts:
    """Read all files of a folder; what is not in good form becomes a fault and stays out of the parts."""
    parts = Parts()
    for name in SCHEMA_NAMES:
        _read_document(folder, name, parts)
    parts.faults.extend(_strangers(folder))
    _read_settings(parts)
    _require_sites_and_links(folder, parts)
    parts.sites = _entries(parts, "sites", "sites", _site)
    parts.links = _entries(parts, "links", "links", _link)
    parts.devices = _entries(parts, "devices", "devices", device_of)
    parts.saes = _entries(parts, "demand", "saes", _sae)
    parts.flows = _entries(parts, "demand", "flows", lambda record: msgspec.convert(record, Flow))
    return parts


def _read_document(folder: Traversable, name: str, parts: Parts) -> None:
    path = folder.joinpath(f"{name}.yaml")
    if not path.is_file():
        if name == "scenario":
            parts.faults.append(Fault(str(path), "", "file missing; expected it in every scenario folder"))
        return
    try:
        document = parse_document(_text(path), str(path))
    except ConfigurationError as error:
        parts.faults.extend(fault for fault in error.faults if isinstance(fault, Fault))
        parts.unread.add(name)
        return
    parts.documents[name] = document
    parts.faults.extend(schema_faults(document, name))


def _text(path: Traversable) -> str:
    try:
        with path.open("rb") as file:
            body = file.read(FILE_BYTES_MAX + 1)
        if len(body) > FILE_BYTES_MAX:
            raise ConfigurationError(Fault(str(path), "", f"expected at most {FILE_BYTES_MAX} bytes"))
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(Fault(str(path), "", f"not UTF-8 text at byte {error.start}")) from error
    except OSError as error:
        raise ConfigurationError(Fault(str(path), "", f"cannot be read: {error.strerror}")) from error


def _strangers(folder: Traversable) -> list[Fault]:
    """Find YAML files that nobody would read, such as ``link.yaml``."""
    wanted = [f"{name}.yaml" for name in SCHEMA_NAMES]
    return [
        Fault(str(file), "", f"this file is not part of a scenario; expected one of {', '.join(wanted)}")
        for file in sorted(folder.iterdir(), key=lambda file: file.name)
        if file.name.endswith((".yaml", ".yml")) and file.name not in wanted
    ]


def _read_settings(parts: Parts) -> None:
    document = parts.documents.get("scenario")
    if document and not _faulty_places(parts, document):
        parts.settings = msgspec.convert(document.content, Settings)


def _require_sites_and_links(folder: Traversable, parts: Parts) -> None:
    if parts.settings is None or parts.settings.catalogue:
        return
    for name in ("sites", "links"):
        path = folder.joinpath(f"{name}.yaml")
        if not path.is_file():
            reason = "file missing; expected it, or catalogue: euroqci in scenario.yaml"
            parts.faults.append(Fault(str(path), "", reason))
            parts.unread.add(name)


def _entries(
    parts: Parts, file: str, key: str, convert: Callable[[Mapping[str, object]], Struct]
) -> list[Entry[Struct]]:
    """Return the records of a list that have no fault of their own."""
    document = parts.documents.get(file)
    if document is None:
        return []
    faulty = _faulty_places(parts, document)
    return [
        Entry(convert(record), document, (key, index))
        for index, record in enumerate(document.records(key))
        if isinstance(record, dict) and f"{key}[{index}]" not in faulty
    ]


def _faulty_places(parts: Parts, document: Document) -> set[str]:
    """Return the first step of the path of each fault in a file, such as ``links[3]``."""
    return {fault.path.partition(".")[0] for fault in parts.faults if fault.file == document.file}


def _renamed(record: Mapping[str, object], names: Mapping[str, str]) -> dict[str, object]:
    return {names.get(key, key): value for key, value in record.items()}


def _site(record: Mapping[str, object]) -> Site:
    defaults = {"domain": record["country"], "source": "scenario"}
    return msgspec.convert(defaults | _renamed(record, {"id": "site_id"}), Site)


def _link(record: Mapping[str, object]) -> Link:
    return msgspec.convert(_renamed(record, {"id": "link_id", "type": "link_type"}), Link)


def device_of(record: Mapping[str, object]) -> Device:
    return msgspec.convert(_renamed(record, {"id": "device_id"}), Device)


def _sae(record: Mapping[str, object]) -> Sae:
    return msgspec.convert(_renamed(record, {"id": "sae_id"}), Sae)
