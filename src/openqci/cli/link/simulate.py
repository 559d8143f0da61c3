"""``openqci link simulate``: draw the detections of a link into a NumPy file."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from openqci import __version__
from openqci.cli.link.case import add_case_options, case_of
from openqci.cli.link.files import written_whole
from openqci.core.errors import ConfigurationError
from openqci.links import link_detections


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser("simulate", help="draw detections of a link into a .npz file")
    add_case_options(parser)
    parser.add_argument(
        "--detections",
        type=int,
        default=100_000,
        metavar="N",
        help="how many (default 100000): up to 100000000 of BB84, 20000000 of others, of bbm92-cw as many "
        "as take 30000000 clicks",
    )
    parser.add_argument(
        "--seed", type=int, required=True, metavar="N", help="zero or more; the same again draws the same"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the .npz file to write")
    parser.add_argument("--json", action="store_true", help="print what was written as one JSON document")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draw, write, and say what was written."""
    if args.out.suffix != ".npz":
        raise ConfigurationError(f"--out {args.out}; expected a name that ends in .npz")
    case = case_of(args)
    with written_whole(args.out) as file:  # a place that cannot be written is known before the drawing
        drawn = link_detections(case, args.detections, args.seed)
        about = {
            "format": "openqci-detections-1",
            "made_by": f"openqci {__version__}",
            "simulated": True,
            "protocol": case.protocol_id,
            "profile": case.profile.profile_id,
            "clock_rate_hz": case.profile.clock_rate_hz,
            "loss_db": case.loss_db,
            "length_km": case.length_km,
            "optimised": case.optimise,
            "encoding": case.encoding or case.profile.encoding,
            "drift_angle_rms_rad": case.drift_angle_rms_rad,
            "background_photons_hz": case.background_photons_hz,
            "seed": args.seed,
            "detections": args.detections,
        }
        arrays_to_write: dict[str, Any] = {"about": np.array(json.dumps(about)), **drawn}
        np.savez_compressed(file, **arrays_to_write)
    arrays = {name: [str(values.dtype), list(values.shape)] for name, values in drawn.items()}
    if args.json:
        print(json.dumps({"file": str(args.out), **about, "arrays": arrays}, indent=2))
    else:
        print(f"{args.out}: {args.detections} detections of {case.protocol_id}, {case.loss_db:g} dB")
        for name, (kind, shape) in arrays.items():
            print(f"  {name:<20} {kind} {shape}")
    return 0
