"""Models for keys from satellites: one pass as one block."""

import math
from dataclasses import replace
from typing import Any

from openqci.core.errors import ConfigurationError
from openqci.links.experiments.comparison import Comparison, Known, compared, not_below, within
from openqci.links.experiments.rows import Experiment
from openqci.links.passes import Downlink, PassChannel, error_rate, pass_counts, pass_key
from openqci.quantum import DecoySource, Receiver
from openqci.space import GaussianBeam, Telescope, circular_pass

STATION = Receiver(0.0, 0.5, 5e-7, misalignment_error=0.01)
STATION_ASSUMED: Known = {"background_per_pulse": 1e-6, "misalignment_error": 0.01}
"""Round figures, no fit."""

STEP_S = 4.0
BEFORE_THE_UPGRADE_BITS = 300_939
"""Key of the pass of 2017 that the upgrade of 2021 is compared with."""


def pass_integrated_lim2014(row: Experiment) -> list[Comparison]:
    """Compare a recorded pass of Micius: sifted bits, error rate and key, one bound over summed counts."""
    p_basis = row.figure("p_basis")
    source = DecoySource(
        row.figure("clock"), tuple(row.figures("mu")), tuple(row.figures("p_mu")), z_basis_probability=p_basis
    )
    receiver = replace(STATION, detector_efficiency=row.figure("eta_det"), z_basis_probability=p_basis)
    times_s, ranges_km = record(row, "profile", "t_s", "km")
    loss_ranges_km, losses_db = record(row, "loss_vs_km", "km", "dB")
    channel = PassChannel.of_record(times_s, ranges_km, loss_ranges_km, losses_db, step_s=STEP_S)
    counts = pass_counts(source, receiver, channel)
    epsilon = row.result("eps")
    key = pass_key(counts, epsilon_sec=epsilon, key_bases="both")
    modelled = {
        "sifted_bits": float(counts.counts[:, 0].sum()),
        "qber": error_rate(counts.counts[:, 0], counts.errors[:, 0]),
        "key_bits": float(key.length_bits),
    }
    metrics, tolerances = row.check.metric, row.check.tol
    if not isinstance(metrics, list) or not isinstance(tolerances, list) or set(metrics) - set(modelled):
        raise ConfigurationError(
            f"{row.experiment_id}: test.metric and test.tol: expected lists of {', '.join(modelled)}"
        )
    return [
        within(
            row,
            metric,
            modelled[metric],
            row.result(metric),
            relative=tolerance,
            uses=("clock", "mu", "p_mu", "p_basis", "eta_det"),
            assumed={
                **STATION_ASSUMED,
                "sifted": "bits of signal pulses, both bases",
                "proof": key.proof_id,
                "f_ec": 1.16,
            },
        )
        for metric, tolerance in zip(metrics, tolerances, strict=True)
    ]


def pass_integrated(row: Experiment) -> list[Comparison]:
    """Compare a pass whose losses were not published, or what an upgrade explains."""
    return upgrade(row) if "improvement_over_2017_min" in row.results else best_pass(row)


def best_pass(row: Experiment) -> list[Comparison]:
    """Put the best pass of a microsatellite below a pass without losses in optics or tracking."""
    signal, signal_share = 0.5, 0.8
    clock_rate_hz = row.figure("clock")
    source = DecoySource(clock_rate_hz, (signal, 0.1, 0.0), (signal_share, 0.1, 0.1), z_basis_probability=0.5)
    full_angle_urad, background_photons_hz, lowest_deg = 10.0, 1000.0, 10.0
    ideal = Downlink(
        GaussianBeam.of_full_angle_1e2(full_angle_urad), Telescope(row.figure("ogs_aperture_m")), 850.0
    )
    seen = circular_pass(row.figure("orbit_km"), lowest_deg, step_s=10.0)
    way_down = ideal.channel(seen, background_photons_hz=background_photons_hz)
    key = pass_key(pass_counts(source, STATION, way_down), key_bases="both")
    metric = "key_bits_best_pass"
    return [
        not_below(
            row,
            metric,
            float(key.length_bits),
            row.result(metric),
            uses=("clock", "ogs_aperture_m", "orbit_km"),
            assumed={
                **STATION_ASSUMED,
                "intensities": [signal, 0.1, 0.0],
                "signal_share": signal_share,
                "full_angle_at_1_over_e2_urad": full_angle_urad,
                "detector_efficiency": STATION.detector_efficiency,
                "background_photons_hz": background_photons_hz,
                "lowest_elevation_deg": lowest_deg,
                "losses_in_optics_and_tracking": "none",
                "proof": key.proof_id,
            },
        )
    ]


def upgrade(row: Experiment) -> list[Comparison]:
    """Ask whether a faster clock, biased bases and a larger telescope explain the published factor.

    The figures of the upgrade were not read, so that this shows the factor to be plausible and no more.
    """
    clock_rate_hz, aperture_ratio, optics_gain_db, bias, loss_db = 625e6, 1.2, 3.0, 0.9, 33.0
    source = DecoySource(clock_rate_hz, (0.8, 0.1, 0.0), (0.5, 0.25, 0.25), z_basis_probability=bias)
    before = replace(source, clock_rate_hz=100e6, z_basis_probability=0.5)
    gain_db = 20 * math.log10(aperture_ratio) + optics_gain_db

    def key_bits(sender: DecoySource, loss_db: float, key_bases: Any) -> float:
        receiver = replace(STATION, z_basis_probability=sender.z_basis_probability)
        level = PassChannel.of_record(
            [0.0, PASS_S], [645.0, 646.0], [645.0, 646.0], [loss_db] * 2, step_s=PASS_S
        )
        return float(pass_key(pass_counts(sender, receiver, level), key_bases=key_bases).length_bits)

    factor = key_bits(source, loss_db - gain_db, "z") / key_bits(before, loss_db, "both")
    least = row.result("improvement_over_2017_min")
    return [
        compared(
            row,
            "improvement_over_2017_min",
            factor,
            least,
            "not below: clock, bias and telescope explain it",
            factor >= least,
            (),
            {
                **STATION_ASSUMED,
                "clock": clock_rate_hz,
                "aperture_ratio": aperture_ratio,
                "gain_in_optics_db": optics_gain_db,
                "z_basis_probability": bias,
                "loss_db_before": loss_db,
                "duration_s": PASS_S,
            },
        )
    ]


PASS_S = 260.0


def record(row: Experiment, name: str, first: str, second: str) -> tuple[list[float], list[float]]:
    """Return two columns of a record among the inputs; ConfigurationError if it is none."""
    given = row.inputs.get(name)
    if not isinstance(given, dict) or not {first, second} <= set(given):
        raise ConfigurationError(
            f"{row.experiment_id}: inputs.{name}: expected lists {first} and {second}, found {given!r}"
        )
    return [float(value) for value in given[first]], [float(value) for value in given[second]]
