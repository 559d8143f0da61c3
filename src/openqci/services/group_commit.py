"""Group commit: one thread runs the works that wait in one transaction, and lets results go after it.

What every durable key store has in common. A work is a synchronous function of a transaction. Each runs in a
savepoint, so that one that raises undoes itself alone; callers hear of theirs only when the group is durable
(invariant I3). A group of works that only read costs no disk access; where reading need not wait for the
flush of others, a store has a way of its own for it.
"""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from openqci.core.errors import OpenQCIError

log = logging.getLogger(__name__)

WORKS_QUEUED_MAX = 20_000
"""Works that may wait; a caller beyond that is told at once that the store is overloaded."""

WORKS_PER_COMMIT_MAX = 256
GROUP_TIME_S_MAX = 0.02
"""A group is committed after this long even if more works wait, so that the first need not wait for all."""

REST_EVERY_S = 30.0
"""How often a store looks after itself between groups."""

Result = TypeVar("Result")
Transaction = TypeVar("Transaction")


class StoreUnavailable(OpenQCIError):
    """The store could not make a work durable: full disk, I/O error, overload. Nothing of it happened, unless
    the text says that this is not known."""


@dataclass
class Work(Generic[Transaction, Result]):
    """One caller's work, how it ended, and where that is told once it is durable."""

    run: Callable[[Transaction], Result]
    future: "Future[Result] | asyncio.Future[Result]"
    result: Result | None = None
    error: BaseException | None = None

    def begin(self) -> bool:
        """Tell whether somebody still wants the work."""
        if isinstance(self.future, asyncio.Future):
            return not self.future.cancelled()
        return self.future.set_running_or_notify_cancel()

    def settle(self) -> None:
        """Tell the caller how the work ended; on the loop, if it is a coroutine."""
        if isinstance(self.future, asyncio.Future) and self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)  # type: ignore[arg-type]
        else:
            self.future.set_exception(self.error)


