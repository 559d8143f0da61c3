"""Model for the figure of a finite-key proof: the best settings at each length and block size."""

import math

from openqci.core.errors import ConfigurationError
from openqci.links.experiments.comparison import Comparison, within
from openqci.links.experiments.detection import check_lengths
from openqci.links.experiments.rows import Experiment
from openqci.links.optimise import KeyBlock, optimise_decoy
from openqci.quantum.decoy_statistics import DecoyPlant

ROUNDS = 3
"""Of epsilon_sec = kappa * length: the length changes by less than a thousandth in the third."""


def lim2014_two_decoy(row: Experiment) -> list[Comparison]:
    """Compare rates per pulse of Lim et al. 2014, Fig. 1: three block sizes at four lengths."""
    curves, lengths_km = published_curves(row), row.figures("km")
    sizes = row.figures("nX")
    for published in curves.values():
        check_lengths(row, lengths_km, published)
    names = [f"n1e{round(math.log10(size))}" for size in sizes]
    if set(names) != set(curves):
        raise ConfigurationError(
            f"{row.experiment_id}: expected results.rate_per_pulse for {names}, found {list(curves)}"
        )
    uses = ("eta_bob", "p_dc", "p_ap", "e_mis", "f_ec", "alpha", "eps_cor", "kappa", "mu3", "nX", "km")
    return [
        within(
            row,
            f"rate_per_pulse, {size:g} bits, {length_km:g} km",
            best_rate(row, size, length_km),
            published,
            relative=row.check.tol_n1e5 if name == "n1e5" else row.check.relative,
            uses=uses,
            assumed={"settings": "optimised at each point", "proof": "lim-2014"},
        )
        for name, size in zip(names, sizes, strict=True)
        for length_km, published in zip(lengths_km, curves[name], strict=True)
    ]


def best_rate(row: Experiment, key_bits: float, length_km: float) -> float:
    """Return the best rate per pulse at one point of the figure, with epsilon_sec = kappa * length."""
    plant = DecoyPlant(
        efficiency=row.figure("eta_bob") * 10 ** (-row.figure("alpha") * length_km / 10),
        dark_count_probability=row.figure("p_dc"),
        misalignment_error=row.figure("e_mis"),
        afterpulse_probability=row.figure("p_ap"),
        form="lim-2014",
    )
    length_bits, rate = key_bits / 5, 0.0
    for _ in range(ROUNDS):
        block = KeyBlock(
            key_bits=key_bits,
            error_correction_efficiency=row.figure("f_ec"),
            epsilon_sec=row.figure("kappa") * max(length_bits, 1.0),
            epsilon_cor=row.figure("eps_cor"),
        )
        best = optimise_decoy(plant, block, "lim-2014", faintest_intensity=row.figure("mu3"))
        length_bits, rate = float(best.length_bits[0]), float(best.bits_per_pulse[0])
    return rate


def published_curves(row: Experiment) -> dict[str, list[float]]:
    """Return the published rates by name of the block size."""
    curves = row.results.get("rate_per_pulse")
    if not isinstance(curves, dict):
        raise ConfigurationError(
            f"{row.experiment_id}: results.rate_per_pulse: expected lists by block size, found {curves!r}"
        )
    return {name: [float(value) for value in values] for name, values in curves.items()}
