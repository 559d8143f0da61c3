"""The one door to all rates: laws that every protocol keeps, and what a result says of itself."""

import dataclasses
import importlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import fields
from msgspec.structs import replace as replaced

from openqci.core.errors import ConfigurationError, OutsideModel
from openqci.distillation import AUTHENTICATION_KEY_BYTES
from openqci.links import (
    LinkCase,
    LinkRate,
    forecast,
    link_detections,
    link_rate,
    profile,
    profile_ids,
    protocol,
    protocol_ids,
)
from openqci.links.profiles import Pulses
from openqci.network import load_scenario
from openqci.quantum import (
    ClassicalChannel,
    FibreSpan,
    QuantumFilter,
    coexistence_noise,
    expected_statistics,
    fibre_kind,
)

WITH_STATION = ("mdi", "sns-tf")
WITHOUT_STATION = [each for each in protocol_ids() if each not in WITH_STATION]
WITH_BLOCKS = [
    each for each in protocol_ids() if any("asymptotic" not in one for one in protocol(each).proof_ids)
]


def hardware_of(protocol_id: str, **operation: float):
    found = profile("cv-metro" if protocol_id.startswith("gg02") else "dv-snspd")
    return replaced(found, operation=replaced(found.operation, loss_db_max=200.0, **operation))


def case_of(protocol_id: str, loss_db: float, **changes: object) -> LinkCase:
    return LinkCase(hardware_of(protocol_id), loss_db, protocol=protocol_id, **changes)


@pytest.mark.parametrize("protocol_id", protocol_ids())
@settings(max_examples=25)
@given(st.floats(0, 60), st.floats(0, 20))
def test_more_loss_never_gives_more_key(protocol_id, loss_db, more_db):
    near = link_rate(case_of(protocol_id, loss_db, proof="asymptotic"))
    far = link_rate(case_of(protocol_id, loss_db + more_db, proof="asymptotic"))
    # In fixed settings dead time makes a bright short link no worse than a dim one.
    assert far.secret_key_rate_per_pulse <= near.secret_key_rate_per_pulse * (1 + 1e-9) + 1e-15


@pytest.mark.parametrize("protocol_id", WITHOUT_STATION)
@settings(max_examples=25)
@given(st.floats(0.01, 80))
def test_nothing_without_a_station_crosses_the_repeaterless_bound(protocol_id, loss_db):
    found = link_rate(case_of(protocol_id, loss_db, proof="asymptotic"))
    assert found.secret_key_rate_per_pulse <= -math.log2(-math.expm1(-loss_db * math.log(10) / 10))


@pytest.mark.parametrize("protocol_id", WITH_STATION)
@settings(max_examples=25)
@given(st.floats(0.01, 120))
def test_nothing_with_one_station_crosses_the_bound_of_one_repeater(protocol_id, loss_db):
    """``-log2(1 - sqrt(eta))``: S. Pirandola, Commun. Phys. 2, 51 (2019), for a station half way."""
    found = link_rate(case_of(protocol_id, loss_db, proof="asymptotic"))
    assert found.secret_key_rate_per_pulse <= -math.log2(-math.expm1(-loss_db * math.log(10) / 20))


def perfect(protocol_id: str):
    """Modules without noise, loss, pauses or dead time."""
    found = hardware_of(protocol_id, duty_cycle=1.0)
    if found.coherent_receiver is not None:
        silent = dict.fromkeys(fields_of(found.coherent_receiver, "noise"), 0.0)
        ideal = {"efficiency": 1.0, "reconciliation_efficiency": 1.0, "frame_error_rate": 0.0}
        return replaced(found, coherent_receiver=replaced(found.coherent_receiver, **silent, **ideal))
    dark = {"dark_count_probability": 0.0, "dead_time_s": 0.0, "afterpulse_probability": 0.0}
    detector = replaced(found.photon_receiver.detector, efficiency=1.0, **dark)
    receiver = replaced(found.photon_receiver, optics_loss_db=0.0, misalignment_error=0.0, detector=detector)
    processing = replaced(found.processing, error_correction_efficiency=1.0)
    return replaced(found, photon_receiver=receiver, processing=processing)


