"""The live figures, encoded once a second however many consoles are open.

Not a queue: a slow reader skips seconds instead of holding them. See ``/api/live`` in :mod:`.api`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import msgspec

PERIOD_S = 1.0
"""One event a second: enough for an eye, and next to nothing beside the distillation."""

SUBSCRIBERS_MAX = 16
"""Open event streams; each holds a socket and sends some 20 kB/s at the size of Europe."""


class LiveFeed:
    """Shares one encoded answer of ``live`` among all who ask within the same second."""

    def __init__(self, live: Callable[[], dict[str, object]], period_s: float = PERIOD_S) -> None:
        self._live = live
        self._period_s = period_s
        self._figures_json = b""
        self._stale_at_s = 0.0
        self._closing = asyncio.Event()
        self.subscribers = 0

    def latest_json(self) -> bytes:
        """Return the figures as JSON, at most one period old."""
        now_s = time.monotonic()
        if now_s >= self._stale_at_s:
            self._figures_json = msgspec.json.encode(self._live())
            # a little less than a period, so that a subscriber who wakes early still gets new figures
            self._stale_at_s = now_s + 0.9 * self._period_s
        return self._figures_json

    def is_full(self) -> bool:
        """Say whether one more stream would pass the limit."""
        return self.subscribers >= SUBSCRIBERS_MAX

    async def events(self) -> AsyncIterator[bytes]:
        """Yield one server-sent event now and one each period, until the feed closes or the reader goes.

        Ends at once when the feed is full: the limit holds even for requests that came together.
        """
        if self.is_full():
            return
        self.subscribers += 1
        try:
            while not self._closing.is_set():
                yield b"data: " + self.latest_json() + b"\n\n"
                await self._one_period()
        finally:
            self.subscribers -= 1

    def close(self) -> None:
        """End every open stream within moments, so that the server can stop."""
        self._closing.set()

    async def _one_period(self) -> None:
        try:
            await asyncio.wait_for(self._closing.wait(), self._period_s)
        except TimeoutError:
            return
