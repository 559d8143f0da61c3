"""The leak ledger: every bit about the key that leaves a node, booked by stage where it is sent.

Both ends keep one, book the same, and compare totals before a key is accepted; the length of the key comes
from it and never from a model such as f * n * h(QBER).

**Two-way error correction.** Cascade is interactive: Bob's questions tell where the halves differ, which is
information too. Tupkary and Luetkenhaus, "Using Cascade in quantum key distribution", arXiv:2307.00576, show
that counting Alice's parities alone is flawed in general, and that a valid treatment lets the bound hold
for an eavesdropper who is given the whole transcript, error positions included; they find the same rate as
the old count in many practical cases and less in others. Which rule is applied is therefore an explicit,
versioned choice, tied to the proof that it is used with:

``alice-parities-v1``
    Every parity that Alice discloses, the verification tag and the error counts. Bob sends no parity. This is
    the usual leak_EC of the finite-key papers and rests on their treatment: it is *not* by itself proven
    for a two-way protocol.
``both-ends-v1``
    The same, plus all that Bob's questions can tell. Given Alice's answers his questions are a function of
    the error pattern, of which there are C(n, e) with e errors: log2 C(n, e) bits, rounded up. By the chain
    rule of min-entropy this holds with any proof; it costs about n * h(QBER) bits of key more.
"""

import math
from enum import StrEnum

from openqci.core.errors import invariant
from openqci.crypto.universal_hash import VERIFICATION_TAG_BITS
from openqci.distillation.settings import AccountingRule


class LeakStage(StrEnum):
    """Where in the conversation bits about the key are disclosed, and by whom."""

    ALICE_PARITIES = "alice_parities"
    BOB_QUESTIONS = "bob_questions"
    VERIFICATION = "verification"
    ERROR_COUNTS = "error_counts"


class LeakLedger:
    """Bits disclosed about one block's sifted key, by stage. Entries only ever grow."""

    def __init__(self) -> None:
        self._bits = dict.fromkeys(LeakStage, 0)

    def book(self, stage: LeakStage, bits: int) -> None:
        """Add bits that are being sent (or, at the other end, have been received)."""
        invariant(bits >= 0, "a disclosed bit is never taken back")
        self._bits[stage] += bits

    def by_stage(self) -> dict[str, int]:
        return {stage.value: bits for stage, bits in self._bits.items()}

    def charged_bits(self, rule: AccountingRule) -> int:
        """Return how many bits the rule takes from the key."""
        unpaid = self._bits[LeakStage.BOB_QUESTIONS] if rule == "alice-parities-v1" else 0
        return sum(self._bits.values()) - unpaid


def error_pattern_bits(key_bits: int, errors: int) -> int:
    """Return log2 of the number of error patterns with this many errors, rounded up."""
    natural = math.lgamma(key_bits + 1) - math.lgamma(errors + 1) - math.lgamma(key_bits - errors + 1)
    return math.ceil(natural / math.log(2) + 1e-6)


def error_count_bits(key_bits: int, intensities: int) -> int:
    """Return how much the announced error counts, one for each intensity, can tell."""
    return intensities * (key_bits + 1).bit_length()


def tag_bits_paid_by_proof(epsilon_cor: float) -> int:
    """Return the part of the verification tag that every proof subtracts itself: log2(2 / epsilon_cor)."""
    return min(VERIFICATION_TAG_BITS, math.floor(math.log2(2 / epsilon_cor)))
