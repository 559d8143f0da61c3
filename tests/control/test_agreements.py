"""Accounts: sums, prices, a chain that shows every change, and two accounts side by side."""

import msgspec
import pytest

from openqci.control.agreements import Agreement, check_chain, reconcile, sums
from openqci.core.errors import PeerMisbehaved
from openqci.core.identifiers import KeyId, KmeId, SaeId
from openqci.delivery.border_account import BorderEntry, Direction, enter, entries
from openqci.keystore.memory import MemoryKeyStore
from openqci.keystore.ports import KmeView

PT, ES = KmeId("kme-pt"), KmeId("kme-es")


def account(kme: KmeId, *lines: tuple[str, Direction, str, int]) -> list[BorderEntry]:
    """Return the account of a KME: key, direction, outcome and bytes of each line."""
    store = MemoryKeyStore()
    other = ES if kme == PT else PT

    def write(view: KmeView) -> list[BorderEntry]:
        for at, (key_id, direction, outcome, key_bytes) in enumerate(lines):
            enter(
                view,
                at_s=float(at),
                partner=other,
                domain=other[4:].upper(),
                direction=direction,
                key_id=KeyId(key_id),
                initiator=SaeId("a"),
                targets=(SaeId("b"),),
                key_bytes=key_bytes,
                outcome=outcome,
                agreement="pt-es",
            )
        return list(entries(view))

    return store.submit(lambda tx: write(KmeView(tx, kme))).result()


def test_sums_count_what_stayed_delivered() -> None:
    lines = account(
        PT,
        ("k1", "out", "relayed", 1 << 20),
        ("k2", "out", "relayed", 1 << 20),
        ("k2", "out", "voided", 1 << 20),
        ("k3", "out", "failed", 32),
        ("k4", "in", "relayed", 64),
    )
    into, out = sums(lines, [Agreement(name="pt-es", price_eur_per_mib=2.5)])
    assert (out.direction, out.keys, out.key_bytes, out.failed, out.voided) == ("out", 1, 1 << 20, 1, 1)
    assert out.price_eur == 2.5 and (into.keys, into.key_bytes) == (1, 64)


@pytest.mark.parametrize("change", ["byte", "missing", "swapped", "doubled"])
def test_an_account_that_was_changed_does_not_chain(change: str) -> None:
    lines = account(PT, *((f"k{number}", "out", "relayed", 32) for number in range(4)))
    check_chain(lines)
    if change == "byte":
        lines[2] = msgspec.structs.replace(lines[2], key_bytes=33)
    elif change == "missing":
        del lines[1]
    elif change == "swapped":
        lines[1], lines[2] = lines[2], lines[1]
    else:
        lines.insert(1, lines[1])
    with pytest.raises(PeerMisbehaved, match=r"line [23] of the account"):
        check_chain(lines)


def test_two_accounts_that_agree_have_no_difference() -> None:
    ours = account(PT, ("k1", "out", "relayed", 32), ("k2", "out", "failed", 32), ("k3", "in", "relayed", 64))
    theirs = account(ES, ("k3", "out", "relayed", 64), ("k1", "in", "relayed", 32))
    assert reconcile(PT, ours, ES, theirs) == reconcile(ES, theirs, PT, ours) == []


def test_every_difference_has_a_name() -> None:
    ours = account(
        PT,
        ("a-only-here", "out", "relayed", 32),
        ("b-bytes", "out", "relayed", 32),
        ("c-outcome", "out", "relayed", 32),
        ("d-voided-here", "in", "relayed", 32),
        ("d-voided-here", "in", "voided", 32),
    )
    theirs = account(
        ES,
        ("b-bytes", "in", "relayed", 64),
        ("c-outcome", "in", "failed", 32),
        ("d-voided-here", "out", "relayed", 32),
        ("e-only-there", "in", "relayed", 32),
    )
    found = reconcile(PT, ours, ES, theirs)
    assert [(each.key_id, each.cause) for each in found] == [
        ("a-only-here", "only here"),
        ("b-bytes", "bytes"),
        ("c-outcome", "outcome"),
        ("d-voided-here", "outcome"),
        ("e-only-there", "only there"),
    ]
    mirrored = {"only here": "only there", "only there": "only here"}
    assert [(each.key_id, each.cause) for each in reconcile(ES, theirs, PT, ours)] == [
        (each.key_id, mirrored.get(each.cause, each.cause)) for each in found
    ]
