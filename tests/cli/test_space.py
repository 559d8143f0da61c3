"""``openqci space`` as a user runs it: passes, budgets, keys, and one clear line for every bad input."""

import json
from importlib.resources import files

import pytest

from openqci.cli.main import main

TWO_NIGHTS = ("--mission", "eagle-1", "--site", "ogs-helmos", "--from", "2027-03-20", "--days", "2")


def told(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    """Run ``openqci space`` and return what it prints."""
    assert main(["space", *words]) == code
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run ``openqci space`` with bad input and return its error."""
    assert main(["space", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err


# Golden: the output of the how-to, docs/howto/fly-a-mission.md.
PASSES = """\
eagle-1:reference, 2 days from 2027-03-20T00:00:00Z, above 20 deg; 91 % of its figures are assumed
rise                  satellite                 site                       s  top deg     km  Sun deg  \
light         sunlit Moon deg
2027-03-20T10:03:48Z  eagle-1                   ogs-helmos               165     25.1   1041     51.1  \
day             1.00    -40.7
2027-03-20T20:39:11Z  eagle-1                   ogs-helmos               296     80.7    512    -43.4  \
night           0.00     57.0
2027-03-21T09:44:22Z  eagle-1                   ogs-helmos               264     43.3    710     50.4  \
day             1.00    -49.6
2027-03-21T20:20:37Z  eagle-1                   ogs-helmos               281     54.6    610    -40.6  \
night           0.00     44.7
4 passes
"""


def test_passes_as_a_table(capsys):
    assert told(capsys, "passes", *TWO_NIGHTS) == PASSES


def test_passes_as_json(capsys):
    found = json.loads(told(capsys, "passes", *TWO_NIGHTS, "--json"))
    assert (found["mission"], found["design"], found["sites"]) == ("eagle-1", "reference", ["ogs-helmos"])
    assert [each["light"] for each in found["passes"]] == ["day", "night", "day", "night"]
    night = found["passes"][1]
    assert night["sunlit_share"] == 0.0 and night["whole"] is True
    assert night["culmination_deg"] == pytest.approx(80.7, abs=0.1)
    assert {"rise_azimuth_deg", "range_km_min", "range_rate_km_s_max", "moon_separation_deg"} <= set(night)


def test_passes_of_several_satellites_and_stations(capsys):
    words = ("--mission", "constellation-first:inclined-9", "--from", "2027-03-20", "--days", "0.5")
    found = json.loads(
        told(capsys, "passes", *words, "--site", "ogs-maido", "--site", "ogs-helmos", "--json")
    )
    assert {each["site"] for each in found["passes"]} == {"ogs-maido", "ogs-helmos"}
    assert len({each["satellite"] for each in found["passes"]}) > 3
    rises = [each["rise"] for each in found["passes"]]
    assert rises == sorted(rises)


def test_no_pass_is_a_negative_result_that_names_the_station(capsys, tmp_path):
    text = files("openqci.links.missions").joinpath("eagle-1.yaml").read_text("utf-8")
    text = text.replace("kind: sun-synchronous", "kind: circular", 1).replace(
        "    local_time_h: {value: 22.5",
        "    inclination_deg: {value: 1.0, source: assumed, confidence: low}\n    local_time_h: {value: 22.5",
    )
    own = tmp_path / "low.yaml"
    own.write_text(text)
    words = ("--mission", str(own), "--site", "ogs-helmos", "--from", "2027-03-20")
    assert main(["space", "passes", *words]) == 1
    printed = capsys.readouterr()
    assert "0 passes" in printed.out
    assert "ogs-helmos never sees eagle-1:reference above 20 deg in this time" in printed.err
    assert "never sees" in refused(capsys, "budget", *words)
    assert "ogs-helmos never sees a satellite so high" in told(capsys, "keys", *words, code=1)


def test_a_budget_tells_every_term(capsys, tmp_path):
    file = tmp_path / "budget.svg"
    text = told(capsys, "budget", *TWO_NIGHTS, "--step-s", "60", "--plot", str(file))
    for word in (
        "diffraction",
        "pointing",
        "turbulence",
        "atmosphere",
        "coupling",
        "optics",
        "detector",
        "total",
    ):
        assert word in text
    assert file.stat().st_size > 5000
    found = json.loads(told(capsys, "budget", *TWO_NIGHTS, "--step-s", "60", "--json"))
    terms = [name for name in found if name.endswith("_db") and name != "total_db"]
    assert len(terms) == 7 and found["key_counts"] is True
    for row, total in enumerate(found["total_db"]):
        assert sum(found[name][row] for name in terms) == pytest.approx(total, abs=0.01)
    # Golden: the zenith pass of the how-to, lowest loss 33.6 dB and 42 dB at 20 deg.
    assert min(found["total_db"]) == pytest.approx(33.6, abs=0.1)
    assert found["total_db"][0] == pytest.approx(41.9, abs=0.1)


def test_keys_per_pass_with_the_reason_where_there_is_none(capsys):
    found = json.loads(told(capsys, "keys", *TWO_NIGHTS, "--json"))
    assert found["proof"] == "rusca-2018" and len(found["rows"]) == 4
    day, night = found["rows"][:2]
    assert day["key_bits"] == 0 and day["zero_because"] == "no moment of the pass may be credited"
    assert night["key_bits"] > 1e6 and night["zero_because"] == "" and 0.01 < night["qber"] < 0.02
    assert found["key_bits"] == pytest.approx(sum(each["key_bits"] for each in found["rows"]), abs=4)
    assert "bits of key" in told(capsys, "keys", *TWO_NIGHTS)


@pytest.mark.parametrize("by", ["day", "season", "station"])
def test_keys_summed(capsys, by):
    whole = json.loads(told(capsys, "keys", *TWO_NIGHTS, "--json"))["key_bits"]
    found = json.loads(told(capsys, "keys", *TWO_NIGHTS, "--by", by, "--json"))
    assert sum(each["key_bits"] for each in found["rows"]) == pytest.approx(whole, abs=4)
    assert by in told(capsys, "keys", *TWO_NIGHTS, "--by", by)


def test_several_passes_as_one_block_give_more(capsys):
    words = ("--mission", "microsat-pilot", "--from", "2027-03-20", "--days", "10", "--json")
    one = json.loads(told(capsys, "keys", *words))["key_bits"]
    assert json.loads(told(capsys, "keys", *words, "--passes-per-block", "4"))["key_bits"] > one > 0


def test_stale_elements_are_told_on_the_standard_error(capsys):
    words = ("--mission", "micius", "--from", "2017-03-01", "--days", "1")
    main(["space", "passes", *words])
    assert "take newer elements" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["passes", "budget", "keys"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--mission", "eagle-2", "--from", "2027-03-20"), "unknown mission 'eagle-2'; expected one of"),
        (("--mission", "eagle-1:x", "--from", "2027-03-20"), "no design 'x'; expected one of reference"),
        (("--mission", "no.yaml", "--from", "2027-03-20"), "no.yaml: cannot be read"),
        (("--mission", "eagle-1", "--from", "tomorrow"), "time 'tomorrow'; expected a day as"),
        (("--mission", "eagle-1", "--from", "2027-03-20", "--days", "0"), "--days 0; expected above 0"),
        (("--mission", "eagle-1", "--from", "2027-03-20", "--days", "nan"), "--days nan; expected above 0"),
        (("--mission", "eagle-1", "--from", "2027-03-20", "--site", "x"), "no ground station 'x'"),
        (
            ("--mission", "eagle-1", "--from", "2027-03-20", "--elevation-min-deg", "2"),
            "--elevation-min-deg 2; expected 5 to 80",
        ),
    ],
)
def test_bad_input_is_one_clear_line(capsys, verb, words, said):
    found = refused(capsys, verb, *words)
    assert said in found and found.startswith("openqci: ")


def test_more_bad_input(capsys):
    assert "--step-s 0; expected 0.1 to 600" in refused(capsys, "budget", *TWO_NIGHTS, "--step-s", "0")
    assert "a name that ends in" in refused(capsys, "budget", *TWO_NIGHTS, "--plot", "x.gif")
    assert "passes_per_block = 0" in refused(capsys, "keys", *TWO_NIGHTS, "--passes-per-block", "0")
    alone = ("--mission", "micius:pairs-2020", "--from", "2016-12-19", "--days", "1", "--site", "delingha")
    assert "1 ground station for micius:pairs-2020; expected two or more" in refused(capsys, "keys", *alone)
    pairs = ("--mission", "micius:pairs-2020", "--from", "2016-12-19", "--days", "1", "--optimise")
    assert "--optimise; expected a decoy-state design" in refused(capsys, "keys", *pairs)
    both = ("--compare-blocks", "--passes-per-block", "2")
    assert "expected neither --passes-per-block" in refused(capsys, "keys", *TWO_NIGHTS, *both)


def test_keys_of_entangled_pairs_are_told_by_pair_of_stations(capsys):
    words = ("--mission", "micius:pairs-2020", "--from", "2016-12-19", "--days", "12")
    sites = ("--site", "delingha", "--site", "nanshan")
    found = json.loads(told(capsys, "keys", *words, *sites, "--passes-per-block", "20", "--json"))
    assert found["proof"] == "bbm92-finite" and found["key_bits"] > 0
    assert {each["site"] for each in found["rows"]} == {"delingha+nanshan"}
    # Ten passes of two thousand sifted bits are too few for this proof; that is said, not shown as silence.
    text = told(capsys, "keys", *words, *sites, code=1)
    assert "finite-size terms: the block is too small" in text


def test_optimised_settings_are_told_and_give_more(capsys):
    words = ("--mission", "microsat-pilot", "--site", "ogs-helmos", "--from", "2027-03-20", "--days", "5")
    as_set = json.loads(told(capsys, "keys", *words, "--json"))
    best = json.loads(told(capsys, "keys", *words, "--optimise", "--json"))
    assert as_set["settings"] is None and best["key_bits"] > 1.5 * as_set["key_bits"] > 0
    assert sum(best["settings"]["probabilities"]) == pytest.approx(1.0, abs=1e-4)
    assert "optimised for all of these passes: intensities 0." in told(capsys, "keys", *words, "--optimise")


@pytest.mark.parametrize("optimise", [(), ("--optimise",)])
def test_block_policies_side_by_side(capsys, optimise):
    words = ("--mission", "microsat-pilot", "--site", "ogs-helmos", "--from", "2027-03-20", "--days", "10")
    words = (*words, "--compare-blocks", *optimise)
    rows = json.loads(told(capsys, "keys", *words, "--json"))["rows"]
    assert [each["passes_per_block"] for each in rows] == [1, 2, 4, 8, 16]
    one, four = rows[0], rows[2]
    assert four["key_bits"] > one["key_bits"] > 0 and one["wait_days_max"] == 0 < four["wait_days_max"]
    assert four["held_bits_max"] > 2 * one["held_bits_max"]
    assert four["epsilon_per_year"] < one["epsilon_per_year"]
    assert "epsilon/year" in told(capsys, "keys", *words)
