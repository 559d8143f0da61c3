"""End-to-end keys that have their IDs from elsewhere: each with a UUID of its own, at both ends alike.

A key of a batch has an ID that says its place (:mod:`openqci.delivery.key_ids`). A key that came over the
border of a network (ETSI GS QKD 020) has the UUID that its initiator's network gave it. Here is the stock of
such keys: the initiator's KME has them in order of age for its master, each target's KME finds its copy by
the UUID. Applications fetch them by ETSI GS QKD 014 like any other.

The bytes of a pair's keys are one key stream; records hold no key material. A record goes with the bytes
that it names: what is not there was delivered, voided or has expired.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal
from urllib.parse import quote

import msgspec

from openqci.core.errors import KeyUnavailable, PeerMisbehaved, invariant
from openqci.core.identifiers import KeyId, SaeId, StreamId
from openqci.core.keys import SecretBytes
from openqci.core.provenance import Provenance
from openqci.keystore.ports import KmeView

Role = Literal["master", "slave"]

NAMED_KIND = "named-key"
QUEUE_KIND = "named-queue"
EXPIRY_KIND = "named-expiry"

COUNTED_MAX = 10_000
"""Keys of a pair beyond these are not counted for a status."""


class NamedKey(msgspec.Struct, frozen=True):
    """One key as one KME knows it. ``expires_s`` 0 means never.

    ``slave`` is whose copy it is at a target's KME, and the first of the slaves at the master's; ``others``
    are the further slaves of the same key.
    """

    key_id: KeyId
    role: Role
    master: SaeId
    slave: SaeId
    stream: StreamId
    offset_bytes: int
    length_bytes: int
    provenance: Provenance
    created_s: float
    expires_s: float = 0.0
    others: tuple[SaeId, ...] = ()

    @property
    def record_key(self) -> str:
        """Return the name of the key's record: the master's is one, each slave has one."""
        return self.key_id if self.role == "master" else f"{self.key_id}/{quote(self.slave, safe='')}"

    def is_for(self, sae_id: SaeId) -> bool:
        """Tell whether an SAE is one of the slaves of the key, and this is a slave's copy."""
        return self.role == "slave" and sae_id in self.slaves

    def is_copy_of(self, sae_id: SaeId, master: SaeId) -> bool:
        """Tell whether this copy is that SAE's own, of a key that it shares with this master."""
        return self.role == "slave" and (self.slave, self.master) == (sae_id, master)

    @property
    def slaves(self) -> tuple[SaeId, ...]:
        return (self.slave, *self.others)


@dataclass(frozen=True)
class TakenNamedKey:
    """A named key on its way to an application."""

    named: NamedKey
    key: SecretBytes


def store(view: KmeView, named: NamedKey, key: SecretBytes) -> NamedKey:
    """Put a key into the stock; its place in the stream is found here. The caller wipes ``key``.

    Raises PeerMisbehaved if this KME has a key of that ID: two keys under one name are none.
    """
    invariant(len(key) == named.length_bytes > 0, "a named key has the length that its record says")
    stream = _stream(named)
    if view.record(NAMED_KIND, _name(named)) is not None:
        raise PeerMisbehaved(f"there is a key {named.key_id} at {view.kme} already")
    placed = msgspec.structs.replace(named, stream=stream, offset_bytes=view.append(stream, key).offset_bytes)
    view.put_record(NAMED_KIND, _name(placed), msgspec.json.encode(placed))
    if placed.role == "master":
        view.put_record(QUEUE_KIND, _queue_key(placed), placed.key_id.encode())
    if placed.expires_s:
        view.put_record(EXPIRY_KIND, _expiry_key(placed), _name(placed).encode())
    return placed


def copies(view: KmeView, key_id: KeyId) -> list[NamedKey]:
    """Return what this KME has under a UUID: the copies of slaves here, and the master's."""
    found = [_decoded(body) for _, body in view.records(NAMED_KIND, f"slave/{key_id}/")]
    own = view.record(NAMED_KIND, f"master/{key_id}")
    return [*found, _decoded(own)] if own is not None else found


