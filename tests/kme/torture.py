"""``kill -9`` of real KMEs at random moments under load, then an audit of both ends (invariants I1 to I5).

Two KMEs and a pair of simulated modules run as processes of their own. Applications fetch keys in both
directions and write down every answer before they ask for more; meanwhile processes are killed and started
again. Then everything that was acknowledged is fetched, and both stores are opened and compared.

    python -m tests.kme.torture --seconds 600 --seed 7

With ``--store postgresql --workers 2`` each KME has so many worker processes, and single workers are killed,
too. Exit code 1 if an invariant is broken. An answer that a kill swallowed leaves its keys *in doubt*: the
application asks again, and either gets them or learns that they were handed out.
"""

import argparse
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from types import MappingProxyType

import msgspec

from openqci.core.identifiers import KmeId
from openqci.delivery import agreement, pair_stock
from openqci.delivery.pair_stock import KeyBatch
from openqci.keystore.ports import KmeView, StoreTransaction
from openqci.services.audit import verify
from openqci.services.kme_config_file import load_config
from openqci.services.sae_client import SAEClient
from openqci.services.state_folder import StateFolder
from tests.keystore.postgres import server_url
from tests.kme.make import Process, openqci, sae, status_of
from tests.system.make import free_port_base

NUMBERS = (1, 1, 1, 3, 20, 100)
COLLECT_S_MAX = 60.0
QUIET_S_MAX = 60.0
KILLS_S_MAX = TRAFFIC_S_MAX = 90.0


