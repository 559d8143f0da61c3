"""The account of one block: every bit in, every bit out, and what the key may claim. No key material."""

import msgspec


class BlockReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one end knows of a block when it is over, distilled or aborted.

    Counts are complete when the block was distilled; an aborted block has those that were reached. The
    account balances: detections = mismatched + test + sifted bits, and sifted = secret + disclosed +
    discarded bits (:meth:`balances`).
    """

    link_id: str
    number: int
    end: str
    outcome: str
    detections: int
    double_clicks: int
    mismatched_bits: int
    test_bits: int
    sifted_bits: int
    z_counts: tuple[int, ...]
    z_errors: tuple[int, ...]
    x_counts: tuple[int, ...]
    x_errors: tuple[int, ...]
    qber: float
    test_qber: float
    leak_bits: dict[str, int]
    accounting: str
    disclosed_bits: int
    discarded_bits: int
    secret_bits: int
    proof_id: str
    phase_error: float
    single_photon_bits: float
    vacuum_bits: float
    length_rule: str
    epsilon_by_stage: dict[str, float]
    authentication_bytes_used: int
    rounds: int
    messages_sent: int
    bytes_sent: int
    messages_received: int
    bytes_received: int

    @property
    def epsilon(self) -> float:
        """All stages together: the union bound of this block."""
        return sum(self.epsilon_by_stage.values())

    def balances(self) -> bool:
        """Return whether bits in = bits out + disclosed + discarded."""
        sifting = self.detections == self.mismatched_bits + self.test_bits + self.sifted_bits
        return sifting and self.sifted_bits == self.secret_bits + self.disclosed_bits + self.discarded_bits
