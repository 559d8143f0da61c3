"""A worker of a node: a process that serves applications beside others, on one store and the same addresses.

It answers ETSI GS QKD 014 and SKIP from the store, over a connection of its own. Everything else is with the
coordinator that has started it (:mod:`openqci.services.kme_app`): a worker tells it, over the line that it
has inherited (:mod:`openqci.services.worker_channel`), what was wanted, delivered, answered and refused, asks
it for quota, and does what it is told. A worker decides nothing that must hold over all of them.

Its life is within the coordinator's: if that one is gone, the worker ends at once. So it can be killed at any
moment: what it had not committed did not happen, and what it had delivered was told before it was sent.

    python -m openqci.services.kme_worker --line FD --lock FD --coordinator PID --socket NAME=FD ...
"""

import argparse
import asyncio
import ctypes
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from openqci.core.errors import OpenQCIError, RequestRefused
from openqci.core.identifiers import SaeId
from openqci.core.keys import DeliveredKey
from openqci.delivery.etsi014_model import LeaseDocument
from openqci.delivery.leases import Lease
from openqci.services import logs
from openqci.services.accept import FILES_PER_ADDRESS
from openqci.services.application_interfaces import INTERFACES_MAX, ApplicationInterfaces, Sockets, rest_rule
from openqci.services.keyring import Keyring
from openqci.services.kme import Group, KmeService, Observer, Quotas, is_noted
from openqci.services.kme_config import LoadedConfig
from openqci.services.kme_server import OTHER_FILES, allow_open_files, keep_what_is_there
from openqci.services.state_folder import StateFolder
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

SETUP_S_MAX = 20.0
QUOTA_ANSWER_S_MAX = 2.0
"""How long a request waits for a coordinator that says nothing about its quota: then it is refused."""

HOPELESS_KEPT_S = 5.0
"""How long a worker believes that no key can come for a pair, before it asks again."""

CONNECTIONS_TOLD_EVERY_S = 1.0
PR_SET_PDEATHSIG = 1

Pair = tuple[str, str, tuple[str, ...]]


class Reporter(Observer):
    """Tells the coordinator what this worker's interfaces do."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def delivered(
        self, interface: str, role: str, caller: SaeId, others: Sequence[SaeId], keys: Sequence[DeliveredKey]
    ) -> None:
        """Keys are about to leave: told first."""
        key_ids = tuple(key.key_id for key in keys)
        size_bits = 8 * len(keys[0].key) if keys else 0
        told = Delivered(interface, role, caller, tuple(others), key_ids, size_bits)
        self._channel.report(told, now=True)

    def consumed(self, pair: Group, length_bytes: int) -> None:
        """Key has left the stock of a pair."""
        self._channel.report(Consumed(pair, length_bytes), now=False)

    def leased(self, caller: SaeId, others: Sequence[SaeId], lease: LeaseDocument) -> None:
        """Keys are kept for an application: told before it hears of it."""
        self._channel.report(Leased(caller, tuple(others), lease), now=True)

    def lease_ended(self, lease: Lease, returned_bytes: int, how: str) -> None:
        """An application has given a lease back; what it put back wakes requests in all workers."""
        self._channel.send(LeaseReleased(lease, returned_bytes))

    def answered(self, interface: str, method: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._channel.report(Answered(interface, method, status, seconds), now=False)

    def refused(self, interface: str, method: str, caller: str, other: str, refused: RequestRefused) -> None:
        """A request was refused."""
        if is_noted(refused):
            told = Refused(interface, method, caller, other[:64], refused.status, refused.message)
            self._channel.report(told, now=False)


class CoordinatorQuotas(Quotas):
    """Quotas that hold over all workers: the coordinator keeps them, and is asked about who has one."""

    def __init__(self, channel: Channel, limited: frozenset[SaeId]) -> None:
        self._channel, self._limited = channel, limited
        self._asked: dict[int, asyncio.Future[float]] = {}
        self._number = 0

    async def take(self, sae: SaeId, bits: int) -> float:
        """Ask the coordinator; RequestRefused if it does not answer."""
        if sae not in self._limited:
            return 0.0
        self._number = number = self._number + 1
        answer: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        self._channel.send(QuotaAsked(number, sae, bits))
        try:
            async with asyncio.timeout(QUOTA_ANSWER_S_MAX):
                return await answer
        except TimeoutError:
            raise RequestRefused(
                503, "the KME cannot serve this request now", headers={"Retry-After": "1"}
            ) from None
        finally:
            del self._asked[number]

    def give_back(self, sae: SaeId, bits: int) -> None:
        """Return bits to the coordinator."""
        if sae in self._limited:
            self._channel.send(QuotaReturned(sae, bits))

    def answer(self, answer: QuotaAnswer) -> None:
        """Hear the coordinator's answer. One that comes too late is passed over, and its bits are spent."""
        asked = self._asked.get(answer.number)
        if asked is not None and not asked.done():
            asked.set_result(answer.wait_s)


