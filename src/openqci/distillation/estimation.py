"""From public counts to the length of the key: both ends compute it alone and must agree.

The bound itself is a plug-in of :mod:`openqci.proofs`; here the ledger is charged and the result rounded
down to whole bytes.
"""

import msgspec

from openqci.distillation.leak import LeakLedger, tag_bits_paid_by_proof
from openqci.distillation.settings import DistillationSettings
from openqci.distillation.sifting import Counts
from openqci.proofs import DecoyCounts, KeyLength, proof

QBER_PRIOR = 0.02
QBER_PRIOR_BITS = 200


class PublicCounts(msgspec.Struct):
    """What both ends know of a block in the clear, per intensity; filled as the conversation goes on."""

    z_counts: Counts = ()
    z_errors: Counts = ()
    x_counts: Counts = ()
    x_errors: Counts = ()

    @property
    def qber(self) -> float:
        """Error rate of the key basis; 0 until it is known."""
        return error_rate(self.z_errors, self.z_counts)

    @property
    def test_qber(self) -> float:
        """Error rate of the test basis; 0 until it is known."""
        return error_rate(self.x_errors, self.x_counts)


def error_rate(errors: Counts, counts: Counts) -> float:
    return sum(errors) / sum(counts) if sum(counts) else 0.0


def qber_estimate(settings: DistillationSettings, counts: PublicCounts) -> float:
    """Return the error rate that sets the block sizes of error correction.

    The test basis of this block, drawn towards ``QBER_PRIOR`` as if ``QBER_PRIOR_BITS`` more had been
    seen, so that few test bits do not give an absurd value. It costs no key bit.
    """
    if settings.qber_expected is not None:
        return settings.qber_expected
    errors = sum(counts.x_errors) + QBER_PRIOR * QBER_PRIOR_BITS
    return errors / (sum(counts.x_counts) + QBER_PRIOR_BITS)


def key_length(settings: DistillationSettings, counts: PublicCounts, ledger: LeakLedger) -> KeyLength:
    """Return what the proof allows for these counts and this leak."""
    leak_bits = ledger.charged_bits(settings.accounting) - tag_bits_paid_by_proof(settings.epsilon_cor)
    decoy_counts = DecoyCounts(
        z_counts=counts.z_counts,
        z_errors=counts.z_errors,
        x_counts=counts.x_counts,
        x_errors=counts.x_errors,
        intensities=settings.intensities,
        probabilities=settings.intensity_probabilities,
    )
    return proof(settings.proof_id).secret_length_bits(
        decoy_counts, leak_bits, settings.epsilon_sec, settings.epsilon_cor
    )


def secret_bits(settings: DistillationSettings, length: KeyLength, sifted_bits: int) -> int:
    """Return the key length in whole bytes, never more than there are sifted bits; 0 for no key.

    With a fixed length, that one or none.
    """
    allowed = min(length.length_bits, sifted_bits) // 8 * 8
    if settings.secret_bits_fixed is None:
        return allowed
    return settings.secret_bits_fixed if settings.secret_bits_fixed <= allowed else 0


def epsilon_by_stage(settings: DistillationSettings, authentication: float) -> dict[str, float]:
    """Return what each stage adds to a key's epsilon; the sum is what the key may claim.

    ``amplification`` and ``estimation`` (bounds on counts, and smoothing) share ``epsilon_sec`` as the proof
    cuts it; ``verification`` is ``epsilon_cor``; ``authentication`` the forgery bound of the tags so far.
    """
    part = settings.epsilon_sec / proof(settings.proof_id).failure_terms
    return {
        "estimation": settings.epsilon_sec - part,
        "amplification": part,
        "verification": settings.epsilon_cor,
        "authentication": authentication,
    }
