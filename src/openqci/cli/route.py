"""``openqci route``: which routes lead from one site to another now, hop by hop, and why not others."""

import argparse
import difflib
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openqci.cli.key import folded
from openqci.core.errors import ConfigurationError, Fault
from openqci.core.identifiers import LinkId, SiteId, is_border

if TYPE_CHECKING:
    from openqci.control import RouteAnswer, RoutePolicy
    from openqci.control.explanation import Closed, PathAnswer, RefusedRoute
    from openqci.network import Network, Site

FOUND, NOT_FOUND = 0, 1

AVOIDED = {
    "country": "avoid_countries",
    "domain": "avoid_domains",
    "operator": "avoid_operators",
    "site": "avoid_sites",
    "link": "avoid_links",
}
"""What ``--avoid KIND:NAME`` may name, and the field of the policy."""

NAMES_SHOWN = 3


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register ``openqci route``."""
    parser = subparsers.add_parser(
        "route",
        help="show the routes between two sites, and why not others",
        description="Show which routes lead from one site to another, and why others are not taken.",
    )
    parser.add_argument("--from", required=True, dest="source", metavar="SITE", help="site ID or capital")
    parser.add_argument("--to", required=True, dest="target", metavar="SITE", help="site ID or capital")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--scenario", metavar="NAME|DIR", help="a network that need not run: rates, no stocks (default eu27)"
    )
    where.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="a network that runs or rests, with stocks"
    )
    parser.add_argument("--paths", type=_paths, default=1, metavar="K", help="how many disjoint routes (1)")
    parser.add_argument(
        "--avoid",
        action="append",
        nargs="+",
        default=[],
        metavar="KIND:NAME",
        help="country:DE, domain:PL, operator:NAME, site:SITE, link:LINK; several times if you like",
    )
    parser.add_argument("--share-nodes", action="store_true", help="routes may share nodes, but no link")
    parser.add_argument("--hops-max", type=_count, metavar="N", help="longest route")
    parser.add_argument("--epsilon-max", type=_epsilon, metavar="X", help="largest epsilon, over all routes")
    parser.add_argument(
        "--trust-min", type=_trust, default=0, metavar="N", help="lowest trust class of a node"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the answer; 0 if all routes asked for were found, 1 if not."""
    from openqci.cli.domains import composer_of
    from openqci.cli.route_figures import figures_of_data_dir, figures_of_scenario
    from openqci.control import RouteAdvisor, RouteQuestion
    from openqci.control.cost import CostRule

    if args.data_dir is not None:
        figures = figures_of_data_dir(args.data_dir)
    else:
        figures = figures_of_scenario(args.scenario or "eu27")
    network = figures.network
    question = RouteQuestion(
        site_named(network, args.source, "--from"),
        site_named(network, args.target, "--to"),
        args.paths,
        policy_asked_for(args, network),
    )
    rule = CostRule(network.stock.low_bits // 8)
    composer = composer_of(network, figures.hops, rule)
    advisor = RouteAdvisor(figures.nodes, figures.hops, rule, composer)
    answer = advisor.answer(question)
    if args.json:
        print(json.dumps(report_of(answer, figures.state, network), indent=2))
    else:
        print(as_text(answer, figures.state, network))
    return FOUND if answer.complete else NOT_FOUND


def site_named(network: "Network", text: str, option: str) -> SiteId:
    """Return the site of an ID or of a capital's name; ConfigurationError names those that look alike."""
    if SiteId(text) in network.sites:
        return SiteId(text)
    wanted = plain(text)
    capitals = [site for site in network.sites.values() if site.kind == "capital_node"]
    found = [site for site in capitals if plain(site.name) == wanted]
    if len(found) == 1:
        return found[0].site_id
    if found:
        ids = ", ".join(site.site_id for site in found)
        raise ConfigurationError(Fault(option, "", f"{text!r} names several capitals: {ids}; give the ID"))
    raise ConfigurationError(
        Fault(option, "", f"{text!r} is no site of {network.name}{_alike(text, network)}")
    )


def plain(name: str) -> str:
    """Return a name without case and accents.

    >>> plain("Győr"), plain("LUXEMBOURG")
    ('gyor', 'luxembourg')
    """
    parts = unicodedata.normalize("NFKD", name).casefold()
    return "".join(letter for letter in parts if not unicodedata.combining(letter))


def _alike(text: str, network: "Network") -> str:
    named = {plain(site.name): site.site_id for site in network.sites.values() if not site.generated}
    ids = [site for site in network.sites if not network.sites[site].generated]
    close = [named[name] for name in difflib.get_close_matches(plain(text), named, n=2)]
    close += [SiteId(site) for site in difflib.get_close_matches(text, ids, n=2) if site not in close]
    return f"; did you mean {' or '.join(close[:3])}?" if close else "; `openqci scenario check` counts them"


def policy_asked_for(args: argparse.Namespace, network: "Network") -> "RoutePolicy":
    """Return the policy of the command line; ConfigurationError names every wish that means nothing here."""
    from openqci.control import RoutePolicy

    wishes = [wish for group in args.avoid for wish in group]
    known = known_names(network)
    faults = [fault for wish in wishes if (fault := _fault_of(wish, known)) is not None]
    if faults:
        raise ConfigurationError(*faults)
    pairs = [wish.partition(":")[::2] for wish in wishes]

    def avoided(kind: str) -> frozenset[str]:
        return frozenset(name for each, name in pairs if each == kind)

    return RoutePolicy(
        avoid_countries=avoided("country"),
        avoid_domains=avoided("domain"),
        avoid_operators=avoided("operator"),
        avoid_sites=avoided("site"),
        avoid_links=avoided("link"),
        node_disjoint=not args.share_nodes,
        hops_max=args.hops_max,
        epsilon_max=args.epsilon_max,
        trust_min=args.trust_min,
    )


def known_names(network: "Network") -> dict[str, set[str]]:
    """Return what can be avoided in a network, by kind."""
    sites, hops = network.sites.values(), network.hops.values()
    return {
        "country": {site.country for site in sites},
        "domain": {str(site.domain) for site in sites},
        "operator": {site.operator or str(site.domain) for site in sites},
        "site": {str(site.site_id) for site in sites},
        "link": {link for link, *_ in network.edges()} | {hop.parent_link for hop in hops},
    }


def _fault_of(wish: str, known: Mapping[str, set[str]]) -> Fault | None:
    """Return what is wrong with a wish: a misspelt country would be avoided in vain."""
    kind, colon, name = wish.partition(":")
    if kind not in known or not colon:
        return Fault("--avoid", wish, f"expected KIND:NAME, with one of {', '.join(known)} as KIND")
    if name in known[kind]:
        return None
    close = difflib.get_close_matches(name, known[kind], n=3)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return Fault("--avoid", wish, f"this network has no {kind} {name!r}{hint}")


def report_of(answer: "RouteAnswer", state: str, network: "Network") -> dict[str, Any]:
    """Return the document that ``--json`` prints."""
    import msgspec

    question = answer.question
    # Sets have no order of their own; a document that is the same for the same question has.
    policy = {
        name: sorted(value) if isinstance(value, frozenset) else value
        for name, value in msgspec.structs.asdict(question.policy).items()
    }
    return {
        "scenario": network.name,
        "figures": state,
        "from": question.source,
        "to": question.target,
        "paths_wanted": question.paths,
        "policy": policy,
        "complete": answer.complete,
        "verdict": answer.verdict,
        "paths": [_path_facts(path, network) for path in answer.paths],
        "refused": msgspec.to_builtins(answer.refused),
        "closed": msgspec.to_builtins(answer.closed),
    }


def _path_facts(path: "PathAnswer", network: "Network") -> dict[str, Any]:
    import msgspec

    facts: dict[str, Any] = msgspec.to_builtins(path)
    for hop in facts["hops"]:
        hop["border"] = is_border(hop["link_id"])
        hop["length_km"] = 0.0 if hop["border"] else network.hops[LinkId(hop["link_id"])].length_km
    facts["borders"] = [hop["link_id"] for hop in facts["hops"] if hop["border"]]
    return facts | {"hop_count": qkd_hops(hop.link_id for hop in path.hops)}


def qkd_hops(links: Iterable[str]) -> int:
    """Return how many links of a route are QKD hops, and not borders inside a site."""
    return sum(not is_border(link) for link in links)


def as_text(answer: "RouteAnswer", state: str, network: "Network") -> str:
    """Return the answer for a reader."""
    question = answer.question
    ends = f"{_name(network, question.source)} to {_name(network, question.target)}"
    lines = [f"{ends} over {network.name}, {state}: {answer.verdict}"]
    for number, path in enumerate(answer.paths, start=1):
        lines += ["", *_path_lines(number, path, network)]
    if answer.refused:
        lines += ["", "not taken"]
    for refused in answer.refused:
        lines += _refused_lines(refused)
    if answer.closed:
        lines += ["", "closed to every route"]
        lines += [_closed_line(each) for each in answer.closed]
    return "\n".join(lines)


def _name(network: "Network", site: SiteId) -> str:
    known: Site | None = network.sites.get(site)
    return known.name if known else site


def _path_lines(number: int, path: "PathAnswer", network: "Network") -> Iterator[str]:
    hops = _hops(qkd_hops(hop.link_id for hop in path.hops))
    yield (
        f"path {number}: {hops}, cost {path.cost:.2f}, epsilon {path.epsilon:.2g}, "
        f"weakest rate {_rate(path.rate_bps)}, poorest stock {_stock(path.stock_bytes)}"
    )
    if len(path.domains) > 1:
        borders = [hop.link_id for hop in path.hops if is_border(hop.link_id)]
        yield f"  domains {' > '.join(path.domains)}, over the borders {', '.join(borders)}"
    yield f"  {' > '.join(folded(list(path.sites)))}"
    yield f"  {'hop':44}{'km':>7}{'bit/s':>11}{'stock bytes':>13}{'epsilon':>10}{'cost':>7}"
    for hop in path.hops:
        if is_border(hop.link_id):
            domains = [network.sites[site].domain for site in (hop.sender, hop.receiver)]
            yield f"  {hop.link_id:44} border, {domains[0]} to {domains[1]}"
            continue
        length_km = network.hops[hop.link_id].length_km
        stock = "-" if hop.stock_bytes is None else f"{hop.stock_bytes:,}"
        rate = "-" if hop.rate_bps is None else f"{hop.rate_bps:,.0f}"
        yield f"  {hop.link_id:44}{length_km:7.1f}{rate:>11}{stock:>13}{hop.epsilon:10.1e}{hop.cost:7.2f}"


def _refused_lines(refused: "RefusedRoute") -> Iterable[str]:
    cost = "" if refused.cost is None else f", cost {refused.cost:.2f}"
    yield f"  {' > '.join(folded(list(refused.sites)))} ({_hops(qkd_hops(refused.links))}{cost})"
    yield from (f"    {reason}" for reason in refused.reasons)


def _closed_line(closed: "Closed") -> str:
    names = ", ".join(closed.names[:NAMES_SHOWN])
    more = f" and {closed.count - NAMES_SHOWN} more" if closed.count > NAMES_SHOWN else ""
    unit = closed.kind if closed.count == 1 else f"{closed.kind}s"
    return f"  {closed.count} {unit}: {closed.reason}: {names}{more}"


def _hops(count: int) -> str:
    return "1 hop" if count == 1 else f"{count} hops"


def _rate(rate_bps: float | None) -> str:
    return "not known" if rate_bps is None else f"{rate_bps:,.0f} bit/s"


def _stock(stock_bytes: int | None) -> str:
    return "not known" if stock_bytes is None else f"{stock_bytes:,} bytes"


def _paths(text: str) -> int:
    from openqci.control.routing import PATHS_MAX

    return _within(text, 1, PATHS_MAX)


def _count(text: str) -> int:
    return _within(text, 1, 256)


def _trust(text: str) -> int:
    return _within(text, 0, 9)


def _within(text: str, low: int, high: int) -> int:
    number = int(text)
    if not low <= number <= high:
        raise argparse.ArgumentTypeError(f"{text} is out of range; expected {low} to {high}")
    return number


def _epsilon(text: str) -> float:
    number = float(text)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"{text} is out of range; expected above 0 and below 1")
    return number
