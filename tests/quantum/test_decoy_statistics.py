"""The closed form over arrays against that of one link, which is held to a third form elsewhere."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.detections import X_BASIS, Z_BASIS
from openqci.core.errors import OutsideModel
from openqci.quantum import DecoySource, FibreChannel, QuantumLink, Receiver, expected_statistics
from openqci.quantum.decoy_statistics import DecoyPlant, DecoyStatistics, decoy_statistics, plant_of

SOURCES = (
    ((0.5, 0.15), (0.7, 0.3)),
    ((0.6, 0.2, 2e-4), (0.6, 0.3, 0.1)),
    ((0.9, 0.3, 0.1, 0.0), (0.4, 0.3, 0.2, 0.1)),
)

fractions = st.floats(0.01, 1.0)
small = st.floats(-9.0, -3.0).map(lambda x: 10**x)
shares = st.lists(st.floats(0.05, 1.0), min_size=2, max_size=4)


@st.composite
def links(draw) -> QuantumLink:
    """Any link that the arrays describe: dead time, afterpulses, a test basis that loses and errs more."""
    parts = draw(shares)
    steps = draw(st.lists(st.floats(0.01, 0.5), min_size=len(parts), max_size=len(parts)))
    intensities = tuple(np.cumsum(steps)[::-1].tolist())
    z = draw(st.floats(0.05, 0.95))
    receiver = Receiver(
        loss_db=draw(st.floats(0.0, 6.0)),
        detector_efficiency=draw(st.floats(0.05, 1.0)),
        dark_count_probability=draw(small),
        dead_time_s=draw(st.sampled_from([0.0, 1e-9, 1e-8, 3.3e-7, 1e-5])),
        afterpulse_probability=draw(st.sampled_from([0.0, 1e-3, 0.05, 0.3])),
        misalignment_error=draw(st.floats(0.0, 0.2)),
        z_basis_probability=z,
        captured_fraction=draw(fractions),
        x_extra_loss_db=draw(st.sampled_from([0.0, 0.5, 5.0])),
        x_misalignment_error=draw(st.none() | st.floats(0.0, 0.5)),
    )
    channel = FibreChannel(draw(st.floats(0.0, 60.0)), misalignment_error=draw(st.sampled_from([0.0, 0.02])))
    source = DecoySource(1e9, intensities, tuple((np.array(parts) / sum(parts)).tolist()), z)
    return QuantumLink(source, channel, receiver)


def of_one_link(link: QuantumLink) -> DecoyStatistics:
    """The same figures from the scalar form."""
    expected = expected_statistics(link)
    per_pulse = expected.detection_rate_hz / link.source.clock_rate_hz
    gains = per_pulse * expected.detection_fractions
    wrong = gains * expected.error_rates
    return DecoyStatistics(
        gains[Z_BASIS],
        wrong[Z_BASIS],
        gains[X_BASIS],
        wrong[X_BASIS],
        np.array(expected.click_probability),
        np.array(per_pulse),
    )


def of_arrays(link: QuantumLink) -> DecoyStatistics:
    """The array form, asked about one link."""
    return statistics_of(plant_of(link), link.source)


def statistics_of(plant: DecoyPlant, source: DecoySource) -> DecoyStatistics:
    return decoy_statistics(
        plant,
        np.array(source.intensities),
        np.array(source.probabilities),
        np.array(source.z_basis_probability),
    )


def assert_same(found: DecoyStatistics, expected: DecoyStatistics, source: DecoySource, row=...) -> None:
    """To 1e-12, or to a few last digits of one: either form takes chances of silence, near one, from one."""
    sent = np.array(source.probabilities)
    z = source.z_basis_probability
    shares = {"z_gains": z**2 * sent, "z_error_gains": z**2 * sent}
    shares |= {"x_gains": (1 - z) ** 2 * sent, "x_error_gains": (1 - z) ** 2 * sent}
    for name, value in vars(expected).items():
        share = shares.get(name, 1.0)
        np.testing.assert_allclose(
            getattr(found, name)[row] / share, value / share, rtol=1e-12, atol=2e-15, err_msg=name
        )


@given(links())
def test_any_link_gives_what_it_gives_alone(link):
    assert_same(of_arrays(link), of_one_link(link), link.source)


@pytest.mark.parametrize(("intensities", "probabilities"), SOURCES)
@pytest.mark.parametrize("x_extra_loss_db", [0.0, 3.0])
@pytest.mark.parametrize("afterpulse_probability", [0.0, 0.02])
def test_a_grid_of_links_in_one_call_is_the_links_one_by_one(
    intensities, probabilities, x_extra_loss_db, afterpulse_probability
):
    source = DecoySource(1e9, intensities, probabilities, 0.8)
    apart = [
        QuantumLink(
            source,
            FibreChannel(loss_db),
            Receiver(
                3.0,
                0.2,
                dark,
                dead_time_s=dead_time_s,
                afterpulse_probability=afterpulse_probability,
                misalignment_error=0.01,
                z_basis_probability=0.8,
                x_extra_loss_db=x_extra_loss_db,
                x_misalignment_error=0.03 if x_extra_loss_db else None,
            ),
        )
        for loss_db, dark, dead_time_s in itertools.product(
            (0.0, 10.0, 25.0, 45.0), (0.0, 1e-8, 1e-5), (0.0, 1e-8, 1e-5)
        )
    ]
    plants = [plant_of(link) for link in apart]
    columns = {
        field.name: np.array([getattr(plant, field.name) for plant in plants])
        for field in dataclasses.fields(DecoyPlant)
        if field.name != "form"
    }
    together = statistics_of(DecoyPlant(**columns), source)
    assert together.z_gains.shape == (len(apart), len(intensities))
    for row, link in enumerate(apart):
        assert_same(together, of_one_link(link), source, row)


def test_settings_vary_along_an_axis_of_their_own():
    plant = DecoyPlant(np.array([[0.01], [0.001]]), 1e-6, 0.01, afterpulse_probability=0.02, dead_slots=10.0)
    mu = np.array([[0.5, 0.1], [0.4, 0.2], [0.3, 0.05]])
    p, z = np.array([[0.7, 0.3], [0.5, 0.5], [0.2, 0.8]]), np.array([0.9, 0.8, 0.6])
    seen = decoy_statistics(plant, mu, p, z)
    assert seen.z_gains.shape == (2, 3, 2) and seen.click_probability.shape == (2, 3)
    for row, efficiency in enumerate((0.01, 0.001)):
        for column in range(3):
            one = DecoyPlant(efficiency, 1e-6, 0.01, afterpulse_probability=0.02, dead_slots=10.0)
            alone = decoy_statistics(one, mu[column], p[column], z[column])
            assert seen.x_error_gains[row, column] == pytest.approx(alone.x_error_gains, rel=1e-13)
            assert seen.detections_per_pulse[row, column] == pytest.approx(
                alone.detections_per_pulse, rel=1e-13
            )


def test_background_light_counts_as_dark_counts():
    source = DecoySource(1e9, *SOURCES[0], 0.8)
    receiver = Receiver(3.0, 0.2, 1e-6, misalignment_error=0.01, z_basis_probability=0.8)
    link = QuantumLink(source, FibreChannel(20.0, background_photons_hz=1e5), receiver)
    assert_same(of_arrays(link), of_one_link(link), link.source)
    assert plant_of(link).dark_count_probability > 5e-6


def test_background_light_in_a_basis_that_loses_more_makes_it_worse_and_never_better():
    source = DecoySource(1e9, *SOURCES[0], 0.8)
    receiver = Receiver(3.0, 0.2, 1e-6, z_basis_probability=0.8, x_extra_loss_db=3.0)
    link = QuantumLink(source, FibreChannel(20.0, background_photons_hz=1e5), receiver)
    found, expected = of_arrays(link), of_one_link(link)
    assert found.z_gains == pytest.approx(expected.z_gains, rel=1e-6)
    assert (found.x_error_gains > expected.x_error_gains).all()


@pytest.mark.parametrize("afterpulse_probability", [0.0, 0.04])
def test_the_form_of_the_papers_is_the_form_of_the_papers(afterpulse_probability):
    # C. C. W. Lim et al. 2014, section IV, written out.
    mu, p = np.array(SOURCES[1][0]), np.array(SOURCES[1][1])
    plant = DecoyPlant(1e-3, 6e-7, 0.005, afterpulse_probability, form="lim-2014")
    seen = decoy_statistics(plant, mu, p, np.array(0.8))
    clicks = 1 - (1 - 1.2e-6) * np.exp(-1e-3 * mu)
    wrong = 6e-7 + 0.005 * (1 - np.exp(-1e-3 * mu)) + afterpulse_probability * clicks / 2
    assert seen.z_gains == pytest.approx(0.64 * p * clicks * (1 + afterpulse_probability), rel=1e-9)
    assert seen.x_error_gains == pytest.approx(0.04 * p * wrong, rel=1e-9)


def test_both_forms_agree_for_weak_light():
    forms = [
        decoy_statistics(
            DecoyPlant(1e-4, 1e-7, 0.01, form=form), *(np.array(each) for each in (*SOURCES[1], 0.8))
        )
        for form in ("threshold", "lim-2014")
    ]
    for name, value in vars(forms[0]).items():
        assert value == pytest.approx(getattr(forms[1], name), rel=1e-4), name


@pytest.mark.parametrize(
    "changes",
    [
        {"basis_choice": "passive"},
        {"efficiency_ratio": 0.8},
        {"detector_count_rate_max_hz": 1e7},
        {"dead_time_model": "paralysable", "dead_time_s": 1e-8},
        {"leaked_fraction": 0.01},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_receiver_that_arrays_cannot_describe_is_refused(changes):
    receiver = Receiver(3.0, 0.2, 1e-6, z_basis_probability=0.8, **changes)
    link = QuantumLink(DecoySource(1e9, *SOURCES[0], 0.8), FibreChannel(10.0), receiver)
    with pytest.raises(OutsideModel, match="active choice, equal detectors, no saturation") as refusal:
        plant_of(link)
    assert refusal.value.parameter == "receiver"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("efficiency", 0.0),
        ("efficiency", [0.1, 1.1]),
        ("efficiency", np.nan),
        ("dark_count_probability", -1e-9),
        ("dark_count_probability", 0.2),
        ("misalignment_error", 0.51),
        ("afterpulse_probability", 0.31),
        ("dead_slots", -1.0),
        ("dead_slots", np.inf),
        ("x_efficiency_ratio", 0.0),
        ("x_misalignment_error", [0.1, 0.6]),
        ("form", "paper"),
    ],
)
def test_a_plant_outside_the_model_is_refused_by_name(field, value):
    figures = {"efficiency": 0.1, "dark_count_probability": 1e-6, "misalignment_error": 0.01}
    with pytest.raises(OutsideModel) as refusal:
        DecoyPlant(**(figures | {field: value}))
    assert refusal.value.parameter == field


def test_a_plant_tells_to_which_shape_its_fields_broadcast():
    assert DecoyPlant(0.1, 1e-6, 0.01).shape == (1,)
    assert DecoyPlant([0.1, 0.2], 1e-6, 0.01, x_misalignment_error=[0.01, 0.02]).shape == (2,)
