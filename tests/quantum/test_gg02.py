"""GG02: the closed form against drawn quadratures, state by state, and the channel found again in them."""

import numpy as np
import pytest
from scipy import stats

from openqci.core.errors import OutsideModel
from openqci.proofs.gaussian_estimate import estimated_channel
from openqci.quantum.gg02 import (
    CoherentDetector,
    GaussianLink,
    GaussianLoss,
    GaussianSource,
    gg02_exchange,
    gg02_statistics,
    phase_noise_snu,
)

SYMBOLS = 200_000

GRID = [
    (detection, loss_db, excess, limit)
    for detection in ("homodyne", "heterodyne")
    for loss_db in (0.0, 3.0, 10.0)
    for excess in (0.0, 0.05)
    for limit in (None, 1.5)
]


def link(detection="homodyne", loss_db=5.0, excess=0.02, limit=None) -> GaussianLink:
    detector = CoherentDetector(0.6, 0.1, detection, limit)
    return GaussianLink(GaussianSource(1e8, 6.0), GaussianLoss(loss_db, excess), detector)


@pytest.mark.parametrize(("detection", "loss_db", "excess", "limit"), GRID)
def test_drawn_quadratures_have_the_variances_of_the_closed_form(detection, loss_db, excess, limit):
    # Two z-tests for each of 24 settings at 5 sigma: one false alarm in 36,000 runs with other seeds.
    tried = link(detection, loss_db, excess, limit)
    alice, bob = gg02_exchange(tried, SYMBOLS, np.random.default_rng(17)).paired()
    expected = gg02_statistics(tried)
    for values, mean in ((bob**2, expected.bob_variance_snu), (alice * bob, expected.covariance_snu)):
        assert abs(values.mean() - mean) < 5 * values.std() / np.sqrt(len(values))


@pytest.mark.parametrize("detection", ["homodyne", "heterodyne"])
def test_drawn_values_are_normal(detection):
    # Kolmogorov-Smirnov at a false-alarm rate of 1e-4.
    tried = link(detection)
    _, bob = gg02_exchange(tried, 20_000, np.random.default_rng(3)).paired()
    scale = np.sqrt(gg02_statistics(tried).bob_variance_snu)
    assert stats.kstest(bob / scale, "norm").pvalue > 1e-4


@pytest.mark.parametrize("detection", ["homodyne", "heterodyne"])
@pytest.mark.parametrize(("loss_db", "excess"), [(1.0, 0.05), (6.0, 0.1), (12.0, 0.2)])
def test_the_channel_is_found_again(detection, loss_db, excess):
    tried = link(detection, loss_db, excess)
    record = gg02_exchange(tried, SYMBOLS, np.random.default_rng(5))
    alice, bob = record.paired()
    found = estimated_channel(alice, bob, 0.6, 0.1, detection)
    truth = tried.gaussian_channel
    noise, amplitude = float(truth.symbol_variance_snu), tried.amplitude
    share = 1.0 if detection == "homodyne" else 0.5
    slope_sd = np.sqrt(noise / (len(bob) * 6.0))
    assert np.sqrt(share * 0.6 * found.transmittance) == pytest.approx(amplitude, abs=5 * slope_sd)
    noise_sd = noise * np.sqrt(2 / len(bob)) / amplitude**2
    assert found.excess_noise_snu == pytest.approx(excess, abs=5 * noise_sd + 10 * slope_sd * excess)
    assert found.modulation_variance_snu == pytest.approx(6.0, rel=0.02)


def test_without_clipping_the_statistics_are_those_of_the_proof():
    for detection in ("homodyne", "heterodyne"):
        tried = link(detection)
        expected, seen = gg02_statistics(tried), tried.gaussian_channel
        assert expected.signal_to_noise == pytest.approx(float(seen.signal_to_noise()))
        assert expected.mutual_information_bits == pytest.approx(float(seen.mutual_information_bits()))
        assert expected.symbol_variance_snu == pytest.approx(float(seen.symbol_variance_snu))


def test_homodyne_chooses_its_quadrature_at_random():
    measured = gg02_exchange(link(), 20_000, np.random.default_rng(9)).measured
    assert stats.binomtest(int(measured.sum()), 20_000).pvalue > 1e-4
    assert set(gg02_exchange(link("heterodyne"), 10, np.random.default_rng(9)).measured) == {2}


def test_equal_seeds_give_equal_records():
    first, again = (gg02_exchange(link(), 100, np.random.default_rng(4)) for _ in range(2))
    assert np.array_equal(first.bob, again.bob) and np.array_equal(first.alice, again.alice)


def test_a_vacuum_has_the_shot_noise():
    dark = GaussianLink(GaussianSource(1e8, 1e-9), GaussianLoss(0.0, 0.0), CoherentDetector(1.0, 0.0))
    assert gg02_statistics(dark).bob_variance_snu == pytest.approx(1.0, abs=1e-8)


def test_clipping_takes_information():
    clipped, free = gg02_statistics(link(limit=1.0)), gg02_statistics(link())
    assert clipped.mutual_information_bits < free.mutual_information_bits
    assert 0 < clipped.clipped_fraction < 1 and free.clipped_fraction == 0


def test_phase_noise_of_a_local_oscillator():
    assert phase_noise_snu(4.0, 7e-4) == pytest.approx(2.8e-3, rel=1e-3)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: GaussianSource(0.0, 4.0), "symbol_rate_hz"),
        (lambda: GaussianSource(1e8, -1.0), "modulation_variance_snu"),
        (lambda: GaussianLoss(-1.0, 0.0), "loss_db"),
        (lambda: GaussianLoss(1.0, float("nan")), "excess_noise_snu"),
        (lambda: CoherentDetector(1.1, 0.1), "efficiency"),
        (lambda: CoherentDetector(0.5, -0.1), "electronic_noise_snu"),
        (lambda: CoherentDetector(0.5, 0.1, "triple"), "detection"),
        (lambda: CoherentDetector(0.5, 0.1, "homodyne", 0.0), "linear_range_snu"),
        (lambda: gg02_exchange(link(), 0, np.random.default_rng(1)), "symbols"),
    ],
)
def test_bad_input_is_refused_by_name(make, said):
    with pytest.raises(OutsideModel, match=said):
        make()
