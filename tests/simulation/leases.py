"""Applications that reserve keys in the simulated world: they lease, draw, give back, or let time run out."""

import asyncio
from typing import TYPE_CHECKING, Any

from openqci.core.errors import RequestRefused
from openqci.core.identifiers import SaeId
from openqci.delivery.directory import PeerIdentity
from openqci.delivery.etsi014_model import KeyRequest, LeaseDocument, LeaseRequest
from tests.simulation.loop import START_S, DiskFault

if TYPE_CHECKING:
    from tests.simulation.world import World

KEYS_MAX = 60
TTL_S_MIN, TTL_S_MAX = 1.0, 8.0
MARGIN_S = 1.0
"""Near the end of a lease it is not known whether a request comes in time."""


class LeaseHolder:
    """A master that holds one lease after the other. What it draws its slave fetches as any other key."""

    def __init__(self, world: "World", master: SaeId, slaves: tuple[SaeId, ...]) -> None:
        self.world, self.master, self.slaves = world, master, slaves
        self.home = world.saes[master]

    async def run(self) -> None:
        """Go on for ever."""
        chance = self.world.chance
        while True:
            await asyncio.sleep(0.2 * chance.random())
            keys = KeyRequest(chance.randrange(1, KEYS_MAX), chance.choice((256, 256, 128, 512)))
            wanted = LeaseRequest(keys, chance.uniform(TTL_S_MIN, TTL_S_MAX))
            lease = await self._ask("grant_lease", wanted)
            if isinstance(lease, LeaseDocument):
                self.world.counts["leases"] += 1
                await self._use(lease)

    async def _use(self, lease: LeaseDocument) -> None:
        """Draw some of a lease; in the end give it back, or forget it."""
        chance, left = self.world.chance, lease.number
        while left and chance.random() < 0.8:
            await asyncio.sleep(0.5 * chance.random())
            number = chance.randrange(1, left + 1)
            request = KeyRequest(number, lease.size, lease_id=lease.lease_id)
            got = await self._ask("get_key", request)
            left -= number  # an answer that was lost may have been them
            if isinstance(got, RequestRefused):
                self._refused(lease, got)
            elif got is not None:
                keys = [(each.key_id, bytes(each.key.reveal())) for each in got.keys]
                got.wipe()
                self.world.book.master_got(self.master, self.slaves, keys, self.world.loop.time())
                self.world.counts["keys of leases"] += len(keys)
                if chance.random() < 0.9:
                    await self.world.collect(self.master, self.slaves[0], [key_id for key_id, _ in keys])
        if chance.random() < 0.5:
            await self._ask("release_lease", lease.lease_id)

    def _refused(self, lease: LeaseDocument, refused: RequestRefused) -> None:
        """What was granted can be drawn until its time is over."""
        machine = self.world.kmes[self.home]
        now_s = START_S + self.world.loop.time() + machine.skew_s
        lost = {self.master, *self.slaves} & self.world.book.replaced
        if now_s < lease.expires_at_s - MARGIN_S and not lost and refused.status != 503:
            self.world.book.fault(f"I3: {self.master} cannot draw its lease: {refused.message}")

    async def _ask(self, method: str, what: Any) -> Any:
        """Return what a KME answers or how it refuses; None if the answer was lost or nobody answers."""
        world = self.world
        life = world.kmes[self.home].life
        await asyncio.sleep(world.chance.random() * 0.01)
        if life is None:
            return None
        ask = getattr(life.service, method)
        try:
            answer = await life.guarded(ask(self.home, PeerIdentity(self.master, ""), self.slaves[0], what))
        except (OSError, DiskFault):
            return None
        except RequestRefused as refused:
            return refused
        if world.chance.random() < world.faults.lost:
            if method == "get_key":
                answer.wipe()
            return None
        return answer
