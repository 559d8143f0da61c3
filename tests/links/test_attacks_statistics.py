"""Statistics split by Eve's view: photon numbers, what is safe, the linear program of yields."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqci.core.errors import OutsideModel
from openqci.links.attacks import honest_statistics
from openqci.links.attacks.assessment import STANDARD_BLOCK, finite_key
from openqci.links.attacks.statistics import (
    bounds_of,
    known,
    line_photons,
    mutual_information,
    photon_number_bounds,
    photons_max,
    poisson_weights,
    readings,
    relit_table,
    resolved_classes,
    safe_key_per_pulse,
    with_known_share,
)
from openqci.proofs.bounds import binary_entropy
from openqci.quantum import expected_statistics
from openqci.quantum.link import class_probabilities
from tests.links.attack_links import THREE, TWO, link

RECEIVERS = {
    "plain": {},
    "bright": {"loss_db": 0.0, "detector_efficiency": 1.0, "dark_count_probability": 1e-3},
    "unequal": {"efficiency_ratio": 0.6, "x_extra_loss_db": 2.0, "x_misalignment_error": 0.04},
    "passive": {"basis_choice": "passive", "dark_count_probability": 1e-4},
}


@pytest.mark.parametrize("changes", RECEIVERS.values(), ids=RECEIVERS)
@pytest.mark.parametrize("length_km", [0.0, 30.0])
def test_photon_numbers_mixed_with_a_poisson_distribution_are_the_table_of_the_link(length_km, changes):
    """The table is made of independent Poisson beams, this of single photons that go one way each."""
    one = link(length_km, THREE, **changes)
    largest = photons_max(0.5)
    resolved = resolved_classes(one, np.arange(largest + 1.0), line_photons(one))
    weights = poisson_weights(one.source.mean_photons(), largest)
    mixed = np.einsum("kn,n...->k...", weights * np.array(one.source.probabilities)[:, None], resolved)
    assert mixed == pytest.approx(class_probabilities(one), rel=1e-5, abs=1e-15)
    assert relit_table(one, np.ones(3)) == pytest.approx(class_probabilities(one), rel=1e-12)


def test_poisson_weights_sum_to_one():
    for mean in (0.0, 1e-3, 0.5, 10.0):
        assert poisson_weights(np.array([mean]), photons_max(mean)).sum() == pytest.approx(1.0, abs=1e-12)


def test_readings_are_the_expected_statistics_of_the_link():
    one = link()
    expected, log = expected_statistics(one), readings(honest_statistics(one), 1e9)
    assert log.seen / (1e9 * np.array(one.source.probabilities)) == pytest.approx(expected.gains)
    assert log.errors.sum(axis=1)[0] / log.sifted.sum(axis=1)[0] == pytest.approx(expected.qber)
    assert log.double_clicks / log.detections == pytest.approx(expected.double_click_fraction)
    rate_hz = log.detections / 1e9 * honest_statistics(one).live_fraction * 1e9
    assert rate_hz == pytest.approx(expected.detection_rate_hz)


@pytest.mark.parametrize("error", [0.0, 0.03, 0.5])
def test_mutual_information_of_a_binary_channel(error):
    joint = 0.2 * np.array([[1 - error, error], [error, 1 - error]]) / 2
    assert mutual_information(joint) == pytest.approx(0.2 * (1 - binary_entropy(error)), abs=1e-15)
    assert mutual_information(np.zeros((2, 2))) == 0.0


def test_who_knows_every_bit_leaves_no_key():
    honest = honest_statistics(link())
    assert safe_key_per_pulse(with_known_share(honest, 1.0)) < 1e-18
    assert safe_key_per_pulse(with_known_share(honest, 0.25)) == pytest.approx(
        0.75 * safe_key_per_pulse(honest)
    )
    assert known(honest.views).sum(axis=0) == pytest.approx(honest.table)


@pytest.mark.parametrize("source", [TWO, THREE])
@pytest.mark.parametrize("length_km", [0.0, 30.0, 60.0, 90.0])
def test_no_proof_gives_more_than_is_safe_on_an_honest_link(source, length_km):
    honest = honest_statistics(link(length_km, source))
    believed = finite_key(honest, STANDARD_BLOCK).length_bits / STANDARD_BLOCK.pulses
    assert believed < safe_key_per_pulse(honest)


@pytest.mark.parametrize("source", [TWO, THREE])
def test_the_linear_program_brackets_the_true_yields(source):
    one = link(40.0, source)
    bounds = bounds_of(honest_statistics(one), one.source.mean_photons())
    true = 1 - (1 - one.background) ** 2 * (1 - float(line_photons(one)[0, 0, 0].sum()))
    assert (bounds.single <= true * (1 + 1e-6)).all()
    assert bounds.single.min() > 0.5 * true
    error = (one.background / 2 + 0.01 * true) * 1.01
    assert (bounds.wrong >= 0.01 * true).all()
    assert bounds.wrong.max() < 5 * error
    if source is THREE:
        assert bounds.single.min() > 0.95 * true


@settings(max_examples=25)
@given(
    length_km=st.floats(0, 80),
    exponents=st.tuples(st.floats(-7, -1), st.floats(-7, -1)),
)
def test_more_slack_never_gives_more_single_photons(length_km, exponents):
    one = link(length_km, THREE)
    honest, mean = honest_statistics(one), one.source.mean_photons()
    weight = np.array(one.source.probabilities) * mean * np.exp(-mean)
    less, more = sorted(10**each for each in exponents)
    least = [float(weight @ bounds_of(honest, mean, each).single) for each in (0.0, less, more)]
    assert least[0] >= least[1] * (1 - 1e-6)
    assert least[1] >= least[2] * (1 - 1e-6) - 1e-12


def test_gains_that_no_yields_give_are_refused():
    with pytest.raises(OutsideModel, match="gains"):
        photon_number_bounds(
            np.array([0.9, 0.001]), np.array([0.01, 0.0001]), np.array([0.5, 0.2]), np.array([0.5, 0.5])
        )
