"""What holds for every attack: agreement of drawn and closed form, no attack changes nothing, bad input."""

import dataclasses
import doctest
import importlib
import math

import numpy as np
import pytest

from openqci.core.errors import ConfigurationError, OutsideModel
from openqci.links.attacks import (
    STANDARD_BLOCK,
    STANDARD_QUADRATURES,
    AttackOutcome,
    Block,
    all_outcomes,
    attack,
    attack_family,
    attack_ids,
    descriptions,
    honest_statistics,
    observed_in_records,
)
from openqci.links.attacks.continuous import continuous_attack_ids
from openqci.links.attacks.monitors import watched
from openqci.links.attacks.statistics import readings
from openqci.quantum import exchange
from openqci.quantum.gg02 import CoherentDetector, GaussianLink, GaussianLoss, GaussianSource
from openqci.quantum.link import class_probabilities
from tests.links.attack_links import THREE, TWO, class_p_value, link, rng

NONE = {
    "intercept-resend": {"fraction": 0.0},
    "double-click": {"fraction": 0.0},
    "photon-number-splitting": {"fraction": 0.0},
    "photon-number-splitting-no-decoys": {"fraction": 0.0},
    "beam-splitting": {"replaced_share": 0.0},
    "trojan-horse": {"injected_photons_hz": 0.0},
    "laser-seeding": {"factor": 1.0},
    "decoy-distinguishability": {"distance": 0.0},
    "intensity-fluctuation": {"relative_deviation": 0.0, "correlation": 0.0},
    "detector-blinding": {"fraction": 0.0},
    "time-shift": {"fraction": 0.0, "ratio": 1.0},
    "faked-states": {"fraction": 0.0, "ratio": 1.0},
    "backflash": {"emission_probability": 0.0},
    "individual-dead-time": {"dead_time_s": 0.0},
    "afterpulsing": {"probability": 0.0},
    "denial-of-service": {"extra_loss_db": 0.0, "noise_photons": 0.0},
}


def test_every_attack_has_an_id_a_line_and_a_source():
    assert set(attack_ids("bb84")) == set(NONE)
    assert set(attack_ids()) == set(descriptions())
    for attack_id in attack_ids():
        one = attack(attack_id)
        assert one.attack_id == attack_id
        assert len(one.description) > 10
        assert len(one.reference) > 5
        assert len(one.countermeasure) > 10


@pytest.mark.parametrize("attack_id", attack_ids("bb84"))
@pytest.mark.parametrize("source", [TWO, THREE], ids=["one decoy", "two decoys"])
def test_no_attack_changes_nothing(attack_id, source):
    one, calm = link(source=source), attack(attack_id, **NONE[attack_id])
    honest = calm.commissioned(one)
    seen = calm.transform(honest)
    assert seen.table == pytest.approx(honest.table, rel=1e-12)
    assert seen.instruments == honest.instruments
    outcome = calm.outcome(one, defended=False)
    assert outcome.verdict == "harmless"
    assert not any(each.trips for each in outcome.observables)
    for each in outcome.observables:
        assert each.attacked == pytest.approx(each.honest, rel=1e-9, abs=1e-12) or "chi" in each.name


@pytest.mark.parametrize("attack_id", attack_ids("bb84"))
def test_drawn_detections_agree_with_the_closed_form(attack_id):
    """False-alarm rate: 1e-4 per attack for the classes, 5 sigma for the rate."""
    one = link(10.0, dead_time_s=0.0, afterpulse_probability=0.0, dark_count_probability=1e-4)
    changes = {"dead_time_s": 1e-7} if attack_id == "individual-dead-time" else {}
    threat = attack(attack_id, **changes)
    seen = threat.transform(threat.commissioned(one))
    drawn = threat.draw(one, 60_000, rng())
    assert len(drawn.detections.slots) == 60_000
    assert class_p_value(drawn, seen.table) > 1e-4
    rate = float(seen.table.sum()) * seen.live_fraction
    spread = math.sqrt(drawn.emissions.pulses * rate)
    assert abs(60_000 - drawn.emissions.pulses * rate) < 5 * spread
    if attack_id not in ("intercept-resend", "double-click", "individual-dead-time", "afterpulsing"):
        expected = 60_000 * float(seen.table[:, 1].sum() / seen.table.sum())
        assert abs(drawn.detections.double_clicks - expected) < 5 * math.sqrt(expected + 1)


@pytest.mark.parametrize("attack_id", attack_ids("bb84"))
def test_statistics_stay_probabilities(attack_id):
    threat = attack(attack_id)
    for length_km in (1.0, 40.0, 120.0):
        seen = threat.transform(threat.commissioned(link(length_km)))
        assert (seen.views >= -1e-18).all()
        assert float(seen.table.sum()) < 1
        assert threat.outcome(link(length_km)).key_safe_per_pulse >= 0


