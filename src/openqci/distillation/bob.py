"""Bob: he detected the photons, corrects his key to Alice's, and is the last to know that both have it."""

from typing import ClassVar

from openqci.core.detections import DetectionRecord
from openqci.core.errors import PeerMisbehaved
from openqci.core.keys import SecretBytes
from openqci.crypto import equal
from openqci.crypto.universal_hash import VERIFICATION_KEY_BYTES, VERIFICATION_TAG_BITS, verification_tag
from openqci.distillation.amplification import PrivacyAmplification, ToeplitzHash
from openqci.distillation.channel import FORGERY_TRIES_MAX, Direction
from openqci.distillation.end import DistillationEnd, Entropy, Handler, State, Stop, held
from openqci.distillation.events import AbortReason
from openqci.distillation.leak import LeakStage
from openqci.distillation.messages import (
    Acceptance,
    Answer,
    Confirmation,
    Corrected,
    Message,
    Question,
    ReconciliationPlan,
    Sifting,
    TestBits,
    Verification,
    Verified,
    announced,
    check_packed,
    packed,
)
from openqci.distillation.reconciliation import (
    ReconciliationCorrector,
    ReconciliationMethod,
    reconciliation_method,
)
from openqci.distillation.settings import DETECTIONS_MAX, BlockName, DistillationSettings
from openqci.distillation.sifting import count_by_intensity, sift_at_bob


