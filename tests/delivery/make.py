"""The smallest true thing to deliver from: a store in memory, two KMEs, three applications, batches."""

import itertools
import random

import msgspec

from openqci.core.identifiers import KmeId, SaeId, SiteId
from openqci.core.keys import SecretBytes
from openqci.core.provenance import Provenance
from openqci.delivery import KeyBatch, PeerIdentity, SaeDirectory, SaeRecord, store_batch
from openqci.delivery.pair_stock import Role, batch_stream
from openqci.keystore.memory import MemoryKeyStore
from openqci.keystore.ports import KmeView, StoreTransaction

LISBON, WARSAW = KmeId("kme-lisbon"), KmeId("kme-warsaw")
ALICE, BOB, EVE = SaeId("alice"), SaeId("bob"), SaeId("eve")
HOMES = {ALICE: LISBON, BOB: WARSAW, EVE: WARSAW}

_tags = itertools.count(1)
_bytes = random.Random(14)


def provenance(route: tuple[str, ...] = ("lisbon", "madrid", "warsaw"), epsilon: float = 2e-10) -> Provenance:
    links = tuple(f"{a}--{b}" for a, b in itertools.pairwise(route))
    return Provenance(
        route, links, len(links), ("decoy-state BB84",), ("rusca-2018",), epsilon, "case-1", True, 1.0
    )


def batch(
    role: Role,
    *,
    tag: int = 1,
    length_bytes: int = 320,
    created_s: float = 0.0,
    made: Provenance | None = None,
    master: SaeId = ALICE,
    slave: SaeId = BOB,
    legs: tuple[KmeId, ...] = (),
    expires_s: float = 0.0,
) -> KeyBatch:
    return KeyBatch(
        batch_tag=tag,
        role=role,
        master_sae=master,
        slave_sae=slave,
        stream=batch_stream(tag, role),
        length_bytes=length_bytes,
        id_seed=tag.to_bytes(16, "big"),
        provenance=made or provenance(),
        created_s=created_s,
        legs=legs if role == "master" else (),
        expires_s=expires_s,
    )


def stock_pair(
    transaction: StoreTransaction,
    key: bytes,
    *,
    tag: int | None = None,
    master: SaeId = ALICE,
    slave: SaeId = BOB,
    ends: tuple[KmeId, KmeId] = (LISBON, WARSAW),
    made: Provenance | None = None,
    legs: tuple[KmeId, ...] = (),
    made_s: float | None = None,
    expires_s: float = 0.0,
) -> None:
    """Put the same batch into the rooms of both KMEs of a pair."""
    tag = next(_tags) if tag is None else tag
    roles: tuple[Role, Role] = ("master", "slave")
    for role, kme in zip(roles, ends, strict=True):
        one = batch(
            role,
            tag=tag,
            length_bytes=len(key),
            created_s=float(tag) if made_s is None else made_s,
            made=made,
            master=master,
            slave=slave,
            legs=legs,
            expires_s=expires_s,
        )
        with SecretBytes(key) as secret:
            store_batch(KmeView(transaction, kme), one, secret)


def stock_group(
    transaction: StoreTransaction,
    key: bytes,
    master: SaeId,
    slaves: tuple[SaeId, ...],
    homes: dict[SaeId, KmeId],
) -> None:
    """Put one multicast batch into the rooms of a master and of each slave."""
    tag = next(_tags)
    one = batch(
        "master", tag=tag, length_bytes=len(key), created_s=float(tag), master=master, slave=slaves[0]
    )
    with SecretBytes(key) as secret:
        store_batch(
            KmeView(transaction, homes[master]),
            msgspec.structs.replace(one, additional_slaves=slaves[1:]),
            secret,
        )
    for slave in slaves:
        with SecretBytes(key) as secret:
            copy = msgspec.structs.replace(
                one,
                role="slave",
                slave_sae=slave,
                stream=batch_stream(tag, "slave", slave),
                additional_slaves=tuple(each for each in slaves if each != slave),
            )
            store_batch(KmeView(transaction, homes[slave]), copy, secret)


def key_bytes(length_bytes: int) -> bytes:
    return _bytes.randbytes(length_bytes)


def identity(sae_id: SaeId) -> PeerIdentity:
    return PeerIdentity(sae_id, f"fingerprint of {sae_id}")


def enrol(transaction: StoreTransaction, sae_id: SaeId, kme: KmeId, sha256: str, folder: str = "") -> None:
    site = SiteId(kme.removeprefix("kme-"))
    SaeDirectory(transaction).enrol(SaeRecord(sae_id, site, kme, sha256, folder, 0.0))


def network() -> MemoryKeyStore:
    """Return a store in which ALICE is at LISBON, BOB and EVE at WARSAW."""
    store = MemoryKeyStore()
    for sae_id, kme in HOMES.items():
        store.submit(lambda tx, s=sae_id, k=kme: enrol(tx, s, k, identity(s).certificate_sha256)).result()
    return store