def take(view: KmeView, named: NamedKey) -> SecretBytes:
    """Take a key out of the stock; KeyUnavailable if it is not there any more."""
    key = view.take(named.stream, named.offset_bytes, named.length_bytes)
    _forget(view, named)
    return key


def destroy(view: KmeView, named: NamedKey) -> None:
    """Erase a key."""
    take(view, named).wipe()


def in_stock(
    view: KmeView, master: SaeId, slave: SaeId, key_bytes: int, additional: tuple[SaeId, ...] = ()
) -> Iterator[NamedKey]:
    """Return the keys of a length that a master here can have now, the oldest first."""
    for _, key_id in view.records(QUEUE_KIND, _pair_prefix(master, (slave, *additional), key_bytes)):
        body = view.record(NAMED_KIND, f"master/{key_id.decode()}")
        invariant(body is not None, "a key in a pair's list has a record")
        if body is not None:
            yield _decoded(body)


def stock_keys(
    view: KmeView, master: SaeId, slave: SaeId, key_bytes: int, additional: tuple[SaeId, ...] = ()
) -> int:
    """Return how many keys of a length a master here can have now, up to ``COUNTED_MAX``."""
    prefix = _pair_prefix(master, (slave, *additional), key_bytes)
    return sum(1 for _ in view.records(QUEUE_KIND, prefix, COUNTED_MAX))


def take_keys(
    view: KmeView,
    master: SaeId,
    slave: SaeId,
    count: int,
    key_bytes: int,
    additional: tuple[SaeId, ...] = (),
    will_do: Callable[[NamedKey], bool] = lambda named: True,
) -> list[TakenNamedKey]:
    """Take the oldest keys of a length that will do.

    Raises KeyUnavailable, before any is taken, if there are fewer than ``count``.
    """
    chosen = list(islice(filter(will_do, in_stock(view, master, slave, key_bytes, additional)), count))
    if len(chosen) < count:
        raise KeyUnavailable(
            "the stock of the pair is short",
            wanted_bytes=count * key_bytes,
            available_bytes=len(chosen) * key_bytes,
        )
    return [TakenNamedKey(named, take(view, named)) for named in chosen]


def destroy_expired(view: KmeView, now_s: float, keys_max: int = 256) -> list[NamedKey]:
    """Destroy keys whose time is over, at most ``keys_max``; return them."""
    expired: list[NamedKey] = []
    for key, name in view.records(EXPIRY_KIND):
        if len(expired) == keys_max or int(key.partition("/")[0]) > int(now_s * 1e6):
            break
        body = view.record(NAMED_KIND, name.decode())
        invariant(body is not None, "a key that can expire has a record")
        if body is not None:
            expired.append(_decoded(body))
            destroy(view, expired[-1])
    return expired


def _decoded(body: bytes) -> NamedKey:
    return msgspec.json.decode(body, type=NamedKey)


def _forget(view: KmeView, named: NamedKey) -> None:
    view.drop_record(NAMED_KIND, _name(named))
    if named.role == "master":
        view.drop_record(QUEUE_KIND, _queue_key(named))
    if named.expires_s:
        view.drop_record(EXPIRY_KIND, _expiry_key(named))


def _name(named: NamedKey) -> str:
    return f"{named.role}/{named.record_key}"


def _stream(named: NamedKey) -> StreamId:
    return StreamId(f"named/{named.role}/{quote(named.master, safe='')}/{quote(named.slave, safe='')}")


def _queue_key(named: NamedKey) -> str:
    age = f"{int(named.created_s * 1e6):020d}"
    return f"{_pair_prefix(named.master, named.slaves, named.length_bytes)}{age}/{named.key_id}"


def _expiry_key(named: NamedKey) -> str:
    return f"{int(named.expires_s * 1e6):020d}/{_name(named)}"


def _pair_prefix(master: SaeId, slaves: tuple[SaeId, ...], key_bytes: int) -> str:
    # An SAE ID may hold a slash or a plus; quoted, it cannot reach into another pair's list.
    return (
        f"{quote(master, safe='')}/{'+'.join(quote(each, safe='') for each in sorted(slaves))}/{key_bytes}/"
    )
