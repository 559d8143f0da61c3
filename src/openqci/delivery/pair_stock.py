"""Stocks of end-to-end key per pair of SAEs, agreed ahead of demand at both ends.

A batch is one relay's key: the same bytes at the KME of the master SAE, which cuts keys from it in order, and
at the KME of the slave SAE, which hands out the ranges that key IDs name. What was cut is erased at once
(see ``openqci.keystore.ledger``), so a key can be had once per party and never again.
"""

from collections.abc import Iterator
from typing import Literal

import msgspec

from openqci.core.identifiers import SaeId, StreamId
from openqci.core.keys import SecretBytes
from openqci.core.provenance import Provenance
from openqci.keystore.ports import KmeView

Role = Literal["master", "slave"]

SEPARATOR = "\n"
"""Parts the names in a record's key; no SAE ID can hold it."""


class KeyBatch(msgspec.Struct, frozen=True):
    """A batch at one end. ``id_seed`` makes key IDs unguessable; it is no key and tells nothing of one."""

    batch_tag: int
    role: Role
    master_sae: SaeId
    slave_sae: SaeId
    length_bytes: int
    id_seed: bytes
    provenance: Provenance
    made_at_s: float

    @property
    def stream(self) -> StreamId:
        return StreamId(f"pair/{self.batch_tag:010x}/{self.role}")

    @property
    def record_key(self) -> str:
        """Masters find batches by pair and age, slaves by the tag that a key ID names."""
        if self.role == "slave":
            return f"{self.batch_tag:010x}"
        return SEPARATOR.join(
            (self.master_sae, self.slave_sae, f"{self.made_at_s:018.6f}", f"{self.batch_tag:010x}")
        )


def record_kind(role: Role) -> str:
    return f"batch.{role}"


def store_batch(view: KmeView, batch: KeyBatch, key: SecretBytes) -> None:
    """Put a batch into this KME's stock; the key is wiped here once it is sealed in the store."""
    with key:
        view.append(batch.stream, key)
    view.put_record(record_kind(batch.role), batch.record_key, msgspec.json.encode(batch))


def master_batches(view: KmeView, master: str, slave: str) -> Iterator[KeyBatch]:
    """Return the batches from which the master SAE may draw keys for this slave, oldest first."""
    prefix = SEPARATOR.join((master, slave, ""))
    for _, body in view.records(record_kind("master"), prefix):
        yield msgspec.json.decode(body, type=KeyBatch)


def slave_batch(view: KmeView, batch_tag: int) -> KeyBatch | None:
    """Return the batch with this tag in which this KME serves the slave."""
    body = view.record(record_kind("slave"), f"{batch_tag:010x}")
    return None if body is None else msgspec.json.decode(body, type=KeyBatch)


def drop_batch(view: KmeView, batch: KeyBatch) -> None:
    """Forget a batch and erase what is left of it."""
    view.destroy(batch.stream)
    view.drop_record(record_kind(batch.role), batch.record_key)


def pair_stock_bytes(view: KmeView, master: str, slave: str) -> int:
    """Return how many bytes of end-to-end key the master SAE could draw now for this slave."""
    return sum(view.stock_bytes(batch.stream) for batch in master_batches(view, master, slave))
