"""The coordinator's side of a node's workers: it starts them, replaces those that end, and speaks for them.

What must hold over all workers together is here, or behind what is given: quotas, the demand for stock, the
one audit log and the one table of metrics, the root keys that everybody must know before anything is sealed
under them. The processes themselves are :mod:`openqci.services.kme_worker`.

A worker that ends, or that does not answer any more, is replaced at once; one that ends again and again,
after pauses. The sockets that listen are the coordinator's, too, so a connection that nobody has accepted yet
waits for the next worker.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from openqci.core.errors import ConfigurationError, OpenQCIError, RequestRefused
from openqci.core.identifiers import SaeId
from openqci.services.application_interfaces import Connections, Sockets, bind_interfaces, interface_names
from openqci.services.audit import AuditEvent
from openqci.services.keyring import Keyring
from openqci.services.kme import INTERFACE, Demand, KmeService, OwnQuotas
from openqci.services.kme_config import LoadedConfig
from openqci.services.kme_server import STOP_S_MAX
from openqci.services.logs import LEVELS
from openqci.services.watch import Watch
from openqci.services.worker_channel import (
    Act,
    Answered,
    AnyMessage,
    Arrived,
    Channel,
    Connected,
    Consumed,
    Delivered,
    Done,
    Failed,
    Hopeless,
    Leased,
    LeaseReleased,
    Lost,
    Order,
    QuotaAnswer,
    QuotaAsked,
    QuotaReturned,
    Ready,
    Refused,
    Setup,
    Wanted,
)

log = logging.getLogger(__name__)

START_S_MAX = 30.0
ANSWER_S_MAX = 20.0
"""How long a worker may take for an order; one that takes longer is killed, and replaced."""

LOOK_EVERY_S = 5.0
"""How often each worker is asked whether it still turns."""

DRAIN_S_MAX = STOP_S_MAX + 2.0
END_S_MAX = 1.0
LAST_WORDS_S_MAX = 1.0
"""How long the last messages of a worker that has ended may take to be read."""

SETTLED_S = 10.0
PAUSE_S_MIN, PAUSE_S_MAX = 0.25, 5.0
"""A worker that ended sooner than ``SETTLED_S`` after its start is replaced after a pause that grows."""


class WorkerFault(OpenQCIError):
    """A worker could not be started, or could not do what it was told."""


class Worker:
    """One worker process, seen from the coordinator. ``pool`` hears what it says."""

    def __init__(self, number: int, pool: "WorkerPool") -> None:
        self.number, self._pool, self.answers = number, pool, 0
        self.connected = Connected({}, {})
        self._channel = Channel(self._hear, self._hung_up)
        self._process: asyncio.subprocess.Process | None = None
        self._ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._line_closed = asyncio.Event()
        self._orders: dict[int, asyncio.Future[str]] = {}
        self._orders_given = 0

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid if self._process is not None else 0

    async def start(self, setup: Setup, lock: int, bound: Sockets) -> None:
        """Start the process; return when it serves, or raise WorkerFault."""
        ours, theirs = socket.socketpair()
        named = {name: each.fileno() for name, each in bound.items()}
        words = ["--line", theirs.fileno(), "--lock", lock, "--coordinator", os.getpid()]
        for name, descriptor in named.items():
            words += ["--socket", f"{name}={descriptor}"]
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # nothing is imported from the folder that the node happens to be started in
                "-m",
                "openqci.services.kme_worker",
                *map(str, words),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), lock, *named.values()),
            )
        except OSError as error:
            ours.close()
            raise WorkerFault(f"cannot be started ({error.strerror})") from None
        finally:
            theirs.close()
        await asyncio.get_running_loop().create_unix_connection(lambda: self._channel, sock=ours)
        self._channel.send(setup)
        try:
            async with asyncio.timeout(START_S_MAX):
                fault = await self._ready
        except TimeoutError:
            fault = f"was not ready within {START_S_MAX:.0f} s"
        except asyncio.CancelledError:
            self.kill()
            raise
        if fault:
            self.kill()
            await self.ended()
            raise WorkerFault(fault)

    def tell(self, message: Arrived | Hopeless | QuotaAnswer) -> None:
        """Send a message that has no answer."""
        self._channel.send(message)

    async def ask(self, act: Act) -> str:
        """Have the worker do something; return why it could not, or nothing.

        One that does not answer is killed, and one that has ended has nothing left to do.
        """
        self._orders_given = number = self._orders_given + 1
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._orders[number] = answer
        self._channel.send(Order(number, act))
        if self._line_closed.is_set():
            return ""
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                return await answer
        except TimeoutError:
            log.error("worker %d does not answer, and is killed", self.number)
            self.kill()
            await self.ended()
            return ""
        finally:
            del self._orders[number]

    async def finish(self, act: Act, within_s: float) -> None:
        """Have the worker end; kill it if it has not within that time."""
        self._channel.send(Order(0, act))
        try:
            async with asyncio.timeout(within_s):
                await self.ended()
        except TimeoutError:
            self.kill()
            await self.ended()

    async def ended(self) -> str:
        """Return how the process ended, when it has and its last words are read."""
        if self._process is None:
            return "was not started"
        code = await self._process.wait()
        try:
            async with asyncio.timeout(LAST_WORDS_S_MAX):
                await self._line_closed.wait()
        except TimeoutError:
            self._channel.close()
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    def _hear(self, message: AnyMessage) -> None:
        if isinstance(message, Ready):
            self._settle("")
        elif isinstance(message, Failed):
            self._settle(message.reason)
        elif isinstance(message, Done):
            if (order := self._orders.get(message.number)) is not None and not order.done():
                order.set_result(message.fault)
        else:
            self._pool.hear(self, message)

    def _settle(self, fault: str) -> None:
        if not self._ready.done():
            self._ready.set_result(fault)

    def _hung_up(self) -> None:
        """The line is closed: the process has ended, or is no use any more."""
        self._line_closed.set()
        self.kill()
        self._settle("ended before it was ready; see the log")
        for order in self._orders.values():
            if not order.done():
                order.set_result("")


class WorkerPool:
    """All workers of a node.

    Parameters
    ----------
    lock
        The lock of the state folder, which workers hold, too.
    keyring
        The coordinator's; a worker begins with the root key that this one seals under.
    demand
        Hears of demand, and says why a stock cannot come.
    service
        Counts what workers deliver, for status and forecasts.
    quotas
        Hold over all workers together.
    watch
        Notes what workers do in the audit log and the metrics.
    """

    def __init__(
        self,
        loaded: LoadedConfig,
        lock: int,
        keyring: Keyring,
        demand: Demand,
        service: KmeService,
        quotas: OwnQuotas,
        watch: Watch,
    ) -> None:
        self._loaded, self._lock, self._keyring = loaded, lock, keyring
        self._demand, self._service, self._quotas, self._watch = demand, service, quotas, watch
        self._bound: dict[str, socket.socket] = {}
        self._living: set[Worker] = set()
        self._closed: dict[str, Counter[str]] = {name: Counter() for name in interface_names(loaded)}
        self._serving: dict[int, Worker] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._change = asyncio.Condition()
        self._starting = 0
        self._stopping = False

    async def start(self) -> None:
        """Start all workers; ConfigurationError, and none, if an address is taken or one cannot start."""
        self._bound = bind_interfaces(self._loaded)
        numbers = range(1, self._loaded.config.node.workers + 1)
        started = await asyncio.gather(*map(self._started, numbers), return_exceptions=True)
        faults = [each for each in started if isinstance(each, BaseException)]
        if faults:
            await self.stop()
            if isinstance(faults[0], WorkerFault):
                raise ConfigurationError(f"a worker of {self._loaded.kme_id} {faults[0]}")
            raise faults[0]
        for number in numbers:
            self._tasks.append(asyncio.create_task(self._keep(number)))
        self._tasks.append(asyncio.create_task(self._look()))

    async def stop(self, *, drain: bool = True) -> None:
        """End all workers: when their requests in hand have ended, or at once."""
        self._stopping = True
        for bound in self._bound.values():
            bound.close()
        act, within_s = (Act.DRAIN, DRAIN_S_MAX) if drain else (Act.END, END_S_MAX)
        serving = set(self._serving.values())
        for worker in self._living - serving:
            worker.kill()
        await asyncio.gather(*(worker.finish(act, within_s) for worker in serving))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def reload(self) -> None:
        """Have all workers read certificates and revocation lists again.

        ConfigurationError names those that cannot, which go on as before.
        """
        try:
            await self.order(Act.RELOAD)
        except WorkerFault as fault:
            raise ConfigurationError(str(fault)) from None

    async def order(self, act: Act) -> None:
        """Have every worker do something; WorkerFault names those that could not."""
        workers = [worker for _, worker in sorted(self._serving.items())]
        faults = await asyncio.gather(*(worker.ask(act) for worker in workers))
        named = [
            f"worker {worker.number}: {fault}" for worker, fault in zip(workers, faults, strict=True) if fault
        ]
        if named:
            raise WorkerFault("; ".join(named))

    @asynccontextmanager
    async def steady(self) -> AsyncIterator[None]:
        """While this is held no worker starts: all that will read the keyring have read it."""
        async with self._change:
            await self._change.wait_for(lambda: not self._starting)
            yield

    def arrived(self, master: SaeId, slave: SaeId, additional: tuple[SaeId, ...], length_bytes: int) -> None:
        """Wake the requests in all workers that wait for key of a pair."""
        told = Arrived(master, slave, additional, length_bytes)
        for worker in self._serving.values():
            worker.tell(told)

    def status(self) -> list[dict[str, Any]]:
        """Return for each worker its process, and what that has answered; none while it is replaced."""
        workers = (self._serving.get(number) for number in range(1, self._loaded.config.node.workers + 1))
        return [
            {
                "worker": number,
                "serving": worker is not None,
                "pid": worker.pid if worker is not None else None,
                "answers": worker.answers if worker is not None else 0,
            }
            for number, worker in enumerate(workers, start=1)
        ]

    def connections(self) -> Connections:
        """Return who is connected to the interfaces of all workers, and why connections were closed."""
        told = [worker.connected for worker in self._serving.values()]
        return {
            name: {
                "open": sum(each.open_now.get(name, 0) for each in told),
                "closed": dict(sum((Counter(each.closed.get(name, {})) for each in told), closed.copy())),
            }
            for name, closed in self._closed.items()
        }

    def hear(self, worker: Worker, message: AnyMessage) -> None:
        """Act on what a worker says."""
        if isinstance(message, Delivered):
            self._delivered(message)
        elif isinstance(message, Answered):
            worker.answers += 1
            self._watch.answered(message.interface, message.method, message.status, message.seconds)
        elif isinstance(message, Connected):
            worker.connected = message
        elif isinstance(message, Refused):
            refused = RequestRefused(message.status, message.reason)
            self._watch.refused(message.interface, message.method, message.caller, message.other, refused)
        elif isinstance(message, Consumed):
            self._service.consumed(tuple(map(SaeId, message.pair)), message.length_bytes)
        elif isinstance(message, Leased):
            others = tuple(map(SaeId, message.others))
            self._watch.leased(SaeId(message.caller), others, message.lease)
        elif isinstance(message, LeaseReleased):
            self._released(worker, message)
        elif isinstance(message, Wanted):
            self._wanted(worker, message)
        elif isinstance(message, QuotaAsked):
            wait_s = self._quotas.take_now(SaeId(message.sae), message.bits)
            worker.tell(QuotaAnswer(message.number, wait_s))
        elif isinstance(message, QuotaReturned):
            self._quotas.give_back(SaeId(message.sae), message.bits)
        elif isinstance(message, Lost):
            self._watch.audit.record(AuditEvent.LINES_LOST, lines=message.reports, worker=worker.number)

    def _delivered(self, told: Delivered) -> None:
        if (told.interface, told.role) == (INTERFACE, "master"):
            self._service.keys_delivered[self._loaded.kme_id] += len(told.key_ids)
        self._watch.delivered_ids(
            told.interface, told.role, told.caller, told.others, told.key_ids, told.size_bits
        )

    def _released(self, worker: Worker, told: LeaseReleased) -> None:
        """Wake who waits for what a lease has put back; its own worker has done so."""
        lease = told.lease
        self._watch.lease_ended(lease, told.returned_bytes, "released")
        place = lease.master_sae, lease.slave_sae, lease.additional_slaves, told.returned_bytes
        self._service.stock_arrived(*place)
        for other in self._serving.values():
            if other is not worker:
                other.tell(Arrived(*place))

    def _wanted(self, worker: Worker, told: Wanted) -> None:
        master, slave, *additional = map(SaeId, (told.master, told.slave, *told.additional))
        reason = self._demand(master, slave, told.wanted_bytes, tuple(additional), told.key_bytes)
        if reason is not None:
            worker.tell(Hopeless(told.master, told.slave, told.additional, reason))

    async def _started(self, number: int) -> None:
        """Start one worker, when the keyring is at rest; WorkerFault if it does not come to serve."""
        async with self._change:
            self._starting += 1
        worker = Worker(number, self)
        self._living.add(worker)
        try:
            if self._stopping:
                raise WorkerFault("is not needed any more")
            await worker.start(self._setup(number), self._lock, self._bound)
            if self._stopping:
                worker.kill()
                raise WorkerFault("is not needed any more")
            self._serving[number] = worker
        except BaseException:
            self._living.discard(worker)
            raise
        finally:
            async with self._change:
                self._starting -= 1
                self._change.notify_all()

    def _setup(self, number: int) -> Setup:
        return Setup(
            number,
            str(self._loaded.file),
            self._loaded.config,
            self._keyring.sealer.current,
            next((name for name, level in LEVELS.items() if level == logging.root.level), "warning"),
        )

    async def _keep(self, number: int) -> None:
        """Replace a worker whenever it ends, until the pool stops."""
        subject, pause_s = f"worker {number}", 0.0
        while True:
            worker, began_s = self._serving[number], time.monotonic()
            reason = await worker.ended()
            self._living.discard(worker)
            del self._serving[number]
            for name, closed in worker.connected.closed.items():
                self._closed[name].update(closed)
            if self._stopping:
                return
            self._watch.telemetry.workers_replaced.inc()
            pause_s = 0.0 if time.monotonic() - began_s > SETTLED_S else _longer(pause_s)
            while number not in self._serving:
                self._watch.trouble("worker", subject, reason)
                await asyncio.sleep(pause_s)
                try:
                    await self._started(number)
                except WorkerFault as fault:
                    reason, pause_s = str(fault), _longer(pause_s)
            self._watch.trouble("worker", subject, None)

    async def _look(self) -> None:
        """Ask each worker from time to time whether it still turns."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.order(Act.ANSWER)


def _longer(pause_s: float) -> float:
    return min(max(2 * pause_s, PAUSE_S_MIN), PAUSE_S_MAX)
