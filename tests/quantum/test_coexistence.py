"""Light of classical channels: golden values of the physics sheet, integrals done by hand, laws, refusals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import OutsideModel
from openqci.quantum import FibreSpan, QuantumLink, exchange, expected_statistics, fibre_kind
from openqci.quantum.coexistence import (
    ClassicalChannel,
    CoexistenceNoise,
    QuantumFilter,
    bandwidth_nm,
    coexistence_noise,
    dbm_of_watts,
    four_wave_mixing_power_w,
    mixing_length_km2,
    photon_rate_hz,
    raman_coefficient_per_km_nm,
    raman_power_w,
    rayleigh_backscatter_fraction,
    watts_of_dbm,
)

FILTER = QuantumFilter(1550.0, 0.8)


def span(length_km=50.0, kind="g652d-1550", **changes):
    return FibreSpan(fibre_kind(kind), length_km, **changes)


def test_trap_20_raman_golden_values():
    # 0 dBm, 0.2 dB/km, rho 2.5e-9 per km and nm, 0.8 nm; co- and counter-propagating, in W.
    lengths_km = np.array([10.0, 50.0, 100.0])
    co = raman_power_w(1e-3, lengths_km, 2.5e-9, 0.8, "co")
    counter = raman_power_w(1e-3, lengths_km, 2.5e-9, 0.8, "counter")
    assert co == pytest.approx([1.26e-11, 1.00e-11, 2.0e-12], rel=5e-3)
    assert counter == pytest.approx([1.31e-11, 2.15e-11, 2.17e-11], rel=5e-3)
    assert photon_rate_hz(co[2], 1550.0) == pytest.approx(1.56e7, rel=5e-3)
    assert photon_rate_hz(counter[2], 1550.0) == pytest.approx(1.69e8, rel=5e-3)


@given(st.floats(0, 400), st.floats(0.1, 0.5))
def test_trap_20_counter_propagating_noise_is_never_below_co_propagating(length_km, db_per_km):
    co, counter = (
        float(raman_power_w(1e-3, length_km, 2.5e-9, 0.8, each, db_per_km, db_per_km))
        for each in ("co", "counter")
    )
    assert counter >= co * (1 - 1e-12)


def test_trap_20_forward_noise_peaks_at_the_absorption_length_and_backward_only_grows():
    lengths_km = np.linspace(0, 200, 2001)
    co = raman_power_w(1e-3, lengths_km, 2.5e-9, 0.8, "co")
    counter = raman_power_w(1e-3, lengths_km, 2.5e-9, 0.8, "counter")
    assert lengths_km[co.argmax()] == pytest.approx(21.7, abs=0.1)
    assert (np.diff(counter) >= 0).all()
    assert counter[-1] == pytest.approx(1e-3 * 2.5e-9 * 0.8 * 4.3429 / 0.4, rel=1e-3)


def test_trap_20_launch_power_comes_from_the_sensitivity():
    near = ClassicalChannel.of_sensitivity(
        1540.0, "counter", sensitivity_dbm=-28.0, loss_db=4.0, margin_db=1.0
    )
    assert near.launch_power_dbm == -23.0
    full = ClassicalChannel(1540.0, "counter", 0.0)
    ratio = (
        coexistence_noise([full], span(20.0), FILTER).total_hz
        / coexistence_noise([near], span(20.0), FILTER).total_hz
    )
    assert 10 * math.log10(ratio) == pytest.approx(23.0)


@pytest.mark.parametrize("direction", ["co", "counter"])
@pytest.mark.parametrize(("classical", "quantum"), [(0.2, 0.2), (0.2, 0.33), (0.33, 0.2), (0.0, 0.0)])
def test_raman_power_is_the_integral_over_the_fibre(direction, classical, quantum):
    length_km, steps = 40.0, 20_000
    z = (np.arange(steps) + 0.5) / steps * length_km
    pump_km = z if direction == "co" else length_km - z
    local = 10 ** (-classical * pump_km / 10) * 10 ** (-quantum * (length_km - z) / 10)
    by_hand = 2e-3 * 3e-9 * 0.4 * local.sum() * length_km / steps
    got = raman_power_w(2e-3, length_km, 3e-9, 0.4, direction, classical, quantum)
    assert got == pytest.approx(by_hand, rel=1e-6)


def test_the_coefficient_is_that_of_the_tables_near_the_pump():
    near, code = raman_coefficient_per_km_nm([1542.0, 1530.0], 1550.0)
    assert near == pytest.approx(2.5e-9, rel=0.01)
    assert code == pytest.approx(3.2e-9, rel=0.01)


@given(st.floats(0.1, 41))
def test_the_anti_stokes_side_is_lower_by_the_boltzmann_factor(offset_thz):
    light = 299_792.458
    quantum_nm = 1550.0
    stokes_nm = light / (light / quantum_nm + offset_thz)
    anti_stokes_nm = light / (light / quantum_nm - offset_thz)
    stokes, anti = raman_coefficient_per_km_nm([stokes_nm, anti_stokes_nm], quantum_nm)
    boltzmann = math.exp(-6.62607015e-34 * offset_thz * 1e12 / (1.380649e-23 * 300))
    assert anti == pytest.approx(stokes * boltzmann, rel=1e-4)


def test_a_quantum_channel_in_the_o_band_sees_20_to_35_db_less():
    ratio = raman_coefficient_per_km_nm(1550.0, 1310.0) / raman_coefficient_per_km_nm(1551.0, 1550.0)
    assert 20 <= -10 * math.log10(ratio) <= 35


def test_the_coefficient_scales_with_the_fourth_power_of_frequency():
    light = 299_792.458
    shifted_nm = light / (light / 1310.0 + 1.0)
    at_1310 = raman_coefficient_per_km_nm(shifted_nm, 1310.0)
    assert at_1310 == pytest.approx(2.5e-9 * (1550 / 1310) ** 4, rel=1e-9)


def test_trap_18_powers_in_db_are_powers():
    assert watts_of_dbm([0.0, 10.0, -30.0]) == pytest.approx([1e-3, 1e-2, 1e-6], rel=1e-12)
    assert dbm_of_watts([1e-3, 0.0]).tolist() == [0.0, -math.inf]
    assert watts_of_dbm(3.0103) == pytest.approx(2e-3, rel=1e-5)


def test_trap_18_a_photon_at_1550_nm_has_its_energy():
    # h c / lambda = 1.2816e-19 J: 1 nW is 7.8e9 photons per second.
    assert photon_rate_hz(1e-9, 1550.0) == pytest.approx(7.803e9, rel=1e-3)
    assert bandwidth_nm(100.0, 1550.0) == pytest.approx(0.8014, rel=1e-3)


@given(st.floats(-60, 30))
def test_power_survives_the_way_to_dbm_and_back(power_dbm):
    assert dbm_of_watts(watts_of_dbm(power_dbm)) == pytest.approx(power_dbm, abs=1e-9)


# --- four-wave mixing ---


def test_perfect_matching_is_the_effective_length():
    a = 0.2 / 4.342944819
    effective_km = (1 - math.exp(-a * 50)) / a
    assert mixing_length_km2(a, 0.0, 50.0) == pytest.approx(effective_km**2, rel=1e-12)
    assert mixing_length_km2(0.0, 0.0, 50.0) == 2500.0


@given(st.floats(0.01, 0.1), st.floats(0.01, 20), st.floats(0.1, 200))
def test_mismatch_follows_the_published_efficiency(a, mismatch, length_km):
    # eta = a^2/(a^2 + db^2) [1 + 4 exp(-aL) sin^2(db L/2) / (1 - exp(-aL))^2] times L_eff^2.
    decay = math.exp(-a * length_km)
    eta = a**2 / (a**2 + mismatch**2) * (
        1 + 4 * decay * math.sin(mismatch * length_km / 2) ** 2 / (1 - decay) ** 2
    )  # fmt: skip
    published = eta * ((1 - decay) / a) ** 2
    assert mixing_length_km2(a, mismatch, length_km) == pytest.approx(published, rel=1e-6)


def test_two_pumps_mix_weaker_than_three_by_four():
    # Same frequency distances up to second order: degeneracy 3 against 6, so a quarter of the power.
    flat = FibreSpan(fibre_kind("g652d-1310"), 10.0)
    degenerate = four_wave_mixing_power_w((1e-3,) * 3, (1310.0, 1310.0, 1310.001), flat)
    three = four_wave_mixing_power_w((1e-3,) * 3, (1310.0, 1310.0005, 1310.001), flat)
    assert three / degenerate == pytest.approx(4.0, rel=1e-3)


def test_mixing_without_dispersion_by_hand():
    # gamma^2 P^3 exp(-aL) L_eff^2 for the degenerate product.
    flat = FibreSpan(fibre_kind("g652d-1310"), 10.0)
    a = 0.33 / 4.342944819
    by_hand = 1.3**2 * 1e-9 * math.exp(-10 * a) * ((1 - math.exp(-10 * a)) / a) ** 2
    assert four_wave_mixing_power_w((1e-3,) * 3, (1310.0, 1310.0, 1310.001), flat) == pytest.approx(
        by_hand, rel=1e-6
    )


def test_dispersion_suppresses_mixing():
    pumps = (1550.0, 1550.0, 1550.8)
    dispersive = four_wave_mixing_power_w((1e-3,) * 3, pumps, span())
    flat = span().kind.__class__("flat", 1550.0, 0.2, 0.0)
    assert dispersive < 1e-3 * four_wave_mixing_power_w((1e-3,) * 3, pumps, FibreSpan(flat, 50.0))


def test_only_products_inside_the_filter_count():
    light = 299_792.458
    quantum_thz = light / 1550.0
    pumps = [ClassicalChannel(light / (quantum_thz + offset), "co", 0.0) for offset in (0.1, 0.2)]
    hit = coexistence_noise(pumps, span(), QuantumFilter(1550.0, 0.1))  # 2 (f + 0.1) - (f + 0.2) = f
    missed = coexistence_noise(pumps, span(), QuantumFilter(1549.5, 0.1))
    against = [ClassicalChannel(each.wavelength_nm, "counter", 0.0) for each in pumps]
    assert hit.four_wave_mixing_hz > 0 == missed.four_wave_mixing_hz
    assert coexistence_noise(against, span(), QuantumFilter(1550.0, 0.1)).four_wave_mixing_hz == 0


# --- all of it ---


def test_no_channels_and_no_fibre_are_no_noise():
    assert coexistence_noise([], span(), FILTER) == CoexistenceNoise(0.0, 0.0, 0.0, 0.0)
    loud = [ClassicalChannel(1540.0, each, 0.0) for each in ("co", "counter")]
    assert coexistence_noise(loud, span(0.0), FILTER).raman_hz == 0.0


def test_crosstalk_is_the_arriving_power_less_the_isolation():
    channel = ClassicalChannel(1540.0, "co", 0.0)
    noise = coexistence_noise([channel], span(50.0, connector_pairs=4), QuantumFilter(1550.0, 0.8, 80.0))
    assert noise.crosstalk_hz == pytest.approx(float(photon_rate_hz(watts_of_dbm(-91.0), 1540.0)))
    backwards = coexistence_noise(
        [ClassicalChannel(1540.0, "counter", 0.0)], span(50.0), QuantumFilter(1550.0, 0.8, 80.0)
    )
    assert backwards.crosstalk_hz == pytest.approx(
        1e-8 * rayleigh_backscatter_fraction(span()) * float(photon_rate_hz(1e-3, 1540.0))
    )


def test_what_joints_take_they_take_from_the_noise_too():
    loud = [ClassicalChannel(1540.0, each, 0.0) for each in ("co", "counter")]
    plain, lossy = (
        coexistence_noise(loud, span(), FILTER),
        coexistence_noise(loud, span(extra_loss_db=10.0), FILTER),
    )
    assert lossy.total_hz == pytest.approx(plain.total_hz / 10, rel=1e-12)


def test_rayleigh_backscatter_of_a_long_fibre():
    # S alpha_R / (2 a) = 1.5e-3 * 3.2e-2 / (2 * 0.04605) = 5.2e-4.
    assert rayleigh_backscatter_fraction(span(300.0)) == pytest.approx(5.21e-4, rel=2e-3)


def noisy(link, noise_hz, **changes):
    base = link(50.0, afterpulse_probability=0.0, **changes)
    return QuantumLink(base.source, span().channel(background_photons_hz=noise_hz), base.receiver)


def test_noise_becomes_clicks_half_of_which_are_errors(link):
    # Photons per gate: noise * 1 ns * 3 dB of optics * efficiency 0.2, over both detectors together.
    noise = coexistence_noise(
        [ClassicalChannel(1540.0, "counter", -10.0)], span(), QuantumFilter(1550.0, 0.2)
    )
    quiet, loud = noisy(link, 0.0), noisy(link, noise.total_hz)
    added = 1 - (1 - loud.background) ** 2 - (1 - (1 - quiet.background) ** 2)
    assert added == pytest.approx(noise.total_hz * 1e-9 * 10**-0.3 * 0.2, rel=1e-3)
    before, after = expected_statistics(quiet), expected_statistics(loud)
    errors = after.qber * after.click_probability - before.qber * before.click_probability
    assert errors == pytest.approx(added / 2, rel=0.01)


def test_a_shorter_gate_takes_less_noise(link):
    open_link, short = noisy(link, 1e7), noisy(link, 1e7, gate_width_s=1e-10)
    assert short.background - 1e-6 == pytest.approx((open_link.background - 1e-6) / 10, rel=1e-3)


def test_removing_the_filter_kills_the_key(link):
    # Y. Mao et al., Opt. Express 26, 6010 (2018): 66 km, 21 dBm of data, 20 GHz filter; without it no key.
    data = [ClassicalChannel(1542.0, "counter", 21.0)]
    fibre = span(66.0, "g654-ull-1550")
    rates = []
    for ghz in (20.0, 2000.0):
        noise = coexistence_noise(data, fibre, QuantumFilter(1310.0, bandwidth_nm(ghz, 1310.0)))
        one = noisy(link, noise.total_hz, gate_width_s=1e-10)
        rates.append(expected_statistics(one).qber)
    assert rates[0] < 0.05 and rates[1] > 0.11


def test_monte_carlo_sees_the_noise(link, rng):
    one = noisy(link, 2e6)
    expected, got = expected_statistics(one), exchange(one, 200_000, rng)
    sifted = (got.emissions.bases == 0) & (got.detections.bases == 0)
    errors = (got.emissions.bits != got.detections.bits)[sifted].sum()
    assert expected.qber > 0.02
    assert abs(errors - sifted.sum() * expected.qber) < 5 * math.sqrt(sifted.sum() * expected.qber)


def of_sensitivity(sensitivity_dbm=-28.0, loss_db=1.0):
    return ClassicalChannel.of_sensitivity(1550.0, "co", sensitivity_dbm=sensitivity_dbm, loss_db=loss_db)


def mixing(power_w=1e-3, third_nm=1552.0):
    return four_wave_mixing_power_w((power_w, 1e-3, 1e-3), (1550.0, 1551.0, third_nm), span())


@pytest.mark.parametrize(
    ("parameter", "make"),
    [
        ("wavelength_nm", lambda: ClassicalChannel(math.nan, "co", 0.0)),
        ("direction", lambda: ClassicalChannel(1550.0, "sideways", 0.0)),
        ("launch_power_dbm", lambda: ClassicalChannel(1550.0, "co", 40.0)),
        ("sensitivity_dbm", lambda: of_sensitivity(math.nan)),
        ("loss_db", lambda: of_sensitivity(loss_db=-1.0)),
        ("bandwidth_nm", lambda: QuantumFilter(1550.0, -0.1)),
        ("isolation_db", lambda: QuantumFilter(1550.0, 0.1, -1.0)),
        ("bandwidth_ghz", lambda: bandwidth_nm(-1.0, 1550.0)),
        ("length_km", lambda: raman_power_w(1e-3, -1.0, 2.5e-9, 0.8, "co")),
        ("launch_power_w", lambda: raman_power_w(-1e-3, 1.0, 2.5e-9, 0.8, "co")),
        ("receiver_bandwidth_nm", lambda: raman_power_w(1e-3, 1.0, 2.5e-9, math.nan, "co")),
        ("direction", lambda: raman_power_w(1e-3, 1.0, 2.5e-9, 0.8, "up")),
        ("pump_powers_w", lambda: mixing(-1.0)),
        ("pumps_nm", lambda: mixing(third_nm=1550.0)),
    ],
)  # fmt: skip
def test_coexistence_outside_the_model_is_refused_by_name(parameter, make):
    with pytest.raises(OutsideModel) as refusal:
        make()
    assert refusal.value.parameter == parameter
