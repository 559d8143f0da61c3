"""BBM92 to key: published satellites and fibres, laws, and why there is no key."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import hypergeom

from openqci.core.errors import OutsideModel
from openqci.proofs.bounds import binary_entropy
from openqci.proofs.entanglement import (
    Bbm92Asymptotic,
    Bbm92Finite,
    PairCounts,
    log_tail,
    sampled_error,
)

FINITE, ENDLESS = Bbm92Finite(), Bbm92Asymptotic()


def counts(bits: float, error: float, test_share: float = 0.5) -> PairCounts:
    z, x = bits * (1 - test_share), bits * test_share
    return PairCounts(z, z * error, x, x * error)


def leak_bits(block: PairCounts, efficiency: float) -> float:
    return efficiency * block.z_counts * binary_entropy(block.z_errors / block.z_counts)


def test_micius_2020():
    # Yin et al., Nature 582, 501 (2020): 0.43 bit/s; 3104 bits in 3100 s at 4.51 % (from memory), f 1.19.
    sifted = PairCounts(3104, 3104 * 0.0451, 3104, 3104 * 0.0451)
    found = ENDLESS.secret_length(sifted, leak_bits(sifted, 1.19), 1e-9, 1e-9)
    assert found.unclipped_bits / 3100 == pytest.approx(0.420, abs=0.001)


@pytest.mark.parametrize(("efficiency", "rate_bps"), [(1.0, 1.21), (1.1, 1.05)])
def test_neumann_248_km(efficiency, rate_bps):
    # Nat. Commun. 13, 6134 (2022): 9 pairs/s, visibility 0.86, published 1.4 bit/s (average visibility used).
    sifted = counts(2 * 4.5, 0.07)
    found = ENDLESS.secret_length(sifted, leak_bits(sifted, efficiency), 1e-9, 1e-9)
    assert found.unclipped_bits == pytest.approx(rate_bps, abs=0.01)


def test_the_scalar_and_the_array_are_one():
    blocks = counts(np.array([1e4, 1e5, 1e6]), 0.02)
    together = FINITE.secret_length(blocks, 0.16 * blocks.z_counts, 1e-9, 1e-12).length_bits
    apart = [
        float(FINITE.secret_length(counts(n, 0.02), 0.16 * n / 2, 1e-9, 1e-12).length_bits)
        for n in (1e4, 1e5, 1e6)
    ]
    assert together.tolist() == apart


@given(st.floats(2, 9), st.floats(0, 2), st.floats(0.001, 0.1))
def test_larger_blocks_are_better_and_none_beats_the_endless_one(size, more, error):
    rates = []
    for bits in (10**size, 10 ** (size + more)):
        block = counts(bits, error)
        leak = leak_bits(block, 1.1)
        finite = FINITE.secret_length(block, leak, 1e-9, 1e-9)
        endless = ENDLESS.secret_length(block, leak, 1e-9, 1e-9)
        assert finite.length_bits <= max(0.0, float(endless.unclipped_bits)) + 1e-6
        rates.append(float(finite.unclipped_bits) / bits)
    assert max(0.0, rates[0]) <= max(0.0, rates[1]) + 1e-9


@given(st.floats(3, 8), st.floats(0.001, 0.1))
def test_splitting_a_block_never_gains(size, error):
    whole, part = counts(10**size, error), counts(10**size / 10, error)
    of_whole = FINITE.secret_length(whole, leak_bits(whole, 1.1), 1e-9, 1e-9).length_bits
    of_part = FINITE.secret_length(part, leak_bits(part, 1.1), 1e-9, 1e-9).length_bits
    assert 10 * of_part <= of_whole


@given(st.floats(-15, -2), st.floats(0, 5))
def test_a_stricter_epsilon_never_gives_more(log_epsilon, stricter):
    block = counts(1e6, 0.03)
    loose, strict = (
        FINITE.secret_length(block, 1e5, 10**each, 1e-9).unclipped_bits
        for each in (log_epsilon, log_epsilon - stricter)
    )
    assert strict <= loose + 1e-6


def test_the_sampling_bound_holds_in_drawn_samples():
    # 2,000 blocks with 5 % errors in all: the key's own rate exceeds the bound no oftener than epsilon says.
    rng, epsilon, sample, key = np.random.default_rng(12), 0.05, 2000, 3000
    in_sample = rng.hypergeometric(250, 4750, sample, 2000)
    bound = sampled_error(
        in_sample.astype(float), np.full(2000, float(sample)), np.full(2000, float(key)), epsilon
    )
    exceeded = int(((250 - in_sample) / key > bound).sum())
    assert exceeded <= 2000 * epsilon + 5 * math.sqrt(2000 * epsilon)


@given(st.integers(20, 3000), st.integers(20, 3000), st.floats(0, 0.45), st.floats(0.001, 0.5))
def test_the_tail_is_bounded_from_above_and_closely(sample, key, share, more):
    # The exact sum as SciPy has it; "closely" is what the two Stirling bounds lose, for not too few errors.
    seen = max(1, round(sample * share))
    elsewhere = min(key - 1, round(key * (seen / sample + more)))
    exact = math.log(max(1e-250, hypergeom.cdf(seen, sample + key, seen + elsewhere, sample)))
    arguments = (np.array(float(each)) for each in (seen / sample, sample, elsewhere / key, key))
    assume(seen / sample < elsewhere / key and seen < sample / 2 and exact > -500)
    bound = float(log_tail(*arguments))
    assert exact <= bound
    assert exact > -5 or bound <= exact + math.log(2.6)


def test_a_small_sample_at_four_percent():
    # 10,000 test bits with 4 % errors, 10,000 key bits, epsilon_sec 1e-10: the largest share by exact sums.
    found = FINITE.secret_length(counts(20_000, 0.04), 0, 1e-10, 1e-15).phase_error
    failure = (1e-10 / 3) ** 2
    exact = max(k for k in range(400, 1000) if hypergeom.cdf(400, 20_000, 400 + k, 10_000) >= failure)
    assert exact == 706 and 1 <= found * 10_000 / exact < 1.001


@pytest.mark.parametrize(
    ("block", "leak", "said"),
    [
        (counts(1e6, 0.12), 3e5, "the error rate of the test basis"),
        (PairCounts(1e4, 100, 1, 0), 500, "the test sample"),
        (PairCounts(120, 1, 3000, 30), 20, "finite-size terms"),
    ],
)
def test_no_key_says_what_took_it(block, leak, said):
    found = FINITE.secret_length(block, leak, 1e-10, 1e-10)
    assert found.length_bits == 0 and said in str(found.limited_by)


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ((-1.0, 0.0, 1.0, 0.0), "z_counts"),
        ((1.0, 2.0, 1.0, 0.0), "z_errors"),
        ((1.0, 0.0, math.nan, 0.0), "x_counts"),
        ((1.0, 0.0, 1.0, -1.0), "x_errors"),
    ],
)
def test_bad_counts_are_refused_by_name(figures, said):
    with pytest.raises(OutsideModel, match=said):
        PairCounts(*figures)


@pytest.mark.parametrize("proof", [FINITE, ENDLESS])
@pytest.mark.parametrize(
    ("budget", "said"),
    [((-1.0, 1e-9, 1e-9), "leak_bits"), ((0.0, 0.0, 1e-9), "epsilon_sec"), ((0.0, 1e-9, 1.0), "epsilon_cor")],
)
def test_bad_budgets_are_refused_by_name(proof, budget, said):
    with pytest.raises(OutsideModel, match=said):
        proof.secret_length(counts(1e5, 0.02), *budget)
