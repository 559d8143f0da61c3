"""``openqci admission``: who gets how much, in a table and in a document, and why somebody gets less."""

import json

import pytest

from openqci.cli.main import main


def document(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict]:
    code = main(["admission", *options, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_metro_is_served_whole(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = document(capsys, "--scenario", "metro")
    assert code == 0 and told["flows"] == 3 and not told["stretched"] and not told["refused"]
    assert told["granted_bps"] == pytest.approx(told["wanted_bps"]) == pytest.approx(0.4 * 256)
    assert {row["class"]: row["whole"] for row in told["classes"]} == {
        "gov-ipsec-restricted": 1,
        "hosp-ipsec": 1,
        "dc-100g-l1": 1,
    }


def test_with_little_key_each_who_gets_less_is_told_by_which_hop(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = document(capsys, "--scenario", "metro", "--rates", "0.0002")
    assert code == 1 and told["stretched"]
    assert told["granted_bps"] < told["wanted_bps"]
    for each in told["stretched"]:
        assert each["stretch"] > 1 and each["granted_bps"] < each["wanted_bps"]
        assert each["reason"].startswith(f"hop {each['hop']}")


def test_the_whole_demand_of_europe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["admission"]) == 1
    page = capsys.readouterr().out
    assert "3241 flows" in page and "0 stretched, 226 refused" in page
    assert "no route leads from at-vienna to cy-nicosia" in page


@pytest.mark.parametrize("part", ["0", "1.5", "-1"])
def test_a_part_out_of_range_is_refused(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["admission", "--rates", part])
    assert stop.value.code == 2 and "expected above 0, at most 1" in capsys.readouterr().err
