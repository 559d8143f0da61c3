"""``openqci route``: words, document, exit codes. ``python -m tests.cli.test_route`` renews the pages."""

import contextlib
import io
import json
from pathlib import Path

import pytest

from openqci.cli.main import main
from openqci.network import load_scenario

GOLDEN = Path(__file__).parent / "golden"

PAGES = {
    "route-two-paths": "--from Vienna --to hu-gyor --paths 2",
    "route-avoid-slovakia": "--from at-vienna-arsenal --to hu-gyor --avoid country:SK",
    "route-one-of-two": "--from at-vienna-arsenal --to BRATISLAVA --paths 2 --avoid link:hu-gyor--hu-sopron",
    "route-too-long": "--from vienna --to hu-gyor --hops-max 3",
}


def page(options: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main(["route", "--scenario", "metro", *options.split()])
    return out.getvalue()


@pytest.mark.parametrize("name", PAGES)
def test_the_page_for_a_reader(name: str) -> None:
    assert page(PAGES[name]) == (GOLDEN / f"{name}.txt").read_text()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ("--from Vienna --to sk-trnava", 0),
        ("--from Vienna --to sk-trnava --paths 2", 1),
        ("--from Vienna --to Bratislava --hops-max 1", 1),
    ],
)
def test_exit_codes_of_an_answer(options: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["route", "--scenario", "metro", *options.split()]) == code
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--from Viena --to Bratislava", "--from: 'Viena' is no site of metro; did you mean at-vienna"),
        ("--from Vienna --to Tokyo", "--to: 'Tokyo' is no site of metro"),
        ("--from Vienna --to Bratislava --avoid DE", "--avoid: DE: expected KIND:NAME, with one of country,"),
        (
            "--from Vienna --to Bratislava --avoid country:FR",
            "--avoid: country:FR: this network has no country",
        ),
        (
            "--from Vienna --to Bratislava --avoid site:at-schwehat",
            "this network has no site 'at-schwehat'; did you mean at-schwechat?",
        ),
        ("--from Vienna --to Bratislava --data-dir /nowhere", "/nowhere"),
        ("--from Vienna --to Bratislava --paths 17", "17 is out of range; expected 1 to 16"),
        ("--from Vienna --to Bratislava --epsilon-max 0", "0 is out of range; expected above 0"),
        ("--from Vienna --to Bratislava --trust-min x", "invalid"),
    ],
)
def test_bad_input_is_told_with_what_was_expected(
    options: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    where = [] if "--data-dir" in options else ["--scenario", "metro"]
    try:
        code = main(["route", *where, *options.split()])
    except SystemExit as stop:
        code = int(str(stop.code))
    assert code == 2
    assert message in capsys.readouterr().err


def test_several_wrong_wishes_are_told_together(capsys: pytest.CaptureFixture[str]) -> None:
    wishes = ["--avoid", "country:FR", "planet:Mars", "--avoid", "domain:AT"]
    assert main(["route", "--scenario", "metro", "--from", "Vienna", "--to", "hu-gyor", *wishes]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 2 and "country:FR" in told and "planet:Mars" in told


def test_the_document_has_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    options = "--from Vienna --to hu-gyor --paths 2 --trust-min 1 --avoid domain:SK site:at-schwechat --json"
    assert main(["route", "--scenario", "metro", *options.split()]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["scenario"], told["figures"]) == ("metro", "by forecast alone")
    assert (told["from"], told["to"], told["paths_wanted"]) == ("at-vienna", "hu-gyor", 2)
    assert told["policy"]["avoid_domains"] == ["SK"] and told["policy"]["trust_min"] == 1
    (path,) = told["paths"]
    assert not told["complete"] and len(path["hops"]) == len(path["sites"]) - 1
    assert path["hop_count"] == sum(not hop["border"] for hop in path["hops"]) == len(path["hops"]) - 1
    network = load_scenario("metro")
    for hop in (each for each in path["hops"] if not each["border"]):
        assert hop["length_km"] == network.hops[hop["link_id"]].length_km
        assert hop["rate_bps"] > 0 and hop["stock_bytes"] is None and hop["epsilon"] > 0 and hop["cost"] > 1
    assert path["epsilon"] == pytest.approx(sum(hop["epsilon"] for hop in path["hops"]))
    (other,) = [each for each in told["refused"] if "sk-bratislava" in each["sites"]]
    assert any("avoided: domain SK" in reason for reason in other["reasons"])
    assert {each["kind"] for each in told["closed"]} == {"site"}


def test_trust_and_operator_of_a_scenario_decide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "three"
    folder.mkdir()
    place = "country: AT, lat: 48.0, lon: 16.0"
    (folder / "scenario.yaml").write_text(
        "version: 1\nname: three\ntitle: Three\n"
        "stock: {low_bits: 8, high_bits: 16, pair_low_keys: 1, pair_high_keys: 2}\n"
    )
    (folder / "sites.yaml").write_text(
        "version: 1\nsites:\n"
        f"  - {{id: s, name: S, kind: capital_node, {place}}}\n"
        f"  - {{id: m, name: M, kind: trusted_node, {place}, operator: Telco, trust: 2}}\n"
        f"  - {{id: t, name: T, kind: capital_node, {place}}}\n"
    )
    (folder / "links.yaml").write_text(
        "version: 1\nlinks:\n  - {id: s--m, a: s, b: m, type: metro, fibre_km: 100}\n"
        "  - {id: m--t, a: m, b: t, type: metro, fibre_km: 10}\n"
    )
    ends = ["route", "--scenario", str(folder), "--from", "s", "--to", "t"]
    assert main([*ends, "--trust-min", "1"]) == 0
    assert main([*ends, "--trust-min", "2"]) == 1
    # The trusted node on the long link is the one of its nearer end's operator.
    assert "s--m.tn1: trust class 1, at least 2 is asked for" in capsys.readouterr().out
    assert main([*ends, "--avoid", "operator:Telco"]) == 1
    assert "m: avoided: operator Telco" in capsys.readouterr().out


if __name__ == "__main__":
    for each, options in PAGES.items():
        (GOLDEN / f"{each}.txt").write_text(page(options))
