"""What the two ends of a distillation have in common: the six verbs, phases, time, and the ways to stop.

A subclass gives a state table: in each state, which message may come, and what is then done. Anything else
stops the block. Stopping wipes every intermediate key, always.
"""

from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Any, ClassVar, Protocol, TypeVar, cast

from openqci.core.errors import PeerMisbehaved, invariant
from openqci.core.keys import SecretBytes, SecretKey
from openqci.distillation.channel import AuthenticatedChannel, Direction
from openqci.distillation.estimation import PublicCounts, epsilon_by_stage, key_length, secret_bits
from openqci.distillation.events import AbortReason, DistillationAborted, KeyDistilled
from openqci.distillation.leak import LeakLedger, LeakStage, error_count_bits, error_pattern_bits
from openqci.distillation.messages import (
    DETAIL_CHARACTERS_MAX,
    Abort,
    Message,
    decode_body,
    encode,
    is_abort,
)
from openqci.distillation.report import BlockReport
from openqci.distillation.settings import SIFTED_BITS_MIN, BlockName, DistillationSettings
from openqci.distillation.sifting import SiftedBits
from openqci.proofs import KeyLength

Entropy = Callable[[int], bytes]
"""A source of that many uniform bytes, in operation ``secrets.token_bytes``. Never a seeded generator."""

REPEATS_MAX = 16
"""How often a finished end answers a peer that has not heard its last message."""


class State(StrEnum):
    """States of both ends; each end passes through its own."""

    NEW = "new"
    LISTENING = "listening"
    ANNOUNCED = "announced"
    SIFTED = "sifted"
    TESTED = "tested"
    RECONCILING = "reconciling"
    CORRECTED = "corrected"
    VERIFYING = "verifying"
    VERIFIED = "verified"
    PENDING = "pending"
    IN_DOUBT = "in doubt"
    DISTILLED = "distilled"
    ABORTED = "aborted"


FINISHED = frozenset({State.DISTILLED, State.ABORTED})

Handler = Callable[[Any, Any, float], None]


Held = TypeVar("Held")


def held(part: Held | None) -> Held:
    """Return what this end must hold by now; the state table sees to it."""
    invariant(part is not None, "what a state needs was made in the states before")
    return cast(Held, part)


class BlockEnd(Protocol):
    """One end of a block as a shell sees it."""

    @property
    def state(self) -> State: ...

    def start(self, now_s: float) -> None: ...

    def messages_to_send(self) -> list[bytes]: ...

    def receive(self, data: bytes, now_s: float) -> None: ...

    def next_event(self) -> KeyDistilled | DistillationAborted | None: ...

    def deadline_s(self) -> float | None: ...

    def advance(self, now_s: float) -> None: ...

    def abort(self, detail: str) -> None: ...


class Stop(Exception):
    """Raised inside a handler to end the block without a key; never leaves this package."""

    def __init__(self, reason: AbortReason, detail: str) -> None:
        self.reason = reason
        super().__init__(detail)


