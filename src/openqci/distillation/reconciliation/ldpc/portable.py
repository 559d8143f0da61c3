"""Syndromes and decoding in NumPy, for machines without compiled kernels: the same integers, bit for bit.

The arithmetic is that of :mod:`openqci.kernels.phi_tables`. The checks of a row have no bit in common, so a
row is one step here and 64 lanes at a time there, with the same result.
"""

import numpy as np
from numpy.typing import NDArray

from openqci.distillation.reconciliation.ldpc.ladder import COLUMNS, Code, Words
from openqci.kernels.phi_tables import FAR, FAR_SHIFT, KNOWN, NEAR, PHI, SUM_MAX, TABLE_SIZE

Lanes = NDArray[np.uint8]


def unpacked_lanes(words: Words) -> Lanes:
    """Return words of shape (a, w) as bits of shape (a, 64 w), lowest first."""
    return np.unpackbits(words.view(np.uint8), axis=1, bitorder="little")


def packed_lanes(bits: Lanes) -> Words:
    """Return bits of shape (a, 64 w) as words of shape (a, w)."""
    packed: Words = np.packbits(bits, axis=1, bitorder="little").view("<u8")
    return packed


class PortableDecoder:
    """A code at one lift."""

    def __init__(self, code: Code, lift: int) -> None:
        self._code, self._lift = code, lift
        self._posteriors: NDArray[np.int16] = np.empty((0, 0), dtype=np.int16)
        self._messages: NDArray[np.int8] = np.empty((0, 0), dtype=np.int8)

    def syndrome(self, frame: Words) -> tuple[Words, Words]:
        """Return the checks of all rows, and of their front halves; (256, lift / 64) to (rows, lift / 64)."""
        code, lift = self._code, self._lift
        bits = unpacked_lanes(np.ascontiguousarray(frame))
        whole = np.empty((code.rows, lift), dtype=np.uint8)
        front = np.empty_like(whole)
        for row in range(code.rows):
            edges = slice(code.starts[row], code.starts[row + 1])
            lanes = (code.shifts[edges, None] + np.arange(lift)) % lift
            taken = bits[code.columns[edges, None], lanes]
            middle = code.middles[row] - code.starts[row]
            front[row] = np.bitwise_xor.reduce(taken[:middle], axis=0)
            whole[row] = front[row] ^ np.bitwise_xor.reduce(taken[middle:], axis=0)
        bits[:] = 0
        return packed_lanes(whole), packed_lanes(front)

    def errors(
        self, whole: Words, front: Words, split_words: int, prior: int, known: Words, iterations_max: int
    ) -> Words | None:
        """Return the errors that explain a syndrome, shape (256, lift / 64), or None if none is found.

        Parameters
        ----------
        whole, front : (rows, lift / 64)
            Syndromes; of ``front`` the first ``split_words`` words count.
        prior : int
            Log-likelihood ratio of every bit beforehand, in eighths of a nat, 1 to 127.
        known : (256, lift / 64)
            Bits that are no errors.
        """
        code, lift = self._code, self._lift
        splits = code.split_lanes(lift, split_words)
        self._posteriors = np.where(unpacked_lanes(known) != 0, KNOWN, prior).astype(np.int16)
        self._messages = np.zeros((code.columns.size, lift), dtype=np.int8)
        whole_bits, front_bits = unpacked_lanes(whole), unpacked_lanes(front)
        counts = np.arange(whole.size).reshape(whole.shape) < split_words
        for _ in range(iterations_max):
            for row in range(code.rows):
                first, middle, last = code.starts[row], code.middles[row], code.starts[row + 1]
                split = int(splits[row])
                if split:
                    signs = front_bits[row, :split]
                    self._update(first, middle, 0, signs)
                    self._update(middle, last, 0, signs ^ whole_bits[row, :split])
                if split < lift:
                    self._update(first, last, split, whole_bits[row, split:])
            errors = packed_lanes((self._posteriors < 0).astype(np.uint8)).reshape(COLUMNS, -1)
            found, found_front = self.syndrome(errors)
            if np.array_equal(found, whole) and not ((found_front ^ front) * counts).any():
                return errors
        return None

    def _update(self, first: int, last: int, lane: int, syndrome: Lanes) -> None:
        """Update the checks of a row from ``lane`` on, over edges ``first`` to ``last - 1``."""
        code = self._code
        lanes = np.arange(lane, lane + syndrome.size)
        columns = code.columns[first:last, None]
        at = (code.shifts[first:last, None] + lanes) % self._lift
        values = self._posteriors[columns, at] - self._messages[first:last, lane : lane + syndrome.size]
        cut_off = np.clip(values, 1 - TABLE_SIZE, TABLE_SIZE - 1)
        phi = PHI[np.abs(cut_off)]
        rest = np.minimum(phi.sum(axis=0, dtype=np.int32), SUM_MAX) - phi
        fine = NEAR[np.minimum(rest, TABLE_SIZE - 1)]
        rough = FAR[np.minimum(rest >> FAR_SHIFT, TABLE_SIZE - 1)]
        negative = cut_off < 0
        odd = np.bitwise_xor.reduce(negative, axis=0) ^ (syndrome != 0)
        magnitudes = np.maximum(fine, rough)
        messages = np.where(negative ^ odd, -magnitudes, magnitudes)
        self._messages[first:last, lane : lane + syndrome.size] = messages
        self._posteriors[columns, at] = values + messages

    def wipe(self) -> None:
        """Forget where the errors were."""
        self._posteriors = np.empty((0, 0), dtype=np.int16)
        self._messages = np.empty((0, 0), dtype=np.int8)
