"""What networks agree on about the keys that they hand over to each other, and the account of it.

An *agreement* is configuration: from when to when, how much in which time, with what priority, whether an
emergency may go beyond, at what price. A KME holds each request against its terms
(:class:`openqci.delivery.etsi020_rules.Terms`) and writes a line for each key into its account
(:mod:`openqci.delivery.border_account`). Here lines become sums and bills, and the accounts of two partners
are laid side by side: both have the UUID of every key, so each difference has a name.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from openqci.core.errors import PeerMisbehaved
from openqci.core.identifiers import KeyId, KmeId
from openqci.delivery.border_account import FIRST_HASH, BorderEntry, Direction
from openqci.delivery.etsi020_rules import Terms

BYTES_PER_MIB = 1 << 20
DELIVERED = "relayed"

Cause = Literal["only here", "only there", "bytes", "outcome"]


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """One agreement. Times are Unix times in seconds, 0 for none; a quota is of bytes in each window."""

    name: str
    valid_from_s: float = 0.0
    valid_until_s: float = 0.0
    quota_bytes: int | None = None
    window_s: float = 86_400.0
    emergency: bool = False
    priority: int = 3
    price_eur_per_mib: float = 0.0

    def terms(self) -> Terms:
        """Return what a KME holds requests against."""
        members = msgspec.structs.asdict(self)
        return Terms(**{name: members[name] for name in Terms.__struct_fields__})


class BorderSum(msgspec.Struct, frozen=True, kw_only=True):
    """What went over one border in one direction under one agreement. Voided keys are not delivered ones."""

    partner: KmeId
    domain: str
    direction: Direction
    agreement: str
    keys: int
    key_bytes: int
    failed: int
    voided: int
    price_eur: float


class Difference(msgspec.Struct, frozen=True):
    """One key on which two accounts differ."""

    key_id: KeyId
    cause: Cause
    here: str
    there: str


@dataclass(frozen=True)
class _Last:
    """How a key stands at the end of an account."""

    entry: BorderEntry

    @property
    def delivered(self) -> bool:
        return self.entry.outcome == DELIVERED

    def __str__(self) -> str:
        return f"{self.entry.outcome}, {self.entry.key_bytes} bytes"


def check_chain(entries: Sequence[BorderEntry]) -> None:
    """Raise PeerMisbehaved, naming the line, if an account was changed, cut or put together anew."""
    previous = FIRST_HASH
    for number, entry in enumerate(entries, start=1):
        if (entry.number, entry.previous, entry.hash) != (number, previous, entry.digest()):
            raise PeerMisbehaved(f"line {number} of the account does not follow from the line before it")
        previous = entry.hash


def sums(entries: Iterable[BorderEntry], agreements: Iterable[Agreement] = ()) -> list[BorderSum]:
    """Return the sums of an account by border, direction and agreement, with what they cost."""
    prices = {each.name: each.price_eur_per_mib for each in agreements}
    grouped: dict[tuple[KmeId, str, Direction, str], list[_Last]] = defaultdict(list)
    for last in _last_lines(entries).values():
        entry = last.entry
        grouped[entry.partner, entry.domain, entry.direction, entry.agreement].append(last)
    found = []
    for (partner, domain, direction, agreement), each in sorted(grouped.items()):
        delivered = [last.entry for last in each if last.delivered]
        key_bytes = sum(entry.key_bytes for entry in delivered)
        outcomes = [last.entry.outcome for last in each]
        found.append(
            BorderSum(
                partner=partner,
                domain=domain,
                direction=direction,
                agreement=agreement,
                keys=len(delivered),
                key_bytes=key_bytes,
                failed=outcomes.count("failed"),
                voided=outcomes.count("voided"),
                price_eur=round(key_bytes / BYTES_PER_MIB * prices.get(agreement, 0.0), 6),
            )
        )
    return found


def reconcile(
    here: KmeId, ours: Iterable[BorderEntry], there: KmeId, theirs: Iterable[BorderEntry]
) -> list[Difference]:
    """Lay the accounts of two partners side by side; return the keys on which they differ, by ID.

    A key that failed at one of them may be unknown to the other: it was never handed over. Lines that are
    about other partners are not looked at.
    """
    one = _last_lines(each for each in ours if each.partner == there)
    other = _last_lines(each for each in theirs if each.partner == here)
    pairs: dict[_Name, tuple[_Last | None, _Last | None]]
    pairs = {name: (last, other.get(_mirrored(name))) for name, last in one.items()}
    pairs |= {_mirrored(name): (None, last) for name, last in other.items() if _mirrored(name) not in one}
    found = [
        Difference(name[1], cause, str(mine or ""), str(its or ""))
        for name, (mine, its) in pairs.items()
        if (cause := _cause(mine, its)) is not None
    ]
    return sorted(found, key=lambda each: each.key_id)


_Name = tuple[Direction, KeyId]


def _last_lines(entries: Iterable[BorderEntry]) -> dict[_Name, _Last]:
    """Return the last line of each key in each direction: a void follows what it takes back."""
    return {(entry.direction, entry.key_id): _Last(entry) for entry in entries}


def _mirrored(name: _Name) -> _Name:
    """Return how the partner's account names a line: what went out here came in there."""
    return ("in" if name[0] == "out" else "out", name[1])


def _cause(mine: _Last | None, its: _Last | None) -> Cause | None:
    if its is None:
        return "only here" if mine is not None and mine.delivered else None
    if mine is None:
        return "only there" if its.delivered else None
    if mine.delivered != its.delivered:
        return "outcome"
    if mine.delivered and mine.entry.key_bytes != its.entry.key_bytes:
        return "bytes"
    return None
