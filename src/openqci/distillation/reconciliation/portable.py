"""Cascade's inner loops in NumPy, for machines without compiled kernels.

All frames go through a pass together. What is known of Alice is kept for each pass as one sorted list: a
*place* is frame * (bits + 1) + m and stands for the parity of the first m bits of that frame in the order of
the pass.
"""

from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray

from openqci.core.errors import PeerMisbehaved
from openqci.distillation.reconciliation import Bits
from openqci.distillation.reconciliation.frames import (
    BLOCK_PASSES,
    SUBSETS_PER_BATCH,
    Frames,
    Indices,
    Orders,
    Words,
    batch_masks,
    opening_bits,
)
from openqci.distillation.reconciliation.parity import PrefixParity
from openqci.distillation.reconciliation.questions import BEYOND, Asked

Conversation = Generator[tuple[Asked, int], Bits, None]


class _Order:
    """This end's key in the order of one block pass, with its prefix parities by frame."""

    def __init__(self, frames: Frames, positions: Indices, index: int) -> None:
        self._frames = frames
        self._positions = None if index == 0 else positions
        self._prefix: PrefixParity | None = None

    def take(self, key: Bits) -> None:
        """Take the prefix parities of a key, shape (frames, bits), anew."""
        self.wipe()
        ordered = key if self._positions is None else key[:, self._positions]
        packed = np.packbits(ordered, bitorder="little")
        self._prefix = PrefixParity(packed)
        packed[:] = 0

    def of_first(self, frames: Indices, lengths_bits: Indices) -> Bits:
        """Return the parities of the first bits of frames; all shapes (a,)."""
        assert self._prefix is not None
        starts = frames * self._frames.bits
        return self._prefix.of_first(starts + lengths_bits) ^ self._prefix.of_first(starts)

    def key_positions(self, frames: Indices, places: Indices) -> Indices:
        """Return where in the key the bits at these places of frames are."""
        within = places if self._positions is None else self._positions[places]
        positions: Indices = frames * self._frames.bits + within
        return positions

    def wipe(self) -> None:
        if self._prefix is not None:
            self._prefix.wipe()


def _orders(frames: Frames, public_seed: bytes) -> list[_Order]:
    drawn = Orders.drawn(frames.words, public_seed)
    return [_Order(frames, drawn.positions(index), index) for index in range(BLOCK_PASSES)]


def _block_ends(frames: Frames, block_bits: tuple[int, int, int], index: int, frame: int) -> Indices:
    """Return the prefix lengths whose parities open a pass: without the whole frame's after pass 0."""
    if index == 0:
        length = int(frames.lengths_bits[frame])
        ends = np.arange(block_bits[0], length + block_bits[0], block_bits[0], dtype=np.int64)
        ends[-1] = length
        return ends
    return np.arange(block_bits[index], frames.bits, block_bits[index], dtype=np.int64)


def _subset_parities(key: Words, mask: Words, lengths_bits: Indices) -> Bits:
    """Return the parities of the first bits of one frame within a mask; ``lengths_bits`` (a,)."""
    prefix = PrefixParity((key & mask).view(np.uint8))
    parities = prefix.of_first(lengths_bits)
    prefix.wipe()
    return parities


