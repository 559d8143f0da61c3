"""Syndromes and decoding as compiled kernels; the same integers as ``portable``, some forty times faster."""

import numpy as np

from openqci.distillation.reconciliation.ldpc.ladder import COLUMNS, WORD_BITS, Code, Words
from openqci.kernels import sum_product as kernels
from openqci.kernels.phi_tables import KNOWN


class CompiledDecoder:
    """A code at one lift, with the memory that decoding needs: 8 to 10 bytes for each bit of a frame.

    Without a route, the best of this processor is taken.
    """

    def __init__(self, code: Code, lift: int, route: kernels.Route | None = None) -> None:
        self._code, self._lift = code, lift
        self._shifts = code.shifts % lift
        stride = lift + 2 * kernels.GUARD
        self._blocks = kernels.GUARD + code.columns * stride
        self._posteriors = np.zeros(COLUMNS * stride + kernels.GUARD, dtype=np.int16)
        self._messages = np.zeros(code.columns.size * lift, dtype=np.int8)
        longest = int(np.diff(code.starts).max())
        self._scratch = np.zeros(longest * kernels.SCRATCH_LANES, dtype=np.int16)
        self._signs = np.zeros((2, code.rows * lift), dtype=np.int16)
        self._route = route or kernels.best_route()

    def syndrome(self, frame: Words) -> tuple[Words, Words]:
        """As :meth:`PortableDecoder.syndrome`."""
        code = self._code
        shape = (code.rows, self._lift // WORD_BITS)
        whole, front = np.empty(shape, dtype=np.uint64), np.empty(shape, dtype=np.uint64)
        kernels.write_syndrome(frame, code.columns, self._shifts, code.starts, code.middles, whole, front)
        return whole, front

    def errors(
        self, whole: Words, front: Words, split_words: int, prior: int, known: Words, iterations_max: int
    ) -> Words | None:
        """As :meth:`PortableDecoder.errors`."""
        code, lift = self._code, self._lift
        self._set_prior(prior, known)
        self._messages[:] = 0
        kernels.spread_signs(whole.reshape(-1), self._signs[0])
        kernels.spread_signs(front.reshape(-1), self._signs[1])
        errors = np.empty((COLUMNS, lift // WORD_BITS), dtype=np.uint64)
        iterations = kernels.decode(
            self._route,
            self._posteriors,
            self._messages,
            code.columns,
            self._blocks,
            self._shifts,
            code.starts,
            code.middles,
            code.split_lanes(lift, split_words),
            whole,
            front,
            self._signs[0],
            self._signs[1],
            lift,
            iterations_max,
            self._scratch,
            errors,
        )
        return errors if iterations else None

    def _set_prior(self, prior: int, known: Words) -> None:
        """Write what is known of every bit, with the copies before and behind each column."""
        guard = kernels.GUARD
        columns = self._posteriors[:-guard].reshape(COLUMNS, -1)
        columns[:] = prior
        if known.any():
            bits = np.unpackbits(known.view(np.uint8), axis=1, bitorder="little")
            columns[:, guard:-guard][bits != 0] = KNOWN
            columns[:, :guard] = columns[:, -2 * guard : -guard]
            columns[:, -guard:] = columns[:, guard : 2 * guard]

    def wipe(self) -> None:
        """Forget where the errors were."""
        for array in (self._posteriors, self._messages, self._scratch, self._signs):
            array[:] = 0
