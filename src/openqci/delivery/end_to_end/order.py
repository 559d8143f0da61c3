"""What the two ends of an end-to-end key agree on: the order, and the words about it.

The order is public. It travels as cargo of every share, covered by the one-time MACs of every hop, in one
encoding only; a target puts together shares of one order alone, byte by byte the same. Its digest with the
number of a share is the *purpose* of the relay that carries it.
"""

import hashlib
from collections.abc import Sequence
from enum import StrEnum
from itertools import combinations

import msgspec

from openqci.core.errors import PeerMisbehaved
from openqci.core.provenance import KeyPath, Provenance
from openqci.crypto.hybrid import KEM_KEY_ID_BYTES, HybridContext, KemAlgorithm
from openqci.crypto.manipulation import MANIPULATION_KEY_BYTES
from openqci.crypto.sharing import SHARES_MAX
from openqci.delivery.key_ids import BATCH_TAG_BITS, ID_SEED_BYTES
from openqci.relay import RelayForm, RelayOrder, hop_bytes
from openqci.relay.messages import CARGO_BYTES_MAX, HOPS_MAX, KEY_BYTES_MAX

CONTROL_BYTES = ID_SEED_BYTES + MANIPULATION_KEY_BYTES
"""What every share carries beside key: its part of the seed of the key IDs and of the word's MAC key."""

DEADLINE_S_MAX = 3600.0
"""No origin waits longer for the word of a target."""

FORMS = {
    RelayForm.HOP: "hop-by-hop one-time pad",
    RelayForm.XOR: "XOR of neighbouring link keys",
    RelayForm.COMPUTATIONAL: "computational: AES-256-GCM under ML-KEM on some hop",
}
"""How a provenance names the relay forms; a later one is the weaker."""


class HybridPolicy(StrEnum):
    """What a pair's keys shall rest on.

    ``QUANTUM``: one-time pads on every hop, nothing else. ``BOTH``: one-time pads on every hop, and ML-KEM
    end to end; key stays secret while either holds. ``EITHER``: as BOTH where it can be had; quantum alone
    where the other end has no ML-KEM key, and hops crossed under ML-KEM where they have no key.
    """

    QUANTUM = "quantum"
    BOTH = "both"
    EITHER = "either"


class KemPart(msgspec.Struct, frozen=True):
    """What the target needs for its half of an encapsulation."""

    algorithm: KemAlgorithm
    key_id: bytes
    ciphertext: bytes


class EndToEndOrder(msgspec.Struct, frozen=True):
    """One batch of end-to-end key: the same bytes at both ends, under every MAC.

    Share i of ``len(paths)`` comes by path i; ``threshold`` of them make the key. After ``deadline_s`` the
    origin gives up; 0 for ``expires_s`` means that the key does not expire. A batch of an ETSI GS QKD 004
    stream has its ``stream_id`` and begins at byte ``first_byte`` of it.
    """

    batch_tag: int
    origin_kme: str
    target_kme: str
    master_sae: str
    slave_sae: str
    key_bytes: int
    threshold: int
    paths: tuple[KeyPath, ...]
    policy: HybridPolicy
    kem: KemPart | None
    protocols: tuple[str, ...]
    proofs: tuple[str, ...]
    simulated: bool
    domains: tuple[str, ...]
    created_s: float
    deadline_s: float
    expires_s: float = 0.0
    stream_id: str = ""
    first_byte: int = 0

    @property
    def payload_bytes(self) -> int:
        """Length of each share."""
        return self.key_bytes + CONTROL_BYTES

    @property
    def numbers(self) -> range:
        """The numbers of its shares."""
        return range(1, len(self.paths) + 1)


class Confirmation(msgspec.Struct, frozen=True):
    """The target's word that it holds the batch durably."""

    batch_tag: int
    tag: bytes


def range_bytes(key_bytes: int) -> int:
    """Return how much link key one hop of one share spends on ``key_bytes``.

    >>> range_bytes(1000)
    1096
    """
    return hop_bytes(key_bytes)


def encode_order(order: EndToEndOrder) -> bytes:
    """Return the one encoding of an order, which travels as cargo."""
    return msgspec.msgpack.encode(order)


def decode_order(cargo: bytes) -> EndToEndOrder:
    """Read an order; PeerMisbehaved if it is none, not in its one encoding, or makes no sense."""
    try:
        order = _ORDER_DECODER.decode(cargo)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerMisbehaved(f"an end-to-end order cannot be read: {error}") from None
    if encode_order(order) != cargo:
        raise PeerMisbehaved("an end-to-end order is not in canonical form (fields, order or number widths)")
    check_order(order)
    return order


def purpose(cargo: bytes, number: int) -> bytes:
    """Return what the relay of a share is for: the order's digest and the share's number."""
    return hashlib.sha256(cargo).digest() + number.to_bytes(2, "big")


def share_order(order: EndToEndOrder, cargo: bytes, number: int) -> RelayOrder:
    """Return the relay that carries a share. The first ``threshold`` are link key; others are computed."""
    path, meant = order.paths[number - 1], purpose(cargo, number)
    return RelayOrder(
        relay_id=hashlib.sha256(b"openqci relay of share" + meant).hexdigest()[:32],
        route=path.route,
        links=path.links,
        key_bytes=order.key_bytes,
        form=RelayForm(path.form),
        purpose=meant,
        carried=number > order.threshold,
        bridged=tuple(at for at, link in enumerate(path.links) if link in path.bridged),
    )