class PortableReference:
    """Alice's inner loops."""

    def __init__(self, key: Bits, block_bits: tuple[int, int, int], public_seed: bytes) -> None:
        self._frames = frames = Frames(key.size)
        self._block_bits, self._public_seed = block_bits, public_seed
        self._opening_bits = opening_bits(frames, block_bits)
        self._keys = frames.cut(key)
        self._orders = _orders(frames, public_seed)
        bits = np.unpackbits(self._keys.view(np.uint8), axis=1, bitorder="little")
        for order in self._orders:
            order.take(bits)
        bits[:] = 0

    def price_bits(self, asked: Asked, passes_max: int) -> int:
        frames, passes = asked.frames, asked.passes
        if int(frames.max()) >= self._frames.count or int(passes.max()) >= passes_max:
            raise PeerMisbehaved(BEYOND[-1])
        if int(asked.positions.max(initial=0)) >= self._frames.bits:
            raise PeerMisbehaved(BEYOND[-2])
        opens = asked.counts == 0
        blocks, halves = opens & (passes < BLOCK_PASSES), opens & (passes >= BLOCK_PASSES)
        if np.any((passes[halves].astype(np.int64) - BLOCK_PASSES) % SUBSETS_PER_BATCH):
            raise PeerMisbehaved(BEYOND[-3])
        opening = int(self._opening_bits[frames[blocks], passes[blocks]].sum())
        return asked.positions.size + opening + SUBSETS_PER_BATCH * int(np.count_nonzero(halves))

    def parities(self, asked: Asked, count: int) -> bytes:
        parities: list[Bits] = []
        taken = 0
        for frame, index, number in zip(asked.frames, asked.passes, asked.counts, strict=True):
            ends = asked.positions[taken : taken + number].astype(np.int64) + 1
            taken += int(number)
            parities.append(self._of_entry(int(frame), int(index), ends))
        return np.packbits(np.concatenate(parities), bitorder="little").tobytes()

    def _of_entry(self, frame: int, index: int, ends: Indices) -> Bits:
        if index < BLOCK_PASSES:
            if not ends.size:
                ends = _block_ends(self._frames, self._block_bits, index, frame)
            return self._orders[index].of_first(np.full(ends.size, frame), ends)
        batch, subset = divmod(index - BLOCK_PASSES, SUBSETS_PER_BATCH)
        masks = batch_masks(self._frames.words, self._public_seed, batch)
        if ends.size:
            return _subset_parities(self._keys[frame], masks[subset], ends)
        whole = np.array([self._frames.lengths_bits[frame]])
        return np.concatenate([_subset_parities(self._keys[frame], mask, whole) for mask in masks])

    def wipe(self) -> None:
        self._keys[:] = 0
        for order in self._orders:
            order.wipe()


class _Pass:
    """A block pass at Bob's end: his key in its order, and what is known of Alice's prefix parities."""

    def __init__(self, order: _Order, frames: Frames, places: Indices, parities: Bits) -> None:
        self.order = order
        self._stride = frames.bits + 1
        starts = np.arange(frames.count, dtype=np.int64) * self._stride
        self._known = np.sort(np.concatenate([2 * starts, 2 * places + parities]))

    def learn(self, places: Indices, parities: Bits) -> None:
        fresh = 2 * places + parities
        fresh.sort()
        self._known = np.insert(self._known, np.searchsorted(self._known, fresh), fresh)

    def parity_of(self, frames: Indices) -> Bits:
        """Return Alice's parity of the last known prefix of frames."""
        last = np.searchsorted(self._known, 2 * self._stride * (frames + 1)) - 1
        return (self._known[last] & 1).astype(np.uint8)

    def odd_pieces(self) -> tuple[Indices, Indices, Indices, Bits]:
        """Return frame, begin, end and Alice's parity at begin of the known pieces that hold an error."""
        frames, lengths = np.divmod(self._known >> 1, self._stride)
        alice = (self._known & 1).astype(np.uint8)
        differs = self.order.of_first(frames, lengths) ^ alice
        odd = np.flatnonzero((differs[1:] != differs[:-1]) & (frames[1:] == frames[:-1]))
        return frames[odd], lengths[odd], lengths[odd + 1], differs[odd]


