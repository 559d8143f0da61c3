"""Applications that read key streams (ETSI GS QKD 004) in the simulated world, side by side."""

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID

from openqci.core.identifiers import SaeId
from openqci.delivery import etsi004_model
from openqci.delivery.etsi004_model import HEADER_BYTES, Close, GetKey, OpenConnect, QoS, Request, Status
from tests.simulation.loop import DiskFault

if TYPE_CHECKING:
    from tests.simulation.world import World

CHUNK_BYTES = 2048
CHUNKS_MAX = 40
TRIES_MAX = 12


class StreamReaders:
    """Two applications that open a stream, read of it each at its own pace, close it, and begin again."""

    def __init__(self, world: "World", one: SaeId, other: SaeId) -> None:
        self.world, self.ends = world, (one, other)
        self.ttl_s = int(min(world.ttl_s, 600))

    async def run(self) -> None:
        """Go on for ever."""
        chance = self.world.chance
        while True:
            await asyncio.sleep(chance.random())
            ksid = UUID(int=chance.getrandbits(128))
            if not all([await self._open(sae, ksid) for sae in self.ends]):
                continue
            chunks = chance.randrange(1, CHUNKS_MAX)
            await asyncio.gather(*(self._read(sae, ksid, chunks) for sae in self.ends))
            for sae in self.ends:
                if chance.random() < 0.8:
                    await self._ask(sae, Close(ksid))

    async def _open(self, sae: SaeId, ksid: UUID) -> bool:
        qos = QoS(chunk_bytes=CHUNK_BYTES, timeout_ms=2000, ttl_s=self.ttl_s)
        for _ in range(TRIES_MAX):
            answer = await self._ask(sae, OpenConnect(self.ends[0], self.ends[1], qos, ksid))
            # A lost answer may have opened the stream: then it is in use, by ourselves.
            if answer is not None:
                status = etsi004_model.decode_opened(answer).status
                return status in (Status.SUCCESS, Status.PEER_NOT_CONNECTED, Status.KSID_IN_USE)
            await asyncio.sleep(0.5)
        return False

    async def _read(self, sae: SaeId, ksid: UUID, chunks: int) -> None:
        chance = self.world.chance
        for index in range(chunks):
            if chance.random() < 0.05:
                continue  # some chunks are never read
            for _ in range(TRIES_MAX):
                answer = await self._ask(sae, GetKey(ksid, index, 0))
                if answer is None:
                    await asyncio.sleep(chance.random())
                    continue
                chunk = etsi004_model.decode_key(answer)
                if chunk.status is Status.SUCCESS:
                    self.world.book.chunk_got(sae, str(ksid), index, bytes(chunk.key))
                    self.world.counts["chunks of streams"] += 1
                    break
                if chunk.status is Status.NO_CONNECTION:
                    return  # the other KME was made anew: the stream is no more
                if chunk.status is Status.INSUFFICIENT_KEY:
                    break  # it was in an answer that was lost
            if chance.random() < 0.02:
                await self._again(sae, ksid, index)

    async def _again(self, sae: SaeId, ksid: UUID, index: int) -> None:
        """Ask for a chunk once more: whoever has got it must not get it again."""
        answer = await self._ask(sae, GetKey(ksid, index, 0))
        if answer is not None:
            chunk = etsi004_model.decode_key(answer)
            if chunk.status is Status.SUCCESS:
                self.world.book.chunk_got(sae, str(ksid), index, bytes(chunk.key))

    async def _ask(self, sae: SaeId, request: Request) -> bytearray | None:
        """Return the payload of an answer; None if it was lost on the way, or nobody answers."""
        world = self.world
        life = world.kmes[world.saes[sae]].life
        await asyncio.sleep(world.chance.random() * 0.02)
        if life is None:
            return None
        try:
            frame: Any = await life.guarded(life.streams.answer(sae, request))
        except (OSError, DiskFault):
            return None
        if world.chance.random() < world.faults.lost:
            return None
        return bytearray(frame[HEADER_BYTES:])