def fields_of(record: object, word: str) -> list[str]:
    return [each.name for each in fields(type(record)) if word in each.name]


@pytest.mark.parametrize("protocol_id", protocol_ids())
@pytest.mark.parametrize("loss_db", [0.0, 1e-9, 0.01, 1.0, 10.0, 50.0, 100.0, 150.0, 165.0, 180.0, 200.0])
def test_perfect_modules_are_answered_at_every_loss_and_stay_below_the_bounds(protocol_id, loss_db):
    """Without dark counts nothing is seen at 165 dB that a double could hold as one minus something."""
    case = LinkCase(perfect(protocol_id), loss_db, protocol=protocol_id)
    endless = link_rate(dataclasses.replace(case, proof="asymptotic"))
    best = link_rate(dataclasses.replace(case, proof="asymptotic", optimise=True))
    finite = link_rate(case)
    bound = endless.repeaterless_bound_per_pulse
    if protocol_id in WITH_STATION and loss_db > 0:
        bound = -math.log1p(-(10 ** (-loss_db / 20))) / math.log(2)
    rates = (finite, endless, best)
    assert all(0 <= each.secret_key_rate_per_pulse <= bound for each in rates)
    assert finite.secret_key_rate_per_pulse <= endless.secret_key_rate_per_pulse * (1 + 1e-9)
    if (protocol_id, loss_db > 120) != ("bbm92", True):  # its gain is not told from zero below 1e-15
        assert endless.secret_key_rate_per_pulse > 0


@pytest.mark.parametrize("protocol_id", WITH_BLOCKS)
@settings(max_examples=15)
@given(st.floats(3, 10), st.floats(0, 2))
def test_a_larger_block_never_gives_a_lower_rate_and_never_beats_the_endless_one(protocol_id, size, more):
    endless = link_rate(case_of(protocol_id, 10.0, proof="asymptotic")).secret_key_rate_per_pulse
    blocks = [
        link_rate(case_of(protocol_id, 10.0, block_sifted_bits=10**each)) for each in (size, size + more)
    ]
    rates = [each.secret_key_rate_per_pulse for each in blocks]
    # Lengths are whole bits: two blocks that hardly differ may have the same.
    one_bit = rates[0] / max(1, blocks[0].secret_length_bits - blocks[0].authentication_bits)
    assert rates[0] <= rates[1] * (1 + 1e-6) + one_bit
    assert rates[1] <= endless * (1 + 1e-9)


@pytest.mark.parametrize("protocol_id", WITH_BLOCKS)
def test_ten_parts_of_a_block_never_give_more_than_the_whole(protocol_id):
    """Trap 2 for every protocol: a bound is applied once to the summed counts."""
    bits = 1e9 if protocol_id.startswith("gg02") else 1e6
    whole = link_rate(case_of(protocol_id, 8.0, block_sifted_bits=bits))
    part = link_rate(case_of(protocol_id, 8.0, block_sifted_bits=bits / 10))
    assert 0 < 10 * part.secret_length_bits < whole.secret_length_bits


@pytest.mark.parametrize("protocol_id", protocol_ids())
def test_settings_that_were_optimised_are_never_worse(protocol_id):
    plain = link_rate(case_of(protocol_id, 15.0))
    best = link_rate(case_of(protocol_id, 15.0, optimise=True))
    assert best.secret_key_rate_bps >= plain.secret_key_rate_bps * (1 - 1e-3)


