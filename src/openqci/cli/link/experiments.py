"""``openqci link compare-experiments``: the models against published experiments, row by row."""

import argparse
import json
import math
from itertools import groupby
from pathlib import Path

import msgspec

from openqci.cli.link.files import why_unreadable
from openqci.core.errors import ConfigurationError
from openqci.links.experiments import Comparison, Experiment, compare, read_experiments, shipped_experiments

GOOD, DISAGREES = 0, 1


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser("compare-experiments", help="hold the models against published experiments")
    parser.add_argument(
        "--file", type=Path, metavar="FILE", help="a table of your own; default: the shipped one"
    )
    parser.add_argument("--json", action="store_true", help="print all comparisons as one JSON document")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print every comparison; 1 if one disagrees."""
    rows = (
        shipped_experiments() if args.file is None else read_experiments(text_of(args.file), str(args.file))
    )
    compared = [found for row in rows for found in compare(row)]
    left_out = [row for row in rows if row.check.kind in ("none", "schema")]
    print(json.dumps(report(compared, left_out), indent=2) if args.json else as_text(compared, left_out))
    return GOOD if all(each.agrees for each in compared) else DISAGREES


def text_of(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: cannot be read: {why_unreadable(error)}") from error


def report(compared: list[Comparison], left_out: list[Experiment]) -> dict[str, object]:
    return {
        "compared": [finite(msgspec.to_builtins(each)) for each in compared],
        "disagreeing": sum(not each.agrees for each in compared),
        "not_compared": [
            {"experiment": row.experiment_id, "kind": row.check.kind, "why": reason(row)} for row in left_out
        ],
    }


def finite(facts: dict[str, object]) -> dict[str, object]:
    """Return facts for JSON, which knows neither NaN nor infinity."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in facts.items()
    }


def reason(row: Experiment) -> str:
    return row.check.note or (
        "a network, not a link" if row.check.kind == "schema" else "inputs not published"
    )


def as_text(compared: list[Comparison], left_out: list[Experiment]) -> str:
    """Return the comparisons as a table, those of an experiment under its name, each set of inputs once."""
    lines = [f"{'experiment, figure':<64}{'published':>11}{'model':>11}{'ratio':>10}  must be"]
    for experiment, of_one in groupby(compared, lambda each: each.experiment):
        figures = list(of_one)
        lines.append(f"{experiment} ({figures[0].kind}): {figures[0].reference}")
        for place, each in enumerate(figures):
            ratio = f"{each.modelled / each.published:.3g}" if each.published else ""
            verdict = "" if each.agrees else "  DISAGREES"
            numbers = f"{each.published:>11.4g}{each.modelled:>11.4g}{ratio:>10}"
            lines.append(f"  {each.metric:<62}{numbers}  {each.must}{verdict}")
            if place + 1 == len(figures) or inputs_of(each) != inputs_of(figures[place + 1]):
                lines += [f"      {known}: {inputs}" for known, inputs in inputs_of(each).items() if inputs]
    disagreeing = sum(not each.agrees for each in compared)
    lines.append(f"{len(compared)} figures compared, {disagreeing} disagree")
    lines.append("not compared:")
    lines += [f"  {row.experiment_id}: {reason(row)}" for row in left_out]
    return "\n".join(lines)


def inputs_of(compared: Comparison) -> dict[str, str]:
    """Return the inputs of one comparison as words, by how they are known."""
    return {
        known: ", ".join(f"{name} = {value}" for name, value in getattr(compared, known).items())
        for known in ("pinned", "remembered", "assumed", "fitted")
    }
