"""Cascade over frames of 64 kbit, all side by side: each round is one question and one answer.

For each frame, in order:

* pass 0 takes the key as it lies, passes 1 and 2 in other orders; each is cut into blocks (``block_bits``),
  and Alice discloses the parity at every block end;
* then *batches* of 16 random halves of the frame. A batch in which every half agrees ends the frame's
  correction: an error left over would have escaped it with 2**-16.

Where a block's parities differ, Bob halves it until the error stands alone (binary search), all blocks of the
pass side by side. Every parity ever disclosed is kept as a boundary of its pass, so a correction that turns a
block of an earlier pass odd reopens the *smallest* known piece around it and costs few bits more. The odd
pieces of the earliest pass are always searched first.

A disclosed parity is that of the first m bits of a frame in a pass's order (a block's own parity is the
difference of two): Alice's end holds no state but the count. The whole frame's parity is the same in every
order and is disclosed once. Frames, orders and subsets are defined in ``frames``, questions in ``questions``.
Which questions to ask is Bob's alone to decide, so ends with and without compiled kernels understand each
other: ``compiled`` and ``portable`` do the same work behind the two classes here.

What it is not: one-way; see :class:`openqci.distillation.leak.LeakLedger` for what Bob's questions tell.

References: Brassard and Salvail, EUROCRYPT '93 (Cascade); Sugimoto and Yamazaki 2000 (random subsets at the
end, "BICONF"); Martinez-Mateo et al., arXiv:1407.3257 (block sizes, reuse of sub-block parities).
"""

import math
from typing import Protocol

import msgspec

from openqci.core.errors import PeerMisbehaved, invariant
from openqci.distillation.reconciliation import Bits
from openqci.distillation.reconciliation.frames import (
    BLOCK_PASSES,
    FRAME_BITS_MAX,
    SUBSETS_PER_BATCH,
    Frames,
)
from openqci.distillation.reconciliation.questions import Asked, decoded_question, encoded_question
from openqci.kernels import kernels_available

SUBSET_BATCHES_MAX = 40
PASSES_MAX = BLOCK_PASSES + SUBSETS_PER_BATCH * SUBSET_BATCHES_MAX

ROUNDS_MAX = 10_000
"""Questions per key; an honest key takes 200 to 700, the more the closer f is to 1."""

KEY_BITS_MAX = 1 << 27
BLOCK_BITS_MIN = 4
QBER_ESTIMATE_MIN = 1e-4
PUBLIC_SEED_BYTES = 16

FIRST_BLOCK_ERRORS = 1.02
"""Errors expected in a block of pass 0, at most."""
SECOND_BLOCK = 5
SECOND_BLOCK_NOISY = 6
NOISY_QBER = 0.035
THIRD_BLOCK = 128


