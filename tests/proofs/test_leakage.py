"""Bits that error correction will disclose: against the binomial distribution, in bits and not in nats."""

import doctest
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import openqci.proofs.asymptotic
import openqci.proofs.leakage
from openqci.core.errors import OutsideModel
from openqci.proofs.bounds import binary_entropy
from openqci.proofs.leakage import (
    binomial_quantile,
    finite_size_leak_bits,
    one_way_leak_bits,
    planned_leak_bits,
)


def exact_quantile(chance: float, trials: int, success: Fraction) -> int:
    """Smallest k with P(successes <= k) >= chance, in whole numbers."""
    total = Fraction(0)
    for k in range(trials + 1):
        total += math.comb(trials, k) * success**k * (1 - success) ** (trials - k)
        if total >= Fraction(chance):
            return k
    return trials


@pytest.mark.parametrize("trials", [1, 10, 137, 400])
@pytest.mark.parametrize("error", [Fraction(1, 200), Fraction(3, 100), Fraction(11, 100)])
@pytest.mark.parametrize("chance", [1e-15, 1e-10, 1e-3, 0.3])
def test_the_quantile_is_that_of_the_binomial(trials, error, chance):
    found = binomial_quantile(np.asarray(chance), np.asarray(float(trials)), np.asarray(float(1 - error)))
    assert int(found) == exact_quantile(chance, trials, 1 - error)


@pytest.mark.parametrize(("bits", "error"), [(200, 0.03), (400, 0.08)])
def test_one_way_codes_against_the_formula_written_out(bits, error):
    epsilon = 1e-6
    quantile = exact_quantile(epsilon * (1 + 1 / math.sqrt(bits)), bits, 1 - Fraction(error))
    written = (
        bits * binary_entropy(error)
        + (bits * (1 - error) - quantile - 1) * math.log2((1 - error) / error)
        - math.log2(bits) / 2
        - math.log2(1 / epsilon)
    )
    assert float(one_way_leak_bits(bits, error, epsilon)) == pytest.approx(written, rel=1e-9)


@pytest.mark.parametrize("bits", [1e5, 1e7, 1e9])
def test_trap_14_all_terms_of_the_leak_are_bits(bits):
    # Beyond n h(E) a large block needs sqrt(n V) z bits, V the variance of log2 of the chance of a bit and z
    # the normal quantile of epsilon. With natural logarithms this comes out 0.69 times too small.
    error, epsilon, z = 0.03, 1e-10, 6.3613409
    variance = error * (1 - error) * math.log2((1 - error) / error) ** 2
    beyond = float(one_way_leak_bits(bits, error, epsilon)) - bits * binary_entropy(error)
    assert beyond == pytest.approx(math.sqrt(bits * variance) * z, rel=0.012)


def test_satquma_asks_for_too_little_with_natural_logarithms():
    bits, error, epsilon = 1e6, 0.02, 1e-10
    kept = binomial_quantile(np.asarray(epsilon * (1 + 1e-3)), np.asarray(bits), np.asarray(1 - error))
    natural = (
        bits * binary_entropy(error)
        + (bits * (1 - error) - float(kept) - 1) * math.log((1 - error) / error)
        - 0.5 * math.log(bits)
        - math.log(1 / epsilon)
    )
    assert natural < float(one_way_leak_bits(bits, error, epsilon)) - 1000


def test_planned_leak_is_shannon_times_efficiency():
    assert float(planned_leak_bits(1e6, 0.11, 1.0)) == pytest.approx(499_916, abs=1)
    assert planned_leak_bits([1e3, 0.0], [0.5, 0.1], 1.2).tolist() == [1200.0, 0.0]


def test_small_blocks_need_more_than_their_efficiency_says():
    small, large = finite_size_leak_bits([1e4, 1e8], 0.02, 1.16, 1e-10)
    assert small > planned_leak_bits(1e4, 0.02, 1.16)
    assert large == planned_leak_bits(1e8, 0.02, 1.16)


@given(st.floats(0, 9), st.floats(0, 0.5), st.floats(-15, -3))
def test_a_leak_is_never_negative_and_never_beyond_the_block_by_much(size, error, log_epsilon):
    leak = float(one_way_leak_bits(10**size, error, 10**log_epsilon))
    assert 0 <= leak <= 10**size * (binary_entropy(error) + 60 / math.sqrt(10**size))


def test_without_errors_or_bits_there_is_nothing_to_disclose():
    assert one_way_leak_bits([0.0, 1e6, 0.5], [0.1, 0.0, 0.1], 1e-10).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("figures", "parameter"),
    [
        ((-1.0, 0.1, 1.1, 1e-9), "sifted_bits"),
        ((math.nan, 0.1, 1.1, 1e-9), "sifted_bits"),
        ((1e5, 0.6, 1.1, 1e-9), "qber"),
        ((1e5, 0.1, 0.9, 1e-9), "efficiency"),
        ((1e5, 0.1, 1.1, 0.0), "epsilon_cor"),
    ],
)
def test_figures_outside_the_model_are_refused(figures, parameter):
    with pytest.raises(OutsideModel) as refusal:
        finite_size_leak_bits(*figures)
    assert refusal.value.parameter == parameter


@pytest.mark.parametrize("module", [openqci.proofs.leakage, openqci.proofs.asymptotic])
def test_examples_run(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
