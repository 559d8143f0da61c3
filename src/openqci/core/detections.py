"""Raw key: what each end of a quantum link has recorded, before the two ends have spoken.

Bases are numbered 0 = Z (key) and 1 = X (test); intensities are indices into the source's list, the
brightest (signal) first. Slots are pulse numbers since the start of the exchange, strictly rising.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z_BASIS, X_BASIS = 0, 1

Slots = NDArray[np.int64]
Bits = NDArray[np.uint8]


@dataclass(frozen=True)
class EmissionRecord:
    """Alice's record. A real source keeps every pulse; a simulated one only those Bob may ask about.

    All arrays have shape (n,). ``pulses`` counts all pulses sent, detected or not.
    """

    slots: Slots
    bases: Bits
    bits: Bits
    intensities: Bits
    pulses: int


@dataclass(frozen=True)
class DetectionRecord:
    """Bob's record, shape (n,): the slots in which he had a click, the basis and the bit.

    Double clicks already carry a random bit (the squashing map of BB84); ``double_clicks`` counts them.
    """

    slots: Slots
    bases: Bits
    bits: Bits
    double_clicks: int
