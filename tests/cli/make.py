"""Four nodes in a row on a real store file, with an application at either end and all truth known."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from openqci.cli.up.relay_run import Spend
from openqci.core.identifiers import KmeId, LinkId, SaeId, SiteId, StreamId, kme_of_site, link_stream
from openqci.core.keys import SecretBytes
from openqci.core.provenance import KeyPath
from openqci.delivery import SaeDirectory, SaeRecord
from openqci.delivery.end_to_end import EndToEndOrder, HybridPolicy, KeyWanted
from openqci.delivery.pair_stock import Role, batch_of
from openqci.keystore.ports import KmeView, StoreTransaction
from openqci.services.sqlite_store import SqliteKeyStore

KEK = bytes(range(32))
SITES = [SiteId(f"site{number}") for number in range(4)]
LINKS = [LinkId(f"{a}--{b}") for a, b in pairwise(SITES)]
KMES = [kme_of_site(site) for site in SITES]
STOCK_BYTES = 2048

Result = TypeVar("Result")


class Row:
    """The nodes' store, and what was distilled on each hop in the direction from left to right."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = SqliteKeyStore.open(path, KEK)
        self.random = random.Random(4)
        self.truth: dict[LinkId, bytes] = {}

    def reopen(self) -> None:
        """Stop and start again: what was in memory is lost, what was durable is there."""
        self.store.close()
        self.store = SqliteKeyStore.open(self.path, KEK)

    def do(self, work: Callable[[StoreTransaction], Result]) -> Result:
        return self.store.submit(work).result(timeout=20)

    def at(self, site: SiteId, step: Callable[[KmeView], Result]) -> Result:
        return self.do(lambda transaction: step(KmeView(transaction, kme_of_site(site))))

    def append(self, site: SiteId, stream: StreamId, key: bytes) -> None:
        with SecretBytes(key) as secret:
            self.at(site, lambda view: view.append(stream, secret))

    def distil(self, link: LinkId, length_bytes: int = STOCK_BYTES) -> None:
        """Put the same fresh bytes at both ends of a hop."""
        left = SITES[LINKS.index(link)]
        fresh = self.random.randbytes(length_bytes)
        self.truth[link] = self.truth.get(link, b"") + fresh
        for site in (left, SITES[SITES.index(left) + 1]):
            self.append(site, link_stream(link, left), fresh)

    def ranges(self, link: LinkId) -> list[list[tuple[int, int]]]:
        """Return what the left and the right end of a hop have of the direction from left to right."""
        left = LINKS.index(link)
        stream = link_stream(link, SITES[left])
        return [self.at(site, lambda view: view.ranges(stream)) for site in SITES[left : left + 2]]

    def spent(self) -> dict[LinkId, int]:
        """Return how many bytes of each hop its initiator has used."""
        return {
            link: len(self.truth.get(link, b"")) - sum(length for _, length in self.ranges(link)[0])
            for link in LINKS
        }

    def batch(self, order: EndToEndOrder, role: Role) -> bytes | None:
        """Return a batch's bytes without taking them, or None if this end has no such batch."""
        site = SITES[0] if role == "master" else SITES[-1]

        def look(view: KmeView) -> bytes | None:
            batch = batch_of(view, order.batch_tag, role)
            return None if batch is None else bytes(view.take(batch.stream, 0, batch.length_bytes).reveal())

        class Looked(Exception):
            found: bytes | None

        def undone(view: KmeView) -> None:
            looked = Looked()
            looked.found = look(view)
            raise looked

        try:
            self.at(site, undone)
        except Looked as looked:
            return looked.found
        raise AssertionError("the look into a batch is always undone")

    def pair_streams(self) -> dict[KmeId, int]:
        """Return the bytes of end-to-end key that each KME holds, where there are any."""
        held = {kme: sum(stock for _, stock in self.streams(kme)) for kme in KMES}
        return {kme: stock for kme, stock in held.items() if stock}

    def streams(self, kme: KmeId) -> list[tuple[StreamId, int]]:
        return self.do(lambda transaction: list(transaction.streams(kme, "pair/")))

    def records(self, site: SiteId, kind: str) -> list[bytes]:
        return self.at(site, lambda view: [body for _, body in view.records(kind)])


def wanted(*, hops: int = 3, key_bytes: int = 256, policy: HybridPolicy = HybridPolicy.BOTH) -> KeyWanted:
    """Ask for a batch over the row, or over its first hops."""
    now_s = time.time()
    return KeyWanted(
        origin_kme=KMES[0],
        target_kme=KMES[hops],
        master_sae=SaeId("sae-master"),
        slave_sae=SaeId("sae-slave"),
        key_bytes=key_bytes,
        paths=(KeyPath(tuple(SITES[: hops + 1]), tuple(LINKS[:hops]), "hop", 1e-9 * hops),),
        threshold=1,
        policy=policy,
        deadline_s=now_s + 60,
        protocols=("decoy-state BB84",),
        proofs=("lim-2014",),
        simulated=True,
    )


def used(spends: tuple[Spend, ...]) -> dict[LinkId, int]:
    """Return the bytes per hop that an account of spends names."""
    return {link: sum(length for each, _, _, length in spends if each == link) for link in LINKS}


@contextmanager
def row(folder: Path, *, stocked: bool = True) -> Iterator[Row]:
    nodes = Row(folder / "store.sqlite")
    try:
        for sae, site in (("sae-master", SITES[0]), ("sae-slave", SITES[-1])):
            record = SaeRecord(SaeId(sae), site, kme_of_site(site), sae, "", 0.0)
            nodes.do(lambda transaction, each=record: SaeDirectory(transaction).enrol(each))
        for link in LINKS if stocked else ():
            nodes.distil(link)
        yield nodes
    finally:
        nodes.store.close()
