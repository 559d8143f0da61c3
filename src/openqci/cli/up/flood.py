"""An application that floods its KME: a process of its own, with nothing but its certificate.

Run as ``python -m openqci.cli.up.flood URL FOLDER SLAVE``. It asks for keys on many connections as fast as
it is answered, throws them away, and prints its counts once a second as a line of JSON. It ends when its
standard input does, so that no flood outlives the network that let it loose.
"""

import json
import os
import sys
import threading
from collections import Counter
from http.client import HTTPException
from pathlib import Path

from openqci.core.errors import OpenQCIError
from openqci.services.sae_client import SAEClient

CONNECTIONS = 80
"""More than may wait for key of one pair, so that the KME has to refuse, and is asked again at once."""

KEYS_PER_REQUEST = 8
NICENESS = 10
"""The flood is a load from outside: it must not take the processor from what it is to strain."""

AFTER_ERROR_S = 0.2


class Flood:
    """All connections of one flooding application."""

    def __init__(self, url: str, folder: Path, slave: str) -> None:
        self._url, self._folder, self._slave = url, folder, slave
        self._counts: Counter[str] = Counter()
        self._gate = threading.Lock()
        self._over = threading.Event()

    def run(self) -> None:
        """Flood until standard input ends."""
        threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        threading.Thread(target=self._tell, daemon=True).start()
        sys.stdin.buffer.read()
        self._over.set()

    def _tell(self) -> None:
        while not self._over.wait(1.0):
            with self._gate:
                text = json.dumps(dict(self._counts))
            print(text, flush=True)

    def _count(self, *names: str) -> None:
        with self._gate:
            self._counts.update(names)

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                self._ask_on_one_connection()
            except (OSError, HTTPException, OpenQCIError):
                # The KME has closed the connection, or is gone for now: that is what a flood must bear.
                self._count("errors")
                self._over.wait(AFTER_ERROR_S)

    def _ask_on_one_connection(self) -> None:
        folder = self._folder
        with SAEClient(self._url, folder / "cert.pem", folder / "key.pem", folder / "ca.pem") as client:
            while not self._over.is_set():
                answer = client.enc_keys(self._slave, number=KEYS_PER_REQUEST)
                self._count("requests", "served" if answer.status == 200 else "refused")


if __name__ == "__main__":
    os.nice(NICENESS)
    Flood(sys.argv[1], Path(sys.argv[2]), sys.argv[3]).run()
