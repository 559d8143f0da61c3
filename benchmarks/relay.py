"""Relays over durable stores: what a route costs in time and link key, for one key and for a batch.

Each relay runs as in the live network (``openqci.cli.up.relay_run``): one durable transaction per node, the
key stored at both ends. One key per relay is the plain way; a batch shares the round over its keys.
The time per hop is also taken over a store in memory, which seals as the durable one does: the difference is
what durability costs.
"""

import asyncio
import secrets
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import cast

from _measure import medians_s, tell

from openqci.cli.up.relay_run import run_relay
from openqci.core.identifiers import LinkId, SiteId, kme_of_site, link_stream
from openqci.core.keys import SecretBytes
from openqci.core.provenance import Provenance
from openqci.delivery import BATCH_TAG_BITS
from openqci.keystore.memory import MemoryKeyStore
from openqci.keystore.ports import StoreTransaction
from openqci.relay import CONTROL_BYTES, RelayOrder, hop_bytes
from openqci.services.sqlite_store import SqliteKeyStore

HOPS = (1, 8, 64)
KEY_BYTES = 32
BATCH_KEYS = 32
PAYLOADS_BYTES = (1024, 4096)
PAYLOAD_HOPS = 8
STOCK_BYTES = 128 * 1024

LOOP = asyncio.Runner()
"""One event loop for all relays, as in the live network: making one takes longer than a hop."""

Store = SqliteKeyStore | MemoryKeyStore


def route(hops: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the sites and the links of a chain."""
    sites = tuple(f"site-{number}" for number in range(hops + 1))
    return sites, tuple(f"{a}--{b}" for a, b in pairwise(sites))


def distilled(transaction: StoreTransaction, hops: int) -> None:
    """Put link key at both ends of every hop, as many blocks would."""
    sites, links = route(hops)
    for link, ends in zip(links, pairwise(sites), strict=True):
        fresh = secrets.token_bytes(STOCK_BYTES)
        for site in ends:
            with SecretBytes(fresh) as key:
                transaction.append(kme_of_site(SiteId(site)), link_stream(LinkId(link), SiteId(ends[0])), key)


def new_order(hops: int, key_bytes: int) -> RelayOrder:
    sites, links = route(hops)
    made = Provenance(
        route=sites,
        links=links,
        hops=hops,
        protocols=("decoy-state BB84",),
        proofs=("rusca-2018",),
        epsilon=1e-9 * hops,
        form="hop-by-hop one-time pad",
        simulated=True,
        made_at_s=0.0,
    )
    tag = secrets.randbits(BATCH_TAG_BITS)
    return RelayOrder(secrets.token_hex(16), tag, "a", "b", sites, links, key_bytes, made)


def relay(store: Store, hops: int, key_bytes: int) -> Callable[[], None]:
    """Return a work that carries one batch."""
    return lambda: LOOP.run(carry(store, hops, key_bytes))


async def carry(store: Store, hops: int, key_bytes: int) -> None:
    await run_relay(cast(SqliteKeyStore, store), new_order(hops, key_bytes))


def figures_of(store: SqliteKeyStore, hops: int) -> dict[str, float]:
    """Compare one key per relay with a batch over the same route."""
    batch_bytes = KEY_BYTES * BATCH_KEYS
    taken = medians_s({"one": relay(store, hops, KEY_BYTES), "batch": relay(store, hops, batch_bytes)})
    return {
        f"{hops} hops: ms per relay of one key": 1e3 * taken["one"],
        f"{hops} hops: ms per relay of {BATCH_KEYS} keys": 1e3 * taken["batch"],
        f"{hops} hops: keys/s, one by one": 1 / taken["one"],
        f"{hops} hops: keys/s, in a batch": BATCH_KEYS / taken["batch"],
        f"{hops} hops: ratio": BATCH_KEYS * taken["one"] / taken["batch"],
    }


def hop_figures(durable: SqliteKeyStore) -> dict[str, float]:
    """Compare the time per hop over a store in memory and over the durable one."""
    memory = MemoryKeyStore(secrets.token_bytes(32))
    memory.submit(lambda transaction: distilled(transaction, PAYLOAD_HOPS)).result()
    stores: dict[str, Store] = {"memory": memory, "SQLite": durable}
    taken = medians_s(
        {
            f"{length} bytes, {name}: us per hop": relay(store, PAYLOAD_HOPS, length - CONTROL_BYTES)
            for length in PAYLOADS_BYTES
            for name, store in stores.items()
        }
    )
    return {name: 1e6 * each / PAYLOAD_HOPS for name, each in taken.items()}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteKeyStore.open(Path(folder) / "store.sqlite", secrets.token_bytes(32))
        store.submit(lambda transaction: distilled(transaction, max(HOPS))).result()
        figures = hop_figures(store)
        for hops in HOPS:
            figures |= figures_of(store, hops)
        store.close()
    LOOP.close()
    figures["link key per bit of key and hop, one by one"] = hop_bytes(KEY_BYTES) / KEY_BYTES
    figures["link key per bit of key and hop, in a batch"] = hop_bytes(KEY_BYTES * BATCH_KEYS) / (
        KEY_BYTES * BATCH_KEYS
    )
    tell("relay: a chain of nodes, durable at every step", figures)
