"""``openqci space plan``: which station is served in which pass, and what every state gets."""

import argparse
import json
from typing import Any

import numpy as np

from openqci.cli.space.planning import SCENARIOS_MAX, PlanCase, add_plan_options, days_of, plan_case_of
from openqci.core.errors import ConfigurationError
from openqci.planning.contacts import without_contact
from openqci.planning.rolling import Done, as_planned, replanned
from openqci.planning.solving import Plan, best_plan
from openqci.space import utc_text
from openqci.space.weather import sample_clouds

GOOD = 0
ROWS_SHOWN = 20
DAYS = 7.0

DESCRIPTION = """\
Which station is served in which pass: as much key as can be expected under the climate's clouds, fair between
states, within what satellites can do (one link at a time, slewing, power, store, radio). Small plans are the
proved optimum; large ones say how far they are from a bound. With --weather, what comes of the plan under
drawn weather, kept as it is and planned again every day."""


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser(
        "plan",
        help="which station is served in which pass",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_plan_options(parser, DAYS)
    parser.add_argument(
        "--weathers",
        type=int,
        default=0,
        metavar="K",
        help=f"plan for K drawn weathers, 1 to {SCENARIOS_MAX}, which values stations under different skies "
        "(default 0: for the mean)",
    )
    parser.add_argument(
        "--weather", action="store_true", help="also draw a weather and tell what comes of it"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of drawn weather (default 1)")
    parser.add_argument("--json", action="store_true", help="print the whole plan as one JSON document")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a plan."""
    if not 0 <= args.weathers <= SCENARIOS_MAX:
        raise ConfigurationError(f"--weathers {args.weathers}; expected 0 to {SCENARIOS_MAX}")
    if args.seed < 0:
        raise ConfigurationError(f"--seed {args.seed}; expected 0 or more")
    of = plan_case_of(args)
    clear = of.drawn(args.weathers, args.seed + 1) if args.weathers else None
    plan = best_plan(of.problem(clear))
    done = under_weather(of, plan, args.seed) if args.weather else None
    facts = facts_of(of, plan, done)
    print(json.dumps(facts, indent=2) if args.json else as_text(of, plan, facts))
    return GOOD


def under_weather(of: PlanCase, plan: Plan, seed: int) -> tuple[Done, Done]:
    """Return what comes of a plan under one drawn weather: kept, and planned again every day."""
    hours = int(np.ceil(of.found.days * 24)) + 1
    clouds = sample_clouds(of.climate, of.case.start_utc_s, hours, np.random.default_rng(seed))
    times = of.case.start_utc_s, of.case.stop_utc_s
    return as_planned(plan.problem, plan.chosen, clouds), replanned(of.problem(), clouds, of.climate, *times)


def facts_of(of: PlanCase, plan: Plan, done: tuple[Done, Done] | None) -> dict[str, Any]:
    """Return the plan for JSON."""
    contacts, expected = of.contacts, plan.expected_bits
    weather = None
    if done is not None:
        weather = {
            "kept_bits": round(float(done[0].received_bits.sum())),
            "replanned_bits": round(float(done[1].received_bits.sum())),
        }
    return {
        **of.case.facts(),
        "sites": [each.site_id for each in of.ground],
        "fairness": of.fairness,
        "limits_assumed": {name: getattr(of.limits, name) for name in of.limits.__dataclass_fields__},
        "contacts_possible": len(contacts),
        "contacts_served": len(plan.served),
        "value": plan.value,
        "bound": plan.bound,
        "gap": round(plan.gap, 6),
        "expected_key_bits": round(sum(expected.values())),
        "under_drawn_weather": weather,
        "states": [state_row(of, plan, state) for state in contacts.state_names],
        "without_contact": without_contact(of.found),
        "states_without_station": sorted(set(of.demands) - set(contacts.state_names)),
        "contacts": [contact_row(of, int(place)) for place in plan.served],
    }


def state_row(of: PlanCase, plan: Plan, state: str) -> dict[str, Any]:
    """Return what a state gets."""
    contacts = of.contacts
    stations = [
        name for name, country in zip(contacts.stations, contacts.states, strict=True) if country == state
    ]
    chosen = plan.chosen & np.array([contacts.states[each] == state for each in contacts.station])
    bits, demand = plan.expected_bits[state], of.demands.get(state)
    served = {} if demand is None else demand.served(bits / (of.found.days * 86_400.0))
    return {
        "state": state,
        "stations": len(stations),
        "contacts_possible": int(sum(contacts.states[each] == state for each in contacts.station)),
        "contacts_served": int(chosen.sum()),
        "stations_served": len(set(contacts.station[chosen].tolist())),
        "expected_key_bits": round(bits),
        "days_of_demand": None if demand is None else round(days_of(bits, demand) or 0.0, 6),
        "share_of_demand_by_level": {str(level): round(share, 6) for level, share in served.items()},
    }


def contact_row(of: PlanCase, place: int) -> dict[str, Any]:
    """Return one contact."""
    contacts = of.contacts
    return {
        "start": utc_text(float(contacts.start_utc_s[place])),
        "stop": utc_text(float(contacts.stop_utc_s[place])),
        "satellite": contacts.satellites[int(contacts.satellite[place])],
        "site": contacts.stations[int(contacts.station[place])],
        "state": contacts.states[int(contacts.station[place])],
        "key_bits_if_clear": round(float(contacts.key_bits[place])),
        "clear_chance": round(float(contacts.clear_chance[place]), 3),
    }


def as_text(of: PlanCase, plan: Plan, facts: dict[str, Any]) -> str:
    """Return the plan for a reader."""
    lines = [
        of.case.headline(),
        f"{facts['contacts_served']} of {facts['contacts_possible']} possible contacts served, "
        f"{facts['expected_key_bits']:,} bits expected; {of.fairness}: value {plan.value:.6g}, no plan above "
        f"{plan.bound:.6g}, gap {100 * plan.gap:.2f} %",
        *contact_lines(facts["contacts"]),
        f"{'state':<12}{'stations':>9}{'possible':>10}{'served':>8}{'bits expected':>16}"
        f"{'days of demand':>16}{'level 1':>9}{'2':>7}{'3':>7}{'4':>7}",
    ]
    lines += [state_line(row) for row in facts["states"]]
    lines += [f"{name}: no contact: {why}" for name, why in facts["without_contact"].items()]
    if facts["states_without_station"]:
        lines.append(f"demand without a station: {', '.join(facts['states_without_station'])}")
    if facts["under_drawn_weather"] is not None:
        told = facts["under_drawn_weather"]
        lines.append(
            f"under one drawn weather: {told['kept_bits']:,} bits with this plan, "
            f"{told['replanned_bits']:,} planned again every day"
        )
    return "\n".join(lines)


def contact_lines(rows: list[dict[str, Any]]) -> list[str]:
    """Return the first contacts as a table."""
    shown = [
        f"{row['start']:<22}{row['satellite']:<26}{row['site']:<22}{row['state']:<12}"
        f"{row['key_bits_if_clear']:>12,}{row['clear_chance']:>7.2f}"
        for row in rows[:ROWS_SHOWN]
    ]
    head = f"{'start':<22}{'satellite':<26}{'site':<22}{'state':<12}{'bits, clear':>12}{'clear':>7}"
    more = [f"... {len(rows) - ROWS_SHOWN} more (all with --json)"] if len(rows) > ROWS_SHOWN else []
    return [head, *shown, *more]


def state_line(row: dict[str, Any]) -> str:
    """Return one state as a line; shares of its demand in percent."""
    days = "" if row["days_of_demand"] is None else f"{row['days_of_demand']:.3g}"
    shares = row["share_of_demand_by_level"]
    levels = "".join(
        f"{'' if str(level) not in shares else f'{100 * shares[str(level)]:.3g} %':>{9 if level == 1 else 7}}"
        for level in range(1, 5)
    )
    return (
        f"{row['state']:<12}{row['stations']:>9}{row['contacts_possible']:>10}{row['contacts_served']:>8}"
        f"{row['expected_key_bits']:>16,}{days:>16}{levels}"
    ).rstrip()
