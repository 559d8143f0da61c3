"""Delivery: end-to-end key that waits at both ends becomes keys that applications fetch.

Stage 7 of a key's way. Relay brings *batches*: the same bytes at the master's and at the slave's KME
(:mod:`~openqci.delivery.pair_stock`). A key is a range of a batch, and its ID says which one to the two KMEs
and to nobody else (:mod:`~openqci.delivery.key_ids`), so no message passes between the KMEs when a key is
asked for. :mod:`~openqci.delivery.etsi014` decides what a caller may have;
:mod:`~openqci.delivery.directory` knows the applications.

Keys that cross the border of a network come and go by :mod:`~openqci.delivery.etsi020`; those that bring
their own UUID are in :mod:`~openqci.delivery.named_keys`.

Promises: each key goes to one master and one slave, once each, with identical bytes; a request is met whole
or consumes nothing; no answer, error or record holds key material beyond the keys asked for. It is no server:
sockets, TLS and waiting are in ``openqci.services.kme`` and ``openqci.services.kme_server``.
"""

from openqci.delivery.directory import PeerIdentity, SaeDirectory, SaeRecord
from openqci.delivery.key_ids import BATCH_TAG_BITS, decode_key_id, encode_key_id
from openqci.delivery.pair_stock import KeyBatch, stock_bytes, store_batch

__all__ = [
    "BATCH_TAG_BITS",
    "KeyBatch",
    "PeerIdentity",
    "SaeDirectory",
    "SaeRecord",
    "decode_key_id",
    "encode_key_id",
    "stock_bytes",
    "store_batch",
]
