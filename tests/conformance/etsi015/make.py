"""Two real nodes with a QKD link between them and agents of ETSI GS QKD 015, and who calls these."""

import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from yangson import DataModel
from yangson.enumerations import ContentType
from yangson.exceptions import YangsonException
from yangson.instance import RootNode

from openqci.control.etsi015.model import MODULE
from openqci.core.identifiers import SaeId
from openqci.services.pki import CertificateAuthority, write_credentials
from openqci.services.roles import Role
from openqci.services.sae_client import SAEClient
from tests.conformance.etsi014.make import free_ports
from tests.kme.chain import Chain
from tests.kme.make import sae

HERE = Path(__file__).parent
MODULES = (str(HERE / "yang"), str(HERE.parents[2] / "docs" / "reference" / "yang"))
NODE = f"/restconf/data/{MODULE}:qkd_node"
YANG_JSON = "application/yang-data+json"
ROLES = (Role.CONTROLLER, Role.OPERATOR, Role.AUDITOR, Role.SAE)
WAIT_S = 150.0
"""Simulated modules take their time for a block on a machine that does much else."""

DRAIN_KEYS, DRAIN_BITS = 128, 4096
MORE_BPS = 4_000_000_000
"""More than any link brings."""

FORGET_S = 5.0
QUOTA_BPS, RESERVED_BPS, TTL_S = 8_192, 1_024, 8.0
PAIR = f"""
[etsi015]
location = "hall 3"

[demand]
forget_after_s = {FORGET_S}

[[pair]]
master = "app-0"
slaves = ["app-1"]
low_keys = 128
high_keys = 256
ttl_s = {TTL_S}
reserved_bps = {RESERVED_BPS}
"""


