"""Networks that meet at borders, all in memory: each KME has a store of its own, requests travel as bytes.

What is lost on the way is decided by the test: every request and every answer passes :attr:`Networks.loses`.
A KME that dies with work in hand is a request that was never sent.
"""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from openqci.core.errors import KeyUnavailable, RequestRefused
from openqci.core.identifiers import KeyId, KmeId, SaeId, StreamId
from openqci.core.keys import SecretBytes
from openqci.delivery import etsi020_model as model
from openqci.delivery.border_extensions import Segment
from openqci.delivery.directory import SaeDirectory
from openqci.delivery.etsi014 import Delivery, get_key, get_key_with_key_ids
from openqci.delivery.etsi014_model import KeyIdsRequest, KeyRequest
from openqci.delivery.etsi020 import Border
from openqci.delivery.etsi020_rules import (
    AcksToSend,
    BorderEvent,
    KeysToSend,
    KeyToCarry,
    NewKey,
    Parcel,
    Partner,
    Rules,
    Terms,
    Timing,
    Told,
    VoidsToSend,
    Work,
)
from openqci.delivery.transfers import HERE, INSIDE, Neighbour, Side
from openqci.keystore import outbox
from openqci.keystore.memory import MemoryKeyStore
from openqci.keystore.ports import KmeView
from tests.delivery.make import enrol, identity, key_bytes

Result = TypeVar("Result")

ALICE, BOB, CAROL = SaeId("alice"), SaeId("bob"), SaeId("carol")
QUICK = Timing(
    request_s_max=2.0,
    retry_s_min=1.0,
    retry_s_max=8.0,
    ack_wait_s=5.0,
    transfer_s_max=60.0,
    ack_s_max=60.0,
    void_s_max=600.0,
    retention_s=3_600.0,
    keep_s=86_400.0,
)

_ids = itertools.count(1)
_chance = random.Random(20)


def new_id() -> KeyId:
    return KeyId(f"00000000-0000-4000-8000-{next(_ids):012x}")


def here(*_: object) -> Neighbour:
    return HERE


def partner(kme: str) -> Neighbour:
    return Neighbour(Side.PARTNER, KmeId(kme))


def inside(kme: str) -> Neighbour:
    return Neighbour(Side.KME, KmeId(kme))


class QueueCarrier:
    """Carries between KMEs of a network by the outbox, and says that a link is empty when told to."""

    LANE = "federation"

    def __init__(self) -> None:
        self.empty = False

    def carry(self, view: KmeView, to: KmeId, parcel: Parcel, value: SecretBytes) -> None:
        if self.empty:
            raise KeyUnavailable("the link is empty", wanted_bytes=len(value), available_bytes=0)
        at = view.append(StreamId(f"carried/{to}"), value).offset_bytes
        body = msgspec.msgpack.encode((at, len(value), parcel))
        outbox.post(view, to, self.LANE, "parcel", body)

    def tell(self, view: KmeView, to: KmeId, told: Told) -> None:
        outbox.post(view, to, self.LANE, "told", msgspec.msgpack.encode(told))


@dataclass
class Kme:
    """One KME: its store, its rules, and what has come about at it."""

    name: KmeId
    domain: str
    ways: dict[SaeId, list[Neighbour]]
    partners: dict[KmeId, Partner] = field(default_factory=dict)
    timing: Timing = QUICK
    synchronous: bool = False
    carrier: QueueCarrier = field(default_factory=QueueCarrier)
    store: MemoryKeyStore = field(default_factory=MemoryKeyStore)
    events: list[BorderEvent] = field(default_factory=list)

    def rules(self) -> Rules:
        return Rules(
            self.domain,
            self.partners,
            _chance.randbytes,
            self.ways.get,
            self.carrier,
            self.synchronous,
            self.timing,
        )

    def border(self, work: Callable[[Border], Result], now_s: float) -> Result:
        """Do something at the border, in one transaction."""

        def inside(tx: object) -> tuple[Result, list[BorderEvent]]:
            border = Border(KmeView(tx, self.name), self.rules(), now_s)  # type: ignore[arg-type]
            return work(border), border.events

        result, events = self.store.submit(inside).result()
        self.events += events
        return result

    def view(self, work: Callable[[KmeView], Result]) -> Result:
        return self.store.submit(lambda tx: work(KmeView(tx, self.name))).result()

    def enrol(self, sae: SaeId, kme: KmeId) -> None:
        self.store.submit(lambda tx: enrol(tx, sae, kme, identity(sae).certificate_sha256)).result()

    def enc_keys(self, master: SaeId, slave: SaeId, number: int = 1, size_bits: int = 256) -> Delivery:
        """Fetch keys as ETSI GS QKD 014 does."""
        request = KeyRequest(number, size_bits, with_provenance=True)
        return self.store.submit(
            lambda tx: get_key(KmeView(tx, self.name), SaeDirectory(tx), identity(master), slave, request)
        ).result()

    def dec_keys(self, slave: SaeId, master: SaeId, *key_ids: str) -> Delivery:
        request = KeyIdsRequest(tuple(map(KeyId, key_ids)), with_provenance=True)
        return self.store.submit(
            lambda tx: get_key_with_key_ids(
                KmeView(tx, self.name), SaeDirectory(tx), identity(slave), master, request
            )
        ).result()


