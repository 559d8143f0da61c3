"""The notifications of an agent as a stream of server-sent events (RFC 8040, clause 6).

Every subscriber gets each notification once, from when it subscribed, or from its ``start-time`` on as far as
the log goes back: the latest ``REPLAY_MAX`` since the node's start. A subscriber that does not read is parted
from, and can subscribe again from where it was.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime

import msgspec

from openqci.control.etsi015.model import MODULE
from openqci.control.etsi015.notices import Notice

REPLAY_MAX = 1_000
WAITING_MAX = 1_000
"""Notifications that may wait for one subscriber."""

SUBSCRIBERS_MAX = 32
HEARTBEAT_S = 15.0
"""So often a line is sent if there is nothing to say, so that a dead connection is noticed."""

HEARTBEAT = b": \n\n"

Event = tuple[float, bytes]
"""When it came about, and the lines that are sent."""


def event_of(notice: Notice, at_s: float) -> Event:
    """Return a notification as an event."""
    when = datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    document = {"ietf-restconf:notification": {"eventTime": when, f"{MODULE}:{notice.name}": notice.content}}
    return at_s, b"data: " + msgspec.json.encode(document) + b"\n\n"


class NoticeLog:
    """What was notified of since the node's start, and who listens."""

    def __init__(self) -> None:
        self.created_s = time.time()
        self._events: deque[Event] = deque(maxlen=REPLAY_MAX)
        self._waiting: set[asyncio.Queue[Event | None]] = set()
        self._closed = False

    def add(self, notices: Iterable[Notice]) -> None:
        """Tell all who listen."""
        now_s = time.time()
        for notice in notices:
            event = event_of(notice, now_s)
            self._events.append(event)
            for queue in list(self._waiting):
                self._put(queue, event)

    def is_full(self) -> bool:
        """Tell whether nobody more can listen."""
        return len(self._waiting) >= SUBSCRIBERS_MAX

    def close(self) -> None:
        """End all streams."""
        self._closed = True
        for queue in list(self._waiting):
            self._part_from(queue)

    async def stream(self, start_s: float | None, stop_s: float | None) -> AsyncIterator[bytes]:
        """Yield events: those of the log from ``start_s`` on, then what comes, until ``stop_s``."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue(WAITING_MAX + 1)
        past = [event for event in self._events if start_s is not None and event[0] >= start_s]
        self._waiting.add(queue)
        if self._closed:
            self._part_from(queue)
        try:
            yield HEARTBEAT  # the answer begins at once, though nothing may come for long
            for at_s, lines in past:
                if stop_s is None or at_s <= stop_s:
                    yield lines
            while stop_s is None or time.time() < stop_s:
                wait_s = HEARTBEAT_S if stop_s is None else min(HEARTBEAT_S, stop_s - time.time())
                try:
                    async with asyncio.timeout(max(0.0, wait_s)):
                        event = await queue.get()
                except TimeoutError:
                    yield HEARTBEAT
                    continue
                if event is None:
                    return
                yield event[1]
        finally:
            self._waiting.discard(queue)

    def _put(self, queue: "asyncio.Queue[Event | None]", event: Event) -> None:
        if queue.qsize() >= WAITING_MAX:
            self._part_from(queue)
        else:
            queue.put_nowait(event)

    def _part_from(self, queue: "asyncio.Queue[Event | None]") -> None:
        """End a stream once its subscriber has read what waits."""
        self._waiting.discard(queue)
        queue.put_nowait(None)
