"""``openqci link record``: what both ends of a BB84 link would have recorded, drawn into two files."""

import argparse
from pathlib import Path

import numpy as np

from openqci.cli.link.case import add_case_options, case_of
from openqci.core.errors import ConfigurationError, OutsideModel
from openqci.distillation.recorded import write_emissions, write_tags
from openqci.links import decoy_link
from openqci.links.recording import DETECTIONS_MAX, TimeTagger, record

DESCRIPTION = """\
Draws a run of a decoy-state BB84 link and writes what each end would have recorded: Alice her pulses,
Bob his time tags, with a clock that is off, a path that changes its length and tags that jitter.
`openqci distil run` makes key of the two files. The files are simulated and hold raw key, mode 600."""


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser(
        "record",
        help="draw a recording of both ends, for openqci distil",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_case_options(parser)
    parser.add_argument("--alice", type=Path, required=True, metavar="FILE", help="her pulses, .npz")
    parser.add_argument("--bob", type=Path, required=True, metavar="FILE", help="his time tags, .npz")
    parser.add_argument(
        "--detections",
        type=int,
        default=2_000_000,
        metavar="N",
        help=f"how many, 1 to {DETECTIONS_MAX} (default 2000000)",
    )
    parser.add_argument(
        "--seed", type=int, required=True, metavar="N", help="zero or more; the same again draws the same"
    )
    tagger = parser.add_argument_group("Bob's time tagger")
    tagger.add_argument("--clock-ppm", type=float, default=2.0, metavar="PPM", help="clock too fast (2)")
    tagger.add_argument(
        "--path-drift-ps-per-s", type=float, default=20.0, metavar="PS", help="photons ever later (20)"
    )
    tagger.add_argument("--jitter-ps", type=float, default=40.0, metavar="PS", help="of clicks (40)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draw, write, say what was written."""
    for name, file in (("--alice", args.alice), ("--bob", args.bob)):
        if file.suffix != ".npz":
            raise ConfigurationError(f"{name} {file}; expected a name that ends in .npz")
    if not 1 <= args.detections <= DETECTIONS_MAX:
        raise OutsideModel("detections", args.detections, f"1 to {DETECTIONS_MAX}")
    if args.seed < 0:
        raise OutsideModel("seed", args.seed, "zero or more")
    tagger = TimeTagger(
        clock_ppm=args.clock_ppm,
        path_drift_ps_per_s=args.path_drift_ps_per_s,
        jitter_ps=args.jitter_ps,
        sync_jitter_ps=args.jitter_ps,
        start_ps=1_000_000_000,
    )
    link = decoy_link(case_of(args))
    emissions, tags = record(link, args.detections, np.random.Generator(np.random.SFC64(args.seed)), tagger)
    write_emissions(args.alice, emissions)
    write_tags(args.bob, tags)
    seconds = emissions.pulses / emissions.clock_rate_hz
    print(f"{args.alice}: {emissions.entries} of {emissions.pulses} pulses, {seconds:.4g} s")
    print(f"{args.bob}: {tags.times_ps.size} time tags, {args.detections} detections")
    return 0
