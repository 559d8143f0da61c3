"""Stocks of end-to-end key per pair of applications: batches that lie alike at both KMEs.

A pair is directional: key that was relayed for (master, slave) is spent by that master alone, so the two
ends never choose the same bytes. The master's KME takes from the front of a batch, the slave's KME the
range that a key ID names. A batch is one key stream and, at each KME, a record of what it is; the
master's KME has it also in a list of its pair in order of age. Records hold no key material.

A part of a batch can be *set apart* at its master (:mod:`openqci.delivery.leases`): it is a *piece*, a batch
of its own that begins at a byte of the whole one, so that its keys have the same IDs as before. Out of the
stock nobody else can take from it; put back, it is stock as any other.

A record goes when its batch is spent, so that a KME keeps only what it may still need.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice, pairwise
from typing import Literal
from urllib.parse import quote

import msgspec

from openqci.core.errors import KeyUnavailable, PeerMisbehaved, invariant
from openqci.core.identifiers import KmeId, SaeId, StreamId
from openqci.core.keys import SecretBytes
from openqci.core.provenance import Provenance
from openqci.delivery.key_ids import BATCH_BYTES_MAX, BATCH_TAG_BITS, ID_SEED_BYTES
from openqci.keystore.ports import KmeView

Role = Literal["master", "slave"]

BATCH_KIND = "pair-batch"
QUEUE_KIND = "pair-queue"
EXPIRY_KIND = "pair-expiry"
STREAM_KIND = "stream-batch"
APART_KIND, PIECE_KIND = "pair-apart", "pair-piece"
WHOLE_KIND, OPENED_KIND = "pair-whole", "pair-opened"
"""The bytes of a pair's batches of which nothing was taken yet, and the others by name: a status must not
count ten thousand batches, and a key taken from an opened batch not write a total anew."""

ASIDE_KINDS = ("offer", "end-to-end")

QUEUE_PAGE = 8
"""Batches of a pair's list that are looked at before the whole of it is read."""

COUNTED_BATCHES_MAX = 8
"""Up to so many batches a status counts keys batch by batch; beyond, those of which nothing was taken yet are
taken together."""

KEY_BYTES_MIN = 8
"""The smallest key that is delivered; a rest below it holds none, and is destroyed with its batch."""


class KeyBatch(msgspec.Struct, frozen=True, omit_defaults=True):
    """One batch of end-to-end key as one KME knows it.

    ``id_seed`` (16 bytes, the same at all ends) makes key IDs unguessable; it is no key material.
    ``additional_slaves`` are the other slaves of a multicast batch, each of which has a copy of its own.
    ``expires_s`` is when this KME destroys what is left; 0 means never. A batch of an ETSI GS QKD 004 stream
    has its ``stream_id`` and begins at byte ``first_byte`` of it; it is in no pair's stock. ``legs`` are, at
    the master's KME, the slaves' KMEs that can be told what becomes of it; where there are none, nothing of
    it is given up before it expires.

    A ``piece`` other than 0 is a part of its batch at the master's KME, from byte ``base_bytes`` on. While it
    is set ``apart`` that names for whom.
    """

    batch_tag: int
    role: Role
    master_sae: SaeId
    slave_sae: SaeId
    stream: StreamId
    length_bytes: int
    id_seed: bytes
    provenance: Provenance
    created_s: float
    additional_slaves: tuple[SaeId, ...] = ()
    expires_s: float = 0.0
    stream_id: str = ""
    first_byte: int = 0
    legs: tuple[KmeId, ...] = ()
    piece: int = 0
    base_bytes: int = 0
    apart: str = ""

    def is_for(self, sae_id: SaeId) -> bool:
        """Tell whether an SAE is one of the slaves of these keys, and this is a slave's copy."""
        return self.role == "slave" and sae_id in (self.slave_sae, *self.additional_slaves)

    def is_copy_of(self, sae_id: SaeId, master_sae: SaeId) -> bool:
        """Tell whether this copy is that SAE's own, of keys that it shares with this master."""
        return self.role == "slave" and (self.slave_sae, self.master_sae) == (sae_id, master_sae)


