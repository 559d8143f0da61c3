"""A chain of KMEs as processes: a node at each place, a pair of simulated modules on each hop, one domain."""

import json
import shutil
from pathlib import Path
from typing import Any

from tests.conformance.etsi014.make import free_ports
from tests.kme.make import Process, openqci, status_of


class Chain:
    """Nodes ``kme-0 - kme-1 - ...`` in laboratory mode, joined by links ``0--1``, ``1--2``, and ``more``.

    Every node serves ``app-N``. The configuration of the domain is signed for all of them.
    """

    def __init__(
        self,
        folder: Path,
        nodes: int,
        *,
        more: tuple[tuple[int, int], ...] = (),
        speed: float = 100.0,
        target: int = 2,
    ) -> None:
        self.folder, self.nodes, self.target = folder, nodes, target
        self.kem_keys: dict[int, dict[str, str]] = {}
        self.links = [*((place, place + 1) for place in range(nodes - 1)), *more]
        ports = free_ports(3 * nodes + 2 * len(self.links))
        self.ports = [ports[3 * place : 3 * place + 3] for place in range(nodes)]
        module_ports = ports[3 * nodes :]
        openqci(folder, "pki", "create", "ca")
        openqci(folder, "pki", "issue", "ca", "--role", "operator", "--name", "ana", "--out", "operator")
        openqci(
            folder, "pki", "issue", "ca", "--role", "controller", "--name", "control", "--out", "controller"
        )
        self._module_ports: dict[int, int] = {}
        for number in range(len(self.links)):
            self._make_modules(number, module_ports[2 * number], speed)
        for place in range(nodes):
            self._make_node(place)
        self.sign(1)
        self.modules = [
            Process(folder, f"log-modules-{number}", "kme", "modules", f"modules-{number}")
            for number in range(len(self.links))
        ]
        self.kmes = [
            Process(folder, f"log-{place}", "kme", "run", "--config", f"node-{place}/kme.toml")
            for place in range(nodes)
        ]

    def name(self, number: int) -> str:
        a, b = self.links[number]
        return f"{a}--{b}"

    def sign(self, version: int, *, unusable: tuple[str, ...] = (), **pair: Any) -> None:
        """Sign a configuration of the domain; nodes take it when they start, or on SIGHUP."""
        keys = self.kem_keys
        document = {
            "domain": "XX",
            "version": version,
            "nodes": [
                {"kme_id": f"kme-{place}", "saes": [f"app-{place}"], **keys.get(place, {})}
                for place in range(self.nodes)
            ],
            "links": [
                {
                    "link_id": self.name(number),
                    "a": f"kme-{a}",
                    "b": f"kme-{b}",
                    "rate_bps": 10_000.0,
                    "simulated": True,
                    "usable": self.name(number) not in unusable,
                }
                for number, (a, b) in enumerate(self.links)
            ],
            "pairs": [{"master": "app-0", "slave": f"app-{self.target}", **pair}] if pair else [],
        }
        (self.folder / "domain.yaml").write_text(json.dumps(document))
        words = ("--key", "controller/key.pem", "--out", "domain.json")
        openqci(self.folder, "control", "sign", "domain.yaml", *words)

    def learn_kem_keys(self) -> None:
        """Ask running nodes for the keys that hybrids are encapsulated to, for configurations from now on."""
        for place in range(self.nodes):
            told = self.status(place)["kem"]
            self.kem_keys[place] = {"kem_key_id": told["key_id"], "kem_public_key": told["public_key"]}

    def status(self, place: int) -> dict[str, Any]:
        return status_of(self.folder, f"node-{place}/kme.toml")

    def sae_port(self, place: int) -> int:
        return self.ports[place][0]

    def credentials(self, place: int) -> str:
        """Issue a certificate for the application of a node; return its folder."""
        folder = f"app-{place}"
        if not (self.folder / folder).exists():
            openqci(self.folder, "pki", "issue", "ca", "--role", "sae", "--name", folder, "--out", folder)
        return folder

    def _make_modules(self, number: int, port: int, speed: float) -> None:
        a, b = self.links[number]
        words = ("--init", "--nodes", f"kme-{a},kme-{b}", "--port-base", port, "--length-km", 20)
        openqci(self.folder, "kme", "modules", f"modules-{number}", *words, "--speed", speed)
        self._module_ports[number] = port

    def _make_node(self, place: int) -> None:
        folder = f"node-{place}"
        words = ("--kme-id", f"kme-{place}", "--authority", "ca", "--bind", "127.0.0.1", "--laboratory")
        port_base = self.ports[place][0]
        openqci(self.folder, "kme", "init", folder, *words, "--sae", f"app-{place}", "--port-base", port_base)
        file = self.folder / folder / "kme.toml"
        text = file.read_text()
        for port, name in zip(self.ports[place], ("sae", "peer", "operator"), strict=True):
            text = set_port(text, name, port)
        text += '\n[domain]\nsigner = "../controller/cert.pem"\nconfiguration = "../domain.json"\n'
        for number, ends in enumerate(self.links):
            if place in ends:
                text += self._link_text(number, place)
        file.write_text(text)

    def _link_text(self, number: int, place: int) -> str:
        a, b = self.links[number]
        other, end = (b, "a") if place == a else (a, "b")
        port = self._module_ports[number] + (end == "b")
        credentials = shutil.copytree(
            self.folder / f"modules-{number}" / f"node-{end}",
            self.folder / f"node-{place}" / f"module-{number}",
            dirs_exist_ok=True,
        ).name
        known = f'kme_id = "kme-{other}"\n'
        peer = (
            f'\n[[peer]]\n{known}url = "https://localhost:{self.ports[other][1]}"\nsaes = ["app-{other}"]\n'
        )
        return (
            f'{peer}\n[[link]]\nid = "{self.name(number)}"\npeer = "kme-{other}"\n'
            f"leads = {'true' if end == 'a' else 'false'}\n"
            f'[link.etsi014]\nurl = "https://localhost:{port}"\npeer_sae_id = "kme-{other}"\n'
            f'certificate = "{credentials}/cert.pem"\nkey = "{credentials}/key.pem"\n'
            f'authority = "{credentials}/ca.pem"\nsimulated = true\n'
        )


def set_port(text: str, name: str, port: int) -> str:
    """Give an interface of a kme.toml another port."""
    lines = [
        f'{name} = "127.0.0.1:{port}"' if line.startswith(f"{name} = ") else line for line in text.split("\n")
    ]
    return "\n".join(lines)
