"""Simulated time: it runs ``speed`` times as fast as the wall clock and goes on where a restart left it."""

import asyncio
import time


class SimulatedClock:
    """Simulated seconds since the network was commissioned."""

    def __init__(self, start_s: float, speed: float) -> None:
        self._start_s = start_s
        self._began_s = time.monotonic()
        self.speed = speed

    def now_s(self) -> float:
        return self._start_s + (time.monotonic() - self._began_s) * self.speed

    async def wait_until(self, time_s: float) -> None:
        """Sleep until the given simulated time; return at once if it has passed."""
        wait_s = (time_s - self.now_s()) / self.speed
        if wait_s > 0:
            await asyncio.sleep(wait_s)
