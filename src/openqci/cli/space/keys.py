"""``openqci space keys``: key per pass, day, season or station of a mission."""

import argparse
import json
from collections.abc import Iterator

import numpy as np

from openqci.cli.space.case import Case, add_case_options, case_of
from openqci.core.errors import ConfigurationError
from openqci.links.survey import Sums, Survey, never_seen, survey
from openqci.space import utc_text

GOOD, NO_KEY = 0, 1
BY = ("pass", "day", "season", "station")

DESCRIPTION = """\
How much key the passes of a mission give under its finite-key proof: counts are summed over a pass (or over
several as one block) and the bound is applied once. The sky is clear; clouds are not in it. Ends with 0 when
there is key, 1 when there is none."""


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser(
        "keys",
        help="key per pass, day, season or station",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_case_options(parser)
    parser.add_argument("--by", choices=BY, default="pass", help="one line for each (default pass)")
    parser.add_argument(
        "--passes-per-block",
        type=int,
        metavar="N",
        help="passes of one satellite over one station taken as one block (default: the operation's)",
    )
    parser.add_argument("--json", action="store_true", help="print the keys as one JSON document")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the keys; 1 if there is none."""
    case = case_of(args)
    if case.design.entangled:
        raise ConfigurationError(
            f"{case.design.name} sends entangled pairs; expected a decoy-state design for this command"
        )
    found = survey(
        case.design,
        case.ground,
        case.start_utc_s,
        case.stop_utc_s,
        passes_per_block=args.passes_per_block,
    )
    rows = list(pass_rows(found)) if args.by == "pass" else list(sum_rows(sums_of(found, args.by)))
    total = float(found.key_bits.sum())
    if args.json:
        facts = {
            **case.facts(),
            "proof": found.keys.proof_id,
            "epsilon_sec": case.design.operation.epsilon_sec,
            "epsilon_cor": case.design.operation.epsilon_cor,
            "key_bits": round(total),
            "key_bits_per_day": round(found.key_bits_per_day),
            "never_seen_from": never_seen(found.passes),
            "by": args.by,
            "rows": rows,
        }
        print(json.dumps(facts, indent=2))
    else:
        print(as_text(case, found, rows, args.by))
    return GOOD if total > 0 else NO_KEY


def sums_of(found: Survey, by: str) -> Sums:
    return {"day": found.by_day, "season": found.by_season, "station": found.by_station}[by]()


def pass_rows(found: Survey) -> Iterator[dict[str, object]]:
    """Yield one row per pass in the order of time, with the reason where there is no key."""
    passes = found.passes
    blocks = len(found.keys.length_bits)
    durations_s = found.yields.summed(found.block, blocks).durations_s
    reasons = found.keys.zero_because(durations_s)
    for index in np.lexsort((passes.station, passes.satellite, passes.rise_utc_s)).tolist():
        block = int(found.block[index])
        yield {
            "rise": utc_text(float(passes.rise_utc_s[index])),
            "satellite": passes.satellites[int(passes.satellite[index])],
            "site": passes.stations[int(passes.station[index])],
            "culmination_deg": round(float(passes.culminations_deg[index]), 2),
            "credited_s": round(float(found.yields.durations_s[index]), 1),
            "sifted_bits": round(float(found.yields.counts[index, 0].sum())),
            "qber": None if block < 0 else round(float(found.keys.qber[block]), 5),
            "key_bits": round(float(found.key_bits[index])),
            "zero_because": reasons[block] if block >= 0 else "no moment of the pass may be credited",
        }


def sum_rows(sums: Sums) -> Iterator[dict[str, object]]:
    """Yield one row per day, season or station."""
    for place, label in enumerate(sums.labels):
        yield {
            "label": str(label),
            "passes": int(sums.passes[place]),
            "passes_with_key": int(sums.passes_with_key[place]),
            "credited_s": round(float(sums.duration_s[place]), 1),
            "key_bits": round(float(sums.key_bits[place])),
        }


def as_text(case: Case, found: Survey, rows: list[dict[str, object]], by: str) -> str:
    """Return the keys for a reader."""
    lines = [case.headline(), f"proof {found.keys.proof_id}: {found.keys.reference}; clear sky"]
    if by == "pass":
        lines.append(
            f"{'rise':<22}{'satellite':<26}{'site':<22}{'top deg':>8}{'s':>6}{'sifted':>12}{'QBER %':>8}"
            f"{'key bits':>12}  no key because"
        )
        for row in rows:
            qber = "" if row["qber"] is None else f"{100 * float(str(row['qber'])):.2f}"
            lines.append(
                f"{row['rise']:<22}{row['satellite']:<26}{row['site']:<22}{row['culmination_deg']:>8.1f}"
                f"{row['credited_s']:>6.0f}{row['sifted_bits']:>12,}{qber:>8}{row['key_bits']:>12,}"
                f"  {row['zero_because']}".rstrip()
            )
    else:
        lines.append(f"{by:<22}{'passes':>8}{'with key':>10}{'s':>10}{'key bits':>16}")
        lines += [
            f"{row['label']:<22}{row['passes']:>8}{row['passes_with_key']:>10}{row['credited_s']:>10,.0f}"
            f"{row['key_bits']:>16,}"
            for row in rows
        ]
    for name in never_seen(found.passes):
        lines.append(f"{name} never sees a satellite so high in this time")
    per_day = found.key_bits_per_day
    lines.append(f"{found.key_bits.sum():,.0f} bits of key, {per_day:,.0f} a day, before clouds")
    return "\n".join(lines)
