"""The catalogue's model of demand, laid over a network: which applications there are, and what they ask for.

Each flow rule joins a capital with the sites of one kind in its country, with other capitals, or with the
institutions in Brussels. How many sites of a kind a country has is in the catalogue; they are placed on the
nodes that a network has there: the first at the country's known site of that kind, the others on its towns in
turn. One line of the model, such as three tunnels of a class between two sites, is one flow.

>>> from openqci.network import load_scenario
>>> network = load_scenario("eu27")
>>> saes, flows = modelled_demand(network.sites, network.hops.values())
>>> len(saes), len(flows)
(1137, 3241)
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations, cycle, islice

from openqci.core.identifiers import SaeId, SiteId
from openqci.network.catalogue import DemandModel, FlowRule, catalogue_demand, catalogue_sites
from openqci.network.model import Flow, Hop, Sae, Site

KEY_BITS = 256

INSTITUTIONS = SiteId("be-brussels")
INSTITUTIONS_OF_THEIR_OWN_HOST = SiteId("eu-commission")
"""Belgium's flow to the institutions in its own capital ends at one of them: a pair needs two sites."""

KIND_OF_SITE = {
    "government_site": "government",
    "data_centre": "data_centre",
    "hospital": "hospital",
    "energy_control": "energy_control",
}
"""Names of the flow rules' ends, and of the counts and the catalogue's categories."""


def modelled_demand(
    sites: Mapping[SiteId, Site], hops: Iterable[Hop]
) -> tuple[tuple[Sae, ...], tuple[Flow, ...]]:
    """Return the applications and flows of the model.

    A capital has one application per class; so has each modelled site one for all its classes. Flows between
    parts that no fibre joins are there too: it is for admission to say that they get nothing.
    """
    placed = _Placing(sites, hops)
    flows = tuple(flow for rule in catalogue_demand().flow_rules for flow in placed.flows(rule))
    return tuple(Sae(sae, site) for sae, site in sorted(placed.saes.items())), flows


class _Placing:
    """Places applications on sites, as flows name them."""

    def __init__(self, sites: Mapping[SiteId, Site], hops: Iterable[Hop]) -> None:
        self.saes: dict[SaeId, SiteId] = {}
        self._model: DemandModel = catalogue_demand()
        self._bits_per_s = {each.id: each.bits_per_s for each in self._model.use_cases}
        joined = Counter(end for hop in hops for end in (hop.a, hop.b))
        self._sites = {site: facts for site, facts in sites.items() if joined[site] and not facts.generated}
        self._capitals = {
            facts.country: facts.site_id for facts in sites.values() if facts.kind == "capital_node"
        }
        self._category = {SiteId(site.id): site.category for site in catalogue_sites()}

    def flows(self, rule: FlowRule) -> Iterator[Flow]:
        """Yield the flows of one rule, each pair of ends with each of its classes."""
        for master_end, slave_end, slave_site in self._ends(rule):
            for use_case, tunnels in rule.use_cases.items():
                master = self._sae(f"{master_end}.{use_case}", master_end)
                slave_id = (
                    slave_end if slave_end not in self._capitals.values() else f"{slave_end}.{use_case}"
                )
                keys_per_s = tunnels * self._bits_per_s[use_case] / KEY_BITS
                yield Flow(master, self._sae(slave_id, slave_site), keys_per_s, KEY_BITS, use_case)

    def _sae(self, name: str, site: SiteId) -> SaeId:
        self.saes[SaeId(name)] = site
        return SaeId(name)

    def _ends(self, rule: FlowRule) -> Iterator[tuple[SiteId, str, SiteId]]:
        """Yield the capital that asks, the name of the other end, and the other end's site."""
        capitals = sorted(self._capitals.values())
        if rule.end in KIND_OF_SITE:
            for country in sorted(self._capitals):
                yield from self._national(country, KIND_OF_SITE[rule.end])
        elif rule.end == "every_other_capital":
            yield from ((a, b, b) for a, b in combinations(capitals, 2))
        elif rule.end == "neighbour_capital":
            for country, neighbour in self._model.tso_adjacency:
                a, b = self._capitals[country], self._capitals[neighbour]
                yield a, b, b
        elif rule.end == INSTITUTIONS:
            for capital in capitals:
                site = INSTITUTIONS if capital != INSTITUTIONS else INSTITUTIONS_OF_THEIR_OWN_HOST
                yield capital, f"{site}.institutions", site
        else:
            raise ValueError(f"flow rule {rule.id} leads to {rule.end}, which this model does not know")

    def _national(self, country: str, category: str) -> Iterator[tuple[SiteId, str, SiteId]]:
        count = int(self._model.strategic_site_counts[country][category])
        name = f"{country.lower()}-{category.replace('_', '-')}"
        for number, site in enumerate(islice(cycle(self._places(country, category)), count), start=1):
            yield self._capitals[country], f"{name}-{number:02}", site

    def _places(self, country: str, category: str) -> list[SiteId]:
        """Return where sites of a kind can be in a country: known ones of that kind first, then its towns."""
        here = [facts for facts in self._sites.values() if facts.country == country]
        known = [facts.site_id for facts in here if self._category.get(facts.site_id) == category]
        towns = [facts.site_id for facts in here if facts.kind == "trusted_node"]
        return known + towns
