"""``openqci space validate``: does the payload meet its model? A report on one recorded pass."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from openqci.cli.link.files import why_unreadable, written_whole
from openqci.cli.space.case import design_of
from openqci.core.errors import ConfigurationError
from openqci.links.budget import SpaceLink
from openqci.links.ground import ground_station
from openqci.planning.recordings import RecordedPass, example_text, read_recorded_pass, recorded_pass_schema
from openqci.planning.validation import SIGNIFICANCE, TestResult, Tolerance, Validation, validated

GOOD, FAILS = 0, 1

DESCRIPTION = """\
Whether a payload in orbit meets its model: four tests (light, errors, loss against elevation, steadiness) of
the counts of one recorded pass, with one significance for all of them together. Ends with 0 when the record
agrees with the model, 1 when it does not."""

TOLERANCES = (
    ("--light-db", "light_db", "of the model's loss as a whole, dB"),
    ("--qber", "qber", "of its error rate"),
    ("--slope", "slope", "of its loss through the pass, dB per dB"),
    ("--fading", "fading", "of the counts of an interval, as a share"),
)


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser(
        "validate",
        help="does a payload in orbit meet its model",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--recorded", type=Path, metavar="FILE", help="a recorded pass (JSON)")
    what.add_argument(
        "--write-example", type=Path, metavar="FILE", help="write the example, a simulated pass"
    )
    what.add_argument("--schema", action="store_true", help="print the JSON Schema of a recorded pass")
    parser.add_argument(
        "--significance",
        type=float,
        default=SIGNIFICANCE,
        metavar="A",
        help=f"chance to fail a payload that meets its model, 0 to 0.5 (default {SIGNIFICANCE:g})",
    )
    for option, name, told in TOLERANCES:
        value = getattr(Tolerance(), name)
        parser.add_argument(
            option,
            type=float,
            default=value,
            metavar="X",
            help=f"one standard deviation {told} (default {value:g})",
        )
    parser.add_argument("--json", action="store_true", help="print the report as one JSON document")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a report; 1 if the payload does not meet its model."""
    if args.schema:
        print(json.dumps(recorded_pass_schema(), indent=2))
        return GOOD
    if args.write_example is not None:
        with written_whole(args.write_example) as file:
            file.write(example_text().encode())
        print(f"{args.write_example}: a simulated pass, drawn from the model of its mission")
        return GOOD
    recorded = read_recorded_pass(text_of(args.recorded), str(args.recorded))
    of, design = design_of(recorded.mission)
    link = SpaceLink(design, ground_station(recorded.site, of))
    tolerance = Tolerance(args.light_db, args.qber, args.slope, args.fading)
    report = validated(recorded, link, args.significance, tolerance)
    facts = facts_of(report, tolerance, of.assumed_share)
    print(
        json.dumps(facts, indent=2) if args.json else as_text(recorded, report, tolerance, of.assumed_share)
    )
    return GOOD if report.meets_model else FAILS


def text_of(file: Path) -> str:
    """Return the text of a file; ConfigurationError says why it cannot be read."""
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: cannot be read: {why_unreadable(error)}") from error


def facts_of(report: Validation, tolerance: Tolerance, assumed_share: float) -> dict[str, Any]:
    """Return the report for JSON."""
    recorded = report.recorded
    return {
        "mission": recorded.mission,
        "site": recorded.site,
        "simulated": recorded.simulated,
        "intervals": len(recorded.utc),
        "from": recorded.utc[0],
        "sifted_bits": sum(recorded.sifted_bits),
        "sifted_bits_by_model": round(float(report.expected_bits.sum())),
        "significance": report.significance,
        "tolerance_assumed": asdict(tolerance),
        "assumed_share_of_figures": round(assumed_share, 3),
        "tests": [{**asdict(each), "fails": each.fails(report.significance)} for each in report.tests],
        "deficit_db_found_nine_times_in_ten": round(report.found_deficit_db, 3),
        "meets_model": report.meets_model,
    }


def as_text(recorded: RecordedPass, report: Validation, tolerance: Tolerance, assumed_share: float) -> str:
    """Return the report for a reader."""
    kind = "SIMULATED pass" if recorded.simulated else "pass"
    lines = [
        f"{kind} of {recorded.mission} over {recorded.site}, {len(recorded.utc)} intervals of "
        f"{recorded.interval_s:g} s from {recorded.utc[0]}",
        f"{sum(recorded.sifted_bits):,} bits sifted, {report.expected_bits.sum():,.0f} by the model; "
        f"{100 * assumed_share:.0f} % of the mission's figures are assumed",
        f"allowed to the model, one deviation: {tolerance.light_db:g} dB, {100 * tolerance.qber:g} % "
        f"errors, {tolerance.slope:g} dB per dB, {100 * tolerance.fading:g} % from interval to interval",
        f"{'test':<13}{'seen':>10}{'model':>10}{'+/-':>10}  {'unit':<20}{'chance':>10}{'of four':>10}",
        *(test_line(each, report.significance) for each in report.tests),
        f"a deficit of {report.found_deficit_db:.1f} dB of light would have been found nine times in ten",
    ]
    verdict = "agrees with" if report.meets_model else "does NOT agree with"
    lines.append(
        f"the payload {verdict} its model at a significance of {report.significance:g} for all four tests"
    )
    return "\n".join(lines)


def test_line(of: TestResult, significance: float) -> str:
    """Return one test as a line."""
    fails = "  fails" if of.fails(significance) else ""
    return (
        f"{of.name:<13}{of.seen:>10.4g}{of.model:>10.4g}{of.deviation:>10.4g}  {of.unit:<20}"
        f"{of.chance:>10.2g}{of.corrected_chance:>10.2g}{fails}"
    )
