"""Two whole nodes in this process, joined by real TLS, with modules that give random key, and 004 clients."""

import asyncio
import os
import ssl
import threading
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import uvloop

from openqci.core.errors import IntegrityError
from openqci.core.identifiers import KmeId, SaeId
from openqci.core.keys import SecretBytes
from openqci.delivery.etsi004_model import NIL, Chunk, OpenConnect, Opened, QoS, Status
from openqci.keystore.supply import SourceReport, SuppliedKey
from openqci.services.client_004 import Client004
from openqci.services.kme_app import KmeApp
from openqci.services.kme_config_file import load_config
from openqci.services.pki import CertificateAuthority, write_credentials
from openqci.services.state_folder import StateFolder
from tests.system.make import free_port_base

Result = TypeVar("Result")

A, B = KmeId("kme-a"), KmeId("kme-b")
ALICE, BOB, EVE = SaeId("alice"), SaeId("bob"), SaeId("eve")
HOME = {ALICE: A, BOB: B, EVE: B}
REPORT = SourceReport("BB84 with decoys", "test", 1e-10, False)
DRAW_BYTES = 64 * 1024


class Module:
    """One end of a link whose key is random bytes; what one end draws the other finds by name."""

    def __init__(self, waiting: dict[str, bytes]) -> None:
        self._waiting = waiting
        self.dry = False

    async def draw(self, length_bytes_max: int) -> SuppliedKey:
        if self.dry:
            raise ConnectionError("the module is switched off")
        name, key = f"k{len(self._waiting)}-{os.urandom(4).hex()}", os.urandom(DRAW_BYTES)
        self._waiting[name] = key
        return SuppliedKey((name,), SecretBytes(key), REPORT)

    async def draw_named(self, key_ids: Sequence[str], length_bytes: int) -> tuple[SecretBytes, SourceReport]:
        if not all(name in self._waiting for name in key_ids):
            raise IntegrityError("gone")
        return SecretBytes(b"".join(self._waiting.pop(name) for name in key_ids)), REPORT

    async def describe(self) -> str:
        return "random bytes"

    async def close(self) -> None:
        """Nothing to close."""


