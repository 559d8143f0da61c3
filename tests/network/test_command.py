"""``openqci scenario``: what it prints, and its exit codes."""

import json

import pytest

from openqci.cli.main import main
from tests.network.make import edited, write_scenario


def test_a_good_scenario_is_summed_up(capsys):
    assert main(["scenario", "check", "metro"]) == 0
    assert capsys.readouterr().out == (
        "metro: good. Vienna, Bratislava and Győr, ten places in three countries\n"
        "13 nodes in 3 domains: 9 sites, trusted nodes on long links: 1, border nodes: 3\n"
        "10 QKD hops over 467.7 km of fibre, the longest 71.3 km\n"
        "4 SAEs, 3 flows, 0.4 keys/s\n"
        "parts that fibre joins: 1; every site has a hop\n"
    )


def test_a_good_scenario_as_json(capsys):
    assert main(["scenario", "check", "eu27", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["good"] is True and report["faults"] == []
    summary = report["summary"]
    assert (summary["sites"], summary["nodes"], summary["hops"], summary["domains"]) == (489, 1323, 1337, 27)
    assert (summary["trusted_nodes_generated"], summary["border_nodes"]) == (765, 69)
    assert len(summary["unreached_sites"]) == 8 and len(summary["digest"]) == 64


def test_faults_are_one_line_each_and_the_exit_code_is_1(tmp_path, capsys):
    folder = write_scenario(tmp_path / "s", edited("links.yaml", ("b: sk-two", "b: sk-three")))
    assert main(["scenario", "check", str(folder)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"{folder}/links.yaml:3: links[0].b: no site sk-three; expected the id of a site",
        "1 fault",
    ]


def test_faults_as_json(tmp_path, capsys):
    folder = write_scenario(tmp_path / "s", {"scenario.yaml": None})
    assert main(["scenario", "check", str(folder), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["good"] is False
    assert [(fault["line"], fault["path"]) for fault in report["faults"]] == [(0, "")]
    assert report["faults"][0]["message"].startswith("file missing")


def test_an_unknown_scenario_is_bad_usage(capsys):
    assert main(["scenario", "check", "atlantis"]) == 2
    answer = capsys.readouterr()
    assert answer.out == ""
    assert (
        answer.err
        == "openqci: atlantis: no such scenario; expected a folder or one of eu27, islands, metro\n"
    )


def test_scenarios_are_listed(capsys):
    assert main(["scenario", "list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["eu27", "islands", "metro"]
    assert main(["scenario", "list", "--json"]) == 0
    assert [facts["nodes"] for facts in json.loads(capsys.readouterr().out)] == [1323, 17, 13]


def test_schemas_are_printed(capsys):
    assert main(["scenario", "schema", "links"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "OpenQCI scenario, version 1: links.yaml"
    assert main(["scenario", "schema"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["scenario", "sites", "links", "devices", "demand"]


@pytest.mark.parametrize("arguments", [["scenario"], ["scenario", "schema", "nope"], ["scenario", "check"]])
def test_bad_usage_ends_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as ending:
        main(arguments)
    assert ending.value.code == 2
    assert "usage" in capsys.readouterr().err
