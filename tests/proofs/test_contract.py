"""One battery for every proof: what a third party's proof has to pass as well."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import ConfigurationError, OutsideModel
from openqci.proofs import DecoyCounts, proof, proof_ids
from openqci.proofs.bounds import binary_entropy

SOURCES = {2: ((0.33, 0.1), (0.3, 0.7)), 3: ((0.5, 0.15, 1e-3), (0.5, 0.35, 0.15))}
BACKGROUND, MISALIGNMENT = 1e-6, 0.01


def truth(proof_id, pulses=1e9, transmittance=2e-3, key_probability=0.75):
    """Expected counts of a link that is known down to the photon number, and what no proof may exceed.

    Returns the counts, and the true single-photon events in Z and phase error rate.
    """
    mu, p = (np.array(each) for each in SOURCES[proof(proof_id).intensities])
    clicks = BACKGROUND + (1 - BACKGROUND) * -np.expm1(-transmittance * mu)
    errors = BACKGROUND / 2 + (clicks - BACKGROUND) * MISALIGNMENT
    y1 = BACKGROUND + (1 - BACKGROUND) * transmittance
    e1 = (BACKGROUND / 2 + (y1 - BACKGROUND) * MISALIGNMENT) / y1
    key, test = pulses * key_probability**2, pulses * (1 - key_probability) ** 2
    counts = DecoyCounts(key * p * clicks, key * p * errors, test * p * clicks, test * p * errors, mu, p)
    return counts, key * float(p @ (mu * np.exp(-mu))) * y1, e1


def scale(counts, factor):
    parts = (counts.z_counts, counts.z_errors, counts.x_counts, counts.x_errors)
    return DecoyCounts(
        *(np.asarray(part) * factor for part in parts), counts.intensities, counts.probabilities
    )


def length(proof_id, counts, leak_bits=0.0, epsilon_sec=1e-9, epsilon_cor=1e-15):
    return proof(proof_id).secret_length_bits(counts, leak_bits, epsilon_sec, epsilon_cor)


every_proof = pytest.mark.parametrize("proof_id", proof_ids())


@every_proof
@pytest.mark.parametrize("pulses", [1e7, 1e8, 1e9, 1e11])
@pytest.mark.parametrize("transmittance", [0.1, 1e-2, 1e-3, 1e-4])
def test_no_bound_promises_more_than_the_truth(proof_id, pulses, transmittance):
    counts, single_photons, phase_error = truth(proof_id, pulses, transmittance)
    kept = length(proof_id, counts)
    assert kept.single_photon_bits <= single_photons
    assert kept.phase_error >= phase_error


@every_proof
def test_bounds_close_in_on_the_truth_with_growing_blocks(proof_id):
    ratios = []
    for pulses in (1e9, 1e11, 1e13, 1e15):
        counts, single_photons, phase_error = truth(proof_id, pulses)
        kept = length(proof_id, counts)
        ratios.append(kept.single_photon_bits / single_photons)
    assert ratios == sorted(ratios)
    assert ratios[-1] > 0.9
    assert kept.phase_error < 2 * phase_error


@every_proof
def test_drawn_counts_never_break_a_bound(proof_id, numpy_rng):
    counts, single_photons, phase_error = truth(proof_id, 1e9)
    for _ in range(200):
        parts = [
            (numpy_rng.poisson(seen), errors)
            for seen, errors in ((counts.z_counts, counts.z_errors), (counts.x_counts, counts.x_errors))
        ]
        drawn = [np.minimum(numpy_rng.poisson(errors), seen) for seen, errors in parts]
        block = DecoyCounts(
            parts[0][0], drawn[0], parts[1][0], drawn[1], counts.intensities, counts.probabilities
        )
        kept = length(proof_id, block)
        assert kept.single_photon_bits <= single_photons
        assert kept.phase_error >= phase_error


@every_proof
def test_splitting_a_block_never_yields_more_key(proof_id):
    for pulses in (1e8, 1e9, 1e10, 1e12):
        counts, _, _ = truth(proof_id, pulses)
        whole = length(proof_id, counts, leak_bits=0.1 * sum(counts.z_counts)).length_bits
        for parts in (2, 3, 10):
            part = scale(counts, 1 / parts)
            assert parts * length(proof_id, part, 0.1 * sum(part.z_counts)).length_bits <= whole


@every_proof
@given(worse=st.floats(1.0, 10.0))
def test_more_errors_in_either_basis_never_yield_more_key(proof_id, worse):
    counts, _, _ = truth(proof_id)
    good = length(proof_id, counts)
    for name in ("z_errors", "x_errors"):
        parts = {each: getattr(counts, each) for each in ("z_counts", "z_errors", "x_counts", "x_errors")}
        parts[name] = np.minimum(np.asarray(parts[name]) * worse, parts[name[0] + "_counts"])
        bad = length(
            proof_id, DecoyCounts(**parts, intensities=counts.intensities, probabilities=counts.probabilities)
        )
        assert bad.length_bits <= good.length_bits


@every_proof
@given(leak_bits=st.floats(0.0, 1e6), more_bits=st.floats(0.0, 1e6))
def test_every_leaked_bit_costs_one(proof_id, leak_bits, more_bits):
    counts, _, _ = truth(proof_id)
    first, second = length(proof_id, counts, leak_bits), length(proof_id, counts, leak_bits + more_bits)
    assert second.length_bits <= first.length_bits
    assert first.unclipped_bits - second.unclipped_bits == pytest.approx(more_bits, abs=1e-3)


@every_proof
@given(data=st.data())
def test_valid_counts_give_a_length_from_zero_to_the_bits_there_were(proof_id, data):
    intensities, probabilities = SOURCES[proof(proof_id).intensities]
    count = st.one_of(st.integers(0, 5), st.integers(0, 10**4), st.integers(0, 10**12))
    drawn = [[data.draw(count) for _ in intensities] for _ in range(2)]
    errors = [[data.draw(st.integers(0, n)) for n in basis] for basis in drawn]
    block = DecoyCounts(drawn[0], errors[0], drawn[1], errors[1], intensities, probabilities)
    kept = length(proof_id, block, data.draw(st.floats(0, 1e12)))
    assert 0 <= kept.length_bits <= sum(drawn[0])
    assert math.isfinite(kept.unclipped_bits)
    assert 0 <= kept.phase_error <= 0.5
    assert kept.vacuum_bits + kept.single_photon_bits <= sum(drawn[0]) * (1 + 1e-12)


@every_proof
def test_no_counts_give_no_key(proof_id):
    intensities, probabilities = SOURCES[proof(proof_id).intensities]
    none = [0] * len(intensities)
    kept = length(proof_id, DecoyCounts(none, none, none, none, intensities, probabilities))
    assert (kept.length_bits, kept.phase_error, kept.single_photon_bits) == (0, 0.5, 0.0)


@every_proof
def test_half_of_the_bits_wrong_give_no_key(proof_id):
    counts, _, _ = truth(proof_id)
    noise = DecoyCounts(
        counts.z_counts,
        np.asarray(counts.z_counts) / 2,
        counts.x_counts,
        np.asarray(counts.x_counts) / 2,
        counts.intensities,
        counts.probabilities,
    )
    leak_bits = sum(counts.z_counts) * binary_entropy(0.5)
    assert length(proof_id, noise, leak_bits).length_bits == 0


@every_proof
def test_photon_number_splitting_is_noticed(proof_id):
    # Eve blocks single photons and lets multi-photon pulses pass: the gain of the signal looks as always.
    counts, _, _ = truth(proof_id, 1e11)
    mu = np.array(counts.intensities)
    multi = np.array(counts.probabilities) * (1 - (1 + mu) * np.exp(-mu))
    factor = counts.z_counts[0] / multi[0]
    z, x = multi * factor, multi * factor / 9
    attacked = DecoyCounts(z, 0.01 * z, x, 0.01 * x, counts.intensities, counts.probabilities)
    kept = length(proof_id, attacked)
    assert kept.single_photon_bits == 0
    assert kept.length_bits == 0


@every_proof
@pytest.mark.parametrize("field", ["epsilon_sec", "epsilon_cor"])
def test_a_smaller_epsilon_costs_key(proof_id, field):
    counts, _, _ = truth(proof_id)
    lengths = [length(proof_id, counts, **{field: epsilon}).length_bits for epsilon in (1e-6, 1e-9, 1e-12)]
    assert lengths == sorted(set(lengths), reverse=True)


@every_proof
def test_the_key_carries_its_epsilon_and_proof(proof_id):
    kept = length(proof_id, truth(proof_id)[0], epsilon_sec=1e-9, epsilon_cor=1e-12)
    assert (kept.epsilon, kept.proof_id) == (pytest.approx(1.001e-9), proof_id)
    assert proof(proof_id).reference


@every_proof
@pytest.mark.parametrize("epsilon", [0.0, 1.0, -1e-9, math.nan])
def test_an_epsilon_outside_its_range_is_refused(proof_id, epsilon):
    with pytest.raises(OutsideModel, match="epsilon_sec"):
        length(proof_id, truth(proof_id)[0], epsilon_sec=epsilon)
    with pytest.raises(OutsideModel, match="epsilon_cor"):
        length(proof_id, truth(proof_id)[0], epsilon_cor=epsilon)


@every_proof
@pytest.mark.parametrize("leak_bits", [-1.0, math.nan, math.inf])
def test_a_leak_that_is_no_number_of_bits_is_refused(proof_id, leak_bits):
    with pytest.raises(OutsideModel, match="leak_bits"):
        length(proof_id, truth(proof_id)[0], leak_bits)


@every_proof
def test_another_number_of_intensities_is_refused(proof_id):
    intensities, probabilities = SOURCES[5 - proof(proof_id).intensities]
    some = [100] * len(intensities)
    block = DecoyCounts(some, [0] * len(some), some, [0] * len(some), intensities, probabilities)
    with pytest.raises(OutsideModel, match="intensities"):
        length(proof_id, block)


def test_an_unknown_proof_is_refused_with_those_that_there_are():
    with pytest.raises(ConfigurationError, match="rusca-2018"):
        proof("trust-me-2026")


@pytest.mark.parametrize(
    ("changes", "parameter"),
    [
        ({"z_errors": (180_001, 0)}, "z_errors"),
        ({"z_errors": (-1, 0)}, "z_errors"),
        ({"z_counts": (math.nan, 1)}, "z_counts"),
        ({"x_counts": (math.inf, 1)}, "x_counts"),
        ({"x_errors": (1, math.nan)}, "x_counts"),
        ({"x_counts": (1, 2, 3)}, "x_counts"),
        ({"intensities": (0.1, 0.33)}, "intensities"),
        ({"intensities": (0.33, -0.1)}, "intensities"),
        ({"intensities": (math.nan, 0.1)}, "intensities"),
        ({"probabilities": (0.3, 0.6)}, "probabilities"),
        ({"probabilities": (1.0, 0.0)}, "probabilities"),
        ({"probabilities": (1.0,)}, "probabilities"),
    ],
)
def test_counts_that_cannot_be_are_refused(counts, changes, parameter):
    with pytest.raises(OutsideModel) as refusal:
        counts(**changes)
    assert refusal.value.parameter == parameter


def test_the_verification_tag_is_paid_for_here(counts):
    with_tag = length("rusca-2018", counts(), epsilon_cor=2.0**-49).unclipped_bits
    shorter = length("rusca-2018", counts(), epsilon_cor=2.0**-9).unclipped_bits
    assert shorter - with_tag == pytest.approx(40.0)


def test_a_vacuum_decoy_alone_says_nothing_of_single_photons(counts):
    assert length("rusca-2018", counts(intensities=(0.33, 0.0))).single_photon_bits == 0


def test_lim_2014_needs_a_signal_brighter_than_its_decoys_together():
    block = truth("lim-2014")[0]
    parts = (block.z_counts, block.z_errors, block.x_counts, block.x_errors)
    dim = DecoyCounts(*parts, (0.5, 0.4, 0.2), block.probabilities)
    assert length("lim-2014", dim).single_photon_bits == 0


def test_wiesemann_spends_less_epsilon_than_rusca(counts):
    assert length("wiesemann-2024", counts()).length_bits > length("rusca-2018", counts()).length_bits


def test_workers_import_the_proofs_without_scipy():
    found = "import sys, openqci.proofs; print('scipy' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", found], text=True).strip() == "False"