class Wishes:
    """Tells the coordinator which pairs are short of key, and remembers those for which none can come."""

    def __init__(self, loaded: LoadedConfig, channel: Channel) -> None:
        self._loaded, self._channel = loaded, channel
        self._hopeless: dict[Pair, tuple[float, str]] = {}

    def demand(
        self, master: SaeId, slave: SaeId, wanted_bytes: int, additional: tuple[SaeId, ...], key_bytes: int
    ) -> str | None:
        """Ask for key of a pair; return why none can come, if that is known, or None."""
        until_s, reason = self._hopeless.get((master, slave, additional), (0.0, ""))
        if time.monotonic() < until_s:
            return reason
        self._channel.send(Wanted(master, slave, additional, wanted_bytes, key_bytes))
        return None

    def hopeless(self, told: Hopeless) -> None:
        """Hear that no key can come for a pair."""
        now_s = time.monotonic()
        for pair in [pair for pair, (until_s, _) in self._hopeless.items() if until_s <= now_s]:
            del self._hopeless[pair]
        self._hopeless[told.master, told.slave, told.additional] = now_s + HOPELESS_KEPT_S, told.reason


class KmeWorker:
    """One worker: its store, interfaces and what it hears from the coordinator."""

    def __init__(self, setup: Setup, channel: Channel, lock: int, bound: Sockets) -> None:
        self.stop = asyncio.Event()
        self._drains = True
        self._connected: Connected | None = None
        self._channel = channel
        loaded = LoadedConfig(Path(setup.file), setup.config)
        folder = StateFolder(loaded, lock)
        self.store = folder.share_store(setup.root_key)
        self._keyring = folder.keyring
        limited = frozenset(SaeId(sae.id) for sae in loaded.config.sae if sae.quota_bps is not None)
        self._quotas, self._wishes = CoordinatorQuotas(channel, limited), Wishes(loaded, channel)
        self._service = KmeService(
            self.store,
            on_demand=self._wishes.demand,
            profile=loaded.config.etsi014.profile(),
            rests=rest_rule(loaded),
        )
        reporter = self._service.observer = Reporter(channel)
        self._service.quotas = self._quotas
        self._interfaces = ApplicationInterfaces(
            loaded, self.store, self._service, self._wishes.demand, reporter, bound
        )
        self._orders: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until told to stop."""
        try:
            allow_open_files(OTHER_FILES + INTERFACES_MAX * FILES_PER_ADDRESS)
            await self._interfaces.start()
            self._channel.send(Ready())
            while not self.stop.is_set():
                self._tell_connections()
                with suppress(TimeoutError):
                    async with asyncio.timeout(CONNECTIONS_TOLD_EVERY_S):
                        await self.stop.wait()
        finally:
            if self._drains:
                await self._interfaces.stop()
            self._tell_connections()
            self.store.close()

    def _tell_connections(self) -> None:
        """Tell the coordinator who is connected, unless it knows."""
        found = self._interfaces.connections()
        told = Connected(
            {name: each["open"] for name, each in found.items()},
            {name: each["closed"] for name, each in found.items()},
        )
        if told != self._connected:
            self._connected = told
            self._channel.report(told, now=False)

    def hear(self, message: AnyMessage) -> None:
        """Act on a message of the coordinator."""
        if isinstance(message, Order):
            self._obey(message)
        elif isinstance(message, Arrived):
            master, slave, *additional = map(SaeId, (message.master, message.slave, *message.additional))
            self._service.stock_arrived(master, slave, tuple(additional), message.length_bytes)
        elif isinstance(message, Hopeless):
            self._wishes.hopeless(message)
            # Who waits for that pair looks again, and learns why it waits in vain.
            master, slave, *additional = map(SaeId, (message.master, message.slave, *message.additional))
            self._service.stock_arrived(master, slave, tuple(additional))
        elif isinstance(message, QuotaAnswer):
            self._quotas.answer(message)

    def _obey(self, order: Order) -> None:
        """Begin to carry out an order; others may come meanwhile."""
        acts: Mapping[Act, Callable[[], Coroutine[Any, Any, None]]] = {
            Act.ANSWER: self._answer,
            Act.LEARN_ROOTS: self._in_thread(Keyring.learn),
            Act.USE_NEWEST_ROOT: self._in_thread(Keyring.use_newest),
            Act.FORGET_OLD_ROOTS: self._in_thread(Keyring.forget_old),
            Act.RELOAD: self._interfaces.reload,
            Act.DRAIN: self._drain,
            Act.END: self._end,
        }
        task = asyncio.get_running_loop().create_task(self._carried_out(order, acts[order.act]))
        self._orders.add(task)
        task.add_done_callback(self._orders.discard)

    async def _carried_out(self, order: Order, act: Callable[[], Coroutine[Any, Any, None]]) -> None:
        fault = ""
        try:
            await act()
        except (OpenQCIError, OSError) as error:
            fault = str(error) or type(error).__name__
        except Exception as error:
            # The last resort: the coordinator waits for an answer, whatever it is.
            log.exception("an order could not be carried out: %s", order.act.value)
            fault = type(error).__name__
        self._channel.send(Done(order.number, fault))

    def _in_thread(self, act: Callable[[Keyring], None]) -> Callable[[], Coroutine[Any, Any, None]]:
        async def acting() -> None:
            if self._keyring is not None:
                await asyncio.to_thread(act, self._keyring)

        return acting

    async def _answer(self) -> None:
        """Show that this worker's loop turns."""

    async def _drain(self) -> None:
        self.stop.set()

    async def _end(self) -> None:
        self._drains = False
        self.stop.set()


