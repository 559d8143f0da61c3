"""What a device yields on a hop: against a simulated block, physical limits and published systems."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import OutsideModel
from openqci.links import expected_counts, forecast, quantum_link
from openqci.proofs import DecoyCounts, proof
from openqci.proofs.asymptotic import plob_bound
from openqci.quantum import exchange, expected_statistics


def test_the_link_is_made_of_what_device_and_hop_say(device, hop):
    link = quantum_link(device(receiver_loss_db=2.5, z_basis_probability=0.7), hop(17.0))
    assert link.channel.loss_db == 17.0
    assert link.receiver.loss_db == 2.5
    assert link.source.intensities == (0.33, 0.095)
    assert link.source.probabilities == pytest.approx((0.25, 0.75))
    assert link.source.z_basis_probability == link.receiver.z_basis_probability == 0.7


@pytest.mark.parametrize("loss_db", [2.0, 9.0, 17.0])
def test_a_simulated_block_gives_what_was_forecast(device, hop, loss_db):
    one = device()
    link, expected = quantum_link(one, hop(loss_db)), forecast(one, hop(loss_db))
    got = exchange(link, expected.block_detections, np.random.Generator(np.random.SFC64(3)))
    counts = sifted_counts(got.emissions, got.detections, link.source)
    bits = sum(counts.z_counts)
    assert bits == pytest.approx(one.block_sifted_bits, rel=0.005)
    assert got.duration_s == pytest.approx(expected.block_duration_s, rel=0.01)
    assert sum(counts.z_errors) / bits == pytest.approx(expected.qber, rel=0.05)
    leak_bits = 1.15 * bits * entropy(sum(counts.z_errors) / bits)
    kept = proof("rusca-2018").secret_length_bits(counts, leak_bits, one.epsilon_sec, one.epsilon_cor)
    assert kept.length_bits == pytest.approx(expected.block_secret_bits, rel=0.05)


def sifted_counts(alice, bob, source):
    def of(basis, errors):
        chosen = (alice.bases == basis) & (bob.bases == basis) & ((alice.bits != bob.bits) | (not errors))
        return np.bincount(alice.intensities[chosen], minlength=2)

    return DecoyCounts(
        of(0, False), of(0, True), of(1, False), of(1, True), source.intensities, source.probabilities
    )


def entropy(q):
    return -q * np.log2(q) - (1 - q) * np.log2(1 - q)


def test_expected_counts_are_those_of_the_statistics(device, hop):
    link = quantum_link(device(), hop(10.0))
    expected = expected_statistics(link)
    counts = expected_counts(link, expected, 1000)
    assert sum(counts.z_counts) == pytest.approx(1000 * 0.73**2)
    assert sum(counts.x_counts) == pytest.approx(1000 * 0.27**2)
    assert sum(counts.z_errors) == pytest.approx(expected.qber * sum(counts.z_counts))


@given(
    loss_db=st.floats(0.0, 60.0),
    efficiency=st.floats(0.05, 1.0),
    block_sifted_bits=st.sampled_from([1, 1000, 262_144, 10**8]),
)
def test_no_link_beats_the_repeaterless_bound(loss_db, efficiency, block_sifted_bits):
    one = Ideal(loss_db=loss_db, detector_efficiency=efficiency, block_sifted_bits=block_sifted_bits)
    rate_bps = forecast(one, one).secret_key_rate_bps
    assert rate_bps <= one.clock_rate_hz * plob_bound(max(loss_db, 1e-9))


class Ideal:
    """A device and hop in one, without noise or dead time: the hardest case for the bound."""

    clock_rate_hz = 1e9
    signal_intensity = 0.4
    decoy_intensity = 0.13
    signal_probability = 0.5
    z_basis_probability = 0.9
    receiver_loss_db = 0.0
    dark_count_probability = 0.0
    dead_time_s = 0.0
    afterpulse_probability = 0.0
    misalignment_error = 0.0
    epsilon_sec = 1e-9
    epsilon_cor = 1e-15

    def __init__(self, loss_db, detector_efficiency, block_sifted_bits):
        self.loss_db = loss_db
        self.detector_efficiency = detector_efficiency
        self.block_sifted_bits = block_sifted_bits


def test_more_loss_never_gives_more_key(device, hop):
    rates = [forecast(device(dead_time_s=0.0), hop(db)).secret_key_rate_bps for db in np.arange(3, 40, 0.5)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == 0


@pytest.mark.parametrize("figure", ["dark_count_probability", "misalignment_error", "afterpulse_probability"])
def test_a_worse_device_never_gives_more_key(device, hop, figure):
    good = device()
    worse = [device(**{figure: getattr(good, figure) * factor}) for factor in (1, 1.5, 2, 4, 8)]
    secret_bits = [forecast(each, hop(15.0)).block_secret_bits for each in worse]
    assert secret_bits == sorted(secret_bits, reverse=True)
    assert secret_bits[0] > secret_bits[-1]


def test_a_larger_block_never_gives_less_key_per_second(device, hop):
    sizes = (2**14, 2**16, 2**18, 2**20, 2**24)
    rates = [forecast(device(block_sifted_bits=size), hop(12.0)).secret_key_rate_bps for size in sizes]
    assert rates == sorted(rates)


def test_a_metropolitan_device_keeps_a_fifth_of_its_sifted_bits_at_80_km(device, hop):
    assert forecast(device(), hop(17.0)).block_secret_bits >= 0.2 * 262_144


def test_a_device_with_superconducting_detectors_works_over_140_km(device, hop):
    # 80 % efficiency, 20 dark counts per second and detector at 1 GHz, 30 ns: a field system (sheet, 1.12).
    cold = device(
        signal_intensity=0.35,
        decoy_intensity=0.125,
        signal_probability=0.35,
        z_basis_probability=0.775,
        receiver_loss_db=2.0,
        detector_efficiency=0.8,
        dark_count_probability=2e-8,
        dead_time_s=3e-8,
        afterpulse_probability=0.0,
        misalignment_error=0.005,
    )
    reached = forecast(cold, hop(29.0))
    assert reached.block_secret_bits >= 0.4 * 262_144
    assert reached.secret_key_rate_bps > 10_000


def test_dead_time_bounds_the_detection_rate(device, hop):
    assert forecast(device(dead_time_s=1e-5), hop(0.0)).detection_rate_hz < 1e5


def test_a_dead_link_yields_nothing_and_does_not_fail(device, hop):
    dead = forecast(device(), hop(80.0))
    assert (dead.secret_key_rate_bps, dead.block_secret_bits) == (0.0, 0)
    assert 0.4 < dead.qber <= 0.5


def test_the_leak_of_a_worse_reconciliation_is_paid_in_key(device, hop):
    good = forecast(device(), hop(12.0), reconciliation_efficiency=1.05)
    poor = forecast(device(), hop(12.0), reconciliation_efficiency=1.3)
    assert poor.block_secret_bits < good.block_secret_bits
    assert poor.qber == good.qber


@pytest.mark.parametrize(
    ("changes", "parameter"),
    [
        ({"block_sifted_bits": 0}, "block_sifted_bits"),
        ({"signal_probability": 1.0}, "probabilities"),
        ({"decoy_intensity": 0.5}, "intensities"),
        ({"epsilon_sec": 0.0}, "epsilon_sec"),
    ],
)
def test_a_device_that_cannot_be_is_refused_by_name(device, hop, changes, parameter):
    with pytest.raises(OutsideModel) as refusal:
        forecast(device(**changes), hop(10.0))
    assert refusal.value.parameter == parameter


def test_all_hops_of_europe_are_forecast_within_seconds(device, hop):
    # 1,345 forecasts belong to the start of the network, which has seconds; a loaded machine gets slack.
    started_s = time.process_time()
    for number in range(1345):
        forecast(device(), hop(3 + 14 * number / 1345))
    assert time.process_time() - started_s < 3.0
