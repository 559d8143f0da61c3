"""What a finite-key proof takes and gives: the counts of a block, and the length of its key."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from openqci.core.errors import OutsideModel

Floats = NDArray[np.float64]

NO_SINGLE_PHOTONS = "single photons: none can be bounded in the key basis; block too small or loss too high"
NO_SAMPLE = "the test sample: no single photon can be bounded in the test basis; block too small"
NO_PHASE_BOUND = "the phase error: nothing can be said of it from so small a sample or so many errors"
LEAK = "error correction: it discloses more than the single photons"
PHASE_ERROR = "the phase error: it leaves less of the single photons than error correction discloses"
FINITE_TERMS = "finite-size terms: the block is too small"


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

    def __post_init__(self) -> None:
        check_source(self.intensities, self.probabilities)
        for basis, counts, errors in (
            ("z", self.z_counts, self.z_errors),
            ("x", self.x_counts, self.x_errors),
        ):
            check_counts(basis, as_floats(counts), as_floats(errors), len(self.intensities))

    def as_arrays(self) -> "CountArrays":
        """Return the block as arrays of shape (K,)."""
        return CountArrays(
            as_floats(self.z_counts),
            as_floats(self.z_errors),
            as_floats(self.x_counts),
            as_floats(self.x_errors),
            as_floats(self.intensities),
            as_floats(self.probabilities),
        )


@dataclass(frozen=True)
class CountArrays:
    """Sifted counts of many blocks at once, for planning and for optimising settings.

    Every array has shape S + (K,), or one that broadcasts to it; what each means is said of
    :class:`DecoyCounts`. Nothing but shapes is checked: an optimiser asks a hundred thousand times.
    """

    z_counts: Floats
    z_errors: Floats
    x_counts: Floats
    x_errors: Floats
    intensities: Floats
    probabilities: Floats
    z: "BasisCounts" = field(init=False, repr=False, compare=False)
    x: "BasisCounts" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        faintness = np.exp(-self.intensities)
        source = self.intensities, self.probabilities, faintness
        object.__setattr__(self, "z", BasisCounts(self.z_counts, self.z_errors, *source))
        object.__setattr__(self, "x", BasisCounts(self.x_counts, self.x_errors, *source))


@dataclass(frozen=True)
class BasisCounts:
    """The counts of one basis as arrays of shape S + (K,), with the source's figures.

    ``faintness`` is exp(-k), the chance of an empty pulse of each intensity.
    """

    counts: Floats
    errors: Floats
    intensities: Floats
    probabilities: Floats
    faintness: Floats


@dataclass(frozen=True)
class KeyLengths:
    """What blocks give under a proof, arrays of shape S; see :class:`KeyLength` for each.

    ``sample_bits`` are single-photon events of the test basis, ``private_bits`` what is left of vacuum and
    single photons after the phase error, ``leak_bits`` what error correction disclosed.
    """

    unclipped_bits: Floats
    phase_error: Floats
    single_photon_bits: Floats
    vacuum_bits: Floats
    sample_bits: Floats
    private_bits: Floats
    leak_bits: Floats

    @property
    def length_bits(self) -> Floats:
        """Whole bits, zero or more."""
        return np.maximum(0.0, np.floor(self.unclipped_bits))

    @property
    def limited_by(self) -> NDArray[np.str_]:
        """Which term took the key where there is none; empty where there is one."""
        reasons = [
            (self.length_bits > 0, ""),
            (self.single_photon_bits <= 1, NO_SINGLE_PHOTONS),
            (self.sample_bits <= 1, NO_SAMPLE),
            (self.phase_error >= 0.5, NO_PHASE_BOUND),
            (self.vacuum_bits + self.single_photon_bits <= self.leak_bits, LEAK),
            (self.private_bits <= self.leak_bits, PHASE_ERROR),
        ]
        return np.select([holds for holds, _ in reasons], [words for _, words in reasons], FINITE_TERMS)


class KeyLength(msgspec.Struct, frozen=True):
    """How many secret bits a block gives under a proof, and why.

    ``unclipped_bits`` is the same before it is cut off at zero and rounded down; optimisers climb it.
    ``vacuum_bits`` and ``single_photon_bits`` are lower bounds on key-basis events of that kind,
    ``phase_error`` an upper bound for the latter (one half when nothing can be said). ``limited_by``
    says, when the length is zero, which term took the key.
    """

    length_bits: int
    unclipped_bits: float
    phase_error: float
    single_photon_bits: float
    vacuum_bits: float
    epsilon_sec: float
    epsilon_cor: float
    proof_id: str
    limited_by: str = ""

    @property
    def epsilon(self) -> float:
        """The composable security parameter of the key: secrecy and correctness together."""
        return self.epsilon_sec + self.epsilon_cor


class FiniteKeyProof(Protocol):
    """One security proof. A third party's proof is used like ours if it has these.

    The two verbs are one arithmetic: what planning optimises is what distillation keeps.
    """

    @property
    def proof_id(self) -> str: ...

    @property
    def reference(self) -> str: ...

    @property
    def intensities(self) -> int:
        """How many intensities the proof is for, signal and decoys."""

    @property
    def failure_terms(self) -> int:
        """Into how many equal parts ``epsilon_sec`` is cut: one each for privacy amplification, every
        bound on counts and every step of smoothing."""

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

    def secret_lengths(
        self, counts: CountArrays, leak_bits: ArrayLike, epsilon_sec: float, epsilon_cor: float
    ) -> KeyLengths:
        """Return the lengths of many blocks at once; ``leak_bits`` broadcasts to their shape S."""


def check_counts(basis: str, counts: Floats, errors: Floats, intensities: int) -> None:
    if counts.shape != (intensities,) or errors.shape != (intensities,):
        raise OutsideModel(f"{basis}_counts", (counts.shape, errors.shape), "one value per intensity")
    if not (np.isfinite(counts).all() and np.isfinite(errors).all()):
        raise OutsideModel(f"{basis}_counts", counts.tolist(), "finite numbers")
    if (errors < 0).any() or (errors > counts).any():
        raise OutsideModel(f"{basis}_errors", errors.tolist(), "from zero to the number of counts")


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
    check_epsilons(epsilon_sec, epsilon_cor)
    if not 0 <= leak_bits < float("inf"):
        raise OutsideModel("leak_bits", leak_bits, "a finite number, zero or more")


def check_epsilons(epsilon_sec: float, epsilon_cor: float) -> None:
    """Raise OutsideModel unless both are inside (0, 1)."""
    for name, epsilon in (("epsilon_sec", epsilon_sec), ("epsilon_cor", epsilon_cor)):
        if not 0 < epsilon < 1:
            raise OutsideModel(name, epsilon, "above 0 and below 1")


def one_length(lengths: KeyLengths, epsilon_sec: float, epsilon_cor: float, proof_id: str) -> KeyLength:
    """Return the only length of arrays without axes."""
    length_bits = int(lengths.length_bits)
    return KeyLength(
        length_bits=length_bits,
        unclipped_bits=float(lengths.unclipped_bits),
        phase_error=float(lengths.phase_error),
        single_photon_bits=float(lengths.single_photon_bits),
        vacuum_bits=float(lengths.vacuum_bits),
        epsilon_sec=epsilon_sec,
        epsilon_cor=epsilon_cor,
        proof_id=proof_id,
        limited_by="" if length_bits else str(lengths.limited_by),
    )
