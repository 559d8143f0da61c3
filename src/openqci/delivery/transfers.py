"""What a KME remembers of keys that cross the borders of its network: durable, and found again after a crash.

A *transfer* is one key with the applications that it is for, on its way through this KME: from the upstream
neighbour (a partner of another network, a KME of our own network, or this KME itself) to the downstream one.
Key bytes lie in sealed streams and nowhere else; records say where. Beside the transfers there are
acknowledgements and voids that wait to be heard by a partner, the IDs of keys that were voided before they
came, and a list of all that is due, in order of time, from which the shell works. Each partner has a *lane*
of that list, so that one which does not answer holds up nobody else (invariant I9).

The rules by which all this changes are in :mod:`openqci.delivery.etsi020`.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from urllib.parse import quote

import msgspec

from openqci.core.errors import invariant
from openqci.core.identifiers import KeyId, KmeId, SaeId, StreamId
from openqci.core.keys import SecretBytes
from openqci.crypto import ONE_TIME_MAC_KEY_BYTES, equal, one_time_mac
from openqci.delivery.etsi020_model import AckKey, AckStatus
from openqci.keystore.ports import KmeView

TRANSFER_KIND = "transfer"
ASSOCIATION_KIND = "transfer-pair"
DUE_KIND = "transfer-due"
ACK_KIND = "transfer-ack"
VOID_KIND = "transfer-void"
REFUSED_KIND = "transfer-refused"
COUNT_KIND = "transfer-count"

VALUE_STREAM, CHECK_STREAM = StreamId("transfer/value"), StreamId("transfer/check")
"""Values on their way, and the MAC keys by which a request that is sent again is known to be the same."""

INSIDE = "-"
"""The lane of what is done at this KME alone; every other lane is that of a partner."""

WAITING_COUNTED_MAX = 10_000

GONE = -1
"""Place of bytes that are no longer here."""


class Side(StrEnum):
    """Where a neighbour of a transfer is."""

    HERE = "here"
    KME = "kme"
    PARTNER = "partner"


class Neighbour(msgspec.Struct, frozen=True):
    """Who a key comes from or goes to: this KME, another of our network, or a partner."""

    side: Side
    kme: KmeId = KmeId("")

    def __str__(self) -> str:
        return f"{self.side}:{self.kme}"


HERE = Neighbour(Side.HERE)


class State(StrEnum):
    """Where a transfer stands. ``waiting`` and ``sent`` are pending, ``voiding`` waits for a neighbour."""

    WAITING = "waiting"
    SENT = "sent"
    RELAYED = "relayed"
    FAILED = "failed"
    VOIDING = "voiding"
    VOIDED = "voided"


PENDING = frozenset({State.WAITING, State.SENT})


class Report(msgspec.Struct, frozen=True):
    """A neighbour that waits to hear how a void has ended; without a URL it waits for the answer itself."""

    neighbour: Neighbour
    callback_url: str = ""


class Transfer(msgspec.Struct, frozen=True):
    """One key on its way through this KME.

    ``optional`` and ``extension`` are what came beside the key, as JSON; ``ack_key`` and ``ack_extension``
    what came back with its acknowledgement. ``handed_on`` says that the neighbour downstream may hold the
    key. ``deadline_s`` is when a pending transfer is given up, ``due_s`` when something is to be done next.
    """

    key_id: KeyId
    initiator: SaeId
    targets: tuple[SaeId, ...]
    upstream: Neighbour
    downstream: Neighbour
    state: State
    value_bytes: int
    received_s: float
    deadline_s: float
    due_s: float
    value_at: int = GONE
    check_at: int = GONE
    check_tag: bytes = b""
    callback_url: str = ""
    optional: bytes = b""
    extension: bytes = b""
    ack_key: bytes = b""
    ack_extension: bytes = b""
    message: str = ""
    attempts: int = 0
    handed_on: bool = False
    reports: tuple[Report, ...] = ()

    @property
    def association(self) -> tuple[SaeId, tuple[SaeId, ...]]:
        return self.initiator, tuple(sorted(self.targets))

    @property
    def lane(self) -> str:
        to_partner = self.downstream.side is Side.PARTNER and self.state in PENDING
        return self.downstream.kme if to_partner else INSIDE

    @property
    def due_name(self) -> str:
        return f"key/{self.key_id}"


class Ack(msgspec.Struct, frozen=True):
    """One key's acknowledgement that a partner has not taken yet."""

    number: int
    partner: KmeId
    callback_url: str
    key: AckKey
    status: AckStatus
    initiator: SaeId
    targets: tuple[SaeId, ...]
    made_s: float
    due_s: float
    message: str = ""
    extension: bytes = b""
    attempts: int = 0

    @property
    def record_key(self) -> str:
        return f"{self.key.key_id}/{self.number:016d}"

    @property
    def lane(self) -> str:
        return self.partner

    @property
    def due_name(self) -> str:
        return f"ack/{self.record_key}"


