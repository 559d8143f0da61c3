"""Brings a network into being in a data directory, or finds it there: certificates, pre-shared key, SAEs.

What is done here happens once per directory. Everything goes through the same doors that an operator uses;
a restart finds it all in place and does nothing, but for hops that have run out of authentication key.
"""

import json
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from openqci.cli.up.production import NETWORK
from openqci.core.identifiers import LinkId, SiteId, authentication_stream, kme_of_site, link_stream
from openqci.core.keys import SecretBytes
from openqci.distillation import AUTHENTICATION_KEY_BYTES
from openqci.keystore.ports import KmeView, StoreTransaction
from openqci.keystore.reconcile import destroy_surplus
from openqci.network import Hop, Network
from openqci.services.data_directory import DataDirectory
from openqci.services.sqlite_store import SqliteKeyStore
from openqci.twin.hops import AUTHENTICATION_STOCK_BYTES

HOPS_PER_TRANSACTION = 100
CLOCK = "clock"

Item = TypeVar("Item")


def open_store(directory: DataDirectory) -> SqliteKeyStore:
    """Open the store of a data directory with its key-encryption key."""
    return SqliteKeyStore.open(directory.store_path, directory.kek())


def share_authentication_keys(
    store: SqliteKeyStore, network: Network, progress: Callable[[str], None]
) -> None:
    """Give both ends of each hop that cannot authenticate a block a pre-shared key.

    In a real network this is the one secret that people carry to both sites; here it comes from the
    operating system's generator. It authenticates; it never becomes link key. A hop needs it when it is new,
    and again when a dozen blocks in a row were cut off: each has spent its authentication key, and only a
    block that succeeds refills it.
    """
    silent = store.submit(lambda transaction: silent_hops(transaction, network)).result()
    for group in batched(silent, HOPS_PER_TRANSACTION):
        store.submit(partial(share_all, hops=group)).result()
    if silent:
        progress(f"pre-shared authentication key at both ends of {len(silent)} hops")


def silent_hops(transaction: StoreTransaction, network: Network) -> list[Hop]:
    """Return the hops of which an end has too little key to authenticate one block."""
    return [hop for hop in network.hops.values() if is_silent(transaction, hop)]


def is_silent(transaction: StoreTransaction, hop: Hop) -> bool:
    stream = authentication_stream(hop.link_id)
    stocks = [transaction.stock_bytes(kme_of_site(site), stream) for site in (hop.a, hop.b)]
    return min(stocks) < AUTHENTICATION_KEY_BYTES


def share_again(transaction: StoreTransaction, hops: Iterable[Hop]) -> list[LinkId]:
    """Give those hops new authentication key that have too little for a block; return which they are."""
    silent = [hop for hop in hops if is_silent(transaction, hop)]
    share_all(transaction, silent)
    return [hop.link_id for hop in silent]


def share_all(transaction: StoreTransaction, hops: list[Hop]) -> None:
    for hop in hops:
        share(transaction, hop)


def share(transaction: StoreTransaction, hop: Hop) -> None:
    """Replace what is left of a hop's authentication key at both ends."""
    secret = secrets.token_bytes(AUTHENTICATION_STOCK_BYTES)
    stream = authentication_stream(hop.link_id)
    for site in (hop.a, hop.b):
        transaction.destroy(kme_of_site(site), stream)
        with SecretBytes(secret) as key:
            transaction.append(kme_of_site(site), stream, key)


def hop_stocks(transaction: StoreTransaction, network: Network) -> dict[tuple[LinkId, SiteId], int]:
    """Return what is in stock on every hop and direction, in bytes, as the end that may spend it sees it."""
    return stocks_of_hops(transaction, network.hops.values())


def stocks_of_hops(transaction: StoreTransaction, hops: Iterable[Hop]) -> dict[tuple[LinkId, SiteId], int]:
    """Return the same of some hops."""
    return {
        (hop.link_id, initiator): transaction.stock_bytes(
            kme_of_site(initiator), link_stream(hop.link_id, initiator)
        )
        for hop in hops
        for initiator in (hop.a, hop.b)
    }


def reconcile_ends(transaction: StoreTransaction, hops: Iterable[Hop]) -> int:
    """After a crash or an absence: destroy link key that only one end of a hop has; return how many bytes.

    Ends whose stocks are equal are taken to agree: a spend takes the same number of bytes at both, so that
    an interrupted one leaves them different.
    """
    destroyed = 0
    for hop in hops:
        ends = [KmeView(transaction, kme_of_site(site)) for site in (hop.a, hop.b)]
        for stream in (link_stream(hop.link_id, hop.a), link_stream(hop.link_id, hop.b)):
            if ends[0].stock_bytes(stream) != ends[1].stock_bytes(stream):
                ranges = [end.ranges(stream) for end in ends]
                destroyed += destroy_surplus(ends[0], stream, ranges[1])
                destroyed += destroy_surplus(ends[1], stream, ranges[0])
    return destroyed


def clock_start_s(transaction: StoreTransaction) -> float:
    """Return the simulated time at which the network was stopped last; 0 for a new one."""
    body = transaction.record(NETWORK, CLOCK, CLOCK)
    return float(json.loads(body)) if body else 0.0


def keep_clock(transaction: StoreTransaction, now_s: float) -> None:
    transaction.put_record(NETWORK, CLOCK, CLOCK, json.dumps(now_s).encode())


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{time.time_ns()}")
    part.write_text(text)
    part.replace(path)


def batched(items: list[Item], length: int) -> Iterator[list[Item]]:
    """Cut a list into lists of at most ``length`` items."""
    rest = iter(items)
    while part := list(islice(rest, length)):
        yield part


def kme_urls(network: Network, port_base: int) -> dict[SiteId, str]:
    """Return the address of each KME: one loopback port each, in the network's order."""
    return {site: f"https://127.0.0.1:{port}" for port, site in enumerate(network.sites, start=port_base + 1)}


def ready_document(network: Network, urls: dict[SiteId, str], console_url: str, ca: Path) -> str:
    """Return the text of the ready file."""
    kmes = [
        {
            "kme_id": kme_of_site(site.site_id),
            "site_id": site.site_id,
            "domain": site.domain,
            "url": urls[site.site_id],
        }
        for site in network.sites.values()
    ]
    return json.dumps({"console_url": console_url, "ca": str(ca), "kmes": kmes}, indent=1)
