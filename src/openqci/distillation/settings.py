"""What both ends of a link have agreed on before the photons, and every limit of a distillation."""

from typing import Literal

import msgspec

from openqci.core.errors import ConfigurationError
from openqci.core.identifiers import LinkId
from openqci.crypto.universal_hash import polynomial_hash_bound
from openqci.distillation.reconciliation import RECONCILIATION_METHODS
from openqci.proofs import proof

AccountingRule = Literal["alice-parities-v1", "both-ends-v1"]
"""How disclosed bits are charged to the key; see :mod:`openqci.distillation.leak`."""

INTENSITIES_MAX = 4
SIFTED_BITS_MIN = 256
"""Below this a block cannot pay for its own verification tag; no proof gives key from so few bits."""

DETECTIONS_MAX = 1 << 27
MESSAGE_BYTES_MAX = 1 << 30

EPSILON_COR_MIN = polynomial_hash_bound(DETECTIONS_MAX // 8)
"""What the verification tag can promise for the longest block."""


class BlockName(msgspec.Struct, frozen=True):
    """Which block of which link: part of every authenticated text.

    A block that was lost may leave its number to the next; their authentication keys are never the same.
    """

    link_id: LinkId
    number: int


class DistillationSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The same at both ends, set before the run: nothing here is chosen from observed counts.

    Parameters
    ----------
    proof_id : str
        A proof of :mod:`openqci.proofs`.
    intensities, intensity_probabilities : tuple of float
        Of the source, brightest first; the records' intensity indices point into them.
    epsilon_sec, epsilon_cor : float
        Secrecy and correctness of one block.
    qber_max : float
        A block whose error rate in either basis is above this leaves no key.
    qber_expected : float or None
        Error rate by which Cascade's block sizes are set, as from the previous block; None takes the test
        basis of this block. It changes the bits disclosed, never whether the account is right.
    reconciliation : str
        Method of error correction, one of ``RECONCILIATION_METHODS``; ``reconciliation_for`` chooses by
        latency and error rate.
    accounting : str
        Rule of :mod:`openqci.distillation.leak`.
    secret_bits_fixed : int or None
        A fixed-length protocol: a block gives exactly so many bits, a multiple of 8, or none if the proof
        allows fewer for its counts. That is what the proofs of ``openqci.proofs`` are printed for. None
        takes what the proof allows for the observed counts, which asks for a proof of variable length.
    reply_timeout_s, confirmation_retry_s : float
        How long an end waits for its peer; after how long Bob repeats an unanswered confirmation.
    """

    proof_id: str
    intensities: tuple[float, ...]
    intensity_probabilities: tuple[float, ...]
    epsilon_sec: float
    epsilon_cor: float
    qber_max: float = 0.08
    qber_expected: float | None = None
    reconciliation: str = "cascade-2"
    accounting: AccountingRule = "alice-parities-v1"
    secret_bits_fixed: int | None = None
    reply_timeout_s: float = 30.0
    confirmation_retry_s: float = 2.0
    confirmation_tries_max: int = 5

    def __post_init__(self) -> None:
        faults = list(self._faults())
        if faults:
            raise ConfigurationError(*faults)
        proof(self.proof_id)

    @property
    def length_rule(self) -> str:
        """``fixed``, or ``observed`` where the length follows the counts."""
        return "observed" if self.secret_bits_fixed is None else "fixed"

    def _faults(self) -> list[str]:
        faults = []
        if not 2 <= len(self.intensities) <= INTENSITIES_MAX:
            faults.append(f"intensities: expected 2 to {INTENSITIES_MAX}, got {len(self.intensities)}")
        if len(self.intensities) != len(self.intensity_probabilities):
            faults.append("intensity_probabilities: expected one for each intensity")
        if not 0 < self.qber_max < 0.5:
            faults.append(f"qber_max: expected above 0 and below 0.5, got {self.qber_max}")
        if self.qber_expected is not None and not 0 < self.qber_expected < 0.5:
            faults.append(f"qber_expected: expected above 0 and below 0.5, got {self.qber_expected}")
        if self.reconciliation not in RECONCILIATION_METHODS:
            known = ", ".join(RECONCILIATION_METHODS)
            faults.append(f"reconciliation: expected one of {known}, got {self.reconciliation}")
        if not 0 < self.epsilon_sec < 1:
            faults.append(f"epsilon_sec: expected above 0 and below 1, got {self.epsilon_sec}")
        if not EPSILON_COR_MIN <= self.epsilon_cor < 1:
            faults.append(f"epsilon_cor: expected {EPSILON_COR_MIN:.1e} to below 1, got {self.epsilon_cor}")
        fixed = self.secret_bits_fixed
        if fixed is not None and (fixed <= 0 or fixed % 8):
            faults.append(f"secret_bits_fixed: expected a multiple of 8 above 0, got {fixed}")
        if min(self.reply_timeout_s, self.confirmation_retry_s, self.confirmation_tries_max) <= 0:
            faults.append("reply_timeout_s, confirmation_retry_s, confirmation_tries_max: expected above 0")
        return faults
