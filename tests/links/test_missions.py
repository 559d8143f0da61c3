"""Missions as data: the shipped ones are whole, every figure has its source, bad files are refused."""

import json
import re
from copy import deepcopy
from importlib.resources import files

import pytest
import yaml

from openqci.core.errors import ConfigurationError
from openqci.links.budget import SpaceLink
from openqci.links.ground import ground_station
from openqci.links.missions import (
    ASSUMED,
    mission,
    mission_ids,
    mission_schema,
    proofs_for,
    read_mission,
)
from openqci.space import utc_seconds

DESIGNS = [design for each in mission_ids() for design in mission(each).designs]
EPOCH = utc_seconds("2027-03-20")


def text_of(mission_id: str) -> str:
    return files("openqci.links.missions").joinpath(f"{mission_id}.yaml").read_text("utf-8")


def faults_of(change, mission_id="eagle-1"):
    content = yaml.safe_load(text_of(mission_id))
    change(content)
    with pytest.raises(ConfigurationError) as refused:
        read_mission(yaml.safe_dump(content, sort_keys=False), "own.yaml")
    return " | ".join(str(fault) for fault in refused.value.faults)


def test_the_missions_of_the_programme_are_shipped():
    wanted = {"eagle-1", "micius", "jinan-1", "microsat-pilot", "constellation-first", "iris2-hosted"}
    assert set(mission_ids()) == wanted
    assert len(mission("microsat-pilot").designs) == 3
    assert len(mission("constellation-first").designs) >= 3


@pytest.mark.parametrize("mission_id", mission_ids())
def test_every_figure_has_a_source_and_a_confidence(mission_id):
    shipped = mission(mission_id)
    figures = re.findall(r"\bvalue: ", text_of(mission_id))
    assert len(shipped.provenance) == len(figures) > 30
    for each in shipped.provenance:
        assert each.source in {*shipped.sources, ASSUMED}
        assert each.confidence in ("high", "medium", "low")
        # What is assumed is not sure.
        assert each.source != ASSUMED or each.confidence != "high", each.path
    named = {each.source for each in shipped.provenance} | set(
        re.findall(r"elements_source: (\S+)", text_of(mission_id))
    )
    assert set(shipped.sources) <= named | {
        "eagle_arxiv",
        "eagle_dlr",
        "yin_2017",
        "qube2",
        "esa_saga",
        "iris2",
    }


@pytest.mark.parametrize("mission_id", mission_ids())
def test_no_bare_number_stands_in_a_mission(mission_id):
    """Every number is inside a figure, but for the version."""

    def numbers(value, inside=False):
        if isinstance(value, dict):
            figure = "value" in value and "confidence" in value
            for name, each in value.items():
                yield from numbers(each, inside or (figure and name == "value"))
        elif isinstance(value, list):
            for each in value:
                yield from numbers(each, inside)
        elif isinstance(value, int | float) and not inside and not isinstance(value, bool):
            yield value

    assert list(numbers(yaml.safe_load(text_of(mission_id)))) == [1]


@pytest.mark.parametrize("design", DESIGNS, ids=lambda design: design.name)
def test_every_design_flies_and_has_a_link(design):
    orbits = design.orbits(EPOCH)
    assert len({orbit.name for orbit in orbits}) == len(orbits) == design.orbit.satellites
    of = mission(design.mission_id)
    for site in design.sites:
        link = SpaceLink(design, ground_station(site, of))
        budget = link.at([90.0, design.operation.elevation_min_deg], [500.0, 1500.0])
        assert (budget.total_db > 10).all() and (budget.total_db < 80).all()
    assert design.operation.proof in proofs_for(design.payload.protocol)


def test_orbits_of_the_designs():
    six = mission("constellation-first").design("sso-6").orbits(EPOCH)
    assert [orbit.name for orbit in six][::3] == ["constellation-first-1-1", "constellation-first-2-1"]
    # Planes at 21:00 and 0:00: 45 deg apart.
    assert (six[3].raan_deg - six[0].raan_deg) % 360 == pytest.approx(45.0)
    assert len({orbit.mean_anomaly_deg for orbit in six}) == 6
    assert mission("micius").design().orbits(EPOCH)[0].elements.catalogue_number == 41731


