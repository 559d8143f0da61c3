"""Orbital elements as they are published: two lines (TLE) or an orbit mean-elements message (OMM).

Both hold mean elements of the theory SGP4 and mean nothing to any other. Reading is strict: a checksum that
does not hold, columns that are shifted, a number that is none are refused with file and line, because a
satellite of wrong elements still has passes, only wrong ones.

>>> text = '''micius
... 1 41731U 16051A   24016.15735159  .00011450  00000-0  34540-3 0  9998
... 2 41731  97.3167 289.0989 0012522  59.2544 300.9930 15.34373256413200'''
>>> elements = read_elements(text, "micius.tle")[0]
>>> elements.name, elements.catalogue_number, round(elements.perigee_altitude_km)
('micius', 41731, 454)

Elements age: a kilometre of error at the epoch, some kilometres a day in low orbits.
:func:`age_warning` says so in words. Read :mod:`openqci.space.orbits` next.
"""

import json
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from openqci.core.errors import ConfigurationError, Fault
from openqci.space.time_scales import DAY_S, EPOCH_JULIAN_DAY, utc_seconds, utc_text

AGE_DAYS_WARN = 14.0
"""From here on a low orbit may be minutes early or late at a station."""

FILE_CHARACTERS_MAX = 16 * 2**20
SATELLITES_MAX = 100_000

EARTH_RADIUS_KM = 6378.135
GRAVITY_KM3_S2 = 398_600.8
"""WGS 72, the constants to which published elements are fitted."""

FIFTY_JULIAN_DAY = 2_433_281.5
"""1949-12-31, 0 h: where the compiled SGP4 counts from."""


@dataclass(frozen=True)
class MeanElements:
    """Mean elements of SGP4, as published.

    Parameters
    ----------
    name : str
    catalogue_number : int
        Of the NORAD catalogue.
    epoch_utc_s : float
        See :mod:`openqci.space.time_scales`.
    inclination_deg, raan_deg, argument_of_perigee_deg, mean_anomaly_deg : float
        RAAN is the right ascension of the ascending node.
    eccentricity : float
    mean_motion_rev_per_day : float
    drag_per_earth_radius : float
        B* of SGP4.
    lines : tuple of str
        The two lines where they came so; they are propagated as they are.
    """

    name: str
    catalogue_number: int
    epoch_utc_s: float
    inclination_deg: float
    raan_deg: float
    eccentricity: float
    argument_of_perigee_deg: float
    mean_anomaly_deg: float
    mean_motion_rev_per_day: float
    drag_per_earth_radius: float = 0.0
    lines: tuple[str, str] | None = None

    @property
    def semi_major_axis_km(self) -> float:
        """From the mean motion by Kepler's third law."""
        turn_rad_s = self.mean_motion_rev_per_day * 2 * math.pi / DAY_S
        return float((GRAVITY_KM3_S2 / turn_rad_s**2) ** (1 / 3))

    @property
    def perigee_altitude_km(self) -> float:
        """Above the equator's radius."""
        return self.semi_major_axis_km * (1 - self.eccentricity) - EARTH_RADIUS_KM

    def age_days(self, utc_s: float) -> float:
        """Return how old they are at a moment; negative before their epoch."""
        return (utc_s - self.epoch_utc_s) / DAY_S


def age_warning(elements: MeanElements, from_utc_s: float, to_utc_s: float) -> str:
    """Return a warning if elements are used far from their epoch; empty if they are not."""
    oldest_days = max(abs(elements.age_days(from_utc_s)), abs(elements.age_days(to_utc_s)))
    if oldest_days <= AGE_DAYS_WARN:
        return ""
    return (
        f"elements of {elements.name} are of {utc_text(elements.epoch_utc_s)} and are used up to "
        f"{oldest_days:.0f} days from then: passes of a low orbit shift by minutes; take newer elements"
    )


