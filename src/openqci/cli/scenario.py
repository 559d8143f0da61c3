"""``openqci scenario``: check a scenario and say what is wrong, list the shipped ones, print the schemas."""

import argparse
import json
from typing import Any

from openqci.core.errors import ConfigurationError, Fault
from openqci.network import (
    SCHEMA_NAMES,
    LocatedFault,
    Network,
    ScenarioNotFound,
    load_scenario,
    scenario_names,
    scenario_schema,
)

GOOD, FAULTS_FOUND = 0, 1
UNREACHED_SHOWN_MAX = 12


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register ``openqci scenario`` with its verbs."""
    parser = subparsers.add_parser("scenario", help="check and list scenarios")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    check = verbs.add_parser("check", help="explain everything that is wrong with a scenario")
    check.add_argument("scenario", metavar="DIR|NAME", help="a folder, or the name of a shipped scenario")
    check.add_argument("--json", action="store_true", help="print the result as one JSON document")
    check.set_defaults(run=run_check)

    listing = verbs.add_parser("list", help="list the scenarios that are shipped")
    listing.add_argument("--json", action="store_true", help="print them as one JSON document")
    listing.set_defaults(run=run_list)

    schema = verbs.add_parser("schema", help="print the JSON Schema of a scenario's files")
    schema.add_argument("name", metavar="NAME", nargs="?", choices=SCHEMA_NAMES, help=", ".join(SCHEMA_NAMES))
    schema.set_defaults(run=run_schema)


def run_check(args: argparse.Namespace) -> int:
    """Print every fault, or what the scenario amounts to; 0 if it is good, 1 if it has faults.

    Raises
    ------
    ScenarioNotFound
        There is nothing to check; the command ends with 2.
    """
    try:
        network = load_scenario(args.scenario)
    except ScenarioNotFound:
        raise
    except ConfigurationError as error:
        faults = [fault for fault in error.faults if isinstance(fault, Fault)]
        report: dict[str, Any] = {"good": False, "faults": [fault_facts(fault) for fault in faults]}
        print(json.dumps(report, indent=2) if args.json else faults_as_text(faults))
        return FAULTS_FOUND
    report = {"good": True, "faults": [], "summary": summary(network)}
    print(json.dumps(report, indent=2) if args.json else summary_as_text(network))
    return GOOD


def run_list(args: argparse.Namespace) -> int:
    """Print name, title and size of each shipped scenario."""
    summaries = [summary(load_scenario(name)) for name in scenario_names()]
    if args.json:
        print(json.dumps(summaries, indent=2))
    else:
        for facts in summaries:
            print(f"{facts['name']:<10} {facts['nodes']:>5} nodes {facts['hops']:>5} hops  {facts['title']}")
    return GOOD


def run_schema(args: argparse.Namespace) -> int:
    """Print one schema, or all of them as one JSON object by name."""
    schema = (
        scenario_schema(args.name) if args.name else {name: scenario_schema(name) for name in SCHEMA_NAMES}
    )
    print(json.dumps(schema, indent=2, ensure_ascii=False))
    return GOOD


def fault_facts(fault: Fault) -> dict[str, str | int]:
    """Return a fault with stable names; line 0 if it belongs to no line."""
    line = fault.line if isinstance(fault, LocatedFault) else 0
    return {"file": fault.file, "line": line, "path": fault.path, "message": fault.message}


def faults_as_text(faults: list[Fault]) -> str:
    """Return one line per fault and their number."""
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return "\n".join([*map(str, faults), count])


def summary(network: Network) -> dict[str, Any]:
    """Return what a network amounts to."""
    generated = sum(site.generated for site in network.sites.values())
    return {
        "name": network.name,
        "title": network.title,
        "digest": network.digest,
        "sites": len(network.sites) - generated,
        "trusted_nodes_generated": generated - len(network.borders),
        "border_nodes": len(network.borders),
        "nodes": len(network.sites),
        "hops": len(network.hops),
        "domains": len(network.domains),
        "fibre_km": round(sum(hop.length_km for hop in network.hops.values()), 1),
        "longest_hop_km": round(max((hop.length_km for hop in network.hops.values()), default=0.0), 1),
        "connected_parts": len(network.islands()),
        "unreached_sites": list(network.unreached),
        "saes": len(network.saes),
        "flows": len(network.flows),
        "keys_per_s": round(sum(flow.keys_per_s for flow in network.flows), 6),
    }


def summary_as_text(network: Network) -> str:
    """Return the summary as a few lines for people."""
    facts = summary(network)
    unreached = facts["unreached_sites"]
    shown = ", ".join(unreached[:UNREACHED_SHOWN_MAX]) + (
        ", ..." if len(unreached) > UNREACHED_SHOWN_MAX else ""
    )
    return "\n".join(
        [
            f"{facts['name']}: good. {facts['title']}",
            f"{facts['nodes']} nodes in {facts['domains']} domains: {facts['sites']} sites, "
            f"trusted nodes on long links: {facts['trusted_nodes_generated']}, "
            f"border nodes: {facts['border_nodes']}",
            f"{facts['hops']} QKD hops over {facts['fibre_km']:,.1f} km of fibre, "
            f"the longest {facts['longest_hop_km']:g} km",
            f"{facts['saes']} SAEs, {facts['flows']} flows, {facts['keys_per_s']:g} keys/s",
            f"parts that fibre joins: {facts['connected_parts']}; "
            + (f"{len(unreached)} sites without a hop: {shown}" if unreached else "every site has a hop"),
        ]
    )
