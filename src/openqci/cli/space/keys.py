"""``openqci space keys``: key per pass, day, season or station of a mission."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np

from openqci.cli.space.case import Case, add_case_options, case_of
from openqci.core.errors import ConfigurationError
from openqci.links.block_policies import SIZES, BlockPolicy, block_policy, regrouped
from openqci.links.pair_passes import pair_survey
from openqci.links.pass_keys import PulseSettings
from openqci.links.pass_settings import best_settings
from openqci.links.survey import Sums, Survey, never_seen, survey
from openqci.space import utc_text

GOOD, NO_KEY = 0, 1
BY = ("pass", "day", "season", "station")

DESCRIPTION = """\
How much key the passes of a mission give under its finite-key proof: counts are summed over a pass (or over
several as one block) and the bound is applied once. Of a design with entangled pairs, a pass is the time that
two stations have in common. The sky is clear; clouds are not in it. Ends with 0 when there is key, 1 when
there is none."""


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
    parser.add_argument(
        "--optimise",
        action="store_true",
        help="the one setting of the source that gives most key over all of these passes",
    )
    parser.add_argument(
        "--compare-blocks",
        action="store_true",
        help=f"what blocks of {', '.join(map(str, SIZES))} passes give and cost, one line for each",
    )
    parser.add_argument("--json", action="store_true", help="print the keys as one JSON document")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the keys; 1 if there is none."""
    case = case_of(args)
    if args.compare_blocks and (args.passes_per_block is not None or args.by != "pass"):
        raise ConfigurationError("--compare-blocks; expected neither --passes-per-block nor --by with it")
    if args.optimise and case.design.entangled:
        raise ConfigurationError(f"--optimise; expected a decoy-state design, found {case.design.name}")
    if args.compare_blocks:
        return compare_blocks(case, args.optimise, as_json=args.json)
    settings = optimised(case, args.passes_per_block) if args.optimise else None
    found = surveyed(case, settings, args.passes_per_block)
    rows = list(pass_rows(found)) if args.by == "pass" else list(sum_rows(sums_of(found, args.by)))
    total = float(found.key_bits.sum())
    if args.json:
        facts = {
            **case.facts(),
            **proof_facts(case, found),
            "settings": None if settings is None else settings_facts(settings),
            "key_bits": round(total),
            "key_bits_per_day": round(found.key_bits_per_day),
            "never_seen_from": never_seen(found.passes),
            "by": args.by,
            "rows": rows,
        }
        print(json.dumps(facts, indent=2))
    else:
        print(as_text(case, found, rows, args.by, settings))
    return GOOD if total > 0 else NO_KEY


def optimised(case: Case, passes_per_block: int | None) -> PulseSettings:
    """Return the best setting for all passes of a case."""
    return best_settings(
        case.design, case.ground, case.start_utc_s, case.stop_utc_s, passes_per_block=passes_per_block
    )


def surveyed(case: Case, settings: PulseSettings | None, passes_per_block: int | None) -> Survey:
    """Return the passes of a case and their keys, of one station each or of two at once."""
    times = case.start_utc_s, case.stop_utc_s
    if case.design.entangled:
        return pair_survey(case.design, case.ground, *times, passes_per_block=passes_per_block)
    return survey(case.design, case.ground, *times, settings=settings, passes_per_block=passes_per_block)


def proof_facts(case: Case, found: Survey) -> dict[str, object]:
    """Return under which proof keys are kept."""
    return {
        "proof": found.keys.proof_id,
        "epsilon_sec": case.design.operation.epsilon_sec,
        "epsilon_cor": case.design.operation.epsilon_cor,
    }


def settings_facts(settings: PulseSettings) -> dict[str, object]:
    """Return a setting for JSON."""
    return {
        "intensities": [round(float(each), 5) for each in settings.intensities],
        "probabilities": [round(float(each), 5) for each in settings.probabilities],
        "z_basis_probability": round(settings.z_basis_probability, 5),
    }


def settings_line(settings: PulseSettings) -> str:
    """Return a setting for a reader."""

    def told(values: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> str:
        return " / ".join(f"{each:.3g}" for each in values)

    return (
        f"optimised for all of these passes: intensities {told(settings.intensities)}, sent "
        f"{told(settings.probabilities)}, key basis {settings.z_basis_probability:.3g}"
    )


def compare_blocks(case: Case, optimise: bool, *, as_json: bool) -> int:
    """Print what blocks of several sizes give and cost."""
    shared = surveyed(case, None, 1)
    policies: dict[int, BlockPolicy] = {}
    for size in SIZES:
        # Larger blocks want other settings, so each size has its own.
        found = surveyed(case, optimised(case, size), size) if optimise else regrouped(shared, size)
        policies[size] = block_policy(found)
    rows = [{"passes_per_block": size, **asdict(each)} for size, each in policies.items()]
    if as_json:
        print(json.dumps({**case.facts(), **proof_facts(case, shared), "rows": rows}, indent=2))
    else:
        print(policies_text(case, policies, optimise))
    return GOOD if any(each.key_bits > 0 for each in policies.values()) else NO_KEY


def policies_text(case: Case, policies: dict[int, BlockPolicy], optimise: bool) -> str:
    """Return block policies for a reader."""
    lines = [
        case.headline(),
        "settings optimised for each size; clear sky" if optimise else "settings of the mission; clear sky",
        f"{'passes':>6}{'blocks':>8}{'with key':>10}{'key bits/day':>16}{'days until key':>16}{'longest':>9}"
        f"{'sifted bits held':>18}{'epsilon/year':>14}",
    ]
    lines += [
        f"{size:>6}{each.blocks:>8}{each.blocks_with_key:>10}{each.key_bits_per_day:>16,.0f}"
        f"{each.wait_days_mean:>16.1f}{each.wait_days_max:>9.1f}{each.held_bits_max:>18,.0f}"
        f"{each.epsilon_per_year:>14.1e}"
        for size, each in policies.items()
    ]
    lines.append("a block has no key before its last pass, and one failure of epsilon concerns all of it")
    return "\n".join(lines)


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
            "sifted_bits": round(float(found.yields.key_basis_bits[index])),
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


def as_text(
    case: Case, found: Survey, rows: list[dict[str, object]], by: str, settings: PulseSettings | None
) -> str:
    """Return the keys for a reader."""
    lines = [case.headline(), f"proof {found.keys.proof_id}: {found.keys.reference}; clear sky"]
    if settings is not None:
        lines.append(settings_line(settings))
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
    never = "never see at once" if case.design.entangled else "never sees"
    for name in never_seen(found.passes):
        lines.append(f"{name} {never} a satellite so high in this time")
    per_day = found.key_bits_per_day
    lines.append(f"{found.key_bits.sum():,.0f} bits of key, {per_day:,.0f} a day, before clouds")
    return "\n".join(lines)