def read_elements(text: str, file: str) -> list[MeanElements]:
    """Return all element sets of a text: TLE with or without names, or OMM as JSON, XML or KVN.

    Raises
    ------
    ConfigurationError
        Lists every fault with file and line or field.
    """
    if len(text) > FILE_CHARACTERS_MAX:
        raise ConfigurationError(Fault(file, "", f"expected at most {FILE_CHARACTERS_MAX} characters"))
    start = text.lstrip()[:1]
    reader = {"{": omm_of_json, "[": omm_of_json, "<": omm_of_xml}.get(start)
    if reader is None and re.search(r"^\s*CCSDS_OMM_VERS\s*=", text, re.M):
        reader = omm_of_kvn
    found, faults = gather(reader(text, file), file) if reader else tle_sets(text, file)
    if faults:
        raise ConfigurationError(*faults)
    if not found:
        expected = "expected two lines of 69 characters per satellite, or an OMM"
        raise ConfigurationError(Fault(file, "", f"no orbital elements in it; {expected}"))
    if len(found) > SATELLITES_MAX:
        raise ConfigurationError(Fault(file, "", f"expected at most {SATELLITES_MAX} satellites"))
    return found


# Two lines


def tle_sets(text: str, file: str) -> tuple[list[MeanElements], list[Fault]]:
    """Return the element sets of two-line texts, and every fault."""
    found: list[MeanElements] = []
    faults: list[Fault] = []
    lines = [(number, line.rstrip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    name, at = "", 0
    while at < len(lines):
        number, line = lines[at]
        if not line.startswith("1 "):
            if line.startswith("2 "):
                faults.append(Fault(file, f"line {number}", "a second line without its first"))
            name = line.removeprefix("0 ").strip()
            at += 1
            continue
        second_number, second = lines[at + 1] if at + 1 < len(lines) else (number + 1, "")
        wrong = [*line_faults(line, "1", file, number), *line_faults(second, "2", file, second_number)]
        if not wrong and line[2:7] != second[2:7]:
            message = f"satellite {second[2:7]!r}, but {line[2:7]!r} in the line before"
            wrong = [Fault(file, f"line {second_number}", message)]
        elements = None if wrong else of_lines(line, second, name)
        if elements is not None:
            wrong = list(range_faults(elements, file, second_number))
        if elements is None or wrong:
            faults.extend(wrong)
        else:
            found.append(elements)
        name, at = "", at + (2 if second.startswith("2 ") else 1)
    return found, faults


COLUMNS = {
    "1": r"1 [0-9A-Z ][0-9 ]{4}[A-Z ] .{8} [0-9 ]{2}[0-9 ]{3}\.[0-9]{8} [-+ ]\.[0-9]{8} "
    r"[-+ ][0-9 ]{5}[-+ ][0-9] [-+ ][0-9 ]{5}[-+ ][0-9] [0-9 ] [0-9 ]{4}[0-9]",
    "2": r"2 [0-9A-Z ][0-9 ]{4} [0-9 ]{3}\.[0-9]{4} [0-9 ]{3}\.[0-9]{4} [0-9 ]{7} [0-9 ]{3}\.[0-9]{4} "
    r"[0-9 ]{3}\.[0-9]{4} [0-9 ]{2}\.[0-9]{8}[0-9 ]{5}[0-9]",
}


def line_faults(line: str, kind: str, file: str, number: int) -> Iterator[Fault]:
    """Yield what is wrong with one of the two lines."""
    place = f"line {number}"
    if not line.startswith(f"{kind} "):
        yield Fault(file, place, f"expected line {kind} of two, found {line[:20]!r}")
    elif len(line) != 69:
        yield Fault(file, place, f"{len(line)} characters; expected 69")
    elif checksum(line) != line[68]:
        yield Fault(file, place, f"checksum is {line[68]}, the line adds up to {checksum(line)}")
    elif not re.fullmatch(COLUMNS[kind], line):
        yield Fault(file, place, "a column is shifted or holds no number; expected the format of CelesTrak")


def range_faults(elements: MeanElements, file: str, number: int) -> Iterator[Fault]:
    """Yield figures of the second line that no orbit has."""
    for what, value, (low, high) in (
        ("inclination", elements.inclination_deg, OMM_NUMBERS["INCLINATION"]),
        ("mean motion", elements.mean_motion_rev_per_day, OMM_NUMBERS["MEAN_MOTION"]),
    ):
        if not low <= value <= high:
            yield Fault(file, f"line {number}", f"{what} {value:g}; expected from {low:g} to {high:g}")


def checksum(line: str) -> str:
    """Return the sum of the digits of the first 68 characters, a minus counting one, modulo ten."""
    body = line[:68]
    return str((sum(int(each) for each in body if each.isdigit()) + body.count("-")) % 10)


def of_lines(line1: str, line2: str, name: str) -> MeanElements:
    """Return the elements of two good lines."""
    catalogue = line1[2:7].strip()
    year = int(line1[18:20])
    year += 2000 if year < 57 else 1900
    first_of_january = utc_seconds(f"{year}-01-01")
    mantissa, exponent = line1[53:59].replace(" ", ""), int(line1[59:61])
    sign = -1.0 if mantissa.startswith("-") else 1.0
    digits = mantissa.lstrip("+-") or "0"
    return MeanElements(
        name=name or catalogue,
        catalogue_number=catalogue_number(catalogue),
        epoch_utc_s=first_of_january + (float(line1[20:32]) - 1) * DAY_S,
        inclination_deg=float(line2[8:16]),
        raan_deg=float(line2[17:25]),
        eccentricity=float("0." + line2[26:33].replace(" ", "0")),
        argument_of_perigee_deg=float(line2[34:42]),
        mean_anomaly_deg=float(line2[43:51]),
        mean_motion_rev_per_day=float(line2[52:63]),
        drag_per_earth_radius=sign * float(f"0.{digits}e{exponent}"),
        lines=(line1, line2),
    )


def catalogue_number(text: str) -> int:
    """Return a number of the catalogue; a letter in front stands for ten thousands (Alpha-5, without I, O).

    >>> catalogue_number("41731"), catalogue_number("A0000"), catalogue_number("Z9999")
    (41731, 100000, 339999)
    """
    if text[:1].isalpha():
        return (10 + "ABCDEFGHJKLMNPQRSTUVWXYZ".index(text[0])) * 10_000 + int(text[1:])
    return int(text or 0)


# Orbit mean-elements messages (CCSDS 502.0-B)

OMM_NUMBERS = {
    "MEAN_MOTION": (0.05, 20.0),
    "ECCENTRICITY": (0.0, 0.999999),
    "INCLINATION": (0.0, 180.0),
    "RA_OF_ASC_NODE": (-360.0, 360.0),
    "ARG_OF_PERICENTER": (-360.0, 360.0),
    "MEAN_ANOMALY": (-360.0, 360.0),
    "BSTAR": (-10.0, 10.0),
}
OMM_KEYWORDS = (*OMM_NUMBERS, "EPOCH")

Message = tuple[str, Mapping[str, Any]]
"""Where a message stands in its file, and its keywords."""


def omm_of_json(text: str, file: str) -> list[Message]:
    """Return the messages of JSON: one object, or a list of them."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(Fault(file, "", f"not valid JSON: {str(error)[:80]}")) from error
    listed = content if isinstance(content, list) else [content]
    if not all(isinstance(each, dict) for each in listed):
        raise ConfigurationError(
            Fault(file, "", "expected an object or a list of objects, one per satellite")
        )
    return [(f"[{place}]", each) for place, each in enumerate(listed)]


def omm_of_xml(text: str, file: str) -> list[Message]:
    """Return the messages of XML: every segment of an OMM or of an NDM."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ConfigurationError(Fault(file, "", "a document type is not allowed here; expected a plain OMM"))
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ConfigurationError(Fault(file, "", f"not valid XML: {error}")) from error
    segments = root.findall(".//segment")
    return [
        (f"segment {place}", {each.tag: (each.text or "").strip() for each in segment.iter()})
        for place, segment in enumerate(segments, 1)
    ]


def omm_of_kvn(text: str, file: str) -> list[Message]:
    """Return the messages of keyword = value lines; each begins with its version."""
    messages: list[Message] = []
    for number, line in enumerate(text.splitlines(), 1):
        keyword, equals, value = line.partition("=")
        keyword = keyword.strip()
        if not equals or keyword.startswith("COMMENT"):
            continue
        if keyword == "CCSDS_OMM_VERS":
            messages.append((f"message at line {number}", {}))
        if messages:
            messages[-1][1][keyword] = value.split("[")[0].strip()  # type: ignore[index]
    return messages


def gather(messages: list[Message], file: str) -> tuple[list[MeanElements], list[Fault]]:
    """Return the elements of messages, and every fault."""
    found: list[MeanElements] = []
    faults: list[Fault] = []
    for place, message in messages:
        wrong = list(message_faults(message, file, place))
        faults.extend(wrong)
        if not wrong:
            found.append(of_message(message))
    return found, faults


def message_faults(message: Mapping[str, Any], file: str, place: str) -> Iterator[Fault]:
    """Yield what is wrong with a message."""
    for keyword in OMM_KEYWORDS:
        if message.get(keyword) in (None, ""):
            yield Fault(file, f"{place}.{keyword}", "missing; expected it in an OMM for SGP4")
    for keyword, (low, high) in OMM_NUMBERS.items():
        value = message.get(keyword)
        if value in (None, ""):
            continue
        number = as_number(value)
        if not low <= number <= high:
            wanted = f"expected a number from {low:g} to {high:g}, found {value!r}"
            yield Fault(file, f"{place}.{keyword}", wanted)
    for keyword, known in (("MEAN_ELEMENT_THEORY", ("SGP4", "SGP/SGP4")), ("TIME_SYSTEM", ("UTC",))):
        value = str(message.get(keyword, known[0])).strip()
        if value not in known:
            yield Fault(file, f"{place}.{keyword}", f"expected {known[0]}, found {value!r}")
    if message.get("EPOCH"):
        try:
            utc_seconds(str(message["EPOCH"]))
        except ConfigurationError as error:
            yield Fault(file, f"{place}.EPOCH", str(error))


def as_number(value: object) -> float:
    """Return a number of a message, NaN for what is none."""
    if isinstance(value, bool):
        return math.nan
    try:
        return float(str(value))
    except ValueError:
        return math.nan


def of_message(message: Mapping[str, Any]) -> MeanElements:
    """Return the elements of a good message."""
    number = as_number(message.get("NORAD_CAT_ID") or 0)
    return MeanElements(
        name=str(message.get("OBJECT_NAME") or message.get("OBJECT_ID") or "").strip() or "unnamed",
        catalogue_number=int(number) if math.isfinite(number) else 0,
        epoch_utc_s=utc_seconds(str(message["EPOCH"])),
        inclination_deg=as_number(message["INCLINATION"]),
        raan_deg=as_number(message["RA_OF_ASC_NODE"]),
        eccentricity=as_number(message["ECCENTRICITY"]),
        argument_of_perigee_deg=as_number(message["ARG_OF_PERICENTER"]),
        mean_anomaly_deg=as_number(message["MEAN_ANOMALY"]),
        mean_motion_rev_per_day=as_number(message["MEAN_MOTION"]),
        drag_per_earth_radius=as_number(message["BSTAR"]),
    )


def days_since_1950(epoch_utc_s: float) -> float:
    """Return the epoch as the compiled SGP4 takes it."""
    return epoch_utc_s / DAY_S + (EPOCH_JULIAN_DAY - FIFTY_JULIAN_DAY)