class VoidDuty(msgspec.Struct, frozen=True):
    """A key that a neighbour shall void, until it has said how that ended."""

    key_id: KeyId
    neighbour: Neighbour
    initiator: SaeId
    targets: tuple[SaeId, ...]
    since_s: float
    due_s: float
    attempts: int = 0

    @property
    def record_key(self) -> str:
        return f"{self.key_id}/{self.neighbour}"

    @property
    def lane(self) -> str:
        return self.neighbour.kme if self.neighbour.side is Side.PARTNER else INSIDE

    @property
    def due_name(self) -> str:
        return f"void/{self.record_key}"


Scheduled = Transfer | Ack | VoidDuty


# Transfers


def find(view: KmeView, key_id: KeyId) -> Transfer | None:
    """Return the transfer of a key, or None."""
    body = view.record(TRANSFER_KIND, key_id)
    return msgspec.msgpack.decode(body, type=Transfer) if body is not None else None


def save(view: KmeView, transfer: Transfer) -> None:
    """Write a transfer down, with what is due next."""
    known = find(view, transfer.key_id)
    _arm(view, known, transfer)
    _count(view, known, transfer)
    view.put_record(TRANSFER_KIND, transfer.key_id, msgspec.msgpack.encode(transfer))
    if known is None:
        view.put_record(ASSOCIATION_KIND, _association_key(transfer), b"")


def forget(view: KmeView, transfer: Transfer) -> None:
    """Drop a transfer that is over; what is left of its bytes is destroyed."""
    invariant(transfer.state not in PENDING, "a transfer that is pending is not forgotten")
    without = without_check(view, without_value(view, transfer))
    _arm(view, transfer, None)
    view.drop_record(TRANSFER_KIND, without.key_id)
    view.drop_record(ASSOCIATION_KIND, _association_key(without))


def of_association(view: KmeView, initiator: SaeId, targets: Sequence[SaeId]) -> list[Transfer]:
    """Return all transfers between an initiator and its targets."""
    prefix = _association_prefix(initiator, targets)
    ids = [KeyId(key.rpartition("/")[2]) for key, _ in view.records(ASSOCIATION_KIND, prefix)]
    return [transfer for key_id in ids if (transfer := find(view, key_id)) is not None]


def pending(view: KmeView, neighbour: Neighbour) -> int:
    """Return how many keys that came from a neighbour are still on their way."""
    return int(view.record(COUNT_KIND, str(neighbour)) or b"0")


def coming_bytes(view: KmeView, initiator: SaeId, targets: Sequence[SaeId]) -> int:
    """Return how much of what set out here for an association is still on its way."""
    name = f"coming/{_association_prefix(initiator, targets)}"
    return int(view.record(COUNT_KIND, name) or b"0")


def all_transfers(view: KmeView) -> Iterator[Transfer]:
    """Return all transfers that this KME remembers."""
    for _, body in view.records(TRANSFER_KIND):
        yield msgspec.msgpack.decode(body, type=Transfer)


# The bytes


def with_value(view: KmeView, transfer: Transfer, value: SecretBytes) -> Transfer:
    """Keep a value, sealed. The caller wipes it, and saves the transfer."""
    at = view.append(VALUE_STREAM, value).offset_bytes
    return msgspec.structs.replace(transfer, value_at=at)


def taken_value(view: KmeView, transfer: Transfer) -> tuple[SecretBytes, Transfer]:
    """Take a value out of the store; the caller saves the transfer."""
    value = view.take(VALUE_STREAM, transfer.value_at, transfer.value_bytes)
    return value, msgspec.structs.replace(transfer, value_at=GONE)


