"""QKD modules with key streams in the simulated world: they answer ETSI GS QKD 004, or push their chunks.

The sources that speak with them are the real ones; simulated is the line to the module, and the module. A
module is a machine of its own: it outlives the KME's process, and may forget its streams.
"""

import asyncio
import json
from base64 import b64encode
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from openqci.core.errors import RequestRefused
from openqci.core.identifiers import KmeId
from openqci.delivery.etsi004_model import NIL, Chunk, OpenConnect, Opened, Status
from openqci.keystore.supply import SourceReport
from openqci.services.source_004 import Source004, Source004Settings, StreamClient
from openqci.services.source_push import KeyMetadata, PushedKey, PushRoom, SourcePush, SourcePushSettings
from tests.simulation.loop import DiskFault

if TYPE_CHECKING:
    from tests.simulation.world import Life, World

CHUNK_BYTES = 4096
REPORT = SourceReport("simulated", "simulated", 1e-10, True)
WINDOW = 6
"""Chunks that a module pushes side by side: so they overtake each other."""

AHEAD_MAX = 2 * WINDOW
"""So far a chunk may be ahead of the first one that has not been taken."""

TRAVEL_S_MAX = 0.004
FULL_S = 0.5
"""How long a module waits whose chunk was refused."""


class Fibre:
    """What the two modules of a link have in common: the chunks of each stream, and who has it open."""

    def __init__(self, world: "World", link: str, kind: str, ends: tuple[KmeId, KmeId]) -> None:
        self.world, self.link, self.kind = world, link, kind
        self.chunks: dict[tuple[str, int], bytes] = {}
        self.ends = {kme: StreamModule(self, kme) for kme in ends}

    def chunk(self, ksid: str, index: int) -> bytes:
        key = self.chunks.get((ksid, index))
        if key is None:
            key = self.chunks[ksid, index] = self.world.chance.randbytes(CHUNK_BYTES)
            self.world.counts["bytes made by modules"] += CHUNK_BYTES
        return key

    def restart(self) -> None:
        """Both modules forget all streams, as after a loss of power."""
        self.world.counts["modules restarted"] += 1
        for end in self.ends.values():
            end.open.clear()
            end.begun.clear()
            end.done.clear()

    def source(self, life: "Life") -> Source004 | SourcePush:
        """Return a real source that speaks with the module of this end."""
        end = self.ends[life.kme.kme_id]
        named = {"source": "a", "destination": "b", "chunk_bytes": CHUNK_BYTES, "report": REPORT}
        if self.kind == "004":
            settings = Source004Settings(host="m", port=1, **named)  # type: ignore[arg-type]
            return Source004(settings, _no_tls, end.connect)
        push = SourcePushSettings(module="m", url="https://m", **named)  # type: ignore[arg-type]
        room = PushRoom(life.store, life.kme.kme_id, self.link)  # type: ignore[arg-type]
        return SourcePush(push, end, room)


