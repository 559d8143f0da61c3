"""Detections of a link that changes: each stretch as its closed form says, one dead time throughout."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqci.core.errors import OutsideModel
from openqci.quantum import DecoySource, FibreChannel, QuantumLink, Receiver, exchange, expected_statistics
from openqci.quantum.varying import Stretch, exchange_of_stretches, slots_until

SOURCE = DecoySource(1e9, (0.5, 0.1), (0.7, 0.3), z_basis_probability=0.9)
RECEIVER = Receiver(1.0, 0.8, 1e-7, dead_time_s=3e-8, misalignment_error=0.02)


def link(loss_db: float, source: DecoySource = SOURCE, receiver: Receiver = RECEIVER) -> QuantumLink:
    return QuantumLink(source, FibreChannel(loss_db), receiver)


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(seed))


def test_each_stretch_yields_what_its_closed_form_says() -> None:
    stretches = [Stretch(link(loss_db), 30_000_000) for loss_db in (10.0, 25.0, 5.0)]
    seen = exchange_of_stretches(stretches, rng())
    emitted, detected = seen.emissions, seen.detections
    assert seen.duration_s == pytest.approx(0.09) and emitted.pulses == 90_000_000
    for index, stretch in enumerate(stretches):
        here = (detected.slots // 30_000_000) == index
        expected = expected_statistics(stretch.link)
        mean = expected.detection_rate_hz * 0.03 * expected.detection_fractions
        for basis in (0, 1):
            matched = here & (emitted.bases == basis) & (detected.bases == basis)
            counts = np.bincount(emitted.intensities[matched], minlength=2)
            assert counts == pytest.approx(mean[basis], abs=5 * np.sqrt(mean[basis].max()))
            wrong = np.count_nonzero(emitted.bits[matched] != detected.bits[matched])
            wrong_mean = float((mean[basis] * expected.error_rates[basis]).sum())
            assert wrong == pytest.approx(wrong_mean, abs=5 * np.sqrt(wrong_mean))


def test_a_detector_that_is_dead_at_the_end_of_a_stretch_is_dead_at_the_beginning_of_the_next() -> None:
    stretches = [Stretch(link(0.0), 40)] * 300
    slots = exchange_of_stretches(stretches, rng()).detections.slots
    assert np.diff(slots).min() == stretches[0].link.dead_slots + 1
    # Bright light: a click in every third gate or so, and then thirty dead ones, whatever the stretches are.
    uncut = exchange_of_stretches([Stretch(link(0.0), 12_000)], rng(2)).detections.slots
    assert len(slots) == pytest.approx(len(uncut), abs=25)


@given(
    lengths=st.lists(st.integers(0, 2_000), max_size=8),
    losses_db=st.lists(st.floats(0.0, 60.0), min_size=8, max_size=8),
    seed=st.integers(0, 2**64 - 1),
)
@settings(max_examples=30, deadline=None)
def test_slots_rise_by_more_than_the_dead_time_and_end_with_the_pulses(
    lengths: list[int], losses_db: list[float], seed: int
) -> None:
    stretches = [Stretch(link(loss_db), length) for loss_db, length in zip(losses_db, lengths, strict=False)]
    seen, again = (exchange_of_stretches(stretches, rng(seed)) for _ in range(2))
    slots = seen.detections.slots
    assert seen.emissions.pulses == sum(lengths)
    assert not len(slots) or 0 <= slots[0] <= slots[-1] < sum(lengths)
    assert np.all(np.diff(slots) > 30)
    assert np.array_equal(slots, again.detections.slots)
    assert np.array_equal(seen.detections.bits, again.detections.bits)


def test_one_stretch_is_the_exchange_of_a_link_that_does_not_change() -> None:
    whole = exchange(link(20.0), 10_000, rng())
    assert whole.emissions.pulses == pytest.approx(
        exchange_of_stretches([Stretch(link(20.0), whole.emissions.pulses)], rng(2)).detections.slots.size
        / expected_statistics(link(20.0)).detection_rate_hz
        * 1e9,
        rel=0.05,
    )


def test_no_light_and_no_dark_counts_are_no_clicks() -> None:
    assert slots_until(0.0, 0, 0, 10**12, rng()).size == 0


@pytest.mark.parametrize(
    ("stretches", "named"),
    [
        ([Stretch(link(9.0), 5), Stretch(link(9.0, replace(SOURCE, clock_rate_hz=2e9)), 5)], "source"),
        (
            [Stretch(link(9.0), 5), Stretch(link(9.0, receiver=replace(RECEIVER, dead_time_s=0.0)), 5)],
            "dead_time_s",
        ),
        (
            [Stretch(link(9.0, receiver=replace(RECEIVER, dead_time_model="paralysable")), 5)],
            "dead_time_model",
        ),
        ([Stretch(link(9.0), -1)], "pulses"),
        ([Stretch(link(9.0), 10**15 + 1)], "pulses"),
    ],
)
def test_what_no_source_and_receiver_can_do_is_refused(stretches: list[Stretch], named: str) -> None:
    with pytest.raises(OutsideModel) as refused:
        exchange_of_stretches(stretches, rng())
    assert refused.value.parameter == named