def url(kme: str) -> str:
    return f"https://{kme}/kmapi/v1/ext_keys/ack"


def as_partner(kme: str, domain: str, own: str, **more: object) -> Partner:
    return Partner(KmeId(kme), domain, (url(kme),), url(own), **more)  # type: ignore[arg-type]


class Networks:
    """KMEs that exchange requests. ``loses(kind, sender, receiver)`` decides what is lost on the way."""

    def __init__(self, *kmes: Kme) -> None:
        self.kmes = {kme.name: kme for kme in kmes}
        self.now_s = 1_000.0
        self.loses: Callable[[str, KmeId, KmeId], bool] = lambda kind, sender, receiver: False
        self.bodies: list[tuple[str, KmeId, KmeId, bytes]] = []
        self.takes_all: set[str] = set()
        """KMEs that take every acknowledgement: the test speaks for them."""

    def join(self, one: str, other: str, terms: Terms | None = None) -> None:
        """Make two KMEs partners."""
        for own, its in ((one, other), (other, one)):
            kme = self.kmes[KmeId(own)]
            kme.partners[KmeId(its)] = as_partner(
                its, self.kmes[KmeId(its)].domain, own, terms=terms or Terms()
            )

    def __getitem__(self, name: str) -> Kme:
        return self.kmes[KmeId(name)]

    def originate(
        self,
        at: str,
        initiator: SaeId,
        *targets: SaeId,
        value: bytes | None = None,
        batch_tag: int | None = None,
        expires_s: float = 0.0,
    ) -> tuple[KeyId, bytes]:
        """Begin a key's way; return its ID and bytes."""
        secret = value if value is not None else key_bytes(32)
        new = NewKey(
            new_id(),
            initiator,
            targets,
            self.now_s,
            expires_s,
            Segment(self[at].domain, 1, 1e-10, True, protocols=("decoy-state BB84",)),
            batch_tag,
        )
        with SecretBytes(secret) as key:
            self[at].border(lambda border: border.originate(new, key), self.now_s)
        return new.key_id, secret

    def run(self, seconds: float = 0.0) -> None:
        """Let everything that is due happen; then let time go by, second by second."""
        self.settle()
        for _ in range(int(seconds)):
            self.now_s += 1.0
            self.settle()

    def settle(self) -> None:
        """Work until nothing is due now."""
        for _ in range(200):
            if not sum(self.step(name) for name in self.kmes):
                return
        raise AssertionError("the networks do not come to rest")

    def step(self, name: KmeId) -> int:
        """Do what is due at one KME now; return how much that was."""
        kme = self.kmes[name]
        work = self.work_of(kme)
        for one in work:
            self.do(kme, one)
        return len(work) + self._carry_inside(kme)

    def work_of(self, kme: Kme) -> list[Work]:
        """Take up what is due at one KME in every lane."""
        lanes = (INSIDE, *kme.partners)
        return kme.border(lambda border: [one for lane in lanes for one in border.work(lane)], self.now_s)

    def do(self, kme: Kme, work: Work) -> None:
        if isinstance(work, KeyToCarry):
            try:
                kme.border(lambda border: border.carry(work.key_id), self.now_s)
            except KeyUnavailable as shortage:
                reason = str(shortage)
                kme.border(lambda border: border.put_off(work.key_id, reason), self.now_s)
        elif isinstance(work, KeysToSend):
            self._send_keys(kme, work)
        elif isinstance(work, AcksToSend):
            self._send_acks(kme, work)
        else:
            self._send_voids(kme, work)

    def _send_keys(self, kme: Kme, work: KeysToSend) -> None:
        first = work.transfers[0]
        container = model.ExtKeyContainer(
            tuple(
                model.TransferKey(each.key_id, value, each.extension)
                for each, value in zip(work.transfers, work.values, strict=True)
            ),
            first.initiator,
            first.targets,
            kme.partners[work.partner].own_callback_url,
            optional=first.optional,
        )
        body = model.ext_keys_body(container)
        container.wipe()
        status, reason = self.post(kme.name, work.partner, "keys", body)
        ids = [each.key_id for each in work.transfers]
        kme.border(lambda border: border.keys_answered(work.partner, ids, status, reason), self.now_s)

    def _send_acks(self, kme: Kme, work: AcksToSend) -> None:
        body = model.acks_body(containers_of(work))
        status, _ = self.post(kme.name, work.partner, "acks", body)
        kme.border(lambda border: border.acks_answered(work.acks, status), self.now_s)

    def _send_voids(self, kme: Kme, work: VoidsToSend) -> None:
        first = work.duties[0]
        body = model.void_body(
            model.VoidContainer(
                tuple(each.key_id for each in work.duties),
                first.initiator,
                first.targets,
                kme.partners[work.partner].own_callback_url,
            )
        )
        status, reason = self.post(kme.name, work.partner, "voids", body)
        kme.border(lambda border: border.voids_answered(work.duties, status, reason), self.now_s)

    def post(self, sender: KmeId, receiver: KmeId, kind: str, body: bytes) -> tuple[int, str]:
        """Send a request; return status and reason, 0 if request or answer was lost."""
        self.bodies.append((kind, sender, receiver, body))
        if self.loses(kind, sender, receiver):
            return 0, "no answer"
        status, reason = self.receive(sender, receiver, kind, body)
        if self.loses(f"answer to {kind}", receiver, sender):
            return 0, "no answer"
        return status, reason

    def receive(self, sender: KmeId, receiver: KmeId, kind: str, body: bytes) -> tuple[int, str]:
        kme = self.kmes[receiver]
        try:
            if kind == "keys":
                container = model.ext_keys_from_body(body)
                kme.border(lambda border: border.receive(sender, container), self.now_s)
                container.wipe()
                return 202, ""
            if kind == "acks":
                acks = model.acks_from_body(body)
                if receiver in self.takes_all:
                    return 200, ""
                kme.border(lambda border: border.acknowledge(sender, acks), self.now_s)
                return 200, ""
            request = model.void_from_body(body)
            kme.border(lambda border: border.void(sender, request), self.now_s)
            return 202, ""
        except RequestRefused as refused:
            return refused.status, model.problem_in(model.problem_body(refused))

    def _carry_inside(self, kme: Kme) -> int:
        """Bring what waits in a KME's outbox to the others of its network."""
        moved = 0
        for other in self.kmes.values():
            turn = kme.view(lambda view, to=other.name: outbox.next_turn(view, to, QueueCarrier.LANE))
            if turn is None or self.loses("inside", kme.name, other.name):
                continue
            values = {
                message.number: kme.view(lambda view, m=message, to=other.name: _taken(view, m, to))
                for message in turn.messages
                if message.kind == "parcel"
            }
            answers = other.store.submit(
                lambda tx, other=other, turn=turn, values=values: self._received(
                    KmeView(tx, other.name), kme, other, turn, values
                )
            ).result()
            kme.view(
                lambda view, to=other.name, answers=answers: outbox.settle(view, to, answers, lambda *_: None)
            )
            moved += len(turn.messages)
        return moved

    def _received(
        self, view: KmeView, kme: Kme, other: Kme, turn: outbox.Turn, values: dict[int, bytes]
    ) -> outbox.Answers:
        def handle(view: KmeView, peer: KmeId, message: outbox.Message) -> bytes:
            border = Border(view, other.rules(), self.now_s)
            if message.kind == "parcel":
                _, _, parcel = msgspec.msgpack.decode(message.body, type=tuple[int, int, Parcel])
                with SecretBytes(values[message.number]) as value:
                    border.arrived(peer, parcel, value, Segment(other.domain, 2, 2e-10, True))
            else:
                border.told(peer, msgspec.msgpack.decode(message.body, type=Told))
            other.events += border.events
            return b""

        return outbox.receive(view, kme.name, turn, handle)


