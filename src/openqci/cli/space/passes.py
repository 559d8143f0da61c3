"""``openqci space passes``: when satellites of a mission pass over stations, with Sun, Moon and shadow."""

import argparse
import json
import sys

import numpy as np

from openqci.cli.space.case import Case, add_case_options, case_of
from openqci.links.ground import stations_of
from openqci.links.survey import never_seen
from openqci.space import Almanac, Passes, PassSamples, find_passes, sample_passes, track_of, utc_text
from openqci.space.pass_finding import joined
from openqci.space.sun_moon import TWILIGHTS, twilight

GOOD, NO_PASS = 0, 1

DESCRIPTION = """\
When the satellites of a mission rise, culminate and set over ground stations, with distance, the light
at the station (night, twilights, day), whether the satellite is in the Earth's shadow, and the Moon.
Ends with 0 when there is a pass, 1 when there is none."""


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser(
        "passes",
        help="when satellites pass over stations",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_case_options(parser)
    parser.add_argument("--json", action="store_true", help="print the passes as one JSON document")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the passes; 1 if there is none."""
    case = case_of(args)
    passes, rows = passes_of(case)
    for name in never_seen(passes):
        lowest = case.design.operation.elevation_min_deg
        print(
            f"openqci: {name} never sees {case.design.name} above {lowest:g} deg in this time",
            file=sys.stderr,
        )
    if args.json:
        print(json.dumps({**case.facts(), "passes": rows}, indent=2))
    else:
        print(as_table(case, rows))
    return GOOD if rows else NO_PASS


def passes_of(case: Case) -> tuple[Passes, list[dict[str, object]]]:
    """Return all passes, and each as a row, in the order of time."""
    stations = stations_of(case.ground)
    almanac = Almanac.of(case.start_utc_s, case.stop_utc_s)
    found, rows = [], []
    for orbit in case.design.orbits(case.start_utc_s):
        track = track_of(orbit, case.start_utc_s, case.stop_utc_s)
        passes = find_passes(track, stations, case.design.operation.elevation_min_deg)
        seen = sample_passes(track, stations, passes, almanac=almanac)
        found.append(passes)
        rows += [row_of(passes, seen, index) for index in range(len(passes))]
    return joined(found), sorted(
        rows, key=lambda row: (str(row["rise"]), str(row["satellite"]), str(row["site"]))
    )


def row_of(passes: Passes, seen: PassSamples, index: int) -> dict[str, object]:
    """Return one pass as a row."""
    one = seen.one(index)
    top = int(np.argmax(one.elevations_deg))
    return {
        "satellite": passes.satellites[int(passes.satellite[index])],
        "site": passes.stations[int(passes.station[index])],
        "rise": utc_text(float(passes.rise_utc_s[index])),
        "culmination": utc_text(float(passes.culmination_utc_s[index])),
        "set": utc_text(float(passes.set_utc_s[index])),
        "whole": bool(passes.whole[index]),
        "duration_s": round(float(passes.durations_s[index]), 1),
        "culmination_deg": round(float(passes.culminations_deg[index]), 2),
        "rise_azimuth_deg": round(float(one.azimuths_deg[0]), 1),
        "set_azimuth_deg": round(float(one.azimuths_deg[-1]), 1),
        "range_km_min": round(float(one.ranges_km.min()), 1),
        "range_rate_km_s_max": round(float(np.abs(one.range_rates_km_s).max()), 3),
        "sun_elevation_deg": round(float(one.sun_elevations_deg[top]), 1),
        "light": TWILIGHTS[int(twilight(one.sun_elevations_deg[top]))],
        "sunlit_share": round(float(one.sunlit.mean()), 2),
        "moon_elevation_deg": round(float(one.moon_elevations_deg[top]), 1),
        "moon_separation_deg": round(float(one.moon_separations_deg[top]), 1),
        "moon_lit_share": round(float(1 + np.cos(np.radians(one.moon_phases_deg[top]))) / 2, 2),
    }


def as_table(case: Case, rows: list[dict[str, object]]) -> str:
    """Return the passes for a reader."""
    lines = [case.headline()]
    lines.append(
        f"{'rise':<22}{'satellite':<26}{'site':<22}{'s':>6}{'top deg':>9}{'km':>7}{'Sun deg':>9}"
        f"  {'light':<13}{'sunlit':>7}{'Moon deg':>9}"
    )
    for row in rows:
        lines.append(
            f"{row['rise']:<22}{row['satellite']:<26}{row['site']:<22}{row['duration_s']:>6.0f}"
            f"{row['culmination_deg']:>9.1f}{row['range_km_min']:>7.0f}{row['sun_elevation_deg']:>9.1f}"
            f"  {row['light']:<13}{row['sunlit_share']:>7.2f}{row['moon_elevation_deg']:>9.1f}"
        )
    lines.append(f"{len(rows)} passes")
    return "\n".join(lines)
