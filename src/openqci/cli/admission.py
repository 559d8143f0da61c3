"""``openqci admission``: who of a scenario's demand gets how much key, and which hop keeps whom from more."""

import argparse
import json
from collections import Counter
from math import inf
from typing import TYPE_CHECKING, Any

from openqci.core.identifiers import LinkId, SiteId, is_border

if TYPE_CHECKING:
    from openqci.control import Allocation, RoutedDemand
    from openqci.network import Network

ALL_ADMITTED, SOME_NOT = 0, 1

NAMED = 5
"""Hops and flows that the page names; the document has all."""

RELAY_SHARE = 1.02
"""Link key that a hop spends for a bit of end-to-end key: 80 bytes more for a batch of 4 KiB."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register ``openqci admission``."""
    parser = subparsers.add_parser(
        "admission",
        help="show who of a scenario's demand gets how much key",
        description="Decide on all flows of a scenario at once by forecast rates; say who gets less and why.",
    )
    parser.add_argument("--scenario", default="eu27", metavar="NAME|DIR", help="which network (eu27)")
    parser.add_argument("--light", action="store_true", help="the listed flows, not the whole demand model")
    parser.add_argument(
        "--rates", type=_part, default=1.0, metavar="PART", help="part of the forecast rates to count on (1)"
    )
    parser.add_argument(
        "--total",
        type=_bits_per_s,
        default=inf,
        metavar="BPS",
        help="link key in bit/s that all hops together can bring, as a twin's processors limit it (no limit)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the outcome; 1 if a flow is stretched or refused."""
    from openqci.network import load_scenario

    network = load_scenario(args.scenario, whole_demand=not args.light)
    asked, found = decide(network, args.rates, args.total)
    report = report_of(network, asked, found, args.rates, args.total)
    print(json.dumps(report, indent=2) if args.json else as_text(report))
    return SOME_NOT if report["stretched"] or report["refused"] else ALL_ADMITTED


def decide(
    network: "Network", part: float, total_bps: float = inf
) -> "tuple[list[RoutedDemand], Allocation]":
    """Find routes and grants for all flows of a network, at a part of its forecast rates.

    ``total_bps`` is the link key that all hops together can bring.
    """
    from openqci.control import Router, allocate, budgets, within
    from openqci.control.cost import slowness_cost
    from openqci.core.forecasts import RateForecast
    from openqci.links import forecast

    rates = {
        link: part * forecast(network.devices[hop.device], hop).secret_key_rate_bps
        for link, hop in network.hops.items()
    }
    router = Router(network.edges(), network.sites)
    asked = demands_of(network)
    budget_bps = budgets(RateForecast(link, rate_bps) for link, rate_bps in rates.items())

    def cost(link: LinkId, _: SiteId) -> float:
        return 0.0 if is_border(link) else 1.0 + slowness_cost(rates[link])

    return asked, within(allocate(router, asked, cost, budget_bps), asked, total_bps)


def demands_of(network: "Network") -> "list[RoutedDemand]":
    """Return the flows of a network with their classes; one without a class of the catalogue comes last."""
    from openqci.control import RoutedDemand, service_classes
    from openqci.control.classes import plain_class

    classes = service_classes()
    demands = []
    for flow in network.flows:
        wanted_bps = flow.keys_per_s * flow.key_size_bits
        if wanted_bps > 0:
            service = classes.get(flow.use_case) or plain_class(wanted_bps)
            ends = network.saes[flow.master].site, network.saes[flow.slave].site
            tunnels = wanted_bps / service.wanted_bps
            name = f"{flow.master} > {flow.slave}"
            demands.append(RoutedDemand(name, *ends, service, tunnels, spends=RELAY_SHARE))
    return demands


def report_of(
    network: "Network", asked: "list[RoutedDemand]", found: "Allocation", part: float, total_bps: float = inf
) -> dict[str, Any]:
    """Return the document that ``--json`` prints."""
    less = [each for each in asked if found.grant(each.flow_id).granted_bps < 0.999 * each.wanted_bps]
    told = [
        {
            "flow": each.flow_id,
            "class": each.service.class_id,
            "wanted_bps": each.wanted_bps,
            "granted_bps": (grant := found.grant(each.flow_id)).granted_bps,
            "stretch": grant.stretch if grant.admitted else None,
            "hop": grant.link_id,
            "reason": grant.reason,
        }
        for each in less
    ]
    return {
        "scenario": network.name,
        "rates_part": part,
        "total_bps": total_bps if total_bps < inf else None,
        "flows": len(asked),
        "wanted_bps": sum(each.wanted_bps for each in asked),
        "granted_bps": sum(found.grant(each.flow_id).granted_bps for each in asked),
        "classes": _classes(asked, found),
        "stretched": [each for each in told if each["stretch"] is not None],
        "refused": [each for each in told if each["stretch"] is None],
    }


def _classes(asked: "list[RoutedDemand]", found: "Allocation") -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for each in asked:
        grant = found.grant(each.flow_id)
        row = rows.setdefault(
            each.service.class_id,
            {
                "class": each.service.class_id,
                "level": each.service.level,
                "flows": 0,
                "whole": 0,
                "stretched": 0,
                "refused": 0,
                "largest_stretch": 1.0,
                "wanted_bps": 0.0,
                "granted_bps": 0.0,
            },
        )
        whole = grant.granted_bps >= 0.999 * each.wanted_bps
        row["flows"] += 1
        row["whole" if whole else "stretched" if grant.admitted else "refused"] += 1
        row["wanted_bps"] += each.wanted_bps
        row["granted_bps"] += grant.granted_bps
        if grant.admitted:
            row["largest_stretch"] = max(row["largest_stretch"], grant.stretch)
    return sorted(rows.values(), key=lambda row: (row["level"], row["class"]))


def as_text(report: dict[str, Any]) -> str:
    """Return the document for a reader."""
    lines = [
        f"{report['scenario']}: {report['flows']} flows want {report['wanted_bps']:,.0f} bit/s and get "
        f"{report['granted_bps']:,.0f}; "
        f"{len(report['stretched'])} stretched, {len(report['refused'])} refused",
        "",
        f"{'class':22}{'level':>9}{'flows':>7}{'whole':>7}{'stretched':>11}{'refused':>9}{'stretch':>9}"
        f"{'wanted bit/s':>14}{'granted':>10}",
    ]
    lines += [_class_line(row) for row in report["classes"]]
    for what in ("stretched", "refused"):
        if report[what]:
            lines += ["", f"{what}, for example", *_examples(report[what])]
    return "\n".join(lines)


def _class_line(row: dict[str, Any]) -> str:
    counts = f"{row['flows']:7}{row['whole']:7}{row['stretched']:11}{row['refused']:9}"
    rates = f"{row['wanted_bps']:14,.0f}{row['granted_bps']:10,.0f}"
    return f"{row['class']:22}{row['level']:9}{counts}{row['largest_stretch']:9.2f}{rates}"


def _examples(flows: list[dict[str, Any]]) -> list[str]:
    """Return the most frequent reasons, each with one flow that it is said to."""
    counts = Counter(each["reason"] for each in flows)
    first = {each["reason"]: each["flow"] for each in reversed(flows)}
    lines = [f"  {count:5}  {reason}  ({first[reason]})" for reason, count in counts.most_common(NAMED)]
    more = len(counts) - NAMED
    return [*lines, f"         and {more} more reasons"] if more > 0 else lines


def _part(text: str) -> float:
    number = float(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is out of range; expected above 0, at most 1")
    return number


def _bits_per_s(text: str) -> float:
    number = float(text)
    if not 0 < number < inf:
        raise argparse.ArgumentTypeError(f"{text} is out of range; expected a rate above 0, in bit/s")
    return number