class StreamSites:
    """Alice at one node, Bob and Eve at the other."""

    def __init__(self, folder: Path, port_base: int = 19000) -> None:
        self.folder = folder
        self.authority = CertificateAuthority.open_or_create(folder / "pki")
        for kme in (A, B):
            write_credentials(folder / kme, self.authority.issue_kme(kme, ["127.0.0.1"]), self.authority)
        for sae in HOME:
            write_credentials(folder / sae, self.authority.issue_sae(sae), self.authority)
        base = free_port_base(10, port_base)
        self.ports = {A: base, B: base + 5}
        self.configs = {}
        for kme, other, leads in ((A, B, "true"), (B, A, "false")):
            self.configs[kme] = folder / kme / "kme.toml"
            self.configs[kme].write_text(self._config(kme, other, leads))
            StateFolder.make(load_config(self.configs[kme]))
        self.waiting: dict[str, bytes] = {}
        self.modules = {kme: Module(self.waiting) for kme in (A, B)}
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.apps: dict[KmeId, KmeApp] = {}
        self._clients: list[Client004] = []
        self._runs: dict[KmeId, asyncio.Task[None]] = {}
        for kme in (A, B):
            self.start(kme)

    def _config(self, kme: KmeId, other: KmeId, leads: str) -> str:
        port = self.ports[kme]
        here = "".join(f'[[sae]]\nid = "{sae}"\n' for sae, home in HOME.items() if home == kme)
        there = ", ".join(f'"{sae}"' for sae, home in HOME.items() if home == other)
        return f"""version = 1
[node]
kme_id = "{kme}"
state_dir = "state"
[tls]
certificate = "cert.pem"
key = "key.pem"
authority = "ca.pem"
[listen]
sae = "127.0.0.1:{port}"
peer = "127.0.0.1:{port + 1}"
operator = "127.0.0.1:{port + 2}"
etsi004 = "127.0.0.1:{port + 3}"
[etsi004]
timeout_ms_max = 20000
{here}
[[peer]]
kme_id = "{other}"
url = "https://127.0.0.1:{self.ports[other] + 1}"
saes = [{there}]
[[link]]
id = "ab"
peer = "{other}"
leads = {leads}
[link.etsi014]
url = "https://127.0.0.1:1"
peer_sae_id = "unused"
certificate = "cert.pem"
key = "key.pem"
authority = "ca.pem"
"""

    def start(self, kme: KmeId) -> None:
        """Start a node."""

        async def begin() -> None:
            app = KmeApp(load_config(self.configs[kme]), lambda loaded, link, store: self.modules[kme])
            try:
                await app.start()
            except BaseException:
                await app.close()
                raise
            self.apps[kme] = app
            self._runs[kme] = asyncio.create_task(app.run())

        self.on_loop(begin())

    def wait_until_met(self) -> None:
        """Wait until the nodes know each other and their link has key."""
        deadline_s = time.monotonic() + 30
        while time.monotonic() < deadline_s:
            nodes = [app.node for app in self.apps.values()]
            links = [self.on_loop(node.status())["links"][0] for node in nodes]
            if all(node.epochs() for node in nodes) and all(link["own_bytes"] > 1 << 19 for link in links):
                return
            time.sleep(0.05)
        raise AssertionError("the nodes have not met")

    def stop(self, kme: KmeId) -> None:
        """Stop a node; its streams lie in its store."""

        async def end() -> None:
            self.apps[kme].stop.set()
            with suppress(asyncio.CancelledError):
                await self._runs[kme]
            await self.apps.pop(kme).close()

        self.on_loop(end())

    def close(self) -> None:
        self.hang_up()
        for kme in list(self.apps):
            self.stop(kme)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def on_loop(self, work: Coroutine[Any, Any, Result], timeout_s: float = 40.0) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout_s)

    def context(self, sae: str | None) -> ssl.SSLContext:
        """Return the TLS rules of an application, or of somebody without a certificate."""
        tls = ssl.create_default_context(cafile=str(self.authority.certificate_file))
        if sae is not None:
            tls.load_cert_chain(self.folder / sae / "cert.pem", self.folder / sae / "key.pem")
        return tls

    def port(self, sae: SaeId) -> int:
        return self.ports[HOME[sae]] + 3

    def client(self, sae: SaeId, certificate_of: SaeId | None = None) -> "App":
        """Return a connected application, at its own KME."""
        tls = self.context(certificate_of or sae)
        client = self.on_loop(Client004.connect("127.0.0.1", self.port(sae), tls))
        self._clients.append(client)
        return App(self, client)

    def hang_up(self) -> None:
        """Close the connections of all applications."""

        async def close() -> None:
            while self._clients:
                self._clients.pop().close()

        self.on_loop(close())


class App:
    """An application with a connection of its own."""

    def __init__(self, sites: StreamSites, client: Client004) -> None:
        self.sites, self.client = sites, client

    def open(
        self,
        qos: QoS,
        ksid: UUID = NIL,
        source: str = "qkd://alice@kme-a:25575",
        destination: str = "qkd://bob@kme-b",
    ) -> Opened:
        return self.sites.on_loop(self.client.open_connect(OpenConnect(source, destination, qos, ksid)))

    def get(self, ksid: UUID, index: int, metadata_size: int = 0, wait_s: float = 20.0) -> Chunk:
        return self.sites.on_loop(self.client.get_key(ksid, index, metadata_size, wait_s))

    def close_stream(self, ksid: UUID) -> Status:
        return self.sites.on_loop(self.client.close_stream(ksid))


def opened_by_both(alice: App, bob: App, qos: QoS) -> UUID:
    """Open a stream at both ends; return its KSID."""
    first = alice.open(qos)
    assert first.status is Status.PEER_NOT_CONNECTED, first
    assert first.ksid is not None
    second = bob.open(qos, first.ksid)
    assert second.status is Status.SUCCESS, second
    return first.ksid
