"""Nodes as an operator runs them: ``openqci kme`` in processes of their own, over real sockets and TLS."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openqci.services.sae_client import SAEClient

OPENQCI = Path(sys.executable).with_name("openqci")
START_S_MAX = 60.0
STOP_S_MAX = 30.0


class Process:
    """An ``openqci`` command that runs until it is told to stop; its output goes to a file."""

    def __init__(self, cwd: Path, name: str, *words: object) -> None:
        self.log = cwd / f"{name}.log"
        self._cwd, self._words = cwd, [str(OPENQCI), *map(str, words)]
        self.process: subprocess.Popen[bytes] | None = None
        self._said = 0

    def start(self) -> None:
        """Start it; return once it has said that it is ready."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start it and do not wait."""
        self._said = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._words, cwd=self._cwd, stdout=log, stderr=log)

    def wait(self) -> None:
        """Return once it has said that it is ready."""
        assert self.process is not None
        deadline_s = time.monotonic() + START_S_MAX
        while b"ready\n" not in self.log.read_bytes()[self._said :]:
            if self.process.poll() is not None or time.monotonic() > deadline_s:
                raise AssertionError(f"{self._words} is not ready:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """``kill -9``."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> int:
        """Ask it to stop; return its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S_MAX)


@contextlib.contextmanager
def running(*processes: Process) -> Iterator[None]:
    """Start processes; whatever happens, none is left behind."""
    try:
        for process in processes:
            process.launch()
        for process in processes:
            process.wait()
        yield
    finally:
        for process in processes:
            process.kill()


def openqci(cwd: Path, *words: object, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and check its exit code."""
    done = subprocess.run(
        [OPENQCI, *map(str, words)], cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == expect, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def status_of(cwd: Path, config: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(openqci(cwd, "kme", "status", "--json", "--config", config).stdout)
    return document


def sae(cwd: Path, folder: str, port: int) -> SAEClient:
    """Return an application's client with the credentials in a folder."""
    files = [cwd / folder / name for name in ("cert.pem", "key.pem", "ca.pem")]
    return SAEClient(f"https://localhost:{port}", *files)


def keys_in_time(client: SAEClient, slave: str, number: int = 1, timeout_s: float = 60.0) -> Any:
    """Ask until the stock has key."""
    deadline_s = time.monotonic() + timeout_s
    while (answer := client.enc_keys(slave, number)).status == 503 and time.monotonic() < deadline_s:
        time.sleep(0.1)
    return answer