class StreamModule:
    """The module at one end of a link. It gives each chunk once, and what it pushed until it was taken."""

    def __init__(self, fibre: Fibre, kme: KmeId) -> None:
        self.fibre, self.kme = fibre, kme
        self.open: dict[str, set[int]] = {}
        """Streams that are open here, with the chunks that were given out."""
        self.begun: set[str] = set()
        self.done: dict[tuple[str, int], int] = {}
        """The last index that was taken, by stream and lane."""
        self.bits: dict[tuple[str, int], int] = {}

    @property
    def world(self) -> "World":
        return self.fibre.world

    def key(self, ksid: str, index: int) -> bytes:
        """Return a chunk as this end has it; now and then it differs in a bit, and goes on to."""
        key, name = bytearray(self.fibre.chunk(ksid, index)), (ksid, index)
        if name not in self.bits:
            # A deposit holds some dozens of chunks.
            differs = self.world.chance.random() < self.world.faults.module_differs / 50
            self.world.counts["chunks that differ"] += differs
            self.bits[name] = self.world.chance.randrange(8 * CHUNK_BYTES) if differs else -1
        if self.bits[name] >= 0:
            key[self.bits[name] // 8] ^= 1 << self.bits[name] % 8
        return bytes(key)

    async def _travel(self) -> None:
        await asyncio.sleep(self.world.chance.random() * TRAVEL_S_MAX)

    def _lose(self) -> None:
        """Lose an answer: what it brought is given out all the same."""
        if self.world.chance.random() < self.world.faults.module_lost:
            raise ConnectionError("the answer was lost")

    def _opened(self, named: str | None) -> str | None:
        """Open a stream; None if it is open here already."""
        ksid = named or str(UUID(int=self.world.chance.getrandbits(128)))
        if ksid in self.open:
            return None
        self.open[ksid] = set()
        return ksid

    # ETSI GS QKD 004

    async def connect(self) -> StreamClient:
        await self._travel()
        self._lose()
        return _Client(self)

    # The push form

    async def request(self, method: str, call: str, body: dict[str, Any]) -> tuple[int, bytes]:
        """Answer a call of the KME, as :class:`openqci.services.source_push.ModuleLine`."""
        await self._travel()
        ksid, code, answer = body.get("key_stream_id"), 201, {"status": 0}
        if call == "open-connect":
            opened = self._opened(ksid)
            code, answer = (201, {"status": 0, "key_stream_id": opened}) if opened else (400, {"status": 5})
        elif ksid not in self.open:
            code, answer = 400, {"status": 4}
        elif call == "get-key":
            self.begun.add(str(ksid))
        else:
            del self.open[str(ksid)]
        self._lose()
        return code, json.dumps(answer).encode()

    async def close(self) -> None:
        """Nothing to close."""

    async def push(self, lane: int) -> None:
        """Push every chunk whose index is of this lane until it is taken, one after the other, for ever."""
        chance = self.world.chance
        while True:
            await asyncio.sleep(chance.random() * 0.1)
            for ksid in [ksid for ksid in self.open if ksid in self.begun]:
                index = self._next(ksid, lane)
                ahead = index - min(self._next(ksid, each) for each in range(WINDOW))
                if ahead < AHEAD_MAX and await self._offer(ksid, index):
                    self.done[ksid, lane] = index
                    if chance.random() < self.world.faults.doubled:
                        await self._offer(ksid, index)

    def _next(self, ksid: str, lane: int) -> int:
        done = self.done.get((ksid, lane))
        return lane if done is None else done + WINDOW

    async def _offer(self, ksid: str, index: int) -> bool:
        """Push one chunk once; tell whether the module knows that it was taken."""
        life = self.world.kmes[self.kme].life
        await self._travel()
        if life is None or self.world.chance.random() < self.world.faults.lost:
            return False
        source = life.sources[self.fibre.link]
        key = self.key(ksid, index)
        metadata = KeyMetadata({"key_stream_id": ksid})
        pushed = PushedKey(0, index, b64encode(key).decode(), metadata)
        try:
            await life.guarded(source.take_in(pushed))  # type: ignore[union-attr]
        except RequestRefused as refused:
            self.world.counts[f"pushes refused with {refused.status}"] += 1
            await asyncio.sleep(FULL_S)
            return False
        except (OSError, DiskFault):
            return False
        disk = self.world.kmes[self.kme].disk
        self.world.book.push_acknowledged(disk, self.kme, self.fibre.link, ksid, index, key)
        self.world.counts["chunks pushed"] += 1
        return self.world.chance.random() >= self.world.faults.lost


class _Client:
    """One connection to a module that is asked for chunks."""

    def __init__(self, module: StreamModule) -> None:
        self._module = module

    async def open_connect(self, request: OpenConnect) -> Opened:
        await self._module._travel()
        named = None if request.ksid == NIL else str(request.ksid)
        ksid = self._module._opened(named)
        self._module._lose()
        if ksid is None:
            return Opened(Status.KSID_IN_USE)
        return Opened(Status.SUCCESS, request.qos, UUID(ksid))

    async def get_key(self, ksid: UUID, index: int, metadata_size: int, wait_s: float) -> Chunk:
        module, name = self._module, str(ksid)
        world = module.world
        await module._travel()
        if name not in module.open:
            return Chunk(Status.NO_CONNECTION)
        if not all(name in end.open for end in module.fibre.ends.values()):
            return Chunk(Status.NO_PEER)
        if world.chance.random() < world.faults.module_late:
            await asyncio.sleep(wait_s)
            return Chunk(Status.TIMEOUT)
        if index in module.open[name] or world.chance.random() < world.faults.module_gone / 50:
            return Chunk(Status.INSUFFICIENT_KEY)
        module.open[name].add(index)
        world.counts["chunks drawn"] += 1
        key = bytearray(module.key(name, index))
        module._lose()
        world.book.chunk_given(module.kme, module.fibre.link, f"{name}:{index}", world.loop.time())
        return Chunk(Status.SUCCESS, index, key)

    async def close_stream(self, ksid: UUID) -> Status:
        await self._module._travel()
        known = self._module.open.pop(str(ksid), None)
        return Status.SUCCESS if known is not None else Status.NO_CONNECTION

    def close(self) -> None:
        """Nothing to close."""


def _no_tls() -> Any:
    raise AssertionError("no TLS is spoken in the simulated world")


def pushing(fibre: Fibre) -> list[Any]:
    """Return the work of the modules of a link that push: one for each lane of each end."""
    return [partial(end.push, lane) for end in fibre.ends.values() for lane in range(WINDOW)]
