"""The listeners beside a KME's own: the controller's, the orchestrator's, and that for partner domains.

Hostile and slow clients at all three at once, and six roles at each: whoever is none of theirs is refused.
"""

import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from openqci.control.offers import OFFER_BYTES_MAX
from openqci.core.identifiers import KmeId, SaeId
from openqci.delivery.etsi020_model import ACK_PATH, KEYS_PATH, VERSIONS_PATH, VOID_PATH
from openqci.services.accept import HANDSHAKE_S_MAX, TLS_SHUTDOWN_S_MAX
from openqci.services.controller_app import (
    CONFIGURATION_PATH,
    MAY_EXPORT,
    REPORT_BYTES_MAX,
    REPORT_PATH,
    STATUS_PATH,
    TOPOLOGY_PATH,
)
from openqci.services.etsi020_app import BODY_BYTES_MAX
from openqci.services.kme_server import HEAD_S_MAX, LOOK_EVERY_S
from openqci.services.orchestrator_app import OFFER_PATH, WAYS_PATH
from openqci.services.orchestrator_app import STATUS_PATH as ORCHESTRATOR_STATUS_PATH
from openqci.services.pki import CertificateAuthority, write_credentials
from openqci.services.roles import Role
from tests.kme.hostile import (
    Outcome,
    all_at_once,
    before_the_handshake,
    behind_the_handshake,
    client_hello,
    drip,
    provoke,
    provoke_inside,
)
from tests.kme.make import Process, running
from tests.kme.three_domains import ADDRESSES, ThreeDomains
from tests.kme.whole import open_files, settled_files

SEED = 21
MUTATIONS = 15
SLACK_S = 6.0
ENDS_WITHIN_S = max(HANDSHAKE_S_MAX, HEAD_S_MAX + LOOK_EVERY_S) + TLS_SHUTDOWN_S_MAX + SLACK_S
LATENCY_S_MAX = 8.0
OWN_LINES = 6
"""Connections that the processes have to each other come and go."""

SIX = (Role.SAE, Role.KME, Role.QKD_MODULE, Role.OPERATOR, Role.SECURITY_OFFICER, Role.AUDITOR)
LOOKS = {Role.OPERATOR, Role.SECURITY_OFFICER, Role.AUDITOR}
CLOSES = {Role.OPERATOR, Role.SECURITY_OFFICER}
REFUSED = 401


@dataclass(frozen=True)
class Listener:
    """One interface: where it is, whose process has it, who certifies its callers, and who is one."""

    process: str
    host: str
    port_above_base: int
    authority: str
    caller: str
    path: str


LISTENERS = {
    "controller": Listener("control-de", ADDRESSES["de"], 4, "de/ca", "de/operator", STATUS_PATH),
    "orchestrator": Listener("orchestrator", "127.0.9.1", 4, "ca", "operator", ORCHESTRATOR_STATUS_PATH),
    "partners": Listener("kme-de", ADDRESSES["de"], 3, "at/ca", "at/kme/tls", VERSIONS_PATH),
}

REQUESTS: dict[str, tuple[str, str, str, bytes, dict[Role, int]]] = {
    "report": ("controller", "POST", REPORT_PATH, b"no report", {Role.KME: 400}),
    "configuration": ("controller", "GET", CONFIGURATION_PATH, b"", dict.fromkeys({*LOOKS, Role.KME}, 200)),
    "domain": ("controller", "GET", STATUS_PATH, b"", dict.fromkeys(LOOKS, 200)),
    "topology": ("controller", "GET", TOPOLOGY_PATH, b"", dict.fromkeys(MAY_EXPORT, 200)),
    "close": ("controller", "POST", "/domain/v1/links/none/close", b"", dict.fromkeys(CLOSES, 404)),
    "open": ("controller", "POST", "/domain/v1/links/none/open", b"", dict.fromkeys(CLOSES, 404)),
    "offer": ("orchestrator", "POST", OFFER_PATH, b"no offer", {}),
    "network": ("orchestrator", "GET", ORCHESTRATOR_STATUS_PATH, b"", dict.fromkeys(LOOKS, 200)),
    "ways": ("orchestrator", "GET", f"{WAYS_PATH}?from=X&to=Y", b"", dict.fromkeys(LOOKS, 404)),
    "versions": ("partners", "GET", VERSIONS_PATH, b"", {}),
    "keys": ("partners", "POST", KEYS_PATH, b"no keys", {}),
    "ack": ("partners", "POST", ACK_PATH, b"no ack", {}),
    "void": ("partners", "POST", VOID_PATH, b"no void", {}),
}
"""What is asked of which interface, and which of six roles gets further than 401. The KME among them is no
partner: at the interface for partners a role is not enough, it takes the name of one."""