def test_equal_seeds_give_equal_records():
    for attack_id in attack_ids("bb84"):
        one, two = (attack(attack_id).draw(link(20.0), 500, rng(5)) for _ in range(2))
        assert (one.emissions.bits == two.emissions.bits).all()
        assert (one.detections.slots == two.detections.slots).all()


def test_honest_link_gives_the_table_of_the_link():
    one = link()
    assert (honest_statistics(one).table == class_probabilities(one)).all()


def test_all_outcomes_of_a_link():
    outcomes = all_outcomes(link())
    assert [each.attack for each in outcomes] == list(attack_ids("bb84"))
    for each in outcomes:
        assert isinstance(each, AttackOutcome)
        assert 0 < each.false_alarm_probability <= 0.01 / 86_400 * 100 * (1 + 1e-9)
        assert each.verdict != "undetected-insecure"
    undefended = {each.attack: each.verdict for each in all_outcomes(link(), defended=False)}
    assert undefended["detector-blinding"] == "undetected-insecure"


def test_no_defended_link_believes_more_than_is_safe_unless_a_monitor_trips():
    for length_km in (5.0, 50.0, 90.0):
        for source in (TWO, THREE):
            for each in all_outcomes(link(length_km, source)):
                assert each.verdict != "undetected-insecure", each


@pytest.mark.parametrize("attack_id", attack_ids("bb84"))
@pytest.mark.parametrize("bad", [-1e9, math.nan, math.inf])
def test_bad_parameters_name_field_and_range(attack_id, bad):
    for field in dataclasses.fields(type(attack(attack_id))):
        with pytest.raises(OutsideModel, match=rf"{field.name} = .*expected a finite number from"):
            attack(attack_id, **{field.name: bad})


def test_unknown_names_are_refused_with_those_that_there_are():
    with pytest.raises(ConfigurationError, match=r"unknown attack 'tap'; expected one of intercept-resend"):
        attack("tap")
    with pytest.raises(ConfigurationError, match=r"no parameter 'share'; expected one of fraction"):
        attack("intercept-resend", share=0.1)


@pytest.mark.parametrize("field", ["pulses", "epsilon_sec", "epsilon_cor", "reconciliation_efficiency"])
def test_bad_blocks_name_field_and_range(field):
    with pytest.raises(OutsideModel, match=field):
        Block(**{field: math.nan})


def test_a_link_that_no_proof_is_for():
    four = link(source=((0.5, 0.2, 0.1, 0.0), (0.4, 0.2, 0.2, 0.2)))
    with pytest.raises(OutsideModel, match="intensities"):
        attack("backflash").outcome(four)


def test_a_block_too_small_for_a_key_is_zero_not_an_error():
    outcome = attack("backflash").outcome(link(), Block(pulses=1e4))
    assert outcome.verdict == "key-zero"


def test_examples_run():
    names = ["", ".model", ".photon_number", ".source", ".detectors", ".interception"]
    modules = [importlib.import_module(f"openqci.links.attacks{name}") for name in names]
    results = [doctest.testmod(module) for module in modules]
    assert sum(each.attempted for each in results) > 10
    assert all(each.failed == 0 for each in results)


