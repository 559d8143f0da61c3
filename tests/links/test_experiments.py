"""Published experiments: every row that can be compared agrees, its inputs are told apart, it could fail."""

import json

import msgspec
import pytest

from openqci.cli.main import main
from openqci.core.errors import ConfigurationError
from openqci.links.experiments import (
    Comparison,
    Experiment,
    compare,
    experiments_schema,
    model_names,
    read_experiments,
    shipped_experiments,
)

ROWS = {row.experiment_id: row for row in shipped_experiments()}
COMPARED = [name for name, row in ROWS.items() if row.check.kind not in ("none", "schema")]
FOUND = {name: compare(ROWS[name]) for name in COMPARED}


def changed(name: str, **inputs: object) -> Experiment:
    row = ROWS[name]
    return msgspec.structs.replace(row, inputs=row.inputs | inputs)


@pytest.mark.parametrize("name", COMPARED)
def test_every_row_that_can_be_compared_agrees(name: str) -> None:
    assert FOUND[name]
    assert [(each.metric, each.published, each.modelled) for each in FOUND[name] if not each.agrees] == []


@pytest.mark.parametrize("name", [name for name in ROWS if name not in COMPARED])
def test_other_rows_compare_nothing(name: str) -> None:
    assert compare(ROWS[name]) == []


def test_every_model_is_asked_for_and_every_kind_is_met() -> None:
    assert {ROWS[name].check.model for name in COMPARED} <= set(model_names())
    assert {each.kind for found in FOUND.values() for each in found} >= {"reproduce", "upper", "inequality"}


@pytest.mark.parametrize("name", COMPARED)
def test_inputs_are_told_apart(name: str) -> None:
    """What a comparison says to have used stands in the row, as read or as remembered; nothing twice."""
    row = ROWS[name]
    for each in FOUND[name]:
        assert all(row.inputs[key] == value for key, value in (each.pinned | each.remembered).items())
        assert set(each.remembered) == {key for key in each.pinned | each.remembered if key in row.memory}
        assert not set(each.assumed) & set(each.pinned | each.remembered | each.fitted)
        if each.kind == "reproduce":
            assert each.pinned or each.remembered


def test_what_is_fitted_is_said() -> None:
    fitted = {name: found[0].fitted for name, found in FOUND.items() if any(each.fitted for each in found)}
    assert set(fitted) == {"korzh2015", "mao2018"}
    assert fitted["korzh2015"] == {"afterpulse_probability_times_dead_time_s": 1.8e-7}


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("ma2005_gys_asymptotic", {"alpha": 0.25}),
        ("gobby2004", {"Pe_per_clock": 3e-6}),
        ("lim2014_fig1", {"e_mis": 0.03}),
        ("lim2014_fig1", {"p_dc": 6e-5}),
        ("korzh2015", {"dcr_hz": [5480, 1170, 162, 32.6, 13.3]}),
        ("stucki2009", {"dcr_hz": 50}),
        ("lodewyck2007", {"xi": 0.05}),
        ("zhang2020", {"V_A": [4.0] * 6}),
        ("qosst2024", {"xi_bob": [0.3] * 5}),
        ("neumann2022_248km", {"visibility": 0.97}),
        ("micius2017_downlink", {"clock": 50e6}),
        ("jinan1_2025", {"clock": 1e5}),
        ("pittaluga2021", {"km_asymptotic": 1200}),
        ("liu2023_1002km", {"loss_dB": 90.0}),
        ("li2023_110M", {"clock": 1e9}),
        ("mao2018", {"filter_GHz": 2_000}),
        ("sps_freespace2025", {"loss_dB": 40.0}),
    ],
)
def test_a_row_with_another_input_disagrees(name: str, inputs: dict) -> None:
    """The comparison is a test: were the experiment another, it would not agree."""
    assert not all(each.agrees for each in compare(changed(name, **inputs)))


@pytest.mark.parametrize(
    ("name", "inputs", "words"),
    [
        ("lim2014_fig1", {"eta_bob": None}, "lim2014_fig1: inputs.eta_bob: expected a number"),
        ("lim2014_fig1", {"nX": [1e5]}, "results.rate_per_pulse"),
        ("korzh2015", {"dead_s": "x"}, "korzh2015: inputs.dead_s: expected a list"),
        ("korzh2015", {"km": [104]}, "lists of one length"),
        ("micius2017_downlink", {"profile": {}}, "inputs.profile: expected lists t_s and km"),
        ("zhang2020", {"xi": [0.1]}, "lists of one length"),
        ("zhang2020", {"eta": True}, "inputs.eta: expected a number"),
    ],
)
def test_a_missing_or_odd_input_is_named(name: str, inputs: dict, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        compare(changed(name, **inputs))


def test_an_unknown_model_is_named() -> None:
    row = ROWS["korzh2015"]
    odd = msgspec.structs.replace(row, check=msgspec.structs.replace(row.check, model="guess"))
    with pytest.raises(ConfigurationError, match="korzh2015: unknown model 'guess'; expected one of"):
        compare(odd)


def test_a_broken_table_lists_its_faults(tmp_path, capsys) -> None:
    table = tmp_path / "mine.yaml"
    table.write_text("schema_version: 1\nsources: {}\nrows:\n- id: x\n  mark: Q\n")
    assert main(["link", "compare-experiments", "--file", str(table)]) == 2
    told = capsys.readouterr().err
    assert "mine.yaml" in told and "mark" in told and "Traceback" not in told


def test_ones_own_table_is_compared() -> None:
    text = """
schema_version: 1
sources: {}
rows:
- id: my_link
  ref: a report
  source: me
  mark: R
  protocol: bb84
  inputs: {loss_dB: 60.0}
  results: {skr_per_pulse_asymptotic: 2.0e-7}
  test: {kind: inequality, model: plob, metric: skr_per_pulse_asymptotic}
"""
    (row,) = read_experiments(text, "mine.yaml")
    (found,) = compare(row)
    assert isinstance(found, Comparison) and not found.agrees
    assert experiments_schema()["title"]


def test_the_command_prints_all_rows_as_json(capsys) -> None:
    assert main(["link", "compare-experiments", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["disagreeing"] == 0
    assert len(told["compared"]) == sum(len(found) for found in FOUND.values()) > 75
    assert {each["experiment"] for each in told["compared"]} | {
        each["experiment"] for each in told["not_compared"]
    } == set(ROWS)
