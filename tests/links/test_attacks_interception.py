"""Intercept-resend, double clicks and denial of service: sheet values, mechanisms, before and after."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqci.core.errors import OutsideModel
from openqci.links.attacks import attack, honest_statistics
from openqci.links.attacks.interception import (
    DenialOfService,
    DoubleClick,
    InterceptResend,
    error_after_intercept_resend,
    fraction_at_error_limit,
    one_way_error_limit,
)
from openqci.links.attacks.statistics import readings
from openqci.quantum import exchange, expected_statistics
from tests.links.attack_links import THREE, class_p_value, link, rng


def qber(statistics, basis=0):
    log = readings(statistics, 1.0)
    return log.errors[basis].sum() / log.sifted[basis].sum()


def test_limits_of_one_way_key():
    assert one_way_error_limit(2) == pytest.approx(0.11003, abs=5e-6)
    assert one_way_error_limit(3) == pytest.approx(0.1262, abs=5e-5)
    with pytest.raises(OutsideModel, match="bases"):
        one_way_error_limit(4)


def test_full_interception_gives_a_quarter_of_errors_on_a_clean_link():
    clean = link(0.0, misalignment_error=0.0, dark_count_probability=0.0, afterpulse_probability=0.0)
    seen = InterceptResend(1.0).transform(honest_statistics(clean))
    assert qber(seen) == pytest.approx(0.25, abs=1e-12)
    assert qber(seen, 1) == pytest.approx(0.25, abs=1e-12)


@settings(max_examples=30)
@given(fraction=st.floats(0, 1), length_km=st.floats(0, 100))
def test_the_table_gives_the_formula_of_the_sheet(fraction, length_km):
    one = link(length_km)
    seen = InterceptResend(fraction).transform(honest_statistics(one))
    expected = error_after_intercept_resend(expected_statistics(one).qber, fraction)
    assert qber(seen) == pytest.approx(expected, rel=1e-9)
    assert seen.gains == pytest.approx(expected_statistics(one).gains, rel=1e-9)


def test_the_fraction_at_the_limit():
    """(11.003 % - 1 %) / (25 % - 0.5 %) of the pulses bring the error rate to the limit."""
    fraction = fraction_at_error_limit(0.01)
    assert fraction == pytest.approx((0.11003 - 0.01) / 0.245, abs=1e-4)
    assert error_after_intercept_resend(0.01, fraction) == pytest.approx(one_way_error_limit())


def test_the_proof_sees_interception_and_a_link_that_does_not_look_is_lost():
    before = InterceptResend(1.0).outcome(link(source=THREE), defended=False)
    after = InterceptResend(1.0).outcome(link(source=THREE))
    assert before.key_believed_per_pulse > 5e-4
    assert before.key_safe_per_pulse < 1e-15
    assert before.verdict == "undetected-insecure"
    assert after.key_believed_per_pulse == 0.0
    assert after.verdict == "key-zero"


def test_a_little_interception_costs_key_and_harms_nobody():
    calm, tapped = (attack("intercept-resend", fraction=p).outcome(link()) for p in (0.0, 0.02))
    assert tapped.verdict == "harmless"
    assert 0 < tapped.key_believed_per_pulse < 0.9 * calm.key_believed_per_pulse
    assert tapped.key_believed_per_pulse < tapped.key_safe_per_pulse


@settings(max_examples=20)
@given(st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_more_interception_never_gives_fewer_errors_or_more_key(fractions):
    less, more = (attack("intercept-resend", fraction=p).outcome(link()) for p in sorted(fractions))
    for one, other in zip(less.observables, more.observables, strict=True):
        if one.name.startswith("error"):
            assert one.attacked <= other.attacked * (1 + 1e-9)
    assert less.key_believed_per_pulse >= more.key_believed_per_pulse
    assert less.key_safe_per_pulse >= more.key_safe_per_pulse * (1 - 1e-9)


def test_records_with_nothing_intercepted_stay_as_they_are():
    honest = exchange(link(), 5000, rng())
    same = InterceptResend(0.0).transform_records(honest, rng())
    assert (same.detections.bits == honest.detections.bits).all()


def test_discarded_double_clicks_give_the_key_away_and_random_bits_do_not():
    before = DoubleClick().outcome(link(), defended=False)
    after = DoubleClick().outcome(link())
    assert before.verdict == "undetected-insecure"
    assert before.key_believed_per_pulse > 7e-4
    assert before.key_safe_per_pulse < 1e-12
    error = next(each for each in before.observables if each.name == "error rate Z0")
    assert error.attacked < 0.02
    assert after.verdict == "key-zero"
    error = next(each for each in after.observables if each.name == "error rate Z0")
    assert error.attacked == pytest.approx(0.25 + 0.01 / 2, abs=0.005)
    doubles = next(each for each in after.observables if each.name == "double clicks")
    assert doubles.trips
    assert doubles.attacked == pytest.approx(0.5, abs=0.01)


def test_weak_double_click_attacks_trip_their_rate_before_they_hurt():
    outcome = DoubleClick(0.002).outcome(link())
    assert outcome.verdict == "detected"
    assert [each.name for each in outcome.observables if each.trips] == ["double clicks"]
    assert outcome.key_believed_per_pulse < outcome.key_safe_per_pulse


def test_bright_pulses_pulse_by_pulse():
    """Her strategy acted out on 400,000 pulses: classes agree with the table at 1e-4, rates at 5 sigma."""
    one = link(0.0, dead_time_s=0.0, afterpulse_probability=0.0, dark_count_probability=0.0)
    seen = DoubleClick().transform(honest_statistics(one))
    generator, pulses = rng(), 400_000
    mean = one.source.mean_photons()
    silent = 1 - min(1.0, 2 * float(honest_statistics(one).gains[0]))
    tap = -np.log(silent) / mean[0]
    k = generator.choice(2, pulses, p=one.source.probabilities)
    alice, bit = (generator.random(pulses) > 0.8).astype(int), generator.integers(0, 2, pulses)
    eve = generator.integers(0, 2, pulses)
    sent = generator.random(pulses) < -np.expm1(-tap * mean[k])
    wrong = np.where(eve == alice, generator.random(pulses) < 0.01, generator.integers(0, 2, pulses) == 1)
    bob = (generator.random(pulses) > 0.8).astype(int)
    doubles = sent & (bob != eve)
    result = np.where(doubles, generator.integers(0, 2, pulses), bit ^ wrong)
    table = seen.table.sum(axis=1)
    index = np.ravel_multi_index((k, bob, alice, result, bit), table.shape)[sent]
    counts = np.bincount(index, minlength=table.size)
    spread = np.sqrt(pulses * table.ravel() + 1)
    assert (np.abs(counts - pulses * table.ravel()) < 5 * spread).all()
    expected_doubles = pulses * float(seen.table[:, 1].sum())
    assert abs(doubles.sum() - expected_doubles) < 5 * np.sqrt(expected_doubles)


def test_denial_of_service_takes_key_and_gives_none_away():
    for parameters in ({"extra_loss_db": 20.0}, {"extra_loss_db": 0.0, "noise_photons": 0.05}):
        outcome = DenialOfService(**parameters).outcome(link())
        assert outcome.verdict == "key-zero"
        assert any(each.trips for each in outcome.observables)
        assert outcome.key_believed_per_pulse <= outcome.key_safe_per_pulse


def test_lost_detections_are_those_of_a_longer_line():
    one = link(20.0, afterpulse_probability=0.0, dead_time_s=0.0, dark_count_probability=0.0)
    cut = DenialOfService(3.0).transform_records(exchange(one, 100_000, rng()), rng(2))
    assert class_p_value(cut, DenialOfService(3.0).transform(honest_statistics(one)).table) > 1e-4


@settings(max_examples=20)
@given(st.tuples(st.floats(0, 60), st.floats(0, 60)), st.floats(0, 0.1))
def test_more_loss_never_gives_more_key(losses, noise):
    less, more = (DenialOfService(each, noise).outcome(link()) for each in sorted(losses))
    assert less.key_believed_per_pulse >= more.key_believed_per_pulse
