"""The table of classes against a third form: single photons with times of arrival, pulse by pulse.

Here a photon meets the basis of the slot that it arrives in, the detector that it reaches, and dark counts
of the detectors that are live; nothing is taken from the formulas of the package. Each case compares the
counts of all classes by chi-square; a right model fails one of them with probability below 1e-3 in all.
"""

import numpy as np
import pytest
from scipy.stats import chisquare

from openqci.quantum import DecoySource, FibreChannel, QuantumLink, Receiver, expected_statistics
from openqci.quantum.clicks import background_probability
from openqci.quantum.link import class_probabilities
from openqci.quantum.timing import captured_fraction, leaked_fraction

PULSES = 1_000_000
SLOT_S = 1e-9
SIGMAS_PER_FWHM = 1 / (2 * np.sqrt(2 * np.log(2)))
JITTER_FWHM_S, WINDOW_S = 7e-10, 6e-10

PLAIN = {
    "loss_db": 3.0,
    "detector_efficiency": 0.5,
    "dark_count_probability": 1e-3,
    "misalignment_error": 0.05,
}
JITTERED = {
    "captured_fraction": float(captured_fraction(WINDOW_S, JITTER_FWHM_S)),
    "leaked_fraction": leaked_fraction(WINDOW_S, SLOT_S, JITTER_FWHM_S),
    "gate_width_s": WINDOW_S,
}
CASES = {
    "plain": ({}, {}),
    "mismatch": ({"efficiency_ratio": 0.4}, {}),
    "passive": ({"basis_choice": "passive"}, {}),
    "passive mismatch": ({"basis_choice": "passive", "efficiency_ratio": 0.7}, {"misalignment_error": 0.1}),
    "bases differ": ({"x_extra_loss_db": 3.0, "x_misalignment_error": 0.2}, {}),
    "passive bases differ": ({"basis_choice": "passive", "x_extra_loss_db": 2.0}, {}),
    "passive and bright": (
        {"basis_choice": "passive", "loss_db": 0.0, "detector_efficiency": 1.0, "x_extra_loss_db": 3.0},
        {"loss_db": 0.0},
    ),
    "background": ({"gate_width_s": WINDOW_S, "efficiency_ratio": 0.5}, {"background_photons_hz": 2e8}),
    "drift": ({}, {"misalignment_error": 0.15}),
    "jitter": (JITTERED, {}),
    "jitter and passive": (JITTERED | {"basis_choice": "passive"}, {}),
}


def link_of(case):
    receiver, channel = CASES[case]
    source = DecoySource(1 / SLOT_S, (0.5, 0.1), (0.6, 0.4), 0.7)
    return QuantumLink(
        source,
        FibreChannel(**({"loss_db": 6.0} | channel)),
        Receiver(**(PLAIN | receiver), z_basis_probability=0.6),
    )


@pytest.mark.parametrize("case", CASES)
def test_every_class_comes_as_often_as_single_photons_say(case, rng):
    link = link_of(case)
    counted = photon_by_photon(link, rng, jittered=case.startswith("jitter"))
    # The random bits of double clicks say nothing: sum them away.
    expected = class_probabilities(link)
    expected[:, 1] = expected[:, 1].mean(axis=(-1, -2), keepdims=True)
    counts = np.append(counted.ravel(), PULSES - counted.sum())
    likely = np.append(expected.ravel(), 1 - expected.sum()) * PULSES
    rare = likely < 20
    if rare.any():
        counts, likely = (np.append(each[~rare], each[rare].sum()) for each in (counts, likely))
    assert chisquare(counts, likely).pvalue > 1e-4


def photon_by_photon(link, rng, jittered):
    """Return the counts of all classes of detection, in the shape of the table."""
    source, receiver, channel = link.source, link.receiver, link.channel
    passive = receiver.basis_choice == "passive"
    intensity = rng.choice(2, PULSES, p=source.probabilities)
    alice = (rng.random(PULSES) >= source.z_basis_probability).astype(int)
    bit = rng.integers(0, 2, PULSES)
    bob = (rng.random(PULSES) >= receiver.z_basis_probability).astype(int)
    arriving = np.array(source.intensities)[intensity] * 10 ** (-(channel.loss_db + receiver.loss_db) / 10)
    pulse = np.repeat(np.arange(PULSES), rng.poisson(arriving))
    background = channel.background_photons_hz * SLOT_S * 10 ** (-receiver.loss_db / 10)
    foreign = np.repeat(np.arange(PULSES), rng.poisson(background, PULSES))

    def counted(slot, right_bit, sent_in):
        """Split light by basis, contrast and detector; right_bit -1 has none."""
        basis = (rng.random(len(slot)) >= receiver.z_basis_probability).astype(int) if passive else bob[slot]
        in_x = (
            receiver.misalignment_error
            if receiver.x_misalignment_error is None
            else receiver.x_misalignment_error
        )
        turned = rng.random(len(slot)) < channel.misalignment_error
        misled = rng.random(len(slot)) < np.where(basis == 1, in_x, receiver.misalignment_error)
        random_bit = rng.integers(0, 2, len(slot))
        detector = np.where((sent_in == basis) & (right_bit >= 0), right_bit ^ turned ^ misled, random_bit)
        efficiency = receiver.detector_efficiency * np.where(detector == 1, receiver.efficiency_ratio, 1.0)
        efficiency = efficiency * np.where(basis == 1, 10 ** (-receiver.x_extra_loss_db / 10), 1.0)
        seen = rng.random(len(slot)) < efficiency
        return slot[seen], basis[seen], detector[seen]

    if jittered:
        time_s = pulse * SLOT_S + rng.normal(0, JITTER_FWHM_S * SIGMAS_PER_FWHM, len(pulse))
        slot = np.rint(time_s / SLOT_S).astype(int) % PULSES
        kept = np.abs((time_s / SLOT_S + 0.5) % 1 - 0.5) * SLOT_S <= WINDOW_S / 2
        slot, pulse = slot[kept], pulse[kept]
    else:
        slot = pulse
    foreign = foreign[rng.random(len(foreign)) < (receiver.gate_width_s or SLOT_S) / SLOT_S]
    fired = np.zeros((PULSES, 2, 2), dtype=bool)
    fired[counted(slot, bit[pulse], alice[pulse])] = True
    fired[counted(foreign, np.full(len(foreign), -1), np.full(len(foreign), -1))] = True
    dark = rng.random((PULSES, 2, 2)) < receiver.dark_count_probability
    if not passive:
        dark[np.arange(PULSES), 1 - bob] = False
    fired |= dark

    arms = fired.any(axis=2)
    seen = np.flatnonzero(arms.any(axis=1))
    both_arms = arms[seen].all(axis=1)
    basis = np.where(both_arms, rng.integers(0, 2, len(seen)), arms[seen, 1].astype(int))
    double = both_arms | fired[seen, basis].all(axis=1)
    result = np.where(double, rng.integers(0, 2, len(seen)), fired[seen, basis, 1].astype(int))
    counts = np.zeros((2, 2, 2, 2, 2, 2), dtype=int)
    np.add.at(counts, (intensity[seen], double.astype(int), basis, alice[seen], result, bit[seen]), 1)
    return counts


