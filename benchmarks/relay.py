"""Relays over durable stores: what a route costs in time and link key, for one key and for a batch.

Each relay runs as in the live network (``openqci.cli.up.relay_run``): one durable transaction per node, the
key stored at both ends. One key per relay is the plain way; a batch shares the round over its keys.
"""

import asyncio
import secrets
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from _measure import medians_s, tell

from openqci.cli.up.relay_run import run_relay
from openqci.core.identifiers import LinkId, SiteId, kme_of_site, link_stream
from openqci.core.keys import SecretBytes
from openqci.core.provenance import Provenance
from openqci.delivery import BATCH_TAG_BITS
from openqci.keystore.ports import StoreTransaction
from openqci.relay import RelayOrder, hop_bytes
from openqci.services.sqlite_store import SqliteKeyStore

HOPS = (1, 8, 64)
KEY_BYTES = 32
BATCH_KEYS = 32
STOCK_BYTES = 64 * 1024


def route(hops: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the sites and the links of a chain."""
    sites = tuple(f"site-{number}" for number in range(hops + 1))
    return sites, tuple(f"{a}--{b}" for a, b in pairwise(sites))


def distilled(transaction: StoreTransaction) -> None:
    """Put link key at both ends of every hop, as many blocks would."""
    sites, links = route(max(HOPS))
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


def relay(store: SqliteKeyStore, hops: int, key_bytes: int) -> Callable[[], None]:
    """Return a work that carries one batch."""
    return lambda: asyncio.run(carry(store, hops, key_bytes))


async def carry(store: SqliteKeyStore, hops: int, key_bytes: int) -> None:
    await run_relay(store, new_order(hops, key_bytes))


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


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteKeyStore.open(Path(folder) / "store.sqlite", secrets.token_bytes(32))
        store.submit(distilled).result()
        figures: dict[str, float] = {}
        for hops in HOPS:
            figures |= figures_of(store, hops)
        store.close()
    figures["link key per bit of key and hop, one by one"] = hop_bytes(KEY_BYTES) / KEY_BYTES
    figures["link key per bit of key and hop, in a batch"] = hop_bytes(KEY_BYTES * BATCH_KEYS) / (
        KEY_BYTES * BATCH_KEYS
    )
    tell("relay: a chain of nodes, durable at every step", figures)
