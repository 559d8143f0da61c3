"""How much key each state asks of the space segment: its flows to other states, class by class.

Flows inside a state run over its fibre. A key between two states costs both of them: the satellite shares key
with either, and the exclusive or of the two is what it sends down. Overseas territories ask for what the
catalogue's rule for them says, and their member state with them.
"""

from collections import defaultdict
from dataclasses import dataclass, field

from openqci.core.errors import ConfigurationError
from openqci.network import Network
from openqci.network.catalogue import catalogue_demand, catalogue_sites
from openqci.space.time_scales import DAY_S

LEVELS = (1, 2, 3, 4)
"""Level 1 is served first."""

LEVEL_WEIGHTS = {1: 8.0, 2: 4.0, 3: 2.0, 4: 1.0}
"""How much a state counts in a plan for having demand of a level; assumed."""

OVERSEAS_KIND = "overseas_node"


@dataclass(frozen=True)
class StateDemand:
    """What one state asks for.

    Attributes
    ----------
    state : str
        ISO 3166-1 alpha-2, territories by their own code.
    bits_per_s : dict of int to float
        By level.
    """

    state: str
    bits_per_s: dict[int, float] = field(default_factory=dict)

    @property
    def total_bits_per_s(self) -> float:
        return sum(self.bits_per_s.values())

    @property
    def bits_per_day(self) -> float:
        return self.total_bits_per_s * DAY_S

    @property
    def weight(self) -> float:
        """How much the state counts: the weights of the levels at which it asks for anything, 0 to 1."""
        asked = sum(LEVEL_WEIGHTS[level] for level, rate in self.bits_per_s.items() if rate > 0)
        return asked / sum(LEVEL_WEIGHTS.values())

    def served(self, bits_per_s: float) -> dict[int, float]:
        """Return the share of each level's demand that so much key serves, level 1 first."""
        shares, left = {}, bits_per_s
        for level in sorted(self.bits_per_s):
            asked = self.bits_per_s[level]
            shares[level] = min(1.0, left / asked) if asked > 0 else 1.0
            left = max(0.0, left - asked)
        return shares


def state_demands(network: Network) -> dict[str, StateDemand]:
    """Return the demand of each state and territory of a network.

    Raises
    ------
    ConfigurationError
        For a network in which no flow joins two states.
    """
    levels = {each.id: each.level for each in catalogue_demand().use_cases}
    asked: dict[str, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for flow in network.flows:
        ends = {network.sites[network.saes[each].site].country for each in (flow.master, flow.slave)}
        for country in ends if len(ends) > 1 else ():
            level = levels.get(flow.use_case, LEVELS[-1])
            asked[country][level] += flow.keys_per_s * flow.key_size_bits
    if not asked:
        raise ConfigurationError(
            f"scenario {network.name} has no flow between two states; expected one, as eu27 has"
        )
    for territory, member_state in overseas(network):
        for level, rate in overseas_rates(levels).items():
            asked[territory][level] += rate
            asked[member_state][level] += rate
    return {state: StateDemand(state, dict(sorted(by_level.items()))) for state, by_level in asked.items()}


def overseas(network: Network) -> list[tuple[str, str]]:
    """Return the territories of a network with a ground station or a town, and their member states."""
    member_state = {
        site.country: site.member_state for site in catalogue_sites() if site.kind == OVERSEAS_KIND
    }
    territories = sorted({each.country for each in network.sites.values()} & set(member_state))
    return [(each, member_state[each]) for each in territories if each != member_state[each]]


def overseas_rates(levels: dict[str, int]) -> dict[int, float]:
    """Return what one territory asks for, by level."""
    rates = {each.id: each.bits_per_s for each in catalogue_demand().use_cases}
    found: dict[int, float] = defaultdict(float)
    for use_case, tunnels in catalogue_demand().overseas_rule.use_cases.items():
        found[levels[use_case]] += tunnels * rates[use_case]
    return dict(found)
