"""How a key that crosses borders enters the stock at either end, and how it leaves again if it is voided.

At a target's KME it is there before ``relayed`` is said; at its origin it enters the master's stock only
then. A value that says it is a batch becomes a batch of its pair, any other a named key.
"""

from dataclasses import replace

import msgspec

from openqci.core.errors import PeerMisbehaved
from openqci.core.identifiers import SaeId
from openqci.core.keys import SecretBytes, wiped
from openqci.delivery import named_keys
from openqci.delivery.border_extensions import (
    BATCH_CONTROL_BYTES,
    BatchDocument,
    batch_document,
    check_confirmation,
    confirmation,
    key_document,
    open_batch,
    provenance_of,
    with_confirmation,
    with_key_document,
)
from openqci.delivery.etsi020_rules import KeysReleased, Timing
from openqci.delivery.named_keys import NamedKey
from openqci.delivery.pair_stock import (
    KeyBatch,
    Role,
    batch_of,
    batch_stream,
    destroy_batch,
    store_batch,
    tag_was_used,
)
from openqci.delivery.transfers import Transfer
from openqci.keystore.ports import KmeView


def batch_key_bytes(value: SecretBytes) -> int:
    """Return how much key there is in a value that is a batch."""
    return len(value) - BATCH_CONTROL_BYTES


def store_at_target(
    view: KmeView, transfer: Transfer, value: SecretBytes, domain: str, now_s: float, keep_s: float
) -> bytes:
    """Put a key into the stock of its targets here; return the extension that acknowledges it.

    Raises PeerMisbehaved, before anything is stored, if the key cannot be kept. The caller wipes ``value``.
    """
    document = key_document(transfer.optional)
    expires_s = (document.expires_s if document is not None else 0.0) or now_s + keep_s
    if expires_s <= now_s:
        raise PeerMisbehaved("the key had expired when it came")
    told = with_key_document(transfer.extension, document) if document is not None else transfer.extension
    batch = _batch_in(transfer, value)
    if batch is None:
        _store_named(view, transfer, value, domain, now_s, expires_s)
        return told
    return with_confirmation(told, _store_batch(view, transfer, batch, value, domain, now_s, expires_s))


def release_at_origin(
    view: KmeView, transfer: Transfer, value: SecretBytes, domain: str, now_s: float, timing: Timing
) -> KeysReleased:
    """Put a key that its targets have into the master's stock. The caller wipes ``value``.

    Raises PeerMisbehaved, before anything is stored, if a batch is not confirmed by the MAC of its bytes.
    """
    own = key_document(transfer.optional)
    # What came back knows the whole way; networks that drop it leave what we knew ourselves.
    made = provenance_of(key_document(transfer.ack_key) or own, domain, transfer.received_s)
    expires_s = own.expires_s if own is not None else 0.0
    first, *others = transfer.targets
    batch = _batch_in(transfer, value)
    released = KeysReleased(transfer.initiator, first, tuple(others), len(value))
    if batch is None:
        named = NamedKey(
            transfer.key_id,
            "master",
            transfer.initiator,
            first,
            batch_stream(0, "master"),  # its stream and place are found when it is stored
            0,
            len(value),
            made,
            own.created_s if own is not None else now_s,
            _origin_expiry(expires_s, timing.collect_s, now_s),
            tuple(others),
        )
        named_keys.store(view, named, value)
        return released
    key, id_seed, confirmation_key = open_batch(value, batch)
    with wiped(key, confirmation_key):
        expected = confirmation(transfer.key_id, transfer.initiator, first, batch, key, confirmation_key)
        check_confirmation(transfer.ack_key, expected)
        kept = _batch(transfer, batch, "master", first, id_seed)
        kept = msgspec.structs.replace(
            kept, provenance=made, expires_s=_origin_expiry(expires_s, timing.collect_s, now_s)
        )
        store_batch(view, kept, key)
    return replace(released, key_bytes=batch.key_bytes)


