"""``openqci space year``: a year of passes, weather and contacts in fast-forward, with key in and key out."""

import argparse
import json
import sys
from typing import Any

import numpy as np

from openqci.cli.space.planning import PlanCase, add_plan_options, plan_case_of
from openqci.core.errors import ConfigurationError
from openqci.planning.contacts import without_contact
from openqci.planning.rolling import HORIZON_DAYS, STEP_DAYS, replanned
from openqci.planning.year import SEASONS, SiteYear, StateYear, Year, year_of
from openqci.space.weather import sample_clouds

GOOD, NO_KEY = 0, 1
DAYS = 365.0

DESCRIPTION = """\
A year in fast-forward: passes, a drawn weather, contacts that are planned again as it turns, and key that
goes into each state's stock and out of it to its flows. Ends with 0 when there is key, 1 when the weather
left none."""


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser(
        "year",
        help="a year in fast-forward under drawn weather",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_plan_options(parser, DAYS)
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the weather (default 1)")
    parser.add_argument(
        "--replan-days",
        type=float,
        default=STEP_DAYS,
        metavar="X",
        help=f"between plans, 0.1 to 30; each looks {HORIZON_DAYS:g} days ahead (default {STEP_DAYS:g})",
    )
    parser.add_argument("--json", action="store_true", help="print the year as one JSON document")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a year; 1 if it gave no key."""
    if args.seed < 0:
        raise ConfigurationError(f"--seed {args.seed}; expected 0 or more")
    if not 0.1 <= args.replan_days <= 30:
        raise ConfigurationError(f"--replan-days {args.replan_days:g}; expected 0.1 to 30")
    of = plan_case_of(args)
    year = flown(of, args.seed, args.replan_days)
    print(json.dumps(facts_of(of, year, args.seed), indent=2) if args.json else as_text(of, year, args.seed))
    return GOOD if year.received_bits > 0 else NO_KEY


def flown(of: PlanCase, seed: int, replan_days: float) -> Year:
    """Return the year as it comes under one weather."""
    times = of.case.start_utc_s, of.case.stop_utc_s
    hours = int(np.ceil(of.found.days * 24)) + 1
    clouds = sample_clouds(of.climate, times[0], hours, np.random.default_rng(seed))
    plans = int(np.ceil(of.found.days / replan_days))
    if sys.stderr.isatty():
        print(f"openqci: {len(of.contacts):,} possible contacts, {plans} plans", file=sys.stderr)
    done = replanned(
        of.problem(),
        clouds,
        of.climate,
        *times,
        step_days=replan_days,
        horizon_days=max(HORIZON_DAYS, replan_days),
    )
    demand = {state: each.bits_per_day for state, each in of.demands.items()}
    return year_of(done, *times, demand)


def facts_of(of: PlanCase, year: Year, seed: int) -> dict[str, Any]:
    """Return the year for JSON."""
    return {
        **of.case.facts(),
        "sites": [each.site_id for each in of.ground],
        "seed": seed,
        "fairness": of.fairness,
        "passes": len(of.found.passes),
        "contacts_possible": len(of.contacts),
        "contacts_served": sum(each.served for each in year.sites),
        "contacts_clear": sum(each.clear for each in year.sites),
        "key_bits": round(year.received_bits),
        "by_site": [site_row(each) for each in year.sites],
        "by_state": [state_row(each) for each in year.states],
        "without_contact": without_contact(of.found),
    }


def site_row(of: SiteYear) -> dict[str, Any]:
    """Return one site."""
    return {
        "site": of.site,
        "state": of.state,
        "contacts_possible": of.possible,
        "contacts_served": of.served,
        "contacts_clear": of.clear,
        "key_bits": round(float(of.bits_per_day.sum())),
        "key_bits_by_month": [round(float(each)) for each in of.bits_by_month],
        "key_bits_by_season": {name: round(bits) for name, bits in of.bits_by_season.items()},
        "days_without_key": of.days_without_key,
        "longest_gap_days": of.longest_gap_days,
    }


def state_row(of: StateYear) -> dict[str, Any]:
    """Return the stock of one state."""
    course, steady = of.course, of.steady
    return {
        "state": of.state,
        "received_bits": round(float(of.received_per_day.sum())),
        "demand_bits_per_day": None if of.demand_per_day is None else round(of.demand_per_day),
        "used_bits": None if course is None else round(float(course.used.sum())),
        "stock_bits_at_end": None if course is None else round(float(course.left[-1])),
        "stock_bits_max": None if course is None else round(float(course.left.max())),
        "demand_met": None if of.demand_met is None else round(of.demand_met, 6),
        "days_unmet": of.days_unmet,
        "steady_bits_per_s": None if steady is None else round(steady.rate_per_day / 86_400.0, 3),
        "steady_stock_bits": None if steady is None else round(steady.stock),
        "steady_fullest_day": None if steady is None else steady.fullest_day,
        "steady_emptiest_day": None if steady is None else steady.emptiest_day,
    }


def as_text(of: PlanCase, year: Year, seed: int) -> str:
    """Return the year for a reader."""
    served, clear = (sum(getattr(each, name) for each in year.sites) for name in ("served", "clear"))
    lines = [
        of.case.headline(),
        f"weather of seed {seed}: {len(of.contacts):,} possible contacts, {served:,} served, {clear:,} of "
        f"them clear, {year.received_bits:,.0f} bits of key",
        f"{'site':<24}{'served':>8}{'clear':>7}{'key bits':>16}"
        + "".join(f"{name:>15}" for name in SEASONS)
        + f"{'days without':>14}{'longest':>9}",
    ]
    for each in year.sites:
        seasons = "".join(f"{bits:>15,.0f}" for bits in each.bits_by_season.values())
        lines.append(
            f"{each.site:<24}{each.served:>8}{each.clear:>7}{each.bits_per_day.sum():>16,.0f}{seasons}"
            f"{each.days_without_key:>14}{each.longest_gap_days:>9}"
        )
    lines += state_lines(year)
    lines += [f"{name}: no contact: {why}" for name, why in without_contact(of.found).items()]
    return "\n".join(lines)


def state_lines(year: Year) -> list[str]:
    """Return the stocks as a table."""
    lines = [
        f"{'state':<12}{'in, bits':>16}{'out, bits':>16}{'left':>16}{'demand met':>12}{'steady bit/s':>14}"
        f"{'with a stock of':>17}{'full on day':>13}"
    ]
    for each in year.states:
        course, steady, met = each.course, each.steady, each.demand_met
        out, left = ("", "") if course is None else (f"{course.used.sum():,.0f}", f"{course.left[-1]:,.0f}")
        carried = (
            ("", "", "")
            if steady is None
            else (f"{steady.rate_per_day / 86_400:,.1f}", f"{steady.stock:,.0f}", str(steady.fullest_day))
        )
        share = "" if met is None else f"{100 * met:.3g} %"
        lines.append(
            f"{each.state:<12}{each.received_per_day.sum():>16,.0f}{out:>16}{left:>16}{share:>12}"
            f"{carried[0]:>14}{carried[1]:>17}{carried[2]:>13}".rstrip()
        )
    return lines