class TakenKey(msgspec.Struct, frozen=True):
    """A key, or a run of keys, taken at its master: where in the whole batch it lay, and its bytes."""

    batch: KeyBatch
    offset_bytes: int
    key: SecretBytes


@dataclass(frozen=True)
class RestRule:
    """What becomes of the end of a batch that is too short for a key.

    Who takes keys leaves, or passes over, what is shorter than one of them. If that is also shorter than
    ``below_bytes``, a key of the size that applications get unless they ask for another, it is of no use to
    anybody: ``give_up(view, batch, offset_bytes, length_bytes)`` destroys it, here and where its copies are.
    """

    below_bytes: int
    give_up: Callable[[KmeView, KeyBatch, int, int], None]


def batch_stream(batch_tag: int, role: Role, copy_of: SaeId | None = None) -> StreamId:
    """Return the stream of a batch at the KME of its master or its slave.

    Two slaves of a multicast batch may be at one KME: ``copy_of`` names the one whose copy it is.
    """
    suffix = f"/{quote(copy_of, safe='')}" if copy_of else ""
    return StreamId(f"pair/{batch_tag:010x}/{role}{suffix}")


def store_batch(view: KmeView, batch: KeyBatch, key: SecretBytes) -> None:
    """Put a batch into the stock of its pair at one KME. The caller wipes ``key``.

    Raises PeerMisbehaved if this KME has already had a batch of that tag: the other end must draw another.
    """
    invariant(0 <= batch.batch_tag < 1 << BATCH_TAG_BITS, "a batch tag has 40 bits")
    invariant(len(key) == batch.length_bytes, "a batch has the length that its record says")
    invariant(0 < len(key) <= BATCH_BYTES_MAX, "every byte of a batch can be named by a key ID")
    invariant(len(batch.id_seed) == ID_SEED_BYTES, "an ID seed has 16 bytes")
    if view.record(BATCH_KIND, _batch_key(batch)) is not None or view.append(batch.stream, key).offset_bytes:
        raise PeerMisbehaved(f"batch tag {batch.batch_tag:010x} was already used at {view.kme}")
    view.put_record(BATCH_KIND, _batch_key(batch), msgspec.json.encode(batch))
    if batch.stream_id:
        view.put_record(STREAM_KIND, _stream_key(batch), _batch_key(batch).encode())
    elif batch.role == "master":
        view.put_record(QUEUE_KIND, _queue_key(batch), _listed(batch))
        _count_whole(view, batch, batch.length_bytes)
    if batch.expires_s:
        view.put_record(EXPIRY_KIND, _expiry_key(batch), _batch_key(batch).encode())


def tag_was_used(view: KmeView, batch_tag: int, role: Role, copy_of: SaeId | None = None) -> bool:
    """Tell whether this KME has ever had a batch of this tag: spent or not, its stream is not begun again.

    After a million batches it is as likely as not that a tag of 40 random bits has come twice.
    """
    stream = batch_stream(batch_tag, role, copy_of)
    return next((name for name, _ in view.streams(stream)), None) == stream


def aside_stream(kind: str, batch_tag: int) -> StreamId:
    """Return where the key of a batch lies at its master's KME until it is agreed on.

    ``kind`` says how that is done: ``offer`` to neighbours, ``end-to-end`` by relays.
    """
    return StreamId(f"{kind}/{batch_tag:010x}")


def tag_was_drawn(view: KmeView, batch_tag: int) -> bool:
    """Tell whether this KME, as the master's, has ever begun a batch of this tag, agreed on or not.

    One answer for all kinds of batches: two of one tag would meet in the master's stock.
    """
    names = [batch_stream(batch_tag, "master"), *(aside_stream(kind, batch_tag) for kind in ASIDE_KINDS)]
    return any(next((name for name, _ in view.streams(each)), None) == each for each in names)


