"""Device profiles: what a class of QKD modules is made of, or what was measured of one.

A profile is hardware and processing: clock, receiver, block, epsilons, pauses; which protocol runs on it by
default and under which proof its key is kept. Eight are shipped (``profiles.yaml`` beside this file), six
generic classes and two field links as measured; others are read from files of the same form, whose JSON
Schema is :func:`profile_schema`. No figure of a link is ever told without the id of its profile.

Two kinds of prediction follow. From physics, with the receiver and the pulses, by
:func:`openqci.links.link_rate`. From measurement, with :class:`MeasuredCurve`: laboratory theory predicts
kilobits where two deployed 70 km links of 2026 gave 13 and 22 bit/s.

>>> profile("dv-metro").processing.block_sifted_bits
262144
>>> curve = profile("field-buried-2026").measured
>>> curve.secret_key_rate_bps(21.0)
22.2

Read :mod:`openqci.links.profiles.model` next.
"""

from openqci.links.profiles.model import (
    CoherentReceiver,
    DetectorFigures,
    Drift,
    MeasuredCurve,
    MeasuredPoint,
    Operation,
    PhotonReceiver,
    Processing,
    Profile,
    Pulses,
)
from openqci.links.profiles.reading import profile, profile_ids, profile_schema, read_profiles

__all__ = [
    "CoherentReceiver",
    "DetectorFigures",
    "Drift",
    "MeasuredCurve",
    "MeasuredPoint",
    "Operation",
    "PhotonReceiver",
    "Processing",
    "Profile",
    "Pulses",
    "profile",
    "profile_ids",
    "profile_schema",
    "read_profiles",
]
