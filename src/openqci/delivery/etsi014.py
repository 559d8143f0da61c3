"""The three methods of ETSI GS QKD 014 V1.1.1 as functions: who may have which key, inside one transaction.

Each takes the rooms of the answering KME, the directory of applications, the caller's identity from its
certificate, the SAE ID of the path and the parsed request, and returns the answer or raises RequestRefused
with the standard's code and text. What a raised error had changed is undone by the transaction, so a
request is met whole or consumes nothing. No HTTP here: see ``openqci.services.kme_server``; parsing and
the data model are in :mod:`openqci.delivery.etsi014_model`.

One text answers every 401 (an unknown certificate, a foreign key), so that it tells nothing about keys.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from openqci.core.errors import KeyUnavailable, RequestRefused
from openqci.core.identifiers import KeyId, KmeId, SaeId
from openqci.core.keys import DeliveredKey, SecretBytes
from openqci.core.provenance import Provenance
from openqci.delivery.directory import PeerIdentity, SaeDirectory, SaeRecord
from openqci.delivery.etsi014_model import (
    KEY_SIZE_BITS,
    KEY_SIZE_BITS_MAX,
    KEY_SIZE_BITS_MIN,
    KEYS_NOT_FOUND,
    KEYS_PER_REQUEST_MAX,
    PROVENANCE_EXTENSION,
    SAE_ID_COUNT_MAX,
    Key,
    KeyContainer,
    KeyIdsRequest,
    KeyRequest,
    Status,
)
from openqci.delivery.key_ids import KeyPlace, batch_tag_of, decode_key_id, encode_key_id
from openqci.delivery.pair_stock import ROLES, KeyBatch, batch_of, cut, stock_keys, take_keys, take_range
from openqci.keystore.ports import KmeView

STORED_KEY_COUNT_MAX = 1_000_000
"""``max_key_count`` of Status: what a pair has beyond is not counted."""

RETRY_AFTER_S = 1


@dataclass(frozen=True)
class Delivery:
    """Keys on their way into an answer, in its order, with the provenance of each."""

    keys: tuple[DeliveredKey, ...]
    provenances: tuple[Provenance, ...]
    with_provenance: bool

    def container(self) -> KeyContainer:
        """Return the *Key container* over the live buffers: encode it, then :meth:`wipe`.

        One provenance for all keys stands in ``key_container_extension``; if the keys came by several
        relays, each key carries its own in ``key_extension``.
        """
        alike = all(provenance == self.provenances[0] for provenance in self.provenances)
        own = self.with_provenance and not alike
        return KeyContainer(
            keys=tuple(
                Key(
                    delivered.key_id,
                    delivered.key.reveal(),
                    {PROVENANCE_EXTENSION: provenance} if own else None,
                )
                for delivered, provenance in zip(self.keys, self.provenances, strict=True)
            ),
            key_container_extension=(
                {PROVENANCE_EXTENSION: self.provenances[0]} if self.with_provenance and alike else None
            ),
        )

    def wipe(self) -> None:
        """Forget the key bytes."""
        for delivered in self.keys:
            delivered.key.wipe()


def status(view: KmeView, directory: SaeDirectory, peer: PeerIdentity | None, slave_sae: SaeId) -> Status:
    """*Get status* (5.1): directional, the caller is the master."""
    master = enrolled_caller(directory, view.kme, peer)
    slave = slave_of(directory, master, slave_sae)
    stored = stock_keys(view, master.sae_id, slave.sae_id, KEY_SIZE_BITS // 8)
    return Status(
        source_KME_ID=view.kme,
        target_KME_ID=slave.kme_id,
        master_SAE_ID=master.sae_id,
        slave_SAE_ID=slave.sae_id,
        key_size=KEY_SIZE_BITS,
        stored_key_count=min(stored, STORED_KEY_COUNT_MAX),
        max_key_count=STORED_KEY_COUNT_MAX,
        max_key_per_request=KEYS_PER_REQUEST_MAX,
        max_key_size=KEY_SIZE_BITS_MAX,
        min_key_size=KEY_SIZE_BITS_MIN,
        max_SAE_ID_count=SAE_ID_COUNT_MAX,
    )


def get_key(
    view: KmeView, directory: SaeDirectory, peer: PeerIdentity | None, slave_sae: SaeId, request: KeyRequest
) -> Delivery:
    """*Get key* (5.2): new keys for the calling master, erased here as they leave.

    Raises RequestRefused, or KeyUnavailable if the stock is short now (:func:`insufficient_key` makes the
    503 of it, once nobody waits any longer).
    """
    master = enrolled_caller(directory, view.kme, peer)
    slave = slave_of(directory, master, slave_sae)
    taken = take_keys(view, master.sae_id, slave.sae_id, request.number, request.size_bits // 8)
    return Delivery(
        keys=tuple(
            DeliveredKey(
                encode_key_id(one.batch.id_seed, one.batch.batch_tag, one.offset_bytes, len(one.key)), one.key
            )
            for one in taken
        ),
        provenances=tuple(one.batch.provenance for one in taken),
        with_provenance=request.with_provenance,
    )


def get_key_with_key_ids(
    view: KmeView,
    directory: SaeDirectory,
    peer: PeerIdentity | None,
    master_sae: SaeId,
    request: KeyIdsRequest,
) -> Delivery:
    """*Get key with key IDs* (5.3): the slave's copies, erased here as they leave, in request order.

    Raises RequestRefused: 401 if any of the keys was made for another slave than the caller, 400 with the
    fixed message if any is unknown here, was delivered before, or is another master's.
    """
    slave = enrolled_caller(directory, view.kme, peer)
    named = [_named_key(view, key_id) for key_id in request.key_ids]
    if any(
        one is not None and (one.batch.slave_sae, one.batch.role) != (slave.sae_id, "slave") for one in named
    ):
        raise unauthorised()
    found = [one for one in named if one is not None and one.batch.master_sae == master_sae]
    if len(found) < len(named):
        raise RequestRefused(400, KEYS_NOT_FOUND)
    return Delivery(
        keys=_take_named(view, found),
        provenances=tuple(one.batch.provenance for one in found),
        with_provenance=request.with_provenance,
    )


def enrolled_caller(directory: SaeDirectory, kme: KmeId, peer: PeerIdentity | None) -> SaeRecord:
    """Return the caller's record; 401 unless it is enrolled at this KME with this certificate."""
    record = directory.sae(peer.sae_id) if peer is not None else None
    if (
        peer is None
        or record is None
        or record.kme_id != kme
        or record.certificate_sha256 not in ("", peer.certificate_sha256)
    ):
        raise unauthorised()
    return record


