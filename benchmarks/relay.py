"""End-to-end keys over a chain of nodes: what a batch costs in time and link key, against what it must cost.

Each batch runs as in the live network (``openqci.cli.up.relay_run``): begun at the origin, carried from node
to node, confirmed, stored at both ends of the route. Three questions:

* latency: one key, 2 and 35 hops, on a durable store;
* rate: keys a second over 2 hops, one key a batch and many, several batches at once as the live network has;
* the limit: on each hop a key has to be copied, and a batch needs one message, whatever the software: how
  far above that is the time per key and hop?

Ratios beside them: ML-KEM against none, two disjoint ways against one, a durable store against memory.
"""

import asyncio
import secrets
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import cast

import msgspec
from _measure import medians_s, tell

from openqci.cli.up.kem_ring import KemRing
from openqci.cli.up.relay_run import run_relay
from openqci.core.identifiers import LinkId, SaeId, SiteId, kme_of_site, link_stream
from openqci.core.keys import SecretBytes
from openqci.core.provenance import KeyPath
from openqci.delivery.end_to_end import HybridPolicy, KeyWanted, range_bytes
from openqci.keystore.memory import MemoryKeyStore
from openqci.keystore.ports import StoreTransaction
from openqci.relay import RelayFrame, RelayOrder
from openqci.relay.messages import decode_frame
from openqci.services.sqlite_store import SqliteKeyStore

HOPS = (2, 35)
HOPS_MAX = 35
KEY_BYTES = 32
BATCH_KEYS = 128
BATCHES_AT_ONCE = 8
ROUNDS = 25
STOCK_BYTES = 640 * 1024

LOOP = asyncio.Runner()
"""One event loop for all batches, as in the live network: making one takes longer than a hop."""

Store = SqliteKeyStore | MemoryKeyStore