class PortableCorrector:
    """Bob's inner loops."""

    def __init__(
        self, key: Bits, block_bits: tuple[int, int, int], public_seed: bytes, batches_max: int
    ) -> None:
        self._frames = frames = Frames(key.size)
        self._block_bits, self._public_seed, self._batches_max = block_bits, public_seed, batches_max
        self._key = np.zeros((frames.count, frames.bits), dtype=np.uint8)
        self._key.reshape(-1)[: key.size] = key
        self._corrected = np.zeros_like(self._key, dtype=np.bool_)
        self._orders = _orders(frames, public_seed)
        self._passes: list[_Pass] = []
        self._masks: Bits = np.zeros((SUBSETS_PER_BATCH, frames.bits), dtype=np.uint8)
        self._flags = np.zeros((frames.count, SUBSETS_PER_BATCH), dtype=np.uint8)
        self._steps = self._conversation()
        self._begun = False
        self._expected_bits = 0

    def next_question(self, parities: bytes) -> tuple[Asked, int] | None:
        try:
            if not self._begun:
                self._begun = True
                asked, self._expected_bits = next(self._steps)
            else:
                packed = np.frombuffer(parities, dtype=np.uint8)
                bits = np.unpackbits(packed, count=self._expected_bits, bitorder="little")
                asked, self._expected_bits = self._steps.send(bits)
        except StopIteration:
            return None
        return asked, self._expected_bits

    def corrected_key(self) -> Bits:
        return self._key.reshape(-1)[: self._frames.key_bits].copy()

    def wipe(self) -> None:
        self._steps.close()
        self._key[:] = 0
        for order in self._orders:
            order.wipe()

    def _conversation(self) -> Conversation:
        """Yield questions, receive parities: Cascade as one reads it in the paper."""
        for index in range(BLOCK_PASSES):
            yield from self._open_pass(index)
            yield from self._settle()
        open_frames = np.arange(self._frames.count)
        for batch in range(self._batches_max):
            open_frames = yield from self._open_batch(batch, open_frames)
            if not open_frames.size:
                return
            while self._flags.any():
                yield from self._search_subsets(batch)
                yield from self._settle()
        raise PeerMisbehaved(f"cascade found new errors in {self._batches_max} batches of random subsets")

    def _open_pass(self, index: int) -> Conversation:
        frames = np.arange(self._frames.count)
        ends = [_block_ends(self._frames, self._block_bits, index, int(frame)) for frame in frames]
        places = np.concatenate(ends) + np.repeat(frames, [each.size for each in ends]) * (
            self._frames.bits + 1
        )
        parities = yield _opening(frames, index), places.size
        if index > 0:
            whole = self._passes[0].parity_of(frames)
            places = np.concatenate([places, frames * (self._frames.bits + 1) + self._frames.bits])
            parities = np.concatenate([parities, whole])
        self._orders[index].take(self._key)
        self._passes.append(_Pass(self._orders[index], self._frames, places, parities))

    def _open_batch(self, batch: int, frames: Indices) -> Generator[tuple[Asked, int], Bits, Indices]:
        """Compare a batch of subsets; return the frames in which any differs."""
        masks = batch_masks(self._frames.words, self._public_seed, batch)
        self._masks = np.unpackbits(masks.view(np.uint8), axis=1, bitorder="little")
        first = BLOCK_PASSES + batch * SUBSETS_PER_BATCH
        parities = yield _opening(frames, first), SUBSETS_PER_BATCH * frames.size
        own = np.empty((frames.size, SUBSETS_PER_BATCH), dtype=np.uint8)
        for row, frame in enumerate(frames):
            packed = np.packbits(self._key[frame], bitorder="little").view(np.uint64)
            own[row] = np.bitwise_count(np.bitwise_xor.reduce(packed & masks, axis=1)) & 1
        self._flags[:] = 0
        self._flags[frames] = own ^ parities.reshape(-1, SUBSETS_PER_BATCH)
        differ: Indices = frames[self._flags[frames].any(axis=1)]
        return differ

    def _search_subsets(self, batch: int) -> Conversation:
        """Search the first odd subset of every frame that has one."""
        frames = np.flatnonzero(self._flags.any(axis=1))
        subsets = self._flags[frames].argmax(axis=1)
        passes = BLOCK_PASSES + batch * SUBSETS_PER_BATCH + subsets
        inside = self._key[frames] & self._masks[subsets]
        own = np.zeros((frames.size, self._frames.bits + 1), dtype=np.uint8)
        np.bitwise_xor.accumulate(inside, axis=1, out=own[:, 1:])
        begin, end = np.zeros(frames.size, dtype=np.int64), self._frames.lengths_bits[frames]
        differs = np.zeros(frames.size, dtype=np.uint8)
        while (wide := np.flatnonzero(end - begin > 1)).size:
            middle = (begin[wide] + end[wide]) >> 1
            parities = yield _question(frames[wide], passes[wide], middle), wide.size
            in_left = (own[wide, middle] ^ parities) != differs[wide]
            end[wide] = np.where(in_left, middle, end[wide])
            begin[wide] = np.where(in_left, begin[wide], middle)
        own[:] = 0
        if not self._masks[subsets, begin].all():
            raise PeerMisbehaved("cascade parities contradict each other")
        self._correct(frames * self._frames.bits + begin)

    def _settle(self) -> Conversation:
        """Search the odd pieces of the earliest pass that has some, until no pass has any."""
        settled = 0
        while settled < len(self._passes):
            one = self._passes[settled]
            frames, begin, end, differs = one.odd_pieces()
            if not begin.size:
                settled += 1
                continue
            places = yield from self._search(settled, frames, begin, end, differs)
            self._correct(one.order.key_positions(frames, places))
            settled = 0

    def _correct(self, positions: Indices) -> None:
        """Flip these bits. True parities never name a bit twice, so one that is named again ends it all."""
        if self._corrected.reshape(-1)[positions].any():
            raise PeerMisbehaved("cascade parities contradict each other")
        self._corrected.reshape(-1)[positions] = True
        self._key.reshape(-1)[positions] ^= 1
        frames, within = np.divmod(positions, self._frames.bits)
        np.bitwise_xor.at(self._flags, frames, self._masks[:, within].T)
        for each in self._passes:
            each.order.take(self._key)

    def _search(
        self, index: int, frames: Indices, begin: Indices, end: Indices, differs: Bits
    ) -> Generator[tuple[Asked, int], Bits, Indices]:
        """Halve every piece until it is one bit long; return those places, shape of ``begin``."""
        one = self._passes[index]
        begin, end = begin.copy(), end.copy()
        learned: list[Indices] = []
        answers: list[Bits] = []
        while (wide := np.flatnonzero(end - begin > 1)).size:
            middle = (begin[wide] + end[wide]) >> 1
            among = frames[wide]
            parities = yield _question(among, np.full(among.size, index), middle), wide.size
            learned.append(among * (self._frames.bits + 1) + middle)
            answers.append(parities)
            in_left = (one.order.of_first(among, middle) ^ parities) != differs[wide]
            end[wide] = np.where(in_left, middle, end[wide])
            begin[wide] = np.where(in_left, begin[wide], middle)
        if learned:
            one.learn(np.concatenate(learned), np.concatenate(answers))
        return begin


def _opening(frames: Indices, index: int) -> Asked:
    passes = np.full(frames.size, index, dtype="<u2")
    nothing = np.zeros(frames.size, dtype="<u2")
    return Asked(frames.astype("<u2"), passes, nothing, np.zeros(0, dtype="<u2"))


def _question(frames: Indices, passes: Indices, lengths_bits: Indices) -> Asked:
    """Ask for the parity of first bits, one for each entry of frame and pass; frames rise."""
    first = np.flatnonzero(np.diff(frames, prepend=-1))
    counts: NDArray[np.int64] = np.diff(first, append=frames.size)
    return Asked(
        frames[first].astype("<u2"),
        passes[first].astype("<u2"),
        counts.astype("<u2"),
        (lengths_bits - 1).astype("<u2"),
    )