def copied_value(view: KmeView, transfer: Transfer) -> tuple[SecretBytes, Transfer]:
    """Return a copy of a value that stays in the store, at another place; the caller saves the transfer."""
    value, without = taken_value(view, transfer)
    return value, with_value(view, without, value)


def without_value(view: KmeView, transfer: Transfer) -> Transfer:
    """Destroy a value that is still there; the caller saves the transfer."""
    if transfer.value_at == GONE:
        return transfer
    value, without = taken_value(view, transfer)
    value.wipe()
    return without


def with_check(view: KmeView, transfer: Transfer, value: SecretBytes, mac_key: SecretBytes) -> Transfer:
    """Keep what tells this value from any other after it has gone: a one-time MAC, its key sealed.

    A digest would do for a long key, but an 8-byte key could be found from it by trying.
    """
    at = view.append(CHECK_STREAM, mac_key).offset_bytes
    tag = one_time_mac(mac_key.reveal(), value.reveal())
    return msgspec.structs.replace(transfer, check_at=at, check_tag=tag)


def is_same_value(view: KmeView, transfer: Transfer, value: SecretBytes) -> bool:
    """Tell whether a value is the one of a transfer. The check is kept, at another place."""
    with view.take(CHECK_STREAM, transfer.check_at, ONE_TIME_MAC_KEY_BYTES) as mac_key:
        same = equal(one_time_mac(mac_key.reveal(), value.reveal()), transfer.check_tag)
        at = view.append(CHECK_STREAM, mac_key).offset_bytes
    save(view, msgspec.structs.replace(transfer, check_at=at))
    return same


def without_check(view: KmeView, transfer: Transfer) -> Transfer:
    """Destroy the key of the check; the caller saves or forgets the transfer."""
    if transfer.check_at == GONE:
        return transfer
    view.take(CHECK_STREAM, transfer.check_at, ONE_TIME_MAC_KEY_BYTES).wipe()
    return msgspec.structs.replace(transfer, check_at=GONE)


# Acknowledgements, voids, and keys that never came


def post_ack(view: KmeView, ack: Ack) -> Ack:
    """Have an acknowledgement wait for its partner; its number is found here."""
    number = int(view.record(COUNT_KIND, "acks") or b"0")
    view.put_record(COUNT_KIND, "acks", str(number + 1).encode())
    numbered = msgspec.structs.replace(ack, number=number)
    save_ack(view, numbered)
    return numbered


def save_ack(view: KmeView, ack: Ack) -> None:
    """Write an acknowledgement down, with when it is due next."""
    _arm(view, find_ack(view, ack.record_key), ack)
    view.put_record(ACK_KIND, ack.record_key, msgspec.msgpack.encode(ack))


def find_ack(view: KmeView, record_key: str) -> Ack | None:
    """Return an acknowledgement that waits, or None."""
    body = view.record(ACK_KIND, record_key)
    return msgspec.msgpack.decode(body, type=Ack) if body is not None else None


def drop_ack(view: KmeView, ack: Ack) -> None:
    """An acknowledgement was taken, or is void itself."""
    _arm(view, ack, None)
    view.drop_record(ACK_KIND, ack.record_key)


def acks_of(view: KmeView, key_id: KeyId) -> list[Ack]:
    """Return the acknowledgements of a key that wait."""
    return [msgspec.msgpack.decode(body, type=Ack) for _, body in view.records(ACK_KIND, f"{key_id}/")]


def save_duty(view: KmeView, duty: VoidDuty) -> None:
    """Write down that a neighbour shall void a key."""
    _arm(view, find_duty(view, duty.record_key), duty)
    view.put_record(VOID_KIND, duty.record_key, msgspec.msgpack.encode(duty))


def find_duty(view: KmeView, record_key: str) -> VoidDuty | None:
    """Return what a neighbour shall void, or None."""
    body = view.record(VOID_KIND, record_key)
    return msgspec.msgpack.decode(body, type=VoidDuty) if body is not None else None


def duty_of(view: KmeView, key_id: KeyId, neighbour: Neighbour) -> VoidDuty | None:
    """Return the duty of a neighbour to void a key, or None."""
    return find_duty(view, f"{key_id}/{neighbour}")


