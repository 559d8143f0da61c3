"""Phase, time bin and polarisation differ in loss and contrast of the receiver, and in nothing else."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import OutsideModel
from openqci.quantum.encodings import (
    ReceiverOptics,
    misalignment_of_extinction_db,
    misalignment_of_visibility,
    phase_optics,
    polarisation_optics,
    timebin_optics,
)


def test_visibility_becomes_an_error():
    # Clavis XGR: visibility above 97 % is an error below 1.5 %.
    assert misalignment_of_visibility(0.97) == pytest.approx(0.015)
    assert misalignment_of_visibility(1.0) == 0.0
    assert misalignment_of_visibility(0.0) == 0.5


def test_twenty_decibels_of_extinction_are_one_percent():
    assert misalignment_of_extinction_db(20.0) == pytest.approx(1 / 101)
    assert misalignment_of_extinction_db(0.0) == 0.5


@given(st.floats(0, 60))
def test_extinction_and_visibility_name_the_same_error(extinction_db):
    ratio = 10 ** (extinction_db / 10)
    visibility = (ratio - 1) / (ratio + 1)
    error = misalignment_of_extinction_db(extinction_db)
    assert misalignment_of_visibility(visibility) == pytest.approx(error, abs=1e-12)


def test_both_bases_of_phase_encoding_pay_the_interferometer():
    optics = phase_optics(0.98, loss_db=2.0)
    assert optics.loss_db == pytest.approx(2.0 + 10 * math.log10(2))
    assert (optics.x_extra_loss_db, optics.misalignment_error) == (0.0, pytest.approx(0.01))


def test_only_the_test_basis_of_time_bins_pays_it():
    optics = timebin_optics(25.0, 0.96, loss_db=1.0)
    assert (optics.loss_db, optics.x_extra_loss_db) == (1.0, pytest.approx(10 * math.log10(2)))
    assert optics.misalignment_error < optics.x_misalignment_error == pytest.approx(0.02)


def test_polarisation_needs_a_modulator_for_an_active_choice_only():
    assert polarisation_optics().loss_db == 1.0
    assert polarisation_optics(basis_choice="active").loss_db == 4.0


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("loss_db", -1.0),
        ("misalignment_error", 0.6),
        ("x_extra_loss_db", -0.1),
        ("x_misalignment_error", math.nan),
        ("basis_choice", "lazy"),
    ],
)
def test_optics_outside_the_model_are_refused_by_name(parameter, value):
    with pytest.raises(OutsideModel, match=parameter):
        ReceiverOptics(**({"loss_db": 1.0} | {parameter: value}))


@pytest.mark.parametrize("visibility", [-0.1, 1.1, math.nan])
def test_no_visibility_outside_nought_and_one(visibility):
    with pytest.raises(OutsideModel, match="visibility"):
        phase_optics(visibility)
    with pytest.raises(OutsideModel, match="visibility"):
        timebin_optics(visibility=visibility)


def test_no_negative_extinction():
    with pytest.raises(OutsideModel, match="extinction_db"):
        polarisation_optics(-1.0)
