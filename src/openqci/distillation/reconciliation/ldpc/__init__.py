"""Error correction in one message: rate-adaptive LDPC codes of our own (``ldpc-1``).

For links on which a round trip is long: satellites, long or store-and-forward classical channels. Where it is
short, :mod:`openqci.distillation.reconciliation.cascade` discloses less.

==============  ===========================================================================================
``ladder``      14 quasi-cyclic codes, shipped as text in ``codes``, and the steps between them
``frames``      how a key of any length is cut for them
``wire``        plan, question and answer
``method``      :class:`LDPC`, with Alice's and Bob's end
``compiled``    syndromes and decoding as kernels (:mod:`openqci.kernels.sum_product`)
``portable``    the same in NumPy, with the same result to the bit
==============  ===========================================================================================
"""

from openqci.distillation.reconciliation.ldpc.method import LDPC

__all__ = ["LDPC"]
