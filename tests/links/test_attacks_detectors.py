"""Blinding, mismatch, backflash, dead time, afterpulses: sheet values, mechanisms, before and after."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from openqci.core.errors import OutsideModel
from openqci.links.attacks import attack, honest_statistics
from openqci.links.attacks.detectors import (
    Afterpulsing,
    Backflash,
    DetectorBlinding,
    FakedStates,
    IndividualDeadTime,
    TimeShift,
    faked_state_error,
    mismatch_ceiling,
)
from openqci.links.attacks.monitors import (
    LAGS,
    arrival_histograms,
    arrival_p_value,
    autocorrelation,
    clicks_while_dead,
    ljung_box,
)
from openqci.links.attacks.statistics import readings, safe_key_per_pulse
from tests.links.attack_links import THREE, link, rng

CLEAN = {
    "misalignment_error": 0.0,
    "dark_count_probability": 0.0,
    "afterpulse_probability": 0.0,
    "dead_time_s": 0.0,
}


def observable(outcome, name):
    return next(each for each in outcome.observables if each.name == name)


def qber(statistics):
    log = readings(statistics, 1.0)
    return log.errors[0].sum() / log.sifted[0].sum()


def test_measured_powers_of_the_clavis2_make_a_perfect_attack():
    """Never 647 / 697 uW, always 808 / 932 uW: a power above both "always", half of it below both "never"."""
    assert max(808, 932) / min(647, 697) == pytest.approx(1.44, abs=0.005)
    assert DetectorBlinding().perfect
    assert DetectorBlinding(trigger_power_w=9.33e-4).perfect
    assert not DetectorBlinding(trigger_power_w=9.3e-4).perfect
    assert DetectorBlinding(trigger_power_w=1.29e-3).perfect
    assert not DetectorBlinding(trigger_power_w=1.30e-3).perfect


@settings(max_examples=50)
@given(st.floats(1e-4, 1e-3), st.floats(1.01, 4.0))
def test_the_attack_is_perfect_for_some_power_if_the_ratio_is_below_two(never, ratio):
    always = never * ratio
    threat = DetectorBlinding(
        trigger_power_w=always, never_0_w=never, never_1_w=never, always_0_w=always, always_1_w=always
    )
    assert threat.perfect is (always / 2 <= never)


def test_blinding_changes_no_error_rate_and_no_gain_and_takes_every_bit():
    one = link(source=THREE)
    honest = honest_statistics(one)
    seen = DetectorBlinding().transform(honest)
    assert qber(seen) == pytest.approx(qber(honest), rel=0.05)
    assert seen.gains == pytest.approx(honest.gains, rel=0.01)
    assert safe_key_per_pulse(seen) < 1e-12
    assert seen.table[:, 1].sum() == 0.0


def test_blinding_is_seen_by_current_efficiency_test_and_double_clicks():
    before = DetectorBlinding().outcome(link(), defended=False)
    after = DetectorBlinding().outcome(link())
    assert before.verdict == "undetected-insecure"
    assert before.key_believed_per_pulse > 7e-4
    assert before.key_safe_per_pulse < 1e-12
    assert after.verdict == "detected"
    tripped = {each.name for each in after.observables if each.trips}
    assert tripped == {"detector current", "efficiency scaling", "double clicks"}
    assert observable(after, "efficiency scaling").attacked == 1.0
    assert observable(after, "efficiency scaling").honest == pytest.approx(0.5, abs=0.02)
    assert observable(after, "double clicks").attacked == 0.0


def test_too_strong_triggers_click_in_the_wrong_basis_too():
    outcome = DetectorBlinding(trigger_power_w=1.6e-3).outcome(link(), defended=False)
    assert outcome.verdict == "key-zero"
    assert observable(outcome, "error rate Z0").attacked > 0.1


def test_too_weak_triggers_never_click():
    seen = DetectorBlinding(trigger_power_w=6e-4).transform(honest_statistics(link()))
    assert seen.table.sum() == 0.0


def test_thresholds_in_the_wrong_order_are_refused():
    with pytest.raises(OutsideModel, match="always_1_w"):
        DetectorBlinding(always_1_w=6e-4)


@pytest.mark.parametrize("power_w", [9.5e-4, 8.5e-4, 1.5e-3])
def test_drawn_triggers_agree_with_the_table_at_any_power(power_w):
    one = link(20.0, dead_time_s=0.0)
    threat = DetectorBlinding(trigger_power_w=power_w)
    seen, drawn = threat.transform(honest_statistics(one)), threat.draw(one, 40_000, rng())
    expected = float(seen.table.sum()) * drawn.emissions.pulses
    assert abs(40_000 - expected) < 5 * math.sqrt(expected)
    errors = (drawn.emissions.bits != drawn.detections.bits) & (
        drawn.emissions.bases == drawn.detections.bases
    )
    log = readings(seen, drawn.emissions.pulses)
    assert abs(errors.sum() - log.errors.sum()) < 5 * math.sqrt(log.errors.sum() + 1)
    assert abs(drawn.detections.double_clicks - log.double_clicks) < 5 * math.sqrt(log.double_clicks + 1)
    assert abs(drawn.detections.bits.sum() - log.ones) < 5 * math.sqrt(log.ones)


@pytest.mark.parametrize(("ratio", "ceiling"), [(1.0, 1.0), (0.5, 0.918), (0.0, 0.0)])
def test_ceiling_of_a_mismatch(ratio, ceiling):
    assert mismatch_ceiling(ratio) == pytest.approx(ceiling, abs=5e-4)


@pytest.mark.parametrize("ratio", [0.9, 0.5, 0.2, 0.05])
def test_time_shift_leaves_the_ceiling_of_each_bit_and_no_bias(ratio):
    honest = honest_statistics(link(60.0, **CLEAN))
    seen = TimeShift(ratio).transform(honest)
    left = safe_key_per_pulse(seen) / safe_key_per_pulse(honest)
    assert left == pytest.approx(mismatch_ceiling(ratio), rel=2e-3)
    assert seen.gains[0] == pytest.approx(honest.gains[0], rel=1e-9)
    assert readings(seen, 1.0).ones / readings(seen, 1.0).detections == pytest.approx(0.5)
    assert qber(seen) < 1e-3


def test_time_shift_to_one_side_only_shows_as_bias():
    outcome = TimeShift(0.5, early_share=1.0).outcome(link())
    bias = observable(outcome, "bit bias")
    assert bias.attacked == pytest.approx(0.5 / 1.5, abs=0.01)
    assert bias.trips


def test_time_shift_breaks_a_proof_that_knows_of_no_mismatch():
    before = TimeShift(0.05).outcome(link(), defended=False)
    after = TimeShift(0.05).outcome(link())
    assert before.verdict == "undetected-insecure"
    assert after.verdict == "key-zero"
    mild = TimeShift(0.5).outcome(link())
    assert mild.verdict == "detected"
    assert {each.name for each in mild.observables if each.trips} == {"arrival shift"}
    assert mild.key_believed_per_pulse < mild.key_safe_per_pulse


def test_drawn_arrival_times_have_the_shift_of_the_closed_form():
    """Pulse by pulse: early or late, a bit, a detector that sees it or not; mean difference at 5 sigma."""
    generator, pulses, ratio = rng(), 200_000, 0.5
    late, bit = generator.random(pulses) < 0.5, generator.integers(0, 2, pulses)
    favoured = late == (bit == 1)
    seen = generator.random(pulses) < np.where(favoured, 1.0, ratio)
    times = generator.normal(0, 1.0, pulses) + np.where(late, 0.5, -0.5)
    difference = times[seen & (bit == 1)].mean() - times[seen & (bit == 0)].mean()
    assert difference == pytest.approx(TimeShift(ratio).arrival_shift(), abs=5 * 2 / math.sqrt(pulses / 2))
    times_s = 5e-10 + 5e-11 * times[seen]
    histograms = arrival_histograms(times_s, bit[seen].astype(np.uint8), 1e-9)
    assert arrival_p_value(histograms) < 1e-9


@pytest.mark.parametrize(("ratio", "error"), [(0.0, 0.0), (0.2, 0.25), (1.0, 0.5), (0.0659, 0.11)])
def test_errors_of_faked_states(ratio, error):
    assert faked_state_error(ratio) == pytest.approx(error, abs=1e-4)
    honest = honest_statistics(link(60.0, **CLEAN))
    seen = FakedStates(ratio, resent_photons=0.01).transform(honest)
    assert qber(seen) == pytest.approx(error, abs=2e-3)


def test_faked_states_take_every_bit():
    seen = FakedStates(0.0).transform(honest_statistics(link()))
    assert safe_key_per_pulse(seen) < 1e-12
    assert seen.gains[0] == pytest.approx(honest_statistics(link()).gains[0], rel=1e-6)


def test_faked_states_break_a_proof_that_knows_of_no_mismatch():
    before = FakedStates(0.0).outcome(link(), defended=False)
    after = FakedStates(0.0).outcome(link())
    assert before.verdict == "undetected-insecure"
    assert before.key_believed_per_pulse > 5e-4
    assert after.verdict == "key-zero"


def test_faked_states_photon_by_photon():
    """Her strategy acted out on 1,000,000 pulses: classes within 5 sigma of the table."""
    one = link(0.0, **(CLEAN | {"misalignment_error": 0.02}))
    threat = FakedStates(0.3)
    seen = threat.transform(honest_statistics(one))
    generator, pulses, efficiency = rng(), 1_000_000, 0.2 * 10**-0.3
    k = generator.choice(2, pulses, p=one.source.probabilities)
    alice, bob = ((generator.random(pulses) > 0.8).astype(int) for _ in range(2))
    bit, eve = generator.integers(0, 2, pulses), generator.integers(0, 2, pulses)
    wrong = np.where(eve == alice, generator.random(pulses) < 0.02, generator.random(pulses) < 0.5)
    hers = bit ^ wrong
    photons = generator.poisson(1.0, pulses)
    to_one = np.where(bob == eve, generator.binomial(photons, 0.5), np.where(hers == 0, photons, 0))
    counted = [
        generator.binomial(number, efficiency * np.where(hers == detector, 1.0, 0.3)) > 0
        for detector, number in ((0, photons - to_one), (1, to_one))
    ]
    # How often she sees a pulse is set so that the gain of the signal stays.
    mean_seen = (counted[0] | counted[1]).mean()
    wanted = float(honest_statistics(one).gains[0])
    tap = -math.log(1 - min(1.0, wanted / mean_seen)) / 0.5 if wanted < mean_seen else 1.0
    sent = generator.random(pulses) < -np.expm1(-min(tap, 1.0) * one.source.mean_photons()[k])
    zero, bob_one = counted[0] & sent, counted[1] & sent
    result = np.where(zero & bob_one, generator.integers(0, 2, pulses), bob_one)
    table = seen.table.sum(axis=1)
    index = np.ravel_multi_index((k, bob, alice, result.astype(int), bit), table.shape)[zero | bob_one]
    counts = np.bincount(index, minlength=table.size)
    expected = pulses * table.ravel()
    scale = counts.sum() / expected.sum()
    assert scale == pytest.approx(1.0, abs=0.02)
    assert (np.abs(counts - scale * expected) < 5 * np.sqrt(expected + 1)).all()


def test_backflash_is_subtracted():
    glowing = Backflash(0.7)
    before, after = glowing.outcome(link(), defended=False), glowing.outcome(link())
    assert before.verdict == "undetected-insecure"
    assert not any(each.trips for each in before.observables)
    assert after.verdict == "key-zero"
    weak = Backflash(0.05)
    calm = Backflash(0.0).outcome(link())
    sifted = (
        readings(honest_statistics(link()), 1.0).sifted[0].sum() * honest_statistics(link()).live_fraction
    )
    lost = calm.key_believed_per_pulse - weak.outcome(link()).key_believed_per_pulse
    assert lost == pytest.approx(0.05 * sifted, rel=1e-6)
    isolated = Backflash(0.05, isolation_db=40.0).outcome(link())
    assert isolated.key_believed_per_pulse == pytest.approx(calm.key_believed_per_pulse, rel=1e-4)


def test_dead_times_of_their_own_give_bits_away():
    busy = link(5.0)
    threat = IndividualDeadTime(1e-6)
    before, after = threat.outcome(busy, defended=False), threat.outcome(busy)
    assert before.verdict == "undetected-insecure"
    assert after.verdict == "harmless"
    assert 0 < after.key_believed_per_pulse < after.key_safe_per_pulse
    watched = {each.name for each in threat.outcome(busy).observables}
    assert {"clicks while dead", "bit autocorrelation"} <= watched


def test_two_streams_of_clicks_have_the_correlations_of_the_closed_form():
    one = link(5.0, dead_time_s=0.0)
    threat = IndividualDeadTime(1e-7)
    seen = threat.transform(threat.commissioned(one))
    drawn = threat.draw(one, 100_000, rng())
    dead = clicks_while_dead(drawn.detections.slots, threat.dead_gates(one))
    share = seen.instruments.dead_clicks
    assert abs(dead - 100_000 * share) < 5 * math.sqrt(100_000 * share)
    assert dead > 0
    bits = drawn.detections.bits
    lag_one = autocorrelation(bits, 1)[0]
    assert abs(lag_one) == pytest.approx(math.sqrt(seen.instruments.autocorrelation_power), abs=0.02)
    assert ljung_box(bits) > chi2.isf(1e-9, LAGS)
    # A click while the other detector is dead is the other bit.
    soon = np.flatnonzero(np.diff(drawn.detections.slots) <= 20)
    assert (bits[soon] != bits[soon + 1]).mean() > 0.99


def test_afterpulses_repeat_bits_and_cost_errors():
    one = link(20.0, dead_time_s=0.0)
    drawn = Afterpulsing(0.05).draw(one, 100_000, rng())
    correlations = autocorrelation(drawn.detections.bits, 3)
    assert correlations[0] == pytest.approx(0.05, abs=5 / math.sqrt(1e5))
    seen = Afterpulsing(0.05).transform(honest_statistics(one))
    assert qber(seen) == pytest.approx(qber(honest_statistics(one)) * 0.95 + 0.025, abs=1e-3)
    before, after = Afterpulsing(0.02).outcome(one, defended=False), Afterpulsing(0.02).outcome(one)
    assert before.verdict == "harmless"  # the proof has seen the errors
    assert after.verdict == "detected"
    assert observable(after, "bit autocorrelation").trips


@settings(max_examples=15)
@given(st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)))
def test_stronger_attacks_leave_no_more_secret_and_move_their_observable(pair):
    weak, strong = sorted(pair)
    moved = {
        "detector-blinding": ("fraction", "detector current"),
        "backflash": ("emission_probability", None),
        "faked-states": ("fraction", None),
        "time-shift": ("fraction", "arrival shift"),
    }
    for attack_id, (parameter, name) in moved.items():
        less, more = (attack(attack_id, **{parameter: each}).outcome(link()) for each in (weak, strong))
        assert less.key_safe_per_pulse >= more.key_safe_per_pulse * (1 - 1e-9)
        if name is not None:
            assert observable(less, name).attacked <= observable(more, name).attacked * (1 + 1e-12)


@settings(max_examples=15)
@given(st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)))
def test_more_afterpulses_never_lower_the_errors(pair):
    less, more = (Afterpulsing(each).outcome(link()) for each in sorted(pair))
    for name in ("error rate Z0", "bit autocorrelation"):
        assert observable(less, name).attacked <= observable(more, name).attacked * (1 + 1e-12)
