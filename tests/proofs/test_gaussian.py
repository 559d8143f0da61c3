"""GG02: published and golden figures, an independent computation of Eve's share, laws and limits."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import ConfigurationError, OutsideModel
from openqci.proofs.asymptotic import plob_bound
from openqci.proofs.gaussian import (
    GaussianBlock,
    GaussianChannel,
    gaussian_proof,
    gaussian_proof_ids,
)
from openqci.proofs.gaussian_estimate import estimated_channel
from openqci.quantum.gg02 import excess_noise_snu

VARIANCES = np.geomspace(0.3, 100, 400)


def transmittance(length_km: float) -> float:
    return 10 ** (-0.02 * length_km)


# Published figures


def test_lodewyck_2007():
    # PRA 76, 042305: 25 km, I_AB 1.0436, chi_BE 0.9020, K 0.0352 bits per symbol.
    link = GaussianChannel(18.5, 0.302, 0.005, 0.606, 0.041)
    assert link.mutual_information_bits() == pytest.approx(1.04365, abs=1e-5)
    assert link.holevo_bits() == pytest.approx(0.90204, abs=1e-5)
    assert link.asymptotic_bits(0.898) == pytest.approx(0.03515, abs=1e-5)


@pytest.mark.parametrize(
    ("length_km", "symbols", "golden"),
    [
        (25, 1e7, 2.75e-2),
        (25, 1e8, 3.94e-2),
        (25, 1e9, 4.35e-2),
        (25, 1e12, 4.53e-2),
        (50, 1e7, 0.0),
        (50, 1e8, 4.8e-3),
        (50, 1e9, 8.7e-3),
        (50, 1e12, 1.05e-2),
        (100, 1e9, 0.0),
        (100, 1e10, 2.2e-4),
    ],
)
def test_leverrier_2010_goldens(length_km, symbols, golden):
    # Excess noise 0.01, eta 0.6, v_el 0.1, beta 0.95, homodyne, half for estimation, V_A optimised.
    channel = GaussianChannel(VARIANCES, transmittance(length_km), 0.01, 0.6, 0.1)
    block = GaussianBlock(channel, symbols, 0.5, 0.95)
    found = gaussian_proof("gg02-leverrier-2010").secret_length(block, 3e-10, 1e-10).bits_per_symbol.max()
    assert found == pytest.approx(golden, rel=0.015, abs=5e-5)


def reach_km(noise_of) -> float:
    """Longest fibre with key, V_A optimised, by bisection."""
    low, high = 0.0, 300.0
    for _ in range(40):
        middle = (low + high) / 2
        t = transmittance(middle)
        rate = GaussianChannel(VARIANCES, t, noise_of(t), 0.6, 0.1).asymptotic_bits(0.95).max()
        low, high = (middle, high) if rate > 0 else (low, middle)
    return low


def test_trap_07_noise_of_the_receiver_is_referred_to_the_input_once():
    # Wang et al.: 0.0133 SNU at 50 km and about 0.09 at 100 km, with eps_a 0.005, eps_b 0.0005, eta 0.6.
    at = [float(excess_noise_snu(0.005, 0.0005, 0.6 * transmittance(km))) for km in (50, 100)]
    assert at == pytest.approx([0.0133, 0.0883], rel=0.01)
    # The same noise taken at Bob's plane would be smaller by eta T, and key would seem to reach further.
    right = GaussianChannel(4.0, transmittance(50), at[0], 0.6, 0.1).asymptotic_bits(0.95)
    at_bob = GaussianChannel(4.0, transmittance(50), at[0] * 0.06, 0.6, 0.1).asymptotic_bits(0.95)
    # Electronic noise counted in xi as well as in the detector takes key that is there.
    twice = GaussianChannel(4.0, transmittance(50), at[0] + 0.1 / 0.06, 0.6, 0.1).asymptotic_bits(0.95)
    assert twice < 0 < right < at_bob


def test_trap_08_constant_excess_noise_has_no_reach_limit():
    assert reach_km(lambda t: excess_noise_snu(0.005, 0.0005, 0.6 * t)) == pytest.approx(94.3, abs=0.3)
    assert reach_km(lambda t: 0.005) > 250


# Independent computation


def symplectic_eigenvalues(covariance: np.ndarray) -> np.ndarray:
    modes = len(covariance) // 2
    form = np.kron(np.eye(modes), np.array([[0, 1], [-1, 0]]))
    return np.sort(np.abs(np.linalg.eigvals(1j * form @ covariance)))[::2]


def entropy_bits(eigenvalues: np.ndarray) -> float:
    photons = (eigenvalues - 1) / 2
    photons = photons[photons > 1e-13]
    return float(np.sum((photons + 1) * np.log2(photons + 1) - photons * np.log2(photons)))


def holevo_by_matrices(v_a, t, xi, eta, v_el, heterodyne) -> float:
    """S(AB) - S(AFG|b) with the detector as a beam splitter on which half of an entangled pair falls."""
    identity, mirror = np.eye(2), np.diag([1.0, -1.0])
    noise = 1 + (2 if heterodyne else 1) * v_el / (1 - eta)
    covariance = np.zeros((8, 8))
    between, other = math.sqrt(t * ((v_a + 1) ** 2 - 1)), math.sqrt(noise**2 - 1)
    for i, variance in enumerate((v_a + 1, t * (v_a + xi) + 1, noise, noise)):
        covariance[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = variance * identity
    covariance[0:2, 2:4] = covariance[2:4, 0:2] = between * mirror
    covariance[4:6, 6:8] = covariance[6:8, 4:6] = other * mirror
    before = entropy_bits(symplectic_eigenvalues(covariance[:4, :4]))
    splitter = np.eye(8)
    splitter[2:4, 2:4] = splitter[4:6, 4:6] = math.sqrt(eta) * identity
    splitter[2:4, 4:6], splitter[4:6, 2:4] = math.sqrt(1 - eta) * identity, -math.sqrt(1 - eta) * identity
    covariance = splitter @ covariance @ splitter.T
    rest = [0, 1, 4, 5, 6, 7]
    bob, shared = covariance[2:4, 2:4], covariance[np.ix_(rest, [2, 3])]
    seen = np.linalg.inv(bob + identity) if heterodyne else np.diag([1 / bob[0, 0], 0.0])
    after = covariance[np.ix_(rest, rest)] - shared @ seen @ shared.T
    return before - entropy_bits(symplectic_eigenvalues(after))


@given(
    st.floats(-1, 2),
    st.floats(-2, -0.01),
    st.floats(-3, -0.5),
    st.floats(0.3, 0.99),
    st.floats(-3, -0.3),
    st.booleans(),
)
def test_eves_share_is_that_of_the_covariance_matrix(log_v, log_t, log_xi, eta, log_v_el, heterodyne):
    figures = (10**log_v, 10**log_t, 10**log_xi, eta, 10**log_v_el)
    closed = GaussianChannel(*figures, "heterodyne" if heterodyne else "homodyne").holevo_bits()
    assert closed == pytest.approx(holevo_by_matrices(*figures, heterodyne), rel=1e-8, abs=1e-9)


def test_at_very_low_transmittance_nothing_cancels():
    # chi_BE / T grows by the same amount in every decade there (noise photons T xi enter as x log x).
    shares = [float(GaussianChannel(4.0, 10.0**-n, 0.01, 0.6, 0.1).holevo_bits()) * 10**n for n in (5, 6, 7)]
    assert shares[1] - shares[0] == pytest.approx(shares[2] - shares[1], rel=5e-3)
    assert shares == sorted(shares)


# Laws


channels = st.builds(
    GaussianChannel,
    st.floats(0.1, 50),
    st.floats(1e-4, 1.0),
    st.floats(0, 0.2),
    st.floats(0.2, 1.0),
    st.floats(0, 0.5),
    st.sampled_from(["homodyne", "heterodyne"]),
    st.sampled_from(["trusted", "calibrated", "untrusted"]),
)


@given(channels, st.floats(0.01, 1.0))
def test_more_loss_never_gives_more_key(channel, factor):
    near = channel.asymptotic_bits(0.95)
    far = replace(channel, transmittance=channel.transmittance * factor).asymptotic_bits(0.95)
    # Below zero there is no key on either side, and the unclipped figure may climb back towards zero.
    assert max(far, 0.0) <= max(near, 0.0) + 1e-12


@given(channels, st.floats(0, 0.5))
def test_more_noise_never_gives_more_key(channel, more):
    noisier = replace(channel, excess_noise_snu=channel.excess_noise_snu + more)
    assert noisier.asymptotic_bits(0.95) <= channel.asymptotic_bits(0.95) + 1e-10


@given(channels)
def test_less_trust_never_gives_more_key(channel):
    trust = ["trusted", "calibrated", "untrusted"]
    rates = [float(replace(channel, detector_trust=each).asymptotic_bits(1.0)) for each in trust]
    assert rates[0] >= rates[1] - 1e-10 and rates[1] >= rates[2] - 1e-10


@given(channels)
def test_never_above_the_repeaterless_bound(channel):
    loss_db = -10 * math.log10(channel.transmittance)
    assert loss_db == 0 or channel.asymptotic_bits(1.0) <= plob_bound(loss_db) + 1e-12


@given(channels, st.floats(3, 12), st.floats(0, 3), st.sampled_from(gaussian_proof_ids()))
def test_a_finite_block_never_beats_the_endless_one_and_larger_is_better(channel, size, more, proof_id):
    small, large = (
        gaussian_proof(proof_id).secret_length(GaussianBlock(channel, 10**each, 0.5, 0.95), 1e-9, 1e-9)
        for each in (size, size + more)
    )
    endless = max(0.0, float(channel.asymptotic_bits(0.95)))
    assert small.bits_per_symbol <= large.bits_per_symbol + 1e-12
    assert large.bits_per_symbol <= endless + 1e-12


@given(channels, st.floats(4, 10), st.sampled_from(["gg02-leverrier-2010", "gg02-composable"]))
def test_splitting_a_block_never_gains(channel, size, proof_id):
    whole, part = (
        gaussian_proof(proof_id).secret_length(GaussianBlock(channel, n, 0.5, 0.95), 1e-9, 1e-9)
        for n in (10**size, 10**size / 10)
    )
    assert 10 * part.length_bits <= whole.length_bits


@given(channels, st.floats(-12, -3), st.floats(0, 3))
def test_a_stricter_epsilon_never_gives_more_key(channel, log_epsilon, stricter):
    block = GaussianBlock(channel, 1e8, 0.5, 0.95)
    proof = gaussian_proof("gg02-leverrier-2010")
    loose = proof.secret_length(block, 10**log_epsilon, 1e-9)
    strict = proof.secret_length(block, 10 ** (log_epsilon - stricter), 1e-9)
    assert strict.unclipped_bits <= loose.unclipped_bits + 1e-6


def test_heterodyne_has_more_information_than_homodyne():
    same = (4.0, 0.3, 0.01, 0.6, 0.05)
    one, both = (GaussianChannel(*same, each) for each in ("homodyne", "heterodyne"))
    assert one.mutual_information_bits() < both.mutual_information_bits()


# Limits


def test_a_perfect_link_gives_eve_nothing():
    assert GaussianChannel(10.0, 1.0, 0.0, 0.6, 0.1).holevo_bits() == pytest.approx(0.0, abs=1e-12)


def test_no_modulation_gives_no_information():
    assert GaussianChannel(1e-9, 0.5, 0.0, 1.0, 0.0).mutual_information_bits() < 1e-8


def test_an_endless_block_loses_only_what_was_disclosed():
    channel = GaussianChannel(4.0, 0.3, 0.01, 0.6, 0.1)
    block = GaussianBlock(channel, 1e22, 0.25, 0.95, frame_error_rate=0.1)
    found = gaussian_proof("gg02-leverrier-2010").secret_length(block, 1e-9, 1e-9).bits_per_symbol
    assert found == pytest.approx(0.9 * 0.75 * channel.asymptotic_bits(0.95), rel=1e-6)


@pytest.mark.parametrize(
    ("noise", "symbols", "said"),
    [(0.5, 1e9, "the noise"), (0.01, 1e6, "estimation"), (0.01, 6.5e7, "finite-size terms")],
)
def test_no_key_says_what_took_it(noise, symbols, said):
    block = GaussianBlock(GaussianChannel(4.0, 0.05, noise, 0.6, 0.1), symbols, 0.5, 0.95)
    found = gaussian_proof("gg02-leverrier-2010").secret_length(block, 1e-10, 1e-10)
    assert found.length_bits == 0 and found.unclipped_bits < 0 and said in str(found.limited_by)


# Bad input


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"modulation_variance_snu": 0.0}, "modulation_variance_snu = 0.0"),
        ({"transmittance": 1.2}, "transmittance = 1.2"),
        ({"excess_noise_snu": -0.1}, "excess_noise_snu = -0.1"),
        ({"excess_noise_snu": [0.1, math.nan]}, "excess_noise_snu = nan"),
        ({"detector_efficiency": 0.0}, "detector_efficiency = 0.0"),
        ({"electronic_noise_snu": math.inf}, "electronic_noise_snu = inf"),
        ({"detection": "both"}, "detection = 'both'"),
        ({"detector_trust": "maybe"}, "detector_trust = 'maybe'"),
    ],
)
def test_a_bad_channel_is_refused_by_name(changes, said):
    with pytest.raises(OutsideModel, match="is outside the model; expected") as caught:
        replace(GaussianChannel(4.0, 0.5, 0.01, 0.6, 0.1), **changes)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ((1.0, 0.5, 0.9, 0.0), "symbols"),
        ((1e6, 1.0, 0.9, 0.0), "estimation_fraction"),
        ((1e6, 0.5, 1.1, 0.0), "reconciliation_efficiency"),
        ((1e6, 0.5, 0.9, 1.0), "frame_error_rate"),
    ],
)
def test_a_bad_block_is_refused_by_name(figures, said):
    with pytest.raises(OutsideModel, match=said):
        GaussianBlock(GaussianChannel(4.0, 0.5, 0.01, 0.6, 0.1), *figures)


@pytest.mark.parametrize("proof_id", gaussian_proof_ids())
def test_epsilons_and_ids_are_checked(proof_id):
    block = GaussianBlock(GaussianChannel(4.0, 0.5, 0.01, 0.6, 0.1), 1e6, 0.5, 0.95)
    for epsilons in ((0.0, 1e-9), (1e-9, 1.0), (math.nan, 1e-9)):
        with pytest.raises(OutsideModel, match="above 0 and below 1"):
            gaussian_proof(proof_id).secret_length(block, *epsilons)
    with pytest.raises(ConfigurationError, match="expected one of gg02-leverrier-2010"):
        gaussian_proof("gg02-magic")


def test_an_estimate_refuses_rows_that_do_not_pair():
    with pytest.raises(OutsideModel, match="two equal rows of 100 or more"):
        estimated_channel(np.zeros(200), np.zeros(201), 0.6, 0.1)