@pytest.mark.parametrize("protocol_id", ["bbm92", "bbm92-cw"])
@pytest.mark.parametrize("profile_id", ["dv-metro", "sat-rx-850"])
@pytest.mark.parametrize("loss_db", [0.0, 15.0])
@pytest.mark.parametrize("block", [{}, {"block_sifted_bits": 1e4}, {"duration_s": 10.0}], ids=str)
def test_pairs_are_optimised_for_the_block_and_not_for_an_endless_one(
    protocol_id, profile_id, loss_db, block
):
    case = LinkCase(profile(profile_id), loss_db, protocol=protocol_id, **block)
    plain, best = (link_rate(dataclasses.replace(case, optimise=each)) for each in (False, True))
    assert best.secret_key_rate_bps >= plain.secret_key_rate_bps


@pytest.mark.parametrize("protocol_id", protocol_ids())
@pytest.mark.parametrize("loss_db", [0.0, 3.0, 199.0])
def test_limits_are_answered_and_never_raise(protocol_id, loss_db):
    found = link_rate(case_of(protocol_id, loss_db))
    assert found.secret_key_rate_per_pulse >= 0 and math.isfinite(found.secret_key_rate_per_pulse)
    assert bool(found.zero_because) == (found.secret_key_rate_per_pulse == 0)
    if loss_db > 100:
        assert found.secret_key_rate_per_pulse == 0


@pytest.mark.parametrize("protocol_id", WITH_BLOCKS)
def test_a_block_too_small_gives_zero_and_says_which_term_took_it(protocol_id):
    found = link_rate(case_of(protocol_id, 10.0, block_sifted_bits=10.0))
    assert found.secret_length_bits == 0 and found.zero_because


@pytest.mark.parametrize("device_id", ["dv-metro", "dv-snspd"])
@pytest.mark.parametrize("loss_db", [5.0, 12.0])
def test_the_rate_of_the_network_and_of_the_planner_are_one(device_id, loss_db):
    network = load_scenario("eu27")
    hop = next(iter(network.hops.values()))
    planned = link_rate(LinkCase(profile(device_id), loss_db))
    told = forecast(network.devices[device_id], replaced(hop, loss_db=loss_db))
    assert planned.secret_length_bits == pytest.approx(told.block_secret_bits, abs=2)
    assert planned.qber == pytest.approx(told.qber, rel=1e-12)


@pytest.mark.parametrize("profile_id", profile_ids())
def test_every_shipped_profile_has_key_on_a_good_link_of_its_own(profile_id):
    shipped = profile(profile_id)
    found = link_rate(LinkCase(shipped, shipped.operation.loss_db_max * 0.6))
    assert found.profile == profile_id and found.secret_key_rate_bps > 0


def test_measured_rates_are_those_measured():
    found = link_rate(LinkCase(profile("field-aerial-2026"), 17.0))
    assert (found.proof, found.secret_key_rate_bps, found.qber) == ("measured", pytest.approx(12.7), 0.133)
    assert found.epsilon_sec is None and "2608.18869" in found.reference
    assert link_rate(LinkCase(profile("field-aerial-2026"), 17.5)).secret_key_rate_bps == 0


def test_pauses_are_in_the_delivered_rate():
    found = link_rate(LinkCase(profile("dv-metro"), 8.0))
    assert found.delivered_rate_bps == pytest.approx(0.8 * found.secret_key_rate_bps)


def test_drift_changes_the_error_and_not_the_gain():
    still = link_rate(LinkCase(profile("dv-metro"), 10.0))
    moved = link_rate(LinkCase(profile("dv-metro"), 10.0, drift_angle_rms_rad=0.1))
    assert moved.gain == pytest.approx(still.gain, rel=1e-12)
    assert moved.qber == pytest.approx(still.qber + 0.0098, abs=5e-4)


