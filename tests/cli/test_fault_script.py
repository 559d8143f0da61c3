"""Scripts of faults: those that are shipped fit their networks, and what is wrong with another is said."""

import json
from pathlib import Path
from typing import Any

import pytest

from openqci.cli.fault_play import Player, is_so
from openqci.cli.fault_script import Script, Step, Wait, read_script, script_names, script_of, script_schema
from openqci.cli.main import main
from openqci.core.errors import ConfigurationError
from openqci.core.identifiers import LinkId
from openqci.links import forecast
from openqci.network import load_scenario
from openqci.twin.faults import FaultBook, FaultKind, FaultOrder, is_noticed

GOOD = """
title: A story
steps:
  - say: It begins.
    inject: {kind: cut, target: a--b, name: saw, for_s: 20}
  - after_s: 3
    clear: saw
"""


@pytest.mark.parametrize("name", script_names())
def test_a_shipped_script_fits_its_network(name: str) -> None:
    script = read_script(name)
    network = load_scenario(script.scenario)
    forecasts = {link: forecast(network.devices[hop.device], hop) for link, hop in network.hops.items()}
    faults = FaultBook(network, forecasts)
    for step in script.steps:
        if step.inject is not None:
            order = FaultOrder(step.inject.kind, step.inject.target, "ana", None, step.inject.added_qber)
            fault = faults.inject(order, 0.0)
            assert fault.kind is not FaultKind.QBER or is_noticed(fault)
        for about in (step.lift, step.wait):
            assert about is None or LinkId(about.hop) in network.hops


def test_the_shipped_stories_are_of_an_attack_that_is_noticed_and_over_in_the_end() -> None:
    assert script_names() == ("metro", "suwalki")
    for name in script_names():
        done = [step for step in read_script(name).steps if step.say or step.inject or step.wait]
        assert [step.wait.state for step in done if step.wait] == ["alarm", "key"]


def test_a_script_is_read_as_it_stands() -> None:
    script = script_of(GOOD, "story.yaml")
    assert script.title == "A story" and len(script.steps) == 2
    assert script.steps[0].inject is not None and script.steps[0].inject.for_s == 20
    assert script.steps[1] == Step(after_s=3, clear="saw")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("title: A story", ""), "title: missing"),
        (("kind: cut", "kind: burn"), "one of cut, stop, qber, isolate, flood"),
        (("for_s: 20", "for_s: 0"), "above 0"),
        (("after_s: 3", "after: 3"), "unknown field; expected after_s"),
        (("clear: saw", "clear: axe"), "no step before names 'axe'"),
        (("kind: cut", "kind: qber"), "added_qber goes with the kind qber"),
        (("say: It begins.", "clear: saw"), "does several things"),
        (("A story", "[a, b]"), "title: expected text of 1 to 200 characters"),
    ],
)
def test_what_is_wrong_with_a_script_is_said_with_its_line(change: tuple[str, str], expected: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        script_of(GOOD.replace(*change), "story.yaml")
    assert expected in str(refused.value) and "story.yaml" in str(refused.value)


def test_a_script_that_is_not_there_names_those_that_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigurationError, match="a shipped script: metro, suwalki"):
        read_script(str(tmp_path / "none.yaml"))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        read_script(str(tmp_path / "binary.yaml"))
    assert main(["fault", "scripts"]) == 0
    assert "suwalki     eu27    A link near Suwałki is attacked" in capsys.readouterr().out


def test_the_schema_is_published(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fault", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == script_schema()
    published = Path(__file__).parents[2] / "docs" / "reference" / "fault-script.schema.json"
    assert json.loads(published.read_text()) == script_schema()


def test_the_page_of_scripts_names_every_field() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "fault-script.md").read_text()
    step = script_schema()["properties"]["steps"]["items"]["properties"]
    inner = {name for each in step.values() for name in each.get("properties", {})}
    assert [name for name in {*script_schema()["properties"], *step, *inner} if f"`{name}`" not in page] == []


def test_faults_are_for_a_network_that_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fault", "list", "--data-dir", str(tmp_path / "none")]) == 2
    assert "is no data directory" in capsys.readouterr().err


def test_what_a_script_waits_for() -> None:
    report: dict[str, Any] = {
        "alarms": [{"link_id": "a--b"}],
        "hops": [
            {"link_id": "a--b", "trouble": "", "stock_bits": 0},
            {"link_id": "b--c", "trouble": "", "stock_bits": 8},
        ],
    }
    assert is_so(Wait("a--b", "alarm"), report) and not is_so(Wait("b--c", "alarm"), report)
    assert is_so(Wait("b--c", "key"), report) and not is_so(Wait("a--b", "key"), report)
    with pytest.raises(ConfigurationError, match="no hop 'x--y'"):
        is_so(Wait("x--y", "key"), report)


def test_a_wait_in_vain_ends_the_play_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calm = {"alarms": [], "faults": [], "events": [], "hops": []}
    monkeypatch.setattr("openqci.cli.fault_play.running_report", lambda data_dir: calm)
    script = Script("A story", (Step(wait=Wait("a--b", "alarm", within_s=0.01)), Step(say="never said")))
    assert Player(script, tmp_path, "ana").play() == 1
    told = capsys.readouterr()
    assert "never said" not in told.out and "a--b: no alarm within 0.01 s" in told.err