def batch_of(view: KmeView, batch_tag: int, role: Role) -> KeyBatch | None:
    """Return the batch of this tag that the KME holds in this role, or None."""
    body = view.record(BATCH_KIND, f"{role}/{batch_tag:010x}")
    return msgspec.json.decode(body, type=KeyBatch) if body is not None else None


def slave_copies(view: KmeView, batch_tag: int) -> list[KeyBatch]:
    """Return the batches of this tag that the KME holds for slaves: one, or one for each slave here."""
    copies = view.records(BATCH_KIND, f"slave/{batch_tag:010x}")
    return [msgspec.json.decode(body, type=KeyBatch) for _, body in copies]


def stream_batches(view: KmeView, stream_id: str) -> list[KeyBatch]:
    """Return what this KME holds of an ETSI GS QKD 004 stream, in order of place."""
    keys = [key.decode() for _, key in view.records(STREAM_KIND, f"{stream_id}/")]
    bodies = [view.record(BATCH_KIND, key) for key in keys]
    return [msgspec.json.decode(body, type=KeyBatch) for body in bodies if body is not None]


def stream_batch_keys(view: KmeView) -> list[tuple[str, str]]:
    """Return (stream ID, name for :func:`batch_by_key`) of every batch of a stream at this KME."""
    return [(key.rpartition("/")[0], batch.decode()) for key, batch in view.records(STREAM_KIND)]


def batch_by_key(view: KmeView, batch_key: str) -> KeyBatch | None:
    """Return the batch of a name that :func:`stream_batch_keys` gave."""
    body = view.record(BATCH_KIND, batch_key)
    return msgspec.json.decode(body, type=KeyBatch) if body is not None else None


def batches_in_stock(
    view: KmeView, master: SaeId, slave: SaeId, additional: tuple[SaeId, ...] = ()
) -> Iterator[KeyBatch]:
    """Return the batches that a master at this KME can still spend, the oldest first."""
    for listed in _listed_in_stock(view, _pair_prefix(master, slave, additional)):
        batch = batch_by_key(view, _listed_key(listed))
        invariant(batch is not None, "a batch in a pair's list has a record")
        if batch is not None:
            yield batch


def stock_bytes(view: KmeView, master: SaeId, slave: SaeId, additional: tuple[SaeId, ...] = ()) -> int:
    """Return how much key the master's KME has for a pair, or for a pair and additional slaves."""
    pair = _pair_prefix(master, slave, additional)
    whole = view.record(WHOLE_KIND, pair)
    opened = (_left_bytes(view, listed) for _, listed in view.records(OPENED_KIND, pair))
    return int.from_bytes(whole or b"", "big") + sum(opened)


def stock_keys(
    view: KmeView, master: SaeId, slave: SaeId, key_bytes: int, additional: tuple[SaeId, ...] = ()
) -> int:
    """Return how many keys of a size the master's KME can deliver.

    A key never spans two batches, so a rest that is too short for one counts nothing. In a large stock that
    is not looked at in batches of which nothing was taken yet: if their length is no multiple of the size,
    the count is too high by less than one key a batch.
    """
    pair = _pair_prefix(master, slave, additional)
    listed = [each for _, each in view.records(QUEUE_KIND, pair, COUNTED_BATCHES_MAX + 1)]
    whole_bytes = 0
    if len(listed) > COUNTED_BATCHES_MAX:
        whole_bytes = int.from_bytes(view.record(WHOLE_KIND, pair) or b"", "big")
        listed = [each for _, each in view.records(OPENED_KIND, pair)]
    return whole_bytes // key_bytes + sum(_left_bytes(view, each) // key_bytes for each in listed)


