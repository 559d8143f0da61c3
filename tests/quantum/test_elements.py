"""Source, fibre, receiver: what they let through, and what they refuse."""

import math

import numpy as np
import pytest

from openqci.core.errors import OutsideModel
from openqci.quantum import DecoySource, FibreChannel, Receiver


def source(**changes):
    figures = {
        "clock_rate_hz": 1e9,
        "intensities": (0.5, 0.1),
        "probabilities": (0.7, 0.3),
        "z_basis_probability": 0.9,
    }
    return DecoySource(**(figures | changes))


def receiver(**changes):
    return Receiver(
        **({"loss_db": 3.0, "detector_efficiency": 0.2, "dark_count_probability": 1e-6} | changes)
    )


def test_a_fibre_of_50_km_lets_a_tenth_through():
    assert FibreChannel.of_length(50.0)(np.array([0.5, 0.1])) == pytest.approx([0.05, 0.01])


def test_connectors_add_to_the_loss():
    assert FibreChannel.of_length(80.0, 0.2, other_loss_db=1.0).loss_db == pytest.approx(17.0)


def test_the_receiver_counts_its_optics_and_its_efficiency_once():
    assert receiver(loss_db=10.0)(np.array([1.0])) == pytest.approx([0.02])


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("clock_rate_hz", 0.0),
        ("clock_rate_hz", math.inf),
        ("intensities", (0.5,)),
        ("intensities", (0.1, 0.5)),
        ("intensities", (0.5, 0.5)),
        ("intensities", (0.5, -0.1)),
        ("intensities", (11.0, 0.1)),
        ("intensities", (0.9, 0.8, 0.7, 0.6, 0.5)),
        ("intensities", (0.5, math.nan)),
        ("probabilities", (0.7, 0.2)),
        ("probabilities", (1.0, 0.0)),
        ("probabilities", (0.5, 0.3, 0.2)),
        ("z_basis_probability", 1.0),
        ("z_basis_probability", math.nan),
    ],
)
def test_a_source_outside_the_model_is_refused_by_name(parameter, value):
    with pytest.raises(OutsideModel, match=parameter) as refusal:
        source(**{parameter: value})
    assert refusal.value.parameter == parameter


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("loss_db", -0.1),
        ("loss_db", 201.0),
        ("detector_efficiency", 0.0),
        ("detector_efficiency", 1.01),
        ("dark_count_probability", -1e-9),
        ("dark_count_probability", 0.2),
        ("dead_time_s", -1e-9),
        ("afterpulse_probability", 0.31),
        ("misalignment_error", 0.51),
        ("z_basis_probability", 0.0),
    ],
)
def test_a_receiver_outside_the_model_is_refused_by_name(parameter, value):
    with pytest.raises(OutsideModel, match=parameter):
        receiver(**{parameter: value})


@pytest.mark.parametrize("loss_db", [-1.0, 201.0, math.nan, math.inf])
def test_a_fibre_outside_the_model_is_refused(loss_db):
    with pytest.raises(OutsideModel, match="loss_db"):
        FibreChannel(loss_db)


def test_a_negative_length_is_refused():
    with pytest.raises(OutsideModel, match="length_km"):
        FibreChannel.of_length(-1.0)


def test_a_source_may_send_vacuum_as_its_last_intensity():
    assert source(intensities=(0.5, 0.1, 0.0), probabilities=(0.7, 0.2, 0.1)).mean_photons()[-1] == 0
