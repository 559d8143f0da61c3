"""The demand of the scenario: its applications ask for keys as any application does.

Each flow is a pair of SAEs that fetch keys over mutual TLS from their own KMEs, compare the bytes and throw
them away. There is no shorter way inside: what this shows is what a customer gets. An application whose stock
has not come yet looks again later, ever less often.
"""

import heapq
import logging
import ssl
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

from openqci.cli.up.granting import GrantedFlow
from openqci.services.sae_client import SAEClient

log = logging.getLogger(__name__)

RETRY_WAIT_S = 5.0
RETRY_WAIT_S_MAX = 60.0
"""A flow whose keys were not there yet asks again after the first, then after twice that and so on up to the
second."""

STEP_S = 0.1
BEGIN_WITHIN_S = 60.0
"""Flows begin one step after the other, or closer together where there are too many for that."""

THREADS = 4
"""Most of the time of a request is spent in the network's own process; more threads would only wait there."""


@dataclass
class FlowLine:
    """One flow: when it wants its next keys, and what it has got so far."""

    granted: GrantedFlow
    due_s: float
    keys: int = 0
    refused_in_turn: int = 0
    unequal: int = 0

    @property
    def looks_first(self) -> bool:
        """Whether it asks for the state of its stock before it asks for keys, for which it would wait."""
        return not self.keys or self.refused_in_turn > 0


@dataclass
class _Application:
    """One SAE's connection; flows that share it take turns."""

    url: str
    folder: Path
    turn: threading.Lock = field(default_factory=threading.Lock)
    client: SAEClient | None = None

    def connected(self) -> SAEClient:
        if self.client is None:
            names = ("cert.pem", "key.pem", "ca.pem")
            self.client = SAEClient(self.url, *(self.folder / name for name in names))
        return self.client

    def close(self) -> None:
        if self.client is not None:
            self.client.close()
            self.client = None


class ScenarioLoad:
    """Runs all flows of a scenario on a few threads."""

    def __init__(
        self, flows: Collection[GrantedFlow], urls: Mapping[str, str], saes_dir: Path, speed: float
    ) -> None:
        now_s, step_s = time.monotonic(), min(STEP_S, BEGIN_WITHIN_S / max(1, len(flows)))
        self.lines = [FlowLine(flow, now_s + number * step_s) for number, flow in enumerate(flows)]
        self._speed = speed
        ends = {end for flow in flows for end in (flow.flow.master, flow.flow.slave)}
        self._applications = {sae: _Application(urls[sae], saes_dir / sae) for sae in ends}
        self._waiting = [(line.due_s, number) for number, line in enumerate(self.lines)]
        self._changed = threading.Condition()
        self._stopped = False
        self._threads = [
            threading.Thread(target=self._run, name=f"scenario-load-{number}", daemon=True)
            for number in range(min(THREADS, len(self.lines)))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout=15)

    def served(self) -> dict[str, int]:
        """Return how many flows there are, how many have got keys, and how many keys all have got."""
        return {
            "flows": len(self.lines),
            "flows_served": sum(line.keys > 0 for line in self.lines),
            "keys": sum(line.keys for line in self.lines),
            "keys_unequal": sum(line.unequal for line in self.lines),
        }

    def _run(self) -> None:
        while (number := self._next()) is not None:
            line = self.lines[number]
            wait_s = self._fetch(line)
            # A flow that is late goes on from now: what it has missed, it has missed.
            line.due_s = max(line.due_s, time.monotonic() - wait_s) + wait_s
            with self._changed:
                heapq.heappush(self._waiting, (line.due_s, number))
                self._changed.notify()
        for application in self._applications.values():
            with application.turn:
                application.close()

    def _next(self) -> int | None:
        """Wait for the next flow that is due; None when the load is to stop."""
        with self._changed:
            while not self._stopped:
                wait_s = self._waiting[0][0] - time.monotonic() if self._waiting else None
                if wait_s is not None and wait_s <= 0:
                    return heapq.heappop(self._waiting)[1]
                self._changed.wait(wait_s)
        return None

    def _fetch(self, line: FlowLine) -> float:
        """Fetch keys at both ends; return how long to wait for the next."""
        flow, number = line.granted.flow, line.granted.keys_at_once
        master, slave = self._applications[flow.master], self._applications[flow.slave]
        try:
            with master.turn:
                if line.looks_first and not has_stock(master.connected(), line.granted):
                    return self._refused(line)
                at_master = master.connected().enc_keys(flow.slave, number=number, size=flow.key_size_bits)
            if at_master.status != 200:
                return self._refused(line)
            with slave.turn:
                at_slave = slave.connected().dec_keys(flow.master, at_master.key_ids)
        except (OSError, ssl.SSLError, HTTPException) as error:
            # While the network stops, connections end under our feet; asking again later is all there is.
            log.debug("flow %s to %s: %s", flow.master, flow.slave, error)
            for application in (master, slave):
                with application.turn:
                    application.close()
            return RETRY_WAIT_S
        line.keys, line.refused_in_turn = line.keys + number, 0
        if at_slave.status != 200 or at_slave.keys != at_master.keys:
            line.unequal += 1
            log.error("flow %s to %s: the slave did not get the master's keys", flow.master, flow.slave)
        return line.granted.interval_s / self._speed

    def _refused(self, line: FlowLine) -> float:
        wait_s = min(RETRY_WAIT_S_MAX, RETRY_WAIT_S * 2.0 ** min(line.refused_in_turn, 8))
        line.refused_in_turn += 1
        return wait_s / self._speed


def has_stock(client: SAEClient, granted: GrantedFlow) -> bool:
    """Ask a KME whether it has the keys that a flow wants each time in stock."""
    answer = client.status(granted.flow.slave)
    return answer.status == 200 and answer.body["stored_key_count"] >= granted.keys_at_once
