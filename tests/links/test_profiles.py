"""Device profiles: the shipped ones are what the network runs on, and bad ones are refused by name."""

import math

import msgspec
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import ConfigurationError, OutsideModel
from openqci.links import profile, profile_ids, profile_schema, read_profiles
from openqci.links.profiles import Drift, MeasuredCurve, MeasuredPoint, Operation
from openqci.network import load_scenario

GENERIC = {"dv-metro", "dv-long", "dv-snspd", "cv-metro", "sat-rx-850", "sat-rx-1550-ao"}


def text_of(profile_id: str = "dv-metro", **changes: object) -> str:
    record = msgspec.to_builtins(profile(profile_id))
    record = {name: value for name, value in record.items() if value is not None}
    if "drift" in record["operation"] and record["operation"]["drift"] is None:
        del record["operation"]["drift"]
    record |= changes
    record = {name: value for name, value in record.items() if value is not None}
    return yaml.safe_dump({"version": 1, "profiles": [record]})


def faults_of(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read_profiles(text, "own.yaml")
    return str(caught.value)


def test_the_generic_classes_are_shipped():
    assert set(profile_ids()) >= GENERIC


@pytest.mark.parametrize("profile_id", ["dv-metro", "dv-snspd"])
def test_profiles_of_the_network_are_its_devices_figure_by_figure(profile_id):
    shipped, device = profile(profile_id), load_scenario("eu27").devices[profile_id]
    receiver, pulses, processing = shipped.photon_receiver, shipped.pulses, shipped.processing
    assert shipped.clock_rate_hz == device.clock_rate_hz
    assert pulses.intensities == (device.signal_intensity, device.decoy_intensity)
    assert pulses.probabilities == pytest.approx((device.signal_probability, 1 - device.signal_probability))
    assert pulses.z_basis_probability == device.z_basis_probability
    assert receiver.optics_loss_db == device.receiver_loss_db
    assert receiver.misalignment_error == device.misalignment_error
    assert receiver.detector.efficiency == device.detector_efficiency
    assert receiver.detector.dark_count_probability == device.dark_count_probability
    assert receiver.detector.dead_time_s == device.dead_time_s
    assert receiver.detector.afterpulse_probability == device.afterpulse_probability
    assert processing.block_sifted_bits == device.block_sifted_bits
    assert (processing.epsilon_sec, processing.epsilon_cor) == (device.epsilon_sec, device.epsilon_cor)


@pytest.mark.parametrize("profile_id", profile_ids())
def test_a_profile_that_is_written_out_reads_back_equal(profile_id):
    assert read_profiles(text_of(profile_id), "own.yaml") == {profile_id: profile(profile_id)}


@pytest.mark.parametrize("profile_id", profile_ids())
def test_every_profile_says_how_its_figures_are_known(profile_id):
    shipped = profile(profile_id)
    assert shipped.reference and shipped.mark in ("measured", "published", "specified", "assumed")
    assert shipped.mark != "assumed" or "ssum" in shipped.reference


def test_dark_counts_per_second_are_those_of_one_open_gate():
    detector = profile("dv-long").photon_receiver.detector
    assert detector.dark_count_rate_hz == pytest.approx(50.0)


def test_an_unknown_profile_names_those_that_there_are():
    with pytest.raises(ConfigurationError, match=r"unknown profile 'dv-mteor'; expected one of dv-metro, "):
        profile("dv-mteor")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"clock_rate_hz": -1.0}, "clock_rate_hz: expected a finite number at least 1000, at most"),
        ({"clock_rate_hz": float("nan")}, "clock_rate_hz: expected a finite number"),
        ({"protocol": "bb48"}, "protocol: expected one of bb84-decoy1"),
        ({"colour": "red"}, "colour: unknown field; expected"),
        ({"photon_receiver": None}, "nothing to go by; expected photon_receiver"),
        ({"pulses": None}, "pulses: missing; expected the settings of bb84-decoy1"),
        ({"protocol": "gg02-homodyne"}, "photon_receiver: expected coherent_receiver"),
        ({"protocol": "bbm92"}, "pulses: expected none, because bbm92 is not decoy-state BB84"),
        ({"protocol": "bb84-decoy2"}, "pulses: expected 3 intensities and probabilities"),
        (
            {"pulses": {"intensities": [0.1, 0.3], "probabilities": [0.5, 0.5], "z_basis_probability": 0.5}},
            "pulses: expected intensities that fall strictly",
        ),
        (
            {"pulses": {"intensities": [0.3, 0.1], "probabilities": [0.5, 0.6], "z_basis_probability": 0.5}},
            "pulses: expected probabilities that sum to 1, found 1.1",
        ),
        (
            {"measured": {"source": "x", "mark": "measured", "points": []}},
            "measured.points: expected a list with at least 1 entries, found a list of 0",
        ),
    ],
)
def test_a_bad_profile_is_refused_with_field_and_range(changes, said):
    told = faults_of(text_of(**changes))
    assert told.startswith("own.yaml:") and said in told


