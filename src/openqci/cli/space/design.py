"""``openqci space design``: payloads side by side, mass and power against key per day and site."""

import argparse
import json
from pathlib import Path
from typing import Any

from openqci.cli.link.files import written_whole
from openqci.cli.link.plotting import check_name, empty_figure
from openqci.cli.space.case import Case, add_case_options, case_of
from openqci.core.errors import ConfigurationError
from openqci.links.clouds import with_cloud_probability
from openqci.planning.payloads import (
    APERTURES_M,
    CLOCK_RATES_HZ,
    JITTERS_URAD,
    Candidate,
    Grid,
    explored,
    front,
    payload_model,
)

GOOD, NO_KEY = 0, 1
DAYS = 30.0

DESCRIPTION = """\
Payloads of a design side by side: telescope, pointing, rate of the source and wavelength against mass, power
and key per day and site, each with the best setting of its source over the same passes. Mass and power are a
model, most of whose figures are assumed. Ends with 0 when a payload gives key, 1 when none does."""


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser(
        "design",
        help="payloads side by side: mass and power against key",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_case_options(parser, DAYS)
    for option, what, default in (
        ("--aperture-m", "diameter of the telescope", APERTURES_M),
        ("--jitter-urad", "of pointing, per axis", JITTERS_URAD),
        ("--clock-rate-hz", "of the source", CLOCK_RATES_HZ),
        ("--wavelength-nm", "785, 810, 850 or 1550", ()),
    ):
        told = ", ".join(f"{each:g}" for each in default) or "the design's"
        parser.add_argument(
            option, type=float, action="append", metavar="X", help=f"{what}; may be repeated (default {told})"
        )
    parser.add_argument(
        "--cloud-probability",
        type=float,
        metavar="P",
        help="of stations that the catalogue has no climate of, 0 to 1",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw key over mass (.svg, .png or .pdf)")
    parser.add_argument("--json", action="store_true", help="print the payloads as one JSON document")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print payloads; 1 if none gives key."""
    case = case_of(args)
    if args.plot is not None:
        check_name(args.plot)
    ground = case.ground
    if args.cloud_probability is not None:
        if not 0 <= args.cloud_probability <= 1:
            raise ConfigurationError(f"--cloud-probability {args.cloud_probability:g}; expected 0 to 1")
        ground = tuple(with_cloud_probability(ground, args.cloud_probability))
    grid = Grid(
        args.aperture_m or APERTURES_M,
        args.jitter_urad or JITTERS_URAD,
        args.clock_rate_hz or CLOCK_RATES_HZ,
        args.wavelength_nm or (),
    )
    candidates = explored(case.design, ground, case.start_utc_s, case.stop_utc_s, grid)
    if args.plot is not None:
        plot(args.plot, case, candidates)
    print(json.dumps(facts_of(case, candidates), indent=2) if args.json else as_table(case, candidates))
    return GOOD if any(each.bits_per_day.sum() > 0 for each in candidates) else NO_KEY


def facts_of(case: Case, candidates: list[Candidate]) -> dict[str, Any]:
    """Return payloads for JSON."""
    rows = zip(candidates, front(candidates), strict=True)
    return {
        **case.facts(),
        "mass_and_power_assumed_share": round(payload_model().assumed_share, 3),
        "candidates": [row_of(each, best, case) for each, best in rows],
    }


def row_of(of: Candidate, best: bool, case: Case) -> dict[str, Any]:
    """Return one payload."""
    sites = [each.site_id for each in case.ground]
    return {
        "aperture_m": of.payload.aperture_diameter_m,
        "jitter_urad": of.payload.jitter_urad,
        "clock_rate_hz": of.payload.clock_rate_hz,
        "wavelength_nm": of.payload.wavelength_nm,
        "mass_kg": round(of.mass_kg, 2),
        "power_w": round(of.power_w, 1),
        "intensities": [round(float(each), 4) for each in of.settings.intensities],
        "key_bits_per_day": {
            name: round(float(bits)) for name, bits in zip(sites, of.bits_per_day, strict=True)
        },
        "key_bits_per_day_with_clouds": {
            name: round(float(bits)) for name, bits in zip(sites, of.bits_per_day_clouds, strict=True)
        },
        "none_lighter_gives_as_much": best,
    }


def as_table(case: Case, candidates: list[Candidate]) -> str:
    """Return payloads for a reader, the lightest first."""
    assumed = 100 * payload_model().assumed_share
    names = [each.site_id for each in case.ground]
    lines = [
        case.headline(),
        f"mass and power by a model of which {assumed:.0f} % of the figures are assumed; bits a day with the "
        "climate's clouds, * where no lighter payload gives as much",
        f"  {'mm':>5}{'urad':>7}{'MHz':>8}{'nm':>7}{'kg':>7}{'W':>7}"
        + "".join(f"{name:>22}" for name in names)
        + f"{'clear sky, all':>16}",
    ]
    for each, best in zip(candidates, front(candidates), strict=True):
        payload = each.payload
        sites = "".join(f"{bits:>22,.0f}" for bits in each.bits_per_day_clouds)
        lines.append(
            f"{'*' if best else ' '} {1000 * (payload.aperture_diameter_m or 0):>5.0f}"
            f"{payload.jitter_urad:>7g}"
            f"{payload.clock_rate_hz / 1e6:>8g}{payload.wavelength_nm:>7g}{each.mass_kg:>7.1f}"
            f"{each.power_w:>7.0f}{sites}{each.bits_per_day.sum():>16,.0f}"
        )
    return "\n".join(lines)


def plot(file: Path, case: Case, candidates: list[Candidate]) -> None:
    """Draw key per day over mass, one colour per rate of the source."""
    figure, axes = empty_figure()
    for rate_hz in sorted({each.payload.clock_rate_hz for each in candidates}):
        chosen = [each for each in candidates if each.payload.clock_rate_hz == rate_hz]
        axes.scatter(
            [each.mass_kg for each in chosen],
            [each.bits_per_day_clouds.sum() for each in chosen],
            s=[3000 * (each.payload.aperture_diameter_m or 0) ** 1.5 + 8 for each in chosen],
            label=f"{rate_hz / 1e6:g} MHz",
            alpha=0.7,
        )
    best = [each for each, worth in zip(candidates, front(candidates), strict=True) if worth]
    axes.plot(
        [each.mass_kg for each in best],
        [each.bits_per_day_clouds.sum() for each in best],
        color="0.4",
        linewidth=1,
    )
    axes.set(
        xlabel="mass of the payload, kg (model)",
        ylabel=f"key of {len(case.ground)} sites with clouds, bit/day",
        title=f"{case.design.name}; larger dots, larger telescopes",
        yscale="symlog",
    )
    axes.legend(fontsize="small")
    with written_whole(file) as drawing:
        date = {"Date": None} if file.suffix == ".svg" else None
        figure.savefig(drawing, format=file.suffix[1:], metadata=date)