def row(hops: int, name: str = "a") -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the sites and the links of a chain from ``start`` to ``end-HOPS``."""
    sites = ("start", *(f"{name}{number}" for number in range(1, hops)), f"end-{hops}")
    return sites, tuple(f"{a}--{b}" for a, b in pairwise(sites))


def path(hops: int, name: str = "a") -> KeyPath:
    return KeyPath(*row(hops, name), "hop", 1e-9 * hops)


def distilled(transaction: StoreTransaction, ways: list[KeyPath]) -> None:
    """Put link key at both ends of every hop, as many blocks would."""
    for way in ways:
        for link, ends in zip(way.links, pairwise(way.route), strict=True):
            fresh = secrets.token_bytes(STOCK_BYTES)
            for site in ends:
                with SecretBytes(fresh) as key:
                    stream = link_stream(LinkId(link), SiteId(ends[0]))
                    transaction.append(kme_of_site(SiteId(site)), stream, key)


def wanted(*ways: KeyPath, key_bytes: int, policy: HybridPolicy = HybridPolicy.BOTH) -> KeyWanted:
    return KeyWanted(
        origin_kme=kme_of_site(SiteId("start")),
        target_kme=kme_of_site(SiteId(ways[0].route[-1])),
        master_sae=SaeId("a"),
        slave_sae=SaeId("b"),
        key_bytes=key_bytes,
        paths=ways,
        threshold=len(ways),
        policy=policy,
        deadline_s=time.time() + 600,
        protocols=("decoy-state BB84",),
        proofs=("rusca-2018",),
        simulated=True,
    )


class Bench:
    """Batches over one store, and the keys of its KMEs."""

    def __init__(self, store: Store, ways: list[KeyPath]) -> None:
        self.store = cast(SqliteKeyStore, store)
        self.ring = KemRing(self.store)
        store.submit(lambda transaction: distilled(transaction, ways)).result()

    def batch(self, what: KeyWanted, count: int = 1) -> Callable[[], None]:
        """Return a work that carries batches, several at once."""
        return lambda: LOOP.run(self._carry(what, count))

    async def _carry(self, what: KeyWanted, count: int) -> None:
        fresh = replace(what, deadline_s=time.time() + 600)
        await asyncio.gather(*(run_relay(self.store, fresh, self.ring) for _ in range(count)))


def latency(bench: Bench) -> dict[str, float]:
    """Return the median time of one key, and what several ways and ML-KEM add."""
    one = {hops: wanted(path(hops), key_bytes=KEY_BYTES) for hops in HOPS}
    two_ways = wanted(path(2), path(2, "b"), key_bytes=KEY_BYTES)
    plain = replace(one[2], policy=HybridPolicy.QUANTUM)
    works = {f"{hops} hops": bench.batch(what) for hops, what in one.items()}
    works |= {"two ways": bench.batch(two_ways), "no ML-KEM": bench.batch(plain)}
    taken = medians_s(works, ROUNDS)
    figures = {f"{hops} hops: ms for one key, median": 1e3 * taken[f"{hops} hops"] for hops in HOPS}
    figures["2 hops: two disjoint ways against one"] = taken["two ways"] / taken["2 hops"]
    figures["2 hops: with ML-KEM against without"] = taken["2 hops"] / taken["no ML-KEM"]
    return figures


def rate(bench: Bench) -> dict[str, float]:
    """Return keys a second over 2 hops, several batches at once."""
    single = wanted(path(2), key_bytes=KEY_BYTES)
    full = wanted(path(2), key_bytes=KEY_BYTES * BATCH_KEYS)
    taken = medians_s(
        {"single": bench.batch(single, BATCHES_AT_ONCE), "full": bench.batch(full, BATCHES_AT_ONCE)}, 7
    )
    return {
        "2 hops: keys/s, one key a batch": BATCHES_AT_ONCE / taken["single"],
        f"2 hops: keys/s, {BATCH_KEYS} keys a batch": BATCHES_AT_ONCE * BATCH_KEYS / taken["full"],
    }


def limit(durable: Bench) -> dict[str, float]:
    """Return the time per key and hop, and what it would be with a copy and a message alone."""
    memory = Bench(MemoryKeyStore(secrets.token_bytes(32)), [path(HOPS_MAX)])
    what = wanted(path(HOPS_MAX), key_bytes=KEY_BYTES * BATCH_KEYS)
    taken = medians_s(
        {"memory": memory.batch(what), "durable": durable.batch(what), "limit": copy_and_message(what)}, 5
    )
    per_key_us = {name: 1e6 * each / HOPS_MAX / BATCH_KEYS for name, each in taken.items()}
    return {
        "us per key and hop, store in memory": per_key_us["memory"],
        "us per key and hop, durable": per_key_us["durable"],
        "us per key and hop, copy and message alone": per_key_us["limit"],
        "memory against the limit": taken["memory"] / taken["limit"],
        "durable against the limit": taken["durable"] / taken["limit"],
    }


def copy_and_message(what: KeyWanted) -> Callable[[], None]:
    """Return the least that any relay does on each hop: write a message, read it, copy the payload."""
    way = what.paths[0]
    order = RelayOrder("0" * 32, route=way.route, links=way.links, key_bytes=what.key_bytes)
    frame = RelayFrame(order, 1, 0, bytes(order.payload_bytes), bytes(16), bytes(2000))

    def work() -> None:
        for _ in way.links:
            received = decode_frame(msgspec.msgpack.encode(frame))
            bytearray(received.ciphertext)

    return work


if __name__ == "__main__":
    ways = [*(path(hops) for hops in HOPS), path(2, "b")]
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteKeyStore.open(Path(folder) / "store.sqlite", secrets.token_bytes(32))
        bench = Bench(store, ways)
        figures = latency(bench) | rate(bench) | limit(bench)
        store.close()
    LOOP.close()
    for keys in (1, BATCH_KEYS):
        length = KEY_BYTES * keys
        figures[f"link key per bit of key and hop, {keys} keys a batch"] = range_bytes(length) / length
    tell("relay: end-to-end keys over a chain of nodes", figures)