async def serve(line: socket.socket, lock: int, bound: Sockets) -> int:
    """Serve as the coordinator says, until it says stop or is gone."""
    loop = asyncio.get_running_loop()
    setup: asyncio.Future[Setup] = loop.create_future()
    closed: asyncio.Future[None] = loop.create_future()
    worker: KmeWorker | None = None
    ending = False

    def hear(message: AnyMessage) -> None:
        if worker is not None:
            worker.hear(message)
        elif isinstance(message, Setup) and not setup.done():
            setup.set_result(message)

    def hung_up() -> None:
        if not ending:
            die()
        closed.set_result(None)

    channel = Channel(hear, hung_up)
    await loop.create_unix_connection(lambda: channel, sock=line)
    async with asyncio.timeout(SETUP_S_MAX):
        told = await setup
    logs.configure(told.config.log.format, told.log_level, told.config.node.kme_id)
    keep_what_is_there()
    fault = ""
    try:
        worker = KmeWorker(told, channel, lock, bound)
        loop.add_signal_handler(signal.SIGTERM, worker.stop.set)
        await worker.run()
    except OpenQCIError as error:
        fault = str(error)
        channel.send(Failed(fault))
    ending = True
    channel.close()
    await closed
    return int(bool(fault))


def die() -> None:
    """End at once: the coordinator is gone, and without it a worker must not serve."""
    os._exit(1)


def end_with(coordinator: int) -> None:
    """Have the kernel end this process with its coordinator; where it cannot, the closed line does."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != coordinator:
        die()


def main() -> int:
    """Run a worker, as its coordinator starts it."""
    import uvloop

    parser = argparse.ArgumentParser(description="A worker of a KME node; `openqci kme run` starts it.")
    parser.add_argument("--line", type=int, required=True)
    parser.add_argument("--lock", type=int, required=True)
    parser.add_argument("--coordinator", type=int, required=True)
    parser.add_argument("--socket", action="append", default=[])
    args = parser.parse_args()
    end_with(args.coordinator)
    # What a terminal or a supervisor sends to the whole group is the coordinator's to act on.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(
        format=f"%(asctime)s %(levelname)s %(name)s [{os.getpid()}]: %(message)s", stream=sys.stderr
    )
    named = (each.partition("=") for each in args.socket)
    bound = {name: socket.socket(fileno=int(descriptor)) for name, _, descriptor in named}
    return uvloop.run(serve(socket.socket(fileno=args.line), args.lock, bound))


if __name__ == "__main__":
    sys.exit(main())
