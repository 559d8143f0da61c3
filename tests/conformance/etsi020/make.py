"""A real KME node, ``openqci kme run``, between two KMEs of other networks that the tests speak for.

``kme-es`` serves ``bob`` and ``carol``. ``kme-up`` and ``kme-down`` have authorities of their own; each
listens for what the node sends and writes down every request. What they answer is up to the test.
"""

import json
import ssl
import threading
import time
import uuid
from base64 import b64encode
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from openqci.core.identifiers import KmeId, SaeId
from openqci.services.kme_config_file import load_config
from openqci.services.pki import CertificateAuthority, write_credentials
from openqci.services.sae_client import SAEClient
from openqci.services.state_folder import StateFolder
from tests.conformance.etsi014.make import Raw, free_ports
from tests.kme.make import Process

KEYS, ACK, VOID = "/kmapi/v1/ext_keys", "/kmapi/v1/ext_keys/ack", "/kmapi/v1/ext_keys/void"
VERSIONS = "/kmapi/versions"
NODE = "kme-es"
BOB, CAROL = "bob", "carol"
UP_SAE, DOWN_SAE = "app-up", "app-down"
WAIT_S = 20.0

CONFIGURATION = """\
version = 1

[node]
kme_id = "{node}"
state_dir = "state"

[tls]
certificate = "tls/cert.pem"
key = "tls/key.pem"
authority = "tls/ca.pem"

[listen]
sae = "127.0.0.1:{sae}"
peer = "127.0.0.1:{peer}"
operator = "127.0.0.1:{operator}"
etsi020 = "127.0.0.1:{border}"

[etsi020]
domain = "ES"
{border_settings}
[[sae]]
id = "bob"

[[sae]]
id = "carol"

[[remote]]
domain = "UP"
saes = ["app-up"]
via = ["kme-up"]
batches = false

[[remote]]
domain = "DOWN"
saes = ["app-down"]
via = ["kme-down"]
batches = false

[demand]
low_keys = 1
high_keys = 2
"""
PARTNER = """
[[partner]]
kme_id = "{name}"
domain = "{domain}"
url = "https://127.0.0.1:{port}"
authority = "../{name}/pki/ca.pem"
own_callback_url = "https://127.0.0.1:{border}/kmapi/v1/ext_keys/ack"
draft = {draft}
targets_max = {targets_max}
"""


@dataclass(frozen=True)
class Heard:
    """One request that a test's KME got."""

    path: str
    document: Any
    body: bytes
    peer: str


Reply = tuple[int, Any]


@dataclass
class TestKme:
    """A KME of another network: its authority, its listener, what it heard, and how it answers."""

    __test__ = False

    name: str
    domain: str
    folder: Path
    port: int
    heard: list[Heard] = field(default_factory=list)
    answer: Callable[[Heard], Reply] = lambda heard: (202, None) if heard.path != ACK else (200, None)

    def __post_init__(self) -> None:
        self.authority = CertificateAuthority.open_or_create(self.folder / "pki")
        write_credentials(
            self.folder / "tls", self.authority.issue_kme(KmeId(self.name), ["127.0.0.1"]), self.authority
        )
        write_credentials(self.folder / "sae", self.authority.issue_sae(SaeId("app-x")), self.authority)
        self.server: ThreadingHTTPServer | None = None

    def listen(self, node_authority: Path) -> None:
        """Begin to listen, for the node's certificate alone."""
        kme = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                subject = dict(part[0] for part in self.connection.getpeercert()["subject"])  # type: ignore[attr-defined]
                heard = Heard(self.path, json.loads(body), body, subject["commonName"])
                kme.heard.append(heard)
                status, document = kme.answer(heard)
                answer = b"" if document is None else json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(self.folder / "tls" / "cert.pem", self.folder / "tls" / "key.pem")
        context.load_verify_locations(node_authority)
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def deafen(self) -> None:
        """Listen no longer."""
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    @property
    def callback(self) -> str:
        return f"https://127.0.0.1:{self.port}{ACK}"

    def of(self, path: str) -> list[Heard]:
        return [heard for heard in self.heard if heard.path == path]

    def statuses(self, key_id: str) -> list[str]:
        """Return every status that was acknowledged for a key, in order."""
        return [
            container["ack_status"]
            for heard in self.of(ACK)
            for container in heard.document
            for key in container["key_id_container"]
            if key["key_id"] == key_id
        ]

    def wait_for(self, good: Callable[["TestKme"], Any], timeout_s: float = WAIT_S) -> Any:
        """Wait until something has been heard; return what the test finds."""
        deadline_s = time.monotonic() + timeout_s
        while not (found := good(self)):
            assert time.monotonic() < deadline_s, [heard.document for heard in self.heard]
            time.sleep(0.02)
        return found

    def wait_for_status(self, key_id: str, status: str) -> None:
        self.wait_for(lambda kme: kme.statuses(key_id)[-1:] == [status])