def take_keys(
    view: KmeView,
    master: SaeId,
    slave: SaeId,
    count: int,
    key_bytes: int,
    additional: tuple[SaeId, ...] = (),
    will_do: Callable[[KeyBatch], bool] = lambda batch: True,
    rests: RestRule | None = None,
) -> list[TakenKey]:
    """Take keys from the front of the pair's batches, oldest first, those of each batch in one run.

    They are erased here. Only batches that ``will_do`` are looked at. Raises KeyUnavailable, before anything
    is taken, if there are fewer than ``count``.
    """
    batches = filter(will_do, batches_in_stock(view, master, slave, additional))
    return take_runs(view, batches, count, key_bytes, rests)


def take_runs(
    view: KmeView, batches: Iterator[KeyBatch], count: int, key_bytes: int, rests: RestRule | None = None
) -> list[TakenKey]:
    """Take ``count`` keys from the front of batches, those of each batch in one run; they are erased here.

    Raises KeyUnavailable, before anything is taken, if there are fewer.
    """
    plan = _plan(batches, view, count, key_bytes)
    taken: list[TakenKey] = []
    for batch, keys in plan:
        if keys:
            _open(view, batch)
            offset, run = view.take_next(batch.stream, keys * key_bytes)
            taken.append(TakenKey(batch, batch.base_bytes + offset, run))
        _end_if_short(view, batch, key_bytes, rests)
    return taken


def set_apart(view: KmeView, run: TakenKey, apart: str) -> KeyBatch:
    """Keep a run that was taken from the stock as a piece for somebody. Wipes the run."""
    number = int(view.record(PIECE_KIND, "last") or b"0") + 1
    view.put_record(PIECE_KIND, "last", str(number).encode())
    piece = msgspec.structs.replace(
        run.batch, length_bytes=len(run.key), piece=number, base_bytes=run.offset_bytes, apart=apart
    )
    piece = msgspec.structs.replace(piece, stream=_listed_stream(_listed(piece)))
    with run.key as key:
        placed = view.append(piece.stream, key)
    invariant(placed.offset_bytes == 0, "a piece has a number of its own")
    view.put_record(BATCH_KIND, _batch_key(piece), msgspec.json.encode(piece))
    view.put_record(APART_KIND, _apart_key(piece), _listed(piece))
    if piece.expires_s:
        view.put_record(EXPIRY_KIND, _expiry_key(piece), _batch_key(piece).encode())
    return piece


def pieces_apart(view: KmeView, apart: str) -> Iterator[KeyBatch]:
    """Return the pieces that are set apart for somebody, in the order in which they were."""
    for _, listed in list(view.records(APART_KIND, f"{apart}/")):
        piece = batch_by_key(view, _listed_key(listed))
        invariant(piece is not None, "a piece that is set apart has a record")
        if piece is not None:
            yield piece


def put_back(view: KmeView, piece: KeyBatch) -> None:
    """Put a piece into the stock of its pair: before all that is as old, so that pieces do not pile up."""
    view.drop_record(APART_KIND, _apart_key(piece))
    piece = msgspec.structs.replace(piece, apart="")
    view.put_record(BATCH_KIND, _batch_key(piece), msgspec.json.encode(piece))
    for kind in (QUEUE_KIND, OPENED_KIND):
        view.put_record(kind, _queue_key(piece), _listed(piece))


def take_range(view: KmeView, batch: KeyBatch, offset_bytes: int, length_bytes: int) -> SecretBytes:
    """Take a range of a batch at its slave; it is erased here. KeyUnavailable if it was taken before."""
    key = view.take(batch.stream, offset_bytes, length_bytes)
    _forget_if_spent(view, batch)
    return key


def destroy_batch(view: KmeView, batch: KeyBatch) -> None:
    """Erase what is left of a batch at this KME and forget it."""
    if batch.stream_id:
        view.drop_record(STREAM_KIND, _stream_key(batch))
    elif batch.apart:
        view.drop_record(APART_KIND, _apart_key(batch))
    elif batch.role == "master":
        _open(view, batch)
        view.drop_record(OPENED_KIND, _queue_key(batch))
        view.drop_record(QUEUE_KIND, _queue_key(batch))
    view.destroy(batch.stream)
    if batch.expires_s:
        view.drop_record(EXPIRY_KIND, _expiry_key(batch))
    view.drop_record(BATCH_KIND, _batch_key(batch))


