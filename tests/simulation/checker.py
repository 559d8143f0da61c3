"""What must be true of a run, whatever went wrong in it (invariants I1 to I5).

The book is kept outside the KMEs, from what applications were told. I1: no key is given twice, neither to two
masters nor twice to a slave, and no two keys share a word. I2: both parties of a key ID get the same bytes.
I3: what a master was given each slave can fetch, once, after any faults. I4: when faults have ended, nothing
that was begun is left half done at either end. I5: what was spent at both ends is in no store.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from openqci.core.identifiers import KmeId, SaeId
from openqci.delivery import agreement, end_to_end, leases, pair_stock
from openqci.delivery.pair_stock import KeyBatch
from openqci.keystore import deposits, outbox, pushed
from openqci.keystore.memory import MemoryTransaction
from openqci.keystore.ports import KmeView
from tests.simulation.loop import Disk

WORD = 8
FAULTS_MAX = 20
SWEPT_S = 15.0
"""A batch is destroyed so soon after its time, by any clock."""

DRAWN_S = 5.0
"""So long a drawing lasts at most, until a deposit of it is offered."""


@dataclass
class Promise:
    """One key that a master has."""

    master: SaeId
    slaves: tuple[SaeId, ...]
    key: bytes
    at_s: float
    fetched: set[SaeId] = field(default_factory=set)


@dataclass
class ReadChunk:
    """One chunk of a key stream, and who has read it."""

    key: bytes
    readers: set[SaeId] = field(default_factory=set)


@dataclass
class Book:
    """What applications were told."""

    promises: dict[str, Promise] = field(default_factory=dict)
    doubts: set[tuple[SaeId, str]] = field(default_factory=set)
    words: dict[bytes, str] = field(default_factory=dict)
    chunks: dict[tuple[str, int], ReadChunk] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    agreed: set[int] = field(default_factory=set)
    """Tags of the batches that came into a master's stock."""

    pushed: dict[tuple[KmeId, str, str, int], bytes] = field(default_factory=dict)
    """Chunks that a KME has told its module it has, by KME, link, stream and index."""

    given: dict[KmeId, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    """When which chunks came from modules that are asked for them, by leading KME, in its present life."""

    tried: set[tuple[KmeId, str]] = field(default_factory=set)
    """Names of chunks of which a deposit was to be made, by KME: the disk may have refused."""

    drafts: set[tuple[KmeId, str]] = field(default_factory=set)
    offered: set[tuple[KmeId, str]] = field(default_factory=set)
    """Names of chunks of which a deposit was offered, by KME: by the work under way, and for good."""

    handed: dict[tuple[int, SaeId], set[int]] = field(default_factory=lambda: defaultdict(set))
    """Offsets of bytes that left a master's stock, by tag of the batch and master."""

    leads: dict[str, KmeId] = field(default_factory=dict)
    """Which KME leads each link."""

    replaced: set[SaeId] = field(default_factory=set)
    """Applications whose KME was zeroised and made anew: what was held there may be lost."""

    renewed: set[KmeId] = field(default_factory=set)
    """These KMEs."""

    collect_s: float = 0.0
    """Before a slave's copy expires its master's own does, so long."""

    promise_s: float = float("inf")
    """How long after a master got a key its slaves can fetch it at least, by any clock."""

    def fault(self, text: str) -> None:
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(text)

    def push_acknowledged(self, disk: Disk, kme: KmeId, link: str, ksid: str, index: int, key: bytes) -> None:
        """A module has heard that its chunk is there: unless it was used, or came too late, it must be."""
        stream = pushed.current(KmeView(MemoryTransaction(disk.rows, disk.sealer), kme), link)
        if stream is not None and stream.ksid == ksid and index >= stream.next_index:
            self.pushed[kme, link, ksid, index] = key

    def chunk_given(self, kme: KmeId, link: str, name: str, now_s: float) -> None:
        """A module that was asked for a chunk has given it: it must not be wasted by a process that lives."""
        if self.leads[link] == kme:
            self.given[kme][name] = now_s

    def work_begins(self) -> None:
        """A store begins a work; what was noted for the last one counts only if that was kept."""
        self.drafts.clear()

    def work_kept(self) -> None:
        """A store has made a work durable."""
        self.offered |= self.drafts

    def handed_out(self, batch: KeyBatch, offset_bytes: int, length_bytes: int) -> None:
        """A range of a batch left the stock of its master, on its way to an application."""
        places = self.handed[batch.batch_tag, batch.master_sae]
        places.update(range(offset_bytes, offset_bytes + length_bytes, WORD))

    def slaves_of(self, key_id: str) -> tuple[SaeId, ...]:
        return self.promises[key_id].slaves

    def master_got(
        self, master: SaeId, slaves: tuple[SaeId, ...], keys: list[tuple[str, bytes]], at_s: float
    ) -> None:
        for key_id, key in keys:
            if key_id in self.promises:
                self.fault(f"I1: {key_id} was given to a master twice")
            for at in range(0, len(key), WORD):
                word = key[at : at + WORD]
                if word in self.words:
                    self.fault(f"I1: {key_id} shares key with {self.words[word]}")
                self.words[word] = key_id
            self.promises[key_id] = Promise(master, slaves, key, at_s)

    def slave_got(self, slave: SaeId, keys: list[tuple[str, bytes]], stranger: bool) -> None:
        for key_id, key in keys:
            promise = self.promises[key_id]
            if stranger or slave not in promise.slaves:
                self.fault(f"014-32: {slave} got {key_id}, which is not its own")
            if slave in promise.fetched:
                self.fault(f"I1: {key_id} was given to {slave} twice")
            if key != promise.key:
                self.fault(f"I2: {key_id} differs between {promise.master} and {slave}")
            promise.fetched.add(slave)

    def chunk_got(self, reader: SaeId, ksid: str, index: int, key: bytes) -> None:
        """An application has read a chunk: nobody reads it twice, both read the same, nothing else has it."""
        name = f"chunk {index} of {ksid}"
        chunk = self.chunks.get((ksid, index))
        if chunk is None:
            chunk = self.chunks[ksid, index] = ReadChunk(key)
            for at in range(0, len(key), WORD):
                word = key[at : at + WORD]
                if word in self.words:
                    self.fault(f"I1: {name} shares key with {self.words[word]}")
                self.words[word] = name
        if reader in chunk.readers:
            self.fault(f"I1: {name} was given to {reader} twice")
        if key != chunk.key:
            self.fault(f"I2: {name} differs between its two ends")
        chunk.readers.add(reader)

    def slave_refused(self, slave: SaeId, key_ids: list[str], status: int, now_s: float) -> None:
        """A refusal is right only if one of the keys was handed out before, perhaps in a lost answer."""
        for key_id in key_ids:
            promise = self.promises[key_id]
            if slave in promise.fetched or (slave, key_id) in self.doubts or self._over(promise, now_s):
                return
            if {slave, promise.master} & self.replaced:
                return
        self.fault(f"I3: {slave} cannot fetch {key_ids[0]}, which its master has ({status})")

    def doubt(self, slave: SaeId, key_ids: list[str]) -> None:
        """An answer was lost: whether the slave's copy is gone nobody knows."""
        self.doubts.update((slave, key_id) for key_id in key_ids)

    def _over(self, promise: Promise, now_s: float) -> bool:
        return now_s - promise.at_s > self.promise_s

    def uncollected(self, now_s: float) -> list[tuple[SaeId, SaeId, list[str]]]:
        """Return the keys that a slave can fetch yet: not fetched, not lost in an answer, not expired."""
        found: dict[tuple[SaeId, SaeId], list[str]] = defaultdict(list)
        for key_id, promise in self.promises.items():
            if self._over(promise, now_s):
                continue
            for slave in promise.slaves:
                lost = {slave, promise.master} & self.replaced
                if slave not in promise.fetched and (slave, key_id) not in self.doubts and not lost:
                    found[promise.master, slave].append(key_id)
        return [(master, slave, key_ids) for (master, slave), key_ids in found.items()]

    def busy(self, disk: Disk, kme: KmeId) -> bool:
        """Tell whether a KME still has something under way with others."""
        view = KmeView(MemoryTransaction(disk.rows, disk.sealer), kme)
        return (
            any(True for _ in view.records(outbox.OUT_KIND))
            or bool(agreement.open_offers(view))
            or bool(end_to_end.open_orders(view))
            or any(not due.word and not due.withdrawn for due in end_to_end.due_keys(view))
            or any(True for _ in view.records(deposits.KEPT_KIND))
        )

    def audit(
        self, disks: Mapping[KmeId, Disk], homes: Mapping[SaeId, KmeId], now_s: float, start_s: float
    ) -> None:
        """Open all stores at the end."""
        views = {kme: KmeView(MemoryTransaction(disk.rows, disk.sealer), kme) for kme, disk in disks.items()}
        for master, slave, key_ids in self.uncollected(now_s):
            self.fault(f"I3: {len(key_ids)} keys of {master} could not be fetched by {slave}")
        self._nothing_over_is_left(views, start_s + now_s)
        self._both_ends(views, disks, homes)
        self._rests(views, homes, start_s + now_s)
        self._stocks(views)
        self._pushes(views, disks)
        self._link_key(views)
        self._nothing_spent_is_left(views)

    def _nothing_over_is_left(self, views: Mapping[KmeId, KmeView], wall_s: float) -> None:
        for kme, view in views.items():
            for _, body in list(view.records(pair_stock.BATCH_KIND)):
                batch = msgspec.json.decode(body, type=KeyBatch)
                if batch.batch_tag not in self.agreed and not self._word_is_lost(batch):
                    self.fault(f"I4: {kme} still holds batch {batch.batch_tag:010x}, which was given up")
                if batch.expires_s and batch.expires_s + SWEPT_S < wall_s:
                    self.fault(
                        f"I4: {kme} still holds a batch that expired {wall_s - batch.expires_s:.0f} s ago"
                    )

    def _word_is_lost(self, batch: KeyBatch) -> bool:
        """Tell whether a KME on the way of a relayed batch was made anew: what it was to pass on is lost.

        The target may never hear then that its copy is to go. Nobody can use it; it stays until it expires.
        """
        return batch.provenance.hops > 1 and not self.renewed.isdisjoint(batch.provenance.route)

    def _both_ends(
        self, views: Mapping[KmeId, KmeView], disks: Mapping[KmeId, Disk], homes: Mapping[SaeId, KmeId]
    ) -> None:
        for kme, view in views.items():
            for _, body in list(view.records(pair_stock.BATCH_KIND)):
                batch = msgspec.json.decode(body, type=KeyBatch)
                if batch.role != "master":
                    continue
                if batch.stream_id:
                    # Each end of a stream reads and closes it by itself: what both hold must be the same.
                    self._stream_batch(view, batch, views[homes[batch.slave_sae]], kme)
                    continue
                for slave in (batch.slave_sae, *batch.additional_slaves):
                    copies = pair_stock.slave_copies(views[homes[slave]], batch.batch_tag)
                    # Tags have few bits here: another master's batch for the slave may bear the same one.
                    own = [each for each in copies if each.master_sae == batch.master_sae]
                    copy = next((each for each in own if each.slave_sae == slave), None)
                    if copy is None:
                        self.fault(f"I3: {slave} has no copy of a batch that {batch.master_sae} can spend")
                        continue
                    mine, theirs = contents(view, batch), contents(views[homes[slave]], copy)
                    disks[kme].rows.undo(0)
                    disks[homes[slave]].rows.undo(0)
                    if any(offset not in theirs or theirs[offset] != byte for offset, byte in mine.items()):
                        self.fault(
                            f"I2: batch {batch.batch_tag:010x} differs between {kme} and {homes[slave]}"
                        )

    def _rests(self, views: Mapping[KmeId, KmeView], homes: Mapping[SaeId, KmeId], wall_s: float) -> None:
        """A slave's copy holds what its master may spend or has been given, and nothing else."""
        for kme, view in views.items():
            for _, body in list(view.records(pair_stock.BATCH_KIND)):
                copy = msgspec.json.decode(body, type=KeyBatch)
                if copy.role == "master" or copy.stream_id or 0 < copy.expires_s < wall_s + self.collect_s:
                    continue
                if self._word_is_lost(copy):
                    continue
                held = set(words_of(view, copy))
                master = views[homes[copy.master_sae]]
                for batch in master_batches(master, copy.batch_tag):
                    held -= set(words_of(master, batch))
                if held - self.handed[copy.batch_tag, copy.master_sae]:
                    self.fault(f"I4: {kme} holds a rest of {copy.batch_tag:010x} that its master gave up")

    def _stocks(self, views: Mapping[KmeId, KmeView]) -> None:
        """All leases are over, and every batch of a master is in the stock of its pair, counted once."""
        for kme, view in views.items():
            for kind in (leases.KIND, leases.ENDS_KIND, pair_stock.APART_KIND):
                for name, _ in list(view.records(kind)):
                    self.fault(f"I4: {kme} still has {kind} {name}")
            held: dict[tuple[SaeId, ...], int] = defaultdict(int)
            for _, body in list(view.records(pair_stock.BATCH_KIND)):
                batch = msgspec.json.decode(body, type=KeyBatch)
                if batch.role == "master" and not batch.stream_id:
                    group = batch.master_sae, batch.slave_sae, *batch.additional_slaves
                    held[group] += view.stock_bytes(batch.stream)
            for (master, slave, *others), length in held.items():
                listed = pair_stock.batches_in_stock(view, master, slave, tuple(others))
                stocks = sum(view.stock_bytes(batch.stream) for batch in listed)
                counted = pair_stock.stock_bytes(view, master, slave, tuple(others))
                if not length == stocks == counted:
                    self.fault(f"I4: {kme} holds {length} bytes of {master}, stocked {stocks}/{counted}")

    def _pushes(self, views: Mapping[KmeId, KmeView], disks: Mapping[KmeId, Disk]) -> None:
        """What a module was told is there waits, or was used, or passed over by the end that follows."""
        waiting = {
            (kme, link): waiting_chunks(views[kme], disks[kme], link)
            for kme, link in dict.fromkeys((kme, link) for kme, link, _, _ in self.pushed)
        }
        for (kme, link, ksid, index), key in self.pushed.items():
            stream = pushed.current(views[kme], link)
            if stream is None or stream.ksid != ksid or (kme, f"{ksid}:{index}") in self.offered:
                continue  # that stream was given up, or the chunk was used
            if index < stream.next_index and self.leads[link] != kme:
                continue  # the end that leads has passed it over
            name = f"chunk {index} of {ksid} at {kme}"
            if index not in waiting[kme, link]:
                self.fault(f"I3: {name}, which was acknowledged, is gone, and no deposit was made of it")
            elif waiting[kme, link][index] != key:
                self.fault(f"I2: {name} is not what was acknowledged")

    def nothing_given_is_wasted(self, kme: KmeId, held: set[str], now_s: float) -> None:
        """What a module gave to the life that goes on is in a deposit, or ``held`` for the next."""
        for name, given_s in self.given[kme].items():
            if (kme, name) not in self.tried and name not in held and given_s < now_s - DRAWN_S:
                self.fault(f"I4: {kme} was given {name}, and neither holds nor offered it")

    def _stream_batch(self, view: KmeView, batch: KeyBatch, other: KmeView, kme: KmeId) -> None:
        copies = pair_stock.slave_copies(other, batch.batch_tag)
        for copy in copies:
            if copy.stream_id == batch.stream_id and copy.master_sae == batch.master_sae:
                mine, theirs = contents(view, batch), contents(other, copy)
                if any(theirs[offset] != byte for offset, byte in mine.items() if offset in theirs):
                    self.fault(f"I2: stream batch {batch.batch_tag:010x} differs between its ends at {kme}")

    def _link_key(self, views: Mapping[KmeId, KmeView]) -> None:
        """Both ends of a link hold the same link key at the same offsets."""
        held: dict[str, dict[KmeId, list[tuple[int, int]]]] = defaultdict(dict)
        for kme, view in views.items():
            for stream, stock in list(view.streams("link/")):
                if stock:
                    held[stream][kme] = view.ranges(stream)
            orphans = [
                stream
                for stream, stock in list(view.streams(""))
                if stock and not stream.startswith(("link/", "pair/", "pushed/"))
            ]
            if orphans:
                self.fault(f"I4: {kme} still holds {orphans[:3]}")
        for stream, ends in held.items():
            if len(ends) != 2 or len({tuple(ranges) for ranges in ends.values()}) != 1:
                self.fault(f"I4: the ends of {stream} hold different ranges: {ends}")

    def _nothing_spent_is_left(self, views: Mapping[KmeId, KmeView]) -> None:
        spent = {
            word
            for word, key_id in self.words.items()
            if key_id in self.promises and set(self.promises[key_id].slaves) <= self.promises[key_id].fetched
        }
        for chunk in self.chunks.values():
            if len(chunk.readers) == 2:
                spent.update(chunk.key[at : at + WORD] for at in range(0, len(chunk.key), WORD))
        for kme, view in views.items():
            for stream, stock in list(view.streams("")):
                if not stock:
                    continue
                for offset, length in view.ranges(stream):
                    key = bytes(view.take(stream, offset, length).reveal())
                    for at in range(0, len(key) - WORD + 1, WORD):
                        if key[at : at + WORD] in spent:
                            self.fault(f"I5: {kme} still holds spent key in {stream}")
                            return


def words_of(view: KmeView, batch: KeyBatch) -> list[int]:
    """Return the offsets of the words of a batch that are there."""
    return [
        batch.base_bytes + at
        for offset, length in view.ranges(batch.stream)
        for at in range(offset, offset + length, WORD)
    ]


def master_batches(view: KmeView, batch_tag: int) -> list[KeyBatch]:
    """Return what a master's KME has of a batch: the batch, and pieces of it."""
    bodies = view.records(pair_stock.BATCH_KIND, f"master/{batch_tag:010x}")
    return [msgspec.json.decode(body, type=KeyBatch) for _, body in bodies]


def waiting_chunks(view: KmeView, disk: Disk, link: str) -> dict[int, bytes]:
    """Return the chunks of a link's stream that wait, by index; nothing is taken."""
    stream, found = pushed.current(view, link), {}
    if stream is not None:
        for index in pushed.first(view, link, stream.held_bytes)[0]:
            with pushed.take(view, link, [index])[0] as key:
                found[index] = bytes(key.reveal())
        disk.rows.undo(0)
    return found


def contents(view: KmeView, batch: KeyBatch) -> dict[int, int]:
    """Return the bytes of a batch by offset; the caller undoes the taking."""
    found: dict[int, int] = {}
    for offset, length in view.ranges(batch.stream):
        with view.take(batch.stream, offset, length) as key:
            at = batch.base_bytes + offset
            found.update(zip(range(at, at + length), bytes(key.reveal()), strict=True))
    return found
