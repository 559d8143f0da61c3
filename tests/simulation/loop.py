"""Time, chance and disk of the simulation: an event loop that jumps, clocks with skew, a store that crashes.

Only one thing runs at a time, time passes only when all wait, and every choice comes from one seeded source;
so a seed replays a run exactly, step by step.
"""

import asyncio
import random
import selectors
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from openqci.core.errors import OpenQCIError
from openqci.crypto.sealing import Sealer
from openqci.keystore import pushed
from openqci.keystore.memory import MemoryRows, MemoryTransaction
from openqci.services import (
    etsi004_server,
    kme,
    kme_node,
    peer_line,
    relay_keeper,
    source_004,
    source_push,
    state_folder,
)

Result = TypeVar("Result")

START_S = 1_700_000_000.0

MODULE_WAIT_S = 15.0
"""How long the sources wait for what a module does not give: less than in operation, where it is minutes."""

ROOM_BYTES = 160 * 1024
"""How much of what a module pushes may wait: so little that it is full now and then."""

skew_s: ContextVar[float] = ContextVar("skew_s", default=0.0)
"""How much the clock of the machine that runs now is ahead."""


class JumpingSelector(selectors.SelectSelector):
    """Waits for nothing: what would be a wait moves the clock."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("all tasks wait for each other: nothing will ever happen")
        self.now_s += max(0.0, timeout)
        return []


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop on a clock of its own."""

    def __init__(self) -> None:
        self._jumping = JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s


@contextmanager
def simulated_world(loop: JumpingLoop, chance: random.Random, tag_bits: int) -> Iterator[None]:
    """Give the shells of the node the simulated clock and seeded tags, of which few bits are drawn."""
    clock = types.SimpleNamespace(
        time=lambda: START_S + loop.time() + skew_s.get(), monotonic=loop.time, perf_counter=loop.time
    )
    tags = types.SimpleNamespace(
        randbits=lambda bits: chance.getrandbits(min(bits, tag_bits)),
        token_hex=lambda size: chance.randbytes(size).hex(),
        token_bytes=chance.randbytes,
    )
    timed = kme, kme_node, peer_line, etsi004_server, relay_keeper, source_004, source_push
    before = [(module, module.__dict__["time"]) for module in timed]
    secrets = kme_node.__dict__["secrets"]
    makers = (kme, kme_node, relay_keeper, state_folder)
    limits: list[tuple[types.ModuleType, str, float]] = [
        (source_004, "NAMED_S_MAX", MODULE_WAIT_S),
        (source_004, "STILL_S_MAX", MODULE_WAIT_S),
        (source_push, "NAMED_S_MAX", MODULE_WAIT_S),
        (source_push, "STILL_S_MAX", MODULE_WAIT_S),
        (pushed, "HELD_BYTES_MAX", ROOM_BYTES),
    ]
    in_operation = [(module, name, module.__dict__[name]) for module, name, _ in limits]
    try:
        for module, name, limit in limits:
            module.__dict__[name] = limit
        for module, _ in before:
            module.__dict__["time"] = clock
        for module in makers:
            module.__dict__["secrets"] = tags
        yield
    finally:
        for module, real in before:
            module.__dict__["time"] = real
        for module in makers:
            module.__dict__["secrets"] = secrets
        for module, name, limit in in_operation:
            module.__dict__[name] = limit


class DiskFault(OpenQCIError):
    """The disk refused: nothing of the work happened."""


class Disk:
    """What survives a crash of a KME: its rows."""

    def __init__(self) -> None:
        self.rows = MemoryRows()
        self.sealer = Sealer(bytes(32))

    def copied(self) -> "Disk":
        """Return a copy, as a backup is."""
        copy = Disk()
        copy.rows = self.rows.copied()
        return copy


class Witness(Protocol):
    """Sees which works are kept; between the two calls nothing else runs."""

    def work_begins(self) -> None:
        """A work begins, of any store."""

    def work_kept(self) -> None:
        """It is durable."""


class CrashingStore:
    """The real rules of the key store over a :class:`Disk`, for one life of a process.

    A work takes a while; it is durable when its caller hears of it. The process may die before a work,
    between the work and its commit, or after the commit and before the caller hears; and the disk may refuse.
    ``die`` ends the life that this store belongs to.
    """

    answers_early = False
    """A mutation: callers hear of a work before it is durable."""

    def __init__(
        self,
        disk: Disk,
        chance: random.Random,
        faults: "Faults",
        die: Callable[[], None],
        witness: "Witness",
    ) -> None:
        self.disk, self.chance, self.faults, self.die = disk, chance, faults, die
        self.witness = witness
        self.dead = False
        self.works = 0

    async def read(self, work: Callable[[MemoryTransaction], Result]) -> Result:
        return await self.run(work)

    async def run(self, work: Callable[[MemoryTransaction], Result]) -> Result:
        """Do a work as ``SqliteKeyStore.run`` does."""
        await asyncio.sleep(self.chance.random() * self.faults.disk_s)
        self._look_alive()
        self.works += 1
        fate = self.chance.random()
        rows = self.disk.rows
        self.witness.work_begins()
        try:
            result = work(MemoryTransaction(rows, self.disk.sealer))
        except BaseException:
            rows.undo(0)
            raise
        if self.answers_early and fate < 5 * self.faults.crash:
            # What a store without group commit would do: the caller goes on, the machine forgets.
            rows.undo(0)
            asyncio.get_running_loop().call_later(0.001, self.die)
            return result
        if fate < self.faults.crash:
            rows.undo(0)
            self.die()
            self._look_alive()
        if fate < self.faults.crash + self.faults.disk_refuses:
            rows.undo(0)
            raise DiskFault("the key store could not commit; nothing of it happened")
        rows.keep()
        self.witness.work_kept()
        if fate > 1 - self.faults.crash:
            self.die()
        if self.faults.disk_s:
            await asyncio.sleep(self.chance.random() * self.faults.disk_s)
        self._look_alive()
        return result

    def _look_alive(self) -> None:
        if self.dead:
            raise asyncio.CancelledError


class Faults:
    """How often what goes wrong; all chances are per act."""

    def __init__(self, **chances: float) -> None:
        self.crash = 0.0
        self.disk_refuses = 0.0
        self.disk_s = 0.004
        self.lost = 0.0
        self.doubled = 0.0
        self.delay_s = 0.02
        self.module_late = 0.0
        self.module_gone = 0.0
        self.module_differs = 0.0
        self.module_lost = 0.0
        self.module_restarts = 0.0
        self.replaced = 0.0
        for name, value in chances.items():
            if not hasattr(self, name):
                raise ValueError(name)
            setattr(self, name, value)


NONE = Faults()
SOME = Faults(
    crash=0.0004,
    disk_refuses=0.002,
    lost=0.03,
    doubled=0.03,
    delay_s=0.3,
    module_late=0.05,
    module_gone=0.005,
    module_differs=0.01,
    module_lost=0.02,
    module_restarts=0.05,
)
