"""Key providers of two KMEs over real TLS: with certificates, and with pre-shared keys by real OpenSSL."""

import asyncio
import http.client
import json
import ssl
import subprocess
import threading
from collections.abc import Coroutine
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode

import uvloop

from openqci.core.identifiers import KmeId, SaeId
from openqci.delivery.skip import SkipRules
from openqci.services.https import HttpsListener
from openqci.services.kme import KmeService, OwnQuotas, Quotas
from openqci.services.pki import CertificateAuthority, write_credentials
from openqci.services.psk_tls import PskContext
from openqci.services.skip_server import PskProtocol, SkipService, skip_application
from openqci.services.sqlite_store import SqliteKeyStore
from openqci.services.tls import TlsFiles
from tests.delivery.make import ALICE, BOB, EVE, HOMES, LISBON, WARSAW, enrol, key_bytes, stock_pair

PSKS = {"router-alice": (ALICE, bytes(range(48))), "router-bob": (BOB, bytes(range(1, 33)))}

ALL_SYSTEMS, NO_QUOTAS = SkipRules(), OwnQuotas({})
Result = TypeVar("Result")


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Providers:
    """The key providers of Lisbon and Warsaw, running until closed."""

    def __init__(self, folder: Path, rules: SkipRules = ALL_SYSTEMS, quotas: Quotas = NO_QUOTAS) -> None:
        self.folder = folder
        self.authority = CertificateAuthority.open_or_create(folder / "pki")
        self.store = SqliteKeyStore.open(folder / "store.sqlite", bytes(32))
        for sae, kme in HOMES.items():
            issued = self.authority.issue_sae(sae)
            write_credentials(folder / sae, issued, self.authority)
            self.store.submit(lambda tx, sae=sae, kme=kme: enrol(tx, sae, kme, "")).result()
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.certificate: dict[KmeId, HttpsListener] = {}
        self.psk: dict[KmeId, HttpsListener] = {}
        files = self.authority.issue_kmes((LISBON, WARSAW))
        # The quotas of a node hold over all its interfaces: those of SKIP are those of ETSI GS QKD 014.
        self.etsi014 = KmeService(self.store)
        self.etsi014.quotas = quotas
        keys = {identity: key for identity, (_, key) in PSKS.items()}
        for kme, file in files.items():
            service = SkipService(kme, self.store, rules, wait_s=0.2, admission=self.etsi014)
            application = skip_application(service)
            tls = TlsFiles(file, file, self.authority.certificate_file).server_context()
            self.certificate[kme] = HttpsListener(application, "127.0.0.1", 0, tls)
            psk = PskContext(keys, without_forward_secrecy=True)
            holders = {identity: sae for identity, (sae, _) in PSKS.items()}
            protocol = partial(PskProtocol, psk=psk, applications=holders)
            self.psk[kme] = HttpsListener(application, "127.0.0.1", 0, psk.context, protocol)
        for listener in (*self.certificate.values(), *self.psk.values()):
            self.on_loop(listener.start())

    def close(self) -> None:
        for listener in (*self.certificate.values(), *self.psk.values()):
            self.on_loop(listener.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.store.close()

    def on_loop(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    def stock(self, keys: int = 4, master: SaeId = ALICE, slave: SaeId = BOB) -> bytes:
        key = key_bytes(32 * keys)
        ends = HOMES[master], HOMES[slave]
        self.store.submit(lambda tx: stock_pair(tx, key, master=master, slave=slave, ends=ends)).result()
        return key

    def ask(self, sae: SaeId, path: str, method: str = "GET", **query: object) -> Answer:
        """Ask with a certificate."""
        tls = ssl.create_default_context(cafile=str(self.authority.certificate_file))
        tls.load_cert_chain(self.folder / sae / "cert.pem", self.folder / sae / "key.pem")
        port = self.certificate[HOMES[sae]].port
        with closing(http.client.HTTPSConnection("127.0.0.1", port, context=tls, timeout=10)) as connection:
            connection.request(method, f"{path}?{urlencode(query)}" if query else path)
            answer = connection.getresponse()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, headers, answer.read())

    def ask_by_psk(
        self, identity: str, key: bytes, path: str, *options: str, kme: KmeId = LISBON
    ) -> tuple[str, str]:
        """Ask with OpenSSL's own client; return what it printed and what it says of the connection."""
        command = [
            *("openssl", "s_client", "-connect", f"127.0.0.1:{self.psk[kme].port}", "-psk", key.hex()),
            *("-psk_identity", identity, "-ign_eof", *options),
        ]
        request = f"GET {path} HTTP/1.1\r\nHost: kp\r\nConnection: close\r\n\r\n"
        done = subprocess.run(command, input=request, capture_output=True, text=True, timeout=20)
        return done.stdout, done.stderr


__all__ = ["ALICE", "BOB", "EVE", "LISBON", "PSKS", "WARSAW", "Answer", "Providers"]
