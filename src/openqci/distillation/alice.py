"""Alice: she sent the photons, her key is the reference, and she ends with the first right to release."""

from typing import ClassVar

from openqci.core.detections import EmissionRecord
from openqci.core.errors import PeerMisbehaved
from openqci.core.keys import SecretBytes
from openqci.crypto.universal_hash import VERIFICATION_KEY_BYTES, VERIFICATION_TAG_BITS, verification_tag
from openqci.distillation.amplification import PrivacyAmplification, ToeplitzHash
from openqci.distillation.channel import Direction
from openqci.distillation.end import DistillationEnd, Entropy, Handler, State, held
from openqci.distillation.estimation import qber_estimate
from openqci.distillation.leak import LeakStage
from openqci.distillation.messages import (
    Acceptance,
    Announcement,
    Answer,
    Confirmation,
    Corrected,
    Message,
    Question,
    ReconciliationPlan,
    TestBits,
    Verification,
    Verified,
    packed,
    unpacked,
    without_the_rest,
)
from openqci.distillation.reconciliation import (
    ReconciliationMethod,
    ReconciliationReference,
    reconciliation_method,
)
from openqci.distillation.reconciliation.cascade import PUBLIC_SEED_BYTES
from openqci.distillation.settings import DETECTIONS_MAX, BlockName, DistillationSettings
from openqci.distillation.sifting import count_by_intensity, sift_at_alice


class AliceDistillation(DistillationEnd):
    """Alice's end of one block; the conversation is in :mod:`openqci.distillation.messages`.

    Parameters
    ----------
    record : EmissionRecord
        What she sent; not changed, and the caller's to wipe.
    settings, block
        The same at both ends.
    authentication_key : SecretBytes
        ``AUTHENTICATION_KEY_BYTES`` bytes that both ends hold and no other block uses; copied.
    entropy : callable
        Returns uniform bytes of the operating system (``secrets.token_bytes``).
    """

    says: ClassVar[Direction] = Direction.ALICE_TO_BOB

    def __init__(
        self,
        record: EmissionRecord,
        settings: DistillationSettings,
        block: BlockName,
        authentication_key: SecretBytes,
        entropy: Entropy,
        *,
        reconciliation: ReconciliationMethod | None = None,
        amplification: PrivacyAmplification | None = None,
    ) -> None:
        super().__init__(settings, block, authentication_key, entropy)
        self._record = record
        self._method = reconciliation or reconciliation_method(settings.reconciliation)
        self._amplification = amplification or ToeplitzHash()
        self._reference: ReconciliationReference | None = None

    def _begin(self, now_s: float) -> None:
        self._wait(now_s, State.LISTENING)

    def _sift(self, message: Announcement, now_s: float) -> None:
        """Keep what was prepared in the basis in which it was measured; only then name intensities."""
        if not 0 <= message.detections <= DETECTIONS_MAX:
            raise PeerMisbehaved(f"{message.detections} detections announced, at most {DETECTIONS_MAX}")
        self._detections, self._double_clicks = message.detections, message.double_clicks
        answer, self._sifted = sift_at_alice(self._record, message)
        self._count_sifted(self._sifted)
        self._check_size()
        self._send(answer, State.SIFTED)

    def _estimate(self, message: TestBits, now_s: float) -> None:
        """Count errors in the test basis, and begin error correction if they are few enough."""
        errors = unpacked(message.bits, self._test_bits) ^ held(self._sifted).x_bits
        self._counts.x_errors = count_by_intensity(
            held(self._sifted).x_intensities, len(self._settings.intensities), errors
        )
        self._check_qber(self._counts.test_qber, "test")
        plan = self._method.plan(
            self._sifted_bits,
            qber_estimate(self._settings, self._counts),
            self._settings.qber_max,
            self._entropy(PUBLIC_SEED_BYTES),
        )
        self._reference = self._method.reference(held(self._sifted).z_bits, plan)
        self._send(ReconciliationPlan(self._method.name, self._counts.x_errors, plan), State.RECONCILING)

    def _answer(self, message: Question, now_s: float) -> None:
        before = held(self._reference).disclosed_bits
        content = held(self._reference).answer(message.content)
        self._ledger.book(LeakStage.ALICE_PARITIES, held(self._reference).disclosed_bits - before)
        self._rounds += 1
        self._send(Answer(content), State.RECONCILING)

    def _prove(self, message: Corrected, now_s: float) -> None:
        """Disclose the tag of the key under the hash key that Bob drew after his key was fixed."""
        if len(message.verification_key) != VERIFICATION_KEY_BYTES:
            raise PeerMisbehaved(f"a verification key has {VERIFICATION_KEY_BYTES} bytes")
        tag = verification_tag(message.verification_key, packed(held(self._sifted).z_bits))
        self._ledger.book(LeakStage.VERIFICATION, VERIFICATION_TAG_BITS)
        self._send(Verification(tag), State.VERIFYING)

    def _accept(self, message: Verified, now_s: float) -> None:
        """Hold Bob's counts and length against one's own, then disclose the seed and amplify."""
        self._check_error_counts(message.z_errors, self._counts.z_counts)
        self._book_corrections(message.z_errors)
        leak_bits = self._ledger.charged_bits(self._settings.accounting)
        bits = self._secret_bits()
        if (message.leak_bits, message.secret_bits) != (leak_bits, bits):
            raise PeerMisbehaved(
                f"Bob counts {message.leak_bits} bits disclosed and {message.secret_bits} secret, "
                f"Alice {leak_bits} and {bits}"
            )
        seed_bits = self._amplification.seed_bits(self._sifted_bits)
        seed = without_the_rest(self._entropy(-(-seed_bits // 8)), seed_bits)
        self._pending = self._amplification.amplify(held(self._sifted).z_bits, seed, bits)
        held(self._sifted).wipe()
        self._send(Acceptance(bits, self._amplification.name, seed), State.PENDING)

    def _confirm(self, message: Confirmation, now_s: float) -> None:
        """Bob holds the key: say that Alice does, and release it."""
        if message.secret_bits != 8 * len(held(self._pending)):
            raise PeerMisbehaved("confirmation of another key length")
        self._send(Confirmation(message.secret_bits), State.PENDING)
        self._release()

    def _wipe(self) -> None:
        if self._reference is not None:
            self._reference.wipe()
            self._reference = None
        super()._wipe()

    follows: ClassVar[dict[State, dict[type[Message], Handler]]] = {
        State.LISTENING: {Announcement: _sift},
        State.SIFTED: {TestBits: _estimate},
        State.RECONCILING: {Question: _answer, Corrected: _prove},
        State.VERIFYING: {Verified: _accept},
        State.PENDING: {Confirmation: _confirm},
    }
