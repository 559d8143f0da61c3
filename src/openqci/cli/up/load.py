"""The demand of the scenario: its applications ask for keys as any application does.

Each flow is a pair of SAEs that fetch a key over mutual TLS from their own KMEs, compare the bytes and throw
them away. There is no shorter way inside: what this shows is what a customer gets.
"""

import logging
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from openqci.network import Flow
from openqci.services.sae_client import SAEClient

log = logging.getLogger(__name__)

RETRY_WAIT_S = 5.0
"""A flow whose key was refused (no stock yet) asks again after this long."""

TICK_S = 0.1


@dataclass
class FlowLine:
    """One flow: when it wants its next key, and what it has got so far."""

    flow: Flow
    due_s: float
    keys: int = 0
    refused: int = 0
    unequal: int = 0


class ScenarioLoad:
    """Runs all flows of a scenario, one request after the other, on one thread."""

    def __init__(
        self, flows: tuple[Flow, ...], urls: Mapping[str, str], saes_dir: Path, speed: float
    ) -> None:
        now_s = time.monotonic()
        self.lines = [
            FlowLine(flow, now_s + index * TICK_S) for index, flow in enumerate(flows) if flow.keys_per_s > 0
        ]
        self._urls, self._saes_dir, self._speed = urls, saes_dir, speed
        self._clients: dict[str, SAEClient] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scenario-load", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=15)

    def _run(self) -> None:
        while not self._stop.is_set():
            now_s = time.monotonic()
            for line in self.lines:
                if line.due_s <= now_s and not self._stop.is_set():
                    wait_s = self._fetch(line)
                    line.due_s = max(line.due_s, now_s - wait_s) + wait_s
            self._stop.wait(TICK_S)
        for client in self._clients.values():
            client.close()

    def _fetch(self, line: FlowLine) -> float:
        """Fetch one key at both ends; return how long to wait for the next."""
        flow = line.flow
        try:
            at_master = self._client(flow.master).enc_keys(flow.slave, number=1, size=flow.key_size_bits)
            if at_master.status != 200:
                line.refused += 1
                return RETRY_WAIT_S / self._speed
            at_slave = self._client(flow.slave).dec_keys(flow.master, at_master.key_ids)
        except (OSError, ssl.SSLError, HTTPException) as error:
            # While the network stops, connections end under our feet; asking again later is all there is.
            log.debug("flow %s to %s: %s", flow.master, flow.slave, error)
            self._forget(flow.master, flow.slave)
            return RETRY_WAIT_S
        line.keys += 1
        if at_slave.status != 200 or at_slave.keys != at_master.keys:
            line.unequal += 1
            log.error("flow %s to %s: the slave did not get the master's key", flow.master, flow.slave)
        return 1 / (flow.keys_per_s * self._speed)

    def _client(self, sae_id: str) -> SAEClient:
        if sae_id not in self._clients:
            folder = self._saes_dir / sae_id
            self._clients[sae_id] = SAEClient(
                self._urls[sae_id], folder / "cert.pem", folder / "key.pem", folder / "ca.pem"
            )
        return self._clients[sae_id]

    def _forget(self, *sae_ids: str) -> None:
        for sae_id in sae_ids:
            if (client := self._clients.pop(sae_id, None)) is not None:
                client.close()