def keys_of_records(batch: KeyBatch) -> dict[str, str]:
    """Return the records that a batch in use has at its KME, by kind: what else names it but its stream."""
    names = {BATCH_KIND: _batch_key(batch)}
    if batch.stream_id:
        names[STREAM_KIND] = _stream_key(batch)
    elif batch.role == "master":
        names |= {QUEUE_KIND: _queue_key(batch), OPENED_KIND: _queue_key(batch)}
    if batch.expires_s:
        names[EXPIRY_KIND] = _expiry_key(batch)
    return names


def count_by_itself(view: KmeView, batch: KeyBatch) -> None:
    """Take a batch at its master out of the count of whole ones, if it is in there."""
    _open(view, batch)


def count_again(view: KmeView, batch: KeyBatch) -> None:
    """Count a batch at its master that was out of use: with the whole ones if it is whole, else by itself."""
    if view.stock_bytes(batch.stream) == batch.length_bytes:
        _count_whole(view, batch, batch.length_bytes)
    else:
        view.put_record(OPENED_KIND, _queue_key(batch), batch.batch_tag.to_bytes(5, "big"))


def destroy_expired(view: KmeView, now_s: float, batches_max: int = 256) -> list[tuple[KeyBatch, int]]:
    """Destroy batches whose time is over, at most ``batches_max``; return each with the bytes it had left."""
    expired: list[tuple[KeyBatch, int]] = []
    for key, batch_key in view.records(EXPIRY_KIND):
        if len(expired) == batches_max or int(key.partition("/")[0]) > int(now_s * 1e6):
            break
        body = view.record(BATCH_KIND, batch_key.decode())
        invariant(body is not None, "a batch that can expire has a record")
        if body is not None:
            batch = msgspec.json.decode(body, type=KeyBatch)
            expired.append((batch, view.stock_bytes(batch.stream)))
            destroy_batch(view, batch)
    return expired


def cut(run: SecretBytes, lengths_bytes: Sequence[int]) -> list[SecretBytes]:
    """Copy a run of key into keys of the given lengths; the caller wipes the run."""
    invariant(sum(lengths_bytes) == len(run), "a run is cut without a rest")
    ends = list(accumulate(lengths_bytes, initial=0))
    with memoryview(run.reveal()) as clear:
        return [SecretBytes(clear[start:end]) for start, end in pairwise(ends)]