def slave_of(directory: SaeDirectory, master: SaeRecord, slave_sae: SaeId) -> SaeRecord:
    """Return the slave's record; 400 if a key with it makes no sense."""
    slave = directory.sae(slave_sae)
    if slave is None:
        raise RequestRefused(400, "the slave_SAE_ID is not known in this network")
    if slave.sae_id == master.sae_id:
        raise RequestRefused(400, "the slave_SAE_ID is the caller's own: a key is for two SAEs")
    if slave.kme_id == master.kme_id:
        raise RequestRefused(
            400, "the slave SAE is at the same KME as the caller: no QKD link lies between them"
        )
    return slave


def unauthorised() -> RequestRefused:
    """Return the one refusal for callers without a right, whatever the reason."""
    return RequestRefused(401, "the caller is not authorised for this request at this KME")


def insufficient_key(shortage: KeyUnavailable, hopeless: str | None = None) -> RequestRefused:
    """Return the 503 for a stock that is short; ``hopeless`` says why waiting will not help."""
    details: tuple[dict[str, object], ...] = (
        {"requested_bits": 8 * shortage.wanted_bytes},
        {"available_bits": 8 * shortage.available_bytes},
    )
    if hopeless is not None:
        return RequestRefused(503, "insufficient key material", (*details, {"reason": hopeless}))
    return RequestRefused(503, "insufficient key material", details, {"Retry-After": str(RETRY_AFTER_S)})


@dataclass(frozen=True)
class _NamedKey:
    """A genuine key ID with the batch and the place that it names."""

    key_id: KeyId
    batch: KeyBatch
    place: KeyPlace

    def is_for(self, sae_id: SaeId) -> bool:
        return self.batch.role == "slave" and self.batch.slave_sae == sae_id


def _named_key(view: KmeView, key_id: KeyId) -> _NamedKey | None:
    for role in ROLES:
        batch = batch_of(view, batch_tag_of(key_id), role)
        place = decode_key_id(batch.id_seed, key_id) if batch is not None else None
        if batch is not None and place is not None:
            return _NamedKey(key_id, batch, place)
    return None


def _take_named(view: KmeView, named: Sequence[_NamedKey]) -> tuple[DeliveredKey, ...]:
    """Take the keys; neighbours are taken together, since every cut seals the rest of a segment anew."""
    keys: dict[KeyId, SecretBytes] = {}
    try:
        for run in _runs(sorted(named, key=lambda one: (one.batch.batch_tag, one.place))):
            lengths_bytes = [one.place.length_bytes for one in run]
            with take_range(view, run[0].batch, run[0].place.offset_bytes, sum(lengths_bytes)) as together:
                keys.update(zip((one.key_id for one in run), cut(together, lengths_bytes), strict=True))
    except KeyUnavailable:
        for key in keys.values():
            key.wipe()
        raise RequestRefused(400, KEYS_NOT_FOUND) from None
    return tuple(DeliveredKey(one.key_id, keys[one.key_id]) for one in named)


def _runs(named: Iterable[_NamedKey]) -> list[list[_NamedKey]]:
    """Group keys, sorted by place, that lie one right after the other in the same batch."""
    runs: list[list[_NamedKey]] = []
    for one in named:
        last = runs[-1][-1] if runs else None
        if (
            last is not None
            and last.batch.batch_tag == one.batch.batch_tag
            and sum(last.place) == one.place.offset_bytes
        ):
            runs[-1].append(one)
        else:
            runs.append([one])
    return runs