def drop_duty(view: KmeView, duty: VoidDuty) -> None:
    """A neighbour has said how its void ended, or is given up."""
    _arm(view, duty, None)
    view.drop_record(VOID_KIND, duty.record_key)


def refuse_from_now_on(view: KmeView, neighbour: Neighbour, key_id: KeyId, until_s: float) -> None:
    """Note that a neighbour has voided a key that it had not sent: if it comes late, it is refused."""
    name = f"{neighbour}/{key_id}"
    if view.record(REFUSED_KIND, name) is None:
        view.put_record(REFUSED_KIND, name, str(until_s).encode())
        view.put_record(DUE_KIND, _due_key(INSIDE, until_s, f"refused/{name}"), b"")


def is_refused(view: KmeView, neighbour: Neighbour, key_id: KeyId) -> bool:
    """Tell whether a neighbour has voided this key before it came."""
    return view.record(REFUSED_KIND, f"{neighbour}/{key_id}") is not None


# What is due


def due(view: KmeView, lane: str, now_s: float, names_max: int) -> list[str]:
    """Return the names of what is due in a lane, the most overdue first; ``find_due`` finds each."""
    found: list[str] = []
    for key, _ in view.records(DUE_KIND, f"{lane}/", names_max):
        at, _, name = key.removeprefix(f"{lane}/").partition("/")
        if int(at) > int(now_s * 1e6):
            break
        found.append(name)
    return found


def next_due_s(view: KmeView, lane: str) -> float | None:
    """Return when something is due next in a lane, or None."""
    first = next(iter(view.records(DUE_KIND, f"{lane}/", 1)), None)
    return int(first[0].removeprefix(f"{lane}/").partition("/")[0]) / 1e6 if first is not None else None


def lanes(view: KmeView) -> list[str]:
    """Return the lanes in which anything is written down, also those of partners that are no more."""
    return sorted({key.partition("/")[0] for key, _ in view.records(DUE_KIND)})


def waiting(view: KmeView, lane: str) -> int:
    """Return how much waits in a lane, up to ``WAITING_COUNTED_MAX``."""
    return sum(1 for _ in view.records(DUE_KIND, f"{lane}/", WAITING_COUNTED_MAX))


def find_due(view: KmeView, name: str) -> Scheduled | None:
    """Return what a name of :func:`due` stands for. A refusal whose time is over is dropped, and is none."""
    kind, _, key = name.partition("/")
    if kind == "key":
        return find(view, KeyId(key))
    if kind == "ack":
        return find_ack(view, key)
    if kind == "void":
        return find_duty(view, key)
    until = view.record(REFUSED_KIND, key)
    if until is not None:
        view.drop_record(REFUSED_KIND, key)
        view.drop_record(DUE_KIND, _due_key(INSIDE, float(until), name))
    return None


def _arm(view: KmeView, known: Scheduled | None, now: Scheduled | None) -> None:
    """Move an entry of the list of what is due."""
    if known is not None:
        view.drop_record(DUE_KIND, _due_key(known.lane, known.due_s, known.due_name))
    if now is not None:
        view.put_record(DUE_KIND, _due_key(now.lane, now.due_s, now.due_name), b"")


def _count(view: KmeView, known: Transfer | None, now: Transfer) -> None:
    was = known is not None and known.state in PENDING
    change = (now.state in PENDING) - was
    if not change:
        return
    _add(view, str(now.upstream), change)
    if now.upstream == HERE:
        name = f"coming/{_association_prefix(now.initiator, now.targets)}"
        _add(view, name, change * now.value_bytes)


def _add(view: KmeView, name: str, change: int) -> None:
    total = int(view.record(COUNT_KIND, name) or b"0") + change
    invariant(total >= 0, "no less than nothing is on its way")
    if total:
        view.put_record(COUNT_KIND, name, str(total).encode())
    else:
        view.drop_record(COUNT_KIND, name)


def _due_key(lane: str, due_s: float, name: str) -> str:
    return f"{lane}/{int(due_s * 1e6):020d}/{name}"


def _association_prefix(initiator: SaeId, targets: Sequence[SaeId]) -> str:
    named = "+".join(quote(each, safe="") for each in sorted(targets))
    return f"{quote(initiator, safe='')}/{named}/"


def _association_key(transfer: Transfer) -> str:
    return _association_prefix(transfer.initiator, transfer.targets) + transfer.key_id
