"""Two-line elements and mean-elements messages: what is read, and what is refused with its place."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import ConfigurationError
from openqci.space.elements import (
    age_warning,
    catalogue_number,
    checksum,
    read_elements,
)
from openqci.space.orbits import ElementOrbit
from openqci.space.time_scales import utc_seconds
from tests.space.make import MICIUS_2016, MICIUS_2024, elements

LINES = MICIUS_2024.splitlines()

# The elements of 2024 as an OMM, CCSDS 502.0-B.
MESSAGE = {
    "CCSDS_OMM_VERS": "2.0",
    "OBJECT_NAME": "MICIUS",
    "OBJECT_ID": "2016-051A",
    "CENTER_NAME": "EARTH",
    "REF_FRAME": "TEME",
    "TIME_SYSTEM": "UTC",
    "MEAN_ELEMENT_THEORY": "SGP4",
    "EPOCH": "2024-01-16T03:46:35.177376",
    "MEAN_MOTION": 15.34373256,
    "ECCENTRICITY": 0.0012522,
    "INCLINATION": 97.3167,
    "RA_OF_ASC_NODE": 289.0989,
    "ARG_OF_PERICENTER": 59.2544,
    "MEAN_ANOMALY": 300.9930,
    "EPHEMERIS_TYPE": 0,
    "NORAD_CAT_ID": 41731,
    "BSTAR": 0.00034540,
    "MEAN_MOTION_DOT": 0.0001145,
    "MEAN_MOTION_DDOT": 0,
}


def as_xml(message):
    fields = "".join(f"<{key}>{value}</{key}>" for key, value in message.items())
    return f"<?xml version='1.0'?><ndm><omm><body><segment><data>{fields}</data></segment></body></omm></ndm>"


def as_kvn(message):
    units = {"MEAN_MOTION": " [rev/day]", "INCLINATION": " [deg]"}
    return "".join(f"{key:<20}= {value}{units.get(key, '')}\n" for key, value in message.items())


FORMS = {"json": json.dumps, "list": lambda message: json.dumps([message]), "xml": as_xml, "kvn": as_kvn}


def faults(text, file="some.tle"):
    with pytest.raises(ConfigurationError) as refused:
        read_elements(text, file)
    return [str(fault) for fault in refused.value.faults]


def test_two_lines_with_a_name():
    read = elements()
    assert (read.name, read.catalogue_number) == ("micius-2024-01-16", 41731)
    assert read.epoch_utc_s == pytest.approx(utc_seconds("2024-01-16T03:46:35.177Z"), abs=1e-3)
    assert (read.inclination_deg, read.raan_deg, read.eccentricity) == (97.3167, 289.0989, 0.0012522)
    assert (read.argument_of_perigee_deg, read.mean_anomaly_deg) == (59.2544, 300.9930)
    assert read.mean_motion_rev_per_day == 15.34373256
    assert read.drag_per_earth_radius == pytest.approx(3.4540e-4)


def test_a_file_of_several_with_and_without_names():
    text = MICIUS_2016 + "\n" + "\n".join(LINES[1:]) + "\n0 MICIUS AGAIN\n" + "\n".join(LINES[1:])
    assert [each.name for each in read_elements(text, "x")] == ["micius-2016-12-18", "41731", "MICIUS AGAIN"]


@pytest.mark.parametrize("form", FORMS)
def test_a_message_says_the_same_as_two_lines(form):
    read = read_elements(FORMS[form](MESSAGE), "some.omm")[0]
    assert (read.name, read.catalogue_number) == ("MICIUS", 41731)
    moments = read.epoch_utc_s + np.arange(0.0, 86_400.0, 600.0)
    ours, theirs = ElementOrbit(read).states(moments)[0], ElementOrbit(elements()).states(moments)[0]
    # Two lines hold the epoch to 0.9 ms, in which the satellite flies 7 m.
    assert np.abs(ours - theirs).max() < 0.01


@given(st.integers(0, 1), st.integers(0, 67), st.integers(0, 9))
def test_a_changed_digit_never_passes(line, column, digit):
    lines = LINES[1:]
    text = lines[line]
    changed = text[:column] + str(digit) + text[column + 1 :]
    if changed == text:
        return
    lines[line] = changed
    try:
        read_elements("\n".join(lines), "x")
    except ConfigurationError:
        return
    # A blank or a letter counts as nothing, and so does a zero in its place; a minus counts one.
    assert checksum(changed) == checksum(text)
    assert not text[column].isdigit()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a, b: (a[:-1] + "7", b), "some.tle: line 1: checksum is 7, the line adds up to 8"),
        (lambda a, b: (a, b[:-2]), "some.tle: line 2: 67 characters; expected 69"),
        (lambda a, b: (b, a), "some.tle: line 1: a second line without its first"),
        (lambda a, b: (a, ""), "some.tle: line 2: expected line 2 of two, found ''"),
        (
            lambda a, b: (a, b.replace("41731", "41713")),
            "some.tle: line 2: satellite '41713', but '41731' in",
        ),
        (
            lambda a, b: (a, b.replace("  97.3167", " 97.3167 ")),
            "some.tle: line 2: a column is shifted or holds no number",
        ),
    ],
)
def test_bad_lines_are_refused_with_their_place(change, said):
    first, second = change(*LINES[1:])
    assert said in " | ".join(faults(f"{first}\n{second}\n"))


def test_an_inclination_that_no_orbit_has():
    second = LINES[2].replace(" 97.3167", "197.3167")
    second = second[:68] + checksum(second)
    assert "inclination 197.317; expected from 0 to 180" in faults(f"{LINES[1]}\n{second}")[0]


def test_all_faults_of_a_file_are_told():
    text = "\n".join([LINES[1][:-1] + "0", LINES[2][:-1] + "9", *LINES[1:], "1 too short"])
    assert len(faults(text)) == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no orbital elements in it; expected two lines of 69 characters"),
        ("hello\nworld\n", "no orbital elements in it"),
        ("{not json", "not valid JSON"),
        ("[1, 2]", "expected an object or a list of objects"),
        ("<ndm><omm>", "not valid XML"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]><ndm/>", "a document type is not allowed here"),
        ("<ndm/>", "no orbital elements in it"),
    ],
)
def test_what_holds_no_elements_is_refused(text, said):
    assert said in faults(text)[0]


@pytest.mark.parametrize(
    ("keyword", "value", "said"),
    [
        ("MEAN_MOTION", "fast", "[0].MEAN_MOTION: expected a number from 0.05 to 20, found 'fast'"),
        ("ECCENTRICITY", 1.0, "[0].ECCENTRICITY: expected a number from 0 to 0.999999, found 1.0"),
        ("INCLINATION", None, "[0].INCLINATION: missing; expected it in an OMM for SGP4"),
        ("EPOCH", "yesterday", "[0].EPOCH: time 'yesterday'; expected a day as"),
        ("MEAN_ELEMENT_THEORY", "DSST", "[0].MEAN_ELEMENT_THEORY: expected SGP4, found 'DSST'"),
        ("TIME_SYSTEM", "TAI", "[0].TIME_SYSTEM: expected UTC, found 'TAI'"),
        ("BSTAR", True, "[0].BSTAR: expected a number from -10 to 10, found True"),
    ],
)
def test_a_bad_message_is_refused_with_its_field(keyword, value, said):
    assert said in faults(json.dumps(MESSAGE | {keyword: value}), "x.json")[0].removeprefix("x.json: ")


def test_old_elements_are_told():
    epoch = elements().epoch_utc_s
    assert age_warning(elements(), epoch, epoch + 7 * 86_400) == ""
    said = age_warning(elements(), epoch + 300 * 86_400, epoch + 330 * 86_400)
    assert "of 2024-01-16T03:46:35Z and are used up to 330 days from then" in said
    assert age_warning(elements(), epoch - 20 * 86_400, epoch) != ""


def test_alpha_5_leaves_out_what_looks_like_one_and_nought():
    assert [catalogue_number(each) for each in ("00005", "E8493", "J0000", "P0000")] == [
        5,
        148493,
        180000,
        230000,
    ]
