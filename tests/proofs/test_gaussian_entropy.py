"""Eve's share against arithmetic of 120 digits, published tables, what trust and confidence mean."""

import decimal
import doctest
import importlib
import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import OutsideModel
from openqci.proofs.gaussian import (
    GaussianBlock,
    GaussianChannel,
    gaussian_proof,
    gaussian_proof_ids,
    optimal_modulation_variance_snu,
)

# Y. Zhang et al., PRL 125, 010502 (2020), arXiv:2001.02555, table I.
LOSS_DB = np.array([4.36, 8.29, 11.68, 15.89, 23.46, 32.45])
V_A = np.array([14.37, 14.14, 14.12, 14.53, 14.23, 7.65])
XI = np.array([0.0015, 0.0033, 0.0049, 0.0063, 0.0086, 0.0081])
XI_WORST = np.array([0.0016, 0.0037, 0.0058, 0.0085, 0.0219, 0.0383])
V_EL = np.array([0.1216, 0.1881, 0.2411, 0.1893, 0.2717, 0.1523])
BETA = np.array([0.95, 0.95, 0.96, 0.96, 0.96, 0.98])
FER = np.array([0.5, 0.5, 0.1, 0.1, 0.1, 0.9])
PUBLISHED_BPS = np.array([2.78e5, 0.62e5, 4.28e4, 1.18e4, 318.85, 6.214])
SNR = np.array([2.8035, 1.0715, 0.4619, 0.1806, 0.0308, 0.0023])


def km(length_km: float) -> float:
    """Transmittance of a fibre of 0.2 dB/km."""
    return float(10 ** (-0.02 * length_km))


@pytest.mark.parametrize(
    ("noise", "expected"),
    [
        (XI, [1.006, 1.011, 1.030, 1.114, 5.203, 9.390]),
        (XI_WORST, [1.004, 1.004, 1.013, 1.050, 2.645, 3.968]),
    ],
    ids=["estimate", "worst case"],
)
def test_zhang_2020(noise, expected):
    """The asymptotic rate over the published finite one, at six lengths from 27 to 203 km."""
    channel = GaussianChannel(V_A, 10 ** (-LOSS_DB / 10), noise, 0.6134, V_EL)
    ratio = 5e6 * 0.9 * (1 - FER) * channel.asymptotic_bits(BETA) / PUBLISHED_BPS
    np.testing.assert_allclose(ratio, expected, rtol=1e-3)


def test_zhang_2020_signal_to_noise():
    """The measured ratios lie up to 7 % below those of the published inputs."""
    channel = GaussianChannel(V_A, 10 ** (-LOSS_DB / 10), XI, 0.6134, V_EL)
    np.testing.assert_allclose(channel.signal_to_noise(), SNR, rtol=0.08)


def test_qosst_2024():
    """No key from 1e6 symbols at 25 km, key from 1e7 on (Pietri et al., Quantum 8, 1575, arXiv:2404.18637).

    Excess noise at Bob 0.0062 SNU as published; efficiency, electronic noise and modulation are assumed.
    """
    transmittance = km(25)
    channel = GaussianChannel(5.0, transmittance, 0.0062 / (0.7 * transmittance), 0.7, 0.1, "heterodyne")
    block = GaussianBlock(channel, np.array([1e6, 1e7, 1e8]), 0.5, 0.95)
    lengths = gaussian_proof("gg02-leverrier-2010").secret_length(block, 1e-10, 1e-10).length_bits
    assert lengths[0] == 0 and (lengths[1:] > 0).all()


