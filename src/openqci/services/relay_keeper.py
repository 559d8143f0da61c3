"""Keeps the stocks of pairs whose slaves are served beyond this node's neighbours, by relays.

What a pair lacks and by which routes it comes is decided in :mod:`openqci.control.far_pairs`, from the signed
configuration of the domain and from what this node has met; what is done about it are steps inside
transactions (:mod:`openqci.delivery.far_ends`). All that is under way is in the store: a node that is killed
goes on from there.
"""

import logging
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from openqci.control.configuration import DomainConfiguration
from openqci.control.far_pairs import DomainRoutes, FarDemand, FarStock, batch_bytes, with_waiting
from openqci.control.routing import Route
from openqci.core.errors import KeyUnavailable
from openqci.core.identifiers import KmeId, LinkId, SaeId
from openqci.core.provenance import KeyPath
from openqci.crypto.hybrid import KemAlgorithm, KemPublicKey
from openqci.delivery import end_to_end, far_ends, peers
from openqci.delivery.end_to_end import BatchGivenUp, BatchReady, EndToEndOrder, HybridPolicy, KeyWanted
from openqci.delivery.far_ends import FarEnds, FarEvent, ShareLost
from openqci.delivery.key_ids import BATCH_TAG_BITS
from openqci.delivery.pair_stock import KeyBatch, stock_keys
from openqci.delivery.relay_rooms import EpochRooms
from openqci.keystore.deposits import link_stock_bytes
from openqci.keystore.ports import KmeView
from openqci.relay import RelayForm

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Run = Callable[[Callable[[KmeView], Any]], Awaitable[Any]]

RELAY_S_MAX = 5.0
"""How long an origin waits for its target's word; then it gives the batch up and tries another way."""

RELAYS_PER_LOOK_MAX = 64
ROUTES_SHOWN = 64
NO_LINK = "no QKD link joins this KME and that of the slave"


@dataclass
class RelayFigures:
    """What has become of relays that began here, since the start."""

    begun: int = 0
    ready: int = 0
    given_up: int = 0
    not_carried: int = 0


