"""From a mission file to a mission, with every fault on the way. The only file input of this package."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import pairwise
from typing import Any

import msgspec

from openqci.core.errors import ConfigurationError, OpenQCIError
from openqci.links.missions.model import (
    ASSUMED,
    Design,
    Mission,
    Operation,
    OrbitDesign,
    Payload,
    Place,
    Provenance,
    StationDesign,
)
from openqci.network.documents import Document, LocatedFault, Path, parse_document, path_text
from openqci.network.validation import faults_against, finite_validator
from openqci.proofs import proof, proof_ids
from openqci.space.atmosphere import clear_sky
from openqci.space.elements import read_elements

FILE_BYTES_MAX = 2**20
"""The shipped missions take some 10 kB each."""

MISSIONS = ("eagle-1", "micius", "jinan-1", "microsat-pilot", "constellation-first", "iris2-hosted")
INTENSITIES = {"bb84-decoy1": 2, "bb84-decoy2": 3, "bbm92-cw": 0}
PARTS = ("orbits", "payloads", "stations", "operations")
PART_OF = {"orbit": OrbitDesign, "payload": Payload, "station": StationDesign, "operation": Operation}
PAIR_PROOF = "bbm92-finite"
BEAMS = ("waist_m", "full_angle_1e2_urad", "full_width_half_maximum_urad")

Record = dict[str, Any]


def mission(mission_id: str) -> Mission:
    """Return a shipped mission; ConfigurationError names those that there are."""
    if mission_id not in MISSIONS:
        known = ", ".join(MISSIONS)
        raise ConfigurationError(f"unknown mission {mission_id!r}; expected one of {known}, or FILE.yaml")
    return _shipped(mission_id)


def mission_ids() -> tuple[str, ...]:
    """Return the ids of the shipped missions."""
    return MISSIONS


def mission_schema() -> dict[str, object]:
    """Return the JSON Schema (draft 2020-12) of a mission file."""
    schema: dict[str, object] = json.loads(_beside("mission.schema.json").read_text("utf-8"))
    return schema


def read_mission(text: str, file: str) -> Mission:
    """Return the mission of a YAML text.

    Raises
    ------
    ConfigurationError
        Lists every fault with file, line, field and what was expected.
    """
    if len(text.encode()) > FILE_BYTES_MAX:
        raise ConfigurationError(f"{file}: larger than {FILE_BYTES_MAX} bytes; this is no mission file")
    document = parse_document(text, file)
    faults = faults_against(document, _validator()) or list(_inconsistencies(document))
    if faults:
        raise ConfigurationError(*faults)
    return _mission_of(document)


def _mission_of(document: Document) -> Mission:
    content: Record = document.content  # type: ignore[assignment]  # the schema has seen it
    plain = _plain(content)
    parts = {
        name: {each["id"]: msgspec.convert(each, kind) for each in plain[f"{name}s"]}
        for name, kind in PART_OF.items()
    }
    places = [msgspec.convert(each, Place) for each in plain.get("places", [])]
    return Mission(
        mission_id=plain["id"],
        title=plain["title"],
        status=plain["status"],
        designs=tuple(_design(plain["id"], each, parts) for each in plain["designs"]),
        places={each.place_id: each for each in places},
        sources={each["id"]: f"{each['title']}, {each['ref']} ({each['how']})" for each in plain["sources"]},
        provenance=tuple(_provenance(content, ())),
    )


def _design(mission_id: str, record: Record, parts: Mapping[str, Mapping[str, Any]]) -> Design:
    return Design(
        mission_id=mission_id,
        design_id=record["id"],
        title=record["title"],
        sites=tuple(record["sites"]),
        **{name: parts[name][record[name]] for name in PART_OF},
    )


def _plain(value: Any) -> Any:
    """Return content with every figure as its bare value."""
    if isinstance(value, dict):
        if "value" in value and "confidence" in value:
            return tuple(value["value"]) if isinstance(value["value"], list) else value["value"]
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _provenance(value: Any, path: Path) -> Iterator[Provenance]:
    """Yield where every figure comes from."""
    if isinstance(value, dict):
        if "value" in value and "confidence" in value:
            yield Provenance(
                path_text(path), value["value"], value["source"], value["confidence"], value.get("note", "")
            )
            return
        for name, each in value.items():
            yield from _provenance(each, (*path, name))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _provenance(each, (*path, index))


def _inconsistencies(document: Document) -> Iterator[LocatedFault]:
    """Yield what the schema cannot say: sources, references, and which figures belong together."""
    content: Record = document.content  # type: ignore[assignment]  # the schema has seen it
    plain = _plain(content)
    known = {each["id"] for each in plain["sources"]} | {ASSUMED}
    for path, source in _named_sources(content, ()):
        if source not in known:
            wanted = f"source {source!r} is not in this file; expected one of {', '.join(sorted(known))}"
            yield document.fault((*path, "source"), wanted)
    for name in (*PARTS, "designs"):
        ids = [each["id"] for each in plain[name]]
        for index in range(len(ids)):
            if ids[index] in ids[:index]:
                yield document.fault((name, index, "id"), f"{ids[index]} is used twice; expected a new id")
    for index, orbit in enumerate(plain["orbits"]):
        for field, message in _faults_of_orbit(orbit):
            yield document.fault(("orbits", index, field), message)
    for index, payload in enumerate(plain["payloads"]):
        for field, message in _faults_of_payload(payload):
            yield document.fault(("payloads", index, field), message)
    for index, station in enumerate(plain["stations"]):
        for field, message in _faults_of_station(station):
            yield document.fault(("stations", index, field), message)
    for index, design in enumerate(plain["designs"]):
        for field, message in _faults_of_design(design, plain):
            yield document.fault(("designs", index, field), message)


def _named_sources(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, dict):
        if "value" in value and "confidence" in value:
            yield path, value["source"]
            return
        if "elements_source" in value:
            yield path, value["elements_source"]
        for name, each in value.items():
            yield from _named_sources(each, (*path, name))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _named_sources(each, (*path, index))


NEEDED = {
    "elements": ("lines", "elements_source"),
    "sun-synchronous": ("altitude_km", "local_time_h"),
    "circular": ("altitude_km", "inclination_deg"),
    "walker-delta": ("altitude_km", "inclination_deg", "satellites", "planes", "phasing"),
    "walker-star": ("altitude_km", "inclination_deg", "satellites", "planes", "phasing"),
    "geostationary": ("longitude_deg",),
}


def _faults_of_orbit(orbit: Record) -> Iterator[tuple[str, str]]:
    for field in NEEDED[orbit["kind"]]:
        if field not in orbit:
            yield field, f"missing; expected it for an orbit of kind {orbit['kind']}"
    if orbit.get("satellites", 1) % orbit.get("planes", 1):
        yield "satellites", f"expected a multiple of the planes, {orbit['planes']}"
    if orbit["kind"] == "elements" and "lines" in orbit:
        try:
            read_elements("\n".join(orbit["lines"]), "")
        except ConfigurationError as error:
            yield "lines", str(error).removeprefix(": ")


def _faults_of_payload(payload: Record) -> Iterator[tuple[str, str]]:
    beams = [name for name in BEAMS if name in payload]
    if len(beams) != 1:
        yield "id", f"{len(beams)} beams; expected one of {', '.join(BEAMS)}"
    try:
        clear_sky(payload["wavelength_nm"])
    except OpenQCIError as error:
        yield "wavelength_nm", str(error)
    pairs, wanted = payload["protocol"] == "bbm92-cw", INTENSITIES[payload["protocol"]]
    for field in (
        ("brightness_hz", "window_s") if pairs else ("clock_rate_hz", "intensities", "probabilities")
    ):
        if field not in payload:
            yield field, f"missing; expected it for {payload['protocol']}"
    if pairs or not {"intensities", "probabilities"} <= set(payload):
        return
    intensities, probabilities = payload["intensities"], payload["probabilities"]
    if not len(intensities) == len(probabilities) == wanted:
        yield "intensities", f"expected {wanted} intensities and probabilities for {payload['protocol']}"
    if any(a <= b for a, b in pairwise(intensities)):
        yield "intensities", "expected values that fall strictly, the signal first"
    if abs(sum(probabilities) - 1) > 1e-9:
        yield "probabilities", f"expected values that sum to 1, found {sum(probabilities):.6g}"


def _faults_of_station(station: Record) -> Iterator[tuple[str, str]]:
    field = "field_of_view_urad" if station["reception"] == "field" else "adaptive_modes"
    if field not in station:
        yield field, f"missing; expected it for reception {station['reception']}"


def _faults_of_design(design: Record, plain: Record) -> Iterator[tuple[str, str]]:
    for name in PART_OF:
        ids = [each["id"] for each in plain[f"{name}s"]]
        if design[name] not in ids:
            yield name, f"no {name} {design[name]!r} in this file; expected one of {', '.join(ids)}"
    protocol = {each["id"]: each["protocol"] for each in plain["payloads"]}.get(design["payload"], "")
    proof_id = {each["id"]: each["proof"] for each in plain["operations"]}.get(design["operation"], "")
    if protocol == "bbm92-cw" and len(design["sites"]) < 2:
        yield "sites", "expected two or more: pairs go down to two stations at once"
    wanted = proofs_for(protocol)
    if proof_id not in wanted:
        message = f"proof {proof_id!r} is not for {protocol}; expected an operation with one of "
        yield "operation", message + ", ".join(wanted)


def proofs_for(protocol: str) -> tuple[str, ...]:
    """Return the ids of the proofs for a protocol of a payload."""
    if protocol == "bbm92-cw":
        return (PAIR_PROOF,)
    return tuple(each for each in proof_ids() if proof(each).intensities == INTENSITIES.get(protocol))


@cache
def _shipped(mission_id: str) -> Mission:
    name = f"{mission_id}.yaml"
    return read_mission(_beside(name).read_text("utf-8"), name)


@cache
def _validator() -> Any:
    return finite_validator(mission_schema())


def _beside(name: str) -> Traversable:
    return files("openqci.links.missions").joinpath(name)
