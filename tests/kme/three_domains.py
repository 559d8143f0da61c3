"""Three domains as processes of their own, made by ``deploy/three-domains/init.sh``.

DE and IT border on AT alone. Each domain has an authority, a controller and a border KME on a loopback
address of its own; the KMEs speak real ETSI GS QKD 020 over mutual TLS; who is where they learn from the
orchestrator.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from openqci.services.sae_client import SAEClient
from tests.conformance.etsi014.make import free_ports
from tests.kme.make import OPENQCI, Process, openqci

INIT = Path(__file__).parents[2] / "deploy" / "three-domains" / "init.sh"
ADDRESSES = {"de": "127.0.1.1", "at": "127.0.2.1", "it": "127.0.3.1"}
WAIT_S = 60.0
PORTS = 5


class ThreeDomains:
    """The processes by name: ``orchestrator``, ``control-de``, ``kme-de``, ..."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "domains"
        # The highest of some free ports; what lies right above it is free on these addresses as a rule.
        self.base = max(free_ports(5)) - PORTS
        path = f"{OPENQCI.parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["sh", INIT],
            cwd=folder,
            env=os.environ | {"PATH": path, "PORT_BASE": str(self.base)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        self.processes = {"orchestrator": self._process("orchestrator", "orchestrator", "orchestrator")}
        for domain in ADDRESSES:
            self.processes[f"control-{domain}"] = self._process(
                f"control-{domain}", "control", f"{domain}/control"
            )
            self.processes[f"kme-{domain}"] = self._process(f"kme-{domain}", "kme", f"{domain}/kme")

    def _process(self, name: str, command: str, place: str) -> Process:
        return Process(self.folder, name, command, "run", "--config", f"{place}/{command}.toml")

    def client(self, domain: str) -> SAEClient:
        """Return the client of a domain's bank at the domain's KME."""
        files = [self.folder / domain / "bank" / name for name in ("cert.pem", "key.pem", "ca.pem")]
        return SAEClient(f"https://{ADDRESSES[domain]}:{self.base}", *files)

    def ask(self, command: str, place: str, verb: str, *words: object, operator: str) -> Any:
        """Run a command that prints JSON as an operator; return what it prints."""
        caller = ("--certificate", f"{operator}/cert.pem", "--key", f"{operator}/key.pem", "--json")
        config = ("--config", f"{place}/{command}.toml")
        return json.loads(openqci(self.folder, command, verb, *config, *caller, *words).stdout)

    def kme_status(self, domain: str) -> Any:
        return json.loads(
            openqci(self.folder, "kme", "status", "--json", "--config", f"{domain}/kme/kme.toml").stdout
        )

    def account_file(self, domain: str) -> Path:
        """Write the account of a domain's KME to a file, as a person would to send it to the partner."""
        words = ("federation", "account", "--json", "--config", f"{domain}/kme/kme.toml")
        file = self.folder / f"account-{domain}.json"
        file.write_text(openqci(self.folder, *words).stdout)
        return file

    def knows_ways(self) -> bool:
        """Tell whether each KME knows where the two other domains are."""
        documents = [self.kme_status(domain)["domain"] for domain in ADDRESSES]
        return all(document is not None and len(document["reaches"]) == 2 for document in documents)

    def keys(self, master: str, slave: str, number: int = 1, timeout_s: float = WAIT_S) -> list[bytes]:
        """Have a master draw keys and its slave fetch them; check that they are the same, and return them."""
        with self.client(master) as one, self.client(slave) as other:
            deadline_s = time.monotonic() + timeout_s
            while (drawn := one.enc_keys(f"bank.{slave}", number)).status == 503:
                assert time.monotonic() < deadline_s, self.logs()
                time.sleep(0.2)
            assert drawn.status == 200, (drawn, self.logs())
            fetched = other.dec_keys(f"bank.{master}", drawn.key_ids)
            assert fetched.status == 200, (fetched, self.logs())
            assert fetched.keys == drawn.keys and len(drawn.keys) == number
            return drawn.keys

    def ask_pending(self) -> int:
        """Return how many keys of any border are on their way."""
        partners = [each for domain in ADDRESSES for each in self.kme_status(domain)["borders"]["partners"]]
        return sum(partner["pending_in"] + partner["due"] for partner in partners)

    def until(self, holds: Callable[[], Any], timeout_s: float = WAIT_S) -> Any:
        deadline_s = time.monotonic() + timeout_s
        while not (found := holds()):
            assert time.monotonic() < deadline_s, self.logs()
            time.sleep(0.2)
        return found

    def logs(self) -> str:
        texts = (f"== {name}\n{each.log.read_text()[-1500:]}" for name, each in self.processes.items())
        return "\n".join(texts)
