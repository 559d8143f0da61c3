"""The account of what crossed a border: one line for each key and outcome, never changed, chained by hashes.

Both partners keep their own. A line names the key by its UUID, which both have, so that two accounts can be
laid side by side (:func:`openqci.control.agreements.reconcile`). It holds no key.
"""

import hashlib
from collections.abc import Iterator
from typing import Literal

import msgspec

from openqci.core.identifiers import KeyId, KmeId, SaeId
from openqci.keystore.ports import KmeView

ACCOUNT_KIND = "border-account"
HEAD_KIND = "border-account-head"
USAGE_KIND = "border-usage"
CROSSED_KIND = "border-crossed"
FIRST_HASH = "0" * 64

Direction = Literal["in", "out"]


class BorderEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line: a key that was handed over, or that was not, or that was voided afterwards."""

    number: int
    at_s: float
    partner: KmeId
    domain: str
    direction: Direction
    key_id: KeyId
    initiator: SaeId
    targets: tuple[SaeId, ...]
    key_bytes: int
    outcome: str
    agreement: str
    previous: str
    hash: str = ""

    def digest(self) -> str:
        """Return the hash that this line has if nobody changed it."""
        return hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(self, hash=""))).hexdigest()


class _Head(msgspec.Struct, frozen=True):
    number: int
    hash: str


class _Usage(msgspec.Struct, frozen=True):
    window: int
    used_bytes: int


def enter(
    view: KmeView,
    *,
    at_s: float,
    partner: KmeId,
    domain: str,
    direction: Direction,
    key_id: KeyId,
    initiator: SaeId,
    targets: tuple[SaeId, ...],
    key_bytes: int,
    outcome: str,
    agreement: str,
) -> BorderEntry:
    """Write a line at the end of the account."""
    head = _head(view)
    entry = BorderEntry(
        number=head.number + 1,
        at_s=at_s,
        partner=partner,
        domain=domain,
        direction=direction,
        key_id=key_id,
        initiator=initiator,
        targets=targets,
        key_bytes=key_bytes,
        outcome=outcome,
        agreement=agreement,
        previous=head.hash,
    )
    entry = msgspec.structs.replace(entry, hash=entry.digest())
    view.put_record(ACCOUNT_KIND, f"{entry.number:016d}", msgspec.json.encode(entry))
    view.put_record(HEAD_KIND, "", msgspec.json.encode(_Head(entry.number, entry.hash)))
    return entry


def entries(view: KmeView, limit: int | None = None) -> Iterator[BorderEntry]:
    """Return the lines of the account in order, at most ``limit``."""
    for _, body in view.records(ACCOUNT_KIND, limit=limit):
        yield msgspec.json.decode(body, type=BorderEntry)


class Crossed(msgspec.Struct, frozen=True):
    """What has crossed a border in one direction, of keys that came about: their shares, and the bytes."""

    partner: KmeId
    direction: Direction
    shares: int
    key_bytes: int


def count_crossed(view: KmeView, partner: KmeId, direction: Direction, key_bytes: int) -> None:
    """Count a share of a key that has crossed to or from a partner: the account of a simulated network.

    Sums instead of lines, since a network that simulates runs for years and nobody bills by it.
    """
    name = f"{partner}/{direction}"
    body = view.record(CROSSED_KIND, name)
    known = msgspec.json.decode(body, type=Crossed) if body is not None else Crossed(partner, direction, 0, 0)
    counted = Crossed(partner, direction, known.shares + 1, known.key_bytes + key_bytes)
    view.put_record(CROSSED_KIND, name, msgspec.json.encode(counted))


def crossed(view: KmeView) -> list[Crossed]:
    """Return what was counted, by partner and direction."""
    return [msgspec.json.decode(body, type=Crossed) for _, body in view.records(CROSSED_KIND)]


def use_quota(
    view: KmeView, partner: KmeId, wanted_bytes: int, quota_bytes: int, window_s: float, now_s: float
) -> bool:
    """Count bytes against a partner's quota of this window; False, and nothing is counted, if it is used up.

    Windows begin at multiples of their length in Unix time, so that both partners mean the same ones.
    """
    window = int(now_s // window_s)
    body = view.record(USAGE_KIND, partner)
    known = msgspec.json.decode(body, type=_Usage) if body is not None else _Usage(window, 0)
    used = known.used_bytes if known.window == window else 0
    if used + wanted_bytes > quota_bytes:
        return False
    view.put_record(USAGE_KIND, partner, msgspec.json.encode(_Usage(window, used + wanted_bytes)))
    return True


def used_bytes(view: KmeView, partner: KmeId, window_s: float, now_s: float) -> int:
    """Return what a partner has used of its quota in this window."""
    body = view.record(USAGE_KIND, partner)
    known = msgspec.json.decode(body, type=_Usage) if body is not None else None
    return known.used_bytes if known is not None and known.window == int(now_s // window_s) else 0


def _head(view: KmeView) -> _Head:
    body = view.record(HEAD_KIND, "")
    return msgspec.json.decode(body, type=_Head) if body is not None else _Head(0, FIRST_HASH)
