"""Error correction by syndromes, as a method of reconciliation: one question, one answer, seldom more.

Alice sends, for each frame, the checks of a code of the ladder; Bob finds the errors that explain how his
checks differ from hers. A frame whose errors are not found after ``ITERATIONS_MAX`` iterations has more of
its checks split (:mod:`.ladder`), by Bob's question, up to ``ROUNDS_MAX`` rounds in all. A frame that still
cannot be decoded is left as it is: verification then fails, and the block is discarded.

Bob accepts errors only if they explain every disclosed check. Whether his key is Alice's is for verification
to say all the same: with a code of these rates, another word with the same checks is very unlikely, not
impossible.

Alice discloses 64 bits a word of checks, all of them booked; the codes have full rank, so none is said twice.
"""

import math
from typing import Protocol

import numpy as np

from openqci.core.errors import PeerMisbehaved, invariant
from openqci.distillation.reconciliation import Bits
from openqci.distillation.reconciliation.ldpc.frames import Frames
from openqci.distillation.reconciliation.ldpc.ladder import RUNGS, SPLIT_COST, WORD_BITS, Code, Words, code
from openqci.distillation.reconciliation.ldpc.wire import (
    Asked,
    LDPCPlan,
    decoded_question,
    encoded_plan,
    encoded_question,
    read_plan,
)
from openqci.kernels import kernels_available
from openqci.kernels.phi_tables import LLR_UNITS_PER_NAT, TABLE_SIZE

KEY_BITS_MAX = 1 << 27
PUBLIC_SEED_BYTES = 16
QBER_MIN, QBER_MAX = 1e-4, 0.25

ROUNDS_MAX = 9
"""Questions per key: the syndromes, and then more for frames that would not decode."""

MORE = 32
"""A frame that would not decode is asked for the 32nd part of its checks more."""

ITERATIONS_MAX = 80
OVERHEAD = 0.01
"""Disclosed above the threshold of the code at the estimated error rate."""

SPREAD_SIGMA = 3.0
"""And for so many standard deviations of the number of errors in a frame."""

LIMIT_OVER_SHANNON = 1.6
"""A key that costs more leaves nothing anyway, and a lying peer must not harvest syndromes."""


class Decoder(Protocol):
    """A code at one lift; see :class:`.portable.PortableDecoder`."""

    def syndrome(self, frame: Words) -> tuple[Words, Words]: ...

    def errors(
        self, whole: Words, front: Words, split_words: int, prior: int, known: Words, iterations_max: int
    ) -> Words | None: ...

    def wipe(self) -> None: ...


def binary_entropy(q: float) -> float:
    return -q * math.log2(q) - (1 - q) * math.log2(1 - q)


