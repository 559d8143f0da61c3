"""Batches that are held: they lie where they lay, and nobody gets a key of them until a person has ruled.

A link under suspicion (``openqci.control.reaction``) has batches held that were relayed over it. A held
batch is in no pair's stock and answers to no key ID; its bytes stay in their stream, sealed, with the
record that a release puts back. Each function works at one KME, in the caller's transaction, for every copy
of a batch there.
"""

from collections.abc import Iterator

import msgspec

from openqci.delivery.pair_stock import (
    BATCH_KIND,
    EXPIRY_KIND,
    OPENED_KIND,
    QUEUE_KIND,
    STREAM_KIND,
    KeyBatch,
    batch_of,
    count_again,
    count_by_itself,
    keys_of_records,
    slave_copies,
)
from openqci.keystore.ports import KmeView

HELD_KIND = "pair-held"


def hold_batch(view: KmeView, batch_tag: int) -> int:
    """Take a batch out of use at this KME; return how many bytes of it are held."""
    held_bytes = 0
    for batch in _copies(view, batch_tag):
        names = keys_of_records(batch)
        if batch.role == "master" and not batch.stream_id:
            count_by_itself(view, batch)
        for kind, key in names.items():
            view.drop_record(kind, key)
        view.put_record(HELD_KIND, names[BATCH_KIND], msgspec.json.encode(batch))
        held_bytes += view.stock_bytes(batch.stream)
    return held_bytes


def release_batch(view: KmeView, batch_tag: int) -> int:
    """Put a held batch back into use at this KME; return how many bytes of it are left."""
    released_bytes = 0
    for batch in held_batches(view, batch_tag):
        names = keys_of_records(batch)
        view.drop_record(HELD_KIND, names[BATCH_KIND])
        named = names[BATCH_KIND].encode()
        values = {
            BATCH_KIND: msgspec.json.encode(batch),
            QUEUE_KIND: batch.batch_tag.to_bytes(5, "big"),
            STREAM_KIND: named,
            EXPIRY_KIND: named,
        }
        for kind in names.keys() & values.keys():
            view.put_record(kind, names[kind], values[kind])
        if OPENED_KIND in names:
            count_again(view, batch)
        released_bytes += view.stock_bytes(batch.stream)
    return released_bytes


def destroy_held(view: KmeView, batch_tag: int) -> int:
    """Erase what is left of a held batch at this KME; return how many bytes that were."""
    destroyed_bytes = 0
    for batch in held_batches(view, batch_tag):
        destroyed_bytes += view.stock_bytes(batch.stream)
        view.destroy(batch.stream)
        view.drop_record(HELD_KIND, keys_of_records(batch)[BATCH_KIND])
    return destroyed_bytes


def held_batches(view: KmeView, batch_tag: int | None = None) -> list[KeyBatch]:
    """Return the batches that are held at this KME, or the copies of one of them."""
    held = [msgspec.json.decode(body, type=KeyBatch) for _, body in view.records(HELD_KIND)]
    return [batch for batch in held if batch_tag in (None, batch.batch_tag)]


def _copies(view: KmeView, batch_tag: int) -> Iterator[KeyBatch]:
    master = batch_of(view, batch_tag, "master")
    if master is not None:
        yield master
    yield from slave_copies(view, batch_tag)