def settle_all(works: "list[Work[Any, Any]]") -> None:
    """Tell the callers of a group: threads at once, coroutines by one call to the loop of each."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Work[Any, Any]]] = {}
    for work in works:
        if isinstance(work.future, asyncio.Future):
            by_loop.setdefault(work.future.get_loop(), []).append(work)
        else:
            work.settle()
    for loop, waiting in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle_here, waiting)
        except RuntimeError:  # the loop was closed: its coroutines are no more
            log.warning("%d callers of the key store were gone before their works were done", len(waiting))


def _settle_here(works: "list[Work[Any, Any]]") -> None:
    for work in works:
        work.settle()


class GroupCommitStore(Generic[Transaction]):
    """The queue and the writer thread. A database brings the hooks below; the thread calls them alone."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._works: queue.SimpleQueue[Work[Transaction, Any] | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._closing = False
        self._last_seen = False
        self._thread = threading.Thread(target=self._serve, name="key-store", daemon=True)
        self._thread.start()

    # What a database does

    def _begin(self) -> None:
        """Begin the group's transaction, waiting for others that write."""
        raise NotImplementedError

    def _commit(self) -> None:
        """Make the group durable. Raises StoreUnavailable itself if it cannot know whether it did."""
        raise NotImplementedError

    def _roll_back(self) -> None:
        """Undo the group and forget what is cached; raises nothing."""
        raise NotImplementedError

    def _begin_work(self) -> None:
        raise NotImplementedError

    def _undo_work(self) -> None:
        raise NotImplementedError

    def _end_work(self) -> None:
        raise NotImplementedError

    def _ends_group(self, error: BaseException) -> bool:
        """Tell whether an error of a work is the database's and ends its group."""
        raise NotImplementedError

    def _group_over(self) -> None:
        """Between groups."""

    def _rest(self) -> None:
        """From time to time, and before the end."""

    def _disconnect(self) -> None:
        """Let the database go; the thread ends."""
        raise NotImplementedError

    # What callers do

    def submit(self, work: Callable[[Transaction], Result]) -> "Future[Result]":
        """Queue ``work``; its future resolves when what it did is durable, or with what it raised.

        Raises StoreUnavailable at once if the store is closed or ``WORKS_QUEUED_MAX`` works wait already.
        """
        future: Future[Result] = Future()
        self._queue(Work(work, future))
        return future

    async def run(self, work: Callable[[Transaction], Result]) -> Result:
        """Do ``work`` durably from a coroutine."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._queue(Work(work, future))
        return await future

    async def read(self, work: Callable[[Transaction], Result]) -> Result:
        """Look at what is durable now; ``work`` changes nothing. Some stores do not wait for writers."""
        return await self.run(work)

    def _queue(self, work: Work[Transaction, Any]) -> None:
        with self._gate:
            if self._closing:
                raise StoreUnavailable("the key store is closed")
            if self._works.qsize() >= WORKS_QUEUED_MAX:
                raise StoreUnavailable(f"the key store is overloaded: {WORKS_QUEUED_MAX} works are waiting")
            self._works.put(work)

    def close(self) -> None:
        """Do what is queued, then let the database go."""
        with self._gate:
            first_call, self._closing = not self._closing, True
        if first_call:
            self._works.put(None)
        self._thread.join()

    # The thread

    def _serve(self) -> None:
        try:
            self._serve_until_closed()
        finally:
            self._refuse_rest()
            self._disconnect()

    def _serve_until_closed(self) -> None:
        rested_s = time.monotonic()
        while not self._last_seen:
            try:
                first = self._works.get(timeout=REST_EVERY_S)
            except queue.Empty:
                pass
            else:
                self._commit_group(first)
            if time.monotonic() - rested_s >= REST_EVERY_S:
                self._rest()
                rested_s = time.monotonic()
        self._rest()

    def _refuse_rest(self) -> None:
        """Let nobody wait for ever, should the writer have ended by a fault of its own."""
        with self._gate:
            self._closing = True
        while not self._works.empty():
            work = self._works.get_nowait()
            if work is not None and work.begin():
                work.error = StoreUnavailable("the key store has stopped; see its log")
                settle_all([work])

    def _commit_group(self, first: Work[Transaction, Any] | None) -> None:
        """Run the waiting works in one transaction, commit it, then tell their callers."""
        group: list[Work[Transaction, Any]] = []
        try:
            for work in self._waiting(first):
                group.append(work)
                if len(group) == 1:
                    self._begin()
                self._run_one(work)
            if group:
                self._commit()
        except Exception as error:  # whatever it is, nobody in the group is left waiting
            log.error("the key store could not commit: %s", error)
            self._roll_back()
            unknown = isinstance(error, StoreUnavailable)
            failure = (
                error
                if unknown
                else StoreUnavailable(f"the key store could not commit ({error}); nothing of it happened")
            )
            for work in group:
                work.error = failure
        settle_all(group)
        self._group_over()

    def _waiting(self, first: Work[Transaction, Any] | None) -> Iterator[Work[Transaction, Any]]:
        """Yield works that wait and were not cancelled, as long as the group has room and time."""
        group_ends_s = time.monotonic() + GROUP_TIME_S_MAX
        works = 0
        work = first
        while work is not None:
            if work.begin():
                yield work
            works += 1
            if works >= WORKS_PER_COMMIT_MAX or time.monotonic() > group_ends_s:
                return
            try:
                work = self._works.get_nowait()
            except queue.Empty:
                return
        self._last_seen = True

    def _run_one(self, work: Work[Transaction, Any]) -> None:
        """Run one work in a savepoint; what it raises is kept for its caller and undoes it alone."""
        self._begin_work()
        try:
            work.result = work.run(self._transaction)
        except BaseException as error:  # as in concurrent.futures: nothing a caller raises ends this thread
            if self._ends_group(error):
                raise
            work.error = error
            self._undo_work()
        self._end_work()
