"""``openqci space plan`` as a user runs it."""

import itertools
import json

import pytest

from openqci.cli.main import main

WEEK = ("--mission", "eagle-1", "--from", "2027-03-20", "--days", "7")


def told(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    """Run ``openqci space plan`` and return what it prints."""
    assert main(["space", "plan", *words]) == code
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run ``openqci space plan`` with bad input and return its error."""
    assert main(["space", "plan", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err


@pytest.fixture(scope="module")
def europe(tmp_path_factory):
    """Three days of six satellites over all stations, as JSON."""
    import contextlib
    import io

    printed = io.StringIO()
    words = (
        "--mission",
        "constellation-first:sso-6",
        "--scenario",
        "eu27",
        "--from",
        "2027-06-15",
        "--days",
        "3",
    )
    with contextlib.redirect_stdout(printed):
        assert main(["space", "plan", *words, "--weather", "--json"]) == 0
    return json.loads(printed.getvalue())


def test_a_week_of_one_satellite(capsys):
    found = json.loads(told(capsys, *WEEK, "--json"))
    assert found["gap"] == pytest.approx(0.0, abs=1e-4) and found["value"] <= found["bound"] * (1 + 1e-9)
    assert 5 < found["contacts_served"] < found["contacts_possible"]
    assert {each["state"] for each in found["states"]} == {"DE", "NL"}
    assert sum(each["expected_key_bits"] for each in found["states"]) == pytest.approx(
        found["expected_key_bits"], abs=3
    )
    chosen = found["contacts"]
    assert all(a["stop"] < b["start"] for a, b in itertools.pairwise(chosen))
    text = told(capsys, *WEEK)
    assert "no plan above" in text and "gap 0.00 %" in text and "ogs-noordwijk" in text


def test_europe_is_within_two_per_cent_of_the_bound(europe):
    assert europe["gap"] < 0.02 and europe["contacts_possible"] > 700
    states = {each["state"]: each for each in europe["states"]}
    # Nearly every state with a possible contact is served, if little.
    possible = [each for each in states.values() if each["contacts_possible"]]
    assert sum(each["contacts_served"] > 0 for each in possible) >= 0.9 * len(possible)
    assert states["IE"]["share_of_demand_by_level"]["1"] > 0
    assert states["PF"]["share_of_demand_by_level"] == {"3": 1.0, "4": 1.0}
    assert "AW" in europe["states_without_station"]


def test_a_midsummer_without_darkness_is_said(europe):
    assert "never dark enough" in europe["without_contact"]["ogs-kangerlussuaq"]


def test_no_contact_at_once_with_another(europe):
    by_satellite: dict[str, list[tuple[str, str]]] = {}
    for each in europe["contacts"]:
        by_satellite.setdefault(each["satellite"], []).append((each["start"], each["stop"]))
    for spans in by_satellite.values():
        assert all(a[1] < b[0] for a, b in itertools.pairwise(sorted(spans)))


def test_drawn_weather_is_told(europe):
    drawn = europe["under_drawn_weather"]
    assert drawn["kept_bits"] > 0 and drawn["replanned_bits"] > 0


def test_planning_for_drawn_weathers_and_another_fairness(capsys):
    words = ("--mission", "eagle-1", "--from", "2027-03-20", "--days", "3", "--json")
    one = json.loads(told(capsys, *words, "--weathers", "8", "--seed", "3"))
    again = json.loads(told(capsys, *words, "--weathers", "8", "--seed", "3"))
    assert one == again and one["gap"] < 1e-6
    total = json.loads(told(capsys, *words, "--fairness", "total"))
    fair = json.loads(told(capsys, *words, "--fairness", "max-min"))
    assert total["expected_key_bits"] >= fair["expected_key_bits"]


def test_a_plan_without_feasible_contacts_names_every_station(capsys):
    north = ("--mission", "eagle-1", "--from", "2027-06-15", "--days", "3", "--site", "ogs-kangerlussuaq")
    said = refused(capsys, *north)
    assert (
        "no feasible contact of eagle-1:reference in this time: ogs-kangerlussuaq no pass may be credited"
        in said
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*WEEK, "--scenario", "atlantis"), "expected a folder or one of"),
        ((*WEEK, "--scenario", "metro"), "scenario metro has no ground station"),
        ((*WEEK, "--slew-s", "-1"), "slew_s = -1"),
        ((*WEEK, "--store-bits", "nan"), "store_bits = nan"),
        ((*WEEK, "--weathers", "65"), "--weathers 65; expected 0 to 64"),
        ((*WEEK, "--seed", "-1"), "--seed -1; expected 0 or more"),
        ((*WEEK, "--cloud-probability", "2"), "--cloud-probability 2; expected 0 to 1"),
        (("--mission", "micius:pairs-2020", "--from", "2016-12-19"), "expected a decoy-state design"),
        (("--mission", "micius", "--from", "2016-12-19", "--scenario", "./nowhere"), "no such scenario"),
        (("--mission", "micius", "--from", "2016-12-19"), "no cloud climate of xinglong, delingha, nanshan"),
    ],
)
def test_bad_input_is_one_clear_line(capsys, words, said):
    assert said in refused(capsys, *words)


def test_stations_without_a_climate_may_be_given_one(capsys):
    words = (
        "--mission",
        "micius",
        "--from",
        "2016-12-19",
        "--days",
        "3",
        "--cloud-probability",
        "0.3",
        "--json",
    )
    found = json.loads(told(capsys, *words))
    assert {each["state"] for each in found["states"]} == {"xinglong", "delingha", "nanshan"}
    assert found["contacts_served"] > 0 and {each["clear_chance"] for each in found["contacts"]} <= {0.7}