def _taken(view: KmeView, message: outbox.Message, to: KmeId) -> bytes:
    at, length, _ = msgspec.msgpack.decode(message.body, type=tuple[int, int, Parcel])
    with view.take(StreamId(f"carried/{to}"), at, length) as value:
        return bytes(value.reveal())


def containers_of(work: AcksToSend) -> list[model.AckContainer]:
    return [
        model.AckContainer(
            (each.key,), each.status, each.initiator, each.targets, each.message, each.extension
        )
        for each in work.acks
    ]


def two() -> Networks:
    """ALICE is at ``pt`` in PT, BOB at ``es`` in ES; the two KMEs are partners."""
    found = Networks(
        Kme(KmeId("pt"), "PT", {ALICE: [HERE], BOB: [partner("es")]}),
        Kme(KmeId("es"), "ES", {BOB: [HERE], ALICE: [partner("pt")]}),
    )
    found.join("pt", "es")
    for name in ("pt", "es"):
        found[name].enrol(ALICE, KmeId("pt"))
        found[name].enrol(BOB, KmeId("es"))
    return found


def chain() -> Networks:
    """ALICE in PT, BOB in FR; between them ES with two KMEs, one at each border.

    ALICE's KME is behind a border KME of its own, too; BOB's is itself at the border.
    """
    found = Networks(
        Kme(KmeId("pt-a"), "PT", {ALICE: [HERE], BOB: [inside("pt-b")]}),
        Kme(KmeId("pt-b"), "PT", {ALICE: [inside("pt-a")], BOB: [partner("es-a")]}),
        Kme(KmeId("es-a"), "ES", {ALICE: [partner("pt-b")], BOB: [inside("es-b")]}),
        Kme(KmeId("es-b"), "ES", {ALICE: [inside("es-a")], BOB: [partner("fr")]}),
        Kme(KmeId("fr"), "FR", {BOB: [HERE], ALICE: [partner("es-b")]}),
    )
    found.join("pt-b", "es-a")
    found.join("es-b", "fr")
    for name in found.kmes:
        found[name].enrol(ALICE, KmeId("pt-a"))
        found[name].enrol(BOB, KmeId("fr"))
    return found