def printed_bits(
    detection: str, light: float, transmittance: float, noise: float, efficiency: float, electronic: float
) -> tuple[Decimal, Decimal]:
    """I_AB and chi_BE from the printed A, B, C, D with 120 digits: no digit is lost that matters."""
    with decimal.localcontext() as context:
        context.prec = 120
        v, t, xi = 1 + Decimal(light), Decimal(transmittance), Decimal(noise)
        eta, v_el = Decimal(efficiency), Decimal(electronic)
        two = Decimal(2)
        line = 1 / t - 1 + xi
        homodyne = detection == "homodyne"
        det = (1 + v_el) / eta - 1 if homodyne else (1 + (1 - eta) + 2 * v_el) / eta
        tot = line + det / t
        information = ((v + tot) / (1 + tot)).ln() / two.ln() / (2 if homodyne else 1)
        a = v**2 * (1 - 2 * t) + 2 * t + t**2 * (v + line) ** 2
        b = t**2 * (v * line + 1) ** 2
        root = b.sqrt()
        if homodyne:
            c = (v * root + t * (v + line) + a * det) / (t * (v + tot))
            d = root * (v + root * det) / (t * (v + tot))
        else:
            c = a * det**2 + b + 1 + 2 * det * (v * root + t * (v + line)) + 2 * t * (v**2 - 1)
            c /= (t * (v + tot)) ** 2
            d = ((v + root * det) / (t * (v + tot))) ** 2

        def entropy(eigenvalue: Decimal) -> Decimal:
            n = (eigenvalue - 1) / 2
            if n < Decimal(10) ** -100:
                return Decimal(0)
            return ((n + 1) * (n + 1).ln() - n * n.ln()) / two.ln()

        def pair(total: Decimal, product: Decimal) -> Decimal:
            spread = max(total**2 - 4 * product, Decimal(0)).sqrt()
            return entropy(((total + spread) / 2).sqrt()) + entropy(((total - spread) / 2).sqrt())

        return information, pair(a, b) - pair(c, d)


@pytest.mark.parametrize("detection", ["homodyne", "heterodyne"])
@pytest.mark.parametrize("transmittance", [0.999, 0.3, 1e-2, 1e-5, 1e-10, 1e-20])
@pytest.mark.parametrize("noise", [1e-6, 0.01, 0.5])
@pytest.mark.parametrize("variance", [0.05, 4.0, 100.0])
def test_digits_survive_low_transmittance(detection, transmittance, noise, variance):
    """Both terms against the printed formulas in 120 digits, down to 200 dB."""
    channel = GaussianChannel(variance, transmittance, noise, 0.6, 0.1, detection)
    information, holevo = printed_bits(detection, variance, transmittance, noise, 0.6, 0.1)
    assert float(channel.mutual_information_bits()) == pytest.approx(float(information), rel=1e-13)
    assert float(channel.holevo_bits()) == pytest.approx(float(holevo), rel=2e-11)


@pytest.mark.parametrize("detection", ["homodyne", "heterodyne"])
@pytest.mark.parametrize("noise", [0.3, 1.5, 5.0])
def test_noise_may_outweigh_the_light(detection, noise):
    """The two modes change places then; the share of Eve does not jump."""
    channel = GaussianChannel(0.5, 0.98, noise, 0.8, 0.05, detection)
    _, holevo = printed_bits(detection, 0.5, 0.98, noise, 0.8, 0.05)
    assert float(channel.holevo_bits()) == pytest.approx(float(holevo), rel=1e-11)


def test_pure_loss_is_the_textbook_case():
    """xi = 0, perfect homodyne: Eve has one mode, chi = G(e) - G(sqrt(e e_b))."""
    variance, transmittance = 7.0, 0.2
    eve = 1 + (1 - transmittance) * variance
    given_bob = eve - transmittance * (1 - transmittance) * variance**2 / (1 + transmittance * variance)

    def entropy(eigenvalue: float) -> float:
        n = (eigenvalue - 1) / 2
        return (n + 1) * math.log2(n + 1) - n * math.log2(n)

    expected = entropy(eve) - entropy(math.sqrt(eve * given_bob))
    found = GaussianChannel(variance, transmittance, 0.0, 1.0, 0.0).holevo_bits()
    assert float(found) == pytest.approx(expected, rel=1e-12)


def test_two_units_of_excess_noise_leave_nothing():
    """Intercept-resend breaks entanglement: no key at any loss and modulation, with beta = 1."""
    variance, transmittance = np.meshgrid(np.geomspace(0.01, 1e3, 30), np.geomspace(1e-6, 1, 30))
    for detection in ("homodyne", "heterodyne"):
        channel = GaussianChannel(variance, transmittance, 2.0, 1.0, 0.0, detection)
        assert (channel.asymptotic_bits(1.0) < 0).all()


# Trust


@given(st.floats(0.1, 50), st.floats(0.01, 1), st.floats(0, 0.2), st.floats(0.3, 1), st.booleans())
def test_calibrated_and_trusted_are_one_without_electronic_noise(variance, t, noise, efficiency, both):
    detection = "heterodyne" if both else "homodyne"
    bounds = [
        float(GaussianChannel(variance, t, noise, efficiency, 0.0, detection, trust).holevo_bits())
        for trust in ("trusted", "calibrated")
    ]
    assert bounds[0] == bounds[1]


