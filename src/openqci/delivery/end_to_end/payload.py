"""What the shares of a batch make, at either end: key, seed of the key IDs, and the word about both."""

import msgspec

from openqci.core.identifiers import SaeId
from openqci.core.keys import SecretBytes
from openqci.crypto.hybrid import hybridise
from openqci.crypto.manipulation import MANIPULATION_KEY_BYTES, manipulation_tag
from openqci.delivery.end_to_end.order import Confirmation, EndToEndOrder, context_of, provenance_of
from openqci.delivery.key_ids import ID_SEED_BYTES
from openqci.delivery.pair_stock import KeyBatch, Role, batch_stream


def masked(order: EndToEndOrder, payload: SecretBytes, secret: SecretBytes | None) -> SecretBytes:
    """Put the mask of the KEM's secret over all that the shares have made, if there is one."""
    if order.kem is None or secret is None:
        return payload
    return hybridise(payload, secret, context_of(order, order.kem))


def opened(payload: SecretBytes) -> tuple[SecretBytes, bytes, SecretBytes]:
    """Split what the shares make into key, seed of the key IDs, and the confirmation's key."""
    with payload:
        key = payload.take(len(payload) - ID_SEED_BYTES - MANIPULATION_KEY_BYTES)
        with payload.take(ID_SEED_BYTES) as id_seed:
            return key, bytes(id_seed.reveal()), payload.take(MANIPULATION_KEY_BYTES)


def word_of(
    order: EndToEndOrder, cargo: bytes, key: SecretBytes, id_seed: bytes, mac_key: SecretBytes
) -> bytes:
    """Return the target's word that it holds this key by this order."""
    text = msgspec.msgpack.encode(("openqci end-to-end confirmation v1", cargo))
    return msgspec.msgpack.encode(
        Confirmation(order.batch_tag, manipulation_tag(mac_key.reveal(), text, key.reveal(), id_seed))
    )


def batch_by(order: EndToEndOrder, role: Role, id_seed: bytes, collect_s: float) -> KeyBatch:
    expires_s = max(order.expires_s - collect_s, order.created_s) if order.expires_s else 0.0
    return KeyBatch(
        batch_tag=order.batch_tag,
        role=role,
        master_sae=SaeId(order.master_sae),
        slave_sae=SaeId(order.slave_sae),
        stream=batch_stream(order.batch_tag, role),
        length_bytes=order.key_bytes,
        id_seed=id_seed,
        provenance=provenance_of(order),
        created_s=order.created_s,
        expires_s=expires_s,
        stream_id=order.stream_id,
        first_byte=order.first_byte,
    )


def tag_text(batch_tag: int) -> str:
    return f"{batch_tag:010x}"