class Network(ThreeDomains):
    """A domain's controller and border KME, and the orchestrator; six certificates for each."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        for authority in ("de/ca", "at/ca", "ca"):
            issuer = CertificateAuthority.open(self.folder / authority)
            for role in SIX:
                issued = {
                    Role.SAE: lambda issuer=issuer: issuer.issue_sae(SaeId("stranger")),
                    Role.KME: lambda issuer=issuer: issuer.issue_kme(KmeId("kme-stranger"), ["localhost"]),
                }.get(role, lambda issuer=issuer, role=role: issuer.issue_holder(role, "stranger"))()
                write_credentials(self.folder / "six" / authority / role, issued, issuer)

    @property
    def own(self) -> list[Process]:
        return [self.processes[listener.process] for listener in LISTENERS.values()]

    def pid(self, listener: str) -> int:
        process = self.processes[LISTENERS[listener].process].process
        assert process is not None
        return process.pid

    def port(self, listener: str) -> int:
        return self.base + LISTENERS[listener].port_above_base

    def tls(self, listener: str, folder: str) -> ssl.SSLContext:
        """Return the rules of a client with the certificate in a folder."""
        server = {"controller": "de/ca", "orchestrator": "ca", "partners": "de/ca"}[listener]
        context = ssl.create_default_context(cafile=str(self.folder / server / "ca.pem"))
        context.load_cert_chain(self.folder / folder / "cert.pem", self.folder / folder / "key.pem")
        return context

    def ask(self, listener: str, folder: str, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        host = LISTENERS[listener].host
        context = self.tls(listener, folder)
        with closing(HTTPSConnection(host, self.port(listener), context=context, timeout=20)) as connection:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            return answer.status, answer.read()


@dataclass
class Siege:
    """What was seen."""

    before: list[Outcome] = field(default_factory=list)
    behind: list[Outcome] = field(default_factory=list)
    slow: list[Outcome] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    files: dict[str, tuple[int, int]] = field(default_factory=dict)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    made = Network(tmp_path_factory.mktemp("network"))
    with running(*made.own):
        yield made


@pytest.fixture(scope="module")
def siege(network: Network) -> Siege:
    siege, over = Siege(), threading.Event()
    files = {name: open_files(network.pid(name)) for name in LISTENERS}
    watching = threading.Thread(target=ask_meanwhile, args=(network, siege.latencies_s, over))
    watching.start()
    try:
        acts = [*acts_before(network)], [*acts_behind(network)], [*acts_slow(network)]
        everything = [act for some in acts for act in some]
        outcomes = iter(all_at_once(everything, len(everything)))
        siege.before, siege.behind, siege.slow = ([next(outcomes) for _ in some] for some in acts)
    finally:
        over.set()
        watching.join()
    for name in LISTENERS:
        few = files[name] + OWN_LINES
        settled = settled_files(network.pid(name), few, TLS_SHUTDOWN_S_MAX + SLACK_S)
        siege.files[name] = files[name], settled
    return siege


def acts_before(network: Network) -> Iterator[Callable[[], Outcome]]:
    for number, (name, listener) in enumerate(LISTENERS.items()):
        for what, pieces in before_the_handshake(SEED + number, MUTATIONS):
            words = f"{name}: {what}"
            yield partial(provoke, network.port(name), words, pieces, ENDS_WITHIN_S, listener.host)


def acts_behind(network: Network) -> Iterator[Callable[[], Outcome]]:
    for number, (name, listener) in enumerate(LISTENERS.items()):
        context = network.tls(name, listener.caller)
        inside = partial(provoke_inside, network.port(name), context)
        for what, text, below in behind_the_handshake(SEED + number, MUTATIONS):
            yield partial(inside, f"{name}: {what}", text, below, ENDS_WITHIN_S, listener.host)


def acts_slow(network: Network) -> Iterator[Callable[[], Outcome]]:
    """A handshake byte by byte, a request byte by byte, and a body of which nothing more comes."""
    head = b"GET /" + b"a" * 1000
    for name, listener in LISTENERS.items():
        drop = partial(drip, network.port(name))
        yield partial(drop, None, f"{name}: handshake", client_hello(), ENDS_WITHIN_S, listener.host)
        context = network.tls(name, listener.caller)
        yield partial(drop, context, f"{name}: request", head, ENDS_WITHIN_S, listener.host)


def ask_meanwhile(network: Network, latencies_s: list[float], over: threading.Event) -> None:
    """Be an honest caller of each."""
    while not over.wait(0.3):
        for name, listener in LISTENERS.items():
            began_s = time.monotonic()
            assert network.ask(name, listener.caller, "GET", listener.path)[0] == 200
            latencies_s.append(time.monotonic() - began_s)


def test_whatever_comes_before_a_handshake_is_closed(siege: Siege) -> None:
    assert len(siege.before) == len(LISTENERS) * (11 + MUTATIONS)
    assert [outcome for outcome in siege.before if not outcome.closed] == []


def test_whatever_comes_behind_a_handshake_is_answered_or_closed(siege: Siege) -> None:
    assert len(siege.behind) == len(LISTENERS) * (16 + MUTATIONS)
    assert [outcome for outcome in siege.behind if not outcome.closed and not outcome.answered] == []


def test_slow_clients_are_closed_after_their_time(siege: Siege) -> None:
    for outcome in siege.slow:
        assert outcome.closed, outcome
        assert outcome.seconds > min(HANDSHAKE_S_MAX, HEAD_S_MAX) - 1, outcome


def test_others_are_served_meanwhile(siege: Siege) -> None:
    assert len(siege.latencies_s) > 10
    assert max(siege.latencies_s) < LATENCY_S_MAX


def test_nothing_is_left_behind(siege: Siege, network: Network) -> None:
    for name, (before, after) in siege.files.items():
        assert after <= before + OWN_LINES, name
    for process in network.own:
        assert "Traceback" not in process.log.read_text()


@pytest.mark.parametrize(
    ("name", "path", "caller", "bytes_max", "status"),
    [
        ("controller", REPORT_PATH, "de/kme/tls", REPORT_BYTES_MAX, 413),
        ("controller", "/domain/v1/links/none/close", "de/operator", 0, 404),
        ("orchestrator", OFFER_PATH, "de/control/tls", OFFER_BYTES_MAX, 413),
        ("partners", KEYS_PATH, "at/kme/tls", BODY_BYTES_MAX, 400),
    ],
)
def test_a_body_beyond_the_limit_is_refused(
    network: Network, name: str, path: str, caller: str, bytes_max: int, status: int
) -> None:
    body = random.Random(SEED).randbytes(bytes_max + 1)
    answered, said = network.ask(name, caller, "POST", path, body)
    assert answered == status, said
    assert body[:32] not in said


@pytest.mark.parametrize("role", SIX)
@pytest.mark.parametrize("name", REQUESTS)
def test_each_role_opens_what_is_its_own_and_no_more(network: Network, name: str, role: Role) -> None:
    listener, method, path, body, further = REQUESTS[name]
    folder = f"six/{LISTENERS[listener].authority}/{role}"
    status, said = network.ask(listener, folder, method, path, body)
    assert status == further.get(role, REFUSED), said


@pytest.mark.parametrize(("name", "authority"), [("controller", "at/ca"), ("partners", "ca")])
def test_a_certificate_of_another_authority_opens_nothing(
    network: Network, name: str, authority: str
) -> None:
    for role in SIX:
        with pytest.raises(OSError):
            network.ask(name, f"six/{authority}/{role}", "GET", LISTENERS[name].path)


@pytest.mark.parametrize("role", sorted(LOOKS))
def test_an_operator_of_a_domain_does_not_look_into_the_orchestrator(network: Network, role: Role) -> None:
    status, said = network.ask("orchestrator", f"six/de/ca/{role}", "GET", ORCHESTRATOR_STATUS_PATH)
    assert status == REFUSED and b"orchestrator's authority" in said


@pytest.mark.parametrize("role", SIX)
def test_only_a_controller_offers(network: Network, role: Role) -> None:
    status, _ = network.ask("orchestrator", f"six/de/ca/{role}", "POST", OFFER_PATH, b"no offer")
    assert status == REFUSED
    status, _ = network.ask("orchestrator", "de/control/tls", "POST", OFFER_PATH, b"no offer")
    assert status == 403
