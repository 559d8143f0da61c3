"""Two nodes in this process, joined by one QKD link whose modules the caller brings."""

import asyncio
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from openqci.core.identifiers import KmeId, SaeId
from openqci.services.kme_app import KmeApp
from openqci.services.kme_config_file import load_config
from openqci.services.pki import CertificateAuthority, write_credentials
from openqci.services.sae_client import SAEClient
from openqci.services.sources import make_source
from openqci.services.state_folder import StateFolder
from tests.system.make import free_port_base

PORTS_PER_NODE = 5


class Nodes:
    """The nodes ``p``, which leads the link, and ``q``, with an application each.

    ``on_loop`` runs a coroutine on the loop of the nodes; ``link`` returns the source of an end as a table
    of ``kme.toml``. The fourth port of a node is for its module.
    """

    def __init__(
        self,
        folder: Path,
        authority: CertificateAuthority,
        on_loop: Callable[[Any], Any],
        link: Callable[[str], str],
        *,
        base: int | None = None,
    ) -> None:
        self.folder, self.base = folder, base or free_port_base(2 * PORTS_PER_NODE, 19600)
        self.apps: dict[str, KmeApp] = {}
        self._on_loop = on_loop
        self._runs: dict[str, asyncio.Task[None]] = {}
        for end, other in (("p", "q"), ("q", "p")):
            kme, sae = KmeId(f"kme-{end}"), SaeId(f"app-{end}")
            write_credentials(folder / end, authority.issue_kme(kme, ["127.0.0.1"]), authority)
            write_credentials(folder / sae, authority.issue_sae(sae), authority)
            (folder / end / "kme.toml").write_text(self._config(end, other) + link(end))
            StateFolder.make(load_config(folder / end / "kme.toml"))

    def port(self, end: str) -> int:
        return self.base + (0 if end == "p" else PORTS_PER_NODE)

    def start(self, *ends: str) -> None:
        for end in ends:
            self._on_loop(self._begin(end))

    def stop(self, *ends: str) -> None:
        for end in ends:
            self._on_loop(self._finish(end))

    def close(self) -> None:
        self.stop(*self.apps)

    def client(self, end: str) -> SAEClient:
        folder = self.folder / f"app-{end}"
        files = [folder / name for name in ("cert.pem", "key.pem", "ca.pem")]
        return SAEClient(f"https://127.0.0.1:{self.port(end)}", *files)

    def exchange(self, number: int = 3, size_bits: int = 256) -> None:
        """Have the two applications share a few keys; the one at ``p`` asks for them."""
        with closing(self.client("p")) as master, closing(self.client("q")) as slave:
            until_s = time.monotonic() + 60
            while (answer := master.enc_keys("app-q", number, size_bits)).status == 503:
                assert time.monotonic() < until_s, answer.message
                time.sleep(0.1)
            assert answer.status == 200, answer.body
            fetched = slave.dec_keys("app-p", answer.key_ids)
            assert fetched.status == 200 and fetched.keys == answer.keys

    async def _begin(self, end: str) -> None:
        app = KmeApp(load_config(self.folder / end / "kme.toml"), make_source)
        await app.start()
        self.apps[end], self._runs[end] = app, asyncio.create_task(app.run())

    async def _finish(self, end: str) -> None:
        self.apps[end].stop.set()
        await self._runs[end]
        await self.apps.pop(end).close()

    def _config(self, end: str, other: str) -> str:
        port = self.port(end)
        return f"""version = 1
[node]
kme_id = "kme-{end}"
state_dir = "state"
[tls]
certificate = "cert.pem"
key = "key.pem"
authority = "ca.pem"
[listen]
sae = "127.0.0.1:{port}"
peer = "127.0.0.1:{port + 1}"
operator = "127.0.0.1:{port + 2}"
module = "127.0.0.1:{port + 3}"
[[sae]]
id = "app-{end}"
[[peer]]
kme_id = "kme-{other}"
url = "https://127.0.0.1:{self.port(other) + 1}"
saes = ["app-{other}"]
[[link]]
id = "pq"
peer = "kme-{other}"
leads = {str(end == "p").lower()}
"""
