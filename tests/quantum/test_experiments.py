"""Click models against published experiments. Inputs are pinned (published) unless named otherwise."""

import math

import numpy as np
import pytest

from openqci.core.errors import OutsideModel
from openqci.proofs import DecoyCounts, proof
from openqci.proofs.bounds import binary_entropy
from openqci.quantum import DecoySource, FibreChannel, QuantumLink, Receiver, expected_statistics
from openqci.quantum.clicks import background_of_gain, free_running_qber, gain_and_qber
from openqci.quantum.encodings import misalignment_of_extinction_db, misalignment_of_visibility

# B. Korzh et al., Nat. Photon. 9, 163 (2015), supplementary table I, at 104, 153, 203, 256, 307 km.
KORZH = {
    "sifted_bits": np.array([1.97e7, 1.97e7, 1.05e7, 1.3e6, 6.6e5]),
    "duration_s": np.array([536.8, 1450.0, 3108.0, 8586.0, 17245.0]),
    "dark_count_rate_hz": np.array([548.0, 117.0, 16.2, 3.26, 1.33]),
    "dead_time_s": np.array([8.6e-6, 25.4e-6, 42.3e-6, 84.5e-6, 114.0e-6]),
    "visibility": np.array([0.983, 0.981, 0.982, 0.984, 0.970]),
    "qber": np.array([0.024, 0.015, 0.015, 0.020, 0.035]),
}
# Fitted, the one constant: afterpulses as the inverse of the dead time, 2.1 % at 8.6 us.
KORZH_AFTERPULSE_S = 1.8e-7


def korzh_qber(dead_time_s, afterpulse_s):
    # Assumed: the contrast of the data line is that of the monitoring line.
    error = [misalignment_of_visibility(float(visibility)) for visibility in KORZH["visibility"]]
    rate_hz = KORZH["sifted_bits"] / KORZH["duration_s"]
    dark_hz = KORZH["dark_count_rate_hz"]
    afterpulses = afterpulse_s / KORZH["dead_time_s"]
    return free_running_qber(rate_hz, dark_hz, dead_time_s, error, afterpulses)


def test_korzh_2015_at_five_lengths():
    qber = korzh_qber(KORZH["dead_time_s"], KORZH_AFTERPULSE_S)
    assert qber == pytest.approx(KORZH["qber"], abs=0.004)


def test_korzh_2015_cannot_do_without_afterpulses():
    without = korzh_qber(KORZH["dead_time_s"], 0.0)
    assert KORZH["qber"][0] - without[0] > 0.01
    assert (without < KORZH["qber"]).all()


def test_the_dead_time_lowers_the_share_of_dark_counts():
    # At 104 km the detector is dead for a third of the time, in which it has no dark counts.
    live = 1 - KORZH["sifted_bits"] / KORZH["duration_s"] * KORZH["dead_time_s"]
    assert live[0] == pytest.approx(0.684, abs=0.001)
    assert (korzh_qber(np.zeros(5), 0.0) > korzh_qber(KORZH["dead_time_s"], 0.0)).all()


def test_stucki_2009_at_250_km():
    # D. Stucki et al., New J. Phys. 11, 075003 (2009): 42.6 dB, efficiency 2.65 %, 5 dark counts per second,
    # 625 MHz, 0.5 photons, QBER 1.9 %. Assumed: an extinction of 20 dB between full and empty slot.
    photons = np.array([0.5 * 10**-4.26 * 0.0265])
    per_slot = -math.expm1(-5 / 625e6)
    _, qber = gain_and_qber(photons, per_slot, misalignment_of_extinction_db(20.0))
    assert qber == pytest.approx([0.019], abs=0.003)
    _, of_dark_counts = gain_and_qber(photons, per_slot, 0.0)
    assert 0.008 < float(of_dark_counts[0]) < 0.019


def test_gobby_2004_at_122_km():
    # C. Gobby et al., APL 84, 3762 (2004): mu 0.1, receiver 4.5 %, error probability 8.5e-7 per clock, which
    # is one detector's background. 0.21 dB/km is inside the fitted range; misalignment 3.3 % as at GYS.
    _, qber = gain_and_qber(np.array([0.1 * 0.045 * 10 ** (-0.021 * 122)]), 8.5e-7, 0.033)
    assert qber == pytest.approx([0.089], abs=0.004)


def test_gobby_2004_ratio_of_sifted_rates():
    # 101 km over 122 km: 2.5435, free of the error model; wants an attenuation of 0.19 to 0.21 dB/km.
    def ratio(db_per_km):
        photons = 0.1 * 0.045 * 10 ** (-db_per_km / 10 * np.array([101.0, 122.0]))
        gain, _ = gain_and_qber(photons, 8.5e-7, 0.033)
        return gain[0] / gain[1]

    assert ratio(0.19) < 2.5435 < ratio(0.21)


# M. Lucamarini et al., Opt. Express 21, 24550 (2013), T12 at 50 km: its Z counts of the signal give the gain.
T12_GAIN = 5.016e9 / (1.2e12 * 0.98828125 * 0.9375**2)
T12_BACKGROUND = 2.9493e-4


