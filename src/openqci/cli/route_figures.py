"""Where ``openqci route`` has its figures from: a network that runs, one that rests, or a scenario alone."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openqci.cli.domains import node_facts
from openqci.cli.status import resting_status, running_status
from openqci.control import HopReading, NodeFacts
from openqci.core.identifiers import LinkId
from openqci.links import forecast
from openqci.network import Hop, Network, load_scenario
from openqci.services.data_directory import DataDirectory
from openqci.twin.flights import flown
from openqci.twin.hops import epsilon_of

RUNNING, RESTING, SCENARIO = "running", "at rest", "by forecast alone"


@dataclass(frozen=True)
class NetworkFigures:
    """A network with its hops as they stand; ``state`` says how much is known of them."""

    network: Network
    state: str
    hops: tuple[HopReading, ...]

    @property
    def nodes(self) -> Iterable[NodeFacts]:
        return map(node_facts, self.network.sites.values())


def figures_of_scenario(name: str) -> NetworkFigures:
    """Return a scenario's hops with their rates in closed form; nothing is known of stocks."""
    network = load_scenario(name)
    hops = [_forecast(network, hop) for hop in network.hops.values()]
    return NetworkFigures(network, SCENARIO, (*hops, *borders_of(network)))


def borders_of(network: Network) -> Iterator[HopReading]:
    """Yield the borders as routes see them: no key is spent there."""
    for border in network.borders:
        yield HopReading(border.link_id, border.node, border.partner)


def figures_of_data_dir(data_dir: Path) -> NetworkFigures:
    """Return the figures of a network by its running process, or by its store."""
    report = running_status(data_dir)
    state = RUNNING if report is not None else RESTING
    network, _ = flown(load_scenario(DataDirectory.open_existing(data_dir).scenario))
    report = report or resting_status(data_dir)
    hops = [_reading(network, row) for row in report["hops"]]
    return NetworkFigures(network, state, (*hops, *borders_of(network)))


def _forecast(network: Network, hop: Hop) -> HopReading:
    device = network.devices[hop.device]
    rate_bps = forecast(device, hop).secret_key_rate_bps
    return HopReading(
        link_id=hop.link_id,
        a=hop.a,
        b=hop.b,
        rate_bps=rate_bps,
        epsilon=epsilon_of(device),
        trouble="" if rate_bps > 0 else "its devices yield no key at this loss",
        parent_link=hop.parent_link,
    )


def _reading(network: Network, row: Mapping[str, Any]) -> HopReading:
    """Return a hop of the status document."""
    hop = network.hops[LinkId(row["link_id"])]
    stocks = row["stock_by_initiator"]
    return HopReading(
        link_id=hop.link_id,
        a=hop.a,
        b=hop.b,
        rate_bps=row["possible_bps"],
        stock_bytes=(stocks[hop.a] // 8, stocks[hop.b] // 8),
        epsilon=row["epsilon_per_block"],
        trouble=row["trouble"],
        parent_link=hop.parent_link,
    )
