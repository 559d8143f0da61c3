"""``openqci link plot``: the rate of all protocols over distance, under the bound that no link passes."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from openqci.cli.link.files import written_whole
from openqci.core.errors import ConfigurationError
from openqci.links import LinkCase, LinkRate, link_rate, profile, protocol, protocol_ids
from openqci.proofs.asymptotic import plob_bound

SUFFIXES = (".svg", ".png", ".pdf")
ATTENUATION_DB_PER_KM = 0.2
RATE_MIN = 1e-12

HARDWARE = "dv-snspd"
"""All protocols that count photons are drawn on the same detectors, so that the curves differ by protocol."""


@dataclass(frozen=True)
class Curve:
    """One line of a plot."""

    label: str
    rates: tuple[LinkRate, ...]


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser("plot", help="draw the rate of all protocols over distance")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="an .svg, .png or .pdf file")
    parser.add_argument("--length-km-max", type=float, default=600.0, help="end of the axis (default 600)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draw, and say where."""
    if not 1 <= args.length_km_max <= 1000:
        raise ConfigurationError(f"--length-km-max = {args.length_km_max!r}; expected 1 to 1000 km")
    check_name(args.out)
    lengths_km = np.linspace(1.0, args.length_km_max, 121)
    curves = [curve(protocol_id, lengths_km) for protocol_id in protocol_ids()]
    plot_rates(args.out, "length_km", curves)
    print(args.out)
    return 0


def curve(protocol_id: str, lengths_km: Sequence[float] | Any) -> Curve:
    """Return the asymptotic rate of a protocol with optimised settings, without the profile's cut-off."""
    hardware = profile("cv-metro" if protocol_id.startswith("gg02") else HARDWARE)
    limits = msgspec.structs.replace(hardware.operation, loss_db_max=200.0)
    unlimited = msgspec.structs.replace(hardware, operation=limits)
    case = LinkCase(unlimited, 0.0, protocol=protocol_id, proof="asymptotic", optimise=True)
    rates = tuple(
        link_rate(replace(case, length_km=float(km), loss_db=ATTENUATION_DB_PER_KM * float(km)))
        for km in lengths_km
    )
    return Curve(f"{protocol_id} ({protocol(protocol_id).short_names['asymptotic']})", rates)


def plot_rates(file: Path, axis: str, curves: Sequence[Curve]) -> None:
    """Draw rates per pulse over ``length_km`` or ``loss_db`` with the repeaterless bound.

    Raises
    ------
    ConfigurationError
        For another kind of file, one that cannot be written, or when Matplotlib is not installed.
    """
    check_name(file)
    figure, axes = empty_figure()
    for each in curves:
        places = [getattr(rate, axis) for rate in each.rates]
        heights = [rate.secret_key_rate_per_pulse or np.nan for rate in each.rates]
        axes.semilogy(places, heights, label=each.label)
    bound = [(getattr(rate, axis), plob_bound(rate.loss_db)) for rate in curves[0].rates if rate.loss_db > 0]
    axes.semilogy(*zip(*bound, strict=True), "k--", label="repeaterless bound (PLOB)")
    axes.set(xlabel={"length_km": "fibre, km", "loss_db": "loss, dB"}[axis], ylabel="secret bits per pulse")
    axes.set_ylim(RATE_MIN, 2.0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    with written_whole(file) as drawing:
        figure.savefig(
            drawing, format=file.suffix[1:], metadata={"Date": None} if file.suffix == ".svg" else None
        )


def check_name(file: Path) -> None:
    """Refuse another kind of file, or none, before anything is computed for it."""
    if file.suffix not in SUFFIXES:
        raise ConfigurationError(f"{file}: expected a name that ends in {', '.join(SUFFIXES)}")
    if file.is_dir() or not file.parent.is_dir():
        raise ConfigurationError(f"{file}: cannot be written; expected a file in a folder that there is")


def empty_figure() -> tuple[Any, Any]:
    """Return a figure without a display. Matplotlib is an extra: a key management node has no use for it."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigurationError("plots need Matplotlib: install openqci[plot] (make setup does)") from error
    matplotlib.rcParams["svg.hashsalt"] = "openqci"  # equal figures, equal files
    figure = Figure(figsize=(8, 5), layout="constrained")
    return figure, figure.subplots()