class TwoSites:
    """Two KMEs, ``a`` and ``b``, with a pair of modules between them, in a folder."""

    def __init__(
        self,
        folder: Path,
        port_base: int,
        database: str | None = None,
        workers: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.folder, self.base, self._database, self.workers = folder, port_base, database, workers
        openqci(folder, "pki", "create", "pki")
        init = ("kme", "modules", "m", "--init", "--speed", 1000, "--port-base", port_base + 20)
        openqci(folder, *init)
        for end, other in (("a", "b"), ("b", "a")):
            self._init(end, other)
            openqci(
                folder, "pki", "issue", "pki", "--role", "sae", "--name", f"app-{end}", "--out", f"app-{end}"
            )
        self.modules = Process(folder, "modules", "kme", "modules", "m")
        self.kmes = {end: Process(folder, end, "kme", "run", "--config", f"{end}/kme.toml") for end in "ab"}

    def client(self, end: str) -> SAEClient:
        """Return the client of the application at an end."""
        return sae(self.folder, f"app-{end}", self._port(end))

    def status(self, end: str) -> dict[str, object]:
        return status_of(self.folder, f"{end}/kme.toml")

    def worker_pids(self, end: str) -> list[int]:
        """Return the worker processes of a node now."""
        process = self.kmes[end].process
        assert process is not None
        try:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        except OSError:
            return []
        return sorted(map(int, children.split()))

    def _port(self, end: str) -> int:
        return self.base + (0 if end == "a" else 10)

    def _to_postgres(self, end: str, url: str) -> None:
        """Have a node keep its store in PostgreSQL: a new state folder for another store."""
        file = self.folder / f"{end}.url"
        file.write_text(url)
        file.chmod(0o600)
        with (self.folder / end / "kme.toml").open("a") as config:
            config.write(
                f'\n[store]\nkind = "postgresql"\nurl_file = "../{end}.url"\n'
                f'schema_name = "{end}{self.base}_{self.folder.stat().st_ino}"\n'
            )
        config = self.folder / end / "kme.toml"
        workers = self.workers.get(end, 1)
        config.write_text(config.read_text().replace("[node]", f"[node]\nworkers = {workers}", 1))
        shutil.rmtree(self.folder / end / "state")
        StateFolder.make(load_config(self.folder / end / "kme.toml"))

    def _init(self, end: str, other: str) -> None:
        openqci(
            self.folder,
            *("kme", "init", end, "--kme-id", f"kme-{end}", "--authority", "pki", "--laboratory"),
            *("--bind", "127.0.0.1", "--port-base", self._port(end), "--sae", f"app-{end}"),
            *("--peer", f"kme-{other}", "--peer-url", f"https://localhost:{self._port(other) + 1}"),
            *("--peer-sae", f"app-{other}", "--link", "ab", *(["--leads"] if end == "a" else [])),
            *("--module-url", f"https://localhost:{self.base + (20 if end == 'a' else 21)}"),
            *("--module-sae", f"kme-{other}", "--module-credentials", f"../m/node-{end}"),
        )
        with (self.folder / end / "kme.toml").open("a") as config:
            config.write(f'\n[[pair]]\nmaster = "app-{end}"\nslaves = ["app-{other}"]\n')
        if self._database is not None:
            self._to_postgres(end, self._database)


@dataclass
class Book:
    """What applications were told, and what is wrong with it."""

    acknowledged: dict[str, bytes] = field(default_factory=dict)
    fetched: set[str] = field(default_factory=set)
    in_doubt: set[str] = field(default_factory=set)
    digests: set[bytes] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def master_got(self, key_ids: list[str], keys: list[bytes]) -> None:
        with self.lock:
            for key_id, key in zip(key_ids, keys, strict=True):
                digest = hashlib.sha256(key).digest()
                if key_id in self.acknowledged or digest in self.digests:
                    self.faults.append(f"I1: {key_id} was delivered to a master twice")
                self.acknowledged[key_id] = key
                self.digests.add(digest)
            self.counts["acknowledged to masters"] += len(keys)

    def slave_got(self, key_ids: list[str], keys: list[bytes]) -> None:
        with self.lock:
            for key_id, key in zip(key_ids, keys, strict=True):
                if key_id in self.fetched:
                    self.faults.append(f"I1: {key_id} was delivered to a slave twice")
                if self.acknowledged[key_id] != key:
                    self.faults.append(f"I2: {key_id} differs between master and slave")
                self.fetched.add(key_id)
            self.counts["acknowledged to slaves"] += len(keys)

    def slave_refused(self, key_ids: list[str]) -> None:
        with self.lock:
            if not set(key_ids) & (self.in_doubt | self.fetched):
                self.faults.append(f"I3: {key_ids[0]} was acknowledged and cannot be fetched")
            self.counts["handed out in an answer that was lost"] += len(set(key_ids) & self.in_doubt)

    def doubt(self, key_ids: list[str]) -> None:
        with self.lock:
            self.in_doubt.update(key_ids)
            self.counts["answers lost"] += 1


class Applications(threading.Thread):
    """A master at one end and its slave at the other, which fetch keys until told to stop."""

    def __init__(self, sites: TwoSites, book: Book, master_end: str, seed: str) -> None:
        super().__init__(daemon=True)
        self.sites, self.book, self.random = sites, book, random.Random(seed)
        self.ends = master_end, "b" if master_end == "a" else "a"
        self.names = tuple(f"app-{end}" for end in self.ends)
        self.later: list[list[str]] = []
        self.halt = threading.Event()

    def run(self) -> None:
        with (
            closing(self.sites.client(self.ends[0])) as master,
            closing(self.sites.client(self.ends[1])) as slave,
        ):
            while not self.halt.is_set():
                try:
                    self._exchange(master, slave)
                except (OSError, HTTPException):
                    self.book.counts["requests cut off"] += 1
                    time.sleep(0.02)

    def _exchange(self, master: SAEClient, slave: SAEClient) -> None:
        answer = master.enc_keys(self.names[1], self.random.choice(NUMBERS))
        if answer.status != 200:
            self.book.counts[f"enc_keys answered {answer.status}"] += 1
            time.sleep(0.05)
            return
        self.book.master_got(answer.key_ids, answer.keys)
        if self.random.random() < 0.15:
            self.later.append(answer.key_ids)  # an application that collects late
            return
        self.collect(slave, answer.key_ids)
        if self.random.random() < 0.1 and slave.dec_keys(self.names[0], answer.key_ids).status == 200:
            self.book.faults.append(f"I1: {answer.key_ids[0]} was delivered to a slave twice")

    def collect(self, slave: SAEClient, key_ids: list[str]) -> None:
        """Fetch keys at the slave, again and again while the KME cannot answer."""
        deadline_s = time.monotonic() + COLLECT_S_MAX
        while time.monotonic() < deadline_s:
            try:
                answer = slave.dec_keys(self.names[0], key_ids)
            except (OSError, HTTPException):
                self.book.doubt(key_ids)
                time.sleep(0.05)
                continue
            if answer.status == 200:
                return self.book.slave_got(answer.key_ids, answer.keys)
            if answer.status == 400:
                return self.book.slave_refused(key_ids)
            self.book.counts[f"dec_keys answered {answer.status}"] += 1
            self.book.doubt(key_ids)
            time.sleep(0.05)
        self.book.faults.append(f"I3: {key_ids[0]} could not be fetched in {COLLECT_S_MAX} s")
        return None


def torture(
    folder: Path,
    port_base: int,
    seconds: float,
    seed: int,
    database: str | None = None,
    workers: Mapping[str, int] = MappingProxyType({}),
    keys_min: int = 0,
    kills_min: int = 0,
) -> Book:
    """Run it; return the book with all faults found.

    On a slow machine it goes on until so many nodes were killed, and then until slaves have so many keys.
    """
    chance, book = random.Random(seed), Book()
    sites = TwoSites(folder, port_base, database, workers)
    everything = {"modules": sites.modules, **sites.kmes}
    try:
        for process in everything.values():
            process.start()
        lines = [Applications(sites, book, end, f"{seed}/{end}/{n}") for end in "ab" for n in range(2)]
        for line in lines:
            line.start()
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s or (
            killed(book) < kills_min and time.monotonic() < end_s + KILLS_S_MAX
        ):
            time.sleep(chance.uniform(0.2, 2.5))
            if workers and chance.random() < 0.6:
                kill_worker(sites, chance.choice(sorted(workers)), chance, book)
                continue
            victims = chance.choice((["a"], ["b"], ["a", "b"], ["a"], ["b"], ["modules"]))
            for name in victims:
                everything[name].kill()
                book.counts[f"kills of {name}"] += 1
            time.sleep(chance.choice((0.0, 0.0, 0.5, 1.5)))
            for name in victims:
                everything[name].start()
        give_up_s = time.monotonic() + TRAFFIC_S_MAX
        while book.counts["acknowledged to slaves"] < keys_min and time.monotonic() < give_up_s:
            time.sleep(0.1)
        for line in lines:
            line.halt.set()
        for line in lines:
            line.join(COLLECT_S_MAX)
            if line.is_alive():
                book.faults.append("an application hangs")
        for line in lines:
            with closing(sites.client(line.ends[1])) as slave:
                for key_ids in line.later:
                    line.collect(slave, key_ids)
        wait_until_quiet(sites, book)
        for end, process in sites.kmes.items():
            if process.stop() != 0:
                book.faults.append(f"KME {end} did not stop cleanly")
    finally:
        for process in everything.values():
            process.kill()
    audit(folder, book)
    return book


def killed(book: Book) -> int:
    """Return how often a node was killed."""
    return book.counts["kills of a"] + book.counts["kills of b"]


def kill_worker(sites: TwoSites, end: str, chance: random.Random, book: Book) -> None:
    """``kill -9`` of one worker, or of all of a node at once; its coordinator starts others."""
    pids = sites.worker_pids(end)
    for pid in pids if chance.random() < 0.2 else pids[:1] if chance.random() < 0.5 else pids[-1:]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            book.counts[f"kills of workers of {end}"] += 1


def wait_until_quiet(sites: TwoSites, book: Book) -> None:
    """After the last kill all comes to rest by itself: peers meet, no batch stays half agreed."""
    deadline_s = time.monotonic() + QUIET_S_MAX
    while time.monotonic() < deadline_s:
        found = [sites.status(end) for end in "ab"]
        peers = [peer for each in found for peer in each["peers"]]  # type: ignore[attr-defined]
        if all(peer["met"] for peer in peers) and not any(each["batches_under_way"] for each in found):
            return
        time.sleep(0.1)
    book.faults.append("the KMEs did not come to rest after the last kill")


def audit(folder: Path, book: Book) -> None:
    """Open both stores: what a master can still spend lies alike at the slave; nothing spent is left."""
    stores = {}
    folders = []
    for end in "ab":
        loaded = load_config(folder / end / "kme.toml")
        state = StateFolder.open(loaded)
        folders.append(state)
        stores[KmeId(f"kme-{end}")] = state.open_store()
        found = verify(folder / end / "state" / "audit")
        if found.fault:
            book.faults.append(f"the audit log of {end}: {found.fault}")
        book.counts["lines of audit logs"] += found.lines
    left = {
        kme: store.submit(lambda tx, kme=kme: remaining(tx, kme)).result() for kme, store in stores.items()
    }
    open_offers = {
        kme: store.submit(lambda tx, kme=kme: agreement.open_offers(KmeView(tx, kme))).result()
        for kme, store in stores.items()
    }
    for kme, batches in left.items():
        other = next(each for each in left if each != kme)
        tags = {order.batch_tag for orders in open_offers.values() for order in orders}
        for (tag, role), ranges in batches.items():
            if role != "master" or tag in tags:
                continue
            slaves = left[other].get((tag, "slave"), {})
            for offset, key in ranges.items():
                at_slave = piece_of(slaves, offset, len(key))
                if at_slave is None:
                    book.faults.append(f"I3: batch {tag:010x} lies at its master and not at its slave")
                elif at_slave != key:
                    book.faults.append(f"I2: batch {tag:010x} differs between its ends")
                else:
                    book.counts["bytes in stock, alike at both ends"] += len(key)
    everything = b"".join(
        key for batches in left.values() for ranges in batches.values() for key in ranges.values()
    )
    spent = [key for key_id, key in book.acknowledged.items() if key_id in book.fetched]
    present = chunks_of(everything)
    for key in spent:
        if key[:8] in present and key in everything:
            book.faults.append("I5: a key that both ends have spent still lies in a store")
    book.counts["spent keys looked for in the stores"] += len(spent)
    for store in stores.values():
        store.close()
    for state in folders:
        state.close()


def remaining(transaction: StoreTransaction, kme: KmeId) -> dict[tuple[int, str], dict[int, bytes]]:
    """Return what a KME still holds of each batch, by tag and role: offset and bytes. Takes it out."""
    view = KmeView(transaction, kme)
    found: dict[tuple[int, str], dict[int, bytes]] = {}
    for _, body in list(view.records(pair_stock.BATCH_KIND)):
        batch = msgspec.json.decode(body, type=KeyBatch)
        for offset, length in view.ranges(batch.stream):
            with view.take(batch.stream, offset, length) as key:
                found.setdefault((batch.batch_tag, batch.role), {})[offset] = bytes(key.reveal())
    return found


def piece_of(ranges: dict[int, bytes], offset: int, length: int) -> bytes | None:
    """Return the bytes of a range if they are all there."""
    for start, key in ranges.items():
        if start <= offset and offset + length <= start + len(key):
            return key[offset - start : offset - start + length]
    return None


def chunks_of(everything: bytes) -> set[bytes]:
    """Return every 8-byte word at the places where a key may begin (multiples of 8)."""
    return {everything[at : at + 8] for at in range(0, len(everything), 8)}


def report(book: Book, seconds: float, seed: int) -> str:
    lines = [f"torture: {seconds:.0f} s, seed {seed}"]
    lines += [f"  {name:45} {count}" for name, count in sorted(book.counts.items())]
    lines += [f"  FAULT {fault}" for fault in book.faults[:20]]
    lines.append(f"  {len(book.faults)} faults")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to kill")
    parser.add_argument("--seed", type=int, default=None, help="of the choice of victims and moments")
    parser.add_argument("--store", choices=("sqlite", "postgresql"), default="sqlite", help="of both KMEs")
    parser.add_argument("--workers", type=int, default=1, help="of both KMEs; above 1 on postgresql")
    args = parser.parse_args()
    workers = dict.fromkeys("ab", args.workers) if args.workers > 1 else {}
    database = server_url() if args.store == "postgresql" else None
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(1 << 32)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, suppress(KeyboardInterrupt):
        book = torture(Path(folder), free_port_base(40, 11800), args.seconds, seed, database, workers)
        print(report(book, args.seconds, seed))
        return int(bool(book.faults))
    return 130


if __name__ == "__main__":
    sys.exit(main())
