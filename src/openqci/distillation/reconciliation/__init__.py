"""Error correction behind two small protocols: one end answers, the other end asks and corrects.

Alice holds a :class:`ReconciliationReference`, Bob a :class:`ReconciliationCorrector`. What travels between
them is opaque to the session: a question from Bob, an answer from Alice, round after round.

=============  ===================================================  ====================  ===================
method         what it is                                           round trips of a key  f at QBER 2 to 5 %
=============  ===================================================  ====================  ===================
``cascade-2``  :mod:`openqci.distillation.reconciliation.cascade`   200 to 700            1.04 to 1.05
``ldpc-1``     :mod:`openqci.distillation.reconciliation.ldpc`      1, seldom 2           1.12 to 1.15
=============  ===================================================  ====================  ===================

f is the number of bits disclosed over n h(QBER), for long keys. :func:`reconciliation_for` chooses.

Every bit that an answer discloses is counted by the object that makes or takes it, never estimated.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from openqci.core.errors import invariant

Bits = NDArray[np.uint8]


class ReconciliationReference(Protocol):
    """Alice's end: it knows her key and discloses functions of it."""

    @property
    def disclosed_bits(self) -> int:
        """Bits of Alice's key disclosed so far."""

    def answer(self, question: bytes) -> bytes:
        """Return the answer; PeerMisbehaved if the question is malformed or asks for too much."""

    def wipe(self) -> None:
        """Overwrite every copy of key bits."""


class ReconciliationCorrector(Protocol):
    """Bob's end: it asks, and corrects his key towards Alice's."""

    @property
    def disclosed_bits(self) -> int:
        """Bits of Alice's key taken so far; the same number as at the other end."""

    def question(self) -> bytes | None:
        """Return the next question, or None when nothing more is to be asked."""

    def take(self, answer: bytes) -> None:
        """Take the answer to the last question; PeerMisbehaved if it is malformed or contradicts itself."""

    def corrected_key(self) -> Bits:
        """Return the corrected key, shape (n,); whether it equals Alice's is for verification to say."""

    def wipe(self) -> None:
        """Overwrite every copy of key bits."""


class ReconciliationMethod(Protocol):
    """A way to correct errors, by name; both ends must use the same."""

    @property
    def name(self) -> str:
        """Name and version, checked by the peer."""

    def plan(self, key_bits: int, qber_estimate: float, qber_max: float, public_seed: bytes) -> bytes:
        """Return the public parameters of one block, encoded; made by Alice, checked by Bob."""

    def reference(self, key: Bits, plan: bytes) -> ReconciliationReference:
        """Return Alice's end for one block."""

    def corrector(self, key: Bits, plan: bytes) -> ReconciliationCorrector:
        """Return Bob's end for one block; PeerMisbehaved if the plan breaks a limit."""


RECONCILIATION_METHODS = ("cascade-2", "ldpc-1")

CASCADE_ROUNDS = 400
"""Round trips of a key, about, whatever its length."""

CASCADE_WAIT_S_MAX = 4.0
CASCADE_WAIT_NOISY_S_MAX = 20.0
NOISY_QBER = 0.05


def reconciliation_method(name: str) -> ReconciliationMethod:
    """Return the method of this name, one of ``RECONCILIATION_METHODS``, for this machine."""
    if name == "ldpc-1":
        from openqci.distillation.reconciliation.ldpc import LDPC

        return LDPC()
    invariant(name == "cascade-2", "settings name a method that there is")
    from openqci.distillation.reconciliation.cascade import Cascade

    return Cascade()


def reconciliation_for(round_trip_s: float, qber: float) -> str:
    """Return the method for a link, from the round trip of its classical channel and its usual error rate.

    Cascade discloses least, and waits some 400 round trips for each key; LDPC waits for one. So Cascade is
    taken while a key waits at most 4 s: round trips to 10 ms, 1,000 km of fibre. What LDPC discloses more,
    some 0.075 n h(QBER), is every seventieth bit of the secret key at 2 %, but every twentieth at 5 % and
    every sixth at 8 % (of 1 - 2.05 h for a sifted bit, ideal single photons): from 5 % on, Cascade is worth
    waiting 20 s for, to round trips of 50 ms. A geostationary relay takes LDPC.
    """
    wait_s_max = CASCADE_WAIT_NOISY_S_MAX if qber >= NOISY_QBER else CASCADE_WAIT_S_MAX
    return "cascade-2" if CASCADE_ROUNDS * round_trip_s <= wait_s_max else "ldpc-1"


__all__ = [
    "RECONCILIATION_METHODS",
    "Bits",
    "ReconciliationCorrector",
    "ReconciliationMethod",
    "ReconciliationReference",
    "reconciliation_for",
    "reconciliation_method",
]
