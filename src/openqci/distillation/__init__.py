"""Raw key to secret key: two parties, Alice and Bob, over an authenticated classical channel.

Each end is a sans-IO session that knows its own record alone::

    start(now_s), messages_to_send(), receive(data, now_s), next_event(), deadline_s(), advance(now_s)

and ends with exactly one event: :class:`KeyDistilled` after the peer's authenticated confirmation, or
:class:`DistillationAborted`, after which no key is left. The way through a block:

=====================  =====================================================  =========================
stage                  what happens                                           read
=====================  =====================================================  =========================
sifting                Bob's slots and bases, Alice's keep mask, intensities  ``sifting``
error correction       Cascade on the Z bits; X bits are only for the test    ``reconciliation.cascade``
verification           a universal hash under a key drawn afterwards          ``crypto.universal_hash``
estimation             public counts and the leak ledger give the length      ``estimation``, ``leak``
privacy amplification  Toeplitz hash, seed sent after acceptance              ``amplification``
confirmation           the key is pending until both ends have confirmed      ``end``, ``events``
=====================  =====================================================  =========================

Every message is authenticated with one-time keys (``channel``); the wire format is in ``messages``.

*Promises.* Equal keys at both ends or none, but for the last-message problem, which is named
(:attr:`DistillationAborted.peer_may_have_key`). Every disclosed bit is booked by its sender and paid for.
A message that was changed, lost, doubled or reordered costs the block, never the secret.

*Stated limits.* The key length is chosen from observed counts, while the proofs of ``openqci.proofs`` are
printed for lengths fixed beforehand; thresholds (``qber_max``) are set before the run. What Cascade's
two-way conversation tells is charged by a named rule (``leak``). The whole block is discarded when anything
fails, never a part. That no authentication key serves two blocks is for the key store to see to, that
dead time and double clicks do not depend on the bit is for the receiver.

*Not here.* Photons (``openqci.quantum``), the proof's formula (``openqci.proofs``), sockets, clocks. The
memory of NumPy temporaries is overwritten where this package holds it; what Python copies, it cannot.
"""

from openqci.distillation.alice import AliceDistillation
from openqci.distillation.bob import BobDistillation
from openqci.distillation.channel import AUTHENTICATION_KEY_BYTES, Direction
from openqci.distillation.conversation import converse, perfect_line
from openqci.distillation.events import AbortReason, DistillationAborted, KeyDistilled
from openqci.distillation.report import BlockReport
from openqci.distillation.settings import BlockName, DistillationSettings

__all__ = [
    "AUTHENTICATION_KEY_BYTES",
    "AbortReason",
    "AliceDistillation",
    "BlockName",
    "BlockReport",
    "BobDistillation",
    "Direction",
    "DistillationAborted",
    "DistillationSettings",
    "KeyDistilled",
    "converse",
    "perfect_line",
]
