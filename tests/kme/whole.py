"""Two real nodes of which one serves every interface there is, and what one needs to look at its process."""

import json
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from openqci.cli.kme.run import READY_LINE
from openqci.services.pki import CertificateAuthority, write_credentials
from openqci.services.roles import Role
from openqci.services.sae_client import SAEClient
from tests.kme.torture import TwoSites

PSK, PSK_IDENTITY = "2a" * 32, "router"
LISTENERS = {
    "sae": 0,
    "peer": 1,
    "operator": 2,
    "skip": 3,
    "skip_psk": 4,
    "etsi004": 5,
    "module": 6,
}
"""Every interface of a node, by its name in ``[listen]``, and the place of its port after the first."""

ROLES = (Role.OPERATOR, Role.SECURITY_OFFICER, Role.AUDITOR)
CREDENTIALS = {
    Role.SAE: "app-a",
    Role.KME: "b/tls",
    Role.QKD_MODULE: "qkd-1",
    **{role: role.value for role in ROLES},
}
"""A folder with the certificate of each role."""


class WholeSites(TwoSites):
    """Node ``a`` serves every interface; ``b`` is its peer."""

    def __init__(self, folder: Path, port_base: int) -> None:
        super().__init__(folder, port_base)
        authority = CertificateAuthority.open(folder / "pki")
        for role in (*ROLES, Role.QKD_MODULE):
            name = "qkd-1" if role is Role.QKD_MODULE else role.value
            write_credentials(folder / name, authority.issue_holder(role, name), authority)
        psk = folder / "psk"
        psk.write_text(PSK)
        psk.chmod(0o600)
        a = folder / "a" / "kme.toml"
        listen = "".join(
            f'{name} = "127.0.0.1:{self.port(name)}"\n' for name in ("skip", "skip_psk", "etsi004", "module")
        )
        text = a.read_text().replace("[listen]\n", f"[listen]\n{listen}", 1)
        text = text.replace(
            'id = "app-a"', f'id = "app-a"\npsk_identity = "{PSK_IDENTITY}"\npsk_file = "../psk"', 1
        )
        a.write_text(text + '[log]\nformat = "json"\nlevel = "info"\n' + self._pushed("kme-b", True))
        b = folder / "b" / "kme.toml"
        listen = f'[listen]\nmodule = "127.0.0.1:{port_base + 16}"\n'
        b.write_text(b.read_text().replace("[listen]\n", listen, 1) + self._pushed("kme-a", False))

    def port(self, listener: str) -> int:
        return self.base + LISTENERS[listener]

    @property
    def pid(self) -> int:
        process = self.kmes["a"].process
        assert process is not None
        return process.pid

    def log(self) -> list[dict[str, str]]:
        """Return what ``a`` has logged; every line but ``ready`` is a JSON object."""
        lines = self.kmes["a"].log.read_text().splitlines()
        return [json.loads(line) for line in lines if line != READY_LINE]

    def tls(self, folder: str | None) -> ssl.SSLContext:
        """Return the rules of a client with the certificate in a folder, or without one."""
        context = ssl.create_default_context(cafile=str(self.folder / "pki" / "ca.pem"))
        if folder is not None:
            context.load_cert_chain(self.folder / folder / "cert.pem", self.folder / folder / "key.pem")
        return context

    @contextmanager
    def connected(self, listener: str, folder: str | None) -> Iterator[ssl.SSLSocket]:
        """Connect to an interface of ``a``."""
        plain = socket.create_connection(("127.0.0.1", self.port(listener)), 15)
        with closing(self.tls(folder).wrap_socket(plain, server_hostname="localhost")) as connection:
            yield connection

    def _pushed(self, peer: str, leads: bool) -> str:
        """A second link, whose modules push; none is there, but their certificates are."""
        return f"""
[[link]]
id = "pushed"
peer = "{peer}"
leads = {str(leads).lower()}
[link.etsi004_push]
module = "qkd-1"
url = "https://127.0.0.1:1"
source = "qkd://a"
destination = "qkd://b"
certificate = "tls/cert.pem"
key = "tls/key.pem"
authority = "tls/ca.pem"
simulated = true
"""


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def settled_files(pid: int, at_most: int, within_s: float) -> int:
    """Return the open files of a process when they are few again, or what there is in the end."""
    give_up_s = time.monotonic() + within_s
    while (count := open_files(pid)) > at_most and time.monotonic() < give_up_s:
        time.sleep(0.1)
    return count


def latency_s(client: SAEClient, slave: str) -> float:
    """Return how long an application waits for a status."""
    began_s = time.monotonic()
    assert client.status(slave).status == 200
    return time.monotonic() - began_s
