"""Workers that hang, that cannot start, that cannot learn a root key: what their coordinator makes of it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from openqci.core.errors import ConfigurationError
from openqci.core.identifiers import KmeId
from openqci.services import worker_pool
from openqci.services.data_directory import is_dead, lock_directory
from openqci.services.kme_app import KmeApp
from openqci.services.kme_config import LoadedConfig
from openqci.services.kme_config_file import load_config
from openqci.services.pki import CertificateAuthority, write_credentials
from openqci.services.state_folder import StateFolder
from openqci.services.worker_channel import Act, Setup
from openqci.services.worker_pool import WorkerFault, WorkerPool
from tests.keystore.postgres import new_schema, server_url
from tests.system.make import free_port_base


def node(folder: Path, workers: int = 2) -> LoadedConfig:
    """Make a node without peers, on PostgreSQL."""
    authority = CertificateAuthority.open_or_create(folder / "pki")
    write_credentials(folder, authority.issue_kme(KmeId("kme-a"), ["127.0.0.1"]), authority)
    (folder / "database").write_text(server_url())
    (folder / "database").chmod(0o600)
    port = free_port_base(3, 16800)
    (folder / "kme.toml").write_text(f"""version = 1
[node]
kme_id = "kme-a"
state_dir = "state"
workers = {workers}
[store]
kind = "postgresql"
url_file = "database"
schema_name = "{new_schema()}"
[tls]
certificate = "cert.pem"
key = "key.pem"
authority = "ca.pem"
[listen]
sae = "127.0.0.1:{port}"
peer = "127.0.0.1:{port + 1}"
operator = "127.0.0.1:{port + 2}"
""")
    loaded = load_config(folder / "kme.toml")
    StateFolder.make(loaded)
    return loaded


def with_node(folder: Path, scenario: Callable[[KmeApp, WorkerPool], Awaitable[None]]) -> None:
    """Run a node with two workers in this process, and a scenario beside it."""

    async def run() -> None:
        app = KmeApp(node(folder), lambda loaded, link, store: pytest.fail("there are no links"))
        try:
            await app.start()
            assert app.workers is not None
            await scenario(app, app.workers)
        finally:
            await app.close()

    uvloop.run(run())


async def until(holds: Callable[[], Any], within_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.02)


def pids(pool: WorkerPool) -> list[int]:
    return [worker["pid"] for worker in pool.status() if worker["serving"]]


def test_a_worker_that_hangs_is_killed_and_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "LOOK_EVERY_S", 0.2)

    async def scenario(app: KmeApp, pool: WorkerPool) -> None:
        first, second = pids(pool)
        monkeypatch.setattr(worker_pool, "ANSWER_S_MAX", 1.0)
        os.kill(first, signal.SIGSTOP)
        await until(lambda: first not in pids(pool))
        monkeypatch.setattr(worker_pool, "ANSWER_S_MAX", 20.0)
        await until(lambda: len(pids(pool)) == 2)
        assert second in pids(pool) and is_dead(str(first))
        assert app.watch.alarms() == []

    with_node(tmp_path, scenario)


def test_a_worker_that_hangs_cannot_hold_up_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "DRAIN_S_MAX", 1.0)
    stopped: list[int] = []

    async def scenario(app: KmeApp, pool: WorkerPool) -> None:
        stopped.extend(pids(pool))
        os.kill(stopped[1], signal.SIGSTOP)

    with_node(tmp_path, scenario)
    assert len(stopped) == 2 and all(is_dead(str(pid)) for pid in stopped)


def test_nothing_is_sealed_under_a_root_key_that_a_worker_could_not_learn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(app: KmeApp, pool: WorkerPool) -> None:
        keyring, (kek,) = app._keyring(), (tmp_path / "state").glob("kek-*")
        make_root, hidden = keyring.make_root, tmp_path / "hidden"

        def make_and_hide() -> None:
            make_root()
            kek.rename(hidden)

        monkeypatch.setattr(keyring, "make_root", make_and_hide)
        with pytest.raises(WorkerFault, match=r"worker 1: .*worker 2: "):
            await app.renew()
        hidden.rename(kek)
        assert keyring.numbers == (1, 2) and keyring.sealer.current == 1
        # A worker that starts now has the new key in its keyring, and must not seal under it either.
        first = pids(pool)[0]
        os.kill(first, signal.SIGKILL)
        await until(lambda: len(pids(pool)) == 2 and first not in pids(pool))
        assert await app.renew() == 2
        assert keyring.sealer.current == 2 and keyring.numbers == (2,)
        await pool.order(Act.ANSWER)

    with_node(tmp_path, scenario)


def test_no_worker_starts_while_the_keyring_changes(tmp_path: Path) -> None:
    async def scenario(app: KmeApp, pool: WorkerPool) -> None:
        first = pids(pool)[0]
        async with pool.steady():
            os.kill(first, signal.SIGKILL)
            await until(lambda: len(pids(pool)) == 1)
            await asyncio.sleep(0.5)
            assert pool._starting == 0 and len(pids(pool)) == 1
            assert await app.reasons_not_ready() == []
        await until(lambda: len(pids(pool)) == 2)

    with_node(tmp_path, scenario)


def test_a_worker_that_cannot_start_stops_the_node_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = node(tmp_path)
    setup = WorkerPool._setup

    def with_a_root_key_that_is_not_there(pool: WorkerPool, number: int) -> Setup:
        return msgspec.structs.replace(setup(pool, number), root_key=9)

    monkeypatch.setattr(WorkerPool, "_setup", with_a_root_key_that_is_not_there)

    async def run() -> None:
        app = KmeApp(loaded, lambda loaded, link, store: pytest.fail("there are no links"))
        try:
            with pytest.raises(
                ConfigurationError, match=r"a worker of kme-a .*only a root key that is known"
            ):
                await app.start()
        finally:
            await app.close()

    uvloop.run(run())


COORDINATOR_THAT_DIES = """
import os, subprocess, sys
from pathlib import Path
from openqci.services.data_directory import lock_directory
lock = lock_directory(Path(sys.argv[1]))
worker = [sys.executable, "-c", "import time; time.sleep(1.0)"]
subprocess.Popen(worker, pass_fds=[lock], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(os.getpid())
"""


def test_a_folder_is_waited_for_while_the_workers_of_a_dead_node_end(tmp_path: Path) -> None:
    command = [sys.executable, "-c", COORDINATOR_THAT_DIES, tmp_path]
    dead = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    with pytest.raises(ConfigurationError, match=f"is in use by process {dead}"):
        lock_directory(tmp_path)
    os.close(lock_directory(tmp_path, 10.0))


def test_a_folder_whose_holder_lives_is_not_waited_for(tmp_path: Path) -> None:
    lock, began_s = lock_directory(tmp_path), time.monotonic()
    with pytest.raises(ConfigurationError, match=f"is in use by process {os.getpid()}"):
        lock_directory(tmp_path, 10.0)
    assert time.monotonic() - began_s < 5.0
    os.close(lock)
