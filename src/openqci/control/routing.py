"""Routes over the live network: the cheapest way from one node to another at this moment.

Not a forecast and not a reservation: whoever asks says what each hop costs now, and counts what it has
promised to other relays. A hop that is down costs infinity. A hop that lacks key should cost more but not
infinity: then a route goes round it where that is not far, and where there is no other way the route still
says which hops must make key.

>>> router = Router([(LinkId("a--b"), SiteId("a"), SiteId("b")), (LinkId("b--c"), SiteId("b"), SiteId("c"))])
>>> router.route(SiteId("a"), SiteId("c"), lambda link_id, sender: 1.0).links
('a--b', 'b--c')
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import inf

import rustworkx

from openqci.core.identifiers import LinkId, SiteId

Cost = Callable[[LinkId, SiteId], float]
"""Cost of one hop when ``SiteId`` sends over it: positive, far below 1e12; ``inf`` if it must not be used."""

COST_MAX = 1e12
"""Stands for infinity inside the graph search, which needs finite sums."""


@dataclass(frozen=True)
class Route:
    """A way through the network: n + 1 nodes and the n links between them."""

    sites: tuple[SiteId, ...]
    links: tuple[LinkId, ...]


class Router:
    """Finds routes; the network's shape is given once, the costs with each question.

    Parameters
    ----------
    hops : iterable of (link, end, other end)
        Every QKD hop of the network. Several links may join the same two nodes.
    sites : iterable of SiteId
        Further nodes to know of, with or without a hop; only :meth:`unreachable_from` speaks of them.
    """

    def __init__(self, hops: Iterable[tuple[LinkId, SiteId, SiteId]], sites: Iterable[SiteId] = ()) -> None:
        self._graph: rustworkx.PyDiGraph[SiteId, tuple[LinkId, SiteId]] = rustworkx.PyDiGraph(multigraph=True)
        self._index: dict[SiteId, int] = {}
        for link_id, a, b in hops:
            for sender, receiver in ((a, b), (b, a)):
                self._graph.add_edge(self._node(sender), self._node(receiver), (link_id, sender))
        for site in sites:
            self._node(site)

    def route(self, source: SiteId, target: SiteId, cost: Cost) -> Route | None:
        """Return the cheapest route, or None if there is none at finite cost or no way to go at all.

        Among routes of equal cost the choice is the same in every process that was given the hops in the
        same order; among parallel links of equal cost it is the first by name.
        """
        start, end = self._index.get(source), self._index.get(target)
        if start is None or end is None or source == target:
            return None
        paths = rustworkx.dijkstra_shortest_paths(
            self._graph, start, target=end, weight_fn=lambda edge: min(cost(*edge), COST_MAX)
        )
        if end not in paths:
            return None
        nodes = list(paths[end])
        links = [self._cheapest_link(a, b, cost) for a, b in pairwise(nodes)]
        if any(link is None for link in links):
            return None
        return Route(tuple(self._graph[node] for node in nodes), tuple(link for link in links if link))

    def unreachable_from(self, source: SiteId, cost: Cost = lambda link_id, sender: 1.0) -> frozenset[SiteId]:
        """Return the known nodes to which no route of finite cost leads: all, if ``source`` is not known."""
        start = self._index.get(source)
        reached = {source}
        if start is not None:
            lengths = rustworkx.dijkstra_shortest_path_lengths(
                self._graph, start, lambda edge: min(cost(*edge), COST_MAX)
            )
            reached |= {self._graph[node] for node, length in lengths.items() if length < COST_MAX}
        return frozenset(self._index.keys() - reached)

    def connected(self, source: SiteId, target: SiteId) -> bool:
        """Return whether any chain of hops joins the two nodes, whatever it costs."""
        start, end = self._index.get(source), self._index.get(target)
        return start is not None and end is not None and rustworkx.has_path(self._graph, start, end)

    def _node(self, site: SiteId) -> int:
        if site not in self._index:
            self._index[site] = self._graph.add_node(site)
        return self._index[site]

    def _cheapest_link(self, a: int, b: int, cost: Cost) -> LinkId | None:
        """Return the cheapest of the parallel links between neighbours, None if none may be used."""
        edges = self._graph.get_all_edge_data(a, b)
        best = min(edges, key=lambda edge: (cost(*edge), edge[0]))
        return best[0] if cost(*best) < inf else None