@pytest.mark.parametrize("encoding", ["phase", "time-bin", "polarisation"])
@pytest.mark.parametrize("drift_angle_rms_rad", [0.0, 0.25])
@pytest.mark.parametrize("loss_db", [3.0, 25.0])
def test_the_endless_phase_error_is_that_of_single_photons_in_the_test_basis(
    encoding, drift_angle_rms_rad, loss_db
):
    """Against the expected statistics of hardly any light: ``d(e^mu E Q)/d mu`` over ``d(e^mu Q)/d mu``."""
    shipped = hardware_of("bb84-decoy1")
    detector = replaced(shipped.photon_receiver.detector, dark_count_probability=1e-4, dead_time_s=0.0)
    noisy = replaced(shipped, photon_receiver=replaced(shipped.photon_receiver, detector=detector))
    changes = {"encoding": encoding, "drift_angle_rms_rad": drift_angle_rms_rad}
    case = LinkCase(noisy, loss_db, proof="asymptotic", **changes)
    one = protocol("bb84-decoy1").quantum_link(case, Pulses((1e-3, 0.0), (0.5, 0.5), 0.5))
    seen = expected_statistics(one)
    gains = seen.detection_fractions[1] * np.exp([1e-3, 0.0])
    errors = gains * seen.error_rates[1]
    e1 = (errors[0] - errors[1]) / (gains[0] - gains[1])
    found = link_rate(case).observed["phase_error_bound"]
    assert found == pytest.approx(e1, rel=2e-3)
    assert found > -math.expm1(-2 * drift_angle_rms_rad**2) / 2


@pytest.mark.parametrize("protocol_id", ["bbm92", "bbm92-cw", "mdi", "sns-tf"])
def test_one_path_for_both_bases_is_the_worse_of_the_two(protocol_id):
    """Time bins are told apart by their time, which says nothing of the interference that the phase needs."""
    shipped = profile("sat-rx-850")
    found = link_rate(LinkCase(shipped, 10.0, protocol=protocol_id, encoding="time-bin"))
    worst = replaced(
        shipped.photon_receiver, misalignment_error=0.01, optics_loss_db=1.0 + 10 * math.log10(2)
    )
    same = link_rate(LinkCase(replaced(shipped, photon_receiver=worst), 10.0, protocol=protocol_id))
    assert found.gain == pytest.approx(same.gain, rel=1e-9)
    assert found.observed == pytest.approx(same.observed, rel=1e-9)
    assert found.secret_key_rate_bps == pytest.approx(same.secret_key_rate_bps, rel=1e-5)


@pytest.mark.parametrize("protocol_id", ["bb84-decoy1", "bb84-decoy2"])
@pytest.mark.parametrize("encoding", ["phase", "time-bin"])
def test_an_endless_block_pays_error_correction_for_the_bits_it_sifts(protocol_id, encoding):
    """Where the test basis loses more, the mean of both bases would pay for too few."""
    shipped = profile("sat-rx-850")
    rates = []
    for efficiency in (1.0, 1.5):
        processing = replaced(shipped.processing, error_correction_efficiency=efficiency)
        one = replaced(shipped, processing=processing)
        rates.append(link_rate(LinkCase(one, 10.0, None, protocol_id, "asymptotic", encoding=encoding)))
    error = rates[0].qber
    entropy = -error * math.log2(error) - (1 - error) * math.log2(1 - error)
    paid_bps = rates[0].secret_key_rate_bps - rates[1].secret_key_rate_bps
    assert paid_bps == pytest.approx(0.5 * entropy * rates[0].sifted_rate_hz, rel=1e-9)


@pytest.mark.parametrize("protocol_id", [each for each in protocol_ids() if not each.startswith("gg02")])
def test_light_of_other_channels_brings_errors_and_takes_key(protocol_id):
    lights_hz = (0.0, 1e4, 1e6, 1e8, 1e9)
    found = [link_rate(case_of(protocol_id, 10.0, background_photons_hz=each)) for each in lights_hz]
    errors, rates = [each.qber for each in found], [each.secret_key_rate_bps for each in found]
    assert errors == sorted(errors) and errors[-1] > 0.2
    assert rates == sorted(rates, reverse=True) and rates[0] > rates[1] > rates[-1] == 0
    assert found[0] == link_rate(case_of(protocol_id, 10.0))


