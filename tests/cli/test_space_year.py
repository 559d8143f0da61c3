"""``openqci space year`` as a user runs it."""

import json

import pytest

from openqci.cli.main import main

MONTHS = ("--mission", "eagle-1", "--site", "ogs-stockholm", "--site", "ogs-limassol", "--from", "2027-04-15")


def told(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    """Run ``openqci space year`` and return what it prints."""
    assert main(["space", "year", *words]) == code
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run ``openqci space year`` with bad input and return its error."""
    assert main(["space", "year", *words]) == 2
    return capsys.readouterr().err


def test_a_northern_summer_under_one_weather(capsys):
    words = (*MONTHS, "--days", "90", "--scenario", "eu27", "--replan-days", "3", "--seed", "5")
    found = json.loads(told(capsys, *words, "--json"))
    sites = {each["site"]: each for each in found["by_site"]}
    north, south = sites["ogs-stockholm"], sites["ogs-limassol"]
    assert found["contacts_possible"] >= found["contacts_served"] > found["contacts_clear"] > 0
    assert found["key_bits"] == pytest.approx(sum(each["key_bits"] for each in sites.values()), abs=3)
    # Around midsummer Stockholm is never dark enough; Cyprus is, and has fewer clouds.
    assert north["longest_gap_days"] > 20 > south["longest_gap_days"]
    assert north["days_without_key"] > south["days_without_key"]
    states = {each["state"]: each for each in found["by_state"]}
    assert set(states) == {"SE", "CY"} and 0 < states["CY"]["demand_met"] < 0.05
    assert states["CY"]["used_bits"] + states["CY"]["stock_bits_at_end"] == pytest.approx(
        states["CY"]["received_bits"], abs=2
    )
    assert states["SE"]["steady_bits_per_s"] is None, "ninety days tell no year"


def test_one_seed_one_year_and_a_table(capsys):
    words = (*MONTHS, "--days", "10", "--replan-days", "5")
    one, two, other = (
        json.loads(told(capsys, *words, "--seed", seed, "--json"))["key_bits"] for seed in ("1", "1", "2")
    )
    assert one == two != other
    text = told(capsys, *words)
    assert "weather of seed 1" in text and "days without" in text and "ogs-limassol" in text


def test_a_time_in_which_all_was_clouded_is_a_negative_result(capsys):
    words = ("--mission", "micius", "--from", "2016-12-19", "--days", "3", "--cloud-probability", "1")
    found = json.loads(told(capsys, *words, "--json", code=1))
    assert found["key_bits"] == 0 and found["contacts_possible"] > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*MONTHS, "--seed", "-1"), "--seed -1; expected 0 or more"),
        ((*MONTHS, "--replan-days", "0"), "--replan-days 0; expected 0.1 to 30"),
        ((*MONTHS, "--days", "5000"), "--days 5000; expected above 0, at most 3660"),
        (
            ("--mission", "eagle-1", "--site", "ogs-kangerlussuaq", "--from", "2027-06-15", "--days", "3"),
            "no feasible contact",
        ),
    ],
)
def test_bad_input_is_one_clear_line(capsys, words, said):
    assert said in refused(capsys, *words)