def test_noise_that_eve_knows_is_her_information():
    """Values that are nearly all electronic noise: she knows them nearly all, and no key is left."""
    loud = GaussianChannel(4.0, 0.3, 0.01, 0.6, 50.0, "homodyne", "calibrated")
    variance = 1 + 0.18 * 4.01
    assert float(loud.holevo_bits()) > 0.5 * math.log2(1 + 50 / variance)
    assert float(loud.asymptotic_bits(1.0)) < 0


def test_calibrated_costs_little_where_the_electronic_noise_is_small():
    """v_el = 0.01: within a tenth of the trusted rate at 25 km; at 0.1 more than half is gone."""
    for electronic, low, high in ((0.01, 0.9, 1.0), (0.1, 0.2, 0.5)):
        rates = [
            float(
                GaussianChannel(4.0, km(25), 0.01, 0.6, electronic, "homodyne", trust).asymptotic_bits(0.95)
            )
            for trust in ("calibrated", "trusted")
        ]
        assert low < rates[0] / rates[1] < high


# Confidence


def test_the_corner_of_least_light_is_not_always_the_worst():
    """At 100 km Eve's share grows with the light: why gg02-composable looks at the whole interval."""
    block = GaussianBlock(GaussianChannel(4.0, km(100), 0.01, 0.6, 0.1), 1e10, 0.5, 0.95)
    corner, interval = block.worst_channel(1e-10).holevo_bits(), block.worst_holevo_bits(1.5e-10)
    assert float(corner) < float(interval) < 1.01 * float(corner)


@given(st.floats(0.001, 1), st.floats(0, 0.1), st.floats(4, 12), st.sampled_from(["homodyne", "heterodyne"]))
def test_the_worst_of_the_interval_is_no_less_than_its_ends(transmittance, noise, size, detection):
    channel = GaussianChannel(4.0, transmittance, noise, 0.6, 0.1, detection)
    block = GaussianBlock(channel, 10**size, 0.5, 0.95)
    worst = float(block.worst_holevo_bits(1.5e-10))
    assert worst >= float(block.worst_channel(1e-10).holevo_bits()) * (1 - 1e-9)
    assert worst >= float(channel.holevo_bits()) * (1 - 1e-3)


def test_nothing_known_of_the_channel_is_no_key():
    for proof_id in ("gg02-leverrier-2010", "gg02-composable"):
        channel = GaussianChannel(4.0, 1e-8, 0.01, 0.6, 0.1)
        found = gaussian_proof(proof_id).secret_length(GaussianBlock(channel, 1e6, 0.5, 0.95), 1e-10, 1e-10)
        assert found.length_bits == 0 and found.unclipped_bits < 0 and str(found.limited_by)


# Optimisation


def test_the_best_modulation_is_found_on_the_plateau_of_zero():
    """None of these links has key; the best setting is still that of a scan of the unclipped length."""
    transmittance = 10 ** -np.array([1.2, 1.6, 2.0])
    proof = gaussian_proof("gg02-leverrier-2010")

    def rates(variance: np.ndarray) -> np.ndarray:
        channel = GaussianChannel(variance, transmittance, 0.01, 0.6, 0.1)
        return proof.secret_length(GaussianBlock(channel, 1e7, 0.5, 0.95), 1e-10, 1e-10).unclipped_bits

    best = optimal_modulation_variance_snu(rates)
    scan = rates(np.geomspace(0.05, 100, 4000)[:, np.newaxis])
    assert (scan < 0).all() and best.shape == (3,)
    np.testing.assert_array_less(scan.max(axis=0) - 1e-2, rates(best[np.newaxis])[0])
    with pytest.raises(OutsideModel, match="high_snu"):
        optimal_modulation_variance_snu(rates, 2.0, 1.0)


def test_ids():
    assert gaussian_proof_ids() == ("gg02-leverrier-2010", "gg02-composable", "gg02-asymptotic")


def test_examples_run():
    result = doctest.testmod(importlib.import_module("openqci.proofs.gaussian"))
    assert result.attempted > 0 and result.failed == 0