def withdraw(view: KmeView, transfer: Transfer, now_s: float, *, at_origin: bool) -> bool:
    """Destroy what a transfer has left in a stock here.

    False, and nothing is destroyed, if any of it was given out. What has expired is destroyed anyhow.
    """
    document = key_document(transfer.optional)
    if document is not None and 0 < document.expires_s <= now_s:
        return True
    batch = batch_document(transfer.optional) if len(transfer.targets) == 1 else None
    if batch is not None and batch.value_bytes == transfer.value_bytes:
        return _withdraw_batch(view, batch, "master" if at_origin else "slave")
    wanted = 1 if at_origin else len(transfer.targets)
    role = "master" if at_origin else "slave"
    found = [each for each in named_keys.copies(view, transfer.key_id) if each.role == role]
    if len(found) < wanted:
        return False
    for named in found:
        named_keys.destroy(view, named)
    return True


def _batch_in(transfer: Transfer, value: SecretBytes) -> BatchDocument | None:
    """Return the batch that a value is, or None if it is one key."""
    document = batch_document(transfer.optional)
    alone = len(transfer.targets) == 1
    return document if document is not None and alone and document.value_bytes == len(value) else None


def _store_named(
    view: KmeView, transfer: Transfer, value: SecretBytes, domain: str, now_s: float, expires_s: float
) -> None:
    if named_keys.copies(view, transfer.key_id):
        raise PeerMisbehaved(f"there is a key {transfer.key_id} at {view.kme} already")
    document = key_document(transfer.optional)
    for target in transfer.targets:
        named = NamedKey(
            transfer.key_id,
            "slave",
            transfer.initiator,
            target,
            batch_stream(0, "slave"),  # its stream and place are found when it is stored
            0,
            len(value),
            provenance_of(document, domain, now_s),
            document.created_s if document is not None else now_s,
            expires_s,
            tuple(each for each in transfer.targets if each != target),
        )
        named_keys.store(view, named, value)


def _store_batch(
    view: KmeView,
    transfer: Transfer,
    document: BatchDocument,
    value: SecretBytes,
    domain: str,
    now_s: float,
    expires_s: float,
) -> bytes:
    """Store a batch for its slave; return the confirmation."""
    if tag_was_used(view, document.tag, "slave") or batch_of(view, document.tag, "slave") is not None:
        raise PeerMisbehaved(f"batch tag {document.batch_tag} was already used at {view.kme}")
    (target,) = transfer.targets
    with SecretBytes(value.reveal()) as copy:
        key, id_seed, confirmation_key = open_batch(copy, document)
    with wiped(key, confirmation_key):
        batch = _batch(transfer, document, "slave", target, id_seed)
        made = provenance_of(key_document(transfer.optional), domain, now_s)
        store_batch(view, msgspec.structs.replace(batch, provenance=made, expires_s=expires_s), key)
        return confirmation(transfer.key_id, transfer.initiator, target, document, key, confirmation_key)


def _batch(
    transfer: Transfer, document: BatchDocument, role: Role, target: SaeId, id_seed: bytes
) -> KeyBatch:
    known = key_document(transfer.optional)
    return KeyBatch(
        document.tag,
        role,
        transfer.initiator,
        target,
        batch_stream(document.tag, role),
        document.key_bytes,
        id_seed,
        provenance_of(known, "", transfer.received_s),
        known.created_s if known is not None else transfer.received_s,
    )


def _withdraw_batch(view: KmeView, document: BatchDocument, role: Role) -> bool:
    batch = batch_of(view, document.tag, role)
    if batch is None or view.stock_bytes(batch.stream) < batch.length_bytes:
        return False
    destroy_batch(view, batch)
    return True


def _origin_expiry(expires_s: float, collect_s: float, now_s: float) -> float:
    """Return when a key expires at its origin: early enough that it can still be collected at its target."""
    if not expires_s:
        return 0.0
    return max(expires_s - min(collect_s, (expires_s - now_s) / 2), now_s)
