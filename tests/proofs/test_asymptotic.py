"""Rates of blocks without end: published reaches, orders between them, limits, bad input."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import OutsideModel
from openqci.proofs.asymptotic import (
    AsymptoticLink,
    infinite_decoy_rates,
    no_decoy_rates,
    plob_bounds,
    weak_decoy_rates,
)

INTENSITIES = np.geomspace(1e-5, 1.0, 200)


def gys(length_km, form="ma-2005"):
    """X. Ma et al. 2005 on GYS: 0.21 dB/km, 4.5 % receiver, Y0 1.7e-6, e_d 3.3 %, f 1.22."""
    return AsymptoticLink(0.045 * 10 ** (-0.021 * np.asarray(length_km)), 1.7e-6, 0.033, 1.22, form=form)


links = st.builds(
    AsymptoticLink,
    st.floats(-8, 0).map(lambda x: 10**x),
    st.floats(-9, -3).map(lambda x: 10**x),
    st.floats(0, 0.2),
    st.floats(1, 1.5),
    st.floats(0.1, 1),
    st.sampled_from(["ma-2005", "joined"]),
)


def test_gys_reaches_are_those_published():
    km = np.arange(130, 150, 0.01)
    known, bounded = infinite_decoy_rates(gys(km), 0.48), weak_decoy_rates(gys(km), 0.48, 0.05)
    reaches = [float(km[rates.bits_per_pulse > 0].max()) for rates in (known, bounded)]
    assert reaches == [pytest.approx(142.05, abs=0.1), pytest.approx(140.55, abs=0.3)]


def test_an_array_is_its_elements():
    km = [0.0, 60.0, 141.0]
    together = weak_decoy_rates(gys(km), 0.48, 0.05, 0.001).unclipped_bits_per_pulse
    apart = [float(weak_decoy_rates(gys(each), 0.48, 0.05, 0.001).unclipped_bits_per_pulse) for each in km]
    assert together.tolist() == apart


def test_the_joined_form_counts_dark_count_and_photon_once():
    added, joined = gys(0.0), gys(0.0, "joined")
    twice = 1.7e-6 * 0.045
    assert added.single_photon()[0] - joined.single_photon()[0] == pytest.approx(twice, rel=1e-6)
    # A Poisson mixture of n-photon yields with Y_n = 1 - (1 - Y0)(1 - eta)^n, term by term.
    n = np.arange(40)
    chances = np.exp(-0.48) * 0.48**n / np.array([math.factorial(k) for k in n], dtype=float)
    arrives = 1 - (1 - 0.045) ** n
    assert joined.gain(0.48) == pytest.approx(chances @ (1 - (1 - 1.7e-6) * (1 - arrives)), rel=1e-12)
    errors = 0.033 * arrives + 1.7e-6 / 2 * (1 - arrives)
    assert joined.error_gain(0.48) == pytest.approx(chances @ errors, rel=1e-12)


@pytest.mark.parametrize(("mu", "loss_db"), [(0.05, 16.2), (0.1, 13.3), (0.2, 10.5), (0.5, 7.2)])
def test_without_decoys_photon_number_splitting_takes_the_key(mu, loss_db):
    # Eve blocks single photons unseen once eta is below -ln(1 - p_multi)/mu; physics sheet, section 4.
    def single(db):
        return float(no_decoy_rates(AsymptoticLink(10 ** (-db / 10), 0.0, 0.0, 1.0), mu).single_photon_gain)

    assert single(loss_db + 0.06) == 0
    assert single(loss_db - 0.06) > 0


@given(links, st.floats(0.05, 1.0), st.floats(0.01, 0.4), st.floats(0.0, 0.9))
def test_less_knowledge_never_gives_more_key(link, mu, weak, faintest):
    weak = weak * mu
    known = infinite_decoy_rates(link, mu).unclipped_bits_per_pulse
    bounded = weak_decoy_rates(link, mu, weak, weak * faintest).unclipped_bits_per_pulse
    nothing = no_decoy_rates(link, mu).unclipped_bits_per_pulse
    # Background weighs in ``gain`` but not in Y1 of an empty channel: hence the room of a millionth.
    room = 1e-6 * float(link.gain(mu))
    assert bounded <= known + room or known < 0
    assert nothing <= known + room or known < 0


@given(links)
def test_never_above_the_repeaterless_bound(link):
    rates = [infinite_decoy_rates(link, INTENSITIES), no_decoy_rates(link, INTENSITIES)]
    bound = plob_bounds(-10 * np.log10(link.transmittance))
    assert max(rate.bits_per_pulse.max() for rate in rates) <= bound


@given(links, st.floats(0.1, 0.9), st.floats(0.1, 1.0))
def test_more_loss_never_gives_more_key(link, mu, factor):
    far = AsymptoticLink(
        np.multiply(link.transmittance, factor),
        link.background,
        link.misalignment_error,
        link.error_correction_efficiency,
        link.sifting,
        link.form,
    )
    near_rate, far_rate = (infinite_decoy_rates(each, mu).bits_per_pulse for each in (link, far))
    assert far_rate <= near_rate + 1e-15


def test_no_light_and_no_background_is_no_key_and_no_fault():
    link = AsymptoticLink([0.0, 0.5], 0.0, 0.0, 1.0)
    for rates in (infinite_decoy_rates(link, 0.0), no_decoy_rates(link, 0.0)):
        assert rates.bits_per_pulse.tolist() == [0.0, 0.0]


def test_plob_keeps_its_digits_at_high_loss():
    # 3.203e-16, as 1 - eta in floating-point numbers gives it, is an artefact.
    assert plob_bounds([156.5])[0] == pytest.approx(3.2298e-16, rel=1e-4)
    assert plob_bounds([0.0, 10 * math.log10(2)]).tolist() == [math.inf, pytest.approx(1.0)]


@pytest.mark.parametrize(
    ("loss_db", "mu", "error", "said"),
    [(80, 0.5, 0.01, "error correction"), (3, 0.5, 0.10, "the phase error"), (20, 0.5, 0.01, "")],
)
def test_no_key_says_what_took_it(loss_db, mu, error, said):
    rates = infinite_decoy_rates(AsymptoticLink(10 ** (-loss_db / 10), 1e-7, error, 1.22), mu)
    assert (str(rates.limited_by) == "") == (rates.bits_per_pulse > 0)
    assert str(rates.limited_by).startswith(said)


def test_trap_17_no_rate_without_the_id_of_its_argument():
    link = gys([0.0, 50.0])
    found = [infinite_decoy_rates(link, 0.48), weak_decoy_rates(link, 0.48, 0.05), no_decoy_rates(link, 0.05)]
    ids = [each.proof_id for each in found]
    # The word tells links.rate that there is no block and no key.
    assert len(set(ids)) == 3 and all(each.endswith("-asymptotic") for each in ids)


@pytest.mark.parametrize(
    ("figures", "parameter"),
    [
        ((1.1, 0.0, 0.0, 1.0), "transmittance"),
        (([0.1, math.nan], 0.0, 0.0, 1.0), "transmittance"),
        ((0.1, -1e-9, 0.0, 1.0), "background"),
        ((0.1, 0.0, 0.51, 1.0), "misalignment_error"),
        ((0.1, 0.0, 0.0, 0.9), "error_correction_efficiency"),
        ((0.1, 0.0, 0.0, 1.0, 1.5), "sifting"),
        ((0.1, 0.0, 0.0, 1.0, 0.5, "both"), "form"),
    ],
)
def test_figures_outside_the_model_are_refused(figures, parameter):
    with pytest.raises(OutsideModel) as refusal:
        AsymptoticLink(*figures)
    assert refusal.value.parameter == parameter


@pytest.mark.parametrize("intensities", [(0.5, 0.5, 0.0), (0.5, 0.1, 0.1), (0.5, 0.3, 0.25), (0.5, math.nan)])
def test_intensities_in_another_order_are_refused(intensities):
    with pytest.raises(OutsideModel, match="nu"):
        weak_decoy_rates(gys(0.0), *intensities)
