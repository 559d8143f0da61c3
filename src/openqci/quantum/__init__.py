"""Photon to raw bit: the quantum link of decoy-state BB84, simulated.

A link is a chain of small pure elements, ``QuantumLink(DecoySource, FibreChannel, Receiver)``. The same
model is read in two ways that must agree, and do (``tests/quantum/test_agreement.py``):
:func:`expected_statistics` gives it in closed form, :func:`exchange` draws single detections from it and
costs per detection, never per pulse.

This package holds both ends of a link, which only a model may do: nothing that is deployed imports it.
Alice and Bob each leave with their own record (:mod:`openqci.core.detections`) and nothing of the other's.

>>> import numpy as np
>>> source = DecoySource(1e9, intensities=(0.5, 0.15), probabilities=(0.7, 0.3), z_basis_probability=0.9)
>>> receiver = Receiver(loss_db=3.0, detector_efficiency=0.2, dark_count_probability=1e-6,
...                     dead_time_s=1e-8, misalignment_error=0.01, z_basis_probability=0.9)
>>> link = QuantumLink(source, FibreChannel.of_length(50.0), receiver)
>>> photons = exchange(link, 1000, np.random.Generator(np.random.SFC64(7)))
>>> len(photons.detections.slots), photons.emissions.pulses > 1000
(1000, True)

Read :mod:`openqci.quantum.elements` first, then ``clicks`` (the detector model), ``link``, ``exchange``.
Where the figures of an element come from: ``fibre`` (kinds and spans), ``detectors`` and ``encodings``
(which together make a receiver), ``timing`` (jitter and windows), ``coexistence`` (Raman scattering and other
light of classical channels), ``drift`` (aerial fibre).
"""

from openqci.quantum.detectors import PhotonDetector, generic_detector, receiver_of
from openqci.quantum.elements import DecoySource, FibreChannel, Receiver
from openqci.quantum.exchange import Exchange, exchange
from openqci.quantum.fibre import FibreKind, FibreSpan, fibre_kind
from openqci.quantum.link import ExpectedStatistics, QuantumLink, expected_statistics

__all__ = [
    "DecoySource",
    "Exchange",
    "ExpectedStatistics",
    "FibreChannel",
    "FibreKind",
    "FibreSpan",
    "PhotonDetector",
    "QuantumLink",
    "Receiver",
    "exchange",
    "expected_statistics",
    "fibre_kind",
    "generic_detector",
    "receiver_of",
]