def _plan(
    batches: Iterator[KeyBatch], view: KmeView, count: int, key_bytes: int
) -> list[tuple[KeyBatch, int]]:
    """Choose batches, oldest first, and the number of keys from each; a rest too short for one gives none."""
    plan: list[tuple[KeyBatch, int]] = []
    missing = count
    for batch in batches:
        keys = min(missing, view.stock_bytes(batch.stream) // key_bytes)
        plan.append((batch, keys))
        missing -= keys
        if not missing:
            return plan
    raise KeyUnavailable(
        "the stock of the pair is short",
        wanted_bytes=count * key_bytes,
        available_bytes=(count - missing) * key_bytes,
    )


def _listed_in_stock(view: KmeView, pair: str) -> Iterator[bytes]:
    """Return what a pair's list holds in order; most who ask need only the first few."""
    page = [listed for _, listed in view.records(QUEUE_KIND, pair, QUEUE_PAGE)]
    yield from page
    if len(page) == QUEUE_PAGE:
        rest = islice(view.records(QUEUE_KIND, pair), QUEUE_PAGE, None)
        yield from (listed for _, listed in rest)


def _listed(batch: KeyBatch) -> bytes:
    """Return how a batch or piece stands in lists at its master: its tag, and the number of a piece."""
    return batch.batch_tag.to_bytes(5, "big") + (batch.piece.to_bytes(6, "big") if batch.piece else b"")


def _listed_key(listed: bytes) -> str:
    """Return the name of the record of what stands in a list."""
    return f"master/{listed[:5].hex()}" + (f"/{int.from_bytes(listed[5:], 'big'):x}" if listed[5:] else "")


def _listed_stream(listed: bytes) -> StreamId:
    """Return the stream of what stands in a list: as of :func:`batch_stream`, and the number of a piece."""
    piece = f"/{int.from_bytes(listed[5:], 'big'):x}" if listed[5:] else ""
    return StreamId(f"pair/{listed[:5].hex()}/master{piece}")


def _left_bytes(view: KmeView, listed: bytes) -> int:
    return view.stock_bytes(_listed_stream(listed))


def _open(view: KmeView, batch: KeyBatch) -> None:
    """Count a batch by itself from now on, if it was whole until now: something is about to be taken.

    A piece always was.
    """
    if not batch.piece and view.stock_bytes(batch.stream) == batch.length_bytes:
        _count_whole(view, batch, -batch.length_bytes)
        view.put_record(OPENED_KIND, _queue_key(batch), _listed(batch))


def _count_whole(view: KmeView, batch: KeyBatch, change_bytes: int) -> None:
    """Keep the bytes that a pair has in whole batches at its master."""
    pair = _pair_prefix(batch.master_sae, batch.slave_sae, batch.additional_slaves)
    total = int.from_bytes(view.record(WHOLE_KIND, pair) or b"", "big") + change_bytes
    invariant(total >= 0, "a pair's whole batches hold no less than nothing")
    if total:
        view.put_record(WHOLE_KIND, pair, total.to_bytes(8, "big"))
    else:
        view.drop_record(WHOLE_KIND, pair)


def _forget_if_spent(view: KmeView, batch: KeyBatch) -> None:
    """Destroy a batch in which no key is left, at either end."""
    if view.stock_bytes(batch.stream) < KEY_BYTES_MIN:
        destroy_batch(view, batch)


def _end_if_short(view: KmeView, batch: KeyBatch, key_bytes: int, rests: RestRule | None) -> None:
    """Give up what is left of a batch at its master, if it is shorter than a key."""
    left = view.stock_bytes(batch.stream)
    if rests is None or not left or not batch.legs:
        _forget_if_spent(view, batch)
    elif left < max(KEY_BYTES_MIN, min(key_bytes, rests.below_bytes)):
        for offset, length in view.ranges(batch.stream):
            rests.give_up(view, batch, offset, length)


def _batch_key(batch: KeyBatch) -> str:
    if batch.role == "master":
        return _listed_key(_listed(batch))
    suffix = f"/{quote(batch.slave_sae, safe='')}" if batch.additional_slaves else ""
    return f"slave/{batch.batch_tag:010x}{suffix}"


def _queue_key(batch: KeyBatch) -> str:
    age = f"{int(batch.created_s * 1e6):020d}"
    prefix = _pair_prefix(batch.master_sae, batch.slave_sae, batch.additional_slaves)
    if batch.piece:
        return f"{prefix}{age}.{batch.batch_tag:010x}/{batch.piece:012x}"  # "." stands before "/"
    return f"{prefix}{age}/{batch.batch_tag:010x}"


def _apart_key(piece: KeyBatch) -> str:
    return f"{piece.apart}/{piece.piece:012x}"


def _expiry_key(batch: KeyBatch) -> str:
    return f"{int(batch.expires_s * 1e6):020d}/{_batch_key(batch)}"


def _stream_key(batch: KeyBatch) -> str:
    return f"{batch.stream_id}/{batch.first_byte:020d}"


def _pair_prefix(master: SaeId, slave: SaeId, additional: tuple[SaeId, ...] = ()) -> str:
    # An SAE ID may hold a slash or a plus; quoted, it cannot reach into another pair's list.
    slaves = "+".join(quote(each, safe="") for each in (slave, *sorted(additional)))
    return f"{quote(master, safe='')}/{slaves}/"