class BobDistillation(DistillationEnd):
    """Bob's end of one block; the conversation is in :mod:`openqci.distillation.messages`.

    Parameters
    ----------
    record : DetectionRecord
        What he detected, fixed before he speaks; not changed, and the caller's to wipe.
    settings, block, authentication_key, entropy
        As for :class:`~openqci.distillation.AliceDistillation`.
    """

    says: ClassVar[Direction] = Direction.BOB_TO_ALICE

    def __init__(
        self,
        record: DetectionRecord,
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
        self._corrector: ReconciliationCorrector | None = None
        self._verification_key = b""
        self._confirmations = 0
        self._ignored = 0

    def _begin(self, now_s: float) -> None:
        self._detections, self._double_clicks = self._record.slots.size, self._record.double_clicks
        if self._detections > DETECTIONS_MAX:
            raise Stop(AbortReason.STOPPED, f"{self._detections} detections, at most {DETECTIONS_MAX}")
        self._send(announced(self._record.slots, self._record.bases, self._double_clicks), State.ANNOUNCED)
        self._wait(now_s, State.ANNOUNCED)

    def _sift(self, message: Sifting, now_s: float) -> None:
        """Keep what Alice keeps, and disclose the test bits; they never become key."""
        self._sifted = sifted = sift_at_bob(self._record, message, len(self._settings.intensities))
        self._count_sifted(sifted)
        self._check_size()
        self._send(TestBits(packed(sifted.x_bits), sifted.x_bits.size), State.TESTED)

    def _begin_correction(self, message: ReconciliationPlan, now_s: float) -> None:
        self._check_error_counts(message.x_errors, self._counts.x_counts)
        self._counts.x_errors = message.x_errors
        self._check_qber(self._counts.test_qber, "test")
        if message.method != self._method.name:
            raise PeerMisbehaved(f"reconciliation {self._method.name} agreed, {message.method[:50]} came")
        self._corrector = self._method.corrector(held(self._sifted).z_bits, message.plan)
        self._ask_or_finish()

    def _correct(self, message: Answer, now_s: float) -> None:
        before = held(self._corrector).disclosed_bits
        held(self._corrector).take(message.content)
        self._ledger.book(LeakStage.ALICE_PARITIES, held(self._corrector).disclosed_bits - before)
        self._ask_or_finish()

    def _ask_or_finish(self) -> None:
        question = held(self._corrector).question()
        if question is not None:
            self._rounds += 1
            self._send(Question(question), State.RECONCILING)
            return
        self._verification_key = self._entropy(VERIFICATION_KEY_BYTES)
        self._send(Corrected(self._verification_key), State.CORRECTED)

    def _verify(self, message: Verification, now_s: float) -> None:
        """Compare tags; only equal keys have an error count, a length and a future."""
        self._ledger.book(LeakStage.VERIFICATION, VERIFICATION_TAG_BITS)
        corrected = held(self._corrector).corrected_key()
        if not equal(message.verification_tag, verification_tag(self._verification_key, packed(corrected))):
            corrected[:] = 0
            raise Stop(AbortReason.VERIFICATION_FAILED, "the corrected keys differ")
        errors = corrected ^ held(self._sifted).z_bits
        held(self._sifted).z_bits[:] = corrected
        corrected[:] = 0
        number = len(self._settings.intensities)
        self._book_corrections(count_by_intensity(held(self._sifted).z_intensities, number, errors))
        leak_bits = self._ledger.charged_bits(self._settings.accounting)
        self._send(Verified(self._counts.z_errors, leak_bits, self._secret_bits()), State.VERIFIED)

    def _amplify(self, message: Acceptance, now_s: float) -> None:
        """Shorten the key as Alice has, and confirm; from here on only she knows how it ends."""
        if message.amplification != self._amplification.name:
            raise PeerMisbehaved(
                f"amplification {self._amplification.name} agreed, {message.amplification[:50]} came"
            )
        bits = self._secret_bits()
        if message.secret_bits != bits:
            raise PeerMisbehaved(f"Alice accepts {message.secret_bits} bits, Bob {bits}")
        check_packed(message.seed, self._amplification.seed_bits(self._sifted_bits))
        self._pending = self._amplification.amplify(held(self._sifted).z_bits, message.seed, bits)
        held(self._sifted).wipe()
        self._send(Confirmation(bits), State.IN_DOUBT)
        self._confirmations = 1
        self._deadline_s = now_s + self._settings.confirmation_retry_s

    def _conclude(self, message: Confirmation, now_s: float) -> None:
        self._release()

    def _take(self, data: bytes, now_s: float) -> None:
        """As at any end; but in doubt a bad message is passed over, since Alice may have released."""
        if self._state is not State.IN_DOUBT:
            super()._take(data, now_s)
            return
        deadline_s = self._deadline_s
        try:
            super()._take(data, now_s)
        except PeerMisbehaved:
            self._ignored += 1
            self._deadline_s = deadline_s
            if self._ignored > FORGERY_TRIES_MAX:
                self._give_up(f"{self._ignored} messages that were not Alice's confirmation")

    def _overdue(self, now_s: float) -> None:
        if self._state is not State.IN_DOUBT:
            super()._overdue(now_s)
        elif self._confirmations >= self._settings.confirmation_tries_max:
            self._give_up(f"confirmed {self._confirmations} times without an answer")
        else:
            self._confirmations += 1
            self._post(self._last_sent)
            self._deadline_s = now_s + self._settings.confirmation_retry_s

    def _give_up(self, detail: str) -> None:
        self._stop(AbortReason.UNCONFIRMED, detail, peer_may_have_key=True)

    def abort(self, detail: str) -> None:
        """Stop from this end; in doubt, the peer may have kept its key, and the event says so."""
        if self._state is State.IN_DOUBT:
            self._give_up(detail)
        else:
            super().abort(detail)

    def _answer_late(self, data: bytes) -> None:
        if self._state is State.ABORTED:
            super()._answer_late(data)

    def _wipe(self) -> None:
        if self._corrector is not None:
            self._corrector.wipe()
            self._corrector = None
        super()._wipe()

    follows: ClassVar[dict[State, dict[type[Message], Handler]]] = {
        State.ANNOUNCED: {Sifting: _sift},
        State.TESTED: {ReconciliationPlan: _begin_correction},
        State.RECONCILING: {Answer: _correct},
        State.CORRECTED: {Verification: _verify},
        State.VERIFIED: {Acceptance: _amplify},
        State.IN_DOUBT: {Confirmation: _conclude},
    }
