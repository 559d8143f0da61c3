"""Models for the error rates that detectors give: free-running ones with dead time, and plain clicks."""

import math

import numpy as np

from openqci.core.errors import ConfigurationError
from openqci.links.experiments.comparison import Comparison, within
from openqci.links.experiments.rows import Experiment
from openqci.quantum.clicks import free_running_qber, gain_and_qber
from openqci.quantum.encodings import misalignment_of_extinction_db, misalignment_of_visibility

AFTERPULSE_S = 1.8e-7
"""Afterpulses per count times the dead time: fitted to the five error rates of Korzh et al. 2015, the one
constant of this table that is. It comes to 2.1 % at 8.6 us, where InGaAs diodes have a few per cent."""

EXTINCTION_DB = 20.0


def freerunning_apd_deadtime_qber(row: Experiment) -> list[Comparison]:
    """Compare the error rate of free-running diodes at several lengths, from the rates that they counted."""
    uses = ("dcr_hz", "dead_s", "visibility", "block", "km")
    lengths_km, dead_time_s = row.figures("km"), np.array(row.figures("dead_s"))
    counted_rate_hz = np.array(row.figures("block")) / np.array(row.results_of("t_block_s"))
    modelled = free_running_qber(
        counted_rate_hz,
        row.figures("dcr_hz"),
        dead_time_s,
        [misalignment_of_visibility(visibility) for visibility in row.figures("visibility")],
        AFTERPULSE_S / dead_time_s,
    )
    published = row.results_of("qber")
    check_lengths(row, lengths_km, modelled.tolist(), published)
    return [
        within(
            row,
            f"qber at {length_km:g} km",
            qber,
            found,
            absolute=row.check.tol_abs,
            uses=uses,
            assumed={"contrast_of_the_data_line": "that of the monitoring line, which was published"},
            fitted={"afterpulse_probability_times_dead_time_s": AFTERPULSE_S},
        )
        for length_km, qber, found in zip(lengths_km, modelled.tolist(), published, strict=True)
    ]


def click_qber(row: Experiment) -> list[Comparison]:
    """Compare the error rate of a coherent one-way link: dark counts, and light in slots that are empty."""
    photons = row.figure("mu") * 10 ** (-row.figure("loss_dB") / 10) * row.figure("eta_det")
    dark_counts = -math.expm1(-row.figure("dcr_hz") / row.figure("clock"))
    wrong = misalignment_of_extinction_db(EXTINCTION_DB)
    _, qber = gain_and_qber(np.array([photons]), dark_counts, wrong)
    metric = "qber_250km"
    return [
        within(
            row,
            metric,
            float(qber[0]),
            row.result(metric),
            absolute=row.check.tol_abs,
            uses=("clock", "mu", "loss_dB", "eta_det", "dcr_hz"),
            assumed={"extinction_db": EXTINCTION_DB},
        )
    ]


def check_lengths(row: Experiment, *columns: list[float]) -> None:
    """Raise ConfigurationError unless all columns of a row have the same length."""
    if len({len(column) for column in columns}) > 1:
        sizes = ", ".join(str(len(column)) for column in columns)
        raise ConfigurationError(f"{row.experiment_id}: expected lists of one length, found {sizes} figures")