def planned_code(bits: int, lift: int, qber: float, overhead: float = OVERHEAD) -> tuple[int, int]:
    """Return the rows of the code for a frame with so many bits of the key, and the words to split at once.

    The rung that discloses least: one that discloses enough as it is, or a lower one with splits.
    """
    q = min(max(qber, QBER_MIN), QBER_MAX)
    spread = SPREAD_SIGMA * math.sqrt(bits * q * (1 - q)) * math.log2((1 - q) / q)
    wanted = bits * binary_entropy(q) * (1 + overhead) + spread
    choices = []
    for rows, threshold in RUNGS.items():
        checks = rows * lift
        share = max(0.0, wanted * threshold - checks) / checks
        beyond = wanted * (threshold + SPLIT_COST * share) - checks
        split_words = min(max(0, math.ceil(beyond / WORD_BITS)), checks // WORD_BITS)
        if beyond <= checks:
            choices.append((checks + WORD_BITS * split_words, rows, split_words))
    if not choices:
        return max(RUNGS), max(RUNGS) * lift // WORD_BITS
    return min(choices)[1:]


def _opening_bits(codes: tuple[tuple[int, int], ...], frames: Frames) -> int:
    pairs = zip(codes, frames.lifts, strict=True)
    return sum(rows * lift + WORD_BITS * split_words for (rows, split_words), lift in pairs)


class LDPC:
    """LDPC codes as a :class:`~openqci.distillation.reconciliation.ReconciliationMethod`.

    Parameters
    ----------
    overhead : float
        What Alice discloses above the threshold of her codes: the more, the fewer iterations.
    compiled : bool, optional
        False takes the portable decoder even where kernels are installed.
    """

    name = "ldpc-1"

    def __init__(self, *, overhead: float = OVERHEAD, compiled: bool | None = None) -> None:
        self._overhead = overhead
        self._compiled = kernels_available() if compiled is None else compiled

    def plan(self, key_bits: int, qber_estimate: float, qber_max: float, public_seed: bytes) -> bytes:
        frames = Frames(key_bits, public_seed)
        qber = min(max(qber_estimate, QBER_MIN), QBER_MAX)
        codes = tuple(
            planned_code(frames.bits_of(number), lift, qber, self._overhead)
            for number, lift in enumerate(frames.lifts)
        )
        highest = min(max(qber, qber_max), 0.5)
        limit = max(LIMIT_OVER_SHANNON * key_bits * binary_entropy(highest), _opening_bits(codes, frames))
        return encoded_plan(LDPCPlan(key_bits, qber, codes, public_seed, min(key_bits, math.ceil(limit))))

    def reference(self, key: Bits, plan: bytes) -> "LDPCReference":
        return LDPCReference(key, _checked_plan(plan, key.size), compiled=self._compiled)

    def corrector(self, key: Bits, plan: bytes) -> "LDPCCorrector":
        return LDPCCorrector(key, _checked_plan(plan, key.size), compiled=self._compiled)


def _checked_plan(plan: bytes, key_bits: int) -> LDPCPlan:
    decoded = read_plan(plan)
    if decoded.key_bits != key_bits:
        raise PeerMisbehaved(f"ldpc plan is for {decoded.key_bits} bits; this end has {key_bits}")
    if not 1 <= key_bits <= KEY_BITS_MAX:
        raise PeerMisbehaved(f"ldpc takes 1 to {KEY_BITS_MAX} bits, not {key_bits}")
    if not QBER_MIN <= decoded.qber <= QBER_MAX or len(decoded.public_seed) != PUBLIC_SEED_BYTES:
        raise PeerMisbehaved("ldpc plan has an error rate or a seed outside its limits")
    frames = Frames(key_bits, decoded.public_seed)
    if len(decoded.codes) != len(frames.lifts):
        raise PeerMisbehaved(f"ldpc plan has {len(decoded.codes)} codes for {len(frames.lifts)} frames")
    for (rows, split_words), lift in zip(decoded.codes, frames.lifts, strict=True):
        if rows not in RUNGS or not 0 <= split_words <= code(rows).check_words(lift):
            raise PeerMisbehaved("ldpc plan names a code that there is not")
    if not 0 < decoded.disclosed_bits_max <= key_bits:
        raise PeerMisbehaved("ldpc plan allows more disclosed bits than the key has")
    return decoded


class _Decoders:
    """Decoders by code and lift, made when they are first needed."""

    def __init__(self, *, compiled: bool) -> None:
        self._compiled = compiled
        self._made: dict[tuple[int, int], Decoder] = {}

    def of(self, rows: int, lift: int) -> Decoder:
        if (rows, lift) not in self._made:
            self._made[rows, lift] = self._new(code(rows), lift)
        return self._made[rows, lift]

    def _new(self, code: Code, lift: int) -> Decoder:
        if self._compiled:
            from openqci.distillation.reconciliation.ldpc.compiled import CompiledDecoder

            return CompiledDecoder(code, lift)
        from openqci.distillation.reconciliation.ldpc.portable import PortableDecoder

        return PortableDecoder(code, lift)

    def wipe(self) -> None:
        for decoder in self._made.values():
            decoder.wipe()


class _End:
    """What both ends have in common: the frames of a key, and how much of each is disclosed."""

    def __init__(self, key: Bits, plan: LDPCPlan, *, compiled: bool) -> None:
        self._plan = plan
        self._frames = Frames(key.size, plan.public_seed)
        self._slots = self._frames.cut(key)
        self._decoders = _Decoders(compiled=compiled)
        self._split_words = [0] * len(plan.codes)
        self._rounds = 0
        self.disclosed_bits = 0

    def _check_words(self, frame: int) -> int:
        return code(self._plan.codes[frame][0]).check_words(self._frames.lifts[frame])

    def _decoder(self, frame: int) -> Decoder:
        return self._decoders.of(self._plan.codes[frame][0], self._frames.lifts[frame])

    def _opening(self) -> list[int]:
        """Return how many words each frame takes in the first answer."""
        return [self._check_words(frame) + words for frame, (_, words) in enumerate(self._plan.codes)]

    def wipe(self) -> None:
        self._slots[:] = 0
        self._decoders.wipe()


class LDPCReference(_End):
    """Alice's end: discloses checks of her frames."""

    def answer(self, question: bytes) -> bytes:
        self._rounds += 1
        if self._rounds > ROUNDS_MAX:
            raise PeerMisbehaved(f"ldpc takes at most {ROUNDS_MAX} rounds")
        asked = decoded_question(question)
        opens = not asked.frames.size
        if opens is not (self._rounds == 1):
            raise PeerMisbehaved("the first ldpc question, and no other, asks for the syndromes")
        bits = WORD_BITS * self._price_words(asked)
        if self.disclosed_bits + bits > self._plan.disclosed_bits_max:
            raise PeerMisbehaved(
                f"ldpc would disclose more than {self._plan.disclosed_bits_max} bits of this key"
            )
        self.disclosed_bits += bits
        return b"".join(self._syndromes() if opens else self._more(asked))

    def _price_words(self, asked: Asked) -> int:
        if not asked.frames.size:
            return sum(self._opening())
        if int(asked.frames[-1]) >= len(self._split_words):
            raise PeerMisbehaved("ldpc question names a frame that there is not")
        for frame, words in zip(asked.frames.tolist(), asked.words.tolist(), strict=True):
            if self._split_words[frame] + words > self._check_words(frame):
                raise PeerMisbehaved("ldpc question asks for more halves than a frame has")
        return int(asked.words.sum(dtype=np.int64))

    def _syndromes(self) -> list[bytes]:
        parts = []
        for frame, (_, split_words) in enumerate(self._plan.codes):
            whole, front = self._decoder(frame).syndrome(self._frames.of(self._slots, frame))
            self._split_words[frame] = split_words
            parts += [whole.tobytes(), front.reshape(-1)[:split_words].tobytes()]
        return parts

    def _more(self, asked: Asked) -> list[bytes]:
        parts = []
        for frame, words in zip(asked.frames.tolist(), asked.words.tolist(), strict=True):
            _, front = self._decoder(frame).syndrome(self._frames.of(self._slots, frame))
            begin = self._split_words[frame]
            self._split_words[frame] = begin + words
            parts.append(front.reshape(-1)[begin : begin + words].tobytes())
        return parts


class LDPCCorrector(_End):
    """Bob's end: decodes, and asks for more where that fails."""

    def __init__(self, key: Bits, plan: LDPCPlan, *, compiled: bool) -> None:
        super().__init__(key, plan, compiled=compiled)
        nat = math.log((1 - plan.qber) / plan.qber)
        self._prior = min(TABLE_SIZE - 1, max(1, round(LLR_UNITS_PER_NAT * nat)))
        self._known = self._frames.known()
        self._differing: list[tuple[Words, Words]] = []
        """Of each frame: where Bob's checks and their front halves differ from Alice's, as far as known."""
        nothing = np.zeros(0, dtype=np.uint16)
        self._next: Asked | None = Asked(nothing, nothing)
        self._next_words = sum(self._opening())

    def question(self) -> bytes | None:
        if self._next is None:
            return None
        self._rounds += 1
        return encoded_question(self._next)

    def take(self, answer: bytes) -> None:
        invariant(self._next is not None, "an answer follows a question")
        assert self._next is not None
        if len(answer) != 8 * self._next_words:
            raise PeerMisbehaved(f"ldpc answer has {len(answer)} bytes for {self._next_words} words")
        self.disclosed_bits += WORD_BITS * self._next_words
        if self.disclosed_bits > self._plan.disclosed_bits_max:
            raise PeerMisbehaved(f"ldpc disclosed more than {self._plan.disclosed_bits_max} bits")
        words = np.frombuffer(answer, dtype="<u8")
        failed = [frame for frame in self._taken(self._next, words) if not self._decoded(frame)]
        self._ask_for_more(failed)

    def _taken(self, asked: Asked, words: Words) -> list[int]:
        """Keep an answer; return the frames that it is about."""
        if not self._differing:
            self._take_syndromes(words)
            return list(range(len(self._differing)))
        taken = 0
        for frame, count in zip(asked.frames.tolist(), asked.words.tolist(), strict=True):
            begin = self._split_words[frame]
            self._differing[frame][1].reshape(-1)[begin : begin + count] ^= words[taken : taken + count]
            self._split_words[frame] = begin + count
            taken += count
        return [int(frame) for frame in asked.frames]

    def _take_syndromes(self, words: Words) -> None:
        taken = 0
        for frame, (_, split_words) in enumerate(self._plan.codes):
            whole, front = self._decoder(frame).syndrome(self._frames.of(self._slots, frame))
            whole.reshape(-1)[:] ^= words[taken : taken + whole.size]
            taken += whole.size
            front.reshape(-1)[:split_words] ^= words[taken : taken + split_words]
            taken += split_words
            self._differing.append((whole, front))
            self._split_words[frame] = split_words

    def _decoded(self, frame: int) -> bool:
        """Correct a frame if its errors can be found; return whether they were."""
        whole, front = self._differing[frame]
        errors = self._decoder(frame).errors(
            whole,
            front,
            self._split_words[frame],
            self._prior,
            self._frames.of(self._known, frame),
            ITERATIONS_MAX,
        )
        if errors is None:
            return False
        own = self._frames.of(self._slots, frame)
        own ^= errors
        return True

    def _ask_for_more(self, failed: list[int]) -> None:
        """Ask for more halves of these frames, as far as there are some and the plan allows."""
        room = self._plan.disclosed_bits_max - self.disclosed_bits
        frames, words = [], []
        for frame in failed:
            checks = self._check_words(frame)
            more = min(checks - self._split_words[frame], max(1, checks // MORE), room // WORD_BITS)
            if more > 0:
                frames.append(frame)
                words.append(more)
                room -= WORD_BITS * more
        self._next = None
        if frames and self._rounds < ROUNDS_MAX:
            self._next = Asked(np.array(frames, dtype=np.uint16), np.array(words, dtype=np.uint16))
            self._next_words = sum(words)

    def corrected_key(self) -> Bits:
        invariant(self._next is None, "a key is corrected when nothing more is to be asked")
        return self._frames.joined(self._slots)

    def wipe(self) -> None:
        super().wipe()
        for whole, front in self._differing:
            whole[:] = 0
            front[:] = 0
