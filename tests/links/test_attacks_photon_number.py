"""Photon-number and beam splitting: sheet values, her strategy acted out, with and without decoys."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqci.core.errors import OutsideModel
from openqci.links.attacks import honest_statistics
from openqci.links.attacks.photon_number import (
    BeamSplitting,
    PhotonNumberSplitting,
    SplittingWithoutDecoys,
    insecure_loss_db,
    multi_photon_probability,
    split_photons,
)
from openqci.links.attacks.statistics import safe_key_per_pulse
from tests.links.attack_links import THREE, link, rng

SMALL = ((0.1, 0.02), (0.9, 0.1))


@pytest.mark.parametrize(("mu", "loss_db"), [(0.05, 16.2), (0.1, 13.3), (0.2, 10.5), (0.5, 7.2)])
def test_loss_from_which_splitting_without_decoys_leaves_nothing(mu, loss_db):
    assert insecure_loss_db(mu) == pytest.approx(loss_db, abs=0.05)
    eta = 10 ** (-insecure_loss_db(mu) / 10)
    assert 1 - math.exp(-eta * mu) == pytest.approx(multi_photon_probability(mu))


@pytest.mark.parametrize("mu", [0.05, 0.1, 0.2, 0.5])
def test_the_table_loses_its_last_secret_at_that_loss(mu):
    """With a perfect receiver the table has secrets below the loss of the sheet, and none above."""
    clean = {
        "loss_db": 0.0,
        "detector_efficiency": 1.0,
        "dark_count_probability": 0.0,
        "afterpulse_probability": 0.0,
        "misalignment_error": 0.0,
        "dead_time_s": 0.0,
    }
    for beyond_db, secret in ((-0.2, True), (0.2, False)):
        one = link((insecure_loss_db(mu) + beyond_db) / 0.2, ((mu, mu / 10), (0.9, 0.1)), **clean)
        threat = SplittingWithoutDecoys()
        outcome = threat.outcome(one, defended=False)
        assert (outcome.key_safe_per_pulse > 1e-9) is secret
        assert outcome.key_believed_per_pulse > 1e-4


def test_without_decoys_nothing_shows_and_gllp_gives_no_key_where_there_is_none():
    one = link(75.0, SMALL)
    before = SplittingWithoutDecoys().outcome(one, defended=False)
    after = SplittingWithoutDecoys().outcome(one)
    assert before.verdict == "undetected-insecure"
    assert before.key_believed_per_pulse > 1e-5
    assert before.key_safe_per_pulse < 1e-12
    for name in ("gain 0", "error rate Z0"):
        seen = next(each for each in before.observables if each.name == name)
        assert seen.attacked == pytest.approx(seen.honest, rel=0.03)
    assert after.verdict == "key-zero"


def test_gllp_gives_key_where_loss_is_small():
    one = link(0.0, SMALL, loss_db=0.0, detector_efficiency=0.9, dead_time_s=0.0, afterpulse_probability=0.0)
    outcome = SplittingWithoutDecoys().outcome(one)
    assert 0 < outcome.key_believed_per_pulse < outcome.key_safe_per_pulse


def test_decoys_find_splitting():
    for source in (None, THREE):
        one = link() if source is None else link(source=source)
        before = PhotonNumberSplitting().outcome(one, defended=False)
        after = PhotonNumberSplitting().outcome(one)
        assert before.verdict == "undetected-insecure"
        assert before.key_believed_per_pulse > 1e-3
        assert after.verdict == "key-zero"
        assert after.key_safe_per_pulse < 1e-12
        yields = next(each for each in after.observables if each.name == "yield chi-square")
        assert yields.trips
        assert yields.attacked > 25 > yields.honest  # more than five sigma
        decoy = next(each for each in after.observables if each.name == "gain 1")
        assert decoy.attacked < 0.5 * decoy.honest
        signal = next(each for each in after.observables if each.name == "gain 0")
        assert signal.attacked == pytest.approx(signal.honest, rel=1e-9)


def test_splitting_photon_by_photon():
    """Her strategy acted out on 2,000,000 pulses: gains and bits per intensity within 5 sigma."""
    one = link(5.0, dead_time_s=0.0, afterpulse_probability=0.0, dark_count_probability=0.0)
    seen = split_photons(honest_statistics(one))
    generator, pulses = rng(), 2_000_000
    k = generator.choice(2, pulses, p=one.source.probabilities)
    n = generator.poisson(one.source.mean_photons()[k])
    wanted = float(honest_statistics(one).gains[0])
    efficiency = 0.2 * 10**-0.3
    weights = np.array([math.exp(-0.5) * 0.5**m / math.factorial(m) for m in range(15)])
    clicks = 1 - (1 - efficiency) ** np.arange(-1, 14)
    from_multi = float(weights[2:] @ clicks[2:])
    assert from_multi < wanted  # at this loss she needs single photons too
    pass_single = (wanted - from_multi) / (weights[1] * efficiency)
    handed = np.where(n >= 2, n - 1, np.where(generator.random(pulses) < pass_single, n, 0))
    alice, bob = ((generator.random(pulses) > 0.8).astype(int) for _ in range(2))
    bit = generator.integers(0, 2, pulses)
    counted = generator.binomial(handed, efficiency)
    wrong = generator.binomial(counted, np.where(alice == bob, 0.01, 0.5))
    both = (wrong > 0) & (counted > wrong)
    result = np.where(both, generator.integers(0, 2, pulses), bit ^ (wrong > 0))
    table = seen.table.sum(axis=1)
    index = np.ravel_multi_index((k, bob, alice, result, bit), table.shape)[counted > 0]
    counts = np.bincount(index, minlength=table.size)
    spread = np.sqrt(pulses * table.ravel() + 1)
    assert (np.abs(counts - pulses * table.ravel()) < 5 * spread).all()
    expected = pulses * float(seen.table[:, 1].sum())
    assert abs(both.sum() - expected) < 5 * math.sqrt(expected)
    # What she knows: all that came from pulses of two and more.
    known = pulses * float(seen.views[:2].sum())
    assert abs(((counted > 0) & (n >= 2)).sum() - known) < 5 * math.sqrt(known)


def test_beam_splitting_leaves_no_trace_and_the_proof_has_paid_for_it():
    one = link(60.0)
    honest, seen = honest_statistics(one), BeamSplitting().transform(honest_statistics(one))
    assert seen.table == pytest.approx(honest.table, rel=1e-12)
    before, after = BeamSplitting().outcome(one, defended=False), BeamSplitting().outcome(one)
    assert before.verdict == "undetected-insecure"
    assert after.verdict == "harmless"
    assert not any(each.trips for each in after.observables)
    leaked = 1 - math.exp(-0.5 * (1 - 10**-1.2))
    # Signals dominate: what is left is at most their share that was not tapped, and the decoys'.
    left = after.key_safe_per_pulse / safe_key_per_pulse(honest)
    assert 1 - leaked < left < 1 - leaked + 0.05
    assert after.key_believed_per_pulse <= after.key_safe_per_pulse


@settings(max_examples=20)
@given(st.tuples(st.floats(0, 1), st.floats(0, 1)), st.floats(10, 80))
def test_more_splitting_never_leaves_more_secret(fractions, length_km):
    one = link(length_km)
    for kind in (PhotonNumberSplitting, SplittingWithoutDecoys, BeamSplitting):
        less, more = (kind(each).outcome(one) for each in sorted(fractions))
        assert less.key_safe_per_pulse >= more.key_safe_per_pulse * (1 - 1e-9)


def test_bad_mean_photons_are_named():
    with pytest.raises(OutsideModel, match="mean_photons"):
        insecure_loss_db(0.0)
