"""``kill -9`` at any moment: no key lost that was acknowledged, none delivered twice (invariants I1 to I3).

Applications fetch keys at both ends without pause while the process is killed and started again, several
times. The test keeps its own book of every acknowledged answer and checks it against what comes later.
"""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPException
from pathlib import Path

import pytest

from openqci.services.sae_client import SAEClient
from tests.system.make import RunningNetwork

KILLS = 4
MASTER, SLAVE = "sae-kill-master", "sae-kill-slave"


class Bookkeeper(threading.Thread):
    """A pair of applications that writes down every answer it gets before it asks for more."""

    def __init__(
        self, network: RunningNetwork, ends: tuple[SAEClient, SAEClient], acknowledged: dict[str, bytes]
    ):
        super().__init__(daemon=True)
        self.master, self.slave = ends
        self.acknowledged = acknowledged
        self.fetched: set[str] = set()
        self.in_doubt: set[str] = set()
        self.twice: list[str] = []
        self.unequal: list[str] = []
        self.halt = threading.Event()

    def run(self) -> None:
        while not self.halt.is_set():
            try:
                self.exchange()
            except (OSError, HTTPException):
                time.sleep(0.01)

    def exchange(self) -> None:
        answer = self.master.enc_keys(SLAVE, number=3)
        if answer.status != 200:
            time.sleep(0.05)
            return
        for key_id, key in zip(answer.key_ids, answer.keys, strict=True):
            if key_id in self.acknowledged or key in self.acknowledged.values():
                self.twice.append(key_id)
            self.acknowledged[key_id] = key
        first = answer.key_ids[:1]
        self.in_doubt.update(first)
        fetched = self.slave.dec_keys(MASTER, first)
        if fetched.status == 200:
            self.in_doubt.difference_update(first)
            self.fetched.update(first)
            self.unequal += [key_id for key_id in first if fetched.keys[0] != self.acknowledged[key_id]]


@pytest.fixture
def network(tmp_path: Path) -> Iterator[RunningNetwork]:
    with RunningNetwork("metro", tmp_path / "metro") as running:
        yield running


def end_sites(network: RunningNetwork) -> tuple[str, str]:
    """Return two sites of different domains."""
    first = network.ready["kmes"][0]
    other = next(kme for kme in reversed(network.ready["kmes"]) if kme["domain"] != first["domain"])
    return first["site_id"], other["site_id"]


def test_acknowledged_keys_survive_kill_and_none_comes_twice(network: RunningNetwork) -> None:
    network.start()
    sites = end_sites(network)
    credentials = [network.enrol(site, sae) for site, sae in zip(sites, (MASTER, SLAVE), strict=True)]
    acknowledged: dict[str, bytes] = {}
    fetched: set[str] = set()
    in_doubt: set[str] = set()
    moments = random.Random(20)
    for _ in range(KILLS):
        with (
            closing(network.client(sites[0], credentials[0])) as master,
            closing(network.client(sites[1], credentials[1])) as slave,
        ):
            bookkeeper = Bookkeeper(network, (master, slave), acknowledged)
            bookkeeper.start()
            wait_for_keys(bookkeeper, len(acknowledged) + 10)
            time.sleep(moments.uniform(0, 0.7))
            network.kill()
            bookkeeper.halt.set()
            bookkeeper.join(timeout=20)
        assert not bookkeeper.twice and not bookkeeper.unequal
        fetched |= bookkeeper.fetched
        in_doubt |= bookkeeper.in_doubt
        network.start()
    assert len(fetched) >= KILLS
    with closing(network.client(sites[1], credentials[1])) as slave:
        for key_id in sorted(fetched)[:20]:
            assert slave.dec_keys(MASTER, [key_id]).status == 400, "a delivered key came a second time"
        # A kill between the durable removal and the answer leaves the slave in doubt; the rest must be there.
        waiting = [key_id for key_id in acknowledged if key_id not in fetched | in_doubt]
        assert waiting
        for key_id in waiting:
            answer = slave.dec_keys(MASTER, [key_id])
            assert answer.status == 200, f"an acknowledged key was lost: {answer.status}"
            assert answer.keys == [acknowledged[key_id]]
    assert network.stop() == 0


def wait_for_keys(bookkeeper: Bookkeeper, count: int, timeout_s: float = 60) -> None:
    deadline_s = time.monotonic() + timeout_s
    while len(bookkeeper.acknowledged) < count:
        assert time.monotonic() < deadline_s, "no keys flow"
        time.sleep(0.02)