@dataclass(frozen=True)
class Answer:
    """An HTTP answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def tag(self) -> str:
        """The error tag of a refusal, which is a document of RFC 8040."""
        assert self.headers["content-type"] == YANG_JSON
        (error,) = self.json["ietf-restconf:errors"]["error"]
        assert error["error-message"]
        return str(error["error-tag"])


class Agents:
    """``kme-0`` and ``kme-1``; the first draws the link's key, the second speaks with TeraFlowSDN."""

    def __init__(self, folder: Path) -> None:
        self.chain = Chain(folder, 2, target=1)
        self.ports = free_ports(2)
        authority = CertificateAuthority.open(folder / "ca")
        for place, port in enumerate(self.ports):
            file = folder / f"node-{place}" / "kme.toml"
            text = file.read_text().replace("[listen]\n", f'[listen]\netsi015 = "127.0.0.1:{port}"\n')
            if place == 0:
                quota = f'id = "app-0"\nquota_bps = {QUOTA_BPS}\nquota_burst_bytes = {QUOTA_BPS // 8}'
                text = text.replace('id = "app-0"', quota) + PAIR
            else:
                text += "\n[etsi015]\nteraflow = true\n"
            more = f'\n[[sae]]\nid = "more-{place}"\nquota_bps = {MORE_BPS}\n'
            text = text.replace("\n[[sae]]\n", f"{more}\n[[sae]]\n", 1)
            text = text.replace(f'["app-{1 - place}"]\n', f'["app-{1 - place}", "more-{1 - place}"]\n', 1)
            text = text.replace("leads = ", "low_bytes = 65536\nhigh_bytes = 131072\nleads = ")
            file.write_text(text)
            issued = authority.issue_sae(SaeId(f"more-{place}"))
            write_credentials(folder / f"more-{place}", issued, authority)
        for role in ROLES:
            issued = authority.issue_holder(role, f"a-{role}")
            write_credentials(folder / f"as-{role}", issued, authority)

    def call(
        self,
        method: str,
        path: str,
        document: object = None,
        *,
        role: str | None = "controller",
        place: int = 0,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Call an agent; ``document`` is sent as YANG data."""
        connection = self.connection(role, place)
        body = None if document is None else json.dumps(document)
        sent = {"Content-Type": YANG_JSON} if body is not None else {}
        try:
            connection.request(method, path, body, {**sent, **(headers or {})})
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, named, answer.read())
        finally:
            connection.close()

    def connection(self, role: str | None, place: int) -> http.client.HTTPSConnection:
        """Return a connection to an agent for one who holds a role, or has no certificate."""
        folder = self.chain.folder
        context = ssl.create_default_context(cafile=str(folder / "ca" / "ca.pem"))
        if role is not None:
            context.load_cert_chain(folder / f"as-{role}" / "cert.pem", folder / f"as-{role}" / "key.pem")
        return http.client.HTTPSConnection("localhost", self.ports[place], context=context, timeout=20)

    def stream_path(self, place: int) -> str:
        """Return where a node's notifications are, as it says itself."""
        state = "/restconf/data/ietf-restconf-monitoring:restconf-state/streams/stream=NETCONF"
        headers = {"Accept": YANG_JSON}
        leaf = self.call("GET", f"{state}/access=json/location", place=place, headers=headers)
        (location,) = leaf.json.values()
        return str(urlsplit(location).path)

    def application(self) -> SAEClient:
        """Return the client of ``app-0`` at its node; close it."""
        return sae(self.chain.folder, self.chain.credentials(0), self.chain.sae_port(0))

    def drain(self) -> None:
        """Fetch key at both nodes, as much as a request may, once."""
        for place in (0, 1):
            with sae(self.chain.folder, f"more-{place}", self.chain.sae_port(place)) as client:
                client.enc_keys(f"more-{1 - place}", DRAIN_KEYS, DRAIN_BITS)

    def node(self, place: int = 0) -> dict[str, Any]:
        """Return the whole node."""
        answer = self.call("GET", NODE, place=place, headers={"Accept": YANG_JSON})
        assert answer.status == 200, answer
        content: dict[str, Any] = answer.json[f"{MODULE}:qkd_node"]
        return content

    def link(self, place: int = 0) -> dict[str, Any]:
        """Return the one link of a node."""
        (link,) = self.node(place)["qkd_links"]["qkd_link"]
        found: dict[str, Any] = link
        return found

    def link_path(self) -> str:
        return f"{NODE}/qkd_links/qkd_link={self.link()['qkdl_id']}"

    def switch(self, on: bool, place: int = 0) -> None:
        """Switch the link at one end."""
        answer = self.call(
            "PUT", f"{self.link_path()}/qkdl_enable", {f"{MODULE}:qkdl_enable": on}, place=place
        )
        assert answer.status == 204, answer

    def until(self, holds: Callable[[], bool], wait_s: float = WAIT_S) -> None:
        deadline_s = time.monotonic() + wait_s
        while not holds():
            assert time.monotonic() < deadline_s, self.chain.kmes[0].log.read_text()[-2000:]
            time.sleep(0.1)

    def model(self) -> DataModel:
        """Return the data model that the first agent says it keeps to: the published modules and ours."""
        library = self.call("GET", "/restconf/data/ietf-yang-library:modules-state")
        return DataModel(library.body.decode(), MODULES)


def validate(model: DataModel, data: dict[str, Any]) -> None:
    """Hold a datastore against the model; an exception says what is wrong."""
    model.from_raw(data).validate(ctype=ContentType.all)


class Subscriber:
    """Listens to an agent's notifications, and holds each against the model as it comes."""

    def __init__(self, agents: Agents, model: DataModel, place: int = 0, query: str = "") -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.lines: list[bytes] = []
        self.wrong: list[Exception] = []
        self._model = model
        path = agents.stream_path(place) + query
        self._connection = agents.connection("auditor", place)
        self._connection.request("GET", path, headers={"Accept": "text/event-stream"})
        self.answer = self._connection.getresponse()
        assert self.answer.status == 200
        assert self.answer.headers["content-type"].startswith("text/event-stream")
        self.answer.readline()  # it listens from now on
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def names(self) -> list[str]:
        return [name for name, _ in self.heard]

    def close(self) -> None:
        """Listen no more; an exception if anything was not as the model has it."""
        with contextlib.suppress(OSError):
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._connection.close()
        if self.wrong:
            raise self.wrong[0]

    def _read(self) -> None:
        try:
            for line in self.answer:
                if line.startswith(b"data: "):
                    self._take(line)
        except (OSError, ValueError, http.client.HTTPException):
            return  # closed

    def _take(self, line: bytes) -> None:
        notification = json.loads(line.removeprefix(b"data: "))["ietf-restconf:notification"]
        assert notification.pop("eventTime").endswith("Z")
        ((name, content),) = notification.items()
        node = self._model.get_schema_node(f"/{name}")
        try:
            value = node.from_raw(content)
            RootNode(value, node, self._model.schema_data, value.timestamp).validate(ctype=ContentType.all)
        except YangsonException as error:
            self.wrong.append(error)
        self.lines.append(line)
        self.heard.append((name.partition(":")[2], content))
