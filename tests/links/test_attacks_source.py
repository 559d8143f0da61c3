"""Trojan horse, seeding, distinguishable decoys, fluctuating intensities: sheet values, before and after."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqci.core.errors import OutsideModel
from openqci.links.attacks import STANDARD_BLOCK, attack, honest_statistics
from openqci.links.attacks.assessment import finite_key
from openqci.links.attacks.source import (
    DecoyDistinguishability,
    IntensityFluctuation,
    LaserSeeding,
    TrojanHorse,
    least_key,
    needed_isolation_db,
    phase_error_with_leak,
    reflected_photons,
)
from openqci.links.attacks.statistics import line_photons, safe_of_single_photons
from tests.links.attack_links import THREE, TWO, link


def test_isolation_budget_of_the_sheet():
    assert needed_isolation_db(1e20, 1e9, 1e-6) == pytest.approx(170.0)
    assert reflected_photons(1e20, 1e9, 170.0) == pytest.approx(1e-6)
    with pytest.raises(OutsideModel, match="reflected"):
        needed_isolation_db(1e20, 1e9, 0.0)


def test_the_leak_on_the_circle():
    assert phase_error_with_leak(0.02, 0.0, 0.01) == 0.02
    assert 0.02 < phase_error_with_leak(0.02, 1e-8, 0.01) < 0.03
    assert phase_error_with_leak(0.02, 1.5, 0.01) == 0.5
    assert phase_error_with_leak(0.02, 1e-6, 0.0) == 0.5
    # Twice the angle of the coin further on the circle: sin^2(asin sqrt(e) + 2 asin sqrt(D)).
    coin = 1e-6 / 2 / 0.01
    angle = np.arcsin(np.sqrt(0.02)) + 2 * np.arcsin(np.sqrt(coin))
    assert phase_error_with_leak(0.02, 1e-6, 0.01) == pytest.approx(np.sin(angle) ** 2, rel=1e-5)


@settings(max_examples=100)
@given(
    st.floats(0, 0.5),
    st.tuples(st.floats(-15, 0.5), st.floats(-15, 0.5)),
    st.floats(1e-6, 1),
)
def test_more_reflected_light_never_lowers_the_phase_error(error, exponents, single_yield):
    less, more = (phase_error_with_leak(error, 10**each, single_yield) for each in sorted(exponents))
    assert error - 1e-12 <= less <= more + 1e-12


def test_trojan_light_takes_the_key_unless_isolation_is_in_the_proof():
    bare = TrojanHorse(1e20, 100.0)
    before, after = bare.outcome(link(), defended=False), bare.outcome(link())
    assert before.verdict == "undetected-insecure"
    assert before.key_believed_per_pulse > 5e-4
    assert before.key_safe_per_pulse < 1e-6
    assert after.verdict == "key-zero"
    isolated = TrojanHorse(1e20, 170.0).outcome(link())
    assert isolated.verdict == "detected"
    assert next(each for each in isolated.observables if each.trips).name == "injected power"
    assert 0.9 < isolated.key_believed_per_pulse / before.key_believed_per_pulse < 1


def test_trojan_light_changes_no_count():
    honest = honest_statistics(link())
    assert TrojanHorse(1e20, 100.0).transform(honest).table == pytest.approx(honest.table, rel=1e-12)


def test_less_light_than_the_watchdog_sees_is_paid_for_by_the_proof():
    outcome = TrojanHorse(1e15, 170.0).outcome(link())
    assert outcome.verdict == "harmless"
    assert not any(each.trips for each in outcome.observables)


@pytest.mark.parametrize("source", [TWO, THREE])
def test_seeding_breaks_a_proof_that_is_told_old_intensities(source):
    one = link(source=source)
    before = LaserSeeding(3.0).outcome(one, defended=False)
    after = LaserSeeding(3.0).outcome(one)
    assert before.verdict == "undetected-insecure"
    assert not any(each.trips for each in before.observables)
    assert after.verdict == "detected"
    assert [each.name for each in after.observables if each.trips] == ["source tap"]
    honest = LaserSeeding(1.0).outcome(one)
    for seen, calm in zip(before.observables, honest.observables, strict=False):
        if seen.name.startswith("gain"):
            assert seen.attacked == calm.attacked


@pytest.mark.parametrize("source", [TWO, THREE])
def test_seeding_within_the_tolerance_of_the_tap_is_paid_for(source):
    outcome = LaserSeeding(1.049).outcome(link(source=source))
    assert outcome.verdict == "harmless"
    assert not any(each.trips for each in outcome.observables)
    assert 0 < outcome.key_believed_per_pulse < outcome.key_safe_per_pulse


def test_seeding_that_is_not_hidden_shows_in_gains():
    outcome = LaserSeeding(1.5, hidden=0.0).outcome(link(), defended=True)
    assert {"gain 0", "gain 1", "source tap"} <= {each.name for each in outcome.observables if each.trips}
    gain = next(each for each in outcome.observables if each.name == "gain 0")
    assert gain.attacked / gain.honest == pytest.approx(1.5, rel=0.02)


@settings(max_examples=15)
@given(st.tuples(st.floats(1, 8), st.floats(1, 8)), st.floats(20, 70))
def test_more_seeding_never_leaves_more_secret(factors, length_km):
    honest = honest_statistics(link(length_km))
    mean = honest.link.source.mean_photons()
    less, more = (safe_of_single_photons(honest, each * mean) for each in sorted(factors))
    assert less >= more * (1 - 1e-5) - 1e-12


@pytest.mark.parametrize(("source", "length_km"), [(TWO, 30.0), (TWO, 60.0), (THREE, 30.0), (THREE, 60.0)])
def test_the_key_is_gone_when_decoys_differ_by_about_their_own_yield(source, length_km):
    """Distances in units of nu eta: a hundredth is harmless, thirty times it leaves nothing."""
    one = link(length_km, source)
    eta = float(line_photons(one)[0, 0, 0].sum())
    scale = 0.15 * eta
    near = DecoyDistinguishability(scale / 100).outcome(one)
    far = DecoyDistinguishability(min(1.0, 30 * scale)).outcome(one)
    calm = DecoyDistinguishability(0.0).outcome(one)
    assert near.verdict == "harmless"
    assert near.key_believed_per_pulse > 0.6 * calm.key_believed_per_pulse
    assert far.verdict == "key-zero"
    assert far.key_safe_per_pulse < 0.1 * calm.key_safe_per_pulse


def test_distinguishable_decoys_break_a_proof_without_slack():
    before = DecoyDistinguishability(0.01).outcome(link(), defended=False)
    after = DecoyDistinguishability(0.01).outcome(link())
    assert before.verdict == "undetected-insecure"
    assert not any(each.trips for each in before.observables)
    assert after.verdict == "key-zero"


@settings(max_examples=15)
@given(st.tuples(st.floats(-7, 0), st.floats(-7, 0)))
def test_more_distance_never_gives_more_key(exponents):
    less, more = (DecoyDistinguishability(10**each).outcome(link()) for each in sorted(exponents))
    assert less.key_believed_per_pulse >= more.key_believed_per_pulse - 1e-9
    assert less.key_safe_per_pulse >= more.key_safe_per_pulse * (1 - 1e-5) - 1e-12


@pytest.mark.parametrize("source", [TWO, THREE])
@pytest.mark.parametrize("length_km", [20.0, 60.0])
def test_worst_intensities_are_at_a_corner(source, length_km):
    honest = honest_statistics(link(length_km, source))
    nominal = honest.link.source.mean_photons()
    worst = least_key(honest, STANDARD_BLOCK, 0.05, together=False)
    for scale in product((0.95, 0.98, 1.0, 1.03, 1.05), repeat=len(nominal)):
        inside = finite_key(honest, STANDARD_BLOCK, nominal * np.array(scale)).length_bits
        assert inside / STANDARD_BLOCK.pulses >= worst


def test_fluctuating_intensities_break_a_proof_without_margin():
    weak = attack("intensity-fluctuation", relative_deviation=0.2)
    before, after = weak.outcome(link(80.0), defended=False), weak.outcome(link(80.0))
    honest = attack("intensity-fluctuation", relative_deviation=0.0).outcome(link(80.0))
    # The proof without margin finds more key than without the deviation, where there is less.
    assert before.key_believed_per_pulse > 1.5 * honest.key_believed_per_pulse
    assert before.key_safe_per_pulse < honest.key_safe_per_pulse
    assert after.key_believed_per_pulse <= honest.key_believed_per_pulse
    assert before.key_believed_per_pulse > before.key_safe_per_pulse > after.key_believed_per_pulse


def test_signal_low_and_decoys_high_is_what_fools_the_proof_most():
    one = link(60.0)
    chosen = IntensityFluctuation(0.05)
    honest = honest_statistics(one)
    excess = {}
    for scale in product((0.95, 1.05), repeat=2):

        class Corner(IntensityFluctuation):
            def scales(self, statistics, corner=scale):
                return np.array(corner)

        outcome = Corner(0.05).outcome(one, defended=False)
        excess[scale] = outcome.key_believed_per_pulse - outcome.key_safe_per_pulse
    assert max(excess, key=excess.get) == tuple(chosen.scales(honest))


def test_correlated_pulses_show_at_the_tap():
    outcome = IntensityFluctuation(0.02, 0.05).outcome(link())
    assert "source autocorrelation" in [each.name for each in outcome.observables if each.trips]
    quiet = IntensityFluctuation(0.02, 0.0).outcome(link())
    assert quiet.verdict == "harmless"