class RelayKeeper:
    """Decides and begins relays for far pairs. ``arrived`` hears of each batch that came into stock.

    ``run`` does a work over this KME's rooms in one transaction; ``carry`` wakes the lines to neighbours;
    ``met`` names those that have been met.
    """

    def __init__(
        self,
        kme: KmeId,
        links: Mapping[str, KmeId],
        run: Run,
        ends: FarEnds,
        rooms: EpochRooms,
        *,
        collect_s: float,
        forget_after_s: float,
        simulated_allowed: bool,
        met: Callable[[], Collection[KmeId]],
        carry: Callable[[], None],
        arrived: Callable[[KeyBatch], None],
        forged: Callable[[str, str], None],
    ) -> None:
        self.figures = RelayFigures()
        self.recent: deque[dict[str, Any]] = deque(maxlen=ROUTES_SHOWN)
        self.routes: DomainRoutes | None = None
        self._kme, self._links, self._run, self._ends, self._rooms = kme, dict(links), run, ends, rooms
        self._collect_s, self._forget_after_s = collect_s, forget_after_s
        self._simulated_allowed = simulated_allowed
        self._met, self._carry, self._arrived, self._forged = met, carry, arrived, forged
        self.reasons: dict[tuple[SaeId, SaeId], str] = {}
        self._asked_s: dict[tuple[SaeId, SaeId], float] = {}
        self._waiting: dict[tuple[SaeId, SaeId], tuple[int, int]] = {}

    def take(self, configuration: DomainConfiguration) -> None:
        """Go by a new configuration from now on."""
        self.routes = DomainRoutes(configuration, self._kme)

    def wait(
        self, master: SaeId, slave: SaeId, wanted_bytes: int, key_bytes: int, now_s: float
    ) -> str | None:
        """Note that a request waits; return why its key can never come, or None."""
        routes = self.routes
        demand = routes.demand_of(master, slave, self._collect_s) if routes is not None else None
        if routes is None or demand is None or not routes.joined(demand.target):
            return NO_LINK
        pair = master, slave
        self._asked_s[pair] = now_s
        self._waiting[pair] = max(self._waiting.get(pair, (0, 0)), (wanted_bytes, key_bytes))
        return None

    def demands(self, now_s: float) -> list[FarDemand]:
        """Return the pairs with demand: those that are admitted, and those that were asked for lately."""
        routes = self.routes
        if routes is None:
            return []
        for pair in [pair for pair, at_s in self._asked_s.items() if now_s - at_s > self._forget_after_s]:
            del self._asked_s[pair]
        admitted = [(SaeId(pair.master), SaeId(pair.slave)) for pair in routes.configuration.pairs]
        here = [pair for pair in admitted if routes.configuration.kme_of(pair[0]) == self._kme]
        named = dict.fromkeys([*here, *self._asked_s])
        found = (routes.demand_of(*pair, self._collect_s) for pair in named)
        return [
            demand for demand in found if demand is not None and demand.target not in self._links.values()
        ]

    async def look(self, now_s: float, held_back: Mapping[str, int]) -> None:
        """Give up what waits in vain, and begin what the pairs lack.

        So many bytes of each link's key as are ``held_back`` are for others.
        """
        waiting, self._waiting = self._waiting, {}
        demands = with_waiting(self.demands(now_s), waiting)
        if self.routes is None:
            return
        if await self._run(self._give_up_in_vain):
            self._carry()
        stocks, links = await self._run(partial(_looked, links=self._links, demands=demands))
        links = {link: max(0, stock - held_back.get(link, 0)) for link, stock in links.items()}
        begun = 0
        for demand, stock in zip(demands, stocks, strict=True):
            if begun >= RELAYS_PER_LOOK_MAX:
                break
            length = batch_bytes(demand, stock)
            if length and await self._begin(demand, length, links, now_s):
                begun += 1
        if begun:
            self._carry()

    def pair_status(self, view: KmeView, demand: FarDemand) -> dict[str, Any]:
        """Return a far pair as it is now; ``trouble`` says why it gets no key, if it gets none."""
        return {
            "master": demand.master,
            "slaves": [demand.slave],
            "stock_bytes": _stock_bytes(view, demand),
            "low_bytes": demand.low_bytes,
            "high_bytes": demand.high_bytes,
            "priority": demand.priority,
            "target_kme": demand.target,
            "trouble": self.reasons.get((demand.master, demand.slave)),
        }

    def happened(self, event: FarEvent) -> None:
        """Act on what relays have brought about, once it is durable."""
        if isinstance(event, BatchReady):
            self.figures.ready += 1
            self.recent.append(_shown(event.order, time.time()))
            self._arrived(event.batch)
        elif isinstance(event, BatchGivenUp):
            self.figures.given_up += 1
            log.info("a batch for %s was given up: %s", event.order.target_kme, event.reason)
            if event.forged:
                self._forged(event.order.target_kme, event.reason)
        elif isinstance(event, ShareLost):
            self.figures.not_carried += 1
            if self.routes is not None:
                self.routes.failed_at(event.result.route, event.result.failed_at, time.monotonic())

    def _give_up_in_vain(self, view: KmeView) -> int:
        """Give up batches whose time is over, or whose way the configuration has closed; return how many."""
        routes, now_s, met = self.routes, time.time(), self._met()
        count = 0
        for order in end_to_end.open_orders(view):
            overdue = now_s > order.deadline_s
            cut = routes is not None and any(routes.unusable(path.links) for path in order.paths)
            parted = any(path.route[1] not in met for path in order.paths)
            if not (overdue or cut or parted):
                continue
            if overdue and routes is not None:
                for path in order.paths:
                    routes.stuck_on(path.route, time.monotonic())
            reason = "no word in time" if overdue else "a link of its way is cut"
            self._ends.give_up(view, order.batch_tag, reason)
            count += 1
        return count

    async def _begin(self, demand: FarDemand, length: int, links: dict[str, int], now_s: float) -> bool:
        """Begin one batch if there are routes with key on their first hops."""
        routes = self.routes
        if routes is None:
            return False
        pair = demand.master, demand.slave
        found = routes.routes(demand, lambda link: self._stock(links, link), length, now_s)
        if not found:
            self.reasons[pair] = f"no {demand.paths} disjoint route(s) that the pair's rules allow"
            return False
        wanted = self._wanted(routes, demand, found, length)
        if wanted.simulated and not self._simulated_allowed:
            self.reasons[pair] = "a link of its route has simulated key, which a production node refuses"
            return False
        node = routes.configuration.node(demand.target)
        kem = None
        if node is not None and node.kem_public_key:
            kem = KemPublicKey(KemAlgorithm.ML_KEM_768, node.kem_public_key)
        tag = secrets.randbits(BATCH_TAG_BITS)
        step = partial(
            far_ends.begin, wanted=wanted, batch_tag=tag, kem=kem, now_s=time.time(), rooms=self._rooms
        )
        try:
            await self._run(step)
        except KeyUnavailable as shortage:
            self.reasons[pair] = str(shortage)
            return False
        self.reasons.pop(pair, None)
        for route in found:
            links[route.links[0]] = max(0, links.get(route.links[0], 0) - end_to_end.range_bytes(length))
        self.figures.begun += 1
        return True

    def _stock(self, links: Mapping[str, int], link: LinkId) -> int:
        """Return what may be spent of an own link now: nothing, while its peer is not met."""
        return links.get(link, 0) if self._links.get(link) in self._met() else 0

    def _wanted(
        self, routes: DomainRoutes, demand: FarDemand, found: Iterable[Route], length: int
    ) -> KeyWanted:
        made = [(route, routes.made(route)) for route in found]
        links = [link for _, of_route in made for link in of_route]
        now_s = time.time()
        return KeyWanted(
            self._kme,
            demand.target,
            demand.master,
            demand.slave,
            length,
            tuple(
                KeyPath(
                    tuple(map(str, route.sites)),
                    tuple(map(str, route.links)),
                    RelayForm.HOP.value,
                    sum(link.epsilon for link in of_route),
                )
                for route, of_route in made
            ),
            threshold=len(made),
            policy=HybridPolicy(demand.hybrid),
            deadline_s=now_s + RELAY_S_MAX,
            protocols=tuple(sorted({link.protocol for link in links})),
            proofs=tuple(sorted({link.proof for link in links})),
            simulated=any(link.simulated for link in links),
            domains=(routes.configuration.domain,),
            expires_s=now_s + demand.ttl_s if demand.ttl_s else 0.0,
            collect_s=demand.collect_s,
        )