def test_trap_10_background_of_t12():
    assert background_of_gain(2.1e-5, 0.0525, T12_GAIN) == pytest.approx(T12_BACKGROUND, rel=0.01)
    # One detector's dark counts only, or afterpulses left out, are seen at once.
    assert abs(background_of_gain(1.05e-5, 0.0525, T12_GAIN) / T12_BACKGROUND - 1) > 0.05
    assert abs(background_of_gain(2.1e-5, 0.0, T12_GAIN) / T12_BACKGROUND - 1) > 0.8


def test_trap_10_the_link_has_the_background_of_t12_as_its_vacuum_gain():
    photons = -math.log1p(-T12_GAIN) + 2 * math.log1p(-T12_BACKGROUND / 2)
    loss_db = -10 * math.log10(photons / (0.425 * 0.205))
    source = DecoySource(1e9, (0.425, 0.044, 0.001), (0.98828125, 0.0078125, 0.00390625), 0.9375)
    receiver = Receiver(0.0, 0.205, 2.1e-5, afterpulse_probability=0.0525, z_basis_probability=0.9375)
    link = QuantumLink(source, FibreChannel(loss_db), receiver)
    assert 1 - (1 - link.background) ** 2 == pytest.approx(T12_BACKGROUND, rel=0.02)


# F. Grünenfelder et al., Nat. Photon. 17, 422 (2023): 64 and 3.0 Mbit/s at 10 and 102.4 km.
# Assumed: losses of 1.6 and 16.3 dB, efficiency 82 %, 0.49 and 0.21 photons, 1 dB receiver, blocks of 1e8.
GRUENENFELDER = ((1.6, 64.0e6), (16.3, 3.0e6))


def gruenenfelder_rate_bps(loss_db, detector_count_rate_max_hz):
    intensities, probabilities, block_bits = (0.49, 0.21), (0.75, 0.25), 1e8
    receiver = Receiver(
        1.0,
        0.82,
        4e-8,
        misalignment_error=0.005,
        z_basis_probability=0.9,
        detector_count_rate_max_hz=detector_count_rate_max_hz,
    )
    source = DecoySource(2.5e9, intensities, probabilities, 0.9)
    expected = expected_statistics(QuantumLink(source, FibreChannel(loss_db), receiver))
    detections = block_bits / expected.detection_fractions[0].sum()
    counts = detections * expected.detection_fractions
    errors = counts * expected.error_rates
    observed = DecoyCounts(
        *[each[b].tolist() for b in (0, 1) for each in (counts, errors)], intensities, probabilities
    )
    leak_bits = 1.16 * block_bits * binary_entropy(expected.qber)
    kept = proof("rusca-2018").secret_length_bits(observed, leak_bits, 1e-9, 1e-15)
    return kept.length_bits * expected.detection_rate_hz / detections


def test_trap_09_detectors_without_saturation_promise_too_much_at_short_range():
    ratios = [gruenenfelder_rate_bps(loss_db, None) / rate_bps for loss_db, rate_bps in GRUENENFELDER]
    # The row of ideal detectors is an upper one, and the worse the shorter the fibre.
    assert ratios[0] > 2.5 and ratios[0] > 1.3 * ratios[1] > 1.3


def test_trap_09_saturation_explains_what_the_short_fibre_loses_more_than_the_long_one():
    # Fitted, the one constant: 4e8 counts per second. What remains is common to both (post-processing).
    ratios = [gruenenfelder_rate_bps(loss_db, 4e8) / rate_bps for loss_db, rate_bps in GRUENENFELDER]
    assert ratios[0] == pytest.approx(ratios[1], rel=0.1)
    assert min(ratios) > 1


@pytest.mark.parametrize(
    ("parameter", "arguments"),
    [
        ("counted_rate_hz", (0.0, 1.0, 0.0, 0.01)),
        ("counted_rate_hz", (1e6, 1.0, 1e-6, 0.01)),
        ("dark_count_rate_hz", (1e3, -1.0, 0.0, 0.01)),
        ("dead_time_s", (1e3, 1.0, math.nan, 0.01)),
        ("misalignment_error", (1e3, 1.0, 0.0, -0.01)),
        ("afterpulse_probability", (1e3, 1.0, 0.0, 0.01, -0.1)),
    ],
)
def test_a_free_running_detector_outside_the_model_is_refused_by_name(parameter, arguments):
    with pytest.raises(OutsideModel) as refusal:
        free_running_qber(*arguments)
    assert refusal.value.parameter == parameter


@pytest.mark.parametrize(
    ("parameter", "place"), [("dark_count_probability", 0), ("afterpulse_probability", 1), ("gain", 2)]
)
def test_a_background_outside_the_model_is_refused_by_name(parameter, place):
    arguments = [1e-5, 0.05, 0.01]
    arguments[place] = math.nan
    with pytest.raises(OutsideModel, match=parameter):
        background_of_gain(*arguments)
