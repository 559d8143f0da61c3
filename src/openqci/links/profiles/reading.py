"""From a file of profiles to profiles, with every fault on the way. The only file input of this package."""

import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import pairwise
from typing import Any

import msgspec

from openqci.core.errors import ConfigurationError
from openqci.links.profiles.model import Profile
from openqci.network.documents import Document, LocatedFault, parse_document
from openqci.network.validation import faults_against, finite_validator

FILE_BYTES_MAX = 2**20
"""The shipped profiles take 8 kB."""

DECOY_INTENSITIES = {"bb84-decoy1": 2, "bb84-decoy2": 3}


def profile(profile_id: str) -> Profile:
    """Return a shipped profile; ConfigurationError names those that there are."""
    shipped = _shipped()
    if profile_id not in shipped:
        known = ", ".join(shipped)
        raise ConfigurationError(f"unknown profile {profile_id!r}; expected one of {known}, or FILE.yaml#ID")
    return shipped[profile_id]


def profile_ids() -> tuple[str, ...]:
    """Return the ids of the shipped profiles."""
    return tuple(_shipped())


def profile_schema() -> dict[str, object]:
    """Return the JSON Schema (draft 2020-12) of a file of profiles."""
    schema: dict[str, object] = json.loads(_beside("profiles.schema.json").read_text("utf-8"))
    return schema


def read_profiles(text: str, file: str) -> dict[str, Profile]:
    """Return the profiles of a YAML text by their ids.

    Raises
    ------
    ConfigurationError
        Lists every fault with file, line, field and what was expected.
    """
    if len(text.encode()) > FILE_BYTES_MAX:
        raise ConfigurationError(f"{file}: larger than {FILE_BYTES_MAX} bytes; this is no file of profiles")
    document = parse_document(text, file)
    faults = faults_against(document, _validator()) or list(_inconsistencies(document))
    if faults:
        raise ConfigurationError(*faults)
    found = [msgspec.convert(record, Profile) for record in document.records("profiles")]
    return {each.profile_id: each for each in found}


def _inconsistencies(document: Document) -> Iterator[LocatedFault]:
    """Yield what the schema cannot say: which parts belong together, and order within lists."""
    seen: set[str] = set()
    for index, record in enumerate(document.records("profiles")):
        each = msgspec.convert(record, Profile)
        faults = [*_faults_of_parts(each), *_faults_of_pulses(each), *_faults_of_curve(each)]
        if each.profile_id in seen:
            faults.append(("id", f"{each.profile_id} is used twice; expected one profile of this id"))
        seen.add(each.profile_id)
        yield from (document.fault(("profiles", index, field), message) for field, message in faults)


def _faults_of_parts(each: Profile) -> Iterator[tuple[str, str]]:
    coherent = each.protocol.startswith("gg02")
    if each.photon_receiver is None and each.coherent_receiver is None and each.measured is None:
        yield (
            "id",
            "nothing to go by; expected photon_receiver, coherent_receiver or measured",
        )
    if each.coherent_receiver is not None and not coherent:
        yield "coherent_receiver", f"expected photon_receiver, because {each.protocol} counts photons"
    if each.photon_receiver is not None and coherent:
        yield "photon_receiver", f"expected coherent_receiver, because {each.protocol} measures quadratures"
    if each.photon_receiver is not None and each.protocol in DECOY_INTENSITIES and each.pulses is None:
        yield "pulses", f"missing; expected the settings of {each.protocol}"


def _faults_of_pulses(each: Profile) -> Iterator[tuple[str, str]]:
    if each.pulses is None:
        return
    wanted = DECOY_INTENSITIES.get(each.protocol)
    intensities, probabilities = each.pulses.intensities, each.pulses.probabilities
    if wanted is None:
        yield "pulses", f"expected none, because {each.protocol} is not decoy-state BB84"
    elif len(intensities) != wanted or len(probabilities) != wanted:
        yield "pulses", f"expected {wanted} intensities and probabilities for {each.protocol}"
    if any(a <= b for a, b in pairwise(intensities)):
        yield "pulses", "expected intensities that fall strictly, the signal first"
    if abs(sum(probabilities) - 1) > 1e-9:
        yield "pulses", f"expected probabilities that sum to 1, found {sum(probabilities):.6g}"


def _faults_of_curve(each: Profile) -> Iterator[tuple[str, str]]:
    if each.measured is None:
        return
    if any(a.loss_db >= b.loss_db for a, b in pairwise(each.measured.points)):
        yield "measured", "expected points at strictly rising loss_db"


@cache
def _shipped() -> dict[str, Profile]:
    return read_profiles(_beside("profiles.yaml").read_text("utf-8"), "profiles.yaml")


@cache
def _validator() -> Any:
    return finite_validator(profile_schema())


def _beside(name: str) -> Traversable:
    return files("openqci.links.profiles").joinpath(name)