def _looked(
    view: KmeView, links: Mapping[str, KmeId], demands: Iterable[FarDemand]
) -> tuple[list[FarStock], dict[str, int]]:
    """Return what pairs have and get, and what this node may begin to spend of each of its links."""
    coming: dict[tuple[str, str], list[int]] = {}
    for order in end_to_end.open_orders(view):
        coming.setdefault((order.master_sae, order.slave_sae), []).append(order.key_bytes)
    stocks = [
        FarStock(
            _stock_bytes(view, demand),
            tuple(coming.get((demand.master, demand.slave), ())),
        )
        for demand in demands
    ]
    states = {link: peers.peer_state(view, peer) for link, peer in links.items()}
    held = {
        link: link_stock_bytes(view, peers.link_in_epoch(link, state.epoch), view.kme)
        for link, state in states.items()
        if state is not None
    }
    return stocks, held


def _stock_bytes(view: KmeView, demand: FarDemand) -> int:
    """Return the bytes of the keys that a pair's master can have now."""
    return demand.key_bytes * stock_keys(view, demand.master, demand.slave, demand.key_bytes)


def _shown(order: EndToEndOrder, ready_s: float) -> dict[str, Any]:
    return {
        "master": order.master_sae,
        "slave": order.slave_sae,
        "routes": [list(path.route) for path in order.paths],
        "key_bytes": order.key_bytes,
        "hybrid": order.kem.algorithm if order.kem is not None else None,
        "created_s": order.created_s,
        "took_s": round(ready_s - order.created_s, 6),
    }
