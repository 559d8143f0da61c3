"""How a key is cut into frames for LDPC codes (wire format ``ldpc-1``).

A key of n bits is ceil(n / 64) words, lowest bit first, zeros behind. The words are put into another order,
so that bursts and drift spread over all frames: place p takes word ``take[p]``, where ``take`` sorts as many
numbers of 32 bits (little-endian, SHAKE-128 of ``OpenQCI ldpc v1 order`` and the public seed; equal ones keep
their order).

Frames take the places in turn. A frame of lift Z has 4 Z words, Z / 64 for each of the 256 columns of its
code: as many frames of Z = 1024 as are filled, then one of 512 and one of 256 if they are filled, then for
what is left one of 128, or of 256 where that is too short. Of that last frame's F slots the L words take slot
floor(j F / L); the others, like the bits behind the end of the key, are zero at both ends and *known*.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from openqci.distillation.reconciliation import Bits
from openqci.distillation.reconciliation.ldpc.ladder import COLUMNS, LIFTS, WORD_BITS, Indices, Words

EVERY_BIT = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


def frame_words(lift: int) -> int:
    """Return how many words of 64 bits a frame holds."""
    return COLUMNS * lift // WORD_BITS


@dataclass(frozen=True)
class Frames:
    """Into which frames a key is cut, and where each of its words goes."""

    key_bits: int
    public_seed: bytes

    @property
    def words(self) -> int:
        return -(-self.key_bits // WORD_BITS)

    @cached_property
    def lifts(self) -> tuple[int, ...]:
        """Lift of each frame."""
        full, rest = divmod(self.words, frame_words(LIFTS[0]))
        lifts = [LIFTS[0]] * full
        for lift in LIFTS[1:-1]:
            if rest >= frame_words(lift):
                lifts.append(lift)
                rest -= frame_words(lift)
        if rest:
            lifts.append(LIFTS[-1] if rest <= frame_words(LIFTS[-1]) else LIFTS[-2])
        return tuple(lifts)

    @cached_property
    def starts(self) -> Indices:
        """First slot of each frame, and the end of the last, shape (frames + 1,)."""
        return np.concatenate([[0], np.cumsum([frame_words(lift) for lift in self.lifts])]).astype(np.int64)

    @cached_property
    def _last_words(self) -> int:
        return self.words - int(self.starts[-2])

    @cached_property
    def _slots(self) -> Indices:
        """Slot of each word of the key, shape (words,)."""
        begin, end = int(self.starts[-2]), int(self.starts[-1])
        last = begin + np.arange(self._last_words, dtype=np.int64) * (end - begin) // self._last_words
        places = np.concatenate([np.arange(begin, dtype=np.int64), last])
        slots: Indices = np.empty(self.words, dtype=np.int64)
        slots[self._take] = places
        return slots

    @cached_property
    def _take(self) -> Indices:
        drawn = hashlib.shake_128(b"OpenQCI ldpc v1 order" + self.public_seed).digest(4 * self.words)
        return np.argsort(np.frombuffer(drawn, dtype="<u4"), kind="stable").astype(np.int64)

    def bits_of(self, frame: int) -> int:
        """Return how many bits of the key a frame holds, to the word."""
        last = frame == len(self.lifts) - 1
        return WORD_BITS * (self._last_words if last else frame_words(self.lifts[frame]))

    def cut(self, key: Bits) -> Words:
        """Return the slots of all frames, shape (starts[-1],); ``key`` has shape (n,)."""
        words = np.zeros(self.words, dtype="<u8")
        packed = np.packbits(key, bitorder="little")
        words.view(np.uint8)[: packed.size] = packed
        slots = np.zeros(int(self.starts[-1]), dtype="<u8")
        slots[self._slots] = words
        packed[:] = 0
        words[:] = 0
        return slots

    def joined(self, slots: Words) -> Bits:
        """Return the key of shape (n,) from the slots of all frames."""
        words = slots[self._slots]
        bits = np.unpackbits(words.view(np.uint8), count=self.key_bits, bitorder="little")
        words[:] = 0
        return bits

    def of(self, slots: Words, frame: int) -> Words:
        """Return one frame as a view, shape (256, lift / 64)."""
        part: NDArray[np.uint64] = slots[self.starts[frame] : self.starts[frame + 1]]
        return part.reshape(COLUMNS, -1)

    def known(self) -> Words:
        """Return the slots with every bit set that is zero at both ends, shape (starts[-1],)."""
        known = np.full(int(self.starts[-1]), EVERY_BIT, dtype="<u8")
        known[self._slots] = 0
        behind = -self.key_bits % WORD_BITS
        known[self._slots[-1]] = ~(EVERY_BIT >> np.uint64(behind))
        return known