def test_trap_10_dark_counts_of_a_passive_receiver_count_for_four_detectors():
    # Without light, two live detectors click 1 - (1 - p)^2 of the time, four 1 - (1 - p)^4.
    dark = {**PLAIN, "dark_count_probability": 1e-4}
    source = DecoySource(1e9, (1e-9, 0.0), (0.5, 0.5), 0.5)
    for choice, detectors in (("active", 2), ("passive", 4)):
        link = QuantumLink(source, FibreChannel(0.0), Receiver(**dark, basis_choice=choice))
        statistics = expected_statistics(link)
        assert statistics.click_probability == pytest.approx(1 - (1 - 1e-4) ** detectors, rel=1e-4)
        assert statistics.qber == pytest.approx(0.5, abs=1e-4)


def test_trap_11_a_narrow_window_takes_less_signal_and_less_noise():
    def statistics(window_s, fwhm_s, noise=1.0):
        receiver = Receiver(
            3.0,
            0.2,
            noise * 1e-5 * window_s / SLOT_S,
            captured_fraction=float(captured_fraction(window_s, fwhm_s)),
            leaked_fraction=leaked_fraction(window_s, SLOT_S, fwhm_s),
            gate_width_s=window_s,
        )
        source = DecoySource(1 / SLOT_S, (0.5, 0.1), (0.9, 0.1), 0.9)
        return expected_statistics(QuantumLink(source, FibreChannel(20.0, noise * 1e3), receiver))

    wide, narrow = statistics(1e-9, 6e-10), statistics(3e-10, 6e-10)
    assert narrow.gains[0] < wide.gains[0]
    assert narrow.qber < wide.qber
    # Half of what leaks in from the neighbours is wrong: without other noise, the QBER is half its share.
    sharp, blurred = statistics(1e-9, 0.0, noise=0.0), statistics(1e-9, 6e-10, noise=0.0)
    mean_over_signal = 0.9 + 0.1 * 0.1 / 0.5
    leaked = leaked_fraction(1e-9, SLOT_S, 6e-10)
    share = leaked * mean_over_signal / (1 - leaked + leaked * mean_over_signal)
    assert blurred.error_rates[0, 0] - sharp.error_rates[0, 0] == pytest.approx(share / 2, rel=0.02)
    assert blurred.gains[0] == pytest.approx(sharp.gains[0], rel=0.01)


@pytest.mark.parametrize("afterpulse_probability", [0.05, 0.25])
def test_afterpulses_gate_by_gate_give_the_background_of_the_closed_form(rng, afterpulse_probability):
    # Every click leaves, with this chance, a charge in its detector that fires it up to 100 gates later.
    gates, photons, dark = 400_000, 0.04, 1e-3
    by_light = rng.random((gates, 2)) < -np.expm1(-photons / 2)
    fires = by_light | (rng.random((gates, 2)) < dark)
    leaves, later = rng.random((gates, 2)) < afterpulse_probability, rng.integers(1, 101, (gates, 2))
    pending = np.zeros((gates + 101, 2), dtype=bool)
    for gate in range(gates):
        for detector in (0, 1):
            if fires[gate, detector] or pending[gate, detector]:
                fires[gate, detector] = True
                if leaves[gate, detector]:
                    pending[gate + later[gate, detector], detector] = True
    background = background_probability(np.array([photons]), np.ones(1), dark, afterpulse_probability)
    unlit = ~by_light
    counted, likely = (fires & unlit).sum(), unlit.sum() * background
    # Clicks come in families of 1 / (1 - p_ap), which widens the spread; five standard deviations.
    assert abs(counted - likely) < 5 * np.sqrt(likely) / (1 - afterpulse_probability)
