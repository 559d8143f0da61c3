"""Cascade, batched: each round is one question with all positions and one answer with all parities.

Passes, in order:

* pass 0 takes the key as it lies, pass 1 and 2 take it permuted; each is cut into blocks (``block_bits``),
  and Alice discloses the parity at every block end;
* then *subset passes*: the whole of a random half of the key, a batch of them at once. A batch in which
  every subset agrees ends the correction: an error left over would have escaped it with 2**-16.

Where a block's parities differ, Bob halves it until the error stands alone (binary search), all blocks of
the pass side by side. Every parity ever disclosed is kept as a boundary of its pass, so a correction that
turns a block of an earlier pass odd reopens the *smallest* known piece around it and costs few bits more.

A disclosed parity is always that of the first m bits of a pass's order (the block's own parity is the
difference of two of them, the same information): Alice's end holds no state but the count.

What it is not: the record-speed form. It is also not one-way; see
:class:`openqci.distillation.leak.LeakLedger` for what Bob's questions tell an eavesdropper.

References: Brassard and Salvail, EUROCRYPT '93 (Cascade); Sugimoto and Yamazaki 2000 (random subsets at
the end, "BICONF"); Martinez-Mateo et al., arXiv:1407.3257 (block sizes, reuse of sub-block parities).
"""

import math
from collections.abc import Generator

import msgspec
import numpy as np

from openqci.core.errors import PeerMisbehaved, invariant
from openqci.distillation.reconciliation import Bits
from openqci.distillation.reconciliation.parity import (
    Positions,
    PrefixParity,
    pack,
    public_permutation,
    public_subset,
)

BLOCK_PASSES = 3
SUBSETS_PER_BATCH = 16
SUBSET_BATCHES_MAX = 40
PASSES_MAX = BLOCK_PASSES + SUBSETS_PER_BATCH * SUBSET_BATCHES_MAX

ROUNDS_MAX = 4_000
"""Questions per block; an honest block of any size takes a few hundred."""

QUESTION_BYTES_MAX = 1 << 24
KEY_BITS_MAX = 1 << 24
BLOCK_BITS_MIN = 4
QBER_ESTIMATE_MIN = 1e-4
PUBLIC_SEED_BYTES = 16

_POSITION_DTYPE = np.dtype("<u4")


