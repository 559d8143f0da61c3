"""What receivers add: mismatch, saturation, dead time, a passive choice; their limits and their units."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from openqci.core.errors import OutsideModel
from openqci.quantum import (
    DecoySource,
    FibreChannel,
    FibreKind,
    FibreSpan,
    PhotonDetector,
    QuantumLink,
    Receiver,
    exchange,
    expected_statistics,
)
from openqci.quantum.clicks import background_probability, clicks
from openqci.quantum.coexistence import ClassicalChannel, CoexistenceNoise, QuantumFilter
from openqci.quantum.drift import AngleDrift
from openqci.quantum.encodings import ReceiverOptics
from openqci.quantum.exchange import draw_paralysed_slots
from openqci.quantum.link import choice_probabilities, class_probabilities

DETECTIONS = 100_000


# --- the plain receiver stays what it was ---


@pytest.mark.parametrize("length_km", [0.0, 31.7, 80.0, 140.0])
@pytest.mark.parametrize("afterpulse_probability", [0.0, 0.0525])
def test_a_plain_receiver_has_the_table_of_two_equal_detectors_to_the_last_digit(
    link, length_km, afterpulse_probability
):
    one = link(length_km, afterpulse_probability=afterpulse_probability, misalignment_error=0.0137)
    photons = one.receiver(one.channel(one.source.mean_photons()))
    background = background_probability(
        photons, np.array(one.source.probabilities), 1e-6, afterpulse_probability
    )
    table = np.empty((2, 2, 2, 2, 2, 2))
    for bob, alice in itertools.product((0, 1), repeat=2):
        seen = clicks(photons, background, 0.0137 if bob == alice else 0.5)
        equal = np.eye(2)
        single = (seen.right[:, None, None] * equal + seen.wrong[:, None, None] * (1 - equal)) / 2
        table[:, 0, bob, alice] = single
        table[:, 1, bob, alice] = seen.double[:, None, None] / 4
    expected = table * choice_probabilities(one)[:, None, :, :, None, None]
    assert one.background == background
    assert (class_probabilities(one) == expected).all()


# --- closed form and Monte Carlo, over the grid of what a receiver may be ---

GRID = {
    "mismatch": {"efficiency_ratio": 0.5},
    "passive": {"basis_choice": "passive"},
    "time bins": {"basis_choice": "passive", "x_extra_loss_db": 3.0, "x_misalignment_error": 0.03},
    "jitter": {"captured_fraction": 0.9, "leaked_fraction": 0.08},
    "saturation": {"detector_count_rate_max_hz": 2e6},
    "paralysable": {"dead_time_model": "paralysable", "dead_time_s": 5e-8},
    "all": {
        "efficiency_ratio": 0.8,
        "basis_choice": "passive",
        "x_extra_loss_db": 1.0,
        "leaked_fraction": 0.02,
        "detector_count_rate_max_hz": 1e7,
        "dead_time_s": 3e-8,
        "afterpulse_probability": 0.05,
    },
}


@pytest.mark.parametrize("length_km", [0.0, 60.0, 120.0])
@pytest.mark.parametrize("case", GRID)
def test_monte_carlo_and_closed_form_agree(link, rng, case, length_km):
    # 21 cells, chi-square below 1e-4 and a rate five sigma off: false alarm 2e-3 for the whole grid.
    one = link(length_km, **GRID[case])
    expected, got = expected_statistics(one), exchange(one, DETECTIONS, rng)
    alice, bob = got.emissions, got.detections
    index = (((alice.intensities * 2 + bob.bases) * 2 + alice.bases) * 2 + bob.bits) * 2 + alice.bits
    likely = class_probabilities(one).sum(axis=1).ravel()
    likely *= DETECTIONS / likely.sum()
    observed = np.bincount(index, minlength=len(likely))
    rare = likely < 20
    observed, likely = (np.append(each[~rare], each[rare].sum()) for each in (observed, likely))
    assert chisquare(observed[likely > 0], likely[likely > 0]).pvalue > 1e-4
    rate_hz = DETECTIONS / got.duration_s
    assert rate_hz == pytest.approx(expected.detection_rate_hz, rel=5 / DETECTIONS**0.5)


# --- efficiency mismatch ---


def test_mismatch_biases_the_key_bits_as_its_ratio(link):
    # Weak light, no noise: bits 0 and 1 come as 1 : r, whatever Alice sends half of the time each.
    weak = link(150.0, efficiency_ratio=0.25, dark_count_probability=0.0, afterpulse_probability=0.0)
    key = class_probabilities(weak)[:, :, 0, 0].sum(axis=(0, 1))  # Bob's bit, Alice's bit
    assert key[1].sum() / key[0].sum() == pytest.approx(0.25, rel=1e-3)


@pytest.mark.parametrize("changes", [{}, {"x_extra_loss_db": 3.0, "misalignment_error": 0.2}])
def test_afterpulses_follow_the_clicks_that_unequal_detectors_have(link, changes):
    one = link(10.0, efficiency_ratio=0.3, afterpulse_probability=0.1, **changes)
    clicks_per_gate = expected_statistics(one).click_probability
    assert one.background == pytest.approx(1e-6 + 0.1 * clicks_per_gate / 2, rel=1e-12)


@given(st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_worse_detector_never_gives_more_clicks(first, second):
    low, high = sorted((first, second))
    source = DecoySource(1e9, (0.5, 0.1), (0.5, 0.5), 0.5)
    gains = [
        expected_statistics(
            QuantumLink(source, FibreChannel(10.0), Receiver(3.0, 0.2, 1e-6, efficiency_ratio=each))
        ).gains[0]
        for each in (low, high)
    ]
    assert gains[0] <= gains[1] * (1 + 1e-12)


# --- dead time and saturation ---


def a_million_per_second(link, **changes):
    free = link(80.0, dead_time_s=0.0, afterpulse_probability=0.0, dark_count_probability=0.0)
    clock_rate_hz = 1e6 / expected_statistics(free).click_probability
    figures = {"afterpulse_probability": 0.0, "dark_count_probability": 0.0} | changes
    return link(80.0, clock_rate_hz=clock_rate_hz, **figures)


@pytest.mark.parametrize(
    ("model", "rate_hz"), [("nonparalysable", 9.09e4), ("paralysable", 1e6 * math.exp(-10))]
)
def test_trap_09_ten_microseconds_at_a_million_clicks_per_second(link, model, rate_hz):
    one = a_million_per_second(link, dead_time_s=1e-5, dead_time_model=model)
    assert expected_statistics(one).detection_rate_hz == pytest.approx(rate_hz, rel=1e-2)


def test_trap_09_the_shorter_the_fibre_the_more_the_dead_time_takes(link):
    def lost(length_km):
        free, dead = (
            expected_statistics(link(length_km, dead_time_s=each)).detection_rate_hz for each in (0.0, 1e-6)
        )
        return 1 - dead / free

    losses = [lost(length_km) for length_km in (0.0, 20.0, 50.0, 100.0)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > 0.9 > 0.3 > losses[-1]


@pytest.mark.parametrize(("probability", "dead_slots"), [(0.3, 0), (0.3, 5), (0.02, 60), (1e-4, 10_000)])
def test_paralysed_slots_keep_their_distance_and_their_rate(rng, probability, dead_slots):
    slots = draw_paralysed_slots(probability, dead_slots, 50_000, rng)
    assert len(slots) == 50_000 and np.diff(slots).min() > dead_slots and slots[0] >= 0
    rate = probability * (1 - probability) ** dead_slots
    assert 50_000 / (slots[-1] + 1) == pytest.approx(rate, rel=5 / 50_000**0.5)


def test_paralysed_slots_are_what_a_detector_pulse_by_pulse_sees(rng):
    # Independent mechanism: every slot fires or not; what fires within the dead time starts it anew.
    fires = np.flatnonzero(rng.random(2_000_000) < 0.02)
    seen = fires[np.diff(fires, prepend=-1000) > 60]
    drawn = draw_paralysed_slots(0.02, 60, len(seen), rng)
    edges = [61, 70, 80, 100, 130, 170, 230, 300, 400, 10**7]
    counts = [np.histogram(np.diff(each), edges)[0] for each in (seen, drawn)]
    pooled = (counts[0] + counts[1]) / 2
    assert ((counts[0] - counts[1]) ** 2 / (2 * pooled)).sum() < 40  # chi-square of 9: 1e-5


def test_a_detector_that_is_paralysed_altogether_is_refused(link, rng):
    stuck = link(0.0, dead_time_s=1e-3, dead_time_model="paralysable")
    with pytest.raises(OutsideModel, match="dead_time_s"):
        exchange(stuck, 10, rng)
    assert expected_statistics(stuck).detection_rate_hz < 1e-3


def test_saturation_is_that_of_many_pixels_with_their_own_recovery(rng):
    # Independent mechanism: photons fall on 8 pixels at random, each blind for 100 ns after a count.
    pixels, recovery_s, photons_hz, efficiency = 8, 1e-7, 1e8, 0.7
    times_s = np.cumsum(rng.exponential(1 / (photons_hz * efficiency), 40_000))
    ready_s, counted = np.zeros(pixels), 0
    for time_s, pixel in zip(times_s.tolist(), rng.integers(0, pixels, len(times_s)).tolist(), strict=True):
        if time_s >= ready_s[pixel]:
            ready_s[pixel] = time_s + recovery_s
            counted += 1
    # The same detector twice behind weak light, so that slots and double clicks do not matter.
    per_slot = 2 * photons_hz / 1e12
    source = DecoySource(1e12, (per_slot, per_slot / 2), (1 - 1e-9, 1e-9), 0.5)
    receiver = Receiver(0.0, efficiency, 0.0, detector_count_rate_max_hz=pixels / recovery_s)
    link = QuantumLink(source, FibreChannel(0.0), receiver)
    rate_hz = expected_statistics(link).detection_rate_hz / 2
    assert rate_hz == pytest.approx(counted / times_s[-1], rel=0.03)
    assert link.relative_efficiency == pytest.approx(1 - rate_hz / (pixels / recovery_s), rel=1e-9)


def test_a_slow_detector_does_not_saturate(link):
    slow = link(140.0, detector_count_rate_max_hz=1e12)
    assert slow.relative_efficiency == pytest.approx(1.0, abs=1e-5)
    assert link(140.0).relative_efficiency == 1.0


def test_dark_counts_above_the_maximum_rate_are_refused(link):
    with pytest.raises(OutsideModel, match="detector_count_rate_max_hz"):
        expected_statistics(link(dark_count_probability=0.1, detector_count_rate_max_hz=1e3))


@given(st.floats(0, 120), st.floats(1e5, 1e10))
def test_saturation_lowers_the_rate_and_stays_below_the_maximum(length_km, rate_max_hz):
    source = DecoySource(1e9, (0.5, 0.1), (0.5, 0.5), 0.5)
    free, saturated = (
        expected_statistics(
            QuantumLink(
                source,
                FibreChannel.of_length(length_km),
                Receiver(3.0, 0.2, 1e-7, detector_count_rate_max_hz=each),
            )
        ).detection_rate_hz
        for each in (None, rate_max_hz)
    )
    assert saturated <= free * (1 + 1e-9)
    assert saturated / 2 < rate_max_hz


def test_a_paralysable_detector_has_no_maximum_rate_besides():
    with pytest.raises(OutsideModel, match="dead_time_model"):
        Receiver(3.0, 0.2, 1e-6, dead_time_model="paralysable", detector_count_rate_max_hz=1e6)


# --- limits ---


@pytest.mark.parametrize("basis_choice", ["active", "passive"])
def test_zero_light_leaves_dark_counts_with_random_bits(basis_choice):
    source = DecoySource(1e9, (1e-12, 0.0), (0.5, 0.5), 0.5)
    receiver = Receiver(0.0, 1.0, 1e-5, basis_choice=basis_choice, efficiency_ratio=0.5)
    dark = expected_statistics(QuantumLink(source, FibreChannel(200.0), receiver))
    assert dark.qber == pytest.approx(0.5, abs=1e-9)
    assert dark.gains[0] == pytest.approx(dark.gains[1], rel=1e-9)


def test_no_light_and_no_noise_are_no_clicks_and_no_error(rng):
    source = DecoySource(1e9, (5e-324, 0.0), (0.5, 0.5), 0.5)
    nothing = QuantumLink(source, FibreChannel(200.0), Receiver(0.0, 1.0, 0.0))
    statistics = expected_statistics(nothing)
    assert statistics.detection_rate_hz == statistics.qber == statistics.double_click_fraction == 0
    assert (statistics.detection_fractions == 0).all()
    with pytest.raises(OutsideModel, match="detections"):
        exchange(nothing, 1, rng)


@pytest.mark.parametrize("basis_choice", ["active", "passive"])
def test_zero_loss_and_perfect_detectors_see_every_pulse_that_has_a_photon(basis_choice):
    source = DecoySource(1e9, (0.7, 0.1), (0.5, 0.5), 0.5)
    perfect = QuantumLink(source, FibreChannel(0.0), Receiver(0.0, 1.0, 0.0, basis_choice=basis_choice))
    statistics = expected_statistics(perfect)
    assert statistics.gains == pytest.approx(-np.expm1([-0.7, -0.1]), rel=1e-12)
    if basis_choice == "active":
        assert statistics.error_rates == pytest.approx(np.zeros((2, 2)), abs=1e-15)
    else:  # a pulse of two photons may be seen in both bases, and then says nothing
        assert 0 < statistics.qber < 0.1


@given(
    loss_db=st.floats(0, 60),
    ratio=st.floats(0.05, 1),
    z=st.floats(0.05, 0.95),
    passive=st.booleans(),
    background_hz=st.floats(0, 1e8),
    error=st.floats(0, 0.5),
)
def test_a_table_is_a_distribution_and_noise_never_helps(loss_db, ratio, z, passive, background_hz, error):
    source = DecoySource(1e9, (0.6, 0.2, 0.0), (0.5, 0.3, 0.2), z)
    receiver = Receiver(
        2.0,
        0.5,
        1e-6,
        afterpulse_probability=0.03,
        z_basis_probability=z,
        basis_choice="passive" if passive else "active",
        efficiency_ratio=ratio,
        leaked_fraction=0.01,
    )
    quiet = QuantumLink(source, FibreChannel(loss_db), receiver)
    noisy = QuantumLink(source, FibreChannel(loss_db, background_hz, error), receiver)
    table = class_probabilities(noisy)
    assert (table >= 0).all() and table.sum() <= 1 + 1e-12
    assert table.sum() >= class_probabilities(quiet).sum() * (1 - 0.6 * (1 - ratio)) - 1e-12
    assert expected_statistics(noisy).qber >= expected_statistics(quiet).qber - 1e-6


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("basis_choice", "none"),
        ("efficiency_ratio", 0.0),
        ("efficiency_ratio", math.nan),
        ("gate_width_s", -1e-9),
        ("captured_fraction", 1.1),
        ("leaked_fraction", -0.1),
        ("detector_count_rate_max_hz", math.inf),
        ("dead_time_model", "sleepy"),
        ("x_extra_loss_db", -1.0),
        ("x_misalignment_error", 0.7),
    ],
)
def test_a_receiver_outside_the_model_is_refused_by_name(parameter, value):
    with pytest.raises(OutsideModel) as refusal:
        Receiver(3.0, 0.2, 1e-6, **{parameter: value})
    assert refusal.value.parameter == parameter


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("background_photons_hz", -1.0), ("background_photons_hz", math.nan), ("misalignment_error", 0.51)],
)
def test_a_channel_outside_the_model_is_refused_by_name(parameter, value):
    with pytest.raises(OutsideModel, match=parameter):
        FibreChannel(10.0, **{parameter: value})


# --- units ---

UNITS = ("_hz", "_s", "_db", "_dbm", "_nm", "_km", "_rad")
WITHOUT_UNIT = (
    "efficiency",
    "probability",
    "probabilities",
    "intensities",
    "error",
    "fraction",
    "ratio",
    "capture",
)
PER = ("_per_km", "_per_gate", "_per_w_km", "_per_nm_km")


@pytest.mark.parametrize(
    "element",
    [
        AngleDrift,
        ClassicalChannel,
        CoexistenceNoise,
        DecoySource,
        FibreChannel,
        FibreKind,
        FibreSpan,
        PhotonDetector,
        QuantumFilter,
        Receiver,
        ReceiverOptics,
    ],
)
def test_trap_18_every_figure_of_an_element_carries_its_unit(element):
    for field in dataclasses.fields(element):
        if "float" in str(field.type):
            assert field.name.endswith(UNITS + WITHOUT_UNIT + PER), field.name


def test_trap_18_efficiency_is_of_one_detector_and_counts_once(link):
    # Half of the efficiency is 3 dB of loss: a power ratio, and not per pair of detectors.
    half = link(100.0, detector_efficiency=0.1, afterpulse_probability=0.0)
    lossy = link(100.0, loss_db=3.0 + 10 * math.log10(2), afterpulse_probability=0.0)
    assert expected_statistics(half).gains == pytest.approx(expected_statistics(lossy).gains, rel=1e-9)
