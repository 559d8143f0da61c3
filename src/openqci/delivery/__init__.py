"""End-to-end key to application: ETSI GS QKD 014 as pure functions over one KME's rooms of the store.

:mod:`openqci.delivery.pair_stock` keeps the end-to-end key of each pair of SAEs,
:mod:`openqci.delivery.key_ids` names ranges of it, :mod:`openqci.delivery.etsi014` answers requests,
:mod:`openqci.delivery.directory` knows which SAE is enrolled where. HTTP and TLS are in ``openqci.services``.
"""

from openqci.delivery.directory import DIRECTORY, SaeRecord, enrol, enrolled_sae, enrolled_saes
from openqci.delivery.key_ids import BATCH_TAG_BITS
from openqci.delivery.pair_stock import KeyBatch, pair_stock_bytes, store_batch

__all__ = [
    "BATCH_TAG_BITS",
    "DIRECTORY",
    "KeyBatch",
    "SaeRecord",
    "enrol",
    "enrolled_sae",
    "enrolled_saes",
    "pair_stock_bytes",
    "store_batch",
]
