"""The records of an exchange: order, dead time, independence, who holds what."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import OutsideModel
from openqci.quantum import exchange
from openqci.quantum.exchange import CHUNK, draw_kinds, draw_slots


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(seed))


@pytest.mark.parametrize("dead_time_s", [0.0, 1e-9, 1e-8, 1e-5])
@pytest.mark.parametrize("length_km", [0.0, 140.0])
def test_no_click_comes_within_the_dead_time_of_another(link, rng, length_km, dead_time_s):
    one = link(length_km, dead_time_s=dead_time_s)
    slots = exchange(one, 3 * CHUNK + 17, rng).detections.slots
    assert np.diff(slots).min() >= one.dead_slots + 1
    assert slots[0] >= 0


def test_both_records_name_the_same_slots_and_share_no_memory(link, rng):
    got = exchange(link(), 1000, rng)
    assert (got.emissions.slots == got.detections.slots).all()
    for at_alice in (got.emissions.slots, got.emissions.bits, got.emissions.bases):
        for at_bob in (got.detections.slots, got.detections.bits, got.detections.bases):
            assert not np.shares_memory(at_alice, at_bob)


def test_types_and_lengths_are_those_of_the_core(link, rng):
    got = exchange(link(), 1000, rng)
    assert got.emissions.slots.dtype == got.detections.slots.dtype == np.int64
    for array in (got.emissions.bases, got.emissions.bits, got.emissions.intensities):
        assert array.dtype == np.uint8 and array.shape == (1000,) and array.max() == 1
    for array in (got.detections.bases, got.detections.bits):
        assert array.dtype == np.uint8 and array.shape == (1000,) and array.max() == 1
    assert got.emissions.pulses == got.detections.slots[-1] + 1
    assert got.duration_s == pytest.approx(got.emissions.pulses * 1e-9)


def test_an_equal_seed_gives_equal_records(link):
    first, second = (exchange(link(), 40_000, generator(5)) for _ in range(2))
    other = exchange(link(), 40_000, generator(6))
    assert (first.detections.slots == second.detections.slots).all()
    assert (first.emissions.bits == second.emissions.bits).all()
    assert (first.detections.bits == second.detections.bits).all()
    assert (first.detections.slots != other.detections.slots).any()


def test_nothing_asked_gives_empty_records(link, rng):
    got = exchange(link(), 0, rng)
    assert len(got.emissions.slots) == len(got.detections.bits) == got.emissions.pulses == 0
    assert got.duration_s == 0


def test_a_negative_number_of_detections_is_refused(link, rng):
    with pytest.raises(OutsideModel, match="detections"):
        exchange(link(), -1, rng)


def test_a_link_that_would_run_for_ever_is_refused(link, rng):
    deaf = link(0.0, loss_db=200.0, dark_count_probability=0.0, afterpulse_probability=0.0)
    with pytest.raises(OutsideModel, match="detections"):
        exchange(deaf, 10, rng)


def test_neighbouring_detections_know_nothing_of_each_other(link, rng):
    count = 400_000
    got = exchange(link(0.0), count, rng)
    error = (got.emissions.bits != got.detections.bits).astype(float)
    gaps = np.diff(got.detections.slots).astype(float)
    for series in (
        got.emissions.bits,
        got.detections.bits,
        got.emissions.bases,
        got.emissions.intensities,
        error,
    ):
        series = series.astype(float)
        for lag in (1, 2, 7):
            assert abs(np.corrcoef(series[:-lag], series[lag:])[0, 1]) < 5 / count**0.5
        assert abs(np.corrcoef(gaps, series[1:])[0, 1]) < 5 / count**0.5
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 5 / count**0.5


def test_double_clicks_carry_a_random_bit(link, rng):
    # So much background that most detections are double clicks: half of the sifted bits must be wrong.
    noisy = link(150.0, dark_count_probability=0.1, intensities=(9.0, 8.0), afterpulse_probability=0.0)
    got = exchange(noisy, 100_000, rng)
    assert got.detections.double_clicks > 0
    assert abs(got.detections.bits.mean() - 0.5) < 5 * 0.5 / 100_000**0.5


@given(
    weights=st.lists(st.sampled_from([0.0, 1e-12, 1e-5, 0.1, 1.0, 3.0]), min_size=1, max_size=128).filter(
        any
    ),
    seed=st.integers(0, 2**32),
)
def test_the_table_gives_what_the_plain_search_gives(weights, seed):
    probabilities = np.array(weights)
    drawn = draw_kinds(probabilities, 2000, generator(seed))
    cumulative = np.cumsum(probabilities) / np.sum(probabilities)
    cumulative[np.flatnonzero(probabilities)[-1] :] = 1.0
    plain = np.searchsorted(cumulative, generator(seed).random(2000), side="right")
    assert (drawn == plain).mean() > 0.999  # the last digit of the sum may differ
    assert (probabilities[drawn] > 0).all()


@pytest.mark.parametrize("probability", [0.9, 0.3, 1e-3, 1e-7])
def test_silence_before_a_click_is_geometric(rng, probability):
    gaps = np.diff(draw_slots(probability, 0, 200_001, rng)) - 1
    silence, spread = (1 - probability) / probability, (1 - probability) ** 0.5 / probability
    assert abs(gaps.mean() - silence) < 5 * spread / 200_000**0.5
    assert gaps.std() == pytest.approx(spread, rel=0.03)
    assert abs((gaps == 0).mean() - probability) < 5 * (probability / 200_000) ** 0.5
