"""In-orbit validation: what meets its model passes, what does not fails, as often as is said."""

import json

import numpy as np
import pytest
from msgspec.structs import replace

from openqci.core.errors import ConfigurationError, OutsideModel
from openqci.links.budget import SpaceLink
from openqci.links.ground import ground_station
from openqci.links.missions import mission
from openqci.planning.recordings import example_text, read_recorded_pass, recorded_pass_schema
from openqci.planning.validation import (
    TESTS,
    Tolerance,
    corrected,
    drawn_record,
    expected_counts,
    light,
    validated,
)
from tests.planning.recorded import DESIGN, LINK, as_json, empty_record, example

EXACT = Tolerance(light_db=0.0, qber=0.0, slope=0.0, fading=0.0)


@pytest.fixture(scope="module")
def empty():
    return empty_record()


def failing(empty, seed: int, tolerance: Tolerance | None = None, **short) -> set[str]:
    """Return the tests that a drawn record fails."""
    record = drawn_record(empty, LINK, np.random.default_rng(seed), **short)
    report = validated(record, LINK, tolerance=tolerance)
    assert report.meets_model == (not any(each.fails(0.01) for each in report.tests))
    return {each.name for each in report.tests if each.fails(report.significance)}


def test_false_alarms_are_as_rare_as_stated(empty):
    """Records of the model itself, nothing allowed beyond counting: 1 % may fail, of 150 one or two."""
    alarms = sum(bool(failing(empty, seed, EXACT)) for seed in range(150))
    assert alarms <= 6, "more than 6 of 150 at 1 % happens once in a thousand times"


def test_the_test_of_light_has_the_chance_it_says(empty):
    bits, _ = expected_counts(empty, LINK)
    rng = np.random.default_rng(1)
    chances = np.array([light(rng.poisson(bits / 1000), bits / 1000, EXACT).chance for _ in range(600)])
    for level in (0.05, 0.25, 0.5):
        assert (chances < level).mean() == pytest.approx(level, abs=0.06)


@pytest.mark.parametrize(
    ("short", "named"),
    [
        ({"deficit_db": 6.0}, "light"),
        ({"more_errors": 0.02}, "errors"),
        ({"fading": 0.4}, "steadiness"),
    ],
)
def test_what_falls_short_is_found_by_its_test(empty, short, named):
    for seed in range(8):
        assert named in failing(empty, seed, **short)


def test_a_loss_that_grows_otherwise_is_found(empty):
    """Counts with twice the loss toward low elevations than the model has: the shape of the pass is wrong."""
    bits, errors = expected_counts(empty, LINK)
    steeper = bits * (bits / bits.max()) ** 0.5
    seen = np.random.default_rng(3).poisson(steeper)
    wrong = (seen * errors / bits).astype(int)
    record = replace(empty, sifted_bits=tuple(seen.tolist()), errors=tuple(wrong.tolist()))
    found = {each.name: each for each in validated(record, LINK).tests}
    assert found["elevation"].fails(0.01) and found["elevation"].seen == pytest.approx(0.5, abs=0.02)


def test_a_deficit_is_found_as_often_as_is_said(empty):
    """The model off at random, the payload short by the stated deficit: found nine times in ten."""
    tolerance = Tolerance(light_db=0.5)
    stated = validated(example(), LINK, tolerance=tolerance).found_deficit_db
    rng = np.random.default_rng(9)
    found = 0
    for seed in range(100):
        short = stated + float(rng.normal(0, 0.5))
        record = drawn_record(empty, LINK, np.random.default_rng(seed), deficit_db=short)
        found += "light" in {
            each.name for each in validated(record, LINK, tolerance=tolerance).tests if each.fails(0.01)
        }
    assert found / 100 == pytest.approx(0.9, abs=0.09)


def test_more_light_and_fewer_errors_are_no_fault(empty):
    assert failing(empty, 1, deficit_db=-3.0) == set() and failing(empty, 1, more_errors=-0.005) == set()


