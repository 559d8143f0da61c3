"""``openqci space validate`` as a user runs it."""

import json

import pytest

from openqci.cli.main import main


@pytest.fixture
def example(tmp_path, capsys):
    file = tmp_path / "pass.json"
    assert main(["space", "validate", "--write-example", str(file)]) == 0
    assert "a simulated pass" in capsys.readouterr().out
    return file


def test_the_example_agrees_and_says_that_it_is_simulated(capsys, example):
    assert main(["space", "validate", "--recorded", str(example)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("SIMULATED pass of microsat-pilot:class-23kg over ogs-helmos")
    assert "the payload agrees with its model at a significance of 0.01 for all four tests" in text
    assert main(["space", "validate", "--recorded", str(example), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["meets_model"] is True and found["simulated"] is True and len(found["tests"]) == 4
    assert found["deficit_db_found_nine_times_in_ten"] > 3


def test_a_payload_that_falls_short_ends_with_1(capsys, example):
    record = json.loads(example.read_text())
    record["sifted_bits"] = [bits // 5 for bits in record["sifted_bits"]]
    record["errors"] = [wrong // 5 for wrong in record["errors"]]
    example.write_text(json.dumps(record))
    assert main(["space", "validate", "--recorded", str(example)]) == 1
    text = capsys.readouterr().out
    assert "does NOT agree" in text and "light" in text and "  fails" in text
    # Who allows the model three decibels cannot say so any more.
    assert main(["space", "validate", "--recorded", str(example), "--light-db", "4"]) == 0


def test_the_schema_is_printed(capsys):
    assert main(["space", "validate", "--schema"]) == 0
    assert (
        json.loads(capsys.readouterr().out)["title"] == "A recorded pass of a satellite over a ground station"
    )


def test_bad_input_is_one_clear_line(capsys, example, tmp_path):
    def refused(*words: str) -> str:
        assert main(["space", "validate", *words]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        return printed.err

    assert "cannot be read" in refused("--recorded", str(tmp_path / "none.json"))
    assert "significance = 0.7" in refused("--recorded", str(example), "--significance", "0.7")
    assert "light_db = -1" in refused("--recorded", str(example), "--light-db", "-1")
    record = json.loads(example.read_text())
    for name, value, said in (
        ("mission", "eagle-2", "unknown mission 'eagle-2'"),
        ("site", "x", "no ground station 'x'"),
        ("utc", record["utc"][:-1], "entries; expected 56"),
    ):
        example.write_text(json.dumps({**record, name: value}))
        assert said in refused("--recorded", str(example))