def test_light_of_other_channels_is_counted_in_the_gate_alone():
    """Photons per second times gate, optics and efficiency, by both detectors together."""
    light_hz, shipped = 1e6, profile("dv-snspd")
    dim, bright = (link_rate(case_of("bb84-decoy1", 20.0, background_photons_hz=b)) for b in (0.0, light_hz))
    counted = light_hz * shipped.photon_receiver.detector.gate_width_s * shipped.photon_receiver.transmittance
    assert bright.gain - dim.gain == pytest.approx(counted * (1 - dim.gain), rel=1e-3)


def test_data_beside_the_key_takes_more_of_it_in_the_c_band_than_in_none():
    """A channel at what its receiver needs, against the quantum light; 50 km; a filter of 0.1 nm."""
    span = FibreSpan(fibre_kind("g652d-1550"), 50.0)
    data = ClassicalChannel.of_sensitivity(1560.0, "counter", sensitivity_dbm=-28.0, loss_db=span.loss_db)
    noise_hz = coexistence_noise([data], span, QuantumFilter(1550.0, 0.1)).total_hz
    alone = LinkCase(profile("dv-metro"), span.loss_db, 50.0)
    beside = dataclasses.replace(alone, background_photons_hz=noise_hz)
    assert 1e3 < noise_hz < 1e7
    assert 0 < link_rate(beside).secret_key_rate_bps < link_rate(alone).secret_key_rate_bps


def test_background_that_no_model_holds_for_is_refused():
    for protocol_id, light_hz in (
        ("bb84-decoy1", math.nan),
        ("mdi", -1.0),
        ("sns-tf", 1e10),
        ("gg02-homodyne", 1.0),
    ):
        with pytest.raises(OutsideModel, match="background_photons_hz"):
            link_rate(case_of(protocol_id, 5.0, background_photons_hz=light_hz))
    wide = hardware_of("mdi")
    detector = replaced(wide.photon_receiver.detector, gate_width_s=1e-9)
    wide = replaced(wide, photon_receiver=replaced(wide.photon_receiver, detector=detector))
    with pytest.raises(OutsideModel, match=r"background_photons_hz = .* below 0.1"):
        link_rate(LinkCase(wide, 5.0, protocol="sns-tf", background_photons_hz=1e9))


def test_trap_17_a_rate_without_profile_and_proof_cannot_exist():
    mandatory = {field.name for field in fields(LinkRate) if field.required}
    assert {"protocol", "profile", "proof", "reference"} <= mandatory
    with pytest.raises(TypeError, match="Missing required argument 'protocol'"):
        LinkRate()
    for protocol_id in protocol_ids():
        found = link_rate(case_of(protocol_id, 5.0))
        assert found.proof in protocol(protocol_id).proof_ids and found.profile and found.reference
    # The default proof of another protocol is not carried over in silence.
    with pytest.raises(ConfigurationError, match="no proof 'rusca-2018' for protocol bb84-decoy2"):
        link_rate(LinkCase(profile("dv-metro"), 5.0, protocol="bb84-decoy2", proof="rusca-2018"))


def test_trap_22_authentication_is_paid_from_the_key():
    shipped = profile("dv-metro")
    assert shipped.processing.authentication_bits == 8 * AUTHENTICATION_KEY_BYTES
    case = LinkCase(shipped, 17.0, block_sifted_bits=1e5)
    found = link_rate(case)
    gross_bps = found.secret_length_bits / found.block_duration_s
    tags_bps = found.authentication_bits / found.block_duration_s
    assert found.secret_key_rate_bps == pytest.approx(max(0.0, gross_bps - tags_bps))
    # A block whose key is less than its tags gives nothing at all.
    sizes = np.geomspace(1e3, 1e6, 400).tolist()
    found_at = (link_rate(dataclasses.replace(case, block_sifted_bits=bits)) for bits in sizes)
    small = next(each for each in found_at if each.secret_length_bits > 0)
    assert small.secret_length_bits < small.authentication_bits
    assert small.secret_key_rate_bps == 0 and "authenticate" in small.zero_because


