"""An origin and a target with several ways between them, over one store in memory, all truth known."""

import itertools
from collections.abc import Sequence
from functools import partial

from openqci.core.identifiers import SaeId, SiteId, kme_of_site
from openqci.core.provenance import KeyPath
from openqci.crypto.hybrid import KemPrivateKey, KemPublicKey
from openqci.delivery.end_to_end import (
    BatchGivenUp,
    BatchReady,
    HybridPolicy,
    KeyBegun,
    KeyWanted,
    ShareDeclined,
    ShareKept,
    begin,
    share_arrived,
    share_confirmed,
)
from openqci.delivery.pair_stock import KeyBatch, Role, batch_of
from openqci.keystore.ports import KmeView
from openqci.relay import RelayArrival, RelayOrder, forward, terminate
from openqci.relay.messages import decode_frame
from tests.relay.make import Net

ORIGIN, TARGET = "o", "t"
WAYS = ("oat", "obt", "ocdt")
LINKS = {f"{x}--{y}": (x, y) for way in (*WAYS, "ot") for x, y in itertools.pairwise(way)}
KEY_BYTES = 40
KEM = KemPrivateKey.generate()
MASTER, SLAVE = SaeId("sae/master"), SaeId("sae+slave")


def path(way: str, epsilon: float = 1e-9) -> KeyPath:
    links = tuple(f"{x}--{y}" for x, y in itertools.pairwise(way))
    return KeyPath(tuple(way), links, "hop", epsilon)


def wanted(
    ways: Sequence[str] = WAYS[:1],
    threshold: int | None = None,
    policy: HybridPolicy = HybridPolicy.EITHER,
    *,
    key_bytes: int = KEY_BYTES,
    deadline_s: float = 60.0,
    expires_s: float = 0.0,
    collect_s: float = 0.0,
) -> KeyWanted:
    return KeyWanted(
        origin_kme=kme_of_site(SiteId(ORIGIN)),
        target_kme=kme_of_site(SiteId(TARGET)),
        master_sae=MASTER,
        slave_sae=SLAVE,
        key_bytes=key_bytes,
        paths=tuple(path(way) for way in ways),
        threshold=len(ways) if threshold is None else threshold,
        policy=policy,
        deadline_s=deadline_s,
        protocols=("decoy-state BB84",),
        proofs=("lim-2014",),
        simulated=True,
        expires_s=expires_s,
        collect_s=collect_s,
    )


def network(stock_bytes: int = 4096) -> Net:
    net = Net(dict(LINKS))
    net.fill(stock_bytes)
    return net


def kem_keys(key_id: bytes) -> KemPrivateKey | None:
    return KEM if key_id == KEM.public.key_id else None


def begun(net: Net, what: KeyWanted, *, tag: int = 1, kem: KemPublicKey | None = None) -> KeyBegun:
    return net.at(ORIGIN, lambda view: begin(view, what, tag, kem, 0.0))


def carried(net: Net, frame: bytes) -> ShareKept | ShareDeclined:
    """Bring a share from its first frame to the target, and hand it over there in the same transaction."""
    route = decode_frame(frame).order.route
    for site in route[1:-1]:
        answer = net.at(site, partial(forward, data=frame))
        assert isinstance(answer, bytes), answer
        frame = answer
    return net.at(TARGET, partial(landed, frame=frame))


def landed(view: KmeView, frame: bytes, now_s: float = 0.0) -> ShareKept | ShareDeclined:
    arrival = terminate(view, frame)
    assert isinstance(arrival, RelayArrival), arrival
    return share_arrived(view, arrival, kem_keys, now_s)


def confirmed(net: Net, relay: RelayOrder, word: bytes) -> BatchReady | BatchGivenUp | None:
    return net.at(ORIGIN, partial(share_confirmed, relay_id=relay.relay_id, word=word))


def batch_bytes(net: Net, tag: int, role: Role) -> bytes | None:
    """Return the bytes of a batch without taking them, or None if this end has no such batch."""
    site = ORIGIN if role == "master" else TARGET
    batch: KeyBatch | None = net.at(site, lambda view: batch_of(view, tag, role))
    if batch is None:
        return None
    found: list[bytes] = []

    class Looked(Exception):
        pass

    def look(view: KmeView) -> None:
        with view.take(batch.stream, 0, batch.length_bytes) as key:
            found.append(bytes(key.reveal()))
        raise Looked

    try:
        net.at(site, look)
    except Looked:
        return found[0]
    raise AssertionError("the look into a batch is always undone")


def left_over(net: Net) -> dict[str, list[str]]:
    """Return what is at the two ends beside link key and finished batches: streams with key, and records."""
    found: dict[str, list[str]] = {}
    for site in (ORIGIN, TARGET):
        names = net.at(site, stray)
        if names:
            found[site] = names
    return found


KINDS = tuple(f"end-to-end-{kind}" for kind in ("open", "open-relay", "due", "due-relay", "voided"))


def stray(view: KmeView) -> list[str]:
    held = [name for name, stock in view.streams() if stock and not name.startswith(("link/", "pair/"))]
    return held + [f"{kind} {key}" for kind in KINDS for key, _ in view.records(kind)]


def pair_streams(net: Net, site: str) -> list[str]:
    """Return the streams of end-to-end key at a node that still hold some."""
    return net.at(site, lambda view: [name for name, stock in view.streams("pair/") if stock])
