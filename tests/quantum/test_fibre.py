"""Fibre kinds and spans: loss, dispersion, delay, and what they refuse."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import OutsideModel
from openqci.quantum import FibreChannel, FibreSpan, fibre_kind
from openqci.quantum.fibre import FIBRE_KINDS, FibreKind


def span(length_km=100.0, kind="g652d-1550", **changes):
    return FibreSpan(fibre_kind(kind), length_km, **changes)


def test_every_loss_is_counted_once():
    # 50 km at 0.20, 10 splices at 0.02, 2 connector pairs at 0.25 and 3 dB of filters.
    assert span(50.0, splices=10, connector_pairs=2, extra_loss_db=3.0).loss_db == pytest.approx(13.7)


def test_dispersion_of_100_km_at_a_tenth_of_a_nanometre():
    # Physics sheet, 1.11: 0.1 nm over 100 km of G.652 = 170 ps.
    assert span().dispersion_broadening_s(0.1) == pytest.approx(170e-12)


def test_light_takes_five_hundred_microseconds_for_100_km():
    assert span().delay_s == pytest.approx(490e-6)
    assert span(kind="hollow-core-1550").delay_s == pytest.approx(340e-6)


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        ("g652d-1550", 0.19, 0.21),
        ("g652d-1310", 0.32, 0.35),
        ("g652d-aerial-1550", 0.19, 0.21),
        ("g654-ull-1550", 0.146, 0.168),
        ("g654-submarine-1550", 0.146, 0.168),
        ("hollow-core-1550", 0.091, 0.091),
    ],
)
def test_attenuations_are_those_of_the_literature(kind, low, high):
    assert low <= fibre_kind(kind).attenuation_db_per_km <= high


def test_every_kind_names_its_source_and_its_drift():
    assert all(kind.source and kind.drift and kind.name == name for name, kind in FIBRE_KINDS.items())


def test_no_length_is_no_loss():
    nothing = span(0.0)
    assert (nothing.loss_db, nothing.delay_s, nothing.dispersion_broadening_s(1.0)) == (0.0, 0.0, 0.0)
    assert nothing.channel()(np.array([0.5, 0.1])) == pytest.approx([0.5, 0.1], abs=0)


def test_a_span_becomes_the_channel_of_its_loss():
    assert span(80.0, splices=5).channel() == FibreChannel(span(80.0, splices=5).loss_db)
    noisy = span().channel(background_photons_hz=1e4, misalignment_error=0.02)
    assert (noisy.background_photons_hz, noisy.misalignment_error) == (1e4, 0.02)


@given(st.floats(0, 300), st.floats(0, 300), st.sampled_from(sorted(FIBRE_KINDS)))
def test_two_spans_lose_what_one_of_both_lengths_loses(first_km, second_km, kind):
    whole = span(first_km + second_km, kind)
    parts = [span(first_km, kind), span(second_km, kind)]
    assert whole.loss_db == pytest.approx(sum(part.loss_db for part in parts), abs=1e-9)
    assert whole.delay_s == pytest.approx(sum(part.delay_s for part in parts), abs=1e-15)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("length_km", -1.0),
        ("length_km", math.nan),
        ("splices", -1),
        ("connector_pairs", -1),
        ("extra_loss_db", -0.5),
        ("extra_loss_db", math.inf),
        ("splice_loss_db", -0.1),
        ("connector_pair_loss_db", math.nan),
    ],
)
def test_a_span_outside_the_model_is_refused_by_name(parameter, value):
    with pytest.raises(OutsideModel, match=parameter) as refusal:
        span(**{parameter: value})
    assert refusal.value.parameter == parameter


def test_a_span_that_nothing_passes_is_refused_by_its_loss():
    with pytest.raises(OutsideModel, match="loss_db"):
        span(1001.0)


def test_an_unknown_kind_is_refused_and_the_known_are_named():
    with pytest.raises(OutsideModel, match="g652d-1550") as refusal:
        fibre_kind("g999")
    assert refusal.value.parameter == "fibre_kind"


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("attenuation_db_per_km", -0.1), ("wavelength_nm", math.nan), ("delay_us_per_km", 1.0)],
)
def test_a_kind_outside_the_model_is_refused_by_name(parameter, value):
    figures = {"wavelength_nm": 1550.0, "attenuation_db_per_km": 0.2, "dispersion_ps_per_nm_km": 17.0}
    with pytest.raises(OutsideModel, match=parameter):
        FibreKind("mine", **(figures | {parameter: value}))