@pytest.mark.parametrize("package", ["quantum", "links", "links.attacks", "proofs"])
def test_public_names_are_there_and_explained(package):
    module = importlib.import_module(f"openqci.{package}")
    assert module.__all__ == sorted(module.__all__, key=lambda name: (not name.isupper(), name))
    for name in module.__all__:
        found = getattr(module, name)
        if callable(found):
            assert found.__doc__ and not found.__doc__.startswith(f"{name}("), name


@pytest.mark.parametrize("protocol_id", protocol_ids())
def test_drawings_are_repeatable_and_as_long_as_asked(protocol_id):
    case = case_of(protocol_id, 5.0)
    first, again, other = (link_detections(case, 300, seed) for seed in (5, 5, 6))
    assert all(len(values) == 300 for values in first.values())
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert any(not np.array_equal(first[name], other[name]) for name in first)


def test_bad_drawings_are_refused():
    case = LinkCase(profile("dv-metro"), 5.0)
    for count, seed in ((0, 1), (10**9, 1), (10, -1)):
        with pytest.raises(OutsideModel):
            link_detections(case, count, seed)
    with pytest.raises(OutsideModel, match=r"detections = 50000000 .* 1 to 20000000 of mdi"):
        link_detections(dataclasses.replace(case, protocol="mdi"), 50_000_000, 1)


def test_a_drawing_that_memory_cannot_hold_is_refused_at_once():
    """Far away nearly all time tags of a continuous source are dark counts; it once took all of memory."""
    far = LinkCase(profile("dv-metro"), 60.0, protocol="bbm92-cw")
    with pytest.raises(OutsideModel, match=r"detections = 1000 .* at most .* clicks of both ends"):
        link_detections(far, 1000, 1)
    assert len(link_detections(dataclasses.replace(far, loss_db=20.0), 1000, 1)["alice_bit"]) == 1000
    lost = LinkCase(profile("cv-metro"), 120.0, protocol="gg02-homodyne")
    with pytest.raises(OutsideModel, match="loss_db = 120"):
        link_detections(lost, 10, 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"protocol": "mdi", "block_sifted_bits": 1.0},
            "block_sifted_bits: proof mdi-asymptotic is for a block",
        ),
        (
            {"proof": "asymptotic", "duration_s": 1.0},
            "duration_s: proof bb84-asymptotic is for a block without",
        ),
        ({"detector_trust": "untrusted"}, "detector_trust: protocol bb84-decoy1 counts photons"),
        ({"detector_trust": "nonsense"}, "detector_trust 'nonsense'; expected one of trusted, calibrated"),
        ({"proof": "lim2014"}, r"expected one of rusca-2018, .* \(lim2014 is for bb84-decoy2\)"),
        ({"block_sifted_bits": 1e5, "duration_s": 1.0}, "block_sifted_bits or duration_s, not both"),
    ],
)
def test_what_would_be_ignored_is_refused(changes, said):
    with pytest.raises(ConfigurationError, match=said):
        link_rate(LinkCase(profile("dv-metro"), 5.0, **changes))


@pytest.mark.parametrize(
    "changes",
    [{"block_sifted_bits": 1e7}, {"duration_s": 1.0}, {"optimise": True}, {"drift_angle_rms_rad": 0.1}],
)
def test_a_measured_rate_takes_no_settings(changes):
    with pytest.raises(ConfigurationError, match="a measured rate is what it was"):
        link_rate(LinkCase(profile("field-aerial-2026"), 10.0, **changes))


@pytest.mark.parametrize("protocol_id", ["gg02-homodyne", "gg02-heterodyne"])
def test_gg02_keeps_by_default_what_is_safe_in_the_whole_interval(protocol_id):
    for loss_db in (2.0, 8.0, 14.0):
        found = link_rate(case_of(protocol_id, loss_db))
        corner = link_rate(case_of(protocol_id, loss_db, proof="leverrier2010"))
        assert found.proof == "gg02-composable"
        assert found.secret_length_bits <= corner.secret_length_bits
    assert link_rate(LinkCase(profile("cv-metro"), 8.0)).proof == "gg02-composable"