class CascadePlan(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Public parameters of one block: agreed in the clear after the photons."""

    key_bits: int
    block_bits: tuple[int, int, int]
    public_seed: bytes
    disclosed_bits_max: int


class _Question(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Parities asked for: of all block ends of the ``opened`` passes, then of ``positions`` in ``passes``."""

    opened: tuple[int, ...] = ()
    passes: tuple[int, ...] = ()
    positions: tuple[bytes, ...] = ()


_encode = msgspec.msgpack.Encoder().encode
_plan_decoder = msgspec.msgpack.Decoder(CascadePlan)
_question_decoder = msgspec.msgpack.Decoder(_Question)


def block_sizes(key_bits: int, qber_estimate: float) -> tuple[int, int, int]:
    """Return the block sizes of the three block passes: powers of two, the first near 0.8 / QBER.

    Tuned for the fewest disclosed bits at 0.5 to 8 % (``tests/distillation/test_cascade.py``).
    """
    qber = max(qber_estimate, QBER_ESTIMATE_MIN)
    first = max(BLOCK_BITS_MIN, 2 ** round(math.log2(0.8 / qber)))
    limit = max(BLOCK_BITS_MIN, key_bits)
    return (min(first, limit), min(4 * first, limit), min(32 * first, limit))


class Cascade:
    """Cascade as a :class:`~openqci.distillation.reconciliation.ReconciliationMethod`."""

    name = "cascade-1"

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
        return CascadeReference(key, _decoded_plan(plan, key.size))

    def corrector(self, key: Bits, plan: bytes) -> "CascadeCorrector":
        return CascadeCorrector(key, _decoded_plan(plan, key.size))


def disclosed_bits_max(key_bits: int, qber_max: float) -> int:
    """Return how many parities a block may cost before it is given up: 1.6 times the Shannon limit.

    A block that costs more leaves no key anyway, and a lying peer must not harvest parities.
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
    if min(decoded.block_bits) < BLOCK_BITS_MIN or len(decoded.public_seed) != PUBLIC_SEED_BYTES:
        raise PeerMisbehaved("cascade plan has a block size or a seed outside its limits")
    if not 0 < decoded.disclosed_bits_max <= key_bits:
        raise PeerMisbehaved("cascade plan allows more disclosed bits than the key has")
    return decoded


class _Pass:
    """One order in which the key's bits are looked at, with the prefix parities of this end's key in it."""

    def __init__(self, key: Bits, plan: CascadePlan, index: int) -> None:
        self.order: Positions | None = None
        self.subset: Bits | None = None
        if index >= BLOCK_PASSES:
            self.subset = public_subset(key.size, plan.public_seed, index)
        elif index > 0:
            self.order = public_permutation(key.size, plan.public_seed, index)
        self.prefix = self._prefix_parity(key)

    def refresh(self, key: Bits) -> None:
        """Take the prefix parities again after corrections."""
        self.prefix.wipe()
        self.prefix = self._prefix_parity(key)

    def _prefix_parity(self, key: Bits) -> PrefixParity:
        if self.order is None:
            packed = pack(key)
        else:
            ordered = key[self.order]
            packed = pack(ordered)
            ordered[:] = 0
        if self.subset is not None:
            packed &= self.subset
        prefix = PrefixParity(packed)
        packed[:] = 0
        return prefix

    def key_positions(self, positions: Positions) -> Positions:
        """Return where in the key the bits at these positions of the pass lie."""
        return positions if self.order is None else self.order[positions]


def _block_ends(plan: CascadePlan, index: int) -> Positions:
    """Return the prefix lengths whose parities open a pass."""
    if index >= BLOCK_PASSES:
        return np.array([plan.key_bits], dtype=np.int64)
    size = plan.block_bits[index]
    ends = np.arange(size, plan.key_bits + size, size, dtype=np.int64)
    ends[-1] = plan.key_bits
    return ends


class CascadeReference:
    """Alice's end: answers questions about parities of prefixes of her key."""

    def __init__(self, key: Bits, plan: CascadePlan) -> None:
        self._key = key.copy()
        self._plan = plan
        self._passes: dict[int, _Pass] = {}
        self._rounds = 0
        self.disclosed_bits = 0

    def answer(self, question: bytes) -> bytes:
        asked = self._checked(question)
        wanted = [(index, _block_ends(self._plan, index)) for index in asked.opened]
        wanted += [
            (index, self._positions(positions))
            for index, positions in zip(asked.passes, asked.positions, strict=True)
        ]
        self._book(sum(positions.size for _, positions in wanted))
        parities = [self._pass(index).prefix.of_first(positions) for index, positions in wanted]
        return np.packbits(np.concatenate(parities), bitorder="little").tobytes()

    def wipe(self) -> None:
        self._key[:] = 0
        for one in self._passes.values():
            one.prefix.wipe()
        self._passes.clear()

    def _checked(self, question: bytes) -> _Question:
        self._rounds += 1
        if self._rounds > ROUNDS_MAX or len(question) > QUESTION_BYTES_MAX:
            raise PeerMisbehaved(f"cascade takes at most {ROUNDS_MAX} rounds of {QUESTION_BYTES_MAX} bytes")
        try:
            asked = _question_decoder.decode(question)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise PeerMisbehaved(f"cascade question cannot be read: {error}") from error
        if len(asked.passes) != len(asked.positions) or not (asked.opened or asked.passes):
            raise PeerMisbehaved("cascade question asks for nothing, or its lists differ in length")
        if any(not 0 <= index < PASSES_MAX for index in (*asked.opened, *asked.passes)):
            raise PeerMisbehaved(f"cascade has passes 0 to {PASSES_MAX - 1}")
        if len(asked.opened) + len(asked.passes) > PASSES_MAX:
            raise PeerMisbehaved(f"cascade question names more than {PASSES_MAX} passes")
        return asked

    def _positions(self, encoded: bytes) -> Positions:
        if len(encoded) % _POSITION_DTYPE.itemsize:
            raise PeerMisbehaved("cascade positions are 4 bytes each")
        positions = np.frombuffer(encoded, dtype=_POSITION_DTYPE).astype(np.int64)
        if positions.size and int(positions.max()) > self._plan.key_bits:
            raise PeerMisbehaved("cascade position lies beyond the key")
        return positions

    def _book(self, bits: int) -> None:
        if self.disclosed_bits + bits > self._plan.disclosed_bits_max:
            raise PeerMisbehaved(
                f"cascade would disclose more than {self._plan.disclosed_bits_max} bits of this block"
            )
        self.disclosed_bits += bits

    def _pass(self, index: int) -> _Pass:
        if index not in self._passes:
            self._passes[index] = _Pass(self._key, self._plan, index)
        return self._passes[index]


class _KnownPass(_Pass):
    """A pass at Bob's end: also what is known of Alice's prefix parities in it.

    ``known`` holds sorted numbers 2 * m + parity: Alice's parity of the first m bits is known.
    """

    def __init__(self, key: Bits, plan: CascadePlan, index: int, parities: Bits) -> None:
        super().__init__(key, plan, index)
        self.known = np.concatenate(([0], 2 * _block_ends(plan, index) + parities)).astype(np.int64)

    def learn(self, lengths_bits: Positions, parities: Bits) -> None:
        fresh = 2 * lengths_bits + parities
        fresh.sort()
        self.known = np.insert(self.known, np.searchsorted(self.known, fresh), fresh)

    def odd_pieces(self) -> tuple[Positions, Positions, Bits]:
        """Return begin, end and Alice's parity at begin of the smallest known pieces that hold an error."""
        lengths = self.known >> 1
        differs = self.prefix.of_first(lengths) ^ (self.known & 1).astype(np.uint8)
        odd = np.flatnonzero(differs[1:] != differs[:-1])
        return lengths[odd], lengths[odd + 1], differs[odd]


class CascadeCorrector:
    """Bob's end: asks for parities and flips the bits that the searches end on."""

    def __init__(self, key: Bits, plan: CascadePlan) -> None:
        self._key = key.copy()
        self._plan = plan
        self._passes: list[_KnownPass] = []
        self._stale: list[bool] = []
        self._rounds = 0
        self._corrected = np.zeros(key.size, dtype=np.bool_)
        self._expected_bits = 0
        self._finished = False
        self.disclosed_bits = 0
        self._steps = self._conversation()
        self._next: _Question | None = next(self._steps)

    def question(self) -> bytes | None:
        if self._next is None:
            return None
        self._rounds += 1
        if self._rounds > ROUNDS_MAX:
            raise PeerMisbehaved(f"cascade did not end within {ROUNDS_MAX} rounds")
        return _encode(self._next)

    def take(self, answer: bytes) -> None:
        bits = self._expected_bits
        if len(answer) != -(-bits // 8):
            raise PeerMisbehaved(f"cascade answer has {len(answer)} bytes for {bits} parities")
        self.disclosed_bits += bits
        if self.disclosed_bits > self._plan.disclosed_bits_max:
            raise PeerMisbehaved(f"cascade disclosed more than {self._plan.disclosed_bits_max} bits")
        parities = np.unpackbits(np.frombuffer(answer, dtype=np.uint8), count=bits, bitorder="little")
        try:
            self._next = self._steps.send(parities)
        except StopIteration:
            self._next, self._finished = None, True

    def corrected_key(self) -> Bits:
        invariant(self._finished, "a key is corrected when nothing more is to be asked")
        return self._key.copy()

    def wipe(self) -> None:
        self._steps.close()
        self._key[:] = 0
        for one in self._passes:
            one.prefix.wipe()
        self._passes.clear()

    def _conversation(self) -> Generator[_Question, Bits, None]:
        """Yield questions, receive parities: Cascade as one reads it in the paper."""
        for index in range(BLOCK_PASSES):
            yield from self._open([index])
            yield from self._settle()
        for batch in range(SUBSET_BATCHES_MAX):
            first = BLOCK_PASSES + batch * SUBSETS_PER_BATCH
            yield from self._open(list(range(first, first + SUBSETS_PER_BATCH)))
            if not self._any_odd(first):
                return
            yield from self._settle()
        raise PeerMisbehaved(f"cascade found new errors in {SUBSET_BATCHES_MAX} batches of random subsets")

    def _open(self, indices: list[int]) -> Generator[_Question, Bits, None]:
        sizes = [_block_ends(self._plan, index).size for index in indices]
        self._expected_bits = sum(sizes)
        parities = yield _Question(opened=tuple(indices))
        for index, one in zip(indices, np.split(parities, np.cumsum(sizes)[:-1]), strict=True):
            self._passes.append(_KnownPass(self._key, self._plan, index, one))
            self._stale.append(False)

    def _any_odd(self, first: int) -> bool:
        return any(one.odd_pieces()[0].size for one in self._passes[first:])

    def _settle(self) -> Generator[_Question, Bits, None]:
        """Search the odd pieces of the earliest pass that has some, until no pass has any."""
        unsettled = set(range(len(self._passes)))
        while unsettled:
            index = min(unsettled)
            one = self._passes[index]
            if self._stale[index]:
                one.refresh(self._key)
                self._stale[index] = False
            begin, end, differs = one.odd_pieces()
            if not begin.size:
                unsettled.discard(index)
                continue
            errors = yield from self._search(index, begin, end, differs)
            self._correct(one.key_positions(errors))
            self._stale = [True] * len(self._passes)
            unsettled = set(range(len(self._passes)))

    def _correct(self, positions: Positions) -> None:
        """Flip these bits. True parities never name a bit twice, so one that is named again ends it all."""
        if self._corrected[positions].any():
            raise PeerMisbehaved("cascade parities contradict each other")
        self._corrected[positions] = True
        self._key[positions] ^= 1

    def _search(
        self, index: int, begin: Positions, end: Positions, differs: Bits
    ) -> Generator[_Question, Bits, Positions]:
        """Halve every piece until it is one bit long; return those positions, shape of ``begin``."""
        one = self._passes[index]
        begin, end = begin.copy(), end.copy()
        learned: list[Positions] = []
        parities: list[Bits] = []
        while (wide := np.flatnonzero(end - begin > 1)).size:
            middle = (begin[wide] + end[wide]) >> 1
            self._expected_bits = wide.size
            answer = yield _Question(passes=(index,), positions=(middle.astype(_POSITION_DTYPE).tobytes(),))
            learned.append(middle)
            parities.append(answer)
            in_left = (one.prefix.of_first(middle) ^ answer) != differs[wide]
            end[wide] = np.where(in_left, middle, end[wide])
            begin[wide] = np.where(in_left, begin[wide], middle)
        if learned:
            one.learn(np.concatenate(learned), np.concatenate(parities))
        return begin