def test_every_field_of_the_schema_is_described_with_its_unit():
    units = {"km": "km", "m": "m", "deg": "degrees", "nm": "nm", "db": "dB", "hz": "Hz", "s": "s", "kg": "kg"}

    def walk(name, node):
        assert node.get("description"), name
        if node.get("type") == "object" and "value" not in node["properties"]:
            assert node["additionalProperties"] is False
        value = node.get("properties", {}).get("value")
        if value is not None:
            # A magnitude at a distance is no distance.
            unit = None if "magnitude" in name else units.get(name.rsplit("_", 1)[-1])
            assert unit is None or value.get("unit", unit) == unit, name
            assert value.get("type") != "number" or {"minimum", "exclusiveMinimum"} & set(value)
        for inner, child in node.get("properties", {}).items():
            walk(inner, child)
        if "items" in node:
            walk(name, node["items"])

    walk("mission", mission_schema())


def test_a_mission_of_ones_own_reads_as_the_shipped_one():
    own = read_mission(text_of("micius"), "own.yaml")
    assert own == mission("micius")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda m: m["payloads"][0]["jitter_urad"].update(value=-1),
            "jitter_urad.value: expected a finite number",
        ),
        (lambda m: m["payloads"][0]["jitter_urad"].pop("source"), "jitter_urad.source: missing"),
        (
            lambda m: m["payloads"][0]["jitter_urad"].update(source="hearsay"),
            "source 'hearsay' is not in this file",
        ),
        (lambda m: m["payloads"][0].update(colour="red"), "payloads[0].colour: unknown field"),
        (lambda m: m["payloads"][0].update(jitter_urad=2.0), "payloads[0].jitter_urad: expected a mapping"),
        (
            lambda m: m["payloads"][0]["wavelength_nm"].update(value=1064.0),
            "wavelength_nm = 1064.0 is outside",
        ),
        (
            lambda m: m["payloads"][0].update(
                full_angle_1e2_urad={"value": 10.0, "source": "assumed", "confidence": "low"}
            ),
            "2 beams; expected one of waist_m, full_angle_1e2_urad",
        ),
        (
            lambda m: m["payloads"][0].pop("clock_rate_hz"),
            "clock_rate_hz: missing; expected it for bb84-decoy1",
        ),
        (
            lambda m: m["payloads"][0]["probabilities"].update(value=[0.5, 0.6]),
            "values that sum to 1, found 1.1",
        ),
        (lambda m: m["payloads"][0]["intensities"].update(value=[0.1, 0.4]), "values that fall strictly"),
        (
            lambda m: m["orbits"][0].pop("local_time_h"),
            "local_time_h: missing; expected it for an orbit of kind",
        ),
        (
            lambda m: m["stations"][0].pop("adaptive_modes"),
            "adaptive_modes: missing; expected it for reception",
        ),
        (
            lambda m: m["designs"][0].update(orbit="sso-5000"),
            "no orbit 'sso-5000' in this file; expected one of sso-500",
        ),
        (lambda m: m["operations"][0].update(proof="lim-2014"), "proof 'lim-2014' is not for bb84-decoy1"),
        (lambda m: m["designs"].append(deepcopy(m["designs"][0])), "reference is used twice"),
        (lambda m: m.update(version=2), "version: expected 1"),
    ],
)
def test_a_bad_mission_is_refused_with_field_and_what_was_expected(change, said):
    found = faults_of(change)
    assert said in found
    assert found.startswith("own.yaml:")


def test_bad_elements_in_a_mission():
    def spoil(content):
        content["orbits"][0]["lines"][0] = content["orbits"][0]["lines"][0][:-1] + "0"

    assert "orbits[0].lines: line 2: checksum" in faults_of(spoil, "micius").replace("line 1", "line 2")


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(
        ConfigurationError, match=r"unknown mission 'eagle-2'; expected one of eagle-1, micius"
    ):
        mission("eagle-2")
    with pytest.raises(ConfigurationError, match="no design 'x'; expected one of reference, daylight"):
        mission("eagle-1").design("x")
    with pytest.raises(ConfigurationError, match="no ground station 'ogs-moon'; expected one of"):
        ground_station("ogs-moon")


def test_the_schema_is_json_and_says_its_version():
    schema = mission_schema()
    assert json.loads(json.dumps(schema)) == schema
    assert schema["$id"] == "https://openqci.eu/schemas/missions/1/mission.schema.json"
