"""An eavesdropper among the photons: intercept and resend, on drawn detections.

Eve measures a pulse in a basis that she chooses at random and sends on what she found. In Alice's basis she
changes nothing; in the other, Bob's bit is random. She holds the rates: nobody misses a photon. An error rate
``E`` becomes ``E + p (1/4 - E/2)`` if she measures the fraction ``p`` of all pulses (C. H. Bennett et al.,
J. Cryptology 5, 3, 1992).

Left out: optimal bases and attacks on several pulses at once, which a proof covers. How this attack is
assessed, and others: :mod:`openqci.links.attacks`.
"""

from dataclasses import replace

import numpy as np

from openqci.quantum.elements import check_range
from openqci.quantum.exchange import Exchange


def intercepted(honest: Exchange, fraction: float, rng: np.random.Generator) -> Exchange:
    """Return an exchange of which Eve has measured a fraction of the pulses, 0 to 1.

    Double clicks, which records count but do not mark, stay as they are.
    """
    check_range("fraction", fraction, 0.0, 1.0)
    bob = honest.detections
    bits = bob.bits.copy()
    wrong = rng.random(len(bits)) < fraction / 2
    bits[wrong] = rng.integers(0, 2, int(np.count_nonzero(wrong)), dtype=np.uint8)
    return replace(honest, detections=replace(bob, bits=bits))