class DistillationEnd:
    """One end of one block; see :class:`AliceDistillation` and :class:`BobDistillation`."""

    says: ClassVar[Direction]
    follows: ClassVar[dict[State, dict[type[Message], Handler]]]

    def __init__(
        self,
        settings: DistillationSettings,
        block: BlockName,
        authentication_key: SecretBytes,
        entropy: Entropy,
    ) -> None:
        self._settings = settings
        self._block = block
        self._entropy = entropy
        self._channel = AuthenticatedChannel(block, self.says, authentication_key)
        self._state = State.NEW
        self._outbox: deque[bytes] = deque()
        self._events: deque[KeyDistilled | DistillationAborted] = deque()
        self._deadline_s: float | None = None
        self._counts = PublicCounts()
        self._ledger = LeakLedger()
        self._length: KeyLength | None = None
        self._sifted: SiftedBits | None = None
        self._pending: SecretBytes | None = None
        self._detections = 0
        self._double_clicks = 0
        self._test_bits = 0
        self._sifted_bits = 0
        self._rounds = 0
        self._repeats = 0
        self._last_sent = b""
        self._traffic = {"messages_sent": 0, "bytes_sent": 0, "messages_received": 0, "bytes_received": 0}

    # The six verbs.

    def start(self, now_s: float) -> None:
        """Begin; call once."""
        invariant(self._state is State.NEW, "a distillation is started once")
        with_stop(self, lambda: self._begin(now_s))

    def messages_to_send(self) -> list[bytes]:
        """Return the messages that are to go to the peer, in this order, and forget them."""
        messages = list(self._outbox)
        self._outbox.clear()
        return messages

    def receive(self, data: bytes, now_s: float) -> None:
        """Take one message of the peer. A bad one stops the block; it never raises for what a peer did."""
        self._traffic["messages_received"] += 1
        self._traffic["bytes_received"] += len(data)
        if self._state in FINISHED:
            self._answer_late(data)
        else:
            with_stop(self, lambda: self._take(data, now_s))

    def next_event(self) -> KeyDistilled | DistillationAborted | None:
        """Return how the block ended, once; None before and after."""
        return self._events.popleft() if self._events else None

    def deadline_s(self) -> float | None:
        """Return when :meth:`advance` wants to be called; None when nothing is waited for."""
        return self._deadline_s

    def advance(self, now_s: float) -> None:
        """Let time pass: at the deadline the peer counts as gone."""
        if self._deadline_s is not None and now_s >= self._deadline_s:
            self._overdue(now_s)

    # Also for the shell.

    @property
    def state(self) -> State:
        return self._state

    def abort(self, detail: str) -> None:
        """Stop from this end; no key is left unless it was distilled before."""
        if self._state not in FINISHED:
            self._stop(AbortReason.STOPPED, detail)

    # For the subclasses.

    def _begin(self, now_s: float) -> None:
        raise NotImplementedError

    def _take(self, data: bytes, now_s: float) -> None:
        body, authenticated = self._channel.open(data, tag_wanted=self._state is State.IN_DOUBT)
        message = decode_body(body)
        if isinstance(message, Abort):
            self._peer_aborted(message, authenticated)
        handler = self.follows.get(self._state, {}).get(type(message))
        if handler is None:
            raise PeerMisbehaved(f"{type(message).__name__} cannot come while this end is {self._state}")
        if authenticated is not message.tagged:
            raise PeerMisbehaved(f"{type(message).__name__} {'without' if message.tagged else 'with'} a tag")
        self._deadline_s = now_s + self._settings.reply_timeout_s
        handler(self, message, now_s)

    def _peer_aborted(self, message: Abort, authenticated: bool) -> None:
        if not authenticated:
            raise PeerMisbehaved("Abort without its own tag")
        raise Stop(AbortReason.PEER_ABORTED, message.reason[:DETAIL_CHARACTERS_MAX])

    def _send(self, message: Message, state: State) -> None:
        self._state = state
        self._post(self._channel.seal(encode(message), tagged=message.tagged))

    def _post(self, datagram: bytes) -> None:
        self._outbox.append(datagram)
        self._last_sent = datagram
        self._traffic["messages_sent"] += 1
        self._traffic["bytes_sent"] += len(datagram)

    def _wait(self, now_s: float, state: State) -> None:
        self._state = state
        self._deadline_s = now_s + self._settings.reply_timeout_s

    def _overdue(self, now_s: float) -> None:
        self._stop(AbortReason.PEER_WENT_SILENT, f"no answer within {self._settings.reply_timeout_s} s")

    def _answer_late(self, data: bytes) -> None:
        """Say the last word again: a peer that still speaks, and does not abort, has not heard it."""
        self._repeats += 1
        if self._repeats <= REPEATS_MAX and not is_abort(data):
            self._outbox.append(self._last_sent)

    def _count_sifted(self, sifted: SiftedBits) -> None:
        number = len(self._settings.intensities)
        self._counts.z_counts, self._counts.x_counts = sifted.z_counts[:number], sifted.x_counts[:number]
        self._sifted_bits, self._test_bits = sifted.z_bits.size, sifted.x_bits.size

    def _book_corrections(self, z_errors: tuple[int, ...]) -> None:
        """Book what Bob's questions and his error counts tell; the same numbers at both ends."""
        self._counts.z_errors = z_errors
        self._ledger.book(LeakStage.BOB_QUESTIONS, error_pattern_bits(self._sifted_bits, sum(z_errors)))
        self._ledger.book(LeakStage.ERROR_COUNTS, error_count_bits(self._sifted_bits, len(z_errors)))

    def _secret_bits(self) -> int:
        """Return the length of the key; Stop if a threshold is broken or there is none."""
        self._check_qber(self._counts.qber, "key")
        self._length = key_length(self._settings, self._counts, self._ledger)
        bits = secret_bits(self._settings, self._length, self._sifted_bits)
        if bits == 0:
            fixed = self._settings.secret_bits_fixed
            wanted = "no key" if fixed is None else f"{self._length.length_bits} bits of the fixed {fixed}"
            raise Stop(AbortReason.NO_KEY_LEFT, f"{self._settings.proof_id} gives {wanted} for these counts")
        return bits

    def _check_qber(self, qber: float, basis: str) -> None:
        if qber > self._settings.qber_max:
            limit = self._settings.qber_max
            raise Stop(AbortReason.QBER_TOO_HIGH, f"{qber:.4f} in the {basis} basis, limit {limit}")

    def _check_error_counts(self, errors: tuple[int, ...], counts: tuple[int, ...]) -> None:
        """Raise PeerMisbehaved unless there is one count per intensity, none above its total."""
        if len(errors) != len(counts) or any(not 0 <= e <= n for e, n in zip(errors, counts, strict=True)):
            raise PeerMisbehaved("error counts do not fit the sifted counts")

    def _check_size(self) -> None:
        if self._sifted_bits < SIFTED_BITS_MIN or self._test_bits == 0:
            raise Stop(
                AbortReason.TOO_FEW_BITS,
                f"{self._sifted_bits} key bits and {self._test_bits} test bits; "
                f"{SIFTED_BITS_MIN} and 1 are needed",
            )

    def _release(self) -> None:
        """Hand out the pending key: both ends have confirmed it."""
        pending = held(self._pending)
        self._state = State.DISTILLED
        self._deadline_s = None
        report = self._report("distilled", 8 * len(pending))
        key = SecretKey(pending, self._settings.proof_id, report.epsilon)
        self._pending = None
        self._events.append(KeyDistilled(key, report))
        self._wipe()

    def _stop(
        self, reason: AbortReason, detail: str, *, tell_peer: bool = True, peer_may_have_key: bool = False
    ) -> None:
        """End the block without a key, whatever state it is in."""
        invariant(self._state not in FINISHED, "a block ends once")
        detail = detail[:DETAIL_CHARACTERS_MAX]
        self._state = State.ABORTED
        self._deadline_s = None
        self._outbox.clear()
        if tell_peer:
            self._post(self._channel.seal_abort(encode(Abort(reason.value, detail))))
        self._events.append(
            DistillationAborted(reason, detail, self._report(reason.value, 0), peer_may_have_key)
        )
        self._wipe()

    def _wipe(self) -> None:
        """Overwrite every intermediate key of this end."""
        if self._pending is not None:
            self._pending.wipe()
            self._pending = None
        if self._sifted is not None:
            self._sifted.wipe()
            self._sifted = None
        self._channel.wipe()

    def _report(self, outcome: str, kept_bits: int) -> BlockReport:
        length = self._length
        disclosed = min(self._ledger.charged_bits(self._settings.accounting), self._sifted_bits - kept_bits)
        return BlockReport(
            link_id=self._block.link_id,
            number=self._block.number,
            end="alice" if self.says is Direction.ALICE_TO_BOB else "bob",
            outcome=outcome,
            detections=self._detections,
            double_clicks=self._double_clicks,
            mismatched_bits=self._detections - self._test_bits - self._sifted_bits,
            test_bits=self._test_bits,
            sifted_bits=self._sifted_bits,
            z_counts=self._counts.z_counts,
            z_errors=self._counts.z_errors,
            x_counts=self._counts.x_counts,
            x_errors=self._counts.x_errors,
            qber=self._counts.qber,
            test_qber=self._counts.test_qber,
            leak_bits=self._ledger.by_stage(),
            accounting=self._settings.accounting,
            disclosed_bits=disclosed,
            discarded_bits=self._sifted_bits - kept_bits - disclosed,
            secret_bits=kept_bits,
            proof_id=self._settings.proof_id,
            phase_error=length.phase_error if length else 0.5,
            single_photon_bits=length.single_photon_bits if length else 0.0,
            vacuum_bits=length.vacuum_bits if length else 0.0,
            length_rule=self._settings.length_rule,
            epsilon_by_stage=epsilon_by_stage(self._settings, self._channel.epsilon),
            authentication_bytes_used=self._channel.key_bytes_used,
            rounds=self._rounds,
            **self._traffic,
        )


def with_stop(end: DistillationEnd, step: Callable[[], None]) -> None:
    """Run a step of one end; what goes wrong in it ends the block instead of the caller."""
    try:
        step()
    except Stop as stop:
        tell_peer = stop.reason is not AbortReason.PEER_ABORTED
        end._stop(stop.reason, str(stop), tell_peer=tell_peer)
    except PeerMisbehaved as error:
        end._stop(AbortReason.PEER_MISBEHAVED, str(error))