def test_model_counts_are_those_of_the_pass(empty):
    """The sum over the record is what the survey's chain gives for the same pass."""
    from openqci.links.pass_keys import pass_yields
    from openqci.links.survey import SatelliteTask, seen_of_satellite
    from openqci.space import utc_seconds

    bits, errors = expected_counts(empty, LINK)
    start = utc_seconds("2027-03-20")
    task = SatelliteTask(
        DESIGN, DESIGN.orbits(start)[0], (LINK.ground,), start, start + 2 * 86_400.0, 5.0, None, None
    )
    _, seen = seen_of_satellite(task)
    yields = pass_yields(LINK, seen)
    nearest = int(np.abs(yields.sifted_bits - bits.sum()).argmin())
    # Each sample stands for a whole interval here, the first and last too: up to one interval in fifty more.
    assert bits.sum() == pytest.approx(yields.sifted_bits[nearest], rel=0.03)
    assert errors.sum() / bits.sum() == pytest.approx(
        yields.errors[nearest].sum() / yields.counts[nearest].sum(), rel=0.02
    )


def test_holm():
    tests = tuple(light(np.array([float(n)]), np.array([1000.0]), EXACT) for n in (1000, 900, 950, 1100))
    found = corrected(tests)
    chances = sorted(each.chance for each in tests)
    assert sorted(each.corrected_chance for each in found)[0] == pytest.approx(4 * chances[0])
    assert all(each.corrected_chance >= each.chance for each in found)
    order = np.argsort([each.chance for each in found])
    assert (np.diff([found[place].corrected_chance for place in order]) >= 0).all()


# Files


def test_the_shipped_example_is_what_it_says_it_is():
    shipped = read_recorded_pass(example_text(), "example")
    assert shipped == example() and shipped.simulated and "No satellite made it" in shipped.note
    assert json.loads(example_text()) == json.loads(as_json(example()))
    report = validated(shipped, LINK)
    assert report.meets_model and tuple(each.name for each in report.tests) == TESTS


def test_settings_of_the_record_count(empty):
    from openqci.planning.recordings import Settings

    bits, _ = expected_counts(empty, LINK)
    settings = Settings((0.25, 0.05, 0.0), (0.7, 0.2, 0.1), 0.8)
    fewer, _ = expected_counts(replace(empty, settings=settings), LINK)
    assert fewer.sum() == pytest.approx(bits.sum() / 2, rel=0.05)


def test_every_field_of_the_schema_is_described():
    for name, node in recorded_pass_schema()["properties"].items():
        assert node["description"].endswith("."), name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda record: record.pop("site"), "'site' is a required property"),
        (lambda record: record.update(extra=1), "Additional properties are not allowed"),
        (lambda record: record["range_km"].pop(), "range_km: 56 entries; expected 57, one per interval"),
        (lambda record: record["errors"].__setitem__(3, 10**9), "errors[3]: 1000000000 of "),
        (lambda record: record["utc"].__setitem__(4, "noon"), "utc[4]: time 'noon'"),
        (
            lambda record: record["utc"].__setitem__(4, record["utc"][0]),
            "utc[4]: 2027-03-20T20:39:31Z is not after",
        ),
        (lambda record: record["elevation_deg"].__setitem__(0, 2.0), "elevation_deg[0]: 2.0 is less than"),
        (
            lambda record: record["sifted_bits"].__setitem__(0, 1.5),
            "sifted_bits[0]: 1.5 is not of type 'integer'",
        ),
        (
            lambda record: record.update(
                settings={"intensities": [0.5, 0.1], "probabilities": [0.5, 0.4], "z_basis_probability": 0.5}
            ),
            "settings.probabilities: expected one per intensity, that sum to 1",
        ),
    ],
)
def test_a_bad_record_is_refused_with_its_fault(change, said):
    record = json.loads(example_text())
    change(record)
    with pytest.raises(ConfigurationError) as refused:
        read_recorded_pass(json.dumps(record), "pass.json")
    assert any(said in str(fault) and "pass.json" in str(fault) for fault in refused.value.faults)


def test_more_that_is_refused(empty):
    with pytest.raises(ConfigurationError, match="is no JSON"):
        read_recorded_pass("{", "pass.json")
    with pytest.raises(ConfigurationError, match="larger than"):
        read_recorded_pass(" " * 2**21, "pass.json")
    with pytest.raises(ConfigurationError, match="without any sifted bit"):
        validated(empty, LINK)
    with pytest.raises(OutsideModel, match="significance"):
        validated(example(), LINK, significance=0.0)
    with pytest.raises(OutsideModel, match="fading"):
        Tolerance(fading=-1.0)
    micius = mission("micius")
    pairs = SpaceLink(micius.design("pairs-2020"), ground_station("delingha", micius))
    with pytest.raises(ConfigurationError, match="expected a decoy-state design"):
        validated(example(), pairs)