@pytest.mark.parametrize(
    "changes",
    [
        {"efficiency_ratio": 0.9},
        {"basis_choice": "passive"},
        {"x_extra_loss_db": 1.0, "x_misalignment_error": 0.03},
        {"detector_count_rate_max_hz": 5e7},
        {"dead_time_model": "paralysable", "dead_time_s": 5e-8},
        {"leaked_fraction": 0.002, "captured_fraction": 0.9},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_receivers_of_every_kind_are_attacked_and_calm_without(changes):
    one = link(20.0, THREE, **changes)
    outcomes = all_outcomes(one)
    assert len(outcomes) == len(attack_ids("bb84")) - (3 if "basis_choice" in changes else 0)
    assert all(each.verdict != "undetected-insecure" for each in outcomes)
    for attack_id in (each.attack for each in outcomes):
        calm = attack(attack_id, **NONE[attack_id]).outcome(one, defended=False)
        assert calm.verdict in ("harmless", "key-zero")
        assert not any(each.trips for each in calm.observables)


@pytest.mark.parametrize(
    "attack_id",
    ["intercept-resend", "photon-number-splitting", "detector-blinding", "afterpulsing", "denial-of-service"],
)
def test_drawn_blocks_raise_the_alarms_that_the_closed_form_says(attack_id):
    """Observables far from their threshold alike; what is near it may fall on either side."""
    one = link(10.0, THREE, dead_time_s=0.0)
    threat = attack(attack_id)
    calm = threat.commissioned(one)
    seen = threat.transform(calm)
    drawn = threat.draw(one, 200_000, rng())
    found, _ = observed_in_records(calm, drawn, seen.instruments, STANDARD_BLOCK)
    log = readings(seen, float(drawn.emissions.pulses))
    probabilities = np.array(one.source.probabilities)
    expected, _ = watched(readings(calm, 1e9), log, probabilities, STANDARD_BLOCK.watch, drawn.duration_s)
    for drawn_one, closed in zip(found, expected, strict=True):
        assert drawn_one.name == closed.name
        if abs(closed.attacked - closed.threshold) > 0.2 * max(abs(closed.threshold), 1e-12):
            assert drawn_one.trips == closed.trips, (drawn_one, closed)
    assert any(each.trips for each in found)


def test_drawn_honest_blocks_raise_no_alarm():
    one = link(10.0)
    calm = honest_statistics(one)
    for seed in range(5):
        drawn = exchange(one, 50_000, rng(seed))
        found, false_alarms = observed_in_records(calm, drawn, calm.instruments, STANDARD_BLOCK)
        assert false_alarms < 1e-6
        assert not any(each.trips for each in found)


@pytest.mark.parametrize("length_km", [0.0, 60.0, 250.0])
def test_ends_of_the_range_give_outcomes_not_errors(length_km):
    """Empty decoys, detectors without noise, no loss and more loss than any light survives."""
    vacuum = ((0.9, 0.1, 0.0), (0.6, 0.2, 0.2))
    quiet = {"dark_count_probability": 0.0, "afterpulse_probability": 0.0, "misalignment_error": 0.0}
    for one in (link(length_km, vacuum), link(length_km, vacuum, **quiet), link(length_km, TWO, **quiet)):
        for each in (*all_outcomes(one), *all_outcomes(one, defended=False)):
            assert math.isfinite(each.key_believed_per_pulse)
            assert math.isfinite(each.key_safe_per_pulse)
            assert each.key_believed_per_pulse >= 0


def test_attacks_modelled_for_an_active_choice_say_so():
    for attack_id in ("double-click", "detector-blinding", "faked-states"):
        with pytest.raises(OutsideModel, match=r"basis_choice = 'passive'.*active"):
            attack(attack_id).outcome(link(basis_choice="passive"))


def quadratures(linear_range_snu: float | None = None) -> GaussianLink:
    detector = CoherentDetector(0.6, 0.1, linear_range_snu=linear_range_snu)
    return GaussianLink(GaussianSource(1e8, 4.0), GaussianLoss(5.0, 0.01), detector)


def test_one_lookup_holds_both_families():
    assert attack_ids() == (*attack_ids("bb84"), *attack_ids("gg02"))
    assert attack_ids("gg02") == continuous_attack_ids() and len(attack_ids()) == 20
    for attack_id in attack_ids():
        assert attack_family(attack_id) == ("gg02" if attack_id.startswith("cv-") else "bb84")
        assert attack(attack_id).attack_id == attack_id
    with pytest.raises(ConfigurationError, match="unknown family 'mdi'; expected one of bb84, gg02"):
        attack_ids("mdi")
    with pytest.raises(ConfigurationError, match=r"unknown attack 'tap'; expected one of .*cv-saturation"):
        attack_family("tap")


@pytest.mark.parametrize("attack_id", attack_ids())
def test_an_attack_asked_of_the_other_kind_of_link_says_so(attack_id):
    photons = attack_family(attack_id) == "bb84"
    other, expected = (quadratures(), "QuantumLink") if photons else (link(), "GaussianLink")
    said = rf"attack '{attack_id}' is on links of .*: expected a {expected}, not a {type(other).__name__}"
    with pytest.raises(ConfigurationError, match=said):
        attack(attack_id).outcome(other)


def test_all_outcomes_of_a_link_of_quadratures():
    for limit, missing in ((None, {"cv-saturation"}), (50.0, set())):
        outcomes = all_outcomes(quadratures(limit))
        assert {each.attack for each in outcomes} == set(attack_ids("gg02")) - missing
        assert all(each.verdict != "undetected-insecure" for each in outcomes)
    undefended = {each.attack: each.verdict for each in all_outcomes(quadratures(50.0), defended=False)}
    assert undefended["cv-calibration"] == "undetected-insecure"
    with pytest.raises(
        ConfigurationError, match="expected a QuadratureBlock for a GaussianLink, not a Block"
    ):
        all_outcomes(quadratures(), STANDARD_BLOCK)
    with pytest.raises(ConfigurationError, match="expected a Block for a QuantumLink, not a QuadratureBlock"):
        all_outcomes(link(), STANDARD_QUADRATURES)