def test_every_fault_is_told_and_each_with_its_line():
    told = faults_of(text_of(clock_rate_hz=1.0, encoding="smoke")).splitlines()
    assert len(told) == 2 and all(line.startswith("own.yaml:") for line in told)


def test_two_profiles_of_one_name_are_refused():
    twice = yaml.safe_load(text_of())
    twice["profiles"] *= 2
    assert "is used twice" in faults_of(yaml.dump(twice, Dumper=Plain))


class Plain(yaml.SafeDumper):
    """Without the aliases that our reader refuses."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def test_fields_with_a_unit_carry_it_in_their_name():
    """Trap 18 on the side of the format: dB, s, Hz and photons cannot be confused silently."""
    suffixes = {"Hz": "_hz", "dB": "_db", "s": "_s", "bits": "_bits", "bit/s": "_bps", "rad": "_rad"}
    found = 0
    waiting = [("", profile_schema())]
    while waiting:
        name, schema = waiting.pop()
        if schema.get("unit") in suffixes:
            found += 1
            assert name.removesuffix("_max").endswith(suffixes[schema["unit"]]), name
        waiting += [*schema.get("properties", {}).items()]
        waiting += [(name, schema["items"])] if "items" in schema else []
    assert found > 10


# Measured curves


CURVE = MeasuredCurve("made up", "measured", (MeasuredPoint(10.0, 1e5, 0.01), MeasuredPoint(20.0, 1e3, 0.03)))


def test_a_measured_curve_is_met_at_its_points_and_log_linear_between():
    assert CURVE.secret_key_rate_bps(10.0) == 1e5 and CURVE.secret_key_rate_bps(20.0) == 1e3
    assert CURVE.secret_key_rate_bps(15.0) == pytest.approx(1e4)
    assert CURVE.qber(15.0) == pytest.approx(0.02)


def test_a_measured_curve_is_never_extrapolated_upwards():
    assert CURVE.secret_key_rate_bps(0.0) == 1e5
    assert CURVE.secret_key_rate_bps(20.001) == 0.0


@given(st.floats(0, 200), st.floats(0, 200))
def test_a_measured_rate_falls_with_loss(a, b):
    low, high = sorted((a, b))
    assert CURVE.secret_key_rate_bps(low) >= CURVE.secret_key_rate_bps(high) * (1 - 1e-12)


@pytest.mark.parametrize("loss_db", [-1.0, math.nan, math.inf])
def test_a_measured_curve_refuses_losses_that_are_none(loss_db):
    with pytest.raises(OutsideModel, match="loss_db"):
        CURVE.secret_key_rate_bps(loss_db)


def test_warm_up_and_pauses_cost_key():
    module = Operation(loss_db_max=18.0, warm_up_s=600.0, duty_cycle=0.5)
    assert module.delivered_bits(1000.0, 3600.0) == 1000.0 * 0.5 * 3000.0
    assert module.delivered_bits(1000.0, 599.0) == 0.0


def test_drift_is_the_mean_of_the_squared_sine_of_a_normal_angle():
    angles = np.random.default_rng(11).normal(scale=0.3, size=200_000)
    drawn = np.sin(angles) ** 2
    assert Drift(0.3, 1.0).error == pytest.approx(drawn.mean(), abs=5 * drawn.std() / math.sqrt(len(drawn)))
