"""A live network as a user runs it: the ``openqci`` command in a process of its own, over real sockets."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from openqci.services.sae_client import Answer, SAEClient

OPENQCI = Path(sys.executable).with_name("openqci")


def free_port_base(ports: int, start: int = 20000) -> int:
    """Return the first of ``ports`` neighbouring loopback ports that nobody listens on."""
    # Parallel test workers look in ranges of their own, and so do other test runs on the same machine.
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    base = start + 4000 * worker + 40 * (os.getppid() % 40)
    while not all(port_is_free(port) for port in range(base, base + ports)):
        base += ports
    return base


def port_is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class RunningNetwork:
    """``openqci up`` in the background on a data directory."""

    def __init__(
        self, scenario: str, data_dir: Path, *, ports: int = 40, extra: tuple[str, ...] = ()
    ) -> None:
        self.scenario, self.data_dir, self.extra = scenario, data_dir, extra
        self.port_base = free_port_base(ports)
        self.ready_file = data_dir.with_name(data_dir.name + "-ready.json")
        self.log = data_dir.with_name(data_dir.name + "-log.txt")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, timeout_s: float = 60) -> float:
        """Start, wait until the ready file is there; return the seconds it took."""
        with suppress(FileNotFoundError):
            self.ready_file.unlink()
        arguments = ["up", "--scenario", self.scenario, "--data-dir", self.data_dir, *self.extra]
        arguments += ["--port-base", str(self.port_base), "--ready-file", self.ready_file]
        began_s = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([OPENQCI, *map(str, arguments)], stdout=log, stderr=log)
        while not self.ready_file.exists():
            if self.process.poll() is not None or time.monotonic() - began_s > timeout_s:
                raise AssertionError(f"not ready after {timeout_s} s:\n{self.log.read_text()}")
            time.sleep(0.05)
        return time.monotonic() - began_s

    @property
    def ready(self) -> dict[str, Any]:
        return dict(json.loads(self.ready_file.read_text()))

    def kill(self) -> None:
        """``kill -9`` of the process that holds the stores and the interfaces."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask it to stop as an operator does; return its exit code."""
        if self.process is None or self.process.poll() is not None:
            return 0 if self.process is None else int(self.process.returncode)
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    def __enter__(self) -> "RunningNetwork":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def kme_url(self, site_id: str) -> str:
        return next(kme["url"] for kme in self.ready["kmes"] if kme["site_id"] == site_id)

    def enrol(self, site_id: str, sae_id: str) -> Path:
        """Enrol an SAE and return the folder with its certificate."""
        out = self.data_dir.with_name(f"{self.data_dir.name}-{sae_id}")
        run("sae", "enrol", "--data-dir", self.data_dir, "--site", site_id, "--id", sae_id, "--out", out)
        return out

    def client(self, site_id: str, credentials: Path) -> SAEClient:
        return SAEClient(
            self.kme_url(site_id), credentials / "cert.pem", credentials / "key.pem", credentials / "ca.pem"
        )

    def console(self, path: str) -> Any:
        with urlopen(self.ready["console_url"].rstrip("/") + path, timeout=10) as answer:
            return json.load(answer)


def keys_in_time(client: SAEClient, slave: str, number: int, timeout_s: float = 90) -> Answer:
    """Ask as master until there is key, as an application does that honours 503."""
    deadline_s = time.monotonic() + timeout_s
    while (answer := client.enc_keys(slave, number=number)).status == 503:
        assert time.monotonic() < deadline_s, answer.message
        time.sleep(0.2)
    assert answer.status == 200, answer.message
    return answer


def run(*arguments: object, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run an ``openqci`` command to its end and check its exit code."""
    done = subprocess.run([OPENQCI, *map(str, arguments)], capture_output=True, text=True, timeout=240)
    assert done.returncode == expect, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
