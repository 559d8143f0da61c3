"""``openqci space budget``: each loss of a pass in dB, with the background, as a table or a chart."""

import argparse
import json
from pathlib import Path

import numpy as np

from openqci.cli.link.files import written_whole
from openqci.cli.link.plotting import check_name, empty_figure
from openqci.cli.space.case import Case, add_case_options, case_of
from openqci.core.errors import ConfigurationError
from openqci.links.budget import Budget, SpaceLink
from openqci.links.ground import stations_of
from openqci.links.pass_keys import credited
from openqci.space import Passes, PassSamples, find_passes, sample_passes, track_of, utc_text
from openqci.space.ranges import Floats

STEP_S = 20.0

DESCRIPTION = """\
What the light of one pass loses on its way down, term by term in dB, and the photons of other light. The pass
is the one that culminates highest among those in which key counts, or among all if there is none."""


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser(
        "budget",
        help="the losses of a pass, term by term",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_case_options(parser)
    parser.add_argument(
        "--step-s",
        type=float,
        default=STEP_S,
        metavar="S",
        help=f"between lines, 0.1 to 600 (default {STEP_S:g})",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the losses (.svg, .png or .pdf)")
    parser.add_argument("--json", action="store_true", help="print the budget as one JSON document")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the budget of the best pass."""
    case = case_of(args)
    if args.plot is not None:
        check_name(args.plot)
    if not 0.1 <= args.step_s <= 600:
        raise ConfigurationError(f"--step-s {args.step_s:g}; expected 0.1 to 600")
    if len(case.ground) > 1:
        case = Case(case.mission, case.design, case.ground[:1], case.start_utc_s, case.stop_utc_s)
    passes, seen, counted = best_pass(case, args.step_s)
    budget = SpaceLink(case.design, case.ground[0]).of_samples(seen)
    if args.plot is not None:
        plot(args.plot, case, seen, budget)
    facts = facts_of(case, passes, seen, budget, counted)
    print(json.dumps(facts, indent=2) if args.json else as_table(case, passes, seen, budget, counted))
    return 0


def best_pass(case: Case, step_s: float) -> tuple[Passes, PassSamples, bool]:
    """Return the pass that is shown, its samples, and whether key counts in it.

    Raises
    ------
    ConfigurationError
        If there is no pass at all.
    """
    stations, operation = stations_of(case.ground), case.design.operation
    best: tuple[tuple[bool, float], Passes, PassSamples] | None = None
    for orbit in case.design.orbits(case.start_utc_s):
        track = track_of(orbit, case.start_utc_s, case.stop_utc_s)
        passes = find_passes(track, stations, operation.elevation_min_deg)
        if not len(passes):
            continue
        seen = sample_passes(track, stations, passes, step_s)
        counts = np.add.reduceat(credited(seen, operation).astype(np.int64), seen.offsets[:-1]) > 0
        index = int(np.lexsort((passes.culminations_deg, counts))[-1])
        rank = bool(counts[index]), float(passes.culminations_deg[index])
        if best is None or rank > best[0]:
            best = rank, passes.part(slice(index, index + 1)), seen.one(index)
    if best is None:
        raise ConfigurationError(
            f"{case.ground[0].site_id} never sees {case.design.name} above "
            f"{operation.elevation_min_deg:g} deg in this time; expected another site, orbit, or more days"
        )
    return best[1], best[2], best[0][0]


def facts_of(
    case: Case, passes: Passes, seen: PassSamples, budget: Budget, counted: bool
) -> dict[str, object]:
    """Return the budget for JSON."""

    def told(values: Floats, digits: int) -> list[float]:
        return [round(float(each), digits) for each in values]

    return {
        **case.facts(),
        "satellite": passes.satellites[int(passes.satellite[0])],
        "culmination": utc_text(float(passes.culmination_utc_s[0])),
        "key_counts": counted,
        "times": [utc_text(float(each)) for each in seen.utc_s],
        "elevations_deg": told(seen.elevations_deg, 2),
        "ranges_km": told(seen.ranges_km, 1),
        **{name: told(np.broadcast_to(loss, seen.utc_s.shape), 3) for name, loss in budget.terms().items()},
        "total_db": told(budget.total_db, 3),
        "background_photons_hz": told(budget.background_photons_hz, 1),
    }


def as_table(case: Case, passes: Passes, seen: PassSamples, budget: Budget, counted: bool) -> str:
    """Return the budget for a reader."""
    names = [name.removesuffix("_db") for name in budget.terms()]
    which = "highest pass in which key counts" if counted else "highest pass; key counts in none"
    lines = [
        case.headline(),
        f"{passes.satellites[int(passes.satellite[0])]} over {case.ground[0].site_id}, "
        f"culmination {utc_text(float(passes.culmination_utc_s[0]))} ({which}); losses in dB",
        f"{'s':>5}{'deg':>7}{'km':>7}"
        + "".join(f"{name:>13}" for name in names)
        + f"{'total':>8}{'photons/s':>12}",
    ]
    columns = [np.broadcast_to(loss, seen.utc_s.shape) for loss in budget.terms().values()]
    for row in range(len(seen)):
        lines.append(
            f"{seen.utc_s[row] - seen.utc_s[0]:>5.0f}{seen.elevations_deg[row]:>7.1f}"
            + f"{seen.ranges_km[row]:>7.0f}"
            + "".join(f"{column[row]:>13.2f}" for column in columns)
            + f"{budget.total_db[row]:>8.2f}{budget.background_photons_hz[row]:>12.4g}"
        )
    return "\n".join(lines)


def plot(file: Path, case: Case, seen: PassSamples, budget: Budget) -> None:
    """Draw the losses one upon another."""
    figure, axes = empty_figure()
    terms = {name: np.broadcast_to(loss, seen.utc_s.shape) for name, loss in budget.terms().items()}
    labels = [name.removesuffix("_db") for name in terms]
    axes.stackplot(seen.utc_s - seen.utc_s[0], *terms.values(), labels=labels, alpha=0.8)
    axes.set(
        xlabel="time since rise, s", ylabel="loss, dB", title=f"{case.design.name}, {case.ground[0].name}"
    )
    axes.legend(fontsize="small", loc="lower center", ncols=4)
    with written_whole(file) as drawing:
        date = {"Date": None} if file.suffix == ".svg" else None
        figure.savefig(drawing, format=file.suffix[1:], metadata=date)
