"""``openqci space design`` as a user runs it."""

import json

import pytest

from openqci.cli.main import main

SMALL = (
    *("--mission", "microsat-pilot", "--site", "ogs-helmos", "--from", "2027-03-01", "--days", "2"),
    *("--aperture-m", "0.06", "--aperture-m", "0.1", "--jitter-urad", "2", "--clock-rate-hz", "6.25e8"),
)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run ``openqci space design`` with bad input and return its error."""
    assert main(["space", "design", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err


def test_payloads_as_a_table_a_chart_and_json(capsys, tmp_path):
    file = tmp_path / "payloads.svg"
    assert main(["space", "design", *SMALL, "--plot", str(file)]) == 0
    text = capsys.readouterr().out
    assert "89 % of the figures are assumed" in text and "ogs-helmos" in text and "*    60" in text
    assert file.stat().st_size > 5000
    assert main(["space", "design", *SMALL, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    light, heavy = found["candidates"]
    assert light["mass_kg"] < heavy["mass_kg"] and light["power_w"] < heavy["power_w"]
    assert 0 < light["key_bits_per_day"]["ogs-helmos"] < heavy["key_bits_per_day"]["ogs-helmos"]
    clouded = light["key_bits_per_day_with_clouds"]["ogs-helmos"]
    assert 0 < clouded < light["key_bits_per_day"]["ogs-helmos"]
    assert heavy["none_lighter_gives_as_much"] is True


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--aperture-m", "0"), "aperture_m = 0"),
        (("--jitter-urad", "-1"), "jitter_urad = -1"),
        (("--clock-rate-hz", "nan"), "clock_rate_hz = nan"),
        (("--wavelength-nm", "633"), "wavelength_nm = 633"),
        (("--plot", "x.gif"), "a name that ends in"),
        (("--cloud-probability", "-1"), "--cloud-probability -1; expected 0 to 1"),
    ],
)
def test_impossible_optics_and_other_bad_input(capsys, words, said):
    assert said in refused(capsys, *SMALL, *words)


def test_more_bad_input(capsys):
    pairs = ("--mission", "micius:pairs-2020", "--from", "2016-12-19", "--days", "1")
    assert "expected a decoy-state design" in refused(capsys, "--mission", *pairs[1:])
    assert "no cloud climate of xinglong" in refused(
        capsys, "--mission", "micius", "--from", "2016-12-19", "--days", "1"
    )
