"""What a finite-key proof takes and gives: the counts of a block, and the length of its key."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from openqci.core.errors import OutsideModel

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DecoyCounts:
    """Sifted counts of one block, per intensity, brightest first.

    Every sequence has K entries. Counts are whole numbers in operation; expected values (floats) serve
    planning. In the key basis Z, errors are known once error correction is verified; in the test basis X,
    both ends have compared every bit.

    Parameters
    ----------
    z_counts, z_errors : sequence of float
        Sifted bits in the key basis sent at intensity k, and the errors among them.
    x_counts, x_errors : sequence of float
        The same in the test basis.
    intensities : sequence of float
        Mean photon numbers, strictly falling.
    probabilities : sequence of float
        How often each was sent, the same in both bases; they sum to one.

    Raises
    ------
    OutsideModel
        If a sequence has another length, a count is negative, infinite or NaN, errors exceed counts, or
        the source's figures are not as said above.
    """

    z_counts: Sequence[float]
    z_errors: Sequence[float]
    x_counts: Sequence[float]
    x_errors: Sequence[float]
    intensities: Sequence[float]
    probabilities: Sequence[float]
    z: "BasisCounts" = field(init=False, repr=False, compare=False)
    x: "BasisCounts" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_source(self.intensities, self.probabilities)
        source = as_floats(self.intensities), as_floats(self.probabilities)
        object.__setattr__(
            self, "z", BasisCounts(as_floats(self.z_counts), as_floats(self.z_errors), *source)
        )
        object.__setattr__(
            self, "x", BasisCounts(as_floats(self.x_counts), as_floats(self.x_errors), *source)
        )


@dataclass(frozen=True)
class BasisCounts:
    """The counts of one basis as arrays of shape (K,), with the source's intensities and probabilities."""

    counts: Floats
    errors: Floats
    intensities: Floats
    probabilities: Floats

    def __post_init__(self) -> None:
        if self.counts.shape != self.intensities.shape or self.errors.shape != self.intensities.shape:
            raise OutsideModel("counts", (self.counts.shape, self.errors.shape), "one value per intensity")
        if not (np.isfinite(self.counts).all() and np.isfinite(self.errors).all()):
            raise OutsideModel("counts", self.counts.tolist(), "finite numbers")
        if (self.errors < 0).any() or (self.errors > self.counts).any():
            raise OutsideModel("errors", self.errors.tolist(), "from zero to the number of counts")


class KeyLength(msgspec.Struct, frozen=True):
    """How many secret bits a block gives under a proof, and why.

    ``unclipped_bits`` is the same bound before it is cut off at zero and rounded down; optimisers climb it.
    ``vacuum_bits`` and ``single_photon_bits`` are lower bounds on key-basis events of that kind,
    ``phase_error`` an upper bound for the latter (one half when nothing can be said).
    """

    length_bits: int
    unclipped_bits: float
    phase_error: float
    single_photon_bits: float
    vacuum_bits: float
    epsilon_sec: float
    epsilon_cor: float
    proof_id: str

    @property
    def epsilon(self) -> float:
        """The composable security parameter of the key: secrecy and correctness together."""
        return self.epsilon_sec + self.epsilon_cor


class FiniteKeyProof(Protocol):
    """One security proof. A third party's proof is used like ours if it has these."""

    @property
    def proof_id(self) -> str: ...

    @property
    def reference(self) -> str: ...

    @property
    def intensities(self) -> int:
        """How many intensities the proof is for, signal and decoys."""

    def secret_length_bits(
        self, counts: DecoyCounts, leak_bits: float, epsilon_sec: float, epsilon_cor: float
    ) -> KeyLength:
        """Return how many bits privacy amplification may keep of the key-basis bits of this block.

        Parameters
        ----------
        counts : DecoyCounts
            Of the whole block; a bound is applied once to summed counts, never to parts.
        leak_bits : float
            Bits that error correction disclosed, less those that were one-time padded. ``log2(2 /
            epsilon_cor)`` bits for the verification tag are subtracted here and not booked by the caller.
        epsilon_sec, epsilon_cor : float
            Secrecy and correctness, each above 0 and below 1.

        Raises
        ------
        OutsideModel
            For another number of intensities than the proof has, a negative leak or an epsilon outside
            (0, 1). Never for valid counts, however poor: then the length is 0.
        """


def as_floats(values: Sequence[float]) -> Floats:
    return np.asarray(values, dtype=np.float64)


def check_source(intensities: Sequence[float], probabilities: Sequence[float]) -> None:
    if len(intensities) != len(probabilities) or len(intensities) < 2:
        raise OutsideModel("probabilities", tuple(probabilities), "one value per intensity, two or more")
    falling = all(a > b for a, b in pairwise(intensities))
    if not falling or not intensities[-1] >= 0 or not intensities[0] < 10:
        raise OutsideModel(
            "intensities", tuple(intensities), "strictly falling values from below 10 to 0 or more"
        )
    if not min(probabilities) > 0 or not abs(sum(probabilities) - 1) < 1e-9:
        raise OutsideModel("probabilities", tuple(probabilities), "positive values that sum to 1")


def check_budget(
    counts: DecoyCounts, intensities: int, leak_bits: float, epsilon_sec: float, epsilon_cor: float
) -> None:
    """Raise OutsideModel unless the arguments of ``secret_length_bits`` are in their ranges."""
    if len(counts.intensities) != intensities:
        raise OutsideModel("intensities", tuple(counts.intensities), f"{intensities} values for this proof")
    if not 0 <= leak_bits < float("inf"):
        raise OutsideModel("leak_bits", leak_bits, "a finite number, zero or more")
    for name, epsilon in (("epsilon_sec", epsilon_sec), ("epsilon_cor", epsilon_cor)):
        if not 0 < epsilon < 1:
            raise OutsideModel(name, epsilon, "above 0 and below 1")
