"""OpenQCI: the European Quantum Communication Infrastructure as software.

The packages stand in the order of a key's way; read them in this order:

``quantum``       photon to raw bit: sources, fibre, detectors, decoy-state BB84
``distillation``  raw, sifted, reconciled, secret: two parties over an authenticated channel
``proofs``        counts to how many secret bits may be kept
``keystore``      secret bytes at rest, each spent exactly once
``relay``         link keys to one end-to-end key, hop by hop with one-time pads
``delivery``      end-to-end key to application: ETSI GS QKD 014
``network``, ``links``, ``control``, ``twin``, ``services``, ``dashboard``, ``cli``: the network around it
"""

__version__ = "0.1.0"
