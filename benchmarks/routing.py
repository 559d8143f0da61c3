"""Routes over the whole candidate network: one, two that share no node, and between all pairs of cities.

The same two disjoint routes are asked of networkx's network simplex on the same graph of split nodes; both
must find the same total length. The single route is asked of networkx's Dijkstra. "With costs asked anew" has
every hop priced by a function of Python for that one question, as a look at a network that has just changed.
"Composed" is what the twin does: 27 controllers that see their own interior, and an orchestrator that sees
gates, each question with nothing kept of the one before but prices and offers.
"""

import networkx
from _measure import medians_s, tell

from openqci.cli.domains import interiors_of, offer_of
from openqci.control import Prices, Router
from openqci.control.composed_routes import Composer
from openqci.control.gateways import Gateways
from openqci.core.identifiers import LinkId, SiteId, is_border
from openqci.network import Network, load_scenario

ENDS = SiteId("pt-lisbon"), SiteId("pl-warsaw")
CITIES = 286
"""Cities with fibre in the candidate network when the target was set; the scenario has more by now."""


def metres(network: Network, link: LinkId) -> float:
    """Return the length of a hop; both sides of a border stand in one site."""
    return 0.0 if is_border(link) else float(round(1000 * network.hops[link].length_km))


def split_graph(network: Network) -> "networkx.DiGraph[tuple[str, str]]":
    """Return the graph of split nodes for networkx, with demand for two routes."""
    graph: networkx.DiGraph[tuple[str, str]] = networkx.DiGraph()
    for site in network.sites:
        graph.add_edge((site, "in"), (site, "out"), capacity=2 if site in ENDS else 1, weight=0)
    for link, *ends in network.edges():
        for a, b in (ends, ends[::-1]):
            graph.add_edge((a, "out"), (b, "in"), capacity=1, weight=int(metres(network, link)))
    graph.add_node((ENDS[0], "out"), demand=-2)
    graph.add_node((ENDS[1], "in"), demand=2)
    return graph


def plain_graph(network: Network) -> "networkx.DiGraph[str]":
    graph: networkx.DiGraph[str] = networkx.DiGraph()
    for link, a, b in network.edges():
        graph.add_edge(a, b, weight=metres(network, link))
        graph.add_edge(b, a, weight=metres(network, link))
    return graph


def all_pairs(router: Router, prices: Prices, cities: list[SiteId]) -> int:
    """Return how many pairs of cities have a route, after finding the whole route of each."""
    trees = [router.tree(city, prices) for city in cities]
    return sum(tree.route_to(city) is not None for tree in trees for city in cities)


def composer_of(network: Network) -> Composer:
    """Return what composes routes of the network's domains, with the same costs."""
    interiors = interiors_of(network)
    for each in interiors.values():
        each.price(lambda link, _: metres(network, link) / 1000)
    offers = {name: offer_of(each, 1, 0.0, 1e9, lambda link: 1.0) for name, each in interiors.items()}
    gateways = Gateways(offers)
    return Composer(interiors, lambda: gateways)


def composed(composer: Composer, k: int) -> object:
    for each in composer.interiors.values():
        each.forget()
    return composer.routes(*ENDS, k)


def main() -> None:
    network = load_scenario("eu27")
    composer = composer_of(network)
    router = Router(network.edges(), network.sites)
    prices = router.price(lambda link, _: metres(network, link) / 1000)
    cities = [site for site in network.sites if not network.sites[site].generated][:CITIES]
    split, plain = split_graph(network), plain_graph(network)

    def two_asked_anew() -> object:
        return router.disjoint_routes(*ENDS, 2, lambda link, _: metres(network, link) / 1000)

    taken = medians_s(
        {
            "one": lambda: router.route(*ENDS, prices),
            "two": lambda: router.disjoint_routes(*ENDS, 2, prices),
            "three": lambda: router.disjoint_routes(*ENDS, 3, prices),
            "anew": two_asked_anew,
            "composed one": lambda: composed(composer, 1),
            "composed two": lambda: composed(composer, 2),
            "networkx one": lambda: networkx.dijkstra_path(plain, *ENDS),
            "networkx two": lambda: networkx.network_simplex(split),
        },
        rounds=15,
    )
    pairs = medians_s({"all": lambda: all_pairs(router, prices, cities)}, rounds=3)
    routes = router.disjoint_routes(*ENDS, 2, prices)
    found = sum(metres(network, link) for route in routes for link in route.links)
    least, _ = networkx.network_simplex(split)
    if found != least:
        raise SystemExit(f"the two routes have {found:.0f} m together, networkx finds {least}")
    figures = {
        "nodes": float(len(network.sites)),
        "hops": float(len(network.hops)),
        "ms per route": 1e3 * taken["one"],
        "ms per two disjoint routes": 1e3 * taken["two"],
        "ms per three disjoint routes": 1e3 * taken["three"],
        "ms per two, with costs asked anew": 1e3 * taken["anew"],
        "composed by 27 domains: ms per route": 1e3 * taken["composed one"],
        "composed by 27 domains: ms per two disjoint routes": 1e3 * taken["composed two"],
        f"s for all routes between {len(cities)} cities": pairs["all"],
        "networkx: ms per route": 1e3 * taken["networkx one"],
        "networkx: ms per two disjoint routes": 1e3 * taken["networkx two"],
        "ratio, one route": taken["networkx one"] / taken["one"],
        "ratio, two routes": taken["networkx two"] / taken["two"],
    }
    tell(f"routing: {ENDS[0]} to {ENDS[1]} over {network.name}", figures)


if __name__ == "__main__":
    main()