class CascadePlan(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Public parameters of one key: agreed in the clear after the photons."""

    key_bits: int
    block_bits: tuple[int, int, int]
    public_seed: bytes
    disclosed_bits_max: int


_encode = msgspec.msgpack.Encoder().encode
_plan_decoder = msgspec.msgpack.Decoder(CascadePlan)


class ReferenceEngine(Protocol):
    """Alice's inner loops."""

    def price_bits(self, asked: Asked, passes_max: int) -> int:
        """Return how many bits a question asks for.

        PeerMisbehaved for a frame, pass or position there is not.
        """

    def parities(self, asked: Asked, count: int) -> bytes: ...

    def wipe(self) -> None: ...


class CorrectorEngine(Protocol):
    """Bob's inner loops."""

    def next_question(self, parities: bytes) -> tuple[Asked, int] | None:
        """Take the answers, return the next question and how many bits it asks for, None at the end."""

    def corrected_key(self) -> Bits: ...

    def wipe(self) -> None: ...


def block_sizes(key_bits: int, qber_estimate: float) -> tuple[int, int, int]:
    """Return the block sizes of the three block passes.

    The first is the largest 2^k or 3 * 2^k (which halve evenly) with at most about one error expected in it.
    Tuned for the fewest disclosed bits in some 400 rounds (``benchmarks/cascade.py``).
    """
    qber = max(qber_estimate, QBER_ESTIMATE_MIN)
    longest = max(BLOCK_BITS_MIN, FIRST_BLOCK_ERRORS / qber)
    power = 1 << int(math.log2(longest))
    first = power * 3 // 2 if power * 3 / 2 <= longest else power
    second = SECOND_BLOCK_NOISY if qber > NOISY_QBER else SECOND_BLOCK
    half = max(BLOCK_BITS_MIN, Frames(key_bits).bits // 2)
    return (min(first, half), min(second * first, half), min(THIRD_BLOCK * first, half))


class Cascade:
    """Cascade as a :class:`~openqci.distillation.reconciliation.ReconciliationMethod`.

    ``compiled=False`` takes the portable engine even where kernels are installed.
    """

    name = "cascade-2"

    def __init__(self, *, compiled: bool | None = None) -> None:
        self._compiled = kernels_available() if compiled is None else compiled

    def plan(self, key_bits: int, qber_estimate: float, qber_max: float, public_seed: bytes) -> bytes:
        return _encode(
            CascadePlan(
                key_bits,
                block_sizes(key_bits, qber_estimate),
                public_seed,
                disclosed_bits_max(key_bits, max(qber_max, qber_estimate)),
            )
        )

    def reference(self, key: Bits, plan: bytes) -> "CascadeReference":
        decoded = _decoded_plan(plan, key.size)
        return CascadeReference(_reference_engine(key, decoded, compiled=self._compiled), decoded)

    def corrector(self, key: Bits, plan: bytes) -> "CascadeCorrector":
        decoded = _decoded_plan(plan, key.size)
        return CascadeCorrector(_corrector_engine(key, decoded, compiled=self._compiled), decoded)


def _reference_engine(key: Bits, plan: CascadePlan, *, compiled: bool) -> ReferenceEngine:
    if compiled:
        from openqci.distillation.reconciliation.compiled import CompiledReference

        return CompiledReference(key, plan.block_bits, plan.public_seed)
    from openqci.distillation.reconciliation.portable import PortableReference

    return PortableReference(key, plan.block_bits, plan.public_seed)


def _corrector_engine(key: Bits, plan: CascadePlan, *, compiled: bool) -> CorrectorEngine:
    if compiled:
        from openqci.distillation.reconciliation.compiled import CompiledCorrector

        return CompiledCorrector(key, plan.block_bits, plan.public_seed, SUBSET_BATCHES_MAX)
    from openqci.distillation.reconciliation.portable import PortableCorrector

    return PortableCorrector(key, plan.block_bits, plan.public_seed, SUBSET_BATCHES_MAX)


def disclosed_bits_max(key_bits: int, qber_max: float) -> int:
    """Return how many parities a key may cost before it is given up: 1.6 times the Shannon limit.

    A key that costs more leaves nothing anyway, and a lying peer must not harvest parities.
    """
    q = min(max(qber_max, 0.01), 0.5)
    entropy = -q * math.log2(q) - (1 - q) * math.log2(1 - q)
    return min(key_bits, math.ceil(1.6 * key_bits * entropy) + 1024)


def _decoded_plan(plan: bytes, key_bits: int) -> CascadePlan:
    try:
        decoded = _plan_decoder.decode(plan)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerMisbehaved(f"cascade plan cannot be read: {error}") from error
    if decoded.key_bits != key_bits:
        raise PeerMisbehaved(f"cascade plan is for {decoded.key_bits} bits; this end has {key_bits}")
    if not 1 <= key_bits <= KEY_BITS_MAX:
        raise PeerMisbehaved(f"cascade takes 1 to {KEY_BITS_MAX} bits, not {key_bits}")
    sizes_fit = min(decoded.block_bits) >= BLOCK_BITS_MIN and max(decoded.block_bits) <= FRAME_BITS_MAX
    if not sizes_fit or len(decoded.public_seed) != PUBLIC_SEED_BYTES:
        raise PeerMisbehaved("cascade plan has a block size or a seed outside its limits")
    if not 0 < decoded.disclosed_bits_max <= key_bits:
        raise PeerMisbehaved("cascade plan allows more disclosed bits than the key has")
    return decoded


class CascadeReference:
    """Alice's end: answers questions about parities of prefixes of her key."""

    def __init__(self, engine: ReferenceEngine, plan: CascadePlan) -> None:
        self._engine = engine
        self._disclosed_bits_max = plan.disclosed_bits_max
        self._rounds = 0
        self.disclosed_bits = 0

    def answer(self, question: bytes) -> bytes:
        self._rounds += 1
        if self._rounds > ROUNDS_MAX:
            raise PeerMisbehaved(f"cascade takes at most {ROUNDS_MAX} rounds")
        asked = decoded_question(question)
        bits = self._engine.price_bits(asked, PASSES_MAX)
        if self.disclosed_bits + bits > self._disclosed_bits_max:
            raise PeerMisbehaved(
                f"cascade would disclose more than {self._disclosed_bits_max} bits of this key"
            )
        self.disclosed_bits += bits
        return self._engine.parities(asked, bits)

    def wipe(self) -> None:
        self._engine.wipe()


class CascadeCorrector:
    """Bob's end: asks for parities and flips the bits that the searches end on."""

    def __init__(self, engine: CorrectorEngine, plan: CascadePlan) -> None:
        self._engine = engine
        self._disclosed_bits_max = plan.disclosed_bits_max
        self._rounds = 0
        self.disclosed_bits = 0
        self._next = engine.next_question(b"")

    def question(self) -> bytes | None:
        if self._next is None:
            return None
        self._rounds += 1
        if self._rounds > ROUNDS_MAX:
            raise PeerMisbehaved(f"cascade did not end within {ROUNDS_MAX} rounds")
        return encoded_question(self._next[0])

    def take(self, answer: bytes) -> None:
        invariant(self._next is not None, "an answer follows a question")
        assert self._next is not None
        bits = self._next[1]
        if len(answer) != -(-bits // 8):
            raise PeerMisbehaved(f"cascade answer has {len(answer)} bytes for {bits} parities")
        self.disclosed_bits += bits
        if self.disclosed_bits > self._disclosed_bits_max:
            raise PeerMisbehaved(f"cascade disclosed more than {self._disclosed_bits_max} bits")
        self._next = self._engine.next_question(answer)

    def corrected_key(self) -> Bits:
        invariant(self._next is None, "a key is corrected when nothing more is to be asked")
        return self._engine.corrected_key()

    def wipe(self) -> None:
        self._engine.wipe()
