"""Error correction behind two small protocols: one end answers, the other end asks and corrects.

Alice holds a :class:`ReconciliationReference`, Bob a :class:`ReconciliationCorrector`. What travels between
them is opaque to the session: a question from Bob, an answer from Alice, round after round. The first form
is :mod:`openqci.distillation.reconciliation.cascade`; a faster Cascade or an LDPC code (one question, one
long answer) fits behind the same two protocols.

Every bit that an answer discloses is counted by the object that makes or takes it, never estimated.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

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


__all__ = ["Bits", "ReconciliationCorrector", "ReconciliationMethod", "ReconciliationReference"]