class Border:
    """The node and its two partners."""

    def __init__(self, folder: Path, *, settings: str = "", draft: bool = False) -> None:
        """Set it up; ``kme-down`` runs a draft if told so."""
        self.folder, self.node_folder = folder, folder / NODE
        sae, peer, operator, self.port, up, down = free_ports(6)
        self.sae_port = sae
        self.up = TestKme("kme-up", "UP", folder / "kme-up", up)
        self.down = TestKme("kme-down", "DOWN", folder / "kme-down", down)
        self.node_folder.mkdir()
        self.authority = CertificateAuthority.open_or_create(folder / "pki")
        write_credentials(
            self.node_folder / "tls", self.authority.issue_kme(KmeId(NODE), ["127.0.0.1"]), self.authority
        )
        for name in (BOB, CAROL):
            write_credentials(folder / name, self.authority.issue_sae(SaeId(name)), self.authority)
        self.config = self.node_folder / "kme.toml"
        text = CONFIGURATION.format(
            node=NODE, sae=sae, peer=peer, operator=operator, border=self.port, border_settings=settings
        )
        for kme in (self.up, self.down):
            text += PARTNER.format(
                name=kme.name,
                domain=kme.domain,
                port=kme.port,
                border=self.port,
                draft=str(draft and kme is self.down).lower(),
                targets_max=1 if draft and kme is self.down else 4,
            )
        self.config.write_text(text)
        StateFolder.make(load_config(self.config))
        self.process = Process(folder, "node", "kme", "run", "--config", self.config)
        for kme in (self.up, self.down):
            kme.listen(self.authority.certificate_file)

    def close(self) -> None:
        self.process.kill()
        for kme in (self.up, self.down):
            kme.deafen()

    def client(self, sae: str) -> SAEClient:
        folder = self.folder / sae
        paths = (folder / name for name in ("cert.pem", "key.pem", "ca.pem"))
        return SAEClient(f"https://127.0.0.1:{self.sae_port}", *paths)

    def tls(self, folder: Path | None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
        """Return the rules of a caller with the certificate in a folder."""
        context = ssl.create_default_context(cafile=str(self.authority.certificate_file))
        context.minimum_version = context.maximum_version = version
        if folder is not None:
            context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        return context

    def ask(
        self,
        path: str,
        document: Any = None,
        *,
        method: str = "POST",
        folder: Path | None = None,
        body: bytes | None = None,
        port: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> Raw:
        """Send one request to the node, as ``kme-up`` unless another folder's certificate is given."""
        context = self.tls(folder or self.up.folder / "tls")
        sent = body if body is not None else json.dumps(document).encode() if document is not None else None
        with closing(
            HTTPSConnection("127.0.0.1", port or self.port, context=context, timeout=30)
        ) as connection:
            named = {"Content-Type": "application/json"} if sent is not None else {}
            connection.request(method, path, sent, named | (headers or {}))
            answer = connection.getresponse()
            return Raw(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def send(self, *key_ids: str, value: bytes = bytes(32), **members: Any) -> Raw:
        """Pass keys on as ``kme-up`` does."""
        return self.ask(KEYS, self.request(*key_ids, value=value, **members))

    def request(self, *key_ids: str, value: bytes = bytes(32), **members: Any) -> dict[str, Any]:
        document = {
            "keys": [{"key_id": key_id, "value": b64encode(value).decode()} for key_id in key_ids],
            "initiator_sae_id": UP_SAE,
            "target_sae_ids": [BOB],
            "ack_callback_url": self.up.callback,
        }
        return {name: given for name, given in (document | members).items() if given is not None}

    def void(self, *key_ids: str, by: TestKme | None = None, **members: Any) -> Raw:
        kme = by or self.up
        document = {
            "key_ids": list(key_ids),
            "initiator_sae_id": UP_SAE,
            "target_sae_ids": [BOB],
            "ack_callback_url": kme.callback,
        } | members
        found = {name: given for name, given in document.items() if given is not None}
        return self.ask(VOID, found, folder=kme.folder / "tls")

    def ack(self, status: str, *key_ids: str, initiator: str = UP_SAE, **members: Any) -> Raw:
        """Acknowledge keys as ``kme-down`` does."""
        container = {
            "key_id_container": [{"key_id": key_id} for key_id in key_ids],
            "ack_status": status,
            "initiator_sae_id": initiator,
            "target_sae_ids": [DOWN_SAE],
        } | members
        return self.ask(ACK, [container], folder=self.down.folder / "tls")


def new_id() -> str:
    return str(uuid.uuid4())


def assert_problem(answer: Raw, status: int, kind: str, *details: str) -> dict[str, str]:
    """Check that an answer is the standard's problem document; return its details."""
    assert answer.status == status, answer.body
    assert answer.headers["content-type"].partition(";")[0] == "application/json"
    document = answer.json
    assert document["type"] == f"https://qkd.etsi.org/gs020-interop-kms/{kind}"
    assert document.get("status", status) == status and isinstance(document["title"], str)
    assert all(isinstance(text, str) for text in document["details"].values()) and document["details"]
    assert set(details) <= set(document["details"])
    found: dict[str, str] = document["details"]
    return found