def relay_of(order: EndToEndOrder, cargo: bytes, relay_id: str) -> RelayOrder:
    """Return the whole way of the share that a relay ID is about; PeerMisbehaved if it is about none."""
    for number in order.numbers:
        relay = share_order(order, cargo, number)
        if relay.relay_id == relay_id:
            return relay
    raise PeerMisbehaved(f"relay {relay_id} brought an order that it was not for")


def context_of(order: EndToEndOrder, kem: KemPart) -> HybridContext:
    """Return what the mask of a hybrid key is bound to."""
    return HybridContext(
        kem.algorithm,
        kem.key_id,
        kem.ciphertext,
        order.batch_tag.to_bytes(5, "big"),
        order.origin_kme,
        order.target_kme,
        order.master_sae,
        order.slave_sae,
    )


def provenance_of(order: EndToEndOrder) -> Provenance:
    """Return what a key of this order knows of its making."""
    first = order.paths[0]
    weakest = max((RelayForm(path.form) for path in order.paths), key=list(FORMS).index)
    return Provenance(
        route=first.route,
        links=first.links,
        hops=len(first.qkd_links),
        protocols=order.protocols,
        proofs=order.proofs,
        epsilon=sum(path.epsilon for path in order.paths),
        form=FORMS[weakest],
        simulated=order.simulated,
        made_at_s=order.created_s,
        paths=order.paths if len(order.paths) > 1 or first.via or first.bridged or first.passes else (),
        threshold=order.threshold,
        hybrid=(order.kem.algorithm,) if order.kem else (),
        computational=any(path.bridged for path in order.paths),
        domains=order.domains,
    )


def check_order(order: EndToEndOrder) -> None:
    """Refuse an order that no end may act on."""
    paths, kem = order.paths, order.kem
    names = [name for path in paths for name in (*path.route, *path.links, *path.via)]
    for sound, expected in (
        (0 <= order.batch_tag < 1 << BATCH_TAG_BITS, f"a batch tag of {BATCH_TAG_BITS} bits"),
        (1 <= order.key_bytes <= KEY_BYTES_MAX, f"1 to {KEY_BYTES_MAX} key bytes"),
        (1 <= len(paths) <= SHARES_MAX, f"1 to {SHARES_MAX} paths"),
        (1 <= order.threshold <= len(paths), "a threshold of 1 to as many as there are paths"),
        (order.threshold > 1 or len(paths) == 1, "shares that alone tell nothing: a threshold above 1"),
        (all(_is_way(path) for path in paths), f"paths over 1 to {HOPS_MAX} links that visit no node twice"),
        (
            len({(path.route[0], path.route[-1]) for path in paths if path.route}) == 1,
            "paths with the same ends",
        ),
        (_are_disjoint(paths), "paths that have no node between the ends, and no link, in common"),
        ("" not in names and "/" not in "".join([*names, order.origin_kme]), "names without a slash"),
        (order.origin_kme != order.target_kme, "two KMEs"),
        (order.kem is None or order.policy is not HybridPolicy.QUANTUM, "no ML-KEM by the policy"),
        (order.kem is not None or order.policy is not HybridPolicy.BOTH, "ML-KEM by the policy"),
        (kem is None or len(kem.ciphertext) == kem.algorithm.ciphertext_bytes, "a whole ciphertext"),
        (kem is None or len(kem.key_id) == KEM_KEY_ID_BYTES, "the name of an ML-KEM key"),
        (not any(path.bridged for path in paths) or order.policy is HybridPolicy.EITHER, "pads on every hop"),
        (
            not any({*path.qkd_links[:1]} & {*path.bridged} for path in paths[: order.threshold]),
            "link key on the first hop of the paths that give it",
        ),
        (0 <= order.deadline_s - order.created_s <= DEADLINE_S_MAX, "a deadline within the hour"),
        (0 <= order.first_byte < 1 << 62, "a place in a stream"),
    ):
        if not sound:
            raise PeerMisbehaved(f"end-to-end order {order.batch_tag:010x}: expected {expected}")
    if len(encode_order(order)) > CARGO_BYTES_MAX:
        raise PeerMisbehaved(f"end-to-end order {order.batch_tag:010x}: at most {CARGO_BYTES_MAX} bytes")


def _is_way(path: KeyPath) -> bool:
    return (
        len(path.qkd_links) > 0
        and len(path.links) <= HOPS_MAX
        and len(path.route) == len(path.links) + 1
        and len({*path.route, *path.via}) == len(path.route) + len(path.via)
        and path.form in list(RelayForm)
        and bool(path.bridged) == (path.form == RelayForm.COMPUTATIONAL)
        and set(path.bridged) <= set(path.links)
        and bool(path.via) == (path.form == RelayForm.XOR)
        and path.epsilon >= 0
    )


def _are_disjoint(paths: Sequence[KeyPath]) -> bool:
    return not any(
        one.interior & other.interior or set(one.links) & set(other.links)
        for one, other in combinations(paths, 2)
    )


_ORDER_DECODER = msgspec.msgpack.Decoder(EndToEndOrder)
