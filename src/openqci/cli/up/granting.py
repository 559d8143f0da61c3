"""What each flow of a live network gets: admission by what its hops make, and by what this machine distils.

A module of a real hop makes key whatever the others do. In the twin all hops share the processors that
distil: so their speed is measured first, and admission counts it as one budget of all hops together. Flows
whose class allows it are stretched until the whole can be served.
"""

import asyncio
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from openqci.cli.admission import decide
from openqci.cli.up.workers import BlockWorkers
from openqci.control import service_classes
from openqci.distillation import AUTHENTICATION_KEY_BYTES
from openqci.links import forecast
from openqci.network import Flow, Network
from openqci.twin.block import BlockOrder

PROMISED_PART = 0.5
"""Part of what the processors distil, when they do nothing else, that flows may count on: they also relay,
answer applications and draw photons for what a fault has emptied."""

ROUNDS = 2
"""Blocks of each worker that are timed, after one that compiles its kernels."""

PADS_AT_ONCE = 8
"""Keys that an application which uses them as one-time pads asks for at once."""

STOCK_KEYS_MIN = 4
"""Stock at which a pair is refilled, or what its flow asks for at once if that is more; it is filled to twice
that. A network that serves thousands of pairs does not distil stocks that last for hours."""


@dataclass(frozen=True)
class GrantedFlow:
    """A flow at the rate that it was granted; it asks for ``keys_at_once`` each time.

    ``stock_keys`` says at which stock its pair is refilled and up to which; None is the network's rule.
    """

    flow: Flow
    keys_at_once: int = 1
    stock_keys: tuple[int, int] | None = None

    @property
    def interval_s(self) -> float:
        """The time from one request to the next."""
        return self.keys_at_once / self.flow.keys_per_s


@dataclass(frozen=True)
class Granted:
    """What admission has decided: which flows are served, how many stretched, why others are not."""

    flows: tuple[GrantedFlow, ...]
    stretched: int
    refused: dict[str, str]
    wanted_bps: float
    granted_bps: float


def as_listed(flows: Iterable[Flow]) -> tuple[GrantedFlow, ...]:
    """Return flows at the rates that a scenario gives them, a key at a time."""
    return tuple(GrantedFlow(flow) for flow in flows if flow.keys_per_s > 0)


def granted(network: Network, total_bps: float) -> Granted:
    """Decide on all flows of a network whose hops together bring ``total_bps`` of link key."""
    asked, found = decide(network, 1.0, total_bps)
    flow_of = {f"{flow.master} > {flow.slave}": flow for flow in network.flows}
    pads = {name for name, service in service_classes().items() if service.one_time_pad}
    grants = [found.grant(each.flow_id) for each in asked]
    flows = []
    for grant in grants:
        if grant.admitted:
            flow = flow_of[grant.flow_id]
            served = msgspec.structs.replace(flow, keys_per_s=grant.granted_bps / flow.key_size_bits)
            at_once = PADS_AT_ONCE if flow.use_case in pads else 1
            low_keys = max(STOCK_KEYS_MIN, at_once)
            flows.append(GrantedFlow(served, at_once, (low_keys, 2 * low_keys)))
    return Granted(
        flows=tuple(flows),
        stretched=sum(grant.stretched for grant in grants),
        refused={grant.flow_id: grant.reason for grant in grants if not grant.admitted},
        wanted_bps=sum(each.wanted_bps for each in asked),
        granted_bps=sum(grant.granted_bps for grant in grants),
    )


async def distilled_bps(workers: BlockWorkers, network: Network) -> float:
    """Measure what this machine distils with nothing else to do, in secret bits a second.

    The blocks are those of the hop in the middle by rate. They are real, and thrown away: their
    authentication key is made up here, so that no hop spends any.
    """
    order = _trial_order(network)
    await asyncio.gather(*(workers.distil(_again(order)) for _ in range(workers.workers)))
    began_s = time.monotonic()
    made = await asyncio.gather(*(workers.distil(_again(order)) for _ in range(ROUNDS * workers.workers)))
    return sum(8 * len(outcome.key_a) for outcome in made) / (time.monotonic() - began_s)


def _trial_order(network: Network) -> BlockOrder:
    forecasts = [(hop, forecast(network.devices[hop.device], hop)) for hop in network.hops.values()]
    making = [
        (each.secret_key_rate_bps, hop, each) for hop, each in forecasts if each.secret_key_rate_bps > 0
    ]
    _, hop, expected = sorted(making, key=lambda row: row[0])[len(making) // 2]
    return BlockOrder(hop, network.devices[hop.device], 0, expected.block_detections, 0, b"", b"")


def _again(order: BlockOrder) -> BlockOrder:
    key = secrets.token_bytes(AUTHENTICATION_KEY_BYTES)
    return msgspec.structs.replace(
        order, photon_seed=secrets.randbits(64), authentication_key_a=key, authentication_key_b=key
    )
