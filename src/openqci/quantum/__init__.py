"""Photon to raw bit: quantum links of every protocol, in closed form and drawn.

=====================  ============================  ================================================
protocol               its link                      closed form, and drawn detections
=====================  ============================  ================================================
decoy-state BB84       :class:`QuantumLink`          ``expected_statistics``, ``exchange``
BBM92, pulsed pump     :class:`PairLink`             ``bbm92_statistics``, ``pair_exchange``
BBM92, continuous      :class:`TimedPairLink`        ``cw_statistics``, ``timed_exchange``
MDI                    :class:`MdiLink`              ``mdi_statistics``, ``mdi_exchange``
twin field (SNS)       :class:`TwinFieldLink`        ``twin_field_statistics``, ``twin_field_exchange``
GG02                   :class:`GaussianLink`         ``gg02_statistics``, ``gg02_exchange``
=====================  ============================  ================================================

A link is a chain of small pure elements; of BB84, which the network runs, ``QuantumLink(DecoySource,
FibreChannel, Receiver)``. The same link is read in two ways that must agree, and do
(``tests/links/test_draw_agrees.py``): in closed form, and as single detections, drawn at a cost per
detection and never per pulse.

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
light of classical channels), ``drift`` (aerial fibre). Who else may measure the photons: ``interception``.
"""

from openqci.quantum.bbm92 import PairLink, PairReceiver, PulsedPairSource, bbm92_statistics, pair_exchange
from openqci.quantum.bbm92_cw import TimedPairLink, TimedReceiver, cw_statistics, timed_exchange
from openqci.quantum.coexistence import ClassicalChannel, QuantumFilter, coexistence_noise
from openqci.quantum.detectors import PhotonDetector, generic_detector, receiver_of
from openqci.quantum.elements import DecoySource, FibreChannel, Receiver
from openqci.quantum.exchange import Exchange, exchange
from openqci.quantum.fibre import FibreKind, FibreSpan, fibre_kind
from openqci.quantum.gg02 import (
    CoherentDetector,
    GaussianLink,
    GaussianLoss,
    GaussianSource,
    gg02_exchange,
    gg02_statistics,
)
from openqci.quantum.link import ExpectedStatistics, QuantumLink, expected_statistics
from openqci.quantum.mdi import BellStation, MdiArm, MdiLink, mdi_exchange, mdi_statistics
from openqci.quantum.twin_field import (
    PhaseStation,
    TwinArm,
    TwinFieldLink,
    twin_field_exchange,
    twin_field_statistics,
)

__all__ = [
    "BellStation",
    "ClassicalChannel",
    "CoherentDetector",
    "DecoySource",
    "Exchange",
    "ExpectedStatistics",
    "FibreChannel",
    "FibreKind",
    "FibreSpan",
    "GaussianLink",
    "GaussianLoss",
    "GaussianSource",
    "MdiArm",
    "MdiLink",
    "PairLink",
    "PairReceiver",
    "PhaseStation",
    "PhotonDetector",
    "PulsedPairSource",
    "QuantumFilter",
    "QuantumLink",
    "Receiver",
    "TimedPairLink",
    "TimedReceiver",
    "TwinArm",
    "TwinFieldLink",
    "bbm92_statistics",
    "coexistence_noise",
    "cw_statistics",
    "exchange",
    "expected_statistics",
    "fibre_kind",
    "generic_detector",
    "gg02_exchange",
    "gg02_statistics",
    "mdi_exchange",
    "mdi_statistics",
    "pair_exchange",
    "receiver_of",
    "timed_exchange",
    "twin_field_exchange",
    "twin_field_statistics",
]
