"""How the KMEs of a master and of a slave far away come to hold the same batch of key.

The batch is shared over disjoint paths (:mod:`openqci.crypto.sharing`), each share brought by a relay of its
own (:mod:`openqci.relay`), and masked by ML-KEM (:mod:`openqci.crypto.hybrid`), as its order says. Nothing is
drawn from a generator: the first shares are link key, whatever else there is follows from them.

====================  ========================================================================================
at the origin         :func:`begin` spends link key, keeps the batch aside, returns the relays to start
                      :func:`share_confirmed` moves it into the master's stock once the target has it
                      :func:`share_failed`, :func:`give_up` destroy it and return the relays to void
at the target         :func:`share_arrived` keeps a share; with the last that is needed it stores the slave's
                      batch and returns the words that go back
                      :func:`withdraw`, :func:`release` end what waits, when the origin has given up or has it
====================  ========================================================================================

Each is a step inside one transaction of one node's rooms; all state between them is in records, key bytes in
streams alone. So a node may stop between any two. The shell sends what a step returns once it is durable,
and each step does nothing the second time: a share comes twice only if its pads were not spent, and what was
given up, confirmed or withdrawn is known.

*Never different keys* (I2). The word that the target sends is a one-time MAC, under a key that was shared as
the batch was, over the order and the batch. It holds also against nodes of all paths but one, who can add
what they like to the shares that they carry (:mod:`openqci.crypto.manipulation`); a KEM ciphertext that was
changed, or another KEM key, comes out the same way. *None lost that was confirmed* (I3): the word leaves the
target after its batch is durable. *Nothing left after giving up* (I4): the origin decides, in one
transaction, for one of the two; a void then destroys at the target what has come and what comes later.
"""

from openqci.delivery.end_to_end.legs import leg_at, legs_of
from openqci.delivery.end_to_end.order import (
    Confirmation,
    EndToEndOrder,
    HybridPolicy,
    KemPart,
    decode_order,
    encode_order,
    provenance_of,
    range_bytes,
    relay_of,
    share_order,
)
from openqci.delivery.end_to_end.origin import (
    BatchGivenUp,
    BatchReady,
    KeyBegun,
    KeyWanted,
    begin,
    give_up,
    open_orders,
    share_confirmed,
    share_failed,
)
from openqci.delivery.end_to_end.target import (
    DueKey,
    KemKeys,
    ShareDeclined,
    ShareKept,
    due_keys,
    forget_overdue,
    release,
    release_relay,
    settle_due,
    share_arrived,
    withdraw,
)

__all__ = [
    "BatchGivenUp",
    "BatchReady",
    "Confirmation",
    "DueKey",
    "EndToEndOrder",
    "HybridPolicy",
    "KemKeys",
    "KemPart",
    "KeyBegun",
    "KeyWanted",
    "ShareDeclined",
    "ShareKept",
    "begin",
    "decode_order",
    "due_keys",
    "encode_order",
    "forget_overdue",
    "give_up",
    "leg_at",
    "legs_of",
    "open_orders",
    "provenance_of",
    "range_bytes",
    "relay_of",
    "release",
    "release_relay",
    "settle_due",
    "share_arrived",
    "share_confirmed",
    "share_failed",
    "share_order",
    "withdraw",
]
