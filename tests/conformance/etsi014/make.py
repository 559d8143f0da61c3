"""Two KMEs over real TLS on a real store, in a thread of their own, with applications and a stock."""

import asyncio
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Coroutine
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from openqci.core.identifiers import KmeId, SaeId
from openqci.delivery.etsi014_model import STANDARD, Profile
from openqci.services.kme import KmeService
from openqci.services.kme_server import KMEEndpoint, KMEServer
from openqci.services.pki import CertificateAuthority, IdentityRule, peer_identity, write_credentials
from openqci.services.sae_client import SAEClient
from openqci.services.sqlite_store import SqliteKeyStore
from openqci.services.tls import TlsFiles
from tests.delivery.make import ALICE, BOB, EVE, LISBON, WARSAW, enrol, key_bytes, stock_group, stock_pair

CAROL = SaeId("carol")
NEVER = SaeId("never-stocked")
SLASH = SaeId("a/b")
PERCENT = SaeId("a%2Fb")
HOMES = {
    ALICE: LISBON,
    BOB: WARSAW,
    EVE: WARSAW,
    CAROL: LISBON,
    NEVER: WARSAW,
    SLASH: WARSAW,
    PERCENT: WARSAW,
}

Result = TypeVar("Result")


@dataclass(frozen=True)
class Raw:
    """An HTTP answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class RunningKmes:
    """Lisbon and Warsaw, started on construction."""

    def __init__(
        self,
        folder: Path,
        *,
        wait_s: float = 0.2,
        profile: Profile = STANDARD,
        revocation_lists: tuple[Path, ...] = (),
        rule: IdentityRule = "uri",
    ) -> None:
        self.folder, self.profile, self.rule = folder, profile, rule
        self.revocation_lists = revocation_lists
        self.authority = CertificateAuthority.open_or_create(folder / "pki")
        self.store = self.open_store()
        self.service = KmeService(self.store, wait_s=wait_s, profile=profile)
        self.ports = dict(zip((LISBON, WARSAW), free_ports(2), strict=True))
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        for sae_id, kme in HOMES.items():
            self.enrol(sae_id, kme)
        self.server = self._new_server()
        self.on_loop(self.server.start())

    def open_store(self) -> SqliteKeyStore:
        return SqliteKeyStore.open(self.folder / "store.sqlite", bytes(32))

    def _new_server(self) -> KMEServer:
        files = self.authority.issue_kmes(self.ports)
        endpoints = [KMEEndpoint(kme, self.ports[kme], file, file) for kme, file in files.items()]
        authority = self.authority.certificate_file
        return KMEServer(
            endpoints,
            self.service,
            authority,
            contexts=lambda at: TlsFiles(
                at.certificate, at.key, authority, self.revocation_lists
            ).server_context(),
            identity=partial(peer_identity, rule=self.rule),
        )

    def reload(self) -> None:
        """Read certificates and revocation lists again."""
        files = TlsFiles(Path(), Path(), self.authority.certificate_file, self.revocation_lists)
        self.on_loop(self.server.reload(files.is_revoked))

    def restart(self) -> None:
        """Stop, close the store, open it again, start: what a restart of the process does."""
        self.on_loop(self.server.stop())
        self.store.close()
        self.store = self.open_store()
        self.service = KmeService(self.store, wait_s=0.2, profile=self.profile)
        self.server = self._new_server()
        self.on_loop(self.server.start())

    def close(self) -> None:
        self.on_loop(self.server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.store.close()

    def on_loop(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    def enrol(self, sae_id: SaeId, kme: KmeId) -> None:
        issued = self.authority.issue_sae(sae_id)
        write_credentials(self.credentials(sae_id), issued, self.authority)
        self.store.submit(lambda tx: enrol(tx, sae_id, kme, issued.sha256)).result()

    def credentials(self, sae_id: str) -> Path:
        return self.folder / "saes" / sae_id.replace("/", "_").replace("%", "_pc")

    def stock(self, keys: int = 20, master: SaeId = ALICE, slave: SaeId = BOB) -> bytes:
        """Put one batch of 256-bit keys into the stock of a pair; return its bytes."""
        key = key_bytes(32 * keys)
        ends = (HOMES[master], HOMES[slave])
        self.store.submit(lambda tx: stock_pair(tx, key, master=master, slave=slave, ends=ends)).result()
        return key

    def stock_group(self, keys: int, master: SaeId, slaves: tuple[SaeId, ...]) -> None:
        """Put one multicast batch into the stock of a master and several slaves."""
        key = key_bytes(32 * keys)
        self.store.submit(lambda tx: stock_group(tx, key, master, slaves, HOMES)).result()

    def url(self, kme: KmeId) -> str:
        return f"https://127.0.0.1:{self.ports[kme]}"

    def client(self, sae_id: SaeId, kme: KmeId | None = None) -> SAEClient:
        folder = self.credentials(sae_id)
        paths = (folder / name for name in ("cert.pem", "key.pem", "ca.pem"))
        return SAEClient(self.url(kme or HOMES[sae_id]), *paths)

    def tls(self, sae_id: str | None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority.certificate_file))
        context.minimum_version = context.maximum_version = version
        if sae_id is not None:
            folder = self.credentials(sae_id)
            context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        return context

    def raw(
        self,
        sae_id: SaeId,
        method: str,
        path: str,
        body: bytes | str | None = None,
        *,
        headers: dict[str, str] | None = None,
        kme: KmeId | None = None,
        context: ssl.SSLContext | None = None,
    ) -> Raw:
        """Send one request exactly as given."""
        port = self.ports[kme or HOMES[sae_id]]
        with closing(
            http.client.HTTPSConnection("127.0.0.1", port, context=context or self.tls(sae_id), timeout=15)
        ) as connection:
            sent = (
                {"Content-Type": "application/json"} | (headers or {}) if body is not None else headers or {}
            )
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return Raw(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
